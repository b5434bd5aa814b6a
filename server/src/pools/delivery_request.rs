//! The commands of the delivery, their effects, and the reasons why they are refused.

use keypool_ledger::{CommandId, GroupId, Hash, KeyPackageRef, PoolId};
use keypool_projections::{Acknowledgement, Claim, DeliveryRejection, Rejection, quota::OverQuota};

use super::ExecuteError;

/// A command on its way to the delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryRequest {
    /// The command.
    pub command: DeliveryCommand,
    /// The device that asks.
    pub caller: PoolId,
    /// The caller's idempotency key.
    pub id: CommandId,
    /// The digest of the whole request, caller included: the same id with another one is refused.
    pub digest: Hash,
}

/// A request of the delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryCommand {
    /// Make a group with the caller as its first member.
    Make {
        /// The group.
        group: GroupId,
    },
    /// Accept a Commit, its Welcomes, and the spending of its packages: all or nothing.
    Commit {
        /// The group.
        group: GroupId,
        /// The epoch it ends.
        epoch: u64,
        /// The bytes.
        commit: Vec<u8>,
        /// The Welcomes for the new members.
        welcomes: Vec<Welcome>,
        /// The packages it uses, by the reservations that hold them.
        spends: Vec<Claim>,
        /// The devices it removes.
        removed: Vec<PoolId>,
    },
    /// Pass a message on to the other members.
    Post {
        /// The group.
        group: GroupId,
        /// The bytes.
        message: Vec<u8>,
    },
    /// End the caller's membership in the delivery of a group.
    Leave {
        /// The group.
        group: GroupId,
    },
    /// Forget the caller's items up to a position of the log, and note the groups that the caller has joined,
    /// and those that it could not join.
    Acknowledge(Acknowledgement),
    /// Wait for packages of those devices that have none to hand out, and no longer for others.
    Await {
        /// The devices to wait for.
        invitees: Vec<AwaitedInvitee>,
        /// The devices to wait for no longer.
        stop: Vec<PoolId>,
    },
}

/// A device whose packages an inviter asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwaitedInvitee {
    /// The device.
    pub device: PoolId,
    /// Whether a device of its user has introduced the inviter, or is it.
    pub introduced: bool,
    /// The rate limit that leaves the inviter the last-resort package alone, if there is one.
    pub over: Option<OverQuota>,
}

/// A Welcome on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The packages it is for, as it says itself.
    pub keypackage_refs: Vec<KeyPackageRef>,
}

/// The effect of a command to the delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// The epoch the group is in then; 0 where the command does not say it: when a group is made or left,
    /// for an acknowledgement, and for a message that was posted before.
    pub epoch: u64,
    /// The place of the command's last event in the log; 0 if it changed nothing.
    pub position: u64,
    /// The members whose mailboxes had no room for the message, the first hundred by name.
    pub not_kept: Vec<PoolId>,
    /// Whether it was carried out by an earlier request already.
    pub repeated: bool,
}

/// Why a command to the delivery was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// The rules of the delivery refuse it.
    #[error(transparent)]
    Refused(#[from] DeliveryRejection),
    /// A package could not be spent, so the Commit was not accepted either.
    #[error("package {} could not be spent: {rejection}", keypackage_ref.short())]
    Spend {
        /// The package.
        keypackage_ref: KeyPackageRef,
        /// Why.
        #[source]
        rejection: Rejection,
    },
    /// A device cannot be invited, so the Commit was not accepted.
    #[error("{rejection}")]
    Invitee {
        /// Its package.
        keypackage_ref: KeyPackageRef,
        /// The reason.
        #[source]
        rejection: DeliveryRejection,
    },
    /// The command was not carried out for another reason.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
}
