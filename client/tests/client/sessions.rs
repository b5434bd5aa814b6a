//! Session keys, which an app has without knowing: agreed on, lost, and agreed on again.

use std::{sync::Arc, time::Duration};

use keypool_client::MlsClient;
use keypool_ledger::{Clock, ManualClock, ReservePolicy, SystemClock};
use keypool_server::SessionKeys;

use super::{
    delivery::{Client, alice_and, alice_and_bob, open, they_talk, told},
    service::{Service, run},
};

/// Requests, and how many of them were in a session.
type Counted = (usize, usize);

async fn counted(service: &Service, does: impl AsyncFnOnce()) -> Counted {
    let counts = || (service.tunnel.requests(), service.tunnel.in_sessions());
    let before = counts();
    does().await;
    let after = counts();
    (after.0 - before.0, after.1 - before.1)
}

/// What each of so many requests of the app comes to.
async fn asked(service: &Service, client: &Client, times: usize) -> Vec<Counted> {
    let mut found = Vec::new();
    for _ in 0..times {
        let ask = async || {
            client.status().await.unwrap();
        };
        found.push(counted(service, ask).await);
    }
    found
}

/// Bob, registered, whose app uses sessions.
async fn bob(service: &Service) -> Client {
    drop(service.device("bob", 2).await);
    let bob = open(service, "bob");
    bob.connection().api().use_session_keys(true);
    bob
}

/// A clock for a device that stands still, at the time it is.
fn standing() -> Arc<dyn Clock> {
    Arc::new(ManualClock::at(SystemClock.now()))
}

const BY_KEY: Counted = (1, 0);
const AGREED: Counted = (2, 1);
const IN_SESSION: Counted = (1, 1);

#[test]
fn who_asks_often_agrees_on_a_session_and_uses_it_until_it_ends() {
    run(async {
        let service = Service::start();
        let bob = bob(&service).await;
        let found = asked(&service, &bob, 5).await;
        assert_eq!(found, [BY_KEY, BY_KEY, AGREED, IN_SESSION, IN_SESSION]);
        service.clock.advance(Duration::from_mins(9));
        assert_eq!(asked(&service, &bob, 1).await, [IN_SESSION]);
        service.clock.advance(Duration::from_mins(1));
        let found = asked(&service, &bob, 4).await;
        assert_eq!(found, [BY_KEY, BY_KEY, AGREED, IN_SESSION]);
    });
}

#[test]
fn an_app_can_do_without_sessions() {
    run(async {
        let service = Service::start();
        let bob = bob(&service).await;
        assert_eq!(asked(&service, &bob, 4).await, [BY_KEY, BY_KEY, AGREED, IN_SESSION]);
        bob.connection().api().use_session_keys(false);
        assert_eq!(asked(&service, &bob, 2).await, [BY_KEY, BY_KEY]);
        bob.connection().api().use_session_keys(true);
        assert_eq!(asked(&service, &bob, 2).await, [AGREED, IN_SESSION]);
    });
}

#[test]
fn a_server_that_has_started_again_is_answered_by_the_key_and_agreed_with_anew() {
    run(async {
        let service = Service::start();
        let bob = bob(&service).await;
        assert_eq!(asked(&service, &bob, 4).await[3], IN_SESSION);
        let service = service.beneath(async |_, _| {}).await;
        // Refused in the session, and the very same request signed by the key.
        assert_eq!(asked(&service, &bob, 3).await, [(2, 1), AGREED, IN_SESSION]);
        // A change has the effect it was to have, once.
        let service = service.beneath(async |_, _| {}).await;
        let connection = bob.connection();
        let change = async || {
            let set = connection.set_reserve_policy(ReservePolicy::Contacts).await.unwrap();
            assert_eq!(set.reserve, ReservePolicy::Contacts);
        };
        assert_eq!(counted(&service, change).await, (2, 1));
    });
}

#[test]
fn a_server_that_forgets_its_sessions_is_left_alone() {
    run(async {
        let mut service = Service::start();
        let bob = bob(&service).await;
        asked(&service, &bob, 3).await;
        service = service.beneath(async |_, _| {}).await;
        assert_eq!(asked(&service, &bob, 2).await, [(2, 1), AGREED]);
        service = service.beneath(async |_, _| {}).await;
        assert_eq!(asked(&service, &bob, 3).await, [(2, 1), BY_KEY, BY_KEY]);
    });
}

#[test]
fn a_server_that_offers_none_is_asked_once_an_hour() {
    run(async {
        let service = Service::start_with(|settings| settings.sessions.keys = SessionKeys::Off);
        let bob = bob(&service).await;
        let refused = (2, 0);
        let found = asked(&service, &bob, 5).await;
        assert_eq!(found, [BY_KEY, BY_KEY, refused, BY_KEY, BY_KEY]);
        service.clock.advance(Duration::from_mins(59));
        assert_eq!(asked(&service, &bob, 3).await, [BY_KEY; 3]);
        service.clock.advance(Duration::from_mins(1));
        assert_eq!(asked(&service, &bob, 3).await, [BY_KEY, BY_KEY, refused]);
    });
}

/// As a server answers that knows nothing of sessions.
#[test]
fn an_older_server_is_asked_once_an_hour() {
    run(async {
        let service = Service::start();
        let bob = bob(&service).await;
        asked(&service, &bob, 2).await;
        let problem = r#"{"type":"urn:keypool:method_not_allowed","title":"","status":405,
            "detail":"POST is not taken here; DELETE is","code":"method_not_allowed","hint":"",
            "retryable":false}"#;
        service.tunnel.forge(0, 405, problem);
        assert_eq!(asked(&service, &bob, 3).await, [(2, 0), BY_KEY, BY_KEY]);
    });
}

/// The agreement's answer, that of a request in the session, and both.
#[test]
fn lost_answers_are_asked_for_again() {
    run(async {
        for lost in [&[2][..], &[3], &[2, 3], &[4], &[3, 4, 5]] {
            let service = Service::start();
            let bob = bob(&service).await;
            service.tunnel.lose(lost);
            let (requests, _) = counted(&service, async || {
                for _ in 0..5 {
                    bob.status().await.unwrap();
                }
            })
            .await;
            assert_eq!(service.tunnel.planned(), 0, "{lost:?}");
            assert!((6..=9).contains(&requests), "{lost:?}: {requests}");
        }
    });
}

#[test]
fn another_key_agrees_on_a_session_of_its_own() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        bob.connection().api().use_session_keys(true);
        assert_eq!(asked(&service, &bob, 4).await[3], IN_SESSION);
        bob.rotate_key().await.unwrap();
        let found = asked(&service, &bob, 3).await;
        assert!([AGREED, IN_SESSION].contains(&found[2]), "{found:?}");
        they_talk(&alice, &bob, &group).await;
    });
}

#[test]
fn everything_goes_as_it_does_by_the_key() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and(&service, &["bob"], 2).await;
        alice.connection().api().use_session_keys(true);
        for _ in 0..3 {
            alice.status().await.unwrap();
        }
        let invite = async || {
            alice.invite(&group, ["bob"]).await.unwrap();
        };
        assert_eq!(counted(&service, invite).await, (2, 2), "reserve, and all the rest");
        let bob = open(&service, "bob");
        bob.connection().api().use_session_keys(true);
        assert_eq!(told(&bob).await, ["joined by alice/main"]);
        they_talk(&alice, &bob, &group).await;
        // A mailbox that is waited for, in the session as well.
        let waiting = async || {
            let (synced, sent) = tokio::join!(bob.sync(10), alice.send(&group, b"now"));
            synced.unwrap();
            sent.unwrap();
        };
        let (requests, in_sessions) = counted(&service, waiting).await;
        assert_eq!(requests, in_sessions, "{requests}");
        assert_eq!(told(&bob).await, ["alice/main: now"]);
        // The key itself takes the device away.
        let last = counted(&service, async || {
            bob.remove_device("main").await.unwrap();
        });
        assert_eq!(last.await, BY_KEY);
        bob.status().await.unwrap_err();
    });
}

#[test]
fn a_clock_that_is_wrong_is_corrected_in_a_session_as_well() {
    run(async {
        let service = Service::start();
        drop(service.device("bob", 2).await);
        let (home, owner) = (service.folder.path().join("bob"), "bob".parse().unwrap());
        let rest = (standing(), keypool_client::PoolConfig::default());
        let bob = MlsClient::open_at_server(&home, &owner, &service.tunnel.url(), rest).unwrap();
        asked(&service, &bob, 3).await;
        // Two more are dated by the device's clock and then by the server's.
        service.clock.advance(Duration::from_mins(5));
        assert_eq!(asked(&service, &bob, 2).await, [(2, 2), IN_SESSION]);
        // The session has ended meanwhile; that it has is found by the server's time.
        service.clock.advance(Duration::from_hours(5));
        let (requests, _) = asked(&service, &bob, 1).await[0];
        assert!(requests <= 4, "{requests}");
        assert_eq!(asked(&service, &bob, 2).await[1], IN_SESSION);
    });
}
