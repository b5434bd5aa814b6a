//! The ledger's key and name: made with the log, missed where it is gone, and warned about where it says little.

use std::{fs, path::Path, process::Stdio, sync::Arc};

use keypool_ledger::ManualClock;
use keypool_server::{Server, Settings};

use crate::harness::{Api, Device, NOW, Process, command, local_settings, refusal};

#[actix_web::test]
async fn records_without_their_key_begin_another_ledger_by_the_operators_word_alone() {
    let dir = tempfile::tempdir().unwrap();
    let start = |change: fn(&mut Settings)| {
        let mut settings = local_settings(dir.path());
        change(&mut settings);
        Server::start(settings, Arc::new(ManualClock::at(NOW)))
    };
    // A setting that is recorded, so that the log has a record before any request.
    let server = start(|settings| settings.limits.renewals_max = 3).unwrap();
    let (bob, first_key) = (Device::new("bob"), server.ledger_key().to_owned());
    let api = Api::new(server.url(), Arc::new(ManualClock::at(NOW)));
    api.register(&bob).await.ok();
    api.upload(&bob, &bob.packages(NOW, 2)).await.ok();
    server.stop().await;

    let data = local_settings(dir.path()).data;
    let key = data.join("checkpoint.key");
    let kept = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    fs::remove_file(data.join("checkpoint")).unwrap();
    let said = start(|_| {}).unwrap_err().to_string();
    assert!(said.contains(&key.display().to_string()), "{said}");
    assert!(said.contains("--accept-new-ledger"), "{said}");
    assert!(!key.exists(), "a refusal makes no key");

    let server = start(|settings| {
        settings.accept_new_ledger = true;
        settings.ledger_name = Some("second.example".to_owned());
    });
    let server = server.unwrap();
    assert_ne!(server.ledger_key(), first_key);
    assert!(server.ledger_key().starts_with("second.example+"), "{}", server.ledger_key());
    let api = Api::new(server.url(), Arc::new(ManualClock::at(NOW)));
    assert_eq!(api.get(&bob, "/keypackages/status").await.ok().body["available"], 2);
    server.stop().await;

    // The word stays without an effect where there is a key.
    fs::write(&key, kept).unwrap();
    fs::remove_file(data.join("checkpoint")).unwrap();
    let said = start(|settings| settings.accept_new_ledger = true).unwrap_err().to_string();
    assert!(said.contains("has signed checkpoints, but there is none"), "{said}");
}

#[test]
fn a_missing_key_is_said_with_exit_code_1_and_before_the_log_is_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = command(dir.path());
    assert!(
        Process::spawn(first.args(["--grace", "5s"]).stderr(Stdio::null())).terminate().success()
    );
    fs::remove_file(dir.path().join("checkpoint.key")).unwrap();
    fs::remove_file(dir.path().join("checkpoint")).unwrap();
    let (said, code) = refusal(&mut command(dir.path()));
    assert_eq!(code, 1);
    assert!(said.contains("the log has 1 records, but"), "{said}");
}

#[test]
fn a_ledger_called_localhost_is_warned_about_where_others_reach_it() {
    let (local, named) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let warned = |dir: &Path, flags: &[&str]| {
        let mut command = command(dir);
        let process = Process::spawn(command.args(flags).stderr(Stdio::piped()));
        let pid = process.id().to_string();
        let told = std::process::Command::new("kill").args(["-TERM", &pid]).status();
        assert!(told.unwrap().success());
        process.ended().1.contains("the ledger is named localhost")
    };
    assert!(!warned(local.path(), &[]));
    assert!(warned(local.path(), &["--public-name", "keypool.example"]));
    assert!(!warned(named.path(), &["--public-name", "keypool.example"]));
}
