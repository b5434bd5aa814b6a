//! The owner's audit: the server's statements to this device, compared with each other and with
//! the device's own records.
//!
//! It needs nobody's goodwill: everything here follows from the mirror of the server's history, the
//! device's own history, and the checkpoints the server has published. The rules that make the findings
//! are pure.

mod histories;
mod ledger;
#[cfg(test)]
mod tests;

use std::fmt;

use keypool_ledger::{GroupId, Hash, KeyPackageRef, PoolId, ReservationId, Timestamp};
use serde::{Deserialize, Serialize};

pub use self::ledger::{Evidence, EvidenceKind};
pub(crate) use self::{
    histories::{Fetched, Histories},
    ledger::{KnownLedger, Verdict},
};
use crate::{LeafContradiction, PeerDoubt};

/// How long a package may be spent without its Welcome having been joined, in hours of the server's
/// time: invitations may be on their way, and the device may have to come online for them first.
pub(crate) const WELCOME_GRACE_H: u64 = 24;
/// How long a checkpoint may be unproved to continue the one before, in hours.
pub(crate) const PROOF_GRACE_H: u64 = 24;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing; nobody did anything wrong.
    Notice,
    /// A rule is broken by the server or by an inviter.
    Broken,
    /// The server has told two histories.
    Equivocation,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Notice => "notice",
            Self::Broken => "broken",
            Self::Equivocation => "equivocation",
        })
    }
}

/// A refusal of the server's history, as it was kept when it happened first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    /// The position of the first event that does not fit, from 1.
    pub(crate) version: u64,
    /// The contradiction.
    pub(crate) why: String,
    /// How far the history was known.
    pub(crate) known: u64,
    /// When it was refused.
    pub(crate) at: Timestamp,
    /// The record that was refused, as it was told; none if it was not there.
    pub(crate) record: Option<Vec<u8>>,
}

/// Something that should not be, as the owner of the packages sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum AuditFinding {
    /// The server's history did not continue its mirror.
    HistoryRefused {
        /// The position of the first event that did not fit, from 1.
        version: u64,
        /// The contradiction.
        why: String,
        /// When.
        at: Timestamp,
        /// Whether the server had told that position before: then it has told two histories.
        told_before: bool,
    },
    /// The server recorded a package as spent, and no Welcome for it was ever joined.
    SpentWithoutWelcome {
        /// The package.
        keypackage_ref: KeyPackageRef,
        /// The device that is said to have used it.
        holder: Option<PoolId>,
        /// The group it is said to have been used for.
        group: GroupId,
        /// When, by the server.
        at: Timestamp,
    },
    /// A Welcome was joined, and the server's history has no reservation of its package.
    WelcomeWithoutReservation {
        /// The package.
        keypackage_ref: KeyPackageRef,
        /// The group that was joined.
        group: GroupId,
    },
    /// A package was handed to a second inviter while the first held it, or after it was spent.
    HandedOutTwice {
        /// The package.
        keypackage_ref: KeyPackageRef,
        /// The holder.
        first: PoolId,
        /// The other holder.
        second: PoolId,
        /// When, by the server.
        at: Timestamp,
    },
    /// A reservation was ended as lapsed before its time was over.
    LapsedEarly {
        /// The package.
        keypackage_ref: KeyPackageRef,
        /// The reservation.
        reservation: ReservationId,
        /// Whose it was.
        holder: PoolId,
        /// When it was ended, by the server.
        at: Timestamp,
    },
    /// The Welcome was somebody else's than the server named.
    OtherInviter {
        /// The package.
        keypackage_ref: KeyPackageRef,
        /// The holder that the server names.
        named: PoolId,
        /// The sender of the Welcome.
        inviter: PoolId,
    },
    /// A late spend was refused, since the package had been handed on.
    Conflict {
        /// The package.
        keypackage_ref: KeyPackageRef,
        /// The reservation that came too late.
        lost: ReservationId,
        /// The one that held the package.
        holds: ReservationId,
        /// When, by the server.
        at: Timestamp,
    },
    /// An inviter has reported a package as unusable, and it is withdrawn.
    Reported {
        /// The package.
        keypackage_ref: KeyPackageRef,
        /// The holder; `None` if the history does not name one.
        holder: Option<PoolId>,
        /// The check it failed, if the inviter has said so.
        check: Option<String>,
        /// When, by the server.
        at: Timestamp,
    },
    /// The server's ledger goes by another name than it did.
    LedgerRenamed {
        /// The name that was trusted.
        was: String,
        /// The name it goes by.
        is: String,
        /// When that was seen first.
        at: Timestamp,
    },
    /// The server's ledger is signed with another key than it was.
    LedgerKeyChanged {
        /// The key that was trusted, or how its signatures begin.
        was: String,
        /// How the signatures begin now.
        is: String,
        /// When that was seen first.
        at: Timestamp,
    },
    /// A checkpoint in the name of the ledger is not signed by its key.
    CheckpointForged {
        /// How many records it claims.
        size: u64,
        /// When that was seen first.
        at: Timestamp,
    },
    /// Two checkpoints of the ledger contradict each other. Both are kept as evidence.
    CheckpointsContradict {
        /// How they do.
        kind: EvidenceKind,
        /// How many records the first has.
        old: u64,
        /// How many the second has.
        new: u64,
        /// Whether both were checked against the ledger's key.
        checked: bool,
        /// When that was seen.
        at: Timestamp,
    },
    /// For a long time the server has not shown that its log continues the checkpoint that is kept.
    GrowthNotShown {
        /// How many records the kept checkpoint has.
        size: u64,
        /// Since when.
        since: Timestamp,
    },
    /// An invitation was refused, because its inviter's key is not the user's whose name it carried.
    InvitationRefused {
        /// The name that the inviter gave.
        inviter: String,
        /// How its leaf contradicted the directory.
        why: LeafContradiction,
        /// When.
        at: Timestamp,
    },
    /// The keys that the server names for a user do not follow from those that were seen before.
    KeysChanged {
        /// The user.
        user: String,
        /// Why they do not.
        why: PeerDoubt,
        /// When that was seen.
        at: Timestamp,
    },
    /// A device of this user was registered, and no device or recovery key of the user has introduced it.
    DeviceNotIntroduced {
        /// The device.
        device: String,
        /// Since when it is registered, by the server.
        since: Timestamp,
    },
    /// This home is an older copy of itself, and nothing is sent to a group any more.
    HomeSetBack {
        /// The group.
        group: GroupId,
        /// When that was found.
        since: Timestamp,
    },
}

impl AuditFinding {
    /// How grave it is.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        match self {
            Self::Conflict { .. } | Self::Reported { .. } | Self::HomeSetBack { .. } => {
                Severity::Notice
            }
            Self::HistoryRefused { told_before: true, .. } | Self::CheckpointsContradict { .. } => {
                Severity::Equivocation
            }
            Self::HistoryRefused { told_before: false, .. }
            | Self::SpentWithoutWelcome { .. }
            | Self::WelcomeWithoutReservation { .. }
            | Self::HandedOutTwice { .. }
            | Self::LapsedEarly { .. }
            | Self::OtherInviter { .. }
            | Self::LedgerRenamed { .. }
            | Self::LedgerKeyChanged { .. }
            | Self::CheckpointForged { .. }
            | Self::GrowthNotShown { .. }
            | Self::InvitationRefused { .. }
            | Self::KeysChanged { .. }
            | Self::DeviceNotIntroduced { .. } => Severity::Broken,
        }
    }

    /// The advice for it, as a sentence.
    #[must_use]
    pub const fn advice(&self) -> &'static str {
        match self {
            Self::HistoryRefused { .. } => {
                "Ask who runs the server whether its log was restored or replaced; keep this home, it \
                 holds both versions."
            }
            Self::SpentWithoutWelcome { .. } => {
                "Open your app, so that it takes in what waits; if nothing comes, ask the inviter \
                 whether the invitation was sent."
            }
            Self::WelcomeWithoutReservation { .. } => {
                "Ask the inviter where the package came from: it was given out behind the history's \
                 back."
            }
            Self::HandedOutTwice { .. } | Self::LapsedEarly { .. } => {
                "Ask both inviters for their receipts, and give them to who runs the server."
            }
            Self::OtherInviter { .. } => {
                "Look at who is in the group before you say anything there, and ask both of them."
            }
            Self::Conflict { .. } => {
                "The inviter was told, and invites again; nothing is to be done."
            }
            Self::Reported { .. } => {
                "It is withdrawn, and the next refresh replaces it; if it happens again, look at what \
                 makes the packages, or ask the inviter."
            }
            Self::LedgerRenamed { .. } | Self::LedgerKeyChanged { .. } => {
                "Ask who runs the server for the ledger's key, by another way than this server, and \
                 say it with --ledger-key."
            }
            Self::CheckpointForged { .. } => {
                "Somebody between you and the server may have answered: look at --server, and use \
                 https."
            }
            Self::CheckpointsContradict { .. } => {
                "Do not trust this server any more; save the evidence with --evidence, and show it to \
                 others who use it."
            }
            Self::InvitationRefused { .. } => {
                "Tell the person whose name it carried: somebody uses that name with a key of their own."
            }
            Self::KeysChanged { .. } => {
                "Compare the safety number with that person, by another way than this server, before you \
                 accept the new keys."
            }
            Self::HomeSetBack { .. } => {
                "Leave the group, and have this device removed from it and invited again."
            }
            Self::DeviceNotIntroduced { .. } => {
                "If it is not yours, remove it with `keypool remove-device`, and ask who runs the server how \
                 it came to be registered."
            }
            Self::GrowthNotShown { .. } => {
                "Ask who runs the server why its log cannot be proved to have only grown."
            }
        }
    }
}

impl fmt::Display for AuditFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SpentWithoutWelcome { .. }
            | Self::WelcomeWithoutReservation { .. }
            | Self::HandedOutTwice { .. }
            | Self::LapsedEarly { .. }
            | Self::OtherInviter { .. }
            | Self::Conflict { .. }
            | Self::Reported { .. } => self.fmt_of_package(f)?,
            Self::HistoryRefused { .. }
            | Self::LedgerRenamed { .. }
            | Self::LedgerKeyChanged { .. }
            | Self::CheckpointForged { .. }
            | Self::CheckpointsContradict { .. }
            | Self::GrowthNotShown { .. } => self.fmt_of_server(f)?,
            Self::InvitationRefused { .. }
            | Self::KeysChanged { .. }
            | Self::DeviceNotIntroduced { .. }
            | Self::HomeSetBack { .. } => self.fmt_of_identity(f)?,
        }
        write!(f, " {}", self.advice())
    }
}

impl AuditFinding {
    fn fmt_of_package(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SpentWithoutWelcome { keypackage_ref, holder, .. } => {
                let (package, by) = (keypackage_ref.short(), by(holder.as_ref()));
                write!(f, "Package {package} was spent{by}, and no Welcome for it was joined.")
            }
            Self::WelcomeWithoutReservation { keypackage_ref, .. } => write!(
                f,
                "A Welcome for package {} was joined, and by the server's history nobody was ever \
                 given it.",
                keypackage_ref.short()
            ),
            Self::HandedOutTwice { keypackage_ref, first, second, .. } => write!(
                f,
                "Package {} was given to {second} while it was still {first}'s.",
                keypackage_ref.short()
            ),
            Self::LapsedEarly { keypackage_ref, holder, .. } => write!(
                f,
                "The reservation of package {} by {holder} was ended before its time was over.",
                keypackage_ref.short()
            ),
            Self::OtherInviter { keypackage_ref, named, inviter } => write!(
                f,
                "Package {} was {named}'s by the server's history, and the Welcome came from \
                 {inviter}.",
                keypackage_ref.short()
            ),
            Self::Conflict { keypackage_ref, .. } => write!(
                f,
                "A late spend of package {} was refused, since it had been handed on.",
                keypackage_ref.short()
            ),
            Self::Reported { keypackage_ref, holder, check, .. } => {
                let (package, by) = (keypackage_ref.short(), by(holder.as_ref()));
                let check = check.as_ref().map(|check| format!(": it failed the check {check}"));
                let why = check.unwrap_or_default();
                write!(f, "Package {package} was reported as unusable{by}{why}.")
            }
            _ => Ok(()),
        }
    }

    fn fmt_of_identity(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvitationRefused { inviter, why, .. } => {
                write!(f, "An invitation in the name of {inviter} was refused: {why}.")
            }
            Self::KeysChanged { user, why, .. } => {
                write!(f, "The keys of {user} are not those seen before: {why}.")
            }
            Self::HomeSetBack { group, .. } => write!(
                f,
                "This home is an older copy of itself; nothing is sent to group {group} any more."
            ),
            Self::DeviceNotIntroduced { device, .. } => {
                write!(
                    f,
                    "The device {device} is registered for you, and none of yours introduced it."
                )
            }
            _ => Ok(()),
        }
    }

    fn fmt_of_server(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HistoryRefused { version, why, told_before: true, .. } => write!(
                f,
                "Event {version} of the server's history is not what it has told before: {why}."
            ),
            Self::HistoryRefused { version, why, told_before: false, .. } => {
                write!(f, "Event {version} of the server's history breaks its rules: {why}.")
            }
            Self::LedgerRenamed { was, is, .. } => {
                write!(f, "The server's ledger is named {is:?} now; it was {was:?}.")
            }
            Self::LedgerKeyChanged { was, is, .. } => {
                write!(f, "The server's ledger is signed by {is} now; it was {was}.")
            }
            Self::CheckpointForged { size, .. } => write!(
                f,
                "A checkpoint of {size} records in the ledger's name is not signed by its key."
            ),
            Self::CheckpointsContradict { kind, old, new, checked, .. } => {
                let signed = if *checked { ", both signed by its key" } else { "" };
                write!(f, "The server has told two histories{signed}: ")?;
                kind.write(f, *old, *new)
            }
            Self::GrowthNotShown { size, .. } => write!(
                f,
                "For over a day the server has not shown that its log continues the {size} records \
                 that were seen of it."
            ),
            _ => Ok(()),
        }
    }
}

fn by(holder: Option<&PoolId>) -> String {
    holder.map(|holder| format!(" by {holder}")).unwrap_or_default()
}

/// The checkpoint that the device holds the server to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeptCheckpoint {
    /// The ledger's name.
    pub origin: String,
    /// How many records it has.
    pub size: u64,
    /// The hash over them, in base64.
    pub root: String,
    /// The key that was trusted, `NAME+HASH+BASE64`; none if the server does not say it and nobody has
    /// set it: then the signatures are not checked.
    pub key: Option<String>,
}

/// The scope and the findings of the owner's audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerAudit {
    /// How many events of the server's history there are.
    pub events: u64,
    /// The hash of the last of them, which all before it are chained into.
    pub head: Hash,
    /// How many Welcomes were joined.
    pub joined: u64,
    /// The newest checkpoint that was seen to continue the ones before; none if the server publishes
    /// none.
    pub checkpoint: Option<KeptCheckpoint>,
    /// The findings, the most severe first.
    pub findings: Vec<AuditFinding>,
    /// The pairs of checkpoints that contradict each other.
    pub evidence: Vec<Evidence>,
}

impl OwnerAudit {
    /// The severity of the most severe finding; `None` if there is none.
    #[must_use]
    pub fn severity(&self) -> Option<Severity> {
        self.findings.iter().map(AuditFinding::severity).max()
    }

    /// Whether nothing is wrong; there may be notices.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.severity().is_none_or(|gravity| gravity == Severity::Notice)
    }
}
