//! The cryptography of sealing: data keys, the slots they are wrapped into, and sealed values.
//!
//! One primitive does all of it, XChaCha20-Poly1305, which is in the program anyhow for MLS. Its only
//! home here.

use chacha20poly1305::{
    AeadInPlace, KeyInit, XChaCha20Poly1305, XNonce,
    aead::{OsRng, rand_core::RngCore},
};
use uuid::Uuid;
use zeroize::{Zeroize, Zeroizing};

use crate::SealingError;

/// The size of a slot of the key file, in bytes.
pub(super) const SLOT_BYTES: usize = 64;
/// The size of the random nonce of each seal, in bytes.
pub(super) const NONCE_BYTES: usize = 24;
/// The size of the authentication tag, in bytes.
pub(super) const TAG_BYTES: usize = 16;
/// The size of a key, in bytes.
pub(super) const KEY_BYTES: usize = 32;

/// The first byte of every sealed value.
const VALUE_VERSION: u8 = 1;
/// The version, slot and generation in front of a sealed value, in bytes.
const PLACE_BYTES: usize = 1 + 4 + 8;

/// A secret key: of the device, or of one value. Prints nothing of itself, and is wiped when dropped.
#[derive(Clone)]
pub(super) struct SealingKey(Zeroizing<[u8; KEY_BYTES]>);

/// The slot of the key of a value, and the write that filled it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeySlot {
    pub(super) slot: u32,
    pub(super) generation: u64,
}

/// Fills bytes at random. The operating system's randomness is the only source of keys.
pub(crate) fn randomize(bytes: &mut [u8]) -> Result<(), SealingError> {
    OsRng.try_fill_bytes(bytes).map_err(|err| SealingError::NoRandomness(Box::new(err)))
}

impl SealingKey {
    /// A fresh key.
    pub(super) fn random() -> Result<Self, SealingError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        randomize(bytes.as_mut_slice())?;
        Ok(Self(bytes))
    }

    /// The key that some bytes are.
    pub(super) fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(*bytes))
    }

    /// Wraps a data key into the bytes of its slot: generation and randomness, which are the nonce
    /// together with the number of the slot, then the key and its tag.
    pub(super) fn wrap(
        &self,
        store: Uuid,
        place: KeySlot,
        data: &Self,
    ) -> Result<[u8; SLOT_BYTES], SealingError> {
        let mut slot = [0; SLOT_BYTES];
        let (head, rest) = slot.split_at_mut(16);
        let (wrapped, tag) = rest.split_at_mut(KEY_BYTES);
        let (generation, random) = head.split_at_mut(8);
        generation.copy_from_slice(&place.generation.to_be_bytes());
        randomize(random)?;
        wrapped.copy_from_slice(data.0.as_slice());
        let nonce = slot_nonce(head, place.slot);
        let made = self.cipher().encrypt_in_place_detached(&nonce, &slot_context(store), wrapped);
        let Ok(made) = made else {
            slot.zeroize();
            return Err(SealingError::TooLarge);
        };
        tag.copy_from_slice(&made);
        Ok(slot)
    }

    /// The data key in a slot; `None` if the slot holds none that this key has wrapped there.
    pub(super) fn unwrap(&self, store: Uuid, number: u32, slot: &[u8]) -> Option<(u64, Self)> {
        let (head, rest) = slot.split_at_checked(16)?;
        let (wrapped, tag) = rest.split_at_checked(KEY_BYTES)?;
        let (generation, _) = head.split_first_chunk::<8>()?;
        let nonce = slot_nonce(head, number);
        let mut data = Zeroizing::new([0; KEY_BYTES]);
        data.copy_from_slice(wrapped);
        let tag: [u8; TAG_BYTES] = tag.try_into().ok()?;
        self.cipher()
            .decrypt_in_place_detached(
                &nonce,
                &slot_context(store),
                data.as_mut_slice(),
                &tag.into(),
            )
            .ok()?;
        Some((u64::from_be_bytes(*generation), Self(data)))
    }

    /// Seals a value under its name, so that it opens in this store, under this name, in this format
    /// only.
    pub(super) fn seal(
        &self,
        context: &[u8],
        place: KeySlot,
        value: &[u8],
    ) -> Result<Vec<u8>, SealingError> {
        let size = PLACE_BYTES + NONCE_BYTES + value.len() + TAG_BYTES;
        let mut sealed = Vec::with_capacity(size);
        sealed.push(VALUE_VERSION);
        sealed.extend_from_slice(&place.slot.to_be_bytes());
        sealed.extend_from_slice(&place.generation.to_be_bytes());
        let mut nonce = [0; NONCE_BYTES];
        randomize(&mut nonce)?;
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(value);
        let body = sealed.get_mut(PLACE_BYTES + NONCE_BYTES..).unwrap_or_default();
        let tag = self.cipher().encrypt_in_place_detached(&nonce.into(), context, body);
        let Ok(tag) = tag else {
            sealed.zeroize();
            return Err(SealingError::TooLarge);
        };
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }

    /// Opens a sealed value; `None` if it is not the one that was sealed with this key and context.
    pub(super) fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, rest) = sealed.get(PLACE_BYTES..)?.split_first_chunk::<NONCE_BYTES>()?;
        let (body, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
        let mut value = Zeroizing::new(body.to_vec());
        let (nonce, tag) = (XNonce::from(*nonce), (*tag).into());
        self.cipher()
            .decrypt_in_place_detached(&nonce, context, value.as_mut_slice(), &tag)
            .ok()?;
        Some(value)
    }

    /// Vouches for some bytes: a nonce and a tag, which only this key makes.
    pub(super) fn vouch(
        &self,
        bytes: &[u8],
    ) -> Result<[u8; NONCE_BYTES + TAG_BYTES], SealingError> {
        let mut voucher = [0; NONCE_BYTES + TAG_BYTES];
        let (nonce, tag) = voucher.split_at_mut(NONCE_BYTES);
        randomize(nonce)?;
        let made =
            self.cipher().encrypt_in_place_detached(XNonce::from_slice(nonce), bytes, &mut []);
        tag.copy_from_slice(&made.map_err(|_| SealingError::TooLarge)?);
        Ok(voucher)
    }

    /// Whether this key has vouched for some bytes.
    pub(super) fn vouches(&self, bytes: &[u8], voucher: &[u8; NONCE_BYTES + TAG_BYTES]) -> bool {
        let (nonce, tag) = voucher.split_at(NONCE_BYTES);
        let (nonce, tag) = (XNonce::from_slice(nonce), tag.into());
        self.cipher().decrypt_in_place_detached(nonce, bytes, &mut [], tag).is_ok()
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(self.0.as_slice().into())
    }
}

impl KeySlot {
    /// The slot of the key that a sealed value names.
    pub(super) fn of(sealed: &[u8]) -> Option<Self> {
        let (&VALUE_VERSION, rest) = sealed.split_first()? else { return None };
        let (slot, rest) = rest.split_first_chunk::<4>()?;
        let generation = rest.first_chunk::<8>()?;
        let (slot, generation) = (u32::from_be_bytes(*slot), u64::from_be_bytes(*generation));
        Some(Self { slot, generation })
    }
}

/// The associated data of a sealed value: store, name and format. The name comes last, so that
/// no two contexts are the same bytes.
pub(super) fn value_context(store: Uuid, name: &[u8]) -> Vec<u8> {
    let mut context = b"keypool value".to_vec();
    context.extend_from_slice(store.as_bytes());
    context.push(VALUE_VERSION);
    context.extend_from_slice(name);
    context
}

fn slot_context(store: Uuid) -> Vec<u8> {
    let mut context = b"keypool slot".to_vec();
    context.extend_from_slice(store.as_bytes());
    context
}

fn slot_nonce(head: &[u8], number: u32) -> XNonce {
    let mut nonce = [0; NONCE_BYTES];
    let number = u64::from(number).to_be_bytes();
    nonce.iter_mut().zip(head.iter().chain(&number)).for_each(|(to, from)| *to = *from);
    nonce.into()
}
