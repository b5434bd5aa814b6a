//! The actions of an operator, as forms name them.

use keypool_ledger::{NameError, PoolId};
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
}

const REMOVE_DEVICE: &str = "remove-device";
const RELEASE_NAME: &str = "release-name";

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
        match &*field("action") {
            REMOVE_DEVICE => Ok(Self::RemoveDevice { device: field("device").parse()? }),
            RELEASE_NAME => {
                let user = PoolId::of(&field("user"), None)?.user().to_owned();
                Ok(Self::ReleaseName { user })
            }
            _ => Err(ActionError::Unknown),
        }
    }

    /// The fields of the form that names the action.
    pub(crate) fn fields(&self) -> [(&'static str, String); 2] {
        match self {
            Self::RemoveDevice { device } => {
                [("action", REMOVE_DEVICE.to_owned()), ("device", device.to_string())]
            }
            Self::ReleaseName { user } => {
                [("action", RELEASE_NAME.to_owned()), ("user", user.clone())]
            }
        }
    }

    /// The text of the button.
    pub(crate) fn label(&self) -> String {
        match self {
            Self::RemoveDevice { device } => format!("Remove {device}"),
            Self::ReleaseName { user } => format!("Release the name {user}"),
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_read_from_the_form_that_names_it() {
        let actions = [
            Action::RemoveDevice { device: "bob+1/phone".parse().unwrap() },
            Action::ReleaseName { user: "bob+1@example".to_owned() },
        ];
        for action in actions {
            let mut form = form_urlencoded::Serializer::new(String::new());
            form.extend_pairs(action.fields());
            assert_eq!(Action::of_form(&form.finish()), Ok(action));
        }
        assert_eq!(Action::of_form("action=prune"), Err(ActionError::Unknown));
        let hostile = Action::of_form("action=release-name&user=%3Cb%3E");
        assert!(matches!(hostile, Err(ActionError::Name(_))));
    }
}
