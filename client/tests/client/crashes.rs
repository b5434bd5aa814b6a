//! An app that is killed at every moment of an invitation, and starts again from its disk.

use std::{sync::Arc, time::Duration};

use keypool_client::{InviteError, MlsClient, SkipReason};
use keypool_ledger::GroupId;

use super::{
    people::{
        alice_and_absent_bob, be_overtaken, bob_joins_and_hears, carol_joins, counts, hears,
        reserve, resume, why,
    },
    service::{Fault, Kill, Mail, Service, Side, group, run},
};

use Side::{After, Before};

/// Alice invites Bob until she is killed, and starts again.
async fn killed_while_inviting(
    service: &Service,
    kill: Kill,
    (alice, group): (MlsClient<Mail>, &GroupId),
) -> MlsClient<Mail> {
    let invite = async |alice: &MlsClient<Mail>| alice.invite(group, ["bob"]).await;
    service.kill("alice", kill, alice, invite).await;
    service.open("alice")
}

/// Its requests are 0 to reserve, 1 to renew, 2 to spend; the Commit is posted before the spend.
#[test]
fn an_invitation_goes_on_wherever_it_was_killed() {
    run(async {
        let requests = (0..3).flat_map(|n| [Kill::Request(n, Before), Kill::Request(n, After)]);
        let posts = [Before, After].map(|side| Kill::Commit(0, side));
        let welcomes = [Before, After].map(Kill::Welcome);
        for kill in requests.chain(posts).chain(welcomes) {
            let service = Service::start();
            let (alice, group) = alice_and_absent_bob(&service, 2).await;
            let alice = killed_while_inviting(&service, kill, (alice, &group)).await;
            let invited = resume(&alice).await.expect("one is unfinished");
            assert_eq!(invited.unwrap_or_else(|err| panic!("{kill:?}: {err}")).attempts, 1);
            assert_eq!(service.mail.commits(&group).len(), 1, "{kill:?}");
            assert_eq!(counts(&service).await, (1, 0, 1), "{kill:?}");
            assert!(!alice.membership().has_pending_commit(&group).unwrap(), "{kill:?}");
            assert!(resume(&alice).await.is_none(), "{kill:?}");
            bob_joins_and_hears(&service, &alice, &group).await;
        }
    });
}

/// The package is lost after the Commit: 5 is the spend that fails, 6 and 7 reserve and renew another
/// one, and between them the member is removed again.
#[test]
fn a_package_lost_after_the_commit_is_replaced_wherever_it_was_killed() {
    run(async {
        let requests = (5..9).flat_map(|n| [Kill::Request(n, Before), Kill::Request(n, After)]);
        let posts = (0..3).flat_map(|n| [Kill::Commit(n, Before), Kill::Commit(n, After)]);
        for kill in requests.chain(posts) {
            let service = Arc::new(Service::start());
            let (alice, group) = alice_and_absent_bob(&service, 2).await;
            be_overtaken(&service, service.device("dave", 0).await);
            let alice = killed_while_inviting(&service, kill, (alice, &group)).await;
            let invited = resume(&alice).await.expect("one is unfinished");
            assert_eq!(invited.unwrap_or_else(|err| panic!("{kill:?}: {err}")).attempts, 2);
            assert_eq!(service.mail.commits(&group).len(), 3, "{kill:?}");
            assert_eq!(counts(&service).await, (0, 1, 1), "{kill:?}");
            assert!(resume(&alice).await.is_none(), "{kill:?}");
            bob_joins_and_hears(&service, &alice, &group).await;
        }
    });
}

/// The Commit that removes the member loses its epoch: another one is to be made.
#[test]
fn a_removal_that_was_refused_is_made_again_after_a_restart() {
    run(async {
        let service = Arc::new(Service::start());
        let (alice, group) = alice_and_absent_bob(&service, 2).await;
        be_overtaken(&service, service.device("dave", 0).await);
        service.mail.fail_commits(&[Fault::Taken, Fault::EpochTaken]);
        let unfinished = alice.invite(&group, ["bob"]).await.unwrap_err();
        assert!(matches!(unfinished, InviteError::Unfinished { .. }), "{unfinished:?}");
        assert!(!alice.membership().has_pending_commit(&group).unwrap());
        drop(alice);
        let alice = service.open("alice");
        assert_eq!(resume(&alice).await.unwrap().unwrap().attempts, 2);
        assert!(resume(&alice).await.is_none());
        bob_joins_and_hears(&service, &alice, &group).await;
    });
}

/// The renewal fails, the package is to be given back, and that request is never answered.
#[test]
fn an_invitation_that_was_given_up_is_not_resumed() {
    run(async {
        for side in [Before, After] {
            let service = Service::start();
            let (alice, group) = alice_and_absent_bob(&service, 2).await;
            service.tunnel.lose(&[1, 2, 3, 4]);
            let kill = Kill::Request(5, side);
            let alice = killed_while_inviting(&service, kill, (alice, &group)).await;
            assert!(resume(&alice).await.is_none());
            assert!(!alice.membership().has_pending_commit(&group).unwrap());
            assert!(service.mail.commits(&group).is_empty());
            alice.invite(&group, ["bob"]).await.unwrap();
            bob_joins_and_hears(&service, &alice, &group).await;
        }
    });
}

/// The renewal was answered before the app died. When it starts again its reservation is long over,
/// and the server's reply then is no answer.
#[test]
fn a_renewal_that_is_resumed_asks_anew() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and_absent_bob(&service, 1).await;
        let dave = service.device("dave", 0).await;
        let alice = killed_while_inviting(&service, Kill::Request(1, After), (alice, &group)).await;
        service.clock.advance(Duration::from_secs(121));
        reserve(&dave, None).await;
        let refused = resume(&alice).await.unwrap().unwrap_err();
        assert_eq!(why(&refused), &SkipReason::PoolExhausted);
        assert!(service.mail.commits(&group).is_empty());
        assert_eq!(alice.members(&group).unwrap().len(), 1);
        assert!(resume(&alice).await.is_none());
    });
}

#[test]
fn two_invitations_to_two_groups_are_both_finished_after_a_restart() {
    run(async {
        let service = Service::start();
        let (alice, group_g) = alice_and_absent_bob(&service, 3).await;
        let group_h = group("h");
        alice.create_group(&group_h).unwrap();
        service.mail.fail_commits(&[Fault::LostUnanswered, Fault::TakenUnanswered]);
        for group in [&group_g, &group_h] {
            alice.invite(group, ["bob"]).await.unwrap_err();
        }
        drop(alice);
        let alice = service.open("alice");
        let resumed = alice.resume_invitations().await.unwrap();
        assert_eq!(resumed.len(), 2);
        assert!(resumed.iter().all(|resumed| resumed.outcome.is_ok()), "{resumed:?}");
        assert_eq!(counts(&service).await, (1, 0, 2));
        let bob = service.open("bob");
        for welcome in service.mail.welcomes("bob") {
            bob.join(&welcome).await.unwrap();
        }
        hears(&bob, &alice, &group_g).await;
        hears(&bob, &alice, &group_h).await;
    });
}

#[test]
fn an_update_of_keys_goes_on_wherever_it_was_killed() {
    run(async {
        for side in [Before, After] {
            let service = Service::start();
            let (alice, group) = alice_and_absent_bob(&service, 0).await;
            let carol = carol_joins(&service, &alice, &group).await;
            let update = async |carol: &MlsClient<Mail>| carol.update_keys(&group).await;
            service.kill("carol", Kill::Commit(0, side), carol, update).await;
            let carol = service.open("carol");
            let resumed = carol.resume_updates().await.unwrap();
            assert!(resumed.iter().all(|resumed| resumed.outcome.is_ok()), "{resumed:?}");
            assert_eq!(resumed.len(), 1);
            assert!(carol.resume_updates().await.unwrap().is_empty());
            let commits = service.mail.commits(&group);
            assert_eq!(commits.len(), 2);
            alice.decrypt(&commits[1]).await.unwrap();
            hears(&carol, &alice, &group).await;
            hears(&alice, &carol, &group).await;
        }
    });
}
