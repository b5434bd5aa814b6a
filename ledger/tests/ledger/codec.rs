//! The bytes of a record: what is written is read again, and nothing else is.

use std::collections::BTreeSet;

use data_encoding::HEXLOWER;
use insta::{assert_json_snapshot, assert_snapshot};
use keypool_ledger::{
    CommandId, Event, EventEnvelope, Hash, PoolId, StreamId, SubjectId, Timestamp,
    codec::{self, DecodeError},
};
use quickcheck::{Arbitrary, Gen, quickcheck};
use uuid::Uuid;

use super::{
    arbitrary::{AnyEnvelope, AnyEvent, N_KINDS, N_LATER},
    support::{facts, stream},
};

quickcheck! {
    fn what_was_encoded_is_decoded(envelope: AnyEnvelope) -> bool {
        let bytes = codec::encode(&envelope.0).unwrap();
        codec::decode(&bytes).unwrap() == envelope.0
    }

    fn what_was_encoded_is_encoded_the_same_again(envelope: AnyEnvelope) -> bool {
        let bytes = codec::encode(&envelope.0).unwrap();
        codec::encode(&codec::decode(&bytes).unwrap()).unwrap() == bytes
    }

    fn an_envelope_as_json_is_read_again(envelope: AnyEnvelope) -> bool {
        let json = serde_json::to_string(&envelope.0).unwrap();
        let read: EventEnvelope = serde_json::from_str(&json).unwrap();
        EventEnvelope { schema: codec::SCHEMA, ..read } == envelope.0
    }

    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) -> bool {
        let led = [&codec::SCHEMA.to_be_bytes(), bytes.as_slice()].concat();
        codec::decode(&bytes).is_err() && codec::decode(&led).is_err()
    }

    fn altered_bytes_never_panic(envelope: AnyEnvelope, place: usize, byte: u8) -> bool {
        let mut bytes = codec::encode(&envelope.0).unwrap();
        let place = place % bytes.len();
        bytes[place] = byte;
        // Whatever this is, it is an envelope with other bytes, or an error.
        codec::decode(&bytes).is_ok() || codec::decode(&bytes[..place]).is_err()
    }
}

#[test]
fn the_random_events_are_of_every_kind() {
    let mut g = Gen::new(10);
    let names: BTreeSet<_> = (0..1000).map(|_| AnyEvent::arbitrary(&mut g).0.name()).collect();

    assert_eq!(names.len(), usize::from(N_KINDS + N_LATER), "{names:?}");
}

#[test]
fn a_cut_record_is_refused() {
    let bytes = codec::encode(&envelope()).unwrap();
    for len in 0..bytes.len() {
        match codec::decode(&bytes[..len]) {
            Err(DecodeError::Short(told)) => assert!(len < 2 && told == len),
            Err(DecodeError::Malformed(_)) => assert!(len >= 2),
            other => panic!("{len} bytes: {other:?}"),
        }
    }
}

#[test]
fn bytes_behind_a_record_are_refused() {
    let mut bytes = codec::encode(&envelope()).unwrap();
    bytes.extend([0, 0, 0]);

    assert!(matches!(codec::decode(&bytes), Err(DecodeError::Trailing(3))));
}

#[test]
fn a_record_of_a_newer_schema_says_so() {
    let mut bytes = codec::encode(&envelope()).unwrap();
    bytes[..2].copy_from_slice(&(codec::SCHEMA_PSEUDONYMS + 1).to_be_bytes());
    let err = codec::decode(&bytes).unwrap_err();
    assert_snapshot!(err, @"the record has schema 3; this version of keypool reads up to schema 2");

    bytes[..2].copy_from_slice(&[0, 0]);
    let err = codec::decode(&bytes).unwrap_err();
    assert_snapshot!(err, @"the record has schema 0, which never existed");
}

#[test]
fn the_schema_of_a_record_is_that_of_the_names_in_it() {
    let id = SubjectId::from_bytes([7; 16]);
    let named: PoolId = "bob/main".parse().unwrap();
    let group = StreamId::Group("Zw==".parse().unwrap());
    let suspended = |user: &str| Event::UserSuspended { user: user.to_owned(), reason: None };
    let made = |creator: PoolId| Event::GroupMade { creator };
    for (stream, event) in [
        (&StreamId::Server, suspended("bob")),
        (&group, made(named.clone())),
        (&StreamId::Pool(named.clone()), made(named.clone())),
        (&StreamId::Mailbox(named.clone()), made(named.clone())),
    ] {
        assert_eq!(codec::schema_of(stream, &event), codec::SCHEMA, "{stream} {event:?}");
    }
    for (stream, event) in [
        (&StreamId::Server, suspended(&id.to_string())),
        (&group, made(id.device(2))),
        (&StreamId::Pool(id.device(2)), made(named.clone())),
        (&StreamId::Mailbox(id.device(2)), made(named)),
        (&StreamId::Names(id), Event::UserErased {}),
    ] {
        assert_eq!(
            codec::schema_of(stream, &event),
            codec::SCHEMA_PSEUDONYMS,
            "{stream} {event:?}"
        );
    }
}

#[test]
fn a_value_of_another_type_is_told_from_an_identifier() {
    let text = serde_json::from_str::<PoolId>("5").unwrap_err().to_string();
    assert!(text.contains("invalid type: integer `5`, expected text"), "{text}");
    let bytes = rmp_serde::from_slice::<Hash>(&[5]).unwrap_err().to_string();
    assert!(bytes.contains("invalid type: integer `5`, expected bytes"), "{bytes}");
}

#[test]
fn an_envelope_as_json() {
    assert_json_snapshot!(envelope());
}

#[test]
fn an_envelope_as_bytes() {
    let bytes = codec::encode(&envelope()).unwrap();
    let lines: Vec<_> = bytes.chunks(32).map(|line| HEXLOWER.encode(line)).collect();
    assert_snapshot!(lines.join("\n"));
}

fn envelope() -> EventEnvelope {
    EventEnvelope {
        schema: codec::SCHEMA,
        stream: stream("alice/phone"),
        version: 300,
        at: Timestamp::from_millis(1_770_000_000_123),
        command: CommandId(Uuid::from_u128(0x0123_4567_89ab_7cde_8f01_2345_6789_abcd)),
        request: Hash::of(b"request"),
        prev: Hash::of(b"previous envelope"),
        payload: Hash::of(b"payload"),
        event: Event::Uploaded(facts(1)),
    }
}
