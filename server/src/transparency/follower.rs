//! Follows the log: grows the tree behind the committer, and signs what it has become.

use std::{io, sync::Arc, time::Duration};

use actix_rt::task::JoinHandle;
use actix_web::web;
use keypool_ledger::EventLog;
use keypool_projections::transparency::{Checkpoint, Paper, Tree, TreeHash};
use tokio::sync::watch;

use super::{
    Ledger, LedgerError, Places, Published, checkpoint_of, durable::Durable, identity::Identity,
    tiles::Tiles,
};

/// How many records are read at a time: few, because a message may be as large as a body.
const RECORDS_AT_A_TIME: usize = 64;
/// How long to wait before trying again what has failed.
const RETRY: Duration = Duration::from_secs(1);

/// What grows the tree. It holds the right edge only, whatever the length of the log.
pub(crate) struct Follower<L> {
    log: L,
    tree: Tree,
    ledger: Arc<Ledger>,
}

impl<L: EventLog> Follower<L> {
    /// Holds a log against its last checkpoint, mends the tiles, and publishes where the log is now.
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
        let identity = Identity::open(places, asked, usual)?;
        let durable = Durable::at(&places.checkpoint);
        let stored = stored(&durable, &identity, places)?;
        let mut growth = Growth { tree: Tree::default(), tiles: Tiles::at(&places.tiles) };
        if let Some(Published { checkpoint, .. }) = &stored {
            growth.grow(&log, checkpoint.size())?;
            hold_against(checkpoint, &growth.tree, places)?;
        }
        growth.grow(&log, u64::MAX)?;
        let name = identity.signer.public().name().to_owned();
        let current = checkpoint_of(&name, growth.tree.size(), growth.tree.root())?;
        let current = match stored {
            Some(stored) if stored.checkpoint == current => stored,
            Some(_) | None => {
                let signed = Published::signed(current, &identity.signer);
                let signed = signed.map_err(LedgerError::Unsigned)?;
                durable.store(&signed.text())?;
                signed
            }
        };
        let signer = identity.confirm(places)?;
        let published = watch::Sender::new(Arc::new(current));
        let Growth { tree, tiles } = growth;
        Ok(Self { log, tree, ledger: Arc::new(Ledger { signer, durable, tiles, published }) })
    }

    /// What readers see.
    pub(crate) fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }

    /// Takes in what was appended since, and publishes a checkpoint of it.
    fn step(&mut self) -> Result<(), LedgerError> {
        let grown = grow(&mut self.tree, &self.log, &self.ledger.tiles, u64::MAX);
        if let Err(LedgerError::Io { source, .. }) = &grown
            && source.kind() == io::ErrorKind::InvalidData
        {
            // Tiles were taken away since the start: they are made again from the first.
            self.tree = Tree::default();
        }
        grown?;
        if self.tree.size() <= self.ledger.published().size() {
            return Ok(());
        }
        let name = self.ledger.key().name().to_owned();
        let current = checkpoint_of(&name, self.tree.size(), self.tree.root())?;
        let signed = Published::signed(current, &self.ledger.signer);
        self.ledger.publish(signed.map_err(LedgerError::Unsigned)?)
    }
}

/// The tree and its tiles before anyone sees them.
struct Growth {
    tree: Tree,
    tiles: Tiles,
}

impl Growth {
    fn grow(&mut self, log: &impl EventLog, until: u64) -> Result<(), LedgerError> {
        grow(&mut self.tree, log, &self.tiles, until)
    }
}

/// Grows a tree to some size, or as far as the log goes. The tiles are stored first.
fn grow(
    tree: &mut Tree,
    log: &impl EventLog,
    tiles: &Tiles,
    until: u64,
) -> Result<(), LedgerError> {
    loop {
        let room = usize::try_from(until.saturating_sub(tree.size())).unwrap_or(usize::MAX);
        let records = match room.min(RECORDS_AT_A_TIME) {
            0 => return Ok(()),
            limit => log.read(tree.size().saturating_add(1), limit)?,
        };
        if records.is_empty() {
            return Ok(());
        }
        let (mut grown, mut nodes) = (tree.clone(), Vec::new());
        for record in &records {
            let leaf = TreeHash::leaf(&record.envelope_bytes);
            grown.append_hash(leaf, &mut |node| nodes.push(node));
        }
        let failed = |source| LedgerError::Io { path: tiles.dir().to_owned(), source };
        tiles.store(nodes).map_err(failed)?;
        *tree = grown;
    }
}

/// The checkpoint that was stored last; none if none was ever published.
fn stored(
    durable: &Durable,
    identity: &Identity,
    places: &Places,
) -> Result<Option<Published>, LedgerError> {
    let (key, file) = (places.key.clone(), durable.path().to_owned());
    let Some(text) = durable.load()? else {
        let missing = LedgerError::CheckpointMissing { key, file };
        return if identity.has_signed { Err(missing) } else { Ok(None) };
    };
    let public = identity.signer.public();
    let paper: Option<Paper> = text.parse().ok();
    let signed = paper.filter(|Paper { checkpoint, note }| {
        let by_key = note.as_ref().is_some_and(|note| note.check(&public).is_ok());
        by_key && checkpoint.origin() == public.name()
    });
    let paper = signed.ok_or(LedgerError::Foreign { key, file })?;
    Ok(Some(Published { checkpoint: paper.checkpoint.clone(), paper }))
}

/// Makes sure that a tree grown to a checkpoint's size is the tree of the checkpoint.
fn hold_against(checkpoint: &Checkpoint, tree: &Tree, places: &Places) -> Result<(), LedgerError> {
    let (file, published) = (places.checkpoint.clone(), checkpoint.size());
    if tree.size() < published {
        return Err(LedgerError::SetBack { file, published, found: tree.size() });
    }
    if tree.root() != checkpoint.root() {
        return Err(LedgerError::Changed { file, published });
    }
    Ok(())
}

/// A follower at work.
pub(crate) struct Following {
    task: JoinHandle<()>,
    end: watch::Sender<bool>,
}

impl Following {
    /// Lets a follower work whenever something was written.
    pub(crate) fn start<L: EventLog + 'static>(
        follower: Follower<L>,
        written: watch::Receiver<u64>,
        interval: Duration,
    ) -> Self {
        let (end, ending) = watch::channel(false);
        Self { task: actix_rt::spawn(follow(follower, written, ending, interval)), end }
    }

    /// Ends it, once it has published everything that was written.
    pub(crate) async fn end(self) {
        self.end.send_replace(true);
        drop(self.task.await);
    }
}

/// Follows a log until it is told to end, and publishes once more then.
///
/// The work is done on a thread for what blocks; between two checkpoints at least `interval` passes.
async fn follow<L: EventLog + 'static>(
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
