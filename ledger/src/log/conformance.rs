//! The promises of every [`EventLog`], as one suite. Run it against each implementation.
//!
//! It lives in the library behind the feature `conformance`, so that an engine in another crate can
//! be held to the same contract.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "these are tests that live in a library"
)]

#[cfg(feature = "local")]
pub mod engines;

mod fixtures;

#[cfg(feature = "local")]
mod held_lines;

#[cfg(feature = "local")]
mod memory_stream;

mod rivals;

#[cfg(feature = "local")]
pub mod servers;

mod snapshots;

use std::thread;

use self::fixtures::{
    append, batch, command, conflicts, expired, facts, numbers_are_whole, one, package, positions,
    reservation, reserved, seqs, stream, uploaded, write,
};
#[cfg(feature = "local")]
pub use self::held_lines::HeldLines;
#[cfg(feature = "local")]
pub use self::memory_stream::{MemoryStream, MemoryStreamConnection, StreamFaults};
pub use self::snapshots::check_snapshots;
use crate::{
    AppendError, Appended, Batch, Conflict, Event, EventLog, Hash, Key, LogHead, NewEvent, Record,
    StreamHead, Timestamp, codec,
    log::{append_at_head, find_package, find_reservation, knows_init_key, read_record},
};

/// A promise in words, and the test of it.
type Promise<L> = (&'static str, fn(&L));

/// Checks all promises, each against a fresh, empty log, and panics at the first that is broken.
pub fn check<L: EventLog>(make_log: impl Fn() -> L) {
    let promises: [Promise<L>; 27] = [
        ("a new log is empty", a_new_log_is_empty),
        ("records are what was appended", records_are_what_was_appended),
        ("numbers have no gaps and hashes are chained", numbers_and_hashes_are_chained),
        ("a conflict writes nothing", a_conflict_writes_nothing),
        ("a batch is atomic over its streams", a_batch_is_atomic_over_its_streams),
        ("a stream is named at most once", a_stream_is_named_at_most_once),
        ("batches of one call go in order", batches_of_one_call_go_in_order),
        ("a refused batch does not harm its neighbours", neighbours_of_a_refused_batch),
        ("the time is the writer's", the_time_is_the_writers),
        ("an empty batch changes nothing", an_empty_batch_changes_nothing),
        ("reads keep to their limits", reads_keep_to_their_limits),
        ("names are no prefixes", names_are_no_prefixes),
        ("a command finds its records", a_command_finds_its_records),
        ("a package finds what brought it", a_package_finds_what_brought_it),
        ("a package has a history of its own", a_package_has_a_history_of_its_own),
        ("an init key is known in its pool", an_init_key_is_known_in_its_pool),
        ("a reservation finds what made it", a_reservation_finds_what_made_it),
        ("payloads come back whole", payloads_come_back_whole),
        ("one of many writers wins", one_of_many_writers_wins),
        ("readers see whole batches", readers_see_whole_batches),
        ("a call counts at the head it was decided at", rivals::a_call_counts_at_its_head),
        ("one of two pools takes a package", rivals::one_of_two_pools_takes_a_package),
        ("one of two pools takes a reservation", rivals::one_of_two_pools_takes_a_reservation),
        ("an init key is taken once", rivals::an_init_key_is_taken_once),
        ("a command is carried out once", rivals::a_command_is_carried_out_once),
        ("one of many writers takes a key", rivals::one_of_many_writers_takes_a_key),
        ("a later look tells an unknown outcome", rivals::a_later_look_tells_an_unknown_outcome),
    ];
    for (promise, test) in promises {
        tracing::debug!(promise, "checking");
        test(&make_log());
    }
}

/// All records that a key finds.
fn all_of(log: &impl EventLog, key: Key<'_>) -> Vec<Record> {
    log.find(key, 0, usize::MAX).unwrap()
}

/// Checks that a key finds no more than it is asked for, and nothing before a position.
fn keeps_to_its_bounds(log: &impl EventLog, key: Key<'_>) {
    let all = all_of(log, key);
    assert!(1 < all.len(), "bounds of many records");
    for after in 0..=log.head().unwrap().seq + 1 {
        for limit in 0..=all.len() + 1 {
            let later = all.iter().filter(|record| after < record.seq).take(limit).cloned();
            let found = log.find(key, after, limit).unwrap();
            assert_eq!(found, later.collect::<Vec<_>>(), "{limit} after {after}");
        }
    }
}

fn a_new_log_is_empty(log: &impl EventLog) {
    assert_eq!(log.head().unwrap(), LogHead { seq: 0 });
    assert_eq!(log.stream_head(&stream("ann")).unwrap(), StreamHead::default());
    assert_eq!(log.read(0, 9).unwrap(), []);
    assert_eq!(log.read(1, usize::MAX).unwrap(), []);
    assert_eq!(log.read_stream(&stream("ann"), 0, 9).unwrap(), []);
    assert_eq!(all_of(log, Key::Command(command(1))), []);
    assert_eq!(find_package(log, &package(1)).unwrap(), None);
    assert_eq!(find_reservation(log, reservation(1), 0).unwrap(), None);
    assert_eq!(read_record(log, 0).unwrap(), None);
    assert_eq!(read_record(log, 1).unwrap(), None);
    assert!(log.append(LogHead::default(), Vec::new()).is_empty(), "no batches, no answers");
}

fn records_are_what_was_appended(log: &impl EventLog) {
    let events = vec![uploaded(1, 10), expired(1, 11)];
    let appended = append(log, "ann", 0, events.clone()).unwrap();
    assert_eq!(appended.records.len(), 2);
    for (record, new) in appended.records.iter().zip(events) {
        let envelope = &record.envelope;
        assert_eq!(envelope.schema, codec::SCHEMA);
        assert_eq!(envelope.stream, stream("ann"));
        assert_eq!(
            (envelope.at, envelope.command, envelope.request, &envelope.event, &record.payload),
            (new.at, new.command, new.request, &new.event, &new.payload)
        );
        assert_eq!(codec::decode(&record.envelope_bytes).unwrap(), *envelope);
    }
    assert_eq!(log.read(1, 9).unwrap(), appended.records);
    assert_eq!(log.read(0, 9).unwrap(), appended.records, "a log begins at 1");
    assert_eq!(log.read_stream(&stream("ann"), 0, 9).unwrap(), appended.records);
}

fn numbers_and_hashes_are_chained(log: &impl EventLog) {
    for n in 0..5 {
        append(log, "ann", 2 * n, vec![expired(1, n), expired(2, n)]).unwrap();
        append(log, "bob", n, vec![expired(3, n)]).unwrap();
    }
    let records = log.read(1, 99).unwrap();
    let seqs: Vec<u64> = records.iter().map(|record| record.seq).collect();
    assert_eq!(seqs, (1..=15).collect::<Vec<_>>(), "seq has no gaps");
    assert_eq!(log.head().unwrap().seq, 15);
    for (name, len) in [("ann", 10), ("bob", 5)] {
        let history = log.read_stream(&stream(name), 0, 99).unwrap();
        let mut head = StreamHead::default();
        for record in &history {
            assert_eq!(record.envelope.version, head.version + 1, "version has no gaps");
            assert_eq!(record.envelope.prev, head.hash, "prev is the hash of the bytes before");
            assert_eq!(record.envelope.payload, Hash::of(&record.payload));
            head = record.stream_head();
        }
        assert_eq!(head.version, len);
        assert_eq!(log.stream_head(&stream(name)).unwrap(), head);
    }
}

fn a_conflict_writes_nothing(log: &impl EventLog) {
    append(log, "ann", 0, vec![expired(1, 10), expired(2, 10)]).unwrap();
    let before = log.read(1, 9).unwrap();
    for expected in [0, 1, 3, u64::MAX] {
        let answer = append(log, "ann", expected, vec![expired(3, 10)]);
        match answer {
            Err(AppendError::Conflict(Conflict::Stream {
                stream: told,
                expected: wanted,
                found,
            })) => {
                assert_eq!((told, wanted, found), (stream("ann"), expected, 2));
            }
            other => panic!("append at {expected}: {other:?}"),
        }
    }
    assert_eq!(log.read(1, 9).unwrap(), before);
    assert_eq!(all_of(log, Key::Command(command(3))), []);
    append(log, "ann", 2, vec![expired(3, 10)]).unwrap();
}

fn a_batch_is_atomic_over_its_streams(log: &impl EventLog) {
    append(log, "bob", 0, vec![expired(9, 1)]).unwrap();
    let names = ["ann", "bob", "cat"];
    for stale in ["ann", "bob", "cat"] {
        let version = |name| u64::from(name == "bob") + u64::from(name == stale);
        let writes = names.map(|name| write(name, version(name), vec![uploaded(1, 2)]));
        conflicts(&one(log, Batch { writes: writes.to_vec() }));
        assert_eq!(log.head().unwrap().seq, 1, "a conflict of {stale} writes nothing at all");
        assert_eq!(find_package(log, &package(1)).unwrap(), None);
    }
    let version = |name| u64::from(name == "bob");
    let writes = names.map(|name| write(name, version(name), vec![uploaded(1, 2)]));
    let appended = one(log, Batch { writes: writes.to_vec() }).unwrap();
    let told: Vec<_> = appended.records.iter().map(|r| (r.seq, r.envelope.version)).collect();
    assert_eq!(told, [(2, 1), (3, 2), (4, 1)], "in the order of the batch");
    assert_eq!(log.read(2, 9).unwrap(), appended.records);
}

fn a_stream_is_named_at_most_once(log: &impl EventLog) {
    for second in [0, 1] {
        let writes =
            vec![write("ann", 0, vec![expired(1, 1)]), write("ann", second, vec![expired(2, 1)])];
        conflicts(&one(log, Batch { writes }));
        assert_eq!(log.head().unwrap().seq, 0);
    }
}

fn batches_of_one_call_go_in_order(log: &impl EventLog) {
    let batches = (0..20).map(|n| batch("ann", n, vec![expired(u8::try_from(n).unwrap(), n)]));
    let answers = append_at_head(log, &batches.collect::<Vec<_>>());
    let seqs: Vec<u64> = answers.iter().map(|answer| seqs(answer)[0]).collect();
    assert_eq!(seqs, (1..=20).collect::<Vec<_>>(), "each finds what the one before it has left");
    assert_eq!(log.read(1, 99).unwrap().len(), 20);
}

fn neighbours_of_a_refused_batch(log: &impl EventLog) {
    let batches = [
        batch("ann", 0, vec![expired(1, 5)]),
        batch("ann", 0, vec![expired(2, 5)]),
        batch("bob", 0, vec![expired(3, 5), expired(4, 5)]),
        batch("bob", 0, vec![expired(5, 5)]),
        batch("ann", 1, vec![expired(6, 5)]),
    ];
    let answers = append_at_head(log, &batches);
    assert_eq!(answers.len(), 5, "an answer for each");
    assert_eq!((seqs(&answers[0]), seqs(&answers[2])), (vec![1], vec![2, 3]));
    conflicts(&answers[1]);
    conflicts(&answers[3]);
    assert_eq!(seqs(&answers[4]), [4], "the refused ones leave no gap");
    let commands: Vec<_> = log.read(1, 9).unwrap().iter().map(|r| r.envelope.command).collect();
    assert_eq!(commands, [1, 3, 4, 6].map(command));
}

fn the_time_is_the_writers(log: &impl EventLog) {
    append(log, "ann", 0, vec![expired(1, 10)]).unwrap();
    append(log, "ann", 1, vec![expired(2, 9)]).unwrap();
    let times = log.read(1, 9).unwrap().into_iter().map(|record| record.envelope.at);
    assert_eq!(times.collect::<Vec<_>>(), [10, 9].map(Timestamp::from_millis));
}

fn an_empty_batch_changes_nothing(log: &impl EventLog) {
    assert_eq!(one(log, Batch::default()).unwrap(), Appended::default());
    assert_eq!(append(log, "ann", 0, Vec::new()).unwrap(), Appended::default());
    conflicts(&append(log, "ann", 1, Vec::new()));
    assert_eq!(log.head().unwrap().seq, 0);
    append(log, "ann", 0, vec![expired(1, 1)]).unwrap();
}

fn reads_keep_to_their_limits(log: &impl EventLog) {
    append(log, "ann", 0, (0..4).map(|n| expired(n, 1)).collect()).unwrap();
    append(log, "bob", 0, (4..7).map(|n| expired(n, 1)).collect()).unwrap();
    append(log, "ann", 4, (7..9).map(|n| expired(n, 1)).collect()).unwrap();
    let all = log.read(1, usize::MAX).unwrap();
    assert_eq!(all.len(), 9);
    for from in 1..=11 {
        for limit in 0..=10 {
            let expected: Vec<_> = all.iter().skip(from - 1).take(limit).cloned().collect();
            assert_eq!(log.read(from as u64, limit).unwrap(), expected, "read({from}, {limit})");
        }
    }
    let ann = stream("ann");
    let history: Vec<_> = all.iter().filter(|r| r.envelope.stream == ann).cloned().collect();
    for after in 0..=8 {
        for limit in 0..=7 {
            let expected: Vec<_> = history.iter().skip(after).take(limit).cloned().collect();
            let found = log.read_stream(&ann, after as u64, limit).unwrap();
            assert_eq!(found, expected, "read_stream(ann, {after}, {limit})");
        }
    }
    assert_eq!(log.read_stream(&ann, u64::MAX, 9).unwrap(), []);
    assert_eq!(log.read_stream(&ann, 0, usize::MAX).unwrap(), history);
    assert_eq!(log.read(u64::MAX, 9).unwrap(), []);
}

fn names_are_no_prefixes(log: &impl EventLog) {
    let names = ["a/b", "a/bc", "aa/b", "a/b.c", "a"];
    for (n, name) in (1..).zip(names) {
        let events = (0..n).map(|n| expired(n, 1)).collect();
        append(log, name, 0, events).unwrap();
    }
    for (n, name) in (1..).zip(names) {
        let history = log.read_stream(&stream(name), 0, 99).unwrap();
        assert_eq!(history.len(), n, "{name} has its own events only");
        assert!(history.iter().all(|record| record.envelope.stream == stream(name)));
        assert_eq!(log.stream_head(&stream(name)).unwrap().version, n as u64);
    }
    assert_eq!(log.read_stream(&stream("b"), 0, 99).unwrap(), []);
}

fn a_command_finds_its_records(log: &impl EventLog) {
    let by = |event: NewEvent, n| NewEvent { command: command(n), ..event };
    let writes = vec![
        write("ann", 0, vec![by(expired(1, 1), 7), by(expired(2, 1), 8), by(expired(3, 1), 7)]),
        write("bob", 0, vec![by(expired(4, 1), 7)]),
    ];
    one(log, Batch { writes }).unwrap();
    append(log, "cat", 0, vec![by(expired(5, 1), 8)]).unwrap();
    append(log, "cat", 1, vec![by(expired(6, 1), 7)]).unwrap();
    let found = |n| positions(&all_of(log, Key::Command(command(n))));
    assert_eq!(found(7), [1, 3, 4, 6], "over several streams and calls, in order");
    assert_eq!(found(8), [2, 5]);
    assert_eq!(found(9), []);
    assert_eq!(all_of(log, Key::Command(command(8)))[1], log.read(5, 1).unwrap()[0]);
    keeps_to_its_bounds(log, Key::Command(command(7)));
}

fn a_package_finds_what_brought_it(log: &impl EventLog) {
    let created = NewEvent { event: Event::Created(facts(1)), ..uploaded(1, 1) };
    append(log, "ann", 0, vec![expired(2, 1), created]).unwrap();
    append(log, "ann", 2, vec![uploaded(1, 2), uploaded(2, 2), expired(1, 3)]).unwrap();
    let found = |n| find_package(log, &package(n)).unwrap().map(|record| record.seq);
    assert_eq!((found(1), found(2), found(3)), (Some(2), Some(4), None));
    assert_eq!(find_package(log, &package(2)).unwrap(), log.read(4, 1).unwrap().pop());
}

fn a_package_has_a_history_of_its_own(log: &impl EventLog) {
    append(log, "ann", 0, vec![expired(1, 1), uploaded(1, 1), uploaded(2, 1)]).unwrap();
    append(log, "bob", 0, vec![uploaded(3, 1)]).unwrap();
    append(log, "ann", 3, vec![reserved(1, 7), expired(2, 1)]).unwrap();
    append(log, "ann", 5, vec![expired(1, 1)]).unwrap();
    let history = |n| positions(&all_of(log, Key::Package(&package(n))));
    assert_eq!(history(1), [2, 5, 7], "from what brought it on");
    assert_eq!((history(2), history(3), history(4)), (vec![3, 6], vec![4], vec![]));
    assert_eq!(all_of(log, Key::Package(&package(3))), log.read(4, 1).unwrap());
    keeps_to_its_bounds(log, Key::Package(&package(1)));
}

fn an_init_key_is_known_in_its_pool(log: &impl EventLog) {
    append(log, "ann", 0, vec![uploaded(1, 1), expired(1, 1), uploaded(2, 1)]).unwrap();
    append(log, "bob", 0, vec![uploaded(3, 1)]).unwrap();
    let known =
        |name: &str, n| knows_init_key(log, &name.parse().unwrap(), &facts(n).init_key).unwrap();
    assert_eq!([1, 2, 3, 4].map(|n| known("ann", n)), [true, true, false, false]);
    assert_eq!([1, 2, 3, 4].map(|n| known("bob", n)), [false, false, true, false]);
}

fn a_reservation_finds_what_made_it(log: &impl EventLog) {
    append(log, "ann", 0, vec![uploaded(1, 1), reserved(1, 7)]).unwrap();
    append(log, "bob", 0, vec![reserved(2, 8)]).unwrap();
    let found = |n| find_reservation(log, reservation(n), 0).unwrap();
    assert_eq!(found(7), log.read(2, 1).unwrap().pop());
    assert_eq!(found(8), log.read(3, 1).unwrap().pop());
    assert_eq!(found(9), None);
    let found_after = |after| find_reservation(log, reservation(8), after).unwrap().is_some();
    assert_eq!([0, 1, 2, 3, 4].map(found_after), [true, true, true, false, false]);
}

fn payloads_come_back_whole(log: &impl EventLog) {
    let lens = [0, 1, 400, 6_000, 6_200, 16_384, 70_000, 300_000];
    let payload = |len: usize| -> Vec<u8> { (0..len).map(|n| n.to_le_bytes()[n % 2]).collect() };
    let with = |len| NewEvent { payload: payload(len), ..uploaded(1, 1) };
    append(log, "ann", 0, lens.map(with).to_vec()).unwrap();
    for (version, len) in (8..).zip(lens) {
        append(log, "ann", version, vec![with(len)]).unwrap();
    }
    append(log, "bob", 0, vec![with(16_384); 64]).unwrap();
    for (seq, len) in (1..).zip(lens.iter().chain(&lens).chain(&[16_384; 64])) {
        assert_eq!(
            read_record(log, seq).unwrap().unwrap().payload,
            payload(*len),
            "of record {seq}"
        );
        let record = log.read(seq, 1).unwrap().pop().unwrap();
        assert_eq!(
            (record.payload.len(), record.envelope.payload),
            (*len, Hash::of(&payload(*len)))
        );
    }
    assert_eq!(read_record(log, 99).unwrap(), None);
}

fn one_of_many_writers_wins<L: EventLog>(log: &L) {
    let n_rounds = 10;
    let write = |writer: u8| {
        let try_version = |n| append(log, "ann", n, vec![expired(writer, 1)]);
        let mut won = 0;
        for version in 0..n_rounds {
            match try_version(version) {
                Ok(_) => won += 1,
                other => conflicts(&other),
            }
            // The next round begins when this one is decided, whoever has won it.
            assert!(log.stream_head(&stream("ann")).unwrap().version > version);
        }
        won
    };
    let won: u64 = thread::scope(|scope| {
        let writers: Vec<_> = (0..8).map(|writer| scope.spawn(move || write(writer))).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).sum()
    });
    assert_eq!(won, n_rounds, "exactly one writer wins each version");
    assert_eq!(log.head().unwrap().seq, n_rounds);
    numbers_are_whole(&log.read(1, 99).unwrap());
}

fn readers_see_whole_batches<L: EventLog>(log: &L) {
    let n_batches = 30;
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..n_batches {
                let writes = ["ann", "bob"].map(|name| write(name, n, vec![expired(1, n)]));
                one(log, Batch { writes: writes.to_vec() }).unwrap();
            }
        });
        while log.head().unwrap().seq < 2 * n_batches {
            let seen = log.read(1, usize::MAX).unwrap();
            numbers_are_whole(&seen);
            assert_eq!(seen.len() % 2, 0, "half a batch is never seen");
        }
    });
}
