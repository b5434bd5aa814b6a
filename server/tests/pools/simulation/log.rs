//! The log of one server of a simulation, with the faults of its disk.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use keypool_ledger::{
    AppendError, Appended, Batch, Conflict, EventLog, Key, LogHead, MemoryIndex, ReadError, Record,
    StreamHead, StreamId,
};

use super::{dice::Dice, engine::Engine, rates::Rates};

/// The records that all servers share.
pub(crate) type SharedEngine = Arc<Mutex<Engine>>;

/// The log of one server from its start to its end: a beginning of the shared records.
pub(crate) struct SimulatedLog {
    engine: SharedEngine,
    dice: Arc<Dice>,
    rates: Rates,
    /// How many of the shared records this server has.
    known: AtomicUsize,
    /// Whether faults happen now.
    pub(crate) armed: AtomicBool,
    /// Whether the log takes no more events until it is opened again.
    pub(crate) failed: AtomicBool,
    /// Whether the server has crashed in an append: nothing that it answers since is heard.
    pub(crate) crashed: AtomicBool,
    /// Whether a read has failed since this was last taken back.
    pub(crate) hurt: AtomicBool,
    /// Carries out another piece of the server's work in the middle of a read.
    pub(crate) interruption: OnceLock<Box<dyn Fn() + Send + Sync>>,
    interrupted: AtomicBool,
}

/// The fault of one append.
enum AppendFault {
    None,
    NotWritten,
    /// The first so many batches are written, and the log refuses the others.
    Partly(usize),
    Failed,
    /// The first so many batches are written, and nobody is told.
    Torn(usize),
    InDoubt,
}

impl SimulatedLog {
    pub(crate) fn new(engine: SharedEngine, dice: Arc<Dice>, rates: &Rates) -> Self {
        let known = engine.lock().unwrap().records.len();
        Self {
            engine,
            dice,
            rates: *rates,
            known: AtomicUsize::new(known),
            armed: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            crashed: AtomicBool::new(false),
            hurt: AtomicBool::new(false),
            interruption: OnceLock::new(),
            interrupted: AtomicBool::new(false),
        }
    }

    pub(crate) fn known(&self) -> usize {
        self.known.load(Ordering::Relaxed)
    }

    /// Takes in some of the records that other servers have written, or all.
    pub(crate) fn catch_up(&self, all: bool) {
        let mut engine = self.engine.lock().unwrap();
        self.settle_late(&mut engine);
        let ends = engine.ends_after(self.known());
        let end = if all { ends.last() } else { self.dice.pick(ends) };
        end.inspect(|end| self.known.store(**end, Ordering::Relaxed));
    }

    /// Decides whether records that were sent stand in the log after all.
    fn settle_late(&self, engine: &mut Engine) {
        let Some(late) = engine.late.take() else { return };
        let is_first = late[0].seq == engine.records.len() as u64 + 1;
        if is_first && self.dice.chance(5_000) {
            engine.write(late);
        }
    }

    fn armed(&self) -> bool {
        self.armed.load(Ordering::Relaxed)
    }

    /// The shared records and how many of them this server has, for a read.
    fn reading(&self) -> Result<(MutexGuard<'_, Engine>, usize), ReadError> {
        if self.armed() {
            if self.dice.chance(self.rates.interleaves)
                && !self.interrupted.swap(true, Ordering::Relaxed)
            {
                self.interruption.get().inspect(|interruption| interruption());
                self.interrupted.store(false, Ordering::Relaxed);
            }
            let crashed = self.crashed.load(Ordering::Relaxed);
            if crashed || self.dice.chance(self.rates.read_fails) {
                self.hurt.store(true, Ordering::Relaxed);
                return Err(ReadError::Unavailable("the disk does not answer".into()));
            }
        }
        Ok((self.engine.lock().unwrap(), self.known()))
    }

    fn fault(&self, batches: usize) -> AppendFault {
        let (dice, rates) = (&self.dice, &self.rates);
        if !self.armed() || batches == 0 {
            AppendFault::None
        } else if dice.chance(rates.not_written) {
            AppendFault::NotWritten
        } else if dice.chance(rates.partly_written) {
            AppendFault::Partly(dice.index(batches + 1))
        } else if dice.chance(rates.fails) {
            self.failed.store(true, Ordering::Relaxed);
            AppendFault::Failed
        } else if dice.chance(rates.in_doubt) {
            AppendFault::InDoubt
        } else {
            let crashes = dice.chance(rates.crashes);
            if !crashes && !dice.chance(rates.torn) {
                return AppendFault::None;
            }
            self.failed.store(true, Ordering::Relaxed);
            self.crashed.store(crashes, Ordering::Relaxed);
            AppendFault::Torn(dice.index(batches + 1))
        }
    }

    /// Writes staged batches as far as the fault lets them be written, and answers each.
    fn write(
        &self,
        engine: &mut Engine,
        staged: Vec<Result<Vec<Record>, AppendError>>,
    ) -> Vec<Result<Appended, AppendError>> {
        let fault = self.fault(staged.iter().flatten().filter(|one| !one.is_empty()).count());
        let all = staged.len();
        let (written, error): (usize, fn() -> AppendError) = match fault {
            AppendFault::None => (all, refused),
            AppendFault::NotWritten => (0, refused),
            AppendFault::Partly(first) => (first, refused),
            AppendFault::Failed => (0, || AppendError::Failed("the disk has failed".into())),
            AppendFault::Torn(first) => (first, || AppendError::Unknown("no answer".into())),
            AppendFault::InDoubt => return self.leave_in_doubt(engine, staged),
        };
        let is_told = !matches!(fault, AppendFault::Torn(_));
        let answers = staged.into_iter().enumerate().map(|(at, staged)| {
            let records = staged?;
            if written <= at {
                return Err(error());
            }
            engine.write(records.clone());
            if is_told { Ok(Appended { records }) } else { Err(error()) }
        });
        let answers = answers.collect();
        self.known.store(engine.records.len(), Ordering::Relaxed);
        answers
    }

    /// Writes staged batches or not, now or later, and tells nobody.
    fn leave_in_doubt(
        &self,
        engine: &mut Engine,
        staged: Vec<Result<Vec<Record>, AppendError>>,
    ) -> Vec<Result<Appended, AppendError>> {
        let (mut records, mut answers) = (Vec::new(), Vec::new());
        for staged in staged {
            answers.push(match staged {
                Ok(some) => {
                    records.extend(some);
                    Err(AppendError::InDoubt("no answer yet".into()))
                }
                Err(error) => Err(error),
            });
        }
        match self.dice.below(3) {
            0 => {
                engine.write(records);
                let is_known = self.dice.chance(5_000);
                if is_known {
                    self.known.store(engine.records.len(), Ordering::Relaxed);
                }
            }
            1 => engine.late = Some(records).filter(|records| !records.is_empty()),
            _ => {}
        }
        answers
    }
}

fn refused() -> AppendError {
    AppendError::NotWritten("no space is left".into())
}

impl EventLog for SimulatedLog {
    fn append(
        &self,
        decided_at: LogHead,
        batches: Vec<Batch>,
    ) -> Vec<Result<Appended, AppendError>> {
        if self.failed.load(Ordering::Relaxed) {
            let failed = |_: &Batch| Err(AppendError::Failed("the disk has failed before".into()));
            return batches.iter().map(failed).collect();
        }
        let engine = &mut *self.engine.lock().unwrap();
        self.settle_late(engine);
        let end = LogHead { seq: engine.records.len() as u64 };
        if let Err(conflict) = end.check(decided_at) {
            self.known.store(engine.records.len(), Ordering::Relaxed);
            let overtaken = |conflict: &Conflict| Err(conflict.clone().into());
            return batches.iter().map(|_| overtaken(&conflict)).collect();
        }
        let staged = engine.stage(batches);
        self.write(engine, staged)
    }

    fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        let (engine, known) = self.reading()?;
        let from = usize::try_from(from.saturating_sub(1)).unwrap().min(known);
        Ok(engine.records[from..known].iter().take(limit).cloned().collect())
    }

    fn read_stream(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Record>, ReadError> {
        let (engine, known) = self.reading()?;
        let places = engine.of_stream(stream).iter().take_while(|at| **at < known);
        let behind = places.skip(usize::try_from(after).unwrap()).take(limit);
        Ok(behind.map(|at| engine.records[*at].clone()).collect())
    }

    fn find(&self, key: Key<'_>, after: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        let (engine, known) = self.reading()?;
        let found = engine.found(key).take_while(|record| record.seq <= known as u64);
        Ok(found.filter(|record| after < record.seq).take(limit).cloned().collect())
    }

    fn head(&self) -> Result<LogHead, ReadError> {
        self.reading().map(|(_, known)| LogHead { seq: known as u64 })
    }

    fn stream_head(&self, stream: &StreamId) -> Result<StreamHead, ReadError> {
        let (engine, known) = self.reading()?;
        Ok(engine.head_of(stream, known))
    }
}

impl MemoryIndex for SimulatedLog {
    fn may_have(&self, key: Key<'_>, after: u64) -> bool {
        let (engine, known) = (self.engine.lock().unwrap(), self.known() as u64);
        engine.found(key).any(|record| after < record.seq && record.seq <= known)
    }

    fn has_head(&self, _stream: &StreamId) -> bool {
        true
    }
}

impl fmt::Debug for SimulatedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedLog").field("known", &self.known).finish_non_exhaustive()
    }
}
