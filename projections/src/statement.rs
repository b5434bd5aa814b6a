//! Statements that a device signs: bounded, for one ledger, and good for one use.
//!
//! A statement names the ledger it is for, the head of the user's device list that it was made on, and
//! its end. Each change of that list changes the head, so a statement that was used is stale.

use std::{fmt, str::FromStr, time::Duration};

use keypool_ledger::{Hash, PoolId, SignatureKey, Timestamp};

/// The first line of every statement. No request and no MLS content begins so.
const DOMAIN: &str = "keypool-statement-v2";
/// How long a statement is good for at most; a contact token is as long as its user wants.
const VOUCH_VALID: Duration = Duration::from_mins(10);
const ROTATE_VALID: Duration = Duration::from_mins(5);
/// How much further ahead its end may lie, because clocks differ.
const SKEW: Duration = Duration::from_mins(1);

/// The identity of a ledger in statements: the name and the key hash of its checkpoints, `NAME+HASH`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LedgerId(String);

impl LedgerId {
    /// The identity of the ledger that a verifier key `NAME+HASH+KEY` (C2SP signed-note) belongs to;
    /// `None` if that is no such key.
    #[must_use]
    pub fn of_verifier_key(key: &str) -> Option<Self> {
        let mut parts = key.splitn(3, '+');
        let (name, hash) = (parts.next()?, parts.next()?);
        parts.next()?;
        format!("{name}+{hash}").parse().ok()
    }
}

impl fmt::Display for LedgerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Text that is no identity of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a ledger's identity is NAME+HASH, without spaces")]
pub struct NoLedgerId;

impl FromStr for LedgerId {
    type Err = NoLedgerId;

    fn from_str(text: &str) -> Result<Self, NoLedgerId> {
        let is_plain = text.len() <= 300 && text.bytes().all(|byte| byte.is_ascii_graphic());
        if is_plain && text.contains('+') { Ok(Self(text.to_owned())) } else { Err(NoLedgerId) }
    }
}

impl serde::Serialize for LedgerId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for LedgerId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The change that a statement agrees to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agreement<'a> {
    /// A device of the user vouches for this key of the device that registers.
    Vouch(&'a SignatureKey),
    /// The key agrees that this one follows it.
    Rotate(&'a SignatureKey),
    /// The key declares that this one signs the device's packages of a signature scheme.
    LeafKey(u16, &'a SignatureKey),
    /// The key declares that the device's packages carry the credential with this digest.
    Credential(&'a Hash),
    /// The key agrees that this one is the user's recovery key.
    RecoveryKey(&'a SignatureKey),
    /// The user's recovery key registers this key for the device, and removes every other device.
    Recover(&'a SignatureKey),
}

impl Agreement<'_> {
    /// How long a statement of this kind is good for at most.
    #[must_use]
    pub const fn valid_for(&self) -> Duration {
        match self {
            Self::Vouch(_) | Self::Recover(_) => VOUCH_VALID,
            Self::Rotate(_) | Self::LeafKey(..) | Self::Credential(_) | Self::RecoveryKey(_) => {
                ROTATE_VALID
            }
        }
    }

    /// Checks that a statement that ends at `until` is good at `now`.
    ///
    /// # Errors
    ///
    /// Returns a [`StatementTime`] if it has ended, or would be good for longer than its kind may be.
    pub fn check_time(&self, until: Timestamp, now: Timestamp) -> Result<(), StatementTime> {
        if until <= now {
            return Err(StatementTime::Expired);
        }
        if now.after(self.valid_for()).after(SKEW) < until {
            return Err(StatementTime::TooLong);
        }
        Ok(())
    }
}

/// A statement: an agreement, the agreeing device, the ledger, the head it is bound to, and its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement<'a> {
    /// The ledger it is for.
    pub ledger: &'a LedgerId,
    /// The device it is about.
    pub subject: &'a PoolId,
    /// The key that signs it.
    pub by: &'a SignatureKey,
    /// The change.
    pub agreement: Agreement<'a>,
    /// The head of the user's device list.
    pub head: &'a Hash,
    /// When it ends.
    pub until: Timestamp,
}

impl Statement<'_> {
    /// The bytes that are signed: lines of text, each with a line feed after it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let Self { ledger, subject, by, agreement, head, until } = self;
        let (kind, key) = match agreement {
            Agreement::Vouch(key) => ("vouch", key.to_string()),
            Agreement::Rotate(key) => ("rotate", key.to_string()),
            Agreement::LeafKey(scheme, key) => ("leaf-key", format!("{scheme:#06x} {key}")),
            Agreement::Credential(digest) => ("credential", digest.to_string()),
            Agreement::RecoveryKey(key) => ("recovery-key", key.to_string()),
            Agreement::Recover(key) => ("recover", key.to_string()),
        };
        let until = until.as_millis() / 1000;
        format!("{DOMAIN}\n{kind}\n{ledger}\n{subject}\n{by}\n{key}\n{head}\n{until}\n")
            .into_bytes()
    }
}

/// The reason why a statement's time does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatementTime {
    /// It has ended.
    #[error("the statement has ended; have it signed again")]
    Expired,
    /// It would be good for too long.
    #[error(
        "the statement would be good for longer than it may be (10 minutes to vouch or recover, 5 otherwise)"
    )]
    TooLong,
}

/// The signed line of a contact token, whose bearer is introduced to a user's devices until it ends.
/// The token is good for many uses, and so it is bound to no head; it ends with the key that signed it.
#[must_use]
pub fn contact_statement(
    ledger: &LedgerId,
    user: &str,
    by: &SignatureKey,
    until: Timestamp,
) -> Vec<u8> {
    let until = until.as_millis() / 1000;
    format!("{DOMAIN}\ncontact\n{ledger}\n{user}\n{by}\n{until}\n").into_bytes()
}

/// The head of a user's device list: a digest over each device's name, how often its keys have changed,
/// and the key that speaks for it now. Every change of a key changes it, and no earlier one comes back.
#[must_use]
pub fn device_list_head<'a>(
    user: &str,
    devices: impl Iterator<Item = (&'a str, u64, Option<&'a SignatureKey>)>,
) -> Hash {
    let mut text = format!("keypool-devices-v1\n{user}\n");
    for (device, changes, key) in devices.filter(|(_, changes, _)| 0 < *changes) {
        let key = key.map_or_else(|| "-".to_owned(), ToString::to_string);
        text.extend([device, " ", &changes.to_string(), " ", &key, "\n"]);
    }
    Hash::of(text.as_bytes())
}
