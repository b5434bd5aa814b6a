//! The package of last resort: one for each ciphersuite, handed out when nothing else is left.
//!
//! Several inviters may be given it, so it is not over with its first use: that is when it is withdrawn and
//! another one takes its place. Its private keys are kept a day longer, for Welcomes on their way, and each
//! Welcome is joined once.
//!
//! ```text
//! made ──► uploaded ──► used, or half its life is over ──► withdrawn ──► a day later its keys are deleted
//! ```

use std::{collections::BTreeSet, time::Duration};

use data_encoding::HEXLOWER;
use keypool_ledger::{Event, Hash, KeyPackageRef, RevokeReason, Timestamp};
use openmls_traits::types::Ciphersuite;
use serde::{Deserialize, Serialize};

use super::{
    CreatedPackage, KeyPackagePool, PoolConfig, forget_private_keys, has_private_keys, is_pending,
    record_revoked, stored_bytes,
};
use crate::{
    OwnPackage, OwnStage, PoolError, Staged, StorageError,
    mls::{CLOCK_SKEW, membership::has_no_attempts_left},
    storage::fresh_command,
};

/// How long the private keys of a withdrawn one are kept.
const KEYS_KEPT: Duration = Duration::from_hours(24);
/// The prefix of the names of the records of its use.
const USE_PREFIX: &str = "last-resort/";
/// The prefix of the names of the records of joined Welcomes.
const JOINED_PREFIX: &str = "last-resort-joined/";

/// The use of a package of last resort.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Use {
    /// When this device first heard of a use of it.
    used: Option<Timestamp>,
    /// Whether the app was told of that.
    told: bool,
    /// When it was withdrawn.
    withdrawn: Option<Timestamp>,
}

impl Use {
    fn is_untold(self) -> bool {
        self.used.is_some() && !self.told
    }
}

/// The packages of last resort that are to be withdrawn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Worn {
    /// Those the server may still hand out.
    pub(crate) at_server: Vec<KeyPackageRef>,
    /// Those that are live by the device's own history.
    pub(crate) own: Vec<KeyPackageRef>,
}

impl KeyPackagePool {
    /// Which packages of last resort are to be withdrawn: those that were used, have lived half their life,
    /// or are not wanted; and those that the server has and whose private keys are not here.
    pub(crate) fn worn_last_resort(&self, now: Timestamp) -> Result<Worn, StorageError> {
        let staged = self.store.stage()?;
        let mut worn = Worn::default();
        for own in staged.packages_where(|own| own.facts.last_resort && own.stage.is_live()) {
            if self.is_worn(&staged, &own, now)? {
                worn.own.push(own.facts.keypackage_ref);
            }
        }
        for keypackage_ref in staged.last_resort_at_server() {
            let is_live = staged.package(&keypackage_ref).is_some_and(|own| own.stage.is_live());
            if !is_live
                || worn.own.contains(&keypackage_ref)
                || !has_private_keys(&staged, &keypackage_ref)?
            {
                worn.at_server.push(keypackage_ref);
            }
        }
        Ok(worn)
    }

    fn is_worn(
        &self,
        staged: &Staged<'_>,
        own: &OwnPackage,
        now: Timestamp,
    ) -> Result<bool, StorageError> {
        let keypackage_ref = &own.facts.keypackage_ref;
        Ok(!wants(&self.config, own.facts.ciphersuite)
            || is_half_over(own, now)
            || read(staged, keypackage_ref)?.used.is_some()
            || has_no_attempts_left(staged, keypackage_ref)?)
    }

    /// Whether a package of last resort was used since the last refresh that came to its end.
    pub(crate) fn is_last_resort_used(&self) -> Result<bool, StorageError> {
        Ok(!untold(&self.store.stage()?)?.is_empty())
    }

    /// Records that packages of last resort were withdrawn.
    pub(crate) fn withdraw_last_resort(
        &self,
        refs: &[KeyPackageRef],
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let staged = self.store.stage()?;
        record_revoked(&staged, refs, RevokeReason::Withdrawn, (now, fresh_command()))?;
        staged.commit()
    }

    /// The packages of last resort to be uploaded: one for each ciphersuite for which the server has none.
    /// Those that were made before and did not reach it, and otherwise new ones, whose private halves are
    /// stored in one write.
    ///
    /// # Errors
    ///
    /// Returns a [`PoolError`] of the store or of MLS. No package has been made then.
    pub fn last_resort_to_upload(&self, now: Timestamp) -> Result<Vec<CreatedPackage>, PoolError> {
        let staged = self.store.stage()?;
        let mut packages = Vec::new();
        for suite in self.suites().filter(|_| self.config.last_resort) {
            match live_one(&staged, suite, now) {
                Some(own) if own.stage == OwnStage::Created => {
                    let bytes = stored_bytes(&staged, &own.facts.keypackage_ref)?;
                    packages.push(CreatedPackage { facts: own.facts, bytes });
                }
                Some(_) => {}
                None => {
                    let made = self.make_package(&staged, (suite, true), now);
                    let made = made?;
                    staged.record(Event::Created(made.facts.clone()), now, fresh_command())?;
                    packages.push(made);
                }
            }
        }
        staged.commit()?;
        Ok(packages)
    }
}

/// The package of last resort of a ciphersuite that stands; one that is at the server goes before.
fn live_one(staged: &Staged<'_>, suite: Ciphersuite, now: Timestamp) -> Option<OwnPackage> {
    let is_one = |own: &OwnPackage| {
        own.facts.last_resort && own.facts.ciphersuite == u16::from(suite) && !own.is_expired(now)
    };
    let mut uploaded = staged.packages_where(|own| is_one(own) && own.stage == OwnStage::Uploaded);
    uploaded
        .pop()
        .or_else(|| staged.packages_where(|own| is_one(own) && is_pending(own, now)).pop())
}

fn wants(config: &PoolConfig, suite: u16) -> bool {
    config.last_resort && config.ciphersuites.contains(&suite)
}

/// Whether half of a package's life is over: a device that is away from now on leaves the other half.
fn is_half_over(own: &OwnPackage, now: Timestamp) -> bool {
    let (from, to) = (own.facts.not_before.as_millis(), own.facts.not_after.as_millis());
    from.midpoint(to) <= now.as_millis()
}

/// When the private keys of a package are deleted that is withdrawn now.
pub(crate) fn keys_end(own: &OwnPackage, now: Timestamp) -> Timestamp {
    let end = own.facts.not_after;
    if own.facts.last_resort { end.min(now.after(KEYS_KEPT)) } else { end }
}

/// When the private keys of a package are needed no more: an hour after its lifetime, and a day after the withdrawal
/// of one of last resort if that is sooner.
pub(super) fn keys_needed_until(
    staged: &Staged<'_>,
    own: &OwnPackage,
) -> Result<Timestamp, StorageError> {
    let end = own.facts.not_after.after(CLOCK_SKEW);
    let withdrawn = read(staged, &own.facts.keypackage_ref)?.withdrawn;
    Ok(withdrawn.map_or(end, |at| end.min(at.after(KEYS_KEPT))))
}

/// Notes that a package was used, if it is one of last resort, as part of an operation.
pub(crate) fn note_used(
    staged: &Staged<'_>,
    keypackage_ref: &KeyPackageRef,
    now: Timestamp,
) -> Result<(), StorageError> {
    let mut known = read(staged, keypackage_ref)?;
    if !is_last_resort(staged, keypackage_ref) || known.used.is_some() {
        return Ok(());
    }
    known.used = Some(now);
    staged.put_app_record(&use_name(keypackage_ref), &known)
}

/// Notes that a package was withdrawn, if it is one of last resort, as part of an operation.
pub(super) fn note_withdrawn(
    staged: &Staged<'_>,
    keypackage_ref: &KeyPackageRef,
    now: Timestamp,
) -> Result<(), StorageError> {
    if !is_last_resort(staged, keypackage_ref) {
        return Ok(());
    }
    let known = Use { withdrawn: Some(now), ..read(staged, keypackage_ref)? };
    staged.put_app_record(&use_name(keypackage_ref), &known)
}

/// Deletes the private keys of those that were withdrawn a day ago, as part of an operation; and deletes
/// records that are no longer needed.
pub(super) fn delete_due(staged: &Staged<'_>, now: Timestamp) -> Result<(), StorageError> {
    for own in staged.packages_where(|own| own.facts.last_resort && !own.stage.is_live()) {
        let keypackage_ref = own.facts.keypackage_ref;
        let Some(known) = staged.app_record::<Use>(&use_name(&keypackage_ref))? else { continue };
        let is_due = known.withdrawn.is_some_and(|at| at.after(KEYS_KEPT) <= now);
        let mut has_keys = has_private_keys(staged, &keypackage_ref)?;
        if has_keys && is_due {
            forget_private_keys(staged, &keypackage_ref)?;
            has_keys = false;
        }
        if !has_keys && !known.is_untold() {
            staged.remove_app_record(&use_name(&keypackage_ref));
        }
    }
    Ok(())
}

/// How many were used of which the app has not been told, and notes that it is told now, as part of an
/// operation.
pub(crate) fn tell_used(staged: &Staged<'_>) -> Result<usize, StorageError> {
    let untold = untold(staged)?;
    for (name, known) in &untold {
        staged.put_app_record(name, &Use { told: true, ..*known })?;
    }
    Ok(untold.len())
}

fn untold(staged: &Staged<'_>) -> Result<Vec<(String, Use)>, StorageError> {
    let mut found = Vec::new();
    for name in staged.app_record_names(USE_PREFIX)? {
        let known: Option<Use> = staged.app_record(&name)?;
        found.extend(known.filter(|known| known.is_untold()).map(|known| (name, known)));
    }
    Ok(found)
}

/// Whether a Welcome was joined with a package of last resort before, by the part of it that is for the
/// package.
pub(crate) fn was_joined(
    staged: &Staged<'_>,
    keypackage_ref: &KeyPackageRef,
    secrets: &Hash,
) -> Result<bool, StorageError> {
    Ok(joined(staged, keypackage_ref)?.contains(secrets))
}

/// Notes that a Welcome was joined, if that was by a package of last resort, as part of an operation.
pub(crate) fn note_joined(
    staged: &Staged<'_>,
    keypackage_ref: &KeyPackageRef,
    secrets: Hash,
) -> Result<(), StorageError> {
    if !is_last_resort(staged, keypackage_ref) {
        return Ok(());
    }
    let mut all = joined(staged, keypackage_ref)?;
    all.insert(secrets);
    staged.put_app_record(&joined_name(keypackage_ref), &all)
}

/// Forgets which Welcomes were joined: without its private keys none is.
pub(super) fn forget_joined(staged: &Staged<'_>, keypackage_ref: &KeyPackageRef) {
    if is_last_resort(staged, keypackage_ref) {
        staged.remove_app_record(&joined_name(keypackage_ref));
    }
}

/// Whether a package is the device's own, and one of last resort.
pub(crate) fn is_last_resort(staged: &Staged<'_>, keypackage_ref: &KeyPackageRef) -> bool {
    staged.package(keypackage_ref).is_some_and(|own| own.facts.last_resort)
}

fn read(staged: &Staged<'_>, keypackage_ref: &KeyPackageRef) -> Result<Use, StorageError> {
    Ok(staged.app_record(&use_name(keypackage_ref))?.unwrap_or_default())
}

fn joined(
    staged: &Staged<'_>,
    keypackage_ref: &KeyPackageRef,
) -> Result<BTreeSet<Hash>, StorageError> {
    Ok(staged.app_record(&joined_name(keypackage_ref))?.unwrap_or_default())
}

fn use_name(keypackage_ref: &KeyPackageRef) -> String {
    format!("{USE_PREFIX}{}", HEXLOWER.encode(keypackage_ref.as_bytes()))
}

fn joined_name(keypackage_ref: &KeyPackageRef) -> String {
    format!("{JOINED_PREFIX}{}", HEXLOWER.encode(keypackage_ref.as_bytes()))
}
