//! One package for each of many devices, as one request that may be repeated.
//!
//! Each pool has a reservation and a command of its own, whose ids follow from those of the request: a
//! distributed log need not write to many pools at once. When the request is repeated, the parts that a
//! crash has left undone are carried out, and the others are answered as they were.

use std::{
    collections::BTreeSet,
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
};

use keypool_ledger::{
    CommandId, Event, EventLog, GroupId, Hash, PoolId, ReadError, Record, ReservationId, StreamId,
    log::{find_command, find_reservation},
};
use keypool_projections::{Rejection, RequiredCapabilities};
use uuid::Uuid;

use super::{
    Idempotency, KeyPackageStore, ReservationRequest, ReservationTarget, ReservedKeyPackage,
    StoreError, commands::Reserved, first_half,
};
use crate::pools::{ExecuteError, Pools, Reply};

/// How many commands of one request wait for the log at a time: as many as share one write.
const AT_ONCE_MAX: usize = 256;

/// An inviter's request for reservations of many devices.
#[derive(Clone, Debug)]
pub struct ManyReservations {
    /// The invitees; a user means all registered devices.
    pub invitees: Vec<ReservationTarget>,
    /// The inviter's device.
    pub holder: PoolId,
    /// The group the invitation is for.
    pub group: GroupId,
    /// The id that the reservations' ids are derived from, drawn at random by the inviter.
    pub id: ReservationId,
    /// The ciphersuites the group can use; any if empty.
    pub ciphersuites: Vec<u16>,
    /// The capabilities that each package must have.
    pub required: RequiredCapabilities,
    /// How many devices there may be in all.
    pub devices_max: usize,
    /// The users with a device that has introduced the inviter, as the caller has checked.
    pub introduced: BTreeSet<String>,
}

/// The packages that were reserved for an inviter who invites many.
#[derive(Clone, Debug, Default)]
pub struct ReservedMany {
    /// One package for each device that has one, in the order of the invitees.
    pub reserved: Vec<ReservedKeyPackage>,
    /// The invitees without a reservation, and why.
    pub missing: Vec<(ReservationTarget, Rejection)>,
}

/// A device on the list, and whether it was named; if not, it is one of all devices of its user.
#[derive(Clone)]
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

    fn reservation_for(&self, device: &PoolId) -> ReservationRequest {
        ReservationRequest {
            invitee: ReservationTarget::Device(device.clone()),
            holder: self.holder.clone(),
            group: self.group.clone(),
            id: self.reservation_of(device),
            ciphersuites: self.ciphersuites.clone(),
            required: self.required.clone(),
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
        let requests = self.requests(&asked, &mut outcome.missing, idempotency).await?;
        for some in requests.chunks(AT_ONCE_MAX) {
            let asks = some.iter().map(|(device, idempotency)| {
                let (one, idempotency) = (asked.reservation_for(device), *idempotency);
                async move { self.reserve_of(device, &one, idempotency).await }
            });
            let replies = all(asks).await;
            let mut reserved = Vec::with_capacity(replies.len());
            for ((device, _), reply) in some.iter().zip(replies) {
                match reply {
                    Ok(reply) => reserved.push(reply),
                    Err(StoreError::Execute(ExecuteError::Rejected(why))) if is_of_one(&why) => {
                        outcome.missing.push((ReservationTarget::Device(device.clone()), why));
                    }
                    Err(error) => return Err(error),
                }
            }
            let found = self.read(move |pools| {
                let reserved = reserved.into_iter().map(|reply: Reply<Reserved>| {
                    let bytes = pools.package_bytes(&reply.answer.facts.keypackage_ref)?;
                    Ok((reply, bytes))
                });
                reserved.collect::<Result<Vec<_>, ReadError>>()
            });
            for (reply, bytes) in found.await? {
                let device = ReservationTarget::Device(reply.pool.clone());
                match with_bytes(reply, bytes) {
                    Ok(reserved) => outcome.reserved.push(reserved),
                    Err(ExecuteError::Rejected(why)) => outcome.missing.push((device, why)),
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
        missing: &mut Vec<(ReservationTarget, Rejection)>,
    ) -> Vec<(&'a ReservationTarget, Vec<Wanted>)> {
        let mut seen = BTreeSet::new();
        let mut devices_of = |invitee: &'a ReservationTarget| {
            let (devices, named) = match invitee {
                ReservationTarget::Device(device) => (vec![device.clone()], true),
                ReservationTarget::User(user) => {
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

    /// The devices, each with the id of its command; those of a request that was made before have the ids
    /// they had.
    ///
    /// The devices that were registered since are left out before it is counted how many there are.
    async fn requests(
        &self,
        asked: &ManyReservations,
        missing: &mut Vec<(ReservationTarget, Rejection)>,
        idempotency: Idempotency,
    ) -> Result<Vec<(PoolId, Idempotency)>, StoreError> {
        let mut wanted = self.devices_by_invitee(asked, missing);
        let (again, listed) = (asked.clone(), listed(&wanted));
        let read = self.read(move |pools| recorded(pools, &again, &listed, idempotency));
        let Recorded { first, later } = read.await?;
        for (_, devices) in &mut wanted {
            devices.retain(|wanted| !later.contains(&wanted.device));
        }
        let devices = as_many_as_may_be(wanted, asked.devices_max, missing)?;
        let first = first.or_else(|| devices.first().cloned());
        let Idempotency { key, digest } = idempotency;
        let request = |device: PoolId| {
            let is_first = first.as_ref() == Some(&device);
            let id = if is_first { key } else { command_of(key, &device) };
            (device, Idempotency { key: id, digest })
        };
        Ok(devices.into_iter().map(request).collect())
    }
}

/// The devices of all invitees.
fn listed(wanted: &[(&ReservationTarget, Vec<Wanted>)]) -> Vec<Wanted> {
    wanted.iter().flat_map(|(_, devices)| devices).cloned().collect()
}

/// Looks up the record that the log has of a request.
fn recorded<L: EventLog + 'static>(
    pools: &Pools<L>,
    asked: &ManyReservations,
    wanted: &[Wanted],
    Idempotency { key, digest }: Idempotency,
) -> Result<Recorded, ExecuteError> {
    let log = pools.log();
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
    for Wanted { device, named } in wanted {
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
    Ok(Recorded { first, later: registered_since(pools, began, fresh)? })
}

/// Finds the devices that were registered after the request was carried out first.
fn registered_since<L: EventLog + 'static>(
    pools: &Pools<L>,
    began: Option<u64>,
    devices: Vec<PoolId>,
) -> Result<BTreeSet<PoolId>, ReadError> {
    let Some(began) = began else { return Ok(BTreeSet::new()) };
    let mut later = BTreeSet::new();
    for device in devices {
        let stream = StreamId::Pool(device.clone());
        let first = pools.log().read_stream(&stream, 0, 1)?;
        if first.first().is_some_and(|first| began < first.seq) {
            later.insert(device);
        }
    }
    // A user who was not known at all was missing, and who was missing is tried again.
    let known = |user: &str| {
        let devices = pools.registered_devices(user);
        devices.iter().any(|device| !later.contains(device))
    };
    Ok(later.iter().filter(|device| known(device.user())).cloned().collect())
}

/// Adds the package's bytes to the reply to a reservation. Bytes that were pruned are those of a package that
/// is over: the request was made long ago, and is repeated.
pub(super) fn with_bytes(
    reply: Reply<Reserved>,
    bytes: Option<Vec<u8>>,
) -> Result<ReservedKeyPackage, ExecuteError> {
    let Reply { pool, answer: Reserved { facts, reservation, generation, deadline }, .. } = reply;
    let bytes = bytes.ok_or_else(|| {
        let missing = format!("the log has no bytes of package {}", facts.keypackage_ref);
        ReadError::Unavailable(missing.into())
    })?;
    if bytes.is_empty() {
        return Err(Rejection::ReservationLost(reservation).into());
    }
    Ok(ReservedKeyPackage { pool, facts, bytes, reservation, generation, deadline })
}

/// The devices that are meant. The users with the most devices are missing if there are too many in all: one
/// user never spoils the invitation of the others.
fn as_many_as_may_be(
    mut wanted: Vec<(&ReservationTarget, Vec<Wanted>)>,
    devices_max: usize,
    missing: &mut Vec<(ReservationTarget, Rejection)>,
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
    !matches!(
        rejection,
        Rejection::ReservationMismatch(_) | Rejection::Suspended(_) | Rejection::Illegal(_)
    )
}

/// The id of the command that reserves one device's package, for all devices but the first.
fn command_of(key: CommandId, device: &PoolId) -> CommandId {
    CommandId(derived("command", key.0, device))
}

/// Derives the id of one device's part of a request. It cannot be guessed without the request's id.
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
