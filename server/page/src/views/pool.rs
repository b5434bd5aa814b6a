//! One pool: its counts, its packages, who holds them, its policy and its user's devices.

use keypool_ledger::{GroupId, PoolId, ReservePolicy, Timestamp};
use keypool_projections::{
    Health, PoolState,
    explanation::words::{one_line, short, span},
};
use maud::{Markup, html};

use super::{
    action_button, counted, distance, events::event_item, history_address, level_mark, moment,
    package_strip::package_strip, page, paths, pool_link, search_address,
};
use crate::{
    action::Action,
    history::{History, PoolMoment},
    introductions::IntroducedDevice,
    suspensions::UserSuspensions,
};

/// How many open reservations are listed.
const RESERVATIONS_MAX: usize = 200;

/// One pool now.
pub(crate) fn pool(
    history: &History,
    devices: &[IntroducedDevice],
    suspensions: &UserSuspensions,
) -> Markup {
    let History { pool, now, .. } = history;
    let main = html! {
        @if history.is_cut {
            p.notice {
                "This history is longer than the page reads: the packages that are over are counted, and not shown one by "
                "one. " code { "keypool-ledger replay" } " reads all of it."
            }
        }
        @if suspensions.is_suspended {
            p.notice role="status" {
                "You have blocked " strong { (pool.user()) } ": no request of their devices is carried out, and nobody "
                "is handed their packages."
            }
        }
        p {
            "Device " strong { (pool.device()) } " of the user " strong { (pool.user()) } ". "
            a href=(history_address(pool, history.len)) { "Travel through its history" }
            " of " (counted(history.len, "event")) "."
        }
        (state(now))
        (last_events(history))
        (policy(&now.state))
        (devices_of(pool, devices, now.at))
        (suspensions_of(pool.user(), suspensions))
        (actions(pool, now.state.is_removed(), suspensions.is_suspended))
    };
    page(&pool.to_string(), "", &main)
}

/// The state of a pool at a moment.
pub(super) fn state(at: &PoolMoment) -> Markup {
    let health = Health::of(&at.state, at.at, &at.limits);
    html! {
        section aria-labelledby="packages" {
            h2 id="packages" { "Packages" }
            p { (level_mark(health.level)) " " (counts(&health)) }
            (package_strip(at))
        }
        (holders(at))
    }
}

fn counts(health: &Health) -> String {
    let dry = match health.seconds_to_empty {
        Some(secs) if 0 < health.available => {
            let lasts = span(std::time::Duration::from_secs(secs));
            format!(" At the pace of the last 24 hours the available ones last {lasts}.")
        }
        _ => String::new(),
    };
    format!(
        "{} available ({} never handed out, {} given back or lapsed; {} with less than two days of life), {} \
         reserved, {} spent ({} in 24 hours), {} expired, {} withdrawn; {} last-resort. Room for {} more.{dry}",
        health.available,
        health.fresh,
        health.requeued,
        health.expiring_soon,
        health.reserved,
        health.spent,
        health.spent_24h,
        health.expired,
        health.revoked,
        health.last_resort,
        health.room,
    )
}

/// The open reservations, each with its holder, its group and its deadline.
fn holders(at: &PoolMoment) -> Markup {
    let mut open: Vec<_> = at.state.open_reservations().collect();
    open.sort_by_key(|(_, made)| made.deadline);
    html! {
        section aria-labelledby="holders" {
            h2 id="holders" { "Who holds what, until when" }
            @if open.is_empty() {
                p { "Nobody holds a package." }
            } @else {
                div.scroll tabindex="0" role="region" aria-label="Table of open reservations" {
                    table {
                        thead {
                            tr {
                                th scope="col" { "reservation" }
                                th scope="col" { "package" }
                                th scope="col" { "holder" }
                                th scope="col" { "group" }
                                th scope="col" { "until" }
                                th.number scope="col" { "renewals" }
                            }
                        }
                        tbody {
                            @for (id, made) in open.iter().take(RESERVATIONS_MAX) {
                                tr {
                                    td { a href=(search_address(&id.to_string())) { code { (short(id)) } } }
                                    td { a href=(search_address(&made.keypackage_ref.to_string())) { code { (made.keypackage_ref.short()) } } }
                                    td { (pool_link(&made.holder)) }
                                    td { code { (group(&made.group)) } }
                                    td { (moment(made.deadline, at.at)) }
                                    td.number { (made.renewals) " of " (at.limits.renewals_max) }
                                }
                            }
                        }
                    }
                }
                @if RESERVATIONS_MAX < open.len() {
                    p { "And " (open.len().saturating_sub(RESERVATIONS_MAX)) " more, with later ends." }
                }
            }
        }
    }
}

/// The beginning of a group's id.
fn group(group: &GroupId) -> String {
    let text = group.to_string();
    let begin: String = text.chars().take(16).collect();
    if begin.len() < text.len() { begin + "…" } else { begin }
}

fn last_events(history: &History) -> Markup {
    html! {
        section aria-labelledby="events" {
            h2 id="events" { "The last events, the newest first" }
            ol.events {
                @for told in history.told.iter().rev() { (event_item(&history.pool, told, false)) }
            }
        }
    }
}

fn policy(state: &PoolState) -> Markup {
    let contacts = state.contacts();
    let reserve = match contacts.reserve() {
        ReservePolicy::Open => "Any registered device may reserve.",
        ReservePolicy::Contacts => {
            "Only contacts may reserve, and users that the owner has introduced."
        }
    };
    html! {
        section aria-labelledby="policy" {
            h2 id="policy" { "The owner's policy" }
            p {
                (reserve) " It has " (counted(contacts.users().count() as u64, "contact")) " and has blocked "
                (counted(contacts.blocked().count() as u64, "user")) "."
            }
        }
    }
}

fn devices_of(pool: &PoolId, devices: &[IntroducedDevice], now: Timestamp) -> Markup {
    html! {
        section aria-labelledby="devices" {
            h2 id="devices" { "Devices of " (pool.user()) }
            @if devices.is_empty() {
                p { "No device of the user was registered." }
            } @else {
                ul {
                    @for known in devices {
                        li {
                            (pool_link(&known.device)) ": "
                            @match &known.key {
                                Some(key) => { "key " code { (short(key)) } ", " }
                                None => "removed; it was ",
                            }
                            (one_line(&known.origin)) ", " (distance(known.since, now)) "."
                        }
                    }
                }
            }
        }
    }
}

/// The operator's word on the user; nothing where there was none.
fn suspensions_of(user: &str, suspensions: &UserSuspensions) -> Markup {
    html! {
        @if !suspensions.told.is_empty() {
            section aria-labelledby="blocks" {
                h2 id="blocks" { "Blocks of " (user) " by the operator, the newest first" }
                ol.events {
                    @for (position, sentence) in suspensions.told.iter().rev() {
                        li {
                            span.sentence { (one_line(sentence)) } " "
                            small { a href=(search_address(&position.to_string())) { "record " (position) } }
                        }
                    }
                }
            }
        }
    }
}

fn actions(pool: &PoolId, is_removed: bool, is_suspended: bool) -> Markup {
    let (device, user) = (pool.clone(), pool.user().to_owned());
    let block = if is_suspended {
        Action::UnblockUser { user: user.clone() }
    } else {
        Action::BlockUser { user: user.clone(), reason: None }
    };
    html! {
        section aria-labelledby="actions" {
            h2 id="actions" { "Actions" }
            p { "Each asks once more before anything happens." }
            @if !is_removed { (action_button(&Action::RemoveDevice { device })) }
            (action_button(&block))
            (action_button(&Action::ReleaseName { user }))
        }
        p { a href=(paths::POOLS) { "To the pools at risk" } }
    }
}
