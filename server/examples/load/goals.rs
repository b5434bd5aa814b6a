//! The goals, and whether they hold. Each is a ratio within one round; the median of the rounds counts.

use crate::{
    baseline::Kind,
    large::Large,
    measure::{Spread, approx},
    request::Auth,
    rounds::{Key, Round, spread},
    session::Figures,
    subject::Subject,
    workload::Workload,
};

/// How many packages an upload has, and so how many admissions it takes.
const UPLOAD: f64 = 32.0;
/// The bytes that a pool and a package may take in memory.
const POOL_BYTES: f64 = 1024.0;
const PACKAGE_BYTES: f64 = 200.0;
/// How large a log the goals of a large log are for.
pub(crate) const EVENTS: u64 = 10_000_000;
pub(crate) const POOLS: u64 = 200_000;

/// The bound of a ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Wanted {
    AtLeast(f64),
    AtMost(f64),
    /// Told, without a goal.
    Told,
}

impl Wanted {
    /// Whether a figure is as it is wanted; `None` if nothing is.
    pub(crate) fn holds(self, figure: f64) -> Option<bool> {
        match self {
            Self::AtLeast(least) => Some(least <= figure),
            Self::AtMost(most) => Some(figure <= most),
            Self::Told => None,
        }
    }
}

/// A goal with its result.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Goal {
    pub(crate) text: String,
    pub(crate) wanted: Wanted,
    pub(crate) unit: &'static str,
    /// Without signatures, and with them; `None` where it was not measured.
    pub(crate) named: Option<Spread>,
    pub(crate) signed: Option<Spread>,
}

/// All goals of the rounds.
pub(crate) fn of_rounds(rounds: &[Round]) -> Vec<Goal> {
    let mut goals = Vec::new();
    for workload in [Workload::Reserve, Workload::Pair] {
        for (kind, wanted) in [
            (Kind::FsyncFile, Wanted::AtLeast(0.8)),
            (Kind::Postgres, Wanted::AtLeast(3.5)),
            (Kind::Sqlite, Wanted::AtLeast(7.0)),
            (Kind::Redis, Wanted::Told),
        ] {
            let subject = Subject::Baseline(kind);
            let text = format!("{} at 64, of {}'s", workload.name(), subject.name());
            let ratio = move |round: &Round, auth| {
                against(round, (auth, workload, 64), subject, |figures| figures.throughput)
            };
            goals.push(goal(text, wanted, rounds, ratio));
        }
    }
    goals.extend(others(rounds));
    goals.extend(of_cluster(rounds));
    goals
}

/// The goals of three servers on one machine, beside one of them.
fn of_cluster(rounds: &[Round]) -> [Goal; 3] {
    let reserve = |auth, at| (auth, Workload::Reserve, at);
    let mut alone = goal(
        "p50 of reserve alone, with three servers".to_owned(),
        Wanted::AtMost(3.0),
        rounds,
        |round, auth| Some(own(round, reserve(auth, 1), Subject::Cluster)?.p50_ms()),
    );
    alone.unit = " ms";
    let together = goal(
        "reserve at 64 with three servers, of that with one".to_owned(),
        Wanted::AtLeast(0.25),
        rounds,
        |round, auth| {
            let of = |subject| Some(own(round, reserve(auth, 64), subject)?.throughput);
            Some(of(Subject::Cluster)? / of(Subject::Keypool)?)
        },
    );
    let mut busy = goal(
        "answers `busy` to reserve at 64 with three servers".to_owned(),
        Wanted::Told,
        rounds,
        |round, auth| Some(own(round, reserve(auth, 64), Subject::Cluster)?.busy),
    );
    busy.unit = "";
    [alone, together, busy]
}

fn others(rounds: &[Round]) -> [Goal; 5] {
    let echo = Subject::Baseline(Kind::Echo);
    let file = Subject::Baseline(Kind::FsyncFile);
    let p99 = goal(
        "p99 of reserve at 64, of the fsync file's".to_owned(),
        Wanted::AtMost(1.5),
        rounds,
        |round, auth| against(round, (auth, Workload::Reserve, 64), file, Figures::p99_ms),
    );
    let mut signed = goal(
        "reserve at 64, signed, of the signed echo's".to_owned(),
        Wanted::AtLeast(0.8),
        rounds,
        |round, auth| against(round, (auth, Workload::Reserve, 64), echo, |found| found.throughput),
    );
    signed.named = None;
    let alone = goal(
        "p50 of reserve alone, of one `fdatasync` and one echo".to_owned(),
        Wanted::AtMost(1.3),
        rounds,
        |round, auth| {
            let of = |subject| own(round, (auth, Workload::Reserve, 1), subject);
            let apart = round.fdatasync_ms.get(&auth)? + of(echo)?.p50_ms();
            // A neighbour may hold up the one fdatasync and not the other: the lesser of the two counts.
            let least = apart.min(of(file)?.p50_ms());
            Some(of(Subject::Keypool)?.p50_ms() / least)
        },
    );
    let upload = goal(
        "upload of 32 at 64, of what admission alone reaches".to_owned(),
        Wanted::AtLeast(0.7),
        rounds,
        |round, auth| {
            let found = own(round, (auth, Workload::Upload, 64), Subject::Keypool)?;
            Some(found.throughput * UPLOAD / round.admissions)
        },
    );
    let status = goal(
        "status at 64, of the echo's".to_owned(),
        Wanted::AtLeast(0.7),
        rounds,
        |round, auth| against(round, (auth, Workload::Status, 64), echo, |found| found.throughput),
    );
    [p99, signed, alone, upload, status]
}

/// The ratio of the server's figure to a baseline's, in one round.
fn against(
    round: &Round,
    of: (Auth, Workload, usize),
    baseline: Subject,
    figure: impl Fn(&Figures) -> f64,
) -> Option<f64> {
    Some(figure(own(round, of, Subject::Keypool)?) / figure(own(round, of, baseline)?))
}

fn own(round: &Round, of: (Auth, Workload, usize), subject: Subject) -> Option<&Figures> {
    let (auth, workload, concurrency) = of;
    round.of(Key { subject, auth, workload, concurrency })
}

fn goal(
    text: String,
    wanted: Wanted,
    rounds: &[Round],
    ratio: impl Fn(&Round, Auth) -> Option<f64>,
) -> Goal {
    let of = |auth| spread(rounds, |round| ratio(round, auth));
    let (named, signed) = (of(Auth::Named), of(Auth::Signed));
    Goal { text, wanted, unit: "×", named, signed }
}

/// Whether a log is as large as the goals are for.
pub(crate) const fn is_large_enough(large: &Large) -> bool {
    EVENTS <= large.size.events && POOLS <= large.size.pools
}

/// The goals of the large log. With a smaller one the figures are told, and nothing is said of the goals.
pub(crate) fn of_large(large: &Large) -> Vec<Goal> {
    let single = |value: f64| Some(Spread { median: value, least: value, most: value });
    let row = |text: &str, wanted, unit, named| {
        let wanted = if is_large_enough(large) { wanted } else { Wanted::Told };
        let text = text.to_owned();
        Goal { text, wanted, unit, named, signed: None }
    };
    let pools = approx(large.size.pools);
    let packages = pools * approx(crate::population::PACKAGES);
    let allowed = pools * POOL_BYTES + packages * PACKAGE_BYTES;
    let memory = |bytes: u64| single(approx(bytes.saturating_sub(large.memory.empty)) / allowed);
    let disk = single(approx(large.disk) / approx(large.written.bytes));
    vec![
        row("reserve at 64, of that with a small log", Wanted::AtLeast(0.9), "×", large.reserve),
        row(
            "p50 of reserve and release in a pool with a long history, of that in another",
            Wanted::AtMost(1.1),
            "×",
            large.long_pool,
        ),
        row(
            "memory after the start, of 1 KiB for a pool and 200 bytes for a package",
            Wanted::AtMost(1.0),
            "×",
            memory(large.memory.started),
        ),
        row(
            "memory when pools have been looked into, of the same",
            Wanted::AtMost(1.0),
            "×",
            memory(large.memory.touched),
        ),
        row(
            "seconds of a start after a stop",
            Wanted::AtMost(3.0),
            " s",
            single(large.clean_start_s),
        ),
        row(
            "seconds of a start after `kill -9`",
            Wanted::AtMost(10.0),
            " s",
            single(large.killed_start_s),
        ),
        row("disk, of the records' bytes", Wanted::AtMost(2.5), "×", disk),
    ]
}
