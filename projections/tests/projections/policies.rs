//! A pool's policy: the users who may reserve, contacts, blocked users, and the packages kept for contacts.

use keypool_ledger::{Event, ReservePolicy};
use keypool_projections::{
    Answer, Command, Limits, PolicyChange, PolicyStatus, PoolState, ProspectiveHolder, Rejection,
    RequiredCapabilities,
};

use crate::history::{at, group, package, pool, reference, reservation};

/// Carries a command out, and returns its answer.
fn carry_out(
    state: &mut PoolState,
    command: &Command,
    limits: &Limits,
) -> Result<Answer, Rejection> {
    let decision = state.decide(command, at(1), limits);
    for event in &decision.events {
        state.evolve(event, at(1)).unwrap();
    }
    decision.answer
}

fn upload(names: &[&str]) -> Command {
    Command::Upload(names.iter().map(|name| package(name)).collect())
}

fn reserve(number: u8, who: &str, introduced: bool) -> Command {
    Command::Reserve {
        reservation: reservation(number),
        holder: pool(who),
        group: group("g"),
        ciphersuites: Vec::new(),
        required: RequiredCapabilities::default(),
        introduced,
        last_resort_only: false,
    }
}

/// A pool of packages from which each user in turn was given one, and has spent it, by reservations from 1 on.
fn spent_by(names: &[&str], users: &[&str]) -> PoolState {
    let mut state = PoolState::default();
    carry_out(&mut state, &upload(names), &Limits::STANDARD).unwrap();
    for (number, user) in (1..).zip(users) {
        carry_out(&mut state, &reserve(number, user, true), &Limits::STANDARD).unwrap();
        let made = state.reservation(reservation(number)).unwrap();
        let keypackage_ref = made.keypackage_ref.clone();
        let (reservation, holder) = (reservation(number), pool(user));
        let claim = keypool_projections::Claim { keypackage_ref, reservation, holder };
        let spend = Command::Spend { claim, group: group("g") };
        carry_out(&mut state, &spend, &Limits::STANDARD).unwrap();
    }
    state
}

/// The events of a change of policy, and the state after them.
fn set(state: &mut PoolState, change: PolicyChange) -> Result<Vec<Event>, Rejection> {
    let command = Command::SetPolicy(change);
    let events = state.decide(&command, at(1), &Limits::STANDARD).events;
    carry_out(state, &command, &Limits::STANDARD).map(|_| events)
}

fn names(users: &[&str]) -> Vec<String> {
    users.iter().map(|user| (*user).to_owned()).collect()
}

fn added(user: &str, number: u8) -> Event {
    Event::ContactAdded { user: user.to_owned(), reservation: reservation(number) }
}

#[test]
fn a_setting_is_recorded_when_it_changes() {
    let mut state = PoolState::default();
    let limit = |limit| PolicyChange { strangers_per_hour: Some(limit), ..PolicyChange::default() };
    let reserve = |policy| PolicyChange { reserve: Some(policy), ..PolicyChange::default() };
    let (open, contacts) = (ReservePolicy::Open, ReservePolicy::Contacts);
    assert_eq!(set(&mut state, reserve(open)), Ok(vec![]), "it is open from the beginning");
    let closed = Event::PolicySet { reserve: contacts };
    assert_eq!(set(&mut state, reserve(contacts)), Ok(vec![closed]));
    assert_eq!(set(&mut state, reserve(contacts)), Ok(vec![]));
    assert_eq!(set(&mut state, limit(0)), Ok(vec![]), "the server's own limit holds");
    for per_hour in [1, 60] {
        let event = Event::StrangersLimitSet { per_hour: Some(per_hour) };
        assert_eq!(set(&mut state, limit(per_hour)), Ok(vec![event]));
        assert_eq!(set(&mut state, limit(per_hour)), Ok(vec![]));
        assert_eq!(state.contacts().strangers_per_hour(), Some(per_hour));
    }
    let none = PolicyChange::default();
    let answer = carry_out(&mut state, &Command::SetPolicy(none), &Limits::STANDARD);
    let status = PolicyStatus {
        reserve: contacts,
        contacts: Vec::new(),
        blocked: Vec::new(),
        strangers_per_hour: Some(60),
    };
    assert_eq!(answer, Ok(Answer::PolicySet(status)), "it stays as it is");
    let event = Event::StrangersLimitSet { per_hour: None };
    assert_eq!(set(&mut state, limit(0)), Ok(vec![event]));
    assert_eq!(state.contacts().strangers_per_hour(), None);
    assert_eq!(set(&mut state, reserve(open)), Ok(vec![Event::PolicySet { reserve: open }]));
}

#[test]
fn a_user_whose_spent_reservation_was_joined_is_a_contact() {
    let mut state = spent_by(&["a", "b", "c", "d"], &["alice", "alice/b", "carol"]);
    carry_out(&mut state, &reserve(4, "dave", true), &Limits::STANDARD).unwrap();
    let joined = |numbers: &[u8], removed: &[&str]| PolicyChange {
        joined: numbers.iter().copied().map(reservation).collect(),
        removed: names(removed),
        ..PolicyChange::default()
    };
    for number in [4, 9] {
        let mismatch = Err(Rejection::ReservationMismatch(reservation(number)));
        assert_eq!(set(&mut state, joined(&[1, number], &[])), mismatch, "it is not spent");
    }
    assert_eq!(set(&mut state, joined(&[1], &["alice"])), Ok(vec![]), "removed in one breath");
    let both = vec![added("alice", 1), added("carol", 3)];
    assert_eq!(set(&mut state, joined(&[1, 2, 3], &[])), Ok(both), "one event for a user");
    assert_eq!(set(&mut state, joined(&[2], &[])), Ok(vec![]), "a contact already");
    assert_eq!(state.contacts().users().collect::<Vec<_>>(), ["alice", "carol"]);
    let removed = Event::ContactRemoved { user: "alice".to_owned() };
    let change = joined(&[2, 3], &["zoe", "alice", "alice"]);
    assert_eq!(set(&mut state, change), Ok(vec![removed]));
    let contacts = state.contacts();
    assert_eq!((contacts.is_contact("alice"), contacts.is_contact("carol")), (false, true));
    assert_eq!((contacts.is_removed("alice"), contacts.is_removed("carol")), (true, false));
    assert_eq!(set(&mut state, joined(&[2], &[])), Ok(vec![added("alice", 2)]));
    assert!(!state.contacts().is_removed("alice"));
}

#[test]
fn so_many_users_are_blocked_and_no_more() {
    let mut state = PoolState::default();
    let change = |blocked: &[&str], unblocked: &[&str]| PolicyChange {
        blocked: names(blocked),
        unblocked: names(unblocked),
        ..PolicyChange::default()
    };
    let blocked = |user: &str| Event::UserBlocked { user: user.to_owned() };
    let unblocked = |user: &str| Event::UserUnblocked { user: user.to_owned() };
    let events = set(&mut state, change(&["bob", "alice", "bob", "carol"], &["carol", "zoe"]));
    assert_eq!(events, Ok(vec![blocked("alice"), blocked("bob")]));
    assert_eq!(set(&mut state, change(&["alice"], &[])), Ok(vec![]));
    let events = set(&mut state, change(&["alice", "dave"], &["alice"]));
    assert_eq!(events, Ok(vec![unblocked("alice"), blocked("dave")]));
    let contacts = state.contacts();
    assert_eq!(contacts.blocked().collect::<Vec<_>>(), ["bob", "dave"]);
    assert_eq!((contacts.is_blocked("bob"), contacts.is_blocked("alice")), (true, false));
    // Two are blocked: 1,022 more may be.
    let many: Vec<String> = (0..1022).map(|number| format!("u{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let full = || Err(Rejection::TooManyBlocked);
    let one_more = [&many[..], &["erin"]].concat();
    assert_eq!(set(&mut state.clone(), change(&one_more, &[])), full());
    assert_eq!(set(&mut state, change(&many, &[])).map(|events| events.len()), Ok(1022));
    assert_eq!(set(&mut state, change(&["erin"], &[])), full());
    assert_eq!(set(&mut state, change(&["erin", "frank"], &["bob"])), full());
    let events = vec![unblocked("bob"), blocked("erin")];
    assert_eq!(set(&mut state, change(&["erin"], &["bob", "zoe"])), Ok(events));
}

#[test]
fn a_policy_refuses_those_who_are_blocked_and_strangers() {
    let mut state = spent_by(&["a", "b", "c", "d"], &["alice"]);
    let contact = PolicyChange { joined: vec![reservation(1)], ..PolicyChange::default() };
    set(&mut state, contact).unwrap();
    let asks = |state: &PoolState, who: &str, introduced| {
        let decided = state.decide(&reserve(8, who, introduced), at(2), &Limits::STANDARD).answer;
        let device = &pool(who);
        let holder = ProspectiveHolder { device, introduced, last_resort_only: false };
        let offered = state.decide_offer(&holder, at(2), &Limits::STANDARD);
        assert_eq!(offered, decided.clone().map(drop), "the same as reserving");
        decided.map(drop)
    };
    assert_eq!(asks(&state, "carol", false), Ok(()));
    let closed = PolicyChange { reserve: Some(ReservePolicy::Contacts), ..PolicyChange::default() };
    set(&mut state, closed).unwrap();
    assert_eq!(asks(&state, "carol", false), Err(Rejection::ContactsOnly));
    assert_eq!([asks(&state, "carol", true), asks(&state, "alice/b", false)], [Ok(()), Ok(())]);
    let blocked = PolicyChange { blocked: names(&["alice", "carol"]), ..PolicyChange::default() };
    set(&mut state, blocked).unwrap();
    assert_eq!(asks(&state, "alice", false), Err(Rejection::Blocked));
    assert_eq!(asks(&state, "carol", true), Err(Rejection::Blocked), "an introduction is no help");
}

/// The package that a stranger, or somebody introduced, is given.
fn given(state: &PoolState, introduced: bool, last_resort_only: bool, limits: &Limits) -> String {
    let mut command = reserve(8, "carol", introduced);
    if let Command::Reserve { last_resort_only: only, .. } = &mut command {
        *only = last_resort_only;
    }
    let holder = ProspectiveHolder { device: &pool("carol"), introduced, last_resort_only };
    let offered = state.decide_offer(&holder, at(2), limits);
    match state.decide(&command, at(2), limits).answer {
        Ok(Answer::Reserved { facts, .. }) => {
            assert_eq!(offered, Ok(()));
            let names = ["a", "b", "c", "d2", "e2", "L"];
            let found = names.into_iter().find(|name| reference(name) == facts.keypackage_ref);
            found.unwrap().to_owned()
        }
        Ok(other) => panic!("{other:?}"),
        Err(rejection) => {
            assert_eq!(offered, Err(rejection.clone()));
            rejection.to_string()
        }
    }
}

#[test]
fn the_last_fresh_packages_of_a_ciphersuite_are_kept_for_contacts() {
    let kept = Rejection::KeptForContacts.to_string();
    let floor = |strangers_floor| Limits { strangers_floor, ..Limits::STANDARD };
    let mut state = PoolState::default();
    carry_out(&mut state, &upload(&["a", "b", "c", "d2", "e2"]), &floor(0)).unwrap();
    let stranger =
        |state: &PoolState, strangers_floor| given(state, false, false, &floor(strangers_floor));
    assert_eq!([0, 1, 2].map(|count| stranger(&state, count)), ["a", "a", "a"]);
    assert_eq!(stranger(&state, 3), kept, "three of the one and two of the other suite");
    assert_eq!(given(&state, true, false, &floor(3)), "a");
    // One that came back is not fresh, and neither is the last resort.
    carry_out(&mut state, &reserve(1, "alice", true), &floor(0)).unwrap();
    let claim = crate::history::claim("a", 1, "alice");
    carry_out(&mut state, &Command::Release(claim), &floor(0)).unwrap();
    assert_eq!([0, 1, 2].map(|count| stranger(&state, count)), ["b", "b", "a"]);
    carry_out(&mut state, &upload(&["L"]), &floor(0)).unwrap();
    carry_out(&mut state, &reserve(2, "alice", true), &floor(0)).unwrap();
    carry_out(&mut state, &reserve(3, "alice", true), &floor(0)).unwrap();
    assert_eq!(stranger(&state, 2), "a", "two fresh ones of the second suite are kept");
    carry_out(&mut state, &reserve(4, "alice", true), &floor(0)).unwrap();
    carry_out(&mut state, &reserve(5, "alice", true), &floor(0)).unwrap();
    assert_eq!(stranger(&state, 2), "a");
    carry_out(&mut state, &reserve(6, "alice", true), &floor(0)).unwrap();
    assert_eq!(stranger(&state, 2), "L");
}

#[test]
fn an_inviter_over_the_rate_of_strangers_is_given_the_last_resort_alone() {
    let mut state = PoolState::default();
    carry_out(&mut state, &upload(&["a"]), &Limits::STANDARD).unwrap();
    let only = |state: &PoolState| given(state, false, true, &Limits::STANDARD);
    assert_eq!(only(&state), Rejection::KeptForContacts.to_string());
    carry_out(&mut state, &upload(&["L"]), &Limits::STANDARD).unwrap();
    assert_eq!(only(&state), "L");
    assert_eq!(given(&state, false, false, &Limits::STANDARD), "a");
}
