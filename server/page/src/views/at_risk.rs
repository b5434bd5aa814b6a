//! The pools at risk, and the search for pools by their users.

use keypool_ledger::Timestamp;
use keypool_projections::{Level, explanation::words::one_line};
use maud::{Markup, html};

use super::{address, distance, level_mark, page, paths, pool_link};
use crate::overview::PoolAtRisk;

/// How many pools a page lists.
pub(crate) const ROWS_MAX: usize = 50;

/// The pools that were asked for.
#[derive(Clone, Debug)]
pub(crate) struct AtRiskQuery {
    /// The beginning of a user's name.
    pub(crate) user: Option<String>,
    pub(crate) level: Option<Level>,
    /// How many pools stand on the pages before.
    pub(crate) skip: usize,
}

/// The pools that were asked for, one row each; with one more than a page lists there is a next page.
pub(crate) fn at_risk(query: &AtRiskQuery, pools: &[PoolAtRisk], now: Timestamp) -> Markup {
    let user = query.user.as_deref().unwrap_or_default();
    let main = html! {
        form.search method="get" action=(paths::POOLS) role="search" {
            label for="user" { "Pools of the users whose names begin with" }
            input id="user" name="user" value=(one_line(user)) maxlength="128" autocomplete="off" spellcheck="false";
            button type="submit" { "Search" }
        }
        nav.levels aria-label="Levels" {
            (level_link(query, None, "running dry next"))
            @for level in [Level::Empty, Level::Critical, Level::Low, Level::Healthy] {
                (level_link(query, Some(level), level.word()))
            }
        }
        @if pools.is_empty() {
            p { (nothing(query)) }
        } @else {
            (table(pools, now))
        }
        (turning(query, pools.len()))
    };
    page("Pools at risk", paths::POOLS, &main)
}

fn level_link(query: &AtRiskQuery, level: Option<Level>, name: &str) -> Markup {
    let is_shown = query.user.is_none() && query.level == level;
    let address = match level {
        Some(level) => address(paths::POOLS, &[("level", level.word())]),
        None => paths::POOLS.to_owned(),
    };
    html! { a href=(address) aria-current=[is_shown.then_some("true")] { (name) } }
}

fn nothing(query: &AtRiskQuery) -> &'static str {
    match query {
        AtRiskQuery { user: Some(_), .. } => {
            "No pool has a user whose name begins so. Names are told apart by capital letters."
        }
        AtRiskQuery { skip: 0, .. } => "No pool is at this level.",
        _ => "There are no more pools.",
    }
}

fn table(pools: &[PoolAtRisk], now: Timestamp) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Pools" {
            table {
                thead {
                    tr {
                        th scope="col" { "pool" }
                        th scope="col" { "level" }
                        th scope="col" { "runs dry" }
                        th.number scope="col" { "available" }
                        th.number scope="col" { "reserved" }
                        th.number scope="col" { "last resort" }
                        th.number scope="col" { "spent in 24 h" }
                    }
                }
                tbody {
                    @for pool in pools.iter().take(ROWS_MAX) {
                        tr {
                            th scope="row" { (pool_link(&pool.pool)) }
                            td { @if pool.is_removed { "device removed" } @else { (level_mark(pool.level)) } }
                            td { (dry(pool, now)) }
                            td.number { (pool.available) }
                            td.number { (pool.reserved) }
                            td.number { (pool.last_resort) }
                            td.number { (pool.spent_24h) }
                        }
                    }
                }
            }
        }
    }
}

fn dry(pool: &PoolAtRisk, now: Timestamp) -> String {
    if pool.dry_at == Timestamp::default() {
        "never filled".to_owned()
    } else {
        distance(pool.dry_at, now)
    }
}

/// The links to the pages before and after.
fn turning(query: &AtRiskQuery, listed: usize) -> Markup {
    let to = |skip: usize| {
        let skip = skip.to_string();
        let level = query.level.map(|level| ("level", level.word()));
        let of: Vec<(&str, &str)> = level.into_iter().chain([("skip", skip.as_str())]).collect();
        address(paths::POOLS, &of)
    };
    html! {
        @if query.user.is_some() && ROWS_MAX < listed {
            p { "There are more; say more of the name." }
        } @else if query.user.is_none() {
            nav.turning aria-label="Pages" {
                @if 0 < query.skip {
                    a rel="prev" href=(to(query.skip.saturating_sub(ROWS_MAX))) { "Earlier ones" }
                }
                @if ROWS_MAX < listed {
                    a rel="next" href=(to(query.skip.saturating_add(ROWS_MAX))) { "Later ones" }
                }
            }
        }
    }
}
