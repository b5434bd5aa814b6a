//! How fast a log is verified and replayed: `cargo run --release -p keypool-projections --example
//! audit_rate -- 2000000`.
//!
//! It writes a synthetic log of so many events as an export and as a journal into a temporary folder,
//! and says how many events each pass takes in a second of processor time on its one thread, how many in
//! a second of the clock on the wall, and the memory it then has.

use std::{
    collections::HashMap,
    error::Error,
    fs,
    io::{self, Write},
    ops::ControlFlow,
    path::Path,
};

use keypool_auditor::{
    export::ExportWriter,
    invariants::{Auditor, InvariantParams},
    replay::{Fold, Keep},
    source::Source,
    verify::verify,
};
use keypool_ledger::{
    Clock, CommandId, Event, EventEnvelope, GroupId, Hash, JournalWriter, JournalWriterOptions,
    KeyPackageRef, PackageFacts, PoolId, RawRecord, Record, ReservationId, StreamHead, StreamId,
    SystemClock, Timestamp, codec,
};
use tempfile::TempDir;
use uuid::Uuid;

/// How many pools the events are of.
const POOLS: u64 = 1000;
/// How many events a package has: uploaded, reserved, spent.
const LIFE: u64 = 3;
/// How many bytes the payload of an upload has.
const PAYLOAD_BYTES: usize = 300;
/// How many records go into one frame of the journal.
const FRAME_RECORDS: usize = 64;
/// How often each pass is measured; the median counts.
const ROUNDS: usize = 5;

type Outcome<T> = Result<T, Box<dyn Error>>;
/// A pass over a log, with its name.
type Pass = (&'static str, fn(&Path) -> Outcome<()>);

const PASSES: [Pass; 5] = [
    ("read", |path| {
        Source::open(path)?.visit(&mut |_| ControlFlow::Continue(()))?;
        Ok(())
    }),
    ("decode", |path| {
        Source::open(path)?.read(&mut |_, _| ControlFlow::Continue(()))?;
        Ok(())
    }),
    ("verify", |path| {
        let verdict = verify(&Source::open(path)?, &[], &mut |_| {});
        if verdict.findings.is_empty() { Ok(()) } else { Err("a finding".into()) }
    }),
    ("replay", |path| {
        let mut fold = Fold::keeping(Keep::Live);
        let mut refused = false;
        Source::open(path)?.read(&mut |raw, envelope| {
            refused |= fold.take(raw.seq, &envelope).is_err();
            ControlFlow::Continue(())
        })?;
        if refused || fold.passed_over() != 0 { Err("an event was refused".into()) } else { Ok(()) }
    }),
    ("audit", |path| {
        let mut auditor = Auditor::new(InvariantParams::STANDARD);
        Source::open(path)?.read(&mut |raw, envelope| {
            auditor.see(raw.seq, &envelope);
            ControlFlow::Continue(())
        })?;
        if auditor.finish().is_empty() { Ok(()) } else { Err("a finding".into()) }
    }),
];

fn main() -> Outcome<()> {
    let n_events: u64 = std::env::args().nth(1).map_or(Ok(100_000), |text| text.parse())?;
    let dir = TempDir::new()?;
    let (export, data) = (dir.path().join("log.export"), dir.path().join("data"));
    write_log(n_events, &export, &data)?;
    let mut out = io::stdout().lock();
    for (name, path) in [("export", &export), ("journal", &data)] {
        let bytes = Source::open(path)?.bytes();
        writeln!(out, "{name}: {n_events} events, {} bytes an event", bytes / n_events)?;
        for (pass, run) in PASSES {
            let (mut rates, mut on_the_wall) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                let (begun, used) = (SystemClock.now(), processor_millis());
                run(path)?;
                let took = SystemClock.now().since(begun).as_millis().max(1);
                rates.push(n_events * 1000 / processor_millis().saturating_sub(used).max(1));
                on_the_wall.push(u128::from(n_events) * 1000 / took);
            }
            rates.sort_unstable();
            on_the_wall.sort_unstable();
            let [least, _, median, _, most] = rates.as_slice() else { continue };
            let wall = on_the_wall.get(ROUNDS / 2).copied().unwrap_or_default();
            let memory = memory_mib();
            writeln!(
                out,
                "  {pass:<7} {median:>8} events/s of processor time ({least} to {most}), \
                 {wall:>8} on the wall, {memory} MiB"
            )?;
        }
    }
    Ok(())
}

/// The processor time of this process so far, in milliseconds, as Linux tells it; 0 elsewhere.
fn processor_millis() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(") ").map(|(_, fields)| fields.split(' ')).into_iter().flatten();
    let ticks = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
    ticks.sum::<u64>() * 10
}

/// The memory of this process now, in MiB, as Linux tells it; 0 elsewhere.
fn memory_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or_default() / 1024
}

/// Writes a log in which packages are uploaded, reserved and spent, round and round the pools.
fn write_log(n_events: u64, export: &Path, data: &Path) -> Outcome<()> {
    let mut writer = ExportWriter::create(export)?;
    let mut journal = JournalWriter::create(data, JournalWriterOptions::default())?;
    let mut heads: HashMap<StreamId, StreamHead> = HashMap::new();
    let mut frame = Vec::new();
    for n in 0..n_events {
        let record = record(n, &mut heads)?;
        let raw = RawRecord {
            seq: record.seq,
            envelope_bytes: &record.envelope_bytes,
            payload: &record.payload,
            file: export,
            offset: 0,
        };
        writer.add(&raw, &record.envelope)?;
        frame.push(record);
        if FRAME_RECORDS <= frame.len() {
            journal.append(&frame)?;
            frame.clear();
        }
    }
    journal.append(&frame)?;
    writer.finish()?;
    Ok(())
}

/// The `n`th record of the log.
fn record(n: u64, heads: &mut HashMap<StreamId, StreamHead>) -> Outcome<Record> {
    let (lap, pool) = (n / POOLS, n % POOLS);
    let (package, step) = (lap / LIFE * POOLS + pool, lap % LIFE);
    let stream = StreamId::Pool(PoolId::new(&format!("user{pool}"), "phone")?);
    let at = Timestamp::from_millis(1_800_000_000_000 + n);
    let event = event(package, step, at)?;
    let payload = if step == 0 { vec![7; PAYLOAD_BYTES] } else { Vec::new() };
    let head = heads.entry(stream.clone()).or_default();
    let envelope = EventEnvelope {
        schema: codec::SCHEMA,
        stream,
        version: head.version + 1,
        at,
        command: CommandId(Uuid::from_u128(u128::from(n))),
        request: Hash::of(&n.to_be_bytes()),
        prev: head.hash,
        payload: Hash::of(&payload),
        event,
    };
    let envelope_bytes = codec::encode(&envelope)?;
    let record = Record { seq: n + 1, envelope, envelope_bytes, payload };
    *head = record.stream_head();
    Ok(record)
}

fn event(package: u64, step: u64, at: Timestamp) -> Outcome<Event> {
    let digest = Hash::of(&package.to_be_bytes());
    let keypackage_ref = KeyPackageRef::new(digest.as_bytes())?;
    let reservation = ReservationId(Uuid::from_u128(u128::from(package)));
    let (holder, group) = (PoolId::new("inviter", "phone")?, GroupId::new(b"a group")?);
    Ok(match step {
        0 => Event::Uploaded(PackageFacts {
            keypackage_ref,
            not_before: Timestamp::from_millis(0),
            not_after: Timestamp::MAX,
            ciphersuite: 1,
            credential: Hash::ZERO,
            init_key: digest,
            last_resort: false,
            capabilities: None,
        }),
        1 => {
            let deadline = Timestamp::from_millis(at.as_millis() + 60_000);
            Event::Reserved { keypackage_ref, reservation, generation: 1, holder, group, deadline }
        }
        _ => {
            let (reservation, holder) = (Some(reservation), Some(holder));
            Event::Spent { keypackage_ref, reservation, holder, group, late: false }
        }
    })
}
