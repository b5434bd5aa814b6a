//! Suspended users: those whose requests the operator has the server refuse, and the rule of which commands that
//! concerns.
//!
//! An owner blocks a user for the own pool ([`Contacts`](crate::Contacts)); the operator blocks a user of the whole
//! server, and the log calls that a suspension. It is about the name, and so about every device that has it or will
//! have it.

use std::collections::BTreeMap;

use keypool_ledger::{Event, PoolId, RevokeReason, Timestamp};

use crate::command::{Command, Rejection, Remover};

/// The suspended users, as the server's own history has left them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suspensions(BTreeMap<String, Suspension>);

/// The suspension of one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspension {
    /// When the operator decided it.
    pub since: Timestamp,
    /// The position of that in the log.
    pub position: u64,
    /// Why, as the operator wrote it.
    pub reason: Option<String>,
}

/// The operator's word on a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SuspensionChange {
    /// Suspend the user.
    Suspend {
        /// The user.
        user: String,
        /// Why, for those who read the log.
        reason: Option<String>,
    },
    /// Let the user's devices be served again.
    Reinstate {
        /// The user.
        user: String,
    },
}

impl SuspensionChange {
    /// The user that it is about.
    #[must_use]
    pub fn user(&self) -> &str {
        match self {
            Self::Suspend { user, .. } | Self::Reinstate { user } => user,
        }
    }
}

impl Suspensions {
    /// Takes in an event of the server's own history, which stands at a position of the log.
    pub fn evolve(&mut self, position: u64, at: Timestamp, event: &Event) {
        match event {
            Event::UserSuspended { user, reason } => {
                let suspension = Suspension { since: at, position, reason: reason.clone() };
                self.0.insert(user.clone(), suspension);
            }
            Event::UserReinstated { user } => drop(self.0.remove(user)),
            _ => {}
        }
    }

    /// The suspension of a user; `None` for a user whose devices are served.
    #[must_use]
    pub fn of(&self, user: &str) -> Option<&Suspension> {
        self.0.get(user)
    }

    /// The suspended users, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Suspension)> {
        self.0.iter().map(|(user, suspension)| (user.as_str(), suspension))
    }

    /// Decides which event the operator's word leads to; `None` if it is so already.
    #[must_use]
    pub fn decide(&self, change: &SuspensionChange) -> Option<Event> {
        let user = change.user().to_owned();
        match (change, self.of(&user)) {
            (SuspensionChange::Suspend { reason, .. }, None) => {
                Some(Event::UserSuspended { user, reason: reason.clone() })
            }
            (SuspensionChange::Reinstate { .. }, Some(_)) => Some(Event::UserReinstated { user }),
            _ => None,
        }
    }

    /// Refuses the request of a suspended user's device.
    ///
    /// # Errors
    ///
    /// Returns [`Rejection::Suspended`] for a suspended user.
    pub fn check_caller(&self, user: &str) -> Result<(), Rejection> {
        self.of(user).map_or(Ok(()), |_| Err(Rejection::Suspended(user.to_owned())))
    }

    /// Refuses to hand out a package of a suspended user, or to add one of their devices to a group.
    ///
    /// # Errors
    ///
    /// Returns [`Rejection::InviteeSuspended`] for a suspended user.
    pub fn check_invitee(&self, user: &str) -> Result<(), Rejection> {
        self.of(user).map_or(Ok(()), |_| Err(Rejection::InviteeSuspended(user.to_owned())))
    }

    /// Refuses a command by which a suspended user would change something, or be invited. The course of time
    /// and the operator's word are carried out, and the reservations that the user's devices hold end as any others.
    ///
    /// # Errors
    ///
    /// Returns [`Rejection::Suspended`] if it is the user's own, and [`Rejection::InviteeSuspended`] if it is an
    /// inviter's.
    pub fn check(&self, pool: Option<&PoolId>, command: &Command) -> Result<(), Rejection> {
        match command {
            Command::Reserve { holder, .. } => {
                self.check_caller(holder.user())?;
                pool.map_or(Ok(()), |pool| self.check_invitee(pool.user()))
            }
            Command::Renew(claim)
            | Command::Release(claim)
            | Command::Report { claim, .. }
            | Command::Spend { claim, .. } => self.check_caller(claim.holder.user()),
            Command::Settle
            | Command::ReleaseName
            | Command::Revoke { reason: RevokeReason::Operator, .. }
            | Command::Remove { by: Remover::Operator } => Ok(()),
            Command::Register { .. }
            | Command::Rotate { .. }
            | Command::Admit { .. }
            | Command::Remove { by: Remover::Key(_) }
            | Command::DeclareLeafKey { .. }
            | Command::DeclareCredential { .. }
            | Command::SetRecoveryKey { .. }
            | Command::Recover { .. }
            | Command::Upload(_)
            | Command::Replace { .. }
            | Command::Revoke { .. }
            | Command::SetPolicy(_) => pool.map_or(Ok(()), |pool| self.check_caller(pool.user())),
        }
    }
}
