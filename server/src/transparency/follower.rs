//! Follows the log: grows the tree behind the committer, and signs its hash.

use std::{
    io,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use actix_rt::task::JoinHandle;
use actix_web::web;
use keypool_ledger::EventLog;
use keypool_transparency::{SignedArtifact, Tree};
use tokio::sync::watch;

use super::{
    Ledger, LedgerError, Places, PublishedCheckpoint, checkpoint_of,
    durable::Durable,
    identity::LedgerIdentity,
    restore::earlier_ledgers,
    scrub::{Scrub, scrub},
    suspicion,
    tiles::Tiles,
    tree_builder::{Resumed, from_log, grow, resume},
};

/// How long to wait before a step that has failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The follower of the log. It holds the right edge of the tree only, however long the log is.
pub(crate) struct Follower<L> {
    log: L,
    tree: Tree,
    ledger: Arc<Ledger>,
    /// The comparison that is left to do behind the start.
    scrub: Option<Scrub<L>>,
}

impl<L: EventLog + Clone> Follower<L> {
    /// Holds the end of a log against its last checkpoint, and publishes where the log is now.
    ///
    /// The rest is compared once it follows; the whole at once if the tiles cannot be trusted.
    ///
    /// # Errors
    ///
    /// Returns a [`LedgerError`] if the log is not the one that was published. No checkpoint was made
    /// then.
    pub(crate) fn open(
        log: L,
        places: &Places,
        asked: Option<&str>,
        usual: &str,
    ) -> Result<Self, LedgerError> {
        let identity = LedgerIdentity::open(places, asked, usual)?;
        let durable = Durable::at(&places.checkpoint);
        let stored = stored(&durable, &identity, places)?;
        let (tiles, suspicion) = (Tiles::at(&places.tiles), suspicion(&places.tiles));
        let suspected = suspicion.load()?.is_some();
        let against = stored.as_ref().map(|stored| (&stored.checkpoint, durable.path()));
        let Resumed { mut tree, compared } = match against {
            Some(against) => resume(&log, &tiles, against, suspected)?,
            None => Resumed { tree: Tree::default(), compared: 0 },
        };
        let published_before = stored.as_ref().map(|stored| stored.checkpoint.clone());
        grow(&mut tree, &log, &tiles, u64::MAX)?;
        if suspected {
            suspicion.remove()?;
        }
        let name = identity.signer.public().name().to_owned();
        let current = checkpoint_of(&name, tree.size(), tree.root())?;
        let current = match stored {
            Some(stored) if stored.checkpoint == current => stored,
            Some(_) | None => {
                let signed = PublishedCheckpoint::signed(current, &identity.signer);
                let signed = signed.map_err(LedgerError::Unsigned)?;
                durable.store(&signed.text())?;
                signed
            }
        };
        let signer = identity.confirm(places)?;
        let ledger = Arc::new(Ledger {
            signer,
            earlier: earlier_ledgers(places)?,
            durable,
            tiles,
            published: watch::Sender::new(Arc::new(current)),
            compared: AtomicU64::new(compared),
            refuted: watch::Sender::new(false),
        });
        let rest = published_before.filter(|checkpoint| compared < checkpoint.size());
        let scrub = rest.map(|rest| Scrub::new(log.clone(), Arc::clone(&ledger), rest));
        Ok(Self { log, tree, ledger, scrub })
    }

    /// The ledger that readers see.
    pub(crate) fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }

    /// Takes in the records that were appended since, and publishes a checkpoint of them.
    fn step(&mut self) -> Result<(), LedgerError> {
        let tiles = &self.ledger.tiles;
        match grow(&mut self.tree, &self.log, tiles, u64::MAX) {
            Err(LedgerError::Io { source, .. }) if source.kind() == io::ErrorKind::InvalidData => {
                // Tiles were taken away since the start: they are made again from the first.
                let published = self.ledger.published();
                let against = (&published.checkpoint, self.ledger.durable.path());
                self.tree = from_log(&self.log, tiles, against)?;
                grow(&mut self.tree, &self.log, tiles, u64::MAX)?;
            }
            grown => grown?,
        }
        if self.tree.size() <= self.ledger.published().size() {
            return Ok(());
        }
        let name = self.ledger.key().name().to_owned();
        let current = checkpoint_of(&name, self.tree.size(), self.tree.root())?;
        let signed = PublishedCheckpoint::signed(current, &self.ledger.signer);
        self.ledger.publish(signed.map_err(LedgerError::Unsigned)?)
    }
}

/// The checkpoint that was stored last; none if none was ever published.
fn stored(
    durable: &Durable,
    identity: &LedgerIdentity,
    places: &Places,
) -> Result<Option<PublishedCheckpoint>, LedgerError> {
    let (key, file) = (places.key.clone(), durable.path().to_owned());
    let Some(text) = durable.load()? else {
        let missing = LedgerError::CheckpointMissing { key, file };
        return if identity.has_signed { Err(missing) } else { Ok(None) };
    };
    let public = identity.signer.public();
    let paper: Option<SignedArtifact> = text.parse().ok();
    let signed = paper.filter(|SignedArtifact { checkpoint, note }| {
        let by_key = note.as_ref().is_some_and(|note| note.check(&public).is_ok());
        by_key && checkpoint.origin() == public.name()
    });
    let paper = signed.ok_or(LedgerError::Foreign { key, file })?;
    Ok(Some(PublishedCheckpoint { checkpoint: paper.checkpoint.clone(), paper }))
}

/// A follower at work.
pub(crate) struct RunningFollower {
    tasks: Vec<JoinHandle<()>>,
    end: watch::Sender<bool>,
}

impl RunningFollower {
    /// Starts a follower: it works whenever something was written, and compares the rest behind.
    pub(crate) fn start<L: EventLog + Clone + 'static>(
        mut follower: Follower<L>,
        written: watch::Receiver<u64>,
        interval: Duration,
    ) -> Self {
        let (end, ending) = watch::channel(false);
        let rest = follower.scrub.take();
        let mut tasks: Vec<_> =
            rest.map(|rest| actix_rt::spawn(scrub(rest, ending.clone()))).into_iter().collect();
        tasks.push(actix_rt::spawn(follow(follower, written, ending, interval)));
        Self { tasks, end }
    }

    /// Ends it, once it has published everything that was written.
    pub(crate) async fn end(self) {
        self.end.send_replace(true);
        for task in self.tasks {
            drop(task.await);
        }
    }
}

/// Follows a log until it is told to end, and publishes once more then.
///
/// The work is done on a thread that may block; between two checkpoints at least `interval` passes.
async fn follow<L: EventLog + Clone + 'static>(
    mut follower: Follower<L>,
    mut written: watch::Receiver<u64>,
    mut end: watch::Receiver<bool>,
    interval: Duration,
) {
    let mut failing = false;
    loop {
        written.mark_unchanged();
        // Who would say it may be gone as well.
        let ending = *end.borrow() || end.has_changed().is_err();
        let stepped = web::block(move || {
            let outcome = follower.step();
            (follower, outcome)
        });
        let Ok((returned, outcome)) = stepped.await else { return };
        follower = returned;
        match &outcome {
            Ok(()) if failing => tracing::info!("checkpoints are published again"),
            Err(error) if error.is_restored_copy() => return follower.ledger.refute(error),
            Err(error) if !failing => {
                let error: &dyn std::error::Error = error;
                tracing::error!(error, "no checkpoint is published; it is tried again");
            }
            Ok(()) | Err(_) => {}
        }
        failing = outcome.is_err();
        if ending {
            return;
        }
        let pause = if failing { interval.max(RETRY) } else { interval };
        tokio::select! {
            _ = end.wait_for(|end| *end) => continue,
            () = actix_rt::time::sleep(pause) => {}
        }
        if !failing {
            tokio::select! {
                _ = end.wait_for(|end| *end) => {}
                // Who writes is gone: what there is to read was written before.
                changed = written.changed() => if changed.is_err() { return },
            }
        }
    }
}

#[cfg(test)]
mod tests;
