//! A pool packed, forgotten and remembered: nothing that a command needs is lost.

use std::collections::BTreeSet;

use insta::assert_snapshot;
use keypool_ledger::{
    Event, Hash, KeyPackageRef, PackageCapabilities, PackageFacts, Record, ReleaseReason,
    RevokeReason, SignatureKey, Timestamp,
};
use keypool_projections::{
    Claim, Command, Evicted, PolicyChange, PoolState, ReservationStatus, RevokeScope, Stage,
    packing::{Packer, Unpacker},
};

use crate::history::{at, claim, envelope, group, package, pool, reference, reservation};

/// The events of a pool, each at the second of its number.
type History = Vec<Event>;

fn uploaded(name: &str) -> Event {
    Event::Uploaded(package(name).facts)
}

fn reserved(name: &str, number: u8, generation: u32) -> Event {
    Event::Reserved {
        keypackage_ref: reference(name),
        reservation: reservation(number),
        generation,
        holder: pool("alice"),
        group: group("g"),
        deadline: at(60),
    }
}

fn released(name: &str, number: u8, reason: ReleaseReason) -> Event {
    let (keypackage_ref, reservation) = (reference(name), reservation(number));
    Event::Released { keypackage_ref, reservation, reason }
}

fn spent(name: &str, number: u8, late: bool) -> Event {
    Event::Spent {
        keypackage_ref: reference(name),
        reservation: Some(reservation(number)),
        holder: Some(pool("alice")),
        group: group("g"),
        late,
    }
}

fn revoked(name: &str, reason: RevokeReason) -> Event {
    Event::Revoked { keypackage_ref: reference(name), reason, check: None }
}

fn state_of(history: &[Event]) -> PoolState {
    let events = (1..).zip(history).map(|(second, event)| (event, at(second)));
    PoolState::replay(events).unwrap()
}

/// The records of one package in a history.
fn records_of(history: &[Event], name: &str) -> Vec<Record> {
    let of = reference(name);
    let numbered = (1..).zip(history);
    let own = numbered.filter(|(_, event)| event.keypackage_ref() == Some(&of));
    let record = |(seq, event): (u64, &Event)| Record {
        seq,
        envelope: envelope(seq, pool("bob"), event.clone(), at(seq)),
        envelope_bytes: Vec::new(),
        payload: Vec::new(),
    };
    own.map(record).collect()
}

fn packed(state: &PoolState) -> Box<[u8]> {
    let mut packer = Packer::default();
    state.pack(&mut packer);
    packer.into_bytes()
}

/// A pool with a package at each stage, withdrawn for each reason, and a reservation of each status.
fn full_history() -> History {
    let with = |name: &str, credential: &[u8], extensions: &[u16]| {
        let capabilities = PackageCapabilities {
            extensions: extensions.to_vec(),
            proposals: vec![8],
            credentials: vec![1, 2],
        };
        Event::Uploaded(PackageFacts {
            credential: Hash::of(credential),
            capabilities: Some(Box::new(capabilities)),
            ..package(name).facts
        })
    };
    let names = ["a", "b", "c", "e", "f", "g", "h", "i", "j", "L"];
    let mut history: History = names.iter().map(|name| uploaded(name)).collect();
    history.extend([
        Event::Created(package("k").facts),
        with("l", b"carol", &[10]),
        with("m", b"dave", &[10, 11]),
        with("n", b"carol", &[10, 11]),
        reserved("a", 1, 1),
        spent("a", 1, false),
        reserved("b", 2, 1),
        released("b", 2, ReleaseReason::Lapsed),
        spent("b", 2, true),
        reserved("c", 3, 1),
        released("c", 3, ReleaseReason::Cancelled),
        reserved("c", 4, 2),
        Event::Reported {
            keypackage_ref: reference("c"),
            reservation: reservation(4),
            check: None,
        },
        Event::Renewed {
            keypackage_ref: reference("c"),
            reservation: reservation(4),
            deadline: at(90),
        },
        reserved("e", 5, 1),
        released("e", 5, ReleaseReason::Lapsed),
        reserved("e", 6, 2),
        Event::Conflict {
            keypackage_ref: reference("e"),
            lost: reservation(5),
            holds: reservation(6),
        },
        revoked("e", RevokeReason::Rotated),
        revoked("f", RevokeReason::Withdrawn),
        revoked("g", RevokeReason::Reported),
        revoked("h", RevokeReason::Lapsed),
        revoked("i", RevokeReason::Operator),
        Event::Expired { keypackage_ref: reference("j") },
        reserved("L", 7, 1),
        reserved("n", 8, 1),
        released("n", 8, ReleaseReason::Lapsed),
    ]);
    history
}

#[test]
fn a_packed_pool_comes_back_with_each_stage_reason_and_status() {
    let state = state_of(&full_history());
    let of_each: BTreeSet<Stage> = state.packages().map(|package| package.stage).collect();
    assert_eq!(of_each.len(), 6, "each stage");
    let statuses = (1..=8).map(|number| state.reservation(reservation(number)).unwrap().status);
    let mut statuses: Vec<String> = statuses.map(|status| format!("{status:?}")).collect();
    statuses.sort();
    statuses.dedup();
    assert_eq!(statuses.len(), 6, "each status");
    let bytes = packed(&state);
    let mut back = PoolState::unpack(&mut Unpacker::new(&bytes)).unwrap();
    assert_ne!(back, state, "the init keys are not in it");
    for package in state.packages().filter(|package| package.stage != Stage::Created) {
        back.recall_init_key(package.facts.init_key);
    }
    assert_eq!(back, state);
    assert_eq!(packed(&back), bytes);
    for end in 0..bytes.len() {
        assert_eq!(PoolState::unpack(&mut Unpacker::new(&bytes[..end])), None, "{end}");
    }
    // A change of the bytes is a change of the form, and of its number.
    assert_eq!(PoolState::PACKED_FORM, 5);
    assert_snapshot!(Hash::of(&bytes), @"f48053f5bf9796a8b4f4490d4fe35d7b5b3bcdd063145632c39b85294ddf0868");
}

#[test]
fn a_pool_forgets_packages_that_are_over_and_the_reservations_of_them() {
    let history = full_history();
    let mut state = state_of(&history);
    let (counts, n_ended) = (state.counts(), state.n_ended());
    assert_eq!(n_ended, 8);
    state.forget();
    assert_eq!((state.counts(), state.n_ended()), (counts, 1), "somebody holds one");
    let known = |name: &str| state.get(&reference(name)).is_some();
    assert_eq!(
        ["a", "b", "c", "e", "f", "j", "L"].map(known),
        [false, false, true, true, false, false, true]
    );
    let made = |number| state.reservation(reservation(number)).is_some();
    assert_eq!([1, 2, 3, 4, 5, 6, 7].map(made), [false, false, false, true, false, true, true]);
    assert!(!state.knows_init_key(&package("c").facts.init_key));
    let forgotten = state.clone();
    state.forget();
    assert_eq!(state, forgotten, "there is no more to forget");
}

#[test]
fn a_package_and_its_reservations_are_remembered_from_their_records() {
    let history = full_history();
    let (mut state, whole) = (state_of(&history), state_of(&history));
    state.forget();
    for name in ["b", "c", "e"] {
        state.recall(&records_of(&history, name)).unwrap();
        assert_eq!(state.get(&reference(name)), whole.get(&reference(name)), "{name}");
    }
    for number in [2, 3, 4, 5, 6] {
        let id = reservation(number);
        assert_eq!(state.reservation(id), whole.reservation(id), "{number}");
    }
    assert_eq!(state.reservation(reservation(1)), None, "of a package that nobody named");
    assert_eq!(state.open_reservations().count(), whole.open_reservations().count());
    // Records that are newer than the pool are not of it yet.
    let mut early = state_of(&history[..10]);
    early.forget();
    let before = early.clone();
    early.recall(&records_of(&history, "b")).unwrap();
    assert_eq!(early, before);
    // Records that end before the end of their package bring nothing back.
    let mut unspent = records_of(&history, "a");
    unspent.pop();
    state.recall(&unspent).unwrap();
    assert_eq!(state.get(&reference("a")), None);
    // The life of a package begins with its upload.
    let records = records_of(&history, "b");
    assert!(state.recall(&records[1..]).is_err());
    assert_eq!(PoolState::life_of(&reference("b"), &records).as_ref(), whole.get(&reference("b")));
    assert_eq!(PoolState::life_of(&reference("a"), &records), None);
    assert_eq!(PoolState::life_of(&reference("b"), &records[1..]), None);
}

#[test]
fn remembered_reservations_do_not_take_the_place_of_those_that_are_known() {
    let history = full_history();
    let mut state = state_of(&history);
    state.forget();
    // The records before the renewal have an earlier deadline.
    let mut records = records_of(&history, "c");
    records.pop();
    state.recall(&records).unwrap();
    let open = state.reservation(reservation(4)).unwrap();
    assert_eq!((open.deadline, open.status), (at(90), ReservationStatus::Open));
    assert_eq!(state.get(&reference("c")).unwrap().stage, Stage::Reserved);
}

#[test]
fn a_command_names_the_packages_and_reservations_that_are_to_be_remembered() {
    let mut state = state_of(&full_history());
    state.forget();
    let package_of = |name: &str| Evicted::Package(reference(name));
    let init_key = |name: &str| Evicted::InitKey(package(name).facts.init_key);
    let upload = [package("c"), package("a")].to_vec();
    let expected = [init_key("c"), package_of("a"), init_key("a")];
    assert_eq!(state.evicted_by(&Command::Upload(upload.clone())), expected);
    assert_eq!(state.evicted_by(&Command::Replace { packages: upload, next: None }), expected);
    let reserve = |number| Command::Reserve {
        reservation: reservation(number),
        holder: pool("alice"),
        group: group("g"),
        ciphersuites: Vec::new(),
        required: keypool_projections::RequiredCapabilities::default(),
        introduced: false,
        last_resort_only: false,
    };
    assert_eq!(state.evicted_by(&reserve(4)), []);
    assert_eq!(state.evicted_by(&reserve(3)), [Evicted::Reservation(reservation(3))]);
    let of_claim = |claim: Claim| {
        let check = None;
        let commands = [
            Command::Renew(claim.clone()),
            Command::Release(claim.clone()),
            Command::Report { claim: claim.clone(), check, admissible: true },
            Command::Spend { claim, group: group("g") },
        ];
        let all: Vec<Vec<Evicted>> = commands.iter().map(|each| state.evicted_by(each)).collect();
        assert!(all.iter().all(|each| *each == all[0]));
        all[0].clone()
    };
    assert_eq!(of_claim(claim("c", 4, "alice")), []);
    assert_eq!(of_claim(claim("c", 3, "alice")), [package_of("c")]);
    assert_eq!(of_claim(claim("a", 4, "alice")), [package_of("a")]);
    let reason = RevokeReason::Withdrawn;
    let which = RevokeScope::Refs(vec![reference("a"), reference("c")]);
    assert_eq!(state.evicted_by(&Command::Revoke { which, reason }), [package_of("a")]);
    let joined = vec![reservation(1), reservation(4)];
    let policy = Command::SetPolicy(PolicyChange { joined, ..PolicyChange::default() });
    assert_eq!(state.evicted_by(&policy), [Evicted::Reservation(reservation(1))]);
    let key = SignatureKey::new(&[1; 32]).unwrap();
    let register =
        Command::Register { signature_key: key, credential: "bob".to_owned(), statement: None };
    let all = Command::Revoke { which: RevokeScope::All, reason };
    for command in [register, all, Command::ReleaseName, Command::Settle] {
        assert_eq!(state.evicted_by(&command), [], "{command:?}");
    }
}

#[test]
fn a_fold_that_decides_nothing_forgets_all_that_cannot_change() {
    let history = full_history();
    let whole = state_of(&history);
    let kept = |before: Timestamp| -> Vec<KeyPackageRef> {
        let mut state = whole.clone();
        state.forget_ended(before);
        assert_eq!(state.counts(), whole.counts());
        assert_eq!(state.spent_since_yesterday(at(100)), 0);
        let live = state.live().count();
        assert_eq!(live, whole.live().count());
        state.packages().skip(live).map(|package| package.facts.keypackage_ref.clone()).collect()
    };
    let mut unspent: Vec<KeyPackageRef> = ["e", "f", "g", "h", "i", "j"].map(reference).to_vec();
    unspent.sort();
    assert_eq!(kept(at(999)), unspent);
    assert_eq!(kept(at(1000)), []);
    let mut state = whole.clone();
    state.forget_ended(at(999));
    let made = |state: &PoolState| {
        [1, 2, 4, 6, 7].map(|number| state.reservation(reservation(number)).is_some())
    };
    assert_eq!(made(&state), [false, false, true, true, true]);
    state.forget_ended(at(1000));
    assert_eq!(made(&state), [false, false, true, false, true]);
    let open: Vec<_> = state.open_reservations().map(|(id, _)| id).collect();
    assert_eq!(open, [reservation(4), reservation(7)]);
}
