//! A segment that is made before it is needed, so that no commit waits for eight million zeros.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
};

use super::{Segment, frame::SegmentHeader, sync_directory, write_zeros};
use crate::log::journal::scan::segment_path;

/// The file's name; one that is left behind is removed like every unfinished segment.
const NAME: &str = "spare.new";

/// A file of zeros on the disk, or on its way there.
#[derive(Debug)]
pub(super) struct Spare {
    path: PathBuf,
    len: u64,
    making: Option<JoinHandle<io::Result<File>>>,
}

impl Spare {
    /// Begins to make one of a length, behind whoever asks.
    pub(super) fn begin(dir: &Path, len: u64) -> Self {
        let path = dir.join(NAME);
        let at = path.clone();
        let make = move || {
            let file = File::create(&at)?;
            write_zeros(&file, 0, len)?;
            file.sync_all()?;
            Ok(file)
        };
        let making = thread::Builder::new().name("keypool-spare".to_owned()).spawn(make).ok();
        Self { path, len, making }
    }

    /// Makes it the segment that a header says, waiting if it is not ready yet; `None` if it could not be
    /// made or is of another length.
    pub(super) fn take(mut self, dir: &Path, header: &SegmentHeader) -> Option<Segment> {
        let making = self.making.take()?;
        let file = making.join().ok()?.ok().filter(|_| self.len == header.file_len)?;
        let path = segment_path(dir, header.first_seq);
        let bytes = header.encode();
        let named = (|| {
            std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0)?;
            // The name comes when what it stands for is on the disk.
            file.sync_data()?;
            fs::rename(&self.path, &path)?;
            sync_directory(dir)
        })();
        named.ok()?;
        Some(Segment { file, path, offset: bytes.len() as u64, len: header.file_len })
    }
}

impl Drop for Spare {
    /// Nothing is written in the directory any more once it is given up, and nothing left there.
    fn drop(&mut self) {
        if let Some(making) = self.making.take() {
            drop(making.join());
            drop(fs::remove_file(&self.path));
        }
    }
}
