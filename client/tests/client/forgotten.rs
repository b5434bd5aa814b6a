//! Devices of a server whose operator has a user erased.

use keypool_client::MlsClient;
use keypool_server::Ended;

use super::{
    people::{alice_and_absent_bob, now},
    service::{Mail, Service, run},
};

/// Has a user erased, and the server begin anew.
async fn erase(service: Service, user: &str) -> Service {
    let url = format!("http://{}/names/erase", service.server.admin_address());
    let body = format!("{{\"user\":\"{user}\"}}");
    let asked = reqwest::Client::new().post(url).header("content-type", "application/json");
    let answer = asked.body(body).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(service.server.ended().await, Ended::Erasing);
    service.beneath(async |_, _| {}).await
}

/// Refreshes, and makes sure that nothing is found wrong.
async fn is_content(service: &Service, device: &MlsClient<Mail>) {
    device.connection().refresh_now(now(service)).await.unwrap();
    assert_eq!(device.audit().unwrap().findings, []);
}

#[test]
fn a_device_goes_on_when_the_user_who_has_invited_it_is_erased() {
    run(async {
        let service = Service::start_with(|settings| settings.hide_names = true);
        let (alice, group) = alice_and_absent_bob(&service, 3).await;
        alice.invite(&group, ["bob"]).await.unwrap();
        let bob = service.open("bob");
        bob.join(&service.mail.welcomes("bob")[0]).await.unwrap();
        is_content(&service, &bob).await;
        drop((alice, bob));
        let service = erase(service, "alice").await;

        let bob = service.open("bob");
        is_content(&service, &bob).await;
    });
}
