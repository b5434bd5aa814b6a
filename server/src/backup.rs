//! Backups of the data directory: the log, and the files that give its ledger its identity.

use std::path::{Path, PathBuf};

use keypool_ledger::CopiedFile;

use crate::transparency::earlier_folders;

/// The file of the position up to which the app's backend has every event, in the data directory.
pub(crate) const WEBHOOK_FILE: &str = "webhook";

/// The files of a running server that belong into a backup beside its journal.
#[derive(Clone, Debug)]
pub(crate) struct DataFiles {
    data: PathBuf,
    checkpoint: PathBuf,
}

impl DataFiles {
    /// The files of a data directory, with the checkpoint where the operator keeps it.
    pub(crate) fn new(data: &Path, checkpoint: Option<&Path>) -> Self {
        let checkpoint = checkpoint.map_or_else(|| data.join("checkpoint"), Path::to_owned);
        Self { data: data.to_owned(), checkpoint }
    }

    /// The files that are there now: the key and the checkpoint of the ledger and of those before it, and the
    /// position of the webhook.
    pub(crate) fn beside(&self) -> Vec<CopiedFile> {
        let copied = |from: PathBuf, name: String| CopiedFile { from, name };
        let of_data = |name: &str| copied(self.data.join(name), name.to_owned());
        let mut files = vec![
            of_data("checkpoint.key"),
            copied(self.checkpoint.clone(), "checkpoint".to_owned()),
            of_data(WEBHOOK_FILE),
        ];
        for folder in earlier_folders(&self.data) {
            let name = folder.file_name().map_or(folder.as_path(), Path::new);
            for file in ["checkpoint.key", "checkpoint"] {
                files.push(copied(folder.join(file), name.join(file).display().to_string()));
            }
        }
        files.retain(|file| file.from.exists());
        files
    }
}
