//! One history that keeps every promise, and the same history with one promise broken: the fixtures
//! of the auditor, made by the rules themselves and broken by hand.

use std::{collections::HashMap, ops::ControlFlow, path::Path, sync::Arc};

use keypool_auditor::{
    export::ExportWriter,
    invariants::{Auditor, InvariantParams},
    source::Source,
};
use keypool_ledger::{
    Clock, CommandId, Event, EventEnvelope, EventLog, Hash, InvitationAnswer, KeyPackageRef,
    ManualClock, MemoryLog, PoolId, RawRecord, Record, ReleaseReason, ReservationId, RevokeReason,
    SignatureKey, StreamHead, StreamId, codec,
};
use keypool_projections::{Acknowledgement, Claim, Command, Limits, RevokeScope};
use keypool_server::pools::{DeliveryCommand, DeliveryRequest, Pools, Target, Welcome};
use uuid::Uuid;

use crate::{
    history::{START, at, group, package, pool, reference},
    service::{block_on, request},
};

/// An id that looks drawn at random and is the same again.
fn drawn(what: &str, number: u128) -> Uuid {
    let digest = Hash::of(format!("{what} {number}").as_bytes());
    let bytes = digest.as_bytes().first_chunk().unwrap();
    uuid::Builder::from_random_bytes(*bytes).into_uuid()
}

/// The reservation with a number.
pub(crate) fn reservation(number: u8) -> ReservationId {
    ReservationId(drawn("reservation", u128::from(number)))
}

fn claim(name: &str, number: u8, holder: &str) -> Claim {
    let (keypackage_ref, reservation) = (reference(name), reservation(number));
    Claim { keypackage_ref, reservation, holder: pool(holder) }
}

fn reserve(number: u8, holder: &str) -> Command {
    let (reservation, holder, group) = (reservation(number), pool(holder), group("g"));
    Command::Reserve {
        reservation,
        holder,
        group,
        ciphersuites: Vec::new(),
        required: keypool_projections::RequiredCapabilities::default(),
        introduced: false,
        last_resort_only: false,
    }
}

fn spend(name: &str, number: u8, holder: &str) -> Command {
    Command::Spend { claim: claim(name, number, holder), group: group("g") }
}

/// Makes a clean history by the requests of users to a service.
struct Service {
    log: Arc<MemoryLog>,
    clock: Arc<ManualClock>,
    pools: Pools<Arc<MemoryLog>>,
    asked: u128,
}

impl Service {
    fn new() -> Self {
        let (log, clock) = (Arc::new(MemoryLog::default()), Arc::new(ManualClock::at(START)));
        let shared: Arc<dyn Clock> = clock.clone();
        let pools = Pools::open(Arc::clone(&log), shared, Limits::STANDARD).unwrap();
        Self { log, clock, pools, asked: 0 }
    }

    fn wait_until(&self, second: u64) {
        self.clock.advance(at(second).since(self.clock.now()));
    }

    /// Asks for something at a second of the story, whether it is granted or refused.
    fn ask(&mut self, second: u64, target: &str, command: Command) {
        self.wait_until(second);
        self.asked += 1;
        let id = drawn("request", self.asked).as_u128();
        let request = request(id, Target::Pool(pool(target)), command);
        let _ = block_on(self.pools.execute(request));
    }

    fn deliver(&mut self, second: u64, caller: &str, command: DeliveryCommand) {
        self.wait_until(second);
        self.asked += 1;
        let (id, digest) = (CommandId(drawn("request", self.asked)), Hash::of(b"a delivery"));
        let request = DeliveryRequest { command, caller: pool(caller), id, digest };
        block_on(self.pools.deliver(request)).unwrap();
    }

    fn sweep(&mut self, second: u64) {
        self.wait_until(second);
        block_on(self.pools.sweep()).unwrap();
    }
}

fn upload(names: &[&str]) -> Command {
    Command::Upload(names.iter().map(|name| package(name)).collect())
}

fn register(byte: u8, name: &str) -> Command {
    let signature_key = SignatureKey::new(&[byte; 32]).unwrap();
    Command::Register { signature_key, credential: name.to_owned(), statement: None }
}

/// A story in which everything happens that may: spends in time and late, a package given back, a
/// lapse, a conflict, a renewal, a withdrawal, a group with its Commits, and lifetimes that end.
///
/// The log is read from its fixture: it was made before groups were, and its bytes stay as they are.
pub(crate) fn clean() -> Vec<Record> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/histories/clean.export");
    let mut records = Vec::new();
    let source = Source::open(&path).unwrap();
    source
        .read(&mut |raw, envelope| {
            let (envelope_bytes, payload) = (raw.envelope_bytes.to_vec(), raw.payload.to_vec());
            records.push(Record { seq: raw.seq, envelope, envelope_bytes, payload });
            ControlFlow::Continue(())
        })
        .unwrap();
    records
}

/// The same story as the rules of today tell it: its group is made first.
fn clean_of_today() -> Vec<Record> {
    let mut service = Service::new();
    for (byte, name) in [(1, "bob"), (2, "alice"), (3, "carol"), (4, "dave")] {
        service.ask(0, name, register(byte, name));
    }
    service.ask(1, "bob", upload(&["a", "b", "c", "d", "e", "L"]));
    service.ask(2, "dave", upload(&["p", "q"]));
    // Alice invites bob in time.
    service.ask(10, "bob", reserve(1, "alice"));
    service.ask(20, "bob", Command::Renew(claim("a", 1, "alice")));
    service.ask(30, "bob", spend("a", 1, "alice"));
    // Carol gives hers back; Alice lets it lapse; Carol is given it, and Alice comes too late.
    service.ask(40, "bob", reserve(2, "carol"));
    service.ask(45, "bob", Command::Release(claim("b", 2, "carol")));
    service.ask(50, "bob", reserve(3, "alice"));
    service.ask(51, "bob", reserve(4, "alice"));
    service.ask(52, "bob", reserve(5, "alice"));
    service.ask(53, "bob", Command::Spend { claim: claim("d", 4, "alice"), group: group("g") });
    service.sweep(240);
    service.ask(
        241,
        "bob",
        Command::Revoke {
            which: RevokeScope::Refs(vec![reference("e")]),
            reason: RevokeReason::Withdrawn,
        },
    );
    service.ask(250, "bob", reserve(6, "carol"));
    service.ask(255, "bob", reserve(7, "carol"));
    for (number, name) in [(3, "c"), (5, "e")] {
        service.ask(260, "bob", spend(name, number, "alice"));
    }
    service.ask(270, "bob", spend("b", 6, "carol"));
    // A group: Alice adds dave, both speak, and dave is removed.
    service.deliver(299, "alice", DeliveryCommand::Make { group: group("g") });
    service.ask(300, "dave", reserve(8, "alice"));
    let commit = |epoch, spends: Vec<_>, removed: &[&str]| {
        let welcomes: Vec<Welcome> = spends
            .iter()
            .map(|claim: &Claim| Welcome {
                bytes: b"welcome".to_vec(),
                keypackage_refs: vec![claim.keypackage_ref.clone()],
            })
            .collect();
        let removed = removed.iter().map(|name| pool(name)).collect();
        let commit = format!("commit {epoch}").into_bytes();
        DeliveryCommand::Commit { group: group("g"), epoch, commit, welcomes, spends, removed }
    };
    let post = |words: &str| DeliveryCommand::Post { group: group("g"), message: words.into() };
    service.deliver(310, "alice", commit(0, vec![claim("p", 8, "alice")], &[]));
    service.deliver(311, "alice", post("welcome, dave"));
    service.deliver(312, "dave", post("hello"));
    let through = service.pools.mailbox(&pool("dave")).after(0).last().unwrap().position;
    service.deliver(
        313,
        "dave",
        DeliveryCommand::Acknowledge(Acknowledgement { through, ..Acknowledgement::default() }),
    );
    service.deliver(320, "alice", commit(1, vec![], &["dave"]));
    service.sweep(1500);
    let records = service.log.read(1, usize::MAX).unwrap();
    sealed(records.into_iter().map(without_inviter).collect())
}

/// A record as before Welcomes named their inviters: the fixtures keep their bytes.
fn without_inviter(mut record: Record) -> Record {
    if let Event::Welcomed { by, .. } = &mut record.envelope.event {
        *by = None;
    }
    record
}

/// Links records anew, so that nothing is wrong with their bytes: positions, versions, hashes.
pub(crate) fn sealed(records: Vec<Record>) -> Vec<Record> {
    let mut heads: HashMap<StreamId, StreamHead> = HashMap::new();
    let seal = |(seq, mut record): (u64, Record)| {
        let head = heads.entry(record.envelope.stream.clone()).or_default();
        record.seq = seq;
        record.envelope.version = head.version + 1;
        record.envelope.prev = head.hash;
        record.envelope.payload = Hash::of(&record.payload);
        record.envelope_bytes = codec::encode(&record.envelope).unwrap();
        *head = record.stream_head();
        record
    };
    (1..).zip(records).map(seal).collect()
}

/// A record as if a request of its own had written it at a second of the story.
pub(crate) fn written(stream: StreamId, second: u64, event: Event, payload: &[u8]) -> Record {
    // Fields that came later are left out: the fixtures keep their bytes.
    let later = [
        ", statement: None",
        ", frontend: None",
        ", not_kept: []",
        ", accepted: []",
        ", told: []",
        ", failed: []",
        ", by: None",
        ", available: []",
        ", capabilities: None",
    ];
    let name = later
        .iter()
        .fold(format!("{stream} {second} {event:?}"), |name, field| name.replace(field, ""));
    let digest = Hash::of(name.as_bytes());
    let command = CommandId(Uuid::from_slice(&digest.as_bytes()[..16]).unwrap());
    let payload_hash = Hash::of(payload);
    let envelope = EventEnvelope {
        schema: codec::SCHEMA,
        stream,
        version: 0,
        at: at(second),
        command,
        request: digest,
        prev: Hash::ZERO,
        payload: payload_hash,
        event,
    };
    Record { seq: 0, envelope, envelope_bytes: Vec::new(), payload: payload.to_vec() }
}

/// An export of any records, with blocks of so many bytes.
pub(crate) fn exported(records: &[Record], block_bytes: usize) -> Vec<u8> {
    let mut writer = ExportWriter::new(Vec::new()).unwrap().with_blocks_of(block_bytes);
    for record in records {
        let raw = RawRecord {
            seq: record.seq,
            envelope_bytes: &record.envelope_bytes,
            payload: &record.payload,
            file: Path::new("none"),
            offset: 0,
        };
        writer.add(&raw, &record.envelope).unwrap();
    }
    writer.finish().unwrap().1
}

fn place(records: &[Record], is_it: impl Fn(&EventEnvelope) -> bool) -> usize {
    records.iter().position(|record| is_it(&record.envelope)).expect("the story has it")
}

fn is_of(envelope: &EventEnvelope, name: &str, event: &str) -> bool {
    envelope.event.name() == event && envelope.event.keypackage_ref() == Some(&reference(name))
}

fn bobs(second: u64, event: Event) -> Record {
    written(StreamId::Pool(pool("bob")), second, event, &[])
}

fn reserved(name: &str, number: u8, generation: u32, second: u64, holder: &str) -> Record {
    bobs(
        second,
        Event::Reserved {
            keypackage_ref: reference(name),
            reservation: reservation(number),
            generation,
            holder: pool(holder),
            group: group("g"),
            deadline: at(second + 60),
        },
    )
}

fn released(name: &str, number: u8, second: u64, reason: ReleaseReason) -> Record {
    let (keypackage_ref, reservation) = (reference(name), reservation(number));
    bobs(second, Event::Released { keypackage_ref, reservation, reason })
}

fn spent(name: &str, number: Option<u8>, second: u64, holder: &str, late: bool) -> Record {
    bobs(
        second,
        Event::Spent {
            keypackage_ref: reference(name),
            reservation: number.map(reservation),
            holder: Some(pool(holder)),
            group: group("g"),
            late,
        },
    )
}

fn in_group(second: u64, event: Event) -> Record {
    written(StreamId::Group(group("g")), second, event, b"some bytes")
}

fn committed(second: u64, epoch: u64, committer: &str, added: &[&str]) -> Record {
    let added: Vec<PoolId> = added.iter().map(|name| pool(name)).collect();
    let committer = pool(committer);
    in_group(
        second,
        Event::Committed { epoch, committer, added, removed: Vec::new(), not_kept: vec![] },
    )
}

/// Records put in before the last lifetimes end, which is after the story.
fn with(more: Vec<Record>) -> Vec<Record> {
    let mut records = clean();
    let end = place(&records, |envelope| at(900) < envelope.at);
    records.splice(end..end, more);
    sealed(records)
}

/// The histories whose bytes are whole and whose events break a promise, by name.
#[expect(clippy::too_many_lines, reason = "a list, one entry for each promise")]
pub(crate) fn broken_promises() -> Vec<(&'static str, Vec<Record>)> {
    let more = |name, more| (name, with(more));
    let mut histories = vec![
        more("double-spend", vec![spent("a", Some(1), 400, "alice", false)]),
        more("reserve-what-is-spent", vec![reserved("a", 20, 2, 400, "carol")]),
        more(
            "upload-twice",
            vec![written(
                StreamId::Pool(pool("bob")),
                400,
                Event::Uploaded(package("a").facts),
                b"a",
            )],
        ),
        more(
            "upload-to-another-pool",
            vec![written(
                StreamId::Pool(pool("dave")),
                400,
                Event::Uploaded(package("c").facts),
                b"c",
            )],
        ),
        more(
            "init-key-again",
            vec![written(
                StreamId::Pool(pool("bob")),
                400,
                Event::Uploaded(package("a'").facts),
                b"a'",
            )],
        ),
        more(
            "second-last-resort",
            vec![written(
                StreamId::Pool(pool("bob")),
                400,
                Event::Uploaded(package("Lx").facts),
                b"Lx",
            )],
        ),
        more(
            "own-package",
            vec![written(
                StreamId::Pool(pool("dave")),
                400,
                Event::Reserved {
                    keypackage_ref: reference("q"),
                    reservation: reservation(20),
                    generation: 1,
                    holder: pool("dave"),
                    group: group("g"),
                    deadline: at(460),
                },
                &[],
            )],
        ),
        more("unknown-package", vec![spent("z", None, 400, "carol", false)]),
        more(
            "key-of-two-devices",
            vec![written(
                StreamId::Pool(pool("mallory")),
                400,
                Event::Registered {
                    signature_key: SignatureKey::new(&[1; 32]).unwrap(),
                    credential: "mallory".to_owned(),
                    voucher: None,
                    statement: None,
                    frontend: None,
                },
                &[],
            )],
        ),
        more(
            "commit-without-its-spend",
            vec![
                {
                    let mut commit = committed(400, 2, "alice", &["carol"]);
                    commit.envelope.command = CommandId(Uuid::from_u128(0x77));
                    commit
                },
                {
                    let mut welcome =
                        in_group(400, Event::Welcomed { to: vec![pool("carol")], by: None });
                    welcome.envelope.command = CommandId(Uuid::from_u128(0x77));
                    welcome.envelope.request =
                        committed(400, 2, "alice", &["carol"]).envelope.request;
                    welcome
                },
            ],
        ),
        more("two-commits-for-an-epoch", vec![committed(400, 1, "alice", &[])]),
        more(
            "welcome-without-its-commit",
            vec![in_group(400, Event::Welcomed { to: vec![pool("dave")], by: None })],
        ),
        more("answer-without-its-invitation", {
            let (device, inviter) = (pool("alice"), pool("dave"));
            let answer = InvitationAnswer::Joined;
            vec![in_group(400, Event::InvitationAnswered { device, inviter, answer })]
        }),
        more("renewed-too-often", {
            let dave = |second, event| written(StreamId::Pool(pool("dave")), second, event, &[]);
            let (keypackage_ref, reservation) = (reference("q"), reservation(20));
            let (holder, group) = (pool("carol"), group("g"));
            let made = Event::Reserved {
                keypackage_ref: keypackage_ref.clone(),
                reservation,
                generation: 1,
                holder,
                group,
                deadline: at(460),
            };
            let renewed = |n| Event::Renewed {
                keypackage_ref: keypackage_ref.clone(),
                reservation,
                deadline: at(470 + n),
            };
            let renewals = (0..6).map(|n| dave(410 + n, renewed(n)));
            std::iter::once(dave(400, made)).chain(renewals).collect()
        }),
        more(
            "stranger-posts",
            vec![in_group(400, Event::Posted { sender: pool("mallory"), not_kept: vec![] })],
        ),
        more(
            "mailbox-ahead-of-the-log",
            vec![written(
                StreamId::Mailbox(pool("alice")),
                400,
                Event::Acknowledged {
                    through: 1000,
                    overrun: false,
                    accepted: vec![],
                    told: vec![],
                    available: Vec::new(),
                },
                &[],
            )],
        ),
    ];
    histories.extend(broken_in_place());
    histories
}

/// Promises that are broken by changing records.
#[expect(clippy::too_many_lines, reason = "a list, one entry for each promise")]
fn broken_in_place() -> Vec<(&'static str, Vec<Record>)> {
    let changed = |name, change: &dyn Fn(&mut Vec<Record>)| {
        let mut records = clean();
        change(&mut records);
        (name, sealed(records))
    };
    let at_of = |records: &[Record], name: &str, event: &str| {
        place(records, |envelope| is_of(envelope, name, event))
    };
    vec![
        changed("spend-without-reservation", &|records| {
            let spend = at_of(records, "a", "spent");
            if let Event::Spent { reservation, .. } = &mut records[spend].envelope.event {
                *reservation = None;
            }
        }),
        changed("double-reserve", &|records| {
            let first = at_of(records, "a", "reserved");
            records.insert(first + 1, reserved("a", 21, 2, 11, "carol"));
        }),
        changed("early-lapse", &|records| {
            let first = at_of(records, "d", "reserved");
            records.insert(first + 1, released("d", 4, 52, ReleaseReason::Lapsed));
        }),
        changed("handed-out-after-two-lapses", &|records| {
            let end = place(records, |envelope| at(900) < envelope.at);
            forget_the_end_of_c(records);
            records.splice(
                end..end,
                vec![
                    released("c", 7, 500, ReleaseReason::Lapsed),
                    reserved("c", 22, 3, 510, "dave"),
                ],
            );
        }),
        changed("late-spend-of-what-was-handed-on", &|records| {
            let lost = place(records, |envelope| envelope.event.name() == "conflict");
            let number = match &records[lost].envelope.event {
                Event::Conflict { keypackage_ref, lost, .. } => (keypackage_ref.clone(), *lost),
                _ => unreachable!(),
            };
            records[lost].envelope.event = Event::Spent {
                keypackage_ref: number.0,
                reservation: Some(number.1),
                holder: Some(pool("alice")),
                group: group("g"),
                late: true,
            };
            forget_the_end_of_c(records);
        }),
        changed("offered-out-of-order", &|records| {
            // As if b had been handed out where a should have been, and the other way round.
            for record in records.iter_mut() {
                exchange(&mut record.envelope.event, &reference("a"), &reference("b"));
            }
        }),
        changed("spend-by-another-holder", &|records| {
            let spend = at_of(records, "a", "spent");
            if let Event::Spent { holder, .. } = &mut records[spend].envelope.event {
                *holder = Some(pool("mallory"));
            }
        }),
        changed("spend-after-giving-back", &|records| {
            let of_b = |r: &Record| r.envelope.event.keypackage_ref() == Some(&reference("b"));
            records.retain(|record| !of_b(record) || record.envelope.at < at(100));
            let end = place(records, |envelope| at(270) <= envelope.at);
            records.insert(end, spent("b", Some(2), 270, "carol", false));
        }),
        changed("expired-too-early", &|records| {
            let expired = at_of(records, "q", "expired");
            let mut early = records.remove(expired);
            early.envelope.at = at(400);
            let end = place(records, |envelope| at(900) < envelope.at);
            records.insert(end, early);
        }),
        changed("request-repeated", &|records| {
            let first = at_of(records, "a", "reserved");
            let command = records[first].envelope.command;
            let end = place(records, |envelope| at(900) < envelope.at);
            records[end].envelope.command = command;
            records[end].envelope.request = records[first].envelope.request;
        }),
        changed("clock-goes-back", &|records| {
            let spend = at_of(records, "a", "spent");
            records[spend].envelope.at = at(15);
        }),
        changed("commit-without-its-welcome", &|records| {
            let welcome = place(records, |envelope| envelope.event.name() == "welcomed");
            records.remove(welcome);
        }),
    ]
}

/// Removes the records of `c` after the story.
fn forget_the_end_of_c(records: &mut Vec<Record>) {
    let of_c = |record: &Record| record.envelope.event.keypackage_ref() == Some(&reference("c"));
    records.retain(|record| !of_c(record) || record.envelope.at < at(900));
}

/// Exchanges two packages in an event that is not an upload.
fn exchange(event: &mut Event, one: &KeyPackageRef, other: &KeyPackageRef) {
    if let Event::Reserved { keypackage_ref, .. }
    | Event::Renewed { keypackage_ref, .. }
    | Event::Released { keypackage_ref, .. }
    | Event::Spent { keypackage_ref, .. } = event
    {
        if keypackage_ref == one {
            *keypackage_ref = other.clone();
        } else if keypackage_ref == other {
            *keypackage_ref = one.clone();
        }
    }
}

/// The exports with damaged bytes, by name.
pub(crate) fn damaged_exports() -> Vec<(&'static str, Vec<u8>)> {
    let records = clean();
    let changed = |name, change: &dyn Fn(&mut Vec<Record>)| {
        let mut records = clean();
        change(&mut records);
        (name, exported(&records, 1))
    };
    let whole = exported(&records, 1024);
    let middle = whole.len() / 2;
    let mut flipped = whole.clone();
    flipped[middle] ^= 0x10;
    let mut longer = whole.clone();
    longer.extend(b"more");
    let spend = place(&records, |envelope| is_of(envelope, "a", "spent"));
    let upload = place(&records, |envelope| is_of(envelope, "b", "uploaded"));
    let withdrawn = place(&records, |envelope| is_of(envelope, "e", "uploaded"));
    let posted = place(&records, |envelope| envelope.event.name() == "posted");
    vec![
        ("flipped-bit", flipped),
        ("truncated", whole[..middle].to_vec()),
        ("bytes-behind-the-end", longer),
        changed("gap", &|records| drop(records.remove(spend))),
        changed("removed-and-renumbered", &|records| {
            records.remove(spend);
            for (seq, record) in (1..).zip(records) {
                record.seq = seq;
            }
        }),
        changed("reordered", &|records| {
            let seqs = (records[spend].seq, records[spend - 1].seq);
            records.swap(spend, spend - 1);
            (records[spend - 1].seq, records[spend].seq) = (seqs.1, seqs.0);
        }),
        changed("edited-event", &|records| {
            let record = &mut records[spend];
            if let Event::Spent { holder, .. } = &mut record.envelope.event {
                *holder = Some(pool("carol"));
            }
            record.envelope_bytes = codec::encode(&record.envelope).unwrap();
        }),
        changed("swapped-payload", &|records| records[upload].payload = b"x".to_vec()),
        changed("payload-gone", &|records| records[withdrawn].payload.clear()),
        changed("message-gone", &|records| records[posted].payload.clear()),
        changed("schema-of-tomorrow", &|records| records[spend].envelope_bytes[1] = 9),
    ]
}

/// The same log as two people were shown it: the second one never saw a spend.
pub(crate) fn forked() -> (Vec<Record>, Vec<Record>) {
    let records = clean();
    let spend = place(&records, |envelope| is_of(envelope, "b", "spent"));
    let mut other = records.clone();
    if let Event::Spent { holder, .. } = &mut other[spend].envelope.event {
        *holder = Some(pool("dave"));
    }
    (records, sealed(other))
}

#[test]
fn the_story_of_today_keeps_every_promise() {
    let mut auditor = Auditor::new(InvariantParams::STANDARD);
    let records = clean_of_today();
    for record in &records {
        auditor.see(record.seq, &record.envelope);
    }
    assert_eq!(auditor.finish(), []);
    assert!(records.iter().any(|record| record.envelope.event.name() == "group_made"));
    let kinds = |records: &[Record]| -> std::collections::BTreeSet<&'static str> {
        records.iter().map(|record| record.envelope.event.name()).collect()
    };
    assert!(kinds(&records).is_superset(&kinds(&clean())), "it tells all that the fixture tells");
}
