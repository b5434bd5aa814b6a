//! Opening a sled database in any state, and closing it in spite of panics in sled.

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{atomic::AtomicBool, mpsc::sync_channel},
    thread,
    time::Duration,
};

use super::{DISTRUSTED, IndexDatabase, check, checked};
use crate::log::{
    BoxError,
    local::{
        directory::{OpenError, create_private},
        disk,
        entry::Fingerprints,
        health::error_chain,
        journal::new_key,
    },
};

/// The database's folder in the directory of the log.
const FOLDER: &str = "sled";
/// The folder that a database which is of no use is moved to.
const ASIDE: &str = "sled.damaged";
/// The folders of databases in the directory of a log.
pub(in crate::log) const FOLDERS: [&str; 2] = [FOLDER, ASIDE];
/// The number of this layout; a database that holds another one is built anew.
const LAYOUT: u8 = 4;
/// The key of that number.
const LAYOUT_KEY: [u8; 1] = *b"l";
/// The key of the secret that makes fingerprints, and of how many bits they have.
const SECRET_KEY: [u8; 1] = *b"k";
/// How often the database's lock is tried: threads of one closed in this process may still hold it.
const LOCK_TRIES: u32 = 500;
/// The pause between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// How long the threads of a database are waited for when it is closed.
const CLOSE_WAIT: Duration = Duration::from_secs(10);

/// Why a database has to be built anew from the journal.
#[derive(Debug)]
pub(in crate::log) struct Unusable {
    /// The reason, for the trace.
    pub(in crate::log) reason: String,
    /// Whether it is whole, but of the layout of another version of keypool.
    pub(in crate::log) other_layout: bool,
}

impl Unusable {
    /// A database that is damaged.
    pub(in crate::log) fn damaged(reason: impl Into<BoxError>) -> Self {
        Self { reason: error_chain(&*reason.into()), other_layout: false }
    }
}

impl IndexDatabase {
    /// Opens the database of a log, changing nothing if it is of no use.
    ///
    /// # Errors
    ///
    /// Returns an [`OpenError`] if the machine refuses, so that another database would not open either.
    pub(in crate::log) fn open(
        dir: &Path,
        cache_bytes: u64,
        bits: u32,
    ) -> Result<Result<Self, Unusable>, OpenError> {
        if dir.join(DISTRUSTED).exists() {
            return Ok(Err(Unusable::damaged("a read from it failed")));
        }
        let path = dir.join(FOLDER);
        let opened = prepare(&path).and_then(|()| guarded(|| open_patiently(&path, cache_bytes)));
        let opened = opened.map_err(Unusable::damaged).and_then(|db| Self::over(dir, db, bits));
        match opened {
            Err(unusable) if !unusable.other_layout => {
                disk::probe(dir)?;
                Ok(Err(unusable))
            }
            opened => Ok(opened),
        }
    }

    /// Moves the database aside and makes an empty one.
    pub(in crate::log) fn renew(
        dir: &Path,
        cache_bytes: u64,
        bits: u32,
    ) -> Result<Self, OpenError> {
        let (path, aside) = (dir.join(FOLDER), dir.join(ASIDE));
        remove(&aside)?;
        match fs::rename(&path, &aside) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                return Err(OpenError::io(&path)(err));
            }
            _ => {}
        }
        create_private(&path)?;
        let db = guarded(|| open_patiently(&path, cache_bytes));
        let database = db.map_err(|err| disk::name_full_disk(dir, OpenError::Engine(err)))?;
        let database = Self::over(dir, database, bits).map_err(|unusable| {
            disk::name_full_disk(dir, OpenError::Engine(unusable.reason.into()))
        })?;
        remove(&dir.join(DISTRUSTED))?;
        Ok(database)
    }

    /// Reads the layout and the secret of a database that sled has opened; an empty one is given them.
    fn over(dir: &Path, db: sled::Db, bits: u32) -> Result<Self, Unusable> {
        match guarded(|| secret_of(&db, bits)) {
            Ok(Some(secret)) => Ok(Self {
                dir: dir.to_owned(),
                db: Some(db),
                fingerprints: Fingerprints::new(secret, bits),
                distrusted: AtomicBool::new(false),
            }),
            other => {
                close(db);
                Err(match other {
                    Err(error) => Unusable::damaged(error),
                    Ok(_) => {
                        Unusable { reason: "it has another layout".into(), other_layout: true }
                    }
                })
            }
        }
    }
}

/// Reads the secret of a database; `None` if it is of another layout. An empty database is given one.
fn secret_of(db: &sled::Db, bits: u32) -> sled::Result<Option<[u8; 32]>> {
    let shown = bits.to_be_bytes();
    let layout = db.get(LAYOUT_KEY)?;
    if layout.is_none() && db.iter().next().transpose()?.is_none() {
        let secret = new_key();
        let mut batch = sled::Batch::default();
        batch.insert(&LAYOUT_KEY, &[LAYOUT]);
        batch.insert(&SECRET_KEY, checked(&SECRET_KEY, &[secret.as_slice(), &shown].concat()));
        db.apply_batch(batch)?;
        return Ok(Some(secret));
    }
    if layout.is_some_and(|layout| layout != [LAYOUT]) {
        return Ok(None);
    }
    let value = db.get(SECRET_KEY)?;
    let kept = value.as_deref().and_then(|value| value.split_first_chunk());
    let intact = kept.filter(|(stored, rest)| **stored == check(&SECRET_KEY, rest));
    let secret = intact.and_then(|(_, rest)| rest.split_first_chunk());
    match secret {
        Some((secret, of_bits)) if of_bits == shown => Ok(Some(*secret)),
        Some(_) => Ok(None),
        None => Err(sled::Error::ReportableBug("its secret is missing or damaged".into())),
    }
}

/// Makes the database's folder ready to be opened.
fn prepare(path: &Path) -> Result<(), BoxError> {
    create_private(path)?;
    Ok(remove_unfinished(path)?)
}

/// Closes a database. Its threads may have died, so this waits for them in a thread of its own, and not
/// for ever.
pub(super) fn close(db: sled::Db) {
    let (tell, closed) = sync_channel(1);
    let closing = move || {
        let flushed = guarded(|| db.flush());
        let closed = guarded(|| {
            drop(db);
            Ok(())
        });
        drop(tell.send(flushed.and(closed)));
    };
    let started = thread::Builder::new().name("keypool-sled-close".to_owned()).spawn(closing);
    let outcome = match started.map(|_| closed.recv_timeout(CLOSE_WAIT)) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err("its threads did not end".into()),
        Err(error) => Err(error.into()),
    };
    if let Err(error) = outcome {
        let error: &dyn std::error::Error = &*error;
        tracing::warn!(error, "the database was not closed in order; the journal has everything");
    }
}

/// Removes a database that was moved aside.
pub(in crate::log) fn remove_set_aside(dir: &Path) -> Result<(), OpenError> {
    remove(&dir.join(ASIDE))
}

/// Removes a file, or a directory with everything in it, if it is there.
fn remove(path: &Path) -> Result<(), OpenError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(err) => Err(err),
    };
    removed.map_err(OpenError::io(path))
}

/// Runs something in the database, whose panics are errors like others.
pub(super) fn guarded<T>(run: impl FnOnce() -> sled::Result<T>) -> Result<T, BoxError> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(BoxError::from),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("sled panicked: {}", said.unwrap_or("without a message")).into())
        }
    }
}

/// Opens a database, waiting for the threads of one that was just closed in this process.
///
/// Nobody else can hold its lock, because the directory's own lock is held.
fn open_patiently(path: &Path, cache_bytes: u64) -> sled::Result<sled::Db> {
    let config = || sled::Config::new().path(path).cache_capacity(cache_bytes);
    for _ in 0..LOCK_TRIES {
        match config().open() {
            Err(sled::Error::Io(err)) if err.to_string().contains("could not acquire lock") => {
                thread::sleep(LOCK_PAUSE);
            }
            opened => return opened,
        }
    }
    config().open()
}

/// Removes snapshots that were being written when the machine stopped: sled would not open.
fn remove_unfinished(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "generating") {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_file_a_directory_and_nothing_are_removed_and_a_path_that_cannot_be_looked_up_is_named() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("aside");
        remove(&path).unwrap();
        fs::write(&path, []).unwrap();
        let beneath = path.join("file");
        assert!(matches!(remove(&beneath), Err(OpenError::Io { path, .. }) if path == beneath));
        remove(&path).unwrap();
        fs::create_dir_all(path.join("folder")).unwrap();
        remove(&path).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
    #[test]
    fn a_machine_that_refuses_is_told_from_a_damaged_database() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join(FOLDER);
        fs::write(&file, []).unwrap();
        let open = |dir: &Path| IndexDatabase::open(dir, 1 << 20, 128);
        assert!(matches!(open(dir.path()), Ok(Err(unusable)) if !unusable.other_layout));
        assert!(matches!(open(&file), Err(OpenError::Io { .. })), "nothing is written there");
    }
}
