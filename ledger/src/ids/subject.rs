//! Pseudonyms: how a log names users and devices whose names it can forget.

use std::{fmt, str::FromStr};

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use super::{NameError, PoolId};

/// Leads every pseudonym. No registered name has this character.
const MARK: char = '~';
/// The form of a pseudonym, for errors.
const RULE: &str = "~ and the base64url of 16 bytes, without padding";

/// The random id that stands for a user in a log, so that the log can forget the user's name.
///
/// 16 bytes; `~` and 22 characters of base64url as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubjectId([u8; 16]);

impl SubjectId {
    /// Draws an id at random.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4().into_bytes())
    }

    /// Wraps the bytes of an id.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The pseudonym of a device of the user: its number is the version of the event that named it.
    #[must_use]
    pub fn device(self, number: u64) -> PoolId {
        PoolId { user: self.to_string().into(), device: format!("{MARK}{number}").into() }
    }
}

impl fmt::Display for SubjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MARK}{}", BASE64URL_NOPAD.encode(&self.0))
    }
}

impl fmt::Debug for SubjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubjectId({self})")
    }
}

impl FromStr for SubjectId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bytes = text.strip_prefix(MARK).and_then(|text| {
            let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
            <[u8; 16]>::try_from(bytes).ok()
        });
        bytes.map(Self).ok_or_else(|| NameError::new("pseudonym", text, RULE))
    }
}

impl Serialize for SubjectId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SubjectId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl PoolId {
    /// The user's id and the device's number, if the device stands under its pseudonym.
    #[must_use]
    pub fn pseudonym(&self) -> Option<(SubjectId, u64)> {
        pseudonym(&self.user, &self.device)
    }

    /// Whether the device stands under its pseudonym: in a log that hides names, or after its user was erased.
    #[must_use]
    pub fn is_pseudonym(&self) -> bool {
        self.user.starts_with(MARK)
    }
}

/// Whether the name of a user is a pseudonym.
pub(crate) fn is_pseudonym(user: &str) -> bool {
    user.starts_with(MARK)
}

/// Reads the two parts of a device's pseudonym, in the one way in which it is written.
pub(super) fn pseudonym(user: &str, device: &str) -> Option<(SubjectId, u64)> {
    let id: SubjectId = user.parse().ok()?;
    let number: u64 = device.strip_prefix(MARK)?.parse().ok()?;
    let is_canonical = format!("{MARK}{number}") == device && id.to_string() == user;
    is_canonical.then_some((id, number))
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    quickcheck! {
        fn a_pseudonym_is_read_in_the_one_way_it_is_written(bytes: u128, number: u64) -> bool {
            let id = SubjectId::from_bytes(bytes.to_be_bytes());
            let pool = id.device(number);
            let padded: Result<PoolId, _> = format!("{id}/~0{number}").parse();
            pool.to_string().parse() == Ok(pool.clone())
                && pool.pseudonym() == Some((id, number))
                && padded.is_err()
        }
    }

    #[test]
    fn a_pseudonym_and_a_name_are_never_mixed() {
        let id = SubjectId::from_bytes([7; 16]);
        for text in ["~bob/main", "bob/~1", "~/~1", "~", &format!("{id}/main"), &format!("{id}")] {
            assert!(text.parse::<PoolId>().is_err(), "{text}");
        }
        assert!(id.device(1).check_registrable().is_err());
        let named: PoolId = "bob/main".parse().unwrap();
        assert_eq!((named.pseudonym(), named.is_pseudonym()), (None, false));
    }
}
