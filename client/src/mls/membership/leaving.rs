//! Leaving a group: nobody can commit their own removal (RFC 9420 section 12.4), so a leaving member proposes
//! it, and the next member's Commit takes it up.

use data_encoding::HEXLOWER;
use keypool_ledger::GroupId;
use openmls::treesync::{LeafNode, LeafNodeSource};
use serde::{Deserialize, Serialize};

use super::{
    MlsMembership, bytes_of, commits::open_for_commit, delete, forget, is_outdated, open, refused,
    signer_of,
};
use crate::{GroupError, Staged, StorageError};

/// The prefix of the names of the records of groups that are being left.
const RECORD_PREFIX: &str = "leaving/";

/// A group that the device is leaving, and the epoch in which it has last said so: a proposal counts in
/// its epoch alone.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Leaving {
    group: GroupId,
    proposed_in: u64,
}

impl MlsMembership {
    /// The groups that the device has left and whose other members have not committed that yet.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store cannot be read.
    pub fn leaving(&self) -> Result<Vec<GroupId>, StorageError> {
        groups_on(&self.store.stage()?)
    }

    /// Whether this device's leaf is still the one from its package, which has a lifetime, or names a key or
    /// carries a credential that is not the device's any more: `update_keys` replaces it.
    ///
    /// # Errors
    ///
    /// Returns a [`GroupError`] if the device is not in the group or the store cannot be read.
    pub fn needs_fresh_keys(&self, group: &GroupId) -> Result<bool, GroupError> {
        let staged = self.store.stage()?;
        let state = open(&staged, group)?;
        let source = state.own_leaf_node().map(LeafNode::leaf_node_source);
        let is_from_package = matches!(source, Some(LeafNodeSource::KeyPackage(_)));
        let is_due = is_from_package || is_outdated(&staged, &state, &self.identity)?;
        Ok(is_due && state.members().count() > 1)
    }

    /// Makes the proposal that this device be removed, as part of an operation. The group is not listed
    /// any more. `None` if the proposal of this epoch was made before, or if nobody else is in the group:
    /// then all that is left of it is deleted.
    pub(crate) fn leave_on(
        &self,
        staged: &Staged<'_>,
        group: &GroupId,
    ) -> Result<Option<Vec<u8>>, GroupError> {
        let mut state = match open(staged, group) {
            Err(error @ GroupError::NotInGroup { .. }) => {
                let was_leaving = staged.app_record::<Leaving>(&record_name(group))?.is_some();
                end_on(staged, group);
                return if was_leaving { Ok(None) } else { Err(error) };
            }
            state => state?,
        };
        if state.members().count() < 2 {
            delete(staged, &mut state)?;
            forget(staged, group);
            return Ok(None);
        }
        let epoch = state.epoch().as_u64();
        let before: Option<Leaving> = staged.app_record(&record_name(group))?;
        if before.is_some_and(|leaving| leaving.proposed_in == epoch) {
            return Ok(None);
        }
        let mut state = open_for_commit(staged, group)?;
        let signer = signer_of(staged, &state, &self.identity)?;
        let proposal = state.leave_group(&staged.provider(), &signer).map_err(refused);
        let proposal = signer.explain(proposal)?;
        forget(staged, group);
        let leaving = Leaving { group: group.clone(), proposed_in: epoch };
        staged.put_app_record(&record_name(group), &leaving)?;
        bytes_of(&proposal).map(Some)
    }
}

/// The groups that are being left, as an operation has them.
pub(super) fn groups_on(staged: &Staged<'_>) -> Result<Vec<GroupId>, StorageError> {
    let mut groups = Vec::new();
    for name in staged.app_record_names(RECORD_PREFIX)? {
        groups.extend(staged.app_record::<Leaving>(&name)?.map(|leaving| leaving.group));
    }
    Ok(groups)
}

/// Takes note that the device is out of a group, or in it anew.
pub(super) fn end_on(staged: &Staged<'_>, group: &GroupId) {
    staged.remove_app_record(&record_name(group));
}

fn record_name(group: &GroupId) -> String {
    format!("{RECORD_PREFIX}{}", HEXLOWER.encode(group.as_bytes()))
}
