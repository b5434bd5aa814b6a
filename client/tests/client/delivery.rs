//! The server's own delivery: invited offline, caught up in order, through lost answers and crashes.

use std::time::Duration;

use keypool_api::{Base64, Code, CommitRequest, GroupRequest, MailboxKind};
use keypool_client::{
    CommitPost, DeliveryError, DeliveryService, InviteError, MESSAGE_BYTES_MAX, MailboxEvent,
    MailboxEventKind, SendError, ServerDelivery, SkipReason,
};
use keypool_ledger::GroupId;

use super::{
    members::{Client, alice_and, alice_and_bob, members, open, shown, they_talk, told},
    service::{Kill, Service, Side, group, run},
};

use Side::{After, Before};

#[test]
fn somebody_invited_offline_joins_and_both_talk_in_order() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and(&service, &["bob"], 2).await;
        assert_eq!(alice.send(&group, b"nobody hears this").await.unwrap(), None);
        let before = service.tunnel.requests();
        let invited = alice.invite(&group, ["bob"]).await.unwrap();
        assert_eq!(
            service.tunnel.requests() - before,
            3,
            "make the group, reserve, and all the rest"
        );
        assert_eq!(
            (invited.added[0].device.to_string().as_str(), invited.attempts),
            ("bob/main", 1)
        );
        alice.send(&group, b"one").await.unwrap();
        alice.send(&group, b"two").await.unwrap();
        let bob = open(&service, "bob");
        assert_eq!(
            told(&bob).await,
            ["joined by alice/main", "alice/main: one", "alice/main: two"]
        );
        bob.send(&group, b"three").await.unwrap();
        bob.update_keys(&group).await.unwrap();
        bob.send(&group, b"four").await.unwrap();
        assert_eq!(told(&alice).await, ["bob/main: three", "+[] -[]", "bob/main: four"]);
        assert!(told(&alice).await.is_empty() && told(&bob).await.is_empty());
        let counts = bob.status().await.unwrap().counts;
        assert_eq!((counts.available, counts.reserved, counts.spent), (1, 0, 1));
    });
}

#[test]
fn two_hundred_messages_arrive_in_order_in_one_go() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        drop(bob);
        for number in 0..200 {
            alice.send(&group, number.to_string().as_bytes()).await.unwrap();
        }
        let expected: Vec<String> =
            (0..200).map(|number| format!("alice/main: {number}")).collect();
        assert_eq!(told(&open(&service, "bob")).await, expected);
    });
}

/// While Bob waits, Alice writes, and Bob does: neither holds up the other.
#[test]
fn a_device_that_waits_hears_at_once_and_may_do_other_things_meanwhile() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        let before = service.tunnel.requests();
        let meanwhile = async {
            service.tunnel.reached(before + 1).await;
            bob.send(&group, b"anybody there?").await.unwrap();
            bob.update_keys(&group).await.unwrap();
            told(&alice).await;
            alice.send(&group, b"at last").await.unwrap();
        };
        let (heard, ()) = tokio::join!(bob.sync(30), meanwhile);
        // Had Bob's own doings waited for the end of his wait, nothing would have come in it.
        assert_eq!(heard.unwrap().len(), 1);
        assert_eq!(shown(&bob), ["alice/main: at last"]);
        assert!(bob.sync(1).await.unwrap().is_empty());
    });
}

#[test]
fn the_end_is_the_same_whichever_answers_are_lost() {
    run(async {
        for lost in [&[0][..], &[1], &[0, 1, 2], &[2], &[3], &[4], &[5], &[2, 3, 5, 6], &[6]] {
            let service = Service::start();
            let (alice, group) = alice_and(&service, &["bob"], 2).await;
            let bob = open(&service, "bob");
            // Two to invite, one to send, and three to take in: what waits, that it is all, thanks.
            service.tunnel.lose(lost);
            alice.invite(&group, ["bob"]).await.unwrap();
            alice.send(&group, b"hello").await.unwrap().unwrap();
            let expected = ["joined by alice/main", "alice/main: hello"];
            assert_eq!(told(&bob).await, expected, "lost {lost:?}");
            they_talk(&alice, &bob, &group).await;
        }
    });
}

#[test]
fn two_who_invite_at_the_same_time_both_succeed() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        for name in ["carol", "dave"] {
            drop(service.device(name, 2).await);
        }
        let (one, other) =
            tokio::join!(alice.invite(&group, ["carol"]), bob.invite(&group, ["dave"]));
        assert_eq!((one.unwrap().attempts, other.unwrap().attempts), (1, 1));
        let (carol, dave) = (open(&service, "carol"), open(&service, "dave"));
        for client in [&alice, &bob, &carol, &dave] {
            told(client).await;
        }
        for client in [&alice, &bob, &carol, &dave] {
            let everyone = ["alice/main", "bob/main", "carol/main", "dave/main"];
            assert_eq!(members(client, &group), everyone);
        }
        dave.send(&group, b"hello all").await.unwrap();
        for client in [&alice, &bob, &carol] {
            assert_eq!(told(client).await, ["dave/main: hello all"]);
        }
        // What was taken in to follow the others is told as well, and a package is used once.
        assert_eq!(carol.status().await.unwrap().counts.spent, 1);
    });
}

#[test]
fn a_lost_race_is_run_again_for_updates_and_removals() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        drop(service.device("carol", 2).await);
        alice.invite(&group, ["carol"]).await.unwrap();
        // Bob has not heard of Carol yet.
        bob.update_keys(&group).await.unwrap();
        assert_eq!(shown(&bob), [r#"+["carol/main"] -[]"#]);
        // Alice has not heard of Bob's update, nor Carol of anything.
        alice.remove(&group, "carol", None).await.unwrap();
        assert_eq!(members(&alice, &group), ["alice/main", "bob/main"]);
        they_talk_after(&alice, &bob, &group).await;
        let carol = open(&service, "carol");
        // She was away, and has accepted nothing: the invitation was taken back.
        assert_eq!(told(&carol).await, [""; 0]);
        let refused = carol.send(&group, b"may I?").await.unwrap_err();
        assert!(matches!(refused, SendError::Group(_)), "{refused:?}");
        let nobody = alice.remove(&group, "carol", None).await.unwrap_err();
        assert!(nobody.to_string().contains("carol/main is not in group"), "{nobody}");
    });
}

/// Both sync their mailboxes, and then hear each other.
async fn they_talk_after(one: &Client, other: &Client, group: &GroupId) {
    told(one).await;
    told(other).await;
    they_talk(one, other, group).await;
}

/// Carol takes a package of Bob's while Alice's reservation has lapsed: hers is refused with the
/// Commit, and a fresh package is used.
#[test]
fn a_commit_with_a_lost_package_is_not_accepted_and_a_fresh_one_is_used() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and(&service, &["bob"], 2).await;
        let dave = service.device("dave", 0).await;
        let invite = async |alice: &Client| alice.invite(&group, ["bob"]).await;
        kill(&service, "alice", Kill::Request(2, Before), alice, invite).await;
        service.clock.advance(Duration::from_secs(121));
        let fresh = super::people::reserve_for(&dave, "h").await;
        let taken = super::people::reserve_for(&dave, "i").await;
        assert_eq!(taken.reply.generation, 2);
        let command = keypool_client::fresh_command();
        dave.connection().api().release(&fresh.claim, command).await.unwrap();
        let alice = open(&service, "alice");
        let resumed = alice.resume_invitations().await.unwrap().pop().unwrap();
        assert_eq!(resumed.outcome.unwrap().attempts, 2);
        assert_eq!(alice.membership().epoch(&group).unwrap(), 1, "one Commit was accepted");
        let bob = open(&service, "bob");
        assert_eq!(told(&bob).await, ["joined by alice/main"]);
        they_talk(&alice, &bob, &group).await;
    });
}

async fn kill<O: std::fmt::Debug>(
    service: &Service,
    name: &str,
    kill: Kill,
    client: Client,
    does: impl AsyncFnOnce(&Client) -> O,
) {
    service.kill_any(name, kill, client, does).await;
}

#[test]
fn an_invitation_goes_on_wherever_it_was_killed() {
    run(async {
        for (number, side) in [(1, Before), (1, After), (2, Before), (2, After)] {
            let service = Service::start();
            let (alice, group) = alice_and(&service, &["bob"], 2).await;
            let invite = async |alice: &Client| alice.invite(&group, ["bob"]).await;
            kill(&service, "alice", Kill::Request(number, side), alice, invite).await;
            let alice = open(&service, "alice");
            let resumed = alice.resume_invitations().await.unwrap().pop().unwrap();
            assert_eq!(resumed.outcome.unwrap().attempts, 1);
            assert!(alice.resume_invitations().await.unwrap().is_empty());
            let bob = open(&service, "bob");
            assert_eq!(told(&bob).await, ["joined by alice/main"]);
            they_talk(&alice, &bob, &group).await;
            let counts = bob.status().await.unwrap().counts;
            assert_eq!((counts.available, counts.spent), (1, 1));
        }
    });
}

#[test]
fn a_message_goes_out_once_wherever_its_sender_was_killed() {
    run(async {
        for side in [Before, After] {
            let service = Service::start();
            let (alice, bob, group) = alice_and_bob(&service).await;
            let send = async |alice: &Client| alice.send(&group, b"one").await;
            kill(&service, "alice", Kill::Request(0, side), alice, send).await;
            let alice = open(&service, "alice");
            // The next one waits for it.
            alice.send(&group, b"two").await.unwrap().unwrap();
            assert!(alice.resume_outbox().await.unwrap().is_empty());
            assert_eq!(told(&bob).await, ["alice/main: one", "alice/main: two"]);

            let send = async |alice: &Client| alice.send(&group, b"three").await;
            kill(&service, "alice", Kill::Request(0, side), alice, send).await;
            let alice = open(&service, "alice");
            let resumed = alice.resume_outbox().await.unwrap();
            assert!(resumed.len() == 1 && resumed[0].outcome.is_ok(), "{resumed:?}");
            assert_eq!(told(&bob).await, ["alice/main: three"]);
            they_talk(&alice, &bob, &group).await;
        }
    });
}

/// A sync is three requests: the waiting items, the end of the mailbox, and the acknowledgement.
#[test]
fn everything_is_told_once_wherever_the_app_was_killed() {
    run(async {
        for (number, side) in
            [(0, Before), (0, After), (1, Before), (1, After), (2, Before), (2, After)]
        {
            let service = Service::start();
            let (alice, group) = alice_and(&service, &["bob"], 2).await;
            alice.invite(&group, ["bob"]).await.unwrap();
            alice.send(&group, b"one").await.unwrap();
            let bob = open(&service, "bob");
            let sync = async |bob: &Client| bob.sync(0).await;
            kill(&service, "bob", Kill::Request(number, side), bob, sync).await;
            let bob = open(&service, "bob");
            // What was taken in before is there, also without the server.
            let mut heard = shown(&bob);
            assert_eq!(heard.len(), if number == 0 { 0 } else { 2 });
            alice.send(&group, b"two").await.unwrap();
            heard.extend(told(&bob).await);
            assert_eq!(heard, ["joined by alice/main", "alice/main: one", "alice/main: two"]);
            they_talk(&alice, &bob, &group).await;
        }
    });
}

#[test]
fn what_is_not_confirmed_is_told_again_after_a_restart() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        alice.send(&group, b"one").await.unwrap();
        alice.send(&group, b"two").await.unwrap();
        let events = bob.sync(0).await.unwrap();
        assert_eq!(events.len(), 2);
        bob.confirm(events[0].position).unwrap();
        drop(bob);
        let bob = open(&service, "bob");
        let again = bob.events().unwrap();
        assert_eq!(again.len(), 1);
        assert_eq!((again[0].position, &again[0].kind), (events[1].position, &events[1].kind));
        // The app had been given it: that it may have been shown is said.
        assert!(!events[1].repeated && again[0].repeated);
        alice.send(&group, b"three").await.unwrap();
        let both = bob.sync(0).await.unwrap();
        assert_eq!(both.iter().map(|it| it.repeated).collect::<Vec<_>>(), [true, false]);
        bob.confirm(both[1].position).unwrap();
        alice.send(&group, b"two").await.unwrap();
        assert_eq!(told(&bob).await, ["alice/main: two"]);
        they_talk(&alice, &bob, &group).await;
    });
}

/// The file `commits` counts the writes of a store.
#[test]
fn a_mailbox_with_nothing_in_it_writes_nothing() {
    run(async {
        let service = Service::start();
        let (_alice, bob, _group) = alice_and_bob(&service).await;
        told(&bob).await;
        let writes = || std::fs::read(service.folder.path().join("bob/commits")).unwrap();
        let before = writes();
        assert!(told(&bob).await.is_empty());
        assert_eq!(writes(), before);
    });
}

#[test]
fn a_removal_goes_on_wherever_it_was_killed() {
    run(async {
        for side in [Before, After] {
            let service = Service::start();
            let (alice, bob, group) = alice_and_bob(&service).await;
            let remove = async |alice: &Client| alice.remove(&group, "bob", Some("main")).await;
            kill(&service, "alice", Kill::Request(0, side), alice, remove).await;
            let alice = open(&service, "alice");
            let resumed = alice.resume_updates().await.unwrap();
            assert!(resumed.len() == 1 && resumed[0].outcome.is_ok(), "{resumed:?}");
            assert!(alice.resume_updates().await.unwrap().is_empty());
            assert_eq!(members(&alice, &group), ["alice/main"]);
            assert_eq!(told(&bob).await, [r#"+[] -["bob/main"], and this is me"#]);
            // Whoever was removed can be invited again.
            alice.invite(&group, ["bob"]).await.unwrap();
            assert_eq!(told(&bob).await, ["joined by alice/main"]);
            they_talk(&alice, &bob, &group).await;
        }
    });
}

/// Her invitation has no answer, and she applies Bob's later messages before she goes on with it.
#[test]
fn an_invitation_of_unknown_outcome_is_settled_by_taking_in_the_mailbox() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        drop(service.device("carol", 2).await);
        service.tunnel.lose(&[1, 2, 3, 4]);
        let unfinished = alice.invite(&group, ["carol"]).await.unwrap_err();
        assert!(matches!(unfinished, InviteError::Unfinished { .. }), "{unfinished:?}");
        assert_eq!(told(&bob).await, [r#"+["carol/main"] -[]"#]);
        bob.update_keys(&group).await.unwrap();
        bob.send(&group, b"welcome, Carol").await.unwrap();
        assert_eq!(told(&alice).await, ["+[] -[]", "bob/main: welcome, Carol"]);
        assert!(alice.resume_invitations().await.unwrap().is_empty());
        let carol = open(&service, "carol");
        let heard = told(&carol).await;
        assert_eq!(heard, ["joined by alice/main", "+[] -[]", "bob/main: welcome, Carol"]);
    });
}

/// The Commit is accepted and the answer lost for good; meanwhile Bob follows it and speaks.
#[test]
fn a_commit_of_unknown_outcome_is_settled_before_what_came_after_it_is_opened() {
    run(async {
        for side in [Before, After] {
            let service = Service::start();
            let (alice, bob, group) = alice_and_bob(&service).await;
            let update = async |alice: &Client| alice.update_keys(&group).await;
            kill(&service, "alice", Kill::Request(0, side), alice, update).await;
            told(&bob).await;
            bob.update_keys(&group).await.unwrap();
            bob.send(&group, b"after yours").await.unwrap();
            let alice = open(&service, "alice");
            assert_eq!(told(&alice).await, ["+[] -[]", "bob/main: after yours"]);
            for resumed in alice.resume_updates().await.unwrap() {
                resumed.outcome.unwrap();
            }
            they_talk_after(&alice, &bob, &group).await;
        }
    });
}

/// A post of a member that nobody can open is reported once, and the rest goes on.
#[test]
fn what_cannot_be_opened_is_told_once() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        let mut sealed = alice.encrypt(&group, b"secret").unwrap();
        *sealed.last_mut().unwrap() ^= 1;
        let message = Base64(sealed);
        let request = keypool_api::MessageRequest { message };
        let command = keypool_client::fresh_command();
        alice.connection().api().post_message(&group, &request, command).await.unwrap();
        alice.send(&group, b"sorry").await.unwrap();
        let heard = told(&bob).await;
        assert!(heard[0].starts_with("unreadable: "), "{heard:?}");
        assert_eq!(heard[1..], ["alice/main: sorry"]);
        they_talk(&alice, &bob, &group).await;
    });
}

/// Bob is away for longer than the server keeps anything: that something is lost is said until it is confirmed.
#[test]
fn what_was_not_kept_of_a_group_is_told_and_the_group_goes_on() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        alice.send(&group, b"old").await.unwrap();
        service.clock.advance(Duration::from_hours(31 * 24));
        let lost = alice.send(&group, b"new").await.unwrap().unwrap();
        assert_eq!(lost.not_kept, ["bob/main".parse().unwrap()], "Alice is told at once");
        for _ in 0..2 {
            let events = bob.sync(0).await.unwrap();
            assert!(matches!(events[..], [MailboxEvent { repeated: false, .. }]), "{events:?}");
        }
        assert_eq!(told(&bob).await, ["the group lost"]);
        assert!(told(&bob).await.is_empty());
        they_talk(&alice, &bob, &group).await;
    });
}

/// Bob is away for longer than the server keeps anything: his mailbox takes no Commit of the group either.
#[test]
fn a_commit_that_did_not_reach_a_member_is_told_once_to_whoever_made_it() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        alice.send(&group, b"old").await.unwrap();
        service.clock.advance(Duration::from_hours(31 * 24));
        alice.update_keys(&group).await.unwrap();
        let alice = {
            drop(alice);
            open(&service, "alice")
        };
        assert_eq!(told(&alice).await, ["Commit missed by bob/main"]);
        assert!(told(&alice).await.is_empty());
        assert_eq!(told(&bob).await, ["the group lost"]);
    });
}

/// Confirming the events before a Commit leaves the event of that Commit.
#[test]
fn a_confirmation_leaves_what_was_noted_since() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        bob.send(&group, b"hello").await.unwrap();
        bob.leave(&group).await.unwrap();
        let shown = alice.sync(0).await.unwrap();
        alice.take_up_proposals(&group).await.unwrap();
        alice.confirm(shown.last().unwrap().position).unwrap();
        assert_eq!(told(&alice).await, [r#"["bob/main"] left"#]);
    });
}

/// Who waits for the mailbox is told at once the effect of the own Commit: the server would wait for 30
/// seconds.
#[test]
fn whoever_waits_for_the_mailbox_hears_at_once_what_the_own_commit_has_done() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        bob.leave(&group).await.unwrap();
        assert_eq!(told(&alice).await, ["bob/main asks to leave"]);
        let waiting = tokio::time::timeout(Duration::from_secs(25), alice.sync(30));
        let (heard, taken_up) = tokio::join!(waiting, alice.take_up_proposals(&group));
        taken_up.unwrap();
        let heard = heard.expect("it is told before the server answers").unwrap();
        assert!(
            matches!(&heard[0].kind, MailboxEventKind::Left { members, .. } if members == &["bob/main"])
        );
    });
}

/// Bob has not accepted the group, so that his mailbox keeps 32 KiB of Alice.
#[test]
fn a_message_of_the_outbox_that_did_not_reach_a_member_is_told_when_a_later_one_is_sent() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and(&service, &["bob"], 2).await;
        alice.invite(&group, ["bob"]).await.unwrap();
        for repetition in 0..4 {
            service.tunnel.forge(repetition, 503, "<html>down</html>");
        }
        let unfinished = alice.send(&group, &vec![7; 40_000]).await.unwrap_err();
        assert!(matches!(unfinished, SendError::Unfinished(_)), "{unfinished:?}");
        alice.send(&group, b"small").await.unwrap();
        assert_eq!(told(&alice).await, ["message missed by bob/main"]);
        assert!(told(&alice).await.is_empty());
    });
}

/// A message is kept while the server is away, and goes out by itself.
#[test]
fn a_message_whose_answers_are_all_lost_is_kept_and_sent_once() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        service.tunnel.lose(&[0, 1, 2, 3]);
        let unfinished = alice.send(&group, b"one").await.unwrap_err();
        assert!(matches!(unfinished, SendError::Unfinished(_)), "{unfinished:?}");
        alice.send(&group, b"two").await.unwrap();
        assert_eq!(told(&bob).await, ["alice/main: one", "alice/main: two"]);
        assert!(alice.resume_outbox().await.unwrap().is_empty());
    });
}

/// A permanent refusal of a proxy is final; a temporary one is not.
#[test]
fn a_message_that_a_proxy_refuses_is_forgotten_unless_it_may_pass_later() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        for status in [400, 403, 413, 431] {
            service.tunnel.forge(0, status, "<html>no</html>");
            let refused = alice.send(&group, b"refused").await.unwrap_err();
            assert!(matches!(refused, SendError::Refused(_)), "{status}: {refused:?}");
            assert!(alice.resume_outbox().await.unwrap().is_empty(), "{status}");
        }
        for status in [408, 425, 429] {
            for repetition in 0..4 {
                service.tunnel.forge(repetition, status, "<html>later</html>");
            }
            let later = alice.send(&group, b"later").await.unwrap_err();
            assert!(matches!(later, SendError::Unfinished(_)), "{status}: {later:?}");
            let resumed = alice.resume_outbox().await.unwrap();
            assert!(resumed.iter().all(|it| it.outcome.is_ok()) && resumed.len() == 1, "{status}");
        }
        assert_eq!(told(&bob).await, ["alice/main: later"; 3]);
    });
}

#[test]
fn a_message_that_is_too_large_for_any_server_is_not_sealed() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        let before = service.tunnel.requests();
        let refused = alice.send(&group, &vec![0; MESSAGE_BYTES_MAX + 1]).await.unwrap_err();
        assert!(matches!(refused, SendError::TooLarge { .. }), "{refused:?}");
        assert!(alice.resume_outbox().await.unwrap().is_empty());
        assert_eq!(service.tunnel.requests(), before);
        // The largest one passes.
        alice.send(&group, &vec![b'x'; MESSAGE_BYTES_MAX]).await.unwrap().unwrap();
        let heard = told(&bob).await;
        assert_eq!(heard.len(), 1);
        assert_eq!(heard[0].len(), "alice/main: ".len() + MESSAGE_BYTES_MAX);
    });
}

/// The group is made before anybody is invited: somebody who learns its id from a reservation cannot take it.
#[test]
fn a_group_whose_making_was_interrupted_is_made_once_and_nobody_else_can_make_it() {
    run(async {
        for side in [Before, After] {
            let service = Service::start();
            let (alice, group) = alice_and(&service, &["bob"], 2).await;
            let invite = async |alice: &Client| alice.invite(&group, ["bob"]).await;
            kill(&service, "alice", Kill::Request(0, side), alice, invite).await;
            let alice = open(&service, "alice");
            assert!(alice.resume_invitations().await.unwrap().is_empty(), "it had not begun");
            alice.invite(&group, ["bob"]).await.unwrap();
            drop(service.device("mallory", 0).await);
            let mallory = open(&service, "mallory");
            let request = GroupRequest { group_id: group.clone() };
            let api = mallory.connection().api();
            let refused = api.make_group(&request, keypool_client::fresh_command()).await;
            assert_eq!(refused.unwrap_err().code(), Some(Code::GroupExists));
            mallory.create_group(&group).unwrap();
            let refused = mallory.invite(&group, ["bob"]).await.unwrap_err();
            // She is told that it is not her group, and nothing about Bob.
            let InviteError::Nobody { missing } = &refused else { panic!("{refused:?}") };
            assert_eq!(missing[0].why, SkipReason::Refused { code: Code::NotAMember });
            assert_eq!(
                missing[0].to_string(),
                "bob/main could not be invited: not_a_member. Have a member invite; for a group of your own, draw \
                 another id at random."
            );
        }
    });
}

/// The server makes a group in epoch 0, where a later Commit would find its epoch taken for ever.
#[test]
fn a_later_commit_of_a_group_that_the_server_does_not_know_is_refused_and_makes_no_group() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and(&service, &[], 0).await;
        alice.membership().self_update(&group).unwrap();
        alice.membership().merge_pending_commit(&group).unwrap();
        let made = alice.membership().self_update(&group).unwrap();
        let api = alice.connection().api();
        let post = CommitPost {
            group: group.clone(),
            epoch: made.epoch,
            commit: made.commit,
            removed: Vec::new(),
            added: Vec::new(),
            welcome: Vec::new(),
        };
        let refused = ServerDelivery::new(api.clone()).post_commit(&post).await.unwrap_err();
        assert!(matches!(refused, DeliveryError::Refused(_)), "{refused:?}");
        let request = GroupRequest { group_id: group };
        let made = api.make_group(&request, keypool_client::fresh_command()).await;
        assert!(made.is_ok(), "{made:?}");
    });
}

/// A group that was joined is accepted in the request that acknowledges the Welcome: more than the items before
/// consent is kept then.
#[test]
fn a_group_that_was_joined_keeps_more_than_one_that_was_not() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        for _ in 0..3 {
            let sent = alice.send(&group, &vec![7; 40_000]).await.unwrap().unwrap();
            assert_eq!(sent.not_kept, [], "accepted: 16 MiB");
        }
        assert_eq!(told(&bob).await.len(), 3);
        drop(service.device("carol", 2).await);
        alice.invite(&group, ["carol"]).await.unwrap();
        alice.send(&group, &vec![7; 20_000]).await.unwrap();
        let sent = alice.send(&group, &vec![7; 40_000]).await.unwrap().unwrap();
        assert_eq!(
            sent.not_kept,
            ["carol/main".parse().unwrap()],
            "not accepted: 64 KiB, half for Alice"
        );
    });
}

#[test]
fn a_group_that_is_declined_is_over_at_once() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        bob.decline(&group).await.unwrap();
        assert!(bob.membership().groups().unwrap().is_empty());
        alice.send(&group, b"are you there?").await.unwrap();
        assert!(told(&bob).await.is_empty());
        bob.decline(&group).await.unwrap();
    });
}

#[test]
fn a_group_that_is_declined_while_the_server_is_away_is_left_when_it_is_back() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        for repetition in 0..4 {
            service.tunnel.forge(repetition, 503, "<html>down</html>");
        }
        bob.decline(&group).await.unwrap();
        assert!(bob.membership().groups().unwrap().is_empty());
        let bob = {
            drop(bob);
            open(&service, "bob")
        };
        assert!(told(&bob).await.is_empty());
        alice.send(&group, b"are you there?").await.unwrap();
        let waiting = bob.connection().api().mailbox(0, 100, 0).await.unwrap().items;
        assert!(waiting.iter().all(|item| item.kind != MailboxKind::Message), "{waiting:?}");
    });
}

/// Alice's Commit removes Bob, and the server is not told: he ends the delivery himself, and at first in vain.
#[test]
fn a_group_that_cannot_be_left_holds_up_nothing_and_is_left_the_next_time() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        let made = alice.membership().remove_member(&group, bob.identity().pool()).unwrap();
        let request = CommitRequest {
            epoch: made.epoch,
            commit: Base64(made.commit),
            welcomes: Vec::new(),
            spend: Vec::new(),
            removed: Vec::new(),
        };
        let api = alice.connection().api();
        api.post_commit(&group, &request, keypool_client::fresh_command()).await.unwrap();
        let before = service.tunnel.requests();
        // The requests are: what waits, whether it is all, the acknowledgement, the leaving.
        service.tunnel.forge(3, 403, "<html>no</html>");
        let heard = told(&bob).await;
        assert_eq!(heard[0], r#"+[] -["bob/main"], and this is me"#, "{heard:?}");
        assert_eq!((service.tunnel.requests() - before, service.tunnel.planned()), (4, 0));
        assert!(told(&bob).await.is_empty());
        assert_eq!(service.tunnel.requests() - before, 6, "what waits, and the leaving");
        assert!(told(&bob).await.is_empty());
        assert_eq!(service.tunnel.requests() - before, 7, "it is left");
    });
}

/// The server cannot read a Commit and believes its sender: a member that the Commit does not remove is told.
#[test]
fn a_removal_that_only_the_server_was_told_of_is_told_to_all() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        let made = alice.membership().self_update(&group).unwrap();
        let request = CommitRequest {
            epoch: made.epoch,
            commit: Base64(made.commit),
            welcomes: Vec::new(),
            spend: Vec::new(),
            removed: vec!["bob/main".parse().unwrap()],
        };
        let api = alice.connection().api();
        api.post_commit(&group, &request, keypool_client::fresh_command()).await.unwrap();
        let heard = told(&bob).await;
        assert_eq!(heard.len(), 2, "{heard:?}");
        assert!(heard[1].starts_with("alice/main claims -[PoolId"), "{heard:?}");
    });
}

/// Eight groups of one user may wait for a device to accept them.
#[test]
fn somebody_with_too_many_invitations_is_left_out_until_they_were_online() {
    run(async {
        let service = Service::start();
        let (alice, _) = alice_and(&service, &["bob"], 20).await;
        let made = |number: u8| {
            let made = group(&format!("g{number}"));
            alice.create_group(&made).unwrap();
            made
        };
        for number in 0..8 {
            alice.invite(&made(number), ["bob"]).await.unwrap();
        }
        let ninth = made(8);
        let refused = alice.invite(&ninth, ["bob"]).await.unwrap_err();
        let InviteError::Nobody { missing } = &refused else { panic!("{refused:?}") };
        assert_eq!(missing[0].why, SkipReason::Refused { code: Code::InvitationsFull });
        let bob = open(&service, "bob");
        assert_eq!(bob.status().await.unwrap().counts.reserved, 0, "given back");
        assert_eq!(told(&bob).await.len(), 8);
        alice.invite(&ninth, ["bob"]).await.unwrap();
    });
}
