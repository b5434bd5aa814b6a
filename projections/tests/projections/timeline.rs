//! The words for each event in the history of a pool, a group, a mailbox and the server.

use insta::assert_snapshot;
use keypool_ledger::{
    CredentialBytes, Event, EventEnvelope, Hash, InvitationAnswer, LeaveCause, PoolId,
    ReservePolicy, RevokeReason, RuleSettings, Signature, SignatureKey, SignedStatement, Timestamp,
    WelcomeFault,
};
use keypool_projections::timeline;

use crate::history::{at, envelope, events_of_a, group, package, pool, reference, reservation};

/// One line for each event: its name, and its words.
fn told(events: Vec<Event>) -> String {
    let line = |event: Event| {
        let entry = timeline([&envelope(1, pool("bob"), event, at(0))], None).pop().unwrap();
        format!("{}: {}", entry.event, entry.detail).trim_end().to_owned()
    };
    events.into_iter().map(line).collect::<Vec<_>>().join("\n")
}

fn key(number: u8) -> SignatureKey {
    SignatureKey::new(&[number; 32]).unwrap()
}

fn statement() -> SignedStatement {
    let proof = Signature::new(&[0; 64]).unwrap();
    SignedStatement { by: key(1), head: Hash::ZERO, until: at(0), proof }
}

#[test]
fn the_events_of_a_package_are_told_with_who_and_how_long() {
    let keypackage_ref = || reference("a");
    let mut events = events_of_a(true);
    events.extend([
        Event::Uploaded(package("b2").facts),
        Event::Spent {
            keypackage_ref: keypackage_ref(),
            reservation: None,
            holder: None,
            group: group("g"),
            late: true,
        },
        Event::Revoked {
            keypackage_ref: keypackage_ref(),
            reason: RevokeReason::Reported,
            check: Some("keys".to_owned()),
        },
    ]);
    for check in [None, Some("keys".to_owned())] {
        let (keypackage_ref, reservation) = (keypackage_ref(), reservation(1));
        events.push(Event::Reported { keypackage_ref, reservation, check });
    }
    assert_snapshot!(told(events), @"
    created: last resort, ciphersuite 1, 0 days left
    uploaded: last resort, ciphersuite 1, 0 days left
    reserved: by alice/main for 60 s, reservation 00000000, generation 1
    renewed: for 90 s more, reservation 00000000
    released: lapsed, reservation 00000000
    spent: by alice/main, reservation 00000000
    expired: its lifetime is over
    revoked: withdrawn
    conflict: late spend of 00000000 refused, 00000000 was given it
    reported: no check named, reservation 00000000; it passes admission
    uploaded: ciphersuite 2, 0 days left
    spent: late
    revoked: reported: keys
    reported: no check named, reservation 00000000; it passes admission
    reported: keys, reservation 00000000; it passes admission
    ");
}

#[test]
fn days_left_are_those_to_the_nearest_whole_day() {
    let left = |secs: u64| {
        let mut facts = package("a").facts;
        facts.not_after = at(secs);
        told(vec![Event::Uploaded(facts)])
    };
    let days = |secs| left(secs).rsplit_once(", ").unwrap().1.to_owned();
    let day = 86_400;
    let found = [day / 2 - 1, day / 2, day + day / 2 - 1, 14 * day - 1, 14 * day].map(days);
    assert_eq!(
        found,
        ["0 days left", "1 days left", "1 days left", "14 days left", "14 days left"]
    );
}

#[test]
fn the_events_of_a_device_are_told_with_its_keys_and_its_owners_wishes() {
    let registered = |frontend: Option<u8>| Event::Registered {
        signature_key: key(1),
        credential: "bob".to_owned(),
        voucher: None,
        statement: None,
        frontend: frontend.map(key),
    };
    let user = || "carol".to_owned();
    let credential = CredentialBytes::new(&[0, 2, 7]).unwrap();
    let rotated = Event::KeyRotated {
        signature_key: key(2),
        credential: "bob".to_owned(),
        statement: Some(statement()),
    };
    let pinned = Event::LeafKeyPinned {
        signature_scheme: 0x0403,
        signature_key: key(3),
        statement: Some(statement()),
    };
    assert_snapshot!(told(vec![
        registered(None),
        registered(Some(8)),
        rotated,
        pinned,
        Event::CredentialDeclared { credential, statement: statement() },
        Event::RecoveryKeySet { recovery_key: key(9), statement: statement() },
        Event::DeviceRemoved { by_operator: true },
        Event::DeviceRemoved { by_operator: false },
        Event::NameReleased {},
        Event::UserErased {},
        Event::PolicySet { reserve: ReservePolicy::Contacts },
        Event::ContactAdded { user: user(), reservation: reservation(1) },
        Event::ContactRemoved { user: user() },
        Event::UserBlocked { user: user() },
        Event::UserUnblocked { user: user() },
        Event::StrangersLimitSet { per_hour: Some(60) },
        Event::StrangersLimitSet { per_hour: None },
    ]), @"
    registered: key AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE speaks for bob
    registered: key AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE speaks for bob, by the frontend key CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg
    key_rotated: key AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI speaks for bob
    leaf_key_pinned: key AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM signs packages of scheme 0x0403
    credential_declared: packages carry a credential of type 2
    recovery_key_set: key CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk is the user's recovery key
    device_removed: the operator removed it
    device_removed:
    name_released: the operator released the name
    user_erased: the operator had the user erased
    policy_set: who may reserve: contacts
    contact_added: carol is a contact: reservation 00000000 was joined
    contact_removed: carol is a stranger again
    user_blocked: carol is blocked
    user_unblocked: carol is not blocked any more
    strangers_limit_set: strangers may take 60 packages an hour
    strangers_limit_set: strangers may take what the server lets them
    ");
}

#[test]
fn the_events_of_groups_and_mailboxes_are_told_with_their_devices() {
    let answered =
        |answer| Event::InvitationAnswered { device: pool("bob"), inviter: pool("alice"), answer };
    let overrun = |has_group: bool, sender: Option<PoolId>| Event::Overrun {
        dropped_through: 7,
        group: has_group.then(|| group("g")),
        sender,
    };
    let failed = InvitationAnswer::Failed { reason: WelcomeFault::KeysGone };
    assert_snapshot!(told(vec![
        Event::GroupMade { creator: pool("alice") },
        Event::Committed {
            epoch: 3,
            committer: pool("alice"),
            added: vec![pool("bob")],
            removed: vec![pool("carol"), pool("dave")],
            not_kept: Vec::new(),
        },
        Event::Welcomed { to: vec![pool("bob"), pool("carol")], by: Some(pool("alice")) },
        answered(InvitationAnswer::Joined),
        answered(failed),
        Event::Posted { sender: pool("bob"), not_kept: Vec::new() },
        Event::Left { device: pool("bob"), cause: LeaveCause::Ignored },
        Event::Acknowledged {
            through: 12,
            overrun: false,
            accepted: Vec::new(),
            told: Vec::new(),
            available: Vec::new(),
        },
        Event::Awaited { targets: vec![pool("bob")], as_stranger: Vec::new(), until: at(9) },
        Event::AwaitStopped { targets: vec![pool("bob"), pool("carol")] },
        overrun(true, Some(pool("carol"))),
        overrun(true, None),
        overrun(false, None),
    ]), @"
    group_made: by alice/main
    committed: epoch 3 by alice/main, added 1, removed 2
    welcomed: to 2 devices
    invitation_answered: bob/main to alice/main: joined
    invitation_answered: bob/main to alice/main: failed, keys_gone
    posted: by bob/main
    left: bob/main: ignored
    acknowledged: up to position 12
    awaited: until 1800000009000 ms for packages of 1 devices
    await_stopped: for packages of 2 devices
    overrun: nothing more of carol/main in group Zw== is kept until the device is told
    overrun: nothing more of group Zw== is kept until the device is told
    overrun: nothing more is kept until the device has been here
    ");
}

#[test]
fn the_events_of_the_server_are_told_with_the_operators_word() {
    let settings = RuleSettings {
        reservation_ttl_ms: 90_000,
        grace_ms: 60_500,
        life_margin_ms: 1,
        renewals_max: 5,
        lapses_max: 2,
        packages_max: 64,
    };
    let user = || "carol".to_owned();
    assert_snapshot!(told(vec![
        Event::Configured(settings),
        Event::ClockAccepted { from: at(5), to: at(2) },
        Event::UserSuspended { user: user(), reason: None },
        Event::UserSuspended { user: user(), reason: Some("spam".to_owned()) },
        Event::UserReinstated { user: user() },
        Event::UserNamed {},
    ]), @"
    configured: reservations last 90 s and 60 s of grace; 2 lapses retire a package
    clock_accepted: from 1800000005000 ms to 1800000002000 ms
    user_suspended: the operator blocked carol
    user_suspended: the operator blocked carol: spam
    user_reinstated: the operator unblocked carol
    user_named:
    ");
}

#[test]
fn a_timeline_is_of_one_package_if_one_is_named() {
    let history: Vec<EventEnvelope> = (1..)
        .zip([
            Event::Uploaded(package("a").facts),
            Event::Uploaded(package("b").facts),
            Event::Expired { keypackage_ref: reference("a") },
            Event::NameReleased {},
        ])
        .map(|(version, event)| envelope(version, pool("bob"), event, at(version)))
        .collect();
    let versions = |only: Option<&str>| -> Vec<(u64, Timestamp)> {
        let only = only.map(reference);
        let lines = timeline(&history, only.as_ref());
        assert!(lines.iter().all(|line| only.is_none() || line.keypackage_ref == only));
        lines.iter().map(|line| (line.version, line.at)).collect()
    };
    assert_eq!(versions(Some("a")), [(1, at(1)), (3, at(3))]);
    assert_eq!(versions(None).len(), 4);
}
