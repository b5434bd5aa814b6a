//! The auditor's tool as it is used: the real program on every fixture, its output and exit code.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use insta::assert_snapshot;
use keypool_ledger::{Hash, ManualClock, SledLog, SledLogOptions, Timestamp};
use keypool_projections::Limits;
use keypool_server::pools::Pools;
use keypool_transparency::NoteSigner;
use tempfile::TempDir;

use crate::fixtures::{fixtures, signer};

/// Runs the tool in a folder, and returns its output and exit code.
pub(crate) fn tool_in(dir: &Path, args: &[&str]) -> (String, i32) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keypool-ledger"));
    let output = command.current_dir(dir).args(args).output().unwrap();
    let mut said = String::from_utf8(output.stdout).unwrap();
    said.push_str(&String::from_utf8(output.stderr).unwrap());
    (said, output.status.code().expect("it ends by itself"))
}

pub(crate) fn tool(args: &[&str]) -> (String, i32) {
    tool_in(&fixtures(), args)
}

/// A command line with its output.
pub(crate) fn transcript(args: &[&str]) -> String {
    let (said, code) = tool(args);
    format!("$ keypool-ledger {}\n{said}[{code}]\n", args.join(" "))
}

/// The sources among the fixtures, in order.
pub(crate) fn sources() -> Vec<String> {
    let names = fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> =
        names.filter(|name| !["fork", "receipts", "README.md"].contains(&name.as_str())).collect();
    names.sort();
    names
}

/// The promise in the name of a fixture: the number that `audit` ends with.
fn expected(name: &str) -> i32 {
    let damaged = [
        "flipped-bit",
        "truncated",
        "bytes-behind-the-end",
        "gap",
        "removed-and-renumbered",
        "reordered",
        "edited-event",
        "swapped-payload",
        "payload-gone",
        "message-gone",
        "schema-of-tomorrow",
        "journal-flipped-bit",
        "journal-cut",
        "journal-without-a-segment",
        "journal-of-yesterday",
        "journal-torn",
    ];
    let name = name.trim_end_matches(".export");
    match name {
        "clean" | "journal-clean" | "pruned" => 0,
        _ if damaged.contains(&name) => 2,
        _ => 3,
    }
}

#[test]
fn every_broken_history_is_found_and_named() {
    for name in sources() {
        let said = transcript(&["audit", &name]);
        assert!(said.ends_with(&format!("[{}]\n", expected(&name))), "{said}");
        let verified = transcript(&["verify", &name]);
        insta::with_settings!({ snapshot_suffix => name.trim_end_matches(".export") }, {
            assert_snapshot!("audit", format!("{said}{verified}"));
        });
    }
}

#[test]
fn whole_bytes_are_called_whole_and_damaged_ones_damaged() {
    for name in sources() {
        // A clock that goes back is seen in the bytes as well; other rules are the audit's.
        let wanted = match expected(&name) {
            3 if name != "clock-goes-back.export" => 0,
            code => code,
        };
        assert_eq!(tool(&["verify", &name]).1, wanted, "{name}");
    }
}

#[test]
fn the_tool_says_what_a_log_holds() {
    let mut said = String::new();
    for args in [
        &["info", "clean.export"][..],
        &["--json", "info", "clean.export"],
        &["log", "clean.export", "--from", "1"],
        &["log", "clean.export", "--pool", "dave"],
        &["--json", "log", "clean.export", "--from", "46"],
        &["show", "clean.export", "14"],
        &["show", "clean.export", "ea7aa1fc"],
        &["show", "clean.export", "ea3a33fc"],
        &["show", "clean.export", "d5ed"],
        &["show", "clean.export", "d5e"],
        &["show", "clean.export", "ffff"],
    ] {
        said.push_str(&transcript(args));
    }
    assert_snapshot!(said);
}

#[test]
fn the_tool_explains_in_sentences() {
    let mut said = String::new();
    for args in [
        &["explain", "clean.export", "27bb492e"][..],
        &["explain", "clean.export", "ea3a33fc"],
        &["explain", "clean.export", "52b13e87"],
        &["explain", "clean.export", "d9f85280"],
        &["explain", "clean.export", "aa912c34"],
        &["explain", "clean.export", "5dae7018"],
        &["explain", "clean.export", "bob/main", "--at", "2027-01-15T08:00:41.300Z"],
        &["explain", "clean.export", "bob", "--at", "2027-01-15T08:04:40Z"],
        &["--json", "explain", "clean.export", "dave", "--at", "40"],
    ] {
        said.push_str(&transcript(args));
    }
    assert_snapshot!(said);
}

#[test]
fn the_tool_replays_to_any_moment() {
    let mut said = String::new();
    for args in [
        &["replay", "clean.export"][..],
        &["replay", "clean.export", "--at", "15"],
        &["replay", "clean.export", "--at", "2027-01-15T08:00:54Z", "--pool", "bob"],
        &["replay", "clean.export", "--diff", "15", "40"],
        &["--json", "replay", "clean.export", "--pool", "dave"],
        &["replay", "double-spend.export"],
        &["replay", "clean.export", "--pool", "nobody"],
    ] {
        said.push_str(&transcript(args));
    }
    assert_snapshot!(said);
}

#[test]
fn the_tool_tells_each_step_and_folds_twice() {
    let mut said = String::new();
    for args in [
        &["replay", "clean.export", "--step"][..],
        &["replay", "clean.export", "--step", "--pool", "dave", "--at", "2027-01-15T08:10:00Z"],
        &["--json", "replay", "clean.export", "--step", "--at", "1"],
        &["replay", "double-spend.export", "--step", "--pool", "bob"],
        &["rebuild", "clean.export", "--check"],
        &["rebuild", "clean.export"],
        &["rebuild", "double-spend.export", "--check"],
        &["rebuild", "upload-to-another-pool.export", "--check"],
        &["rebuild", "journal-cut", "--check"],
    ] {
        said.push_str(&transcript(args));
    }
    assert_snapshot!(said);
}

#[test]
fn a_fork_is_found_and_the_evidence_is_kept() {
    let dir = TempDir::new().unwrap();
    for name in ["one.export", "other.export", "one.checkpoint", "other.checkpoint"] {
        fs::copy(fixtures().join("fork").join(name), dir.path().join(name)).unwrap();
    }
    let key = signer().public().to_string();
    let mut said = String::new();
    for args in [
        &["compare", "one.export", "other.export"][..],
        &["compare", "one.export", "one.export"],
        &["compare", "one.export", "one.checkpoint", "--key", &key],
        &["compare", "one.export", "other.checkpoint", "--key", &key],
        &["compare", "one.checkpoint", "other.checkpoint"],
        &["compare", "one.checkpoint", "other.checkpoint", "--key", &key],
        &["check", "keypool-evidence.txt"],
        &["verify", "one.export", "--checkpoint", "one.checkpoint", "--key", &key],
        &["verify", "one.export", "--checkpoint", "other.checkpoint", "--key", &key],
        &["check", "one.checkpoint", "--key", &key],
    ] {
        let (out, code) = tool_in(dir.path(), args);
        let _ = writeln!(said, "$ keypool-ledger {}\n{out}[{code}]", args.join(" "));
    }
    assert_snapshot!(said);
}

#[test]
fn receipts_are_checked_alone_and_against_each_other() {
    let dir = TempDir::new().unwrap();
    copy(&fixtures().join("receipts"), dir.path());
    fs::copy(fixtures().join("clean.export"), dir.path().join("clean.export")).unwrap();
    fs::copy(fixtures().join("double-spend.export"), dir.path().join("other.export")).unwrap();
    let key = signer().public().to_string();
    let other = NoteSigner::new("keypool.example/log", &[1; 32]).unwrap().public().to_string();
    let mut said = String::new();
    for args in [
        &["check", "good.receipt"][..],
        &["check", "good.receipt", "--key", &key],
        &["check", "good.receipt", "--key", &other],
        &["--json", "check", "good.receipt", "--key", &key],
        &["check", "forged.receipt"],
        &["check", "forged.receipt", "--key", &key],
        &["check", "first.receipt", "second.receipt"],
        &["check", "first.receipt", "second.receipt", "--key", &other],
        &["check", "first.receipt", "second.receipt", "--key", &key],
        &["compare", "second.receipt", "first.receipt", "--key", &key, "--evidence", "again.txt"],
        &["check", "keypool-evidence.txt"],
        &["check", "first-at-once.receipt", "second.receipt", "--key", &key],
        &["check", "first-at-once.receipt", "first.receipt", "--key", &key],
        &["check", "good.receipt", "forged.receipt", "--key", &key],
        &["check", "clean.export", "good.receipt"],
        &["compare", "clean.export", "good.receipt", "--key", &key],
        &["compare", "other.export", "first.receipt", "--key", &key],
    ] {
        let (out, code) = tool_in(dir.path(), args);
        let _ = writeln!(said, "$ keypool-ledger {}\n{out}[{code}]", args.join(" "));
    }
    assert_snapshot!(said);
    let evidence = fs::read_to_string(dir.path().join("keypool-evidence.txt")).unwrap();
    let again = ["check", "first.receipt", "second.receipt", "--key", &key];
    assert_eq!(tool_in(dir.path(), &again).1, 4, "finding the same evidence again is no error");
    fs::write(dir.path().join("cut.txt"), evidence.replace("other ", "others ")).unwrap();
    assert_eq!(tool_in(dir.path(), &["check", "cut.txt"]).1, 1);
    let harmless = evidence.lines().map(|line| match line.strip_prefix("one ") {
        Some(one) => format!("one {one}\nother {one}\n"),
        None if line.starts_with("other ") => String::new(),
        None => format!("{line}\n"),
    });
    fs::write(dir.path().join("harmless.txt"), harmless.collect::<String>()).unwrap();
    assert_eq!(tool_in(dir.path(), &["check", "harmless.txt"]).1, 2);
    let coded =
        |name: &str| data_encoding::BASE64.encode(&fs::read(dir.path().join(name)).unwrap());
    let (one, other) = (coded("first-at-once.receipt"), coded("second.receipt"));
    let doubtful = format!("keypool/equivocation@v1\nkey {key}\none {one}\nother {other}\n");
    fs::write(dir.path().join("doubtful.txt"), doubtful).unwrap();
    assert_eq!(tool_in(dir.path(), &["check", "doubtful.txt"]).1, 2, "the first may explain it");
}

#[test]
fn a_log_that_lost_its_end_does_not_match_a_head_that_was_kept() {
    let (said, _) = tool(&["verify", "clean.export"]);
    let head = said.lines().last().unwrap().strip_prefix("head ").unwrap().to_owned();
    assert_eq!(tool(&["verify", "clean.export", "--expect-head", &head]).1, 0);
    let size: u64 = head.split_once(':').unwrap().0.parse().unwrap();
    let longer = head.replace(&format!("{size}:"), &format!("{}:", size + 1));
    let shorter = head.replace(&format!("{size}:"), &format!("{}:", size - 1));
    assert_eq!(tool(&["verify", "clean.export", "--expect-head", &longer]).1, 2);
    assert_eq!(tool(&["verify", "clean.export", "--expect-head", &shorter]).1, 4);
    assert_eq!(tool(&["verify", "clean.export", "--expect-head", "none"]).1, 1);
}

#[test]
fn what_is_proved_can_be_checked_without_the_log() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let secret = path("key");
    fs::write(&secret, signer().to_secret_text()).unwrap();
    let key = signer().public().to_string();
    let keep = |name: &str, args: &[&str]| {
        let (said, code) = tool(args);
        assert_eq!(code, 0, "{said}");
        fs::write(path(name), said).unwrap();
    };
    let (old, new) = (path("old"), path("new"));
    keep("old", &["checkpoint", "clean.export", "--at", "20", "--sign", &secret]);
    keep("new", &["checkpoint", "journal-clean", "--sign", &secret]);
    keep("inclusion", &["prove", "inclusion", "clean.export", "14", "--checkpoint", &new]);
    keep("consistency", &["prove", "consistency", "clean.export", &old, &new]);
    let mut said = String::new();
    for name in ["old", "inclusion", "consistency"] {
        let (out, code) = tool(&["check", &path(name), "--key", &key]);
        let _ = writeln!(said, "$ keypool-ledger check {name} --key KEY\n{out}[{code}]");
    }
    assert_snapshot!(said);
    let altered = fs::read_to_string(path("inclusion")).unwrap().replace("index 13", "index 12");
    fs::write(path("altered"), altered).unwrap();
    assert_eq!(tool(&["check", &path("altered")]).1, 2);
    let other = NoteSigner::new("keypool.example/log", &[1; 32]);
    let other = other.unwrap().public().to_string();
    assert_eq!(tool(&["check", &path("new"), "--key", &other]).1, 1);
    assert_eq!(tool(&["prove", "inclusion", "clean.export", "4711"]).1, 1);
    assert_eq!(tool(&["prove", "consistency", "double-spend.export", &new]).1, 4);
}

#[test]
fn a_log_survives_export_and_import_byte_for_byte() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    assert_eq!(tool(&["export", "journal-clean", &path("a.export")]).1, 0);
    assert_eq!(tool(&["import", &path("a.export"), &path("data")]).1, 0);
    assert_eq!(tool(&["export", &path("data"), &path("b.export")]).1, 0);
    assert_eq!(fs::read(path("a.export")).unwrap(), fs::read(path("b.export")).unwrap());
    assert_eq!(tool(&["export", "clean.export", &path("a.export")]).1, 5, "nothing is overwritten");
    assert_eq!(tool(&["import", &path("a.export"), &path("data")]).1, 1, "nothing is overwritten");
    assert_eq!(tool(&["import", "flipped-bit.export", &path("none")]).1, 2);
    assert!(!Path::new(&path("none")).exists(), "nothing is made of a damaged export");

    // A log opens on what was restored, and while it is open nobody reads beside it.
    let log = SledLog::open(Path::new(&path("data")), SledLogOptions::default()).unwrap();
    for source in ["data", "data/journal"] {
        let (said, code) = tool(&["info", &path(source)]);
        assert_eq!(code, 5, "{said}");
        assert!(said.contains("is in use by process"), "{said}");
    }
    drop(log);
    assert_eq!(tool(&["audit", &path("data")]).1, 0);
}

#[test]
fn a_pruned_log_is_whole_and_opens() {
    let dir = TempDir::new().unwrap();
    let run = |args: &[&str]| tool_in(dir.path(), args);
    fs::copy(fixtures().join("clean.export"), dir.path().join("all.export")).unwrap();
    let mut said = String::new();
    for args in [
        &["prune", "all.export", "month.export"][..],
        &["prune", "all.export", "short.export", "--keep-days", "0"],
        &["prune", "all.export", "short.export", "--keep-days", "0"],
        &["--json", "prune", "short.export", "again.export", "--keep-days", "0"],
        &["verify", "month.export"],
        &["verify", "short.export"],
        &["audit", "short.export"],
        &["compare", "all.export", "short.export"],
        &["import", "short.export", "restored"],
        &["verify", "restored"],
    ] {
        let (out, code) = run(args);
        let _ = writeln!(said, "$ keypool-ledger {}\n{out}[{code}]", args.join(" "));
    }
    assert_snapshot!(said);
    let pruned = fs::read(dir.path().join("short.export")).unwrap();
    assert!(pruned == fs::read(dir.path().join("again.export")).unwrap(), "pruned once is enough");

    // A service runs on what is left, and knows every package's fate.
    let open = |name: &str| {
        let log = SledLog::open(&dir.path().join(name), SledLogOptions::default()).unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_800_001_600_000)));
        Pools::open(Arc::new(log), clock, Limits::STANDARD).unwrap()
    };
    assert_eq!(run(&["import", "all.export", "whole"]).1, 0);
    let (pruned, whole) = (open("restored"), open("whole"));
    for pool in ["alice", "bob", "carol", "dave"].map(|name| name.parse().unwrap()) {
        assert_eq!(pruned.health(&pool).unwrap(), whole.health(&pool).unwrap());
    }
}

#[test]
fn reading_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let data_name = data.to_string_lossy().into_owned();
    assert_eq!(tool(&["import", "clean.export", &data_name]).1, 0);
    let before = state(&data);
    for args in [&["info"][..], &["verify"], &["audit"], &["log"], &["replay"], &["checkpoint"]] {
        assert_eq!(tool(&[args, &[&data_name]].concat()).1, 0);
    }
    assert_eq!(state(&data), before);
}

/// Every file of a folder: its path, its bytes, when it was written.
fn state(dir: &Path) -> Vec<(PathBuf, Vec<u8>, std::time::SystemTime)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(state(&path));
            continue;
        }
        let written = fs::metadata(&path).unwrap().modified().unwrap();
        found.push((path.clone(), fs::read(&path).unwrap(), written));
    }
    found.sort();
    found
}

#[test]
fn a_pool_is_drawn() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("pool.svg");
    let name = file.to_string_lossy().into_owned();
    assert_eq!(tool(&["plot", "clean.export", "--pool", "bob", "--out", &name]).1, 0);
    assert_snapshot!(fs::read_to_string(&file).unwrap());
    assert_eq!(tool(&["plot", "clean.export", "--pool", "nobody", "--out", &name]).1, 1);
}

#[test]
fn what_is_no_log_is_said_to_be_none() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().to_string_lossy().into_owned();
    let file = dir.path().join("file");
    fs::write(&file, b"KPEXPRT\x01").unwrap();
    let mut said = String::new();
    for args in [&["info", "."][..], &["info", "nowhere"], &["verify", "../README.md"], &["info"]] {
        said.push_str(&transcript(args));
    }
    assert_snapshot!(said);
    assert_eq!(tool(&["info", &path]).1, 5);
    assert_eq!(tool(&["verify", &file.to_string_lossy()]).1, 2, "it has no manifest");
    assert_eq!(tool(&["frobnicate"]).1, 1);
    assert_eq!(tool(&["--help"]).1, 0);
}

#[test]
fn bytes_drawn_at_random_are_an_answer_and_never_a_panic() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("source");
    let name = file.to_string_lossy().into_owned();
    let leads: [&[u8]; 4] = [b"", b"KPEXPRT\x01", b"KPEXPRT\x01B", b"KPEXPRT\x01M"];
    for (n, lead) in (0..60).zip(leads.into_iter().cycle()) {
        fs::write(&file, [lead, &noise(n)[..7 * usize::from(n)]].concat()).unwrap();
        for command in ["verify", "replay", "check"] {
            let (said, code) = tool(&[command, &name]);
            assert!((1..=5).contains(&code) && !said.contains("panicked"), "{command}: {said}");
        }
    }
}

/// Bytes that look random and are the same again.
fn noise(seed: u8) -> Vec<u8> {
    (0..20).flat_map(|n| *Hash::of(&[seed, n]).as_bytes()).collect()
}

/// Runs the commands of a page of the documentation, and returns the page with their real output.
fn played(page: &str) -> String {
    let dir = TempDir::new().unwrap();
    copy(&fixtures(), dir.path());
    let (mut real, mut in_console, mut code) = (String::new(), false, 0);
    for line in page.lines() {
        match line {
            "```console" => in_console = true,
            "```" => in_console = false,
            _ if in_console && !line.starts_with("$ ") => continue,
            _ => {}
        }
        let _ = writeln!(real, "{line}");
        if let Some(asked) = line.strip_prefix("$ keypool-ledger ").filter(|_| in_console) {
            let (asked, file) = asked.split_once(" > ").unwrap_or((asked, ""));
            let args: Vec<&str> = asked.split(' ').collect();
            let (said, ended) = tool_in(dir.path(), &args);
            code = ended;
            if file.is_empty() {
                real.push_str(&said);
            } else {
                fs::write(dir.path().join(file), said).unwrap();
            }
        } else if in_console && line == "$ echo $?" {
            let _ = writeln!(real, "{code}");
        }
    }
    real
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, to).unwrap();
        }
    }
}

#[test]
fn the_page_about_auditing_says_what_the_tool_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/auditing.md");
    let said = fs::read_to_string(&page).unwrap();
    let real = played(&said);
    if std::env::var_os("KEYPOOL_WRITE_DOCS").is_some() {
        fs::write(&page, &real).unwrap();
        return;
    }
    assert!(said == real, "docs/auditing.md is old; run this test with KEYPOOL_WRITE_DOCS=1");
}
