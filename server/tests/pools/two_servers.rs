//! Two servers on one log, neither of which knows of the other's records before its own append is refused.

use std::{
    collections::BTreeSet,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use keypool_ledger::{
    Clock, CommandId, Event, EventLog, KeyPackageRef, ManualClock, MemoryLog, PoolId,
    ReservationId, SignatureKey,
};
use keypool_projections::{Answer, Command, DeliveryLimits, Limits, Rejection};
use keypool_server::pools::{
    DeliverError, DeliveryCommand, ExecuteError, Pools, Progress, Reply, Request, Target,
};
use uuid::Uuid;

use crate::{
    delivery::{asked, commit},
    history::{START, group, package, pool, reference, reservation},
    outside_log::OutsideLog,
    service::{block_on, register, request, reserve, reserved},
};

pub(crate) type Server = Pools<Arc<OutsideLog>>;

fn server(log: OutsideLog) -> Server {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(START));
    Pools::open(Arc::new(log), clock, Limits::STANDARD).unwrap()
}

/// Two servers on a log in which Bob and Dave have a package each.
pub(crate) fn two() -> [Server; 2] {
    let first = server(OutsideLog::default());
    run(&first, 1, "bob", upload(&["a"])).unwrap();
    run(&first, 2, "dave", upload(&["d"])).unwrap();
    let second = server(first.log().beside());
    [first, second]
}

fn upload(names: &[&str]) -> Command {
    Command::Upload(names.iter().map(|name| package(name)).collect())
}

pub(crate) fn run(
    server: &Server,
    id: u128,
    owner: &str,
    command: Command,
) -> Result<Reply, ExecuteError> {
    block_on(server.execute(request(id, Target::Pool(pool(owner)), command)))
}

fn refusal(outcome: Result<Reply, ExecuteError>) -> Rejection {
    match outcome {
        Err(ExecuteError::Rejected(rejection)) => rejection,
        other => panic!("not refused: {other:?}"),
    }
}

/// Checks that servers which have followed the log to its end publish the states that a start folds.
pub(crate) fn agree(servers: &[Server]) {
    let fresh = server(servers[0].log().beside());
    for server in servers {
        server.log().catch_up();
        block_on(server.sweep()).unwrap();
        assert_eq!(
            server.log().read(1, usize::MAX).unwrap(),
            fresh.log().read(1, usize::MAX).unwrap()
        );
        assert_eq!(server.pools(), fresh.pools());
        for pool in fresh.pools() {
            let [ours, theirs] = [server, &fresh].map(|server| server.pool(&pool).unwrap());
            assert_eq!(ours.state, theirs.state, "{pool}");
            assert_eq!((ours.head, ours.position), (theirs.head, theirs.position), "{pool}");
            assert_eq!(server.mailbox(&pool), fresh.mailbox(&pool), "{pool}");
        }
        assert_eq!(server.group(&group("g")), fresh.group(&group("g")));
        assert_eq!(server.suspended_users(), fresh.suspended_users());
        assert!(!*server.failed().borrow(), "losing a race is no failure");
    }
}

#[test]
fn a_command_that_two_servers_are_given_is_carried_out_once() {
    let servers = two();
    let [first, again] = [0, 1].map(|n| run(&servers[n], 3, "bob", reserve(7, "alice")).unwrap());
    assert_eq!(again, first);
    assert!(again.repeated && !first.repeated);
    assert_eq!(servers[1].log().head().unwrap().seq, 3);
    agree(&servers);
}

#[test]
fn a_package_that_two_servers_are_given_for_two_pools_is_in_one() {
    let servers = two();
    run(&servers[0], 3, "bob", upload(&["b"])).unwrap();
    let refused = refusal(run(&servers[1], 4, "dave", upload(&["b"])));
    assert_eq!(refused, Rejection::UploadedElsewhere(reference("b")));
    agree(&servers);
}

#[test]
fn a_reservation_that_two_servers_are_given_for_two_pools_is_of_one() {
    let servers = two();
    run(&servers[0], 3, "bob", reserve(7, "alice")).unwrap();
    let refused = refusal(run(&servers[1], 4, "dave", reserve(7, "alice")));
    assert_eq!(refused, Rejection::ReservationMismatch(reservation(7)));
    agree(&servers);
}

#[test]
fn an_init_key_that_two_servers_are_given_is_taken_once() {
    let servers = two();
    run(&servers[0], 3, "bob", upload(&["b"])).unwrap();
    let reply = run(&servers[1], 4, "bob", upload(&["b'"])).unwrap();
    let Answer::Uploaded(outcomes) = &reply.answer else { panic!("{reply:?}") };
    assert!(format!("{outcomes:?}").contains("InitKeySeen"), "{outcomes:?}");
    agree(&servers);
}

#[test]
fn a_commit_of_one_epoch_that_two_servers_are_given_is_accepted_once() {
    let servers = two();
    let deliver = |n: usize, id, command| block_on(servers[n].deliver(asked(id, "alice", command)));
    deliver(0, 3, DeliveryCommand::Make { group: group("g") }).unwrap();
    run(&servers[1], 4, "bob", reserve(7, "alice")).unwrap();
    // The first server is told of the reservation before it is asked to spend it.
    servers[0].log().catch_up();
    let invites_bob = || commit(0, &[("a", 7, "alice")], &[]);
    deliver(0, 5, invites_bob()).unwrap();
    let refused = deliver(1, 6, commit(0, &[], &[])).unwrap_err();
    assert!(matches!(refused, DeliverError::Refused(_)), "{refused:?}");
    let again = deliver(1, 5, invites_bob()).unwrap();
    assert!(again.repeated);
    agree(&servers);
}

/// Another server, which keeps snapshots: opened again, it has no pool in memory.
fn beside(first: &Server, snapshots: &Arc<MemoryLog>) -> Server {
    let (log, clock) = (Arc::new(first.log().beside()), Arc::new(ManualClock::at(START)));
    let (limits, delivery) = (Limits::STANDARD, DeliveryLimits::STANDARD);
    let store = Arc::clone(snapshots);
    Pools::open_with(log, store, clock, limits, delivery, &Progress::default()).unwrap()
}

#[test]
fn a_server_follows_pools_that_it_has_not_loaded() {
    let first = server(OutsideLog::default());
    run(&first, 1, "bob", upload(&["a"])).unwrap();
    let snapshots = Arc::new(MemoryLog::default());
    run(&first, 2, "dave", upload(&["d"])).unwrap();
    beside(&first, &snapshots).close();
    let second = beside(&first, &snapshots);
    let told = second.listen(&pool("bob"));
    run(&first, 3, "bob", register(1, "bob")).unwrap();
    run(&first, 4, "dave", reserve(7, "alice")).unwrap();
    run(&first, 5, "carol", upload(&["c"])).unwrap();
    second.log().catch_up();
    let loaded = second.pool(&pool("dave")).unwrap();
    assert_eq!(loaded.head.version, 2, "it is loaded as the log has it, ahead of the others");
    run(&second, 6, "erin", upload(&["e"])).unwrap();
    assert!(told.has_changed().unwrap(), "listeners are told");
    let key = SignatureKey::new(&[1; 32]).unwrap();
    assert_eq!(second.pool_of_key(&key), Some(pool("bob")));
    agree(&[first, second]);
}

#[test]
fn a_record_that_comes_while_its_pool_is_loaded_is_not_missed() {
    let first = Arc::new(server(OutsideLog::default()));
    run(&first, 1, "bob", upload(&["a", "b"])).unwrap();
    let snapshots = Arc::new(MemoryLog::default());
    beside(&first, &snapshots).close();
    let second = Arc::new(beside(&first, &snapshots));
    let servers = [Arc::clone(&first), Arc::clone(&second)];
    let (tell, told) = mpsc::channel();
    second.log().during_next_read(move || {
        run(&servers[0], 2, "bob", reserve(7, "alice")).unwrap();
        // The second server follows that record, of a pool that is not in its memory yet.
        run(&servers[1], 3, "erin", upload(&["e"])).unwrap();
        tell.send(()).unwrap();
    });
    assert!(second.pool(&pool("bob")).is_some());
    told.try_recv().unwrap();
    run(&first, 4, "bob", reserve(8, "carol")).unwrap();
    run(&second, 5, "bob", reserve(9, "alice")).unwrap_err();
    agree(&[first, second].map(|server| Arc::into_inner(server).unwrap()));
}

#[test]
fn settings_are_recorded_though_another_server_came_first() {
    let first = server(OutsideLog::default());
    let behind = first.log().beside();
    run(&first, 1, "bob", upload(&["a"])).unwrap();
    let limits = Limits { grace: Duration::from_secs(5), ..Limits::STANDARD };
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(START));
    let second = Pools::open(Arc::new(behind), clock, limits).unwrap();
    run(&second, 2, "bob", reserve(7, "alice")).unwrap();
    let records = second.log().read(1, usize::MAX).unwrap();
    let names: Vec<_> = records.iter().map(|record| record.envelope.event.name()).collect();
    assert_eq!(names, ["uploaded", "configured", "reserved"]);
}

/// Reserves packages of Bob until there is none left, and returns those that were handed out.
fn use_up(server: &Server, inviter: &PoolId) -> Vec<KeyPackageRef> {
    let mut handed_out = Vec::new();
    loop {
        let Command::Reserve { group, ciphersuites, introduced, last_resort_only, .. } =
            reserve(0, "alice")
        else {
            panic!("not a reserve")
        };
        let (reservation, holder) = (ReservationId(Uuid::new_v4()), inviter.clone());
        let command = Command::Reserve {
            reservation,
            holder,
            group,
            ciphersuites,
            required: keypool_projections::RequiredCapabilities::default(),
            introduced,
            last_resort_only,
        };
        let target = Target::Pool(pool("bob"));
        let asked = Request { id: CommandId(Uuid::new_v4()), ..request(0, target, command) };
        loop {
            match block_on(server.execute(asked.clone())) {
                Ok(reply) => handed_out.push(reserved(&reply)),
                // Others kept coming first: asked again, with the same id.
                Err(ExecuteError::Busy) => continue,
                Err(ExecuteError::Rejected(Rejection::PoolExhausted)) => return handed_out,
                Err(error) => panic!("{error:?}"),
            }
            break;
        }
    }
}

#[test]
fn two_servers_that_race_for_a_pool_hand_out_every_package_once() {
    let n_packages = 60;
    let servers = two();
    let names: Vec<String> = (1..n_packages).map(|n| format!("p{n}-")).collect();
    run(&servers[1], 3, "bob", upload(&names.iter().map(String::as_str).collect::<Vec<_>>()))
        .unwrap();
    run(&servers[0], 4, "dave", upload(&["e"])).unwrap();
    let handed_out: Vec<KeyPackageRef> = thread::scope(|scope| {
        let inviters = (0..6_usize).map(|n| {
            let (server, inviter) = (&servers[n % 2], pool(&format!("inviter{n}")));
            scope.spawn(move || use_up(server, &inviter))
        });
        let inviters: Vec<_> = inviters.collect();
        inviters.into_iter().flat_map(|inviter| inviter.join().unwrap()).collect()
    });
    let distinct: BTreeSet<_> = handed_out.iter().collect();
    assert_eq!((handed_out.len(), distinct.len()), (n_packages, n_packages));
    agree(&servers);
    let is_reserved = |event: &&Event| matches!(event, Event::Reserved { .. });
    let records = servers[0].log().read(1, usize::MAX).unwrap();
    let made = records.iter().map(|record| &record.envelope.event).filter(is_reserved);
    assert_eq!(made.count(), n_packages, "as many reservations as packages");
}

#[test]
fn reservation_ids_that_two_servers_race_for_are_each_of_one_pool() {
    let first = server(OutsideLog::default());
    let second = server(first.log().beside());
    race_for_reservations(&[first, second]);
    let log = Arc::new(MemoryLog::default());
    race_for_reservations(&[(); 2].map(|()| {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(START));
        Pools::open(Arc::clone(&log), clock, Limits::STANDARD).unwrap()
    }));
}

/// Each server reserves from a pool of its own with the same ids, in the same order.
fn race_for_reservations<L: EventLog + 'static>(servers: &[Pools<L>; 2]) {
    let n_ids = 60;
    let ask = |n: usize, id: u128, command: Command| {
        let asked = request(id, Target::Pool(pool(["bob", "dave"][n])), command);
        loop {
            match block_on(servers[n].execute(asked.clone())) {
                Err(ExecuteError::Busy) => {}
                outcome => return outcome,
            }
        }
    };
    let reserve_all = |n: usize| {
        let names: Vec<String> = (0..n_ids).map(|id| format!("p{id}-{n}-")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        ask(n, 1_000 + n as u128, upload(&names)).unwrap();
        (0..n_ids)
            .filter(|id| match ask(n, u128::from(*id) * 2 + n as u128, reserve(*id, "alice")) {
                Ok(_) => true,
                Err(ExecuteError::Rejected(Rejection::ReservationMismatch(_))) => false,
                Err(error) => panic!("{error:?}"),
            })
            .collect::<BTreeSet<u8>>()
    };
    let [first, second] = thread::scope(|scope| {
        let reserve_all = &reserve_all;
        let racing = [0, 1].map(|n| scope.spawn(move || reserve_all(n)));
        racing.map(|server| server.join().unwrap())
    });
    assert!(first.is_disjoint(&second), "{first:?} {second:?}");
    assert_eq!(first.len() + second.len(), usize::from(n_ids));
}
