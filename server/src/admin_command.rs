//! `keypool-server admin`: the operator's commands to a running server, at its own listener.

mod client;

mod report;

use std::path::{self, PathBuf};

use clap::{Args, Subcommand};
use keypool_ledger::{KeyPackageRef, PoolId};
use serde_json::json;

pub use self::client::{AdminAccess, AdminCommandError};

/// A command of the operator, and the way to the running server.
#[derive(Args, Clone, Debug)]
pub struct AdminCommand {
    /// The way to the running server.
    #[command(flatten)]
    pub access: AdminAccess,
    /// Print the answer as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// The command.
    #[command(subcommand)]
    pub verb: AdminVerb,
}

/// The operator's commands.
#[derive(Clone, Debug, Subcommand)]
pub enum AdminVerb {
    /// Ask whether the server is ready: a health check, which ends with 0 or 1
    Ready,
    /// List the pools of registered devices, the emptiest first
    Pools {
        /// Leave healthy pools out
        #[arg(long)]
        low: bool,
        /// How many pools are listed, 1000 at most
        #[arg(long, value_name = "COUNT", default_value_t = 100)]
        limit: usize,
    },
    /// Show the registered devices of a user and their pools
    Show {
        /// The user
        user: String,
    },
    /// Remove a device: its key is dead, and its packages are withdrawn
    RemoveDevice {
        /// The user
        user: String,
        /// The device
        device: String,
    },
    /// Let anyone register a name again whose user has lost every key: all its devices are removed first
    ReleaseName {
        /// The user
        user: String,
    },
    /// Erase a user from a log that hides names: the devices are removed, and the server begins anew and overwrites
    /// the names and packages
    EraseUser {
        /// The user
        user: String,
    },
    /// Refuse every request of a user's devices, and hand their packages to nobody, until the user is unblocked
    Block {
        /// The user
        user: String,
        /// Why, for those who read the log; the user is not told
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// End the block of a user
    Unblock {
        /// The user
        user: String,
    },
    /// List the users that are blocked
    Blocked,
    /// Withdraw one package: it is handed to nobody any more
    RevokePackage {
        /// The package's reference, in full
        keypackage_ref: KeyPackageRef,
    },
    /// Let payloads that are over leave the log now, and not at the next interval
    Prune,
    /// Make a backup of the data directory while the server runs
    Backup {
        /// A new directory of the server's machine, best on another disk; without it the backup gets a new folder
        /// of the server's --backups, named by the time
        dir: Option<PathBuf>,
    },
}

/// Makes a backup while the server runs: the same as `admin backup`.
#[derive(Args, Clone, Debug)]
pub struct BackupCommand {
    /// A new directory of the server's machine, best on another disk; without it the backup gets a new folder of the
    /// server's --backups, named by the time
    pub dir: Option<PathBuf>,
    /// The way to the running server.
    #[command(flatten)]
    pub access: AdminAccess,
}

impl From<BackupCommand> for AdminCommand {
    fn from(BackupCommand { dir, access }: BackupCommand) -> Self {
        Self { access, json: false, verb: AdminVerb::Backup { dir } }
    }
}

/// Lets anyone register a name again whose user has lost every key: the same as `admin release-name`.
#[derive(Args, Clone, Debug)]
pub struct ReleaseName {
    /// The user
    pub user: String,
    /// The way to the running server.
    #[command(flatten)]
    pub access: AdminAccess,
}

impl From<ReleaseName> for AdminCommand {
    fn from(ReleaseName { user, access }: ReleaseName) -> Self {
        Self { access, json: false, verb: AdminVerb::ReleaseName { user } }
    }
}

impl AdminCommand {
    /// Asks the server, and returns the text to print.
    ///
    /// # Errors
    ///
    /// Returns an [`AdminCommandError`] if the server cannot be asked or refuses; a refusal changes nothing.
    pub fn run(&self) -> Result<String, AdminCommandError> {
        let answer = match &self.verb {
            AdminVerb::Ready => self.access.ready()?,
            AdminVerb::Pools { low, limit } => {
                self.access.get(&format!("/pools?low={low}&limit={limit}"))?
            }
            AdminVerb::Show { user } => {
                let user = PoolId::of(user, None)?;
                self.access.get(&format!("/users/{}", user.user()))?
            }
            AdminVerb::RemoveDevice { user, device } => {
                let body = json!({ "user": user, "device": device });
                self.access.post("/devices/remove", &body)?
            }
            AdminVerb::ReleaseName { user } => {
                self.access.post("/names/release", &json!({ "user": user }))?
            }
            AdminVerb::EraseUser { user } => {
                self.access.post("/names/erase", &json!({ "user": user }))?
            }
            AdminVerb::Block { user, reason } => {
                self.access.post("/names/block", &json!({ "user": user, "reason": reason }))?
            }
            AdminVerb::Unblock { user } => {
                self.access.post("/names/unblock", &json!({ "user": user }))?
            }
            AdminVerb::Blocked => self.access.get("/names/blocked")?,
            AdminVerb::RevokePackage { keypackage_ref } => {
                let body = json!({ "keypackage_ref": keypackage_ref });
                self.access.post("/packages/revoke", &body)?
            }
            AdminVerb::Prune => self.access.post_at_length("/prune", &json!({}))?,
            AdminVerb::Backup { dir } => {
                let absolute = |dir: &PathBuf| path::absolute(dir).unwrap_or_else(|_| dir.clone());
                let body = json!({ "directory": dir.as_ref().map(absolute) });
                self.access.post_at_length("/backup", &body)?
            }
        };
        if self.json {
            return Ok(format!("{answer:#}\n"));
        }
        Ok(match &self.verb {
            AdminVerb::Ready => report::ready(&answer),
            AdminVerb::Pools { .. } => report::pools(&answer),
            AdminVerb::Show { user } => report::user(user, &answer),
            AdminVerb::RemoveDevice { user, device } => report::removed(user, device, &answer),
            AdminVerb::ReleaseName { user } => report::released(user, &answer),
            AdminVerb::EraseUser { user } => report::erased(user, &answer),
            AdminVerb::Block { user, .. } => report::blocked(user, &answer),
            AdminVerb::Unblock { user } => report::unblocked(user, &answer),
            AdminVerb::Blocked => report::blocked_users(&answer),
            AdminVerb::RevokePackage { .. } => report::revoked(&answer),
            AdminVerb::Prune => report::pruned(&answer),
            AdminVerb::Backup { .. } => report::backed_up(&answer),
        })
    }
}
