//! Waiting lists: an inviter waits for packages of devices that have nothing to hand out.

use keypool_ledger::{EventLog, PoolId, StreamId, Timestamp};
use keypool_projections::{
    AwaitTarget, DeliveryLimits, Limits, MailboxState, ProspectiveHolder, Rejection,
};

use super::{
    PoolView, Pools,
    batch::{CommandBatch, Plan},
    delivery_request::{AwaitedInvitee, DeliverError, Delivered, DeliveryRequest},
    mailboxes::{Writes, without_bytes},
};

/// Whether a device is awaited, and if not, why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AwaitOutcome {
    /// The inviter waits for its packages, until this moment.
    Waiting(Timestamp),
    /// It has something to hand out, or has had since the inviter began to wait.
    Available,
    /// Reserving a package of it would be refused for another reason than that there is none.
    Refused(Rejection),
    /// As many strangers wait for its packages as may.
    TooMany,
}

/// Why nobody waits for a device: `Ok` if it has a package for the inviter now.
fn offer(
    view: Option<&PoolView>,
    (caller, invitee): (&PoolId, &AwaitedInvitee),
    now: Timestamp,
    limits: &Limits,
) -> Result<(), Rejection> {
    let AwaitedInvitee { device, introduced, over } = invitee;
    if caller == device {
        return Err(Rejection::OwnPool);
    }
    let view = view.ok_or_else(|| Rejection::UnknownUser(device.to_string()))?;
    let (introduced, last_resort_only) = (*introduced, over.is_some());
    let asks = ProspectiveHolder { device: caller, introduced, last_resort_only };
    let offered = view.state.decide_offer(&asks, now, limits);
    // There is no last-resort package: it is the limit that is in the way.
    offered.map_err(|why| over.filter(|_| is_for_later(&why)).map_or(why, Rejection::from))
}

/// Whether reserving was refused because there is no package for the inviter, and may be one later.
const fn is_for_later(refusal: &Rejection) -> bool {
    matches!(refusal, Rejection::PoolExhausted | Rejection::KeptForContacts)
}

impl<L: EventLog> CommandBatch<'_, L> {
    /// Waits for the packages of those invitees that have none to hand out, by the rules of reserving one,
    /// and no longer for others.
    pub(super) fn await_packages(
        &mut self,
        request: &DeliveryRequest,
        invitees: &[AwaitedInvitee],
        stop: &[PoolId],
    ) -> Result<Plan, DeliverError> {
        let caller = &request.caller;
        let (now, limits) = (self.look.now, self.shared.delivery_limits);
        let mut targets = Vec::new();
        for invitee in invitees {
            targets.extend(self.await_target(caller, invitee, &limits)?);
        }
        let mailbox = self.mailbox_state(caller);
        let events = mailbox.decide_await(&targets, stop, now, &limits)?;
        let write = (mailbox.version(), without_bytes(events));
        let writes = Writes::from([(StreamId::Mailbox(caller.clone()), write)]);
        self.write_delivery(writes, request, Delivered::default())
    }

    fn await_target(
        &self,
        caller: &PoolId,
        invitee: &AwaitedInvitee,
        limits: &DeliveryLimits,
    ) -> Result<Option<AwaitTarget>, DeliverError> {
        let (now, device) = (self.look.now, &invitee.device);
        let view = self.shared.has_history(device).then(|| self.pool_view(device)).transpose()?;
        let offered = self.check_invitee(device);
        let offered =
            offered.and_then(|()| offer(view.as_deref(), (caller, invitee), now, &self.limits));
        let Some(view) = view.filter(|_| offered.is_err_and(|why| is_for_later(&why))) else {
            return Ok(None);
        };
        let is_contact = view.state.contacts().is_contact(caller.user());
        let is_stranger = !invitee.introduced && !is_contact;
        let is_full = |mailbox: &MailboxState| mailbox.has_many_awaiters(now, limits);
        if is_stranger && self.with_mailbox(device, is_full) {
            return Ok(None);
        }
        Ok(Some(AwaitTarget { device: device.clone(), is_stranger }))
    }
}

impl<L: EventLog + 'static> Pools<L> {
    /// Tells whether a device waits for packages of another now.
    pub async fn awaited(&self, caller: &PoolId, invitee: &AwaitedInvitee) -> AwaitOutcome {
        let (now, limits, device) = (self.now(), self.limits(), &invitee.device);
        let mailbox = self.mailbox(caller);
        if let Some(until) = mailbox.awaits(device, now) {
            return AwaitOutcome::Waiting(until);
        }
        let view = self.load_pool(device).await;
        if let Err(why) = self.shared.views().suspensions.check_invitee(device.user()) {
            return AwaitOutcome::Refused(why);
        }
        match offer(view.as_deref(), (caller, invitee), now, &limits) {
            Ok(()) => AwaitOutcome::Available,
            Err(why) if !is_for_later(&why) => AwaitOutcome::Refused(why),
            // It has arrived, and others had it since.
            Err(_) if mailbox.available().any(|there| there == device) => AwaitOutcome::Available,
            Err(_) => AwaitOutcome::TooMany,
        }
    }
}
