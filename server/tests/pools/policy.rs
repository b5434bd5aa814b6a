//! The users that an owner lets reserve: contacts, blocked users, and strangers over their limit.

use keypool_ledger::ReservePolicy;
use keypool_projections::{Answer, Command, PolicyChange, PolicyStatus, Rejection};
use keypool_server::pools::{ExecuteError, Reply};

use crate::{
    history::{group, pool, reference, reservation},
    service::{Service, reserve, reserved, spend},
};

/// Bob's pool with two packages and a last resort, of which mallory has spent one.
fn service() -> Service {
    let service = Service::new();
    service.upload(1, "bob", &["a", "b", "L"]);
    service.run(2, "bob", reserve(1, "mallory")).unwrap();
    service.run(3, "bob", spend("a", 1, "mallory")).unwrap();
    service
}

fn change(service: &Service, id: u128, change: PolicyChange) -> Result<Reply, ExecuteError> {
    service.run(id, "bob", Command::SetPolicy(change))
}

fn status(reply: &Reply) -> &PolicyStatus {
    match &reply.answer {
        Answer::PolicySet(status) => status,
        other => panic!("not a policy: {other:?}"),
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn blocking(blocked: &[&str], unblocked: &[&str]) -> PolicyChange {
    PolicyChange { blocked: names(blocked), unblocked: names(unblocked), ..PolicyChange::default() }
}

#[track_caller]
fn assert_rejected(outcome: Result<Reply, ExecuteError>, expected: &Rejection) {
    match outcome {
        Err(ExecuteError::Rejected(rejection)) if rejection == *expected => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn changes_that_cancel_out_write_nothing() {
    let service = service();
    let before = service.events();
    let joined = vec![reservation(1); 64];
    let cancelling = PolicyChange {
        joined: joined.clone(),
        removed: names(&["mallory"]),
        blocked: names(&["erin"]),
        unblocked: names(&["erin"]),
        reserve: Some(ReservePolicy::Open),
        strangers_per_hour: Some(0),
    };
    let reply = change(&service, 10, cancelling.clone()).unwrap();
    assert!(reply.repeated && status(&reply).contacts.is_empty());
    assert_eq!(service.events(), before);

    let joining = PolicyChange { joined, ..PolicyChange::default() };
    assert_eq!(status(&change(&service, 11, joining).unwrap()).contacts, ["mallory"]);
    let reply = change(&service, 12, cancelling).unwrap();
    assert!(status(&reply).contacts.is_empty(), "who is removed is no contact, joined or not");
    assert_eq!(service.events()[before.len()..], ["contact_added", "contact_removed"]);
}

#[test]
fn a_blocked_user_reserves_nothing_until_unblocked() {
    let service = service();
    let reply = change(&service, 10, blocking(&["mallory", "erin"], &[])).unwrap();
    assert_eq!(status(&reply).blocked, ["erin", "mallory"]);
    let service = service.restarted();
    let mut introduced = reserve(2, "mallory");
    if let Command::Reserve { introduced, .. } = &mut introduced {
        *introduced = true;
    }
    assert_rejected(service.run(11, "bob", introduced), &Rejection::Blocked);
    assert_rejected(service.run(12, "bob", reserve(3, "mallory/tablet")), &Rejection::Blocked);
    change(&service, 13, blocking(&[], &["mallory"])).unwrap();
    assert_eq!(reserved(&service.run(14, "bob", reserve(4, "mallory")).unwrap()), reference("b"));
}

#[test]
fn a_pool_blocks_1024_users_and_says_so() {
    let service = Service::new();
    service.upload(1, "bob", &["a"]);
    let many: Vec<String> = (0..1025).map(|number| format!("user{number}")).collect();
    let all =
        |blocked: &[String]| PolicyChange { blocked: blocked.to_vec(), ..PolicyChange::default() };
    assert_rejected(change(&service, 2, all(&many)), &Rejection::TooManyBlocked);
    let reply = change(&service, 3, all(&many[1..])).unwrap();
    assert_eq!(status(&reply).blocked.len(), 1024);
    assert_rejected(change(&service, 4, blocking(&["erin"], &[])), &Rejection::TooManyBlocked);
    change(&service, 5, blocking(&["erin"], &["user7"])).unwrap();
}

#[test]
fn an_owner_sets_how_much_strangers_may_take_and_takes_it_back() {
    let service = service();
    let limit = |strangers_per_hour| PolicyChange { strangers_per_hour, ..PolicyChange::default() };
    let reply = change(&service, 10, limit(Some(600))).unwrap();
    assert_eq!(status(&reply).strangers_per_hour, Some(600));
    let service = service.restarted();
    let reply = change(&service, 11, limit(None)).unwrap();
    assert_eq!(status(&reply).strangers_per_hour, Some(600));
    let reply = change(&service, 12, limit(Some(0))).unwrap();
    assert_eq!(status(&reply).strangers_per_hour, None);
}

#[test]
fn who_may_have_the_last_resort_only_is_given_nothing_else() {
    let service = service();
    let last_resort = |number, holder: &str| Command::Reserve {
        reservation: reservation(number),
        holder: pool(holder),
        group: group("g"),
        ciphersuites: Vec::new(),
        required: keypool_projections::RequiredCapabilities::default(),
        introduced: false,
        last_resort_only: true,
    };
    for (number, holder) in [(2, "erin"), (3, "frank")] {
        let reply = service.run(u128::from(number) + 10, "bob", last_resort(number, holder));
        assert_eq!(reserved(&reply.unwrap()), reference("L"));
    }
    service.upload(20, "dave", &["c"]);
    assert_rejected(service.run(21, "dave", last_resort(4, "erin")), &Rejection::KeptForContacts);
}
