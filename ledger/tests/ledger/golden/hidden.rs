//! The events of the golden log that hides names.

use keypool_ledger::{
    CredentialBytes, Event, GroupId, Hash, NewEvent, PoolId, ReservationId, Signature,
    SignatureKey, SignedStatement, StreamId, SubjectId, Timestamp,
};
use uuid::Uuid;

use super::{
    super::support::{facts, package},
    histories::recorded,
};

const ALICE: SubjectId = SubjectId::from_bytes([1; 16]);
const BOB: SubjectId = SubjectId::from_bytes([0xfe; 16]);

/// The names of two users, events of every kind that names somebody, and the erasure of one of the users.
pub(super) fn hidden_history() -> Vec<(StreamId, NewEvent)> {
    let told_in = [StreamId::Names(ALICE), StreamId::Names(BOB)];
    let named = |stream: &StreamId, event, name: &str| (stream.clone(), event, salted(name));
    let [alice, bob] = [ALICE, BOB].map(|user| user.device(2));
    let pool = StreamId::Pool(alice.clone());
    let of_pool = |event| (pool.clone(), event, Vec::new());
    let declared = (pool.clone(), declared(), vec![0, 2, 4, 3, 0x30, 1, 0]);
    let mut events = vec![
        named(&told_in[0], Event::UserNamed {}, "alice"),
        named(&told_in[0], Event::DeviceNamed {}, "phone"),
        named(&told_in[1], Event::UserNamed {}, "bob@example.org"),
        named(&told_in[1], Event::DeviceNamed {}, "main"),
        named(&told_in[1], Event::DeviceNamed {}, "tablet"),
        of_pool(registered()),
        declared,
        (pool.clone(), Event::Uploaded(facts(1)), vec![7; 40]),
        of_pool(reserved(&bob)),
        of_pool(Event::UserBlocked { user: BOB.to_string() }),
        of_pool(Event::UserUnblocked { user: BOB.to_string() }),
    ];
    events.extend(delivery(&alice, &BOB.device(3)));
    events.push((told_in[1].clone(), Event::UserErased {}, Vec::new()));
    let recorded =
        |(n, (stream, event, payload))| (stream, NewEvent { payload, ..recorded(n, event, 0) });
    (0..).zip(events).map(recorded).collect()
}

/// Events of a group and of its members' mailboxes.
fn delivery(alice: &PoolId, bob: &PoolId) -> Vec<(StreamId, Event, Vec<u8>)> {
    let group = StreamId::Group(GroupId::new(b"group").unwrap());
    let mailbox = StreamId::Mailbox(bob.clone());
    let committed = Event::Committed {
        epoch: 0,
        committer: alice.clone(),
        added: vec![bob.clone()],
        removed: Vec::new(),
        not_kept: Vec::new(),
    };
    let awaited = Event::Awaited {
        targets: vec![alice.clone()],
        as_stranger: vec![alice.clone()],
        until: Timestamp::from_secs(1_770_000_300),
    };
    let posted = Event::Posted { sender: bob.clone(), not_kept: vec![alice.clone()] };
    let welcomed = Event::Welcomed { to: vec![bob.clone()], by: Some(alice.clone()) };
    vec![
        (group.clone(), Event::GroupMade { creator: alice.clone() }, Vec::new()),
        (group.clone(), committed, b"a commit".to_vec()),
        (group.clone(), welcomed, b"a welcome".to_vec()),
        (group, posted, b"a message".to_vec()),
        (mailbox.clone(), awaited, Vec::new()),
        (mailbox, Event::AwaitStopped { targets: vec![alice.clone()] }, Vec::new()),
    ]
}

fn registered() -> Event {
    Event::Registered {
        signature_key: SignatureKey::new(&[1; 32]).unwrap(),
        credential: ALICE.to_string(),
        voucher: None,
        statement: None,
        frontend: None,
    }
}

fn declared() -> Event {
    let statement = SignedStatement {
        by: SignatureKey::new(&[1; 32]).unwrap(),
        head: Hash::of(b"the devices"),
        until: Timestamp::from_secs(1_770_000_300),
        proof: Signature::new(&[9; 64]).unwrap(),
    };
    // It stands in the payload.
    Event::CredentialDeclared { credential: CredentialBytes::new(&[0; 3]).unwrap(), statement }
}

fn reserved(holder: &PoolId) -> Event {
    Event::Reserved {
        keypackage_ref: package(1),
        reservation: ReservationId(Uuid::from_u128(7)),
        generation: 1,
        holder: holder.clone(),
        group: GroupId::new(b"group").unwrap(),
        deadline: Timestamp::from_secs(1_770_000_060),
    }
}

/// A name behind sixteen bytes of salt.
fn salted(name: &str) -> Vec<u8> {
    [&[0xa5; 16], name.as_bytes()].concat()
}
