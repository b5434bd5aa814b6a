//! The signature headers of requests.

use ed25519_dalek::{Signer, SigningKey, Verifier};
use keypool_api::signing::{
    BodyParts, ReceivedSignature, SignatureHeaders, SignedParts, VALID_SECS_MAX, content_digest,
};
use keypool_ledger::{SignatureKey, Timestamp};

use super::{edits::edit, input::InputReader};

/// How many bytes a header of an input has at most.
const HEADER_BYTES_MAX: usize = 512;

/// Reads signature headers, and checks them against a request. A request that was signed is accepted as it was
/// signed; after a change to its headers or its parts the signature is refused, or is of the same base.
pub fn signature(bytes: &[u8]) {
    let mut input = InputReader::new(bytes);
    if input.flag() {
        let (headers, signature) = (input.text(HEADER_BYTES_MAX), input.text(HEADER_BYTES_MAX));
        if let Ok(received) = ReceivedSignature::parse(&headers, &signature) {
            check_form(&received);
        }
        return;
    }
    let key = SigningKey::from_bytes(&[7; 32]);
    let keyid = SignatureKey::new(key.verifying_key().as_bytes()).unwrap();
    let texts: [String; 6] = std::array::from_fn(|_| header_text(&mut input));
    let digest = content_digest(input.bytes(64));
    let [method, authority, path, query, other, idempotency_key] = &texts;
    let body = BodyParts { content_type: other, content_digest: &digest, idempotency_key };
    let parts = SignedParts {
        method,
        authority,
        path,
        query,
        body: input.flag().then_some(body),
        authorization: input.flag().then_some(other),
        caller: input.flag().then_some(other),
    };
    let now = Timestamp::from_millis(input.any());
    let sign = |base: &[u8]| Ok::<_, ()>(key.sign(base).to_vec());
    let headers = parts.sign(&keyid, now, input.any(), sign).unwrap();
    // A time that is no integer of a structured field is not signed by any clock.
    if now.as_secs() < 999_999_999_999_999 - VALID_SECS_MAX {
        let received = parsed(&headers).expect("the headers of a signed request can be read");
        check_form(&received);
        assert_eq!(parts.check(&received, now), Ok(()), "a request is accepted when it was signed");
        assert!(verifies(&key, &parts, &received), "the base is the one that was signed");
    }
    change(&mut input, &headers, (&key, &parts, now));
}

/// Changes the headers of a signed request. If it is still accepted, the base is still the one that was signed.
fn change(
    input: &mut InputReader<'_>,
    headers: &SignatureHeaders,
    (key, parts, now): (&SigningKey, &SignedParts<'_>, Timestamp),
) {
    let mut changed = headers.clone();
    for text in [&mut changed.signature_input, &mut changed.signature] {
        let mut bytes = text.clone().into_bytes();
        edit(input, &mut bytes);
        *text = String::from_utf8_lossy(&bytes).into_owned();
    }
    let Some(received) = parsed(&changed) else { return };
    check_form(&received);
    let original = parsed(headers);
    if parts.check(&received, now).is_ok() && verifies(key, parts, &received) {
        let params = original.map(|original| original.params);
        assert_eq!(params.as_ref(), Some(&received.params), "other parameters are not signed");
    }
}

fn parsed(headers: &SignatureHeaders) -> Option<ReceivedSignature> {
    ReceivedSignature::parse(&headers.signature_input, &headers.signature).ok()
}

/// Checks that the parameters of a signature that was read are one line, and are read the same again.
fn check_form(received: &ReceivedSignature) {
    assert!(!received.params.contains(['\n', '\r']), "the parameters are one line of the base");
    let line = format!("kp={}", received.params);
    let signature = format!("kp=:{}:", data_encoding::BASE64.encode(&received.signature));
    assert_eq!(ReceivedSignature::parse(&line, &signature).as_ref(), Ok(received));
}

fn verifies(key: &SigningKey, parts: &SignedParts<'_>, received: &ReceivedSignature) -> bool {
    let Ok(signature) = ed25519_dalek::Signature::from_slice(&received.signature) else {
        return false;
    };
    key.verifying_key().verify(parts.base(&received.params).as_bytes(), &signature).is_ok()
}

/// A text that can stand in a header.
fn header_text(input: &mut InputReader<'_>) -> String {
    let text = input.text(32);
    text.chars().filter(|char| (' '..='~').contains(char)).collect()
}
