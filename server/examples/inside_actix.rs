//! The KeyPackage API inside an app's own actix server, beside the app's other routes.
//!
//! `cargo run --example inside_actix` serves both at http://127.0.0.1:8080, with the log in ./keypool-data.

use std::{error::Error, sync::Arc};

use actix_web::{App, HttpServer, web};
use keypool_ledger::SystemClock;
use keypool_server::{Server, Settings};

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let settings = Settings {
        // The server's own address, for this machine alone; devices come to the app's.
        listen: "127.0.0.1:0".parse()?,
        public_names: vec!["127.0.0.1:8080".to_owned(), "localhost:8080".to_owned()],
        ..Settings::default()
    };
    let keypool = Server::start(settings, Arc::new(SystemClock))?;
    let routes = keypool.routes();
    let own = async || "the app's own page";
    let app = move || App::new().configure(routes.clone()).route("/", web::get().to(own));
    HttpServer::new(app).bind("127.0.0.1:8080")?.run().await?;
    // The app's server has stopped; now the log is closed.
    keypool.stop().await;
    Ok(())
}
