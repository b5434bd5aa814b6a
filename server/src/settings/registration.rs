//! Settings of the registration that contradict each other.

use super::SettingsError;
use crate::registration::{RegistrationPolicy, RegistrationSettings};

impl RegistrationSettings {
    /// Refuses settings that are missing, and settings without an effect: they were meant to have one.
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        let Self { policy, allow_list, jwt_key, jwt_jwks, jwt_issuer, jwt_audience, .. } = self;
        let jwt = RegistrationPolicy::Jwt;
        for (flag, is_said) in
            [("--jwt-jwks", jwt_jwks.is_some()), ("--jwt-issuer", jwt_issuer.is_some())]
        {
            if is_said && *policy != jwt {
                return Err(SettingsError::Idle(flag, jwt.word()));
            }
        }
        // A key set takes the place of the keys.
        let has_key = jwt_key.is_some() || (*policy == jwt && jwt_jwks.is_some());
        let said = [
            ("--allow-list", allow_list.is_some(), RegistrationPolicy::AllowList),
            ("--jwt-key", has_key, RegistrationPolicy::Jwt),
            ("--jwt-audience", jwt_audience.is_some(), RegistrationPolicy::Jwt),
        ];
        for (flag, is_said, needed_by) in said {
            match (is_said, needed_by == *policy) {
                (false, true) => return Err(SettingsError::Missing(flag, needed_by.word())),
                (true, false) => return Err(SettingsError::Idle(flag, needed_by.word())),
                (true, true) | (false, false) => {}
            }
        }
        Ok(())
    }
}
