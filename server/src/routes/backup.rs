//! The operator's route for backups: the running server copies its data into a directory of its machine.

use std::path::{Path, PathBuf};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Bytes, Data},
};
use keypool_api::Code;
use keypool_ledger::BackupError;
use serde::{Deserialize, Serialize};

use super::operator::json_body;
use crate::{
    backup_directory::{new_folder, remove_interrupted},
    problem::Failure,
    state::State,
};

/// The directory of the backup; without one it has a new folder of the directory of `--backups`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BackupRequest {
    directory: Option<PathBuf>,
}

/// The backup that was made.
#[derive(Debug, Serialize)]
pub(crate) struct BackupReply {
    pub(crate) directory: PathBuf,
    /// The position of the last record in it.
    pub(crate) position: u64,
    /// How many bytes its journal takes.
    pub(crate) bytes: u64,
}

/// Makes a backup, which holds everything that was acknowledged before the request.
pub(crate) async fn make(
    request: HttpRequest,
    state: Data<State>,
    body: Bytes,
) -> Result<HttpResponse, Failure> {
    let BackupRequest { directory } = json_body(&request, &body)?;
    let made = match directory {
        Some(directory) => back_up_to(&state, directory).await?,
        None => back_up_now(&state).await?,
    };
    Ok(HttpResponse::Ok().json(made))
}

/// Makes a backup in a new directory.
async fn back_up_to(state: &Data<State>, directory: PathBuf) -> Result<BackupReply, Failure> {
    if !directory.is_absolute() {
        let detail = format!("{} is no absolute path of the server's machine", directory.display());
        return Err(Failure::new(Code::BadRequest, detail));
    }
    working(state, move |state| copy_data(state, &directory)).await
}

/// Makes a backup in a new folder of the directory of `--backups`, named by the time. Once begun it goes on, also if
/// nobody waits for it.
///
/// # Errors
///
/// Returns a [`Failure`] if the operator has set no such directory, if a backup is being made in it, or if none can be
/// made there.
pub(crate) async fn back_up_now(state: &Data<State>) -> Result<BackupReply, Failure> {
    let Some(dir) = state.backups.path().map(Path::to_owned) else {
        let detail = "the server has no directory for backups: name a new directory for this one, or start the \
                      server with --backups DIR";
        let hint = "Start the server with --backups DIR, a directory outside of its data, best on another disk.";
        return Err(Failure::new(Code::NotAllowed, detail).hinting(Some(hint)));
    };
    let Some(turn) = state.backups.take_turn() else {
        let detail = format!("a backup is being made in {} at the moment", dir.display());
        let hint = "Wait until it is done: the server's log says so.";
        return Err(Failure::new(Code::Busy, detail).hinting(Some(hint)));
    };
    working(state, move |state| {
        let _turn = turn;
        remove_interrupted(&dir);
        copy_data(state, &new_folder(&dir, state.clock.now()))
    })
    .await
}

/// Does the work of a backup where it keeps no requests waiting.
async fn working(
    state: &Data<State>,
    work: impl FnOnce(&State) -> Result<BackupReply, Failure> + Send + 'static,
) -> Result<BackupReply, Failure> {
    state.store()?;
    let state = state.clone();
    let stopping = |_| Failure::new(Code::NotReady, "the server is stopping");
    web::block(move || work(&state)).await.map_err(stopping)?
}

fn copy_data(state: &State, to: &Path) -> Result<BackupReply, Failure> {
    let log = state.store()?.pools().log().inner().local();
    let made = log.backup(to, &state.data_files.beside(), &|| !state.is_stopping());
    let made = made.map_err(|error| refusal(&error))?;
    let (position, bytes) = (made.last_seq, made.bytes);
    tracing::info!(directory = %to.display(), position, bytes, "a backup was made");
    Ok(BackupReply { directory: to.to_owned(), position, bytes })
}

/// The answer to a backup that was not made: nothing has its name, and the log goes on.
fn refusal(error: &BackupError) -> Failure {
    let code = match error {
        BackupError::Destination { .. } | BackupError::NoRoom { .. } => Code::BadRequest,
        BackupError::Busy { .. } => Code::Busy,
        BackupError::Interrupted => Code::NotReady,
        BackupError::Log(_) | BackupError::Io { .. } => Code::Internal,
    };
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    let detail = causes.fold(error.to_string(), |detail, cause| format!("{detail}: {cause}"));
    tracing::warn!(detail, "no backup was made");
    Failure::new(code, detail)
}
