//! A log that hides names is like any other for its callers, and can forget a name.

mod copies;
mod memory;

use keypool_ledger::{
    AppendError, Batch, Event, EventEnvelope, EventLog, Hash, Key, MemoryLog, NAME_SALT_LEN,
    NamedLog, Names, NewEvent, PoolId, Record, StreamId, StreamWrite, SubjectId, Timestamp, codec,
    log::{append_at_head, conformance},
};
use quickcheck::quickcheck;
use tempfile::TempDir;

use super::{
    properties::{Calls, rebased},
    support::{all, batch, command, facts, open, stream, uploaded},
};

/// The records that callers have appended, without positions, links and bytes, which the names change.
fn told(records: &[Record]) -> Vec<(EventEnvelope, Vec<u8>)> {
    let is_callers = |record: &&Record| !matches!(record.envelope.stream, StreamId::Names(_));
    let bare = |Record { envelope, payload, .. }: &Record| {
        let (schema, prev) = (codec::SCHEMA, Hash::ZERO);
        let is_declared = matches!(envelope.event, Event::CredentialDeclared { .. });
        let (digest, payload) = if is_declared {
            (Hash::ZERO, Vec::new())
        } else {
            (envelope.payload, payload.clone())
        };
        (EventEnvelope { schema, prev, payload: digest, ..envelope.clone() }, payload)
    };
    records.iter().filter(is_callers).map(bare).collect()
}

fn named() -> NamedLog<MemoryLog> {
    NamedLog::open(MemoryLog::default(), true).unwrap()
}

/// Appends one batch, which must be taken.
fn append(log: &impl EventLog, batch: Batch) -> Vec<Record> {
    append_at_head(log, &[batch]).pop().unwrap().unwrap().records
}

fn pool(name: &str) -> PoolId {
    name.parse().unwrap()
}

fn event(n: u64, event: Event) -> NewEvent {
    NewEvent { event, payload: Vec::new(), ..uploaded(n, 0) }
}

fn reserved(n: u64, holder: &str) -> NewEvent {
    let keypackage_ref = facts(n).keypackage_ref;
    let (reservation, group) =
        ("00000000-0000-4000-8000-000000000001".parse().unwrap(), "Zw==".parse().unwrap());
    let (generation, deadline) = (1, Timestamp::default());
    let holder = pool(holder);
    event(n, Event::Reserved { keypackage_ref, reservation, generation, holder, group, deadline })
}

/// Erases a user, and returns the id that stood for the name.
fn erase(log: &NamedLog<MemoryLog>, name: &str) -> SubjectId {
    let user = log.user(name).unwrap().unwrap();
    let stream = StreamId::Names(user.id());
    let events = vec![event(99, Event::UserErased {})];
    append(log, Batch { writes: vec![StreamWrite { stream, expected: user.version(), events }] });
    user.id()
}

quickcheck! {
    fn callers_see_the_same_as_in_a_log_with_names(calls: Calls) -> bool {
        let (hiding, plain) = (named(), MemoryLog::default());
        for call in calls.0 {
            let (one, other) = (rebased(&hiding, &call), rebased(&plain, &call));
            assert_eq!(one, other);
            let answers = append_at_head(&hiding, &one);
            for (one, other) in answers.iter().zip(append_at_head(&plain, &other)) {
                match (one, other) {
                    (Ok(one), Ok(other)) => assert_eq!(told(&one.records), told(&other.records)),
                    (one, other) => assert_eq!(one.is_ok(), other.is_ok()),
                }
            }
        }
        assert_eq!(told(&all(&hiding)), told(&all(&plain)));
        for record in all(&plain) {
            let EventEnvelope { stream, version, command, .. } = &record.envelope;
            let (one, other) = (hiding.stream_head(stream), plain.stream_head(stream));
            assert_eq!(one.unwrap().version, other.unwrap().version);
            let one = hiding.read_stream(stream, version - 1, 9).unwrap();
            assert_eq!(told(&one), told(&plain.read_stream(stream, version - 1, 9).unwrap()));
            let of = |log: &dyn EventLog, key| told(&log.find(key, 0, 99).unwrap());
            assert_eq!(of(&hiding, Key::Command(*command)), of(&plain, Key::Command(*command)));
            if let Event::Uploaded(facts) = &record.envelope.event {
                let key = Key::InitKey(stream.pool().unwrap(), &facts.init_key);
                assert_eq!(of(&hiding, key), of(&plain, key));
            }
        }
        // A reader without an index finds the same.
        let mut names = Names::default();
        for record in all(hiding.inner()) {
            names.see(&record.envelope, &record.payload);
        }
        let revealed = all(hiding.inner()).into_iter().map(|mut record| {
            assert!(names.reveal(&mut record.envelope, &record.payload));
            record
        });
        assert_eq!(revealed.collect::<Vec<_>>(), all(&hiding));
        true
    }

    fn names_stand_in_the_payloads_of_names_alone(calls: Calls) -> bool {
        let log = named();
        for call in calls.0 {
            append_at_head(&log, &rebased(&log, &call));
        }
        let has = |bytes: &[u8], name: &str| bytes.windows(name.len()).any(|at| at == name.as_bytes());
        all(log.inner()).iter().all(|record| {
            let spoken = ["anna", "b@example.org", "c:d+e", "phone"];
            spoken.iter().all(|name| !has(&record.envelope_bytes, name))
                && codec::decode(&record.envelope_bytes).unwrap() == record.envelope
        })
    }
}

#[test]
fn a_name_is_told_once_and_with_salt() {
    let log = named();
    append(&log, batch("ann/phone", 0, vec![uploaded(1, 4), reserved(1, "bob/main")]));
    append(&log, batch("bob/main", 0, vec![reserved(2, "ann/phone")]));
    let records = all(log.inner());
    let names =
        records.iter().filter(|record| matches!(record.envelope.stream, StreamId::Names(_)));
    let mut told: Vec<_> = names
        .map(|record| {
            let name = String::from_utf8(record.payload[NAME_SALT_LEN..].to_vec()).unwrap();
            assert_ne!(record.envelope.payload, Hash::of(name.as_bytes()));
            (record.envelope.event.name(), name)
        })
        .collect();
    told.sort();
    let expected = [
        ("device_named", "main"),
        ("device_named", "phone"),
        ("user_named", "ann"),
        ("user_named", "bob"),
    ];
    assert_eq!(told, expected.map(|(event, name)| (event, name.to_owned())));
}

#[test]
fn an_erased_user_stands_under_the_pseudonym_and_the_name_begins_anew() {
    let log = named();
    append(&log, batch("ann", 0, vec![uploaded(1, 4), reserved(1, "bob/main")]));
    append(&log, batch("bob", 0, vec![uploaded(2, 4)]));
    let id = erase(&log, "bob");
    let hidden = id.device(2);

    let holder = |records: &[Record]| match &records[1].envelope.event {
        Event::Reserved { holder, .. } => holder.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(holder(&log.read_stream(&stream("ann"), 0, 9).unwrap()), hidden);
    assert_eq!(log.read_stream(&stream("bob"), 0, 9).unwrap(), []);
    assert_eq!(log.stream_head(&stream("bob")).unwrap().version, 0);
    assert_eq!(log.read_stream(&StreamId::Pool(hidden.clone()), 0, 9).unwrap().len(), 1);
    assert_eq!(log.user("bob").unwrap(), None);

    append(&log, batch("bob", 0, vec![uploaded(3, 4)]));
    assert_ne!(log.user("bob").unwrap().unwrap().id(), id);
    assert_eq!(log.read_stream(&stream("bob"), 0, 9).unwrap().len(), 1);
    // Whoever still speaks of the erased one does it by the pseudonym.
    append(&log, batch("ann", 2, vec![reserved(1, &hidden.to_string())]));
    assert_eq!(holder(&log.read_stream(&stream("ann"), 1, 9).unwrap()), hidden);
}

#[test]
fn a_pseudonym_does_not_stand_for_somebody_who_has_a_name() {
    let log = named();
    append(&log, batch("bob", 0, vec![uploaded(1, 4)]));
    let hidden = log.user("bob").unwrap().unwrap().id().device(2).to_string();
    assert_eq!(log.read_stream(&stream(&hidden), 0, 9).unwrap(), []);
    let answer = append_at_head(&log, &[batch(&hidden, 0, vec![uploaded(2, 4)])]).pop().unwrap();
    assert!(matches!(answer, Err(AppendError::NotWritten(_))), "{answer:?}");
    assert_eq!(all(&log).len(), 3);
}

#[test]
fn an_event_is_another_ones_with_names_in_nothing_but_the_names() {
    let (id, other) = (SubjectId::from_bytes([1; 16]), SubjectId::from_bytes([2; 16]));
    let of = |holder: &str| reserved(1, holder).event;
    let hidden = of(&id.device(2).to_string());
    assert_eq!(hidden.with_names_of(of("bob/main")), Some(of("bob/main")));
    assert_eq!(
        hidden.with_names_of(of(&other.device(2).to_string())),
        Some(of(&other.device(2).to_string()))
    );
    assert_eq!(hidden.with_names_of(reserved(2, "bob/main").event), None, "another package");
    assert_eq!(hidden.with_names_of(Event::UserBlocked { user: "bob".to_owned() }), None);
    let blocked = Event::UserBlocked { user: id.to_string() };
    let unblocked = Event::UserUnblocked { user: "bob".to_owned() };
    assert_eq!(blocked.with_names_of(unblocked), None);
}

#[test]
fn a_mailbox_is_found_by_the_name_of_its_device() {
    let log = named();
    let mut call = batch("bob/phone", 0, vec![uploaded(1, 4), uploaded(2, 4)]);
    let mailbox = StreamId::Mailbox(pool("bob/phone"));
    call.writes[0].stream = mailbox.clone();
    append(&log, call);
    assert_eq!(log.read_stream(&mailbox, 0, 9).unwrap().len(), 2);
    assert_eq!(log.stream_head(&mailbox).unwrap().version, 2);
    assert_eq!(log.stream_head(&stream("bob/phone")).unwrap().version, 0, "it is no pool");
    let beneath = all(log.inner()).pop().unwrap().envelope.stream;
    assert!(matches!(&beneath, StreamId::Mailbox(device) if device.is_pseudonym()), "{beneath}");
}

#[test]
fn a_user_whom_an_event_names_stands_there_under_the_pseudonym() {
    let log = named();
    let blocked = event(1, Event::UserBlocked { user: "cat".to_owned() });
    let told = append(&log, batch("bob", 0, vec![blocked]));
    assert_eq!(told[0].envelope.event, Event::UserBlocked { user: "cat".to_owned() });
    let cat = log.user("cat").unwrap().unwrap().id();
    let beneath = all(log.inner()).pop().unwrap().envelope.event;
    assert_eq!(beneath, Event::UserBlocked { user: cat.to_string() });
}

#[test]
fn a_log_that_was_begun_with_names_keeps_them() {
    let plain = MemoryLog::default();
    append(&plain, batch("bob", 0, vec![uploaded(1, 4)]));
    let log = NamedLog::open(plain, true).unwrap();
    assert!(!log.hides());
    append(&log, batch("bob", 1, vec![reserved(1, "ann/main")]));
    assert_eq!(all(&log), all(log.inner()));
    assert_eq!(all(&log)[1].envelope.schema, codec::SCHEMA);
}

#[test]
fn the_first_record_that_names_anybody_says_whether_a_log_hides_names() {
    let write = |stream, event| {
        let events = vec![NewEvent { event, payload: Vec::new(), ..uploaded(1, 0) }];
        Batch { writes: vec![StreamWrite { stream, expected: 0, events }] }
    };
    let made = Event::GroupMade { creator: pool("bob/main") };
    let named = write(StreamId::Group("Zw==".parse().unwrap()), made);
    let accepted = Event::ClockAccepted { from: Timestamp::default(), to: Timestamp::default() };
    let nameless = write(StreamId::Server, accepted);
    let plain = MemoryLog::default();
    append(&plain, nameless.clone());
    assert!(NamedLog::open(&plain, true).unwrap().hides());
    assert!(!NamedLog::open(&plain, false).unwrap().hides());
    append(&plain, named.clone());
    assert!(!NamedLog::open(&plain, true).unwrap().hides());
    let hidden = MemoryLog::default();
    append(&hidden, nameless);
    append(&NamedLog::open(&hidden, true).unwrap(), named);
    assert!(NamedLog::open(&hidden, false).unwrap().hides());
}

#[test]
fn the_users_behind_the_pseudonyms_of_an_event_are_told() {
    let (id, other) = (SubjectId::from_bytes([1; 16]), SubjectId::from_bytes([2; 16]));
    assert_eq!(reserved(1, &id.device(2).to_string()).event.subjects(), [id]);
    assert_eq!(Event::UserBlocked { user: other.to_string() }.subjects(), [other]);
    let (to, by) = (vec![id.device(1), pool("bob/main"), other.device(1)], Some(id.device(2)));
    assert_eq!(Event::Welcomed { to, by }.subjects(), [id, other, id]);
    assert_eq!(Event::UserBlocked { user: "bob".to_owned() }.subjects(), []);
    assert_eq!(Event::UserErased {}.subjects(), []);
}

#[test]
fn a_log_that_is_begun_with_names_keeps_every_promise() {
    conformance::check(|| NamedLog::open(MemoryLog::default(), false).unwrap());
}

#[test]
fn writers_of_one_log_see_each_others_names() {
    let inner = MemoryLog::default();
    let (one, other) =
        (NamedLog::open(&inner, true).unwrap(), NamedLog::open(&inner, true).unwrap());
    append(&one, batch("bob/a", 0, vec![uploaded(1, 4)]));
    assert_eq!(other.read_stream(&stream("bob/a"), 0, 9).unwrap().len(), 1);
    append(&one, batch("bob/b", 0, vec![uploaded(2, 4)]));
    append(&other, batch("bob/c", 0, vec![reserved(1, "bob/b")]));
    assert_eq!(one.read_stream(&stream("bob/c"), 0, 9).unwrap().len(), 1);
    assert_eq!(told(&all(&one)), told(&all(&other)));
    let users =
        all(&inner).into_iter().filter(|record| record.envelope.event == Event::UserNamed {});
    assert_eq!(users.count(), 1);
}

#[test]
fn a_user_whom_another_writer_has_erased_is_not_remembered() {
    let inner = MemoryLog::default();
    let (one, other) =
        (NamedLog::open(&inner, true).unwrap(), NamedLog::open(&inner, true).unwrap());
    append(&one, batch("bob/a", 0, vec![uploaded(1, 4)]));
    let known = other.user("bob").unwrap().unwrap();
    let stream_of_names = StreamId::Names(known.id());
    let events = vec![event(99, Event::UserErased {})];
    let write = StreamWrite { stream: stream_of_names, expected: known.version(), events };
    append(&one, Batch { writes: vec![write] });
    assert_eq!(other.read_stream(&stream("bob/b"), 0, 9).unwrap(), [], "it looks again");
    append(&other, batch("bob/b", 0, vec![uploaded(2, 4)]));
    assert_ne!(other.user("bob").unwrap().unwrap().id(), known.id());
    assert_eq!(one.read_stream(&stream("bob/b"), 0, 9).unwrap().len(), 1);
}

#[test]
fn names_are_found_after_the_log_was_opened_again() {
    let dir = TempDir::new().unwrap();
    for n in 0..30 {
        let log = NamedLog::open(open(dir.path()), true).unwrap();
        append(&log, batch("bob", n, vec![NewEvent { command: command(n), ..uploaded(n, 4) }]));
        assert_eq!(log.read_stream(&stream("bob"), 0, 99).unwrap().len() as u64, n + 1);
    }
    let log = NamedLog::open(open(dir.path()), true).unwrap();
    assert_eq!(log.user("bob").unwrap().unwrap().version(), 2);
    assert_eq!(log.user("main").unwrap(), None);
}
