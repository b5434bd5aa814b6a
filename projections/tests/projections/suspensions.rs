//! Which commands a suspension refuses, and which it does not.

use keypool_ledger::{Event, RevokeReason, SignatureKey, Timestamp};
use keypool_projections::{
    Command, PolicyChange, Rejection, Remover, RequiredCapabilities, RevokeScope, SuspensionChange,
    Suspensions,
};

use crate::history::{claim, group, pool, reservation};

fn suspended(users: &[&str]) -> Suspensions {
    let mut suspensions = Suspensions::default();
    for (position, user) in (1..).zip(users) {
        let change = SuspensionChange::Suspend { user: (*user).to_owned(), reason: None };
        let event = suspensions.decide(&change).unwrap();
        suspensions.evolve(position, Timestamp::from_secs(position), &event);
    }
    suspensions
}

fn key() -> SignatureKey {
    SignatureKey::new(&[7; 32]).unwrap()
}

fn reserve(holder: &str) -> Command {
    Command::Reserve {
        reservation: reservation(1),
        holder: pool(holder),
        group: group("g"),
        ciphersuites: Vec::new(),
        required: RequiredCapabilities::default(),
        introduced: true,
        last_resort_only: false,
    }
}

fn revoke(reason: RevokeReason) -> Command {
    Command::Revoke { which: RevokeScope::All, reason }
}

#[test]
fn each_command_of_a_suspended_user_is_refused_and_the_operators_are_not() {
    let suspensions = suspended(&["bob"]);
    let own = |user: &str| Err(Rejection::Suspended(user.to_owned()));
    let credential = || "bob".to_owned();
    let admit = Command::Admit {
        signature_key: key(),
        credential: credential(),
        statement: None,
        frontend: Some(key()),
    };
    let register =
        Command::Register { signature_key: key(), credential: credential(), statement: None };
    let refused = [
        register,
        admit,
        Command::Remove { by: Remover::Key(key()) },
        Command::Upload(Vec::new()),
        Command::Replace { packages: Vec::new(), next: None },
        revoke(RevokeReason::Withdrawn),
        revoke(RevokeReason::Rotated),
        Command::SetPolicy(PolicyChange::default()),
    ];
    for command in refused {
        for device in ["bob", "bob/never-seen"] {
            assert_eq!(suspensions.check(Some(&pool(device)), &command), own("bob"), "{command:?}");
        }
        assert_eq!(suspensions.check(Some(&pool("alice")), &command), Ok(()), "{command:?}");
    }
    let carried_out = [
        Command::Settle,
        Command::ReleaseName,
        Command::Remove { by: Remover::Operator },
        revoke(RevokeReason::Operator),
    ];
    for command in carried_out {
        assert_eq!(suspensions.check(Some(&pool("bob")), &command), Ok(()), "{command:?}");
    }
}

#[test]
fn a_suspended_user_neither_holds_packages_nor_has_them_handed_out() {
    let suspensions = suspended(&["bob", "carol"]);
    let (own, other) = (
        |user: &str| Err(Rejection::Suspended(user.to_owned())),
        |user: &str| Err(Rejection::InviteeSuspended(user.to_owned())),
    );
    assert_eq!(suspensions.check(Some(&pool("bob/phone")), &reserve("alice")), other("bob"));
    assert_eq!(suspensions.check(Some(&pool("alice")), &reserve("bob/phone")), own("bob"));
    // The caller is told of the own suspension first.
    assert_eq!(suspensions.check(Some(&pool("bob")), &reserve("carol")), own("carol"));
    assert_eq!(suspensions.check(Some(&pool("alice")), &reserve("dave")), Ok(()));
    let claims = |holder: &str| {
        let report =
            Command::Report { claim: claim("a", 1, holder), check: None, admissible: true };
        let spend = Command::Spend { claim: claim("a", 1, holder), group: group("g") };
        [
            Command::Renew(claim("a", 1, holder)),
            Command::Release(claim("a", 1, holder)),
            report,
            spend,
        ]
    };
    for command in claims("bob/phone") {
        assert_eq!(suspensions.check(None, &command), own("bob"), "{command:?}");
    }
    for command in claims("alice") {
        assert_eq!(suspensions.check(None, &command), Ok(()), "{command:?}");
    }
}

#[test]
fn a_suspension_is_decided_once_and_ends_once() {
    let mut suspensions = suspended(&["bob"]);
    let known = suspensions.of("bob").cloned();
    let again = SuspensionChange::Suspend { user: "bob".to_owned(), reason: Some("x".to_owned()) };
    assert_eq!(suspensions.decide(&again), None, "the first reason stays");
    assert_eq!(suspensions.of("bob").cloned(), known);
    let end = SuspensionChange::Reinstate { user: "bob".to_owned() };
    let event = suspensions.decide(&end).unwrap();
    assert_eq!(event, Event::UserReinstated { user: "bob".to_owned() });
    suspensions.evolve(2, Timestamp::from_secs(2), &event);
    assert_eq!((suspensions.decide(&end), suspensions.check_caller("bob")), (None, Ok(())));
}

#[test]
fn the_suspended_users_are_listed_by_name() {
    let suspensions = suspended(&["carol", "bob"]);
    let listed: Vec<(&str, u64)> =
        suspensions.iter().map(|(user, suspension)| (user, suspension.position)).collect();
    assert_eq!(listed, [("bob", 2), ("carol", 1)]);
    assert_eq!(Suspensions::default().iter().count(), 0);
}
