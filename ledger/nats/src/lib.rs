//! The replicated log on NATS JetStream: an adapter between [`keypool_ledger::ReplicatedLog`] and a stream of a
//! cluster of NATS servers.
//!
//! Each frame is one message of one stream, published if the stream still ends where the sender believes
//! (`Nats-Expected-Last-Sequence`), so several servers may write without an election.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use keypool_ledger::{ReplicatedLog, ReplicatedLogOptions, SledLog, SledLogOptions};
//! use keypool_nats::{NatsCredentials, NatsReplication, NatsSettings};
//!
//! let settings = NatsSettings::new("nats://a:4222,nats://b:4222,nats://c:4222", "prod")?
//!     .with_credentials(NatsCredentials::NkeySeed("/etc/keypool/nats.nk".into()));
//! let stream = Arc::new(NatsReplication::connect(&settings)?);
//! let copy = Arc::new(SledLog::open("data".as_ref(), SledLogOptions::default())?);
//! let log = ReplicatedLog::open(copy, stream, ReplicatedLogOptions::default(), &|_, _| true)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cursor;

mod error;

mod fitness;

mod link;

mod reader;

mod replication;

mod settings;

mod status;

pub use self::{
    error::NatsError,
    replication::NatsReplication,
    settings::{NatsCredentials, NatsSettings, NatsTls},
};
