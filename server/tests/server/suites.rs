//! Hybrid ciphersuites: from an upload to a member, with OpenMLS on both sides.

use data_encoding::{BASE64, BASE64URL_NOPAD};
use keypool_ledger::{Clock, SystemClock, Timestamp};
use openmls::prelude::{
    BasicCredential, Capabilities, Ciphersuite, CredentialWithKey, GroupId, KeyPackage,
    KeyPackageIn, Lifetime, MlsGroup, MlsGroupCreateConfig, MlsGroupJoinConfig, MlsMessageBodyIn,
    MlsMessageIn, OpenMlsProvider, ProcessedMessageContent, ProtocolVersion, StagedWelcome,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use openmls_traits::types::SignatureScheme;
use serde_json::{Value, json};
use tls_codec::{Deserialize, Serialize};
use uuid::Uuid;

use crate::harness::{Device, Running, upload};

const HYBRID: [u16; 2] = [0x004e, 0x004f];

/// A device with its OpenMLS.
struct Member {
    device: Device,
    provider: OpenMlsRustCrypto,
    signer: SignatureKeyPair,
}

impl Member {
    fn new(name: &str) -> Self {
        let device = Device::new(name);
        let (private, public) = (device.key.to_bytes().to_vec(), device.keyid());
        let public = public.as_bytes().to_vec();
        let signer = SignatureKeyPair::from_raw(SignatureScheme::ED25519, private, public);
        Self { device, provider: OpenMlsRustCrypto::default(), signer }
    }

    fn credential(&self) -> CredentialWithKey {
        let credential = BasicCredential::new(self.device.pool.user().as_bytes().to_vec()).into();
        CredentialWithKey { credential, signature_key: self.signer.public().into() }
    }

    fn package(&self, suite: Ciphersuite, now: Timestamp) -> Vec<u8> {
        let now = now.as_secs();
        let bundle = KeyPackage::builder()
            .key_package_lifetime(Lifetime::init(now - 3600, now + 13 * 24 * 3600))
            .leaf_node_capabilities(capabilities(suite))
            .build(suite, &self.provider, &self.signer, self.credential())
            .unwrap();
        bundle.key_package().tls_serialize_detached().unwrap()
    }

    /// A group of this device alone, with the tree in its Welcomes.
    fn group(&self, suite: Ciphersuite, id: &[u8]) -> MlsGroup {
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(suite)
            .capabilities(capabilities(suite))
            .use_ratchet_tree_extension(true)
            .build();
        let id = GroupId::from_slice(id);
        let credential = self.credential();
        MlsGroup::new_with_group_id(&self.provider, &self.signer, &config, id, credential).unwrap()
    }

    fn join(&self, welcome: &[u8]) -> MlsGroup {
        let config = MlsGroupJoinConfig::default();
        let welcome = MlsMessageIn::tls_deserialize_exact(welcome).unwrap();
        let MlsMessageBodyIn::Welcome(welcome) = welcome.extract() else {
            panic!("it is no Welcome")
        };
        let staged = StagedWelcome::new_from_welcome(&self.provider, &config, welcome, None);
        staged.unwrap().into_group(&self.provider).unwrap()
    }
}

fn capabilities(suite: Ciphersuite) -> Capabilities {
    Capabilities::new(None, Some(&[suite]), None, None, None)
}

fn bytes_of(body: &Value, name: &str) -> Vec<u8> {
    BASE64.decode(body[name].as_str().unwrap().as_bytes()).unwrap()
}

#[actix_web::test]
async fn a_device_is_invited_with_a_package_of_a_hybrid_suite_and_reads_what_is_said() {
    for number in HYBRID {
        let suite = Ciphersuite::try_from(number).unwrap();
        let (alice, bob) = (Member::new("alice"), Member::new("bob"));
        // OpenMLS reads the machine's clock.
        let now = SystemClock.now();
        let running = Running::start_at(now, |_| {}).with(&[&alice.device, &bob.device], 0).await;
        let api = &running.api;
        let package = bob.package(suite, now);
        assert!((2_600..2_800).contains(&package.len()), "{} bytes", package.len());
        let uploaded = api.upload(&bob.device, std::slice::from_ref(&package)).await.ok();
        assert_eq!(uploaded.body["pool"]["suites"][0]["ciphersuite"], number);

        let id = format!("hybrid-{number}").into_bytes();
        let (text, path) = (BASE64.encode(&id), BASE64URL_NOPAD.encode(&id));
        api.post(&alice.device, "/v1/groups", json!({ "group_id": text })).await.ok();
        let reserve = |suites: Vec<u16>| {
            let body = json!({
                "target_user": "bob", "group_id": text, "reservation_id": Uuid::new_v4(),
                "ciphersuites": suites,
            });
            api.post(&alice.device, "/v1/keypackages/reserve", body)
        };
        assert_eq!(reserve(vec![1, 2, 3]).await.code(), "nothing_compatible");
        let reserved = reserve(vec![1, number]).await.ok();
        let given = bytes_of(&reserved.body, "keypackage");
        assert_eq!(given, package);

        let mut group = alice.group(suite, &id);
        let given = KeyPackageIn::tls_deserialize_exact(&given).unwrap();
        let given = given.validate(alice.provider.crypto(), ProtocolVersion::Mls10).unwrap();
        let (commit, welcome, _) =
            group.add_members(&alice.provider, &alice.signer, &[given]).unwrap();
        let spend = json!({
            "keypackage_ref": reserved.body["keypackage_ref"],
            "reservation_id": reserved.body["reservation_id"],
        });
        let body = json!({
            "epoch": 0,
            "commit": BASE64.encode(&commit.to_bytes().unwrap()),
            "welcomes": [BASE64.encode(&welcome.to_bytes().unwrap())],
            "spend": [spend],
        });
        api.post(&alice.device, &format!("/v1/groups/{path}/commits"), body).await.ok();
        group.merge_pending_commit(&alice.provider).unwrap();

        let mailbox = api.get(&bob.device, "/v1/mailbox").await.ok();
        let items = mailbox.body["items"].as_array().unwrap();
        let welcome = items.iter().find(|item| item["kind"] == "welcome").unwrap();
        let mut joined = bob.join(&bytes_of(welcome, "bytes"));
        let said = group.create_message(&alice.provider, &alice.signer, b"hello").unwrap();
        let said = MlsMessageIn::tls_deserialize_exact(said.to_bytes().unwrap()).unwrap();
        let said = said.try_into_protocol_message().unwrap();
        let heard = joined.process_message(&bob.provider, said).unwrap().into_content();
        let ProcessedMessageContent::ApplicationMessage(heard) = heard else {
            panic!("it is no message")
        };
        assert_eq!(heard.into_bytes(), b"hello");
        let status = api.get(&bob.device, "/v1/keypackages/status").await.ok();
        assert_eq!((&status.body["available"], &status.body["spent"]), (&json!(0), &json!(1)));
    }
}

#[actix_web::test]
async fn a_pool_holds_the_old_suites_beside_the_hybrid_ones() {
    let bob = Member::new("bob");
    let now = SystemClock.now();
    let running = Running::start_at(now, |_| {}).with(&[&bob.device], 0).await;
    let suites = [1, 0x004e, 0x004f].map(|number| Ciphersuite::try_from(number).unwrap());
    let packages = suites.map(|suite| bob.package(suite, now));
    running.api.upload(&bob.device, &packages).await.ok();
    let status = running.api.get(&bob.device, "/v1/keypackages/status").await.ok();
    let suites = status.body["suites"].as_array().unwrap().iter();
    let suites: Vec<_> = suites.map(|suite| suite["ciphersuite"].clone()).collect();
    assert_eq!(suites, [1, 0x004e, 0x004f]);
}

#[actix_web::test]
async fn an_operator_may_take_the_old_suites_alone() {
    let bob = Member::new("bob");
    let now = SystemClock.now();
    let running = Running::start_at(now, |settings| settings.admission.ciphersuites = vec![1, 3]);
    let running = running.with(&[&bob.device], 0).await;
    let suite = Ciphersuite::try_from(0x004f).unwrap();
    let refused =
        running.api.post(&bob.device, "/v1/keypackages/upload", upload(&[bob.package(suite, now)]));
    let refused = refused.await;
    assert_eq!((refused.code(), refused.text("check")), ("invalid_key_package", "protocol"));
    assert!(refused.text("detail").contains("ciphersuite 79 is not accepted here; [1, 3] are"));
}
