//! Explanations by the settings that the log records.

use std::{fs, sync::Arc, time::Duration};

use keypool_ledger::{Clock, EventLog, ManualClock, MemoryLog};
use keypool_projections::{Command, Limits};
use keypool_server::pools::{Pools, Target};
use tempfile::TempDir;

use crate::{
    histories::exported,
    history::{START, package, pool},
    service::{block_on, request, reserve},
    tool::tool_in,
};

#[test]
fn the_tool_explains_a_lapse_by_the_grace_that_the_log_records() {
    let (log, clock) = (Arc::new(MemoryLog::default()), Arc::new(ManualClock::at(START)));
    let grace = Duration::from_secs(5);
    let limits = Limits { grace, ..Limits::STANDARD };
    let pools =
        Pools::open(Arc::clone(&log), Arc::clone(&clock) as Arc<dyn Clock>, limits).unwrap();
    let ask = |id: u128, command| {
        block_on(pools.execute(request(id, Target::Pool(pool("bob")), command))).unwrap()
    };
    ask(1, Command::Upload(vec![package("a")]));
    ask(2, reserve(1, "alice"));
    clock.advance(Duration::from_secs(65));
    assert_eq!(block_on(pools.sweep()).unwrap(), 1);
    let records = log.read(1, usize::MAX).unwrap();
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("log.export"), exported(&records, 1024)).unwrap();
    let named = records.iter().find_map(|record| record.envelope.event.keypackage_ref()).unwrap();
    let of = named.to_string();
    let explained =
        |more: &[&str]| tool_in(dir.path(), &[&["explain", "log.export", &of], more].concat());

    let (said, code) = explained(&[]);
    assert!(said.contains("and the grace of 5 s with it"), "{said}");
    let (said, _) = explained(&["--grace-s", "7"]);
    assert!(said.contains("and the grace of 7 s with it"), "a flag overrides the log: {said}");
    assert_eq!(code, 0);
}
