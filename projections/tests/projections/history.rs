//! Names for the people and packages of the stories: short going in, short coming out.

use std::time::Duration;

use keypool_ledger::{
    CommandId, Event, EventEnvelope, GroupId, Hash, KeyPackageRef, PackageFacts, PoolId,
    ReservationId, SignatureKey, StreamId, Timestamp, codec,
};
use keypool_projections::{Claim, LeafKey, NewPackage};
use uuid::Uuid;

/// When every story begins.
pub(crate) const START: Timestamp = Timestamp::from_secs(1_800_000_000);
/// How long the packages of the stories live.
pub(crate) const LIFETIME: Duration = Duration::from_secs(1000);

/// The moment so many seconds after the start.
pub(crate) fn at(second: u64) -> Timestamp {
    START.after(Duration::from_secs(second))
}

/// A device's pool.
pub(crate) fn pool(name: &str) -> PoolId {
    name.parse().unwrap()
}

/// A group.
pub(crate) fn group(name: &str) -> GroupId {
    GroupId::new(name.as_bytes()).unwrap()
}

/// The reservation with a number.
pub(crate) fn reservation(number: u8) -> ReservationId {
    ReservationId(Uuid::from_u128(u128::from(number)))
}

/// The reference of the package with a name.
pub(crate) fn reference(name: &str) -> KeyPackageRef {
    KeyPackageRef::new(Hash::of(name.as_bytes()).as_bytes()).unwrap()
}

/// A package. Its name tells its kind: `a` to `z` are plain, `a2` has ciphersuite 2, `L…` is a last
/// resort, and `a'` has the init key of `a`; `a:5` has ciphersuite 2 and is signed with leaf key 5.
pub(crate) fn package(name: &str) -> NewPackage {
    let plain = name.trim_end_matches('\'');
    let leaf_key = plain.rsplit_once(':').map(|(_, number)| leaf_key(number.parse().unwrap()));
    let ciphersuite = if plain.ends_with('2') || leaf_key.is_some() { 2 } else { 1 };
    NewPackage {
        facts: PackageFacts {
            keypackage_ref: reference(name),
            not_before: at(0).before(Duration::from_hours(1)),
            not_after: at(0).after(LIFETIME),
            ciphersuite,
            credential: Hash::of(b"bob"),
            init_key: Hash::of(format!("init {plain}").as_bytes()),
            last_resort: name.starts_with('L'),
            capabilities: None,
        },
        bytes: name.as_bytes().to_vec(),
        leaf_key,
    }
}

/// A key that signs packages of ciphersuite 2.
pub(crate) fn leaf_key(number: u8) -> LeafKey {
    let signature_key = SignatureKey::new(&[number; 65]).unwrap();
    LeafKey { signature_scheme: 0x0403, signature_key }
}

/// A holder's word on a package.
pub(crate) fn claim(name: &str, number: u8, holder: &str) -> Claim {
    Claim {
        keypackage_ref: reference(name),
        reservation: reservation(number),
        holder: pool(holder),
    }
}

/// An event of a pool in its envelope, caused by a request of its own; without links.
pub(crate) fn envelope(seq: u64, pool: PoolId, event: Event, at: Timestamp) -> EventEnvelope {
    EventEnvelope {
        schema: codec::SCHEMA,
        stream: StreamId::Pool(pool),
        version: seq,
        at,
        command: CommandId(Uuid::from_u128(u128::from(seq))),
        request: Hash::of(&seq.to_be_bytes()),
        prev: Hash::ZERO,
        payload: Hash::of(&[]),
        event,
    }
}

/// Every event that a package named `a` can have, in the order of the documentation.
pub(crate) fn events_of_a(last_resort: bool) -> Vec<Event> {
    use keypool_ledger::{ReleaseReason, RevokeReason};
    let facts = PackageFacts { last_resort, ..package("a").facts };
    let keypackage_ref = reference("a");
    let of = || keypackage_ref.clone();
    vec![
        Event::Created(facts.clone()),
        Event::Uploaded(facts),
        Event::Reserved {
            keypackage_ref: of(),
            reservation: reservation(1),
            generation: 1,
            holder: pool("alice"),
            group: group("g"),
            deadline: at(60),
        },
        Event::Renewed { keypackage_ref: of(), reservation: reservation(1), deadline: at(90) },
        Event::Released {
            keypackage_ref: of(),
            reservation: reservation(1),
            reason: ReleaseReason::Lapsed,
        },
        Event::Spent {
            keypackage_ref: of(),
            reservation: Some(reservation(1)),
            holder: Some(pool("alice")),
            group: group("g"),
            late: false,
        },
        Event::Expired { keypackage_ref: of() },
        Event::Revoked { keypackage_ref: of(), reason: RevokeReason::Withdrawn, check: None },
        Event::Conflict { keypackage_ref: of(), lost: reservation(1), holds: reservation(2) },
        Event::Reported { keypackage_ref: of(), reservation: reservation(1), check: None },
    ]
}
