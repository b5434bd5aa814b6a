//! The device's groups: made, grown, shrunk, joined, spoken in.
//!
//! Every operation is staged on the store and committed as one write, before anything of it leaves
//! this device.

mod joining;
mod messages;
mod offers;

use std::{fmt, sync::Arc, time::Duration};

use data_encoding::HEXLOWER;
use keypool_ledger::{GroupId, KeyPackageRef, PoolId, SignatureKey, Timestamp};
use openmls::{
    framing::MlsMessageOut,
    group::{
        MIXED_CIPHERTEXT_WIRE_FORMAT_POLICY, MlsGroup, MlsGroupCreateConfig, MlsGroupJoinConfig,
    },
    key_packages::Lifetime,
    prelude::{LeafNodeIndex, LeafNodeParameters},
};
use openmls_traits::types::Ciphersuite;

pub use self::{
    joining::Joined,
    messages::{Change, Received},
    offers::OfferedPackage,
};
use super::{CIPHERSUITE, CLOCK_SKEW, capabilities, name_in, names};
use crate::{AddError, DeviceIdentity, GroupError, LocalStore, Staged, StorageError};

/// What the names of the records of groups begin with.
const RECORD_PREFIX: &str = "group/";
/// Messages are padded to a multiple of this many bytes, so that their lengths tell less.
const PADDING_BYTES: usize = 128;
/// How many past epochs' messages can still be opened: those that crossed a Commit on their way.
const PAST_EPOCHS_MAX: usize = 3;
/// How long the leaf of a group's maker may be used before it is updated.
const FOUNDER_LIFETIME: Duration = Duration::from_hours(84 * 24);

/// The device's groups, over its store. It speaks to no server.
#[derive(Clone, Debug)]
pub struct MlsMembership {
    store: Arc<LocalStore>,
    identity: DeviceIdentity,
}

/// A Commit that is made and waits to be accepted: then merge it. If it is refused, clear it.
#[derive(Clone, PartialEq, Eq)]
pub struct PendingCommit {
    /// The bytes for the members of the group.
    pub commit: Vec<u8>,
    /// The epoch it ends: the first Commit for an epoch wins.
    pub epoch: u64,
}

/// A Commit that adds members, and the Welcome for them: to be handed over once the Commit has
/// been accepted, not before (RFC 9420 section 12.4.3).
#[derive(Clone, PartialEq, Eq)]
pub struct PendingAdd {
    /// The bytes for the members of the group.
    pub commit: Vec<u8>,
    /// The bytes for the new members.
    pub welcome: Vec<u8>,
    /// The epoch it ends: the first Commit for an epoch wins.
    pub epoch: u64,
    /// The packages it uses.
    pub keypackage_refs: Vec<KeyPackageRef>,
}

/// One member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// The name in its credential: `user/device`, or what another implementation puts there.
    pub name: String,
    /// Its public signature key; `None` where it is of no kind known here.
    pub signature_key: Option<SignatureKey>,
    /// Its place in the group.
    pub leaf_index: u32,
}

impl MlsMembership {
    /// The groups of a store's device.
    #[must_use]
    pub fn new(store: Arc<LocalStore>, identity: DeviceIdentity) -> Self {
        Self { store, identity }
    }

    /// Makes a group with this device as its only member.
    ///
    /// # Errors
    ///
    /// Returns [`GroupError::AlreadyInGroup`] if the id is taken, or another [`GroupError`].
    /// Nothing has been written then.
    pub fn create_group(&self, group: &GroupId, now: Timestamp) -> Result<(), GroupError> {
        let staged = self.store.stage()?;
        if load(&staged, group)?.is_some() {
            return Err(GroupError::AlreadyInGroup { group: group.clone() });
        }
        let provider = staged.provider();
        let lifetime =
            Lifetime::init(now.before(CLOCK_SKEW).as_secs(), now.after(FOUNDER_LIFETIME).as_secs());
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(CIPHERSUITE)
            .capabilities(capabilities(&provider))
            .lifetime(lifetime)
            .wire_format_policy(MIXED_CIPHERTEXT_WIRE_FORMAT_POLICY)
            .padding_size(PADDING_BYTES)
            .max_past_epochs(PAST_EPOCHS_MAX)
            .use_ratchet_tree_extension(true)
            .build();
        let (signer, credential) = (self.identity.signer(), self.identity.credential());
        let id = openmls::group::GroupId::from_slice(group.as_bytes());
        MlsGroup::new_with_group_id(&provider, signer, &config, id, credential).map_err(refused)?;
        remember(&staged, group)?;
        Ok(staged.commit()?)
    }

    /// The groups the device is in, in the order of their ids' hex.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store cannot be read.
    pub fn groups(&self) -> Result<Vec<GroupId>, StorageError> {
        let staged = self.store.stage()?;
        let mut groups = Vec::new();
        for name in staged.app_record_names(RECORD_PREFIX)? {
            groups.extend(staged.app_record::<GroupId>(&name)?);
        }
        Ok(groups)
    }

    /// The members of a group, this device included.
    ///
    /// # Errors
    ///
    /// Returns a [`GroupError`] if the device is not in the group or the store cannot be read.
    pub fn members(&self, group: &GroupId) -> Result<Vec<GroupMember>, GroupError> {
        let staged = self.store.stage()?;
        Ok(members_of(&open(&staged, group)?))
    }

    /// The epoch a group is in.
    ///
    /// # Errors
    ///
    /// Returns a [`GroupError`] if the device is not in the group or the store cannot be read.
    pub fn epoch(&self, group: &GroupId) -> Result<u64, GroupError> {
        let staged = self.store.stage()?;
        Ok(open(&staged, group)?.epoch().as_u64())
    }

    /// Whether a Commit of this device waits to be merged or cleared.
    ///
    /// # Errors
    ///
    /// Returns a [`GroupError`] if the device is not in the group or the store cannot be read.
    pub fn has_pending_commit(&self, group: &GroupId) -> Result<bool, GroupError> {
        let staged = self.store.stage()?;
        Ok(open(&staged, group)?.pending_commit().is_some())
    }

    /// Makes the Commit that adds the owners of packages, after checking each package: the server
    /// that handed them out is not trusted.
    ///
    /// The Commit is stored as pending. Merge it once it has been accepted, clear it otherwise.
    ///
    /// # Errors
    ///
    /// Returns an [`AddError`] that names the package at fault. Nothing has been written then.
    pub fn stage_add(
        &self,
        group: &GroupId,
        offers: &[OfferedPackage],
        now: Timestamp,
    ) -> Result<PendingAdd, AddError> {
        let staged = self.store.stage().map_err(GroupError::from)?;
        let added = self.stage_add_on(&staged, group, offers, now)?;
        staged.commit().map_err(GroupError::from)?;
        Ok(added)
    }

    /// [`MlsMembership::stage_add`] as part of an operation that has more to write.
    pub(crate) fn stage_add_on(
        &self,
        staged: &Staged<'_>,
        group: &GroupId,
        offers: &[OfferedPackage],
        now: Timestamp,
    ) -> Result<PendingAdd, AddError> {
        let provider = staged.provider();
        let mut state = open_for_commit(staged, group)?;
        let packages = offers::admit_all(&provider, &state, offers, now)?;
        let epoch = state.epoch().as_u64();
        let (commit, welcome, _) =
            state.add_members(&provider, self.identity.signer(), &packages).map_err(refused)?;
        Ok(PendingAdd {
            commit: bytes_of(&commit)?,
            welcome: bytes_of(&welcome)?,
            epoch,
            keypackage_refs: offers.iter().map(|offer| offer.keypackage_ref.clone()).collect(),
        })
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
        let mut state = open_for_commit(&staged, group)?;
        let leaves: Vec<LeafNodeIndex> = state
            .members()
            .filter(|found| names(&found.credential, member))
            .map(|found| found.index)
            .collect();
        if leaves.is_empty() {
            return Err(GroupError::NotAMember { group: group.clone(), member: member.clone() });
        }
        let epoch = state.epoch().as_u64();
        let (commit, _, _) = state
            .remove_members(&staged.provider(), self.identity.signer(), &leaves)
            .map_err(refused)?;
        let pending = PendingCommit { commit: bytes_of(&commit)?, epoch };
        staged.commit()?;
        Ok(pending)
    }

    /// Makes the Commit that replaces this device's keys in the group, and with them the leaf that
    /// came from its package and carries a lifetime: due soon after joining. It is pending, as
    /// after [`MlsMembership::stage_add`].
    ///
    /// # Errors
    ///
    /// Returns a [`GroupError`]. Nothing has been written then.
    pub fn self_update(&self, group: &GroupId) -> Result<PendingCommit, GroupError> {
        let staged = self.store.stage()?;
        let mut state = open_for_commit(&staged, group)?;
        let epoch = state.epoch().as_u64();
        let parameters = LeafNodeParameters::default();
        let (commit, _, _) = state
            .self_update(&staged.provider(), self.identity.signer(), parameters)
            .map_err(refused)?
            .into_contents();
        let pending = PendingCommit { commit: bytes_of(&commit)?, epoch };
        staged.commit()?;
        Ok(pending)
    }

    /// Takes the pending Commit as the group's new state: it has been accepted. Returns the epoch
    /// the group is in then. If none is pending, nothing changes.
    ///
    /// # Errors
    ///
    /// Returns a [`GroupError`]. The Commit is still pending then.
    pub fn merge_pending_commit(&self, group: &GroupId) -> Result<u64, GroupError> {
        let staged = self.store.stage()?;
        let epoch = merge_on(&staged, group)?;
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
        clear_on(&staged, group)?;
        Ok(staged.commit()?)
    }
}

impl fmt::Debug for PendingCommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingCommit").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl fmt::Debug for PendingAdd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingAdd")
            .field("epoch", &self.epoch)
            .field("keypackage_refs", &self.keypackage_refs)
            .finish_non_exhaustive()
    }
}

/// Merges the pending Commit, as part of an operation.
pub(crate) fn merge_on(staged: &Staged<'_>, group: &GroupId) -> Result<u64, GroupError> {
    let mut state = open(staged, group)?;
    state.merge_pending_commit(&staged.provider()).map_err(refused)?;
    Ok(state.epoch().as_u64())
}

/// Clears the pending Commit, as part of an operation.
pub(crate) fn clear_on(staged: &Staged<'_>, group: &GroupId) -> Result<(), GroupError> {
    Ok(open(staged, group)?.clear_pending_commit(staged)?)
}

/// A group's state; `None` if the store has none.
fn load(staged: &Staged<'_>, group: &GroupId) -> Result<Option<MlsGroup>, StorageError> {
    MlsGroup::load(staged, &openmls::group::GroupId::from_slice(group.as_bytes()))
}

/// The state of a group the device is in.
fn open(staged: &Staged<'_>, group: &GroupId) -> Result<MlsGroup, GroupError> {
    match load(staged, group)? {
        Some(state) if state.is_active() => Ok(state),
        _ => Err(GroupError::NotInGroup { group: group.clone() }),
    }
}

/// The state of a group that has no Commit pending.
fn open_for_commit(staged: &Staged<'_>, group: &GroupId) -> Result<MlsGroup, GroupError> {
    let state = open(staged, group)?;
    match state.pending_commit() {
        Some(_) => Err(GroupError::CommitPending { group: group.clone() }),
        None => Ok(state),
    }
}

/// How a group that is joined is kept.
fn join_config() -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        .wire_format_policy(MIXED_CIPHERTEXT_WIRE_FORMAT_POLICY)
        .padding_size(PADDING_BYTES)
        .max_past_epochs(PAST_EPOCHS_MAX)
        .use_ratchet_tree_extension(true)
        .build()
}

/// Lists a group, since the storage of `OpenMLS` cannot be listed.
fn remember(staged: &Staged<'_>, group: &GroupId) -> Result<(), StorageError> {
    staged.put_app_record(&record_name(group), group)
}

/// Takes a group from the list: the device is no longer in it.
fn forget(staged: &Staged<'_>, group: &GroupId) {
    staged.remove_app_record(&record_name(group));
}

fn record_name(group: &GroupId) -> String {
    format!("{RECORD_PREFIX}{}", HEXLOWER.encode(group.as_bytes()))
}

fn members_of(state: &MlsGroup) -> Vec<GroupMember> {
    let member = |found: openmls::group::Member| GroupMember {
        name: name_in(&found.credential).unwrap_or_default(),
        signature_key: SignatureKey::new(&found.signature_key).ok(),
        leaf_index: found.index.u32(),
    };
    state.members().map(member).collect()
}

/// The ciphersuite that packages for a group must have.
fn suite_of(state: &MlsGroup) -> Ciphersuite {
    state.ciphersuite()
}

fn bytes_of(message: &MlsMessageOut) -> Result<Vec<u8>, GroupError> {
    message.to_bytes().map_err(refused)
}

fn refused(err: impl std::error::Error + Send + Sync + 'static) -> GroupError {
    GroupError::Mls(err.into())
}
