//! Key sets, and the tokens that their keys have signed.

use aws_lc_rs::{
    encoding::AsBigEndian as _,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
        RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use data_encoding::BASE64URL_NOPAD;
use keypool_ledger::{SignatureKey, Timestamp};
use serde_json::{Value, json};

use super::*;
use crate::registration::token::{Claimed, Issuer, TokenError};

const NOW: u64 = 1_766_400_000;
/// When the server was started.
const SINCE: u64 = NOW - 100;

fn base64(bytes: &[u8]) -> String {
    BASE64URL_NOPAD.encode(bytes)
}

/// A key of an accounts service.
enum Signer {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl Signer {
    fn all() -> [Self; 3] {
        [
            Self::Ed25519(Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()),
            Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()),
            Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()),
        ]
    }

    const fn algorithm(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => "EdDSA",
            Self::P256(_) => "ES256",
            Self::Rsa(_) => "RS256",
        }
    }

    fn jwk(&self, kid: &str) -> Value {
        let mut jwk = match self {
            Self::Ed25519(key) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": base64(key.public_key().as_ref()) })
            }
            Self::P256(key) => {
                let point = key.public_key().as_ref();
                let (x, y) = point[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "x": base64(x), "y": base64(y) })
            }
            Self::Rsa(key) => {
                let (n, e) = (key.public_key().modulus(), key.public_key().exponent());
                let n = base64(n.big_endian_without_leading_zero());
                json!({ "kty": "RSA", "n": n, "e": base64(e.big_endian_without_leading_zero()) })
            }
        };
        jwk["kid"] = json!(kid);
        jwk["use"] = json!("sig");
        jwk["alg"] = json!(self.algorithm());
        jwk
    }

    fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Ed25519(key) => key.sign(bytes).as_ref().to_vec(),
            Self::P256(key) => key.sign(&random, bytes).unwrap().as_ref().to_vec(),
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, bytes, &mut signature).unwrap();
                signature
            }
        }
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| base64(value.to_string().as_bytes());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = base64(&self.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

fn key(byte: u8) -> SignatureKey {
    SignatureKey::new(&[byte; 32]).unwrap()
}

fn claims() -> Value {
    json!({
        "sub": "alice", "aud": "chat.example", "iss": "https://accounts.example",
        "iat": NOW, "exp": NOW + 600, "cnf": { "kid": key(1).to_string() },
    })
}

fn issuer(set: &Value) -> Issuer {
    let name = Some("https://accounts.example".to_owned());
    let mut issuer = Issuer::of("chat.example".to_owned(), name, Timestamp::from_secs(SINCE));
    issuer.key_set = KeySet::parse(&set.to_string()).unwrap();
    issuer
}

/// Checks a token for a device of alice's.
fn check(issuer: &Issuer, token: &str, key: &SignatureKey, after: u64) -> Result<(), TokenError> {
    let claimed = Claimed { user: "alice", key };
    let now = Timestamp::from_secs(NOW + after);
    issuer.check(Some(&format!("Bearer {token}")), &claimed, now)
}

#[test]
fn a_token_of_each_algorithm_is_verified_with_a_key_of_its_own() {
    let signers = Signer::all();
    let others = Signer::all();
    let names = ["one", "two", "three"];
    let jwks: Vec<Value> =
        signers.iter().zip(names).map(|(signer, name)| signer.jwk(name)).collect();
    let issuer = issuer(&json!({ "keys": jwks }));
    for (place, signer) in signers.iter().enumerate() {
        let algorithm = signer.algorithm();
        let header = json!({ "alg": algorithm, "kid": names[place], "typ": "JWT" });
        let of = |token: &str| check(&issuer, token, &key(1), 0);
        assert_eq!(of(&signer.token(&header, &claims())), Ok(()), "{algorithm}");
        assert_eq!(of(&signer.token(&json!({ "alg": algorithm }), &claims())), Ok(()));
        // Another key, another key's name, another algorithm for the same key, a changed claim.
        let refused = Err(TokenError::Signature);
        if algorithm != "EdDSA" {
            assert_eq!(of(&others[place].token(&header, &claims())), refused);
        }
        let misnamed = json!({ "alg": algorithm, "kid": names[(place + 1) % 3] });
        assert_eq!(of(&signer.token(&misnamed, &claims())), refused);
        let other_algorithm = signers[(place + 1) % 3].algorithm();
        let confused = json!({ "alg": other_algorithm, "kid": names[place] });
        assert_eq!(of(&signer.token(&confused, &claims())), refused);
        let token = signer.token(&header, &claims());
        let parts: Vec<&str> = token.split('.').collect();
        let changed = base64(claims().to_string().replace("alice", "alicf").as_bytes());
        assert_eq!(of(&format!("{}.{changed}.{}", parts[0], parts[2])), refused);
        for alg in ["none", "HS256", "RS512", "ES384"] {
            let token = signer.token(&json!({ "alg": alg }), &claims());
            assert_eq!(of(&token), Err(TokenError::NoKey(alg.to_owned())));
        }
    }
}

#[test]
fn issuer_audience_and_time_are_those_of_the_claims() {
    let [signer, ..] = Signer::all();
    let issuer = issuer(&json!({ "keys": [signer.jwk("one")] }));
    let header = json!({ "alg": "EdDSA" });
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        check(&issuer, &signer.token(&header, &claims), &key(1), 0)
    };
    assert_eq!(with("iss", json!("https://other.example")), Err(TokenError::Issuer));
    assert_eq!(with("iss", Value::Null), Err(TokenError::Issuer));
    assert_eq!(with("aud", json!("mail.example")), Err(TokenError::Audience));
    assert_eq!(with("exp", json!(NOW - 29)), Ok(()), "the clocks may differ");
    assert_eq!(with("exp", json!(NOW - 30)), Err(TokenError::Expired));
    assert_eq!(with("nbf", json!(NOW + 30)), Ok(()));
    assert_eq!(with("nbf", json!(NOW + 31)), Err(TokenError::TooEarly));
    assert_eq!(with("cnf", json!({ "kid": "another" })), Err(TokenError::Key));
}

#[test]
fn a_token_that_is_bound_to_no_key_is_good_for_one_device() {
    let [_, signer, _] = Signer::all();
    let issuer = issuer(&json!({ "keys": [signer.jwk("one")] }));
    let header = json!({ "alg": "ES256" });
    let token = |jti: Value, iat: Value| {
        let mut claims = claims();
        (claims["cnf"], claims["jti"], claims["iat"]) = (Value::Null, jti, iat);
        signer.token(&header, &claims)
    };
    let once = token(json!("t1"), json!(NOW));
    assert_eq!(check(&issuer, &once, &key(1), 0), Ok(()));
    assert_eq!(check(&issuer, &once, &key(1), 60), Ok(()), "its device may ask again");
    assert_eq!(check(&issuer, &once, &key(2), 60), Err(TokenError::Used));
    let bob = Claimed { user: "bob", key: &key(1) };
    let header = format!("Bearer {once}");
    let now = Timestamp::from_secs(NOW);
    assert_eq!(issuer.check(Some(&header), &bob, now), Err(TokenError::User));
    assert_eq!(check(&issuer, &token(json!("t2"), json!(NOW)), &key(2), 0), Ok(()));
    let unbound = [(Value::Null, json!(NOW)), (json!("t3"), Value::Null), (json!(""), json!(NOW))];
    for (jti, iat) in unbound {
        assert_eq!(check(&issuer, &token(jti, iat), &key(3), 0), Err(TokenError::Unbound));
    }
    // One that may have been used before the server was started, by a clock that is ahead.
    let early = token(json!("t4"), json!(SINCE + 30));
    assert_eq!(check(&issuer, &early, &key(3), 0), Err(TokenError::BeforeStart));
    assert_eq!(check(&issuer, &token(json!("t4"), json!(SINCE + 31)), &key(3), 0), Ok(()));
    let ahead = token(json!("t5"), json!(NOW + 31));
    assert_eq!(check(&issuer, &ahead, &key(3), 0), Err(TokenError::TooEarly));
}

#[test]
fn a_key_set_is_read_as_far_as_its_keys_are_for_tokens() {
    let [ed25519, p256, rsa] = Signer::all();
    let mut encrypts = p256.jwk("enc");
    encrypts["use"] = json!("enc");
    let mut other = rsa.jwk("ps");
    other["alg"] = json!("PS256");
    let set = json!({ "keys": [ed25519.jwk("a"), encrypts, other, rsa.jwk("b")] });
    let set = KeySet::parse(&set.to_string()).unwrap();
    assert_eq!(set.len(), 2);
    assert!(set.knows("EdDSA") && set.knows("RS256") && !set.knows("ES256"));
    let many: Vec<Value> = (0..65).map(|n| ed25519.jwk(&n.to_string())).collect();
    let symmetric = json!({ "keys": [{ "kty": "oct", "k": "c2VjcmV0" }] });
    let faults = ["{", "[]", &symmetric.to_string(), &json!({ "keys": many }).to_string()]
        .map(|text| KeySet::parse(text).unwrap_err())
        .map(|(line, fault)| format!("{line}: {fault}"));
    insta::assert_snapshot!(faults.join("\n"), @"
    1: expected a JWK set: EOF while parsing an object at line 1 column 1
    1: expected a JWK set: invalid length 0, expected struct JwkSet with 1 element at line 1 column 2
    1: no key of the set is for EdDSA (Ed25519), ES256 (P-256) or RS256
    1: the set has 65 keys; at most 64
    ");
}
