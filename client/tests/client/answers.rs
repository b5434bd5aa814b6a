//! The answers to invitations: each is told to the inviter, and an invitation that could not be answered goes
//! on by itself.

use std::time::Duration;

use keypool_client::{
    ClientOptions, InvitationState, Invitee, MlsClient, NextStep, SkipReason, WelcomeFault,
    fresh_command,
};
use keypool_ledger::{Clock, GroupId};
use keypool_projections::SuspensionChange;
use keypool_server::KeyPackageStore;

use super::{
    members::{Client, alice_and, alice_and_bob, members, open, they_talk, told_all as told},
    service::{Kill, Service, Side, run},
    support::{lose_a_package, lose_all_packages},
};

const KEYS_GONE: WelcomeFault = WelcomeFault::KeysGone;

/// The states of the invitations of a device, by invitee.
fn states(client: &Client) -> Vec<(String, InvitationState)> {
    let records = client.invitations().unwrap().into_iter();
    records.map(|record| (record.invitee.to_string(), record.state)).collect()
}

fn only(name: &str, state: InvitationState) -> Vec<(String, InvitationState)> {
    vec![(name.to_owned(), state)]
}

/// The next step of the only invitation of a device.
fn next(client: &Client) -> NextStep {
    let records = client.invitations().unwrap();
    assert_eq!(records.len(), 1, "{records:?}");
    records[0].next_step()
}

/// Alice has invited Bob, who has lost the private keys of the package meanwhile. Both apps start again.
async fn invited_without_keys(service: &Service) -> (Client, Client, GroupId) {
    let (alice, group) = alice_and(service, &["bob"], 1).await;
    alice.invite(&group, ["bob"]).await.unwrap();
    drop(alice);
    let bob = open(service, "bob");
    lose_a_package(bob.store());
    drop(bob);
    (open(service, "alice"), open(service, "bob"), group)
}

#[test]
fn the_inviter_is_told_that_a_device_has_joined() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and(&service, &["bob"], 2).await;
        alice.invite(&group, ["bob"]).await.unwrap();
        assert_eq!(states(&alice), only("bob/main", InvitationState::Committed));
        assert_eq!(next(&alice), NextStep::AwaitsAnswer);
        drop(alice);
        let bob = open(&service, "bob");
        told(&bob).await;
        let alice = open(&service, "alice");
        assert_eq!(told(&alice).await, ["bob/main: Joined"]);
        assert!(told(&alice).await.is_empty());
        drop(alice);
        let alice = open(&service, "alice");
        assert_eq!(states(&alice), only("bob/main", InvitationState::Joined));
        they_talk(&alice, &bob, &group).await;
        // Who is in the group already stays joined.
        alice.invite(&group, ["bob/main"]).await.unwrap_err();
        assert_eq!(states(&alice), only("bob/main", InvitationState::Joined));
    });
}

#[test]
fn skipped_invitees_are_recorded_with_the_reason() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and(&service, &["bob"], 2).await;
        alice.invite(&group, ["bob", "nobody", "!!"]).await.unwrap();
        let expected = [
            ("bob/main".to_owned(), InvitationState::Committed),
            ("nobody".to_owned(), InvitationState::Skipped { why: SkipReason::UnknownUser }),
        ];
        assert_eq!(states(&alice), expected);
    });
}

#[test]
fn a_device_without_its_keys_is_invited_again_once() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = invited_without_keys(&service).await;
        assert!(told(&bob).await[0].contains("the private key of package"));
        bob.refresh_now().await.unwrap();
        let expected = ["bob/main: Failed { reason: KeysGone }", "resumed bob/main"];
        assert_eq!(told(&alice).await, expected);
        assert_eq!(states(&alice), only("bob/main", InvitationState::Committed));
        assert_eq!(members(&alice, &group), ["alice/main", "bob/main"]);
        assert_eq!(told(&bob).await, ["joined by alice/main"]);
        assert_eq!(told(&alice).await, ["bob/main: Joined"]);
        they_talk(&alice, &bob, &group).await;
    });
}

/// The second time it is left to the people; their invitation replaces the dead leaf as well.
#[test]
fn a_device_that_fails_twice_within_a_day_waits_for_a_person() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = invited_without_keys(&service).await;
        told(&bob).await;
        bob.refresh_now().await.unwrap();
        told(&alice).await;
        lose_all_packages(bob.store());
        told(&bob).await;
        told(&alice).await;
        let failed = InvitationState::Failed { reason: KEYS_GONE };
        assert_eq!(states(&alice), only("bob/main", failed));
        assert_eq!(next(&alice), NextStep::InviteAgain);
        assert!(told(&alice).await.is_empty());
        bob.refresh_now().await.unwrap();
        let invited = alice.invite(&group, ["bob"]).await.unwrap();
        assert_eq!(invited.added.len(), 1);
        assert_eq!(told(&bob).await, ["joined by alice/main"]);
        assert_eq!(told(&alice).await, ["bob/main: Joined"]);
        they_talk(&alice, &bob, &group).await;
    });
}

#[test]
fn a_device_is_not_invited_again_where_the_app_does_not_want_it() {
    run(async {
        let service = Service::start();
        let (alice, bob, _group) = invited_without_keys(&service).await;
        told(&bob).await;
        bob.refresh_now().await.unwrap();
        drop(alice);
        let clock: std::sync::Arc<dyn Clock> = service.clock.clone();
        let options = ClientOptions { reinvite: false, ..ClientOptions::new(clock) };
        let home = service.folder.path().join("alice");
        let (owner, url) = ("alice".parse().unwrap(), service.tunnel.url());
        let alice = MlsClient::open_at_server(&home, &owner, &url, options).unwrap();
        assert_eq!(told(&alice).await, ["bob/main: Failed { reason: KeysGone }"]);
        let failed = InvitationState::Failed { reason: KEYS_GONE };
        assert_eq!(states(&alice), only("bob/main", failed));
        assert_eq!(next(&alice), NextStep::InviteAgain);
    });
}

/// A sync that invites again is killed at each of its requests. In the end Bob has joined once.
#[test]
fn a_device_is_invited_again_wherever_the_inviter_was_killed() {
    run(async {
        for number in 0..6 {
            for side in [Side::Before, Side::After] {
                let service = Service::start();
                let (alice, bob, group) = invited_without_keys(&service).await;
                told(&bob).await;
                bob.refresh_now().await.unwrap();
                let kill = Kill::Request(number, side);
                let sync = async |alice: &Client| alice.sync(0).await;
                service.kill_any("alice", kill, alice, sync).await;
                let alice = open(&service, "alice");
                told(&alice).await;
                assert_eq!(told(&bob).await, ["joined by alice/main"], "{kill:?}");
                told(&alice).await;
                assert_eq!(states(&alice), only("bob/main", InvitationState::Joined), "{kill:?}");
                they_talk(&alice, &bob, &group).await;
            }
        }
    });
}

/// The report that a Welcome was given up is sent until it is acknowledged.
#[test]
fn a_failure_is_told_wherever_the_invitee_was_killed() {
    run(async {
        for number in 0..3 {
            for side in [Side::Before, Side::After] {
                let service = Service::start();
                let (alice, bob, _group) = invited_without_keys(&service).await;
                let kill = Kill::Request(number, side);
                let sync = async |bob: &Client| bob.sync(0).await;
                service.kill_any("bob", kill, bob, sync).await;
                let bob = open(&service, "bob");
                bob.sync(0).await.unwrap();
                assert_eq!(bob.events().unwrap().len(), 1, "{kill:?}");
                let heard = told(&alice).await;
                assert_eq!(heard[0], "bob/main: Failed { reason: KeysGone }", "{kill:?}");
            }
        }
    });
}

#[test]
fn a_welcome_that_was_tampered_with_is_unreadable() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and(&service, &["bob"], 2).await;
        alice.invite(&group, ["bob"]).await.unwrap();
        let bob = open(&service, "bob");
        service.tunnel.tamper(0, |reply| {
            // A byte of the Welcome, far from its ends: the sealed secrets of the group.
            let begin = reply.find("\"bytes\":\"").unwrap() + 9;
            let end = begin + reply[begin..].find('"').unwrap();
            let place = begin + (end - begin) / 2;
            let other = if reply.as_bytes()[place] == b'A' { "B" } else { "A" };
            format!("{}{other}{}", &reply[..place], &reply[place + 1..])
        });
        assert!(told(&bob).await[0].starts_with("unreadable"));
        let expected = ["bob/main: Failed { reason: Unreadable }", "resumed bob/main"];
        assert_eq!(told(&alice).await, expected);
        assert_eq!(told(&bob).await, ["joined by alice/main"]);
        they_talk_after_answer(&alice, &bob, &group).await;
    });
}

async fn they_talk_after_answer(alice: &Client, bob: &Client, group: &GroupId) {
    assert_eq!(told(alice).await, ["bob/main: Joined"]);
    they_talk(alice, bob, group).await;
}

#[test]
fn a_device_that_declines_is_not_invited_again() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and(&service, &["bob"], 2).await;
        alice.invite(&group, ["bob"]).await.unwrap();
        let bob = open(&service, "bob");
        bob.connection().api().leave_group(&group, fresh_command()).await.unwrap();
        assert_eq!(told(&alice).await, ["bob/main: Declined"]);
        assert_eq!(states(&alice), only("bob/main", InvitationState::Declined));
        // A person may ask again.
        alice.invite(&group, ["bob"]).await.unwrap();
        assert_eq!(told(&bob).await.last().unwrap(), "joined by alice/main");
        they_talk_after_answer(&alice, &bob, &group).await;
    });
}

#[test]
fn an_invitation_that_nobody_answers_expires() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and(&service, &["bob", "carol"], 2).await;
        alice.invite(&group, ["bob"]).await.unwrap();
        service.clock.advance(Duration::from_hours(8 * 24));
        // The group goes on, and the server gives the invitation up with that.
        alice.invite(&group, ["carol"]).await.unwrap();
        assert_eq!(told(&alice).await, ["bob/main: Expired"]);
        let expected = [
            ("bob/main".to_owned(), InvitationState::Expired),
            ("carol/main".to_owned(), InvitationState::Committed),
        ];
        assert_eq!(states(&alice), expected);
        // Nothing happens in the group any more, and the server says nothing.
        service.clock.advance(Duration::from_hours(15 * 24));
        told(&alice).await;
        assert_eq!(states(&alice)[1].1, InvitationState::Expired);
        service.clock.advance(Duration::from_hours(31 * 24));
        assert!(states(&alice).is_empty());
    });
}

#[test]
fn an_answer_to_an_unknown_invitation_is_told_and_harms_nothing() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and(&service, &["bob"], 2).await;
        alice.invite(&group, ["bob"]).await.unwrap();
        let staged = alice.store().stage().unwrap();
        for name in staged.app_record_names("invitation/").unwrap() {
            staged.remove_app_record(&name);
        }
        staged.commit().unwrap();
        let bob = open(&service, "bob");
        told(&bob).await;
        assert_eq!(told(&alice).await, ["bob/main: Joined"]);
        assert!(states(&alice).is_empty());
        they_talk(&alice, &bob, &group).await;
    });
}

/// Bob has registered and has no package.
async fn invited_without_packages(service: &Service) -> (Client, GroupId) {
    let (alice, group) = alice_and(service, &["bob"], 0).await;
    alice.invite(&group, ["bob"]).await.unwrap_err();
    assert_eq!(states(&alice), only("bob/main", InvitationState::Waiting));
    assert_eq!(next(&alice), NextStep::AwaitsPackage);
    drop(alice);
    (open(service, "alice"), group)
}

#[test]
fn a_device_with_an_empty_pool_is_invited_when_it_has_packages_again() {
    run(async {
        let service = Service::start();
        let (alice, group) = invited_without_packages(&service).await;
        assert!(told(&alice).await.is_empty());
        let bob = open(&service, "bob");
        bob.refresh_now().await.unwrap();
        assert_eq!(told(&alice).await, ["resumed bob/main"]);
        assert_eq!(told(&bob).await, ["joined by alice/main"]);
        they_talk_after_answer(&alice, &bob, &group).await;
        assert_eq!(states(&alice), only("bob/main", InvitationState::Joined));
    });
}

#[test]
fn an_awaited_device_is_invited_wherever_the_inviter_was_killed() {
    run(async {
        for number in 0..6 {
            for side in [Side::Before, Side::After] {
                let service = Service::start();
                let (alice, group) = invited_without_packages(&service).await;
                let bob = open(&service, "bob");
                bob.refresh_now().await.unwrap();
                let kill = Kill::Request(number, side);
                let sync = async |alice: &Client| alice.sync(0).await;
                service.kill_any("alice", kill, alice, sync).await;
                let alice = open(&service, "alice");
                told(&alice).await;
                assert_eq!(told(&bob).await, ["joined by alice/main"], "{kill:?}");
                they_talk_after_answer(&alice, &bob, &group).await;
            }
        }
    });
}

#[test]
fn a_lost_answer_of_the_waiting_list_is_asked_for_again() {
    run(async {
        for kill in [Side::Before, Side::After] {
            let service = Service::start();
            let (alice, group) = alice_and(&service, &["bob"], 0).await;
            let invite = async |alice: &Client| alice.invite(&group, ["bob"]).await;
            // Make the group, look Bob up, reserve, and wait.
            service.kill_any("alice", Kill::Request(AWAIT, kill), alice, invite).await;
            let alice = open(&service, "alice");
            told(&alice).await;
            let bob = open(&service, "bob");
            bob.refresh_now().await.unwrap();
            assert_eq!(told(&alice).await, ["resumed bob/main"]);
        }
    });
}

/// The number of the request that waits for packages, in an invitation.
const AWAIT: usize = 2;

#[test]
fn a_cancelled_invitation_does_not_go_on() {
    run(async {
        let service = Service::start();
        let (alice, group) = invited_without_packages(&service).await;
        assert!(alice.cancel_invitation(&group, "bob").await.unwrap());
        assert!(!alice.cancel_invitation(&group, Invitee::from("bob/main")).await.unwrap());
        let bob = open(&service, "bob");
        bob.refresh_now().await.unwrap();
        assert!(told(&alice).await.is_empty());
        assert_eq!(states(&alice), only("bob/main", InvitationState::Cancelled));
        assert!(told(&bob).await.is_empty());
        assert_eq!(members(&alice, &group), ["alice/main"]);
    });
}

#[test]
fn a_user_who_was_blocked_meanwhile_is_not_invited() {
    run(async {
        let service = Service::start();
        let (alice, group) = invited_without_packages(&service).await;
        alice.block(vec!["bob".to_owned()]).await.unwrap();
        let bob = open(&service, "bob");
        bob.refresh_now().await.unwrap();
        assert!(told(&alice).await.is_empty());
        assert_eq!(states(&alice), only("bob/main", InvitationState::Cancelled));
        assert_eq!(members(&alice, &group), ["alice/main"]);
    });
}

#[test]
fn an_invitation_to_a_group_that_was_left_is_cancelled() {
    run(async {
        let service = Service::start();
        let (alice, group) = invited_without_packages(&service).await;
        alice.leave(&group).await.unwrap();
        let bob = open(&service, "bob");
        bob.refresh_now().await.unwrap();
        assert!(told(&alice).await.is_empty());
        assert_eq!(states(&alice), only("bob/main", InvitationState::Cancelled));
    });
}

#[test]
fn a_device_that_was_removed_before_it_answered_is_not_invited_any_more() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and(&service, &["bob"], 2).await;
        alice.invite(&group, ["bob"]).await.unwrap();
        alice.remove(&group, "bob", None).await.unwrap();
        assert_eq!(states(&alice), only("bob/main", InvitationState::Cancelled));
        let bob = open(&service, "bob");
        assert!(told(&bob).await.is_empty());
    });
}

/// Bob's phone waits for a package while Bob's other device is in the group, and another member removes Bob.
#[test]
fn a_user_whom_others_have_removed_meanwhile_is_not_invited() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        drop(service.device("carol", 2).await);
        alice.invite(&group, ["carol"]).await.unwrap();
        let carol = open(&service, "carol");
        told(&carol).await;
        let phone = phone_without_packages(&service, &bob).await;
        alice.invite(&group, ["bob/phone"]).await.unwrap_err();
        told(&carol).await;
        carol.remove(&group, "bob", None).await.unwrap();
        told(&alice).await;
        phone.refresh_now().await.unwrap();
        assert!(told(&alice).await.is_empty());
        let phones = states(&alice).into_iter().find(|(name, _)| name == "bob/phone").unwrap();
        assert_eq!(phones.1, InvitationState::Cancelled);
    });
}

async fn phone_without_packages(service: &Service, bob: &Client) -> Client {
    let phone = open(service, "bob/phone");
    let voucher = bob.vouch_for("phone", &phone.identity().signature_key()).await.unwrap();
    phone.register_vouched(Some(voucher)).await.unwrap();
    phone
}

#[test]
fn an_invitation_waits_for_a_package_for_fourteen_days() {
    run(async {
        let service = Service::start();
        let (alice, _group) = invited_without_packages(&service).await;
        service.clock.advance(Duration::from_hours(13 * 24));
        told(&alice).await;
        assert_eq!(states(&alice), only("bob/main", InvitationState::Waiting));
        service.clock.advance(Duration::from_hours(25));
        told(&alice).await;
        assert_eq!(states(&alice), only("bob/main", InvitationState::Expired));
    });
}

/// The operator blocks Bob, or unblocks him, while the devices' apps run.
async fn set_blocked(service: Service, is_blocked: bool) -> Service {
    let user = "bob".to_owned();
    let change = if is_blocked {
        SuspensionChange::Suspend { user, reason: None }
    } else {
        SuspensionChange::Reinstate { user }
    };
    let does = async |_: &_, store: &KeyPackageStore<_>| {
        assert!(store.pools().change_suspension(change).await.unwrap().changed);
    };
    service.beneath(does).await
}

#[test]
fn a_user_whom_the_operator_has_blocked_is_left_out_and_told_so() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and(&service, &["bob", "carol"], 2).await;
        let service = set_blocked(service, true).await;
        let invited = alice.invite(&group, ["bob", "carol"]).await.unwrap();
        let missing: Vec<String> = invited.missing.iter().map(ToString::to_string).collect();
        let said = "bob/main could not be invited: invitee_suspended. Leave the user out; only the \
                    operator of this server can unblock the user.";
        assert_eq!(missing, [said]);
        assert_eq!(members(&alice, &group), ["alice/main", "carol/main"]);
        let bob = open(&service, "bob");
        let refused = bob.refresh_now().await.unwrap_err();
        assert!(refused.to_string().contains("suspended: the operator of this server has blocked"));

        let service = set_blocked(service, false).await;
        bob.refresh_now().await.unwrap();
        alice.invite(&group, ["bob"]).await.unwrap();
        assert_eq!(members(&alice, &group), ["alice/main", "bob/main", "carol/main"]);
        drop(service);
    });
}
