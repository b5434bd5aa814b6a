//! Waiting lists: inviters that wait for packages of devices which have nothing to hand out.
//!
//! An inviter's list stands in its mailbox, and the awaited device's mailbox has the other end of each
//! entry, so that an upload finds the inviters that it concerns.

use std::collections::BTreeSet;

use imbl::{OrdMap, OrdSet};
use keypool_ledger::{Event, PoolId, Timestamp};

use super::{DeliveryLimits, DeliveryRejection};
use crate::packing::{Packer, Unpacker};

/// The devices that one waits for, and those that wait for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct WaitingList {
    /// The devices whose packages this one waits for, and until when.
    awaited: OrdMap<PoolId, Timestamp>,
    /// The awaited devices that have uploaded since, until this one says that it was told.
    available: OrdSet<PoolId>,
    /// The devices that wait for packages of this one.
    awaiters: OrdMap<PoolId, Awaiter>,
}

/// A device that waits for packages of another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Awaiter {
    /// Until when.
    until: Timestamp,
    /// Whether it is a stranger to the owner, whose policy may end its wait.
    is_stranger: bool,
}

/// A device to wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwaitTarget {
    /// The device.
    pub device: PoolId,
    /// Whether the one that waits is a stranger to its owner.
    pub is_stranger: bool,
}

impl WaitingList {
    fn live(&self, now: Timestamp) -> impl Iterator<Item = (&PoolId, Timestamp)> {
        let awaited = self.awaited.iter().map(|(device, until)| (device, *until));
        awaited.filter(move |(_, until)| now < *until)
    }

    pub(super) fn note_told(&mut self, device: &PoolId) {
        self.available.remove(device);
    }

    pub(super) fn is_available(&self, device: &PoolId) -> bool {
        self.available.contains(device)
    }

    pub(super) fn pack(&self, out: &mut Packer) {
        out.number(self.awaited.len() as u64);
        for (device, until) in &self.awaited {
            out.pool(device);
            out.number(until.as_millis());
        }
        out.number(self.available.len() as u64);
        self.available.iter().for_each(|device| out.pool(device));
        out.number(self.awaiters.len() as u64);
        for (device, Awaiter { until, is_stranger }) in &self.awaiters {
            out.pool(device);
            out.number(until.as_millis());
            out.flag(*is_stranger);
        }
    }

    pub(super) fn unpack(rest: &mut Unpacker<'_>) -> Option<Self> {
        let mut list = Self::default();
        for _ in 0..rest.number()? {
            list.awaited.insert(rest.pool()?, rest.time()?);
        }
        for _ in 0..rest.number()? {
            list.available.insert(rest.pool()?);
        }
        for _ in 0..rest.number()? {
            let (device, until, is_stranger) = (rest.pool()?, rest.time()?, rest.flag()?);
            list.awaiters.insert(device, Awaiter { until, is_stranger });
        }
        Some(list)
    }
}

impl WaitingList {
    /// The awaited devices that have uploaded since, until this one says that it was told.
    pub(super) fn available(&self) -> impl Iterator<Item = &PoolId> {
        self.available.iter()
    }

    /// The moment until which this device waits for packages of another; `None` if it does not.
    pub(super) fn awaits(&self, device: &PoolId, now: Timestamp) -> Option<Timestamp> {
        self.awaited.get(device).copied().filter(|until| now < *until)
    }

    /// How many strangers wait for packages of this device.
    pub(super) fn strangers(&self, now: Timestamp) -> usize {
        self.awaiters.values().filter(|by| by.is_stranger && now < by.until).count()
    }

    /// Decides that this device waits for packages of others, and no longer for some, whose places are free
    /// for the new ones. Nothing is recorded for devices that it waits for already.
    pub(super) fn decide(
        &self,
        targets: &[AwaitTarget],
        stop: &[PoolId],
        now: Timestamp,
        limits: &DeliveryLimits,
    ) -> Result<Vec<Event>, DeliveryRejection> {
        let is_listed =
            |device: &&PoolId| self.awaited.contains_key(*device) || self.is_available(device);
        let stopped: BTreeSet<&PoolId> = stop.iter().filter(is_listed).collect();
        let listed = self.live(now).map(|(device, _)| device).chain(&self.available);
        let mut places: BTreeSet<&PoolId> = listed.collect();
        places.retain(|device| !stopped.contains(device));
        places.extend(targets.iter().map(|target| &target.device));
        if limits.awaited_max < places.len() {
            return Err(DeliveryRejection::WaitingListFull(limits.awaited_max));
        }
        let mut named = BTreeSet::new();
        let is_new = |target: &&AwaitTarget| {
            let device = &target.device;
            let waits = self.awaits(device, now).is_some() && !stopped.contains(device);
            !waits && named.insert(device.clone())
        };
        let new: Vec<&AwaitTarget> = targets.iter().filter(is_new).collect();
        let strangers = new.iter().filter(|target| target.is_stranger);
        let awaited = Event::Awaited {
            targets: new.iter().map(|target| target.device.clone()).collect(),
            as_stranger: strangers.map(|target| target.device.clone()).collect(),
            until: now.after(limits.await_age_max),
        };
        let targets: Vec<PoolId> = stopped.into_iter().cloned().collect();
        let stopped = (!targets.is_empty()).then_some(Event::AwaitStopped { targets });
        Ok(stopped.into_iter().chain((!new.is_empty()).then_some(awaited)).collect())
    }

    /// Removes the entries that are over, and returns their devices.
    pub(super) fn remove_over(&mut self, at: Timestamp) -> Vec<PoolId> {
        let over = self.awaited.iter().filter(|(_, until)| **until <= at);
        let over: Vec<PoolId> = over.map(|(device, _)| device.clone()).collect();
        for device in &over {
            self.end(device);
        }
        over
    }

    /// Takes in that this device waits for packages of another.
    pub(super) fn begin(&mut self, device: &PoolId, until: Timestamp) {
        self.available.remove(device);
        self.awaited.insert(device.clone(), until);
    }

    /// Takes in that this device does not wait for packages of another any more.
    pub(super) fn end(&mut self, device: &PoolId) {
        self.awaited.remove(device);
    }

    /// Takes in that a package of an awaited device has arrived.
    pub(super) fn arrive(&mut self, device: &PoolId, at: Timestamp) {
        if self.awaited.remove(device).is_some_and(|until| at < until) {
            self.available.insert(device.clone());
        }
    }

    /// The devices that this one waits for.
    pub(super) fn awaited(&self) -> Vec<PoolId> {
        self.awaited.keys().cloned().collect()
    }

    /// Takes in that another device waits for packages of this one.
    pub(super) fn begin_awaiter(&mut self, device: &PoolId, until: Timestamp, is_stranger: bool) {
        self.awaiters.insert(device.clone(), Awaiter { until, is_stranger });
    }

    /// Takes in that another device does not wait for packages of this one any more.
    pub(super) fn end_awaiter(&mut self, device: &PoolId) {
        self.awaiters.remove(device);
    }

    /// Removes some of the devices that wait for packages of this one, and returns them; `is_meant` is asked of
    /// each, and whether it is a stranger.
    pub(super) fn take_awaiters(
        &mut self,
        is_meant: impl Fn(&PoolId, bool) -> bool,
    ) -> Vec<PoolId> {
        let meant = self.awaiters.iter().filter(|(device, by)| is_meant(device, by.is_stranger));
        let taken: Vec<PoolId> = meant.map(|(device, _)| device.clone()).collect();
        for device in &taken {
            self.awaiters.remove(device);
        }
        taken
    }
}
