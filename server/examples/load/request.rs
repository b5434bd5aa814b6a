//! Requests as bytes, made and signed before the measuring begins.

use std::convert::Infallible;

use ed25519_dalek::Signer;
use keypool_api::signing::{BodyParts, SignatureHeaders, SignedParts, content_digest};
use keypool_ledger::{Clock, SystemClock};
use serde::Serialize;
use uuid::Uuid;

use crate::{Outcome, population::Device};

/// The name every subject is asked by, so that a request can be signed before it is known where the
/// subject listens.
pub(crate) const AUTHORITY: &str = "bench.keypool";
/// How long a signature is valid, in seconds.
const VALID_SECS: u64 = 120;

/// How a request says who sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Auth {
    /// By name, to a server with `--insecure-no-auth`.
    Named,
    /// By a signature of its key.
    Signed,
}

/// A `POST` with a JSON body and a new idempotency key.
pub(crate) fn post(
    auth: Auth,
    caller: &Device,
    path: &str,
    body: &impl Serialize,
) -> Outcome<Vec<u8>> {
    let body = serde_json::to_vec(body)?;
    let idempotency_key = Uuid::now_v7().to_string();
    let digest = content_digest(&body);
    let parts = SignedParts {
        method: "POST",
        authority: AUTHORITY,
        path,
        query: "?",
        body: Some(BodyParts {
            content_type: "application/json",
            content_digest: &digest,
            idempotency_key: &idempotency_key,
        }),
        authorization: None,
        caller: None,
    };
    let who = match auth {
        Auth::Named => named(caller),
        Auth::Signed => format!("content-digest: {digest}\r\n{}", signed(caller, &parts)?),
    };
    let len = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {AUTHORITY}\r\ncontent-type: application/json\r\n\
         content-length: {len}\r\nidempotency-key: {idempotency_key}\r\n{who}\r\n"
    );
    Ok([head.into_bytes(), body].concat())
}

/// A `GET`; `query` begins with its question mark, or is empty.
pub(crate) fn get(auth: Auth, caller: &Device, path: &str, query: &str) -> Outcome<Vec<u8>> {
    let parts = SignedParts {
        method: "GET",
        authority: AUTHORITY,
        path,
        query: if query.is_empty() { "?" } else { query },
        body: None,
        authorization: None,
        caller: None,
    };
    let who = match auth {
        Auth::Named => named(caller),
        Auth::Signed => signed(caller, &parts)?,
    };
    Ok(format!("GET {path}{query} HTTP/1.1\r\nhost: {AUTHORITY}\r\n{who}\r\n").into_bytes())
}

fn named(caller: &Device) -> String {
    format!("x-keypool-caller: {}\r\n", caller.pool)
}

fn signed(caller: &Device, parts: &SignedParts<'_>) -> Outcome<String> {
    let now = SystemClock.now();
    let sign = |base: &[u8]| Ok::<_, Infallible>(caller.key.sign(base).to_bytes().to_vec());
    let Ok(headers) = parts.sign(&caller.keyid()?, now, VALID_SECS, sign);
    let SignatureHeaders { signature_input, signature } = headers;
    Ok(format!("signature-input: {signature_input}\r\nsignature: {signature}\r\n"))
}
