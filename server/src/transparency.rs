//! The public ledger: a tree over the log, signed checkpoints, proofs and receipts.
//!
//! A [`Follower`] reads the log behind the committer, grows the tree, and signs its hash, at most once in
//! an interval. A checkpoint is on the disk before anyone sees it, and every start compares the log with
//! the last one: its end at once, all of it behind. A published checkpoint is never contradicted. The tiles
//! are a projection that is mended where it differs.

mod durable;

mod identity;

mod tiles;

mod tree_builder;

mod scrub;

mod follower;

mod restore;

use std::{
    error::Error,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use keypool_api::{ConsistencyReply, InclusionReply};
use keypool_ledger::{ReadError, Record, Timestamp, codec};
use keypool_projections::statement::LedgerId;
use keypool_transparency::{
    Checkpoint, CheckpointError, HandOut, Inclusion, NoteError, NoteKey, NoteSigner, ProofError,
    Receipt, ReceiptFile, ReceiptStanding, SignedArtifact, SignedNote, Tile, TimeStatement,
    TreeHash, prove_consistency, prove_inclusion, subtree,
};
use tokio::sync::watch;

pub(crate) use self::durable::Durable;
use self::tiles::Tiles;
pub(crate) use self::{
    follower::{Follower, RunningFollower},
    identity::prepare_identity,
    restore::{earlier_folders, quarantine, set_aside},
};

/// The places of a ledger's files, beside the log.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// The key that signs.
    pub(crate) key: PathBuf,
    /// The last checkpoint.
    pub(crate) checkpoint: PathBuf,
    /// The tiles.
    pub(crate) tiles: PathBuf,
}

/// Why the ledger cannot be continued. Every case but the last two says that files do not belong
/// together: going on would contradict a published checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The log is shorter than its published checkpoint.
    #[error(
        "the ledger ends at record {found}, but the checkpoint in {} was published with {published} \
         records: the data directory was set back to an older copy, or lost its end; restore a newer \
         copy of it, or say --accept-restore if that is lost",
        file.display()
    )]
    SetBack {
        /// The path of the checkpoint.
        file: PathBuf,
        /// How many records it has.
        published: u64,
        /// How many there are.
        found: u64,
    },
    /// The log holds other records than were published.
    #[error(
        "the ledger's first {published} records are not those that the checkpoint in {} was published \
         with: the data directory was changed, or went on from an older copy; restore the one that \
         the checkpoint is of",
        file.display()
    )]
    Changed {
        /// The path of the checkpoint.
        file: PathBuf,
        /// How many records it has.
        published: u64,
    },
    /// The key has signed checkpoints, and the last one is gone.
    #[error(
        "{} has signed checkpoints, but there is none in {}: mount its disk or put it back; \
         --checkpoint-file says where it is",
        key.display(), file.display()
    )]
    CheckpointMissing {
        /// The path of the key.
        key: PathBuf,
        /// The path where the checkpoint should be.
        file: PathBuf,
    },
    /// There is a checkpoint, and the key that has signed it is gone.
    #[error(
        "there is a checkpoint in {}, but its key is not in {}: put the key back from a backup",
        file.display(), key.display()
    )]
    KeyMissing {
        /// The path where the key should be.
        key: PathBuf,
        /// The path of the checkpoint.
        file: PathBuf,
    },
    /// The log has records, and its key and its checkpoint are gone or were never there.
    #[error(
        "the log has {records} records, but {} is not there: put the key back from a backup, or copy it with \
         an import. If it is lost, start once with --accept-new-ledger, and best with a new --ledger-name: \
         another ledger begins, and its key must be published",
        key.display()
    )]
    NoKey {
        /// The path where the key should be.
        key: PathBuf,
        /// How many records there are.
        records: u64,
    },
    /// The checkpoint is not one of this key.
    #[error(
        "the checkpoint in {} is damaged, or not signed by the key in {}: put back the two that \
         belong together; an older copy of the checkpoint will do",
        file.display(), key.display()
    )]
    Foreign {
        /// The path of the key.
        key: PathBuf,
        /// The path of the checkpoint.
        file: PathBuf,
    },
    /// The file of the key holds something else.
    #[error("{} holds no key of a ledger: put it back from a backup", .0.display())]
    Key(PathBuf),
    /// The ledger has another name than the settings say.
    #[error(
        "the ledger is named {kept:?} since its first start, not {asked:?}: leave --ledger-name out"
    )]
    Renamed {
        /// Its name.
        kept: String,
        /// The name that was asked for.
        asked: String,
    },
    /// The name cannot be one.
    #[error(
        "{0:?} cannot name a ledger, for it has a space or a plus sign: say another --ledger-name"
    )]
    Name(String),
    /// The machine gave no random bytes.
    #[error("the machine gives no random bytes for the ledger's key")]
    Random(#[source] getrandom::Error),
    /// The checkpoint cannot be signed: a bug.
    #[error("the checkpoint cannot be signed")]
    Unsigned(#[source] NoteError),
    /// A file cannot be read or written.
    #[error("{} cannot be read or written", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why nothing can be proved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProveError {
    /// There is no such record, or no such size.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// There is no record 0.
    #[error("records begin at 1")]
    Zero,
    /// More records are asked for than have been published.
    #[error("{asked} records are not published yet; {published} are")]
    Unpublished {
        /// How many the caller asks for.
        asked: u64,
        /// How many there are.
        published: u64,
    },
    /// The tiles cannot be read.
    #[error("the tiles cannot be read")]
    Tiles(#[from] io::Error),
    /// The proof from the tiles does not fit the checkpoint.
    #[error("the tiles are not those of the checkpoint")]
    Damaged,
    /// The record is no reservation, or its text cannot be signed: a bug.
    #[error("the receipt cannot be signed")]
    Unsigned,
}

impl From<NoteError> for ProveError {
    fn from(_: NoteError) -> Self {
        Self::Unsigned
    }
}

/// A checkpoint that is on the disk.
#[derive(Clone, Debug)]
pub(crate) struct PublishedCheckpoint {
    checkpoint: Checkpoint,
    paper: SignedArtifact,
}

impl PublishedCheckpoint {
    fn signed(checkpoint: Checkpoint, signer: &NoteSigner) -> Result<Self, NoteError> {
        let note = checkpoint.sign(signer)?;
        Ok(Self {
            paper: SignedArtifact { checkpoint: checkpoint.clone(), note: Some(note) },
            checkpoint,
        })
    }

    /// How many records it has.
    pub(crate) const fn size(&self) -> u64 {
        self.checkpoint.size()
    }

    /// The signed note.
    pub(crate) fn text(&self) -> String {
        self.paper.to_string()
    }
}

/// The published ledger, for readers.
pub(crate) struct Ledger {
    signer: NoteSigner,
    earlier: Vec<LedgerId>,
    durable: Durable,
    tiles: Tiles,
    published: watch::Sender<Arc<PublishedCheckpoint>>,
    /// How many records were compared with the published tree, since the start.
    compared: AtomicU64,
    /// Whether the log was found to be another one than was published.
    refuted: watch::Sender<bool>,
}

impl Ledger {
    /// The key that verifies this ledger's signatures.
    pub(crate) fn key(&self) -> NoteKey {
        self.signer.public()
    }

    /// Signs the time for a question: see [`TimeStatement`].
    pub(crate) fn state_time(
        &self,
        nonce: [u8; 16],
        at: Timestamp,
    ) -> Result<SignedNote, NoteError> {
        TimeStatement { nonce, at }.sign(&self.signer)
    }

    /// Signs the signature base of a webhook request.
    pub(crate) fn sign_http(&self, base: &[u8]) -> Result<Vec<u8>, NoteError> {
        self.signer.sign_http(base).map(|signature| signature.to_vec())
    }

    /// The ledgers before this one, which ended when the server went on with a restored copy of its data.
    pub(crate) fn earlier(&self) -> &[LedgerId] {
        &self.earlier
    }

    /// The last checkpoint.
    pub(crate) fn published(&self) -> Arc<PublishedCheckpoint> {
        Arc::clone(&self.published.borrow())
    }

    /// The last checkpoint, now and whenever there is another.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<PublishedCheckpoint>> {
        self.published.subscribe()
    }

    /// Whether the log was found to be another one than was published, now and later.
    pub(crate) fn refuted(&self) -> watch::Receiver<bool> {
        self.refuted.subscribe()
    }

    /// How many records were compared with the published tree, since the start.
    pub(crate) fn compared(&self) -> u64 {
        self.compared.load(Ordering::Relaxed)
    }

    fn scrubbed(&self, records: u64) {
        self.compared.fetch_max(records, Ordering::Relaxed);
    }

    /// Lets nothing be published any more, and the next start compare the whole log before it serves.
    fn refute(&self, error: &(dyn Error + 'static)) {
        tracing::error!(error, "the log is not the one that was published");
        self.refuted.send_replace(true);
        if let Err(error) = suspicion(self.tiles.dir()).store(&format!("{error}\n")) {
            let error: &dyn Error = &error;
            tracing::error!(error, "the next start compares the end of the log alone");
        }
    }

    /// Stores a checkpoint, and only then lets anyone see it.
    fn publish(&self, published: PublishedCheckpoint) -> Result<(), LedgerError> {
        if *self.refuted.borrow() {
            return Ok(());
        }
        self.durable.store(&published.text())?;
        self.published.send_replace(Arc::new(published));
        Ok(())
    }

    /// The bytes of a tile; none if it is not part of the published tree.
    pub(crate) fn tile(&self, tile: Tile) -> Result<Option<Vec<u8>>, ProveError> {
        if !tile.is_in(self.published().size()) {
            return Ok(None);
        }
        Ok(Some(self.tiles.read(tile)?))
    }

    /// Shows that a record is in the tree of a size.
    pub(crate) fn inclusion(&self, seq: u64, size: u64) -> Result<InclusionReply, ProveError> {
        self.check_published(size)?;
        let index = seq.checked_sub(1).ok_or(ProveError::Zero)?;
        let hashes = prove_inclusion(index, size, &mut |range| self.hash_of(range))?;
        let leaf = self.tiles.node(0, index)?;
        let hashes = hashes.into_iter().map(Into::into).collect();
        Ok(InclusionReply { seq, size, leaf: leaf.into(), hashes })
    }

    /// Shows that the tree of one size is the beginning of that of another.
    pub(crate) fn consistency(&self, from: u64, to: u64) -> Result<ConsistencyReply, ProveError> {
        self.check_published(to)?;
        let hashes = prove_consistency(from, to, &mut |range| self.hash_of(range))?;
        Ok(ConsistencyReply { from, to, hashes: hashes.into_iter().map(Into::into).collect() })
    }

    /// Signs the receipt of a reservation's record, with the proof that it is in the last checkpoint.
    pub(crate) fn receipt(
        &self,
        record: Record,
        last_resort: bool,
        (standing, as_of): (ReceiptStanding, u64),
    ) -> Result<ReceiptFile, ProveError> {
        let hand_out = HandOut::of(record.seq, &record.envelope, last_resort);
        let hand_out = hand_out.ok_or(ProveError::Unsigned)?;
        let stored = codec::decode(&record.envelope_bytes).map_err(|_| ProveError::Damaged)?;
        let hand_out = hand_out.hidden_by(&stored);
        let ledger = self.signer.public().name().to_owned();
        let as_of = as_of.max(record.seq);
        let receipt = Receipt { ledger, hand_out, standing, as_of };
        let note = self.signer.sign(&receipt.to_string())?;
        let (published, index) = (self.published(), record.seq.saturating_sub(1));
        let hashes = prove_inclusion(index, published.size(), &mut |range| self.hash_of(range))?;
        let paper = published.paper.clone();
        let inclusion = Inclusion { envelope: record.envelope_bytes, index, hashes, paper };
        // Tiles that are damaged would prove nothing; they are mended behind.
        inclusion.check().map_err(|_| ProveError::Damaged)?;
        Ok(ReceiptFile { note, inclusion })
    }

    fn check_published(&self, asked: u64) -> Result<(), ProveError> {
        let published = self.published().size();
        if published < asked { Err(ProveError::Unpublished { asked, published }) } else { Ok(()) }
    }

    fn hash_of(&self, range: Range<u64>) -> Result<TreeHash, ProveError> {
        Ok(subtree(range, &mut |level, index| self.tiles.node(level, index))?)
    }
}

/// The file that says that tiles and log were found to differ.
fn suspicion(tiles: &Path) -> Durable {
    Durable::at(&tiles.join("differs"))
}

/// A checkpoint of a name that can be signed.
fn checkpoint_of(name: &str, size: u64, root: TreeHash) -> Result<Checkpoint, LedgerError> {
    Checkpoint::new(name, size, root).map_err(|CheckpointError| LedgerError::Name(name.to_owned()))
}
