//! The machine's clock when it is wrong, or seems to be: nothing is lost by it, and there is a way on.

use std::{path::Path, time::Duration};

use keypool_auditor::{
    invariants::{Auditor, InvariantParams},
    source::SourceEnd,
    verify::{Finding, Verifier},
};
use keypool_ledger::{Clock, EventLog, RawRecord, Timestamp};
use keypool_projections::{Command, Rejection};
use keypool_server::pools::{ClockState, ExecuteError, Reply};

use crate::{
    history::{START, at, claim, package, pool, reference},
    service::{Service, block_on, register, reserve, reserved, spend},
};

const DAY: Duration = Duration::from_hours(24);
const DEVICES: [&str; 4] = ["alice", "bob", "carol", "dave"];

/// Four devices, and a package of bob's that lives for 1,000 seconds.
fn service() -> Service {
    let service = Service::new();
    for (number, name) in (1_u8..).zip(DEVICES) {
        service.run(u128::from(number), name, register(number, name)).unwrap();
    }
    service.upload(10, "bob", &["a", "b"]);
    service
}

fn sweep(service: &Service) -> Result<u64, ExecuteError> {
    block_on(service.pools.sweep())
}

fn hear(service: &Service, devices: &[&str], signed: Timestamp) {
    for device in devices {
        service.pools.hear_time(&pool(device), signed);
    }
}

fn is_leapt<T>(outcome: &Result<T, ExecuteError>) -> bool {
    matches!(outcome, Err(ExecuteError::ClockLeapt))
}

/// Reserves with the number's claim and id; each number is good once.
fn bob_is_reserved(service: &Service, number: u8) -> Result<Reply, ExecuteError> {
    service.run(100 + u128::from(number), "bob", reserve(number, "alice"))
}

fn findings(service: &Service) -> Vec<Finding> {
    let (mut verifier, mut auditor) =
        (Verifier::default(), Auditor::new(InvariantParams::STANDARD));
    for record in service.log.read(1, usize::MAX).unwrap() {
        let envelope = verifier.take(&RawRecord {
            seq: record.seq,
            envelope_bytes: &record.envelope_bytes,
            payload: &record.payload,
            file: Path::new("memory"),
            offset: 0,
        });
        auditor.see(record.seq, &envelope.unwrap());
    }
    let mut findings = verifier.finish(Ok(SourceEnd::default())).findings;
    findings.extend(auditor.finish());
    findings
}

#[test]
fn a_leap_ends_nothing_and_is_over_when_the_clock_is_right_again() {
    for (leap, secs) in [(2 * DAY, 1), (2 * DAY, 25), (3650 * DAY, 25), (DAY / 24, 25)] {
        let mut service = service();
        for restarts in [false, true] {
            if restarts && leap == DAY / 24 {
                continue;
            }
            let before = (service.events(), service.clock.now());
            service.clock.set(before.1.after(leap));
            if restarts {
                service = service.restarted();
            }
            for _ in 0..secs {
                service.clock.advance(Duration::from_secs(1));
                assert!(is_leapt(&sweep(&service)));
            }
            assert!(is_leapt(&bob_is_reserved(&service, 1)));
            assert!(matches!(service.pools.clock_state(), ClockState::Leapt { .. }));
            assert_eq!(service.pools.health(&pool("bob")).unwrap().available, 2);
            service.clock.set(before.1.after(Duration::from_secs(secs)));
            assert_eq!(service.pools.clock_state(), ClockState::Fine);
            assert_eq!(sweep(&service).unwrap(), 0);
            assert_eq!(service.events(), before.0);
        }
        bob_is_reserved(&service, 2).unwrap();
    }
}

#[test]
fn after_a_leap_whatever_needs_the_time_is_refused_and_nothing_else() {
    let service = service();
    assert_eq!(reserved(&bob_is_reserved(&service, 1).unwrap()), reference("a"));
    service.clock.set(START.after(2 * DAY));
    let claimed = claim("a", 1, "alice");
    for (id, command) in [
        (20, Command::Upload(vec![package("c")])),
        (21, Command::Renew(claimed.clone())),
        (22, spend("a", 1, "alice")),
        (23, reserve(2, "carol")),
        (26, Command::Report { claim: claimed.clone(), check: None, admissible: false }),
    ] {
        assert!(is_leapt(&service.run(id, "bob", command)), "{id}");
    }
    service.run(24, "bob", Command::Release(claimed)).unwrap();
    service.run(25, "erin", register(9, "erin")).unwrap();
    assert_eq!(service.pools.now(), START);
}

#[test]
fn a_server_that_was_off_for_days_goes_on_when_three_devices_have_said_the_time() {
    let service = service();
    service.clock.advance(3 * DAY);
    let service = service.restarted();
    let now = service.clock.now();
    hear(&service, &DEVICES[..2], now);
    assert!(is_leapt(&sweep(&service)));
    hear(&service, &["carol"], now.before(Duration::from_secs(90)));
    assert_eq!(sweep(&service).unwrap(), 1, "the packages have expired meanwhile");
    assert_eq!(service.pools.clock_state(), ClockState::Fine);
    assert_eq!(service.events()[6..], ["clock_accepted", "expired", "expired"]);
    let service = service.restarted();
    assert_eq!(service.pools.now(), now);
    assert_eq!(findings(&service), []);
}

#[test]
fn devices_that_know_better_keep_a_wrong_clock_from_being_accepted() {
    let service = service();
    service.clock.set(START.after(3650 * DAY));
    assert!(is_leapt(&sweep(&service)));
    hear(&service, &DEVICES, START);
    assert!(is_leapt(&sweep(&service)));
    assert_eq!(service.pools.now(), START);
}

#[test]
fn the_operator_takes_a_log_back_that_had_run_ten_years_ahead() {
    let service = service();
    service.clock.set(START.after(3650 * DAY));
    assert!(block_on(service.pools.accept_clock()).unwrap());
    assert_eq!(sweep(&service).unwrap(), 1);
    service.clock.set(at(60));
    let service = service.restarted();
    let refused = bob_is_reserved(&service, 1);
    assert!(matches!(refused, Err(ExecuteError::ClockRegressed)), "{refused:?}");
    assert!(block_on(service.pools.accept_clock()).unwrap());
    assert!(!block_on(service.pools.accept_clock()).unwrap(), "now it is fine");
    let refused = bob_is_reserved(&service, 2);
    let exhausted = matches!(refused, Err(ExecuteError::Rejected(Rejection::PoolExhausted)));
    assert!(exhausted, "what has expired stays so: {refused:?}");
    service.upload(30, "bob", &["c", "d"]);
    assert_eq!(reserved(&bob_is_reserved(&service, 3).unwrap()), reference("c"));
    let service = service.restarted();
    assert_eq!(service.pools.clock_state(), ClockState::Fine);
    assert_eq!(reserved(&bob_is_reserved(&service, 4).unwrap()), reference("d"));
    assert_eq!(findings(&service), []);
}

#[test]
fn devices_take_a_log_back_as_well() {
    let service = service();
    service.clock.set(START.after(3650 * DAY));
    block_on(service.pools.accept_clock()).unwrap();
    service.clock.set(START);
    // The server notices the regression before it hears the devices.
    let _ = sweep(&service);
    assert!(matches!(service.pools.clock_state(), ClockState::Regressed { .. }));
    hear(&service, &DEVICES, START);
    sweep(&service).unwrap();
    assert_eq!(service.pools.clock_state(), ClockState::Fine);
    service.upload(30, "bob", &["c"]);
    bob_is_reserved(&service, 3).unwrap();
    assert_eq!(findings(&service), []);
}

#[test]
fn time_that_falls_without_an_acceptance_is_a_broken_promise() {
    let service = service();
    let records = service.log.read(1, usize::MAX).unwrap();
    let mut verifier = Verifier::default();
    for (record, at) in records.iter().zip([5, 4, 3, 2, 1, 0]) {
        let mut envelope = record.envelope.clone();
        (envelope.at, envelope.stream) = (at_second(at), records[0].envelope.stream.clone());
        let envelope_bytes = keypool_ledger::codec::encode(&envelope).unwrap();
        let (payload, file) = (&record.payload, Path::new("memory"));
        verifier.take(&RawRecord {
            seq: record.seq,
            envelope_bytes: &envelope_bytes,
            payload,
            file,
            offset: 0,
        });
    }
    let findings = verifier.finish(Ok(SourceEnd::default())).findings;
    assert_eq!(findings.iter().filter(|finding| finding.rule == "clock").count(), 5);
}

fn at_second(second: u64) -> Timestamp {
    Timestamp::from_secs(second)
}

#[test]
fn a_clock_in_1970_hands_nothing_out_and_time_in_the_log_never_falls() {
    let service = service();
    service.clock.set(Timestamp::from_secs(5));
    let refused = bob_is_reserved(&service, 1);
    assert!(matches!(refused, Err(ExecuteError::ClockRegressed)), "{refused:?}");
    service.upload(30, "bob", &["c"]);
    let service = service.restarted();
    assert!(matches!(service.pools.clock_state(), ClockState::Regressed { .. }));
    service.clock.set(START.after(Duration::from_secs(1)));
    bob_is_reserved(&service, 2).unwrap();
    assert_eq!(findings(&service), []);
}

#[test]
fn a_server_where_nobody_looked_for_days_has_no_leap() {
    let service = service();
    service.clock.advance(3 * DAY);
    assert_eq!(sweep(&service).unwrap(), 1);
    assert_eq!(service.pools.clock_state(), ClockState::Fine);
}

/// Sets the clock to so many seconds after the start, and accepts it by the operator's word.
fn accept(service: &Service, second: u64) {
    service.clock.set(at(second));
    assert!(block_on(service.pools.accept_clock()).unwrap());
}

#[test]
fn a_repeated_upload_tells_how_full_the_pool_was_though_the_clock_was_set_back_since() {
    let service = service();
    bob_is_reserved(&service, 1).unwrap();
    accept(&service, 600);
    let first = service.upload(20, "bob", &["c"]);
    assert_eq!(first.health().reserved, 1, "a clock that was accepted gives a full TTL again");
    accept(&service, 0);
    let again = service.upload(20, "bob", &["c"]);
    assert!(again.repeated);
    assert_eq!(again, first);
    assert_eq!(again.health().reserved, 1);
}

#[test]
fn spends_before_and_after_the_clock_was_set_back_are_counted_alike_after_a_restart() {
    let service = service();
    accept(&service, 600);
    let spend_one = |number: u8| {
        let reply = bob_is_reserved(&service, number).unwrap();
        let name = if reserved(&reply) == reference("a") { "a" } else { "b" };
        let command = spend(name, number, "alice");
        service.run(200 + u128::from(number), "bob", command).unwrap();
    };
    spend_one(1);
    accept(&service, 0);
    spend_one(2);
    let before = service.pools.pool(&pool("bob")).unwrap();
    service.pools.pack_all();
    let packed = service.pools.pool(&pool("bob")).unwrap();
    assert!(packed.state == before.state, "{:?} was {:?}", packed.state, before.state);
    assert_eq!(packed.state.spent_since_yesterday(at(0)), 2);
}
