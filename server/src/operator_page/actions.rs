//! The actions of the operator's page.

use std::time::Duration;

use actix_rt::time::timeout;
use actix_web::web::Data;
use keypool_ledger::PruneReport;
use keypool_operator_page::Action;

use crate::{
    keypackage_store::StoreError,
    problem::Failure,
    pruning::prune_now,
    routes::{
        names::release_name,
        operator::remove,
        prune::refusal,
        revoke::{Revocation, revoke_package},
        suspensions::{block_user, unblock_user},
    },
    state::State,
};

/// How long a browser waits for the pruning, which goes on without it.
const PRUNING_WAIT: Duration = Duration::from_secs(20);

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
    }
}

fn at_record(user: &str, how: &str, position: Option<u64>) -> String {
    let record = position.map(|position| format!(", as record {position} of the log says"));
    format!("{user} is {how}{}", record.unwrap_or_default())
}

/// Prunes the log. It goes on where it takes longer than a browser waits.
async fn prune(state: &Data<State>) -> Result<String, Failure> {
    let pruning = state.clone();
    let mut task = actix_rt::spawn(async move { prune_now(&pruning).await });
    match timeout(PRUNING_WAIT, &mut task).await {
        Ok(Ok(pruned)) => {
            let PruneReport { segments, payload_bytes, .. } =
                pruned.map_err(|error| refusal(&error))?;
            Ok(format!(
                "{payload_bytes} bytes of payloads have left {segments} segments of the log"
            ))
        }
        Ok(Err(_)) => Err(StoreError::Cancelled.into()),
        Err(_) => Ok("the log is being pruned; the server's log says when that is done".to_owned()),
    }
}
