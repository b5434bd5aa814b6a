//! The pool alone, beside an app's own OpenMLS groups in SQLite: the app keeps its groups, its delivery and its
//! database; keypool keeps the packages.
//!
//! `cargo run -p keypool-client --features sqlite-store --example pool_only`

mod app;

use std::{path::Path, sync::Arc};

use keypool_client::{
    ApiClient, DeviceIdentity, DeviceKey, GroupId, KeyPackagePool, KeyPackageRef, LocalStore,
    MlsConnection, OwnStage, PoolConfig, SqliteDatabase, SystemClock, fresh_command, wire,
};
use openmls::prelude::{tls_codec::Deserialize as _, *};
use openmls_sqlite_storage::Connection;
use openmls_traits::storage::StorageProvider as _;

use self::app::{AppProvider, Failure, read, start_server};

/// One device: the app's groups and keypool's pool in one SQLite file.
struct App {
    mls: AppProvider,
    store: Arc<LocalStore>,
    identity: DeviceIdentity,
    pool: MlsConnection<()>,
}

impl App {
    async fn open(folder: &Path, user: &str, server: &str) -> Result<Self, Failure> {
        std::fs::create_dir_all(folder)?;
        let connect = || Connection::open(folder.join("app.sqlite"));
        let (owner, database) = (user.parse()?, Box::new(SqliteDatabase::over(connect()?)?));
        let store =
            LocalStore::open_on(database, &folder.join("keys"), &owner, &DeviceKey::in_file())?;
        let store = Arc::new(store);
        let identity = DeviceIdentity::load_or_create(&store)?;
        let api = ApiClient::new(server, identity.clone(), Arc::new(SystemClock))?;
        api.register(None, fresh_command()).await?;
        let packages =
            KeyPackagePool::new(Arc::clone(&store), identity.clone(), PoolConfig::default())?;
        let pool = MlsConnection::new(Arc::clone(&store), packages, api, ());
        // At start, after each Welcome, and now and then.
        pool.refresh_key_packages(pool.api().now()).await?;
        Ok(Self { mls: AppProvider::over(connect()?)?, store, identity, pool })
    }

    /// Adds a device to one of the app's groups. Returns the Welcome, which the app delivers, and the message.
    async fn invite(&self, user: &str, text: &[u8]) -> Result<[Vec<u8>; 2], Failure> {
        let basic = BasicCredential::new(self.identity.pool().to_string().into_bytes());
        let key = self.identity.signature_key().as_bytes().to_vec().into();
        let credential = CredentialWithKey { credential: basic.into(), signature_key: key };
        let config = MlsGroupCreateConfig::builder().use_ratchet_tree_extension(true).build();
        let mut group = MlsGroup::new(&self.mls, &self.identity, &config, credential)?;
        let group_id = GroupId::new(group.group_id().as_slice())?;
        let api = self.pool.api();
        let ask = wire::ReserveRequest::new(user, group_id.clone());
        let reserved = api.reserve(&ask, fresh_command()).await?;
        // The server is not trusted: the package is checked, and whose it is. Whose the key is, is known to the
        // directory of the app, or to `MlsClient` (docs/identity.md).
        let package = KeyPackageIn::tls_deserialize_exact(&reserved.keypackage.0)?;
        let package = package.validate(self.mls.crypto(), ProtocolVersion::Mls10)?;
        let named = format!("{user}/{}", reserved.device);
        if package.leaf_node().credential().serialized_content() != named.as_bytes() {
            return Err(format!("that is no package of {named}").into());
        }
        let (_commit, welcome, _) = group.add_members(&self.mls, &self.identity, &[package])?;
        // The app's delivery takes the Commit here; then the package is used up, and the Welcome goes out.
        let wire::ReserveReply { keypackage_ref, reservation_id, .. } = reserved;
        let spend = wire::SpendRequest { keypackage_ref, reservation_id, group_id, added_by: None };
        api.spend(&spend, fresh_command()).await?;
        group.merge_pending_commit(&self.mls)?;
        let message = group.create_message(&self.mls, &self.identity, text)?;
        Ok([welcome.to_bytes()?, message.to_bytes()?])
    }

    /// Joins by a Welcome with the app's own OpenMLS. The package's private keys are gone afterwards.
    fn join(&self, welcome: &[u8]) -> Result<MlsGroup, Failure> {
        let message = MlsMessageIn::tls_deserialize_exact(welcome)?;
        let MlsMessageBodyIn::Welcome(welcome) = message.extract() else {
            return Err("no Welcome".into());
        };
        let secrets = welcome.secrets().iter();
        let ours = secrets
            .filter_map(|it| KeyPackageRef::new(it.new_member().as_slice()).ok())
            .find(|it| self.store.package(it).is_some())
            .ok_or("not for this device")?;
        let bundle = self.store.load_key_package_bundle(&ours)?;
        let key = bundle.key_package().hash_ref(self.mls.crypto())?;
        self.mls.storage().write_key_package(&key, &bundle)?;
        let config = MlsGroupJoinConfig::default();
        let group = StagedWelcome::new_from_welcome(&self.mls, &config, welcome, None)?
            .into_group(&self.mls)?;
        let spent = OwnStage::Spent { group: GroupId::new(group.group_id().as_slice())? };
        self.store.update_key_package_status(&ours, &spent, self.pool.api().now())?;
        Ok(group)
    }
}

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "an example is there to be read")]
async fn main() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let server = start_server(folder.path())?;
    let alice = App::open(&folder.path().join("alice"), "alice", &server.url()).await?;
    let bob = App::open(&folder.path().join("bob"), "bob", &server.url()).await?;
    let [welcome, message] = alice.invite("bob", b"pizza at eight?").await?;
    let mut group = bob.join(&welcome)?;
    println!("bob reads: {}", read(&mut group, &bob.mls, &message)?);
    let counts = bob.store.count_key_packages_by_status()?;
    println!("bob has {} packages at the server, {} spent", counts.uploaded, counts.spent);
    bob.pool.refresh_now(bob.pool.api().now()).await?;
    server.stop().await;
    Ok(())
}
