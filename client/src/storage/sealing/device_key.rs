//! The device key: what wraps the keys of all values, and where it comes from.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::Path,
};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::{Zeroize, Zeroizing};

use super::{
    cipher::{KEY_BYTES, Key},
    header::Header,
};
use crate::{SealingError, storage::folder};

/// The name of the file that holds the device key, where it is kept in a file.
const FILE: &str = "device-key";
/// What a passphrase costs to try: memory in KiB, passes, lanes.
const COST: Cost = Cost { memory_kib: 64 * 1024, passes: 3, lanes: 1 };
/// More memory than this is not asked for, whatever a header says, in KiB.
const MEMORY_KIB_MAX: u32 = 1024 * 1024;
/// More passes than this are not made, whatever a header says.
const PASSES_MAX: u32 = 64;

/// What a store's private keys are sealed with. Wiped when dropped, and never printed.
///
/// Whoever has it and a copy of the home has the private keys that are not deleted yet, and none that are.
pub struct DeviceKey(Source);

enum Source {
    File,
    Passphrase(Zeroizing<String>),
    App(Key),
}

/// Which kind of key a store is sealed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKeyKind {
    /// A file of the home that only its owner may read.
    File,
    /// A passphrase.
    Passphrase,
    /// 32 bytes that the app keeps.
    App,
}

/// What it costs to try a passphrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) memory_kib: u32,
    pub(super) passes: u32,
    pub(super) lanes: u32,
}

impl DeviceKey {
    /// A key in the file `device-key` of the home, which is made with the store and readable by its
    /// owner alone (mode 0600).
    ///
    /// The weakest of the three: whoever copies the whole home has the key as well. Deleted private
    /// keys are as gone as with the others.
    #[must_use]
    pub const fn in_file() -> Self {
        Self(Source::File)
    }

    /// A key made of a passphrase, by Argon2id with 64 MiB and three passes: a fifth of a second or so
    /// for each opening. The passphrase is taken as its bytes are.
    #[must_use]
    pub fn from_passphrase(passphrase: String) -> Self {
        Self(Source::Passphrase(Zeroizing::new(passphrase)))
    }

    /// A key that the app keeps: 32 bytes drawn at random, for example in the system's keychain.
    #[must_use]
    pub fn from_bytes(mut bytes: [u8; KEY_BYTES]) -> Self {
        let key = Key::new(&bytes);
        bytes.zeroize();
        Self(Source::App(key))
    }

    /// Which kind it is.
    #[must_use]
    pub const fn kind(&self) -> DeviceKeyKind {
        match self.0 {
            Source::File => DeviceKeyKind::File,
            Source::Passphrase(_) => DeviceKeyKind::Passphrase,
            Source::App(_) => DeviceKeyKind::App,
        }
    }

    /// The cost of a new store's passphrase; nothing for the other kinds.
    pub(super) const fn cost(&self) -> Cost {
        match self.0 {
            Source::Passphrase(_) => COST,
            Source::File | Source::App(_) => Cost { memory_kib: 0, passes: 0, lanes: 0 },
        }
    }

    /// The key itself, for a store with that header. A key in a file is made if it may be.
    pub(super) fn resolve(
        &self,
        home: &Path,
        header: &Header,
        may_make: bool,
    ) -> Result<Key, SealingError> {
        if header.kind != self.kind() {
            let (home, asked) = (home.to_path_buf(), self.kind());
            return Err(SealingError::OtherKind { home, sealed_with: header.kind, asked });
        }
        match &self.0 {
            Source::File => in_file(home, may_make),
            Source::Passphrase(passphrase) => stretch(passphrase, header),
            Source::App(key) => Ok(key.clone()),
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

impl fmt::Display for DeviceKeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "a key in a file",
            Self::Passphrase => "a passphrase",
            Self::App => "a key of the app",
        })
    }
}

fn stretch(passphrase: &str, header: &Header) -> Result<Key, SealingError> {
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
    Ok(Key::new(&bytes))
}

/// The key in the home's file, or a fresh one that is put there.
fn in_file(home: &Path, may_make: bool) -> Result<Key, SealingError> {
    let path = home.join(FILE);
    let unusable = |source| SealingError::File { path: path.clone(), source };
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(err) if err.kind() == io::ErrorKind::NotFound && may_make => {
            return make_in_file(home).map_err(unusable);
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            return Err(SealingError::DeviceKeyMissing { path });
        }
        Err(err) => return Err(unusable(err)),
    };
    refuse_if_wide(&path, &file.metadata().map_err(unusable)?)?;
    let mut bytes = Zeroizing::new([0; KEY_BYTES + 1]);
    let found = read_up_to(&mut file, bytes.as_mut_slice()).map_err(unusable)?;
    match bytes.first_chunk::<KEY_BYTES>() {
        Some(key) if found == KEY_BYTES => Ok(Key::new(key)),
        _ => Err(SealingError::DeviceKeyDamaged { path }),
    }
}

/// Makes the file whole or not at all.
fn make_in_file(home: &Path) -> io::Result<Key> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    super::cipher::randomize(bytes.as_mut_slice()).map_err(io::Error::other)?;
    write_private(&home.join(FILE), bytes.as_slice())?;
    Ok(Key::new(&bytes))
}

/// Writes a file that its owner alone may read: beside its place first, then into it.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    let parent = path.parent().unwrap_or(path);
    folder::sync(parent).map_err(io::Error::other)
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
