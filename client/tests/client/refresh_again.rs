//! A refresh may be repeated at any time: the second one changes nothing.

use std::time::Duration;

use keypool_api::{RevokeRequest, RevokeWord, SpendRequest};
use keypool_client::{MlsClient, fresh_command};
use keypool_ledger::Clock;
use quickcheck::{Arbitrary, Gen, QuickCheck};

use super::{
    people::reserve_for,
    service::{Mail, Service, group, run},
};

/// Something that happens to Bob's pool.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// Bob refreshes, and the answers to so many of his requests are lost, from one of them on. Four in a
    /// row are more than he repeats.
    Refresh { from: usize, lost: usize },
    /// Bob makes packages and dies before he uploads them.
    Made { count: usize },
    /// Alice reserves one, and spends it or not.
    Reserve { spend: bool },
    /// Bob withdraws the package that something has happened to last.
    Revoke,
    /// Hours go by: reservations lapse, packages expire.
    Wait { hours: u64 },
    /// Bob's app is started again.
    Restart,
}

impl Arbitrary for Deed {
    fn arbitrary(g: &mut Gen) -> Self {
        let number = |g: &mut Gen, below: usize| usize::arbitrary(g) % below;
        match number(g, 8) {
            0 | 1 => Self::Refresh { from: number(g, 4), lost: [0, 0, 1, 4][number(g, 4)] },
            2 => Self::Made { count: number(g, 4) },
            3 | 4 => Self::Reserve { spend: bool::arbitrary(g) },
            5 => Self::Revoke,
            6 => Self::Wait { hours: number(g, 10 * 24) as u64 },
            _ => Self::Restart,
        }
    }
}

/// The steps, one after the other.
async fn happen(service: &Service, deeds: &[Deed]) -> MlsClient<Mail> {
    let mut bob = service.device("bob", 0).await;
    let alice = service.device("alice", 0).await;
    for deed in deeds {
        let now = service.clock.now();
        match *deed {
            Deed::Refresh { from, lost } => {
                service.tunnel.lose(&(from..from + lost).collect::<Vec<_>>());
                // It may fail; that is what the next one is for.
                drop(bob.connection().refresh_now(now).await);
                service.tunnel.forget_plans();
            }
            Deed::Made { count } => {
                drop(bob.connection().pool().generate_and_store(count, now));
            }
            Deed::Reserve { spend } => {
                if bob.status().await.unwrap().counts.available == 0 {
                    continue;
                }
                let made = reserve_for(&alice, "g").await.claim;
                if spend {
                    let (keypackage_ref, reservation_id) =
                        (made.keypackage_ref, made.reservation_id);
                    let group_id = group("g");
                    let spend =
                        SpendRequest { keypackage_ref, reservation_id, group_id, added_by: None };
                    alice.connection().api().spend(&spend, fresh_command()).await.unwrap();
                }
            }
            Deed::Revoke => {
                let last = bob.history(None).unwrap().pop();
                let Some(package) = last.and_then(|moment| moment.keypackage_ref) else { continue };
                let request = RevokeRequest {
                    keypackage_refs: Some(vec![package]),
                    credential_hash: None,
                    all: None,
                    reason: RevokeWord::Withdrawn,
                };
                drop(bob.connection().api().revoke(&request, fresh_command()).await);
            }
            Deed::Wait { hours } => {
                service.clock.advance(Duration::from_hours(hours));
                // The server believes a leap of its clock that it has seen twice, some seconds apart.
                alice.register().await.unwrap();
                service.clock.advance(Duration::from_secs(11));
                alice.register().await.unwrap();
            }
            Deed::Restart => {
                drop(bob);
                bob = service.open("bob");
            }
        }
    }
    bob
}

#[expect(clippy::needless_pass_by_value, reason = "quickcheck hands over what it has made")]
fn the_second_changes_nothing(deeds: Vec<Deed>) -> bool {
    run(async {
        let service = Service::start();
        let bob = happen(&service, &deeds).await;
        let now = service.clock.now();
        bob.connection().refresh_now(now).await.unwrap();
        let (own, before) = (bob.own_history(None).unwrap(), bob.status().await.unwrap());
        assert!(before.counts.available > 8, "{before:?}");

        let second = bob.connection().refresh_now(now).await.unwrap();
        // The first one's own uploads come back as events; nothing else is new.
        assert_eq!((second.created, second.reuploaded, second.expired), (0, 0, 0));
        assert_eq!(bob.own_history(None).unwrap(), own);
        let after = bob.status().await.unwrap();
        assert_eq!(
            (after.version, after.head, after.digest),
            (before.version, before.head, before.digest)
        );

        let third = bob.connection().refresh_now(now).await.unwrap();
        assert_eq!((third.events, third.available), (0, second.available));
        // Both sides count the same packages.
        assert_eq!(third.available, after.counts.available);
        true
    })
}

#[test]
fn the_second_of_two_refreshes_changes_nothing_whatever_was_before() {
    QuickCheck::new()
        .rng(Gen::new(10))
        .tests(12)
        .quickcheck(the_second_changes_nothing as fn(Vec<Deed>) -> bool);
}
