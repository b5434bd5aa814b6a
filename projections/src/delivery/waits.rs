//! The fold of waiting lists: each entry has an end in two mailboxes, the inviter's and the awaited device's.

use keypool_ledger::{GroupId, PoolId, Timestamp};

use super::{Deliveries, GroupState, MailboxState, States, Touched};

impl<G, M> Deliveries<G, M>
where
    G: States<GroupId, GroupState>,
    M: States<PoolId, MailboxState>,
{
    /// Takes in that a device waits for packages of others. Entries of its list that are over free their
    /// places. Returns the devices whose mailboxes have changed beside its own.
    pub(super) fn await_packages(
        &mut self,
        inviter: &PoolId,
        (targets, as_stranger): (&[PoolId], &[PoolId]),
        until: Timestamp,
        at: Timestamp,
    ) -> Vec<PoolId> {
        let list = &mut self.mailboxes.get_or_new(inviter).list;
        let mut noted = list.remove_over(at);
        for device in targets {
            list.begin(device, until);
        }
        self.end_awaiter(inviter, &noted);
        for device in targets {
            let list = &mut self.mailboxes.get_or_new(device).list;
            list.begin_awaiter(inviter, until, as_stranger.contains(device));
        }
        noted.extend_from_slice(targets);
        noted
    }

    /// Takes in that a device does not wait for others any more; returns those.
    pub(super) fn stop_awaiting(&mut self, inviter: &PoolId, targets: &[PoolId]) -> Vec<PoolId> {
        if let Some(mailbox) = self.mailboxes.get_mut(inviter) {
            for device in targets {
                mailbox.list.end(device);
                mailbox.list.note_told(device);
            }
        }
        self.end_awaiter(inviter, targets);
        targets.to_vec()
    }

    fn end_awaiter(&mut self, inviter: &PoolId, targets: &[PoolId]) {
        for device in targets {
            if let Some(mailbox) = self.mailboxes.get_mut(device) {
                mailbox.list.end_awaiter(inviter);
            }
        }
    }

    /// Takes in that a package of a device has arrived: the inviters that wait for it are told.
    pub(super) fn arrive(&mut self, device: &PoolId, at: Timestamp) -> Touched {
        let mailboxes = self.take_awaiters(device, |_, _| true);
        for inviter in &mailboxes {
            if let Some(mailbox) = self.mailboxes.get_mut(inviter) {
                mailbox.list.arrive(device, at);
            }
        }
        let noted = if mailboxes.is_empty() { Vec::new() } else { vec![device.clone()] };
        Touched { mailboxes, noted, ..Touched::default() }
    }

    /// Ends the waits for packages of a device by some inviters, which are not told; returns the devices
    /// whose mailboxes have changed.
    pub(super) fn end_waits(
        &mut self,
        device: &PoolId,
        is_meant: impl Fn(&PoolId, bool) -> bool,
    ) -> Vec<PoolId> {
        let mut noted = self.take_awaiters(device, is_meant);
        for inviter in &noted {
            if let Some(mailbox) = self.mailboxes.get_mut(inviter) {
                mailbox.list.end(device);
            }
        }
        noted.push(device.clone());
        noted
    }

    /// Ends the waits of a device that was removed, and those for its packages; returns the devices whose
    /// mailboxes have changed.
    pub(super) fn end_all_waits(&mut self, device: &PoolId) -> Vec<PoolId> {
        let mailbox = self.mailboxes.get_mut(device);
        let awaited = mailbox.map(|mailbox| mailbox.list.awaited()).unwrap_or_default();
        let mut noted = self.end_waits(device, |_, _| true);
        noted.extend(self.stop_awaiting(device, &awaited));
        noted
    }

    fn take_awaiters(
        &mut self,
        device: &PoolId,
        is_meant: impl Fn(&PoolId, bool) -> bool,
    ) -> Vec<PoolId> {
        let mailbox = self.mailboxes.get_mut(device);
        mailbox.map(|mailbox| mailbox.list.take_awaiters(is_meant)).unwrap_or_default()
    }
}
