//! The answers to invitations, and the list of those that this device has made.

use keypool_client::{
    GroupId, InvitationAnswer, InvitationRecord, InvitationState, Invitee, NextStep, PoolId,
    SkipReason, SkippedInvitee, StorageError,
};

use super::{Chat, invitees::left_out, names::person};
use crate::{output::plain, pool::date_and_time};

/// The text of the list if it is empty.
const NO_INVITATIONS: &str = "you have invited nobody yet; /invite USER… does";

impl Chat<'_> {
    /// The text for the answer of a device to an invitation.
    pub(super) fn answered(
        &self,
        group: &GroupId,
        device: &PoolId,
        answer: InvitationAnswer,
    ) -> Result<String, StorageError> {
        let (who, name) = (person(&device.to_string()), self.name(group));
        Ok(match answer {
            InvitationAnswer::Joined => format!("{who} has joined {name}"),
            InvitationAnswer::Failed { reason } => {
                let reason = InvitationState::Failed { reason }.reason().unwrap_or_default();
                let next = next_after_failure(self.record_of(group, device)?.as_ref(), &who);
                format!("{who} could not join {name}: {reason}; {next}")
            }
            InvitationAnswer::Declined => format!("{who} has declined to join {name}"),
            InvitationAnswer::Expired => {
                format!("{who} did not come to {name} in time; /invite {who} invites them again")
            }
        })
    }

    /// The text for devices that an invitation has added by itself. Those that were invited a second time are
    /// named with their answers.
    pub(super) fn resumed(
        &self,
        group: &GroupId,
        devices: &[PoolId],
    ) -> Result<Option<String>, StorageError> {
        let mut names = Vec::new();
        for device in devices {
            let record = self.record_of(group, device)?;
            if !record.is_some_and(|record| record.was_invited_again()) {
                names.push(person(&device.to_string()));
            }
        }
        let verb = if names.len() == 1 { "is" } else { "are" };
        let name = self.name(group);
        Ok((!names.is_empty()).then(|| {
            format!(
                "{} {verb} in {name} now, by KeyPackages that came; they see what is said from now on",
                names.join(", ")
            )
        }))
    }

    /// The text for an invitee who was not added.
    pub(super) fn missed_out(&self, skipped: &SkippedInvitee) -> Result<String, StorageError> {
        let is_it = |record: &InvitationRecord| {
            record.invitee == skipped.invitee && record.state == InvitationState::Waiting
        };
        let waits = matches!(skipped.why, SkipReason::PoolExhausted)
            && self.client.invitations()?.iter().any(is_it);
        Ok(if waits {
            let who = person(&skipped.invitee.to_string());
            format!("{who} has no KeyPackage left; {}", NextStep::AwaitsPackage)
        } else {
            left_out(skipped)
        })
    }

    /// Stops inviting somebody who waits for a package. Returns whether they did.
    pub(super) async fn uninvite(&self, group: &GroupId, who: &str) -> Result<bool, StorageError> {
        self.client.cancel_invitation(group, Invitee::from(who)).await
    }

    /// The invitations of this device, one on each line.
    pub(super) fn list_invitations(&self) -> Result<String, StorageError> {
        let line = |record: &InvitationRecord| {
            let InvitationRecord { group, invitee, state, since, .. } = record;
            let (who, name) = (person(&invitee.to_string()), self.name(group));
            let state = plain(&state.to_string());
            let next = record.next_step().to_string();
            // A reason says it already.
            let is_said = next.is_empty() || state.contains("again");
            let next = if is_said { String::new() } else { format!("; {next}") };
            format!("{who} in {name}: {state}{next} ({})", date_and_time(*since))
        };
        let lines: Vec<String> = self.client.invitations()?.iter().map(line).collect();
        Ok(if lines.is_empty() { NO_INVITATIONS.to_owned() } else { lines.join("\n") })
    }

    fn record_of(
        &self,
        group: &GroupId,
        device: &PoolId,
    ) -> Result<Option<InvitationRecord>, StorageError> {
        let invitee = Invitee::from(device.clone());
        let mut records = self.client.invitations()?.into_iter();
        Ok(records.find(|record| record.group == *group && record.invitee == invitee))
    }
}

/// The next step for a device that could not join.
fn next_after_failure(record: Option<&InvitationRecord>, who: &str) -> String {
    match record.map(|record| (record.next_step(), record.was_invited_again())) {
        Some((NextStep::AwaitsAnswer | NextStep::Nothing, true)) => "invited again".to_owned(),
        Some((NextStep::AwaitsPackage, _)) => NextStep::AwaitsPackage.to_string(),
        Some((NextStep::GoesOn, _)) => "the next invitation goes out by itself".to_owned(),
        _ => format!("/invite {who} invites them again"),
    }
}
