//! Credentials that the app gives: declared, carried by packages and leaves, and judged by the app.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use keypool_client::{
    ClientOptions, CredentialSource, CredentialValidator, GroupError, JoinError, KeyPolicy,
    LeafContradiction, LeafCredential, LeafOwner, LeafTrust, MlsClient, MlsMembership,
    PackageCheck, PoolConfig, PresentedLeaf, Requirement, SendError, SkipReason,
};
use keypool_ledger::GroupId;

use super::{
    members::{Client, members, they_talk, told},
    people::why,
    service::{Kill, Service, Side, group, run},
    support::{Device, now},
};

/// Marmot's form: the 32 raw bytes of a key.
const MARMOT: [u8; 32] = [0xfe; 32];
/// Wire's form: a Basic credential that looks like the name of a user of ours.
const WIRE: &[u8] = b"5d2e4a1e-0a3b-4d5c:7ac1f0@wire.example";
/// The number of X.509.
const X509: u16 = 2;

/// A credential that the app may change.
struct Source(Mutex<LeafCredential>);

impl Source {
    fn new(credential: LeafCredential) -> Arc<Self> {
        Arc::new(Self(Mutex::new(credential)))
    }

    fn change(&self, credential: LeafCredential) {
        *self.0.lock().unwrap() = credential;
    }
}

impl CredentialSource for Source {
    fn credential(&self) -> LeafCredential {
        self.0.lock().unwrap().clone()
    }
}

/// The owners of some credentials, by content; the directory decides about all others.
#[derive(Default)]
struct Owners(BTreeMap<Vec<u8>, LeafOwner>, Vec<u16>);

impl Owners {
    fn of(owners: &[(&[u8], LeafOwner)]) -> Arc<Self> {
        let owners = owners.iter().map(|(content, owner)| (content.to_vec(), owner.clone()));
        Arc::new(Self(owners.collect(), Vec::new()))
    }
}

impl CredentialValidator for Owners {
    fn owner(&self, leaf: &PresentedLeaf<'_>) -> LeafOwner {
        self.0.get(leaf.content).cloned().unwrap_or(LeafOwner::Undecided)
    }

    fn credential_types(&self) -> Vec<u16> {
        self.1.clone()
    }
}

fn basic(identity: &[u8]) -> LeafCredential {
    LeafCredential::basic(identity).unwrap()
}

fn listed(device: &str) -> LeafOwner {
    LeafOwner::Listed(device.parse().unwrap())
}

fn options(service: &Service) -> ClientOptions {
    let pool = PoolConfig { target: 4, low_watermark: 1, ..PoolConfig::default() };
    ClientOptions { pool, ..ClientOptions::new(service.clock.clone()) }
}

fn open_with(service: &Service, name: &str, options: ClientOptions) -> Client {
    let (home, owner) = (service.folder.path().join(name), name.parse().unwrap());
    MlsClient::open_at_server(&home, &owner, &service.tunnel.url(), options).unwrap()
}

/// A registered device with a full pool.
async fn device(service: &Service, name: &str, options: ClientOptions) -> Client {
    let device = open_with(service, name, options);
    device.register().await.unwrap();
    let refresh = device.refresh_now().await.unwrap();
    assert_eq!((refresh.created, refresh.rejected), (4, Vec::new()));
    device
}

async fn with_source(service: &Service, name: &str, source: Arc<Source>) -> Client {
    let options = ClientOptions { credential_source: Some(source), ..options(service) };
    device(service, name, options).await
}

async fn with_owners(service: &Service, name: &str, owners: Arc<Owners>) -> Client {
    let options = ClientOptions { credential_validator: Some(owners), ..options(service) };
    device(service, name, options).await
}

/// A group that one makes and the other joins.
async fn made_by(one: &Client, other: &Client, name: &str) -> GroupId {
    let group = group(name);
    one.create_group(&group).unwrap();
    let invited = one.invite(&group, [other.identity().pool().user()]).await.unwrap();
    assert_eq!(invited.missing, []);
    assert_eq!(told(other).await, [format!("joined by {}", one.identity().pool())]);
    group
}

fn trust(client: &Client, group: &GroupId, name: &str) -> LeafTrust {
    let members = client.members(group).unwrap();
    members.into_iter().find(|member| member.name == name).unwrap().trust
}

/// Both have the names and the trust of both right.
fn both_know_each_other(alice: &Client, bob: &Client, group: &GroupId) {
    for client in [alice, bob] {
        assert_eq!(members(client, group), ["alice/main", "bob/phone"]);
        for name in ["alice/main", "bob/phone"] {
            let is_own = client.identity().pool().to_string() == name;
            let expected = if is_own { LeafTrust::Verified } else { LeafTrust::Known };
            assert_eq!(trust(client, group, name), expected, "{name}");
        }
    }
}

async fn a_whole_life(alice: &Client, bob: &Client) {
    for (one, other, name) in [(alice, bob, "by alice"), (bob, alice, "by bob")] {
        let group = made_by(one, other, name).await;
        both_know_each_other(alice, bob, &group);
        they_talk(alice, bob, &group).await;
        bob.update_keys(&group).await.unwrap();
        assert_eq!(told(alice).await, ["+[] -[]"]);
        alice.update_keys(&group).await.unwrap();
        assert_eq!(told(bob).await, ["+[] -[]"]);
        both_know_each_other(alice, bob, &group);
        they_talk(alice, bob, &group).await;
        assert_eq!(alice.check_members(&group).await.unwrap(), []);
    }
    alice.refresh_now().await.unwrap();
    assert_eq!(alice.connection().tell_contacts().await.unwrap(), 1, "bob has invited her");
    // A member is found by the name, and the server is told of the same removal.
    alice.remove(&group("by alice"), "bob", None).await.unwrap();
    assert_eq!(told(bob).await, ["+[] -[\"bob/phone\"], and this is me"]);
    bob.leave(&group("by bob")).await.unwrap();
    assert_eq!(told(alice).await, ["bob/phone asks to leave"]);
    alice.take_up_proposals(&group("by bob")).await.unwrap();
    assert_eq!(told(alice).await, ["[\"bob/phone\"] left"]);
    assert_eq!(alice.audit().unwrap().findings, []);
    assert_eq!(bob.audit().unwrap().findings, []);
}

#[test]
fn credentials_of_other_forms_are_declared_invited_joined_and_known_by_name() {
    for content in [&MARMOT, WIRE] {
        run(async {
            let service = Service::start();
            let owners = Owners::of(&[(content, listed("bob/phone"))]);
            let alice = with_owners(&service, "alice", owners).await;
            let bob = with_source(&service, "bob/phone", Source::new(basic(content))).await;
            a_whole_life(&alice, &bob).await;
        });
    }
}

#[test]
fn a_device_without_a_validator_knows_a_declared_credential_by_its_key() {
    for content in [&MARMOT, WIRE] {
        run(async {
            let service = Service::start();
            let alice = device(&service, "alice", options(&service)).await;
            let bob = with_source(&service, "bob/phone", Source::new(basic(content))).await;
            alice.look_up_peer("bob").await.unwrap();
            a_whole_life(&alice, &bob).await;
        });
    }
}

#[test]
fn a_p256_leaf_carries_the_apps_credential_too() {
    run(async {
        let service = Service::start();
        let p256 = || {
            let pool = PoolConfig { ciphersuites: vec![2], ..options(&service).pool };
            ClientOptions { pool, ..options(&service) }
        };
        let owners = Some(Owners::of(&[(&MARMOT, listed("bob/phone"))]) as Arc<_>);
        let source = Some(Source::new(basic(&MARMOT)) as Arc<_>);
        let alice = ClientOptions { credential_validator: owners, ..p256() };
        let alice = device(&service, "alice", alice).await;
        let bob = ClientOptions { credential_source: source, ..p256() };
        let bob = device(&service, "bob/phone", bob).await;
        a_whole_life(&alice, &bob).await;
    });
}

#[test]
fn an_x509_leaf_passes_where_all_list_its_type() {
    run(async {
        let service = Service::start();
        // One certificate of four bytes, behind its length.
        let chain = LeafCredential::new(X509, &[4, 0x30, 0x02, 0x05, 0x00]).unwrap();
        let owners =
            Owners(Owners::of(&[(chain.content(), listed("bob/phone"))]).0.clone(), vec![X509]);
        let alice = with_owners(&service, "alice", Arc::new(owners)).await;
        let bob = with_source(&service, "bob/phone", Source::new(chain)).await;
        // A device that does not list the type is named, and none of its packages is given out for that.
        let carol = device(&service, "carol", options(&service)).await;
        let friday = group("friday");
        bob.create_group(&friday).unwrap();
        let refused = bob.invite(&friday, ["carol"]).await.unwrap_err();
        let requirement = Requirement::Credential(X509);
        assert_eq!(why(&refused), &SkipReason::RequirementUnmet { requirement });
        let counts = carol.status().await.unwrap().counts;
        assert_eq!((counts.available, counts.reserved, counts.revoked), (4, 0, 0));
        a_whole_life(&alice, &bob).await;
    });
}

#[test]
fn a_type_that_the_app_has_learned_is_listed_from_the_next_update_on() {
    run(async {
        let service = Service::start();
        let chain = LeafCredential::new(X509, &[4, 0x30, 0x02, 0x05, 0x00]).unwrap();
        let owners = || Arc::new(Owners(BTreeMap::new(), vec![X509]));
        let knowing =
            || ClientOptions { credential_validator: Some(owners()), ..options(&service) };
        let alice = device(&service, "alice", options(&service)).await;
        let carol = device(&service, "carol", options(&service)).await;
        drop(with_source(&service, "bob/phone", Source::new(chain)).await);
        let friday = group("friday");
        alice.create_group(&friday).unwrap();
        alice.invite(&friday, ["carol"]).await.unwrap();
        assert_eq!(told(&carol).await, ["joined by alice/main"]);
        drop((alice, carol));
        let [alice, carol] = ["alice", "carol"].map(|name| open_with(&service, name, knowing()));
        let refused = alice.invite(&friday, ["bob"]).await.unwrap_err();
        let check = PackageCheck::Group;
        assert_eq!(why(&refused), &SkipReason::PackageRejected { check });
        for (one, other) in [(&alice, &carol), (&carol, &alice)] {
            assert!(one.needs_fresh_keys(&friday).unwrap());
            one.update_keys(&friday).await.unwrap();
            assert!(!one.needs_fresh_keys(&friday).unwrap());
            assert_eq!(told(other).await, ["+[] -[]"]);
        }
        assert_eq!(alice.invite(&friday, ["bob"]).await.unwrap().missing, []);
        assert_eq!(trust(&alice, &friday, "bob/phone"), LeafTrust::Known);
    });
}

#[test]
fn a_leaf_that_the_app_refuses_is_an_impostors() {
    run(async {
        let service = Service::start();
        let reason = "its account was closed".to_owned();
        let owners = Owners::of(&[(&MARMOT, LeafOwner::Refused { reason: reason.clone() })]);
        let why_refused = LeafContradiction::RefusedByApp { reason };
        let alice = with_owners(&service, "alice", owners.clone()).await;
        let carol = device(&service, "carol", options(&service)).await;
        let bob = with_source(&service, "bob/phone", Source::new(basic(&MARMOT))).await;

        // Its package is not added, and its invitation is not joined.
        let friday = group("friday");
        alice.create_group(&friday).unwrap();
        let refused = alice.invite(&friday, ["bob"]).await.unwrap_err();
        let check = PackageCheck::Directory;
        assert_eq!(why(&refused), &SkipReason::PackageRejected { check });
        let by_bob = group("by bob");
        bob.create_group(&by_bob).unwrap();
        bob.invite(&by_bob, ["alice"]).await.unwrap();
        let said = format!("refused an invitation by : {why_refused}");
        assert_eq!(told(&alice).await, [said]);

        // A third member brings it in: it is marked, and by the strict policy nothing is sent.
        alice.invite(&friday, ["carol"]).await.unwrap();
        assert_eq!(told(&carol).await, ["joined by alice/main"]);
        carol.invite(&friday, ["bob"]).await.unwrap();
        alice.sync(0).await.unwrap();
        let [marked] = alice.membership().untrusted(&friday).unwrap().try_into().unwrap();
        assert_eq!(marked.why, why_refused);
        let refused = alice.send(&friday, b"who is there?").await.unwrap_err();
        let is_strict = matches!(refused, SendError::Group(GroupError::UntrustedMembers { .. }));
        assert!(is_strict, "{refused:?}");
        drop(alice);
        let marking = ClientOptions {
            credential_validator: Some(owners),
            key_policy: KeyPolicy::Mark,
            ..options(&service)
        };
        let alice = open_with(&service, "alice", marking);
        alice.send(&friday, b"hello all").await.unwrap().unwrap();
        assert_eq!(trust(&alice, &friday, ""), LeafTrust::Contradicts(why_refused));
    });
}

/// Mallory's leaves carry Bob's credential, and her own key has signed them.
#[test]
fn a_leaf_with_somebody_elses_credential_is_refused_by_the_directory() {
    run(async {
        let service = Service::start();
        let owners = Owners::of(&[(&MARMOT, listed("bob/phone"))]);
        let alice = with_owners(&service, "alice", owners).await;
        drop(with_source(&service, "bob/phone", Source::new(basic(&MARMOT))).await);
        let mallory = with_source(&service, "mallory", Source::new(basic(&MARMOT))).await;
        let friday = group("friday");
        mallory.create_group(&friday).unwrap();
        mallory.invite(&friday, ["alice"]).await.unwrap();
        let other_key = LeafContradiction::OtherKey;
        assert_eq!(
            told(&alice).await,
            [format!("refused an invitation by bob/phone: {other_key}")]
        );
        let saturday = group("saturday");
        alice.create_group(&saturday).unwrap();
        let refused = alice.invite(&saturday, ["mallory"]).await.unwrap_err();
        let check = PackageCheck::Identity;
        assert_eq!(why(&refused), &SkipReason::PackageRejected { check });
    });
}

/// The app knows a device that the directory does not: one of another server, say.
#[test]
fn a_leaf_that_the_app_trusts_needs_no_directory() {
    let (dave, bob) = (Device::new("dave/laptop"), Device::new("bob"));
    let source = Source::new(basic(&MARMOT));
    let daves = dave.identity.clone().with_credentials(Some(source), None);
    let daves = MlsMembership::new(dave.store.clone(), daves);
    daves.create_group(&group("g"), 1, now()).unwrap();
    let added = daves.stage_add(&group("g"), &[bob.offer()], now()).unwrap();

    let refused = bob.groups.join_from_welcome(&added.welcome, now());
    let why = LeafContradiction::NamesNoDevice;
    assert!(matches!(refused, Err(JoinError::Impostor { why: found, .. }) if found == why));
    let trusting = Owners::of(&[(&MARMOT, LeafOwner::Trusted("dave/laptop".parse().unwrap()))]);
    let bobs = bob.identity.clone().with_credentials(None, Some(trusting));
    let bobs = MlsMembership::new(bob.store.clone(), bobs);
    let joined = bobs.join_from_welcome(&added.welcome, now()).unwrap();
    assert_eq!((joined.inviter.as_str(), joined.trust), ("dave/laptop", LeafTrust::Known));
    assert_eq!(joined.untrusted, []);
}

/// How many packages the server can hand out.
async fn available(client: &Client) -> u64 {
    client.status().await.unwrap().counts.available
}

#[test]
fn a_changed_credential_replaces_the_packages_and_then_the_leaves() {
    run(async {
        let service = Service::start();
        let (first, second) = (basic(&MARMOT), basic(&[7; 32]));
        let owners = Owners::of(&[
            (first.content(), listed("bob/phone")),
            (second.content(), listed("bob/phone")),
        ]);
        let alice = with_owners(&service, "alice", owners).await;
        let carol = device(&service, "carol", options(&service)).await;
        let source = Source::new(first.clone());
        let bob = with_source(&service, "bob/phone", source.clone()).await;
        let friday = made_by(&alice, &bob, "friday").await;
        alice.invite(&friday, ["carol"]).await.unwrap();
        assert_eq!(told(&bob).await, ["+[\"carol/main\"] -[]"]);
        carol.look_up_peer("bob").await.unwrap();
        assert_eq!(told(&carol).await, ["joined by alice/main"]);
        bob.update_keys(&friday).await.unwrap();
        assert!(!bob.needs_fresh_keys(&friday).unwrap());
        for other in [&alice, &carol] {
            assert_eq!(told(other).await, ["+[] -[]"]);
        }

        source.change(second);
        let refresh = bob.refresh_key_packages().await.unwrap();
        assert_eq!((refresh.created, refresh.rejected), (4, Vec::new()));
        assert!(refresh.drift.is_none(), "{:?}", refresh.drift);
        assert_eq!(available(&bob).await, 4);
        assert!(bob.refresh_key_packages().await.unwrap().skipped);

        // Its leaf is known with the credential before, also after the change was seen.
        assert!(bob.needs_fresh_keys(&friday).unwrap());
        for other in [&alice, &carol] {
            assert_eq!(other.check_members(&friday).await.unwrap(), []);
            bob.send(&friday, b"as before").await.unwrap().unwrap();
            other.send(&friday, b"as before").await.unwrap().unwrap();
            told(&bob).await;
        }
        for other in [&alice, &carol] {
            told(other).await;
        }
        bob.update_keys(&friday).await.unwrap();
        assert!(!bob.needs_fresh_keys(&friday).unwrap());
        for other in [&alice, &carol] {
            assert_eq!(told(other).await, ["+[] -[]"]);
            assert_eq!(members(other, &friday), ["alice/main", "bob/phone", "carol/main"]);
            assert_eq!(trust(other, &friday, "bob/phone"), LeafTrust::Known);
            assert_eq!(other.check_members(&friday).await.unwrap(), []);
        }
        let saturday = made_by(&alice, &bob, "saturday").await;
        they_talk(&alice, &bob, &saturday).await;

        // And back to the directory's.
        drop(bob);
        let bob = open_with(&service, "bob/phone", options(&service));
        bob.refresh_key_packages().await.unwrap();
        assert!(bob.needs_fresh_keys(&saturday).unwrap());
        bob.update_keys(&saturday).await.unwrap();
        assert_eq!(told(&alice).await, ["+[] -[]"]);
        both_know_each_other(&alice, &bob, &saturday);
        let sunday = made_by(&alice, &bob, "sunday").await;
        they_talk(&alice, &bob, &sunday).await;
    });
}

#[test]
fn a_rotated_key_keeps_the_credential() {
    run(async {
        let service = Service::start();
        let owners = Owners::of(&[(&MARMOT, listed("bob/phone"))]);
        let alice = with_owners(&service, "alice", owners).await;
        let bob = with_source(&service, "bob/phone", Source::new(basic(&MARMOT))).await;
        let friday = made_by(&alice, &bob, "friday").await;
        bob.rotate_key().await.unwrap();
        assert_eq!(available(&bob).await, 4, "packages of the next key were taken");
        bob.update_keys(&friday).await.unwrap();
        assert_eq!(told(&alice).await, ["+[] -[]"]);
        both_know_each_other(&alice, &bob, &friday);
        made_by(&alice, &bob, "saturday").await;
    });
}

#[test]
fn lost_answers_of_a_change_end_the_same() {
    for lost in 0..8 {
        run(async {
            let service = Service::start();
            let source = Source::new(basic(&MARMOT));
            let bob = with_source(&service, "bob/phone", source.clone()).await;
            source.change(basic(WIRE));
            service.tunnel.lose(&[lost]);
            let refresh = bob.refresh_key_packages().await.unwrap();
            assert_eq!((refresh.created, refresh.rejected), (4, Vec::new()), "{lost}");
            assert_eq!(available(&bob).await, 4, "{lost}");
            assert_eq!(bob.refresh_now().await.unwrap().created, 0, "{lost}");
        });
    }
}

/// Each request of the refresh after a change: the app dies before it or after it.
#[test]
fn a_change_goes_on_wherever_it_was_killed() {
    for number in 0..5 {
        for side in [Side::Before, Side::After] {
            run(async {
                let service = Service::start();
                let bob = with_source(&service, "bob/phone", Source::new(basic(&MARMOT))).await;
                drop(bob);
                let changed = || ClientOptions {
                    credential_source: Some(Source::new(basic(WIRE))),
                    ..options(&service)
                };
                let bob = open_with(&service, "bob/phone", changed());
                let kill = Kill::Request(number, side);
                service
                    .kill_any("bob/phone", kill, bob, async |bob: &Client| {
                        bob.refresh_now().await.unwrap();
                    })
                    .await;
                let bob = open_with(&service, "bob/phone", changed());
                let refresh = bob.refresh_now().await.unwrap();
                assert_eq!(refresh.rejected, Vec::<String>::new(), "{kill:?}");
                assert_eq!(available(&bob).await, 4, "{kill:?}");
            });
        }
    }
}

#[test]
fn a_home_from_before_the_declaration_declares_what_it_has() {
    run(async {
        let service = Service::start();
        drop(device(&service, "bob", options(&service)).await);
        service.back_up_home("bob");
        let source = ClientOptions {
            credential_source: Some(Source::new(basic(&MARMOT))),
            ..options(&service)
        };
        let bob = open_with(&service, "bob", source);
        bob.refresh_now().await.unwrap();
        drop(bob);
        service.restore_home("bob");
        let bob = open_with(&service, "bob", options(&service));
        let refused = bob.refresh_now().await.unwrap();
        assert!(refused.rejected.iter().all(|why| why.ends_with("identity")), "{refused:?}");
        bob.refresh_now().await.unwrap();
        assert_eq!(available(&bob).await, 4);
        let alice = device(&service, "alice", options(&service)).await;
        let friday = group("friday");
        alice.create_group(&friday).unwrap();
        assert_eq!(alice.invite(&friday, ["bob"]).await.unwrap().missing, []);
    });
}
