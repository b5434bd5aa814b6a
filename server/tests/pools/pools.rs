//! The shell around the rules: one thread that writes, many that ask, and answers that last.

use std::{
    collections::BTreeSet,
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

use keypool_ledger::{
    Clock, CommandId, Event, EventLog, Hash, ManualClock, MemoryLog, PoolId, RevokeReason,
    SignatureKey, StreamId, log::append_at_head,
};
use keypool_projections::{Answer, Command, Limits, OnLapse, Rejection, RevokeScope};
use keypool_server::pools::{ExecuteError, Pools, ReplayError, Reply, Target};
use uuid::Uuid;

use crate::{
    history::{START, claim, package, pool, reference},
    service::{
        Service, block_on, open_kept, register, request, reserve, reserved, spend, statement,
    },
};

#[test]
fn sixty_four_inviters_share_thirty_two_packages() {
    let service = Service::new();
    let names: Vec<String> = (0..32).map(|n| format!("package {n}")).collect();
    service.upload(1, "bob", &names.iter().map(String::as_str).collect::<Vec<_>>());
    let start = Arc::new(Barrier::new(64));
    let inviters: Vec<_> = (0..64u8)
        .map(|n| {
            let (pools, start) = (Arc::clone(&service.pools), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                let target = Target::Pool(pool("bob"));
                let command = reserve(n, &format!("inviter{n}"));
                block_on(pools.execute(request(100 + u128::from(n), target, command)))
            })
        })
        .collect();
    let outcomes: Vec<_> = inviters.into_iter().map(|thread| thread.join().unwrap()).collect();

    let got: BTreeSet<_> = outcomes.iter().flatten().map(reserved).collect();
    let exhausted = |outcome: &&Result<Reply, ExecuteError>| {
        matches!(outcome, Err(ExecuteError::Rejected(Rejection::PoolExhausted)))
    };
    assert_eq!(got.len(), 32);
    assert_eq!(outcomes.iter().filter(exhausted).count(), 32);
}

#[test]
fn one_reservation_sent_sixteen_times_at_once_holds_one_package() {
    let service = Service::new();
    service.upload(1, "bob/phone", &["a", "b"]);
    service.upload(2, "bob/laptop", &["c", "d"]);
    let start = Arc::new(Barrier::new(16));
    let askers: Vec<_> = (0..16u128)
        .map(|n| {
            let (service, start) = (service.clone(), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                service.reserve_of_user(100 + n, "bob", (7, "alice", &[])).unwrap()
            })
        })
        .collect();
    let got: BTreeSet<_> =
        askers.into_iter().map(|thread| thread.join().unwrap().facts.keypackage_ref).collect();

    assert_eq!(got.len(), 1);
    assert_eq!(service.events().iter().filter(|name| **name == "reserved").count(), 1);
}

#[test]
fn a_repeated_request_gets_its_old_answer_also_after_a_restart_and_much_else() {
    let service = Service::new();
    let upload = service.upload(1, "bob", &["a", "b", "a"]);
    let reserve_a = service.run(2, "bob", reserve(7, "alice")).unwrap();
    let renew = service.run(3, "bob", Command::Renew(claim("a", 7, "alice"))).unwrap();
    let spent = service.run(4, "bob", spend("a", 7, "alice")).unwrap();
    let reserve_b = service.run(5, "bob", reserve(8, "carol")).unwrap();
    let release = service.run(6, "bob", Command::Release(claim("b", 8, "carol"))).unwrap();
    let recorded = service.events();
    service.clock.advance(Duration::from_secs(500));
    let service = service.restarted();

    assert_eq!(service.upload(1, "bob", &["a", "b", "a"]), upload);
    assert_eq!(service.run(2, "bob", reserve(7, "alice")).unwrap(), reserve_a);
    assert_eq!(service.run(3, "bob", Command::Renew(claim("a", 7, "alice"))).unwrap(), renew);
    assert_eq!(service.run(4, "bob", spend("a", 7, "alice")).unwrap(), spent);
    assert_eq!(service.run(5, "bob", reserve(8, "carol")).unwrap(), reserve_b);
    assert_eq!(service.run(6, "bob", Command::Release(claim("b", 8, "carol"))).unwrap(), release);
    assert_eq!(service.events(), recorded);
}

#[test]
fn a_request_repeated_by_many_at_once_keeps_no_other_waiting() {
    let service = Service::new();
    service.upload(1, "bob", &["a", "b"]);
    service.upload(2, "dave", &["c"]);
    let which = RevokeScope::Refs(vec![reference("a")]);
    let revoke = || Command::Revoke { which: which.clone(), reason: RevokeReason::Withdrawn };
    let first = service.run(3, "bob", revoke()).unwrap();
    let recorded = service.events();
    let repeats = thread::scope(|scope| {
        let repeat = || service.run(3, "bob", revoke());
        let all: Vec<_> = (0..64).map(|_| scope.spawn(repeat)).collect();
        service.run(4, "dave", reserve(7, "alice")).unwrap();
        all.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
    });
    let answered = repeats.iter().flatten().inspect(|reply| assert_eq!(**reply, first));
    assert!(1 <= answered.count());
    let is_right =
        |outcome: &Result<Reply, ExecuteError>| matches!(outcome, Ok(_) | Err(ExecuteError::Busy));
    assert!(repeats.iter().all(is_right), "{repeats:?}");
    assert_eq!(service.events().len(), recorded.len() + 1);
    assert_eq!(service.run(3, "bob", revoke()).unwrap(), first, "no place is lost");
}

#[test]
fn an_idempotency_key_belongs_to_one_request() {
    let service = Service::new();
    service.upload(1, "bob", &["a", "b"]);
    let refused = service.run(1, "bob", reserve(7, "alice"));
    assert!(matches!(refused, Err(ExecuteError::IdempotencyMismatch(_))), "{refused:?}");
}

#[test]
fn a_reservation_id_belongs_to_one_pool() {
    let service = Service::new();
    service.upload(1, "bob", &["a"]);
    service.upload(2, "dave", &["b"]);
    service.run(3, "bob", reserve(7, "alice")).unwrap();
    let refused = service.run(4, "dave", reserve(7, "alice"));
    assert!(
        matches!(refused, Err(ExecuteError::Rejected(Rejection::ReservationMismatch(_)))),
        "{refused:?}"
    );
    let refused = service.reserve_of_user(5, "dave", (7, "alice", &[]));
    assert!(
        matches!(refused, Err(ExecuteError::Rejected(Rejection::ReservationMismatch(_)))),
        "{refused:?}"
    );
}

#[test]
fn a_user_is_reached_on_a_device_that_has_a_package_left() {
    let service = Service::new();
    service.upload(1, "bob/laptop", &["a"]);
    service.upload(2, "bob/phone", &["b", "c2"]);
    let ask = |id: u128, number: u8, holder: &str, ciphersuites: Vec<u16>| {
        let asked = (number, holder, ciphersuites.as_slice());
        service.reserve_of_user(id, "bob", asked).map(|reserved| reserved.pool)
    };
    assert_eq!(ask(10, 1, "alice", vec![2]).unwrap(), pool("bob/phone"));
    assert_eq!(ask(11, 2, "bob/laptop", vec![]).unwrap(), pool("bob/phone"));
    assert_eq!(ask(12, 3, "alice", vec![]).unwrap(), pool("bob/laptop"));
    let refused = ask(13, 4, "alice", vec![]).unwrap_err();
    assert!(matches!(refused, ExecuteError::Rejected(Rejection::PoolExhausted)), "{refused:?}");
    let refused = service.run(14, "bob/phone", reserve(5, "bob/phone")).unwrap_err();
    assert!(matches!(refused, ExecuteError::Rejected(Rejection::OwnPool)), "{refused:?}");
    let refused = service.reserve_of_user(15, "nobody", (6, "alice", &[]));
    assert!(
        matches!(refused, Err(ExecuteError::Rejected(Rejection::UnknownUser(_)))),
        "{refused:?}"
    );
}

#[test]
fn the_first_key_has_the_name_and_a_key_has_one_name() {
    let service = Service::new();
    let answer = |id: u128, target: &str, key: u8| {
        service.run(id, target, register(key, "x")).map(|reply| reply.answer)
    };
    assert_eq!(answer(1, "alice", 1).unwrap(), Answer::Registered { known: false });
    assert_eq!(answer(2, "alice", 1).unwrap(), Answer::Registered { known: true });
    for (id, target, key) in [(3, "alice", 2), (4, "alice/phone", 3), (5, "bob", 1)] {
        let refused = answer(id, target, key);
        assert!(
            matches!(refused, Err(ExecuteError::Rejected(Rejection::IdentityBound))),
            "{target} {key}: {refused:?}"
        );
    }
    assert_eq!(answer(6, "bob", 4).unwrap(), Answer::Registered { known: false });
    let key = SignatureKey::new(&[4; 32]).unwrap();
    assert_eq!(service.pools.pool_of_key(&key), Some(pool("bob")));
    assert_eq!(service.restarted().pools.pool_of_key(&key), Some(pool("bob")));
}

#[test]
fn a_key_is_followed_by_another_and_all_live_packages_go_with_it() {
    let service = Service::new();
    let key = |n: u8| SignatureKey::new(&[n; 32]).unwrap();
    let rotate = |previous: u8, next: u8| Command::Rotate {
        statement: statement(&service, "alice", previous),
        signature_key: key(next),
        credential: "alice".to_owned(),
    };
    let refused = |outcome: Result<Reply, ExecuteError>| {
        matches!(outcome, Err(ExecuteError::Rejected(Rejection::IdentityBound)))
    };
    assert!(refused(service.run(1, "alice", rotate(1, 2))), "nobody is registered");
    service.run(2, "alice", register(1, "alice")).unwrap();
    service.run(3, "bob", register(9, "bob")).unwrap();
    assert!(refused(service.run(4, "alice", rotate(2, 3))), "not the key there is");
    assert!(refused(service.run(5, "alice", rotate(1, 9))), "the key of somebody else");
    let first = rotate(1, 2);
    let rotated = service.run(6, "alice", first.clone()).unwrap();
    assert_eq!(rotated.answer, Answer::Registered { known: false });
    assert_eq!(service.run(6, "alice", first).unwrap(), rotated, "repeated");
    let again = service.run(7, "alice", rotate(1, 2)).unwrap();
    assert_eq!(again.answer, Answer::Registered { known: true });
    let whose = |service: &Service| [1, 2].map(|n| service.pools.pool_of_key(&key(n)));
    assert_eq!(whose(&service), [None, Some(pool("alice"))]);
    assert_eq!(whose(&service.restarted()), [None, Some(pool("alice"))]);
}

#[test]
fn two_keys_that_race_for_a_name_do_not_both_get_it() {
    let service = Service::new();
    let start = Arc::new(Barrier::new(8));
    let racers: Vec<_> = (0..8u8)
        .map(|n| {
            let (pools, start) = (Arc::clone(&service.pools), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                let target = Target::Pool(pool(&format!("alice/device{n}")));
                let command = register(n + 1, "alice");
                block_on(pools.execute(request(u128::from(n) + 1, target, command))).is_ok()
            })
        })
        .collect();
    let won = racers.into_iter().filter(|_| true).map(|t| t.join().unwrap()).filter(|won| *won);
    assert_eq!(won.count(), 1);
}

#[test]
fn a_reader_appends_nothing_and_agrees_with_the_next_reservation() {
    let service = Service::new();
    service.upload(1, "bob", &["a"]);
    service.run(2, "bob", reserve(7, "alice")).unwrap();
    let available = || service.pools.health(&pool("bob")).unwrap().available;
    assert_eq!(available(), 0);
    service.clock.advance(Duration::from_mins(2));
    assert_eq!(available(), 1);
    assert_eq!(service.events(), ["uploaded", "reserved"]);
    let again = service.run(3, "bob", reserve(8, "carol")).unwrap();
    assert_eq!(reserved(&again), reference("a"));
}

#[test]
fn the_sweep_records_what_time_has_done_once() {
    let service = Service::new();
    service.upload(1, "bob", &["a", "b"]);
    service.run(2, "bob", reserve(7, "alice")).unwrap();
    let sweep = || block_on(service.pools.sweep());
    assert_eq!(sweep().unwrap(), 0);
    service.clock.advance(Duration::from_secs(130));
    assert_eq!(sweep().unwrap(), 1);
    assert_eq!(sweep().unwrap(), 0);
    service.clock.advance(Duration::from_secs(870));
    assert_eq!(sweep().unwrap(), 1);
    assert_eq!(
        service.events(),
        ["uploaded", "uploaded", "reserved", "released", "expired", "expired"]
    );
}

#[test]
fn a_restart_gives_open_reservations_a_full_ttl_again() {
    let service = Service::new();
    service.upload(1, "bob", &["a"]);
    service.run(2, "bob", reserve(7, "alice")).unwrap();
    service.clock.advance(Duration::from_mins(50));
    let service = service.restarted();
    service.clock.advance(Duration::from_secs(119));
    assert_eq!(service.pools.health(&pool("bob")).unwrap().available, 0);
}

#[test]
fn a_lost_reservation_is_recorded_once_and_answered_alike() {
    let service = Service::new();
    service.upload(1, "bob", &["a"]);
    service.run(2, "bob", reserve(7, "alice")).unwrap();
    service.clock.advance(Duration::from_mins(2));
    service.run(3, "bob", reserve(8, "carol")).unwrap();
    for id in [4, 4, 5] {
        let refused = service.run(id, "bob", spend("a", 7, "alice"));
        assert!(
            matches!(refused, Err(ExecuteError::Rejected(Rejection::ReservationLost(_)))),
            "{refused:?}"
        );
    }
    assert_eq!(service.events().iter().filter(|name| **name == "conflict").count(), 1);
}

#[test]
fn closed_pools_say_so() {
    let service = Service::new();
    service.pools.close();
    let refused = service.run(1, "bob", reserve(7, "alice"));
    assert!(matches!(refused, Err(ExecuteError::LogUnavailable)), "{refused:?}");
}

#[test]
fn a_history_that_breaks_the_lifecycle_is_not_folded() {
    use keypool_ledger::{Batch, NewEvent, StreamWrite};
    let log = Arc::new(MemoryLog::default());
    let event = NewEvent {
        at: START,
        command: CommandId(Uuid::from_u128(1)),
        request: Hash::ZERO,
        event: Event::Expired { keypackage_ref: reference("a") },
        payload: Vec::new(),
    };
    let stream = StreamId::Pool(pool("bob"));
    let write = StreamWrite { stream, expected: 0, events: vec![event] };
    append_at_head(&log, &[Batch { writes: vec![write] }]).pop().unwrap().unwrap();
    let opened = Pools::open(log, Arc::new(ManualClock::at(START)), Limits::STANDARD);
    assert!(matches!(opened, Err(ReplayError::Illegal { seq: 1, .. })), "{opened:?}");
}

#[test]
fn the_same_commands_with_the_same_clock_give_the_same_bytes() {
    let play = || {
        let service = Service::new();
        service.upload(1, "bob", &["a", "b", "L"]);
        service.run(2, "bob", reserve(7, "alice")).unwrap();
        service.clock.advance(Duration::from_secs(200));
        block_on(service.pools.sweep()).unwrap();
        service.run(3, "bob", spend("a", 7, "alice")).unwrap();
        let records = service.log.read(1, 100).unwrap();
        records.into_iter().map(|record| record.envelope_bytes).collect::<Vec<_>>()
    };
    assert_eq!(play(), play());
}

#[test]
fn a_package_is_found_with_its_exact_bytes() {
    let service = Service::new();
    service.upload(1, "bob", &["a"]);
    let (owner, found, bytes) = service.pools.package(&reference("a")).unwrap().unwrap();
    assert_eq!((owner, found.facts, bytes), (pool("bob"), package("a").facts, b"a".to_vec()));
    assert!(service.pools.package(&reference("b")).unwrap().is_none());
    let devices: Vec<PoolId> = service.pools.devices_of("bob");
    assert_eq!(devices, [pool("bob")]);
}

#[test]
fn a_withdrawal_that_names_an_unknown_package_changes_nothing() {
    let service = Service::new();
    service.upload(1, "bob", &["a", "b"]);
    let which = RevokeScope::Refs(vec![reference("a"), reference("c")]);
    let refused = service.run(2, "bob", Command::Revoke { which, reason: RevokeReason::Withdrawn });
    assert!(
        matches!(refused, Err(ExecuteError::Rejected(Rejection::UnknownKeyPackage(_)))),
        "{refused:?}"
    );
    assert_eq!(service.events(), ["uploaded", "uploaded"]);
}

#[test]
fn a_repeated_request_gets_its_old_answer_also_under_other_limits() {
    let (log, clock) = (Arc::new(MemoryLog::default()), Arc::new(ManualClock::at(START)));
    let open = |packages_max| {
        let limits = Limits { packages_max, on_lapse: OnLapse::Retire, ..Limits::STANDARD };
        open_kept(&log, clock.clone() as Arc<dyn Clock>, limits)
    };
    let ask = |id: u128, command: &Command| request(id, Target::Pool(pool("bob")), command.clone());
    let upload = Command::Upload(["a", "b"].iter().map(|name| package(name)).collect());
    let again = Command::Upload(["c", "d"].iter().map(|name| package(name)).collect());
    let revoke = Command::Revoke { which: RevokeScope::All, reason: RevokeReason::Withdrawn };

    let pools = open(1);
    let one = block_on(pools.execute(ask(1, &upload))).unwrap();
    drop(pools);
    let pools = open(64);
    let two = block_on(pools.execute(ask(2, &again))).unwrap();
    block_on(pools.execute(ask(3, &reserve(7, "alice")))).unwrap();
    clock.advance(Duration::from_secs(500));
    let three = block_on(pools.execute(ask(4, &revoke))).unwrap();
    drop(pools);

    for packages_max in [1, 64] {
        let pools = open(packages_max);
        for (id, command, first) in [(1, &upload, &one), (2, &again, &two), (4, &revoke, &three)] {
            let repeated = block_on(pools.execute(ask(id, command))).unwrap();
            assert_eq!(repeated.answer, first.answer, "{id} with room for {packages_max}");
            assert_eq!(repeated.position, first.position);
        }
    }
}

#[test]
fn a_package_is_in_one_pool_only() {
    let service = Service::new();
    service.upload(1, "bob/a", &["a"]);
    let refused = service.run(2, "bob/b", Command::Upload(vec![package("a")]));
    assert!(
        matches!(refused, Err(ExecuteError::Rejected(Rejection::UploadedElsewhere(_)))),
        "{refused:?}"
    );
}

#[test]
fn two_pools_that_are_sent_one_package_at_once_do_not_both_get_it() {
    let service = Service::new();
    let start = Arc::new(Barrier::new(8));
    let senders: Vec<_> = (0..8u128)
        .map(|n| {
            let (pools, start) = (Arc::clone(&service.pools), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                let target = Target::Pool(pool(&format!("bob/{n}")));
                let command = Command::Upload(vec![package("a")]);
                block_on(pools.execute(request(n + 1, target, command))).is_ok()
            })
        })
        .collect();
    let took = senders.into_iter().map(|sender| sender.join().unwrap()).filter(|took| *took);
    assert_eq!(took.count(), 1);
}

#[test]
fn a_repeated_withdrawal_gets_its_old_answer_from_a_server_that_has_become_stricter() {
    let (log, clock) = (Arc::new(MemoryLog::default()), Arc::new(ManualClock::at(START)));
    let open = |on_lapse| {
        let limits = Limits { on_lapse, ..Limits::STANDARD };
        open_kept(&log, clock.clone() as Arc<dyn Clock>, limits)
    };
    let bob = || Target::Pool(pool("bob"));
    let revoke = || {
        let reason = RevokeReason::Withdrawn;
        request(4, bob(), Command::Revoke { which: RevokeScope::All, reason })
    };
    let pools = open(OnLapse::Requeue);
    let upload = Command::Upload(["a", "b"].iter().map(|name| package(name)).collect());
    block_on(pools.execute(request(1, bob(), upload))).unwrap();
    block_on(pools.execute(request(2, bob(), reserve(7, "alice")))).unwrap();
    clock.advance(Duration::from_mins(3));
    block_on(pools.sweep()).unwrap();
    let first = block_on(pools.execute(revoke())).unwrap();
    drop(pools);
    let repeated = block_on(open(OnLapse::Retire).execute(revoke())).unwrap();
    assert_eq!(repeated.answer, first.answer);
}
