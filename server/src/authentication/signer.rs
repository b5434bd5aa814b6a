//! The signer of a request: a user's own key, or a frontend, which is the app's backend.

use keypool_api::Code;
use keypool_ledger::{PoolId, SignatureKey};

use super::{AuthenticationError, SignedClaim, pool_of};
use crate::{
    problem::Failure,
    state::{State, Store},
};

/// The signer of a request whose key need not be registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RequestSigner {
    /// A key that acts for itself.
    Own(SignatureKey),
    /// A frontend.
    Frontend {
        /// Its key.
        frontend: SignatureKey,
        /// The device that it acts for, registered or not.
        device: PoolId,
    },
}

impl RequestSigner {
    pub(super) fn of(claim: &SignedClaim) -> Self {
        let key = claim.key().clone();
        match claim.device.clone() {
            Some(device) => Self::Frontend { frontend: key, device },
            None => Self::Own(key),
        }
    }

    /// The key that signed the request.
    pub(crate) const fn key(&self) -> &SignatureKey {
        match self {
            Self::Own(key) | Self::Frontend { frontend: key, .. } => key,
        }
    }

    /// The caller in the digest of the request. Frontends that act for one device are one caller, so that
    /// each may repeat the request of another.
    pub(super) fn caller(&self) -> String {
        match self {
            Self::Own(key) => key.to_string(),
            Self::Frontend { device, .. } => device.to_string(),
        }
    }

    /// The registered device that the request acts for, and its key.
    ///
    /// # Errors
    ///
    /// Returns a [`Failure`] if the key, or the device that a frontend names, is not registered.
    pub(crate) fn device(&self, state: &State) -> Result<(PoolId, SignatureKey), Failure> {
        match self {
            Self::Own(key) => Ok((pool_of(key, state)?, key.clone())),
            Self::Frontend { device, .. } => {
                let key = state.store()?.pools().registered_key(device);
                let key = key.ok_or_else(|| AuthenticationError::NoSuchDevice(device.clone()))?;
                Ok((device.clone(), key))
            }
        }
    }

    /// The key of a request that only the key itself may sign, because it is to be registered.
    ///
    /// # Errors
    ///
    /// Returns a [`Failure`] if a frontend signed.
    pub(crate) fn own_key(&self) -> Result<SignatureKey, Failure> {
        match self {
            Self::Own(key) => Ok(key.clone()),
            Self::Frontend { .. } => {
                let detail = "a frontend replaces and recovers no device's key: the new key signs this \
                              request itself";
                Err(Failure::new(Code::NotAllowed, detail))
            }
        }
    }
}

/// Decides for which device a frontend acts, by the signed header of its request; `None` for every other key.
///
/// A key that is or was a device's or a recovery key acts for its user alone, also if the operator's file has it.
/// So no key has two meanings, and a device's key that dies gains nothing.
pub(super) fn frontend_device(
    caller: Option<&str>,
    key: &SignatureKey,
    state: &State,
) -> Result<Option<PoolId>, AuthenticationError> {
    match caller {
        None if is_frontend(key, state) => Err(AuthenticationError::NoDevice(key.clone())),
        None => Ok(None),
        Some(_) if !state.registrar.is_frontend(key) => {
            Err(AuthenticationError::NotAFrontend(key.clone()))
        }
        Some(_) if !is_frontend(key, state) => Err(AuthenticationError::FrontendInUse(key.clone())),
        Some(caller) => {
            caller.parse().map(Some).map_err(|_| AuthenticationError::NoDevice(key.clone()))
        }
    }
}

/// Whether a key of the operator's file acts as a frontend: it is no user's, and never was.
pub(super) fn is_frontend(key: &SignatureKey, state: &State) -> bool {
    let is_of_user = |store: &Store| {
        let pools = store.pools();
        pools.pool_of_key(key).is_some()
            || pools.user_of_recovery_key(key).is_some()
            || pools.is_retired(key)
    };
    state.registrar.is_frontend(key) && state.store().is_ok_and(|store| !is_of_user(store))
}
