//! What a record's bytes cost: written, read, and hashed into the chain. `just bench-rules`.

use std::{error::Error, hint::black_box};

use criterion::Criterion;
use keypool_ledger::{
    CommandId, Event, EventEnvelope, GroupId, Hash, KeyPackageRef, PackageFacts, PoolId,
    ReservationId, StreamId, Timestamp, codec,
};
use uuid::Uuid;

/// The moment of all events: some day in 2027.
const NOW_MS: u64 = 1_800_000_000_000;

fn envelope(event: Event) -> Result<EventEnvelope, Box<dyn Error>> {
    Ok(EventEnvelope {
        schema: codec::SCHEMA,
        stream: StreamId::Pool(PoolId::new("alice", "phone")?),
        version: 1_000,
        at: Timestamp::from_millis(NOW_MS),
        command: CommandId(Uuid::from_u128(1)),
        request: Hash::of(b"a request"),
        prev: Hash::of(b"the event before"),
        payload: Hash::of(b"a package"),
        event,
    })
}

/// The three events of a package that was used.
fn events() -> Result<[Event; 3], Box<dyn Error>> {
    let keypackage_ref = KeyPackageRef::new(Hash::of(b"a package").as_bytes())?;
    let (holder, group) = (PoolId::new("bob", "laptop")?, GroupId::new(&[7; 32])?);
    let reservation = ReservationId(Uuid::from_u128(2));
    let facts = PackageFacts {
        keypackage_ref: keypackage_ref.clone(),
        not_before: Timestamp::from_millis(NOW_MS),
        not_after: Timestamp::from_millis(2 * NOW_MS),
        ciphersuite: 1,
        credential: Hash::of(b"a credential"),
        init_key: Hash::of(b"a key"),
        last_resort: false,
        capabilities: None,
    };
    let reserved = Event::Reserved {
        keypackage_ref: keypackage_ref.clone(),
        reservation,
        generation: 1,
        holder: holder.clone(),
        group: group.clone(),
        deadline: Timestamp::from_millis(NOW_MS + 60_000),
    };
    let (reservation, holder) = (Some(reservation), Some(holder));
    let spent = Event::Spent { keypackage_ref, reservation, holder, group, late: false };
    Ok([Event::Uploaded(facts), reserved, spent])
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut criterion = Criterion::default().configure_from_args();
    for event in events()? {
        let name = event.name();
        let envelope = envelope(event)?;
        let bytes = codec::encode(&envelope)?;
        criterion.bench_function(&format!("codec/encode {name}, {} bytes", bytes.len()), |bench| {
            bench.iter(|| codec::encode(black_box(&envelope)));
        });
        criterion.bench_function(&format!("codec/decode {name}"), |bench| {
            bench.iter(|| codec::decode(black_box(&bytes)));
        });
        criterion.bench_function(&format!("codec/chain hash of {name}"), |bench| {
            bench.iter(|| codec::chain_hash(black_box(&bytes)));
        });
    }
    criterion.final_summary();
    Ok(())
}
