//! The operator's route for backups: the running server copies its data into a directory of its machine.

use std::path::PathBuf;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Bytes, Data},
};
use keypool_api::Code;
use keypool_ledger::BackupError;
use serde::{Deserialize, Serialize};

use super::operator::json_body;
use crate::{problem::Failure, state::State};

/// The directory of the backup.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BackupRequest {
    directory: PathBuf,
}

/// The backup that was made.
#[derive(Debug, Serialize)]
struct BackupReply {
    directory: PathBuf,
    /// The position of the last record in it.
    position: u64,
    /// How many bytes its journal takes.
    bytes: u64,
}

/// Makes a backup, which holds everything that was acknowledged before the request.
pub(crate) async fn make(
    request: HttpRequest,
    state: Data<State>,
    body: Bytes,
) -> Result<HttpResponse, Failure> {
    let BackupRequest { directory } = json_body(&request, &body)?;
    if !directory.is_absolute() {
        let detail = format!("{} is no absolute path of the server's machine", directory.display());
        return Err(Failure::new(Code::BadRequest, detail));
    }
    state.store()?;
    let to = directory.clone();
    let work = web::block(move || {
        let log = state.store()?.pools().log().inner().local();
        let made = log.backup(&to, &state.data_files.beside(), &|| !state.is_stopping());
        made.map_err(|error| refusal(&error))
    });
    let stopping = |_| Failure::new(Code::NotReady, "the server is stopping");
    let made = work.await.map_err(stopping)??;
    let (position, bytes) = (made.last_seq, made.bytes);
    tracing::info!(directory = %directory.display(), position, bytes, "a backup was made");
    Ok(HttpResponse::Ok().json(BackupReply { directory, position, bytes }))
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
