//! Which payloads may leave a log: those that nobody asks for any more, and those of a user who is erased.

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use keypool_ledger::{
    Event, EventEnvelope, PackageFacts, PoolId, ReleaseReason, RevokeReason, StreamId, SubjectId,
    Timestamp,
};
use keypool_projections::{
    erasure::{ErasurePlan, UserErasure},
    retention::{
        PackageEnd, PackageLifetime, RETENTION_MIN, Retention, allows_delivered, is_delivered,
    },
};

use crate::history::{START, envelope, group, package, pool, reference, reservation};

const DAY: Duration = Duration::from_hours(24);

fn days(count: u32) -> Timestamp {
    START.after(DAY * count)
}

/// A log under way: the number of its last record, and the readers.
#[derive(Default)]
struct Log {
    seq: u64,
    retention: Retention,
}

impl Log {
    fn see(&mut self, stream: StreamId, event: Event, at: Timestamp, has_payload: bool) {
        self.seq += 1;
        let envelope = EventEnvelope { stream, ..envelope(self.seq, pool("bob"), event, at) };
        self.retention.see(self.seq, &envelope, has_payload);
    }

    fn in_pool(&mut self, event: Event, at: Timestamp) {
        self.see(StreamId::Pool(pool("bob")), event, at, true);
    }

    fn in_group(&mut self, event: Event, at: Timestamp) {
        self.see(StreamId::Group(group("g")), event, at, true);
    }

    fn prunable(&self, keep: Duration) -> BTreeSet<u64> {
        self.retention.prunable(keep).into_iter().collect()
    }

    /// Nothing more happens until a day.
    fn wait_until(&mut self, at: Timestamp) {
        self.see(StreamId::Server, Event::ClockAccepted { from: at, to: at }, at, false);
    }
}

/// A package that lives for ten days.
fn uploaded(name: &str) -> Event {
    Event::Uploaded(PackageFacts { not_after: days(10), ..package(name).facts })
}

fn spent(name: &str) -> Event {
    Event::Spent {
        keypackage_ref: reference(name),
        reservation: None,
        holder: None,
        group: group("g"),
        late: false,
    }
}

fn revoked(name: &str) -> Event {
    let (keypackage_ref, reason) = (reference(name), RevokeReason::Withdrawn);
    Event::Revoked { keypackage_ref, reason, check: None }
}

#[test]
fn a_package_ends_by_its_spend_its_lifetime_or_a_day_after_its_withdrawal() {
    let lifetime = |last_resort| PackageLifetime { not_after: days(10), last_resort };
    let end = |event: &Event, last_resort| PackageEnd::by(event, days(2), lifetime(last_resort));
    let expired = Event::Expired { keypackage_ref: reference("a") };
    let released = Event::Released {
        keypackage_ref: reference("a"),
        reservation: reservation(1),
        reason: ReleaseReason::Cancelled,
    };
    assert_eq!([uploaded("a"), released].map(|event| end(&event, false)), [None, None]);
    assert_eq!(end(&spent("a"), true), None, "a last resort is never used up");
    for ended in [end(&expired, false), end(&expired, true), end(&spent("a"), false)] {
        let allows = |at, keep| ended.unwrap().allows(at, keep);
        assert!(allows(days(2), Duration::ZERO) && allows(days(3), DAY));
        assert!(!allows(days(3).before(Duration::from_millis(1)), DAY));
    }
    // The bytes of a withdrawn package are asked for until its lifetime is over, and stay a day more.
    let withdrawn = end(&revoked("a"), false).unwrap();
    assert!(withdrawn.allows(days(11), Duration::ZERO) && withdrawn.allows(days(12), DAY * 2));
    assert!(!withdrawn.allows(days(11).before(Duration::from_millis(1)), Duration::ZERO));
    let late = PackageEnd::by(&revoked("a"), days(20), lifetime(false)).unwrap();
    assert!(!late.allows(days(20), Duration::ZERO) && late.allows(days(21), Duration::ZERO));
}

#[test]
fn payloads_of_packages_go_when_nobody_asks_for_them() {
    let mut log = Log::default();
    for name in ["a", "b", "c", "d"] {
        log.in_pool(uploaded(name), days(0));
    }
    log.see(StreamId::Pool(pool("bob")), uploaded("e"), days(0), false);
    log.in_pool(spent("a"), days(1));
    log.in_pool(revoked("b"), days(1));
    log.in_pool(revoked("c"), days(1));
    // It was in somebody's hands; the spend ends it sooner than its withdrawal.
    log.in_pool(spent("c"), days(1));
    log.in_pool(spent("e"), days(1));
    assert_eq!(log.prunable(Duration::ZERO), BTreeSet::from([1, 3]));
    assert_eq!(log.prunable(DAY), BTreeSet::new(), "the log ends as they do");
    log.wait_until(days(2));
    assert_eq!(log.prunable(DAY), BTreeSet::from([1, 3]));
    log.wait_until(days(11));
    assert_eq!(log.prunable(DAY), BTreeSet::from([1, 2, 3]), "and a day after its lifetime");
    // A record that is dated earlier sets no clock back.
    log.wait_until(days(1));
    assert_eq!(log.prunable(DAY), BTreeSet::from([1, 2, 3]));
}

#[test]
fn payloads_of_messages_go_a_day_after_nobody_waits_for_them() {
    let (alice, bob) = (pool("alice"), pool("bob"));
    let mut log = Log::default();
    log.in_group(Event::GroupMade { creator: alice.clone() }, days(0));
    log.in_group(
        Event::Committed {
            epoch: 0,
            committer: alice.clone(),
            added: vec![bob.clone()],
            removed: Vec::new(),
            not_kept: Vec::new(),
        },
        days(0),
    );
    log.in_group(Event::Welcomed { to: vec![bob.clone()], by: None }, days(0));
    log.in_group(Event::Posted { sender: alice.clone(), not_kept: Vec::new() }, days(0));
    let unread = Event::Posted { sender: alice, not_kept: Vec::new() };
    log.see(StreamId::Group(group("g")), unread, days(0), false);
    log.wait_until(days(5));
    assert_eq!(log.prunable(Duration::ZERO), BTreeSet::from([2]), "nobody waits for the Commit");
    let acknowledged = |through| Event::Acknowledged {
        through,
        overrun: false,
        accepted: Vec::new(),
        told: Vec::new(),
        available: Vec::new(),
    };
    log.see(StreamId::Mailbox(bob.clone()), acknowledged(3), days(5), false);
    assert_eq!(log.prunable(DAY * 5), BTreeSet::from([2, 3]));
    log.see(StreamId::Mailbox(bob), acknowledged(5), days(5), false);
    assert_eq!(log.prunable(DAY * 5), BTreeSet::from([2, 3, 4]), "one has no payload");
    assert_eq!(log.prunable(DAY * 6), BTreeSet::new());
}

#[test]
fn a_delivered_payload_stays_for_a_day_at_least() {
    let allows =
        |hours, keep| allows_delivered(days(1), days(1).after(Duration::from_hours(hours)), keep);
    assert_eq!([23, 24].map(|hours| allows(hours, Duration::ZERO)), [false, true]);
    assert_eq!([47, 48].map(|hours| allows(hours, DAY * 2)), [false, true]);
    assert_eq!(RETENTION_MIN, DAY);
    let delivered = [
        Event::Committed {
            epoch: 0,
            committer: pool("alice"),
            added: Vec::new(),
            removed: Vec::new(),
            not_kept: Vec::new(),
        },
        Event::Welcomed { to: Vec::new(), by: None },
        Event::Posted { sender: pool("alice"), not_kept: Vec::new() },
    ];
    assert!(delivered.iter().all(is_delivered));
    assert!(!is_delivered(&Event::GroupMade { creator: pool("alice") }));
    assert!(!is_delivered(&uploaded("a")));
}

/// The ids of two users in a log that hides names, and a device of each.
fn hidden(number: u8) -> (SubjectId, PoolId) {
    let id = SubjectId::from_bytes([number; 16]);
    (id, id.device(1))
}

#[test]
fn the_payloads_that_name_an_erased_user_go_but_for_those_that_others_wait_for() {
    let ((alice_id, alice), (bob_id, bob)) = (hidden(1), hidden(2));
    let committed = Event::Committed {
        epoch: 0,
        committer: alice.clone(),
        added: vec![bob.clone()],
        removed: Vec::new(),
        not_kept: Vec::new(),
    };
    let posted = |sender: &PoolId| Event::Posted { sender: sender.clone(), not_kept: Vec::new() };
    let in_group = || StreamId::Group(group("g"));
    let records = [
        (StreamId::Names(alice_id), Event::UserNamed {}, true),
        (StreamId::Names(bob_id), Event::UserNamed {}, true),
        (StreamId::Pool(alice.clone()), uploaded("a"), true),
        (StreamId::Pool(alice.clone()), uploaded("b"), false),
        (StreamId::Pool(bob.clone()), uploaded("c"), true),
        (in_group(), Event::GroupMade { creator: alice.clone() }, true),
        (in_group(), committed, true),
        (in_group(), posted(&bob), true),
        (in_group(), posted(&alice), true),
        (StreamId::Mailbox(alice), Event::AwaitStopped { targets: Vec::new() }, true),
        (StreamId::Names(bob_id), Event::UserErased {}, false),
    ];
    let plan = |users: &[SubjectId]| {
        let mut erasure = UserErasure::of(users.iter().copied().collect());
        for (seq, (stream, event, has_payload)) in (1..).zip(records.clone()) {
            let of = EventEnvelope { stream, ..envelope(seq, pool("x"), event, days(0)) };
            erasure.see(seq, &of, has_payload);
        }
        erasure.plan()
    };
    // The message waits for bob, and the Commit that adds him for nobody.
    let expected = ErasurePlan {
        due: BTreeSet::from([1, 3, 7, 10]),
        waiting: 1,
        unsaid: HashSet::from([alice_id]),
    };
    assert_eq!(plan(&[alice_id]), expected);
    // Bob's message waits for alice, and names him.
    let expected =
        ErasurePlan { due: BTreeSet::from([2, 5, 7]), waiting: 1, unsaid: HashSet::new() };
    assert_eq!(plan(&[bob_id]), expected, "his history says so already");
    assert_eq!(plan(&[]), ErasurePlan::default());
}
