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
