//! One call on its way: signed by the device's key, sent, and its answer read.

use std::{sync::atomic::Ordering, time::Duration};

use keypool_api::{
    AFTER_HEADER, API_PREFIX, POSITION_HEADER, TIME_HEADER,
    signing::{BodyParts, SignedParts},
};
use keypool_ledger::Timestamp;
use serde::de::DeserializeOwned;
use url::Url;

use super::{ApiClient, ApiError, Call, SIGNATURE_VALID_S, TIMEOUT_S};
use crate::{BoxError, TransportResponse, transport::read_to_end};

/// How many characters of another address are told.
const LOCATION_MAX: usize = 200;

impl ApiClient {
    /// Sends a call; once more if the server refuses it for its time alone, with the server's time.
    pub(super) async fn sent_in_time<T: DeserializeOwned>(
        &self,
        call: &Call<'_>,
    ) -> Result<T, ApiError> {
        match self.send(call, self.now()).await {
            Err(ApiError::Refused(problem)) if problem.server_time.is_some() => {
                let theirs = problem.server_time.unwrap_or_default();
                self.send(call, Timestamp::from_secs(theirs)).await
            }
            answer => answer,
        }
    }

    /// Sends a call once, signed by the device's key.
    async fn send<T: DeserializeOwned>(
        &self,
        call: &Call<'_>,
        now: Timestamp,
    ) -> Result<T, ApiError> {
        let reply = self.exchange(call, now).await?;
        self.hear_time(&reply);
        self.hear_position(&reply);
        let status = reply.status();
        if let Some(redirected) = self.redirection(&reply) {
            return Err(redirected);
        }
        let bytes = read_to_end(reply.into_body()).await.map_err(|err| self.unreachable(err))?;
        let unexpected =
            || ApiError::Unexpected { server: self.server.to_string(), status: status.as_u16() };
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|_| unexpected());
        }
        match serde_json::from_slice(&bytes) {
            Ok(problem) => Err(self.refused(problem)),
            Err(_) => Err(unexpected()),
        }
    }

    /// The error for an answer that leads to another address.
    pub(super) fn redirection(&self, reply: &TransportResponse) -> Option<ApiError> {
        let to = reply.status().is_redirection().then(|| reply.headers().get("location"))??;
        let to: String = String::from_utf8_lossy(to.as_bytes())
            .chars()
            .filter(|char| !char.is_control())
            .take(LOCATION_MAX)
            .collect();
        Some(ApiError::Redirected { server: self.server.to_string(), to })
    }

    /// Takes in the server's time, where an answer tells it.
    fn hear_time(&self, reply: &TransportResponse) {
        let told = reply.headers().get(TIME_HEADER).and_then(|value| value.to_str().ok());
        if let Some(millis) = told.and_then(|told| told.parse().ok()) {
            self.clock.hear(Timestamp::from_millis(millis));
        }
    }

    /// Remembers how far a server of a cluster is, so that the next one shows no less.
    fn hear_position(&self, reply: &TransportResponse) {
        let told = reply.headers().get(POSITION_HEADER).and_then(|value| value.to_str().ok());
        if let Some(position) = told.and_then(|told| told.parse().ok()) {
            self.note_position(position);
        }
    }

    /// Notes that the device has seen the record at a position: a server of a cluster that lacks it is waited for.
    pub(crate) fn note_position(&self, position: u64) {
        self.position.fetch_max(position, Ordering::Relaxed);
    }

    pub(super) fn unreachable(&self, source: BoxError) -> ApiError {
        ApiError::Unreachable { server: self.server.to_string(), source }
    }

    /// The address of a route.
    pub(super) fn url(&self, path: &str, query: &str) -> Result<Url, ApiError> {
        let url = self.server.join(&format!("{API_PREFIX}{path}"));
        let mut url = url.map_err(|_| ApiError::Address(self.server.to_string()))?;
        url.set_query((!query.is_empty()).then_some(query));
        Ok(url)
    }

    /// Sends a call, signed by the device's key and dated by a time, and returns the answer once its head is there.
    pub(super) async fn exchange(
        &self,
        call: &Call<'_>,
        now: Timestamp,
    ) -> Result<TransportResponse, ApiError> {
        let timeout = call.wait.saturating_add(Duration::from_secs(TIMEOUT_S));
        let reply = self.transport.send(self.signed_at(call, now)?, timeout).await;
        reply.map_err(|err| self.unreachable(err))
    }

    /// Signs a call by the device's key, and makes it a request.
    fn signed_at(
        &self,
        call: &Call<'_>,
        now: Timestamp,
    ) -> Result<http::Request<Vec<u8>>, ApiError> {
        let url = self.url(call.path, call.query)?;
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
        // One key for both: another may take its place meanwhile.
        let keys = self.identity.keys();
        let sign = |base: &[u8]| keys.sign(base);
        let headers = parts.sign(keys.signature_key(), now, SIGNATURE_VALID_S, sign)?;
        let mut request = http::Request::builder()
            .method(&call.method)
            .uri(url.as_str())
            .header("signature-input", headers.signature_input)
            .header("signature", headers.signature);
        let seen = self.position.load(Ordering::Relaxed);
        if 0 < seen {
            request = request.header(AFTER_HEADER, seen);
        }
        if let Some(authorization) = &call.authorization {
            request = request.header("authorization", authorization);
        }
        if let Some(body) = &call.body {
            request = request
                .header("content-type", "application/json")
                .header("content-digest", &body.digest)
                .header("idempotency-key", &body.key);
        }
        let body = call.body.as_ref().map(|body| body.bytes.clone()).unwrap_or_default();
        request.body(body).map_err(|err| ApiError::Client(err.into()))
    }
}
