//! Packages of another MLS implementation: mls-rs.

use std::time::Duration;

use keypool_api::{
    Base64, DevicesReply, LeafKeyRequest, Outcome, RegisterRequest, RotatePackagesReply,
    RotatePackagesRequest, RotateRequest, UploadReply, UploadRequest,
    signing::{BodyParts, SignedParts, content_digest},
};
use keypool_client::{MlsClient, OfferedPackage, Received, fresh_command};
use keypool_ledger::{Clock, GroupId, Hash, KeyPackageRef, Signature, SignatureKey};
use keypool_projections::statement::LedgerId;
use mls_rs::{
    CipherSuite, CipherSuiteProvider, Client, CryptoProvider, ExtensionList, MlsMessage,
    client_builder::MlsConfig,
    crypto::{SignaturePublicKey, SignatureSecretKey},
    group::ReceivedMessage,
    identity::{
        SigningIdentity,
        basic::{BasicCredential, BasicIdentityProvider},
    },
};
use mls_rs_crypto_rustcrypto::RustCryptoProvider;

use super::{
    service::{Mail, Service, run},
    support::{Device, group, now, pool},
};

const SUITE: CipherSuite = CipherSuite::CURVE25519_AES128;
const P256: CipherSuite = CipherSuite::P256_AES128;

type Keys = (SignatureSecretKey, SignaturePublicKey);

fn client(name: &str) -> Client<impl MlsConfig> {
    client_with(name, keys_of(SUITE), SUITE)
}

fn keys_of(suite: CipherSuite) -> Keys {
    let suite = RustCryptoProvider::default().cipher_suite_provider(suite).unwrap();
    suite.signature_key_generate().unwrap()
}

fn client_with(name: &str, (secret, public): Keys, suite: CipherSuite) -> Client<impl MlsConfig> {
    let crypto = RustCryptoProvider::default();
    let credential = BasicCredential::new(name.as_bytes().to_vec()).into_credential();
    Client::builder()
        .identity_provider(BasicIdentityProvider)
        .crypto_provider(crypto)
        .key_package_lifetime(Duration::from_hours(14 * 24))
        .signing_identity(SigningIdentity::new(credential, public), secret, suite)
        .build()
}

#[test]
fn a_device_that_runs_mls_rs_is_invited_and_both_speak() {
    let alice = Device::new("alice/phone");
    let bob = client("bob/laptop");
    alice.groups.create_group(&group("g"), 1, now()).unwrap();

    let package =
        bob.generate_key_package_message(ExtensionList::new(), ExtensionList::new(), None).unwrap();
    let suite = RustCryptoProvider::default().cipher_suite_provider(SUITE).unwrap();
    let reference = package.key_package_reference(&suite).unwrap().unwrap();
    let offer = OfferedPackage {
        keypackage_ref: KeyPackageRef::new(&reference).unwrap(),
        owner: pool("bob/laptop"),
        bytes: package.to_bytes().unwrap(),
    };
    let added = alice.add(&group("g"), &[offer]);

    let welcome = MlsMessage::from_bytes(&added.welcome).unwrap();
    let (mut bobs, _) = bob.join_group(None, &welcome, None).unwrap();
    let sealed = alice.groups.encrypt(&group("g"), b"hello bob").unwrap();
    let received = bobs.process_incoming_message(MlsMessage::from_bytes(&sealed).unwrap()).unwrap();
    let ReceivedMessage::ApplicationMessage(said) = received else { panic!("{received:?}") };
    assert_eq!(said.data(), b"hello bob");

    let sealed = bobs.encrypt_application_message(b"hello alice", vec![]).unwrap();
    let received = alice.groups.decrypt(&sealed.to_bytes().unwrap()).unwrap();
    let Received::Application { sender, bytes, .. } = received else { panic!("{received:?}") };
    assert_eq!((sender.as_str(), bytes.as_slice()), ("bob/laptop", b"hello alice".as_slice()));

    let commit = bobs.commit(vec![]).unwrap();
    bobs.apply_pending_commit().unwrap();
    let received = alice.groups.decrypt(&commit.commit_message.to_bytes().unwrap()).unwrap();
    let Received::Changed(change) = received else { panic!("{received:?}") };
    assert_eq!((change.sender.as_str(), change.epoch), ("bob/laptop", 2));
}

/// Bob's device that shares no code with ours but the signing profile: it registers.
async fn register(service: &Service, keys: &Keys) {
    let registration = RegisterRequest {
        user: "bob".to_owned(),
        device: Some("laptop".to_owned()),
        voucher: None,
        keyid: None,
    };
    signed(service, keys, "/devices", &registration).await;
}

/// The packages are uploaded by it.
async fn upload(service: &Service, keys: &Keys, packages: &[MlsMessage]) -> UploadReply {
    let keypackages = packages.iter().map(|package| Base64(package.to_bytes().unwrap())).collect();
    let upload = UploadRequest { keypackages };
    let reply = signed(service, keys, "/keypackages/upload", &upload).await;
    serde_json::from_slice(&reply).unwrap()
}

fn package_of(client: &Client<impl MlsConfig>) -> MlsMessage {
    client.generate_key_package_message(ExtensionList::new(), ExtensionList::new(), None).unwrap()
}

/// It joins by the Welcome, and both are heard.
fn joins_and_both_speak(
    service: &Service,
    bob: &Client<impl MlsConfig>,
    (alice, group): (&MlsClient<Mail>, &GroupId),
) {
    let welcome = MlsMessage::from_bytes(&service.mail.welcomes("bob/laptop")[0]).unwrap();
    let (mut bobs, _) = bob.join_group(None, &welcome, None).unwrap();
    let sealed = alice.encrypt(group, b"hello bob").unwrap();
    let sealed = MlsMessage::from_bytes(&sealed).unwrap();
    let received = bobs.process_incoming_message(sealed).unwrap();
    let ReceivedMessage::ApplicationMessage(said) = received else { panic!("{received:?}") };
    assert_eq!(said.data(), b"hello bob");
    let sealed = bobs.encrypt_application_message(b"hello alice", vec![]).unwrap();
    let received = alice.membership().decrypt(&sealed.to_bytes().unwrap()).unwrap();
    let Received::Application { sender, bytes, .. } = received else { panic!("{received:?}") };
    assert_eq!((sender.as_str(), bytes.as_slice()), ("bob/laptop", b"hello alice".as_slice()));
}

#[test]
fn a_package_of_mls_rs_goes_through_the_server_into_a_group() {
    run(async {
        let service = Service::start();
        let keys = keys_of(SUITE);
        let bob = client_with("bob/laptop", keys.clone(), SUITE);
        register(&service, &keys).await;
        let reply = upload(&service, &keys, &[package_of(&bob)]).await;
        assert_eq!(reply.items[0].outcome, Outcome::Stored, "{reply:?}");

        let alice = service.device("alice", 0).await;
        alice.create_group(&group("g")).unwrap();
        alice.invite(&group("g"), ["bob"]).await.unwrap();
        joins_and_both_speak(&service, &bob, (&alice, &group("g")));
    });
}

/// Its requests are signed with the Ed25519 key, which has declared the P-256 key of the packages.
#[test]
fn a_p256_package_of_mls_rs_goes_through_the_server_into_a_group() {
    run(async {
        let service = Service::start();
        let (keys, p256) = (keys_of(SUITE), keys_of(P256));
        let bob = client_with("bob/laptop", p256.clone(), P256);
        let other = client_with("bob/laptop", keys_of(P256), P256);
        register(&service, &keys).await;
        declare(&service, &keys, &p256).await;
        let reply = upload(&service, &keys, &[package_of(&bob), package_of(&other)]).await;
        assert_eq!(reply.accepted, 1);
        assert_eq!(reply.items[0].outcome, Outcome::Stored, "{reply:?}");
        assert_eq!(reply.items[1].check.as_deref(), Some("signature_key"));
        assert_eq!((reply.pool.suites[0].ciphersuite, reply.pool.suites[0].available), (2, 1));

        let alice = service.device("alice", 0).await;
        alice.create_group(&group("one")).unwrap();
        let refused = alice.invite(&group("one"), ["bob"]).await.unwrap_err();
        assert!(refused.to_string().contains("ciphersuite"), "{refused}");
        alice.create_group_in(&group("g"), 2).unwrap();
        alice.invite(&group("g"), ["bob"]).await.unwrap();
        joins_and_both_speak(&service, &bob, (&alice, &group("g")));
    });
}

/// The pool holds packages to the key after a restart as well; it signs no request.
#[test]
fn the_p256_key_of_a_pool_is_known_after_a_restart_and_speaks_for_nothing() {
    run(async {
        let service = Service::start();
        let (keys, p256) = (keys_of(SUITE), keys_of(P256));
        register(&service, &keys).await;
        declare(&service, &keys, &p256).await;
        let bob = client_with("bob/laptop", p256.clone(), P256);
        upload(&service, &keys, &[package_of(&bob)]).await;
        let service = service.beneath(async |_, _| {}).await;
        let other = client_with("bob/laptop", keys_of(P256), P256);
        let reply = upload(&service, &keys, &[package_of(&other), package_of(&bob)]).await;
        assert_eq!(reply.items[0].check.as_deref(), Some("signature_key"));
        assert_eq!(reply.items[1].outcome, Outcome::Stored);
        let (status, why) = answer(&service, (&p256, P256), "/keypackages/upload", b"{}").await;
        assert_eq!(status, 401, "{}", String::from_utf8_lossy(&why));
    });
}

/// Another key of the device brings another P-256 key and its packages along, in one request.
#[test]
fn another_p256_key_takes_the_place_of_the_one_before_in_one_request() {
    run(async {
        let service = Service::start();
        let keys = keys_of(SUITE);
        register(&service, &keys).await;
        let (next, [first, second]) = (keys_of(SUITE), [keys_of(P256), keys_of(P256)]);
        declare(&service, &keys, &first).await;
        let [old, new] =
            [&first, &second].map(|p256| client_with("bob/laptop", p256.clone(), P256));
        upload(&service, &keys, &[package_of(&old), package_of(&old)]).await;
        let keypackages = vec![Base64(package_of(&new).to_bytes().unwrap())];
        let key = Some(rotation(&service, &keys, &next).await);
        let leaf_keys = vec![leaf_key(&service, &next, &second).await];
        let rotate = RotatePackagesRequest { keypackages, key, leaf_keys };
        let reply = signed(&service, &next, "/keypackages/rotate", &rotate).await;
        let reply: RotatePackagesReply = serde_json::from_slice(&reply).unwrap();
        assert_eq!((reply.accepted, reply.revoked.len()), (1, 2));
        let reply = upload(&service, &next, &[package_of(&old), package_of(&new)]).await;
        assert_eq!(reply.items[0].check.as_deref(), Some("signature_key"));
        assert_eq!(reply.items[1].outcome, Outcome::Stored);
    });
}

/// The state that statements about Bob's devices are made on: the ledger, the head of the list, and five
/// minutes from now.
async fn grounds(service: &Service) -> (LedgerId, Hash, u64) {
    let alice = service.device("alice", 0).await;
    let DevicesReply { ledger, devices, .. } =
        alice.connection().api().device_list("bob").await.unwrap();
    (ledger, devices.head, service.clock.now().after(Duration::from_mins(5)).as_secs())
}

fn key_of((_, public): &Keys) -> SignatureKey {
    SignatureKey::new(public.as_bytes()).unwrap()
}

fn signature((secret, _): &Keys, statement: &[u8]) -> Signature {
    let suite = RustCryptoProvider::default().cipher_suite_provider(SUITE).unwrap();
    Signature::new(&suite.sign(secret, statement).unwrap()).unwrap()
}

async fn leaf_key(service: &Service, keys: &Keys, p256: &Keys) -> LeafKeyRequest {
    let (ledger, head, until) = grounds(service).await;
    let proof = signature(keys, b"");
    let leaf_keyid = key_of(p256);
    let request = LeafKeyRequest { signature_scheme: 0x0403, leaf_keyid, head, until, proof };
    let statement = request.statement(&ledger, &pool("bob/laptop"), &key_of(keys));
    LeafKeyRequest { proof: signature(keys, &statement), ..request }
}

/// The device's key declares the key of its P-256 packages.
async fn declare(service: &Service, keys: &Keys, p256: &Keys) {
    let request = leaf_key(service, keys, p256).await;
    signed(service, keys, "/devices/leaf-key", &request).await;
}

/// The device's key agrees to the next one.
async fn rotation(service: &Service, keys: &Keys, next: &Keys) -> RotateRequest {
    let (ledger, head, until) = grounds(service).await;
    let request = RotateRequest {
        user: "bob".to_owned(),
        device: Some("laptop".to_owned()),
        previous_keyid: key_of(keys),
        head,
        until,
        proof: signature(keys, b""),
    };
    let statement = request.statement(&ledger, &pool("bob/laptop"), &key_of(next));
    RotateRequest { proof: signature(keys, &statement), ..request }
}

/// Sends a request signed with the keys of a device that is not ours.
async fn signed(
    service: &Service,
    keys: &Keys,
    path: &str,
    body: &impl serde::Serialize,
) -> Vec<u8> {
    let body = serde_json::to_vec(body).unwrap();
    let (status, bytes) = answer(service, (keys, SUITE), path, &body).await;
    assert!((200..300).contains(&status), "{status}: {}", String::from_utf8_lossy(&bytes));
    bytes
}

async fn answer(
    service: &Service,
    ((secret, public), suite): (&Keys, CipherSuite),
    path: &str,
    body: &[u8],
) -> (u16, Vec<u8>) {
    let (digest, key) = (content_digest(body), fresh_command().to_string());
    let authority = service.tunnel.authority();
    let parts = SignedParts {
        method: "POST",
        authority: &authority,
        path,
        query: "?",
        body: Some(BodyParts {
            content_type: "application/json",
            content_digest: &digest,
            idempotency_key: &key,
        }),
        authorization: None,
        caller: None,
    };
    let suite = RustCryptoProvider::default().cipher_suite_provider(suite).unwrap();
    let keyid = SignatureKey::new(public.as_bytes()).unwrap();
    let sign = |base: &[u8]| suite.sign(secret, base);
    let headers = parts.sign(&keyid, service.clock.now(), 60, sign).unwrap();
    let request = reqwest::Client::new()
        .post(format!("http://{authority}{path}"))
        .header("content-type", "application/json")
        .header("content-digest", &digest)
        .header("idempotency-key", &key)
        .header("signature-input", headers.signature_input)
        .header("signature", headers.signature)
        .body(body.to_vec());
    let reply = request.send().await.unwrap();
    let status = reply.status().as_u16();
    (status, reply.bytes().await.unwrap().to_vec())
}
