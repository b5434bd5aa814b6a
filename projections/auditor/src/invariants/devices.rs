//! Which key speaks for a device: one at a time, and for one device only.

use std::collections::HashMap;

use keypool_ledger::{Event, PoolId, SignatureKey};

use super::{AuditedEvent, broken, is_of_device};
use crate::verify::Finding;

/// The keys that speak now, and since when.
#[derive(Debug, Default)]
pub(super) struct Devices {
    keys: HashMap<PoolId, (SignatureKey, u64)>,
    speaks_for: HashMap<SignatureKey, PoolId>,
    /// The keys that were removed, rotated away or replaced, and where.
    retired: HashMap<SignatureKey, u64>,
    /// The recovery keys of users, the devices in whose histories they stand, and since when.
    recovery: HashMap<String, (PoolId, SignatureKey, u64)>,
}

impl Devices {
    pub(super) fn see(&mut self, seen: AuditedEvent<'_>, pool: &PoolId) -> Vec<Finding> {
        let (event, seq) = (&seen.envelope.event, seen.seq);
        let mut findings = Vec::new();
        if !is_of_device(event) {
            let what = format!("an event {} stands in the history of {pool}.", event.name());
            findings.push(broken("device", &[seq], what));
        }
        findings.extend(self.dead_key(seen, pool));
        findings.extend(self.see_recovery_key(seen, pool));
        if !changes_key(event) {
            return findings;
        }
        let before = self.keys.get(pool).map(|(_, since)| *since);
        match (event, before) {
            (Event::Registered { .. }, Some(since)) => {
                let what = format!(
                    "{pool} was registered at {since} and is registered again at {seq}: a name is \
                     bound to its first key."
                );
                findings.push(broken("device", &[since, seq], what));
            }
            (Event::KeyRotated { .. } | Event::DeviceRemoved { .. }, None) => {
                let what = format!("{pool} is {} at {seq} without a key.", event.name());
                findings.push(broken("device", &[seq], what));
            }
            _ => {}
        }
        if let Some((key, _)) = self.keys.remove(pool) {
            self.speaks_for.remove(&key);
            self.retired.insert(key, seq);
        }
        if let Event::Registered { signature_key, .. } | Event::KeyRotated { signature_key, .. } =
            event
        {
            let bound = self.speaks_for.insert(signature_key.clone(), pool.clone());
            if let Some(other) = bound.filter(|other| other != pool) {
                let what = format!(
                    "the key that speaks for {other} is given to {pool} at {seq}: a key speaks for one \
                     device."
                );
                findings.push(broken("device", &[seq], what));
            }
            self.keys.insert(pool.clone(), (signature_key.clone(), seq));
        }
        findings
    }

    /// A key that was taken away, or is a recovery key, is given to nobody.
    fn dead_key(&self, seen: AuditedEvent<'_>, pool: &PoolId) -> Option<Finding> {
        let (Event::Registered { signature_key: key, .. }
        | Event::KeyRotated { signature_key: key, .. }
        | Event::LeafKeyPinned { signature_key: key, .. }
        | Event::RecoveryKeySet { recovery_key: key, .. }) = &seen.envelope.event
        else {
            return None;
        };
        let seq = seen.seq;
        if let Some(since) = self.retired.get(key) {
            let what = format!(
                "the key that {pool} is given at {seq} was taken away at {since}: it is nobody's ever after."
            );
            return Some(broken("I12", &[*since, seq], what));
        }
        let mut recovery = self.recovery.values();
        let (device, _, since) = recovery.find(|(_, known, _)| known == key)?;
        let what = format!(
            "the key that {pool} is given at {seq} is the recovery key of {} since {since}: it is no other key.",
            device.user()
        );
        Some(broken("I12", &[*since, seq], what))
    }

    /// A user has one recovery key: the first is set by a device of theirs, each other one by the one before,
    /// in the history of the device that set the first.
    fn see_recovery_key(&mut self, seen: AuditedEvent<'_>, pool: &PoolId) -> Option<Finding> {
        let seq = seen.seq;
        match &seen.envelope.event {
            Event::RecoveryKeySet { recovery_key, statement } => {
                let now = (pool.clone(), recovery_key.clone(), seq);
                let before = self.recovery.insert(pool.user().to_owned(), now);
                let Some((device, key, since)) = before else {
                    let speaks = self.keys.get(pool).map(|(key, _)| key);
                    let what = format!(
                        "the recovery key of {pool} is set at {seq} by a key that does not speak for it."
                    );
                    return (speaks != Some(&statement.by)).then(|| broken("device", &[seq], what));
                };
                self.retired.insert(key.clone(), seq);
                let what = format!(
                    "the recovery key of {device} since {since} has not agreed to the one at {seq}."
                );
                let is_agreed = device == *pool && key == statement.by;
                (!is_agreed).then(|| broken("device", &[since, seq], what))
            }
            Event::NameReleased {} => {
                let is_there =
                    self.recovery.get(pool.user()).is_some_and(|(device, ..)| device == pool);
                let gone = if is_there { self.recovery.remove(pool.user()) } else { None };
                self.retired.extend(gone.map(|(_, key, _)| (key, seq)));
                None
            }
            _ => None,
        }
    }

    /// The key that speaks for a device, and since when.
    pub(super) fn key_of(&self, pool: &PoolId) -> Option<&(SignatureKey, u64)> {
        self.keys.get(pool)
    }

    /// Whether a key speaks for a device.
    pub(super) fn speaks(&self, pool: &PoolId) -> bool {
        self.keys.contains_key(pool)
    }
}

/// Whether an event gives a device another key, or takes its key away.
const fn changes_key(event: &Event) -> bool {
    matches!(
        event,
        Event::Registered { .. } | Event::KeyRotated { .. } | Event::DeviceRemoved { .. }
    )
}
