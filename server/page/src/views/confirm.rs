//! The confirmation of an action, and its outcome.

use keypool_projections::explanation::words::one_line;
use maud::{Markup, html};

use super::{page, paths};
use crate::action::{Action, REASON};

/// How many characters the reason of a block may have.
const REASON_CHARS_MAX: usize = 200;

/// Asks once more before an action is carried out.
pub(crate) fn confirm(action: &Action) -> Markup {
    let main = html! {
        p { (one_line(&action.consequence())) }
        form.confirm method="post" action=(paths::ACT) {
            @for (name, value) in action.fields() {
                @if name != REASON { input type="hidden" name=(name) value=(value); }
            }
            @if action.asks_why() {
                label for="reason" { "Why, for those who read the log (the user is not told); may be left empty" }
                input id="reason" name=(REASON) maxlength=(REASON_CHARS_MAX) autocomplete="off";
            }
            button.danger type="submit" { (action.label()) }
            " " a href=(paths::OVERVIEW) { "Leave everything as it is" }
        }
    };
    page(&action.label(), "", &main)
}

/// Says how an action went.
pub(crate) fn outcome(action: &Action, went: Result<&str, &str>) -> Markup {
    let main = html! {
        @match went {
            Ok(done) => p.notice role="status" { "Done: " (one_line(done)) },
            Err(why) => p.notice role="alert" { "Nothing was changed: " (one_line(why)) },
        }
        p { a href=(paths::OVERVIEW) { "To the overview" } }
    };
    page(&action.label(), "", &main)
}
