//! The sources that an auditor reads a log from: an export, a journal's directory, a copy of a data
//! directory, or a running server.
//!
//! Reading changes nothing. Records come one after the other, so that a log of any length can be read.

pub(crate) mod error;

mod refusals;

mod server;

use std::{
    cell::RefCell,
    fs, io,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use keypool_ledger::{EventEnvelope, JournalReader, Names, RawRecord, ReadLock, TornTail, codec};

pub use self::{error::SourceError, refusals::DayOfRefusals};
use crate::export::{ExportReader, Manifest};

/// Something that a log can be read from.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    kind: SourceKind,
    server: Option<server::ServerSource>,
    names: RefCell<KnownNames>,
    /// Nobody opens the directory as a log while it is being read.
    _lock: Option<ReadLock>,
}

/// The names in a log that hides them.
#[derive(Debug, Default)]
struct KnownNames {
    names: Names,
    /// Whether the whole log was read for them: they may stand behind the records that need them.
    is_whole: bool,
}

/// The kind of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A file with a manifest at its end.
    Export,
    /// A directory of segments.
    Journal,
    /// A data directory, in which there is a journal.
    Data,
    /// A running server, by the address of its operator's listener.
    Server,
}

impl SourceKind {
    /// The words for it.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Export => "an export",
            Self::Journal => "a journal",
            Self::Data => "a data directory",
            Self::Server => "a server",
        }
    }
}

/// The end of a source, once all records were seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceEnd {
    /// The manifest of an export.
    pub manifest: Option<Manifest>,
    /// The end of a journal that is no whole frame, and that nobody was answered for.
    pub torn: Option<TornTail>,
    /// The reason to doubt a journal's word on its own end.
    pub doubt: Option<&'static str>,
}

impl Source {
    /// Opens the source at a path.
    ///
    /// With the feature `tool`, `http://ADDRESS:PORT` names a server by its operator's listener.
    ///
    /// # Errors
    ///
    /// Returns a [`SourceError`] if it holds no log, or a process has it open, or a server does not
    /// answer.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        if let Some(server) = server::ServerSource::named(path)? {
            server.greet()?;
            return Ok(Self { server: Some(server), ..Self::of(path, SourceKind::Server, None) });
        }
        let found = fs::metadata(path).map_err(SourceError::io(path))?;
        if !found.is_dir() {
            ExportReader::open(path)?;
            return Ok(Self::of(path, SourceKind::Export, None));
        }
        let journal = path.join("journal");
        if journal.is_dir() {
            let lock = Some(ReadLock::take(path)?);
            return Ok(Self::of(&journal, SourceKind::Data, lock));
        }
        if segments(path).map_err(SourceError::io(path))?.is_empty() {
            return Err(SourceError::Unknown(path.to_owned()));
        }
        // A journal's own folder is read with the lock of the data directory around it.
        let around = path.canonicalize().ok().filter(|path| path.ends_with("journal"));
        let lock = around.as_deref().and_then(Path::parent).map(ReadLock::take).transpose()?;
        Ok(Self::of(path, SourceKind::Journal, lock))
    }

    fn of(path: &Path, kind: SourceKind, lock: Option<ReadLock>) -> Self {
        Self { path: path.to_owned(), kind, server: None, names: RefCell::default(), _lock: lock }
    }

    /// The kind of source.
    #[must_use]
    pub const fn kind(&self) -> SourceKind {
        self.kind
    }

    /// The size of the source's files in bytes, for a progress bar; 0 for a server, whose size is unknown.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let len = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
        match self.kind {
            SourceKind::Export => len(&self.path),
            SourceKind::Journal | SourceKind::Data => {
                segments(&self.path).unwrap_or_default().iter().map(|path| len(path)).sum()
            }
            SourceKind::Server => 0,
        }
    }

    /// Shows all records in order, until `visit` breaks off; the source's own account of its end is
    /// unknown then.
    ///
    /// # Errors
    ///
    /// Returns a [`SourceError`] at the first place where the bytes are not those that were written.
    pub fn visit(
        &self,
        visit: &mut dyn FnMut(RawRecord<'_>) -> ControlFlow<()>,
    ) -> Result<SourceEnd, SourceError> {
        self.visit_after(0, visit)
    }

    /// As [`Source::visit`], with the records after a position only.
    ///
    /// A server is not even asked for those before; of everything else all bytes are read.
    ///
    /// # Errors
    ///
    /// As [`Source::visit`].
    pub fn visit_after(
        &self,
        after: u64,
        visit: &mut dyn FnMut(RawRecord<'_>) -> ControlFlow<()>,
    ) -> Result<SourceEnd, SourceError> {
        if let Some(server) = &self.server {
            return server.visit(after, visit).map(|()| SourceEnd::default());
        }
        let mut visit = |raw: RawRecord<'_>| {
            if raw.seq <= after { ControlFlow::Continue(()) } else { visit(raw) }
        };
        if self.kind == SourceKind::Export {
            let manifest = ExportReader::open(&self.path)?.visit(&mut visit)?;
            return Ok(SourceEnd { manifest, ..SourceEnd::default() });
        }
        let mut reader = JournalReader::open(&self.path)?;
        reader.visit(&mut visit)?;
        let (torn, doubt) = (reader.torn_tail().cloned(), reader.doubt());
        Ok(SourceEnd { manifest: None, torn, doubt })
    }

    /// As [`Source::visit`], with every envelope decoded, and with the names of users and devices as far as the
    /// log still has them.
    ///
    /// # Errors
    ///
    /// As [`Source::visit`]; and if the bytes of a record are no envelope.
    pub fn read(
        &self,
        visit: &mut dyn FnMut(RawRecord<'_>, EventEnvelope) -> ControlFlow<()>,
    ) -> Result<SourceEnd, SourceError> {
        self.read_after(0, visit)
    }

    /// As [`Source::read`], with the records after a position only.
    ///
    /// # Errors
    ///
    /// As [`Source::read`].
    pub fn read_after(
        &self,
        after: u64,
        visit: &mut dyn FnMut(RawRecord<'_>, EventEnvelope) -> ControlFlow<()>,
    ) -> Result<SourceEnd, SourceError> {
        let mut failure = None;
        let end = self.visit_after(after, &mut |raw| match self.decoded(&raw) {
            Ok(envelope) => visit(raw, envelope),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        })?;
        failure.map_or(Ok(end), Err)
    }

    fn decoded(&self, raw: &RawRecord<'_>) -> Result<EventEnvelope, SourceError> {
        let mut envelope = codec::decode(raw.envelope_bytes).map_err(|err| {
            let what = format!("record {}: {err}", raw.seq);
            SourceError::Damaged { file: raw.file.to_owned(), offset: raw.offset, what }
        })?;
        self.reveal(raw, &mut envelope)?;
        Ok(envelope)
    }

    /// Puts the names of users and devices in the places of their pseudonyms in a record, as far as the log has
    /// them.
    ///
    /// # Errors
    ///
    /// As [`Source::visit`], of which the whole log is read once for the names.
    pub fn reveal(
        &self,
        raw: &RawRecord<'_>,
        envelope: &mut EventEnvelope,
    ) -> Result<(), SourceError> {
        if envelope.schema != codec::SCHEMA_PSEUDONYMS {
            return Ok(());
        }
        let mut known = self.names.borrow_mut();
        known.names.see(envelope, raw.payload);
        if known.names.reveal(envelope, raw.payload) || known.is_whole {
            return Ok(());
        }
        let KnownNames { names, is_whole } = &mut *known;
        *is_whole = true;
        let mut see = |raw: RawRecord<'_>| {
            // A record that cannot be read is told where it is asked for.
            if let Ok(envelope) = codec::decode(raw.envelope_bytes) {
                names.see(&envelope, raw.payload);
            }
            ControlFlow::Continue(())
        };
        self.visit(&mut see)?;
        known.names.reveal(envelope, raw.payload);
        Ok(())
    }
}

/// The segments of a journal, in no order.
fn segments(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "seg") {
            segments.push(path);
        }
    }
    Ok(segments)
}
