//! Writers that come between another one's look and its append, and answers that are lost.

use std::thread;

use super::fixtures::{
    append, batch, command, expired, facts, package, positions, reservation, reserved, stream,
    uploaded,
};
use crate::{
    AppendError, Appended, Batch, Conflict, Event, EventLog, Fault, Faulty, Key, LogHead, NewEvent,
};

pub(super) fn a_call_counts_at_its_head(log: &impl EventLog) {
    append(log, "ann", 0, vec![expired(1, 1)]).unwrap();
    append(log, "bob", 0, vec![expired(2, 1)]).unwrap();
    for decided_at in [0, 1, 3, u64::MAX] {
        let call = vec![batch("cat", 0, vec![expired(3, 1)]), Batch::default()];
        let answers = log.append(LogHead { seq: decided_at }, call);
        assert_eq!(answers.len(), 2);
        for answer in &answers {
            let AppendError::Conflict(conflict) = answer.as_ref().unwrap_err() else {
                panic!("decided at {decided_at}: {answer:?}")
            };
            assert_eq!(*conflict, Conflict::Log { decided_at, head: 2 });
        }
        assert_eq!(log.head().unwrap().seq, 2, "nothing is written");
        assert_eq!(log.stream_head(&stream("cat")).unwrap().version, 0);
    }
    let call = vec![
        batch("cat", 0, vec![expired(3, 1)]),
        batch("cat", 0, vec![expired(4, 1)]),
        batch("cat", 1, vec![expired(5, 1)]),
    ];
    let answers = log.append(LogHead { seq: 2 }, call);
    assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(log.head().unwrap().seq, 4, "the batches of one call do not overtake each other");
}

pub(super) fn one_of_two_pools_takes_a_package(log: &impl EventLog) {
    let call = |name| batch(name, 0, vec![uploaded(1, 1)]);
    comes_second(log, Key::Package(&package(1)), call("ann"), call("bob"));
}

pub(super) fn one_of_two_pools_takes_a_reservation(log: &impl EventLog) {
    append(log, "ann", 0, vec![uploaded(1, 1)]).unwrap();
    append(log, "bob", 0, vec![uploaded(2, 1)]).unwrap();
    let [first, second] = [(1, "ann"), (2, "bob")].map(|(n, name)| {
        let taken = NewEvent { command: command(10 + n), ..reserved(n, 7) };
        batch(name, 1, vec![taken])
    });
    comes_second(log, Key::Reservation(reservation(7)), first, second);
}

pub(super) fn an_init_key_is_taken_once(log: &impl EventLog) {
    let with_key = |n: u8| {
        let mut facts = facts(n);
        facts.init_key = super::facts(1).init_key;
        NewEvent { event: Event::Uploaded(facts), ..uploaded(n, 1) }
    };
    let (ann, init_key) = ("ann".parse().unwrap(), facts(1).init_key);
    // The second one expects the version that the first one leaves: only the head tells.
    let calls = [batch("ann", 0, vec![with_key(1)]), batch("ann", 1, vec![with_key(2)])];
    let [first, second] = calls;
    comes_second(log, Key::InitKey(&ann, &init_key), first, second);
}

pub(super) fn a_command_is_carried_out_once(log: &impl EventLog) {
    let call = |name, n| {
        let event = NewEvent { command: command(9), ..uploaded(n, 1) };
        batch(name, 0, vec![event])
    };
    comes_second(log, Key::Command(command(9)), call("ann", 1), call("bob", 2));
}

/// Two writers look for a key and find nothing. The first one appends just before the second does.
fn comes_second<L: EventLog>(log: &L, key: Key<'_>, first: Batch, second: Batch) {
    let decided_at = log.head().unwrap();
    assert_eq!(log.find(key, 0, usize::MAX).unwrap(), []);
    let faulty = Faulty::new(log);
    faulty.before_append(1, move |log| {
        log.append(decided_at, vec![first]).pop().unwrap().unwrap();
    });
    let answer = faulty.append(decided_at, vec![second.clone()]).pop().unwrap();
    is_overtaken(&answer);
    let found = log.find(key, decided_at.seq, usize::MAX).unwrap();
    assert_eq!(positions(&found), [decided_at.seq + 1], "only the first one's");
    let again = log.append(decided_at, vec![second]).pop().unwrap();
    is_overtaken(&again);
}

fn is_overtaken(answer: &Result<Appended, AppendError>) {
    let is_it = matches!(answer, Err(AppendError::Conflict(Conflict::Log { .. })));
    assert!(is_it, "not a conflict of the log: {answer:?}");
}

/// Writers to streams of their own race for commands, one after the other.
pub(super) fn one_of_many_writers_takes_a_key<L: EventLog>(log: &L) {
    let n_commands = 10;
    let names = ["ann", "bob", "cat", "dan"];
    let take = |name: &str, n: u8| {
        loop {
            let decided_at = log.head().unwrap();
            if !log.find(Key::Command(command(n)), 0, 1).unwrap().is_empty() {
                return;
            }
            let expected = log.stream_head(&stream(name)).unwrap().version;
            let call = vec![batch(name, expected, vec![expired(n, 1)])];
            drop(log.append(decided_at, call));
        }
    };
    thread::scope(|scope| {
        for name in names {
            scope.spawn(move || (0..n_commands).for_each(|n| take(name, n)));
        }
    });
    for n in 0..n_commands {
        let found = log.find(Key::Command(command(n)), 0, usize::MAX).unwrap();
        assert_eq!(found.len(), 1, "command {n} is carried out once");
    }
    assert_eq!(log.head().unwrap().seq, u64::from(n_commands));
}

pub(super) fn a_later_look_tells_an_unknown_outcome<L: EventLog>(log: &L) {
    for (n, fault) in [(1, Fault::UnknownApplied), (2, Fault::UnknownNotApplied)] {
        let faulty = Faulty::new(log);
        faulty.fail_append(1, fault);
        let decided_at = log.head().unwrap();
        let call = || vec![batch("ann", decided_at.seq, vec![expired(n, 1)])];
        let answer = faulty.append(decided_at, call()).pop().unwrap();
        assert!(matches!(answer, Err(AppendError::Unknown(_))), "{fault:?}: {answer:?}");
        let found = log.find(Key::Command(command(n)), decided_at.seq, usize::MAX).unwrap();
        let again = log.append(decided_at, call()).pop().unwrap();
        if fault == Fault::UnknownApplied {
            assert_eq!(positions(&found), [decided_at.seq + 1]);
            is_overtaken(&again);
        } else {
            assert_eq!(found, []);
            again.unwrap();
        }
        let found = log.find(Key::Command(command(n)), 0, usize::MAX).unwrap();
        assert_eq!(found.len(), 1, "{fault:?}: written once");
    }
}
