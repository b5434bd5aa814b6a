//! Older copies of a home put back, over the server's own delivery: found before anything is sealed with a key that was
//! used, told, and mended by leaving and coming again.

use std::collections::BTreeMap;

use keypool_client::{AuditFinding, GroupError, MailboxEventKind, SendError, UpdateError};
use quickcheck::{Arbitrary, Gen};

use super::{
    members::{Client, alice_and_bob, open, they_talk, told},
    service::{Service, run},
};

/// The events of a sync, confirmed.
async fn events(client: &Client) -> Vec<MailboxEventKind> {
    let events = client.sync(0).await.unwrap();
    if let Some(last) = events.last() {
        client.confirm(last.position).unwrap();
    }
    events.into_iter().map(|event| event.kind).collect()
}

#[test]
fn a_home_that_has_forgotten_mail_is_told_and_seals_nothing() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        drop(bob);
        service.back_up_home("bob");
        let bob = open(&service, "bob");
        alice.send(&group, b"heard").await.unwrap();
        assert_eq!(told(&bob).await, ["alice/main: heard"]);
        drop(bob);
        service.restore_home("bob");

        let bob = open(&service, "bob");
        let refused = bob.send(&group, b"used").await.unwrap_err();
        assert!(
            matches!(&refused, SendError::Group(GroupError::ReadOnly { group: it }) if *it == group),
            "{refused}"
        );
        let refused = bob.update_keys(&group).await.unwrap_err();
        assert!(matches!(refused, UpdateError::Group(GroupError::ReadOnly { .. })), "{refused}");
        let [MailboxEventKind::SetBack { groups }] = &events(&bob).await[..] else { panic!() };
        assert_eq!(groups, std::slice::from_ref(&group));
        // Told once, though more is said.
        alice.send(&group, b"more").await.unwrap();
        let more = events(&bob).await;
        assert!(!more.iter().any(|it| matches!(it, MailboxEventKind::SetBack { .. })), "{more:?}");
        let found = bob.audit().unwrap().findings;
        assert!(found.iter().any(|it| matches!(it, AuditFinding::HomeSetBack { .. })), "{found:?}");
        assert!(told(&alice).await.is_empty());

        // He leaves, is removed, and comes again.
        bob.leave(&group).await.unwrap();
        assert!(bob.audit().unwrap().findings.is_empty());
        alice.remove(&group, "bob", None).await.unwrap();
        bob.adopt().await.unwrap();
        alice.invite(&group, ["bob"]).await.unwrap();
        assert!(told(&bob).await.contains(&"joined by alice/main".to_owned()));
        they_talk(&alice, &bob, &group).await;
    });
}

#[test]
fn a_home_that_has_forgotten_what_it_said_seals_nothing() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        bob.send(&group, b"one").await.unwrap();
        drop(bob);
        service.back_up_home("bob");
        let bob = open(&service, "bob");
        bob.send(&group, b"two").await.unwrap();
        drop(bob);
        service.restore_home("bob");
        let bob = open(&service, "bob");
        let refused = bob.send(&group, b"a key that was used").await.unwrap_err();
        assert!(matches!(refused, SendError::Group(GroupError::ReadOnly { .. })), "{refused}");
        assert_eq!(told(&alice).await, ["bob/main: one", "bob/main: two"]);
    });
}

/// The server does not answer when the app has started: nothing is sealed, and nothing is lost.
#[test]
fn what_is_said_before_the_server_was_asked_goes_out_in_order_unless_the_home_was_set_back() {
    run(async {
        for is_set_back in [false, true] {
            let service = Service::start();
            let (alice, bob, group) = alice_and_bob(&service).await;
            drop(bob);
            service.back_up_home("bob");
            let bob = open(&service, "bob");
            bob.send(&group, b"one").await.unwrap();
            drop(bob);
            if is_set_back {
                service.restore_home("bob");
            }
            let bob = open(&service, "bob");
            service.tunnel.lose(&[0, 1, 2, 3]);
            for message in [&b"two"[..], b"three"] {
                let unfinished = bob.send(&group, message).await.unwrap_err();
                assert!(matches!(unfinished, SendError::Unfinished(_)), "{unfinished:?}");
            }
            service.tunnel.forget_plans();
            drop(bob);
            let bob = open(&service, "bob");
            let resumed = bob.resume_outbox().await.unwrap();
            let heard = told(&alice).await;
            if is_set_back {
                assert_eq!(resumed.len(), 2);
                let is_closed = |error: &SendError| {
                    matches!(error, SendError::Group(GroupError::ReadOnly { .. }))
                };
                assert!(resumed.iter().all(|it| it.outcome.as_ref().is_err_and(is_closed)));
                assert_eq!(heard, ["bob/main: one"]);
            } else {
                assert!(resumed.iter().all(|it| it.outcome.is_ok()), "{resumed:?}");
                assert_eq!(heard, ["bob/main: one", "bob/main: two", "bob/main: three"]);
            }
            assert!(bob.resume_outbox().await.unwrap().is_empty());
        }
    });
}

/// Homes of before kept no place of their last post: they are no older copies for that, and keep it from now on.
#[test]
fn a_home_that_kept_no_place_of_its_posts_learns_it_and_goes_on() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        bob.send(&group, b"one").await.unwrap();
        told(&bob).await;
        let staged = bob.store().stage().unwrap();
        let mut kept: BTreeMap<String, serde_json::Value> =
            staged.app_record("mailbox").unwrap().unwrap();
        assert!(kept.remove("posted").is_some_and(|posted| posted.as_u64() > Some(0)), "{kept:?}");
        staged.put_app_record("mailbox", &kept).unwrap();
        staged.commit().unwrap();
        drop(bob);
        let bob = open(&service, "bob");
        bob.send(&group, b"two").await.unwrap().unwrap();
        drop(bob);
        service.back_up_home("bob");
        let bob = open(&service, "bob");
        bob.send(&group, b"three").await.unwrap().unwrap();
        drop(bob);
        service.restore_home("bob");
        let refused = open(&service, "bob").send(&group, b"four").await.unwrap_err();
        assert!(matches!(refused, SendError::Group(GroupError::ReadOnly { .. })), "{refused}");
        assert_eq!(told(&alice).await, ["bob/main: one", "bob/main: two", "bob/main: three"]);
    });
}

/// A deed of bob or alice.
#[derive(Clone, Copy, Debug)]
enum Deed {
    BobSays,
    BobUpdates,
    BobSyncs,
    AliceSays,
    AliceUpdates,
    BobRestarts,
}

impl Arbitrary for Deed {
    fn arbitrary(g: &mut Gen) -> Self {
        let all = [
            Self::BobSays,
            Self::BobSays,
            Self::BobUpdates,
            Self::BobSyncs,
            Self::AliceSays,
            Self::AliceUpdates,
            Self::BobRestarts,
        ];
        *g.choose(&all).unwrap()
    }
}

/// Where bob stands, as the server tells it.
async fn stands(bob: &Client) -> (u64, u64) {
    let reply = bob.connection().api().mailbox(0, 1, 0).await.unwrap();
    (reply.acknowledged, reply.last_posted)
}

/// Plays deeds. A Commit of bob's may lose the epoch to one of alice's.
async fn play(service: &Service, alice: &Client, mut bob: Client, deeds: &[Deed]) -> Client {
    let group = bob.groups().unwrap().pop().unwrap();
    for deed in deeds {
        match deed {
            Deed::BobSays => drop(bob.send(&group, b"hello").await.unwrap()),
            Deed::BobUpdates => drop(bob.update_keys(&group).await),
            Deed::BobSyncs => drop(events(&bob).await),
            Deed::AliceSays => drop(alice.send(&group, b"hello").await.unwrap()),
            Deed::AliceUpdates => {
                events(alice).await;
                // She keeps the keys of a few epochs for those who are behind.
                let epoch = |of: &Client| of.membership().epoch(&group).unwrap();
                if epoch(alice) < epoch(&bob) + 3 {
                    alice.update_keys(&group).await.unwrap();
                }
            }
            Deed::BobRestarts => {
                drop(bob);
                bob = open(service, "bob");
            }
        }
    }
    bob
}

/// The number of random rollbacks; `KEYPOOL_ROLLBACKS` says another one.
fn rollbacks() -> usize {
    std::env::var("KEYPOOL_ROLLBACKS").ok().and_then(|it| it.parse().ok()).unwrap_or(16)
}

/// Each is checked by the ratchet of the receiver: a key that was used does not open twice.
#[test]
fn a_home_that_was_set_back_at_random_seals_nothing_with_a_key_that_was_used() {
    run(async {
        for number in 0..rollbacks() {
            let mut g = Gen::new(6);
            let [before, after, last]: [Vec<Deed>; 3] =
                std::array::from_fn(|_| Vec::arbitrary(&mut g));
            let told = format!("{number}: {before:?}, backup, {after:?}, restore, {last:?}");
            let service = Service::start();
            let (alice, bob, group) = alice_and_bob(&service).await;
            let bob = play(&service, &alice, bob, &before).await;
            let stood = stands(&bob).await;
            drop(bob);
            service.back_up_home("bob");
            let bob = play(&service, &alice, open(&service, "bob"), &after).await;
            let has_moved = stands(&bob).await != stood;
            drop(bob);
            service.restore_home("bob");
            events(&alice).await;
            let bob = open(&service, "bob");
            let sealed = bob.send(&group, b"after").await;
            if has_moved {
                let refused = sealed.expect_err(&told);
                let is_closed = matches!(refused, SendError::Group(GroupError::ReadOnly { .. }));
                assert!(is_closed, "{told}: {refused}");
            } else {
                sealed.unwrap_or_else(|error| panic!("{told}: {error}"));
                play(&service, &alice, bob, &last).await;
            }
            let heard = events(&alice).await;
            let is_unread =
                |it: &MailboxEventKind| matches!(it, MailboxEventKind::Unreadable { .. });
            assert!(!heard.iter().any(is_unread), "{told}: {heard:?}");
        }
    });
}
