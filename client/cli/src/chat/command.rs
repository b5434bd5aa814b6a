//! Parsing of a line into a command.

/// A command of the chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ChatCommand {
    /// Nothing.
    Nothing,
    /// To say something to the current group.
    Say(String),
    /// To make a group.
    Create(String),
    /// To invite people to the current group.
    Invite(Vec<String>),
    /// To list the invitations that this device has made.
    Invitations,
    /// To list the groups.
    Groups,
    /// To go to another group.
    Switch(String),
    /// To list the members of the current group.
    List,
    /// To remove people from the current group.
    Remove(Vec<String>),
    /// To leave the current group.
    Leave,
    /// To block users.
    Block(Vec<String>),
    /// To block users no more.
    Unblock(Vec<String>),
    /// To compare the safety number with a user, or to say that it is the same.
    Verify {
        /// The user.
        user: String,
        /// Whether the numbers are the same.
        is_same: bool,
    },
    /// To show how a user's keys have changed, or to accept the new ones.
    AcceptKeys {
        /// The user.
        user: String,
        /// Whether the new keys are to be accepted.
        is_sure: bool,
    },
    /// To accept members of the current group whose keys are not known as theirs.
    AcceptMembers,
    /// To show the devices of a user, or one's own.
    Devices(Option<String>),
    /// To link another device, or this one, by a word.
    Link(String),
    /// To show the pool.
    Pool,
    /// To refresh the pool.
    Refresh,
    /// To show the timeline of packages.
    History(String),
    /// To list the commands.
    Help,
    /// To end the program.
    Quit,
}

/// The text of `/help`.
pub(super) const HELP: &str = "\
/create NAME     make a group and go to it; NAME suite=2 for one of that ciphersuite
/invite USER…    invite people to this group, also while they are away; USER/DEVICE for one device
/invitations     whom you have invited, and who has joined
/groups          your groups, and what you have not read
/switch NAME     go to another group, by its name or its number
/list            who is in this group
/remove USER…    remove people from this group
/leave           leave this group
/block USER…     let people neither invite you nor write to you; they are not told
/unblock USER…   let them again
/verify USER     compare the safety number with USER; if it is the same: /verify USER yes
/accept USER     see how the keys of USER have changed; to take the new ones: /accept USER yes
/accept          write to this group although the keys of members marked (!) are not known as theirs
/devices USER    the devices of USER and their keys; without USER, yours
/link WORD       link a new device by the word that its chat shows
/pool            how many KeyPackages are left for those who invite you
/refresh         refill the pool now
/history REF     what happened to a KeyPackage; without REF, to all of them
/help            this
/quit            end; what was not sent yet goes out next time
Everything else is said to the group. Begin with // to say something that begins with /.";

/// Reads a line.
///
/// # Errors
///
/// Returns a sentence about the part that is not understood.
pub(super) fn parse(line: &str) -> Result<ChatCommand, String> {
    let line = line.trim();
    let Some(rest) = line.strip_prefix('/') else {
        let is_empty = line.is_empty();
        return Ok(if is_empty { ChatCommand::Nothing } else { ChatCommand::Say(line.to_owned()) });
    };
    if rest.starts_with('/') {
        return Ok(ChatCommand::Say(rest.to_owned()));
    }
    let (word, argument) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let argument = argument.trim().to_owned();
    let people = || {
        let people: Vec<String> = argument.split_whitespace().map(ToOwned::to_owned).collect();
        if people.is_empty() { Err(format!("whom? /{word} USER…")) } else { Ok(people) }
    };
    match word {
        "create" => Ok(ChatCommand::Create(argument)),
        "invite" => Ok(ChatCommand::Invite(people()?)),
        "invitations" => Ok(ChatCommand::Invitations),
        "groups" => Ok(ChatCommand::Groups),
        "switch" if argument.is_empty() => Err("which one? /switch NAME".to_owned()),
        "switch" => Ok(ChatCommand::Switch(argument)),
        "list" => Ok(ChatCommand::List),
        "remove" => Ok(ChatCommand::Remove(people()?)),
        "leave" => Ok(ChatCommand::Leave),
        "block" => Ok(ChatCommand::Block(people()?)),
        "unblock" => Ok(ChatCommand::Unblock(people()?)),
        "verify" => {
            let (user, is_same) = user_and_yes(word, &argument)?;
            Ok(ChatCommand::Verify { user, is_same })
        }
        "accept" if argument.is_empty() => Ok(ChatCommand::AcceptMembers),
        "accept" => {
            let (user, is_sure) = user_and_yes(word, &argument)?;
            Ok(ChatCommand::AcceptKeys { user, is_sure })
        }
        "devices" if argument.is_empty() => Ok(ChatCommand::Devices(None)),
        "devices" => Ok(ChatCommand::Devices(Some(argument))),
        "link" if argument.is_empty() => {
            Err("which word? The chat of the new device shows it: /link WORD".to_owned())
        }
        "link" => Ok(ChatCommand::Link(argument)),
        "pool" => Ok(ChatCommand::Pool),
        "refresh" => Ok(ChatCommand::Refresh),
        "history" => Ok(ChatCommand::History(argument)),
        "help" => Ok(ChatCommand::Help),
        "quit" => Ok(ChatCommand::Quit),
        _ => Err(format!("there is no /{}; /help lists the commands", crate::output::plain(word))),
    }
}

/// A user, and whether `yes` stands behind the name.
fn user_and_yes(word: &str, argument: &str) -> Result<(String, bool), String> {
    match argument.split_whitespace().collect::<Vec<_>>().as_slice() {
        [user] => Ok(((*user).to_owned(), false)),
        [user, "yes"] => Ok(((*user).to_owned(), true)),
        _ => Err(format!("whom? /{word} USER, and then /{word} USER yes")),
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_debug_snapshot;

    use super::*;

    #[test]
    fn lines_are_understood_or_said_to_be_not() {
        let lines = [
            "hello there ",
            "",
            "//shrug",
            "/create friday evening",
            "/create",
            "/invite bob carol/phone",
            "/invite",
            "/switch",
            "/switch 2",
            "/history ab12",
            "/history",
            "/nonsense 1",
            "/",
            "/quit",
        ];
        let read = lines.map(|line| (line, parse(line)));
        assert_debug_snapshot!(read);
    }

    #[test]
    fn a_yes_stands_behind_the_user() {
        let lines =
            ["/verify", "/verify bob", "/verify bob yes", "/accept bob no", "/accept bob yes"];
        let read = lines.map(parse).map(|read| match read {
            Ok(ChatCommand::Verify { user, is_same }) => format!("verify {user} {is_same}"),
            Ok(ChatCommand::AcceptKeys { user, is_sure }) => format!("accept {user} {is_sure}"),
            Ok(other) => format!("{other:?}"),
            Err(why) => why,
        });
        insta::assert_snapshot!(read.join("\n"), @"
        whom? /verify USER, and then /verify USER yes
        verify bob false
        verify bob true
        whom? /accept USER, and then /accept USER yes
        accept bob true
        ");
    }
}
