//! Packages for many devices at once, and packages that could not be used, on the wire.

use keypool_ledger::{GroupId, KeyPackageRef, ReservationId};
use keypool_projections::{RequiredCapabilities, Requirement};
use serde::{Deserialize, Serialize};

use super::{Code, ContactToken, ReserveReply, policy::null_as_none};

/// `POST /keypackages/reserve-many`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReserveManyRequest {
    /// The group the invitation is for.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub group_id: GroupId,
    /// A random UUID (version 4). The id of each reservation follows from it and the device.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Uuid))]
    pub reservation_id: ReservationId,
    /// The invitees; one that is named twice counts once.
    pub targets: Vec<ReserveTarget>,
    /// The ciphersuites the group can use; any if it is left out.
    #[serde(default, deserialize_with = "null_as_none", skip_serializing_if = "Vec::is_empty")]
    pub ciphersuites: Vec<u16>,
    /// The capabilities that each package must have; none in particular if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<RequiredCapabilities>,
}

/// A user or a device to invite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReserveTarget {
    /// The user.
    pub user: String,
    /// One of the user's devices; all of them if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// A contact token that a device of the user has signed: `KEYID.UNTIL.PROOF`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub contact_token: Option<ContactToken>,
}

/// The answer to `POST /keypackages/reserve-many`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReserveManyReply {
    /// One package for each device that has one, in the order of the targets and of the devices' names.
    pub reservations: Vec<DeviceReservation>,
    /// The devices without a reservation, and why.
    pub missing: Vec<MissingDevice>,
}

/// A package that was set aside, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceReservation {
    /// The user whose package it is.
    pub user: String,
    /// The package and the claim on it.
    #[serde(flatten)]
    pub reservation: ReserveReply,
}

/// A device, or a user, without a reserved package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MissingDevice {
    /// The user.
    pub user: String,
    /// The device, unless none of the user's is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The code that a reservation of it alone would be refused with.
    pub code: Code,
    /// The capability that none of its packages has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requirement: Option<Requirement>,
    /// When to try again, in seconds, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
}

/// `POST /keypackages/report`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReportRequest {
    /// The package.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub keypackage_ref: KeyPackageRef,
    /// The claim on it.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Uuid))]
    pub reservation_id: ReservationId,
    /// The fault of the package, for its owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<ReportReason>,
}

/// The fault of a package: the check that it failed at the inviter's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ReportReason {
    /// The bytes are not exactly one package.
    Encoding,
    /// The bytes are not those of the reference.
    Reference,
    /// The credential names somebody else.
    Identity,
    /// The present time is outside its lifetime.
    Lifetime,
    /// It has another ciphersuite than the server says.
    Ciphersuite,
    /// A signature, the version, a key or an extension is not valid.
    Validity,
    /// Nothing can be encrypted to its keys.
    Keys,
    /// Something else.
    Other,
}

impl ReportReason {
    /// The word, as it stands in a request.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Encoding => "encoding",
            Self::Reference => "reference",
            Self::Identity => "identity",
            Self::Lifetime => "lifetime",
            Self::Ciphersuite => "ciphersuite",
            Self::Validity => "validity",
            Self::Keys => "keys",
            Self::Other => "other",
        }
    }
}

/// The answer to `POST /keypackages/report`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReportReply {
    /// Always true: the package is never offered again, and the claim has ended.
    pub reported: bool,
}
