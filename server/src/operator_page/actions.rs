//! The actions of the operator's page.

use std::{future::Future, time::Duration};

use actix_rt::time::timeout;
use actix_web::web::Data;
use keypool_ledger::PruneReport;
use keypool_operator_page::Action;

use crate::{
    keypackage_store::StoreError,
    problem::Failure,
    pruning::prune_now,
    routes::{
        backup::{BackupReply, back_up_now},
        names::release_name,
        operator::remove,
        prune::refusal,
        revoke::{Revocation, revoke_package},
        suspensions::{block_user, unblock_user},
    },
    state::State,
};

/// How long a browser waits for work on the whole log, which goes on without it.
const BROWSER_WAIT: Duration = Duration::from_secs(20);

/// Carries out an action, and says how it went.
pub(crate) async fn carry_out(state: &Data<State>, action: &Action) -> Result<String, Failure> {
    match action {
        Action::RemoveDevice { device } => {
            let position = remove(state, device).await?;
            Ok(format!("{device} is removed, as record {position} of the log says"))
        }
        Action::ReleaseName { user } => {
            let devices = release_name(state, user).await?;
            let devices: Vec<String> = devices.iter().map(ToString::to_string).collect();
            let devices = devices.join(", ");
            if state.store()?.pools().suspension_of(user).is_some() {
                return Ok(format!(
                    "removed are {devices}; {user} is blocked, so nobody registers the name until you unblock {user}"
                ));
            }
            Ok(format!("the name {user} is free, and removed are {devices}"))
        }
        Action::BlockUser { user, reason } => {
            let outcome = block_user(state, user, reason.clone()).await?;
            Ok(at_record(
                user,
                if outcome.changed { "blocked" } else { "blocked already" },
                outcome.position,
            ))
        }
        Action::UnblockUser { user } => {
            let outcome = unblock_user(state, user).await?;
            let how = if outcome.changed { "unblocked" } else { "not blocked" };
            Ok(at_record(user, how, outcome.position))
        }
        Action::RevokePackage { keypackage_ref } => {
            let Revocation { user, device, changed, position, .. } =
                revoke_package(state, keypackage_ref).await?;
            let (of, how) = (keypackage_ref.short(), if changed { "" } else { " already" });
            Ok(format!("package {of} of {user}/{device} is withdrawn{how} (record {position})"))
        }
        Action::Prune => prune(state).await,
        Action::BackUp => back_up(state).await,
    }
}

fn at_record(user: &str, how: &str, position: Option<u64>) -> String {
    let record = position.map(|position| format!(", as record {position} of the log says"));
    format!("{user} is {how}{}", record.unwrap_or_default())
}

/// Prunes the log.
async fn prune(state: &Data<State>) -> Result<String, Failure> {
    let pruning = state.clone();
    let work = async move { prune_now(&pruning).await.map_err(|error| refusal(&error)) };
    let pruned = while_a_browser_waits(work).await?;
    Ok(match pruned {
        Some(PruneReport { segments, payload_bytes, .. }) => {
            format!("{payload_bytes} bytes of payloads have left {segments} segments of the log")
        }
        None => "the log is being pruned; the server's log says when that is done".to_owned(),
    })
}

/// Makes a backup in a new folder of the server's directory for backups.
async fn back_up(state: &Data<State>) -> Result<String, Failure> {
    let backing_up = state.clone();
    let made = while_a_browser_waits(async move { back_up_now(&backing_up).await }).await?;
    Ok(match made {
        Some(BackupReply { directory, position, bytes }) => {
            let directory = directory.display();
            format!("{directory} has the log up to record {position} ({bytes} bytes), checked")
        }
        None => "the backup is being made; the server's log says when that is done".to_owned(),
    })
}

/// Waits for work as long as a browser does; `None` if the work goes on without it.
async fn while_a_browser_waits<T: 'static>(
    work: impl Future<Output = Result<T, Failure>> + 'static,
) -> Result<Option<T>, Failure> {
    match timeout(BROWSER_WAIT, actix_rt::spawn(work)).await {
        Ok(Ok(done)) => done.map(Some),
        Ok(Err(_)) => Err(StoreError::Cancelled.into()),
        Err(_) => Ok(None),
    }
}
