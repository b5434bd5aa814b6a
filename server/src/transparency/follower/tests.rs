//! Starts from the tiles, and the scrub behind them, on logs whose reads are counted.

use std::{fs, sync::Arc, time::Duration};

use keypool_ledger::{
    Batch, CommandId, Event, EventLog, Faulty, Hash, MemoryLog, NewEvent, StreamId, StreamWrite,
    Timestamp, log::append_at_head,
};
use keypool_transparency::{Tree, TreeHash};
use tokio::sync::watch;
use uuid::Uuid;

use super::{Follower, LedgerError, Places, RunningFollower, Scrub};
use crate::transparency::scrub::{ScrubError, ScrubProgress};

type Log = Arc<Faulty<MemoryLog>>;

/// More than are compared at a start, and more than a tile has.
const RECORDS: u64 = 10_000;

/// A log of so many records, each in a history of its own; one of them may be another than usual.
fn log_of(records: u64, altered: Option<u64>) -> Log {
    let log = MemoryLog::default();
    append(&log, 1..=records, altered);
    Arc::new(Faulty::new(log))
}

fn append(log: &impl EventLog, seqs: impl Iterator<Item = u64>, altered: Option<u64>) {
    let batches = seqs.map(|seq| {
        let event = NewEvent {
            at: Timestamp::from_secs(1),
            command: CommandId(Uuid::from_u128(seq.into())),
            request: Hash::of(if altered == Some(seq) { b"another" } else { b"usual" }),
            event: Event::DeviceRemoved { by_operator: false },
            payload: Vec::new(),
        };
        let stream = StreamId::Pool(format!("device-{seq}").parse().unwrap());
        Batch { writes: vec![StreamWrite { stream, expected: 0, events: vec![event] }] }
    });
    let batches: Vec<Batch> = batches.collect();
    for some in batches.chunks(100) {
        assert!(append_at_head(log, some).iter().all(Result::is_ok));
    }
}

fn root_of(log: &Log) -> TreeHash {
    let mut tree = Tree::default();
    for record in log.inner().read(1, usize::MAX).unwrap() {
        tree.append(&record.envelope_bytes);
    }
    tree.root()
}

/// A place where ten thousand records were published.
struct Place(tempfile::TempDir);

impl Place {
    fn published() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.open(&log_of(RECORDS, None)).unwrap();
        place
    }

    fn open(&self, log: &Log) -> Result<Follower<Log>, LedgerError> {
        let dir = self.0.path();
        let places = Places {
            key: dir.join("key"),
            checkpoint: dir.join("checkpoint"),
            tiles: dir.join("tiles"),
        };
        Follower::open(Arc::clone(log), &places, None, "test.example")
    }

    /// Flips a byte of a tile.
    fn flip(&self, tile: &str, byte: usize) {
        let path = self.0.path().join("tiles").join(tile);
        let mut bytes = fs::read(&path).unwrap();
        bytes[byte] ^= 1;
        fs::write(path, bytes).unwrap();
    }

    fn tile(&self, tile: &str) -> Vec<u8> {
        fs::read(self.0.path().join("tiles").join(tile)).unwrap()
    }

    /// Runs the scrub of a start to its end, without any rest.
    fn scrub(&self, log: &Log) -> Result<ScrubProgress, ScrubError> {
        let scrub = self.open(log).unwrap().scrub;
        run(&mut scrub.expect("the start has not compared everything"))
    }
}

fn run(scrub: &mut Scrub<Log>) -> Result<ScrubProgress, ScrubError> {
    loop {
        let progress = scrub.step()?;
        if progress != ScrubProgress::More {
            return Ok(progress);
        }
    }
}

#[test]
fn a_start_reads_the_end_of_the_log_alone() {
    let (place, log) = (Place::published(), log_of(RECORDS, None));
    append(&log, RECORDS + 1..=RECORDS + 10, None);
    let before = log.n_reads();
    let follower = place.open(&log).unwrap();
    // The head, six pages of the last 1024, the new ones, and nothing behind them.
    assert_eq!(log.n_reads() - before, 9);
    assert_eq!(follower.tree.root(), root_of(&log));
    assert_eq!(follower.ledger().published().size(), RECORDS + 10);
    assert_eq!(follower.ledger().compared(), 0);
}

#[test]
fn a_scrub_compares_every_record() {
    let (place, log) = (Place::published(), log_of(RECORDS, None));
    let follower = place.open(&log).unwrap();
    let (ledger, mut scrub) = (follower.ledger(), follower.scrub.unwrap());
    assert_eq!(run(&mut scrub).unwrap(), ScrubProgress::Done { mended: false });
    assert_eq!(ledger.compared(), RECORDS);
}

#[test]
fn tiles_that_are_gone_are_made_anew_from_the_whole_log() {
    let (place, log) = (Place::published(), log_of(RECORDS, None));
    fs::remove_dir_all(place.0.path().join("tiles")).unwrap();
    let follower = place.open(&log).unwrap();
    assert_eq!(follower.tree.root(), root_of(&log));
    assert!(follower.scrub.is_none(), "everything was compared");
    assert_eq!(follower.ledger().compared(), RECORDS);
    assert!(place.open(&log).unwrap().scrub.is_some(), "the next start has tiles");
}

#[test]
fn damaged_tiles_are_mended_at_the_start_or_by_the_scrub() {
    let (place, log) = (Place::published(), log_of(RECORDS, None));
    // What the tree is made of, and what is compared, at the start.
    for tile in ["1/000", "0/039", "0/037"] {
        let whole = place.tile(tile);
        place.flip(tile, if tile == "1/000" { 32 * 38 } else { 40 });
        assert!(place.open(&log).unwrap().scrub.is_none(), "{tile}");
        assert_eq!(place.tile(tile), whole);
    }
    // What nobody looks at before the scrub: a leaf, and after it the node above other leaves.
    let whole = (place.tile("0/003"), place.tile("0/020"));
    place.flip("0/003", 0);
    fs::remove_file(place.0.path().join("tiles/0/020")).unwrap();
    assert_eq!(place.scrub(&log).unwrap(), ScrubProgress::Done { mended: true });
    assert_eq!((place.tile("0/003"), place.tile("0/020")), whole);
    assert_eq!(place.scrub(&log).unwrap(), ScrubProgress::Done { mended: false });
}

#[test]
fn a_changed_record_at_the_end_is_refused_at_the_start() {
    for changed in [RECORDS - 1023, RECORDS] {
        let refused = Place::published().open(&log_of(RECORDS, Some(changed)));
        assert!(matches!(refused, Err(LedgerError::Changed { published: RECORDS, .. })));
    }
    let shorter = Place::published().open(&log_of(RECORDS - 1, None));
    assert!(matches!(shorter, Err(LedgerError::SetBack { found: 9_999, .. })));
}

#[test]
fn a_changed_record_before_the_end_is_named_by_the_scrub() {
    for changed in [1, 700, RECORDS - 1024] {
        let found = Place::published().scrub(&log_of(RECORDS, Some(changed)));
        let found = found.unwrap_err();
        assert!(matches!(found, ScrubError::Changed { record } if record == changed), "{found}");
    }
    // A damaged tile does not hide it, nor is it mended by what was changed.
    let place = Place::published();
    place.flip("0/002", 32 * 8);
    let damaged = place.tile("0/002");
    let found = place.scrub(&log_of(RECORDS, Some(700))).unwrap_err();
    assert!(matches!(found, ScrubError::Unlike { first: 521 }), "{found}");
    assert_eq!(place.tile("0/002"), damaged);
}

#[test]
fn a_scrub_goes_on_where_the_log_could_not_be_read() {
    let (place, log) = (Place::published(), log_of(RECORDS, None));
    let mut scrub = place.open(&log).unwrap().scrub.unwrap();
    scrub.step().unwrap();
    log.fail_read(log.n_reads() + 1);
    assert!(matches!(scrub.step(), Err(ScrubError::Read(_))));
    assert_eq!(run(&mut scrub).unwrap(), ScrubProgress::Done { mended: false });
}

#[actix_web::test]
async fn a_changed_record_ends_publishing_and_the_next_start() {
    let (place, log) = (Place::published(), log_of(RECORDS, Some(2)));
    let follower = place.open(&log).unwrap();
    let ledger = follower.ledger();
    let (written, writes) = watch::channel(0);
    let following = RunningFollower::start(follower, writes, Duration::ZERO);
    let mut refuted = ledger.refuted();
    let found = refuted.wait_for(|refuted| *refuted);
    drop(actix_rt::time::timeout(Duration::from_secs(30), found).await.unwrap());
    append(&log, RECORDS + 1..=RECORDS + 1, None);
    written.send_replace(RECORDS + 1);
    following.end().await;
    assert_eq!(ledger.published().size(), RECORDS);
    assert!(matches!(place.open(&log), Err(LedgerError::Changed { .. })));
    // Once the right log is put back, all is well, and forgotten.
    let right = log_of(RECORDS, None);
    assert!(place.open(&right).unwrap().scrub.is_none());
    assert!(place.open(&right).unwrap().scrub.is_some());
}

#[actix_web::test]
async fn a_scrub_ends_when_it_is_told_to() {
    let (place, log) = (Place::published(), log_of(RECORDS, None));
    let (_written, writes) = watch::channel(0);
    let following = RunningFollower::start(place.open(&log).unwrap(), writes, Duration::ZERO);
    let ended = actix_rt::time::timeout(Duration::from_secs(10), following.end());
    ended.await.unwrap();
}
