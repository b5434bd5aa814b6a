//! The one search of the log for a request, before it waits for the committer.
//!
//! It looks for the request's idempotency key and for the reservation that it wants to make, and has the pool
//! ready. Memory answers for nearly every request; the others are searched for where waiting for a disk
//! keeps nobody else waiting. The committer adds only the records that arrived meanwhile.

use std::sync::Arc;

use keypool_ledger::{
    CommandId, EventLog, Key, PoolId, Record, ReservationId, StreamId,
    log::{find_command, find_reservation},
};
use keypool_projections::Command;

use super::{
    DeliveryCommand, DeliveryRequest, ExecuteError, PoolView, Pools, Reply, Request, Shared, Target,
};

/// The result of the search for a request.
pub(super) enum Search {
    /// Neither the request nor its reservation is in the log through this record; 0 if nothing is known.
    New(u64),
    /// The request was carried out before, with this reply.
    Answered(Box<Reply>),
    /// The request was carried out before: the reply follows from these records and the pool before them.
    Repeated(Vec<Record>),
}

impl<L: EventLog + 'static> Pools<L> {
    /// Searches for a request: in memory if that can tell, or else where a disk may be waited for.
    ///
    /// # Errors
    ///
    /// As [`Shared::search`]; [`ExecuteError::Busy`] if too many reads wait.
    pub(super) async fn searched(
        &self,
        request: Box<Request>,
    ) -> Result<(Box<Request>, Search), ExecuteError> {
        if let Some(through) = self.shared.search_memory(&request) {
            return Ok((request, Search::New(through)));
        }
        let shared = Arc::clone(&self.shared);
        let search = move || (shared.search(&request), request);
        let (found, request) = self.reads.run(search).await?;
        Ok((request, found?))
    }

    /// Decides from memory whether a request, or a reservation, may have been made before: `false` is certain.
    pub(crate) fn may_be_made(&self, id: CommandId, reservation: Option<ReservationId>) -> bool {
        let memory = self.shared.memory();
        memory.may_have(Key::Command(id), 0)
            || reservation.is_some_and(|made| memory.may_have(Key::Reservation(made), 0))
    }

    /// Finds the records of a command to the delivery, and the record through which it was searched for. The
    /// pools that it needs are in memory then.
    ///
    /// # Errors
    ///
    /// As [`Pools::searched`].
    pub(super) async fn searched_delivery(
        &self,
        request: &DeliveryRequest,
    ) -> Result<(u64, Vec<Record>), ExecuteError> {
        let through = self.shared.published().seq;
        let (id, needed) = (request.id, needed_by(&request.command));
        let is_new = !self.shared.memory().may_have(Key::Command(id), 0);
        if is_new && needed.iter().all(|target| self.shared.is_at_hand(target)) {
            return Ok((through, Vec::new()));
        }
        let shared = Arc::clone(&self.shared);
        let search = move || {
            let records = find_command(&shared.log, id, 0)?;
            needed.iter().try_for_each(|target| shared.prefetch(target))?;
            Ok((through, records))
        };
        self.reads.run(search).await?
    }
}

/// The packages that a command to the delivery spends, and the pools that it looks at.
fn needed_by(command: &DeliveryCommand) -> Vec<Target> {
    match command {
        DeliveryCommand::Commit { spends, .. } => {
            spends.iter().map(|claim| Target::Package(claim.keypackage_ref.clone())).collect()
        }
        DeliveryCommand::Await { invitees, .. } => {
            invitees.iter().map(|invitee| Target::Pool(invitee.device.clone())).collect()
        }
        _ => Vec::new(),
    }
}

impl<L: EventLog> Shared<L> {
    /// Searches memory alone for a request; `None` if only the log can tell.
    pub(super) fn search_memory(&self, request: &Request) -> Option<u64> {
        let through = self.published().seq;
        let is_made = match &request.command {
            Command::Reserve { reservation, .. } => {
                self.memory().may_have(Key::Reservation(*reservation), 0)
            }
            _ => false,
        };
        let is_new = !is_made && !self.memory().may_have(Key::Command(request.id), 0);
        (is_new && self.is_at_hand(&request.target)).then_some(through)
    }

    /// Decides whether the pool of a request, and the end of its history, are in memory.
    fn is_at_hand(&self, target: &Target) -> bool {
        let cached;
        let pool = match target {
            Target::Pool(pool) => pool,
            Target::Package(keypackage_ref) => match self.packages.get(keypackage_ref) {
                Some(package) => {
                    cached = package.pool;
                    &cached
                }
                None => return false,
            },
        };
        self.memory().has_head(&StreamId::Pool(pool.clone()))
            && (self.at_hand::<PoolView>(pool).is_some() || !self.has_history(pool))
    }

    /// Searches the log for a request, and loads the states that the committer needs for it.
    ///
    /// # Errors
    ///
    /// Returns an [`ExecuteError`] if the log cannot be read, or the request was carried out before and
    /// refused, or its idempotency key belongs to another request.
    pub(super) fn search(&self, request: &Request) -> Result<Search, ExecuteError> {
        let through = self.log.head()?.seq;
        let records = find_command(&self.log, request.id, 0)?;
        if !records.is_empty() {
            let reply = self.recorded_reply(request, &records)?;
            return Ok(
                reply.map_or(Search::Repeated(records), |reply| Search::Answered(Box::new(reply)))
            );
        }
        self.prefetch(&request.target)?;
        let is_made = match &request.command {
            Command::Reserve { reservation, .. } => {
                find_reservation(&self.log, *reservation, 0)?.is_some()
            }
            _ => false,
        };
        Ok(Search::New(if is_made { 0 } else { through }))
    }

    /// Loads the pool of a request and the end of its history, so that the committer does not wait for a disk.
    fn prefetch(&self, target: &Target) -> Result<(), ExecuteError> {
        if let Some(pool) = self.pool_of(target)? {
            self.view(&pool)?;
            self.log.stream_head(&StreamId::Pool(pool))?;
        }
        Ok(())
    }

    /// Finds the pool that a command is for; `None` if nobody has ever uploaded the package that it names.
    ///
    /// # Errors
    ///
    /// Returns an [`ExecuteError`] if the log cannot be read.
    pub(super) fn pool_of(&self, target: &Target) -> Result<Option<PoolId>, ExecuteError> {
        match target {
            Target::Pool(pool) => Ok(Some(pool.clone())),
            Target::Package(keypackage_ref) => {
                Ok(self.uploaded(keypackage_ref)?.map(|package| package.pool))
            }
        }
    }
}
