//! A whole disk of a test: a file system in a file. It needs root and loop devices.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// A file system, mounted until it is dropped.
pub(crate) struct Disk(TempDir);

impl Disk {
    /// Makes an empty one of so many MiB.
    pub(crate) fn new(mib: u64) -> Self {
        let disk = Self(TempDir::new().unwrap());
        fs::File::create(disk.image()).unwrap().set_len(mib << 20).unwrap();
        run("mkfs.ext4", &["-q", "-F", path(&disk.image())]);
        disk.mounted()
    }

    /// Another one, of a copy of its bytes as they are now: those in the memory of the file system are not among
    /// them, as after a power cut.
    pub(crate) fn cut_off(&self) -> Self {
        let disk = Self(TempDir::new().unwrap());
        run("cp", &["--sparse=always", path(&self.image()), path(&disk.image())]);
        disk.mounted()
    }

    fn mounted(self) -> Self {
        fs::create_dir(self.mount()).unwrap();
        run("mount", &["-o", "loop", path(&self.image()), path(&self.mount())]);
        self
    }

    fn image(&self) -> PathBuf {
        self.0.path().join("image")
    }

    pub(crate) fn mount(&self) -> PathBuf {
        self.0.path().join("mount")
    }

    /// Whether some bytes stand anywhere on the disk, also where no file is any more.
    pub(crate) fn holds(&self, bytes: &[u8]) -> bool {
        run("sync", &["-f", path(&self.mount())]);
        fs::read(self.image()).unwrap().windows(bytes.len()).any(|part| part == bytes)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.mount()).status();
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).status().unwrap();
    assert!(done.success(), "{program} {arguments:?}");
}
