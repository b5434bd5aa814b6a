//! Another key for a device, agreed to by the one before; another device for a user, vouched for by one.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Device, Draft, NOW, Running, upload};

fn rotation(previous: &Device, proof: &str) -> Value {
    let (user, device) = (previous.pool.user(), previous.pool.device());
    json!({ "user": user, "device": device, "previous_keyid": previous.keyid(), "proof": proof })
}

#[actix_web::test]
async fn the_next_key_speaks_for_the_device_and_the_one_before_no_more() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let next = bob.impostor();
    let running = Running::start().with(&[&alice, &bob], 3).await;
    let api = &running.api;
    let reserved = api.reserve(&alice, "bob").await.ok();
    let agreed = rotation(&bob, &bob.agrees_to(&next));
    let draft = Draft::post("/devices/rotate", &agreed).key(Uuid::new_v4());
    let first = api.send(&next, &draft).await.ok();
    assert_eq!(first.body["keyid"], next.keyid().to_string());

    // Asked again, by the same request or by a new one, it is as it was.
    assert_eq!(api.send(&next, &draft).await.ok().body, first.body);
    api.post(&next, "/devices/rotate", agreed.clone()).await.ok();
    let status = api.get(&next, "/keypackages/status").await.ok();
    assert_eq!((&status.body["available"], &status.body["revoked"]), (&json!(0), &json!(3)));

    assert_eq!(api.get(&bob, "/keypackages/status").await.code(), "unauthenticated");
    let old = api.upload(&next, &[bob.package(NOW)]).await;
    assert_eq!(old.text("check"), "signature_key");
    api.upload(&next, &[next.package(NOW)]).await.ok();

    // What was handed out before can still be spent.
    let spent = api.claim(&alice, "/keypackages/spend", &reserved).await;
    assert_eq!((spent.status, &spent.body["spent"]), (200, &json!(true)));
    assert_eq!(api.get(&next, "/keypackages/status").await.ok().body["available"], 1);
}

#[actix_web::test]
async fn nobody_takes_a_device_over_without_its_key() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 1).await;
    let (thief, third) = (bob.impostor(), bob.impostor().impostor());
    let by_thief = thief.agrees_to(&thief);
    let for_another = bob.agrees_to(&third);
    let garbage = data_encoding::BASE64.encode(&[7; 64]);
    for proof in [by_thief.as_str(), &for_another, &garbage, ""] {
        let refused = running.api.post(&thief, "/devices/rotate", rotation(&bob, proof)).await;
        assert_eq!(refused.code(), "not_allowed", "{proof}");
    }
    // A key that is no longer the device's agrees to nothing more.
    let agreed = bob.agrees_to(&third);
    running.api.post(&third, "/devices/rotate", rotation(&bob, &agreed)).await.ok();
    let late =
        running.api.post(&thief, "/devices/rotate", rotation(&bob, &bob.agrees_to(&thief))).await;
    assert_eq!(late.code(), "identity_bound");
    // A key that speaks for another device cannot speak for this one too.
    let both = third.agrees_to(&alice);
    let taken = running.api.post(&alice, "/devices/rotate", rotation(&third, &both)).await;
    assert_eq!(taken.code(), "identity_bound");
    let uploaded = running
        .api
        .send(&third, &Draft::post("/keypackages/upload", &upload(&[third.package(NOW)])))
        .await;
    uploaded.ok();
}

fn registration(device: &Device, voucher: &Device, proof: &str) -> Value {
    let (user, name) = (device.pool.user(), device.pool.device());
    json!({ "user": user, "device": name, "voucher": { "keyid": voucher.keyid(), "proof": proof } })
}

#[actix_web::test]
async fn a_device_vouches_for_another_one_of_its_user() {
    let (alice, mallory) = (Device::new("alice"), Device::new("mallory"));
    let running = Running::start().with(&[&mallory, &alice], 1).await;
    let api = &running.api;
    let phone = Device::new("alice/phone");
    assert_eq!(api.register(&phone).await.code(), "identity_bound");
    // A key of somebody else, a proof for another device, and none at all.
    let tablet = Device::new("alice/tablet");
    for (voucher, proof, code) in [
        (&mallory, mallory.vouches_for(&phone), "identity_bound"),
        (&phone, phone.vouches_for(&phone), "identity_bound"),
        (&alice, alice.vouches_for(&tablet), "not_allowed"),
        (&alice, mallory.vouches_for(&phone), "not_allowed"),
        (&alice, String::new(), "not_allowed"),
    ] {
        let refused = api.post(&phone, "/devices", registration(&phone, voucher, &proof)).await;
        assert_eq!(refused.code(), code, "{proof}");
    }
    let vouched = registration(&phone, &alice, &alice.vouches_for(&phone));
    assert_eq!(api.post(&phone, "/devices", vouched.clone()).await.status, 201);
    assert_eq!(api.post(&phone, "/devices", vouched).await.status, 200);
    // The second vouches for a third; all of them are listed, and anybody registered may ask.
    let third = registration(&tablet, &phone, &phone.vouches_for(&tablet));
    assert_eq!(api.post(&tablet, "/devices", third).await.status, 201);
    let devices = api.get(&mallory, "/users/alice/devices").await.ok();
    assert_eq!(devices.body["devices"], json!(["main", "phone", "tablet"]));
    assert_eq!(api.get(&mallory, "/users/nobody/devices").await.code(), "unknown_user");
    let stranger = Device::new("stranger");
    assert_eq!(api.get(&stranger, "/users/alice/devices").await.code(), "unauthenticated");
}
