//! Explanations: the life of a package in sentences.

use std::time::Duration;

use insta::assert_snapshot;
use keypool_ledger::{
    Event, KeyPackageRef, PoolId, ReleaseReason, RevokeReason, SignatureKey, Timestamp,
};
use keypool_projections::{
    Limits, PoolState,
    explanation::{
        PackageStory, device_sentence, why_not,
        words::{escaped, one_line, short, span, time},
    },
};

use crate::history::{at, envelope, group, package, pool, reference, reservation};

fn of_a() -> KeyPackageRef {
    reference("a")
}

fn uploaded(last_resort: bool) -> Event {
    let mut facts = package("a").facts;
    facts.last_resort = last_resort;
    Event::Uploaded(facts)
}

/// A reservation by a user that lasts a minute from a second on.
fn reserved(number: u8, holder: &str, second: u64) -> (u64, Event) {
    let event = Event::Reserved {
        keypackage_ref: of_a(),
        reservation: reservation(number),
        generation: u32::from(number),
        holder: pool(holder),
        group: group("g"),
        deadline: at(second + 60),
    };
    (second, event)
}

fn released(number: u8, reason: ReleaseReason) -> Event {
    Event::Released { keypackage_ref: of_a(), reservation: reservation(number), reason }
}

fn spent(number: Option<u8>, holder: Option<PoolId>, late: bool) -> Event {
    let (reservation, group) = (number.map(reservation), group("g"));
    Event::Spent { keypackage_ref: of_a(), reservation, holder, group, late }
}

fn revoked(reason: RevokeReason, check: Option<&str>) -> Event {
    Event::Revoked { keypackage_ref: of_a(), reason, check: check.map(str::to_owned) }
}

fn conflict(lost: u8, holds: u8) -> Event {
    let (lost, holds) = (reservation(lost), reservation(holds));
    Event::Conflict { keypackage_ref: of_a(), lost, holds }
}

/// Tells events, each with its second, and then how the package and reservations 1 and 2 ended.
fn told(events: impl IntoIterator<Item = (u64, Event)>) -> String {
    let mut story = PackageStory::default();
    story.set_grace(Duration::from_mins(1));
    let tell = |(second, event)| story.tell(&envelope(1, pool("bob"), event, at(second)));
    let mut lines: Vec<String> = events.into_iter().map(tell).collect();
    lines.push(story.end(&of_a()));
    lines.extend([1, 2].map(|number| story.end_of_claim(reservation(number))));
    lines.join("\n")
}

#[test]
fn a_package_that_was_handed_on_is_told_with_the_reason_why_the_first_holder_lost_it() {
    let start = [(0, Event::Created(package("a").facts)), (1, uploaded(false))];
    let both = [reserved(1, "alice", 2), (130, released(1, ReleaseReason::Lapsed))];
    let both = both.into_iter().chain([reserved(2, "carol", 130)]);
    let events = || start.clone().into_iter().chain(both.clone());
    assert_snapshot!(told(events().chain([
        (140, conflict(1, 2)),
        (150, spent(Some(2), Some(pool("carol")), false)),
    ])), @"
    At 2027-01-15T08:00:00.000Z the owner of pool/bob/main made it, good until 2027-01-15T08:16:40.000Z.
    At 2027-01-15T08:00:01.000Z it was uploaded to pool/bob/main, good until 2027-01-15T08:16:40.000Z.
    At 2027-01-15T08:00:02.000Z alice/main reserved it for 60.0 s: reservation 00000000, generation 1.
    At 2027-01-15T08:02:10.000Z it was recorded that alice/main's reservation 00000000 had lapsed: its deadline 2027-01-15T08:01:02.000Z had passed 68.0 s before, and the grace of 60 s with it.
    At 2027-01-15T08:02:10.000Z carol/main reserved it for 60.0 s: reservation 00000000, generation 2.
    At 2027-01-15T08:02:20.000Z a late spend by alice/main's reservation 00000000 was refused, because the package had been handed on to carol/main's reservation 00000000, which still had 50.0 s.
    At 2027-01-15T08:02:30.000Z carol/main spent it.
    So, at the end of this log, of package 17762fdd: carol/main spent it at 2027-01-15T08:02:30.000Z.
    So alice/main's reservation 00000000 lapsed, and was refused at 2027-01-15T08:02:20.000Z when it was to be spent all the same, because the package had been handed on to carol/main's reservation 00000000, which still had 50.0 s.
    So carol/main's reservation 00000000 spent the package at 2027-01-15T08:02:30.000Z.
    ");
    assert_snapshot!(told(events().chain([
        (150, spent(Some(2), Some(pool("carol")), false)),
        (160, conflict(1, 2)),
    ])), @"
    At 2027-01-15T08:00:00.000Z the owner of pool/bob/main made it, good until 2027-01-15T08:16:40.000Z.
    At 2027-01-15T08:00:01.000Z it was uploaded to pool/bob/main, good until 2027-01-15T08:16:40.000Z.
    At 2027-01-15T08:00:02.000Z alice/main reserved it for 60.0 s: reservation 00000000, generation 1.
    At 2027-01-15T08:02:10.000Z it was recorded that alice/main's reservation 00000000 had lapsed: its deadline 2027-01-15T08:01:02.000Z had passed 68.0 s before, and the grace of 60 s with it.
    At 2027-01-15T08:02:10.000Z carol/main reserved it for 60.0 s: reservation 00000000, generation 2.
    At 2027-01-15T08:02:30.000Z carol/main spent it.
    At 2027-01-15T08:02:40.000Z a late spend by alice/main's reservation 00000000 was refused, because the package had been handed on to carol/main's reservation 00000000, which spent the package at 2027-01-15T08:02:30.000Z.
    So, at the end of this log, of package 17762fdd: carol/main spent it at 2027-01-15T08:02:30.000Z.
    So alice/main's reservation 00000000 lapsed, and was refused at 2027-01-15T08:02:40.000Z when it was to be spent all the same, because the package had been handed on to carol/main's reservation 00000000, which spent the package at 2027-01-15T08:02:30.000Z.
    So carol/main's reservation 00000000 spent the package at 2027-01-15T08:02:30.000Z.
    ");
    assert_snapshot!(told(events().chain([(190, conflict(1, 2))])), @"
    At 2027-01-15T08:00:00.000Z the owner of pool/bob/main made it, good until 2027-01-15T08:16:40.000Z.
    At 2027-01-15T08:00:01.000Z it was uploaded to pool/bob/main, good until 2027-01-15T08:16:40.000Z.
    At 2027-01-15T08:00:02.000Z alice/main reserved it for 60.0 s: reservation 00000000, generation 1.
    At 2027-01-15T08:02:10.000Z it was recorded that alice/main's reservation 00000000 had lapsed: its deadline 2027-01-15T08:01:02.000Z had passed 68.0 s before, and the grace of 60 s with it.
    At 2027-01-15T08:02:10.000Z carol/main reserved it for 60.0 s: reservation 00000000, generation 2.
    At 2027-01-15T08:03:10.000Z a late spend by alice/main's reservation 00000000 was refused, because the package had been handed on to carol/main's reservation 00000000.
    So, at the end of this log, of package 17762fdd: carol/main's reservation 00000000 holds it until 2027-01-15T08:03:10.000Z.
    So alice/main's reservation 00000000 lapsed, and was refused at 2027-01-15T08:03:10.000Z when it was to be spent all the same, because the package had been handed on to carol/main's reservation 00000000.
    So carol/main's reservation 00000000 holds the package until 2027-01-15T08:03:10.000Z.
    ");
}

#[test]
fn a_package_that_was_given_back_or_held_is_told_with_its_holder() {
    assert_snapshot!(told([
        (0, uploaded(true)),
        reserved(1, "alice", 2),
        (3, released(1, ReleaseReason::Cancelled)),
        reserved(2, "carol", 4),
        (30, Event::Renewed {
            keypackage_ref: of_a(),
            reservation: reservation(2),
            deadline: at(90),
        }),
    ]), @"
    At 2027-01-15T08:00:00.000Z it was uploaded to pool/bob/main as a last resort, good until 2027-01-15T08:16:40.000Z.
    At 2027-01-15T08:00:02.000Z alice/main reserved it for 60.0 s: reservation 00000000, generation 1.
    At 2027-01-15T08:00:03.000Z alice/main's reservation 00000000 was given back by its holder.
    At 2027-01-15T08:00:04.000Z carol/main reserved it for 60.0 s: reservation 00000000, generation 2.
    At 2027-01-15T08:00:30.000Z carol/main's reservation 00000000 was renewed until 2027-01-15T08:01:30.000Z.
    So, at the end of this log, of package 17762fdd: carol/main's reservation 00000000 holds it until 2027-01-15T08:01:30.000Z.
    So alice/main's reservation 00000000 was given back by its holder at 2027-01-15T08:00:03.000Z.
    So carol/main's reservation 00000000 holds the package until 2027-01-15T08:01:30.000Z.
    ");
    assert_snapshot!(told([(0, uploaded(false))]), @"
    At 2027-01-15T08:00:00.000Z it was uploaded to pool/bob/main, good until 2027-01-15T08:16:40.000Z.
    So, at the end of this log, of package 17762fdd: nobody holds it and nobody has used it.
    So reservation 00000000 was never made.
    So reservation 00000000 was never made.
    ");
    assert_snapshot!(told([(5, released(1, ReleaseReason::Lapsed)), (6, spent(None, None, true))]), @"
    At 2027-01-15T08:00:05.000Z it was recorded that reservation 00000000 had lapsed: its deadline 2027-01-15T08:00:05.000Z had passed 0.0 s before, and the grace of 60 s with it.
    At 2027-01-15T08:00:06.000Z somebody spent it, late, but before anybody else was given it.
    So, at the end of this log, of package 17762fdd: somebody spent it at 2027-01-15T08:00:06.000Z.
    So reservation 00000000 was never made.
    So reservation 00000000 was never made.
    ");
}

#[test]
fn a_package_that_ended_unused_is_told_with_its_end() {
    assert_snapshot!(told([
        (0, uploaded(false)),
        reserved(1, "alice", 2),
        (9, Event::Expired { keypackage_ref: of_a() }),
    ]), @"
    At 2027-01-15T08:00:00.000Z it was uploaded to pool/bob/main, good until 2027-01-15T08:16:40.000Z.
    At 2027-01-15T08:00:02.000Z alice/main reserved it for 60.0 s: reservation 00000000, generation 1.
    At 2027-01-15T08:00:09.000Z it expired: its lifetime was over.
    So, at the end of this log, of package 17762fdd: it expired at 2027-01-15T08:00:09.000Z, before anybody used it.
    So alice/main's reservation 00000000 came to nothing: it expired at 2027-01-15T08:00:09.000Z, before anybody used it.
    So reservation 00000000 was never made.
    ");
    let reasons = [
        (RevokeReason::Rotated, None),
        (RevokeReason::Withdrawn, None),
        (RevokeReason::Reported, Some("keys")),
        (RevokeReason::Lapsed, None),
        (RevokeReason::Operator, None),
    ];
    let sentences = reasons.map(|(reason, check)| told([(9, revoked(reason, check))]));
    let sentences = sentences.map(|all| all.lines().take(2).collect::<Vec<_>>().join("\n"));
    assert_snapshot!(sentences.join("\n"), @"
    At 2027-01-15T08:00:09.000Z it was withdrawn, because its device has another credential now.
    So, at the end of this log, of package 17762fdd: it was withdrawn at 2027-01-15T08:00:09.000Z, because its device has another credential now.
    At 2027-01-15T08:00:09.000Z it was withdrawn, because its owner wanted it so.
    So, at the end of this log, of package 17762fdd: it was withdrawn at 2027-01-15T08:00:09.000Z, because its owner wanted it so.
    At 2027-01-15T08:00:09.000Z it was withdrawn, because an inviter reported that it cannot be used (it failed the check keys).
    So, at the end of this log, of package 17762fdd: it was withdrawn at 2027-01-15T08:00:09.000Z, because an inviter reported that it cannot be used (it failed the check keys).
    At 2027-01-15T08:00:09.000Z it was withdrawn, because reservations of it had lapsed as often as they may.
    So, at the end of this log, of package 17762fdd: it was withdrawn at 2027-01-15T08:00:09.000Z, because reservations of it had lapsed as often as they may.
    At 2027-01-15T08:00:09.000Z it was withdrawn, because the operator of the server withdrew it.
    So, at the end of this log, of package 17762fdd: it was withdrawn at 2027-01-15T08:00:09.000Z, because the operator of the server withdrew it.
    ");
}

#[test]
fn a_late_spend_is_told_as_late() {
    assert_snapshot!(told([
        (0, uploaded(false)),
        reserved(1, "alice", 2),
        (130, released(1, ReleaseReason::Lapsed)),
        (140, spent(Some(1), Some(pool("alice")), true)),
    ]), @"
    At 2027-01-15T08:00:00.000Z it was uploaded to pool/bob/main, good until 2027-01-15T08:16:40.000Z.
    At 2027-01-15T08:00:02.000Z alice/main reserved it for 60.0 s: reservation 00000000, generation 1.
    At 2027-01-15T08:02:10.000Z it was recorded that alice/main's reservation 00000000 had lapsed: its deadline 2027-01-15T08:01:02.000Z had passed 68.0 s before, and the grace of 60 s with it.
    At 2027-01-15T08:02:20.000Z alice/main spent it, late, but before anybody else was given it.
    So, at the end of this log, of package 17762fdd: alice/main spent it at 2027-01-15T08:02:20.000Z.
    So alice/main's reservation 00000000 spent the package at 2027-01-15T08:02:20.000Z, late, but before anybody else was given it.
    So reservation 00000000 was never made.
    ");
}

/// Why package `a` is not handed out at a second, after events that are each of their second.
fn why(events: impl IntoIterator<Item = (u64, Event)>, second: u64) -> String {
    let mut state = PoolState::default();
    for (second, event) in events {
        state.evolve(&event, at(second)).unwrap();
    }
    why_not(&state, state.get(&of_a()).unwrap(), at(second), &Limits::STANDARD)
}

#[test]
fn each_reason_why_a_package_is_not_handed_out_has_its_words() {
    let start = || [(0, uploaded(false))].into_iter();
    let held = || start().chain([reserved(1, "alice", 2)]);
    let created = [(0, Event::Created(package("a").facts))];
    let mut early = package("a").facts;
    early.not_before = at(50);
    let early = [(0, Event::Uploaded(early))];
    assert_snapshot!([
        why(created, 1),
        why(held().chain([(3, spent(Some(1), Some(pool("alice")), false))]), 4),
        why(start().chain([(3, spent(None, None, false))]), 4),
        why(start().chain([(1000, Event::Expired { keypackage_ref: of_a() })]), 1001),
        why(start().chain([(3, revoked(RevokeReason::Lapsed, None))]), 4),
        why(held(), 10),
        why(held(), 61),
        why(held(), 62),
        why(held(), 100),
        why(early.clone(), 49),
        why(early, 50),
    ].join("\n"), @"
    was not at the server yet
    was spent by alice/main's reservation 00000000
    was spent by somebody
    had expired at 2027-01-15T08:16:40.000Z
    was withdrawn, because reservations of it had lapsed as often as they may
    was held by alice/main's reservation 00000000, which still had 52.0 s and 60 s of grace
    was held by alice/main's reservation 00000000, which still had 1.0 s and 60 s of grace
    was held by alice/main's reservation 00000000, whose grace had 60.0 s left
    was held by alice/main's reservation 00000000, whose grace had 22.0 s left
    was not valid yet
    had too little life left for a reservation
    ");
}

#[test]
fn an_event_of_a_device_is_a_sentence_with_its_words_if_there_are_any() {
    let said = |event| device_sentence(&envelope(1, pool("bob"), event, at(0)));
    let registered = Event::Registered {
        signature_key: SignatureKey::new(&[1; 32]).unwrap(),
        credential: "bob".to_owned(),
        voucher: None,
        statement: None,
        frontend: None,
    };
    let sentences = [registered, Event::DeviceRemoved { by_operator: false }].map(said);
    assert_snapshot!(sentences.join("\n"), @"
    At 2027-01-15T08:00:00.000Z: registered: key AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE speaks for bob.
    At 2027-01-15T08:00:00.000Z: device removed.
    ");
}

#[test]
fn moments_and_spans_have_the_same_words_everywhere() {
    let moments = [0, 253_402_300_799_999, 253_402_300_800_000].map(Timestamp::from_millis);
    assert_snapshot!(moments.map(time).join("\n"), @"
    1970-01-01T00:00:00.000Z
    9999-12-31T23:59:59.999Z
    253402300800000 ms
    ");
    let spans = [0, 999, 1_050, 119_999, 120_000, 7_199_999, 7_200_000, 172_799_999, 172_800_000];
    let spans = spans.map(|millis| span(Duration::from_millis(millis)));
    assert_snapshot!(spans.join(", "), @"0.0 s, 0.9 s, 1.0 s, 119.9 s, 2 min, 119 min, 2 h, 47 h, 2 days");
    assert_eq!(short(&"0123456789"), "01234567");
}

#[test]
fn text_that_would_drive_a_terminal_is_escaped() {
    let texts = ["plain – ünïcode", "a\u{1b}[2Jb", "one\ntwo", "\u{61c}\u{200b}\u{200f}\u{2028}"];
    let more = ["\u{202e}x", "\u{2060}\u{206f}", "\u{feff}", "\u{200a}\u{2010}\u{2027}\u{2070}"];
    let escaped_all = texts.into_iter().chain(more).map(|text| one_line(text).into_owned());
    assert_snapshot!(escaped_all.collect::<Vec<_>>().join("\n"), @r#"
    plain – ünïcode
    a\u{1b}[2Jb
    one\ntwo
    \u{61c}\u{200b}\u{200f}\u{2028}
    \u{202e}x
    \u{2060}\u{206f}
    \u{feff}
     ‐‧⁰
    "#);
    assert_eq!(escaped("a\u{7}b", |_| "?".to_owned()), "a?b");
    assert_eq!(escaped("ab", |_| "?".to_owned()), "ab");
}
