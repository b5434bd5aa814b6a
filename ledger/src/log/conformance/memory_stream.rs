//! A replicated stream in memory, which loses, repeats, reorders and contradicts if it is told to. For tests, those
//! of other crates included.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{PublishOutcome, Replication, ReplicationError, StreamFrame, StreamStatus};

/// A stream in memory that all its connections share.
#[derive(Debug, Default)]
pub struct MemoryStream {
    state: Mutex<MemoryStreamState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct MemoryStreamState {
    frames: Vec<StreamFrame>,
    /// Frames on their way, each with the frame that it must follow.
    under_way: Vec<(u64, Vec<u8>)>,
    random: u64,
}

/// One server's connection to a [`MemoryStream`].
#[derive(Debug)]
pub struct MemoryStreamConnection {
    stream: Arc<MemoryStream>,
    faults: StreamFaults,
    /// Set while nothing reaches the stream.
    is_cut: AtomicBool,
}

/// How a connection misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamFaults {
    /// Never.
    Never,
    /// At random, in each way that was seen.
    Random,
    /// It refuses each frame that it has written.
    WrittenAndRefused,
    /// It does not answer; nothing is written.
    Swallowed,
    /// It does not answer; everything is written.
    WrittenUnanswered,
}

impl MemoryStream {
    /// A stream without frames, whose faults at random follow from a seed.
    #[must_use]
    pub fn with_seed(seed: u64) -> Arc<Self> {
        let stream = Self::default();
        stream.state().random = seed | 1;
        Arc::new(stream)
    }

    /// Another server's connection.
    #[must_use]
    pub fn connect(self: &Arc<Self>, faults: StreamFaults) -> Arc<MemoryStreamConnection> {
        let stream = Arc::clone(self);
        Arc::new(MemoryStreamConnection { stream, faults, is_cut: AtomicBool::new(false) })
    }

    fn state(&self) -> MutexGuard<'_, MemoryStreamState> {
        self.state.lock().unwrap()
    }

    /// The bytes of all frames.
    #[must_use]
    pub fn frames(&self) -> Vec<Vec<u8>> {
        self.state().frames.iter().map(|frame| frame.bytes.clone()).collect()
    }

    /// Does to the frames something that no engine may do.
    pub fn tamper(&self, tamper: impl FnOnce(&mut Vec<StreamFrame>)) {
        tamper(&mut self.state().frames);
        self.changed.notify_all();
    }
}

impl MemoryStreamState {
    /// A number below `n`.
    fn below(&mut self, n: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % n
    }

    fn last(&self) -> u64 {
        self.frames.last().map_or(0, |frame| frame.sequence)
    }

    /// Writes a frame if the stream ends where it must.
    fn write(&mut self, after: u64, bytes: &[u8]) -> bool {
        let is_next = self.last() == after;
        if is_next {
            self.frames.push(StreamFrame { sequence: after + 1, bytes: bytes.to_vec() });
        }
        is_next
    }

    /// Lets one of the frames that are under way arrive.
    fn land(&mut self) {
        if let Some(count) = (self.under_way.len() as u64).checked_sub(1) {
            let index = self.below(count + 1);
            let (after, bytes) = self.under_way.swap_remove(usize::try_from(index).unwrap());
            self.write(after, &bytes);
        }
    }
}

impl MemoryStreamConnection {
    /// Cuts the line to the stream, or mends it.
    pub fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::SeqCst);
    }

    fn check(&self) -> Result<(), ReplicationError> {
        if self.is_cut.load(Ordering::SeqCst) {
            return Err(ReplicationError::Unreachable("the line is cut".into()));
        }
        Ok(())
    }
}

impl Replication for MemoryStreamConnection {
    fn publish(&self, after: u64, frame: &[u8]) -> PublishOutcome {
        if let Err(error) = self.check() {
            return PublishOutcome::NotSent(error.into());
        }
        let mut state = self.stream.state();
        let silent = || PublishOutcome::NoAnswer("no answer".into());
        let answer =
            |written| if written { PublishOutcome::Written } else { PublishOutcome::Refused };
        let outcome = match self.faults {
            StreamFaults::Never => answer(state.write(after, frame)),
            StreamFaults::WrittenAndRefused => {
                state.write(after, frame);
                PublishOutcome::Refused
            }
            StreamFaults::Swallowed => silent(),
            StreamFaults::WrittenUnanswered => {
                state.write(after, frame);
                silent()
            }
            StreamFaults::Random => match state.below(12) {
                0 => PublishOutcome::NotSent("no responders".into()),
                1 => silent(),
                2 => {
                    state.write(after, frame);
                    silent()
                }
                3 => {
                    state.write(after, frame);
                    PublishOutcome::Refused
                }
                4 => PublishOutcome::Refused,
                kind @ (5 | 6) => {
                    state.under_way.push((after, frame.to_vec()));
                    if kind == 5 { silent() } else { PublishOutcome::Refused }
                }
                7 => {
                    state.land();
                    answer(state.write(after, frame))
                }
                _ => answer(state.write(after, frame)),
            },
        };
        self.stream.changed.notify_all();
        outcome
    }

    fn frames(
        &self,
        after: u64,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<StreamFrame>, ReplicationError> {
        self.check()?;
        let mut state = self.stream.state();
        if self.faults == StreamFaults::Random && state.below(4) == 0 {
            state.land();
            self.stream.changed.notify_all();
        }
        let is_idle = |state: &mut MemoryStreamState| state.last() <= after;
        let mut state = self.stream.changed.wait_timeout_while(state, wait, is_idle).unwrap().0;
        self.check()?;
        let from = state.frames.partition_point(|frame| frame.sequence <= after);
        let mut bytes = 0;
        let fits = |frame: &&StreamFrame| {
            let is_first = bytes == 0;
            bytes += frame.bytes.len();
            is_first || bytes <= bytes_max
        };
        let mut frames: Vec<_> = state.frames.iter().skip(from).take_while(fits).cloned().collect();
        if self.faults == StreamFaults::Random {
            match state.below(12) {
                0 => return Err(ReplicationError::Unreachable("the line broke".into())),
                1 if 1 < frames.len() => drop(frames.remove(0)),
                2 => frames.reverse(),
                3 => frames.clone_from(&state.frames),
                4 => frames.clear(),
                _ => {}
            }
        }
        Ok(frames)
    }

    fn last(&self) -> Result<u64, ReplicationError> {
        self.check()?;
        Ok(self.stream.state().last())
    }

    fn status(&self, _: Duration) -> Result<StreamStatus, ReplicationError> {
        self.check()?;
        let state = self.stream.state();
        let (last, kept) = (state.last(), state.frames.len() as u64);
        Ok(StreamStatus {
            last,
            lost: last.saturating_sub(kept),
            leader: Some("memory".to_owned()),
            current_replicas: 1,
            replicas: 1,
        })
    }
}
