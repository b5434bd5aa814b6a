//! Threads that wait for the disk, so that no async worker does.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
};

use tokio::sync::oneshot;

use super::ExecuteError;

/// How many reads wait for the disk at a time.
const READS_MAX: usize = 8;
/// How many further reads wait for their turn.
const WAITING_MAX: usize = 1024;

pub(super) type Read = Box<dyn FnOnce() + Send>;

/// Threads that carry out reads which only the disk can answer.
#[derive(Debug)]
pub(super) struct DiskReads {
    queue: Mutex<Option<SyncSender<Read>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl DiskReads {
    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// Returns the error of the operating system if a thread cannot be started.
    pub(super) fn start() -> io::Result<Self> {
        let (sender, receiver) = sync_channel(WAITING_MAX);
        let reads = Arc::new(Mutex::new(receiver));
        let mut threads = Vec::with_capacity(READS_MAX);
        for _ in 0..READS_MAX {
            let reads = Arc::clone(&reads);
            let thread = thread::Builder::new().name("keypool-reads".to_owned());
            threads.push(thread.spawn(move || while carry_out_next(&reads) {})?);
        }
        Ok(Self { queue: Mutex::new(Some(sender)), threads: Mutex::new(threads) })
    }

    /// Starts no threads: the reads wait in the returned queue for somebody to carry them out.
    pub(super) fn without_threads() -> (Self, Receiver<Read>) {
        let (sender, receiver) = sync_channel(WAITING_MAX);
        (Self { queue: Mutex::new(Some(sender)), threads: Mutex::default() }, receiver)
    }

    /// Carries out a read on one of the threads.
    ///
    /// # Errors
    ///
    /// Returns [`ExecuteError::Busy`] if too many reads wait, and [`ExecuteError::LogUnavailable`] if the
    /// pools are closed.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ExecuteError> {
        let (sender, answer) = oneshot::channel();
        // The caller may have gone.
        self.enqueue(Box::new(move || drop(sender.send(read()))))?;
        answer.await.map_err(|_| ExecuteError::LogUnavailable)
    }

    fn enqueue(&self, read: Read) -> Result<(), ExecuteError> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queue.as_ref().ok_or(ExecuteError::LogUnavailable)?;
        queue.try_send(read).map_err(|error| match error {
            TrySendError::Full(_) => ExecuteError::Busy,
            TrySendError::Disconnected(_) => ExecuteError::LogUnavailable,
        })
    }

    /// Takes no more reads, and ends the threads once those that wait are carried out.
    pub(super) fn end(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        // A read may hold the pools last: then its own thread ends them, and cannot wait for itself.
        let current = thread::current().id();
        for thread in threads.drain(..).filter(|other| other.thread().id() != current) {
            if thread.join().is_err() {
                tracing::error!("a thread that reads the log panicked");
            }
        }
    }
}

/// Waits for the next read and carries it out; false once nobody can ask for one any more.
fn carry_out_next(reads: &Mutex<Receiver<Read>>) -> bool {
    let next = reads.lock().unwrap_or_else(PoisonError::into_inner).recv();
    let Ok(read) = next else { return false };
    if catch_unwind(AssertUnwindSafe(read)).is_err() {
        tracing::error!("a read of the log panicked");
    }
    true
}
