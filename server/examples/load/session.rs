//! One subject from its start to its end, and what is measured in between.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    Outcome, client,
    image::{self, Contents},
    measure::{approx, percentile},
    packages::Packages,
    population::Device,
    request::Auth,
    subject::{Running, Subject},
    workload::{Cell, Stock, contents},
};

/// How long one measurement takes at most.
const TIME_MAX: Duration = Duration::from_millis(1500);

/// What one measurement has found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    /// Operations in a second.
    pub(crate) throughput: f64,
    /// How long half of them took at most, in milliseconds.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    /// How many processors the subject, with its database, was busy on.
    pub(crate) subject_cpu: f64,
    /// How many processors the load was busy on.
    pub(crate) client_cpu: f64,
    /// How many bytes the subject had written for each operation.
    pub(crate) written: f64,
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
    pub(crate) fn set(work: &Path, cells: Vec<Cell>) -> Outcome<Self> {
        let contents = contents(&cells);
        let image = work.join("image");
        image::write(&image, contents)?;
        // The first start makes the database.
        Running::start(Subject::Keypool, Auth::Signed, &image, contents)?.stop()?;
        let devices = (0..contents.devices).map(Device::new).collect::<Outcome<_>>()?;
        let packages = Packages::default();
        Ok(Self { work: work.to_owned(), cells, contents, devices, packages })
    }

    /// Runs a subject from its start to its end, and measures those of the measurements that are wanted.
    pub(crate) async fn play(
        &mut self,
        subject: Subject,
        auth: Auth,
        wanted: impl Fn(&Cell) -> bool,
    ) -> Outcome<Vec<(Cell, Figures)>> {
        let dir = self.work.join("run");
        if subject == Subject::Keypool {
            image::copy(&self.work.join("image"), &dir)?;
        }
        let running = Running::start(subject, auth, &dir, self.contents)?;
        let mut stock = Stock::new(self.contents, &self.devices, &mut self.packages);
        let mut found = Vec::new();
        for cell in &self.cells {
            if wanted(cell) {
                let scripts = stock.scripts(*cell, auth, subject.keeps_packages())?;
                found.push((*cell, measure(&running, scripts).await?));
            } else {
                stock.pass(*cell);
            }
        }
        running.stop()?;
        fs::remove_dir_all(&dir)?;
        Ok(found)
    }
}

/// Runs scripts against a subject, and says what that took.
pub(crate) async fn measure(
    running: &Running,
    scripts: Vec<Vec<client::Operation>>,
) -> Outcome<Figures> {
    let own = std::process::id();
    let before = (running.usage()?, crate::measure::Usage::of_one(own)?);
    let taken = client::run(running.address, scripts, TIME_MAX).await?;
    let after = (running.usage()?, crate::measure::Usage::of_one(own)?);
    let seconds = taken.elapsed.as_secs_f64();
    let mut latencies = taken.latencies_ns;
    latencies.sort_unstable();
    let ms = |thousandths| approx(percentile(&latencies, thousandths)) / 1e6;
    let count = approx(latencies.len() as u64);
    Ok(Figures {
        throughput: count / seconds,
        p50_ms: ms(500),
        p99_ms: ms(990),
        p999_ms: ms(999),
        subject_cpu: after.0.since(before.0).processors(seconds),
        client_cpu: after.1.since(before.1).processors(seconds),
        written: approx(after.0.since(before.0).written) / count,
    })
}
