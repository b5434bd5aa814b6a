//! An app's backend in small: receives the events of `--webhook`, and prints them.
//!
//! `cargo run --example webhook_receiver -- --ledger-key KEY` takes the line `ledger key` of the server's
//! greeting. Then `keypool-server --webhook http://127.0.0.1:9000/` posts to it. A backend of a real app would
//! look the device's push token up, drop an event whose `id` it knows, and call APNs, FCM or UnifiedPush.

mod receiver;

use std::{
    io::{self, Write},
    net::SocketAddr,
    sync::Arc,
};

use actix_web::{
    App, HttpServer,
    web::{Data, post},
};
use clap::Parser;
use keypool_ledger::SystemClock;
use keypool_transparency::NoteKey;

use self::receiver::{WebhookReceiver, receive};

/// Receives the events of `--webhook`, and prints them.
#[derive(Debug, Parser)]
struct Cli {
    /// The address to listen at
    #[arg(long, default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// The host of the URL that the server has, with the port unless it is the scheme's own [default: the
    /// address]
    #[arg(long)]
    authority: Option<String>,
    /// The server's ledger key, as its greeting says it
    #[arg(long)]
    ledger_key: NoteKey,
}

#[actix_web::main]
async fn main() -> io::Result<()> {
    let Cli { listen, authority, ledger_key } = Cli::parse();
    let receiver = Data::new(WebhookReceiver {
        ledger_key,
        authority: authority.unwrap_or_else(|| listen.to_string()),
        clock: Arc::new(SystemClock),
        handle: Box::new(|event| {
            // Where standard output is closed, nobody reads the events.
            let _ = writeln!(io::stdout(), "{event:?}");
        }),
    });
    let app = move || App::new().app_data(receiver.clone()).default_service(post().to(receive));
    let server = HttpServer::new(app).bind(listen)?;
    for address in server.addrs() {
        writeln!(io::stderr(), "listening; start keypool-server --webhook http://{address}/")?;
    }
    server.run().await
}
