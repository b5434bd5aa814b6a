//! A refresh relies on the event stream: nothing is asked while the pool is well, and alarms act at
//! once.

use std::time::Duration;

use keypool_client::{MlsClient, PoolEvent, PoolListener, Refresh, fresh_command};
use keypool_ledger::RevokeReason;

use super::{
    people::{now, reserve},
    pool_news::hears,
    service::{Mail, Service, run},
    support::in_a_minute,
};

const MINUTE: Duration = Duration::from_secs(61);

/// Alice reserves a package of Bob's, and Bob hears of it.
async fn reserved_and_heard(alice: &MlsClient<Mail>, listener: &mut PoolListener<'_, Mail>) {
    reserve(alice, None).await;
    hears(listener, "reserved").await;
}

/// Bob with ten packages, who has heard of all of them and has had a round; and Alice.
async fn told(
    service: &Service,
    does: impl AsyncFnOnce(&MlsClient<Mail>, &MlsClient<Mail>, PoolListener<'_, Mail>),
) {
    let bob = service.device("bob", 10).await;
    let alice = service.device("alice", 0).await;
    let mut listener = bob.listen().await.unwrap();
    for _ in 0..10 {
        hears(&mut listener, "uploaded").await;
    }
    assert!(!bob.connection().is_subscribed(), "no round has ended since the listener began");
    bob.connection().refresh_now(now(service)).await.unwrap();
    assert!(bob.connection().is_subscribed());
    does(&bob, &alice, listener).await;
}

/// Refreshes, and counts the requests of that.
async fn refresh(service: &Service, bob: &MlsClient<Mail>) -> (Refresh, usize) {
    let before = service.tunnel.requests();
    let refresh = bob.refresh_key_packages().await.unwrap();
    (refresh, service.tunnel.requests() - before)
}

#[test]
fn while_a_listener_tells_a_refresh_of_a_pool_that_is_well_asks_nothing() {
    run(async {
        let service = Service::start();
        told(&service, async |bob, alice, mut listener| {
            service.clock.advance(MINUTE);
            reserved_and_heard(alice, &mut listener).await;
            let (by_ear, requests) = refresh(&service, bob).await;
            assert_eq!((by_ear.skipped, by_ear.available, requests), (true, 9, 0));
            assert_eq!(bob.package_uses().len(), 1, "it is known who holds one");

            // Nothing has come for longer than the server is ever silent.
            service.clock.advance(MINUTE);
            let (asked, requests) = refresh(&service, bob).await;
            assert_eq!((asked.skipped, asked.events, asked.available), (false, 0, 9));
            assert!(2 <= requests, "the status, and the checkpoint");

            service.clock.advance(MINUTE);
            reserve(alice, None).await;
            drop(listener);
            let (asked, requests) = refresh(&service, bob).await;
            assert!(!asked.skipped && 2 <= requests, "nobody listens: {asked:?}");
        })
        .await;
    });
}

#[test]
fn some_minutes_after_the_last_round_there_is_another_one() {
    run(async {
        let service = Service::start();
        told(&service, async |bob, alice, mut listener| {
            service.clock.advance(4 * MINUTE);
            reserved_and_heard(alice, &mut listener).await;
            assert_eq!(refresh(&service, bob).await.1, 0);
            service.clock.advance(MINUTE);
            reserved_and_heard(alice, &mut listener).await;
            let (asked, requests) = refresh(&service, bob).await;
            assert!(!asked.skipped && 2 <= requests, "{asked:?}");
        })
        .await;
    });
}

#[test]
fn a_pool_that_is_told_to_be_low_is_filled_at_once() {
    run(async {
        let service = Service::start();
        told(&service, async |bob, alice, mut listener| {
            let (rested, requests) = refresh(&service, bob).await;
            assert_eq!((rested.skipped, rested.available, requests), (true, 10, 0));
            reserve(alice, None).await;
            reserve(alice, None).await;
            in_a_minute(async {
                while !matches!(listener.next().await.unwrap(), Some(PoolEvent::Low(_))) {}
            })
            .await;
            let (filled, _) = refresh(&service, bob).await;
            assert_eq!((filled.created, filled.available), (24, 32));
            for _ in 0..24 {
                hears(&mut listener, "uploaded").await;
            }
            let (rested, requests) = refresh(&service, bob).await;
            assert_eq!((rested.skipped, rested.available, requests), (true, 32, 0), "once");
            service.clock.advance(MINUTE);
            reserved_and_heard(alice, &mut listener).await;
            let (by_ear, requests) = refresh(&service, bob).await;
            assert_eq!((by_ear.skipped, by_ear.available, requests), (true, 31, 0));
        })
        .await;
    });
}

#[test]
fn what_is_told_and_not_answered_for_is_mended_at_once() {
    run(async {
        let service = Service::start();
        told(&service, async |bob, alice, mut listener| {
            service.clock.advance(MINUTE);
            reserved_and_heard(alice, &mut listener).await;
            // Withdrawn here, and the server was never told.
            let own = bob.own_history(None).unwrap();
            let last = own.iter().rev().find_map(|it| it.keypackage_ref.clone()).unwrap();
            let pool = bob.connection().pool();
            pool.mark_revoked(&[last], RevokeReason::Withdrawn, now(&service), fresh_command())
                .unwrap();
            let (mended, _) = refresh(&service, bob).await;
            assert_eq!((mended.skipped, mended.drift.withdrawn), (false, 1));
        })
        .await;
    });
}

#[test]
fn a_line_on_which_nothing_happens_is_known_to_be_there() {
    run(async {
        let service = Service::start_with(|settings| {
            settings.stream_heartbeat = Duration::from_millis(1);
        });
        told(&service, async |bob, _, mut listener| {
            service.clock.advance(MINUTE);
            assert!(!bob.connection().is_subscribed());
            let is_subscribed = async {
                while !bob.connection().is_subscribed() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                news = listener.next() => panic!("{news:?}"),
                () = in_a_minute(is_subscribed) => {}
            }
            let (by_ear, requests) = refresh(&service, bob).await;
            assert_eq!((by_ear.skipped, by_ear.available, requests), (true, 10, 0));
        })
        .await;
    });
}

#[test]
fn a_line_that_broke_tells_nothing_any_more() {
    run(async {
        let service = Service::start();
        let bob = service.device("bob", 10).await;
        let mut listener = bob.listen().await.unwrap();
        bob.connection().refresh_now(now(&service)).await.unwrap();
        assert!(bob.connection().is_subscribed());
        service.server.stop().await;
        in_a_minute(async { while let Ok(Some(_)) = listener.next().await {} }).await;
        assert!(!bob.connection().is_subscribed(), "though it was heard a moment ago");
    });
}
