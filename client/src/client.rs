//! The façade for an app: one device with its groups, its pool and its invitations.

mod delivery;
mod devices;
mod peers;
mod upkeep;

use std::{path::Path, sync::Arc};

use keypool_ledger::{Clock, GroupId, KeyPackageRef, PoolId, SystemClock, Timestamp};

pub use self::peers::CheckError;
use crate::{
    ApiClient, ApiError, ConfigError, CredentialSource, CredentialValidator, Database,
    DeliveryService, DeviceIdentity, DeviceKey, Erasure, GroupError, GroupMember, IdentityError,
    InviteError, Invited, Invitee, JoinError, Joined, KeyPackagePool, KeyPolicy, LocalStore,
    MessageError, MlsConnection, MlsMembership, PoolConfig, Received, ResumedInvitation,
    ResumedUpdate, SignatureKeystore, StorageError, Transport, UpdateError,
    mls::{
        delivery::{mailbox::Mailbox, standing::NotCompared},
        invite::Inviter,
        peers::Judged,
        sync::server_time::restore_clock,
        update::{GroupChange, Updater},
    },
};

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
    /// Whether devices that could not join are invited again: see [`ClientOptions::reinvite`].
    reinvites: bool,
    /// Held while Commits and messages are made and posted, and while others' are taken in, so that no
    /// step is taken twice at once, and no message is sealed for the members of before.
    committing: tokio::sync::Mutex<()>,
}

/// The options of opening a device.
pub struct ClientOptions {
    /// The device's clock. It is corrected by the server's time: see [`ApiClient::now`].
    pub clock: Arc<dyn Clock>,
    /// How large the pool is kept.
    pub pool: PoolConfig,
    /// The key that seals the device's private keys on the disk.
    pub device_key: DeviceKey,
    /// The keystore that makes the device's signature keys and signs by them; `None` for keys in the store. See
    /// [`LocalStore::with_keystore`].
    pub keystore: Option<Arc<dyn SignatureKeystore>>,
    /// The way of requests to the server; `None` for reqwest with a client of its own.
    pub transport: Option<Arc<dyn Transport>>,
    /// The database of the app's that holds the store; `None` for one in the home: see [`LocalStore::open_on`].
    pub database: Option<Box<dyn Database>>,
    /// The treatment of groups in which a member's key contradicts the directory.
    pub key_policy: KeyPolicy,
    /// The credential that this device's leaves carry; `None` for the Basic credential `user/device`.
    pub credential_source: Option<Arc<dyn CredentialSource>>,
    /// The app's judgement of leaves; `None` if the directory judges all of them.
    pub credential_validator: Option<Arc<dyn CredentialValidator>>,
    /// Whether a device that could not join from its Welcome is invited again by itself, once within a day. Its
    /// dead leaf is replaced by one of a fresh package.
    pub reinvite: bool,
}

impl ClientOptions {
    /// The usual: a pool of 32 packages, a device key in a file of the home, and the credentials of the
    /// directory.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            pool: PoolConfig::default(),
            device_key: DeviceKey::in_file(),
            keystore: None,
            transport: None,
            database: None,
            key_policy: KeyPolicy::default(),
            credential_source: None,
            credential_validator: None,
            reinvite: true,
        }
    }
}

/// The usual, with the system's clock.
impl Default for ClientOptions {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock))
    }
}

impl From<(Arc<dyn Clock>, PoolConfig)> for ClientOptions {
    fn from((clock, pool): (Arc<dyn Clock>, PoolConfig)) -> Self {
        Self { pool, ..Self::new(clock) }
    }
}

impl std::fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientOptions").field("pool", &self.pool).finish_non_exhaustive()
    }
}

/// One of the device's packages that somebody has been given, as the server has told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageUse {
    /// The package.
    pub keypackage_ref: KeyPackageRef,
    /// The device that holds it, or has used it.
    pub holder: PoolId,
    /// The group it was given out for.
    pub group: GroupId,
    /// Whether it was used; if not, it is reserved.
    pub spent: bool,
}

/// Why a device's home could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ClientOpenError {
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

impl<D: DeliveryService> MlsClient<D> {
    /// Opens a device's home, and makes its keys if it has none. Nothing is sent.
    ///
    /// # Errors
    ///
    /// Returns a [`ClientOpenError`] if the home cannot be used, the configuration contradicts itself, or
    /// the address is not one of a server.
    pub fn open(
        home: &Path,
        owner: &PoolId,
        server: &str,
        delivery: D,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ClientOpenError> {
        Self::open_with(home, owner, server, delivery, ClientOptions::new(clock))
    }

    /// As [`MlsClient::open`], with a pool of other sizes, or with another device key than one in a file.
    ///
    /// # Errors
    ///
    /// As [`MlsClient::open`].
    pub fn open_with(
        home: &Path,
        owner: &PoolId,
        server: &str,
        delivery: D,
        options: impl Into<ClientOptions>,
    ) -> Result<Self, ClientOpenError> {
        Self::assemble(home, owner, server, |_| delivery, options.into())
    }

    fn assemble(
        home: &Path,
        owner: &PoolId,
        server: &str,
        delivery: impl FnOnce(&ApiClient) -> D,
        options: ClientOptions,
    ) -> Result<Self, ClientOpenError> {
        let ClientOptions { clock, pool: config, device_key, key_policy, reinvite, .. } = options;
        let store = match options.database {
            Some(database) => LocalStore::open_on(database, home, owner, &device_key)?,
            None => LocalStore::open_sealed(home, owner, &device_key)?,
        };
        let store = Arc::new(match options.keystore {
            Some(keystore) => store.with_keystore(keystore),
            None => store,
        });
        let identity = DeviceIdentity::load_or_create(&store)?
            .with_credentials(options.credential_source, options.credential_validator);
        let pool = KeyPackagePool::new(Arc::clone(&store), identity.clone(), config)?;
        let api = match options.transport {
            Some(transport) => ApiClient::over(transport, server, identity.clone(), clock)?,
            None => ApiClient::new(server, identity.clone(), clock)?,
        };
        restore_clock(&store, api.clock())?;
        let delivery = delivery(&api);
        let membership =
            MlsMembership::new(Arc::clone(&store), identity.clone()).with_policy(key_policy);
        let connection = MlsConnection::new(Arc::clone(&store), pool, api, delivery);
        connection.note_seen_position()?;
        Ok(Self {
            store,
            identity,
            membership,
            connection,
            reinvites: reinvite,
            committing: tokio::sync::Mutex::default(),
        })
    }

    fn now(&self) -> Timestamp {
        self.connection.api().now()
    }

    /// The identity of the device.
    #[must_use]
    pub fn identity(&self) -> &DeviceIdentity {
        &self.identity
    }

    /// The device's store: its own history, its mirror of the server's, and the device key.
    #[must_use]
    pub fn store(&self) -> &LocalStore {
        &self.store
    }

    /// Whether deleted private keys are gone from the disk: see [`LocalStore::erasure`].
    #[must_use]
    pub fn erasure(&self) -> Erasure {
        self.store.erasure()
    }

    /// Seals the store with another device key: see
    /// [`LocalStore::change_device_key`](crate::LocalStore::change_device_key).
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if a file cannot be written, or if an earlier write failed.
    pub fn change_device_key(&self, key: &DeviceKey) -> Result<(), StorageError> {
        self.store.change_device_key(key)
    }

    /// The device's groups, for operations that this type has no function for.
    #[must_use]
    pub fn membership(&self) -> &MlsMembership {
        &self.membership
    }

    /// The link to the server and to the Delivery Service.
    #[must_use]
    pub fn connection(&self) -> &MlsConnection<D> {
        &self.connection
    }

    /// Makes a group with this device as its only member, with the first ciphersuite of its pool.
    ///
    /// # Errors
    ///
    /// Returns a [`GroupError`]. Nothing has been written then.
    pub fn create_group(&self, group: &GroupId) -> Result<(), GroupError> {
        self.create_group_in(group, self.connection.pool().config().first_suite())
    }

    /// As [`MlsClient::create_group`], with another ciphersuite: invitees must have packages
    /// of it.
    ///
    /// # Errors
    ///
    /// As [`MlsClient::create_group`].
    pub fn create_group_in(&self, group: &GroupId, ciphersuite: u16) -> Result<(), GroupError> {
        self.membership.create_group(group, ciphersuite, self.now())
    }

    /// The device's groups, without those that it is leaving.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store cannot be read.
    pub fn groups(&self) -> Result<Vec<GroupId>, StorageError> {
        self.membership.groups()
    }

    /// Whether a group names keys of this device that [`MlsClient::update_keys`] should replace: they came
    /// from a package, or the device has another key by now.
    ///
    /// # Errors
    ///
    /// Returns a [`GroupError`].
    pub fn needs_fresh_keys(&self, group: &GroupId) -> Result<bool, GroupError> {
        self.membership.needs_fresh_keys(group)
    }

    /// The members of a group.
    ///
    /// # Errors
    ///
    /// Returns a [`GroupError`].
    pub fn members(&self, group: &GroupId) -> Result<Vec<GroupMember>, GroupError> {
        self.membership.members(group)
    }

    /// Invites people to a group while they are offline: a user, written `bob`, with all their devices
    /// that are not in it, or one device, written `bob/phone`. All of them are added by one Commit.
    ///
    /// It reserves a package of each, checks them, renews the reservations, posts the Commit, spends the
    /// packages, hands over the Welcome. A package that cannot be used is reported, so that nobody else
    /// is given it, and replaced; invitees who cannot be added are named in [`Invited::missing`], and hold up
    /// nobody else.
    ///
    /// If a reservation is lost before the Commit is posted, another package is tried; if it is lost
    /// afterwards, the member is removed again and then another is tried; three for each device in all.
    /// Invitations, updates and their resumption wait for each other.
    ///
    /// Over [`ServerDelivery`](crate::ServerDelivery) the Commit, its Welcome and the spending of the
    /// packages are one request: a Commit with a lost package is never accepted. If another Commit was
    /// first, the mailbox is taken in and this one made anew, up to three times.
    ///
    /// # Errors
    ///
    /// Returns an [`InviteError`], [`InviteError::Nobody`] if none of them could be added. An
    /// [`InviteError::Unfinished`] goes on with [`MlsClient::resume_invitations`]; after every other one
    /// nothing of this invitation is left over, and unless it says otherwise the group is as it was.
    pub async fn invite<I: Into<Invitee>>(
        &self,
        group: &GroupId,
        invitees: impl IntoIterator<Item = I>,
    ) -> Result<Invited, InviteError> {
        let invitees = invitees.into_iter().map(Into::into).collect();
        let _alone = self.committing.lock().await;
        self.compare_once().await.map_err(|error| InviteError::NotCompared(error.into()))?;
        self.inviter().invite(group, invitees).await
    }

    /// Goes on with the invitations that a crash or a lost answer has left unfinished. To be called
    /// when the app starts. Returns the outcome of each; one that fails does not hold up others.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if it cannot be read which there are.
    pub async fn resume_invitations(&self) -> Result<Vec<ResumedInvitation>, StorageError> {
        let _alone = self.committing.lock().await;
        self.inviter().resume().await
    }

    /// Replaces the device's keys in a group, by a Commit that is posted to its members. Due soon
    /// after joining: the keys that came from the package have a lifetime, and others have seen them.
    /// A lost race for the epoch is run again as for [`MlsClient::invite`].
    ///
    /// # Errors
    ///
    /// Returns an [`UpdateError`]. After [`UpdateError::Unfinished`] the Commit is still pending, and
    /// is posted again by [`MlsClient::resume_updates`] or by the next update of the group.
    pub async fn update_keys(&self, group: &GroupId) -> Result<(), UpdateError> {
        let _alone = self.committing.lock().await;
        self.compare_once().await.map_err(|error| UpdateError::NotCompared(error.into()))?;
        self.updater().change(group, GroupChange::FreshKeys).await
    }

    /// Removes a user's devices from a group, or one of them, by a Commit that is posted to its members,
    /// those who are removed included.
    ///
    /// # Errors
    ///
    /// Returns an [`UpdateError`], with [`GroupError::NotAMember`] if nobody has that name. After
    /// [`UpdateError::Unfinished`] it goes on with [`MlsClient::resume_updates`].
    pub async fn remove(
        &self,
        group: &GroupId,
        user: &str,
        device: Option<&str>,
    ) -> Result<(), UpdateError> {
        let _alone = self.committing.lock().await;
        self.compare_once().await.map_err(|error| UpdateError::NotCompared(error.into()))?;
        let (user, device) = (user.to_owned(), device.map(ToOwned::to_owned));
        self.updater().change(group, GroupChange::Removal { user, device }).await
    }

    /// Commits the proposals of other members: members who want to leave are removed. To be called
    /// when something was proposed; the first member does it for all. If nothing is left to be done,
    /// nothing is.
    ///
    /// # Errors
    ///
    /// Returns an [`UpdateError`]. After [`UpdateError::Unfinished`] it goes on with
    /// [`MlsClient::resume_updates`].
    pub async fn take_up_proposals(&self, group: &GroupId) -> Result<(), UpdateError> {
        let _alone = self.committing.lock().await;
        self.compare_once().await.map_err(|error| UpdateError::NotCompared(error.into()))?;
        self.updater().change(group, GroupChange::Proposals).await
    }

    /// Goes on with the updates and removals that a crash or a lost answer has left unfinished. To be
    /// called when the app starts. Returns the outcome of each.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if it cannot be read which there are.
    pub async fn resume_updates(&self) -> Result<Vec<ResumedUpdate>, StorageError> {
        let _alone = self.committing.lock().await;
        self.updater().resume().await
    }

    fn mailbox(&self) -> Mailbox<'_, D> {
        let (store, now) = (self.store.as_ref(), self.now());
        Mailbox { store, membership: &self.membership, connection: &self.connection, now }
    }

    /// Asks the server's delivery, once before the first thing is sealed, whether this home is the newest copy of
    /// itself.
    async fn compare_once(&self) -> Result<(), NotCompared> {
        self.mailbox().compare_once().await
    }

    fn inviter(&self) -> Inviter<'_, D> {
        let (store, now) = (self.store.as_ref(), self.now());
        Inviter { store, membership: &self.membership, connection: &self.connection, now }
    }

    fn updater(&self) -> Updater<'_, D> {
        let (store, now) = (self.store.as_ref(), self.now());
        Updater { store, membership: &self.membership, connection: &self.connection, now }
    }

    /// Joins the group a Welcome is for. The private keys of the package are gone afterwards.
    ///
    /// Users of the group who are not known, or were looked up an hour ago, are looked up first, all by one
    /// request: each leaf must be its user's.
    ///
    /// # Errors
    ///
    /// Returns a [`JoinError`], [`JoinError::Impostor`] if the inviter's key is not the user's whose name it
    /// carries. Nothing has been written then, and the keys are kept.
    pub async fn join(&self, welcome: &[u8]) -> Result<Joined, JoinError> {
        let _alone = self.committing.lock().await;
        let join =
            |may_ask| self.membership.try_join(welcome, self.now(), &self.leaf_check(may_ask));
        let mut joined = join(true)?;
        if let Judged::KeysNeeded(users) = &joined {
            self.look_up(users).await.map_err(JoinError::from)?;
            joined = join(false)?;
        }
        match joined {
            Judged::Done(joined) => Ok(joined),
            // Nobody may be asked the second time.
            Judged::KeysNeeded(_) => {
                Err(JoinError::NotAWelcome("its leaves cannot be judged".into()))
            }
        }
    }

    /// Seals a message for a group.
    ///
    /// # Errors
    ///
    /// Returns a [`GroupError`].
    pub fn encrypt(&self, group: &GroupId, message: &[u8]) -> Result<Vec<u8>, GroupError> {
        self.membership.encrypt(group, message)
    }

    /// Opens a message of a group, or takes over a change to it. Users whose leaves do not fit the known keys are
    /// looked up first.
    ///
    /// # Errors
    ///
    /// Returns a [`MessageError`]. Nothing has been written then.
    pub async fn decrypt(&self, message: &[u8]) -> Result<Received, MessageError> {
        let _alone = self.committing.lock().await;
        let open = |may_ask| self.membership.try_decrypt(message, &self.leaf_check(may_ask));
        let mut received = open(true)?;
        if let Judged::KeysNeeded(users) = &received {
            self.look_up(users).await.map_err(MessageError::from)?;
            received = open(false)?;
        }
        match received {
            Judged::Done(received) => Ok(received),
            // Nobody may be asked the second time.
            Judged::KeysNeeded(_) => {
                Err(MessageError::NotAMessage("its leaves cannot be judged".into()))
            }
        }
    }
}
