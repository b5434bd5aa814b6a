//! Data directories that are made beforehand, so that every round begins with the same packages.

use std::{collections::HashMap, fs, path::Path};

use keypool_ledger::{
    Clock, CommandId, Event, EventEnvelope, GroupId, Hash, JournalWriter, JournalWriterOptions,
    NameHider, PoolId, Record, ReservationId, StreamHead, StreamId, SystemClock, Timestamp, codec,
    log::seal,
};

use crate::{
    Outcome,
    population::{Device, PACKAGES, command, facts, package, pool},
};

/// How many records are written at once.
const FRAME_RECORDS: usize = 512;

/// The contents of a log to write.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Contents {
    /// The pools of so many devices have packages: the first ones.
    pub(crate) stocked: u64,
    /// So many devices are registered.
    pub(crate) devices: u64,
    /// So many events there are at least: packages that were uploaded, reserved and spent before.
    pub(crate) events: u64,
    /// So many of these are of the first pool; the others go round all that are stocked.
    pub(crate) first_pool_events: u64,
}

/// The size of a written log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub(crate) events: u64,
    /// The bytes of the envelopes and the packages.
    pub(crate) bytes: u64,
}

/// Writes a log as a server's journal. The server that opens it first makes its database.
///
/// It has pseudonyms in the places of names if `hides_names` says so.
pub(crate) fn write(data: &Path, contents: Contents, hides_names: bool) -> Outcome<Written> {
    let mut log = LogWriter::create(data)?;
    log.hider = hides_names.then(NameHider::default);
    for number in 0..contents.devices {
        let device = Device::new(number)?;
        let credential = device.pool.user().to_owned();
        let signature_key = device.keyid()?;
        let event = Event::Registered {
            signature_key,
            credential,
            voucher: None,
            statement: None,
            frontend: None,
        };
        log.add(&device.pool, event, Vec::new())?;
    }
    let mut used = HashMap::new();
    let mut rounds = 0;
    while log.written.events + contents.stocked * PACKAGES < contents.events {
        let first = rounds * 3 < contents.first_pool_events;
        let number = if first { 0 } else { rounds % contents.stocked.max(1) };
        let nth = used.entry(number).or_insert(PACKAGES);
        log.add_used(number, *nth)?;
        *nth += 1;
        rounds += 1;
    }
    for number in 0..contents.stocked {
        for nth in 0..PACKAGES {
            let event = Event::Uploaded(facts(number, nth, log.at)?);
            log.add(&pool(number)?, event, package(number, nth))?;
        }
    }
    log.finish()
}

/// Copies a directory with all that is in it, and waits until the disk has it.
pub(crate) fn copy(from: &Path, to: &Path) -> Outcome<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            fs::File::open(&target)?.sync_all()?;
        }
    }
    Ok(())
}

struct LogWriter {
    journal: JournalWriter,
    heads: HashMap<StreamId, StreamHead>,
    frame: Vec<Record>,
    hider: Option<NameHider>,
    /// When all of it happened: an hour ago.
    at: Timestamp,
    written: Written,
}

impl LogWriter {
    fn create(data: &Path) -> Outcome<Self> {
        Ok(Self {
            journal: JournalWriter::create(data, JournalWriterOptions::default())?,
            heads: HashMap::new(),
            frame: Vec::new(),
            hider: None,
            at: Timestamp::from_secs(SystemClock.now().as_secs().saturating_sub(3600)),
            written: Written { events: 0, bytes: 0 },
        })
    }

    /// A package that was uploaded, reserved and spent.
    fn add_used(&mut self, number: u64, nth: u64) -> Outcome<()> {
        let pool = pool(number)?;
        let (holder, group) = (PoolId::new("inviter", "phone")?, GroupId::new(b"a group")?);
        let facts = facts(number, nth, self.at)?;
        let keypackage_ref = facts.keypackage_ref.clone();
        let reservation = ReservationId(command(self.written.events));
        self.add(&pool, Event::Uploaded(facts), package(number, nth))?;
        let reserved = Event::Reserved {
            keypackage_ref: keypackage_ref.clone(),
            reservation,
            generation: 1,
            holder: holder.clone(),
            group: group.clone(),
            deadline: Timestamp::from_millis(self.at.as_millis() + 60_000),
        };
        self.add(&pool, reserved, Vec::new())?;
        let spent = Event::Spent {
            keypackage_ref,
            reservation: Some(reservation),
            holder: Some(holder),
            group,
            late: false,
        };
        self.add(&pool, spent, Vec::new())
    }

    fn add(&mut self, pool: &PoolId, event: Event, payload: Vec<u8>) -> Outcome<()> {
        let seq = self.written.events + 1;
        let mut payload = payload;
        let mut envelope = EventEnvelope {
            schema: codec::SCHEMA,
            stream: StreamId::Pool(pool.clone()),
            version: 0,
            at: self.at,
            command: CommandId(command(seq)),
            request: Hash::of(&seq.to_be_bytes()),
            prev: Hash::ZERO,
            payload: Hash::of(&payload),
            event,
        };
        if let Some(hider) = &mut self.hider {
            hider.hide(&mut envelope, &mut payload)?;
        }
        let head = self.heads.entry(envelope.stream.clone()).or_default();
        (envelope.version, envelope.prev) = (head.version + 1, head.hash);
        let envelope_bytes = codec::encode(&envelope)?;
        let bytes = envelope_bytes.len() + payload.len();
        let record = Record { seq, envelope, envelope_bytes, payload };
        *head = record.stream_head();
        self.frame.push(record);
        self.written = Written { events: seq, bytes: self.written.bytes + bytes as u64 };
        if FRAME_RECORDS <= self.frame.len() { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Outcome<()> {
        self.journal.append(&self.frame)?;
        self.frame.clear();
        Ok(())
    }

    fn finish(mut self) -> Outcome<Written> {
        let names = self.hider.take().and_then(NameHider::names);
        for write in names.into_iter().flat_map(|names| names.writes) {
            let mut head = StreamHead::default();
            for new in write.events {
                let record = seal(self.written.events + 1, &write.stream, head, new)?;
                head = record.stream_head();
                self.written.events += 1;
                self.frame.push(record);
            }
        }
        self.flush()?;
        Ok(self.written)
    }
}
