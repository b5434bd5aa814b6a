//! The ledger over HTTP: checkpoints, tiles, proofs and receipts, as strangers, holders and owners see
//! them, checked by an independent implementation too.

use std::{collections::HashMap, time::Duration};

use data_encoding::BASE64;
use keypool_ledger::{Clock, CommandId, codec};
use keypool_projections::Counts;
use keypool_transparency::{
    Checkpoint, NoteKey, ReceiptFile, ReceiptStanding, SignedNote, TimeStatement, Tree, TreeHash,
};
use serde_json::Value;
use signed_note::{Note, StandardVerifier, VerifierList};
use tlog_tiles::TileReader;

use crate::harness::{Answer, Api, Device, Draft, Running, answer};

/// A checkpoint as it came, and the same as another implementation reads it.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) size: u64,
    pub(crate) root: tlog_tiles::Hash,
}

pub(crate) async fn fetch(api: &Api, path: &str) -> Answer {
    answer(api.http.get(format!("{}{path}", api.url))).await.unwrap()
}

/// The checkpoint of now, checked by an independent implementation and by our own.
pub(crate) async fn seen(api: &Api, key: &str) -> Seen {
    let answer = fetch(api, "/ledger/checkpoint").await.ok();
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    let note = Note::from_bytes(&answer.bytes).unwrap();
    let verifier = StandardVerifier::new(key).unwrap();
    note.verify(&VerifierList::new(vec![Box::new(verifier)])).unwrap();
    let read = tlog_tiles::Checkpoint::from_bytes(note.text()).unwrap();

    let ours: SignedNote = String::from_utf8(answer.bytes.clone()).unwrap().parse().unwrap();
    let key: NoteKey = key.parse().unwrap();
    ours.check(&key).unwrap();
    let checkpoint: Checkpoint = ours.text().parse().unwrap();
    assert_eq!(checkpoint.origin(), key.name());
    assert_eq!((checkpoint.size(), checkpoint.root().0), (read.size(), read.hash().0));
    Seen { size: read.size(), root: *read.hash() }
}

/// The first checkpoint that has so many records; it comes by itself.
pub(crate) async fn seen_with(api: &Api, key: &str, records: u64) -> Seen {
    let published = async {
        loop {
            let seen = seen(api, key).await;
            if records <= seen.size {
                return seen;
            }
        }
    };
    actix_rt::time::timeout(Duration::from_secs(30), published).await.unwrap()
}

fn hashes(answer: &Answer) -> Vec<tlog_tiles::Hash> {
    let hash = |value: &Value| hash_of(value);
    answer.body["hashes"].as_array().unwrap().iter().map(hash).collect()
}

fn hash_of(value: &Value) -> tlog_tiles::Hash {
    let bytes = BASE64.decode(value.as_str().unwrap().as_bytes()).unwrap();
    tlog_tiles::Hash(bytes.try_into().unwrap())
}

/// Another implementation finds that the log of one checkpoint is the beginning of that of another.
pub(crate) async fn check_extends(api: &Api, old: &Seen, new: &Seen) {
    let path = format!("/ledger/proof/consistency?from={}&to={}", old.size, new.size);
    let proof = hashes(&fetch(api, &path).await.ok());
    if 0 < old.size {
        tlog_tiles::check_tree(&proof, new.size, new.root, old.size, old.root).unwrap();
    }
}

/// Everything the operator's listener tells of the log.
async fn records(running: &Running) -> Vec<Value> {
    let (mut records, mut after) = (Vec::<Value>::new(), 0);
    loop {
        let url = format!("{}/ledger/events?after={after}&limit=7", running.admin_url());
        let page = answer(running.api.http.get(url)).await.unwrap().ok();
        records.extend(page.body["events"].as_array().unwrap().iter().cloned());
        if page.body["more"] == false {
            return records;
        }
        after = records.last().unwrap()["position"].as_u64().unwrap();
    }
}

/// Alice and Bob, whose pool is filled, and the size of the log.
async fn filled(packages: usize) -> (Running, Device, Device, u64) {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], packages).await;
    let records = 2 + packages as u64;
    (running, alice, bob, records)
}

#[actix_web::test]
async fn every_checkpoint_is_signed_and_extends_the_one_before() {
    let (running, alice, _, records) = filled(20).await;
    let (api, key) = (&running.api, running.server.ledger_key());
    let told = fetch(api, "/ledger/key").await;
    assert_eq!(std::str::from_utf8(&told.bytes).unwrap().trim_end(), key);
    let mut old = seen_with(api, key, records).await;
    for turn in 1..=20 {
        let reserved = api.reserve(&alice, "bob").await.ok();
        if turn % 3 == 0 {
            api.claim(&alice, "/keypackages/spend", &reserved).await.ok();
        }
        let new = seen_with(api, key, old.size + 1).await;
        check_extends(api, &old, &new).await;
        old = new;
    }
}

#[actix_web::test]
async fn every_record_is_proved_to_be_in_every_size_of_the_log() {
    let (running, _, _, size) = filled(15).await;
    let (api, key) = (&running.api, running.server.ledger_key());
    let now = seen_with(api, key, size).await;
    let records = records(&running).await;
    assert_eq!(records.len() as u64, now.size);
    let mut tree = Tree::default();
    for (index, record) in (0..).zip(&records) {
        let envelope = BASE64.decode(record["envelope"].as_str().unwrap().as_bytes()).unwrap();
        tree.append(&envelope);
        let (leaf, path) = (tlog_tiles::record_hash(&envelope), "/ledger/proof/inclusion");
        for (size, root) in [(index + 1, tlog_tiles::Hash(tree.root().0)), (now.size, now.root)] {
            let path = format!("{path}?seq={}&size={size}", index + 1);
            let reply = fetch(api, &path).await.ok();
            assert_eq!(hash_of(&reply.body["leaf"]), leaf);
            tlog_tiles::check_record(&hashes(&reply), size, root, index, leaf).unwrap();
        }
    }
}

/// Tiles as they came over HTTP, for the independent implementation, which asks for them by path.
struct Fetched(HashMap<String, Vec<u8>>);

impl TileReader for Fetched {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[tlog_tiles::Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        // Its paths name the height of a tile, which C2SP has left out: it is always 8.
        let path = |tile: &tlog_tiles::Tile| tile.path().replacen("tile/8/", "", 1);
        Ok(tiles.iter().map(|tile| self.0[&path(tile)].clone()).collect())
    }

    fn save_tiles(&self, _: &[tlog_tiles::Tile], _: &[Vec<u8>]) {}
}

#[actix_web::test]
async fn the_tiles_make_the_tree_of_the_checkpoint() {
    let (running, alice, _, mut written) = filled(60).await;
    let (api, key) = (&running.api, running.server.ledger_key());
    // Beyond 256 records there is a full tile, and a second level.
    while written <= 260 {
        let reserved = api.reserve(&alice, "bob").await.ok();
        api.claim(&alice, "/keypackages/release", &reserved).await.ok();
        written += 2;
    }
    let now = seen_with(api, key, written).await;
    let part = format!("0/001.p/{}", now.size - 256);
    let mut tiles = HashMap::new();
    for path in ["0/000", &part, "1/000.p/1"] {
        let tile = fetch(api, &format!("/ledger/tile/{path}")).await.ok();
        assert_eq!(tile.header("content-type"), "application/octet-stream");
        tiles.insert(path.to_owned(), tile.bytes);
    }
    let mut tree = Tree::default();
    for leaf in [&tiles["0/000"][..], &tiles[&part]].concat().chunks(32) {
        tree.append_hash(TreeHash(leaf.try_into().unwrap()), &mut |_| {});
    }
    assert_eq!((tree.size(), tree.root().0), (now.size, now.root.0));
    let tiles = Fetched(tiles);
    let reader = tlog_tiles::TileHashReader::new(now.size, now.root, &tiles);
    assert_eq!(tlog_tiles::tree_hash(now.size, &reader).unwrap(), now.root);
    tlog_tiles::prove_record(now.size, 255, &reader).unwrap();

    let none = ["0/001", "0/7", "0/002.p/1", "1/001.p/1", "9/000", "entries/000", "0/000.p/0", ""];
    for path in none {
        let missing = fetch(api, &format!("/ledger/tile/{path}")).await;
        assert_eq!((missing.status, missing.code()), (404, "not_found"), "{path}");
    }
}

#[actix_web::test]
async fn what_is_not_published_is_not_proved() {
    let (running, _, _, size) = filled(3).await;
    seen_with(&running.api, running.server.ledger_key(), size).await;
    let paths = [
        "inclusion?seq=0&size=3",
        "inclusion?seq=4&size=3",
        "inclusion?seq=1&size=99",
        "inclusion?seq=1",
        "inclusion?seq=x&size=3",
        "consistency?from=4&to=3",
        "consistency?from=4&to=99",
        "consistency?from=1&to=18446744073709551615",
    ];
    let mut told = Vec::new();
    for path in paths {
        let refused = fetch(&running.api, &format!("/ledger/proof/{path}")).await;
        told.push(format!("{} {}: {}", refused.status, path, refused.text("detail")));
    }
    insta::assert_snapshot!(told.join("\n"));
}

/// The receipt of a reservation, and its content if its key has signed all of it.
pub(crate) async fn receipt(
    running: &Running,
    device: &Device,
    reserved: &Answer,
) -> (ReceiptFile, Answer) {
    let path = format!("/keypackages/receipt/{}", reserved.text("reservation_id"));
    let answer = running.api.get(device, &path).await.ok();
    let file: ReceiptFile = String::from_utf8(answer.bytes.clone()).unwrap().parse().unwrap();
    (file, answer)
}

#[actix_web::test]
async fn holder_and_owner_get_a_receipt_that_can_be_checked_without_the_server() {
    let (running, alice, bob, _) = filled(2).await;
    let api = &running.api;
    let reserved = api.reserve(&alice, "bob").await.ok();
    let (for_holder, _) = receipt(&running, &alice, &reserved).await;
    api.claim(&alice, "/keypackages/spend", &reserved).await.ok();
    let (for_owner, answer) = receipt(&running, &bob, &reserved).await;
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");

    let key: NoteKey = running.server.ledger_key().parse().unwrap();
    running.server.stop().await;
    let (open, spent) = (for_holder.check(&key).unwrap(), for_owner.check(&key).unwrap());
    assert_eq!(open.hand_out, spent.hand_out);
    assert_eq!((open.standing, spent.standing), (ReceiptStanding::Open, ReceiptStanding::Spent));
    let told = &open.hand_out;
    assert_eq!(
        (told.holder.to_string(), told.pool.to_string()),
        ("alice/main".into(), "bob/main".into())
    );
    assert_eq!(told.keypackage_ref.to_string(), reserved.text("keypackage_ref"));
    assert_eq!(told.deadline.as_secs(), reserved.body["reservation_expires_at"].as_u64().unwrap());
    assert_eq!((told.record, told.generation, open.as_of), (5, 1, 5));

    // Another implementation can check the whole, too.
    let (envelope, paper) = (&for_owner.inclusion.envelope, &for_owner.inclusion.paper.checkpoint);
    let proof: Vec<_> = for_owner.inclusion.hashes.iter().map(|h| tlog_tiles::Hash(h.0)).collect();
    let (root, leaf) = (tlog_tiles::Hash(paper.root().0), tlog_tiles::record_hash(envelope));
    tlog_tiles::check_record(&proof, paper.size(), root, for_owner.inclusion.index, leaf).unwrap();
    let verifier = StandardVerifier::new(&key.to_string()).unwrap();
    let note = Note::from_bytes(for_owner.note.to_string().as_bytes()).unwrap();
    note.verify(&VerifierList::new(vec![Box::new(verifier)])).unwrap();
    assert!(tlog_tiles::Checkpoint::from_bytes(note.text()).is_err(), "it is no checkpoint");
}

#[actix_web::test]
async fn nobody_else_gets_a_receipt_or_learns_that_there_is_one() {
    let (running, alice, _, _) = filled(2).await;
    let (api, carol) = (&running.api, Device::new("carol"));
    api.register(&carol).await.ok();
    let reserved = api.reserve(&alice, "bob").await.ok();
    let path = |id: &str| format!("/keypackages/receipt/{id}");
    let others = api.get(&carol, &path(reserved.text("reservation_id"))).await;
    let none = api.get(&carol, &path("018f2f3e-7c1a-4d3b-9a5e-0123456789ab")).await;
    assert_eq!((others.status, others.code()), (404, "not_found"));
    let told = |answer: &Answer| {
        let mut body = answer.body.clone();
        body.as_object_mut().unwrap().remove("request_id");
        body
    };
    assert_eq!(told(&others), told(&none));
    let no_id = api.get(&alice, &path("mine")).await;
    assert_eq!((no_id.status, no_id.code()), (400, "invalid_name"));
    let unsigned = fetch(api, &path(reserved.text("reservation_id"))).await;
    assert_eq!((unsigned.status, unsigned.code()), (401, "unauthenticated"));
}

#[actix_web::test]
async fn strangers_see_hashes_only() {
    let (running, alice, _, size) = filled(2).await;
    let (api, key) = (&running.api, running.server.ledger_key());
    let reserved = api.reserve(&alice, "bob").await.ok();
    seen_with(api, key, size + 1).await;
    // The records are told on the operator's own listener alone.
    let events = fetch(api, "/ledger/events").await;
    assert_eq!((events.status, events.code()), (404, "not_found"));
    let mut public = Vec::new();
    let paths = [
        "checkpoint",
        "tile/0/000.p/5",
        "proof/inclusion?seq=5&size=5",
        "proof/consistency?from=2&to=5",
    ];
    for path in paths {
        public.extend(fetch(api, &format!("/ledger/{path}")).await.ok().bytes);
    }
    let package = reserved.text("keypackage_ref").to_owned();
    for secret in ["alice", "bob", &package, reserved.text("reservation_id")] {
        let found = public.windows(secret.len()).any(|bytes| bytes == secret.as_bytes());
        assert!(!found, "{secret}");
    }
}

#[actix_web::test]
async fn the_operator_gets_every_record_whole() {
    let (running, alice, bob, _) = filled(2).await;
    let api = &running.api;
    let draft = Draft::post(
        "/keypackages/upload",
        &crate::harness::upload(&[bob.package(crate::harness::NOW)]),
    );
    api.send(&bob, &draft).await.ok();
    api.reserve(&alice, "bob").await.ok();
    let records = records(&running).await;
    let (mut positions, mut counts) = (1.., Counts::default());
    for record in &records {
        assert_eq!(record["position"].as_u64(), positions.next());
        let bytes = |name| BASE64.decode(record[name].as_str().unwrap().as_bytes()).unwrap();
        let envelope = codec::decode(&bytes("envelope")).unwrap();
        assert_eq!(record["stream"], envelope.stream.to_string());
        assert_eq!(keypool_ledger::Hash::of(&bytes("payload")), envelope.payload);
        counts.available += u64::from(envelope.event.name() == "uploaded");
    }
    assert_eq!(counts.available, 3);
    let uploaded =
        records.iter().filter(|record| record["command"] == CommandId(draft.key).to_string());
    assert_eq!(uploaded.count(), 1);
}

#[actix_web::test]
async fn the_time_is_in_every_answer_and_signed_for_a_question() {
    let running = Running::start();
    let api = &running.api;
    let key = fetch(api, "/ledger/key").await.ok();
    let key: NoteKey = String::from_utf8(key.bytes).unwrap().trim().parse().unwrap();
    running.clock.advance(Duration::from_secs(5));
    let now = running.clock.now();
    for path in ["/ledger/key", "/nowhere", "/mailbox"] {
        let answer = fetch(api, path).await;
        assert_eq!(answer.header("keypool-time"), now.as_millis().to_string(), "{path}");
    }
    let nonce = [0xab; 16];
    let answer = fetch(api, &format!("/ledger/time?nonce={}", "ab".repeat(16))).await.ok();
    let note = String::from_utf8(answer.bytes).unwrap();
    assert_eq!(TimeStatement::verify(&note, &key, nonce), Ok(now));
    for nonce in ["", "ab", &"AB".repeat(16), &"zz".repeat(16)] {
        let answer = fetch(api, &format!("/ledger/time?nonce={nonce}")).await;
        assert_eq!((answer.status, answer.body["code"].as_str()), (400, Some("bad_request")));
    }
}
