//! The header of the key file: the store it belongs to, and the parameters of its device key.

use std::fmt;

use keypool_ledger::Hash;
use uuid::Uuid;

use super::cipher::{NONCE_BYTES, SealingKey, TAG_BYTES, randomize};
use crate::SealingError;

/// The size of the header before the slots, in bytes: two copies, each in sectors of its own.
pub(super) const HEADER_BYTES: usize = 4096;
/// The offset of the second copy.
const SECOND_COPY: usize = HEADER_BYTES / 2;

const MAGIC: &[u8; 16] = b"keypool key file";
/// The format written today.
const FORMAT: u16 = 1;
const SALT_BYTES: usize = 16;
/// How much of a digest says that a copy is whole.
const DIGEST_BYTES: usize = 16;

/// Which kind of key a store is sealed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKeyKind {
    /// A file of the home that only its owner may read.
    File,
    /// A passphrase.
    Passphrase,
    /// 32 bytes that the app keeps.
    App,
}

/// The cost of trying a passphrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) memory_kib: u32,
    pub(super) passes: u32,
    pub(super) lanes: u32,
}

/// The header in front of the slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: DeviceKeyKind,
    pub(super) cost: Cost,
    pub(super) salt: [u8; SALT_BYTES],
    pub(super) store: Uuid,
}

/// A header as it was read: the device key has to vouch for it.
pub(super) struct FoundHeader {
    pub(super) header: Header,
    voucher: [u8; NONCE_BYTES + TAG_BYTES],
    /// Whether one of the copies is damaged.
    pub(super) is_torn: bool,
}

/// Why no header can be read.
pub(super) enum HeaderTrouble {
    Damaged(&'static str),
    Newer(u16),
}

impl fmt::Display for DeviceKeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "a key in a file",
            Self::Passphrase => "a passphrase",
            Self::App => "a key of the app",
        })
    }
}

impl Header {
    /// The header of a new store's key file.
    pub(super) fn fresh(
        kind: DeviceKeyKind,
        cost: Cost,
        store: Uuid,
    ) -> Result<Self, SealingError> {
        let mut salt = [0; SALT_BYTES];
        randomize(&mut salt)?;
        Ok(Self { kind, cost, salt, store })
    }

    /// Both copies, which the device key vouches for.
    pub(super) fn encode(&self, key: &SealingKey) -> Result<Vec<u8>, SealingError> {
        let mut copy = self.fields();
        let voucher = key.vouch(&copy)?;
        copy.extend_from_slice(&voucher);
        let digest = Hash::of(&copy);
        copy.extend(digest.as_bytes().iter().take(DIGEST_BYTES));
        let mut bytes = copy.clone();
        bytes.resize(SECOND_COPY, 0);
        bytes.extend_from_slice(&copy);
        bytes.resize(HEADER_BYTES, 0);
        Ok(bytes)
    }

    /// Reads the first copy that is whole.
    pub(super) fn decode(bytes: &[u8]) -> Result<FoundHeader, HeaderTrouble> {
        let second = bytes.get(SECOND_COPY..).unwrap_or_default();
        match (decode_copy(bytes), decode_copy(second)) {
            (Ok(found), Ok(other)) => Ok(FoundHeader { is_torn: found != other, ..found.into() }),
            (Ok(found), Err(_)) | (Err(_), Ok(found)) => {
                Ok(FoundHeader { is_torn: true, ..found.into() })
            }
            (Err(trouble), Err(_)) => Err(trouble),
        }
    }

    fn fields(&self) -> Vec<u8> {
        let mut fields = MAGIC.to_vec();
        fields.extend_from_slice(&FORMAT.to_be_bytes());
        fields.push(number_of(self.kind));
        for number in [self.cost.memory_kib, self.cost.passes, self.cost.lanes] {
            fields.extend_from_slice(&number.to_be_bytes());
        }
        fields.extend_from_slice(&self.salt);
        fields.extend_from_slice(self.store.as_bytes());
        fields
    }
}

impl FoundHeader {
    /// Whether the key is the one that the header was written with.
    pub(super) fn is_of(&self, key: &SealingKey) -> bool {
        key.vouches(&self.header.fields(), &self.voucher)
    }
}

type Copy = (Header, [u8; NONCE_BYTES + TAG_BYTES]);

impl From<Copy> for FoundHeader {
    fn from((header, voucher): Copy) -> Self {
        Self { header, voucher, is_torn: false }
    }
}

fn decode_copy(bytes: &[u8]) -> Result<Copy, HeaderTrouble> {
    const SHORT: HeaderTrouble = HeaderTrouble::Damaged("it is too short");
    let (magic, rest) = bytes.split_first_chunk::<16>().ok_or(SHORT)?;
    if magic != MAGIC {
        return Err(HeaderTrouble::Damaged("its first bytes are others"));
    }
    let (format, rest) = rest.split_first_chunk::<2>().ok_or(SHORT)?;
    let (&[kind], rest) = rest.split_first_chunk::<1>().ok_or(SHORT)?;
    let (memory_kib, rest) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
    let (passes, rest) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
    let (lanes, rest) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
    let (salt, rest) = rest.split_first_chunk::<SALT_BYTES>().ok_or(SHORT)?;
    let (store, rest) = rest.split_first_chunk::<16>().ok_or(SHORT)?;
    let (voucher, rest) = rest.split_first_chunk().ok_or(SHORT)?;
    let (digest, _) = rest.split_first_chunk::<DIGEST_BYTES>().ok_or(SHORT)?;
    let covered = bytes.len().saturating_sub(rest.len());
    let expected = Hash::of(bytes.get(..covered).unwrap_or_default());
    if !expected.as_bytes().starts_with(digest) {
        return Err(HeaderTrouble::Damaged("its bytes have changed"));
    }
    let format = u16::from_be_bytes(*format);
    if format != FORMAT {
        return Err(HeaderTrouble::Newer(format));
    }
    let kind = kind_of(kind).ok_or(HeaderTrouble::Damaged("its kind of key is unknown"))?;
    let cost = Cost {
        memory_kib: u32::from_be_bytes(*memory_kib),
        passes: u32::from_be_bytes(*passes),
        lanes: u32::from_be_bytes(*lanes),
    };
    let store = Uuid::from_bytes(*store);
    Ok((Header { kind, cost, salt: *salt, store }, *voucher))
}

const fn number_of(kind: DeviceKeyKind) -> u8 {
    match kind {
        DeviceKeyKind::File => 1,
        DeviceKeyKind::Passphrase => 2,
        DeviceKeyKind::App => 3,
    }
}

const fn kind_of(number: u8) -> Option<DeviceKeyKind> {
    match number {
        1 => Some(DeviceKeyKind::File),
        2 => Some(DeviceKeyKind::Passphrase),
        3 => Some(DeviceKeyKind::App),
        _ => None,
    }
}
