//! The steps of a write, between which the tests let the machine fail.

use std::io;

/// A moment of a write.
#[cfg_attr(
    not(all(feature = "sled-store", feature = "sqlite-store")),
    allow(dead_code, reason = "each database has its steps")
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteStep {
    /// Some slots of new values are written.
    SlotsWritten,
    /// All slots of new values are durable.
    SlotsDurable,
    /// The database has the batch, in memory at least.
    Applied,
    /// The database has made it durable.
    Durable,
    /// The witness knows of it.
    Acknowledged,
    /// Some slots of values that are no more are overwritten.
    SlotsErased,
    /// All of them are, durably.
    Erased,
    /// Another key file stands beside the present one.
    Rewrapped,
    /// It has taken its place.
    ChangedOver,
    /// All entries are in another database, durably.
    Copied,
    /// The other database is the home's.
    Moved,
}

/// Lets a test look at the disk at this moment, or fail the write here. Nothing but that.
#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "a test makes it fail")]
pub(super) const fn reach(_step: WriteStep) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(super) use self::planned::{plan, reach};

#[cfg(test)]
mod planned {
    use std::cell::RefCell;

    use super::{WriteStep, io};

    /// The action of a test at each step.
    type StepAction = Box<dyn FnMut(WriteStep) -> io::Result<()>>;

    thread_local! {
        static PLAN: RefCell<Option<StepAction>> = const { RefCell::new(None) };
    }

    /// Runs the action that the test has planned.
    pub(in crate::storage) fn reach(step: WriteStep) -> io::Result<()> {
        PLAN.with_borrow_mut(|plan| plan.as_mut().map_or(Ok(()), |plan| plan(step)))
    }

    /// Plans an action at the steps of this thread's writes; `None` for nothing.
    pub(in crate::storage) fn plan(planned: Option<StepAction>) {
        PLAN.set(planned);
    }
}
