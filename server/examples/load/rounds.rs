//! The rounds: everything is measured in turn, again and again, so that the load of the machine's
//! neighbours falls on all alike.

use std::{collections::HashMap, io::Write, path::Path};

use crate::{
    Outcome,
    baseline::Kind,
    ceiling::{admissions, fdatasync_ms},
    measure::Spread,
    population::Device,
    request::Auth,
    session::{Figures, Stage},
    subject::Subject,
    workload::{Cell, Workload},
};

/// How many connections ask at a time.
pub(crate) const CONCURRENCIES: [usize; 4] = [1, 16, 64, 256];
/// Whose packages are admitted where nothing else is done.
const ADMITTED: u64 = 0;

/// Which measurement a figure is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) subject: Subject,
    pub(crate) auth: Auth,
    pub(crate) workload: Workload,
    pub(crate) concurrency: usize,
}

/// The results of one round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Round {
    pub(crate) figures: HashMap<Key, Figures>,
    /// How long an `fdatasync` took, right before the subjects were asked in this way.
    pub(crate) fdatasync_ms: HashMap<Auth, f64>,
    /// Packages in a second.
    pub(crate) admissions: f64,
}

impl Round {
    pub(crate) fn of(&self, key: Key) -> Option<&Figures> {
        self.figures.get(&key)
    }
}

/// A figure of all rounds together.
pub(crate) fn spread(rounds: &[Round], figure: impl Fn(&Round) -> Option<f64>) -> Option<Spread> {
    Spread::of(rounds.iter().filter_map(figure))
}

/// All measurements of one round, in their order. `share` is how many of the usual number of operations
/// each has.
pub(crate) fn cells(share: f64) -> Vec<Cell> {
    let mut cells = Vec::new();
    for workload in Workload::ALL {
        for (concurrency, usual) in CONCURRENCIES.into_iter().zip(operations(workload)) {
            let operations = some(usual, share).max(concurrency);
            cells.push(Cell { workload, concurrency, operations });
        }
    }
    cells
}

#[expect(clippy::cast_possible_truncation, reason = "some thousands")]
#[expect(clippy::cast_sign_loss, reason = "both are positive")]
fn some(usual: u32, share: f64) -> usize {
    (f64::from(usual) * share) as usize
}

/// How many operations a workload has, for each of [`CONCURRENCIES`].
const fn operations(workload: Workload) -> [u32; 4] {
    match workload {
        Workload::Reserve => [1000, 4000, 8000, 8000],
        Workload::Pair => [500, 2000, 4000, 4000],
        Workload::Upload => [24, 64, 128, 256],
        // These are asked again and again.
        Workload::Status => [16, 64, 256, 512],
        Workload::Mix => [600, 2000, 4000, 4000],
    }
}

/// Whether something is measured: the server all over, the others where they say something about it.
fn wanted(subject: Subject, auth: Auth, cell: &Cell) -> bool {
    let kind = match subject {
        Subject::Keypool => return true,
        Subject::Cluster => return cell.workload == Workload::Reserve,
        Subject::Baseline(kind) => kind,
    };
    match (cell.workload, auth) {
        (Workload::Reserve, Auth::Named) => true,
        (Workload::Reserve, Auth::Signed) => match kind {
            Kind::Echo | Kind::FsyncFile => [1, 64].contains(&cell.concurrency),
            Kind::Sqlite | Kind::Postgres | Kind::Redis => cell.concurrency == 64,
        },
        (Workload::Pair, _) => cell.concurrency == 64,
        (Workload::Status, _) => kind == Kind::Echo,
        (Workload::Upload | Workload::Mix, _) => false,
    }
}

/// Measures everything once, and tells its progress on `out`.
pub(crate) async fn round(
    stage: &mut Stage,
    subjects: &[Subject],
    work: &Path,
    out: &mut impl Write,
) -> Outcome<Round> {
    let mut round = Round { admissions: admissions(&Device::new(ADMITTED)?)?, ..Round::default() };
    for auth in [Auth::Named, Auth::Signed] {
        round.fdatasync_ms.insert(auth, fdatasync_ms(work)?);
        for subject in subjects.iter().copied() {
            if !stage.cells().iter().any(|cell| wanted(subject, auth, cell)) {
                continue;
            }
            write!(out, " {}", subject.name())?;
            out.flush()?;
            for (cell, figures) in
                stage.play(subject, auth, |cell| wanted(subject, auth, cell)).await?
            {
                let Cell { workload, concurrency, .. } = cell;
                round.figures.insert(Key { subject, auth, workload, concurrency }, figures);
            }
        }
    }
    writeln!(out)?;
    Ok(round)
}
