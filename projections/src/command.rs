//! The commands of a pool, its answers, and the reasons why it refuses.

mod rejection;

use std::time::Duration;

use keypool_ledger::{
    CredentialBytes, GroupId, Hash, KeyPackageRef, PackageFacts, PoolId, ReservationId,
    ReservePolicy, RevokeReason, RuleSettings, SignatureKey, SignedStatement, Timestamp,
};
use serde::{Deserialize, Serialize};

pub use self::rejection::Rejection;
use crate::{RequiredCapabilities, lifecycle::Stage};

/// The numbers that bound a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many live packages a pool may hold.
    pub packages_max: usize,
    /// How long a reservation lasts, as its holder is told.
    pub reservation_ttl: Duration,
    /// How much longer the server waits before it treats a reservation as lapsed.
    pub grace: Duration,
    /// How much more life than the TTL a package must have left to be offered.
    pub life_margin: Duration,
    /// How often a reservation may be renewed.
    pub renewals_max: u32,
    /// The fate of a package whose reservation lapsed.
    pub on_lapse: OnLapse,
    /// How many packages of a ciphersuite that were never handed out are kept for the owner's contacts.
    pub strangers_floor: usize,
    /// No reservation lapses before this moment and the grace after it: a restart, or a clock that
    /// leapt, gives all open reservations a full TTL again.
    pub lapse_floor: Timestamp,
}

impl Limits {
    /// The defaults: 64 packages, 60 s and 60 s of grace, five renewals, requeue; nothing is kept from
    /// strangers.
    pub const STANDARD: Self = Self {
        packages_max: 64,
        reservation_ttl: Duration::from_mins(1),
        grace: Duration::from_mins(1),
        life_margin: Duration::from_mins(1),
        renewals_max: 5,
        on_lapse: OnLapse::Requeue,
        strangers_floor: 0,
        lapse_floor: Timestamp::from_millis(0),
    };

    /// The settings as they stand in the log.
    #[must_use]
    pub fn recorded(&self) -> RuleSettings {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        RuleSettings {
            reservation_ttl_ms: millis(self.reservation_ttl),
            grace_ms: millis(self.grace),
            life_margin_ms: millis(self.life_margin),
            renewals_max: self.renewals_max,
            lapses_max: self.on_lapse.lapses_max(),
            packages_max: self.packages_max as u64,
        }
    }

    /// The limits that a server ran with, as far as its log says so.
    #[must_use]
    pub fn of(settings: &RuleSettings) -> Self {
        let retires = settings.lapses_max <= OnLapse::Retire.lapses_max();
        Self {
            packages_max: usize::try_from(settings.packages_max).unwrap_or(usize::MAX),
            reservation_ttl: Duration::from_millis(settings.reservation_ttl_ms),
            grace: Duration::from_millis(settings.grace_ms),
            life_margin: Duration::from_millis(settings.life_margin_ms),
            renewals_max: settings.renewals_max,
            on_lapse: if retires { OnLapse::Retire } else { OnLapse::Requeue },
            ..Self::STANDARD
        }
    }

    /// The moment at which a reservation with the given deadline is lapsed.
    #[must_use]
    pub fn lapses_at(&self, deadline: Timestamp) -> Timestamp {
        deadline.max(self.lapse_floor).after(self.grace)
    }
}

/// The fate of a package whose reservation lapsed (`--on-lapse`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLapse {
    /// Offer it once more, after all others, and retire it when it lapses again: at most one
    /// *spend*, and an inviter who loses it is told.
    #[default]
    Requeue,
    /// Never offer it again: at most one *hand-out*, unless its holder gave it back.
    Retire,
}

impl OnLapse {
    /// How many lapses retire a package.
    #[must_use]
    pub const fn lapses_max(self) -> u32 {
        match self {
            Self::Requeue => 2,
            Self::Retire => 1,
        }
    }
}

/// A request to change one pool. Commands are named in the imperative.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Let this key speak for the pool.
    Register {
        /// The key that signs the device's packages and requests.
        signature_key: SignatureKey,
        /// The identity in the device's Basic credential.
        credential: String,
        /// The statement of another device of the user that vouches for this one. That it is signed so is
        /// for the caller to check.
        statement: Option<SignedStatement>,
    },
    /// Let another key speak for the pool, and withdraw the packages that the one before has signed.
    Rotate {
        /// The statement of the key that speaks for the pool until now. That it is signed so is for the
        /// caller to check.
        statement: SignedStatement,
        /// The key that signs the device's packages and requests from now on.
        signature_key: SignatureKey,
        /// The identity in the device's Basic credential.
        credential: String,
    },
    /// Let this key speak for the pool because the operator, or the app's backend, says so: nobody has to vouch
    /// for it.
    Admit {
        /// The key that signs the device's packages and requests.
        signature_key: SignatureKey,
        /// The identity in the device's Basic credential.
        credential: String,
        /// The statement of another device of the user that vouches for it all the same: so the chain of
        /// the user's keys leads to it. That it is signed so is for the caller to check.
        statement: Option<SignedStatement>,
        /// The frontend key of the app's backend that says so; `None` if it is the operator.
        frontend: Option<SignatureKey>,
    },
    /// Let no key speak for the pool any more, and withdraw its packages.
    Remove {
        /// The one who says so.
        by: Remover,
    },
    /// Let this key sign the device's packages of a signature scheme.
    DeclareLeafKey {
        /// The statement of the key that speaks for the pool. That it is signed so is for the caller to
        /// check.
        statement: SignedStatement,
        /// The key, and its scheme.
        leaf_key: LeafKey,
    },
    /// Let the device's packages carry this credential from now on.
    DeclareCredential {
        /// The statement of the key that speaks for the pool. That it is signed so is for the caller to
        /// check.
        statement: SignedStatement,
        /// The credential, as it stands in the leaves.
        credential: CredentialBytes,
    },
    /// Let this key be the user's recovery key. For the pool that has the one before, if there is one.
    SetRecoveryKey {
        /// The statement of the recovery key before, or of the key that speaks for the pool if there is
        /// none. That it is signed so is for the caller to check.
        statement: SignedStatement,
        /// The public key.
        recovery_key: SignatureKey,
    },
    /// Let this key speak for the pool, in the place of any other, because the user's recovery key says so.
    /// That every other device of the user is removed with it is for the caller to see to.
    Recover {
        /// The statement of the recovery key. That it is signed so is for the caller to check.
        statement: SignedStatement,
        /// The key that signs the device's packages and requests from now on.
        signature_key: SignatureKey,
        /// The identity in the device's Basic credential.
        credential: String,
    },
    /// Let anyone register the name again, because its user has lost every key. Live packages end first.
    ReleaseName,
    /// Take packages into the pool.
    Upload(Vec<NewPackage>),
    /// Take packages into the pool in the place of the live ones of their ciphersuites, or of all with
    /// another key. A ciphersuite without an acceptable new package keeps its packages.
    Replace {
        /// The new ones.
        packages: Vec<NewPackage>,
        /// The key that has signed them, if it is to take the place of the one before.
        next: Option<NextKey>,
    },
    /// Set one package aside for an inviter.
    Reserve {
        /// The inviter's claim, drawn by the inviter.
        reservation: ReservationId,
        /// The inviter's device.
        holder: PoolId,
        /// The group the invitation is for.
        group: GroupId,
        /// Which ciphersuites the group can use; any if empty.
        ciphersuites: Vec<u16>,
        /// The capabilities that the package must have.
        required: RequiredCapabilities,
        /// Whether the owner has introduced the inviter, or both are one user. That it is so is for the
        /// caller to check.
        introduced: bool,
        /// Whether only the last-resort package will do, because strangers have had as many of the others
        /// as they may for now.
        last_resort_only: bool,
    },
    /// Give the holder of a reservation more time.
    Renew(Claim),
    /// Give a reserved package back.
    Release(Claim),
    /// Give a reserved package back because it cannot be used. It is not offered again if the server finds
    /// so too, or if enough users say so.
    Report {
        /// The holder of the claim.
        claim: Claim,
        /// The check it failed, if the holder says so.
        check: Option<String>,
        /// Whether the server would admit the package again. That it would is for the caller to check.
        admissible: bool,
    },
    /// Use up a reserved package: the Commit that adds it has been posted.
    Spend {
        /// The holder of the claim.
        claim: Claim,
        /// The group the package was used for.
        group: GroupId,
    },
    /// Withdraw packages.
    Revoke {
        /// The packages to withdraw.
        which: RevokeScope,
        /// Why.
        reason: RevokeReason,
    },
    /// Say who may reserve, whose invitations were joined, who is a stranger again, and who is blocked.
    SetPolicy(PolicyChange),
    /// Record the effects of time: lapsed reservations and expired packages.
    Settle,
}

impl Command {
    /// The packages that the command brings.
    #[must_use]
    pub fn packages(&self) -> &[NewPackage] {
        match self {
            Self::Upload(packages) | Self::Replace { packages, .. } => packages,
            _ => &[],
        }
    }

    /// Whether it changes which key speaks for a pool.
    #[must_use]
    pub const fn changes_keys(&self) -> bool {
        matches!(
            self,
            Self::Register { .. }
                | Self::Rotate { .. }
                | Self::Admit { .. }
                | Self::Remove { .. }
                | Self::DeclareLeafKey { .. }
                | Self::DeclareCredential { .. }
                | Self::SetRecoveryKey { .. }
                | Self::Recover { .. }
                | Self::ReleaseName
                | Self::Replace { next: Some(_), .. }
        )
    }
}

/// A change of a pool's policy. Parts that are left out stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyChange {
    /// The new rule of who may reserve.
    pub reserve: Option<ReservePolicy>,
    /// The number of packages that strangers may take together in an hour; 0 for the server's own limit.
    pub strangers_per_hour: Option<u32>,
    /// The reservations whose invitations the owner has joined.
    pub joined: Vec<ReservationId>,
    /// The users that are contacts no more, also where a reservation of theirs is named as joined.
    pub removed: Vec<String>,
    /// The users to block.
    pub blocked: Vec<String>,
    /// The users to unblock, also where they are named as blocked.
    pub unblocked: Vec<String>,
}

/// The policy of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyStatus {
    /// The users who may reserve.
    pub reserve: ReservePolicy,
    /// The owner's contacts, in the order of their names.
    pub contacts: Vec<String>,
    /// The users that are blocked, in the order of their names.
    pub blocked: Vec<String>,
    /// The number of packages that strangers may take together in an hour; `None` for the server's own
    /// limit.
    pub strangers_per_hour: Option<u32>,
}

/// The one who removes a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remover {
    /// A key of the user, that of the device itself or of another one.
    Key(SignatureKey),
    /// The operator of the server.
    Operator,
}

/// A key that takes the place of another one, which has agreed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextKey {
    /// The statement of the key that speaks for the pool until now.
    pub statement: SignedStatement,
    /// The key that signs the device's packages and requests from now on.
    pub signature_key: SignatureKey,
    /// The identity in the device's Basic credential.
    pub credential: String,
    /// The keys of other signature schemes that come with it, each with a statement of the new key.
    pub leaf_keys: Vec<(SignedStatement, LeafKey)>,
}

/// A holder's claim on a package. A command is refused unless all three parts fit the reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The package.
    pub keypackage_ref: KeyPackageRef,
    /// The reservation.
    pub reservation: ReservationId,
    /// The device that asks.
    pub holder: PoolId,
}

/// The packages that a revocation withdraws.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevokeScope {
    /// The named ones.
    Refs(Vec<KeyPackageRef>),
    /// Those of one credential, by the digest in their facts.
    Credential(Hash),
    /// All that are live.
    All,
}

/// A package that has passed admission and may enter the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPackage {
    /// The facts that its bytes tell.
    pub facts: PackageFacts,
    /// The exact bytes that arrived.
    pub bytes: Vec<u8>,
    /// The key that has signed it, where that is not the one which speaks for the pool.
    pub leaf_key: Option<LeafKey>,
}

/// A signature key of another scheme than that of the keys which speak for pools: it signs packages and
/// nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafKey {
    /// The scheme, RFC 9420 section 5.1.2.
    pub signature_scheme: u16,
    /// The public key, as it stands in the leaf.
    pub signature_key: SignatureKey,
}

/// The effect of a command that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The key speaks for the pool.
    Registered {
        /// Whether it did before.
        known: bool,
    },
    /// No key speaks for the pool any more.
    Removed,
    /// The leaf key, the credential or the recovery key is as the statement says.
    Declared,
    /// The outcome of each uploaded package, in the order of the request.
    Uploaded(Vec<ItemOutcome>),
    /// The outcome of each new package, in the order of the request, and the packages withdrawn for them.
    Replaced {
        /// The new ones. If none is acceptable, nothing has changed.
        outcomes: Vec<ItemOutcome>,
        /// Those in whose place they are.
        revoked: Vec<KeyPackageRef>,
    },
    /// A package was set aside.
    Reserved {
        /// The package's facts.
        facts: PackageFacts,
        /// The claim on it.
        reservation: ReservationId,
        /// How many reservations the package has had, this one included.
        generation: u32,
        /// When the claim ends.
        deadline: Timestamp,
    },
    /// The claim has more time.
    Renewed {
        /// When it ends now.
        deadline: Timestamp,
    },
    /// The package was given back.
    Released,
    /// The report is noted, and the claim has ended.
    Reported,
    /// The package is used up.
    Spent {
        /// Whether the claim had lapsed before.
        late: bool,
        /// Whether the same claim had spent it before.
        replayed: bool,
    },
    /// These packages were withdrawn, by this command or before.
    Revoked(Vec<KeyPackageRef>),
    /// The policy is as it was asked for.
    PolicySet(PolicyStatus),
    /// The effects of time are recorded.
    Settled,
}

/// The outcome of one package of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemOutcome {
    /// The package is in the pool.
    Stored(KeyPackageRef),
    /// It was uploaded before; this is where it stands.
    Known(KeyPackageRef, Stage),
    /// It was refused.
    Refused(KeyPackageRef, ItemRefusal),
}

/// Why one package of an upload was refused by the rules of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ItemRefusal {
    /// Its lifetime is over.
    #[error("its lifetime is over")]
    LifetimeOver,
    /// The pool is full.
    #[error("the pool holds as many packages as it may")]
    PoolFull,
    /// Another package had the same `init_key`.
    #[error("another package had the same init_key (RFC 9420 section 10: it must be unique)")]
    InitKeySeen,
    /// A last-resort package for this ciphersuite is live already.
    #[error("the pool has a last-resort package for this ciphersuite already")]
    LastResortHeld,
    /// Its credential is not the one that the device has declared.
    #[error(
        "the leaf's credential is not the one that the device has declared; declare it with \
         POST /devices/credential"
    )]
    CredentialDiffers,
    /// The device has not declared the key that signed it.
    #[error(
        "the leaf's signature key is not the one that the device has declared for this signature scheme; \
         declare it with POST /devices/leaf-key"
    )]
    LeafKeyDiffers,
}
