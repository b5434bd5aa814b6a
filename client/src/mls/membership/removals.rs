//! Limits the removals that a Commit takes up from proposals to one user: the server accepts no Commit that
//! removes many users at once, and one user it always accepts. Other proposals to leave are made again in
//! the next epoch.

use std::collections::{BTreeMap, BTreeSet};

use keypool_ledger::PoolId;
use openmls::{
    group::{Member, QueuedProposal},
    messages::proposals::Proposal,
    prelude::LeafNodeIndex,
};

/// The room that one Commit has for removals.
pub(super) struct Room {
    /// The users of the other leaves, by leaf.
    others: BTreeMap<u32, String>,
    /// The users whose leaves the Commit removes.
    gone: BTreeSet<String>,
}

impl Room {
    /// The room of a Commit in a group with these members, that removes some leaves by itself.
    pub(super) fn beside(
        members: Vec<(Member, String)>,
        own: LeafNodeIndex,
        removed: &[LeafNodeIndex],
    ) -> Self {
        let user = |name: String| match name.parse::<PoolId>() {
            Ok(pool) => pool.user().to_owned(),
            Err(_) => name,
        };
        let leaves = members.into_iter().map(|(found, name)| (found.index.u32(), user(name)));
        let mut others: BTreeMap<u32, String> = leaves.collect();
        let own = others.get(&own.u32()).cloned();
        others.retain(|_, user| Some(&*user) != own.as_ref());
        let gone = removed.iter().filter_map(|leaf| others.get(&leaf.u32()).cloned()).collect();
        Self { others, gone }
    }

    /// Whether a proposal has a place in the Commit, and takes it.
    pub(super) fn take(&mut self, proposal: &QueuedProposal) -> bool {
        let Proposal::Remove(remove) = proposal.proposal() else { return true };
        let Some(user) = self.others.get(&remove.removed().u32()) else { return true };
        if self.gone.is_empty() {
            self.gone.insert(user.clone());
        }
        self.gone.contains(user)
    }
}
