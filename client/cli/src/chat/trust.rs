//! Texts about members whose keys are not known as their users', each with the next step.

use keypool_client::{GroupError, LeafContradiction, PoolId, SendError, UntrustedMember};

use super::names::{UNTRUSTED, person, target};

/// The text for an invitation that was refused.
pub(super) fn refused_invitation(group: &str, inviter: &str, why: &LeafContradiction) -> String {
    let (who, user) = (person(inviter), user_of(inviter));
    let next = match why {
        LeafContradiction::KeysChanged => format!("/accept {user} shows how they have changed"),
        _ => format!(
            "Somebody else may be using {user}'s name: ask {user} by another way than this chat"
        ),
    };
    format!("an invitation to {group} in the name of {who} was refused: {why}. {next}")
}

/// The text for a sender that the server named wrongly.
pub(super) fn other_sender(group: &str, sender: &str, named: &PoolId) -> String {
    format!(
        "the server named {} as the sender of something in {group}, and by its signature it is from {}: ask \
         who runs the server",
        person(&named.to_string()),
        person(sender)
    )
}

/// The members of a group whose keys are not known as their users', and the choice that the user has; none
/// if there are no such members.
pub(super) fn untrusted(group: &str, members: &[UntrustedMember]) -> Option<String> {
    let mut lines: Vec<String> = members
        .iter()
        .map(|member| {
            let who = person(&member.name);
            format!("{who}{UNTRUSTED} in {group} may be somebody else: {}", member.why)
        })
        .collect();
    lines.push(choice(group, members)?);
    Some(lines.join("\n"))
}

/// The text for a message that was not sent because of such members.
pub(super) fn not_sent(group: &str, error: &SendError) -> Option<String> {
    let SendError::Group(GroupError::UntrustedMembers { members, .. }) = error else { return None };
    Some(format!("that was not sent\n{}", untrusted(group, members)?))
}

/// The ways out: to remove the members, or to accept them.
fn choice(group: &str, members: &[UntrustedMember]) -> Option<String> {
    let mut names: Vec<String> = members.iter().map(|member| person(&member.name)).collect();
    names.dedup();
    let names = (!names.is_empty()).then(|| names.join(" "))?;
    Some(format!(
        "nothing you write goes to {group} until you choose: /remove {names}, or, once you have asked them by \
         another way, /accept"
    ))
}

/// The user of a member's name.
fn user_of(name: &str) -> String {
    let name = person(name);
    target(&name).0.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_why_and_the_next_step() {
        let refused = |why| refused_invitation("friday", "bob/phone", why);
        let said =
            [refused(&LeafContradiction::UnknownDevice), refused(&LeafContradiction::KeysChanged)];
        insta::assert_snapshot!(said.join("\n"), @"
        an invitation to friday in the name of bob/phone was refused: the user has no such device. Somebody else may be using bob's name: ask bob by another way than this chat
        an invitation to friday in the name of bob/phone was refused: the user's keys have changed, and the new ones were not accepted. /accept bob shows how they have changed
        ");
    }

    #[test]
    fn a_sender_that_the_server_named_wrongly_is_told() {
        let said = other_sender("friday", "bob/main", &"carol/phone".parse().unwrap());
        insta::assert_snapshot!(said, @"the server named carol/phone as the sender of something in friday, and by its signature it is from bob: ask who runs the server");
    }
}
