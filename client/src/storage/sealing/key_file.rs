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
    cipher::{Key, Place, SLOT_BYTES, randomize},
    device_key::{DeviceKey, DeviceKeyKind, write_private},
    header::{FoundHeader, HEADER_BYTES, Header, HeaderTrouble},
};
use crate::{
    SealingError,
    storage::probe::{self, Step},
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
    file: Mutex<File>,
    store: Uuid,
    key: Key,
}

impl KeyFile {
    /// Makes the file of a store that is new.
    pub(super) fn create(home: &Path, key: &DeviceKey, store: Uuid) -> Result<Self, SealingError> {
        let header = Header::fresh(key, store)?;
        let device_key = key.resolve(home, &header, true)?;
        let mut bytes = header.encode(&device_key)?;
        bytes.resize(HEADER_BYTES + GROWTH as usize * SLOT_BYTES, 0);
        randomize(bytes.get_mut(HEADER_BYTES..).unwrap_or_default())?;
        let path = home.join(FILE);
        write_private(&path, &bytes)
            .map_err(|source| SealingError::File { path: path.clone(), source })?;
        let file = open_file(&path)?;
        Ok(Self { path, file: Mutex::new(file), store, key: device_key })
    }

    /// Opens the file of a store that was made before.
    pub(super) fn open(home: &Path, key: &DeviceKey, store: Uuid) -> Result<Self, SealingError> {
        let path = home.join(FILE);
        let mut file = open_file(&path)?;
        let found = read_header(&path, &mut file)?;
        if found.header.store != store {
            return Err(SealingError::KeyFileForeign { path });
        }
        let device_key = key.resolve(home, &found.header, false)?;
        if !found.is_of(&device_key) {
            let home = home.to_path_buf();
            return Err(match key.kind() {
                DeviceKeyKind::Passphrase => SealingError::WrongPassphrase { home },
                DeviceKeyKind::File | DeviceKeyKind::App => SealingError::WrongKey { home },
            });
        }
        if found.is_torn {
            tracing::warn!(path = %path.display(), "one copy of the header is damaged; mended");
            let bytes = found.header.encode(&device_key)?;
            write_header(&mut file, &bytes)
                .map_err(|source| SealingError::File { path: path.clone(), source })?;
        }
        Ok(Self { path, file: Mutex::new(file), store, key: device_key })
    }

    /// Where the file is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whose keys these are.
    pub(super) fn store(&self) -> Uuid {
        self.store
    }

    /// How many slots there are.
    pub(super) fn count(&self) -> Result<u32, SealingError> {
        let bytes = self.lock().metadata().map_err(|source| self.unusable(source))?.len();
        let slots = bytes.saturating_sub(HEADER_BYTES as u64) / SLOT_BYTES as u64;
        Ok(u32::try_from(slots).unwrap_or(u32::MAX))
    }

    /// The key of a value; `None` if its slot does not hold it.
    pub(super) fn data_key(&self, place: Place) -> Result<Option<Key>, SealingError> {
        let found = self.unwrap(place.slot)?;
        Ok(found.filter(|(generation, _)| *generation == place.generation).map(|(_, key)| key))
    }

    /// Whether a slot holds a key at all.
    pub(super) fn holds_key(&self, slot: u32) -> Result<bool, SealingError> {
        Ok(self.unwrap(slot)?.is_some())
    }

    /// Wraps a key for its slot.
    pub(super) fn wrap(&self, place: Place, data: &Key) -> Result<[u8; SLOT_BYTES], SealingError> {
        self.key.wrap(self.store, place, data)
    }

    /// Writes slots of new values, and returns once they are durable.
    pub(super) fn write(&self, slots: &Slots) -> Result<(), SealingError> {
        if slots.is_empty() {
            return Ok(());
        }
        self.write_all(slots, Step::SlotsWritten)
            .and_then(|()| probe::reach(Step::SlotsDurable))
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
        self.write_all(&random, Step::SlotsErased)
            .and_then(|()| probe::reach(Step::Erased))
            .map_err(|source| self.unusable(source))
    }

    /// Adds random slots at the end, and returns how many there are then.
    pub(super) fn grow(&self, count: u32) -> Result<u32, SealingError> {
        let grown = count.checked_add(GROWTH).ok_or(SealingError::TooLarge)?;
        let mut bytes = vec![0; GROWTH as usize * SLOT_BYTES];
        randomize(&mut bytes)?;
        let mut file = self.lock();
        file.seek(SeekFrom::Start(offset(count)))
            .and_then(|_| file.write_all(&bytes))
            .and_then(|()| file.sync_all())
            .map_err(|source| self.unusable(source))?;
        Ok(grown)
    }

    /// The generation and key in a slot.
    fn unwrap(&self, slot: u32) -> Result<Option<(u64, Key)>, SealingError> {
        let mut bytes = [0; SLOT_BYTES];
        let mut file = self.lock();
        let read =
            file.seek(SeekFrom::Start(offset(slot))).and_then(|_| file.read_exact(&mut bytes));
        match read {
            Ok(()) => Ok(self.key.unwrap(self.store, slot, &bytes)),
            Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(source) => Err(self.unusable(source)),
        }
    }

    /// Writes slots, those that are neighbours together, and makes them durable with one call.
    fn write_all(&self, slots: &Slots, step: Step) -> io::Result<()> {
        let mut file = self.lock();
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

    fn lock(&self) -> MutexGuard<'_, File> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unusable(&self, source: io::Error) -> SealingError {
        SealingError::File { path: self.path.clone(), source }
    }
}

fn offset(slot: u32) -> u64 {
    HEADER_BYTES as u64 + u64::from(slot) * SLOT_BYTES as u64
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
