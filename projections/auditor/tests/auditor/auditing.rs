//! The auditor at the boundaries of the promises: the last moment that is right, and the first.

use std::time::Duration;

use keypool_auditor::invariants::{Auditor, InvariantParams};
use keypool_ledger::{
    Event, PackageCapabilities, PackageFacts, ReleaseReason, RevokeReason, SignatureKey,
};
use keypool_projections::LeafKey;

use crate::history::{at, envelope, group, leaf_key, package, pool, reference, reservation};

/// The rules that a history of one package breaks, its first event being an upload at second 0.
fn broken(events: &[(Event, Duration)]) -> Vec<&'static str> {
    let mut auditor = Auditor::new(InvariantParams::STANDARD);
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

/// The rules that bob's pool breaks if his contact is handed the last resort after these events, though a
/// package is there.
fn broken_by_a_last_resort_after(events: Vec<Event>) -> Vec<&'static str> {
    let uploads = ["a", "L"].map(|name| Event::Uploaded(package(name).facts));
    let Event::Reserved { reservation, generation, holder, group, deadline, .. } = reserved().0
    else {
        panic!("not a reservation")
    };
    let keypackage_ref = reference("L");
    let offer =
        Event::Reserved { keypackage_ref, reservation, generation, holder, group, deadline };
    let mut auditor = Auditor::new(InvariantParams::STANDARD);
    for (seq, event) in (1..).zip(events.into_iter().chain(uploads).chain([offer])) {
        auditor.see(seq, &envelope(seq, pool("bob"), event, at(10)));
    }
    auditor.finish().into_iter().map(|finding| finding.rule).collect()
}

#[test]
fn whom_the_server_has_forgotten_as_a_contact_the_auditor_takes_for_a_stranger() {
    let registered = |number| Event::Registered {
        signature_key: SignatureKey::new(&[number; 32]).unwrap(),
        credential: "bob".to_owned(),
        voucher: None,
        statement: None,
        frontend: None,
    };
    let added =
        |user: &str| Event::ContactAdded { user: user.to_owned(), reservation: reservation(9) };
    let known = vec![registered(1), added("alice")];
    let gone =
        [known.clone(), vec![Event::DeviceRemoved { by_operator: false }, registered(2)]].concat();
    let others: Vec<_> = (0..1024).map(|n| added(&format!("user{n}"))).collect();
    let many = [known.clone(), others.clone()].concat();
    assert_eq!(broken_by_a_last_resort_after(known), ["offer"]);
    assert_eq!(broken_by_a_last_resort_after(gone), [""; 0]);
    assert_eq!(broken_by_a_last_resort_after(many), [""; 0]);
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
    let margin = InvariantParams::STANDARD.life_margin;
    assert_eq!(offered(end.before(margin)), [""; 0]);
    assert_eq!(offered(end.before(margin).after(Duration::from_millis(1))), ["offer"]);
    assert_eq!(offered(at(10)), ["offer"], "a claim for no time at all");
}

#[test]
fn the_key_of_another_scheme_changes_only_when_no_package_of_it_is_live() {
    let registered = Event::Registered {
        signature_key: SignatureKey::new(&[1; 32]).unwrap(),
        credential: "bob".to_owned(),
        voucher: None,
        statement: None,
        frontend: None,
    };
    let pinned = |number| {
        let LeafKey { signature_scheme, signature_key } = leaf_key(number);
        Event::LeafKeyPinned { signature_scheme, signature_key, statement: None }
    };
    let withdrawn = Event::Revoked {
        keypackage_ref: reference("a:1"),
        reason: RevokeReason::Withdrawn,
        check: None,
    };
    let rotated = Event::KeyRotated {
        signature_key: SignatureKey::new(&[2; 32]).unwrap(),
        credential: "bob".to_owned(),
        statement: None,
    };
    let uploaded = || Event::Uploaded(package("a:1").facts);
    let broken = |events: &[Event]| {
        broken(&events.iter().map(|event| (event.clone(), Duration::ZERO)).collect::<Vec<_>>())
    };
    let pool_of_1 = [registered.clone(), pinned(1), uploaded()];
    let then = |more: &[Event]| broken(&[&pool_of_1, more].concat());
    assert_eq!(then(&[]), [""; 0]);
    assert_eq!(then(&[pinned(2)]), ["device"]);
    assert_eq!(then(&[withdrawn, pinned(2)]), [""; 0]);
    assert_eq!(then(&[rotated, pinned(2)]), [""; 0]);
    assert_eq!(broken(&[registered, uploaded(), pinned(1)]), [""; 0], "none was known before");
    assert_eq!(broken(&[pinned(1)]), ["device"], "nobody speaks for the device");
}

/// The rules that are broken if the second of two packages is reserved first.
fn broken_by_reserving_the_second(first: &[u16], second: &[u16]) -> Vec<&'static str> {
    let uploaded = |name: &str, extensions: &[u16]| {
        let capabilities = PackageCapabilities {
            extensions: extensions.to_vec(),
            ..PackageCapabilities::default()
        };
        let capabilities = Some(Box::new(capabilities));
        Event::Uploaded(PackageFacts { capabilities, ..package(name).facts })
    };
    let reserved = Event::Reserved {
        keypackage_ref: reference("c"),
        reservation: reservation(1),
        generation: 1,
        holder: pool("carol"),
        group: group("g"),
        deadline: at(60),
    };
    let events = [uploaded("b", first), uploaded("c", second), reserved];
    broken(&events.map(|event| (event, Duration::from_secs(1))))
}

#[test]
fn a_package_is_passed_over_only_for_one_with_other_capabilities() {
    assert!(broken_by_reserving_the_second(&[10], &[10, 0xff01]).is_empty());
    assert_eq!(broken_by_reserving_the_second(&[10], &[10]), ["offer"]);
}
