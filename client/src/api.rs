//! The server's API as functions: requests go out signed, answers and problems come back typed.
//!
//! The only place that knows HTTP. Every call that changes something carries an idempotency key, so a
//! call whose answer was lost is simply repeated: the server answers the repetition from its log.

mod delivery;

mod devices;

mod error;

mod ledger;

mod many;

mod policy;

mod reconciling;

mod sending;

pub(crate) mod stream;

use std::{
    fmt,
    sync::{Arc, RwLock, atomic::AtomicU64},
    time::Duration,
};

use backon::{ExponentialBuilder, Retryable};
use http::Method;
use keypool_api::{
    ClaimRequest, Code, DevicesReply, EventsReply, PoolStatus, Problem, RegisterReply,
    RegisterRequest, ReleaseReply, RenewReply, ReserveReply, ReserveRequest, RevokeReply,
    RevokeRequest, RotateRequest, SpendReply, SpendRequest, UploadReply, UploadRequest, Voucher,
    signing::content_digest,
};
use keypool_ledger::{Clock, CommandId, PoolId, Timestamp};
use serde::{Serialize, de::DeserializeOwned};
use url::Url;

pub use self::error::ApiError;
use crate::{DeviceIdentity, Transport, server_clock::ServerClock, transport::default_transport};

/// How long a request may take, in seconds, in addition to the wait that it asks of the server.
const TIMEOUT_S: u64 = 20;
/// How often a request is repeated when its answer was lost or the server was busy.
const RETRIES_MAX: usize = 3;
/// The longest wait before a repetition that the server may ask for, in seconds.
const RETRY_AFTER_MAX_S: u64 = 10;
/// How long a signature is valid, in seconds.
const SIGNATURE_VALID_S: u64 = 60;

/// The API of one server, for one device.
#[derive(Clone)]
pub struct ApiClient {
    transport: Arc<dyn Transport>,
    server: Url,
    authority: String,
    identity: DeviceIdentity,
    clock: Arc<ServerClock>,
    /// The place of the last Commit or message that was posted by these.
    posted: Arc<AtomicU64>,
    /// The last position that a server of a cluster has told; 0 if none has.
    position: Arc<AtomicU64>,
    /// The operator's word that the device may register, where there is one.
    token: Arc<RwLock<Option<String>>>,
}

impl ApiClient {
    /// The API of the server at an address such as `http://127.0.0.1:8080`. The clock is the device's: it is
    /// corrected by the server's time, which comes with each answer. See [`ApiClient::now`].
    ///
    /// # Errors
    ///
    /// Returns [`ApiError::Address`] or [`ApiError::Client`]. Nothing is sent.
    pub fn new(
        server: &str,
        identity: DeviceIdentity,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ApiError> {
        let transport = default_transport().map_err(ApiError::Client)?;
        Self::over(transport, server, identity, clock)
    }

    /// As [`ApiClient::new`], over a way of the app's.
    ///
    /// # Errors
    ///
    /// Returns [`ApiError::Address`]. Nothing is sent.
    pub fn over(
        transport: Arc<dyn Transport>,
        server: &str,
        identity: DeviceIdentity,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ApiError> {
        let address = || ApiError::Address(server.to_owned());
        let server = Url::parse(server).map_err(|_| address())?;
        let host = server.host_str().ok_or_else(address)?.to_ascii_lowercase();
        // The rules of a browser for hosts take more than those of HTTP.
        let is_uri = server.as_str().parse::<http::Uri>().is_ok();
        if !matches!(server.scheme(), "http" | "https") || !is_bare(&server) || !is_uri {
            return Err(address());
        }
        let authority = server.port().map_or(host.clone(), |port| format!("{host}:{port}"));
        let clock = Arc::new(ServerClock::new(clock));
        Ok(Self {
            transport,
            server,
            authority,
            identity,
            clock,
            posted: Arc::default(),
            position: Arc::default(),
            token: Arc::default(),
        })
    }

    /// Whose requests these are.
    #[must_use]
    pub fn caller(&self) -> &PoolId {
        self.identity.pool()
    }

    /// The server's address.
    #[must_use]
    pub fn server(&self) -> &str {
        self.server.as_str()
    }

    /// Lets the device's key speak for it. Repeating it is harmless. If the user has a device already, one
    /// of theirs must have vouched for this one.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]; its code is `identity_bound` if another key has the name, or if the user
    /// has a device and none has vouched.
    pub async fn register(
        &self,
        voucher: Option<Voucher>,
        id: CommandId,
    ) -> Result<RegisterReply, ApiError> {
        let pool = self.identity.pool();
        let request = RegisterRequest {
            user: pool.user().to_owned(),
            device: Some(pool.device().to_owned()),
            voucher,
            keyid: None,
        };
        let (body, token) = (Some(Body::json(&request, id)), self.token());
        let call = Call { body, authorization: token, ..Call::to(Method::POST, "/devices") };
        self.repeated(&call).await
    }

    /// The registered devices of a user.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]; its code is `unknown_user` if nobody of that name is registered.
    pub async fn devices_of(&self, user: &str) -> Result<Vec<PoolId>, ApiError> {
        let reply = self.device_list(user).await?;
        let devices = reply.devices.devices.iter().map(|device| PoolId::new(user, device));
        Ok(devices.collect::<Result<_, _>>()?)
    }

    /// A user's device list, with its head and the ledger: statements are made on these.
    ///
    /// # Errors
    ///
    /// As [`ApiClient::devices_of`].
    pub async fn device_list(&self, user: &str) -> Result<DevicesReply, ApiError> {
        self.get(&self.path_of(&["users", user, "devices"])?, "").await
    }

    /// The same server, spoken to by somebody else.
    pub(crate) fn speaking_as(&self, identity: DeviceIdentity) -> Self {
        Self { identity, ..self.clone() }
    }

    /// Lets the key that speaks here take the place of the device's key before, which has agreed.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]; its code is `identity_bound` if the key before is not the device's.
    pub(crate) async fn rotate(
        &self,
        request: &RotateRequest,
        id: CommandId,
    ) -> Result<RegisterReply, ApiError> {
        self.post("/devices/rotate", request, id).await
    }

    /// Uploads packages. Each item of the reply is the verdict on the package at its place.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]; if the server took none of them, its problem carries the items.
    pub async fn upload(
        &self,
        packages: &UploadRequest,
        id: CommandId,
    ) -> Result<UploadReply, ApiError> {
        self.post("/keypackages/upload", packages, id).await
    }

    /// Reserves a package of somebody. The same reservation id gets the same package again.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]; its code is `pool_exhausted` if nothing is left to hand out.
    pub async fn reserve(
        &self,
        request: &ReserveRequest,
        id: CommandId,
    ) -> Result<ReserveReply, ApiError> {
        self.post("/keypackages/reserve", request, id).await
    }

    /// Asks for more time for a reservation; to be called right before the Commit is posted.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]; its code is `reservation_lost` if the reservation has ended.
    pub async fn renew(&self, claim: &ClaimRequest, id: CommandId) -> Result<RenewReply, ApiError> {
        self.post("/keypackages/renew", claim, id).await
    }

    /// Gives a reserved package back.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]; its code is `already_spent` if the reservation has spent it.
    pub async fn release(
        &self,
        claim: &ClaimRequest,
        id: CommandId,
    ) -> Result<ReleaseReply, ApiError> {
        self.post("/keypackages/release", claim, id).await
    }

    /// Uses a reserved package up; to be called once the Commit is accepted.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]; its code is `reservation_lost` if the package was handed on.
    pub async fn spend(
        &self,
        request: &SpendRequest,
        id: CommandId,
    ) -> Result<SpendReply, ApiError> {
        self.post("/keypackages/spend", request, id).await
    }

    /// Withdraws packages of the own pool.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`].
    pub async fn revoke(
        &self,
        request: &RevokeRequest,
        id: CommandId,
    ) -> Result<RevokeReply, ApiError> {
        self.post("/keypackages/revoke", request, id).await
    }

    /// How full the own pool is.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`].
    pub async fn status(&self) -> Result<PoolStatus, ApiError> {
        self.get("/keypackages/status", "").await
    }

    /// How full the own pool is, asked by a refresh: its number among those of this home, and a fresh id. The answer
    /// says whether another copy of the home refreshes as well.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`].
    pub(crate) async fn status_at_refresh(
        &self,
        (number, id): (u64, CommandId),
    ) -> Result<PoolStatus, ApiError> {
        self.get("/keypackages/status", &format!("refresh={number}&refresh_id={}", id.0)).await
    }

    /// The own pool's history after a version, at most `limit` events of it.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`].
    pub async fn events(&self, after: u64, limit: u64) -> Result<EventsReply, ApiError> {
        self.get("/keypackages/events", &format!("after={after}&limit={limit}")).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &str) -> Result<T, ApiError> {
        self.repeated(&Call { query, ..Call::to(Method::GET, path) }).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        id: CommandId,
    ) -> Result<T, ApiError> {
        let body = Some(Body::json(body, id));
        self.repeated(&Call { body, ..Call::to(Method::POST, path) }).await
    }

    /// Sends a call, and again while its answer is not known. Each time it is signed anew.
    async fn repeated<T: DeserializeOwned>(&self, call: &Call<'_>) -> Result<T, ApiError> {
        let pauses = ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(Duration::from_millis(100))
            .with_max_times(RETRIES_MAX);
        (|| self.sent_in_time(call))
            .retry(pauses)
            .when(ApiError::is_unanswered)
            .adjust(|err, pause| pause.map(|pause| pause.max(asked_to_wait(err))))
            .notify(|err, pause| tracing::debug!(%err, ?pause, path = call.path, "repeating"))
            .await
    }

    /// The server's time, as far as it is known: the device's clock, corrected by the server's answers. It dates
    /// all that this device makes and judges. A difference of more than a day is corrected once the server has
    /// shown it by the key of its ledger.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The error for a refusal. A server that has nothing at a route of this client serves an older version.
    fn refused(&self, problem: Problem) -> ApiError {
        match problem.code {
            Code::NotFound => ApiError::Outdated { server: self.server.to_string() },
            _ => ApiError::Refused(Box::new(problem)),
        }
    }

    pub(crate) fn clock(&self) -> &Arc<ServerClock> {
        &self.clock
    }
}

/// A call as it is sent, each time the same but for the signature.
struct Call<'a> {
    method: Method,
    path: &'a str,
    query: &'a str,
    body: Option<Body>,
    /// How long the server is asked to wait before it answers.
    wait: Duration,
    /// The `Authorization` header, which is signed as well.
    authorization: Option<String>,
}

impl<'a> Call<'a> {
    /// One without a query and a body.
    const fn to(method: Method, path: &'a str) -> Self {
        Self { method, path, query: "", body: None, wait: Duration::ZERO, authorization: None }
    }
}

struct Body {
    bytes: Vec<u8>,
    digest: String,
    key: String,
}

impl Body {
    fn json(value: &impl Serialize, id: CommandId) -> Self {
        // The wire types are plain data: writing them as JSON cannot fail.
        Self::of(serde_json::to_vec(value).unwrap_or_default(), id)
    }

    fn of(bytes: Vec<u8>, id: CommandId) -> Self {
        Self { digest: content_digest(&bytes), bytes, key: id.to_string() }
    }
}

/// Whether an address has nothing beyond its host and port: signatures cover everything after them.
fn is_bare(server: &Url) -> bool {
    let nothing = (server.query(), server.fragment(), server.password());
    nothing == (None, None, None) && server.path() == "/" && server.username().is_empty()
}

/// How long the server asks to wait before the request is repeated.
fn asked_to_wait(err: &ApiError) -> Duration {
    let asked = match err {
        ApiError::Refused(problem) => problem.retry_after_s.unwrap_or_default(),
        _ => 0,
    };
    Duration::from_secs(asked.min(RETRY_AFTER_MAX_S))
}

impl fmt::Debug for ApiClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (server, caller) = (self.server(), self.caller());
        f.debug_struct("ApiClient").field("server", &server).field("caller", caller).finish()
    }
}
