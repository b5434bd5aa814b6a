//! A log in memory that commands are recorded in, as the page's source.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use keypool_api::RefusedRequest;
use keypool_ledger::{
    Batch, Clock, CommandId, Event, EventLog, Hash, ManualClock, MemoryLog, NewEvent, PoolId,
    ReadError, SignatureKey, StreamId, StreamWrite, log::append_at_head,
};
use keypool_operator_page::{OperatorPage, PageReply, PageSource};
use keypool_projections::{
    Answer, Command, Limits, PoolState, Rejection, changes_identity, directory::DeviceChange,
};
use uuid::Uuid;

use crate::history::{START, claim, group, package, pool, reservation};

/// A log, and the pools as its events have left them.
pub(crate) struct Recorded {
    pub(crate) log: MemoryLog,
    pub(crate) clock: ManualClock,
    pools: Mutex<BTreeMap<PoolId, PoolState>>,
    pub(crate) metrics: String,
    pub(crate) retention: Option<Duration>,
    pub(crate) backups: Option<PathBuf>,
    pub(crate) refusals: Vec<RefusedRequest>,
    commands: Mutex<u128>,
}

impl Recorded {
    /// A log of a server that has just started for the first time.
    pub(crate) fn new() -> Self {
        let recorded = Self {
            log: MemoryLog::default(),
            clock: ManualClock::at(START),
            pools: Mutex::default(),
            metrics: String::new(),
            retention: None,
            backups: None,
            refusals: Vec::new(),
            commands: Mutex::new(0),
        };
        let configured = Event::Configured(Limits::STANDARD.recorded());
        recorded.append(StreamId::Server, 0, &[configured]);
        recorded
    }

    /// Lets so many seconds pass.
    pub(crate) fn wait(&self, secs: u64) {
        self.clock.advance(Duration::from_secs(secs));
    }

    /// Decides a command, and records the events.
    pub(crate) fn run(&self, target: &str, command: &Command) -> Result<Answer, Rejection> {
        let (pool, mut pools) = (pool(target), self.pools.lock().unwrap());
        let state = pools.entry(pool.clone()).or_default();
        let decision = state.decide(command, self.clock.now(), &Limits::STANDARD);
        let version = state.version();
        for event in &decision.events {
            state.evolve(event, self.clock.now()).unwrap();
        }
        self.append(StreamId::Pool(pool), version, &decision.events);
        decision.answer
    }

    /// Records events of a history that no command decides here.
    pub(crate) fn append(&self, stream: StreamId, expected: u64, events: &[Event]) {
        let mut commands = self.commands.lock().unwrap();
        *commands += 1;
        let new = |event: &Event| NewEvent {
            at: self.clock.now(),
            command: CommandId(Uuid::from_u128(*commands)),
            request: Hash::of(&commands.to_be_bytes()),
            event: event.clone(),
            payload: Vec::new(),
        };
        let events: Vec<NewEvent> = events.iter().map(new).collect();
        if !events.is_empty() {
            let writes = vec![StreamWrite { stream, expected, events }];
            assert!(append_at_head(&self.log, &[Batch { writes }]).iter().all(Result::is_ok));
        }
    }

    pub(crate) fn upload(&self, owner: &str, names: &[&str]) {
        let packages = names.iter().map(|name| package(name)).collect();
        self.run(owner, &Command::Upload(packages)).unwrap();
    }

    pub(crate) fn reserve(&self, owner: &str, number: u8, holder: &str) -> Answer {
        self.run(owner, &reserve(number, holder)).unwrap()
    }

    pub(crate) fn register(&self, device: &str, byte: u8, credential: &str) {
        let signature_key = SignatureKey::new(&[byte; 32]).unwrap();
        let credential = credential.to_owned();
        let admit = Command::Admit { signature_key, credential, statement: None, frontend: None };
        self.run(device, &admit).unwrap();
    }

    /// The pool as its events have left it.
    pub(crate) fn state(&self, of: &str) -> PoolState {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.get(&pool(of)).cloned().unwrap_or_default()
    }
}

pub(crate) fn reserve(number: u8, holder: &str) -> Command {
    Command::Reserve {
        reservation: reservation(number),
        holder: pool(holder),
        group: group("g"),
        ciphersuites: Vec::new(),
        required: keypool_projections::RequiredCapabilities::default(),
        introduced: false,
        last_resort_only: false,
    }
}

impl PageSource for Recorded {
    fn refusals_of(&self, request_id: &str) -> Vec<RefusedRequest> {
        let refusals = self.refusals.iter().filter(|refused| refused.request_id == request_id);
        refusals.cloned().collect()
    }

    fn log(&self) -> &dyn EventLog {
        &self.log
    }

    fn pool(&self, pool: &PoolId) -> Option<PoolState> {
        self.pools.lock().unwrap().get(pool).cloned()
    }

    fn now(&self) -> keypool_ledger::Timestamp {
        self.clock.now()
    }

    fn limits(&self) -> Limits {
        Limits::STANDARD
    }

    fn retention(&self) -> Option<Duration> {
        self.retention
    }

    fn backups(&self) -> Option<&Path> {
        self.backups.as_deref()
    }

    fn metrics(&self) -> String {
        self.metrics.clone()
    }

    fn device_changes(&self, user: &str) -> Result<Vec<DeviceChange>, ReadError> {
        let records = self.log.read(1, usize::MAX)?.into_iter();
        let change = |record: keypool_ledger::Record| {
            let device = record.envelope.stream.pool().filter(|pool| pool.user() == user)?.clone();
            let (at, event) = (record.envelope.at, record.envelope.event);
            changes_identity(&event).then_some(DeviceChange {
                device,
                position: record.seq,
                at,
                event,
            })
        };
        Ok(records.filter_map(change).collect())
    }
}

/// A page and its source.
pub(crate) struct Shown {
    pub(crate) page: OperatorPage,
    pub(crate) source: Recorded,
}

/// The page of a log, which has read all of it.
pub(crate) fn page_of(source: Recorded) -> Shown {
    let page = OperatorPage::default();
    while page.follow(&source).unwrap() {}
    Shown { page, source }
}

impl Shown {
    pub(crate) fn get(&self, path: &str, query: &str) -> PageReply {
        self.page.get(&self.source, path, query).unwrap()
    }
}

/// The HTML at an address.
pub(crate) fn html(shown: &Shown, path: &str, query: &str) -> String {
    let PageReply { status, body, .. } = shown.get(path, query);
    assert_eq!(status, 200, "{body}");
    body
}

/// A log in which everything happens that a package can meet: bob has two devices, eve has lost a race.
pub(crate) fn story() -> Recorded {
    let recorded = Recorded { metrics: METRICS.to_owned(), ..Recorded::new() };
    recorded.register("bob/main", 1, "bob");
    recorded.register("bob/tablet", 2, "bob");
    recorded.register("alice/main", 3, "alice");
    recorded.wait(1);
    recorded.upload("bob", &["a", "b", "c", "d", "e2", "L"]);
    recorded.upload("alice", &["x"]);
    recorded.reserve("bob", 1, "alice");
    let first = |number, holder: &str| {
        let held = ["a", "b", "c", "d", "e2"].into_iter().find(|name| {
            recorded
                .state("bob")
                .reservation(reservation(number))
                .is_some_and(|made| made.keypackage_ref == crate::history::reference(name))
        });
        claim(held.unwrap(), number, holder)
    };
    recorded.wait(2);
    recorded.run("bob", &Command::Spend { claim: first(1, "alice"), group: group("g") }).unwrap();
    recorded.reserve("bob", 2, "eve");
    recorded.reserve("bob", 3, "alice");
    recorded.run("bob", &Command::Release(first(3, "alice"))).unwrap();
    recorded.wait(150);
    // All others first, so that the lapsed one is handed on to carol.
    for number in 4..=7 {
        recorded.reserve("bob", number, "carol");
        recorded.wait(3);
    }
    let late = Command::Spend { claim: first(2, "eve"), group: group("g") };
    recorded.run("bob", &late).unwrap_err();
    recorded.wait(20);
    recorded
}

/// Figures as a server gives them.
const METRICS: &str = "\
# TYPE keypool_ready gauge\nkeypool_ready 1\n\
keypool_disk_free_bytes 8589934592\n\
keypool_http_requests_total{route=\"/keypackages/reserve\",method=\"POST\",status=\"200\"} 7\n\
keypool_http_requests_total{route=\"/keypackages/spend\",method=\"POST\",status=\"409\"} 1\n\
keypool_problems_total{code=\"reservation_lost\"} 1\n\
keypool_problems_total{code=\"rate_limited\"} 0\n\
keypool_log_position 31\nkeypool_checkpoint_position 31\nkeypool_scrub_position 0\n\
keypool_connections 4\nkeypool_streams 2\nkeypool_mailbox_polls 1\nkeypool_queue_commands 0\n";
