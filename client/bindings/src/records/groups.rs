//! Members, invitations, and the work that is resumed.

use keypool_client::{
    Code, GroupId, GroupMember, InvitationRecord, InvitationState, Invited, InvitedDevice, Invitee,
    KeyPackageRef, LeafTrust, NextStep, PackageCheck, PeerDoubt, PoolId, Requirement,
    ResumedInvitation, ResumedMessage, ResumedUpdate, Sent, SignatureKey, SkipReason,
    SkippedInvitee, Timestamp, WelcomeFault,
};

use crate::DeviceError;

/// One member of a group.
#[uniffi::remote(Record)]
pub struct GroupMember {
    /// Its name: `user/device` where the directory or the app knows it, and otherwise the text in its credential.
    pub name: String,
    /// Its public signature key; none where it is of no kind known here.
    pub signature_key: Option<SignatureKey>,
    /// Its place in the group.
    pub leaf_index: u32,
    /// Whether its leaf is that user's, as far as users were looked up.
    pub trust: LeafTrust,
}

/// A message that the server has passed on.
#[uniffi::remote(Record)]
pub struct Sent {
    /// Its place in the server's log; 0 if no mailbox keeps it.
    pub position: u64,
    /// The members whose mailboxes had no room for it, the first hundred by name.
    pub not_kept: Vec<PoolId>,
}

/// An invitee: a user with all their devices, or one device.
#[uniffi::remote(Record)]
pub struct Invitee {
    /// The user.
    pub user: String,
    /// Which of their devices; all of them if it is left out.
    pub device: Option<String>,
}

/// An invitation that has been carried out.
#[uniffi::remote(Record)]
pub struct Invited {
    /// The group.
    pub group: GroupId,
    /// The devices that were added.
    pub added: Vec<InvitedDevice>,
    /// The invitees who were not added, each with the reason.
    pub missing: Vec<SkippedInvitee>,
    /// How often packages were asked for: more than once if some were lost or could not be used.
    pub attempts: u32,
}

/// A device that was added to a group.
#[uniffi::remote(Record)]
pub struct InvitedDevice {
    /// The device.
    pub device: PoolId,
    /// The package that was used.
    pub keypackage_ref: KeyPackageRef,
    /// Whether it is a last-resort package, which others may be given as well.
    pub last_resort: bool,
}

/// An invitee who was not added to a group.
#[uniffi::remote(Record)]
pub struct SkippedInvitee {
    /// The device, or the user if it is about all of their devices.
    pub invitee: Invitee,
    /// Why.
    pub why: SkipReason,
}

/// One capability that a group requires, by its number.
#[uniffi::remote(Enum)]
pub enum Requirement {
    /// A type of extensions.
    Extension(u16),
    /// A type of proposals.
    Proposal(u16),
    /// A type of credentials.
    Credential(u16),
}

/// Why somebody was not added to a group.
#[uniffi::remote(Enum)]
pub enum SkipReason {
    /// No package is left. Try again when they have been online.
    PoolExhausted,
    /// They are not registered at this server. Check the name.
    UnknownUser,
    /// The name is none.
    InvalidName {
        /// The fault.
        said: String,
    },
    /// None of their packages has the group's ciphersuite.
    NothingCompatible,
    /// None of their packages has a capability that the group requires of its members. They need a newer app.
    RequirementUnmet {
        /// The first that none of them has.
        requirement: Requirement,
    },
    /// They are in the group already. There is nothing to do.
    AlreadyMember,
    /// A package failed a check, and no other could be had.
    PackageRejected {
        /// The check that the last one failed.
        check: PackageCheck,
    },
    /// Every package that was tried was lost to a faster inviter. Invite again.
    ReservationLost {
        /// How many were tried.
        attempts: u32,
    },
    /// The device is in the group and cannot join: remove it, and invite it again.
    WelcomeRefused {
        /// The Delivery Service's error.
        said: String,
    },
    /// The server gives no more of their packages for now. Invite again later.
    OverQuota {
        /// After how many seconds, as the server says.
        retry_after_s: Option<u64>,
    },
    /// They take no invitations from this user. Ask them to add the user as a contact.
    TakesNoInvitations,
    /// Their keys do not follow from those that were seen before. Compare the safety number with them, then
    /// accept the new keys with `accept_peer`.
    KeysChanged {
        /// Why.
        why: PeerDoubt,
    },
    /// The server refused otherwise.
    Refused {
        /// Its code.
        code: Code,
    },
    /// The server has said nothing of them.
    Unanswered,
    /// The invitation as a whole ended before they were added. Invite again.
    Abandoned {
        /// Why.
        said: String,
    },
}

/// The checks of the inviter, which trusts no server.
#[uniffi::remote(Enum)]
pub enum PackageCheck {
    /// The bytes are exactly one package.
    Encoding,
    /// The bytes are those of the reference that was asked for.
    Reference,
    /// The credential names the user that was asked for.
    Identity,
    /// The package may be used now, and its lifetime is not too long.
    Lifetime,
    /// The machine's clock agrees that the package may be used now.
    Clock,
    /// The ciphersuite is the group's.
    Ciphersuite,
    /// Signatures, version, keys and extensions are valid.
    Validity,
    /// Secrets can be encrypted to its keys.
    Keys,
    /// The group can take its owner, together with the others that are added.
    Group,
    /// The key and credential in its leaf are the ones that the directory names for its owner.
    Directory,
}

/// The invitation of one invitee to a group.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
#[uniffi(name = "InvitationRecord")]
pub struct InvitationReport {
    /// The group.
    pub group: GroupId,
    /// The device, or the user until the server has named the user's devices.
    pub invitee: Invitee,
    /// How far the invitation has come.
    pub state: InvitationState,
    /// Since when, by the server's clock: milliseconds since 1970.
    pub since: Timestamp,
    /// The next step.
    pub next_step: NextStep,
}

impl From<InvitationRecord> for InvitationReport {
    fn from(record: InvitationRecord) -> Self {
        let next_step = record.next_step();
        let InvitationRecord { group, invitee, state, since, .. } = record;
        Self { group, invitee, state, since, next_step }
    }
}

/// How far the invitation of one invitee has come.
#[uniffi::remote(Enum)]
pub enum InvitationState {
    /// A package of the invitee is being asked for.
    Asked,
    /// No package is left: the invitation goes on once the invitee's device has one, for 14 days.
    Waiting,
    /// A package is reserved.
    Reserved,
    /// The Commit that adds the device is accepted, and its Welcome is on the way.
    Committed,
    /// The device has joined the group.
    Joined,
    /// The device could not join from the Welcome.
    Failed {
        /// Why, by the word of the device.
        reason: WelcomeFault,
    },
    /// The device left the group before it had joined.
    Declined,
    /// The time there is for an answer, or for a package, is over.
    Expired,
    /// The invitee was not added.
    Skipped {
        /// Why.
        why: SkipReason,
    },
    /// The invitation was cancelled, or the device or the group was removed before there was an answer.
    Cancelled,
}

/// The next step of an invitation.
#[uniffi::remote(Enum)]
pub enum NextStep {
    /// This device goes on with it: at the next `sync`, or with `resume_invitations` after a crash.
    GoesOn,
    /// The invitee's device comes online and has packages again.
    AwaitsPackage,
    /// The invitee's device answers.
    AwaitsAnswer,
    /// The user may invite again.
    InviteAgain,
    /// Nothing is left to do.
    Nothing,
}

/// An unfinished invitation that was resumed, and its outcome.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
#[uniffi(name = "ResumedInvitation")]
pub struct InvitationResumption {
    /// The group.
    pub group: GroupId,
    /// The invitees, as they were asked for.
    pub target: String,
    /// The invitation, if it is carried out now.
    pub invited: Option<Invited>,
    /// Why it is not. After the code `unfinished` it is to be resumed again; every other one is its end.
    pub error: Option<DeviceError>,
}

impl From<ResumedInvitation> for InvitationResumption {
    fn from(resumed: ResumedInvitation) -> Self {
        let ResumedInvitation { group, target, outcome } = resumed;
        let (invited, error) = split(outcome);
        Self { group, target, invited, error }
    }
}

/// An unfinished update of keys, or removal, that was resumed, and its outcome.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
#[uniffi(name = "ResumedUpdate")]
pub struct UpdateResumption {
    /// The group.
    pub group: GroupId,
    /// Why it is not carried out, if it is not. After the code `unfinished` it is to be resumed again.
    pub error: Option<DeviceError>,
}

impl From<ResumedUpdate> for UpdateResumption {
    fn from(resumed: ResumedUpdate) -> Self {
        Self { group: resumed.group, error: split(resumed.outcome).1 }
    }
}

/// A message of the outbox that was resumed, and its outcome.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
#[uniffi(name = "ResumedMessage")]
pub struct MessageResumption {
    /// The group.
    pub group: GroupId,
    /// Its place in the server's log, if it is posted now.
    pub sent: Option<Sent>,
    /// Why it is not. After the code `unfinished` it is still in the outbox; after every other one it is not.
    pub error: Option<DeviceError>,
}

impl From<ResumedMessage> for MessageResumption {
    fn from(resumed: ResumedMessage) -> Self {
        let (sent, error) = split(resumed.outcome);
        Self { group: resumed.group, sent, error }
    }
}

/// An outcome as two fields, of which one is there.
fn split<T, E: Into<DeviceError>>(outcome: Result<T, E>) -> (Option<T>, Option<DeviceError>) {
    match outcome {
        Ok(done) => (Some(done), None),
        Err(error) => (None, Some(error.into())),
    }
}
