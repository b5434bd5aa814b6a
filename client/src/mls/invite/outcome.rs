//! The state of an invitation for one invitee, from the question to the answer.

use std::fmt;

use keypool_ledger::{GroupId, Hash, Timestamp, WelcomeFault};
use serde::{Deserialize, Serialize};

use super::invitee::{Invitee, SkipReason};

/// The invitation of one invitee to a group. See `MlsClient::invitations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitationRecord {
    /// The group.
    pub group: GroupId,
    /// The device, or the user until the server has named the user's devices.
    pub invitee: Invitee,
    /// How far the invitation has come.
    pub state: InvitationState,
    /// Since when, by the server's clock.
    pub since: Timestamp,
    /// The mark of the leaf that the last Commit has added for the device.
    pub(super) leaf: Option<Hash>,
    /// When the device was invited again because it could not join.
    pub(super) reinvited_at: Option<Timestamp>,
    /// When the wait for a package began.
    pub(super) waiting_since: Option<Timestamp>,
    /// Whether the server has been asked to say when the device has a package.
    pub(super) is_awaited: bool,
    /// Whether this device goes on with the invitation by itself.
    pub(super) is_due: bool,
}

/// How far the invitation of one invitee has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    /// The device could not join from the Welcome. Its leaf is still in the group, and the next invitation
    /// replaces it.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl InvitationRecord {
    pub(super) fn new(group: &GroupId, invitee: Invitee, now: Timestamp) -> Self {
        Self {
            group: group.clone(),
            invitee,
            state: InvitationState::Asked,
            since: now,
            leaf: None,
            reinvited_at: None,
            waiting_since: None,
            is_awaited: false,
            is_due: false,
        }
    }

    /// The next step of the invitation.
    #[must_use]
    pub const fn next_step(&self) -> NextStep {
        match self.state {
            _ if self.is_due => NextStep::GoesOn,
            InvitationState::Asked | InvitationState::Reserved => NextStep::GoesOn,
            InvitationState::Waiting => NextStep::AwaitsPackage,
            InvitationState::Committed => NextStep::AwaitsAnswer,
            InvitationState::Joined
            | InvitationState::Cancelled
            | InvitationState::Skipped { why: SkipReason::AlreadyMember } => NextStep::Nothing,
            InvitationState::Failed { .. }
            | InvitationState::Declined
            | InvitationState::Expired
            | InvitationState::Skipped { .. } => NextStep::InviteAgain,
        }
    }

    /// Whether the invitation has ended.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        matches!(self.next_step(), NextStep::InviteAgain | NextStep::Nothing)
    }

    /// Whether the device was invited a second time after it could not join.
    #[must_use]
    pub const fn was_invited_again(&self) -> bool {
        self.reinvited_at.is_some()
    }

    /// Whether the device is in the group by this invitation, as far as this device knows.
    pub(super) const fn is_added(&self) -> bool {
        matches!(self.state, InvitationState::Committed | InvitationState::Joined)
    }
}

impl InvitationState {
    /// The reason why the invitee is not in the group, as a sentence about them; `None` in a state that has
    /// none.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Failed { reason } => Some(text_of(*reason).to_owned()),
            Self::Skipped { why } => Some(why.to_string()),
            _ => None,
        }
    }
}

/// The reason that a device has told, as part of a sentence.
const fn text_of(reason: WelcomeFault) -> &'static str {
    match reason {
        WelcomeFault::KeysGone => "it has no private keys for the KeyPackage any more",
        WelcomeFault::Expired => "its KeyPackage had expired",
        WelcomeFault::Unreadable => "the Welcome could not be opened",
        WelcomeFault::Untrusted => "it does not trust the keys of the inviter",
    }
}

/// The state as the end of a sentence about the invitee.
impl fmt::Display for InvitationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => f.write_str("is being invited"),
            Self::Waiting => f.write_str("has no KeyPackage left"),
            Self::Reserved => f.write_str("is being added"),
            Self::Committed => f.write_str("is added and has not answered yet"),
            Self::Joined => f.write_str("has joined"),
            Self::Failed { reason } => write!(f, "could not join: {}", text_of(*reason)),
            Self::Declined => f.write_str("has declined"),
            Self::Expired => f.write_str("did not answer in time"),
            Self::Skipped { why } => write!(f, "was not invited: {why}"),
            Self::Cancelled => f.write_str("is not invited any more"),
        }
    }
}

/// The next step as a sentence; nothing where there is none.
impl fmt::Display for NextStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GoesOn => "goes on by itself",
            Self::AwaitsPackage => "invited as soon as they are online again",
            Self::AwaitsAnswer => "joins once they are online",
            Self::InviteAgain => "invite them again",
            Self::Nothing => "",
        })
    }
}
