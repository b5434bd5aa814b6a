//! Whether two sides know the same of a pool, on the wire.

use keypool_ledger::{Hash, KeyPackageRef};
use keypool_projections::Stage;
use serde::{Deserialize, Serialize};

/// `POST /keypackages/reconcile`: the caller's live packages, in exactly one of two ways.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReconcileRequest {
    /// The digest of the packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub digest: Option<Hash>,
    /// The packages themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<String>>))]
    pub keypackage_refs: Option<Vec<KeyPackageRef>>,
}

/// The answer to `POST /keypackages/reconcile`. Nothing has changed by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReconcileReply {
    /// Whether both sides have the same packages live.
    pub agrees: bool,
    /// The digest of the packages that are live here.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub digest: Hash,
    /// The version of the pool's history that this is said of.
    pub version: u64,
    /// Packages that are live here and were not named. All that are live, where a digest was sent that
    /// is another one.
    pub only_here: Vec<ReconciledPackage>,
    /// Packages that were named and are not live here.
    pub only_there: Vec<ReconciledPackage>,
}

/// A package that one side alone takes to be live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReconciledPackage {
    /// The package.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub keypackage_ref: KeyPackageRef,
    /// The state of the package, by the server's history.
    pub state: PackageState,
}

/// The state of a package, by the server's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum PackageState {
    /// In the pool, and not reserved.
    Available,
    /// Somebody holds it.
    Reserved,
    /// It was used.
    Spent,
    /// Its lifetime is over.
    Expired,
    /// It was withdrawn.
    Revoked,
    /// It was never in this pool.
    Unknown,
}

impl From<Stage> for PackageState {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Created => Self::Unknown,
            Stage::Available => Self::Available,
            Stage::Reserved => Self::Reserved,
            Stage::Spent => Self::Spent,
            Stage::Expired => Self::Expired,
            Stage::Revoked => Self::Revoked,
        }
    }
}
