//! The figures of one pool, in few bytes: counts, and the packages of which more must be known.

use std::time::Duration;

use keypool_ledger::{Event, KeyPackageRef, PackageFacts, ReleaseReason, ReservationId, Timestamp};
use keypool_projections::Level;

const DAY: Duration = Duration::from_hours(24);

/// The figures of one pool.
///
/// Most single-use packages are a count only. By their names it knows the packages whose next event cannot be
/// understood otherwise: those held, last-resort ones, and those that came back after a lapse, which their former
/// holder may still spend.
#[derive(Clone, Debug, Default)]
pub(super) struct PoolFigures {
    pub(super) is_removed: bool,
    /// When it runs dry, as computed last.
    pub(super) dry_at: Timestamp,
    available: u32,
    pace: Pace,
    /// When the lifetime of the last of its packages ends.
    latest_end: Timestamp,
    empty_since: Timestamp,
    last_resort: Vec<RefTag>,
    lapsed: Vec<RefTag>,
    open: Vec<OpenHolding>,
}

/// The first eight bytes of a reference. References are hashes: the few live packages of a pool differ in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RefTag(u64);

/// A reservation that is open.
#[derive(Clone, Copy, Debug)]
struct OpenHolding {
    reservation: ReservationId,
    package: RefTag,
    held: HeldKind,
}

/// The kind of package that a reservation holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeldKind {
    SingleUse,
    /// It has expired or was revoked since; its holder may still spend it.
    Ended,
    LastResort,
}

/// About how many packages were spent in the last 24 hours: the count of today, and the share of yesterday's that
/// lies in them.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    day: u32,
    today: u32,
    yesterday: u32,
}

impl PoolFigures {
    /// Takes in an event of the pool.
    pub(super) fn apply(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::Uploaded(facts) => self.upload(facts),
            Event::Reserved { keypackage_ref, reservation, .. } => {
                self.reserve(RefTag::of(keypackage_ref), *reservation, at);
            }
            Event::Released { keypackage_ref, reservation, reason } => {
                let (package, is_lapse) =
                    (RefTag::of(keypackage_ref), *reason == ReleaseReason::Lapsed);
                if self.close(*reservation) == Some(HeldKind::SingleUse) {
                    self.available = self.available.saturating_add(1);
                    if is_lapse {
                        push(&mut self.lapsed, package);
                    }
                }
            }
            Event::Spent { keypackage_ref, reservation, .. } => {
                let held = reservation.and_then(|reservation| self.close(reservation));
                // A spend without an open reservation is late: the package is there, unless it has ended since.
                if held.is_none() && self.forget_lapsed(RefTag::of(keypackage_ref)) {
                    self.take_available(at);
                }
                self.pace.count(at);
            }
            Event::Expired { keypackage_ref } | Event::Revoked { keypackage_ref, .. } => {
                self.end(RefTag::of(keypackage_ref), at);
            }
            Event::Registered { .. } => self.is_removed = false,
            Event::DeviceRemoved { .. } => self.is_removed = true,
            _ => {}
        }
    }

    fn upload(&mut self, facts: &PackageFacts) {
        if facts.last_resort {
            push(&mut self.last_resort, RefTag::of(&facts.keypackage_ref));
            return;
        }
        if self.available == 0 {
            self.latest_end = Timestamp::default();
        }
        self.available = self.available.saturating_add(1);
        self.latest_end = self.latest_end.max(facts.not_after);
    }

    fn reserve(&mut self, package: RefTag, reservation: ReservationId, at: Timestamp) {
        let held = if self.last_resort.contains(&package) {
            HeldKind::LastResort
        } else {
            self.forget_lapsed(package);
            self.take_available(at);
            HeldKind::SingleUse
        };
        push(&mut self.open, OpenHolding { reservation, package, held });
    }

    /// Ends a package that has not been spent.
    fn end(&mut self, package: RefTag, at: Timestamp) {
        let is_it = |known: &RefTag| *known == package;
        if let Some(place) = self.last_resort.iter().position(is_it) {
            remove(&mut self.last_resort, place);
            return;
        }
        let mut open = self.open.iter_mut();
        if let Some(holding) = open.find(|holding| holding.package == package) {
            holding.held = HeldKind::Ended;
        } else {
            self.forget_lapsed(package);
            self.take_available(at);
        }
    }

    /// Closes a reservation, and returns the kind of package that it held; `None` if it was not open.
    fn close(&mut self, reservation: ReservationId) -> Option<HeldKind> {
        let place = self.open.iter().position(|open| open.reservation == reservation)?;
        Some(remove(&mut self.open, place).held)
    }

    /// Whether a package has come back after a lapse; from now on not any more.
    fn forget_lapsed(&mut self, package: RefTag) -> bool {
        let place = self.lapsed.iter().position(|known| *known == package);
        place.map(|place| remove(&mut self.lapsed, place)).is_some()
    }

    fn take_available(&mut self, at: Timestamp) {
        self.available = self.available.saturating_sub(1);
        if self.available == 0 {
            self.empty_since = at;
        }
    }

    /// When the pool runs dry, as far as it is known now.
    pub(super) fn dry_at(&self, now: Timestamp) -> Timestamp {
        if self.available == 0 {
            return self.empty_since;
        }
        let spent = self.spent_24h(now);
        let lasts = DAY.checked_mul(self.available).map(|days| days.as_secs());
        let by_pace = lasts.and_then(|secs| secs.checked_div(spent)).map(Duration::from_secs);
        by_pace.map_or(Timestamp::MAX, |lasts| now.after(lasts)).min(self.latest_end)
    }

    pub(super) fn level(&self) -> Level {
        Level::of(self.available())
    }

    pub(super) fn available(&self) -> u64 {
        u64::from(self.available)
    }

    pub(super) fn reserved(&self) -> u64 {
        self.open.iter().filter(|holding| holding.held == HeldKind::SingleUse).count() as u64
    }

    pub(super) const fn last_resort_count(&self) -> u64 {
        self.last_resort.len() as u64
    }

    pub(super) const fn open_count(&self) -> u64 {
        self.open.len() as u64
    }

    pub(super) fn spent_24h(&self, now: Timestamp) -> u64 {
        self.pace.in_24_hours(now)
    }
}

impl RefTag {
    fn of(keypackage_ref: &KeyPackageRef) -> Self {
        Self(keypackage_ref.as_bytes().first_chunk().map_or(0, |first| u64::from_be_bytes(*first)))
    }
}

impl Pace {
    /// The counts of a day and the day before it.
    fn on(self, day: u32) -> (u32, u32) {
        match day.checked_sub(self.day) {
            Some(0) => (self.today, self.yesterday),
            Some(1) => (0, self.today),
            _ => (0, 0),
        }
    }

    fn count(&mut self, at: Timestamp) {
        let day = day_of(at).max(self.day);
        let (today, yesterday) = self.on(day);
        *self = Self { day, today: today.saturating_add(1), yesterday };
    }

    fn in_24_hours(self, now: Timestamp) -> u64 {
        let (today, yesterday) = self.on(day_of(now).max(self.day));
        let left = DAY.as_secs() - now.as_secs() % DAY.as_secs();
        u64::from(today) + (u64::from(yesterday) * left).div_ceil(DAY.as_secs())
    }
}

/// Adds to a list without room for more: most lists of most pools have one entry or none.
fn push<T>(list: &mut Vec<T>, entry: T) {
    list.reserve_exact(1);
    list.push(entry);
}

/// Removes from a list, and gives its memory back with the last entry.
fn remove<T>(list: &mut Vec<T>, place: usize) -> T {
    let removed = list.swap_remove(place);
    if list.is_empty() {
        *list = Vec::new();
    }
    removed
}

fn day_of(at: Timestamp) -> u32 {
    u32::try_from(at.as_secs() / DAY.as_secs()).unwrap_or(u32::MAX)
}
