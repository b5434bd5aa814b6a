//! The tree, its proofs and its notes: against a naive tree, and against independent implementations.
#![cfg(test)]

use std::{cell::RefCell, collections::HashMap};

use keypool_transparency::{
    Checkpoint, Consistency, Inclusion, Node, NoteError, NoteKey, NoteSigner, ProofError,
    SignedArtifact, SignedNote, TILE_WIDTH, Tile, Tree, TreeHash, check_consistency,
    check_inclusion, prove_consistency, prove_inclusion, subtree,
};
use quickcheck::{QuickCheck, TestResult};
use signed_note::{Note, StandardVerifier, VerifierList};
use tlog_tiles::{HashReader, TileReader};

/// The definition of RFC 6962 section 2.1, word for word.
fn naive(leaves: &[Vec<u8>]) -> TreeHash {
    match leaves {
        [] => TreeHash::empty(),
        [leaf] => TreeHash::leaf(leaf),
        _ => {
            let split = leaves.len().next_power_of_two() / 2;
            TreeHash::node(naive(&leaves[..split]), naive(&leaves[split..]))
        }
    }
}

fn leaves(size: u64) -> Vec<Vec<u8>> {
    (0..size).map(|n| format!("leaf {n}").into_bytes()).collect()
}

/// A tree with all its nodes.
#[derive(Default)]
struct Kept {
    tree: Tree,
    nodes: HashMap<(u8, u64), TreeHash>,
}

impl Kept {
    fn of(size: u64) -> Self {
        let mut kept = Self::default();
        for leaf in leaves(size) {
            let mut nodes = Vec::new();
            kept.tree.append_hash(TreeHash::leaf(&leaf), &mut |node| nodes.push(node));
            for Node { level, index, hash } in nodes {
                assert_eq!(kept.nodes.insert((level, index), hash), None, "a node is final once");
            }
        }
        kept
    }

    #[expect(clippy::unnecessary_wraps, reason = "who reads nodes from a disk can fail")]
    fn node(&self, level: u8, index: u64) -> Result<TreeHash, ProofError> {
        Ok(*self.nodes.get(&(level, index)).expect("only final nodes are asked for"))
    }

    fn inclusion(&self, index: u64, size: u64) -> Vec<TreeHash> {
        let mut hash_of = |range| subtree(range, &mut |level, index| self.node(level, index));
        prove_inclusion(index, size, &mut hash_of).unwrap()
    }

    fn consistency(&self, old: u64, new: u64) -> Vec<TreeHash> {
        let mut hash_of = |range| subtree(range, &mut |level, index| self.node(level, index));
        prove_consistency(old, new, &mut hash_of).unwrap()
    }

    fn root(&self, size: u64) -> TreeHash {
        subtree(0..size, &mut |level, index| self.node(level, index)).unwrap()
    }
}

#[test]
fn the_tree_is_that_of_the_rfc_at_every_size() {
    let mut tree = Tree::default();
    for size in 0..130 {
        assert_eq!(tree.root(), naive(&leaves(size)), "{size} leaves");
        assert_eq!(Tree::from_bytes(&tree.to_bytes()).unwrap(), tree);
        tree.append(format!("leaf {size}").as_bytes());
    }
    let mut bytes = tree.to_bytes();
    bytes.pop();
    assert!(Tree::from_bytes(&bytes).is_err() && Tree::from_bytes(&[]).is_err());
}

#[test]
fn a_tree_made_of_its_nodes_is_the_one_that_grew_at_every_size() {
    let (kept, mut grown) = (Kept::of(600), Tree::default());
    for leaf in leaves(600) {
        let made = Tree::from_nodes(grown.size(), &mut |level, index| kept.node(level, index));
        assert_eq!(made.unwrap(), grown);
        grown.append(&leaf);
    }
    let lost = Tree::from_nodes(600, &mut |level, _| {
        if level < 9 { Err(level) } else { kept.node(9, 0).map_err(|_| 0) }
    });
    assert_eq!(lost.unwrap_err(), 6, "600 is 512 and 64 and 16 and 8");
}

#[test]
fn known_trees_have_their_known_hashes() {
    // RFC 6962: the hash of an empty tree is the hash of an empty string.
    let empty = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    assert_eq!(TreeHash::empty().to_string(), empty);
    // SHA-256 of one zero byte: the leaf without content, as the tests of Certificate Transparency know it.
    let leaf = "bjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0=";
    assert_eq!(TreeHash::leaf(b"").to_string(), leaf);
}

#[test]
fn every_proof_holds_and_no_other_does() {
    let (size, kept) = (70, Kept::of(70));
    for new in 1..=size {
        let tree = (new, kept.root(new));
        for index in 0..new {
            let (proof, leaf) = (kept.inclusion(index, new), kept.nodes[&(0, index)]);
            check_inclusion((index, leaf), tree, &proof).unwrap();
            assert!(check_inclusion((index + 1, leaf), tree, &proof).is_err());
            assert!(check_inclusion((index, TreeHash::empty()), tree, &proof).is_err());
            assert!(check_inclusion((index, leaf), (new, TreeHash::empty()), &proof).is_err());
        }
        for old in 0..=new {
            let (proof, before) = (kept.consistency(old, new), (old, kept.root(old)));
            check_consistency(before, tree, &proof).unwrap();
            assert!(check_consistency((old, TreeHash([7; 32])), tree, &proof).is_err());
            if 0 < old {
                assert!(check_consistency(before, (new, TreeHash([7; 32])), &proof).is_err());
            }
            let longer = [proof.clone(), vec![TreeHash::empty()]].concat();
            assert!(check_consistency(before, tree, &longer).is_err());
        }
    }
    assert!(check_consistency((3, kept.root(3)), (2, kept.root(2)), &[]).is_err());
    assert!(check_inclusion((0, TreeHash::empty()), (u64::MAX, TreeHash::empty()), &[]).is_err());
}

#[test]
fn a_proof_with_one_altered_hash_proves_nothing() {
    fn property(index: u64, extra: u64, place: usize, bit: u8) -> TestResult {
        let (index, size) = (index % 300, index % 300 + 1 + extra % 300);
        let kept = Kept::of(size);
        let (tree, leaf) = ((size, kept.tree.root()), kept.nodes[&(0, index)]);
        let mut proof = kept.inclusion(index, size);
        if proof.is_empty() {
            return TestResult::discard();
        }
        let holds = check_inclusion((index, leaf), tree, &proof).is_ok();
        let place = place % proof.len();
        proof[place].0[usize::from(bit % 32)] ^= 1 << (bit % 8);
        TestResult::from_bool(holds && check_inclusion((index, leaf), tree, &proof).is_err())
    }
    QuickCheck::new().tests(200).quickcheck(property as fn(u64, u64, usize, u8) -> TestResult);
}

/// The independent implementation, reading our nodes.
impl HashReader for Kept {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::Hash>, tlog_tiles::Error> {
        let read = |index: &u64| {
            let (level, n) = tlog_tiles::split_stored_hash_index(*index);
            tlog_tiles::Hash(self.nodes[&(level, n)].0)
        };
        Ok(indexes.iter().map(read).collect())
    }
}

#[test]
fn another_implementation_checks_our_proofs_and_we_check_its() {
    let kept = Kept::of(600);
    let theirs = |hash: TreeHash| tlog_tiles::Hash(hash.0);
    for size in [1, 2, 3, 7, 8, 200, 256, 257, 599, 600] {
        let root = kept.root(size);
        assert_eq!(tlog_tiles::tree_hash(size, &kept).unwrap(), theirs(root), "{size}");
        for index in (0..size).step_by(13) {
            let ours: Vec<_> = kept.inclusion(index, size).into_iter().map(theirs).collect();
            let leaf = theirs(kept.nodes[&(0, index)]);
            assert_eq!(tlog_tiles::prove_record(size, index, &kept).unwrap(), ours);
            tlog_tiles::check_record(&ours, size, theirs(root), index, leaf).unwrap();
        }
        for old in (1..=size).step_by(17) {
            let ours: Vec<_> = kept.consistency(old, size).into_iter().map(theirs).collect();
            tlog_tiles::check_tree(&ours, size, theirs(root), old, theirs(kept.root(old))).unwrap();
            assert_eq!(tlog_tiles::prove_tree(size, old, &kept).unwrap(), ours);
        }
    }
}

/// Our tiles, for the independent implementation, which asks for them by path.
struct Tiles<'a>(&'a Kept, RefCell<u64>);

impl TileReader for Tiles<'_> {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[tlog_tiles::Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        let read = |tile: &tlog_tiles::Tile| {
            let mut parts: Vec<_> = tile.path().split('/').map(str::to_owned).collect();
            // Its paths name the height of a tile, which C2SP has left out: it is always 8.
            assert_eq!(parts.remove(1), "8");
            let ours = Tile::from_path(&parts.join("/")).unwrap();
            *self.1.borrow_mut() += 1;
            ours.read(&mut |level, index| self.0.node(level, index)).unwrap()
        };
        Ok(tiles.iter().map(read).collect())
    }

    fn save_tiles(&self, _: &[tlog_tiles::Tile], _: &[Vec<u8>]) {}
}

#[test]
fn another_implementation_reads_our_tiles() {
    let kept = Kept::of(70_000);
    let size = kept.tree.size();
    let tiles = Tiles(&kept, RefCell::new(0));
    let root = tlog_tiles::Hash(kept.tree.root().0);
    let reader = tlog_tiles::TileHashReader::new(size, root, &tiles);
    for index in [0, 255, 256, 65_535, 65_536, 69_999] {
        let proof = tlog_tiles::prove_record(size, index, &reader).unwrap();
        let leaf = tlog_tiles::Hash(kept.nodes[&(0, index)].0);
        tlog_tiles::check_record(&proof, size, root, index, leaf).unwrap();
    }
    assert!(0 < *tiles.1.borrow());
    // The example of the C2SP document.
    let all = Tile::between(0, size);
    let of_level = |level, full| {
        all.iter().filter(move |t| t.level == level && (t.width == TILE_WIDTH) == full).count()
    };
    assert_eq!((of_level(0, true), of_level(0, false)), (273, 1));
    assert_eq!((of_level(1, true), of_level(1, false), of_level(2, false)), (1, 1, 1));
    assert!(
        all.iter().all(|tile| tile.is_in(size) && Tile::from_path(&tile.to_string()) == Ok(*tile))
    );
    let tile = Tile { level: 0, index: 1_234_067, width: 12 };
    assert_eq!(tile.to_string(), "tile/0/x001/x234/067.p/12");
    for wrong in
        ["tile/0/67", "tile/00/067", "tile/0/067.p/256", "tile/0/067.p/0", "tile/0/x067", "x"]
    {
        assert!(Tile::from_path(wrong).is_err(), "{wrong}");
    }
}

fn signer() -> NoteSigner {
    NoteSigner::new("keypool.example/log", &[9; 32]).unwrap()
}

#[test]
fn another_implementation_reads_our_checkpoints_and_we_read_its() {
    let kept = Kept::of(1000);
    let checkpoint = Checkpoint::new("keypool.example/log", 1000, kept.tree.root()).unwrap();
    let note = checkpoint.sign(&signer()).unwrap();
    let (text, key) = (note.to_string(), signer().public());

    let theirs = Note::from_bytes(text.as_bytes()).unwrap();
    let verifier = StandardVerifier::new(&key.to_string()).unwrap();
    let (good, _) = theirs.verify(&VerifierList::new(vec![Box::new(verifier)])).unwrap();
    assert_eq!(good.len(), 1);
    let read = tlog_tiles::Checkpoint::from_bytes(theirs.text());
    let read = read.unwrap();
    assert_eq!(
        (read.origin(), read.size(), read.hash().0),
        ("keypool.example/log", 1000, kept.tree.root().0)
    );

    let theirs = signed_note::StandardSigner::new(&signer().to_secret_text()).unwrap();
    let mut made = Note::new(checkpoint.to_string().as_bytes(), &[]).unwrap();
    made.add_sigs(&[&theirs]).unwrap();
    let made: SignedNote = String::from_utf8(made.to_bytes()).unwrap().parse().unwrap();
    made.check(&key).unwrap();
    assert_eq!(made.to_string(), text, "Ed25519 signs the same text alike");
    assert_eq!(made.text().parse::<Checkpoint>().unwrap(), checkpoint);
}

#[test]
fn a_note_is_believed_only_if_its_key_has_signed_exactly_this() {
    let note = signer().sign("keypool.example/log\n1\n2\n").unwrap();
    let (text, key) = (note.to_string(), signer().public());
    assert_eq!(text.parse::<SignedNote>().unwrap(), note);
    assert_eq!(key.to_string().parse::<NoteKey>().unwrap(), key);
    let other = NoteSigner::new("keypool.example/log", &[8; 32]).unwrap().public();
    assert_eq!(note.check(&other), Err(NoteError::Unsigned));
    let altered: SignedNote = text.replacen('1', "3", 1).parse().unwrap();
    assert_eq!(altered.check(&key), Err(NoteError::Wrong));
    for wrong in
        ["", "\n", "text", "text\n", "text\n\n", "text\n\nno dash\n", "a\n\n\u{2014} n AAAA\n"]
    {
        assert!(wrong.parse::<SignedNote>().is_err(), "{wrong:?}");
    }
    for wrong in ["", "a b", "a+b", "a\n"] {
        assert!(NoteSigner::new(wrong, &[1; 32]).is_err(), "{wrong:?}");
    }
    let again = NoteSigner::from_secret_text(&signer().to_secret_text()).unwrap();
    assert_eq!(again.public(), key);
    assert_eq!(format!("{:?}", signer()), "NoteSigner", "a secret is not shown");
}

#[test]
fn a_signature_of_an_http_request_is_never_one_of_a_note() {
    let (signer, base) = (signer(), b"\"@method\": POST\n\"@signature-params\": ()");
    let signature = signer.sign_http(base).unwrap();
    let key = ed25519_dalek::VerifyingKey::from_bytes(signer.public().as_bytes()).unwrap();
    key.verify_strict(base, &signature.into()).unwrap();
    assert_eq!(signer.sign_http(b"the text of a note\n"), Err(NoteError::Malformed));
}

#[test]
fn every_flipped_bit_of_a_proof_file_is_found() {
    let kept = Kept::of(11);
    let checkpoint = Checkpoint::new("keypool.example/log", 11, kept.tree.root()).unwrap();
    let note = checkpoint.sign(&signer()).unwrap();
    let paper: SignedArtifact = note.to_string().parse().unwrap();
    let (envelope, hashes) = (b"leaf 4".to_vec(), kept.inclusion(4, 11));
    let text = Inclusion { envelope, index: 4, hashes, paper: paper.clone() }.to_string();
    let key = signer().public();
    let believed = |text: &str| match text.parse::<Inclusion>() {
        Ok(proof) => {
            let signed = proof.paper.note.as_ref().is_some_and(|note| note.check(&key).is_ok());
            proof.check().is_ok() && signed
        }
        Err(_) => false,
    };
    assert!(believed(&text));
    for place in 0..text.len() {
        for bit in 0..8 {
            let mut bytes = text.clone().into_bytes();
            bytes[place] ^= 1 << bit;
            let altered = String::from_utf8(bytes).is_ok_and(|altered| believed(&altered));
            assert!(!altered, "bit {bit} of byte {place}");
        }
    }
    let old = Checkpoint::new("keypool.example/log", 7, kept.root(7)).unwrap();
    let old = SignedArtifact { checkpoint: old, note: None };
    let proof = Consistency { old, new: paper, hashes: kept.consistency(7, 11) };
    let read: Consistency = proof.to_string().parse().unwrap();
    assert_eq!(read, proof);
    read.check().unwrap();
}
