//! The auditor's part of keypool: reads a log from any source, verifies it, and checks the invariants.
//!
//! Its program is `keypool-ledger`. The invariants of [`audit`] read the events alone and share no function
//! with the rules of `keypool-projections`; only [`fold`], which shows a pool at any moment, runs these.

pub mod source;

pub mod export;

pub mod verify;

pub mod audit;

pub mod fold;

pub mod retention;
