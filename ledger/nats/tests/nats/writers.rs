//! Servers that write one log at once and note each outcome, which is then held against the stream.

use std::{
    collections::BTreeMap,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::Sender,
    },
};

use keypool_ledger::{AppendError, CommandId, EventLog, Record, ReplicatedLog};

use super::support::{batch, command, now, pool, uploaded};

/// How many histories all servers write to.
const POOLS: u64 = 24;

/// The outcome of a batch, as its writer was told.
#[derive(Debug)]
pub(crate) enum Told {
    Written(Vec<Record>),
    NotWritten,
    InDoubt,
}

/// An append that was acknowledged: by which server, and when, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acknowledged {
    pub(crate) server: usize,
    pub(crate) at: u64,
}

/// Writes batches of one to three events, each with a fresh command, until the end; tells of each
/// acknowledgement, and returns all outcomes.
pub(crate) fn write(
    log: &ReplicatedLog,
    server: usize,
    ending: &AtomicBool,
    acknowledged: &Sender<Acknowledged>,
) -> Vec<(CommandId, Told)> {
    let mut told = Vec::new();
    for n in 0.. {
        if ending.load(Ordering::Acquire) {
            return told;
        }
        let decided_at = log.head().unwrap();
        let id = |index: u64| (server as u64 + 1) * 1_000_000_000 + n * 10 + index;
        let call = |index: u64| {
            let name = format!("p{}", (n + index * 7) % POOLS);
            let version = log.stream_head(&pool(&name)).unwrap().version;
            (command(id(index)), batch(&name, version, vec![uploaded(id(index), 100)]))
        };
        let (ids, batches): (Vec<_>, Vec<_>) = (0..=n % 3).map(call).unzip();
        let answers = log.append(decided_at, batches);
        assert_eq!(answers.len(), ids.len());
        if answers.iter().any(Result::is_ok) {
            let _ = acknowledged.send(Acknowledged { server, at: now() });
        }
        told.extend(ids.into_iter().zip(answers).map(|(id, answer)| (id, outcome(answer))));
    }
    told
}

fn outcome(answer: Result<keypool_ledger::Appended, AppendError>) -> Told {
    match answer {
        Ok(appended) => Told::Written(appended.records),
        Err(AppendError::Conflict(_) | AppendError::NotWritten(_)) => Told::NotWritten,
        Err(AppendError::InDoubt(_)) => Told::InDoubt,
        Err(error) => panic!("the log gave up: {error:?}"),
    }
}

/// How many outcomes there were of each kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcomes {
    pub(crate) written: u64,
    pub(crate) not_written: u64,
    pub(crate) in_doubt: u64,
}

/// Holds the outcomes against the records of the stream.
pub(crate) fn check(told: &[(CommandId, Told)], stored: &[Record]) -> Outcomes {
    let mut by_command: BTreeMap<CommandId, Vec<&Record>> = BTreeMap::new();
    for record in stored {
        by_command.entry(record.envelope.command).or_default().push(record);
    }
    let mut outcomes = Outcomes::default();
    for (id, told) in told {
        let found = by_command.remove(id).unwrap_or_default();
        match told {
            Told::Written(records) => {
                outcomes.written += 1;
                assert_eq!(found, records.iter().collect::<Vec<_>>(), "acknowledged, not there");
            }
            Told::NotWritten => {
                outcomes.not_written += 1;
                assert_eq!(found, Vec::<&Record>::new(), "refused, and there");
            }
            Told::InDoubt => {
                outcomes.in_doubt += 1;
                assert!(found.len() <= 1, "written twice");
            }
        }
    }
    assert!(by_command.is_empty(), "nobody else has written");
    outcomes
}
