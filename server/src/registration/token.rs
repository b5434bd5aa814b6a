//! The operator's token: a JWT (RFC 7519), bound to the device's key, or good for one device.
//!
//! A token that is signed with a key of `--jwt-key` is verified as requests are; one of a key set by the
//! library of [`KeySet`]. A handful of claims is read here, with the server's own clock.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use data_encoding::{BASE64, BASE64URL_NOPAD};
use keypool_api::has_signed;
use keypool_ledger::{Signature, SignatureKey, Timestamp};
use serde::{Deserialize, de::DeserializeOwned};

use super::key_set::KeySet;
use crate::authentication::is_public_key;

/// How long a token may be valid for, in seconds.
const VALID_SECS_MAX: u64 = 3600;
/// How far the issuer's clock may differ, in seconds.
const SKEW_SECS: u64 = 30;
/// How many tokens that are bound to no key are remembered until they end.
const USED_MAX: usize = 1 << 16;
/// How many bytes the name of a token may have.
const JTI_BYTES_MAX: usize = 256;
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
    /// Signed with an algorithm of which the key set has no key.
    #[error("is signed with {0}, of which the operator's key set has no key")]
    NoKey(String),
    /// Of another issuer.
    #[error("is of another issuer")]
    Issuer,
    /// Bound to no key, and without the `jti` and `iat` that make it good for one device.
    #[error("is bound to no key (cnf.kid), and has no jti and iat by which it could be used once")]
    Unbound,
    /// Bound to no key, and used before.
    #[error("was used by another device; get a new one")]
    Used,
    /// Bound to no key, and perhaps used before the server was started.
    #[error("was issued before the server was started, or just after; get a new one")]
    BeforeStart,
}

/// The claims of a request that the token must confirm.
pub(super) struct Claimed<'a> {
    pub(super) user: &'a str,
    pub(super) key: &'a SignatureKey,
}

/// The issuer of tokens, and their audience.
#[derive(Debug, Default)]
pub(crate) struct Issuer {
    /// A token is signed with one of them: several, while one follows another.
    pub(super) keys: Vec<SignatureKey>,
    /// Or with one of these.
    pub(super) key_set: KeySet,
    audience: String,
    /// The `iss` of a token; any if there is none.
    name: Option<String>,
    /// When the server was started.
    since: Timestamp,
    /// The tokens that are bound to no key and were used, by name: the user and key, and when they end.
    used: Mutex<HashMap<String, (String, SignatureKey, u64)>>,
}

#[derive(Deserialize)]
struct TokenHeader {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
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
    #[serde(default)]
    iss: Option<String>,
    #[serde(default)]
    jti: Option<String>,
    #[serde(default)]
    cnf: Option<Confirmation>,
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
    pub(super) fn of(audience: String, name: Option<String>, since: Timestamp) -> Self {
        Self { audience, name, since, ..Self::default() }
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
        if self.name.is_some() && self.name != claims.iss {
            return Err(TokenError::Issuer);
        }
        check_time(&claims, now.as_secs())?;
        if claims.sub != claimed.user {
            return Err(TokenError::User);
        }
        match &claims.cnf {
            Some(bound) if bound.kid == claimed.key.to_string() => Ok(()),
            Some(_) => Err(TokenError::Key),
            None => self.use_once(&claims, claimed, now.as_secs()),
        }
    }

    /// Uses up a token that is bound to no key: afterwards it is good for this user and key only. Used tokens
    /// are remembered in memory, so one that may have been used before the start is refused.
    fn use_once(&self, claims: &Claims, claimed: &Claimed<'_>, now: u64) -> Result<(), TokenError> {
        let (Some(name), Some(issued)) = (&claims.jti, claims.iat) else {
            return Err(TokenError::Unbound);
        };
        if name.is_empty() || JTI_BYTES_MAX < name.len() {
            return Err(TokenError::Unbound);
        }
        if now.saturating_add(SKEW_SECS) < issued {
            return Err(TokenError::TooEarly);
        }
        if issued <= self.since.as_secs().saturating_add(SKEW_SECS) {
            return Err(TokenError::BeforeStart);
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((user, key, _)) = used.get(name) {
            let is_same = user == claimed.user && key == claimed.key;
            return if is_same { Ok(()) } else { Err(TokenError::Used) };
        }
        if USED_MAX <= used.len() {
            used.retain(|_, (.., end)| now < end.saturating_add(SKEW_SECS));
        }
        if USED_MAX <= used.len() {
            return Err(TokenError::Used);
        }
        used.insert(name.clone(), (claimed.user.to_owned(), claimed.key.clone(), claims.exp));
        Ok(())
    }

    /// Verifies the signature of a token, and returns its claims.
    fn verified(&self, token: &str) -> Result<Claims, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let header: TokenHeader = json(header)?;
        let of_set = self.key_set.knows(&header.alg);
        if header.alg != "EdDSA" && !of_set {
            let named = header.alg.chars().take(20).collect();
            let has_set = 0 < self.key_set.len();
            let refused = if has_set { TokenError::NoKey } else { TokenError::Algorithm };
            return Err(refused(named));
        }
        if header.crit.is_some() {
            return Err(TokenError::Critical);
        }
        let named = (header.alg.as_str(), header.kid.as_deref());
        if of_set && self.key_set.has_signed(named, signed.as_bytes(), signature) {
            return json(claims);
        }
        if header.alg != "EdDSA" {
            return Err(TokenError::Signature);
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
