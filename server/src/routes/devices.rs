//! Registration: which key speaks for which device.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use keypool_api::{
    Code, CredentialRequest, DeclaredReply, LeafKeyReply, LeafKeyRequest, RegisterReply,
    RegisterRequest, RemoveReply, RemoveRequest, RotateRequest, has_signed,
};
use keypool_ledger::{PoolId, Signature, SignatureKey, SignedStatement};
use keypool_projections::LeafKey;

use super::erasure;
use crate::{
    admission::is_credential,
    authentication::{RequestSigner, UnregisteredCaller, is_public_key},
    keypackage_store::Idempotency,
    pools::PoolView,
    problem::Failure,
    registration::Admission,
    state::{State, Store},
};

/// The signature schemes whose keys are declared: that of ciphersuite 2, ECDSA over P-256, and that of the
/// registered keys, Ed25519, for packages that another key signs.
const LEAF_SCHEMES: [u16; 2] = [0x0403, 0x0807];

/// Lets the key that signs this request speak for a device.
///
/// The operator decides who may register (`--registration`). By default the first key to register a name has it,
/// and another device of the user needs a voucher of one that is registered. Registering again with the
/// same key changes nothing.
#[utoipa::path(
    post, path = "/devices", tag = "devices",
    request_body = RegisterRequest,
    responses(
        (status = 201, description = "Registered", body = RegisterReply),
        (status = 200, description = "Was registered before", body = RegisterReply),
    ),
)]
pub(crate) async fn register(
    request: HttpRequest,
    state: Data<State>,
    caller: UnregisteredCaller,
) -> Result<HttpResponse, Failure> {
    let RegisterRequest { user, device, voucher, keyid } = caller.body.json()?;
    let pool = PoolId::of(&user, device.as_deref())?;
    erasure::check_name(&state, pool.user()).await?;
    let keyid = key_to_register(&state, &caller.signer, (&pool, keyid))?;
    if let Some(voucher) = &voucher {
        let statement = voucher.statement(&state.ledger_id()?, &pool, &keyid);
        check_proof(&voucher.keyid, &statement, &voucher.proof, "voucher")?;
    }
    let (store, idempotency) = (state.store()?, caller.idempotency);
    let keys = (keyid.clone(), voucher.map(|voucher| voucher.signed()));
    let (known, position) = if let RequestSigner::Frontend { frontend, .. } = caller.signer {
        store.admit_by_frontend(&pool, keys, frontend, idempotency).await?
    } else {
        let authorization = caller.authorization.as_deref();
        let admission = if is_settled(&state, &pool, &keyid, idempotency).await? {
            Admission::OfItself
        } else {
            let judged = state.registrar.judge(&pool, &keyid, authorization, state.clock.now());
            let judged = judged.map_err(|error| Failure::of_registration(&error))?;
            state.addresses.register(state.addresses.of(&request), state.clock.now())?;
            judged
        };
        match admission {
            Admission::OfItself => store.register(&pool, keys, idempotency).await?,
            Admission::ByOperator => store.admit_device(&pool, keys, idempotency).await?,
        }
    };
    let (user, device) = (pool.user().to_owned(), pool.device().to_owned());
    let reply = RegisterReply { user, device, keyid, position };
    Ok(if known { HttpResponse::Ok().json(reply) } else { HttpResponse::Created().json(reply) })
}

/// The key that a request registers: the one that signs it, or the one that a frontend names.
fn key_to_register(
    state: &State,
    signer: &RequestSigner,
    (pool, named): (&PoolId, Option<SignatureKey>),
) -> Result<SignatureKey, Failure> {
    let bad_request = |detail: &str| Failure::new(Code::BadRequest, detail);
    match (signer, named) {
        (RequestSigner::Own(key), None) => Ok(key.clone()),
        (RequestSigner::Own(_), Some(_)) => Err(bad_request(
            "keyid is for frontends: without one the key that signs the request is registered; leave it out",
        )),
        (RequestSigner::Frontend { device, .. }, _) if device != pool => {
            let detail =
                format!("Keypool-Caller names {device}, and the body {pool}: name one device");
            Err(bad_request(&detail))
        }
        (RequestSigner::Frontend { .. }, None) => Err(bad_request(
            "keyid is missing: name the device's own key, which signs its packages",
        )),
        (RequestSigner::Frontend { .. }, Some(key)) if !is_public_key(&key) => {
            Err(bad_request("keyid is not an Ed25519 public key"))
        }
        (RequestSigner::Frontend { .. }, Some(key)) => {
            refuse_frontend(state, &key)?;
            Ok(key)
        }
    }
}

/// Refuses to make a frontend key the key of a device or a recovery key.
pub(super) fn refuse_frontend(state: &State, key: &SignatureKey) -> Result<(), Failure> {
    if state.registrar.is_frontend(key) {
        let detail = format!(
            "{key} is a frontend key, and so no device's and no recovery key; make another"
        );
        return Err(Failure::new(Code::NotAllowed, detail));
    }
    Ok(())
}

/// Decides whether the log answers a registration: the key is registered already, or this very request was
/// carried out before.
pub(super) async fn is_settled(
    state: &State,
    pool: &PoolId,
    key: &SignatureKey,
    idempotency: Idempotency,
) -> Result<bool, Failure> {
    let pools = state.store()?.pools();
    Ok(pools.pool_of_key(key).as_ref() == Some(pool)
        || carried_out_on(state, idempotency).await?.is_some())
}

/// Removes a device of the caller's user: no key speaks for it any more, and none that did ever will again.
/// Its packages are withdrawn, its mailbox is closed, and it is a member of no group of the delivery.
///
/// Its reserved packages can still be spent. Its name stays the user's: it is registered again, with a new
/// key, by a voucher of another of their devices. The answer names the devices that it had vouched for.
#[utoipa::path(
    post, path = "/devices/remove", tag = "devices",
    request_body = RemoveRequest,
    responses((status = 200, description = "It is removed", body = RemoveReply)),
)]
pub(crate) async fn remove(
    state: Data<State>,
    caller: UnregisteredCaller,
) -> Result<HttpResponse, Failure> {
    let RemoveRequest { device } = caller.body.json()?;
    let store = state.store()?;
    let (pool, by) = match caller.signer.device(&state) {
        Ok((caller, key)) => (PoolId::new(caller.user(), &device)?, key),
        // A device that has removed itself, and has not heard of it.
        Err(unregistered) => match carried_out_on(&state, caller.idempotency).await? {
            Some(pool) => (pool, caller.signer.key().clone()),
            None => return Err(unregistered),
        },
    };
    let position = store.remove_device(&pool, by, caller.idempotency).await?;
    let introduced = introduced_by(store, &pool).await;
    let (user, device) = (pool.user().to_owned(), pool.device().to_owned());
    Ok(HttpResponse::Ok().json(RemoveReply { user, device, removed: true, introduced, position }))
}

/// The registered devices of a user that a device has vouched for, directly or through others.
async fn introduced_by(store: &Store, pool: &PoolId) -> Vec<String> {
    let mut devices = Vec::new();
    for device in store.pools().devices_of(pool.user()) {
        devices.push((store.load_view(&device).await, device));
    }
    let keys_of = |view: &PoolView| {
        let now = view.state.registration().map(|registered| registered.signature_key.clone());
        view.state.identity().retired.iter().cloned().chain(now).collect::<Vec<_>>()
    };
    let own = store.load_view(pool).await;
    let mut keys = keys_of(&own);
    let mut found: Vec<String> = Vec::new();
    loop {
        let next = devices.iter().find(|(view, device)| {
            let voucher = view.state.registration().and_then(|known| known.voucher.as_ref());
            device != pool
                && !found.iter().any(|known| known == device.device())
                && voucher.is_some_and(|key| keys.contains(key))
        });
        let Some((view, device)) = next else { return found };
        keys.extend(keys_of(view));
        found.push(device.device().to_owned());
    }
}

/// Declares the key that signs the device's packages of another signature scheme.
///
/// The first package of that scheme can be uploaded then. While packages that one key has signed are live,
/// no other is declared; `POST /keypackages/rotate` brings another along with another key of the device.
#[utoipa::path(
    post, path = "/devices/leaf-key", tag = "devices",
    request_body = LeafKeyRequest,
    responses(
        (status = 200, description = "The key signs the device's packages of its scheme", body = LeafKeyReply),
    ),
)]
pub(crate) async fn leaf_key(
    state: Data<State>,
    caller: UnregisteredCaller,
) -> Result<HttpResponse, Failure> {
    let asked: LeafKeyRequest = caller.body.json()?;
    let (pool, key) = caller.signer.device(&state)?;
    let declared = declared(&state, &pool, &asked, &key)?;
    let position = state.store()?.declare_leaf_key(&pool, declared, caller.idempotency).await?;
    Ok(HttpResponse::Ok().json(LeafKeyReply { position }))
}

/// Declares the credential that the device's packages carry, in the place of the Basic credential that names
/// the device. It may be of any type.
///
/// While packages with another credential are live, no other is declared. It stays when the device's key is
/// rotated, and ends when the device is removed.
#[utoipa::path(
    post, path = "/devices/credential", tag = "devices",
    request_body = CredentialRequest,
    responses((status = 200, description = "The device's packages carry it", body = DeclaredReply)),
)]
pub(crate) async fn credential(
    state: Data<State>,
    caller: UnregisteredCaller,
) -> Result<HttpResponse, Failure> {
    let asked: CredentialRequest = caller.body.json()?;
    let (pool, key) = caller.signer.device(&state)?;
    if !is_credential(&asked.credential) {
        let detail =
            "credential is not exactly one Credential of RFC 9420: its type and one vector";
        return Err(Failure::new(Code::BadRequest, detail));
    }
    let statement = asked.statement(&state.ledger_id()?, &pool, &key);
    check_proof(&key, &statement, &asked.proof, "declaration of the credential")?;
    let declared = (asked.signed(&key), asked.credential);
    let position = state.store()?.declare_credential(&pool, declared, caller.idempotency).await?;
    Ok(HttpResponse::Ok().json(DeclaredReply { position }))
}

/// A leaf key and the statement of a device's key that declares it.
pub(crate) fn declared(
    state: &State,
    pool: &PoolId,
    asked: &LeafKeyRequest,
    by: &SignatureKey,
) -> Result<(SignedStatement, LeafKey), Failure> {
    if !LEAF_SCHEMES.contains(&asked.signature_scheme) {
        let detail = "the scheme is that of no ciphersuite here: 0x0403 and 0x0807 are";
        return Err(Failure::new(Code::BadRequest, detail));
    }
    let statement = asked.statement(&state.ledger_id()?, pool, by);
    check_proof(by, &statement, &asked.proof, "declaration of the leaf key")?;
    let signature_key = asked.leaf_keyid.clone();
    let leaf_key = LeafKey { signature_scheme: asked.signature_scheme, signature_key };
    Ok((asked.signed(by), leaf_key))
}

/// Refuses a statement that the key it names has not signed for this ledger.
pub(super) fn check_proof(
    by: &SignatureKey,
    statement: &[u8],
    proof: &Signature,
    what: &str,
) -> Result<(), Failure> {
    if has_signed(by, statement, proof) {
        return Ok(());
    }
    let detail = format!(
        "the {what} is not a signature by the key it names, for this device, in this ledger, on the head and \
         until the time it names"
    );
    Err(Failure::new(Code::NotAllowed, detail))
}

/// The pool that a request with this idempotency key was carried out on. If that was another request, the
/// pools refuse this one.
async fn carried_out_on(
    state: &State,
    idempotency: Idempotency,
) -> Result<Option<PoolId>, Failure> {
    let recorded = state.store()?.first_record(idempotency.key).await?;
    Ok(recorded.and_then(|first| first.envelope.stream.pool().cloned()))
}

/// Lets the key that signs this request speak for a device, in place of the one before, which has agreed.
///
/// The packages that the one before has signed are withdrawn with it; those that are reserved can still be
/// spent. Asking again changes nothing.
#[utoipa::path(
    post, path = "/devices/rotate", tag = "devices",
    request_body = RotateRequest,
    responses((status = 200, description = "The key speaks for the device", body = RegisterReply)),
)]
pub(crate) async fn rotate(
    state: Data<State>,
    caller: UnregisteredCaller,
) -> Result<HttpResponse, Failure> {
    let asked: RotateRequest = caller.body.json()?;
    let keyid = caller.signer.own_key()?;
    let pool = agreed(&state, &asked, &keyid)?;
    let keys = (asked.signed(), keyid.clone());
    let (_, position) = state.store()?.rotate(&pool, keys, caller.idempotency).await?;
    let (user, device) = (pool.user().to_owned(), pool.device().to_owned());
    Ok(HttpResponse::Ok().json(RegisterReply { user, device, keyid, position }))
}

/// The device for which the previous key has agreed to be followed by this one.
pub(crate) fn agreed(
    state: &State,
    asked: &RotateRequest,
    key: &SignatureKey,
) -> Result<PoolId, Failure> {
    let pool = PoolId::of(&asked.user, asked.device.as_deref())?;
    let statement = asked.statement(&state.ledger_id()?, &pool, key);
    check_proof(&asked.previous_keyid, &statement, &asked.proof, "rotation")?;
    Ok(pool)
}
