//! How many users a Commit removes: the server takes Commits that remove the devices of at most half of the
//! other users, and of one in any case. Proposals beyond that are passed over, and made again in the next epoch.

use std::collections::{BTreeMap, BTreeSet};

use keypool_ledger::PoolId;
use openmls::{
    group::{MlsGroup, QueuedProposal},
    messages::proposals::Proposal,
    prelude::LeafNodeIndex,
};

use crate::mls::name_in;

/// The room that one Commit has for removals.
pub(super) struct Room {
    /// The users of the other leaves, by leaf.
    others: BTreeMap<u32, String>,
    gone: BTreeSet<String>,
    users_max: usize,
}

impl Room {
    /// The room of a Commit in a group that removes some leaves by itself.
    pub(super) fn beside(state: &MlsGroup, removed: &[LeafNodeIndex]) -> Self {
        let user = |name: String| match name.parse::<PoolId>() {
            Ok(pool) => pool.user().to_owned(),
            Err(_) => name,
        };
        let leaves = state
            .members()
            .map(|found| (found.index.u32(), user(name_in(&found.credential).unwrap_or_default())));
        let mut others: BTreeMap<u32, String> = leaves.collect();
        let own = others.get(&state.own_leaf_index().u32()).cloned();
        others.retain(|_, user| Some(&*user) != own.as_ref());
        let users: BTreeSet<&String> = others.values().collect();
        let users_max = (users.len() / 2).max(1);
        let gone = removed.iter().filter_map(|leaf| others.get(&leaf.u32()).cloned()).collect();
        Self { others, gone, users_max }
    }

    /// Whether a proposal has a place in the Commit, and takes it.
    pub(super) fn take(&mut self, proposal: &QueuedProposal) -> bool {
        let Proposal::Remove(remove) = proposal.proposal() else { return true };
        let Some(user) = self.others.get(&remove.removed().u32()) else { return true };
        if self.gone.contains(user) {
            return true;
        }
        let has_room = self.gone.len() < self.users_max;
        if has_room {
            self.gone.insert(user.clone());
        }
        has_room
    }
}
