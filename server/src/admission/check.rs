//! The checks that an uploaded package must pass, by number and by name.

/// A check that an uploaded package must pass. Numbers and names are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Check {
    /// Its size is within the limit; checked before anything is parsed.
    Size = 1,
    /// The bytes are exactly one package, encoded in the one way there is.
    Decode,
    /// Its protocol version is mls10 and its ciphersuite is known and welcome.
    Protocol,
    /// Its own signature verifies.
    PackageSignature,
    /// Its leaf's signature verifies, and the leaf was made for a key package.
    LeafSignature,
    /// Its lifetime includes now, is not too long, and leaves enough for a reservation.
    Lifetime,
    /// Its `init_key` is not its leaf's encryption key.
    InitKeyDistinct,
    /// One can encrypt to its `init_key` and to its leaf's encryption key.
    UsableKeys,
    /// Its capabilities list everything that it uses itself, and no default capability.
    Capabilities,
    /// Its credential is the declared one; without one, Basic with the pool's user, or the user and the device.
    Identity,
    /// Its leaf's signature key is the declared one of its scheme; of Ed25519 without one, the registered key.
    SignatureKey,
    /// It was not uploaded before; if it was, the answer tells its outcome.
    Known,
    /// No other package of the pool had its `init_key`.
    InitKeyUnique,
    /// Its last-resort mark is well-formed, and the pool holds no other for the ciphersuite.
    LastResort,
    /// The pool is not full.
    Cap,
}

impl Check {
    /// All checks, by number.
    pub const ALL: [Self; 15] = [
        Self::Size,
        Self::Decode,
        Self::Protocol,
        Self::PackageSignature,
        Self::LeafSignature,
        Self::Lifetime,
        Self::InitKeyDistinct,
        Self::UsableKeys,
        Self::Capabilities,
        Self::Identity,
        Self::SignatureKey,
        Self::Known,
        Self::InitKeyUnique,
        Self::LastResort,
        Self::Cap,
    ];

    /// Its number, from 1.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Its name, as `check` in an answer gives it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Decode => "decode",
            Self::Protocol => "protocol",
            Self::PackageSignature => "package_signature",
            Self::LeafSignature => "leaf_signature",
            Self::Lifetime => "lifetime",
            Self::InitKeyDistinct => "init_key_distinct",
            Self::UsableKeys => "usable_keys",
            Self::Capabilities => "capabilities",
            Self::Identity => "identity",
            Self::SignatureKey => "signature_key",
            Self::Known => "known",
            Self::InitKeyUnique => "init_key_unique",
            Self::LastResort => "last_resort",
            Self::Cap => "cap",
        }
    }
}
