//! The parts of a running server that the page shows.

use std::{path::Path, time::Duration};

use keypool_api::RefusedRequest;
use keypool_ledger::{EventLog, PoolId, ReadError, Timestamp};
use keypool_projections::{Limits, PoolState, directory::DeviceChange};

/// The parts of a running server that the page shows: its log, its time and limits, and its figures.
pub trait PageSource: Send + Sync {
    /// The log that the page folds.
    fn log(&self) -> &dyn EventLog;

    /// A pool now, whose packages that are over may be counted only; `None` if it has no history or cannot be read.
    fn pool(&self, pool: &PoolId) -> Option<PoolState>;

    /// The time, as far as the server trusts its clock.
    fn now(&self) -> Timestamp;

    /// The limits, as they hold now.
    fn limits(&self) -> Limits;

    /// How long payloads stay in the log after they are over; `None` where none leaves it.
    fn retention(&self) -> Option<Duration>;

    /// The directory of the server's machine in which backups get a folder; `None` where the operator has set none.
    fn backups(&self) -> Option<&Path>;

    /// The server's metrics, in the text format of Prometheus.
    fn metrics(&self) -> String;

    /// The changes of a user's device list, in the order of the log; empty for a user who never had a device.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the log cannot be read.
    fn device_changes(&self, user: &str) -> Result<Vec<DeviceChange>, ReadError>;

    /// The refusals of a request that are recorded, by its `X-Request-Id`; none where the record cannot be read.
    fn refusals_of(&self, request_id: &str) -> Vec<RefusedRequest>;
}
