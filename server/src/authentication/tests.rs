//! Signatures of the profile, made elsewhere and spoiled.

use actix_web::http::header::{HeaderName, HeaderValue};

use super::*;

const BODY: &[u8] = br#"{"target_user":"bob","group_id":"Z3JvdXAtMQ=="}"#;
const KEY: &str = "018f2f3e-7c1a-7d3b-9a5e-0123456789ab";
const INPUT: &str = "kp=(\"@method\" \"@authority\" \"@path\" \"content-type\" \"content-digest\" \"idempotency-key\");created=1766400000;keyid=\"A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg\";alg=\"ed25519\";expires=1766400060;tag=\"keypool-v1\"";
const SIGNATURE: &str =
    "kp=:ulJWxNwpZLo4rGM8EJGZ8LjqWid4k6GY+VSGPMwKX3eXf2BRvmViKRWSe5G2EUDO3dGSfzCOzkqVtv9ArdKICg==:";
const NOW: Timestamp = Timestamp::from_secs(1_766_400_000);

fn known_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [("signature-input", INPUT), ("signature", SIGNATURE)] {
        headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn known_parts(digest: &str) -> SignedParts<'_> {
    SignedParts {
        method: "POST",
        authority: "keypool.example",
        path: "/keypackages/reserve",
        query: "?",
        body: Some(BodyParts {
            content_type: "application/json",
            content_digest: digest,
            idempotency_key: KEY,
        }),
        authorization: None,
        caller: None,
    }
}

fn verified(
    headers: &HeaderMap,
    parts: &SignedParts<'_>,
) -> Result<SignatureKey, AuthenticationError> {
    let claim = SignedClaim::read(headers, parts, NOW)?;
    claim.check(parts, NOW)?;
    claim.verify().map(|()| claim.key().clone())
}

fn does_not_verify() -> AuthenticationError {
    bad("it does not verify with this key for this request")
}

#[test]
fn a_request_signed_by_another_implementation_is_verified() {
    let digest = content_digest(BODY);
    let key = verified(&known_headers(), &known_parts(&digest)).unwrap();
    assert_eq!(key.to_string(), "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg");
}

#[test]
fn a_signature_with_two_letters_exchanged_is_refused() {
    let digest = content_digest(BODY);
    let mut headers = known_headers();
    let exchanged = SIGNATURE.replace("COzkq", "CzOkq");
    assert_ne!(exchanged, SIGNATURE);
    let exchanged = HeaderValue::from_str(&exchanged).unwrap();
    headers.insert(HeaderName::from_static("signature"), exchanged);
    assert_eq!(verified(&headers, &known_parts(&digest)), Err(does_not_verify()));
}

#[test]
fn a_request_of_which_anything_signed_was_changed_is_refused() {
    let digest = content_digest(BODY);
    let good = known_parts(&digest);
    let body = good.body.clone().unwrap();
    let changed = [
        SignedParts { method: "PUT", ..good.clone() },
        SignedParts { authority: "keypool.example:8080", ..good.clone() },
        SignedParts { path: "/keypackages/release", ..good.clone() },
        SignedParts {
            body: Some(BodyParts { content_type: "message/mls", ..body.clone() }),
            ..good.clone()
        },
        SignedParts {
            body: Some(BodyParts {
                idempotency_key: "018f2f3e-7c1a-7d3b-9a5e-0123456789ac",
                ..body.clone()
            }),
            ..good.clone()
        },
    ];
    for parts in changed {
        assert_eq!(verified(&known_headers(), &parts), Err(does_not_verify()), "{parts:?}");
    }
}

#[test]
fn a_body_that_its_digest_does_not_fit_is_refused() {
    let mut headers = known_headers();
    let digest = HeaderValue::from_str(&content_digest(BODY)).unwrap();
    headers.insert(HeaderName::from_static("content-digest"), digest);
    assert_eq!(check_digest(&headers, BODY), Ok(()));
    let refused = check_digest(&headers, b"{}");
    assert_eq!(refused, Err(bad("Content-Digest is not the SHA-256 of the body")));
}

#[test]
fn a_header_may_be_there_once() {
    let digest = content_digest(BODY);
    for name in ["signature-input", "signature"] {
        let mut headers = known_headers();
        headers.append(HeaderName::from_static(name), HeaderValue::from_static("x=1"));
        let refused = verified(&headers, &known_parts(&digest));
        assert_eq!(refused, Err(AuthenticationError::Header(name)));
    }
}

#[test]
fn a_signature_that_a_lax_verifier_would_take_is_refused() {
    // The neutral point as key and as R, with S = 0: any message verifies without strictness.
    let digest = content_digest(BODY);
    let neutral = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let signature = format!("kp=:AQ{}==:", "A".repeat(84));
    let mut headers = HeaderMap::new();
    let input = INPUT.replace("A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg", neutral);
    for (name, value) in [("signature-input", &input), ("signature", &signature)] {
        headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    assert_eq!(verified(&headers, &known_parts(&digest)), Err(does_not_verify()));
}
