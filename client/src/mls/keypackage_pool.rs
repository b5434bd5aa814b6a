//! The device's pool: the lifecycle of its packages, and the size of a refill.

mod bundles;
mod config;
mod doctor;
mod last_resort;
mod mirror_health;
mod replacing;
mod status;
mod suites;

use std::{collections::BTreeSet, fmt, sync::Arc};

use keypool_ledger::{
    CommandId, Event, GroupId, KeyPackageRef, PackageFacts, PoolId, RevokeReason, Timestamp,
};
use openmls::{
    extensions::ExtensionType,
    key_packages::{KeyPackage, KeyPackageBundle, Lifetime},
};
use openmls_traits::{
    OpenMlsProvider, crypto::OpenMlsCrypto, storage::StorageProvider, types::Ciphersuite,
};
use tls_codec::Serialize;

pub(crate) use self::last_resort::{
    is_last_resort, keys_end, note_joined, note_used, tell_used, was_joined,
};
use self::status::{STATUS_RECORD, counts, server_status};
pub(super) use self::status::{forget_server_status, record_server_status};
pub use self::{
    bundles::{ReservationInfo, StatusCounts},
    config::{PoolConfig, RefillCounts, Replenishment, ServerStatus},
    doctor::{DoctorReport, Issue},
};
use super::{
    CLOCK_SKEW, delete_private_keys, facts_of, ledger_ref, membership::forget_attempts, mls_ref,
    usable_suite,
};
use crate::{
    BoxError, ConfigError, DeviceIdentity, ImpossibleEvent, LocalStore, OwnPackage, OwnStage,
    PoolError, Staged, StorageError, storage::fresh_command,
};

/// A package that is made, and whose private half is safely stored.
#[derive(Clone, PartialEq, Eq)]
pub struct CreatedPackage {
    /// The facts read from its bytes.
    pub facts: PackageFacts,
    /// The bytes to upload.
    pub bytes: Vec<u8>,
}

impl CreatedPackage {
    /// Its reference.
    #[must_use]
    pub fn keypackage_ref(&self) -> &KeyPackageRef {
        &self.facts.keypackage_ref
    }
}

impl fmt::Debug for CreatedPackage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CreatedPackage({})", self.keypackage_ref().short())
    }
}

/// The device's own packages, over its store. It speaks to no server: see `MlsConnection`.
///
/// Every method is idempotent.
#[derive(Clone, Debug)]
pub struct KeyPackagePool {
    store: Arc<LocalStore>,
    identity: DeviceIdentity,
    config: PoolConfig,
    suites: Vec<Ciphersuite>,
}

impl KeyPackagePool {
    /// The pool of a store's device.
    ///
    /// # Errors
    ///
    /// Returns a [`ConfigError`] if the configuration contradicts itself.
    pub fn new(
        store: Arc<LocalStore>,
        identity: DeviceIdentity,
        config: PoolConfig,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        let suites =
            config.ciphersuites.iter().filter_map(|number| usable_suite(*number)).collect();
        Ok(Self { store, identity, config, suites })
    }

    /// How large the pool is kept.
    #[must_use]
    pub fn config(&self) -> &PoolConfig {
        &self.config
    }

    /// The counts that the size of a refill depends on.
    ///
    /// The number available is the server's last statement; before the first one, the
    /// packages that were uploaded and have not ended.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store cannot be read.
    pub fn counts(&self, now: Timestamp) -> Result<RefillCounts, StorageError> {
        counts(&self.store.stage()?, now)
    }

    /// How many packages an inviter can still get, as [`RefillCounts::available`].
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store cannot be read.
    pub fn get_available_count(&self, now: Timestamp) -> Result<usize, StorageError> {
        Ok(self.counts(now)?.available)
    }

    /// Whether the pool has come down to its low watermark in one of its ciphersuites.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store cannot be read.
    pub fn should_replenish(&self, now: Timestamp) -> Result<bool, StorageError> {
        let counts = self.counts_by_suite(now)?;
        Ok(counts.iter().any(|(_, counts)| self.config.is_low(counts.available)))
    }

    /// Computes the next refill over all ciphersuites; empty while none is low.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store cannot be read.
    pub fn get_replenishment_needed(&self, now: Timestamp) -> Result<Replenishment, StorageError> {
        let mut all = Replenishment::default();
        for (_, its) in self.replenishments(now)? {
            all.reupload += its.reupload;
            all.create += its.create;
        }
        Ok(all)
    }

    /// Makes `count` packages of the first ciphersuite and stores their private halves, all in one write.
    /// [`KeyPackagePool::generate_and_store_of`] makes those of another.
    ///
    /// # Errors
    ///
    /// Returns [`PoolError::AboveCap`] if the server would have no room for them, and otherwise a
    /// [`PoolError`] of the store or of MLS. No package has been made then.
    pub fn generate_and_store(
        &self,
        count: usize,
        now: Timestamp,
    ) -> Result<Vec<CreatedPackage>, PoolError> {
        self.generate_and_store_of(self.config.first_suite(), count, now)
    }

    /// Makes one package, of last resort or not. `OpenMLS` stores its private half on the staged operation.
    fn make_package(
        &self,
        staged: &Staged<'_>,
        (suite, last_resort): (Ciphersuite, bool),
        now: Timestamp,
    ) -> Result<CreatedPackage, PoolError> {
        let provider = staged.provider();
        let (not_before, not_after) = self.config.dates_of(last_resort, now);
        let lifetime = Lifetime::init(not_before.as_secs(), not_after.as_secs());
        let signer =
            self.identity.keys().signing_key_or_new(staged, suite.signature_algorithm())?;
        let credential = self.identity.credential_with(&signer);
        let mut builder = KeyPackage::builder().key_package_lifetime(lifetime);
        // The leaf must list the extension that marks a package of last resort.
        let extensions = if last_resort { vec![ExtensionType::LastResort] } else { Vec::new() };
        builder = builder.leaf_node_capabilities(self.identity.capabilities(&provider, extensions));
        if last_resort {
            builder = builder.mark_as_last_resort();
        }
        let bundle = builder.build(suite, &provider, &signer, credential);
        let bundle = signer.explain(bundle.map_err(not_made))?;
        let package = bundle.key_package();
        let facts = read_facts(provider.crypto(), package).map_err(not_made)?;
        let bytes = package.tls_serialize_detached().map_err(not_made)?;
        Ok(CreatedPackage { facts, bytes })
    }

    /// The packages that were made, were not heard to have reached the server, and have not ended:
    /// to be uploaded before new ones are made. Those that end first come first. Packages of last resort
    /// are not among them: see [`KeyPackagePool::last_resort_to_upload`].
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store cannot be read or lacks one of them.
    pub fn pending_upload(&self, now: Timestamp) -> Result<Vec<CreatedPackage>, StorageError> {
        let staged = self.store.stage()?;
        let mut pending = staged.packages_where(|own| is_single_use(own) && is_pending(own, now));
        pending.sort_by_key(|own| own.facts.not_after);
        let with_bytes = |own: OwnPackage| {
            let bytes = stored_bytes(&staged, &own.facts.keypackage_ref)?;
            Ok(CreatedPackage { facts: own.facts, bytes })
        };
        pending.into_iter().map(with_bytes).collect()
    }

    /// Records that the server has taken packages in, under the command of the upload. Until the
    /// server says otherwise, the number available grows by them.
    ///
    /// Returns how many were not known to be there.
    ///
    /// # Errors
    ///
    /// Returns [`StorageError::Impossible`] if one was never made by this device, or another
    /// [`StorageError`] if the store fails. Nothing has been recorded then.
    pub fn mark_uploaded(
        &self,
        keypackage_refs: &[KeyPackageRef],
        now: Timestamp,
        command: CommandId,
    ) -> Result<usize, StorageError> {
        let staged = self.store.stage()?;
        let uploaded = record_uploaded(&staged, keypackage_refs, now, command)?;
        staged.commit()?;
        Ok(uploaded)
    }

    /// Stores the server's statement of the pool. A statement of a later position of
    /// its log stands.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store fails.
    pub fn note_server_status(&self, status: &ServerStatus) -> Result<(), StorageError> {
        let staged = self.store.stage()?;
        record_server_status(&staged, status)?;
        staged.commit()
    }

    /// Records that a Welcome for the package was joined, and deletes its private keys unless it is one
    /// of last resort, in one write. `MlsMembership::join_from_welcome` does this itself.
    ///
    /// Returns whether it was not spent before.
    ///
    /// # Errors
    ///
    /// Returns [`StorageError::Impossible`] if this device never made it or it has expired, or another
    /// [`StorageError`] if the store fails. Nothing has been recorded then.
    pub fn mark_as_spent(
        &self,
        keypackage_ref: &KeyPackageRef,
        group: &GroupId,
        now: Timestamp,
    ) -> Result<bool, StorageError> {
        let staged = self.store.stage()?;
        let own = own_package(&staged, keypackage_ref, "spent")?;
        if matches!(own.stage, OwnStage::Spent { .. }) {
            return Ok(false);
        }
        record_spent(&staged, keypackage_ref, (group, None), now)?;
        staged.commit()?;
        Ok(true)
    }

    /// Records that packages were withdrawn. Their private keys are kept until their lifetimes end,
    /// for invitations that are on their way.
    ///
    /// Returns how many were live before.
    ///
    /// # Errors
    ///
    /// As [`KeyPackagePool::mark_uploaded`].
    pub fn mark_revoked(
        &self,
        keypackage_refs: &[KeyPackageRef],
        reason: RevokeReason,
        now: Timestamp,
        command: CommandId,
    ) -> Result<usize, StorageError> {
        let staged = self.store.stage()?;
        let revoked = record_revoked(&staged, keypackage_refs, reason, (now, command))?;
        staged.commit()?;
        Ok(revoked)
    }

    /// Cleans up: packages whose lifetime ended more than an hour ago are recorded as expired, and
    /// their private keys and those of withdrawn ones are deleted, in one write. So are those of packages of
    /// last resort that were withdrawn a day ago. Packages that wait to be uploaded and have lost their private keys
    /// are recorded as withdrawn.
    ///
    /// Returns the packages that have expired now.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store fails. Nothing has been deleted then.
    pub fn expire(&self, now: Timestamp) -> Result<Vec<KeyPackageRef>, StorageError> {
        let staged = self.store.stage()?;
        let ended = staged.packages_where(|own| own.stage.keeps_keys() && is_over(own, now));
        let command = fresh_command();
        let mut expired = Vec::new();
        for own in ended {
            let keypackage_ref = own.facts.keypackage_ref;
            if own.stage.is_live() {
                record_expired(&staged, &keypackage_ref, (now, command))?;
                expired.push(keypackage_ref);
            } else if has_private_keys(&staged, &keypackage_ref)? {
                forget_private_keys(&staged, &keypackage_ref)?;
            }
        }
        for own in staged.packages_where(|own| is_pending(own, now)) {
            let keypackage_ref = own.facts.keypackage_ref;
            if !staged.opens_key_package(&mls_ref(&keypackage_ref)?)? {
                let (refs, when) = (std::slice::from_ref(&keypackage_ref), (now, command));
                record_revoked(&staged, refs, RevokeReason::Withdrawn, when)?;
                forget_private_keys(&staged, &keypackage_ref)?;
            }
        }
        last_resort::delete_due(&staged, now)?;
        staged.commit()?;
        Ok(expired)
    }

    /// The packages that the server has said to have, and whose lifetimes have not ended.
    pub(super) fn uploaded(&self, now: Timestamp) -> Result<BTreeSet<KeyPackageRef>, StorageError> {
        let is_held = |own: &OwnPackage| own.stage == OwnStage::Uploaded && !own.is_expired(now);
        let held = self.store.stage()?.packages_where(is_held);
        Ok(held.into_iter().map(|own| own.facts.keypackage_ref).collect())
    }

    pub(super) fn identity(&self) -> &DeviceIdentity {
        &self.identity
    }

    /// Whether the package's private keys are in the store.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store cannot be read.
    pub fn has_private_keys(&self, keypackage_ref: &KeyPackageRef) -> Result<bool, StorageError> {
        has_private_keys(&self.store.stage()?, keypackage_ref)
    }
}

/// Records that the server has packages, as part of an operation. Returns how many single-use ones are
/// news.
pub(super) fn record_uploaded(
    staged: &Staged<'_>,
    keypackage_refs: &[KeyPackageRef],
    now: Timestamp,
    command: CommandId,
) -> Result<usize, StorageError> {
    let mut news = Vec::new();
    for keypackage_ref in keypackage_refs {
        let own = own_package(staged, keypackage_ref, "uploaded")?;
        if own.stage == OwnStage::Created {
            news.extend(is_single_use(&own).then_some(own.facts.ciphersuite));
            staged.record(Event::Uploaded(own.facts), now, command)?;
        }
    }
    let uploaded = news.len();
    if let Some(mut status) = server_status(staged)? {
        status.available = status.available.saturating_add(uploaded);
        for suite in news {
            status.note_uploaded(suite);
        }
        staged.put_app_record(STATUS_RECORD, &status)?;
    }
    Ok(uploaded)
}

/// Records that packages were withdrawn, as part of an operation. Returns how many were live.
pub(super) fn record_revoked(
    staged: &Staged<'_>,
    keypackage_refs: &[KeyPackageRef],
    reason: RevokeReason,
    (now, command): (Timestamp, CommandId),
) -> Result<usize, StorageError> {
    let mut revoked = 0_usize;
    for keypackage_ref in keypackage_refs {
        if own_package(staged, keypackage_ref, "revoked")?.stage.is_live() {
            last_resort::note_withdrawn(staged, keypackage_ref, now)?;
            let keypackage_ref = keypackage_ref.clone();
            staged.record(Event::Revoked { keypackage_ref, reason, check: None }, now, command)?;
            revoked = revoked.saturating_add(1);
        }
    }
    Ok(revoked)
}

/// Records that a package was joined with, and by whose Welcome where that is known, and removes its
/// private keys unless it is one of last resort, as part of an operation.
pub(super) fn record_spent(
    staged: &Staged<'_>,
    keypackage_ref: &KeyPackageRef,
    (group, inviter): (&GroupId, Option<PoolId>),
    now: Timestamp,
) -> Result<(), StorageError> {
    let event = Event::Spent {
        keypackage_ref: keypackage_ref.clone(),
        reservation: None,
        holder: inviter,
        group: group.clone(),
        late: false,
    };
    staged.record(event, now, fresh_command())?;
    if is_last_resort(staged, keypackage_ref) {
        note_used(staged, keypackage_ref, now)
    } else {
        forget_private_keys(staged, keypackage_ref)
    }
}

/// Records that a live package has expired, and removes its private keys, as part of an operation.
fn record_expired(
    staged: &Staged<'_>,
    keypackage_ref: &KeyPackageRef,
    (now, command): (Timestamp, CommandId),
) -> Result<(), StorageError> {
    staged.record(Event::Expired { keypackage_ref: keypackage_ref.clone() }, now, command)?;
    forget_private_keys(staged, keypackage_ref)
}

/// Removes a package's private keys and the records beside them, as part of an operation.
fn forget_private_keys(
    staged: &Staged<'_>,
    keypackage_ref: &KeyPackageRef,
) -> Result<(), StorageError> {
    bundles::forget_reservation(staged, keypackage_ref);
    forget_attempts(staged, keypackage_ref);
    last_resort::forget_joined(staged, keypackage_ref);
    delete_private_keys(staged, keypackage_ref)
}

/// Whether a package's private keys are there, as the operation leaves them.
pub(super) fn has_private_keys(
    staged: &Staged<'_>,
    keypackage_ref: &KeyPackageRef,
) -> Result<bool, StorageError> {
    staged.has_key_package(&mls_ref(keypackage_ref)?)
}

fn stored_bundle(
    staged: &Staged<'_>,
    keypackage_ref: &KeyPackageRef,
) -> Result<Option<KeyPackageBundle>, StorageError> {
    staged.key_package(&mls_ref(keypackage_ref)?)
}

/// The bytes of a package that has not been used.
fn stored_bytes(
    staged: &Staged<'_>,
    keypackage_ref: &KeyPackageRef,
) -> Result<Vec<u8>, StorageError> {
    let unreadable = |source| StorageError::Value { what: "package".to_owned(), source };
    let bundle = stored_bundle(staged, keypackage_ref)?.ok_or_else(|| {
        unreadable(format!("package {} is missing", keypackage_ref.short()).into())
    })?;
    bundle.key_package().tls_serialize_detached().map_err(|err| unreadable(err.into()))
}

/// The package that an event is to be recorded of, which this device has made.
fn own_package(
    staged: &Staged<'_>,
    keypackage_ref: &KeyPackageRef,
    event: &'static str,
) -> Result<OwnPackage, StorageError> {
    let never_made = || ImpossibleEvent { keypackage_ref: keypackage_ref.clone(), event };
    staged.package(keypackage_ref).ok_or_else(|| never_made().into())
}

fn not_made(err: impl Into<BoxError>) -> PoolError {
    PoolError::Mls(err.into())
}

/// The facts of a package, under the reference computed from its bytes.
fn read_facts(crypto: &impl OpenMlsCrypto, package: &KeyPackage) -> Result<PackageFacts, BoxError> {
    facts_of(ledger_ref(&package.hash_ref(crypto)?)?, package)
}

fn is_single_use(own: &OwnPackage) -> bool {
    !own.facts.last_resort
}

/// Whether a package's lifetime ended an hour ago or more: no inviter's clock takes it for valid.
fn is_over(own: &OwnPackage, now: Timestamp) -> bool {
    own.is_expired(now.before(CLOCK_SKEW))
}

/// Whether a package waits to be uploaded. One whose lifetime has not begun was made by a clock that
/// was wrong: no server would take it now.
fn is_pending(own: &OwnPackage, now: Timestamp) -> bool {
    own.stage == OwnStage::Created && !own.is_expired(now) && own.facts.not_before <= now
}
