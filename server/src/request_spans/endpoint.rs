//! The address of an OpenTelemetry collector, as the operator writes it.

use std::{fmt, str::FromStr};

use actix_web::http::Uri;

/// The path of spans below the address of a collector.
const TRACES_PATH: &str = "/v1/traces";

/// The URL of an OpenTelemetry collector that takes OTLP over HTTP, http or https.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpEndpoint(String);

/// The reason why a text is no URL of a collector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OtlpEndpointError {
    /// The text is no URL of http or https.
    #[error("{0:?} is no URL such as http://127.0.0.1:4318")]
    Malformed(String),
    /// The URL has a part that would be shown wherever it is named.
    #[error(
        "the URL of the collector has a user, a query or a fragment: leave it out; a token goes into the environment \
         variable OTEL_EXPORTER_OTLP_HEADERS, as `authorization=Bearer TOKEN`"
    )]
    Secret,
}

impl OtlpEndpoint {
    /// The URL that spans are posted to: the collector's with `/v1/traces`, unless it ends so.
    #[must_use]
    pub fn traces_url(&self) -> String {
        let base = self.0.trim_end_matches('/');
        if base.ends_with(TRACES_PATH) { base.to_owned() } else { format!("{base}{TRACES_PATH}") }
    }
}

impl FromStr for OtlpEndpoint {
    type Err = OtlpEndpointError;

    fn from_str(text: &str) -> Result<Self, OtlpEndpointError> {
        let malformed = || OtlpEndpointError::Malformed(text.to_owned());
        if text.contains(['@', '?', '#']) {
            return Err(OtlpEndpointError::Secret);
        }
        let url: Uri = text.parse().map_err(|_| malformed())?;
        let is_http = matches!(url.scheme_str(), Some("http" | "https"));
        let has_host = url.host().is_some_and(|host| !host.is_empty());
        if is_http && has_host { Ok(Self(text.to_owned())) } else { Err(malformed()) }
    }
}

impl fmt::Display for OtlpEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_posted_below_the_address_of_a_collector() {
        let url = |text: &str| text.parse::<OtlpEndpoint>().map(|endpoint| endpoint.traces_url());
        let local = Ok("http://127.0.0.1:4318/v1/traces".to_owned());
        for text in
            ["http://127.0.0.1:4318", "http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"]
        {
            assert_eq!(url(text), local, "{text}");
        }
        assert_eq!(
            url("https://a.example/otlp"),
            Ok("https://a.example/otlp/v1/traces".to_owned())
        );
        for text in [
            "127.0.0.1:4318",
            "grpc://a.example",
            "a.example",
            "/v1/traces",
            "",
            "http://",
            "http:// a",
        ] {
            assert_eq!(url(text), Err(OtlpEndpointError::Malformed(text.to_owned())));
        }
        for text in
            ["http://user:word@a.example", "http://a.example?token=1", "http://a.example/#a"]
        {
            assert_eq!(url(text), Err(OtlpEndpointError::Secret));
        }
    }
}
