//! Invitations and updates that are not finished yet, and their groups meanwhile.

use std::sync::Arc;

use keypool_client::{
    CommitPost, GroupError, InviteError, MlsClient, PendingCommit, SkipReason, UpdateError,
};
use keypool_ledger::GroupId;

use super::{
    people::{
        alice_and_absent_bob, be_overtaken, bob_joins_and_hears, carol_joins, counts, hears, now,
        resume, why,
    },
    service::{Fault, Mail, Service, group, run},
    support::Device,
};

/// A member has a Commit of its own accepted.
async fn commits(member: &MlsClient<Mail>, group: &GroupId, made: &PendingCommit) {
    let (epoch, commit) = (made.epoch, made.commit.clone());
    let post = CommitPost {
        group: group.clone(),
        epoch,
        commit,
        removed: Vec::new(),
        added: Vec::new(),
        welcome: Vec::new(),
    };
    member.connection().post_commit(&post).await.unwrap();
    member.membership().merge_pending_commit(group).unwrap();
}

/// Alice's invitation of Bob does not get through, and Carol's Commit is the first of the epoch.
async fn bob_is_too_late(service: &Service) -> (MlsClient<Mail>, GroupId) {
    let (alice, group) = alice_and_absent_bob(service, 3).await;
    let carol = carol_joins(service, &alice, &group).await;
    service.mail.fail_commits(&[Fault::LostUnanswered]);
    alice.invite(&group, ["bob"]).await.unwrap_err();
    let update = carol.membership().self_update(&group).unwrap();
    commits(&carol, &group, &update).await;
    alice.decrypt(&update.commit).await.unwrap();
    (alice, group)
}

#[test]
fn an_invitation_that_was_too_late_leaves_the_next_commit_alone() {
    run(async {
        let service = Service::start();
        let (alice, group) = bob_is_too_late(&service).await;
        let update = alice.membership().self_update(&group).unwrap();
        let refused = resume(&alice).await.unwrap().unwrap_err();
        assert!(matches!(refused, InviteError::NotAccepted(_)), "{refused:?}");
        assert!(alice.membership().has_pending_commit(&group).unwrap());
        commits(&alice, &group, &update).await;
        let epoch = u64::try_from(service.mail.commits(&group).len()).unwrap();
        assert_eq!(alice.membership().epoch(&group).unwrap(), epoch, "alice is locked out");
        assert_eq!(counts(&service).await, (3, 0, 0));
    });
}

#[test]
fn a_group_has_one_unfinished_invitation() {
    run(async {
        let service = Service::start();
        let (alice, group) = bob_is_too_late(&service).await;
        let refused = alice.invite(&group, ["bob"]).await.unwrap_err();
        assert!(matches!(refused, InviteError::OtherUnfinished { .. }), "{refused:?}");
        assert!(refused.to_string().contains("resume it first"), "{refused}");
        resume(&alice).await.unwrap().unwrap_err();
        alice.invite(&group, ["bob"]).await.unwrap();
    });
}

#[test]
fn a_commit_is_not_taken_for_another_of_its_epoch() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and_absent_bob(&service, 2).await;
        service.mail.fail_commits(&[Fault::LostUnanswered]);
        alice.invite(&group, ["bob"]).await.unwrap_err();
        alice.membership().clear_pending_commit(&group).unwrap();
        let update = alice.membership().self_update(&group).unwrap();
        let refused = resume(&alice).await.unwrap().unwrap_err();
        assert!(matches!(refused, InviteError::CommitMissing { .. }), "{refused:?}");
        assert!(service.mail.commits(&group).is_empty(), "it could not be merged");
        commits(&alice, &group, &update).await;
        assert_eq!(alice.membership().epoch(&group).unwrap(), 1);
        assert!(resume(&alice).await.is_none());
    });
}

#[test]
fn an_accepted_commit_that_was_cleared_meanwhile_is_said_to_be_missing() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and_absent_bob(&service, 2).await;
        let (membership, cleared) = (alice.membership().clone(), group.clone());
        service.mail.on_commit(move || membership.clear_pending_commit(&cleared).unwrap());
        let stuck = alice.invite(&group, ["bob"]).await.unwrap_err();
        assert!(matches!(stuck, InviteError::CommitMissing { .. }), "{stuck:?}");
        assert!(service.mail.welcomes("bob").is_empty());
        assert!(resume(&alice).await.is_none());
    });
}

/// Her own Commit comes back to Alice before the answer to it does, and she merges it.
#[test]
fn a_commit_that_the_app_has_merged_is_accepted_all_the_same() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and_absent_bob(&service, 2).await;
        service.mail.fail_commits(&[Fault::TakenUnanswered]);
        alice.invite(&group, ["bob"]).await.unwrap_err();
        alice.membership().merge_pending_commit(&group).unwrap();
        resume(&alice).await.unwrap().unwrap();
        assert_eq!(service.mail.commits(&group).len(), 1);
        bob_joins_and_hears(&service, &alice, &group).await;
    });
}

#[test]
fn an_invitation_is_not_driven_twice_at_once() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and_absent_bob(&service, 3).await;
        let (invited, resumed) =
            tokio::join!(alice.invite(&group, ["bob"]), alice.resume_invitations());
        assert_eq!(invited.unwrap().attempts, 1);
        assert!(resumed.unwrap().is_empty());
        assert_eq!(counts(&service).await, (2, 0, 1));
        bob_joins_and_hears(&service, &alice, &group).await;
    });
}

#[test]
fn one_invitation_that_fails_does_not_hold_up_the_others() {
    run(async {
        let service = Service::start();
        let (alice, group_g) = alice_and_absent_bob(&service, 3).await;
        let group_h = group("h");
        alice.create_group(&group_h).unwrap();
        service.mail.fail_welcomes(&[Fault::LostUnanswered, Fault::LostUnanswered]);
        for group in [&group_g, &group_h] {
            alice.invite(group, ["bob"]).await.unwrap_err();
        }
        service.mail.fail_welcomes(&[Fault::Refused]);
        let resumed = alice.resume_invitations().await.unwrap();
        let (done, refused): (Vec<_>, Vec<_>) =
            resumed.into_iter().partition(|resumed| resumed.outcome.is_ok());
        assert_eq!((done.len(), refused.len()), (1, 1));
        let refused = refused.into_iter().next().unwrap().outcome.unwrap_err();
        assert!(matches!(why(&refused), SkipReason::WelcomeRefused { .. }), "{refused:?}");
        assert!(refused.to_string().contains("remove it and invite it again"), "{refused}");
        assert!(alice.resume_invitations().await.unwrap().is_empty());
        assert_eq!(service.mail.welcomes("bob").len(), 1);
    });
}

#[test]
fn a_member_whom_another_has_removed_need_not_be_removed() {
    run(async {
        let service = Arc::new(Service::start());
        let (alice, group) = alice_and_absent_bob(&service, 2).await;
        let carol = carol_joins(&service, &alice, &group).await;
        be_overtaken(&service, service.device("dave", 0).await);
        service.mail.fail_commits(&[Fault::Taken, Fault::EpochTaken]);
        alice.invite(&group, ["bob"]).await.unwrap_err();
        carol.decrypt(&service.mail.commits(&group)[1]).await.unwrap();
        let bob = "bob".parse().unwrap();
        let removal = carol.membership().remove_member(&group, &bob).unwrap();
        commits(&carol, &group, &removal).await;
        alice.decrypt(&removal.commit).await.unwrap();
        assert_eq!(resume(&alice).await.unwrap().unwrap().attempts, 2);
        assert_eq!(service.mail.commits(&group).len(), 4);
        assert_eq!(alice.members(&group).unwrap().len(), 3);
    });
}

#[test]
fn an_invitation_to_a_group_that_was_left_is_forgotten() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and_absent_bob(&service, 2).await;
        let carol = carol_joins(&service, &alice, &group).await;
        service.mail.fail_commits(&[Fault::LostUnanswered]);
        alice.invite(&group, ["bob"]).await.unwrap_err();
        let removal = carol.membership().remove_member(&group, alice.identity().pool()).unwrap();
        commits(&carol, &group, &removal).await;
        alice.decrypt(&removal.commit).await.unwrap();
        let gone = resume(&alice).await.unwrap().unwrap_err();
        assert!(matches!(gone, InviteError::Group(GroupError::NotInGroup { .. })), "{gone:?}");
        assert!(resume(&alice).await.is_none());
    });
}

/// Bob has another device in the group that goes by the same name.
#[test]
fn only_the_leaf_whose_package_was_lost_is_removed() {
    run(async {
        let service = Arc::new(Service::start());
        let (alice, group) = alice_and_absent_bob(&service, 2).await;
        let before = Device::new("bob");
        let added = alice.membership().stage_add(&group, &[before.offer()], now(&service)).unwrap();
        let commit =
            PendingCommit { commit: added.commit.clone(), epoch: added.epoch, removed: Vec::new() };
        commits(&alice, &group, &commit).await;
        be_overtaken(&service, service.device("dave", 0).await);
        assert_eq!(alice.invite(&group, ["bob/main"]).await.unwrap().attempts, 2);
        let members = alice.members(&group).unwrap();
        let is_there =
            |key| members.iter().any(|member| member.signature_key.as_ref() == Some(key));
        assert!(is_there(&before.identity.signature_key()), "{members:?}");
        assert_eq!(members.len(), 3);
    });
}

#[test]
fn a_device_updates_its_keys_after_joining() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and_absent_bob(&service, 2).await;
        let carol = carol_joins(&service, &alice, &group).await;
        carol.update_keys(&group).await.unwrap();
        alice.decrypt(service.mail.commits(&group).last().unwrap()).await.unwrap();
        hears(&carol, &alice, &group).await;
        hears(&alice, &carol, &group).await;
        assert!(carol.resume_updates().await.unwrap().is_empty());
    });
}

#[test]
fn an_update_that_is_not_accepted_leaves_nothing_and_an_unanswered_one_stays() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and_absent_bob(&service, 2).await;
        service.mail.fail_commits(&[Fault::EpochTaken]);
        let refused = alice.update_keys(&group).await.unwrap_err();
        assert!(matches!(refused, UpdateError::NotAccepted(_)), "{refused:?}");
        assert!(!alice.membership().has_pending_commit(&group).unwrap());
        assert!(alice.resume_updates().await.unwrap().is_empty());

        service.mail.fail_commits(&[Fault::LostUnanswered]);
        let unfinished = alice.update_keys(&group).await.unwrap_err();
        assert!(matches!(unfinished, UpdateError::Unfinished(_)), "{unfinished:?}");
        let waits = alice.invite(&group, ["bob"]).await.unwrap_err();
        let pending = GroupError::CommitPending { group: group.clone() };
        assert_eq!(waits.to_string(), pending.to_string());
        alice.update_keys(&group).await.unwrap();
        assert_eq!(service.mail.commits(&group).len(), 1);
        alice.invite(&group, ["bob"]).await.unwrap();
        bob_joins_and_hears(&service, &alice, &group).await;
    });
}
