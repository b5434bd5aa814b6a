//! New packages in the place of the live ones of their ciphersuites, or of all, with the device's next key.

use actix_web::{HttpResponse, web::Data};
use keypool_api::{
    Code, Outcome, PoolCounts, RotatePackagesReply, RotatePackagesRequest, UploadItem,
};
use keypool_projections::NextKey;

use super::{checked, item};
use crate::{
    authentication::UnregisteredCaller,
    problem::Failure,
    routes::devices::{agreed, declared},
    state::State,
};

/// How many leaf keys one request declares.
const LEAF_KEYS_MAX: usize = 4;

/// Takes packages into the caller's pool in the place of the live ones of the same ciphersuites, which are
/// withdrawn; those that are reserved can still be spent. All of it happens, or nothing.
///
/// A ciphersuite without an acceptable new package keeps its packages; if none of the new ones is acceptable
/// nothing changes, and the answer is a problem with the same `items`. With `key`, packages of every
/// ciphersuite are withdrawn, and the key that signs this request and the packages is registered for the device
/// as well, as by `POST /devices/rotate`: so the pool is never without packages.
#[utoipa::path(
    post, path = "/keypackages/rotate", tag = "keypackages",
    request_body = RotatePackagesRequest,
    responses(
        (status = 200, description = "At least one package was acceptable", body = RotatePackagesReply),
    ),
)]
pub(crate) async fn rotate(
    state: Data<State>,
    caller: UnregisteredCaller,
) -> Result<HttpResponse, Failure> {
    let RotatePackagesRequest { keypackages, key: change, leaf_keys } = caller.body.json()?;
    let packages = checked(keypackages, state.batch_packages_max)?;
    if LEAF_KEYS_MAX < leaf_keys.len() {
        let detail = format!("a device declares {LEAF_KEYS_MAX} leaf keys at most");
        return Err(Failure::new(Code::BadRequest, detail));
    }
    let (pool, next) = match change {
        Some(change) => {
            let key = caller.signer.own_key()?;
            let pool = agreed(&state, &change, &key)?;
            let declared = leaf_keys.iter().map(|asked| declared(&state, &pool, asked, &key));
            let next = NextKey {
                statement: change.signed(),
                credential: pool.user().to_owned(),
                leaf_keys: declared.collect::<Result<_, _>>()?,
                signature_key: key,
            };
            (pool, Some(next))
        }
        None => (caller.signer.device(&state)?.0, None),
    };
    let store = state.store()?;
    let replaced = store.replace_key_packages(&pool, next, packages, caller.idempotency).await?;
    let items: Vec<UploadItem> = replaced.items.into_iter().map(item).collect();
    let accepted = items.iter().filter(|item| item.outcome == Outcome::Stored).count() as u64;
    state.metrics.uploaded(accepted);
    for check in items.iter().filter_map(|item| item.check.as_deref()) {
        state.metrics.not_admitted(check);
    }
    if !items.iter().any(|item| is_acceptable(item.outcome)) {
        return Err(Failure::of_upload(items));
    }
    let (pool, position) = (PoolCounts::from(&replaced.health), replaced.position);
    let revoked = replaced.revoked;
    Ok(HttpResponse::Ok().json(RotatePackagesReply { accepted, items, revoked, pool, position }))
}

/// Whether a package can take the place of others: it is in the pool, and may still be used.
const fn is_acceptable(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Stored | Outcome::Duplicate | Outcome::Reserved => true,
        Outcome::Spent | Outcome::Expired | Outcome::Revoked | Outcome::Rejected => false,
    }
}
