//! The reservation of one package.

use keypool_ledger::{GroupId, KeyPackageRef, ReservationId};
use keypool_projections::RequiredCapabilities;
use serde::{Deserialize, Serialize};

use crate::{Base64, ContactToken};

/// `POST /keypackages/reserve`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReserveRequest {
    /// The user to invite.
    pub target_user: String,
    /// One of the user's devices; one that has a package left if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_device: Option<String>,
    /// The group the invitation is for.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub group_id: GroupId,
    /// The reservation's id, a random UUID (version 4); the idempotency key if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = Uuid))]
    pub reservation_id: Option<ReservationId>,
    /// The ciphersuites the group can use; any if it is left out.
    #[serde(
        default,
        deserialize_with = "crate::policy::null_as_none",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub ciphersuites: Vec<u16>,
    /// The capabilities that the package must have; none in particular if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<RequiredCapabilities>,
    /// A contact token that a device of the target has signed: `KEYID.UNTIL.PROOF`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub contact_token: Option<ContactToken>,
}

impl ReserveRequest {
    /// Asks for a package of any device of a user, of any ciphersuite.
    #[must_use]
    pub fn new(target_user: &str, group_id: GroupId) -> Self {
        Self {
            target_user: target_user.to_owned(),
            target_device: None,
            group_id,
            reservation_id: None,
            ciphersuites: Vec::new(),
            required: None,
            contact_token: None,
        }
    }
}

/// The answer to `POST /keypackages/reserve`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReserveReply {
    /// The package's reference.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub keypackage_ref: KeyPackageRef,
    /// The exact bytes its owner uploaded.
    pub keypackage: Base64,
    /// The claim on it.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Uuid))]
    pub reservation_id: ReservationId,
    /// How many reservations the package has had, this one included.
    pub generation: u32,
    /// When the claim ends, in Unix seconds.
    pub reservation_expires_at: u64,
    /// When the package's lifetime ends, in Unix seconds.
    pub not_after: u64,
    /// Whether it is a last-resort package, which others may be given as well.
    pub last_resort: bool,
    /// The device whose package it is.
    pub device: String,
}
