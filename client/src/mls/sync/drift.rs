//! The record of differences between the device and the server that a refresh has found and mended: kept
//! until a refresh comes to its end and reports them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Staged, StorageError};

/// The name of the record of differences that are not reported yet.
const DRIFT_RECORD: &str = "drift";

/// How another copy of this home uses the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OtherCopy {
    /// It has refreshed or put packages into the pool within the last hour, and may be running. Its packages are left
    /// alone.
    Running,
    /// It has withdrawn packages of this home, which makes no more before
    /// [`MlsClient::adopt`](crate::MlsClient::adopt).
    TookOver,
}

/// The differences between the device and the server that a refresh has mended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// This home was set back to an older copy of itself: the server's history tells of packages that
    /// were made after it.
    pub home_set_back: bool,
    /// Another copy of this home that uses the pool as well.
    #[serde(default)]
    pub other_copy: Option<OtherCopy>,
    /// The server was set back to an older copy of its log, or tells another history than before.
    pub server_set_back: bool,
    /// How many packages were withdrawn from the server because nobody here answers for them.
    pub withdrawn: usize,
    /// How many of the device's own packages are not offered again, since they may have been handed out
    /// in the part of the log that the server has lost.
    pub retired: usize,
}

impl Drift {
    /// Whether nothing had drifted apart.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { home_set_back, other_copy, server_set_back, withdrawn, retired } = *self;
        let mut sentences = Vec::new();
        match other_copy {
            Some(OtherCopy::TookOver) => sentences.push(
                "another copy of this home has taken over and withdrawn the packages of this one, which makes \
                 no more; use that one, or say `keypool adopt` here to go on with this one"
                    .to_owned(),
            ),
            Some(OtherCopy::Running) => sentences.push(
                "another copy of this home has used the pool within the last hour: stop one of the two. \
                 If this home is a backup that was put back, and no other copy is running, say `keypool adopt`"
                    .to_owned(),
            ),
            None => {}
        }
        if home_set_back && other_copy.is_none() {
            sentences.push(
                "this home is an older copy of itself, and the server knows of packages that were made \
                 after it; what was said in your groups since is lost here: have this device removed \
                 from them and invited again"
                    .to_owned(),
            );
        }
        if server_set_back {
            sentences.push(
                "the server has lost or changed a part of its log; what it had told before is kept, and \
                 `keypool audit` says more"
                    .to_owned(),
            );
        }
        if retired > 0 {
            sentences.push(format!(
                "{} that may have been handed out before {} not offered again",
                counted(retired),
                if retired == 1 { "is" } else { "are" }
            ));
        }
        if withdrawn > 0 {
            sentences.push(format!(
                "{} that this device does not answer for {} withdrawn from the server",
                counted(withdrawn),
                if withdrawn == 1 { "was" } else { "were" }
            ));
        }
        f.write_str(&sentences.join("; "))
    }
}

fn counted(packages: usize) -> String {
    format!("{packages} package{}", if packages == 1 { "" } else { "s" })
}

/// Notes something that has drifted apart, as part of an operation.
pub(in crate::mls) fn note(
    staged: &Staged<'_>,
    what: impl FnOnce(&mut Drift),
) -> Result<(), StorageError> {
    let before: Drift = staged.app_record(DRIFT_RECORD)?.unwrap_or_default();
    let mut drift = before;
    what(&mut drift);
    if drift == before { Ok(()) } else { staged.put_app_record(DRIFT_RECORD, &drift) }
}

/// Notes that the server tells of a package that was uploaded here and is not known here, as part of an
/// operation.
pub(in crate::mls) fn note_older_home(staged: &Staged<'_>) -> Result<(), StorageError> {
    note(staged, |drift| drift.home_set_back = true)
}

/// Whether it is noted that this home is an older copy of itself.
pub(in crate::mls) fn is_older_home(staged: &Staged<'_>) -> Result<bool, StorageError> {
    Ok(staged.app_record::<Drift>(DRIFT_RECORD)?.is_some_and(|drift| drift.home_set_back))
}

/// Whether something was found that is not told yet.
pub(in crate::mls) fn is_noted(staged: &Staged<'_>) -> Result<bool, StorageError> {
    Ok(staged.app_record::<Drift>(DRIFT_RECORD)?.is_some())
}

/// Takes the differences to be reported, as part of an operation.
pub(in crate::mls) fn take(staged: &Staged<'_>) -> Result<Drift, StorageError> {
    let drift = staged.app_record(DRIFT_RECORD)?;
    if drift.is_some() {
        staged.remove_app_record(DRIFT_RECORD);
    }
    Ok(drift.unwrap_or_default())
}

/// Whether it is recorded, and not reported yet, that the server was rolled back to an older log.
pub(in crate::mls) fn is_server_set_back(staged: &Staged<'_>) -> Result<bool, StorageError> {
    Ok(staged.app_record::<Drift>(DRIFT_RECORD)?.is_some_and(|drift| drift.server_set_back))
}
