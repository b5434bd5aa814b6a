//! The life of a package: at most one spend, one holder at a time, one fate for ever.

use std::collections::{HashMap, HashSet};

use keypool_ledger::{
    Event, GroupId, Hash, KeyPackageRef, PackageFacts, PoolId, ReleaseReason, ReservationId,
    RevokeReason, Timestamp,
};

use super::{AuditedEvent, Auditor, Standing, short};

/// All that the auditor knows of a package.
#[derive(Debug)]
pub(super) struct PackageHistory {
    pub(super) facts: PackageFacts,
    pub(super) pool: PoolId,
    /// Whether its owner's own log has recorded that it was made.
    pub(super) created: bool,
    /// The position of its upload.
    pub(super) uploaded: Option<u64>,
    pub(super) reservations: u32,
    pub(super) cancelled: u32,
    pub(super) lapsed: u32,
    /// The reservation that holds it, of a single-use package.
    pub(super) holds: Option<ReservationId>,
    /// The reservation that had it last.
    pub(super) latest: Option<ReservationId>,
    pub(super) spent: Option<u64>,
    /// The position at which it expired or was revoked, and the reason.
    pub(super) ended: Option<(u64, Option<RevokeReason>)>,
}

/// All that the auditor knows of a reservation.
#[derive(Debug)]
pub(super) struct ReservationHistory {
    pub(super) of: KeyPackageRef,
    pub(super) holder: PoolId,
    pub(super) group: GroupId,
    deadline: Timestamp,
    renewals: u32,
    pub(super) made: u64,
    pub(super) state: ClaimState,
}

/// The status of a reservation, and the position of the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClaimState {
    Open,
    Cancelled(u64),
    Lapsed(u64),
    Spent(u64),
    Lost(u64),
}

/// All that the auditor knows of a pool.
#[derive(Debug, Default)]
pub(super) struct PoolTally {
    /// The packages that may still be used.
    pub(super) live: Vec<KeyPackageRef>,
    init_keys: HashSet<Hash>,
    /// Counted by events, of single-use packages only.
    pub(super) uploaded: u64,
    pub(super) spent: u64,
    pub(super) expired: u64,
    pub(super) revoked: u64,
}

impl PoolTally {
    pub(super) fn standing(&self, packages: &HashMap<KeyPackageRef, PackageHistory>) -> Standing {
        let live = self.live.iter().filter_map(|of| packages.get(of));
        let mut standing = Standing {
            spent: self.spent,
            expired: self.expired,
            revoked: self.revoked,
            ..Standing::default()
        };
        for life in live.filter(|life| !life.facts.last_resort && life.uploaded.is_some()) {
            if life.holds.is_some() {
                standing.reserved += 1;
            } else {
                standing.available += 1;
            }
        }
        standing
    }
}

impl Auditor {
    pub(super) fn see_package(&mut self, seen: AuditedEvent<'_>, pool: &PoolId) {
        let event = &seen.envelope.event;
        let Some(of) = event.keypackage_ref() else { return };
        if let Event::Created(facts) | Event::Uploaded(facts) = event {
            return self.see_new(seen, pool, facts);
        }
        let Some(life) = self.packages.get(of) else {
            let what = format!(
                "package {} of {pool} is {} without ever having been uploaded.",
                of.short(),
                event.name()
            );
            return self.broken("I5", &[seen.seq], what);
        };
        if life.pool != *pool {
            let what = format!(
                "package {} was uploaded to {}, and is {} in {pool}: a package is in one pool.",
                of.short(),
                life.pool,
                event.name()
            );
            let events = [life.uploaded.unwrap_or_default(), seen.seq];
            return self.broken("I5", &events, what);
        }
        match event {
            Event::Reserved { .. } => self.see_reserved(seen, of),
            Event::Renewed { reservation, deadline, .. } => {
                self.see_renewed(seen, of, *reservation, *deadline);
            }
            Event::Released { reservation, reason, .. } => {
                self.see_released(seen, of, *reservation, *reason);
            }
            Event::Spent { .. } => self.see_spent(seen, of),
            Event::Expired { .. } => self.see_ended(seen, of, None),
            Event::Revoked { reason, .. } => self.see_ended(seen, of, Some(*reason)),
            Event::Conflict { lost, holds, .. } => self.see_conflict(seen, of, *lost, *holds),
            _ => {}
        }
    }

    fn see_new(&mut self, seen: AuditedEvent<'_>, pool: &PoolId, facts: &PackageFacts) {
        let of = &facts.keypackage_ref;
        let uploads = matches!(seen.envelope.event, Event::Uploaded(_));
        let known = self.packages.get(of).map(|life| (life.uploaded, life.pool.clone()));
        match &known {
            Some((Some(first), owner)) => {
                let what = format!(
                    "package {} was uploaded to {owner} at {first} and comes again at {}: a reference \
                     is uploaded once, for ever.",
                    of.short(),
                    seen.seq
                );
                return self.broken("I5", &[*first, seen.seq], what);
            }
            Some((None, _)) if !uploads => {
                let what = format!("package {} of {pool} is created twice.", of.short());
                return self.broken("I5", &[seen.seq], what);
            }
            _ => {}
        }
        if uploads {
            self.check_upload(seen, pool, facts);
        }
        let tally = self.pools.entry(pool.clone()).or_default();
        if known.is_none() {
            tally.live.push(of.clone());
        }
        if uploads {
            tally.init_keys.insert(facts.init_key);
            tally.uploaded += u64::from(!facts.last_resort);
        }
        let life = self.packages.entry(of.clone()).or_insert_with(|| PackageHistory {
            facts: facts.clone(),
            pool: pool.clone(),
            created: !uploads,
            uploaded: None,
            reservations: 0,
            cancelled: 0,
            lapsed: 0,
            holds: None,
            latest: None,
            spent: None,
            ended: None,
        });
        if uploads {
            life.uploaded = Some(seen.seq);
        }
    }

    /// Rules 7, 8 and 9 of an upload.
    fn check_upload(&mut self, seen: AuditedEvent<'_>, pool: &PoolId, facts: &PackageFacts) {
        let of = facts.keypackage_ref.short();
        if facts.not_after <= seen.envelope.at {
            let what = format!("package {of} of {pool} was taken in when its lifetime was over.");
            self.broken("upload", &[seen.seq], what);
        }
        let Some(tally) = self.pools.get(pool) else { return };
        let live = tally.live.iter().filter_map(|of| self.packages.get(of));
        let live = live.filter(|life| life.facts.keypackage_ref != facts.keypackage_ref);
        let same = |life: &&PackageHistory| {
            life.facts.last_resort && life.facts.ciphersuite == facts.ciphersuite
        };
        let single = live.clone().filter(|life| !life.facts.last_resort).count();
        let held = live.clone().find(same).and_then(|life| life.uploaded);
        let seen_key = tally.init_keys.contains(&facts.init_key);
        if seen_key {
            let what = format!(
                "package {of} of {pool} has the init_key of one before it: each is unique (RFC 9420 \
                 section 10)."
            );
            self.broken("upload", &[seen.seq], what);
        }
        if let (true, Some(first)) = (facts.last_resort, held) {
            let what = format!(
                "package {of} is a second live last-resort package of {pool} for ciphersuite {}.",
                facts.ciphersuite
            );
            self.broken("upload", &[first, seen.seq], what);
        }
        if !facts.last_resort && self.promises.packages_max <= single {
            let what = format!(
                "package {of} was taken into {pool}, which held {single} live packages: {} is the most.",
                self.promises.packages_max
            );
            self.broken("upload", &[seen.seq], what);
        }
    }

    fn see_reserved(&mut self, seen: AuditedEvent<'_>, of: &KeyPackageRef) {
        let Event::Reserved { reservation, generation, holder, group, deadline, .. } =
            &seen.envelope.event
        else {
            return;
        };
        self.check_reserved(seen, of, *reservation, *generation);
        self.check_offer(seen, of, holder, *deadline);
        let claim = ReservationHistory {
            of: of.clone(),
            holder: holder.clone(),
            group: group.clone(),
            deadline: *deadline,
            renewals: 0,
            made: seen.seq,
            state: ClaimState::Open,
        };
        self.claims.insert(*reservation, claim);
        if let Some(life) = self.packages.get_mut(of) {
            life.reservations = *generation;
            life.latest = Some(*reservation);
            life.holds = (!life.facts.last_resort).then_some(*reservation);
        }
    }

    /// I2, I4, I5: who may be handed the package at all.
    fn check_reserved(
        &mut self,
        seen: AuditedEvent<'_>,
        of: &KeyPackageRef,
        reservation: ReservationId,
        generation: u32,
    ) {
        let Some(life) = self.packages.get(of) else { return };
        let (name, at) = (format!("package {} of {}", of.short(), life.pool), seen.seq);
        let single = !life.facts.last_resort;
        let made = |id: ReservationId| self.claims.get(&id).map_or(0, |claim| claim.made);
        let mut found = Vec::new();
        if let Some(before) = self.claims.get(&reservation).map(|claim| claim.made) {
            let what = format!(
                "reservation {} is made at {before} and again at {at}: its id names one claim.",
                short(reservation)
            );
            found.push(("I2", vec![before, at], what));
        }
        if let Some(open) = life.holds.filter(|_| single) {
            let what = format!(
                "{name} is reserved at {at} while reservation {} of {} holds it: one at a time.",
                short(open),
                made(open)
            );
            found.push(("I2", vec![made(open), at], what));
        }
        if let Some(spent) = life.spent.filter(|_| single) {
            let what = format!("{name} was spent at {spent} and is handed out again at {at}.");
            found.push(("I5", vec![spent, at], what));
        }
        if let Some((ended, _)) = life.ended {
            let what = format!("{name} ended at {ended} and is handed out at {at}.");
            found.push(("I5", vec![ended, at], what));
        }
        if life.uploaded.is_none() {
            let what = format!("{name} is handed out without having been uploaded.");
            found.push(("I5", vec![at], what));
        }
        if single && self.promises.lapses_max <= life.lapsed {
            let what = format!(
                "{name} is handed out again at {at} after {} lapses: {} end it.",
                life.lapsed, self.promises.lapses_max
            );
            found.push(("I4", vec![at], what));
        }
        if generation != life.reservations.saturating_add(1) {
            let what = format!(
                "{name} has generation {generation} at {at}, after {}: each reservation adds one.",
                life.reservations
            );
            found.push(("I2", vec![at], what));
        }
        for (rule, events, what) in found {
            self.broken(rule, &events, what);
        }
    }

    fn see_renewed(
        &mut self,
        seen: AuditedEvent<'_>,
        of: &KeyPackageRef,
        reservation: ReservationId,
        deadline: Timestamp,
    ) {
        let renewals_max = self.promises.renewals_max;
        let Some(claim) = self.claim(seen, of, reservation) else { return };
        let (made, name) = (claim.made, short(reservation));
        let (state, earlier) = (claim.state, deadline < claim.deadline);
        claim.deadline = deadline;
        claim.renewals = claim.renewals.saturating_add(1);
        let often = renewals_max < claim.renewals;
        if state != ClaimState::Open {
            let what = format!("reservation {name} is renewed at {} after its end.", seen.seq);
            self.broken("I2", &[made, seen.seq], what);
        }
        if earlier {
            let what = format!("reservation {name} ends earlier by its renewal at {}.", seen.seq);
            self.broken("renew", &[made, seen.seq], what);
        }
        if often {
            let what = format!(
                "reservation {name} is renewed at {} for the time {}: {renewals_max} are the most.",
                seen.seq,
                renewals_max + 1
            );
            self.broken("renew", &[made, seen.seq], what);
        }
    }

    fn see_released(
        &mut self,
        seen: AuditedEvent<'_>,
        of: &KeyPackageRef,
        reservation: ReservationId,
        reason: ReleaseReason,
    ) {
        let (at, grace) = (seen.envelope.at, self.promises.grace);
        let Some(claim) = self.claim(seen, of, reservation) else { return };
        let (made, state, deadline) = (claim.made, claim.state, claim.deadline);
        claim.state = match reason {
            ReleaseReason::Cancelled => ClaimState::Cancelled(seen.seq),
            ReleaseReason::Lapsed => ClaimState::Lapsed(seen.seq),
        };
        if let Some(life) = self.packages.get_mut(of) {
            match reason {
                ReleaseReason::Cancelled => life.cancelled += 1,
                ReleaseReason::Lapsed => life.lapsed += 1,
            }
            if life.holds == Some(reservation) {
                life.holds = None;
            }
        }
        if state != ClaimState::Open {
            let what = format!(
                "reservation {} is released at {} and holds nothing any more.",
                short(reservation),
                seen.seq
            );
            self.broken("I2", &[made, seen.seq], what);
        }
        if reason == ReleaseReason::Lapsed && at < deadline.after(grace) {
            let what = format!(
                "reservation {} lapses at {}, {} ms before its deadline and the grace of {} s after \
                 it are over.",
                short(reservation),
                seen.seq,
                deadline.after(grace).since(at).as_millis(),
                grace.as_secs()
            );
            self.broken("lapse", &[made, seen.seq], what);
        }
    }

    /// The reservation that an event names, if it was made of this package.
    fn claim(
        &mut self,
        seen: AuditedEvent<'_>,
        of: &KeyPackageRef,
        reservation: ReservationId,
    ) -> Option<&mut ReservationHistory> {
        if self.claims.get(&reservation).is_none_or(|claim| claim.of != *of) {
            let what = format!(
                "reservation {} of package {} is {} at {}, and was never made.",
                short(reservation),
                of.short(),
                seen.envelope.event.name(),
                seen.seq
            );
            self.broken("I2", &[seen.seq], what);
            return None;
        }
        self.claims.get_mut(&reservation)
    }

    /// I5: an end comes once, in its time, and never after a spend.
    fn see_ended(&mut self, seen: AuditedEvent<'_>, of: &KeyPackageRef, why: Option<RevokeReason>) {
        let Some(life) = self.packages.get_mut(of) else { return };
        let (name, at) = (format!("package {} of {}", of.short(), life.pool), seen.seq);
        let word = seen.envelope.event.name();
        let single = !life.facts.last_resort;
        let before = life.spent.filter(|_| single).or(life.ended.map(|(end, _)| end));
        let early = why.is_none() && seen.envelope.at < life.facts.not_after;
        let unworn = why == Some(RevokeReason::Lapsed) && life.lapsed < self.promises.lapses_max;
        if before.is_none() {
            life.ended = Some((at, why));
            let uploaded = u64::from(life.uploaded.is_some());
            if let Some(tally) = self.pools.get_mut(&life.pool) {
                tally.live.retain(|live| live != of);
                if single && why.is_none() {
                    tally.expired += uploaded;
                } else if single {
                    tally.revoked += uploaded;
                }
            }
        }
        if let Some(before) = before {
            let what = format!("{name} had its end at {before}, and is {word} at {at}.");
            self.broken("I5", &[before, at], what);
        }
        if early {
            let what = format!("{name} is expired at {at}, before its lifetime is over.");
            self.broken("I5", &[at], what);
        }
        if unworn {
            let what = format!(
                "{name} is retired at {at} because of lapses, of which it had fewer than {}.",
                self.promises.lapses_max
            );
            self.broken("lapse", &[at], what);
        }
    }

    fn see_conflict(
        &mut self,
        seen: AuditedEvent<'_>,
        of: &KeyPackageRef,
        lost: ReservationId,
        holds: ReservationId,
    ) {
        let latest = self.packages.get(of).and_then(|life| life.latest);
        let Some(claim) = self.claim(seen, of, lost) else { return };
        let (made, state) = (claim.made, claim.state);
        claim.state = ClaimState::Lost(seen.seq);
        if !matches!(state, ClaimState::Lapsed(_)) || latest != Some(holds) || lost == holds {
            let what = format!(
                "reservation {} is refused at {} in favour of {}, which is not what happened.",
                short(lost),
                seen.seq,
                short(holds)
            );
            self.broken("conflict", &[made, seen.seq], what);
        }
    }
}
