//! The answers that a log with hidden names gives from memory: about users whose names it remembers.

use keypool_ledger::{EventLog, Key, MemoryIndex, NamedLog, SledLog, StreamId};
use tempfile::TempDir;

use super::{
    super::support::{batch, facts, open, stream, uploaded},
    append, pool,
};

/// A log on a disk with histories of devices of two users, which remembers all names.
fn remembering(dir: &TempDir) -> NamedLog<SledLog> {
    let log = NamedLog::open(open(dir.path()), true).unwrap();
    append(&log, batch("ann/phone", 0, vec![uploaded(1, 4)]));
    append(&log, batch("bob/main", 0, vec![uploaded(2, 4)]));
    log
}

#[test]
fn the_ends_of_histories_of_remembered_devices_are_in_memory() {
    let dir = TempDir::new().unwrap();
    let log = remembering(&dir);
    let has = |name: &str| log.has_head(&stream(name));
    assert!(has("ann/phone") && has("bob/main"));
    assert!(!has("ann/tablet") && !has("bob/phone") && !has("cat/main"));
    assert!(!log.has_head(&StreamId::Mailbox(pool("bob/main"))), "the mailbox has no history");
    let names = log.read(1, 2).unwrap();
    assert!(names.iter().all(|record| matches!(record.envelope.stream, StreamId::Names(_))));
    assert!(has("ann/phone") && has("bob/main"), "reading the names again forgets none");
    assert!(!log.has_head(&StreamId::Server));

    drop(log);
    let log = NamedLog::open(open(dir.path()), true).unwrap();
    assert!(!log.has_head(&stream("ann/phone")), "no name is remembered yet");
    log.user("ann").unwrap();
    assert!(log.has_head(&stream("ann/phone")));
}

#[test]
fn a_key_of_a_remembered_device_is_looked_up_under_its_pseudonym() {
    let dir = TempDir::new().unwrap();
    let log = remembering(&dir);
    let may_have =
        |name: &str, n, after| log.may_have(Key::InitKey(&pool(name), &facts(n).init_key), after);
    assert!(may_have("ann/phone", 1, 0) && may_have("bob/main", 2, 0));
    assert!(!may_have("ann/phone", 2, 0) && !may_have("bob/main", 1, 0));
    assert!(!may_have("bob/main", 2, 6), "it came before that");
    assert!(may_have("cat/main", 1, 0), "the log alone knows a user who is not remembered");
    let package = facts(1).keypackage_ref;
    assert!(log.may_have(Key::Package(&package), 0) && !log.may_have(Key::Package(&package), 6));
}

#[test]
fn memory_answers_by_name_in_a_log_that_was_begun_with_names() {
    let dir = TempDir::new().unwrap();
    let log = NamedLog::open(open(dir.path()), false).unwrap();
    append(&log, batch("ann/phone", 0, vec![uploaded(1, 4)]));
    let key = facts(1).init_key;
    assert!(log.has_head(&stream("ann/phone")) && !log.has_head(&stream("bob")));
    assert!(log.may_have(Key::InitKey(&pool("ann/phone"), &key), 0));
    assert!(!log.may_have(Key::InitKey(&pool("bob"), &key), 0));
    let mailbox = StreamId::Mailbox(pool("ann/phone"));
    assert!(!log.has_head(&mailbox));
    let mut write = batch("ann/phone", 0, vec![uploaded(2, 4)]);
    write.writes[0].stream = mailbox.clone();
    append(&log, write);
    assert!(log.has_head(&mailbox));
}
