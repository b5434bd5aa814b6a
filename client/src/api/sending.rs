//! One call on its way: signed by the device's key, sent, and its answer read.

use std::{sync::atomic::Ordering, time::Duration};

use keypool_api::{
    Problem,
    signing::{BodyParts, SignedParts},
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
    fn follow_clock(&self, problem: &Problem) -> bool {
        let Some(theirs) = problem.server_time.and_then(|secs| i64::try_from(secs).ok()) else {
            return false;
        };
        let ours = i64::try_from(self.clock.now().as_secs()).unwrap_or(i64::MAX);
        let ahead_s = theirs.saturating_sub(ours);
        tracing::warn!(ahead_s, "the server's clock differs; signatures are dated by it");
        self.ahead_s.store(ahead_s, Ordering::Relaxed);
        true
    }

    /// Sends a call once, signed by the device's key.
    async fn send<T: DeserializeOwned>(&self, call: &Call<'_>) -> Result<T, ApiError> {
        let reply = self.signed(call)?.send().await.map_err(|err| self.unreachable(err))?;
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

    /// Signs a call by the device's key, and makes it a request.
    pub(super) fn signed(&self, call: &Call<'_>) -> Result<reqwest::RequestBuilder, ApiError> {
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
            caller: None,
        };
        let now = self.server_time(self.clock.now());
        // One key for both: another may take its place meanwhile.
        let keys = self.identity.keys();
        let sign = |base: &[u8]| Ok::<_, std::convert::Infallible>(keys.sign(base));
        let Ok(headers) = parts.sign(keys.signature_key(), now, SIGNATURE_VALID_S, sign);
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
