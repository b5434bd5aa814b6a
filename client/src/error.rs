//! Errors: one enum for each kind of operation. A variant is a reaction the caller has.

mod bundles;
mod delivery;
mod exchange;
mod invite;
mod joining;
mod recovery;
mod refresh;
mod register;
mod sealing;

use std::{io, path::PathBuf};

pub use keypool_ledger::log::BoxError;
use keypool_ledger::{GroupId, KeyPackageRef, PoolId, SignatureKey};
use serde::{Deserialize, Serialize};

pub use self::{
    bundles::{BundleDeleteError, BundleLoadError},
    delivery::{SendError, SyncError},
    exchange::ExchangeError,
    invite::{InviteError, UpdateError},
    joining::{JoinError, KeyFate, MessageError},
    recovery::RecoveryError,
    refresh::RefreshError,
    register::RegisterError,
    sealing::SealingError,
};
use crate::{UntrustedMember, storage::own_packages::ImpossibleEvent};

/// Why the device's store could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Another process has the home open. Close it, or use another home.
    #[error(
        "another process uses {}; close it, or give this one a home of its own",
        home.display()
    )]
    InUse {
        /// The home that was asked for.
        home: PathBuf,
    },
    /// A file or folder of the home cannot be used. Repair its permissions or its disk.
    #[error("{} cannot be used; look at its permissions and at its disk", path.display())]
    Folder {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The home belongs to another device. Open it as that device, or use another home.
    #[error(
        "{} belongs to {owner}, not to {asked}; open it as {owner}, or use another home",
        home.display()
    )]
    WrongOwner {
        /// The home that was asked for.
        home: PathBuf,
        /// Whose it is.
        owner: PoolId,
        /// The owner that was asked for.
        asked: PoolId,
    },
    /// The program is built without the database that the home has. Build it with the feature `sled-store` or
    /// `sqlite-store`, give a database of the app's, or move the home with `keypool move-store`.
    #[error(
        "this program is built without the database of {} ({kind}); build it with the feature sled-store or \
         sqlite-store, or move the home with `keypool move-store`",
        home.display()
    )]
    NoDatabase {
        /// The home that was asked for.
        home: PathBuf,
        /// The kind of its database: `SQLite`, `sled` or `none`.
        kind: &'static str,
    },
    /// A newer version of keypool wrote the home. Update this program.
    #[error("{} has format {found}, which this version cannot read; update it", home.display())]
    Newer {
        /// The home that was asked for.
        home: PathBuf,
        /// The number of its format.
        found: u16,
    },
    /// The home was written before private keys were sealed. Move it away, and register anew: keys
    /// in clear stay on the disk even if they are overwritten.
    #[error(
        "{} was written before private keys were sealed, and its disk may hold them in clear; move \
         it away, and register the device anew",
        home.display()
    )]
    Unsealed {
        /// The home that was asked for.
        home: PathBuf,
    },
    /// A value, or the whole store, cannot be opened with the device key.
    #[error(transparent)]
    Sealing(#[from] SealingError),
    /// The database is damaged. Restore a backup, or move it away and register the device anew.
    #[error(
        "the database in {} is damaged; restore a backup, or move the folder away and register the \
         device anew (the private keys of its packages are lost with it)",
        path.display()
    )]
    Damaged {
        /// The folder of the database.
        path: PathBuf,
        /// The finding.
        #[source]
        source: BoxError,
    },
    /// The database has lost writes that were acknowledged. Restore a backup, or move it away and
    /// register the device anew: going on would use keys twice.
    #[error(
        "the database in {} has lost its last {} writes; restore a newer backup, or move the \
         folder above away and register the device anew (going on would use keys twice)",
        path.display(),
        expected.saturating_sub(*found)
    )]
    RolledBack {
        /// The folder of the database.
        path: PathBuf,
        /// The number of the last write that is there.
        found: u64,
        /// The number of the last write that was acknowledged.
        expected: u64,
    },
    /// The device's own history is broken. Restore a backup; nothing of it can be trusted.
    #[error(
        "the device's own history is broken at event {version}: {why}; restore a backup, or move \
         the home away and register the device anew"
    )]
    HistoryBroken {
        /// The position of the first event that does not fit, from 1.
        version: u64,
        /// The contradiction.
        why: String,
    },
    /// The server's history does not continue the mirrored one. Distrust the server, and ask who
    /// runs it.
    #[error(
        "event {version} of the server's history does not continue what it has told before: {why}; \
         the server may have lost or rewritten its log"
    )]
    MirrorRefused {
        /// The position of the first event that does not fit, from 1.
        version: u64,
        /// The contradiction.
        why: String,
    },
    /// The event contradicts the package's history. A bug of the caller.
    #[error("the event contradicts the package's history")]
    Impossible(#[from] ImpossibleEvent),
    /// A value cannot be written as bytes or read from them.
    #[error("the stored value of {what} cannot be encoded or decoded")]
    Value {
        /// The kind of value.
        what: String,
        /// The codec's error.
        #[source]
        source: BoxError,
    },
    /// The database cannot be read. Nothing has changed.
    #[error("the device's database cannot be read")]
    Unreadable(#[source] BoxError),
    /// The disk did not say whether the operation was written. Open the store again, and look.
    #[error("it is not known whether the operation was written; open the store again, and look")]
    Unknown(#[source] BoxError),
    /// An earlier write failed, so the store takes no more. Open it again.
    #[error("the store takes no writes since one of them failed; open it again")]
    Stopped,
}

/// Why the device's identity could not be made or loaded.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The store failed.
    #[error("the device's identity cannot be read or stored")]
    Storage(#[from] StorageError),
    /// The store knows the public key, and the private one is gone. Register the device anew.
    #[error("the private key of {signature_key} is missing; register the device anew")]
    KeyMissing {
        /// The public key.
        signature_key: SignatureKey,
    },
    /// The key cannot be made or cannot sign. A fault of the machine or of the store.
    #[error("the device's signature key cannot be used")]
    Unusable(#[source] BoxError),
    /// The keystore has refused, or has failed. Nothing was sent; ask again.
    #[error("the keystore of the device's signature key has refused; nothing was sent")]
    Keystore(#[source] BoxError),
    /// The key is in a keystore, and the store was opened without one.
    #[error("{signature_key} is in a keystore; open the device with it (ClientOptions::keystore)")]
    KeystoreMissing {
        /// The public key.
        signature_key: SignatureKey,
    },
}

/// A pool configuration that contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The target is 0 or above the cap.
    #[error("a target of {target} packages is not between 1 and the cap of {hard_cap}")]
    Target {
        /// The target, in packages.
        target: usize,
        /// The cap, in packages.
        hard_cap: usize,
    },
    /// The low watermark is not below the target.
    #[error("a low watermark of {low_watermark} is not below the target of {target} packages")]
    LowWatermark {
        /// The low watermark, in packages.
        low_watermark: usize,
        /// The target, in packages.
        target: usize,
    },
    /// The lifetime is too short for an inviter to use, or longer than the server accepts.
    #[error("a lifetime of {lifetime_s} s is not between 1 h and 14 d")]
    Lifetime {
        /// The lifetime, in seconds.
        lifetime_s: u64,
    },
    /// The lifetime of the package of last resort is too short for an inviter to use, or longer than the
    /// server accepts.
    #[error(
        "a lifetime of {lifetime_s} s of the package of last resort is not between 1 h and 84 d"
    )]
    LastResortLifetime {
        /// The lifetime, in seconds.
        lifetime_s: u64,
    },
    /// The ciphersuite is none that the device can use, or none of the pool's.
    #[error("ciphersuite {0} is not one the device can use; 1, 2, 3, 78 and 79 are")]
    Ciphersuite(u16),
    /// No ciphersuite is named.
    #[error("a pool needs a ciphersuite; 1 is the usual one")]
    NoCiphersuite,
    /// A ciphersuite is named twice.
    #[error("ciphersuite {0} is named twice")]
    CiphersuiteTwice(u16),
    /// The targets of all ciphersuites together are above the cap.
    #[error(
        "a target of {target} packages for each of {suites} ciphersuites is above the cap of {hard_cap}; \
         at most {} each fit", hard_cap / suites
    )]
    TargetOfAll {
        /// The target for each ciphersuite, in packages.
        target: usize,
        /// How many ciphersuites there are.
        suites: usize,
        /// The cap, in packages.
        hard_cap: usize,
    },
}

/// Why packages could not be made. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The store failed.
    #[error("the pool cannot be read or stored")]
    Storage(#[from] StorageError),
    /// The configuration contradicts itself.
    #[error("the pool's configuration is not valid")]
    Config(#[from] ConfigError),
    /// More packages were asked for than the cap leaves room for. Ask for fewer.
    #[error("{asked} packages were asked for and the cap leaves room for {room}")]
    AboveCap {
        /// How many were asked for.
        asked: usize,
        /// How many there is room for.
        room: usize,
    },
    /// A key of the device cannot be made, is missing, or its keystore refuses.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A package could not be made.
    #[error("a package could not be made")]
    Mls(#[source] BoxError),
}

/// Why an operation on a group failed. Nothing of it was written.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// The store failed.
    #[error("the group cannot be read or stored")]
    Storage(#[from] StorageError),
    /// The device is not in the group. Join it first.
    #[error("the device is not in group {group}")]
    NotInGroup {
        /// The group.
        group: GroupId,
    },
    /// There is a group with that id already. Take another id.
    #[error("the device is in group {group} already")]
    AlreadyInGroup {
        /// The group.
        group: GroupId,
    },
    /// A Commit of this device is pending. Resume the operation that made it; one of your own, merge or clear.
    #[error("a Commit to group {group} is pending; finish it first")]
    CommitPending {
        /// The group.
        group: GroupId,
    },
    /// No member of the group has that name.
    #[error("{member} is not in group {group}")]
    NotAMember {
        /// The group.
        group: GroupId,
        /// The member that was named.
        member: PoolId,
    },
    /// The device cannot use the ciphersuite. Take 1, 2, 3, 78 or 79.
    #[error("ciphersuite {0} is not one the device can use; 1, 2, 3, 78 and 79 are")]
    Ciphersuite(u16),
    /// The keys of some members contradict the directory, and the app has not accepted them. Remove the
    /// members, or call `accept_untrusted`.
    #[error(
        "nothing is sent to group {group}: {}; remove them from the group, or accept them if you know why",
        named(members)
    )]
    UntrustedMembers {
        /// The group.
        group: GroupId,
        /// The members.
        members: Vec<UntrustedMember>,
    },
    /// This home is an older copy of itself, and may have used its keys in the group already. Leave the group, and
    /// have this device removed from it and invited again.
    #[error(
        "nothing is sent to group {group}, since this home is an older copy of itself; leave the group, and have \
         this device removed from it and invited again"
    )]
    ReadOnly {
        /// The group.
        group: GroupId,
    },
    /// A key of the device cannot be made, is missing, or its keystore refuses.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// MLS refused the operation.
    #[error("MLS refused the operation")]
    Mls(#[source] BoxError),
}

fn named(members: &[UntrustedMember]) -> String {
    let all: Vec<String> = members.iter().map(ToString::to_string).collect();
    all.join("; ")
}

/// Why packages could not be added to a group. Nothing was written, and no Commit is pending.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The group cannot take a Commit at present.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The package is not usable. Report it, and reserve another.
    #[error("package {keypackage_ref} of {owner} was rejected by the check {check}")]
    PackageRejected {
        /// The package, as it was asked for.
        keypackage_ref: KeyPackageRef,
        /// Whose package was asked for.
        owner: PoolId,
        /// The check it failed.
        check: PackageCheck,
        /// The error of MLS, if there is one.
        #[source]
        source: Option<BoxError>,
    },
    /// The device is in the group already. Release the reservation.
    #[error("{owner} is in the group already; release the reservation")]
    AlreadyMember {
        /// Whose package it is.
        owner: PoolId,
    },
    /// Two of the packages are of one device. Add one of them, and release the other.
    #[error("two of the packages are of the device {owner}; one Commit takes one of them")]
    SameDevice {
        /// Whose packages they are.
        owner: PoolId,
    },
}

/// The checks of the inviter, which trusts no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackageCheck {
    /// The bytes are exactly one package.
    Encoding,
    /// The bytes are those of the reference that was asked for.
    Reference,
    /// The credential names the user that was asked for.
    Identity,
    /// The package may be used now, and its lifetime is 84 days and two hours at most.
    Lifetime,
    /// The machine's clock agrees that the package may be used now: MLS asks it, and by the server's time the package
    /// may be used.
    Clock,
    /// The ciphersuite is the group's.
    Ciphersuite,
    /// Signatures, version, keys and extensions are valid.
    Validity,
    /// Secrets can be encrypted to its keys.
    Keys,
    /// The group can take its owner, together with the others that are added.
    Group,
    /// The key and credential in its leaf are the ones that the directory names for its owner.
    Directory,
}

impl std::fmt::Display for PackageCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Encoding => "encoding",
            Self::Reference => "reference",
            Self::Identity => "identity",
            Self::Lifetime => "lifetime",
            Self::Clock => "clock",
            Self::Ciphersuite => "ciphersuite",
            Self::Validity => "validity",
            Self::Keys => "keys",
            Self::Group => "group",
            Self::Directory => "directory",
        })
    }
}
