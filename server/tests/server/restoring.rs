//! A published checkpoint is never contradicted: restarts, crashes, robbed tiles, and old copies.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use keypool_ledger::{
    Batch, CommandId, Event, Hash, ManualClock, NewEvent, SignatureKey, SledLog, SledLogOptions,
    StreamId, StreamWrite, log::append_at_head,
};
use keypool_server::{Ended, Server, Settings};
use serde_json::json;
use uuid::Uuid;

use crate::{
    harness::{Api, Device, NOW, Process, command, files, local_settings, refusal},
    ledger::{Seen, check_extends, fetch, seen, seen_with},
};

/// A server whose checkpoint is on another disk than its data.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn settings(&self) -> Settings {
        let checkpoint_file = Some(self.checkpoint());
        Settings { checkpoint_file, ..local_settings(self.dir.path()) }
    }

    fn data(&self) -> PathBuf {
        local_settings(self.dir.path()).data
    }

    fn checkpoint(&self) -> PathBuf {
        self.dir.path().join("checkpoint")
    }

    fn start(&self) -> (Server, Api) {
        let clock = Arc::new(ManualClock::at(NOW));
        let server = Server::start(self.settings(), clock.clone()).unwrap();
        let api = Api::new(server.url(), clock);
        (server, api)
    }

    /// Why a server does not start here.
    fn refusal(&self) -> String {
        let clock = Arc::new(ManualClock::at(NOW));
        let error = Server::start(self.settings(), clock).unwrap_err();
        error.to_string().replace(&self.dir.path().display().to_string(), "DIR")
    }

    /// Registers so many devices, and returns the checkpoint that has them.
    async fn register(&self, first: usize, count: usize) -> Seen {
        let (server, api) = self.start();
        let before = seen(&api, server.ledger_key()).await.size;
        for number in first..first + count {
            api.register(&Device::new(&format!("device-{number}"))).await.ok();
        }
        let seen = seen_with(&api, server.ledger_key(), before + count as u64).await;
        server.stop().await;
        seen
    }
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let to = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&file, &to).unwrap();
    }
}

fn replace(dir: &Path, by: &Path) {
    fs::remove_dir_all(dir).unwrap();
    copy(by, dir);
}

#[actix_web::test]
async fn a_restart_keeps_the_key_and_the_checkpoint_and_extends_it() {
    let place = Place::new();
    let (server, api) = place.start();
    let key = server.ledger_key().to_owned();
    let empty = seen(&api, &key).await;
    api.register(&Device::new("alice")).await.ok();
    let old = seen_with(&api, &key, 1).await;
    server.stop().await;

    let (server, api) = place.start();
    assert_eq!(server.ledger_key(), key);
    let again = seen(&api, &key).await;
    assert_eq!((again.size, again.root), (old.size, old.root));
    api.register(&Device::new("bob")).await.ok();
    let new = seen_with(&api, &key, 2).await;
    check_extends(&api, &old, &new).await;
    check_extends(&api, &empty, &new).await;
}

#[actix_web::test]
async fn what_was_written_last_is_published_when_the_server_stops() {
    let place = Place::new();
    let seen = place.register(1, 3).await;
    let text = fs::read_to_string(place.checkpoint()).unwrap();
    assert_eq!(text.lines().nth(1).unwrap(), seen.size.to_string());
}

#[actix_web::test]
async fn a_directory_that_was_set_back_behind_its_checkpoint_is_refused() {
    let place = Place::new();
    place.register(1, 3).await;
    let backup = place.dir.path().join("backup");
    copy(&place.data(), &backup);
    place.register(4, 2).await;
    replace(&place.data(), &backup);
    insta::assert_snapshot!(place.refusal(), @"the ledger ends at record 3, but the checkpoint in DIR/checkpoint was published with 5 records: the data directory was set back to an older copy, or lost its end; restore a newer copy of it, or say --accept-restore if that is lost");
}

/// Writes the log of so many devices, each of which has registered; the first with some key.
fn write_log(data: &Path, first: &str) {
    let log = SledLog::open(data, SledLogOptions::default()).unwrap();
    let names = std::iter::once(first.to_owned()).chain((1..1100).map(|n| n.to_string()));
    let registered = (0..).zip(names).map(|(number, name): (u64, String)| {
        let event = Event::Registered {
            signature_key: SignatureKey::new(Hash::of(name.as_bytes()).as_bytes()).unwrap(),
            credential: format!("device-{number}"),
            voucher: None,
            statement: None,
            frontend: None,
        };
        let command = CommandId(Uuid::from_u128(u128::from(number)));
        let request = Hash::of(&number.to_be_bytes());
        let event = NewEvent { at: NOW, command, request, event, payload: Vec::new() };
        let stream = StreamId::Pool(format!("device-{number}").parse().unwrap());
        Batch { writes: vec![StreamWrite { stream, expected: 0, events: vec![event] }] }
    });
    let registered: Vec<Batch> = registered.collect();
    assert!(append_at_head(&log, &registered).iter().all(Result::is_ok));
}

#[actix_web::test]
async fn an_old_record_that_was_changed_ends_the_server_and_is_refused_by_the_next() {
    let (place, other) = (Place::new(), Place::new());
    write_log(&place.data(), "usual");
    let first = Settings { accept_new_ledger: true, ..place.settings() };
    Server::start(first, Arc::new(ManualClock::at(NOW))).unwrap().stop().await;
    write_log(&other.data(), "another");
    for part in ["journal", "sled"] {
        replace(&place.data().join(part), &other.data().join(part));
    }
    let (server, _) = place.start();
    assert_eq!(server.ended().await, Ended::Failed);
    drop(server);
    insta::assert_snapshot!(place.refusal(), @"the ledger's first 1100 records are not those that the checkpoint in DIR/checkpoint was published with: the data directory was changed, or went on from an older copy; restore the one that the checkpoint is of");
}

#[actix_web::test]
async fn a_directory_that_went_on_from_an_older_copy_is_refused() {
    let place = Place::new();
    place.register(1, 3).await;
    let (backup, kept) = (place.dir.path().join("backup"), place.dir.path().join("kept"));
    copy(&place.data(), &backup);
    fs::copy(place.checkpoint(), place.dir.path().join("old")).unwrap();
    place.register(4, 2).await;
    fs::rename(place.checkpoint(), &kept).unwrap();
    replace(&place.data(), &backup);
    fs::rename(place.dir.path().join("old"), place.checkpoint()).unwrap();
    place.register(6, 7).await;
    // The checkpoint that was published first is put back: the history since is another one.
    fs::rename(&kept, place.checkpoint()).unwrap();
    insta::assert_snapshot!(place.refusal(), @"the ledger's first 5 records are not those that the checkpoint in DIR/checkpoint was published with: the data directory was changed, or went on from an older copy; restore the one that the checkpoint is of");
}

#[actix_web::test]
async fn a_restore_that_is_accepted_begins_another_ledger_and_withdraws_everything() {
    let place = Place::new();
    let (bob, alice) = (Device::new("bob"), Device::new("alice"));
    let (server, api) = place.start();
    for device in [&alice, &bob] {
        api.register(device).await.ok();
    }
    api.upload(&bob, &bob.packages(NOW, 3)).await.ok();
    let first_key = server.ledger_key().to_owned();
    server.stop().await;
    let backup = place.dir.path().join("backup");
    copy(&place.data(), &backup);
    // In the part that will be lost, a package is handed out and used.
    let (server, api) = place.start();
    let reserved = api.reserve(&alice, "bob").await.ok();
    api.claim(&alice, "/keypackages/spend", &reserved).await.ok();
    server.stop().await;
    let note = fs::read(place.checkpoint()).unwrap();
    replace(&place.data(), &backup);
    place.refusal();

    let accepting = Settings { accept_restore: true, ..place.settings() };
    let clock = Arc::new(ManualClock::at(NOW));
    let server = Server::start(accepting, clock.clone()).unwrap();
    let api = Api::new(server.url(), clock);
    let status = api.get(&bob, "/keypackages/status").await.ok().body;
    assert_eq!((&status["available"], &status["revoked"]), (&json!(0), &json!(3)));
    assert_eq!(api.reserve(&alice, "bob").await.code(), "pool_exhausted");
    let second_key = server.ledger_key().to_owned();
    let name = |key: &str| key.split('+').next().unwrap().to_owned();
    assert_eq!(name(&second_key), format!("{}/2", name(&first_key)));
    // What the one before has signed is kept: it proves what was lost.
    let kept = place.data().join("ledger-before-1");
    assert_eq!(fs::read(kept.join("checkpoint")).unwrap(), note);
    assert!(kept.join("checkpoint.key").exists());
    server.stop().await;

    // From now on it starts as always, and what is uploaded anew is handed out.
    let (server, api) = place.start();
    assert_eq!(server.ledger_key(), second_key);
    api.upload(&bob, &bob.packages(NOW, 2)).await.ok();
    api.reserve(&alice, "bob").await.ok();
    server.stop().await;
}

#[actix_web::test]
async fn nothing_is_withdrawn_where_nothing_was_restored() {
    let place = Place::new();
    let bob = Device::new("bob");
    let (server, api) = place.start();
    api.register(&bob).await.ok();
    api.upload(&bob, &bob.packages(NOW, 3)).await.ok();
    server.stop().await;
    let accepting = Settings { accept_restore: true, ..place.settings() };
    let clock = Arc::new(ManualClock::at(NOW));
    let server = Server::start(accepting, clock.clone()).unwrap();
    let api = Api::new(server.url(), clock);
    assert_eq!(api.get(&bob, "/keypackages/status").await.ok().body["available"], 3);
    server.stop().await;
}

#[actix_web::test]
async fn files_that_do_not_belong_together_are_refused() {
    let place = Place::new();
    place.register(1, 2).await;
    let (key, checkpoint) = (place.data().join("checkpoint.key"), place.checkpoint());
    let (secret, note) = (fs::read(&key).unwrap(), fs::read_to_string(&checkpoint).unwrap());
    let mut said = Vec::new();

    fs::remove_file(&checkpoint).unwrap();
    said.push(place.refusal());
    fs::write(&checkpoint, note.replacen("\n2\n", "\n1\n", 1)).unwrap();
    said.push(place.refusal());
    fs::write(&checkpoint, &note).unwrap();
    fs::write(&key, "a key").unwrap();
    said.push(place.refusal());
    fs::remove_file(&key).unwrap();
    said.push(place.refusal());
    fs::write(&key, &secret).unwrap();
    let renamed = Settings { ledger_name: Some("other.example".to_owned()), ..place.settings() };
    let error = Server::start(renamed, Arc::new(ManualClock::at(NOW))).unwrap_err();
    said.push(error.to_string());

    let said = said.join("\n").replace(&place.dir.path().display().to_string(), "DIR");
    insta::assert_snapshot!(said);
    place.register(3, 1).await;
}

#[actix_web::test]
async fn tiles_that_were_deleted_or_damaged_are_made_again() {
    let place = Place::new();
    let old = place.register(1, 300).await;
    let tiles = place.data().join("tiles");
    let good: Vec<_> = files(&tiles).into_iter().map(|file| fs::read(file).unwrap()).collect();
    assert_eq!(good.iter().map(Vec::len).collect::<Vec<_>>(), [256 * 32, 44 * 32, 32]);
    let now = async || {
        let (server, api) = place.start();
        let new = seen(&api, server.ledger_key()).await;
        check_extends(&api, &old, &new).await;
        fetch(&api, "/ledger/proof/inclusion?seq=17&size=300").await.ok();
        server.stop().await;
        files(&tiles).into_iter().map(|file| fs::read(file).unwrap()).collect::<Vec<_>>()
    };

    fs::remove_dir_all(&tiles).unwrap();
    assert_eq!(now().await, good);

    let full = files(&tiles).remove(0);
    let mut bytes = good[0].clone();
    bytes[1000] ^= 1;
    fs::write(&full, &bytes).unwrap();
    assert_eq!(now().await, good);

    fs::write(&full, &bytes[..777]).unwrap();
    assert_eq!(now().await, good);
}

#[actix_web::test]
async fn tiles_that_are_taken_away_while_the_server_runs_are_made_again() {
    let place = Place::new();
    let (server, api) = place.start();
    let key = server.ledger_key();
    api.register(&Device::new("alice")).await.ok();
    let old = seen_with(&api, key, 1).await;
    fs::remove_dir_all(place.data().join("tiles")).unwrap();
    let broken = fetch(&api, "/ledger/proof/inclusion?seq=1&size=1").await;
    assert_eq!((broken.status, broken.code()), (500, "internal"));
    api.register(&Device::new("bob")).await.ok();
    let new = seen_with(&api, key, 2).await;
    check_extends(&api, &old, &new).await;
    fetch(&api, "/ledger/proof/inclusion?seq=1&size=2").await.ok();
}

#[actix_web::test]
async fn killed_at_any_moment_the_server_does_not_contradict_what_was_seen() {
    let dir = tempfile::tempdir().unwrap();
    let start = || Process::spawn(command(dir.path()).args(["--checkpoint-interval", "1ms"]));
    let key = |process: &Process| {
        let line = process.greeting.iter().find_map(|line| line.strip_prefix("ledger key   "));
        line.unwrap().to_owned()
    };
    let mut process = start();
    let (mut all, name) = (vec![seen(&process.api, &key(&process)).await], key(&process));
    for round in 0..8 {
        for number in 0..=round {
            let device = Device::new(&format!("device-{round}-{number}"));
            process.api.register(&device).await.ok();
            let now = seen(&process.api, &name).await;
            // Who has seen it can rely on it: it is on the disk already.
            let stored = fs::read_to_string(dir.path().join("checkpoint")).unwrap();
            let stored: u64 = stored.lines().nth(1).unwrap().parse().unwrap();
            assert!(now.size <= stored, "{} was seen, {stored} is stored", now.size);
            all.push(now);
        }
        process.kill();
        process = start();
        assert_eq!(key(&process), name);
        let new = seen(&process.api, &name).await;
        for old in &all {
            check_extends(&process.api, old, &new).await;
        }
        all.push(new);
    }
}

#[actix_web::test]
async fn a_first_start_that_was_interrupted_is_gone_on_with() {
    let place = Place::new();
    place.register(1, 2).await;
    let key = place.data().join("checkpoint.key");
    let unfinished = place.data().join("checkpoint.key.new");

    // Between the checkpoint and the key's last name.
    fs::rename(&key, &unfinished).unwrap();
    place.register(3, 1).await;
    assert!(key.exists() && !unfinished.exists());

    // Before the checkpoint.
    fs::rename(&key, &unfinished).unwrap();
    fs::remove_file(place.checkpoint()).unwrap();
    place.register(4, 1).await;
    assert!(key.exists() && place.checkpoint().exists());
}

#[actix_web::test]
async fn only_its_owner_may_read_the_key() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    place.register(1, 1).await;
    let key = place.data().join("checkpoint.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn the_complaint_about_an_old_copy_is_said_with_exit_code_1() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let checkpoint = dir.path().join("checkpoint");
    let mut with_checkpoint = command(&data);
    with_checkpoint.arg("--checkpoint-file").arg(&checkpoint);
    Process::spawn(&mut with_checkpoint).terminate();
    fs::remove_file(&checkpoint).unwrap();
    let (said, code) = refusal(&mut with_checkpoint);
    assert!(said.contains("has signed checkpoints, but there is none in") && code == 1, "{said}");
}
