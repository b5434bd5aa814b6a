//! Session keys: two sides agree on a key in one signed request, and for a while requests carry an
//! HMAC-SHA-256 of their signature base instead of an Ed25519 signature.
//!
//! The key never travels. Each side draws an X25519 key for the one agreement, and HKDF-SHA-256 makes the
//! session's key from what the two have in common, with both public keys, the device's `keyid` and the
//! session's name. Randomness is drawn by the callers.

use std::{fmt, str::FromStr};

use data_encoding::BASE64URL_NOPAD;
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use keypool_ledger::SignatureKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::Sha256;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// What marks the derivation as this one.
const LABEL: &str = "keypool-session-v1";
/// How many bytes a session's name has.
const ID_BYTES: usize = 16;

/// The name of a session: 16 random bytes, written as base64url without padding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId([u8; ID_BYTES]);

/// A text that names no session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name of a session is 16 bytes in base64url, without padding")]
pub struct NoSessionId;

/// One side of an agreement: an X25519 key that is used once.
pub struct Exchange(StaticSecret);

/// A key that a device and a server have agreed on, and its name. The key is never printed, and is wiped
/// when it is dropped.
pub struct Session {
    id: SessionId,
    key: Zeroizing<[u8; 32]>,
}

impl SessionId {
    /// The name made of some bytes, which must be random: nobody else may come to have it.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; ID_BYTES]) -> Self {
        Self(bytes)
    }
}

impl Exchange {
    /// A side with a key of these bytes, which must be random and used for nothing else.
    #[must_use]
    pub fn new(random: &Zeroizing<[u8; 32]>) -> Self {
        Self(StaticSecret::from(**random))
    }

    /// The public key, for the other side.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        PublicKey::from(&self.0).to_bytes()
    }

    /// The session that a device has agreed on, by the server's answer; `None` if the server's key is one
    /// with which everybody would have the same secret.
    #[must_use]
    pub fn at_device(
        self,
        server: &[u8; 32],
        keyid: &SignatureKey,
        id: SessionId,
    ) -> Option<Session> {
        let keys = [self.public_key(), *server];
        self.agree(server, &keys, keyid, id)
    }

    /// The session that a server agrees on with the device that `keyid` speaks for; `None` as in
    /// [`Exchange::at_device`].
    #[must_use]
    pub fn at_server(
        self,
        device: &[u8; 32],
        keyid: &SignatureKey,
        id: SessionId,
    ) -> Option<Session> {
        let keys = [*device, self.public_key()];
        self.agree(device, &keys, keyid, id)
    }

    fn agree(
        self,
        theirs: &[u8; 32],
        public_keys: &[[u8; 32]; 2],
        keyid: &SignatureKey,
        id: SessionId,
    ) -> Option<Session> {
        let shared = self.0.diffie_hellman(&PublicKey::from(*theirs));
        if !shared.was_contributory() {
            return None;
        }
        let text = format!("{LABEL}\n{keyid}\n{id}\n");
        let info = [text.as_bytes(), public_keys.as_flattened()].concat();
        let mut key = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(None, shared.as_bytes()).expand(&info, key.as_mut_slice()).ok()?;
        Some(Session { id, key })
    }
}

impl Session {
    /// The session of a name with a key that both sides have from elsewhere.
    #[must_use]
    pub fn with_key(id: SessionId, key: Zeroizing<[u8; 32]>) -> Self {
        Self { id, key }
    }

    /// Its name.
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// What stands for a signature of some bytes: 32 bytes.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.mac(bytes).map_or_else(Vec::new, |mac| mac.finalize().into_bytes().to_vec())
    }

    /// Whether somebody who has the key has signed some bytes. It takes the same time, wherever a wrong
    /// signature differs.
    #[must_use]
    pub fn has_signed(&self, bytes: &[u8], signature: &[u8]) -> bool {
        self.mac(bytes).is_some_and(|mac| mac.verify_slice(signature).is_ok())
    }

    /// There always is one: HMAC takes keys of any length.
    fn mac(&self, bytes: &[u8]) -> Option<Hmac<Sha256>> {
        let mac = <Hmac<Sha256> as Mac>::new_from_slice(self.key.as_slice()).ok()?;
        Some(mac.chain_update(bytes))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

impl FromStr for SessionId {
    type Err = NoSessionId;

    fn from_str(text: &str) -> Result<Self, NoSessionId> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| NoSessionId)?;
        bytes.try_into().map(Self).map_err(|_| NoSessionId)
    }
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").finish_non_exhaustive()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    fn counted(from: u8) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(std::array::from_fn(|index| from + u8::try_from(index).unwrap()))
    }

    fn keyid() -> SignatureKey {
        "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg".parse().unwrap()
    }

    const ID: SessionId = SessionId::from_bytes([7; ID_BYTES]);

    #[test]
    fn both_sides_agree_on_the_key_that_another_implementation_derives() {
        let (device, server) = (Exchange::new(&counted(0)), Exchange::new(&counted(32)));
        let (theirs, ours) = (server.public_key(), device.public_key());
        let at_device = device.at_device(&theirs, &keyid(), ID).unwrap();
        let at_server = server.at_server(&ours, &keyid(), ID).unwrap();
        assert_eq!(*at_device.key, *at_server.key);
        assert!(at_server.has_signed(b"a request", &at_device.sign(b"a request")));
        // Made with X25519, HKDF and HMAC written out in another language.
        assert_eq!(
            HEXLOWER.encode(at_device.key.as_slice()),
            "205144b598cd6391360d2564be965c183e555646bbda447db33cc9ed4007e404"
        );
        assert_eq!(
            HEXLOWER.encode(&at_device.sign(b"a request")),
            "cf14ac5f2bb16e6148aa3505273bdb1b542c2b38929eadc42901759519a9cd8f"
        );
    }

    #[test]
    fn whatever_differs_gives_another_key() {
        let theirs = Exchange::new(&counted(32)).public_key();
        let agreed = |keyid: &SignatureKey, id, theirs: &[u8; 32]| {
            Exchange::new(&counted(0)).at_device(theirs, keyid, id).unwrap().key
        };
        let key = agreed(&keyid(), ID, &theirs);
        let other_keyid = SignatureKey::new(&[9; 32]).unwrap();
        let other_server = Exchange::new(&counted(33)).public_key();
        assert_ne!(agreed(&other_keyid, ID, &theirs), key);
        assert_ne!(agreed(&keyid(), SessionId::from_bytes([8; 16]), &theirs), key);
        assert_ne!(agreed(&keyid(), ID, &other_server), key);
        // The two sides are no mirror of each other.
        let mirrored = Exchange::new(&counted(0)).at_server(&theirs, &keyid(), ID).unwrap();
        assert_ne!(mirrored.key, key);
    }

    #[test]
    fn a_key_with_which_everybody_has_the_same_secret_is_refused() {
        let one = std::array::from_fn(|index| u8::from(index == 0));
        for low in [[0; 32], one] {
            assert!(Exchange::new(&counted(0)).at_server(&low, &keyid(), ID).is_none());
            assert!(Exchange::new(&counted(0)).at_device(&low, &keyid(), ID).is_none());
        }
    }

    #[test]
    fn what_was_not_signed_whole_is_refused() {
        let session = Session::with_key(ID, counted(0));
        let mut signature = session.sign(b"a request");
        assert!(!session.has_signed(b"another", &signature));
        assert!(!session.has_signed(b"a request", &[]));
        assert!(!session.has_signed(b"a request", &signature[..31]));
        signature[31] ^= 1;
        assert!(!session.has_signed(b"a request", &signature));
    }

    #[test]
    fn secrets_are_not_printed() {
        let exchange = Exchange::new(&counted(0));
        assert_eq!(format!("{exchange:?}"), "Exchange { .. }");
        let session = Session::with_key(ID, counted(0));
        assert_eq!(format!("{session:?}"), "Session { .. }");
    }

    #[test]
    fn a_name_has_one_way_to_be_written() {
        assert_eq!(ID.to_string(), "BwcHBwcHBwcHBwcHBwcHBw");
        assert_eq!("BwcHBwcHBwcHBwcHBwcHBw".parse(), Ok(ID));
        for other in ["", "BwcHBwcHBwcHBwcHBwcHBx", "BwcHBwcHBwcHBwcHBwcHBw==", "BwcHBwcHBwcHBwcH"]
        {
            assert_eq!(other.parse::<SessionId>(), Err(NoSessionId), "{other}");
        }
    }
}
