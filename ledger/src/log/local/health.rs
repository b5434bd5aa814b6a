//! The health of a log: whether it takes events, and the reason if it does not.

use std::sync::{Mutex, PoisonError};

/// Whether a log takes events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LogHealth {
    /// It takes events.
    #[default]
    Writable,
    /// It refuses events for now, and has written nothing of those it refused. It tries again by itself
    /// and at the next append.
    Refusing {
        /// The reason, for people.
        why: String,
    },
    /// It takes no more events until it is opened again.
    Failed {
        /// The reason, for people.
        why: String,
    },
}

/// The health that a journal reports and others ask for, without waiting for the disk.
#[derive(Debug, Default)]
pub(super) struct Reported(Mutex<LogHealth>);

impl Reported {
    pub(super) fn get(&self) -> LogHealth {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reports another health. A log that has failed stays so.
    pub(super) fn set(&self, health: LogHealth) {
        let mut reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*reported, LogHealth::Failed { .. }) {
            *reported = health;
        }
    }
}

/// An error with its causes, in one line.
pub(in crate::log) fn error_chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |chain, cause| format!("{chain}: {cause}"))
}
