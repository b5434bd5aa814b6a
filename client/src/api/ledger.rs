//! The server's public checkpoints and proofs of its log. Requests for them are not signed.
//!
//! Each is requested once, with a short timeout: the next refresh requests it again.

use std::time::Duration;

use http::StatusCode;
use keypool_api::{AFTER_HEADER, ConsistencyReply};
use keypool_transparency::{NoteKey, TreeHash};

use super::{ApiClient, ApiError};
use crate::transport::read_to_end;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long an answer may be, in bytes: a note with all the signatures it may carry, and more.
const ANSWER_MAX: usize = 64 * 1024;

impl ApiClient {
    /// The server's last checkpoint, a signed note; none if the server publishes none.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`].
    pub async fn ledger_checkpoint(&self) -> Result<Option<String>, ApiError> {
        self.ledger_checkpoint_after(0).await
    }

    /// The same; a server of a cluster answers with a checkpoint of at least so many records.
    pub(crate) async fn ledger_checkpoint_after(
        &self,
        size: u64,
    ) -> Result<Option<String>, ApiError> {
        self.published("/ledger/checkpoint", "", size).await
    }

    /// The key of the server's checkpoints, as the server itself says it; none if it does not. To be
    /// trusted on first use at most.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`].
    pub async fn ledger_key(&self) -> Result<Option<NoteKey>, ApiError> {
        let text = self.published("/ledger/key", "", 0).await?;
        Ok(text.and_then(|text| text.trim().parse().ok()))
    }

    /// The hashes that show that the log of one size is the beginning of that of another; none if the
    /// server refuses to show it.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`].
    pub async fn ledger_consistency(
        &self,
        from: u64,
        to: u64,
    ) -> Result<Option<Vec<TreeHash>>, ApiError> {
        let query = format!("from={from}&to={to}");
        let Some(text) = self.published("/ledger/proof/consistency", &query, to).await? else {
            return Ok(None);
        };
        let reply: Option<ConsistencyReply> = serde_json::from_str(&text).ok();
        let hash = |bytes: Vec<u8>| bytes.try_into().map(TreeHash).ok();
        let hashes = reply.filter(|reply| (reply.from, reply.to) == (from, to));
        let hashes = hashes.map(|reply| reply.hashes.into_iter().map(|it| hash(it.0)).collect());
        hashes.ok_or_else(|| self.unexpected(StatusCode::OK))
    }

    /// The server's time, signed for a question; none if the server does not state it.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`].
    pub(crate) async fn ledger_time(&self, nonce: [u8; 16]) -> Result<Option<String>, ApiError> {
        let query = format!("nonce={}", data_encoding::HEXLOWER.encode(&nonce));
        self.published("/ledger/time", &query, 0).await
    }

    /// Fetches a public document, of at least `size` records; `None` if there is none at that address.
    async fn published(
        &self,
        path: &str,
        query: &str,
        size: u64,
    ) -> Result<Option<String>, ApiError> {
        let mut request = http::Request::get(self.url(path, query)?.as_str());
        if 0 < size {
            request = request.header(AFTER_HEADER, size);
        }
        let request = request.body(Vec::new());
        let request = request.map_err(|err| ApiError::Client(err.into()))?;
        let reply = self.transport.send(request, PATIENCE).await;
        let reply = reply.map_err(|err| self.unreachable(err))?;
        let status = reply.status();
        if let Some(redirected) = self.redirection(&reply) {
            return Err(redirected);
        }
        if matches!(status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND) {
            return Ok(None);
        }
        let bytes = read_to_end(reply.into_body()).await.map_err(|err| self.unreachable(err))?;
        if !status.is_success() || ANSWER_MAX < bytes.len() {
            return Err(self.unexpected(status));
        }
        String::from_utf8(bytes).map(Some).map_err(|_| self.unexpected(status))
    }

    fn unexpected(&self, status: StatusCode) -> ApiError {
        ApiError::Unexpected { server: self.server.to_string(), status: status.as_u16() }
    }
}
