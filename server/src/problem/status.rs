//! The HTTP status of each code, and how long to wait before trying again.

use std::time::Duration;

use keypool_api::Code;

/// The HTTP status of a code.
pub(super) const fn status_of(code: Code) -> u16 {
    match code {
        Code::BadRequest | Code::InvalidKeyPackage | Code::InvalidName | Code::InvalidMessage => {
            400
        }
        Code::Unauthenticated => 401,
        Code::NotAllowed
        | Code::NotAMember
        | Code::StatementExpired
        | Code::NotTheRecoveryKey
        | Code::Suspended
        | Code::InviteeSuspended => 403,
        Code::NotFound
        | Code::UnknownUser
        | Code::UnknownKeyPackage
        | Code::PoolExhausted
        | Code::NothingCompatible
        | Code::RequirementUnmet
        | Code::UnknownGroup => 404,
        Code::MethodNotAllowed => 405,
        Code::RequestTimeout => 408,
        Code::AlreadySpent
        | Code::ReservationLost
        | Code::ReservationMismatch
        | Code::RenewalLimit
        | Code::IdempotencyMismatch
        | Code::IdentityBound
        | Code::KeyRetired
        | Code::StatementStale
        | Code::RecoveryKeyBound
        | Code::CredentialInUse
        | Code::NameTaken
        | Code::TooManyDevices
        | Code::GroupExists
        | Code::InvitationsFull
        | Code::WaitingListFull
        | Code::Expired
        | Code::Revoked
        | Code::PoolFull
        | Code::EpochTaken => 409,
        Code::MailboxOverrun => 410,
        Code::TooLarge => 413,
        Code::UnsupportedMediaType => 415,
        Code::RateLimited | Code::TooManyReservations => 429,
        Code::Internal => 500,
        Code::NotReady
        | Code::LogUnavailable
        | Code::ClockRegressed
        | Code::ClockLeapt
        | Code::Busy => 503,
    }
}

/// How long a caller should wait before repeating the request, where that is known.
pub(super) const fn retry_after(code: Code) -> Option<Duration> {
    match code {
        Code::Busy | Code::NotReady => Some(Duration::from_secs(1)),
        Code::LogUnavailable | Code::ClockRegressed | Code::ClockLeapt => {
            Some(Duration::from_secs(10))
        }
        _ => None,
    }
}
