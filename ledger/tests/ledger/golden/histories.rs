//! The events of the golden logs.

use keypool_ledger::{
    CommandId, CredentialBytes, Event, GroupId, Hash, InvitationAnswer, KeyPackageRef, LeaveCause,
    NewEvent, PackageCapabilities, PackageFacts, PoolId, ReleaseReason, ReservationId,
    ReservePolicy, RevokeReason, RuleSettings, Signature, SignatureKey, SignedStatement, StreamId,
    Timestamp, WelcomeFault,
};
use uuid::Uuid;

use super::super::support::{facts, package, stream};

/// Every kind of event that came later, and every reason.
pub(super) fn later_history() -> Vec<(StreamId, NewEvent)> {
    let device = |name: &str| -> PoolId { name.parse().unwrap() };
    let pool = || stream("alice/phone");
    let group = || StreamId::Group(GroupId::new(b"a group").unwrap());
    let mailbox = || StreamId::Mailbox(device("bob/laptop"));
    let user = || "bob".to_owned();
    let acknowledged = |through, overrun| Event::Acknowledged {
        through,
        overrun,
        accepted: Vec::new(),
        told: Vec::new(),
        available: Vec::new(),
    };
    let overrun = |dropped_through| Event::Overrun { dropped_through, group: None, sender: None };
    let reservation = ReservationId(Uuid::from_u128(1));
    let signature_key = SignatureKey::new(&[4; 65]).unwrap();
    let events = vec![
        (
            pool(),
            Event::LeafKeyPinned { signature_scheme: 0x0403, signature_key, statement: None },
            0,
        ),
        (pool(), Event::PolicySet { reserve: ReservePolicy::Contacts }, 0),
        (pool(), Event::PolicySet { reserve: ReservePolicy::Open }, 0),
        (pool(), Event::ContactAdded { user: user(), reservation }, 0),
        (pool(), Event::ContactRemoved { user: user() }, 0),
        (
            group(),
            Event::Committed {
                epoch: 1,
                committer: device("alice/phone"),
                added: vec![device("bob/laptop")],
                removed: vec![device("carol")],
                not_kept: Vec::new(),
            },
            700,
        ),
        (group(), Event::Welcomed { to: vec![device("bob/laptop")], by: None }, 3_000),
        (group(), Event::Posted { sender: device("bob/laptop"), not_kept: Vec::new() }, 90),
        (mailbox(), acknowledged(8, false), 0),
        (mailbox(), overrun(0), 0),
        (mailbox(), overrun(7), 0),
        (mailbox(), acknowledged(9, true), 0),
    ];
    let numbered = (0..).zip(events);
    numbered.map(|(n, (stream, event, len))| (stream, recorded(n, event, len))).collect()
}

/// Every kind of event that came last, and every new field of the kinds before.
#[expect(clippy::too_many_lines, reason = "one arm or line for each kind of event")]
pub(super) fn newest_history() -> Vec<(StreamId, NewEvent)> {
    let device = |name: &str| -> PoolId { name.parse().unwrap() };
    let pool = || stream("alice/phone");
    let id = || GroupId::new(b"another group").unwrap();
    let group = || StreamId::Group(id());
    let mailbox = || StreamId::Mailbox(device("bob/laptop"));
    let (credential, user) = (|| "alice".to_owned(), || "mallory".to_owned());
    let key = |byte, len| SignatureKey::new(&vec![byte; len]).unwrap();
    let statement = || {
        Some(SignedStatement {
            by: key(1, 32),
            head: Hash::of(b"the devices"),
            until: Timestamp::from_secs(1_770_000_300),
            proof: Signature::new(&[9; 64]).unwrap(),
        })
    };
    let settings = RuleSettings {
        reservation_ttl_ms: 60_000,
        grace_ms: 60_000,
        life_margin_ms: 60_000,
        renewals_max: 5,
        lapses_max: 2,
        packages_max: 64,
    };
    let (from, to) = (Timestamp::from_secs(2_000_000_000), Timestamp::from_secs(1_770_000_000));
    let overrun = |sender| Event::Overrun { dropped_through: 3, group: Some(id()), sender };
    let left = |cause| Event::Left { device: device("bob/laptop"), cause };
    let not_kept = || vec![device("bob/laptop")];
    let reported = |check| Event::Reported {
        keypackage_ref: package(1),
        reservation: ReservationId(Uuid::from_u128(1)),
        check,
    };
    let events = vec![
        (StreamId::Server, Event::Configured(settings), 0),
        (
            pool(),
            Event::Registered {
                signature_key: key(2, 32),
                credential: credential(),
                voucher: Some(key(1, 32)),
                statement: statement(),
                frontend: None,
            },
            0,
        ),
        (
            pool(),
            Event::KeyRotated {
                signature_key: key(3, 32),
                credential: credential(),
                statement: statement(),
            },
            0,
        ),
        (
            pool(),
            Event::LeafKeyPinned {
                signature_scheme: 0x0403,
                signature_key: key(4, 65),
                statement: statement(),
            },
            0,
        ),
        (pool(), Event::StrangersLimitSet { per_hour: Some(600) }, 0),
        (pool(), Event::StrangersLimitSet { per_hour: None }, 0),
        (pool(), Event::UserBlocked { user: user() }, 0),
        (pool(), Event::UserUnblocked { user: user() }, 0),
        (pool(), reported(None), 0),
        (pool(), reported(Some("lifetime".to_owned())), 0),
        (group(), Event::GroupMade { creator: device("alice/phone") }, 0),
        (
            group(),
            Event::Committed {
                epoch: 0,
                committer: device("alice/phone"),
                added: vec![device("bob/laptop")],
                removed: Vec::new(),
                not_kept: not_kept(),
            },
            700,
        ),
        (group(), Event::Posted { sender: device("alice/phone"), not_kept: not_kept() }, 90),
        (mailbox(), overrun(None), 0),
        (mailbox(), overrun(Some(device("alice/phone"))), 0),
        (
            mailbox(),
            Event::Acknowledged {
                through: 9,
                overrun: false,
                accepted: vec![id()],
                told: vec![id()],
                available: Vec::new(),
            },
            0,
        ),
        (group(), left(LeaveCause::Left), 0),
        (group(), left(LeaveCause::Ignored), 0),
        (pool(), Event::NameReleased {}, 0),
        (StreamId::Server, Event::ClockAccepted { from, to }, 0),
    ];
    let numbered = (0..).zip(events);
    numbered.map(|(n, (stream, event, len))| (stream, recorded(n, event, len))).collect()
}

/// The kinds of events that came with declared credentials and recovery keys.
pub(super) fn identity_history() -> Vec<(StreamId, NewEvent)> {
    let key = |byte| SignatureKey::new(&[byte; 32]).unwrap();
    let statement = |by| SignedStatement {
        by: key(by),
        head: Hash::of(b"the devices"),
        until: Timestamp::from_secs(1_770_000_300),
        proof: Signature::new(&[9; 64]).unwrap(),
    };
    let declared = |bytes: &[u8]| Event::CredentialDeclared {
        credential: CredentialBytes::new(bytes).unwrap(),
        statement: statement(1),
    };
    let recovery =
        |byte, by| Event::RecoveryKeySet { recovery_key: key(byte), statement: statement(by) };
    let events = vec![
        // Basic, 32 bytes that are no text; and an X.509 chain of one certificate.
        declared(&[&[0, 1, 32][..], &[0xfe; 32]].concat()),
        declared(&[0, 2, 4, 3, 0x30, 1, 0]),
        recovery(5, 1),
        recovery(6, 5),
        Event::Registered {
            signature_key: key(7),
            credential: "alice".to_owned(),
            voucher: None,
            statement: Some(statement(6)),
            frontend: None,
        },
    ];
    let numbered = (0..).zip(events);
    numbered.map(|(n, event)| (stream("alice/phone"), recorded(n, event, 0))).collect()
}

/// Registrations by the app's backend: on its word alone, and with the voucher of another device.
pub(super) fn frontend_history() -> Vec<(StreamId, NewEvent)> {
    let key = |byte| SignatureKey::new(&[byte; 32]).unwrap();
    let registered = |byte, statement: Option<SignedStatement>| Event::Registered {
        signature_key: key(byte),
        credential: "alice".to_owned(),
        voucher: statement.as_ref().map(|statement| statement.by.clone()),
        statement,
        frontend: Some(key(8)),
    };
    let statement = SignedStatement {
        by: key(1),
        head: Hash::of(b"the devices"),
        until: Timestamp::from_secs(1_770_000_300),
        proof: Signature::new(&[9; 64]).unwrap(),
    };
    vec![
        (stream("alice/phone"), recorded(0, registered(1, None), 0)),
        (stream("alice/tablet"), recorded(1, registered(2, Some(statement)), 0)),
    ]
}

/// The kinds of events that came with the operator's word on users, with every new field and reason.
pub(super) fn operator_history() -> Vec<(StreamId, NewEvent)> {
    let bob = || "bob".to_owned();
    let reason = Some("sells spam".to_owned());
    let revoked =
        Event::Revoked { keypackage_ref: package(8), reason: RevokeReason::Operator, check: None };
    let events = vec![
        (StreamId::Server, Event::UserSuspended { user: bob(), reason: None }),
        (StreamId::Server, Event::UserReinstated { user: bob() }),
        (StreamId::Server, Event::UserSuspended { user: bob(), reason }),
        (stream("bob/laptop"), Event::DeviceRemoved { by_operator: true }),
        (stream("bob/laptop"), revoked),
    ];
    let numbered = (0..).zip(events);
    numbered.map(|(n, (stream, event))| (stream, recorded(n, event, 0))).collect()
}

/// Packages with capabilities of every kind, of none, and from before they were recorded.
pub(super) fn capabilities_history() -> Vec<(StreamId, NewEvent)> {
    let known = |extensions: &[u16], proposals: &[u16], credentials: &[u16]| {
        let [extensions, proposals, credentials] =
            [extensions, proposals, credentials].map(<[u16]>::to_vec);
        Some(Box::new(PackageCapabilities { extensions, proposals, credentials }))
    };
    let capabilities =
        [known(&[10, 0xff01], &[8], &[1, 2]), known(&[], &[], &[1]), known(&[], &[], &[]), None];
    let event = |(n, capabilities)| {
        let facts = PackageFacts { capabilities, ..facts(n) };
        (stream("alice/phone"), recorded(n, Event::Uploaded(facts), 40))
    };
    (0..).zip(capabilities).map(event).collect()
}

/// The kinds of events that came with answers to invitations and waiting lists, with every answer, every
/// reason, and every new field of the kinds before.
pub(super) fn invitations_history() -> Vec<(StreamId, NewEvent)> {
    let device = |name: &str| -> PoolId { name.parse().unwrap() };
    let id = || GroupId::new(b"an answered group").unwrap();
    let group = || StreamId::Group(id());
    let mailbox = || StreamId::Mailbox(device("alice/phone"));
    let answered = |answer| {
        let (device, inviter) = (device("bob/laptop"), device("alice/phone"));
        (group(), Event::InvitationAnswered { device, inviter, answer }, 0)
    };
    let failed = |reason| answered(InvitationAnswer::Failed { reason });
    let until = Timestamp::from_secs(1_771_209_600);
    let awaited = |as_stranger: Vec<PoolId>| {
        let targets = vec![device("bob/laptop"), device("carol")];
        (mailbox(), Event::Awaited { targets, as_stranger, until }, 0)
    };
    let (to, by) = (vec![device("bob/laptop")], Some(device("alice/phone")));
    let cause = LeaveCause::Failed;
    let events = vec![
        (group(), Event::Welcomed { to, by }, 3_000),
        answered(InvitationAnswer::Joined),
        failed(WelcomeFault::KeysGone),
        failed(WelcomeFault::Expired),
        failed(WelcomeFault::Unreadable),
        failed(WelcomeFault::Untrusted),
        answered(InvitationAnswer::Declined),
        answered(InvitationAnswer::Expired),
        (group(), Event::Left { device: device("bob/laptop"), cause }, 0),
        awaited(Vec::new()),
        awaited(vec![device("carol")]),
        (
            mailbox(),
            Event::Acknowledged {
                through: 9,
                overrun: false,
                accepted: Vec::new(),
                told: Vec::new(),
                available: vec![device("bob/laptop")],
            },
            0,
        ),
        (mailbox(), Event::AwaitStopped { targets: vec![device("carol")] }, 0),
    ];
    let numbered = (0..).zip(events);
    numbered.map(|(n, (stream, event, len))| (stream, recorded(n, event, len))).collect()
}

/// Every kind of event of the first log, and every reason.
#[expect(clippy::too_many_lines, reason = "one arm or line for each kind of event")]
pub(super) fn history() -> Vec<NewEvent> {
    let (first, second) = (ReservationId(Uuid::from_u128(1)), ReservationId(Uuid::from_u128(2)));
    let signature_key = |byte| SignatureKey::new(&[byte; 32]).unwrap();
    let holder: PoolId = "bob".parse().unwrap();
    let group = GroupId::new(b"a group").unwrap();
    let deadline = Timestamp::from_millis(1_770_000_060_000);
    let (one, two) = (|| package(1), || package(2));
    let revoked = |keypackage_ref: KeyPackageRef, reason| Event::Revoked {
        keypackage_ref,
        reason,
        check: None,
    };
    let reserved = |keypackage_ref, reservation, generation| Event::Reserved {
        keypackage_ref,
        reservation,
        generation,
        holder: holder.clone(),
        group: group.clone(),
        deadline,
    };
    let released =
        |reservation, reason| Event::Released { keypackage_ref: one(), reservation, reason };
    let spent = |keypackage_ref, reservation, holder, late| Event::Spent {
        keypackage_ref,
        reservation,
        holder,
        group: group.clone(),
        late,
    };
    let credential = || "alice".to_owned();
    let events = vec![
        (
            Event::Registered {
                signature_key: signature_key(1),
                credential: credential(),
                voucher: None,
                statement: None,
                frontend: None,
            },
            0,
        ),
        (Event::Created(facts(1)), 0),
        (Event::Uploaded(facts(1)), 400),
        (reserved(one(), first, 1), 0),
        (Event::Renewed { keypackage_ref: one(), reservation: first, deadline }, 0),
        (released(first, ReleaseReason::Cancelled), 0),
        (reserved(one(), second, 2), 0),
        (released(second, ReleaseReason::Lapsed), 0),
        (spent(one(), Some(second), Some(holder.clone()), true), 0),
        (Event::Conflict { keypackage_ref: one(), lost: first, holds: second }, 0),
        (Event::Uploaded(facts(2)), 3_000),
        (spent(two(), None, None, false), 0),
        (Event::Expired { keypackage_ref: package(3) }, 0),
        (revoked(package(4), RevokeReason::Rotated), 0),
        (revoked(package(5), RevokeReason::Withdrawn), 0),
        (revoked(package(6), RevokeReason::Reported), 0),
        (revoked(package(7), RevokeReason::Lapsed), 0),
        (
            Event::KeyRotated {
                signature_key: signature_key(2),
                credential: credential(),
                statement: None,
            },
            0,
        ),
        (Event::DeviceRemoved { by_operator: false }, 0),
    ];
    (0..).zip(events).map(|(n, (event, payload_len))| recorded(n, event, payload_len)).collect()
}

pub(super) fn recorded(n: u64, event: Event, payload_len: usize) -> NewEvent {
    NewEvent {
        at: Timestamp::from_millis(1_770_000_000_000 + 250 * n),
        command: CommandId(Uuid::from_u128(u128::from(n / 2))),
        request: Hash::of(&n.to_be_bytes()),
        event,
        payload: (0..payload_len).map(|n| n.to_le_bytes()[0]).collect(),
    }
}
