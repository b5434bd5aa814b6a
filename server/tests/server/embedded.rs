//! The API inside an actix server of an app's own.

use std::{net::TcpListener, sync::Arc};

use actix_web::{App, HttpServer, web};
use keypool_ledger::{Clock, ManualClock};
use keypool_server::{Ended, Server};
use serde_json::json;

use crate::harness::{Api, Device, NOW, local_settings};

#[actix_web::test]
async fn the_api_is_served_beside_an_apps_own_routes_from_one_log() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    let mut settings = local_settings(folder.path());
    settings.public_names = vec![authority.clone()];
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(NOW));
    let keypool = Server::start(settings, Arc::clone(&clock)).unwrap();
    let routes = keypool.routes();
    let own = async || "the app's own page";
    let app = move || App::new().configure(routes.clone()).route("/", web::get().to(own));
    let server = HttpServer::new(app).workers(1).listen(listener).unwrap().run();
    let handle = server.handle();
    actix_web::rt::spawn(server);

    let page = reqwest::get(format!("http://{authority}/")).await.unwrap();
    assert_eq!(page.text().await.unwrap(), "the app's own page");
    let api = Api::new(format!("http://{authority}"), clock);
    let (alice, bob) = (Device::new("alice/phone"), Device::new("bob/phone"));
    for device in [&alice, &bob] {
        let registered = api
            .post(
                device,
                "/v1/devices",
                json!({ "user": device.pool.user(), "device": device.pool.device() }),
            )
            .await
            .ok();
        assert!(!registered.header("x-request-id").is_empty(), "it is observed as everywhere");
    }
    let packages = crate::harness::upload(&bob.packages(NOW, 2));
    api.post(&bob, "/v1/keypackages/upload", packages).await.ok();
    let status = api.get(&bob, "/v1/keypackages/status").await.ok();
    assert_eq!(status.body["available"], 2);
    // What is not signed for this name is refused here as well.
    let elsewhere = Api::new(keypool.url(), Arc::new(ManualClock::at(NOW)));
    assert_eq!(elsewhere.get(&bob, "/v1/keypackages/status").await.code(), "unauthenticated");
    let nothing = reqwest::get(format!("http://{authority}/v1/nothing")).await.unwrap();
    assert_eq!(nothing.status(), 404);

    handle.stop(true).await;
    assert_eq!(keypool.stop().await, Ended::Stopped);
}
