//! Capabilities that an inviter requires of packages, over HTTP.

use keypool_ledger::Timestamp;
use openmls::prelude::{
    BasicCredential, Capabilities, Ciphersuite, CredentialWithKey, ExtensionType, KeyPackage,
    Lifetime,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use openmls_traits::types::SignatureScheme;
use serde_json::{Value, json};
use tls_codec::Serialize;
use uuid::Uuid;

use crate::harness::{Answer, Api, Device, GROUP, NOW, Running};

/// A package of a device whose leaf lists these extensions.
fn package(device: &Device, now: Timestamp, extensions: &[u16]) -> Vec<u8> {
    let suite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
    let (private, public) = (device.key.to_bytes().to_vec(), device.keyid().as_bytes().to_vec());
    let signer = SignatureKeyPair::from_raw(SignatureScheme::ED25519, private, public);
    let extensions: Vec<_> = extensions.iter().copied().map(ExtensionType::from).collect();
    let capabilities = Capabilities::new(None, Some(&[suite]), Some(&extensions), None, None);
    let credential = BasicCredential::new(device.pool.user().as_bytes().to_vec()).into();
    let credential = CredentialWithKey { credential, signature_key: signer.public().into() };
    let lifetime = Lifetime::init(now.as_secs() - 3600, now.as_secs() + 24 * 3600);
    let bundle = KeyPackage::builder()
        .key_package_lifetime(lifetime)
        .leaf_node_capabilities(capabilities)
        .build(suite, &OpenMlsRustCrypto::default(), &signer, credential)
        .unwrap();
    bundle.key_package().tls_serialize_detached().unwrap()
}

async fn reserve(api: &Api, by: &Device, required: Value) -> Answer {
    let body = json!({
        "target_user": "bob", "group_id": GROUP, "reservation_id": Uuid::new_v4(),
        "required": required,
    });
    api.post(by, "/v1/keypackages/reserve", body).await
}

#[actix_web::test]
async fn an_inviter_is_handed_a_package_that_can_join_the_group() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 0).await;
    let api = &running.api;
    let grease = 0x1a1a;
    let packages = [vec![grease, 10], vec![10, 0xff01, 0xff02]];
    let packages = packages.map(|extensions| package(&bob, NOW, &extensions));
    let uploaded = api.upload(&bob, &packages).await.ok();
    let name = |place: usize| uploaded.body["items"][place]["keypackage_ref"].clone();

    let refused = reserve(api, &alice, json!({ "extensions": [10, 0xff03] })).await;
    assert_eq!((refused.status, refused.code()), (404, "requirement_unmet"));
    assert_eq!(refused.body["requirement"], json!({ "extension": 0xff03 }));
    let detail = "no package of bob has extension 0xff03 in its capabilities";
    assert_eq!(refused.text("detail"), detail);
    let refused = reserve(api, &alice, json!({ "credentials": [1, 2], "proposals": [8] })).await;
    assert_eq!(refused.body["requirement"], json!({ "proposal": 8 }));
    let refused = reserve(api, &alice, json!({ "extensions": [grease] })).await;
    assert_eq!(refused.code(), "requirement_unmet");

    let second = json!({ "extensions": [0xff01], "proposals": [1, 7], "credentials": [1] });
    let second = reserve(api, &alice, second).await.ok();
    assert_eq!(second.body["keypackage_ref"], name(1));
    let first = reserve(api, &alice, json!({ "extensions": [10] })).await.ok();
    assert_eq!(first.body["keypackage_ref"], name(0));
    let none = reserve(api, &alice, json!({ "extensions": [10] })).await;
    assert_eq!(none.code(), "pool_exhausted");
}

#[actix_web::test]
async fn null_requires_nothing() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 3).await;
    let nulls = json!({ "extensions": null, "proposals": null, "credentials": null });
    for required in [Value::Null, json!({}), nulls] {
        reserve(&running.api, &alice, required).await.ok();
    }
}

#[actix_web::test]
async fn a_request_for_many_names_the_devices_that_lack_a_capability() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let carol = Device::new("carol/phone");
    let running = Running::start().with(&[&alice, &carol, &bob], 0).await;
    let api = &running.api;
    api.upload(&bob, &[package(&bob, NOW, &[0xff01])]).await.ok();
    api.upload(&carol, &[package(&carol, NOW, &[10])]).await.ok();
    let body = json!({
        "group_id": GROUP, "reservation_id": Uuid::new_v4(),
        "targets": [{ "user": "bob" }, { "user": "carol" }],
        "required": { "extensions": [0xff01] },
    });
    let many = api.post(&alice, "/v1/keypackages/reserve-many", body).await.ok();
    assert_eq!(many.body["reservations"][0]["user"], "bob");
    assert_eq!(
        many.body["missing"],
        json!([{
            "user": "carol", "device": "phone", "code": "requirement_unmet",
            "requirement": { "extension": 0xff01 },
        }])
    );
    let named = json!({
        "target_user": "carol", "target_device": "phone", "group_id": GROUP,
        "required": { "extensions": [0xff01] },
    });
    let named = api.post(&alice, "/v1/keypackages/reserve", named).await;
    let detail = "no package of carol/phone has extension 0xff01 in its capabilities";
    assert_eq!(named.text("detail"), detail);
}

#[actix_web::test]
async fn more_requirements_than_a_request_may_name_are_refused() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 1).await;
    let numbers: Vec<u16> = (1000..1065).collect();
    let refused = reserve(&running.api, &alice, json!({ "extensions": numbers })).await;
    assert_eq!(refused.code(), "bad_request");
    assert_eq!(refused.text("detail"), "`required` names 65 capabilities; 64 at most");
    let unknown = reserve(&running.api, &alice, json!({ "versions": [1] })).await;
    assert_eq!(unknown.code(), "bad_request");
}

#[actix_web::test]
async fn what_a_package_can_do_is_in_its_event_and_outlives_the_server() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 0).await;
    running.api.upload(&bob, &[package(&bob, NOW, &[0x2a2a, 10, 0xff01])]).await.ok();
    let events = running.api.get(&bob, "/v1/keypackages/events").await.ok();
    let uploaded = &events.body["events"][1]["event"]["uploaded"];
    let expected = json!({ "extensions": [10, 0xff01], "credentials": [1] });
    assert_eq!(uploaded["capabilities"], expected);

    let Running { server, clock, data, .. } = running;
    server.stop().await;
    let settings = crate::harness::local_settings(data.path());
    let server = keypool_server::Server::start(settings, clock.clone()).unwrap();
    let api = Api::new(server.url(), clock);
    let refused = reserve(&api, &alice, json!({ "extensions": [0xff02] })).await;
    assert_eq!(refused.code(), "requirement_unmet");
    reserve(&api, &alice, json!({ "extensions": [0xff01] })).await.ok();
}
