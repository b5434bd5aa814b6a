//! Tokens that let a device register, and those that do not.

use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};

use super::*;

/// Made with openssl, as the key is: `openssl pkeyutl -sign -rawin`.
const TOKEN: &str = "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2FjY291bnRzLmV4YW1wbGUiLCJzdWIiOiJhbGljZSIsImF1ZCI6ImtleXBvb2wuZXhhbXBsZSIsImlhdCI6MTc2NjQwMDAwMCwiZXhwIjoxNzY2NDAzNjAwLCJjbmYiOnsia2lkIjoiQTZFSHZfUE9FTDRkY04wWTUwdkFtV2ZrMWpDYnBRMWZIZHlHWkJKVk1iZyJ9fQ.WJjH91YxIAI53AukVd4iVhRI9zleqLzAWA78RDwIsfwXViilEDmxRF9YHTDHD3TNv-WNfpaT1FqnqY0MuvbeCg";
const PEM: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAbdDydmFXH2Ull2nBTN+1PkIJdDzxdTKQVSvGG8wsfWQ=
-----END PUBLIC KEY-----
";
const OTHER_PEM: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAhrSoQmhymHCtGo2CHLp7AEHxJS0E63jEuL0hoAdGMIc=
-----END PUBLIC KEY-----
";
const KEY: &str = "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg";
const NOW: u64 = 1_766_400_000;

fn of_keypool() -> Issuer {
    Issuer::of("keypool.example".to_owned(), None, Timestamp::from_secs(NOW - 100))
}

fn issuer(pem: &str) -> Issuer {
    Issuer { keys: public_keys(pem).unwrap(), ..of_keypool() }
}

/// Checks a token for the device of [`KEY`], of a user, some seconds after [`NOW`].
fn found(issuer: &Issuer, token: &str, user: &str, after: u64) -> Result<(), TokenError> {
    let key: SignatureKey = KEY.parse().unwrap();
    let authorization = format!("Bearer {token}");
    let now = Timestamp::from_secs(NOW + after);
    issuer.check(Some(&authorization), &Claimed { user, key: &key }, now)
}

#[test]
fn a_token_of_another_implementation_holds_for_its_user_and_its_time() {
    let issuer_of_both = issuer(&format!("{OTHER_PEM}\n{PEM}"));
    for issuer in [&issuer(PEM), &issuer_of_both] {
        assert_eq!(found(issuer, TOKEN, "alice", 0), Ok(()));
        assert_eq!(found(issuer, TOKEN, "alice", 3629), Ok(()));
        assert_eq!(found(issuer, TOKEN, "alice", 3630), Err(TokenError::Expired));
        assert_eq!(found(issuer, TOKEN, "bob", 0), Err(TokenError::User));
    }
    assert_eq!(found(&issuer(OTHER_PEM), TOKEN, "alice", 0), Err(TokenError::Signature));
    let elsewhere = Issuer { audience: "keypool.other".to_owned(), ..issuer(PEM) };
    assert_eq!(found(&elsewhere, TOKEN, "alice", 0), Err(TokenError::Audience));
}

/// A token with these parts, signed with a key of the tests.
fn token(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = SigningKey::from_bytes(&[9; 32]).sign(signed.as_bytes()).to_bytes();
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
}

fn claims() -> Value {
    json!({ "sub": "alice", "aud": "keypool.example", "exp": NOW + 600, "cnf": { "kid": KEY } })
}

fn with(name: &str, value: &Value) -> Value {
    let mut claims = claims();
    claims[name] = value.clone();
    claims
}

#[test]
fn a_token_that_says_something_else_is_refused_for_that() {
    let test_key = SigningKey::from_bytes(&[9; 32]).verifying_key();
    let keys = vec![SignatureKey::new(test_key.as_bytes()).unwrap()];
    let issuer = Issuer { keys, ..of_keypool() };
    let eddsa = json!({ "alg": "EdDSA" });
    let of = |claims: &Value| found(&issuer, &token(&eddsa, claims), "alice", 0);
    assert_eq!(of(&claims()), Ok(()));
    assert_eq!(of(&with("aud", &json!(["other", "keypool.example"]))), Ok(()));
    assert_eq!(of(&with("nbf", &json!(NOW + 30))), Ok(()));
    assert_eq!(of(&with("exp", &json!(NOW + 3630))), Ok(()));
    for (name, value, why) in [
        ("aud", json!("other"), TokenError::Audience),
        ("aud", json!(["other"]), TokenError::Audience),
        ("aud", json!("keypool.example.org"), TokenError::Audience),
        ("exp", json!(NOW - 30), TokenError::Expired),
        ("exp", json!(NOW + 3631), TokenError::TooLong),
        ("iat", json!(NOW - 3001), TokenError::TooLong),
        ("exp", json!(u64::MAX), TokenError::TooLong),
        ("exp", json!("tomorrow"), TokenError::Malformed),
        ("nbf", json!(NOW + 31), TokenError::TooEarly),
        ("sub", json!("Alice"), TokenError::User),
        ("sub", json!(null), TokenError::Malformed),
        ("cnf", json!({ "kid": "other" }), TokenError::Key),
        ("cnf", json!({ "jwk": {} }), TokenError::Malformed),
    ] {
        assert_eq!(of(&with(name, &value)), Err(why), "{name} {value}");
    }
}

#[test]
fn a_token_that_is_signed_otherwise_or_was_changed_is_refused() {
    let issuer = issuer(PEM);
    let of = |token: &str| found(&issuer, token, "alice", 0);
    for (alg, said) in
        [("none", "none"), ("HS256", "HS256"), ("eddsa", "eddsa"), ("RS256", "RS256")]
    {
        let refused = of(&token(&json!({ "alg": alg }), &claims()));
        assert_eq!(refused, Err(TokenError::Algorithm(said.to_owned())));
    }
    let unsigned = TOKEN.rsplit_once('.').unwrap().0;
    assert_eq!(of(&format!("{unsigned}.")), Err(TokenError::Signature));
    let critical = json!({ "alg": "EdDSA", "crit": ["b64"], "b64": false });
    assert_eq!(of(&token(&critical, &claims())), Err(TokenError::Critical));
    // Claims that somebody else has signed, and those of the operator with another end.
    assert_eq!(of(&token(&json!({ "alg": "EdDSA" }), &claims())), Err(TokenError::Signature));
    let (header, rest) = TOKEN.split_once('.').unwrap();
    let (_, signature) = rest.split_once('.').unwrap();
    let other = BASE64URL_NOPAD.encode(claims().to_string().as_bytes());
    assert_eq!(of(&format!("{header}.{other}.{signature}")), Err(TokenError::Signature));
    for garbage in ["a", "a.b", "a.b.c", "....", &"a".repeat(5000), &format!("{TOKEN}=")] {
        assert_eq!(of(garbage), Err(TokenError::Malformed), "{garbage}");
    }
    let key: SignatureKey = KEY.parse().unwrap();
    let claimed = Claimed { user: "alice", key: &key };
    for header in [None, Some(""), Some("Basic YTpi"), Some(TOKEN)] {
        let refused = issuer.check(header, &claimed, Timestamp::from_secs(NOW));
        assert_eq!(refused, Err(TokenError::Missing), "{header:?}");
    }
}

#[test]
fn a_file_of_keys_is_read_or_its_line_is_named() {
    assert_eq!(public_keys(&format!("\n{PEM}\n{OTHER_PEM}")).unwrap().len(), 2);
    let short = PEM.replace("MCow", "");
    let cut = PEM.replace("-----END PUBLIC KEY-----\n", "");
    let private = PEM.replace("PUBLIC", "PRIVATE");
    let said: Vec<String> = ["", "hello", &short, &cut, &private, &format!("{PEM}{short}")]
        .iter()
        .map(|text| {
            let (line, message) = public_keys(text).unwrap_err();
            format!("{line}: {message}")
        })
        .collect();
    insta::assert_snapshot!(said.join("\n"), @"
    1: expected public keys in PEM, each from -----BEGIN PUBLIC KEY----- to -----END PUBLIC KEY-----
    1: expected public keys in PEM, each from -----BEGIN PUBLIC KEY----- to -----END PUBLIC KEY-----
    3: the block above is not an Ed25519 public key
    2: expected public keys in PEM, each from -----BEGIN PUBLIC KEY----- to -----END PUBLIC KEY-----
    1: expected public keys in PEM, each from -----BEGIN PUBLIC KEY----- to -----END PUBLIC KEY-----
    6: the block above is not an Ed25519 public key
    ");
}
