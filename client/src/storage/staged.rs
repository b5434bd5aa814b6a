//! `Staged`: an operation that has not happened yet.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fmt,
    sync::{Arc, MutexGuard},
};

use keypool_ledger::{CommandId, Event, EventEnvelope, KeyPackageRef, StreamHead, Timestamp};
use keypool_projections::PoolState;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    LocalStore, Provider, StoreState, chain, encoding, keys,
    own_packages::{OwnPackage, OwnPackages},
    sealing::{self, Plain},
};
use crate::{SignatureKeystore, StorageError};

/// How many histories are kept that a server has told before it was set back.
const PAST_MAX: u32 = 4;

/// An operation on the store: its reads see its own writes, and its writes wait in memory.
///
/// [`Staged::commit`] makes all of them durable at once. Dropping it forgets them.
pub struct Staged<'s> {
    pub(super) store: &'s LocalStore,
    state: MutexGuard<'s, StoreState>,
    draft: RefCell<StagedChanges>,
}

/// The changes of the operation.
struct StagedChanges {
    values: sealing::ValueChanges,
    history: StreamHead,
    mirror: StreamHead,
    /// The server's pool as the mirrored events leave it.
    server_pool: PoolState,
    /// The packages as the recorded events leave them; none while nothing is recorded.
    packages: Option<OwnPackages>,
}

impl<'s> Staged<'s> {
    pub(super) fn new(store: &'s LocalStore, state: MutexGuard<'s, StoreState>) -> Self {
        let draft = RefCell::new(StagedChanges {
            values: sealing::ValueChanges::new(),
            history: state.history,
            mirror: state.mirror,
            server_pool: state.server_pool.clone(),
            packages: None,
        });
        Self { store, state, draft }
    }

    /// The provider for `OpenMLS` in an operation that is part of this one.
    #[must_use]
    pub fn provider(&self) -> Provider<'_, 's> {
        Provider::new(self, &self.store.crypto)
    }

    /// The keystore of the store, if it has one.
    pub(crate) fn keystore(&self) -> Option<&Arc<dyn SignatureKeystore>> {
        self.store.keystore.as_ref()
    }

    /// Adds an event to the device's own history. It is recorded at `at`, or at the last event's
    /// time if that is later.
    ///
    /// # Errors
    ///
    /// Returns [`StorageError::Impossible`], and has staged nothing, if the event contradicts the
    /// package's history.
    pub fn record(
        &self,
        event: Event,
        at: Timestamp,
        command: CommandId,
    ) -> Result<(), StorageError> {
        let mut draft = self.draft.borrow_mut();
        let draft = &mut *draft;
        draft.packages.get_or_insert_with(|| self.state.packages.clone()).evolve(&event)?;
        let (bytes, head) = chain::extend(&draft.history, &self.store.owner, event, at, command)?;
        draft.values.insert(keys::event(keys::HISTORY, head.version), Some(bytes.into()));
        draft.values.insert(keys::HISTORY_END.to_vec(), Some(chain::end_of(&head).into()));
        draft.history = head;
        Ok(())
    }

    /// Adds records of the server's history, verbatim, to the mirror. They must continue it: each
    /// is the next version, chained to the one before, and a change that the life of its package
    /// allows. Records it has already are passed over.
    ///
    /// Returns the events that are new.
    ///
    /// # Errors
    ///
    /// Returns [`StorageError::MirrorRefused`] at the first record that does not fit; drop the
    /// operation then.
    pub fn extend_mirror(&self, records: &[Vec<u8>]) -> Result<Vec<EventEnvelope>, StorageError> {
        let mut added = Vec::new();
        for bytes in records {
            added.extend(self.mirror_one(bytes)?);
        }
        Ok(added)
    }

    fn mirror_one(&self, bytes: &[u8]) -> Result<Option<EventEnvelope>, StorageError> {
        let head = self.draft.borrow().mirror;
        let refused = |version, why| StorageError::MirrorRefused { version, why };
        let next = head.version.saturating_add(1);
        if let Ok((known, told)) = chain::read(bytes)
            && known.version <= head.version
        {
            let ours = self.get(&keys::event(keys::MIRROR, known.version))?;
            let is_told = |ours: &[u8]| chain::read(ours).is_ok_and(|(_, ours)| ours == told);
            let same = ours.is_some_and(|ours| is_told(ours.as_slice()));
            let why = "it is not what the server told before".to_owned();
            return if same { Ok(None) } else { Err(refused(known.version, why)) };
        }
        let (envelope, head) =
            chain::follow(&head, &self.store.owner, bytes).map_err(|why| refused(next, why))?;
        let mut draft = self.draft.borrow_mut();
        draft
            .server_pool
            .evolve(&envelope.event, envelope.at)
            .map_err(|err| refused(next, err.to_string()))?;
        draft.values.insert(keys::event(keys::MIRROR, head.version), Some(bytes.to_vec().into()));
        draft.mirror = head;
        Ok(Some(envelope))
    }

    /// Starts the mirror from the first event again. Its content is kept beside it, of four histories at most:
    /// the first
    /// ones that the server has told.
    pub(crate) fn set_mirror_aside(&self) -> Result<(), StorageError> {
        let kept = self.store.vault.events(keys::PAST)?;
        let last = kept.iter().filter_map(|(key, _)| keys::past_number(key)).max();
        let number = last.map_or(0, |last| last.saturating_add(1));
        let told = self.store.vault.events(keys::MIRROR)?;
        let mut draft = self.draft.borrow_mut();
        for ((key, bytes), version) in told.into_iter().zip(1..) {
            if number < PAST_MAX {
                draft.values.insert(keys::past(number, version), Some(bytes.into()));
            }
            draft.values.insert(key, None);
        }
        draft.mirror = StreamHead::default();
        draft.server_pool = PoolState::default();
        Ok(())
    }

    /// The end of the mirror, as this operation leaves it.
    pub(crate) fn mirror_head(&self) -> StreamHead {
        self.draft.borrow().mirror
    }

    /// The version of the device's own history, as this operation leaves it.
    pub(crate) fn history_version(&self) -> u64 {
        self.draft.borrow().history.version
    }

    /// One of the device's own packages, as this operation leaves it.
    #[must_use]
    pub fn package(&self, keypackage_ref: &KeyPackageRef) -> Option<OwnPackage> {
        let draft = self.draft.borrow();
        draft.packages.as_ref().unwrap_or(&self.state.packages).get(keypackage_ref).cloned()
    }

    /// The device's own packages that pass a test, as this operation leaves them.
    #[must_use]
    pub fn packages_where(&self, test: impl Fn(&OwnPackage) -> bool) -> Vec<OwnPackage> {
        let draft = self.draft.borrow();
        let packages = draft.packages.as_ref().unwrap_or(&self.state.packages);
        packages.iter().filter(|own| test(own)).cloned().collect()
    }

    /// Whether the server may still hand one of the packages out, by its history as it is mirrored.
    pub(crate) fn server_pool_has_live(&self, keypackage_ref: &KeyPackageRef) -> bool {
        let draft = self.draft.borrow();
        draft.server_pool.live().any(|package| package.facts.keypackage_ref == *keypackage_ref)
    }

    /// The packages of last resort that the server may hand out, by its history as it is mirrored.
    pub(crate) fn last_resort_at_server(&self) -> Vec<KeyPackageRef> {
        let draft = self.draft.borrow();
        let live = draft.server_pool.live().filter(|package| package.facts.last_resort);
        live.map(|package| package.facts.keypackage_ref.clone()).collect()
    }

    /// A record of the application's side.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if it cannot be read or is of another type.
    pub fn app_record<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StorageError> {
        match self.get(&keys::app(name))? {
            Some(bytes) => encoding::decode(name, &bytes).map(Some),
            None => Ok(None),
        }
    }

    /// Writes a record of the application's side.
    ///
    /// # Errors
    ///
    /// Returns [`StorageError::Value`] if it cannot be encoded.
    pub fn put_app_record(&self, name: &str, value: &impl Serialize) -> Result<(), StorageError> {
        self.put(keys::app(name), encoding::encode(name, value)?);
        Ok(())
    }

    /// Removes a record of the application's side.
    pub fn remove_app_record(&self, name: &str) {
        self.remove(keys::app(name));
    }

    /// The names of the records whose names begin with `prefix`, in order.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the database cannot be read.
    pub fn app_record_names(&self, prefix: &str) -> Result<Vec<String>, StorageError> {
        let prefix = keys::app(prefix);
        Ok(self.names(&prefix).iter().filter_map(|name| keys::app_name(name)).collect())
    }

    /// The names of the sealed values that begin with `prefix`, as this operation leaves them.
    pub(super) fn names(&self, prefix: &[u8]) -> Vec<Vec<u8>> {
        let mut names: BTreeSet<Vec<u8>> = self.store.vault.names(prefix).into_iter().collect();
        for (name, value) in &self.draft.borrow().values {
            match value {
                Some(_) if name.starts_with(prefix) => names.insert(name.clone()),
                Some(_) => continue,
                None => names.remove(name),
            };
        }
        names.into_iter().collect()
    }

    /// Makes everything durable as one atomic write: all of it survives a crash, or none.
    ///
    /// # Errors
    ///
    /// Returns [`StorageError::Unknown`] if the disk did not say whether it was written. The store
    /// then takes no more writes until it is opened again.
    pub fn commit(self) -> Result<(), StorageError> {
        let Self { store, mut state, draft } = self;
        let draft = draft.into_inner();
        if draft.values.is_empty() {
            return Ok(());
        }
        state.stopped = true;
        store.vault.write(draft.values).map_err(StorageError::Unknown)?;
        state.history = draft.history;
        state.mirror = draft.mirror;
        state.server_pool = draft.server_pool;
        if let Some(packages) = draft.packages {
            state.packages = packages;
        }
        state.stopped = false;
        Ok(())
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Plain>, StorageError> {
        if let Some(value) = self.draft.borrow().values.get(key) {
            return Ok(value.clone());
        }
        self.store.vault.get(key)
    }

    /// Whether a sealed value is there, whether or not it can be opened.
    pub(super) fn has(&self, key: &[u8]) -> bool {
        match self.draft.borrow().values.get(key) {
            Some(value) => value.is_some(),
            None => self.store.vault.has(key),
        }
    }

    pub(super) fn put(&self, key: Vec<u8>, value: Plain) {
        self.draft.borrow_mut().values.insert(key, Some(value));
    }

    pub(super) fn remove(&self, key: Vec<u8>) {
        self.draft.borrow_mut().values.insert(key, None);
    }
}

impl fmt::Debug for Staged<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staged").finish_non_exhaustive()
    }
}
