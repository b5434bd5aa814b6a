//! The records of invitations in the store. Each is written together with its cause.

use std::{collections::BTreeSet, time::Duration};

use data_encoding::HEXLOWER;
use keypool_ledger::{GroupId, Hash, InvitationAnswer, PoolId, Timestamp, WelcomeFault};

use super::{
    invitee::{Invitee, SkipReason, SkippedInvitee},
    outcome::{InvitationRecord, InvitationState},
    record::Invitation,
};
use crate::{
    DeviceIdentity, Staged, StorageError,
    mls::membership::{device_leaves_on, leaf_marks_on},
};

/// The prefix of the names of records of invitations that go on.
const OPEN_PREFIX: &str = "invitation/open/";
/// The prefix of the names of records of invitations that have ended.
const ENDED_PREFIX: &str = "invitation/ended/";

/// How long the record of an invitation is kept after its end.
const ENDED_AGE_MAX: Duration = Duration::from_hours(30 * 24);
/// How many records of ended invitations are kept.
const ENDED_MAX: usize = 1000;
/// How long an invitation waits for a package, and for an answer. The server gives up after 14 and 7 days.
const WAIT_MAX: Duration = Duration::from_hours(14 * 24);
/// How long a device that was invited again is not invited again by itself once more.
const REINVITED_AGAIN: Duration = Duration::from_hours(24);

/// The records of invitations that go on.
pub(super) fn open_records(staged: &Staged<'_>) -> Result<Vec<InvitationRecord>, StorageError> {
    all_in(staged, OPEN_PREFIX)
}

/// All records, those of one group together, without ended ones that are no longer kept.
pub(crate) fn invitation_records(
    staged: &Staged<'_>,
    now: Timestamp,
) -> Result<Vec<InvitationRecord>, StorageError> {
    let mut found = open_records(staged)?;
    let ended = all_in(staged, ENDED_PREFIX)?;
    found.extend(ended.into_iter().filter(|ended| !is_too_old(ended, now)));
    found.sort_by_cached_key(|record| (record.group.clone(), record.invitee.to_string()));
    Ok(found)
}

/// Deletes the records of ended invitations that are too old or too many.
pub(super) fn prune_on(staged: &Staged<'_>, now: Timestamp) -> Result<(), StorageError> {
    let mut ended = all_in(staged, ENDED_PREFIX)?;
    ended.sort_by_key(|record| std::cmp::Reverse(record.since));
    for (place, record) in ended.iter().enumerate() {
        if ENDED_MAX <= place || is_too_old(record, now) {
            remove_on(staged, &record.group, &record.invitee);
        }
    }
    Ok(())
}

/// Records how far an invitation has come for each of its invitees, as part of an operation.
pub(super) fn note_on(
    staged: &Staged<'_>,
    invitation: &Invitation,
    now: Timestamp,
) -> Result<(), StorageError> {
    let group = &invitation.group;
    for kept in &invitation.kept {
        let state = InvitationState::Reserved;
        advance_on(staged, (group, &kept.owner.clone().into()), state, now)?;
    }
    for added in &invitation.added {
        let state = InvitationState::Committed;
        advance_on(staged, (group, &added.device.clone().into()), state, now)?;
    }
    for skipped in &invitation.missing {
        skip_on(staged, invitation, skipped, now)?;
    }
    for wanted in invitation.wanted.iter().filter(|_| !invitation.is_automatic) {
        advance_on(staged, (group, &wanted.invitee), InvitationState::Asked, now)?;
    }
    // A user is named by devices once these are known.
    for user in invitation.invitees.iter().filter(|invitee| invitee.device.is_none()) {
        let is_wanted = invitation.wanted.iter().any(|wanted| wanted.invitee == *user);
        let is_missing = invitation.missing.iter().any(|skipped| skipped.invitee == *user);
        if !is_wanted && !is_missing {
            remove_on(staged, group, user);
        }
    }
    Ok(())
}

/// Records that an invitee was not added. It waits for a package if that is all that is missing; an invitation
/// that this device has made by itself is tried again after a passing fault.
fn skip_on(
    staged: &Staged<'_>,
    invitation: &Invitation,
    skipped: &SkippedInvitee,
    now: Timestamp,
) -> Result<(), StorageError> {
    let is_due = invitation.is_automatic && may_pass(&skipped.why);
    let state = match &skipped.why {
        // Nobody has that name.
        SkipReason::InvalidName { .. } => return Ok(()),
        SkipReason::PoolExhausted => InvitationState::Waiting,
        _ if is_due => InvitationState::Waiting,
        why => InvitationState::Skipped { why: why.clone() },
    };
    let is_waiting = state == InvitationState::Waiting;
    let advanced = advance_on(staged, (&invitation.group, &skipped.invitee), state, now)?;
    match advanced.filter(|_| is_waiting) {
        Some(record) => put_on(staged, &InvitationRecord { is_due, is_awaited: false, ..record }),
        None => Ok(()),
    }
}

/// Records the leaves that a Commit has added, as part of the operation that merges it. Devices that were
/// added in the place of a dead leaf were invited again.
pub(super) fn note_leaves_on(
    (staged, identity): (&Staged<'_>, &DeviceIdentity),
    invitation: &Invitation,
    now: Timestamp,
) -> Result<(), StorageError> {
    let group = &invitation.group;
    let leaves = device_leaves_on(staged, identity, group)?;
    for added in &invitation.added {
        let Some(mut record) = find_on(staged, group, &added.device.clone().into())? else {
            continue;
        };
        if invitation.is_automatic && record.leaf.is_some() {
            record.reinvited_at = Some(now);
        }
        let is_it = |(device, _): &&(PoolId, Hash)| *device == added.device;
        record.leaf = leaves.iter().find(is_it).map(|(_, mark)| *mark);
        record.waiting_since = None;
        put_on(staged, &record)?;
    }
    Ok(())
}

/// Records the answer of a device to a Welcome of this one. Nothing changes where no answer is awaited: a
/// newer invitation of the device is under way, or none is known.
pub(crate) fn answer_on(
    staged: &Staged<'_>,
    (group, device): (&GroupId, &PoolId),
    answer: InvitationAnswer,
    now: Timestamp,
) -> Result<(), StorageError> {
    let Some(mut record) = find_on(staged, group, &device.clone().into())? else { return Ok(()) };
    let was_added = record.state == InvitationState::Committed;
    if !was_added && !matches!(record.state, InvitationState::Expired | InvitationState::Cancelled)
    {
        return Ok(());
    }
    record.state = match answer {
        InvitationAnswer::Joined => InvitationState::Joined,
        InvitationAnswer::Failed { reason } => InvitationState::Failed { reason },
        InvitationAnswer::Declined => InvitationState::Declined,
        InvitationAnswer::Expired => InvitationState::Expired,
    };
    let last = record.reinvited_at;
    let is_first = last.is_none_or(|last| last.after(REINVITED_AGAIN) <= now);
    record.is_due = was_added && is_first && is_mended_by_a_package(answer);
    record.since = now;
    put_on(staged, &record)
}

/// Records that a device has packages again: its invitations that wait for one go on.
pub(crate) fn resume_waiting_on(staged: &Staged<'_>, device: &PoolId) -> Result<(), StorageError> {
    for record in open_records(staged)? {
        let is_meant = record.invitee.means(device.user(), Some(device.device()));
        if is_meant && record.state == InvitationState::Waiting {
            put_on(staged, &InvitationRecord { is_due: true, ..record })?;
        }
    }
    Ok(())
}

/// Cancels the invitations of devices that were removed from a group, and of users without any device left
/// in it, as part of the operation that removes them.
pub(crate) fn cancel_removed_on(
    (staged, identity): (&Staged<'_>, &DeviceIdentity),
    group: &GroupId,
    removed: &[PoolId],
    now: Timestamp,
) -> Result<(), StorageError> {
    let open = open_records(staged)?.into_iter().filter(|record| record.group == *group);
    let open: Vec<InvitationRecord> = open.collect();
    if open.is_empty() {
        return Ok(());
    }
    let leaves = device_leaves_on(staged, identity, group)?;
    let staying: BTreeSet<&str> = leaves.iter().map(|(device, _)| device.user()).collect();
    let is_gone = |record: &InvitationRecord| {
        let meant = |gone: &PoolId| record.invitee.means(gone.user(), Some(gone.device()));
        let user = record.invitee.user.as_str();
        let is_out = removed.iter().any(|gone| gone.user() == user) && !staying.contains(user);
        is_out || removed.iter().any(|gone| record.invitee.device.is_some() && meant(gone))
    };
    for record in open.into_iter().filter(is_gone) {
        end_on(staged, record, InvitationState::Cancelled, now)?;
    }
    Ok(())
}

/// Ends the invitation of a record, as part of an operation.
pub(super) fn end_on(
    staged: &Staged<'_>,
    record: InvitationRecord,
    state: InvitationState,
    now: Timestamp,
) -> Result<(), StorageError> {
    let ended = InvitationRecord { state, since: now, is_due: false, is_awaited: false, ..record };
    put_on(staged, &ended)
}

/// The end of an invitation that has waited too long; `None` while it may wait.
pub(super) fn overdue(record: &InvitationRecord, now: Timestamp) -> Option<InvitationState> {
    let is_over = |since: Timestamp| since.after(WAIT_MAX) <= now;
    match &record.state {
        InvitationState::Waiting if is_over(record.waiting_since.unwrap_or(record.since)) => {
            Some(InvitationState::Expired)
        }
        InvitationState::Committed if is_over(record.since) => Some(InvitationState::Expired),
        InvitationState::Failed { reason } if is_over(record.since) => {
            Some(InvitationState::Failed { reason: *reason })
        }
        _ => None,
    }
}

/// The marks of the leaves of devices that were added to a group and have not joined: an invitation of the
/// device replaces its leaf.
pub(super) fn dead_leaves_on(
    staged: &Staged<'_>,
    group: &GroupId,
) -> Result<BTreeSet<Hash>, StorageError> {
    let mut records = all_in(staged, &format!("{OPEN_PREFIX}{}/", hex(group)))?;
    records.extend(all_in(staged, &format!("{ENDED_PREFIX}{}/", hex(group)))?);
    let dead = records.into_iter().filter(|record| !record.is_added());
    Ok(dead.filter_map(|record| record.leaf).collect())
}

pub(super) fn put_on(staged: &Staged<'_>, record: &InvitationRecord) -> Result<(), StorageError> {
    let (group, invitee) = (&record.group, &record.invitee);
    remove_on(staged, group, invitee);
    let prefix = if record.has_ended() { ENDED_PREFIX } else { OPEN_PREFIX };
    staged.put_app_record(&name(prefix, group, invitee), record)
}

pub(super) fn remove_on(staged: &Staged<'_>, group: &GroupId, invitee: &Invitee) {
    for prefix in [OPEN_PREFIX, ENDED_PREFIX] {
        staged.remove_app_record(&name(prefix, group, invitee));
    }
}

/// Takes the record of an invitee to another state. A device that is in the group by an earlier invitation
/// keeps the record of that one: then there is `None`.
pub(super) fn advance_on(
    staged: &Staged<'_>,
    (group, invitee): (&GroupId, &Invitee),
    state: InvitationState,
    now: Timestamp,
) -> Result<Option<InvitationRecord>, StorageError> {
    let found = find_on(staged, group, invitee)?;
    let mut record = found.unwrap_or_else(|| InvitationRecord::new(group, invitee.clone(), now));
    if record.is_added() {
        if leaf_marks_on(staged, group)?.into_iter().any(|mark| record.leaf == Some(mark)) {
            return Ok(None);
        }
        record.leaf = None;
    }
    if record.state != state {
        (record.state, record.since) = (state, now);
        (record.is_due, record.is_awaited) = (false, false);
    }
    match record.state {
        InvitationState::Waiting => {
            record.waiting_since.get_or_insert(now);
        }
        InvitationState::Asked => record.waiting_since = None,
        _ => {}
    }
    put_on(staged, &record)?;
    Ok(Some(record))
}

fn find_on(
    staged: &Staged<'_>,
    group: &GroupId,
    invitee: &Invitee,
) -> Result<Option<InvitationRecord>, StorageError> {
    let open = staged.app_record(&name(OPEN_PREFIX, group, invitee))?;
    if open.is_some() { Ok(open) } else { staged.app_record(&name(ENDED_PREFIX, group, invitee)) }
}

fn all_in(staged: &Staged<'_>, prefix: &str) -> Result<Vec<InvitationRecord>, StorageError> {
    let mut found = Vec::new();
    for name in staged.app_record_names(prefix)? {
        found.extend(staged.app_record::<InvitationRecord>(&name)?);
    }
    Ok(found)
}

fn is_too_old(ended: &InvitationRecord, now: Timestamp) -> bool {
    ended.since.after(ENDED_AGE_MAX) <= now
}

/// Whether the device may join by another package.
const fn is_mended_by_a_package(answer: InvitationAnswer) -> bool {
    match answer {
        InvitationAnswer::Failed { reason } => !matches!(reason, WelcomeFault::Untrusted),
        _ => false,
    }
}

/// Whether the same invitation may succeed later without anybody's doing.
const fn may_pass(why: &SkipReason) -> bool {
    matches!(
        why,
        SkipReason::OverQuota { .. }
            | SkipReason::ReservationLost { .. }
            | SkipReason::Unanswered
            | SkipReason::Abandoned { .. }
    )
}

fn name(prefix: &str, group: &GroupId, invitee: &Invitee) -> String {
    format!("{prefix}{}/{invitee}", hex(group))
}

fn hex(group: &GroupId) -> String {
    HEXLOWER.encode(group.as_bytes())
}

#[cfg(test)]
mod tests {
    use keypool_ledger::{Clock, SystemClock};

    use super::*;
    use crate::LocalStore;

    const UNTRUSTED: InvitationAnswer =
        InvitationAnswer::Failed { reason: WelcomeFault::Untrusted };
    const KEYS_GONE: InvitationAnswer = InvitationAnswer::Failed { reason: WelcomeFault::KeysGone };

    fn group() -> GroupId {
        GroupId::new(b"g").unwrap()
    }

    fn record(number: usize, state: InvitationState, since: Timestamp) -> InvitationRecord {
        let invitee = Invitee::from(format!("user{number}/main"));
        InvitationRecord { state, ..InvitationRecord::new(&group(), invitee, since) }
    }

    /// Whether the device is invited again after an answer, where it was invited again then.
    fn is_due_after(answer: InvitationAnswer, reinvited_at: Option<Timestamp>) -> bool {
        let (home, now) = (tempfile::tempdir().unwrap(), SystemClock.now());
        let store = LocalStore::open(home.path(), &"alice".parse().unwrap()).unwrap();
        let staged = store.stage().unwrap();
        let committed = record(1, InvitationState::Committed, now);
        put_on(&staged, &InvitationRecord { reinvited_at, ..committed }).unwrap();
        let device: PoolId = "user1/main".parse().unwrap();
        answer_on(&staged, (&group(), &device), answer, now).unwrap();
        let found = invitation_records(&staged, now).unwrap();
        assert_eq!(found.len(), 1);
        assert_ne!(found[0].is_due, found[0].has_ended());
        found[0].is_due
    }

    #[test]
    fn a_device_is_invited_again_once_within_a_day_and_not_if_it_does_not_trust_or_want_to() {
        let ago = |hours| Some(SystemClock.now().before(Duration::from_hours(hours)));
        assert!(is_due_after(KEYS_GONE, None));
        assert!(!is_due_after(KEYS_GONE, ago(23)));
        assert!(is_due_after(KEYS_GONE, ago(25)));
        assert!(!is_due_after(UNTRUSTED, None));
        for answer in
            [InvitationAnswer::Joined, InvitationAnswer::Declined, InvitationAnswer::Expired]
        {
            assert!(!is_due_after(answer, None));
        }
    }

    #[test]
    fn a_thousand_ended_invitations_are_kept_for_thirty_days() {
        let (home, now) = (tempfile::tempdir().unwrap(), SystemClock.now());
        let store = LocalStore::open(home.path(), &"alice".parse().unwrap()).unwrap();
        let staged = store.stage().unwrap();
        for number in 0..ENDED_MAX + 2 {
            let since = now.before(Duration::from_secs(number as u64));
            put_on(&staged, &record(number, InvitationState::Joined, since)).unwrap();
        }
        let old = now.before(Duration::from_hours(31 * 24));
        put_on(&staged, &record(ENDED_MAX + 2, InvitationState::Committed, old)).unwrap();
        prune_on(&staged, now).unwrap();
        let kept = invitation_records(&staged, now).unwrap();
        assert_eq!(kept.len(), ENDED_MAX + 1);
        assert!(!kept.iter().any(|record| record.invitee.user == format!("user{ENDED_MAX}")));
        let later = now.after(Duration::from_hours(31 * 24));
        assert_eq!(invitation_records(&staged, later).unwrap().len(), 1);
    }
}
