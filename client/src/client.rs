//! What an app embeds: one device, its groups, its pool, and the way to invite and to be invited.

use std::{path::Path, sync::Arc};

use keypool_ledger::{Clock, EventEnvelope, GroupId, KeyPackageRef, PoolId, StreamId, Timestamp};
use keypool_projections::{
    Moment, timeline,
    wire::{PoolStatus, RegisterReply},
};

use crate::{
    ApiClient, ApiError, ConfigError, DeliveryService, DeviceIdentity, GroupError, GroupMember,
    IdentityError, InviteError, Invited, JoinError, Joined, KeyPackagePool, LocalStore,
    MessageError, MlsConnection, MlsMembership, PoolConfig, Received, Refresh, RefreshError,
    StorageError, mls::invite::Inviter, storage::fresh_command,
};

/// How many events of a history are read at a time.
const PAGE: usize = 1000;

/// One device: its keys and groups in a home folder, its pool at a server, its messages by the app's
/// Delivery Service.
///
/// Nothing runs in the background. MLS computes and the disk is written on the caller's thread; each
/// call takes milliseconds, and more in groups of hundreds.
#[derive(Debug)]
pub struct MlsClient<D> {
    store: Arc<LocalStore>,
    identity: DeviceIdentity,
    membership: MlsMembership,
    connection: MlsConnection<D>,
    clock: ClockHandle,
}

/// Why a device's home could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The device's keys cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The server's address is not one, or no HTTP client can be made.
    #[error(transparent)]
    Api(#[from] ApiError),
}

/// A clock, which prints nothing of itself.
struct ClockHandle(Arc<dyn Clock>);

impl std::fmt::Debug for ClockHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

impl<D: DeliveryService> MlsClient<D> {
    /// Opens a device's home, and makes its keys if it has none. Nothing is sent.
    ///
    /// # Errors
    ///
    /// Returns an [`OpenError`] if the home cannot be used, the configuration contradicts itself, or
    /// the address is not one of a server.
    pub fn open(
        home: &Path,
        owner: &PoolId,
        server: &str,
        delivery: D,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        Self::open_with(home, owner, server, delivery, (clock, PoolConfig::default()))
    }

    /// As [`MlsClient::open`], with a pool of other sizes.
    ///
    /// # Errors
    ///
    /// As [`MlsClient::open`].
    pub fn open_with(
        home: &Path,
        owner: &PoolId,
        server: &str,
        delivery: D,
        (clock, config): (Arc<dyn Clock>, PoolConfig),
    ) -> Result<Self, OpenError> {
        let store = Arc::new(LocalStore::open(home, owner)?);
        let identity = DeviceIdentity::load_or_create(&store)?;
        let pool = KeyPackagePool::new(Arc::clone(&store), identity.clone(), config)?;
        let api = ApiClient::new(server, identity.clone(), Arc::clone(&clock))?;
        let membership = MlsMembership::new(Arc::clone(&store), identity.clone());
        let connection = MlsConnection::new(Arc::clone(&store), pool, api, delivery);
        Ok(Self { store, identity, membership, connection, clock: ClockHandle(clock) })
    }

    fn now(&self) -> Timestamp {
        self.clock.0.now()
    }

    /// Who the device is.
    #[must_use]
    pub fn identity(&self) -> &DeviceIdentity {
        &self.identity
    }

    /// The device's groups, for what this type has no function for.
    #[must_use]
    pub fn membership(&self) -> &MlsMembership {
        &self.membership
    }

    /// The link to the server and to the Delivery Service.
    #[must_use]
    pub fn connection(&self) -> &MlsConnection<D> {
        &self.connection
    }

    /// Lets the device's key speak for it at the server. Repeating it is harmless.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]; its code is `identity_bound` if another key has the name.
    pub async fn register(&self) -> Result<RegisterReply, ApiError> {
        self.connection.api().register(fresh_command()).await
    }

    /// Keeps the pool: see [`MlsConnection::refresh_key_packages`].
    ///
    /// # Errors
    ///
    /// Returns a [`RefreshError`]; what was done before it is kept.
    pub async fn refresh_key_packages(&self) -> Result<Refresh, RefreshError> {
        self.connection.refresh_key_packages(self.now()).await
    }

    /// How full the pool is, as the server says.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`].
    pub async fn status(&self) -> Result<PoolStatus, ApiError> {
        self.connection.status().await
    }

    /// Makes a group with this device as its only member.
    ///
    /// # Errors
    ///
    /// Returns a [`GroupError`]. Nothing has been written then.
    pub fn create_group(&self, group: &GroupId) -> Result<(), GroupError> {
        self.membership.create_group(group, self.now())
    }

    /// The members of a group.
    ///
    /// # Errors
    ///
    /// Returns a [`GroupError`].
    pub fn members(&self, group: &GroupId) -> Result<Vec<GroupMember>, GroupError> {
        self.membership.members(group)
    }

    /// Invites a user to a group while they are offline: reserves one of their packages, adds it,
    /// renews the reservation, posts the Commit, spends the package, hands over the Welcome.
    ///
    /// If the reservation is lost before the Commit is posted, another package is tried; if it is lost
    /// afterwards, the member is removed again and then another is tried; three in all.
    ///
    /// # Errors
    ///
    /// Returns an [`InviteError`]. Unless it is [`InviteError::Unfinished`], the group is as it was
    /// and nothing is left over; an unfinished one goes on with [`MlsClient::resume_invitations`].
    pub async fn invite(
        &self,
        group: &GroupId,
        user: &str,
        device: Option<&str>,
    ) -> Result<Invited, InviteError> {
        self.inviter().invite(group, user, device).await
    }

    /// Goes on with the invitations that a crash or a lost answer has left unfinished. To be called
    /// when the app starts. Returns those that are finished now.
    ///
    /// # Errors
    ///
    /// Returns the [`InviteError`] of the first that cannot go on.
    pub async fn resume_invitations(&self) -> Result<Vec<Invited>, InviteError> {
        self.inviter().resume().await
    }

    fn inviter(&self) -> Inviter<'_, D> {
        let (store, now) = (self.store.as_ref(), self.now());
        Inviter { store, membership: &self.membership, connection: &self.connection, now }
    }

    /// Joins the group a Welcome is for. The private keys of the package are gone afterwards.
    ///
    /// # Errors
    ///
    /// Returns a [`JoinError`]. Nothing has been written then, and the keys are kept.
    pub fn join(&self, welcome: &[u8]) -> Result<Joined, JoinError> {
        self.membership.join_from_welcome(welcome, self.now())
    }

    /// Seals a message for a group.
    ///
    /// # Errors
    ///
    /// Returns a [`MessageError`].
    pub fn encrypt(&self, group: &GroupId, message: &[u8]) -> Result<Vec<u8>, MessageError> {
        self.membership.encrypt(group, message)
    }

    /// Opens a message of a group, or takes over a change to it.
    ///
    /// # Errors
    ///
    /// Returns a [`MessageError`]. Nothing has been written then.
    pub fn decrypt(&self, message: &[u8]) -> Result<Received, MessageError> {
        self.membership.decrypt(message)
    }

    /// What has happened to the pool, or to one package of it, as the server has told it up to the
    /// last refresh.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store cannot be read.
    pub fn history(&self, only: Option<&KeyPackageRef>) -> Result<Vec<Moment>, StorageError> {
        let read = |after| self.store.mirror(after, PAGE);
        Ok(timeline(&all(read)?, only))
    }

    /// What this device has done with its packages: made, uploaded, joined, expired.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store cannot be read.
    pub fn own_history(&self, only: Option<&KeyPackageRef>) -> Result<Vec<Moment>, StorageError> {
        let read = |after| self.store.history(after, PAGE);
        Ok(timeline(&all(read)?, only))
    }

    /// The name of the device's history, at the server and here.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        StreamId::Pool(self.identity.pool().clone())
    }
}

/// All events of a history, read page by page.
fn all(
    read: impl Fn(u64) -> Result<Vec<EventEnvelope>, StorageError>,
) -> Result<Vec<EventEnvelope>, StorageError> {
    let mut events: Vec<EventEnvelope> = Vec::new();
    loop {
        let after = events.last().map_or(0, |last| last.version);
        let page = read(after)?;
        if page.is_empty() {
            return Ok(events);
        }
        events.extend(page);
    }
}
