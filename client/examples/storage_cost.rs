//! The cost of the store for a device: a refill of 32 packages, a join, and messages; all of it, and the one
//! write that ends it. Run it on a quiet machine: `cargo run --release --example storage_cost`.

use std::{error::Error, sync::Arc, time::Duration};

use keypool_client::{
    DeviceIdentity, KeyPackagePool, LocalStore, MlsMembership, OfferedPackage, PoolConfig, Staged,
};
use keypool_ledger::{Clock, GroupId, SystemClock};
use openmls::{
    credentials::{BasicCredential, CredentialWithKey},
    framing::{MlsMessageBodyIn, MlsMessageIn},
    group::{MlsGroup, MlsGroupJoinConfig, StagedWelcome},
    key_packages::KeyPackage,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_traits::types::{Ciphersuite, SignatureScheme};
use tls_codec::Deserialize;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// How often each thing is done.
const ROUNDS: usize = 60;
/// The packages of a refill.
const REFILL: usize = 32;
const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

/// A device in a folder of its own.
struct Device {
    store: Arc<LocalStore>,
    pool: KeyPackagePool,
    groups: MlsMembership,
    _home: tempfile::TempDir,
}

fn device(name: &str) -> Outcome<Device> {
    let home = tempfile::tempdir()?;
    let store = Arc::new(LocalStore::open(home.path(), &name.parse()?)?);
    let identity = DeviceIdentity::load_or_create(&store)?;
    let config = PoolConfig { hard_cap: 10_000, ..PoolConfig::default() };
    let pool = KeyPackagePool::new(Arc::clone(&store), identity.clone(), config)?;
    let groups = MlsMembership::new(Arc::clone(&store), identity);
    Ok(Device { store, pool, groups, _home: home })
}

/// How long something takes.
fn timed<T>(spans: &mut Vec<Duration>, work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    #[expect(clippy::disallowed_methods, reason = "a measurement, by which nothing is decided")]
    let start = std::time::Instant::now();
    let done = work()?;
    spans.push(start.elapsed());
    Ok(done)
}

fn commit(spans: &mut Vec<Duration>, staged: Staged<'_>) -> Outcome<()> {
    timed(spans, || Ok(staged.commit()?))
}

#[expect(clippy::print_stdout, reason = "the figures are what it is for")]
fn print(what: &str, mut spans: Vec<Duration>) {
    spans.sort_unstable();
    let at = |percent: usize| {
        let span = spans.get(spans.len() * percent / 100).copied().unwrap_or_default();
        span.as_secs_f64() * 1_000.0
    };
    println!("{what:<44} {:>7.2} ms   {:>6.2} to {:>6.2}", at(50), at(10), at(90));
}

/// The values that OpenMLS stores for 32 packages, and their write.
fn refill_write(device: &Device, spans: &mut Vec<Duration>) -> Outcome<()> {
    let keys = SignatureKeyPair::new(SignatureScheme::ED25519)?;
    let credential = CredentialWithKey {
        credential: BasicCredential::new(b"somebody".to_vec()).into(),
        signature_key: keys.public().into(),
    };
    let staged = device.store.stage()?;
    for _ in 0..REFILL {
        KeyPackage::builder().build(SUITE, &staged.provider(), &keys, credential.clone())?;
    }
    commit(spans, staged)
}

/// The values that OpenMLS stores for a join, and their write.
fn join_write(device: &Device, welcome: &[u8], spans: &mut Vec<Duration>) -> Outcome<()> {
    let MlsMessageBodyIn::Welcome(welcome) =
        MlsMessageIn::tls_deserialize_exact(welcome)?.extract()
    else {
        return Err("no Welcome".into());
    };
    let staged = device.store.stage()?;
    let provider = staged.provider();
    let config = MlsGroupJoinConfig::builder().use_ratchet_tree_extension(true).build();
    StagedWelcome::new_from_welcome(&provider, &config, welcome, None)?.into_group(&provider)?;
    commit(spans, staged)
}

/// The values that OpenMLS stores when it seals a message, and their write.
fn message_write(device: &Device, group: &GroupId, spans: &mut Vec<Duration>) -> Outcome<()> {
    let staged = device.store.stage()?;
    let id = openmls::group::GroupId::from_slice(group.as_bytes());
    let mut state = MlsGroup::load(&staged, &id)?.ok_or("no group")?;
    let key = state.own_leaf_node().ok_or("no leaf")?.signature_key().as_slice().to_vec();
    let signer = SignatureKeyPair::read(&staged, &key, SignatureScheme::ED25519).ok_or("no key")?;
    state.create_message(&staged.provider(), &signer, b"hello, this is a message")?;
    commit(spans, staged)
}

fn measure_refills() -> Outcome<()> {
    let device = device("bob/phone")?;
    let (mut whole, mut write, mut expiry) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let now = SystemClock.now();
        timed(&mut whole, || Ok(device.pool.generate_and_store(REFILL, now)?))?;
        let end = now.after(Duration::from_hours(24 * 15));
        timed(&mut expiry, || Ok(device.pool.expire(end)?))?;
        refill_write(&device, &mut write)?;
    }
    print("refill: 32 packages made and stored", whole);
    print("refill: its write alone", write);
    print("expiry: the keys of 32 packages deleted", expiry);
    Ok(())
}

fn measure_groups() -> Outcome<()> {
    let (alice, bob) = (device("alice/phone")?, device("bob/phone")?);
    let (mut join, mut join_alone) = (Vec::new(), Vec::new());
    let (mut seal, mut open, mut seal_alone) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..2 * ROUNDS {
        let (now, group) = (SystemClock.now(), GroupId::new(format!("g{round}").as_bytes())?);
        alice.groups.create_group(&group, SUITE.into(), now)?;
        let made = bob.pool.generate_and_store(1, now)?.pop().ok_or("none was made")?;
        let keypackage_ref = made.keypackage_ref().clone();
        let owner = bob.store.owner().clone();
        let offer = OfferedPackage { keypackage_ref, owner, bytes: made.bytes };
        let added = alice.groups.stage_add(&group, &[offer], now)?;
        alice.groups.merge_pending_commit(&group)?;
        if round % 2 == 1 {
            join_write(&bob, &added.welcome, &mut join_alone)?;
            continue;
        }
        timed(&mut join, || Ok(bob.groups.join_from_welcome(&added.welcome, now)?))?;
        let sealed =
            timed(&mut seal, || Ok(alice.groups.encrypt(&group, b"hello, this is a message")?))?;
        timed(&mut open, || Ok(bob.groups.decrypt(&sealed)?))?;
        message_write(&alice, &group, &mut seal_alone)?;
    }
    print("join: from Welcome to joined", join);
    print("join: its write alone", join_alone);
    print("message: sealed", seal);
    print("message: sealed, its write alone", seal_alone);
    print("message: opened", open);
    Ok(())
}

fn main() -> Outcome<()> {
    measure_refills()?;
    measure_groups()
}
