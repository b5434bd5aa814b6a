//! A log that hides names: its records name users and devices by random ids, and the names stand in payloads
//! of their own, which can be removed.

mod binder;
mod users;

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use self::binder::{Binder, KnownUsers};
pub use self::{
    binder::NameHider,
    users::{NamedUser, Names},
};
use super::{
    AppendError, Appended, Batch, Conflict, EventLog, Key, LogHead, MemoryIndex, ReadError, Record,
    Snapshot, SnapshotStore, StreamHead,
};
use crate::{PoolId, StreamId, SubjectId, codec};

/// How many users are remembered; the names of the others are looked up in the log.
const REMEMBERED_MAX: usize = 65_536;
/// How many records are read at once to find out whether a log hides names.
const PAGE: usize = 256;

/// An [`EventLog`] that hides the names of users and devices in the log beneath it.
///
/// Callers use names as with any other log. Beneath, each record names a user by a [`SubjectId`] and a device by
/// a number; the names are recorded once, as payloads of `UserNamed` and `DeviceNamed`, in front of the first
/// record that needs them. After `UserErased` callers find the user's records under the pseudonym.
///
/// A log that was begun with names goes on as it was: its records are passed on as they are.
#[derive(Debug)]
pub struct NamedLog<L> {
    inner: L,
    hides: bool,
    remembered: RwLock<Remembered>,
}

/// The history of a device, of one kind.
type HistoryKind = fn(PoolId) -> StreamId;

/// Users that were looked up lately.
#[derive(Debug, Default)]
struct Remembered {
    by_id: HashMap<SubjectId, Arc<NamedUser>>,
    by_name: HashMap<Arc<str>, SubjectId>,
}

impl<L: EventLog> NamedLog<L> {
    /// Looks whether the records of the log have names or pseudonyms. A log that names nobody yet is begun with
    /// pseudonyms if `hides_new` says so.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the log cannot be read or holds a damaged record.
    pub fn open(inner: L, hides_new: bool) -> Result<Self, ReadError> {
        let hides = hides_names(&inner)?.unwrap_or(hides_new);
        Ok(Self { inner, hides, remembered: RwLock::default() })
    }

    /// The log beneath.
    pub const fn inner(&self) -> &L {
        &self.inner
    }

    /// Whether the records of the log name users and devices by pseudonyms.
    #[must_use]
    pub const fn hides(&self) -> bool {
        self.hides
    }

    /// Finds a user by the name, as long as the log has it.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the log cannot be read or holds a damaged record.
    pub fn user(&self, name: &str) -> Result<Option<Arc<NamedUser>>, ReadError> {
        self.by_name(name)
    }

    /// Puts names in the place of the pseudonyms in some records.
    fn reveal(&self, mut records: Vec<Record>) -> Result<Vec<Record>, ReadError> {
        if self.hides {
            for Record { envelope, payload, .. } in &mut records {
                self.forget_older(&envelope.stream, envelope.version);
                let device = |id, number| {
                    let user = self.as_of(id, number)?;
                    Ok(user.and_then(|user| user.device(number).cloned()))
                };
                let user = |id| {
                    let user = self.as_of(id, 1)?;
                    Ok(user.and_then(|user| user.name().map(str::to_owned)))
                };
                users::reveal(envelope, payload, device, user)?;
            }
        }
        Ok(records)
    }

    fn reveal_answer(
        &self,
        answer: Result<Appended, AppendError>,
    ) -> Result<Appended, AppendError> {
        match answer {
            Ok(Appended { records }) => match self.reveal(records) {
                Ok(records) => Ok(Appended { records }),
                // The events are written, and only a name cannot be read.
                Err(error) => Err(AppendError::Unknown(error.into())),
            },
            Err(AppendError::Conflict(conflict)) => Err(self.reveal_conflict(conflict).into()),
            Err(error) => Err(error),
        }
    }

    fn reveal_conflict(&self, mut conflict: Conflict) -> Conflict {
        if let Conflict::Stream { stream, .. } | Conflict::Chain { stream, .. } = &mut conflict
            && let StreamId::Pool(pool) | StreamId::Mailbox(pool) = stream
            && let Some((id, number)) = pool.pseudonym()
            && let Some(named) = self.remembered(id).and_then(|user| user.device(number).cloned())
        {
            *pool = named;
        }
        conflict
    }

    /// The device whose name a history has in a log that hides names, and its kind of history.
    fn owner<'a>(&self, stream: &'a StreamId) -> Option<(&'a PoolId, HistoryKind)> {
        match stream {
            StreamId::Pool(pool) if self.hides => Some((pool, StreamId::Pool)),
            StreamId::Mailbox(pool) if self.hides => Some((pool, StreamId::Mailbox)),
            _ => None,
        }
    }

    /// The name beneath of a history; `None` if the log has no history with this name.
    fn hidden(&self, stream: &StreamId) -> Result<Option<StreamId>, ReadError> {
        let Some((pool, hide)) = self.owner(stream) else { return Ok(Some(stream.clone())) };
        Ok(self.hidden_device(pool)?.map(hide))
    }

    fn hidden_device(&self, pool: &PoolId) -> Result<Option<PoolId>, ReadError> {
        if let Some((id, _)) = pool.pseudonym() {
            let named = self.by_id(id)?.is_some_and(|user| user.name().is_some());
            return Ok((!named).then(|| pool.clone()));
        }
        let Some(user) = self.by_name(pool.user())? else { return Ok(None) };
        let user = match user.number(pool.device()) {
            Some(_) => user,
            // It may have been named since the user was looked up.
            None => self.afresh(user.id())?,
        };
        Ok(user.number(pool.device()).map(|number| user.id().device(number)))
    }

    /// Finds a user by the id, as of a version of the names or a later one.
    fn as_of(&self, id: SubjectId, version: u64) -> Result<Option<Arc<NamedUser>>, ReadError> {
        let user = match self.remembered(id).filter(|user| version <= user.version()) {
            Some(user) => user,
            None => self.afresh(id)?,
        };
        Ok((user.version() != 0).then_some(user))
    }

    fn remembered(&self, id: SubjectId) -> Option<Arc<NamedUser>> {
        let remembered = self.remembered.read().unwrap_or_else(PoisonError::into_inner);
        remembered.by_id.get(&id).cloned()
    }

    fn remembered_by_name(&self, name: &str) -> Option<Arc<NamedUser>> {
        let remembered = self.remembered.read().unwrap_or_else(PoisonError::into_inner);
        let user = remembered.by_name.get(name).and_then(|id| remembered.by_id.get(id));
        user.filter(|user| user.name() == Some(name)).cloned()
    }

    /// The pseudonym of a device, if it is remembered.
    fn remembered_device(&self, pool: &PoolId) -> Option<PoolId> {
        let user = self.remembered_by_name(pool.user())?;
        user.number(pool.device()).map(|number| user.id().device(number))
    }

    /// Remembers a user, unless more is remembered already.
    fn remember(&self, user: &Arc<NamedUser>) {
        let mut remembered = self.remembered.write().unwrap_or_else(PoisonError::into_inner);
        let known = remembered.by_id.get(&user.id());
        if known.is_some_and(|known| user.version() <= known.version()) {
            return;
        }
        if REMEMBERED_MAX <= remembered.by_id.len() {
            *remembered = Remembered::default();
        }
        if let Some(name) = user.name() {
            remembered.by_name.insert(name.into(), user.id());
        }
        remembered.by_id.insert(user.id(), Arc::clone(user));
    }

    /// Forgets a remembered user if a record tells more names.
    fn forget_older(&self, stream: &StreamId, version: u64) {
        let StreamId::Names(id) = stream else { return };
        if self.remembered(*id).is_some_and(|user| user.version() < version) {
            let mut remembered = self.remembered.write().unwrap_or_else(PoisonError::into_inner);
            let forgotten = remembered.by_id.remove(id);
            if let Some(name) = forgotten.as_ref().and_then(|user| user.name()) {
                remembered.by_name.remove(name);
            }
        }
    }
}

impl<L: EventLog> KnownUsers for NamedLog<L> {
    fn by_name(&self, name: &str) -> Result<Option<Arc<NamedUser>>, ReadError> {
        if let Some(user) = self.remembered_by_name(name) {
            return Ok(Some(user));
        }
        for record in self.inner.find(Key::UserName(name), 0, usize::MAX)?.iter().rev() {
            if let StreamId::Names(id) = record.envelope.stream {
                let user = self.afresh(id)?;
                if user.name() == Some(name) {
                    return Ok(Some(user));
                }
            }
        }
        Ok(None)
    }

    fn by_id(&self, id: SubjectId) -> Result<Option<Arc<NamedUser>>, ReadError> {
        self.as_of(id, 1)
    }

    fn afresh(&self, id: SubjectId) -> Result<Arc<NamedUser>, ReadError> {
        let mut user = NamedUser::new(id);
        for record in self.inner.read_stream(&StreamId::Names(id), 0, usize::MAX)? {
            user.evolve(record.envelope.version, &record.envelope.event, &record.payload);
        }
        let user = Arc::new(user);
        self.remember(&user);
        Ok(user)
    }
}

impl<L: EventLog> EventLog for NamedLog<L> {
    fn append(
        &self,
        decided_at: LogHead,
        mut batches: Vec<Batch>,
    ) -> Vec<Result<Appended, AppendError>> {
        if !self.hides {
            return self.inner.append(decided_at, batches);
        }
        let n_batches = batches.len();
        let refuse = |error: &AppendError| (0..n_batches).map(|_| Err(again(error))).collect();
        let mut binder = Binder::new(self);
        if let Err(error) = binder.hide(&mut batches) {
            return refuse(&AppendError::NotWritten(error.into()));
        }
        let names = binder.batch();
        let tells = names.is_some();
        batches.splice(0..0, names);
        let mut answers = self.inner.append(decided_at, batches).into_iter();
        if tells && let Some(Err(error)) = answers.next() {
            return refuse(&error);
        }
        answers.map(|answer| self.reveal_answer(answer)).collect()
    }

    fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        self.reveal(self.inner.read(from, limit)?)
    }

    fn read_stream(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Record>, ReadError> {
        match self.hidden(stream)? {
            Some(hidden) => self.reveal(self.inner.read_stream(&hidden, after, limit)?),
            None => Ok(Vec::new()),
        }
    }

    fn find(&self, key: Key<'_>, after: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        let found = match key {
            Key::InitKey(pool, init_key) if self.hides => {
                let Some(hidden) = self.hidden_device(pool)? else { return Ok(Vec::new()) };
                self.inner.find(Key::InitKey(&hidden, init_key), after, limit)?
            }
            _ => self.inner.find(key, after, limit)?,
        };
        self.reveal(found)
    }

    fn head(&self) -> Result<LogHead, ReadError> {
        self.inner.head()
    }

    fn stream_head(&self, stream: &StreamId) -> Result<StreamHead, ReadError> {
        match self.hidden(stream)? {
            Some(hidden) => self.inner.stream_head(&hidden),
            None => Ok(StreamHead::default()),
        }
    }
}

impl<L: EventLog + MemoryIndex> MemoryIndex for NamedLog<L> {
    fn may_have(&self, key: Key<'_>, after: u64) -> bool {
        match key {
            Key::InitKey(pool, init_key) if self.hides => self
                .remembered_device(pool)
                .is_none_or(|pool| self.inner.may_have(Key::InitKey(&pool, init_key), after)),
            _ => self.inner.may_have(key, after),
        }
    }

    fn has_head(&self, stream: &StreamId) -> bool {
        let Some((pool, hide)) = self.owner(stream) else { return self.inner.has_head(stream) };
        self.remembered_device(pool).is_some_and(|device| self.inner.has_head(&hide(device)))
    }
}

impl<L: EventLog + SnapshotStore> SnapshotStore for NamedLog<L> {
    fn get(&self, name: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.inner.get(name)
    }

    fn list(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Snapshot>, ReadError> {
        self.inner.list(prefix, after, limit)
    }

    fn put(&self, snapshots: Vec<Snapshot>) -> Result<(), ReadError> {
        self.inner.put(snapshots)
    }
}

/// Whether the first record of a log that names anybody has a pseudonym; `None` if there is none.
fn hides_names(log: &impl EventLog) -> Result<Option<bool>, ReadError> {
    let mut next_seq = 1;
    loop {
        let page = log.read(next_seq, PAGE)?;
        let Some(last) = page.last() else { return Ok(None) };
        next_seq = last.seq.saturating_add(1);
        for Record { envelope, .. } in &page {
            let names_owner = matches!(envelope.stream, StreamId::Pool(_) | StreamId::Mailbox(_));
            if envelope.schema == codec::SCHEMA_PSEUDONYMS {
                return Ok(Some(true));
            }
            if names_owner || envelope.event.names_anybody() {
                return Ok(Some(false));
            }
        }
    }
}

/// The error of the names in front of some batches, for each of these.
fn again(error: &AppendError) -> AppendError {
    let cause =
        || std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    match error {
        AppendError::Conflict(conflict) => AppendError::Conflict(conflict.clone()),
        AppendError::NotWritten(_) => AppendError::NotWritten(cause().into()),
        AppendError::Failed(_) => AppendError::Failed(cause().into()),
        AppendError::Unknown(_) => AppendError::Unknown(cause().into()),
        AppendError::InDoubt(_) => AppendError::InDoubt(cause().into()),
    }
}
