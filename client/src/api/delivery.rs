//! The calls of the server's own delivery.

use std::{sync::atomic::Ordering, time::Duration};

use http::Method;
use keypool_api::{
    AcknowledgeReply, AcknowledgeRequest, AwaitReply, AwaitRequest, CommitReply, CommitRequest,
    GroupReply, GroupRequest, MailboxReply, MessageReply, MessageRequest,
};
use keypool_ledger::{CommandId, GroupId};

use super::{ApiClient, ApiError, Body, Call};

impl ApiClient {
    /// Makes a group with this device as its first member, in epoch 0.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]; its code is `group_exists` if the group was made before.
    pub async fn make_group(
        &self,
        request: &GroupRequest,
        id: CommandId,
    ) -> Result<GroupReply, ApiError> {
        self.post("/groups", request, id).await
    }

    /// Ends the delivery of a group to this device, a member or not.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]. Repeating it is harmless.
    pub async fn leave_group(
        &self,
        group: &GroupId,
        id: CommandId,
    ) -> Result<GroupReply, ApiError> {
        let path = format!("/groups/{}/leave", group.to_path());
        let body = Some(Body::of(Vec::new(), id));
        self.repeated(&Call { body, ..Call::to(Method::POST, &path) }).await
    }

    /// The place of the last Commit or message that was posted; 0 if there was none since the app has started.
    pub(crate) fn posted(&self) -> u64 {
        self.posted.load(Ordering::Acquire)
    }

    /// Posts a Commit with its Welcomes and the spending of its packages: all of it or nothing. The
    /// first Commit for an epoch wins.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]; its code is `epoch_taken` if another Commit was first, or that of a
    /// spend if a package cannot be spent. Nothing was accepted then.
    pub async fn post_commit(
        &self,
        group: &GroupId,
        request: &CommitRequest,
        id: CommandId,
    ) -> Result<CommitReply, ApiError> {
        let path = format!("/groups/{}/commits", group.to_path());
        let reply: CommitReply = self.post(&path, request, id).await?;
        self.posted.fetch_max(reply.position, Ordering::AcqRel);
        Ok(reply)
    }

    /// Posts a sealed message to the other members' devices.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]; its code is `unknown_group` if no Commit of the group was ever
    /// posted, and `not_allowed` if the device is not a member by any Commit that was accepted.
    pub async fn post_message(
        &self,
        group: &GroupId,
        request: &MessageRequest,
        id: CommandId,
    ) -> Result<MessageReply, ApiError> {
        let path = format!("/groups/{}/messages", group.to_path());
        let reply: MessageReply = self.post(&path, request, id).await?;
        self.posted.fetch_max(reply.position, Ordering::AcqRel);
        Ok(reply)
    }

    /// Returns the mailbox items after a position, in order, at most `limit` of them. If there
    /// are none, the server waits up to `wait_s` seconds for something to come.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]; its code is `mailbox_overrun` if the server has kept nothing more
    /// after the position, and there was more. An answer with an item that does not follow the position or the
    /// item before it is [`ApiError::Unexpected`]: a reader who asks after its last item would ask for ever.
    pub async fn mailbox(
        &self,
        after: u64,
        limit: u16,
        wait_s: u64,
    ) -> Result<MailboxReply, ApiError> {
        let query = format!("after={after}&limit={limit}&wait={wait_s}");
        let wait = Duration::from_secs(wait_s);
        let call = Call { query: &query, wait, ..Call::to(Method::GET, "/mailbox") };
        let reply: MailboxReply = self.repeated(&call).await?;
        let mut last = after;
        let mut is_next = |position| std::mem::replace(&mut last, position) < position;
        if reply.items.iter().all(|item| is_next(item.position)) {
            return Ok(reply);
        }
        Err(ApiError::Unexpected { server: self.server.to_string(), status: 200 })
    }

    /// Waits for packages of devices that have none now, and no longer for others: the mailbox names the
    /// devices once they have some.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]; its code is `waiting_list_full` if the device waits for as many as it may.
    pub async fn await_packages(
        &self,
        request: &AwaitRequest,
        id: CommandId,
    ) -> Result<AwaitReply, ApiError> {
        self.post("/keypackages/await", request, id).await
    }

    /// Acknowledges the mailbox items up to a position, which the server then deletes.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`].
    pub async fn acknowledge(
        &self,
        request: &AcknowledgeRequest,
        id: CommandId,
    ) -> Result<AcknowledgeReply, ApiError> {
        self.post("/mailbox/acknowledge", request, id).await
    }
}
