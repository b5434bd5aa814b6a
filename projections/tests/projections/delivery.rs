//! The delivery: who may post, whose Commit is first, and what waits for whom.

use std::{
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

use keypool_ledger::{
    Clock, CommandId, Event, EventLog, GroupId, Hash, KeyPackageRef, ManualClock, MemoryLog,
};
use keypool_projections::{
    Command, DeliverError, Delivered, DeliveryCommand, DeliveryLimits, DeliveryRejection,
    DeliveryRequest, ExecuteError, Limits, Pools, Progress, Rejection, Target, Welcome,
    audit::{Auditor, Promises},
};
use uuid::Uuid;

use crate::{
    history::{START, claim, group, package, pool, reference},
    pools::{block_on, request, reserve},
};

type Log = Arc<MemoryLog>;

/// A service whose users have a package each, named as they are.
struct Service {
    log: Log,
    clock: Arc<ManualClock>,
    pools: Arc<Pools<Log>>,
}

impl Service {
    fn with(users: &[&str]) -> Self {
        let log = Log::default();
        let clock = Arc::new(ManualClock::at(START));
        let pools = Arc::new(open(&log, &clock, DeliveryLimits::STANDARD));
        let service = Self { log, clock, pools };
        for (id, user) in (1..).zip(users) {
            let upload = Command::Upload(vec![package(user)]);
            let request = request(id, Target::Pool(pool(user)), upload);
            block_on(service.pools.execute(request)).unwrap();
        }
        service
    }

    fn restarted(self) -> Self {
        let Self { log, clock, pools } = self;
        drop(pools);
        let pools = Arc::new(open(&log, &clock, DeliveryLimits::STANDARD));
        Self { log, clock, pools }
    }

    fn deliver(
        &self,
        id: u128,
        caller: &str,
        command: DeliveryCommand,
    ) -> Result<Delivered, DeliverError> {
        block_on(self.pools.deliver(asked(id, caller, command)))
    }

    /// Reserves a user's package, so that it can be used by `caller`.
    fn reserve(&self, number: u8, user: &str, caller: &str) {
        let target = Target::Pool(pool(user));
        let request = request(500 + u128::from(number), target, reserve(number, caller));
        block_on(self.pools.execute(request)).unwrap();
    }

    /// Adds a user by the reservation with that number.
    fn add(&self, id: u128, caller: &str, epoch: u64, (user, number): (&str, u8)) -> Delivered {
        self.reserve(number, user, caller);
        self.deliver(id, caller, add(caller, epoch, user, number)).unwrap()
    }

    /// The auditor, who shares no code with the rules, finds nothing in the log.
    fn assert_audited(&self) {
        let mut auditor = Auditor::new(Promises::STANDARD);
        for record in self.log.read(1, usize::MAX).unwrap() {
            auditor.see(record.seq, &record.envelope);
        }
        assert_eq!(auditor.finish(), []);
    }

    /// The names of what waits for a device, in order, with who sent it.
    fn waiting(&self, device: &str) -> Vec<String> {
        let mailbox = self.pools.mailbox(&pool(device));
        let records =
            mailbox.after(0).flat_map(|waiting| self.log.read(waiting.position, 1).unwrap());
        records
            .map(|record| match &record.envelope.event {
                Event::Committed { epoch, .. } => format!("commit {epoch}"),
                Event::Welcomed { .. } => "welcome".to_owned(),
                _ => String::from_utf8(record.payload).unwrap(),
            })
            .collect()
    }
}

fn open(log: &Log, clock: &Arc<ManualClock>, limits: DeliveryLimits) -> Pools<Log> {
    let clock: Arc<dyn Clock> = clock.clone();
    Pools::open_with(Arc::clone(log), clock, Limits::STANDARD, limits, &Progress::default())
        .unwrap()
}

fn asked(id: u128, caller: &str, command: DeliveryCommand) -> DeliveryRequest {
    let digest = Hash::of(format!("{caller} {command:?}").as_bytes());
    DeliveryRequest { command, caller: pool(caller), id: CommandId(Uuid::from_u128(id)), digest }
}

fn commit(epoch: u64, spends: &[(&str, u8, &str)], removed: &[&str]) -> DeliveryCommand {
    let refs: Vec<KeyPackageRef> = spends.iter().map(|(user, ..)| reference(user)).collect();
    let welcome = Welcome { bytes: b"welcome".to_vec(), keypackage_refs: refs };
    DeliveryCommand::Commit {
        group: g(),
        epoch,
        commit: format!("commit {epoch}").into_bytes(),
        welcomes: if spends.is_empty() { vec![] } else { vec![welcome] },
        spends: spends.iter().map(|(user, number, holder)| claim(user, *number, holder)).collect(),
        removed: removed.iter().map(|device| pool(device)).collect(),
    }
}

fn add(caller: &str, epoch: u64, user: &str, number: u8) -> DeliveryCommand {
    commit(epoch, &[(user, number, caller)], &[])
}

fn post(words: &str) -> DeliveryCommand {
    DeliveryCommand::Post { group: g(), message: words.as_bytes().to_vec() }
}

fn g() -> GroupId {
    group("g")
}

fn refusal(outcome: Result<Delivered, DeliverError>) -> DeliveryRejection {
    match outcome {
        Err(DeliverError::Refused(rejection)) => rejection,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_posted_waits_for_every_other_member_in_order() {
    let service = Service::with(&["bob", "carol"]);
    service.add(10, "alice", 0, ("bob", 1));
    service.deliver(11, "alice", post("one")).unwrap();
    service.deliver(12, "bob", post("two")).unwrap();
    service.add(13, "bob", 1, ("carol", 2));
    service.deliver(14, "alice", post("three")).unwrap();
    let check = |service: &Service| {
        assert_eq!(service.waiting("bob"), ["welcome", "one", "three"]);
        assert_eq!(service.waiting("alice"), ["two", "commit 1"]);
        assert_eq!(service.waiting("carol"), ["welcome", "three"]);
        assert_eq!(service.pools.group(&g()).epoch(), 2);
    };
    check(&service);
    let service = service.restarted();
    check(&service);
    service.assert_audited();
}

#[test]
fn what_is_acknowledged_is_gone_and_nothing_else() {
    let service = Service::with(&["bob"]);
    service.add(10, "alice", 0, ("bob", 1));
    let one = service.deliver(11, "alice", post("one")).unwrap();
    service.deliver(12, "alice", post("two")).unwrap();
    let acknowledge = |through| DeliveryCommand::Acknowledge { through, overrun: false };
    service.deliver(13, "bob", acknowledge(one.position)).unwrap();
    assert_eq!(service.waiting("bob"), ["two"]);
    let written = service.log.head().unwrap();
    service.deliver(14, "bob", acknowledge(one.position)).unwrap();
    service.deliver(13, "bob", acknowledge(one.position)).unwrap();
    assert_eq!(service.log.head().unwrap(), written, "repeating it writes nothing");
    let beyond = refusal(service.deliver(15, "bob", acknowledge(1000)));
    assert_eq!(beyond, DeliveryRejection::NeverGiven(1000));
    assert_eq!(service.restarted().waiting("bob"), ["two"]);
}

#[test]
fn only_members_post_and_a_removed_one_is_told_so_and_nothing_more() {
    let service = Service::with(&["bob"]);
    let unknown = refusal(service.deliver(9, "alice", post("anyone?")));
    assert_eq!(unknown, DeliveryRejection::UnknownGroup(g()));
    service.add(10, "alice", 0, ("bob", 1));
    for (id, command) in [(11, post("psst")), (12, commit(1, &[], &[]))] {
        let refused = refusal(service.deliver(id, "mallory", command));
        assert!(matches!(refused, DeliveryRejection::NotAMember { .. }), "{refused:?}");
    }
    service.deliver(13, "alice", commit(1, &[], &["bob"])).unwrap();
    service.deliver(14, "alice", post("alone at last")).unwrap();
    assert_eq!(service.waiting("bob"), ["welcome", "commit 1"]);
    let refused = refusal(service.deliver(15, "bob", post("hey")));
    assert!(matches!(refused, DeliveryRejection::NotAMember { .. }), "{refused:?}");
    service.assert_audited();
}

#[test]
fn the_first_commit_for_an_epoch_wins() {
    let service = Service::with(&["bob"]);
    service.add(10, "alice", 0, ("bob", 1));
    let start = Arc::new(Barrier::new(16));
    let racers: Vec<_> = (0..16u128)
        .map(|n| {
            let (pools, start) = (Arc::clone(&service.pools), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                let caller = if n % 2 == 0 { "alice" } else { "bob" };
                block_on(pools.deliver(asked(100 + n, caller, commit(1, &[], &[]))))
            })
        })
        .collect();
    let outcomes: Vec<_> = racers.into_iter().map(|racer| racer.join().unwrap()).collect();
    let taken = |outcome: &&Result<Delivered, DeliverError>| {
        matches!(
            outcome,
            Err(DeliverError::Refused(DeliveryRejection::EpochTaken { epoch: 1, current: 2, .. }))
        )
    };
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert_eq!(outcomes.iter().filter(taken).count(), 15);
    let ahead = refusal(service.deliver(200, "alice", commit(7, &[], &[])));
    assert!(matches!(ahead, DeliveryRejection::EpochAhead { current: 2, .. }), "{ahead:?}");
    service.assert_audited();
}

#[test]
fn no_commit_without_its_spend_and_no_spend_without_its_commit() {
    let service = Service::with(&["bob", "carol"]);
    service.reserve(1, "bob", "alice");
    service.clock.advance(Duration::from_mins(2));
    service.reserve(2, "bob", "dave");
    service.reserve(3, "carol", "alice");

    // One of the two packages was handed on: neither is spent, and nobody is added.
    let both = commit(0, &[("carol", 3, "alice"), ("bob", 1, "alice")], &[]);
    for id in [10, 10, 11] {
        let refused = service.deliver(id, "alice", both.clone());
        assert!(
            matches!(
                refused,
                Err(DeliverError::Spend { rejection: Rejection::ReservationLost(_), .. })
            ),
            "{refused:?}"
        );
    }
    assert_eq!(service.pools.group(&g()).version(), 0);
    let carol = service.pools.health(&pool("carol")).unwrap();
    assert_eq!((carol.reserved, carol.spent), (1, 0));
    let records = service.log.read(1, 100).unwrap();
    let conflicts = records.iter().filter(|record| record.envelope.event.name() == "conflict");
    assert_eq!(conflicts.count(), 1);

    // The epoch is taken: the package is not spent.
    service.deliver(12, "alice", commit(0, &[], &[])).unwrap();
    refusal(service.deliver(13, "alice", add("alice", 0, "carol", 3)));
    assert_eq!(service.pools.health(&pool("carol")).unwrap().spent, 0);
    service.deliver(14, "alice", add("alice", 1, "carol", 3)).unwrap();
    assert_eq!(service.pools.health(&pool("carol")).unwrap().spent, 1);
    assert_eq!(service.waiting("carol"), ["welcome"]);
    service.assert_audited();
}

#[test]
fn welcomes_are_for_exactly_the_packages_that_are_spent() {
    let service = Service::with(&["bob", "carol"]);
    service.reserve(1, "bob", "alice");
    let DeliveryCommand::Commit { group, epoch, commit, spends, removed, .. } =
        add("alice", 0, "bob", 1)
    else {
        panic!("not a commit");
    };
    let welcome = |users: &[&str]| Welcome {
        bytes: b"welcome".to_vec(),
        keypackage_refs: users.iter().map(|user| reference(user)).collect(),
    };
    for (id, welcomes) in [(10, vec![]), (11, vec![welcome(&["bob", "carol"])])] {
        let (group, commit) = (group.clone(), commit.clone());
        let (spends, removed) = (spends.clone(), removed.clone());
        let command = DeliveryCommand::Commit { group, epoch, commit, welcomes, spends, removed };
        let refused = refusal(service.deliver(id, "alice", command));
        assert_eq!(refused, DeliveryRejection::WelcomeMismatch);
    }
    service.assert_audited();
}

#[test]
fn a_repeated_request_gets_its_old_answer() {
    let service = Service::with(&["bob"]);
    let added = service.add(10, "alice", 0, ("bob", 1));
    let said = service.deliver(11, "alice", post("one")).unwrap();
    service.deliver(12, "alice", commit(1, &[], &[])).unwrap();
    let service = service.restarted();
    assert_eq!(service.deliver(10, "alice", add("alice", 0, "bob", 1)).unwrap(), added);
    assert_eq!(service.deliver(11, "alice", post("one")).unwrap().position, said.position);
    let other = service.deliver(11, "alice", post("another"));
    assert!(
        matches!(other, Err(DeliverError::Execute(ExecuteError::IdempotencyMismatch(_)))),
        "{other:?}"
    );
    service.assert_audited();
}

#[test]
fn a_mailbox_over_its_limits_says_so_and_keeps_what_it_has() {
    let service = Service::with(&["bob"]);
    service.add(10, "alice", 0, ("bob", 1));
    let Service { log, clock, pools } = service;
    drop(pools);
    let limits = DeliveryLimits { messages_max: 2, ..DeliveryLimits::STANDARD };
    let pools = Arc::new(open(&log, &clock, limits));
    let service = Service { log, clock, pools };
    for (id, words) in [(11, "one"), (12, "two"), (13, "three")] {
        service.deliver(id, "alice", post(words)).unwrap();
    }
    assert_eq!(service.waiting("bob"), ["welcome", "one"]);
    let bob = || service.pools.mailbox(&pool("bob"));
    assert!(bob().is_overrun());
    let through = bob().after(0).last().unwrap().position;
    let acknowledge = |overrun| DeliveryCommand::Acknowledge { through, overrun };
    service.deliver(14, "bob", acknowledge(false)).unwrap();
    assert!(bob().is_overrun(), "the device has not been told yet");
    service.deliver(16, "bob", acknowledge(true)).unwrap();
    assert!(!bob().is_overrun());
    service.deliver(15, "alice", post("four")).unwrap();
    assert_eq!(service.waiting("bob"), ["four"]);
    service.assert_audited();
}

#[test]
fn what_waited_too_long_is_not_kept_and_that_is_said() {
    let service = Service::with(&["bob"]);
    service.add(10, "alice", 0, ("bob", 1));
    for hour in 1..=720u128 {
        service.clock.advance(Duration::from_hours(1));
        service.deliver(1000 + hour, "alice", post(&hour.to_string())).unwrap();
    }
    assert!(service.pools.mailbox(&pool("bob")).is_overrun());
    assert_eq!(service.waiting("bob").first().map(String::as_str), Some("1"));
    service.assert_audited();
}
