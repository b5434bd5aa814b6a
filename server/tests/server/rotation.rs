//! Another key for a device, agreed to by the one before; another device for a user, vouched for by one.

use std::time::Duration;

use keypool_projections::statement::Agreement;
use serde_json::json;
use uuid::Uuid;

use crate::harness::{Device, Draft, NOW, Running, upload};

#[actix_web::test]
async fn the_next_key_speaks_for_the_device_and_the_one_before_no_more() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let next = bob.impostor();
    let running = Running::start().with(&[&alice, &bob], 3).await;
    let api = &running.api;
    let reserved = api.reserve(&alice, "bob").await.ok();
    let agreed = bob.agrees_to(api, &next).await;
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
    let api = &running.api;
    let for_another = bob.agrees_to(api, &third).await;
    let list = api.devices_of(&bob).await;
    let until = NOW.after(Duration::from_mins(4));
    let agreement = Agreement::Rotate(&thief.keyid());
    let own_word = thief.states_on(&list, &bob.pool, agreement, until);
    let mut by_thief = for_another.clone();
    by_thief["proof"] = own_word["proof"].clone();
    let mut garbage = for_another.clone();
    garbage["proof"] = json!(data_encoding::BASE64URL_NOPAD.encode(&[7; 64]));
    for rotation in [by_thief, for_another.clone(), garbage] {
        let refused = api.post(&thief, "/devices/rotate", rotation.clone()).await;
        assert_eq!(refused.code(), "not_allowed", "{rotation}");
    }
    let mut nothing = for_another.clone();
    nothing["proof"] = json!("");
    assert_eq!(api.post(&thief, "/devices/rotate", nothing).await.code(), "bad_request");
    // A key that is no longer the device's agrees to nothing more.
    let for_thief = bob.agrees_to(api, &thief).await;
    api.post(&third, "/devices/rotate", for_another).await.ok();
    let late = api.post(&thief, "/devices/rotate", for_thief).await;
    assert_eq!(late.code(), "statement_stale");
    // A key that speaks for another device cannot speak for this one too.
    let both = third.agrees_to(api, &alice).await;
    let taken = api.post(&alice, "/devices/rotate", both).await;
    assert_eq!(taken.code(), "identity_bound");
    let uploaded = running
        .api
        .send(&third, &Draft::post("/keypackages/upload", &upload(&[third.package(NOW)])))
        .await;
    uploaded.ok();
}

#[actix_web::test]
async fn a_device_vouches_for_another_one_of_its_user() {
    let (alice, mallory) = (Device::new("alice"), Device::new("mallory"));
    let running = Running::start().with(&[&mallory, &alice], 1).await;
    let api = &running.api;
    let phone = Device::new("alice/phone");
    assert_eq!(api.register(&phone).await.code(), "identity_bound");
    // A key of somebody else, a voucher for another device, and one that somebody else has signed.
    let tablet = Device::new("alice/tablet");
    let strangers = mallory.vouches_for(api, &phone).await;
    let for_another = alice.vouches_for(api, &tablet).await;
    let mut forged = strangers.clone();
    forged["keyid"] = json!(alice.keyid());
    for (voucher, code) in
        [(strangers, "identity_bound"), (for_another, "not_allowed"), (forged, "not_allowed")]
    {
        assert_eq!(api.register_with(&phone, &voucher).await.code(), code, "{voucher}");
    }
    let vouched = alice.vouches_for(api, &phone).await;
    assert_eq!(api.register_with(&phone, &vouched).await.status, 201);
    assert_eq!(api.register_with(&phone, &vouched).await.status, 200);
    // The second vouches for a third; all of them are listed, and anybody registered may ask.
    let third = phone.vouches_for(api, &tablet).await;
    assert_eq!(api.register_with(&tablet, &third).await.status, 201);
    let devices = api.get(&mallory, "/users/alice/devices").await.ok();
    assert_eq!(devices.body["devices"], json!(["main", "phone", "tablet"]));
    assert_eq!(api.get(&mallory, "/users/nobody/devices").await.code(), "unknown_user");
    let stranger = Device::new("stranger");
    assert_eq!(api.get(&stranger, "/users/alice/devices").await.code(), "unauthenticated");
}
