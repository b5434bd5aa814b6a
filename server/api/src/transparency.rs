//! The ledger on the wire: proofs as hashes, and the records themselves for the operator.
//!
//! Checkpoints and receipts are texts of their own ([`keypool_transparency`]).

use keypool_ledger::Record;
use keypool_transparency::TreeHash;
use serde::{Deserialize, Serialize};

use super::{Base64, EventView};

/// The answer to `GET /ledger/proof/inclusion`: that a record is in the tree of a size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InclusionReply {
    /// The record's place in the log, from 1; its leaf is the one before, from 0.
    pub seq: u64,
    /// How many records the tree has.
    pub size: u64,
    /// The hash of the record's leaf.
    pub leaf: Base64,
    /// The hashes beside the way from the leaf to the root, from the leaf up (RFC 6962 section 2.1.1).
    pub hashes: Vec<Base64>,
}

/// The answer to `GET /ledger/proof/consistency`: that a tree has only grown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConsistencyReply {
    /// How many records the tree had.
    pub from: u64,
    /// How many it has.
    pub to: u64,
    /// The hashes that show it (RFC 6962 section 2.1.2).
    pub hashes: Vec<Base64>,
}

/// The answer to `GET /ledger/events` on the operator's own listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LedgerEventsReply {
    /// The records, in the order of the log.
    pub events: Vec<LedgerEvent>,
    /// Whether more follow: ask again after the last position.
    pub more: bool,
}

/// One record of the log, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LedgerEvent {
    /// The stream of the record, as `pool/alice/phone`.
    pub stream: String,
    /// The event, and the stored bytes of the envelope: the leaf of the tree.
    #[serde(flatten)]
    pub event: EventView,
    /// The bytes that go with it: a package, a Commit, a message; empty for most, and if pruned.
    pub payload: Base64,
}

impl From<&Record> for LedgerEvent {
    fn from(record: &Record) -> Self {
        Self {
            stream: record.envelope.stream.to_string(),
            event: EventView::from(record),
            payload: Base64(record.payload.clone()),
        }
    }
}

impl From<TreeHash> for Base64 {
    fn from(hash: TreeHash) -> Self {
        Self(hash.0.to_vec())
    }
}
