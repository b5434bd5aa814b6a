//! A pool in as few bytes as it needs: how one that nobody asks for lies in memory, and how it is kept
//! beside the log.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use keypool_ledger::{
    GroupId, Hash, KeyPackageRef, PackageCapabilities, PackageFacts, PoolId, ReservationId,
    RevokeReason, SignatureKey, Timestamp,
};
use uuid::Uuid;

use super::{
    Contacts, Counts, Identity, Package, PoolState, Registration, Reservation, ReservationStatus,
};
use crate::{
    lifecycle::Stage,
    packing::{Packer, Unpacker},
};

impl PoolState {
    /// The number of the packed form and of the fold that it is of.
    ///
    /// Bytes of another number are discarded, and the pool is folded from its events.
    pub const PACKED_FORM: u8 = 5;

    /// Appends the pool to `out`, without the `init_key`s it has seen: as [`PoolState::forget`] leaves it.
    pub fn pack(&self, out: &mut Packer) {
        out.number(self.version);
        out.flag(self.registration.is_some());
        if let Some(Registration { signature_key, credential, voucher }) = self.registration() {
            out.bytes(signature_key.as_bytes());
            out.bytes(credential.as_bytes());
            out.bytes(voucher.as_ref().map_or(&[], SignatureKey::as_bytes));
        }
        out.flag(self.credential.is_some());
        self.credential.iter().for_each(|digest| out.array(digest.as_bytes()));
        out.flag(self.removed);
        out.flag(self.released);
        self.identity.pack(out);
        let Counts { created, available, reserved, spent, expired, revoked } = self.counts;
        for count in [created, available, reserved, spent, expired, revoked] {
            out.number(count);
        }
        out.number(self.last_upload.map_or(0, |at| at.as_millis().saturating_add(1)));
        self.contacts.pack(out);
        out.number(self.spent_lately.len() as u64);
        let mut before = 0;
        for at in &self.spent_lately {
            out.number(at.as_millis().saturating_sub(before));
            before = at.as_millis();
        }
        // Nearly always the packages of a pool are of one credential.
        let mut credentials: Vec<Hash> = Vec::new();
        for package in self.packages() {
            if !credentials.contains(&package.facts.credential) {
                credentials.push(package.facts.credential);
            }
        }
        out.number(credentials.len() as u64);
        for credential in &credentials {
            out.array(credential.as_bytes());
        }
        // And so of the same capabilities.
        let mut capabilities: Vec<&PackageCapabilities> = Vec::new();
        for known in self.packages().filter_map(|package| package.facts.capabilities.as_deref()) {
            if !capabilities.contains(&known) {
                capabilities.push(known);
            }
        }
        out.number(capabilities.len() as u64);
        for PackageCapabilities { extensions, proposals, credentials } in &capabilities {
            for numbers in [extensions, proposals, credentials] {
                pack_numbers(out, numbers);
            }
        }
        out.number((self.live.len() + self.ended.len()) as u64);
        for package in self.packages() {
            pack_package(out, package, (&credentials, &capabilities));
        }
        out.number(self.reservations.len() as u64);
        for (id, made) in &self.reservations {
            out.array(id.0.as_bytes());
            pack_reservation(out, made);
        }
        // Most pools have none: their bytes end here, as they did before there could be one.
        for (scheme, key) in self.pinned.iter().flat_map(|pinned| pinned.iter()) {
            out.number(u64::from(*scheme));
            out.bytes(key.as_bytes());
        }
    }

    /// Reads a pool; `None` on other bytes.
    pub fn unpack(rest: &mut Unpacker<'_>) -> Option<Self> {
        let mut state = Self { version: rest.number()?, ..Self::default() };
        if rest.flag()? {
            let signature_key = SignatureKey::new(rest.bytes()?).ok()?;
            let credential = rest.text()?;
            let voucher = match rest.bytes()? {
                [] => None,
                key => Some(SignatureKey::new(key).ok()?),
            };
            let registration = Registration { signature_key, credential, voucher };
            state.registration = Some(Arc::new(registration));
        }
        if rest.flag()? {
            state.credential = Some(Hash::from_bytes(rest.array()?));
        }
        state.removed = rest.flag()?;
        state.released = rest.flag()?;
        state.identity = Arc::new(Identity::unpack(rest)?);
        state.counts = Counts {
            created: rest.number()?,
            available: rest.number()?,
            reserved: rest.number()?,
            spent: rest.number()?,
            expired: rest.number()?,
            revoked: rest.number()?,
        };
        let last_upload = rest.number()?;
        state.last_upload = last_upload.checked_sub(1).map(Timestamp::from_millis);
        state.contacts = Arc::new(Contacts::unpack(rest)?);
        let mut at = 0_u64;
        for _ in 0..rest.number()? {
            at = at.checked_add(rest.number()?)?;
            state.spent_lately.push_back(Timestamp::from_millis(at));
        }
        let credentials = unpack_credentials(rest)?;
        let capabilities = unpack_capabilities(rest)?;
        for _ in 0..rest.number()? {
            let package = Arc::new(unpack_package(rest, (&credentials, &capabilities))?);
            let home =
                if package.stage < Stage::Spent { &mut state.live } else { &mut state.ended };
            home.insert(package.facts.keypackage_ref.clone(), package);
        }
        for _ in 0..rest.number()? {
            let id = ReservationId(Uuid::from_bytes(rest.array()?));
            let made = unpack_reservation(rest)?;
            if made.status == ReservationStatus::Open {
                state.open.insert(id);
            }
            state.reservations.insert(id, Arc::new(made));
        }
        let mut pinned = BTreeMap::new();
        while !rest.is_empty() {
            let scheme = u16::try_from(rest.number()?).ok()?;
            pinned.insert(scheme, SignatureKey::new(rest.bytes()?).ok()?);
        }
        state.pinned = (!pinned.is_empty()).then(|| Arc::new(pinned));
        Some(state)
    }
}

fn pack_numbers(out: &mut Packer, numbers: &[u16]) {
    out.number(numbers.len() as u64);
    for number in numbers {
        out.number(u64::from(*number));
    }
}

fn unpack_numbers(rest: &mut Unpacker<'_>) -> Option<Vec<u16>> {
    (0..rest.number()?).map(|_| u16::try_from(rest.number()?).ok()).collect()
}

fn unpack_credentials(rest: &mut Unpacker<'_>) -> Option<Vec<Hash>> {
    (0..rest.number()?).map(|_| Some(Hash::from_bytes(rest.array()?))).collect()
}

fn unpack_capabilities(rest: &mut Unpacker<'_>) -> Option<Vec<PackageCapabilities>> {
    let count = rest.number()?;
    let mut unpack = || {
        Some(PackageCapabilities {
            extensions: unpack_numbers(rest)?,
            proposals: unpack_numbers(rest)?,
            credentials: unpack_numbers(rest)?,
        })
    };
    (0..count).map(|_| unpack()).collect()
}

/// Packs a package, with the places of its credential and its capabilities in those of all.
fn pack_package(
    out: &mut Packer,
    package: &Package,
    (credentials, capabilities): (&[Hash], &[&PackageCapabilities]),
) {
    let Package { facts, stage, order, generation, cancelled, lapsed, latest, revoked, .. } =
        package;
    out.bytes(facts.keypackage_ref.as_bytes());
    out.array(facts.init_key.as_bytes());
    out.number(facts.not_before.as_millis());
    out.number(facts.not_after.as_millis());
    out.number(u64::from(facts.ciphersuite));
    let credential = credentials.iter().position(|known| *known == facts.credential);
    out.number(credential.unwrap_or_default() as u64);
    out.flag(facts.last_resort);
    let known = facts.capabilities.as_deref();
    let place = known.and_then(|known| capabilities.iter().position(|other| *other == known));
    out.number(place.map_or(0, |place| place as u64 + 1));
    out.byte(match stage {
        Stage::Created => 0,
        Stage::Available => 1,
        Stage::Reserved => 2,
        Stage::Spent => 3,
        Stage::Expired => 4,
        Stage::Revoked => 5,
    });
    out.number(*order);
    for count in [generation, cancelled, lapsed] {
        out.number(u64::from(*count));
    }
    out.flag(latest.is_some());
    if let Some(latest) = latest {
        out.array(latest.0.as_bytes());
    }
    out.byte(match revoked {
        None => 0,
        Some(RevokeReason::Rotated) => 1,
        Some(RevokeReason::Withdrawn) => 2,
        Some(RevokeReason::Reported) => 3,
        Some(RevokeReason::Lapsed) => 4,
        Some(RevokeReason::Operator) => 5,
    });
    out.number(package.reported_by.len() as u64);
    package.reported_by.iter().for_each(|user| out.bytes(user.as_bytes()));
}

fn unpack_package(
    rest: &mut Unpacker<'_>,
    (credentials, capabilities): (&[Hash], &[PackageCapabilities]),
) -> Option<Package> {
    let keypackage_ref = KeyPackageRef::new(rest.bytes()?).ok()?;
    let init_key = Hash::from_bytes(rest.array()?);
    let (not_before, not_after) = (rest.time()?, rest.time()?);
    let ciphersuite = u16::try_from(rest.number()?).ok()?;
    let credential = *credentials.get(usize::try_from(rest.number()?).ok()?)?;
    let last_resort = rest.flag()?;
    let capabilities = match rest.number()?.checked_sub(1) {
        None => None,
        Some(place) => Some(Box::new(capabilities.get(usize::try_from(place).ok()?)?.clone())),
    };
    let facts = PackageFacts {
        keypackage_ref,
        not_before,
        not_after,
        ciphersuite,
        credential,
        init_key,
        last_resort,
        capabilities,
    };
    let stage = match rest.byte()? {
        0 => Stage::Created,
        1 => Stage::Available,
        2 => Stage::Reserved,
        3 => Stage::Spent,
        4 => Stage::Expired,
        5 => Stage::Revoked,
        _ => return None,
    };
    let order = rest.number()?;
    let mut count = || u32::try_from(rest.number()?).ok();
    let (generation, cancelled, lapsed) = (count()?, count()?, count()?);
    let latest =
        if rest.flag()? { Some(ReservationId(Uuid::from_bytes(rest.array()?))) } else { None };
    let revoked = match rest.byte()? {
        0 => None,
        1 => Some(RevokeReason::Rotated),
        2 => Some(RevokeReason::Withdrawn),
        3 => Some(RevokeReason::Reported),
        4 => Some(RevokeReason::Lapsed),
        5 => Some(RevokeReason::Operator),
        _ => return None,
    };
    let mut reported_by = BTreeSet::new();
    for _ in 0..rest.number()? {
        reported_by.insert(rest.text()?);
    }
    Some(Package {
        facts,
        stage,
        order,
        generation,
        cancelled,
        lapsed,
        latest,
        revoked,
        reported_by,
    })
}

fn pack_reservation(out: &mut Packer, made: &Reservation) {
    let Reservation { keypackage_ref, holder, group, generation, deadline, renewals, status } =
        made;
    out.bytes(keypackage_ref.as_bytes());
    out.pool(holder);
    out.bytes(group.as_bytes());
    out.number(u64::from(*generation));
    out.number(deadline.as_millis());
    out.number(u64::from(*renewals));
    out.byte(match status {
        ReservationStatus::Open => 0,
        ReservationStatus::Cancelled => 1,
        ReservationStatus::Lapsed => 2,
        ReservationStatus::Spent { late: false } => 3,
        ReservationStatus::Spent { late: true } => 4,
        ReservationStatus::Lost => 5,
    });
}

fn unpack_reservation(rest: &mut Unpacker<'_>) -> Option<Reservation> {
    let keypackage_ref = KeyPackageRef::new(rest.bytes()?).ok()?;
    let holder: PoolId = rest.pool()?;
    let group = GroupId::new(rest.bytes()?).ok()?;
    let generation = u32::try_from(rest.number()?).ok()?;
    let deadline = rest.time()?;
    let renewals = u32::try_from(rest.number()?).ok()?;
    let status = match rest.byte()? {
        0 => ReservationStatus::Open,
        1 => ReservationStatus::Cancelled,
        2 => ReservationStatus::Lapsed,
        3 => ReservationStatus::Spent { late: false },
        4 => ReservationStatus::Spent { late: true },
        5 => ReservationStatus::Lost,
        _ => return None,
    };
    Some(Reservation { keypackage_ref, holder, group, generation, deadline, renewals, status })
}

#[cfg(test)]
mod tests {
    use keypool_ledger::{CredentialBytes, Event, Signature, SignedStatement};

    use super::*;

    fn packed(events: &[Event]) -> (PoolState, Vec<u8>) {
        let at = Timestamp::from_secs(7);
        let state = PoolState::replay(events.iter().map(|event| (event, at))).unwrap();
        let mut out = Packer::default();
        state.pack(&mut out);
        (state, out.into_bytes().into_vec())
    }

    #[test]
    fn the_keys_of_other_schemes_stand_behind_what_every_pool_has() {
        let registered = Event::Registered {
            signature_key: SignatureKey::new(&[1; 32]).unwrap(),
            credential: "bob".to_owned(),
            voucher: None,
            statement: None,
            frontend: None,
        };
        let pinned = |signature_scheme, byte| Event::LeafKeyPinned {
            signature_scheme,
            signature_key: SignatureKey::new(&[byte; 65]).unwrap(),
            statement: None,
        };
        let both = [registered.clone(), pinned(0x0403, 2), pinned(0x0503, 3), pinned(0x0403, 4)];
        let (state, bytes) = packed(&both);
        assert_eq!(PoolState::unpack(&mut Unpacker::new(&bytes)), Some(state));
        let (plain, begins) = packed(&[registered]);
        assert_eq!(PoolState::unpack(&mut Unpacker::new(&begins)), Some(plain));
        assert_eq!(PoolState::unpack(&mut Unpacker::new(&bytes[..bytes.len() - 1])), None);
    }

    #[test]
    fn a_declared_credential_and_a_recovery_key_are_kept() {
        let key = |byte| SignatureKey::new(&[byte; 32]).unwrap();
        let statement = || SignedStatement {
            by: key(1),
            head: Hash::ZERO,
            until: Timestamp::from_secs(9),
            proof: Signature::new(&[9; 64]).unwrap(),
        };
        let registered = Event::Registered {
            signature_key: key(1),
            credential: "bob".to_owned(),
            voucher: None,
            statement: None,
            frontend: None,
        };
        let credential = CredentialBytes::new(&[0, 1, 2, 0xfe, 0xfd]).unwrap();
        let declared =
            Event::CredentialDeclared { credential: credential.clone(), statement: statement() };
        let set = |byte| Event::RecoveryKeySet { recovery_key: key(byte), statement: statement() };
        let (state, bytes) = packed(&[
            registered,
            declared,
            set(5),
            set(6),
            Event::DeviceRemoved { by_operator: false },
        ]);
        let identity = state.identity();
        assert_eq!((identity.changes, &identity.versions), (5, &vec![1, 2, 3, 4, 5]));
        assert_eq!(identity.retired, [key(5), key(1)]);
        assert_eq!(identity.recovery_key, Some(key(6)), "it outlives the device");
        assert_eq!(state.declared_credential(), None, "and the credential ends with it");
        assert_eq!(PoolState::unpack(&mut Unpacker::new(&bytes)), Some(state));
    }
}
