//! The texts and proofs of the transparency log.

use std::{
    fmt::{Debug, Display},
    str::FromStr,
};

use keypool_transparency::{
    Checkpoint, Consistency, Inclusion, NoteKey, NoteSigner, ProofError, Receipt, ReceiptFile,
    SignedArtifact, SignedNote, Tile, TimeStatement, Tree, TreeHash, check_consistency,
    check_inclusion, contradiction, prove_consistency, prove_inclusion, subtree,
};

use super::{edits::edit, input::InputReader};

/// How many leaves the tree of an input has at most.
const LEAVES_MAX: usize = 300;
/// How many hashes a proof of an input has at most.
const HASHES_MAX: usize = 70;

/// Reads a text as the kind that the first byte says, and checks its proof. Written again it is the same text,
/// where the kind has one form, and else it is read as the same value.
pub fn signed_text(bytes: &[u8]) {
    let Some((kind, text)) = bytes.split_first() else { return };
    let Ok(text) = str::from_utf8(text) else { return };
    match kind % 10 {
        0 => drop(check::<Checkpoint>(text)),
        1 => {
            // Base64 that is padded in the middle is read too, so that a signature has several forms.
            if let Some(note) = check::<SignedNote>(text) {
                let key = NoteSigner::new("ledger", &[1; 32]).unwrap().public();
                let _ = note.check(&key);
            }
        }
        2 => drop(check_exact::<NoteKey>(text)),
        3 => {
            if let Ok(signer) = NoteSigner::from_secret_text(text) {
                assert_eq!(signer.to_secret_text(), text);
            }
        }
        4 => {
            if let Some(inclusion) = check::<Inclusion>(text) {
                let _ = inclusion.check();
            }
        }
        5 => {
            if let Some(consistency) = check::<Consistency>(text) {
                let _ = consistency.check();
            }
        }
        6 => drop(check::<SignedArtifact>(text)),
        7 => {
            let receipts = check_exact::<Receipt>(text);
            let first = "keypool/receipt@v1\n";
            assert!(receipts.is_none() || text.starts_with(first) || text.contains("@v2\n"));
            if let Some(receipt) = receipts {
                assert_eq!(contradiction(&receipt, &receipt), None, "a receipt agrees with itself");
            }
        }
        8 => {
            if let Some(file) = check_exact::<ReceiptFile>(text) {
                let _ = file.read();
            }
        }
        _ => {
            let _ = check_exact::<TimeStatement>(text);
            if let Ok(tile) = Tile::from_path(text) {
                assert_eq!(tile.to_string(), text, "a tile has one path");
                let _ = tile.is_in(u64::MAX);
                let node = &mut |_, _| Ok::<_, ()>(TreeHash::empty());
                assert!(tile.read(node).unwrap().len() <= 256 * 32);
            }
        }
    }
}

fn check<T: FromStr + Display + PartialEq + Debug>(text: &str) -> Option<T> {
    let value: T = text.parse().ok()?;
    assert_eq!(value.to_string().parse::<T>().ok().as_ref(), Some(&value));
    Some(value)
}

fn check_exact<T: FromStr + Display>(text: &str) -> Option<T> {
    let value: T = text.parse().ok()?;
    assert_eq!(value.to_string(), text, "a text of this kind has one form");
    Some(value)
}

/// Makes a proof in a tree and changes it. The proof is accepted as it was made, and refused once it differs. With sizes
/// that no tree has, a check ends at once.
pub fn proof(bytes: &[u8]) {
    let mut input = InputReader::new(bytes);
    if input.flag() {
        return check_any(&mut input);
    }
    let leaves = 1 + input.number(LEAVES_MAX - 1);
    let (index, old) = (input.number(leaves - 1) as u64, input.number(leaves) as u64);
    let size = leaves as u64;
    let is_inclusion = input.flag();
    let tree = InputTree::of(size);
    let root = tree.hash(0..size);
    let mut hash_of = |range| Ok::<_, ProofError>(tree.hash(range));
    let made = if is_inclusion {
        prove_inclusion(index, size, &mut hash_of)
    } else {
        prove_consistency(old, size, &mut hash_of)
    };
    let made = made.expect("a tree proves what it has");
    let shows = |hashes: &[TreeHash]| {
        if is_inclusion {
            check_inclusion((index, leaf(index)), (size, root), hashes).is_ok()
        } else {
            check_consistency((old, tree.hash(0..old)), (size, root), hashes).is_ok()
        }
    };
    assert!(shows(&made), "a proof shows what it was made for");
    let mut hashes: Vec<u8> = made
        .iter()
        .flat_map(|hash| data_encoding::BASE64.decode(hash.to_string().as_bytes()).unwrap())
        .collect();
    edit(&mut input, &mut hashes);
    let changed: Vec<TreeHash> = hashes.chunks_exact(32).map(hash_of_bytes).collect();
    assert!(changed == made || !shows(&changed), "another proof shows nothing");
}

/// Checks proofs of any sizes.
fn check_any(input: &mut InputReader<'_>) {
    let (one, other): (u64, u64) = (input.any(), input.any());
    let mut hashes = Vec::new();
    for _ in 0..input.number(HASHES_MAX) {
        hashes.push(hash_of_bytes(&[input.any(); 32]));
    }
    let root = hash_of_bytes(&[input.any(); 32]);
    assert!(check_inclusion((one, root), (other, root), &hashes).is_err() || other == 1);
    let _ = check_consistency((one, root), (other, root), &hashes);
    let node = &mut |_, _| Ok::<_, ()>(root);
    let end = one.saturating_add(other >> 32);
    let _ = subtree(one..end, node);
    for tile in Tile::between(other - other % 256, other).iter().take(8) {
        assert_eq!(Tile::from_path(&tile.to_string()).as_ref(), Ok(tile));
    }
}

/// A tree over numbered leaves, with its nodes.
struct InputTree(std::collections::HashMap<(u8, u64), TreeHash>);

impl InputTree {
    fn of(size: u64) -> Self {
        let (mut nodes, mut tree) = (std::collections::HashMap::new(), Tree::default());
        for index in 0..size {
            tree.append_hash(leaf(index), &mut |node| {
                nodes.insert((node.level, node.index), node.hash);
            });
        }
        Self(nodes)
    }

    fn hash(&self, range: std::ops::Range<u64>) -> TreeHash {
        let node = &mut |level, index| Ok::<_, ()>(self.0[&(level, index)]);
        subtree(range, node).unwrap()
    }
}

fn leaf(index: u64) -> TreeHash {
    TreeHash::leaf(&index.to_be_bytes())
}

fn hash_of_bytes(bytes: &[u8]) -> TreeHash {
    data_encoding::BASE64.encode(bytes).parse().expect("32 bytes are a hash")
}
