//! Leaving a group: proposed by who goes, committed by who stays.

use keypool_client::{GroupError, LocalStore, Received};
use openmls_basic_credential::SignatureKeyPair;
use openmls_traits::types::SignatureScheme;

use super::{
    members::{Client, alice_and, alice_and_bob, members, open, they_talk, told},
    service::{Service, run},
};

/// Alice, Bob and Carol in a group; all have taken in everything.
async fn three(service: &Service) -> (Client, Client, Client, keypool_ledger::GroupId) {
    let (alice, group) = alice_and(service, &["bob", "carol"], 2).await;
    alice.invite(&group, ["bob"]).await.unwrap();
    alice.invite(&group, ["carol"]).await.unwrap();
    let (bob, carol) = (open(service, "bob"), open(service, "carol"));
    told(&bob).await;
    told(&carol).await;
    (alice, bob, carol, group)
}

#[test]
fn who_leaves_is_removed_by_the_next_member_who_hears_of_it() {
    run(async {
        let service = Service::start();
        let (alice, bob, carol, group) = three(&service).await;
        bob.leave(&group).await.unwrap();
        assert!(bob.membership().groups().unwrap().is_empty());
        assert_eq!(bob.membership().leaving().unwrap(), std::slice::from_ref(&group));
        assert_eq!(told(&carol).await, ["bob/main asks to leave"]);
        carol.take_up_proposals(&group).await.unwrap();
        let gone = "+[] -[\"bob/main\"]";
        assert_eq!(told(&alice).await, ["bob/main asks to leave", gone]);
        assert_eq!(told(&bob).await, [format!("{gone}, and this is me")]);
        assert!(bob.membership().leaving().unwrap().is_empty());
        assert_eq!(members(&alice, &group), ["alice/main", "carol/main"]);
        assert_eq!(told(&carol).await, [r#"["bob/main"] left"#]);
        // Nothing is left to be done, and nothing is.
        alice.take_up_proposals(&group).await.unwrap();
        assert!(told(&carol).await.is_empty());
        they_talk(&alice, &carol, &group).await;
    });
}

#[test]
fn two_who_take_up_the_same_proposal_do_it_once() {
    run(async {
        let service = Service::start();
        let (alice, bob, carol, group) = three(&service).await;
        bob.leave(&group).await.unwrap();
        assert_eq!(told(&carol).await.len() + told(&alice).await.len(), 2);
        carol.take_up_proposals(&group).await.unwrap();
        let epoch = carol.membership().epoch(&group).unwrap();
        alice.take_up_proposals(&group).await.unwrap();
        assert_eq!(alice.membership().epoch(&group).unwrap(), epoch);
        assert_eq!(members(&alice, &group), ["alice/main", "carol/main"]);
    });
}

#[test]
fn a_proposal_that_a_commit_has_passed_over_is_made_again() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        alice.update_keys(&group).await.unwrap();
        // Bob has not heard of that: he speaks in the epoch before.
        bob.leave(&group).await.unwrap();
        assert!(told(&alice).await.is_empty());
        told(&bob).await;
        bob.resume_leaving().await.unwrap();
        bob.resume_leaving().await.unwrap();
        assert_eq!(told(&alice).await, ["bob/main asks to leave"]);
        alice.take_up_proposals(&group).await.unwrap();
        assert_eq!(members(&alice, &group), ["alice/main"]);
        told(&bob).await;
        bob.resume_leaving().await.unwrap();
        assert!(bob.membership().leaving().unwrap().is_empty());
    });
}

#[test]
fn whoever_left_can_be_invited_again() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        bob.leave(&group).await.unwrap();
        told(&alice).await;
        alice.take_up_proposals(&group).await.unwrap();
        alice.invite(&group, ["bob"]).await.unwrap();
        assert_eq!(told(&alice).await, [r#"["bob/main"] left"#]);
        assert_eq!(told(&bob).await.last().unwrap(), "joined by alice/main");
        bob.resume_leaving().await.unwrap();
        assert_eq!(bob.membership().groups().unwrap(), std::slice::from_ref(&group));
        they_talk(&alice, &bob, &group).await;
    });
}

#[test]
fn an_invitation_takes_a_leaver_out_as_well() {
    run(async {
        let service = Service::start();
        let (alice, bob, carol, group) = three(&service).await;
        drop(service.device("dave", 2).await);
        bob.leave(&group).await.unwrap();
        told(&carol).await;
        carol.invite(&group, ["dave"]).await.unwrap();
        let changed = told(&alice).await.pop().unwrap();
        assert_eq!(changed, "+[\"dave/main\"] -[\"bob/main\"]");
        assert_eq!(told(&open(&service, "dave")).await, ["joined by carol/main"]);
    });
}

#[test]
fn a_group_in_which_nobody_else_is_is_deleted() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and(&service, &[], 0).await;
        alice.leave(&group).await.unwrap();
        assert!(matches!(alice.members(&group), Err(GroupError::NotInGroup { .. })));
        assert!(alice.membership().groups().unwrap().is_empty());
        alice.create_group(&group).unwrap();
    });
}

#[test]
fn fresh_keys_are_due_until_the_first_update() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        assert!(bob.membership().needs_fresh_keys(&group).unwrap());
        bob.update_keys(&group).await.unwrap();
        assert!(!bob.membership().needs_fresh_keys(&group).unwrap());
        assert!(!alice.membership().needs_fresh_keys(&group).unwrap());
    });
}

/// Bob proposes a change: here that Alice goes. She could not commit that, and commits the rest.
#[test]
fn a_proposal_to_remove_a_member_does_not_block_that_members_commits() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        drop(bob);
        let proposal = proposal_to_remove_alice(&service.folder.path().join("bob"), &group);
        assert!(matches!(alice.decrypt(&proposal).await, Ok(Received::Proposed { .. })));
        alice.take_up_proposals(&group).await.unwrap();
        alice.update_keys(&group).await.unwrap();
        assert_eq!(members(&alice, &group), ["alice/main", "bob/main"]);
    });
}

fn proposal_to_remove_alice(home: &std::path::Path, group: &keypool_ledger::GroupId) -> Vec<u8> {
    use openmls::group::MlsGroup;

    let store = LocalStore::open(home, &"bob".parse().unwrap()).unwrap();
    let staged = store.stage().unwrap();
    let id = openmls::group::GroupId::from_slice(group.as_bytes());
    let mut state = MlsGroup::load(&staged, &id).unwrap().unwrap();
    let key = state.own_leaf_node().unwrap().signature_key().as_slice().to_vec();
    let signer = SignatureKeyPair::read(&staged, &key, SignatureScheme::ED25519).unwrap();
    let alice = state.members().find(|member| member.signature_key != key).unwrap().index;
    let (proposal, _) = state.propose_remove_member(&staged.provider(), &signer, alice).unwrap();
    let bytes = proposal.to_bytes().unwrap();
    staged.commit().unwrap();
    bytes
}

/// The server takes no Commit that removes too many users, and each that removes one.
#[test]
fn when_many_leave_at_once_each_is_removed_by_a_commit_of_their_own() {
    run(async {
        let service = Service::start();
        let names = ["bob", "carol", "dave", "erin"];
        let (alice, group) = alice_and(&service, &names, 2).await;
        alice.invite(&group, names).await.unwrap();
        let others = names.map(|name| open(&service, name));
        for other in &others {
            told(other).await;
        }
        for leaver in &others[..3] {
            leaver.leave(&group).await.unwrap();
        }
        for left in 1..=3 {
            told(&alice).await;
            alice.take_up_proposals(&group).await.unwrap();
            assert_eq!(members(&alice, &group).len(), 5 - left, "one user for each Commit");
            for leaver in &others[..3] {
                told(leaver).await;
                leaver.resume_leaving().await.unwrap();
            }
        }
        assert_eq!(members(&alice, &group), ["alice/main", "erin/main"]);
        told(&alice).await;
        told(&others[3]).await;
        they_talk(&alice, &others[3], &group).await;
    });
}
