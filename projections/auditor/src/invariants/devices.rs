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
    /// The keys that were removed or rotated away, and where.
    retired: HashMap<SignatureKey, u64>,
}

impl Devices {
    pub(super) fn see(&mut self, seen: AuditedEvent<'_>, pool: &PoolId) -> Vec<Finding> {
        let (event, seq) = (&seen.envelope.event, seen.seq);
        let mut findings = Vec::new();
        if !is_of_device(event) {
            let what = format!("an event {} stands in the history of {pool}.", event.name());
            findings.push(broken("device", &[seq], what));
        }
        if let Event::Registered { signature_key, .. }
        | Event::KeyRotated { signature_key, .. }
        | Event::LeafKeyPinned { signature_key, .. } = event
            && let Some(since) = self.retired.get(signature_key)
        {
            let what = format!(
                "the key that {pool} is given at {seq} was taken away at {since}: it is nobody's ever after."
            );
            findings.push(broken("I12", &[*since, seq], what));
        }
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
            (Event::KeyRotated { .. } | Event::DeviceRemoved {}, None) => {
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

    /// Whether a key speaks for a device.
    pub(super) fn speaks(&self, pool: &PoolId) -> bool {
        self.keys.contains_key(pool)
    }
}

/// Whether an event gives a device another key, or takes its key away.
const fn changes_key(event: &Event) -> bool {
    matches!(event, Event::Registered { .. } | Event::KeyRotated { .. } | Event::DeviceRemoved {})
}
