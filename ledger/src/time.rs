//! Time as the ledger sees it: a number handed in, never read from the machine by the rules.

use std::{
    fmt,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch.
///
/// Arithmetic saturates: no sum of times can wrap round and revive or end something.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The last moment that can be written.
    pub const MAX: Self = Self(u64::MAX);

    /// The given number of milliseconds after the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// The given number of seconds after the Unix epoch.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// The moment `span` after this one.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }

    /// The moment `span` before this one.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis(span)))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Where the current time comes from.
pub trait Clock: Send + Sync {
    /// The current time, which may step back or leap as the machine's clock does.
    fn now(&self) -> Timestamp;

    /// The time that has passed since some fixed moment, by a clock that nobody sets. Compared with
    /// [`Clock::now`] it tells a leap of the clock from time that has passed.
    ///
    /// As provided, time passes as [`Clock::now`] says: a clock for simulations, which never leaps.
    fn monotonic(&self) -> Duration {
        self.now().since(Timestamp::default())
    }
}

/// The monotonic clock's reading when it was read first.
#[expect(clippy::disallowed_methods, reason = "the one place where the clock is read")]
static FIRST_READING: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where the clock is read")]
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(0).after(since_epoch)
    }

    fn monotonic(&self) -> Duration {
        FIRST_READING.elapsed()
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug, Default)]
pub struct ManualClock {
    now: AtomicU64,
    passed: AtomicU64,
}

impl ManualClock {
    /// A clock that stands at the given moment.
    #[must_use]
    pub const fn at(now: Timestamp) -> Self {
        Self { now: AtomicU64::new(now.0), passed: AtomicU64::new(0) }
    }

    /// Lets time pass.
    pub fn advance(&self, span: Duration) {
        self.passed.fetch_add(millis(span), Ordering::SeqCst);
        self.set(self.now().after(span));
    }

    /// Sets the clock to a moment, which may lie in the past, while no time passes.
    pub fn set(&self, now: Timestamp) {
        self.now.store(now.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.passed.load(Ordering::SeqCst))
    }
}

/// A span of waiting that began at some moment, by the machine's monotonic clock. No event depends on it.
#[cfg(feature = "local")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    ends: Duration,
}

#[cfg(feature = "local")]
impl Patience {
    /// A span that begins now.
    pub(crate) fn of(span: Duration) -> Self {
        Self { ends: SystemClock.monotonic().saturating_add(span) }
    }

    /// Whether the span is over.
    pub(crate) fn is_over(self) -> bool {
        self.ends < SystemClock.monotonic()
    }
}
