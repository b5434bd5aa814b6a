//! Members who stay away, groups that end, and messages that nobody keeps.

use std::{
    task::{Context, Poll, Waker},
    time::Duration,
};

use keypool_ledger::{EventLog, GroupId};
use keypool_projections::{
    Acknowledgement, Command, DeliveryLimits, DeliveryRejection, PolicyChange,
};
use keypool_server::pools::{DeliveryCommand, Target};
use tokio::sync::watch as signal;

use crate::{
    delivery::{SMALL, Service, asked, commit, g, post, refusal},
    history::{at, group, pool},
    service::{block_on, request},
};

const WEEK: Duration = Duration::from_hours(7 * 24);
const MONTH: Duration = Duration::from_hours(30 * 24);

fn g0() -> GroupId {
    group("g0")
}

fn post_in_g0(words: &str) -> DeliveryCommand {
    DeliveryCommand::Post { group: g0(), message: words.as_bytes().to_vec() }
}

impl Service {
    fn wait(&self, time: Duration) {
        self.clock.advance(time);
        block_on(self.pools.accept_clock()).unwrap();
    }

    fn last_payload(&self) -> (&'static str, Vec<u8>) {
        let last = self.log.read(self.log.head().unwrap().seq, 1).unwrap().pop().unwrap();
        (last.envelope.event.name(), last.payload)
    }

    fn set_policy(&self, id: u128, device: &str, change: PolicyChange) {
        let target = Target::Pool(pool(device));
        block_on(self.pools.execute(request(id, target, Command::SetPolicy(change)))).unwrap();
    }
}

#[test]
fn a_device_that_speaks_after_a_week_has_accepted_its_invitation() {
    for command in [post("late, but here"), commit(1, &[], &[])] {
        let service = Service::with(&["bob"]);
        service.add(10, "alice", 0, ("bob", 1));
        service.wait(WEEK);
        service.deliver(11, "bob", command).unwrap();
        assert!(service.pools.group(&g()).has_member(&pool("bob")));
        service.deliver(12, "alice", post("welcome")).unwrap();
        assert_eq!(service.waiting("bob"), ["welcome", "welcome"]);
        service.assert_audited();
    }
}

#[test]
fn an_invitation_ends_those_that_its_device_has_ignored() {
    let service = Service::with(&[]);
    service.upload_for_bob(50, &["p0", "p1", "p2"], at(0).after(MONTH));
    service.invite_bob(0, "mallory").unwrap();
    service.wait(WEEK / 2);
    service.invite_bob(1, "mallory").unwrap();
    service.wait(WEEK / 2);
    service.invite_bob(2, "carol").unwrap();
    assert!(!service.pools.group(&g0()).has_member(&pool("bob")));
    let mailbox = service.pools.mailbox(&pool("bob"));
    assert_eq!(mailbox.groups().collect::<Vec<_>>(), [&group("g1"), &group("g2")]);
    assert_eq!(service.waiting("bob"), ["welcome"; 2]);
    service.assert_audited();
}

/// Bob has joined the group and another one, and has messages of both.
fn in_two_groups(limits: DeliveryLimits) -> Service {
    let service = Service::with(&["bob", "carol"]).limited(limits);
    service.upload_for_bob(50, &["p0"], at(0).after(MONTH));
    service.add(10, "alice", 0, ("bob", 1));
    service.join(11, "bob");
    service.invite_bob(0, "dave").unwrap();
    service.deliver(12, "bob", post_in_g0("hello")).unwrap();
    service.deliver(13, "alice", post("old")).unwrap();
    service
}

#[test]
fn a_group_that_has_ended_stays_so_when_its_messages_are_too_old() {
    let service = in_two_groups(DeliveryLimits::STANDARD);
    service.deliver(14, "alice", commit(1, &[], &["bob"])).unwrap();
    service.wait(MONTH);
    service.deliver(15, "dave", post_in_g0("new")).unwrap();
    let mailbox = service.pools.mailbox(&pool("bob"));
    assert_eq!(mailbox.groups().collect::<Vec<_>>(), [&g0()]);
    assert_eq!(mailbox.closed().map(|closed| closed.group).collect::<Vec<_>>(), [g(), g0()]);
    for (id, told) in [(16, g0()), (17, g())] {
        let told = Acknowledgement { told: vec![told], ..Acknowledgement::default() };
        service.deliver(id, "bob", DeliveryCommand::Acknowledge(told)).unwrap();
    }
    let mailbox = service.pools.mailbox(&pool("bob"));
    assert_eq!(mailbox.groups().collect::<Vec<_>>(), [&g0()]);
    assert_eq!(mailbox.closed().count(), 0);
    service.assert_audited();
}

#[test]
fn what_has_waited_too_long_is_dropped_from_a_closed_group_too() {
    let service = in_two_groups(SMALL);
    for (id, words) in [(14, "one"), (15, "two"), (16, "three")] {
        service.deliver(id, "alice", post(words)).unwrap();
    }
    for epoch in 1..4 {
        service.deliver(20 + u128::from(epoch), "alice", commit(epoch, &[], &[])).unwrap();
    }
    assert_eq!(service.waiting("bob"), ["welcome", "old", "one", "commit 1", "commit 2"]);
    service.wait(MONTH);
    service.deliver(30, "dave", post_in_g0("new")).unwrap();
    assert_eq!(service.waiting("bob"), [""; 0]);
    service.assert_audited();
}

#[test]
fn a_message_that_none_of_many_members_keeps_is_not_stored() {
    let users: Vec<String> = (0..120).map(|n| format!("u{n}")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let limits = DeliveryLimits { invited_messages_max: 2, ..DeliveryLimits::STANDARD };
    let service = Service::with(&users).limited(limits);
    let spends: Vec<_> = users.iter().zip(1..).map(|(user, n)| (*user, n, "alice")).collect();
    for (user, number, holder) in &spends {
        service.reserve(*number, user, holder);
    }
    service.deliver(300, "alice", commit(0, &spends, &[])).unwrap();
    assert!(service.deliver(311, "alice", post("one")).unwrap().not_kept.is_empty());
    let second = service.deliver(312, "alice", post("two")).unwrap();
    assert_eq!((second.not_kept.len(), service.last_payload()), (100, ("posted", vec![])));
    let before = service.log.head().unwrap().seq;
    let third = service.deliver(313, "alice", post("three")).unwrap();
    assert_eq!((third.position, third.not_kept.len()), (0, 100));
    assert_eq!(service.log.head().unwrap().seq, before);
    service.assert_audited();
}

#[test]
fn messages_that_are_decided_together_share_what_is_left_of_a_budget() {
    let service = Service::with(&["bob"]).limited(SMALL);
    service.add(10, "alice", 0, ("bob", 1));
    service.join(11, "bob");
    service.deliver(12, "alice", post("one")).unwrap();
    service.pools.pack_all();
    let asked = (100..300).map(|id| asked(id, "alice", post("another")));
    let mut posts: Vec<_> = asked.map(|post| Box::pin(service.pools.deliver(post))).collect();
    // All of them wait before any is waited for: the writer takes as many at a time as it finds.
    let mut context = Context::from_waker(Waker::noop());
    let started = posts.iter_mut().map(|post| post.as_mut().poll(&mut context));
    let started: Vec<_> = started.collect();
    let outcomes = posts.into_iter().zip(started).map(|(post, started)| match started {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => block_on(post),
    });
    let not_kept = outcomes.filter(|outcome| !outcome.as_ref().unwrap().not_kept.is_empty());
    assert_eq!(not_kept.count(), 199);
    assert_eq!(service.waiting("bob"), ["one", "another"], "half of four are one sender's");
    service.assert_audited();
}

#[test]
fn a_blocked_sender_is_told_nothing_and_its_bytes_are_not_stored() {
    let service = Service::with(&["bob"]);
    service.add(10, "alice", 0, ("bob", 1));
    service.join(11, "bob");
    let blocked = vec!["alice".to_owned()];
    let blocking = PolicyChange { blocked: blocked.clone(), ..PolicyChange::default() };
    service.set_policy(20, "bob", blocking);
    let posted = service.deliver(12, "alice", post("spam")).unwrap();
    assert!(posted.position != 0 && posted.not_kept.is_empty(), "{posted:?}");
    assert_eq!(service.last_payload(), ("posted", vec![]));
    service.set_policy(21, "bob", PolicyChange { unblocked: blocked, ..PolicyChange::default() });
    service.deliver(13, "alice", post("sorry")).unwrap();
    assert_eq!(service.waiting("bob"), ["sorry"]);
    service.assert_audited();
}

#[test]
fn a_full_group_replaces_members_by_one_commit() {
    let limits = DeliveryLimits { members_max: 2, ..DeliveryLimits::STANDARD };
    let service = Service::with(&["bob", "carol"]).limited(limits);
    service.add(10, "alice", 0, ("bob", 1));
    service.reserve(2, "carol", "alice");
    let carol = [("carol", 2, "alice")];
    let refused = refusal(service.deliver(11, "alice", commit(1, &carol, &[])));
    assert_eq!(refused, DeliveryRejection::TooManyMembers(2));
    service.deliver(12, "alice", commit(1, &carol, &["bob"])).unwrap();
    service.assert_audited();
}

#[test]
fn an_event_wakes_the_listeners_it_concerns_and_no_others() {
    let service = Service::with(&["alice", "bob", "carol"]);
    let names = ["alice", "bob", "carol"];
    let mut listeners = names.map(|name| (name, service.pools.listen(&pool(name))));
    let mut woken = || {
        let changed = listeners.iter_mut().filter(|(_, listener)| listener.has_changed().unwrap());
        let note = |(name, listener): &mut (&'static str, signal::Receiver<u64>)| {
            listener.mark_unchanged();
            *name
        };
        changed.map(note).collect::<Vec<_>>()
    };
    assert_eq!(woken(), [""; 0]);
    service.reserve(1, "carol", "alice");
    assert_eq!(woken(), ["carol"]);
    service.add(10, "alice", 0, ("bob", 2));
    assert_eq!(woken(), ["bob"]);
    service.deliver(11, "alice", post("hello")).unwrap();
    assert_eq!(woken(), ["bob"]);
    service.join(12, "bob");
    assert_eq!(woken(), ["alice", "bob"], "the inviter has an answer");
    service.deliver(13, "bob", post("hello")).unwrap();
    assert_eq!(woken(), ["alice"]);
}
