//! The codes of the client library's errors.

use keypool_client::{
    ApiError, CheckError, ClientOpenError, ConfigError, DeliveryError, ExchangeError, GroupError,
    IdentityError, InviteError, NameError, NoRecoveryWords, PoolError, RecoveryError, RefreshError,
    RegisterError, SealingError, SendError, StorageError, SyncError, UpdateError,
};

use super::{ErrorCode, ErrorFacts};

impl ErrorCode for ApiError {
    fn facts(&self) -> ErrorFacts<'_> {
        let facts = match self {
            Self::Refused(problem) => ErrorFacts {
                retryable: problem.retryable,
                ..ErrorFacts::lasting(problem.code.word())
            },
            Self::Unreachable { .. } => ErrorFacts::passing("unreachable"),
            Self::Unexpected { .. } if self.is_unanswered() => {
                ErrorFacts::passing("unexpected_answer")
            }
            Self::Unexpected { .. } => ErrorFacts::lasting("unexpected_answer"),
            Self::Redirected { .. } => ErrorFacts::lasting("redirected"),
            Self::Outdated { .. } => ErrorFacts::lasting("outdated_server"),
            Self::Address(_) => ErrorFacts::lasting("invalid_address"),
            Self::Name(_) => ErrorFacts::lasting("invalid_name"),
            Self::Identity(error) => return error.facts(),
            Self::Client(_) => ErrorFacts::lasting("no_http_client"),
        };
        ErrorFacts { cause: Some(self), ..facts }
    }
}

impl ErrorCode for NameError {
    fn facts(&self) -> ErrorFacts<'_> {
        ErrorFacts::lasting("invalid_name")
    }
}

impl ErrorCode for ConfigError {
    fn facts(&self) -> ErrorFacts<'_> {
        ErrorFacts::lasting("invalid_options")
    }
}

impl ErrorCode for SealingError {
    fn facts(&self) -> ErrorFacts<'_> {
        ErrorFacts::lasting(match self {
            Self::WrongPassphrase { .. } => "wrong_passphrase",
            Self::WrongKey { .. } => "wrong_key",
            Self::OtherKind { .. } => "other_kind_of_key",
            _ => "sealing_failed",
        })
    }
}

impl ErrorCode for StorageError {
    fn facts(&self) -> ErrorFacts<'_> {
        ErrorFacts::lasting(match self {
            Self::InUse { .. } => return ErrorFacts::passing("home_in_use"),
            Self::Sealing(error) => return error.facts(),
            Self::Folder { .. } => "home_unusable",
            Self::WrongOwner { .. } => "wrong_owner",
            Self::NoDatabase { .. } => "no_database",
            Self::Newer { .. } => "newer_home",
            Self::Unsealed { .. } => "unsealed_home",
            Self::Damaged { .. } | Self::HistoryBroken { .. } => "home_damaged",
            Self::RolledBack { .. } => "home_rolled_back",
            Self::MirrorRefused { .. } => "server_history_refused",
            Self::Impossible(_) => "impossible_event",
            Self::Value { .. } | Self::Unreadable(_) => "store_unreadable",
            Self::Unknown(_) => "write_unknown",
            Self::Stopped => "store_stopped",
        })
    }
}

impl ErrorCode for IdentityError {
    fn facts(&self) -> ErrorFacts<'_> {
        match self {
            Self::Storage(error) => error.facts(),
            Self::KeyMissing { .. } => ErrorFacts::lasting("key_missing"),
            Self::Unusable(_) => ErrorFacts::lasting("key_unusable"),
            Self::Keystore(_) => ErrorFacts::passing("keystore_refused"),
            Self::KeystoreMissing { .. } => ErrorFacts::lasting("keystore_missing"),
        }
    }
}

impl ErrorCode for PoolError {
    fn facts(&self) -> ErrorFacts<'_> {
        match self {
            Self::Storage(error) => error.facts(),
            Self::Config(error) => error.facts(),
            Self::Identity(error) => error.facts(),
            Self::AboveCap { .. } => ErrorFacts::lasting("pool_full"),
            Self::Mls(_) => ErrorFacts::lasting("mls_refused"),
        }
    }
}

impl ErrorCode for GroupError {
    fn facts(&self) -> ErrorFacts<'_> {
        ErrorFacts::lasting(match self {
            Self::Storage(error) => return error.facts(),
            Self::Identity(error) => return error.facts(),
            Self::NotInGroup { .. } => "not_in_group",
            Self::AlreadyInGroup { .. } => "already_in_group",
            Self::CommitPending { .. } => "commit_pending",
            Self::NotAMember { .. } => "no_such_member",
            Self::Ciphersuite(_) => "unusable_ciphersuite",
            Self::UntrustedMembers { .. } => "untrusted_members",
            Self::ReadOnly { .. } => "group_read_only",
            Self::Mls(_) => "mls_refused",
        })
    }
}

impl ErrorCode for ExchangeError {
    fn facts(&self) -> ErrorFacts<'_> {
        match self {
            Self::Api(error) => error.facts(),
            Self::Storage(error) => error.facts(),
        }
    }
}

impl ErrorCode for RefreshError {
    fn facts(&self) -> ErrorFacts<'_> {
        match self {
            Self::Api(error) => error.facts(),
            Self::Storage(error) => error.facts(),
            Self::Pool(error) => error.facts(),
            Self::Identity(error) => error.facts(),
        }
    }
}

impl ErrorCode for RegisterError {
    fn facts(&self) -> ErrorFacts<'_> {
        match self {
            Self::IdentityBound(error)
            | Self::KeyRetired(error)
            | Self::VoucherInvalid(error)
            | Self::NotAllowed(error)
            | Self::ServerUnreachable(error)
            | Self::Refused(error) => error.facts(),
            Self::Rotation(error) => error.facts(),
        }
    }
}

impl ErrorCode for RecoveryError {
    fn facts(&self) -> ErrorFacts<'_> {
        match self {
            Self::Api(error) => error.facts(),
            Self::Storage(error) => error.facts(),
            Self::NoRecoveryKey => ErrorFacts::lasting("no_recovery_key"),
            Self::Key(_) => ErrorFacts::lasting("key_unusable"),
        }
    }
}

impl ErrorCode for NoRecoveryWords {
    fn facts(&self) -> ErrorFacts<'_> {
        ErrorFacts::lasting("invalid_recovery_words")
    }
}

impl ErrorCode for CheckError {
    fn facts(&self) -> ErrorFacts<'_> {
        match self {
            Self::Group(error) => error.facts(),
            Self::LookUp(error) => error.facts(),
        }
    }
}

impl ErrorCode for ClientOpenError {
    fn facts(&self) -> ErrorFacts<'_> {
        match self {
            Self::Storage(error) => error.facts(),
            Self::Identity(error) => error.facts(),
            Self::Config(error) => error.facts(),
            Self::Api(error) => error.facts(),
        }
    }
}

impl ErrorCode for DeliveryError {
    fn facts(&self) -> ErrorFacts<'_> {
        match self {
            Self::EpochTaken => ErrorFacts::lasting("epoch_taken"),
            Self::PackageLost(error) | Self::InviteeRefused(error) => error.facts(),
            Self::Refused(source) => ErrorFacts::lasting("refused").behind(source.as_ref()),
            Self::Unanswered(source) => ErrorFacts::passing("unreachable").behind(source.as_ref()),
        }
    }
}

impl ErrorCode for InviteError {
    fn facts(&self) -> ErrorFacts<'_> {
        match self {
            Self::NotCompared(source) => {
                ErrorFacts::passing("not_compared").behind(source.as_ref())
            }
            Self::Nobody { .. } => ErrorFacts::lasting("nobody_invited"),
            Self::ServerUnreachable(error) | Self::Refused(error) => error.facts(),
            Self::NotAccepted(error) => error.facts(),
            Self::Unfinished { source, .. } => {
                ErrorFacts::lasting("unfinished").behind(source.as_ref())
            }
            Self::OtherUnfinished { .. } => ErrorFacts::lasting("other_unfinished"),
            Self::CommitMissing { .. } => ErrorFacts::lasting("commit_missing"),
            Self::Group(error) => error.facts(),
            Self::Storage(error) => error.facts(),
        }
    }
}

impl ErrorCode for UpdateError {
    fn facts(&self) -> ErrorFacts<'_> {
        match self {
            Self::NotCompared(source) => {
                ErrorFacts::passing("not_compared").behind(source.as_ref())
            }
            Self::NotAccepted(error) => error.facts(),
            Self::Unfinished(source) => ErrorFacts::lasting("unfinished").behind(source.as_ref()),
            Self::CommitMissing { .. } => ErrorFacts::lasting("commit_missing"),
            Self::Group(error) => error.facts(),
            Self::Storage(error) => error.facts(),
        }
    }
}

impl ErrorCode for SendError {
    fn facts(&self) -> ErrorFacts<'_> {
        match self {
            Self::Unfinished(source) => ErrorFacts::lasting("unfinished").behind(source.as_ref()),
            Self::NotCompared(source) => {
                ErrorFacts::passing("not_compared").behind(source.as_ref())
            }
            Self::Refused(source) => ErrorFacts::lasting("message_refused").behind(source.as_ref()),
            Self::TooLarge { .. } => ErrorFacts::lasting("too_large"),
            Self::Group(error) => error.facts(),
            Self::Storage(error) => error.facts(),
        }
    }
}

impl ErrorCode for SyncError {
    fn facts(&self) -> ErrorFacts<'_> {
        match self {
            Self::Overrun(error) => {
                ErrorFacts { cause: Some(error), ..ErrorFacts::lasting("mailbox_overrun") }
            }
            Self::CommitUnfinished(source) => {
                ErrorFacts::passing("unfinished").behind(source.as_ref())
            }
            Self::Api(error) => error.facts(),
            Self::Storage(error) => error.facts(),
        }
    }
}
