//! The cost of checking a signed request and a journal. `just bench-rules`.

use std::{collections::HashMap, error::Error, hint::black_box, path::Path};

use criterion::{Criterion, Throughput};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use keypool_api::signing::{BodyParts, ReceivedSignature, SignedParts, content_digest};
use keypool_auditor::{source::Source, verify::verify};
use keypool_ledger::{
    CommandId, Event, EventEnvelope, Hash, JournalWriter, JournalWriterOptions, KeyPackageRef,
    PackageFacts, PoolId, Record, SignatureKey, StreamHead, StreamId, Timestamp, codec,
};
use uuid::Uuid;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// How many uploads are in the journal.
const RECORDS: u64 = 10_000;
/// How many pools they are of.
const POOLS: u64 = 100;
/// How many bytes a package has.
const PACKAGE_BYTES: usize = 300;
/// The moment of everything: some day in 2027.
const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
/// A request to set a package aside.
const BODY: &[u8] = br#"{"reservation":"6b0d8e63-9f0c-4a53-9a7b-1f6c2a9d3e55","group":"Z3JvdXA="}"#;

fn bench_signatures(criterion: &mut Criterion) -> Outcome<()> {
    let key = SigningKey::from_bytes(&[7; 32]);
    let keyid = SignatureKey::new(key.verifying_key().as_bytes())?;
    let digest = content_digest(BODY);
    let parts = SignedParts {
        method: "POST",
        authority: "127.0.0.1:8080",
        path: "/users/alice/keypackages/reserve",
        query: "?",
        body: Some(BodyParts {
            content_type: "application/json",
            content_digest: &digest,
            idempotency_key: "6b0d8e63-9f0c-4a53-9a7b-1f6c2a9d3e55",
        }),
        authorization: None,
        caller: None,
    };
    let sign = |base: &[u8]| Ok::<_, Box<dyn Error>>(key.sign(base).to_bytes().to_vec());
    let headers = parts.sign(&keyid, NOW, 60, sign)?;
    let (input, signature) = (headers.signature_input.as_str(), headers.signature.as_str());
    let received = ReceivedSignature::parse(input, signature)?;
    verify_request(&parts, input, signature)?;
    criterion.bench_function("signature/headers parsed and checked", |bench| {
        bench.iter(|| -> Outcome<String> {
            let received = ReceivedSignature::parse(black_box(input), black_box(signature))?;
            parts.check(&received, NOW)?;
            Ok(parts.base(&received.params))
        });
    });
    let verifying = verifying_key(&received)?;
    let (base, raw) = (parts.base(&received.params), Signature::from_slice(&received.signature)?);
    criterion.bench_function("signature/ed25519 verify_strict", |bench| {
        bench.iter(|| verifying.verify_strict(black_box(base.as_bytes()), &raw));
    });
    criterion.bench_function("signature/a request, digest included", |bench| {
        bench.iter(|| verify_request(black_box(&parts), input, signature));
    });
    Ok(())
}

/// All that the server computes before it believes who is asking.
fn verify_request(parts: &SignedParts<'_>, input: &str, signature: &str) -> Outcome<()> {
    let received = ReceivedSignature::parse(input, signature)?;
    parts.check(&received, NOW)?;
    let fits = parts.body.as_ref().is_some_and(|body| body.content_digest == content_digest(BODY));
    if !fits {
        return Err("the digest is another one".into());
    }
    let key = verifying_key(&received)?;
    let raw = Signature::from_slice(&received.signature)?;
    Ok(key.verify_strict(parts.base(&received.params).as_bytes(), &raw)?)
}

fn verifying_key(received: &ReceivedSignature) -> Outcome<VerifyingKey> {
    Ok(VerifyingKey::try_from(received.keyid.as_bytes())?)
}

fn bench_verify(criterion: &mut Criterion) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    write_journal(&data)?;
    let mut group = criterion.benchmark_group("verify");
    group.throughput(Throughput::Elements(RECORDS)).sample_size(20);
    group.bench_function(format!("a journal of {RECORDS} uploads"), |bench| {
        bench.iter(|| -> Outcome<u64> {
            Ok(verify(&Source::open(black_box(&data))?, &[], &mut |_| {}).records)
        });
    });
    group.finish();
    Ok(())
}

fn write_journal(data: &Path) -> Outcome<()> {
    let mut journal = JournalWriter::create(data, JournalWriterOptions::default())?;
    let mut heads: HashMap<StreamId, StreamHead> = HashMap::new();
    let records: Vec<Record> =
        (0..RECORDS).map(|n| record(n, &mut heads)).collect::<Outcome<_>>()?;
    for frame in records.chunks(64) {
        journal.append(frame)?;
    }
    Ok(())
}

fn record(n: u64, heads: &mut HashMap<StreamId, StreamHead>) -> Outcome<Record> {
    let stream = StreamId::Pool(PoolId::new(&format!("user{}", n % POOLS), "phone")?);
    let head = heads.entry(stream.clone()).or_default();
    let (digest, payload) = (Hash::of(&n.to_be_bytes()), vec![7; PACKAGE_BYTES]);
    let facts = PackageFacts {
        keypackage_ref: KeyPackageRef::new(digest.as_bytes())?,
        not_before: Timestamp::from_millis(0),
        not_after: Timestamp::MAX,
        ciphersuite: 1,
        credential: Hash::of(b"a credential"),
        init_key: digest,
        last_resort: false,
        capabilities: None,
    };
    let envelope = EventEnvelope {
        schema: codec::SCHEMA,
        stream,
        version: head.version + 1,
        at: NOW,
        command: CommandId(Uuid::from_u128(u128::from(n))),
        request: digest,
        prev: head.hash,
        payload: Hash::of(&payload),
        event: Event::Uploaded(facts),
    };
    let envelope_bytes = codec::encode(&envelope)?;
    let record = Record { seq: n + 1, envelope, envelope_bytes, payload };
    *head = record.stream_head();
    Ok(record)
}

fn main() -> Outcome<()> {
    let mut criterion = Criterion::default().configure_from_args();
    bench_signatures(&mut criterion)?;
    bench_verify(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}
