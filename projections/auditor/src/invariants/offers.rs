//! Which package a reservation may be given: one that will outlive it, and the first in the order.

use keypool_ledger::{KeyPackageRef, PoolId, Timestamp};

use super::{AuditedEvent, Auditor, packages::PackageHistory};

impl Auditor {
    /// Rule 1: the package outlives the reservation, and none stands before it in the order.
    pub(super) fn check_offer(
        &mut self,
        seen: AuditedEvent<'_>,
        of: &KeyPackageRef,
        holder: &PoolId,
        deadline: Timestamp,
    ) {
        let Some(life) = self.packages.get(of) else { return };
        let (name, at) = (format!("package {} of {}", of.short(), life.pool), seen.seq);
        let mut wrong = Vec::new();
        if *holder == life.pool {
            wrong.push("to the device that owns it".to_owned());
        }
        if deadline <= seen.envelope.at {
            wrong.push("for no time at all".to_owned());
        }
        if seen.envelope.at < life.facts.not_before {
            wrong.push("before its lifetime has begun".to_owned());
        }
        if life.facts.not_after < deadline.after(self.promises.life_margin) {
            wrong.push("with less life left than the reservation and its margin".to_owned());
        }
        let mut events = vec![at];
        let is_stranger = holder.user() != life.pool.user()
            && !self.contacts.must_know(&life.pool, holder.user());
        if let Some(first) = self.first_before(seen, life, (deadline, is_stranger)) {
            events.insert(0, first.uploaded.unwrap_or_default());
            wrong.push(format!(
                "although package {} of the same ciphersuite comes before it in the order of offers",
                first.facts.keypackage_ref.short()
            ));
        }
        for what in wrong {
            self.broken("offer", &events, format!("{name} is handed out at {at} {what}."));
        }
    }

    /// A package of the same ciphersuite and capabilities that should have been offered before this one: of others
    /// an inviter may have no use. Strangers may be given one of a later class, because those of the classes before
    /// it are kept for contacts.
    fn first_before(
        &self,
        seen: AuditedEvent<'_>,
        given: &PackageHistory,
        (deadline, is_stranger): (Timestamp, bool),
    ) -> Option<&PackageHistory> {
        let pool = self.pools.get(&given.pool)?;
        let offerable = |life: &&PackageHistory| {
            life.facts.ciphersuite == given.facts.ciphersuite
                && life.facts.capabilities == given.facts.capabilities
                && !(is_stranger && may_be_kept(life, given))
                && life.uploaded.is_some()
                && life.holds.is_none()
                && (life.facts.last_resort || life.lapsed < self.promises.lapses_max)
                && life.facts.not_before <= seen.envelope.at
                && deadline.after(self.promises.life_margin) <= life.facts.not_after
        };
        let live = pool.live.iter().filter_map(|of| self.packages.get(of));
        let first = live.filter(offerable).min_by_key(|life| place(life))?;
        (place(first) < place(given)).then_some(first)
    }
}

/// Whether a package may be kept for contacts while a stranger is given another one: one that was never
/// handed out may, and any that is used once while the other one is the last resort.
fn may_be_kept(life: &PackageHistory, given: &PackageHistory) -> bool {
    let is_fresh = class(life) == (false, 0);
    class(life) != class(given) && (is_fresh || given.facts.last_resort)
}

/// The place in the order: single-use before last resort, never offered before given back before
/// lapsed, and then the oldest.
fn place(life: &PackageHistory) -> ((bool, u8), u64) {
    (class(life), life.uploaded.unwrap_or(u64::MAX))
}

fn class(life: &PackageHistory) -> (bool, u8) {
    let returned = if 0 < life.lapsed { 2 } else { u8::from(0 < life.cancelled) };
    (life.facts.last_resort, returned)
}
