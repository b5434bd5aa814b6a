//! The directory's chain: the changes of a user's device list, verified from the user's first key on.
//!
//! Every change but a removal carries a statement by a key that was the user's before, on the head of the
//! device list at that moment. [`DeviceList::apply`] computes each head again. So a change that was left
//! out, added, put elsewhere or taken from another user's chain shows: at the next statement, or at the
//! head that the server names in the end.
//!
//! A server can still say that a device was removed, that a name was released, and that it let a device in
//! by its operator's word. The list says so of each device ([`Origin`], [`ListedDevice::introduced`]), and
//! its reader decides.

mod chain_error;

mod checks;

use std::collections::{BTreeMap, BTreeSet};

use keypool_ledger::{CredentialBytes, Event, Hash, PoolId, Signature, SignatureKey, Timestamp};
use serde::{Deserialize, Serialize};

pub use self::chain_error::ChainError;
use self::checks::{ChangeCheck, out_of_order};
use crate::statement::{LedgerId, device_list_head};

/// A change of a user's device list, as the log has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceChange {
    /// The device.
    pub device: PoolId,
    /// The position of the change in the log.
    pub position: u64,
    /// When it was recorded.
    #[serde(rename = "at_ms")]
    pub at: Timestamp,
    /// The change: a registration, a rotation, a removal, a release of the name, or the declaration of a
    /// leaf key, a credential or a recovery key.
    pub event: Event,
}

/// How a device came to be the user's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// It was the first under the name: trusted on first use.
    First,
    /// A device of the user vouched for it.
    Vouched {
        /// The key that vouched.
        by: SignatureKey,
    },
    /// The user's recovery key registered it, and removed every other device.
    Recovered,
    /// Nobody of the user's signed for it: it came by the word of the operator or of a frontend, or before there
    /// were statements.
    Unsigned,
}

/// A device in a [`DeviceList`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedDevice {
    /// How often its keys have changed: a part of the list's head.
    pub changes: u64,
    /// How often it was registered.
    pub incarnation: u32,
    /// The key that speaks for it; `None` if it was removed.
    pub key: Option<SignatureKey>,
    /// The position in the log at which that key was registered, or took the place of another.
    pub since: u64,
    /// When that was.
    pub since_at: Timestamp,
    /// How it came.
    pub origin: Origin,
    /// Whether statements lead from the user's first key to the key of now.
    pub introduced: bool,
    /// The keys that sign its packages of other signature schemes, by scheme, as it has declared.
    pub leaf_keys: BTreeMap<u16, SignatureKey>,
    /// The keys that signed for it, or its packages, and when another took their place: leaves of groups name
    /// them until the device replaces them there.
    pub former_keys: BTreeMap<SignatureKey, Timestamp>,
    /// The credential that its packages carry, as it has declared; `None` for the Basic credential that
    /// names the device.
    pub credential: Option<CredentialBytes>,
}

impl ListedDevice {
    /// Whether a key signs for the device or its packages, or did before another took its place.
    #[must_use]
    pub fn has_key(&self, key: &[u8]) -> bool {
        let mut keys =
            self.key.iter().chain(self.leaf_keys.values()).chain(self.former_keys.keys());
        self.key.is_some() && keys.any(|known| known.as_bytes() == key)
    }

    /// When another key took the place of this one; `None` if it signs now, or never did.
    #[must_use]
    pub fn replaced_at(&self, key: &[u8]) -> Option<Timestamp> {
        let mut former = self.former_keys.iter();
        former.find(|(known, _)| known.as_bytes() == key).map(|(_, at)| *at)
    }
}

/// A user's devices and keys, as a chain of changes has left them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceList {
    user: String,
    /// The position of the last change.
    position: u64,
    /// How often the operator has released the name.
    releases: u32,
    /// Whether a device was registered since the last release.
    begun: bool,
    recovery_key: Option<SignatureKey>,
    /// The device that set the first recovery key: the others stand in its history too.
    recovery_device: Option<String>,
    /// Whether the recovery key was set by an introduced device.
    recovery_introduced: bool,
    retired: BTreeSet<SignatureKey>,
    devices: BTreeMap<String, ListedDevice>,
    /// The heads before the removals that came last, in a row: a recovery names one of them.
    heads_before_removals: Vec<Hash>,
    /// The device whose key was rotated, if only leaf keys of its new key came since, and the head before
    /// that: the statements of those leaf keys name it.
    head_before_rotation: Option<(String, Hash)>,
}

/// A check of an Ed25519 signature: key, signed bytes, signature.
pub type Verify<'a> = &'a dyn Fn(&SignatureKey, &[u8], &Signature) -> bool;

impl DeviceList {
    /// The empty list of a user, before the first change.
    #[must_use]
    pub fn new(user: &str) -> Self {
        Self {
            user: user.to_owned(),
            position: 0,
            releases: 0,
            begun: false,
            recovery_key: None,
            recovery_device: None,
            recovery_introduced: false,
            retired: BTreeSet::new(),
            devices: BTreeMap::new(),
            heads_before_removals: Vec::new(),
            head_before_rotation: None,
        }
    }

    /// The user.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The position of the last change in the log; 0 before the first.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// How often the operator has released the name: after a release it may be another person's.
    #[must_use]
    pub const fn releases(&self) -> u32 {
        self.releases
    }

    /// The user's recovery key.
    #[must_use]
    pub const fn recovery_key(&self) -> Option<&SignatureKey> {
        self.recovery_key.as_ref()
    }

    /// The device that set the user's first recovery key, registered or removed: the subject of a statement
    /// by which another recovery key takes its place.
    #[must_use]
    pub fn recovery_device(&self) -> Option<&str> {
        self.recovery_device.as_deref()
    }

    /// Whether statements lead from the user's first key to the recovery key.
    #[must_use]
    pub const fn is_recovery_key_introduced(&self) -> bool {
        self.recovery_introduced
    }

    /// Whether a key was removed or replaced: then it is nobody's ever after.
    #[must_use]
    pub fn is_retired(&self, key: &SignatureKey) -> bool {
        self.retired.contains(key)
    }

    /// A device by its name, registered or removed.
    #[must_use]
    pub fn device(&self, device: &str) -> Option<&ListedDevice> {
        self.devices.get(device)
    }

    /// The devices that a key speaks for, by name.
    pub fn registered(&self) -> impl Iterator<Item = (&str, &ListedDevice)> {
        let devices = self.devices.iter().filter(|(_, listed)| listed.key.is_some());
        devices.map(|(device, listed)| (device.as_str(), listed))
    }

    /// The head of the list, which the next statement names: see [`device_list_head`].
    #[must_use]
    pub fn head(&self) -> Hash {
        let devices = self.devices.iter();
        let parts =
            devices.map(|(name, listed)| (name.as_str(), listed.changes, listed.key.as_ref()));
        device_list_head(&self.user, parts)
    }

    /// Takes the registered devices that nobody has introduced for the user's: for a reader who sees the user for
    /// the first time, or accepts them. The keys that follow, and the devices they vouch for, are introduced
    /// from then on.
    pub fn adopt(&mut self) {
        self.devices.values_mut().for_each(|listed| listed.introduced |= listed.key.is_some());
        self.recovery_introduced |= self.recovery_key.is_some();
    }

    /// Applies the changes that the server shows after the known ones, and compares the head and the
    /// position of the last change that it names. `ledgers` are those that statements may be for: a server
    /// that went on with a restored copy has had others before.
    ///
    /// # Errors
    ///
    /// Returns the [`ChainError`]. The list is as it was then.
    pub fn follow(
        &mut self,
        changes: &[DeviceChange],
        (head, position): (Hash, u64),
        ledgers: &[LedgerId],
        verify: Verify<'_>,
    ) -> Result<(), ChainError> {
        let user = || self.user.clone();
        if position < self.position {
            return Err(ChainError::Older { user: user(), known: self.position, shown: position });
        }
        let mut after = self.clone();
        for change in changes {
            after.apply(change, ledgers, verify)?;
        }
        if (after.head(), after.position) != (head, position) {
            return Err(ChainError::Withheld { user: user() });
        }
        *self = after;
        Ok(())
    }

    /// Applies the next change.
    ///
    /// # Errors
    ///
    /// Returns a [`ChainError`]. The list is not to be used any more then.
    pub fn apply(
        &mut self,
        change: &DeviceChange,
        ledgers: &[LedgerId],
        verify: Verify<'_>,
    ) -> Result<(), ChainError> {
        let DeviceChange { device, position, .. } = change;
        if device.user() != self.user {
            return Err(ChainError::OtherUser { device: device.clone(), position: *position });
        }
        if *position <= self.position {
            return Err(out_of_order(change));
        }
        let checked = ChangeCheck { list: self, change, ledgers, verify };
        match &change.event {
            Event::Registered { signature_key, statement, .. } => {
                let (origin, introduced) =
                    checked.registration(signature_key, statement.as_ref())?;
                self.register(change, signature_key, origin, introduced);
            }
            Event::KeyRotated { signature_key, statement, .. } => {
                let introduced = checked.rotation(signature_key, statement.as_ref())?;
                let rotated = (change.device.device().to_owned(), self.head());
                self.head_before_rotation = Some(rotated);
                self.rotate(change, signature_key, introduced);
            }
            Event::DeviceRemoved { .. } => {
                checked.speaking_key()?;
                let head = self.head();
                self.heads_before_removals.push(head);
                self.remove(change);
            }
            Event::LeafKeyPinned { signature_scheme, signature_key, statement } => {
                let leaf_key = (*signature_scheme, signature_key);
                let is_signed = checked.leaf_key(leaf_key, statement.as_ref())?;
                self.change(change, |listed| {
                    if is_signed {
                        let before =
                            listed.leaf_keys.insert(*signature_scheme, signature_key.clone());
                        listed.former_keys.extend(before.map(|key| (key, change.at)));
                    }
                });
            }
            Event::CredentialDeclared { credential, statement } => {
                checked.credential(credential, statement)?;
                self.change(change, |listed| listed.credential = Some(credential.clone()));
            }
            Event::RecoveryKeySet { recovery_key, statement } => {
                let introduced = checked.recovery_key(recovery_key, statement)?;
                self.set_recovery_key(change, recovery_key, introduced);
            }
            Event::NameReleased {} => {
                if checked.speaking_key().is_ok() {
                    return Err(out_of_order(change));
                }
                self.release(change);
            }
            _ => return Err(out_of_order(change)),
        }
        self.end_runs(&change.event);
        self.position = *position;
        Ok(())
    }

    /// Forgets the earlier heads that a statement might have named, unless the event goes on with their run.
    fn end_runs(&mut self, event: &Event) {
        if !matches!(event, Event::DeviceRemoved { .. }) {
            self.heads_before_removals.clear();
        }
        if !matches!(event, Event::KeyRotated { .. } | Event::LeafKeyPinned { .. }) {
            self.head_before_rotation = None;
        }
    }

    fn register(
        &mut self,
        change: &DeviceChange,
        key: &SignatureKey,
        origin: Origin,
        introduced: bool,
    ) {
        if origin == Origin::Recovered {
            // Those that the server has not removed before are none of the user's.
            self.devices.values_mut().for_each(|listed| listed.introduced = false);
        }
        self.begun = true;
        let before = self.devices.get(change.device.device());
        let (changes, incarnation) =
            before.map_or((0, 0), |listed| (listed.changes, listed.incarnation));
        let listed = ListedDevice {
            changes: changes + 1,
            incarnation: incarnation + 1,
            key: Some(key.clone()),
            since: change.position,
            since_at: change.at,
            origin,
            introduced,
            leaf_keys: BTreeMap::new(),
            former_keys: BTreeMap::new(),
            credential: None,
        };
        self.devices.insert(change.device.device().to_owned(), listed);
    }

    fn rotate(&mut self, change: &DeviceChange, key: &SignatureKey, introduced: bool) {
        let mut before = None;
        self.change(change, |listed| {
            // One key goes, and another comes.
            listed.changes += 1;
            before = listed.key.replace(key.clone());
            (listed.since, listed.since_at) = (change.position, change.at);
            listed.introduced = introduced;
            let leaf_keys = std::mem::take(&mut listed.leaf_keys).into_values();
            listed.former_keys.extend(leaf_keys.chain(before.clone()).map(|key| (key, change.at)));
        });
        self.retired.extend(before);
    }

    fn remove(&mut self, change: &DeviceChange) {
        let mut before = None;
        self.change(change, |listed| {
            before = listed.key.take();
            listed.leaf_keys.clear();
            listed.former_keys.clear();
            listed.credential = None;
        });
        self.retired.extend(before);
    }

    fn set_recovery_key(&mut self, change: &DeviceChange, key: &SignatureKey, introduced: bool) {
        self.retired.extend(self.recovery_key.replace(key.clone()));
        self.recovery_introduced = introduced;
        let device = change.device.device();
        self.recovery_device.get_or_insert_with(|| device.to_owned());
        self.change(change, |_| ());
    }

    fn release(&mut self, change: &DeviceChange) {
        self.retired.extend(self.recovery_key.take());
        (self.recovery_device, self.recovery_introduced) = (None, false);
        self.releases += u32::from(self.begun);
        self.begun = false;
        self.change(change, |_| ());
    }

    /// Counts a change of a device, which may be a name that was released before it was registered again.
    fn change(&mut self, change: &DeviceChange, does: impl FnOnce(&mut ListedDevice)) {
        if let Some(listed) = self.devices.get_mut(change.device.device()) {
            listed.changes += 1;
            does(listed);
        }
    }

    fn is_in_use(&self, key: &SignatureKey) -> bool {
        self.devices.values().any(|listed| listed.key.as_ref() == Some(key))
    }
}
