//! The erasure of users: asked for while the server runs, carried out before the log is opened the next time.
//!
//! In between the file `erasing` in the data directory names the users, by the ids that stand for them in the log.
//! So an erasure that was interrupted is gone on with at the next start.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use keypool_api::REFUSALS_DIR;
use keypool_ledger::{
    Batch, CommandId, Event, EventLog, Hash, NamedUser, NewEvent, OpenError, ReadError, Record,
    SledLog, SledLogOptions, StreamId, StreamWrite, SubjectId, Timestamp, erase_payloads,
    log::{append_at_head, read_record},
};
use keypool_projections::erasure::{ErasurePlan, UserErasure};
use uuid::Uuid;

use crate::refusals::forget_user;

/// The file of users that are to be erased.
const FILE: &str = "erasing";
/// Marks a user in that file: only messages that wait for others are left.
const WAITS: &str = "waits";
/// How many records are read at once.
const PAGE: usize = 512;

/// Why users were not erased. The next start tries again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EraseError {
    /// A file cannot be read or written.
    #[error("{} cannot be read or written", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log cannot be opened or written again.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The log does not take the event that says who was erased.
    #[error("the log does not take the event of the erasure")]
    Append(#[source] keypool_ledger::AppendError),
}

/// The users of a data directory that are to be erased.
#[derive(Debug)]
pub(crate) struct ErasureFile {
    path: PathBuf,
    held: Mutex<HeldUsers>,
}

/// The users whose names nobody registers.
#[derive(Debug, Default)]
struct HeldUsers {
    /// The names whose erasure is being asked for: until the server has begun anew.
    names: HashSet<String>,
    /// The users that this start could not erase, until a later one has done so.
    left: HashSet<SubjectId>,
}

/// The room for one user in the file, which is there already.
#[derive(Debug)]
pub(crate) struct ErasureRoom {
    file: File,
    at: u64,
    user: SubjectId,
}

impl ErasureRoom {
    /// Notes the user, and forces that to the disk. It takes no more room.
    pub(crate) fn note(self) -> io::Result<()> {
        self.file.write_all_at(self.user.to_string().as_bytes(), self.at)?;
        self.file.sync_all()
    }
}

impl ErasureFile {
    pub(crate) fn of(data: &Path) -> Self {
        Self { path: data.join(FILE), held: Mutex::default() }
    }

    /// Keeps a name from being registered, or lets it go again.
    pub(crate) fn hold(&self, name: &str, is_held: bool) {
        let names = &mut self.held().names;
        if is_held {
            names.insert(name.to_owned());
        } else {
            names.remove(name);
        }
    }

    /// Whether a name is being erased.
    pub(crate) fn holds(&self, name: &str) -> bool {
        self.held().names.contains(name)
    }

    /// Reads the users that are left in the file, once the log is open.
    pub(crate) fn load_left(&self) -> io::Result<()> {
        let left = self.read()?.into_keys().collect();
        self.held().left = left;
        Ok(())
    }

    /// Whether this start could not erase some user.
    pub(crate) fn has_left(&self) -> bool {
        !self.held().left.is_empty()
    }

    /// Whether this start could not erase a user.
    pub(crate) fn is_left(&self, user: SubjectId) -> bool {
        self.held().left.contains(&user)
    }

    fn held(&self) -> MutexGuard<'_, HeldUsers> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes room for a user on the disk: a line of spaces, which stands for nobody.
    pub(crate) fn make_room(&self, user: SubjectId) -> io::Result<ErasureRoom> {
        let _others_wait = self.held();
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(&self.path)?;
        let len = file.metadata()?.len();
        let line = " ".repeat(user.to_string().len());
        file.write_all_at(format!("\n{line}\n").as_bytes(), len)?;
        file.sync_all()?;
        if let Some(dir) = self.path.parent() {
            File::open(dir)?.sync_all()?;
        }
        Ok(ErasureRoom { file, at: len.saturating_add(1), user })
    }

    /// The users, and whether only messages that wait for others are left of each.
    fn read(&self) -> io::Result<BTreeMap<SubjectId, bool>> {
        let text = match fs::read_to_string(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        let parsed = |line: &str| {
            let (user, waits) =
                line.split_once(' ').map_or((line, false), |(user, _)| (user, true));
            // A line that was torn by a crash was not answered.
            user.parse().ok().map(|user| (user, waits))
        };
        Ok(text.lines().filter_map(parsed).collect())
    }

    /// Notes that only messages that wait for others are left of some users.
    fn wait_for_others(&self, users: impl Iterator<Item = SubjectId>) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        for user in users {
            writeln!(file, "{user} {WAITS}")?;
        }
        file.sync_all()?;
        fs::rename(&new, &self.path)
    }

    fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

/// Erases the users that were to be erased when the server ended, before its log is opened.
///
/// # Errors
///
/// Returns an [`EraseError`]; the rest is done by the next start.
pub(crate) fn erase_asked(data: &Path, options: SledLogOptions) -> Result<(), EraseError> {
    let asked = ErasureFile::of(data);
    let io = |source| EraseError::Io { path: asked.path.clone(), source };
    let users = asked.read().map_err(io)?;
    if users.is_empty() {
        return asked.remove().map_err(io);
    }
    let plan = say_erased(data, options, &users.keys().copied().collect())?;
    if !plan.due.is_empty() || users.values().any(|waits| !waits) {
        let report = erase_payloads(data, options, &plan.due)?;
        let (users, payload_bytes) = (users.len(), report.payload_bytes);
        tracing::info!(users, payload_bytes, "payloads of erased users were overwritten");
    }
    if plan.waiting == 0 {
        return asked.remove().map_err(io);
    }
    let waiting = plan.waiting;
    tracing::warn!(
        waiting,
        "messages that name an erased user wait for others; a later start removes them"
    );
    asked.wait_for_others(users.into_keys()).map_err(io)
}

/// Says in the log that some users are erased, has the record of refusals forget them, and returns the payloads
/// that go with them.
fn say_erased(
    data: &Path,
    options: SledLogOptions,
    users: &HashSet<SubjectId>,
) -> Result<ErasurePlan, EraseError> {
    let log = SledLog::open(data, options)?;
    let named = names_of(&log, users)?;
    let mut erasure = UserErasure::of(named.keys().copied().collect());
    let mut next_seq = 1;
    loop {
        let page = log.read(next_seq, PAGE)?;
        let Some(last) = page.last() else { break };
        next_seq = last.seq.saturating_add(1);
        for Record { seq, envelope, payload, .. } in &page {
            erasure.see(*seq, envelope, !payload.is_empty());
        }
    }
    let plan = erasure.plan();
    // The segment that is being written is closed, so that it can be written again.
    log.prune(&plan.due, &|| false)?;
    let at = read_record(&log, next_seq.saturating_sub(1))?.map(|record| record.envelope.at);
    for user in plan.unsaid.iter().filter_map(|id| named.get(id)) {
        let batch = erased(user, at.unwrap_or_default());
        for answer in append_at_head(&log, &[batch]) {
            answer.map_err(EraseError::Append)?;
        }
    }
    // After the event: if anything fails from here on, the name is nobody's already.
    for name in named.values().filter_map(NamedUser::recorded_name) {
        let dir = data.join(REFUSALS_DIR);
        forget_user(&dir, name).map_err(|source| EraseError::Io { path: dir, source })?;
    }
    Ok(plan)
}

/// The names of some users, as far as the log has them. A user that the log does not know is left out.
fn names_of(
    log: &SledLog,
    users: &HashSet<SubjectId>,
) -> Result<BTreeMap<SubjectId, NamedUser>, ReadError> {
    let mut named = BTreeMap::new();
    for id in users {
        let mut user = NamedUser::new(*id);
        for record in log.read_stream(&StreamId::Names(*id), 0, usize::MAX)? {
            user.evolve(record.envelope.version, &record.envelope.event, &record.payload);
        }
        if user.version() != 0 {
            named.insert(*id, user);
        }
    }
    Ok(named)
}

fn erased(user: &NamedUser, at: Timestamp) -> Batch {
    let new = NewEvent {
        at,
        command: CommandId(Uuid::new_v4()),
        request: Hash::ZERO,
        event: Event::UserErased {},
        payload: Vec::new(),
    };
    let (stream, expected) = (StreamId::Names(user.id()), user.version());
    Batch { writes: vec![StreamWrite { stream, expected, events: vec![new] }] }
}
