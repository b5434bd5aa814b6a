//! Reservations, for apps that make their Commits with another MLS library. `invite` does all of this by itself.

use keypool_client::{
    GroupId, Invitee, KeyPackageRef, ReservationId, fresh_command,
    wire::{ClaimRequest, RenewReply, ReserveReply, ReserveRequest, SpendReply, SpendRequest},
};

use super::Device;
use crate::DeviceError;

#[uniffi::export]
impl Device {
    /// Reserves a package of a user, written `bob`, or of one device, written `bob/phone`, for an invitation to a
    /// group.
    ///
    /// # Errors
    ///
    /// Returns the server's code: `pool_exhausted`, `unknown_user`, `rate_limited` or another one.
    pub async fn reserve(
        &self,
        group: GroupId,
        invitee: String,
    ) -> Result<ReserveReply, DeviceError> {
        let Invitee { user: target_user, device: target_device } = invitee.into();
        let request = ReserveRequest { target_device, ..ReserveRequest::new(&target_user, group) };
        let reserve = self.call(|device| async move {
            device.connection().api().reserve(&request, fresh_command()).await
        });
        reserve.await
    }

    /// Asks for more time for a reservation; to be called right before the Commit is posted.
    ///
    /// # Errors
    ///
    /// Returns the server's code: `reservation_lost` if the package was handed on, `renewal_limit` after five times.
    pub async fn renew(
        &self,
        keypackage_ref: KeyPackageRef,
        reservation_id: ReservationId,
    ) -> Result<RenewReply, DeviceError> {
        let claim = ClaimRequest { keypackage_ref, reservation_id };
        let renew = self.call(|device| async move {
            device.connection().api().renew(&claim, fresh_command()).await
        });
        renew.await
    }

    /// Gives a reserved package back.
    ///
    /// # Errors
    ///
    /// Returns the server's code: `already_spent` if the reservation has spent it.
    pub async fn release(
        &self,
        keypackage_ref: KeyPackageRef,
        reservation_id: ReservationId,
    ) -> Result<(), DeviceError> {
        let claim = ClaimRequest { keypackage_ref, reservation_id };
        let release = self.call(|device| async move {
            device.connection().api().release(&claim, fresh_command()).await.map(|_| ())
        });
        release.await
    }

    /// Spends a reserved package: it is used up. To be called once the Commit is accepted.
    ///
    /// # Errors
    ///
    /// Returns the server's code: `already_spent` or `reservation_lost` if another inviter has the package.
    pub async fn spend(
        &self,
        group: GroupId,
        keypackage_ref: KeyPackageRef,
        reservation_id: ReservationId,
    ) -> Result<SpendReply, DeviceError> {
        let request =
            SpendRequest { keypackage_ref, reservation_id, group_id: group, added_by: None };
        let spend = self.call(|device| async move {
            device.connection().api().spend(&request, fresh_command()).await
        });
        spend.await
    }
}
