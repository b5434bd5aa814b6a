//! The delivery on the wire: Commits, messages, and the mailbox.
//!
//! In paths a group id is base64url without padding; in bodies base64 with padding, as everywhere.

use keypool_ledger::{GroupId, InvitationAnswer, PoolId, WelcomeFault};
use serde::{Deserialize, Serialize};

use super::{Base64, ClaimRequest, policy::null_as_none};

/// `POST /groups`: make a group with the caller as its first member, in epoch 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GroupRequest {
    /// The group's id, drawn at random.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub group_id: GroupId,
}

/// The answer to `POST /groups` and `POST /groups/{group_id}/leave`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GroupReply {
    /// The place of the change in the log; 0 if nothing had to change.
    pub position: u64,
}

/// `POST /groups/{group_id}/commits`: a Commit, its Welcomes, and the spending of its packages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CommitRequest {
    /// The epoch it ends: the first Commit for an epoch wins.
    pub epoch: u64,
    /// The Commit.
    pub commit: Base64,
    /// The Welcomes for the new members: for exactly the packages that are spent.
    #[serde(default, deserialize_with = "null_as_none", skip_serializing_if = "Vec::is_empty")]
    pub welcomes: Vec<Base64>,
    /// The packages it uses, by the reservations that hold them. Their owners are members afterwards.
    #[serde(default, deserialize_with = "null_as_none", skip_serializing_if = "Vec::is_empty")]
    pub spend: Vec<ClaimRequest>,
    /// The devices it removes, written `user/device`.
    #[serde(default, deserialize_with = "null_as_none", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub removed: Vec<PoolId>,
}

/// The answer to `POST /groups/{group_id}/commits`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CommitReply {
    /// The epoch the group is in now.
    pub epoch: u64,
    /// The place of the Commit's last event in the log.
    pub position: u64,
    /// The members whose mailboxes had no room for it, the first hundred by name: they are told, and have
    /// to be added again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub not_kept: Vec<PoolId>,
}

/// `POST /groups/{group_id}/messages`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MessageRequest {
    /// The message, as MLS has sealed it.
    pub message: Base64,
}

/// The answer to `POST /groups/{group_id}/messages`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MessageReply {
    /// The place of the message in the log; 0 if there is nobody to pass it on to.
    pub position: u64,
    /// The members whose mailboxes had no room for it, the first hundred by name: they are told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub not_kept: Vec<PoolId>,
}

/// The answer to `GET /mailbox`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MailboxReply {
    /// The waiting items, in order.
    pub items: Vec<MailboxItem>,
    /// Whether more waits: ask again after the last position.
    pub more: bool,
    /// The groups of which something was not kept, because their part of the mailbox was full. Nothing
    /// more is kept there until the device acknowledges that it was told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_kept: Vec<NotKept>,
    /// The awaited devices that have something to hand out, until the device acknowledges that it was
    /// told: `POST /keypackages/await`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub available: Vec<PoolId>,
    /// The position up to which the device has acknowledged. A client whose own records are behind it was
    /// rolled back.
    #[serde(default)]
    pub acknowledged: u64,
    /// The position of the device's last Commit or message; 0 if there is none. A client whose
    /// own records are behind it was rolled back.
    #[serde(default)]
    pub last_posted: u64,
}

/// A part of a mailbox that was full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NotKept {
    /// The group.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub group_id: GroupId,
    /// The device whose messages were not kept; left out if nothing of the group was, Commits included:
    /// the device has to be added to the group again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub sender: Option<PoolId>,
}

/// Something that waits for a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MailboxItem {
    /// Its place in the log: acknowledge up to it once it is safely taken in.
    pub position: u64,
    /// When it was posted, in Unix milliseconds.
    pub at_ms: u64,
    /// The kind of the item.
    pub kind: MailboxKind,
    /// The group.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub group_id: GroupId,
    /// The device that posted it, or whose answer it is; it is left out for a Welcome, whose Commit names
    /// it to the members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub sender: Option<PoolId>,
    /// The bytes that were posted; none for an answer.
    pub bytes: Base64,
    /// The devices that a Commit has added, by the packages it has spent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub added: Vec<PoolId>,
    /// The devices that a Commit removes by the word of its sender: the server cannot read it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub removed: Vec<PoolId>,
    /// The answer of the sender to the Welcome that the receiving device has sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<AnswerItem>,
}

/// The outcome of an invitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AnswerItem {
    /// The outcome.
    pub outcome: AnswerOutcome,
    /// Why the device has not joined, where it has `failed`: `keys_gone`, `expired`, `unreadable` or
    /// `untrusted`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub reason: Option<WelcomeFault>,
}

/// The outcome of an invitation, as one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum AnswerOutcome {
    /// The device has joined the group.
    Joined,
    /// The device could not join from the Welcome; it is no member of the delivery any more.
    Failed,
    /// The device left the group before it said that it had joined.
    Declined,
    /// The device did not accept the group within the time there is for that.
    Expired,
}

impl From<InvitationAnswer> for AnswerItem {
    fn from(answer: InvitationAnswer) -> Self {
        let (outcome, reason) = match answer {
            InvitationAnswer::Joined => (AnswerOutcome::Joined, None),
            InvitationAnswer::Failed { reason } => (AnswerOutcome::Failed, Some(reason)),
            InvitationAnswer::Declined => (AnswerOutcome::Declined, None),
            InvitationAnswer::Expired => (AnswerOutcome::Expired, None),
        };
        Self { outcome, reason }
    }
}

/// The kind of an item in a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum MailboxKind {
    /// A Commit that was accepted.
    Commit,
    /// A Welcome whose Commit was accepted.
    Welcome,
    /// A message of a member: application data or a proposal.
    Message,
    /// The answer of a device to a Welcome of the receiving device.
    Answer,
}

/// `POST /mailbox/acknowledge`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AcknowledgeRequest {
    /// The position of the last item that is safely taken in.
    pub through: u64,
    /// Whether the device has seen `mailbox_overrun`: only then does the mailbox take in again.
    #[serde(
        default,
        deserialize_with = "null_as_none",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub overrun: bool,
    /// The groups that the device has joined: until then little of a group waits, for seven days.
    #[serde(default, deserialize_with = "null_as_none", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub accepted: Vec<GroupId>,
    /// The groups of which the device was told, by `not_kept`, that something was not kept.
    #[serde(default, deserialize_with = "null_as_none", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub told: Vec<GroupId>,
    /// The groups that the device could not join from their Welcomes: the inviter is told why, and the
    /// device's membership in the delivery ends. Nothing changes for a group that has its answer.
    #[serde(default, deserialize_with = "null_as_none", skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<FailedWelcome>,
    /// The awaited devices of which the device was told, by `available`, that they have something to hand
    /// out.
    #[serde(default, deserialize_with = "null_as_none", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub available: Vec<PoolId>,
}

/// A group that a device could not join from its Welcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FailedWelcome {
    /// The group.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub group_id: GroupId,
    /// Why: `keys_gone` for no private keys of any of the Welcome's packages, `expired` for a package whose
    /// lifetime was over, `unreadable` for a damaged Welcome or one that did not open at the last try,
    /// `untrusted` for a group that the device's policy on keys refuses.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub reason: WelcomeFault,
}

/// The answer to `POST /mailbox/acknowledge`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AcknowledgeReply {
    /// How many items wait still.
    pub waiting: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_null_is_as_if_it_were_left_out() {
        let commit = r#"{"epoch":0,"commit":"","welcomes":null,"spend":null,"removed":null}"#;
        let commit: CommitRequest = serde_json::from_str(commit).unwrap();
        assert!(commit.welcomes.is_empty() && commit.spend.is_empty() && commit.removed.is_empty());
        let acknowledged =
            r#"{"through":1,"accepted":null,"told":null,"failed":null,"available":null}"#;
        let acknowledged: AcknowledgeRequest = serde_json::from_str(acknowledged).unwrap();
        assert!(acknowledged.accepted.is_empty() && acknowledged.told.is_empty());
        assert!(acknowledged.failed.is_empty() && acknowledged.available.is_empty());
    }

    #[test]
    fn a_failed_welcome_has_one_of_four_reasons() {
        let failed = |reason| format!(r#"{{"group_id":"Zw==","reason":"{reason}"}}"#);
        for reason in ["keys_gone", "expired", "unreadable", "untrusted"] {
            let read: FailedWelcome = serde_json::from_str(&failed(reason)).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), failed(reason));
        }
        assert!(serde_json::from_str::<FailedWelcome>(&failed("bored")).is_err());
    }

    #[test]
    fn an_answer_has_a_reason_only_where_the_welcome_failed() {
        let answer = |answer: InvitationAnswer| serde_json::to_string(&AnswerItem::from(answer));
        assert_eq!(answer(InvitationAnswer::Joined).unwrap(), r#"{"outcome":"joined"}"#);
        let failed = InvitationAnswer::Failed { reason: WelcomeFault::KeysGone };
        assert_eq!(answer(failed).unwrap(), r#"{"outcome":"failed","reason":"keys_gone"}"#);
    }
}
