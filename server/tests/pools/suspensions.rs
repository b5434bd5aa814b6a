//! Suspended users: in front of every command of the same batch, with a thousand pools, and on a
//! log that two servers write.

use std::thread;

use keypool_ledger::{Event, EventLog, Record, StreamId};
use keypool_projections::{Command, Rejection, SuspensionChange};
use keypool_server::pools::{
    DeliverError, DeliveryCommand, ExecuteError, Pools, SuspensionOutcome,
};

use crate::{
    delivery::asked,
    history::{group, package, pool},
    service::{Service, block_on, reserve},
    two_servers::{agree, run, two},
};

fn suspend(user: &str) -> SuspensionChange {
    SuspensionChange::Suspend { user: user.to_owned(), reason: Some("spam".to_owned()) }
}

fn reinstate(user: &str) -> SuspensionChange {
    SuspensionChange::Reinstate { user: user.to_owned() }
}

fn change<L: EventLog + 'static>(
    pools: &Pools<L>,
    change: SuspensionChange,
) -> Result<SuspensionOutcome, ExecuteError> {
    block_on(pools.change_suspension(change))
}

fn rejection<T: std::fmt::Debug>(outcome: Result<T, ExecuteError>) -> Rejection {
    match outcome {
        Err(ExecuteError::Rejected(rejection)) => rejection,
        other => panic!("not refused: {other:?}"),
    }
}

fn is_suspension(record: &Record) -> bool {
    matches!(record.envelope.event, Event::UserSuspended { .. })
}

/// Whether an event is a change by Bob, or hands out a package of his.
fn is_of_bob(record: &Record) -> bool {
    match &record.envelope.event {
        Event::Reserved { holder, .. } => {
            holder.user() == "bob" || record.envelope.stream == StreamId::Pool(pool("bob"))
        }
        Event::Uploaded(_) => record.envelope.stream == StreamId::Pool(pool("bob")),
        _ => false,
    }
}

#[test]
fn nothing_of_a_batch_is_carried_out_after_the_suspension_that_is_in_it() {
    for round in 0..40_u8 {
        let service = Service::new();
        service.upload(1, "bob", &["a", "b", "c"]);
        service.upload(2, "alice", &["d", "e"]);
        thread::scope(|scope| {
            for n in 0..6_u8 {
                let (service, id) = (&service, u128::from(n) + 10);
                scope.spawn(move || match n % 3 {
                    0 => drop(service.run(id, "bob", reserve(n, "alice"))),
                    1 => drop(service.run(id, "alice", reserve(n, "bob/laptop"))),
                    _ => {
                        let packages = vec![package(&format!("x{n}"))];
                        drop(service.run(id, "bob", Command::Upload(packages)));
                    }
                });
            }
            let service = &service;
            scope.spawn(move || {
                // The suspension is queued before some of the commands, and after others.
                (0..round).for_each(|_| thread::yield_now());
                assert!(change(&service.pools, suspend("bob")).unwrap().changed);
            });
        });
        let records = service.log.read(1, usize::MAX).unwrap();
        let at = records.iter().position(is_suspension).unwrap();
        assert!(!records[at..].iter().any(is_of_bob), "{:?}", service.events());
        let (before, after) =
            (&service.pools, Service::on(service.log.clone(), service.clock.clone()));
        assert_eq!(before.suspended_users(), after.pools.suspended_users());
    }
}

#[test]
fn a_suspension_is_one_record_however_many_devices_the_user_has() {
    let service = Service::new();
    for n in 0..1000_u128 {
        service.upload(n + 1, &format!("bob/{n}"), &[&format!("p{n}")]);
    }
    let before = service.log.head().unwrap().seq;
    let outcome = change(&service.pools, suspend("bob")).unwrap();
    assert_eq!(outcome, SuspensionOutcome { changed: true, position: Some(before + 1) });
    assert_eq!(change(&service.pools, suspend("bob")).unwrap().position, Some(before + 1));
    let service = service.restarted();
    for n in [0, 31, 999] {
        let refused = service.run(5000 + n, &format!("bob/{n}"), reserve(7, "alice"));
        assert_eq!(rejection(refused), Rejection::InviteeSuspended("bob".to_owned()));
    }
    let later = service.run(6000, "bob/later", Command::Upload(vec![package("later")]));
    assert_eq!(rejection(later), Rejection::Suspended("bob".to_owned()));
    assert_eq!(service.log.head().unwrap().seq, before + 1, "the log is as it was");

    assert!(change(&service.pools, reinstate("bob")).unwrap().changed);
    let service = service.restarted();
    assert!(service.pools.suspended_users().is_empty());
    service.run(7000, "bob/999", reserve(7, "alice")).unwrap();
}

#[test]
fn a_user_of_a_similar_name_is_not_concerned() {
    let service = Service::new();
    service.upload(1, "bob", &["a"]);
    service.upload(2, "bobby", &["b"]);
    service.upload(3, "bob.b", &["c"]);
    change(&service.pools, suspend("bob")).unwrap();
    service.run(4, "bobby", reserve(1, "alice")).unwrap();
    service.run(5, "bob.b", reserve(2, "bobby")).unwrap();
    let unknown = change(&service.pools, suspend("bo"));
    assert_eq!(rejection(unknown), Rejection::UnknownUser("bo".to_owned()));
}

#[test]
fn a_server_hears_of_the_suspension_that_another_one_has_recorded() {
    let servers = two();
    change(&servers[0], suspend("bob")).unwrap();
    let refused = run(&servers[1], 3, "bob", reserve(7, "alice"));
    assert_eq!(rejection(refused), Rejection::InviteeSuspended("bob".to_owned()));
    let again = change(&servers[1], suspend("bob")).unwrap();
    assert!(!again.changed);
    assert!(change(&servers[1], reinstate("bob")).unwrap().changed);
    // Before it follows the log, it refuses by what it knows.
    servers[0].log().catch_up();
    run(&servers[0], 4, "bob", reserve(8, "alice")).unwrap();
    agree(&servers);
}

#[test]
fn two_servers_that_suspend_a_user_at_once_record_it_once() {
    let servers = two();
    let outcomes = thread::scope(|scope| {
        let tasks = servers.each_ref().map(|server| scope.spawn(|| change(server, suspend("bob"))));
        tasks.map(|task| task.join().unwrap().unwrap())
    });
    assert_eq!(outcomes.iter().filter(|outcome| outcome.changed).count(), 1, "{outcomes:?}");
    agree(&servers);
}

#[test]
fn the_delivery_carries_out_nothing_of_a_suspended_user() {
    let service = Service::new();
    service.upload(1, "bob", &["a"]);
    change(&service.pools, suspend("bob")).unwrap();
    let before = service.log.head().unwrap();
    let made = group("made");
    let commands = [
        DeliveryCommand::Make { group: made.clone() },
        DeliveryCommand::Post { group: made.clone(), message: b"hello".to_vec() },
        DeliveryCommand::Leave { group: made },
        DeliveryCommand::Await { invitees: Vec::new(), stop: vec![pool("alice")] },
    ];
    for (id, command) in (10..).zip(commands) {
        match block_on(service.pools.deliver(asked(id, "bob/phone", command))) {
            Err(DeliverError::Execute(ExecuteError::Rejected(why))) => {
                assert_eq!(why, Rejection::Suspended("bob".to_owned()));
            }
            other => panic!("not refused: {other:?}"),
        }
    }
    assert_eq!(service.log.head().unwrap(), before);
}
