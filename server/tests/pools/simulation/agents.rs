//! The devices: each owns a pool, invites others, and repeats its requests until it knows their outcomes.

use keypool_ledger::{CommandId, GroupId, Hash, PoolId, SignatureKey};
use keypool_projections::{Answer, Claim, Command};
use keypool_server::pools::{DeliveryCommand, DeliveryRequest, Request, Target};

use super::{
    calls::{Ask, Call, Meaning, Outcome},
    world::World,
};
use crate::history::{group, pool};

/// How many requests of a device wait for their outcomes before it makes no new ones.
const PENDING_MAX: usize = 6;
const USERS: [&str; 4] = ["anna", "bert", "carl", "dora"];

/// A device of a user.
pub(crate) struct Agent {
    pub(crate) device: PoolId,
    /// The reservations that it was told of and has not ended, as far as it knows.
    pub(crate) holds: Vec<(Claim, GroupId)>,
    /// The calls whose outcomes it does not know, and those whose it does.
    pending: Vec<usize>,
    done: Vec<usize>,
}

impl Agent {
    /// The device with a number: the users' first devices, and then their second ones.
    pub(crate) fn new(number: u64) -> Self {
        let number = usize::try_from(number).unwrap();
        let device = ["phone", "pad"][number / USERS.len()];
        let device = pool(&format!("{}/{device}", USERS[number % USERS.len()]));
        Self { device, holds: Vec::new(), pending: Vec::new(), done: Vec::new() }
    }
}

impl World {
    /// A device makes a request, or makes one again.
    pub(crate) fn act(&mut self) {
        let agent = self.dice.index(self.agents.len());
        let Agent { pending, done, .. } = &self.agents[agent];
        let is_full = PENDING_MAX <= pending.len();
        if (is_full || self.dice.chance(2_500))
            && let Some(call) = self.dice.pick(pending).copied()
        {
            return self.send(call);
        }
        if self.dice.chance(800)
            && let Some(call) = self.dice.pick(done).copied()
        {
            if self.dice.chance(2_000) {
                return self.misuse(call);
            }
            return self.send(call);
        }
        let drawn = self.dice.below(100);
        let ask = match drawn {
            _ if drawn < self.rates.deliveries => {
                self.delivery_command(agent).map(|command| self.delivery(agent, command))
            }
            0..65 => self.inviter_command(agent),
            _ => self.owner_command(agent).map(|command| self.to_own_pool(agent, command)),
        };
        if let Some(ask) = ask {
            self.call(agent, ask);
        }
    }

    /// Makes a new request of a device.
    pub(crate) fn call(&mut self, agent: usize, ask: Ask) -> usize {
        let call = self.calls.len();
        let device = self.agents[agent].device.clone();
        self.say(|| format!("{device} calls {call}: {ask:?}"));
        self.calls.push(Call { agent, device, ask, is_misuse: false, is_known: false });
        self.agents[agent].pending.push(call);
        self.send(call);
        call
    }

    /// Uses the id of a request that was recorded for another request.
    fn misuse(&mut self, call: usize) {
        let Call { agent, device, ask, .. } = &self.calls[call];
        let (agent, device, mut ask) = (*agent, device.clone(), ask.clone());
        if !ask.id().is_some_and(|id| self.told.contains_key(&id)) {
            return;
        }
        match &mut ask {
            Ask::Pool(Request { digest, .. }) | Ask::Deliver(DeliveryRequest { digest, .. }) => {
                *digest = Hash::of(digest.as_bytes());
            }
            _ => return,
        }
        let misuse = self.calls.len();
        self.calls.push(Call { agent, device, ask, is_misuse: true, is_known: true });
        self.send(misuse);
    }

    pub(crate) fn to_own_pool(&self, agent: usize, command: Command) -> Ask {
        let target = Target::Pool(self.agents[agent].device.clone());
        self.request(target, command)
    }

    pub(crate) fn request(&self, target: Target, command: Command) -> Ask {
        let id = CommandId(self.dice.uuid());
        Ask::Pool(Request { target, command, id, digest: Hash::of(id.0.as_bytes()) })
    }

    pub(crate) fn delivery(&self, agent: usize, command: DeliveryCommand) -> Ask {
        let (id, caller) = (CommandId(self.dice.uuid()), self.agents[agent].device.clone());
        Ask::Deliver(DeliveryRequest { command, caller, id, digest: Hash::of(id.0.as_bytes()) })
    }

    /// A device is told an outcome.
    pub(crate) fn learn(&mut self, call: usize, outcome: &Outcome) {
        let Call { agent, is_known, ask, .. } = &mut self.calls[call];
        if *is_known || outcome.meaning() == Meaning::Unknown {
            return;
        }
        *is_known = true;
        let agent = &mut self.agents[*agent];
        agent.pending.retain(|pending| *pending != call);
        agent.done.push(call);
        let (Ask::Pool(request), Some(reply)) = (ask, outcome.reply()) else { return };
        if let (
            Command::Reserve { holder, group, .. },
            Answer::Reserved { facts, reservation, .. },
        ) = (&request.command, &reply.answer)
        {
            let (keypackage_ref, holder) = (facts.keypackage_ref.clone(), holder.clone());
            let claim = Claim { keypackage_ref, reservation: *reservation, holder };
            agent.holds.push((claim, group.clone()));
        }
    }

    /// Draws a key that nobody has had.
    pub(crate) fn new_key(&self) -> SignatureKey {
        SignatureKey::new(Hash::of(&self.dice.next().to_be_bytes()).as_bytes()).unwrap()
    }

    /// The key that speaks for a device.
    pub(crate) fn key_of(&self, device: &PoolId) -> Option<SignatureKey> {
        self.observer.pools.get(device)?.key.clone()
    }

    pub(crate) fn some_device(&self) -> PoolId {
        self.agents[self.dice.index(self.agents.len())].device.clone()
    }

    pub(crate) fn some_group(&self) -> GroupId {
        group(&format!("g{}", self.dice.below(6)))
    }
}
