//! The device's own packages: a fold of its own history.

use std::collections::BTreeMap;

use keypool_ledger::{Event, GroupId, KeyPackageRef, PackageFacts, RevokeReason, Timestamp};

/// The stage of one of the device's own packages, as far as the device knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnStage {
    /// Made, with its private half stored; the server has not been heard to have it.
    Created,
    /// The server has it.
    Uploaded,
    /// A Welcome for it was joined; the private half is gone.
    Spent {
        /// The group that was joined.
        group: GroupId,
    },
    /// Its lifetime ended; the private half is gone.
    Expired,
    /// Withdrawn; the private half is kept until its lifetime ends, for invitations on their way.
    Revoked {
        /// Why.
        reason: RevokeReason,
    },
}

impl OwnStage {
    /// Whether an inviter may still come to use it.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        match self {
            Self::Created | Self::Uploaded => true,
            Self::Spent { .. } | Self::Expired | Self::Revoked { .. } => false,
        }
    }

    /// Whether its private half should be in the store.
    #[must_use]
    pub const fn keeps_keys(&self) -> bool {
        match self {
            Self::Created | Self::Uploaded | Self::Revoked { .. } => true,
            Self::Spent { .. } | Self::Expired => false,
        }
    }

    /// The name of the event that leads to the stage.
    pub(crate) const fn event_name(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Uploaded => "uploaded",
            Self::Spent { .. } => "spent",
            Self::Expired => "expired",
            Self::Revoked { .. } => "revoked",
        }
    }

    /// The stage that an event leads to; `None` if it may not happen now.
    fn next(&self, event: &Event) -> Option<Self> {
        match (self, event) {
            (Self::Created, Event::Uploaded(_)) => Some(Self::Uploaded),
            (Self::Created | Self::Uploaded | Self::Revoked { .. }, Event::Spent { group, .. }) => {
                Some(Self::Spent { group: group.clone() })
            }
            (Self::Created | Self::Uploaded, Event::Expired { .. }) => Some(Self::Expired),
            (Self::Created | Self::Uploaded, Event::Revoked { reason, .. }) => {
                Some(Self::Revoked { reason: *reason })
            }
            _ => None,
        }
    }
}

/// One of the device's own packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnPackage {
    /// The facts read from its bytes.
    pub facts: PackageFacts,
    /// The stage of the package.
    pub stage: OwnStage,
}

impl OwnPackage {
    /// Whether its lifetime has ended.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.facts.not_after <= now
    }
}

/// An event that the package's history does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("by the device's own history, package {keypackage_ref} cannot be {event} now")]
pub struct ImpossibleEvent {
    /// The package.
    pub keypackage_ref: KeyPackageRef,
    /// The event's name.
    pub event: &'static str,
}

/// All packages this device ever made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OwnPackages {
    packages: BTreeMap<KeyPackageRef, OwnPackage>,
}

impl OwnPackages {
    /// One package, if this device made it.
    pub(crate) fn get(&self, keypackage_ref: &KeyPackageRef) -> Option<&OwnPackage> {
        self.packages.get(keypackage_ref)
    }

    /// All packages, in the order of their references.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &OwnPackage> {
        self.packages.values()
    }

    /// Takes in one event of the device's own history.
    ///
    /// # Errors
    ///
    /// Returns an [`ImpossibleEvent`], and has changed nothing, if the event contradicts the
    /// package's history: a spent or expired package stays so.
    pub(crate) fn evolve(&mut self, event: &Event) -> Result<(), ImpossibleEvent> {
        let Some(keypackage_ref) = event.keypackage_ref() else {
            return Ok(());
        };
        let refusal =
            || ImpossibleEvent { keypackage_ref: keypackage_ref.clone(), event: event.name() };
        match (self.packages.get_mut(keypackage_ref), event) {
            (None, Event::Created(facts)) => {
                let package = OwnPackage { facts: facts.clone(), stage: OwnStage::Created };
                self.packages.insert(keypackage_ref.clone(), package);
                Ok(())
            }
            (Some(package), Event::Spent { .. }) if package.facts.last_resort => Ok(()),
            (Some(package), event) => {
                package.stage = package.stage.next(event).ok_or_else(refusal)?;
                Ok(())
            }
            (None, _) => Err(refusal()),
        }
    }
}
