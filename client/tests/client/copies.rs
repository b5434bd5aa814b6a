//! Two copies of one home, both in use: told apart from a backup that was put back, and kept from withdrawing each
//! other's packages.

use std::path::PathBuf;

use keypool_client::{Drift, MlsClient, OtherCopy, PoolConfig, Refresh};

use super::{
    people::reserve_for,
    service::{Mail, Service, run},
    support::copy,
};

/// Bob's home and a copy of it.
struct Twins {
    service: Service,
    one: MlsClient<Mail>,
    other: MlsClient<Mail>,
}

impl Twins {
    async fn new() -> Self {
        let service = Service::start();
        drop(service.device("bob", 0).await);
        let homes: [PathBuf; 2] = ["bob", "bob2"].map(|name| service.folder.path().join(name));
        let open = |home: &PathBuf| {
            let config = PoolConfig {
                target: 8,
                low_watermark: 4,
                last_resort: false,
                ..PoolConfig::default()
            };
            service.open_at(home, "bob", config)
        };
        let one = open(&homes[0]);
        one.refresh_now().await.unwrap();
        drop(one);
        std::fs::create_dir(&homes[1]).unwrap();
        copy(&homes[0], &homes[1]);
        let (one, other) = (open(&homes[0]), open(&homes[1]));
        Self { service, one, other }
    }

    async fn refresh(&self, which: &MlsClient<Mail>) -> Refresh {
        which.refresh_now().await.unwrap()
    }

    async fn revoked(&self) -> u64 {
        self.one.status().await.unwrap().counts.revoked
    }
}

#[test]
fn two_running_copies_are_told_and_withdraw_nothing_of_each_other() {
    run(async {
        let twins = Twins::new().await;
        let alice = twins.service.device("alice", 0).await;
        let mut told = Vec::new();
        for round in 0..5 {
            for _ in 0..3 {
                reserve_for(&alice, &format!("g{round}")).await;
            }
            for home in [&twins.one, &twins.other] {
                let refresh = twins.refresh(home).await;
                assert!(4 < refresh.available, "{refresh:?}");
                told.push(refresh.drift);
            }
        }
        assert_eq!(twins.revoked().await, 0);
        let is_told =
            told.iter().filter(|drift| drift.other_copy == Some(OtherCopy::Running)).count();
        assert!(2 <= is_told, "{told:?}");
    });
}

/// Neither of them makes or withdraws anything: the pool's history shows nothing.
#[test]
fn a_copy_that_only_refreshes_is_noticed_and_told_to_both() {
    run(async {
        let twins = Twins::new().await;
        let running = Some(OtherCopy::Running);
        assert!(twins.refresh(&twins.one).await.drift.is_none(), "it is alone");
        assert_eq!(twins.refresh(&twins.other).await.drift.other_copy, running);
        assert_eq!(twins.refresh(&twins.one).await.drift.other_copy, running);
        // A person adopts the one, and the other one is quiet.
        assert!(twins.other.adopt().await.unwrap().drift.is_none());
        assert!(twins.refresh(&twins.other).await.drift.is_none());
        assert_eq!(twins.revoked().await, 0);
    });
}

/// One copy's package of last resort stands, and the other does not take its place.
#[test]
fn a_package_of_last_resort_of_a_running_copy_is_left_alone() {
    run(async {
        let service = Service::start();
        drop(service.device("bob", 0).await);
        let homes: [PathBuf; 2] = ["bob", "bob2"].map(|name| service.folder.path().join(name));
        std::fs::create_dir(&homes[1]).unwrap();
        copy(&homes[0], &homes[1]);
        let [one, other] = homes.map(|home| service.open_at(&home, "bob", PoolConfig::default()));
        assert_eq!(one.refresh_now().await.unwrap().last_resort_uploaded, 1);
        for _ in 0..3 {
            let refresh = other.refresh_now().await.unwrap();
            assert_eq!((refresh.last_resort_uploaded, refresh.rejected.len()), (0, 0));
            let drift = one.refresh_now().await.unwrap().drift;
            assert_eq!(drift, Drift { other_copy: Some(OtherCopy::Running), ..Drift::default() });
        }
        let counts = one.status().await.unwrap().counts;
        assert_eq!((counts.last_resort, counts.revoked), (1, 0));
        let adopted = other.adopt().await.unwrap();
        let counts = one.status().await.unwrap().counts;
        assert_eq!((counts.last_resort, counts.revoked), (1, 32), "{counts:?}");
        assert_eq!((adopted.drift.withdrawn, adopted.last_resort_uploaded), (33, 1));
    });
}

#[test]
fn the_copy_that_a_person_adopts_keeps_the_pool_and_the_other_one_stops() {
    run(async {
        let twins = Twins::new().await;
        let alice = twins.service.device("alice", 0).await;
        for _ in 0..5 {
            reserve_for(&alice, "g").await;
        }
        assert_eq!(twins.refresh(&twins.one).await.created, 5);
        assert_eq!(twins.refresh(&twins.other).await.drift.other_copy, Some(OtherCopy::Running));
        // The pool is never empty meanwhile: the new ones are there before the old ones go.
        let adopted = twins.other.adopt().await.unwrap();
        assert_eq!((adopted.drift.withdrawn, adopted.available), (5, 8));
        assert_eq!(twins.revoked().await, 5);

        let replaced = twins.refresh(&twins.one).await;
        assert_eq!(replaced.drift.other_copy, Some(OtherCopy::TookOver), "{:?}", replaced.drift);
        insta::assert_snapshot!(replaced.drift, @"another copy of this home has taken over and withdrawn the packages of this one, which makes no more; use that one, or say `keypool adopt` here to go on with this one");
        // It makes and withdraws nothing, however often it is asked.
        for _ in 0..6 {
            reserve_for(&alice, "h").await;
        }
        assert_eq!(twins.refresh(&twins.one).await.created, 0);
        assert_eq!(twins.revoked().await, 5);
        let refilled = twins.refresh(&twins.other).await;
        let told = Drift { other_copy: Some(OtherCopy::Running), ..Drift::default() };
        assert_eq!((refilled.created, refilled.drift), (6, told), "the other one still refreshes");
        // Until a person says otherwise.
        assert_eq!(twins.one.adopt().await.unwrap().available, 8);
        assert_eq!(twins.refresh(&twins.other).await.drift.other_copy, Some(OtherCopy::TookOver));
    });
}

/// An app that is killed before it hears that its packages are withdrawn does not take that for another copy's doing.
#[test]
fn a_withdrawal_whose_answer_was_lost_is_ones_own() {
    run(async {
        let twins = Twins::new().await;
        let Twins { service, one, .. } = &twins;
        let refs = one.store().stage().unwrap().packages_where(|own| own.stage.is_live());
        let refs = refs.into_iter().map(|own| own.facts.keypackage_ref);
        service.tunnel.lose(&[0, 1, 2, 3]);
        one.withdraw_from_server(refs.take(2).collect()).await.unwrap_err();
        service.tunnel.forget_plans();
        let refresh = twins.refresh(one).await;
        assert_ne!(refresh.drift.other_copy, Some(OtherCopy::TookOver), "{:?}", refresh.drift);
        assert_eq!(one.status().await.unwrap().counts.revoked, 2);
    });
}
