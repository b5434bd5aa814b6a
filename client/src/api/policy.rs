//! Reserve policies, and the wait before a rate-limited request may be repeated.

use std::time::Duration;

use keypool_api::{PolicyReply, PolicyRequest};
use keypool_ledger::CommandId;

use super::{ApiClient, ApiError};

impl ApiError {
    /// After how long the server says that the same request works, if it says so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(problem) => problem.retry_after_s.map(Duration::from_secs),
            _ => None,
        }
    }
}

impl ApiClient {
    /// Says who may reserve packages of the own pool, and whose invitations were joined.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]; its code is `reservation_mismatch` if one of the reservations was not spent.
    pub async fn set_policy(
        &self,
        request: &PolicyRequest,
        id: CommandId,
    ) -> Result<PolicyReply, ApiError> {
        self.post("/keypackages/policy", request, id).await
    }

    /// Returns the reserve policy and the contacts of the device's pool.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`].
    pub async fn policy(&self) -> Result<PolicyReply, ApiError> {
        self.get("/keypackages/policy", "").await
    }
}
