//! Opening the index of a log, or building it anew from the journal.

use std::path::Path;

use super::SledLogOptions;
use crate::log::local::{
    database::{IndexDatabase, Note, Unusable, remove_set_aside},
    directory::OpenError,
    disk, histories,
    index::{Index, IndexError, IndexSettings},
    journal::{self, Contents, Journal},
};

/// A database with its note of the journal, or the reason why it is of no use.
pub(super) type OpenedDatabase = Result<(IndexDatabase, Option<Note>), Unusable>;

/// Opens the database of a log, unless it belongs to another journal than the one that is here.
pub(super) fn own_database(
    dir: &Path,
    journal_dir: &Path,
    options: &SledLogOptions,
) -> Result<OpenedDatabase, OpenError> {
    let database = match IndexDatabase::open(dir, options.cache_bytes, options.fingerprint_bits)? {
        Ok(database) => database,
        Err(unusable) => return Ok(Err(unusable)),
    };
    let note = match database.note() {
        Ok(note) => note,
        Err(error) => return Ok(Err(Unusable::damaged(error))),
    };
    Ok(match (note, journal::id_in(journal_dir)) {
        (Some(note), Some(id)) if id != note.journal => {
            Err(Unusable::damaged("it is of another journal"))
        }
        _ => Ok((database, note)),
    })
}

/// Opens the index, anew if the database is of no use or holds another history than the journal.
pub(super) fn open_index(
    dir: &Path,
    found: OpenedDatabase,
    journal: &Journal,
    settings: &IndexSettings,
) -> Result<Index, OpenError> {
    let contents = journal.contents();
    let unusable = match found {
        Err(unusable) => unusable,
        Ok((database, note)) if agrees(note, journal) => {
            // A note was written by this version, after the check of the open before it.
            if note.is_none() && database.runs().is_ok_and(|runs| runs.is_empty()) {
                histories::check(&contents.dir)?;
            }
            match Index::open(database, &contents, settings) {
                Ok(index) => return Ok(index),
                Err(IndexError::Journal(error)) => return Err(error),
                Err(IndexError::Database(error)) => Unusable::damaged(error),
            }
        }
        Ok(_) => Unusable::damaged("it holds another history than the journal"),
    };
    disk::probe(dir)?;
    histories::check(&contents.dir)?;
    let index = build_index(dir, &unusable.reason, &contents, settings)?;
    if unusable.other_layout {
        remove_set_aside(dir)?;
    }
    Ok(index)
}

/// Builds the index anew from the journal, in a database of its own.
pub(super) fn build_index(
    dir: &Path,
    reason: &str,
    contents: &Contents,
    settings: &IndexSettings,
) -> Result<Index, OpenError> {
    let shown = dir.display();
    tracing::warn!(%shown, reason, "the index is built anew from the journal");
    let database = IndexDatabase::renew(dir, settings.cache_bytes, settings.fingerprint_bits)?;
    match Index::open(database, contents, settings) {
        Ok(index) => Ok(index),
        Err(IndexError::Journal(error)) => Err(error),
        Err(IndexError::Database(error)) => {
            Err(disk::name_full_disk(dir, OpenError::Engine(Box::new(error))))
        }
    }
}

/// Whether the last record that the database knows of is the journal's.
fn agrees(note: Option<Note>, journal: &Journal) -> bool {
    let Some(Note { seq, envelope, .. }) = note.filter(|note| note.seq != 0) else { return true };
    let record = journal.segments().records(seq, seq, 1).ok().and_then(|mut found| found.pop());
    record.is_some_and(|record| record.stream_head().hash == envelope)
}
