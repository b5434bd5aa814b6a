//! A keypool device for Python, Kotlin and Swift: the client library as one object with asynchronous functions.
//!
//! [`Device`] is the façade of `keypool-client` over the server's own delivery. Names are those of the Rust library;
//! records and enums are plain, names and ids are text. `docs/bindings.md` says how a module is generated and called.
//!
//! Every call runs on threads of the library's own, so an app's event loop is never blocked. A call that is cancelled
//! is like a crash at that moment: the next one, or the `resume_` functions, go on.

uniffi::setup_scaffolding!();

mod database;
mod device;
mod error;
mod keystore;
mod options;
mod records;
mod runtime;
mod values;

pub use crate::{
    database::{AppDatabase, AppDatabaseError, StoredChange, StoredEntry},
    device::Device,
    error::DeviceError,
    keystore::{AppKeystore, AppKeystoreError},
    options::{DeviceOptions, SharedDeviceKey},
    records::{
        AuditReport, DriftReport, FindingReport, InvitationReport, InvitationResumption,
        MessageResumption, RefreshReport, UntrustedLeaf, UpdateResumption,
    },
    runtime::shut_down,
    values::{group_bytes, group_id},
};
