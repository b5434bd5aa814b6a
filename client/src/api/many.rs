//! Packages of many devices at once, and packages that could not be used.

use keypool_api::{ReportReply, ReportRequest, ReserveManyReply, ReserveManyRequest};
use keypool_ledger::CommandId;

use super::{ApiClient, ApiError};

impl ApiClient {
    /// Reserves a package of each device of some users. Who has none is named in the answer.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]; its code is `bad_request` if they are too many.
    pub async fn reserve_many(
        &self,
        request: &ReserveManyRequest,
        id: CommandId,
    ) -> Result<ReserveManyReply, ApiError> {
        self.post("/keypackages/reserve-many", request, id).await
    }

    /// Says that a reserved package cannot be used: it is not offered again, and the claim has ended.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]; its code is `reservation_lost` if the reservation has ended.
    pub async fn report(
        &self,
        request: &ReportRequest,
        id: CommandId,
    ) -> Result<ReportReply, ApiError> {
        self.post("/keypackages/report", request, id).await
    }
}
