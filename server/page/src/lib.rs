//! The operator's page: pools at risk, one pool and its history, and the biography of everything in the log.
//!
//! The page is HTML made on the server, of the records of an [`EventLog`](keypool_ledger::EventLog) and of the
//! figures of a [`PageSource`]. [`OperatorPage`] answers paths; the server only hands them over. [`PoolsOverview`] is a
//! fold of all pools that is small enough for every pool of a large server. Read the modules in this order.
//!
//! ```
//! use keypool_ledger::{EventLog, MemoryLog};
//! use keypool_operator_page::PoolsOverview;
//!
//! let log = MemoryLog::default();
//! let mut overview = PoolsOverview::default();
//! for record in log.read(1, 4096)? {
//!     overview.apply(record.seq, &record.envelope);
//! }
//! assert_eq!(overview.open_reservations(), 0);
//! # Ok::<(), keypool_ledger::ReadError>(())
//! ```

mod overview;

mod source;

mod metrics_text;

mod disk_forecast;

mod history;

mod introductions;

mod suspensions;

mod biography;

mod action;

mod assets;

mod views;

mod page;

mod api_document;

pub use crate::{
    action::Action,
    api_document::{API_STYLE, api_page, api_style},
    overview::{MinuteCounts, PoolAtRisk, PoolsOverview},
    page::{CONTENT_SECURITY_POLICY, OperatorPage, PageReply},
    source::PageSource,
};
