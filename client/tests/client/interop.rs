//! Packages of another MLS implementation: mls-rs.

use std::time::Duration;

use keypool_client::{OfferedPackage, Received, fresh_command};
use keypool_ledger::{Clock, KeyPackageRef, SignatureKey};
use keypool_projections::{
    signing::{BodyParts, SignedParts, content_digest},
    wire::{Base64, Outcome, RegisterRequest, UploadReply, UploadRequest},
};
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
    service::{Service, run},
    support::{Device, group, now, pool},
};

const SUITE: CipherSuite = CipherSuite::CURVE25519_AES128;

fn client(name: &str) -> Client<impl MlsConfig> {
    client_with(name, keys())
}

fn keys() -> (SignatureSecretKey, SignaturePublicKey) {
    let suite = RustCryptoProvider::default().cipher_suite_provider(SUITE).unwrap();
    suite.signature_key_generate().unwrap()
}

fn client_with(
    name: &str,
    (secret, public): (SignatureSecretKey, SignaturePublicKey),
) -> Client<impl MlsConfig> {
    let crypto = RustCryptoProvider::default();
    let credential = BasicCredential::new(name.as_bytes().to_vec()).into_credential();
    Client::builder()
        .identity_provider(BasicIdentityProvider)
        .crypto_provider(crypto)
        .key_package_lifetime(Duration::from_hours(14 * 24))
        .signing_identity(SigningIdentity::new(credential, public), secret, SUITE)
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

/// A device that shares no code with ours but the signing profile: registers, uploads, is invited.
#[test]
fn a_package_of_mls_rs_goes_through_the_server_into_a_group() {
    run(async {
        let service = Service::start();
        let keys = keys();
        let bob = client_with("bob/laptop", keys.clone());
        let registration = RegisterRequest {
            user: "bob".to_owned(),
            device: Some("laptop".to_owned()),
            voucher: None,
        };
        signed(&service, &keys, "/devices", &registration).await;
        let package = bob
            .generate_key_package_message(ExtensionList::new(), ExtensionList::new(), None)
            .unwrap();
        let upload = UploadRequest { keypackages: vec![Base64(package.to_bytes().unwrap())] };
        let reply = signed(&service, &keys, "/keypackages/upload", &upload).await;
        let reply: UploadReply = serde_json::from_slice(&reply).unwrap();
        assert_eq!(reply.items[0].outcome, Outcome::Stored, "{reply:?}");

        let alice = service.device("alice", 0).await;
        alice.create_group(&group("g")).unwrap();
        alice.invite(&group("g"), ["bob"]).await.unwrap();

        let welcome = MlsMessage::from_bytes(&service.mail.welcomes("bob/laptop")[0]).unwrap();
        let (mut bobs, _) = bob.join_group(None, &welcome, None).unwrap();
        let sealed = alice.encrypt(&group("g"), b"hello bob").unwrap();
        let sealed = MlsMessage::from_bytes(&sealed).unwrap();
        let received = bobs.process_incoming_message(sealed).unwrap();
        let ReceivedMessage::ApplicationMessage(said) = received else { panic!("{received:?}") };
        assert_eq!(said.data(), b"hello bob");
    });
}

/// Sends a request signed with the keys of a device that is not ours.
async fn signed(
    service: &Service,
    (secret, public): &(SignatureSecretKey, SignaturePublicKey),
    path: &str,
    body: &impl serde::Serialize,
) -> Vec<u8> {
    let body = serde_json::to_vec(body).unwrap();
    let (digest, key) = (content_digest(&body), fresh_command().to_string());
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
    };
    let suite = RustCryptoProvider::default().cipher_suite_provider(SUITE).unwrap();
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
        .body(body);
    let reply = request.send().await.unwrap();
    let status = reply.status();
    let bytes = reply.bytes().await.unwrap();
    assert!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&bytes));
    bytes.to_vec()
}
