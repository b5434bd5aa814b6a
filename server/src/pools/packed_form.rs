//! The two forms in which a state lies in memory: as it is decided on, or packed into bytes.

use std::{fmt::Debug, hash::Hash, sync::Arc};

use keypool_ledger::{GroupId, PoolId};
use keypool_projections::{
    GroupState, MailboxState,
    packing::{Packer, Unpacker},
};

use super::PoolView;

/// How many messages and groups a mailbox that is packed has at most.
pub(super) const PACKED_ITEMS_MAX: usize = 64;

/// A state that has a packed form.
pub(super) trait Cached: Clone + Debug {
    /// The name of a state of this kind.
    type Name: Clone + Debug + Eq + Hash;
    /// How many bytes of packed states are kept before the oldest are given up; `None` if all are, because
    /// they cannot be loaded one by one.
    const PACKED_BYTES_MAX: Option<usize>;

    /// Whether the state is so large that packing it saves little, and unpacking it takes long.
    fn is_large(&self) -> bool {
        false
    }

    /// The state as bytes.
    fn to_bytes(&self) -> Box<[u8]>;

    /// The state that some bytes are; `None` if they are none of this kind.
    fn of_bytes(bytes: &[u8]) -> Option<Self>;
}

impl Cached for PoolView {
    type Name = PoolId;
    /// Three kilobytes for a pool of 32 packages.
    const PACKED_BYTES_MAX: Option<usize> = Some(1 << 30);

    fn to_bytes(&self) -> Box<[u8]> {
        self.pack()
    }

    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        Self::unpack(bytes)
    }
}

impl Cached for GroupState {
    type Name = GroupId;
    const PACKED_BYTES_MAX: Option<usize> = None;

    fn to_bytes(&self) -> Box<[u8]> {
        packed(|out| self.pack(out))
    }

    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        unpacked(bytes, Self::unpack)
    }
}

impl Cached for MailboxState {
    type Name = PoolId;
    const PACKED_BYTES_MAX: Option<usize> = None;

    /// A message to a large group needs the mailboxes of all its members, in the one thread that writes.
    fn is_large(&self) -> bool {
        PACKED_ITEMS_MAX < self.len() + self.groups().count()
    }

    fn to_bytes(&self) -> Box<[u8]> {
        packed(|out| self.pack(out))
    }

    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        unpacked(bytes, Self::unpack)
    }
}

fn packed(pack: impl FnOnce(&mut Packer)) -> Box<[u8]> {
    let mut out = Packer::default();
    pack(&mut out);
    out.into_bytes()
}

fn unpacked<T>(bytes: &[u8], unpack: impl FnOnce(&mut Unpacker<'_>) -> Option<T>) -> Option<T> {
    let mut rest = Unpacker::new(bytes);
    let state = unpack(&mut rest)?;
    rest.is_empty().then_some(state)
}

/// A state in one of the two forms.
#[derive(Debug)]
pub(super) enum Form<T> {
    /// As it is decided on.
    Unpacked(Arc<T>),
    /// As bytes.
    Packed(Arc<[u8]>),
}

impl<T: Cached> Form<T> {
    /// The state as it is decided on.
    pub(super) fn unpacked(self) -> Option<Arc<T>> {
        match self {
            Self::Unpacked(state) => Some(state),
            Self::Packed(bytes) => T::of_bytes(&bytes).map(Arc::new),
        }
    }

    /// The state as bytes.
    pub(super) fn bytes(&self) -> Arc<[u8]> {
        match self {
            Self::Unpacked(state) => state.to_bytes().into(),
            Self::Packed(bytes) => Arc::clone(bytes),
        }
    }
}
