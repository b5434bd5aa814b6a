//! One subject from its start to its end, and the measurements in between.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    Outcome,
    client::{self, Operation, Until},
    cluster::SERVERS,
    image::{self, Contents},
    measure::{Usage, approx, disk_written, percentile},
    packages::Packages,
    population::Device,
    request::Auth,
    subject::{Running, Subject},
    workload::{Cell, Stock, Workload, contents},
};

/// How long one measurement takes at most.
const TIME_MAX: Duration = Duration::from_secs(1);
/// How long one takes whose requests may be repeated.
const TIME_AGAIN: Duration = Duration::from_millis(700);
/// The thousandths of the operations whose time is noted.
pub(crate) const PARTS: [usize; 9] = [10, 100, 250, 500, 750, 900, 950, 990, 999];

/// The result of one measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    /// Operations in a second.
    pub(crate) throughput: f64,
    /// How long each of [`PARTS`] took at most, in milliseconds.
    pub(crate) latency_ms: [f64; PARTS.len()],
    /// How many processors the subject, with its database, was busy on.
    pub(crate) subject_cpu: f64,
    /// How many processors the load was busy on.
    pub(crate) client_cpu: f64,
    /// How many bytes the whole machine wrote to the disk meanwhile, for each operation.
    pub(crate) written: Option<f64>,
    /// How many answers were `busy`.
    pub(crate) busy: f64,
}

impl Figures {
    pub(crate) const fn p50_ms(&self) -> f64 {
        let [_, _, _, p50, ..] = self.latency_ms;
        p50
    }

    pub(crate) const fn p99_ms(&self) -> f64 {
        let [.., p99, _] = self.latency_ms;
        p99
    }

    pub(crate) const fn p999_ms(&self) -> f64 {
        let [.., p999] = self.latency_ms;
        p999
    }
}

/// Everything that is made once, for all rounds.
pub(crate) struct Stage {
    work: PathBuf,
    cells: Vec<Cell>,
    contents: Contents,
    devices: Vec<Device>,
    packages: Packages,
}

impl Stage {
    /// Makes the data directory that all rounds begin with, for these measurements.
    pub(crate) fn set(work: &Path, cells: Vec<Cell>, hides_names: bool) -> Outcome<Self> {
        let contents = contents(&cells);
        let image = work.join("image");
        image::write(&image, contents, hides_names)?;
        // The first start makes the database.
        Running::start(Subject::Keypool, Auth::Signed, &image, contents)?.stop()?;
        let devices = (0..contents.devices).map(Device::new).collect::<Outcome<_>>()?;
        let packages = Packages::default();
        Ok(Self { work: work.to_owned(), cells, contents, devices, packages })
    }

    /// The cells that can be measured.
    pub(crate) fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// Runs a subject from its start to its end, and measures those of the measurements that are wanted.
    pub(crate) async fn play(
        &mut self,
        subject: Subject,
        auth: Auth,
        wanted: impl Fn(&Cell) -> bool,
    ) -> Outcome<Vec<(Cell, Figures)>> {
        let dir = self.work.join("run");
        match subject {
            Subject::Keypool => image::copy(&self.work.join("image"), &dir)?,
            Subject::Cluster => {
                fs::create_dir(&dir)?;
                for number in 0..SERVERS {
                    image::copy(&self.work.join("image"), &dir.join(number.to_string()))?;
                }
            }
            Subject::Baseline(_) => {}
        }
        let running = Running::start(subject, auth, &dir, self.contents)?;
        let mut stock = Stock::new(self.contents, &self.devices, &mut self.packages);
        let mut found = Vec::new();
        for cell in &self.cells {
            if wanted(cell) {
                let scripts = stock.scripts(*cell, auth, subject.keeps_packages())?;
                // What changes nothing can be asked again.
                let again = !subject.keeps_packages() || cell.workload == Workload::Status;
                let until = if again { Until::Time(TIME_AGAIN) } else { Until::Through(TIME_MAX) };
                found.push((*cell, measure(&running, scripts, until, &self.work).await?));
            } else {
                stock.pass(*cell);
            }
        }
        running.stop()?;
        fs::remove_dir_all(&dir)?;
        Ok(found)
    }
}

/// Runs scripts against a subject, and returns their costs.
pub(crate) async fn measure(
    running: &Running,
    scripts: Vec<Vec<Operation>>,
    until: Until,
    work: &Path,
) -> Outcome<Figures> {
    let before = (running.usage()?, Usage::own()?, disk_written(work));
    let taken = client::run(&running.addresses, scripts, until).await?;
    let after = (running.usage()?, Usage::own()?, disk_written(work));
    let seconds = taken.elapsed.as_secs_f64();
    let mut latencies = taken.latencies_ns;
    latencies.sort_unstable();
    let count = approx(latencies.len() as u64);
    let written = after.2.zip(before.2).map(|(after, before)| after.saturating_sub(before));
    Ok(Figures {
        throughput: count / seconds,
        latency_ms: PARTS.map(|part| approx(percentile(&latencies, part)) / 1e6),
        subject_cpu: after.0.since(before.0).processors(seconds),
        client_cpu: after.1.since(before.1).processors(seconds),
        written: written.map(|bytes| approx(bytes) / count),
        busy: approx(taken.busy),
    })
}
