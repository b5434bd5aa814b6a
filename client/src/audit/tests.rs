//! The rules of the audit, with histories and checkpoints made by hand.

use std::collections::BTreeMap;

use insta::assert_snapshot;
use keypool_ledger::{
    CommandId, Event, EventEnvelope, GroupId, Hash, KeyPackageRef, PackageFacts, PoolId,
    ReleaseReason, ReservationId, RevokeReason, StreamId, Timestamp,
};
use keypool_projections::{
    PoolState, Stage,
    transparency::{Checkpoint, NoteSigner, ProofError, Tree, TreeHash, prove_consistency},
};
use quickcheck::{Arbitrary, Gen, QuickCheck};
use uuid::Uuid;

use super::{AuditFinding, EvidenceKind, Fetched, Histories, KnownLedger, Verdict};

const HOUR: u64 = 3600;

fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(secs)
}

fn package(seed: u8) -> KeyPackageRef {
    KeyPackageRef::new(&[seed; 32]).unwrap()
}

fn facts(seed: u8, last_resort: bool) -> PackageFacts {
    PackageFacts {
        keypackage_ref: package(seed),
        not_before: at(0),
        not_after: at(1_000_000),
        ciphersuite: 1,
        credential: Hash::of(b"credential"),
        init_key: Hash::of(&[seed]),
        last_resort,
    }
}

fn person(name: &str) -> PoolId {
    name.parse().unwrap()
}

fn claim(number: u8) -> ReservationId {
    ReservationId(Uuid::from_bytes([number; 16]))
}

fn friends() -> GroupId {
    GroupId::new(b"friends").unwrap()
}

fn reserved(seed: u8, number: u8, holder: &str) -> Event {
    Event::Reserved {
        keypackage_ref: package(seed),
        reservation: claim(number),
        generation: 1,
        holder: person(holder),
        group: friends(),
        deadline: at(1_000),
    }
}

fn spent(seed: u8, number: u8, holder: &str) -> Event {
    Event::Spent {
        keypackage_ref: package(seed),
        reservation: Some(claim(number)),
        holder: Some(person(holder)),
        group: friends(),
        late: false,
    }
}

fn released(seed: u8, number: u8, reason: ReleaseReason) -> Event {
    Event::Released { keypackage_ref: package(seed), reservation: claim(number), reason }
}

/// What the device records when it joins.
fn joined(seed: u8, inviter: Option<&str>) -> Event {
    Event::Spent {
        keypackage_ref: package(seed),
        reservation: None,
        holder: inviter.map(person),
        group: friends(),
        late: false,
    }
}

fn history(events: Vec<(u64, Event)>) -> Vec<EventEnvelope> {
    let envelope = |(number, (secs, event)): (usize, (u64, Event))| EventEnvelope {
        schema: 1,
        stream: StreamId::Pool(person("bob/main")),
        version: number as u64 + 1,
        at: at(secs),
        command: CommandId(Uuid::nil()),
        request: Hash::ZERO,
        prev: Hash::ZERO,
        payload: Hash::ZERO,
        event,
    };
    events.into_iter().enumerate().map(envelope).collect()
}

/// What is found where the device was there at `present`, and both histories are known to their ends.
fn found(mirror: Vec<(u64, Event)>, own: Vec<(u64, Event)>, present: u64) -> String {
    let (mirror, own) = (history(mirror), history(own));
    let fetched = Fetched { own: own.len() as u64, mirror: mirror.len() as u64 };
    let awaited = BTreeMap::new();
    let present = at(present);
    let histories = Histories { mirror: &mirror, own: &own, fetched, awaited: &awaited, present };
    let lines: Vec<String> = histories.examine().iter().map(ToString::to_string).collect();
    lines.join("\n")
}

fn made() -> Vec<(u64, Event)> {
    vec![(0, Event::Created(facts(1, false)))]
}

fn uploaded() -> (u64, Event) {
    (0, Event::Uploaded(facts(1, false)))
}

#[test]
fn an_invitation_that_was_joined_is_nothing_to_tell() {
    let mirror =
        vec![uploaded(), (1, reserved(1, 1, "alice/main")), (2, spent(1, 1, "alice/main"))];
    let own = vec![(0, Event::Created(facts(1, false))), (3, joined(1, Some("alice/main")))];
    assert_eq!(found(mirror.clone(), own, 100 * HOUR), "");
    // The same inviter once more, after the first reservation has lapsed.
    let mut again = mirror;
    again.splice(
        1..2,
        [
            (1, reserved(1, 9, "carol/main")),
            (1_000, released(1, 9, ReleaseReason::Lapsed)),
            (1_001, reserved(1, 1, "alice/main")),
        ],
    );
    let own = vec![(0, Event::Created(facts(1, false))), (3, joined(1, Some("alice/main")))];
    assert_eq!(found(again, own, 100 * HOUR), "");
}

#[test]
fn a_spend_without_a_welcome_is_told_after_a_day() {
    let mirror =
        vec![uploaded(), (1, reserved(1, 1, "alice/main")), (2, spent(1, 1, "alice/main"))];
    assert_eq!(found(mirror.clone(), made(), 24 * HOUR + 1), "");
    assert_snapshot!(found(mirror, made(), 24 * HOUR + 2), @"Package 01010101 was spent by alice/main, and no Welcome for it was joined. Open your app, so that it takes in what waits; if nothing comes, ask the inviter whether the invitation was sent.");
}

#[test]
fn nothing_is_missed_of_a_package_that_the_device_never_made_or_of_last_resort() {
    let mirror =
        vec![uploaded(), (1, reserved(1, 1, "alice/main")), (2, spent(1, 1, "alice/main"))];
    assert_eq!(found(mirror.clone(), Vec::new(), 100 * HOUR), "");
    let mut last_resort = mirror;
    last_resort[0] = (0, Event::Uploaded(facts(1, true)));
    let own = vec![(0, Event::Created(facts(1, true)))];
    assert_eq!(found(last_resort, own, 100 * HOUR), "");
}

#[test]
fn what_was_heard_of_lately_is_still_waited_for() {
    let mirror = history(vec![
        uploaded(),
        (1, reserved(1, 1, "alice/main")),
        (2, spent(1, 1, "alice/main")),
    ]);
    let own = history(made());
    let awaited = BTreeMap::from([(package(1), at(500 * HOUR))]);
    let count = |present| {
        let fetched = Fetched { own: 1, mirror: 3 };
        let (mirror, own, awaited) = (&mirror[..], &own[..], &awaited);
        Histories { mirror, own, fetched, awaited, present }.examine().len()
    };
    assert_eq!((count(at(523 * HOUR)), count(at(524 * HOUR))), (0, 1));
}

#[test]
fn a_welcome_without_a_reservation_is_told_once_the_history_is_known() {
    let own = vec![(0, Event::Created(facts(1, false))), (3, joined(1, Some("alice/main")))];
    assert_snapshot!(found(vec![uploaded()], own.clone(), 0), @"A Welcome for package 01010101 was joined, and by the server's history nobody was ever given it. Ask the inviter where the package came from: it was given out behind the history's back.");
    let (mirror, own) = (history(vec![uploaded()]), history(own));
    for fetched in [Fetched { own: 1, mirror: 1 }, Fetched { own: 2, mirror: 2 }] {
        let (present, awaited) = (at(0), BTreeMap::new());
        let (mirror, own, awaited) = (&mirror[..], &own[..], &awaited);
        let histories = Histories { mirror, own, fetched, awaited, present };
        assert_eq!(histories.examine(), [], "{fetched:?}: more may have come since");
    }
}

#[test]
fn a_second_inviter_is_told() {
    let twice =
        vec![uploaded(), (1, reserved(1, 1, "alice/main")), (2, reserved(1, 2, "carol/main"))];
    let after = vec![
        uploaded(),
        (1, reserved(1, 1, "alice/main")),
        (2, spent(1, 1, "alice/main")),
        (3, reserved(1, 2, "carol/main")),
    ];
    let past = vec![uploaded(), (1, reserved(1, 1, "alice/main")), (2, spent(1, 2, "carol/main"))];
    let early = vec![
        uploaded(),
        (1, reserved(1, 1, "alice/main")),
        (2, released(1, 1, ReleaseReason::Lapsed)),
        (3, reserved(1, 2, "carol/main")),
    ];
    let given_back = vec![
        uploaded(),
        (1, reserved(1, 1, "alice/main")),
        (2, released(1, 1, ReleaseReason::Cancelled)),
        (3, reserved(1, 2, "carol/main")),
    ];
    let told = [twice, after, past, early, given_back].map(|mirror| found(mirror, made(), 0));
    assert_snapshot!(told.join("\n--\n"), @"
    Package 01010101 was given to carol/main while it was still alice/main's. Ask both inviters for their receipts, and give them to who runs the server.
    --
    Package 01010101 was given to carol/main while it was still alice/main's. Ask both inviters for their receipts, and give them to who runs the server.
    --
    Package 01010101 was given to carol/main while it was still alice/main's. Ask both inviters for their receipts, and give them to who runs the server.
    --
    The reservation of package 01010101 by alice/main was ended before its time was over. Ask both inviters for their receipts, and give them to who runs the server.
    --
    ");
}

#[test]
fn a_welcome_from_somebody_else_is_told() {
    let mirror =
        vec![uploaded(), (1, reserved(1, 1, "alice/main")), (2, spent(1, 1, "alice/main"))];
    let own = |inviter| vec![(0, Event::Created(facts(1, false))), (3, joined(1, inviter))];
    assert_snapshot!(found(mirror.clone(), own(Some("carol/main")), 0), @"Package 01010101 was alice/main's by the server's history, and the Welcome came from carol/main. Look at who is in the group before you say anything there, and ask both of them.");
    assert_eq!(found(mirror, own(None), 0), "", "a name without a device names nobody");
}

#[test]
fn a_conflict_is_worth_knowing() {
    let conflict = Event::Conflict { keypackage_ref: package(1), lost: claim(1), holds: claim(2) };
    assert_snapshot!(found(vec![uploaded(), (1, conflict)], made(), 0), @"A late spend of package 01010101 was refused, since it had been handed on. The inviter was told, and invites again; nothing is to be done.");
}

/// A change of one package by somebody, as random as may be.
#[derive(Clone, Copy, Debug)]
struct Step(u8, u8, u8);

impl Arbitrary for Step {
    fn arbitrary(g: &mut Gen) -> Self {
        Self(u8::arbitrary(g) % 7, u8::arbitrary(g) % 3, u8::arbitrary(g) % 3)
    }
}

impl Step {
    fn event(self) -> Event {
        let Self(kind, seed, number) = self;
        let holder = ["alice/main", "carol/main", "dave/main"][usize::from(number)];
        let (keypackage_ref, reason) = (package(seed), RevokeReason::Withdrawn);
        match kind {
            0 | 1 => reserved(seed, number, holder),
            2 => released(seed, number, ReleaseReason::Cancelled),
            3 => released(seed, number, ReleaseReason::Lapsed),
            4 => spent(seed, number, holder),
            5 => Event::Revoked { keypackage_ref, reason },
            _ => Event::Expired { keypackage_ref },
        }
    }
}

/// A second inviter is told exactly where the mirror's fold refuses one: the two are worked out in
/// different ways, and agree.
#[expect(clippy::needless_pass_by_value, reason = "quickcheck hands over what it has made")]
fn fold_and_audit_agree(steps: Vec<Step>) -> bool {
    let mut pool = PoolState::default();
    let mut events: Vec<(u64, Event)> = Vec::new();
    for seed in 0..3 {
        events.push((0, Event::Uploaded(facts(seed, false))));
    }
    for (_, event) in &events {
        pool.evolve(event, at(0)).unwrap();
    }
    let mut ever_refused = false;
    let mut expected = false;
    for step in steps {
        let event = step.event();
        let holds = |pool: &PoolState| {
            let open =
                pool.open_reservations().find(|(_, open)| open.keypackage_ref == package(step.1));
            open.map(|(id, _)| id)
        };
        // The server's rules say whose reservation it is; the fold leaves that to them.
        let is_others = matches!(event, Event::Spent { .. } | Event::Released { .. })
            && holds(&pool) != Some(claim(step.2));
        if is_others {
            continue;
        }
        let refused = pool.clone().evolve(&event, at(2_000)).is_err();
        ever_refused |= refused;
        let is_second = matches!(event, Event::Reserved { .. } | Event::Spent { .. }) && refused;
        let is_spent = pool.get(&package(step.1)).unwrap().stage == Stage::Spent;
        expected |= is_second && (is_spent || holds(&pool).is_some());
        events.push((2_000, event.clone()));
        if refused {
            break;
        }
        pool.evolve(&event, at(2_000)).unwrap();
    }
    let told = found(events, Vec::new(), 0);
    told.contains("was given to") == expected && (ever_refused || told.is_empty())
}

#[test]
fn what_the_fold_refuses_as_a_second_use_the_audit_tells() {
    QuickCheck::new().tests(2_000).quickcheck(fold_and_audit_agree as fn(Vec<Step>) -> bool);
}

/// A log that signs: what was appended, and its key.
#[derive(Clone)]
struct Log {
    name: &'static str,
    secret: [u8; 32],
    leaves: Vec<u8>,
}

impl Log {
    fn new() -> Self {
        Self { name: "keys.example/log", secret: [7; 32], leaves: Vec::new() }
    }

    fn with(&self, leaves: &[u8]) -> Self {
        Self { leaves: [&self.leaves[..], leaves].concat(), ..self.clone() }
    }

    fn signer(&self) -> NoteSigner {
        NoteSigner::new(self.name, &self.secret).unwrap()
    }

    fn root(&self, range: std::ops::Range<u64>) -> TreeHash {
        let mut tree = Tree::default();
        for leaf in
            &self.leaves[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()]
        {
            tree.append(&[*leaf]);
        }
        tree.root()
    }

    fn note(&self) -> String {
        let size = self.leaves.len() as u64;
        let checkpoint = Checkpoint::new(self.name, size, self.root(0..size)).unwrap();
        checkpoint.sign(&self.signer()).unwrap().to_string()
    }

    fn proof(&self, from: u64, to: u64) -> Option<Vec<TreeHash>> {
        let mut hash_of = |range| Ok::<_, ProofError>(self.root(range));
        let has_it = to <= self.leaves.len() as u64;
        has_it.then(|| prove_consistency(from, to, &mut hash_of).unwrap())
    }

    fn known(&self) -> KnownLedger {
        KnownLedger::first(&self.note(), Some(&self.signer().public())).unwrap()
    }
}

/// Looks at a log as a refresh does.
fn look(known: &mut KnownLedger, log: &Log, now: Timestamp) {
    let note = log.note();
    if let Verdict::Prove { from, to } = known.judge(&note, now) {
        match log.proof(from, to) {
            Some(hashes) => known.prove(&note, &hashes, now),
            None => known.refuse(&note, now),
        }
    }
}

fn told(known: &KnownLedger, now: Timestamp) -> String {
    known.findings(now).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_log_that_grows_is_followed_and_an_older_answer_forgiven() {
    let log = Log::new().with(&[1, 2, 3]);
    let mut known = log.known();
    let later = log.with(&[4, 5]);
    look(&mut known, &later, at(1));
    assert_eq!(known.kept().unwrap().size, 5);
    // A cache that has the older one, before a server that has the newer.
    if let Verdict::Prove { from, to } = known.judge(&log.note(), at(2)) {
        known.prove(&log.note(), &later.proof(from, to).unwrap(), at(2));
    }
    assert_eq!((known.kept().unwrap().size, told(&known, at(3)).as_str()), (5, ""));
}

#[test]
fn every_kind_of_second_history_is_told_and_kept() {
    let log = Log::new().with(&[1, 2, 3, 4, 5]);
    let fork = Log::new().with(&[1, 2, 3, 9]);
    let futures = [fork.with(&[9]), fork.with(&[9, 9]), fork.clone()];
    let told = futures.map(|future| {
        let mut known = log.known();
        look(&mut known, &future, at(1));
        assert_eq!(known.kept().unwrap().root, log.root(0..5).to_string(), "what was seen stays");
        let [evidence] = known.evidence() else { panic!() };
        assert_eq!((&evidence.old, &evidence.new), (&log.note(), &future.note()));
        let again = known.clone();
        look(&mut known, &future, at(2));
        assert_eq!(known, again, "once");
        told(&known, at(1))
    });
    assert_snapshot!(told.join("\n"), @"
    The server has told two histories, both signed by its key: two checkpoints of 5 records have other ones. Do not trust this server any more; save the evidence with --evidence, and show it to others who use it.
    The server has told two histories, both signed by its key: the log of 6 records does not begin with the 5 that were seen before. Do not trust this server any more; save the evidence with --evidence, and show it to others who use it.
    The server has told two histories, both signed by its key: its log ends after 4 records, and 5 were seen before. Do not trust this server any more; save the evidence with --evidence, and show it to others who use it.
    ");
}

#[test]
fn another_name_another_key_and_a_forged_note_are_told() {
    let log = Log::new().with(&[1, 2, 3]);
    let renamed = Log { name: "other.example/log", ..log.with(&[4]) };
    let rekeyed = Log { secret: [8; 32], ..log.with(&[4]) };
    let mut told_of = Vec::new();
    for with_key in [true, false] {
        for other in [&renamed, &rekeyed] {
            let key = log.signer().public();
            let mut known = KnownLedger::first(&log.note(), with_key.then_some(&key)).unwrap();
            look(&mut known, other, at(1));
            assert_eq!(known.kept().unwrap().size, 3);
            told_of.push(told(&known, at(1)));
            // The name or key of before does not make it undone; whoever knows better does.
            look(&mut known, &log.with(&[4]), at(2));
            assert_eq!(
                (told(&known, at(2)), known.kept().unwrap().size),
                (told_of.last().unwrap().clone(), 4)
            );
            assert!(!known.trust(&other.signer().public()));
            look(&mut known, other, at(3));
            assert_eq!((told(&known, at(3)).as_str(), known.kept().unwrap().size), ("", 4));
        }
    }
    let mut known = log.known();
    let forged = log.with(&[4]).note().replace("\n4\n", "\n5\n");
    assert_eq!(known.judge(&forged, at(1)), Verdict::Noted);
    told_of.push(told(&known, at(1)));
    assert_snapshot!(told_of.join("\n"), @r#"
    The server's ledger is named "other.example/log" now; it was "keys.example/log". Ask who runs the server for the ledger's key, by another way than this server, and say it with --ledger-key.
    The server's ledger is signed by keys.example/log+7f81f1b4 now; it was keys.example/log+05a783b1+AepKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs. Ask who runs the server for the ledger's key, by another way than this server, and say it with --ledger-key.
    The server's ledger is named "other.example/log" now; it was "keys.example/log". Ask who runs the server for the ledger's key, by another way than this server, and say it with --ledger-key.
    The server's ledger is signed by keys.example/log+7f81f1b4 now; it was keys.example/log+05a783b1. Ask who runs the server for the ledger's key, by another way than this server, and say it with --ledger-key.
    A checkpoint of 5 records in the ledger's name is not signed by its key. Somebody between you and the server may have answered: look at --server, and use https.
    "#);
}

#[test]
fn a_proof_that_is_refused_for_a_day_is_told() {
    let log = Log::new().with(&[1, 2, 3]);
    let mut known = log.known();
    for hour in [0, 20] {
        known.refuse(&log.with(&[4]).note(), at(hour * HOUR));
    }
    assert_eq!(told(&known, at(24 * HOUR - 1)), "");
    assert_snapshot!(told(&known, at(24 * HOUR)), @"For over a day the server has not shown that its log continues the 3 records that were seen of it. Ask who runs the server why its log cannot be proved to have only grown.");
    look(&mut known, &log.with(&[4]), at(25 * HOUR));
    assert_eq!((told(&known, at(99 * HOUR)).as_str(), known.kept().unwrap().size), ("", 4));
}

#[test]
fn a_key_that_did_not_sign_is_not_trusted_at_first() {
    let log = Log::new().with(&[1]);
    let other = Log { secret: [8; 32], ..log.clone() };
    assert_eq!(KnownLedger::first(&log.note(), Some(&other.signer().public())), None);
    assert_eq!(KnownLedger::first("no note", None), None);
}

#[test]
fn evidence_is_a_file_that_others_can_check() {
    let (log, fork) = (Log::new().with(&[1, 2, 3]), Log::new().with(&[1, 2, 9]));
    let mut known = log.known();
    look(&mut known, &fork, at(1));
    look(&mut known, &fork.with(&[9]), at(1));
    let [same, grown] = known.evidence() else { panic!() };
    assert_eq!((same.kind, grown.kind), (EvidenceKind::SameSize, EvidenceKind::OtherGrowth));
    let file = same.to_file();
    assert!(file.starts_with(&format!("keypool/equivocation@v1\nkey {}\n", log.signer().public())));
    let proof: keypool_projections::transparency::Consistency = grown.to_file().parse().unwrap();
    assert!(proof.check().is_err());
    let found = known.findings(at(1));
    assert!(
        found
            .iter()
            .all(|it| matches!(it, AuditFinding::CheckpointsContradict { checked: true, .. }))
    );
}

/// Of a log that grows and is looked at now and then, by any sizes, nothing is told; of one that changes
/// a leaf that was seen, something always is.
#[expect(clippy::needless_pass_by_value, reason = "quickcheck hands over what it has made")]
fn growth_is_told_from_change(sizes: Vec<u8>, change: u8) -> bool {
    let mut log = Log::new();
    let mut known: Option<KnownLedger> = None;
    for size in &sizes {
        log = log.with(&vec![1; usize::from(size % 9)]);
        let known = known.get_or_insert_with(|| log.known());
        look(known, &log, at(1));
        if !known.findings(at(1)).is_empty()
            || known.kept().unwrap().size != log.leaves.len() as u64
        {
            return false;
        }
    }
    let Some(mut known) = known.filter(|_| !log.leaves.is_empty()) else { return true };
    let place = usize::from(change) % log.leaves.len();
    log.leaves[place] = 2;
    let log = log.with(&vec![1; usize::from(change % 5)]);
    look(&mut known, &log, at(2));
    !known.findings(at(2)).is_empty() && known.evidence().len() == 1
}

#[test]
fn a_log_that_only_grows_is_told_from_one_that_changes() {
    QuickCheck::new().tests(300).quickcheck(growth_is_told_from_change as fn(Vec<u8>, u8) -> bool);
}
