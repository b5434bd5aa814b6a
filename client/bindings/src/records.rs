//! The plain records and enums of all answers.
//!
//! A declaration under `uniffi::remote` repeats a type of the client library, which itself crosses the interface; a
//! difference between the two does not compile. A record of this crate stands for a type that UniFFI cannot carry.

mod groups;
mod mailbox;
mod peers;
mod pool;

pub use self::{
    groups::{InvitationReport, InvitationResumption, MessageResumption, UpdateResumption},
    peers::UntrustedLeaf,
    pool::{AuditReport, DriftReport, FindingReport, RefreshReport},
};

/// A count of the client library, for languages whose numbers have a size.
pub(crate) fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
