//! The page that asks for the operator's token.

use maud::{Markup, html};

use super::{page, paths};

/// Asks for the token; `is_wrong` after a wrong one.
pub(crate) fn sign_in(is_wrong: bool) -> Markup {
    let main = html! {
        @if is_wrong { p.notice role="alert" { "That is not the token." } }
        form method="post" action=(paths::SIGN_IN) {
            label for="token" { "The token in the file of " code { "--admin-token-file" } }
            input id="token" name="token" type="password" autocomplete="current-password" required;
            " " button type="submit" { "Sign in" }
        }
        p { small { "This browser is signed in for twelve hours, or until the server is started again." } }
    };
    page("Sign in", "", &main)
}
