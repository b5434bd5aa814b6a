//! The auditor's part of keypool: reads a log from any source, verifies it, and checks the invariants.
//!
//! Its program is `keypool-ledger`. The [`invariants`] read the events alone and share no function
//! with the rules of `keypool-projections`; [`replay`], which shows a pool at any moment, runs these, and [`verify`] the
//! rule of retention.

pub mod source;

pub mod export;

pub mod verify;

pub mod invariants;

pub mod replay;

pub mod names;
