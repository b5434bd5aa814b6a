//! `checkpoint`, `prove`, `check` and `compare`: what a log can prove, and who contradicts himself.

use std::{collections::HashMap, fs, io, ops::Range, path::Path};

use keypool_ledger::codec;
use keypool_projections::{
    source::{Source, SourceError},
    transparency::{
        Checkpoint, Consistency, Inclusion, NoteKey, NoteSigner, Paper, ProofError, Tree, TreeHash,
        prove_consistency as consistency, prove_inclusion as inclusion,
    },
};
use serde_json::json;

use crate::{
    DAMAGED, EQUIVOCATION, FINE,
    checking::{check_signed, parse_key, read_paper},
    output::{Out, ToolError},
    overview,
    reading::read,
};

/// The first line of a file that shows two checkpoints which contradict each other.
const EVIDENCE: &str = "keypool/equivocation@v1";

/// The leaves of a log, up to some record, and the hash over any part of them.
struct Leaves(Vec<TreeHash>);

impl Leaves {
    fn of(path: &Path) -> Result<Self, ToolError> {
        let mut leaves = Vec::new();
        let source = Source::open(path)?;
        source.visit(&mut |raw| {
            leaves.push(TreeHash::leaf(raw.envelope_bytes));
            std::ops::ControlFlow::Continue(())
        })?;
        Ok(Self(leaves))
    }

    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn hash_of(&self, range: Range<u64>) -> TreeHash {
        let place = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let mut tree = Tree::default();
        for leaf in self.0.get(place(range.start)..place(range.end)).unwrap_or_default() {
            tree.append_hash(*leaf, &mut |_| {});
        }
        tree.root()
    }

    fn root(&self, size: u64) -> TreeHash {
        self.hash_of(0..size)
    }
}

fn proof_error(error: &ProofError) -> ToolError {
    ToolError::usage(error.to_string())
}

/// Writes a checkpoint, signed if a key is named.
pub(crate) fn checkpoint(
    path: &Path,
    origin: &str,
    at: Option<u64>,
    sign: Option<&Path>,
    out: &mut Out,
) -> Result<u8, ToolError> {
    let signer = sign.map(read_signer).transpose()?;
    let leaves = Leaves::of(path)?;
    let size = at.unwrap_or_else(|| leaves.size());
    if leaves.size() < size {
        let records = leaves.size();
        return Err(ToolError::usage(format!("the log has {records} records, not {size}")));
    }
    let public = signer.as_ref().map(NoteSigner::public);
    let origin = public.as_ref().map_or(origin, NoteKey::name);
    let checkpoint = Checkpoint::new(origin, size, leaves.root(size))
        .map_err(|err| ToolError::usage(err.to_string()))?;
    match signer {
        Some(signer) => {
            let note = checkpoint.sign(&signer).map_err(|err| ToolError::usage(err.to_string()))?;
            out.text(&note.to_string())?;
        }
        None => out.text(&checkpoint.to_string())?,
    }
    Ok(FINE)
}

fn read_signer(path: &Path) -> Result<NoteSigner, ToolError> {
    let text = fs::read_to_string(path).map_err(ToolError::file(path))?;
    NoteSigner::from_secret_text(text.trim())
        .map_err(|err| ToolError::usage(format!("{}: {err}", path.display())))
}

/// The checkpoint in a file, or one of the whole log.
fn paper_or_whole(file: Option<&Path>, leaves: &Leaves, like: &str) -> Result<Paper, ToolError> {
    if let Some(file) = file {
        return read_paper(file);
    }
    let checkpoint = Checkpoint::new(like, leaves.size(), leaves.root(leaves.size()))
        .map_err(|err| ToolError::usage(err.to_string()))?;
    Ok(Paper { checkpoint, note: None })
}

/// Proves that a record is in the log.
pub(crate) fn prove_inclusion(
    path: &Path,
    seq: u64,
    file: Option<&Path>,
    out: &mut Out,
) -> Result<u8, ToolError> {
    let leaves = Leaves::of(path)?;
    let paper = paper_or_whole(file, &leaves, "keypool.invalid/log")?;
    if let Some(code) = contradiction(&leaves, &paper, out)? {
        return Ok(code);
    }
    let index = seq.checked_sub(1).ok_or_else(|| ToolError::usage("records begin at 1"))?;
    let hashes = inclusion(index, paper.checkpoint.size(), &mut |range| {
        Ok::<_, ProofError>(leaves.hash_of(range))
    });
    let hashes = hashes.map_err(|err| proof_error(&err))?;
    let mut envelope = Vec::new();
    read(path, &mut |raw, _| {
        if raw.seq == seq {
            envelope = raw.envelope_bytes.to_vec();
            return std::ops::ControlFlow::Break(());
        }
        std::ops::ControlFlow::Continue(())
    })?;
    out.text(&Inclusion { envelope, index, hashes, paper }.to_string())?;
    Ok(FINE)
}

/// Proves that the log has only grown since a checkpoint.
pub(crate) fn prove_consistency(
    path: &Path,
    old: &Path,
    new: Option<&Path>,
    out: &mut Out,
) -> Result<u8, ToolError> {
    let leaves = Leaves::of(path)?;
    let old = read_paper(old)?;
    let new = paper_or_whole(new, &leaves, old.checkpoint.origin())?;
    for paper in [&old, &new] {
        if let Some(code) = contradiction(&leaves, paper, out)? {
            return Ok(code);
        }
    }
    let sizes = (old.checkpoint.size(), new.checkpoint.size());
    let hashes =
        consistency(sizes.0, sizes.1, &mut |range| Ok::<_, ProofError>(leaves.hash_of(range)));
    let hashes = hashes.map_err(|err| proof_error(&err))?;
    out.text(&Consistency { old, new, hashes }.to_string())?;
    Ok(FINE)
}

/// Says so if a checkpoint is not one of this log, and the number to end with.
fn contradiction(leaves: &Leaves, paper: &Paper, out: &mut Out) -> Result<Option<u8>, ToolError> {
    let (size, root) = (paper.checkpoint.size(), paper.checkpoint.root());
    if leaves.size() < size {
        let what = format!("the checkpoint is of {size} records; the log has {}", leaves.size());
        out.say(|| what.clone(), || json!({ "verdict": "shorter", "says": what }))?;
        return Ok(Some(DAMAGED));
    }
    let found = leaves.root(size);
    if found == root {
        return Ok(None);
    }
    let what = format!(
        "equivocation: the log's first {size} records have the tree hash {found}; the checkpoint of \
         {} says {root}",
        paper.checkpoint.origin()
    );
    out.say(|| what.clone(), || json!({ "verdict": "equivocation", "says": what }))?;
    Ok(Some(EQUIVOCATION))
}

/// Checks a checkpoint, a proof or evidence.
pub(crate) fn check(file: &Path, key: Option<&str>, out: &mut Out) -> Result<u8, ToolError> {
    let text = fs::read_to_string(file).map_err(ToolError::file(file))?;
    let key = key.map(parse_key).transpose()?;
    if let Some(evidence) = text.strip_prefix(EVIDENCE) {
        return check_evidence(evidence, out);
    }
    if let Ok(proof) = text.parse::<Inclusion>() {
        if let Err(err) = proof.check() {
            return refuse(&err.to_string(), out);
        }
        let signed = signature(&proof.paper, key.as_ref())?;
        let envelope = codec::decode(&proof.envelope);
        let envelope = envelope.map_err(|err| ToolError::usage(err.to_string()))?;
        let seq = proof.index.saturating_add(1);
        out.line(&format!("record {seq} is in the log of {}", described(&proof.paper, &signed)))?;
        out.say(|| overview::line(seq, &envelope), || overview::object(seq, &envelope))?;
        return Ok(FINE);
    }
    if let Ok(proof) = text.parse::<Consistency>() {
        if let Err(err) = proof.check() {
            return refuse(&err.to_string(), out);
        }
        let old = described(&proof.old, &signature(&proof.old, key.as_ref())?);
        let new = described(&proof.new, &signature(&proof.new, key.as_ref())?);
        let says = format!("the log has only grown: from that of {old}\nto that of {new}");
        out.say(|| says.clone(), || json!({ "says": says }))?;
        return Ok(FINE);
    }
    let paper: Paper =
        text.parse().map_err(|err| ToolError::usage(format!("{}: {err}", file.display())))?;
    let says = described(&paper, &signature(&paper, key.as_ref())?);
    out.say(|| format!("a checkpoint of {says}"), || json!({ "says": says }))?;
    Ok(FINE)
}

fn refuse(why: &str, out: &mut Out) -> Result<u8, ToolError> {
    let what = format!("it proves nothing: {why}");
    out.say(|| what.clone(), || json!({ "says": what }))?;
    Ok(DAMAGED)
}

fn described(paper: &Paper, signed: &str) -> String {
    let checkpoint = &paper.checkpoint;
    format!("{} at {} records, {signed}", checkpoint.origin(), checkpoint.size())
}

/// Who stands by a checkpoint, as far as that can be checked.
fn signature(paper: &Paper, key: Option<&NoteKey>) -> Result<String, ToolError> {
    match (&paper.note, key) {
        (_, Some(key)) => {
            check_signed(Path::new("the checkpoint"), paper, key)?;
            Ok("signed by the key that was named".to_owned())
        }
        (Some(note), None) => {
            let names: Vec<&str> = note.names().collect();
            Ok(format!("signed in the name of {} (not checked: --key)", names.join(", ")))
        }
        (None, None) => Ok("signed by nobody".to_owned()),
    }
}

/// One side of a comparison.
enum Side {
    Log(Leaves),
    Paper(Paper),
}

fn side(path: &Path, key: Option<&NoteKey>) -> Result<Side, ToolError> {
    match Source::open(path) {
        Ok(_) => Leaves::of(path).map(Side::Log),
        Err(SourceError::Unknown(_)) if path.is_file() => {
            let paper = read_paper(path)?;
            if let Some(key) = key {
                check_signed(path, &paper, key)?;
            }
            Ok(Side::Paper(paper))
        }
        Err(error) => Err(error.into()),
    }
}

/// Finds where two logs part, or whether checkpoints fit a log or each other.
pub(crate) fn compare(
    (a, b): (&Path, &Path),
    key: Option<&str>,
    evidence: &Path,
    out: &mut Out,
) -> Result<u8, ToolError> {
    let key = key.map(parse_key).transpose()?;
    match (side(a, key.as_ref())?, side(b, key.as_ref())?) {
        (Side::Log(first), Side::Log(second)) => compare_logs((a, &first), (b, &second), out),
        (Side::Log(leaves), Side::Paper(paper)) | (Side::Paper(paper), Side::Log(leaves)) => {
            if let Some(code) = contradiction(&leaves, &paper, out)? {
                return Ok(code);
            }
            let size = paper.checkpoint.size();
            let what = format!("the log holds what the checkpoint of {size} records says");
            out.say(|| what.clone(), || json!({ "verdict": "consistent", "says": what }))?;
            Ok(FINE)
        }
        (Side::Paper(first), Side::Paper(second)) => {
            compare_papers((&first, &second), key.as_ref(), evidence, out)
        }
    }
}

fn compare_logs(
    (a, first): (&Path, &Leaves),
    (b, second): (&Path, &Leaves),
    out: &mut Out,
) -> Result<u8, ToolError> {
    let differs = first.0.iter().zip(&second.0).position(|(first, second)| first != second);
    let Some(place) = differs else {
        let (shorter, longer) = (first.size().min(second.size()), first.size().max(second.size()));
        let what = if shorter == longer {
            format!("both logs have the same {shorter} records")
        } else {
            format!(
                "one log has {shorter} records, the other has the same and {} more",
                longer - shorter
            )
        };
        out.say(|| what.clone(), || json!({ "verdict": "consistent", "says": what }))?;
        return Ok(FINE);
    };
    let seq = place as u64 + 1;
    let what = format!(
        "equivocation: the logs part at record {seq}; {place} records before it are the same"
    );
    out.say(|| what.clone(), || json!({ "verdict": "equivocation", "seq": seq, "says": what }))?;
    for path in [a, b] {
        out.line(&format!("{}:", path.display()))?;
        let mut shown = Ok(());
        read(path, &mut |raw, envelope| {
            if raw.seq < seq {
                return std::ops::ControlFlow::Continue(());
            }
            shown = out.say(|| overview::line(seq, &envelope), || overview::object(seq, &envelope));
            std::ops::ControlFlow::Break(())
        })?;
        shown?;
    }
    Ok(EQUIVOCATION)
}

fn compare_papers(
    (a, b): (&Paper, &Paper),
    key: Option<&NoteKey>,
    evidence: &Path,
    out: &mut Out,
) -> Result<u8, ToolError> {
    let (first, second) = (&a.checkpoint, &b.checkpoint);
    if first.origin() != second.origin() {
        let (a, b) = (first.origin(), second.origin());
        return Err(ToolError::usage(format!("one checkpoint is of {a}, the other of {b}")));
    }
    if first.size() != second.size() {
        let what = "checkpoints of different lengths contradict each other or not only beside the log: \
                    compare each with it, or check a consistency proof";
        return Err(ToolError::usage(what));
    }
    if first.root() == second.root() {
        let what = format!("both checkpoints say the same of {} records", first.size());
        out.say(|| what.clone(), || json!({ "verdict": "consistent", "says": what }))?;
        return Ok(FINE);
    }
    let size = first.size();
    let what = format!(
        "equivocation: two checkpoints of {} say different things of its first {size} records",
        first.origin()
    );
    out.say(|| what.clone(), || json!({ "verdict": "equivocation", "says": what }))?;
    if let Some(key) = key {
        write_evidence((a, b), key, evidence)?;
        out.line(&format!(
            "both are signed by its key; the evidence is in {}",
            evidence.display()
        ))?;
    } else {
        out.line("whether its key has signed both was not checked: --key")?;
    }
    Ok(EQUIVOCATION)
}

/// Saves two signed checkpoints that contradict each other, with the key that has signed both.
fn write_evidence((a, b): (&Paper, &Paper), key: &NoteKey, file: &Path) -> Result<(), ToolError> {
    let coded = |paper: &Paper| data_encoding::BASE64.encode(paper.to_string().as_bytes());
    let text = format!("{EVIDENCE}\nkey {key}\none {}\nother {}\n", coded(a), coded(b));
    match fs::File::create_new(file) {
        Ok(mut new) => {
            io::Write::write_all(&mut new, text.as_bytes()).map_err(ToolError::file(file))
        }
        Err(error) => Err(ToolError::file(file)(error)),
    }
}

/// Checks evidence: both checkpoints signed by the key, of one length, with different tree hashes.
fn check_evidence(text: &str, out: &mut Out) -> Result<u8, ToolError> {
    let malformed = || ToolError::usage("the evidence is not complete");
    let fields: HashMap<&str, &str> =
        text.lines().filter_map(|line| line.split_once(' ')).collect();
    let key = parse_key(fields.get("key").ok_or_else(malformed)?)?;
    let paper = |name: &str| -> Result<Paper, ToolError> {
        let coded = fields.get(name).ok_or_else(malformed)?;
        let bytes = data_encoding::BASE64.decode(coded.as_bytes()).map_err(|_| malformed())?;
        let text = String::from_utf8(bytes).map_err(|_| malformed())?;
        text.parse().map_err(|_| malformed())
    };
    let (a, b) = (paper("one")?, paper("other")?);
    for paper in [&a, &b] {
        check_signed(Path::new("the evidence"), paper, &key)?;
    }
    let same =
        (a.checkpoint.size(), a.checkpoint.root()) == (b.checkpoint.size(), b.checkpoint.root());
    if same || a.checkpoint.size() != b.checkpoint.size() {
        return refuse("the two checkpoints do not contradict each other", out);
    }
    let what = format!(
        "equivocation: the key {key} has signed two histories of the first {} records of {}",
        a.checkpoint.size(),
        a.checkpoint.origin()
    );
    out.say(|| what.clone(), || json!({ "verdict": "equivocation", "says": what }))?;
    Ok(EQUIVOCATION)
}
