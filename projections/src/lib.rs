//! The meaning of the ledger: the folds of the log, and the rules that read them.
//!
//! Two pure functions carry everything:
//!
//! ```text
//! decide(state, command, now) -> events and an answer    may refuse; changes nothing
//! evolve(state, event, at)    -> state                   never refuses an event that decide has allowed
//! ```
//!
//! The server's `pools` are the shell around them: one thread that loads, decides, appends and evolves.
//! Nothing here reads a clock, a file or a socket. Read the modules in this order.

mod lifecycle;

mod suites;

mod required;

mod pool;

mod command;

mod decide;

pub mod quota;

mod health;

pub mod reconcile;

mod delivery;

pub mod retention;

pub mod erasure;

mod timeline;

pub mod explanation;

pub mod packing;

pub mod statement;

pub mod directory;

mod suspension;

pub use crate::{
    command::{
        Answer, Claim, Command, ItemOutcome, ItemRefusal, LeafKey, Limits, NewPackage, NextKey,
        OnLapse, PolicyChange, PolicyStatus, Rejection, Remover, RevokeScope,
    },
    decide::{Decision, ProspectiveHolder},
    delivery::{
        Acknowledgement, AwaitTarget, Closed, Deliveries, DeliveryLimits, DeliveryRejection,
        GroupState, KeepDecision, MailboxState, MembershipChange, States, Touched, Waiting,
        WaitingKind,
    },
    health::{CRITICAL_WATERMARK, Health, LOW_WATERMARK, Level, SuiteCounts, TARGET},
    lifecycle::{IllegalChange, Stage, next},
    pool::{
        Contacts, Counts, Evicted, Identity, Package, PoolState, Registration, Reservation,
        ReservationStatus, changes_identity,
    },
    required::{RequiredCapabilities, Requirement},
    suites::ED25519,
    suspension::{Suspension, SuspensionChange, Suspensions},
    timeline::{TimelineEntry, timeline},
};
