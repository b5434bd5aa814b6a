//! I1: a package is spent at most once, by the reservation that had it last, of the one who made it.

use keypool_ledger::{Event, GroupId, KeyPackageRef, PoolId, ReservationId, RevokeReason};

use super::{
    AuditedEvent, Auditor,
    packages::{ClaimState, PackageHistory, ReservationHistory},
    short,
};

impl Auditor {
    pub(super) fn see_spent(&mut self, seen: AuditedEvent<'_>, of: &KeyPackageRef) {
        let Event::Spent { reservation, .. } = &seen.envelope.event else { return };
        self.check_spent(seen, of);
        let claim = reservation.and_then(|id| self.claims.get_mut(&id));
        if let Some(claim) = claim.filter(|claim| claim.of == *of) {
            claim.state = ClaimState::Spent(seen.seq);
        }
        let Some(life) = self.packages.get_mut(of) else { return };
        let first = life.spent.is_none();
        life.spent.get_or_insert(seen.seq);
        life.holds = None;
        let (ended, single) = (life.ended, !life.facts.last_resort);
        let uploaded = life.uploaded.is_some();
        let Some(tally) = self.pools.get_mut(&life.pool).filter(|_| single && first) else {
            return;
        };
        tally.live.retain(|live| live != of);
        tally.spent += u64::from(uploaded);
        match ended {
            Some((_, None)) => tally.expired = tally.expired.saturating_sub(1),
            Some((_, Some(_))) => tally.revoked = tally.revoked.saturating_sub(1),
            None => {}
        }
    }

    /// I1: spent once, by the reservation that had it last, of the one who made that reservation.
    fn check_spent(&mut self, seen: AuditedEvent<'_>, of: &KeyPackageRef) {
        let Event::Spent { reservation, holder, group, late, .. } = &seen.envelope.event else {
            return;
        };
        let Some(life) = self.packages.get(of) else { return };
        let (name, at) = (format!("package {} of {}", of.short(), life.pool), seen.seq);
        let single = !life.facts.last_resort;
        if let Some(first) = life.spent.filter(|_| single) {
            let what = format!(
                "{name} is spent at {first} and again at {at}: a single-use package is spent once."
            );
            self.broken("I1", &[first, at], what);
            return;
        }
        let Some(id) = reservation else {
            if !life.created {
                let what = format!("{name} is spent at {at} without a reservation.");
                self.broken("I1", &[at], what);
            }
            return;
        };
        let id_short = short(*id);
        let Some(claim) = self.claims.get(id).filter(|claim| claim.of == *of) else {
            let what =
                format!("{name} is spent at {at} by reservation {id_short}, never made of it.");
            self.broken("I1", &[at], what);
            return;
        };
        let wrong = wrong_spend(claim, life, (*id, holder.as_ref(), group, *late));
        let made = claim.made;
        for what in wrong {
            let what = format!("{name} is spent at {at} by reservation {id_short}, {what}.");
            self.broken("I1", &[made, at], what);
        }
    }
}

/// Says why a spend by a reservation that was made of the package is wrong.
fn wrong_spend(
    claim: &ReservationHistory,
    life: &PackageHistory,
    (id, holder, group, late): (ReservationId, Option<&PoolId>, &GroupId, bool),
) -> Vec<String> {
    let single = !life.facts.last_resort;
    let mut wrong = Vec::new();
    if let Some(by) = holder.filter(|holder| **holder != claim.holder) {
        wrong.push(format!("by {by}, but the reservation is {}'s", claim.holder));
    }
    if *group != claim.group {
        wrong.push("for another group than it was reserved for".to_owned());
    }
    match claim.state {
        ClaimState::Open => {}
        ClaimState::Lapsed(_) if life.latest == Some(id) || !single => {
            let withdrawn = life.ended.and_then(|(_, why)| why);
            if withdrawn.is_some_and(|why| why != RevokeReason::Lapsed) {
                wrong.push("after the reservation lapsed and the package was withdrawn".to_owned());
            }
        }
        ClaimState::Lapsed(end) => {
            wrong.push(format!("after it lapsed at {end} and the package was handed on"));
        }
        ClaimState::Cancelled(end) => wrong.push(format!("after it was given back at {end}")),
        ClaimState::Lost(end) => wrong.push(format!("after it was told at {end} that it lost")),
        ClaimState::Spent(end) => wrong.push(format!("which had spent it at {end} already")),
    }
    let lapsed = matches!(claim.state, ClaimState::Lapsed(_));
    let expired = matches!(life.ended, Some((_, None)));
    if late != (lapsed || expired) {
        let word = if late { "late" } else { "in time" };
        wrong.push(format!("and called {word}, which it was not"));
    }
    wrong
}
