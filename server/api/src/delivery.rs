//! The delivery on the wire: Commits, messages, and the mailbox.
//!
//! In paths a group id is base64url without padding; in bodies base64 with padding, as everywhere.

use keypool_ledger::{GroupId, PoolId};
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
    /// The device that posted it; it is left out for a Welcome, whose Commit names it to the members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub sender: Option<PoolId>,
    /// The bytes that were posted.
    pub bytes: Base64,
    /// The devices that a Commit has added, by the packages it has spent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub added: Vec<PoolId>,
    /// The devices that a Commit removes by the word of its sender: the server cannot read it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub removed: Vec<PoolId>,
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
        let acknowledged = r#"{"through":1,"accepted":null,"told":null}"#;
        let acknowledged: AcknowledgeRequest = serde_json::from_str(acknowledged).unwrap();
        assert!(acknowledged.accepted.is_empty() && acknowledged.told.is_empty());
    }
}
