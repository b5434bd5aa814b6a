//! The error of a call.

use keypool_api::{API_PREFIX, Code, Problem};
use keypool_ledger::NameError;

use crate::{BoxError, IdentityError};

/// The statuses below 500 by which a proxy says that the same request may succeed later: a timeout, a replay
/// that is too early, too many requests.
const LATER_STATUSES: [u16; 3] = [408, 425, 429];
/// The status of a request that is too large.
const TOO_LARGE_STATUS: u16 = 413;

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The server cannot be reached, or its answer was lost. Nobody knows whether it was carried out;
    /// repeating it with the same id is safe.
    #[error("the server at {server} cannot be reached; check the address, and that it is running")]
    Unreachable {
        /// The server's address.
        server: String,
        /// The network's error.
        #[source]
        source: BoxError,
    },
    /// The server refused, and said why.
    #[error("{}: {}. {}{}", .0.code, .0.detail.trim_end_matches('.'), .0.hint, named_request(.0))]
    Refused(Box<Problem>),
    /// The answer is not one of a keypool server, but of a proxy before it, say. With a status of 500 or
    /// more, or one that means later, nobody knows whether the request was carried out.
    #[error("the answer of {server} is not one of a keypool server (status {status}){}", proxy_hint(*status))]
    Unexpected {
        /// The server's address.
        server: String,
        /// The status of the answer.
        status: u16,
    },
    /// The address leads to another one, which is not followed: a request is signed for the address that was given.
    /// Nothing was carried out.
    #[error("the server at {server} has another address, {to}; give that one")]
    Redirected {
        /// The server's address.
        server: String,
        /// The address that it names, as it came; at most 200 characters of it.
        to: String,
    },
    /// The server does not serve the version of the API that this client speaks. Nothing was carried out.
    #[error(
        "the server at {server} is older than this client: it does not serve {API_PREFIX} of the API; have its \
         operator install a newer one, or use the client of its release"
    )]
    Outdated {
        /// The server's address.
        server: String,
    },
    /// The address is not one of a server: a scheme, a host and perhaps a port, and nothing else.
    #[error(
        "{0:?} is no address of a server; one looks like http://127.0.0.1:8080, with no path, query \
         or user name"
    )]
    Address(String),
    /// The name is none that a user or a device can have. Nothing was sent.
    #[error("{0}. Nothing was sent")]
    Name(#[from] NameError),
    /// The device's key cannot sign the request. Nothing was sent.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The HTTP client cannot be made; on a system without CA certificates it never can.
    #[error("the HTTP client cannot be made; are the system's CA certificates installed?")]
    Client(#[source] BoxError),
}

impl ApiError {
    /// The server's error code, if it refused.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(problem) => Some(problem.code),
            _ => None,
        }
    }

    /// Whether the answer is not known: the request may have been carried out.
    #[must_use]
    pub fn is_unanswered(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused(problem) => problem.status >= 500,
            // What stands between may have given up on a server that goes on.
            Self::Unexpected { status, .. } => *status >= 500 || LATER_STATUSES.contains(status),
            Self::Redirected { .. }
            | Self::Outdated { .. }
            | Self::Address(_)
            | Self::Name(_)
            | Self::Identity(_)
            | Self::Client(_) => false,
        }
    }

    /// Whether a proxy before the server has refused the request for good: it never reached the server, and
    /// would not the next time.
    pub(crate) fn is_refusal_of_a_proxy(&self) -> bool {
        let Self::Unexpected { status, .. } = self else { return false };
        (400..500).contains(status) && !LATER_STATUSES.contains(status)
    }
}

/// Returns the id by which the operator finds the request, as the end of an error message; empty where the server
/// gave none.
fn named_request(problem: &Problem) -> String {
    let id = problem.request_id.as_deref();
    id.map(|id| format!(" (request {id})")).unwrap_or_default()
}

/// Returns the next step for the status of a proxy's answer, as the end of an error message; empty where there
/// is none.
fn proxy_hint(status: u16) -> &'static str {
    match status {
        TOO_LARGE_STATUS => {
            "; a proxy before the server takes smaller requests only: send less at once, or let the operator \
             raise its limit, which is client_max_body_size in nginx"
        }
        _ => "",
    }
}
