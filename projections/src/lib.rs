//! The meaning of the ledger: the folds of the log, and the rules that read them.
//!
//! Two pure functions carry everything:
//!
//! ```text
//! decide(state, command, now) -> events and an answer    may refuse; changes nothing
//! evolve(state, event, at)    -> state                   never refuses what decide has allowed
//! ```
//!
//! [`Pools`] is the shell around them: one thread that loads, decides, appends and evolves. Server and
//! client share this crate, and never each other. Read the modules in this order.

mod lifecycle;

mod suites;

mod pool;

mod command;

mod decide;

pub mod quota;

mod health;

pub mod reconcile;

mod delivery;

mod timeline;

mod packing;

mod pools;

pub mod fold;

pub mod source;

pub mod export;

pub mod retention;

pub mod verify;

pub mod audit;

pub mod transparency;

pub mod signing;

pub mod statement;

pub mod wire;

pub use crate::{
    command::{
        Answer, Claim, Command, ItemOutcome, ItemRefusal, LeafKey, Limits, NewPackage, NextKey,
        OnLapse, PolicyChange, PolicyStatus, Rejection, Which,
    },
    decide::Decision,
    delivery::{
        Acknowledgement, Closed, Deliveries, DeliveryLimits, DeliveryRejection, GroupChange,
        GroupState, MailboxState, Touched, Waiting,
    },
    health::{CRITICAL_WATERMARK, Health, LOW_WATERMARK, Level, SuiteCounts, TARGET},
    lifecycle::{IllegalChange, Stage, next},
    pool::{
        Circle, Counts, Identity, Package, PoolState, Registration, Reservation, ReservationStatus,
    },
    pools::{
        ClockState, DeliverError, Delivered, DeliveryCommand, DeliveryRequest, ExecuteError,
        PoolView, Pools, Progress, ReplayError, Reply, Request, Target, Welcome,
    },
    timeline::{Moment, timeline},
};
