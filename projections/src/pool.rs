//! A pool as its events have left it. The rules that produce the events are in `decide`.

mod contacts;

mod digest_cache;

mod eviction;

mod identity;

mod packed;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use imbl::{HashSet, OrdMap, OrdSet, Vector};
use keypool_ledger::{
    Event, GroupId, Hash, KeyPackageRef, PackageFacts, PoolId, ReleaseReason, ReservationId,
    RevokeReason, SignatureKey, Timestamp,
};

pub(crate) use self::contacts::is_held_for_contacts;
use self::digest_cache::DigestCache;
pub use self::{
    contacts::Contacts,
    eviction::Evicted,
    identity::{Identity, changes_identity},
};
use crate::lifecycle::{self, IllegalChange, Stage};

/// How long a spend counts for the forecast.
pub(crate) const SPEND_WINDOW: Duration = Duration::from_hours(24);

/// The fold of a pool's events.
///
/// A clone costs next to nothing for any history: the collections share their structure, so
/// that every decision works on a draft of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolState {
    version: u64,
    registration: Option<Arc<Registration>>,
    identity: Arc<Identity>,
    /// The keys that sign packages of other signature schemes than the registered key's, by scheme.
    pinned: Option<Arc<BTreeMap<u16, SignatureKey>>>,
    /// The digest of the credential that the device has declared for its packages.
    credential: Option<Hash>,
    /// Whether the device was removed, and not registered again since.
    removed: bool,
    /// Whether its operator has released its name since then.
    released: bool,
    /// Packages that may still be handed out or used: few, and walked by every decision.
    live: OrdMap<KeyPackageRef, Arc<Package>>,
    /// Packages whose fate is sealed: many, and only ever looked up.
    ended: OrdMap<KeyPackageRef, Arc<Package>>,
    reservations: OrdMap<ReservationId, Arc<Reservation>>,
    /// The reservations that have neither been spent nor ended.
    open: OrdSet<ReservationId>,
    init_keys: HashSet<Hash>,
    counts: Counts,
    spent_lately: Vector<Timestamp>,
    last_upload: Option<Timestamp>,
    contacts: Arc<Contacts>,
    /// The digest of the live packages, once somebody has asked.
    pub(crate) digest: DigestCache,
}

/// The key that speaks for a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The key that signs the device's packages and requests.
    pub signature_key: SignatureKey,
    /// The identity in the device's Basic credential.
    pub credential: String,
    /// The key of the device that vouched for this one, if one did.
    pub voucher: Option<SignatureKey>,
}

/// One package of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// The facts that its bytes tell.
    pub facts: PackageFacts,
    /// The stage of its life.
    pub stage: Stage,
    /// Its place in the order of uploads, from 1.
    pub order: u64,
    /// How many reservations it has had.
    pub generation: u32,
    /// How many of them were given back.
    pub cancelled: u32,
    /// How many of them ran out.
    pub lapsed: u32,
    /// The latest reservation of it, if it ever had one.
    pub latest: Option<ReservationId>,
    /// Why it was withdrawn, if it was.
    pub revoked: Option<RevokeReason>,
    /// The users who have reported that it cannot be used, while the server found nothing wrong with it.
    pub reported_by: BTreeSet<String>,
}

/// One inviter's claim on one package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// The package.
    pub keypackage_ref: KeyPackageRef,
    /// The inviter's device.
    pub holder: PoolId,
    /// The group the invitation is for.
    pub group: GroupId,
    /// Which reservation of the package this is, from 1.
    pub generation: u32,
    /// When it ends, as the holder was told.
    pub deadline: Timestamp,
    /// How often it was renewed.
    pub renewals: u32,
    /// The status.
    pub status: ReservationStatus,
}

/// The status of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservationStatus {
    /// It holds its package.
    Open,
    /// Its holder gave the package back.
    Cancelled,
    /// It ran out. Its holder may still spend, while nobody else was given the package.
    Lapsed,
    /// It spent its package; `late` if it had lapsed before.
    Spent {
        /// Whether it had lapsed, or the package had expired, before it was spent.
        late: bool,
    },
    /// It lapsed, its package was handed on, and its holder tried to spend all the same.
    Lost,
}

/// How many single-use packages of a pool stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Made, and not yet known to be at the server; a client's count only.
    pub created: u64,
    /// In the pool, held by nobody, whether or not they may be offered.
    pub available: u64,
    /// Set aside for an inviter.
    pub reserved: u64,
    /// Used.
    pub spent: u64,
    /// Past their lifetime.
    pub expired: u64,
    /// Withdrawn.
    pub revoked: u64,
}

impl Counts {
    fn of(&mut self, stage: Stage) -> &mut u64 {
        match stage {
            Stage::Created => &mut self.created,
            Stage::Available => &mut self.available,
            Stage::Reserved => &mut self.reserved,
            Stage::Spent => &mut self.spent,
            Stage::Expired => &mut self.expired,
            Stage::Revoked => &mut self.revoked,
        }
    }

    /// How many packages were ever uploaded (invariant I3).
    #[must_use]
    pub const fn uploaded(&self) -> u64 {
        self.available + self.reserved + self.spent + self.expired + self.revoked
    }
}

impl PoolState {
    /// Folds a history into the state it leads to.
    ///
    /// # Errors
    ///
    /// Returns the first event that the lifecycle forbids: the history is not one of a pool.
    pub fn replay<'a>(
        events: impl IntoIterator<Item = (&'a Event, Timestamp)>,
    ) -> Result<Self, IllegalChange> {
        let mut pool = Self::default();
        for (event, at) in events {
            pool.evolve(event, at)?;
        }
        Ok(pool)
    }

    /// Takes in one event, recorded at `at`. The lifecycle says whether it fits; this stores the
    /// outcome.
    ///
    /// # Errors
    ///
    /// Returns an [`IllegalChange`] if the lifecycle forbids the event, and changes nothing.
    pub fn evolve(&mut self, event: &Event, at: Timestamp) -> Result<(), IllegalChange> {
        match event.keypackage_ref() {
            Some(keypackage_ref) => self.evolve_package(keypackage_ref, event, at)?,
            None => self.evolve_registration(event),
        }
        self.version = self.version.saturating_add(1);
        Ok(())
    }

    fn evolve_package(
        &mut self,
        keypackage_ref: &KeyPackageRef,
        event: &Event,
        at: Timestamp,
    ) -> Result<(), IllegalChange> {
        let known = self.get(keypackage_ref).cloned();
        let before = known.as_ref().map(|package| package.stage);
        let last_resort = match (&known, event) {
            (Some(package), _) => package.facts.last_resort,
            (None, Event::Created(facts) | Event::Uploaded(facts)) => facts.last_resort,
            (None, _) => false,
        };
        let Some(stage) = lifecycle::next(before, event, last_resort) else {
            let (keypackage_ref, event) = (keypackage_ref.clone(), event.name());
            return Err(IllegalChange { keypackage_ref, stage: before, event });
        };
        let mut package = match (known, event) {
            (Some(package), _) => package,
            (None, Event::Created(facts) | Event::Uploaded(facts)) => Package::new(facts),
            // The lifecycle has refused every other event of an unknown package above.
            (None, _) => return Ok(()),
        };
        package.stage = stage;
        self.note(&mut package, event, at);
        self.store(keypackage_ref, package, before);
        Ok(())
    }

    /// Applies the details of an event beyond the stage it leads to.
    fn note(&mut self, package: &mut Package, event: &Event, at: Timestamp) {
        match event {
            Event::Uploaded(facts) => {
                package.order = self.version.saturating_add(1);
                self.init_keys.insert(facts.init_key);
                self.last_upload = Some(at);
            }
            Event::Reserved { reservation, holder, group, generation, deadline, .. } => {
                package.generation = *generation;
                package.latest = Some(*reservation);
                self.open.insert(*reservation);
                let reserved = Reservation {
                    keypackage_ref: package.facts.keypackage_ref.clone(),
                    holder: holder.clone(),
                    group: group.clone(),
                    generation: *generation,
                    deadline: *deadline,
                    renewals: 0,
                    status: ReservationStatus::Open,
                };
                self.reservations.insert(*reservation, Arc::new(reserved));
            }
            Event::Renewed { reservation, deadline, .. } => {
                if let Some(renewed) = self.reservations.get_mut(reservation).map(Arc::make_mut) {
                    renewed.deadline = *deadline;
                    renewed.renewals = renewed.renewals.saturating_add(1);
                }
            }
            Event::Released { reservation, reason, .. } => {
                let status = match reason {
                    ReleaseReason::Cancelled => {
                        package.cancelled = package.cancelled.saturating_add(1);
                        ReservationStatus::Cancelled
                    }
                    ReleaseReason::Lapsed => {
                        package.lapsed = package.lapsed.saturating_add(1);
                        ReservationStatus::Lapsed
                    }
                };
                self.close(*reservation, status);
            }
            Event::Spent { reservation, late, .. } => {
                if let Some(reservation) = reservation {
                    self.close(*reservation, ReservationStatus::Spent { late: *late });
                }
                self.remember_spend(at);
            }
            Event::Revoked { reason, .. } => package.revoked = Some(*reason),
            Event::Reported { reservation, .. } => {
                if let Some(made) = self.reservations.get(reservation) {
                    package.reported_by.insert(made.holder.user().to_owned());
                }
            }
            Event::Conflict { lost, .. } => self.close(*lost, ReservationStatus::Lost),
            // A package that was made or has expired has its stage, and nothing more.
            _ => {}
        }
    }

    fn close(&mut self, reservation: ReservationId, status: ReservationStatus) {
        self.open.remove(&reservation);
        if let Some(closed) = self.reservations.get_mut(&reservation).map(Arc::make_mut) {
            closed.status = status;
        }
    }

    /// Adds a spend to those of the last day. Once a clock that was ahead is accepted as it is, the spends before
    /// count as of now: their times never fall.
    fn remember_spend(&mut self, at: Timestamp) {
        if self.spent_lately.back().is_some_and(|last| at < *last) {
            self.spent_lately = self.spent_lately.iter().map(|spent| at.min(*spent)).collect();
        }
        let window = at.before(SPEND_WINDOW);
        while self.spent_lately.front().is_some_and(|spent| *spent < window) {
            self.spent_lately.pop_front();
        }
        self.spent_lately.push_back(at);
    }

    fn store(&mut self, keypackage_ref: &KeyPackageRef, package: Package, before: Option<Stage>) {
        if !package.facts.last_resort {
            if let Some(before) = before {
                let count = self.counts.of(before);
                *count = count.saturating_sub(1);
            }
            *self.counts.of(package.stage) += 1;
        }
        let (here, there) = match package.stage {
            Stage::Created | Stage::Available | Stage::Reserved => {
                (&mut self.live, &mut self.ended)
            }
            Stage::Spent | Stage::Expired | Stage::Revoked => (&mut self.ended, &mut self.live),
        };
        there.remove(keypackage_ref);
        here.insert(keypackage_ref.clone(), Arc::new(package));
        self.digest = DigestCache::default();
    }

    /// How many events the pool has had.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The key that speaks for the pool, if one does.
    #[must_use]
    pub fn registration(&self) -> Option<&Registration> {
        self.registration.as_deref()
    }

    /// The digest of the credential that the device's packages carry, as it has declared; `None` for the
    /// Basic credential that names the device.
    #[must_use]
    pub const fn declared_credential(&self) -> Option<Hash> {
        self.credential
    }

    /// The leaf keys that the device has declared, by signature scheme.
    pub fn leaf_keys(&self) -> impl Iterator<Item = (u16, &SignatureKey)> {
        let pinned = self.pinned.iter().flat_map(|pinned| pinned.iter());
        pinned.map(|(scheme, key)| (*scheme, key))
    }

    /// The key that signs the device's packages of a signature scheme, as the device has declared; `None` where
    /// it has declared none.
    #[must_use]
    pub fn pinned_key(&self, signature_scheme: u16) -> Option<&SignatureKey> {
        self.pinned.as_ref()?.get(&signature_scheme)
    }

    /// Whether the device was removed, and not registered again since.
    #[must_use]
    pub const fn is_removed(&self) -> bool {
        self.removed
    }

    /// Whether the operator has released the name since the device was removed.
    #[must_use]
    pub const fn is_released(&self) -> bool {
        self.released
    }

    /// The keys that the pool has had, and how often they changed.
    #[must_use]
    pub const fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// The users that the owner lets reserve, and those that the owner knows.
    #[must_use]
    pub fn contacts(&self) -> &Contacts {
        &self.contacts
    }

    /// How many single-use packages stand where, as recorded.
    ///
    /// Lapses and expiries since the last event are not in it; [`crate::Health`] counts those.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// When packages were last uploaded.
    #[must_use]
    pub const fn last_upload(&self) -> Option<Timestamp> {
        self.last_upload
    }

    /// The package with a reference, if the pool has ever seen it.
    #[must_use]
    pub fn get(&self, keypackage_ref: &KeyPackageRef) -> Option<&Package> {
        self.live.get(keypackage_ref).or_else(|| self.ended.get(keypackage_ref)).map(|kept| &**kept)
    }

    /// The packages that are created, available or reserved, by reference.
    pub fn live(&self) -> impl Iterator<Item = &Package> {
        self.live.values().map(|package| &**package)
    }

    /// Every package the pool has ever seen: live ones first, each part by reference.
    pub fn packages(&self) -> impl Iterator<Item = &Package> {
        self.live.values().chain(self.ended.values()).map(|package| &**package)
    }

    /// Returns a reservation that the pool has made, open or ended.
    #[must_use]
    pub fn reservation(&self, id: ReservationId) -> Option<&Reservation> {
        self.reservations.get(&id).map(|made| &**made)
    }

    /// The reservations that have neither been spent nor ended, by id.
    pub fn open_reservations(&self) -> impl Iterator<Item = (ReservationId, &Reservation)> {
        self.open.iter().filter_map(|id| Some((*id, self.reservation(*id)?)))
    }

    /// Whether any package of the pool had this `init_key`.
    #[must_use]
    pub fn knows_init_key(&self, init_key: &Hash) -> bool {
        self.init_keys.contains(init_key)
    }

    /// How many packages were spent in the 24 hours before `now`.
    #[must_use]
    pub fn spent_since_yesterday(&self, now: Timestamp) -> u64 {
        let window = now.before(SPEND_WINDOW);
        self.spent_lately.iter().filter(|spent| window <= **spent).count() as u64
    }
}

impl Package {
    fn new(facts: &PackageFacts) -> Self {
        Self {
            facts: facts.clone(),
            stage: Stage::Created,
            order: 0,
            generation: 0,
            cancelled: 0,
            lapsed: 0,
            latest: None,
            revoked: None,
            reported_by: BTreeSet::new(),
        }
    }
}
