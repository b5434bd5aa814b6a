//! The files of segments: made at their full length, opened again, and removed where one is unfinished.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Segment,
    frame::SegmentHeader,
    scan::{JournalEnd, segment_path},
};
use crate::log::local::{directory::OpenError, disk};

/// Opens the last segment for writing, as long as it was made and with zeros behind its end.
pub(super) fn reopen(
    path: &Path,
    offset: u64,
    len: u64,
    end: &JournalEnd,
) -> Result<Segment, OpenError> {
    let file = File::options().write(true).open(path).map_err(OpenError::io(path))?;
    if let Some(torn) = &end.torn {
        let (bytes, path) = (torn.bytes, path.display());
        tracing::warn!(%path, offset, bytes, "cutting a frame that was never acknowledged");
    }
    let repaired = (|| {
        if end.shortened {
            let path = path.display();
            tracing::warn!(%path, len, "the journal's last segment was cut short behind its end");
            file.set_len(len)?;
        }
        if let Some(torn) = &end.torn {
            write_zeros(&file, offset, torn.bytes)?;
        }
        // What a killed process has written is in the kernel's hands only, until this returns.
        file.sync_all()
    })();
    repaired.map_err(OpenError::io(path))?;
    Ok(Segment { file: Arc::new(file), path: path.to_owned(), offset, len })
}

/// Makes a segment at its full length, which takes its name only when it is on the disk.
pub(super) fn create_segment(dir: &Path, header: SegmentHeader) -> io::Result<Segment> {
    let path = segment_path(dir, header.first_seq).with_extension("new");
    let file = make_file(&path, header.file_len)?;
    name_segment((file, path), (dir, &File::open(dir)?), &header)
}

/// Makes a file of zeros, or none.
pub(super) fn make_file(path: &Path, len: u64) -> io::Result<File> {
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(true).open(path)?;
    let filled = disk::reserve(&file, len).and_then(|()| write_zeros(&file, 0, len));
    if let Err(error) = filled.and_then(|()| file.sync_all()) {
        drop(fs::remove_file(path));
        return Err(error);
    }
    Ok(file)
}

/// Writes zeros: a hole would have to be filled at the worst time, when there may be no room.
pub(in crate::log::local) fn write_zeros(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let mut out = io::BufWriter::with_capacity(1 << 20, AtOffset(file, offset));
    io::copy(&mut io::Read::take(io::repeat(0), len), &mut out)?;
    out.flush()
}

/// Writes into a file from an offset on.
struct AtOffset<'a>(&'a File, u64);

impl Write for AtOffset<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n_bytes = self.0.write_at(bytes, self.1)?;
        self.1 = self.1.saturating_add(n_bytes as u64);
        Ok(n_bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Removes segments that were being made when the machine stopped.
pub(super) fn remove_unfinished(dir: &Path) -> Result<(), OpenError> {
    for entry in fs::read_dir(dir).map_err(OpenError::io(dir))? {
        let path = entry.map_err(OpenError::io(dir))?.path();
        if path.extension().is_some_and(|extension| extension == "new") {
            fs::remove_file(&path).map_err(OpenError::io(&path))?;
        }
    }
    Ok(())
}

/// Gives a file of zeros the header and the name of a segment. The file is renamed after its header is on
/// the disk.
pub(super) fn name_segment(
    (file, path): (File, PathBuf),
    (dir, directory): (&Path, &File),
    header: &SegmentHeader,
) -> io::Result<Segment> {
    let named = segment_path(dir, header.first_seq);
    let bytes = header.encode();
    file.write_all_at(&bytes, 0)?;
    file.sync_data()?;
    fs::rename(path, &named)?;
    directory.sync_all()?;
    let offset = bytes.len() as u64;
    Ok(Segment { file: Arc::new(file), path: named, offset, len: header.file_len })
}
