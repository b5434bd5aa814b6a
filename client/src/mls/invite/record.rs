//! What is stored of an invitation: how far it has come, and the ids of its requests.

use keypool_ledger::{
    CommandId, GroupId, Hash, KeyPackageRef, PoolId, ReservationId, SignatureKey,
};
use keypool_projections::wire::ClaimRequest;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{AddError, CommitPost, Invited, PackageCheck};

/// What the names of stored invitations begin with.
pub(super) const RECORD_PREFIX: &str = "invitation/";

/// An invitation under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Invitation {
    pub(super) id: Uuid,
    pub(super) user: String,
    pub(super) device: Option<String>,
    pub(super) group: GroupId,
    pub(super) attempt: u32,
    pub(super) step: Step,
}

/// How far an invitation has come.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Step {
    /// A package is being asked for.
    Reserving,
    /// The Commit is made and pending, and nobody has seen it.
    Added(Addition),
    /// The Commit is being posted; it may have been accepted.
    Posting(Addition),
    /// The Commit is accepted and merged; the package is not spent yet.
    Posted(Addition),
    /// The package is spent; the Welcome is to be handed over.
    Spent(Addition),
    /// The package was lost after the Commit was accepted: the leaf that was added, and no other of
    /// its owner's, is to be removed again.
    Removing(Removal),
}

/// A package that was added to a group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Addition {
    pub(super) owner: PoolId,
    pub(super) keypackage_ref: KeyPackageRef,
    /// What tells the added leaf from all others of the group.
    pub(super) signature_key: SignatureKey,
    pub(super) last_resort: bool,
    pub(super) commit: CommitPost,
    pub(super) welcome: Vec<u8>,
}

/// A leaf that is to be removed, and the Commit that does it, once it is made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Removal {
    pub(super) signature_key: SignatureKey,
    pub(super) commit: Option<CommitPost>,
}

impl Invitation {
    /// A new invitation, at its beginning.
    pub(super) fn new(group: &GroupId, user: &str, device: Option<&str>) -> Self {
        Self {
            id: Uuid::new_v4(),
            user: user.to_owned(),
            device: device.map(ToOwned::to_owned),
            group: group.clone(),
            attempt: 1,
            step: Step::Reserving,
        }
    }

    /// The same invitation, a step further.
    pub(super) fn at(&self, step: &Step) -> Self {
        Self { step: step.clone(), ..self.clone() }
    }

    /// The package that is to be added, while its Commit may still be refused.
    pub(super) fn addition(&self) -> Option<&Addition> {
        match &self.step {
            Step::Added(addition) | Step::Posting(addition) => Some(addition),
            Step::Reserving | Step::Posted(_) | Step::Spent(_) | Step::Removing(_) => None,
        }
    }

    /// What is told of the invitation once it is carried out.
    pub(super) fn invited(&self, addition: Addition) -> Invited {
        Invited {
            group: self.group.clone(),
            device: addition.owner,
            keypackage_ref: addition.keypackage_ref,
            last_resort: addition.last_resort,
            attempts: self.attempt,
        }
    }

    /// The claim on the package of this attempt.
    pub(super) fn reservation(&self) -> ReservationId {
        ReservationId(self.derived("reservation"))
    }

    /// The id of the request that takes a step, the same each time it is repeated.
    pub(super) fn command(&self, step: &str) -> CommandId {
        CommandId(self.derived(step))
    }

    /// An id that follows from the invitation's random one, the attempt and the step.
    fn derived(&self, step: &str) -> Uuid {
        let name = format!("{} {} {step}", self.id, self.attempt);
        let mut bytes = [0; 16];
        bytes
            .iter_mut()
            .zip(Hash::of(name.as_bytes()).as_bytes())
            .for_each(|(to, from)| *to = *from);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    pub(super) fn claim(&self, keypackage_ref: &KeyPackageRef) -> ClaimRequest {
        let keypackage_ref = keypackage_ref.clone();
        ClaimRequest { keypackage_ref, reservation_id: self.reservation() }
    }

    /// Whose package was handed out, by what the server says of its device. If a device was asked
    /// for, it must be that one.
    pub(super) fn owner(
        &self,
        device: &str,
        keypackage_ref: &KeyPackageRef,
    ) -> Result<PoolId, AddError> {
        let rejected = |owner, source| AddError::PackageRejected {
            keypackage_ref: keypackage_ref.clone(),
            owner,
            check: PackageCheck::Identity,
            source,
        };
        let named = |device: &str| PoolId::new(&self.user, device);
        let asked = self.device.as_deref().unwrap_or(device);
        let asked = named(asked).map_err(|err| crate::GroupError::Mls(err.into()))?;
        match named(device) {
            Ok(owner) if owner == asked => Ok(owner),
            Ok(_) => Err(rejected(asked, None)),
            Err(err) => Err(rejected(asked, Some(err.into()))),
        }
    }

    pub(super) fn record_name(&self) -> String {
        format!("{RECORD_PREFIX}{}", self.id)
    }

    /// Who is being invited, as it was asked for.
    pub(super) fn target(&self) -> String {
        match &self.device {
            Some(device) => format!("{}/{device}", self.user),
            None => self.user.clone(),
        }
    }
}
