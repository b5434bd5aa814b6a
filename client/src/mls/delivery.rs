//! How Commits and Welcomes get to the members of a group: by the app's own Delivery Service, or by the
//! server's.

pub(crate) mod catch_up;
pub(crate) mod events;
pub(crate) mod mailbox;
pub(crate) mod outbox;
mod progress;
pub(crate) mod server;
pub(crate) mod standing;

use std::future::Future;

use keypool_ledger::{GroupId, KeyPackageRef, PoolId, ReservationId};
use serde::{Deserialize, Serialize};

use crate::{ApiError, BoxError};

/// Transport of Commits and Welcomes: the app's own Delivery Service (RFC 9420 section 3), or the
/// server's, which is [`ServerDelivery`](crate::ServerDelivery).
///
/// Both functions may be called again with the same bytes, after a lost answer or a crash, and must
/// then succeed again.
pub trait DeliveryService: Send + Sync {
    /// Posts a Commit to the members of a group. It is accepted only if no other Commit was accepted
    /// for its epoch; a Commit that was accepted before, byte for byte, is accepted again.
    ///
    /// Returns the members that the Commit does not reach because their mailboxes are full; none if the
    /// Delivery Service does not know of any.
    ///
    /// # Errors
    ///
    /// Returns a [`DeliveryError`].
    fn post_commit(
        &self,
        post: &CommitPost,
    ) -> impl Future<Output = Result<Vec<PoolId>, DeliveryError>> + Send;

    /// Hands a Welcome over to a new member. It is called only once the Commit is accepted.
    ///
    /// # Errors
    ///
    /// Returns a [`DeliveryError`]; it is tried again later.
    fn send_welcome(
        &self,
        post: &WelcomePost,
    ) -> impl Future<Output = Result<(), DeliveryError>> + Send;

    /// Whether this is the server's own delivery: a Commit, its Welcome and the spending of its package
    /// are one request to it, and posts of other members are fetched from the mailbox there.
    ///
    /// An app's own Delivery Service leaves this out.
    fn is_the_servers(&self) -> bool {
        false
    }
}

/// A Commit on its way to the members of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitPost {
    /// The group.
    pub group: GroupId,
    /// The epoch it ends: the first Commit for an epoch wins.
    pub epoch: u64,
    /// The bytes.
    pub commit: Vec<u8>,
    /// The devices that are not in the group any more once it is accepted.
    #[serde(default)]
    pub removed: Vec<PoolId>,
    /// The devices it adds, for the server's own delivery, which spends the packages and hands over the
    /// Welcome with the Commit. For every other one they are left out.
    #[serde(default)]
    pub added: Vec<AddedMember>,
    /// The bytes of the Welcome for these.
    #[serde(default)]
    pub welcome: Vec<u8>,
}

/// A device that a Commit adds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedMember {
    /// The device.
    pub device: PoolId,
    /// Its package.
    pub keypackage_ref: KeyPackageRef,
    /// The reservation that holds the package.
    pub reservation_id: ReservationId,
}

/// A Welcome on its way to a new member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WelcomePost {
    /// The group.
    pub group: GroupId,
    /// The recipient.
    pub to: PoolId,
    /// The package it was made for.
    pub keypackage_ref: KeyPackageRef,
    /// The bytes.
    pub welcome: Vec<u8>,
}

/// Why the Delivery Service did not take something.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// Another Commit was accepted for the epoch. Fetch it, and begin again.
    #[error("another Commit was accepted for this epoch")]
    EpochTaken,
    /// The package of the member to be added cannot be spent, so the Commit was not accepted either.
    /// Only the server's own delivery says so. Begin again with a fresh package.
    #[error("the package is lost, and the Commit was not accepted")]
    PackageLost(#[source] ApiError),
    /// A device to be added does not take the invitation now, so the Commit was not accepted. Only the
    /// server's own delivery says so. Begin again without it.
    #[error("a device does not take the invitation, and the Commit was not accepted")]
    InviteeRefused(#[source] ApiError),
    /// It will not be taken, now or later.
    #[error("the Delivery Service refused")]
    Refused(#[source] BoxError),
    /// Nobody knows whether it was taken. It is posted again later.
    #[error("the Delivery Service did not answer")]
    Unanswered(#[source] BoxError),
}
