//! The registration policy: the operator's list, or the operator's tokens.

use std::{fs, path::Path, process::Stdio};

use data_encoding::{BASE64, BASE64URL_NOPAD};
use ed25519_dalek::{Signer, SigningKey};
use keypool_server::{RegistrationPolicy, RegistrationSettings};
use serde_json::{Value, json};

use crate::harness::{Answer, Device, Draft, NOW, Process, Running, command, refusal};

fn registration(device: &Device) -> Draft {
    let (user, name) = (device.pool.user(), device.pool.device());
    Draft::post("/devices", &json!({ "user": user, "device": name }))
}

fn line(device: &Device) -> String {
    format!("{} {} {}\n", device.pool.user(), device.pool.device(), device.keyid())
}

#[actix_web::test]
async fn only_who_is_listed_registers_and_the_list_is_read_again_when_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("who");
    let (alice, phone, bob) =
        (Device::new("alice"), Device::new("alice/phone"), Device::new("bob"));
    fs::write(&list, format!("# our people\n{}{}", line(&alice), line(&phone))).unwrap();
    let mut server = command(&dir.path().join("data"));
    let flags = ["--registration", "allow-list", "--allow-list", list.to_str().unwrap()];
    let mut server = Process::spawn(server.args(flags).stderr(Stdio::piped()));

    // Nobody has to vouch for another device that is listed; a key that is not listed has no chance.
    assert_eq!(server.api.register(&alice).await.status, 201);
    assert_eq!(server.api.register(&phone).await.status, 201);
    let refused = server.api.register(&bob).await;
    assert_eq!((refused.status, refused.code()), (403, "not_allowed"));
    assert_eq!(
        refused.text("detail"),
        format!("the key {} is not listed for bob/main", bob.keyid())
    );
    assert!(refused.text("hint").contains("operator"), "{}", refused.body);
    let tablet = Device::new("alice/tablet");
    let voucher = alice.vouches_for(&server.api, &tablet).await;
    let vouched = server.api.register_with(&tablet, &voucher).await;
    assert_eq!(vouched.code(), "not_allowed", "the operator decides, not who is there");

    // A list that cannot be read leaves the one before in force.
    fs::write(&list, format!("{}bob main\n", line(&bob))).unwrap();
    let said = server.reload("who may register");
    assert!(said.contains("line 2: expected `user device keyid`, found 2 words"), "{said}");
    assert_eq!(server.api.register(&bob).await.code(), "not_allowed");
    fs::write(&list, line(&bob)).unwrap();
    let said = server.reload("who may register");
    assert!(said.contains("read again"), "{said}");
    assert_eq!(server.api.register(&bob).await.status, 201);
    // Who is registered stays so, listed or not; and another key does not get the name by a list.
    assert_eq!(server.api.register(&alice).await.status, 200);
    fs::write(&list, line(&bob.impostor())).unwrap();
    server.reload("who may register");
    assert_eq!(server.api.register(&bob.impostor()).await.code(), "identity_bound");
    assert!(server.terminate().success());
}

#[test]
fn a_policy_that_lacks_something_or_a_wrong_file_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (list, pem) = (file("list", "alice main AAAA\n"), file("pem", "hello\n"));
    let said = |flags: &[&str]| {
        let (said, code) = refusal(command(&dir.path().join("data")).args(flags));
        format!("{} ({code})", said.replace(dir.path().to_str().unwrap(), "DIR"))
    };
    let cases = [
        said(&["--registration", "allow-list"]),
        said(&["--registration", "jwt", "--jwt-key", &pem]),
        said(&["--allow-list", &list]),
        said(&["--jwt-jwks", &list]),
        said(&["--registration", "jwt", "--jwt-jwks", &list, "--jwt-audience", "a"]),
        said(&[
            "--registration",
            "jwt",
            "--jwt-key",
            &pem,
            "--jwt-audience",
            "a",
            "--allow-list",
            &list,
        ]),
        said(&["--registration", "allow-list", "--allow-list", &list]),
        said(&["--registration", "jwt", "--jwt-key", &pem, "--jwt-audience", "a"]),
        said(&["--registration", "allow-list", "--allow-list", "/nowhere/list"]),
        said(&["--frontend-key", &list]),
    ];
    insta::assert_snapshot!(cases.join("\n"), @r#"
    keypool-server: --allow-list is missing; --registration allow-list needs it (2)
    keypool-server: --jwt-audience is missing; --registration jwt needs it (2)
    keypool-server: --allow-list has no effect without --registration allow-list (2)
    keypool-server: --jwt-jwks has no effect without --registration jwt (2)
    keypool-server: DIR/list, line 1: expected a JWK set: expected value at line 1 column 1 (2)
    keypool-server: --allow-list has no effect without --registration allow-list (2)
    keypool-server: DIR/list, line 1: "AAAA" is not the base64url of an Ed25519 public key (2)
    keypool-server: DIR/pem, line 1: expected public keys in PEM, each from -----BEGIN PUBLIC KEY----- to -----END PUBLIC KEY----- (2)
    keypool-server: /nowhere/list cannot be read: No such file or directory (os error 2) (2)
    keypool-server: DIR/list, line 1: "alice main AAAA" is not the base64url of an Ed25519 public key (2)
    "#);
}

/// Who issues the operator's tokens.
fn issuer() -> SigningKey {
    SigningKey::from_bytes(&[42; 32])
}

fn pem(key: &SigningKey) -> String {
    let info = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    let info = [&info[..], key.verifying_key().as_bytes()].concat();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(&info))
}

fn token(by: &SigningKey, claims: &Value) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", part(&json!({ "alg": "EdDSA", "typ": "JWT" })), part(claims));
    let signature = by.sign(signed.as_bytes()).to_bytes();
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
}

fn claims(device: &Device) -> Value {
    let (user, kid) = (device.pool.user(), device.keyid().to_string());
    json!({ "sub": user, "aud": "chat.example", "exp": NOW.as_secs() + 600, "cnf": { "kid": kid } })
}

/// A server that registers devices by tokens.
pub(crate) fn start(dir: &Path) -> Running {
    let keys = dir.join("issuer.pem");
    fs::write(&keys, pem(&issuer())).unwrap();
    Running::start_with(|settings| {
        settings.registration = RegistrationSettings {
            policy: RegistrationPolicy::Jwt,
            jwt_key: Some(keys),
            jwt_audience: Some("chat.example".to_owned()),
            ..RegistrationSettings::default()
        };
    })
}

/// Registers a device by a token that the operator has made for it.
pub(crate) async fn with_own_token(running: &Running, device: &Device) -> Answer {
    with_token(running, device, &token(&issuer(), &claims(device))).await
}

/// The same with a voucher.
pub(crate) async fn with_own_token_and(
    running: &Running,
    device: &Device,
    voucher: &Value,
) -> Answer {
    let (user, name) = (device.pool.user(), device.pool.device());
    let body = json!({ "user": user, "device": name, "voucher": voucher });
    let token = token(&issuer(), &claims(device));
    running.api.send(device, &Draft::post("/devices", &body).with_token(&token)).await
}

async fn with_token(running: &Running, device: &Device, token: &str) -> Answer {
    running.api.send(device, &registration(device).with_token(token)).await
}

#[actix_web::test]
async fn a_token_of_the_operators_lets_its_device_register_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path());
    let (alice, phone, mallory) =
        (Device::new("alice"), Device::new("alice/phone"), Device::new("mallory"));
    let good = token(&issuer(), &claims(&alice));
    let draft = registration(&alice).with_token(&good);
    assert_eq!(running.api.send(&alice, &draft).await.status, 201);
    // A second device needs a token of its own, and no voucher.
    assert_eq!(with_token(&running, &phone, &good).await.code(), "not_allowed");
    let own = token(&issuer(), &claims(&phone));
    assert_eq!(with_token(&running, &phone, &own).await.status, 201);

    // Whoever has stolen a token has not the key that it is bound to.
    let thief = Device { pool: "alice/tablet".parse().unwrap(), ..mallory.clone() };
    let refused = with_token(&running, &thief, &good).await;
    assert_eq!((refused.status, refused.code()), (403, "not_allowed"));
    assert!(refused.text("detail").contains("bound to another key"), "{}", refused.body);

    // What was answered once is answered so again, whatever became of the token.
    running.clock.advance(std::time::Duration::from_hours(2));
    assert_eq!(running.api.send(&alice, &draft).await.status, 201);
    assert_eq!(with_token(&running, &alice, &good).await.status, 200);
    assert_eq!(running.api.register(&alice).await.status, 200);
}

#[actix_web::test]
async fn every_other_token_is_refused_with_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path());
    let alice = Device::new("alice");
    let with = |name: &str, value: Value| {
        let mut claims = claims(&alice);
        claims[name] = value;
        token(&issuer(), &claims)
    };
    let good = token(&issuer(), &claims(&alice));
    let parts: Vec<&str> = good.split('.').collect();
    let others = BASE64URL_NOPAD.encode(claims(&Device::new("bob")).to_string().as_bytes());
    let tampered = format!("{}.{others}.{}", parts[0], parts[2]);
    let none = format!(
        "{}.{}.",
        BASE64URL_NOPAD.encode(b"{\"alg\":\"none\"}"),
        BASE64URL_NOPAD.encode(claims(&alice).to_string().as_bytes())
    );
    let now = NOW.as_secs();
    let cases = [
        with("exp", json!(now - 60)),
        with("exp", json!(now + 7200)),
        with("aud", json!("mail.example")),
        with("sub", json!("bob")),
        with("cnf", json!({ "kid": Device::new("bob").keyid().to_string() })),
        token(&SigningKey::from_bytes(&[1; 32]), &claims(&alice)),
        none,
        tampered,
    ];
    let mut said = vec![running.api.register(&alice).await];
    for case in &cases {
        said.push(with_token(&running, &alice, case).await);
    }
    let said: Vec<String> = said
        .iter()
        .map(|answer| format!("{} {} {}", answer.status, answer.code(), answer.text("detail")))
        .collect();
    insta::assert_snapshot!(said.join("\n"), @"
    403 not_allowed the token in the Authorization header is missing: send the operator's, as Bearer TOKEN
    403 not_allowed the token in the Authorization header has expired; get a new one
    403 not_allowed the token in the Authorization header is valid for more than an hour
    403 not_allowed the token in the Authorization header is for another audience
    403 not_allowed the token in the Authorization header is another user's
    403 not_allowed the token in the Authorization header is bound to another key than the one that signs the request (cnf.kid)
    403 not_allowed the token in the Authorization header is not signed with the operator's key
    403 not_allowed the token in the Authorization header is signed with none; it must be EdDSA
    403 not_allowed the token in the Authorization header is not signed with the operator's key
    ");
    assert_eq!(with_token(&running, &alice, &good).await.status, 201);
}

#[actix_web::test]
async fn a_token_that_the_signature_does_not_cover_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path());
    let alice = Device::new("alice");
    let good = token(&issuer(), &claims(&alice));
    // Signed without the header, which is put in on the way; and signed with another one.
    for draft in [registration(&alice), registration(&alice).with_token("other")] {
        let mut headers = draft.headers(&alice, running.api.authority(), NOW);
        headers.retain(|(name, _)| *name != "authorization");
        headers.push(("authorization", format!("Bearer {good}")));
        let sent =
            crate::harness::answer(running.api.with_headers(&draft, &headers)).await.unwrap();
        assert_eq!((sent.status, sent.code()), (401, "unauthenticated"), "{}", sent.body);
    }
}

#[actix_web::test]
async fn a_token_of_a_key_set_lets_its_device_register_and_the_set_is_read_again_when_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("jwks.json");
    let jwk = |key: &SigningKey| {
        let x = BASE64URL_NOPAD.encode(key.verifying_key().as_bytes());
        json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": x }] }).to_string()
    };
    fs::write(&file, jwk(&issuer())).unwrap();
    let mut server = command(&dir.path().join("data"));
    let path = file.to_str().unwrap();
    let flags = ["--registration", "jwt", "--jwt-jwks", path, "--jwt-audience", "chat.example"];
    let flags = [&flags[..], &["--jwt-issuer", "https://accounts.example"]].concat();
    let mut server = Process::spawn(server.args(flags).stderr(Stdio::piped()));
    let claims_of = |device: &Device| {
        let mut claims = claims(device);
        claims["exp"] = json!(server.api.clock.now().as_secs() + 600);
        claims["iss"] = json!("https://accounts.example");
        claims
    };
    let (alice, bob, carol) = (Device::new("alice"), Device::new("bob"), Device::new("carol"));
    let next = SigningKey::from_bytes(&[43; 32]);
    let drafts = [(&alice, issuer()), (&bob, next.clone()), (&carol, issuer())]
        .map(|(device, by)| registration(device).with_token(&token(&by, &claims_of(device))));
    assert_eq!(server.api.send(&alice, &drafts[0]).await.status, 201);
    assert_eq!(server.api.send(&bob, &drafts[1]).await.code(), "not_allowed");
    // A set that cannot be read leaves the one before in force.
    fs::write(&file, "{}").unwrap();
    assert!(server.reload("who may register").contains("expected a JWK set"));
    assert_eq!(server.api.send(&bob, &drafts[1]).await.code(), "not_allowed");
    fs::write(&file, jwk(&next)).unwrap();
    server.reload("who may register");
    assert_eq!(server.api.send(&bob, &drafts[1]).await.status, 201);
    assert_eq!(server.api.send(&carol, &drafts[2]).await.code(), "not_allowed");
    assert!(server.terminate().success());
}

/// Two names whose histories had one fingerprint when it was made without a secret.
#[actix_web::test]
async fn two_names_that_were_ground_to_collide_both_register_and_upload() {
    let pair = ["9819e2045bb1ae1c8c", "3e5eb1a5b5fa550cec"];
    let pair = pair.map(|end| Device::new(&format!("{}{end}", "x".repeat(40))));
    let running = Running::start().with(&[&pair[0], &pair[1]], 1).await;
    for device in &pair {
        running.api.upload(device, &device.packages(NOW, 1)).await.ok();
    }
    let status = running.api.get(&pair[0], "/keypackages/status").await.ok();
    assert_eq!(status.body["available"], 1);
}
