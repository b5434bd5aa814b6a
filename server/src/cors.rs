//! Cross-origin requests: which web pages may use the API from a browser (CORS, the Fetch standard).
//!
//! Off unless the operator names origins. A preflight carries no signature and is answered here, before any
//! handler, so that it counts against no limit.

use std::str::FromStr;

use actix_cors::Cors;
use actix_web::http::Uri;
use keypool_api::{AFTER_HEADER, POSITION_HEADER, REQUEST_ID_HEADER, TIME_HEADER, signing::CALLER};

/// The methods of the API.
const METHODS: [&str; 3] = ["GET", "HEAD", "POST"];
/// The headers that a request may have beside those that every page may send.
const REQUEST_HEADERS: [&str; 9] = [
    AFTER_HEADER,
    "authorization",
    "content-digest",
    "content-type",
    "idempotency-key",
    CALLER,
    "signature",
    "signature-input",
    REQUEST_ID_HEADER,
];
/// The headers of an answer that a page may read beside those that every page may.
const ANSWER_HEADERS: [&str; 13] = [
    "allow",
    "keypool-device",
    "keypool-generation",
    "keypool-keypackage-ref",
    "keypool-last-resort",
    "keypool-not-after",
    "keypool-reservation-expires-at",
    "keypool-reservation-id",
    POSITION_HEADER,
    TIME_HEADER,
    "retry-after",
    "www-authenticate",
    REQUEST_ID_HEADER,
];
/// How long a browser may remember the answer to a preflight, in seconds: as long as any does.
const PREFLIGHT_MAX_AGE_S: usize = 7200;

/// The origin of web pages that may use the API, exactly as their browser sends it: `https://app.example`.
#[derive(Clone, Debug, PartialEq, Eq)]
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
        if text == "null" || text.contains('*') {
            return Err(CorsOriginError::Anyone(text.to_owned()));
        }
        let malformed = || CorsOriginError::Malformed(text.to_owned());
        if text.contains('#') {
            return Err(malformed());
        }
        let url: Uri = text.parse().map_err(|_| malformed())?;
        let (Some(scheme), Some(authority)) = (url.scheme_str(), url.authority()) else {
            return Err(malformed());
        };
        let has_user = authority.as_str().contains('@');
        if authority.host().is_empty() || has_user || url.path() != "/" || url.query().is_some() {
            return Err(malformed());
        }
        let (scheme, host) = (scheme.to_ascii_lowercase(), authority.host().to_ascii_lowercase());
        let usual_port = match scheme.as_str() {
            "https" => Some(443),
            "http" => Some(80),
            _ => None,
        };
        let port = authority.port_u16().filter(|port| usual_port != Some(*port));
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let exact = format!("{scheme}://{host}{port}");
        if exact == text {
            return Ok(Self(exact));
        }
        Err(CorsOriginError::Inexact { sent: text.to_owned(), exact })
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
        for text in ["*", "null", "https://*.example"] {
            assert_eq!(refused(text), CorsOriginError::Anyone(text.to_owned()));
        }
        for text in [
            "",
            "app.example",
            "https://",
            "https://app.example/chat",
            "https://app.example?x",
            "https://u@app.example",
            "https://app.example#x",
            "file:///",
            "https://a.example, https://b.example",
        ] {
            assert_eq!(refused(text), CorsOriginError::Malformed(text.to_owned()), "{text}");
        }
    }
}
