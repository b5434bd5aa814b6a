//! Authentication: each request is signed with the key that signs the device's packages.
//!
//! The body is read here too, within a size, a time and a budget, because its digest is signed as well. A
//! request is refused by its head where that is possible: size, syntax, time, authority, known key, limits
//! and signature are checked before the first byte of its body is read, its digest after.

mod body;
mod error;
mod signer;
#[cfg(test)]
mod tests;

use std::{future::Future, pin::Pin};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::{Method, header::HeaderMap},
};
use ed25519_dalek::{Signature, VerifyingKey};
use keypool_api::signing::{
    BodyParts, CALLER, ReceivedSignature, SignatureError, SignedParts, content_digest,
};
use keypool_ledger::{Hash, PoolId, SignatureKey, Timestamp};

pub(crate) use self::{
    body::{BodyBudget, ReceivedBody},
    error::AuthenticationError,
    signer::RequestSigner,
};
use self::{
    body::{BodyHead, read},
    signer::{frontend_device, is_frontend},
};
use crate::{
    keypackage_store::Idempotency,
    pools::ClockState,
    problem::Failure,
    request_log::note_caller,
    routes::{route_of, unversioned},
    state::State,
};

/// The header that names the caller where requests need not be signed.
const CALLER_HEADER: &str = "x-keypool-caller";

/// A reading request of a registered device.
#[derive(Debug)]
pub(crate) struct AuthenticatedRead {
    /// The pool of the device that asks.
    pub(crate) pool: PoolId,
    /// The key that signed it; none where requests need not be signed.
    pub(crate) key: Option<SignatureKey>,
}

impl AuthenticatedRead {
    /// Refuses a caller whose key has ceased to speak for the device, or whose user was blocked, while it was
    /// waiting.
    pub(crate) fn still_speaks(&self, state: &State) -> Result<(), Failure> {
        check_suspension(self.pool.user(), state)?;
        let Some(key) = &self.key else { return Ok(()) };
        let pools = state.store()?.pools();
        let still_speaks = match pools.pool_of_key(key) {
            Some(pool) => pool == self.pool,
            None => is_frontend(key, state) && pools.registered_key(&self.pool).is_some(),
        };
        if still_speaks {
            return Ok(());
        }
        Err(AuthenticationError::Unregistered(key.clone()).into())
    }
}

/// A request for a user's device list: of a registered device, or signed by that user's recovery key, whose
/// owner may have no device left.
#[derive(Debug)]
pub(crate) struct DeviceListRead {
    /// The user whose recovery key signed it; `None` for a registered device.
    recovers: Option<String>,
    key: Option<SignatureKey>,
}

impl DeviceListRead {
    /// Refuses a recovery key that asks for another user's devices.
    pub(crate) fn may_read(&self, user: &str) -> Result<(), Failure> {
        match (&self.recovers, &self.key) {
            (Some(own), Some(key)) if own != user => {
                Err(AuthenticationError::Unregistered(key.clone()).into())
            }
            _ => Ok(()),
        }
    }
}

/// A changing request of a registered device.
#[derive(Debug)]
pub(crate) struct AuthenticatedWrite {
    /// The pool of the device that asks.
    pub(crate) pool: PoolId,
    /// The idempotency key and digest, which make repeating the request safe.
    pub(crate) idempotency: Idempotency,
    /// The body.
    pub(crate) body: ReceivedBody,
}

/// A changing request signed by a key that need not be registered.
#[derive(Debug)]
pub(crate) struct UnregisteredCaller {
    /// The key that signed it, and the device that a frontend names.
    pub(crate) signer: RequestSigner,
    /// The idempotency key and digest, which make repeating the request safe.
    pub(crate) idempotency: Idempotency,
    /// The `Authorization` header, which the signature covers.
    pub(crate) authorization: Option<String>,
    /// The body.
    pub(crate) body: ReceivedBody,
}

/// Sender that a request claims to have.
#[derive(Clone, Debug, PartialEq, Eq)]
enum SenderClaim {
    /// The owner of a key, by a signature whose form and time fit.
    Signed(SignedClaim),
    /// Only where requests need not be signed.
    Named(PoolId),
}

/// A signature of a request that is not verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SignedClaim {
    received: ReceivedSignature,
    /// The bytes that are signed.
    base: String,
    /// The device that a frontend signs for; `None` if a user's own key signs.
    device: Option<PoolId>,
}

impl SignedClaim {
    /// Reads the signature of a request and checks its form.
    fn read(
        headers: &HeaderMap,
        parts: &SignedParts<'_>,
        now: Timestamp,
    ) -> Result<Self, AuthenticationError> {
        let input = header(headers, "signature-input")?.ok_or(AuthenticationError::Missing)?;
        let signature = header(headers, "signature")?.ok_or(AuthenticationError::Missing)?;
        let wrong = |error: SignatureError| AuthenticationError::of_signature(&error, now);
        let received = ReceivedSignature::parse(input, signature).map_err(wrong)?;
        let base = parts.base(&received.params);
        Ok(Self { received, base, device: None })
    }

    /// Checks that the signature covers the required parts of a request, and its time.
    fn check(&self, parts: &SignedParts<'_>, now: Timestamp) -> Result<(), AuthenticationError> {
        let wrong = |error: SignatureError| AuthenticationError::of_signature(&error, now);
        parts.check(&self.received, now).map_err(wrong)
    }

    const fn key(&self) -> &SignatureKey {
        &self.received.keyid
    }

    /// Verifies the signature, and returns the pool that the request acts for. An unregistered key is refused
    /// before, the device that a frontend names after it: nobody else learns which devices there are.
    ///
    /// The time that a registered device has signed counts as a second opinion on this machine's clock. A
    /// frontend is one machine, however many devices it signs for, and its time does not.
    fn verified_pool(
        &self,
        state: &State,
        verify: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<PoolId, Failure> {
        let Some(device) = &self.device else {
            let pool = pool_of(self.key(), state)?;
            verify()?;
            self.hear_time(&pool, state);
            return Ok(pool);
        };
        verify()?;
        match state.store()?.pools().registered_key(device) {
            Some(_) => Ok(device.clone()),
            None => Err(AuthenticationError::NoSuchDevice(device.clone()).into()),
        }
    }

    /// Hands the time that a registered device has signed to the clock guard.
    fn hear_time(&self, device: &PoolId, state: &State) {
        if let Ok(store) = state.store()
            && store.pools().check_caller(device.user()).is_ok()
        {
            store.pools().hear_time(device, self.received.created);
        }
    }

    fn verify(&self) -> Result<(), AuthenticationError> {
        verify_key(self.key(), self.base.as_bytes(), &self.received.signature)
    }
}

impl FromRequest for AuthenticatedRead {
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Failure>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let state = State::of(&request)?;
            match claim(&request, false, state)? {
                SenderClaim::Named(pool) => {
                    admit_caller(&request, &pool, state)?;
                    Ok(Self { pool, key: None })
                }
                SenderClaim::Signed(claim) => {
                    let pool = claim.verified_pool(state, || Ok(claim.verify()?))?;
                    admit_caller(&request, &pool, state)?;
                    Ok(Self { pool, key: Some(claim.received.keyid) })
                }
            }
        })
    }
}

impl FromRequest for DeviceListRead {
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Failure>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, mut payload) = (request.clone(), payload.take());
        Box::pin(async move {
            let state = State::of(&request)?;
            if let SenderClaim::Signed(claim) = claim(&request, false, state)?
                && let Some(user) = state.store()?.pools().user_of_recovery_key(claim.key())
            {
                claim.verify()?;
                check_suspension(&user, state)?;
                let key = Some(claim.received.keyid);
                return Ok(Self { recovers: Some(user), key });
            }
            let AuthenticatedRead { key, .. } =
                AuthenticatedRead::from_request(&request, &mut payload).await?;
            Ok(Self { recovers: None, key })
        })
    }
}

impl FromRequest for AuthenticatedWrite {
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Failure>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, payload) = (request.clone(), payload.take());
        Box::pin(async move {
            let state = State::of(&request)?;
            let head = BodyHead::of(&request, state.body_bytes_max)?;
            state.disk.check(&route_of(&request).unwrap_or_default())?;
            let claim = counted_claim(&request, state)?;
            let pool = match &claim {
                SenderClaim::Named(pool) => pool.clone(),
                SenderClaim::Signed(claim) => {
                    let verify = || counted_verify(claim, &request, true, state);
                    claim.verified_pool(state, verify)?
                }
            };
            admit_caller(&request, &pool, state)?;
            let key = head.idempotency_key;
            let body = read(head, payload, (true, state)).await?;
            check_body(&claim, &request, &body)?;
            let digest = request_digest(&request, &pool.to_string(), &body);
            Ok(Self { pool, idempotency: Idempotency { key, digest }, body })
        })
    }
}

impl FromRequest for UnregisteredCaller {
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Failure>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, payload) = (request.clone(), payload.take());
        Box::pin(async move {
            let state = State::of(&request)?;
            let head = BodyHead::of(&request, state.body_bytes_max)?;
            state.disk.check(&route_of(&request).unwrap_or_default())?;
            let claim = counted_claim(&request, state)?;
            let SenderClaim::Signed(presented) = &claim else {
                return Err(AuthenticationError::Missing.into());
            };
            let is_known = presented.device.is_some()
                || state.store()?.pools().pool_of_key(presented.key()).is_some();
            counted_verify(presented, &request, is_known, state)?;
            let signer = RequestSigner::of(presented);
            if let Ok((pool, _)) = signer.device(state) {
                admit_caller(&request, &pool, state)?;
            }
            let idempotency_key = head.idempotency_key;
            let authorization = header(request.headers(), "authorization")?.map(str::to_owned);
            let body = read(head, payload, (is_known, state)).await?;
            check_body(&claim, &request, &body)?;
            let digest = request_digest(&request, &signer.caller(), &body);
            let idempotency = Idempotency { key: idempotency_key, digest };
            Ok(Self { signer, idempotency, authorization, body })
        })
    }
}

/// Notes the device that asks, and refuses it if the operator has blocked its user.
fn admit_caller(request: &HttpRequest, pool: &PoolId, state: &State) -> Result<(), Failure> {
    note_caller(request, pool);
    check_suspension(pool.user(), state)
}

/// Refuses a blocked user.
fn check_suspension(user: &str, state: &State) -> Result<(), Failure> {
    Ok(state.store()?.pools().check_caller(user)?)
}

/// Reads who a changing request claims to be from. A malformed signature counts as a failure of its
/// address.
fn counted_claim(request: &HttpRequest, state: &State) -> Result<SenderClaim, Failure> {
    let claim = claim(request, true, state);
    if let Err(AuthenticationError::Bad(_) | AuthenticationError::Header(_)) = claim {
        count_failure(request, state)?;
    }
    Ok(claim?)
}

/// Verifies the signature of a changing request. A wrong one counts as a failure of its address. An address
/// with too many is not heard, unless the key is a registered one: others cannot lock its device out.
fn counted_verify(
    claim: &SignedClaim,
    request: &HttpRequest,
    is_registered: bool,
    state: &State,
) -> Result<(), Failure> {
    if !is_registered {
        state.addresses.may_fail(state.addresses.of(request), state.clock.now())?;
    }
    if let Err(error) = claim.verify() {
        count_failure(request, state)?;
        return Err(error.into());
    }
    Ok(())
}

/// Counts a wrong signature; refuses it as one too many if there were so many before.
fn count_failure(request: &HttpRequest, state: &State) -> Result<(), Failure> {
    let (address, now) = (state.addresses.of(request), state.clock.now());
    state.addresses.may_fail(address, now)?;
    state.addresses.failed(address, now);
    Ok(())
}

/// Reads who a request claims to be from, and checks everything that needs no cryptography.
fn claim(
    request: &HttpRequest,
    has_body: bool,
    state: &State,
) -> Result<SenderClaim, AuthenticationError> {
    let headers = request.headers();
    let authority = checked_authority(request, state)?;
    let is_unsigned = !headers.contains_key("signature-input") && !headers.contains_key(CALLER);
    if state.insecure_no_auth && is_unsigned {
        let caller = header(headers, CALLER_HEADER)?.ok_or(AuthenticationError::Unnamed)?;
        let pool = caller.parse::<PoolId>();
        return Ok(SenderClaim::Named(pool.map_err(|err| bad(&err.to_string()))?));
    }
    let query = format!("?{}", request.uri().query().unwrap_or_default());
    let parts = SignedParts {
        method: request.method().as_str(),
        authority: &authority,
        path: request.uri().path(),
        query: &query,
        body: if has_body { Some(body_parts(headers)?) } else { None },
        authorization: header(headers, "authorization")?,
        caller: header(headers, CALLER)?,
    };
    let now = state.clock.now();
    let claim = SignedClaim::read(headers, &parts, now)?;
    match claim.check(&parts, now) {
        Ok(()) => {
            let device = frontend_device(parts.caller, claim.key(), state)?;
            Ok(SenderClaim::Signed(SignedClaim { device, ..claim }))
        }
        Err(AuthenticationError::Clock { why, .. }) if is_in_doubt(state) => {
            // Whoever disagrees with this machine is heard too, and is not told its time.
            if let Ok(device) = pool_of(claim.key(), state)
                && claim.verify().is_ok()
            {
                claim.hear_time(&device, state);
            }
            Err(AuthenticationError::Clock { why, now: None })
        }
        Err(error) => Err(error),
    }
}

/// Whether this machine's clock is not trusted.
fn is_in_doubt(state: &State) -> bool {
    state.store().is_ok_and(|store| store.pools().clock_state() != ClockState::Fine)
}

fn body_parts(headers: &HeaderMap) -> Result<BodyParts<'_>, AuthenticationError> {
    Ok(BodyParts {
        content_type: header(headers, "content-type")?.unwrap_or_default(),
        content_digest: header(headers, "content-digest")?.unwrap_or_default(),
        idempotency_key: header(headers, "idempotency-key")?.unwrap_or_default(),
    })
}

/// Refuses a body other than the one that is signed.
fn check_body(
    claim: &SenderClaim,
    request: &HttpRequest,
    body: &ReceivedBody,
) -> Result<(), AuthenticationError> {
    if let SenderClaim::Named(_) = claim {
        return Ok(());
    }
    check_digest(request.headers(), &body.bytes)
}

fn check_digest(headers: &HeaderMap, body: &[u8]) -> Result<(), AuthenticationError> {
    if header(headers, "content-digest")?.unwrap_or_default() == content_digest(body) {
        return Ok(());
    }
    Err(bad("Content-Digest is not the SHA-256 of the body"))
}

fn bad(why: &str) -> AuthenticationError {
    AuthenticationError::Bad(why.to_owned())
}

/// Verifies the signature of a device's key.
fn verify_key(
    key: &SignatureKey,
    base: &[u8],
    signature: &[u8],
) -> Result<(), AuthenticationError> {
    let key: Result<[u8; 32], _> = key.as_bytes().try_into();
    let key = key.ok().and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok());
    let key = key.ok_or_else(|| bad("keyid is not an Ed25519 public key"))?;
    let signature = Signature::from_slice(signature);
    let signature = signature.map_err(|_| bad("an Ed25519 signature has 64 bytes"))?;
    key.verify_strict(base, &signature)
        .map_err(|_| bad("it does not verify with this key for this request"))
}

/// Whether some bytes are an Ed25519 public key.
pub(crate) fn is_public_key(key: &SignatureKey) -> bool {
    let key: Option<[u8; 32]> = key.as_bytes().try_into().ok();
    key.is_some_and(|key| VerifyingKey::from_bytes(&key).is_ok())
}

/// The pool that a key speaks for.
fn pool_of(key: &SignatureKey, state: &State) -> Result<PoolId, Failure> {
    let pool = state.store()?.pools().pool_of_key(key);
    pool.ok_or_else(|| AuthenticationError::Unregistered(key.clone()).into())
}

/// The authority the request was sent to, if it is one of this server's names.
///
/// The header alone proves nothing: it is signed, and it must be a name the operator has given.
fn checked_authority(request: &HttpRequest, state: &State) -> Result<String, AuthenticationError> {
    let sent = header(request.headers(), "host")?.unwrap_or_default().trim().to_ascii_lowercase();
    if state.public_names.contains(&sent) {
        return Ok(sent);
    }
    let sent = sent.chars().take(100).collect();
    Err(AuthenticationError::Authority { sent, known: state.public_names.join(", ") })
}

/// A header that may be there once.
fn header<'a>(
    headers: &'a HeaderMap,
    name: &'static str,
) -> Result<Option<&'a str>, AuthenticationError> {
    let mut values = headers.get_all(name);
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            value.to_str().map(Some).map_err(|_| AuthenticationError::Header(name))
        }
        (Some(_), Some(_)) => Err(AuthenticationError::Header(name)),
    }
}

/// The digest of a request: method, path without the version, caller and body, each with its length before it.
/// So a request that is repeated with the version is the same one.
fn request_digest(request: &HttpRequest, caller: &str, body: &ReceivedBody) -> Hash {
    let method: &Method = request.method();
    let path = unversioned(request.uri().path());
    let parts = [method.as_str().as_bytes(), path.as_bytes(), caller.as_bytes(), &body.bytes];
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend((part.len() as u64).to_be_bytes());
        bytes.extend(part);
    }
    Hash::of(&bytes)
}
