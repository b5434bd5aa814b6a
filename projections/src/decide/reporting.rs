//! Reports of packages that could not be used.

use keypool_ledger::{Event, ReleaseReason, RevokeReason};

use super::Draft;
use crate::{
    command::{Answer, Claim, Rejection},
    lifecycle::Stage,
    pool::ReservationStatus,
};

/// The number of users whose reports withdraw a package that the server would admit again.
const REPORTERS_TO_WITHDRAW: usize = 3;

impl Draft<'_> {
    /// Notes that a holder could not use a package, and ends the claim. The package is withdrawn if the
    /// server would not admit it again, or if so many users have reported it.
    pub(super) fn report(
        &mut self,
        claim: &Claim,
        check: Option<&String>,
        admissible: bool,
    ) -> Result<Answer, Rejection> {
        let (package, made) = self.claimed(claim)?;
        let (keypackage_ref, reservation) = (claim.keypackage_ref.clone(), claim.reservation);
        let is_over = Stage::Spent < package.stage;
        match made.status {
            ReservationStatus::Open => {}
            ReservationStatus::Spent { .. } => return Err(Rejection::AlreadySpent(keypackage_ref)),
            ReservationStatus::Cancelled
                if is_over || package.reported_by.contains(claim.holder.user()) =>
            {
                return Ok(Answer::Reported);
            }
            _ => return Err(Rejection::ReservationLost(reservation)),
        }
        if !is_over && admissible {
            let (keypackage_ref, check) = (keypackage_ref.clone(), check.cloned());
            self.record(Event::Reported { keypackage_ref, reservation, check })?;
        }
        let reporters = self.package(&keypackage_ref)?.reported_by.len();
        if !is_over && (!admissible || REPORTERS_TO_WITHDRAW <= reporters) {
            let (keypackage_ref, check) = (keypackage_ref.clone(), check.cloned());
            let reason = RevokeReason::Reported;
            self.record(Event::Revoked { keypackage_ref, reason, check })?;
        }
        let reason = ReleaseReason::Cancelled;
        self.record(Event::Released { keypackage_ref, reservation, reason })?;
        Ok(Answer::Reported)
    }
}
