//! The leaf keys and the credential of a device's packages: one at a time, as the device has declared.

use std::collections::HashMap;

use keypool_ledger::{Event, Hash, PackageFacts, PoolId, SignatureKey};

use super::{AuditedEvent, Auditor, packages::PackageHistory};

/// The keys that sign now, by device and scheme, and since when.
pub(super) type Pins = HashMap<(PoolId, u16), (SignatureKey, u64)>;

/// The digests of the credentials that devices have declared, and where.
pub(super) type Declared = HashMap<PoolId, (Hash, u64)>;

/// The scheme of the registered keys, Ed25519.
const ED25519: u16 = 0x0807;

impl Auditor {
    /// A key comes with the first package of its scheme, to a device that is registered, and stays while
    /// one of them is live or the device has its registered key.
    pub(super) fn see_pin(&mut self, seen: AuditedEvent<'_>, pool: &PoolId) {
        match &seen.envelope.event {
            Event::Registered { .. } | Event::KeyRotated { .. } | Event::DeviceRemoved { .. } => {
                self.pins.retain(|(of, _), _| of != pool);
                if matches!(seen.envelope.event, Event::DeviceRemoved { .. }) {
                    self.declared.remove(pool);
                }
            }
            Event::CredentialDeclared { credential, .. } => {
                self.check_declared(seen, pool, credential.digest());
                self.declared.insert(pool.clone(), (credential.digest(), seen.seq));
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
        let registered = || self.devices.key_of(pool).filter(|_| scheme == ED25519);
        let before = self.pins.get(&(pool.clone(), scheme)).or_else(registered);
        let Some((before, since)) = before else { return };
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

impl Auditor {
    /// A credential is declared by a device that is registered, and while no package that carries another one
    /// can be handed out.
    fn check_declared(&mut self, seen: AuditedEvent<'_>, pool: &PoolId, digest: Hash) {
        let at = seen.seq;
        if !self.devices.speaks(pool) {
            let what =
                format!("a credential of {pool} is declared at {at}, and no key speaks for it.");
            self.broken("device", &[at], what);
        }
        let live = self.pools.get(pool).map(|tally| tally.live.as_slice()).unwrap_or_default();
        let differs = |life: &&PackageHistory| life.facts.credential != digest;
        let other = live.iter().filter_map(|of| self.packages.get(of)).find(differs);
        let Some(uploaded) = other.and_then(|life| life.uploaded) else { return };
        let what = format!(
            "a credential of {pool} is declared at {at}, while a package that carries another one is live \
             since {uploaded}."
        );
        self.broken("device", &[uploaded, at], what);
    }

    /// A package carries the credential that its device has declared.
    pub(super) fn see_credential(
        &mut self,
        seen: AuditedEvent<'_>,
        pool: &PoolId,
        facts: &PackageFacts,
    ) {
        let Some((digest, since)) = self.declared.get(pool).copied() else { return };
        if digest != facts.credential {
            let what = format!(
                "a package with another credential enters {pool} at {} than it has declared at {since}.",
                seen.seq
            );
            self.broken("device", &[since, seen.seq], what);
        }
    }
}

/// Whether RFC 9420, section 17.1, or draft-ietf-mls-pq-ciphersuites lets `scheme` sign packages of a ciphersuite. Any scheme may sign those of
/// a ciphersuite of another document.
const fn may_be_signed_by(ciphersuite: u16, scheme: u16) -> bool {
    match ciphersuite {
        1 | 3 | 0x004e | 0x004f => scheme == 0x0807,
        2 => scheme == 0x0403,
        4 | 6 => scheme == 0x0808,
        5 => scheme == 0x0603,
        7 => scheme == 0x0503,
        _ => true,
    }
}
