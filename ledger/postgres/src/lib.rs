//! The replicated log in PostgreSQL: an adapter between [`keypool_ledger::ReplicatedLog`] and a table on a primary
//! with synchronous standbys.
//!
//! Each frame is one row, written if the table still ends where the sender believes, so several servers may write
//! without an election. A row counts, and is shown, once the standbys have it.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use keypool_ledger::{ReplicatedLog, ReplicatedLogOptions, SledLog, SledLogOptions};
//! use keypool_postgres::{PostgresReplication, PostgresSettings};
//!
//! let settings = PostgresSettings::new("postgresql://keypool@a,b,c/keypool?sslmode=require", "prod")?
//!     .with_password_file("/etc/keypool/postgres.password".into());
//! let stream = Arc::new(PostgresReplication::connect(&settings)?);
//! let copy = Arc::new(SledLog::open("data".as_ref(), SledLogOptions::default())?);
//! let log = ReplicatedLog::open(copy, stream, ReplicatedLogOptions::default(), &|_, _| true)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod connecting;

mod error;

mod fitness;

mod link;

mod replication;

mod schema;

mod session;

mod settings;

mod tls;

pub use self::{
    error::PostgresError,
    replication::PostgresReplication,
    settings::{PostgresSettings, PostgresTls},
};
