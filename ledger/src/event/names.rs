//! The names in an event: of users, and of their devices.

use std::{cell::RefCell, convert::Infallible};

use super::{Event, NAME_SALT_LEN};
use crate::{PoolId, SubjectId, ids::is_pseudonym};

/// Shows all names in an event, those of devices to one closure and those of users to another. The event and
/// the names are borrowed in the same way.
macro_rules! for_each_name {
    ($event:expr, $device:expr, $user:expr) => {
        match $event {
            Event::Reserved { holder, .. } => $device(holder)?,
            Event::Spent { holder, .. } => {
                if let Some(holder) = holder {
                    $device(holder)?;
                }
            }
            Event::Registered { credential, .. } | Event::KeyRotated { credential, .. } => {
                $user(credential)?;
            }
            Event::UserBlocked { user }
            | Event::UserUnblocked { user }
            | Event::ContactAdded { user, .. }
            | Event::ContactRemoved { user }
            | Event::UserSuspended { user, .. }
            | Event::UserReinstated { user } => $user(user)?,
            Event::GroupMade { creator: device } | Event::Left { device, .. } => $device(device)?,
            Event::Committed { committer, added, removed, not_kept, .. } => {
                $device(committer)?;
                for device in added.into_iter().chain(removed).chain(not_kept) {
                    $device(device)?;
                }
            }
            Event::Welcomed { to, by } => {
                for device in to.into_iter().chain(by) {
                    $device(device)?;
                }
            }
            Event::InvitationAnswered { device, inviter, .. } => {
                $device(device)?;
                $device(inviter)?;
            }
            Event::Posted { sender, not_kept } => {
                $device(sender)?;
                for device in not_kept {
                    $device(device)?;
                }
            }
            Event::Acknowledged { available: devices, .. }
            | Event::AwaitStopped { targets: devices } => {
                for device in devices {
                    $device(device)?;
                }
            }
            Event::Awaited { targets, as_stranger, .. } => {
                for device in targets.into_iter().chain(as_stranger) {
                    $device(device)?;
                }
            }
            Event::Overrun { sender, .. } => {
                if let Some(sender) = sender {
                    $device(sender)?;
                }
            }
            Event::Created(_)
            | Event::Uploaded(_)
            | Event::Renewed { .. }
            | Event::Released { .. }
            | Event::Expired { .. }
            | Event::Revoked { .. }
            | Event::Conflict { .. }
            | Event::Reported { .. }
            | Event::DeviceRemoved { .. }
            | Event::NameReleased {}
            | Event::LeafKeyPinned { .. }
            | Event::CredentialDeclared { .. }
            | Event::RecoveryKeySet { .. }
            | Event::PolicySet { .. }
            | Event::StrangersLimitSet { .. }
            | Event::Configured(_)
            | Event::ClockAccepted { .. }
            | Event::UserNamed {}
            | Event::DeviceNamed {}
            | Event::UserErased {} => {}
        }
    };
}

impl Event {
    /// Puts other names in the places of those in the event; the credential that a device has declared stays.
    ///
    /// # Errors
    ///
    /// Returns the first error of a closure. Some names are replaced then.
    pub(crate) fn map_names<E>(
        &mut self,
        mut device: impl FnMut(&mut PoolId) -> Result<(), E>,
        mut user: impl FnMut(&mut String) -> Result<(), E>,
    ) -> Result<(), E> {
        for_each_name!(self, device, user);
        Ok(())
    }

    /// The event with the names that another reading of it has in the places of pseudonyms; `None` if the other one
    /// is not the same event.
    #[must_use]
    pub fn with_names_of(&self, named: Self) -> Option<Self> {
        let (mut devices, mut users) = (Vec::new(), Vec::new());
        let mut hidden = self.clone();
        let collected: Result<(), Infallible> = hidden.map_names(
            |device| {
                devices.push(device.clone());
                Ok(())
            },
            |user| {
                users.push(user.clone());
                Ok(())
            },
        );
        let Ok(()) = collected;
        let (mut devices, mut users) = (devices.into_iter(), users.into_iter());
        let mut compared = named.clone();
        compared
            .map_names(
                |device| devices.next().map(|hidden| *device = hidden).ok_or(()),
                |user| users.next().map(|hidden| *user = hidden).ok_or(()),
            )
            .ok()?;
        if let Self::CredentialDeclared { credential, .. } = &mut compared
            && let Self::CredentialDeclared { credential: hidden, .. } = self
        {
            // It stands in the payload.
            *credential = hidden.clone();
        }
        (compared == *self).then_some(named)
    }

    /// Whether a user or a device stands under its pseudonym in the event.
    pub(crate) fn names_pseudonyms(&self) -> bool {
        let device = |device: &PoolId| if device.is_pseudonym() { Err(()) } else { Ok(()) };
        let user = |user: &String| if is_pseudonym(user) { Err(()) } else { Ok(()) };
        let looked = || -> Result<(), ()> {
            for_each_name!(self, device, user);
            Ok(())
        };
        looked().is_err()
    }

    /// The users whose pseudonyms stand in the event, or those of their devices; some more than once.
    #[must_use]
    pub fn subjects(&self) -> Vec<SubjectId> {
        let subjects = RefCell::new(Vec::new());
        let device = |device: &PoolId| -> Result<(), Infallible> {
            subjects.borrow_mut().extend(device.pseudonym().map(|(id, _)| id));
            Ok(())
        };
        let user = |user: &String| -> Result<(), Infallible> {
            subjects.borrow_mut().extend(user.parse::<SubjectId>());
            Ok(())
        };
        let looked = || -> Result<(), Infallible> {
            for_each_name!(self, device, user);
            Ok(())
        };
        let Ok(()) = looked();
        subjects.into_inner()
    }

    /// Whether the event names anybody.
    pub(crate) fn names_anybody(&self) -> bool {
        let looked = || -> Result<(), ()> {
            for_each_name!(self, |_: &PoolId| Err(()), |_: &String| Err(()));
            Ok(())
        };
        looked().is_err()
    }
}

/// Reads the name in a payload of `UserNamed` or `DeviceNamed`; `None` if it is gone.
pub(crate) fn name_in(payload: &[u8]) -> Option<&str> {
    payload.get(NAME_SALT_LEN..).and_then(|name| str::from_utf8(name).ok())
}
