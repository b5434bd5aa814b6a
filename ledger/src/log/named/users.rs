//! The names of users and their devices, as the events of a log tell them.

use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    sync::Arc,
};

use crate::{
    CredentialBytes, Event, EventEnvelope, PoolId, StreamId, SubjectId, codec, event::name_in,
};

/// A user in a log that hides names: the id, and the names as far as the log still has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedUser {
    id: SubjectId,
    version: u64,
    name: Option<Arc<str>>,
    devices: BTreeMap<u64, PoolId>,
    numbers: BTreeMap<Arc<str>, u64>,
    is_erased: bool,
}

impl NamedUser {
    /// Begins with an unknown user.
    #[must_use]
    pub const fn new(id: SubjectId) -> Self {
        Self {
            id,
            version: 0,
            name: None,
            devices: BTreeMap::new(),
            numbers: BTreeMap::new(),
            is_erased: false,
        }
    }

    /// Takes the next event of the user's names, with its payload.
    pub fn evolve(&mut self, version: u64, event: &Event, payload: &[u8]) {
        self.version = version;
        match (event, name_in(payload)) {
            (Event::UserNamed {}, name) => self.name = name.map(Into::into),
            (Event::DeviceNamed {}, Some(device)) => {
                let named = self.name.as_ref().and_then(|user| PoolId::new(user, device).ok());
                if let Some(pool) = named {
                    self.devices.insert(version, pool);
                    self.numbers.insert(device.into(), version);
                }
            }
            (Event::UserErased {}, _) => self.is_erased = true,
            _ => {}
        }
    }

    /// The id that stands for the user in the log.
    #[must_use]
    pub const fn id(&self) -> SubjectId {
        self.id
    }

    /// How many events the history of the user's names has.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The user's name; `None` if it was erased, or is not known.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref().filter(|_| !self.is_erased)
    }

    /// The name in the log, also that of an erased user whose payloads are not gone yet.
    #[must_use]
    pub fn recorded_name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether the operator had the user erased.
    #[must_use]
    pub const fn is_erased(&self) -> bool {
        self.is_erased
    }

    /// The number that stands for a device of the user in the log; `None` if the log has no such device, or
    /// the user was erased.
    #[must_use]
    pub fn number(&self, device: &str) -> Option<u64> {
        self.numbers.get(device).copied().filter(|_| !self.is_erased)
    }

    /// The device with a number, by its name; `None` as for [`NamedUser::number`].
    #[must_use]
    pub fn device(&self, number: u64) -> Option<&PoolId> {
        self.devices.get(&number).filter(|_| !self.is_erased)
    }
}

/// The names of all users of a log, for readers without an index.
///
/// A user who is erased has the name to the end if the log still has it: readers follow each history under one
/// name.
#[derive(Clone, Debug, Default)]
pub struct Names(HashMap<SubjectId, NamedUser>);

impl Names {
    /// Takes a record, which may be shown more than once: only the names of users and devices in it count.
    pub fn see(&mut self, envelope: &EventEnvelope, payload: &[u8]) {
        if let StreamId::Names(id) = envelope.stream {
            let user = self.0.entry(id).or_insert_with(|| NamedUser::new(id));
            user.evolve(envelope.version, &envelope.event, payload);
        }
    }

    /// Puts names in the places of the pseudonyms in a record, as far as they are known. Returns whether all are.
    /// A record of another schema stays as it is.
    pub fn reveal(&self, envelope: &mut EventEnvelope, payload: &[u8]) -> bool {
        let is_whole = Cell::new(true);
        let device = |id: SubjectId, number: u64| {
            let found = self.0.get(&id).and_then(|user| user.devices.get(&number).cloned());
            is_whole.set(is_whole.get() && found.is_some());
            Ok(found)
        };
        let user = |id: SubjectId| {
            let found = self.0.get(&id).and_then(|user| user.name.as_deref().map(str::to_owned));
            is_whole.set(is_whole.get() && found.is_some());
            Ok(found)
        };
        let revealed: Result<(), Infallible> = reveal(envelope, payload, device, user);
        let Ok(()) = revealed;
        is_whole.get()
    }
}

/// Puts names in the places of the pseudonyms in a record: those that the closures find for a device's number
/// and for a user.
pub(super) fn reveal<E>(
    envelope: &mut EventEnvelope,
    payload: &[u8],
    device_of: impl Fn(SubjectId, u64) -> Result<Option<PoolId>, E>,
    user_of: impl Fn(SubjectId) -> Result<Option<String>, E>,
) -> Result<(), E> {
    if envelope.schema != codec::SCHEMA_PSEUDONYMS {
        return Ok(());
    }
    let reveal_device = |pool: &mut PoolId| {
        let Some((id, number)) = pool.pseudonym() else { return Ok(()) };
        if let Some(named) = device_of(id, number)? {
            *pool = named;
        }
        Ok(())
    };
    let reveal_user = |name: &mut String| {
        let Ok(id) = name.parse() else { return Ok(()) };
        if let Some(named) = user_of(id)? {
            *name = named;
        }
        Ok(())
    };
    match &mut envelope.stream {
        StreamId::Pool(pool) | StreamId::Mailbox(pool) => reveal_device(pool)?,
        StreamId::Group(_) | StreamId::Server | StreamId::Names(_) => {}
    }
    if let Event::CredentialDeclared { credential, .. } = &mut envelope.event
        && let Ok(declared) = CredentialBytes::new(payload)
    {
        *credential = declared;
    }
    envelope.event.map_names(reveal_device, reveal_user)
}
