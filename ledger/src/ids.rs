//! The identifiers of the domain. Each is its own type, so that none is taken for another.

mod encoding;

mod subject;

use std::{fmt, str::FromStr, sync::Arc};

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::subject::SubjectId;
pub(crate) use self::subject::is_pseudonym;

/// The longest user name, in bytes.
const USER_LEN_MAX: usize = 128;
/// The longest device name, in bytes.
const DEVICE_LEN_MAX: usize = 64;
/// The device of a pool that does not name one.
const DEVICE_DEFAULT: &str = "main";

/// A name or an identifier that cannot be accepted, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not valid: {rule}")]
pub struct NameError {
    /// The thing that was being named: a user, a device, a `keypackage_ref` and so on.
    pub what: &'static str,
    /// The text that was given, cut to a readable length.
    pub value: String,
    /// The form of a valid name.
    pub rule: &'static str,
}

impl NameError {
    fn new(what: &'static str, value: &str, rule: &'static str) -> Self {
        Self { what, value: value.chars().take(40).collect(), rule }
    }
}

/// One device of one user: the owner of a pool, and the name of its history.
///
/// Written `alice/phone`; `alice` alone means `alice/main`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolId {
    user: Arc<str>,
    device: Arc<str>,
}

impl PoolId {
    /// The pool of a user's device.
    ///
    /// # Errors
    ///
    /// Returns a [`NameError`] unless the user has 1 to 128 and the device 1 to 64 characters of
    /// `A-Z a-z 0-9 . _ @ : + -`, or both are the parts of a pseudonym ([`PoolId::pseudonym`]).
    pub fn new(user: &str, device: &str) -> Result<Self, NameError> {
        if subject::pseudonym(user, device).is_none() {
            check_name("user", user, USER_LEN_MAX)?;
            check_name("device", device, DEVICE_LEN_MAX)?;
        }
        Ok(Self { user: user.into(), device: device.into() })
    }

    /// The pool of a user's device, or of the device `main` where none is named.
    ///
    /// # Errors
    ///
    /// As [`PoolId::new`].
    pub fn of(user: &str, device: Option<&str>) -> Result<Self, NameError> {
        Self::new(user, device.unwrap_or(DEVICE_DEFAULT))
    }

    /// Checks that user and device may be registered: stricter than for names that a log may hold from before.
    ///
    /// # Errors
    ///
    /// Returns a [`NameError`] if one of them is `.` or `..`, which cannot stand in an address, or begins
    /// with `-`, which a command line takes for a flag, or with `~`, as pseudonyms do.
    pub fn check_registrable(&self) -> Result<(), NameError> {
        for (what, name) in [("user", self.user()), ("device", self.device())] {
            if matches!(name, "." | "..") || name.starts_with(['-', '~']) {
                let rule = "not . or .., and no - or ~ at its beginning";
                return Err(NameError::new(what, name, rule));
            }
        }
        Ok(())
    }

    /// The user's name.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The device's name.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }
}

/// Accepts a user's name.
fn check_name(what: &'static str, name: &str, len_max: usize) -> Result<(), NameError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._@:+-".contains(&byte);
    if (1..=len_max).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    let rule = match what {
        "user" => "1 to 128 characters of A-Z a-z 0-9 . _ @ : + -",
        _ => "1 to 64 characters of A-Z a-z 0-9 . _ @ : + -",
    };
    Err(NameError::new(what, name, rule))
}

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.user, self.device)
    }
}

impl FromStr for PoolId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            Some((user, device)) => Self::new(user, device),
            None => Self::of(text, None),
        }
    }
}

/// One history in the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StreamId {
    /// The history of one device's pool.
    Pool(PoolId),
    /// The history of one group: its Commits, Welcomes and messages.
    Group(GroupId),
    /// The history of one device's mailbox: acknowledgements and closings.
    Mailbox(PoolId),
    /// The history of the server itself: its settings, and clocks that its operator accepted.
    Server,
    /// The history of a user's names, in a log that hides them: the payloads hold the names.
    Names(SubjectId),
}

impl StreamId {
    /// The pool whose history this is, if it is a pool's.
    #[must_use]
    pub fn pool(&self) -> Option<&PoolId> {
        match self {
            Self::Pool(pool) => Some(pool),
            Self::Group(_) | Self::Mailbox(_) | Self::Server | Self::Names(_) => None,
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool(pool) => write!(f, "pool/{pool}"),
            Self::Group(group) => write!(f, "group/{group}"),
            Self::Mailbox(pool) => write!(f, "mailbox/{pool}"),
            Self::Server => f.write_str("server"),
            Self::Names(id) => write!(f, "names/{id}"),
        }
    }
}

impl FromStr for StreamId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            None if text == "server" => Ok(Self::Server),
            Some(("pool", pool)) => Ok(Self::Pool(pool.parse()?)),
            Some(("group", group)) => Ok(Self::Group(group.parse()?)),
            Some(("mailbox", pool)) => Ok(Self::Mailbox(pool.parse()?)),
            Some(("names", id)) => Ok(Self::Names(id.parse()?)),
            _ => {
                let rule =
                    "pool/USER/DEVICE, group/BASE64, mailbox/USER/DEVICE, names/~ID or server";
                Err(NameError::new("stream", text, rule))
            }
        }
    }
}

/// The reference of a `KeyPackage`: `RefHash` of its bytes under the ciphersuite's hash, RFC 9420
/// section 5.2. 32, 48 or 64 bytes; lower-case hex as text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyPackageRef(Arc<[u8]>);

impl KeyPackageRef {
    /// Wraps the bytes of a reference.
    ///
    /// # Errors
    ///
    /// Returns a [`NameError`] unless there are 16 to 64 bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, NameError> {
        if (16..=64).contains(&bytes.len()) {
            return Ok(Self(bytes.into()));
        }
        let rule = "the hex of 16 to 64 bytes";
        Err(NameError::new("keypackage_ref", &HEXLOWER.encode(bytes), rule))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The first eight hex digits: enough to tell packages apart in a log line, no more.
    #[must_use]
    pub fn short(&self) -> String {
        HEXLOWER.encode(self.0.get(..4).unwrap_or(&self.0))
    }
}

impl fmt::Display for KeyPackageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for KeyPackageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPackageRef({})", self.short())
    }
}

impl FromStr for KeyPackageRef {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).unwrap_or_default();
        Self::new(&bytes).map_err(|err| NameError::new(err.what, text, err.rule))
    }
}

/// One inviter's claim on one package.
///
/// The inviter draws it at random (UUID version 4): its bearer may use the claim, and a
/// repeated request is recognised by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReservationId(pub Uuid);

/// The request that caused an event: the `Idempotency-Key` of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommandId(pub Uuid);

impl fmt::Display for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ReservationId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        text.parse().map(Self).map_err(|_| NameError::new("reservation_id", text, "a UUID"))
    }
}

impl FromStr for CommandId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        text.parse().map(Self).map_err(|_| NameError::new("Idempotency-Key", text, "a UUID"))
    }
}

/// An MLS group's id: opaque bytes, base64 as text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(Arc<[u8]>);

impl GroupId {
    /// Wraps the bytes of a group id.
    ///
    /// # Errors
    ///
    /// Returns a [`NameError`] unless there are 1 to 255 bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, NameError> {
        if (1..=255).contains(&bytes.len()) {
            return Ok(Self(bytes.into()));
        }
        Err(NameError::new("group_id", &BASE64.encode(bytes), "the base64 of 1 to 255 bytes"))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl GroupId {
    /// The id as it stands in a path: base64url without padding.
    #[must_use]
    pub fn to_path(&self) -> String {
        BASE64URL_NOPAD.encode(&self.0)
    }

    /// Reads an id from a path.
    ///
    /// # Errors
    ///
    /// Returns a [`NameError`] unless it is the base64url, without padding, of 1 to 255 bytes.
    pub fn from_path(text: &str) -> Result<Self, NameError> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).unwrap_or_default();
        let rule = "in a path, the base64url of 1 to 255 bytes, without padding";
        Self::new(&bytes).map_err(|err| NameError::new(err.what, text, rule))
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(&self.0))
    }
}

impl fmt::Debug for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupId({self})")
    }
}

impl FromStr for GroupId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bytes = BASE64.decode(text.as_bytes()).unwrap_or_default();
        Self::new(&bytes).map_err(|err| NameError::new(err.what, text, err.rule))
    }
}

/// A serialized MLS credential: the struct `Credential` of RFC 9420 section 5.3, base64 as text.
///
/// The bytes begin with the number of the credential's type. The rest depends on the type.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CredentialBytes(Arc<[u8]>);

impl CredentialBytes {
    /// How many bytes a credential may have.
    pub const LEN_MAX: usize = 8192;

    /// Wraps the bytes of a credential.
    ///
    /// # Errors
    ///
    /// Returns a [`NameError`] unless there are 3 to 8192 bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, NameError> {
        if (3..=Self::LEN_MAX).contains(&bytes.len()) {
            return Ok(Self(bytes.into()));
        }
        let rule = "the base64 of 3 to 8192 bytes: a serialized Credential (RFC 9420 section 5.3)";
        Err(NameError::new("credential", &BASE64.encode(bytes), rule))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The number of the credential's type, RFC 9420 section 17.5: 1 is Basic, 2 is X.509.
    #[must_use]
    pub fn credential_type(&self) -> u16 {
        self.0.first_chunk().map_or(0, |number| u16::from_be_bytes(*number))
    }

    /// The digest by which the facts of a package name the credential.
    #[must_use]
    pub fn digest(&self) -> Hash {
        Hash::of(&self.0)
    }
}

impl fmt::Display for CredentialBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(&self.0))
    }
}

impl fmt::Debug for CredentialBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CredentialBytes(type {}, {} bytes)", self.credential_type(), self.0.len())
    }
}

impl FromStr for CredentialBytes {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bytes = BASE64.decode(text.as_bytes()).unwrap_or_default();
        Self::new(&bytes).map_err(|err| NameError::new(err.what, text, err.rule))
    }
}

/// A BLAKE3 digest, lower-case hex as text.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash([u8; 32]);

impl Hash {
    /// The hash that stands before the first of a chain: 32 zeros.
    pub const ZERO: Self = Self([0; 32]);

    /// The BLAKE3 digest of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Wraps the bytes of a digest.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({}…)", self.to_string().get(..8).unwrap_or_default())
    }
}

impl FromStr for Hash {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).unwrap_or_default();
        let bytes: Result<[u8; 32], _> = bytes.try_into();
        bytes.map(Self).map_err(|_| NameError::new("hash", text, "the hex of 32 bytes"))
    }
}

/// A device's public signature key: it signs the device's packages and its requests.
///
/// Raw bytes of the signature scheme (32 for Ed25519); as text base64url without padding, the
/// `keyid` of RFC 9421.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SignatureKey(Arc<[u8]>);

impl SignatureKey {
    /// Wraps the bytes of a public key.
    ///
    /// # Errors
    ///
    /// Returns a [`NameError`] unless there are 32 to 133 bytes (Ed25519 to P-521).
    pub fn new(bytes: &[u8]) -> Result<Self, NameError> {
        if (32..=133).contains(&bytes.len()) {
            return Ok(Self(bytes.into()));
        }
        let rule = "the base64url of 32 to 133 bytes, without padding";
        Err(NameError::new("keyid", &BASE64URL_NOPAD.encode(bytes), rule))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for SignatureKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl fmt::Debug for SignatureKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignatureKey({self})")
    }
}

impl FromStr for SignatureKey {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).unwrap_or_default();
        Self::new(&bytes).map_err(|err| NameError::new(err.what, text, err.rule))
    }
}

/// An Ed25519 or ECDSA signature, base64url without padding as text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Signature(Arc<[u8]>);

impl Signature {
    /// Wraps the bytes of a signature.
    ///
    /// # Errors
    ///
    /// Returns a [`NameError`] unless there are 32 to 256 bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, NameError> {
        if (32..=256).contains(&bytes.len()) {
            return Ok(Self(bytes.into()));
        }
        let rule = "the base64url of 32 to 256 bytes, without padding";
        Err(NameError::new("signature", &BASE64URL_NOPAD.encode(bytes), rule))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({self})")
    }
}

impl FromStr for Signature {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).unwrap_or_default();
        Self::new(&bytes).map_err(|err| NameError::new(err.what, text, err.rule))
    }
}
