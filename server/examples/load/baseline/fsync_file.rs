//! The durable ceiling: changes are gathered, appended to a file that has its full length already, and
//! forced to the disk once for all who wait. Nothing is decided and nothing can be found again.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    path::Path,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use keypool_ledger::{
    CommandId, Event, EventEnvelope, Hash, KeyPackageRef, ReservationId, StreamId, codec,
};
use tokio::sync::oneshot;

use super::{Claim, Given, group_of};
use crate::Outcome;

/// How long the file is; at its end, writing begins anew at its start.
const FILE_BYTES: usize = 64 << 20;
/// How many wait for one write at most, as with the server.
const GROUP_MAX: usize = 256;

/// A file that entries are appended to.
pub(crate) struct FsyncFile {
    entries: SyncSender<Entry>,
}

struct Entry {
    bytes: Vec<u8>,
    done: oneshot::Sender<bool>,
}

impl FsyncFile {
    pub(crate) fn create(path: &Path) -> Outcome<Self> {
        let mut file = File::create(path)?;
        let zeros = vec![0; 1 << 20];
        for _ in 0..FILE_BYTES / zeros.len() {
            file.write_all(&zeros)?;
        }
        file.sync_all()?;
        let (entries, waiting) = sync_channel(4096);
        thread::Builder::new().spawn(move || write_all(&file, &waiting))?;
        Ok(Self { entries })
    }

    /// Returns when the disk has the entry.
    pub(crate) async fn append(&self, bytes: Vec<u8>) -> Outcome<()> {
        let (done, wait) = oneshot::channel();
        self.entries.try_send(Entry { bytes, done }).map_err(|error| error.to_string())?;
        if wait.await? { Ok(()) } else { Err("the file could not be written".into()) }
    }
}

/// Writes the waiting entries, in groups, until nobody can ask any more.
fn write_all(file: &File, waiting: &Receiver<Entry>) {
    let mut offset = 0;
    while let Ok(first) = waiting.recv() {
        let mut group = vec![first];
        while group.len() < GROUP_MAX
            && let Ok(next) = waiting.try_recv()
        {
            group.push(next);
        }
        let bytes: Vec<u8> = group.iter().flat_map(|entry| entry.bytes.iter().copied()).collect();
        if FILE_BYTES < offset + bytes.len() {
            offset = 0;
        }
        let written = write(file, &bytes, offset).is_ok();
        offset += bytes.len();
        for entry in group {
            // Who has gone does not wait.
            let _ = entry.done.send(written);
        }
    }
}

fn write(file: &File, bytes: &[u8], offset: usize) -> io::Result<()> {
    file.write_all_at(bytes, offset as u64)?;
    file.sync_data()
}

/// The bytes that the server would write for a reservation.
pub(crate) fn reserved(claim: &Claim, given: &Given) -> Outcome<Vec<u8>> {
    let event = Event::Reserved {
        keypackage_ref: KeyPackageRef::new(&given.keypackage_ref)?,
        reservation: ReservationId(claim.reservation),
        generation: given.generation,
        holder: claim.holder.parse()?,
        group: group_of(claim)?,
        deadline: claim.deadline,
    };
    entry(&claim.pool, claim, event)
}

/// The bytes that the server would write for a spent package.
pub(crate) fn spent(keypackage_ref: &[u8], claim: &Claim) -> Outcome<Vec<u8>> {
    let event = Event::Spent {
        keypackage_ref: KeyPackageRef::new(keypackage_ref)?,
        reservation: Some(ReservationId(claim.reservation)),
        holder: Some(claim.holder.parse()?),
        group: group_of(claim)?,
        late: false,
    };
    entry(&claim.holder, claim, event)
}

fn entry(pool: &str, claim: &Claim, event: Event) -> Outcome<Vec<u8>> {
    let envelope = EventEnvelope {
        schema: codec::SCHEMA,
        stream: StreamId::Pool(pool.parse()?),
        version: 1,
        at: claim.deadline,
        command: CommandId(claim.reservation),
        request: Hash::ZERO,
        prev: Hash::ZERO,
        payload: Hash::ZERO,
        event,
    };
    Ok(codec::encode(&envelope)?)
}
