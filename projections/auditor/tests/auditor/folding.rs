//! A fold that forgets counts as one that remembers, and stays small.

use std::time::Duration;

use keypool_auditor::replay::{Fold, Keep};
use keypool_ledger::{Event, Hash, KeyPackageRef, ReleaseReason, ReservationId, RevokeReason};
use uuid::Uuid;

use crate::history::{at, envelope, group, package, pool};

/// Numbers that look random and are the same again.
fn drawn(seed: u64, below: u64) -> u64 {
    let digest = Hash::of(&seed.to_be_bytes());
    u64::from_be_bytes(*digest.as_bytes().first_chunk().unwrap()) % below
}

/// The steps that may be tried with a package, whether or not they may happen.
fn attempt(kind: u64, n: u64, minute: u64) -> Event {
    let keypackage_ref = KeyPackageRef::new(Hash::of(&n.to_be_bytes()).as_bytes()).unwrap();
    let reservation = ReservationId(Uuid::from_u128(u128::from(n)));
    let (holder, group, deadline) = (pool("alice"), group("g"), at(60 * minute + 60));
    match kind {
        0..3 => {
            Event::Reserved { keypackage_ref, reservation, generation: 1, holder, group, deadline }
        }
        3 => Event::Renewed { keypackage_ref, reservation, deadline },
        4 => Event::Released { keypackage_ref, reservation, reason: ReleaseReason::Lapsed },
        5 | 6 => Event::Spent {
            keypackage_ref,
            reservation: Some(reservation),
            holder: Some(holder),
            group,
            late: false,
        },
        7 => Event::Expired { keypackage_ref },
        8 => Event::Revoked { keypackage_ref, reason: RevokeReason::Withdrawn, check: None },
        _ => Event::Conflict { keypackage_ref, lost: reservation, holds: reservation },
    }
}

#[test]
fn what_is_forgotten_is_still_counted_and_memory_stays_flat() {
    let (mut all, mut live) = (Fold::keeping(Keep::All), Fold::keeping(Keep::Live));
    let (bob, mut n_packages, mut seq, mut most) = (pool("bob"), 0, 0, 0);
    for minute in 0..30_000 {
        let event = if minute % 4 == 0 {
            n_packages += 1;
            let mut facts = package("a").facts;
            facts.keypackage_ref =
                KeyPackageRef::new(Hash::of(&u64::to_be_bytes(n_packages)).as_bytes()).unwrap();
            facts.init_key = Hash::of(facts.keypackage_ref.as_bytes());
            facts.not_after = at(60 * minute).after(Duration::from_hours(16));
            facts.last_resort = n_packages % 50 == 0;
            Event::Uploaded(facts)
        } else {
            let n = n_packages.saturating_sub(drawn(minute, 30));
            attempt(drawn(minute + 1_000_000, 10), n, minute)
        };
        let envelope = envelope(seq + 1, bob.clone(), event, at(60 * minute));
        if all.take(seq + 1, &envelope).is_err() {
            continue;
        }
        seq += 1;
        live.take(seq, &envelope).unwrap();
        let (whole, lean) = (all.pool(&bob).unwrap(), live.pool(&bob).unwrap());
        assert_eq!((lean.counts(), lean.version()), (whole.counts(), whole.version()), "at {seq}");
        if minute % 100 == 0 {
            most = most.max(lean.packages().count() - lean.live().count());
        }
    }
    let (whole, lean) = (all.pool(&bob).unwrap(), live.pool(&bob).unwrap());
    assert!(whole.live().eq(lean.live()), "what may still change is known in full");
    let ended = whole.packages().count() - whole.live().count();
    assert!(most < 1000 && 3000 < ended, "{most} of {ended} sealed fates were kept at a time");
    assert!(live.passed_over() > 0, "a conflict over a package that was spent long before");
    assert_eq!(all.passed_over(), 0);
}

#[test]
fn a_fold_that_remembers_says_what_it_refuses() {
    let mut fold = Fold::default();
    let spend = |seq| envelope(seq, pool("bob"), attempt(5, 1, 0), at(0));
    assert_eq!(fold.take(1, &spend(1)).unwrap_err().stage, None);
    assert_eq!(fold.refused().len(), 1);
    assert_eq!((fold.refused()[0].rule, &fold.refused()[0].events[..]), ("I6", &[1][..]));
}
