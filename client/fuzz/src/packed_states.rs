//! The packed forms of folded states.

use std::fmt::Debug;

use keypool_projections::{
    GroupState, Identity, MailboxState, PoolState,
    packing::{Packer, Unpacker},
};

/// Unpacks a state, of the kind that the first byte says. Packed again it is the same state, in no more bytes than a
/// small multiple of those it was read from.
pub fn packed(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 4 {
        0 => check(bytes, PoolState::unpack, PoolState::pack),
        1 => check(bytes, GroupState::unpack, GroupState::pack),
        2 => check(bytes, MailboxState::unpack, MailboxState::pack),
        _ => check(bytes, Identity::unpack, Identity::pack),
    }
}

fn check<T: PartialEq + Debug>(
    bytes: &[u8],
    unpack: impl Fn(&mut Unpacker<'_>) -> Option<T>,
    pack: impl Fn(&T, &mut Packer),
) {
    let mut rest = Unpacker::new(bytes);
    let Some(state) = unpack(&mut rest) else { return };
    let mut out = Packer::default();
    pack(&state, &mut out);
    let again = out.into_bytes();
    let read = unpack(&mut Unpacker::new(&again));
    assert_eq!(read.as_ref(), Some(&state), "a state is the same when it is packed and unpacked");
    assert!(again.len() <= bytes.len(), "a state is packed in no more bytes than it was read from");
}
