//! The operator's word on users, as the auditor's tools read it.

use std::{fs, sync::Arc, time::Duration};

use keypool_auditor::invariants::{Auditor, InvariantParams};
use keypool_ledger::{
    Clock, Event, EventEnvelope, EventLog, ManualClock, MemoryLog, PoolId, StreamId,
};
use keypool_projections::{Command, Limits, Remover, RevokeScope, SuspensionChange};
use keypool_server::pools::{Pools, Target};
use tempfile::TempDir;

use crate::{
    histories::exported,
    history::{START, at, envelope, group, package, pool, reference, reservation},
    service::{block_on, register, request, reserve},
    tool::tool_in,
};

/// A log in which the operator has blocked Bob, removed his laptop and withdrawn his last package.
fn blocked_log() -> TempDir {
    let (log, clock) = (Arc::new(MemoryLog::default()), Arc::new(ManualClock::at(START)));
    let shared: Arc<dyn Clock> = clock.clone();
    let pools = Pools::open(Arc::clone(&log), shared, Limits::STANDARD).unwrap();
    let ask = |id: u128, owner: &str, command| {
        clock.advance(Duration::from_secs(1));
        block_on(pools.execute(request(id, Target::Pool(pool(owner)), command))).unwrap()
    };
    let change = |change| block_on(pools.change_suspension(change)).unwrap();
    ask(1, "bob/laptop", register(1, "bob"));
    ask(2, "bob", Command::Upload(vec![package("a"), package("b")]));
    ask(3, "bob", reserve(1, "alice"));
    change(SuspensionChange::Suspend { user: "bob".to_owned(), reason: None });
    change(SuspensionChange::Reinstate { user: "bob".to_owned() });
    let reason = Some("sells \u{202e}spam".to_owned());
    change(SuspensionChange::Suspend { user: "bob".to_owned(), reason });
    ask(4, "bob/laptop", Command::Remove { by: Remover::Operator });
    let reason = keypool_ledger::RevokeReason::Operator;
    let which = RevokeScope::Refs(vec![reference("b")]);
    ask(5, "bob", Command::Revoke { which, reason });
    let dir = TempDir::new().unwrap();
    let records = log.read(1, usize::MAX).unwrap();
    fs::write(dir.path().join("log.export"), exported(&records, 1024)).unwrap();
    dir
}

#[test]
fn the_tools_tell_who_is_blocked_and_what_the_operator_did() {
    let dir = blocked_log();
    let said = |words: &[&str]| {
        let (said, code) = tool_in(dir.path(), words);
        assert_eq!(code, 0, "{words:?}: {said}");
        format!("$ {}\n{said}", words.join(" "))
    };
    let package = reference("b").to_string();
    let told = [
        said(&["log", "log.export", "--event", "user_suspended,user_reinstated"]),
        said(&["log", "log.export", "--event", "device_removed,revoked"]),
        said(&["replay", "log.export"]),
        said(&["replay", "log.export", "--pool", "bob"]),
        said(&["explain", "log.export", "bob", "--at", "5"]),
        said(&["explain", "log.export", "bob", "--at", "6"]),
        said(&["explain", "log.export", "bob", "--at", "8"]),
        said(&["explain", "log.export", "8"]),
        said(&["explain", "log.export", &package]),
        said(&["audit", "log.export"]),
    ];
    insta::assert_snapshot!(told.join("\n"));
}

/// The findings on Bob's suspension if this follows it.
fn found(after: &[(StreamId, Event)]) -> Vec<Vec<u64>> {
    let mut auditor = Auditor::new(InvariantParams::STANDARD);
    let uploaded = (of("bob"), Event::Uploaded(package("a").facts));
    let suspended = Event::UserSuspended { user: "bob".to_owned(), reason: None };
    let all = [uploaded, (StreamId::Server, suspended)].into_iter().chain(after.iter().cloned());
    for (seq, (stream, event)) in (1..).zip(all) {
        let told = EventEnvelope { stream, ..envelope(seq, pool("bob"), event, at(seq)) };
        auditor.see(seq, &told);
    }
    let findings = auditor.finish().into_iter();
    findings.filter(|found| found.rule == "suspension").map(|found| found.events).collect()
}

fn of(name: &str) -> StreamId {
    StreamId::Pool(pool(name))
}

fn reserved_by(holder: PoolId) -> Event {
    Event::Reserved {
        keypackage_ref: reference("a"),
        reservation: reservation(1),
        generation: 1,
        holder,
        group: group("g"),
        deadline: at(70),
    }
}

#[test]
fn an_event_of_a_suspended_user_is_found_until_the_user_is_reinstated() {
    let reinstated = (StreamId::Server, Event::UserReinstated { user: "bob".to_owned() });
    let groups = StreamId::Group(group("g"));
    let posted = Event::Posted { sender: pool("bob/phone"), not_kept: Vec::new() };
    let broken = [
        (of("bob"), reserved_by(pool("alice"))),
        (of("alice"), reserved_by(pool("bob/phone"))),
        (of("bob/new"), Event::Uploaded(package("n").facts)),
        (of("bob"), Event::DeviceRemoved { by_operator: false }),
        (of("bob"), Event::UserBlocked { user: "alice".to_owned() }),
        (groups.clone(), posted.clone()),
        (groups.clone(), Event::GroupMade { creator: pool("bob") }),
    ];
    for event in broken {
        assert_eq!(found(std::slice::from_ref(&event)), [vec![2, 3]], "{event:?}");
        assert_eq!(found(&[reinstated.clone(), event.clone()]), [[0_u64; 0]; 0], "{event:?}");
    }
    let fine = [
        (of("alice"), reserved_by(pool("carol"))),
        (of("bob"), Event::DeviceRemoved { by_operator: true }),
        (of("bob"), Event::NameReleased {}),
        (of("bob"), Event::Expired { keypackage_ref: reference("a") }),
        (of("bobby"), Event::Uploaded(package("n").facts)),
    ];
    for event in fine {
        assert_eq!(found(std::slice::from_ref(&event)), [[0_u64; 0]; 0], "{event:?}");
    }
}
