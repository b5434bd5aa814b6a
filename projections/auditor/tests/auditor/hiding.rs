//! Copies of logs in which pseudonyms stand in the places of names, by the real program.

use std::{fs, path::Path};

use keypool_ledger::{JournalReader, Record, StreamId, SubjectId, codec};
use tempfile::TempDir;

use crate::{fixtures::fixtures, histories::exported, restoring::directory, tool::tool_in};

/// The output of the program, which must end well.
fn said(dir: &Path, words: &str) -> String {
    let (said, code) = tool_in(dir, &words.split(' ').collect::<Vec<_>>());
    assert_eq!(code, 0, "{words}: {said}");
    said
}

/// The records of a data directory as they stand there.
fn records(dir: &Path) -> Vec<Record> {
    JournalReader::open(&dir.join("journal")).unwrap().collect::<Result<_, _>>().unwrap()
}

fn holds(bytes: &[u8], name: &str) -> bool {
    bytes.windows(name.len()).any(|part| part == name.as_bytes())
}

#[test]
fn a_copy_that_hides_names_tells_the_same_story() {
    let dir = TempDir::new().unwrap();
    directory(dir.path(), "data", "journal-clean");
    for file in ["checkpoint.key", "checkpoint"] {
        fs::write(dir.path().join("data").join(file), file).unwrap();
    }
    let copied = said(dir.path(), "hide-names data hidden");
    assert!(copied.contains("copied to hidden, without names"), "{copied}");
    let (before, after) = (records(&dir.path().join("data")), records(&dir.path().join("hidden")));
    assert!(before.len() < after.len());
    for (old, new) in before.iter().zip(&after) {
        let [old, new] = [old, new].map(|record| (record.seq, record.envelope.clone()));
        assert_eq!((old.0, old.1.version, old.1.at), (new.0, new.1.version, new.1.at));
        assert_eq!((old.1.command, old.1.payload), (new.1.command, new.1.payload));
    }
    for record in &after {
        let is_name = matches!(record.envelope.stream, StreamId::Names(_));
        for name in ["alice", "bob", "carol"] {
            assert!(!holds(&record.envelope_bytes, name), "{name} in record {}", record.seq);
            assert!(is_name || !holds(&record.payload, name));
        }
        assert_eq!(is_name, before.len() < usize::try_from(record.seq).unwrap());
        assert_eq!(record.envelope.schema, codec::SCHEMA_PSEUDONYMS);
    }
    let (told, now_told) = (said(dir.path(), "log data"), said(dir.path(), "log hidden"));
    assert!(now_told.starts_with(&told), "{now_told}");
    for words in ["replay", "explain"] {
        let line = |log| match words {
            "replay" => format!("replay {log} --pool bob"),
            _ => format!("explain {log} bob --at 40"),
        };
        assert_eq!(
            tool_in(dir.path(), &line("data").split(' ').collect::<Vec<_>>()),
            tool_in(dir.path(), &line("hidden").split(' ').collect::<Vec<_>>())
        );
    }
    said(dir.path(), "verify hidden");
    said(dir.path(), "audit hidden");
    let ended = dir.path().join("hidden/ledger-before-1");
    assert_eq!(fs::read_to_string(ended.join("checkpoint.key")).unwrap(), "checkpoint.key");
    assert_eq!(fs::read_to_string(ended.join("checkpoint")).unwrap(), "checkpoint");
}

#[test]
fn a_log_that_hides_names_is_read_with_them_from_the_middle_too() {
    let log = fixtures().join("../logs/schema-2/journal");
    let (all, code) = tool_in(&log, &["log", "."]);
    assert_eq!(code, 0, "{all}");
    let (rest, code) = tool_in(&log, &["log", ".", "--from", "12"]);
    assert_eq!(code, 0, "{rest}");
    assert!(all.ends_with(&rest) && rest.contains("alice/phone"), "{rest}");
}

#[test]
fn names_are_hidden_once_and_over_nothing() {
    let dir = TempDir::new().unwrap();
    directory(dir.path(), "data", "journal-clean");
    said(dir.path(), "hide-names data hidden");
    let refused = |words: &str, why: &str| {
        let (said, code) = tool_in(dir.path(), &words.split(' ').collect::<Vec<_>>());
        assert!(code == 1 && said.contains(why), "{code}: {said}");
    };
    refused("hide-names hidden again", "already");
    refused("hide-names data hidden", "there is a journal already");
    fs::copy(fixtures().join("clean.export"), dir.path().join("clean.export")).unwrap();
    refused("hide-names clean.export other", "is no data directory");
}

#[test]
fn the_names_of_an_erased_user_alone_may_be_gone() {
    let golden: Vec<Record> = JournalReader::open(&fixtures().join("../logs/schema-2/journal"))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let dir = TempDir::new().unwrap();
    let verified = |gone: &dyn Fn(&Record) -> bool| {
        let mut records = golden.clone();
        records.iter_mut().filter(|record| gone(record)).for_each(|record| record.payload.clear());
        fs::write(dir.path().join("log.export"), exported(&records, 1 << 16)).unwrap();
        tool_in(dir.path(), &["verify", "log.export"])
    };
    let names_of =
        |record: &Record, user: &SubjectId| record.envelope.stream == StreamId::Names(*user);
    let [alice, bob] = [[1; 16], [0xfe; 16]].map(SubjectId::from_bytes);
    let (said, code) = verified(&|record| names_of(record, &bob));
    assert!(code == 0 && said.contains("3 payloads pruned"), "{said}");
    let (said, code) = verified(&|record| names_of(record, &alice));
    assert!(code != 0 && said.contains("no event says that the user was erased"), "{said}");
    // The message is bob's, and the declared credential is alice's.
    let named = |record: &Record, name: &str| record.envelope.event.name() == name;
    let (said, code) = verified(&|record| named(record, "credential_declared"));
    assert!(code != 0 && said.contains("the credential in it is gone"), "{said}");
    let (said, code) = verified(&|record| named(record, "uploaded"));
    assert!(code != 0 && said.contains("neither spent nor has it expired"), "{said}");
}
