//! Bounds requests that stay open, streams and long polls: all of them together, and those of a device.
//!
//! A device's newest request displaces its oldest, which may belong to a connection that broke unnoticed.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use keypool_ledger::PoolId;
use tokio::sync::oneshot;

/// The open requests of one kind.
#[derive(Clone, Debug)]
pub(crate) struct OpenRequests {
    open: Arc<Mutex<OpenByDevice>>,
    all_max: usize,
    device_max: usize,
}

#[derive(Debug, Default)]
struct OpenByDevice {
    count: usize,
    next: u64,
    by_device: HashMap<PoolId, VecDeque<OpenEntry>>,
}

/// An open request as it is counted. Dropping it tells the request that it is displaced.
#[derive(Debug)]
struct OpenEntry {
    number: u64,
    _displace: oneshot::Sender<Infallible>,
}

/// An open request of a device. Dropping it frees its place.
#[derive(Debug)]
pub(crate) struct OpenRequest {
    requests: OpenRequests,
    pool: PoolId,
    number: u64,
    displaced: oneshot::Receiver<Infallible>,
}

impl OpenRequests {
    pub(crate) fn at_most(all_max: usize, device_max: usize) -> Self {
        Self { open: Arc::default(), all_max, device_max }
    }

    /// Takes a place for one more request of a device; `None` if all places are taken, by others too.
    pub(crate) fn enter(&self, pool: &PoolId) -> Option<OpenRequest> {
        let mut open = self.open();
        if self.device_max <= open.by_device.get(pool).map_or(0, VecDeque::len) {
            open.remove(pool, |_| true);
        }
        if self.all_max <= open.count {
            return None;
        }
        let (displace, displaced) = oneshot::channel();
        let number = open.next;
        open.next += 1;
        open.count += 1;
        let entry = OpenEntry { number, _displace: displace };
        open.by_device.entry(pool.clone()).or_default().push_back(entry);
        Some(OpenRequest { requests: self.clone(), pool: pool.clone(), number, displaced })
    }

    /// Counts the open requests.
    pub(crate) fn len(&self) -> usize {
        self.open().count
    }

    fn open(&self) -> MutexGuard<'_, OpenByDevice> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenByDevice {
    /// Removes the first of a device's requests that is meant.
    fn remove(&mut self, pool: &PoolId, is_meant: impl Fn(&OpenEntry) -> bool) {
        let Some(own) = self.by_device.get_mut(pool) else { return };
        let Some(place) = own.iter().position(is_meant) else { return };
        own.remove(place);
        self.count -= 1;
        if own.is_empty() {
            self.by_device.remove(pool);
        }
    }
}

impl OpenRequest {
    /// Waits until a newer request of the device takes this place.
    pub(crate) async fn displaced(&mut self) {
        let _ = (&mut self.displaced).await;
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.requests.open().remove(&self.pool, |entry| entry.number == self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::pin,
        task::{Context, Waker},
    };

    use super::*;

    fn pool(name: &str) -> PoolId {
        name.parse().unwrap()
    }

    fn is_displaced(place: &mut OpenRequest) -> bool {
        pin!(place.displaced()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn the_newest_request_of_a_device_displaces_its_oldest() {
        let requests = OpenRequests::at_most(9, 2);
        let mut other = requests.enter(&pool("bob")).unwrap();
        let [mut first, mut second, mut third] =
            [(); 3].map(|()| requests.enter(&pool("alice")).unwrap());
        let displaced = [&mut first, &mut second, &mut third, &mut other].map(is_displaced);
        assert_eq!(displaced, [true, false, false, false]);
        assert_eq!(requests.len(), 3);
    }

    #[test]
    fn a_place_is_free_again_when_it_is_left() {
        let requests = OpenRequests::at_most(2, 2);
        let own = requests.enter(&pool("alice")).unwrap();
        let other = requests.enter(&pool("bob")).unwrap();
        assert!(requests.enter(&pool("carol")).is_none(), "two in all");
        drop(own);
        let again = requests.enter(&pool("carol")).unwrap();
        drop((again, other));
        assert!(requests.len() == 0 && requests.open().by_device.is_empty());
    }
}
