//! The store without HTTP, as other programs use it.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use keypool_ledger::{Faulty, GroupId, ManualClock, MemoryLog, PoolId, ReservationId};
use keypool_projections::{Claim, ItemOutcome, Limits, Stage};
use keypool_server::pools::{ExecuteError, Pools};
use keypool_server::{
    AdmissionRules, Idempotency, KeyPackageStore, ReservationRequest, ReservationTarget, StoreError,
};
use uuid::Uuid;

use crate::harness::{Device, NOW};

fn store(clock: &Arc<ManualClock>) -> KeyPackageStore<MemoryLog> {
    let pools = Pools::open(MemoryLog::default(), clock.clone(), Limits::STANDARD).unwrap();
    KeyPackageStore::new(pools, AdmissionRules::default())
}

fn reservation(user: &str) -> ReservationRequest {
    ReservationRequest {
        invitee: ReservationTarget::User(user.to_owned()),
        holder: PoolId::new("alice", "main").unwrap(),
        group: GroupId::new(b"group").unwrap(),
        id: ReservationId(Uuid::new_v4()),
        ciphersuites: Vec::new(),
        required: keypool_projections::RequiredCapabilities::default(),
        introduced: false,
    }
}

#[actix_web::test]
async fn a_package_is_saved_found_listed_reserved_and_spent() {
    let (clock, bob) = (Arc::new(ManualClock::at(NOW)), Device::new("bob"));
    let store = store(&clock);
    let package = bob.package(NOW);

    let saved = store.save_key_package(&bob.pool, package.clone(), Idempotency::fresh()).await;
    let ItemOutcome::Stored(stored) = saved.unwrap().unwrap() else { panic!("it is good") };
    let (pool, found, bytes) = store.get_key_package(&stored).unwrap().unwrap();
    assert_eq!((pool, found.stage, bytes), (bob.pool.clone(), Stage::Available, package.clone()));
    let listed = store.list_available_for_user("bob");
    assert_eq!(listed, [(bob.pool.clone(), vec![found.facts])]);
    assert!(store.list_available_for_user("nobody").is_empty());

    let asked = reservation("bob");
    let reserved = store.reserve_key_package(asked.clone(), Idempotency::fresh()).await.unwrap();
    assert_eq!((reserved.bytes, reserved.generation), (package, 1));
    assert_eq!(store.list_available_for_user("bob"), [(bob.pool.clone(), vec![])]);
    let claim =
        Claim { keypackage_ref: stored.clone(), reservation: asked.id, holder: asked.holder };
    let spent = store.spend_key_package(claim.clone(), asked.group, Idempotency::fresh()).await;
    assert!(!spent.unwrap().late);
    let found = store.get_key_package(&stored).unwrap().unwrap();
    assert_eq!(found.1.stage, Stage::Spent);
    store.release(claim, Idempotency::fresh()).await.unwrap_err();
}

#[actix_web::test]
async fn what_time_has_done_is_recorded_when_it_is_asked_for() {
    let (clock, bob) = (Arc::new(ManualClock::at(NOW)), Device::new("bob"));
    let store = store(&clock);
    let packages = vec![bob.package(NOW), bob.package_with(NOW, 150, false)];
    store.save_key_packages(&bob.pool, packages, Idempotency::fresh()).await.unwrap();
    store.reserve_key_package(reservation("bob"), Idempotency::fresh()).await.unwrap();
    assert_eq!(store.cleanup_expired().await.unwrap(), 0);
    clock.advance(Duration::from_mins(3));
    assert_eq!(store.cleanup_expired().await.unwrap(), 1);
    let counts = store.view(&bob.pool).state.counts();
    assert_eq!((counts.available, counts.reserved, counts.expired), (1, 0, 1));
}

#[actix_web::test]
async fn who_comes_while_a_thousand_wait_is_told_to_come_again_and_they_are_all_answered() {
    let log = Faulty::new(MemoryLog::default());
    let (begun, held) = mpsc::channel();
    let (open, gate) = mpsc::channel::<()>();
    log.before_append(1, move |_| {
        begun.send(()).unwrap();
        gate.recv().unwrap();
    });
    let clock = Arc::new(ManualClock::at(NOW));
    let pools = Pools::open(log, clock, Limits::STANDARD).unwrap();
    let store = Arc::new(KeyPackageStore::new(pools, AdmissionRules::default()));
    let register = |name: &str| {
        let (store, device) = (Arc::clone(&store), Device::new(name));
        async move { store.register(&device.pool, (device.keyid(), None), Idempotency::fresh()).await }
    };
    let first = actix_rt::spawn(register("first"));
    actix_web::web::block(move || held.recv()).await.unwrap().unwrap();
    // The first is being written; a thousand more wait behind it.
    let waiting: Vec<_> =
        (0..1000).map(|n| actix_rt::spawn(register(&format!("user-{n}")))).collect();
    while store.pools().queued() < 1001 {
        actix_rt::task::yield_now().await;
    }

    let refused = register("last").await.unwrap_err();

    assert!(matches!(refused, StoreError::Execute(ExecuteError::Busy)), "{refused:?}");
    open.send(()).unwrap();
    for answered in std::iter::once(first).chain(waiting) {
        assert!(!answered.await.unwrap().unwrap().0);
    }
    register("last").await.unwrap();
}
