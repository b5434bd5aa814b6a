//! Which key signs a device's packages of another signature scheme: one at a time, and the device's own.

use std::collections::HashMap;

use keypool_ledger::{Event, PoolId, SignatureKey};

use super::{AuditedEvent, Auditor, packages::PackageHistory};

/// The keys that sign now, by device and scheme, and since when.
pub(super) type Pins = HashMap<(PoolId, u16), (SignatureKey, u64)>;

impl Auditor {
    /// A key comes with the first package of its scheme, to a device that is registered, and stays while
    /// one of them is live or the device has its registered key.
    pub(super) fn see_pin(&mut self, seen: AuditedEvent<'_>, pool: &PoolId) {
        match &seen.envelope.event {
            Event::Registered { .. } | Event::KeyRotated { .. } | Event::DeviceRemoved {} => {
                self.pins.retain(|(of, _), _| of != pool);
            }
            Event::LeafKeyPinned { signature_scheme, signature_key, .. } => {
                self.check_pin(seen, pool, (*signature_scheme, signature_key));
                let pinned = (signature_key.clone(), seen.seq);
                self.pins.insert((pool.clone(), *signature_scheme), pinned);
            }
            _ => {}
        }
    }

    fn check_pin(
        &mut self,
        seen: AuditedEvent<'_>,
        pool: &PoolId,
        (scheme, key): (u16, &SignatureKey),
    ) {
        if !self.devices.speaks(pool) {
            let what = format!(
                "a key for packages of {pool} is pinned at {}, and no key speaks for it.",
                seen.seq
            );
            self.broken("device", &[seen.seq], what);
        }
        let Some((before, since)) = self.pins.get(&(pool.clone(), scheme)) else { return };
        let live = self.pools.get(pool).map(|tally| tally.live.as_slice()).unwrap_or_default();
        let is_of_scheme = |life: &&PackageHistory| {
            life.uploaded.is_some() && may_be_signed_by(life.facts.ciphersuite, scheme)
        };
        let live = live.iter().filter_map(|of| self.packages.get(of)).find(is_of_scheme);
        let Some(uploaded) = live.filter(|_| before != key).and_then(|life| life.uploaded) else {
            return;
        };
        let (since, at) = (*since, seen.seq);
        let what = format!(
            "another key is pinned for packages of {pool} at {at}, while that of {since} has signed one \
             which is live: the packages of a scheme that can be handed out have one key."
        );
        self.broken("device", &[since, uploaded, at], what);
    }
}

/// Whether RFC 9420, section 17.1, lets `scheme` sign packages of a ciphersuite. Any scheme may sign those of
/// a ciphersuite of another document.
const fn may_be_signed_by(ciphersuite: u16, scheme: u16) -> bool {
    match ciphersuite {
        1 | 3 => scheme == 0x0807,
        2 => scheme == 0x0403,
        4 | 6 => scheme == 0x0808,
        5 => scheme == 0x0603,
        7 => scheme == 0x0503,
        _ => true,
    }
}
