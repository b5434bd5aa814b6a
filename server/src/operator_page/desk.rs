//! The state of the operator's page: its folds, and the browsers that have signed in.

use std::sync::atomic::{AtomicBool, Ordering};

use keypool_operator_page::OperatorPage;

use super::sessions::Sessions;

/// The page, and the browsers that have signed in to it.
#[derive(Debug, Default)]
pub(crate) struct OperatorDesk {
    pub(crate) page: OperatorPage,
    pub(crate) sessions: Sessions,
    /// Whether a task reads the log for the page: from the first request on.
    is_followed: AtomicBool,
}

impl OperatorDesk {
    /// Whether the caller is the one to read the log for the page: true the first time.
    pub(super) fn begin_following(&self) -> bool {
        !self.is_followed.swap(true, Ordering::Relaxed)
    }
}
