//! The operator's word on users, carried out in front of a batch: every command of the batch is decided after it.

use keypool_ledger::{AppendError, Event, EventLog, PoolId, ReadError, Record, StreamId};
use keypool_projections::{Command, Rejection, Suspension, SuspensionChange, Suspensions};
use tokio::sync::oneshot;

use super::{
    ExecuteError, Pools, SuspensionOutcome,
    batch::CommandBatch,
    committer::{Committer, meaning_of},
    job::{Job, Work, again},
    published::Views,
    server_stream::append,
};

impl<L: EventLog> Committer<L> {
    /// Carries out the operator's words on users. Returns the other jobs, and the words that another writer of the
    /// log was faster than.
    pub(super) fn change_suspensions(&self, jobs: Vec<Job>) -> (Vec<Job>, Vec<Job>) {
        let (mut rest, mut deferred) = (Vec::with_capacity(jobs.len()), Vec::new());
        for job in jobs {
            let Work::Suspend(change, sender) = job.work else {
                rest.push(job);
                continue;
            };
            match self.change_suspension(&change) {
                Ok(Some(outcome)) => drop(sender.send(Ok(outcome))),
                Ok(None) => deferred.extend(again(job.attempts, Work::Suspend(change, sender))),
                Err(error) => drop(sender.send(Err(error))),
            }
        }
        (rest, deferred)
    }

    /// Records the operator's word on a user; `None` if another writer came first.
    fn change_suspension(
        &self,
        change: &SuspensionChange,
    ) -> Result<Option<SuspensionOutcome>, ExecuteError> {
        let shared = self.shared();
        let (event, before) = {
            let views = shared.views();
            let user = change.user();
            if views.directory.devices_of(user).next().is_none() {
                return Err(Rejection::UnknownUser(user.to_owned()).into());
            }
            let before = views.suspensions.of(user).map(|known| known.position);
            (views.suspensions.decide(change), before)
        };
        let Some(event) = event else {
            return Ok(Some(SuspensionOutcome { changed: false, position: before }));
        };
        let now = shared.clock_guard().observe(shared.reading()).now;
        let result = append(&shared.log, shared.published(), now, event);
        self.note(&result);
        match result {
            Ok(appended) => {
                shared.publish_server_events(&appended);
                let position = appended.records.last().map(|last| last.seq);
                Ok(Some(SuspensionOutcome { changed: true, position }))
            }
            Err(AppendError::Conflict(_)) => Ok(None),
            Err(error) => Err(meaning_of(&error)),
        }
    }
}

impl<L: EventLog> CommandBatch<'_, L> {
    /// Refuses a command of a suspended user, and one that would hand out a package of theirs.
    pub(super) fn check_suspension(
        &self,
        pool: Option<&PoolId>,
        command: &Command,
    ) -> Result<(), Rejection> {
        self.shared.views().suspensions.check(pool, command)
    }

    /// Refuses a request to the delivery of a suspended user.
    pub(super) fn check_caller(&self, caller: &PoolId) -> Result<(), Rejection> {
        self.shared.views().suspensions.check_caller(caller.user())
    }

    /// Refuses to invite a device of a suspended user.
    pub(super) fn check_invitee(&self, invitee: &PoolId) -> Result<(), Rejection> {
        self.shared.views().suspensions.check_invitee(invitee.user())
    }
}

impl Views {
    /// Takes in a record of the server's own history, and has the listeners of the devices woken that it concerns.
    pub(super) fn note_suspension(&mut self, record: &Record) {
        let envelope = &record.envelope;
        if envelope.stream != StreamId::Server {
            return;
        }
        self.suspensions.evolve(record.seq, envelope.at, &envelope.event);
        if let Event::UserSuspended { user, .. } = &envelope.event {
            let devices: Vec<PoolId> = self.directory.devices_of(user).cloned().collect();
            self.woken.extend(devices);
        }
    }
}

/// The suspended users of a log, by the server's own history.
pub(super) fn suspensions_of(log: &impl EventLog) -> Result<Suspensions, ReadError> {
    let mut suspensions = Suspensions::default();
    for record in log.read_stream(&StreamId::Server, 0, usize::MAX)? {
        suspensions.evolve(record.seq, record.envelope.at, &record.envelope.event);
    }
    Ok(suspensions)
}

impl<L: EventLog + 'static> Pools<L> {
    /// Suspends a user, or reinstates one. When it answers, that is durable, and holds for every request that is
    /// decided from then on.
    ///
    /// # Errors
    ///
    /// Returns an [`ExecuteError`] if nobody ever registered under the name, or the log does not take events.
    pub async fn change_suspension(
        &self,
        change: SuspensionChange,
    ) -> Result<SuspensionOutcome, ExecuteError> {
        let (sender, answer) = oneshot::channel();
        self.enqueue(Job::new(Work::Suspend(change, sender), 0))?;
        answer.await.unwrap_or(Err(ExecuteError::LogUnavailable))
    }

    /// The suspension of a user; `None` for a user whose devices are served.
    #[must_use]
    pub fn suspension_of(&self, user: &str) -> Option<Suspension> {
        self.shared.views().suspensions.of(user).cloned()
    }

    /// Whether a user is suspended.
    pub(crate) fn is_suspended(&self, user: &str) -> bool {
        self.shared.views().suspensions.of(user).is_some()
    }

    /// The suspended users, in the order of their names.
    #[must_use]
    pub fn suspended_users(&self) -> Vec<(String, Suspension)> {
        let views = self.shared.views();
        views.suspensions.iter().map(|(user, known)| (user.to_owned(), known.clone())).collect()
    }

    /// Refuses a suspended caller.
    ///
    /// # Errors
    ///
    /// Returns [`Rejection::Suspended`] for a suspended user.
    pub fn check_caller(&self, user: &str) -> Result<(), Rejection> {
        self.shared.views().suspensions.check_caller(user)
    }
}
