//! A pool of several ciphersuites: each is refilled by itself, and groups are made in either.

use std::time::Duration;

use keypool_client::{
    DeviceIdentity, LocalStore, MlsClient, OfferedPackage, OtherCopy, PoolConfig, Received,
    RefillCounts, Replenishment,
};
use keypool_ledger::{Clock, GroupId, KeyPackageRef, SignatureKey};
use openmls::prelude::{
    BasicCredential, Capabilities, Ciphersuite, CredentialType, CredentialWithKey, ExtensionType,
    KeyPackage, Lifetime, MlsGroupJoinConfig, MlsMessageBodyIn, MlsMessageIn, OpenMlsProvider,
    ProposalType, StagedWelcome,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use openmls_traits::types::SignatureScheme;
use tls_codec::{Deserialize, Serialize};

use super::{
    service::{Kill, Mail, Service, Side, run},
    support::{Device, group, now, pool},
};

const DAY: Duration = Duration::from_hours(24);

fn config(ciphersuites: &[u16]) -> PoolConfig {
    let ciphersuites = ciphersuites.to_vec();
    PoolConfig { target: 4, low_watermark: 1, ciphersuites, ..PoolConfig::default() }
}

fn open(service: &Service, name: &str, suites: &[u16]) -> MlsClient<Mail> {
    service.open_at(&service.folder.path().join(name), name, config(suites))
}

async fn registered(service: &Service, name: &str, suites: &[u16]) -> MlsClient<Mail> {
    let device = open(service, name, suites);
    device.register().await.unwrap();
    device.connection().refresh_now(service.clock.now()).await.unwrap();
    device
}

/// How many of each ciphersuite are available and of last resort, as the server counts them.
async fn counts(device: &MlsClient<Mail>) -> Vec<(u16, u64, u64)> {
    let suites = device.status().await.unwrap().counts.suites;
    suites.iter().map(|suite| (suite.ciphersuite, suite.available, suite.last_resort)).collect()
}

/// A group of both, in a ciphersuite.
async fn with_bob(
    service: &Service,
    alice: &MlsClient<Mail>,
    bob: &MlsClient<Mail>,
    (name, suite): (&str, u16),
) -> GroupId {
    let group = group(name);
    alice.create_group_in(&group, suite).unwrap();
    alice.invite(&group, ["bob"]).await.unwrap();
    let welcomes = service.mail.welcomes("bob");
    assert_eq!(bob.join(welcomes.last().unwrap()).await.unwrap().group, group);
    assert_eq!(bob.membership().ciphersuite(&group).unwrap(), suite);
    they_talk(alice, bob, &group);
    group
}

fn they_talk(one: &MlsClient<Mail>, other: &MlsClient<Mail>, group: &GroupId) {
    for (from, to) in [(one, other), (other, one)] {
        let sealed = from.encrypt(group, b"hello").unwrap();
        let received = to.membership().decrypt(&sealed).unwrap();
        assert!(matches!(received, Received::Application { bytes, .. } if bytes == b"hello"));
    }
}

#[test]
fn groups_of_the_hybrid_suites_are_joined_and_talked_in() {
    run(async {
        let service = Service::start();
        let (alice, bob) = (
            registered(&service, "alice", &[0x4F]).await,
            registered(&service, "bob", &[0x4E, 0x4F]).await,
        );
        assert_eq!(counts(&bob).await, [(0x4E, 4, 1), (0x4F, 4, 1)]);
        for suite in [0x4E, 0x4F] {
            let group = with_bob(&service, &alice, &bob, (&format!("{suite}"), suite)).await;
            let key = key_in(&alice, &group, "bob/main");
            assert_eq!(key, bob.identity().signature_key(), "the device's own key signs");
        }
        drop(bob);
        let bob = open(&service, "bob", &[0x4E, 0x4F]);
        assert_eq!(
            bob.connection().refresh_now(service.clock.now()).await.unwrap().rejected.len(),
            0
        );
        assert!(bob.connection().pool().check_up(service.clock.now()).unwrap().is_sound());
        assert_eq!(bob.audit().unwrap().findings, []);
    });
}

/// The key that a member's leaf names.
fn key_in(device: &MlsClient<Mail>, group: &GroupId, name: &str) -> SignatureKey {
    let members = device.members(group).unwrap();
    members.into_iter().find(|member| member.name == name).unwrap().signature_key.unwrap()
}

#[test]
fn each_ciphersuite_is_refilled_by_itself_and_groups_are_made_in_either() {
    run(async {
        let service = Service::start();
        let (alice, bob) =
            (registered(&service, "alice", &[1]).await, registered(&service, "bob", &[1, 2]).await);
        assert_eq!(counts(&bob).await, [(1, 4, 1), (2, 4, 1)]);
        let one = with_bob(&service, &alice, &bob, ("one", 1)).await;
        assert_eq!(key_in(&alice, &one, "bob/main"), bob.identity().signature_key());
        let two = with_bob(&service, &alice, &bob, ("two", 2)).await;
        assert_eq!(key_in(&alice, &two, "bob/main").as_bytes().len(), 65, "a P-256 key");

        for name in ["three", "four"] {
            with_bob(&service, &alice, &bob, (name, 2)).await;
        }
        assert_eq!(counts(&bob).await, [(1, 3, 1), (2, 1, 1)]);
        let refresh = bob.connection().refresh_now(service.clock.now()).await.unwrap();
        assert_eq!((refresh.created, refresh.rejected), (3, vec![]));
        assert_eq!(counts(&bob).await, [(1, 3, 1), (2, 4, 1)]);

        // After a restart it is the same key that signs, and whoever has none of a suite is named.
        drop(bob);
        let bob = open(&service, "bob", &[1, 2]);
        they_talk(&alice, &bob, &two);
        with_bob(&service, &alice, &bob, ("five", 2)).await;
        drop(registered(&service, "carol", &[1]).await);
        let refused = alice.invite(&two, ["carol"]).await.unwrap_err();
        assert!(refused.to_string().contains("ciphersuite"), "{refused}");
        assert_eq!(bob.audit().unwrap().findings, []);
        assert!(bob.connection().pool().check_up(service.clock.now()).unwrap().is_sound());
    });
}

/// The private half of the device's P-256 key, if it is in its store.
fn is_kept(service: &Service, key: &SignatureKey) -> bool {
    let home = service.folder.path().join("bob");
    let store = LocalStore::open(&home, &"bob".parse().unwrap()).unwrap();
    let staged = store.stage().unwrap();
    let scheme = SignatureScheme::ECDSA_SECP256R1_SHA256;
    SignatureKeyPair::read(&staged, key.as_bytes(), scheme).is_some()
}

#[test]
fn rotating_replaces_both_keys_and_the_one_before_goes_when_nothing_names_it() {
    run(async {
        let service = Service::start();
        let (alice, bob) =
            (registered(&service, "alice", &[1]).await, registered(&service, "bob", &[1, 2]).await);
        let two = with_bob(&service, &alice, &bob, ("two", 2)).await;
        let before = key_in(&alice, &two, "bob/main");
        bob.rotate_key().await.unwrap();
        assert_eq!(counts(&bob).await, [(1, 4, 0), (2, 4, 0)]);

        // The group goes on with the key before, until that is replaced there too.
        assert!(bob.membership().needs_fresh_keys(&two).unwrap());
        they_talk(&alice, &bob, &two);
        let update = bob.membership().self_update(&two).unwrap();
        bob.membership().merge_pending_commit(&two).unwrap();
        alice.decrypt(&update.commit).await.unwrap();
        let after = key_in(&alice, &two, "bob/main");
        assert!(after != before && after.as_bytes().len() == 65);
        assert!(!bob.membership().needs_fresh_keys(&two).unwrap());
        they_talk(&alice, &bob, &two);

        // A package of the next key names the same one.
        let other = with_bob(&service, &alice, &bob, ("other", 2)).await;
        assert_eq!(key_in(&alice, &other, "bob/main"), after);
        drop(bob);
        assert!(is_kept(&service, &before) && is_kept(&service, &after));
        service.clock.advance(15 * DAY);
        let bob = open(&service, "bob", &[1, 2]);
        bob.connection().refresh_now(service.clock.now()).await.unwrap();
        drop(bob);
        assert!(!is_kept(&service, &before) && is_kept(&service, &after));
        they_talk(&alice, &open(&service, "bob", &[1, 2]), &two);
    });
}

/// Each request of a rotation and of the refresh after it: the app dies before it or after it.
#[test]
fn a_rotation_of_both_keys_goes_on_wherever_it_was_killed() {
    for number in 0..3 {
        for side in [Side::Before, Side::After] {
            run(async {
                let service = Service::start();
                let alice = registered(&service, "alice", &[1]).await;
                let bob = registered(&service, "bob", &[1, 2]).await;
                let group = with_bob(&service, &alice, &bob, ("two", 2)).await;
                let kill = Kill::Request(number, side);
                service
                    .kill("bob", kill, bob, async |bob: &MlsClient<Mail>| {
                        bob.rotate_key().await.unwrap();
                        bob.connection().refresh_now(service.clock.now()).await.unwrap();
                    })
                    .await;
                let bob = open(&service, "bob", &[1, 2]);
                bob.register().await.unwrap();
                let refresh = bob.connection().refresh_now(service.clock.now()).await.unwrap();
                assert_eq!(refresh.rejected, Vec::<String>::new(), "{kill:?}");
                assert_eq!(counts(&bob).await, [(1, 4, 1), (2, 4, 1)], "{kill:?}");
                they_talk(&alice, &bob, &group);
                with_bob(&service, &alice, &bob, ("another", 2)).await;
            });
        }
    }
}

#[test]
fn lost_answers_of_a_first_refresh_end_the_same() {
    for lost in 0..5 {
        run(async {
            let service = Service::start();
            let bob = open(&service, "bob", &[2, 1]);
            bob.register().await.unwrap();
            service.tunnel.lose(&[lost]);
            let refresh = bob.connection().refresh_now(service.clock.now()).await.unwrap();
            assert_eq!(refresh.rejected, Vec::<String>::new(), "{lost}");
            assert_eq!(counts(&bob).await, [(1, 4, 1), (2, 4, 1)], "{lost}");
            let again = bob.connection().refresh_now(service.clock.now()).await.unwrap();
            assert_eq!((again.created, again.reuploaded), (0, 0));
        });
    }
}

#[test]
fn a_home_from_before_the_p256_key_brings_another_one() {
    run(async {
        let service = Service::start();
        let alice = registered(&service, "alice", &[1]).await;
        drop(registered(&service, "bob", &[1]).await);
        service.back_up_home("bob");
        let bob = open(&service, "bob", &[1, 2]);
        bob.connection().refresh_now(service.clock.now()).await.unwrap();
        assert_eq!(counts(&bob).await, [(1, 4, 1), (2, 4, 1)]);
        drop(bob);
        service.restore_home("bob");
        let bob = open(&service, "bob", &[1, 2]);
        let refused = bob.refresh_now().await.unwrap();
        assert_eq!(refused.drift.other_copy, Some(OtherCopy::Running), "{refused:?}");
        let refresh = bob.adopt().await.unwrap();
        assert_eq!((refresh.drift.home_set_back, refresh.rejected), (true, vec![]));
        assert_eq!(counts(&bob).await, [(1, 4, 1), (2, 4, 1)]);
        with_bob(&service, &alice, &bob, ("two", 2)).await;
    });
}

#[test]
fn a_suite_that_is_not_wanted_any_more_is_not_refilled() {
    run(async {
        let service = Service::start();
        drop(registered(&service, "bob", &[1, 2]).await);
        let bob = open(&service, "bob", &[2, 3]);
        let refresh = bob.connection().refresh_now(service.clock.now()).await.unwrap();
        assert_eq!((refresh.created, refresh.last_resort_uploaded), (4, 1));
        assert_eq!(counts(&bob).await, [(1, 4, 0), (2, 4, 1), (3, 4, 1)]);
        let group = group("g");
        bob.create_group(&group).unwrap();
        assert_eq!(bob.membership().ciphersuite(&group).unwrap(), 2, "the first of them");
    });
}

#[test]
fn where_there_is_not_room_for_all_each_ciphersuite_has_its_share() {
    let config = PoolConfig { target: 8, low_watermark: 4, hard_cap: 16, ..config(&[1, 2]) };
    let counts = |available, pending| RefillCounts { available, live: 10, pending };
    let shares = config.replenishments(&[(1, counts(0, 2)), (2, counts(0, 0))]);
    let expected = [
        (1, Replenishment { reupload: 2, create: 1 }),
        (2, Replenishment { reupload: 0, create: 3 }),
    ];
    assert_eq!(shares, expected);
    let shares = config.replenishments(&[(1, counts(0, 0)), (2, counts(7, 0))]);
    assert_eq!(shares[0].1.create, 6, "what one does not need is the other's");
    assert!(shares[1].1.is_empty());
}

/// A member whose leaf lists an unknown capability.
struct Odd {
    provider: OpenMlsRustCrypto,
    keys: SignatureKeyPair,
    suite: Ciphersuite,
}

impl Odd {
    fn new(suite: u16) -> Self {
        let suite = Ciphersuite::try_from(suite).unwrap();
        let keys = SignatureKeyPair::new(suite.signature_algorithm()).unwrap();
        let provider = OpenMlsRustCrypto::default();
        keys.store(provider.storage()).unwrap();
        Self { provider, keys, suite }
    }

    fn offer(&self) -> OfferedPackage {
        let capabilities = Capabilities::builder()
            .ciphersuites(vec![self.suite])
            .extensions(vec![ExtensionType::Unknown(0x7003)])
            .proposals(vec![ProposalType::Custom(0x7004)])
            .credentials(vec![CredentialType::Basic, CredentialType::Other(0x7005)])
            .with_grease(self.provider.rand())
            .build();
        assert!(capabilities.extensions().iter().any(ExtensionType::is_grease));
        let credential = CredentialWithKey {
            credential: BasicCredential::new(b"odd/main".to_vec()).into(),
            signature_key: self.keys.public().into(),
        };
        let bundle = KeyPackage::builder()
            .key_package_lifetime(Lifetime::new(13 * DAY.as_secs()))
            .leaf_node_capabilities(capabilities)
            .build(self.suite, &self.provider, &self.keys, credential)
            .unwrap();
        let reference = bundle.key_package().hash_ref(self.provider.crypto()).unwrap();
        OfferedPackage {
            keypackage_ref: KeyPackageRef::new(reference.as_slice()).unwrap(),
            owner: "odd/main".parse().unwrap(),
            bytes: bundle.key_package().tls_serialize_detached().unwrap(),
        }
    }
}

#[test]
fn a_member_that_can_do_what_nobody_knows_is_added_and_others_after_it() {
    for suite in [1, 2, 3] {
        let (alice, bob, odd) = (Device::new("alice"), Device::new("bob"), Odd::new(suite));
        let group = group("g");
        alice.groups.create_group(&group, suite, now()).unwrap();
        let added = alice.add(&group, &[odd.offer()]);
        let MlsMessageBodyIn::Welcome(welcome) =
            MlsMessageIn::tls_deserialize_exact(&added.welcome).unwrap().extract()
        else {
            panic!("no Welcome");
        };
        let join = MlsGroupJoinConfig::builder().use_ratchet_tree_extension(true).build();
        let odds = StagedWelcome::new_from_welcome(&odd.provider, &join, welcome, None).unwrap();
        let mut odds = odds.into_group(&odd.provider).unwrap();

        let config = config(&[suite]);
        let identity = DeviceIdentity::load_or_create(&bob.store).unwrap();
        let bobs = keypool_client::KeyPackagePool::new(bob.store.clone(), identity, config);
        let made = bobs.unwrap().generate_and_store(1, now()).unwrap();
        let offer = OfferedPackage {
            keypackage_ref: made[0].keypackage_ref().clone(),
            owner: pool("bob"),
            bytes: made[0].bytes.clone(),
        };
        let added = alice.add(&group, &[offer]);
        bob.join(&added);
        assert_eq!(bob.groups.members(&group).unwrap().len(), 3);
        let sealed = odds.create_message(&odd.provider, &odd.keys, b"before").unwrap();
        let sealed = sealed.to_bytes().unwrap();
        assert!(matches!(alice.groups.decrypt(&sealed), Ok(Received::Application { .. })));
        let said = bob.groups.encrypt(&group, b"hello").unwrap();
        let received = alice.groups.decrypt(&said).unwrap();
        assert!(matches!(received, Received::Application { bytes, .. } if bytes == b"hello"));
    }
}
