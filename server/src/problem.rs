//! Problems: the status and the words of each refusal. The only file that knows both sides.

mod hint;
mod paths;
mod status;

use std::fmt;

use actix_web::{
    HttpResponse, ResponseError,
    http::{StatusCode, header},
};
use keypool_api::{Code, Problem, UploadItem};
use keypool_ledger::{KeyPackageRef, NameError, Timestamp};
use keypool_projections::{
    DeliveryRejection, ItemRefusal, Rejection,
    quota::{OverQuota, Quota},
};

pub(crate) use self::paths::{no_such_admin_path, no_such_public_path, wrong_method};
use self::status::{retry_after, status_of};
use crate::{
    admission::{AdmissionError, Check},
    authentication::AuthenticationError,
    keypackage_store::StoreError,
    pools::{DeliverError, ExecuteError},
    registration::NotAdmitted,
    transparency::ProveError,
};

/// The media type of a problem, RFC 9457.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// A refusal on its way to the caller.
#[derive(Debug)]
pub(crate) struct Failure(Box<Problem>, Option<ReachedLimit>);

/// The limit that a request has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReachedLimit {
    /// A rate limit.
    Quota(Quota),
    /// A rule of the pool: the packages kept for contacts, or the owner's policy.
    Rule(&'static str),
}

impl ReachedLimit {
    /// The word, as the record of refusals uses it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Quota(quota) => quota.word(),
            Self::Rule(word) => word,
        }
    }
}

impl Failure {
    /// A refusal with a code of the API, and a sentence about this request.
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        let problem = Problem {
            kind: format!("urn:keypool:{code}"),
            title: code.title().to_owned(),
            status: status_of(code),
            detail: detail.into(),
            code,
            hint: code.hint().to_owned(),
            retryable: code.retryable(),
            keypackage_ref: None,
            index: None,
            check: None,
            requirement: None,
            retry_after_s: retry_after(code).map(|wait| wait.as_secs()),
            server_time: None,
            request_id: None,
            items: Vec::new(),
        };
        Self(Box::new(problem), None)
    }

    /// The refusal of an upload of which no package was acceptable.
    ///
    /// The pool was full if that alone was the reason; else the first package that is at fault is
    /// named.
    pub(crate) fn of_upload(items: Vec<UploadItem>) -> Self {
        let full = items.iter().all(|item| item.code == Some(Code::PoolFull));
        let code = if full { Code::PoolFull } else { Code::InvalidKeyPackage };
        let first = items.iter().position(|item| item.code == Some(code)).unwrap_or_default();
        let Some(item) = items.get(first) else {
            return Self::new(Code::BadRequest, "the request holds no package");
        };
        let detail = match (&item.detail, items.len()) {
            (detail, 1) => detail.clone().unwrap_or_default(),
            (Some(detail), count) => format!("none of {count} packages is acceptable: {detail}"),
            (None, count) => format!("none of {count} packages is acceptable"),
        };
        let hint = item.check.as_deref().and_then(hint::of_check);
        let failure = Self::new(code, detail).about(item.keypackage_ref.clone());
        let mut failure = failure.hinting(hint);
        failure.0.index = u64::try_from(first).ok();
        failure.0.check.clone_from(&item.check);
        failure.0.items = items;
        failure
    }

    /// The same refusal, about a package.
    fn about(mut self, keypackage_ref: Option<KeyPackageRef>) -> Self {
        self.0.keypackage_ref = keypackage_ref;
        self
    }

    /// The same refusal, with the next step for its reason, if it is another than that of the code.
    pub(crate) fn hinting(mut self, hint: Option<impl Into<String>>) -> Self {
        if let Some(hint) = hint {
            self.0.hint = hint.into();
        }
        self
    }

    /// The same refusal, with the name of the user or device whose packages lack a capability.
    pub(crate) fn naming_target(mut self, target: &str) -> Self {
        if let Some(requirement) = self.0.requirement {
            self.0.detail = format!("no package of {target} has {requirement} in its capabilities");
        }
        self
    }

    /// The same refusal, with the id of the request.
    pub(crate) fn of_request(mut self, request_id: &str) -> Self {
        self.0.request_id = Some(request_id.to_owned());
        self
    }

    /// The refusal of a device that the operator does not let in.
    pub(crate) fn of_registration(error: &NotAdmitted) -> Self {
        let hint = "Ask the operator of this server to let the device in.";
        Self::new(Code::NotAllowed, error.to_string()).hinting(Some(hint))
    }

    /// The body of its answer.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.0).unwrap_or_default()
    }

    /// The problem document.
    pub(crate) const fn problem(&self) -> &Problem {
        &self.0
    }

    pub(crate) fn code(&self) -> Code {
        self.0.code
    }

    /// How many seconds to wait before the same request may succeed, where that is known.
    pub(crate) fn retry_after_s(&self) -> Option<u64> {
        self.0.retry_after_s
    }

    /// The rate limit that was exceeded, if there is one.
    pub(crate) const fn quota(&self) -> Option<Quota> {
        match self.1 {
            Some(ReachedLimit::Quota(quota)) => Some(quota),
            _ => None,
        }
    }

    /// The limit that was reached, if there is one.
    pub(crate) const fn limit(&self) -> Option<ReachedLimit> {
        self.1
    }
}

/// The check of admission for a refusal by the pool's own rules.
pub(crate) const fn check_of(refusal: ItemRefusal) -> Check {
    match refusal {
        ItemRefusal::PoolFull => Check::Cap,
        ItemRefusal::InitKeySeen => Check::InitKeyUnique,
        ItemRefusal::LastResortHeld => Check::LastResort,
        ItemRefusal::LifetimeOver => Check::Lifetime,
        ItemRefusal::CredentialDiffers => Check::Identity,
        ItemRefusal::LeafKeyDiffers => Check::SignatureKey,
    }
}

/// The code of a package that the pool's own rules have refused.
pub(crate) const fn code_of(refusal: ItemRefusal) -> Code {
    match refusal {
        ItemRefusal::PoolFull => Code::PoolFull,
        ItemRefusal::InitKeySeen
        | ItemRefusal::LastResortHeld
        | ItemRefusal::LifetimeOver
        | ItemRefusal::CredentialDiffers
        | ItemRefusal::LeafKeyDiffers => Code::InvalidKeyPackage,
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Execute(error) => error.into(),
            StoreError::Deliver(error) => error.into(),
            StoreError::Confused => internal(&error),
            StoreError::TooManyDevices(..) => Self::new(Code::BadRequest, error.to_string()),
            StoreError::Cancelled => Self::new(Code::NotReady, "the server is stopping"),
        }
    }
}

impl From<ExecuteError> for Failure {
    fn from(error: ExecuteError) -> Self {
        let code = match &error {
            ExecuteError::Rejected(rejection) => return rejection.clone().into(),
            ExecuteError::IdempotencyMismatch(_) => Code::IdempotencyMismatch,
            ExecuteError::ClockRegressed => Code::ClockRegressed,
            ExecuteError::ClockLeapt => Code::ClockLeapt,
            ExecuteError::Busy => Code::Busy,
            ExecuteError::LogUnavailable | ExecuteError::LogRefuses => Code::LogUnavailable,
            ExecuteError::Read(read) => {
                tracing::error!(error = read as &dyn std::error::Error, "the log cannot be read");
                return Self::new(Code::LogUnavailable, "the log cannot be read");
            }
        };
        Self::new(code, error.to_string())
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        let rule = match &rejection {
            Rejection::KeptForContacts => Some("strangers_floor"),
            Rejection::ContactsOnly => Some("contacts_only"),
            Rejection::Blocked => Some("blocked"),
            _ => None,
        };
        let (code, keypackage_ref) = match &rejection {
            Rejection::PoolExhausted | Rejection::KeptForContacts => (Code::PoolExhausted, None),
            Rejection::NothingCompatible => (Code::NothingCompatible, None),
            Rejection::RequirementUnmet(_) => (Code::RequirementUnmet, None),
            Rejection::UnknownUser(_) | Rejection::NotRegistered => (Code::UnknownUser, None),
            Rejection::UnknownKeyPackage(package) => (Code::UnknownKeyPackage, Some(package)),
            Rejection::OwnPool | Rejection::ContactsOnly | Rejection::Blocked => {
                (Code::NotAllowed, None)
            }
            Rejection::TooManyBlocked => (Code::BadRequest, None),
            Rejection::TooManyDevices(..) => (Code::TooLarge, None),
            Rejection::OverQuota(over) => return (*over).into(),
            Rejection::UploadedElsewhere(package) => (Code::NotAllowed, Some(package)),
            Rejection::ReservationMismatch(_) => (Code::ReservationMismatch, None),
            Rejection::ReservationLost(_) => (Code::ReservationLost, None),
            Rejection::RenewalsUsedUp(..) => (Code::RenewalLimit, None),
            Rejection::AlreadySpent(package) => (Code::AlreadySpent, Some(package)),
            Rejection::Revoked(package) => (Code::Revoked, Some(package)),
            Rejection::Expired(package) => (Code::Expired, Some(package)),
            Rejection::IdentityBound => (Code::IdentityBound, None),
            Rejection::KeyRetired(_) | Rejection::RecoveryNeedsNewKey => (Code::KeyRetired, None),
            Rejection::StatementStale => (Code::StatementStale, None),
            Rejection::StatementTime(_) => (Code::StatementExpired, None),
            Rejection::NameTaken(..) => (Code::NameTaken, None),
            Rejection::Name(_) => (Code::InvalidName, None),
            Rejection::TooManyKeys(_) | Rejection::DevicesFull(..) => (Code::TooManyDevices, None),
            Rejection::LeafKeyInUse => (Code::NotAllowed, None),
            Rejection::CredentialInUse => (Code::CredentialInUse, None),
            Rejection::RecoveryKeyBound => (Code::RecoveryKeyBound, None),
            Rejection::NotTheRecoveryKey => (Code::NotTheRecoveryKey, None),
            Rejection::NotAMember { .. } => (Code::NotAMember, None),
            Rejection::Suspended(_) => (Code::Suspended, None),
            Rejection::InviteeSuspended(_) => (Code::InviteeSuspended, None),
            Rejection::Illegal(_) => return internal(&rejection),
        };
        let mut failure = Self::new(code, rejection.to_string()).about(keypackage_ref.cloned());
        failure.1 = rule.map(ReachedLimit::Rule);
        if let Rejection::RequirementUnmet(requirement) = rejection {
            failure.0.requirement = Some(requirement);
        }
        failure.hinting(hint::of_rejection(&rejection))
    }
}

impl From<OverQuota> for Failure {
    fn from(over: OverQuota) -> Self {
        let code = match over.quota {
            Quota::PairHeld | Quota::Held => Code::TooManyReservations,
            Quota::Pair
            | Quota::ContactPair
            | Quota::Policy
            | Quota::Posts
            | Quota::PostBytes
            | Quota::Groups
            | Quota::Requests
            | Quota::Strangers
            | Quota::Devices
            | Quota::Uploads
            | Quota::Failures
            | Quota::Room => Code::RateLimited,
        };
        let mut failure = Self::new(code, over.to_string());
        failure.0.retry_after_s = Some(over.retry_after_s());
        failure.1 = Some(ReachedLimit::Quota(over.quota));
        if let Some(flag) = hint::flag_of(over.quota) {
            failure.0.hint = format!("{} The operator sets the limit with {flag}.", failure.0.hint);
        }
        failure
    }
}

impl From<DeliverError> for Failure {
    fn from(error: DeliverError) -> Self {
        match error {
            DeliverError::Execute(error) => error.into(),
            DeliverError::Spend { keypackage_ref, rejection } => {
                Self::from(rejection).about(Some(keypackage_ref))
            }
            DeliverError::Refused(refused) => refused.into(),
            DeliverError::Invitee { keypackage_ref, rejection } => {
                Self::from(rejection).about(Some(keypackage_ref))
            }
        }
    }
}

impl From<DeliveryRejection> for Failure {
    fn from(refused: DeliveryRejection) -> Self {
        let code = match &refused {
            DeliveryRejection::UnknownGroup(_) => Code::UnknownGroup,
            DeliveryRejection::NotAMember { .. } | DeliveryRejection::Blocked(_) => {
                Code::NotAllowed
            }
            DeliveryRejection::GroupExists(_) => Code::GroupExists,
            DeliveryRejection::InvitationsFull(_) => Code::InvitationsFull,
            DeliveryRejection::WaitingListFull(_) => Code::WaitingListFull,
            DeliveryRejection::WelcomeTooLarge { .. } => Code::TooLarge,
            DeliveryRejection::EpochTaken { .. } => Code::EpochTaken,
            DeliveryRejection::EpochAhead { .. }
            | DeliveryRejection::WelcomeMismatch
            | DeliveryRejection::SameDevice(_)
            | DeliveryRejection::MemberAlready(_)
            | DeliveryRejection::TooManyMembers(_)
            | DeliveryRejection::RemovesTooMany { .. }
            | DeliveryRejection::RemovesItself(_)
            | DeliveryRejection::NeverGiven(_) => Code::BadRequest,
        };
        let hint = matches!(code, Code::TooLarge)
            .then_some("Invite fewer devices with one Commit: its Welcome is smaller then.");
        Self::new(code, refused.to_string()).hinting(hint)
    }
}

impl From<ProveError> for Failure {
    fn from(error: ProveError) -> Self {
        match error {
            ProveError::Proof(_) | ProveError::Zero | ProveError::Unpublished { .. } => {
                Self::new(Code::BadRequest, error.to_string())
            }
            ProveError::Tiles(_) | ProveError::Damaged | ProveError::Unsigned => internal(&error),
        }
    }
}

impl From<AdmissionError> for UploadItem {
    fn from(error: AdmissionError) -> Self {
        Self {
            keypackage_ref: error.keypackage_ref,
            outcome: keypool_api::Outcome::Rejected,
            code: Some(Code::InvalidKeyPackage),
            check: Some(error.check.name().to_owned()),
            detail: Some(error.detail),
        }
    }
}

impl From<AuthenticationError> for Failure {
    fn from(error: AuthenticationError) -> Self {
        let failure = Self::new(Code::Unauthenticated, error.to_string());
        let mut failure = failure.hinting(Some(hint::of_authentication(&error)));
        if let AuthenticationError::Clock { now, .. } = error {
            failure.0.server_time = now.map(Timestamp::as_secs);
        }
        failure
    }
}

impl From<NameError> for Failure {
    fn from(error: NameError) -> Self {
        Self::new(Code::InvalidName, error.to_string())
    }
}

/// A bug: said in the log, kept from the caller.
fn internal(error: &(dyn std::error::Error + 'static)) -> Failure {
    tracing::error!(error, "internal error");
    Failure::new(Code::Internal, "an internal error occurred")
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.detail)
    }
}

impl ResponseError for Failure {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        response.content_type(PROBLEM_JSON);
        if let Some(wait_s) = self.0.retry_after_s {
            response.insert_header((header::RETRY_AFTER, wait_s));
        }
        match self.0.code {
            Code::Unauthenticated => {
                response.insert_header((header::WWW_AUTHENTICATE, "Signature tag=\"keypool-v1\""));
            }
            // What is left of the body is not read: the connection cannot be used again.
            Code::TooLarge | Code::RequestTimeout => {
                response.force_close();
            }
            _ => {}
        }
        let mut response = response.body(self.to_json());
        response.extensions_mut().insert(self.code());
        if let Some(limit) = self.1 {
            response.extensions_mut().insert(limit);
        }
        response.extensions_mut().insert(self.0.clone());
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_status_and_retryable_ones_of_the_server_say_when() {
        let line = |code: &Code| {
            let wait = retry_after(*code).map(|wait| format!(", again after {} s", wait.as_secs()));
            format!("{} {code}{}", status_of(*code), wait.unwrap_or_default())
        };
        let lines: Vec<String> = Code::ALL.iter().map(line).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn a_full_queue_is_said_with_the_time_to_wait() {
        let response = Failure::from(ExecuteError::Busy).error_response();
        assert_eq!(response.status().as_u16(), 503);
        assert_eq!(response.headers().get("retry-after").unwrap(), "1");
        assert_eq!(response.headers().get("content-type").unwrap(), PROBLEM_JSON);
    }

    #[test]
    fn what_is_internal_stays_inside() {
        let failure = internal(&std::io::Error::other("secret of the house"));
        assert_eq!(failure.0.detail, "an internal error occurred");
    }
}
