//! Many people invited at once, in one Commit, and packages among theirs that cannot be used.

use std::sync::Arc;

use keypool_client::{InviteError, MlsClient, PackageCheck, SkipReason};
use keypool_ledger::{
    Clock, CommandId, GroupId, Hash, KeyPackageRef, NamedLog, PoolId, SignatureKey, SledLog,
};
use keypool_projections::{Command, NewPackage, timeline};
use keypool_server::pools::{Request, Target};
use keypool_server::{AdmissionRules, Idempotency, KeyPackageStore, Owner, admit};
use openmls::prelude::{
    BasicCredential, Capabilities, Ciphersuite, CredentialWithKey, KeyPackage, Lifetime,
    tls_codec::Serialize,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;

use super::{
    members::{Client, alice_and, members, open, they_talk, told},
    people::{alice_and_absent_bob, bob_joins_and_hears, hears, resume},
    service::{Fault, Kill, Mail, MovableClock, Service, Side, run},
};

use Side::{After, Before};

type Store = KeyPackageStore<Arc<NamedLog<SledLog>>>;

/// The fault of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Poison {
    Nothing,
    /// Its signature is not valid.
    Signature,
    /// It is somebody else's.
    Name,
}

/// A device of which there is the pool alone: nobody will ever join from it.
pub(super) struct Doll {
    pool: PoolId,
    keys: SignatureKeyPair,
}

impl Doll {
    pub(super) fn new(name: &str) -> Self {
        let keys = SignatureKeyPair::new(Ciphersuite::try_from(1).unwrap().signature_algorithm());
        Self { pool: name.parse().unwrap(), keys: keys.unwrap() }
    }

    fn key(&self) -> SignatureKey {
        SignatureKey::new(self.keys.public()).unwrap()
    }

    /// A package as the log keeps it, for a user, who is this device's own or not.
    fn package(&self, clock: &MovableClock, user: &str) -> NewPackage {
        let (now, suite) = (clock.now(), Ciphersuite::try_from(1).unwrap());
        let lifetime = Lifetime::init(now.as_secs() - 3600, now.as_secs() + 13 * 24 * 3600);
        let credential = CredentialWithKey {
            credential: BasicCredential::new(user.as_bytes().to_vec()).into(),
            signature_key: self.keys.public().into(),
        };
        let capabilities = Capabilities::new(None, Some(&[suite]), None, None, None);
        let bundle = KeyPackage::builder()
            .key_package_lifetime(lifetime)
            .leaf_node_capabilities(capabilities)
            .build(suite, &OpenMlsRustCrypto::default(), &self.keys, credential)
            .unwrap();
        let bytes = bundle.key_package().tls_serialize_detached().unwrap();
        let owner = PoolId::new(user, self.pool.device()).unwrap();
        let owner = Owner::new(owner, Some(self.key()));
        admit(&bytes, &owner, now, &AdmissionRules::default()).unwrap()
    }

    fn poisoned(&self, clock: &MovableClock, poison: Poison) -> NewPackage {
        match poison {
            Poison::Nothing => self.package(clock, self.pool.user()),
            Poison::Name => self.package(clock, "mallory"),
            Poison::Signature => {
                let mut package = self.package(clock, self.pool.user());
                *package.bytes.last_mut().unwrap() ^= 1;
                package.facts.keypackage_ref =
                    KeyPackageRef::new(Hash::of(&package.bytes).as_bytes()).unwrap();
                package
            }
        }
    }

    /// Registers it below the server's doors, where no package is looked at.
    pub(super) async fn settle(&self, clock: &MovableClock, store: &Store, packages: &[Poison]) {
        let id = uuid::Uuid::new_v4();
        store.admit_device(&self.pool, (self.key(), None), Idempotency::fresh()).await.unwrap();
        let packages = packages.iter().map(|poison| self.poisoned(clock, *poison)).collect();
        let request = Request {
            target: Target::Pool(self.pool.clone()),
            command: Command::Upload(packages),
            id: CommandId(id),
            digest: Hash::of(id.as_bytes()),
        };
        store.pools().execute(request).await.unwrap();
    }
}

/// A service with dolls, each with packages of that kind, oldest first.
pub(super) async fn with_dolls(dolls: &[(&str, &[Poison])]) -> Service {
    Service::start()
        .beneath(async |clock, store| {
            for (name, packages) in dolls {
                Doll::new(name).settle(clock, store, packages).await;
            }
        })
        .await
}

/// The server's counts of a pool: available, reserved, spent, revoked.
pub(super) async fn counts(service: Service, name: &str) -> (u64, u64, u64, u64) {
    let (pool, found) = (name.parse().unwrap(), std::cell::Cell::default());
    let look = async |_: &MovableClock, store: &Store| {
        let counts = store.view(&pool).state.counts();
        found.set((counts.available, counts.reserved, counts.spent, counts.revoked));
    };
    drop(service.beneath(look).await);
    found.get()
}

#[test]
fn fifty_people_with_three_devices_each_and_two_poisoned_packages_among_them() {
    run(async {
        let service = Service::start();
        drop(service.device("p00", 2).await);
        let service = service
            .beneath(async |clock, store| {
                for person in 0..50 {
                    for device in
                        ["main", "phone", "tablet"].into_iter().skip(usize::from(person == 0))
                    {
                        let poison = match (person, device) {
                            (7, "phone") => &[Poison::Signature][..],
                            (31, "main") => &[Poison::Name],
                            // This one has a good package besides, which takes the bad one's place.
                            (44, "tablet") => &[Poison::Signature, Poison::Nothing],
                            _ => &[Poison::Nothing],
                        };
                        let doll = Doll::new(&format!("p{person:02}/{device}"));
                        doll.settle(clock, store, poison).await;
                    }
                }
            })
            .await;
        let (alice, group) = alice_and(&service, &[], 0).await;
        let people: Vec<String> = (0..50).map(|person| format!("p{person:02}")).collect();
        let before = service.tunnel.requests();
        let invited = alice.invite(&group, people).await.unwrap();

        assert_eq!((invited.added.len(), members(&alice, &group).len()), (148, 149));
        assert_eq!(alice.membership().epoch(&group).unwrap(), 1, "one Commit");
        let requests = service.tunnel.requests() - before;
        assert_eq!(requests, 7, "make, reserve, report thrice, reserve again, and the rest");
        let missing: Vec<String> = invited.missing.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(missing.join("\n"), @r"
        p07/phone could not be invited: their KeyPackage failed the check validity, and no other could be had
        p31/main could not be invited: their KeyPackage failed the check identity, and no other could be had
        ");
        let p00 = open(&service, "p00");
        assert_eq!(told(&p00).await, ["joined by alice/main"]);
        p00.accept_untrusted(&group).unwrap();
        they_talk(&alice, &p00, &group).await;

        service
            .beneath(async |_, store| {
                for (name, check, spent) in [
                    ("p07/phone", "validity", 0),
                    ("p31/main", "identity", 0),
                    ("p44/tablet", "validity", 1),
                ] {
                    let pool = name.parse().unwrap();
                    let counts = store.view(&pool).state.counts();
                    assert_eq!((counts.revoked, counts.spent, counts.reserved), (1, spent, 0));
                    let history = store.history(&pool, 0, 100).unwrap();
                    let lines = timeline(history.iter().map(|record| &record.envelope), None);
                    let told = format!("reported: {check}");
                    let is_told =
                        lines.iter().any(|line| line.event == "revoked" && line.detail == told);
                    assert!(is_told, "{name}: {lines:?}");
                }
            })
            .await;
    });
}

/// Bob is there, and Carol's first package is poisoned.
async fn bob_and_poisoned_carol() -> (Service, Client, GroupId) {
    let service = with_dolls(&[("carol", &[Poison::Signature, Poison::Nothing])]).await;
    let (alice, group) = alice_and(&service, &["bob"], 2).await;
    (service, alice, group)
}

/// The requests: 0 reserves, 1 reports, 2 reserves again, 3 is all the rest.
#[test]
fn an_invitation_of_many_is_whole_whichever_answers_are_lost() {
    run(async {
        for lost in [&[0][..], &[1], &[2], &[3], &[0, 2, 4, 6]] {
            let (service, alice, group) = bob_and_poisoned_carol().await;
            service.tunnel.lose(lost);
            let invited = alice.invite(&group, ["bob", "carol"]).await.unwrap();
            assert_eq!((invited.added.len(), invited.missing.len()), (2, 0), "lost {lost:?}");
            assert_eq!(alice.membership().epoch(&group).unwrap(), 1);
            let bob = open(&service, "bob");
            assert_eq!(told(&bob).await, ["joined by alice/main"]);
            they_talk(&alice, &bob, &group).await;
            let counted = bob.status().await.unwrap().counts;
            assert_eq!((counted.available, counted.reserved, counted.spent), (1, 0, 1));
            drop((alice, bob));
            assert_eq!(counts(service, "carol").await, (0, 0, 1, 1), "lost {lost:?}");
        }
    });
}

#[test]
fn an_invitation_of_many_goes_on_wherever_it_was_killed() {
    run(async {
        for (number, side) in (1..5).flat_map(|number| [(number, Before), (number, After)]) {
            let (service, alice, group) = bob_and_poisoned_carol().await;
            let invite = async |alice: &Client| alice.invite(&group, ["bob", "carol"]).await;
            service.kill_any("alice", Kill::Request(number, side), alice, invite).await;
            let alice = open(&service, "alice");
            let resumed = alice.resume_invitations().await.unwrap().pop().unwrap();
            assert_eq!(resumed.target, "bob, carol");
            let invited = resumed.outcome.unwrap();
            assert_eq!((invited.added.len(), invited.missing.len()), (2, 0), "{number} {side:?}");
            assert!(alice.resume_invitations().await.unwrap().is_empty());
            let bob = open(&service, "bob");
            assert_eq!(told(&bob).await, ["joined by alice/main"]);
            they_talk(&alice, &bob, &group).await;
            let counted = bob.status().await.unwrap().counts;
            assert_eq!((counted.available, counted.reserved, counted.spent), (1, 0, 1));
            drop((alice, bob));
            assert_eq!(counts(service, "carol").await, (0, 0, 1, 1), "{number} {side:?}");
        }
    });
}

/// Over an app's own Delivery Service: 0 reserves for both, 1 and 2 renew, 3 and 4 spend; the Commit is
/// posted before the spends.
#[test]
fn over_another_delivery_service_it_goes_on_wherever_it_was_killed() {
    run(async {
        let requests = (0..5).flat_map(|n| [Kill::Request(n, Before), Kill::Request(n, After)]);
        let posts = [Before, After].map(|side| Kill::Commit(0, side));
        let welcomes = [Before, After].map(Kill::Welcome);
        for kill in requests.chain(posts).chain(welcomes) {
            let service = with_dolls(&[("carol", &[Poison::Nothing])]).await;
            let (alice, group) = alice_and_absent_bob(&service, 2).await;
            let invite =
                async |alice: &MlsClient<Mail>| alice.invite(&group, ["carol", "bob"]).await;
            service.kill("alice", kill, alice, invite).await;
            let alice = service.open("alice");
            let invited = resume(&alice).await.expect("one is unfinished").unwrap();
            assert_eq!((invited.added.len(), invited.attempts), (2, 1), "{kill:?}");
            assert_eq!(service.mail.commits(&group).len(), 1, "{kill:?}");
            let bob = service.open("bob");
            bob.join(&service.mail.welcomes("bob")[0]).await.unwrap();
            hears(&bob, &alice, &group).await;
            assert_eq!(alice.members(&group).unwrap().len(), 3);
            drop((alice, bob));
            assert_eq!(counts(service, "carol").await, (0, 0, 1, 0), "{kill:?}");
        }
    });
}

/// Of two who are added one is refused their Welcome, and a Commit that is refused gives all back.
#[test]
fn a_refused_welcome_and_a_refused_commit_are_told_of_each() {
    run(async {
        let service = with_dolls(&[("carol", &[Poison::Nothing])]).await;
        let (alice, group) = alice_and_absent_bob(&service, 2).await;
        service.mail.fail_commits(&[Fault::Refused]);
        let refused = alice.invite(&group, ["carol", "bob"]).await.unwrap_err();
        assert!(matches!(refused, InviteError::NotAccepted(_)), "{refused:?}");
        service.mail.fail_welcomes(&[Fault::Refused]);
        let invited = alice.invite(&group, ["carol", "bob"]).await.unwrap();
        assert_eq!((invited.added.len(), invited.missing.len()), (1, 1));
        assert!(matches!(invited.missing[0].why, SkipReason::WelcomeRefused { .. }));
        let bob = service.open("bob");
        bob.join(&service.mail.welcomes("bob")[0]).await.unwrap();
        hears(&bob, &alice, &group).await;
    });
}

#[test]
fn after_three_bad_packages_a_device_is_given_up_and_nobody_else_is() {
    run(async {
        let packages = [Poison::Signature, Poison::Name, Poison::Signature, Poison::Nothing];
        let service = with_dolls(&[("carol", &packages)]).await;
        let (alice, group) = alice_and_absent_bob(&service, 2).await;
        let invited = alice.invite(&group, ["carol", "bob"]).await.unwrap();
        assert_eq!((invited.added.len(), invited.attempts), (1, 3));
        let why = SkipReason::PackageRejected { check: PackageCheck::Validity };
        assert_eq!((&invited.missing[0].why, invited.missing.len()), (&why, 1));
        bob_joins_and_hears(&service, &alice, &group).await;
        drop(alice);
        assert_eq!(counts(service, "carol").await, (1, 0, 0, 3));
    });
}

/// Alice is told something else than Bob has uploaded, and reports it: the server finds nothing wrong with it.
#[test]
fn a_report_of_a_package_that_is_good_withdraws_nothing() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and_absent_bob(&service, 3).await;
        service.tunnel.tamper(0, |answer| {
            let mark = "\"keypackage\":\"";
            let at = answer.find(mark).unwrap() + mark.len();
            let (head, rest) = answer.split_at(at);
            // The first bytes say which version of MLS it is.
            format!("{head}AAAA{}", &rest[4..])
        });
        let invited = alice.invite(&group, ["bob"]).await.unwrap();
        assert_eq!((invited.added.len(), invited.attempts), (1, 2));
        bob_joins_and_hears(&service, &alice, &group).await;
        let bob = service.open("bob");
        bob.connection().refresh_now(service.clock.now()).await.unwrap();
        let audit = bob.audit().unwrap();
        assert!(audit.is_sound());
        assert_eq!(bob.status().await.unwrap().counts.revoked, 0);
    });
}
