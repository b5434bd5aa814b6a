//! The app's backend, as the server posts to it: signed, without redirects, within a time.

use std::{error::Error, time::Duration};

use keypool_api::{
    WebhookBatch, WebhookEvent,
    signing::{BodyParts, SignatureHeaders, SignedParts, VALID_SECS_MAX, content_digest},
};
use keypool_ledger::{NameError, SignatureKey, Timestamp};
use keypool_transparency::NoteError;
use reqwest::{Client, Response, header::CONTENT_TYPE, redirect::Policy};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::WebhookUrl;
use crate::transparency::Ledger;

/// The type of the body.
const JSON: &str = "application/json";

/// A client of the app's backend.
#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    client: Client,
    url: WebhookUrl,
}

/// The reason why a request did not deliver its events.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    /// The body cannot be written: a bug.
    #[error("the events cannot be written as JSON")]
    Body(#[from] serde_json::Error),
    /// The ledger's key does not sign: a bug.
    #[error("the request cannot be signed")]
    Unsigned(#[from] NoteError),
    /// The ledger's key is none that a signature can name: a bug.
    #[error("the ledger's key cannot be named")]
    Key(#[from] NameError),
    /// The backend did not answer in time, or not over HTTP.
    #[error("it cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// The backend has refused, or points elsewhere.
    #[error("it answered with status {0} in place of 2xx")]
    Status(u16),
}

impl Receiver {
    /// Makes a client that gives up a request after a time.
    ///
    /// # Errors
    ///
    /// Returns the error of the client: most often the system has no CA certificates.
    pub(crate) fn new(
        url: WebhookUrl,
        timeout: Duration,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let builder = Client::builder().redirect(Policy::none()).timeout(timeout);
        // To this machine in clear: neither a proxy nor a CA stands between.
        let builder =
            if url.is_clear() { builder.no_proxy().tls_certs_only(Vec::new()) } else { builder };
        Ok(Self { client: builder.build()?, url })
    }

    pub(super) fn url(&self) -> &WebhookUrl {
        &self.url
    }

    /// Posts events. When this returns, the backend has them.
    ///
    /// # Errors
    ///
    /// Returns a [`PostError`]: the backend may have the events, and they are to be posted again.
    pub(super) async fn post(
        &self,
        events: Vec<WebhookEvent>,
        ledger: &Ledger,
        now: Timestamp,
    ) -> Result<(), PostError> {
        let body = serde_json::to_vec(&WebhookBatch { events })?;
        let (digest, key) = (content_digest(&body), name_of(&body).to_string());
        let headers = self.signed(&digest, &key, (ledger, now))?;
        let request = self.client.post(self.url.as_url().clone());
        let request = request
            .header(CONTENT_TYPE, JSON)
            .header("content-digest", digest)
            .header("idempotency-key", key)
            .header("signature-input", headers.signature_input)
            .header("signature", headers.signature);
        let response = request.body(body).send().await.map_err(PostError::Unreachable)?;
        accepted(&response)
    }

    fn signed(
        &self,
        content_digest: &str,
        idempotency_key: &str,
        (ledger, now): (&Ledger, Timestamp),
    ) -> Result<SignatureHeaders, PostError> {
        let body = BodyParts { content_type: JSON, content_digest, idempotency_key };
        let authority = self.url.authority();
        let parts = SignedParts {
            method: "POST",
            authority: &authority,
            path: self.url.path(),
            query: "?",
            body: Some(body),
            authorization: None,
            caller: None,
        };
        let keyid = SignatureKey::new(ledger.key().as_bytes())?;
        Ok(parts.sign(&keyid, now, VALID_SECS_MAX, |base| ledger.sign_http(base))?)
    }
}

fn accepted(response: &Response) -> Result<(), PostError> {
    let status = response.status();
    if status.is_success() { Ok(()) } else { Err(PostError::Status(status.as_u16())) }
}

/// The name of a request: the same whenever the same events are posted.
fn name_of(body: &[u8]) -> Uuid {
    let digest = Sha256::digest(body);
    let bytes = digest.first_chunk().copied().unwrap_or_default();
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}
