//! The actions of an operator, as forms name them.

use keypool_ledger::{KeyPackageRef, NameError, PoolId};
use url::form_urlencoded;

/// An action that an operator may take, each with a confirmation. The server carries out every one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Remove a device, and withdraw its packages.
    RemoveDevice {
        /// The device.
        device: PoolId,
    },
    /// Let anyone register a name again: every device of its user is removed.
    ReleaseName {
        /// The user.
        user: String,
    },
    /// Refuse every request of a user's devices, and hand their packages to nobody.
    BlockUser {
        /// The user.
        user: String,
        /// Why, for those who read the log; `None` if the operator wrote nothing.
        reason: Option<String>,
    },
    /// End the block of a user.
    UnblockUser {
        /// The user.
        user: String,
    },
    /// Withdraw one package.
    RevokePackage {
        /// The package.
        keypackage_ref: KeyPackageRef,
    },
    /// Let payloads that are over leave the log now, and not at the next interval.
    Prune,
    /// Make a backup now, in a new folder of the server's directory for backups.
    BackUp,
}

/// Why the fields of a form are no action.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ActionError {
    /// The field `action` names none.
    #[error("the form names no action; go back to the page and press a button again")]
    Unknown,
    /// A name cannot be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The field `package` is no reference.
    #[error("the form names no package; go back to the page and press a button again")]
    Package,
}

const REMOVE_DEVICE: &str = "remove-device";
const RELEASE_NAME: &str = "release-name";
const BLOCK_USER: &str = "block-user";
const UNBLOCK_USER: &str = "unblock-user";
const REVOKE_PACKAGE: &str = "revoke-package";
const PRUNE: &str = "prune";
const BACK_UP: &str = "back-up";
/// The field of the reason of a block.
pub(crate) const REASON: &str = "reason";

impl Action {
    /// Reads an action from the fields of a form.
    ///
    /// # Errors
    ///
    /// Returns an [`ActionError`] if the form names no action, or something that has no such name.
    pub(crate) fn of_form(form: &str) -> Result<Self, ActionError> {
        let field = |wanted: &str| {
            let mut fields = form_urlencoded::parse(form.as_bytes());
            fields.find(|(name, _)| name == wanted).map(|(_, value)| value).unwrap_or_default()
        };
        let user = || PoolId::of(&field("user"), None).map(|pool| pool.user().to_owned());
        match &*field("action") {
            REMOVE_DEVICE => Ok(Self::RemoveDevice { device: field("device").parse()? }),
            RELEASE_NAME => Ok(Self::ReleaseName { user: user()? }),
            BLOCK_USER => {
                let reason = Some(field(REASON).trim().to_owned());
                Ok(Self::BlockUser { user: user()?, reason: reason.filter(|why| !why.is_empty()) })
            }
            UNBLOCK_USER => Ok(Self::UnblockUser { user: user()? }),
            REVOKE_PACKAGE => {
                let keypackage_ref = field("package").parse().map_err(|_| ActionError::Package)?;
                Ok(Self::RevokePackage { keypackage_ref })
            }
            PRUNE => Ok(Self::Prune),
            BACK_UP => Ok(Self::BackUp),
            _ => Err(ActionError::Unknown),
        }
    }

    /// The fields of the form that names the action.
    pub(crate) fn fields(&self) -> Vec<(&'static str, String)> {
        let named =
            |word: &str, name, value: String| vec![("action", word.to_owned()), (name, value)];
        match self {
            Self::RemoveDevice { device } => named(REMOVE_DEVICE, "device", device.to_string()),
            Self::ReleaseName { user } => named(RELEASE_NAME, "user", user.clone()),
            Self::BlockUser { user, reason } => {
                let mut fields = named(BLOCK_USER, "user", user.clone());
                fields.extend(reason.clone().map(|reason| (REASON, reason)));
                fields
            }
            Self::UnblockUser { user } => named(UNBLOCK_USER, "user", user.clone()),
            Self::RevokePackage { keypackage_ref } => {
                named(REVOKE_PACKAGE, "package", keypackage_ref.to_string())
            }
            Self::Prune => vec![("action", PRUNE.to_owned())],
            Self::BackUp => vec![("action", BACK_UP.to_owned())],
        }
    }

    /// Whether its confirmation asks why, for those who read the log.
    pub(crate) const fn asks_why(&self) -> bool {
        matches!(self, Self::BlockUser { .. })
    }

    /// The text of the button.
    pub(crate) fn label(&self) -> String {
        match self {
            Self::RemoveDevice { device } => format!("Remove {device}"),
            Self::ReleaseName { user } => format!("Release the name {user}"),
            Self::BlockUser { user, .. } => format!("Block {user}"),
            Self::UnblockUser { user } => format!("Unblock {user}"),
            Self::RevokePackage { keypackage_ref } => {
                format!("Withdraw package {}", keypackage_ref.short())
            }
            Self::Prune => "Prune the log now".to_owned(),
            Self::BackUp => "Back up now".to_owned(),
        }
    }

    /// The effect of the action in sentences, for its confirmation.
    pub(crate) fn consequence(&self) -> String {
        match self {
            Self::RemoveDevice { device } => format!(
                "{device} is removed: its packages are withdrawn, its mailbox is closed, it leaves its groups, and \
                 its key is nobody's ever after."
            ),
            Self::ReleaseName { user } => format!(
                "Every device of {user} is removed, and the next to register the name, with a new key, has it. Do \
                 this only for a user who has lost every device."
            ),
            Self::BlockUser { user, .. } => format!(
                "No request of a device of {user} is carried out, nobody is handed their packages, and nobody \
                 registers a device under the name, until you unblock {user}."
            ),
            Self::UnblockUser { user } => format!(
                "The devices of {user} are served again, their packages are handed out again, and what came for them \
                 meanwhile is in their mailboxes."
            ),
            Self::RevokePackage { keypackage_ref } => format!(
                "Package {} is handed to nobody any more. An inviter who holds it now can still use it, because the \
                 invitation may be on its way.",
                keypackage_ref.short()
            ),
            Self::Prune => "The payloads of packages that are over and of messages that were delivered leave the log, \
                            once they have been over for the time of --retain. Copies of the log keep theirs."
                .to_owned(),
            Self::BackUp => "The server copies the log and the key of its ledger into a new folder of the directory of \
                             --backups, named by the time, and goes on serving meanwhile. Guard the folder as you \
                             guard the data: it has every name that the log has."
                .to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_read_from_the_form_that_names_it() {
        let user = || "bob+1@example".to_owned();
        let actions = [
            Action::RemoveDevice { device: "bob+1/phone".parse().unwrap() },
            Action::ReleaseName { user: user() },
            Action::BlockUser { user: user(), reason: None },
            Action::BlockUser { user: user(), reason: Some("100 % spam & more".to_owned()) },
            Action::UnblockUser { user: user() },
            Action::RevokePackage { keypackage_ref: KeyPackageRef::new(&[7; 32]).unwrap() },
            Action::Prune,
            Action::BackUp,
        ];
        for action in actions {
            let mut form = form_urlencoded::Serializer::new(String::new());
            form.extend_pairs(action.fields());
            assert_eq!(Action::of_form(&form.finish()), Ok(action));
        }
        assert_eq!(Action::of_form("action=burn"), Err(ActionError::Unknown));
        for wrong in ["action=revoke-package", "action=revoke-package&package=xyz"] {
            assert_eq!(Action::of_form(wrong), Err(ActionError::Package), "{wrong}");
        }
        for word in ["release-name", "block-user", "unblock-user"] {
            let hostile = Action::of_form(&format!("action={word}&user=%3Cb%3E"));
            assert!(matches!(hostile, Err(ActionError::Name(_))));
        }
        let blank = Action::of_form("action=block-user&user=bob&reason=+%20");
        assert_eq!(blank, Ok(Action::BlockUser { user: "bob".to_owned(), reason: None }));
    }
}
