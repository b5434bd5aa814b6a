//! The waiting list on the wire: an inviter is told when a device has something to hand out.

use keypool_ledger::PoolId;
use serde::{Deserialize, Serialize};

use super::{Code, ReserveTarget, policy::null_as_none};

/// `POST /keypackages/await`: wait for packages of devices that have nothing to hand out now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AwaitRequest {
    /// The invitees to wait for, 64 at most.
    #[serde(default, deserialize_with = "null_as_none", skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<ReserveTarget>,
    /// The devices to wait for no longer, 64 at most, written `user/device`; their places are free for the
    /// targets of the same request.
    #[serde(default, deserialize_with = "null_as_none", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub stop: Vec<PoolId>,
}

/// The answer to `POST /keypackages/await`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AwaitReply {
    /// The devices of each target, in the order of the targets and of the devices' names.
    pub devices: Vec<AwaitedDevice>,
}

/// A device that was to be awaited, or a user none of whose devices is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AwaitedDevice {
    /// The user.
    pub user: String,
    /// The device, unless none of the user's is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Whether the caller waits for it.
    pub status: AwaitStatus,
    /// When the caller stops waiting for it, in Unix seconds, where it is `waiting`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// The code that a reservation of it would be refused with, where it is `refused`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// When to try again, in seconds, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
}

/// Whether a device is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum AwaitStatus {
    /// It has nothing to hand out; `GET /mailbox` names it in `available` once it has.
    Waiting,
    /// It has something to hand out now: reserve it.
    Available,
    /// A reservation of it would be refused for another reason; nobody waits for it.
    Refused,
}
