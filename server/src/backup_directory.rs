//! The directory of `--backups`: each backup in it has a new folder, named by the time.

use std::{
    fs,
    path::{Path, PathBuf, absolute},
    sync::Arc,
};

use keypool_ledger::{ReadLock, Timestamp};
use keypool_projections::explanation::words::time;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// The end of the name of a backup that is not finished.
const UNFINISHED: &str = ".unfinished";
/// The form of a folder's name, where `0` stands for any digit: a time of the day, with signs that every file system
/// takes.
const NAME_FORM: &str = "0000-00-00T00-00-00Z";

/// The directory in which a running server makes backups, one at a time.
#[derive(Debug, Default)]
pub(crate) struct BackupDirectory {
    path: Option<PathBuf>,
    turn: Arc<Mutex<()>>,
}

impl BackupDirectory {
    /// The directory that the operator has set, if there is one.
    pub(crate) fn at(path: Option<&Path>) -> Self {
        let path = path.map(|path| absolute(path).unwrap_or_else(|_| path.to_owned()));
        Self { path, turn: Arc::default() }
    }

    /// The directory as an absolute path; `None` where the operator has set none.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Takes the turn to make a backup; `None` while another one is being made.
    pub(crate) fn take_turn(&self) -> Option<OwnedMutexGuard<()>> {
        Arc::clone(&self.turn).try_lock_owned().ok()
    }
}

/// Whether a directory lies in another one, or is that one. Links are followed as far as the paths are there.
pub(crate) fn lies_in(inner: &Path, outer: &Path) -> bool {
    resolved(inner).starts_with(resolved(outer))
}

/// The path of a file without links, whose last folders need not be there.
fn resolved(path: &Path) -> PathBuf {
    let path = absolute(path).unwrap_or_else(|_| path.to_owned());
    let found = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    match found {
        Some((above, real)) => match path.strip_prefix(above) {
            Ok(rest) if rest.as_os_str().is_empty() => real,
            Ok(rest) => real.join(rest),
            Err(_) => path,
        },
        None => path,
    }
}

/// The path of a folder that is not there yet, named by the time.
pub(crate) fn new_folder(dir: &Path, now: Timestamp) -> PathBuf {
    let seconds: String = time(now).chars().take(NAME_FORM.len() - 1).collect();
    let name = format!("{}Z", seconds.replace(':', "-"));
    let is_taken = |path: &PathBuf| fs::symlink_metadata(path).is_ok();
    let mut path = dir.join(&name);
    let mut count = 1_u32;
    while is_taken(&path) {
        count = count.saturating_add(1);
        path = dir.join(format!("{name}-{count}"));
    }
    path
}

/// Removes the folders of backups that were interrupted by a crash, since no other backup will have their names. One
/// that a process is writing stays.
pub(crate) fn remove_interrupted(dir: &Path) {
    // A directory that cannot be read is told by the backup itself.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_ours =
            name.to_str().and_then(|name| name.strip_suffix(UNFINISHED)).is_some_and(has_form);
        if !is_ours {
            continue;
        }
        let path = entry.path();
        let Ok(_lock) = ReadLock::take(&path) else { continue };
        let folder = path.display();
        match fs::remove_dir_all(&path) {
            Ok(()) => tracing::info!(%folder, "the rest of an interrupted backup was removed"),
            Err(error) => tracing::warn!(
                %folder, %error,
                "the rest of an interrupted backup cannot be removed; remove it by hand"
            ),
        }
    }
}

/// Whether a name is one that [`new_folder`] gives.
fn has_form(name: &str) -> bool {
    let Some((time, rest)) = name.split_at_checked(NAME_FORM.len()) else { return false };
    let is_time = time
        .chars()
        .zip(NAME_FORM.chars())
        .all(|(found, form)| if form == '0' { found.is_ascii_digit() } else { found == form });
    let is_count = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    is_time && (rest.is_empty() || rest.strip_prefix('-').is_some_and(is_count))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2025-12-22T10:40:00Z.
    const NOW: Timestamp = Timestamp::from_millis(1_766_400_000_123);

    #[test]
    fn each_backup_of_a_second_has_a_folder_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["2025-12-22T10-40-00Z", "2025-12-22T10-40-00Z-2", "2025-12-22T10-40-00Z-3"];
        for name in names {
            let folder = new_folder(dir.path(), NOW);
            assert_eq!(folder, dir.path().join(name));
            assert!(has_form(name), "{name}");
            fs::create_dir(folder).unwrap();
        }
    }

    #[test]
    fn the_rest_of_an_interrupted_backup_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("lock"), "17\n").unwrap();
        };
        let stays = [
            "2025-12-22T10-40-00Z",
            "2025-12-22T10-40-00Z-.unfinished",
            "before-the-move.unfinished",
            "2025-12-22T10-40-02Z.unfinished",
        ];
        let goes = ["2025-12-22T10-40-00Z.unfinished", "2025-12-22T10-40-00Z-2.unfinished"];
        stays.iter().chain(&goes).for_each(|name| make(name));
        let held = fs::File::open(dir.path().join(stays[3]).join("lock")).unwrap();
        held.lock().unwrap();
        remove_interrupted(dir.path());
        let mut left: Vec<String> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let mut expected = stays.map(str::to_owned);
        expected.sort();
        assert_eq!(left, expected);
    }

    #[test]
    fn a_directory_lies_in_another_also_by_a_link_or_before_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let (data, link) = (dir.path().join("data"), dir.path().join("link"));
        fs::create_dir(&data).unwrap();
        std::os::unix::fs::symlink(&data, &link).unwrap();
        for inner in [data.clone(), data.join("new/backups"), link.clone(), link.join("new")] {
            assert!(lies_in(&inner, &data), "{}", inner.display());
        }
        for outside in [dir.path().to_owned(), dir.path().join("database"), dir.path().join("new")]
        {
            assert!(!lies_in(&outside, &data), "{}", outside.display());
        }
        let absent = dir.path().join("absent");
        assert!(lies_in(&absent.join("backups"), &absent));
    }
}
