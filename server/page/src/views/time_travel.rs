//! Time travel: a pool at a moment of its history, and its changes since then.

use keypool_ledger::KeyPackageRef;
use keypool_projections::{
    Package, PoolState, ReservationStatus, Stage,
    explanation::words::{one_line, short, time},
};
use maud::{Markup, html};

use super::{
    counted,
    events::{cut, event_item, told_event},
    history_address,
    package_strip::stage_word,
    page, paths,
    pool::state,
    pool_link, search_address,
};
use crate::history::{History, PoolMoment};

/// How many changed packages are listed.
const CHANGES_MAX: usize = 100;

/// A pool after the chosen event of its history.
pub(crate) fn time_travel(history: &History) -> Markup {
    let History { pool, chosen, .. } = history;
    let main = html! {
        @if let Some(note) = cut(history) { (note) }
        (slider(history))
        p { "The pool " (pool_link(pool)) " right after event " (chosen.version) ", at " (time(chosen.at)) ":" }
        @if let Some(told) = history.told.iter().find(|told| told.version == chosen.version) {
            p.chosen { (told_event(told)) }
        }
        (state(chosen))
        (changes(chosen, &history.now))
        section aria-labelledby="events" {
            h2 id="events" { "The events around it" }
            ol.events {
                @for told in &history.told { (event_item(pool, told, told.version == chosen.version)) }
            }
        }
    };
    page(&format!("{pool} at event {}", chosen.version), "", &main)
}

fn slider(history: &History) -> Markup {
    let History { pool, len, chosen, .. } = history;
    let version = chosen.version;
    let link = |name: &str, to: u64| {
        let is_here = to == version || to == 0 || *len < to;
        html! { @if is_here { span { (name) } } @else { a href=(history_address(pool, to)) { (name) } } }
    };
    html! {
        form.travel method="get" action=(paths::HISTORY) {
            input type="hidden" name="name" value=(pool);
            label for="at" { "Event " output for="at" { (version) } " of " (len) }
            input id="at" name="at" type="range" min="1" max=(len) value=(version);
            button type="submit" { "Show" }
        }
        nav.turning aria-label="Events" {
            (link("First", 1)) (link("Back", version.saturating_sub(1)))
            (link("Forward", version.saturating_add(1))) (link("Last", *len))
        }
    }
}

/// The differences between the pool then and now.
fn changes(then: &PoolMoment, now: &PoolMoment) -> Markup {
    let changed = changed_packages(&then.state, &now.state);
    html! {
        section aria-labelledby="changes" {
            h2 id="changes" { "From then to now" }
            @if changed.is_empty() {
                p { "No package has changed since." }
            } @else {
                ul {
                    @for (of, words) in changed.iter().take(CHANGES_MAX) {
                        li { a href=(search_address(&of.to_string())) { "package " code { (of.short()) } } " " (one_line(words)) }
                    }
                }
                @if CHANGES_MAX < changed.len() {
                    p { "And " (changed.len().saturating_sub(CHANGES_MAX)) " more packages." }
                }
            }
            @if let Some(words) = changed_key(&then.state, &now.state) { p { (one_line(&words)) } }
        }
    }
}

/// The packages that stand elsewhere now, in the order of their uploads, each with the change in words.
fn changed_packages(then: &PoolState, now: &PoolState) -> Vec<(KeyPackageRef, String)> {
    let mut packages: Vec<&Package> = now.packages().collect();
    packages.sort_by_key(|package| package.order);
    let change = |package: &Package| {
        let of = &package.facts.keypackage_ref;
        let before = then.get(of);
        let is_same = before.is_some_and(|before| {
            (before.stage, before.generation, before.lapsed)
                == (package.stage, package.generation, package.lapsed)
        });
        (!is_same).then(|| (of.clone(), change_words(before, package, now)))
    };
    packages.into_iter().filter_map(change).collect()
}

fn change_words(before: Option<&Package>, package: &Package, now: &PoolState) -> String {
    let was = before.map_or("not uploaded yet", |before| stage_word(before.stage));
    let made = package.latest.and_then(|id| Some((short(&id), now.reservation(id)?)));
    let by = match (&made, package.stage) {
        (Some((id, made)), Stage::Reserved) => format!(" by {}'s reservation {id}", made.holder),
        (Some((id, made)), Stage::Spent) => {
            let late = made.status == ReservationStatus::Spent { late: true };
            format!(" by {}'s reservation {id}{}", made.holder, if late { ", late" } else { "" })
        }
        _ => String::new(),
    };
    let more = package.lapsed.saturating_sub(before.map_or(0, |before| before.lapsed));
    let since = if 0 < more {
        format!("; {} since then", counted(more.into(), "lapse"))
    } else {
        String::new()
    };
    format!("was {was}, is {}{by}{since}", stage_word(package.stage))
}

/// Whether another key speaks for the pool now, in words.
fn changed_key(then: &PoolState, now: &PoolState) -> Option<String> {
    let key = |state: &PoolState| state.registration().map(|made| short(&made.signature_key));
    let (was, is) = (key(then), key(now));
    let words =
        |key: Option<String>| key.map_or("no key".to_owned(), |key| format!("the key {key}"));
    (was != is).then(|| format!("{} spoke for the pool then, {} does now.", words(was), words(is)))
}
