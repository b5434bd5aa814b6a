//! The device key, which wraps the keys of all values, and its sources.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::{Zeroize, Zeroizing};

use super::{
    cipher::{KEY_BYTES, SealingKey, randomize},
    files,
    header::{Cost, DeviceKeyKind, FoundHeader, Header},
};
use crate::SealingError;

/// The name of the file that holds the device key, where it is kept in a file.
const FILE: &str = "device-key";
/// The name of the file with the key that takes its place, until the key file has changed over.
const NEXT_FILE: &str = "device-key.next";
/// The cost of trying a passphrase: memory in KiB, passes, lanes.
const COST: Cost = Cost { memory_kib: 64 * 1024, passes: 3, lanes: 1 };
/// The most memory that a header may ask for, in KiB.
const MEMORY_KIB_MAX: u32 = 1024 * 1024;
/// The most passes that a header may ask for.
const PASSES_MAX: u32 = 64;

/// The key that seals a store's private keys. Wiped when dropped, and never printed.
///
/// Together with a copy of the home it opens the private keys that are not deleted yet, and none that are.
pub struct DeviceKey(KeySource);

enum KeySource {
    File,
    Passphrase(Zeroizing<String>),
    App(SealingKey),
}

impl DeviceKey {
    /// A key in the file `device-key` of the home, which is made with the store and readable by its
    /// owner alone (mode 0600).
    ///
    /// The weakest of the three: a copy of the whole home contains the key as well. Deleted private
    /// keys are as gone as with the others.
    #[must_use]
    pub const fn in_file() -> Self {
        Self(KeySource::File)
    }

    /// A key made of a passphrase, by Argon2id with 64 MiB and three passes: 0.15 s or so for each
    /// opening. The passphrase is taken as its bytes are.
    #[must_use]
    pub fn from_passphrase(passphrase: String) -> Self {
        Self(KeySource::Passphrase(Zeroizing::new(passphrase)))
    }

    /// A key that the app keeps: 32 bytes drawn at random, for example in the system's keychain.
    #[must_use]
    pub fn from_bytes(mut bytes: [u8; KEY_BYTES]) -> Self {
        let key = SealingKey::new(&bytes);
        bytes.zeroize();
        Self(KeySource::App(key))
    }

    /// Which kind it is.
    #[must_use]
    pub const fn kind(&self) -> DeviceKeyKind {
        match self.0 {
            KeySource::File => DeviceKeyKind::File,
            KeySource::Passphrase(_) => DeviceKeyKind::Passphrase,
            KeySource::App(_) => DeviceKeyKind::App,
        }
    }

    /// The cost of a new store's passphrase; nothing for the other kinds.
    pub(super) const fn cost(&self) -> Cost {
        match self.0 {
            KeySource::Passphrase(_) => COST,
            KeySource::File | KeySource::App(_) => Cost { memory_kib: 0, passes: 0, lanes: 0 },
        }
    }

    /// The key for a new store with that header. A key in a file is made, unless it is there.
    pub(super) fn first(&self, home: &Path, header: &Header) -> Result<SealingKey, SealingError> {
        match &self.0 {
            KeySource::File if home.join(FILE).exists() => read(&home.join(FILE)),
            KeySource::File => make(&home.join(FILE)),
            KeySource::Passphrase(_) | KeySource::App(_) => self.outside(header),
        }
    }

    /// The key of a store that was made before.
    pub(super) fn of(&self, home: &Path, found: &FoundHeader) -> Result<SealingKey, SealingError> {
        if found.header.kind != self.kind() {
            let (home, asked) = (home.to_path_buf(), self.kind());
            return Err(SealingError::OtherKind { home, sealed_with: found.header.kind, asked });
        }
        let key = match &self.0 {
            KeySource::File => in_file(home, found)?,
            KeySource::Passphrase(_) | KeySource::App(_) => self.outside(&found.header)?,
        };
        if found.is_of(&key) {
            return Ok(key);
        }
        let home = home.to_path_buf();
        Err(match self.kind() {
            DeviceKeyKind::Passphrase => SealingError::WrongPassphrase { home },
            DeviceKeyKind::File | DeviceKeyKind::App => SealingError::WrongKey { home },
        })
    }

    /// The key that takes the place of a store's present one. In a file it stands beside it, until
    /// [`settle`] is called.
    pub(super) fn next(&self, home: &Path, header: &Header) -> Result<SealingKey, SealingError> {
        match &self.0 {
            KeySource::File => make(&home.join(NEXT_FILE)),
            KeySource::Passphrase(_) | KeySource::App(_) => self.outside(header),
        }
    }

    /// A key that is not in the home.
    fn outside(&self, header: &Header) -> Result<SealingKey, SealingError> {
        match &self.0 {
            KeySource::Passphrase(passphrase) => stretch(passphrase, header),
            KeySource::App(key) => Ok(key.clone()),
            KeySource::File => Err(SealingError::Passphrase("the key is in a file".into())),
        }
    }
}

impl Default for DeviceKey {
    fn default() -> Self {
        Self::in_file()
    }
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceKey").finish_non_exhaustive()
    }
}

fn stretch(passphrase: &str, header: &Header) -> Result<SealingKey, SealingError> {
    let Cost { memory_kib, passes, lanes } = header.cost;
    if memory_kib > MEMORY_KIB_MAX || passes > PASSES_MAX {
        return Err(SealingError::Passphrase("its header asks for too much memory or time".into()));
    }
    let failed = |err: argon2::Error| SealingError::Passphrase(err.to_string().into());
    let params = Params::new(memory_kib, passes, lanes, Some(KEY_BYTES)).map_err(failed)?;
    let mut blocks = Zeroizing::new(vec![Block::default(); params.block_count()]);
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(
            passphrase.as_bytes(),
            &header.salt,
            bytes.as_mut_slice(),
            blocks.as_mut_slice(),
        )
        .map_err(failed)?;
    Ok(SealingKey::new(&bytes))
}

/// The key in the home's file. A change that was cut off is finished.
fn in_file(home: &Path, found: &FoundHeader) -> Result<SealingKey, SealingError> {
    let present = read(&home.join(FILE));
    if present.as_ref().is_ok_and(|key| found.is_of(key)) || !home.join(NEXT_FILE).exists() {
        return present;
    }
    let next = read(&home.join(NEXT_FILE));
    if next.as_ref().is_ok_and(|key| found.is_of(key)) { next } else { present }
}

/// Leaves of the files with keys the one that the key file is of, and overwrites the other.
pub(super) fn settle(home: &Path, found: &FoundHeader) -> io::Result<()> {
    let (file, next_file) = (home.join(FILE), home.join(NEXT_FILE));
    if found.header.kind != DeviceKeyKind::File {
        files::destroy(&file)?;
        return files::destroy(&next_file);
    }
    if read(&next_file).is_ok_and(|key| found.is_of(&key)) {
        files::overwrite(&file)?;
        return files::rename(&next_file, &file);
    }
    files::destroy(&next_file)
}

/// The key in a file.
fn read(path: &Path) -> Result<SealingKey, SealingError> {
    let path = path.to_path_buf();
    let unusable = |source| SealingError::File { path: path.clone(), source };
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            return Err(SealingError::DeviceKeyMissing { path });
        }
        Err(err) => return Err(unusable(err)),
    };
    refuse_if_wide(&path, &file.metadata().map_err(unusable)?)?;
    let mut bytes = Zeroizing::new([0; KEY_BYTES + 1]);
    let found = read_up_to(&mut file, bytes.as_mut_slice()).map_err(unusable)?;
    match bytes.first_chunk::<KEY_BYTES>() {
        Some(key) if found == KEY_BYTES => Ok(SealingKey::new(key)),
        _ => Err(SealingError::DeviceKeyDamaged { path }),
    }
}

/// A fresh key, in a file that is made whole or not at all.
fn make(path: &Path) -> Result<SealingKey, SealingError> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    randomize(bytes.as_mut_slice())?;
    files::write_private(path, bytes.as_slice())
        .map_err(|source| SealingError::File { path: path.to_path_buf(), source })?;
    Ok(SealingKey::new(&bytes))
}

fn read_up_to(file: &mut File, bytes: &mut [u8]) -> io::Result<usize> {
    let mut found = 0_usize;
    while let Some(rest) = bytes.get_mut(found..).filter(|rest| !rest.is_empty()) {
        match file.read(rest)? {
            0 => break,
            read => found = found.saturating_add(read),
        }
    }
    Ok(found)
}

#[cfg(unix)]
fn refuse_if_wide(path: &Path, found: &fs::Metadata) -> Result<(), SealingError> {
    use std::os::unix::fs::PermissionsExt;

    let mode = found.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SealingError::DeviceKeyTooOpen { path: path.to_path_buf(), mode });
    }
    Ok(())
}

#[cfg(not(unix))]
fn refuse_if_wide(_path: &Path, _found: &fs::Metadata) -> Result<(), SealingError> {
    Ok(())
}
