//! The population: devices with keys and packages, all made from their numbers, so that the loader of a
//! subject and its clients know the same ones.

use ed25519_dalek::SigningKey;
use keypool_ledger::{Hash, KeyPackageRef, PackageFacts, PoolId, SignatureKey, Timestamp};
use uuid::Uuid;

use crate::Outcome;

/// How many packages a pool is stocked with.
pub(crate) const PACKAGES: u64 = 32;
/// How many bytes a package has: about as many as one of OpenMLS with a Basic credential.
pub(crate) const PACKAGE_BYTES: usize = 300;
/// How long the packages live.
const LIFETIME_S: u64 = 14 * 24 * 3600;

/// A device, the pool of its packages, and the key that speaks for it.
pub(crate) struct Device {
    pub(crate) pool: PoolId,
    pub(crate) key: SigningKey,
}

impl Device {
    /// The device of a number.
    pub(crate) fn new(number: u64) -> Outcome<Self> {
        let pool = pool(number)?;
        let key = SigningKey::from_bytes(Hash::of(pool.to_string().as_bytes()).as_bytes());
        Ok(Self { pool, key })
    }

    pub(crate) fn keyid(&self) -> Outcome<SignatureKey> {
        Ok(SignatureKey::new(self.key.verifying_key().as_bytes())?)
    }
}

/// The pool of a number.
pub(crate) fn pool(number: u64) -> Outcome<PoolId> {
    Ok(PoolId::new(&format!("user{number}"), "phone")?)
}

/// The facts of a pool's `nth` package, valid from an hour before `now` on.
pub(crate) fn facts(pool: u64, nth: u64, now: Timestamp) -> Outcome<PackageFacts> {
    let digest = digest(pool, nth);
    Ok(PackageFacts {
        keypackage_ref: KeyPackageRef::new(digest.as_bytes())?,
        not_before: Timestamp::from_secs(now.as_secs().saturating_sub(3600)),
        not_after: Timestamp::from_secs(now.as_secs() + LIFETIME_S),
        ciphersuite: 1,
        credential: Hash::ZERO,
        init_key: Hash::of(digest.as_bytes()),
        last_resort: false,
        capabilities: None,
    })
}

/// The bytes of a pool's `nth` package: made up, since nobody looks into them once they are stored.
pub(crate) fn package(pool: u64, nth: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PACKAGE_BYTES + 32);
    let mut block = digest(pool, nth);
    while bytes.len() < PACKAGE_BYTES {
        block = Hash::of(block.as_bytes());
        bytes.extend(block.as_bytes());
    }
    bytes.truncate(PACKAGE_BYTES);
    bytes
}

/// A command's id that follows from its place in the log.
pub(crate) fn command(seq: u64) -> Uuid {
    Uuid::from_u128(u128::from(seq) << 64 | 0x8000)
}

fn digest(pool: u64, nth: u64) -> Hash {
    Hash::of([pool.to_be_bytes(), nth.to_be_bytes()].as_flattened())
}
