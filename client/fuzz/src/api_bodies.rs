//! The JSON of the API: requests, replies, and the lines of its files.

use std::fmt::Debug;

use keypool_api as api;
use keypool_projections::directory::DeviceChange;
use serde::{Serialize, de::DeserializeOwned};

/// Reads JSON as the type that the first byte says. Written again it is read as the same value.
pub fn body(bytes: &[u8]) {
    let Some((kind, json)) = bytes.split_first() else { return };
    let kinds = KINDS.len();
    KINDS[usize::from(*kind) % kinds](json);
}

/// The types, each by the check of its JSON. A new one comes to the end, so that the corpus keeps its meaning.
const KINDS: &[fn(&[u8])] = &[
    check::<api::AcknowledgeReply>,
    check::<api::AcknowledgeRequest>,
    check::<api::AnswerItem>,
    check::<api::AnswerOutcome>,
    check::<api::AwaitReply>,
    check::<api::AwaitRequest>,
    check::<api::AwaitStatus>,
    check::<api::AwaitedDevice>,
    check::<api::ClaimRequest>,
    check::<api::Code>,
    check::<api::CommitReply>,
    check::<api::CommitRequest>,
    check::<api::ConsistencyReply>,
    check::<api::ContactToken>,
    check::<api::CountedRefusals>,
    check::<api::CredentialRequest>,
    check::<api::DeclaredReply>,
    check::<api::DeviceReservation>,
    check::<api::DevicesReply>,
    check::<api::EventView>,
    check::<api::EventsReply>,
    check::<api::FailedWelcome>,
    check::<api::GroupReply>,
    check::<api::GroupRequest>,
    check::<api::InclusionReply>,
    check::<api::KnownUser>,
    check::<api::LastResortNotice>,
    check::<api::LeafKeyReply>,
    check::<api::LeafKeyRequest>,
    check::<api::LedgerEvent>,
    check::<api::LedgerEventsReply>,
    check::<api::LevelNotice>,
    check::<api::MailboxItem>,
    check::<api::MailboxKind>,
    check::<api::MailboxReply>,
    check::<api::MessageReply>,
    check::<api::MessageRequest>,
    check::<api::MissingDevice>,
    check::<api::NotKept>,
    check::<api::Outcome>,
    check::<api::PackageState>,
    check::<api::PolicyReply>,
    check::<api::PolicyRequest>,
    check::<api::PoolCounts>,
    check::<api::PoolStatus>,
    check::<api::Problem>,
    check::<api::ReconcileReply>,
    check::<api::ReconcileRequest>,
    check::<api::ReconciledPackage>,
    check::<api::RecoverReply>,
    check::<api::RecoverRequest>,
    check::<api::RecoveryKeyRequest>,
    check::<api::RefusalLine>,
    check::<api::RefusedRequest>,
    check::<api::RegisterReply>,
    check::<api::RegisterRequest>,
    check::<api::ReleaseReply>,
    check::<api::RemoveReply>,
    check::<api::RemoveRequest>,
    check::<api::RenewReply>,
    check::<api::ReportReason>,
    check::<api::ReportReply>,
    check::<api::ReportRequest>,
    check::<api::ReserveManyReply>,
    check::<api::ReserveManyRequest>,
    check::<api::ReserveReply>,
    check::<api::ReserveRequest>,
    check::<api::ReserveTarget>,
    check::<api::RevokeReply>,
    check::<api::RevokeRequest>,
    check::<api::RevokeWord>,
    check::<api::RotatePackagesReply>,
    check::<api::RotatePackagesRequest>,
    check::<api::RotateRequest>,
    check::<api::SpendReply>,
    check::<api::SpendRequest>,
    check::<api::UploadItem>,
    check::<api::UploadReply>,
    check::<api::UploadRequest>,
    check::<api::UserDevices>,
    check::<api::UsersDevicesReply>,
    check::<api::UsersDevicesRequest>,
    check::<api::Voucher>,
    check::<api::WebhookBatch>,
    check::<api::WebhookEvent>,
    check::<api::WebhookKind>,
    check::<DeviceChange>,
    check_refusals,
];

fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(json: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(json) else { return };
    let again = serde_json::to_vec(&value).expect("a value that was read can be written");
    let read = serde_json::from_slice::<T>(&again);
    assert_eq!(read.ok(), Some(value), "a value is the same when it is written and read");
}

fn check_refusals(bytes: &[u8]) {
    let (lines, unreadable) = api::read_refusals(bytes);
    assert!(lines.len() as u64 + unreadable <= bytes.len() as u64, "a line has a byte at least");
    for line in &lines {
        let json = serde_json::to_vec(line).expect("a line that was read can be written");
        assert_eq!(api::read_refusals(&json), (vec![line.clone()], 0));
        if let api::RefusalLine::Refused(refused) = line {
            assert!(!refused.sentence().is_empty());
        }
    }
}
