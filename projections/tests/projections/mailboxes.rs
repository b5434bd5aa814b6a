//! Mailboxes: the budget of each group and sender, the messages that are dropped, the groups that wait to be
//! accepted, and the acknowledgements.

use std::time::Duration;

use keypool_ledger::{Event, InvitationAnswer, LeaveCause};
use keypool_projections::{
    Acknowledgement, Closed, DeliveryLimits, DeliveryRejection, KeepDecision, MailboxState,
    packing::{Packer, Unpacker},
};

use crate::{
    history::{group, pool},
    post::{Post, acknowledged, answered, committed, left, overrun, posted},
};

const LIMITS: DeliveryLimits = DeliveryLimits {
    group_messages_max: 4,
    group_bytes_max: 100,
    invited_messages_max: 2,
    invited_bytes_max: 40,
    invitations_max: 4,
    invitations_of_user_max: 2,
    ..DeliveryLimits::STANDARD
};
const DAY: Duration = Duration::from_hours(24);

/// Alice's group `g`, which bob and carol have accepted.
fn accepted() -> Post {
    let mut post = Post::default();
    post.invite("g", "alice", &["bob", "carol", "alice/b"]);
    post.read("bob", &["g"]);
    post.read("carol", &["g"]);
    post
}

/// Whether bob's mailbox keeps an item of group `g`: a message, or a Commit.
fn keeps(post: &Post, sender: &str, is_message: bool, bytes: u64) -> KeepDecision {
    let sender = pool(sender);
    post.mailbox("bob").decide_keep(&group("g"), (&sender, is_message), bytes, post.now, &LIMITS)
}

fn kept() -> KeepDecision {
    KeepDecision { kept: true, ..KeepDecision::default() }
}

/// The item closes a part of the mailbox, and is not kept.
fn closes(sender: Option<&str>) -> KeepDecision {
    KeepDecision { closing: vec![overrun("g", sender, 0)], ..KeepDecision::default() }
}

fn closed(post: &Post) -> Vec<Closed> {
    post.mailbox("bob").closed().collect()
}

#[test]
fn a_users_messages_have_half_of_a_groups_budget_and_commits_the_whole() {
    let mut post = accepted();
    assert_eq!(keeps(&post, "alice", true, 50), kept());
    assert_eq!(keeps(&post, "alice", true, 51), closes(Some("alice")));
    assert_eq!(keeps(&post, "alice", false, 100), kept());
    assert_eq!(keeps(&post, "alice", false, 101), closes(None));
    post.in_group("g", &posted("alice"));
    assert_eq!(keeps(&post, "alice/b", true, 40), kept());
    assert_eq!(keeps(&post, "alice/b", true, 41), closes(Some("alice/b")), "of one user");
    post.in_group("g", &posted("alice/b"));
    assert_eq!(keeps(&post, "alice", true, 1), closes(Some("alice")), "two messages of four");
    assert_eq!(keeps(&post, "carol", true, 50), kept());
    assert_eq!(keeps(&post, "alice", false, 80), kept());
    assert_eq!(keeps(&post, "alice", false, 81), closes(None));
    post.in_group("g", &committed("alice", 1, &[], &[]));
    post.in_group("g", &posted("carol"));
    assert_eq!(keeps(&post, "carol", true, 1), closes(None), "four items");
    assert_eq!(keeps(&post, "alice", false, 1), closes(None));
    // An acknowledgement makes room.
    let position = post.position;
    post.in_mailbox("bob", &acknowledged(position - 3, Vec::new(), Vec::new()));
    assert_eq!(keeps(&post, "alice", true, 40), kept());
    assert_eq!(keeps(&post, "alice", true, 41), closes(Some("alice")));
    post.read("bob", &[]);
    assert_eq!(keeps(&post, "alice", true, 50), kept());
}

#[test]
fn the_budget_is_small_until_the_group_is_accepted() {
    let mut post = Post::default();
    post.invite("g", "alice", &["bob", "carol"]);
    assert_eq!(keeps(&post, "alice", true, 20), kept(), "the Welcome uses nothing of it");
    assert_eq!(keeps(&post, "alice", true, 21), closes(Some("alice")));
    assert_eq!(keeps(&post, "alice", false, 40), kept());
    assert_eq!(keeps(&post, "alice", false, 41), closes(None));
    post.in_group("g", &posted("alice"));
    assert_eq!(keeps(&post, "alice", true, 1), closes(Some("alice")));
    post.in_group("g", &posted("carol"));
    assert_eq!(keeps(&post, "dave", true, 1), closes(None), "two messages");
    let position = post.position;
    post.in_mailbox("bob", &acknowledged(position - 2, vec![group("g")], Vec::new()));
    assert_eq!(keeps(&post, "carol", true, 40), kept());
}

#[test]
fn a_sender_that_is_closed_sends_commits_only_until_the_device_was_told() {
    let mut post = accepted();
    post.in_mailbox("bob", &overrun("g", Some("alice"), 0));
    let of_alice = Closed { group: group("g"), sender: Some(pool("alice")) };
    assert_eq!(closed(&post), [of_alice]);
    assert_eq!(keeps(&post, "alice", true, 1), KeepDecision::default());
    assert_eq!(keeps(&post, "alice/b", true, 1), KeepDecision::default(), "a device of the user");
    assert_eq!(keeps(&post, "carol", true, 1), kept());
    assert_eq!(keeps(&post, "alice", false, 1), kept());
    for event in [posted("alice"), posted("carol"), committed("alice", 1, &[], &[])] {
        post.in_group("g", &event);
    }
    assert_eq!(post.mail("bob"), "8 message carol, 9 commit alice");
    post.in_mailbox("bob", &acknowledged(8, Vec::new(), vec![group("g")]));
    assert_eq!(closed(&post), []);
    assert_eq!(keeps(&post, "alice", true, 1), kept());
}

#[test]
fn a_group_that_is_closed_keeps_nothing_until_the_device_was_told() {
    let mut post = accepted();
    post.in_group("g", &posted("alice"));
    post.in_mailbox("bob", &overrun("g", None, 0));
    assert_eq!(closed(&post), [Closed { group: group("g"), sender: None }]);
    for (sender, is_message) in [("alice", true), ("carol", true), ("alice", false)] {
        assert_eq!(keeps(&post, sender, is_message, 1), KeepDecision::default());
    }
    post.in_group("g", &posted("carol"));
    post.in_group("g", &committed("alice", 1, &[], &[]));
    assert_eq!(post.mail("bob"), "6 message alice", "the ones before stay");
    post.in_mailbox("bob", &acknowledged(0, Vec::new(), vec![group("g"), group("other")]));
    assert_eq!((closed(&post), post.mailbox("bob").groups().count()), (vec![], 1));
    post.in_group("g", &posted("carol"));
    assert_eq!(post.mail("bob"), "6 message alice, 11 message carol");
    // To be added again opens it too.
    post.in_mailbox("bob", &overrun("g", None, 0));
    post.in_mailbox("bob", &overrun("g", Some("alice"), 0));
    post.in_group("g", &committed("alice", 2, &["bob"], &["bob"]));
    assert_eq!(closed(&post), []);
}

#[test]
fn items_that_wait_too_long_are_dropped_group_by_group_but_no_answer() {
    let mut post = accepted();
    post.invite("h", "alice", &["bob"]);
    post.invite("own", "bob", &["carol"]);
    post.read("bob", &["g", "h"]);
    for (name, by) in [("g", "alice"), ("g", "carol"), ("h", "alice")] {
        post.in_group(name, &posted(by));
    }
    post.in_group("own", &answered("carol", "bob", InvitationAnswer::Joined));
    let last_of_g = post.position - 2;
    post.wait(LIMITS.age_max.saturating_sub(Duration::from_millis(1)));
    post.in_group("g", &posted("alice"));
    assert_eq!(keeps(&post, "alice", true, 1), closes(Some("alice")), "nothing is too old yet");
    post.wait(Duration::from_millis(1));
    let closing = vec![overrun("g", None, last_of_g), overrun("h", None, last_of_g + 1)];
    let decision = KeepDecision { closing: closing.clone(), ..KeepDecision::default() };
    assert_eq!(keeps(&post, "alice", true, 1), decision, "its own group is closed");
    let in_own = post.mailbox("bob").decide_keep(
        &group("own"),
        (&pool("carol"), true),
        1,
        post.now,
        &LIMITS,
    );
    assert_eq!(in_own, KeepDecision { kept: true, blocked: false, closing: closing.clone() });
    for event in &closing {
        post.in_mailbox("bob", event);
    }
    let (answer, message) = (last_of_g + 2, last_of_g + 3);
    assert_eq!(post.mail("bob"), format!("{answer} answer carol, {message} message alice"));
    // Nothing is dropped for the age of an answer.
    post.in_mailbox("bob", &acknowledged(0, Vec::new(), vec![group("g"), group("h")]));
    assert_eq!(keeps(&post, "carol", true, 50), kept());
}

#[test]
fn an_overrun_of_a_group_drops_its_items_up_to_a_position() {
    let mut post = accepted();
    post.in_group("g", &posted("alice"));
    post.in_group("g", &posted("carol"));
    post.in_mailbox("bob", &overrun("g", None, 6));
    assert_eq!(post.mail("bob"), "7 message carol");
    post.invite("h", "alice", &["bob"]);
    let through = post.position;
    post.in_mailbox("bob", &overrun("g", None, through));
    assert_eq!(post.mail("bob"), format!("{through} welcome"), "another group's item stays");
}

#[test]
fn the_overrun_of_a_whole_mailbox_ends_when_the_device_was_told() {
    let mut post = accepted();
    post.in_group("g", &posted("alice"));
    post.in_group("g", &posted("alice"));
    let whole = Event::Overrun { dropped_through: 6, group: None, sender: None };
    assert!(!post.mailbox("bob").is_overrun());
    post.in_mailbox("bob", &whole);
    assert_eq!(post.mail("bob"), "7 message alice");
    post.in_group("g", &posted("carol"));
    assert_eq!((post.mailbox("bob").is_overrun(), post.mailbox("bob").len()), (true, 1));
    assert_eq!(keeps(&post, "alice", true, 1), KeepDecision::default());
    post.in_mailbox("bob", &acknowledged(0, Vec::new(), Vec::new()));
    assert!(post.mailbox("bob").is_overrun(), "it was not told");
    let told = Event::Acknowledged {
        through: 0,
        overrun: true,
        accepted: Vec::new(),
        told: Vec::new(),
        available: Vec::new(),
    };
    post.in_mailbox("bob", &told);
    assert!(!post.mailbox("bob").is_overrun());
    assert_eq!(keeps(&post, "carol", true, 1), kept());
}

#[test]
fn a_message_of_a_blocked_user_is_not_kept_and_the_sender_is_not_told() {
    let mut post = accepted();
    post.in_pool("bob", &Event::UserBlocked { user: "alice".to_owned() });
    let blocked = KeepDecision { blocked: true, ..KeepDecision::default() };
    assert_eq!(keeps(&post, "alice", true, 1), blocked);
    assert_eq!(keeps(&post, "alice", false, 1), kept(), "a Commit is everybody's");
    assert_eq!(keeps(&post, "carol", true, 1), kept());
}

#[test]
fn mail_of_a_group_that_ended_is_delivered_if_the_group_was_accepted() {
    let mut post = accepted();
    post.in_group("g", &posted("alice"));
    post.in_group("g", &committed("alice", 1, &[], &["bob"]));
    assert_eq!(post.mail("bob"), "6 message alice, 7 commit alice");
    assert_eq!(post.mailbox("bob").groups().count(), 0);
    post.in_mailbox("bob", &acknowledged(6, Vec::new(), Vec::new()));
    assert_eq!(post.mail("bob"), "7 commit alice");
    post.read("bob", &[]);
    // Nothing is left of it: neither is it closed, nor could it be.
    assert_eq!(post.mailbox("bob").closed().count(), 0);
    // A group that was not accepted is dropped whole.
    post.invite("h", "alice", &["bob"]);
    post.in_group("h", &posted("alice"));
    assert_eq!(post.mailbox("bob").len(), 2);
    post.in_group("h", &committed("alice", 1, &[], &["bob"]));
    assert_eq!((post.mail("bob").as_str(), post.mailbox("bob").groups().count()), ("", 0));
    // And so is one that the device has left, but for the mail of other groups.
    post.invite("i", "alice", &["bob"]);
    post.invite("j", "alice", &["bob"]);
    post.in_group("i", &posted("alice"));
    let welcome = post.position - 1;
    post.in_group("i", &left("bob", LeaveCause::Left));
    assert_eq!(post.mail("bob"), format!("{welcome} welcome"));
}

#[test]
fn a_group_without_mail_is_forgotten_only_once_it_has_ended() {
    let mut post = accepted();
    let groups = |post: &Post| post.mailbox("bob").groups().count();
    for event in [posted("alice"), posted("carol")] {
        post.in_group("g", &event);
    }
    post.read("bob", &[]);
    assert_eq!(groups(&post), 1, "all is read");
    post.in_mailbox("bob", &overrun("g", Some("alice"), 0));
    post.in_mailbox("bob", &acknowledged(0, Vec::new(), vec![group("g")]));
    assert_eq!(groups(&post), 1, "nothing is closed");
    // Of a group that has ended the device is told as long as mail of it waits.
    for event in [posted("carol"), posted("carol"), committed("alice", 1, &[], &["bob"])] {
        post.in_group("g", &event);
    }
    post.in_mailbox("bob", &overrun("g", None, 0));
    let position = post.position;
    post.in_mailbox("bob", &acknowledged(position - 3, Vec::new(), Vec::new()));
    assert_eq!((post.mailbox("bob").len(), closed(&post).len(), groups(&post)), (2, 1, 0));
    post.in_mailbox("bob", &acknowledged(0, Vec::new(), vec![group("g")]));
    assert_eq!((post.mailbox("bob").len(), closed(&post).len()), (2, 0));
}

#[test]
fn a_mailbox_comes_back_as_it_was_packed() {
    let mut post = accepted();
    post.invite("h", "alice", &["bob"]);
    post.in_pool("bob", &Event::UserBlocked { user: "mallory".to_owned() });
    for (name, event) in [
        ("g", posted("alice")),
        ("g", committed("carol", 1, &[], &[])),
        ("h", posted("bob")),
        ("h", posted("alice")),
        ("g", committed("alice", 2, &[], &["bob"])),
    ] {
        post.in_group(name, &event);
    }
    post.in_mailbox("bob", &overrun("g", None, 0));
    post.in_mailbox("bob", &overrun("h", Some("alice"), 0));
    let mailbox = post.mailbox("bob");
    let mut packer = Packer::default();
    mailbox.pack(&mut packer);
    let bytes = packer.into_bytes();
    assert_eq!(MailboxState::unpack(&mut Unpacker::new(&bytes)), Some(mailbox));
    for end in 0..bytes.len() {
        assert_eq!(MailboxState::unpack(&mut Unpacker::new(&bytes[..end])), None, "{end}");
    }
}

/// Whether bob may be invited to group `new`.
fn may_invite(post: &Post, inviter: &str, is_contact: bool) -> Result<(), DeliveryRejection> {
    let (bob, inviter) = (pool("bob"), pool(inviter));
    post.mailbox("bob").decide_invitation(
        &bob,
        (&inviter, is_contact),
        &group("new"),
        post.now,
        &LIMITS,
    )
}

#[test]
fn so_many_groups_of_one_user_and_of_all_wait_to_be_accepted() {
    let mut post = Post::default();
    let full = || Err(DeliveryRejection::InvitationsFull(pool("bob")));
    post.invite("new", "alice", &["bob"]);
    post.invite("a1", "alice", &["bob"]);
    assert_eq!(may_invite(&post, "alice", false), Ok(()), "it takes the place of the first");
    post.wait(DAY);
    post.invite("a2", "alice/b", &["bob"]);
    assert_eq!(may_invite(&post, "alice", false), full());
    assert_eq!(may_invite(&post, "alice", true), full(), "and a contact has no more");
    assert_eq!(may_invite(&post, "carol", false), Ok(()));
    post.invite("c1", "carol", &["bob"]);
    post.invite("d1", "dave", &["bob"]);
    assert_eq!(may_invite(&post, "carol", false), full(), "four wait");
    assert_eq!(may_invite(&post, "carol", true), Ok(()), "strangers take no place of a contact");
    assert_eq!(may_invite(&post, "bob/phone", false), Ok(()), "nor of an own device");
    // A group whose time is over waits no more, and neither does one that has ended or is accepted.
    post.wait(LIMITS.invitation_age_max.saturating_sub(DAY));
    let ignored: Vec<_> = post.mailbox("bob").ignored(post.now, &LIMITS).cloned().collect();
    assert_eq!(ignored, [group("a1"), group("new")]);
    assert_eq!(
        [may_invite(&post, "alice", false), may_invite(&post, "carol", false)],
        [Ok(()), Ok(())]
    );
    post.invite("a3", "alice", &["bob"]);
    post.invite("e1", "erin", &["bob"]);
    assert_eq!(may_invite(&post, "alice", true), full());
    assert_eq!(may_invite(&post, "carol", false), full());
    post.in_mailbox("bob", &acknowledged(0, vec![group("a3")], Vec::new()));
    assert_eq!(may_invite(&post, "alice", true), Ok(()));
    post.in_pool("bob", &Event::UserBlocked { user: "alice".to_owned() });
    assert_eq!(may_invite(&post, "alice", true), Err(DeliveryRejection::Blocked(pool("bob"))));
}

#[test]
fn a_group_is_ignored_from_the_end_of_its_time_on() {
    let mut post = Post::default();
    post.invite("g", "alice", &["bob"]);
    let ignored = |post: &Post| post.mailbox("bob").has_ignored(&group("g"), post.now, &LIMITS);
    post.wait(LIMITS.invitation_age_max.saturating_sub(Duration::from_millis(1)));
    assert!(!ignored(&post));
    post.wait(Duration::from_millis(1));
    assert!(ignored(&post) && !post.mailbox("bob").has_ignored(&group("h"), post.now, &LIMITS));
    post.read("bob", &["g"]);
    assert!(!ignored(&post));
}

#[test]
fn an_acknowledgement_is_recorded_if_it_changes_the_mailbox() {
    let mut post = Post::default();
    post.invite("g", "alice", &["bob", "carol"]);
    post.invite("h", "alice", &["bob"]);
    let none = Acknowledgement::default;
    let decided = |post: &Post, asked: Acknowledgement| {
        post.mailbox("bob").decide_acknowledge(&asked, post.position)
    };
    let beyond = Acknowledgement { through: post.position + 1, ..none() };
    assert_eq!(decided(&post, beyond), Err(DeliveryRejection::NeverGiven(post.position + 1)));
    let at = |through| Acknowledgement { through, ..none() };
    assert_eq!(
        decided(&post, at(post.position)),
        Ok(Some(acknowledged(6, Vec::new(), Vec::new())))
    );
    assert_eq!(decided(&post, at(3)), Ok(Some(acknowledged(3, Vec::new(), Vec::new()))));
    assert_eq!(decided(&post, at(2)), Ok(None), "nothing waits there");
    // The groups that it accepts, each once; others are left out.
    let accepted = vec![group("h"), group("g"), group("g"), group("zoo")];
    let event = acknowledged(0, vec![group("g"), group("h")], Vec::new());
    assert_eq!(decided(&post, Acknowledgement { accepted, ..none() }), Ok(Some(event)));
    post.read("bob", &["g", "h"]);
    let accepted = vec![group("g")];
    assert_eq!(decided(&post, Acknowledgement { accepted, ..none() }), Ok(None), "it has been");
    // The groups that it was told of, if anything of them is closed.
    let told = || vec![group("g"), group("h")];
    let asks = || Acknowledgement { told: told(), overrun: true, ..none() };
    assert_eq!(decided(&post, asks()), Ok(None));
    for (event, is_told) in [(overrun("g", Some("alice"), 0), "g"), (overrun("h", None, 0), "h")] {
        let mut post = post.clone();
        post.in_mailbox("bob", &event);
        let event = acknowledged(0, Vec::new(), vec![group(is_told)]);
        assert_eq!(decided(&post, asks()), Ok(Some(event)));
    }
    let whole = Event::Overrun { dropped_through: 0, group: None, sender: None };
    post.in_mailbox("bob", &whole);
    let event = Event::Acknowledged {
        through: 0,
        overrun: true,
        accepted: Vec::new(),
        told: Vec::new(),
        available: Vec::new(),
    };
    assert_eq!(decided(&post, asks()), Ok(Some(event)));
    assert_eq!(decided(&post, none()), Ok(None), "it was not told");
}
