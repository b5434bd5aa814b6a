//! The logs of every schema that was ever released are read for ever.

mod hidden;
mod histories;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use insta::assert_snapshot;
use keypool_ledger::{
    Batch, EventLog, Hash, NamedLog, NewEvent, Record, SledLog, SledLogOptions, StreamId,
    StreamWrite, codec, log::append_at_head,
};
use tempfile::TempDir;

use self::{
    hidden::hidden_history,
    histories::{
        capabilities_history, frontend_history, history, identity_history, invitations_history,
        later_history, newest_history, operator_history,
    },
};
use super::{
    arbitrary::N_KINDS,
    support::{all, copy, open, read_journal, stream},
};

fn golden_log(schema: u16) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../fixtures/logs/schema-{schema}"))
}

/// The log of the kinds that came later, in schema 1 as well.
fn later_log() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/logs/schema-1-later")
}

/// The log of the kinds that came with groups that are made, statements and the server's own history.
fn newest_log() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/logs/schema-1-newest")
}

/// The log of the kinds that came with declared credentials and recovery keys.
fn identity_log() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/logs/schema-1-identity")
}

/// The log of registrations by the app's backend.
fn frontend_log() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/logs/schema-1-frontend")
}

/// The log of the kinds that came with answers to invitations and waiting lists.
fn invitations_log() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/logs/schema-1-invitations")
}

/// The log of packages whose capabilities are recorded.
fn capabilities_log() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/logs/schema-1-capabilities")
}

/// The log that hides names.
fn hidden_log() -> PathBuf {
    golden_log(codec::SCHEMA_PSEUDONYMS)
}

/// The log of the kinds that came with the operator's word on users.
fn operator_log() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/logs/schema-1-operator")
}

/// How many kinds of events the first two logs have.
const N_LATER_KINDS: usize = 21;
/// How many kinds of events the first three logs have.
const N_NEWEST_KINDS: usize = 30;
/// How many kinds of events the first four logs have.
const N_IDENTITY_KINDS: usize = 32;
/// How many kinds of events the first six logs have.
const N_INVITATIONS_KINDS: usize = 35;
/// How many kinds of events there are.
const N_ALL: usize = 37;

#[test]
fn the_log_of_schema_1_is_read_for_ever() {
    let records = read_journal(&golden_log(1)).unwrap();
    let kinds: BTreeSet<_> = records.iter().map(|record| record.envelope.event.name()).collect();
    assert_eq!(kinds.len(), usize::from(N_KINDS), "it has every kind of event");
    let lines: Vec<_> = records.iter().map(line).collect();
    assert_snapshot!(lines.join("\n"));

    let dir = TempDir::new().unwrap();
    copy(&golden_log(1), dir.path());
    assert_eq!(all(&open(dir.path())), records, "and a log opens with it");
}

#[test]
fn the_kinds_that_came_later_in_schema_1_are_read_for_ever() {
    let records = read_journal(&later_log()).unwrap();
    let lines: Vec<_> = records.iter().map(line).collect();
    assert_snapshot!(lines.join("\n"));
    let first = read_journal(&golden_log(1)).unwrap();
    let kinds: BTreeSet<_> =
        first.iter().chain(&records).map(|record| record.envelope.event.name()).collect();
    assert_eq!(kinds.len(), N_LATER_KINDS, "with the first log it has every kind of its time");
    assert_written_and_opened(&later_log(), later_history(), &records);
}

#[test]
fn the_newest_kinds_in_schema_1_are_read_for_ever() {
    let records = read_journal(&newest_log()).unwrap();
    let lines: Vec<_> = records.iter().map(line).collect();
    assert_snapshot!(lines.join("\n"));
    let logs = [read_journal(&golden_log(1)).unwrap(), read_journal(&later_log()).unwrap()];
    let kinds: BTreeSet<_> =
        logs.iter().flatten().chain(&records).map(|record| record.envelope.event.name()).collect();
    assert_eq!(kinds.len(), N_NEWEST_KINDS, "with the others it has every kind of its time");
    assert_written_and_opened(&newest_log(), newest_history(), &records);
}

#[test]
fn the_kinds_of_identity_in_schema_1_are_read_for_ever() {
    let records = read_journal(&identity_log()).unwrap();
    let lines: Vec<_> = records.iter().map(line).collect();
    assert_snapshot!(lines.join("\n"));
    let logs = [golden_log(1), later_log(), newest_log()].map(|log| read_journal(&log).unwrap());
    let kinds: BTreeSet<_> =
        logs.iter().flatten().chain(&records).map(|record| record.envelope.event.name()).collect();
    assert_eq!(kinds.len(), N_IDENTITY_KINDS, "with the others it has every kind of its time");
    assert_written_and_opened(&identity_log(), identity_history(), &records);
}

#[test]
fn the_registrations_by_a_frontend_in_schema_1_are_read_for_ever() {
    let records = read_journal(&frontend_log()).unwrap();
    let lines: Vec<_> = records.iter().map(line).collect();
    assert_snapshot!(lines.join("\n"));
    assert_written_and_opened(&frontend_log(), frontend_history(), &records);
}

#[test]
fn the_kinds_of_answered_invitations_in_schema_1_are_read_for_ever() {
    let records = read_journal(&invitations_log()).unwrap();
    let lines: Vec<_> = records.iter().map(line).collect();
    assert_snapshot!(lines.join("\n"));
    let logs = [golden_log(1), later_log(), newest_log(), identity_log(), frontend_log()];
    let logs = logs.map(|log| read_journal(&log).unwrap());
    let kinds: BTreeSet<_> =
        logs.iter().flatten().chain(&records).map(|record| record.envelope.event.name()).collect();
    assert_eq!(kinds.len(), N_INVITATIONS_KINDS, "with the others it has every kind of its time");
    assert_written_and_opened(&invitations_log(), invitations_history(), &records);
}

#[test]
fn the_operators_word_in_schema_1_is_read_for_ever() {
    let records = read_journal(&operator_log()).unwrap();
    let lines: Vec<_> = records.iter().map(line).collect();
    assert_snapshot!(lines.join("\n"));
    let logs = [golden_log(1), later_log(), newest_log(), identity_log(), invitations_log()];
    let logs = logs.map(|log| read_journal(&log).unwrap());
    let kinds: BTreeSet<_> =
        logs.iter().flatten().chain(&records).map(|record| record.envelope.event.name()).collect();
    assert_eq!(kinds.len(), N_ALL, "with the others it has every kind of event");
    assert_written_and_opened(&operator_log(), operator_history(), &records);
}

#[test]
fn packages_with_capabilities_in_schema_1_are_read_for_ever() {
    let records = read_journal(&capabilities_log()).unwrap();
    let lines: Vec<_> = records.iter().map(line).collect();
    assert_snapshot!(lines.join("\n"));
    assert_written_and_opened(&capabilities_log(), capabilities_history(), &records);
}

#[test]
fn the_log_of_schema_2_is_read_for_ever() {
    let records = read_journal(&hidden_log()).unwrap();
    let lines: Vec<_> = records.iter().map(line).collect();
    assert_snapshot!(lines.join("\n"));
    assert_written_and_opened(&hidden_log(), hidden_history(), &records);

    let dir = TempDir::new().unwrap();
    copy(&hidden_log(), dir.path());
    let log = NamedLog::open(open(dir.path()), false).unwrap();
    assert_snapshot!(all(&log).iter().map(line).collect::<Vec<_>>().join("\n"));
}

/// A history is written with the bytes of its golden log, and a log opens with them.
fn assert_written_and_opened(
    golden: &Path,
    history: Vec<(StreamId, NewEvent)>,
    records: &[Record],
) {
    let dir = TempDir::new().unwrap();
    write_histories(dir.path(), history);
    let written = read_journal(dir.path()).unwrap();
    assert_eq!(written, records, "they are written with the same bytes");
    for record in records {
        assert_eq!(codec::encode(&record.envelope).unwrap(), record.envelope_bytes);
    }
    let dir = TempDir::new().unwrap();
    copy(golden, dir.path());
    assert_eq!(all(&open(dir.path())), records, "and a log opens with it");
}

/// A record as the snapshot shows it.
fn line(record: &Record) -> String {
    let envelope = serde_json::to_string(&record.envelope).unwrap();
    let (seq, payload) = (record.seq, HEXLOWER.encode(&record.payload));
    format!("{seq} schema {} {envelope} payload {payload:?}", record.envelope.schema)
}

#[test]
fn the_log_of_the_schema_of_today_is_written_with_the_same_bytes() {
    let golden = read_journal(&golden_log(codec::SCHEMA)).unwrap();
    let dir = TempDir::new().unwrap();
    write_log(dir.path());
    for (written, golden) in read_journal(dir.path()).unwrap().iter().zip(&golden) {
        assert_eq!(codec::encode(&golden.envelope).unwrap(), golden.envelope_bytes);
        assert_eq!(written, golden);
    }
}

#[test]
fn the_chains_of_the_golden_log_are_whole() {
    for name in ["alice/phone", "alice/main"] {
        let mut prev = Hash::ZERO;
        for record in read_journal(&golden_log(1)).unwrap() {
            if record.envelope.stream == stream(name) {
                assert_eq!(record.envelope.prev, prev);
                assert_eq!(record.envelope.payload, Hash::of(&record.payload));
                prev = codec::chain_hash(&record.envelope_bytes);
            }
        }
    }
}

#[test]
#[ignore = "writes the fixture of a new schema, once: see fixtures/README.md"]
fn write_the_golden_log_of_this_schema() {
    let (dir, golden) = (TempDir::new().unwrap(), golden_log(codec::SCHEMA));
    assert!(!golden.exists(), "a released fixture never changes");
    write_log(dir.path());
    copy(&dir.path().join("journal"), &golden.join("journal"));
}

#[test]
#[ignore = "writes the fixture of kinds that came later, once: see fixtures/README.md"]
fn write_the_golden_log_of_later_kinds() {
    for (golden, history) in [
        (later_log(), later_history()),
        (newest_log(), newest_history()),
        (identity_log(), identity_history()),
        (frontend_log(), frontend_history()),
        (invitations_log(), invitations_history()),
        (capabilities_log(), capabilities_history()),
        (hidden_log(), hidden_history()),
        (operator_log(), operator_history()),
    ] {
        if !golden.exists() {
            let dir = TempDir::new().unwrap();
            write_histories(dir.path(), history);
            copy(&dir.path().join("journal"), &golden.join("journal"));
        }
    }
}

/// Writes events, each to its history.
fn write_histories(dir: &Path, history: Vec<(StreamId, NewEvent)>) {
    let log = SledLog::open(
        dir,
        SledLogOptions { segment_bytes: 2048, cache_bytes: 1 << 20, ..SledLogOptions::default() },
    );
    let log = log.unwrap();
    for (stream, event) in history {
        let expected = log.stream_head(&stream).unwrap().version;
        let writes = vec![StreamWrite { stream, expected, events: vec![event] }];
        append_at_head(&log, &[Batch { writes }]).pop().unwrap().unwrap();
    }
}

/// Writes every kind of event of the first log, in several segments.
fn write_log(dir: &Path) {
    let log = SledLog::open(
        dir,
        SledLogOptions { segment_bytes: 2048, cache_bytes: 1 << 20, ..SledLogOptions::default() },
    );
    let log = log.unwrap();
    let mut versions = [0, 0];
    for (n, calls) in (0..).zip(history().chunks(3)) {
        let pool = n % 2;
        let name = ["alice/phone", "alice/main"][pool];
        let events: Vec<_> = calls.to_vec();
        let (expected, n_events) = (versions[pool], events.len() as u64);
        let writes = vec![StreamWrite { stream: stream(name), expected, events }];
        append_at_head(&log, &[Batch { writes }]).pop().unwrap().unwrap();
        versions[pool] += n_events;
    }
}
