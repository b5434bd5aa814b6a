//! Session keys: agreed on by devices, kept in memory for a while, and never written anywhere.
//!
//! A session stands for the key that has agreed on it. Whom that key speaks for is asked at every request,
//! as it is when the key itself has signed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use clap::ValueEnum;
use keypool_ledger::{SignatureKey, Timestamp};
use keypool_projections::signing::{Exchange, Session, SessionId};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::settings::SettingsError;

/// How many sessions a device has at a time: a few, for its app may run twice, or have started again.
const OF_A_KEY_MAX: usize = 4;
/// The longest time a session may last.
const LIFETIME_MAX: Duration = Duration::from_hours(1);

/// Whether devices may agree on session keys.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum SessionKeys {
    /// Where the server listens on loopback, where only this machine connects or a proxy on it
    #[default]
    Loopback,
    /// Wherever it listens, because TLS ends before it
    On,
    /// Never
    Off,
}

/// What the operator has set of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionSettings {
    /// Whether devices may agree on them.
    pub keys: SessionKeys,
    /// How long one lasts.
    pub lifetime: Duration,
    /// How many there are at a time.
    pub sessions_max: usize,
}

impl Default for SessionSettings {
    fn default() -> Self {
        let (lifetime, sessions_max) = (Duration::from_mins(10), 65_536);
        Self { keys: SessionKeys::default(), lifetime, sessions_max }
    }
}

impl SessionSettings {
    /// Refuses what would make sessions of no use, or keys of them.
    pub(crate) fn check(&self) -> Result<(), SettingsError> {
        match (self.sessions_max, self.lifetime) {
            (0, _) => Err(SettingsError::Zero("--sessions-max")),
            (_, Duration::ZERO) => Err(SettingsError::Zero("--session-lifetime")),
            (_, lifetime) if LIFETIME_MAX < lifetime => {
                Err(SettingsError::TooLong("--session-lifetime", "1h"))
            }
            _ => Ok(()),
        }
    }

    fn are_offered_at(&self, address: SocketAddr) -> bool {
        match self.keys {
            SessionKeys::Loopback => address.ip().is_loopback(),
            SessionKeys::On => true,
            SessionKeys::Off => false,
        }
    }
}

/// Why no session was agreed on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotAgreed {
    /// The operator offers none, or the answer would go over a wire in clear.
    #[error("session keys are not offered here; sign each request with the device's key")]
    NotOffered,
    /// With such a key everybody would have the same secret.
    #[error("public_key is not 32 bytes of an X25519 key that can be used")]
    Unusable,
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random(#[from] getrandom::Error),
}

/// A session, and whose it is.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) session: Session,
    /// The key that has agreed on it.
    pub(crate) key: SignatureKey,
    /// When it ends.
    pub(crate) until: Timestamp,
    /// Its place among all that were agreed on.
    place: u64,
}

/// A session as the device is told of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Agreed {
    pub(crate) id: SessionId,
    pub(crate) public_key: [u8; 32],
    pub(crate) until: Timestamp,
}

/// The sessions of one server.
#[derive(Debug)]
pub(crate) struct Sessions {
    /// `None` where they are not offered.
    settings: Option<SessionSettings>,
    table: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    by_id: HashMap<SessionId, Arc<Held>>,
    /// By the order in which they were agreed on: the first is the next to go.
    by_place: BTreeMap<u64, SessionId>,
    by_key: HashMap<SignatureKey, BTreeSet<u64>>,
    next_place: u64,
}

impl Sessions {
    /// None yet, at a server that listens there.
    pub(crate) fn at(address: SocketAddr, settings: SessionSettings) -> Self {
        let settings = settings.are_offered_at(address).then_some(settings);
        Self { settings, table: RwLock::default() }
    }

    /// Agrees on a session with the device whose key has signed the request, and has sent this public key.
    pub(crate) fn agree(
        &self,
        key: &SignatureKey,
        theirs: &[u8],
        now: Timestamp,
    ) -> Result<Agreed, NotAgreed> {
        let settings = self.settings.ok_or(NotAgreed::NotOffered)?;
        let theirs: [u8; 32] = theirs.try_into().map_err(|_| NotAgreed::Unusable)?;
        let mut id = [0; 16];
        getrandom::fill(&mut id)?;
        let id = SessionId::from_bytes(id);
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(secret.as_mut_slice())?;
        let exchange = Exchange::new(&secret);
        let public_key = exchange.public_key();
        let session = exchange.at_server(&theirs, key, id).ok_or(NotAgreed::Unusable)?;
        let until = now.after(settings.lifetime);
        self.changed().keep(session, key, until, settings.sessions_max);
        Ok(Agreed { id, public_key, until })
    }

    /// The session of a name, unless it has ended.
    pub(crate) fn find(&self, id: SessionId, now: Timestamp) -> Option<Arc<Held>> {
        self.read().by_id.get(&id).filter(|held| now < held.until).cloned()
    }

    /// Forgets what has ended.
    pub(crate) fn sweep(&self, now: Timestamp) {
        let places: Vec<u64> = {
            let table = self.read();
            let ended = table.by_id.values().filter(|held| held.until <= now);
            ended.map(|held| held.place).collect()
        };
        if places.is_empty() {
            return;
        }
        let mut table = self.changed();
        for place in places {
            table.forget(place);
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.read().by_id.len()
    }

    /// A thread that has panicked leaves sessions, and nothing half: each change ends before it can panic.
    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Keeps a session, and forgets the oldest where there are too many, of this key or of all.
    fn keep(&mut self, session: Session, key: &SignatureKey, until: Timestamp, max: usize) {
        let of_key = self.by_key.get(key).filter(|places| OF_A_KEY_MAX <= places.len());
        if let Some(oldest) = of_key.and_then(|places| places.first().copied()) {
            self.forget(oldest);
        }
        while max <= self.by_id.len() {
            let Some((oldest, _)) = self.by_place.first_key_value() else { break };
            self.forget(*oldest);
        }
        let (place, id) = (self.next_place, session.id());
        self.next_place += 1;
        self.by_place.insert(place, id);
        self.by_key.entry(key.clone()).or_default().insert(place);
        let held = Held { session, key: key.clone(), until, place };
        self.by_id.insert(id, Arc::new(held));
    }

    fn forget(&mut self, place: u64) {
        let held = self.by_place.remove(&place).and_then(|id| self.by_id.remove(&id));
        let Some(held) = held else { return };
        if let Some(places) = self.by_key.get_mut(&held.key) {
            places.remove(&place);
            if places.is_empty() {
                self.by_key.remove(&held.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_766_400_000);

    fn sessions(sessions_max: usize) -> Sessions {
        let settings = SessionSettings { sessions_max, ..SessionSettings::default() };
        Sessions::at(SocketAddr::from(([127, 0, 0, 1], 8080)), settings)
    }

    fn key(number: u8) -> SignatureKey {
        SignatureKey::new(&[number; 32]).unwrap()
    }

    fn agreed(sessions: &Sessions, number: u8, now: Timestamp) -> SessionId {
        let public_key = Exchange::new(&[number; 32].into()).public_key();
        sessions.agree(&key(number), &public_key, now).unwrap().id
    }

    #[test]
    fn a_session_stands_for_its_key_until_it_ends() {
        let sessions = sessions(8);
        let id = agreed(&sessions, 1, NOW);
        let last = NOW.after(Duration::from_millis(599_999));
        assert_eq!(sessions.find(id, last).unwrap().key, key(1));
        assert!(sessions.find(id, NOW.after(Duration::from_mins(10))).is_none());
        assert!(sessions.find(SessionId::from_bytes([0; 16]), NOW).is_none());
    }

    #[test]
    fn a_device_has_four_and_the_oldest_goes() {
        let sessions = sessions(100);
        let other = agreed(&sessions, 2, NOW);
        let ids: Vec<SessionId> = (0..5).map(|_| agreed(&sessions, 1, NOW)).collect();
        let there: Vec<bool> = ids.iter().map(|id| sessions.find(*id, NOW).is_some()).collect();
        assert_eq!(there, [false, true, true, true, true]);
        assert!(sessions.find(other, NOW).is_some());
        assert_eq!(sessions.len(), 5);
    }

    #[test]
    fn so_many_in_all_and_the_oldest_goes() {
        let sessions = sessions(3);
        let ids: Vec<SessionId> = (1..=4).map(|number| agreed(&sessions, number, NOW)).collect();
        let there: Vec<bool> = ids.iter().map(|id| sessions.find(*id, NOW).is_some()).collect();
        assert_eq!(there, [false, true, true, true]);
        assert_eq!(sessions.len(), 3);
    }

    #[test]
    fn nothing_is_left_of_what_has_ended() {
        let sessions = sessions(8);
        agreed(&sessions, 1, NOW);
        let later = NOW.after(Duration::from_mins(5));
        let id = agreed(&sessions, 2, later);
        sessions.sweep(NOW.after(Duration::from_mins(10)));
        assert_eq!(sessions.len(), 1);
        assert!(sessions.find(id, later).is_some());
        sessions.sweep(NOW.after(Duration::from_mins(15)));
        let table = sessions.read();
        assert_eq!((table.by_id.len(), table.by_place.len(), table.by_key.len()), (0, 0, 0));
    }

    #[test]
    fn they_are_offered_on_loopback_or_where_the_operator_says_so() {
        let offered = |keys, address: [u8; 4]| {
            SessionSettings { keys, ..SessionSettings::default() }
                .are_offered_at(SocketAddr::from((address, 8080)))
        };
        let (here, everywhere) = ([127, 0, 0, 1], [0, 0, 0, 0]);
        assert!(
            offered(SessionKeys::Loopback, here) && !offered(SessionKeys::Loopback, everywhere)
        );
        assert!(offered(SessionKeys::On, here) && offered(SessionKeys::On, everywhere));
        assert!(!offered(SessionKeys::Off, here) && !offered(SessionKeys::Off, everywhere));
    }

    #[test]
    fn a_session_is_short() {
        let of = |lifetime| SessionSettings { lifetime, ..SessionSettings::default() }.check();
        of(Duration::from_hours(1)).unwrap();
        assert!(matches!(of(Duration::from_secs(3601)), Err(SettingsError::TooLong(..))));
        assert!(matches!(of(Duration::ZERO), Err(SettingsError::Zero(_))));
    }

    #[test]
    fn the_table_prints_no_key() {
        let sessions = sessions(8);
        agreed(&sessions, 1, NOW);
        let printed = format!("{sessions:?}");
        assert!(printed.contains("session: Session { .. }"), "{printed}");
    }
}
