//! The notices that a stream sends between the events of a pool's history.

use keypool_ledger::KeyPackageRef;
use serde::{Deserialize, Serialize};

use super::PoolCounts;

/// `low` and `empty`: the pool is so now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LevelNotice {
    /// How many packages stand where.
    pub pool: PoolCounts,
    /// `low`, `critical` or `empty`.
    pub pool_health: String,
    /// How many packages to upload now to reach the target.
    pub recommended_upload: u64,
}

/// `last_resort_used`: the last-resort package was given out, since nothing else was left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LastResortNotice {
    /// The package.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub keypackage_ref: KeyPackageRef,
    /// The version of its reservation.
    pub version: u64,
}
