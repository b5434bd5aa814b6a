//! The one error of all functions: a stable code, a text with the next step, the request's id, whether to try again.

mod codes;

use std::{error::Error, fmt};

use keypool_client::{ApiError, ExchangeError};
use tokio::task::JoinError;

/// Why a call did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Error)]
pub enum DeviceError {
    /// The call failed.
    Failed {
        /// A stable word: the server's error code if the server refused (`keypool explain CODE` prints its meaning),
        /// otherwise one of the client's, which `docs/bindings.md` lists.
        code: String,
        /// The fact and the next step, for a person.
        message: String,
        /// The id by which the server's operator finds the request; none if the server did not answer with one.
        request_id: Option<String>,
        /// Whether the same call may succeed later.
        retryable: bool,
    },
}

impl DeviceError {
    /// The stable word of the error.
    #[must_use]
    pub fn code(&self) -> &str {
        let Self::Failed { code, .. } = self;
        code
    }

    fn with_code(code: &str, message: String) -> Self {
        Self::Failed { code: code.to_owned(), message, request_id: None, retryable: false }
    }

    /// An argument that cannot be used, or one that only a device makes.
    pub(crate) fn invalid(message: String) -> Self {
        Self::with_code("invalid_argument", message)
    }

    /// The device was closed.
    pub(crate) fn closed() -> Self {
        let message = "the device is closed; open it again";
        Self::with_code("closed", message.to_owned())
    }

    /// The machine gives no threads.
    pub(crate) fn no_threads(error: &std::io::Error) -> Self {
        let message =
            format!("the machine gives no threads: {error}; close other programs, and start again");
        Self::with_code("no_threads", message)
    }

    /// A call that has ended without an answer: by a panic, or because the process ends.
    pub(crate) fn ended(error: JoinError) -> Self {
        let Ok(panic) = error.try_into_panic() else {
            return Self::with_code("cancelled", "the call was cancelled".to_owned());
        };
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
        let message = format!("a fault of keypool: {text}; report it, and open the device again");
        Self::with_code("panic", message)
    }
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Failed { message, .. } = self;
        f.write_str(message)
    }
}

impl Error for DeviceError {}

/// The code of an error, whether to try again, and the refusal of the server that is behind it.
struct ErrorFacts<'a> {
    code: &'static str,
    retryable: bool,
    cause: Option<&'a ApiError>,
}

impl<'a> ErrorFacts<'a> {
    /// An error that the same call meets again.
    const fn lasting(code: &'static str) -> Self {
        Self { code, retryable: false, cause: None }
    }

    /// An error that the same call may not meet later.
    const fn passing(code: &'static str) -> Self {
        Self { code, retryable: true, cause: None }
    }

    /// The same, with the refusal of the server that is found behind `source`.
    fn behind(self, source: &'a (dyn Error + 'static)) -> Self {
        Self { cause: refusal_in(source), ..self }
    }
}

/// An error of the client library, which has a code.
trait ErrorCode: Error {
    fn facts(&self) -> ErrorFacts<'_>;
}

impl<E: ErrorCode> From<E> for DeviceError {
    fn from(error: E) -> Self {
        let ErrorFacts { code, retryable, cause } = error.facts();
        let request_id = match cause {
            Some(ApiError::Refused(problem)) => problem.request_id.clone(),
            _ => None,
        };
        Self::Failed { code: code.to_owned(), message: sentence(&error), request_id, retryable }
    }
}

/// The first error of the API in a chain of sources.
fn refusal_in<'a>(source: &'a (dyn Error + 'static)) -> Option<&'a ApiError> {
    let mut link = Some(source);
    while let Some(error) = link {
        // An error that is transparent does not name the one in it as its source.
        let in_exchange = match error.downcast_ref() {
            Some(ExchangeError::Api(found)) => Some(found),
            _ => None,
        };
        if let Some(found) = error.downcast_ref().or(in_exchange) {
            return Some(found);
        }
        link = error.source();
    }
    None
}

/// The error's text, and those of its sources that it does not repeat.
fn sentence(error: &dyn Error) -> String {
    let (mut text, mut link) = (error.to_string(), error.source());
    while let Some(source) = link {
        let more = source.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        link = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use keypool_client::{ClientOpenError, ConfigError, GroupError, StorageError};

    use super::*;

    #[test]
    fn an_error_has_the_text_of_its_sources_once() {
        let storage = StorageError::Unreadable("the disk is gone".into());
        let DeviceError::Failed { code, message, request_id, retryable } =
            GroupError::Storage(storage).into();
        assert_eq!((code.as_str(), request_id, retryable), ("store_unreadable", None, false));
        assert_eq!(
            message,
            "the group cannot be read or stored: the device's database cannot be read: the disk is gone"
        );
    }

    #[test]
    fn a_transparent_error_has_the_code_of_its_cause() {
        let error: DeviceError = ClientOpenError::Config(ConfigError::NoCiphersuite).into();
        assert_eq!(error.code(), "invalid_options");
        assert_eq!(error.to_string(), "a pool needs a ciphersuite; 1 is the usual one");
    }

    #[test]
    fn every_code_is_in_the_docs() {
        let page = include_str!("../../../docs/bindings.md");
        let sources = [include_str!("error/codes.rs"), include_str!("error.rs")];
        let sources = sources.map(|text| text.split("#[cfg(test)]").next().unwrap_or_default());
        let quoted = sources.iter().flat_map(|text| text.split('"').skip(1).step_by(2));
        let is_code = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        let codes: Vec<&str> = quoted.filter(is_code).collect();
        assert!(codes.len() > 40, "the codes are found: {codes:?}");
        for code in codes {
            let is_the_servers = code.parse::<keypool_client::Code>().is_ok();
            assert!(
                is_the_servers || page.contains(&format!("`{code}`")),
                "{code} is not in the docs"
            );
        }
    }
}
