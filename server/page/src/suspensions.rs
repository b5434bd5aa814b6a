//! The operator's word on a user: the user's suspensions, in the server's own history.

use std::collections::VecDeque;

use keypool_ledger::{Event, EventLog, ReadError, StreamId};
use keypool_projections::explanation::device_sentence;

use crate::history::for_each;

/// How many events are told: the last ones.
const TOLD_MAX: usize = 20;

/// The suspensions of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct UserSuspensions {
    /// Whether the user is suspended now.
    pub(crate) is_suspended: bool,
    /// The last events in sentences, each with its position in the log.
    pub(crate) told: VecDeque<(u64, String)>,
}

impl UserSuspensions {
    /// Reads the suspensions of a user.
    pub(crate) fn read(log: &dyn EventLog, of: &str) -> Result<Self, ReadError> {
        let mut read = Self::default();
        for_each(log, &StreamId::Server, |record| {
            let (Event::UserSuspended { user, .. } | Event::UserReinstated { user }) =
                &record.envelope.event
            else {
                return true;
            };
            if user == of {
                read.is_suspended = matches!(record.envelope.event, Event::UserSuspended { .. });
                if read.told.len() == TOLD_MAX {
                    read.told.pop_front();
                }
                read.told.push_back((record.seq, device_sentence(&record.envelope)));
            }
            true
        })?;
        Ok(read)
    }
}
