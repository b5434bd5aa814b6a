//! Texts for invitees who were added, and for those who could not be.

use keypool_client::{InvitedDevice, SkipReason, SkippedInvitee};

use super::names::person;
use crate::{identity::keys_changed, output::plain};

/// The added devices, with the verb: `bob is`, `bob (2 devices) and carol are`.
pub(super) fn are(added: &[InvitedDevice]) -> String {
    let mut people: Vec<(&str, Vec<String>)> = Vec::new();
    for InvitedDevice { device, .. } in added {
        let name = person(&device.to_string());
        match people.iter_mut().find(|(user, _)| *user == device.user()) {
            Some((_, devices)) => devices.push(name),
            None => people.push((device.user(), vec![name])),
        }
    }
    let names: Vec<String> = people.iter().map(|(user, devices)| named(user, devices)).collect();
    match names.as_slice() {
        [one] if added.len() == 1 => format!("{one} is"),
        [one] => format!("{one} are"),
        [first @ .., last] => format!("{} and {last} are", first.join(", ")),
        [] => "nobody is".to_owned(),
    }
}

/// A user with one device by the device's name, with several by how many they are.
fn named(user: &str, devices: &[String]) -> String {
    match devices {
        [one] => one.clone(),
        devices => format!("{user} ({} devices)", devices.len()),
    }
}

/// The text for an invitee who was not added.
pub(super) fn left_out(missing: &SkippedInvitee) -> String {
    let whole = missing.invitee.to_string();
    let known = person(&whole);
    match &missing.why {
        SkipReason::AlreadyMember => format!("{known} is here already"),
        SkipReason::KeysChanged { why } => {
            let user = plain(&missing.invitee.user);
            format!(
                "{known} was not invited: {}; /accept {user} shows more",
                keys_changed(&user, why)
            )
        }
        _ => plain(&missing.to_string()).replace(&plain(&whole), &known),
    }
}

#[cfg(test)]
mod tests {
    use keypool_client::{KeyPackageRef, PackageCheck, PeerDoubt};

    use super::*;

    fn device(name: &str) -> InvitedDevice {
        let keypackage_ref = KeyPackageRef::new(&[7; 32]).unwrap();
        InvitedDevice { device: name.parse().unwrap(), keypackage_ref, last_resort: false }
    }

    #[test]
    fn people_are_named_once_with_the_number_of_their_devices() {
        let said = |names: &[&str]| are(&names.iter().map(|name| device(name)).collect::<Vec<_>>());
        assert_eq!(said(&["bob/main"]), "bob is");
        assert_eq!(said(&["bob/phone"]), "bob/phone is");
        assert_eq!(said(&["bob/main", "bob/phone"]), "bob (2 devices) are");
        let many = ["bob/main", "carol/main", "bob/phone", "dave/tablet"];
        assert_eq!(said(&many), "bob (2 devices), carol and dave/tablet are");
    }

    #[test]
    fn whoever_is_left_out_is_named_as_they_are_known() {
        let said =
            |name: &str, why: SkipReason| left_out(&SkippedInvitee { invitee: name.into(), why });
        assert_eq!(said("bob/main", SkipReason::AlreadyMember), "bob is here already");
        let said_of_all = [
            said("dave/main", SkipReason::PoolExhausted),
            said("dave/phone", SkipReason::PackageRejected { check: PackageCheck::Keys }),
            said("eve", SkipReason::UnknownUser),
            said("frank/main", SkipReason::TakesNoInvitations),
            said("grace/main", SkipReason::KeysChanged { why: PeerDoubt::NameReleased }),
        ];
        insta::assert_snapshot!(said_of_all.join("\n"), @"
        dave has no KeyPackage left; try again when they have been online
        dave/phone could not be invited: their KeyPackage failed the check keys, and no other could be had
        eve is not registered at this server; check the name
        frank takes no invitations from you; ask frank to add you as a contact, and invite them again
        grace was not invited: the keys of grace are not those you have seen before: the server's operator has released the name: it may be another person; /accept grace shows more
        ");
    }
}
