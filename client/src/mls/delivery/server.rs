//! The server's own delivery: a Commit, its Welcome and the spending of its package are one request.

use keypool_api::{Base64, ClaimRequest, Code, CommitReply, CommitRequest, GroupRequest};
use keypool_ledger::{CommandId, GroupId, Hash, PoolId};

use super::{AddedMember, CommitPost, DeliveryError, DeliveryService, WelcomePost};
use crate::{ApiClient, ApiError, storage::fresh_command};

/// The delivery of the server that keeps the pools. See [`MlsClient::open_at_server`].
///
/// [`MlsClient::open_at_server`]: crate::MlsClient::open_at_server
#[derive(Clone, Debug)]
pub struct ServerDelivery {
    api: ApiClient,
}

impl ServerDelivery {
    /// The delivery of the server with this API.
    #[must_use]
    pub const fn new(api: ApiClient) -> Self {
        Self { api }
    }
}

impl DeliveryService for ServerDelivery {
    async fn post_commit(&self, post: &CommitPost) -> Result<Vec<PoolId>, DeliveryError> {
        let added = post.added.iter();
        let claim = |added: &AddedMember| ClaimRequest {
            keypackage_ref: added.keypackage_ref.clone(),
            reservation_id: added.reservation_id,
        };
        let request = CommitRequest {
            epoch: post.epoch,
            commit: Base64(post.commit.clone()),
            welcomes: added.clone().take(1).map(|_| Base64(post.welcome.clone())).collect(),
            spend: added.map(claim).collect(),
            removed: post.removed.clone(),
        };
        let mut posted = self.post(post, &request).await;
        let is_unknown = |error: &ApiError| error.code() == Some(Code::UnknownGroup);
        // A group that the server makes is in epoch 0: no later Commit can follow.
        if post.epoch == 0 && posted.as_ref().is_err_and(is_unknown) {
            make(&self.api, &post.group).await.map_err(refusal)?;
            posted = self.post(post, &request).await;
        }
        posted.map(|reply| reply.not_kept).map_err(refusal)
    }

    /// Refuses: a Welcome goes out with its Commit. Nobody asks but for an invitation whose Commit was
    /// posted elsewhere, before the app changed to this delivery.
    async fn send_welcome(&self, _: &WelcomePost) -> Result<(), DeliveryError> {
        Err(DeliveryError::Refused("the server takes a Welcome with its Commit alone".into()))
    }

    fn is_the_servers(&self) -> bool {
        true
    }
}

impl ServerDelivery {
    async fn post(
        &self,
        post: &CommitPost,
        request: &CommitRequest,
    ) -> Result<CommitReply, ApiError> {
        self.api.post_commit(&post.group, request, command_of(&post.commit)).await
    }
}

/// Makes a group at the server, unless it was made before.
pub(crate) async fn make(api: &ApiClient, group: &GroupId) -> Result<(), ApiError> {
    let request = GroupRequest { group_id: group.clone() };
    match api.make_group(&request, fresh_command()).await {
        Err(error) if error.code() == Some(Code::GroupExists) => Ok(()),
        outcome => outcome.map(drop),
    }
}

/// The id of the request that posts something sealed. It follows from the bytes, of which no two are
/// alike, so that the server answers every repetition from its log.
pub(super) fn command_of(sealed: &[u8]) -> CommandId {
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(Hash::of(sealed).as_bytes()).for_each(|(to, from)| *to = *from);
    CommandId(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

/// Classifies a refusal of a post.
///
/// The request may have been carried out before, and its answer lost. A reply of the server once it has
/// looked for that in its log tells that it was not, and so does a proxy that refuses the request for good:
/// it lets no such request through. After all else it is posted again.
pub(super) fn refusal(error: ApiError) -> DeliveryError {
    match error.code() {
        Some(Code::EpochTaken) => DeliveryError::EpochTaken,
        Some(
            Code::ReservationLost
            | Code::ReservationMismatch
            | Code::AlreadySpent
            | Code::Expired
            | Code::Revoked
            | Code::UnknownKeyPackage,
        ) => DeliveryError::PackageLost(error),
        Some(Code::InvitationsFull | Code::InviteeSuspended) => {
            DeliveryError::InviteeRefused(error)
        }
        // About one of the packages: its owner does not let us.
        Some(Code::NotAllowed) if names_a_package(&error) => DeliveryError::InviteeRefused(error),
        Some(
            Code::NotAllowed
            | Code::UnknownGroup
            | Code::BadRequest
            | Code::InvalidName
            | Code::InvalidMessage
            | Code::TooLarge,
        ) => DeliveryError::Refused(error.into()),
        None if error.is_refusal_of_a_proxy() => DeliveryError::Refused(error.into()),
        _ => DeliveryError::Unanswered(error.into()),
    }
}

/// Whether a refusal is about one of the packages of the request.
fn names_a_package(error: &ApiError) -> bool {
    matches!(error, ApiError::Refused(problem) if problem.keypackage_ref.is_some())
}
