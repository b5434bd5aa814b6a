//! One call on its way: signed by the key or in a session, sent, and its answer read.

use std::{sync::atomic::Ordering, time::Duration};

use keypool_projections::{
    signing::{BodyParts, Session, SignedParts},
    wire::{Code, Problem},
};
use serde::de::DeserializeOwned;

use super::{ApiClient, ApiError, Call, SIGNATURE_VALID_S, TIMEOUT_S};

impl ApiClient {
    /// Sends a call; once more if the server refuses it for its time alone, with the server's time.
    pub(super) async fn sent_in_time<T: DeserializeOwned>(
        &self,
        call: &Call<'_>,
    ) -> Result<T, ApiError> {
        match self.send(call).await {
            Err(ApiError::Refused(problem)) if self.follow_clock(&problem) => self.send(call).await,
            answer => answer,
        }
    }

    /// Takes note of the server's time, where a refusal tells it.
    pub(super) fn follow_clock(&self, problem: &Problem) -> bool {
        let Some(theirs) = problem.server_time.and_then(|secs| i64::try_from(secs).ok()) else {
            return false;
        };
        let ours = i64::try_from(self.clock.now().as_secs()).unwrap_or(i64::MAX);
        let ahead_s = theirs.saturating_sub(ours);
        tracing::warn!(ahead_s, "the server's clock differs; signatures are dated by it");
        self.ahead_s.store(ahead_s, Ordering::Relaxed);
        true
    }

    /// Sends a call, in a session if there is one. Where the server does not know it, or does not take it
    /// for this call, the same call goes out signed by the key: nobody notices but the server.
    async fn send<T: DeserializeOwned>(&self, call: &Call<'_>) -> Result<T, ApiError> {
        if let Some(session) = self.session_for(call).await {
            match self.sent(call, Some(&session)).await {
                Err(ApiError::Refused(problem)) if is_about_the_session(&problem) => {
                    tracing::debug!(detail = problem.detail, "the session has ended");
                    self.sessions.ended(session.id(), self.clock.now());
                }
                answer => return answer,
            }
        }
        self.sent(call, None).await
    }

    /// Sends a call, signed in a session or by the key.
    pub(super) async fn sent<T: DeserializeOwned>(
        &self,
        call: &Call<'_>,
        session: Option<&Session>,
    ) -> Result<T, ApiError> {
        let reply =
            self.signed(call, session)?.send().await.map_err(|err| self.unreachable(err))?;
        let status = reply.status();
        let bytes = reply.bytes().await.map_err(|err| self.unreachable(err))?;
        let unexpected =
            || ApiError::Unexpected { server: self.server.to_string(), status: status.as_u16() };
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|_| unexpected());
        }
        match serde_json::from_slice(&bytes) {
            Ok(problem) => Err(ApiError::Refused(Box::new(problem))),
            Err(_) => Err(unexpected()),
        }
    }

    pub(super) fn unreachable(&self, err: reqwest::Error) -> ApiError {
        let source = err.without_url().into();
        ApiError::Unreachable { server: self.server.to_string(), source }
    }

    /// A call as a request, signed in a session or by the key.
    pub(super) fn signed(
        &self,
        call: &Call<'_>,
        session: Option<&Session>,
    ) -> Result<reqwest::RequestBuilder, ApiError> {
        let mut url =
            self.server.join(call.path).map_err(|_| ApiError::Address(self.server.to_string()))?;
        if !call.query.is_empty() {
            url.set_query(Some(call.query));
        }
        let query = format!("?{}", call.query);
        let parts = SignedParts {
            method: call.method.as_str(),
            authority: &self.authority,
            path: url.path(),
            query: &query,
            body: call.body.as_ref().map(|body| BodyParts {
                content_type: "application/json",
                content_digest: &body.digest,
                idempotency_key: &body.key,
            }),
            authorization: call.authorization.as_deref(),
        };
        let now = self.server_time(self.clock.now());
        let headers = if let Some(session) = session {
            parts.sign_in(session, now, SIGNATURE_VALID_S)
        } else {
            // One key for both: another may take its place meanwhile.
            let keys = self.identity.keys();
            let sign = |base: &[u8]| Ok::<_, std::convert::Infallible>(keys.sign(base));
            let Ok(headers) = parts.sign(keys.signature_key(), now, SIGNATURE_VALID_S, sign);
            headers
        };
        let mut request = self
            .http
            .request(call.method.clone(), url.clone())
            .timeout(call.wait.saturating_add(Duration::from_secs(TIMEOUT_S)))
            .header("signature-input", headers.signature_input)
            .header("signature", headers.signature);
        if let Some(authorization) = &call.authorization {
            request = request.header("authorization", authorization);
        }
        if let Some(body) = &call.body {
            request = request
                .header("content-type", "application/json")
                .header("content-digest", &body.digest)
                .header("idempotency-key", &body.key)
                .body(body.bytes.clone());
        }
        Ok(request)
    }
}

/// Whether a request in a session may be welcome when the key signs it: whatever the server misses, unless
/// it is the time.
fn is_about_the_session(problem: &Problem) -> bool {
    problem.code == Code::Unauthenticated && problem.server_time.is_none()
}
