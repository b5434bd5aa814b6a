//! The operator's route for single packages: withdraws one of any pool.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Bytes, Data},
};
use keypool_ledger::{KeyPackageRef, PoolId, RevokeReason};
use keypool_projections::{Rejection, RevokeScope, Stage};
use serde::{Deserialize, Serialize};

use super::operator::json_body;
use crate::{
    keypackage_store::{Idempotency, StoreError},
    problem::Failure,
    state::State,
};

/// The package to withdraw.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RevocationRequest {
    keypackage_ref: KeyPackageRef,
}

/// The package that is withdrawn, and the end of its pool's history.
#[derive(Debug, Serialize)]
pub(crate) struct Revocation {
    pub(crate) keypackage_ref: KeyPackageRef,
    pub(crate) user: String,
    pub(crate) device: String,
    /// Whether this request withdrew it; false if it was withdrawn before.
    pub(crate) changed: bool,
    /// The position of the pool's last event in the log.
    pub(crate) position: u64,
}

/// Withdraws a package by the operator's word: it is handed to nobody any more.
pub(crate) async fn revoke(
    request: HttpRequest,
    state: Data<State>,
    body: Bytes,
) -> Result<HttpResponse, Failure> {
    let RevocationRequest { keypackage_ref } = json_body(&request, &body)?;
    Ok(HttpResponse::Ok().json(revoke_package(&state, &keypackage_ref).await?))
}

/// Withdraws a package, and says whose it was. One that was used or has expired stays as it is: that is refused.
pub(crate) async fn revoke_package(
    state: &Data<State>,
    keypackage_ref: &KeyPackageRef,
) -> Result<Revocation, Failure> {
    let (pool, stands) = standing_of(state, keypackage_ref).await?;
    match stands {
        Stage::Spent => return Err(Rejection::AlreadySpent(keypackage_ref.clone()).into()),
        Stage::Expired => return Err(Rejection::Expired(keypackage_ref.clone()).into()),
        Stage::Created | Stage::Available | Stage::Reserved | Stage::Revoked => {}
    }
    let which = RevokeScope::Refs(vec![keypackage_ref.clone()]);
    let (store, id) = (state.store()?, Idempotency::fresh());
    let withdrawn = store.revoke(&pool, which, RevokeReason::Operator, id).await?;
    if !withdrawn.refs.contains(keypackage_ref) {
        // It was used while the operator asked.
        return Err(Rejection::AlreadySpent(keypackage_ref.clone()).into());
    }
    let (changed, position) = (stands != Stage::Revoked, withdrawn.position);
    if changed {
        tracing::warn!(%pool, package = keypackage_ref.short(), "the operator withdrew a package");
    }
    let (user, device) = (pool.user().to_owned(), pool.device().to_owned());
    Ok(Revocation { keypackage_ref: keypackage_ref.clone(), user, device, changed, position })
}

/// The pool and the stage of a package, read where a disk may be waited for.
async fn standing_of(
    state: &Data<State>,
    keypackage_ref: &KeyPackageRef,
) -> Result<(PoolId, Stage), Failure> {
    let (state, asked) = (state.clone(), keypackage_ref.clone());
    let read = web::block(move || {
        let known = state.store()?.get_key_package(&asked)?;
        let (pool, package, _) = known.ok_or(Rejection::UnknownKeyPackage(asked))?;
        Ok((pool, package.stage))
    });
    read.await.map_err(|_| StoreError::Cancelled)?
}
