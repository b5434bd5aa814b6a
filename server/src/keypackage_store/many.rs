//! One package for each of many devices, as one request that may be repeated.
//!
//! Each pool has a reservation and a command of its own, whose ids follow from those of the request: a
//! distributed log need not write to many pools at once. Whatever a crash has left undone is done when
//! the request is repeated, and what was done is answered as it was.

use std::{
    collections::BTreeSet,
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
};

use keypool_ledger::{
    CommandId, Event, EventLog, GroupId, Hash, PoolId, Record, ReservationId, StreamId,
    log::{find_command, find_reservation},
};
use keypool_projections::{Answer, Rejection};
use uuid::Uuid;

use super::{
    Idempotency, Invitee, KeyPackageStore, Reservation, ReservedKeyPackage, StoreError, first_half,
};
use crate::pools::{ExecuteError, Reply, Request, Target};

/// How many commands of one request wait for the log at a time: as many as share one write.
const AT_ONCE_MAX: usize = 256;

/// What an inviter asks for who invites many.
#[derive(Clone, Debug)]
pub struct ManyReservations {
    /// Whom to invite: a user means all registered devices.
    pub invitees: Vec<Invitee>,
    /// The inviter's device.
    pub holder: PoolId,
    /// The group the invitation is for.
    pub group: GroupId,
    /// What the claims follow from, drawn at random by the inviter.
    pub id: ReservationId,
    /// The ciphersuites the group can use; any if empty.
    pub ciphersuites: Vec<u16>,
    /// How many devices there may be in all.
    pub devices_max: usize,
    /// The users of whom a device has introduced the inviter. That it has is for the caller to check.
    pub introduced: BTreeSet<String>,
}

/// What was set aside for an inviter who invites many.
#[derive(Clone, Debug, Default)]
pub struct ReservedMany {
    /// One package for each device that has one, in the order of the invitees.
    pub reserved: Vec<ReservedKeyPackage>,
    /// Who has none, and why.
    pub missing: Vec<(Invitee, Rejection)>,
}

/// A device on the list, and whether it was named; if not, it is one of all devices of its user.
struct Wanted {
    device: PoolId,
    named: bool,
}

/// Record of a request that was made before.
struct Recorded {
    /// The device that was given the request's own id; `None` if none was.
    first: Option<PoolId>,
    /// The devices that were registered since.
    later: BTreeSet<PoolId>,
}

impl ManyReservations {
    fn reservation_of(&self, device: &PoolId) -> ReservationId {
        ReservationId(derived("reservation", self.id.0, device))
    }

    fn reservation_for(&self, device: &PoolId) -> Reservation {
        Reservation {
            invitee: Invitee::Device(device.clone()),
            holder: self.holder.clone(),
            group: self.group.clone(),
            id: self.reservation_of(device),
            ciphersuites: self.ciphersuites.clone(),
            introduced: self.introduced.contains(device.user()),
        }
    }
}

impl<L: EventLog + 'static> KeyPackageStore<L> {
    /// Sets one package of each device aside for an inviter, whose own device is left out.
    ///
    /// A repeated request is answered alike: with the same packages, and without the devices that were
    /// registered since. Who was missing is tried again.
    ///
    /// # Errors
    ///
    /// Returns a [`StoreError`] if there are too many devices, or the ids were used for another request:
    /// nothing has changed then. If the log does not take events, some may be reserved: repeat it.
    pub async fn reserve_many(
        &self,
        asked: ManyReservations,
        idempotency: Idempotency,
    ) -> Result<ReservedMany, StoreError> {
        let mut outcome = ReservedMany::default();
        let requests = self.requests(&asked, &mut outcome.missing, idempotency)?;
        for some in requests.chunks(AT_ONCE_MAX) {
            let asks = some.iter().map(|(pool, request)| self.reserve_of(pool, request.clone()));
            let replies = all(asks);
            for ((device, _), reply) in some.iter().zip(replies.await) {
                match reply {
                    Ok(reply) => outcome.reserved.push(self.reserved(reply)?),
                    Err(ExecuteError::Rejected(why)) if is_of_one(&why) => {
                        outcome.missing.push((Invitee::Device(device.clone()), why));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(outcome)
    }

    /// The devices that each invitee means, but for those that one before means as well.
    fn devices_by_invitee<'a>(
        &self,
        asked: &'a ManyReservations,
        missing: &mut Vec<(Invitee, Rejection)>,
    ) -> Vec<(&'a Invitee, Vec<Wanted>)> {
        let mut seen = BTreeSet::new();
        let mut devices_of = |invitee: &'a Invitee| {
            let (devices, named) = match invitee {
                Invitee::Device(device) => (vec![device.clone()], true),
                Invitee::User(user) => {
                    let devices = self.pools.registered_devices(user);
                    let unknown = (invitee.clone(), Rejection::UnknownUser(user.clone()));
                    if devices.is_empty() && !missing.contains(&unknown) {
                        missing.push(unknown);
                    }
                    (devices, false)
                }
            };
            let others = devices.into_iter().filter(|device| named || *device != asked.holder);
            let new = others.filter(|device| seen.insert(device.clone()));
            (invitee, new.map(|device| Wanted { device, named }).collect())
        };
        asked.invitees.iter().map(&mut devices_of).collect()
    }

    /// The request of each device; those of a request that was made before have the ids they had.
    ///
    /// The devices that were registered since are left out before it is counted how many there are.
    fn requests(
        &self,
        asked: &ManyReservations,
        missing: &mut Vec<(Invitee, Rejection)>,
        idempotency: Idempotency,
    ) -> Result<Vec<(PoolId, Request)>, StoreError> {
        let mut wanted = self.devices_by_invitee(asked, missing);
        let Recorded { first, later } = self.recorded(asked, &wanted, idempotency)?;
        for (_, devices) in &mut wanted {
            devices.retain(|wanted| !later.contains(&wanted.device));
        }
        let devices = as_many_as_may_be(wanted, asked.devices_max, missing)?;
        let first = first.or_else(|| devices.first().cloned());
        let Idempotency { key, digest } = idempotency;
        let request = |device: PoolId| {
            let is_first = first.as_ref() == Some(&device);
            let id = if is_first { key } else { command_of(key, &device) };
            let idempotency = Idempotency { key: id, digest };
            let target = Target::Pool(device.clone());
            let request = asked.reservation_for(&device).request(target, idempotency);
            (device, request)
        };
        Ok(devices.into_iter().map(request).collect())
    }

    /// Looks up what the log knows of a request.
    fn recorded(
        &self,
        asked: &ManyReservations,
        wanted: &[(&Invitee, Vec<Wanted>)],
        Idempotency { key, digest }: Idempotency,
    ) -> Result<Recorded, StoreError> {
        let log = self.pools.log();
        let is_this = |record: &Record| {
            let is_it = record.envelope.request == digest;
            if is_it { Ok(()) } else { Err(ExecuteError::IdempotencyMismatch(key)) }
        };
        // The first device that got a package has the request's own id for its command: so that id
        // cannot be used for anything else.
        let anchor = find_command(log, key, 0)?.into_iter().next();
        anchor.as_ref().map_or(Ok(()), is_this)?;
        let mut began = anchor.as_ref().map(|record| record.seq);
        let first = anchor.and_then(|record| record.envelope.stream.pool().cloned());
        let mut fresh = Vec::new();
        for Wanted { device, named } in wanted.iter().flat_map(|(_, devices)| devices) {
            let is_first = first.as_ref() == Some(device);
            let id = if is_first { key } else { command_of(key, device) };
            let made = find_reservation(log, asked.reservation_of(device), 0)?;
            let done = find_command(log, id, 0)?;
            done.first().map_or(Ok(()), is_this)?;
            made.as_ref().map_or(Ok(()), |made| fits(made, asked))?;
            let place = made.iter().chain(done.first()).map(|record| record.seq).min();
            began = [began, place].into_iter().flatten().min();
            if place.is_none() && !named {
                fresh.push(device.clone());
            }
        }
        Ok(Recorded { first, later: self.registered_since(began, fresh)? })
    }

    /// Those devices that were not there when the request was carried out first.
    fn registered_since(
        &self,
        began: Option<u64>,
        devices: Vec<PoolId>,
    ) -> Result<BTreeSet<PoolId>, StoreError> {
        let Some(began) = began else { return Ok(BTreeSet::new()) };
        let mut later = BTreeSet::new();
        for device in devices {
            let stream = StreamId::Pool(device.clone());
            let first = self.pools.log().read_stream(&stream, 0, 1)?;
            if first.first().is_some_and(|first| began < first.seq) {
                later.insert(device);
            }
        }
        // A user who was not known at all was missing, and who was missing is tried again.
        let known = |user: &str| {
            let devices = self.pools.registered_devices(user);
            devices.iter().any(|device| !later.contains(device))
        };
        Ok(later.iter().filter(|device| known(device.user())).cloned().collect())
    }

    /// What a reply to a reservation says, and the package itself.
    pub(super) fn reserved(&self, reply: Reply) -> Result<ReservedKeyPackage, StoreError> {
        let Answer::Reserved { facts, reservation, generation, deadline } = reply.answer else {
            return Err(StoreError::Confused);
        };
        let bytes = self.pools.package_bytes(&facts.keypackage_ref)?;
        let (pool, bytes) = (reply.pool, bytes.ok_or(StoreError::Confused)?);
        Ok(ReservedKeyPackage { pool, facts, bytes, reservation, generation, deadline })
    }
}

/// The devices that are meant. The users with the most devices are missing if there are too many in all: one
/// user never spoils the invitation of the others.
fn as_many_as_may_be(
    mut wanted: Vec<(&Invitee, Vec<Wanted>)>,
    devices_max: usize,
    missing: &mut Vec<(Invitee, Rejection)>,
) -> Result<Vec<PoolId>, StoreError> {
    loop {
        let sizes = wanted.iter().map(|(_, devices)| devices.len());
        let count = sizes.clone().sum();
        if count <= devices_max {
            let devices = wanted.into_iter().flat_map(|(_, devices)| devices);
            return Ok(devices.map(|wanted| wanted.device).collect());
        }
        let largest = sizes.enumerate().max_by_key(|(_, size)| *size);
        let Some((place, size)) = largest.filter(|(_, size)| 1 < *size) else {
            return Err(StoreError::TooManyDevices(count, devices_max));
        };
        let (invitee, _) = wanted.remove(place);
        missing.push((invitee.clone(), Rejection::TooManyDevices(size, devices_max)));
    }
}

/// Whether a reservation that was made under an id is the one that is asked for.
fn fits(made: &Record, asked: &ManyReservations) -> Result<(), ExecuteError> {
    match &made.envelope.event {
        Event::Reserved { holder, group, .. }
            if (holder, group) == (&asked.holder, &asked.group) =>
        {
            Ok(())
        }
        _ => Err(Rejection::ReservationMismatch(asked.id).into()),
    }
}

/// Whether a refusal is about one device, and says nothing of the others.
const fn is_of_one(rejection: &Rejection) -> bool {
    !matches!(rejection, Rejection::ReservationMismatch(_) | Rejection::Illegal(_))
}

/// The id of the command that reserves one device's package, for all devices but the first.
fn command_of(key: CommandId, device: &PoolId) -> CommandId {
    CommandId(derived("command", key.0, device))
}

/// The id that one device's share of a request has. Whoever does not know the request's cannot tell it.
fn derived(of: &str, id: Uuid, device: &PoolId) -> Uuid {
    let digest = Hash::of(format!("keypool reserve-many {of} {id} {device}").as_bytes());
    uuid::Builder::from_random_bytes(first_half(&digest)).into_uuid()
}

/// Waits for all of some futures, which go on at the same time.
async fn all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    enum Slot<F: Future> {
        Going(Pin<Box<F>>),
        Done(Option<F::Output>),
    }
    let mut slots: Vec<Slot<F>> = futures.map(|future| Slot::Going(Box::pin(future))).collect();
    poll_fn(|context| {
        let mut is_done = true;
        for slot in &mut slots {
            let Slot::Going(future) = slot else { continue };
            match future.as_mut().poll(context) {
                Poll::Ready(output) => *slot = Slot::Done(Some(output)),
                Poll::Pending => is_done = false,
            }
        }
        if is_done { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let output = |slot: &mut Slot<F>| match slot {
        Slot::Done(output) => output.take(),
        Slot::Going(_) => None,
    };
    slots.iter_mut().filter_map(output).collect()
}
