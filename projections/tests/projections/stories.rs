//! The rules of a pool, told as stories: a script of commands goes in, the events come out.
//!
//! A line is `second who verb arguments`. Packages live for 1000 seconds; a reservation lasts 60
//! seconds and a grace of 60 more.

use std::fmt::Write;

use insta::assert_snapshot;
use keypool_ledger::{
    Event, Hash, RevokeReason, Signature, SignatureKey, SignedStatement, Timestamp,
};
use keypool_projections::{
    Answer, Command, Health, ItemOutcome, Limits, OnLapse, PoolState, Rejection, Remover,
    RequiredCapabilities, RevokeScope, SuiteCounts,
};

use crate::history::{at, claim, group, leaf_key, package, pool, reference, reservation};

#[test]
fn a_package_is_reserved_and_spent() {
    assert_snapshot!(story("
        0 bob upload a
        1 alice reserve 7
        2 alice spend a 7
        3 alice reserve 8
    "), @"
    0 bob upload a: a uploaded
    1 alice reserve 7: a reserved by 7 (generation 1, 60 s)
    2 alice spend a 7: a spent
    3 alice reserve 8: refused: no package of the pool can be handed out now
    ");
}

#[test]
fn the_oldest_is_offered_first_and_never_offered_ones_before_all_others() {
    assert_snapshot!(story("
        0 bob upload a b c d
        1 alice reserve 1
        1 alice reserve 2
        2 alice release a 1
        130 alice reserve 3
        130 alice reserve 4
        130 alice reserve 5
        130 alice reserve 6
        130 alice reserve 7
    "), @"
    0 bob upload a b c d: a uploaded, b uploaded, c uploaded, d uploaded
    1 alice reserve 1: a reserved by 1 (generation 1, 60 s)
    1 alice reserve 2: b reserved by 2 (generation 1, 60 s)
    2 alice release a 1: a released (Cancelled)
    130 alice reserve 3: b released (Lapsed), c reserved by 3 (generation 1, 60 s)
    130 alice reserve 4: d reserved by 4 (generation 1, 60 s)
    130 alice reserve 5: a reserved by 5 (generation 2, 60 s)
    130 alice reserve 6: b reserved by 6 (generation 2, 60 s)
    130 alice reserve 7: refused: no package of the pool can be handed out now
    ");
}

#[test]
fn new_packages_take_the_place_of_those_that_are_live_or_of_none() {
    assert_snapshot!(story("
        0 bob upload a b L
        1 alice reserve 1
        2 bob replace c LL a'
        3 alice spend a 1
        4 bob replace a
        5 bob replace c LL
        6 bob replace c d
        7 alice reserve 2
    "), @"
    0 bob upload a b L: a uploaded, b uploaded, L uploaded
    1 alice reserve 1: a reserved by 1 (generation 1, 60 s)
    2 bob replace c LL a': b revoked (Rotated), a revoked (Rotated), L revoked (Rotated), c uploaded, LL uploaded, a' refused: InitKeySeen
    3 alice spend a 1: a spent
    4 bob replace a: a is known: Spent
    5 bob replace c LL: c is known: Available, LL is known: Available
    6 bob replace c d: LL revoked (Rotated), d uploaded, c is known: Available
    7 alice reserve 2: c reserved by 2 (generation 1, 60 s)
    ");
}

#[test]
fn a_key_that_was_rotated_is_the_same_key_when_it_is_rotated_again() {
    assert_snapshot!(story("
        0 bob register
        1 bob upload a
        2 bob rotate 2
        3 bob rotate 2
        4 bob rotate 3
    "), @"
    0 bob register: registered
    1 bob upload a: a uploaded
    2 bob rotate 2: key_rotated, a revoked (Rotated)
    3 bob rotate 2: nothing
    4 bob rotate 3: refused: the name is bound to another key, or the key to another name
    ");
}

#[test]
fn each_ciphersuite_is_replaced_on_its_own() {
    assert_snapshot!(story("
        0 bob register
        0 bob declare 1
        1 bob upload a b L a:1 b:1
        2 bob replace e
        3 bob replace d:1
        4 bob replace f b:2
        5 bob replace c:2
    "), @"
    0 bob register: registered
    0 bob declare 1: leaf_key_pinned
    1 bob upload a b L a:1 b:1: a uploaded, b uploaded, L uploaded, a:1 uploaded, b:1 uploaded
    2 bob replace e: b revoked (Rotated), a revoked (Rotated), L revoked (Rotated), e uploaded
    3 bob replace d:1: b:1 revoked (Rotated), a:1 revoked (Rotated), d:1 uploaded
    4 bob replace f b:2: e revoked (Rotated), f uploaded, b:2 refused: LeafKeyDiffers
    5 bob replace c:2: c:2 refused: LeafKeyDiffers
    ");
    // A ciphersuite for whose new packages there is no room keeps its old ones.
    let limits = Limits { packages_max: 2, ..Limits::STANDARD };
    assert_snapshot!(story_with("
        0 bob register
        0 bob declare 1
        1 bob upload a a:1
        2 bob replace b c d:1
        3 bob replace d:1 e
    ", limits), @"
    0 bob register: registered
    0 bob declare 1: leaf_key_pinned
    1 bob upload a a:1: a uploaded, a:1 uploaded
    2 bob replace b c d:1: a revoked (Rotated), b uploaded, c refused: PoolFull, d:1 refused: PoolFull
    3 bob replace d:1 e: b revoked (Rotated), a:1 revoked (Rotated), d:1 uploaded, e uploaded
    ");
}

#[test]
fn the_key_of_another_scheme_is_declared_and_stays_while_a_package_of_it_is_live() {
    assert_snapshot!(story("
        0 bob register
        1 bob declare 1
        1 bob upload a a:1 b:1 b:2
        2 bob declare 2
        3 alice reserve 1 g 2
        4 bob revoke b:1
        5 bob declare 2
        6 bob revoke a:1
        7 bob declare 2
        8 bob upload c:2 d:1
        9 bob replace e:3 e:2
        10 bob remove
        11 bob register
        12 bob upload f:2
    "), @"
    0 bob register: registered
    1 bob declare 1: leaf_key_pinned
    1 bob upload a a:1 b:1 b:2: a uploaded, a:1 uploaded, b:1 uploaded, b:2 refused: LeafKeyDiffers
    2 bob declare 2: refused: live packages of this signature scheme are signed with another key; withdraw them first
    3 alice reserve 1 g 2: a:1 reserved by 1 (generation 1, 60 s)
    4 bob revoke b:1: b:1 revoked (Withdrawn)
    5 bob declare 2: refused: live packages of this signature scheme are signed with another key; withdraw them first
    6 bob revoke a:1: a:1 revoked (Withdrawn)
    7 bob declare 2: leaf_key_pinned
    8 bob upload c:2 d:1: c:2 uploaded, d:1 refused: LeafKeyDiffers
    9 bob replace e:3 e:2: c:2 revoked (Rotated), e:2 uploaded, e:3 refused: LeafKeyDiffers
    10 bob remove: device_removed, a revoked (Withdrawn), e:2 revoked (Withdrawn)
    11 bob register: registered
    12 bob upload f:2: f:2 refused: LeafKeyDiffers
    ");
}

#[test]
fn a_device_that_is_removed_offers_nothing_and_takes_nothing() {
    assert_snapshot!(story("
        0 bob register
        0 bob upload a b
        1 alice reserve 1
        2 bob remove
        3 bob remove
        3 bob upload c
        3 bob replace c
        3 alice reserve 2
        4 alice reserve 1
        5 alice spend a 1
        6 bob register
        7 bob upload c
        8 alice reserve 2
    "), @"
    0 bob register: registered
    0 bob upload a b: a uploaded, b uploaded
    1 alice reserve 1: a reserved by 1 (generation 1, 60 s)
    2 bob remove: device_removed, b revoked (Withdrawn), a revoked (Withdrawn)
    3 bob remove: refused: the device is not registered, or was removed
    3 bob upload c: refused: the device is not registered, or was removed
    3 bob replace c: refused: the device is not registered, or was removed
    3 alice reserve 2: refused: the device is not registered, or was removed
    4 alice reserve 1: again a (generation 1)
    5 alice spend a 1: a spent
    6 bob register: registered
    7 bob upload c: c uploaded
    8 alice reserve 2: c reserved by 2 (generation 1, 60 s)
    ");
}

#[test]
fn a_reservation_lapses_after_its_ttl_and_grace() {
    assert_snapshot!(story("
        0 bob upload a
        0 alice reserve 7
        119 carol reserve 8
        120 carol reserve 8
        120 alice spend a 7
        121 carol spend a 8
        122 alice spend a 7
    "), @"
    0 bob upload a: a uploaded
    0 alice reserve 7: a reserved by 7 (generation 1, 60 s)
    119 carol reserve 8: refused: no package of the pool can be handed out now
    120 carol reserve 8: a released (Lapsed), a reserved by 8 (generation 2, 60 s)
    120 alice spend a 7: a conflict: 7 lost to 8, refused: reservation 7 has ended, and its package was handed on or given back
    121 carol spend a 8: a spent
    122 alice spend a 7: refused: reservation 7 has ended, and its package was handed on or given back
    ");
}

#[test]
fn a_late_spend_succeeds_while_nobody_else_holds_the_package() {
    assert_snapshot!(story("
        0 bob upload a
        0 alice reserve 7
        200 alice spend a 7
        201 alice spend a 7
    "), @"
    0 bob upload a: a uploaded
    0 alice reserve 7: a reserved by 7 (generation 1, 60 s)
    200 alice spend a 7: a released (Lapsed), a spent late
    201 alice spend a 7: spent before (late: true)
    ");
}

#[test]
fn a_package_that_lapses_twice_is_retired() {
    assert_snapshot!(story("
        0 bob upload a
        0 alice reserve 1
        120 alice reserve 2
        240 alice reserve 3
        241 bob settle
        242 alice spend a 2
    "), @"
    0 bob upload a: a uploaded
    0 alice reserve 1: a reserved by 1 (generation 1, 60 s)
    120 alice reserve 2: a released (Lapsed), a reserved by 2 (generation 2, 60 s)
    240 alice reserve 3: refused: no package of the pool can be handed out now
    241 bob settle: a released (Lapsed), a revoked (Lapsed)
    242 alice spend a 2: a spent late
    ");
}

#[test]
fn with_retire_a_lapsed_package_is_never_handed_out_again() {
    assert_snapshot!(story_with("
        0 bob upload a
        0 alice reserve 1
        120 carol reserve 2
        120 bob settle
        130 alice spend a 1
    ", Limits { on_lapse: OnLapse::Retire, ..Limits::STANDARD }), @"
    0 bob upload a: a uploaded
    0 alice reserve 1: a reserved by 1 (generation 1, 60 s)
    120 carol reserve 2: refused: no package of the pool can be handed out now
    120 bob settle: a released (Lapsed), a revoked (Lapsed)
    130 alice spend a 1: a spent late
    ");
}

#[test]
fn a_repeated_request_records_nothing_even_when_time_has_done_something() {
    assert_snapshot!(story("
        0 bob upload a b
        0 alice reserve 1
        0 carol reserve 2
        1 alice spend a 1
        500 alice spend a 1
        500 alice reserve 1
        501 bob settle
    "), @"
    0 bob upload a b: a uploaded, b uploaded
    0 alice reserve 1: a reserved by 1 (generation 1, 60 s)
    0 carol reserve 2: b reserved by 2 (generation 1, 60 s)
    1 alice spend a 1: a spent
    500 alice spend a 1: spent before (late: false)
    500 alice reserve 1: again a (generation 1)
    501 bob settle: b released (Lapsed)
    ");
}

#[test]
fn a_package_that_lapsed_is_retired_when_the_server_is_set_to_retire() {
    let mut pool = PoolState::default();
    for line in ["0 bob upload a", "0 alice reserve 1", "120 bob settle"] {
        play(&mut pool, line, &Limits::STANDARD);
    }
    let retire = Limits { on_lapse: OnLapse::Retire, ..Limits::STANDARD };
    assert_eq!(Health::of(&pool, at(121), &retire).available, 0);
    assert_snapshot!(play(&mut pool, "121 carol reserve 2", &retire), @"refused: no package of the pool can be handed out now");
    assert_snapshot!(play(&mut pool, "122 bob settle", &retire), @"a revoked (Lapsed)");
}

#[test]
fn a_reservation_that_lapsed_is_answered_again_until_its_package_is_handed_on() {
    assert_snapshot!(story("
        0 bob upload a L
        0 alice reserve 1
        0 alice reserve 2
        130 alice reserve 1
        130 bob settle
        131 alice reserve 1
        132 carol reserve 3
        133 carol reserve 4
        134 alice reserve 1
        135 alice reserve 2
    "), @"
    0 bob upload a L: a uploaded, L uploaded
    0 alice reserve 1: a reserved by 1 (generation 1, 60 s)
    0 alice reserve 2: L reserved by 2 (generation 1, 60 s)
    130 alice reserve 1: again a (generation 1)
    130 bob settle: a released (Lapsed), L released (Lapsed)
    131 alice reserve 1: again a (generation 1)
    132 carol reserve 3: a reserved by 3 (generation 2, 60 s)
    133 carol reserve 4: L reserved by 4 (generation 2, 60 s)
    134 alice reserve 1: refused: reservation 1 has ended, and its package was handed on or given back
    135 alice reserve 2: again L (generation 1)
    ");
}

#[test]
fn a_package_that_was_given_back_is_not_reported_by_who_had_it() {
    assert_snapshot!(story("
        0 bob upload a
        1 alice reserve 1
        2 alice release a 1
        3 alice report-good a 1 keys
        4 carol reserve 2
        5 carol spend a 2
        6 alice report a 1 keys
    "), @"
    0 bob upload a: a uploaded
    1 alice reserve 1: a reserved by 1 (generation 1, 60 s)
    2 alice release a 1: a released (Cancelled)
    3 alice report-good a 1 keys: refused: reservation 1 has ended, and its package was handed on or given back
    4 carol reserve 2: a reserved by 2 (generation 2, 60 s)
    5 carol spend a 2: a spent
    6 alice report a 1 keys: refused: reservation 1 has ended, and its package was handed on or given back
    ");
}

#[test]
fn a_repeated_request_changes_nothing() {
    assert_snapshot!(story("
        0 bob upload a
        0 bob upload a
        1 alice reserve 7
        2 alice reserve 7
        3 alice spend a 7
        4 alice spend a 7
        5 alice reserve 7
        6 bob upload a
    "), @"
    0 bob upload a: a uploaded
    0 bob upload a: a is known: Available
    1 alice reserve 7: a reserved by 7 (generation 1, 60 s)
    2 alice reserve 7: again a (generation 1)
    3 alice spend a 7: a spent
    4 alice spend a 7: spent before (late: false)
    5 alice reserve 7: again a (generation 1)
    6 bob upload a: a is known: Spent
    ");
}

#[test]
fn a_reservation_id_belongs_to_one_request() {
    assert_snapshot!(story("
        0 bob upload a b
        1 alice reserve 7
        2 carol reserve 7
        2 alice reserve 7 other-group
        3 carol spend a 7
        3 alice spend b 7
        3 alice spend a 7 other-group
        4 alice release a 7
        5 alice reserve 7
        5 alice spend a 7
    "), @"
    0 bob upload a b: a uploaded, b uploaded
    1 alice reserve 7: a reserved by 7 (generation 1, 60 s)
    2 carol reserve 7: refused: reservation 7 does not fit this request
    2 alice reserve 7 other-group: refused: reservation 7 does not fit this request
    3 carol spend a 7: refused: reservation 7 does not fit this request
    3 alice spend b 7: refused: reservation 7 does not fit this request
    3 alice spend a 7 other-group: refused: reservation 7 does not fit this request
    4 alice release a 7: a released (Cancelled)
    5 alice reserve 7: refused: reservation 7 has ended, and its package was handed on or given back
    5 alice spend a 7: refused: reservation 7 has ended, and its package was handed on or given back
    ");
}

#[test]
fn anyone_else_finds_a_spent_package_spent() {
    assert_snapshot!(story("
        0 bob upload a
        1 alice reserve 7
        2 alice spend a 7
        3 carol spend a 9
        3 alice release a 7
        3 alice renew a 7
    "), @"
    0 bob upload a: a uploaded
    1 alice reserve 7: a reserved by 7 (generation 1, 60 s)
    2 alice spend a 7: a spent
    3 carol spend a 9: refused: package a is spent
    3 alice release a 7: refused: package a is spent
    3 alice renew a 7: refused: package a is spent
    ");
}

#[test]
fn a_reservation_is_renewed_five_times_at_most() {
    assert_snapshot!(story("
        0 bob upload a
        0 alice reserve 7
        50 alice renew a 7
        100 alice renew a 7
        150 alice renew a 7
        200 alice renew a 7
        250 alice renew a 7
        300 alice renew a 7
        429 carol reserve 8
        430 carol reserve 8
        431 alice renew a 7
    "), @"
    0 bob upload a: a uploaded
    0 alice reserve 7: a reserved by 7 (generation 1, 60 s)
    50 alice renew a 7: a renewed until 110
    100 alice renew a 7: a renewed until 160
    150 alice renew a 7: a renewed until 210
    200 alice renew a 7: a renewed until 260
    250 alice renew a 7: a renewed until 310
    300 alice renew a 7: refused: reservation 7 was renewed 5 times already
    429 carol reserve 8: a released (Lapsed), a reserved by 8 (generation 2, 60 s)
    430 carol reserve 8: again a (generation 2)
    431 alice renew a 7: refused: reservation 7 has ended, and its package was handed on or given back
    ");
}

#[test]
fn a_package_near_its_end_is_not_offered() {
    assert_snapshot!(story("
        0 bob upload a b
        880 alice reserve 1
        881 alice reserve 2
        940 alice spend a 1
        1000 bob settle
        1001 bob upload b
    "), @"
    0 bob upload a b: a uploaded, b uploaded
    880 alice reserve 1: a reserved by 1 (generation 1, 60 s)
    881 alice reserve 2: refused: no package of the pool can be handed out now
    940 alice spend a 1: a spent
    1000 bob settle: b expired
    1001 bob upload b: b is known: Expired
    ");
}

#[test]
fn an_expired_package_may_still_be_spent_by_who_held_it() {
    assert_snapshot!(story("
        0 bob upload a
        870 alice reserve 1
        929 alice renew a 1
        988 alice renew a 1
        1000 bob settle
        1001 alice renew a 1
        1002 alice spend a 1
    "), @"
    0 bob upload a: a uploaded
    870 alice reserve 1: a reserved by 1 (generation 1, 60 s)
    929 alice renew a 1: a renewed until 989
    988 alice renew a 1: a renewed until 1048
    1000 bob settle: a expired
    1001 alice renew a 1: refused: package a has expired
    1002 alice spend a 1: a spent late
    ");
}

#[test]
fn a_revoked_package_may_still_be_spent_by_who_holds_it() {
    assert_snapshot!(story("
        0 bob upload a b
        1 alice reserve 1
        2 bob revoke all
        3 alice renew a 1
        4 alice spend a 1
        5 alice reserve 2
        6 bob upload b
        7 bob revoke b
        8 bob revoke a
    "), @"
    0 bob upload a b: a uploaded, b uploaded
    1 alice reserve 1: a reserved by 1 (generation 1, 60 s)
    2 bob revoke all: b revoked (Withdrawn), a revoked (Withdrawn)
    3 alice renew a 1: refused: package a was revoked
    4 alice spend a 1: a spent
    5 alice reserve 2: refused: no package of the pool can be handed out now
    6 bob upload b: b is known: Revoked
    7 bob revoke b: nothing
    8 bob revoke a: nothing
    ");
}

#[test]
fn a_revoked_package_is_lost_to_who_let_it_lapse() {
    assert_snapshot!(story("
        0 bob upload a
        1 alice reserve 1
        200 bob revoke a
        201 alice spend a 1
    "), @"
    0 bob upload a: a uploaded
    1 alice reserve 1: a reserved by 1 (generation 1, 60 s)
    200 bob revoke a: a released (Lapsed), a revoked (Withdrawn)
    201 alice spend a 1: refused: package a was revoked
    ");
}

#[test]
fn a_reported_package_is_quarantined_and_the_claim_on_it_has_ended() {
    assert_snapshot!(story("
        0 bob upload a b L
        1 alice reserve 1
        2 carol report a 1 keys
        3 alice report a 1 keys
        4 alice report a 1 keys
        5 alice spend a 1
        6 alice reserve 1
        7 alice reserve 2
        8 alice spend b 2
        9 alice report b 2
        10 alice reserve 3
        11 carol reserve 4
        12 alice report L 3
        13 carol spend L 4
    "), @"
    0 bob upload a b L: a uploaded, b uploaded, L uploaded
    1 alice reserve 1: a reserved by 1 (generation 1, 60 s)
    2 carol report a 1 keys: refused: reservation 1 does not fit this request
    3 alice report a 1 keys: a revoked (Reported, keys), a released (Cancelled)
    4 alice report a 1 keys: nothing
    5 alice spend a 1: refused: reservation 1 has ended, and its package was handed on or given back
    6 alice reserve 1: refused: reservation 1 has ended, and its package was handed on or given back
    7 alice reserve 2: b reserved by 2 (generation 1, 60 s)
    8 alice spend b 2: b spent
    9 alice report b 2: refused: package b is spent
    10 alice reserve 3: L reserved by 3 (generation 1, 60 s)
    11 carol reserve 4: L reserved by 4 (generation 2, 60 s)
    12 alice report L 3: L revoked (Reported), L released (Cancelled)
    13 carol spend L 4: L spent
    ");
}

#[test]
fn a_package_that_the_server_finds_good_is_withdrawn_when_three_users_report_it() {
    assert_snapshot!(story("
        0 bob upload a
        1 alice reserve 1
        2 alice report-good a 1 keys
        3 alice report-good a 1 keys
        4 alice reserve 2
        5 alice report-good a 2
        6 carol reserve 3
        7 carol report-good a 3
        8 dave reserve 4
        9 dave report-good a 4 other
        10 erin reserve 5
    "), @"
    0 bob upload a: a uploaded
    1 alice reserve 1: a reserved by 1 (generation 1, 60 s)
    2 alice report-good a 1 keys: a reported, a released (Cancelled)
    3 alice report-good a 1 keys: nothing
    4 alice reserve 2: a reserved by 2 (generation 2, 60 s)
    5 alice report-good a 2: a reported, a released (Cancelled)
    6 carol reserve 3: a reserved by 3 (generation 3, 60 s)
    7 carol report-good a 3: a reported, a released (Cancelled)
    8 dave reserve 4: a reserved by 4 (generation 4, 60 s)
    9 dave report-good a 4 other: a reported, a revoked (Reported, other), a released (Cancelled)
    10 erin reserve 5: refused: no package of the pool can be handed out now
    ");
}

#[test]
fn an_init_key_is_used_once() {
    assert_snapshot!(story("
        0 bob upload a a' a
        1 alice reserve 1
        2 alice spend a 1
        3 bob upload a'
    "), @"
    0 bob upload a a' a: a uploaded, a' refused: InitKeySeen, a is known: Available
    1 alice reserve 1: a reserved by 1 (generation 1, 60 s)
    2 alice spend a 1: a spent
    3 bob upload a': a' refused: InitKeySeen
    ");
}

#[test]
fn a_last_resort_package_answers_when_nothing_else_is_left() {
    assert_snapshot!(story("
        0 bob upload L a LL
        1 alice reserve 1
        2 alice reserve 2
        3 carol reserve 3
        4 alice spend L 2
        5 carol release L 3
        6 alice spend L 2
        6 carol reserve 4
        300 carol spend L 4
    "), @"
    0 bob upload L a LL: L uploaded, a uploaded, LL refused: LastResortHeld
    1 alice reserve 1: a reserved by 1 (generation 1, 60 s)
    2 alice reserve 2: L reserved by 2 (generation 1, 60 s)
    3 carol reserve 3: L reserved by 3 (generation 2, 60 s)
    4 alice spend L 2: L spent
    5 carol release L 3: L released (Cancelled)
    6 alice spend L 2: spent before (late: false)
    6 carol reserve 4: L reserved by 4 (generation 3, 60 s)
    300 carol spend L 4: a released (Lapsed), L released (Lapsed), L spent late
    ");
}

#[test]
fn a_group_gets_a_ciphersuite_it_can_use() {
    assert_snapshot!(story("
        0 bob upload a b2
        1 alice reserve 1 g 2
        2 alice reserve 2 g 2
        3 alice reserve 3 g 3,1
    "), @"
    0 bob upload a b2: a uploaded, b2 uploaded
    1 alice reserve 1 g 2: b2 reserved by 1 (generation 1, 60 s)
    2 alice reserve 2 g 2: refused: no package of the pool has one of the ciphersuites asked for
    3 alice reserve 3 g 3,1: a reserved by 3 (generation 1, 60 s)
    ");
}

#[test]
fn a_full_pool_refuses_the_surplus() {
    assert_snapshot!(story_with("
        0 bob upload a b c L
        1 alice reserve 1
        1 bob upload d
        2 alice spend a 1
        3 bob upload d e
    ", Limits { packages_max: 2, ..Limits::STANDARD }), @"
    0 bob upload a b c L: a uploaded, b uploaded, L uploaded, c refused: PoolFull
    1 alice reserve 1: a reserved by 1 (generation 1, 60 s)
    1 bob upload d: d refused: PoolFull
    2 alice spend a 1: a spent
    3 bob upload d e: d uploaded, e refused: PoolFull
    ");
}

#[test]
fn a_refused_command_leaves_no_trace_and_the_next_one_records_what_time_did() {
    assert_snapshot!(story("
        0 bob upload a b
        0 alice reserve 1
        500 alice release b 9
        501 bob upload c
    "), @"
    0 bob upload a b: a uploaded, b uploaded
    0 alice reserve 1: a reserved by 1 (generation 1, 60 s)
    500 alice release b 9: refused: reservation 9 does not fit this request
    501 bob upload c: a released (Lapsed), c uploaded
    ");
}

#[test]
fn what_is_counted_is_what_the_next_reservation_finds() {
    let limits = Limits::STANDARD;
    let mut pool = PoolState::default();
    play(&mut pool, "0 bob upload a b c d e L", &limits);
    play(&mut pool, "0 alice reserve 1", &limits);
    play(&mut pool, "1 alice spend a 1", &limits);
    play(&mut pool, "1 alice reserve 2", &limits);
    play(&mut pool, "1 bob revoke c", &limits);
    let health = |second| {
        let health = Health::of(&pool, at(second), &limits);
        serde_json::to_string(&health).unwrap()
    };
    assert_snapshot!(
        [2, 120, 121, 881, 1000].map(|second| format!("{second}: {}", health(second))).join("\n"),
        @r#"
    2: {"available":2,"fresh":2,"requeued":0,"reserved":1,"spent":1,"expired":0,"revoked":1,"total":5,"last_resort":1,"expiring_soon":2,"spent_24h":1,"seconds_to_empty":172800,"room":61,"level":"critical","suites":[{"ciphersuite":1,"available":2,"reserved":1,"last_resort":1}]}
    120: {"available":2,"fresh":2,"requeued":0,"reserved":1,"spent":1,"expired":0,"revoked":1,"total":5,"last_resort":1,"expiring_soon":2,"spent_24h":1,"seconds_to_empty":172800,"room":61,"level":"critical","suites":[{"ciphersuite":1,"available":2,"reserved":1,"last_resort":1}]}
    121: {"available":3,"fresh":2,"requeued":1,"reserved":0,"spent":1,"expired":0,"revoked":1,"total":5,"last_resort":1,"expiring_soon":3,"spent_24h":1,"seconds_to_empty":259200,"room":61,"level":"low","suites":[{"ciphersuite":1,"available":3,"reserved":0,"last_resort":1}]}
    881: {"available":0,"fresh":0,"requeued":0,"reserved":0,"spent":1,"expired":3,"revoked":1,"total":5,"last_resort":1,"expiring_soon":0,"spent_24h":1,"seconds_to_empty":0,"room":61,"level":"empty","suites":[{"ciphersuite":1,"available":0,"reserved":0,"last_resort":1}]}
    1000: {"available":0,"fresh":0,"requeued":0,"reserved":0,"spent":1,"expired":3,"revoked":1,"total":5,"last_resort":0,"expiring_soon":0,"spent_24h":1,"seconds_to_empty":0,"room":64,"level":"empty","suites":[]}
    "#
    );
}

/// Plays a script with the standard limits.
fn story(script: &str) -> String {
    story_with(script, Limits::STANDARD)
}

fn story_with(script: &str, limits: Limits) -> String {
    let (mut pool, mut transcript) = (PoolState::default(), String::new());
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let told = play(&mut pool, line, &limits);
        writeln!(transcript, "{line}: {told}").unwrap();
    }
    transcript
}

/// Plays one line, evolves the pool, and returns the outcome in words.
fn play(state: &mut PoolState, line: &str, limits: &Limits) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let now = at(words[0].parse().unwrap());
    let command = command(words[1], words[2], &words[3..]);
    let decision = state.decide(&command, now, limits);
    let mut told: Vec<String> = decision.events.iter().map(|event| tell(event, now)).collect();
    for event in &decision.events {
        state.evolve(event, now).unwrap();
    }
    match decision.answer {
        Ok(answer) => told.extend(answered(&answer, decision.events.is_empty())),
        Err(rejection) => told.push(format!("refused: {}", refused(&rejection))),
    }
    told.join(", ")
}

/// A statement of the key that a device registers with.
fn statement_of_first_key() -> SignedStatement {
    SignedStatement {
        by: SignatureKey::new(&[1; 32]).unwrap(),
        head: Hash::ZERO,
        until: at(0),
        proof: Signature::new(&[0; 64]).unwrap(),
    }
}

fn command(who: &str, verb: &str, rest: &[&str]) -> Command {
    let group_at = |place: usize| group(rest.get(place).copied().unwrap_or("g"));
    let number = |word: &str| word.parse::<u8>().unwrap();
    match verb {
        "upload" => Command::Upload(rest.iter().map(|name| package(name)).collect()),
        "replace" => {
            let packages = rest.iter().map(|name| package(name)).collect();
            Command::Replace { packages, next: None }
        }
        "remove" => Command::Remove { by: Remover::Key(SignatureKey::new(&[1; 32]).unwrap()) },
        "register" => Command::Register {
            signature_key: SignatureKey::new(&[1; 32]).unwrap(),
            credential: who.to_owned(),
            statement: None,
        },
        "rotate" => Command::Rotate {
            statement: statement_of_first_key(),
            signature_key: SignatureKey::new(&[number(rest[0]); 32]).unwrap(),
            credential: who.to_owned(),
        },
        "declare" => Command::DeclareLeafKey {
            statement: statement_of_first_key(),
            leaf_key: leaf_key(number(rest[0])),
        },
        "reserve" => Command::Reserve {
            reservation: reservation(number(rest[0])),
            holder: pool(who),
            group: group_at(1),
            ciphersuites: rest
                .get(2)
                .map(|suites| suites.split(',').map(|suite| suite.parse().unwrap()).collect())
                .unwrap_or_default(),
            required: RequiredCapabilities::default(),
            introduced: false,
            last_resort_only: false,
        },
        "spend" => {
            Command::Spend { claim: claim(rest[0], number(rest[1]), who), group: group_at(2) }
        }
        "release" => Command::Release(claim(rest[0], number(rest[1]), who)),
        "report" | "report-good" => Command::Report {
            claim: claim(rest[0], number(rest[1]), who),
            check: rest.get(2).map(|check| (*check).to_owned()),
            admissible: verb == "report-good",
        },
        "renew" => Command::Renew(claim(rest[0], number(rest[1]), who)),
        "revoke" => Command::Revoke {
            which: match rest {
                ["all"] => RevokeScope::All,
                names => RevokeScope::Refs(names.iter().map(|name| reference(name)).collect()),
            },
            reason: RevokeReason::Withdrawn,
        },
        "settle" => Command::Settle,
        _ => panic!("unknown verb {verb}"),
    }
}

fn tell(event: &Event, now: Timestamp) -> String {
    let name = event.keypackage_ref().map(|r| nickname(&r.to_string())).unwrap_or_default();
    match event {
        Event::Uploaded(_) => format!("{name} uploaded"),
        Event::Reserved { reservation, generation, deadline, .. } => {
            let secs = deadline.since(now).as_secs();
            format!(
                "{name} reserved by {} (generation {generation}, {secs} s)",
                reservation.0.as_u128()
            )
        }
        Event::Renewed { deadline, .. } => {
            format!("{name} renewed until {}", deadline.since(at(0)).as_secs())
        }
        Event::Released { reason, .. } => format!("{name} released ({reason:?})"),
        Event::Spent { late, .. } => format!("{name} spent{}", if *late { " late" } else { "" }),
        Event::Revoked { reason, check, .. } => {
            let check = check.as_ref().map(|check| format!(", {check}")).unwrap_or_default();
            format!("{name} revoked ({reason:?}{check})")
        }
        Event::Conflict { lost, holds, .. } => {
            format!("{name} conflict: {} lost to {}", lost.0.as_u128(), holds.0.as_u128())
        }
        other => format!("{name} {}", other.name()).trim_start().to_owned(),
    }
}

/// The part of an answer beyond the events.
fn answered(answer: &Answer, silent: bool) -> Vec<String> {
    match answer {
        Answer::Uploaded(items) | Answer::Replaced { outcomes: items, .. } => items
            .iter()
            .filter_map(|item| match item {
                ItemOutcome::Stored(_) => None,
                ItemOutcome::Known(known, stage) => {
                    Some(format!("{} is known: {stage:?}", nickname(&known.to_string())))
                }
                ItemOutcome::Refused(refused, refusal) => {
                    Some(format!("{} refused: {refusal:?}", nickname(&refused.to_string())))
                }
            })
            .collect(),
        Answer::Reserved { facts, generation, .. } if silent => {
            let name = nickname(&facts.keypackage_ref.to_string());
            vec![format!("again {name} (generation {generation})")]
        }
        Answer::Spent { late, replayed: true } => vec![format!("spent before (late: {late})")],
        _ if silent => vec!["nothing".to_owned()],
        _ => Vec::new(),
    }
}

fn refused(rejection: &Rejection) -> String {
    nickname(&rejection.to_string())
}

/// Replaces references and reservation ids by the names the script has for them.
fn nickname(text: &str) -> String {
    let names = [
        "a", "b", "c", "d", "e", "f", "a'", "L", "LL", "b2", "a:1", "b:1", "b:2", "c:2", "d:1",
        "e:3", "e:2", "f:2",
    ];
    let text = names.iter().fold(text.to_owned(), |text, name| {
        let full = reference(name).to_string();
        text.replace(&full, name).replace(&reference(name).short(), name)
    });
    (0..10).fold(text, |text, n| text.replace(&reservation(n).to_string(), &n.to_string()))
}

#[test]
fn each_ciphersuite_is_counted_by_itself() {
    let (mut pool, limits) = (PoolState::default(), Limits::STANDARD);
    play(&mut pool, "0 bob register", &limits);
    play(&mut pool, "0 bob declare 1", &limits);
    play(&mut pool, "0 bob upload a b2 c:1 L L2", &limits);
    play(&mut pool, "1 alice reserve 1 g 2", &limits);
    play(&mut pool, "2 alice reserve 2 g 1", &limits);
    play(&mut pool, "3 alice spend a 2", &limits);
    let health = Health::of(&pool, at(4), &limits);
    let counts = |ciphersuite, available, reserved| SuiteCounts {
        ciphersuite,
        available,
        reserved,
        last_resort: 1,
    };
    assert_eq!(health.suites, [counts(1, 0, 0), counts(2, 1, 1)]);
    assert_eq!((health.available, health.reserved, health.last_resort), (1, 1, 2));
}

#[test]
fn two_pools_with_the_same_packages_have_the_same_digest() {
    let (mut one, mut two) = (PoolState::default(), PoolState::default());
    play(&mut one, "0 bob upload a b", &Limits::STANDARD);
    play(&mut two, "0 bob upload b a", &Limits::STANDARD);
    assert_eq!(one.digest(), two.digest());
    play(&mut two, "1 alice reserve 1", &Limits::STANDARD);
    assert_ne!(one.digest(), two.digest());
    assert_ne!(one.digest(), Hash::ZERO);
}
