//! The rules of the audit, with histories made by hand.

mod ledger;

use std::collections::BTreeMap;

use insta::assert_snapshot;
use keypool_ledger::{
    CommandId, Event, EventEnvelope, GroupId, Hash, KeyPackageRef, PackageFacts, PoolId,
    ReleaseReason, ReservationId, RevokeReason, StreamId, Timestamp,
};
use keypool_projections::{PoolState, Stage};
use quickcheck::{Arbitrary, Gen, QuickCheck};
use uuid::Uuid;

use super::{Fetched, Histories};

const HOUR: u64 = 3600;

fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(secs)
}

fn package(seed: u8) -> KeyPackageRef {
    KeyPackageRef::new(&[seed; 32]).unwrap()
}

fn facts(seed: u8, last_resort: bool) -> PackageFacts {
    PackageFacts {
        keypackage_ref: package(seed),
        not_before: at(0),
        not_after: at(1_000_000),
        ciphersuite: 1,
        credential: Hash::of(b"credential"),
        init_key: Hash::of(&[seed]),
        last_resort,
        capabilities: None,
    }
}

fn person(name: &str) -> PoolId {
    name.parse().unwrap()
}

fn claim(number: u8) -> ReservationId {
    ReservationId(Uuid::from_bytes([number; 16]))
}

fn friends() -> GroupId {
    GroupId::new(b"friends").unwrap()
}

fn reserved(seed: u8, number: u8, holder: &str) -> Event {
    Event::Reserved {
        keypackage_ref: package(seed),
        reservation: claim(number),
        generation: 1,
        holder: person(holder),
        group: friends(),
        deadline: at(1_000),
    }
}

fn spent(seed: u8, number: u8, holder: &str) -> Event {
    Event::Spent {
        keypackage_ref: package(seed),
        reservation: Some(claim(number)),
        holder: Some(person(holder)),
        group: friends(),
        late: false,
    }
}

fn released(seed: u8, number: u8, reason: ReleaseReason) -> Event {
    Event::Released { keypackage_ref: package(seed), reservation: claim(number), reason }
}

/// The events that the device records when it joins.
fn joined(seed: u8, inviter: Option<&str>) -> Event {
    Event::Spent {
        keypackage_ref: package(seed),
        reservation: None,
        holder: inviter.map(person),
        group: friends(),
        late: false,
    }
}

fn history(events: Vec<(u64, Event)>) -> Vec<EventEnvelope> {
    let envelope = |(number, (secs, event)): (usize, (u64, Event))| EventEnvelope {
        schema: 1,
        stream: StreamId::Pool(person("bob/main")),
        version: number as u64 + 1,
        at: at(secs),
        command: CommandId(Uuid::nil()),
        request: Hash::ZERO,
        prev: Hash::ZERO,
        payload: Hash::ZERO,
        event,
    };
    events.into_iter().enumerate().map(envelope).collect()
}

/// The findings of a device that was present at `present`, with both histories known to their ends.
fn found(mirror: Vec<(u64, Event)>, own: Vec<(u64, Event)>, present: u64) -> String {
    let (mirror, own) = (history(mirror), history(own));
    let fetched = Fetched { own: own.len() as u64, mirror: mirror.len() as u64, anew_after: 0 };
    let awaited = BTreeMap::new();
    let present = at(present);
    let histories = Histories { mirror: &mirror, own: &own, fetched, awaited: &awaited, present };
    let lines: Vec<String> = histories.examine().iter().map(ToString::to_string).collect();
    lines.join("\n")
}

fn made() -> Vec<(u64, Event)> {
    vec![(0, Event::Created(facts(1, false)))]
}

fn uploaded() -> (u64, Event) {
    (0, Event::Uploaded(facts(1, false)))
}

#[test]
fn an_invitation_that_was_joined_is_nothing_to_tell() {
    let mirror =
        vec![uploaded(), (1, reserved(1, 1, "alice/main")), (2, spent(1, 1, "alice/main"))];
    let own = vec![(0, Event::Created(facts(1, false))), (3, joined(1, Some("alice/main")))];
    assert_eq!(found(mirror.clone(), own, 100 * HOUR), "");
    // The same inviter once more, after the first reservation has lapsed.
    let mut again = mirror;
    again.splice(
        1..2,
        [
            (1, reserved(1, 9, "carol/main")),
            (1_000, released(1, 9, ReleaseReason::Lapsed)),
            (1_001, reserved(1, 1, "alice/main")),
        ],
    );
    let own = vec![(0, Event::Created(facts(1, false))), (3, joined(1, Some("alice/main")))];
    assert_eq!(found(again, own, 100 * HOUR), "");
}

#[test]
fn a_spend_without_a_welcome_is_told_after_a_day() {
    let mirror =
        vec![uploaded(), (1, reserved(1, 1, "alice/main")), (2, spent(1, 1, "alice/main"))];
    assert_eq!(found(mirror.clone(), made(), 24 * HOUR + 1), "");
    assert_snapshot!(found(mirror, made(), 24 * HOUR + 2), @"Package 01010101 was spent by alice/main, and no Welcome for it was joined. Open your app, so that it takes in what waits; if nothing comes, ask the inviter whether the invitation was sent.");
}

#[test]
fn nothing_is_missed_of_a_package_that_the_device_never_made_or_of_last_resort() {
    let mirror =
        vec![uploaded(), (1, reserved(1, 1, "alice/main")), (2, spent(1, 1, "alice/main"))];
    assert_eq!(found(mirror.clone(), Vec::new(), 100 * HOUR), "");
    let mut last_resort = mirror;
    last_resort[0] = (0, Event::Uploaded(facts(1, true)));
    let own = vec![(0, Event::Created(facts(1, true)))];
    assert_eq!(found(last_resort, own, 100 * HOUR), "");
}

#[test]
fn what_was_heard_of_lately_is_still_waited_for() {
    let mirror = history(vec![
        uploaded(),
        (1, reserved(1, 1, "alice/main")),
        (2, spent(1, 1, "alice/main")),
    ]);
    let own = history(made());
    let awaited = BTreeMap::from([(package(1), at(500 * HOUR))]);
    let count = |present| {
        let fetched = Fetched { own: 1, mirror: 3, anew_after: 0 };
        let (mirror, own, awaited) = (&mirror[..], &own[..], &awaited);
        Histories { mirror, own, fetched, awaited, present }.examine().len()
    };
    assert_eq!((count(at(523 * HOUR)), count(at(524 * HOUR))), (0, 1));
}

#[test]
fn a_welcome_without_a_reservation_is_told_once_the_history_is_known() {
    let own = vec![(0, Event::Created(facts(1, false))), (3, joined(1, Some("alice/main")))];
    assert_snapshot!(found(vec![uploaded()], own.clone(), 0), @"A Welcome for package 01010101 was joined, and by the server's history nobody was ever given it. Ask the inviter where the package came from: it was given out behind the history's back.");
    let (mirror, own) = (history(vec![uploaded()]), history(own));
    for fetched in [(1, 1, 0), (2, 2, 0), (2, 1, 2)].map(|(own, mirror, anew_after)| Fetched {
        own,
        mirror,
        anew_after,
    }) {
        let (present, awaited) = (at(0), BTreeMap::new());
        let (mirror, own, awaited) = (&mirror[..], &own[..], &awaited);
        let histories = Histories { mirror, own, fetched, awaited, present };
        assert_eq!(histories.examine(), [], "{fetched:?}: more may have come since");
    }
}

#[test]
fn a_second_inviter_is_told() {
    let twice =
        vec![uploaded(), (1, reserved(1, 1, "alice/main")), (2, reserved(1, 2, "carol/main"))];
    let after = vec![
        uploaded(),
        (1, reserved(1, 1, "alice/main")),
        (2, spent(1, 1, "alice/main")),
        (3, reserved(1, 2, "carol/main")),
    ];
    let past = vec![uploaded(), (1, reserved(1, 1, "alice/main")), (2, spent(1, 2, "carol/main"))];
    let early = vec![
        uploaded(),
        (1, reserved(1, 1, "alice/main")),
        (2, released(1, 1, ReleaseReason::Lapsed)),
        (3, reserved(1, 2, "carol/main")),
    ];
    let given_back = vec![
        uploaded(),
        (1, reserved(1, 1, "alice/main")),
        (2, released(1, 1, ReleaseReason::Cancelled)),
        (3, reserved(1, 2, "carol/main")),
    ];
    let told = [twice, after, past, early, given_back].map(|mirror| found(mirror, made(), 0));
    assert_snapshot!(told.join("\n--\n"), @"
    Package 01010101 was given to carol/main while it was still alice/main's. Ask both inviters for their receipts, and give them to who runs the server.
    --
    Package 01010101 was given to carol/main while it was still alice/main's. Ask both inviters for their receipts, and give them to who runs the server.
    --
    Package 01010101 was given to carol/main while it was still alice/main's. Ask both inviters for their receipts, and give them to who runs the server.
    --
    The reservation of package 01010101 by alice/main was ended before its time was over. Ask both inviters for their receipts, and give them to who runs the server.
    --
    ");
}

#[test]
fn a_welcome_from_somebody_else_is_told() {
    let mirror =
        vec![uploaded(), (1, reserved(1, 1, "alice/main")), (2, spent(1, 1, "alice/main"))];
    let own = |inviter| vec![(0, Event::Created(facts(1, false))), (3, joined(1, inviter))];
    assert_snapshot!(found(mirror.clone(), own(Some("carol/main")), 0), @"Package 01010101 was alice/main's by the server's history, and the Welcome came from carol/main. Look at who is in the group before you say anything there, and ask both of them.");
    assert_eq!(found(mirror, own(None), 0), "", "a name without a device names nobody");
    // One whose reservation had lapsed, and who did not ask before using it all the same.
    let lapsed = vec![
        uploaded(),
        (1, reserved(1, 1, "carol/main")),
        (1_000, released(1, 1, ReleaseReason::Lapsed)),
        (1_001, reserved(1, 2, "alice/main")),
    ];
    assert_eq!(found(lapsed.clone(), own(Some("carol/main")), 0), "", "perhaps it spends it yet");
    let spent = [lapsed, vec![(1_002, spent(1, 2, "alice/main"))]].concat();
    assert!(found(spent, own(Some("carol/main")), 0).contains("came from carol/main"));
}

#[test]
fn an_inviter_who_was_erased_may_be_anybody() {
    let erased = "~AQEBAQEBAQEBAQEBAQEBAQ/~2";
    let mirror = vec![uploaded(), (1, reserved(1, 1, erased)), (2, spent(1, 1, erased))];
    let own = vec![(0, Event::Created(facts(1, false))), (3, joined(1, Some("carol/main")))];
    assert_eq!(found(mirror, own, 0), "");
}

#[test]
fn a_conflict_is_worth_knowing() {
    let conflict = Event::Conflict { keypackage_ref: package(1), lost: claim(1), holds: claim(2) };
    assert_snapshot!(found(vec![uploaded(), (1, conflict)], made(), 0), @"A late spend of package 01010101 was refused, since it had been handed on. The inviter was told, and invites again; nothing is to be done.");
}

/// A change of one package by somebody, as random as may be.
#[derive(Clone, Copy, Debug)]
struct Step(u8, u8, u8);

impl Arbitrary for Step {
    fn arbitrary(g: &mut Gen) -> Self {
        Self(u8::arbitrary(g) % 7, u8::arbitrary(g) % 3, u8::arbitrary(g) % 3)
    }
}

impl Step {
    /// A reservation is of one package.
    fn number(self) -> u8 {
        self.1 * 3 + self.2
    }

    fn event(self) -> Event {
        let Self(kind, seed, who) = self;
        let number = self.number();
        let holder = ["alice/main", "carol/main", "dave/main"][usize::from(who)];
        let (keypackage_ref, reason) = (package(seed), RevokeReason::Withdrawn);
        match kind {
            0 | 1 => reserved(seed, number, holder),
            2 => released(seed, number, ReleaseReason::Cancelled),
            3 => released(seed, number, ReleaseReason::Lapsed),
            4 => spent(seed, number, holder),
            5 => Event::Revoked { keypackage_ref, reason, check: None },
            _ => Event::Expired { keypackage_ref },
        }
    }
}

/// A second inviter is told exactly where the mirror's fold refuses one: the two are worked out in
/// different ways, and agree.
fn fold_and_audit_agree(steps: Vec<Step>) -> bool {
    let mut pool = PoolState::default();
    let mut events: Vec<(u64, Event)> = Vec::new();
    for seed in 0..3 {
        events.push((0, Event::Uploaded(facts(seed, false))));
    }
    for (_, event) in &events {
        pool.evolve(event, at(0)).unwrap();
    }
    let mut ever_refused = false;
    let mut expected = false;
    for step in steps {
        let event = step.event();
        let holds = |pool: &PoolState| {
            let open =
                pool.open_reservations().find(|(_, open)| open.keypackage_ref == package(step.1));
            open.map(|(id, _)| id)
        };
        // The server's rules say whose reservation it is; the fold leaves that to them.
        let is_others = matches!(event, Event::Spent { .. } | Event::Released { .. })
            && holds(&pool) != Some(claim(step.number()));
        if is_others {
            continue;
        }
        let refused = pool.clone().evolve(&event, at(2_000)).is_err();
        ever_refused |= refused;
        let is_second = matches!(event, Event::Reserved { .. } | Event::Spent { .. }) && refused;
        let is_spent = pool.get(&package(step.1)).unwrap().stage == Stage::Spent;
        expected |= is_second && (is_spent || holds(&pool).is_some());
        events.push((2_000, event.clone()));
        if refused {
            break;
        }
        pool.evolve(&event, at(2_000)).unwrap();
    }
    let told = found(events, Vec::new(), 0);
    told.contains("was given to") == expected && (ever_refused || told.is_empty())
}

#[test]
fn what_the_fold_refuses_as_a_second_use_the_audit_tells() {
    QuickCheck::new().tests(500).quickcheck(fold_and_audit_agree as fn(Vec<Step>) -> bool);
}
