//! Who is asking a baseline: by name, or by a signature that is checked as the server checks it.

use std::collections::HashMap;

use actix_web::{HttpRequest, http::header::HeaderMap};
use ed25519_dalek::{Signature, VerifyingKey};
use keypool_api::signing::{BodyParts, ReceivedSignature, SignedParts, content_digest};
use keypool_ledger::{Clock, SignatureKey, SystemClock};
use uuid::Uuid;

use crate::{Outcome, population::Device, request::AUTHORITY};

/// The devices that may ask.
pub(crate) struct Door {
    /// Which device a key speaks for; `None` where requests are not signed.
    known: Option<HashMap<SignatureKey, String>>,
}

impl Door {
    pub(crate) fn new(signed: bool, devices: u64) -> Outcome<Self> {
        if !signed {
            return Ok(Self { known: None });
        }
        let mut known = HashMap::new();
        for number in 0..devices {
            let device = Device::new(number)?;
            known.insert(device.keyid()?, device.pool.to_string());
        }
        Ok(Self { known: Some(known) })
    }

    /// Who sends a request that has a body, and its idempotency key.
    pub(crate) fn writer(&self, request: &HttpRequest, body: &[u8]) -> Outcome<(String, Uuid)> {
        let key = header(request.headers(), "idempotency-key")?.parse()?;
        Ok((self.sender(request, Some(body))?, key))
    }

    /// Who sends a request without a body.
    pub(crate) fn reader(&self, request: &HttpRequest) -> Outcome<String> {
        self.sender(request, None)
    }

    fn sender(&self, request: &HttpRequest, body: Option<&[u8]>) -> Outcome<String> {
        let headers = request.headers();
        let authority = header(headers, "host")?.to_ascii_lowercase();
        if authority != AUTHORITY {
            return Err("the request was sent to another server".into());
        }
        let Some(known) = &self.known else {
            return Ok(header(headers, "x-keypool-caller")?.to_owned());
        };
        let query = format!("?{}", request.uri().query().unwrap_or_default());
        let parts = SignedParts {
            method: request.method().as_str(),
            authority: &authority,
            path: request.uri().path(),
            query: &query,
            body: match body {
                Some(_) => Some(BodyParts {
                    content_type: header(headers, "content-type")?,
                    content_digest: header(headers, "content-digest")?,
                    idempotency_key: header(headers, "idempotency-key")?,
                }),
                None => None,
            },
            authorization: None,
            caller: None,
        };
        let key = verified(headers, &parts, body)?;
        known.get(&key).cloned().ok_or_else(|| "the key speaks for no device".into())
    }
}

/// The key that has signed a request.
fn verified(
    headers: &HeaderMap,
    parts: &SignedParts<'_>,
    body: Option<&[u8]>,
) -> Outcome<SignatureKey> {
    let input = header(headers, "signature-input")?;
    let received = ReceivedSignature::parse(input, header(headers, "signature")?)?;
    parts.check(&received, SystemClock.now())?;
    if let (Some(body), Some(described)) = (body, &parts.body)
        && described.content_digest != content_digest(body)
    {
        return Err("Content-Digest is not the SHA-256 of the body".into());
    }
    let base = parts.base(&received.params);
    let keyid = received.keyid;
    let key = VerifyingKey::from_bytes(keyid.as_bytes().try_into()?)?;
    let signature = Signature::from_slice(&received.signature)?;
    key.verify_strict(base.as_bytes(), &signature)?;
    Ok(keyid)
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Outcome<&'a str> {
    let value = headers.get(name).ok_or_else(|| format!("the header {name} is missing"))?;
    Ok(value.to_str()?)
}
