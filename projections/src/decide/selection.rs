//! Which packages may be handed out, and in which order.

use keypool_ledger::{PackageFacts, PoolId, Timestamp};

use super::Draft;
use crate::{
    RequiredCapabilities,
    command::{Command, Limits, Rejection},
    lifecycle::Stage,
    pool::{Package, PoolState, is_held_for_contacts},
};

/// Whether a package may be handed out at `now`: it will outlive the reservation.
pub(super) fn is_offerable(package: &Package, now: Timestamp, limits: &Limits) -> bool {
    let needed = now.after(limits.reservation_ttl).after(limits.life_margin);
    package.stage == Stage::Available
        && !is_lapse_exhausted(package, limits)
        && package.facts.not_before <= now
        && needed <= package.facts.not_after
}

/// Whether reservations of a package lapsed so often that it is not offered again.
pub(crate) fn is_lapse_exhausted(package: &Package, limits: &Limits) -> bool {
    package.stage == Stage::Available
        && !package.facts.last_resort
        && limits.on_lapse.lapses_max() <= package.lapsed
}

/// The place of a package in the order of offers: single-use before last resort, fresh before given
/// back before lapsed, and then the oldest.
fn offer_order(package: &Package) -> (bool, u8, u64) {
    let class = match package {
        Package { lapsed: 1.., .. } => 2,
        Package { cancelled: 1.., .. } => 1,
        _ => 0,
    };
    (package.facts.last_resort, class, package.order)
}

/// The properties that a package needs to be of use to a group.
#[derive(Clone, Copy)]
pub(super) struct GroupNeeds<'a> {
    /// The ciphersuites the group can use; any if empty.
    pub(super) ciphersuites: &'a [u16],
    /// The capabilities it requires of its members.
    pub(super) required: &'a RequiredCapabilities,
}

impl GroupNeeds<'_> {
    /// Whether a package has one of the ciphersuites.
    fn suit(self, facts: &PackageFacts) -> bool {
        self.ciphersuites.is_empty() || self.ciphersuites.contains(&facts.ciphersuite)
    }

    /// Whether a package has one of the ciphersuites and the required capabilities.
    pub(super) fn fit(self, facts: &PackageFacts) -> bool {
        self.suit(facts) && self.required.are_met_by(facts)
    }
}

/// The packages of a pool that one inviter is not given.
#[derive(Default)]
pub(super) struct Withheld {
    /// Whether all that can be used once are.
    single_use: bool,
    /// The ciphersuites of which those are that were never handed out.
    fresh_of: Vec<u16>,
}

impl Withheld {
    fn has(&self, package: &Package) -> bool {
        self.single_use && !package.facts.last_resort
            || is_held_for_contacts(package, &self.fresh_of)
    }
}

impl Draft<'_> {
    /// The packages that are not for the inviter of a reservation, because they are kept for others.
    pub(super) fn withheld(&self, command: &Command) -> Result<Withheld, Rejection> {
        let Command::Reserve { holder, introduced, last_resort_only, .. } = command else {
            return Ok(Withheld::default());
        };
        let fresh_of = self.pool.held_for_contacts(holder, *introduced, self.now, self.limits)?;
        Ok(Withheld { single_use: *last_resort_only, fresh_of })
    }

    /// The package that a reservation is given.
    pub(super) fn first_offer(
        &self,
        needs: GroupNeeds<'_>,
        withheld: &Withheld,
    ) -> Result<&Package, Rejection> {
        if self.pool.is_removed() {
            return Err(Rejection::NotRegistered);
        }
        let offerable = || self.pool.offerable(self.now, self.limits);
        let compatible = || offerable().filter(|package| needs.fit(&package.facts));
        let first = compatible()
            .filter(|package| !withheld.has(package))
            .min_by_key(|package| offer_order(package));
        first.ok_or_else(|| {
            let kept = compatible().next().map(|_| Rejection::KeptForContacts);
            let suitable: Vec<&PackageFacts> = offerable()
                .map(|package| &package.facts)
                .filter(|facts| needs.suit(facts))
                .collect();
            let unmet = needs.required.unmet_by(&suitable);
            let unmet = unmet.map(Rejection::RequirementUnmet);
            let other = offerable().next().map(|_| Rejection::NothingCompatible);
            kept.or(unmet).or(other).unwrap_or(Rejection::PoolExhausted)
        })
    }
}

/// An inviter, as the rules of who may reserve see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProspectiveHolder<'a> {
    /// The device.
    pub device: &'a PoolId,
    /// Whether a device of the owner's user has introduced it, or is it.
    pub introduced: bool,
    /// Whether a rate limit leaves it the last-resort package alone.
    pub last_resort_only: bool,
}

impl PoolState {
    /// Decides whether reserving a package of any ciphersuite would succeed for an inviter at `now`.
    ///
    /// # Errors
    ///
    /// Returns the [`Rejection`] that reserving would be refused with.
    pub fn decide_offer(
        &self,
        inviter: &ProspectiveHolder<'_>,
        now: Timestamp,
        limits: &Limits,
    ) -> Result<(), Rejection> {
        let ProspectiveHolder { device, introduced, last_resort_only: single_use } = *inviter;
        let draft = Draft { pool: self.settled(now, limits), events: Vec::new(), now, limits };
        let fresh_of = draft.pool.held_for_contacts(device, introduced, now, limits)?;
        let needs = GroupNeeds { ciphersuites: &[], required: &RequiredCapabilities::default() };
        draft.first_offer(needs, &Withheld { single_use, fresh_of }).map(drop)
    }
}
