//! The key set of who issues tokens (JWKS, RFC 7517): EdDSA with Ed25519, ES256 and RS256 (RFC 7518, 8037).
//!
//! Only signatures are verified by the library. Claims and times are read with the server's own clock.

use jsonwebtoken::{
    Algorithm, DecodingKey, crypto,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
};

/// How many keys a set has at most.
const KEYS_MAX: usize = 64;

/// The usable keys of a set.
#[derive(Clone, Debug, Default)]
pub(super) struct KeySet {
    keys: Vec<IssuerKey>,
}

/// A key, its name, and the one algorithm it is used with.
#[derive(Clone, Debug)]
struct IssuerKey {
    kid: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl KeySet {
    /// Parses a key set. Keys for encryption and of other algorithms are ignored, as other services use them.
    ///
    /// # Errors
    ///
    /// Returns the line and the fault if it is no key set, or has no key or too many that can be used.
    pub(super) fn parse(text: &str) -> Result<Self, (usize, String)> {
        let set: JwkSet = serde_json::from_str(text)
            .map_err(|error| (error.line(), format!("expected a JWK set: {error}")))?;
        let keys: Vec<IssuerKey> = set.keys.iter().filter_map(IssuerKey::of).collect();
        match keys.len() {
            0 => {
                let none = "no key of the set is for EdDSA (Ed25519), ES256 (P-256) or RS256";
                Err((1, none.to_owned()))
            }
            1..=KEYS_MAX => Ok(Self { keys }),
            count => Err((1, format!("the set has {count} keys; at most {KEYS_MAX}"))),
        }
    }

    /// How many keys there are.
    pub(super) const fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether a key of the set is used with an algorithm, by the name in a token's header.
    pub(super) fn knows(&self, algorithm: &str) -> bool {
        self.keys.iter().any(|key| key.name() == algorithm)
    }

    /// Whether a key of the set has signed some bytes: one with the header's `kid` if it names any, and with the
    /// header's algorithm, which is that of the key and not the token's to choose.
    pub(super) fn has_signed(
        &self,
        (algorithm, kid): (&str, Option<&str>),
        signed: &[u8],
        signature: &str,
    ) -> bool {
        let may = |key: &&IssuerKey| {
            key.name() == algorithm
                && (kid.is_none() || key.kid.is_none() || key.kid.as_deref() == kid)
        };
        self.keys.iter().filter(may).any(|key| key.has_signed(signed, signature))
    }
}

impl IssuerKey {
    /// The key, if it is one for signatures that are known here.
    fn of(jwk: &Jwk) -> Option<Self> {
        let (algorithm, named) = match &jwk.algorithm {
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
                (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
            }
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                (Algorithm::ES256, KeyAlgorithm::ES256)
            }
            AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
            _ => return None,
        };
        let common = &jwk.common;
        let is_for_signatures =
            common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
        let is_for_another = common.key_algorithm.is_some_and(|own| own != named);
        if !is_for_signatures || is_for_another {
            return None;
        }
        let key = DecodingKey::from_jwk(jwk).ok()?;
        Some(Self { kid: common.key_id.clone(), algorithm, key })
    }

    const fn name(&self) -> &'static str {
        match self.algorithm {
            Algorithm::EdDSA => "EdDSA",
            Algorithm::ES256 => "ES256",
            _ => "RS256",
        }
    }

    fn has_signed(&self, signed: &[u8], signature: &str) -> bool {
        crypto::verify(signature, signed, &self.key, self.algorithm).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests;
