//! The reserve policy of a pool, and contact tokens, on the wire.

use std::{fmt, str::FromStr};

use data_encoding::BASE64URL_NOPAD;
use keypool_ledger::{ReservationId, ReservePolicy, SignatureKey, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// `POST /keypackages/policy`: parts that are left out stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyRequest {
    /// The users who may reserve: `open` for all, or `contacts` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub reserve: Option<ReservePolicy>,
    /// Reservations whose invitations the device has joined: their holders are contacts from now on.
    #[serde(default, deserialize_with = "null_as_none", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub joined: Vec<ReservationId>,
    /// Users that are contacts no more.
    #[serde(default, deserialize_with = "null_as_none", skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
    /// Users to block: they can neither reserve packages of the pool nor add or post to the device.
    #[serde(default, deserialize_with = "null_as_none", skip_serializing_if = "Vec::is_empty")]
    pub blocked: Vec<String>,
    /// Users that are blocked no more.
    #[serde(default, deserialize_with = "null_as_none", skip_serializing_if = "Vec::is_empty")]
    pub unblocked: Vec<String>,
    /// How many packages of the pool strangers may take together in an hour: for a bot that many strangers
    /// ask. 0 for the server's own limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strangers_per_hour: Option<u32>,
}

/// Reads a list, a flag or a number that may be `null`: it counts as left out then.
pub(super) fn null_as_none<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// The answer to `GET` and `POST /keypackages/policy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyReply {
    /// The users who may reserve: `open` for all, or `contacts` alone.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub reserve: ReservePolicy,
    /// The contacts, by name.
    pub contacts: Vec<String>,
    /// The users that are blocked, by name.
    #[serde(default)]
    pub blocked: Vec<String>,
    /// How many packages strangers may take together in an hour; absent for the server's own limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strangers_per_hour: Option<u32>,
    /// The place of the pool's last event in the log.
    pub position: u64,
}

/// A contact token, signed by a device of a user. It introduces its bearer, so keep it secret.
#[derive(Clone, PartialEq, Eq)]
pub struct ContactToken {
    /// The key that has signed it, which speaks for a device of the user.
    pub keyid: SignatureKey,
    /// When it ends, in Unix seconds.
    pub until: u64,
    /// Its signature of [`contact_statement`](keypool_projections::statement::contact_statement).
    pub proof: Vec<u8>,
}

impl ContactToken {
    /// When it ends.
    #[must_use]
    pub const fn until(&self) -> Timestamp {
        Timestamp::from_secs(self.until)
    }
}

impl fmt::Debug for ContactToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContactToken")
    }
}

impl fmt::Display for ContactToken {
    /// One word, to be given to the user who is to be introduced.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.keyid, self.until, BASE64URL_NOPAD.encode(&self.proof))
    }
}

/// A word that is no contact token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("that is no contact token; one looks like KEYID.UNTIL.PROOF")]
pub struct NoContactToken;

impl FromStr for ContactToken {
    type Err = NoContactToken;

    fn from_str(text: &str) -> Result<Self, NoContactToken> {
        let mut parts = text.trim().split('.');
        let (Some(keyid), Some(until), Some(proof), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NoContactToken);
        };
        let keyid = keyid.parse().map_err(|_| NoContactToken)?;
        let until = until.parse().map_err(|_| NoContactToken)?;
        let proof = BASE64URL_NOPAD.decode(proof.as_bytes()).map_err(|_| NoContactToken)?;
        Ok(Self { keyid, until, proof })
    }
}

impl Serialize for ContactToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContactToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_null_is_as_if_it_were_left_out() {
        let nothing = r#"{"reserve":null,"joined":null,"removed":null,"blocked":null,"unblocked":null,
            "strangers_per_hour":null}"#;
        assert_eq!(serde_json::from_str(nothing).ok(), Some(PolicyRequest::default()));
        assert_eq!(serde_json::to_string(&PolicyRequest::default()).unwrap(), "{}");
    }

    #[test]
    fn a_token_is_read_as_it_is_written_and_tells_nothing_of_itself() {
        let keyid = SignatureKey::new(&[7; 32]).unwrap();
        let token = ContactToken { keyid, until: 1_766_400_000, proof: vec![1; 64] };
        assert_eq!(token.to_string().parse(), Ok(token.clone()));
        assert_eq!(format!("{token:?}"), "ContactToken");
        for word in ["", "a.b", "a.b.c", "a.b.c.d"] {
            assert_eq!(word.parse::<ContactToken>(), Err(NoContactToken), "{word}");
        }
    }
}
