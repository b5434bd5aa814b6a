//! Reservations and uploads within the limits: counted before they are carried out, and given back if
//! they are not.

use keypool_api::PolicyRequest;
use keypool_ledger::{
    CommandId, EventLog, PoolId, ReservationId, Timestamp,
    log::{find_command, find_reservation},
};
use keypool_projections::{
    Answer, Circle, Claim, Command, ItemOutcome, PolicyChange, PolicyStatus, Rejection,
    quota::{OverQuota, Quota, Quotas, Relation},
};

use super::{Idempotency, Invitee, KeyPackageStore, Reservation, StoreError};
use crate::{
    admission::AdmissionError,
    pools::{
        DeliverError, Delivered, DeliveryCommand, DeliveryRequest, ExecuteError, Reply, Request,
        Target,
    },
    quota::{Came, Counter, Taken},
};

impl Reservation {
    /// The request that reserves a package of a target.
    pub(super) fn request(&self, target: Target, idempotency: Idempotency) -> Request {
        let Idempotency { key: id, digest } = idempotency;
        let command = Command::Reserve {
            reservation: self.id,
            holder: self.holder.clone(),
            group: self.group.clone(),
            ciphersuites: self.ciphersuites.clone(),
            introduced: self.introduced,
            last_resort_only: false,
        };
        Request { target, command, id, digest }
    }
}

impl<L: EventLog + 'static> KeyPackageStore<L> {
    /// The same store with limits on what inviters and owners may ask for. What counts already is read
    /// from the end of the log.
    ///
    /// # Errors
    ///
    /// Returns a [`StoreError`] if the log cannot be read.
    pub fn with_quotas(self, quotas: Quotas) -> Result<Self, StoreError> {
        let counter = Counter::new(&quotas);
        counter.restore(&self.pools)?;
        Ok(Self { counter: Some(counter), ..self })
    }

    /// Reserves a package of the device that is meant, or of the first of a user's that has one for this
    /// inviter.
    pub(super) async fn reserve_counted(
        &self,
        asked: Reservation,
        idempotency: Idempotency,
    ) -> Result<Reply, StoreError> {
        let request = |target| asked.request(target, idempotency);
        let user = match &asked.invitee {
            Invitee::Device(pool) => {
                return Ok(self.reserve_of(pool, request(Target::Pool(pool.clone()))).await?);
            }
            Invitee::User(user) => user.clone(),
        };
        let mut devices = self.pools.devices_of(&user);
        devices.retain(|device| *device != asked.holder);
        let is_one_of_many = 1 < devices.len();
        if devices.is_empty() || is_one_of_many && self.is_made(idempotency.key, asked.id)? {
            return Ok(self.pools.execute(request(Target::User(user))).await?);
        }
        let mut refusal = Rejection::UnknownUser(user);
        for device in devices {
            match self.reserve_of(&device, request(Target::Pool(device.clone()))).await {
                Err(ExecuteError::Rejected(why)) if another_device_may_serve(&why) => {
                    refusal = more_telling(refusal, why);
                }
                outcome => return Ok(outcome?),
            }
        }
        Err(ExecuteError::from(refusal).into())
    }

    /// Carries out a reservation of one pool's package, if it is within the limits or was made before.
    pub(super) async fn reserve_of(
        &self,
        pool: &PoolId,
        mut request: Request,
    ) -> Result<Reply, ExecuteError> {
        let Command::Reserve { reservation, holder, introduced, last_resort_only, .. } =
            &mut request.command
        else {
            return Err(ExecuteError::LogUnavailable);
        };
        *introduced |= holder.user() == pool.user();
        let taken = match self.take(pool, holder, *reservation, *introduced) {
            Ok(taken) => taken,
            // What was answered once is answered again, however much was asked for since.
            Err(_) if self.is_made(request.id, *reservation)? => None,
            Err(over) => return Err(Rejection::from(over).into()),
        };
        let over = taken.and_then(|taken| taken.last_resort_only());
        *last_resort_only = over.is_some();
        let outcome = self.pools.execute(request).await;
        self.settle(taken, &outcome);
        match (outcome, over) {
            // There is no last-resort package: it is the limit that is in the way.
            (Err(ExecuteError::Rejected(why)), Some(over)) if is_for_want_of_packages(&why) => {
                Err(Rejection::from(over).into())
            }
            (outcome, _) => outcome,
        }
    }

    /// Counts a package for an inviter before it is reserved.
    fn take(
        &self,
        pool: &PoolId,
        holder: &PoolId,
        reservation: ReservationId,
        introduced: bool,
    ) -> Result<Option<Taken>, OverQuota> {
        let Some(counter) = &self.counter else { return Ok(None) };
        let (now, limits) = (self.pools.now(), self.pools.limits());
        let view = if introduced { None } else { self.pools.pool(pool) };
        let circle = view.as_ref().map(|view| view.state.circle());
        let is_contact = circle.is_some_and(|circle| circle.is_contact(holder.user()));
        let relation = if introduced || is_contact {
            Relation::Contact
        } else {
            counter.stranger(circle.and_then(Circle::strangers_per_hour))
        };
        let until = limits.lapses_at(now.after(limits.reservation_ttl));
        let claim = (reservation, relation, until);
        counter.take(holder, pool, claim, now).map(Some)
    }

    fn settle(&self, taken: Option<Taken>, outcome: &Result<Reply, ExecuteError>) {
        let Some((counter, taken)) = self.counter.as_ref().zip(taken) else { return };
        let came = match outcome {
            Ok(reply) if reply.repeated => Came::Repeated,
            Ok(Reply { answer: Answer::Reserved { deadline, .. }, .. }) => {
                Came::Reserved(self.pools.limits().lapses_at(*deadline))
            }
            // Nobody knows whether it was reserved: it stays counted.
            Err(ExecuteError::LogUnavailable) => return,
            Ok(_) | Err(_) => Came::Refused,
        };
        counter.settle(taken, came);
    }

    /// Whether a request, or its reservation, was carried out before.
    fn is_made(&self, id: CommandId, reservation: ReservationId) -> Result<bool, ExecuteError> {
        let log = self.pools.log();
        Ok(!find_command(log, id, 0)?.is_empty()
            || find_reservation(log, reservation, 0)?.is_some())
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
            | DeliveryCommand::Acknowledge(_) => Vec::new(),
        };
        let (caller, costs) = (request.caller.clone(), costs(&request.command));
        let counted = self.count_delivery(&request, &costs)?;
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

    /// Counts what a command costs its device; returns whether it was. One that was carried out before is
    /// answered again, however much was posted since.
    fn count_delivery(
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
                    find_command(self.pools.log(), request.id, 0).map_err(ExecuteError::from)?;
                if !recorded.is_empty() {
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

    /// Says who may reserve packages of a pool, and whose invitations its owner has joined; returns what
    /// holds now, and where that stands in the log.
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
        let is_counted = self.count_policy(pool, idempotency.key)?;
        let target = Target::Pool(pool.clone());
        let reply = self.execute(target, Command::SetPolicy(change), idempotency).await;
        self.settle_policy(pool, is_counted, &reply);
        let reply = reply?;
        match reply.answer {
            Answer::PolicySet(status) => Ok((status, reply.position)),
            _ => Err(StoreError::Confused),
        }
    }

    /// Counts a change of a policy or of a leaf key, unless it was carried out before; returns whether it was
    /// counted.
    pub(super) fn count_policy(&self, pool: &PoolId, id: CommandId) -> Result<bool, StoreError> {
        let Some(counter) = &self.counter else { return Ok(false) };
        if !find_command(self.pools.log(), id, 0)?.is_empty() {
            return Ok(false);
        }
        let may = counter.device(Quota::Policy, pool, 1, self.pools.now());
        may.map_err(|over| ExecuteError::from(Rejection::from(over)))?;
        Ok(true)
    }

    /// Gives back what was counted for a change that has changed nothing.
    pub(super) fn settle_policy(
        &self,
        pool: &PoolId,
        is_counted: bool,
        reply: &Result<Reply, StoreError>,
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

    /// Counts the packages of an upload, unless it was carried out before; returns how many were.
    pub(super) fn count_upload(
        &self,
        pool: &PoolId,
        count: usize,
        id: CommandId,
    ) -> Result<usize, StoreError> {
        let Some(counter) = &self.counter else { return Ok(0) };
        if !find_command(self.pools.log(), id, 0)?.is_empty() {
            return Ok(0);
        }
        let may = counter.upload(pool, count, self.pools.now());
        may.map_err(|over| ExecuteError::from(Rejection::from(over)))?;
        Ok(count)
    }

    /// Gives back what was counted for packages that are not in the pool because of this upload; those that
    /// were not admitted have cost the check of them.
    pub(super) fn settle_upload(
        &self,
        pool: &PoolId,
        counted: usize,
        items: Result<&[Result<ItemOutcome, AdmissionError>], &StoreError>,
    ) {
        let stored = match items {
            Ok(items) => {
                let is_stored = |item: &&_| matches!(item, Ok(ItemOutcome::Stored(_)) | Err(_));
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
        self.counter.as_ref().map_or((0, 0), Counter::len)
    }
}

/// What a command to the delivery costs its device.
fn costs(command: &DeliveryCommand) -> Vec<(Quota, u32)> {
    let posted = |bytes: usize| vec![(Quota::Posts, 1), (Quota::PostBytes, kib(bytes as u64))];
    match command {
        DeliveryCommand::Make { .. } => vec![(Quota::Groups, 1)],
        DeliveryCommand::Post { message, .. } => posted(message.len()),
        DeliveryCommand::Commit { commit, welcomes, .. } => {
            let welcomes = welcomes.iter().map(|welcome| welcome.bytes.len());
            posted(commit.len() + welcomes.sum::<usize>())
        }
        DeliveryCommand::Leave { .. } | DeliveryCommand::Acknowledge(_) => Vec::new(),
    }
}

/// KiB that so many bytes are counted as.
pub(crate) fn kib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

/// Whether a pool has refused because there is no package that fits.
const fn is_for_want_of_packages(rejection: &Rejection) -> bool {
    matches!(
        rejection,
        Rejection::PoolExhausted | Rejection::NothingCompatible | Rejection::KeptForContacts
    )
}

/// Whether a refusal is about one device of a user, so that another of the user's may serve.
const fn another_device_may_serve(rejection: &Rejection) -> bool {
    is_for_want_of_packages(rejection)
        || matches!(
            rejection,
            Rejection::ContactsOnly
                | Rejection::Blocked
                | Rejection::OverQuota(_)
                | Rejection::NotRegistered
        )
}

/// Which of two devices' refusals is told: the one that can be waited for, the sooner the better; else the
/// one that says more than that nothing is left.
fn more_telling(before: Rejection, new: Rejection) -> Rejection {
    match (&before, &new) {
        // A device that was removed says nothing of the others.
        (_, Rejection::NotRegistered) => before,
        (Rejection::OverQuota(first), Rejection::OverQuota(second))
            if first.wait <= second.wait =>
        {
            before
        }
        (_, Rejection::OverQuota(_)) => new,
        (Rejection::OverQuota(_), _) => before,
        (Rejection::KeptForContacts | Rejection::NothingCompatible, Rejection::PoolExhausted) => {
            before
        }
        _ => new,
    }
}
