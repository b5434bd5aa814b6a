//! The keys of a pool: which speaks for it, and which did.

use std::sync::Arc;

use keypool_ledger::{Event, SignatureKey};

use super::{Package, PoolState, Registration};
use crate::packing::{Packer, Unpacker};

/// The keys that a pool has had, over all its registrations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// How often the keys changed: registrations, rotations, removals, releases, and declarations of leaf
    /// keys, credentials and recovery keys.
    pub changes: u64,
    /// The versions of the pool's history at which they did, the oldest first.
    pub versions: Vec<u64>,
    /// How often the device was registered: the number of its present incarnation.
    pub incarnation: u32,
    /// The version of the pool's history at which the present incarnation was registered; 0 if the device
    /// never was.
    pub since: u64,
    /// The keys that were removed, rotated away or replaced, the oldest first. None is anyone's ever after.
    pub retired: Vec<SignatureKey>,
    /// The user's recovery key, in the pool of the device that set the first one; it outlives that device.
    pub recovery_key: Option<SignatureKey>,
}

impl Identity {
    /// Takes in the event with a version of the pool's history, before which `key` spoke for the pool.
    pub fn evolve(&mut self, event: &Event, version: u64, key: Option<&SignatureKey>) {
        if changes_identity(event) {
            self.versions.push(version);
        }
        self.changes += match event {
            // One key goes, and another comes.
            Event::KeyRotated { .. } => 2,
            _ => u64::from(changes_identity(event)),
        };
        match event {
            Event::Registered { .. } => {
                self.incarnation += 1;
                self.since = version;
            }
            Event::KeyRotated { .. } | Event::DeviceRemoved { .. } => {
                self.retired.extend(key.cloned());
            }
            Event::RecoveryKeySet { recovery_key, .. } => {
                self.retired.extend(self.recovery_key.replace(recovery_key.clone()));
            }
            Event::NameReleased {} => self.retired.extend(self.recovery_key.take()),
            _ => {}
        }
    }

    /// Appends the identity to `out`.
    pub fn pack(&self, out: &mut Packer) {
        out.number(self.changes);
        out.number(self.versions.len() as u64);
        self.versions.iter().for_each(|version| out.number(*version));
        out.number(u64::from(self.incarnation));
        out.number(self.since);
        out.number(self.retired.len() as u64);
        self.retired.iter().for_each(|key| out.bytes(key.as_bytes()));
        out.bytes(self.recovery_key.as_ref().map_or(&[], SignatureKey::as_bytes));
    }

    /// Reads an identity; `None` on other bytes.
    pub fn unpack(rest: &mut Unpacker<'_>) -> Option<Self> {
        let changes = rest.number()?;
        let mut versions = Vec::new();
        for _ in 0..rest.number()? {
            versions.push(rest.number()?);
        }
        let incarnation = u32::try_from(rest.number()?).ok()?;
        let since = rest.number()?;
        let mut retired = Vec::new();
        for _ in 0..rest.number()? {
            retired.push(SignatureKey::new(rest.bytes()?).ok()?);
        }
        let recovery_key = match rest.bytes()? {
            [] => None,
            key => Some(SignatureKey::new(key).ok()?),
        };
        Some(Self { changes, versions, incarnation, since, retired, recovery_key })
    }
}

/// Whether an event changes the keys of a pool, or whose they may be.
#[must_use]
pub const fn changes_identity(event: &Event) -> bool {
    matches!(
        event,
        Event::Registered { .. }
            | Event::KeyRotated { .. }
            | Event::DeviceRemoved { .. }
            | Event::NameReleased {}
            | Event::LeafKeyPinned { .. }
            | Event::CredentialDeclared { .. }
            | Event::RecoveryKeySet { .. }
    )
}

impl PoolState {
    pub(super) fn evolve_registration(&mut self, event: &Event) {
        if changes_identity(event) {
            let key = self.registration.as_ref().map(|known| &known.signature_key);
            let version = self.version.saturating_add(1);
            Arc::make_mut(&mut self.identity).evolve(event, version, key);
        }
        match event {
            Event::Registered { signature_key, credential, voucher, statement, .. } => {
                let by = || statement.as_ref().map(|statement| statement.by.clone());
                self.bind(signature_key, credential, voucher.clone().or_else(by));
                (self.removed, self.released) = (false, false);
            }
            Event::KeyRotated { signature_key, credential, .. } => {
                let voucher = self.registration().and_then(|before| before.voucher.clone());
                self.bind(signature_key, credential, voucher);
            }
            Event::DeviceRemoved { .. } => {
                (self.registration, self.pinned, self.credential) = (None, None, None);
                self.removed = true;
                // A later incarnation is another device: it knows nobody, and lets anyone reserve.
                self.contacts = Arc::default();
            }
            Event::NameReleased {} => self.released = true,
            Event::LeafKeyPinned { signature_scheme, signature_key, .. } => {
                let pinned = Arc::make_mut(self.pinned.get_or_insert_default());
                pinned.insert(*signature_scheme, signature_key.clone());
            }
            Event::CredentialDeclared { credential, .. } => {
                self.credential = Some(credential.digest());
            }
            Event::PolicySet { .. }
            | Event::ContactAdded { .. }
            | Event::ContactRemoved { .. }
            | Event::UserBlocked { .. }
            | Event::UserUnblocked { .. }
            | Event::StrangersLimitSet { .. } => {
                Arc::make_mut(&mut self.contacts).evolve(event);
            }
            // Not about a pool: the shell lets no such event into a pool's history.
            _ => {}
        }
    }

    /// Whether a package is of the device as it is registered now, and not of one that was removed since.
    pub fn is_of_this_incarnation(&self, package: &Package) -> bool {
        !self.removed && self.identity.since <= package.order
    }

    fn bind(&mut self, key: &SignatureKey, credential: &str, voucher: Option<SignatureKey>) {
        let (signature_key, credential) = (key.clone(), credential.to_owned());
        self.registration = Some(Arc::new(Registration { signature_key, credential, voucher }));
        self.pinned = None;
    }
}
