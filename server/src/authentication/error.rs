//! Errors of authentication.

use keypool_api::signing::SignatureError;
use keypool_ledger::{PoolId, SignatureKey, Timestamp};

/// Why a request could not be authenticated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthenticationError {
    /// There is no signature.
    #[error("no signature: the request carries none with the tag keypool-v1")]
    Missing,
    /// The signature is not of the profile's form, or covers other things, or is wrong.
    #[error("bad signature: {0}")]
    Bad(String),
    /// A header that counts once is there more than once, or is not plain text.
    #[error("bad signature: the header {0} must be there once, in plain text")]
    Header(&'static str),
    /// The signature's time does not fit.
    #[error("clock: {why}")]
    Clock {
        /// The mismatch.
        why: &'static str,
        /// The time of the server; `None` while its own clock is in doubt, so that nobody follows it.
        now: Option<Timestamp>,
    },
    /// The request was signed for, or sent to, another server.
    #[error(
        "authority: {sent:?} is not a name of this server; it has {known} (its operator says its names \
         with --public-name)"
    )]
    Authority {
        /// The name the request was sent to.
        sent: String,
        /// The server's names.
        known: String,
    },
    /// The key speaks for no device.
    #[error("unregistered key: {0} speaks for no device here")]
    Unregistered(SignatureKey),
    /// A frontend does not name the device that it signs for, or not in the form `USER/DEVICE`.
    #[error(
        "no caller: {0} is a frontend key; name the device, USER/DEVICE, in the header Keypool-Caller, and \
         sign that too"
    )]
    NoDevice(SignatureKey),
    /// A frontend names a device that is not registered.
    #[error("no caller: {0} is not registered; register it with POST /devices")]
    NoSuchDevice(PoolId),
    /// Another key names a device to act for.
    #[error(
        "no caller: Keypool-Caller is for the frontend keys of the server's operator, and {0} is none; leave \
         the header out"
    )]
    NotAFrontend(SignatureKey),
    /// A key that is or was a user's is in the file of the frontend keys.
    #[error(
        "no caller: {0} is a frontend key, and is or was the key of a user as well, so it acts for no other; \
         give the frontend a key of its own"
    )]
    FrontendInUse(SignatureKey),
    /// Requests need not be signed here, and this one does not name its caller either.
    #[error("no caller: sign the request, or name USER/DEVICE in X-Keypool-Caller")]
    Unnamed,
}

impl AuthenticationError {
    /// Translates the fault of a signature that was checked at a time.
    pub(super) fn of_signature(error: &SignatureError, now: Timestamp) -> Self {
        match *error {
            SignatureError::Missing => Self::Missing,
            SignatureError::Clock(why) => Self::Clock { why, now: Some(now) },
            SignatureError::Malformed(_) | SignatureError::Components(_) => {
                Self::Bad(error.to_string())
            }
        }
    }
}
