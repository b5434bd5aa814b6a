//! The costs of a run: percentiles, and the figures of processes in `/proc`.

use std::{collections::HashMap, fs, path::Path};

use crate::Outcome;

/// How many nanoseconds a processor has in a second.
const NANOS: f64 = 1e9;

/// The resources that a process and its children have used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Processor time, in nanoseconds.
    pub(crate) cpu_ns: u64,
}

impl Usage {
    /// Reads the usage of a process, and of the processes it has started.
    pub(crate) fn of(pid: u32) -> Outcome<Self> {
        let cpu_ns = family(pid)?.into_iter().map(|pid| cpu_ns(pid).unwrap_or_default()).sum();
        Ok(Self { cpu_ns })
    }

    /// Reads the usage of this process alone.
    pub(crate) fn own() -> Outcome<Self> {
        Ok(Self { cpu_ns: cpu_ns(std::process::id())? })
    }

    /// The usage since an earlier look.
    pub(crate) const fn since(self, earlier: Self) -> Self {
        Self { cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns) }
    }

    /// Both together.
    pub(crate) const fn and(self, other: Self) -> Self {
        Self { cpu_ns: self.cpu_ns + other.cpu_ns }
    }

    /// How many processors were busy with it during so many seconds.
    pub(crate) fn processors(self, seconds: f64) -> f64 {
        approx(self.cpu_ns) / NANOS / seconds
    }
}

/// The bytes written so far to the disk that holds a directory, by the whole machine; `None` where Linux
/// does not say.
///
/// The count of Linux for a process (`write_bytes` in `/proc/PID/io`) is no measure of it: where files are
/// cached in large pieces, a piece counts as written whole whenever one byte in it is.
pub(crate) fn disk_written(dir: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    let device = fs::metadata(dir).ok()?.dev();
    let major = (device >> 8) & 0xfff;
    let minor = (device & 0xff) | ((device >> 12) & 0xf_ff00);
    let stats = fs::read_to_string("/proc/diskstats").ok()?;
    let fields = stats.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let (major, minor) = (major.to_string(), minor.to_string());
    let mut fields = fields.filter(|fields| fields.starts_with(&[&major, &minor]));
    let sectors: u64 = fields.next()?.get(9)?.parse().ok()?;
    Some(sectors * 512)
}

/// The processor time of a process's threads that are there, in nanoseconds.
///
/// `/proc/PID/stat` has the threads that have ended as well, but counts in hundredths of a second, and a
/// run is short. No subject ends threads while it is measured.
fn cpu_ns(pid: u32) -> Outcome<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        let ran = text.split(' ').next().and_then(|ran| ran.parse::<u64>().ok());
        sum += ran.unwrap_or_default();
    }
    Ok(sum)
}

/// A process and all it has started.
fn family(pid: u32) -> Outcome<Vec<u32>> {
    let mut parents = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
        parents.insert(pid, parent.and_then(|parent| parent.parse::<u32>().ok()).unwrap_or(0));
    }
    let mut all = vec![pid];
    let mut looked = 0;
    while let Some(parent) = all.get(looked).copied() {
        all.extend(parents.iter().filter(|(_, of)| **of == parent).map(|(child, _)| *child));
        looked += 1;
    }
    Ok(all)
}

/// The memory of a process that is in use now, in bytes.
pub(crate) fn resident(pid: u32) -> Outcome<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = field(&status, "VmRSS:").ok_or("the process has ended")?;
    Ok(kib * 1024)
}

/// The space that a directory takes on the disk, in bytes.
pub(crate) fn on_disk(path: &Path) -> Outcome<u64> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::symlink_metadata(path)?;
    let mut bytes = metadata.blocks() * 512;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            bytes += on_disk(&entry?.path())?;
        }
    }
    Ok(bytes)
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// The value below which so many thousandths of sorted values lie.
pub(crate) fn percentile(sorted: &[u64], thousandths: usize) -> u64 {
    let rank = (sorted.len() * thousandths).div_ceil(1000);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// The middle one of some values, and the least and the greatest.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// `None` if there are none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let median = *values.get(values.len() / 2)?;
        Some(Self { median, least: *values.first()?, most: *values.last()? })
    }
}

/// A count as a number to reckon with.
#[expect(clippy::cast_precision_loss, reason = "figures are rounded to a few digits in the end")]
pub(crate) const fn approx(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_least_value_that_so_many_do_not_exceed() {
        let hundred: Vec<u64> = (1..=100).collect();
        let of = |thousandths| percentile(&hundred, thousandths);
        assert_eq!([10, 500, 990, 999, 1000].map(of), [1, 50, 99, 100, 100]);
        assert_eq!([500, 999].map(|part| percentile(&[7], part)), [7, 7]);
        assert_eq!(percentile(&[], 500), 0);
    }

    #[test]
    fn the_median_does_not_follow_an_outlier() {
        let found = Spread::of([3.0, 900.0, 1.0, 2.0, 4.0]);
        assert_eq!(found, Some(Spread { median: 3.0, least: 1.0, most: 900.0 }));
        assert_eq!(Spread::of([]), None);
    }
}
