//! Who is a contact at the real server: introduced, joined, removed; and who has had enough for now.

use std::time::Duration;

use keypool_client::{InviteError, SkipReason};
use keypool_ledger::{Clock, ReservePolicy};
use keypool_projections::quota::{Quotas, Rate};

use super::{
    people::{alice_and_absent_bob, now, why},
    service::{Service, group, run},
};

#[test]
fn who_is_introduced_invites_and_is_a_contact_once_the_invitation_is_joined() {
    run(async {
        let service = Service::start();
        let (alice, first) = alice_and_absent_bob(&service, 6).await;
        let bob = service.open("bob");
        bob.connection().set_reserve_policy(ReservePolicy::Contacts).await.unwrap();
        let refused = alice.invite(&first, ["bob"]).await.unwrap_err();
        assert_eq!(why(&refused), &SkipReason::TakesNoInvitations);

        let until = service.clock.now().after(Duration::from_hours(24));
        let token = bob.connection().introduce(until).await.unwrap();
        alice.connection().keep_contact_token("bob", token).unwrap();
        alice.invite(&first, ["bob"]).await.unwrap();
        // Nobody is a contact before the invitation is joined.
        bob.connection().refresh_now(now(&service)).await.unwrap();
        assert_eq!(bob.connection().tell_contacts().await.unwrap(), 0);
        bob.join(&service.mail.welcomes("bob")[0]).await.unwrap();
        assert_eq!(bob.connection().tell_contacts().await.unwrap(), 1);
        bob.connection().refresh_now(now(&service)).await.unwrap();
        assert_eq!(bob.connection().tell_contacts().await.unwrap(), 0);

        // The token has ended, and is not needed any more.
        service.clock.advance(Duration::from_mins(59));
        let second = group("second");
        alice.create_group(&second).unwrap();
        alice.invite(&second, ["bob"]).await.unwrap();
        let policy = bob.connection().remove_contacts(vec!["alice".to_owned()]).await.unwrap();
        assert!(policy.contacts.is_empty());
        bob.connection().refresh_now(now(&service)).await.unwrap();
        assert_eq!(bob.connection().tell_contacts().await.unwrap(), 0);
    });
}

#[test]
fn an_invitation_that_has_to_wait_says_how_long() {
    run(async {
        let service = Service::start_with(|settings| {
            let pair = Rate::new(1, Duration::from_mins(30));
            settings.quotas = Some(Quotas { pair, ..Quotas::STANDARD });
        });
        let (alice, first) = alice_and_absent_bob(&service, 6).await;
        alice.invite(&first, ["bob"]).await.unwrap();
        let second = group("second");
        alice.create_group(&second).unwrap();
        let refused = alice.invite(&second, ["bob"]).await.unwrap_err();
        let SkipReason::OverQuota { retry_after_s: Some(wait_s) } = why(&refused) else {
            panic!("{refused}")
        };
        assert!((1700..=1800).contains(wait_s), "{wait_s}");
        assert!(matches!(refused, InviteError::Nobody { .. }));
        service.clock.advance(Duration::from_secs(*wait_s));
        alice.invite(&second, ["bob"]).await.unwrap();
    });
}
