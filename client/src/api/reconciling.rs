//! Whether the server and this device know the same of the device's pool.

use keypool_api::{ReconcileReply, ReconcileRequest};
use keypool_ledger::CommandId;

use super::{ApiClient, ApiError};

impl ApiClient {
    /// Compares the device's list of live packages with the server's. Changes nothing.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]; its code is `too_large` if more than 256 packages are named.
    pub async fn reconcile(
        &self,
        request: &ReconcileRequest,
        id: CommandId,
    ) -> Result<ReconcileReply, ApiError> {
        self.post("/keypackages/reconcile", request, id).await
    }
}
