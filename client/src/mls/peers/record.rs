//! The record of a user's keys: the verified device list, and the person's decisions about it.

use std::{collections::BTreeMap, fmt};

use keypool_api::{UserDevices, has_signed};
use keypool_ledger::{Event, Hash, PoolId, SignatureKey, Timestamp};
use keypool_projections::{
    directory::{DeviceChange, DeviceList, ListedDevice, Origin},
    statement::LedgerId,
};
use openmls::credentials::Credential;
use serde::{Deserialize, Serialize};

use crate::{
    Staged, StorageError,
    mls::{credential_hash, names},
};

/// The prefix of the names of the records of peers.
const RECORD_PREFIX: &str = "peer/";
/// How many changes are kept of a peer.
const CHANGES_MAX: usize = 64;
/// How many declared credentials are kept of a device.
const DECLARED_MAX: usize = 64;

/// The state of a user's keys, as this device knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerKeys {
    /// The user.
    pub user: String,
    /// How far the keys are trusted.
    pub status: PeerStatus,
    /// The user's registered devices, by name.
    pub devices: Vec<PeerDevice>,
    /// When the keys were seen first.
    pub first_seen: Timestamp,
    /// The changes since then, the oldest first, 64 at most.
    pub changes: Vec<PeerChange>,
}

/// How far a user's keys are trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerStatus {
    /// The server has named them, and nobody has compared them.
    FirstSeen,
    /// A person has compared the safety number.
    Verified {
        /// When.
        at: Timestamp,
    },
    /// The server names keys that do not follow from those that were seen: nobody is invited by them until
    /// the person accepts the new ones.
    Changed {
        /// Why they do not follow.
        why: PeerDoubt,
        /// When that was seen.
        at: Timestamp,
    },
}

/// Why a user's keys do not follow from those that were seen before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerDoubt {
    /// The chain that the server shows contradicts itself, or the changes that were seen before.
    ChainRefused {
        /// The contradiction.
        said: String,
    },
    /// The operator has released the name: it may be another person's.
    NameReleased,
}

impl fmt::Display for PeerDoubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ChainRefused { said } => f.write_str(said),
            Self::NameReleased => {
                f.write_str("the server's operator has released the name: it may be another person")
            }
        }
    }
}

/// A registered device of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerDevice {
    /// Its name.
    pub device: String,
    /// The key that speaks for it.
    pub signature_key: SignatureKey,
    /// Since when, by the server's clock.
    pub since: Timestamp,
    /// How it came to be the user's.
    pub origin: Origin,
    /// Whether its key is trusted as the user's: introduced by keys of the user, or there when the user was
    /// seen first.
    pub is_trusted: bool,
}

/// A change of a user's devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerChange {
    /// When this device saw it, by the server's clock.
    pub at: Timestamp,
    /// The device.
    pub device: String,
    /// The change.
    pub kind: PeerChangeKind,
}

/// The kinds of changes of a user's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerChangeKind {
    /// A device came, introduced by a key of the user.
    Added,
    /// A device came, and no key of the user has introduced it.
    AddedUnsigned,
    /// A device has another key, and the one before has agreed.
    Rotated,
    /// A device has another key, and the one before has not agreed.
    RotatedUnsigned,
    /// A device was removed.
    Removed,
    /// The user's recovery key has registered the device and removed all others.
    Recovered,
}

/// The record of a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PeerRecord {
    list: DeviceList,
    verified_at: Option<Timestamp>,
    first_seen: Timestamp,
    /// When the server was asked last.
    pub(crate) fetched_at: Timestamp,
    doubt: Option<(PeerDoubt, Timestamp)>,
    changes: Vec<PeerChange>,
    /// The digests of the credentials that a device has declared since it was registered, the last one last:
    /// leaves of groups carry them until the device replaces them there.
    #[serde(default)]
    declared: BTreeMap<String, Vec<Hash>>,
}

/// The record of a user, as an operation has it; `None` for one who was never looked up.
pub(crate) fn peer_record(
    staged: &Staged<'_>,
    user: &str,
) -> Result<Option<PeerRecord>, StorageError> {
    staged.app_record(&record_name(user))
}

/// The records of all users that were looked up, as an operation has them.
pub(super) fn peer_records(staged: &Staged<'_>) -> Result<Vec<PeerRecord>, StorageError> {
    let names = staged.app_record_names(RECORD_PREFIX)?;
    let records = names.iter().map(|name| staged.app_record(name));
    Ok(records.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

impl PeerRecord {
    /// The record of a user who is seen for the first time.
    pub(super) fn new(user: &str, now: Timestamp) -> Self {
        Self {
            list: DeviceList::new(user),
            verified_at: None,
            first_seen: now,
            fetched_at: now,
            doubt: None,
            changes: Vec::new(),
            declared: BTreeMap::new(),
        }
    }

    /// Writes the record, as part of an operation.
    pub(crate) fn put(&self, staged: &Staged<'_>) -> Result<(), StorageError> {
        staged.put_app_record(&record_name(self.list.user()), self)
    }

    /// Whether the user has a history at the server.
    pub(super) const fn is_listed(&self) -> bool {
        self.list.position() > 0
    }

    /// The position of the last change that is known.
    pub(super) const fn position(&self) -> u64 {
        self.list.position()
    }

    /// Why the keys do not follow from those that were seen before.
    pub(crate) fn doubt(&self) -> Option<&PeerDoubt> {
        self.doubt.as_ref().map(|(why, _)| why)
    }

    /// Why the keys do not follow from those that were seen before, and when that was seen.
    pub(super) fn doubt_at(&self) -> Option<(&PeerDoubt, Timestamp)> {
        self.doubt.as_ref().map(|(why, at)| (why, *at))
    }

    pub(crate) const fn list(&self) -> &DeviceList {
        &self.list
    }

    pub(super) const fn is_verified(&self) -> bool {
        self.verified_at.is_some() && self.doubt.is_none()
    }

    /// Notes that a person has compared the safety number.
    pub(crate) fn verify(&mut self, now: Timestamp) {
        self.verified_at = Some(now);
    }

    /// Follows the chain that the server shows from the known changes. A chain that does not follow leaves the
    /// list as it was, and the user in doubt.
    pub(super) fn follow(&mut self, shown: &UserDevices, ledgers: &[LedgerId], now: Timestamp) {
        self.fetched_at = now;
        if self.doubt.is_some() {
            return;
        }
        let before = self.list.clone();
        let mut after = self.list.clone();
        let verify = |key: &_, bytes: &[u8], proof: &_| has_signed(key, bytes, proof);
        if let Err(error) =
            after.follow(&shown.history, (shown.head, shown.position), ledgers, &verify)
        {
            let why = PeerDoubt::ChainRefused { said: error.to_string() };
            self.doubt = Some((why, now));
            return;
        }
        let is_first = before.position() == 0;
        if !is_first && before.releases() < after.releases() {
            self.doubt = Some((PeerDoubt::NameReleased, now));
            return;
        }
        if is_first {
            // Nothing is known yet that these devices could follow from.
            after.adopt();
        } else {
            self.note_changes(&before, &after, now);
        }
        self.list = after;
        shown.history.iter().for_each(|change| self.note_declared(change));
    }

    /// Notes the credential that a verified change declares, and forgets those of a device that ends or begins.
    fn note_declared(&mut self, change: &DeviceChange) {
        let device = change.device.device();
        match &change.event {
            Event::CredentialDeclared { credential, .. } => {
                let declared = self.declared.entry(device.to_owned()).or_default();
                declared.push(credential.digest());
                let surplus = declared.len().saturating_sub(DECLARED_MAX);
                declared.drain(..surplus);
            }
            Event::Registered { .. } | Event::DeviceRemoved { .. } => {
                self.declared.remove(device);
            }
            _ => {}
        }
    }

    fn note_changes(&mut self, before: &DeviceList, after: &DeviceList, now: Timestamp) {
        for (device, listed) in after.registered() {
            let known = before.device(device).filter(|known| known.key.is_some());
            let kind = match (known, listed) {
                (Some(known), listed) if known.key == listed.key => continue,
                (_, listed) if listed.origin == Origin::Recovered && listed.introduced => {
                    PeerChangeKind::Recovered
                }
                (Some(_), listed) if listed.introduced => PeerChangeKind::Rotated,
                (Some(_), _) => PeerChangeKind::RotatedUnsigned,
                (None, listed) if listed.introduced => PeerChangeKind::Added,
                (None, _) => PeerChangeKind::AddedUnsigned,
            };
            self.changes.push(PeerChange { at: now, device: device.to_owned(), kind });
        }
        let gone = before
            .registered()
            .filter(|(device, _)| after.device(device).is_none_or(|listed| listed.key.is_none()));
        let kind = PeerChangeKind::Removed;
        let gone = gone.map(|(device, _)| PeerChange { at: now, device: device.to_owned(), kind });
        self.changes.extend(gone);
        let surplus = self.changes.len().saturating_sub(CHANGES_MAX);
        self.changes.drain(..surplus);
    }

    /// Whether a device of the user has declared a credential for its packages.
    pub(crate) fn has_declared(&self, device: &PoolId, credential: &Credential) -> bool {
        let listed = self.list.device(device.device());
        let declared = listed.and_then(|listed| listed.credential.as_ref());
        declared.is_some_and(|declared| {
            credential_hash(credential).is_ok_and(|digest| digest == declared.digest())
        })
    }

    /// Whether a leaf of the user's device may carry a credential: one that names the device, or that the device
    /// has declared since it was registered.
    pub(super) fn has_carried(&self, device: &PoolId, credential: &Credential) -> bool {
        let declared = self.declared.get(device.device()).map(Vec::as_slice).unwrap_or_default();
        names(credential, device)
            || self.has_declared(device, credential)
            || credential_hash(credential).is_ok_and(|digest| declared.contains(&digest))
    }

    /// Whether the device has declared a credential for its packages, and it is another than this one.
    pub(crate) fn declares_other(&self, device: &PoolId, credential: &Credential) -> bool {
        let listed = self.list.device(device.device());
        let has_declared = listed.is_some_and(|listed| listed.credential.is_some());
        has_declared && !self.has_declared(device, credential)
    }

    /// The device that a key signs for.
    pub(super) fn device_with(&self, key: &[u8]) -> Option<PoolId> {
        let mut devices = self.list.registered().filter(|(_, listed)| listed.has_key(key));
        devices.next().and_then(|(device, _)| PoolId::new(self.list.user(), device).ok())
    }

    /// The keys of the user's trusted devices, for the safety number.
    pub(crate) fn trusted_keys(&self) -> Vec<SignatureKey> {
        let trusted = self.list.registered().filter(|(_, listed)| listed.introduced);
        trusted.filter_map(|(_, listed)| listed.key.clone()).collect()
    }

    /// The devices that no key of the user has introduced, and that were not there at first.
    pub(crate) fn unintroduced(&self) -> impl Iterator<Item = (&str, &ListedDevice)> {
        self.list.registered().filter(|(_, listed)| !listed.introduced)
    }

    /// The keys for the app.
    pub(crate) fn to_keys(&self) -> PeerKeys {
        let device = |(name, listed): (&str, &ListedDevice)| {
            Some(PeerDevice {
                device: name.to_owned(),
                signature_key: listed.key.clone()?,
                since: listed.since_at,
                origin: listed.origin.clone(),
                is_trusted: listed.introduced,
            })
        };
        let status = match (&self.doubt, self.verified_at) {
            (Some((why, at)), _) => PeerStatus::Changed { why: why.clone(), at: *at },
            (None, Some(at)) => PeerStatus::Verified { at },
            (None, None) => PeerStatus::FirstSeen,
        };
        PeerKeys {
            user: self.list.user().to_owned(),
            status,
            devices: self.list.registered().filter_map(device).collect(),
            first_seen: self.first_seen,
            changes: self.changes.clone(),
        }
    }
}

fn record_name(user: &str) -> String {
    format!("{RECORD_PREFIX}{user}")
}

/// Forgets a peer, as part of an operation: the next look sees the user for the first time.
pub(super) fn forget(staged: &Staged<'_>, user: &str) {
    staged.remove_app_record(&record_name(user));
}
