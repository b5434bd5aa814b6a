//! Reconciliation of the device with the server: each refresh finds, reports and mends differences.
//!
//! A device answers for a package if it has the package's private keys and has not withdrawn it. At each
//! refresh the digest of these packages is compared with the server's of the live packages of the pool. As
//! long as they are the same, nothing is asked. Otherwise:
//!
//! - packages that are live at the server and not answered for here are withdrawn there: an inviter who was given one
//!   would invite nobody. That is so after this home was set back to an older copy of itself. As long as another copy
//!   may be running, its packages are left alone (see [`super::copies`]);
//! - a server that does not know its earlier events or uploads any more was set back to an older copy. Packages
//!   it has may have been handed out in the part that it has lost, and lost packages may have been as
//!   well. So none of it is offered again: everything is withdrawn, here and there, and the refill makes
//!   packages that nobody has seen. Their private keys stay until their lifetimes end, for Welcomes on
//!   their way. The history that was told before is kept.
//!
//! Every step may be repeated. Differences are recorded with the write that mends them, and reported by the
//! refresh that comes to its end, whichever that is.

use std::collections::BTreeSet;

use keypool_api::{Code, PackageState, PoolStatus, ReconcileRequest, RevokeRequest, RevokeWord};
use keypool_ledger::{KeyPackageRef, RevokeReason, StreamHead, Timestamp};
use keypool_projections::{Stage, reconcile::digest};

use super::{
    checkpoints::{note_fetched, note_set_back},
    copies::may_be_running,
    drift::{self, OtherCopy},
    mirror::history_truncated,
    upload::server_status_of,
};
use crate::{
    ExchangeError, MlsConnection, OwnStage, RefreshError, Replenishment, Staged, StorageError,
    mls::{
        keypackage_pool::{forget_server_status, record_revoked, record_server_status},
        mls_ref,
    },
    storage::fresh_command,
};

/// How many packages are named to the server at a time, at most.
const REFS_MAX: usize = 256;

impl<D> MlsConnection<D> {
    /// Brings the mirror to where the server says the history is. `known` is where the mirror was before
    /// the server was asked. Where the server tells another history than before, or less of it, that is
    /// kept, and the new history is mirrored from its first event on. Returns how many events were new.
    pub(in crate::mls) async fn catch_up(
        &self,
        status: &PoolStatus,
        known: StreamHead,
        now: Timestamp,
    ) -> Result<usize, ExchangeError> {
        let outcome = if status.version < known.version {
            let truncated = self.note_refusal(history_truncated(known.version), None, now)?;
            match self.take_history(None, now).await {
                // All of it is there: the status alone was older, and says nothing.
                Ok(_) => return Err(truncated.into()),
                outcome => outcome,
            }
        } else if self.is_caught_up(status)? {
            return Ok(0);
        } else {
            self.take_history(Some(server_status_of(&status.counts, status.position)), now).await
        };
        let error = match outcome {
            Err(ExchangeError::Storage(error)) if is_of_the_past(&error, known) => error,
            outcome => return outcome,
        };
        tracing::warn!(%error, "the server was set back, or tells another history; beginning anew");
        self.begin_anew(now)?;
        self.take_history(Some(server_status_of(&status.counts, status.position)), now).await
    }

    /// Whether the mirror ends at the server's head. The server's counts are stored.
    fn is_caught_up(&self, status: &PoolStatus) -> Result<bool, StorageError> {
        let own = self.store().history_head().version;
        let staged = self.store().stage()?;
        let mirror = staged.mirror_head();
        if mirror.version == 0 || (status.version, status.head) != (mirror.version, mirror.hash) {
            return Ok(false);
        }
        note_fetched(&staged, own, mirror.version)?;
        record_server_status(&staged, &server_status_of(&status.counts, status.position))?;
        staged.commit()?;
        Ok(true)
    }

    /// Whether it was found, and is not told yet, that the server was set back: then nothing that was made
    /// before is offered.
    pub(in crate::mls) fn knows_of_set_back(&self) -> Result<bool, StorageError> {
        drift::is_server_set_back(&self.store().stage()?)
    }

    /// Keeps the history that was told before beside the mirror, which begins anew, and offers nothing
    /// again that may have been handed out in it.
    fn begin_anew(&self, now: Timestamp) -> Result<(), StorageError> {
        self.subscription().close_all();
        let staged = self.store().stage()?;
        staged.set_mirror_aside()?;
        note_set_back(&staged)?;
        retire(&staged, now)?;
        staged.commit()
    }

    /// Compares the packages with keys here with those live at the server, and mends the differences. `held`
    /// are the packages known to be uploaded before the server was asked for its status. Returns how many packages
    /// were made in the place of others.
    pub(in crate::mls) async fn mend(
        &self,
        status: &PoolStatus,
        held: &BTreeSet<KeyPackageRef>,
        now: Timestamp,
    ) -> Result<usize, RefreshError> {
        let ours = self.packages_with_keys(held)?;
        if digest(ours.iter().map(|(own, stage)| (own, *stage))) == status.digest {
            return Ok(0);
        }
        let refs = ours.into_iter().map(|(own, _)| own).take(REFS_MAX).collect();
        let request = ReconcileRequest { digest: None, keypackage_refs: Some(refs) };
        let told = self.api().reconcile(&request, fresh_command()).await?;
        let lost = told.only_there.iter().find(|package| {
            package.state == PackageState::Unknown && held.contains(&package.keypackage_ref)
        });
        if let Some(lost) = lost {
            self.note_lost(&lost.keypackage_ref, now)?;
            self.withdraw_everything(now).await?;
            return Ok(0);
        }
        let only_there = told.only_here.into_iter().map(|package| package.keypackage_ref);
        let unanswered = self.unanswered_among(only_there)?;
        let foreign = self.of_other_copies(&unanswered)?;
        let (mut refs, mut made) = (unanswered, 0);
        if !foreign.is_empty() && self.is_copy_running(now)? {
            refs.retain(|package| !foreign.iter().any(|(foreign, _)| foreign == package));
        } else if !foreign.is_empty() {
            self.note_set_back()?;
            made = match self.make_up_for(&foreign, now).await {
                // Theirs are signed with other keys, beside which none of ours are taken.
                Err(error) if error.code() == Some(Code::NotAllowed) => 0,
                made => made?,
            };
        }
        if !refs.is_empty() {
            let which = RevokeRequest { keypackage_refs: Some(refs), ..RevokeRequest::default() };
            self.withdraw(which, now).await?;
        }
        Ok(made)
    }

    /// Notes that this home is an older copy of itself, for the app.
    fn note_set_back(&self) -> Result<(), StorageError> {
        let staged = self.store().stage()?;
        drift::note_older_home(&staged)?;
        staged.commit()
    }

    /// Whether another copy of this home may be running, which is noted for the app.
    fn is_copy_running(&self, now: Timestamp) -> Result<bool, StorageError> {
        let staged = self.store().stage()?;
        let is_running = may_be_running(&staged, now)?;
        if is_running {
            drift::note(&staged, |drift| drift.other_copy = Some(OtherCopy::Running))?;
        }
        staged.commit()?;
        Ok(is_running)
    }

    /// Uploads as many packages as other copies have in the pool, so that it is not empty once theirs are withdrawn;
    /// fewer if it has no room. Returns how many.
    async fn make_up_for(
        &self,
        foreign: &[(KeyPackageRef, u16)],
        now: Timestamp,
    ) -> Result<usize, RefreshError> {
        let needed: Vec<(u16, Replenishment)> = self
            .pool()
            .counts_by_suite(now)?
            .into_iter()
            .map(|(suite, counts)| {
                let theirs = foreign.iter().filter(|(_, of)| *of == suite).count();
                (suite, self.pool().config().making_up_for(theirs, counts))
            })
            .collect();
        let made = self.pool().generate_by_suite(&needed, now)?;
        Ok(self.upload(&made, now).await?.single_use)
    }

    /// Offers nothing again that was made so far, neither here nor at the server.
    pub(in crate::mls) async fn withdraw_everything(
        &self,
        now: Timestamp,
    ) -> Result<(), ExchangeError> {
        self.retire_everything(now)?;
        let which = RevokeRequest { all: Some(true), ..RevokeRequest::default() };
        self.withdraw(which, now).await
    }

    fn retire_everything(&self, now: Timestamp) -> Result<(), StorageError> {
        let staged = self.store().stage()?;
        retire(&staged, now)?;
        staged.commit()
    }

    async fn withdraw(&self, which: RevokeRequest, now: Timestamp) -> Result<(), ExchangeError> {
        let request = RevokeRequest { reason: RevokeWord::Withdrawn, ..which };
        let (reply, command) = self.revoke(&request).await?;
        let staged = self.store().stage()?;
        let (withdrawn, reason) = (reply.revoked.len(), RevokeReason::Withdrawn);
        let known: Vec<KeyPackageRef> =
            reply.revoked.into_iter().filter(|own| staged.package(own).is_some()).collect();
        record_revoked(&staged, &known, reason, (now, command))?;
        drift::note(&staged, |drift| drift.withdrawn = drift.withdrawn.saturating_add(withdrawn))?;
        record_server_status(&staged, &server_status_of(&reply.pool, reply.position))?;
        Ok(staged.commit()?)
    }

    /// Keeps that the server does not know a package which it has said to have taken in.
    fn note_lost(&self, lost: &KeyPackageRef, now: Timestamp) -> Result<(), StorageError> {
        let version = self.store().mirror_head().version.saturating_add(1);
        let why = format!(
            "package {} is not in it, which the server has said to have taken in",
            lost.short()
        );
        let error = StorageError::MirrorRefused { version, why };
        self.note_refusal(error, None, now).map(drop)
    }

    /// The packages that the device answers for, as the server should have them: those that are live in its
    /// history, and those it has said to have taken in and of which the history does not tell.
    pub(in crate::mls) fn packages_with_keys(
        &self,
        held: &BTreeSet<KeyPackageRef>,
    ) -> Result<Vec<(KeyPackageRef, Stage)>, StorageError> {
        let pool = self.store().server_pool();
        let staged = self.store().stage()?;
        let mut ours = Vec::new();
        for package in pool.live() {
            let keypackage_ref = &package.facts.keypackage_ref;
            if answers_for(&staged, keypackage_ref)? {
                ours.push((keypackage_ref.clone(), package.stage));
            }
        }
        let is_untold = |own: &&KeyPackageRef| {
            let is_held = staged.package(own).is_some_and(|own| own.stage == OwnStage::Uploaded);
            is_held && pool.get(own).is_none()
        };
        let untold = held.iter().filter(is_untold);
        ours.extend(untold.map(|own| (own.clone(), Stage::Available)));
        Ok(ours)
    }

    /// Those packages that the device does not answer for now. A package that neither this home nor its mirror of
    /// the history knows came a moment ago, and is left to the next refresh.
    fn unanswered_among(
        &self,
        packages: impl Iterator<Item = KeyPackageRef>,
    ) -> Result<Vec<KeyPackageRef>, StorageError> {
        let (pool, staged) = (self.store().server_pool(), self.store().stage()?);
        let mut unanswered = Vec::new();
        for keypackage_ref in packages {
            let is_known =
                staged.package(&keypackage_ref).is_some() || pool.get(&keypackage_ref).is_some();
            if is_known && !answers_for(&staged, &keypackage_ref)? {
                unanswered.push(keypackage_ref);
            }
        }
        Ok(unanswered)
    }
}

/// Whether a Welcome for the package could be joined here, and the package is not withdrawn.
fn answers_for(staged: &Staged<'_>, keypackage_ref: &KeyPackageRef) -> Result<bool, StorageError> {
    let is_live = staged.package(keypackage_ref).is_some_and(|own| own.stage.is_live());
    Ok(is_live && staged.opens_key_package(&mls_ref(keypackage_ref)?)?)
}

/// Withdraws all packages here, as part of an operation. The server's statement of their number is
/// forgotten, since the places in its log begin anew.
fn retire(staged: &Staged<'_>, now: Timestamp) -> Result<(), StorageError> {
    forget_server_status(staged);
    let live = staged.packages_where(|own| own.stage.is_live());
    let refs: Vec<KeyPackageRef> = live.into_iter().map(|own| own.facts.keypackage_ref).collect();
    let when = (now, fresh_command());
    let retired = record_revoked(staged, &refs, RevokeReason::Withdrawn, when)?;
    drift::note(staged, |drift| {
        drift.server_set_back = true;
        drift.retired = drift.retired.saturating_add(retired);
    })
}

/// Whether a refusal is about events that were mirrored before.
fn is_of_the_past(error: &StorageError, known: StreamHead) -> bool {
    matches!(error, StorageError::MirrorRefused { version, .. } if *version <= known.version)
}
