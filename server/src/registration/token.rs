//! The operator's token: a JWT (RFC 7519) signed with Ed25519 (RFC 8037), bound to the device's key.
//!
//! One algorithm and a handful of claims: so it is read here, with the verification that requests have,
//! and the libraries' other algorithms, and their dependencies, stay outside.

use data_encoding::{BASE64, BASE64URL_NOPAD};
use keypool_api::has_signed;
use keypool_ledger::{Signature, SignatureKey, Timestamp};
use serde::{Deserialize, de::DeserializeOwned};

use crate::authentication::is_public_key;

/// How long a token may be valid for, in seconds.
const VALID_SECS_MAX: u64 = 3600;
/// How far the issuer's clock may differ, in seconds.
const SKEW_SECS: u64 = 30;
/// How many bytes a token may have.
const TOKEN_BYTES_MAX: usize = 4096;
/// The bytes before an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410).
const ED25519_INFO: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why a token does not let a device register.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// There is none.
    #[error("is missing: send the operator's, as Bearer TOKEN")]
    Missing,
    /// Malformed: not three parts of base64url, two of which are JSON.
    #[error("is not a JWT in its compact form")]
    Malformed,
    /// Signed with another algorithm.
    #[error("is signed with {0}; it must be EdDSA")]
    Algorithm(String),
    /// Its header requires extensions that are not understood here.
    #[error("has extensions that are not understood here (crit)")]
    Critical,
    /// Not signed by the operator, or changed since.
    #[error("is not signed with the operator's key")]
    Signature,
    /// Made for another service.
    #[error("is for another audience")]
    Audience,
    /// Its time is over.
    #[error("has expired; get a new one")]
    Expired,
    /// Valid for longer than is accepted.
    #[error("is valid for more than an hour")]
    TooLong,
    /// Its time has not come.
    #[error("is not valid yet; check the clocks")]
    TooEarly,
    /// It names another user.
    #[error("is another user's")]
    User,
    /// Bound to another key.
    #[error("is bound to another key than the one that signs the request (cnf.kid)")]
    Key,
}

/// The claims of a request that the token must confirm.
pub(super) struct Claimed<'a> {
    pub(super) user: &'a str,
    pub(super) key: &'a SignatureKey,
}

/// The issuer of tokens, and their audience.
#[derive(Debug)]
pub(crate) struct Issuer {
    /// A token is signed with one of them: several, while one follows another.
    pub(super) keys: Vec<SignatureKey>,
    audience: String,
}

#[derive(Deserialize)]
struct TokenHeader {
    alg: String,
    #[serde(default)]
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    aud: Audience,
    exp: u64,
    #[serde(default)]
    nbf: Option<u64>,
    #[serde(default)]
    iat: Option<u64>,
    cnf: Confirmation,
}

/// One service, or several (RFC 7519 section 4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// The key that the token is bound to (RFC 7800 section 3.4).
#[derive(Deserialize)]
struct Confirmation {
    kid: String,
}

impl Issuer {
    pub(super) const fn of(audience: String) -> Self {
        Self { keys: Vec::new(), audience }
    }

    /// Checks that a token of the operator's lets this key register for this user now.
    pub(super) fn check(
        &self,
        authorization: Option<&str>,
        claimed: &Claimed<'_>,
        now: Timestamp,
    ) -> Result<(), TokenError> {
        let claims = self.verified(bearer(authorization)?)?;
        let is_for_us = match &claims.aud {
            Audience::One(audience) => *audience == self.audience,
            Audience::Several(audiences) => audiences.contains(&self.audience),
        };
        if !is_for_us {
            return Err(TokenError::Audience);
        }
        check_time(&claims, now.as_secs())?;
        if claims.sub != claimed.user {
            return Err(TokenError::User);
        }
        if claims.cnf.kid != claimed.key.to_string() {
            return Err(TokenError::Key);
        }
        Ok(())
    }

    /// Verifies the signature of a token, and returns its claims.
    fn verified(&self, token: &str) -> Result<Claims, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let header: TokenHeader = json(header)?;
        if header.alg != "EdDSA" {
            return Err(TokenError::Algorithm(header.alg.chars().take(20).collect()));
        }
        if header.crit.is_some() {
            return Err(TokenError::Critical);
        }
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes());
        let signature = signature.map_err(|_| TokenError::Malformed)?;
        let signature = Signature::new(&signature).map_err(|_| TokenError::Signature)?;
        if !self.keys.iter().any(|key| has_signed(key, signed.as_bytes(), &signature)) {
            return Err(TokenError::Signature);
        }
        json(claims)
    }
}

fn bearer(authorization: Option<&str>) -> Result<&str, TokenError> {
    let (scheme, token) =
        authorization.and_then(|value| value.trim().split_once(' ')).ok_or(TokenError::Missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(TokenError::Missing);
    }
    if TOKEN_BYTES_MAX < token.len() {
        return Err(TokenError::Malformed);
    }
    Ok(token.trim())
}

fn json<T: DeserializeOwned>(part: &str) -> Result<T, TokenError> {
    let bytes = BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed)
}

fn check_time(claims: &Claims, now: u64) -> Result<(), TokenError> {
    if claims.exp.saturating_add(SKEW_SECS) <= now {
        return Err(TokenError::Expired);
    }
    let latest = now.saturating_add(SKEW_SECS);
    let is_long = |from: u64| from.saturating_add(VALID_SECS_MAX) < claims.exp;
    if is_long(latest) || claims.iat.is_some_and(is_long) {
        return Err(TokenError::TooLong);
    }
    if claims.nbf.is_some_and(|from| latest < from) {
        return Err(TokenError::TooEarly);
    }
    Ok(())
}

/// The public keys in a PEM file, as `openssl pkey -pubout` writes them.
pub(super) fn public_keys(text: &str) -> Result<Vec<SignatureKey>, (usize, String)> {
    let (mut keys, mut block): (Vec<SignatureKey>, Option<String>) = (Vec::new(), None);
    for (number, line) in (1..).zip(text.lines()) {
        match (line.trim(), &mut block) {
            ("-----BEGIN PUBLIC KEY-----", None) => block = Some(String::new()),
            ("-----END PUBLIC KEY-----", Some(base64)) => {
                let key = public_key(base64).ok_or_else(|| (number, NO_KEY.to_owned()))?;
                keys.push(key);
                block = None;
            }
            (line, Some(base64)) => base64.push_str(line),
            ("", None) => {}
            (_, None) => return Err((number, NO_PEM.to_owned())),
        }
    }
    if keys.is_empty() || block.is_some() {
        return Err((text.lines().count().max(1), NO_PEM.to_owned()));
    }
    Ok(keys)
}

const NO_KEY: &str = "the block above is not an Ed25519 public key";
const NO_PEM: &str =
    "expected public keys in PEM, each from -----BEGIN PUBLIC KEY----- to -----END PUBLIC KEY-----";

fn public_key(base64: &str) -> Option<SignatureKey> {
    let bytes = BASE64.decode(base64.as_bytes()).ok()?;
    let key = bytes.strip_prefix(&ED25519_INFO)?;
    SignatureKey::new(key).ok().filter(is_public_key)
}

#[cfg(test)]
mod tests;
