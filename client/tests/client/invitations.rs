//! Invitations over the real server: while the other is offline, through faults, across crashes.

use std::sync::Arc;

use keypool_api::Code;
use keypool_client::{GroupError, InviteError, PackageUse, PoolConfig, SkipReason};

use super::{
    people::{
        alice_and_absent_bob, be_overtaken, bob_joins_and_hears, counts, now, reserve, resume, why,
    },
    service::{Fault, Service, group, run},
};

#[test]
fn somebody_who_is_offline_is_invited_and_joins_later() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and_absent_bob(&service, 2).await;
        let invited = alice.invite(&group, ["bob"]).await.unwrap();
        assert_eq!(
            (invited.added[0].device.to_string().as_str(), invited.attempts),
            ("bob/main", 1)
        );
        assert_eq!(counts(&service).await, (1, 0, 1));
        bob_joins_and_hears(&service, &alice, &group).await;
    });
}

#[test]
fn a_user_without_packages_or_without_a_device_is_named() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and_absent_bob(&service, 0).await;
        let refused = alice.invite(&group, ["bob"]).await.unwrap_err();
        assert_eq!(why(&refused), &SkipReason::PoolExhausted);
        assert!(refused.to_string().contains("bob/main has no KeyPackage left"), "{refused}");
        let refused = alice.invite(&group, ["nobody"]).await.unwrap_err();
        assert_eq!(why(&refused), &SkipReason::UnknownUser);
        assert!(!alice.membership().has_pending_commit(&group).unwrap());
        assert!(resume(&alice).await.is_none());
    });
}

#[test]
fn a_commit_that_is_not_accepted_leaves_nothing_and_the_package_goes_back() {
    run(async {
        for fault in [Fault::Refused, Fault::EpochTaken] {
            let service = Service::start();
            let (alice, group) = alice_and_absent_bob(&service, 2).await;
            service.mail.fail_commits(&[fault]);
            let refused = alice.invite(&group, ["bob"]).await.unwrap_err();
            assert!(matches!(refused, InviteError::NotAccepted(_)), "{refused:?}");
            assert!(!alice.membership().has_pending_commit(&group).unwrap());
            assert_eq!(alice.members(&group).unwrap().len(), 1);
            assert_eq!(counts(&service).await, (2, 0, 0));
            assert!(resume(&alice).await.is_none());
            // The next try is as good as the first.
            alice.invite(&group, ["bob"]).await.unwrap();
            bob_joins_and_hears(&service, &alice, &group).await;
        }
    });
}

#[test]
fn an_unanswered_commit_is_posted_again_and_the_invitation_goes_on() {
    run(async {
        for faults in [
            &[Fault::TakenUnanswered][..],
            &[Fault::LostUnanswered],
            &[Fault::LostUnanswered, Fault::TakenUnanswered, Fault::TakenUnanswered],
        ] {
            let service = Service::start();
            let (alice, group) = alice_and_absent_bob(&service, 2).await;
            service.mail.fail_commits(faults);
            let unfinished = alice.invite(&group, ["bob"]).await.unwrap_err();
            assert!(matches!(unfinished, InviteError::Unfinished { .. }), "{unfinished:?}");
            for _ in 1..faults.len() {
                resume(&alice).await.unwrap().unwrap_err();
            }
            resume(&alice).await.unwrap().unwrap();
            assert_eq!(counts(&service).await, (1, 0, 1));
            bob_joins_and_hears(&service, &alice, &group).await;
        }
    });
}

#[test]
fn a_welcome_that_did_not_get_through_is_handed_over_later() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and_absent_bob(&service, 2).await;
        service.mail.fail_welcomes(&[Fault::TakenUnanswered, Fault::LostUnanswered]);
        alice.invite(&group, ["bob"]).await.unwrap_err();
        resume(&alice).await.unwrap().unwrap_err();
        resume(&alice).await.unwrap().unwrap();
        bob_joins_and_hears(&service, &alice, &group).await;
    });
}

/// An invitation is four requests: reserve, renew, spend, and no more. Each answer is lost in turn.
#[test]
fn an_invitation_ends_alike_whichever_answers_are_lost() {
    run(async {
        for lost in [&[0][..], &[1], &[2], &[0, 1], &[0, 2, 4]] {
            let service = Service::start();
            let (alice, group) = alice_and_absent_bob(&service, 2).await;
            service.tunnel.lose(lost);
            alice.invite(&group, ["bob"]).await.unwrap();
            assert_eq!(counts(&service).await, (1, 0, 1), "lost {lost:?}");
            bob_joins_and_hears(&service, &alice, &group).await;
        }
    });
}

/// Alice is slow: while she posts, her reservation lapses and Carol is handed the package.
#[test]
fn a_package_lost_after_the_commit_is_taken_back_and_another_is_used() {
    run(async {
        let service = Arc::new(Service::start());
        let (alice, group) = alice_and_absent_bob(&service, 2).await;
        be_overtaken(&service, service.device("carol", 0).await);
        let invited = alice.invite(&group, ["bob"]).await.unwrap();
        assert_eq!(invited.attempts, 2);
        assert_eq!(service.mail.commits(&group).len(), 3, "added, removed, added again");
        assert_eq!(counts(&service).await, (0, 1, 1));
        bob_joins_and_hears(&service, &alice, &group).await;
        let bob = service.open("bob");
        bob.connection().refresh_now(now(&service)).await.unwrap();
        let conflicts = bob.history(None).unwrap().into_iter().filter(|m| m.event == "conflict");
        assert_eq!(conflicts.count(), 1);
    });
}

/// Alice is interrupted before she posts, and her reservation lapses: she starts afresh.
#[test]
fn a_package_lost_before_the_commit_is_replaced_without_a_trace() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and_absent_bob(&service, 3).await;
        // The renewal's answers are lost until the client gives up; nothing has been posted.
        service.tunnel.lose(&[1, 2, 3, 4]);
        let refused = alice.invite(&group, ["bob"]).await.unwrap_err();
        assert!(matches!(refused, InviteError::ServerUnreachable(_)), "{refused:?}");
        assert!(service.mail.commits(&group).is_empty());
        assert!(!alice.membership().has_pending_commit(&group).unwrap());
        assert_eq!(counts(&service).await, (3, 0, 0));
        alice.invite(&group, ["bob"]).await.unwrap();
        bob_joins_and_hears(&service, &alice, &group).await;
    });
}

#[test]
fn a_server_that_is_gone_leaves_the_group_as_it_was() {
    run(async {
        let mut service = Service::start();
        let (alice, group) = alice_and_absent_bob(&service, 1).await;
        let Service { server, .. } = &mut service;
        let gone = std::mem::replace(server, Service::start().server);
        gone.stop().await;
        let refused = alice.invite(&group, ["bob"]).await.unwrap_err();
        assert!(matches!(refused, InviteError::ServerUnreachable(_)), "{refused:?}");
        assert_eq!(alice.members(&group).unwrap().len(), 1);
        assert!(!alice.membership().has_pending_commit(&group).unwrap());
    });
}

#[test]
fn two_inviters_of_one_package_get_one_between_them() {
    run(async {
        let service = Service::start();
        let (alice, group_of_alice) = alice_and_absent_bob(&service, 1).await;
        let carol = service.device("carol", 0).await;
        let group_of_carol = group("carol's");
        carol.create_group(&group_of_carol).unwrap();
        let outcomes = tokio::join!(
            alice.invite(&group_of_alice, ["bob"]),
            carol.invite(&group_of_carol, ["bob"])
        );
        let (won, lost) = match outcomes {
            (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
            other => panic!("{other:?}"),
        };
        assert_eq!(won.attempts, 1);
        assert_eq!(why(&lost), &SkipReason::PoolExhausted);
    });
}

#[test]
fn a_holder_alone_may_spend() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and_absent_bob(&service, 1).await;
        let carol = service.device("carol", 0).await;
        let made = reserve(&alice, None).await;
        let request = keypool_api::SpendRequest {
            keypackage_ref: made.claim.keypackage_ref.clone(),
            reservation_id: made.claim.reservation_id,
            group_id: super::service::group("h"),
            added_by: None,
        };
        let command = keypool_client::fresh_command;
        let refused = carol.connection().api().spend(&request, command()).await.unwrap_err();
        assert_eq!(refused.code(), Some(Code::ReservationMismatch));
        let spent = alice.connection().api().spend(&request, command()).await.unwrap();
        assert!(!spent.replayed);
        let spent = alice.connection().api().spend(&request, command()).await.unwrap();
        assert!(spent.replayed);
        assert_eq!(alice.members(&group).unwrap().len(), 1);
    });
}

#[test]
fn an_owner_sees_who_holds_and_who_has_used_which_package() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and_absent_bob(&service, 3).await;
        let dave = service.device("dave", 0).await;
        let invited = alice.invite(&group, ["bob"]).await.unwrap();
        let held = reserve(&dave, None).await;
        let released = reserve(&alice, None).await;
        let command = keypool_client::fresh_command();
        alice.connection().api().release(&released.claim, command).await.unwrap();
        let bob = service.open("bob");
        bob.connection().fetch_history(now(&service)).await.unwrap();
        let mut uses = bob.package_uses();
        uses.sort_by_key(|usage| usage.spent);
        let named = |usage: &PackageUse| {
            (usage.keypackage_ref.clone(), usage.holder.to_string(), usage.group.clone())
        };
        assert_eq!(uses.len(), 2);
        let reservation =
            (held.claim.keypackage_ref, "dave/main".to_owned(), super::service::group("h"));
        assert_eq!((named(&uses[0]), uses[0].spent), (reservation, false));
        let invitation = (invited.added[0].keypackage_ref.clone(), "alice/main".to_owned(), group);
        assert_eq!((named(&uses[1]), uses[1].spent), (invitation, true));
    });
}

#[test]
fn devices_of_another_ciphersuite_invite_and_are_invited() {
    run(async {
        let service = Service::start();
        let chacha = PoolConfig { ciphersuites: vec![3], ..PoolConfig::default() };
        let open =
            |name: &str| service.open_at(&service.folder.path().join(name), name, chacha.clone());
        let (alice, bob) = (open("alice"), open("bob"));
        for device in [&alice, &bob] {
            device.register().await.unwrap();
        }
        bob.refresh_key_packages().await.unwrap();
        drop(bob);
        let group = group("g");
        alice.create_group(&group).unwrap();
        assert_eq!(alice.membership().ciphersuite(&group).unwrap(), 3);
        alice.invite(&group, ["bob"]).await.unwrap();
        bob_joins_and_hears(&service, &alice, &group).await;

        drop(service.device("carol", 2).await);
        let refused = alice.invite(&group, ["carol"]).await.unwrap_err();
        assert_eq!(why(&refused), &SkipReason::NothingCompatible);
        let unusable = alice.membership().create_group(&group, 4, now(&service)).unwrap_err();
        assert!(matches!(unusable, GroupError::Ciphersuite(4)), "{unusable:?}");
    });
}
