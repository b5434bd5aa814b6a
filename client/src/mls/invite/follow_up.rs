//! Invitations that this device goes on with by itself: those that wait for a package, and those of devices
//! that could not join.

use std::collections::{BTreeMap, BTreeSet};

use keypool_api::{AwaitRequest, AwaitStatus, AwaitedDevice, ReserveTarget};
use keypool_ledger::{GroupId, PoolId};

use super::{
    invitee::{Invitee, SkipReason},
    inviter::Inviter,
    outcome::{InvitationRecord, InvitationState},
    records::{advance_on, end_on, open_records, overdue, put_on, remove_on},
};
use crate::{DeliveryService, InviteError, Staged, StorageError, storage::fresh_command};

/// How many invitees one request names.
const TARGETS_MAX: usize = 64;

impl<D: DeliveryService> Inviter<'_, D> {
    /// Goes on with all invitations that are due, and ends those that are overdue. A request that fails is
    /// made again the next time. `reinvites` says whether devices that could not join are invited again.
    pub(crate) async fn follow_up(&self, reinvites: bool) -> Result<(), StorageError> {
        let open = open_records(&self.store.stage()?)?;
        self.end_overdue(open, reinvites)?;
        self.finish_automatic().await?;
        self.resume_due().await?;
        self.await_packages().await
    }

    /// Ends the invitations that have waited too long, or whose group this device is not in any more.
    fn end_overdue(
        &self,
        open: Vec<InvitationRecord>,
        reinvites: bool,
    ) -> Result<(), StorageError> {
        if open.is_empty() {
            return Ok(());
        }
        let groups: BTreeSet<GroupId> = self.membership.groups()?.into_iter().collect();
        let staged = self.store.stage()?;
        for record in open {
            let end = match &record.state {
                _ if !groups.contains(&record.group) => Some(InvitationState::Cancelled),
                InvitationState::Failed { .. } if !reinvites => Some(record.state.clone()),
                _ => overdue(&record, self.now),
            };
            if let Some(state) = end {
                end_on(&staged, record, state, self.now)?;
            }
        }
        staged.commit()
    }

    /// Goes on with the automatic invitations that a crash or a lost answer has left unfinished.
    async fn finish_automatic(&self) -> Result<(), StorageError> {
        for invitation in self.unfinished()?.into_iter().filter(|it| it.is_automatic) {
            log(self.carry_out(invitation).await)?;
        }
        Ok(())
    }

    /// Invites the devices that are due, those of a group by one Commit. Blocked users are not invited.
    async fn resume_due(&self) -> Result<(), StorageError> {
        let open = open_records(&self.store.stage()?)?;
        let mut due: BTreeMap<GroupId, Vec<InvitationRecord>> = BTreeMap::new();
        for record in open.into_iter().filter(|record| record.is_due) {
            due.entry(record.group.clone()).or_default().push(record);
        }
        if due.is_empty() {
            return Ok(());
        }
        let blocked = match self.connection.api().policy().await {
            Ok(policy) => policy.blocked,
            Err(error) => {
                tracing::info!(%error, "invitations that are due go on later");
                return Ok(());
            }
        };
        for (group, records) in due {
            let (blocked, meant): (Vec<_>, Vec<_>) =
                records.into_iter().partition(|record| blocked.contains(&record.invitee.user));
            self.cancel_all(blocked)?;
            if !meant.is_empty() {
                let invitees = meant.into_iter().map(|record| record.invitee).collect();
                log(self.invite_by_itself(&group, invitees).await)?;
            }
        }
        Ok(())
    }

    async fn invite_by_itself(
        &self,
        group: &GroupId,
        invitees: Vec<Invitee>,
    ) -> Result<(), InviteError> {
        let invitation = self.begin(group, invitees, true).await?;
        self.carry_out(invitation).await.map(drop)
    }

    fn cancel_all(&self, records: Vec<InvitationRecord>) -> Result<(), StorageError> {
        let staged = self.store.stage()?;
        for record in records {
            end_on(&staged, record, InvitationState::Cancelled, self.now)?;
        }
        staged.commit()
    }

    /// Cancels the invitations of an invitee to a group that wait for a package or go on by themselves.
    /// Returns whether there was one. The server waits no longer for devices that no other invitation waits
    /// for.
    pub(crate) async fn cancel(
        &self,
        group: &GroupId,
        invitee: &Invitee,
    ) -> Result<bool, StorageError> {
        let open = open_records(&self.store.stage()?)?;
        let is_meant = |record: &InvitationRecord| {
            let is_it = invitee.means(&record.invitee.user, record.invitee.device.as_deref());
            let is_idle = record.is_due || record.state == InvitationState::Waiting;
            record.group == *group && is_it && is_idle
        };
        let (cancelled, others): (Vec<_>, Vec<_>) = open.into_iter().partition(is_meant);
        if cancelled.is_empty() {
            return Ok(false);
        }
        let is_free = |awaited: &&InvitationRecord| {
            awaited.is_awaited && !others.iter().any(|other| other.invitee == awaited.invitee)
        };
        let devices =
            cancelled.iter().filter(is_free).filter_map(|record| record.invitee.pool().ok());
        let stop: Vec<PoolId> = devices.collect();
        self.cancel_all(cancelled)?;
        for stop in stop.chunks(TARGETS_MAX).map(<[PoolId]>::to_vec) {
            let request = AwaitRequest { stop, ..AwaitRequest::default() };
            if let Err(error) =
                self.connection.api().await_packages(&request, fresh_command()).await
            {
                tracing::info!(%error, "the server waits for devices of cancelled invitations");
            }
        }
        Ok(true)
    }

    /// Has the server say when the devices have packages again of which none was left. Devices that it was
    /// asked about before are not named again.
    pub(super) async fn await_packages(&self) -> Result<(), StorageError> {
        let mut waiting = open_records(&self.store.stage()?)?;
        waiting.retain(|record| {
            record.state == InvitationState::Waiting && !record.is_awaited && !record.is_due
        });
        if waiting.is_empty() {
            return Ok(());
        }
        let tokens = self.connection.contact_tokens(self.now)?;
        for some in waiting.chunks(TARGETS_MAX) {
            let target = |record: &InvitationRecord| record.invitee.target(&tokens);
            let targets: Vec<ReserveTarget> = some.iter().map(target).collect();
            let request = AwaitRequest { targets, ..AwaitRequest::default() };
            let answered = self.connection.api().await_packages(&request, fresh_command()).await;
            match answered {
                Ok(reply) => self.note_awaited(some, &reply.devices)?,
                Err(error) if error.is_unanswered() => {
                    tracing::info!(%error, "the waiting list is asked again later");
                    return Ok(());
                }
                Err(error) => {
                    let why = error.code().map_or(SkipReason::Unanswered, SkipReason::from);
                    let staged = self.store.stage()?;
                    for record in some {
                        let skipped = InvitationState::Skipped { why: why.clone() };
                        end_on(&staged, record.clone(), skipped, self.now)?;
                    }
                    staged.commit()?;
                }
            }
        }
        Ok(())
    }

    /// Records the server's answer about the devices of invitees that wait.
    fn note_awaited(
        &self,
        waiting: &[InvitationRecord],
        devices: &[AwaitedDevice],
    ) -> Result<(), StorageError> {
        let staged = self.store.stage()?;
        for record in waiting {
            let its = devices.iter().filter(|device| {
                let whole_user = device.device.is_none() && device.user == record.invitee.user;
                whole_user || record.invitee.means(&device.user, device.device.as_deref())
            });
            let its: Vec<&AwaitedDevice> = its.collect();
            if its.iter().any(|device| device.device.is_some()) && record.invitee.device.is_none() {
                remove_on(&staged, &record.group, &record.invitee);
            }
            if its.is_empty() {
                let skipped = InvitationState::Skipped { why: SkipReason::Unanswered };
                end_on(&staged, record.clone(), skipped, self.now)?;
            }
            for device in its {
                self.note_device(&staged, record, device)?;
            }
        }
        staged.commit()
    }

    fn note_device(
        &self,
        staged: &Staged<'_>,
        record: &InvitationRecord,
        awaited: &AwaitedDevice,
    ) -> Result<(), StorageError> {
        let device = awaited.device.clone().or_else(|| record.invitee.device.clone());
        let invitee = Invitee { user: awaited.user.clone(), device };
        let why = awaited.code.map_or(SkipReason::PoolExhausted, SkipReason::of_invitee);
        let state = match awaited.status {
            AwaitStatus::Waiting | AwaitStatus::Available => InvitationState::Waiting,
            AwaitStatus::Refused => InvitationState::Skipped { why },
        };
        let noted = advance_on(staged, (&record.group, &invitee), state, self.now)?;
        let Some(noted) = noted.filter(|noted| noted.state == InvitationState::Waiting) else {
            return Ok(());
        };
        let is_due = awaited.status == AwaitStatus::Available;
        put_on(staged, &InvitationRecord { is_awaited: !is_due, is_due, ..noted })
    }
}

/// Logs an automatic invitation that failed: its records say of each invitee why.
fn log<T>(outcome: Result<T, InviteError>) -> Result<(), StorageError> {
    match outcome {
        Ok(_) => Ok(()),
        Err(InviteError::Storage(error)) => Err(error),
        Err(error) => {
            tracing::info!(%error, "an invitation that this device made by itself");
            Ok(())
        }
    }
}
