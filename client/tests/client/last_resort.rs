//! The package of last resort: kept behind the others, handed out when none is left, replaced once it was
//! used, and really gone a day later.

use std::time::Duration;

use keypool_api::PoolStatus;
use keypool_client::{JoinError, KeyFate, MlsClient, PoolConfig, Refresh};
use keypool_ledger::{GroupId, KeyPackageRef, codec};
use keypool_projections::PoolState;
use openmls::messages::Welcome;
use tls_codec::{Deserialize, Serialize, VLBytes};

use super::{
    people::{hears, now, reserve},
    service::{Kill, Mail, Service, Side, group, run},
    support::copy,
};

const HOUR: Duration = Duration::from_hours(1);

/// Bob, with so many packages and one of last resort behind them.
fn bob(service: &Service, packages: usize) -> MlsClient<Mail> {
    let config = PoolConfig { target: packages, low_watermark: 0, ..PoolConfig::default() };
    service.open_at(&service.folder.path().join("bob"), "bob", config)
}

async fn refresh(service: &Service, bob: &MlsClient<Mail>) -> Refresh {
    bob.connection().refresh_now(now(service)).await.unwrap()
}

/// Bob, registered and with a filled pool.
async fn filled(service: &Service, packages: usize) -> MlsClient<Mail> {
    let bob = bob(service, packages);
    bob.register().await.unwrap();
    let refreshed = refresh(service, &bob).await;
    assert_eq!((refreshed.created, refreshed.last_resort_uploaded), (packages, 1));
    bob
}

/// Bob's pool as the server has it.
async fn pool_of(bob: &MlsClient<Mail>) -> PoolState {
    let mut pool = PoolState::default();
    for view in bob.connection().api().events(0, 500).await.unwrap().events {
        let envelope = codec::decode(&view.envelope.0).unwrap();
        pool.evolve(&envelope.event, envelope.at).unwrap();
    }
    pool
}

/// The packages of last resort that the server may hand out.
async fn standing(bob: &MlsClient<Mail>) -> Vec<KeyPackageRef> {
    let pool = pool_of(bob).await;
    let live = pool.live().filter(|package| package.facts.last_resort);
    live.map(|package| package.facts.keypackage_ref.clone()).collect()
}

/// Alice invites Bob to a new group. Returns it, and whether that was by his last resort.
async fn invited(alice: &MlsClient<Mail>, name: &str) -> (GroupId, bool) {
    let group = group(name);
    alice.create_group(&group).unwrap();
    (group.clone(), invited_to(alice, &group).await)
}

async fn invited_to(alice: &MlsClient<Mail>, group: &GroupId) -> bool {
    alice.invite(group, ["bob"]).await.unwrap().added[0].last_resort
}

fn has_keys(bob: &MlsClient<Mail>, package: &KeyPackageRef) -> bool {
    bob.connection().pool().has_private_keys(package).unwrap()
}

#[test]
fn one_stands_behind_the_others_and_counts_as_none_of_them() {
    run(async {
        let service = Service::start();
        let bob = filled(&service, 12).await;
        let PoolStatus { counts, recommended_upload, .. } = bob.status().await.unwrap();
        assert_eq!((counts.available, counts.total, counts.last_resort), (12, 12, 1));
        assert_eq!(recommended_upload, 0);
        assert_eq!(bob.connection().pool().get_available_count(now(&service)).unwrap(), 12);
        // Everything stays as it is.
        let again = refresh(&service, &bob).await;
        assert_eq!((again.created, again.last_resort_uploaded, again.last_resort_used), (0, 0, 0));
        assert_eq!(bob.status().await.unwrap().counts, counts);
        assert!(bob.connection().pool().check_up(now(&service)).unwrap().is_sound());
    });
}

#[test]
fn who_wants_none_has_none_and_withdraws_the_one_of_before() {
    run(async {
        let service = Service::start();
        drop(filled(&service, 2).await);
        let config = PoolConfig { last_resort: false, ..PoolConfig::default() };
        let bob = service.open_at(&service.folder.path().join("bob"), "bob", config);
        let refreshed = refresh(&service, &bob).await;
        assert_eq!((refreshed.last_resort_uploaded, refreshed.last_resort_used), (0, 0));
        assert_eq!(bob.status().await.unwrap().counts.last_resort, 0);
    });
}

#[test]
fn an_empty_pool_still_answers_and_each_welcome_is_joined_once() {
    run(async {
        let service = Service::start();
        drop(filled(&service, 1).await);
        let alice = service.device("alice", 0).await;
        assert!(!invited(&alice, "a").await.1, "a package of single use goes before");
        let (b, by_last_resort) = invited(&alice, "b").await;
        assert!(by_last_resort);
        let (c, by_last_resort) = invited(&alice, "c").await;
        assert!(by_last_resort);

        let bob = bob(&service, 1);
        let welcomes = service.mail.welcomes("bob");
        let mut joined = Vec::new();
        for welcome in &welcomes {
            joined.push(bob.join(welcome).await.unwrap());
        }
        assert_eq!(joined.iter().map(|it| it.last_resort).collect::<Vec<_>>(), [false, true, true]);
        assert_eq!(joined[1].keypackage_ref, joined[2].keypackage_ref);
        assert!(!has_keys(&bob, &joined[0].keypackage_ref));
        assert!(has_keys(&bob, &joined[1].keypackage_ref));
        hears(&bob, &alice, &b).await;
        hears(&bob, &alice, &c).await;

        // Bob is taken out of the group: the Welcome of before does not bring him back, another one does.
        alice.remove(&b, "bob", None).await.unwrap();
        bob.decrypt(service.mail.commits(&b).last().unwrap()).await.unwrap();
        drop(bob);
        let bob = self::bob(&service, 1);
        let replayed = bob.join(&welcomes[1]).await.unwrap_err();
        assert!(matches!(replayed, JoinError::Replayed { .. }), "{replayed:?}");
        assert!(invited_to(&alice, &b).await, "Bob has not refilled his pool");
        bob.join(service.mail.welcomes("bob").last().unwrap()).await.unwrap();
        hears(&bob, &alice, &b).await;
        refresh(&service, &bob).await;
        assert_eq!(bob.audit().unwrap().findings, []);
    });
}

/// A Welcome for two people without the part that is for the other one.
fn without_the_other(welcome: &[u8], keypackage_ref: &KeyPackageRef) -> Vec<u8> {
    // An MLSMessage begins with its version and its kind, two bytes each.
    let inner = &welcome[4..];
    let parsed = Welcome::tls_deserialize_exact(inner).unwrap();
    let bytes = |own_only: bool| {
        let wanted = parsed.secrets().iter().filter(|secrets| {
            !own_only || secrets.new_member().as_slice() == keypackage_ref.as_bytes()
        });
        let parts: Vec<u8> =
            wanted.flat_map(|secrets| secrets.tls_serialize_detached().unwrap()).collect();
        VLBytes::from(parts).tls_serialize_detached().unwrap()
    };
    let rest = &inner[2 + bytes(false).len()..];
    [&inner[..2], &bytes(true), rest].concat()
}

#[test]
fn a_welcome_without_the_parts_of_others_is_the_same_welcome() {
    run(async {
        let service = Service::start();
        drop(filled(&service, 1).await);
        drop(service.device("carol", 1).await);
        let alice = service.device("alice", 0).await;
        invited(&alice, "a").await;
        let b = group("b");
        alice.create_group(&b).unwrap();
        alice.invite(&b, ["carol", "bob"]).await.unwrap();
        let bob = bob(&service, 1);
        let welcome = service.mail.welcomes("bob").pop().unwrap();
        let last_resort = standing(&bob).await.pop().unwrap();
        let cut = without_the_other(&welcome, &last_resort);
        assert!(cut.len() + 4 < welcome.len());
        bob.join(&cut).await.unwrap();
        alice.remove(&b, "bob", None).await.unwrap();
        bob.decrypt(service.mail.commits(&b).last().unwrap()).await.unwrap();
        let replayed = bob.join(&welcome).await.unwrap_err();
        assert!(matches!(replayed, JoinError::Replayed { .. }), "{replayed:?}");
    });
}

#[test]
fn after_its_first_use_another_takes_its_place_and_its_keys_live_a_day() {
    run(async {
        let service = Service::start();
        drop(filled(&service, 1).await);
        let alice = service.device("alice", 0).await;
        for name in ["a", "b", "c", "d"] {
            invited(&alice, name).await;
        }
        let bob = bob(&service, 1);
        let welcomes = service.mail.welcomes("bob");
        let used = bob.join(&welcomes[1]).await.unwrap().keypackage_ref;
        // The last refresh is less than a minute ago: this one is due all the same.
        let refreshed = bob.refresh_key_packages().await.unwrap();
        assert_eq!((refreshed.last_resort_used, refreshed.last_resort_uploaded), (1, 1));
        assert!(bob.refresh_key_packages().await.unwrap().skipped);
        let next = refresh(&service, &bob).await;
        assert_eq!((next.last_resort_used, next.last_resort_uploaded), (0, 0), "told once");
        assert_eq!(bob.status().await.unwrap().counts.last_resort, 1);
        assert!(!standing(&bob).await.contains(&used));

        // What was on its way still joins, for a day.
        service.clock.advance(23 * HOUR);
        refresh(&service, &bob).await;
        bob.join(&welcomes[2]).await.unwrap();
        service.clock.advance(HOUR);
        refresh(&service, &bob).await;
        assert!(!has_keys(&bob, &used));
        let late = bob.join(&welcomes[3]).await.unwrap_err();
        let JoinError::MissingPrivateKey { fate, .. } = late else { panic!("{late:?}") };
        assert!(matches!(fate, KeyFate::Revoked { .. }), "{fate:?}");
        assert!(bob.connection().pool().check_up(now(&service)).unwrap().is_sound());
        drop(bob);
        assert!(!has_keys(&self::bob(&service, 1), &used), "after a restart too");
    });
}

#[test]
fn a_use_is_learned_from_the_server_before_the_welcome_comes() {
    run(async {
        let service = Service::start();
        let bob = filled(&service, 1).await;
        let alice = service.device("alice", 0).await;
        invited(&alice, "a").await;
        invited(&alice, "b").await;
        let before = standing(&bob).await;
        let refreshed = refresh(&service, &bob).await;
        assert_eq!((refreshed.last_resort_used, refreshed.last_resort_uploaded), (1, 1));
        refresh(&service, &bob).await;
        assert_eq!(standing(&bob).await.len(), 1);
        assert_ne!(standing(&bob).await, before);
        for welcome in service.mail.welcomes("bob") {
            bob.join(&welcome).await.unwrap();
        }
        assert_eq!(refresh(&service, &bob).await.last_resort_used, 0, "told before");
        assert_eq!(bob.audit().unwrap().findings, []);
    });
}

/// A reservation alone is no use: its holder may give it back.
#[test]
fn one_that_is_only_reserved_stays() {
    run(async {
        let service = Service::start();
        let bob = filled(&service, 1).await;
        let alice = service.device("alice", 0).await;
        assert!(!reserve(&alice, None).await.reply.last_resort);
        assert!(reserve(&alice, None).await.reply.last_resort);
        let before = standing(&bob).await;
        let refreshed = refresh(&service, &bob).await;
        assert_eq!((refreshed.last_resort_used, refreshed.last_resort_uploaded), (0, 0));
        refresh(&service, &bob).await;
        assert_eq!(standing(&bob).await.len(), 1);
        assert_eq!(standing(&bob).await, before);
    });
}

/// His other packages have ended after 14 days.
#[test]
fn a_device_that_was_away_for_weeks_is_still_invited_and_joins() {
    run(async {
        for days in [15, 20, 83] {
            let service = Service::start();
            let bob = filled(&service, 2).await;
            let alice = service.device("alice", 0).await;
            service.clock.advance(Duration::from_hours(days * 24));
            let (group, last_resort) = invited(&alice, "a").await;
            assert!(last_resort, "{days}");
            let refreshed = refresh(&service, &bob).await;
            assert_eq!((refreshed.expired, refreshed.created), (2, 2), "{days}");
            let welcome = service.mail.welcomes("bob").pop().unwrap();
            assert_eq!(bob.join(&welcome).await.unwrap().group, group, "{days}");
        }
    });
}

#[test]
fn one_that_has_lived_half_its_life_is_replaced() {
    run(async {
        let service = Service::start();
        let bob = filled(&service, 1).await;
        for _ in 0..2 {
            service.clock.advance(Duration::from_hours(41 * 24) / 2);
            bob.register().await.unwrap();
        }
        assert_eq!(refresh(&service, &bob).await.last_resort_uploaded, 0);
        let before = standing(&bob).await;
        service.clock.advance(12 * HOUR);
        let refreshed = refresh(&service, &bob).await;
        assert_eq!((refreshed.last_resort_used, refreshed.last_resort_uploaded), (0, 1));
        refresh(&service, &bob).await;
        assert_eq!(standing(&bob).await.len(), 1);
        assert_ne!(standing(&bob).await, before);
    });
}

/// A device that was restored from a backup does not know the one that the server has, and its keys are
/// gone: nobody must be given it.
#[test]
fn one_whose_keys_are_not_here_is_withdrawn() {
    run(async {
        let service = Service::start();
        let bob = bob(&service, 1);
        bob.register().await.unwrap();
        let (home, backup) = (service.folder.path().join("bob"), service.folder.path().join("old"));
        std::fs::create_dir(&backup).unwrap();
        copy(&home, &backup);
        refresh(&service, &bob).await;
        refresh(&service, &bob).await;
        let lost = standing(&bob).await;
        drop(bob);
        std::fs::remove_dir_all(&home).unwrap();
        std::fs::rename(&backup, &home).unwrap();
        let bob = self::bob(&service, 1);
        // Another copy may be running for an hour.
        assert_eq!(refresh(&service, &bob).await.last_resort_uploaded, 0);
        service.clock.advance(HOUR);
        assert_eq!(refresh(&service, &bob).await.last_resort_uploaded, 1);
        refresh(&service, &bob).await;
        assert_eq!(standing(&bob).await.len(), 1);
        assert_ne!(standing(&bob).await, lost);
        assert!(has_keys(&bob, &standing(&bob).await[0]));
    });
}

/// Its requests are 0 for the status, 1 for the history, 2 to withdraw, 3 to upload, 4 for the checkpoint.
#[test]
fn it_is_replaced_wherever_the_app_was_killed() {
    run(async {
        for number in 0..5 {
            for side in [Side::Before, Side::After] {
                let kill = Kill::Request(number, side);
                let service = Service::start();
                drop(filled(&service, 1).await);
                let alice = service.device("alice", 0).await;
                invited(&alice, "a").await;
                invited(&alice, "b").await;
                let bob = bob(&service, 1);
                let welcomes = service.mail.welcomes("bob");
                let used = bob.join(&welcomes[1]).await.unwrap().keypackage_ref;
                let does = async |bob: &MlsClient<Mail>| drop(refresh(&service, bob).await);
                service.kill("bob", kill, bob, does).await;
                let bob = self::bob(&service, 1);
                let healed = bob.refresh_key_packages().await.unwrap();
                assert_eq!(healed.last_resort_used, 1, "{kill:?}: told though the app died");
                refresh(&service, &bob).await;
                let stands = standing(&bob).await;
                assert_eq!(stands.len(), 1, "{kill:?}");
                assert_ne!(stands[0], used, "{kill:?}");
                assert!(has_keys(&bob, &stands[0]), "{kill:?}");
                let own = bob.own_history(Some(&stands[0])).unwrap().pop().unwrap();
                assert_eq!(own.event, "uploaded", "{kill:?}");
                assert!(has_keys(&bob, &used), "{kill:?}");
                let replayed = bob.join(&welcomes[1]).await.unwrap_err();
                assert!(matches!(replayed, JoinError::Replayed { .. }), "{kill:?}: {replayed:?}");
                bob.join(&welcomes[0]).await.unwrap();
                service.clock.advance(25 * HOUR);
                refresh(&service, &bob).await;
                assert!(!has_keys(&bob, &used), "{kill:?}");
                assert_eq!(bob.status().await.unwrap().counts.last_resort, 1, "{kill:?}");
            }
        }
    });
}
