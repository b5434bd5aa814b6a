//! Cross-origin requests: which web pages may use the API from a browser (CORS, the Fetch standard).
//!
//! Off unless the operator names origins. A preflight carries no signature and is answered here, before any
//! handler, so that it counts against no limit.

use std::str::FromStr;

use actix_cors::Cors;
use keypool_api::{TIME_HEADER, signing::CALLER};
use reqwest::Url;
use serde::Deserialize;

use crate::request_log::REQUEST_ID;

/// The methods of the API.
const METHODS: [&str; 3] = ["GET", "HEAD", "POST"];
/// The headers that a request may have beside those that every page may send.
const REQUEST_HEADERS: [&str; 8] = [
    "authorization",
    "content-digest",
    "content-type",
    "idempotency-key",
    CALLER,
    "signature",
    "signature-input",
    REQUEST_ID,
];
/// The headers of an answer that a page may read beside those that every page may.
const ANSWER_HEADERS: [&str; 12] = [
    "allow",
    "keypool-device",
    "keypool-generation",
    "keypool-keypackage-ref",
    "keypool-last-resort",
    "keypool-not-after",
    "keypool-reservation-expires-at",
    "keypool-reservation-id",
    TIME_HEADER,
    "retry-after",
    "www-authenticate",
    REQUEST_ID,
];
/// How long a browser may remember the answer to a preflight, in seconds: as long as any does.
const PREFLIGHT_MAX_AGE_S: usize = 7200;

/// The origin of web pages that may use the API, exactly as their browser sends it: `https://app.example`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct CorsOrigin(String);

/// The reason why a text is no origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CorsOriginError {
    /// The origin stands for more than one app.
    #[error(
        "{0:?} is the origin of pages that nobody knows: name each origin, such as https://app.example"
    )]
    Anyone(String),
    /// The text is no origin.
    #[error(
        "{0:?} is no origin such as https://app.example: a scheme, a host, a port, and nothing else"
    )]
    Malformed(String),
    /// The text is an origin in another form than a browser sends.
    #[error("{sent:?} is not how a browser writes this origin: say {exact:?}")]
    Inexact {
        /// The text.
        sent: String,
        /// The same origin as a browser writes it.
        exact: String,
    },
}

impl FromStr for CorsOrigin {
    type Err = CorsOriginError;

    fn from_str(text: &str) -> Result<Self, CorsOriginError> {
        if matches!(text, "*" | "null") {
            return Err(CorsOriginError::Anyone(text.to_owned()));
        }
        let malformed = || CorsOriginError::Malformed(text.to_owned());
        let url: Url = text.parse().map_err(|_| malformed())?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(malformed)?;
        let has_user = !url.username().is_empty() || url.password().is_some();
        let has_path = !matches!(url.path(), "" | "/");
        if has_user || has_path || url.query().is_some() || url.fragment().is_some() {
            return Err(malformed());
        }
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let exact = format!("{}://{host}{port}", url.scheme());
        if exact == text {
            return Ok(Self(exact));
        }
        Err(CorsOriginError::Inexact { sent: text.to_owned(), exact })
    }
}

impl TryFrom<String> for CorsOrigin {
    type Error = CorsOriginError;

    fn try_from(text: String) -> Result<Self, CorsOriginError> {
        text.parse()
    }
}

/// The middleware that answers preflights, and adds the headers that let pages of these origins read answers.
pub(crate) fn cors(origins: &[CorsOrigin]) -> Cors {
    let cors = Cors::default()
        .allowed_methods(METHODS)
        .allowed_headers(REQUEST_HEADERS)
        .expose_headers(ANSWER_HEADERS)
        .max_age(PREFLIGHT_MAX_AGE_S);
    origins.iter().fold(cors, |cors, CorsOrigin(origin)| cors.allowed_origin(origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_written_as_a_browser_sends_it() {
        for text in [
            "https://app.example",
            "https://app.example:8443",
            "http://localhost:5173",
            "http://[::1]:5173",
            "capacitor://localhost",
        ] {
            assert_eq!(text.parse(), Ok(CorsOrigin(text.to_owned())), "{text}");
        }
        for (text, exact) in [
            ("https://app.example/", "https://app.example"),
            ("https://App.example", "https://app.example"),
            ("https://app.example:443", "https://app.example"),
            ("HTTP://localhost:80", "http://localhost"),
        ] {
            let (sent, exact) = (text.to_owned(), exact.to_owned());
            let expected = CorsOriginError::Inexact { sent, exact };
            assert_eq!(text.parse::<CorsOrigin>(), Err(expected), "{text}");
        }
    }

    #[test]
    fn an_origin_of_anyone_and_a_text_that_is_none_are_refused() {
        let refused = |text: &str| text.parse::<CorsOrigin>().unwrap_err();
        for text in ["*", "null"] {
            assert_eq!(refused(text), CorsOriginError::Anyone(text.to_owned()));
        }
        for text in [
            "",
            "app.example",
            "https://",
            "https://app.example/chat",
            "https://app.example?x",
            "https://u@app.example",
            "https://*.example/x",
            "file:///",
            "https://a.example, https://b.example",
        ] {
            assert_eq!(refused(text), CorsOriginError::Malformed(text.to_owned()), "{text}");
        }
    }
}
