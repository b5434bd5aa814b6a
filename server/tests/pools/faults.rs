//! The shell when the log fails, and when another writer steps in between deciding and appending.

use std::{
    iter,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use keypool_ledger::{
    AppendError, Appended, Batch, Clock, CommandId, Event, EventLog, Hash, Key, LogHead,
    ManualClock, MemoryLog, NewEvent, ReadError, Record, StreamHead, StreamId, StreamWrite,
    log::{Fault, Faulty, append_at_head},
};
use keypool_projections::{Command, Limits, Rejection};
use keypool_server::pools::{
    ClockState, Delivered, DeliveryCommand, ExecuteError, Pools, Request, Target,
};
use uuid::Uuid;

use crate::{
    delivery::asked,
    history::{START, at, group, package, pool, reference, reservation},
    service::{block_on, open_kept, register, request, reserve, reserved, spend},
};

type Log = Arc<Faulty<MemoryLog>>;

/// Bob's pool with these packages, in the first append of the log.
fn bobs(names: &[&str]) -> (Log, Pools<Log>) {
    let log: Log = Arc::new(Faulty::new(MemoryLog::default()));
    let pools = open(&log);
    let packages = names.iter().map(|name| package(name)).collect();
    block_on(pools.execute(to_bob(1, Command::Upload(packages)))).unwrap();
    (log, pools)
}

fn open(log: &Log) -> Pools<Log> {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(START));
    open_kept(log, clock, Limits::STANDARD)
}

fn to_bob(id: u128, command: Command) -> Request {
    request(id, Target::Pool(pool("bob")), command)
}

/// Another server on the same log reserves Bob's first package, where the history is at `expected`.
fn rival(log: &MemoryLog, expected: u64) {
    let event = NewEvent {
        at: at(0),
        command: CommandId(Uuid::from_u128(999)),
        request: Hash::ZERO,
        event: Event::Reserved {
            keypackage_ref: reference("a"),
            reservation: reservation(99),
            generation: 1,
            holder: pool("rival"),
            group: group("g"),
            deadline: at(60),
        },
        payload: Vec::new(),
    };
    let write = StreamWrite { stream: StreamId::Pool(pool("bob")), expected, events: vec![event] };
    append_at_head(log, &[Batch { writes: vec![write] }]).pop().unwrap().unwrap();
}

#[test]
fn who_comes_second_is_given_another_package() {
    let (log, pools) = bobs(&["a", "b"]);
    log.before_append(2, |log| rival(log, 2));
    let reply = block_on(pools.execute(to_bob(2, reserve(7, "alice")))).unwrap();
    assert_eq!(reserved(&reply), reference("b"));
    assert_eq!((reply.health().available, reply.health().reserved, reply.position), (0, 2, 4));
}

#[test]
fn who_comes_second_finds_an_empty_pool_empty() {
    let (log, pools) = bobs(&["a"]);
    log.before_append(2, |log| rival(log, 1));
    let refused = block_on(pools.execute(to_bob(2, reserve(7, "alice")))).unwrap_err();
    assert!(matches!(refused, ExecuteError::Rejected(Rejection::PoolExhausted)), "{refused:?}");
    assert!(!*pools.failed().borrow(), "losing a race is no failure");
}

#[test]
fn what_was_written_though_nobody_said_so_is_answered_as_written() {
    let (log, pools) = bobs(&["a"]);
    log.fail_append(2, Fault::UnknownApplied);
    let reply = block_on(pools.execute(to_bob(2, reserve(7, "alice")))).unwrap();
    assert_eq!(reserved(&reply), reference("a"));
    assert!(*pools.failed().borrow(), "a log that does not answer is not written to again");
    let refused = block_on(pools.execute(to_bob(3, spend("a", 7, "alice")))).unwrap_err();
    assert!(matches!(refused, ExecuteError::LogUnavailable), "{refused:?}");

    drop(pools);
    let again = block_on(open(&log).execute(to_bob(2, reserve(7, "alice")))).unwrap();
    assert_eq!(again, reply);
}

#[test]
fn what_was_not_written_is_not_acknowledged_and_not_shown() {
    let (log, pools) = bobs(&["a"]);
    log.fail_append(2, Fault::UnknownNotApplied);
    let refused = block_on(pools.execute(to_bob(2, reserve(7, "alice")))).unwrap_err();
    assert!(matches!(refused, ExecuteError::LogUnavailable), "{refused:?}");
    assert_eq!(pools.health(&pool("bob")).unwrap().available, 1);
    assert!(*pools.failed().borrow());

    drop(pools);
    let pools = open(&log);
    assert_eq!(pools.health(&pool("bob")).unwrap().available, 1);
    block_on(pools.execute(to_bob(2, reserve(7, "alice")))).unwrap();
}

#[test]
fn a_log_that_takes_nothing_for_a_while_ends_nothing() {
    let (log, pools) = bobs(&["a"]);
    for attempt in 2..5 {
        log.fail_append(attempt, Fault::NotWritten);
        let refused = block_on(pools.execute(to_bob(2, reserve(7, "alice")))).unwrap_err();
        assert!(matches!(refused, ExecuteError::LogRefuses), "{refused:?}");
        assert_eq!(pools.health(&pool("bob")).unwrap().available, 1);
        assert!(pools.refusal().is_some() && !*pools.failed().borrow());
    }
    let reply = block_on(pools.execute(to_bob(2, reserve(7, "alice")))).unwrap();
    assert_eq!((reserved(&reply), reply.position), (reference("a"), 2));
    assert_eq!(pools.refusal(), None);
    block_on(pools.execute(to_bob(3, spend("a", 7, "alice")))).unwrap();
}

#[test]
fn a_log_that_has_failed_is_not_written_to_again() {
    let (log, pools) = bobs(&["a"]);
    log.fail_append(2, Fault::Failed);
    let refused = block_on(pools.execute(to_bob(2, reserve(7, "alice")))).unwrap_err();
    assert!(matches!(refused, ExecuteError::LogRefuses), "{refused:?}");
    assert_eq!(pools.health(&pool("bob")).unwrap().available, 1);
    assert!(*pools.failed().borrow());
    let refused = block_on(pools.execute(to_bob(3, reserve(8, "alice")))).unwrap_err();
    assert!(matches!(refused, ExecuteError::LogUnavailable), "{refused:?}");
    assert_eq!(log.n_appends(), 2);
}

#[test]
fn a_sweep_and_an_acceptance_of_the_clock_wait_for_a_log_that_takes_nothing() {
    let log: Log = Arc::new(Faulty::new(MemoryLog::default()));
    let clock = Arc::new(ManualClock::at(START));
    let pools = open_kept(&log, clock.clone() as Arc<dyn Clock>, Limits::STANDARD);
    block_on(pools.execute(to_bob(1, register(1, "bob")))).unwrap();
    block_on(pools.execute(to_bob(2, Command::Upload(vec![package("a")])))).unwrap();
    clock.advance(Duration::from_hours(1));
    log.fail_append(3, Fault::NotWritten);
    let refused = block_on(pools.sweep()).unwrap_err();
    assert!(matches!(refused, ExecuteError::LogRefuses), "{refused:?}");
    assert_eq!(block_on(pools.sweep()).unwrap(), 1);
    clock.set(at(0).after(Duration::from_hours(9)));
    log.fail_append(log.n_appends() + 1, Fault::NotWritten);
    let refused = block_on(pools.accept_clock()).unwrap_err();
    assert!(matches!(refused, ExecuteError::LogRefuses), "{refused:?}");
    assert!(matches!(pools.clock_state(), ClockState::Leapt { .. }));
    assert!(block_on(pools.accept_clock()).unwrap());
    assert_eq!(pools.clock_state(), ClockState::Fine);
}

#[test]
fn a_log_that_cannot_be_read_refuses_and_changes_nothing() {
    let (log, pools) = bobs(&["a"]);
    log.fail_read(log.n_reads() + 1);
    let refused = block_on(pools.execute(to_bob(2, reserve(7, "alice")))).unwrap_err();
    assert!(matches!(refused, ExecuteError::Read(_)), "{refused:?}");
    assert_eq!(log.head().unwrap().seq, 1);
    block_on(pools.execute(to_bob(2, reserve(7, "alice")))).unwrap();
}

/// Two commands that wait together are decided in one group, where the log does not know of the first.
#[test]
fn one_reservation_id_for_two_pools_at_once_is_good_for_one() {
    let (log, pools) = bobs(&["a"]);
    let to = |id: u128, user: &str, command| request(id, Target::Pool(pool(user)), command);
    let upload = |name: &str| Command::Upload(vec![package(name)]);
    block_on(pools.execute(to(2, "dave", upload("b")))).unwrap();
    let (release, held) = mpsc::channel();
    log.before_append(3, move |_| held.recv().unwrap());
    let outcomes = thread::scope(|scope| {
        let send = |request| scope.spawn(|| block_on(pools.execute(request)));
        let holds_up = send(to(3, "erin", upload("c")));
        while log.n_appends() < 3 {
            thread::yield_now();
        }
        let rivals =
            [to(4, "bob", reserve(7, "alice")), to(5, "dave", reserve(7, "alice"))].map(send);
        while pools.queued() < 3 {
            thread::yield_now();
        }
        release.send(()).unwrap();
        holds_up.join().unwrap().unwrap();
        rivals.map(|rival| rival.join().unwrap())
    });
    let mismatch = |outcome: &&Result<_, ExecuteError>| {
        matches!(outcome, Err(ExecuteError::Rejected(Rejection::ReservationMismatch(_))))
    };
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(mismatch).count(), 1, "{outcomes:?}");
}

/// A log that refuses the first batch of a call of several.
#[derive(Default)]
struct Picky(MemoryLog);

impl EventLog for Picky {
    fn append(
        &self,
        decided_at: LogHead,
        mut batches: Vec<Batch>,
    ) -> Vec<Result<Appended, AppendError>> {
        if batches.len() < 2 {
            return self.0.append(decided_at, batches);
        }
        batches.remove(0);
        let refused = Err(AppendError::NotWritten("the first of several".into()));
        iter::once(refused).chain(self.0.append(decided_at, batches)).collect()
    }

    fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        self.0.read(from, limit)
    }

    fn read_stream(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Record>, ReadError> {
        self.0.read_stream(stream, after, limit)
    }

    fn find(&self, key: Key<'_>, after: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        self.0.find(key, after, limit)
    }

    fn head(&self) -> Result<LogHead, ReadError> {
        self.0.head()
    }

    fn stream_head(&self, stream: &StreamId) -> Result<StreamHead, ReadError> {
        self.0.stream_head(stream)
    }
}

/// Three commands that wait together: the second one is decided on the first one's state.
#[test]
fn what_rests_on_a_refused_part_of_a_group_is_decided_again() {
    let log = Arc::new(Faulty::new(Picky::default()));
    let open = || {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(START));
        Pools::open(Arc::clone(&log), clock, Limits::STANDARD).unwrap()
    };
    let pools = open();
    let to = |id: u128, user: &str, command| request(id, Target::Pool(pool(user)), command);
    let upload = |name: &str| Command::Upload(vec![package(name)]);
    block_on(pools.execute(to(1, "bob", upload("a")))).unwrap();
    block_on(pools.execute(to(2, "dave", upload("b")))).unwrap();
    let (release, held) = mpsc::channel();
    log.before_append(3, move |_| held.recv().unwrap());
    let [first, second, third] = thread::scope(|scope| {
        let send = |request| scope.spawn(|| block_on(pools.execute(request)));
        let holds_up = send(to(3, "erin", upload("c")));
        while log.n_appends() < 3 {
            thread::yield_now();
        }
        let mut queued = 1;
        let commands = [("bob", 7), ("bob", 8), ("dave", 9)];
        let waiting = commands.map(|(user, number)| {
            let waits = send(to(u128::from(number), user, reserve(number, "alice")));
            queued += 1;
            while pools.queued() < queued {
                thread::yield_now();
            }
            waits
        });
        release.send(()).unwrap();
        holds_up.join().unwrap().unwrap();
        waiting.map(|waits| waits.join().unwrap())
    });
    assert!(matches!(first, Err(ExecuteError::LogRefuses)), "{first:?}");
    assert_eq!(reserved(&second.unwrap()), reference("a"), "nobody was given it");
    assert_eq!(reserved(&third.unwrap()), reference("b"));
    let fresh = open();
    for name in ["bob", "dave"] {
        let [ours, theirs] = [&pools, &fresh].map(|pools| pools.pool(&pool(name)).unwrap());
        assert_eq!((&ours.state, ours.head), (&theirs.state, theirs.head), "{name}");
    }
    assert_eq!(fresh.health(&pool("bob")).unwrap().reserved, 1);
}

#[test]
fn settings_that_the_log_does_not_take_at_the_start_stand_before_all_that_they_decide() {
    let log: Log = Arc::new(Faulty::new(MemoryLog::default()));
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(START));
    let limits = Limits { grace: Duration::from_secs(5), ..Limits::STANDARD };
    log.fail_append(1, Fault::NotWritten);
    log.fail_append(2, Fault::NotWritten);
    let pools = open_kept(&log, clock, limits);
    assert!(pools.refusal().is_some());
    let upload = || to_bob(1, Command::Upload(vec![package("a")]));
    let refused = block_on(pools.execute(upload())).unwrap_err();
    assert!(matches!(refused, ExecuteError::LogRefuses), "{refused:?}");
    block_on(pools.execute(upload())).unwrap();
    block_on(pools.execute(to_bob(2, reserve(7, "alice")))).unwrap();
    let records = log.read(1, usize::MAX).unwrap();
    let names: Vec<_> = records.iter().map(|record| record.envelope.event.name()).collect();
    assert_eq!(names, ["configured", "uploaded", "reserved"]);
    assert_eq!(pools.refusal(), None);
}

#[test]
fn a_delivery_is_answered_again_by_a_log_that_takes_nothing_any_more() {
    let (log, pools) = bobs(&["a"]);
    let make = |id, name: &str| {
        let made = DeliveryCommand::Make { group: group(name) };
        block_on(pools.deliver(asked(id, "alice", made)))
    };
    let first = make(2, "g").unwrap();
    log.fail_append(3, Fault::UnknownNotApplied);
    make(3, "h").unwrap_err();
    assert!(*pools.failed().borrow());
    assert_eq!(make(2, "g").unwrap(), Delivered { repeated: true, ..first });
}
