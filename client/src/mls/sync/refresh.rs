//! The refresh of the device's pool: mirrors the server's history, cleans up, refills, and checks the server's
//! checkpoints.

use keypool_api::{Code, RevokeRequest, RevokeWord};
use keypool_ledger::{KeyPackageRef, Timestamp};
use keypool_projections::reconcile::digest;
use serde::Serialize;

use super::{
    checkpoints::{SeenLedger, note_ledger, note_present},
    cooldown::{is_fresh, note_refreshed_at},
    copies::{is_replaced, may_be_running},
    drift::{self, Drift, OtherCopy},
    lifetime_refusal::is_refused,
    subscription::RefreshMode,
    upload::Uploaded,
};
use crate::{
    ClockOffset, ExchangeError, MlsConnection, RefreshError, StorageError,
    mls::keypackage_pool::tell_used,
};

/// Told instead of the packages that would be refused again for their lifetime.
const LIFETIME_REFUSED: &str = "lifetime: the server takes no packages that live so long; they are offered \
                                again with another lifetime, or in a day";
/// As [`LIFETIME_REFUSED`], of packages of last resort.
const LAST_RESORT_REFUSED: &str = "lifetime: the server takes no packages of last resort that live so long; \
                                   they are offered again with another lifetime, or in a day";

/// The result of a refresh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Refresh {
    /// Whether nothing was asked, because the last one is less than a minute ago, or because a listener has
    /// told all there is and the pool is well.
    pub skipped: bool,
    /// How many events of the server's history were new.
    pub events: usize,
    /// How many packages have expired, their keys deleted.
    pub expired: usize,
    /// How many packages were uploaded that were made before.
    pub reuploaded: usize,
    /// How many packages were made and uploaded.
    pub created: usize,
    /// How many packages of last resort were uploaded.
    pub last_resort_uploaded: usize,
    /// How many packages of last resort were used since the last refresh: the pool was empty then. They
    /// are withdrawn.
    pub last_resort_used: usize,
    /// Packages the server would not take, with the check each failed.
    pub rejected: Vec<String>,
    /// How many can be handed out now; if nothing was asked, by the server's last statement.
    pub available: u64,
    /// The differences between the device and the server that were mended. Tell your user, if there
    /// is something.
    pub drift: Drift,
    /// The devices of this user that no device or recovery key of the user has introduced: an alarm, unless
    /// the server's operator lets devices in by a list or by tokens.
    pub unintroduced_devices: Vec<String>,
    /// How far the device's clock is off the server's, if it is by more than a minute. It is told once, and
    /// again when it has changed.
    pub clock: Option<ClockOffset>,
}

impl Refresh {
    /// Adds an upload, and returns the number of its single-use packages.
    fn count(&mut self, uploaded: Uploaded) -> usize {
        self.last_resort_uploaded += uploaded.last_resort;
        self.rejected.extend(uploaded.rejected);
        uploaded.single_use
    }
}

impl<D> MlsConnection<D> {
    /// Refreshes the pool: mirrors the server's history, deletes expired packages, and refills the
    /// pool to its target if it is low; at last it holds the server to its checkpoints, as
    /// [`MlsConnection::watch_ledger`]. This is all the upkeep there is.
    ///
    /// Call it when the app starts, after each Welcome, and now and then. Within a minute of the last
    /// one it asks nothing, unless a package of last resort was used, a rotation is unfinished or the device's
    /// credential is another, or a [`PoolListener`](crate::PoolListener) was told that the pool is low or empty. While a listener receives
    /// events, it relies on them and asks nothing as long as the pool is well, for five minutes at most.
    /// Repeating it changes nothing: a crash or a lost answer anywhere in it is made good by the next.
    ///
    /// # Errors
    ///
    /// Returns a [`RefreshError`]; the steps before it are kept.
    pub async fn refresh_key_packages(&self, now: Timestamp) -> Result<Refresh, RefreshError> {
        if self.is_rotating()?
            || self.pool().is_last_resort_used()?
            || self.is_credential_undeclared()?
        {
            return self.refresh_now(now).await;
        }
        let is_due = !is_fresh(&self.store().stage()?, now)?;
        match self.subscription().mode(is_due, now) {
            RefreshMode::Skip => {
                let available = self.pool().get_available_count(now)? as u64;
                return Ok(Refresh { skipped: true, available, ..Refresh::default() });
            }
            RefreshMode::Mirror => {
                let _alone = self.lock_refresh().await;
                if let Some(refresh) = self.refresh_from_mirror(now)? {
                    return Ok(refresh);
                }
            }
            RefreshMode::Query => {}
        }
        self.refresh_now(now).await
    }

    /// As [`MlsConnection::refresh_key_packages`], however short ago the last one was.
    ///
    /// # Errors
    ///
    /// As [`MlsConnection::refresh_key_packages`].
    pub async fn refresh_now(&self, now: Timestamp) -> Result<Refresh, RefreshError> {
        let _alone = self.lock_refresh().await;
        let round = self.subscription().begin_round();
        self.resume_rotation(now).await?;
        self.declare_credential(now).await?;
        let (known, held) = (self.store().mirror_head(), self.pool().uploaded(now)?);
        let status = self.status_of_pool().await?;
        let now = self.settle_clock().await?;
        let events = self.catch_up(&status, known, now).await?;
        let unintroduced_devices = self.watch_own_devices(&status, now).await?;
        let mut refresh = Refresh { events, unintroduced_devices, ..Refresh::default() };
        refresh.expired = self.pool().expire(now)?.len();
        self.delete_old_keys(now)?;
        let is_replaced = is_replaced(&self.store().stage()?)?;
        if is_replaced {
            self.note_replaced()?;
        } else {
            refresh.created = self.mend(&status, &held, now).await?;
            self.withdraw_last_resort(now).await?;
            self.refill_beside_copies(&mut refresh, now).await?;
        }
        let seen = self.look_at_ledger(now).await?;
        if !is_replaced
            && seen.as_ref().is_some_and(SeenLedger::contradicts)
            && !self.knows_of_set_back()?
        {
            // The pool's own history did not show it: what is lost of it was not seen here.
            self.withdraw_everything(now).await?;
            self.refill(&mut refresh, now).await?;
        }
        refresh.available = self.pool().get_available_count(now)? as u64;
        refresh.clock = self.tell_clock()?;
        (refresh.drift, refresh.last_resort_used) = self.note_refreshed(seen, now)?;
        self.subscription().end_round(round, now);
        Ok(refresh)
    }

    /// Goes on with this copy of the home, on a person's word that no other one is used any more: makes packages,
    /// and withdraws those of other copies. Another copy that still runs is told so at its next refresh, and makes no
    /// more packages.
    ///
    /// # Errors
    ///
    /// Returns a [`RefreshError`]. Repeating it is harmless.
    pub async fn adopt(&self, now: Timestamp) -> Result<Refresh, RefreshError> {
        self.fetch_history(now).await?;
        self.forget_copies().await?;
        self.refresh_now(now).await
    }

    /// As [`MlsConnection::refill`]. While packages of another copy are in the pool that are signed with other keys,
    /// the server takes none of this one.
    async fn refill_beside_copies(
        &self,
        refresh: &mut Refresh,
        now: Timestamp,
    ) -> Result<(), RefreshError> {
        match self.refill(refresh, now).await {
            Err(error)
                if error.code() == Some(Code::NotAllowed)
                    && may_be_running(&self.store().stage()?, now)? =>
            {
                refresh.rejected.push(format!("beside the packages of another copy: {error}"));
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Notes that another copy of this home has replaced it, for the app.
    fn note_replaced(&self) -> Result<(), StorageError> {
        let staged = self.store().stage()?;
        drift::note(&staged, |drift| drift.other_copy = Some(OtherCopy::TookOver))?;
        staged.commit()
    }

    /// Fills the pool to its target if it is low, first with packages made earlier; and ensures that there
    /// is a package of last resort.
    async fn refill(&self, refresh: &mut Refresh, now: Timestamp) -> Result<(), RefreshError> {
        let what = (self.pool().config(), self.api().clock().known(), now);
        let is_refused = |last_resort| is_refused(&self.store().stage()?, last_resort, what);
        let (mut last_resort, mut needed) = (Vec::new(), Vec::new());
        // The server takes one of each ciphersuite; that of another copy stands.
        let is_taken = !self.last_resorts_of_running_copy(now)?.is_empty();
        if is_refused(true)? {
            refresh.rejected.push(LAST_RESORT_REFUSED.to_owned());
        } else if !is_taken {
            last_resort = self.pool().last_resort_to_upload(now)?;
        }
        if is_refused(false)? {
            refresh.rejected.push(LIFETIME_REFUSED.to_owned());
        } else {
            needed = self.pool().replenishments(now)?;
        }
        if needed.iter().all(|(_, needed)| needed.is_empty()) && last_resort.is_empty() {
            return Ok(());
        }
        let again = self.pool().again_by_suite(&needed, now)?;
        refresh.reuploaded += refresh.count(self.upload(&again, now).await?);
        let mut made = self.pool().generate_by_suite(&needed, now)?;
        made.extend(last_resort);
        refresh.created += refresh.count(self.upload(&made, now).await?);
        Ok(())
    }

    /// Withdraws the packages of last resort that were used or are too old, at the server and here. Those of another
    /// copy that may be running are left alone.
    async fn withdraw_last_resort(&self, now: Timestamp) -> Result<(), ExchangeError> {
        let (mut worn, theirs) =
            (self.pool().worn_last_resort(now)?, self.last_resorts_of_running_copy(now)?);
        worn.at_server.retain(|package| !theirs.contains(package));
        if !worn.at_server.is_empty() {
            self.withdraw_from_server(worn.at_server).await?;
        }
        Ok(self.pool().withdraw_last_resort(&worn.own, now)?)
    }

    /// Withdraws packages from the server, which hands them out no more. Nothing is recorded here: the
    /// refresh does that for packages it withdraws, and [`KeyPackagePool::repair`](crate::KeyPackagePool::repair)
    /// for those it finds.
    ///
    /// # Errors
    ///
    /// Returns an [`ExchangeError`]. Repeating it is harmless.
    pub async fn withdraw_from_server(
        &self,
        packages: Vec<KeyPackageRef>,
    ) -> Result<(), ExchangeError> {
        let request = RevokeRequest {
            keypackage_refs: Some(packages),
            reason: RevokeWord::Withdrawn,
            ..RevokeRequest::default()
        };
        self.revoke(&request).await.map(drop)
    }

    /// Records the end of a refresh. Returns the differences that were mended, and how many packages of last
    /// resort were used, for the app.
    fn note_refreshed(
        &self,
        seen: Option<SeenLedger>,
        now: Timestamp,
    ) -> Result<(Drift, usize), StorageError> {
        let staged = self.store().stage()?;
        note_refreshed_at(&staged, now)?;
        note_present(&staged, now)?;
        seen.map_or(Ok(()), |seen| note_ledger(&staged, &seen))?;
        let told = (drift::take(&staged)?, tell_used(&staged)?);
        staged.commit()?;
        Ok(told)
    }

    /// Whether a listener keeps this device told: a refresh asks the server then only if there is a need to.
    #[must_use]
    pub fn is_subscribed(&self) -> bool {
        self.subscription().is_told(self.api().now())
    }

    /// Refreshes from the mirror alone, if the pool is well by it; `None` if it is not: then the
    /// server is to be asked.
    pub(in crate::mls) fn refresh_from_mirror(
        &self,
        now: Timestamp,
    ) -> Result<Option<Refresh>, StorageError> {
        let (told, held) = (self.store().server_pool(), self.pool().uploaded(now)?);
        let ours = self.packages_with_keys(&held)?;
        let agrees = digest(ours.iter().map(|(own, stage)| (own, *stage))) == told.digest();
        if !agrees || drift::is_noted(&self.store().stage()?)? {
            return Ok(None);
        }
        let Some(available) = self.pool().available_if_well(&told, now)? else {
            return Ok(None);
        };
        let expired = self.pool().expire(now)?.len();
        self.delete_old_keys(now)?;
        Ok(Some(Refresh { skipped: true, expired, available, ..Refresh::default() }))
    }
}
