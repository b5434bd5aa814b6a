//! Listeners: requests that wait until something happens to a device's pool or mailbox.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use keypool_ledger::PoolId;
use tokio::sync::watch as signal;

/// The listeners of each device that has any.
#[derive(Debug, Default)]
pub(super) struct Listeners(Mutex<HashMap<PoolId, signal::Sender<u64>>>);

impl Listeners {
    /// Listens to a device. The receiver changes whenever its pool or its mailbox has changed.
    pub(super) fn listen(&self, device: &PoolId) -> signal::Receiver<u64> {
        let mut senders = self.lock();
        if let Some(sender) = senders.get(device) {
            return sender.subscribe();
        }
        let (sender, receiver) = signal::channel(0);
        senders.insert(device.clone(), sender);
        receiver
    }

    /// Wakes the listeners of some devices, and forgets those that have gone.
    pub(super) fn wake(&self, devices: &HashSet<PoolId>) {
        let mut senders = self.lock();
        if senders.is_empty() {
            return;
        }
        for device in devices {
            let Some(sender) = senders.get(device) else { continue };
            if sender.is_closed() {
                senders.remove(device);
            } else {
                sender.send_modify(|count| *count = count.wrapping_add(1));
            }
        }
    }

    /// Forgets the devices nobody listens to any more.
    pub(super) fn sweep(&self) {
        self.lock().retain(|_, sender| !sender.is_closed());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PoolId, signal::Sender<u64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
