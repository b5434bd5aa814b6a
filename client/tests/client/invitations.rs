//! Invitations over the real server: while the other is offline, through faults, across crashes.

use std::{sync::Arc, time::Duration};

use keypool_client::{InviteError, MlsClient, PoolConfig};
use keypool_ledger::GroupId;
use keypool_projections::wire::{Code, ReserveRequest};
use uuid::Uuid;

use super::{
    service::{Fault, Mail, Service, group, run},
    support::copy,
};

/// Alice with a group, and Bob with a few packages, who is offline.
async fn alice_and_absent_bob(service: &Service, packages: usize) -> (MlsClient<Mail>, GroupId) {
    drop(service.device("bob", packages).await);
    let alice = service.device("alice", 0).await;
    let group = group("g");
    alice.create_group(&group).unwrap();
    (alice, group)
}

/// Bob comes back, joins by the one Welcome that waits for him, and hears what Alice says.
fn bob_joins_and_hears(service: &Service, alice: &MlsClient<Mail>, group: &GroupId) {
    let bob = service.open("bob");
    let welcomes = service.mail.welcomes("bob");
    assert_eq!(welcomes.len(), 1);
    let joined = bob.join(&welcomes[0]).unwrap();
    assert!(!bob.connection().pool().has_private_keys(&joined.keypackage_ref).unwrap());
    let sealed = alice.encrypt(group, b"hello").unwrap();
    let received = bob.decrypt(&sealed).unwrap();
    assert!(
        matches!(&received, keypool_client::Received::Application { bytes, .. } if bytes == b"hello"),
        "{received:?}"
    );
    assert_eq!(alice.members(group).unwrap().len(), 2);
}

/// What the server counts of Bob's pool: available, reserved, spent.
async fn counts(service: &Service) -> (u64, u64, u64) {
    let counts = service.open("bob").status().await.unwrap().counts;
    (counts.available, counts.reserved, counts.spent)
}

#[test]
fn somebody_who_is_offline_is_invited_and_joins_later() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and_absent_bob(&service, 2).await;
        let invited = alice.invite(&group, "bob", None).await.unwrap();
        assert_eq!((invited.device.to_string().as_str(), invited.attempts), ("bob/main", 1));
        assert_eq!(counts(&service).await, (1, 0, 1));
        bob_joins_and_hears(&service, &alice, &group);
    });
}

#[test]
fn a_user_without_packages_or_without_a_device_is_named() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and_absent_bob(&service, 0).await;
        let refused = alice.invite(&group, "bob", None).await.unwrap_err();
        assert!(matches!(refused, InviteError::PoolExhausted { .. }), "{refused:?}");
        assert!(refused.to_string().contains("bob has no KeyPackage left"), "{refused}");
        let refused = alice.invite(&group, "nobody", None).await.unwrap_err();
        assert!(matches!(refused, InviteError::UnknownUser { .. }), "{refused:?}");
        assert!(!alice.membership().has_pending_commit(&group).unwrap());
        assert!(alice.resume_invitations().await.unwrap().is_empty());
    });
}

#[test]
fn a_commit_that_is_not_accepted_leaves_nothing_and_the_package_goes_back() {
    run(async {
        for fault in [Fault::Refused, Fault::EpochTaken] {
            let service = Service::start();
            let (alice, group) = alice_and_absent_bob(&service, 2).await;
            service.mail.fail_commits(&[fault]);
            let refused = alice.invite(&group, "bob", None).await.unwrap_err();
            assert!(matches!(refused, InviteError::NotAccepted(_)), "{refused:?}");
            assert!(!alice.membership().has_pending_commit(&group).unwrap());
            assert_eq!(alice.members(&group).unwrap().len(), 1);
            assert_eq!(counts(&service).await, (2, 0, 0));
            assert!(alice.resume_invitations().await.unwrap().is_empty());
            // The next try is as good as the first.
            alice.invite(&group, "bob", None).await.unwrap();
            bob_joins_and_hears(&service, &alice, &group);
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
            let unfinished = alice.invite(&group, "bob", None).await.unwrap_err();
            assert!(matches!(unfinished, InviteError::Unfinished { .. }), "{unfinished:?}");
            for _ in 1..faults.len() {
                alice.resume_invitations().await.unwrap_err();
            }
            let finished = alice.resume_invitations().await.unwrap();
            assert_eq!(finished.len(), 1);
            assert_eq!(counts(&service).await, (1, 0, 1));
            bob_joins_and_hears(&service, &alice, &group);
        }
    });
}

#[test]
fn a_welcome_that_did_not_get_through_is_handed_over_later() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and_absent_bob(&service, 2).await;
        service.mail.fail_welcomes(&[Fault::TakenUnanswered, Fault::LostUnanswered]);
        alice.invite(&group, "bob", None).await.unwrap_err();
        alice.resume_invitations().await.unwrap_err();
        assert_eq!(alice.resume_invitations().await.unwrap().len(), 1);
        bob_joins_and_hears(&service, &alice, &group);
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
            alice.invite(&group, "bob", None).await.unwrap();
            assert_eq!(counts(&service).await, (1, 0, 1), "lost {lost:?}");
            bob_joins_and_hears(&service, &alice, &group);
        }
    });
}

/// The app is killed while its Commit is posted, before or after the Delivery Service takes it: what
/// its disk holds at that moment is what it starts again with.
#[test]
fn an_invitation_survives_a_crash_while_the_commit_is_posted() {
    run(async {
        for fault in [Fault::LostUnanswered, Fault::TakenUnanswered] {
            let service = Service::start();
            let (alice, group) = alice_and_absent_bob(&service, 2).await;
            let (home, left) =
                (service.folder.path().join("alice"), service.folder.path().join("left"));
            let copied = left.clone();
            service.mail.on_commit(move || {
                std::fs::create_dir(&copied).unwrap();
                copy(&home, &copied);
            });
            service.mail.fail_commits(&[fault]);
            alice.invite(&group, "bob", None).await.unwrap_err();
            drop(alice);
            let alice = service.open_at(&left, "alice", PoolConfig::default());
            assert_eq!(alice.resume_invitations().await.unwrap().len(), 1);
            assert_eq!(counts(&service).await, (1, 0, 1));
            bob_joins_and_hears(&service, &alice, &group);
        }
    });
}

/// Alice is slow: while she posts, her reservation lapses and Carol is handed the package.
#[test]
fn a_package_lost_after_the_commit_is_taken_back_and_another_is_used() {
    run(async {
        let service = Arc::new(Service::start());
        let (alice, group) = alice_and_absent_bob(&service, 2).await;
        let carol = service.device("carol", 0).await;
        let hurry = Arc::clone(&service);
        service.mail.on_commit(move || {
            hurry.clock.advance(Duration::from_secs(121));
            let reservations = std::thread::spawn(move || {
                run(async {
                    // Fresh packages first, and then the one that has lapsed.
                    let fresh = reserve(&carol).await;
                    let lapsed = reserve(&carol).await;
                    assert_eq!(lapsed.generation, 2);
                    let api = carol.connection().api();
                    api.release(&fresh.claim, keypool_client::fresh_command()).await.unwrap();
                });
            });
            reservations.join().unwrap();
        });
        let invited = alice.invite(&group, "bob", None).await.unwrap();
        assert_eq!(invited.attempts, 2);
        assert_eq!(service.mail.commits(&group).len(), 3, "added, removed, added again");
        assert_eq!(counts(&service).await, (0, 1, 1));
        bob_joins_and_hears(&service, &alice, &group);
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
        let refused = alice.invite(&group, "bob", None).await.unwrap_err();
        assert!(matches!(refused, InviteError::ServerUnreachable(_)), "{refused:?}");
        assert!(service.mail.commits(&group).is_empty());
        assert!(!alice.membership().has_pending_commit(&group).unwrap());
        assert_eq!(counts(&service).await, (3, 0, 0));
        alice.invite(&group, "bob", None).await.unwrap();
        bob_joins_and_hears(&service, &alice, &group);
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
        let refused = alice.invite(&group, "bob", None).await.unwrap_err();
        assert!(matches!(refused, InviteError::ServerUnreachable(_)), "{refused:?}");
        assert_eq!(alice.members(&group).unwrap().len(), 1);
        assert!(!alice.membership().has_pending_commit(&group).unwrap());
    });
}

/// What a reservation is, for a test that makes one by hand.
struct Made {
    claim: keypool_projections::wire::ClaimRequest,
    generation: u32,
}

async fn reserve(by: &MlsClient<Mail>) -> Made {
    let id = Uuid::new_v4();
    let request = ReserveRequest {
        target_user: "bob".to_owned(),
        target_device: None,
        group_id: group("h"),
        reservation_id: Some(keypool_ledger::ReservationId(id)),
        ciphersuites: Vec::new(),
    };
    let command = keypool_client::fresh_command();
    let reply = by.connection().api().reserve(&request, command).await.unwrap();
    let (keypackage_ref, reservation_id) = (reply.keypackage_ref, reply.reservation_id);
    let claim = keypool_projections::wire::ClaimRequest { keypackage_ref, reservation_id };
    Made { claim, generation: reply.generation }
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
            alice.invite(&group_of_alice, "bob", None),
            carol.invite(&group_of_carol, "bob", None)
        );
        let (won, lost) = match outcomes {
            (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
            other => panic!("{other:?}"),
        };
        assert_eq!(won.attempts, 1);
        assert!(matches!(lost, InviteError::PoolExhausted { .. }), "{lost:?}");
    });
}

#[test]
fn a_holder_alone_may_spend() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and_absent_bob(&service, 1).await;
        let carol = service.device("carol", 0).await;
        let made = reserve(&alice).await;
        let request = keypool_projections::wire::SpendRequest {
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

fn now(service: &Service) -> keypool_ledger::Timestamp {
    use keypool_ledger::Clock;
    service.clock.now()
}
