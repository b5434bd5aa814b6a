//! The device that a leaf is of: by the app's judgement, by the name in its credential, or by its key among the
//! known users'.

use keypool_ledger::PoolId;
use openmls::{
    credentials::Credential,
    group::{Member, MlsGroup},
    treesync::LeafNode,
};

use super::record::{PeerRecord, peer_record, peer_records};
use crate::{
    DeviceIdentity, LeafOwner, PresentedLeaf, Staged, StorageError,
    mls::{identity::has_signing_key, name_in},
};

/// A leaf as it is checked.
pub(crate) struct Leaf<'a> {
    pub(super) credential: &'a Credential,
    pub(super) key: &'a [u8],
}

impl<'a> Leaf<'a> {
    pub(crate) const fn new(credential: &'a Credential, key: &'a [u8]) -> Self {
        Self { credential, key }
    }

    pub(crate) fn of(member: &'a Member) -> Self {
        Self { credential: &member.credential, key: &member.signature_key }
    }

    pub(crate) fn of_node(node: &'a LeafNode) -> Self {
        Self { credential: node.credential(), key: node.signature_key().as_slice() }
    }
}

/// The device that a leaf is of.
pub(super) enum ResolvedOwner {
    /// This device, whose key it carries.
    Own,
    /// A device, for the directory to confirm.
    Listed(PoolId, NamedBy),
    /// A device, by the app's word.
    Trusted(PoolId),
    /// Nobody, by the app's word, which says why.
    Refused(String),
    /// Nobody, as far as users are known.
    Unknown,
}

/// The part of a leaf that names its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NamedBy {
    /// The credential, which names user and device.
    Device,
    /// The credential, which names the user alone, as other implementations may.
    User,
    /// The key, which is a known device's.
    Key,
    /// The app.
    App,
}

impl Leaf<'_> {
    /// Finds the device that the leaf is of.
    pub(super) fn owner(
        &self,
        staged: &Staged<'_>,
        identity: &DeviceIdentity,
    ) -> Result<ResolvedOwner, StorageError> {
        let is_own = self.key == identity.signature_key().as_bytes()
            || identity.carries(self.credential) && has_signing_key(staged, self.key)?;
        if is_own {
            return Ok(ResolvedOwner::Own);
        }
        match identity.owner_of(&PresentedLeaf::new(self.credential, self.key)) {
            LeafOwner::Undecided => self.owner_by_directory(staged),
            LeafOwner::Listed(device) => Ok(ResolvedOwner::Listed(device, NamedBy::App)),
            LeafOwner::Trusted(device) => Ok(ResolvedOwner::Trusted(device)),
            LeafOwner::Refused { reason } => Ok(ResolvedOwner::Refused(reason)),
        }
    }

    fn owner_by_directory(&self, staged: &Staged<'_>) -> Result<ResolvedOwner, StorageError> {
        let name = name_in(self.credential).unwrap_or_default();
        let Ok(device) = name.parse::<PoolId>() else {
            return self.owner_by_key(staged, false);
        };
        if name.contains('/') {
            return Ok(ResolvedOwner::Listed(device, NamedBy::Device));
        }
        if let Some(record) = peer_record(staged, device.user())?.filter(PeerRecord::is_listed) {
            // It may be any of the user's devices.
            let device = record.device_with(self.key).unwrap_or(device);
            return Ok(ResolvedOwner::Listed(device, NamedBy::User));
        }
        // A credential of an app's own may look like a user's name.
        match self.owner_by_key(staged, true)? {
            ResolvedOwner::Unknown => Ok(ResolvedOwner::Listed(device, NamedBy::User)),
            owner => Ok(owner),
        }
    }

    /// Finds the known device whose key the leaf carries, among all or among those alone that have declared its
    /// credential.
    fn owner_by_key(
        &self,
        staged: &Staged<'_>,
        is_declared: bool,
    ) -> Result<ResolvedOwner, StorageError> {
        for record in peer_records(staged)? {
            if let Some(device) = record.device_with(self.key)
                && (!is_declared || record.has_carried(&device, self.credential))
            {
                return Ok(ResolvedOwner::Listed(device, NamedBy::Key));
            }
        }
        Ok(if has_signing_key(staged, self.key)? {
            ResolvedOwner::Own
        } else {
            ResolvedOwner::Unknown
        })
    }

    /// The name of the leaf's owner: `user/device` where that is known, and otherwise the text in its credential.
    pub(crate) fn name(
        &self,
        staged: &Staged<'_>,
        identity: &DeviceIdentity,
    ) -> Result<String, StorageError> {
        Ok(match self.owner(staged, identity)? {
            ResolvedOwner::Own => identity.pool().to_string(),
            ResolvedOwner::Listed(device, NamedBy::Key | NamedBy::App)
            | ResolvedOwner::Trusted(device) => device.to_string(),
            ResolvedOwner::Listed(_, NamedBy::Device | NamedBy::User)
            | ResolvedOwner::Refused(_)
            | ResolvedOwner::Unknown => name_in(self.credential).unwrap_or_default(),
        })
    }

    /// The other name that the leaf would give a member; `None` if it is the same, or if the app refuses the leaf:
    /// its member is marked then.
    pub(crate) fn renames(
        &self,
        was: &str,
        staged: &Staged<'_>,
        identity: &DeviceIdentity,
    ) -> Result<Option<String>, StorageError> {
        if matches!(self.owner(staged, identity)?, ResolvedOwner::Refused(_)) {
            return Ok(None);
        }
        let becomes = self.name(staged, identity)?;
        Ok((becomes != was).then_some(becomes))
    }

    /// The user to look up for the leaf; `None` if the directory is not asked.
    pub(crate) fn user(
        &self,
        staged: &Staged<'_>,
        identity: &DeviceIdentity,
    ) -> Result<Option<String>, StorageError> {
        Ok(match self.owner(staged, identity)? {
            ResolvedOwner::Own => Some(identity.pool().user().to_owned()),
            ResolvedOwner::Listed(device, _) => Some(device.user().to_owned()),
            ResolvedOwner::Trusted(_) | ResolvedOwner::Refused(_) | ResolvedOwner::Unknown => None,
        })
    }
}

/// The members of a group, each with its name.
pub(crate) fn named_members(
    staged: &Staged<'_>,
    identity: &DeviceIdentity,
    state: &MlsGroup,
) -> Result<Vec<(Member, String)>, StorageError> {
    let named = |member: Member| {
        let name = Leaf::of(&member).name(staged, identity)?;
        Ok((member, name))
    };
    state.members().map(named).collect()
}
