//! The packages of a pool as a strip of cells.

use std::collections::HashSet;

use keypool_ledger::KeyPackageRef;
use keypool_projections::{
    Package, Stage,
    explanation::{why_not, words::time},
};
use maud::{Markup, html};

use super::{counted, search_address};
use crate::history::PoolMoment;

/// How many packages that are over are shown: the last ones.
const ENDED_MAX: usize = 96;

/// The packages of a pool at a moment, a cell for each in the order of their uploads: a letter, a colour, and a
/// sentence for those who see neither.
pub(super) fn package_strip(moment: &PoolMoment) -> Markup {
    let PoolMoment { state, at, limits, .. } = moment;
    let offered: HashSet<&KeyPackageRef> =
        state.offerable(*at, limits).map(|package| &package.facts.keypackage_ref).collect();
    let (mut shown, mut ended): (Vec<&Package>, Vec<&Package>) =
        state.packages().partition(|package| package.stage < Stage::Spent);
    ended.sort_by_key(|package| package.order);
    let left_out = ended.len().saturating_sub(ENDED_MAX);
    shown.extend(ended.into_iter().skip(left_out));
    shown.sort_by_key(|package| package.order);
    html! {
        @if shown.is_empty() {
            p { "It has never had a package." }
        } @else {
            ol.strip aria-label="Packages, in the order of their uploads" {
                @for package in shown {
                    @let of = &package.facts.keypackage_ref;
                    @let words = words(moment, package, offered.contains(of));
                    li {
                        a class=(stage_word(package.stage)) href=(search_address(&of.to_string()))
                            title=(words) aria-label=(words) {
                            (letter(package))
                        }
                    }
                }
            }
            p.legend {
                "A available, R reserved, S spent, E expired, W withdrawn; L a last-resort package. Each leads to the "
                "package's biography."
                @if 0 < left_out {
                    " " (counted(left_out as u64, "earlier package")) " that are over are left out."
                }
            }
        }
    }
}

/// The sentence on a package at a moment.
fn words(moment: &PoolMoment, package: &Package, is_offered: bool) -> String {
    let PoolMoment { state, at, limits, .. } = moment;
    let kind = if package.facts.last_resort { "last-resort package" } else { "package" };
    let why = if is_offered {
        format!("could be handed out; good until {}", time(package.facts.not_after))
    } else {
        why_not(state, package, *at, limits)
    };
    format!("{kind} {} {why}", package.facts.keypackage_ref.short())
}

fn letter(package: &Package) -> &'static str {
    match package.stage {
        Stage::Created | Stage::Available if package.facts.last_resort => "L",
        Stage::Created | Stage::Available => "A",
        Stage::Reserved => "R",
        Stage::Spent => "S",
        Stage::Expired => "E",
        Stage::Revoked => "W",
    }
}

/// The word for a stage.
pub(super) const fn stage_word(stage: Stage) -> &'static str {
    match stage {
        Stage::Created => "created",
        Stage::Available => "available",
        Stage::Reserved => "reserved",
        Stage::Spent => "spent",
        Stage::Expired => "expired",
        Stage::Revoked => "withdrawn",
    }
}
