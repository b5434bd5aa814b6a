//! Errors of sealing a device's values.

use std::{io, path::PathBuf};

use super::BoxError;
use crate::DeviceKeyKind;

/// Why the values of a store cannot be sealed or opened. None says anything of a key or a value.
#[derive(Debug, thiserror::Error)]
pub enum SealingError {
    /// The passphrase is not the store's. Ask for it again.
    #[error("the passphrase is not the one that {} was sealed with; try again", home.display())]
    WrongPassphrase {
        /// The home that was asked for.
        home: PathBuf,
    },
    /// The key is not the store's. Give the one that the home was made with.
    #[error(
        "the key is not the one that {} was sealed with; give the one it was made with, from a \
         backup if need be",
        home.display()
    )]
    WrongKey {
        /// The home that was asked for.
        home: PathBuf,
    },
    /// The store is sealed with another kind of key. Open it with that kind.
    #[error("{} is sealed with {sealed_with}, not with {asked}; open it with that", home.display())]
    OtherKind {
        /// The home that was asked for.
        home: PathBuf,
        /// The kind of key that it is sealed with.
        sealed_with: DeviceKeyKind,
        /// The kind of key that was given.
        asked: DeviceKeyKind,
    },
    /// No key can be made of the passphrase: there is too little memory for it, for example.
    #[error("no key can be made of the passphrase; 64 MiB of memory are needed for it")]
    Passphrase(#[source] BoxError),
    /// The file with the device key is gone. Put it back from a backup.
    #[error(
        "the device key {} is missing; put it back from a backup, or move the home away and \
         register the device anew",
        path.display()
    )]
    DeviceKeyMissing {
        /// The path where it should be.
        path: PathBuf,
    },
    /// The file with the device key is no key. Put it back from a backup.
    #[error(
        "{} is not the 32 bytes of a device key; put it back from a backup, or move the home away \
         and register the device anew",
        path.display()
    )]
    DeviceKeyDamaged {
        /// The file.
        path: PathBuf,
    },
    /// Others may read the device key. Close the file to them, and ask who has read it.
    #[error(
        "others may read {} (mode {mode:o}); chmod 600 it, and register the device anew if \
         somebody may have read it",
        path.display()
    )]
    DeviceKeyTooOpen {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file with the keys of all values is gone. Put back the whole home from a backup.
    #[error(
        "the key file {} is missing, and without it nothing of the home can be opened; put the \
         whole home back from a backup, or move it away and register the device anew",
        path.display()
    )]
    KeyFileMissing {
        /// The path where it should be.
        path: PathBuf,
    },
    /// The header of the file with the keys of all values is damaged, in both its copies.
    #[error(
        "the key file {} is damaged: {why}; put the whole home back from a backup, or move it away \
         and register the device anew",
        path.display()
    )]
    KeyFileDamaged {
        /// The file.
        path: PathBuf,
        /// The fault.
        why: &'static str,
    },
    /// The key file is of another home. Put back the one that belongs here.
    #[error("the key file {} belongs to another home; put back its own", path.display())]
    KeyFileForeign {
        /// The file.
        path: PathBuf,
    },
    /// A newer version of keypool wrote the key file. Update this program.
    #[error("{} has format {found}, which this version cannot read; update it", path.display())]
    KeyFileNewer {
        /// The file.
        path: PathBuf,
        /// The number of its format.
        found: u16,
    },
    /// The slot that holds the key of a value is damaged. The value is lost, and nothing else.
    #[error(
        "{what} cannot be opened: slot {slot} of the key file is damaged; put the whole home back \
         from a backup, or let the doctor remove what is lost"
    )]
    SlotDamaged {
        /// The size that was asked for.
        what: String,
        /// The number of the slot.
        slot: u32,
    },
    /// A sealed value is damaged, or stands under a name that it was not sealed for.
    #[error(
        "{what} cannot be opened: its bytes have changed, or belong elsewhere; put the whole home \
         back from a backup, or let the doctor remove what is lost"
    )]
    ValueDamaged {
        /// The size that was asked for.
        what: String,
    },
    /// The key file cannot be read or written. Repair its permissions or its disk.
    #[error("{} cannot be used; look at its permissions and at its disk", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The system gives no randomness. Nothing secret can be made without.
    #[error("the system gives no random bytes")]
    NoRandomness(#[source] BoxError),
    /// A value is too large to be sealed.
    #[error("the value is too large to be sealed")]
    TooLarge,
}
