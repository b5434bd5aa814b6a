//! Reconciliation of the server's and the owner's live packages over HTTP.

use actix_web::{HttpResponse, web::Data};
use keypool_api::{Code, PackageState, ReconcileReply, ReconcileRequest, ReconciledPackage};
use keypool_ledger::KeyPackageRef;
use keypool_projections::Stage;

use crate::{
    authentication::AuthenticatedWrite, keypackage_store::Held, problem::Failure, state::State,
};

/// How many packages one request may name: each that is not live is looked up in the log.
const REFS_MAX: usize = 256;

/// Compares the caller's pool with the packages that the caller takes to be live. Nothing is changed.
#[utoipa::path(
    post, path = "/keypackages/reconcile", tag = "keypackages",
    params(("Idempotency-Key" = uuid::Uuid, Header, description = "A UUID; nothing is kept of it, since nothing is changed")),
    request_body = ReconcileRequest,
    responses((status = 200, description = "What differs", body = ReconcileReply)),
)]
pub(crate) async fn reconcile(
    state: Data<State>,
    caller: AuthenticatedWrite,
) -> Result<HttpResponse, Failure> {
    let ReconcileRequest { digest, keypackage_refs } = caller.body.json()?;
    let held = match (digest, keypackage_refs) {
        (Some(digest), None) => Held::Digest(digest),
        (None, Some(refs)) if REFS_MAX < refs.len() => {
            let count = refs.len();
            let detail =
                format!("the request names {count} packages; at most {REFS_MAX} at a time");
            let hint = "Name fewer packages at a time, or send the digest of all.";
            return Err(Failure::new(Code::TooLarge, detail).hinting(Some(hint)));
        }
        (None, Some(refs)) => Held::Refs(refs.into_iter().collect()),
        _ => {
            let detail = "exactly one of digest and keypackage_refs says what is held";
            return Err(Failure::new(Code::BadRequest, detail));
        }
    };
    let reconciled = state.store()?.reconcile(&caller.pool, &held).await?;
    let (unnamed, missing) = (reconciled.only_here.into_iter(), reconciled.only_there.into_iter());
    Ok(HttpResponse::Ok().json(ReconcileReply {
        agrees: reconciled.agrees,
        digest: reconciled.digest,
        version: reconciled.version,
        only_here: unnamed.map(|(live, stage)| package(live, Some(stage))).collect(),
        only_there: missing.map(|(gone, stage)| package(gone, stage)).collect(),
    }))
}

fn package(keypackage_ref: KeyPackageRef, fate: Option<Stage>) -> ReconciledPackage {
    let state = fate.map_or(PackageState::Unknown, PackageState::from);
    ReconciledPackage { keypackage_ref, state }
}
