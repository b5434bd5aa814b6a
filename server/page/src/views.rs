//! The views: HTML of pools, histories and figures. Every text from the log or a request goes through [`one_line`], so that no
//! character hides or changes the direction of the text around it.

mod at_risk;

mod confirm;

mod events;

mod overview;

mod package_strip;

mod pool;

mod search;

mod sign_in;

mod sparkline;

mod time_travel;

use keypool_ledger::{PoolId, Timestamp};
use keypool_projections::{
    Level,
    explanation::words::{one_line, span, time},
};
use maud::{DOCTYPE, Markup, html};
use url::form_urlencoded;

pub(crate) use self::{
    at_risk::{AtRiskQuery, ROWS_MAX, at_risk},
    confirm::{confirm, outcome},
    overview::{OverviewFigures, overview},
    pool::pool,
    search::{TEXT_MAX, search},
    sign_in::sign_in,
    time_travel::time_travel,
};
use crate::{action::Action, assets};

/// The addresses of the page's parts.
pub(crate) mod paths {
    /// The overview.
    pub(crate) const OVERVIEW: &str = "/";
    /// The pools at risk.
    pub(crate) const POOLS: &str = "/page/pools";
    /// One pool, named by `name`.
    pub(crate) const POOL: &str = "/page/pool";
    /// One pool's history at the event `at`.
    pub(crate) const HISTORY: &str = "/page/history";
    /// The search for `q`.
    pub(crate) const SEARCH: &str = "/page/search";
    /// The confirmation of an action.
    pub(crate) const CONFIRM: &str = "/page/confirm";
    /// Takes the form of a confirmed action.
    pub(crate) const ACT: &str = "/page/act";
    /// Asks for the operator's token, and takes it.
    pub(crate) const SIGN_IN: &str = "/page/sign-in";
}

/// The parts that the navigation names.
const PARTS: [(&str, &str); 3] =
    [(paths::OVERVIEW, "Overview"), (paths::POOLS, "Pools at risk"), (paths::SEARCH, "Search")];

/// A whole page around its main part.
pub(crate) fn page(title: &str, part: &str, main: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (one_line(title)) " · keypool" }
                link rel="icon" href=(assets::ICON) type="image/svg+xml";
                link rel="stylesheet" href=(assets::STYLE);
                script src=(assets::SCRIPT) defer {}
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header {
                    strong { "keypool" }
                    nav aria-label="Parts of the page" {
                        @for (path, name) in PARTS {
                            a href=(path) aria-current=[(path == part).then_some("page")] { (name) }
                        }
                    }
                }
                main id="main" tabindex="-1" { h1 { (one_line(title)) } (main) }
            }
        }
    }
}

/// A page that says why there is no other.
pub(crate) fn message(title: &str, text: &str) -> Markup {
    page(
        title,
        "",
        &html! { p { (one_line(text)) } p { a href=(paths::OVERVIEW) { "To the overview" } } },
    )
}

/// An address with a query.
fn address(path: &str, query: &[(&str, &str)]) -> String {
    let mut encoded = form_urlencoded::Serializer::new(String::new());
    encoded.extend_pairs(query);
    format!("{path}?{}", encoded.finish())
}

fn pool_address(pool: &PoolId) -> String {
    address(paths::POOL, &[("name", &pool.to_string())])
}

fn history_address(pool: &PoolId, version: u64) -> String {
    address(paths::HISTORY, &[("name", &pool.to_string()), ("at", &version.to_string())])
}

fn search_address(text: &str) -> String {
    address(paths::SEARCH, &[("q", text)])
}

fn pool_link(pool: &PoolId) -> Markup {
    html! { a href=(pool_address(pool)) { (pool) } }
}

/// A moment, and how far it is from now.
fn moment(at: Timestamp, now: Timestamp) -> Markup {
    let at_text = time(at);
    html! { time datetime=(at_text) { (at_text) } " (" (distance(at, now)) ")" }
}

/// How far a moment is from now, in words.
fn distance(at: Timestamp, now: Timestamp) -> String {
    if now < at {
        format!("in {}", span(at.since(now)))
    } else {
        format!("{} ago", span(now.since(at)))
    }
}

/// The mark of a level: its word, so that no colour has to be seen.
fn level_mark(level: Level) -> Markup {
    html! { span class=(format!("level {}", level.word())) { (level.word()) } }
}

/// The button that leads to the confirmation of an action.
fn action_button(action: &Action) -> Markup {
    html! {
        form.action method="get" action=(paths::CONFIRM) {
            @for (name, value) in action.fields() { input type="hidden" name=(name) value=(value); }
            button type="submit" { (action.label()) "…" }
        }
    }
}

/// A count with its noun: `1 package`, `3 packages`.
fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
