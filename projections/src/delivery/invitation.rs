//! Invitations that wait for their answers: each Welcome that names its inviter asks for exactly one.

use imbl::OrdMap;
use keypool_ledger::{Event, InvitationAnswer, PoolId};

use crate::packing::{Packer, Unpacker};

/// The invitations to a group that have no answer yet, by invitee.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PendingInvitations(OrdMap<PoolId, PendingInvitation>);

/// An invitation to a group that has no answer yet.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PendingInvitation {
    /// The device that made it.
    inviter: PoolId,
    /// Whether the inviter's membership has ended since: then nobody is told the answer.
    ended: bool,
    /// Whether the invitee has posted to the group: only a device that has joined does.
    posted: bool,
}

impl PendingInvitations {
    /// Takes in that a device has invited others.
    pub(super) fn invite(&mut self, inviter: &PoolId, invitees: &[PoolId]) {
        for device in invitees {
            let inviter = inviter.clone();
            let pending = PendingInvitation { inviter, ended: false, posted: false };
            self.0.insert(device.clone(), pending);
        }
    }

    /// Takes in that a device has posted to the group.
    pub(super) fn note_posted(&mut self, device: &PoolId) {
        if let Some(pending) = self.0.get_mut(device) {
            pending.posted = true;
        }
    }

    /// Takes in the answer of a device.
    pub(super) fn remove(&mut self, device: &PoolId) {
        self.0.remove(device);
    }

    /// Takes in that a device is no member any more: its own invitation is over, and nobody is told the
    /// answers to those that it has made.
    pub(super) fn end_membership(&mut self, device: &PoolId) {
        self.remove(device);
        let made = self.0.iter().filter(|(_, pending)| pending.inviter == *device);
        let asked: Vec<PoolId> = made.map(|(invitee, _)| invitee.clone()).collect();
        for invitee in asked {
            if let Some(pending) = self.0.get_mut(&invitee) {
                pending.ended = true;
            }
        }
    }

    /// The invitees, in order.
    pub(super) fn invitees(&self) -> impl Iterator<Item = &PoolId> {
        self.0.keys()
    }

    /// The device that is told the answer of an invitee; `None` if no answer is asked for, or the inviter's
    /// membership has ended.
    pub(super) fn told_by(&self, invitee: &PoolId) -> Option<&PoolId> {
        let pending = self.0.get(invitee).filter(|pending| !pending.ended);
        pending.map(|pending| &pending.inviter)
    }

    /// Whether an invitee has posted to the group before it answered.
    pub(super) fn has_posted(&self, invitee: &PoolId) -> bool {
        self.0.get(invitee).is_some_and(|pending| pending.posted)
    }

    /// The answer of a device as an event; `None` if none is asked for.
    pub(super) fn answered(&self, device: &PoolId, answer: InvitationAnswer) -> Option<Event> {
        let inviter = self.0.get(device)?.inviter.clone();
        Some(Event::InvitationAnswered { device: device.clone(), inviter, answer })
    }

    pub(super) fn pack(&self, out: &mut Packer) {
        out.number(self.0.len() as u64);
        for (device, PendingInvitation { inviter, ended, posted }) in &self.0 {
            out.pool(device);
            out.pool(inviter);
            out.flag(*ended);
            out.flag(*posted);
        }
    }

    pub(super) fn unpack(rest: &mut Unpacker<'_>) -> Option<Self> {
        let mut invitations = OrdMap::new();
        for _ in 0..rest.number()? {
            let (device, inviter) = (rest.pool()?, rest.pool()?);
            let pending = PendingInvitation { inviter, ended: rest.flag()?, posted: rest.flag()? };
            invitations.insert(device, pending);
        }
        Some(Self(invitations))
    }
}
