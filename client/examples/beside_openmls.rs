//! The time of a device beside bare OpenMLS on its own storage in memory: a refresh of 32
//! packages, and a join, with the part of it that the checks of leaves take. Both sides in turn, round for round; the ratio of the medians counts.
//! Run it on a quiet machine: `cargo run --release --example beside_openmls`.

use std::{
    error::Error,
    fs::File,
    io::{Seek, SeekFrom, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};

use keypool_api::{Base64, UploadRequest};
use keypool_client::{
    CommitPost, DeliveryError, DeliveryService, DeviceIdentity, KeyPackagePool, LocalStore,
    MlsClient, MlsMembership, PoolConfig, WelcomePost, fresh_command,
};
use keypool_ledger::{Clock, PoolId, SystemClock};
use keypool_server::{Server, Settings};
use openmls::{
    credentials::{BasicCredential, CredentialWithKey},
    framing::{MlsMessageBodyIn, MlsMessageIn},
    group::{MlsGroup, MlsGroupJoinConfig, StagedWelcome},
    key_packages::{KeyPackage, KeyPackageIn},
    prelude::{Capabilities, ProtocolVersion},
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use openmls_traits::{OpenMlsProvider, types::Ciphersuite};
use tempfile::TempDir;
use tls_codec::Deserialize;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// How often each thing is done, unless the command line says otherwise.
const ROUNDS: usize = 25;
/// The packages of a refresh.
const REFILL: usize = 32;
/// How many times the bare cost a refresh may take.
const REFRESH_GOAL: f64 = 3.0;
/// How many times the bare cost a join may take.
const JOIN_GOAL: f64 = 1.5;
/// The part of a join that its checks of leaves may take.
const CHECKS_GOAL: f64 = 0.1;
/// How many members the groups have that are joined.
const GROUPS: [usize; 3] = [3, 32, 100];
const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

/// Somebody who uses OpenMLS as it comes, with its storage in memory.
struct Bare {
    provider: OpenMlsRustCrypto,
    keys: SignatureKeyPair,
    credential: CredentialWithKey,
}

/// A device of ours in a folder of its own.
struct Device {
    pool: KeyPackagePool,
    groups: MlsMembership,
    _home: TempDir,
}

/// The times that one thing took.
#[derive(Default)]
struct Spans(Vec<Duration>);

/// A Delivery Service for those who send nothing.
struct NoDelivery;

impl DeliveryService for NoDelivery {
    async fn post_commit(&self, _post: &CommitPost) -> Result<Vec<PoolId>, DeliveryError> {
        Err(DeliveryError::Refused("nothing is delivered here".into()))
    }

    async fn send_welcome(&self, _post: &WelcomePost) -> Result<(), DeliveryError> {
        Err(DeliveryError::Refused("nothing is delivered here".into()))
    }
}

impl Bare {
    fn new(name: &str) -> Outcome<Self> {
        let keys = SignatureKeyPair::new(SUITE.signature_algorithm())?;
        let credential = CredentialWithKey {
            credential: BasicCredential::new(name.as_bytes().to_vec()).into(),
            signature_key: keys.public().into(),
        };
        Ok(Self { provider: OpenMlsRustCrypto::default(), keys, credential })
    }

    /// One package, with the same contents as ours.
    fn package(&self) -> Outcome<KeyPackage> {
        let capabilities = Capabilities::for_provider(self.provider.crypto());
        let builder = KeyPackage::builder().leaf_node_capabilities(capabilities);
        let bundle = builder.build(SUITE, &self.provider, &self.keys, self.credential.clone())?;
        Ok(bundle.key_package().clone())
    }

    /// The Welcome into a fresh group with so many others that these packages make up its members.
    fn welcome(&self, packages: &[KeyPackage]) -> Outcome<Vec<u8>> {
        let builder = MlsGroup::builder().ciphersuite(SUITE).use_ratchet_tree_extension(true);
        let mut group = builder.build(&self.provider, &self.keys, self.credential.clone())?;
        let (_, welcome, _) = group.add_members(&self.provider, &self.keys, packages)?;
        Ok(welcome.to_bytes()?)
    }

    fn join(&self, welcome: &[u8]) -> Outcome<()> {
        let MlsMessageBodyIn::Welcome(welcome) =
            MlsMessageIn::tls_deserialize_exact(welcome)?.extract()
        else {
            return Err("no Welcome".into());
        };
        let config = MlsGroupJoinConfig::builder().use_ratchet_tree_extension(true).build();
        StagedWelcome::new_from_welcome(&self.provider, &config, welcome, None)?
            .into_group(&self.provider)?;
        Ok(())
    }
}

impl Device {
    fn new(name: &str) -> Outcome<Self> {
        let home = tempfile::tempdir()?;
        let store = Arc::new(LocalStore::open(home.path(), &name.parse()?)?);
        let identity = DeviceIdentity::load_or_create(&store)?;
        let config = PoolConfig { hard_cap: 10_000, ..PoolConfig::default() };
        let pool = KeyPackagePool::new(Arc::clone(&store), identity.clone(), config)?;
        let groups = MlsMembership::new(store, identity);
        Ok(Self { pool, groups, _home: home })
    }

    /// One package, as others get it.
    fn package(&self, crypto: &OpenMlsRustCrypto) -> Outcome<KeyPackage> {
        let made = self.pool.generate_and_store(1, SystemClock.now())?.pop().ok_or("none made")?;
        let package = KeyPackageIn::tls_deserialize_exact(&made.bytes)?;
        Ok(package.validate(crypto.crypto(), ProtocolVersion::Mls10)?)
    }
}

impl Spans {
    /// Does something and takes its time.
    fn time<T>(&mut self, work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        let start = instant();
        let done = work()?;
        self.0.push(start.elapsed());
        Ok(done)
    }

    /// The time at a percentage of the rounds, in milliseconds: the median at 50.
    fn at(&mut self, percent: usize) -> f64 {
        self.0.sort_unstable();
        let place = self.0.len().saturating_sub(1) * percent / 100;
        self.0.get(place).copied().unwrap_or_default().as_secs_f64() * 1_000.0
    }
}

#[expect(clippy::disallowed_methods, reason = "a measurement, by which nothing is decided")]
fn instant() -> std::time::Instant {
    std::time::Instant::now()
}

fn print(what: &str, spans: &mut Spans) -> Outcome<()> {
    let (median, low, high) = (spans.at(50), spans.at(10), spans.at(90));
    writeln!(std::io::stdout(), "{what:<52} {median:>7.2} ms  {low:>7.2} to {high:>6.2}")?;
    Ok(())
}

/// How much longer ours takes, and whether that is within the goal.
fn compare(what: &str, (ours, bare): (&mut Spans, &mut Spans), goal: f64) -> Outcome<()> {
    let ratio = ours.at(50) / bare.at(50);
    let held = if ratio <= goal { "held" } else { "missed" };
    writeln!(std::io::stdout(), "{what:<52} {ratio:>7.2} times    goal {goal}: {held}\n")?;
    Ok(())
}

/// A device that has registered and has no packages yet, at a real server: a refresh, and after it the
/// upload of 32 more alone.
async fn refresh(
    (home, name, url): (&Path, &str, &str),
    (whole, upload): (&mut Spans, &mut Spans),
) -> Outcome<()> {
    let device = MlsClient::open(home, &name.parse()?, url, NoDelivery, Arc::new(SystemClock))?;
    device.register().await?;
    let start = instant();
    let refreshed = device.refresh_key_packages().await?;
    whole.0.push(start.elapsed());
    if refreshed.created != REFILL {
        return Err("not 32 were made".into());
    }
    let more = device.connection().pool().generate_and_store(REFILL, SystemClock.now())?;
    let keypackages = more.into_iter().map(|made| Base64(made.bytes)).collect();
    let start = instant();
    device.connection().api().upload(&UploadRequest { keypackages }, fresh_command()).await?;
    upload.0.push(start.elapsed());
    Ok(())
}

async fn measure_refreshes(rounds: usize) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let settings = Settings {
        listen: "127.0.0.1:0".parse()?,
        admin_listen: "127.0.0.1:0".parse()?,
        data: folder.path().join("server"),
        ..Settings::default()
    };
    let server = Server::start(settings, Arc::new(SystemClock))?;
    let device = Device::new("bob/phone")?;
    let (mut bare, mut stored) = (Spans::default(), Spans::default());
    let (mut whole, mut upload) = (Spans::default(), Spans::default());
    for round in 0..rounds {
        let somebody = Bare::new("bob/phone")?;
        bare.time(|| (0..REFILL).try_for_each(|_| somebody.package().map(drop)))?;
        stored.time(|| Ok(device.pool.generate_and_store(REFILL, SystemClock.now())?))?;
        let (name, home) = (format!("bob{round}/phone"), folder.path().join(round.to_string()));
        refresh((&home, &name, &server.url()), (&mut whole, &mut upload)).await?;
    }
    server.stop().await;
    print("bare: 32 packages made, kept in memory", &mut bare)?;
    print("ours: 32 packages made, sealed, durable", &mut stored)?;
    print("ours: 32 packages uploaded, until the answer", &mut upload)?;
    print("ours: a refresh, all of that and what is beside it", &mut whole)?;
    compare("refresh beside bare", (&mut whole, &mut bare), REFRESH_GOAL)
}

/// One durable write of 64 bytes in place: a join has several of them, one after the other.
fn sync(file: &mut File, spans: &mut Spans) -> Outcome<()> {
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&[7; 64])?;
    spans.time(|| Ok(file.sync_data()?))
}

fn measure_joins(rounds: usize, members: usize) -> Outcome<()> {
    let (device, mut file) = (Device::new("bob/phone")?, tempfile::tempfile()?);
    let mut synced = Spans::default();
    let (mut bare, mut ours) = (Spans::default(), Spans::default());
    let others: Vec<Bare> =
        (3..members).map(|n| Bare::new(&format!("user{n}/phone"))).collect::<Outcome<_>>()?;
    for _ in 0..rounds {
        let (alice, carol) = (Bare::new("alice/phone")?, Bare::new("carol/phone")?);
        let mut packages = vec![carol.package()?, device.package(&alice.provider)?];
        for other in &others {
            packages.push(other.package()?);
        }
        let welcome = alice.welcome(&packages)?;
        bare.time(|| carol.join(&welcome))?;
        ours.time(|| Ok(device.groups.join_from_welcome(&welcome, SystemClock.now())?))?;
        sync(&mut file, &mut synced)?;
    }
    print(&format!("bare: joined a group of {members}, kept in memory"), &mut bare)?;
    print(&format!("ours: joined a group of {members}, sealed, durable"), &mut ours)?;
    print("one fdatasync meanwhile", &mut synced)?;
    compare(&format!("join of {members} beside bare"), (&mut ours, &mut bare), JOIN_GOAL)
}

/// The checks of leaves in a join of a group whose users were all looked up before, as a part of the whole: beside
/// the join of a device that knows nobody, whose checks find nothing.
async fn measure_checks(rounds: usize, members: usize) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let settings = Settings {
        listen: "127.0.0.1:0".parse()?,
        admin_listen: "127.0.0.1:0".parse()?,
        data: folder.path().join("server"),
        ..Settings::default().without_quotas()
    };
    let server = Server::start(settings, Arc::new(SystemClock))?;
    let open = |name: String| -> Outcome<_> {
        let (home, clock) = (folder.path().join(&name), Arc::new(SystemClock));
        Ok(MlsClient::open(&home, &name.parse()?, &server.url(), NoDelivery, clock)?)
    };
    let (alice, bob) = (Bare::new("alice/phone")?, open("bob".to_owned())?);
    let stranger = Device::new("carol/phone")?;
    bob.register().await?;
    let mut others = Vec::new();
    for number in 3..members {
        let other = open(format!("user{number}"))?;
        other.register().await?;
        bob.look_up_peer(&format!("user{number}")).await?;
        others.push(other);
    }
    let package = |pool: &KeyPackagePool| -> Outcome<KeyPackage> {
        let made = pool.generate_and_store(1, SystemClock.now())?.pop().ok_or("none made")?;
        let package = KeyPackageIn::tls_deserialize_exact(&made.bytes)?;
        Ok(package.validate(alice.provider.crypto(), ProtocolVersion::Mls10)?)
    };
    let (mut known, mut unknown) = (Spans::default(), Spans::default());
    for _ in 0..rounds {
        let pools = others.iter().map(|other| other.connection().pool());
        let pools = pools.chain([bob.connection().pool(), &stranger.pool]);
        let welcome = alice.welcome(&pools.map(package).collect::<Outcome<Vec<_>>>()?)?;
        let now = SystemClock.now();
        known.time(|| Ok(bob.membership().join_from_welcome(&welcome, now)?))?;
        unknown.time(|| Ok(stranger.groups.join_from_welcome(&welcome, now)?))?;
    }
    server.stop().await;
    print(&format!("ours: joined a group of {members} known users"), &mut known)?;
    print(&format!("ours: joined a group of {members} strangers"), &mut unknown)?;
    let part = 1.0 - unknown.at(50) / known.at(50);
    let held = if part <= CHECKS_GOAL { "held" } else { "missed" };
    let what = "checks of known leaves, as a part of the join";
    writeln!(std::io::stdout(), "{what:<52} {part:>7.2}          goal {CHECKS_GOAL}: {held}\n")?;
    Ok(())
}

fn main() -> Outcome<()> {
    let rounds = std::env::args().nth(1).map_or(Ok(ROUNDS), |text| text.parse())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure_refreshes(rounds))?;
    GROUPS.into_iter().try_for_each(|members| measure_joins(rounds, members))?;
    runtime.block_on(measure_checks(rounds, 100))
}
