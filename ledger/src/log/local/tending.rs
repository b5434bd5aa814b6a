//! The threads behind a log: one keeps its index, one checks the older part of its journal.

use std::{
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use super::{core::Core, opening::build_index};
use crate::{
    Clock, SystemClock,
    log::local::{
        directory::OpenError,
        disk::{self, Ballast},
        index::Index,
        journal,
    },
};

/// The pause before something that failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause before the index is built again after that has failed: each attempt reads the journal.
const REBUILD_PAUSE_MAX: Duration = Duration::from_mins(5);
/// The pause between two looks at whether a reader still uses an index.
const READER_PAUSE: Duration = Duration::from_millis(5);

/// Keeps the index whenever it has grown or is found damaged, and the reserves on the disk, until the log is
/// closed.
pub(super) fn tend(core: &Core, ballast: &Ballast, woken: &Receiver<()>) {
    let (mut failing, mut rebuilds) = (false, Rebuilds::default());
    loop {
        if woken.recv_timeout(RETRY_PAUSE) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
        core.recover();
        let kept = ballast.keep().map_err(OpenError::io(core.dir()));
        let tended = tend_once(core, &mut rebuilds).and(kept);
        if let Err(error) = &tended
            && !failing
        {
            let error: &dyn std::error::Error = error;
            tracing::error!(
                error,
                "the disk refuses what is kept beside the journal; trying again"
            );
        }
        failing = tended.is_err();
    }
}

/// When the index may be built anew. The pause doubles with each attempt that fails.
struct Rebuilds {
    pause: Duration,
    /// The reading of the monotonic clock.
    due: Duration,
}

impl Default for Rebuilds {
    fn default() -> Self {
        Self { pause: RETRY_PAUSE, due: Duration::ZERO }
    }
}

impl Rebuilds {
    fn is_due(&self, now: Duration) -> bool {
        self.due <= now
    }

    /// Takes note of an attempt that ended at a moment.
    fn note(&mut self, succeeded: bool, now: Duration) {
        *self = if succeeded {
            Self::default()
        } else {
            let pause = self.pause.saturating_mul(2).min(REBUILD_PAUSE_MAX);
            Self { pause, due: now.saturating_add(self.pause) }
        };
    }
}

/// Writes the new part of a sound index; builds another in place of a damaged one. The log fails if that
/// shows that its journal is damaged.
fn tend_once(core: &Core, rebuilds: &mut Rebuilds) -> Result<(), OpenError> {
    if let Ok(index) = core.index() {
        let tended = index.tend();
        if !index.database().is_distrusted() {
            return tended.map_err(|error| OpenError::Engine(error.into()));
        }
    }
    if !rebuilds.is_due(SystemClock.monotonic()) {
        return Ok(());
    }
    let rebuilt = rebuild(core);
    rebuilds.note(rebuilt.is_ok(), SystemClock.monotonic());
    match rebuilt {
        Err(error) if error.is_of_the_journal() => {
            drop(core.writer().poison(error));
            Ok(())
        }
        rebuilt => rebuilt,
    }
}

/// Builds the index anew from the journal, while records are read in order and look-ups are refused.
fn rebuild(core: &Core) -> Result<(), OpenError> {
    // The old index may still answer much, so it stays while no other can be written.
    disk::probe(core.dir())?;
    let (old, contents) = core.take_index();
    if let Some(old) = old {
        close(core, old);
    }
    let reason = "the database failed while it was in use";
    core.put_index(build_index(core.dir(), reason, &contents, core.settings())?);
    tracing::info!(dir = %core.dir().display(), "the index is whole again");
    Ok(())
}

/// Closes an index when its last reader is done.
fn close(core: &Core, mut index: Arc<Index>) {
    while Arc::get_mut(&mut index).is_none() && !core.is_ending() {
        thread::sleep(READER_PAUSE);
    }
}

/// Checks the part of the journal that was not checked when it was opened, and lets the log fail where it
/// is damaged. It works a small part of the time, so that nobody is kept waiting.
pub(super) fn scrub(core: &Core, journal_dir: &Path, before: u64) {
    let pause = Duration::from_millis(250);
    let checked = journal::scrub(journal_dir, before, &mut || {
        thread::park_timeout(pause);
        !core.is_ending()
    });
    match checked {
        Ok(()) => tracing::debug!(before, "the older part of the journal is whole"),
        Err(error) => drop(core.writer().poison(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_between_rebuilds_doubles_up_to_five_minutes_and_starts_again_after_a_success() {
        let (mut rebuilds, mut now) = (Rebuilds::default(), Duration::ZERO);
        let mut pauses = Vec::new();
        for _ in 0..11 {
            assert!(rebuilds.is_due(now));
            rebuilds.note(false, now);
            let pause = rebuilds.due.saturating_sub(now);
            assert!(!rebuilds.is_due((now + pause).saturating_sub(Duration::from_millis(1))));
            pauses.push(pause.as_secs());
            now += pause;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        rebuilds.note(true, now);
        assert!(rebuilds.is_due(now));
        rebuilds.note(false, now);
        assert!(rebuilds.is_due(now + RETRY_PAUSE));
    }
}
