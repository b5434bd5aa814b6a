//! The registration policy: trust on first use, the operator's list, or the operator's tokens; and the
//! frontend keys, which register under each policy.
//!
//! A registered key needs nothing of this, and neither does rotating a key: the previous key has agreed.

mod frontends;

mod key_set;

mod list;

mod token;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
};

use clap::ValueEnum;
use keypool_ledger::{PoolId, SignatureKey, Timestamp};

use self::{
    frontends::Frontends,
    key_set::KeySet,
    list::AllowList,
    token::{Claimed, Issuer, TokenError},
};

/// Who may register a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RegistrationPolicy {
    /// The first key to register a user's device has the name; another device of the user needs a voucher by
    /// one that is registered
    #[default]
    Tofu,
    /// Who stands in the file of --allow-list
    AllowList,
    /// Who brings a token that the key of --jwt-key has signed
    Jwt,
}

/// The operator's settings of registration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistrationSettings {
    /// Who may register.
    pub policy: RegistrationPolicy,
    /// The file that lists them, where there is a list.
    pub allow_list: Option<PathBuf>,
    /// The file with the public keys of who issues tokens, where there are tokens.
    pub jwt_key: Option<PathBuf>,
    /// The file with the key set (JWKS) of who issues tokens, where there is one.
    pub jwt_jwks: Option<PathBuf>,
    /// The issuer that a token must name, where one is asked for.
    pub jwt_issuer: Option<String>,
    /// The audience that a token must name.
    pub jwt_audience: Option<String>,
    /// The file with the frontend keys: the public keys of the app's backend, which registers devices under
    /// each policy and signs requests for them.
    pub frontend_key: Option<PathBuf>,
}

impl RegistrationPolicy {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Tofu => "tofu",
            Self::AllowList => "allow-list",
            Self::Jwt => "jwt",
        }
    }
}

impl RegistrationSettings {
    /// Whether the settings name files, which are read again while the server runs.
    #[must_use]
    pub fn has_files(&self) -> bool {
        self.policy != RegistrationPolicy::Tofu || self.frontend_key.is_some()
    }
}

/// A file of the operator's that cannot be used. The version read before stays in force.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// It cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It holds something else than it should.
    #[error("{}, line {line}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The fault.
        message: String,
    },
}

/// Why a device may not register.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAdmitted {
    /// The list does not have it.
    #[error("the key {key} is not listed for {pool}")]
    NotListed {
        /// The device.
        pool: PoolId,
        /// The key that would speak for it.
        key: SignatureKey,
    },
    /// Its token does not say so.
    #[error("the token in the Authorization header {0}")]
    Token(#[from] TokenError),
}

/// How a device comes to be registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The first device of a user, or one that another device vouches for.
    OfItself,
    /// The operator says so.
    ByOperator,
}

/// The registration policy and the frontend keys, by the files that were read last.
#[derive(Debug)]
pub(crate) struct Registrar {
    policy: PolicyFiles,
    frontends: Frontends,
}

impl Registrar {
    /// Reads the files that the settings name.
    pub(crate) fn open(
        settings: &RegistrationSettings,
        now: Timestamp,
    ) -> Result<Self, RegistrationError> {
        let frontends = Frontends::at(settings.frontend_key.clone());
        let registrar = Self { policy: PolicyFiles::of(settings, now), frontends };
        registrar.reload()?;
        Ok(registrar)
    }

    /// Reads the files again, and returns how many entries those of the policy have now; `None` if it has no
    /// file. Nothing changes if one of them cannot be used.
    pub(crate) fn reload(&self) -> Result<Option<usize>, RegistrationError> {
        let frontends = self.frontends.read()?;
        let entries = self.policy.reload()?;
        self.frontends.replace(frontends);
        Ok(entries)
    }

    /// Decides whether a key may be registered for a device, by the request's token.
    pub(crate) fn judge(
        &self,
        pool: &PoolId,
        key: &SignatureKey,
        authorization: Option<&str>,
        now: Timestamp,
    ) -> Result<Admission, NotAdmitted> {
        self.policy.judge(pool, key, authorization, now)
    }

    /// Whether a key is a frontend key.
    pub(crate) fn is_frontend(&self, key: &SignatureKey) -> bool {
        self.frontends.has(key)
    }

    /// How many frontend keys there are; `None` without a file of them.
    pub(crate) fn frontend_count(&self) -> Option<usize> {
        self.frontends.count()
    }
}

/// The files of a registration policy, as they were read last.
#[derive(Debug)]
enum PolicyFiles {
    Tofu,
    AllowList {
        path: PathBuf,
        list: RwLock<AllowList>,
    },
    /// The files of public keys and of a key set: one of them, or both.
    Jwt {
        keys: Option<PathBuf>,
        key_set: Option<PathBuf>,
        issuer: RwLock<Issuer>,
    },
}

impl PolicyFiles {
    /// The files that the settings name, not yet read.
    fn of(settings: &RegistrationSettings, now: Timestamp) -> Self {
        let path = |path: &Option<PathBuf>| path.clone().unwrap_or_default();
        match settings.policy {
            RegistrationPolicy::Tofu => Self::Tofu,
            RegistrationPolicy::AllowList => {
                Self::AllowList { path: path(&settings.allow_list), list: RwLock::default() }
            }
            RegistrationPolicy::Jwt => {
                let RegistrationSettings { jwt_key, jwt_jwks, jwt_issuer, jwt_audience, .. } =
                    settings.clone();
                let issuer = Issuer::of(jwt_audience.unwrap_or_default(), jwt_issuer, now);
                Self::Jwt { keys: jwt_key, key_set: jwt_jwks, issuer: RwLock::new(issuer) }
            }
        }
    }

    /// Reads the files again, and returns how many entries they have now; `None` if there is no file.
    fn reload(&self) -> Result<Option<usize>, RegistrationError> {
        match self {
            Self::Tofu => Ok(None),
            Self::AllowList { path, list } => {
                let read: AllowList = parsed(path, AllowList::parse)?;
                let count = read.len();
                *list.write().unwrap_or_else(PoisonError::into_inner) = read;
                Ok(Some(count))
            }
            Self::Jwt { keys, key_set, issuer } => {
                let keys = keys.as_ref().map(|path| parsed(path, token::public_keys));
                let keys = keys.transpose()?.unwrap_or_default();
                let key_set = key_set.as_ref().map(|path| parsed(path, KeySet::parse));
                let key_set = key_set.transpose()?.unwrap_or_default();
                let count = keys.len() + key_set.len();
                let mut issuer = issuer.write().unwrap_or_else(PoisonError::into_inner);
                (issuer.keys, issuer.key_set) = (keys, key_set);
                Ok(Some(count))
            }
        }
    }

    fn judge(
        &self,
        pool: &PoolId,
        key: &SignatureKey,
        authorization: Option<&str>,
        now: Timestamp,
    ) -> Result<Admission, NotAdmitted> {
        match self {
            Self::Tofu => Ok(Admission::OfItself),
            Self::AllowList { list, .. } => {
                let list = list.read().unwrap_or_else(PoisonError::into_inner);
                if list.has(pool, key) {
                    return Ok(Admission::ByOperator);
                }
                Err(NotAdmitted::NotListed { pool: pool.clone(), key: key.clone() })
            }
            Self::Jwt { issuer, .. } => {
                let issuer = issuer.read().unwrap_or_else(PoisonError::into_inner);
                issuer.check(authorization, &Claimed { user: pool.user(), key }, now)?;
                Ok(Admission::ByOperator)
            }
        }
    }
}

/// Parses a file.
fn parsed<T>(
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, (usize, String)>,
) -> Result<T, RegistrationError> {
    let path = path.to_owned();
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(RegistrationError::Unreadable { path, source }),
    };
    parse(&text).map_err(|(line, message)| RegistrationError::Malformed { path, line, message })
}
