//! The disk under a load that is the same each day, where payloads leave the log after their time.
//!
//! `just retention` makes the load larger, as docs/benchmarks.md has it.

use std::{
    env, fs,
    io::Read,
    ops::ControlFlow,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use data_encoding::BASE64;
use keypool_auditor::{
    invariants::{Auditor, InvariantParams},
    source::Source,
    verify::{Seen as SeenEnd, verify},
};
use keypool_ledger::codec;
use keypool_server::Server;
use keypool_transparency::{NoteKey, ReceiptFile, ReceiptStanding, TreeHash};
use serde_json::json;
use uuid::Uuid;

use crate::{
    backups::{confirm_clock, prune, pruned_bytes},
    groups::{APPLICATION, Group},
    harness::{Answer, Api, Device, Running, files, local_settings},
    ledger::{Seen, check_extends, receipt, seen_with},
};

const DAY: Duration = Duration::from_hours(24);
/// How long payloads stay.
const RETAIN_DAYS: u64 = 3;
/// How many packages an exchange uploads, hands out and spends.
const PACKAGES: usize = 4;
/// The words of a message, which are most of its bytes.
const WORDS: usize = 2000;
/// The group of the two.
const TALK: &str = "talk";

/// A number from the environment, for a larger load.
fn number(name: &str, usual: u64) -> u64 {
    env::var(name).map_or(usual, |value| value.parse().unwrap())
}

/// The end of a day, after the payloads that were due have left.
struct DayEnd {
    /// Bytes of payloads that the exchanges have written so far.
    written: u64,
    /// Bytes of payloads that have left so far.
    pruned: u64,
    /// Bytes of the journal, without reserved room.
    journal: u64,
    /// Bytes of index and tiles on the disk.
    index: u64,
}

impl DayEnd {
    fn of(running: &Running, written: u64, pruned: u64) -> Self {
        let [journal, index, tiles] =
            ["journal", "sled", "tiles"].map(|part| bytes_of(running, part));
        Self { written, pruned, journal, index: index + tiles }
    }

    /// Bytes of payloads in the log at this moment, if so many are there at the end of the last day.
    fn payloads(&self, last: &Self, at_last: u64) -> u64 {
        (at_last + last.pruned + self.written) - (self.pruned + last.written)
    }
}

/// Bytes of the files of a part of the data directory, without reserved room.
fn bytes_of(running: &Running, part: &str) -> u64 {
    let dir = running.data.path().join("log").join(part);
    let used = |path: PathBuf| {
        let found = fs::metadata(&path).unwrap();
        if part != "journal" {
            return found.blocks() * 512;
        }
        // The segment that is being written has zeros behind its records.
        let file = fs::File::open(path).unwrap();
        let mut last = [1];
        let _ = file.read_at(&mut last, found.len().saturating_sub(1)).unwrap();
        if last == [0] { used_of(&file, found.len()) } else { found.len() }
    };
    files(&dir).into_iter().map(used).sum()
}

/// How many bytes of a file there are up to the last that is not zero.
fn used_of(mut file: &fs::File, len: u64) -> u64 {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    len - bytes.iter().rev().take_while(|byte| **byte == 0).count() as u64
}

/// Alice, who invites Bob and writes to him.
struct Pair {
    alice: Device,
    bob: Device,
}

impl Pair {
    /// Uploads packages, hands them out and spends them, and posts a message that is read. Returns how many bytes
    /// of payloads the log has for it.
    async fn exchange(&self, api: &Api) -> u64 {
        let packages = self.bob.packages(api.clock.now(), PACKAGES);
        api.upload(&self.bob, &packages).await.ok();
        for _ in 0..PACKAGES {
            let reserved = api.reserve(&self.alice, "bob").await.ok();
            api.claim(&self.alice, "/keypackages/spend", &reserved).await.ok();
        }
        let group = Group::new(api, TALK);
        let message = group.framed(1, APPLICATION, &"w".repeat(WORDS));
        group.post(&self.alice, &message).await.ok();
        let waiting = api.get(&self.bob, "/mailbox").await.ok();
        let through = &waiting.body["items"].as_array().unwrap().last().unwrap()["position"];
        api.post(&self.bob, "/mailbox/acknowledge", json!({ "through": through })).await.ok();
        let message = BASE64.decode(message.as_bytes()).unwrap();
        (packages.iter().map(Vec::len).sum::<usize>() + message.len()) as u64
    }

    /// Lets a day pass, and due payloads leave the log.
    async fn pass_day(&self, running: &Running) {
        running.clock.advance(DAY);
        confirm_clock(running, &[&self.alice, &self.bob]).await;
        prune(running).await.ok();
        // The segment that was written last is closed now, and follows.
        Group::new(&running.api, &Uuid::new_v4().to_string()).make(&self.alice).await.ok();
        prune(running).await.ok();
    }
}

/// The tree of a checkpoint, as somebody remembers it.
fn end_of(seen: &Seen) -> SeenEnd {
    SeenEnd { size: seen.size, root: TreeHash(seen.root.0) }
}

/// The log keeps its promises, and has the end that was seen on the first day. Returns the bytes of its envelopes and
/// of its payloads.
fn check_log(data: &Path, seen: &Seen) -> (u64, u64) {
    let source = Source::open(data).unwrap();
    let report = verify(&source, &[end_of(seen)], &mut |_| {});
    assert_eq!(report.findings, []);
    let (mut auditor, mut envelopes, mut payloads) =
        (Auditor::new(InvariantParams::STANDARD), 0, 0);
    let end = source.visit(&mut |raw| {
        auditor.see(raw.seq, &codec::decode(raw.envelope_bytes).unwrap());
        envelopes += raw.envelope_bytes.len() as u64;
        payloads += raw.payload.len() as u64;
        ControlFlow::Continue(())
    });
    end.unwrap();
    assert_eq!(auditor.finish(), []);
    (envelopes, payloads)
}

/// From the day on which payloads begin to leave, as many bytes of payloads are in the log at the end of each day, and
/// the journal grows by the envelopes and their frames alone.
#[expect(clippy::print_stdout, reason = "the figures of docs/benchmarks.md, with --nocapture")]
fn check_growth(ends: &[DayEnd], envelopes: u64, at_last: u64) {
    let (first, last) = (&ends[0], ends.last().unwrap());
    let (days, a_day) = (ends.len() as u64, first.written);
    let envelopes_a_day = envelopes / days;
    let mut before = None;
    for (day, end) in (1..).zip(ends) {
        let payloads = end.payloads(last, at_last);
        let grown = end.journal - payloads;
        println!(
            "day {day}: {payloads} bytes of payloads, journal {}, index and tiles {}",
            end.journal, end.index
        );
        if RETAIN_DAYS <= day {
            // A segment that is written for days loses its payloads some days late, but never early.
            let range = (RETAIN_DAYS - 1) * a_day..=(RETAIN_DAYS + 1) * a_day;
            assert!(range.contains(&payloads), "day {day}: {payloads} of {a_day} a day");
        }
        if let Some(before) = before.replace(grown) {
            assert!(grown - before < envelopes_a_day * 14 / 10, "day {day}: {before}, {grown}");
        }
    }
    println!("a day: {a_day} bytes of payloads, {envelopes_a_day} of envelopes");
}

#[actix_web::test]
async fn the_disk_grows_by_envelopes_alone_once_as_much_leaves_as_comes() {
    let (days, exchanges) =
        (number("KEYPOOL_RETENTION_DAYS", 8), number("KEYPOOL_RETENTION_EXCHANGES", 6));
    let (running, pair, reserved) = started().await;
    let (api, key) = (&running.api, running.server.ledger_key().to_owned());
    let (old_receipt, _) = receipt(&running, &pair.alice, &reserved).await;
    let old_end = seen_with(api, &key, 9).await;

    let (mut written, mut ends) = (0, Vec::new());
    for _ in 0..days {
        for _ in 0..exchanges {
            written += pair.exchange(api).await;
        }
        pair.pass_day(&running).await;
        ends.push(DayEnd::of(&running, written, pruned_bytes(&running).await));
    }

    // The pruning of a long log outlasts an idle connection.
    let api = &Api::new(api.url.clone(), running.clock.clone());
    let new_end = seen_with(api, &key, old_end.size + 1).await;
    check_extends(api, &old_end, &new_end).await;
    let (again, _) = receipt(&running, &pair.alice, &reserved).await;
    let Running { server, clock, data, .. } = running;
    server.stop().await;
    check_receipts(&key, &old_receipt, &again);
    let (envelopes, payloads) = check_log(&data.path().join("log"), &old_end);
    check_growth(&ends, envelopes, payloads);
    let server = Server::start(local_settings(data.path()), clock.clone()).unwrap();
    pair.exchange(&Api::new(server.url(), clock)).await;
}

/// A server that keeps payloads for some days, two devices in a group, and a reservation that was spent at the
/// beginning.
async fn started() -> (Running, Pair, Answer) {
    let [alice, bob] = ["alice", "bob"].map(Device::new);
    let running = Running::start_with(|settings| {
        settings.retain = Some(DAY * u32::try_from(RETAIN_DAYS).unwrap());
        settings.prune_interval = DAY;
    });
    let running = running.with(&[&alice, &bob], 2).await;
    let group = Group::new(&running.api, TALK);
    group.make(&alice).await.ok();
    group.add(&alice, 0, "bob").await.ok();
    group.accept(&bob).await.ok();
    let reserved = running.api.reserve(&alice, "bob").await.ok();
    running.api.claim(&alice, "/keypackages/spend", &reserved).await.ok();
    (running, Pair { alice, bob }, reserved)
}

/// Both receipts of a reservation are good, also that of before its package left the log.
fn check_receipts(key: &str, old: &ReceiptFile, new: &ReceiptFile) {
    let key: NoteKey = key.parse().unwrap();
    for file in [old, new] {
        assert_eq!(file.check(&key).unwrap().standing, ReceiptStanding::Spent);
    }
    assert_eq!(old.check(&key).unwrap().hand_out, new.check(&key).unwrap().hand_out);
}
