//! The directory of all pools, whether or not they are in memory: which key speaks for each, when time does
//! something to it next, how full it was when it changed last. A fold of the pools.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use keypool_ledger::{Event, Hash, PoolId, SignatureKey, Timestamp};
use keypool_projections::{
    Identity, Level, changes_identity,
    packing::{Packer, Unpacker},
    statement::device_list_head,
};

/// The least name a device can have.
const LEAST_DEVICE: &str = "+";

/// The directory of all pools.
#[derive(Debug, Default)]
pub(super) struct Directory {
    keys: HashMap<SignatureKey, PoolId>,
    /// The recovery keys of users, and the devices in whose histories they stand.
    recovery_keys: HashMap<SignatureKey, PoolId>,
    /// The keys that were removed, rotated away or replaced: they are nobody's ever after.
    retired: HashSet<SignatureKey>,
    /// Users by their names in small letters: of two that differ in capitals only, the first.
    folded: HashMap<String, String>,
    /// All pools, those of a user together, by device.
    pools: BTreeSet<PoolId>,
    briefs: HashMap<PoolId, PoolSummary>,
    /// When something is due, the next first.
    due: BTreeSet<(Timestamp, PoolId)>,
    levels: [u64; 4],
}

/// The summary of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PoolSummary {
    /// The key that speaks for it.
    pub(super) key: Option<SignatureKey>,
    /// The keys that it has had.
    pub(super) identity: Arc<Identity>,
    /// The version of its history that this is of.
    pub(super) version: u64,
    /// When time does something to it next.
    pub(super) due: Option<Timestamp>,
    /// How full it was when it changed last.
    pub(super) level: Level,
    /// The version of which there is a snapshot; 0 if there is none.
    pub(super) kept: u64,
}

impl PoolSummary {
    pub(super) fn pack(&self) -> Vec<u8> {
        let mut out = Packer::default();
        out.bytes(self.key.as_ref().map_or(&[], SignatureKey::as_bytes));
        self.identity.pack(&mut out);
        out.number(self.version);
        out.flag(self.due.is_some());
        out.number(self.due.unwrap_or_default().as_millis());
        out.number(place_of(self.level) as u64);
        out.number(self.kept);
        out.into_bytes().into_vec()
    }

    pub(super) fn unpack(bytes: &[u8]) -> Option<Self> {
        let mut rest = Unpacker::new(bytes);
        let key = match rest.bytes()? {
            [] => None,
            key => Some(SignatureKey::new(key).ok()?),
        };
        let (identity, version) = (Arc::new(Identity::unpack(&mut rest)?), rest.number()?);
        let due = rest.flag()?;
        let at = rest.time()?;
        let level = LEVELS.get(usize::try_from(rest.number()?).ok()?).copied()?;
        let kept = rest.number()?;
        let due = due.then_some(at);
        rest.is_empty().then_some(Self { key, identity, version, due, level, kept })
    }
}

const LEVELS: [Level; 4] = [Level::Healthy, Level::Low, Level::Critical, Level::Empty];

const fn place_of(level: Level) -> usize {
    match level {
        Level::Healthy => 0,
        Level::Low => 1,
        Level::Critical => 2,
        Level::Empty => 3,
    }
}

impl Directory {
    /// Takes in a pool as it is now, and returns the version of which there is a snapshot. What the brief
    /// says of that counts where it is the later one.
    pub(super) fn note(&mut self, pool: &PoolId, mut brief: PoolSummary) -> u64 {
        let old = self.briefs.get(pool).cloned();
        let kept = old.as_ref().map_or(0, |old| old.kept).max(brief.kept);
        brief.kept = kept;
        if old.as_ref() == Some(&brief) {
            return kept;
        }
        if let Some(old) = &old {
            if old.due != brief.due
                && let Some(due) = old.due
            {
                self.due.remove(&(due, pool.clone()));
            }
            if old.key != brief.key
                && let Some(key) = &old.key
            {
                self.keys.remove(key);
            }
            self.count(old.level, -1);
        } else {
            self.pools.insert(pool.clone());
            let folded = self.folded.entry(pool.user().to_ascii_lowercase());
            folded.or_insert_with(|| pool.user().to_owned());
        }
        if old.as_ref().is_none_or(|old| old.identity != brief.identity) {
            self.retired.extend(brief.identity.retired.iter().cloned());
            let before = old.as_ref().and_then(|old| old.identity.recovery_key.as_ref());
            if let Some(before) = before {
                self.recovery_keys.remove(before);
            }
            let now = brief.identity.recovery_key.iter().cloned();
            self.recovery_keys.extend(now.map(|key| (key, pool.clone())));
        }
        if let Some(due) = brief.due
            && old.as_ref().is_none_or(|old| old.due != brief.due)
        {
            self.due.insert((due, pool.clone()));
        }
        if let Some(key) = &brief.key {
            self.keys.insert(key.clone(), pool.clone());
        }
        self.count(brief.level, 1);
        self.briefs.insert(pool.clone(), brief);
        kept
    }

    fn count(&mut self, level: Level, by: i64) {
        if let Some(count) = self.levels.get_mut(place_of(level)) {
            *count = count.saturating_add_signed(by);
        }
    }

    /// Notes an event of a pool that is not in memory: the key that is registered for it now, and that the
    /// next sweep reads it.
    pub(super) fn note_event(&mut self, pool: &PoolId, version: u64, event: &Event) {
        let mut brief = self.brief(pool);
        if version <= brief.version {
            return;
        }
        brief.version = version;
        if changes_identity(event) {
            let identity = Arc::make_mut(&mut brief.identity);
            identity.evolve(event, version, brief.key.as_ref());
        }
        match event {
            Event::Registered { signature_key, .. } | Event::KeyRotated { signature_key, .. } => {
                brief.key = Some(signature_key.clone());
            }
            Event::DeviceRemoved { .. } => brief.key = None,
            _ => {}
        }
        brief.due = Some(Timestamp::default());
        self.note(pool, brief);
    }

    /// The version of a pool's history that is known; 0 for a pool that has none.
    pub(super) fn version(&self, pool: &PoolId) -> u64 {
        self.briefs.get(pool).map_or(0, |brief| brief.version)
    }

    /// The summary of a pool; an empty one of a pool that has no history.
    pub(super) fn brief(&self, pool: &PoolId) -> PoolSummary {
        self.briefs.get(pool).cloned().unwrap_or_default()
    }

    /// Notes that there is a snapshot of a pool.
    pub(super) fn kept(&mut self, pool: &PoolId, version: u64) {
        if let Some(brief) = self.briefs.get_mut(pool) {
            brief.kept = version;
        }
    }

    /// Whether a pool has a history.
    pub(super) fn knows(&self, pool: &PoolId) -> bool {
        self.briefs.contains_key(pool)
    }

    /// How many devices a key speaks for.
    pub(super) fn registered(&self) -> usize {
        self.keys.len()
    }

    /// Every pool, by name.
    pub(super) fn pools(&self) -> impl Iterator<Item = &PoolId> {
        self.pools.iter()
    }

    /// The pools to which time has done something by `now`, at most `limit`, the longest due first.
    pub(super) fn due(&self, now: Timestamp, limit: usize) -> Vec<PoolId> {
        let due = self.due.iter().take_while(|(due, _)| *due <= now);
        due.take(limit).map(|(_, pool)| pool.clone()).collect()
    }

    /// How many pools there are of each level.
    pub(super) fn levels(&self) -> [(Level, u64); 4] {
        let mut levels = LEVELS.map(|level| (level, 0));
        levels.iter_mut().zip(self.levels).for_each(|(level, count)| level.1 = count);
        levels
    }

    /// The pools of registered devices, the emptiest level first and by name within it.
    pub(super) fn by_level(&self) -> Vec<(Level, PoolId)> {
        let registered = self.pools.iter().filter_map(|pool| {
            let brief = self.briefs.get(pool).filter(|brief| brief.key.is_some())?;
            Some((brief.level, pool.clone()))
        });
        let mut found: Vec<(Level, PoolId)> = registered.collect();
        found.sort_by_key(|(level, _)| std::cmp::Reverse(place_of(*level)));
        found
    }

    /// The pool that a key speaks for.
    pub(super) fn pool_of_key(&self, key: &SignatureKey) -> Option<&PoolId> {
        self.keys.get(key)
    }

    /// The pools of a user, by device.
    pub(super) fn devices_of<'a>(&'a self, user: &'a str) -> impl Iterator<Item = &'a PoolId> {
        let least = PoolId::new(user, LEAST_DEVICE).ok();
        let from = least.into_iter().flat_map(|least| self.pools.range(least..));
        from.take_while(move |pool| pool.user() == user)
    }

    /// The versions of the histories of a user's devices at which their keys changed, by device.
    pub(super) fn key_changes_of(&self, user: &str) -> Vec<(PoolId, Arc<Identity>)> {
        let changed = |pool: &PoolId| {
            let identity = Arc::clone(&self.briefs.get(pool)?.identity);
            (0 < identity.changes).then(|| (pool.clone(), identity))
        };
        self.devices_of(user).filter_map(changed).collect()
    }

    /// The recovery key of a user, and the device in whose history it stands.
    pub(super) fn recovery_key_of(&self, user: &str) -> Option<(PoolId, SignatureKey)> {
        self.devices_of(user).find_map(|pool| {
            let identity = &self.briefs.get(pool)?.identity;
            Some((pool.clone(), identity.recovery_key.clone()?))
        })
    }

    /// The user whose recovery key a key is.
    pub(super) fn user_of_recovery_key(&self, key: &SignatureKey) -> Option<&str> {
        self.recovery_keys.get(key).map(PoolId::user)
    }

    /// Whether a key speaks for no other pool, and is nobody's recovery key.
    pub(super) fn is_free(&self, pool: &PoolId, key: &SignatureKey) -> bool {
        !self.recovery_keys.contains_key(key)
            && self.keys.get(key).is_none_or(|other| other == pool)
    }

    /// Whether a key was removed, rotated away or replaced, in any pool.
    pub(super) fn is_retired(&self, key: &SignatureKey) -> bool {
        self.retired.contains(key)
    }

    /// The head of a user's device list: see [`device_list_head`].
    pub(super) fn head_of(&self, user: &str) -> Hash {
        let devices = self.devices_of(user).filter_map(|pool| {
            let brief = self.briefs.get(pool)?;
            Some((pool.device(), brief.identity.changes, brief.key.as_ref()))
        });
        device_list_head(user, devices)
    }

    /// The name that stands in the way of registering a new one, because it differs in capital letters
    /// only: another user's, or another device's of the user.
    pub(super) fn similar_name(&self, pool: &PoolId) -> Option<String> {
        let is_new = self.devices_of(pool.user()).next().is_none();
        let user = self.folded.get(&pool.user().to_ascii_lowercase());
        if let Some(user) = user.filter(|user| is_new && *user != pool.user()) {
            return Some(user.clone());
        }
        if self.knows(pool) {
            return None;
        }
        let is_similar = |other: &&PoolId| other.device().eq_ignore_ascii_case(pool.device());
        self.devices_of(pool.user()).find(is_similar).map(|other| other.device().to_owned())
    }

    /// Whether a key may be registered for a pool: the first key of a user is trusted on first use, one for
    /// another device if a key of the user has vouched for it. The key must not speak for another pool.
    pub(super) fn admits(
        &self,
        pool: &PoolId,
        key: &SignatureKey,
        voucher: Option<&SignatureKey>,
    ) -> bool {
        let mut others = self.devices_of(pool.user()).filter(|other| *other != pool);
        let is_first = !others.any(|other| self.is_registered(other));
        let is_vouched_for = voucher.is_some_and(|by| self.is_voucher(pool, by));
        self.is_free(pool, key) && (is_first || is_vouched_for || self.keys.get(key) == Some(pool))
    }

    /// Whether a key speaks for another device of a pool's user, and so may vouch for the pool.
    pub(super) fn is_voucher(&self, pool: &PoolId, by: &SignatureKey) -> bool {
        let by = self.keys.get(by);
        by.is_some_and(|by| by.user() == pool.user() && by != pool)
    }

    /// The devices of a user that a key speaks for.
    pub(super) fn registered_of(&self, user: &str) -> Vec<PoolId> {
        self.devices_of(user).filter(|pool| self.is_registered(pool)).cloned().collect()
    }

    fn is_registered(&self, pool: &PoolId) -> bool {
        self.briefs.get(pool).is_some_and(|brief| brief.key.is_some())
    }
}
