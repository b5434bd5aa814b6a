//! The machine, the date and the commit of a measurement.

use std::{fs, process::Command};

/// A machine at a moment, and the commit that was measured on it.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    date: String,
    commit: String,
    processors: String,
    system: String,
    disk: String,
    /// How many processes wanted a processor in the minute before: the neighbours.
    load: String,
}

impl Machine {
    /// This one, now.
    pub(crate) fn here(work: &std::path::Path) -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let models: Vec<&str> =
            info.lines().filter(|line| line.starts_with("model name")).collect();
        let model = models.first().and_then(|line| line.split_once(": "));
        let model = model.map_or("an unknown processor", |(_, model)| model);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let path = work.display().to_string();
        let changed =
            said("git", &["status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs"]);
        let changed = if changed.is_empty() { "" } else { " with changes" };
        Self {
            date: said("date", &["-u", "+%F"]),
            commit: format!("{}{changed}", said("git", &["rev-parse", "--short", "HEAD"])),
            processors: format!("{} × {model}", models.len()),
            system: format!("Linux {}", kernel.trim()),
            load: load.split(' ').next().unwrap_or_default().to_owned(),
            disk: said("findmnt", &["-n", "-o", "FSTYPE", "-T", &path]),
        }
    }

    pub(crate) fn text(&self, rounds: usize) -> String {
        let Self { date, commit, processors, system, disk, load } = self;
        format!(
            "{date}, commit {commit}; {processors}, {system}, {disk}; a load average of {load} before it began. The \
             median of {rounds} rounds, with the lowest and the highest."
        )
    }
}

/// The output of a program, without the space around it; nothing if it cannot be run.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.unwrap_or_default().trim().to_owned()
}
