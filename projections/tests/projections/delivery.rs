//! Random histories of groups, invitations and waiting lists: each Welcome has one answer at most, for its
//! inviter alone, and every state lies packed as it is.

use keypool_ledger::{
    Event, GroupId, Hash, InvitationAnswer, KeyPackageRef, LeaveCause, PackageFacts, PoolId,
    StreamId, Timestamp, WelcomeFault,
};
use keypool_projections::{
    Acknowledgement, AwaitTarget, Deliveries, DeliveryLimits, GroupState, MailboxState,
    MembershipChange,
    packing::{Packer, Unpacker},
};
use quickcheck::{Arbitrary, Gen, QuickCheck};

const DEVICES: [&str; 4] = ["alice/main", "bob/main", "bob/laptop", "carol/main"];
const LIMITS: DeliveryLimits = DeliveryLimits { awaited_max: 2, ..DeliveryLimits::STANDARD };

/// One step of a random history, by a device and perhaps about another.
#[derive(Clone, Debug)]
struct Step {
    device: usize,
    other: usize,
    deed: u8,
    hours: u64,
}

impl Arbitrary for Step {
    fn arbitrary(g: &mut Gen) -> Self {
        let places: Vec<usize> = (0..DEVICES.len()).collect();
        let (device, other) = (*g.choose(&places).unwrap(), *g.choose(&places).unwrap());
        let hours = *g.choose(&[0, 0, 1, 24, 15 * 24]).unwrap();
        Self { device, other, deed: u8::arbitrary(g) % 10, hours }
    }
}

fn device(place: usize) -> PoolId {
    DEVICES[place].parse().unwrap()
}

fn group() -> GroupId {
    GroupId::new(b"group").unwrap()
}

/// The states, the number of the last record, and the time.
#[derive(Default)]
struct World {
    states: Deliveries,
    position: u64,
    now: Timestamp,
    /// The Welcomes that ask for an answer, and the answers.
    asked: Vec<(PoolId, PoolId)>,
    answered: Vec<(PoolId, PoolId)>,
}

impl World {
    fn group(&self) -> GroupState {
        self.states.groups.get(&group()).cloned().unwrap_or_default()
    }

    fn mailbox(&self, device: &PoolId) -> MailboxState {
        self.states.mailboxes.get(device).cloned().unwrap_or_default()
    }

    fn take(&mut self, stream: &StreamId, event: &Event) {
        self.position += 1;
        match event {
            Event::Welcomed { to, by: Some(by) } => {
                self.asked.extend(to.iter().map(|to| (to.clone(), by.clone())));
            }
            Event::InvitationAnswered { device, inviter, .. } => {
                self.answered.push((device.clone(), inviter.clone()));
            }
            _ => {}
        }
        self.states.take(stream, event, (self.position, self.now, 1));
    }

    fn in_group(&mut self, events: Vec<Event>) {
        let stream = StreamId::Group(group());
        for event in events {
            self.take(&stream, &event);
        }
    }

    /// Adds a device by a Commit, which removes its dead leaf if it has one.
    fn add(&mut self, committer: &PoolId, added: &PoolId) {
        let state = self.group();
        let removed = Vec::from_iter(state.has_member(added).then(|| added.clone()));
        let change = MembershipChange { added: vec![added.clone()], removed };
        let epoch = state.epoch();
        if committer == added || !state.has_member(committer) {
            return;
        }
        let commit = state.decide_commit(&group(), committer, epoch, &change, &LIMITS).unwrap();
        let welcome = Event::Welcomed { to: change.added, by: Some(committer.clone()) };
        self.in_group(vec![commit, welcome]);
    }

    fn acknowledge(&mut self, by: &PoolId, asked: &Acknowledgement) {
        let decided = self.mailbox(by).decide_acknowledge(asked, self.position).unwrap();
        if let Some(event) = decided {
            self.take(&StreamId::Mailbox(by.clone()), &event);
        }
    }

    fn play(&mut self, step: &Step) {
        self.now = self.now.after(std::time::Duration::from_hours(step.hours));
        let (by, other) = (device(step.device), device(step.other));
        let state = self.group();
        match step.deed {
            0 => self.in_group(state.decide_make(&group(), &by).into_iter().collect()),
            1..=3 => self.add(&by, &other),
            4 => self.in_group(state.decide_post(&group(), &by).into_iter().collect()),
            5 => self.in_group(state.decide_leave(&by, LeaveCause::Left)),
            6 => {
                let (through, accepted) = (self.position, vec![group()]);
                let available = self.mailbox(&by).available().cloned().collect();
                let asked =
                    Acknowledgement { through, accepted, available, ..Acknowledgement::default() };
                self.acknowledge(&by, &asked);
                self.in_group(state.decide_joined(&by).into_iter().collect());
            }
            7 => self.in_group(state.decide_failed(&by, WelcomeFault::Expired)),
            8 => {
                let targets = [AwaitTarget { device: other, is_stranger: step.hours == 0 }];
                let events = self.mailbox(&by).decide_await(&targets, &[], self.now, &LIMITS);
                for event in events.unwrap_or_default() {
                    self.take(&StreamId::Mailbox(by.clone()), &event);
                }
            }
            _ => self.take(&StreamId::Pool(by.clone()), &Event::Uploaded(facts())),
        }
    }

    fn check(&self) {
        let packed = |pack: &dyn Fn(&mut Packer)| {
            let mut out = Packer::default();
            pack(&mut out);
            out.into_bytes()
        };
        for state in self.states.groups.values() {
            let bytes = packed(&|out| state.pack(out));
            assert_eq!(GroupState::unpack(&mut Unpacker::new(&bytes)).as_ref(), Some(state));
            assert!(state.unanswered().all(|device| state.has_member(device)));
        }
        for (device, state) in &self.states.mailboxes {
            let bytes = packed(&|out| state.pack(out));
            assert_eq!(MailboxState::unpack(&mut Unpacker::new(&bytes)).as_ref(), Some(state));
            let waits = DEVICES.iter().filter(|name| {
                let other: PoolId = name.parse().unwrap();
                state.awaits(&other, self.now).is_some()
            });
            assert!(waits.count() + state.available().count() <= LIMITS.awaited_max, "{device}");
            assert!(state.last_posted() <= self.position);
        }
        for answer in &self.answered {
            let count = |all: &[(PoolId, PoolId)]| all.iter().filter(|one| *one == answer).count();
            assert!(count(&self.answered) <= count(&self.asked), "{answer:?}");
        }
    }
}

fn facts() -> PackageFacts {
    PackageFacts {
        keypackage_ref: KeyPackageRef::new(&[7; 32]).unwrap(),
        not_before: Timestamp::default(),
        not_after: Timestamp::from_secs(u64::from(u32::MAX)),
        ciphersuite: 1,
        credential: Hash::ZERO,
        init_key: Hash::ZERO,
        last_resort: true,
        capabilities: None,
    }
}

#[test]
fn a_welcome_has_one_answer_at_most_and_states_lie_packed_as_they_are() {
    #[expect(clippy::needless_pass_by_value, reason = "quickcheck gives values")]
    fn property(steps: Vec<Step>) -> bool {
        let mut world = World::default();
        for step in &steps {
            world.play(step);
            world.check();
        }
        true
    }
    QuickCheck::new().tests(300).quickcheck(property as fn(Vec<Step>) -> bool);
}

#[test]
fn a_log_from_before_answers_asks_for_none() {
    let mut world = World::default();
    let (alice, bob) = (device(0), device(1));
    world.in_group(vec![Event::GroupMade { creator: alice.clone() }]);
    let change = MembershipChange { added: vec![bob.clone()], removed: Vec::new() };
    let commit = world.group().decide_commit(&group(), &alice, 0, &change, &LIMITS).unwrap();
    world.in_group(vec![commit, Event::Welcomed { to: vec![bob.clone()], by: None }]);
    let left = world.group().decide_leave(&bob, LeaveCause::Left);
    assert_eq!(left, [Event::Left { device: bob.clone(), cause: LeaveCause::Left }]);
    assert_eq!(world.group().decide_joined(&bob), None);
    // Nor does an answer reach anybody that a damaged log has of nothing.
    let answer = InvitationAnswer::Joined;
    world.in_group(vec![Event::InvitationAnswered { device: bob, inviter: alice.clone(), answer }]);
    assert!(world.mailbox(&alice).is_empty());
}
