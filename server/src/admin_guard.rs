//! Guards the operator's listener: with the operator's token, or on this machine by the name in `Host`.
//!
//! A page in the operator's browser may let its own name stand for a loopback address (DNS rebinding). Its
//! requests have that name as their `Host`, and no token.

pub(crate) mod middleware;

use std::{fs, path::Path};

use actix_web::{
    dev::ServiceRequest,
    http::header::{AUTHORIZATION, HOST, HeaderValue},
};
use keypool_api::Code;
use keypool_operator_page::OperatorPage;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    problem::Failure,
    settings::{SettingsError, is_loopback},
};

/// The fewest characters of a token.
const TOKEN_LEN_MIN: usize = 16;
/// Paths that probes ask for without a token.
const PROBES: [&str; 2] = ["/livez", "/readyz"];

/// Access rule of the operator's listener.
pub(crate) enum AdminGuard {
    /// Requests with the token of this digest.
    Token([u8; 32]),
    /// Requests to `localhost` or a loopback address.
    Loopback,
}

impl AdminGuard {
    /// The guard of a listener: with the token in a file if there is one, else on loopback.
    pub(crate) fn open(token_file: Option<&Path>) -> Result<Self, SettingsError> {
        let Some(path) = token_file else { return Ok(Self::Loopback) };
        let text = fs::read_to_string(path)
            .map_err(|source| SettingsError::Unreadable { path: path.to_owned(), source })?;
        let token = text.trim();
        if token.len() < TOKEN_LEN_MIN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(SettingsError::AdminToken(path.to_owned()));
        }
        Ok(Self::Token(Sha256::digest(token).into()))
    }

    /// Whether a text is the operator's token.
    pub(crate) fn is_token(&self, token: &str) -> bool {
        match self {
            Self::Token(digest) => {
                Sha256::digest(token.trim()).as_slice().ct_eq(digest.as_slice()).into()
            }
            Self::Loopback => false,
        }
    }

    /// Decides whether a request is the operator's: by the token, or from a browser that has signed in to the page.
    fn check(&self, request: &ServiceRequest, is_signed_in: bool) -> Result<(), Failure> {
        let header =
            |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        match self {
            Self::Token(_) => {
                let sent = header(AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
                let is_open =
                    PROBES.contains(&request.path()) || OperatorPage::is_open(request.path());
                if is_open || sent.is_some_and(|token| self.is_token(token)) || is_signed_in {
                    return Ok(());
                }
                let detail =
                    "the operator's listener asks for its token: Authorization: Bearer TOKEN";
                let hint = "Send the token of the file that --admin-token-file names.";
                Err(Failure::new(Code::Unauthenticated, detail).hinting(Some(hint)))
            }
            Self::Loopback if header(HOST).is_some_and(is_own_host) => Ok(()),
            Self::Loopback => {
                let detail = "this listener is reached at its loopback address or at localhost; the Host \
                              header names another";
                let hint = "Ask for it at 127.0.0.1, or start the server with --admin-token-file.";
                Err(Failure::new(Code::NotAllowed, detail).hinting(Some(hint)))
            }
        }
    }
}

/// Decides whether a `Host` is `localhost` or a loopback address, with a port or without.
fn is_own_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse().is_ok_and(is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_its_own_by_localhost_or_a_loopback_address() {
        let own =
            ["localhost", "LOCALHOST:8081", "127.0.0.1", "127.0.0.1:1", "[::1]:8081", "[::1]"];
        assert!(own.into_iter().all(is_own_host));
        let others =
            ["", "evil.example", "evil.example:8081", "127.0.0.1.evil.example", "192.0.2.1:8081"];
        assert!(!others.into_iter().any(is_own_host));
    }
}
