//! Hints by the reason of a refusal, where the hint of its code would leave the reader to guess.

use keypool_projections::{Rejection, quota::Quota};

use crate::{admission::Check, authentication::AuthenticationError};

/// The next step for a request that could not be authenticated.
pub(super) fn of_authentication(error: &AuthenticationError) -> String {
    let hint = match error {
        AuthenticationError::Missing => {
            "Sign it with the registered key of the device (RFC 9421, tag keypool-v1)."
        }
        AuthenticationError::Bad(_) | AuthenticationError::Header(_) => {
            "Compare the signature with the profile and the known answer on the page of the API."
        }
        AuthenticationError::Clock { now: Some(_), .. } => {
            "Date the signature by `server_time` and repeat the request; then set the device's clock."
        }
        AuthenticationError::Clock { now: None, .. } => {
            "Wait until the operator has set the server's clock, and check the device's own."
        }
        AuthenticationError::Authority { sent, known } => {
            return format!(
                "Send it to {known}. If clients reach this server at {sent:?}, its operator starts it with \
                 that as a --public-name, and the proxy passes the Host header on."
            );
        }
        AuthenticationError::Unregistered(_) => {
            "Register the device first: keypool register, POST /devices. If it was registered before, another \
             device of the user or the operator has removed it, or its key was replaced."
        }
        AuthenticationError::NoDevice(_) => {
            "Name the device, USER/DEVICE, in the header Keypool-Caller, and cover it by the signature."
        }
        AuthenticationError::NoSuchDevice(_) => "Register the device with POST /devices.",
        AuthenticationError::NotAFrontend(_) => {
            "Leave Keypool-Caller out, or have the operator add the key to the file of --frontend-key."
        }
        AuthenticationError::FrontendInUse(_) => {
            "Make a key for the frontend alone, and have the operator add it to the file of --frontend-key."
        }
        AuthenticationError::Unnamed => {
            "Sign the request, or name USER/DEVICE in X-Keypool-Caller, as --insecure-no-auth allows."
        }
    };
    hint.to_owned()
}

/// The next step for a request that the rules of a pool refuse, unless that of its code says it.
pub(super) const fn of_rejection(rejection: &Rejection) -> Option<&'static str> {
    match rejection {
        Rejection::KeptForContacts => Some(
            "Ask the owner for a contact token, or wait until the owner's app uploads more; the operator \
             sets how many are kept with --strangers-floor.",
        ),
        Rejection::ContactsOnly => {
            Some("Ask the owner for a contact token, and send it as `contact_token`.")
        }
        Rejection::Blocked => {
            Some("Only the owner can change it: `unblocked` of POST /keypackages/policy.")
        }
        Rejection::OwnPool => Some("Name another device of the user, or another user."),
        Rejection::TooManyDevices(..) => Some(
            "Name fewer targets at a time; the operator sets the limit with --target-devices-max.",
        ),
        _ => None,
    }
}

/// The flag that sets a limit; `None` for a fixed one.
pub(super) const fn flag_of(quota: Quota) -> Option<&'static str> {
    match quota {
        Quota::Pair => Some("--quota-pair"),
        Quota::PairHeld => Some("--quota-pair-held"),
        Quota::Held => Some("--quota-held"),
        Quota::Requests => Some("--quota-requests"),
        Quota::Strangers => Some("--quota-strangers"),
        Quota::Devices => Some("--quota-devices"),
        Quota::Uploads => Some("--quota-uploads"),
        Quota::Failures => Some("--quota-failures"),
        Quota::ContactPair
        | Quota::Policy
        | Quota::Posts
        | Quota::PostBytes
        | Quota::Groups
        | Quota::Room => None,
    }
}

/// The next step for a package that failed a check whose limit is a setting.
pub(super) fn of_check(check: &str) -> Option<&'static str> {
    let flags = [
        (
            Check::Size,
            "Make a smaller package; the operator sets the limit with --package-bytes-max.",
        ),
        (
            Check::Lifetime,
            "Make a package of another lifetime; the operator sets the limits with --lifetime-max and \
             --last-resort-lifetime-max. A device whose clock is wrong dates packages by Keypool-Time.",
        ),
    ];
    flags.into_iter().find(|(named, _)| named.name() == check).map(|(_, hint)| hint)
}
