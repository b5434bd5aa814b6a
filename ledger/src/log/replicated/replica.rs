//! The replica: the local copy of the replicated stream, which grows frame by frame.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{
    ReplicaHealth, Replication, ReplicationError, StreamFault, StreamFrame,
    frame::{self, FrameContents},
};
use crate::{
    AppendError, EventLog, Hash, Record, SledLog, log::local::error_chain, time::Patience,
};

/// How many bytes of frames are asked for at a time. NATS has stood still where it was asked by number.
pub(super) const PULL_BYTES: usize = 16 << 20;
/// How long one question for frames waits, and a log that is being closed for it.
const PULL_WAIT: Duration = Duration::from_millis(200);
/// How long the follower rests after an error.
const REST: Duration = Duration::from_millis(200);
/// How often frames are asked for again before a gap counts as the stream's.
const GAPS_MAX: u32 = 5;
/// After how much time without frames the stream is asked for its end.
const LAST_ASKED_EVERY: Duration = Duration::from_secs(5);

/// Is told the position of the last record after frames were taken in.
pub(super) type GrowthListener = Box<dyn Fn(u64) + Send + Sync>;

/// The local copy of the stream, and how far it is.
pub(super) struct Replica {
    pub(super) local: Arc<SledLog>,
    pub(super) replication: Arc<dyn Replication>,
    state: Mutex<ReplicaState>,
    changed: Condvar,
    ending: AtomicBool,
    pub(super) listener: OnceLock<GrowthListener>,
}

/// The end of the local copy, in the stream's terms.
pub(super) struct ReplicaState {
    /// The number of the last frame that was taken in.
    pub(super) sequence: u64,
    /// The hash of that frame.
    pub(super) chain: Hash,
    /// The number of the stream's last frame, as far as it is known.
    pub(super) known: u64,
    /// Set for ever once the stream contradicts the local copy.
    pub(super) fault: Option<Arc<StreamFault>>,
    /// Set while the stream cannot be reached, or the local disk refuses frames.
    pub(super) trouble: Option<String>,
    /// How often in a row frames came with a gap.
    gaps: u32,
}

impl Replica {
    /// A replica that has taken in everything through frame `sequence`, whose hash is `chain`.
    pub(super) fn new(
        local: Arc<SledLog>,
        replication: Arc<dyn Replication>,
        (sequence, chain): (u64, Hash),
    ) -> Self {
        let (known, fault, trouble, gaps) = (sequence, None, None, 0);
        let state = ReplicaState { sequence, chain, known, fault, trouble, gaps };
        Self {
            local,
            replication,
            state: Mutex::new(state),
            changed: Condvar::new(),
            ending: AtomicBool::new(false),
            listener: OnceLock::new(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, ReplicaState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn end(&self) {
        self.ending.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    pub(super) fn health(&self) -> ReplicaHealth {
        let state = self.state();
        match (&state.fault, &state.trouble) {
            (Some(fault), _) => ReplicaHealth::Contradicted { why: fault.to_string() },
            (None, Some(why)) => ReplicaHealth::Interrupted { why: why.clone() },
            (None, None) => ReplicaHealth::Following,
        }
    }

    /// Waits until a frame after `sequence` is taken in, for `wait` at most; less if the stream is not followed any more.
    pub(super) fn wait_behind(
        &self,
        sequence: u64,
        wait: Duration,
    ) -> MutexGuard<'_, ReplicaState> {
        let goes_on =
            |state: &mut ReplicaState| state.sequence <= sequence && state.fault.is_none();
        let waited = self.changed.wait_timeout_while(self.state(), wait, goes_on);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Rests, unless the log is being closed.
    pub(super) fn rest(&self) {
        let goes_on = |_: &mut ReplicaState| !self.is_ending();
        drop(self.changed.wait_timeout_while(self.state(), REST, goes_on));
    }

    /// Follows the stream until the log is closed or the stream contradicts the local copy.
    pub(super) fn follow(&self) {
        let mut patience = Patience::of(LAST_ASKED_EVERY);
        while !self.is_ending() && self.state().fault.is_none() {
            let more = self.take_in_next(PULL_WAIT);
            let asks = patience.is_over();
            let checked = if asks { self.check_last() } else { Ok(()) };
            if asks {
                patience = Patience::of(LAST_ASKED_EVERY);
            }
            if let Err(error) = more.and(checked) {
                self.note_trouble(&error);
            }
            if self.is_held_up() {
                self.rest();
            }
        }
    }

    /// Whether the same question would probably have the same answer: the stream or the disk is in trouble, or
    /// frames came with a gap.
    fn is_held_up(&self) -> bool {
        let state = self.state();
        state.trouble.is_some() || 0 < state.gaps
    }

    /// Asks for the next frames, and takes them in.
    pub(super) fn take_in_next(&self, wait: Duration) -> Result<(), ReplicationError> {
        let after = self.state().sequence;
        let frames = self.replication.frames(after, PULL_BYTES, wait)?;
        self.take_in(frames);
        Ok(())
    }

    /// Asks for the end of the stream: one that ends before the local copy has lost frames.
    pub(super) fn check_last(&self) -> Result<(), ReplicationError> {
        // Nothing is ever removed, so an end that was read later cannot lie before.
        let taken_in = self.state().sequence;
        let last = self.replication.last()?;
        let mut state = self.state();
        state.known = state.known.max(last);
        if last < taken_in {
            self.stop(&mut state, StreamFault::Lost { last, taken_in });
        }
        Ok(())
    }

    fn note_trouble(&self, error: &ReplicationError) {
        let mut state = self.state();
        if let ReplicationError::Unfit(why) = error {
            self.stop(&mut state, StreamFault::Unfit(why.clone()));
            return;
        }
        let why = error_chain(error);
        if state.trouble.is_none() {
            tracing::warn!(why, "the replicated stream is not followed at the moment");
        }
        state.trouble = Some(why);
    }

    fn stop(&self, state: &mut ReplicaState, fault: StreamFault) {
        let cause = error_chain(&fault);
        tracing::error!(cause, "the replicated stream is not followed any more; reads go on");
        state.fault.get_or_insert(Arc::new(fault));
        self.changed.notify_all();
    }

    /// Takes frames into the local journal, as one commit, and tells those who wait for them.
    pub(super) fn take_in(&self, frames: Vec<StreamFrame>) {
        let mut state = self.state();
        let was = state.sequence;
        if let Err(fault) = self.try_take_in(&mut state, frames) {
            self.stop(&mut state, fault);
        }
        let grown = was < state.sequence;
        drop(state);
        if grown {
            self.changed.notify_all();
            if let (Some(listener), Ok(head)) = (self.listener.get(), self.local.head()) {
                listener(head.seq);
            }
        }
    }

    fn try_take_in(
        &self,
        state: &mut ReplicaState,
        frames: Vec<StreamFrame>,
    ) -> Result<(), StreamFault> {
        let head = self.local.head().map_err(|error| StreamFault::Local(error.into()))?.seq;
        let (mut sequence, mut chain, mut next) = (state.sequence, state.chain, head + 1);
        let mut records = Vec::new();
        for StreamFrame { sequence: number, bytes } in frames {
            if number <= sequence {
                continue;
            }
            if number != sequence + 1 {
                // Asked again behind the last whole frame: consumers of an engine may skip.
                state.gaps += 1;
                if GAPS_MAX < state.gaps {
                    return Err(StreamFault::Gap { expected: sequence + 1, found: number });
                }
                break;
            }
            let broken = |source| StreamFault::Frame { sequence: number, source };
            let frame = frame::decode(&bytes).map_err(|error| broken(error.into()))?;
            if frame.chain != chain {
                return Err(StreamFault::Chain { sequence: number });
            }
            if next < frame.first() {
                return Err(StreamFault::Position { sequence: number, expected: next });
            }
            let fresh =
                self.without_known(frame, next).ok_or(StreamFault::Other { sequence: number })?;
            next = fresh.last().map_or(next, |last| last.seq + 1);
            records.extend(fresh);
            (sequence, chain) = (number, Hash::of(&bytes));
            state.gaps = 0;
        }
        self.keep(state, records, (sequence, chain))
    }

    /// Appends records to the local journal, and notes the frame that they reach.
    fn keep(
        &self,
        state: &mut ReplicaState,
        records: Vec<Record>,
        (sequence, chain): (u64, Hash),
    ) -> Result<(), StreamFault> {
        match self.local.append_sealed(records) {
            Ok(()) => {
                (state.sequence, state.chain) = (sequence, chain);
                state.known = state.known.max(sequence);
                if state.trouble.take().is_some() {
                    tracing::info!(sequence, "the replicated stream is followed again");
                }
                Ok(())
            }
            Err(AppendError::NotWritten(why)) => {
                if state.trouble.is_none() {
                    tracing::error!(%why, "the local copy of the replicated stream takes no frames");
                }
                state.trouble = Some(why.to_string());
                Ok(())
            }
            Err(AppendError::Conflict(conflict)) => Err(StreamFault::Local(conflict.into())),
            Err(error) => Err(StreamFault::Local(error.into())),
        }
    }

    /// The records of a frame from a position on; `None` if those before it are not those of the local journal.
    fn without_known(&self, frame: FrameContents, next: u64) -> Option<Vec<Record>> {
        let (known, fresh): (Vec<_>, Vec<_>) =
            frame.records.into_iter().partition(|record| record.seq < next);
        self.has(&known.iter().collect::<Vec<_>>()).then_some(fresh)
    }

    /// Whether the local journal has these records, which have successive positions. Payloads may have been
    /// pruned, and the envelope holds their digest.
    pub(super) fn has(&self, records: &[&Record]) -> bool {
        let first = records.first().map_or(0, |record| record.seq);
        let stored = self.local.read(first, records.len()).unwrap_or_default();
        let is_same = |(stored, record): (&Record, &&Record)| {
            stored.seq == record.seq && stored.envelope_bytes == record.envelope_bytes
        };
        stored.len() == records.len() && stored.iter().zip(records).all(is_same)
    }
}
