//! The readings of a pool: its counts and times, its spends of the last day, its level, and how it differs from
//! another party's list.

use std::{collections::BTreeSet, time::Duration};

use keypool_ledger::{
    CredentialBytes, Event, Hash, KeyPackageRef, ReleaseReason, ReservePolicy, Signature,
    SignatureKey, SignedStatement, Timestamp,
};
use keypool_projections::{Command, Health, Level, Limits, PoolState, Stage};

use crate::history::{at, group, package, pool, reference, reservation};

const HOUR: u64 = 3_600;

fn evolved(events: impl IntoIterator<Item = (u64, Event)>) -> PoolState {
    let mut state = PoolState::default();
    for (second, event) in events {
        state.evolve(&event, at(second)).unwrap();
    }
    state
}

fn uploaded(name: &str) -> Event {
    Event::Uploaded(package(name).facts)
}

fn spent(name: &str) -> Event {
    Event::Spent {
        keypackage_ref: reference(name),
        reservation: None,
        holder: None,
        group: group("g"),
        late: false,
    }
}

fn reserved(name: &str, number: u8) -> Event {
    Event::Reserved {
        keypackage_ref: reference(name),
        reservation: reservation(number),
        generation: 1,
        holder: pool("alice"),
        group: group("g"),
        deadline: at(60),
    }
}

fn registered() -> Event {
    Event::Registered {
        signature_key: SignatureKey::new(&[1; 32]).unwrap(),
        credential: "bob".to_owned(),
        voucher: None,
        statement: None,
        frontend: None,
    }
}

#[test]
fn a_pool_tells_its_version_its_last_upload_and_its_owners_settings() {
    let none = PoolState::default();
    assert_eq!((none.version(), none.last_upload(), none.is_released()), (0, None, false));
    let credential = CredentialBytes::new(&[0, 1, 2]).unwrap();
    let statement = SignedStatement {
        by: SignatureKey::new(&[1; 32]).unwrap(),
        head: Hash::ZERO,
        until: at(9),
        proof: Signature::new(&[0; 64]).unwrap(),
    };
    let mut state = evolved([
        (0, registered()),
        (3, uploaded("a")),
        (5, uploaded("b")),
        (6, Event::CredentialDeclared { credential: credential.clone(), statement }),
        (7, Event::PolicySet { reserve: ReservePolicy::Contacts }),
        (8, Event::UserBlocked { user: "mallory".to_owned() }),
    ]);
    assert_eq!((state.version(), state.last_upload()), (6, Some(at(5))));
    assert_eq!(state.declared_credential(), Some(credential.digest()));
    assert_eq!(state.contacts().reserve(), ReservePolicy::Contacts);
    assert_eq!(state.contacts().blocked().collect::<Vec<_>>(), ["mallory"]);
    state.evolve(&Event::DeviceRemoved { by_operator: true }, at(9)).unwrap();
    assert_eq!((state.is_removed(), state.is_released()), (true, false));
    state.evolve(&Event::NameReleased {}, at(10)).unwrap();
    assert_eq!((state.is_removed(), state.is_released()), (true, true));
    state.evolve(&registered(), at(11)).unwrap();
    assert_eq!((state.is_removed(), state.is_released()), (false, false));
    state.pass_over();
    assert_eq!(state.version(), 10, "an event about evicted state counts too");
}

#[test]
fn a_spend_counts_for_a_day_and_is_forgotten_after_it() {
    let day = 24 * HOUR;
    let names = ["a", "b", "c"];
    let mut state = evolved(names.map(|name| (0, uploaded(name))));
    for (second, name) in [(0, "a"), (HOUR, "b")] {
        state.evolve(&spent(name), at(second)).unwrap();
    }
    let counted = |state: &PoolState| {
        [HOUR, day, day + 1, day + HOUR, day + HOUR + 1]
            .map(|second| state.spent_since_yesterday(at(second)))
    };
    assert_eq!(counted(&state), [2, 2, 1, 1, 0]);
    // A spend exactly a day later leaves the first one counted; nothing is counted twice.
    let mut later = state.clone();
    later.evolve(&spent("c"), at(day)).unwrap();
    assert_eq!(later.spent_since_yesterday(at(day)), 3);
    state.evolve(&spent("c"), at(day + 1)).unwrap();
    // The one that is over is gone, also for a clock that steps back.
    assert_eq!(state.spent_since_yesterday(at(HOUR)), 2);
}

#[test]
fn spends_of_a_clock_that_was_ahead_count_as_of_the_time_it_was_put_right() {
    let mut state = evolved(["a", "b", "c"].map(|name| (0, uploaded(name))));
    let ahead = 100 * HOUR;
    for (second, name) in [(HOUR, "a"), (ahead, "b"), (2 * HOUR, "c")] {
        state.evolve(&spent(name), at(second)).unwrap();
    }
    // All three count from two o'clock on at the latest, and are over a day later.
    let counted = |hour: u64| state.spent_since_yesterday(at(hour * HOUR));
    assert_eq!([2, 26, 27, 100].map(counted), [2, 2, 0, 0]);
}

#[test]
fn a_pool_and_a_list_differ_by_the_packages_that_one_of_them_has_alone() {
    let state = evolved([
        (0, Event::Created(package("e").facts)),
        (0, uploaded("a")),
        (0, uploaded("b")),
        (0, uploaded("c")),
        (1, reserved("a", 1)),
        (2, spent("c")),
    ]);
    let named = |names: &[&str]| -> BTreeSet<KeyPackageRef> {
        names.iter().map(|name| reference(name)).collect()
    };
    let difference = state.difference(&named(&["b", "c", "d"]));
    assert_eq!(difference.only_here, [(reference("a"), Stage::Reserved)]);
    assert_eq!(difference.only_there, Vec::from_iter(named(&["c", "d"])));
    let same = state.difference(&named(&["a", "b"]));
    assert_eq!((same.only_here.len(), same.only_there.len()), (0, 0));
}

#[test]
fn a_level_has_a_word_and_a_recommended_upload() {
    let levels = [0, 1, 2, 3, 8, 9].map(|available| (available, Level::of(available)));
    let words = levels.map(|(_, level)| level.word());
    assert_eq!(words, ["empty", "critical", "critical", "low", "low", "healthy"]);
    let recommended = |available, room| {
        let level = Level::of(available);
        Health { available, room, level, ..Health::default() }.recommended_upload()
    };
    let roomy = [0, 2, 8, 9, 40].map(|available| recommended(available, 64));
    assert_eq!(roomy, [32, 30, 24, 0, 0]);
    assert_eq!(recommended(0, 5), 5, "as far as there is room");
    let action = |available| {
        let level = Level::of(available);
        Health { available, room: 64, level, ..Health::default() }.recommended_action()
    };
    assert_eq!([8, 9].map(action), ["upload 24 packages", "nothing to do"]);
}

#[test]
fn a_package_expires_soon_from_two_days_before_its_end_on() {
    let limits = Limits::STANDARD;
    let mut facts = package("a").facts;
    facts.not_after = at(0).after(Duration::from_hours(100));
    let state = evolved([(0, Event::Uploaded(facts))]);
    let soon =
        |hour: u64, more: u64| Health::of(&state, at(hour * HOUR + more), &limits).expiring_soon;
    assert_eq!([soon(52, 0), soon(52, 1)], [0, 1]);
}

#[test]
fn the_pace_of_a_day_says_when_a_pool_is_empty() {
    let limits = Limits::STANDARD;
    let mut state = evolved(["a", "b", "c"].map(|name| (0, uploaded(name))));
    assert_eq!(Health::of(&state, at(0), &limits).seconds_to_empty, None, "nothing was spent");
    state.evolve(&spent("a"), at(0)).unwrap();
    assert_eq!(Health::of(&state, at(1), &limits).seconds_to_empty, Some(2 * 24 * HOUR));
}

#[test]
fn a_decision_comes_with_the_pool_as_it_leaves_it() {
    let limits = Limits::STANDARD;
    let state = evolved([(0, uploaded("a"))]);
    let upload = Command::Upload(vec![package("b")]);
    let (decision, after) = state.decide_with_outcome(&upload, at(1), &limits);
    let mut expected = state.clone();
    for event in &decision.events {
        expected.evolve(event, at(1)).unwrap();
    }
    assert_eq!((decision.events.len(), after), (1, Some(expected)));
    let (decision, after) = state.decide_with_outcome(&Command::Settle, at(1), &limits);
    assert_eq!((decision.events, after), (Vec::new(), None), "nothing has changed");
}

#[test]
fn a_package_that_only_its_owner_knows_is_uploaded_as_a_new_one() {
    let state = evolved([(0, Event::Created(package("a").facts))]);
    let decision = state.decide(&Command::Upload(vec![package("a")]), at(1), &Limits::STANDARD);
    assert_eq!(decision.events, [uploaded("a")]);
}

#[test]
fn time_moves_a_pool_at_the_first_of_its_ends() {
    let limits = Limits::STANDARD;
    let mut state = PoolState::default();
    assert_eq!(state.next_due(&limits), None);
    state.evolve(&uploaded("a"), at(0)).unwrap();
    assert_eq!(state.next_due(&limits), Some(at(1000)), "its lifetime ends");
    state.evolve(&reserved("a", 1), at(0)).unwrap();
    assert_eq!(state.next_due(&limits), Some(at(120)), "the reservation lapses first");
    for _ in 0..2 {
        let (keypackage_ref, reason) = (reference("a"), ReleaseReason::Lapsed);
        let reservation = reservation(1);
        let released = Event::Released { keypackage_ref, reservation, reason };
        state.evolve(&released, at(120)).unwrap();
        if state.get(&reference("a")).unwrap().lapsed == 1 {
            assert_eq!(state.next_due(&limits), Some(at(1000)));
            state.evolve(&reserved("a", 1), at(120)).unwrap();
        }
    }
    assert_eq!(state.next_due(&limits), Some(Timestamp::default()), "it is to be withdrawn now");
}
