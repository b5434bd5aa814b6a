//! How the names in new events become pseudonyms, and which names the log is told for that.

use std::{cell::RefCell, collections::BTreeMap, sync::Arc};

use uuid::Uuid;

use super::NamedUser;
use crate::{
    Batch, CommandId, CredentialBytes, Event, EventEnvelope, Hash, NAME_SALT_LEN, NewEvent, PoolId,
    ReadError, StreamId, StreamWrite, SubjectId, Timestamp,
};

/// Stands in the place of a declared credential, which is in the payload.
const NO_CREDENTIAL: [u8; 3] = [0; 3];

/// Users as a log has them.
pub(super) trait KnownUsers {
    /// Finds a user by the name.
    fn by_name(&self, name: &str) -> Result<Option<Arc<NamedUser>>, ReadError>;
    /// Finds a user by the id.
    fn by_id(&self, id: SubjectId) -> Result<Option<Arc<NamedUser>>, ReadError>;
    /// Finds the user by the id as the log has it now, with nothing remembered.
    fn afresh(&self, id: SubjectId) -> Result<Arc<NamedUser>, ReadError>;
}

/// Puts pseudonyms in the places of names, and collects the names that are new.
pub(super) struct Binder<'a, K> {
    known: &'a K,
    /// The users that are named in these batches, with the names that are new.
    users: BTreeMap<String, BoundUser>,
    /// The moment at which the new names are recorded.
    at: Timestamp,
}

/// A user whose names the log has, and those that it is told.
struct BoundUser {
    user: NamedUser,
    told: Vec<NewEvent>,
}

impl<'a, K: KnownUsers> Binder<'a, K> {
    pub(super) fn new(known: &'a K) -> Self {
        Self { known, users: BTreeMap::new(), at: Timestamp::default() }
    }

    /// Hides the names in some batches, in place.
    pub(super) fn hide(&mut self, batches: &mut [Batch]) -> Result<(), ReadError> {
        for write in batches.iter_mut().flat_map(|batch| &mut batch.writes) {
            self.at = write.events.iter().map(|event| event.at).fold(self.at, Timestamp::max);
            match &mut write.stream {
                StreamId::Pool(pool) | StreamId::Mailbox(pool) => self.hide_device(pool)?,
                StreamId::Group(_) | StreamId::Server | StreamId::Names(_) => {}
            }
            for new in &mut write.events {
                self.hide_in(new)?;
            }
        }
        Ok(())
    }

    /// The batch that tells the log the new names; `None` if there are none.
    pub(super) fn batch(self) -> Option<Batch> {
        let told = self.users.into_values().filter(|bound| !bound.told.is_empty());
        let writes = told.map(|BoundUser { user, told }| StreamWrite {
            stream: StreamId::Names(user.id()),
            expected: user.version().saturating_sub(told.len() as u64),
            events: told,
        });
        let writes: Vec<StreamWrite> = writes.collect();
        (!writes.is_empty()).then_some(Batch { writes })
    }

    fn hide_in(&mut self, new: &mut NewEvent) -> Result<(), ReadError> {
        if let Event::CredentialDeclared { credential, .. } = &mut new.event {
            new.payload = credential.as_bytes().to_vec();
            if let Ok(none) = CredentialBytes::new(&NO_CREDENTIAL) {
                *credential = none;
            }
        }
        let binder = RefCell::new(self);
        new.event.map_names(
            |device| binder.borrow_mut().hide_device(device),
            |user| binder.borrow_mut().hide_user(user),
        )
    }

    fn hide_device(&mut self, pool: &mut PoolId) -> Result<(), ReadError> {
        if let Some((id, _)) = pool.pseudonym() {
            return self.check_erased(id);
        }
        let at = self.at;
        let known = self.known;
        let bound = self.bound(pool.user())?;
        let is_new = bound.user.number(pool.device()).is_none();
        if is_new && bound.told.is_empty() {
            // Another writer may have named the device meanwhile.
            bound.user = NamedUser::clone(&*known.afresh(bound.user.id())?);
        }
        let number = match bound.user.number(pool.device()) {
            Some(number) => number,
            None => bound.tell(Event::DeviceNamed {}, pool.device(), at),
        };
        *pool = bound.user.id().device(number);
        Ok(())
    }

    fn hide_user(&mut self, name: &mut String) -> Result<(), ReadError> {
        if let Ok(id) = name.parse() {
            return self.check_erased(id);
        }
        *name = self.bound(name)?.user.id().to_string();
        Ok(())
    }

    /// Refuses the pseudonym of somebody who has a name: the same history would have two names.
    fn check_erased(&self, id: SubjectId) -> Result<(), ReadError> {
        match self.known.by_id(id)? {
            Some(user) if user.name().is_some() => {
                let what = format!("an event names a user by the pseudonym {id} and not by name");
                Err(ReadError::Unavailable(what.into()))
            }
            _ => Ok(()),
        }
    }

    /// The user with a name, who is told to the log if it does not have the name.
    fn bound(&mut self, name: &str) -> Result<&mut BoundUser, ReadError> {
        if !self.users.contains_key(name) {
            let bound = if let Some(user) = self.known.by_name(name)? {
                BoundUser { user: NamedUser::clone(&user), told: Vec::new() }
            } else {
                let user = NamedUser::new(SubjectId::random());
                let mut bound = BoundUser { user, told: Vec::new() };
                bound.tell(Event::UserNamed {}, name, self.at);
                bound
            };
            self.users.insert(name.to_owned(), bound);
        }
        // It was inserted above.
        self.users.get_mut(name).ok_or_else(|| ReadError::Unavailable("a user is missing".into()))
    }
}

/// Hides the names in the records of a log that was begun with names, one after the other: for a copy of it.
#[derive(Default)]
pub struct NameHider {
    users: BTreeMap<String, BoundUser>,
}

impl NameHider {
    /// Puts pseudonyms in the places of the names in an envelope. A declared credential becomes the payload.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if a name is a pseudonym already.
    pub fn hide(
        &mut self,
        envelope: &mut EventEnvelope,
        payload: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        let EventEnvelope { stream, at, command, request, event, .. } = envelope.clone();
        let is_declared = matches!(event, Event::CredentialDeclared { .. });
        let new = NewEvent { at, command, request, event, payload: std::mem::take(payload) };
        let write = StreamWrite { stream, expected: 0, events: vec![new] };
        let mut binder = Binder { known: &Nobody, users: std::mem::take(&mut self.users), at };
        let mut batches = [Batch { writes: vec![write] }];
        let hidden = binder.hide(&mut batches);
        self.users = binder.users;
        hidden?;
        let written = batches.into_iter().flat_map(|batch| batch.writes).next();
        let new = written.and_then(|write| {
            envelope.stream = write.stream;
            write.events.into_iter().next()
        });
        if let Some(new) = new {
            (envelope.event, *payload) = (new.event, new.payload);
        }
        if is_declared {
            envelope.payload = Hash::of(payload);
        }
        Ok(())
    }

    /// The names that were hidden, to be appended behind the records.
    #[must_use]
    pub fn names(self) -> Option<Batch> {
        Binder { known: &Nobody, users: self.users, at: Timestamp::default() }.batch()
    }
}

/// A log that has no names yet.
struct Nobody;

impl KnownUsers for Nobody {
    fn by_name(&self, _name: &str) -> Result<Option<Arc<NamedUser>>, ReadError> {
        Ok(None)
    }

    fn by_id(&self, id: SubjectId) -> Result<Option<Arc<NamedUser>>, ReadError> {
        let what = format!("the log names a user by the pseudonym {id} already");
        Err(ReadError::Unavailable(what.into()))
    }

    fn afresh(&self, id: SubjectId) -> Result<Arc<NamedUser>, ReadError> {
        Ok(Arc::new(NamedUser::new(id)))
    }
}

impl BoundUser {
    /// Adds a name to those that the log is told, and returns its number.
    fn tell(&mut self, event: Event, name: &str, at: Timestamp) -> u64 {
        let mut payload = Vec::with_capacity(NAME_SALT_LEN + name.len());
        payload.extend(Uuid::new_v4().into_bytes());
        payload.extend(name.as_bytes());
        let version = self.user.version().saturating_add(1);
        self.user.evolve(version, &event, &payload);
        let command = CommandId(Uuid::new_v4());
        self.told.push(NewEvent { at, command, request: Hash::ZERO, event, payload });
        version
    }
}
