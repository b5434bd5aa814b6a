//! The key file: slots of one size, outside of the database, overwritten where they stand.
//!
//! A database that appends keeps old bytes. A slot that is overwritten is gone, on a file system that
//! writes in place, and with it every copy of the value whose key it held.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use uuid::Uuid;

use super::{
    cipher::{KeySlot, SLOT_BYTES, SealingKey, randomize},
    device_key::{self, DeviceKey},
    files::{self, with_suffix},
    header::{FoundHeader, HEADER_BYTES, Header, HeaderTrouble},
};
use crate::{
    SealingError,
    storage::probe::{self, WriteStep},
};

/// The file's name in the home.
const FILE: &str = "keys";
/// By how many slots the file grows at a time: four blocks of 4 KiB.
const GROWTH: u32 = 256;

/// The bytes of slots, by their numbers.
pub(super) type Slots = BTreeMap<u32, [u8; SLOT_BYTES]>;

/// The file, and the device key that its slots are wrapped with.
pub(super) struct KeyFile {
    path: PathBuf,
    home: PathBuf,
    store: Uuid,
    open: Mutex<Open>,
}

/// The file as it is now, and the key that wraps its slots now.
struct Open {
    file: File,
    key: SealingKey,
}

impl KeyFile {
    /// Makes the file of a store that is new.
    pub(super) fn create(home: &Path, key: &DeviceKey, store: Uuid) -> Result<Self, SealingError> {
        let header = Header::fresh(key.kind(), key.cost(), store)?;
        let device_key = key.first(home, &header)?;
        let mut bytes = header.encode(&device_key)?;
        bytes.resize(HEADER_BYTES + GROWTH as usize * SLOT_BYTES, 0);
        randomize(bytes.get_mut(HEADER_BYTES..).unwrap_or_default())?;
        let path = home.join(FILE);
        files::write_private(&path, &bytes)
            .map_err(|source| SealingError::File { path: path.clone(), source })?;
        let open = Mutex::new(Open { file: open_file(&path)?, key: device_key });
        Ok(Self { path, home: home.to_path_buf(), store, open })
    }

    /// Opens the file of a store that was made before.
    pub(super) fn open(home: &Path, key: &DeviceKey, store: Uuid) -> Result<Self, SealingError> {
        let path = home.join(FILE);
        let mut file = open_file(&path)?;
        let found = read_header(&path, &mut file)?;
        if found.header.store != store {
            return Err(SealingError::KeyFileForeign { path });
        }
        let device_key = key.of(home, &found)?;
        let unusable = |source| SealingError::File { path: path.clone(), source };
        settle(home, &path, &found).map_err(unusable)?;
        if found.is_torn {
            tracing::warn!(path = %path.display(), "one copy of the header is damaged; mended");
            let bytes = found.header.encode(&device_key)?;
            write_header(&mut file, &bytes).map_err(unusable)?;
        }
        let open = Mutex::new(Open { file, key: device_key });
        Ok(Self { path, home: home.to_path_buf(), store, open })
    }

    /// The path of the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whose keys these are.
    pub(super) fn store(&self) -> Uuid {
        self.store
    }

    /// How many slots there are.
    pub(super) fn count(&self) -> Result<u32, SealingError> {
        let bytes = self.lock().file.metadata().map_err(|source| self.unusable(source))?.len();
        let slots = bytes.saturating_sub(HEADER_BYTES as u64) / SLOT_BYTES as u64;
        Ok(u32::try_from(slots).unwrap_or(u32::MAX))
    }

    /// The key of a value; `None` if its slot does not hold it.
    pub(super) fn data_key(&self, place: KeySlot) -> Result<Option<SealingKey>, SealingError> {
        let found = self.unwrap(place.slot)?;
        Ok(found.filter(|(generation, _)| *generation == place.generation).map(|(_, key)| key))
    }

    /// Whether a slot holds a key at all.
    pub(super) fn holds_key(&self, slot: u32) -> Result<bool, SealingError> {
        Ok(self.unwrap(slot)?.is_some())
    }

    /// Wraps a key for its slot.
    pub(super) fn wrap(
        &self,
        place: KeySlot,
        data: &SealingKey,
    ) -> Result<[u8; SLOT_BYTES], SealingError> {
        self.lock().key.wrap(self.store, place, data)
    }

    /// Wraps the keys in these slots with another device key, in a new file that takes the place of this
    /// one. The old one is overwritten then, and so is a device key that was in a file.
    ///
    /// After a crash the key is the old one or the new one; the overwriting is finished when the file is
    /// opened.
    pub(super) fn change_key(
        &self,
        key: &DeviceKey,
        slots: impl Iterator<Item = u32>,
    ) -> Result<(), SealingError> {
        self.settle()?;
        let header = Header::fresh(key.kind(), key.cost(), self.store)?;
        let device_key = key.next(&self.home, &header)?;
        let mut bytes = header.encode(&device_key)?;
        let count = self.count()? as usize;
        bytes.resize(HEADER_BYTES + count * SLOT_BYTES, 0);
        randomize(bytes.get_mut(HEADER_BYTES..).unwrap_or_default())?;
        for slot in slots {
            // A slot that is damaged stays so.
            let Some((generation, data)) = self.unwrap(slot)? else { continue };
            let wrapped = device_key.wrap(self.store, KeySlot { slot, generation }, &data)?;
            let start = HEADER_BYTES + slot as usize * SLOT_BYTES;
            if let Some(place) = bytes.get_mut(start..start + SLOT_BYTES) {
                place.copy_from_slice(&wrapped);
            }
        }
        self.replace_with(&bytes).map_err(|source| self.unusable(source))?;
        *self.lock() = Open { file: open_file(&self.path)?, key: device_key };
        self.settle()
    }

    /// Finishes an earlier change that may have been interrupted.
    fn settle(&self) -> Result<(), SealingError> {
        let found = read_header(&self.path, &mut open_file(&self.path)?)?;
        settle(&self.home, &self.path, &found).map_err(|source| self.unusable(source))
    }

    /// Puts another file in the place of this one, which stays beside it until it is overwritten.
    fn replace_with(&self, bytes: &[u8]) -> io::Result<()> {
        let (new, old) = (with_suffix(&self.path, ".new"), with_suffix(&self.path, ".old"));
        files::write_beside(&new, bytes)?;
        std::fs::hard_link(&self.path, &old)?;
        probe::reach(WriteStep::Rewrapped)?;
        files::rename(&new, &self.path)?;
        probe::reach(WriteStep::ChangedOver)
    }

    /// Writes slots of new values, and returns once they are durable.
    pub(super) fn write(&self, slots: &Slots) -> Result<(), SealingError> {
        if slots.is_empty() {
            return Ok(());
        }
        self.write_all(slots, WriteStep::SlotsWritten)
            .and_then(|()| probe::reach(WriteStep::SlotsDurable))
            .map_err(|source| self.unusable(source))
    }

    /// Overwrites slots at random, and returns once that is durable.
    pub(super) fn erase(&self, slots: impl Iterator<Item = u32>) -> Result<(), SealingError> {
        let mut random = Slots::new();
        for slot in slots {
            let mut bytes = [0; SLOT_BYTES];
            randomize(&mut bytes)?;
            random.insert(slot, bytes);
        }
        if random.is_empty() {
            return Ok(());
        }
        self.write_all(&random, WriteStep::SlotsErased)
            .and_then(|()| probe::reach(WriteStep::Erased))
            .map_err(|source| self.unusable(source))
    }

    /// Adds random slots at the end, and returns how many there are then.
    pub(super) fn grow(&self, count: u32) -> Result<u32, SealingError> {
        let grown = count.checked_add(GROWTH).ok_or(SealingError::TooLarge)?;
        let mut bytes = vec![0; GROWTH as usize * SLOT_BYTES];
        randomize(&mut bytes)?;
        let file = &mut self.lock().file;
        file.seek(SeekFrom::Start(offset(count)))
            .and_then(|_| file.write_all(&bytes))
            .and_then(|()| file.sync_all())
            .map_err(|source| self.unusable(source))?;
        Ok(grown)
    }

    /// The generation and key in a slot.
    fn unwrap(&self, slot: u32) -> Result<Option<(u64, SealingKey)>, SealingError> {
        let mut bytes = [0; SLOT_BYTES];
        let Open { file, key } = &mut *self.lock();
        let read =
            file.seek(SeekFrom::Start(offset(slot))).and_then(|_| file.read_exact(&mut bytes));
        match read {
            Ok(()) => Ok(key.unwrap(self.store, slot, &bytes)),
            Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(source) => Err(self.unusable(source)),
        }
    }

    /// Writes slots, those that are neighbours together, and makes them durable with one call.
    fn write_all(&self, slots: &Slots, step: WriteStep) -> io::Result<()> {
        let file = &mut self.lock().file;
        let mut slots = slots.iter().peekable();
        while let Some((&first, bytes)) = slots.next() {
            let mut run = bytes.to_vec();
            let mut last = first;
            while let Some((&next, bytes)) = slots.next_if(|(next, _)| **next == last + 1) {
                run.extend_from_slice(bytes);
                last = next;
            }
            file.seek(SeekFrom::Start(offset(first)))?;
            file.write_all(&run)?;
            probe::reach(step)?;
        }
        file.sync_data()
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unusable(&self, source: io::Error) -> SealingError {
        SealingError::File { path: self.path.clone(), source }
    }
}

fn offset(slot: u32) -> u64 {
    HEADER_BYTES as u64 + u64::from(slot) * SLOT_BYTES as u64
}

/// Overwrites the files that a change of the device key has left beside the key file.
fn settle(home: &Path, path: &Path, found: &FoundHeader) -> io::Result<()> {
    let old = with_suffix(path, ".old");
    match std::fs::read(&old) {
        // The change was cut off before the new file took the place: this is the file itself.
        Ok(bytes) if bytes == std::fs::read(path)? => files::remove(&old)?,
        Ok(_) => files::destroy(&old)?,
        Err(err) if err.kind() == io::ErrorKind::NotFound => {}
        Err(err) => return Err(err),
    }
    files::destroy(&with_suffix(path, ".new"))?;
    device_key::settle(home, found)
}

fn open_file(path: &Path) -> Result<File, SealingError> {
    let path = path.to_path_buf();
    OpenOptions::new().read(true).write(true).open(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => SealingError::KeyFileMissing { path },
        _ => SealingError::File { path, source },
    })
}

fn read_header(path: &Path, file: &mut File) -> Result<FoundHeader, SealingError> {
    let path = path.to_path_buf();
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    let read = file.take(HEADER_BYTES as u64).read_to_end(&mut bytes);
    if let Err(source) = read {
        return Err(SealingError::File { path, source });
    }
    Header::decode(&bytes).map_err(|trouble| match trouble {
        HeaderTrouble::Damaged(why) => SealingError::KeyFileDamaged { path, why },
        HeaderTrouble::Newer(found) => SealingError::KeyFileNewer { path, found },
    })
}

fn write_header(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    file.write_all(bytes)?;
    file.sync_data()
}
