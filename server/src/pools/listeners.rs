//! Listeners: requests that wait until something happens to a device's pool or mailbox.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use keypool_ledger::PoolId;
use tokio::sync::watch as signal;

/// The listeners of each device that has any, and the devices that were called.
#[derive(Debug, Default)]
pub(super) struct Listeners(Mutex<Presences>);

#[derive(Debug, Default)]
struct Presences {
    senders: HashMap<PoolId, signal::Sender<u64>>,
    /// Devices that were called by a webhook, and have neither listened nor acknowledged since.
    called: HashSet<PoolId>,
}

/// The presence of a device, as far as the server sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// A request of the device waits for news: a stream, or a read of its mailbox.
    Listening,
    /// The device is away, and was called since it was last here.
    Called,
    /// The device is away.
    Away,
}

impl Presences {
    fn presence(&self, device: &PoolId) -> Presence {
        match self.senders.get(device) {
            Some(sender) if !sender.is_closed() => Presence::Listening,
            _ if self.called.contains(device) => Presence::Called,
            _ => Presence::Away,
        }
    }
}

impl Listeners {
    /// Listens to a device. The receiver changes whenever its pool or its mailbox has changed.
    pub(super) fn listen(&self, device: &PoolId) -> signal::Receiver<u64> {
        let Presences { senders, called } = &mut *self.lock();
        called.remove(device);
        if let Some(sender) = senders.get(device) {
            return sender.subscribe();
        }
        let (sender, receiver) = signal::channel(0);
        senders.insert(device.clone(), sender);
        receiver
    }

    /// Wakes the listeners of some devices, and forgets those that have gone.
    pub(super) fn wake(&self, devices: &HashSet<PoolId>) {
        let senders = &mut self.lock().senders;
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
        self.lock().senders.retain(|_, sender| !sender.is_closed());
    }

    /// Returns the presence of a device.
    pub(super) fn presence(&self, device: &PoolId) -> Presence {
        self.lock().presence(device)
    }

    /// Notes that a device is called if it is away, and returns its presence before.
    pub(super) fn call(&self, device: &PoolId) -> Presence {
        let mut presences = self.lock();
        let presence = presences.presence(device);
        if presence == Presence::Away {
            presences.called.insert(device.clone());
        }
        presence
    }

    /// Notes that a device has acknowledged, or was removed: it may be called again.
    pub(super) fn uncall(&self, device: &PoolId) {
        self.lock().called.remove(device);
    }

    /// Notes that every device may be called again.
    pub(super) fn uncall_all(&self) {
        self.lock().called.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Presences> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
