//! The store of packages: admission in front of the pools, for the routes and for other programs.

mod commands;

mod declaration;

mod rate_limited;

mod device_choice;

mod parallel_admission;

mod reserve_many;

mod reconciliation;

mod replacement;

mod report;

mod upload;

mod waiting_list;

use std::sync::Arc;

use keypool_ledger::{
    CommandId, EventLog, GroupId, Hash, KeyPackageRef, PackageFacts, PoolId, ReadError, Record,
    ReservationId, RevokeReason, SignatureKey, SignedStatement, Timestamp, log::find_command,
};
use keypool_projections::{
    Claim, ED25519, Health, ItemOutcome, NextKey, Package, RequiredCapabilities, RevokeScope,
};
use uuid::Uuid;

pub(crate) use self::rate_limited::kib;
use self::{
    commands::Typed,
    parallel_admission::{AdmissionBatch, Checked, check_all},
    reserve_many::with_bytes,
};
pub use self::{
    declaration::Recovered,
    reconciliation::{Held, Reconciled},
    replacement::Replaced,
    reserve_many::{ManyReservations, ReservedMany},
    waiting_list::AwaitPackages,
};
use crate::{
    admission::{AdmissionError, AdmissionRules, Owner},
    pools::{DeliverError, ExecuteError, PoolView, Pools, Reply, Request, Target},
    quota::Counter,
};

/// The packages of all users, admitted and handed out.
#[derive(Debug)]
pub struct KeyPackageStore<L> {
    pools: Arc<Pools<L>>,
    rules: AdmissionRules,
    counter: Option<Arc<Counter>>,
}

/// Idempotency key and digest of a request: repeated, it has one effect and one answer for ever.
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
    /// The delivery did not carry it out.
    #[error(transparent)]
    Deliver(#[from] DeliverError),
    /// The pools gave the answer of another command: a bug.
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

/// The result of an upload.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The outcome of each package, in the order of the request.
    pub items: Vec<Result<ItemOutcome, AdmissionError>>,
    /// The pool afterwards.
    pub health: Health,
    /// The place of the pool's last event in the log.
    pub position: u64,
}

/// A package that was set aside for an inviter.
#[derive(Clone, Debug)]
pub struct ReservedKeyPackage {
    /// The pool of the package.
    pub pool: PoolId,
    /// The facts of the package.
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

/// A device or a user to invite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReservationTarget {
    /// This device.
    Device(PoolId),
    /// One of this user's devices that has a package left.
    User(String),
}

/// An inviter's request for a reservation.
#[derive(Clone, Debug)]
pub struct ReservationRequest {
    /// The invitee.
    pub invitee: ReservationTarget,
    /// The inviter's device.
    pub holder: PoolId,
    /// The group the invitation is for.
    pub group: GroupId,
    /// The claim, drawn at random by the inviter.
    pub id: ReservationId,
    /// The ciphersuites the group can use; any if empty.
    pub ciphersuites: Vec<u16>,
    /// The capabilities that the package must have.
    pub required: RequiredCapabilities,
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
    /// The packages that are revoked now, by this request or before.
    pub refs: Vec<KeyPackageRef>,
    /// The pool afterwards.
    pub health: Health,
    /// The place of the pool's last event in the log.
    pub position: u64,
}

impl<L: EventLog + 'static> KeyPackageStore<L> {
    /// A store over some pools, of which as much may be asked for as anybody likes.
    #[must_use]
    pub fn new(pools: impl Into<Arc<Pools<L>>>, rules: AdmissionRules) -> Self {
        Self { pools: pools.into(), rules, counter: None }
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
        let command = commands::register(pool, signature_key, statement);
        let reply = self.execute(Target::Pool(pool.clone()), command, idempotency).await?;
        Ok((reply.answer, reply.position))
    }

    /// Rotates the key of a device, and withdraws the packages that the previous key has signed. Returns
    /// whether the new key was registered before, and the position in the log. The caller has checked the
    /// previous key's statement.
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
        let command = commands::rotate(pool, statement, signature_key);
        let reply = self.execute(Target::Pool(pool.clone()), command, idempotency).await?;
        Ok((reply.answer, reply.position))
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
        let devices = match self.pools.suspension_of(user) {
            Some(_) => Vec::new(),
            None => self.pools.devices_of(user),
        };
        devices.into_iter().filter_map(available).collect()
    }

    /// Sets one package aside for an inviter. The same reservation id gives the same package again.
    ///
    /// # Errors
    ///
    /// Returns a [`StoreError`] if nothing can be handed out. Nothing has changed then.
    pub async fn reserve_key_package(
        &self,
        asked: ReservationRequest,
        idempotency: Idempotency,
    ) -> Result<ReservedKeyPackage, StoreError> {
        let reply = self.reserve_of_any(asked, idempotency).await?;
        let bytes = self.pools.load_package_bytes(&reply.answer.facts.keypackage_ref).await?;
        Ok(with_bytes(reply, bytes)?)
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
        let reply = self.execute(target, commands::renew(claim.clone()), idempotency).await?;
        self.claim_extended(&claim, reply.answer);
        Ok(reply.answer)
    }

    /// Gives a reserved package back.
    ///
    /// # Errors
    ///
    /// Returns a [`StoreError`] if the claim is not this holder's or has spent the package.
    pub async fn release(&self, claim: Claim, idempotency: Idempotency) -> Result<(), StoreError> {
        let target = Target::Package(claim.keypackage_ref.clone());
        self.execute(target, commands::release(claim.clone()), idempotency).await?;
        self.claim_ended(&claim);
        Ok(())
    }

    /// The owner of a pool's packages: as it is recorded, or as the next key will have it.
    async fn owner(&self, pool: &PoolId, next: Option<&NextKey>) -> Owner {
        let view = self.load_view(pool).await;
        let registered = view.state.registration().map(|known| known.signature_key.clone());
        let of_next = |next: &NextKey| {
            let mut leaf_keys = next.leaf_keys.iter().map(|(_, leaf_key)| leaf_key);
            leaf_keys.find(|leaf_key| leaf_key.signature_scheme == ED25519).cloned()
        };
        let leaf_key = match next {
            Some(next) => of_next(next).map(|leaf_key| leaf_key.signature_key),
            None => view.state.pinned_key(ED25519).cloned(),
        };
        let signature_key = next.map(|next| next.signature_key.clone()).or(registered);
        let credential = view.state.declared_credential();
        Owner { pool: pool.clone(), signature_key, leaf_key, credential }
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
        let reply =
            self.execute(target, commands::spend(claim.clone(), group), idempotency).await?;
        self.claim_ended(&claim);
        Ok(reply.answer)
    }

    /// Withdraws packages of a pool: they are never offered again.
    ///
    /// # Errors
    ///
    /// Returns a [`StoreError`] if one of them is not in the pool. Nothing has changed then.
    pub async fn revoke(
        &self,
        pool: &PoolId,
        which: RevokeScope,
        reason: RevokeReason,
        idempotency: Idempotency,
    ) -> Result<Withdrawn, StoreError> {
        let target = Target::Pool(pool.clone());
        let reply = self.execute(target, commands::revoke(which, reason), idempotency).await?;
        let health = reply.health();
        Ok(Withdrawn { refs: reply.answer, health, position: reply.position })
    }

    /// Records the effects of time: lapsed reservations, ended lifetimes. Returns how many pools it
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

    /// Like [`KeyPackageStore::view`], for async callers.
    pub async fn load_view(&self, pool: &PoolId) -> Arc<PoolView> {
        self.pools.load_pool(pool).await.unwrap_or_default()
    }

    /// Like [`KeyPackageStore::status`], for async callers.
    pub async fn load_status(&self, pool: &PoolId) -> (Arc<PoolView>, Health) {
        let view = self.load_view(pool).await;
        let health = Health::of(&view.state, self.pools.now(), &self.pools.limits());
        (view, health)
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

    /// Carries out a command, and takes its answer out of all answers.
    async fn execute<T>(
        &self,
        target: Target,
        Typed { command, answer }: Typed<T>,
        idempotency: Idempotency,
    ) -> Result<Reply<T>, StoreError> {
        let Idempotency { key: id, digest } = idempotency;
        let reply = self.pools.execute(Request { target, command, id, digest }).await?;
        reply.with_part(answer).ok_or(StoreError::Confused)
    }

    /// Reads the pools and their log on a thread that may wait for the disk.
    pub(crate) async fn read<T, E>(
        &self,
        read: impl FnOnce(&Pools<L>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        E: Send + 'static,
        StoreError: From<E>,
    {
        Ok(self.pools.read(read).await??)
    }

    /// Finds the first record of a request that was carried out before.
    pub(crate) async fn first_record(&self, key: CommandId) -> Result<Option<Record>, StoreError> {
        if !self.pools.may_be_made(key, None) {
            return Ok(None);
        }
        let recorded = self.read(move |pools| find_command(pools.log(), key, 0)).await?;
        Ok(recorded.into_iter().next())
    }

    /// Judges each package of an owner.
    ///
    /// A repeated request is judged as of the moment the first one was `recorded`, so that it gets the
    /// same answer after its packages have expired.
    async fn admit_all(
        &self,
        owner: Owner,
        packages: Vec<Vec<u8>>,
        recorded: Option<Timestamp>,
    ) -> Result<Vec<Checked>, StoreError> {
        let now = recorded.unwrap_or_else(|| self.pools.wall_clock());
        let batch = AdmissionBatch { packages, owner, now, rules: self.rules.clone() };
        check_all(batch).await.ok_or(StoreError::Cancelled)
    }
}

/// The first 16 bytes of a digest, for an id that follows from it.
fn first_half(digest: &Hash) -> [u8; 16] {
    let mut half = [0; 16];
    half.iter_mut().zip(digest.as_bytes()).for_each(|(to, from)| *to = *from);
    half
}

/// The outcome of each package of a request: the pool has one for each that was admitted, in their order.
fn merged(
    verdicts: Vec<Result<(), AdmissionError>>,
    outcomes: Vec<ItemOutcome>,
) -> Vec<Result<ItemOutcome, AdmissionError>> {
    let mut outcomes = outcomes.into_iter();
    let merge = |verdict: Result<(), AdmissionError>| match verdict {
        Ok(()) => outcomes.next().map(Ok),
        Err(error) => Some(Err(error)),
    };
    verdicts.into_iter().filter_map(merge).collect()
}
