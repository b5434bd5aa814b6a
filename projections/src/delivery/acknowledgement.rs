//! Acknowledgements: the device has stored the items that waited, and was told of those that were not kept.

use std::collections::BTreeSet;

use keypool_ledger::{Event, GroupId, PoolId, WelcomeFault};

use super::{DeliveryRejection, MailboxState, group_budget::GroupBudget};

/// A device's request to delete the messages that it has read from its mailbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The position of the last thing it has.
    pub through: u64,
    /// Whether it has been told that the whole mailbox was overrun.
    pub overrun: bool,
    /// The groups that it has joined.
    pub accepted: Vec<GroupId>,
    /// The groups that it could not join from their Welcomes, and why.
    pub failed: Vec<(GroupId, WelcomeFault)>,
    /// The groups of which it has been told that something was not kept.
    pub told: Vec<GroupId>,
    /// The awaited devices of which it has been told that they have something to hand out.
    pub available: Vec<PoolId>,
}

impl MailboxState {
    /// Decides the event that an acknowledgement causes in the mailbox; `None` if it changes nothing there.
    ///
    /// `told` and `overrun` say of which groups, and whether of the whole mailbox, the device has been
    /// told that something was not kept; until then nothing more is kept there. `accepted` are the
    /// groups that the device has joined. The answers to invitations are decided by the groups.
    ///
    /// # Errors
    ///
    /// Returns [`DeliveryRejection::NeverGiven`] if the position lies beyond `last`, the last of the log.
    pub fn decide_acknowledge(
        &self,
        asked: &Acknowledgement,
        last: u64,
    ) -> Result<Option<Event>, DeliveryRejection> {
        let Acknowledgement { through, overrun, accepted, told, available, failed: _ } = asked;
        if last < *through {
            return Err(DeliveryRejection::NeverGiven(*through));
        }
        let those = |groups: &[GroupId], is_meant: fn(&GroupBudget) -> bool| -> Vec<GroupId> {
            let is_meant = |group: &&GroupId| self.groups.get(*group).is_some_and(is_meant);
            distinct(groups).filter(is_meant).cloned().collect()
        };
        let accepted = those(accepted, |budget| budget.invited.is_some());
        let told = those(told, |budget| budget.closed || !budget.closed_senders.is_empty());
        let available = distinct(available).filter(|device| self.list.is_available(device));
        let available: Vec<PoolId> = available.cloned().collect();
        let overrun = *overrun && self.overrun;
        let drops = self.waiting.front().is_some_and(|waiting| waiting.position <= *through);
        let is_told = overrun || !told.is_empty() || !available.is_empty();
        let changes = drops || is_told || !accepted.is_empty();
        let through = *through;
        let event = Event::Acknowledged { through, overrun, accepted, told, available };
        Ok(changes.then_some(event))
    }
}

/// The distinct names of a list, in order.
fn distinct<T: Ord>(names: &[T]) -> impl Iterator<Item = &T> {
    names.iter().collect::<BTreeSet<_>>().into_iter()
}
