//! The receiving end of `--webhook`: accepts events that the server's ledger key has signed.

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Bytes, Data},
};
use ed25519_dalek::{Signature, VerifyingKey};
use keypool_api::{
    WebhookBatch, WebhookEvent,
    signing::{BodyParts, ReceivedSignature, SignedParts, content_digest},
};
use keypool_ledger::Clock;
use keypool_transparency::NoteKey;

/// The knowledge and the effect of a receiver.
pub(crate) struct WebhookReceiver {
    /// The key of the server's ledger.
    pub(crate) ledger_key: NoteKey,
    /// The host of the receiver's own URL, with the port unless it is the scheme's own.
    pub(crate) authority: String,
    /// The clock that signatures are checked against.
    pub(crate) clock: Arc<dyn Clock>,
    /// The effect of an event.
    pub(crate) handle: Box<dyn Fn(WebhookEvent) + Send + Sync>,
}

/// Handles the events of a request: 204 once they are handled, 401 for a request that is not genuine.
pub(crate) async fn receive(
    request: HttpRequest,
    body: Bytes,
    receiver: Data<WebhookReceiver>,
) -> HttpResponse {
    match receiver.events_of(&request, &body) {
        Ok(events) => {
            for event in events {
                (receiver.handle)(event);
            }
            HttpResponse::NoContent().finish()
        }
        Err(reason) => HttpResponse::Unauthorized().body(reason),
    }
}

impl WebhookReceiver {
    /// Verifies a request, and reads its events.
    fn events_of(&self, request: &HttpRequest, body: &[u8]) -> Result<Vec<WebhookEvent>, String> {
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        let header = |name| header(name).unwrap_or_default();
        if header("content-digest") != content_digest(body) {
            return Err("the body is not the one that was signed".to_owned());
        }
        let parts = SignedParts {
            method: request.method().as_str(),
            authority: &self.authority,
            path: request.path(),
            query: "?",
            body: Some(BodyParts {
                content_type: header("content-type"),
                content_digest: header("content-digest"),
                idempotency_key: header("idempotency-key"),
            }),
            authorization: None,
            caller: None,
        };
        let received = ReceivedSignature::parse(header("signature-input"), header("signature"))
            .map_err(|error| error.to_string())?;
        parts.check(&received, self.clock.now()).map_err(|error| error.to_string())?;
        let genuine = || {
            let key = VerifyingKey::from_bytes(self.ledger_key.as_bytes()).ok()?;
            let signature = Signature::from_slice(&received.signature).ok()?;
            key.verify_strict(parts.base(&received.params).as_bytes(), &signature).ok()
        };
        genuine().ok_or("the request is not signed by the ledger key")?;
        let batch: WebhookBatch =
            serde_json::from_slice(body).map_err(|error| error.to_string())?;
        Ok(batch.events)
    }
}
