//! How many appends a second the replicated log takes, beside the log on a local disk: for people, not for CI.

use std::{fs, time::Duration};

use keypool_ledger::{Batch, EventLog};
use tempfile::TempDir;

use super::{
    cluster::Cluster,
    support::{batch, join, now, open, pool, uploaded},
};

/// How long each measurement takes.
const TIME: Duration = Duration::from_secs(3);
/// How often all sizes are measured.
const ROUNDS: usize = 3;

/// Appends calls of `group` batches to as many pools for a while, and returns batches a second, and the mean
/// and the longest time of a call in milliseconds.
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn measure(log: &impl EventLog, group: u64, numbers: &mut u64) -> (f64, f64, u64) {
    let (begin, time) = (now(), u64::try_from(TIME.as_millis()).unwrap());
    let (mut calls, mut longest) = (0, 0);
    while now() - begin < time {
        let called = now();
        let decided_at = log.head().unwrap();
        let next = |n: u64| -> Batch {
            *numbers += 1;
            let name = format!("p{n}");
            let version = log.stream_head(&pool(&name)).unwrap().version;
            batch(&name, version, vec![uploaded(*numbers, 100)])
        };
        let batches = (0..group).map(next).collect();
        assert!(log.append(decided_at, batches).iter().all(Result::is_ok));
        calls += 1;
        longest = longest.max(now() - called);
    }
    let millis = (now() - begin) as f64;
    ((calls * group) as f64 * 1000.0 / millis, millis / calls as f64, longest)
}

#[test]
#[ignore = "it measures, for minutes"]
#[expect(clippy::print_stderr, reason = "the figures are read")]
fn nats_rate() {
    let Some(cluster) = Cluster::start(3) else { return };
    let [alone, copy] = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let local = open(alone.path());
    let replicated = join(copy.path(), cluster.connect("rate")).unwrap();
    let mut numbers = 0;
    for round in 1..=ROUNDS {
        for group in [1, 16, 64, 256] {
            let (sled, sled_call, sled_longest) = measure(&local, group, &mut numbers);
            let (nats, nats_call, nats_longest) = measure(&replicated, group, &mut numbers);
            let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
            eprintln!(
                "round {round}, {group} batches a call: local {sled:.0}/s ({sled_call:.2} ms a call, {sled_longest} at most), replicated \
                 {nats:.0}/s ({nats_call:.2} ms, {nats_longest} at most), ratio {:.2}, load {}",
                nats / sled,
                load.split(' ').next().unwrap_or_default()
            );
        }
    }
}
