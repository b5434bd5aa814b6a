//! The logs of every schema that was ever released are read for ever.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use insta::assert_snapshot;
use keypool_ledger::{
    Batch, CommandId, CredentialBytes, Event, EventLog, GroupId, Hash, InvitationAnswer,
    KeyPackageRef, LeaveCause, NewEvent, PoolId, Record, ReleaseReason, ReservationId,
    ReservePolicy, RevokeReason, RuleSettings, Signature, SignatureKey, SignedStatement, SledLog,
    SledLogOptions, StreamId, StreamWrite, Timestamp, WelcomeFault, codec, log::append_at_head,
};
use tempfile::TempDir;
use uuid::Uuid;

use super::{
    arbitrary::N_KINDS,
    support::{all, copy, facts, open, package, read_journal, stream},
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

/// The log of the kinds that came with answers to invitations and waiting lists.
fn invitations_log() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/logs/schema-1-invitations")
}

/// How many kinds of events the first two logs have.
const N_LATER_KINDS: usize = 21;
/// How many kinds of events the first three logs have.
const N_NEWEST_KINDS: usize = 30;
/// How many kinds of events the first four logs have.
const N_IDENTITY_KINDS: usize = 32;
/// How many kinds of events there are.
const N_ALL: usize = 35;

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
fn the_kinds_of_answered_invitations_in_schema_1_are_read_for_ever() {
    let records = read_journal(&invitations_log()).unwrap();
    let lines: Vec<_> = records.iter().map(line).collect();
    assert_snapshot!(lines.join("\n"));
    let logs = [golden_log(1), later_log(), newest_log(), identity_log()];
    let logs = logs.map(|log| read_journal(&log).unwrap());
    let kinds: BTreeSet<_> =
        logs.iter().flatten().chain(&records).map(|record| record.envelope.event.name()).collect();
    assert_eq!(kinds.len(), N_ALL, "with the others it has every kind of event");
    assert_written_and_opened(&invitations_log(), invitations_history(), &records);
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
        (invitations_log(), invitations_history()),
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

/// Every kind of event that came later, and every reason.
fn later_history() -> Vec<(StreamId, NewEvent)> {
    let device = |name: &str| -> PoolId { name.parse().unwrap() };
    let pool = || stream("alice/phone");
    let group = || StreamId::Group(GroupId::new(b"a group").unwrap());
    let mailbox = || StreamId::Mailbox(device("bob/laptop"));
    let user = || "bob".to_owned();
    let acknowledged = |through, overrun| Event::Acknowledged {
        through,
        overrun,
        accepted: Vec::new(),
        told: Vec::new(),
        available: Vec::new(),
    };
    let overrun = |dropped_through| Event::Overrun { dropped_through, group: None, sender: None };
    let reservation = ReservationId(Uuid::from_u128(1));
    let signature_key = SignatureKey::new(&[4; 65]).unwrap();
    let events = vec![
        (
            pool(),
            Event::LeafKeyPinned { signature_scheme: 0x0403, signature_key, statement: None },
            0,
        ),
        (pool(), Event::PolicySet { reserve: ReservePolicy::Contacts }, 0),
        (pool(), Event::PolicySet { reserve: ReservePolicy::Open }, 0),
        (pool(), Event::ContactAdded { user: user(), reservation }, 0),
        (pool(), Event::ContactRemoved { user: user() }, 0),
        (
            group(),
            Event::Committed {
                epoch: 1,
                committer: device("alice/phone"),
                added: vec![device("bob/laptop")],
                removed: vec![device("carol")],
                not_kept: Vec::new(),
            },
            700,
        ),
        (group(), Event::Welcomed { to: vec![device("bob/laptop")], by: None }, 3_000),
        (group(), Event::Posted { sender: device("bob/laptop"), not_kept: Vec::new() }, 90),
        (mailbox(), acknowledged(8, false), 0),
        (mailbox(), overrun(0), 0),
        (mailbox(), overrun(7), 0),
        (mailbox(), acknowledged(9, true), 0),
    ];
    let numbered = (0..).zip(events);
    numbered.map(|(n, (stream, event, len))| (stream, recorded(n, event, len))).collect()
}

/// Every kind of event that came last, and every new field of the kinds before.
#[expect(clippy::too_many_lines, reason = "one arm or line for each kind of event")]
fn newest_history() -> Vec<(StreamId, NewEvent)> {
    let device = |name: &str| -> PoolId { name.parse().unwrap() };
    let pool = || stream("alice/phone");
    let id = || GroupId::new(b"another group").unwrap();
    let group = || StreamId::Group(id());
    let mailbox = || StreamId::Mailbox(device("bob/laptop"));
    let (credential, user) = (|| "alice".to_owned(), || "mallory".to_owned());
    let key = |byte, len| SignatureKey::new(&vec![byte; len]).unwrap();
    let statement = || {
        Some(SignedStatement {
            by: key(1, 32),
            head: Hash::of(b"the devices"),
            until: Timestamp::from_secs(1_770_000_300),
            proof: Signature::new(&[9; 64]).unwrap(),
        })
    };
    let settings = RuleSettings {
        reservation_ttl_ms: 60_000,
        grace_ms: 60_000,
        life_margin_ms: 60_000,
        renewals_max: 5,
        lapses_max: 2,
        packages_max: 64,
    };
    let (from, to) = (Timestamp::from_secs(2_000_000_000), Timestamp::from_secs(1_770_000_000));
    let overrun = |sender| Event::Overrun { dropped_through: 3, group: Some(id()), sender };
    let left = |cause| Event::Left { device: device("bob/laptop"), cause };
    let not_kept = || vec![device("bob/laptop")];
    let reported = |check| Event::Reported {
        keypackage_ref: package(1),
        reservation: ReservationId(Uuid::from_u128(1)),
        check,
    };
    let events = vec![
        (StreamId::Server, Event::Configured(settings), 0),
        (
            pool(),
            Event::Registered {
                signature_key: key(2, 32),
                credential: credential(),
                voucher: Some(key(1, 32)),
                statement: statement(),
            },
            0,
        ),
        (
            pool(),
            Event::KeyRotated {
                signature_key: key(3, 32),
                credential: credential(),
                statement: statement(),
            },
            0,
        ),
        (
            pool(),
            Event::LeafKeyPinned {
                signature_scheme: 0x0403,
                signature_key: key(4, 65),
                statement: statement(),
            },
            0,
        ),
        (pool(), Event::StrangersLimitSet { per_hour: Some(600) }, 0),
        (pool(), Event::StrangersLimitSet { per_hour: None }, 0),
        (pool(), Event::UserBlocked { user: user() }, 0),
        (pool(), Event::UserUnblocked { user: user() }, 0),
        (pool(), reported(None), 0),
        (pool(), reported(Some("lifetime".to_owned())), 0),
        (group(), Event::GroupMade { creator: device("alice/phone") }, 0),
        (
            group(),
            Event::Committed {
                epoch: 0,
                committer: device("alice/phone"),
                added: vec![device("bob/laptop")],
                removed: Vec::new(),
                not_kept: not_kept(),
            },
            700,
        ),
        (group(), Event::Posted { sender: device("alice/phone"), not_kept: not_kept() }, 90),
        (mailbox(), overrun(None), 0),
        (mailbox(), overrun(Some(device("alice/phone"))), 0),
        (
            mailbox(),
            Event::Acknowledged {
                through: 9,
                overrun: false,
                accepted: vec![id()],
                told: vec![id()],
                available: Vec::new(),
            },
            0,
        ),
        (group(), left(LeaveCause::Left), 0),
        (group(), left(LeaveCause::Ignored), 0),
        (pool(), Event::NameReleased {}, 0),
        (StreamId::Server, Event::ClockAccepted { from, to }, 0),
    ];
    let numbered = (0..).zip(events);
    numbered.map(|(n, (stream, event, len))| (stream, recorded(n, event, len))).collect()
}

/// The kinds of events that came with declared credentials and recovery keys.
fn identity_history() -> Vec<(StreamId, NewEvent)> {
    let key = |byte| SignatureKey::new(&[byte; 32]).unwrap();
    let statement = |by| SignedStatement {
        by: key(by),
        head: Hash::of(b"the devices"),
        until: Timestamp::from_secs(1_770_000_300),
        proof: Signature::new(&[9; 64]).unwrap(),
    };
    let declared = |bytes: &[u8]| Event::CredentialDeclared {
        credential: CredentialBytes::new(bytes).unwrap(),
        statement: statement(1),
    };
    let recovery =
        |byte, by| Event::RecoveryKeySet { recovery_key: key(byte), statement: statement(by) };
    let events = vec![
        // Basic, 32 bytes that are no text; and an X.509 chain of one certificate.
        declared(&[&[0, 1, 32][..], &[0xfe; 32]].concat()),
        declared(&[0, 2, 4, 3, 0x30, 1, 0]),
        recovery(5, 1),
        recovery(6, 5),
        Event::Registered {
            signature_key: key(7),
            credential: "alice".to_owned(),
            voucher: None,
            statement: Some(statement(6)),
        },
    ];
    let numbered = (0..).zip(events);
    numbered.map(|(n, event)| (stream("alice/phone"), recorded(n, event, 0))).collect()
}

/// The kinds of events that came with answers to invitations and waiting lists, with every answer, every
/// reason, and every new field of the kinds before.
fn invitations_history() -> Vec<(StreamId, NewEvent)> {
    let device = |name: &str| -> PoolId { name.parse().unwrap() };
    let id = || GroupId::new(b"an answered group").unwrap();
    let group = || StreamId::Group(id());
    let mailbox = || StreamId::Mailbox(device("alice/phone"));
    let answered = |answer| {
        let (device, inviter) = (device("bob/laptop"), device("alice/phone"));
        (group(), Event::InvitationAnswered { device, inviter, answer }, 0)
    };
    let failed = |reason| answered(InvitationAnswer::Failed { reason });
    let until = Timestamp::from_secs(1_771_209_600);
    let awaited = |as_stranger: Vec<PoolId>| {
        let targets = vec![device("bob/laptop"), device("carol")];
        (mailbox(), Event::Awaited { targets, as_stranger, until }, 0)
    };
    let (to, by) = (vec![device("bob/laptop")], Some(device("alice/phone")));
    let cause = LeaveCause::Failed;
    let events = vec![
        (group(), Event::Welcomed { to, by }, 3_000),
        answered(InvitationAnswer::Joined),
        failed(WelcomeFault::KeysGone),
        failed(WelcomeFault::Expired),
        failed(WelcomeFault::Unreadable),
        failed(WelcomeFault::Untrusted),
        answered(InvitationAnswer::Declined),
        answered(InvitationAnswer::Expired),
        (group(), Event::Left { device: device("bob/laptop"), cause }, 0),
        awaited(Vec::new()),
        awaited(vec![device("carol")]),
        (
            mailbox(),
            Event::Acknowledged {
                through: 9,
                overrun: false,
                accepted: Vec::new(),
                told: Vec::new(),
                available: vec![device("bob/laptop")],
            },
            0,
        ),
        (mailbox(), Event::AwaitStopped { targets: vec![device("carol")] }, 0),
    ];
    let numbered = (0..).zip(events);
    numbered.map(|(n, (stream, event, len))| (stream, recorded(n, event, len))).collect()
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

/// Every kind of event of the first log, and every reason.
#[expect(clippy::too_many_lines, reason = "one arm or line for each kind of event")]
fn history() -> Vec<NewEvent> {
    let (first, second) = (ReservationId(Uuid::from_u128(1)), ReservationId(Uuid::from_u128(2)));
    let signature_key = |byte| SignatureKey::new(&[byte; 32]).unwrap();
    let holder: PoolId = "bob".parse().unwrap();
    let group = GroupId::new(b"a group").unwrap();
    let deadline = Timestamp::from_millis(1_770_000_060_000);
    let (one, two) = (|| package(1), || package(2));
    let revoked = |keypackage_ref: KeyPackageRef, reason| Event::Revoked {
        keypackage_ref,
        reason,
        check: None,
    };
    let reserved = |keypackage_ref, reservation, generation| Event::Reserved {
        keypackage_ref,
        reservation,
        generation,
        holder: holder.clone(),
        group: group.clone(),
        deadline,
    };
    let released =
        |reservation, reason| Event::Released { keypackage_ref: one(), reservation, reason };
    let spent = |keypackage_ref, reservation, holder, late| Event::Spent {
        keypackage_ref,
        reservation,
        holder,
        group: group.clone(),
        late,
    };
    let credential = || "alice".to_owned();
    let events = vec![
        (
            Event::Registered {
                signature_key: signature_key(1),
                credential: credential(),
                voucher: None,
                statement: None,
            },
            0,
        ),
        (Event::Created(facts(1)), 0),
        (Event::Uploaded(facts(1)), 400),
        (reserved(one(), first, 1), 0),
        (Event::Renewed { keypackage_ref: one(), reservation: first, deadline }, 0),
        (released(first, ReleaseReason::Cancelled), 0),
        (reserved(one(), second, 2), 0),
        (released(second, ReleaseReason::Lapsed), 0),
        (spent(one(), Some(second), Some(holder.clone()), true), 0),
        (Event::Conflict { keypackage_ref: one(), lost: first, holds: second }, 0),
        (Event::Uploaded(facts(2)), 3_000),
        (spent(two(), None, None, false), 0),
        (Event::Expired { keypackage_ref: package(3) }, 0),
        (revoked(package(4), RevokeReason::Rotated), 0),
        (revoked(package(5), RevokeReason::Withdrawn), 0),
        (revoked(package(6), RevokeReason::Reported), 0),
        (revoked(package(7), RevokeReason::Lapsed), 0),
        (
            Event::KeyRotated {
                signature_key: signature_key(2),
                credential: credential(),
                statement: None,
            },
            0,
        ),
        (Event::DeviceRemoved {}, 0),
    ];
    (0..).zip(events).map(|(n, (event, payload_len))| recorded(n, event, payload_len)).collect()
}

fn recorded(n: u64, event: Event, payload_len: usize) -> NewEvent {
    NewEvent {
        at: Timestamp::from_millis(1_770_000_000_000 + 250 * n),
        command: CommandId(Uuid::from_u128(u128::from(n / 2))),
        request: Hash::of(&n.to_be_bytes()),
        event,
        payload: (0..payload_len).map(|n| n.to_le_bytes()[0]).collect(),
    }
}
