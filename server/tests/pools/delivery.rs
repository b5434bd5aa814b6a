//! The delivery: who may post, whose Commit is first, and what waits for whom.

use std::{
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

use keypool_auditor::invariants::{Auditor, InvariantParams};
use keypool_ledger::{
    Clock, CommandId, Event, EventLog, GroupId, Hash, KeyPackageRef, ManualClock, MemoryLog,
    PackageFacts, PoolId, SignatureKey, Timestamp,
};
use keypool_projections::{
    Acknowledgement, Command, DeliveryLimits, DeliveryRejection, Limits, NewPackage, Rejection,
    Remover,
};
use keypool_server::pools::{
    DeliverError, Delivered, DeliveryCommand, DeliveryRequest, ExecuteError, Pools, Progress,
    Target, Welcome,
};
use uuid::Uuid;

use crate::{
    history::{LIFETIME, START, claim, group, package, pool, reference, reservation},
    service::{block_on, request, reserve},
};

pub(crate) type Log = Arc<MemoryLog>;

/// A service whose users have a package each, named as they are.
pub(crate) struct Service {
    pub(crate) log: Log,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) pools: Arc<Pools<Log>>,
}

impl Service {
    pub(crate) fn new(limits: DeliveryLimits) -> Self {
        Self::on(Log::default(), Arc::new(ManualClock::at(START)), limits)
    }

    pub(crate) fn on(log: Log, clock: Arc<ManualClock>, limits: DeliveryLimits) -> Self {
        let pools = Arc::new(open(&log, &clock, limits));
        Self { log, clock, pools }
    }

    pub(crate) fn with(users: &[&str]) -> Self {
        let service = Self::new(DeliveryLimits::STANDARD);
        service.deliver(400, "alice", DeliveryCommand::Make { group: g() }).unwrap();
        for (id, user) in (1..).zip(users) {
            let upload = Command::Upload(vec![package(user)]);
            let request = request(id, Target::Pool(pool(user)), upload);
            block_on(service.pools.execute(request)).unwrap();
        }
        service
    }

    pub(crate) fn restarted(self) -> Self {
        let Self { log, clock, pools } = self;
        drop(pools);
        Self::on(log, clock, DeliveryLimits::STANDARD)
    }

    pub(crate) fn deliver(
        &self,
        id: u128,
        caller: &str,
        command: DeliveryCommand,
    ) -> Result<Delivered, DeliverError> {
        block_on(self.pools.deliver(asked(id, caller, command)))
    }

    /// Reserves a user's package, so that it can be used by `caller`.
    pub(crate) fn reserve(&self, number: u8, user: &str, caller: &str) {
        let target = Target::Pool(pool(user));
        let request = request(500 + u128::from(number), target, reserve(number, caller));
        block_on(self.pools.execute(request)).unwrap();
    }

    /// Adds a user by the reservation with that number.
    pub(crate) fn add(
        &self,
        id: u128,
        caller: &str,
        epoch: u64,
        (user, number): (&str, u8),
    ) -> Delivered {
        self.reserve(number, user, caller);
        self.deliver(id, caller, add(caller, epoch, user, number)).unwrap()
    }

    /// The auditor, who shares no code with the rules, finds nothing in the log.
    pub(crate) fn assert_audited(&self) {
        let mut auditor = Auditor::new(InvariantParams::STANDARD);
        for record in self.log.read(1, usize::MAX).unwrap() {
            auditor.see(record.seq, &record.envelope);
        }
        assert_eq!(auditor.finish(), []);
    }

    /// The names of what waits for a device, in order, with who sent it.
    pub(crate) fn waiting(&self, device: &str) -> Vec<String> {
        let mailbox = self.pools.mailbox(&pool(device));
        let records =
            mailbox.after(0).flat_map(|waiting| self.log.read(waiting.position, 1).unwrap());
        records
            .map(|record| match &record.envelope.event {
                Event::Committed { epoch, .. } => format!("commit {epoch}"),
                Event::Welcomed { .. } => "welcome".to_owned(),
                Event::InvitationAnswered { device, answer, .. } => format!("{device}: {answer:?}"),
                _ => String::from_utf8(record.payload).unwrap(),
            })
            .collect()
    }
}

fn open(log: &Log, clock: &Arc<ManualClock>, limits: DeliveryLimits) -> Pools<Log> {
    let clock: Arc<dyn Clock> = clock.clone();
    let (snapshots, progress) = (Arc::clone(log), Progress::default());
    Pools::open_with(Arc::clone(log), snapshots, clock, Limits::STANDARD, limits, &progress)
        .unwrap()
}

pub(crate) fn asked(id: u128, caller: &str, command: DeliveryCommand) -> DeliveryRequest {
    let digest = Hash::of(format!("{caller} {command:?}").as_bytes());
    DeliveryRequest { command, caller: pool(caller), id: CommandId(Uuid::from_u128(id)), digest }
}

pub(crate) fn commit(epoch: u64, spends: &[(&str, u8, &str)], removed: &[&str]) -> DeliveryCommand {
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

pub(crate) fn add(caller: &str, epoch: u64, user: &str, number: u8) -> DeliveryCommand {
    commit(epoch, &[(user, number, caller)], &[])
}

fn acknowledgement(through: u64) -> DeliveryCommand {
    DeliveryCommand::Acknowledge(Acknowledgement { through, ..Acknowledgement::default() })
}

pub(crate) fn post(words: &str) -> DeliveryCommand {
    DeliveryCommand::Post { group: g(), message: words.as_bytes().to_vec() }
}

pub(crate) fn g() -> GroupId {
    group("g")
}

pub(crate) fn refusal(outcome: Result<Delivered, DeliverError>) -> DeliveryRejection {
    match outcome {
        Err(DeliverError::Refused(rejection) | DeliverError::Invitee { rejection, .. }) => {
            rejection
        }
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
    let acknowledge = |through| acknowledgement(through);
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
    let other = DeliveryCommand::Post { group: group("other"), message: b"anyone?".to_vec() };
    let unknown = refusal(service.deliver(9, "alice", other));
    assert_eq!(unknown, DeliveryRejection::UnknownGroup(group("other")));
    service.add(10, "alice", 0, ("bob", 1));
    service.join(16, "bob");
    for (id, command) in [(11, post("psst")), (12, commit(1, &[], &[]))] {
        let refused = refusal(service.deliver(id, "mallory", command));
        assert!(matches!(refused, DeliveryRejection::NotAMember { .. }), "{refused:?}");
    }
    service.deliver(13, "alice", commit(1, &[], &["bob"])).unwrap();
    service.deliver(14, "alice", post("alone at last")).unwrap();
    assert_eq!(service.waiting("bob"), ["commit 1"]);
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
    let target = Target::Pool(pool("bob"));
    let command = Command::Reserve {
        reservation: reservation(2),
        holder: pool("dave"),
        group: group("another"),
        ciphersuites: Vec::new(),
        required: keypool_projections::RequiredCapabilities::default(),
        introduced: false,
        last_resort_only: false,
    };
    block_on(service.pools.execute(request(502, target, command))).unwrap();
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
    assert_eq!(service.pools.group(&g()).version(), 1, "it is made, and no more");
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
    let again = service.deliver(10, "alice", add("alice", 0, "bob", 1)).unwrap();
    assert!(!added.repeated && again.repeated, "it is to be counted once");
    assert_eq!(again, Delivered { repeated: true, ..added });
    let again = service.deliver(11, "alice", post("one")).unwrap();
    assert_eq!((again.position, again.repeated), (said.position, true));
    let other = service.deliver(11, "alice", post("another"));
    assert!(
        matches!(other, Err(DeliverError::Execute(ExecuteError::IdempotencyMismatch(_)))),
        "{other:?}"
    );
    service.assert_audited();
}

impl Service {
    /// The same service with other limits.
    pub(crate) fn limited(self, limits: DeliveryLimits) -> Self {
        let Self { log, clock, pools } = self;
        drop(pools);
        Self::on(log, clock, limits)
    }

    /// Acknowledges everything that waits for a device, and that it has joined the group.
    pub(crate) fn join(&self, id: u128, device: &str) {
        let last = self.pools.mailbox(&pool(device)).after(0).last().map(|last| last.position);
        let acknowledgement = Acknowledgement {
            through: last.unwrap_or_default(),
            accepted: vec![g()],
            ..Acknowledgement::default()
        };
        self.deliver(id, device, DeliveryCommand::Acknowledge(acknowledgement)).unwrap();
    }

    /// Uploads packages of bob's that live so long.
    pub(crate) fn upload_for_bob(&self, id: u128, names: &[&str], not_after: Timestamp) {
        let packages = names.iter().map(|name| {
            let NewPackage { facts, bytes, leaf_key } = package(name);
            NewPackage { facts: PackageFacts { not_after, ..facts }, bytes, leaf_key }
        });
        let command = Command::Upload(packages.collect());
        block_on(self.pools.execute(request(id, Target::Pool(pool("bob")), command))).unwrap();
    }

    /// Uploads a package of a device.
    pub(crate) fn upload_as(&self, device: &str, id: u128, name: &str) {
        let command = Command::Upload(vec![package(name)]);
        block_on(self.pools.execute(request(id, Target::Pool(pool(device)), command))).unwrap();
    }

    /// Makes the group `g{n}` and adds bob to it by his package `p{n}`.
    pub(crate) fn invite_bob(&self, n: u8, inviter: &str) -> Result<Delivered, DeliverError> {
        let id = 600 + 10 * u128::from(n);
        let into = group(&format!("g{n}"));
        self.deliver(id, inviter, DeliveryCommand::Make { group: into.clone() }).unwrap();
        let reserve = Command::Reserve {
            reservation: reservation(100 + n),
            holder: pool(inviter),
            group: into.clone(),
            ciphersuites: Vec::new(),
            required: keypool_projections::RequiredCapabilities::default(),
            introduced: false,
            last_resort_only: false,
        };
        let reserved = request(id + 1, Target::Pool(pool("bob")), reserve);
        block_on(self.pools.execute(reserved)).unwrap();
        let name = format!("p{n}");
        let spends = vec![claim(&name, 100 + n, inviter)];
        let welcomes =
            vec![Welcome { bytes: b"welcome".to_vec(), keypackage_refs: vec![reference(&name)] }];
        let command = DeliveryCommand::Commit {
            group: into,
            epoch: 0,
            commit: b"commit".to_vec(),
            welcomes,
            spends,
            removed: Vec::new(),
        };
        self.deliver(id + 2, inviter, command)
    }

    fn closed(&self, device: &str) -> Vec<(GroupId, Option<PoolId>)> {
        let mailbox = self.pools.mailbox(&pool(device));
        mailbox.closed().map(|closed| (closed.group, closed.sender)).collect()
    }
}

pub(crate) const SMALL: DeliveryLimits = DeliveryLimits {
    group_messages_max: 4,
    invited_messages_max: 2,
    invitations_max: 3,
    invitations_of_user_max: 2,
    ..DeliveryLimits::STANDARD
};

#[test]
fn a_group_over_its_budget_is_closed_and_costs_no_other_a_message() {
    let service = Service::with(&["bob", "carol"]).limited(SMALL);
    service.add(10, "alice", 0, ("bob", 1));
    service.join(11, "bob");
    service.add(12, "alice", 1, ("carol", 2));
    service.join(13, "carol");
    // The Commit that added carol waits for bob, and two of alice's messages: half of four.
    for (id, words) in [(14, "one"), (15, "two")] {
        assert!(service.deliver(id, "alice", post(words)).unwrap().not_kept.is_empty());
    }
    let third = service.deliver(16, "alice", post("three")).unwrap();
    assert_eq!(third.not_kept, [pool("bob"), pool("carol")], "alice has had her share");
    assert_eq!(service.closed("bob"), [(g(), Some(pool("alice")))]);
    assert!(service.deliver(17, "carol", post("mine")).unwrap().not_kept.is_empty());
    let full = service.deliver(18, "carol", commit(2, &[], &[])).unwrap();
    assert_eq!(full.not_kept, [pool("bob")], "one Commit, two messages and carol's are four");
    assert_eq!(service.waiting("bob"), ["commit 1", "one", "two", "mine"]);
    let again = service.deliver(18, "carol", commit(2, &[], &[])).unwrap();
    assert_eq!(again, Delivered { repeated: true, ..full });

    // Another group has a budget of its own.
    let other = || group("other");
    service.deliver(20, "dave", DeliveryCommand::Make { group: other() }).unwrap();
    let upload = Command::Upload(vec![package("b2")]);
    block_on(service.pools.execute(request(21, Target::Pool(pool("bob")), upload))).unwrap();
    let reserve = Command::Reserve {
        reservation: reservation(9),
        holder: pool("dave"),
        group: other(),
        ciphersuites: Vec::new(),
        required: keypool_projections::RequiredCapabilities::default(),
        introduced: false,
        last_resort_only: false,
    };
    block_on(service.pools.execute(request(22, Target::Pool(pool("bob")), reserve))).unwrap();
    let welcome = Welcome { bytes: b"welcome".to_vec(), keypackage_refs: vec![reference("b2")] };
    let add = DeliveryCommand::Commit {
        group: other(),
        epoch: 0,
        commit: b"commit".to_vec(),
        welcomes: vec![welcome],
        spends: vec![claim("b2", 9, "dave")],
        removed: Vec::new(),
    };
    service.deliver(23, "dave", add).unwrap();
    assert_eq!(service.waiting("bob").last().map(String::as_str), Some("welcome"));

    // It is open again once its device was told, and not before.
    let last = service.pools.mailbox(&pool("bob")).after(0).last().unwrap().position;
    service.deliver(24, "bob", acknowledgement(last)).unwrap();
    let closed = service.deliver(25, "alice", post("lost")).unwrap();
    assert_eq!(closed.not_kept, [pool("bob"), pool("carol")]);
    let told = Acknowledgement { told: vec![g()], ..Acknowledgement::default() };
    service.deliver(26, "bob", DeliveryCommand::Acknowledge(told)).unwrap();
    let service = service.restarted();
    assert_eq!(service.closed("bob"), []);
    service.deliver(27, "alice", post("heard")).unwrap();
    assert_eq!(service.waiting("bob"), ["heard"]);
    service.assert_audited();
}

#[test]
fn a_message_that_waited_too_long_is_dropped_and_that_is_told() {
    let service = Service::with(&["bob"]);
    service.add(10, "alice", 0, ("bob", 1));
    service.join(11, "bob");
    service.deliver(12, "alice", post("old")).unwrap();
    service.clock.advance(Duration::from_hours(400));
    block_on(service.pools.accept_clock()).unwrap();
    service.deliver(13, "alice", post("newer")).unwrap();
    service.clock.advance(Duration::from_hours(400));
    block_on(service.pools.accept_clock()).unwrap();
    let late = service.deliver(14, "alice", post("too late")).unwrap();
    assert_eq!(late.not_kept, [pool("bob")]);
    assert_eq!(service.waiting("bob"), ["newer"]);
    assert_eq!(service.closed("bob"), [(g(), None)]);
    service.assert_audited();
}

#[test]
fn until_a_device_has_accepted_a_group_little_of_it_waits() {
    let service = Service::with(&["bob"]).limited(SMALL);
    service.add(10, "alice", 0, ("bob", 1));
    service.deliver(11, "alice", post("one")).unwrap();
    let second = service.deliver(12, "alice", post("two")).unwrap();
    assert_eq!(second.not_kept, [pool("bob")], "one message of a sender, of two in all");
    assert_eq!(service.waiting("bob"), ["welcome", "one"]);
    // Speaking in a group accepts it as well.
    service.deliver(13, "bob", post("hello")).unwrap();
    assert_eq!(service.pools.mailbox(&pool("bob")).after(0).count(), 2);
    let told = Acknowledgement { told: vec![g()], ..Acknowledgement::default() };
    service.deliver(14, "bob", DeliveryCommand::Acknowledge(told)).unwrap();
    service.deliver(15, "alice", post("three")).unwrap();
    assert_eq!(service.waiting("bob"), ["welcome", "one", "three"]);
    service.assert_audited();
}

#[test]
fn a_group_that_nobody_accepts_ends_after_a_week() {
    let service = Service::with(&["bob"]);
    service.add(10, "alice", 0, ("bob", 1));
    service.clock.advance(Duration::from_hours(7 * 24));
    block_on(service.pools.accept_clock()).unwrap();
    let posted = service.deliver(11, "alice", post("anyone?")).unwrap();
    let last = service.log.read(posted.position, 10).unwrap();
    let names: Vec<_> = last.iter().map(|record| record.envelope.event.name()).collect();
    assert_eq!(names, ["left"], "nothing is stored for nobody");
    assert!(!service.pools.group(&g()).has_member(&pool("bob")));
    let alone = service.deliver(12, "alice", post("anyone else?")).unwrap();
    assert_eq!(alone.position, 0, "nothing is stored for nobody");
    let service = service.restarted();
    assert_eq!(service.waiting("bob"), [""; 0]);
    service.assert_audited();
}

#[test]
fn a_stranger_cannot_fill_the_invitations_of_a_device() {
    let users: Vec<String> = (0..8).map(|n| format!("u{n}")).collect();
    let service = Service::with(&users.iter().map(String::as_str).collect::<Vec<_>>());
    let service = service.limited(SMALL);
    service.upload_for_bob(50, &["p0", "p1", "p2", "p3", "p4", "p5"], START.after(LIFETIME));
    let invite = |n, inviter| service.invite_bob(n, inviter);
    invite(0, "mallory/a").unwrap();
    invite(1, "mallory/b").unwrap();
    let refused = refusal(invite(2, "mallory/a"));
    assert_eq!(refused, DeliveryRejection::InvitationsFull(pool("bob")), "two of one user");
    invite(3, "carol").unwrap();
    let refused = refusal(invite(4, "dave"));
    assert_eq!(refused, DeliveryRejection::InvitationsFull(pool("bob")), "three in all");
    service.assert_audited();
}

#[test]
fn a_device_that_has_left_gets_no_more_and_is_added_by_another_spend_only() {
    let service = Service::with(&["bob"]);
    service.add(10, "alice", 0, ("bob", 1));
    service.deliver(11, "alice", post("one")).unwrap();
    service.deliver(12, "bob", DeliveryCommand::Leave { group: g() }).unwrap();
    assert_eq!(service.waiting("bob"), [""; 0]);
    service.deliver(13, "alice", post("two")).unwrap();
    assert_eq!(service.waiting("bob"), [""; 0]);
    // The spend of before adds nobody, in whatever Commit it comes again.
    let again = service.deliver(14, "alice", add("alice", 1, "bob", 1));
    assert!(
        matches!(again, Err(DeliverError::Spend { rejection: Rejection::AlreadySpent(_), .. })),
        "{again:?}"
    );
    let left = service.deliver(15, "bob", DeliveryCommand::Leave { group: g() }).unwrap();
    assert_eq!(left.position, 0, "there is nothing to leave");
    service.assert_audited();
}

#[test]
fn a_group_is_its_makers_and_its_members_to_invite_to() {
    let service = Service::with(&["bob", "carol"]);
    let taken = refusal(service.deliver(9, "bob", DeliveryCommand::Make { group: g() }));
    assert_eq!(taken, DeliveryRejection::GroupExists(g()));
    // Bob has seen the id in the reservation, and is no member yet.
    let target = Target::Pool(pool("carol"));
    let refused = block_on(service.pools.execute(request(20, target, reserve(5, "bob"))));
    assert!(
        matches!(refused, Err(ExecuteError::Rejected(Rejection::NotAMember { .. }))),
        "{refused:?}"
    );
    let unmade = DeliveryCommand::Commit {
        group: group("unmade"),
        epoch: 0,
        commit: b"commit".to_vec(),
        welcomes: Vec::new(),
        spends: Vec::new(),
        removed: Vec::new(),
    };
    let unknown = refusal(service.deliver(21, "bob", unmade));
    assert_eq!(unknown, DeliveryRejection::UnknownGroup(group("unmade")));
}

#[test]
fn one_commit_removes_half_of_the_others_at_most() {
    let users = ["u1", "u2", "u3", "u4"];
    let service = Service::with(&users);
    for (n, user) in (1..).zip(users) {
        service.add(10 + u128::from(n), "alice", u64::from(n) - 1, (user, n));
    }
    let all = refusal(service.deliver(20, "u1", commit(4, &[], &["alice", "u2", "u3"])));
    assert_eq!(all, DeliveryRejection::RemovesTooMany { max: 2 });
    service.deliver(21, "u1", commit(4, &[], &["alice", "u2"])).unwrap();
    service.deliver(22, "u1", commit(5, &[], &["u3"])).unwrap();
    let last = refusal(service.deliver(23, "u1", commit(u64::MAX, &[], &[])));
    assert!(matches!(last, DeliveryRejection::EpochAhead { .. }), "{last:?}");
    service.assert_audited();
}

#[test]
fn a_removed_device_is_in_no_group_and_its_mailbox_is_closed_for_whoever_comes_after() {
    let service = Service::with(&[]);
    let key = |n: u8| SignatureKey::new(&[n; 32]).unwrap();
    let target = || Target::Pool(pool("bob"));
    let execute = |id, command| block_on(service.pools.execute(request(id, target(), command)));
    let admit = |n| Command::Admit {
        signature_key: key(n),
        credential: "bob".to_owned(),
        statement: None,
        frontend: None,
    };
    execute(30, admit(1)).unwrap();
    execute(29, Command::Upload(vec![package("bob")])).unwrap();
    service.add(10, "alice", 0, ("bob", 1));
    service.join(11, "bob");
    service.deliver(12, "alice", post("for bob's eyes")).unwrap();
    execute(31, Command::Remove { by: Remover::Key(key(1)) }).unwrap();
    execute(32, admit(2)).unwrap();
    assert_eq!(service.waiting("bob"), [""; 0]);
    assert!(!service.pools.group(&g()).has_member(&pool("bob")));
    service.deliver(13, "alice", post("nor this")).unwrap();
    let refused = refusal(service.deliver(14, "bob", post("hey")));
    assert!(matches!(refused, DeliveryRejection::NotAMember { .. }), "{refused:?}");
    let service = service.restarted();
    assert_eq!(service.waiting("bob"), [""; 0]);
    assert!(!service.pools.group(&g()).has_member(&pool("bob")));
    service.assert_audited();
}

#[test]
fn a_commit_removes_members_and_no_other_name_is_recorded() {
    let service = Service::with(&["bob"]);
    service.add(10, "alice", 0, ("bob", 1));
    let named = ["bob", "bob", "nobody", "x/y"];
    service.deliver(11, "alice", commit(1, &[], &named)).unwrap();
    let last = service.log.read(1, usize::MAX).unwrap().pop().unwrap();
    let Event::Committed { removed, .. } = last.envelope.event else { panic!("no Commit") };
    assert_eq!(removed, [pool("bob")]);
    let itself = refusal(service.deliver(12, "alice", commit(2, &[], &["alice"])));
    assert_eq!(itself, DeliveryRejection::RemovesItself(pool("alice")));
}

#[test]
fn a_package_of_a_device_that_was_removed_adds_nobody_who_has_its_name_since() {
    let service = Service::with(&[]);
    let key = |n: u8| SignatureKey::new(&[n; 32]).unwrap();
    let execute = |id, command| {
        block_on(service.pools.execute(request(id, Target::Pool(pool("bob")), command))).unwrap()
    };
    let admit = |n| Command::Admit {
        signature_key: key(n),
        credential: "bob".to_owned(),
        statement: None,
        frontend: None,
    };
    execute(30, admit(1));
    execute(31, Command::Upload(vec![package("bob")]));
    service.reserve(1, "bob", "alice");
    execute(32, Command::Remove { by: Remover::Key(key(1)) });
    for (id, registered) in [(10, false), (11, true)] {
        if registered {
            execute(33, admit(2));
        }
        let refused = service.deliver(id, "alice", add("alice", 0, "bob", 1));
        assert!(
            matches!(refused, Err(DeliverError::Spend { rejection: Rejection::Revoked(_), .. })),
            "{refused:?}"
        );
    }
    assert_eq!(service.pools.group(&g()).members().count(), 1);
    assert!(service.pools.mailbox(&pool("bob")).is_empty());
}

#[test]
fn each_package_has_one_welcome_and_no_welcome_is_for_nobody() {
    let service = Service::with(&["bob"]);
    service.reserve(1, "bob", "alice");
    let welcome = |refs: &[&str]| Welcome {
        bytes: b"welcome".to_vec(),
        keypackage_refs: refs.iter().map(|name| reference(name)).collect(),
    };
    let with = |welcomes: Vec<Welcome>, spends| DeliveryCommand::Commit {
        group: g(),
        epoch: 0,
        commit: b"commit".to_vec(),
        welcomes,
        spends,
        removed: Vec::new(),
    };
    let spend = || vec![claim("bob", 1, "alice")];
    for (id, command) in [
        (10, with(vec![welcome(&["bob"]), welcome(&["bob"])], spend())),
        (11, with(vec![welcome(&["bob"]), welcome(&[])], spend())),
        (12, with(vec![welcome(&[])], Vec::new())),
    ] {
        let refused = refusal(service.deliver(id, "alice", command));
        assert_eq!(refused, DeliveryRejection::WelcomeMismatch, "{id}");
    }
}

#[test]
fn the_devices_of_one_user_share_one_senders_half() {
    let service = Service::with(&["bob", "mallory/a", "mallory/b"]).limited(SMALL);
    for (n, user) in (1..).zip(["bob", "mallory/a", "mallory/b"]) {
        service.add(10 + u128::from(n), "alice", u64::from(n) - 1, (user, n));
        service.join(20 + u128::from(n), user);
    }
    service.join(30, "bob");
    for (id, device) in [(31, "mallory/a"), (32, "mallory/b")] {
        service.deliver(id, device, post("spam")).unwrap();
    }
    let over = service.deliver(33, "mallory/b", post("more")).unwrap();
    assert!(over.not_kept.contains(&pool("bob")), "{over:?}");
    let over = service.deliver(34, "mallory/a", post("more")).unwrap();
    assert!(over.not_kept.contains(&pool("bob")), "{over:?}");
    let honest = service.deliver(35, "alice", post("hello")).unwrap();
    assert!(!honest.not_kept.contains(&pool("bob")), "{honest:?}");
    assert_eq!(service.waiting("bob"), ["spam", "spam", "hello"]);
    service.assert_audited();
}

#[test]
fn a_removal_before_the_device_has_accepted_leaves_nothing_in_its_mailbox() {
    let service = Service::with(&["bob"]);
    service.add(10, "alice", 0, ("bob", 1));
    service.deliver(11, "alice", post("one")).unwrap();
    service.deliver(12, "alice", commit(1, &[], &["bob"])).unwrap();
    assert_eq!(service.waiting("bob"), [""; 0]);
    assert_eq!(service.restarted().waiting("bob"), [""; 0]);
}
