//! The search, and the biographies that it finds.

use keypool_projections::explanation::words::{one_line, short};
use maud::{Markup, html};

use super::{
    action_button, counted,
    events::{event_item, told_event},
    level_mark, page, paths, pool_link,
};
use crate::{
    action::Action,
    biography::{Biographies, Effects, PackageLife},
    overview::PoolAtRisk,
};

/// How many characters of a text are searched for.
pub(crate) const TEXT_MAX: usize = 200;

/// The search for a text: an empty one shows the form only.
pub(crate) fn search(text: &str, found: &Biographies, pools: &[PoolAtRisk]) -> Markup {
    let main = html! {
        form.search method="get" action=(paths::SEARCH) role="search" {
            label for="q" {
                "A package's reference, the id of a reservation or a request (its Idempotency-Key), the X-Request-Id of "
                "a refused request, the position of a record, or a user"
            }
            input id="q" name="q" value=(one_line(text)) maxlength=(TEXT_MAX) autocomplete="off" spellcheck="false";
            button type="submit" { "Search" }
        }
        @if !text.is_empty() && found.is_empty() && pools.is_empty() {
            p {
                "Nothing in the log is named " q { (one_line(text)) } ", and no refusal is recorded of such a request. "
                "References and ids are searched for in full."
            }
        }
        @if !pools.is_empty() {
            ul { @for known in pools { li { (pool_link(&known.pool)) " " (level_mark(known.level)) } } }
        }
        @if !found.refusals.is_empty() {
            ul { @for refused in &found.refusals { li { "Refused: " (one_line(&refused.sentence())) "." } } }
        }
        @for life in &found.lives { (biography(life)) }
        @for effects in &found.requests { (request(effects)) }
    };
    page("Search", paths::SEARCH, &main)
}

/// The life of a package in sentences.
fn biography(life: &PackageLife) -> Markup {
    html! {
        article {
            h2 { "Package " code { (life.keypackage_ref.short()) } }
            p { "Of the pool " (pool_link(&life.pool)) ". In full: " code.long { (life.keypackage_ref) } }
            ol.events {
                @for told in &life.told { (event_item(&life.pool, told, false)) }
            }
            p { strong { (one_line(&life.end)) } }
            @if life.is_live {
                (action_button(&Action::RevokePackage { keypackage_ref: life.keypackage_ref.clone() }))
            }
        }
    }
}

/// The effects of a request.
fn request(effects: &Effects) -> Markup {
    html! {
        article {
            h2 { "Request " code { (short(&effects.command)) } }
            p { "It wrote " (counted(effects.len as u64, "record")) ". In full: " code.long { (effects.command) } }
            @if !effects.others.is_empty() {
                ol.events {
                    @for (stream, told) in &effects.others {
                        li { code { (one_line(&stream.to_string())) } " " (told_event(told)) }
                    }
                }
            }
        }
        @for life in &effects.lives { (biography(life)) }
    }
}
