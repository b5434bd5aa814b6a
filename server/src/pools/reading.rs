//! Reading the pools: the published states, the directory of devices, and the records beneath.

use std::sync::Arc;

use keypool_ledger::{
    EventEnvelope, EventLog, GroupId, Hash, KeyPackageRef, PoolId, ReadError, Record,
    ReservationId, SignatureKey, StreamId, Timestamp,
    log::{find_reservation, read_record},
};
use keypool_projections::{
    GroupState, Health, Level, MailboxState, Package, PoolState, Reservation,
    directory::DeviceChange,
};
use tokio::sync::watch as signal;

use super::{ExecuteError, PoolView, Pools, listeners::Presence, loader::history_of};

/// A part of the changes of a user's device list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceChanges {
    /// The head of the list.
    pub head: Hash,
    /// The position of the last change in the log.
    pub position: u64,
    /// The changes.
    pub changes: Vec<DeviceChange>,
    /// Whether there are more.
    pub more: bool,
}

impl<L: EventLog + 'static> Pools<L> {
    /// The cached state of a pool: live packages, open reservations, counts. Finished packages are evicted;
    /// see [`Pools::package`]. `None` if the pool has no history, or cannot be read: then the trace says so. It
    /// may wait for a disk; see [`Pools::load_pool`].
    #[must_use]
    pub fn pool(&self, pool: &PoolId) -> Option<Arc<PoolView>> {
        self.shared.view(pool).ok().flatten()
    }

    /// How full a pool is now; `None` if it has no history.
    #[must_use]
    pub fn health(&self, pool: &PoolId) -> Option<Health> {
        let view = self.pool(pool)?;
        Some(Health::of(&view.state, self.now(), &self.limits()))
    }

    /// A group, as the Commits that were accepted have left it.
    #[must_use]
    pub fn group(&self, group: &GroupId) -> GroupState {
        self.shared.group(group)
    }

    /// The record at a position of the log.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the log cannot be read.
    pub fn record(&self, position: u64) -> Result<Option<Record>, ReadError> {
        read_record(&self.shared.log, position)
    }

    /// The mailbox of a device.
    #[must_use]
    pub fn mailbox(&self, device: &PoolId) -> MailboxState {
        self.shared.mailbox(device)
    }

    /// Listens to a device: the receiver changes whenever its pool or its mailbox has changed.
    #[must_use]
    pub fn listen(&self, device: &PoolId) -> signal::Receiver<u64> {
        self.shared.listeners.listen(device)
    }

    /// Returns the presence of a device.
    #[must_use]
    pub(crate) fn presence(&self, device: &PoolId) -> Presence {
        self.shared.listeners.presence(device)
    }

    /// Notes that a device is called if it is away, and returns its presence before.
    pub(crate) fn call(&self, device: &PoolId) -> Presence {
        self.shared.listeners.call(device)
    }

    /// Notes that a device has acknowledged, or was removed: it may be called again.
    pub(crate) fn uncall(&self, device: &PoolId) {
        self.shared.listeners.uncall(device);
    }

    /// Notes that every device may be called again.
    pub(crate) fn uncall_all(&self) {
        self.shared.listeners.uncall_all();
    }

    /// The fill level of a registered device's pool after its last change; `None` for any other device.
    #[must_use]
    pub(crate) fn level(&self, device: &PoolId) -> Option<Level> {
        let summary = self.shared.views().directory.brief(device);
        summary.key.map(|_| summary.level)
    }

    /// The position of the last record that the published states include.
    #[must_use]
    pub(crate) fn published(&self) -> u64 {
        self.shared.published().seq
    }

    /// The head of a user's device list, which statements name.
    #[must_use]
    pub fn device_list_head(&self, user: &str) -> Hash {
        self.shared.views().directory.head_of(user)
    }

    /// The changes of a user's device list after a position of the log, the first `limit` of them in the order
    /// of the log, and the position of the last change of all; `None` for a user who never had a device.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the log cannot be read.
    pub fn device_changes(
        &self,
        user: &str,
        after: u64,
        limit: usize,
    ) -> Result<Option<DeviceChanges>, ReadError> {
        let (head, devices) = {
            let directory = &self.shared.views().directory;
            (directory.head_of(user), directory.key_changes_of(user))
        };
        let (mut changes, mut position) = (Vec::new(), None);
        for (device, identity) in devices {
            let change = |version: &u64| self.device_change(&device, *version);
            let Some(last) = identity.versions.last().map(change).transpose()?.flatten() else {
                continue;
            };
            position = position.max(Some(last.position));
            if last.position <= after {
                continue;
            }
            // Positions ascend with versions: the first new one is found by halves.
            let (mut first, mut end) = (0, if after == 0 { 0 } else { identity.versions.len() });
            while first < end {
                let middle = usize::midpoint(first, end);
                let found = identity.versions.get(middle).map(change).transpose()?.flatten();
                if found.is_some_and(|found| found.position <= after) {
                    first = middle + 1;
                } else {
                    end = middle;
                }
            }
            for version in identity.versions.iter().skip(first).take(limit.saturating_add(1)) {
                changes.extend(change(version)?);
            }
        }
        changes.sort_unstable_by_key(|change| change.position);
        let more = limit < changes.len();
        changes.truncate(limit);
        Ok(position.map(|position| DeviceChanges { head, position, changes, more }))
    }

    /// The change of a device with a version of its history.
    fn device_change(
        &self,
        device: &PoolId,
        version: u64,
    ) -> Result<Option<DeviceChange>, ReadError> {
        let record = self.history(device, version.saturating_sub(1), 1)?.into_iter().next();
        Ok(record.map(|record| {
            let EventEnvelope { at, event, .. } = record.envelope;
            DeviceChange { device: device.clone(), position: record.seq, at, event }
        }))
    }

    /// The recovery key of a user, and the device in whose history it stands.
    #[must_use]
    pub fn recovery_key_of(&self, user: &str) -> Option<(PoolId, SignatureKey)> {
        self.shared.views().directory.recovery_key_of(user)
    }

    /// The user whose recovery key a key is.
    #[must_use]
    pub fn user_of_recovery_key(&self, key: &SignatureKey) -> Option<String> {
        self.shared.views().directory.user_of_recovery_key(key).map(str::to_owned)
    }

    /// Whether a key was removed or rotated away: then it is nobody's ever after.
    #[must_use]
    pub fn is_retired(&self, key: &SignatureKey) -> bool {
        self.shared.views().directory.is_retired(key)
    }

    /// Changes whenever something was written: the position of the last record.
    #[must_use]
    pub fn written(&self) -> signal::Receiver<u64> {
        self.shared.written.subscribe()
    }

    /// The machine's time, trusted or not: for incoming packages, never for stored ones.
    #[must_use]
    pub fn wall_clock(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// The pool that a key speaks for.
    #[must_use]
    pub fn pool_of_key(&self, key: &SignatureKey) -> Option<PoolId> {
        self.shared.views().directory.pool_of_key(key).cloned()
    }

    /// The key that is registered for a pool; `None` if there is none.
    #[must_use]
    pub fn registered_key(&self, pool: &PoolId) -> Option<SignatureKey> {
        self.shared.views().directory.brief(pool).key
    }

    /// The user's devices that a key speaks for, by device; empty for a user who is not known.
    #[must_use]
    pub fn registered_devices(&self, user: &str) -> Vec<PoolId> {
        self.shared.views().directory.registered_of(user)
    }

    /// The pools of a user's devices, by device; empty for a user who is not known.
    #[must_use]
    pub fn devices_of(&self, user: &str) -> Vec<PoolId> {
        self.shared.views().directory.devices_of(user).cloned().collect()
    }

    /// All pools that have a history, by name.
    #[must_use]
    pub fn pools(&self) -> Vec<PoolId> {
        self.shared.views().directory.pools().cloned().collect()
    }

    /// The pools of registered devices, each with its level as its last change has left it: the emptiest level
    /// first, and by name within it.
    #[must_use]
    pub fn pools_by_level(&self) -> Vec<(Level, PoolId)> {
        self.shared.views().directory.by_level()
    }

    /// How many pools there are of each level, each as its last change has left it.
    #[must_use]
    pub fn levels(&self) -> [(Level, u64); 4] {
        self.shared.views().directory.levels()
    }

    /// The history of a pool after a version, at most `limit` records of it.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the log cannot be read.
    pub fn history(
        &self,
        pool: &PoolId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Record>, ReadError> {
        self.shared.log.read_stream(&StreamId::Pool(pool.clone()), after, limit)
    }

    /// A package wherever it is: its pool, where it stands, and its exact bytes.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the log cannot be read.
    pub fn package(
        &self,
        keypackage_ref: &KeyPackageRef,
    ) -> Result<Option<(PoolId, Package, Vec<u8>)>, ReadError> {
        let records = history_of(&self.shared.log, keypackage_ref)?;
        let Some(first) = records.first() else { return Ok(None) };
        let Some(pool) = first.envelope.stream.pool().cloned() else { return Ok(None) };
        let view = self.pool(&pool);
        let live = view.and_then(|view| view.state.get(keypackage_ref).cloned());
        let package = live.or_else(|| PoolState::life_of(keypackage_ref, &records));
        let payload = records.into_iter().next().map(|first| first.payload);
        Ok(package.zip(payload).map(|(package, payload)| (pool, package, payload)))
    }

    /// A reservation and its package as the log has left them, and up to which record that is; `None` if
    /// there never was one.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the log cannot be read.
    pub fn reservation(
        &self,
        id: ReservationId,
    ) -> Result<Option<(Package, Reservation, u64)>, ReadError> {
        let Some(made) = find_reservation(&self.shared.log, id, 0)? else { return Ok(None) };
        let Some(keypackage_ref) = made.envelope.event.keypackage_ref() else { return Ok(None) };
        // The pool is read before its records, so that these include its latest state.
        let pool = made.envelope.stream.pool().and_then(|pool| self.pool(pool));
        let records = history_of(&self.shared.log, keypackage_ref)?;
        let read = records.last().map(|last| last.seq);
        let as_of = pool.map(|pool| pool.position).max(read).unwrap_or(made.seq);
        let life = PoolState::of_package(&records).ok();
        Ok(life.and_then(|life| {
            let package = life.get(keypackage_ref)?.clone();
            Some((package, life.reservation(id)?.clone(), as_of))
        }))
    }

    /// The exact bytes of a package that was uploaded; `None` for one that never was. It may wait for a disk.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the log cannot be read.
    pub fn package_bytes(
        &self,
        keypackage_ref: &KeyPackageRef,
    ) -> Result<Option<Vec<u8>>, ReadError> {
        let uploaded = self.shared.uploaded(keypackage_ref)?;
        Ok(uploaded.map(|package| package.bytes.to_vec()))
    }

    /// The pool of a package that was uploaded or asked for lately, from memory; `None` for any other package.
    #[must_use]
    pub(crate) fn cached_owner(&self, keypackage_ref: &KeyPackageRef) -> Option<PoolId> {
        self.shared.packages.get(keypackage_ref).map(|package| package.pool)
    }

    /// Like [`Pools::package_bytes`], for async callers.
    ///
    /// # Errors
    ///
    /// Returns an [`ExecuteError`] if the log cannot be read, or too many reads wait.
    pub async fn load_package_bytes(
        &self,
        keypackage_ref: &KeyPackageRef,
    ) -> Result<Option<Vec<u8>>, ExecuteError> {
        if let Some(cached) = self.shared.packages.get(keypackage_ref) {
            return Ok(Some(cached.bytes.to_vec()));
        }
        let (shared, keypackage_ref) = (Arc::clone(&self.shared), keypackage_ref.clone());
        let read = move || shared.uploaded(&keypackage_ref);
        Ok(self.reads.run(read).await??.map(|package| package.bytes.to_vec()))
    }

    /// Like [`Pools::pool`], for async callers.
    pub async fn load_pool(&self, pool: &PoolId) -> Option<Arc<PoolView>> {
        if let Some(view) = self.shared.at_hand(pool) {
            return Some(view);
        }
        if !self.shared.has_history(pool) {
            return None;
        }
        let (shared, pool) = (Arc::clone(&self.shared), pool.clone());
        self.reads.run(move || shared.view(&pool)).await.ok()?.ok().flatten()
    }

    /// Reads the pools and their log on a thread that may wait for the disk.
    ///
    /// # Errors
    ///
    /// Returns an [`ExecuteError`] if too many reads wait, or the pools are closed.
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, ExecuteError> {
        let pools = Arc::clone(self);
        self.reads.run(move || read(&pools)).await
    }
}
