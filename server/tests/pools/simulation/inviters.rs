//! The requests of a device to the pools of others, and to the delivery.

use keypool_ledger::{GroupId, KeyPackageRef, PoolId, ReservationId, WelcomeFault};
use keypool_projections::{Acknowledgement, Claim, Command, RequiredCapabilities};
use keypool_server::pools::{AwaitedInvitee, DeliveryCommand, Target, Welcome};

use super::{calls::Ask, owners::RECENT_MAX, world::World};
use crate::history::group;

impl World {
    pub(crate) fn inviter_command(&mut self, agent: usize) -> Option<Ask> {
        let drawn = self.dice.below(100);
        let held = self.dice.pick(&self.agents[agent].holds).cloned();
        let Some((claim, group)) = held.filter(|_| 50 <= drawn) else {
            return self.reserve(agent);
        };
        let target = Target::Package(claim.keypackage_ref.clone());
        let command = match drawn {
            50..60 => Command::Renew(claim),
            60..67 => Command::Release(self.forget(agent, claim, 8_000)),
            67..71 => Command::Report {
                claim: self.forget(agent, claim, 8_000),
                check: None,
                admissible: self.dice.chance(5_000),
            },
            71..74 => {
                // Somebody who was told of a reservation that is another's.
                let claim = Claim { holder: self.some_device(), ..claim };
                Command::Spend { claim, group }
            }
            _ => Command::Spend { claim: self.forget(agent, claim, 7_000), group },
        };
        Some(self.request(target, command))
    }

    fn reserve(&self, agent: usize) -> Option<Ask> {
        let holder = self.agents[agent].device.clone();
        let target = self.some_device();
        if target == holder && self.dice.chance(9_500) {
            return None;
        }
        let made = match self.dice.below(40) {
            0 => self.dice.pick(&self.agents[agent].holds).map(|(claim, _)| claim.reservation),
            1 => self.dice.pick(&self.recent.borrow().1).copied(),
            _ => None,
        };
        let reservation = made.unwrap_or_else(|| ReservationId(self.dice.uuid()));
        let mut recent = self.recent.borrow_mut();
        recent.1.push(reservation);
        if RECENT_MAX < recent.1.len() {
            recent.1.remove(0);
        }
        let introduced = holder.user() == target.user() || self.dice.chance(500);
        let is_over = self.rates.is_among_strangers && !introduced && self.dice.chance(1_000);
        let command = Command::Reserve {
            reservation,
            group: self.group_for(&holder),
            ciphersuites: if self.dice.chance(2_000) { vec![1] } else { Vec::new() },
            required: RequiredCapabilities::default(),
            introduced,
            last_resort_only: is_over,
            holder,
        };
        Some(self.request(Target::Pool(target), command))
    }

    /// A group that the device is a member of, or one that no server knows.
    fn group_for(&self, device: &PoolId) -> GroupId {
        let known = self.some_group();
        let state = self.observer.deliveries.groups.get(&known);
        let is_member = state.is_some_and(|state| state.has_member(device));
        if is_member || self.dice.chance(500) { known } else { group(device.user()) }
    }

    /// Has a device forget a reservation, mostly: it may ask for the impossible later.
    fn forget(&mut self, agent: usize, claim: Claim, chance: u64) -> Claim {
        if self.dice.chance(chance) {
            self.agents[agent].holds.retain(|(held, _)| held.reservation != claim.reservation);
        }
        claim
    }

    pub(crate) fn delivery_command(&mut self, agent: usize) -> Option<DeliveryCommand> {
        let device = self.agents[agent].device.clone();
        let group = self.some_group();
        match self.dice.below(100) {
            0..12 => Some(DeliveryCommand::Make { group }),
            12..45 => self.commit(agent),
            45..65 => {
                let message = self.dice.next().to_be_bytes().to_vec();
                Some(DeliveryCommand::Post { group, message })
            }
            65..68 => Some(DeliveryCommand::Leave { group }),
            68..90 => Some(DeliveryCommand::Acknowledge(self.acknowledgement(&device))),
            _ => {
                let (invitee, other) = (self.some_device(), self.some_device());
                let invitee = AwaitedInvitee { device: invitee, introduced: false, over: None };
                let stop = if self.dice.chance(3_000) { vec![other] } else { Vec::new() };
                Some(DeliveryCommand::Await { invitees: vec![invitee], stop })
            }
        }
    }

    /// A Commit in a group of the device's, with the packages that it has for the group.
    fn commit(&mut self, agent: usize) -> Option<DeliveryCommand> {
        let (group, device) = (self.some_group(), &self.agents[agent].device);
        let state = self.observer.deliveries.groups.get(&group)?;
        if !state.has_member(device) && self.dice.chance(9_500) {
            return None;
        }
        let epoch = state.epoch() + u64::from(self.dice.chance(300));
        let others: Vec<PoolId> = state.members().filter(|one| *one != device).cloned().collect();
        let removed = if self.dice.chance(1_000) { self.dice.pick(&others) } else { None };
        let removed = removed.into_iter().cloned().collect();
        let held = self.agents[agent].holds.iter().filter(|(_, for_group)| *for_group == group);
        let spends: Vec<Claim> = held.map(|(claim, _)| claim.clone()).take(2).collect();
        let spends: Vec<Claim> =
            spends.into_iter().map(|claim| self.forget(agent, claim, 7_000)).collect();
        let refs: Vec<KeyPackageRef> =
            spends.iter().map(|claim| claim.keypackage_ref.clone()).collect();
        let welcome = Welcome { bytes: b"welcome".to_vec(), keypackage_refs: refs };
        let welcomes = if spends.is_empty() { Vec::new() } else { vec![welcome] };
        let commit = self.dice.next().to_be_bytes().to_vec();
        Some(DeliveryCommand::Commit { group, epoch, commit, welcomes, spends, removed })
    }

    /// Acknowledges some items of a device's mailbox, and answers invitations.
    pub(crate) fn acknowledgement(&self, device: &PoolId) -> Acknowledgement {
        let Some(mailbox) = self.observer.deliveries.mailboxes.get(device) else {
            return Acknowledgement::default();
        };
        let waiting: Vec<u64> = mailbox.after(0).map(|waiting| waiting.position).collect();
        let mut groups: Vec<GroupId> = mailbox.groups().cloned().collect();
        let failed = if self.dice.chance(3_000) { groups.pop() } else { None };
        Acknowledgement {
            through: self.dice.pick(&waiting).copied().unwrap_or_default(),
            overrun: mailbox.is_overrun(),
            accepted: groups,
            failed: failed.into_iter().map(|group| (group, WelcomeFault::Unreadable)).collect(),
            told: mailbox.closed().map(|closed| closed.group).collect(),
            available: mailbox.available().cloned().collect(),
        }
    }
}
