//! Answers to invitations: each Welcome has one, and its inviter alone is told.

use std::time::Duration;

use keypool_ledger::{Event, EventLog, PoolId, SignatureKey, WelcomeFault};
use keypool_projections::{Acknowledgement, Command, PolicyChange, Remover};
use keypool_server::pools::{DeliveryCommand, Target};

use crate::{
    delivery::{Service, commit, g, post},
    history::{LIFETIME, START, pool},
    service::{block_on, request},
};

const WEEK: Duration = Duration::from_hours(7 * 24);
const KEYS_GONE: &str = "bob/main: Failed { reason: KeysGone }";

impl Service {
    /// Says that a device could not join the group, and acknowledges everything that waits for it.
    fn fail(&self, id: u128, device: &str, reason: WelcomeFault) {
        let last = self.pools.mailbox(&pool(device)).after(0).last().map(|last| last.position);
        let acknowledgement = Acknowledgement {
            through: last.unwrap_or_default(),
            failed: vec![(g(), reason)],
            ..Acknowledgement::default()
        };
        self.deliver(id, device, DeliveryCommand::Acknowledge(acknowledgement)).unwrap();
    }

    fn leave(&self, id: u128, device: &str) {
        self.deliver(id, device, DeliveryCommand::Leave { group: g() }).unwrap();
    }

    /// The answers in the log, in order.
    fn answers(&self) -> Vec<String> {
        let records = self.log.read(1, usize::MAX).unwrap();
        let answer = |event: &Event| match event {
            Event::InvitationAnswered { device, inviter, answer } => {
                Some(format!("{device} to {inviter}: {answer:?}"))
            }
            _ => None,
        };
        records.iter().filter_map(|record| answer(&record.envelope.event)).collect()
    }

    fn set(&self, id: u128, device: &str, command: Command) {
        block_on(self.pools.execute(request(id, Target::Pool(pool(device)), command))).unwrap();
    }

    fn block(&self, id: u128, device: &str, user: &str) {
        let blocked = vec![user.to_owned()];
        self.set(
            id,
            device,
            Command::SetPolicy(PolicyChange { blocked, ..PolicyChange::default() }),
        );
    }

    fn is_member(&self, device: &str) -> bool {
        self.pools.group(&g()).has_member(&pool(device))
    }
}

/// Alice, who has invited bob.
fn invited() -> Service {
    let service = Service::with(&["bob", "carol"]);
    service.add(10, "alice", 0, ("bob", 1));
    service
}

#[test]
fn the_inviter_alone_is_told_who_has_joined() {
    let service = invited();
    service.add(11, "alice", 1, ("carol", 2));
    service.join(12, "bob");
    assert_eq!(service.waiting("alice"), ["bob/main: Joined"]);
    assert_eq!(service.waiting("carol"), ["welcome"]);
    let (service, written) = (service.restarted(), ["bob/main to alice/main: Joined"]);
    assert_eq!(service.waiting("alice"), ["bob/main: Joined"]);
    service.join(13, "bob");
    service.fail(14, "bob", WelcomeFault::Expired);
    assert_eq!(service.answers(), written, "the first word counts");
    assert!(service.is_member("bob"));
    let asked: Vec<PoolId> = service.pools.group(&g()).unanswered().cloned().collect();
    assert_eq!(asked, [pool("carol")]);
    service.assert_audited();
}

#[test]
fn a_device_that_could_not_join_is_no_member_any_more() {
    let service = invited();
    service.deliver(11, "alice", post("one")).unwrap();
    service.fail(12, "bob", WelcomeFault::KeysGone);
    assert_eq!(service.waiting("alice"), [KEYS_GONE]);
    assert!(!service.is_member("bob"));
    service.deliver(13, "alice", post("two")).unwrap();
    assert_eq!(service.waiting("bob"), [""; 0]);
    service.leave(14, "bob");
    service.fail(15, "bob", WelcomeFault::Unreadable);
    assert_eq!(service.answers().len(), 1);
    service.assert_audited();
}

#[test]
fn who_leaves_unanswered_has_declined_and_who_has_spoken_has_joined() {
    for (speaks, told) in [(false, "bob/main: Declined"), (true, "bob/main: Joined")] {
        let service = invited();
        if speaks {
            service.deliver(11, "bob", post("hello")).unwrap();
        }
        service.leave(12, "bob");
        service.leave(13, "bob");
        let waiting = service.waiting("alice");
        assert_eq!(waiting.last().map(String::as_str), Some(told));
        assert_eq!(service.answers().len(), 1);
        service.assert_audited();
    }
}

#[test]
fn a_device_that_speaks_before_it_acknowledges_still_answers() {
    let service = invited();
    service.deliver(11, "bob", post("hello")).unwrap();
    service.join(12, "bob");
    assert_eq!(service.waiting("alice"), ["hello", "bob/main: Joined"]);
    service.assert_audited();
}

#[test]
fn an_invitation_that_nobody_accepts_has_expired() {
    let service = invited();
    service.clock.advance(WEEK);
    block_on(service.pools.accept_clock()).unwrap();
    service.deliver(11, "alice", post("anybody?")).unwrap();
    assert_eq!(service.waiting("alice"), ["bob/main: Expired"]);
    service.join(12, "bob");
    assert_eq!(service.answers().len(), 1);
    service.assert_audited();
}

#[test]
fn a_device_of_the_same_user_answers_too() {
    let service = Service::with(&["alice/laptop"]);
    service.add(10, "alice", 0, ("alice/laptop", 1));
    service.join(11, "alice/laptop");
    assert_eq!(service.waiting("alice"), ["alice/laptop: Joined"]);
    service.assert_audited();
}

#[test]
fn nobody_answers_for_another_or_what_was_not_asked() {
    let service = invited();
    let head = service.log.head().unwrap();
    service.join(11, "carol");
    service.fail(12, "carol", WelcomeFault::Untrusted);
    service.join(13, "alice");
    service.fail(14, "alice", WelcomeFault::Untrusted);
    assert_eq!(service.log.head().unwrap(), head, "nothing is written");
    assert!(service.is_member("alice") && service.is_member("bob"));
}

#[test]
fn a_removal_takes_an_invitation_back() {
    let service = invited();
    service.deliver(11, "alice", commit(1, &[], &["bob"])).unwrap();
    service.join(12, "bob");
    service.fail(13, "bob", WelcomeFault::KeysGone);
    assert_eq!(service.answers(), [""; 0]);
    service.assert_audited();
}

#[test]
fn an_inviter_that_is_no_member_any_more_is_not_told() {
    // Alice leaves; or the device is removed, and a new one with its name is a member by the time.
    for is_replaced in [false, true] {
        let service = Service::with(&["bob", "carol"]);
        service.add(10, "alice", 0, ("carol", 2));
        let key = |n| SignatureKey::new(&[n; 32]).unwrap();
        let register = |n| Command::Admit {
            signature_key: key(n),
            credential: "alice".to_owned(),
            statement: None,
            frontend: None,
        };
        service.set(11, "alice/phone", register(1));
        service.upload_as("alice/phone", 19, "alice/phone");
        service.add(12, "alice", 1, ("alice/phone", 3));
        service.add(13, "alice/phone", 2, ("bob", 4));
        if is_replaced {
            service.set(14, "alice/phone", Command::Remove { by: Remover::Key(key(1)) });
            service.set(15, "alice/phone", register(2));
            service.upload_as("alice/phone", 16, "again");
            service.reserve(5, "alice/phone", "alice");
            service.deliver(17, "alice", commit(3, &[("again", 5, "alice")], &[])).unwrap();
        } else {
            service.leave(14, "alice/phone");
        }
        let before = service.waiting("alice/phone");
        service.join(18, "bob");
        assert_eq!(service.answers().last().unwrap(), "bob/main to alice/phone: Joined");
        assert_eq!(service.waiting("alice/phone"), before);
        service.assert_audited();
    }
}

#[test]
fn an_inviter_that_has_blocked_the_invitee_hears_nothing_more_of_it() {
    let service = invited();
    service.block(11, "alice", "bob");
    service.join(12, "bob");
    assert_eq!(service.waiting("alice"), [""; 0]);
    assert_eq!(service.answers(), ["bob/main to alice/main: Joined"], "the log has it");
    service.assert_audited();
}

#[test]
fn an_invitee_that_has_blocked_its_inviter_answers_as_any_other() {
    let service = invited();
    service.block(11, "bob", "alice");
    service.leave(12, "bob");
    assert_eq!(service.waiting("alice"), ["bob/main: Declined"]);
    service.assert_audited();
}

#[test]
fn answers_use_nothing_of_a_budget_and_outlive_what_has_waited_too_long() {
    let service = invited();
    service.deliver(11, "bob", post("hello")).unwrap();
    service.join(12, "bob");
    service.clock.advance(Duration::from_hours(31 * 24));
    block_on(service.pools.accept_clock()).unwrap();
    service.deliver(13, "bob", post("still here?")).unwrap();
    assert_eq!(
        service.waiting("alice"),
        ["bob/main: Joined"],
        "the group is closed, not the answer"
    );
    service.assert_audited();
}

#[test]
fn one_commit_removes_the_dead_leaf_and_adds_the_device_again() {
    // Before it has answered, and after: in MLS its leaf is there in either case.
    for has_failed in [false, true] {
        let service = invited();
        service.add(11, "alice", 1, ("carol", 2));
        service.join(12, "carol");
        if has_failed {
            service.fail(13, "bob", WelcomeFault::KeysGone);
        }
        service.upload_for_bob(14, &["fresh"], START.after(LIFETIME));
        service.reserve(3, "bob", "alice");
        let again = commit(2, &[("fresh", 3, "alice")], &["bob"]);
        let done = service.deliver(15, "alice", again).unwrap();
        assert_eq!(done.not_kept, []);
        assert_eq!(service.waiting("bob"), ["welcome"]);
        let record = |event: &Event| match event {
            Event::Committed { epoch: 2, added, removed, .. } => {
                Some((added.clone(), removed.clone()))
            }
            _ => None,
        };
        let records = service.log.read(1, usize::MAX).unwrap();
        let told = records.iter().find_map(|record_| record(&record_.envelope.event));
        let bob = vec![pool("bob")];
        assert_eq!(told, Some((bob.clone(), bob)), "the others are told of both");
        let service = service.restarted();
        service.join(16, "bob");
        assert_eq!(service.waiting("alice").last().unwrap(), "bob/main: Joined");
        assert_eq!(service.answers().len(), if has_failed { 3 } else { 2 });
        service.assert_audited();
    }
}

#[test]
fn devices_that_are_added_again_are_none_of_the_half_that_one_commit_removes() {
    let service = Service::with(&["bob", "carol"]);
    service.add(10, "alice", 0, ("bob", 1));
    service.add(11, "alice", 1, ("carol", 2));
    for (id, user) in [(12, "bob"), (13, "carol")] {
        service.upload_as(user, id, &format!("fresh {user}"));
    }
    service.reserve(3, "bob", "alice");
    service.reserve(4, "carol", "alice");
    let spends = [("fresh bob", 3, "alice"), ("fresh carol", 4, "alice")];
    service.deliver(14, "alice", commit(2, &spends, &["bob", "carol"])).unwrap();
    assert!(service.is_member("bob") && service.is_member("carol"));
    service.assert_audited();
}
