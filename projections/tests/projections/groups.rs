//! Groups: their making, the first Commit of an epoch, the members it may remove, and the answers that are owed.

use keypool_ledger::{Event, InvitationAnswer, LeaveCause, PoolId, WelcomeFault};
use keypool_projections::{DeliveryLimits, DeliveryRejection, GroupState, MembershipChange};

use crate::{
    history::{group, pool},
    post::{answered, committed, devices, left, posted, welcomed},
};

const LIMITS: DeliveryLimits = DeliveryLimits { members_max: 8, ..DeliveryLimits::STANDARD };

/// A group that the first device has made and added the others to.
fn group_of(names: &[&str]) -> GroupState {
    let mut state = GroupState::default();
    state.evolve(&Event::GroupMade { creator: pool(names[0]) });
    state.evolve(&committed(names[0], 0, &names[1..], &[]));
    state
}

fn change(added: &[&str], removed: &[&str]) -> MembershipChange {
    MembershipChange { added: devices(added), removed: devices(removed) }
}

#[test]
fn a_group_is_made_once() {
    let (id, alice) = (group("g"), pool("alice"));
    let mut state = GroupState::default();
    assert_eq!((state.version(), state.is_made()), (0, false));
    let made = Event::GroupMade { creator: alice.clone() };
    assert_eq!(state.decide_make(&id, &alice), Ok(made.clone()));
    state.evolve(&made);
    assert_eq!((state.version(), state.epoch(), state.is_made()), (1, 0, true));
    let exists = Err(DeliveryRejection::GroupExists(id.clone()));
    assert_eq!(state.decide_make(&id, &pool("bob")), exists);
    // A group of a log from before that begins with its first Commit.
    let mut old = GroupState::default();
    old.evolve(&committed("alice", 0, &["bob"], &[]));
    assert_eq!((old.version(), old.epoch(), old.is_made()), (1, 1, false));
    assert_eq!(old.members().collect::<Vec<_>>(), [&alice, &pool("bob")]);
    assert_eq!(old.decide_make(&id, &alice), exists);
}

#[test]
fn the_commit_for_the_epoch_of_now_is_accepted_and_no_other() {
    let (id, none) = (group("g"), MembershipChange::default());
    let mut state = group_of(&["alice", "bob"]);
    let commit = |state: &GroupState, by: &str, epoch| {
        state.decide_commit(&id, &pool(by), epoch, &none, &LIMITS)
    };
    let refused = |epoch, current, is_late: bool| {
        let group = id.clone();
        Err(if is_late {
            DeliveryRejection::EpochTaken { group, epoch, current }
        } else {
            DeliveryRejection::EpochAhead { group, epoch, current }
        })
    };
    assert_eq!(commit(&state, "bob", 0), refused(0, 1, true));
    assert_eq!(commit(&state, "bob", 2), refused(2, 1, false));
    assert_eq!(commit(&state, "bob", 1), Ok(committed("bob", 1, &[], &[])));
    let stranger = DeliveryRejection::NotAMember { group: id.clone(), member: pool("carol") };
    assert_eq!(commit(&state, "carol", 1), Err(stranger.clone()));
    assert_eq!(state.decide_post(&id, &pool("carol")), Err(stranger));
    assert_eq!(state.decide_post(&id, &pool("bob")), Ok(posted("bob")));
    let unknown = DeliveryRejection::UnknownGroup(id.clone());
    assert_eq!(commit(&GroupState::default(), "bob", 0), Err(unknown));
    // No epoch follows the last number there is.
    state.evolve(&committed("alice", u64::MAX - 1, &[], &[]));
    assert_eq!(commit(&state, "bob", u64::MAX), refused(u64::MAX, u64::MAX, false));
}

#[test]
fn a_group_has_as_many_members_as_it_may_once_the_removed_ones_are_gone() {
    let state = group_of(&["alice", "bob", "carol"]);
    let commit = |added: &[&str], removed: &[&str], members_max| {
        let limits = DeliveryLimits { members_max, ..LIMITS };
        let decided =
            state.decide_commit(&group("g"), &pool("alice"), 1, &change(added, removed), &limits);
        decided.map(|event| match event {
            Event::Committed { removed, .. } => removed,
            other => panic!("{other:?}"),
        })
    };
    let full = |max| Err(DeliveryRejection::TooManyMembers(max));
    let none: Vec<PoolId> = Vec::new();
    assert_eq!(commit(&["dave"], &[], 4), Ok(none.clone()));
    assert_eq!(commit(&["dave"], &[], 3), full(3));
    assert_eq!(commit(&["dave", "erin"], &[], 4), full(4));
    assert_eq!(commit(&["dave"], &["bob"], 3), Ok(devices(&["bob"])));
    assert_eq!(commit(&["bob"], &["bob"], 3), Ok(devices(&["bob"])), "in the place of its leaf");
    assert_eq!(commit(&["bob"], &[], 3), full(3));
    // One that has left the delivery may still have a leaf; any other name is left out.
    assert_eq!(commit(&["dave"], &["dave", "zoe"], 4), Ok(devices(&["dave"])));
    assert_eq!(commit(&[], &["zoe"], 3), Ok(none));
}

#[test]
fn a_commit_removes_half_of_the_other_users_at_most() {
    let state = group_of(&["alice", "alice/b", "bob", "bob/b", "carol", "dave", "erin"]);
    let removes = |added: &[&str], removed: &[&str]| {
        let change = change(added, removed);
        state.decide_commit(&group("g"), &pool("alice"), 1, &change, &LIMITS).map(drop)
    };
    let too_many = |max| Err(DeliveryRejection::RemovesTooMany { max });
    assert_eq!(removes(&[], &["bob", "bob/b", "carol"]), Ok(()), "two users of four");
    assert_eq!(removes(&[], &["bob", "bob/b", "carol", "alice/b"]), Ok(()), "and an own device");
    assert_eq!(removes(&[], &["bob", "carol", "dave"]), too_many(2));
    assert_eq!(removes(&["dave"], &["bob", "carol", "dave"]), Ok(()), "one is added again");
    assert_eq!(removes(&[], &["bob", "carol", "zoe"]), Ok(()), "one is no member");
    let itself = DeliveryRejection::RemovesItself(pool("alice"));
    assert_eq!(removes(&[], &["alice"]), Err(itself));
    // In a small group it is one user in any case.
    let small = |names: &[&str], removed: &[&str]| {
        let change = change(&[], removed);
        group_of(names).decide_commit(&group("g"), &pool("alice"), 1, &change, &LIMITS).map(drop)
    };
    assert_eq!(small(&["alice", "bob"], &["bob"]), Ok(()));
    assert_eq!(small(&["alice", "bob", "carol"], &["bob", "carol"]), too_many(1));
}

#[test]
fn a_device_owes_one_answer_to_the_welcome_that_names_its_inviter() {
    let (bob, fault) = (pool("bob"), WelcomeFault::KeysGone);
    let mut state = group_of(&["alice", "bob", "carol"]);
    assert_eq!(state.decide_joined(&bob), None);
    assert_eq!(state.decide_failed(&bob, fault), []);
    state.evolve(&welcomed(&["bob", "carol"], Some("alice")));
    let owing = |state: &GroupState| state.unanswered().cloned().collect::<Vec<_>>();
    assert_eq!(owing(&state), devices(&["bob", "carol"]));
    let answer = |answer| answered("bob", "alice", answer);
    assert_eq!(state.decide_joined(&bob), Some(answer(InvitationAnswer::Joined)));
    let failed = InvitationAnswer::Failed { reason: fault };
    let events = [answer(failed), left("bob", LeaveCause::Failed)];
    assert_eq!(state.decide_failed(&bob, fault), events);
    let leaves = |state: &GroupState, cause| state.decide_leave(&bob, cause);
    for (cause, given) in [
        (LeaveCause::Left, InvitationAnswer::Declined),
        (LeaveCause::Failed, InvitationAnswer::Declined),
        (LeaveCause::Ignored, InvitationAnswer::Expired),
    ] {
        assert_eq!(leaves(&state, cause), [answer(given), left("bob", cause)]);
    }
    // A device that has posted has joined.
    for event in [posted("bob"), committed("bob", 1, &[], &[])] {
        let mut state = state.clone();
        state.evolve(&event);
        let events = [answer(InvitationAnswer::Joined), left("bob", LeaveCause::Ignored)];
        assert_eq!(leaves(&state, LeaveCause::Ignored), events);
    }
    state.evolve(&answer(InvitationAnswer::Joined));
    assert_eq!(owing(&state), devices(&["carol"]));
    assert_eq!(leaves(&state, LeaveCause::Left), [left("bob", LeaveCause::Left)]);
    state.evolve(&left("bob", LeaveCause::Left));
    assert_eq!(leaves(&state, LeaveCause::Left), [], "it is no member");
    state.evolve(&left("carol", LeaveCause::Left));
    assert_eq!(owing(&state), [], "an invitation ends with the membership");
}
