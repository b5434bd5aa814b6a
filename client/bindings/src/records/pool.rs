//! The pool: its upkeep, its status, reservations, the audit.

use keypool_client::{
    AuditFinding, ClockOffset, Drift, Hash, KeyPackageRef, OtherCopy, OwnerAudit, PoolStatus,
    Refresh, RegisterReply, RemoveReply, ReservationId, Severity, SignatureKey, SuiteCounts,
    wire::{Base64, PoolCounts, RenewReply, ReserveReply, SpendReply},
};

use super::count;

/// The result of a refresh.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
#[uniffi(name = "Refresh")]
pub struct RefreshReport {
    /// Whether nothing was asked, because the last one is less than a minute ago and the pool is well.
    pub skipped: bool,
    /// How many events of the server's history were new.
    pub events: u64,
    /// How many packages have expired, their keys deleted.
    pub expired: u64,
    /// How many packages were uploaded that were made before.
    pub reuploaded: u64,
    /// How many packages were made and uploaded.
    pub created: u64,
    /// How many packages of last resort were uploaded.
    pub last_resort_uploaded: u64,
    /// How many packages of last resort were used since the last refresh. They are withdrawn.
    pub last_resort_used: u64,
    /// Packages the server would not take, with the check each failed.
    pub rejected: Vec<String>,
    /// How many can be handed out now; if nothing was asked, by the server's last statement.
    pub available: u64,
    /// The differences between the device and the server that were mended, if there were any. Tell your user.
    pub drift: Option<DriftReport>,
    /// The devices of this user that no device or recovery key of the user has introduced. Tell your user.
    pub unintroduced_devices: Vec<String>,
    /// How far the device's clock is off the server's, if it is by more than a minute. It is told once.
    pub clock: Option<ClockOffset>,
}

impl From<Refresh> for RefreshReport {
    fn from(refresh: Refresh) -> Self {
        Self {
            skipped: refresh.skipped,
            events: count(refresh.events),
            expired: count(refresh.expired),
            reuploaded: count(refresh.reuploaded),
            created: count(refresh.created),
            last_resort_uploaded: count(refresh.last_resort_uploaded),
            last_resort_used: count(refresh.last_resort_used),
            rejected: refresh.rejected,
            available: refresh.available,
            drift: (!refresh.drift.is_none()).then(|| refresh.drift.into()),
            unintroduced_devices: refresh.unintroduced_devices,
            clock: refresh.clock,
        }
    }
}

/// The differences between the device and the server that a refresh has mended.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
#[uniffi(name = "Drift")]
pub struct DriftReport {
    /// All of it, as a sentence for a person.
    pub text: String,
    /// This home was set back to an older copy of itself.
    pub home_set_back: bool,
    /// Another copy of this home that uses the pool as well.
    pub other_copy: Option<OtherCopy>,
    /// The server was set back to an older copy of its log, or tells another history than before.
    pub server_set_back: bool,
    /// How many packages were withdrawn from the server because nobody here answers for them.
    pub withdrawn: u64,
    /// How many of the device's own packages are not offered again.
    pub retired: u64,
}

impl From<Drift> for DriftReport {
    fn from(drift: Drift) -> Self {
        Self {
            text: drift.to_string(),
            home_set_back: drift.home_set_back,
            other_copy: drift.other_copy,
            server_set_back: drift.server_set_back,
            withdrawn: count(drift.withdrawn),
            retired: count(drift.retired),
        }
    }
}

/// How another copy of this home uses the pool.
#[uniffi::remote(Enum)]
pub enum OtherCopy {
    /// It has used the pool within the last hour, and may be running.
    Running,
    /// It has withdrawn packages of this home, which makes no more before `adopt`.
    TookOver,
}

/// How far the device's clock is off.
#[uniffi::remote(Record)]
pub struct ClockOffset {
    /// By how many seconds the device's clock is ahead of the server's; negative if it is behind.
    pub device_ahead_s: i64,
    /// Whether this device goes by the server's time. If not, the device's clock has to be set.
    pub corrected: bool,
}

/// How full the pool is, as the server says.
#[uniffi::remote(Record)]
pub struct PoolStatus {
    /// The user.
    pub user: String,
    /// The device.
    pub device: String,
    /// How many packages stand where.
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
    pub head: Hash,
    /// The digest of the live packages: two sides with the same digest agree.
    pub digest: Hash,
    /// The head of the user's device list: it changes with every change of a key of the user.
    pub device_list_head: Hash,
    /// When another copy of the device's home has last refreshed, in Unix milliseconds.
    pub other_copy_at_ms: Option<u64>,
}

/// How many packages of a pool stand where.
#[uniffi::remote(Record)]
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
    /// Ever uploaded.
    pub total: u64,
    /// Live last-resort packages.
    pub last_resort: u64,
    /// The live packages by ciphersuite, in the order of its number.
    pub suites: Vec<SuiteCounts>,
}

/// The live packages of one ciphersuite.
#[uniffi::remote(Record)]
pub struct SuiteCounts {
    /// The number of the ciphersuite.
    pub ciphersuite: u16,
    /// Single-use packages that can be handed out now.
    pub available: u64,
    /// Single-use packages set aside for an inviter.
    pub reserved: u64,
    /// Live last-resort packages: one, or none.
    pub last_resort: u64,
}

/// The answer to a registration.
#[uniffi::remote(Record)]
pub struct RegisterReply {
    /// The user.
    pub user: String,
    /// The device.
    pub device: String,
    /// The key that signs for it.
    pub keyid: SignatureKey,
    /// The place of the registration in the log.
    pub position: u64,
}

/// The answer to the removal of a device.
#[uniffi::remote(Record)]
pub struct RemoveReply {
    /// The user.
    pub user: String,
    /// The device.
    pub device: String,
    /// Always true.
    pub removed: bool,
    /// The user's registered devices that this one has vouched for: remove them as well if the device was stolen.
    pub introduced: Vec<String>,
    /// The place of the last thing that was recorded of it in the log.
    pub position: u64,
}

/// A package that is reserved for an invitation.
#[uniffi::remote(Record)]
pub struct ReserveReply {
    /// The package's reference.
    pub keypackage_ref: KeyPackageRef,
    /// The exact bytes its owner uploaded.
    pub keypackage: Base64,
    /// The claim on it.
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

/// A reservation that was renewed.
#[uniffi::remote(Record)]
pub struct RenewReply {
    /// When the claim ends now, in Unix seconds.
    pub reservation_expires_at: u64,
}

/// A package that was spent.
#[uniffi::remote(Record)]
pub struct SpendReply {
    /// Always true: the package is used up.
    pub spent: bool,
    /// Whether the claim had lapsed, or the package expired, before it was spent.
    pub late: bool,
    /// Whether the same claim had spent it before.
    pub replayed: bool,
}

/// The scope and the findings of the owner's audit.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
#[uniffi(name = "OwnerAudit")]
pub struct AuditReport {
    /// Whether nothing is wrong; there may be notices.
    pub is_sound: bool,
    /// How many events of the server's history there are.
    pub events: u64,
    /// The hash of the last of them, which all before it are chained into.
    pub head: Hash,
    /// How many Welcomes were joined.
    pub joined: u64,
    /// The findings, the most severe first.
    pub findings: Vec<FindingReport>,
}

impl From<OwnerAudit> for AuditReport {
    fn from(audit: OwnerAudit) -> Self {
        Self {
            is_sound: audit.is_sound(),
            events: audit.events,
            head: audit.head,
            joined: audit.joined,
            findings: audit.findings.iter().map(FindingReport::from).collect(),
        }
    }
}

/// Something that should not be, as the owner of the packages sees it.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
#[uniffi(name = "AuditFinding")]
pub struct FindingReport {
    /// How grave it is.
    pub severity: Severity,
    /// The fact, as a sentence.
    pub text: String,
    /// The next step, as a sentence.
    pub advice: String,
}

impl From<&AuditFinding> for FindingReport {
    fn from(finding: &AuditFinding) -> Self {
        let (severity, text) = (finding.severity(), finding.to_string());
        Self { severity, text, advice: finding.advice().to_owned() }
    }
}

/// The severity of a finding.
#[uniffi::remote(Enum)]
pub enum Severity {
    /// Worth knowing; nobody did anything wrong.
    Notice,
    /// A rule is broken by the server or by an inviter.
    Broken,
    /// The server has told two histories.
    Equivocation,
}
