//! The scheduler: it draws each step, and checks after each step that every promise holds.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use keypool_ledger::{
    Clock, CommandId, Event, Hash, Key, PackageFacts, Record, ReleaseReason, ReservationId,
    StreamId, Timestamp,
};
use keypool_server::pools::Step;

use super::{
    agents::Agent,
    calls::{Ask, Call, Meaning, Outcome},
    dice::{Dice, mix},
    log::SharedEngine,
    observer::Observer,
    rates::Rates,
    server::{Process, SimulatedServer},
};
use crate::history::START;

/// How many packets are on their way at most.
const PACKETS_MAX: usize = 200;
/// How many requests a server has under way at most.
const RUNNING_MAX: usize = 60;

/// How far a clock may be ahead of the log at a start, and how much it may gain since.
const AHEAD_MAX: Duration = Duration::from_mins(65);

/// Something on its way between a client and a server.
#[derive(Clone)]
enum Packet {
    Request(usize),
    Answer(usize, Rc<Outcome>),
}

/// Everything that is simulated.
pub(crate) struct World {
    pub(crate) dice: Arc<Dice>,
    pub(crate) rates: Rates,
    pub(crate) engine: SharedEngine,
    pub(crate) servers: Vec<SimulatedServer>,
    pub(crate) agents: Vec<Agent>,
    pub(crate) calls: Vec<Call>,
    packets: Vec<Packet>,
    pub(crate) observer: Observer,
    /// The first outcome that was told of each command with a record.
    pub(crate) told: HashMap<CommandId, Rc<Outcome>>,
    /// The time as it is; the clocks of the servers may show another.
    pub(crate) now: Timestamp,
    /// Whether faults happen.
    pub(crate) armed: bool,
    is_loud: bool,
    step: u64,
    digest: u64,
    pub(crate) frozen: BTreeSet<usize>,
    /// Packages and reservations that may not be in the log yet.
    pub(crate) recent: RefCell<(Vec<PackageFacts>, Vec<ReservationId>)>,
    /// The log's time when it last kept step with a right clock, and the time then.
    last: (Timestamp, Timestamp),
}

impl World {
    pub(crate) fn new(seed: u64, is_loud: bool) -> Self {
        let dice = Arc::new(Dice::new(seed));
        let rates = Rates::drawn(&dice);
        let servers = (0..rates.servers).map(|_| SimulatedServer::new(START, &dice, &rates));
        let mut world = Self {
            servers: servers.collect(),
            agents: (0..rates.agents).map(Agent::new).collect(),
            dice,
            rates,
            engine: SharedEngine::default(),
            calls: Vec::new(),
            packets: Vec::new(),
            observer: Observer::new(),
            told: HashMap::new(),
            now: START,
            armed: true,
            is_loud,
            step: 0,
            digest: 0,
            frozen: BTreeSet::new(),
            recent: RefCell::default(),
            last: (START, START),
        };
        world.say(|| format!("{rates:?}"));
        (0..world.servers.len()).for_each(|server| world.start(server));
        world
    }

    /// Carries out steps, and ends the run.
    ///
    /// Returns a digest of all that happened and of the bytes of the log.
    pub(crate) fn run(mut self, steps: u64) -> (u64, Hash) {
        (0..steps).for_each(|_| self.step());
        self.end()
    }

    pub(crate) fn digests(&self) -> (u64, Hash) {
        let engine = self.engine.lock().unwrap();
        let bytes = engine.records.iter().flat_map(|record| &record.envelope_bytes);
        (self.digest, Hash::of(&bytes.copied().collect::<Vec<u8>>()))
    }

    #[expect(clippy::print_stdout, reason = "a seed that is run alone tells all that happens")]
    pub(crate) fn say(&self, text: impl FnOnce() -> String) {
        if self.is_loud {
            println!("{:>5} {}", self.step, text());
        }
    }

    /// Notes a number that must be the same in each run of the seed.
    fn note(&mut self, number: u64) {
        self.digest = mix(self.digest ^ number);
    }

    fn step(&mut self) {
        self.step += 1;
        let drawn = self.dice.below(1000);
        self.note(drawn);
        match drawn {
            0..250 => self.act(),
            250..530 => (0..=self.dice.below(3)).for_each(|_| self.carry_packet()),
            530..890 => self.work(),
            890..930 => self.pass_time(),
            930..955 => self.begin(Ask::Sweep),
            955..970 => self.operate(),
            970..985 => self.catch_up(),
            985..990 => self.pack(),
            _ => {}
        }
        self.suffer();
    }

    /// A server, if it is up.
    fn some_server(&self) -> Option<usize> {
        let server = self.dice.index(self.servers.len());
        self.servers[server].process.is_some().then_some(server)
    }

    /// Sends a request, or sends it again.
    pub(crate) fn send(&mut self, call: usize) {
        if self.packets.len() < PACKETS_MAX {
            self.packets.push(Packet::Request(call));
        }
    }

    /// The network delivers something: any of the packets, so that they come in any order.
    fn carry_packet(&mut self) {
        if self.packets.is_empty() {
            return;
        }
        let packet = self.packets.swap_remove(self.dice.index(self.packets.len()));
        if self.dice.chance(self.rates.repeated) {
            self.packets.push(packet.clone());
        }
        if self.dice.chance(self.rates.lost) {
            return;
        }
        match packet {
            Packet::Request(call) => {
                let Some(server) = self.some_server() else { return };
                let Call { ask, device, .. } = &self.calls[call];
                let process = self.servers[server].process.as_mut().unwrap();
                if RUNNING_MAX < process.n_running() {
                    return;
                }
                process.hear_time(device, self.now);
                process.begin(Some(call), ask.clone());
                self.say(|| format!("server {server} is asked {call}"));
                self.attend(server, None);
            }
            Packet::Answer(call, outcome) => self.learn(call, &outcome),
        }
    }

    /// The network delivers every answer that is on its way, and loses every request.
    pub(crate) fn carry_answers(&mut self) {
        for packet in std::mem::take(&mut self.packets) {
            if let Packet::Answer(call, outcome) = packet {
                self.learn(call, &outcome);
            }
        }
    }

    /// Begins a request of the operator, or of the server itself.
    fn begin(&mut self, ask: Ask) {
        let Some(server) = self.some_server() else { return };
        self.say(|| format!("server {server} is told {ask:?}"));
        self.servers[server].process.as_mut().unwrap().begin(None, ask);
        self.attend(server, None);
    }

    pub(crate) fn order(&mut self, ask: Ask) {
        self.begin(ask);
    }

    /// A server carries out a piece of its work, or is started again.
    fn work(&mut self) {
        let server = self.dice.index(self.servers.len());
        let Some(process) = &self.servers[server].process else {
            if self.dice.chance(2_000) {
                self.start(server);
            }
            return;
        };
        if process.has_failed() && self.dice.chance(2_000) {
            return self.kill(server);
        }
        let (step, times) = match self.dice.below(100) {
            drawn if drawn < self.rates.commits => (Step::Commit, 1),
            0..85 => (Step::Read, 1 + self.dice.below(6)),
            85..93 => (Step::Repeat, 1 + self.dice.below(3)),
            93..97 => (Step::Snapshot, 1),
            _ => (Step::Follow, 1),
        };
        for _ in 0..times {
            self.attend(server, Some(step));
        }
    }

    pub(crate) fn start(&mut self, server: usize) {
        let Self { servers, engine, dice, rates, armed, last, now, .. } = self;
        servers[server].start(engine, dice, rates, *armed);
        // A process that starts knows the log's time alone.
        if let ([_], Some(record)) = (&**servers, engine.lock().unwrap().records.last()) {
            *last = (record.envelope.at, *now);
        }
        let is_up = self.servers[server].process.is_some();
        self.say(|| format!("server {server} starts: {is_up}"));
        self.observe();
        self.compare(server);
    }

    pub(crate) fn kill(&mut self, server: usize) {
        self.say(|| format!("server {server} is killed"));
        self.servers[server].kill();
        if self.dice.chance(3_000) {
            self.servers[server].snapshots.set_back();
        }
    }

    /// Stops a server as one that is told to, and hears its last answers.
    fn stop(&mut self, server: usize) {
        self.say(|| format!("server {server} is stopped"));
        let before = self.servers[server].process.as_ref().map_or(0, Process::published);
        self.servers[server].stop();
        self.attend_since(before, server, None);
        self.kill(server);
    }

    /// Has a server carry out a piece of work, if any; then sees to the records and answers that are there since.
    pub(crate) fn attend(&mut self, server: usize, step: Option<Step>) -> Vec<usize> {
        let before = self.servers[server].process.as_ref().map_or(0, Process::published);
        self.attend_since(before, server, step)
    }

    /// As [`World::attend`], of a server that has known the log through the record `before`.
    fn attend_since(&mut self, before: u64, server: usize, step: Option<Step>) -> Vec<usize> {
        let armed = self.armed;
        let Some(process) = &mut self.servers[server].process else { return Vec::new() };
        let answers = process.work(step, armed);
        let has_crashed = process.has_crashed();
        self.observe();
        let mut answered = Vec::new();
        for (call, outcome) in answers {
            self.say(|| format!("server {server} answers {call:?}: {}", outcome.text()));
            let outcome = Rc::new(outcome);
            self.check_answer(before, call, &outcome);
            if let Some(call) = call {
                answered.push(call);
                self.packets.push(Packet::Answer(call, outcome));
            }
        }
        if has_crashed {
            self.kill(server);
        } else {
            self.compare(server);
        }
        answered
    }

    /// Sees the records that are new.
    pub(crate) fn observe(&mut self) {
        loop {
            let next = self.engine.lock().unwrap().records.get(self.observer.seen).cloned();
            let Some(record) = next else { return };
            self.say(|| {
                let envelope = &record.envelope;
                let at = envelope.at.as_millis();
                format!("  record {} at {at}: {} {:?}", record.seq, envelope.stream, envelope.event)
            });
            let touched = self.observer.take(&record);
            self.check_time(&record);
            self.note(record.envelope.at.as_millis() ^ record.seq);
            for server in &mut self.servers {
                server.uncompared.extend(touched.iter().cloned());
            }
        }
    }

    /// The time of the log follows no clock that has leapt by more than a start allows. After a start, and after a
    /// clock was accepted, every open reservation has a full TTL again.
    fn check_time(&mut self, record: &Record) {
        let [server] = &mut *self.servers else { return };
        let ((last, written), at) = (self.last, record.envelope.at);
        let passed = last.after(self.now.since(written));
        let is_accepted = matches!(record.envelope.event, Event::ClockAccepted { .. });
        let is_begun = is_accepted || record.seq == 1;
        assert!(is_begun || at <= passed.after(AHEAD_MAX), "the clock has leapt");
        // While the clock is behind, the log's time stands still; once it is right, all that has passed counts.
        if is_begun || passed <= at {
            self.last = (at, self.now);
        }
        let Some(process) = &mut server.process else { return };
        match &record.envelope.event {
            Event::ClockAccepted { to, .. } => {
                process.lapse_floor = to.after(self.rates.limits.reservation_ttl);
            }
            Event::Released { reason: ReleaseReason::Lapsed, .. } => {
                let earliest = process.lapse_floor.after(self.rates.limits.grace);
                assert!(earliest <= record.envelope.at, "a lapse too soon after a start");
            }
            _ => {}
        }
    }

    /// Compares the published states of a server with the log, if the server knows the whole log.
    pub(crate) fn compare(&mut self, server: usize) {
        let is_alone = self.servers.len() == 1;
        let SimulatedServer { process, uncompared, .. } = &mut self.servers[server];
        let Some(process) = process else { return };
        let len = self.engine.lock().unwrap().records.len() as u64;
        if process.published() < len {
            let is_hurt = process.log.hurt.load(Ordering::Relaxed) || process.has_failed();
            assert!(!is_alone || is_hurt, "a server does not publish its own records");
            return;
        }
        for stream in std::mem::take(uncompared) {
            match &stream {
                StreamId::Pool(pool) => {
                    let observed = &self.observer.pools[pool];
                    let view = process.pools.pool(pool).expect("a pool with a history");
                    let mut state = observed.state.clone();
                    state.forget();
                    assert_eq!(view.head, observed.head, "the head of {pool}");
                    assert_eq!(view.position, observed.position, "the position of {pool}");
                    assert!(view.state == state, "{pool}: {:?} is not {state:?}", view.state);
                    assert_eq!(process.pools.registered_key(pool), observed.key, "of {pool}");
                    if let Some(key) = &observed.key {
                        assert_eq!(process.pools.pool_of_key(key).as_ref(), Some(pool));
                    }
                }
                StreamId::Mailbox(device) => {
                    let observed = self.observer.deliveries.mailboxes.get(device);
                    let observed = observed.cloned().unwrap_or_default();
                    assert_eq!(process.pools.mailbox(device), observed, "{device}");
                }
                StreamId::Group(group) => {
                    let observed = self.observer.deliveries.groups.get(group);
                    let observed = observed.cloned().unwrap_or_default();
                    assert_eq!(process.pools.group(group), observed, "{group}");
                }
                StreamId::Server => {
                    let ours = process.pools.suspended_users();
                    let theirs = self.observer.suspensions.iter();
                    let theirs = theirs.map(|(user, since)| (user.to_owned(), since.clone()));
                    assert_eq!(ours, theirs.collect::<Vec<_>>());
                }
                StreamId::Names(_) => {}
            }
        }
    }

    /// Checks that an answer is in the log, and is the answer that was given before. The server has known the log at least through the
    /// record `before`.
    fn check_answer(&mut self, before: u64, call: Option<usize>, outcome: &Rc<Outcome>) {
        let engine = Arc::clone(&self.engine);
        let engine = engine.lock().unwrap();
        if let Outcome::Suspension(Ok(done)) = &**outcome {
            let position = done.position.unwrap_or_default();
            assert!(position <= engine.records.len() as u64, "a suspension that is not in the log");
        }
        let Some(call) = call else { return };
        let id = self.calls[call].ask.id().unwrap();
        let (meaning, place) = (outcome.meaning(), outcome.place());
        let is_new = place.is_some_and(|(position, repeated)| !repeated && 0 < position);
        let records = engine.found(Key::Command(id));
        let records: Vec<&Record> = records.filter(|one| is_new || one.seq <= before).collect();
        self.note(mix(call as u64) ^ meaning as u64 ^ place.map_or(7, |(position, _)| position));
        if self.calls[call].is_misuse {
            assert!(!is_new, "an id was used for two requests: {}", outcome.text());
            return;
        }
        outcome.check(&records, engine.records.len() as u64);
        self.observer.check_promise(&self.calls[call].ask, outcome, (&engine, before));
        if meaning != Meaning::Unknown && !records.is_empty() {
            let told = self.told.entry(id).or_insert_with(|| Rc::clone(outcome));
            let (first, now) = (told.text(), outcome.text());
            assert!(told.says_the_same_as(outcome), "call {call}: {first}, and then {now}");
        }
    }

    /// Time passes, for clocks that stand still as well.
    fn pass_time(&mut self) {
        if self.dice.chance(2_500) {
            return self.pass_to_a_lapse();
        }
        let span = match self.dice.below(100) {
            0..70 => Duration::from_millis(self.dice.below(5_000)),
            70..95 => Duration::from_secs(self.dice.below(100)),
            _ => Duration::from_secs(self.dice.below(2_000)),
        };
        self.advance(span);
    }

    /// Time passes until a reservation lapses, or until the millisecond before; then a server sweeps.
    fn pass_to_a_lapse(&mut self) {
        let pools = self.observer.pools.values();
        let open = pools.flat_map(|pool| pool.state.open_reservations());
        let deadlines: Vec<Timestamp> = open.map(|(_, made)| made.deadline).collect();
        let Some(deadline) = self.dice.pick(&deadlines).copied() else { return };
        let process = self.servers[0].process.as_ref();
        let floor = process.map_or(deadline, |process| process.lapse_floor);
        let lapse = deadline.max(floor).after(self.rates.limits.grace);
        self.advance(lapse.before(Duration::from_millis(self.dice.below(2))).since(self.now));
        self.begin(Ask::Sweep);
        for server in 0..self.servers.len() {
            self.attend(server, Some(Step::Commit));
        }
    }

    pub(crate) fn advance(&mut self, span: Duration) {
        self.now = self.now.after(span);
        for (at, server) in self.servers.iter().enumerate() {
            let shown = server.clock.now();
            server.clock.advance(span);
            if self.frozen.contains(&at) {
                server.clock.set(shown);
            }
        }
    }

    /// A server hears of records of the others.
    fn catch_up(&mut self) {
        let Some(server) = self.some_server() else { return };
        let process = self.servers[server].process.as_ref().unwrap();
        process.log.catch_up(false);
        self.observe();
    }

    /// A server has memory for few states only.
    fn pack(&mut self) {
        let Some(server) = self.some_server() else { return };
        self.servers[server].process.as_ref().unwrap().pools.pack_all();
    }

    /// Perhaps something happens to a server: it is killed or stopped, or its clock is set.
    fn suffer(&mut self) {
        let server = self.dice.index(self.servers.len());
        if self.dice.chance(self.rates.killed) {
            self.kill(server);
        }
        if self.dice.chance(self.rates.restarted) && self.servers[server].process.is_some() {
            self.stop(server);
        }
        if self.dice.chance(self.rates.clock_set) {
            self.set_clock(server);
        }
        if self.dice.chance(100) {
            self.frozen.remove(&server);
            self.servers[server].clock.set(self.now);
        }
    }

    fn set_clock(&mut self, server: usize) {
        let by = Duration::from_millis(self.dice.below(4_000));
        let far = Duration::from_secs(self.dice.below(200_000));
        self.frozen.remove(&server);
        let shown = match self.dice.below(5) {
            0 => self.now.before(by),
            1 => self.now.after(by),
            2 => self.now.before(far),
            3 => self.now.after(far),
            _ => {
                self.frozen.insert(server);
                self.now
            }
        };
        self.say(|| format!("the clock of server {server} is set to {shown}"));
        self.servers[server].clock.set(shown);
    }
}
