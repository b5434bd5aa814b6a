//! The life of a package on one screen: which event may follow which.

use keypool_ledger::{Event, KeyPackageRef};
use serde::{Deserialize, Serialize};

/// The stage of a package's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Made by its owner and not yet known to be at the server.
    Created,
    /// In the pool, held by nobody.
    Available,
    /// Set aside for one inviter.
    Reserved,
    /// Used by an invitation.
    Spent,
    /// Past its lifetime.
    Expired,
    /// Withdrawn.
    Revoked,
}

/// An event that cannot happen to a package at its stage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("package {} at stage {stage:?} cannot become {event}", keypackage_ref.short())]
pub struct IllegalChange {
    /// The package.
    pub keypackage_ref: KeyPackageRef,
    /// The stage it is at; `None` if it was never seen.
    pub stage: Option<Stage>,
    /// The name of the event that does not fit.
    pub event: &'static str,
}

/// The stage that follows `stage` under `event`, or `None` if the event is illegal there.
///
/// `Spent` has no successor but itself under `Conflict`: this makes double spending of a single-use
/// package unrepresentable. A package that expired or was revoked while it was reserved
/// may still be spent by that reservation, because its Commit may have been posted in time; which
/// reservation may is the business of `decide`.
#[must_use]
pub fn next(stage: Option<Stage>, event: &Event, last_resort: bool) -> Option<Stage> {
    use Stage::{Available, Created, Expired, Reserved, Revoked, Spent};
    match (stage, event) {
        (None, Event::Created(_)) => Some(Created),
        (None | Some(Created), Event::Uploaded(_)) => Some(Available),
        // A last-resort package is never used up: it stays available whatever is done with it.
        (
            Some(Available),
            Event::Reserved { .. }
            | Event::Renewed { .. }
            | Event::Released { .. }
            | Event::Spent { .. },
        ) if last_resort => Some(Available),
        (Some(Created), Event::Spent { .. }) if last_resort => Some(Available),
        (Some(stage @ (Expired | Revoked)), Event::Spent { .. }) if last_resort => Some(stage),
        (Some(Available), Event::Reserved { .. }) | (Some(Reserved), Event::Renewed { .. }) => {
            Some(Reserved)
        }
        (Some(Reserved), Event::Released { .. }) => Some(Available),
        (Some(stage @ (Expired | Revoked)), Event::Released { .. }) => Some(stage),
        (Some(Created | Available | Reserved | Expired | Revoked), Event::Spent { .. }) => {
            Some(Spent)
        }
        (Some(stage), Event::Reported { .. }) if stage != Created => Some(stage),
        (Some(Created | Available | Reserved), Event::Expired { .. }) => Some(Expired),
        (Some(Created | Available | Reserved), Event::Revoked { .. }) => Some(Revoked),
        (
            Some(stage @ (Available | Reserved | Spent | Expired | Revoked)),
            Event::Conflict { .. },
        ) => Some(stage),
        _ => None,
    }
}
