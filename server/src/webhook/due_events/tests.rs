//! Any history, cut anywhere: each device with mail is told of it, at least once and in order.

use std::{collections::HashMap, sync::Arc};

use keypool_ledger::{
    Batch, CommandId, Hash, ManualClock, MemoryLog, NewEvent, StreamWrite, Timestamp,
    log::append_at_head,
};
use keypool_projections::Limits;
use quickcheck::{QuickCheck, TestResult};
use uuid::Uuid;

use super::*;

const DEVICES: [&str; 4] = ["alice/main", "bob/main", "carol/main", "dave/main"];
const AT: Timestamp = Timestamp::from_secs(1_766_400_000);

/// The arbitrary bytes that a history or the server's lives are made from.
type Pairs = Vec<(u8, u8)>;

fn device(number: usize) -> PoolId {
    DEVICES[number % DEVICES.len()].parse().unwrap()
}

fn group() -> GroupId {
    GroupId::new(b"group-1").unwrap()
}

/// A history of one group: its members, and the events of each command.
struct History {
    members: Vec<PoolId>,
    epoch: u64,
    commands: Vec<Vec<(StreamId, Event)>>,
}

impl History {
    /// Makes a history of Alice's group from steps: an action, and the device that it is about.
    fn of(steps: &[(u8, u8)]) -> Self {
        let creator = device(0);
        let made = (StreamId::Group(group()), Event::GroupMade { creator: creator.clone() });
        let mut history = Self { members: vec![creator], epoch: 0, commands: vec![vec![made]] };
        for (action, about) in steps {
            history.step(*action, &device(usize::from(*about)));
        }
        history
    }

    fn step(&mut self, action: u8, about: &PoolId) {
        let is_member = self.members.contains(about);
        let position = self.commands.iter().map(|command| command.len() as u64).sum();
        let events = match action % 4 {
            0 if is_member => {
                let event = Event::Posted { sender: about.clone(), not_kept: Vec::new() };
                vec![(StreamId::Group(group()), event)]
            }
            1 if !is_member => {
                let committed = self.commit(vec![about.clone()], Vec::new());
                self.members.push(about.clone());
                let welcomed = Event::Welcomed { to: vec![about.clone()], by: None };
                vec![committed, (StreamId::Group(group()), welcomed)]
            }
            2 if is_member && *about != device(0) => {
                let committed = self.commit(Vec::new(), vec![about.clone()]);
                self.members.retain(|member| member != about);
                vec![committed]
            }
            3 => {
                let accepted = vec![group()];
                let (overrun, told) = (false, Vec::new());
                let event = Event::Acknowledged {
                    through: position,
                    overrun,
                    accepted,
                    told,
                    available: Vec::new(),
                };
                vec![(StreamId::Mailbox(about.clone()), event)]
            }
            _ => return,
        };
        self.commands.push(events);
    }

    fn commit(&mut self, added: Vec<PoolId>, removed: Vec<PoolId>) -> (StreamId, Event) {
        let (epoch, committer, not_kept) = (self.epoch, device(0), Vec::new());
        self.epoch += 1;
        let event = Event::Committed { epoch, committer, added, removed, not_kept };
        (StreamId::Group(group()), event)
    }

    /// A server on the first commands of the history.
    fn pools(&self, commands: usize) -> Pools<MemoryLog> {
        let log = MemoryLog::default();
        self.commands.iter().take(commands).for_each(|events| append(&log, events));
        Pools::open(log, Arc::new(ManualClock::at(AT)), Limits::STANDARD).unwrap()
    }
}

/// Appends the events of one command.
fn append(log: &MemoryLog, events: &[(StreamId, Event)]) {
    let stream = &events[0].0;
    let expected = log.stream_head(stream).unwrap().version;
    let command = CommandId(Uuid::now_v7());
    let new = |(_, event): &(StreamId, Event)| {
        let (event, payload) = (event.clone(), vec![7]);
        NewEvent { at: AT, command, request: Hash::ZERO, event, payload }
    };
    let events = events.iter().map(new).collect();
    let write = StreamWrite { stream: stream.clone(), expected, events };
    append_at_head(log, &[Batch { writes: vec![write] }]).pop().unwrap().unwrap();
}

/// Delivers everything that is due, and returns the positions that were settled on the way.
fn deliver(
    due_events: &mut DueEvents,
    pools: &Pools<MemoryLog>,
    told: &mut Vec<WebhookEvent>,
) -> Vec<u64> {
    let mut settled = vec![due_events.settled()];
    loop {
        due_events.fill(pools).unwrap();
        let batch = due_events.batch();
        if batch.is_empty() {
            settled.push(due_events.settled());
            return settled;
        }
        due_events.delivered(batch.len());
        told.extend(batch);
        settled.push(due_events.settled());
    }
}

/// Whether each device with mail was told after its first item came.
fn is_complete(pools: &Pools<MemoryLog>, told: &[WebhookEvent]) -> bool {
    (0..DEVICES.len()).map(device).all(|device| {
        let mailbox = pools.mailbox(&device);
        let Some(first) = mailbox.after(0).next() else { return true };
        let own =
            |event: &&WebhookEvent| event.user == device.user() && first.position <= event.position;
        told.iter().any(|event| own(&event))
    })
}

/// Whether the events of each device come in the order of their positions.
fn is_in_order(told: &[WebhookEvent]) -> bool {
    let mut last: HashMap<&str, u64> = HashMap::new();
    told.iter().all(|event| {
        let last = last.entry(&event.user).or_default();
        let follows = *last <= event.position;
        *last = event.position;
        follows
    })
}

/// The steps of a history, and lives of the server: after how many more commands each begins, and which of
/// the settled positions it has stored when it is killed.
#[expect(clippy::needless_pass_by_value, reason = "quickcheck hands values over")]
fn tells_each_device(steps: Pairs, lives: Pairs) -> TestResult {
    let history = History::of(&steps);
    let (mut told, mut stored, mut commands) = (Vec::new(), 0, 0);
    for (more, kept) in lives.iter().take(6) {
        commands = (commands + usize::from(*more) % 8).min(history.commands.len());
        let pools = history.pools(commands);
        let mut due_events = DueEvents::after(stored);
        let mut now = Vec::new();
        let settled = deliver(&mut due_events, &pools, &mut now);
        let in_order = is_in_order(&now);
        told.extend(now);
        if !in_order || !is_complete(&pools, &told) {
            return TestResult::failed();
        }
        stored = settled[usize::from(*kept) % settled.len()];
    }
    let pools = history.pools(history.commands.len());
    deliver(&mut DueEvents::after(stored), &pools, &mut told);
    TestResult::from_bool(is_complete(&pools, &told))
}

#[test]
fn each_device_with_mail_is_told_wherever_the_server_is_killed() {
    QuickCheck::new().tests(200).quickcheck(tells_each_device as fn(Pairs, Pairs) -> TestResult);
}

fn words(told: &[WebhookEvent]) -> Vec<String> {
    told.iter().map(|event| format!("{} {}", event.kind.word(), event.user)).collect()
}

#[test]
fn a_day_of_messages_is_one_event_for_each_device() {
    let steps: Vec<(u8, u8)> = [(1, 1), (1, 2)].into_iter().chain([(0, 0); 300]).collect();
    let pools = History::of(&steps).pools(usize::MAX);
    let (mut due_events, mut told) = (DueEvents::after(0), Vec::new());
    deliver(&mut due_events, &pools, &mut told);
    let calls = ["invitation bob", "mailbox bob", "invitation carol", "mailbox carol"];
    assert_eq!(words(&told), calls);
    assert_eq!(due_events.settled(), pools.published());
}

#[test]
fn mail_that_was_acknowledged_before_the_backend_was_back_is_not_told() {
    let history = History::of(&[(1, 1), (1, 2), (0, 0), (3, 1), (0, 2)]);
    let pools = history.pools(usize::MAX);
    let mut told = Vec::new();
    deliver(&mut DueEvents::after(0), &pools, &mut told);
    assert_eq!(words(&told), ["invitation carol", "mailbox carol", "mailbox alice", "mailbox bob"]);
}

#[test]
fn a_removed_device_is_told_of_the_mail_it_still_has() {
    let history = History::of(&[(1, 1), (3, 1), (0, 0), (2, 1)]);
    let (pools, mut told) = (history.pools(usize::MAX), Vec::new());
    deliver(&mut DueEvents::after(0), &pools, &mut told);
    assert_eq!(words(&told), ["mailbox bob"]);
}

#[test]
fn a_device_that_listens_is_called_once_it_was_away_at_two_looks() {
    let pools = History::of(&[(1, 1), (3, 1), (0, 0)]).pools(usize::MAX);
    let listening = pools.listen(&device(1));
    let (mut due_events, mut told) = (DueEvents::after(0), Vec::new());
    deliver(&mut due_events, &pools, &mut told);
    assert!(told.is_empty());
    assert!(due_events.settled() < pools.published(), "a crash would lose it");
    due_events.look_at_unread(&pools);
    drop(listening);
    due_events.look_at_unread(&pools);
    assert!(due_events.batch().is_empty(), "it may be about to acknowledge");
    due_events.look_at_unread(&pools);
    deliver(&mut due_events, &pools, &mut told);
    assert_eq!(words(&told), ["mailbox bob"]);
    assert_eq!(due_events.settled(), pools.published());
}

/// The operator suspends Bob, as a command of the log.
fn suspending_bob() -> Vec<(StreamId, Event)> {
    vec![(StreamId::Server, Event::UserSuspended { user: "bob".to_owned(), reason: None })]
}

#[test]
fn a_device_of_a_suspended_user_is_not_called() {
    let mut history = History::of(&[(1, 1), (1, 2), (0, 0)]);
    history.commands.push(suspending_bob());
    let (pools, mut told) = (history.pools(usize::MAX), Vec::new());
    let mut due_events = DueEvents::after(0);
    deliver(&mut due_events, &pools, &mut told);
    assert_eq!(words(&told), ["invitation carol", "mailbox carol"]);
    assert_eq!(due_events.settled(), pools.published());
}

#[test]
fn a_device_whose_stream_ended_by_the_suspension_is_not_called() {
    let mut history = History::of(&[(1, 1), (3, 1), (0, 0)]);
    let pools = history.pools(usize::MAX);
    let listening = pools.listen(&device(1));
    let (mut due_events, mut told) = (DueEvents::after(0), Vec::new());
    deliver(&mut due_events, &pools, &mut told);
    drop((listening, pools));
    history.commands.push(suspending_bob());
    let pools = history.pools(usize::MAX);
    for _ in 0..3 {
        due_events.look_at_unread(&pools);
    }
    deliver(&mut due_events, &pools, &mut told);
    assert_eq!(words(&told), [] as [&str; 0]);
    assert_eq!(due_events.settled(), pools.published());
}

/// The events that a backend handles, which has handled others before.
fn fresh(told: &[WebhookEvent], before: &[WebhookEvent]) -> Vec<String> {
    let is_new = |event: &&WebhookEvent| before.iter().all(|known| known.id != event.id);
    words(&told.iter().filter(is_new).cloned().collect::<Vec<_>>())
}

#[actix_web::test]
async fn a_backend_that_leaves_repeated_events_out_misses_no_call() {
    let mut history = History::of(&[(1, 1), (0, 0)]);
    let (pools, mut before) = (history.pools(usize::MAX), Vec::new());
    deliver(&mut DueEvents::after(0), &pools, &mut before);
    // Bob looks, another message comes, and the server is killed before it has told of it.
    history.step(0, &device(0));
    let (pools, mut told) = (history.pools(usize::MAX), Vec::new());
    let mut due_events = DueEvents::after(0);
    deliver(&mut due_events, &pools, &mut told);
    assert_eq!(fresh(&told, &before), ["mailbox bob"]);
    // The same before the message that comes after the start.
    before.append(&mut told);
    history.step(0, &device(0));
    append(pools.log(), history.commands.last().unwrap());
    pools.sweep().await.unwrap();
    deliver(&mut due_events, &pools, &mut told);
    assert_eq!(fresh(&told, &before), ["mailbox bob"]);
}
