//! How many appends a second the replicated log takes, beside the log on a local disk: for people, not for CI.

use keypool_ledger::log::conformance::servers::measure_beside;
use tempfile::TempDir;

use super::{
    cluster::Cluster,
    support::{join, open},
};

#[test]
#[ignore = "it measures, for minutes"]
#[expect(clippy::print_stderr, reason = "the figures are read")]
fn nats_rate() {
    let Some(cluster) = Cluster::start(3) else { return };
    let [alone, copy] = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let replicated = join(copy.path(), cluster.connect("rate")).unwrap();
    measure_beside(&open(alone.path()), &replicated, |line| eprintln!("{line}"));
}
