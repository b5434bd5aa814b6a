//! The auditor at the boundaries of what was promised: the last moment that is right, and the first.

use std::time::Duration;

use keypool_ledger::{Event, ReleaseReason};
use keypool_projections::audit::{Auditor, Promises};

use crate::history::{at, envelope, group, package, pool, reference, reservation};

/// The rules that a history of one package breaks, its first event being an upload at second 0.
fn broken(events: &[(Event, Duration)]) -> Vec<&'static str> {
    let mut auditor = Auditor::new(Promises::STANDARD);
    let upload = (Event::Uploaded(package("a").facts), Duration::ZERO);
    for (seq, (event, after)) in (1..).zip(std::iter::once(&upload).chain(events)) {
        auditor.see(seq, &envelope(seq, pool("bob"), event.clone(), at(0).after(*after)));
    }
    auditor.finish().into_iter().map(|finding| finding.rule).collect()
}

fn reserved() -> (Event, Duration) {
    let event = Event::Reserved {
        keypackage_ref: reference("a"),
        reservation: reservation(1),
        generation: 1,
        holder: pool("alice"),
        group: group("g"),
        deadline: at(70),
    };
    (event, Duration::from_secs(10))
}

#[test]
fn a_lapse_is_early_until_deadline_and_grace_are_over() {
    let lapsed = |millis| {
        let (keypackage_ref, reservation) = (reference("a"), reservation(1));
        let event = Event::Released { keypackage_ref, reservation, reason: ReleaseReason::Lapsed };
        broken(&[reserved(), (event, Duration::from_millis(millis))])
    };
    assert_eq!(lapsed(70_000), ["lapse"], "the grace is still to come");
    assert_eq!(lapsed(129_999), ["lapse"]);
    assert_eq!(lapsed(130_000), [""; 0]);
}

#[test]
fn a_package_expires_when_its_lifetime_is_over_and_no_earlier() {
    let end = package("a").facts.not_after.since(at(0));
    let expired = |after| broken(&[(Event::Expired { keypackage_ref: reference("a") }, after)]);
    assert_eq!(expired(end.saturating_sub(Duration::from_millis(1))), ["I5"]);
    assert_eq!(expired(end), [""; 0]);
}

#[test]
fn a_package_must_outlive_its_reservation_and_the_margin() {
    let end = package("a").facts.not_after;
    let offered = |deadline| {
        let (mut event, after) = reserved();
        if let Event::Reserved { deadline: told, .. } = &mut event {
            *told = deadline;
        }
        broken(&[(event, after)])
    };
    let margin = Promises::STANDARD.life_margin;
    assert_eq!(offered(end.before(margin)), [""; 0]);
    assert_eq!(offered(end.before(margin).after(Duration::from_millis(1))), ["offer"]);
    assert_eq!(offered(at(10)), ["offer"], "a claim for no time at all");
}
