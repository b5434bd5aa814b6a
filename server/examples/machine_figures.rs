//! The figures of a machine's disk and memory, for docs/figures.toml: `just bench-machine`.
//!
//! Pools are registered, filled with 32 packages each, and used up over the log on the disk, 64 commands to
//! a group, as many as wait when 64 requests are under way. Their memory is measured in another
//! process, which opens them as a server does at its start.

use std::{
    env,
    error::Error,
    fs::{self, File},
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Command as Process, ExitStatus},
    sync::Arc,
    time::{Duration, Instant},
};

use keypool_ledger::{
    Batch, Clock, CommandId, Event, EventLog, GroupId, Hash, KeyPackageRef, NewEvent, PackageFacts,
    PoolId, ReservationId, SignatureKey, SledLog, SledLogOptions, StreamId, StreamWrite,
    SystemClock, Timestamp, log::append_at_head,
};
use keypool_projections::{Claim, Command, DeliveryLimits, Limits, NewPackage, PoolState};
use keypool_server::pools::{Pools, Progress};
use uuid::Uuid;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// How many pools there are.
const POOLS: usize = 2_000;
/// How many there are where memory is measured: more than are kept unpacked.
const MANY_POOLS: usize = 12_000;
/// After how many of them only packed ones are added.
const UNPACKED_POOLS: usize = 6_000;
/// How many groups there are where memory is measured: more than are kept unpacked.
const GROUPS: usize = 40_000;
/// How many packages each is filled with.
const PACKAGES: usize = 32;
/// How many bytes a package has: as many as those of the client.
const PACKAGE_BYTES: usize = 300;
/// How many commands wait while the disk writes.
const GROUP: usize = 64;
/// How often the disk is asked to write.
const SYNCS: usize = 300;
const LIMITS: Limits = Limits::STANDARD;

/// The pools, and the log they are kept in.
struct Machine {
    pools: Vec<PoolState>,
    log: SledLog,
    commands: usize,
}

impl Machine {
    fn new(data: &Path, pools: usize) -> Outcome<Self> {
        let log = SledLog::open(data, SledLogOptions::default())?;
        Ok(Self { pools: vec![PoolState::default(); pools], log, commands: 0 })
    }

    /// Gives each pool the command that is made for it, in groups.
    fn each(&mut self, make: impl Fn(usize, &PoolState) -> Outcome<Command>) -> Outcome<()> {
        let places: Vec<usize> = (0..self.pools.len()).collect();
        for group in places.chunks(GROUP) {
            self.group(group, &make)?;
        }
        Ok(())
    }

    /// Decides a group of commands on different pools, writes it durably, and folds it.
    fn group(
        &mut self,
        places: &[usize],
        make: impl Fn(usize, &PoolState) -> Outcome<Command>,
    ) -> Outcome<()> {
        let now = SystemClock.now();
        let (mut batches, mut decided) = (Vec::new(), Vec::new());
        for place in places {
            let pool = self.pools.get(*place).ok_or("no such pool")?;
            let command = make(*place, pool)?;
            let decision = pool.decide(&command, now, &LIMITS);
            decision.answer?;
            self.commands += 1;
            let id = CommandId(Uuid::from_u128(self.commands as u128));
            let events = with_payloads(&decision.events, &command, (now, id));
            let stream = StreamId::Pool(pool_id(*place)?);
            let write = StreamWrite { stream, expected: pool.version(), events };
            batches.push(Batch { writes: vec![write] });
            decided.push((*place, decision.events));
        }
        let outcomes = self.log.append(self.log.head()?, batches);
        outcomes.into_iter().try_for_each(|outcome| outcome.map(drop))?;
        for (place, events) in decided {
            let pool = self.pools.get_mut(place).ok_or("no such pool")?;
            events.iter().try_for_each(|event| pool.evolve(event, now))?;
        }
        Ok(())
    }

    fn fill(&mut self) -> Outcome<()> {
        self.each(|place, _| {
            let package = |n| new_package(place * PACKAGES + n);
            Ok(Command::Upload((0..PACKAGES).map(package).collect::<Outcome<_>>()?))
        })
    }

    /// Reserves and spends all packages. Returns how long each step of the two took all pools.
    fn use_up(&mut self) -> Outcome<Vec<Duration>> {
        let mut spans = Vec::new();
        for lap in 0..PACKAGES {
            let reservation =
                move |place| ReservationId(Uuid::from_u128((lap * POOLS + place) as u128));
            let holder = PoolId::new("inviter", "phone")?;
            let group = GroupId::new(&[7; 32])?;
            let start = instant();
            self.each(|place, _| {
                let (holder, group) = (holder.clone(), group.clone());
                let reservation = reservation(place);
                Ok(Command::Reserve {
                    reservation,
                    holder,
                    group,
                    ciphersuites: Vec::new(),
                    required: keypool_projections::RequiredCapabilities::default(),
                    introduced: false,
                    last_resort_only: false,
                })
            })?;
            self.each(|place, pool| {
                let (id, holder, group) = (reservation(place), holder.clone(), group.clone());
                let made = pool.reservation(id).ok_or("it was not reserved")?;
                let keypackage_ref = made.keypackage_ref.clone();
                let claim = Claim { keypackage_ref, reservation: id, holder };
                Ok(Command::Spend { claim, group })
            })?;
            spans.push(start.elapsed());
        }
        Ok(spans)
    }
}

fn with_payloads(
    events: &[Event],
    command: &Command,
    (at, id): (Timestamp, CommandId),
) -> Vec<NewEvent> {
    let mut bytes = match command {
        Command::Upload(packages) => packages.iter().map(|package| package.bytes.clone()).collect(),
        _ => Vec::new(),
    }
    .into_iter();
    let request = Hash::of(&id.0.as_u128().to_be_bytes());
    let new = |event: &Event| NewEvent {
        at,
        command: id,
        request,
        event: event.clone(),
        payload: bytes.next().unwrap_or_default(),
    };
    events.iter().map(new).collect()
}

fn pool_id(place: usize) -> Outcome<PoolId> {
    Ok(PoolId::new(&format!("user{place}"), "phone")?)
}

fn register(place: usize) -> Outcome<Command> {
    let key = Hash::of(&place.to_be_bytes());
    let (signature_key, credential) =
        (SignatureKey::new(key.as_bytes())?, format!("user{place}/phone"));
    Ok(Command::Register { signature_key, credential, statement: None })
}

fn new_package(n: usize) -> Outcome<NewPackage> {
    let digest = Hash::of(&n.to_be_bytes());
    let facts = PackageFacts {
        keypackage_ref: KeyPackageRef::new(digest.as_bytes())?,
        not_before: Timestamp::from_millis(0),
        not_after: Timestamp::MAX,
        ciphersuite: 1,
        credential: Hash::of(b"a credential"),
        init_key: digest,
        last_resort: false,
        capabilities: None,
    };
    Ok(NewPackage { facts, bytes: vec![7; PACKAGE_BYTES], leaf_key: None })
}

#[expect(clippy::disallowed_methods, reason = "a measurement, by which nothing is decided")]
fn instant() -> Instant {
    Instant::now()
}

/// The memory of this process now, in bytes, as Linux tells it; 0 elsewhere.
fn memory_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<usize>().ok());
    kib.unwrap_or_default() * 1024
}

/// The size of a folder on the disk, in bytes.
fn disk_bytes(folder: &Path) -> io::Result<usize> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let about = entry.metadata()?;
        let taken = usize::try_from(about.blocks()).unwrap_or_default() * 512;
        bytes += if about.is_dir() { disk_bytes(&entry.path())? } else { taken };
    }
    Ok(bytes)
}

fn print(name: &str, value: usize) -> io::Result<()> {
    writeln!(io::stdout(), "{name} = {value}")
}

fn measure_memory(folder: &Path) -> Outcome<()> {
    let data = folder.join("memory");
    let empty = memory_of(&folder.join("empty"), 0)?;
    let mut machine = Machine::new(&data, MANY_POOLS)?;
    machine.each(|place, _| register(place))?;
    drop(machine);
    // Twice: the first start keeps what the second begins with.
    memory_of(&data, 0)?;
    let registered = memory_of(&data, 0)?;
    let mut machine = Machine::new(&data, 0)?;
    machine.pools = vec![registered_pool()?; MANY_POOLS];
    machine.commands = MANY_POOLS;
    machine.fill()?;
    drop(machine);
    fs::remove_dir_all(data.join("sled"))?;
    memory_of(&data, 0)?;
    let [some, all] = [UNPACKED_POOLS, MANY_POOLS].map(|asked| memory_of(&data, asked));
    let packed = all?.saturating_sub(some?);
    print("bytes_per_idle_pool", registered.saturating_sub(empty) / MANY_POOLS)?;
    let added = (MANY_POOLS - UNPACKED_POOLS) * PACKAGES;
    print("bytes_per_package_memory", packed / added)?;
    Ok(())
}

/// The memory that groups of two take, each with the mailboxes of its members, in which nothing waits; and
/// a mailbox of these by itself.
fn measure_groups(folder: &Path) -> Outcome<()> {
    let empty = memory_of(&folder.join("no groups"), 0)?;
    let mut each = Vec::new();
    for members in [1, 2] {
        let data = folder.join(format!("groups of {members}"));
        let log = SledLog::open(&data, SledLogOptions::default())?;
        let places: Vec<usize> = (0..GROUPS).collect();
        for places in places.chunks(GROUP) {
            let batches = places.iter().map(|place| group_of(*place, members));
            let batches = batches.collect::<Outcome<Vec<Batch>>>()?;
            append_at_head(&log, &batches).into_iter().try_for_each(|outcome| outcome.map(drop))?;
        }
        drop(log);
        // Twice: the first start keeps what the second begins with.
        memory_of(&data, 0)?;
        each.push(memory_of(&data, 0)?.saturating_sub(empty) / GROUPS);
    }
    let [one, two] = each.as_slice() else { return Err("two figures are needed".into()) };
    print("bytes_per_group_of_two_and_its_mailboxes", *two)?;
    print("bytes_per_empty_mailbox", two.saturating_sub(*one))?;
    Ok(())
}

/// The making of a group, and the Commit that adds a second member, if there is one.
fn group_of(place: usize, members: usize) -> Outcome<Batch> {
    let device = |n: usize| pool_id(2 * place + n);
    let group = GroupId::new(Hash::of(&place.to_be_bytes()).as_bytes())?;
    let mut events = vec![Event::GroupMade { creator: device(0)? }];
    if 1 < members {
        let (added, removed, not_kept) = (vec![device(1)?], Vec::new(), Vec::new());
        let committer = device(0)?;
        events.push(Event::Committed { epoch: 0, committer, added, removed, not_kept });
    }
    let command = CommandId(Uuid::from_u128(place as u128));
    let request = Hash::of(&place.to_be_bytes());
    let at = SystemClock.now();
    let new = |event| NewEvent { at, command, request, event, payload: Vec::new() };
    let events = events.into_iter().map(new).collect();
    Ok(Batch { writes: vec![StreamWrite { stream: StreamId::Group(group), expected: 0, events }] })
}

/// A pool as its registration leaves it.
fn registered_pool() -> Outcome<PoolState> {
    let mut pool = PoolState::default();
    let now = SystemClock.now();
    for event in pool.decide(&register(0)?, now, &LIMITS).events {
        pool.evolve(&event, now)?;
    }
    Ok(pool)
}

/// The memory of a process that has opened these pools and been asked for so many of them.
fn memory_of(data: &Path, asked: usize) -> Outcome<usize> {
    let mut process = Process::new(env::current_exe()?);
    let output = process.arg("open").arg(data).arg(asked.to_string()).output()?;
    if !ExitStatus::success(&output.status) {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// Opens pools, asks for some, prints the memory of that, and closes them.
fn open(data: &Path, asked: usize) -> Outcome<()> {
    let log = Arc::new(SledLog::open(data, SledLogOptions::default())?);
    let pools = Pools::open_with(
        Arc::clone(&log),
        log,
        Arc::new(SystemClock),
        LIMITS,
        DeliveryLimits::STANDARD,
        &Progress::default(),
    )?;
    for place in 0..asked {
        pools.pool(&pool_id(place)?).ok_or("no such pool")?;
    }
    writeln!(io::stdout(), "{}", memory_bytes())?;
    pools.close();
    Ok(())
}

fn measure_log(folder: &Path) -> Outcome<()> {
    let data = folder.join("data");
    let mut machine = Machine::new(&data, POOLS)?;
    machine.each(|place, _| register(place))?;
    let empty = disk_bytes(&data)?;
    machine.fill()?;
    let full = disk_bytes(&data)?;
    let mut spans = machine.use_up()?;
    let (used, journal) = (disk_bytes(&data)?, disk_bytes(&data.join("journal"))?);
    spans.sort_unstable();
    let median = spans.get(spans.len() / 2).ok_or("nothing was measured")?;
    let packages = POOLS * PACKAGES;
    print("bytes_per_package_disk", full.saturating_sub(empty) / packages)?;
    print("bytes_per_event_disk", used.saturating_sub(full) / (2 * packages))?;
    print("of all bytes on the disk, in percent, the journal's", journal * 100 / used.max(1))?;
    let per_second = 2 * POOLS as u128 * 1_000_000 / median.as_micros().max(1);
    print("commands_per_s_64", usize::try_from(per_second)?)?;
    Ok(())
}

fn measure_syncs(folder: &Path) -> Outcome<()> {
    let mut file = File::create(folder.join("synced"))?;
    file.write_all(&vec![0; SYNCS * 4096])?;
    file.sync_all()?;
    file.seek(SeekFrom::Start(0))?;
    let mut spans = Vec::new();
    for _ in 0..SYNCS {
        file.write_all(&[7; 4096])?;
        let start = instant();
        file.sync_data()?;
        spans.push(start.elapsed());
    }
    spans.sort_unstable();
    let median = spans.get(SYNCS / 2).ok_or("nothing was measured")?;
    print("fdatasync_us", usize::try_from(median.as_micros())?)?;
    Ok(())
}

/// How much the disk takes in a second, durably, in pieces of a mebibyte.
fn measure_writing(folder: &Path) -> Outcome<()> {
    let mut file = File::create(folder.join("written"))?;
    let piece = vec![7; 1 << 20];
    let mut spans = Vec::new();
    for _ in 0..SYNCS {
        let start = instant();
        file.write_all(&piece)?;
        file.sync_data()?;
        spans.push(start.elapsed());
    }
    spans.sort_unstable();
    let median = spans.get(SYNCS / 2).ok_or("nothing was measured")?;
    print("disk_mib_per_s", usize::try_from(1_000_000 / median.as_micros().max(1))?)?;
    Ok(())
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [open_pools, data, asked] = arguments.as_slice()
        && open_pools == "open"
    {
        return open(Path::new(data), asked.parse()?);
    }
    let folder = tempfile::tempdir()?;
    measure_groups(folder.path())?;
    if arguments.iter().any(|argument| argument == "groups") {
        return Ok(());
    }
    measure_memory(folder.path())?;
    measure_syncs(folder.path())?;
    measure_writing(folder.path())?;
    measure_log(folder.path())
}
