//! Commits of this device: made and pending, then merged or cleared.

use std::{collections::BTreeSet, fmt};

use data_encoding::HEXLOWER;
use keypool_ledger::{GroupId, Hash, PoolId, SignatureKey};
use openmls::{
    credentials::NewSignerBundle,
    framing::Sender,
    group::{
        CommitBuilder, CommitMessageBundle, Complete, Initial, Member, MlsGroup, QueuedProposal,
        QueuedRemoveProposal,
    },
    messages::proposals::Proposal,
    prelude::{LeafNodeIndex, LeafNodeParameters},
};
use openmls_traits::OpenMlsProvider;

use super::{
    MlsMembership, bytes_of, is_outdated, open, read_only::check_on, refused, removals::Room,
    signer_of,
};
use crate::{
    CommitPost, DeviceIdentity, GroupError, Staged,
    mls::peers::{forget_gone, named_members},
};

/// The prefix of the names of the records of pending Commits.
const RECORD_PREFIX: &str = "pending/";

/// A Commit that is made and waits to be accepted: then merge it. If it is refused, clear it.
#[derive(Clone, PartialEq, Eq)]
pub struct PendingCommit {
    /// The bytes for the members of the group.
    pub commit: Vec<u8>,
    /// The epoch it ends: the first Commit for an epoch wins.
    pub epoch: u64,
    /// The devices that are not in the group any more once it is accepted.
    pub removed: Vec<PoolId>,
}

impl PendingCommit {
    /// The Commit on its way to the members of its group.
    pub(crate) fn into_post(self, group: GroupId) -> CommitPost {
        let Self { commit, epoch, removed } = self;
        CommitPost { group, epoch, commit, removed, added: Vec::new(), welcome: Vec::new() }
    }
}

/// The purpose of a Commit, and the leaves that it removes by itself.
pub(super) type Shape<'a, F> = (F, &'a [LeafNodeIndex]);

/// The state of a Commit of this device in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommitState {
    /// The Commit waits to be merged or cleared.
    Pending,
    /// The group is still in its epoch, and it does not wait any more: it was cleared.
    Cleared,
    /// The group is in another epoch: it was merged, or another one was.
    Passed,
}

impl MlsMembership {
    /// Whether a Commit of this device waits to be merged or cleared.
    ///
    /// # Errors
    ///
    /// Returns a [`GroupError`] if the device is not in the group or the store cannot be read.
    pub fn has_pending_commit(&self, group: &GroupId) -> Result<bool, GroupError> {
        let staged = self.store.stage()?;
        Ok(open(&staged, group)?.pending_commit().is_some())
    }

    /// Makes the Commit that removes every leaf whose name is that member's. It is pending, as
    /// after [`MlsMembership::stage_add`].
    ///
    /// # Errors
    ///
    /// Returns [`GroupError::NotAMember`] if there is none, or another [`GroupError`]. Nothing has
    /// been written then.
    pub fn remove_member(
        &self,
        group: &GroupId,
        member: &PoolId,
    ) -> Result<PendingCommit, GroupError> {
        let staged = self.store.stage()?;
        let is_named = |_: &Member, name: &str| name == member.user() || name == member.to_string();
        let Some(pending) = self.remove_where_on(&staged, group, is_named)? else {
            return Err(GroupError::NotAMember { group: group.clone(), member: member.clone() });
        };
        staged.commit()?;
        Ok(pending)
    }

    /// Makes the Commit that removes a user's leaves, or those of one of their devices, as part of an
    /// operation; `None` if no member has the name.
    pub(crate) fn remove_user_on(
        &self,
        staged: &Staged<'_>,
        group: &GroupId,
        user: &str,
        device: Option<&str>,
    ) -> Result<Option<PendingCommit>, GroupError> {
        let is_named = |_: &Member, name: &str| {
            let its = name.parse::<PoolId>().ok().filter(|its| its.user() == user);
            its.is_some_and(|its| device.is_none_or(|device| its.device() == device))
        };
        self.remove_where_on(staged, group, is_named)
    }

    /// Makes the Commit that removes the leaves with some signature keys, as part of an operation;
    /// `None` if no member has one of them.
    pub(crate) fn remove_leaves_on(
        &self,
        staged: &Staged<'_>,
        group: &GroupId,
        keys: &[SignatureKey],
    ) -> Result<Option<PendingCommit>, GroupError> {
        let is_meant =
            |found: &Member, _: &str| keys.iter().any(|key| found.signature_key == key.as_bytes());
        self.remove_where_on(staged, group, is_meant)
    }

    fn remove_where_on(
        &self,
        staged: &Staged<'_>,
        group: &GroupId,
        is_meant: impl Fn(&Member, &str) -> bool,
    ) -> Result<Option<PendingCommit>, GroupError> {
        let state = open_for_commit(staged, group)?;
        let members = named_members(staged, &self.identity, &state)?;
        let meant = members.iter().filter(|(found, name)| is_meant(found, name));
        let leaves: Vec<LeafNodeIndex> = meant.map(|(found, _)| found.index).collect();
        if leaves.is_empty() {
            return Ok(None);
        }
        let removed = leaves.clone();
        let pending = self.pending_on(
            staged,
            group,
            state,
            (|commit| commit.propose_removals(removed), &leaves),
        )?;
        Ok(Some(pending))
    }

    /// Makes the Commit of the other members' proposals, as part of an operation;
    /// `None` if they have proposed nothing that this device would take up.
    pub(crate) fn take_up_on(
        &self,
        staged: &Staged<'_>,
        group: &GroupId,
    ) -> Result<Option<PendingCommit>, GroupError> {
        let state = open_for_commit(staged, group)?;
        let own = state.own_leaf_index();
        if !state.pending_proposals().any(|proposal| is_taken_up(proposal, own)) {
            return Ok(None);
        }
        self.pending_on(staged, group, state, (|commit| commit, &[])).map(Some)
    }

    /// Makes the Commit that replaces this device's keys in the group, and with them the leaf that
    /// came from its package and carries a lifetime. It is pending, as after
    /// [`MlsMembership::stage_add`]. `MlsClient::update_keys` posts it as well.
    ///
    /// # Errors
    ///
    /// Returns a [`GroupError`]. Nothing has been written then.
    pub fn self_update(&self, group: &GroupId) -> Result<PendingCommit, GroupError> {
        let staged = self.store.stage()?;
        let pending = self.self_update_on(&staged, group)?;
        staged.commit()?;
        Ok(pending)
    }

    /// [`MlsMembership::self_update`] as part of an operation that has more to write.
    pub(crate) fn self_update_on(
        &self,
        staged: &Staged<'_>,
        group: &GroupId,
    ) -> Result<PendingCommit, GroupError> {
        let state = open_for_commit(staged, group)?;
        if is_outdated(staged, &state, &self.identity)? {
            return self.rekey_on(staged, group, state);
        }
        self.pending_on(staged, group, state, (|commit| commit.force_self_update(true), &[]))
    }

    /// Makes the Commit that puts the device's key and credential in the place of those in its leaf.
    fn rekey_on(
        &self,
        staged: &Staged<'_>,
        group: &GroupId,
        mut state: MlsGroup,
    ) -> Result<PendingCommit, GroupError> {
        let epoch = state.epoch().as_u64();
        let (provider, own) = (staged.provider(), state.own_leaf_index());
        let old = signer_of(staged, &state, &self.identity)?;
        let mut room = Room::beside(named_members(staged, &self.identity, &state)?, own, &[]);
        let scheme = state.ciphersuite().signature_algorithm();
        let new = self.identity.keys().signing_key_or_new(staged, scheme)?;
        let credential_with_key = self.identity.credential_with(&new);
        let bundle = NewSignerBundle { signer: &new, credential_with_key };
        let capabilities = self.identity.capabilities(&provider, Vec::new());
        let leaf = LeafNodeParameters::builder().with_capabilities(capabilities).build();
        let built = state
            .commit_builder()
            .leaf_node_parameters(leaf)
            .force_self_update(true)
            .load_psks(provider.storage())
            .map_err(refused)?
            .build_with_new_signer(provider.rand(), provider.crypto(), &old, bundle, |proposal| {
                is_taken_up(proposal, own) && room.take(proposal)
            })
            .map_err(refused);
        let built = new.explain(old.explain(built))?;
        let made = built.stage_commit(&provider).map_err(refused)?;
        let commit = bytes_of(made.commit())?;
        remember_pending(staged, group, &commit)?;
        Ok(PendingCommit { commit, epoch, removed: self.removed_by(staged, &state)? })
    }

    /// Makes a Commit and notes that it is pending.
    fn pending_on(
        &self,
        staged: &Staged<'_>,
        group: &GroupId,
        mut state: MlsGroup,
        shape: Shape<'_, impl FnOnce(CommitBuilder<'_, Initial>) -> CommitBuilder<'_, Initial>>,
    ) -> Result<PendingCommit, GroupError> {
        let epoch = state.epoch().as_u64();
        let made = self.commit_on(staged, &mut state, shape)?;
        let commit = bytes_of(made.commit())?;
        remember_pending(staged, group, &commit)?;
        Ok(PendingCommit { commit, epoch, removed: self.removed_by(staged, &state)? })
    }

    /// Makes a Commit of the requested changes, and of others' proposals, as far as
    /// [`is_taken_up`] lets it in.
    pub(super) fn commit_on(
        &self,
        staged: &Staged<'_>,
        state: &mut MlsGroup,
        shape: Shape<'_, impl FnOnce(CommitBuilder<'_, Initial>) -> CommitBuilder<'_, Initial>>,
    ) -> Result<CommitMessageBundle, GroupError> {
        let provider = staged.provider();
        self.build_on(staged, state, shape, |built| built.stage_commit(&provider).map_err(refused))
    }

    /// Builds a Commit, of which nothing is staged yet, for the given use.
    pub(super) fn build_on<T>(
        &self,
        staged: &Staged<'_>,
        state: &mut MlsGroup,
        shape: Shape<'_, impl FnOnce(CommitBuilder<'_, Initial>) -> CommitBuilder<'_, Initial>>,
        then: impl FnOnce(CommitBuilder<'_, Complete>) -> Result<T, GroupError>,
    ) -> Result<T, GroupError> {
        let (provider, own) = (staged.provider(), state.own_leaf_index());
        let (shape, removed) = shape;
        let mut room = Room::beside(named_members(staged, &self.identity, state)?, own, removed);
        let take_up = |proposal: &QueuedProposal| match proposal.sender() {
            // What this Commit is made for.
            Sender::Member(sender) if *sender == own => !removes(proposal, own),
            _ => is_taken_up(proposal, own) && room.take(proposal),
        };
        let signer = signer_of(staged, state, &self.identity)?;
        let built = shape(state.commit_builder())
            .load_psks(provider.storage())
            .map_err(refused)?
            .build(provider.rand(), provider.crypto(), &signer, take_up)
            .map_err(refused);
        then(signer.explain(built)?)
    }

    /// The devices that the pending Commit removes with all of their leaves.
    pub(super) fn removed_by(
        &self,
        staged: &Staged<'_>,
        state: &MlsGroup,
    ) -> Result<Vec<PoolId>, GroupError> {
        let Some(commit) = state.pending_commit() else { return Ok(Vec::new()) };
        let leaves: Vec<LeafNodeIndex> =
            commit.remove_proposals().map(|remove| remove.remove_proposal().removed()).collect();
        let members = named_members(staged, &self.identity, state)?;
        let named = |(_, name): (Member, String)| name.parse::<PoolId>().ok();
        let (gone, staying): (Vec<_>, Vec<_>) =
            members.into_iter().partition(|(found, _)| leaves.contains(&found.index));
        let staying: BTreeSet<PoolId> = staying.into_iter().filter_map(named).collect();
        let gone: BTreeSet<PoolId> = gone.into_iter().filter_map(named).collect();
        Ok(gone.difference(&staying).cloned().collect())
    }

    /// Takes the pending Commit as the group's new state: it has been accepted. Returns the epoch
    /// the group is in then. If none is pending, nothing changes.
    ///
    /// # Errors
    ///
    /// Returns a [`GroupError`]. The Commit is still pending then.
    pub fn merge_pending_commit(&self, group: &GroupId) -> Result<u64, GroupError> {
        let staged = self.store.stage()?;
        let epoch = merge_pending(&staged, group)?;
        staged.commit()?;
        Ok(epoch)
    }

    /// Forgets the pending Commit: it was not accepted. If none is pending, nothing changes.
    ///
    /// # Errors
    ///
    /// Returns a [`GroupError`]. The Commit is still pending then.
    pub fn clear_pending_commit(&self, group: &GroupId) -> Result<(), GroupError> {
        let staged = self.store.stage()?;
        open(&staged, group)?.clear_pending_commit(&staged)?;
        Ok(staged.commit()?)
    }
}

/// Whether this device's Commits take up a proposal of another member: that somebody goes or has fresh
/// keys. Its own removal it cannot commit; and new members must have been invited, with a
/// package that is spent for it.
fn is_taken_up(proposal: &QueuedProposal, own: LeafNodeIndex) -> bool {
    match proposal.proposal() {
        Proposal::Remove(remove) => remove.removed() != own,
        Proposal::Update(_) => true,
        _ => false,
    }
}

fn removes(proposal: &QueuedProposal, leaf: LeafNodeIndex) -> bool {
    matches!(proposal.proposal(), Proposal::Remove(remove) if remove.removed() == leaf)
}

/// The names of the members whose own proposals to leave the pending Commit takes up, as an operation has them.
pub(crate) fn left_on(
    staged: &Staged<'_>,
    group: &GroupId,
    identity: &DeviceIdentity,
) -> Result<Vec<String>, GroupError> {
    let state = open(staged, group)?;
    let Some(commit) = state.pending_commit() else { return Ok(Vec::new()) };
    let own_wish = |remove: QueuedRemoveProposal<'_>| {
        let leaf = remove.remove_proposal().removed();
        (*remove.sender() == Sender::Member(leaf)).then_some(leaf)
    };
    let leaves: Vec<LeafNodeIndex> = commit.remove_proposals().filter_map(own_wish).collect();
    let members = named_members(staged, identity, &state)?.into_iter();
    Ok(members.filter(|(found, _)| leaves.contains(&found.index)).map(|(_, name)| name).collect())
}

/// The state of a Commit, as the operation leaves its group. Another Commit of the same epoch is not
/// taken for it.
pub(crate) fn standing_on(
    staged: &Staged<'_>,
    post: &CommitPost,
) -> Result<CommitState, GroupError> {
    let state = open(staged, &post.group)?;
    if state.epoch().as_u64() != post.epoch {
        return Ok(CommitState::Passed);
    }
    let pending: Option<Hash> = staged.app_record(&record_name(&post.group))?;
    let is_it = pending == Some(Hash::of(&post.commit)) && state.pending_commit().is_some();
    Ok(if is_it { CommitState::Pending } else { CommitState::Cleared })
}

/// Merges a Commit that has been accepted, as part of an operation, if it is pending.
pub(crate) fn merge_on(staged: &Staged<'_>, post: &CommitPost) -> Result<CommitState, GroupError> {
    let standing = standing_on(staged, post)?;
    if standing == CommitState::Pending {
        merge_pending(staged, &post.group)?;
    }
    Ok(standing)
}

/// Merges the pending Commit of a group, as part of an operation. Returns the epoch after it.
fn merge_pending(staged: &Staged<'_>, group: &GroupId) -> Result<u64, GroupError> {
    let mut state = open(staged, group)?;
    state.merge_pending_commit(&staged.provider()).map_err(refused)?;
    let members: Vec<Member> = state.members().collect();
    forget_gone(staged, group, &members)?;
    Ok(state.epoch().as_u64())
}

/// Clears a Commit that has not been accepted, as part of an operation, if it is pending. A group
/// that the device has left has none.
pub(crate) fn clear_on(staged: &Staged<'_>, post: &CommitPost) -> Result<(), GroupError> {
    match standing_on(staged, post) {
        Ok(CommitState::Pending) => Ok(open(staged, &post.group)?.clear_pending_commit(staged)?),
        Ok(CommitState::Cleared | CommitState::Passed) | Err(GroupError::NotInGroup { .. }) => {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Notes which Commit is pending, so that no other one is taken for it.
pub(super) fn remember_pending(
    staged: &Staged<'_>,
    group: &GroupId,
    commit: &[u8],
) -> Result<(), GroupError> {
    Ok(staged.put_app_record(&record_name(group), &Hash::of(commit))?)
}

fn record_name(group: &GroupId) -> String {
    format!("{RECORD_PREFIX}{}", HEXLOWER.encode(group.as_bytes()))
}

/// The state of a group that has no Commit pending.
pub(super) fn open_for_commit(
    staged: &Staged<'_>,
    group: &GroupId,
) -> Result<MlsGroup, GroupError> {
    let state = open(staged, group)?;
    check_on(staged, group)?;
    match state.pending_commit() {
        Some(_) => Err(GroupError::CommitPending { group: group.clone() }),
        None => Ok(state),
    }
}

impl fmt::Debug for PendingCommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingCommit").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}
