//! Packages of another MLS implementation: mls-rs.

use keypool_client::{OfferedPackage, Received};
use keypool_ledger::KeyPackageRef;
use mls_rs::{
    CipherSuite, CipherSuiteProvider, Client, CryptoProvider, ExtensionList, MlsMessage,
    client_builder::MlsConfig,
    group::ReceivedMessage,
    identity::{
        SigningIdentity,
        basic::{BasicCredential, BasicIdentityProvider},
    },
};
use mls_rs_crypto_rustcrypto::RustCryptoProvider;

use super::support::{Device, group, now, pool};

const SUITE: CipherSuite = CipherSuite::CURVE25519_AES128;

fn client(name: &str) -> Client<impl MlsConfig> {
    let crypto = RustCryptoProvider::default();
    let suite = crypto.cipher_suite_provider(SUITE).unwrap();
    let (secret, public) = suite.signature_key_generate().unwrap();
    let credential = BasicCredential::new(name.as_bytes().to_vec()).into_credential();
    Client::builder()
        .identity_provider(BasicIdentityProvider)
        .crypto_provider(crypto)
        .signing_identity(SigningIdentity::new(credential, public), secret, SUITE)
        .build()
}

#[test]
fn a_device_that_runs_mls_rs_is_invited_and_both_speak() {
    let alice = Device::new("alice/phone");
    let bob = client("bob/laptop");
    alice.groups.create_group(&group("g"), now()).unwrap();

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
