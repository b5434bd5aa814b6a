//! The next segment, made and open before it is needed: no commit waits for eight million zeros, and none
//! fails because the process has no descriptor or the disk no room for another file.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
};

use super::files::make_file;

/// The file's name; one that is left behind is removed like every unfinished segment.
const NAME: &str = "spare.new";

/// The next segment of a journal: a file of zeros without a name of its own.
#[derive(Debug)]
pub(super) struct Spare {
    path: PathBuf,
    len: u64,
    state: SpareState,
}

#[derive(Debug)]
enum SpareState {
    /// Nothing has been begun, or it could not be made.
    Missing,
    Making(JoinHandle<io::Result<File>>),
    Ready(File),
}

impl Spare {
    /// Begins to make one of a length in a journal's directory.
    pub(super) fn begin(dir: &Path, len: u64) -> Self {
        let mut spare = Self { path: dir.join(NAME), len, state: SpareState::Missing };
        spare.prepare();
        spare
    }

    /// Begins to make one in the background, if there is none and none is being made.
    pub(super) fn prepare(&mut self) {
        self.settle(false);
        if let SpareState::Missing = self.state {
            let (path, len) = (self.path.clone(), self.len);
            let making = thread::Builder::new().name("keypool-spare".to_owned());
            let begun = making.spawn(move || make_file(&path, len));
            self.state = begun.map_or(SpareState::Missing, SpareState::Making);
        }
    }

    /// Whether there is one.
    pub(super) fn is_ready(&mut self) -> bool {
        self.settle(false);
        matches!(self.state, SpareState::Ready(_))
    }

    /// Takes the file; one that was not made in the background is made now.
    ///
    /// # Errors
    ///
    /// Returns the error of the operating system; the next call tries again.
    pub(super) fn take(&mut self, len: u64) -> io::Result<(File, PathBuf)> {
        let path = self.path.clone();
        if len != self.len {
            // A frame that is longer than a segment.
            let path = path.with_file_name("long.new");
            return make_file(&path, len).map(|file| (file, path));
        }
        self.settle(true);
        match std::mem::replace(&mut self.state, SpareState::Missing) {
            SpareState::Ready(file) => Ok((file, path)),
            _ => make_file(&path, len).map(|file| (file, path)),
        }
    }

    /// Takes the segment that the background has made, if it is done or is to be waited for.
    fn settle(&mut self, wait: bool) {
        let SpareState::Making(making) = &self.state else { return };
        if !wait && !making.is_finished() {
            return;
        }
        if let SpareState::Making(making) = std::mem::replace(&mut self.state, SpareState::Missing)
            && let Ok(Ok(file)) = making.join()
        {
            self.state = SpareState::Ready(file);
        }
    }
}

impl Drop for Spare {
    /// Nothing is written in the directory any more once it is given up, and nothing left there.
    fn drop(&mut self) {
        self.settle(true);
        if let SpareState::Ready(_) = self.state {
            drop(fs::remove_file(&self.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc::channel, time::Duration};

    use tempfile::TempDir;

    use super::*;
    use crate::time::Patience;

    const LEN: u64 = 4096;

    /// Waits until the background has made the file, without taking it.
    fn wait_until_made(spare: &Spare) {
        let patience = Patience::of(Duration::from_mins(1));
        while let SpareState::Making(making) = &spare.state
            && !making.is_finished()
        {
            assert!(!patience.is_over(), "the file is not made");
            thread::yield_now();
        }
    }

    #[test]
    fn the_file_is_made_in_the_background_and_taken_once() {
        let dir = TempDir::new().unwrap();
        let mut spare = Spare::begin(dir.path(), LEN);
        wait_until_made(&spare);
        assert!(spare.is_ready());
        fs::remove_file(dir.path().join(NAME)).unwrap();
        let (file, path) = spare.take(LEN).unwrap();
        assert_eq!((file.metadata().unwrap().len(), path.exists()), (LEN, false), "the same file");
        assert!(!spare.is_ready(), "it was taken");
        let (_, path) = spare.take(LEN).unwrap();
        assert!(path.exists(), "one that is missing is made at once");
    }

    #[test]
    fn nobody_waits_for_a_file_that_is_being_made_unless_it_is_taken() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join(NAME);
        let ((go, waiting), made) = (channel(), path.clone());
        let making = thread::spawn(move || {
            // Without a word within the time it is made all the same: a test that fails does not hang.
            let _ = waiting.recv_timeout(Duration::from_mins(1));
            make_file(&made, LEN)
        });
        let mut spare = Spare { path, len: LEN, state: SpareState::Making(making) };
        spare.prepare();
        assert!(!spare.is_ready());
        go.send(()).unwrap();
        let (file, _) = spare.take(LEN).unwrap();
        assert_eq!(file.metadata().unwrap().len(), LEN);
    }

    #[test]
    fn no_file_is_left_in_the_directory() {
        let dir = TempDir::new().unwrap();
        drop(Spare::begin(dir.path(), LEN));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "one that is being made");
        let spare = Spare::begin(dir.path(), LEN);
        wait_until_made(&spare);
        drop(spare);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "one that is made");
    }
}
