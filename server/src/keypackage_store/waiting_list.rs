//! The waiting list in front of the pools: each device that is asked for counts as a package would.

use std::collections::BTreeSet;

use keypool_ledger::{EventLog, PoolId};
use keypool_projections::Rejection;

use super::{Idempotency, KeyPackageStore, ReservationTarget, StoreError};
use crate::pools::{AwaitOutcome, AwaitedInvitee, DeliveryCommand, DeliveryRequest};

/// An inviter's request to wait for packages of devices that have none to hand out.
#[derive(Clone, Debug)]
pub struct AwaitPackages {
    /// The invitees; a user means all registered devices.
    pub invitees: Vec<ReservationTarget>,
    /// The devices to wait for no longer.
    pub stop: Vec<PoolId>,
    /// The inviter's device.
    pub inviter: PoolId,
    /// The users with a device that has introduced the inviter, as the caller has checked.
    pub introduced: BTreeSet<String>,
    /// How many devices there may be in all.
    pub devices_max: usize,
}

impl<L: EventLog + 'static> KeyPackageStore<L> {
    /// Waits for packages of devices that have none to hand out, and returns the outcome of each device in
    /// the order of the invitees. It is the outcome of this moment, also where the request is repeated.
    ///
    /// # Errors
    ///
    /// Returns a [`StoreError`] if there are too many devices, the inviter would wait for too many, or the
    /// log does not take events: nothing has changed then.
    pub async fn await_packages(
        &self,
        asked: AwaitPackages,
        Idempotency { key: id, digest }: Idempotency,
    ) -> Result<Vec<(ReservationTarget, AwaitOutcome)>, StoreError> {
        let caller = asked.inviter.clone();
        let mut outcomes = self.counted_invitees(&asked).await?;
        let known = outcomes.iter().filter_map(|invitee| invitee.as_ref().ok().cloned());
        let (invitees, stop) = (known.collect(), asked.stop);
        let command = DeliveryCommand::Await { invitees, stop };
        self.deliver(DeliveryRequest { command, caller: caller.clone(), id, digest }).await?;
        let mut awaited = Vec::with_capacity(outcomes.len());
        for invitee in outcomes.drain(..) {
            awaited.push(match invitee {
                Ok(invitee) => {
                    let outcome = self.pools.awaited(&caller, &invitee).await;
                    (ReservationTarget::Device(invitee.device), outcome)
                }
                Err((target, why)) => (target, AwaitOutcome::Refused(why)),
            });
        }
        Ok(awaited)
    }

    /// The devices that are meant, each counted as a package that is asked for; the others with the reason
    /// why reserving one would be refused.
    async fn counted_invitees(
        &self,
        asked: &AwaitPackages,
    ) -> Result<Vec<Result<AwaitedInvitee, (ReservationTarget, Rejection)>>, StoreError> {
        let mut invitees = Vec::new();
        for target in self.devices_meant(asked)? {
            let device = match &target {
                ReservationTarget::Device(device) => device.clone(),
                ReservationTarget::User(user) => {
                    let unknown = Rejection::UnknownUser(user.clone());
                    invitees.push(Err((target, unknown)));
                    continue;
                }
            };
            let user = device.user();
            let introduced = asked.introduced.contains(user) || asked.inviter.user() == user;
            let counted = self.count_unreserved(&device, &asked.inviter, introduced).await;
            invitees.push(match counted {
                Ok(over) => Ok(AwaitedInvitee { device, introduced, over }),
                Err(over) => Err((target, Rejection::from(over))),
            });
        }
        Ok(invitees)
    }

    /// The devices of the invitees, each once, and the users who have none.
    fn devices_meant(&self, asked: &AwaitPackages) -> Result<Vec<ReservationTarget>, StoreError> {
        let (mut meant, mut seen) = (Vec::new(), BTreeSet::new());
        for invitee in &asked.invitees {
            let ReservationTarget::User(user) = invitee else {
                meant.push(invitee.clone());
                continue;
            };
            let devices = self.pools.registered_devices(user);
            if devices.is_empty() {
                meant.push(invitee.clone());
            }
            let others = devices.into_iter().filter(|device| *device != asked.inviter);
            meant.extend(others.map(ReservationTarget::Device));
        }
        let name = |target: &ReservationTarget| match target {
            ReservationTarget::Device(device) => device.to_string(),
            ReservationTarget::User(user) => user.clone(),
        };
        meant.retain(|target| seen.insert(name(target)));
        if asked.devices_max < meant.len() {
            return Err(StoreError::TooManyDevices(meant.len(), asked.devices_max));
        }
        Ok(meant)
    }
}
