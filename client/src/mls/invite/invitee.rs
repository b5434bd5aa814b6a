//! Invitees, the devices that were added, and the reasons for skipping others.

use std::fmt;

use keypool_api::{Code, ReserveTarget};
use keypool_ledger::{GroupId, KeyPackageRef, NameError, PoolId};
use keypool_projections::Requirement;
use serde::{Deserialize, Serialize};

use crate::{PackageCheck, PeerDoubt, mls::contacts::ContactTokens};

/// An invitee: a user with all their devices, or one device.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Invitee {
    /// The user.
    pub user: String,
    /// Which of their devices; all of them if it is left out.
    pub device: Option<String>,
}

/// An invitation that has been carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Invited {
    /// The group.
    pub group: GroupId,
    /// The devices that were added.
    pub added: Vec<InvitedDevice>,
    /// The invitees who were not added, each with the reason.
    pub missing: Vec<SkippedInvitee>,
    /// How often packages were asked for: more than once if some were lost or could not be used.
    pub attempts: u32,
}

/// A device that was added to a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitedDevice {
    /// The device.
    pub device: PoolId,
    /// The package that was used.
    pub keypackage_ref: KeyPackageRef,
    /// Whether it is a last-resort package, which others may be given as well.
    pub last_resort: bool,
}

/// An invitee who was not added to a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedInvitee {
    /// The device, or the user if it is about all of their devices.
    pub invitee: Invitee,
    /// Why.
    pub why: SkipReason,
}

/// Why somebody was not added to a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// No package is left. Try again when they have been online.
    PoolExhausted,
    /// They are not registered at this server. Check the name.
    UnknownUser,
    /// The name is none.
    InvalidName {
        /// The fault.
        said: String,
    },
    /// None of their packages has the group's ciphersuite.
    NothingCompatible,
    /// None of their packages has a capability that the group requires of its members. They need a newer app.
    RequirementUnmet {
        /// The first that none of them has.
        requirement: Requirement,
    },
    /// They are in the group already. There is nothing to do.
    AlreadyMember,
    /// A package failed a check, and no other could be had. Unless the fault may be the group's or
    /// the clock's, the package is quarantined, and its owner told.
    PackageRejected {
        /// The check that the last one failed.
        check: PackageCheck,
    },
    /// Every package that was tried was lost to a faster inviter. Invite again.
    ReservationLost {
        /// How many were tried.
        attempts: u32,
    },
    /// The Delivery Service will not take the Welcome. The device is in the group and cannot join:
    /// remove it, and invite it again.
    WelcomeRefused {
        /// The Delivery Service's error.
        said: String,
    },
    /// The server gives no more of their packages for now. Invite again later.
    OverQuota {
        /// After how many seconds, as the server says.
        retry_after_s: Option<u64>,
    },
    /// They take no invitations from this user: they have blocked the user, or take invitations from their
    /// contacts only. Ask them to add the user as a contact.
    TakesNoInvitations,
    /// Their keys do not follow from those that were seen before. Compare the safety number with them, then
    /// accept the new keys with `accept_peer`.
    KeysChanged {
        /// Why.
        why: PeerDoubt,
    },
    /// The server refused otherwise.
    Refused {
        /// Its code.
        code: Code,
    },
    /// The server has said nothing of them.
    Unanswered,
    /// The invitation as a whole ended before they were added. Invite again.
    Abandoned {
        /// Why.
        said: String,
    },
}

impl Invitee {
    /// The one device that is meant, or the main one of the user.
    pub(super) fn pool(&self) -> Result<PoolId, NameError> {
        PoolId::of(&self.user, self.device.as_deref())
    }

    /// Whether a device is meant.
    pub(super) fn means(&self, user: &str, device: Option<&str>) -> bool {
        let is_it = |asked: &str| device.is_some_and(|device| device == asked);
        self.user == user && self.device.as_deref().is_none_or(is_it)
    }

    pub(super) fn target(&self, tokens: &ContactTokens) -> ReserveTarget {
        ReserveTarget {
            user: self.user.clone(),
            device: self.device.clone(),
            contact_token: tokens.get(&self.user).cloned(),
        }
    }
}

impl From<&str> for Invitee {
    /// As it is typed: `user` or `user/device`.
    fn from(name: &str) -> Self {
        let (user, device) = match name.split_once('/') {
            Some((user, device)) => (user, Some(device.to_owned())),
            None => (name, None),
        };
        Self { user: user.to_owned(), device }
    }
}

impl From<String> for Invitee {
    fn from(name: String) -> Self {
        name.as_str().into()
    }
}

impl From<PoolId> for Invitee {
    fn from(pool: PoolId) -> Self {
        Self { user: pool.user().to_owned(), device: Some(pool.device().to_owned()) }
    }
}

impl From<Code> for SkipReason {
    fn from(code: Code) -> Self {
        match code {
            Code::PoolExhausted => Self::PoolExhausted,
            Code::UnknownUser => Self::UnknownUser,
            Code::NothingCompatible => Self::NothingCompatible,
            Code::RateLimited | Code::TooManyReservations => {
                Self::OverQuota { retry_after_s: None }
            }
            code => Self::Refused { code },
        }
    }
}

impl SkipReason {
    /// The reason for the server's code about one invitee. Of a whole request `not_allowed` means something
    /// else.
    pub(super) fn of_invitee(code: Code) -> Self {
        match code {
            Code::NotAllowed => Self::TakesNoInvitations,
            code => code.into(),
        }
    }
}

impl fmt::Display for Invitee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.device {
            Some(device) => write!(f, "{}/{device}", self.user),
            None => f.write_str(&self.user),
        }
    }
}

/// The reason alone, as a sentence about somebody who is named elsewhere.
impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PoolExhausted => {
                f.write_str("no KeyPackage is left; try again when they have been online")
            }
            Self::UnknownUser => f.write_str("not registered at this server; check the name"),
            Self::InvalidName { said } => f.write_str(said),
            Self::NothingCompatible => {
                f.write_str("no KeyPackage has the ciphersuite of this group")
            }
            Self::RequirementUnmet { requirement } => {
                write!(f, "they need a newer app: this group requires {requirement}")
            }
            Self::AlreadyMember => f.write_str("in the group already"),
            Self::PackageRejected { check: PackageCheck::Clock } => f.write_str(
                "the clock of this machine is too far off for MLS to take their KeyPackage; set it, then invite \
                 them again",
            ),
            Self::PackageRejected { check } => {
                write!(f, "the KeyPackage failed the check {check}, and no other could be had")
            }
            Self::ReservationLost { attempts } => {
                write!(f, "{attempts} reservations were lost; invite them again")
            }
            Self::WelcomeRefused { said } => write!(
                f,
                "in the group, but the Welcome was refused: {said}; remove and invite them again"
            ),
            Self::OverQuota { retry_after_s: Some(wait_s) } => {
                write!(f, "the server gives you no more of their packages; try again in {wait_s} s")
            }
            Self::OverQuota { retry_after_s: None } => {
                f.write_str("the server gives you no more of their packages; try again later")
            }
            Self::TakesNoInvitations => {
                f.write_str("they take no invitations from you; ask them to add you as a contact")
            }
            Self::KeysChanged { why } => write!(
                f,
                "their keys are not those seen before: {why}; compare the safety number with them before you \
                 accept the new ones"
            ),
            Self::Refused { code } => write!(f, "{code}. {}", code.hint()),
            Self::Unanswered => f.write_str("the server's reply does not mention them"),
            Self::Abandoned { said } => write!(f, "{said}; invite them again"),
        }
    }
}

impl fmt::Display for SkippedInvitee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = &self.invitee;
        match &self.why {
            SkipReason::PoolExhausted => {
                write!(f, "{who} has no KeyPackage left; try again when they have been online")
            }
            SkipReason::UnknownUser => {
                write!(f, "{who} is not registered at this server; check the name")
            }
            SkipReason::InvalidName { said } => write!(f, "{who} was not invited: {said}"),
            SkipReason::NothingCompatible => {
                write!(f, "{who} has no KeyPackage for this group's ciphersuite")
            }
            SkipReason::RequirementUnmet { requirement } => {
                write!(f, "{who} needs a newer app: this group requires {requirement}")
            }
            SkipReason::AlreadyMember => write!(f, "{who} is in the group already"),
            SkipReason::PackageRejected { check: PackageCheck::Clock } => write!(
                f,
                "{who} could not be invited: the clock of this machine is too far off for MLS to take \
                 their KeyPackage; set it, then invite them again"
            ),
            SkipReason::PackageRejected { check } => write!(
                f,
                "{who} could not be invited: their KeyPackage failed the check {check}, and no other \
                 could be had"
            ),
            SkipReason::ReservationLost { attempts } => {
                write!(
                    f,
                    "{who} was not added: {attempts} reservations were lost; invite them again"
                )
            }
            SkipReason::WelcomeRefused { said } => write!(
                f,
                "{who} is in the group and its Welcome was refused: {said}; remove it and invite it \
                 again"
            ),
            SkipReason::OverQuota { retry_after_s: Some(wait_s) } => {
                write!(f, "{who} cannot be invited by you for now; try again in {wait_s} s")
            }
            SkipReason::OverQuota { retry_after_s: None } => {
                write!(f, "{who} cannot be invited by you for now; try again later")
            }
            SkipReason::TakesNoInvitations => write!(
                f,
                "{who} takes no invitations from you; ask {who} to add you as a contact, and invite them again"
            ),
            SkipReason::KeysChanged { why } => write!(
                f,
                "{who} was not invited, because their keys are not those seen before: {why}; compare the \
                 safety number with them before you accept the new ones"
            ),
            SkipReason::Refused { code } => {
                write!(f, "{who} could not be invited: {code}. {}", code.hint())
            }
            SkipReason::Unanswered => {
                write!(f, "{who} was not invited: the server says nothing of them")
            }
            SkipReason::Abandoned { said } => write!(f, "{who} was not invited: {said}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_a_sentence_without_the_name_of_the_invitee() {
        let reasons = [
            SkipReason::PoolExhausted,
            SkipReason::UnknownUser,
            SkipReason::InvalidName { said: "the name is too long".to_owned() },
            SkipReason::NothingCompatible,
            SkipReason::RequirementUnmet { requirement: Requirement::Credential(0xf001) },
            SkipReason::AlreadyMember,
            SkipReason::PackageRejected { check: PackageCheck::Keys },
            SkipReason::ReservationLost { attempts: 3 },
            SkipReason::WelcomeRefused { said: "unknown device".to_owned() },
            SkipReason::OverQuota { retry_after_s: Some(60) },
            SkipReason::OverQuota { retry_after_s: None },
            SkipReason::TakesNoInvitations,
            SkipReason::KeysChanged { why: PeerDoubt::NameReleased },
            SkipReason::Refused { code: Code::TooLarge },
            SkipReason::Unanswered,
            SkipReason::Abandoned { said: "another Commit was first".to_owned() },
        ];
        let sentences: Vec<String> = reasons.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(sentences.join("\n"), @"
        no KeyPackage is left; try again when they have been online
        not registered at this server; check the name
        the name is too long
        no KeyPackage has the ciphersuite of this group
        they need a newer app: this group requires credential type 0xf001
        in the group already
        the KeyPackage failed the check keys, and no other could be had
        3 reservations were lost; invite them again
        in the group, but the Welcome was refused: unknown device; remove and invite them again
        the server gives you no more of their packages; try again in 60 s
        the server gives you no more of their packages; try again later
        they take no invitations from you; ask them to add you as a contact
        their keys are not those seen before: the server's operator has released the name: it may be another person; compare the safety number with them before you accept the new ones
        too_large. Send fewer packages at a time.
        the server's reply does not mention them
        another Commit was first; invite them again
        ");
    }
}
