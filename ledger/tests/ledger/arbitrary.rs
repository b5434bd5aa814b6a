//! Random events and envelopes of every kind, for the properties.

use keypool_ledger::{
    CommandId, CredentialBytes, Event, EventEnvelope, GroupId, Hash, InvitationAnswer,
    KeyPackageRef, LeaveCause, NewEvent, PackageCapabilities, PackageFacts, PoolId, ReleaseReason,
    ReservationId, ReservePolicy, RevokeReason, RuleSettings, Signature, SignatureKey,
    SignedStatement, StreamId, Timestamp, WelcomeFault, codec,
};
use quickcheck::{Arbitrary, Gen};
use uuid::Uuid;

/// An event of any kind.
#[derive(Clone, Debug)]
pub(crate) struct AnyEvent(pub(crate) Event);

/// An envelope around an event of any kind.
#[derive(Clone, Debug)]
pub(crate) struct AnyEnvelope(pub(crate) EventEnvelope);

/// The number of kinds of events that the golden log has.
pub(crate) const N_KINDS: u8 = 12;
/// The number of kinds that came later, in the same schema.
pub(crate) const N_LATER: u8 = 25;

impl Arbitrary for AnyEvent {
    fn arbitrary(g: &mut Gen) -> Self {
        let kind = u8::arbitrary(g) % (N_KINDS + N_LATER);
        Self(event(kind, g))
    }
}

impl Arbitrary for AnyEnvelope {
    fn arbitrary(g: &mut Gen) -> Self {
        Self(EventEnvelope {
            schema: codec::SCHEMA,
            stream: StreamId::Pool(pool(g)),
            version: u64::arbitrary(g),
            at: timestamp(g),
            command: CommandId(Uuid::from_u128(u128::arbitrary(g))),
            request: hash(g),
            prev: hash(g),
            payload: hash(g),
            event: AnyEvent::arbitrary(g).0,
        })
    }
}

/// A random event to be appended; many share a command.
pub(crate) fn new_event(g: &mut Gen, payload: Vec<u8>) -> NewEvent {
    NewEvent {
        at: Timestamp::from_millis(7),
        command: CommandId(Uuid::from_u128(u128::from(u8::arbitrary(g) % 9))),
        request: hash(g),
        event: AnyEvent::arbitrary(g).0,
        payload,
    }
}

#[expect(clippy::too_many_lines, reason = "one arm or line for each kind of event")]
fn event(kind: u8, g: &mut Gen) -> Event {
    match kind {
        0 => Event::Created(facts(g)),
        1 => Event::Uploaded(facts(g)),
        2 => Event::Reserved {
            keypackage_ref: keypackage_ref(g),
            reservation: reservation(g),
            generation: u32::arbitrary(g),
            holder: pool(g),
            group: group(g),
            deadline: timestamp(g),
        },
        3 => Event::Renewed {
            keypackage_ref: keypackage_ref(g),
            reservation: reservation(g),
            deadline: timestamp(g),
        },
        4 => Event::Released {
            keypackage_ref: keypackage_ref(g),
            reservation: reservation(g),
            reason: *g.choose(&[ReleaseReason::Cancelled, ReleaseReason::Lapsed]).unwrap(),
        },
        5 => Event::Spent {
            keypackage_ref: keypackage_ref(g),
            reservation: bool::arbitrary(g).then(|| reservation(g)),
            holder: bool::arbitrary(g).then(|| pool(g)),
            group: group(g),
            late: bool::arbitrary(g),
        },
        6 => Event::Expired { keypackage_ref: keypackage_ref(g) },
        7 => Event::Revoked {
            keypackage_ref: keypackage_ref(g),
            reason: revoke_reason(g),
            check: bool::arbitrary(g).then(|| "keys".to_owned()),
        },
        8 => Event::Conflict {
            keypackage_ref: keypackage_ref(g),
            lost: reservation(g),
            holds: reservation(g),
        },
        9 => Event::Registered {
            signature_key: key(g),
            credential: String::arbitrary(g),
            voucher: bool::arbitrary(g).then(|| key(g)),
            statement: statement(g),
            frontend: bool::arbitrary(g).then(|| key(g)),
        },
        10 => Event::KeyRotated {
            signature_key: key(g),
            credential: String::arbitrary(g),
            statement: statement(g),
        },
        11 => Event::ContactAdded { user: "ann".to_owned(), reservation: reservation(g) },
        12 => Event::ContactRemoved { user: "ann".to_owned() },
        13 => Event::PolicySet { reserve: ReservePolicy::Contacts },
        14 => Event::LeafKeyPinned {
            signature_scheme: u16::arbitrary(g),
            signature_key: key(g),
            statement: statement(g),
        },
        15 => Event::NameReleased {},
        16 => Event::UserBlocked { user: "ann".to_owned() },
        17 => Event::UserUnblocked { user: "ann".to_owned() },
        18 => Event::StrangersLimitSet { per_hour: Option::arbitrary(g) },
        19 => Event::Reported {
            keypackage_ref: keypackage_ref(g),
            reservation: reservation(g),
            check: bool::arbitrary(g).then(|| "keys".to_owned()),
        },
        20 => Event::GroupMade { creator: pool(g) },
        21 => Event::Left { device: pool(g), cause: LeaveCause::Ignored },
        22 => Event::Acknowledged {
            through: u64::arbitrary(g),
            overrun: bool::arbitrary(g),
            accepted: vec![group(g)],
            told: vec![group(g)],
            available: vec![pool(g)],
        },
        23 => Event::Overrun {
            dropped_through: u64::arbitrary(g),
            group: Some(group(g)),
            sender: bool::arbitrary(g).then(|| pool(g)),
        },
        24 => Event::ClockAccepted { from: timestamp(g), to: timestamp(g) },
        25 => Event::Configured(settings(g)),
        26 => {
            Event::CredentialDeclared { credential: credential(g), statement: signed_statement(g) }
        }
        27 => Event::RecoveryKeySet { recovery_key: key(g), statement: signed_statement(g) },
        28 => Event::InvitationAnswered { device: pool(g), inviter: pool(g), answer: answer(g) },
        29 => Event::Awaited {
            targets: vec![pool(g), pool(g)],
            as_stranger: vec![pool(g)],
            until: timestamp(g),
        },
        30 => Event::AwaitStopped { targets: vec![pool(g)] },
        31 => Event::UserNamed {},
        32 => Event::DeviceNamed {},
        33 => Event::UserErased {},
        34 => Event::UserSuspended {
            user: "ann".to_owned(),
            reason: bool::arbitrary(g).then(|| String::arbitrary(g)),
        },
        35 => Event::UserReinstated { user: "ann".to_owned() },
        _ => Event::DeviceRemoved { by_operator: bool::arbitrary(g) },
    }
}

fn answer(g: &mut Gen) -> InvitationAnswer {
    *g.choose(&[
        InvitationAnswer::Joined,
        InvitationAnswer::Failed { reason: WelcomeFault::KeysGone },
        InvitationAnswer::Failed { reason: WelcomeFault::Untrusted },
        InvitationAnswer::Declined,
        InvitationAnswer::Expired,
    ])
    .unwrap()
}

fn facts(g: &mut Gen) -> PackageFacts {
    PackageFacts {
        keypackage_ref: keypackage_ref(g),
        not_before: timestamp(g),
        not_after: timestamp(g),
        ciphersuite: u16::arbitrary(g),
        credential: hash(g),
        init_key: hash(g),
        last_resort: bool::arbitrary(g),
        capabilities: bool::arbitrary(g).then(|| Box::new(capabilities(g))),
    }
}

fn capabilities(g: &mut Gen) -> PackageCapabilities {
    PackageCapabilities {
        extensions: Vec::arbitrary(g),
        proposals: Vec::arbitrary(g),
        credentials: Vec::arbitrary(g),
    }
}

fn statement(g: &mut Gen) -> Option<SignedStatement> {
    bool::arbitrary(g).then(|| signed_statement(g))
}

fn signed_statement(g: &mut Gen) -> SignedStatement {
    SignedStatement {
        by: key(g),
        head: hash(g),
        until: timestamp(g),
        proof: Signature::new(&[u8::arbitrary(g); 64]).unwrap(),
    }
}

fn credential(g: &mut Gen) -> CredentialBytes {
    let len = 3 + usize::from(u16::arbitrary(g) % 8190);
    CredentialBytes::new(&vec![u8::arbitrary(g); len]).unwrap()
}

fn settings(g: &mut Gen) -> RuleSettings {
    RuleSettings {
        reservation_ttl_ms: u64::arbitrary(g),
        grace_ms: u64::arbitrary(g),
        life_margin_ms: u64::arbitrary(g),
        renewals_max: u32::arbitrary(g),
        lapses_max: u32::arbitrary(g),
        packages_max: u64::arbitrary(g),
    }
}

fn revoke_reason(g: &mut Gen) -> RevokeReason {
    let reasons = [
        RevokeReason::Rotated,
        RevokeReason::Withdrawn,
        RevokeReason::Reported,
        RevokeReason::Lapsed,
        RevokeReason::Operator,
    ];
    *g.choose(&reasons).unwrap()
}

/// Few different ones, so that some meet.
fn reservation(g: &mut Gen) -> ReservationId {
    ReservationId(Uuid::from_u128(u128::from(u8::arbitrary(g) % 9)))
}

fn keypackage_ref(g: &mut Gen) -> KeyPackageRef {
    let len = *g.choose(&[16, 32, 48, 64]).unwrap();
    KeyPackageRef::new(&vec![u8::arbitrary(g) % 9; len]).unwrap()
}

fn pool(g: &mut Gen) -> PoolId {
    let user = *g.choose(&["ann", "anna", "b@example.org", "c:d+e"]).unwrap();
    PoolId::of(user, *g.choose(&[None, Some("phone"), Some("p")]).unwrap()).unwrap()
}

fn group(g: &mut Gen) -> GroupId {
    let len = 1 + usize::from(u8::arbitrary(g) % 255);
    GroupId::new(&vec![u8::arbitrary(g); len]).unwrap()
}

fn key(g: &mut Gen) -> SignatureKey {
    SignatureKey::new(&vec![u8::arbitrary(g); *g.choose(&[32, 65, 133]).unwrap()]).unwrap()
}

fn hash(g: &mut Gen) -> Hash {
    Hash::of(&[u8::arbitrary(g)])
}

fn timestamp(g: &mut Gen) -> Timestamp {
    Timestamp::from_millis(u64::arbitrary(g))
}
