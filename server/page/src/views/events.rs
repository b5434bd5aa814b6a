//! The events of a history as a list.

use keypool_ledger::PoolId;
use keypool_projections::explanation::words::{one_line, short};
use maud::{Markup, html};

use super::{history_address, search_address};
use crate::history::{History, ToldEvent};

/// An event of a pool's history as an entry of a list.
pub(super) fn event_item(pool: &PoolId, told: &ToldEvent, is_chosen: bool) -> Markup {
    html! {
        li aria-current=[is_chosen.then_some("step")] {
            a href=(history_address(pool, told.version)) { "Event " (told.version) }
            " " (told_event(told))
        }
    }
}

/// An event: its name, its package, its sentence, and where it stands in the log.
pub(super) fn told_event(told: &ToldEvent) -> Markup {
    html! {
        strong { (told.event.replace('_', " ")) } " "
        @if let Some(of) = &told.keypackage_ref {
            a href=(search_address(&of.to_string())) { "package " code { (of.short()) } } " "
        }
        span.sentence { (one_line(&told.sentence)) } " "
        small {
            "record " (told.position) ", "
            a href=(search_address(&told.command.to_string())) { "request " code { (short(&told.command)) } }
        }
    }
}

/// A note that the history goes on beyond the part that was read.
pub(super) fn cut(history: &History) -> Option<Markup> {
    history.is_cut.then(|| {
        html! {
            p.notice {
                "This history is longer than the page reads: it is shown up to event " (history.len) ". "
                code { "keypool-ledger replay" } " reads all of it."
            }
        }
    })
}
