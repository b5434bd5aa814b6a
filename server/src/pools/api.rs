//! The requests to the pools, and their replies.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use keypool_ledger::{CommandId, Hash, KeyPackageRef, PoolId, ReadError, Timestamp};
use keypool_projections::{Answer, Command, Health, Limits, Rejection};

use super::PoolView;

/// A command on its way to a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which pool.
    pub target: Target,
    /// The command.
    pub command: Command,
    /// The caller's idempotency key.
    pub id: CommandId,
    /// The digest of the whole request, caller included: the same id with another one is refused.
    pub digest: Hash,
}

/// Which pool a command is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// This one.
    Pool(PoolId),
    /// The one that holds this package.
    Package(KeyPackageRef),
}

/// The answer to a command that was carried out; of one type, once it was taken out of all answers.
#[derive(Clone, Debug)]
pub struct Reply<A = Answer> {
    /// The pool it was carried out on.
    pub pool: PoolId,
    /// The answer.
    pub answer: A,
    /// The place of the pool's last event in the log.
    pub position: u64,
    /// Whether nothing was written for it, because it repeats an earlier request.
    pub repeated: bool,
    /// The pool afterwards, and when that was.
    pub(super) after: (Arc<PoolView>, Timestamp),
    pub(super) limits: Limits,
}

impl<A> Reply<A> {
    /// Replaces the answer by a part of it; `None` if it has no such part.
    pub(crate) fn with_part<B>(self, part: impl FnOnce(A) -> Option<B>) -> Option<Reply<B>> {
        let Self { pool, answer, position, repeated, after, limits } = self;
        Some(Reply { pool, answer: part(answer)?, position, repeated, after, limits })
    }

    /// How full the pool was afterwards.
    #[must_use]
    pub fn health(&self) -> Health {
        let (after, at) = &self.after;
        Health::of(&after.state, *at, &self.limits)
    }
}

/// Two replies that say the same are the same. How full the pool is afterwards is said of what fills or
/// empties it: a repeated answer about one package does not fold the pool as it was.
impl PartialEq for Reply {
    fn eq(&self, other: &Self) -> bool {
        let said = |reply: &Self| (reply.pool.clone(), reply.answer.clone(), reply.position);
        let fills = matches!(
            self.answer,
            Answer::Uploaded(_) | Answer::Replaced { .. } | Answer::Revoked(_)
        );
        said(self) == said(other) && (!fills || self.health() == other.health())
    }
}

/// The effect of the operator's word on a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuspensionOutcome {
    /// Whether it changed anything; false if it was so already.
    pub changed: bool,
    /// The position in the log of the event that says so; `None` for a user who was never suspended.
    pub position: Option<u64>,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// The rules refuse it.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The idempotency key was used for another request.
    #[error("idempotency key {0} was used for another request")]
    IdempotencyMismatch(CommandId),
    /// The clock has stepped back too far to hand out or spend anything.
    #[error("the server's clock stands before the last event of its log")]
    ClockRegressed,
    /// The clock has leapt ahead: nothing that depends on time is done until it is right, or accepted.
    #[error("the server's clock has leapt ahead of its log, and was not accepted yet")]
    ClockLeapt,
    /// Too many commands are waiting, or others kept coming first.
    #[error("too many commands are waiting")]
    Busy,
    /// The log took no events this time, for want of space or descriptors: nothing has changed, and
    /// repeating the command later may succeed.
    #[error("the log takes no events at the moment; nothing has changed")]
    LogRefuses,
    /// The log has failed, or the pools are closed. Nobody knows whether the command was carried
    /// out: repeating it with the same id is safe.
    #[error("the log does not take events")]
    LogUnavailable,
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// The progress of a log's replay.
#[derive(Debug, Default)]
pub struct Progress {
    read: AtomicU64,
    of: AtomicU64,
}

impl Progress {
    /// How many records were read, and how many there are. Both 0 before it has begun.
    #[must_use]
    pub fn get(&self) -> (u64, u64) {
        (self.read.load(Ordering::Relaxed), self.of.load(Ordering::Relaxed))
    }

    pub(crate) fn set(&self, read: u64, of: u64) {
        self.of.store(of, Ordering::Relaxed);
        self.read.store(read, Ordering::Relaxed);
    }
}

/// A command id that follows from a text, and the text's digest.
pub(super) fn derived_id(text: &str) -> (CommandId, Hash) {
    let digest = Hash::of(text.as_bytes());
    let mut id = [0; 16];
    id.iter_mut().zip(digest.as_bytes()).for_each(|(to, from)| *to = *from);
    (CommandId(uuid::Builder::from_random_bytes(id).into_uuid()), digest)
}
