//! The main job in a few seconds: a real server, two devices, an invitation while one is offline.
//!
//! `cargo run --release --example demo`. Ends with code 0 only if every step held.

use std::{
    collections::HashMap,
    error::Error,
    path::Path,
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use keypool_api::{ClaimRequest, Code, ReserveRequest, SpendRequest};
use keypool_client::{
    ApiError, CommitPost, DeliveryError, DeliveryService, MlsClient, PoolConfig, Received,
    WelcomePost, fresh_command,
};
use keypool_ledger::{
    Clock, GroupId, KeyPackageRef, PoolId, ReservationId, SystemClock, Timestamp,
};
use keypool_projections::TimelineEntry;
use keypool_server::{Server, Settings};

type Failure = Box<dyn Error>;

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a demo is there to be read")]
fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let told = runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(demo()));
    match told {
        Ok(()) => {
            println!("\nEvery step held.");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\nthe demo failed: {error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::too_many_lines, reason = "a story is told from its beginning to its end")]
async fn demo() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let clock = Arc::new(MovableClock::default());
    let mail = Mail::default();
    let group = GroupId::new(b"friday evening")?;

    step("A server starts on a free port, its log in an empty folder");
    let settings = Settings {
        listen: "127.0.0.1:0".parse()?,
        admin_listen: "127.0.0.1:0".parse()?,
        data: folder.path().join("server"),
        ..Settings::default()
    };
    let server = Server::start(settings, clock.clone())?;
    tell(&format!("listening on {}", server.url()));

    let people = People { folder: folder.path(), server: server.url(), clock: clock.clone(), mail };

    step("Alice and Bob make their keys and register");
    let alice = people.device("alice", PoolConfig::default())?;
    let one = PoolConfig { target: 1, low_watermark: 0, ..PoolConfig::default() };
    let bob = people.device("bob", one)?;
    for device in [&alice, &bob] {
        let registered = device.register().await?;
        tell(&format!("{}/{} has key {}", registered.user, registered.device, registered.keyid));
    }

    step("Bob's pool starts with one package and grows to 32");
    bob.refresh_key_packages().await?;
    tell(&bar(bob.status().await?.counts.available));
    drop(bob);
    let bob = people.device("bob", PoolConfig::default())?;
    clock.advance(Duration::from_secs(61));
    let refreshed = bob.refresh_key_packages().await?;
    tell(&bar(bob.status().await?.counts.available));
    ensure(refreshed.available == 32, "the pool holds 32 packages")?;

    step("Bob goes offline. Alice invites him all the same");
    drop(bob);
    alice.create_group(&group)?;
    let invited = alice.invite(&group, ["bob"]).await?;
    let used = invited.added.into_iter().map(|added| added.keypackage_ref).next();
    let used = used.ok_or("Bob is added")?;
    tell(&format!(
        "reserved {}, added, renewed, posted the Commit, spent, handed the Welcome over",
        used.short()
    ));

    step("Bob's app starts again, finds the Welcome and joins");
    let bob = people.device("bob", PoolConfig::default())?;
    let welcome = people.mail.take(bob.identity().pool());
    ensure(welcome.len() == 1, "one Welcome waits for Bob")?;
    for bytes in &welcome {
        let joined = bob.join(bytes).await?;
        tell(&format!("joined {} members, invited by {}", members(&bob, &group)?, joined.inviter));
        let keys = bob.connection().pool().has_private_keys(&joined.keypackage_ref)?;
        ensure(!keys, "the private keys of the used package are gone")?;
        tell("the private keys of the used package are gone");
    }

    step("They talk, end to end encrypted");
    say(&alice, &bob, &group, "pizza at eight?").await?;
    say(&bob, &alice, &group, "I bring the olives").await?;

    step("Somebody tries to use the same package again");
    let refused = spend_again(&alice, &used, &group).await?;
    tell(&refused);

    step("Alice reserves another package, and her phone dies");
    let before = bob.status().await?.counts;
    reserve(&alice, &group).await?;
    let held = bob.status().await?.counts;
    tell(&format!("available {}, reserved {}", held.available, held.reserved));
    ensure(held.available + 1 == before.available, "a reserved package is not available")?;
    clock.advance(Duration::from_secs(121));
    let back = bob.status().await?.counts;
    tell(&format!(
        "two minutes later: available {}, reserved {}, of these {} came back",
        back.available, back.reserved, back.requeued
    ));
    ensure(back.available == before.available, "a lapsed reservation comes back")?;

    step("Alice reserves once more, changes her mind, and gives the package back");
    let claim = reserve(&alice, &group).await?;
    alice.connection().api().release(&claim, fresh_command()).await?;
    tell(&format!("available {}", bob.status().await?.counts.available));

    step("Bob's app keeps his pool; this is its history");
    let refreshed = bob.connection().refresh_now(clock.now()).await?;
    tell(&bar(refreshed.available));
    print_history(&bob.history(None)?);
    let spent = bob.history(Some(&used))?;
    let life: Vec<&str> = spent.iter().map(|moment| moment.event.as_str()).collect();
    ensure(life == ["uploaded", "reserved", "renewed", "spent"], "the package was used once")?;

    server.stop().await;
    Ok(())
}

/// Two people's devices, each with a home of its own.
struct People<'a> {
    folder: &'a Path,
    server: String,
    clock: Arc<MovableClock>,
    mail: Mail,
}

impl People<'_> {
    fn device(&self, user: &str, config: PoolConfig) -> Result<MlsClient<Mail>, Failure> {
        let home = self.folder.join(user);
        let owner = PoolId::of(user, None)?;
        let clock: Arc<dyn Clock> = self.clock.clone();
        let mail = self.mail.clone();
        Ok(MlsClient::open_with(&home, &owner, &self.server, mail, (clock, config))?)
    }
}

/// The app's Delivery Service: here, a few queues in memory.
#[derive(Clone, Debug, Default)]
struct Mail(Arc<Mutex<Queues>>);

#[derive(Debug, Default)]
struct Queues {
    /// The Commit that was accepted for each epoch of each group.
    commits: HashMap<(GroupId, u64), Vec<u8>>,
    welcomes: HashMap<PoolId, Vec<Vec<u8>>>,
}

impl Mail {
    fn take(&self, device: &PoolId) -> Vec<Vec<u8>> {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        queues.welcomes.remove(device).unwrap_or_default()
    }
}

impl DeliveryService for Mail {
    async fn post_commit(&self, post: &CommitPost) -> Result<Vec<PoolId>, DeliveryError> {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = (post.group.clone(), post.epoch);
        let accepted = queues.commits.entry(epoch).or_insert_with(|| post.commit.clone());
        if *accepted == post.commit { Ok(Vec::new()) } else { Err(DeliveryError::EpochTaken) }
    }

    async fn send_welcome(&self, post: &WelcomePost) -> Result<(), DeliveryError> {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = queues.welcomes.entry(post.to.clone()).or_default();
        if !waiting.contains(&post.welcome) {
            waiting.push(post.welcome.clone());
        }
        Ok(())
    }
}

/// The machine's clock, and as much more as the demo has moved it: nobody waits two minutes.
#[derive(Debug, Default)]
struct MovableClock(AtomicU64);

impl MovableClock {
    fn advance(&self, span: Duration) {
        self.0.fetch_add(span.as_secs(), Ordering::SeqCst);
    }
}

impl Clock for MovableClock {
    fn now(&self) -> Timestamp {
        SystemClock.now().after(Duration::from_secs(self.0.load(Ordering::SeqCst)))
    }
}

fn members(device: &MlsClient<Mail>, group: &GroupId) -> Result<usize, Failure> {
    Ok(device.members(group)?.len())
}

/// One says something, the other reads it.
async fn say(
    from: &MlsClient<Mail>,
    to: &MlsClient<Mail>,
    group: &GroupId,
    words: &str,
) -> Result<(), Failure> {
    let sealed = from.encrypt(group, words.as_bytes())?;
    let Received::Application { sender, bytes, .. } = to.decrypt(&sealed).await? else {
        return Err("a message was something else".into());
    };
    ensure(bytes == words.as_bytes(), "the message arrives as it was sent")?;
    tell(&format!("{sender}: {} ({} bytes on the wire)", String::from_utf8(bytes)?, sealed.len()));
    Ok(())
}

/// Spends a package a second time, with a reservation of one's own making.
async fn spend_again(
    device: &MlsClient<Mail>,
    keypackage_ref: &KeyPackageRef,
    group: &GroupId,
) -> Result<String, Failure> {
    let request = SpendRequest {
        keypackage_ref: keypackage_ref.clone(),
        reservation_id: ReservationId(fresh_command().0),
        group_id: group.clone(),
        added_by: None,
    };
    match device.connection().api().spend(&request, fresh_command()).await {
        Err(ApiError::Refused(problem)) if problem.code == Code::AlreadySpent => {
            Ok(format!("refused: {} {}: {}", problem.status, problem.code, problem.detail))
        }
        other => Err(format!("a second spend was not refused: {other:?}").into()),
    }
}

/// Reserves a package of Bob's and leaves it at that.
async fn reserve(device: &MlsClient<Mail>, group: &GroupId) -> Result<ClaimRequest, Failure> {
    let request = ReserveRequest {
        target_user: "bob".to_owned(),
        target_device: None,
        group_id: group.clone(),
        reservation_id: Some(ReservationId(fresh_command().0)),
        ciphersuites: Vec::new(),
        required: None,
        contact_token: None,
    };
    let reply = device.connection().api().reserve(&request, fresh_command()).await?;
    let (keypackage_ref, reservation_id) = (reply.keypackage_ref, reply.reservation_id);
    Ok(ClaimRequest { keypackage_ref, reservation_id })
}

fn ensure(held: bool, what: &str) -> Result<(), Failure> {
    if held { Ok(()) } else { Err(format!("this did not hold: {what}").into()) }
}

#[expect(clippy::print_stdout, reason = "a demo is there to be read")]
fn step(title: &str) {
    println!("\n* {title}");
}

#[expect(clippy::print_stdout, reason = "a demo is there to be read")]
fn tell(what: &str) {
    println!("  {what}");
}

fn bar(available: u64) -> String {
    let full = usize::try_from(available.min(32)).unwrap_or_default();
    format!("[{}{}] {available} available", "#".repeat(full), "-".repeat(32 - full))
}

/// The history, with neighbours that differ in their package only as one line.
#[expect(clippy::print_stdout, reason = "a demo is there to be read")]
fn print_history(moments: &[TimelineEntry]) {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(["version", "package", "event", ""]);
    let alike = |a: &TimelineEntry, b: &TimelineEntry| a.event == b.event && a.detail == b.detail;
    for run in moments.chunk_by(alike) {
        let [first, .., last] = run else {
            let rows = run.iter().map(|only| {
                let package = only.keypackage_ref.as_ref().map(KeyPackageRef::short);
                let package = package.unwrap_or_default();
                [only.version.to_string(), package, only.event.clone(), only.detail.clone()]
            });
            table.add_rows(rows);
            continue;
        };
        table.add_row([
            format!("{} to {}", first.version, last.version),
            format!("{} packages", run.len()),
            first.event.clone(),
            first.detail.clone(),
        ]);
    }
    println!("{table}");
}
