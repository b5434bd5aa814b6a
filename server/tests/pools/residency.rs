//! The memory may be forgotten, packed, kept beside the log and lost: the answers stay the same.

use std::{iter, sync::Arc, time::Duration};

use keypool_ledger::{
    Clock, CommandId, Event, EventLog, Faulty, Hash, ManualClock, MemoryLog, Signature,
    SignatureKey, SignedStatement, Snapshot, SnapshotStore, StreamId,
};
use keypool_projections::{
    Answer, Command, DeliveryLimits, Health, Level, Limits, PoolState, Rejection,
};
use keypool_server::pools::{ExecuteError, Pools, Progress, Request, Target};
use quickcheck::{Arbitrary, Gen, QuickCheck};
use uuid::Uuid;

use crate::{
    history::{START, claim, group, package, pool, reference, reservation},
    service::{block_on, open_kept, register},
    steps::Step,
};

type Shared = Arc<MemoryLog>;

/// The event between two commands.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Between {
    Nothing,
    /// The service is started again.
    Restart,
    /// It is, and all snapshots are lost.
    Loss,
    /// It is, with the snapshots of an earlier time.
    Older,
    /// It is, and one of the snapshots is garbage.
    Garbage(u8),
}

impl Arbitrary for Between {
    fn arbitrary(g: &mut Gen) -> Self {
        match u8::arbitrary(g) % 16 {
            0 | 1 => Self::Restart,
            2 => Self::Loss,
            3 => Self::Older,
            4 => Self::Garbage(u8::arbitrary(g)),
            _ => Self::Nothing,
        }
    }
}

fn open(log: &Shared, clock: &Arc<ManualClock>) -> Pools<Shared> {
    open_kept(log, Arc::clone(clock) as Arc<dyn Clock>, Limits::STANDARD)
}

fn request(n: u128, owner: &str, command: Command) -> Request {
    let (target, id) = (Target::Pool(pool(owner)), CommandId(Uuid::from_u128(n)));
    Request { target, command, id, digest: Hash::of(&n.to_be_bytes()) }
}

fn snapshots(log: &MemoryLog) -> Vec<Snapshot> {
    log.list(b"", None, usize::MAX).unwrap()
}

/// Puts these snapshots in the place of all others.
pub(crate) fn replace(log: &MemoryLog, by: &[Snapshot]) {
    let gone = |old: Snapshot| Snapshot { bytes: Vec::new(), ..old };
    log.put(snapshots(log).into_iter().map(gone).collect()).unwrap();
    log.put(by.to_vec()).unwrap();
}

/// Starts the service again, with the snapshots that are left.
pub(crate) fn restart(between: Between, log: &Shared, earlier: &mut Vec<Snapshot>) {
    let now = snapshots(log);
    match between {
        Between::Nothing | Between::Restart => {}
        Between::Loss => replace(log, &[]),
        Between::Older => replace(log, earlier),
        Between::Garbage(which) => {
            let mut damaged = now.clone();
            let which = usize::from(which) % damaged.len().max(1);
            if let Some(snapshot) = damaged.get_mut(which) {
                snapshot.bytes.iter_mut().for_each(|byte| *byte ^= 0x55);
            }
            replace(log, &damaged);
        }
    }
    *earlier = now;
}

/// When the last event was recorded.
fn recorded_at(log: &MemoryLog) -> keypool_ledger::Timestamp {
    let last = log.read(log.head().unwrap().seq, 1).unwrap().pop();
    last.map_or(START, |last| last.envelope.at)
}

/// Plays a history on a service that forgets and on a pool that remembers everything.
fn forgets_nothing_that_counts(steps: &[(Between, Step)]) -> Result<(), String> {
    let (log, clock) = (Shared::default(), Arc::new(ManualClock::at(START)));
    let mut pools = open(&log, &clock);
    let (mut all, mut earlier) = (PoolState::default(), Vec::new());
    let first = Step { pause: Duration::ZERO, command: Command::Upload(vec![package("a")]) };
    let first = (Between::Nothing, first);
    for (n, (between, Step { pause, command })) in (0..).zip(iter::once(&first).chain(steps)) {
        if !matches!(between, Between::Nothing) {
            drop(pools);
            restart(*between, &log, &mut earlier);
            pools = open(&log, &clock);
        }
        // A clock that leaps an hour is not believed at once; that is another matter.
        if clock.now().after(*pause) < recorded_at(&log).after(Duration::from_mins(55)) {
            clock.advance(*pause);
        }
        let (now, limits) = (clock.now(), pools.limits());
        let decision = all.decide(command, now, &limits);
        for event in &decision.events {
            all.evolve(event, now).map_err(|err| err.to_string())?;
        }
        let asked = request(n, "bob", command.clone());
        let answer = match block_on(pools.execute(asked.clone())) {
            Ok(reply) => Ok(reply.answer),
            Err(ExecuteError::Rejected(rejection)) => Err(rejection),
            Err(other) => return Err(other.to_string()),
        };
        if answer != decision.answer {
            return Err(format!("step {n}: {answer:?} instead of {:?}", decision.answer));
        }
        let view = pools.pool(&pool("bob")).unwrap();
        let health = pools.health(&pool("bob")).unwrap();
        if health != Health::of(&all, now, &limits) || view.state.counts() != all.counts() {
            return Err(format!("step {n}: {health:?}"));
        }
        for known in all.packages() {
            let found = pools.package(&known.facts.keypackage_ref).unwrap().unwrap();
            if found.1 != *known {
                return Err(format!("step {n}: {:?} instead of {known:?}", found.1));
            }
        }
    }
    let recorded = log.read_stream(&StreamId::Pool(pool("bob")), 0, usize::MAX).unwrap();
    let events = recorded.iter().map(|record| (&record.envelope.event, record.envelope.at));
    if PoolState::replay(events).as_ref() != Ok(&all) {
        return Err("the log leads to another state".to_owned());
    }
    Ok(())
}

#[test]
fn a_pool_that_forgets_decides_as_one_that_remembers_everything() {
    #[expect(clippy::needless_pass_by_value, reason = "quickcheck gives values")]
    fn property(steps: Vec<(Between, Step)>) -> Result<bool, String> {
        forgets_nothing_that_counts(&steps).map(|()| true)
    }
    let property = property as fn(Vec<(Between, Step)>) -> Result<bool, String>;
    QuickCheck::new().tests(150).quickcheck(property);
}

/// Uploads, reserves and spends packages of bob one after the other, `count` of them.
fn use_up<L: EventLog + 'static>(pools: &Pools<L>, from: u32, count: u32) {
    for n in from..from + count {
        let (name, id) = (format!("p{n}"), u128::from(n) * 10);
        let run = |id, command| block_on(pools.execute(request(id, "bob", command))).unwrap();
        run(id + 1, Command::Upload(vec![package(&name)]));
        let made = reservation_of(n);
        let (holder, ciphersuites) = (pool("alice"), Vec::new());
        run(
            id + 2,
            Command::Reserve {
                reservation: made,
                holder,
                group: group("g"),
                ciphersuites,
                required: keypool_projections::RequiredCapabilities::default(),
                introduced: false,
                last_resort_only: false,
            },
        );
        let claim = keypool_projections::Claim {
            keypackage_ref: reference(&name),
            reservation: made,
            holder: pool("alice"),
        };
        run(id + 3, Command::Spend { claim, group: group("g") });
    }
}

fn reservation_of(n: u32) -> keypool_ledger::ReservationId {
    keypool_ledger::ReservationId(Uuid::from_u128(u128::from(n) + 1_000_000))
}

#[test]
fn what_is_over_is_not_in_memory_and_costs_no_reads() {
    let log = Arc::new(Faulty::new(MemoryLog::default()));
    let clock = Arc::new(ManualClock::at(START)) as Arc<dyn Clock>;
    let pools = open_kept(&log, clock, Limits::STANDARD);
    let mut reads = Vec::new();
    for round in 0..4 {
        use_up(&pools, round * 100, 99);
        // What the keeper reads and writes beside is counted too.
        pools.pool(&pool("bob")).unwrap();
        let before = log.n_reads();
        let command = Command::Reserve {
            reservation: reservation(u8::try_from(round).unwrap()),
            holder: pool("alice"),
            group: group("g"),
            ciphersuites: Vec::new(),
            required: keypool_projections::RequiredCapabilities::default(),
            introduced: false,
            last_resort_only: false,
        };
        let refused = block_on(pools.execute(request(u128::from(round) + 900_000, "bob", command)));
        assert!(matches!(refused, Err(ExecuteError::Rejected(Rejection::PoolExhausted))));
        reads.push(log.n_reads() - before);
    }
    let state = &pools.pool(&pool("bob")).unwrap().state;
    assert_eq!((state.packages().count(), state.counts().spent), (0, 4 * 99));
    // The keeper may keep a snapshot at any time; it is one read each.
    assert!(reads.iter().max().unwrap() - reads.iter().min().unwrap() <= 3, "{reads:?}");
}

#[test]
fn the_head_of_a_device_list_outlives_a_start_from_snapshots() {
    let (log, clock) = (Shared::default(), Arc::new(ManualClock::at(START)));
    let pools = open(&log, &clock);
    block_on(pools.execute(request(1, "bob", register(1, "bob")))).unwrap();
    drop(pools);
    let earlier = snapshots(&log);
    assert!(!earlier.is_empty());
    let pools = open(&log, &clock);
    let rotate = Command::Rotate {
        statement: SignedStatement {
            by: SignatureKey::new(&[1; 32]).unwrap(),
            head: pools.device_list_head("bob"),
            until: START.after(Duration::from_mins(4)),
            proof: Signature::new(&[0; 64]).unwrap(),
        },
        signature_key: SignatureKey::new(&[2; 32]).unwrap(),
        credential: "bob".to_owned(),
    };
    block_on(pools.execute(request(2, "bob", rotate))).unwrap();
    let head = pools.device_list_head("bob");
    drop(pools);
    replace(&log, &earlier);
    assert_eq!(open(&log, &clock).device_list_head("bob"), head, "statements on it stay good");
}

#[test]
fn a_start_from_snapshots_reads_what_came_after_and_nothing_else() {
    let log = Arc::new(MemoryLog::default());
    let clock = Arc::new(ManualClock::at(START));
    let pools = open(&log, &clock);
    use_up(&pools, 0, 60);
    block_on(pools.execute(request(7_000_001, "carol", Command::Upload(vec![package("L")]))))
        .unwrap();
    pools.close();
    let progress = Progress::default();
    let reopen = || {
        let clock = Arc::clone(&clock) as Arc<dyn Clock>;
        Pools::open_with(
            Arc::clone(&log),
            Arc::clone(&log) as Arc<dyn SnapshotStore>,
            clock,
            Limits::STANDARD,
            DeliveryLimits::STANDARD,
            &progress,
        )
        .unwrap()
    };

    let again = reopen();

    assert_eq!(progress.get(), (0, 181), "none of 181 records was read");
    assert_eq!(again.pools(), [pool("bob"), pool("carol")]);
    assert_eq!(again.pool(&pool("bob")).unwrap().state, pools.pool(&pool("bob")).unwrap().state);
    assert_eq!(
        again.levels(),
        [(Level::Healthy, 0), (Level::Low, 0), (Level::Critical, 0), (Level::Empty, 2)]
    );
    again.close();
    replace(&log, &[]);
    let replayed = reopen();
    assert_eq!(progress.get(), (181, 181));
    assert_eq!(replayed.pools(), again.pools());
    assert_eq!(replayed.levels(), again.levels());
    assert_eq!(replayed.pool(&pool("bob")).unwrap().state, pools.pool(&pool("bob")).unwrap().state);
}

#[test]
fn a_sweep_finds_what_became_due_while_nothing_ran() {
    for lost in [false, true] {
        let (log, clock) = (Shared::default(), Arc::new(ManualClock::at(START)));
        let pools = open(&log, &clock);
        let run = |id, command| block_on(pools.execute(request(id, "bob", command))).unwrap();
        run(1, Command::Upload(vec![package("a")]));
        run(
            2,
            Command::Reserve {
                reservation: reservation(1),
                holder: pool("alice"),
                group: group("g"),
                ciphersuites: Vec::new(),
                required: keypool_projections::RequiredCapabilities::default(),
                introduced: false,
                last_resort_only: false,
            },
        );
        pools.close();
        if lost {
            replace(&log, &[]);
        }
        clock.advance(Duration::from_mins(10));

        let pools = open(&log, &clock);
        let swept = || block_on(pools.sweep()).unwrap();
        assert_eq!(swept(), 0, "it has a full TTL again");
        clock.advance(Duration::from_mins(3));

        assert_eq!(swept(), 1);
        let last = log.read(3, 9).unwrap();
        assert!(matches!(last.last().unwrap().envelope.event, Event::Released { .. }), "{lost}");
        assert_eq!(swept(), 0);
    }
}

#[test]
fn a_claim_on_what_was_forgotten_is_judged_as_ever() {
    let (log, clock) = (Shared::default(), Arc::new(ManualClock::at(START)));
    let pools = open(&log, &clock);
    use_up(&pools, 0, 1);
    let spend = |claim| Command::Spend { claim, group: group("g") };
    let mut own = claim("a", 1, "alice");
    (own.keypackage_ref, own.reservation) = (reference("p0"), reservation_of(0));
    let answer =
        |n, command| block_on(pools.execute(request(n, "bob", command))).map(|reply| reply.answer);

    let again = answer(101, spend(own.clone())).unwrap();
    assert_eq!(again, Answer::Spent { late: false, replayed: true });
    own.holder = pool("mallory");
    let other = answer(102, spend(own)).unwrap_err().to_string();
    assert!(other.contains("spent"), "{other}");
    let uploaded = answer(103, Command::Upload(vec![package("p0")])).unwrap();
    assert!(format!("{uploaded:?}").contains("Known"), "{uploaded:?}");
    assert_eq!(log.head().unwrap().seq, 3, "nothing happened");
}

#[test]
fn a_pool_that_nobody_asks_for_takes_less_than_200_bytes_for_each_package() {
    let (log, clock) = (Shared::default(), Arc::new(ManualClock::at(START)));
    let pools = open(&log, &clock);
    let packages = (0..32).map(|n| package(&format!("p{n}"))).collect();
    block_on(pools.execute(request(1, "bob", Command::Upload(packages)))).unwrap();
    pools.close();

    let kept = log.get(b"p/bob/main").unwrap().unwrap();
    assert!(kept.len() < 32 * 110, "{} bytes", kept.len());
    assert_eq!(kept[0], 5, "the number of the fold leads");
    let brief = log.get(b"b/bob/main").unwrap().unwrap();
    assert!(brief.len() < 80, "{} bytes", brief.len());
}
