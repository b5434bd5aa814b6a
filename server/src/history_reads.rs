//! Reads of histories: one at a time for each device, and a few for all.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use keypool_ledger::PoolId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Histories that are read at a time: more would keep the threads busy that answer requests.
const READS_MAX: usize = 2;

/// The reads that are under way or wait for their turn.
#[derive(Clone, Debug)]
pub(crate) struct HistoryReads {
    devices: Arc<Mutex<HashSet<PoolId>>>,
    turns: Arc<Semaphore>,
}

/// A device's turn; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _device: DeviceTurn,
    _turn: Option<OwnedSemaphorePermit>,
}

/// A device that reads or waits for its turn.
#[derive(Debug)]
struct DeviceTurn {
    reads: HistoryReads,
    pool: PoolId,
}

impl Default for HistoryReads {
    fn default() -> Self {
        Self { devices: Arc::default(), turns: Arc::new(Semaphore::new(READS_MAX)) }
    }
}

impl HistoryReads {
    /// Waits for a turn without a device: for streams, which are bounded otherwise.
    pub(crate) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        Arc::clone(&self.turns).acquire_owned().await.ok()
    }

    /// Waits for a device's turn; `None` if the device has a read under way or waiting already.
    pub(crate) async fn enter(&self, pool: &PoolId) -> Option<Turn> {
        if !self.devices().insert(pool.clone()) {
            return None;
        }
        let device = DeviceTurn { reads: self.clone(), pool: pool.clone() };
        let turn = self.turn().await;
        Some(Turn { _device: device, _turn: turn })
    }

    fn devices(&self) -> MutexGuard<'_, HashSet<PoolId>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for DeviceTurn {
    fn drop(&mut self) {
        self.reads.devices().remove(&self.pool);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_web::test]
    async fn a_device_reads_once_at_a_time_and_again_afterwards() {
        let reads = HistoryReads::default();
        let pool = |name: &str| name.parse::<PoolId>().unwrap();
        let alice = reads.enter(&pool("alice")).await.unwrap();
        assert!(reads.enter(&pool("alice")).await.is_none());
        let _bob = reads.enter(&pool("bob")).await.unwrap();
        drop(alice);
        let _again = reads.enter(&pool("alice")).await.unwrap();
        let waiting = pool("carol");
        let mut third = Box::pin(reads.enter(&waiting));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(third.as_mut().poll(&mut context).is_pending(), "two at a time in all");
        drop(third);
        assert!(!reads.devices().contains(&waiting), "who waits no longer has no turn");
    }
}
