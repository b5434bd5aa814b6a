//! The address of the app's backend, as the operator writes it.

use std::{fmt, net::IpAddr, str::FromStr};

use reqwest::Url;

/// The URL that events are posted to: https, or http to this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookUrl(Url);

/// The reason why a text is no URL of a webhook.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookUrlError {
    /// The text is no URL.
    #[error("{0:?} is no URL such as https://backend.example/keypool")]
    Malformed(String),
    /// The events would cross a network in clear.
    #[error(
        "{0}: events name users and devices, so they go over https, or over http to a loopback address; put a \
         TLS proxy in front of the backend, or a local one in front of this server"
    )]
    Clear(String),
    /// The URL has a part that the signature does not cover.
    #[error(
        "the URL of the webhook has a user, a query or a fragment: leave it out; the signature shows \
         the backend that a request is genuine"
    )]
    Unsigned,
}

impl WebhookUrl {
    /// The host, with the port unless it is the scheme's own: the `@authority` of the signature.
    pub(super) fn authority(&self) -> String {
        let host = self.0.host_str().unwrap_or_default().to_ascii_lowercase();
        self.0.port().map_or_else(|| host.clone(), |port| format!("{host}:{port}"))
    }

    /// The path.
    pub(super) fn path(&self) -> &str {
        self.0.path()
    }

    /// Whether requests go in clear, to this machine.
    pub(super) fn is_clear(&self) -> bool {
        self.0.scheme() == "http"
    }

    pub(super) fn as_url(&self) -> &Url {
        &self.0
    }
}

impl FromStr for WebhookUrl {
    type Err = WebhookUrlError;

    fn from_str(text: &str) -> Result<Self, WebhookUrlError> {
        let malformed = || WebhookUrlError::Malformed(text.to_owned());
        let url: Url = text.parse().map_err(|_| malformed())?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(malformed());
        }
        let has_user = !url.username().is_empty() || url.password().is_some();
        if has_user || url.query().is_some() || url.fragment().is_some() {
            return Err(WebhookUrlError::Unsigned);
        }
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let is_local = host == "localhost"
            || host.parse().is_ok_and(|at: IpAddr| at.to_canonical().is_loopback());
        if url.scheme() == "http" && !is_local {
            return Err(WebhookUrlError::Clear(text.to_owned()));
        }
        Ok(Self(url))
    }
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_https_or_of_this_machine() {
        for text in [
            "https://backend.example/hook",
            "http://127.0.0.1:9000",
            "http://[::1]:9000/hook",
            "http://localhost/",
        ] {
            assert!(text.parse::<WebhookUrl>().is_ok(), "{text}");
        }
        let refused = |text: &str| text.parse::<WebhookUrl>().unwrap_err();
        for text in ["http://backend.example/", "http://10.0.0.1/", "http://localhost.example/"] {
            assert_eq!(refused(text), WebhookUrlError::Clear(text.to_owned()));
        }
        for text in ["backend.example", "ftp://backend.example/", "/hook", ""] {
            assert_eq!(refused(text), WebhookUrlError::Malformed(text.to_owned()));
        }
        for text in ["https://u@a.example/", "https://a.example/?q", "https://a.example/#f"] {
            assert_eq!(refused(text), WebhookUrlError::Unsigned, "{text}");
        }
    }

    #[test]
    fn the_authority_has_the_port_unless_it_is_the_usual_one() {
        let authority = |text: &str| text.parse::<WebhookUrl>().unwrap().authority();
        assert_eq!(authority("https://Backend.example:443/a"), "backend.example");
        assert_eq!(authority("http://127.0.0.1:9000/a"), "127.0.0.1:9000");
        assert_eq!(authority("http://[::1]:9000/a"), "[::1]:9000");
    }
}
