//! Erasures on a disk that is full, which takes a small disk of its own.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    erasure::{
        ERASED, Past, admin, admin_url, answers, answers_at_all, check_log, holding, live_through,
        take_everything,
    },
    harness::{Process, command},
};

/// A small disk of its own.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// Mounts one of so many MiB.
    fn mount(mib: u32) -> Self {
        let dir = TempDir::new().unwrap();
        let size = format!("size={mib}m");
        let mut mount = Command::new("mount");
        let ended =
            mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        Self(dir)
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn filler(&self) -> PathBuf {
        self.0.path().join("filler")
    }

    /// Takes all the room there is but so much.
    fn fill_but(&self, left: u64) {
        let mut filler = File::create(self.filler()).unwrap();
        while filler.write_all(&[1; 4096]).is_ok() {}
        let taken = filler.metadata().unwrap().len();
        filler.set_len(taken.saturating_sub(left)).unwrap();
    }
}

impl SmallDisk {
    /// Gives the room back.
    fn free(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}

/// A server whose log hides names, and which tells of its erasures.
fn start(data: &Path, ballast_bytes: u64) -> Process {
    let mut command = command(data);
    command.args(["--ballast", &ballast_bytes.to_string()]);
    command.args(["--log", "warn,keypool_server::erasing=info"]);
    Process::spawn(command.env("KEYPOOL_HIDE_NAMES", "true").stderr(Stdio::piped()))
}

/// The answers to others than the erased user, which no erasure changes.
async fn told_to_others(process: &Process, past: &Past) -> Vec<Value> {
    let mut told = Vec::new();
    for device in [&past.alice, &past.carol] {
        told.push(process.api.get(device, "/keypackages/status").await.ok().body);
        told.push(process.api.get(device, "/mailbox").await.ok().body["items"].clone());
    }
    told
}

/// A server on a disk, and its past: a message waits for Carol.
async fn past_on(disk: &SmallDisk, ballast_bytes: u64) -> (Process, Past) {
    let process = start(&disk.data(), ballast_bytes);
    let past = live_through(&process).await;
    take_everything(&process.api, &past.alice).await;
    take_everything(&process.api, &past.carol).await;
    past.group.post(&past.alice, &past.group.framed(2, 1, "for carol")).await.ok();
    (process, past)
}

#[actix_web::test]
#[ignore = "mounts a disk, which takes root: .ci/run runs it in a mount namespace"]
async fn an_erasure_for_whose_note_there_is_no_room_is_refused_and_removes_nothing() {
    let disk = SmallDisk::mount(64);
    let (process, past) = past_on(&disk, 0).await;
    disk.fill_but(0);
    let (_, code, error) = admin(&admin_url(&process), &["erase-user", ERASED]).await;
    assert!(code == 1 && error.contains("free some space, and ask again"), "{error}");
    process.api.get(&past.erased, "/keypackages/status").await.ok();
    disk.free();
    let (_, code, error) = admin(&admin_url(&process), &["erase-user", ERASED]).await;
    assert_eq!(code, 0, "{error}");
    answers(&disk.data(), &process.api).await;
    assert_eq!(holding(&disk.data(), ERASED.as_bytes()), [] as [&str; 0]);
    assert!(process.terminate().success());
    check_log(&disk.data());
}

/// Has the user erased on a disk with little room. Returns whether that failed, after which the server has served and
/// the next start has gone on with it.
async fn erase_with_little_room(ballast_bytes: u64, left: u64) -> bool {
    let disk = SmallDisk::mount(128);
    let data = disk.data();
    let (mut process, past) = past_on(&disk, ballast_bytes).await;
    let before = told_to_others(&process, &past).await;
    disk.fill_but(left);
    let (_, code, error) = admin(&admin_url(&process), &["erase-user", ERASED]).await;
    assert_eq!(code, 0, "{error}");
    let line = process.said("erased");
    let has_failed = line.contains("users that are to be erased could not be");
    assert!(!has_failed || line.contains("No space left on device"), "{line}");
    answers_at_all(&process.api).await;
    assert_eq!(told_to_others(&process, &past).await, before, "{left}");
    let next = past.erased.impostor();
    let (user, device) = (next.pool.user(), next.pool.device());
    let registering = json!({ "user": user, "device": device });
    let registered = process.api.post(&next, "/devices", registering.clone()).await;
    assert!(has_failed == data.join("erasing").exists());
    if has_failed {
        assert_ne!(holding(&data, ERASED.as_bytes()), [] as [&str; 0]);
    } else {
        assert_ne!(registered.code(), "not_ready", "{left}");
    }
    process.kill();
    disk.free();
    let process = start(&data, ballast_bytes);
    assert!(!data.join("erasing").exists());
    if registered.status == 201 {
        process.api.get(&next, "/keypackages/status").await.ok();
    } else {
        assert!(["not_ready", "log_unavailable"].contains(&registered.code()), "{registered:?}");
        assert_eq!(holding(&data, ERASED.as_bytes()), [] as [&str; 0]);
        process.api.post(&next, "/devices", registering).await.ok();
    }
    assert_eq!(told_to_others(&process, &past).await, before, "{left}");
    assert!(process.terminate().success());
    check_log(&data);
    has_failed
}

#[actix_web::test]
#[ignore = "mounts a disk, which takes root: .ci/run runs it in a mount namespace"]
async fn an_erasure_on_a_full_disk_keeps_nobody_waiting_and_is_gone_on_with() {
    assert!(erase_with_little_room(0, 16 << 10).await, "there was room");
    for left in [64 << 10, 512 << 10, 700 << 10, 1 << 20, 4 << 20] {
        erase_with_little_room(0, left).await;
    }
    assert!(!erase_with_little_room(32 << 20, 16 << 10).await, "the ballast was not given up");
}
