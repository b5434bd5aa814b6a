//! The rules of a pool: which events a command leads to. Pure; see [`PoolState::decide`].

mod pinning;
mod recovery;
mod registration;
mod replacing;
mod reporting;
mod selection;

use keypool_ledger::{
    Event, GroupId, KeyPackageRef, PackageFacts, PoolId, ReleaseReason, ReservationId,
    RevokeReason, SignatureKey, SignedStatement, Timestamp,
};

pub use self::selection::ProspectiveHolder;
pub(crate) use self::selection::is_lapse_exhausted;
use self::selection::{GroupNeeds, Withheld, is_offerable};
use crate::{
    command::{
        Answer, Claim, Command, ItemOutcome, ItemRefusal, Limits, NewPackage, Rejection,
        RevokeScope,
    },
    lifecycle::Stage,
    pool::{Package, PoolState, Reservation, ReservationStatus},
};

/// The events and the answer that a command leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The events, to be recorded in this order. Empty if the command changes nothing.
    pub events: Vec<Event>,
    /// The answer for the caller, once the events are recorded.
    pub answer: Result<Answer, Rejection>,
}

impl PoolState {
    /// Decides which events a command leads to at the moment `now`. Changes nothing.
    ///
    /// Time is a source of events too: lapses and expiries since the last command are settled first, so
    /// that no rule below looks at a stale reservation. A refused command leaves no event, but for the
    /// `Conflict` of a lost reservation; the effects of time that it observed are recorded with the next
    /// command that succeeds, or by the sweep.
    #[must_use]
    pub fn decide(&self, command: &Command, now: Timestamp, limits: &Limits) -> Decision {
        self.decide_with_outcome(command, now, limits).0
    }

    /// As [`PoolState::decide`], with the pool as the events will leave it; `None` without events.
    pub fn decide_with_outcome(
        &self,
        command: &Command,
        now: Timestamp,
        limits: &Limits,
    ) -> (Decision, Option<Self>) {
        let mut draft = Draft { pool: self.clone(), events: Vec::new(), now, limits };
        if let Err(rejection) = draft.expire_due() {
            return (Decision { events: Vec::new(), answer: Err(rejection) }, None);
        }
        let settled = draft.events.len();
        let answer = draft.carry_out(command);
        // A command that adds nothing of its own records nothing, not even what time has done:
        // repeating a request never adds an event. A refused one leaves nothing but a conflict.
        let adds = match &answer {
            Ok(_) => settled < draft.events.len() || *command == Command::Settle,
            Err(_) => matches!(draft.events.last(), Some(Event::Conflict { .. })),
        };
        let events = if adds { draft.events } else { Vec::new() };
        let after = (!events.is_empty()).then_some(draft.pool);
        (Decision { events, answer }, after)
    }

    /// The pool as it is at `now`: with everything settled that time has done to it.
    #[must_use]
    pub fn settled(&self, now: Timestamp, limits: &Limits) -> Self {
        let mut draft = Draft { pool: self.clone(), events: Vec::new(), now, limits };
        match draft.expire_due() {
            Ok(()) => draft.pool,
            Err(_) => self.clone(),
        }
    }

    /// Whether time has done something to the pool that is not recorded yet.
    #[must_use]
    pub fn is_due(&self, now: Timestamp, limits: &Limits) -> bool {
        let lapsed =
            self.open_reservations().any(|(_, open)| limits.lapses_at(open.deadline) <= now);
        let over = |package: &Package| {
            package.facts.not_after <= now || is_lapse_exhausted(package, limits)
        };
        lapsed || self.live().any(over)
    }

    /// The packages that can be handed out at `now`, by reference: not yet used, not held, and sure to
    /// outlive a reservation.
    ///
    /// Reads the pool as recorded; ask a [`PoolState::settled`] one to include lapses since then.
    pub fn offerable(
        &self,
        now: Timestamp,
        limits: &Limits,
    ) -> impl Iterator<Item = &Package> + use<'_> {
        let limits = *limits;
        self.live().filter(move |package| is_offerable(package, now, &limits))
    }
}

/// A decision under way: the events so far, and the pool as they leave it.
///
/// Each event is evolved as it is recorded, so that a rule sees the effect of the one before it, and
/// an event that the lifecycle forbids cannot leave this file.
struct Draft<'a> {
    pool: PoolState,
    events: Vec<Event>,
    now: Timestamp,
    limits: &'a Limits,
}

impl Draft<'_> {
    fn carry_out(&mut self, command: &Command) -> Result<Answer, Rejection> {
        match command {
            Command::Register { signature_key, credential, statement } => {
                self.register(signature_key, credential, statement.as_ref(), None)
            }
            Command::Admit { signature_key, credential, statement, frontend } => {
                self.register(signature_key, credential, statement.as_ref(), frontend.as_ref())
            }
            Command::Rotate { statement, signature_key, credential } => {
                self.rotate(statement, signature_key, credential)
            }
            Command::Remove { by } => self.remove(by),
            Command::DeclareLeafKey { statement, leaf_key } => self.declare(statement, leaf_key),
            Command::DeclareCredential { statement, credential } => {
                self.declare_credential(statement, credential)
            }
            Command::SetRecoveryKey { statement, recovery_key } => {
                self.set_recovery_key(statement, recovery_key)
            }
            Command::Recover { statement, signature_key, credential } => {
                self.recover(statement, signature_key, credential)
            }
            Command::ReleaseName => self.release_name(),
            Command::Upload(packages) => self.upload(packages).map(Answer::Uploaded),
            Command::Replace { packages, next } => self.replace(packages, next.as_ref()),
            Command::Reserve { reservation, holder, group, ciphersuites, required, .. } => {
                let needs = GroupNeeds { ciphersuites, required };
                if let Some(made) = self.pool.reservation(*reservation) {
                    return self.reserved_before(*reservation, made, (holder, group, needs));
                }
                let withheld = self.withheld(command)?;
                self.reserve(*reservation, holder, group, (needs, &withheld))
            }
            Command::Renew(claim) => self.renew(claim),
            Command::Release(claim) => self.release(claim),
            Command::Report { claim, check, admissible } => {
                self.report(claim, check.as_ref(), *admissible)
            }
            Command::Spend { claim, group } => self.spend(claim, group),
            Command::Revoke { which, reason } => self.revoke(which, *reason),
            Command::SetPolicy(change) => {
                for event in self.pool.decide_policy(change)? {
                    self.record(event)?;
                }
                Ok(self.pool.contacts().answer())
            }
            Command::Settle => Ok(Answer::Settled),
        }
    }

    fn record(&mut self, event: Event) -> Result<(), Rejection> {
        self.pool.evolve(&event, self.now)?;
        self.events.push(event);
        Ok(())
    }

    /// Ends the reservations that have lapsed and the lifetimes that are over.
    fn expire_due(&mut self) -> Result<(), Rejection> {
        if !self.pool.is_due(self.now, self.limits) {
            return Ok(());
        }
        let lapsed: Vec<(ReservationId, KeyPackageRef)> = self
            .pool
            .open_reservations()
            .filter(|(_, open)| self.limits.lapses_at(open.deadline) <= self.now)
            .map(|(id, open)| (id, open.keypackage_ref.clone()))
            .collect();
        for (reservation, keypackage_ref) in lapsed {
            let reason = ReleaseReason::Lapsed;
            self.record(Event::Released { keypackage_ref, reservation, reason })?;
        }
        for keypackage_ref in
            self.live_refs(|package, draft| is_lapse_exhausted(package, draft.limits))
        {
            let reason = RevokeReason::Lapsed;
            self.record(Event::Revoked { keypackage_ref, reason, check: None })?;
        }
        for keypackage_ref in self.live_refs(|package, draft| package.facts.not_after <= draft.now)
        {
            self.record(Event::Expired { keypackage_ref })?;
        }
        Ok(())
    }

    fn live_refs(&self, test: impl Fn(&Package, &Self) -> bool) -> Vec<KeyPackageRef> {
        let kept = self.pool.live().filter(|package| test(package, self));
        kept.map(|package| package.facts.keypackage_ref.clone()).collect()
    }

    /// All live packages are withdrawn with the key: those that are reserved can still be spent.
    fn rotate(
        &mut self,
        statement: &SignedStatement,
        key: &SignatureKey,
        credential: &str,
    ) -> Result<Answer, Rejection> {
        match self.pool.registration() {
            Some(known) if known.signature_key == *key => Ok(Answer::Registered { known: true }),
            Some(known) if known.signature_key == statement.by => {
                let (signature_key, credential) = (key.clone(), credential.to_owned());
                let statement = Some(statement.clone());
                self.record(Event::KeyRotated { signature_key, credential, statement })?;
                self.revoke(&RevokeScope::All, RevokeReason::Rotated)?;
                Ok(Answer::Registered { known: false })
            }
            _ => Err(Rejection::IdentityBound),
        }
    }

    fn upload(&mut self, packages: &[NewPackage]) -> Result<Vec<ItemOutcome>, Rejection> {
        if self.pool.is_removed() {
            return Err(Rejection::NotRegistered);
        }
        let mut outcomes = Vec::with_capacity(packages.len());
        for NewPackage { facts, leaf_key, .. } in packages {
            let keypackage_ref = facts.keypackage_ref.clone();
            let known = self.pool.get(&keypackage_ref).map(|package| package.stage);
            let refusal = self.refusal(facts).or_else(|| self.credential_refusal(facts));
            let refusal = refusal.or_else(|| self.pin_refusal(leaf_key.as_ref()));
            outcomes.push(match (known, refusal) {
                (Some(stage), _) if stage != Stage::Created => {
                    ItemOutcome::Known(keypackage_ref, stage)
                }
                (_, Some(refusal)) => ItemOutcome::Refused(keypackage_ref, refusal),
                (_, None) => {
                    self.record(Event::Uploaded(facts.clone()))?;
                    ItemOutcome::Stored(keypackage_ref)
                }
            });
        }
        Ok(outcomes)
    }

    /// Why a package that was never seen may not enter the pool.
    fn refusal(&self, facts: &PackageFacts) -> Option<ItemRefusal> {
        if facts.not_after <= self.now {
            return Some(ItemRefusal::LifetimeOver);
        }
        if self.pool.knows_init_key(&facts.init_key) {
            return Some(ItemRefusal::InitKeySeen);
        }
        if facts.last_resort {
            let same = |package: &Package| {
                package.facts.last_resort && package.facts.ciphersuite == facts.ciphersuite
            };
            return self.pool.live().any(same).then_some(ItemRefusal::LastResortHeld);
        }
        let live = self.pool.live().filter(|package| !package.facts.last_resort).count();
        (self.limits.packages_max <= live).then_some(ItemRefusal::PoolFull)
    }

    /// Reserves the first eligible package in offer order, excluding those that are withheld.
    fn reserve(
        &mut self,
        reservation: ReservationId,
        holder: &PoolId,
        group: &GroupId,
        (needs, withheld): (GroupNeeds<'_>, &Withheld),
    ) -> Result<Answer, Rejection> {
        let package = self.first_offer(needs, withheld)?;
        let (facts, generation) = (package.facts.clone(), package.generation.saturating_add(1));
        let deadline = self.now.after(self.limits.reservation_ttl);
        self.record(Event::Reserved {
            keypackage_ref: facts.keypackage_ref.clone(),
            reservation,
            generation,
            holder: holder.clone(),
            group: group.clone(),
            deadline,
        })?;
        Ok(Answer::Reserved { facts, reservation, generation, deadline })
    }

    /// Answers a repeated reservation as it was answered first, while its package was not handed on.
    fn reserved_before(
        &self,
        reservation: ReservationId,
        made: &Reservation,
        asked: (&PoolId, &GroupId, GroupNeeds<'_>),
    ) -> Result<Answer, Rejection> {
        let package = self.package(&made.keypackage_ref)?;
        let same = (&made.holder, &made.group) == (asked.0, asked.1);
        if !same || !asked.2.fit(&package.facts) {
            return Err(Rejection::ReservationMismatch(reservation));
        }
        let handed_on = package.latest != Some(reservation) && !package.facts.last_resort;
        match made.status {
            ReservationStatus::Cancelled | ReservationStatus::Lost => {
                Err(Rejection::ReservationLost(reservation))
            }
            ReservationStatus::Lapsed if handed_on => Err(Rejection::ReservationLost(reservation)),
            ReservationStatus::Open
            | ReservationStatus::Lapsed
            | ReservationStatus::Spent { .. } => Ok(Answer::Reserved {
                facts: package.facts.clone(),
                reservation,
                generation: made.generation,
                deadline: made.deadline,
            }),
        }
    }

    fn renew(&mut self, claim: &Claim) -> Result<Answer, Rejection> {
        let (package, made) = self.claimed(claim)?;
        match (made.status, package.stage) {
            (ReservationStatus::Spent { .. }, _) => {
                return Err(Rejection::AlreadySpent(claim.keypackage_ref.clone()));
            }
            (ReservationStatus::Open, Stage::Expired) => {
                return Err(Rejection::Expired(claim.keypackage_ref.clone()));
            }
            (ReservationStatus::Open, Stage::Revoked) => {
                return Err(Rejection::Revoked(claim.keypackage_ref.clone()));
            }
            (ReservationStatus::Open, _) => {}
            _ => return Err(Rejection::ReservationLost(claim.reservation)),
        }
        if self.limits.renewals_max <= made.renewals {
            return Err(Rejection::RenewalsUsedUp(claim.reservation, made.renewals));
        }
        let deadline = made.deadline.max(self.now.after(self.limits.reservation_ttl));
        let (keypackage_ref, reservation) = (claim.keypackage_ref.clone(), claim.reservation);
        self.record(Event::Renewed { keypackage_ref, reservation, deadline })?;
        Ok(Answer::Renewed { deadline })
    }

    fn release(&mut self, claim: &Claim) -> Result<Answer, Rejection> {
        let (_, made) = self.claimed(claim)?;
        match made.status {
            ReservationStatus::Open => self.record(Event::Released {
                keypackage_ref: claim.keypackage_ref.clone(),
                reservation: claim.reservation,
                reason: ReleaseReason::Cancelled,
            })?,
            ReservationStatus::Cancelled | ReservationStatus::Lapsed | ReservationStatus::Lost => {}
            ReservationStatus::Spent { .. } => {
                return Err(Rejection::AlreadySpent(claim.keypackage_ref.clone()));
            }
        }
        Ok(Answer::Released)
    }

    fn spend(&mut self, claim: &Claim, group: &GroupId) -> Result<Answer, Rejection> {
        let (package, made) = match self.claimed(claim) {
            Ok((package, made)) if made.group == *group => (package, made),
            Ok(_) => return Err(Rejection::ReservationMismatch(claim.reservation)),
            Err(rejection) => {
                let spent = |package: &Package| package.stage == Stage::Spent;
                let known = self.pool.get(&claim.keypackage_ref);
                let keypackage_ref = claim.keypackage_ref.clone();
                return Err(if known.is_some_and(spent) {
                    Rejection::AlreadySpent(keypackage_ref)
                } else {
                    rejection
                });
            }
        };
        let expired = package.stage == Stage::Expired;
        match made.status {
            ReservationStatus::Spent { late } => Ok(Answer::Spent { late, replayed: true }),
            ReservationStatus::Cancelled | ReservationStatus::Lost => {
                Err(Rejection::ReservationLost(claim.reservation))
            }
            ReservationStatus::Open => self.mark_spent(claim, group, expired),
            ReservationStatus::Lapsed => self.spend_late(claim, group),
        }
    }

    /// Spends by a reservation that has lapsed: well if nobody else was given the package.
    fn spend_late(&mut self, claim: &Claim, group: &GroupId) -> Result<Answer, Rejection> {
        let package = self.package(&claim.keypackage_ref)?;
        let holds = package.latest.unwrap_or(claim.reservation);
        if holds != claim.reservation && !package.facts.last_resort {
            let (keypackage_ref, lost) = (claim.keypackage_ref.clone(), claim.reservation);
            self.record(Event::Conflict { keypackage_ref, lost, holds })?;
            return Err(Rejection::ReservationLost(claim.reservation));
        }
        let retired = package.revoked == Some(RevokeReason::Lapsed);
        if package.stage == Stage::Revoked && !retired {
            return Err(Rejection::Revoked(claim.keypackage_ref.clone()));
        }
        self.mark_spent(claim, group, true)
    }

    fn mark_spent(
        &mut self,
        claim: &Claim,
        group: &GroupId,
        late: bool,
    ) -> Result<Answer, Rejection> {
        self.record(Event::Spent {
            keypackage_ref: claim.keypackage_ref.clone(),
            reservation: Some(claim.reservation),
            holder: Some(claim.holder.clone()),
            group: group.clone(),
            late,
        })?;
        Ok(Answer::Spent { late, replayed: false })
    }

    fn revoke(&mut self, which: &RevokeScope, reason: RevokeReason) -> Result<Answer, Rejection> {
        let refs = match which {
            RevokeScope::Refs(refs) => refs.clone(),
            RevokeScope::Credential(credential) => {
                self.live_refs(|package, _| package.facts.credential == *credential)
            }
            RevokeScope::All => self.live_refs(|_, _| true),
        };
        self.revoke_each(refs, reason).map(Answer::Revoked)
    }

    fn revoke_each(
        &mut self,
        refs: Vec<KeyPackageRef>,
        reason: RevokeReason,
    ) -> Result<Vec<KeyPackageRef>, Rejection> {
        // All of them are looked up before any is withdrawn: a wrong reference changes nothing.
        refs.iter().try_for_each(|keypackage_ref| self.package(keypackage_ref).map(drop))?;
        let mut revoked = Vec::new();
        for keypackage_ref in refs {
            let package = self.package(&keypackage_ref)?;
            if package.stage < Stage::Spent {
                let keypackage_ref = keypackage_ref.clone();
                self.record(Event::Revoked { keypackage_ref, reason, check: None })?;
            } else if package.stage != Stage::Revoked {
                continue;
            }
            revoked.push(keypackage_ref);
        }
        Ok(revoked)
    }

    fn package(&self, keypackage_ref: &KeyPackageRef) -> Result<&Package, Rejection> {
        let unknown = || Rejection::UnknownKeyPackage(keypackage_ref.clone());
        self.pool.get(keypackage_ref).ok_or_else(unknown)
    }

    /// The package and the reservation that a claim names, if they belong together and to its holder.
    fn claimed(&self, claim: &Claim) -> Result<(&Package, &Reservation), Rejection> {
        let package = self.package(&claim.keypackage_ref)?;
        let fits = |made: &&Reservation| {
            made.holder == claim.holder && made.keypackage_ref == claim.keypackage_ref
        };
        let made = self.pool.reservation(claim.reservation).filter(fits);
        Ok((package, made.ok_or(Rejection::ReservationMismatch(claim.reservation))?))
    }
}
