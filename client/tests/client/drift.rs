//! Older copies put back, of a device's home and of the server's data, and keys that are lost: found,
//! told, and mended, and no package is handed out whose keys are gone or that was handed out before.

use std::{collections::BTreeSet, time::Duration};

use keypool_api::{Code, ReconcileRequest};
use keypool_client::{
    AuditFinding, Drift, LocalStore, MlsClient, OtherCopy, OwnStage, PoolConfig, Refresh,
    RefreshError,
};
use keypool_ledger::{Clock, KeyPackageRef, RevokeReason};

use super::{
    people::{alice_and_absent_bob, now, published_to, reserve_for},
    service::{Mail, Service, run},
    support::{lose_a_package, lose_all_packages},
};

const DAY: Duration = Duration::from_hours(24);
const HOUR: Duration = Duration::from_hours(1);
const MINUTE: Duration = Duration::from_secs(61);

/// Bob with a pool of four, refilled at one, and no package of last resort.
fn open(service: &Service) -> MlsClient<Mail> {
    open_with(service, false)
}

fn open_with(service: &Service, last_resort: bool) -> MlsClient<Mail> {
    let config = PoolConfig { target: 4, low_watermark: 1, last_resort, ..PoolConfig::default() };
    service.open_at(&service.folder.path().join("bob"), "bob", config)
}

async fn refreshed(service: &Service, device: &MlsClient<Mail>) -> Refresh {
    device.connection().refresh_now(now(service)).await.unwrap()
}

/// The packages that are live in the device's pool, as the server has them.
async fn live(device: &MlsClient<Mail>) -> BTreeSet<KeyPackageRef> {
    let request = ReconcileRequest { digest: None, keypackage_refs: Some(Vec::new()) };
    let id = keypool_client::fresh_command();
    let told = device.connection().api().reconcile(&request, id).await.unwrap();
    told.only_here.into_iter().map(|package| package.keypackage_ref).collect()
}

/// Nothing has drifted apart, both sides count the same, and before long a refresh asks for nothing but the
/// status and the checkpoint.
pub(super) async fn agrees(service: &Service, device: &MlsClient<Mail>) {
    let mut asked = Vec::new();
    while asked.last() != Some(&2) {
        let before = service.tunnel.requests();
        let refresh = refreshed(service, device).await;
        assert!(refresh.drift.is_none(), "{:?}", refresh.drift);
        asked.push(service.tunnel.requests() - before);
        // It may fill the pool first, and then hear of it; and the server may have recorded a lapse.
        assert!(asked.len() < 5, "{asked:?}, {refresh:?}");
    }
    let counts = device.status().await.unwrap().counts;
    let available = device.connection().pool().get_available_count(now(service)).unwrap() as u64;
    assert_eq!(available, counts.available);
    for own in live(device).await {
        assert!(device.connection().pool().has_private_keys(&own).unwrap(), "{own:?}");
    }
}

#[test]
fn while_both_sides_know_the_same_nothing_is_asked() {
    run(async {
        let service = Service::start();
        drop(service.device("bob", 4).await);
        let bob = open(&service);
        agrees(&service, &bob).await;
        // Somebody holds one: the history tells, and that is all.
        reserve_for(&service.device("alice", 0).await, "g").await;
        // The server publishes a checkpoint of that a moment later. Bob keeps one of before.
        published_to(&bob, bob.status().await.unwrap().position).await;
        let before = service.tunnel.requests();
        assert_eq!(refreshed(&service, &bob).await.events, 1);
        let asked = service.tunnel.requests() - before;
        assert_eq!(asked, 4, "status, events, checkpoint, and its proof");
        agrees(&service, &bob).await;
    });
}

#[test]
fn a_package_whose_keys_are_lost_is_withdrawn_before_anyone_is_given_it() {
    run(async {
        let service = Service::start();
        drop(service.device("bob", 4).await);
        let bob = open(&service);
        refreshed(&service, &bob).await;
        drop(bob);
        let home = service.folder.path().join("bob");
        lose_a_package(&LocalStore::open(&home, &"bob".parse().unwrap()).unwrap());
        let bob = open(&service);
        let refresh = refreshed(&service, &bob).await;
        assert_eq!(refresh.drift, Drift { withdrawn: 1, ..Drift::default() });
        assert_eq!(refresh.available, 3);
        assert_eq!(bob.status().await.unwrap().counts.revoked, 1);
        agrees(&service, &bob).await;
    });
}

/// In the life that is lost, Bob has joined by one package and has made others.
#[test]
fn a_home_that_was_set_back_is_told_and_what_it_has_no_keys_for_is_withdrawn() {
    run(async {
        let service = Service::start();
        let (alice, g) = alice_and_absent_bob(&service, 4).await;
        service.back_up_home("bob");
        alice.invite(&g, ["bob"]).await.unwrap();
        let bob = service.open("bob");
        bob.join(&service.mail.welcomes("bob")[0]).await.unwrap();
        assert_eq!(refreshed(&service, &bob).await.created, 29);
        let made = live(&bob).await;
        drop(bob);

        service.restore_home("bob");
        let bob = open(&service);
        // The packages are a moment old: another copy may be running.
        let refresh = refreshed(&service, &bob).await;
        let expected =
            Drift { home_set_back: true, other_copy: Some(OtherCopy::Running), ..Drift::default() };
        assert_eq!(refresh.drift, expected);
        insta::assert_snapshot!(refresh.drift, @"another copy of this home has used the pool within the last hour: stop one of the two. If this home is a backup that was put back, and no other copy is running, say `keypool adopt`");
        service.clock.advance(HOUR);
        let refresh = refreshed(&service, &bob).await;
        let expected = Drift { home_set_back: true, withdrawn: 29, ..Drift::default() };
        assert_eq!(refresh.drift, expected);
        insta::assert_snapshot!(refresh.drift, @"this home is an older copy of itself, and the server knows of packages that were made after it; what was said in your groups since is lost here: have this device removed from them and invited again; 29 packages that this device does not answer for were withdrawn from the server");
        let left = live(&bob).await;
        assert!(left.len() == 3 && left.is_subset(&made));
        agrees(&service, &bob).await;
        // That the Welcome was joined in the life that is lost is nobody's fault.
        for _ in 0..3 {
            service.clock.advance(DAY + MINUTE);
            refreshed(&service, &bob).await;
        }
        assert_eq!(bob.audit().unwrap().findings, []);
    });
}

/// Packages that the server may have handed out before are not handed out again.
async fn check_healed(
    service: &Service,
    bob: &MlsClient<Mail>,
    refresh: &Refresh,
    before: &BTreeSet<KeyPackageRef>,
) {
    assert!(refresh.drift.server_set_back, "{:?}", refresh.drift);
    assert_eq!((refresh.created, refresh.available), (4, 4));
    let after = live(bob).await;
    assert!(after.len() == 4 && after.is_disjoint(before));
    for old in before {
        assert!(bob.connection().pool().has_private_keys(old).unwrap(), "a Welcome may come");
    }
    agrees(service, bob).await;
}

#[test]
fn a_server_that_was_set_back_hands_out_nothing_that_was_handed_out_before() {
    run(async {
        let service = Service::start();
        drop(service.device("bob", 4).await);
        let dave = service.device("dave", 0).await;
        let bob = open(&service);
        refreshed(&service, &bob).await;
        let service = service.back_up().await;
        let before = live(&bob).await;
        // In the part that will be lost one package is handed out, and Bob hears of it.
        let lost = reserve_for(&dave, "g").await.claim.keypackage_ref;
        refreshed(&service, &bob).await;
        let service = service.restore().await;

        let refresh = refreshed(&service, &bob).await;
        assert_eq!((refresh.drift.retired, refresh.drift.withdrawn), (4, 4));
        insta::assert_snapshot!(refresh.drift, @"the server has lost or changed a part of its log; what it had told before is kept, and `keypool audit` says more; 4 packages that may have been handed out before are not offered again; 4 packages that this device does not answer for were withdrawn from the server");
        check_healed(&service, &bob, &refresh, &before).await;
        for _ in 0..4 {
            assert_ne!(reserve_for(&dave, "h").await.claim.keypackage_ref, lost);
        }
        let found = bob.audit().unwrap().findings;
        let is_told = |finding: &AuditFinding| {
            matches!(finding, AuditFinding::HistoryRefused { told_before: true, .. })
        };
        assert!(found.iter().any(is_told), "{found:?}");
        drop(bob);

        // What it had told before is kept.
        let home = service.folder.path().join("bob");
        let store = LocalStore::open(&home, &"bob".parse().unwrap()).unwrap();
        let earlier = store.earlier_mirrors().unwrap();
        assert_eq!(earlier.len(), 1);
        let names: Vec<&str> = earlier[0].iter().map(|told| told.event.name()).collect();
        assert_eq!(
            names,
            ["registered", "uploaded", "uploaded", "uploaded", "uploaded", "reserved"]
        );
        assert!(matches!(store.package(&lost).unwrap().stage, OwnStage::Revoked { .. }));
    });
}

#[test]
fn a_package_of_last_resort_is_replaced_as_well_when_the_server_was_set_back() {
    run(async {
        let service = Service::start();
        drop(service.device("bob", 4).await);
        let bob = open_with(&service, true);
        refreshed(&service, &bob).await;
        let service = service.back_up().await;
        let before = live(&bob).await;
        reserve_for(&service.device("dave", 0).await, "g").await;
        refreshed(&service, &bob).await;
        let service = service.restore().await;

        let refresh = refreshed(&service, &bob).await;
        assert_eq!((refresh.drift.retired, refresh.drift.withdrawn), (5, 5));
        let after = live(&bob).await;
        assert!(before.len() == 5 && after.len() == 5 && after.is_disjoint(&before));
        assert_eq!(bob.status().await.unwrap().counts.last_resort, 1);
        agrees(&service, &bob).await;
    });
}

/// The lost part is after the last event that the device has seen: only the upload's answer shows it.
#[test]
fn a_server_that_forgot_an_upload_it_has_answered_is_found_out() {
    run(async {
        let service = Service::start();
        let (alice, g) = alice_and_absent_bob(&service, 1).await;
        let bob = open(&service);
        let first = live(&bob).await;
        let service = service.back_up().await;
        assert_eq!(refreshed(&service, &bob).await.created, 3);
        let before = live(&bob).await;
        alice.invite(&g, ["bob"]).await.unwrap();
        let service = service.restore().await;
        assert_eq!(live(&bob).await, first);

        let refresh = refreshed(&service, &bob).await;
        assert_eq!((refresh.drift.retired, refresh.drift.withdrawn), (4, 1));
        check_healed(&service, &bob, &refresh, &before).await;
        let found = bob.audit().unwrap().findings;
        let [AuditFinding::HistoryRefused { told_before: false, .. }, ..] = &found[..] else {
            panic!("{found:?}")
        };
        // The Welcome from the part that is lost is joined all the same.
        bob.join(&service.mail.welcomes("bob")[0]).await.unwrap();
        agrees(&service, &bob).await;
    });
}

#[test]
fn a_server_whose_operator_has_accepted_the_loss_is_followed() {
    run(async {
        let service = Service::start();
        drop(service.device("bob", 4).await);
        let bob = open(&service);
        refreshed(&service, &bob).await;
        let service = service.back_up().await;
        let before = live(&bob).await;
        reserve_for(&service.device("dave", 0).await, "g").await;
        refreshed(&service, &bob).await;
        let service = service.restore_knowingly().await;
        assert_eq!(live(&bob).await, BTreeSet::new());

        let refresh = refreshed(&service, &bob).await;
        assert_eq!((refresh.drift.retired, refresh.drift.withdrawn), (4, 0));
        check_healed(&service, &bob, &refresh, &before).await;
    });
}

#[test]
fn a_device_that_the_server_has_forgotten_registers_again_and_goes_on() {
    run(async {
        let service = Service::start().back_up().await;
        drop(service.device("bob", 4).await);
        let bob = open(&service);
        refreshed(&service, &bob).await;
        let before = live(&bob).await;
        let service = service.restore().await;
        let refused = bob.connection().refresh_now(now(&service)).await.unwrap_err();
        let RefreshError::Api(refused) = refused else { panic!("{refused:?}") };
        assert_eq!(refused.code(), Some(Code::Unauthenticated));
        bob.register().await.unwrap();
        let refresh = refreshed(&service, &bob).await;
        assert_eq!((refresh.drift.retired, refresh.drift.withdrawn), (4, 0));
        check_healed(&service, &bob, &refresh, &before).await;
    });
}

/// Four lost answers are more than a request is repeated: the refresh fails, and the next goes on.
#[test]
fn what_is_mended_is_mended_and_told_once_wherever_an_answer_is_lost() {
    run(async {
        for lost in 0..7 {
            let service = Service::start();
            drop(service.device("bob", 4).await);
            let bob = open(&service);
            refreshed(&service, &bob).await;
            let service = service.back_up().await;
            let before = live(&bob).await;
            reserve_for(&service.device("dave", 0).await, "g").await;
            refreshed(&service, &bob).await;
            let service = service.restore().await;

            // 0 status, 1 that it is so, 2 events, 3 reconcile, 4 withdraw, 5 upload, 6 checkpoint.
            service.tunnel.lose(&[lost, lost + 1, lost + 2, lost + 3]);
            let first = bob.connection().refresh_now(now(&service)).await;
            service.tunnel.forget_plans();
            let Ok(refresh) = first else {
                drop(bob);
                let bob = open(&service);
                let told = refreshed(&service, &bob).await.drift;
                assert!(told.server_set_back && told.retired == 4, "lost {lost}: {told:?}");
                let after = live(&bob).await;
                assert!(after.len() == 4 && after.is_disjoint(&before), "lost {lost}");
                agrees(&service, &bob).await;
                continue;
            };
            assert_eq!(lost, 6, "the rest does not wait for the checkpoint");
            check_healed(&service, &bob, &refresh, &before).await;
        }
    });
}

#[test]
fn two_refreshes_at_once_do_not_take_each_other_for_a_loss() {
    run(async {
        let service = Service::start();
        drop(service.device("bob", 0).await);
        let bob = open(&service);
        let (one, other) = tokio::join!(refreshed(&service, &bob), refreshed(&service, &bob));
        assert!(one.drift.is_none() && other.drift.is_none());
        assert_eq!(one.created + other.created, 4);
        agrees(&service, &bob).await;
    });
}

/// Packages that were made and not uploaded have lost their keys: nothing of them can be offered, and the pool is
/// refilled with others.
#[test]
fn packages_that_wait_for_their_upload_and_have_lost_their_keys_hold_nothing_up() {
    run(async {
        let service = Service::start();
        let bob = service.device("bob", 0).await;
        let made = bob.connection().pool().generate_and_store(3, service.clock.now()).unwrap();
        lose_all_packages(bob.store());
        assert_eq!(bob.refresh_now().await.unwrap().available, 32);
        for lost in made {
            let own = bob.store().package(lost.keypackage_ref()).unwrap();
            assert_eq!(own.stage, OwnStage::Revoked { reason: RevokeReason::Withdrawn });
        }
        assert!(bob.connection().pool().check_up(service.clock.now()).unwrap().is_sound());
    });
}
