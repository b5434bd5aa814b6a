//! Public Commits of real groups, held against the request that carries them.

use keypool_ledger::KeyPackageRef;
use openmls::prelude::{
    BasicCredential, CredentialWithKey, KeyPackage, LeafNodeIndex, MlsGroup, MlsGroupCreateConfig,
    PURE_PLAINTEXT_WIRE_FORMAT_POLICY, tls_codec::Serialize as _,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use openmls_traits::{OpenMlsProvider, types::Ciphersuite};

use crate::{admission::public_commit::check_public_changes, problem::Failure};

const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

struct Member {
    provider: OpenMlsRustCrypto,
    signer: SignatureKeyPair,
    credential: CredentialWithKey,
}

impl Member {
    fn new(name: &str) -> Self {
        let provider = OpenMlsRustCrypto::default();
        let signer = SignatureKeyPair::new(SUITE.signature_algorithm()).unwrap();
        signer.store(provider.storage()).unwrap();
        let credential = CredentialWithKey {
            credential: BasicCredential::new(name.into()).into(),
            signature_key: signer.public().into(),
        };
        Self { provider, signer, credential }
    }

    fn package(&self) -> (KeyPackage, KeyPackageRef) {
        let bundle = KeyPackage::builder()
            .build(SUITE, &self.provider, &self.signer, self.credential.clone())
            .unwrap();
        let package = bundle.key_package().clone();
        let reference = package.hash_ref(self.provider.crypto()).unwrap();
        (package, KeyPackageRef::new(reference.as_slice()).unwrap())
    }

    fn group(&self) -> MlsGroup {
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(SUITE)
            .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
            .build();
        MlsGroup::new(&self.provider, &self.signer, &config, self.credential.clone()).unwrap()
    }
}

fn detail(checked: Result<(), Failure>) -> String {
    checked.unwrap_err().to_string()
}

#[test]
fn a_public_commit_adds_only_packages_that_its_request_spends() {
    let (alice, bob, carol) = (Member::new("alice"), Member::new("bob"), Member::new("carol"));
    let ((bobs, bob_ref), (carols, carol_ref)) = (bob.package(), carol.package());
    let mut group = alice.group();
    let (commit, ..) = group.add_members(&alice.provider, &alice.signer, &[bobs, carols]).unwrap();
    let commit = commit.tls_serialize_detached().unwrap();

    check_public_changes(&commit, |added| [&carol_ref, &bob_ref].contains(&added), 0).unwrap();
    let one_is_missing = check_public_changes(&commit, |added| *added == bob_ref, 0);
    assert!(detail(one_is_missing).contains(&carol_ref.to_string()));
    for len in 0..commit.len() {
        let _ = check_public_changes(&commit[..len], |_| false, 0);
    }
}

#[test]
fn a_public_commit_removes_no_more_members_than_its_request_names() {
    let (alice, bob, carol) = (Member::new("alice"), Member::new("bob"), Member::new("carol"));
    let mut group = alice.group();
    let packages = [bob.package().0, carol.package().0];
    group.add_members(&alice.provider, &alice.signer, &packages).unwrap();
    group.merge_pending_commit(&alice.provider).unwrap();
    let both = [LeafNodeIndex::new(1), LeafNodeIndex::new(2)];
    let (commit, ..) = group.remove_members(&alice.provider, &alice.signer, &both).unwrap();
    let commit = commit.tls_serialize_detached().unwrap();

    check_public_changes(&commit, |_| false, 2).unwrap();
    let told = detail(check_public_changes(&commit, |_| false, 1));
    assert!(told.contains("removes 2 members; the request names 1"), "{told}");
}

#[test]
fn proposals_by_reference_and_private_commits_are_left_to_the_members() {
    let (alice, bob) = (Member::new("alice"), Member::new("bob"));
    let mut group = alice.group();
    group.propose_add_member(&alice.provider, &alice.signer, &bob.package().0).unwrap();
    let (commit, ..) = group.commit_to_pending_proposals(&alice.provider, &alice.signer).unwrap();
    check_public_changes(&commit.tls_serialize_detached().unwrap(), |_| false, 0).unwrap();

    let config = MlsGroupCreateConfig::builder().ciphersuite(SUITE).build();
    let mut group =
        MlsGroup::new(&alice.provider, &alice.signer, &config, alice.credential.clone()).unwrap();
    let (commit, ..) =
        group.add_members(&alice.provider, &alice.signer, &[bob.package().0]).unwrap();
    check_public_changes(&commit.tls_serialize_detached().unwrap(), |_| false, 0).unwrap();
}
