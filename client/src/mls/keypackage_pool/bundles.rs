//! The key packages in a `LocalStore`, for apps that make them with `OpenMLS` and keep them here: saved, loaded,
//! counted, listed, deleted.
//!
//! Each method is one operation on the device's own history, which [`KeyPackagePool`](super::KeyPackagePool) keeps
//! as well: an app may use both on one store.

use data_encoding::HEXLOWER;
use keypool_ledger::{
    Event, GroupId, Hash, KeyPackageRef, PoolId, ReservationId, RevokeReason, Timestamp,
};
use keypool_projections::{PoolState, ReservationStatus, Stage};
use openmls::key_packages::KeyPackageBundle;
use openmls_traits::{OpenMlsProvider, storage::StorageProvider};
use serde::{Deserialize, Serialize};

use super::{
    forget_private_keys, has_private_keys, is_over, last_resort::keys_needed_until, own_package,
    read_facts, record_expired, record_revoked, record_spent, record_uploaded, stored_bundle,
};
use crate::{
    BundleDeleteError, BundleLoadError, ImpossibleEvent, KeyFate, LocalStore, OwnPackage, OwnStage,
    Staged, StorageError, mls::mls_ref, storage::fresh_command,
};

/// How many of the packages that this device has ever made are at each stage, those of last resort included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusCounts {
    /// Made, and not known to be at the server.
    pub created: usize,
    /// At the server.
    pub uploaded: usize,
    /// Used: a Welcome for each was joined.
    pub spent: usize,
    /// Past their lifetimes.
    pub expired: usize,
    /// Withdrawn.
    pub revoked: usize,
}

/// The reservation of a package, as its owner is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservationInfo {
    /// The inviter's claim.
    pub reservation: ReservationId,
    /// The inviter's device.
    pub holder: PoolId,
    /// The group that the invitation is for.
    pub group: GroupId,
    /// When the reservation ends, as the inviter was told.
    pub deadline: Timestamp,
}

impl LocalStore {
    /// Saves a key package that the app has made with `OpenMLS`, together with its private keys, and records that it
    /// was created, in one write. Returns its reference.
    ///
    /// A repetition records nothing, and restores private keys that were lost. Upload the package only after this
    /// has returned.
    ///
    /// Waits for a staged operation to end.
    ///
    /// # Errors
    ///
    /// Returns [`StorageError::Impossible`] if the package was spent, has expired or was withdrawn: it is never
    /// offered again. [`StorageError::Value`] if it cannot be encoded, and otherwise a [`StorageError`] of the store.
    /// Nothing has been saved then.
    pub fn save_key_package_bundle(
        &self,
        bundle: &KeyPackageBundle,
        now: Timestamp,
    ) -> Result<KeyPackageRef, StorageError> {
        let staged = self.stage()?;
        let facts = read_facts(staged.provider().crypto(), bundle.key_package());
        let facts = facts
            .map_err(|source| StorageError::Value { what: "key package".to_owned(), source })?;
        let keypackage_ref = facts.keypackage_ref.clone();
        if !staged.package(&keypackage_ref).is_some_and(|own| own.stage.is_live()) {
            staged.record(Event::Created(facts), now, fresh_command())?;
        }
        staged.write_key_package(&mls_ref(&keypackage_ref)?, bundle)?;
        staged.commit()?;
        Ok(keypackage_ref)
    }

    /// Loads a key package with its private keys, to join by a Welcome for it.
    ///
    /// [`MlsMembership::join_from_welcome`](crate::MlsMembership::join_from_welcome) joins, records the spend and
    /// deletes the keys in one write. An app that joins by itself stores its group first, and then sets the status
    /// [`OwnStage::Spent`]. A package of last resort keeps its keys: the app remembers which Welcomes it has joined.
    ///
    /// Waits for a staged operation to end.
    ///
    /// # Errors
    ///
    /// Returns [`BundleLoadError::MissingPrivateKey`] with the fate of the package if this device never made it, or
    /// its keys are gone: those of a spent or expired package are never handed out. [`BundleLoadError::Storage`] if
    /// the store cannot be read.
    pub fn load_key_package_bundle(
        &self,
        keypackage_ref: &KeyPackageRef,
    ) -> Result<KeyPackageBundle, BundleLoadError> {
        let staged = self.stage()?;
        let stage = staged.package(keypackage_ref).map(|own| own.stage);
        let bundle = match &stage {
            Some(stage) if stage.keeps_keys() => stored_bundle(&staged, keypackage_ref)?,
            Some(_) | None => None,
        };
        let missing = || BundleLoadError::MissingPrivateKey {
            keypackage_ref: keypackage_ref.clone(),
            fate: KeyFate::of(stage),
        };
        bundle.ok_or_else(missing)
    }

    /// Returns a key package with its private keys, or `None` where
    /// [`LocalStore::load_key_package_bundle`] says why they are not here.
    ///
    /// Waits for a staged operation to end.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store cannot be read.
    pub fn get_key_package_bundle(
        &self,
        keypackage_ref: &KeyPackageRef,
    ) -> Result<Option<KeyPackageBundle>, StorageError> {
        match self.load_key_package_bundle(keypackage_ref) {
            Ok(bundle) => Ok(Some(bundle)),
            Err(BundleLoadError::MissingPrivateKey { .. }) => Ok(None),
            Err(BundleLoadError::Storage(error)) => Err(error),
        }
    }

    /// Deletes a key package and its private keys, once no Welcome can come for it: an hour after its lifetime, and
    /// if it is a withdrawn one of last resort a day after the withdrawal. One that was live is recorded as expired
    /// in the same write. Those of a spent or expired package are gone already.
    ///
    /// Returns whether private keys were here.
    ///
    /// Waits for a staged operation to end.
    ///
    /// # Errors
    ///
    /// Returns [`BundleDeleteError::StillNeeded`] with the end of that time before it, withdrawn or not: an
    /// invitation may be on its way. [`BundleDeleteError::Storage`] if the store fails. Nothing has been deleted
    /// then.
    pub fn delete_key_package_bundle(
        &self,
        keypackage_ref: &KeyPackageRef,
        now: Timestamp,
    ) -> Result<bool, BundleDeleteError> {
        let staged = self.stage()?;
        let had_keys = has_private_keys(&staged, keypackage_ref)?;
        if let Some(own) = staged.package(keypackage_ref).filter(|own| own.stage.keeps_keys()) {
            let until = keys_needed_until(&staged, &own)?;
            if now < until {
                let keypackage_ref = keypackage_ref.clone();
                return Err(BundleDeleteError::StillNeeded { keypackage_ref, until });
            }
            if own.stage.is_live() {
                record_expired(&staged, keypackage_ref, (now, fresh_command()))?;
            }
        }
        if had_keys {
            forget_private_keys(&staged, keypackage_ref)?;
        }
        staged.commit()?;
        Ok(had_keys)
    }

    /// Records that a key package has come to a stage; the private keys of a spent or expired one are deleted in the
    /// same write. One of last resort stays where it is when it is spent, and its use is noted.
    ///
    /// Returns whether anything was recorded: nothing is if the package is at the stage already.
    ///
    /// Waits for a staged operation to end.
    ///
    /// # Errors
    ///
    /// Returns [`StorageError::Impossible`] if this device never made the package, if its life does not lead from its
    /// stage to the other one (a spent package stays spent, and for its group), or if it is to expire and its
    /// lifetime has not been over for an hour. Otherwise a [`StorageError`] of the store. Nothing has been recorded
    /// then.
    pub fn update_key_package_status(
        &self,
        keypackage_ref: &KeyPackageRef,
        status: &OwnStage,
        now: Timestamp,
    ) -> Result<bool, StorageError> {
        let staged = self.stage()?;
        let own = own_package(&staged, keypackage_ref, status.event_name())?;
        if own.stage == *status {
            return Ok(false);
        }
        record_stage(&staged, &own, status, now)?;
        staged.commit()?;
        Ok(true)
    }

    /// Counts the key packages that this device has ever made, by their stage.
    ///
    /// Waits for a staged operation to end.
    ///
    /// # Errors
    ///
    /// Returns [`StorageError::Stopped`] if an earlier write failed.
    pub fn count_key_packages_by_status(&self) -> Result<StatusCounts, StorageError> {
        let mut counts = StatusCounts::default();
        for own in self.stage()?.packages_where(|_| true) {
            *match own.stage {
                OwnStage::Created => &mut counts.created,
                OwnStage::Uploaded => &mut counts.uploaded,
                OwnStage::Spent { .. } => &mut counts.spent,
                OwnStage::Expired => &mut counts.expired,
                OwnStage::Revoked { .. } => &mut counts.revoked,
            } += 1;
        }
        Ok(counts)
    }

    /// Lists the key packages whose private keys are here and that no Welcome can come for any more: the ones that
    /// [`LocalStore::delete_key_package_bundle`] deletes, one at a time, and
    /// [`KeyPackagePool::expire`](crate::KeyPackagePool::expire) all at once.
    ///
    /// Waits for a staged operation to end.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store cannot be read.
    pub fn get_expired_keys(&self, now: Timestamp) -> Result<Vec<OwnPackage>, StorageError> {
        let staged = self.stage()?;
        let is_past = |own: &OwnPackage| {
            Ok(keys_needed_until(&staged, own)? <= now && has_keys(&staged, own)?)
        };
        keep(staged.packages_where(|own| own.stage.keeps_keys()), is_past)
    }

    /// Lists the key packages that an inviter can still be given: live ones whose private keys are here, that may be
    /// used until `not_after_min` or longer, and that nobody is known to have reserved or used, by the server's history
    /// if that is mirrored and has the package, and otherwise by [`LocalStore::update_reservation_info`]. Those that
    /// end first come first. One of last resort is always among them while it is live.
    ///
    /// Waits for a staged operation to end.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store cannot be read.
    pub fn get_available_keys(
        &self,
        not_after_min: Timestamp,
    ) -> Result<Vec<OwnPackage>, StorageError> {
        let told = self.server_pool();
        let staged = self.stage()?;
        let is_in_time =
            |own: &OwnPackage| own.stage.is_live() && not_after_min <= own.facts.not_after;
        let mut available = keep(staged.packages_where(is_in_time), |own| {
            Ok(is_offered(&told, &staged, own)? && has_keys(&staged, own)?)
        })?;
        available.sort_by_key(|own| own.facts.not_after);
        Ok(available)
    }

    /// Notes who has reserved a key package, as its server has told the app; `None` once the reservation has ended.
    /// The note is removed with the private keys.
    ///
    /// It is for apps that speak to the server themselves. Where the server's history of a package is mirrored, as
    /// [`MlsConnection`](crate::MlsConnection) does, that history is read instead.
    ///
    /// Waits for a staged operation to end.
    ///
    /// # Errors
    ///
    /// Returns [`StorageError::Impossible`] if this device never made the package, or if it is spent or expired and
    /// is to be reserved. Otherwise a [`StorageError`] of the store. Nothing has been noted then.
    pub fn update_reservation_info(
        &self,
        keypackage_ref: &KeyPackageRef,
        info: Option<&ReservationInfo>,
    ) -> Result<(), StorageError> {
        let staged = self.stage()?;
        let own = own_package(&staged, keypackage_ref, "reserved")?;
        match info {
            Some(info) if own.stage.keeps_keys() => {
                staged.put_app_record(&reservation_name(keypackage_ref), info)?;
            }
            Some(_) => return Err(impossible(keypackage_ref, "reserved")),
            None => forget_reservation(&staged, keypackage_ref),
        }
        staged.commit()
    }

    /// Returns the reservation that a key package is held by: of the server's history if that is mirrored and has
    /// the package, and otherwise as [`LocalStore::update_reservation_info`] has noted it.
    ///
    /// Waits for a staged operation to end.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store cannot be read.
    pub fn reservation_info(
        &self,
        keypackage_ref: &KeyPackageRef,
    ) -> Result<Option<ReservationInfo>, StorageError> {
        let told = self.server_pool();
        reservation_of(&told, &self.stage()?, keypackage_ref)
    }

    /// Records that all live key packages of a credential are withdrawn, because the device has another credential
    /// now. Their private keys stay until their lifetimes end, for Welcomes on their way. `credential_hash` is the
    /// BLAKE3 digest of the serialized credential, as in [`PackageFacts`](crate::PackageFacts).
    ///
    /// Returns the packages: withdraw them from the server too, by
    /// [`MlsConnection::withdraw_from_server`](crate::MlsConnection::withdraw_from_server) for example.
    ///
    /// Waits for a staged operation to end.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store fails. Nothing has been recorded then.
    pub fn invalidate_credential_keys(
        &self,
        credential_hash: &Hash,
        now: Timestamp,
    ) -> Result<Vec<KeyPackageRef>, StorageError> {
        let staged = self.stage()?;
        let is_of_credential =
            |own: &OwnPackage| own.stage.is_live() && own.facts.credential == *credential_hash;
        let live = staged.packages_where(is_of_credential).into_iter();
        let refs: Vec<_> = live.map(|own| own.facts.keypackage_ref).collect();
        record_revoked(&staged, &refs, RevokeReason::Rotated, (now, fresh_command()))?;
        staged.commit()?;
        Ok(refs)
    }
}

/// Records that a package has come to a stage, as part of an operation; refuses it if its life does not lead there.
fn record_stage(
    staged: &Staged<'_>,
    own: &OwnPackage,
    status: &OwnStage,
    now: Timestamp,
) -> Result<(), StorageError> {
    let keypackage_ref = &own.facts.keypackage_ref;
    let (refs, command) = (std::slice::from_ref(keypackage_ref), fresh_command());
    match status {
        OwnStage::Uploaded => drop(record_uploaded(staged, refs, now, command)?),
        OwnStage::Spent { group } => record_spent(staged, keypackage_ref, (group, None), now)?,
        OwnStage::Expired if is_over(own, now) => {
            record_expired(staged, keypackage_ref, (now, command))?;
        }
        OwnStage::Revoked { reason } => {
            record_revoked(staged, refs, *reason, (now, command))?;
        }
        OwnStage::Created | OwnStage::Expired => {}
    }
    let is_there = staged.package(keypackage_ref).is_some_and(|own| own.stage == *status);
    let is_used = own.facts.last_resort && matches!(status, OwnStage::Spent { .. });
    if is_there || is_used { Ok(()) } else { Err(impossible(keypackage_ref, status.event_name())) }
}

fn impossible(keypackage_ref: &KeyPackageRef, event: &'static str) -> StorageError {
    ImpossibleEvent { keypackage_ref: keypackage_ref.clone(), event }.into()
}

/// Forgets the note of a package's reservation, as part of an operation.
pub(super) fn forget_reservation(staged: &Staged<'_>, keypackage_ref: &KeyPackageRef) {
    staged.remove_app_record(&reservation_name(keypackage_ref));
}

/// The open reservation of a package by the mirrored history, or by the app's note if that does not have the
/// package.
fn reservation_of(
    told: &PoolState,
    staged: &Staged<'_>,
    keypackage_ref: &KeyPackageRef,
) -> Result<Option<ReservationInfo>, StorageError> {
    let Some(package) = told.get(keypackage_ref) else {
        return staged.app_record(&reservation_name(keypackage_ref));
    };
    let latest = package.latest.and_then(|id| Some((id, told.reservation(id)?)));
    let open = latest.filter(|(_, made)| made.status == ReservationStatus::Open);
    Ok(open.map(|(reservation, made)| ReservationInfo {
        reservation,
        holder: made.holder.clone(),
        group: made.group.clone(),
        deadline: made.deadline,
    }))
}

/// Whether a live package can still be handed out, as far as that is known here.
fn is_offered(
    told: &PoolState,
    staged: &Staged<'_>,
    own: &OwnPackage,
) -> Result<bool, StorageError> {
    let keypackage_ref = &own.facts.keypackage_ref;
    match told.get(keypackage_ref) {
        Some(package) => Ok(package.stage == Stage::Available),
        None if own.facts.last_resort => Ok(true),
        None => Ok(reservation_of(told, staged, keypackage_ref)?.is_none()),
    }
}

fn reservation_name(keypackage_ref: &KeyPackageRef) -> String {
    format!("reservation/{}", HEXLOWER.encode(keypackage_ref.as_bytes()))
}

fn has_keys(staged: &Staged<'_>, own: &OwnPackage) -> Result<bool, StorageError> {
    has_private_keys(staged, &own.facts.keypackage_ref)
}

/// The packages that pass a test which may fail.
fn keep(
    packages: Vec<OwnPackage>,
    test: impl Fn(&OwnPackage) -> Result<bool, StorageError>,
) -> Result<Vec<OwnPackage>, StorageError> {
    let mut kept = Vec::new();
    for own in packages {
        if test(&own)? {
            kept.push(own);
        }
    }
    Ok(kept)
}
