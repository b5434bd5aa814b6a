//! Which packages may be handed out, and in which order.

use keypool_ledger::Timestamp;

use crate::{command::Limits, lifecycle::Stage, pool::Package};

/// Whether a package may be handed out at `now`: it will outlive the reservation.
pub(super) fn is_offerable(package: &Package, now: Timestamp, limits: &Limits) -> bool {
    let needed = now.after(limits.reservation_ttl).after(limits.life_margin);
    package.stage == Stage::Available
        && !is_worn(package, limits)
        && package.facts.not_before <= now
        && needed <= package.facts.not_after
}

/// Whether reservations of a package lapsed so often that it is not offered again.
pub(crate) fn is_worn(package: &Package, limits: &Limits) -> bool {
    package.stage == Stage::Available
        && !package.facts.last_resort
        && limits.on_lapse.lapses_max() <= package.lapsed
}

/// The place of a package in the order of offers: single-use before last resort, fresh before given
/// back before lapsed, and then the oldest.
pub(super) fn offer_order(package: &Package) -> (bool, u8, u64) {
    let class = match package {
        Package { lapsed: 1.., .. } => 2,
        Package { cancelled: 1.., .. } => 1,
        _ => 0,
    };
    (package.facts.last_resort, class, package.order)
}
