//! The answer of a pool in short, as the model compares it.

use keypool_ledger::{KeyPackageRef, Timestamp};
use keypool_projections::{Answer, Rejection};

/// The part of an answer that an inviter acts on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    Reserved {
        package: KeyPackageRef,
        deadline: Timestamp,
    },
    Renewed {
        deadline: Timestamp,
    },
    Released,
    Reported,
    Spent {
        late: bool,
        replayed: bool,
    },
    Refused(&'static str),
    /// The answer to a command that is no inviter's.
    Other,
}

impl Outcome {
    /// An answer in short.
    pub(crate) fn of(answer: &Result<Answer, Rejection>) -> Self {
        match answer {
            Ok(Answer::Reserved { facts, deadline, .. }) => {
                Self::Reserved { package: facts.keypackage_ref.clone(), deadline: *deadline }
            }
            Ok(Answer::Renewed { deadline }) => Self::Renewed { deadline: *deadline },
            Ok(Answer::Released) => Self::Released,
            Ok(Answer::Reported) => Self::Reported,
            Ok(Answer::Spent { late, replayed }) => {
                Self::Spent { late: *late, replayed: *replayed }
            }
            Ok(_) => Self::Other,
            Err(rejection) => Self::Refused(named(rejection)),
        }
    }
}

fn named(rejection: &Rejection) -> &'static str {
    match rejection {
        Rejection::PoolExhausted => "pool_exhausted",
        Rejection::NothingCompatible => "nothing_compatible",
        Rejection::NotRegistered => "not_registered",
        Rejection::UnknownKeyPackage(_) => "unknown_key_package",
        Rejection::ReservationMismatch(_) => "reservation_mismatch",
        Rejection::ReservationLost(_) => "reservation_lost",
        Rejection::RenewalsUsedUp(..) => "renewals_used_up",
        Rejection::AlreadySpent(_) => "already_spent",
        Rejection::Revoked(_) => "revoked",
        Rejection::Expired(_) => "expired",
        _ => "another refusal",
    }
}
