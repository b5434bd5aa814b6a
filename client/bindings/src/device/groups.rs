//! Groups: made, grown, shrunk.

use keypool_client::{GroupId, GroupMember, Invited, UntrustedMember};

use super::Device;
use crate::{
    DeviceError,
    records::{InvitationReport, InvitationResumption, UpdateResumption},
};

#[uniffi::export]
impl Device {
    /// Makes a group with this device as its only member, with the first ciphersuite of its pool. Draw the group's id
    /// at random.
    ///
    /// # Errors
    ///
    /// Returns the code `already_in_group` if the id is taken. Nothing has been written then.
    pub async fn create_group(&self, group: GroupId) -> Result<(), DeviceError> {
        self.call(|device| async move { device.create_group(&group) }).await
    }

    /// As `create_group`, with another ciphersuite: invitees must have packages of it.
    ///
    /// # Errors
    ///
    /// As `create_group`; `unusable_ciphersuite` if the device cannot use the suite.
    pub async fn create_group_in(
        &self,
        group: GroupId,
        ciphersuite: u16,
    ) -> Result<(), DeviceError> {
        self.call(move |device| async move { device.create_group_in(&group, ciphersuite) }).await
    }

    /// The device's groups, without those that it is leaving.
    ///
    /// # Errors
    ///
    /// Returns a code of the store.
    pub async fn groups(&self) -> Result<Vec<GroupId>, DeviceError> {
        self.call(|device| async move { device.groups() }).await
    }

    /// The members of a group.
    ///
    /// # Errors
    ///
    /// Returns the code `not_in_group`, or one of the store.
    pub async fn members(&self, group: GroupId) -> Result<Vec<GroupMember>, DeviceError> {
        self.call(|device| async move { device.members(&group) }).await
    }

    /// Invites people to a group while they are offline: a user, written `bob`, with all their devices that are not in
    /// it, or one device, written `bob/phone`. All of them are added by one Commit. Tell the user who is in `missing`.
    ///
    /// # Errors
    ///
    /// Returns the code `nobody_invited` if none of them could be added. After `unfinished` the invitation goes on with
    /// `resume_invitations`; after every other one nothing of it is left over.
    pub async fn invite(
        &self,
        group: GroupId,
        invitees: Vec<String>,
    ) -> Result<Invited, DeviceError> {
        self.call(|device| async move { device.invite(&group, invitees).await }).await
    }

    /// Goes on with the invitations that a crash or a lost answer has left unfinished. To be called when the app
    /// starts.
    ///
    /// # Errors
    ///
    /// Returns a code of the store. The error of an invitation is in its item.
    pub async fn resume_invitations(&self) -> Result<Vec<InvitationResumption>, DeviceError> {
        let resumed = self.call(|device| async move { device.resume_invitations().await }).await?;
        Ok(resumed.into_iter().map(Into::into).collect())
    }

    /// The invitations of this device, each with its state for each invitee. Nothing is sent.
    ///
    /// # Errors
    ///
    /// Returns a code of the store.
    pub async fn invitations(&self) -> Result<Vec<InvitationReport>, DeviceError> {
        let records = self.call(|device| async move { device.invitations() }).await?;
        Ok(records.into_iter().map(Into::into).collect())
    }

    /// Cancels the invitations of a user to a group, or of one of their devices, that wait for a package or would go
    /// on by themselves. Returns whether there was one.
    ///
    /// # Errors
    ///
    /// Returns a code of the store.
    pub async fn cancel_invitation(
        &self,
        group: GroupId,
        invitee: String,
    ) -> Result<bool, DeviceError> {
        self.call(|device| async move { device.cancel_invitation(&group, invitee).await }).await
    }

    /// Whether a group names keys of this device that `update_keys` should replace.
    ///
    /// # Errors
    ///
    /// Returns the code `not_in_group`, or one of the store.
    pub async fn needs_fresh_keys(&self, group: GroupId) -> Result<bool, DeviceError> {
        self.call(|device| async move { device.needs_fresh_keys(&group) }).await
    }

    /// Replaces the device's keys in a group. Due soon after joining, and after `rotate_key`.
    ///
    /// # Errors
    ///
    /// After the code `unfinished` it goes on with `resume_updates`.
    pub async fn update_keys(&self, group: GroupId) -> Result<(), DeviceError> {
        self.call(|device| async move { device.update_keys(&group).await }).await
    }

    /// Removes a user's devices from a group, or one of them if `device` is given.
    ///
    /// # Errors
    ///
    /// Returns the code `no_such_member` if nobody has that name. After `unfinished` it goes on with `resume_updates`.
    #[uniffi::method(default(device = None))]
    pub async fn remove(
        &self,
        group: GroupId,
        user: String,
        device: Option<String>,
    ) -> Result<(), DeviceError> {
        self.call(|client| async move { client.remove(&group, &user, device.as_deref()).await })
            .await
    }

    /// Commits the proposals of other members: members who want to leave are removed.
    ///
    /// # Errors
    ///
    /// After the code `unfinished` it goes on with `resume_updates`.
    pub async fn take_up_proposals(&self, group: GroupId) -> Result<(), DeviceError> {
        self.call(|device| async move { device.take_up_proposals(&group).await }).await
    }

    /// Goes on with the updates and removals that a crash or a lost answer has left unfinished. To be called when the
    /// app starts.
    ///
    /// # Errors
    ///
    /// Returns a code of the store. The error of an update is in its item.
    pub async fn resume_updates(&self) -> Result<Vec<UpdateResumption>, DeviceError> {
        let resumed = self.call(|device| async move { device.resume_updates().await }).await?;
        Ok(resumed.into_iter().map(Into::into).collect())
    }

    /// Looks all users of a group up, and returns the members that contradict the directory.
    ///
    /// # Errors
    ///
    /// Returns the code `not_in_group`, or the server's.
    pub async fn check_members(&self, group: GroupId) -> Result<Vec<UntrustedMember>, DeviceError> {
        self.call(|device| async move { device.check_members(&group).await }).await
    }

    /// Accepts the members of a group that contradict the directory: messages are sent to it again.
    ///
    /// # Errors
    ///
    /// Returns a code of the store.
    pub async fn accept_untrusted(&self, group: GroupId) -> Result<(), DeviceError> {
        self.call(|device| async move { device.accept_untrusted(&group) }).await
    }
}
