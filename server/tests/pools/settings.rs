//! The settings that rules depend on stand in the log, and an audit reads them there.

use std::{sync::Arc, time::Duration};

use keypool_auditor::invariants::{Auditor, InvariantParams, Overrides};
use keypool_ledger::{Clock, EventLog, ManualClock, MemoryLog};
use keypool_projections::{Command, Limits, OnLapse};
use keypool_server::pools::{Pools, Target};

use crate::{
    history::{START, package, pool},
    service::{block_on, open_kept, request, reserve},
};

type Log = Arc<MemoryLog>;

fn open(log: &Log, clock: &Arc<ManualClock>, limits: Limits) -> Pools<Log> {
    open_kept(log, Arc::clone(clock) as Arc<dyn Clock>, limits)
}

fn names(log: &Log) -> Vec<&'static str> {
    let records = log.read(1, usize::MAX).unwrap();
    records.iter().map(|record| record.envelope.event.name()).collect()
}

fn rules_broken(log: &Log, overrides: Overrides) -> Vec<&'static str> {
    let mut auditor = Auditor::new(InvariantParams::STANDARD).overriding(overrides);
    for record in log.read(1, usize::MAX).unwrap() {
        auditor.see(record.seq, &record.envelope);
    }
    auditor.finish().into_iter().map(|finding| finding.rule).collect()
}

#[test]
fn settings_are_recorded_when_they_change_and_not_otherwise() {
    let (log, clock) = (Log::default(), Arc::new(ManualClock::at(START)));
    let other = Limits { grace: Duration::from_secs(5), ..Limits::STANDARD };
    drop(open(&log, &clock, Limits::STANDARD));
    assert_eq!(names(&log), [""; 0], "a log without any was written with the defaults");
    drop(open(&log, &clock, other));
    drop(open(&log, &clock, other));
    assert_eq!(names(&log), ["configured"]);
    drop(open(&log, &clock, Limits::STANDARD));
    assert_eq!(names(&log), ["configured", "configured"]);
}

#[test]
fn an_honest_server_with_other_settings_is_not_accused() {
    let (log, clock) = (Log::default(), Arc::new(ManualClock::at(START)));
    let grace = Duration::from_secs(5);
    let limits = Limits { grace, on_lapse: OnLapse::Retire, ..Limits::STANDARD };
    let pools = open(&log, &clock, limits);
    let ask = |id: u128, command| {
        block_on(pools.execute(request(id, Target::Pool(pool("bob")), command))).unwrap()
    };
    ask(1, Command::Upload(vec![package("a")]));
    ask(2, reserve(1, "alice"));
    clock.advance(Duration::from_secs(65));
    assert_eq!(block_on(pools.sweep()).unwrap(), 1);
    assert_eq!(names(&log), ["configured", "uploaded", "reserved", "released", "revoked"]);
    assert_eq!(rules_broken(&log, Overrides::default()), [""; 0]);
    let stricter = Overrides { grace: Some(Duration::from_mins(1)), lapses_max: Some(2) };
    assert_eq!(rules_broken(&log, stricter), ["lapse", "lapse"], "flags override the log");
}
