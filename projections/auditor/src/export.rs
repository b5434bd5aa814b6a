//! A log as one file that can be handed on: blocks of records, and at the end a manifest.
//!
//! ```text
//! file      magic 8 · blocks · manifest
//! block     'B' · first seq 8 · records 4 · body length 4 · body · hash 32
//! body      each: length 4 · envelope · length 4 · payload
//! manifest  'M' · length 4 · JSON · hash 32
//! ```
//!
//! Numbers are big-endian. Each hash is BLAKE3 over the hash before it (zeros for the first) and all of
//! the part it ends, so that the last one stands for the whole file. The records are byte for byte
//! those of the log.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use keypool_ledger::{EventEnvelope, Hash, RawRecord, StreamId, Timestamp};
use keypool_transparency::Tree;
use serde::{Deserialize, Serialize};

use crate::source::error::SourceError;

/// Leads every export; the last byte is the number of this format.
pub(crate) const MAGIC: [u8; 8] = *b"KPEXPRT\x01";
/// A block is closed when its body has this many bytes; only a single record makes a longer one.
const BLOCK_BYTES: usize = 64 * 1024;
/// The longest body of a block and the longest manifest, in bytes.
const BODY_BYTES_MAX: usize = 1 << 30;
const BLOCK: u8 = b'B';
const MANIFEST: u8 = b'M';

/// The manifest of an export, at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// How many records there are.
    pub records: u64,
    /// The position of the first; 0 if there is none.
    pub first_seq: u64,
    /// The position of the last; 0 if there is none.
    pub last_seq: u64,
    /// When the first was recorded.
    pub first_at: Timestamp,
    /// When the last was recorded.
    pub last_at: Timestamp,
    /// How many histories the records belong to.
    pub histories: u64,
    /// How many events of each name there are.
    pub events: BTreeMap<String, u64>,
    /// How many bytes the payloads have.
    pub payload_bytes: u64,
    /// The tree hash over all envelopes, as a checkpoint of this length has it.
    pub root: String,
    /// The hash over everything before the manifest.
    pub hash: Hash,
}

/// Writes an export, block by block.
#[derive(Debug)]
pub struct ExportWriter<W: Write> {
    out: W,
    body: Vec<u8>,
    block_first: u64,
    block_records: u32,
    block_bytes: usize,
    hash: Hash,
    manifest: Manifest,
    streams: std::collections::HashSet<StreamId>,
    tree: Tree,
}

impl ExportWriter<BufWriter<File>> {
    /// Makes the file, which must not be there.
    ///
    /// # Errors
    ///
    /// Returns the error of the operating system.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = File::options().write(true).create_new(true).open(path)?;
        Self::new(BufWriter::new(file))
    }
}

impl<W: Write> ExportWriter<W> {
    /// Begins an export.
    ///
    /// # Errors
    ///
    /// Returns the error of the operating system.
    pub fn new(mut out: W) -> io::Result<Self> {
        out.write_all(&MAGIC)?;
        Ok(Self {
            out,
            body: Vec::new(),
            block_first: 0,
            block_records: 0,
            block_bytes: BLOCK_BYTES,
            hash: Hash::ZERO,
            manifest: Manifest::default(),
            streams: std::collections::HashSet::new(),
            tree: Tree::default(),
        })
    }

    /// Closes a block when its body has so many bytes, instead of 64 KiB.
    #[must_use]
    pub fn with_blocks_of(mut self, bytes: usize) -> Self {
        self.block_bytes = bytes;
        self
    }

    /// Adds a record with the envelope that its bytes hold.
    ///
    /// # Errors
    ///
    /// Returns the error of the operating system, and an error for a record of more than 1 GiB.
    pub fn add(&mut self, raw: &RawRecord<'_>, envelope: &EventEnvelope) -> io::Result<()> {
        // A block holds what follows without a gap.
        let next = self.block_first.saturating_add(u64::from(self.block_records));
        let added = 8 + raw.envelope_bytes.len() + raw.payload.len();
        if raw.seq != next || self.block_bytes < self.body.len().saturating_add(added) {
            self.close_block()?;
            self.block_first = raw.seq;
        }
        for bytes in [raw.envelope_bytes, raw.payload] {
            let len = u32::try_from(bytes.len()).ok().filter(|_| added <= BODY_BYTES_MAX);
            let too_long = || io::Error::other(format!("record {} is too long", raw.seq));
            self.body.extend(len.ok_or_else(too_long)?.to_be_bytes());
            self.body.extend(bytes);
        }
        self.block_records = self.block_records.saturating_add(1);
        self.count(raw, envelope);
        Ok(())
    }

    fn count(&mut self, raw: &RawRecord<'_>, envelope: &EventEnvelope) {
        let manifest = &mut self.manifest;
        if manifest.records == 0 {
            (manifest.first_seq, manifest.first_at) = (raw.seq, envelope.at);
        }
        (manifest.last_seq, manifest.last_at) = (raw.seq, envelope.at);
        manifest.records = manifest.records.saturating_add(1);
        let bytes = raw.payload.len() as u64;
        manifest.payload_bytes = manifest.payload_bytes.saturating_add(bytes);
        match manifest.events.get_mut(envelope.event.name()) {
            Some(count) => *count = count.saturating_add(1),
            None => drop(manifest.events.insert(envelope.event.name().to_owned(), 1)),
        }
        if !self.streams.contains(&envelope.stream) {
            self.streams.insert(envelope.stream.clone());
        }
        self.tree.append(raw.envelope_bytes);
    }

    fn close_block(&mut self) -> io::Result<()> {
        if self.block_records == 0 {
            return Ok(());
        }
        let mut head = vec![BLOCK];
        head.extend(self.block_first.to_be_bytes());
        head.extend(self.block_records.to_be_bytes());
        head.extend(length(&self.body)?.to_be_bytes());
        let body = std::mem::take(&mut self.body);
        self.block_records = 0;
        self.put(&head, &body)
    }

    /// Writes a part of the file with its hash.
    fn put(&mut self, head: &[u8], body: &[u8]) -> io::Result<()> {
        self.hash = chained(&self.hash, head, body);
        self.out.write_all(head)?;
        self.out.write_all(body)?;
        self.out.write_all(self.hash.as_bytes())
    }

    /// Writes the manifest, and returns it with the writer.
    ///
    /// # Errors
    ///
    /// Returns the error of the operating system.
    pub fn finish(mut self) -> io::Result<(Manifest, W)> {
        self.close_block()?;
        self.manifest.histories = self.streams.len() as u64;
        self.manifest.root = self.tree.root().to_string();
        self.manifest.hash = self.hash;
        let json = serde_json::to_vec(&self.manifest)?;
        let mut head = vec![MANIFEST];
        head.extend(length(&json)?.to_be_bytes());
        self.put(&head, &json)?;
        self.out.flush()?;
        Ok((self.manifest, self.out))
    }
}

fn length(bytes: &[u8]) -> io::Result<u32> {
    u32::try_from(bytes.len()).map_err(|_| io::Error::other("a block is too long"))
}

fn chained(prev: &Hash, head: &[u8], body: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(prev.as_bytes()).update(head).update(body);
    Hash::from_bytes(*hasher.finalize().as_bytes())
}

/// Reads an export from beginning to end and checks its hashes; one block is in memory at a time.
pub(crate) struct ExportReader {
    path: PathBuf,
    input: BufReader<File>,
    len: u64,
    offset: u64,
    hash: Hash,
    records: u64,
    /// The first and the last position.
    span: Option<(u64, u64)>,
}

impl ExportReader {
    pub(crate) fn open(path: &Path) -> Result<Self, SourceError> {
        let file = File::open(path).map_err(SourceError::io(path))?;
        let len = file.metadata().map_err(SourceError::io(path))?.len();
        let input = BufReader::with_capacity(1 << 20, file);
        let hash = Hash::ZERO;
        let mut reader =
            Self { path: path.to_owned(), input, len, offset: 0, hash, records: 0, span: None };
        if reader.array()? != Some(MAGIC) {
            return Err(SourceError::Unknown(path.to_owned()));
        }
        Ok(reader)
    }

    /// Shows all records, and returns the manifest; none if `visit` broke off.
    pub(crate) fn visit(
        &mut self,
        visit: &mut dyn FnMut(RawRecord<'_>) -> ControlFlow<()>,
    ) -> Result<Option<Manifest>, SourceError> {
        loop {
            let begin = self.offset;
            match self.array()? {
                Some([BLOCK]) => {
                    if self.block(begin, visit)?.is_break() {
                        return Ok(None);
                    }
                }
                Some([MANIFEST]) => return self.manifest(begin).map(Some),
                Some([other]) => {
                    let what = format!("a block or the manifest begins here, not a byte {other}");
                    return Err(self.damaged(begin, what));
                }
                None => return Err(self.cut()),
            }
        }
    }

    fn block(
        &mut self,
        begin: u64,
        visit: &mut dyn FnMut(RawRecord<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, SourceError> {
        let Some(head) = self.array::<16>()? else { return Err(self.cut()) };
        let (first_seq, counts) = head.split_first_chunk().unwrap_or((&[0; 8], &[]));
        let first_seq = u64::from_be_bytes(*first_seq);
        if first_seq == 0 {
            // Readers ask for the records after a position, and would pass over it.
            return Err(self.damaged(begin, "the block begins at position 0; the first is 1"));
        }
        let (count, len) = (number(counts, 0), number(counts, 4));
        let body_begin = self.offset;
        let head = [&[BLOCK][..], &head].concat();
        let Some(body) = self.part(&head, len, begin)? else { return Err(self.cut()) };
        let (mut rest, mut n_records) = (body.as_slice(), 0_u64);
        while !rest.is_empty() {
            let offset = body_begin.saturating_add((body.len() - rest.len()) as u64);
            let pair = take(&mut rest).and_then(|envelope| Some((envelope, take(&mut rest)?)));
            let Some((envelope_bytes, payload)) = pair else {
                return Err(self.damaged(offset, "the lengths of a record do not fit its block"));
            };
            let seq = first_seq.saturating_add(n_records);
            self.span = Some((self.span.map_or(seq, |(first, _)| first), seq));
            n_records = n_records.saturating_add(1);
            self.records = self.records.saturating_add(1);
            let raw = RawRecord { seq, envelope_bytes, payload, file: &self.path, offset };
            if visit(raw).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        if n_records != u64::from(count) {
            let what = format!("the block says that it has {count} records, and has {n_records}");
            return Err(self.damaged(begin, what));
        }
        Ok(ControlFlow::Continue(()))
    }

    fn manifest(&mut self, begin: u64) -> Result<Manifest, SourceError> {
        let before = self.hash;
        let Some(len) = self.array::<4>()? else { return Err(self.cut()) };
        let head = [&[MANIFEST][..], &len].concat();
        let Some(json) = self.part(&head, number(&len, 0), begin)? else { return Err(self.cut()) };
        let end = self.offset;
        if self.array::<1>()?.is_some() {
            return Err(self.damaged(end, "bytes follow the manifest, which is the end"));
        }
        let manifest: Manifest = serde_json::from_slice(&json)
            .map_err(|err| self.damaged(begin, format!("the manifest cannot be read: {err}")))?;
        let found = self.span.unwrap_or_default();
        let told = (manifest.first_seq, manifest.last_seq);
        if (manifest.records, told) != (self.records, found) || manifest.hash != before {
            let what = format!(
                "the manifest speaks of {} records, {} to {}; there are {}, {} to {}",
                manifest.records, told.0, told.1, self.records, found.0, found.1
            );
            return Err(self.damaged(begin, what));
        }
        Ok(manifest)
    }

    /// The rest of a part of which the head was read, if all of it is there and its hash matches.
    fn part(&mut self, head: &[u8], len: u32, begin: u64) -> Result<Option<Vec<u8>>, SourceError> {
        if usize::try_from(len).map_or(true, |len| BODY_BYTES_MAX < len) {
            return Err(self.damaged(begin, format!("nothing that begins here has {len} bytes")));
        }
        // Only as much memory is taken as there are bytes, whatever the length says.
        let fitting = self.len.saturating_sub(self.offset).min(u64::from(len));
        let mut body = Vec::with_capacity(usize::try_from(fitting).unwrap_or_default());
        let read = (&mut self.input).take(u64::from(len)).read_to_end(&mut body);
        let n_read = read.map_err(SourceError::io(&self.path))? as u64;
        self.offset = self.offset.saturating_add(n_read);
        let Some(stored) = self.array()?.filter(|_| n_read == u64::from(len)) else {
            return Ok(None);
        };
        self.hash = chained(&self.hash, head, &body);
        if *self.hash.as_bytes() != stored {
            return Err(self.damaged(begin, "the hash of what begins here does not match"));
        }
        Ok(Some(body))
    }

    /// The next bytes; `None` if the file ends before them.
    fn array<const N: usize>(&mut self) -> Result<Option<[u8; N]>, SourceError> {
        let mut bytes = [0; N];
        match self.input.read_exact(&mut bytes) {
            Ok(()) => {
                self.offset = self.offset.saturating_add(N as u64);
                Ok(Some(bytes))
            }
            Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(err) => Err(SourceError::io(&self.path)(err)),
        }
    }

    fn damaged(&self, offset: u64, what: impl Into<String>) -> SourceError {
        SourceError::Damaged { file: self.path.clone(), offset, what: what.into() }
    }

    fn cut(&self) -> SourceError {
        let last = self.span.map_or(0, |(_, last)| last);
        let what = format!("the file ends in the middle, after record {last}, and has no manifest");
        self.damaged(self.offset, what)
    }
}

/// The big-endian number at a place.
fn number(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk);
    bytes.map_or(u32::MAX, |bytes| u32::from_be_bytes(*bytes))
}

/// Takes the bytes after a length of four bytes.
fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, behind) = rest.split_first_chunk()?;
    let (bytes, behind) = behind.split_at_checked(u32::from_be_bytes(*len) as usize)?;
    *rest = behind;
    Some(bytes)
}
