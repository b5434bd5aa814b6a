//! The devices of a user, and how each came to be the user's.

use std::collections::BTreeMap;

use keypool_ledger::{Event, PoolId, SignatureKey, Timestamp};
use keypool_projections::{directory::DeviceChange, explanation::words::short};

/// A device of a user, and how it came to be the user's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IntroducedDevice {
    pub(crate) device: PoolId,
    /// The key that speaks for it; `None` if it was removed.
    pub(crate) key: Option<SignatureKey>,
    /// When it was registered last.
    pub(crate) since: Timestamp,
    /// The words on that registration.
    pub(crate) origin: String,
}

/// The devices of a user while the changes are walked.
#[derive(Default)]
struct Introductions {
    devices: BTreeMap<PoolId, IntroducedDevice>,
    /// The devices that keys spoke for, those of before included.
    owners: BTreeMap<SignatureKey, PoolId>,
    recovery_key: Option<SignatureKey>,
    /// Whether a device was registered since the name was released last.
    has_begun: bool,
}

/// The devices of a user by name, from the changes of the user's device list in the order of the log.
pub(crate) fn introductions(changes: &[DeviceChange]) -> Vec<IntroducedDevice> {
    let mut walked = Introductions::default();
    for change in changes {
        walked.apply(change);
    }
    walked.devices.into_values().collect()
}

impl Introductions {
    fn apply(&mut self, DeviceChange { device, at, event, .. }: &DeviceChange) {
        match event {
            Event::Registered { signature_key, voucher, statement, frontend, .. } => {
                let by = voucher.as_ref().or(statement.as_ref().map(|made| &made.by));
                let origin = self.origin(by, frontend.as_ref());
                self.has_begun = true;
                self.owners.insert(signature_key.clone(), device.clone());
                let (device, key) = (device.clone(), Some(signature_key.clone()));
                let registered =
                    IntroducedDevice { device: device.clone(), key, since: *at, origin };
                self.devices.insert(device, registered);
            }
            Event::KeyRotated { signature_key, .. } => {
                self.owners.insert(signature_key.clone(), device.clone());
                if let Some(known) = self.devices.get_mut(device) {
                    known.key = Some(signature_key.clone());
                }
            }
            Event::DeviceRemoved { .. } => {
                if let Some(known) = self.devices.get_mut(device) {
                    known.key = None;
                }
            }
            Event::NameReleased {} => self.has_begun = false,
            Event::RecoveryKeySet { recovery_key, .. } => {
                self.recovery_key = Some(recovery_key.clone());
            }
            _ => {}
        }
    }

    /// The words on a registration by a key of the user's, by a frontend, or by neither.
    fn origin(&self, by: Option<&SignatureKey>, frontend: Option<&SignatureKey>) -> String {
        let introduced = match by {
            Some(key) if self.recovery_key.as_ref() == Some(key) => {
                "registered with the user's recovery key".to_owned()
            }
            Some(key) => match self.owners.get(key) {
                Some(device) => format!("introduced by {device}"),
                None => format!("introduced by the key {}", short(key)),
            },
            None if frontend.is_some() => String::new(),
            None if !self.has_begun => {
                "the first device under the name, trusted on first use".to_owned()
            }
            None => "registered without a statement of another device".to_owned(),
        };
        match frontend {
            Some(key) if introduced.is_empty() => {
                format!("registered by the frontend key {}", short(key))
            }
            Some(key) => format!("{introduced}, by the frontend key {}", short(key)),
            None => introduced,
        }
    }
}

#[cfg(test)]
mod tests {
    use keypool_ledger::{Hash, Signature, SignedStatement};

    use super::*;

    fn key(byte: u8) -> SignatureKey {
        SignatureKey::new(&[byte; 32]).unwrap()
    }

    fn registered(own: u8, voucher: Option<u8>, frontend: Option<u8>) -> Event {
        Event::Registered {
            signature_key: key(own),
            credential: "bob".to_owned(),
            voucher: voucher.map(key),
            statement: None,
            frontend: frontend.map(key),
        }
    }

    fn origins(changes: &[(&str, Event)]) -> Vec<(String, bool, String)> {
        let change = |(device, event): &(&str, Event)| DeviceChange {
            device: device.parse().unwrap(),
            position: 1,
            at: Timestamp::default(),
            event: event.clone(),
        };
        let changes: Vec<DeviceChange> = changes.iter().map(change).collect();
        let devices = introductions(&changes).into_iter();
        devices.map(|known| (known.device.to_string(), known.key.is_some(), known.origin)).collect()
    }

    #[test]
    fn each_device_says_how_it_came() {
        let statement = SignedStatement {
            by: key(1),
            head: Hash::ZERO,
            until: Timestamp::MAX,
            proof: Signature::new(&[0; 64]).unwrap(),
        };
        let recovery = Event::RecoveryKeySet { recovery_key: key(9), statement };
        let rotated = Event::KeyRotated {
            signature_key: key(5),
            credential: "bob".to_owned(),
            statement: None,
        };
        let said = origins(&[
            ("bob/a", registered(1, None, None)),
            ("bob/a", recovery),
            ("bob/b", registered(2, Some(1), None)),
            ("bob/a", rotated),
            ("bob/c", registered(3, Some(5), Some(7))),
            ("bob/d", registered(4, None, Some(7))),
            ("bob/b", Event::DeviceRemoved { by_operator: false }),
            ("bob/e", registered(6, Some(9), None)),
            ("bob/f", registered(8, None, None)),
            ("bob/f", Event::NameReleased {}),
            ("bob/g", registered(10, None, None)),
        ]);
        let keys = short(&key(7));
        let expected = [
            ("bob/a", true, "the first device under the name, trusted on first use".to_owned()),
            ("bob/b", false, "introduced by bob/a".to_owned()),
            ("bob/c", true, format!("introduced by bob/a, by the frontend key {keys}")),
            ("bob/d", true, format!("registered by the frontend key {keys}")),
            ("bob/e", true, "registered with the user's recovery key".to_owned()),
            ("bob/f", true, "registered without a statement of another device".to_owned()),
            ("bob/g", true, "the first device under the name, trusted on first use".to_owned()),
        ];
        assert_eq!(
            said,
            expected.map(|(device, known, origin)| (device.to_owned(), known, origin))
        );
    }
}
