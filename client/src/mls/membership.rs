//! The device's groups: made, grown, shrunk, joined, spoken in.
//!
//! Every operation is staged on the store and committed as one write, before anything of it leaves
//! this device.

mod adding;
mod commits;
mod joining;
mod leaving;
mod messages;
mod offers;
mod read_only;
mod removals;
mod requirements;
mod welcome_attempts;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use data_encoding::HEXLOWER;
use keypool_ledger::{GroupId, Hash, PoolId, SignatureKey, Timestamp};
use openmls::{
    credentials::CredentialType,
    framing::MlsMessageOut,
    group::{
        MIXED_CIPHERTEXT_WIRE_FORMAT_POLICY, Member, MlsGroup, MlsGroupCreateConfig,
        MlsGroupJoinConfig,
    },
    key_packages::Lifetime,
};
use openmls_traits::types::Ciphersuite;

pub use self::{
    adding::PendingAdd,
    commits::PendingCommit,
    joining::Joined,
    messages::{Change, Received},
    offers::OfferedPackage,
    welcome_attempts::WELCOME_ATTEMPTS_MAX,
};
pub(crate) use self::{
    adding::Sorted,
    commits::{CommitState, clear_on, left_on, merge_on, standing_on},
    joining::join_on,
    messages::decrypt_on,
    read_only::{close_on, read_only_on},
    welcome_attempts::{count_attempt, forget_attempts, has_no_attempts_left},
};
use super::{
    CLOCK_SKEW,
    identity::SigningKey,
    peers::{
        Judged, KeyPolicy, Leaf, LeafCheck, LeafTrust, Occasion, UntrustedMember, accept_untrusted,
        forget_contradicting, named_members, recheck_untrusted, untrusted_in,
    },
    usable_suite,
};
use crate::{DeviceIdentity, GroupError, LocalStore, Staged, StorageError};

/// The prefix of the names of the records of groups.
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
    policy: KeyPolicy,
}

/// One member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// Its name: `user/device` where the directory or the app knows it, and otherwise the text in its credential.
    pub name: String,
    /// Its public signature key; `None` where it is of no kind known here.
    pub signature_key: Option<SignatureKey>,
    /// Its place in the group.
    pub leaf_index: u32,
    /// Whether its leaf is that user's, as far as users were looked up.
    pub trust: LeafTrust,
}

impl MlsMembership {
    /// The groups of a store's device.
    #[must_use]
    pub fn new(store: Arc<LocalStore>, identity: DeviceIdentity) -> Self {
        Self { store, identity, policy: KeyPolicy::default() }
    }

    /// The same groups, with another policy for members that contradict the directory.
    #[must_use]
    pub fn with_policy(self, policy: KeyPolicy) -> Self {
        Self { policy, ..self }
    }

    /// How leaves are checked at a moment of the server's time.
    pub(crate) const fn check(&self, may_ask: bool, now: Timestamp) -> LeafCheck<'_> {
        LeafCheck { identity: &self.identity, may_ask, now }
    }

    /// The users that a group's members are of, without this device's.
    pub(crate) fn users_in(&self, group: &GroupId) -> Result<BTreeSet<String>, GroupError> {
        let staged = self.store.stage()?;
        let state = open(&staged, group)?;
        let mut users = BTreeSet::new();
        for member in state.members() {
            users.extend(Leaf::of(&member).user(&staged, &self.identity)?);
        }
        Ok(users)
    }

    /// The members of a group that contradict the directory and were not accepted.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store cannot be read.
    pub fn untrusted(&self, group: &GroupId) -> Result<Vec<UntrustedMember>, StorageError> {
        untrusted_in(&self.store.stage()?, group)
    }

    /// Judges the members of a group that were not trusted again, by the known keys of their users. Returns
    /// whether none is left that is not.
    pub(crate) fn recheck(&self, group: &GroupId, now: Timestamp) -> Result<bool, GroupError> {
        let staged = self.store.stage()?;
        let members: Vec<Member> = open(&staged, group)?.members().collect();
        let is_clear = recheck_untrusted(&staged, group, &members, &self.check(false, now))?;
        staged.commit()?;
        Ok(is_clear)
    }

    /// Accepts the members of a group that contradict the directory: messages are sent to it again.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`], and nothing has changed then.
    pub fn accept_untrusted(&self, group: &GroupId) -> Result<(), StorageError> {
        let staged = self.store.stage()?;
        accept_untrusted(&staged, group)?;
        staged.commit()
    }

    /// Creates a group with this device as its only member. Invitees must have a
    /// package of its ciphersuite, 1, 2, 3, 78 or 79.
    ///
    /// # Errors
    ///
    /// Returns [`GroupError::AlreadyInGroup`] if the id is taken, [`GroupError::Ciphersuite`] if the
    /// device cannot use the suite, or another [`GroupError`]. Nothing has been written then.
    pub fn create_group(
        &self,
        group: &GroupId,
        ciphersuite: u16,
        now: Timestamp,
    ) -> Result<(), GroupError> {
        let suite = usable_suite(ciphersuite).ok_or(GroupError::Ciphersuite(ciphersuite))?;
        let staged = self.store.stage()?;
        if load(&staged, group)?.is_some() {
            return Err(GroupError::AlreadyInGroup { group: group.clone() });
        }
        let provider = staged.provider();
        let lifetime =
            Lifetime::init(now.before(CLOCK_SKEW).as_secs(), now.after(FOUNDER_LIFETIME).as_secs());
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(suite)
            .capabilities(self.identity.capabilities(&provider, Vec::new()))
            .lifetime(lifetime)
            .wire_format_policy(MIXED_CIPHERTEXT_WIRE_FORMAT_POLICY)
            .padding_size(PADDING_BYTES)
            .max_past_epochs(PAST_EPOCHS_MAX)
            .use_ratchet_tree_extension(true)
            .build();
        let keys = self.identity.keys();
        let signer = keys.signing_key_or_new(&staged, suite.signature_algorithm())?;
        let credential = self.identity.credential_with(&signer);
        let id = openmls::group::GroupId::from_slice(group.as_bytes());
        let made = MlsGroup::new_with_group_id(&provider, &signer, &config, id, credential);
        signer.explain(made.map_err(refused))?;
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

    /// Whether a group may only be read, because this home is an older copy of itself: see
    /// [`GroupError::ReadOnly`].
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store cannot be read.
    pub fn is_read_only(&self, group: &GroupId) -> Result<bool, StorageError> {
        let groups = read_only_on(&self.store.stage()?)?;
        Ok(groups.iter().any(|(closed, _)| closed == group))
    }

    /// The members of a group, this device included.
    ///
    /// # Errors
    ///
    /// Returns a [`GroupError`] if the device is not in the group or the store cannot be read.
    pub fn members(&self, group: &GroupId) -> Result<Vec<GroupMember>, GroupError> {
        let staged = self.store.stage()?;
        self.members_of(&staged, &open(&staged, group)?)
    }

    fn members_of(
        &self,
        staged: &Staged<'_>,
        state: &MlsGroup,
    ) -> Result<Vec<GroupMember>, GroupError> {
        let members = named_members(staged, &self.identity, state)?;
        let check = self.check(false, Timestamp::default());
        let leaves = members.iter().map(|(found, _)| Leaf::of(found));
        let trusts = check.judge_all(staged, leaves, Occasion::Message)?;
        // Nobody may be asked.
        let Judged::Done(trusts) = trusts else { return Ok(Vec::new()) };
        let member = |((found, name), trust): ((Member, String), LeafTrust)| GroupMember {
            name,
            signature_key: SignatureKey::new(&found.signature_key).ok(),
            leaf_index: found.index.u32(),
            trust,
        };
        Ok(members.into_iter().zip(trusts).map(member).collect())
    }

    /// The number of the ciphersuite that packages for a group must have.
    ///
    /// # Errors
    ///
    /// Returns a [`GroupError`] if the device is not in the group or the store cannot be read.
    pub fn ciphersuite(&self, group: &GroupId) -> Result<u16, GroupError> {
        let staged = self.store.stage()?;
        Ok(suite_of(&open(&staged, group)?).into())
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
}

/// Deletes the stored state of a group, if there is any, as part of an operation.
pub(crate) fn delete_on(staged: &Staged<'_>, group: &GroupId) -> Result<(), StorageError> {
    if let Some(mut state) = load(staged, group)? {
        delete(staged, &mut state)?;
    }
    forget(staged, group);
    forget_contradicting(staged, group);
    read_only::forget_on(staged, group);
    leaving::end_on(staged, group);
    Ok(())
}

/// Whether the device is in a group, as an operation has it.
pub(crate) fn is_in(staged: &Staged<'_>, group: &GroupId) -> Result<bool, StorageError> {
    Ok(load(staged, group)?.is_some_and(|state| state.is_active()))
}

/// The devices that the leaves of a group name, each with the mark of its leaf, as an operation has them; none
/// if the device is not in the group.
pub(crate) fn device_leaves_on(
    staged: &Staged<'_>,
    identity: &DeviceIdentity,
    group: &GroupId,
) -> Result<Vec<(PoolId, Hash)>, StorageError> {
    let Some(state) = load(staged, group)?.filter(MlsGroup::is_active) else {
        return Ok(Vec::new());
    };
    let mut leaves = Vec::new();
    for member in state.members() {
        let device = device_of(staged, identity, &member)?;
        leaves.extend(device.map(|device| (device, mark_of(&member))));
    }
    Ok(leaves)
}

/// The marks of the leaves of a group, as an operation has them; none if the device is not in the group.
pub(crate) fn leaf_marks_on(
    staged: &Staged<'_>,
    group: &GroupId,
) -> Result<Vec<Hash>, StorageError> {
    let state = load(staged, group)?.filter(MlsGroup::is_active);
    Ok(state.iter().flat_map(MlsGroup::members).map(|member| mark_of(&member)).collect())
}

/// The device that a leaf is of, as far as its user is known.
fn device_of(
    staged: &Staged<'_>,
    identity: &DeviceIdentity,
    member: &Member,
) -> Result<Option<PoolId>, StorageError> {
    Ok(Leaf::of(member).name(staged, identity)?.parse().ok())
}

/// The mark of a leaf: the digest of its encryption key, which no other leaf has.
fn mark_of(member: &Member) -> Hash {
    Hash::of(&member.encryption_key)
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

/// Whether this device's leaf in a group names a key before the device's own.
fn names_old_key(
    staged: &Staged<'_>,
    state: &MlsGroup,
    identity: &DeviceIdentity,
) -> Result<bool, GroupError> {
    let Some(leaf) = state.own_leaf_node() else { return Ok(false) };
    let scheme = suite_of(state).signature_algorithm();
    let own = identity.keys().signing_key_of(staged, scheme)?;
    Ok(own.is_none_or(|own| own.public().as_bytes() != leaf.signature_key().as_slice()))
}

/// Whether this device's leaf in a group names a key before the device's own, carries another credential, or does
/// not list a credential type that the device has or knows.
fn is_outdated(
    staged: &Staged<'_>,
    state: &MlsGroup,
    identity: &DeviceIdentity,
) -> Result<bool, GroupError> {
    let Some(leaf) = state.own_leaf_node() else { return Ok(false) };
    let lists = |named: &CredentialType| leaf.capabilities().credentials().contains(named);
    let is_as_now =
        identity.carries(leaf.credential()) && identity.credential_types().iter().all(lists);
    Ok(!is_as_now || names_old_key(staged, state, identity)?)
}

/// Whether this device's leaf names that key in any group, those that are being left included.
pub(crate) fn names_key_anywhere(
    staged: &Staged<'_>,
    key: &SignatureKey,
) -> Result<bool, StorageError> {
    let mut groups = leaving::groups_on(staged)?;
    for name in staged.app_record_names(RECORD_PREFIX)? {
        groups.extend(staged.app_record::<GroupId>(&name)?);
    }
    for group in groups {
        let state = load(staged, &group)?;
        let leaf = state.as_ref().and_then(MlsGroup::own_leaf_node);
        if leaf.is_some_and(|leaf| leaf.signature_key().as_slice() == key.as_bytes()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The key that this device's leaf in a group names: the device's own, or one before it.
fn signer_of(
    staged: &Staged<'_>,
    state: &MlsGroup,
    identity: &DeviceIdentity,
) -> Result<SigningKey, GroupError> {
    let scheme = suite_of(state).signature_algorithm();
    match state.own_leaf_node() {
        Some(leaf) if names_old_key(staged, state, identity)? => {
            let named = SignatureKey::new(leaf.signature_key().as_slice()).map_err(refused)?;
            Ok(SigningKey::stored(staged, &named, scheme)?)
        }
        _ => Ok(identity.keys().signing_key_or_new(staged, scheme)?),
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

/// Deletes the stored state of a group.
fn delete(staged: &Staged<'_>, state: &mut MlsGroup) -> Result<(), StorageError> {
    state.delete(staged)
}

/// Takes a group from the list: the device is no longer in it.
fn forget(staged: &Staged<'_>, group: &GroupId) {
    staged.remove_app_record(&record_name(group));
}

fn record_name(group: &GroupId) -> String {
    format!("{RECORD_PREFIX}{}", HEXLOWER.encode(group.as_bytes()))
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
