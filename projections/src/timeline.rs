//! The history of a pool or of one package, as lines for people.

use keypool_ledger::{Event, EventEnvelope, InvitationAnswer, KeyPackageRef, Timestamp};
use serde::{Deserialize, Serialize};

use crate::explanation::words::short;

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineEntry {
    /// The version of the event in its history.
    pub version: u64,
    /// When it was recorded.
    pub at: Timestamp,
    /// The package; `None` for an event of the pool itself.
    pub keypackage_ref: Option<KeyPackageRef>,
    /// The event's name.
    pub event: String,
    /// The details, in a few words.
    pub detail: String,
}

/// The lines of a history, in order; of one package only if one is named.
#[must_use]
pub fn timeline<'a>(
    history: impl IntoIterator<Item = &'a EventEnvelope>,
    only: Option<&KeyPackageRef>,
) -> Vec<TimelineEntry> {
    let kept = history
        .into_iter()
        .filter(|envelope| only.is_none() || envelope.event.keypackage_ref() == only);
    kept.map(moment).collect()
}

fn moment(envelope: &EventEnvelope) -> TimelineEntry {
    TimelineEntry {
        version: envelope.version,
        at: envelope.at,
        keypackage_ref: envelope.event.keypackage_ref().cloned(),
        event: envelope.event.name().to_owned(),
        detail: detail(envelope),
    }
}

/// The words for an event.
pub(crate) fn detail(envelope: &EventEnvelope) -> String {
    match &envelope.event {
        event if event.keypackage_ref().is_some() => package_detail(envelope),
        event => device_detail(event).unwrap_or_else(|| delivery_detail(event)),
    }
}

/// The words for an event of a package.
fn package_detail(envelope: &EventEnvelope) -> String {
    match &envelope.event {
        Event::Created(facts) | Event::Uploaded(facts) => {
            let kind = if facts.last_resort { "last resort, " } else { "" };
            // To the nearest day: a package made a second ago has all its fourteen left.
            let days = (facts.not_after.since(envelope.at).as_secs() + 43_200) / 86_400;
            format!("{kind}ciphersuite {}, {days} days left", facts.ciphersuite)
        }
        Event::Reserved { reservation, generation, holder, deadline, .. } => {
            let secs = deadline.since(envelope.at).as_secs();
            format!(
                "by {holder} for {secs} s, reservation {}, generation {generation}",
                short(reservation)
            )
        }
        Event::Renewed { reservation, deadline, .. } => {
            let secs = deadline.since(envelope.at).as_secs();
            format!("for {secs} s more, reservation {}", short(reservation))
        }
        Event::Released { reservation, reason, .. } => {
            format!("{}, reservation {}", word(reason), short(reservation))
        }
        Event::Spent { reservation, holder, late, .. } => {
            let by = holder.as_ref().map(|holder| format!("by {holder}"));
            let reservation = reservation.as_ref().map(|id| format!("reservation {}", short(id)));
            let late = late.then(|| "late".to_owned());
            let words: Vec<String> = [by, reservation, late].into_iter().flatten().collect();
            words.join(", ")
        }
        Event::Expired { .. } => "its lifetime is over".to_owned(),
        Event::Revoked { reason, check, .. } => match check {
            Some(check) => format!("{}: {check}", word(reason)),
            None => word(reason),
        },
        Event::Conflict { lost, holds, .. } => {
            format!("late spend of {} refused, {} was given it", short(lost), short(holds))
        }
        Event::Reported { reservation, check, .. } => {
            let check = check.as_deref().unwrap_or("no check named");
            format!("{check}, reservation {}; it passes admission", short(reservation))
        }
        _ => String::new(),
    }
}

/// The words for an event of a device: its keys, and its owner's contacts.
fn device_detail(event: &Event) -> Option<String> {
    Some(match event {
        Event::Registered { signature_key, credential, frontend: Some(frontend), .. } => {
            format!("key {signature_key} speaks for {credential}, by the frontend key {frontend}")
        }
        Event::Registered { signature_key, credential, .. }
        | Event::KeyRotated { signature_key, credential, .. } => {
            format!("key {signature_key} speaks for {credential}")
        }
        Event::DeviceRemoved { by_operator: true } => "the operator removed it".to_owned(),
        Event::NameReleased {} => "the operator released the name".to_owned(),
        Event::UserErased {} => "the operator had the user erased".to_owned(),
        Event::LeafKeyPinned { signature_scheme, signature_key, .. } => {
            format!("key {signature_key} signs packages of scheme {signature_scheme:#06x}")
        }
        Event::CredentialDeclared { credential, .. } => {
            format!("packages carry a credential of type {}", credential.credential_type())
        }
        Event::RecoveryKeySet { recovery_key, .. } => {
            format!("key {recovery_key} is the user's recovery key")
        }
        Event::PolicySet { reserve } => format!("who may reserve: {}", word(reserve)),
        Event::ContactAdded { user, reservation } => {
            format!("{user} is a contact: reservation {} was joined", short(reservation))
        }
        Event::ContactRemoved { user } => format!("{user} is a stranger again"),
        Event::StrangersLimitSet { per_hour: Some(count) } => {
            format!("strangers may take {count} packages an hour")
        }
        Event::StrangersLimitSet { per_hour: None } => {
            "strangers may take what the server lets them".to_owned()
        }
        Event::UserBlocked { user } => format!("{user} is blocked"),
        Event::UserUnblocked { user } => format!("{user} is not blocked any more"),
        _ => return None,
    })
}

/// The words for an event of a group, a mailbox or the server.
fn delivery_detail(event: &Event) -> String {
    match event {
        Event::GroupMade { creator } => format!("by {creator}"),
        Event::Left { device, cause } => format!("{device}: {}", word(cause)),
        Event::Committed { epoch, committer, added, removed, .. } => {
            format!(
                "epoch {epoch} by {committer}, added {}, removed {}",
                added.len(),
                removed.len()
            )
        }
        Event::Welcomed { to, .. } => format!("to {} devices", to.len()),
        Event::InvitationAnswered { device, inviter, answer } => {
            format!("{device} to {inviter}: {}", outcome(*answer))
        }
        Event::Posted { sender, .. } => format!("by {sender}"),
        Event::Acknowledged { through, .. } => format!("up to position {through}"),
        Event::Awaited { targets, until, .. } => {
            format!("until {until} for packages of {} devices", targets.len())
        }
        Event::AwaitStopped { targets } => format!("for packages of {} devices", targets.len()),
        Event::Overrun { group, sender, .. } => match (group, sender) {
            (Some(group), Some(sender)) => {
                format!(
                    "nothing more of {sender} in group {group} is kept until the device is told"
                )
            }
            (Some(group), None) => {
                format!("nothing more of group {group} is kept until the device is told")
            }
            (None, _) => "nothing more is kept until the device has been here".to_owned(),
        },
        Event::Configured(settings) => format!(
            "reservations last {} s and {} s of grace; {} lapses retire a package",
            settings.reservation_ttl_ms / 1000,
            settings.grace_ms / 1000,
            settings.lapses_max
        ),
        Event::ClockAccepted { from, to } => format!("from {from} to {to}"),
        Event::UserSuspended { user, reason: None } => format!("the operator blocked {user}"),
        Event::UserSuspended { user, reason: Some(reason) } => {
            format!("the operator blocked {user}: {reason}")
        }
        Event::UserReinstated { user } => format!("the operator unblocked {user}"),
        _ => String::new(),
    }
}

/// The words for the answer to an invitation.
fn outcome(answer: InvitationAnswer) -> String {
    match answer {
        InvitationAnswer::Failed { reason } => format!("failed, {}", word(&reason)),
        answer => word(&answer),
    }
}

/// A reason as its stored word.
fn word(reason: &impl Serialize) -> String {
    let value = serde_json::to_value(reason).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}
