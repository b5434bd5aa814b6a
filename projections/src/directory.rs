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

use std::collections::{BTreeMap, BTreeSet};

use keypool_ledger::{
    CredentialBytes, Event, Hash, PoolId, Signature, SignatureKey, SignedStatement, Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::statement::{Agreement, LedgerId, Statement, device_list_head};

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
    /// Nobody of the user's signed for it: it came by the operator's word, or before there were statements.
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
    /// The keys that signed for it, or its packages, before another took their place: leaves of groups name
    /// them until the device replaces them there.
    pub former_keys: BTreeSet<SignatureKey>,
    /// The credential that its packages carry, as it has declared; `None` for the Basic credential that
    /// names the device.
    pub credential: Option<CredentialBytes>,
}

impl ListedDevice {
    /// Whether a key signs for the device or its packages, or did before another took its place.
    #[must_use]
    pub fn has_key(&self, key: &[u8]) -> bool {
        let mut keys = self.key.iter().chain(self.leaf_keys.values()).chain(&self.former_keys);
        self.key.is_some() && keys.any(|known| known.as_bytes() == key)
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
    /// Whether the recovery key was set by an introduced device.
    recovery_introduced: bool,
    retired: BTreeSet<SignatureKey>,
    devices: BTreeMap<String, ListedDevice>,
    /// The heads before the removals that came last, in a row: a recovery names one of them.
    heads_before_removals: Vec<Hash>,
}

/// Why a chain of changes is not the user's: a lie of the server, or a damaged reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A change is of another user's device.
    #[error("the change at position {position} is of {device}, another user's device")]
    OtherUser {
        /// The device.
        device: PoolId,
        /// Where the change stands.
        position: u64,
    },
    /// A change stands before one that is known, or makes no sense after it.
    #[error("the change at position {position} of {device} does not follow from those before it")]
    OutOfOrder {
        /// The device.
        device: PoolId,
        /// Where the change stands.
        position: u64,
    },
    /// A statement was made on another device list: a change before it is left out, or was added.
    #[error(
        "the statement at position {position} was made on another list of the user's devices: a change before \
         it is left out or was added"
    )]
    Gap {
        /// Where the change stands.
        position: u64,
    },
    /// A statement is not signed by the key it names, for this change, device and ledger.
    #[error("the statement at position {position} is not signed by the key it names")]
    NotSigned {
        /// Where the change stands.
        position: u64,
    },
    /// A statement had ended before the change was recorded.
    #[error("the statement at position {position} had ended before it was used")]
    Expired {
        /// Where the change stands.
        position: u64,
    },
    /// A statement is by a key that was not the user's at that moment.
    #[error("the statement at position {position} is by {by}, which was no key of the user then")]
    NotTheUsers {
        /// Where the change stands.
        position: u64,
        /// The key.
        by: SignatureKey,
    },
    /// A key that was removed or replaced, or is another device's, is registered again.
    #[error("the change at position {position} brings back {key}, which was removed or is in use")]
    KeyReused {
        /// Where the change stands.
        position: u64,
        /// The key.
        key: SignatureKey,
    },
    /// The server's last change is an earlier one than a change that is known already.
    #[error(
        "the server shows an older list of {user}'s devices: up to position {shown}, not {known}"
    )]
    Older {
        /// The user.
        user: String,
        /// The position of the last change that is known.
        known: u64,
        /// The position that the server shows.
        shown: u64,
    },
    /// The changes do not lead to the head that the server names: some are kept back.
    #[error(
        "the server keeps changes of {user}'s devices back: they do not lead to the head it names"
    )]
    Withheld {
        /// The user.
        user: String,
    },
}

/// A check of an Ed25519 signature: key, signed bytes, signature.
pub type Verify<'a> = &'a dyn Fn(&SignatureKey, &[u8], &Signature) -> bool;

impl DeviceList {
    /// The list of a user of whom nothing is known.
    #[must_use]
    pub fn new(user: &str) -> Self {
        Self {
            user: user.to_owned(),
            position: 0,
            releases: 0,
            begun: false,
            recovery_key: None,
            recovery_introduced: false,
            retired: BTreeSet::new(),
            devices: BTreeMap::new(),
            heads_before_removals: Vec::new(),
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

    /// Applies the changes that the server shows after the known ones, and compares the head and the
    /// position of the last change that it names.
    ///
    /// # Errors
    ///
    /// Returns the [`ChainError`]. The list is as it was then.
    pub fn follow(
        &mut self,
        changes: &[DeviceChange],
        (head, position): (Hash, u64),
        ledger: &LedgerId,
        verify: Verify<'_>,
    ) -> Result<(), ChainError> {
        let user = || self.user.clone();
        if position < self.position {
            return Err(ChainError::Older { user: user(), known: self.position, shown: position });
        }
        let mut after = self.clone();
        for change in changes {
            after.apply(change, ledger, verify)?;
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
        ledger: &LedgerId,
        verify: Verify<'_>,
    ) -> Result<(), ChainError> {
        let DeviceChange { device, position, .. } = change;
        if device.user() != self.user {
            return Err(ChainError::OtherUser { device: device.clone(), position: *position });
        }
        if *position <= self.position {
            return Err(out_of_order(change));
        }
        let checked = Checked { list: self, change, ledger, verify };
        match &change.event {
            Event::Registered { signature_key, statement, .. } => {
                let (origin, introduced) =
                    checked.registration(signature_key, statement.as_ref())?;
                self.register(change, signature_key, origin, introduced);
            }
            Event::KeyRotated { signature_key, statement, .. } => {
                let introduced = checked.rotation(signature_key, statement.as_ref())?;
                self.rotate(change, signature_key, introduced);
            }
            Event::DeviceRemoved {} => {
                checked.speaking_key()?;
                let head = self.head();
                self.heads_before_removals.push(head);
                self.remove(change);
            }
            Event::LeafKeyPinned { signature_scheme, signature_key, statement } => {
                let agreement = Agreement::LeafKey(*signature_scheme, signature_key);
                let is_signed = checked.declaration(&agreement, statement.as_ref())?;
                self.change(change, |listed| {
                    if is_signed {
                        let before =
                            listed.leaf_keys.insert(*signature_scheme, signature_key.clone());
                        listed.former_keys.extend(before);
                    }
                });
            }
            Event::CredentialDeclared { credential, statement } => {
                let digest = credential.digest();
                checked.declaration(&Agreement::Credential(&digest), Some(statement))?;
                self.change(change, |listed| listed.credential = Some(credential.clone()));
            }
            Event::RecoveryKeySet { recovery_key, statement } => {
                let introduced = checked.recovery_key(recovery_key, statement)?;
                self.retired.extend(self.recovery_key.replace(recovery_key.clone()));
                self.recovery_introduced = introduced;
                self.change(change, |_| ());
            }
            Event::NameReleased {} => {
                self.retired.extend(self.recovery_key.take());
                self.releases += u32::from(self.begun);
                self.begun = false;
                self.change(change, |_| ());
            }
            _ => return Err(out_of_order(change)),
        }
        if !matches!(change.event, Event::DeviceRemoved {}) {
            self.heads_before_removals.clear();
        }
        self.position = *position;
        Ok(())
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
            former_keys: BTreeSet::new(),
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
            listed.former_keys.extend(std::mem::take(&mut listed.leaf_keys).into_values());
            listed.former_keys.extend(before.clone());
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

    /// Counts a change of a device, which may be a name that was released before it was registered again.
    fn change(&mut self, change: &DeviceChange, does: impl FnOnce(&mut ListedDevice)) {
        if let Some(listed) = self.devices.get_mut(change.device.device()) {
            listed.changes += 1;
            does(listed);
        }
    }

    fn is_in_use(&self, key: &SignatureKey) -> bool {
        self.recovery_key.as_ref() == Some(key)
            || self.devices.values().any(|listed| listed.key.as_ref() == Some(key))
    }
}

/// A change, and the list that it is checked against.
struct Checked<'a> {
    list: &'a DeviceList,
    change: &'a DeviceChange,
    ledger: &'a LedgerId,
    verify: Verify<'a>,
}

impl Checked<'_> {
    /// How a registration came about, and whether statements lead to it.
    fn registration(
        &self,
        key: &SignatureKey,
        statement: Option<&SignedStatement>,
    ) -> Result<(Origin, bool), ChainError> {
        let device = self.list.devices.get(self.change.device.device());
        if device.is_some_and(|listed| listed.key.is_some()) {
            return Err(out_of_order(self.change));
        }
        self.fresh(key)?;
        let Some(statement) = statement else {
            let is_first = !self.list.begun;
            return Ok((if is_first { Origin::First } else { Origin::Unsigned }, is_first));
        };
        if self.list.recovery_key.as_ref() == Some(&statement.by) {
            let mut heads = self.list.heads_before_removals.clone();
            heads.push(self.list.head());
            self.signed(&Agreement::Recover(key), statement, &heads)?;
            return Ok((Origin::Recovered, self.list.recovery_introduced));
        }
        let mut registered = self.list.registered().map(|(_, listed)| listed);
        let by = registered.find(|listed| listed.key.as_ref() == Some(&statement.by));
        let by = by.ok_or_else(|| self.not_the_users(statement))?;
        self.signed(&Agreement::Vouch(key), statement, &[self.list.head()])?;
        Ok((Origin::Vouched { by: statement.by.clone() }, by.introduced))
    }

    /// Whether statements lead to the key that follows.
    fn rotation(
        &self,
        key: &SignatureKey,
        statement: Option<&SignedStatement>,
    ) -> Result<bool, ChainError> {
        let listed = self.speaking_key()?;
        self.fresh(key)?;
        // A record from before statements.
        let Some(statement) = statement else { return Ok(false) };
        self.signed_by(listed, &Agreement::Rotate(key), statement)?;
        Ok(listed.introduced)
    }

    /// Whether a declaration is signed: records from before statements are not.
    fn declaration(
        &self,
        agreement: &Agreement<'_>,
        statement: Option<&SignedStatement>,
    ) -> Result<bool, ChainError> {
        let listed = self.speaking_key()?;
        let Some(statement) = statement else { return Ok(false) };
        self.signed_by(listed, agreement, statement)?;
        Ok(true)
    }

    /// Whether statements lead to a recovery key.
    fn recovery_key(
        &self,
        key: &SignatureKey,
        statement: &SignedStatement,
    ) -> Result<bool, ChainError> {
        self.fresh(key)?;
        let agreement = Agreement::RecoveryKey(key);
        let Some(before) = &self.list.recovery_key else {
            let listed = self.speaking_key()?;
            self.signed_by(listed, &agreement, statement)?;
            return Ok(listed.introduced);
        };
        if *before != statement.by {
            return Err(self.not_the_users(statement));
        }
        self.signed(&agreement, statement, &[self.list.head()])?;
        Ok(self.list.recovery_introduced)
    }

    /// The device of the change, which must be registered.
    fn speaking_key(&self) -> Result<&ListedDevice, ChainError> {
        let listed = self.list.devices.get(self.change.device.device());
        listed.filter(|listed| listed.key.is_some()).ok_or_else(|| out_of_order(self.change))
    }

    fn fresh(&self, key: &SignatureKey) -> Result<(), ChainError> {
        if self.list.retired.contains(key) || self.list.is_in_use(key) {
            let position = self.change.position;
            return Err(ChainError::KeyReused { position, key: key.clone() });
        }
        Ok(())
    }

    fn signed_by(
        &self,
        listed: &ListedDevice,
        agreement: &Agreement<'_>,
        statement: &SignedStatement,
    ) -> Result<(), ChainError> {
        if listed.key.as_ref() != Some(&statement.by) {
            return Err(self.not_the_users(statement));
        }
        self.signed(agreement, statement, &[self.list.head()])
    }

    fn signed(
        &self,
        agreement: &Agreement<'_>,
        statement: &SignedStatement,
        heads: &[Hash],
    ) -> Result<(), ChainError> {
        let Self { change: DeviceChange { device, position, at, .. }, ledger, verify, .. } = self;
        let (position, SignedStatement { by, head, until, proof }) = (*position, statement);
        if !heads.contains(head) {
            return Err(ChainError::Gap { position });
        }
        if until < at {
            return Err(ChainError::Expired { position });
        }
        let agreement = agreement.clone();
        let bytes = Statement { ledger, subject: device, by, agreement, head, until: *until };
        if verify(by, &bytes.to_bytes(), proof) {
            Ok(())
        } else {
            Err(ChainError::NotSigned { position })
        }
    }

    fn not_the_users(&self, statement: &SignedStatement) -> ChainError {
        ChainError::NotTheUsers { position: self.change.position, by: statement.by.clone() }
    }
}

fn out_of_order(change: &DeviceChange) -> ChainError {
    ChainError::OutOfOrder { device: change.device.clone(), position: change.position }
}
