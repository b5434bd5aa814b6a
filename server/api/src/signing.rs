//! How a request is signed: one fixed profile of HTTP Message Signatures (RFC 9421).
//!
//! The key that signs a device's packages signs its requests, so that ownership needs no accounts. The
//! client builds the signature base here and signs it; the server rebuilds it here from the request
//! and verifies. Headers are plain text in this file, so that neither side's HTTP types are shared.

#[cfg(test)]
mod tests;

use data_encoding::BASE64;
use keypool_ledger::{SignatureKey, Timestamp};
use sfv::{BareItem, Dictionary, FieldType, InnerList, ListEntry, Parser};
use sha2::{Digest, Sha256};

/// The tag that marks signatures of this profile.
pub const TAG: &str = "keypool-v1";
/// The label of a request's signature.
pub const LABEL: &str = "kp";
/// The algorithm of a device's key.
pub const ALGORITHM: &str = "ed25519";
/// The header in which a frontend, the app's backend, names the device that it signs for: `USER/DEVICE`.
pub const CALLER: &str = "keypool-caller";
/// The longest time a signature may be valid for, in seconds.
pub const VALID_SECS_MAX: u64 = 120;
/// How far the two clocks may differ, in seconds.
pub const SKEW_SECS: u64 = 30;

/// The signed components of a request that has a body, in this order.
const WITH_BODY: [&str; 6] =
    ["@method", "@authority", "@path", "content-type", "content-digest", "idempotency-key"];
/// The signed components of a request without a body, in this order.
const WITHOUT_BODY: [&str; 4] = ["@method", "@authority", "@path", "@query"];

/// The parts of a request that are signed.
#[derive(Clone, Debug)]
pub struct SignedParts<'a> {
    /// The method, in capitals.
    pub method: &'a str,
    /// The host the client speaks to, lower case, with the port unless it is the scheme's own.
    pub authority: &'a str,
    /// The path, as sent.
    pub path: &'a str,
    /// The query with its question mark; `?` alone where there is none (RFC 9421 section 2.2.7).
    pub query: &'a str,
    /// The headers that describe the body, where there is one.
    pub body: Option<BodyParts<'a>>,
    /// The `Authorization` header, where one is sent.
    pub authorization: Option<&'a str>,
    /// The header [`CALLER`], where one is sent: in requests that a frontend signs.
    pub caller: Option<&'a str>,
}

/// The headers of a request with a body that are signed.
#[derive(Clone, Debug)]
pub struct BodyParts<'a> {
    /// The `Content-Type` header.
    pub content_type: &'a str,
    /// The `Content-Digest` header, RFC 9530.
    pub content_digest: &'a str,
    /// The `Idempotency-Key` header.
    pub idempotency_key: &'a str,
}

/// A request's signature as its two headers say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureHeaders {
    /// The value of `Signature-Input`.
    pub signature_input: String,
    /// The value of `Signature`.
    pub signature: String,
}

/// A signature that arrived, its form checked and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedSignature {
    /// The covered components, in the order of the header.
    pub components: Vec<String>,
    /// The parameters as they arrived, which `@signature-params` signs.
    pub params: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
    /// The key that it claims to be of.
    pub keyid: SignatureKey,
    /// The signature's bytes.
    pub signature: Vec<u8>,
}

/// Why a signature cannot be accepted, before any cryptography.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The headers are not there, or hold no signature of this profile.
    #[error("the request carries no signature with the tag {TAG}")]
    Missing,
    /// The headers are there and not of the profile's form.
    #[error("the signature is not of the profile {TAG}: {0}")]
    Malformed(&'static str),
    /// Other parts of the request are signed than the profile asks for.
    #[error("the signature must cover exactly {0}")]
    Components(String),
    /// The signature is too old, or made in the future, or valid for too long.
    #[error("the signature's time does not fit: {0}")]
    Clock(&'static str),
}

/// The value of `Content-Digest` for a body (RFC 9530): its SHA-256.
#[must_use]
pub fn content_digest(body: &[u8]) -> String {
    format!("sha-256=:{}:", BASE64.encode(&Sha256::digest(body)))
}

impl SignedParts<'_> {
    /// The components that the profile covers for this request, in their order.
    #[must_use]
    pub fn components(&self) -> Vec<&'static str> {
        let mut names = match self.body {
            Some(_) => WITH_BODY.to_vec(),
            None => WITHOUT_BODY.to_vec(),
        };
        names.extend(self.authorization.map(|_| "authorization"));
        names.extend(self.caller.map(|_| CALLER));
        names
    }

    /// The signature base (RFC 9421 section 2.5): the bytes that are signed.
    #[must_use]
    pub fn base(&self, params: &str) -> String {
        let lines = self.components().into_iter().map(|name| (name, self.value(name)));
        let lines = lines.chain([("@signature-params", params)]);
        let lines: Vec<String> =
            lines.map(|(name, value)| format!("\"{name}\": {value}")).collect();
        lines.join("\n")
    }

    fn value(&self, name: &str) -> &str {
        let body = self.body.as_ref();
        let value = match name {
            "@method" => Some(self.method),
            "@authority" => Some(self.authority),
            "@path" => Some(self.path),
            "@query" => Some(self.query),
            "content-type" => body.map(|body| body.content_type),
            "content-digest" => body.map(|body| body.content_digest),
            "idempotency-key" => body.map(|body| body.idempotency_key),
            CALLER => self.caller,
            _ => self.authorization,
        };
        value.unwrap_or_default().trim()
    }

    /// Signs the request, for `valid_secs` seconds from `now` on.
    ///
    /// # Errors
    ///
    /// Returns the error of `sign`, which is handed the signature base.
    pub fn sign<E>(
        &self,
        keyid: &SignatureKey,
        now: Timestamp,
        valid_secs: u64,
        sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<SignatureHeaders, E> {
        let names: Vec<String> =
            self.components().iter().map(|name| format!("\"{name}\"")).collect();
        let created = now.as_secs();
        let expires = created.saturating_add(valid_secs.min(VALID_SECS_MAX));
        let params = format!(
            "({});created={created};keyid=\"{keyid}\";alg=\"{ALGORITHM}\";expires={expires};tag=\"{TAG}\"",
            names.join(" "),
        );
        let signature = sign(self.base(&params).as_bytes())?;
        Ok(SignatureHeaders {
            signature: format!("{LABEL}=:{}:", BASE64.encode(&signature)),
            signature_input: format!("{LABEL}={params}"),
        })
    }

    /// Checks that a received signature covers the components of the profile, at a fitting time.
    ///
    /// Whether the signature is right is for the caller to find, over [`SignedParts::base`] of
    /// `received.params`.
    ///
    /// # Errors
    ///
    /// Returns [`SignatureError::Components`] or [`SignatureError::Clock`].
    pub fn check(
        &self,
        received: &ReceivedSignature,
        now: Timestamp,
    ) -> Result<(), SignatureError> {
        let wanted = self.components();
        if received.components != wanted {
            return Err(SignatureError::Components(wanted.join(" ")));
        }
        let (created, expires) = (received.created.as_secs(), received.expires.as_secs());
        let now = now.as_secs();
        if now.saturating_add(SKEW_SECS) < created {
            return Err(SignatureError::Clock("it was made in the future; check the clock"));
        }
        if expires < created || VALID_SECS_MAX < expires - created {
            return Err(SignatureError::Clock("it may be valid for 120 seconds at most"));
        }
        if expires.saturating_add(SKEW_SECS) < now {
            return Err(SignatureError::Clock("it has expired; sign again, or check the clock"));
        }
        Ok(())
    }
}

impl ReceivedSignature {
    /// Reads the two headers. Of several signatures exactly one may have this profile's tag.
    ///
    /// # Errors
    ///
    /// Returns [`SignatureError::Missing`] or [`SignatureError::Malformed`].
    pub fn parse(signature_input: &str, signature: &str) -> Result<Self, SignatureError> {
        use SignatureError::{Malformed, Missing};
        let inputs = canonical_dictionary(signature_input)?;
        let mut tagged = inputs.iter().filter_map(|(label, entry)| match entry {
            ListEntry::InnerList(list) if text(list, "tag") == Some(TAG) => Some((label, list)),
            _ => None,
        });
        let (label, list) = tagged.next().ok_or(Missing)?;
        if tagged.next().is_some() {
            return Err(Malformed("more than one signature has its tag"));
        }
        if label.as_str() != LABEL {
            return Err(Malformed("its label must be kp"));
        }
        let signatures = canonical_dictionary(signature)?;
        let bytes = match signatures.get(label) {
            Some(ListEntry::Item(item)) if item.params.is_empty() => {
                item.bare_item.as_byte_sequence()
            }
            _ => None,
        };
        let signature = bytes.ok_or(Malformed("Signature has no bytes for it"))?.to_vec();
        if list.params.len() != 5 {
            return Err(Malformed("its parameters are created, keyid, alg, expires, tag"));
        }
        if text(list, "alg") != Some(ALGORITHM) {
            return Err(Malformed("alg is ed25519"));
        }
        let keyid = text(list, "keyid").and_then(|keyid| keyid.parse().ok());
        let keyid = keyid.ok_or(Malformed("keyid is not the base64url of a public key"))?;
        Ok(Self {
            components: component_names(list)?,
            params: params_text(list).ok_or(Malformed("its parameters cannot be read"))?,
            created: seconds(list, "created").ok_or(Malformed("created is missing"))?,
            expires: seconds(list, "expires").ok_or(Malformed("expires is missing"))?,
            keyid,
            signature,
        })
    }
}

/// Parses a dictionary and insists on its canonical form.
///
/// A parser takes the last of two members or parameters of one name and says nothing; written again,
/// the text differs, and so duplicates are refused here.
fn canonical_dictionary(header: &str) -> Result<Dictionary, SignatureError> {
    let malformed = SignatureError::Malformed("its headers are no structured fields (RFC 9651)");
    let parsed: Dictionary = Parser::new(header).parse().map_err(|_| malformed)?;
    let again = parsed.serialize().unwrap_or_default();
    if again.replace(", ", ",") != header.trim().replace(", ", ",") {
        return Err(SignatureError::Malformed(
            "its headers are not in canonical form, or repeat a name",
        ));
    }
    Ok(parsed)
}

fn component_names(list: &InnerList) -> Result<Vec<String>, SignatureError> {
    let name = |item: &sfv::Item| {
        let plain = item.params.is_empty();
        item.bare_item.as_string().filter(|_| plain).map(|name| name.as_str().to_owned())
    };
    let names: Option<Vec<String>> = list.items.iter().map(name).collect();
    names.ok_or(SignatureError::Malformed("its components are plain names"))
}

fn params_text(list: &InnerList) -> Option<String> {
    sfv::List::from([ListEntry::InnerList(list.clone())]).serialize()
}

fn text<'a>(list: &'a InnerList, name: &str) -> Option<&'a str> {
    list.params.get(name).and_then(BareItem::as_string).map(sfv::StringRef::as_str)
}

fn seconds(list: &InnerList, name: &str) -> Option<Timestamp> {
    let seconds = list.params.get(name).and_then(BareItem::as_integer)?;
    u64::try_from(i64::from(seconds)).ok().map(Timestamp::from_secs)
}
