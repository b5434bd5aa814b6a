//! How checkpoints are judged, with logs made by hand.

use insta::assert_snapshot;
use keypool_ledger::Timestamp;
use keypool_transparency::{
    Checkpoint, Consistency, NoteSigner, ProofError, Tree, TreeHash, prove_consistency,
};
use quickcheck::{Gen, QuickCheck};

use super::{HOUR, at};
use crate::audit::{AuditFinding, EvidenceKind, KnownLedger, Verdict};

/// A log that signs: its records and its key.
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
    let proof: Consistency = grown.to_file().parse().unwrap();
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
    QuickCheck::new()
        .rng(Gen::new(20))
        .tests(60)
        .quickcheck(growth_is_told_from_change as fn(Vec<u8>, u8) -> bool);
}
