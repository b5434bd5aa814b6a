//! Copies of a log that was begun with names, in which pseudonyms stand in the places of names.

use keypool_ledger::{
    CredentialBytes, Event, EventEnvelope, EventLog, Hash, MemoryLog, NameHider, NamedUser, Names,
    PoolId, Record, Signature, SignatureKey, SignedStatement, StreamId, SubjectId, Timestamp,
    codec,
};

use super::{
    super::support::{all, batch, uploaded},
    append, erase, event, named, pool, reserved,
};

const CREDENTIAL: &[u8] = b"the credential of bob";

fn credential_declared() -> Event {
    let statement = SignedStatement {
        by: SignatureKey::new(&[1; 32]).unwrap(),
        head: Hash::ZERO,
        until: Timestamp::default(),
        proof: Signature::new(&[9; 64]).unwrap(),
    };
    Event::CredentialDeclared { credential: CredentialBytes::new(CREDENTIAL).unwrap(), statement }
}

/// The records of a log with the names of three users and a credential that one of them has declared.
fn with_names() -> Vec<Record> {
    let log = MemoryLog::default();
    append(&log, batch("ann@home/phone", 0, vec![uploaded(1, 4), reserved(1, "bob@home/main")]));
    let blocked = event(3, Event::UserBlocked { user: "cat@home".to_owned() });
    append(&log, batch("bob@home/main", 0, vec![event(2, credential_declared()), blocked]));
    all(&log)
}

/// Hides the names in records, and appends the names behind them. Returns all with their payloads.
fn hidden(records: &[Record]) -> Vec<(EventEnvelope, Vec<u8>)> {
    let mut hider = NameHider::default();
    let mut copy = Vec::new();
    for Record { envelope, payload, .. } in records {
        let (mut envelope, mut payload) = (envelope.clone(), payload.clone());
        hider.hide(&mut envelope, &mut payload).unwrap();
        envelope.schema = codec::schema_of(&envelope.stream, &envelope.event);
        copy.push((envelope, payload));
    }
    let names = MemoryLog::default();
    let told = append(&names, hider.names().unwrap());
    copy.extend(told.into_iter().map(|record| (record.envelope, record.payload)));
    copy
}

#[test]
fn a_copy_names_nobody_in_an_envelope_and_tells_every_name_behind_the_records() {
    let records = with_names();
    let copy = hidden(&records);
    let (copied, told) = copy.split_at(records.len());
    for (envelope, _) in copied {
        let shown = format!("{envelope:?}");
        assert!(!shown.contains("@home"), "{shown}");
    }
    let told: Vec<_> = told.iter().map(|(envelope, _)| envelope.event.name()).collect();
    assert_eq!(told.iter().filter(|name| **name == "user_named").count(), 3);
    assert_eq!(told.iter().filter(|name| **name == "device_named").count(), 2);
    let (declared, payload) = &copied[2];
    assert_eq!((payload.as_slice(), declared.payload), (CREDENTIAL, Hash::of(CREDENTIAL)));
    assert_eq!(copied[0].1, records[0].payload, "other payloads stay");
    assert_eq!(copied[0].0.payload, records[0].envelope.payload);
}

#[test]
fn a_reader_of_a_copy_finds_the_same_events_and_knows_when_a_name_is_missing() {
    let records = with_names();
    let copy = hidden(&records);
    let mut names = Names::default();
    let revealed = |names: &Names| -> Vec<_> {
        let copied = copy.iter().take(records.len()).cloned();
        copied
            .map(|(mut envelope, payload)| (names.reveal(&mut envelope, &payload), envelope))
            .collect()
    };
    assert!(revealed(&names).iter().all(|(is_whole, _)| !is_whole), "no name is known yet");
    for (envelope, payload) in &copy {
        names.see(envelope, payload);
    }
    for ((is_whole, envelope), record) in revealed(&names).into_iter().zip(&records) {
        assert!(is_whole);
        assert_eq!(
            (envelope.stream, envelope.event),
            (record.envelope.stream.clone(), record.envelope.event.clone())
        );
    }
    // One name that is missing among those that are known counts, wherever it stands.
    let mut but_bob = Names::default();
    let is_bob = |(envelope, payload): &&(EventEnvelope, Vec<u8>)| {
        matches!(envelope.event, Event::UserNamed {}) && payload.ends_with(b"bob@home")
    };
    let bob = copy.iter().find(is_bob).unwrap().0.stream.clone();
    for (envelope, payload) in copy.iter().filter(|(envelope, _)| envelope.stream != bob) {
        but_bob.see(envelope, payload);
    }
    let is_whole: Vec<_> = revealed(&but_bob).into_iter().map(|(is_whole, _)| is_whole).collect();
    assert_eq!(is_whole, [true, false, false, false]);
}

#[test]
fn a_copy_of_records_that_name_a_pseudonym_is_refused() {
    let id = SubjectId::from_bytes([1; 16]);
    let mut record = with_names().remove(1);
    record.envelope.event = reserved(1, &id.device(2).to_string()).event;
    let refused = NameHider::default().hide(&mut record.envelope, &mut record.payload).unwrap_err();
    let why = std::error::Error::source(&refused).unwrap().to_string();
    assert_eq!(why, format!("the log names a user by the pseudonym {id} already"));
    assert_eq!(NameHider::default().names(), None, "a log without names tells none");
}

#[test]
fn an_erased_user_has_a_recorded_name_while_the_log_still_has_it() {
    let log = named();
    append(&log, batch("bob/phone", 0, vec![uploaded(1, 4)]));
    let before = log.user("bob").unwrap().unwrap();
    assert_eq!((before.name(), before.recorded_name()), (Some("bob"), Some("bob")));
    assert!(!before.is_erased() && before.device(2) == Some(&pool("bob/phone")));
    let id = erase(&log, "bob");
    let mut user = NamedUser::new(id);
    assert_eq!((user.recorded_name(), user.version()), (None, 0));
    for Record { envelope, payload, .. } in
        log.inner().read_stream(&StreamId::Names(id), 0, 9).unwrap()
    {
        user.evolve(envelope.version, &envelope.event, &payload);
    }
    assert_eq!((user.name(), user.recorded_name()), (None, Some("bob")));
    assert!(user.is_erased());
    assert_eq!((user.number("phone"), user.device(2)), (None, None::<&PoolId>));
}
