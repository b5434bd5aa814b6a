//! The store of packages: admission in front of the pools, for the routes and for other programs.

mod counted;

mod judging;

mod many;

mod reconciling;

mod replacing;

mod reporting;

mod saving;

use std::sync::Arc;

use keypool_ledger::{
    CommandId, EventLog, GroupId, Hash, KeyPackageRef, PackageFacts, PoolId, ReadError, Record,
    ReservationId, RevokeReason, SignatureKey, SignedStatement, Timestamp, log::find_command,
};
use keypool_projections::{Answer, Claim, Command, Health, ItemOutcome, Package, Which};
use uuid::Uuid;

pub(crate) use self::counted::kib;
use self::judging::{Bench, Judgement, judge};
pub use self::{
    many::{ManyReservations, ReservedMany},
    reconciling::{Held, Reconciled},
    replacing::Replaced,
};
use crate::{
    admission::{AdmissionError, AdmissionRules, Owner},
    pools::{ExecuteError, PoolView, Pools, Reply, Request, Target},
    quota::Counter,
};

/// The packages of all users, admitted and handed out.
#[derive(Debug)]
pub struct KeyPackageStore<L> {
    pools: Arc<Pools<L>>,
    rules: AdmissionRules,
    counter: Option<Counter>,
}

/// What makes repeating a request safe: it has one effect, and one answer for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The caller's key.
    pub key: CommandId,
    /// A digest of the whole request, caller included: the key with another request is refused.
    pub digest: Hash,
}

impl Idempotency {
    /// A key that was never used, for callers that do not repeat.
    #[must_use]
    pub fn fresh() -> Self {
        let id = Uuid::now_v7();
        Self { key: CommandId(id), digest: Hash::of(id.as_bytes()) }
    }
}

/// Why a request to the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The pools did not carry it out.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    /// The pools answered something else than they were asked: a bug.
    #[error("the pools gave an answer that does not fit the command")]
    Confused,
    /// One request names more devices than it may.
    #[error("the targets have {0} devices; one request reserves packages of {1} at most")]
    TooManyDevices(usize, usize),
    /// The packages could not be checked, because the process is ending.
    #[error("the check of the packages was cut off")]
    Cancelled,
}

impl From<ReadError> for StoreError {
    fn from(error: ReadError) -> Self {
        Self::Execute(error.into())
    }
}

/// What became of an upload.
#[derive(Clone, Debug)]
pub struct Saved {
    /// What became of each package, in the order of the request.
    pub items: Vec<Result<ItemOutcome, AdmissionError>>,
    /// The pool afterwards.
    pub health: Health,
    /// The place of the pool's last event in the log.
    pub position: u64,
}

/// A package that was set aside for an inviter.
#[derive(Clone, Debug)]
pub struct ReservedKeyPackage {
    /// Whose it is.
    pub pool: PoolId,
    /// What is known of it.
    pub facts: PackageFacts,
    /// The exact bytes its owner uploaded.
    pub bytes: Vec<u8>,
    /// The claim on it.
    pub reservation: ReservationId,
    /// How many reservations it has had, this one included.
    pub generation: u32,
    /// When the claim ends.
    pub deadline: Timestamp,
}

/// Whom to invite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invitee {
    /// This device.
    Device(PoolId),
    /// One of this user's devices that has a package left.
    User(String),
}

/// What an inviter asks for.
#[derive(Clone, Debug)]
pub struct Reservation {
    /// Whom to invite.
    pub invitee: Invitee,
    /// The inviter's device.
    pub holder: PoolId,
    /// The group the invitation is for.
    pub group: GroupId,
    /// The claim, drawn at random by the inviter.
    pub id: ReservationId,
    /// The ciphersuites the group can use; any if empty.
    pub ciphersuites: Vec<u16>,
    /// Whether a device of the target has introduced the inviter. That it has is for the caller to check.
    pub introduced: bool,
}

/// How a package was spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// Whether the claim had lapsed before.
    pub late: bool,
    /// Whether the same claim had spent it before.
    pub replayed: bool,
}

/// Packages that were withdrawn.
#[derive(Clone, Debug)]
pub struct Withdrawn {
    /// Those that are revoked now, by this request or before.
    pub refs: Vec<KeyPackageRef>,
    /// The pool afterwards.
    pub health: Health,
    /// The place of the pool's last event in the log.
    pub position: u64,
}

impl<L: EventLog + 'static> KeyPackageStore<L> {
    /// A store over some pools, of which as much may be asked for as anybody likes.
    #[must_use]
    pub fn new(pools: Pools<L>, rules: AdmissionRules) -> Self {
        Self { pools: Arc::new(pools), rules, counter: None }
    }

    /// The pools beneath.
    #[must_use]
    pub fn pools(&self) -> &Pools<L> {
        &self.pools
    }

    /// Registers a key for a device; returns whether it was registered before, and where that stands in the
    /// log. Once the user has a device, one of theirs must have vouched for it by a statement; that the
    /// statement is signed is for the caller to check.
    ///
    /// # Errors
    ///
    /// Returns a [`StoreError`] if the name is bound to another key or the key to another name, or if
    /// the log does not take events. Nothing has changed then.
    pub async fn register(
        &self,
        pool: &PoolId,
        (signature_key, statement): (SignatureKey, Option<SignedStatement>),
        idempotency: Idempotency,
    ) -> Result<(bool, u64), StoreError> {
        let credential = pool.user().to_owned();
        let command = Command::Register { signature_key, credential, statement };
        let reply = self.execute(Target::Pool(pool.clone()), command, idempotency).await?;
        match reply.answer {
            Answer::Registered { known } => Ok((known, reply.position)),
            _ => Err(StoreError::Confused),
        }
    }

    /// Lets another key speak for a device, and withdraws what the one before has signed; returns whether
    /// it did before, and where that stands in the log. That the one before agrees is for the caller to
    /// check.
    ///
    /// # Errors
    ///
    /// Returns a [`StoreError`] if neither of the keys speaks for the device, or the new one speaks for
    /// another one, or if the log does not take events. Nothing has changed then.
    pub async fn rotate(
        &self,
        pool: &PoolId,
        (statement, signature_key): (SignedStatement, SignatureKey),
        idempotency: Idempotency,
    ) -> Result<(bool, u64), StoreError> {
        let credential = pool.user().to_owned();
        let command = Command::Rotate { statement, signature_key, credential };
        let reply = self.execute(Target::Pool(pool.clone()), command, idempotency).await?;
        match reply.answer {
            Answer::Registered { known } => Ok((known, reply.position)),
            _ => Err(StoreError::Confused),
        }
    }

    /// A package wherever it is: whose, where it stands, and its exact bytes.
    ///
    /// # Errors
    ///
    /// Returns a [`StoreError`] if the log cannot be read.
    pub fn get_key_package(
        &self,
        keypackage_ref: &KeyPackageRef,
    ) -> Result<Option<(PoolId, Package, Vec<u8>)>, StoreError> {
        Ok(self.pools.package(keypackage_ref)?)
    }

    /// The packages of a user that can be handed out now, device by device.
    #[must_use]
    pub fn list_available_for_user(&self, user: &str) -> Vec<(PoolId, Vec<PackageFacts>)> {
        let (now, limits) = (self.pools.now(), self.pools.limits());
        let available = |pool: PoolId| {
            let settled = self.pools.pool(&pool)?.state.settled(now, &limits);
            let offered = settled.offerable(now, &limits);
            Some((pool, offered.map(|package| package.facts.clone()).collect()))
        };
        self.pools.devices_of(user).into_iter().filter_map(available).collect()
    }

    /// Sets one package aside for an inviter. The same reservation id gives the same package again.
    ///
    /// # Errors
    ///
    /// Returns a [`StoreError`] if nothing can be handed out. Nothing has changed then.
    pub async fn reserve_key_package(
        &self,
        asked: Reservation,
        idempotency: Idempotency,
    ) -> Result<ReservedKeyPackage, StoreError> {
        let reply = self.reserve_counted(asked, idempotency).await?;
        self.reserved(reply)
    }

    /// Gives a holder more time; returns when the claim ends now.
    ///
    /// # Errors
    ///
    /// Returns a [`StoreError`] if the claim does not hold the package or was renewed too often.
    pub async fn renew(
        &self,
        claim: Claim,
        idempotency: Idempotency,
    ) -> Result<Timestamp, StoreError> {
        let target = Target::Package(claim.keypackage_ref.clone());
        let reply = self.execute(target, Command::Renew(claim.clone()), idempotency).await?;
        match reply.answer {
            Answer::Renewed { deadline } => {
                self.claim_extended(&claim, deadline);
                Ok(deadline)
            }
            _ => Err(StoreError::Confused),
        }
    }

    /// Gives a reserved package back.
    ///
    /// # Errors
    ///
    /// Returns a [`StoreError`] if the claim is not this holder's or has spent the package.
    pub async fn release(&self, claim: Claim, idempotency: Idempotency) -> Result<(), StoreError> {
        let target = Target::Package(claim.keypackage_ref.clone());
        let reply = self.execute(target, Command::Release(claim.clone()), idempotency).await?;
        self.claim_ended(&claim);
        match reply.answer {
            Answer::Released => Ok(()),
            _ => Err(StoreError::Confused),
        }
    }

    fn registered_key(&self, pool: &PoolId) -> Option<SignatureKey> {
        let registration = self.view(pool).state.registration().cloned();
        registration.map(|registration| registration.signature_key)
    }

    /// Uses up a reserved package.
    ///
    /// # Errors
    ///
    /// Returns a [`StoreError`] if the claim does not hold the package. A reservation that was lost is
    /// recorded as a conflict; otherwise nothing has changed.
    pub async fn spend_key_package(
        &self,
        claim: Claim,
        group: GroupId,
        idempotency: Idempotency,
    ) -> Result<Spent, StoreError> {
        let target = Target::Package(claim.keypackage_ref.clone());
        let command = Command::Spend { claim: claim.clone(), group };
        let reply = self.execute(target, command, idempotency).await?;
        self.claim_ended(&claim);
        match reply.answer {
            Answer::Spent { late, replayed } => Ok(Spent { late, replayed }),
            _ => Err(StoreError::Confused),
        }
    }

    /// Withdraws packages of a pool: they are never offered again.
    ///
    /// # Errors
    ///
    /// Returns a [`StoreError`] if one of them is not in the pool. Nothing has changed then.
    pub async fn revoke(
        &self,
        pool: &PoolId,
        which: Which,
        reason: RevokeReason,
        idempotency: Idempotency,
    ) -> Result<Withdrawn, StoreError> {
        let target = Target::Pool(pool.clone());
        let reply = self.execute(target, Command::Revoke { which, reason }, idempotency).await?;
        let health = reply.health();
        let Answer::Revoked(refs) = reply.answer else { return Err(StoreError::Confused) };
        Ok(Withdrawn { refs, health, position: reply.position })
    }

    /// Records what time has done: lapsed reservations, ended lifetimes. Returns how many pools it
    /// has changed. The rules are right without it.
    ///
    /// # Errors
    ///
    /// Returns a [`StoreError`] if the log does not take events.
    pub async fn cleanup_expired(&self) -> Result<u64, StoreError> {
        if let Some(counter) = &self.counter {
            counter.sweep(self.pools.now());
        }
        Ok(self.pools.sweep().await?)
    }

    /// A pool as it is recorded; an empty one if it has no history.
    #[must_use]
    pub fn view(&self, pool: &PoolId) -> Arc<PoolView> {
        self.pools.pool(pool).unwrap_or_default()
    }

    /// A pool as it is recorded, and how full it is now.
    #[must_use]
    pub fn status(&self, pool: &PoolId) -> (Arc<PoolView>, Health) {
        let view = self.view(pool);
        let health = Health::of(&view.state, self.pools.now(), &self.pools.limits());
        (view, health)
    }

    /// The history of a pool after a version, at most `limit` records of it.
    ///
    /// # Errors
    ///
    /// Returns a [`StoreError`] if the log cannot be read.
    pub fn history(
        &self,
        pool: &PoolId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        Ok(self.pools.history(pool, after, limit)?)
    }

    async fn execute(
        &self,
        target: Target,
        command: Command,
        idempotency: Idempotency,
    ) -> Result<Reply, StoreError> {
        let Idempotency { key: id, digest } = idempotency;
        Ok(self.pools.execute(Request { target, command, id, digest }).await?)
    }

    /// Judges each package. It is to be signed with the key that speaks for the pool, unless another one
    /// is named.
    ///
    /// A repeated request is judged as of the moment the first one was recorded, so that it gets the
    /// same answer after its packages have expired.
    async fn admit_all(
        &self,
        pool: &PoolId,
        signer: Option<&SignatureKey>,
        packages: Vec<Vec<u8>>,
        key: CommandId,
    ) -> Result<Vec<Judgement>, StoreError> {
        let recorded = find_command(self.pools.log(), key, 0)?;
        let now =
            recorded.first().map_or_else(|| self.pools.wall_clock(), |first| first.envelope.at);
        let signature_key = signer.cloned().or_else(|| self.registered_key(pool));
        let owner = Owner { pool: pool.clone(), signature_key };
        let bench = Bench { packages, owner, now, rules: self.rules.clone() };
        judge(bench).await.ok_or(StoreError::Cancelled)
    }
}

/// The first 16 bytes of a digest, for an id that follows from it.
fn first_half(digest: &Hash) -> [u8; 16] {
    let mut half = [0; 16];
    half.iter_mut().zip(digest.as_bytes()).for_each(|(to, from)| *to = *from);
    half
}

/// What became of each package, of those that were admitted and of the others.
fn merged(
    verdicts: Vec<Result<(), AdmissionError>>,
    outcomes: Vec<ItemOutcome>,
) -> Result<Vec<Result<ItemOutcome, AdmissionError>>, StoreError> {
    let mut outcomes = outcomes.into_iter();
    let merge = |verdict: Result<(), AdmissionError>| match verdict {
        Ok(()) => outcomes.next().map(Ok).ok_or(StoreError::Confused),
        Err(error) => Ok(Err(error)),
    };
    verdicts.into_iter().map(merge).collect()
}
