//! The ledger of a key-package pool: the facts that happened, in order, and where they are kept.
//!
//! Every change in a `KeyPackage`'s life is an [`Event`], wrapped in an [`EventEnvelope`] and appended
//! to an [`EventLog`]. Nothing is ever updated. The meaning of the facts (which package is free, who
//! holds it, how full a pool is) is folded from them by the crate above this one.
//!
//! This crate treats packages as opaque bytes and does not know MLS. Read the modules in this order.

mod ids;

mod time;

mod event;

pub mod codec;

pub mod log;

#[cfg(feature = "local")]
pub use crate::log::{
    BackupError, BackupReport, CopiedFile, DiskSpace, JournalReader, JournalWriter,
    JournalWriterOptions, LogHealth, OpenError, PruneReport, RawRecord, ReadLock, RepairError,
    RepairReport, RepairedSegment, SledLog, SledLogOptions, TornTail, erase_payloads,
    repair_journal, restore_backup,
};
#[cfg(feature = "local")]
pub use crate::log::{
    FRAME_BYTES_MAX, PublishError, PublishOutcome, ReplicaHealth, ReplicaProgress, ReplicatedLog,
    ReplicatedLogOptions, Replication, ReplicationError, StreamComparison, StreamFrame,
    StreamJoinError, StreamStatus, compare_journal, publish_journal,
};
pub use crate::{
    event::{
        Event, EventEnvelope, InvitationAnswer, LeaveCause, NAME_SALT_LEN, PackageCapabilities,
        PackageFacts, ReleaseReason, ReservePolicy, RevokeReason, RuleSettings, SignedStatement,
        WelcomeFault,
    },
    ids::{
        CommandId, CredentialBytes, GroupId, Hash, KeyPackageRef, NameError, PoolId, ReservationId,
        Signature, SignatureKey, StreamId, SubjectId,
    },
    log::{
        AppendError, Appended, Batch, Conflict, EventLog, Fault, Faulty, Key, LogHead, MemoryIndex,
        MemoryLog, NameHider, NamedLog, NamedUser, Names, NewEvent, NoMemoryIndex, NoSnapshots,
        ReadError, Record, Snapshot, SnapshotStore, StreamHead, StreamWrite,
    },
    time::{Clock, ManualClock, SystemClock, Timestamp},
};
