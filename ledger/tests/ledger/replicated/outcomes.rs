//! Servers that write over an engine with every fault at once: each outcome they were told is true.

use std::{collections::BTreeMap, thread};

use keypool_ledger::{
    AppendError, Batch, CommandId, Conflict, EventLog, Record, ReplicatedLog, log::find_command,
};
use quickcheck::{QuickCheck, TestResult};

use super::{IMPATIENT, MemoryStream, Node, OPTIONS, StreamFaults};
use crate::ledger::support::{all, batch, command, stream, uploaded};

/// How many appends each server tries.
const APPENDS: u64 = 25;
/// The first of the commands that all servers try.
const CLAIMED: u64 = 1_000_000;
/// The histories that all servers write to.
const POOLS: [&str; 3] = ["ann", "bob", "cat"];

/// The outcome of a batch, as its writer was told.
#[derive(Debug)]
enum Told {
    Written(Vec<Record>),
    NotWritten,
    InDoubt,
}

/// A batch in the server's own history for a command that all servers try, unless it was carried out.
fn claim(log: &ReplicatedLog, server: u64, n: u64) -> Option<Batch> {
    let claimed = CLAIMED + n;
    if !find_command(log, command(claimed), 0).unwrap().is_empty() {
        return None;
    }
    let name = format!("server-{server}");
    let version = log.stream_head(&stream(&name)).unwrap().version;
    Some(batch(&name, version, vec![uploaded(claimed, 0)]))
}

/// Writes with fresh commands on each attempt, and notes every outcome.
fn write(log: &ReplicatedLog, server: u64) -> Vec<(CommandId, Told)> {
    let mut told = Vec::new();
    for n in 0..APPENDS {
        let decided_at = log.head().unwrap();
        let id = |pool: usize| 1 + server * 10_000 + n * 10 + pool as u64;
        let call = |(index, name): (usize, &&str)| {
            let version = log.stream_head(&stream(name)).unwrap().version;
            (command(id(index)), batch(name, version, vec![uploaded(id(index), 20)]))
        };
        let pools = POOLS.iter().enumerate().skip(usize::try_from(n % 3).unwrap());
        let (ids, mut batches): (Vec<_>, Vec<_>) = pools.map(call).unzip();
        batches.extend(claim(log, server, n));
        let mut answers = log.append(decided_at, batches);
        answers.truncate(ids.len());
        assert_eq!(answers.len(), ids.len());
        told.extend(ids.into_iter().zip(answers).map(|(id, answer)| {
            let outcome = match answer {
                Ok(appended) => Told::Written(appended.records),
                Err(AppendError::Conflict(Conflict::Chain { .. })) => {
                    panic!("no record was sealed")
                }
                Err(AppendError::Conflict(_) | AppendError::NotWritten(_)) => Told::NotWritten,
                Err(AppendError::InDoubt(_)) => Told::InDoubt,
                Err(error) => panic!("the log gave up: {error:?}"),
            };
            (id, outcome)
        }));
    }
    told
}

/// Three servers write at once, one of which gives up early. Then a fourth one takes in the stream.
fn outcomes_are_true(seed: u64) -> TestResult {
    let engine = MemoryStream::with_seed(seed);
    let nodes = [OPTIONS, OPTIONS, IMPATIENT]
        .map(|options| Node::with(&engine, StreamFaults::Random, options));
    let logs = nodes.each_ref().map(|node| &node.log);
    let told: Vec<_> = thread::scope(|scope| {
        let writers: Vec<_> =
            (0..).zip(logs).map(|(n, log)| scope.spawn(move || write(log, n))).collect();
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    let fresh = Node::new(&engine, StreamFaults::Never);
    let stored = all(&fresh.log);
    for node in &nodes {
        node.wait_for(stored.len() as u64);
        assert_eq!(all(&node.log), stored, "all copies are the same");
    }
    let mut by_command: BTreeMap<CommandId, Vec<&Record>> = BTreeMap::new();
    for record in &stored {
        by_command.entry(record.envelope.command).or_default().push(record);
    }
    for (id, outcome) in &told {
        let found = by_command.remove(id).unwrap_or_default();
        match outcome {
            Told::Written(records) => {
                assert_eq!(found, records.iter().collect::<Vec<_>>(), "acknowledged and not there");
            }
            Told::NotWritten => assert_eq!(found, Vec::<&Record>::new(), "refused and there"),
            Told::InDoubt => assert!(found.len() <= 1, "written twice"),
        }
    }
    for (id, found) in by_command {
        assert!(command(CLAIMED) <= id, "nobody else has written");
        assert_eq!(found.len(), 1, "a command that all servers tried was carried out once");
    }
    TestResult::from_bool(told.iter().any(|(_, told)| matches!(told, Told::Written(_))))
}

#[test]
fn every_outcome_is_true_over_an_engine_with_faults() {
    QuickCheck::new().tests(12).quickcheck(outcomes_are_true as fn(u64) -> TestResult);
}
