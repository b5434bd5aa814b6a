//! Other copies of this home: noticed by their changes of the pool, and kept from withdrawing each other's packages.
//!
//! A copy and its original have one key, so the server takes them for one device. Each sees the other in the
//! history of the pool, packages that it never made, and withdrawals that it never asked for; and each numbers its
//! refreshes, so that the server notices the second one of a number.
//!
//! - A copy that has refreshed or made packages within the last hour may be running: its packages are left alone, and the app is
//!   told. After an hour this home takes itself for a backup that was put back, makes packages of its own, and only
//!   then withdraws those that nobody here answers for.
//! - A home whose packages another copy has withdrawn was replaced by it: it makes and withdraws nothing more.
//! - [`MlsConnection::adopt`] is a person's word that this copy is the one to go on with.

use std::time::Duration;

use keypool_api::{PoolStatus, RevokeReply, RevokeRequest};
use keypool_ledger::{CommandId, KeyPackageRef, Timestamp};
use serde::{Deserialize, Serialize};

use super::drift::{self, OtherCopy};
use crate::{ExchangeError, MlsConnection, Staged, StorageError, storage::fresh_command};

/// The name of the record.
const COPIES_RECORD: &str = "copies";
/// How long after its last upload another copy may still be running.
const RUNNING_FOR: Duration = Duration::from_hours(1);
/// How many of its own withdrawals a home remembers, the newest.
const WITHDRAWALS_MAX: usize = 64;

/// The knowledge of other copies of this home.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Copies {
    /// When another copy has last refreshed or put packages into the pool, by the server's time.
    active_at: Option<Timestamp>,
    /// Whether another copy has withdrawn packages of this one.
    replaced: bool,
    /// The requests by which this home has withdrawn packages.
    withdrawals: Vec<CommandId>,
    /// How many refreshes this home has begun.
    #[serde(default)]
    refreshes: u64,
    /// When a person has said that this copy is the only one.
    #[serde(default)]
    adopted_at: Option<Timestamp>,
}

fn read(staged: &Staged<'_>) -> Result<Copies, StorageError> {
    Ok(staged.app_record(COPIES_RECORD)?.unwrap_or_default())
}

fn change(staged: &Staged<'_>, change: impl FnOnce(&mut Copies)) -> Result<(), StorageError> {
    let before = read(staged)?;
    let mut copies = before.clone();
    change(&mut copies);
    if copies == before { Ok(()) } else { staged.put_app_record(COPIES_RECORD, &copies) }
}

/// Notes that another copy was active, as part of an operation. Activity before this copy was adopted counts no more.
pub(super) fn note_active(staged: &Staged<'_>, at: Timestamp) -> Result<(), StorageError> {
    change(staged, |copies| {
        if copies.adopted_at < Some(at) {
            copies.active_at = copies.active_at.max(Some(at));
        }
    })
}

/// Notes that a live package of this home was withdrawn by a request, as part of an operation.
pub(super) fn note_withdrawal(staged: &Staged<'_>, request: CommandId) -> Result<(), StorageError> {
    change(staged, |copies| copies.replaced |= !copies.withdrawals.contains(&request))
}

/// Whether another copy has replaced this one.
pub(super) fn is_replaced(staged: &Staged<'_>) -> Result<bool, StorageError> {
    Ok(read(staged)?.replaced)
}

/// Whether another copy may be running.
pub(super) fn may_be_running(staged: &Staged<'_>, now: Timestamp) -> Result<bool, StorageError> {
    let active_at = read(staged)?.active_at;
    Ok(active_at.is_some_and(|active_at| now < active_at.after(RUNNING_FOR)))
}

impl<D> MlsConnection<D> {
    /// Withdraws packages, by a request that is remembered as this home's own.
    pub(in crate::mls) async fn revoke(
        &self,
        request: &RevokeRequest,
    ) -> Result<(RevokeReply, CommandId), ExchangeError> {
        let command = fresh_command();
        self.change_copies(|copies| {
            let surplus = (copies.withdrawals.len() + 1).saturating_sub(WITHDRAWALS_MAX);
            copies.withdrawals.drain(..surplus);
            copies.withdrawals.push(command);
        })?;
        Ok((self.api().revoke(request, command).await?, command))
    }

    /// Forgets that other copies were seen, as a person has said that this one is the only one.
    /// Copies that the server has noticed so far count no more.
    pub(super) async fn forget_copies(&self) -> Result<(), ExchangeError> {
        let status = self.api().status_at_refresh(self.number_refresh()?).await?;
        let noticed_at = status.other_copy_at_ms.map(Timestamp::from_millis);
        let adopted_at = noticed_at.max(Some(self.api().now()));
        Ok(self.change_copies(|copies| {
            (copies.active_at, copies.replaced, copies.adopted_at) = (None, false, adopted_at);
        })?)
    }

    /// The number of a new refresh, and an id. It is stored before it is sent: this home uses none twice.
    fn number_refresh(&self) -> Result<(u64, CommandId), StorageError> {
        let mut number = 0;
        self.change_copies(|copies| {
            copies.refreshes = copies.refreshes.saturating_add(1);
            number = copies.refreshes;
        })?;
        Ok((number, fresh_command()))
    }

    /// Asks for the status of the pool at the begin of a refresh, and notes whether another copy has refreshed. A home
    /// that was replaced does not count: it is known.
    pub(super) async fn status_of_pool(&self) -> Result<PoolStatus, ExchangeError> {
        if is_replaced(&self.store().stage()?)? {
            return Ok(self.api().status().await?);
        }
        let status = self.api().status_at_refresh(self.number_refresh()?).await?;
        if let Some(at) = status.other_copy_at_ms.map(Timestamp::from_millis) {
            let staged = self.store().stage()?;
            note_active(&staged, at)?;
            if read(&staged)?.active_at == Some(at) {
                drift::note(&staged, |drift| drift.other_copy = Some(OtherCopy::Running))?;
            }
            staged.commit()?;
        }
        Ok(status)
    }

    /// The packages of last resort that another copy, which may be running, has put into the pool.
    pub(super) fn last_resorts_of_running_copy(
        &self,
        now: Timestamp,
    ) -> Result<Vec<KeyPackageRef>, StorageError> {
        let staged = self.store().stage()?;
        if !may_be_running(&staged, now)? {
            return Ok(Vec::new());
        }
        let mut theirs = staged.last_resort_at_server();
        theirs.retain(|package| staged.package(package).is_none());
        Ok(theirs)
    }

    fn change_copies(&self, how: impl FnOnce(&mut Copies)) -> Result<(), StorageError> {
        let staged = self.store().stage()?;
        change(&staged, how)?;
        staged.commit()
    }

    /// The packages among some that this home never made, with their ciphersuites.
    pub(super) fn of_other_copies(
        &self,
        packages: &[KeyPackageRef],
    ) -> Result<Vec<(KeyPackageRef, u16)>, StorageError> {
        let (pool, staged) = (self.store().server_pool(), self.store().stage()?);
        let is_foreign = |package: &&KeyPackageRef| staged.package(package).is_none();
        let foreign = packages.iter().filter(is_foreign);
        let with_suite = |package: &KeyPackageRef| {
            let facts = &pool.get(package)?.facts;
            Some((package.clone(), facts.ciphersuite))
        };
        Ok(foreign.filter_map(with_suite).collect())
    }
}
