//! The HTTP server of keypool: who may ask, and how it is asked over HTTP. No rules live here.
//!
//! [`Server::start`] runs the whole server, in a program of its own or inside another's tests.
//! [`KeyPackageStore`] is the same without HTTP. Read the modules in this order.

mod admin_guard;

mod admission;

mod connections;

mod cors;

mod disk;

mod history_reads;
mod home_copies;

pub mod pools;

mod keypackage_store;

mod registration;

mod admin_command;

mod settings;

mod tls;

mod cluster;

#[cfg(feature = "cluster")]
mod cluster_command;

mod command_line;

mod server;

mod state;

mod open_requests;

mod operator_page;

mod transparency;

mod backup;

mod backup_directory;

mod erasing;

mod webhook;

mod authentication;

mod routes;

mod problem;

mod prune_turns;

mod pruning;

mod quota;

mod refusals;

mod stream_watch;

mod read_order;

mod request_log;

#[cfg(feature = "otlp")]
mod request_spans;

mod body_guard;

mod metrics;

mod openapi;

#[cfg(feature = "otlp")]
pub use crate::request_spans::{OtlpEndpoint, OtlpEndpointError};
pub use crate::{
    admin_command::{
        AdminAccess, AdminCommand, AdminCommandError, AdminVerb, BackupCommand, ReleaseName,
    },
    admission::{AdmissionError, AdmissionRules, Check, Owner, X509Roots, X509RootsError, admit},
    command_line::{
        CommandLine, CommandLineError, ConfigCommand, Invocation, LogFormat, ServerCommand,
        ServerOptions, SettingSource, UnknownVariable, completions, read_command_line,
        show_settings, unknown_variables, write_manual,
    },
    connections::TooFewDescriptors,
    cors::{CorsOrigin, CorsOriginError},
    disk::LowWater,
    keypackage_store::{
        AwaitPackages, Held, Idempotency, KeyPackageStore, ManyReservations, Reconciled, Recovered,
        Replaced, ReservationRequest, ReservationTarget, ReservedKeyPackage, ReservedMany, Saved,
        Spent, StoreError, Withdrawn,
    },
    registration::{RegistrationError, RegistrationPolicy, RegistrationSettings},
    server::{CLOSE_TIMEOUT, Ended, Server, StartError},
    settings::{OnLapseWord, Options, Settings, SettingsError},
    tls::TlsError,
    transparency::LedgerError,
    webhook::{WebhookUrl, WebhookUrlError},
};
#[cfg(feature = "cluster")]
pub use crate::{
    cluster_command::{ClusterCommand, ClusterCommandError},
    settings::{ClusterError, ClusterOptions},
};
