//! Choosing the events of `log` by time, kind and number.

use std::{fs, path::Path, time::Duration};

use insta::assert_snapshot;
use keypool_ledger::{Clock, Record, StreamId, SystemClock};
use tempfile::TempDir;

use crate::{
    histories::{exported, sealed, written},
    history::{events_of_a, pool},
    tool::{tool, tool_in, transcript},
};

/// A log of events of one package that were recorded so many hours before the machine's clock.
fn log_of(hours: &[u64]) -> TempDir {
    let (dir, now) = (TempDir::new().unwrap(), SystemClock.now());
    let records = hours.iter().zip(events_of_a(false).into_iter().skip(1)).map(|(hours, event)| {
        let mut record = written(StreamId::Pool(pool("bob")), 0, event, &[]);
        record.envelope.at = now.before(Duration::from_hours(*hours));
        record
    });
    let records: Vec<Record> = sealed(records.collect());
    fs::write(dir.path().join("log.export"), exported(&records, 1024)).unwrap();
    dir
}

/// The records that `log` lists.
fn listed(dir: &Path, options: &[&str]) -> Vec<u64> {
    let (said, code) = tool_in(dir, &[&["log", "log.export"], options].concat());
    assert_eq!(code, 0, "{options:?}: {said}");
    let number = |line: &str| line.split_whitespace().next().and_then(|seq| seq.parse().ok());
    said.lines().map(|line| number(line).unwrap_or_else(|| panic!("{line}"))).collect()
}

#[test]
fn events_are_chosen_by_times_relative_to_the_clock() {
    let dir = log_of(&[49, 12, 3, 1]);
    let listed = |options: &[&str]| listed(dir.path(), options);
    assert_eq!(listed(&["--since", "yesterday"]), [2, 3, 4]);
    assert_eq!(listed(&["--since", "2 hours ago"]), [4]);
    assert_eq!(listed(&["--until", "2 hours ago"]), [1, 2, 3]);
    assert_eq!(listed(&["--since", "1 day ago", "--until", "2 hours ago"]), [2, 3]);
    assert_eq!(listed(&["--until", "now"]), [1, 2, 3, 4]);
    assert_eq!(listed(&["--since", "now"]), [0; 0]);
}

#[test]
fn the_log_is_chosen_from_by_time_kind_and_number() {
    let mut said = String::new();
    for options in [
        &["--since", "2027-01-15 08:05", "--until", "2027-01-15T08:05:11Z"][..],
        &["--since", "2027-01-15T09:05+01:00", "--tail", "2"],
        &["--event", "spent,conflict"],
        &["--event", "spent", "--event", "conflict", "--tail", "3", "--pool", "bob"],
        &["--event", "posted", "--tail", "9"],
        &["--tail", "0"],
        &["--event", "spend"],
        &["--since", "2027-01-16", "--until", "2027-01-15"],
        &["--since", "2027"],
        &["--until", "2027-02-30"],
        &["--since", "2999-01-01"],
        &["--until", "now", "--follow"],
    ] {
        said.push_str(&transcript(&[&["log", "clean.export"], options].concat()));
    }
    said.push_str(&transcript(&["replay", "clean.export", "--at", "2999-01-01"]));
    said.push_str(&transcript(&["explain", "clean.export", "dave", "--at", "noon"]));
    assert_snapshot!(said);
}

/// The kinds that the tool lists when it is asked for another one.
pub(crate) fn kinds() -> Vec<String> {
    let (said, _) = tool(&["log", "clean.export", "--event", "none"]);
    let (_, kinds) = said.split_once("[possible values: ").unwrap();
    let (kinds, _) = kinds.split_once(']').unwrap();
    kinds.split(',').map(|kind| kind.trim().to_owned()).collect()
}

#[test]
fn every_kind_of_event_can_be_chosen() {
    let logs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/logs");
    let logs: Vec<_> = fs::read_dir(logs).unwrap().map(|entry| entry.unwrap().path()).collect();
    let count = |options: &[&str]| {
        let lines = logs.iter().map(|log| tool_in(log, &[&["log", "journal"], options].concat()));
        lines
            .map(|(said, code)| if code == 0 { said.lines().count() } else { panic!("{said}") })
            .sum()
    };
    let (mut sum, all): (usize, usize) = (0, count(&[]));
    for kind in kinds() {
        let of_kind: usize = count(&["--event", &kind]);
        assert!(0 < of_kind, "the golden logs have every kind, and {kind} is found");
        sum += of_kind;
    }
    assert_eq!(sum, all);
}
