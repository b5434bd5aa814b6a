//! The device's pool and the server's view of it, brought together; and the way out for Commits.

use std::sync::Arc;

use keypool_api::{
    Base64, Code, Outcome, PoolCounts, PoolStatus, RevokeRequest, RevokeWord, UploadItem,
    UploadRequest,
};
use keypool_ledger::{Event, EventEnvelope, KeyPackageRef, PoolId, RevokeReason, Timestamp};
use serde::Serialize;

use super::{
    auditing::{SeenLedger, excuse_awaited, note_fetched, note_ledger, note_present, note_spent},
    drift::{self, Drift},
    hearing::{Course, Hearing},
    identity::{note_declared, undeclared_leaf_keys},
    keypackage_pool::{
        CreatedPackage, KeyPackagePool, ServerStatus, note_used, record_revoked,
        record_server_status, record_uploaded, tell_used,
    },
    statements::{Grounds, with_grounds},
};
use crate::{
    ApiClient, ApiError, CommitPost, DeliveryError, DeliveryService, DeviceIdentity, LocalStore,
    RefreshError, Staged, StorageError, storage::fresh_command,
};

/// How long after a refresh another one asks nothing, in milliseconds.
const COOLDOWN_MS: u64 = 60_000;
/// The name of the record that says when the pool was last refreshed.
const REFRESHED_RECORD: &str = "refreshed";
/// How many events are fetched at a time.
const PAGE: u64 = 500;
/// How many packages are uploaded at a time.
const BATCH_MAX: usize = 64;
/// The server's word for the check that a package is signed with a key of the device.
const SIGNATURE_KEY_CHECK: &str = "signature_key";
/// The server's word for the check that a package may be used now.
const LIFETIME_CHECK: &str = "lifetime";

/// What a refresh has found and done.
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
    /// How many can be handed out now; if nothing was asked, by what the server has said before.
    pub available: u64,
    /// What had drifted apart between the device and the server, and is mended. Tell your user, if there
    /// is something.
    pub drift: Drift,
}

/// The link between the device's pool, the server, and the app's Delivery Service.
#[derive(Debug)]
pub struct MlsConnection<D> {
    store: Arc<LocalStore>,
    pool: KeyPackagePool,
    api: ApiClient,
    delivery: D,
    /// Held while the pool is refreshed: what one refresh has found is not to be changed by another.
    refreshing: tokio::sync::Mutex<()>,
    /// What listeners have told.
    hearing: Hearing,
    /// Signaled when something is noted for the app that did not come by the mailbox.
    notices: tokio::sync::Notify,
}

impl<D> MlsConnection<D> {
    /// Puts the parts together.
    #[must_use]
    pub fn new(store: Arc<LocalStore>, pool: KeyPackagePool, api: ApiClient, delivery: D) -> Self {
        let (refreshing, hearing) = (tokio::sync::Mutex::default(), Hearing::default());
        let notices = tokio::sync::Notify::new();
        Self { store, pool, api, delivery, refreshing, hearing, notices }
    }

    pub(crate) const fn notices(&self) -> &tokio::sync::Notify {
        &self.notices
    }

    pub(super) const fn hearing(&self) -> &Hearing {
        &self.hearing
    }

    pub(super) fn store(&self) -> &LocalStore {
        &self.store
    }

    pub(super) fn identity(&self) -> &DeviceIdentity {
        self.pool.identity()
    }

    /// The server's API.
    #[must_use]
    pub fn api(&self) -> &ApiClient {
        &self.api
    }

    /// The app's Delivery Service.
    #[must_use]
    pub fn delivery(&self) -> &D {
        &self.delivery
    }

    /// The device's own packages.
    #[must_use]
    pub fn pool(&self) -> &KeyPackagePool {
        &self.pool
    }

    /// Keeps the pool: takes in the server's history, cleans up what has expired, and refills the
    /// pool to its target if it is low; at last it holds the server to its checkpoints, as
    /// [`MlsConnection::watch_ledger`]. This is all the upkeep there is.
    ///
    /// Call it when the app starts, after each Welcome, and now and then. Within a minute of the last
    /// one it asks nothing, unless a package of last resort was used or a rotation is unfinished, or a
    /// [`PoolListener`](crate::PoolListener) was told that the pool is low or empty. While a listener tells
    /// what happens, it goes by that and asks nothing as long as the pool is well, for five minutes at most.
    /// Repeating it changes nothing: a crash or a lost answer anywhere in it is made good by the next.
    ///
    /// # Errors
    ///
    /// Returns a [`RefreshError`]; what was done before it is kept.
    pub async fn refresh_key_packages(&self, now: Timestamp) -> Result<Refresh, RefreshError> {
        if self.is_rotating()? || self.pool.is_last_resort_used()? {
            return self.refresh_now(now).await;
        }
        match self.hearing.course(!self.is_fresh(now)?, now) {
            Course::Rest => {
                let available = self.pool.get_available_count(now)? as u64;
                return Ok(Refresh { skipped: true, available, ..Refresh::default() });
            }
            Course::Told => {
                let _alone = self.refreshing.lock().await;
                if let Some(refresh) = self.keep_by_ear(now)? {
                    return Ok(refresh);
                }
            }
            Course::Ask => {}
        }
        self.refresh_now(now).await
    }

    /// As [`MlsConnection::refresh_key_packages`], however short ago the last one was.
    ///
    /// # Errors
    ///
    /// As [`MlsConnection::refresh_key_packages`].
    pub async fn refresh_now(&self, now: Timestamp) -> Result<Refresh, RefreshError> {
        let _alone = self.refreshing.lock().await;
        let round = self.hearing.begin_round();
        self.resume_rotation(now).await?;
        let (known, held) = (self.store.mirror_head(), self.pool.uploaded(now)?);
        let status = self.api.status().await?;
        let events = self.catch_up(&status, known, now).await?;
        let mut refresh = Refresh { events, ..Refresh::default() };
        refresh.expired = self.pool.expire(now)?.len();
        self.forget_old_keys(now)?;
        self.mend(&status, &held, now).await?;
        self.withdraw_last_resort(now).await?;
        self.refill(&mut refresh, now).await?;
        let seen = self.look_at_ledger(now).await?;
        if seen.as_ref().is_some_and(SeenLedger::contradicts) && !self.knows_of_set_back()? {
            // The pool's own history did not show it: what is lost of it was not seen here.
            self.withdraw_everything(now).await?;
            self.refill(&mut refresh, now).await?;
        }
        refresh.available = self.pool.get_available_count(now)? as u64;
        (refresh.drift, refresh.last_resort_used) = self.note_refreshed(seen, now)?;
        self.hearing.end_round(round, now);
        Ok(refresh)
    }

    /// Fills the pool to its target if it is low, first with what is made already; and sees to it that there
    /// is a package of last resort.
    async fn refill(&self, refresh: &mut Refresh, now: Timestamp) -> Result<(), RefreshError> {
        let last_resort = self.pool.last_resort_to_upload(now)?;
        let needed = self.pool.replenishments(now)?;
        if needed.iter().all(|(_, needed)| needed.is_empty()) && last_resort.is_empty() {
            return Ok(());
        }
        let again = self.pool.again_by_suite(&needed, now)?;
        refresh.reuploaded += self.upload(&again, now, refresh).await?;
        let mut made = self.pool.generate_by_suite(&needed, now)?;
        made.extend(last_resort);
        refresh.created += self.upload(&made, now, refresh).await?;
        Ok(())
    }

    /// Withdraws the packages of last resort that were used or are too old, at the server and here.
    async fn withdraw_last_resort(&self, now: Timestamp) -> Result<(), RefreshError> {
        let worn = self.pool.worn_last_resort(now)?;
        if !worn.at_server.is_empty() {
            let request = RevokeRequest {
                keypackage_refs: Some(worn.at_server),
                reason: RevokeWord::Withdrawn,
                ..RevokeRequest::default()
            };
            self.api.revoke(&request, fresh_command()).await?;
        }
        Ok(self.pool.withdraw_last_resort(&worn.own, now)?)
    }

    /// Notes that a refresh is at its end. Returns what had drifted apart, and how many packages of last
    /// resort were used: what the app is to be told of.
    fn note_refreshed(
        &self,
        seen: Option<SeenLedger>,
        now: Timestamp,
    ) -> Result<(Drift, usize), StorageError> {
        let staged = self.store.stage()?;
        staged.put_app_record(REFRESHED_RECORD, &now)?;
        note_present(&staged, self.api.server_time(now))?;
        seen.map_or(Ok(()), |seen| note_ledger(&staged, &seen))?;
        let told = (drift::told(&staged)?, tell_used(&staged)?);
        staged.commit()?;
        Ok(told)
    }

    /// How full the pool is, as the server says.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`].
    pub async fn status(&self) -> Result<PoolStatus, ApiError> {
        self.api.status().await
    }

    fn is_fresh(&self, now: Timestamp) -> Result<bool, StorageError> {
        let last: Option<Timestamp> = self.store.stage()?.app_record(REFRESHED_RECORD)?;
        // A time in the future is a clock that was set back: refresh.
        Ok(last.is_some_and(|last| last <= now && now.as_millis() - last.as_millis() < COOLDOWN_MS))
    }

    /// Fetches what is new of the server's history, verifies that it continues what is known, and
    /// takes in what it says of packages whose upload was not answered, or that were withdrawn.
    ///
    /// The last known event is fetched once more, so that a server that was set back to an older log
    /// is noticed. Returns how many events were new.
    ///
    /// # Errors
    ///
    /// Returns a [`RefreshError`]; it holds [`StorageError::MirrorRefused`] if the server tells
    /// another history than before, or less of it, or one that no pool can have.
    pub async fn fetch_history(&self, now: Timestamp) -> Result<usize, RefreshError> {
        self.take_history(None, now).await
    }

    /// As [`MlsConnection::fetch_history`]; what the server has said of the pool beside it is kept with
    /// the end of it, in the same write.
    pub(super) async fn take_history(
        &self,
        told: Option<ServerStatus>,
        now: Timestamp,
    ) -> Result<usize, RefreshError> {
        let (mut count, own) = (0, self.store.history_head().version);
        loop {
            let known = self.store.mirror_head().version;
            let reply = self.api.events(known.saturating_sub(1), PAGE).await?;
            if 0 < known && reply.events.is_empty() {
                return Err(self.note_refusal(shorter(known), None, now)?.into());
            }
            let records: Vec<Vec<u8>> =
                reply.events.into_iter().map(|view| view.envelope.0).collect();
            let staged = self.store.stage()?;
            let new = match staged.extend_mirror(&records) {
                Ok(new) => new,
                Err(error) => {
                    drop(staged);
                    return Err(self.note_refusal(error, Some(&records), now)?.into());
                }
            };
            for envelope in &new {
                take_in(&staged, envelope, now)?;
            }
            note_spent(&staged, &new, self.api.server_time(now))?;
            let is_end = !reply.more || new.is_empty();
            if is_end {
                note_fetched(&staged, own, known.saturating_add(new.len() as u64))?;
                if drift::is_older_home(&staged)? {
                    excuse_awaited(&staged)?;
                }
                told.as_ref().map_or(Ok(()), |told| record_server_status(&staged, told))?;
            }
            staged.commit()?;
            count += new.len();
            if is_end {
                return Ok(count);
            }
        }
    }

    /// Tells the server of the keys of other signature schemes that it has not heard of: packages that these
    /// have signed are refused otherwise.
    async fn declare_leaf_keys(&self) -> Result<(), RefreshError> {
        let keys = self.identity().keys();
        let undeclared = undeclared_leaf_keys(&self.store.stage()?, keys.signature_key())?;
        if undeclared.is_empty() {
            return Ok(());
        }
        for leaf_key in undeclared {
            with_grounds(|| async {
                let grounds = Grounds::fetch(&self.api).await?;
                let request = grounds.leaf_key(self.store.owner(), &keys, leaf_key.clone())?;
                self.api.declare_leaf_key(&request, fresh_command()).await
            })
            .await?;
        }
        let staged = self.store.stage()?;
        note_declared(&staged, keys.signature_key(), true)?;
        Ok(staged.commit()?)
    }

    /// Uploads packages, and records of each what the server says. Returns how many single-use ones of them
    /// it has now; those of last resort are counted in `refresh`.
    async fn upload(
        &self,
        packages: &[CreatedPackage],
        now: Timestamp,
        refresh: &mut Refresh,
    ) -> Result<usize, RefreshError> {
        self.declare_leaf_keys().await?;
        let mut uploaded = 0;
        for batch in packages.chunks(BATCH_MAX) {
            let keypackages = batch.iter().map(|package| Base64(package.bytes.clone())).collect();
            let command = fresh_command();
            let (items, said) = match self.api.upload(&UploadRequest { keypackages }, command).await
            {
                Ok(reply) => (reply.items, Some(said(&reply.pool, reply.position))),
                // None was taken: the problem says of each why.
                Err(ApiError::Refused(problem)) if !problem.items.is_empty() => {
                    (problem.items, None)
                }
                Err(error) => return Err(error.into()),
            };
            let (there, refused) = sorted(batch, &items, &mut refresh.rejected);
            let staged = self.store.stage()?;
            record_uploaded(&staged, &there, now, command)?;
            record_revoked(&staged, &refused, RevokeReason::Withdrawn, (now, command))?;
            if items.iter().any(|item| item.check.as_deref() == Some(SIGNATURE_KEY_CHECK)) {
                // The server was set back, perhaps, and has lost what was declared.
                note_declared(&staged, &self.identity().signature_key(), false)?;
            }
            said.as_ref().map_or(Ok(()), |said| record_server_status(&staged, said))?;
            staged.commit()?;
            let last_resort = batch.iter().filter(|package| package.facts.last_resort);
            let last_resort =
                last_resort.filter(|package| there.contains(package.keypackage_ref())).count();
            refresh.last_resort_uploaded += last_resort;
            uploaded += there.len() - last_resort;
        }
        Ok(uploaded)
    }
}

/// Ends the freshness of the last refresh, as part of an operation: the next one asks the server.
pub(super) fn forget_refreshed(staged: &Staged<'_>) {
    staged.remove_app_record(REFRESHED_RECORD);
}

/// Takes in what an event of the server says of an own package, as part of the operation that mirrors
/// it.
pub(super) fn take_in(
    staged: &Staged<'_>,
    envelope: &EventEnvelope,
    now: Timestamp,
) -> Result<(), RefreshError> {
    let Some(keypackage_ref) = envelope.event.keypackage_ref() else { return Ok(()) };
    if staged.package(keypackage_ref).is_none() {
        // Uploaded by this device before it was restored from a backup: its keys are not here.
        let is_made_later = matches!(envelope.event, Event::Uploaded(_));
        return if is_made_later { Ok(drift::note_older_home(staged)?) } else { Ok(()) };
    }
    let refs = std::slice::from_ref(keypackage_ref);
    match &envelope.event {
        Event::Uploaded(_) => drop(record_uploaded(staged, refs, now, envelope.command)?),
        Event::Spent { .. } => note_used(staged, keypackage_ref, now)?,
        Event::Revoked { reason, .. } => {
            record_revoked(staged, refs, *reason, (now, envelope.command))?;
        }
        _ => {}
    }
    Ok(())
}

/// The refusal of a history that ends before what it has told already.
pub(super) fn shorter(known: u64) -> StorageError {
    let why = "it is not there any more, the server's history is shorter than before".to_owned();
    StorageError::MirrorRefused { version: known, why }
}

/// Sorts uploaded packages into those the server has and those it will never take. One for which it
/// has no room now is neither, nor is one whose lifetime it does not like, which may be the fault of
/// a clock: they wait for the next refresh.
pub(super) fn sorted(
    batch: &[CreatedPackage],
    items: &[UploadItem],
    rejected: &mut Vec<String>,
) -> (Vec<KeyPackageRef>, Vec<KeyPackageRef>) {
    let (mut there, mut refused) = (Vec::new(), Vec::new());
    for (package, item) in batch.iter().zip(items) {
        let keypackage_ref = package.keypackage_ref().clone();
        match (item.outcome, item.code) {
            (Outcome::Rejected, Some(Code::PoolFull)) => {}
            (Outcome::Rejected, _) => {
                let check = item.check.as_deref().unwrap_or("unknown check");
                rejected.push(format!("{}: {check}", keypackage_ref.short()));
                if check != LIFETIME_CHECK {
                    refused.push(keypackage_ref);
                }
            }
            _ => there.push(keypackage_ref),
        }
    }
    (there, refused)
}

impl<D: DeliveryService> MlsConnection<D> {
    /// Posts a Commit through the app's Delivery Service. Returns the members that it does not reach.
    ///
    /// # Errors
    ///
    /// Returns a [`DeliveryError`].
    pub async fn post_commit(&self, post: &CommitPost) -> Result<Vec<PoolId>, DeliveryError> {
        self.delivery.post_commit(post).await
    }
}

/// What the server says of the pool, as the pool keeps it.
pub(super) fn said(counts: &PoolCounts, position: u64) -> ServerStatus {
    let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    let suites = counts.suites.iter().map(|suite| (suite.ciphersuite, count(suite.available)));
    // A server that does not count them apart says nothing of any, however many packages there are.
    let live = counts.available.saturating_add(counts.reserved).saturating_add(counts.last_resort);
    let suites = (!counts.suites.is_empty() || live == 0).then(|| suites.collect());
    let (available, reserved) = (count(counts.available), count(counts.reserved));
    ServerStatus { available, reserved, position, suites }
}
