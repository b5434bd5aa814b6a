//! Credentials and leaf keys of the app's own: packages that other implementations have made, and identities
//! of other forms, from the declaration to the inviter.

use std::{fs, path::Path, slice, time::Duration};

use data_encoding::BASE64;
use keypool_api::has_signed;
use keypool_ledger::{CredentialBytes, SignatureKey, Timestamp};
use keypool_projections::{
    directory::{DeviceList, ListedDevice},
    statement::Agreement,
};
use openmls::prelude::{BasicCredential, Credential, CredentialType};
use serde_json::{Value, json};
use tls_codec::Serialize;

use crate::harness::{Answer, Api, Device, NOW, Running, upload};

/// The scheme of Ed25519 keys.
const ED25519: u16 = 0x0807;
/// A moment in the lifetimes of the packages of others: on 2026-11-29.
const WHEN_MADE: Timestamp = Timestamp::from_secs(1_795_930_000);

/// A package that another implementation has made, its credential, and the key in its leaf.
struct Foreign {
    package: Vec<u8>,
    credential: CredentialBytes,
    leaf_key: SignatureKey,
}

impl Foreign {
    fn read(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/packages").join(name);
        let package = fs::read(path).unwrap();
        // The version, the ciphersuite and three vectors: init key, encryption key, signature key.
        let (mut at, mut vectors) = (4, Vec::new());
        for _ in 0..3 {
            let len = usize::from(package[at]);
            vectors.push(&package[at + 1..at + 1 + len]);
            at += 1 + len;
        }
        let leaf_key = SignatureKey::new(vectors[2]).unwrap();
        let credential = &package[at..at + 3 + usize::from(package[at + 2])];
        let credential = CredentialBytes::new(credential).unwrap();
        Self { package, credential, leaf_key }
    }

    fn identity(&self) -> &[u8] {
        &self.credential.as_bytes()[3..]
    }
}

pub(crate) async fn declare_credential(
    api: &Api,
    by: &Device,
    credential: &CredentialBytes,
) -> Answer {
    let digest = credential.digest();
    let mut body = by.states(api, &by.pool, Agreement::Credential(&digest)).await;
    body["credential"] = json!(credential);
    api.post(by, "/devices/credential", body).await
}

async fn declare_leaf_key(api: &Api, by: &Device, key: &SignatureKey) -> Answer {
    let body = leaf_key(api, by, key).await;
    api.post(by, "/devices/leaf-key", body).await
}

async fn leaf_key(api: &Api, by: &Device, key: &SignatureKey) -> Value {
    let mut body = by.states(api, &by.pool, Agreement::LeafKey(ED25519, key)).await;
    body["signature_scheme"] = json!(ED25519);
    body["leaf_keyid"] = json!(key);
    body
}

/// The fault of the only package of an upload: its check and its detail.
#[track_caller]
pub(crate) fn fault(answer: &Answer) -> (String, String) {
    let item = &answer.body["items"][0];
    assert_eq!(item["outcome"], "rejected", "{}", answer.body);
    let text = |name: &str| item[name].as_str().unwrap().to_owned();
    (text("check"), text("detail"))
}

/// A device as a reader of its user's chain finds it.
async fn listed(api: &Api, reader: &Device, device: &Device) -> ListedDevice {
    let path = format!("/users/{}/devices", device.pool.user());
    let shown = api.get(reader, &path).await.ok().body;
    let shown: keypool_api::DevicesReply = serde_json::from_value(shown).unwrap();
    let mut list = DeviceList::new(device.pool.user());
    let end = (shown.devices.head, shown.devices.position);
    list.follow(&shown.devices.history, end, slice::from_ref(&shown.ledger), &has_signed).unwrap();
    list.device(device.pool.device()).unwrap().clone()
}

#[track_caller]
fn refused(answer: &Answer, code: &str) {
    assert_eq!(answer.code(), code, "{}", answer.body);
}

/// Declares, uploads and reserves a package of another implementation.
async fn goes_through(running: &Running, owner: &Device, foreign: &Foreign) -> Answer {
    let (api, bob) = (&running.api, Device::new("bob"));
    let packages = [foreign.package.clone()];
    let (check, detail) = fault(&api.upload(owner, &packages).await);
    assert_eq!(check, "identity");
    assert!(detail.contains("POST /devices/credential"), "{detail}");
    declare_credential(api, owner, &foreign.credential).await.ok();
    let (check, detail) = fault(&api.upload(owner, &packages).await);
    assert_eq!(check, "signature_key");
    assert!(detail.contains("POST /devices/leaf-key"), "{detail}");
    declare_leaf_key(api, owner, &foreign.leaf_key).await.ok();
    let stored = api.upload(owner, &packages).await.ok();
    assert_eq!(stored.body["accepted"], 1, "{}", stored.body);

    let reserved = api.reserve(&bob, owner.pool.user()).await.ok();
    assert_eq!(reserved.body["keypackage"], BASE64.encode(&foreign.package));
    // The inviter finds both in the chain, signed by the device's key.
    let device = listed(api, &bob, owner).await;
    assert_eq!(device.credential.as_ref(), Some(&foreign.credential));
    assert_eq!(device.leaf_keys.get(&ED25519), Some(&foreign.leaf_key));
    assert!(device.introduced);
    reserved
}

#[actix_web::test]
async fn a_package_of_marmot_goes_from_its_declaration_to_the_inviter() {
    let (owner, bob) = (Device::new("dave/phone"), Device::new("bob"));
    let running = Running::start_at(WHEN_MADE, |_| {}).with(&[&owner, &bob], 0).await;
    let marmot = Foreign::read("marmot-key-package.bin");
    assert_eq!(marmot.identity().len(), 32, "raw bytes, which are no name");
    let reserved = goes_through(&running, &owner, &marmot).await;
    assert_eq!(reserved.body["last_resort"], true);
}

#[actix_web::test]
async fn a_package_of_wire_goes_from_its_declaration_to_the_inviter() {
    let (owner, bob) = (Device::new("carol"), Device::new("bob"));
    let running = Running::start_at(WHEN_MADE, |_| {}).with(&[&owner, &bob], 0).await;
    let wire = Foreign::read("wire-13-days.bin");
    assert_eq!(wire.identity(), b"00000000-0000-4000-8000-000000000001:a1@example.org");
    goes_through(&running, &owner, &wire).await;
    // Its usual lifetime of 84 days is the operator's to admit.
    let long = Foreign::read("wire-84-days.bin");
    assert_eq!(long.leaf_key, wire.leaf_key);
    let (check, _) = fault(&running.api.upload(&owner, slice::from_ref(&long.package)).await);
    assert_eq!(check, "lifetime");
    let days = Duration::from_hours(84 * 24 + 1);
    let running = Running::start_at(WHEN_MADE, |settings| settings.admission.lifetime_max = days);
    goes_through(&running.with(&[&owner, &bob], 0).await, &owner, &long).await;
}

fn basic(identity: &[u8]) -> Credential {
    BasicCredential::new(identity.to_vec()).into()
}

pub(crate) fn bytes(credential: &Credential) -> CredentialBytes {
    CredentialBytes::new(&credential.tls_serialize_detached().unwrap()).unwrap()
}

#[actix_web::test]
async fn identities_of_every_form_are_carried_once_they_are_declared() {
    let forms: [&[u8]; 6] = [
        b"https://social.example/users/alice",
        b"mimi://example.org/u/alice",
        b"did:plc:ewvi7nxzyoun6zhxrhs64oiz",
        &[0, 0, 0, 0, 0x0d, 0xec, 0xaf, 0],
        b"",
        b"alice",
    ];
    let bob = Device::new("bob");
    let running = Running::start().with(&[&bob], 0).await;
    let api = &running.api;
    let x509 = Credential::new(CredentialType::X509, vec![5, 4, 0x30, 2, 5, 0]);
    let other = Credential::new(CredentialType::Other(0xf001), b"of tomorrow".to_vec());
    let credentials = forms.iter().map(|form| basic(form)).chain([x509, other]);
    for (n, credential) in credentials.enumerate() {
        let owner = Device::new(&format!("user{n}"));
        api.register(&owner).await.ok();
        let package = [owner.package_carrying(NOW, credential.clone())];
        assert_eq!(fault(&api.upload(&owner, &package).await).0, "identity");
        declare_credential(api, &owner, &bytes(&credential)).await.ok();
        api.upload(&owner, &package).await.ok();
        let reserved = api.reserve(&bob, owner.pool.user()).await.ok();
        assert_eq!(reserved.body["keypackage"], BASE64.encode(&package[0]));
        // The one that names the device is refused from now on.
        let (check, detail) = fault(&api.upload(&owner, &owner.packages(NOW, 1)).await);
        assert_eq!(check, "identity");
        assert!(detail.contains("not the one that the device has declared"), "{detail}");
    }
}

#[actix_web::test]
async fn a_credential_changes_while_no_package_carries_another_one() {
    let (alice, bob) = (Device::new("alice/phone"), Device::new("bob"));
    let running = Running::start().with(&[&bob, &alice], 1).await;
    let api = &running.api;
    let (first, second) = (bytes(&basic(b"first")), bytes(&basic(b"second")));
    let in_use = declare_credential(api, &alice, &first).await;
    refused(&in_use, "credential_in_use");
    assert!(in_use.text("hint").contains("POST /keypackages/revoke"), "{}", in_use.body);
    let all = json!({ "all": true, "reason": "rotated" });
    api.post(&alice, "/keypackages/revoke", all.clone()).await.ok();
    let declared = declare_credential(api, &alice, &first).await.ok();
    // Declaring it again changes nothing, and one more package carries it.
    let again = declare_credential(api, &alice, &first).await.ok();
    assert_eq!(again.body["position"], declared.body["position"]);
    let package = alice.package_carrying(NOW, basic(b"first"));
    api.upload(&alice, &[package]).await.ok();
    refused(&declare_credential(api, &alice, &second).await, "credential_in_use");
    // It outlives the device's key, and not the device.
    let next = alice.impostor();
    let rotation = alice.agrees_to(api, &next).await;
    api.post(&next, "/devices/rotate", rotation).await.ok();
    assert_eq!(listed(api, &bob, &next).await.credential, Some(first.clone()));
    api.upload(&next, &[next.package_carrying(NOW, basic(b"first"))]).await.ok();
    let laptop = Device::new("alice/laptop");
    let voucher = next.vouches_for(api, &laptop).await;
    api.register_with(&laptop, &voucher).await.ok();
    api.remove(&laptop, "phone").await.ok();
    let third = next.impostor();
    let voucher = laptop.vouches_for(api, &third).await;
    api.register_with(&third, &voucher).await.ok();
    assert_eq!(listed(api, &bob, &third).await.credential, None);
    api.upload(&third, &third.packages(NOW, 1)).await.ok();
}

#[actix_web::test]
async fn a_credential_is_declared_by_its_devices_own_statement_only() {
    let (alice, mallory) = (Device::new("alice"), Device::new("mallory"));
    let running = Running::start().with(&[&alice, &mallory], 0).await;
    let api = &running.api;
    let credential = bytes(&basic(b"theirs"));
    let digest = credential.digest();
    let mut stolen = alice.states(api, &alice.pool, Agreement::Credential(&digest)).await;
    stolen["credential"] = json!(credential);
    refused(&api.post(&mallory, "/devices/credential", stolen.clone()).await, "not_allowed");
    refused(
        &api.post(&alice.impostor(), "/devices/credential", stolen.clone()).await,
        "unauthenticated",
    );
    let mut altered = stolen.clone();
    altered["credential"] = json!(bytes(&basic(b"other")));
    refused(&api.post(&alice, "/devices/credential", altered).await, "not_allowed");
    let mut no_credential = stolen.clone();
    no_credential["credential"] = json!(BASE64.encode(&[0, 1, 9, 7]));
    refused(&api.post(&alice, "/devices/credential", no_credential).await, "bad_request");
    api.post(&alice, "/devices/credential", stolen.clone()).await.ok();
    // Another one, and the first statement again.
    declare_credential(api, &alice, &bytes(&basic(b"other"))).await.ok();
    refused(&api.post(&alice, "/devices/credential", stolen).await, "statement_stale");
}

#[actix_web::test]
async fn an_ed25519_leaf_key_takes_the_place_of_the_registered_key_and_gives_it_back() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&bob, &alice], 1).await;
    let api = &running.api;
    let leaf = alice.impostor();
    refused(&declare_leaf_key(api, &alice, &leaf.keyid()).await, "not_allowed");
    let all = json!({ "all": true, "reason": "rotated" });
    api.post(&alice, "/keypackages/revoke", all.clone()).await.ok();
    declare_leaf_key(api, &alice, &leaf.keyid()).await.ok();
    let (check, _) = fault(&api.upload(&alice, &alice.packages(NOW, 1)).await);
    assert_eq!(check, "signature_key");
    api.upload(&alice, &leaf.packages(NOW, 1)).await.ok();
    // It signs no requests.
    refused(&api.get(&leaf, "/mailbox").await, "unauthenticated");
    refused(&declare_leaf_key(api, &alice, &alice.keyid()).await, "not_allowed");
    api.post(&alice, "/keypackages/revoke", all).await.ok();
    declare_leaf_key(api, &alice, &alice.keyid()).await.ok();
    api.upload(&alice, &alice.packages(NOW, 1)).await.ok();
    let device = listed(api, &bob, &alice).await;
    assert_eq!(device.leaf_keys.get(&ED25519), Some(&alice.keyid()));
}

#[actix_web::test]
async fn the_next_key_of_a_device_brings_its_ed25519_leaf_key_along() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&bob, &alice], 1).await;
    let api = &running.api;
    let (next, leaf) = (alice.impostor(), alice.impostor().impostor());
    let key = alice.agrees_to(api, &next).await;
    // The next key declares it on the list before the rotation, which it is not in yet.
    let list = api.devices_of(&alice).await;
    let until = NOW.after(Duration::from_mins(4));
    let keyid = leaf.keyid();
    let agreement = Agreement::LeafKey(ED25519, &keyid);
    let mut declared = next.states_on(&list, &next.pool, agreement, until);
    declared["signature_scheme"] = json!(ED25519);
    declared["leaf_keyid"] = json!(leaf.keyid());
    let mut body = upload(&leaf.packages(NOW, 2));
    body["key"] = key;
    body["leaf_keys"] = json!([declared]);
    let rotated = api.post(&next, "/keypackages/rotate", body).await.ok();
    assert_eq!(rotated.body["accepted"], 2, "{}", rotated.body);
    let device = listed(api, &bob, &next).await;
    assert_eq!(device.key, Some(next.keyid()));
    assert_eq!(device.leaf_keys.get(&ED25519), Some(&leaf.keyid()));
    assert!(device.introduced);
}
