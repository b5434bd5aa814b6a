//! Requests, replies and error codes of the HTTP API, shared by server and client.
//!
//! JSON. Packages and group ids are base64 with padding, references lower-case hex, instants Unix
//! seconds. No HTTP types: which code goes with which status is the server's to know.

mod code;

mod delivery;

mod devices;

mod directory;

mod many;

mod policy;

mod reconcile;

mod refusal;

mod reserve;

mod stream;

mod transparency;

mod waiting_list;

mod webhook;

pub mod signing;

use data_encoding::BASE64;
use keypool_ledger::{CommandId, Event, GroupId, Hash, KeyPackageRef, Record, ReservationId};
use keypool_projections::{Health, Requirement, SuiteCounts};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use self::{
    code::{Code, UnknownCode},
    delivery::{
        AcknowledgeReply, AcknowledgeRequest, AnswerItem, AnswerOutcome, CommitReply,
        CommitRequest, FailedWelcome, GroupReply, GroupRequest, MailboxItem, MailboxKind,
        MailboxReply, MessageReply, MessageRequest, NotKept,
    },
    devices::{
        CredentialRequest, DeclaredReply, DevicesReply, LeafKeyReply, LeafKeyRequest, NoVoucher,
        RecoverReply, RecoverRequest, RecoveryKeyRequest, RegisterReply, RegisterRequest,
        RemoveReply, RemoveRequest, RotatePackagesReply, RotatePackagesRequest, RotateRequest,
        Voucher,
    },
    directory::{
        KnownUser, USERS_MAX, UserDevices, UsersDevicesReply, UsersDevicesRequest, has_signed,
    },
    many::{
        DeviceReservation, MissingDevice, ReportReason, ReportReply, ReportRequest,
        ReserveManyReply, ReserveManyRequest, ReserveTarget,
    },
    policy::{ContactToken, NoContactToken, PolicyReply, PolicyRequest},
    reconcile::{PackageState, ReconcileReply, ReconcileRequest, ReconciledPackage},
    refusal::{CountedRefusals, REFUSALS_DIR, RefusalLine, RefusedRequest, read_refusals},
    reserve::{ReserveReply, ReserveRequest},
    stream::{LastResortNotice, LevelNotice},
    transparency::{ConsistencyReply, InclusionReply, LedgerEvent, LedgerEventsReply},
    waiting_list::{AwaitReply, AwaitRequest, AwaitStatus, AwaitedDevice},
    webhook::{WebhookBatch, WebhookEvent, WebhookKind},
};

/// The start of the path of each route, with the version of the API.
pub const API_PREFIX: &str = "/v1";

/// The header of each answer with the server's time, in Unix milliseconds.
pub const TIME_HEADER: &str = "keypool-time";

/// The header of each answer of a server in a cluster: the position of the last record that the answer may rest on.
pub const POSITION_HEADER: &str = "keypool-position";

/// The header of a request with the position that another server of the cluster has told: the answer rests on all
/// records until there.
pub const AFTER_HEADER: &str = "keypool-after";

/// The header with the id of a request, which follows it through all logs.
pub const REQUEST_ID_HEADER: &str = "x-request-id";

/// Bytes that travel as base64 with padding (RFC 4648 section 4).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String))]
pub struct Base64(pub Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = BASE64.decode(text.as_bytes());
        bytes.map(Self).map_err(|_| de::Error::custom("expected base64 with padding"))
    }
}

/// `POST /keypackages/upload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UploadRequest {
    /// The packages: each a `KeyPackage`, or an `MLSMessage` that holds one.
    pub keypackages: Vec<Base64>,
}

/// The answer to `POST /keypackages/upload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UploadReply {
    /// How many packages of this request are in the pool because of it.
    pub accepted: u64,
    /// The outcome of each package, in the order of the request.
    pub items: Vec<UploadItem>,
    /// The pool afterwards.
    pub pool: PoolCounts,
    /// The place of the last of these packages in the log.
    pub position: u64,
}

/// The result of one uploaded package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UploadItem {
    /// Its reference, if the bytes are a package at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub keypackage_ref: Option<KeyPackageRef>,
    /// The outcome.
    pub outcome: Outcome,
    /// The error code of a rejected one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// The admission check that a rejected one failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// Why, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The outcome of an uploaded package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Outcome {
    /// Stored in the pool.
    Stored,
    /// It was in the pool before, and is available.
    Duplicate,
    /// It was in the pool before, and is reserved.
    Reserved,
    /// It was in the pool before, and is spent.
    Spent,
    /// It was in the pool before, and has expired.
    Expired,
    /// It was in the pool before, and was revoked.
    Revoked,
    /// Refused, and not in the pool.
    Rejected,
}

/// How many single-use packages of a pool stand where; `last_resort` counts the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoolCounts {
    /// Can be handed out now: `fresh + requeued`.
    pub available: u64,
    /// Of these, never handed out before.
    pub fresh: u64,
    /// Of these, handed out before and come back.
    pub requeued: u64,
    /// Set aside for an inviter.
    pub reserved: u64,
    /// Used by an invitation.
    pub spent: u64,
    /// Past their lifetime, or too near its end to be handed out.
    pub expired: u64,
    /// Withdrawn.
    pub revoked: u64,
    /// Ever uploaded: the sum of available, reserved, spent, expired and revoked.
    pub total: u64,
    /// Live last-resort packages.
    pub last_resort: u64,
    /// The live packages by ciphersuite, in the order of its number.
    #[serde(default)]
    pub suites: Vec<SuiteCounts>,
}

impl From<&Health> for PoolCounts {
    fn from(health: &Health) -> Self {
        Self {
            available: health.available,
            fresh: health.fresh,
            requeued: health.requeued,
            reserved: health.reserved,
            spent: health.spent,
            expired: health.expired,
            revoked: health.revoked,
            total: health.total,
            last_resort: health.last_resort,
            suites: health.suites.clone(),
        }
    }
}

/// `POST /keypackages/renew` and `POST /keypackages/release`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClaimRequest {
    /// The package.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub keypackage_ref: KeyPackageRef,
    /// The claim on it.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Uuid))]
    pub reservation_id: ReservationId,
}

/// The answer to `POST /keypackages/renew`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RenewReply {
    /// When the claim ends now, in Unix seconds.
    pub reservation_expires_at: u64,
}

/// The answer to `POST /keypackages/release`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReleaseReply {
    /// Always true: the package is no longer held by this claim.
    pub released: bool,
}

/// `POST /keypackages/spend`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SpendRequest {
    /// The package.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub keypackage_ref: KeyPackageRef,
    /// The claim on it.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Uuid))]
    pub reservation_id: ReservationId,
    /// The group it was used for: the one it was reserved for.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub group_id: GroupId,
    /// The user who spends the package. May be left out; anyone but the caller is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added_by: Option<String>,
}

/// The answer to `POST /keypackages/spend`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SpendReply {
    /// Always true: the package is used up.
    pub spent: bool,
    /// Whether the claim had lapsed, or the package expired, before it was spent.
    pub late: bool,
    /// Whether the same claim had spent it before.
    pub replayed: bool,
}

/// `POST /keypackages/revoke`: exactly one of the three ways to say which.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RevokeRequest {
    /// These packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<String>>))]
    pub keypackage_refs: Option<Vec<KeyPackageRef>>,
    /// All live packages of one credential, by its digest as the history shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub credential_hash: Option<Hash>,
    /// All live packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
    /// Why: `rotated` or `withdrawn`.
    pub reason: RevokeWord,
}

/// Why an owner withdraws packages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum RevokeWord {
    /// The device has another credential now.
    Rotated,
    /// The owner does not want them used.
    #[default]
    Withdrawn,
}

/// The answer to `POST /keypackages/revoke`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RevokeReply {
    /// The packages that are revoked, by this request or before. Spent and expired ones are not.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub revoked: Vec<KeyPackageRef>,
    /// The pool afterwards.
    pub pool: PoolCounts,
    /// The place of the last revocation in the log.
    pub position: u64,
}

/// The answer to `GET /keypackages/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoolStatus {
    /// The user.
    pub user: String,
    /// The device.
    pub device: String,
    /// How many packages stand where.
    #[serde(flatten)]
    pub counts: PoolCounts,
    /// Available packages with less than two days of life left.
    pub expiring_soon: u64,
    /// When packages were last uploaded, in Unix seconds.
    pub last_upload: Option<u64>,
    /// `healthy`, `low` (8 or fewer available), `critical` (2 or fewer) or `empty`.
    pub pool_health: String,
    /// How many packages to upload now to reach the target; 0 while there are enough.
    pub recommended_upload: u64,
    /// The recommended action, as a sentence.
    pub recommended_action: String,
    /// Packages spent in the last 24 hours.
    pub spent_24h: u64,
    /// How long the available packages last at that pace, in seconds.
    pub seconds_to_empty: Option<u64>,
    /// The version of the pool's history.
    pub version: u64,
    /// The place of the pool's last event in the log.
    pub position: u64,
    /// The chain hash of the pool's last event.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub head: Hash,
    /// The digest of the live packages: two sides with the same digest agree.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub digest: Hash,
    /// The head of the user's device list: it changes with every change of a key of the user.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub device_list_head: Hash,
    /// When another copy of the device's home has last refreshed, in Unix milliseconds, if that was noticed within
    /// the last hour.
    #[serde(default)]
    pub other_copy_at_ms: Option<u64>,
}

/// The answer to `GET /keypackages/events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventsReply {
    /// The events, in order.
    pub events: Vec<EventView>,
    /// Whether more follow: ask again after the last version.
    pub more: bool,
}

/// One event of a pool's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventView {
    /// Its place in the log.
    pub position: u64,
    /// Its place in the pool's history, from 1.
    pub version: u64,
    /// When it was recorded, in Unix milliseconds.
    pub at_ms: u64,
    /// The request that caused it.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Uuid))]
    pub command: CommandId,
    /// The event.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub event: Event,
    /// The stored bytes of the envelope: each one's `prev` is the BLAKE3 of the one before.
    pub envelope: Base64,
}

impl From<&Record> for EventView {
    fn from(record: &Record) -> Self {
        Self {
            position: record.seq,
            version: record.envelope.version,
            at_ms: record.envelope.at.as_millis(),
            command: record.envelope.command,
            event: record.envelope.event.clone(),
            envelope: Base64(record.envelope_bytes.clone()),
        }
    }
}

/// An error as the caller sees it: `application/problem+json` (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// A URI that names the kind of problem: `urn:keypool:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The meaning of the code, in a few words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The fault of this request, with the package or pool it concerns.
    pub detail: String,
    /// The stable code.
    pub code: Code,
    /// The next step.
    pub hint: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// The package it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub keypackage_ref: Option<KeyPackageRef>,
    /// The index of the item of the request that it is about, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// The admission check that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// The capability that no package has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requirement: Option<Requirement>,
    /// When to try again, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
    /// The time of the server's clock, in Unix seconds, where the caller's does not fit it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_time: Option<u64>,
    /// The id of the request, as in `X-Request-Id`: by it the operator finds the request in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The outcome of each package of an upload of which none was acceptable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<UploadItem>,
}
