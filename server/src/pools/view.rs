//! One pool as the log has left it, and its packed form for memory and snapshots.

use keypool_ledger::{AppendError, Hash, ReadError, Record, StreamHead, StreamId, codec};
use keypool_projections::{
    IllegalChange, PoolState,
    packing::{Packer, Unpacker},
};

/// A pool as the log has left it.
#[derive(Clone, Debug, Default)]
pub struct PoolView {
    /// The fold of its events.
    pub state: PoolState,
    /// Where its history ends.
    pub head: StreamHead,
    /// The place of its last event in the log.
    pub position: u64,
}

impl PoolView {
    /// Takes in the next record of the pool's history, and checks that it is the next.
    pub(crate) fn apply(&mut self, record: &Record) -> Result<(), ReplayError> {
        let envelope = &record.envelope;
        let broken =
            |what| ReplayError::Broken { seq: record.seq, stream: envelope.stream.clone(), what };
        if envelope.version != self.head.version.saturating_add(1) {
            return Err(broken("its version"));
        }
        if envelope.prev != self.head.hash {
            return Err(broken("the hash of the record before it"));
        }
        let illegal = |source| ReplayError::Illegal { seq: record.seq, source };
        self.state.evolve(&envelope.event, envelope.at).map_err(illegal)?;
        self.head = StreamHead {
            version: envelope.version,
            hash: codec::chain_hash(&record.envelope_bytes),
            at: envelope.at,
        };
        self.position = record.seq;
        Ok(())
    }

    /// The pool as bytes, without the `init_key`s it has seen: as [`PoolState::forget`] leaves it.
    pub(crate) fn pack(&self) -> Box<[u8]> {
        let mut out = Packer::default();
        out.byte(PoolState::PACKED_FORM);
        out.number(self.head.version);
        out.array(self.head.hash.as_bytes());
        out.number(self.head.at.as_millis());
        out.number(self.position);
        self.state.pack(&mut out);
        out.into_bytes()
    }

    /// The version of the pool that some bytes are.
    pub(crate) fn packed_version(bytes: &[u8]) -> Option<u64> {
        let mut rest = Unpacker::new(bytes);
        rest.byte().filter(|fold| *fold == PoolState::PACKED_FORM)?;
        rest.number()
    }

    /// The pool that some bytes are; `None` if they are not one of this form.
    pub(crate) fn unpack(bytes: &[u8]) -> Option<Self> {
        let mut rest = Unpacker::new(bytes);
        if rest.byte()? != PoolState::PACKED_FORM {
            return None;
        }
        let (version, hash) = (rest.number()?, Hash::from_bytes(rest.array()?));
        let head = StreamHead { version, hash, at: rest.time()? };
        let position = rest.number()?;
        let state = PoolState::unpack(&mut rest)?;
        (rest.is_empty() && state.version() == version).then_some(Self { state, head, position })
    }
}

/// Why the pools could not be folded from a log.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A record does not follow the one before it in its history.
    #[error("record {seq} does not follow the one before it in {stream}: {what}")]
    Broken {
        /// Its place in the log.
        seq: u64,
        /// Its history.
        stream: StreamId,
        /// Which link is broken.
        what: &'static str,
    },
    /// A record breaks the lifecycle.
    #[error("record {seq} breaks the lifecycle")]
    Illegal {
        /// Its place in the log.
        seq: u64,
        /// How.
        #[source]
        source: IllegalChange,
    },
    /// The settings could not be recorded, and whether they were is not known.
    #[error("the settings of the server could not be recorded in the log")]
    Append(#[source] AppendError),
    /// The committer thread could not be started.
    #[error("the committer thread could not be started")]
    Thread(#[source] std::io::Error),
}
