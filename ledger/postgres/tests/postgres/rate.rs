//! How many appends a second the replicated log takes, beside the log on a local disk: for people, not for CI.

use std::fs;

use keypool_ledger::log::conformance::servers::measure_appends;
use tempfile::TempDir;

use super::{
    cluster::Cluster,
    support::{join, open},
};

/// How often all sizes are measured.
const ROUNDS: usize = 3;

#[test]
#[ignore = "it measures, for minutes"]
#[expect(clippy::print_stderr, reason = "the figures are read")]
fn postgres_rate() {
    let Some(cluster) = Cluster::start(3) else { return };
    let [alone, copy, idle] = [(); 3].map(|()| TempDir::new().unwrap());
    let local = open(alone.path());
    let replicated = join(copy.path(), cluster.connect("rate")).unwrap();
    // Another server, which follows, and confirms for itself each frame that it takes in.
    let _follower = join(idle.path(), cluster.connect("rate")).unwrap();
    let mut numbers = 0;
    for round in 1..=ROUNDS {
        for group in [1, 16, 64, 256] {
            let (sled, sled_call, sled_longest) = measure_appends(&local, group, &mut numbers);
            let (rate, call, longest) = measure_appends(&replicated, group, &mut numbers);
            let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
            eprintln!(
                "round {round}, {group} batches a call: local {sled:.0}/s ({sled_call:.2} ms a call, {sled_longest} at most), replicated \
                 {rate:.0}/s ({call:.2} ms, {longest} at most), ratio {:.2}, load {}",
                rate / sled,
                load.split(' ').next().unwrap_or_default()
            );
        }
    }
}
