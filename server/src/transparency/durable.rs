//! Small files that are whole after a crash, whenever it comes: the key, the last checkpoint, the position of the webhook.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::LedgerError;

/// The mode of the files: only their owner reads them.
const PRIVATE: u32 = 0o600;

/// A file that is replaced as a whole.
#[derive(Clone, Debug)]
pub(crate) struct Durable(PathBuf);

impl Durable {
    /// The file at a place.
    pub(crate) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Reads the file; none if it is not there.
    pub(crate) fn load(&self) -> Result<Option<String>, LedgerError> {
        match fs::read(&self.0) {
            // What is no text is no file of a ledger either, as whoever reads it will find.
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(LedgerError::Io { path: self.0.clone(), source }),
        }
    }

    /// Replaces the file's text. When this returns, it survives a crash of the machine.
    pub(crate) fn store(&self, text: &str) -> Result<(), LedgerError> {
        let unsure = |source| LedgerError::Io { path: self.0.clone(), source };
        self.try_store(text).map_err(unsure)
    }

    fn try_store(&self, text: &str) -> io::Result<()> {
        let mut name = self.0.clone().into_os_string();
        name.push(".tmp");
        let new = PathBuf::from(name);
        // One that a crash has left may be anything.
        match fs::remove_file(&new) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
            Ok(()) | Err(_) => {}
        }
        let mut file = File::options().write(true).create_new(true).mode(PRIVATE).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &self.0)?;
        sync_parent(&self.0)
    }

    /// Takes the file away, if it is there.
    pub(super) fn remove(&self) -> Result<(), LedgerError> {
        let removed = match fs::remove_file(&self.0) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
            Ok(()) | Err(_) => sync_parent(&self.0),
        };
        removed.map_err(|source| LedgerError::Io { path: self.0.clone(), source })
    }

    /// Gives the file another place in its directory.
    pub(super) fn rename(self, to: &Path) -> Result<Self, LedgerError> {
        let renamed = fs::rename(&self.0, to).and_then(|()| sync_parent(to));
        renamed.map_err(|source| LedgerError::Io { path: to.to_owned(), source })?;
        Ok(Self(to.to_owned()))
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}
