//! Names, ids and times of the client library as text and numbers.

use keypool_client::{
    Code, GroupId, Hash, KeyPackageRef, PoolId, ReservationId, SignatureKey, Timestamp,
    UntrustedMember, Voucher, wire::Base64,
};

use crate::{DeviceError, UntrustedLeaf};

/// Lets ids of the client library cross as the text that they have everywhere else.
macro_rules! as_text {
    ($($(#[$doc:meta])* $id:ident;)*) => {
        $(uniffi::custom_type!($(#[$doc])* $id, String, {
            remote,
            lower: |id| id.to_string(),
            try_lift: |text| Ok(text.parse::<$id>().map_err(DeviceError::from)?),
        });)*
    };
}

as_text! {
    /// The id of a group: the base64 of 1 to 255 bytes. See `group_id`.
    GroupId;
    /// A device of a user: `bob/phone`; as an argument also `bob`, for `bob/main`.
    PoolId;
    /// The reference of a package (RFC 9420 section 5.2), in hex.
    KeyPackageRef;
    /// The id of a reservation, a UUID.
    ReservationId;
    /// A public signature key: base64url without padding.
    SignatureKey;
    /// A hash, in hex.
    Hash;
}

uniffi::custom_type!(
    /// A code of the server's errors, as a word.
    Code, String, {
    remote,
    lower: |code| code.to_string(),
    try_lift: |word| Ok(word.parse::<Code>().map_err(|error| DeviceError::invalid(error.to_string()))?),
});

uniffi::custom_type!(
    /// A moment, in milliseconds since 1970 by the server's clock.
    Timestamp, u64, {
    remote,
    lower: |at| at.as_millis(),
    try_lift: |ms| Ok(Timestamp::from_millis(ms)),
});

uniffi::custom_type!(
    /// The bytes of a package.
    Base64, Vec<u8>, {
    remote,
    lower: |bytes| bytes.0,
    try_lift: |bytes| Ok(Base64(bytes)),
});

uniffi::custom_type!(
    /// A voucher: one word that a device of a user gives to another one, within ten minutes.
    Voucher, String, {
    remote,
    lower: |voucher| voucher.to_string(),
    try_lift: |word| Ok(word.parse::<Voucher>().map_err(|error| DeviceError::invalid(error.to_string()))?),
});

uniffi::custom_type!(
    /// A member whose leaf contradicts the directory.
    UntrustedMember, UntrustedLeaf, {
    remote,
    lower: |member| UntrustedLeaf { name: member.name, leaf_index: member.leaf_index, why: member.why },
    try_lift: |leaf| Err(DeviceError::invalid(format!("{} is judged by a device only", leaf.name)).into()),
});

/// The id of the group whose id has these bytes.
///
/// # Errors
///
/// Returns the code `invalid_name` unless there are 1 to 255 bytes.
#[expect(clippy::needless_pass_by_value, reason = "a slice is a direct buffer in Kotlin")]
#[uniffi::export]
pub fn group_id(bytes: Vec<u8>) -> Result<GroupId, DeviceError> {
    Ok(GroupId::new(&bytes)?)
}

/// The bytes of a group's id.
#[must_use]
#[uniffi::export]
pub fn group_bytes(group: &GroupId) -> Vec<u8> {
    group.as_bytes().to_vec()
}
