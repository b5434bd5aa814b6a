//! Session keys: agreed on, used in place of the device's key, and what nobody can do with them.

use std::{sync::Arc, time::Duration};

use data_encoding::BASE64;
use ed25519_dalek::Signer;
use keypool_ledger::{ManualClock, Timestamp};
use keypool_projections::{
    quota::Quotas,
    signing::{Exchange, Session, SessionId, SignedParts},
};
use keypool_server::{Server, SessionKeys, Settings};
use serde_json::{Value, json};

use crate::harness::{
    Answer, Api, Device, Draft, GROUP, NOW, Running, answer, claim, files, local_settings, upload,
};

const SESSIONS: &str = "/devices/sessions";

/// What is done to a header after signing.
type Change = fn(&str) -> String;

/// A device's side of an agreement; a test may know the secret.
fn exchange() -> Exchange {
    Exchange::new(&[7; 32].into())
}

fn asking() -> Draft {
    let public_key = BASE64.encode(&exchange().public_key());
    Draft::post(SESSIONS, &json!({ "public_key": public_key }))
}

/// The session that a server has answered.
fn session(device: &Device, answer: &Answer) -> Session {
    let theirs = BASE64.decode(answer.text("public_key").as_bytes()).unwrap();
    let id: SessionId = answer.text("session").parse().unwrap();
    exchange().at_device(&theirs.try_into().unwrap(), &device.keyid(), id).unwrap()
}

async fn agree(api: &Api, device: &Device) -> Session {
    let agreed = api.send(device, &asking()).await;
    assert_eq!(agreed.status, 201, "{}", agreed.body);
    session(device, &agreed)
}

async fn send_in(api: &Api, session: &Session, draft: &Draft) -> Answer {
    let now = api.clock.now();
    let headers = draft.signed_headers(api.authority(), |parts| parts.sign_in(session, now, 60));
    answer(api.with_headers(draft, &headers)).await.unwrap()
}

async fn post_in(api: &Api, session: &Session, path: &str, body: Value) -> Answer {
    send_in(api, session, &Draft::post(path, &body)).await
}

async fn status_in(api: &Api, session: &Session) -> Answer {
    send_in(api, session, &Draft::get("/keypackages/status")).await
}

#[track_caller]
fn check_refused(answer: &Answer, why: &str) {
    assert_eq!((answer.status, answer.code()), (401, "unauthenticated"), "{}", answer.body);
    assert!(answer.text("detail").starts_with(why), "{}", answer.text("detail"));
}

#[actix_web::test]
async fn a_session_stands_for_the_key_that_has_agreed_on_it() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 0).await;
    let api = &running.api;
    let agreed = api.send(&alice, &asking()).await;
    assert_eq!(agreed.body["expires_at"], NOW.as_secs() + 600);
    let (of_alice, of_bob) = (session(&alice, &agreed), agree(api, &bob).await);

    let packages = upload(&bob.packages(NOW, 2));
    let uploaded = post_in(api, &of_bob, "/keypackages/upload", packages).await.ok();
    assert_eq!(uploaded.body["accepted"], 2);
    let asked = json!({ "target_user": "bob", "group_id": GROUP });
    let reserving = Draft::post("/keypackages/reserve", &asked);
    let reserved = send_in(api, &of_alice, &reserving).await.ok();
    // The same request is the same one, whichever of the two has signed it.
    assert_eq!(api.send(&alice, &reserving).await.ok().body, reserved.body);
    let spend = "/keypackages/spend";
    let spent = post_in(api, &of_alice, spend, claim(spend, &reserved)).await.ok();
    assert_eq!(spent.body["spent"], true);
    let status = status_in(api, &of_bob).await.ok();
    assert_eq!((&status.body["available"], &status.body["spent"]), (&json!(1), &json!(1)));
    // Somebody else's session is somebody else.
    let other = api.reserve(&alice, "bob").await.ok();
    let stolen = post_in(api, &of_bob, spend, claim(spend, &other)).await;
    assert_eq!(stolen.code(), "reservation_mismatch", "{}", stolen.body);
}

#[actix_web::test]
async fn a_session_ends_in_its_time_and_with_the_server() {
    let alice = Device::new("alice");
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(NOW));
    let start = || {
        let server = Server::start(local_settings(dir.path()), clock.clone()).unwrap();
        let api = Api::new(server.url(), clock.clone());
        (server, api)
    };
    let (server, api) = start();
    api.register(&alice).await.ok();
    let first = agree(&api, &alice).await;
    clock.advance(Duration::from_secs(599));
    status_in(&api, &first).await.ok();
    clock.advance(Duration::from_secs(1));
    check_refused(&status_in(&api, &first).await, "session: it has ended, or is not known");
    api.get(&alice, "/keypackages/status").await.ok();

    let second = agree(&api, &alice).await;
    status_in(&api, &second).await.ok();
    server.stop().await;
    // It is in no file.
    let id = second.id().to_string();
    for file in files(dir.path()) {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(id.len()).any(|part| part == id.as_bytes()), "{file:?}");
    }
    let (_server, api) = start();
    check_refused(&status_in(&api, &second).await, "session: it has ended, or is not known");
    let third = agree(&api, &alice).await;
    status_in(&api, &third).await.ok();
}

#[actix_web::test]
async fn agreeing_leaves_nothing_in_the_log_and_again_is_anew() {
    let alice = Device::new("alice");
    let running = Running::start().with(&[&alice], 0).await;
    let api = &running.api;
    let before = api.get(&alice, "/keypackages/status").await.ok().body["position"].clone();
    let draft = asking();
    let (first, second) = (api.send(&alice, &draft).await, api.send(&alice, &draft).await);
    assert_ne!(first.text("session"), second.text("session"));
    assert_ne!(first.text("public_key"), second.text("public_key"));
    let status = status_in(api, &session(&alice, &first)).await.ok();
    assert_eq!(status.body["position"], before);
    status_in(api, &session(&alice, &second)).await.ok();
    let metrics = answer(api.http.get(format!("{}/metrics", running.admin_url()))).await.unwrap();
    let metrics = String::from_utf8(metrics.bytes).unwrap();
    assert!(metrics.contains("\nkeypool_sessions 2\n"), "{metrics}");
}

#[actix_web::test]
async fn a_session_of_a_key_that_speaks_for_nobody_is_worth_nothing() {
    let (alice, phone) = (Device::new("alice"), Device::new("alice/phone"));
    let running = Running::start().with(&[&alice], 0).await;
    let api = &running.api;
    let voucher = json!({ "keyid": alice.keyid(), "proof": alice.vouches_for(&phone) });
    let vouched = json!({ "user": "alice", "device": "phone", "voucher": voucher });
    api.post(&phone, "/devices", vouched).await.ok();
    let (of_alice, of_phone) = (agree(api, &alice).await, agree(api, &phone).await);

    let next = alice.impostor();
    let agreed = json!({
        "user": "alice", "previous_keyid": alice.keyid(), "proof": alice.agrees_to(&next),
    });
    api.post(&next, "/devices/rotate", agreed).await.ok();
    check_refused(&status_in(api, &of_alice).await, "unregistered key: ");
    status_in(api, &of_phone).await.ok();
    api.delete(&next, "/devices/phone").await.ok();
    check_refused(&status_in(api, &of_phone).await, "unregistered key: ");
    check_refused(&api.send(&phone, &asking()).await, "unregistered key: ");
    check_refused(&api.send(&alice, &asking()).await, "unregistered key: ");
    status_in(api, &agree(api, &next).await).await.ok();
}

#[actix_web::test]
async fn a_mailbox_that_waits_lets_go_when_the_sessions_device_is_removed() {
    let (alice, phone) = (Device::new("alice"), Device::new("alice/phone"));
    let running = Running::start().with(&[&alice], 0).await;
    let api = running.api.clone();
    let voucher = json!({ "keyid": alice.keyid(), "proof": alice.vouches_for(&phone) });
    let vouched = json!({ "user": "alice", "device": "phone", "voucher": voucher });
    api.post(&phone, "/devices", vouched).await.ok();
    let session = agree(&api, &phone).await;
    let waiting = actix_web::rt::spawn(async move {
        send_in(&api, &session, &Draft::get("/mailbox?wait=1")).await
    });
    running.api.delete(&alice, "/devices/phone").await.ok();
    let told = waiting.await.unwrap();
    check_refused(&told, "unregistered key: ");
}

#[actix_web::test]
async fn what_changes_keys_needs_the_key_itself() {
    let alice = Device::new("alice");
    let running = Running::start().with(&[&alice], 0).await;
    let api = &running.api;
    let session = agree(api, &alice).await;
    let rotation = json!({
        "user": "alice", "previous_keyid": alice.keyid(), "proof": alice.agrees_to(&alice),
    });
    for draft in [
        Draft::post("/devices", &json!({ "user": "alice" })),
        Draft::post("/devices/rotate", &rotation),
        Draft::delete("/devices/main"),
        Draft::post("/keypackages/rotate", &upload(&[alice.package(NOW)])),
        asking(),
    ] {
        let refused = send_in(api, &session, &draft).await;
        check_refused(
            &refused,
            "session: it does not do here; sign this request with the device's",
        );
    }
    status_in(api, &session).await.ok();
}

#[actix_web::test]
async fn no_request_is_signed_in_both_ways() {
    let (alice, mallory) = (Device::new("alice"), Device::new("mallory"));
    let running = Running::start().with(&[&alice, &mallory], 0).await;
    let api = &running.api;
    let (of_alice, of_mallory) = (agree(api, &alice).await, agree(api, &mallory).await);
    let draft = Draft::get("/keypackages/status");
    let sent = async |input: &dyn Fn(&str) -> String, sign: &dyn Fn(&[u8]) -> Vec<u8>| {
        // Signed with the parameters as they are sent.
        let now = api.clock.now();
        let headers = draft.signed_headers(api.authority(), |parts| {
            let mut headers = parts.sign_in(&of_alice, now, 60);
            headers.signature_input = input(&headers.signature_input);
            let params = headers.signature_input.strip_prefix("kp=").unwrap();
            let signature = BASE64.encode(&sign(parts.base(params).as_bytes()));
            headers.signature = format!("kp=:{signature}:");
            headers
        });
        answer(api.with_headers(&draft, &headers)).await.unwrap()
    };
    let keyid = alice.keyid();
    let by_key = |base: &[u8]| alice.key.sign(base).to_bytes().to_vec();
    let by_public_key = |base: &[u8]| {
        let public_key: [u8; 32] = alice.keyid().as_bytes().try_into().unwrap();
        Session::with_key(of_alice.id(), public_key.into()).sign(base)
    };
    let in_session = |base: &[u8]| of_alice.sign(base);
    let in_mallorys = |base: &[u8]| of_mallory.sign(base);
    let as_it_is = |input: &str| input.to_owned();
    let named =
        |input: &str| input.replace(&format!("session:{}", of_alice.id()), &keyid.to_string());
    let ed25519 = |input: &str| input.replace("hmac-sha256", "ed25519");

    sent(&as_it_is, &in_session).await.ok();
    let wrong = "bad signature: it does not verify with this session for this request";
    // An HMAC with what everybody knows, an Ed25519 signature, another's session.
    for sign in [&by_public_key as &dyn Fn(&[u8]) -> Vec<u8>, &by_key, &in_mallorys] {
        check_refused(&sent(&as_it_is, sign).await, wrong);
    }
    let form = "bad signature: the signature is not of the profile";
    // The algorithm of one with the name of the other.
    for sign in [&by_public_key as &dyn Fn(&[u8]) -> Vec<u8>, &by_key, &in_session] {
        check_refused(&sent(&named, sign).await, form);
        check_refused(&sent(&ed25519, sign).await, form);
    }
    // An HMAC where a signature is due has too few bytes, whatever its secret.
    let both = |input: &str| ed25519(&named(input));
    sent(&both, &by_key).await.ok();
    for sign in [&by_public_key as &dyn Fn(&[u8]) -> Vec<u8>, &in_session] {
        check_refused(&sent(&both, sign).await, "bad signature: an Ed25519 signature has 64 bytes");
    }
}

#[actix_web::test]
async fn a_request_in_a_session_holds_for_what_it_says() {
    let alice = Device::new("alice");
    let running = Running::start().with(&[&alice], 0).await;
    let (api, other) = (&running.api, Running::start().with(&[&alice], 0).await);
    let session = agree(api, &alice).await;
    let draft = Draft::post("/keypackages/revoke", &json!({ "all": true, "reason": "withdrawn" }));
    let signed = |authority: &str, at: Timestamp| {
        draft.signed_headers(authority, |parts| parts.sign_in(&session, at, 60))
    };
    let sent = async |headers: &[(&'static str, String)]| {
        answer(api.with_headers(&draft, headers)).await.unwrap()
    };
    sent(&signed(api.authority(), NOW)).await.ok();
    // Another server knows nothing of it, and what is signed for another is not taken here.
    check_refused(&send_in(&other.api, &session, &draft).await, "session: ");
    let wrong = "bad signature: it does not verify with this session";
    check_refused(&sent(&signed("keypool.example", NOW)).await, wrong);
    let changes: [(&str, Change); 3] = [
        ("signature-input", |input| input.replace("expires=1766400060", "expires=1766400061")),
        ("signature-input", |input| input.replace("created=1766400000", "created=1766399999")),
        ("idempotency-key", |_| uuid::Uuid::now_v7().to_string()),
    ];
    for (name, change) in changes {
        let mut headers = signed(api.authority(), NOW);
        let header = headers.iter_mut().find(|(found, _)| *found == name).unwrap();
        header.1 = change(&header.1);
        check_refused(&sent(&headers).await, wrong);
    }
    let early = signed(api.authority(), Timestamp::from_secs(NOW.as_secs() - 91));
    let refused = sent(&early).await;
    check_refused(&refused, "clock: ");
    assert_eq!(refused.body["server_time"], NOW.as_secs());
    let unknown = Session::with_key(SessionId::from_bytes([0; 16]), [0; 32].into());
    check_refused(&status_in(api, &unknown).await, "session: it has ended, or is not known");
}

#[actix_web::test]
async fn keys_with_which_everybody_has_the_same_secret_are_refused() {
    let alice = Device::new("alice");
    let running = Running::start().with(&[&alice], 0).await;
    for bytes in [&[0; 32][..], &[7; 31], &[7; 33], &[]] {
        let body = json!({ "public_key": BASE64.encode(bytes) });
        let refused = running.api.post(&alice, SESSIONS, body).await;
        assert_eq!((refused.status, refused.code()), (400, "bad_request"), "{bytes:?}");
    }
}

/// What a server that listens everywhere says to a device that asks.
async fn asked_in_public(keys: SessionKeys) -> Answer {
    let alice = Device::new("alice");
    let running = Running::start_with(|settings: &mut Settings| {
        settings.listen = "0.0.0.0:0".parse().unwrap();
        settings.public_names = vec!["keypool.example".to_owned()];
        settings.sessions.keys = keys;
    });
    let url = running.api.url.replace("0.0.0.0", "127.0.0.1");
    let send = async |draft: &Draft| {
        let api = Api { url: url.clone(), ..running.api.clone() };
        let headers = draft.headers(&alice, "keypool.example", NOW);
        let request = api.with_headers(draft, &headers).header("host", "keypool.example");
        answer(request).await.unwrap()
    };
    send(&Draft::post("/devices", &json!({ "user": "alice" }))).await.ok();
    send(&asking()).await
}

#[actix_web::test]
async fn sessions_are_offered_on_loopback_or_where_the_operator_says_that_tls_ends_before() {
    let refused = asked_in_public(SessionKeys::Loopback).await;
    assert_eq!((refused.status, refused.code()), (403, "not_allowed"), "{}", refused.body);
    assert_eq!(asked_in_public(SessionKeys::On).await.status, 201);
    let alice = Device::new("alice");
    let running = Running::start_with(|settings| settings.sessions.keys = SessionKeys::Off);
    let running = running.with(&[&alice], 0).await;
    let refused = running.api.send(&alice, &asking()).await;
    assert_eq!((refused.status, refused.code()), (403, "not_allowed"), "{}", refused.body);
}

#[actix_web::test]
async fn a_wrong_signature_in_a_session_counts_and_a_session_that_has_ended_does_not() {
    let alice = Device::new("alice");
    let running = Running::start_with(|settings| {
        settings.quotas = Some(Quotas::STANDARD);
        settings.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    });
    let running = running.with(&[&alice], 0).await;
    let api = &running.api;
    let session = agree(api, &alice).await;
    let sent = async |session: &Session| {
        let draft = Draft::post("/keypackages/policy", &json!({ "reserve": "open" }));
        let headers =
            draft.signed_headers(api.authority(), |parts| parts.sign_in(session, NOW, 60));
        let request = api.with_headers(&draft, &headers).header("x-forwarded-for", "192.0.2.1");
        answer(request).await.unwrap()
    };
    // As after a restart, when many behind one address have a session that is not known any more.
    let ended = Session::with_key(SessionId::from_bytes([0; 16]), [0; 32].into());
    for _ in 0..20 {
        check_refused(&sent(&ended).await, "session: ");
    }
    sent(&session).await.ok();
    let wrong = Session::with_key(session.id(), [0; 32].into());
    for _ in 0..10 {
        check_refused(&sent(&wrong).await, "bad signature: ");
    }
    assert_eq!(sent(&session).await.code(), "rate_limited");
}

#[actix_web::test]
async fn a_device_may_be_named_as_the_address_is() {
    let (alice, named) = (Device::new("alice"), Device::new("alice/sessions"));
    let running = Running::start().with(&[&alice], 0).await;
    let api = &running.api;
    let voucher = json!({ "keyid": alice.keyid(), "proof": alice.vouches_for(&named) });
    let vouched = json!({ "user": "alice", "device": "sessions", "voucher": voucher });
    api.post(&named, "/devices", vouched).await.ok();
    let wrong = api.get(&alice, SESSIONS).await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, "POST, DELETE"));
    assert_eq!(api.delete(&alice, SESSIONS).await.ok().body["device"], "sessions");
}

#[actix_web::test]
async fn a_server_keeps_so_many_sessions_and_the_oldest_goes() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start_with(|settings| settings.sessions.sessions_max = 2);
    let running = running.with(&[&alice, &bob], 0).await;
    let api = &running.api;
    let first = agree(api, &alice).await;
    let (second, third) = (agree(api, &bob).await, agree(api, &alice).await);
    check_refused(&status_in(api, &first).await, "session: ");
    status_in(api, &second).await.ok();
    status_in(api, &third).await.ok();
}

#[test]
fn the_known_answer_of_the_api_page() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api.md");
    let page = std::fs::read_to_string(page).unwrap();
    let secret =
        |from: u8| -> [u8; 32] { std::array::from_fn(|nth| from + u8::try_from(nth).unwrap()) };
    let server = Exchange::new(&secret(32).into()).public_key();
    let keyid = ed25519_dalek::SigningKey::from_bytes(&secret(0)).verifying_key();
    let keyid = keypool_ledger::SignatureKey::new(keyid.as_bytes()).unwrap();
    let device = Exchange::new(&secret(0).into());
    let session = device.at_device(&server, &keyid, SessionId::from_bytes([7; 16])).unwrap();
    let asked = json!({ "target_user": "bob", "group_id": "Z3JvdXAtMQ==" });
    let mut draft = Draft::post("/keypackages/reserve", &asked);
    draft.body = Some(br#"{"target_user":"bob","group_id":"Z3JvdXAtMQ=="}"#.to_vec());
    let draft = draft.key("018f2f3e-7c1a-7d3b-9a5e-0123456789ab".parse().unwrap());
    let sign = |parts: &SignedParts<'_>| parts.sign_in(&session, NOW, 60);
    let headers = draft.signed_headers("keypool.example", sign);
    for (name, value) in headers.iter().filter(|(name, _)| name.starts_with("signature")) {
        assert!(page.contains(&format!("\n{name}: {value}\n")), "{name}: {value}");
    }
    assert!(page.contains(&format!(": {}\n", BASE64.encode(&server))));
}
