//! Rate limits in front of the pools: requests are counted before they are carried out, and given back
//! if they are not.

use std::sync::Arc;

use keypool_api::PolicyRequest;
use keypool_ledger::{CommandId, EventLog, PoolId, ReservationId, Timestamp};
use keypool_projections::{
    Claim, Contacts, ItemOutcome, PolicyChange, PolicyStatus, Rejection,
    quota::{OverQuota, Quota, Quotas, Relation},
};
use uuid::Uuid;

use super::{
    Idempotency, KeyPackageStore, ReservationRequest, StoreError,
    commands::{self, Reserved},
    device_choice::is_for_want_of_packages,
};
use crate::{
    admission::{AdmissionError, Check},
    pools::{
        DeliverError, Delivered, DeliveryCommand, DeliveryRequest, ExecuteError, Reply, Target,
    },
    quota::{Came, Counter, Taken},
};

impl<L: EventLog + 'static> KeyPackageStore<L> {
    /// Adds rate limits for inviters and owners to the store. The counts are restored from the end of
    /// the log.
    ///
    /// # Errors
    ///
    /// Returns a [`StoreError`] if the log cannot be read.
    pub fn with_quotas(self, quotas: Quotas) -> Result<Self, StoreError> {
        let counter = Arc::new(Counter::new(&quotas));
        let counting = Arc::clone(&counter);
        self.pools.on_followed(move |log, records| counting.count_followed(log, records));
        counter.restore(&self.pools)?;
        Ok(Self { counter: Some(counter), ..self })
    }

    /// Reserves a package of one device, if it is within the limits or was made before.
    pub(super) async fn reserve_of(
        &self,
        device: &PoolId,
        asked: &ReservationRequest,
        idempotency: Idempotency,
    ) -> Result<Reply<Reserved>, StoreError> {
        let introduced = asked.introduced || asked.holder.user() == device.user();
        let taken = match self.take(device, (&asked.holder, asked.id), introduced).await {
            Ok(taken) => taken,
            // What was answered once is answered again, however much was asked for since.
            Err(_) if self.is_made(idempotency.key, asked.id).await? => None,
            Err(over) => return Err(ExecuteError::from(Rejection::from(over)).into()),
        };
        let over = taken.and_then(|taken| taken.last_resort_only());
        let command = commands::reserve(asked, introduced, over.is_some());
        let outcome = self.execute(Target::Pool(device.clone()), command, idempotency).await;
        self.settle(taken, &outcome);
        match (outcome, over) {
            // There is no last-resort package: it is the limit that is in the way.
            (Err(StoreError::Execute(ExecuteError::Rejected(why))), Some(over))
                if is_for_want_of_packages(&why) =>
            {
                Err(ExecuteError::from(Rejection::from(over)).into())
            }
            (outcome, _) => outcome,
        }
    }

    /// Counts a package for an inviter before it is reserved.
    async fn take(
        &self,
        pool: &PoolId,
        (holder, id): (&PoolId, ReservationId),
        introduced: bool,
    ) -> Result<Option<Taken>, OverQuota> {
        let Some(counter) = &self.counter else { return Ok(None) };
        let (now, limits) = (self.pools.now(), self.pools.limits());
        let view = if introduced { None } else { self.pools.load_pool(pool).await };
        let contacts = view.as_ref().map(|view| view.state.contacts());
        let is_contact = contacts.is_some_and(|contacts| contacts.is_contact(holder.user()));
        let relation = if introduced || is_contact {
            Relation::Contact
        } else {
            counter.stranger(contacts.and_then(Contacts::strangers_per_hour))
        };
        let until = limits.lapses_at(now.after(limits.reservation_ttl));
        let claim = (id, relation, until);
        counter.take(holder, pool, claim, now).map(Some)
    }

    /// Counts a request for a package that is not reserved; returns the limit that leaves the inviter the
    /// last-resort package alone, if there is one.
    pub(super) async fn count_unreserved(
        &self,
        pool: &PoolId,
        inviter: &PoolId,
        introduced: bool,
    ) -> Result<Option<OverQuota>, OverQuota> {
        let claim = (inviter, ReservationId(Uuid::now_v7()));
        let taken = self.take(pool, claim, introduced).await?;
        let Some((counter, taken)) = self.counter.as_ref().zip(taken) else { return Ok(None) };
        counter.settle(taken, Came::Refused);
        Ok(taken.last_resort_only())
    }

    fn settle(&self, taken: Option<Taken>, outcome: &Result<Reply<Reserved>, StoreError>) {
        let Some((counter, taken)) = self.counter.as_ref().zip(taken) else { return };
        let came = match outcome {
            Ok(reply) if reply.repeated => Came::Repeated,
            Ok(reply) => Came::Reserved(self.pools.limits().lapses_at(reply.answer.deadline)),
            // Nobody knows whether it was reserved: it stays counted.
            Err(StoreError::Execute(ExecuteError::LogUnavailable)) => return,
            Err(_) => Came::Refused,
        };
        counter.settle(taken, came);
    }

    /// Decides whether a request, or its reservation, was carried out before.
    async fn is_made(&self, id: CommandId, reservation: ReservationId) -> Result<bool, StoreError> {
        Ok(self.made_before(id, reservation).await?.is_some())
    }

    /// Takes in that a claim has ended.
    pub(super) fn claim_ended(&self, claim: &Claim) {
        if let Some(counter) = &self.counter {
            counter.end(&claim.holder, claim.reservation);
        }
    }

    /// Takes in that a claim has more time.
    pub(super) fn claim_extended(&self, claim: &Claim, deadline: Timestamp) {
        if let Some(counter) = &self.counter {
            let until = self.pools.limits().lapses_at(deadline);
            counter.extend(&claim.holder, claim.reservation, until);
        }
    }

    /// Carries out a command to the delivery; the reservations that a Commit spends have ended then.
    ///
    /// # Errors
    ///
    /// As [`Pools::deliver`](crate::pools::Pools::deliver).
    pub async fn deliver(&self, request: DeliveryRequest) -> Result<Delivered, DeliverError> {
        let spends = match &request.command {
            DeliveryCommand::Commit { spends, .. } => spends.clone(),
            DeliveryCommand::Make { .. }
            | DeliveryCommand::Post { .. }
            | DeliveryCommand::Leave { .. }
            | DeliveryCommand::Acknowledge(_)
            | DeliveryCommand::Await { .. } => Vec::new(),
        };
        let (caller, costs) = (request.caller.clone(), costs(&request.command));
        let counted = self.count_delivery(&request, &costs).await?;
        let outcome = self.pools.deliver(request).await;
        let is_written = match &outcome {
            Ok(delivered) => delivered.position != 0 && !delivered.repeated,
            Err(DeliverError::Execute(ExecuteError::LogUnavailable)) => true,
            Err(_) => false,
        };
        if counted && !is_written {
            self.give_back_delivery(&caller, &costs);
        }
        let delivered = outcome?;
        for claim in &spends {
            self.claim_ended(claim);
        }
        Ok(delivered)
    }

    /// Counts the costs of a command; returns whether they were counted. A command that was carried out
    /// before is answered again, however much was posted since.
    async fn count_delivery(
        &self,
        request: &DeliveryRequest,
        costs: &[(Quota, u32)],
    ) -> Result<bool, DeliverError> {
        let Some(counter) = &self.counter else { return Ok(false) };
        let now = self.pools.now();
        for (place, (quota, count)) in costs.iter().enumerate() {
            if let Err(over) = counter.device(*quota, &request.caller, *count, now) {
                self.give_back_delivery(&request.caller, costs.get(..place).unwrap_or_default());
                let recorded =
                    self.first_record(request.id).await.map_err(|error| match error {
                        StoreError::Execute(error) => error,
                        _ => ExecuteError::LogUnavailable,
                    })?;
                if recorded.is_some() {
                    return Ok(false);
                }
                return Err(ExecuteError::from(Rejection::from(over)).into());
            }
        }
        Ok(true)
    }

    fn give_back_delivery(&self, caller: &PoolId, costs: &[(Quota, u32)]) {
        let Some(counter) = &self.counter else { return };
        for (quota, count) in costs {
            counter.give_back_device(*quota, caller, *count);
        }
    }

    /// Changes the policy of a pool, and notes the invitations that its owner has joined. Returns the new
    /// policy, and its position in the log.
    ///
    /// # Errors
    ///
    /// Returns a [`StoreError`] if one of the reservations was not spent. Nothing has changed then.
    pub async fn set_policy(
        &self,
        pool: &PoolId,
        asked: PolicyRequest,
        idempotency: Idempotency,
    ) -> Result<(PolicyStatus, u64), StoreError> {
        let PolicyRequest { reserve, joined, removed, blocked, unblocked, strangers_per_hour } =
            asked;
        let change =
            PolicyChange { reserve, strangers_per_hour, joined, removed, blocked, unblocked };
        let is_counted = self.count_policy(pool, idempotency.key).await?;
        let target = Target::Pool(pool.clone());
        let reply = self.execute(target, commands::set_policy(change), idempotency).await;
        self.settle_policy(pool, is_counted, &reply);
        let reply = reply?;
        Ok((reply.answer, reply.position))
    }

    /// Counts a change of a policy or of a leaf key, unless it was carried out before; returns whether it was
    /// counted.
    pub(super) async fn count_policy(
        &self,
        pool: &PoolId,
        id: CommandId,
    ) -> Result<bool, StoreError> {
        let Some(counter) = &self.counter else { return Ok(false) };
        if self.first_record(id).await?.is_some() {
            return Ok(false);
        }
        let may = counter.device(Quota::Policy, pool, 1, self.pools.now());
        may.map_err(|over| ExecuteError::from(Rejection::from(over)))?;
        Ok(true)
    }

    /// Gives back the count of a change that has changed nothing.
    pub(super) fn settle_policy<T>(
        &self,
        pool: &PoolId,
        is_counted: bool,
        reply: &Result<Reply<T>, StoreError>,
    ) {
        let is_made = match reply {
            Ok(reply) => !reply.repeated,
            Err(StoreError::Execute(ExecuteError::LogUnavailable)) => true,
            Err(_) => false,
        };
        if let Some(counter) = self.counter.as_ref().filter(|_| is_counted && !is_made) {
            counter.give_back_device(Quota::Policy, pool, 1);
        }
    }

    /// Counts the packages of an upload, unless it was `recorded` before; returns how many were.
    pub(super) fn count_upload(
        &self,
        pool: &PoolId,
        count: usize,
        recorded: Option<Timestamp>,
    ) -> Result<usize, StoreError> {
        let Some(counter) = self.counter.as_ref().filter(|_| recorded.is_none()) else {
            return Ok(0);
        };
        let may = counter.upload(pool, count, self.pools.now());
        may.map_err(|over| ExecuteError::from(Rejection::from(over)))?;
        Ok(count)
    }

    /// Gives back the count of packages that this upload has not put into the pool. Packages that were not
    /// admitted stay counted, since checking them has cost something; but not those whose lifetime was refused:
    /// a device whose clock is wrong is not shut out once its clock is right.
    pub(super) fn settle_upload(
        &self,
        pool: &PoolId,
        counted: usize,
        items: Result<&[Result<ItemOutcome, AdmissionError>], &StoreError>,
    ) {
        let stored = match items {
            Ok(items) => {
                let is_stored = |item: &&Result<ItemOutcome, AdmissionError>| match item {
                    Ok(outcome) => matches!(outcome, ItemOutcome::Stored(_)),
                    Err(error) => error.check != Check::Lifetime,
                };
                items.iter().filter(is_stored).count()
            }
            Err(StoreError::Execute(ExecuteError::LogUnavailable)) => counted,
            Err(_) => 0,
        };
        if let Some(counter) = &self.counter {
            counter.give_back_upload(pool, counted.saturating_sub(stored));
        }
    }

    /// How many inviters and pools something is counted of.
    pub(crate) fn counted(&self) -> (usize, usize) {
        self.counter.as_ref().map_or((0, 0), |counter| counter.len())
    }
}

/// The costs of a command to the delivery, by limit.
fn costs(command: &DeliveryCommand) -> Vec<(Quota, u32)> {
    let posted = |bytes: usize| vec![(Quota::Posts, 1), (Quota::PostBytes, kib(bytes as u64))];
    match command {
        DeliveryCommand::Make { .. } => vec![(Quota::Groups, 1)],
        DeliveryCommand::Post { message, .. } => posted(message.len()),
        DeliveryCommand::Commit { commit, welcomes, .. } => {
            let welcomes = welcomes.iter().map(|welcome| welcome.bytes.len());
            posted(commit.len() + welcomes.sum::<usize>())
        }
        // Each device that is to be awaited counts as a package that is asked for.
        DeliveryCommand::Leave { .. }
        | DeliveryCommand::Acknowledge(_)
        | DeliveryCommand::Await { .. } => Vec::new(),
    }
}

/// KiB that so many bytes are counted as.
pub(crate) fn kib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}
