//! Each event of groups, mailboxes and pools reaches the states that it concerns, and no others.

use std::time::Duration;

use insta::assert_snapshot;
use keypool_ledger::{
    Event, InvitationAnswer, LeaveCause, ReservePolicy, SignatureKey, StreamId, SubjectId,
};
use keypool_projections::{Deliveries, DeliveryLimits};

use crate::{
    history::{at, envelope, group, package, pool},
    post::{Post, acknowledged, answered, committed, devices, left, posted, welcomed},
};

#[test]
fn the_standard_limits_are_those_that_the_documentation_names() {
    let (standard, day) = (DeliveryLimits::STANDARD, Duration::from_hours(24));
    assert_eq!((standard.group_messages_max, standard.group_bytes_max), (2_000, 16_777_216));
    assert_eq!((standard.invited_messages_max, standard.invited_bytes_max), (100, 65_536));
    assert_eq!((standard.welcome_bytes_max, standard.members_max), (262_144, 2_000));
    assert_eq!((standard.invitations_max, standard.invitations_of_user_max), (64, 8));
    assert_eq!((standard.invitation_age_max, standard.age_max), (day * 7, day * 30));
    assert_eq!((standard.awaited_max, standard.awaiters_max), (64, 1_024));
    assert_eq!(standard.await_age_max, day * 14);
}

#[test]
fn an_event_of_a_group_waits_for_the_other_members() {
    let mut post = Post::default();
    let events = [
        Event::GroupMade { creator: pool("alice") },
        committed("alice", 0, &["bob", "carol"], &[]),
        welcomed(&["bob", "carol"], Some("alice")),
        posted("alice"),
        answered("bob", "alice", InvitationAnswer::Joined),
        posted("bob"),
        committed("bob", 1, &["dave"], &[]),
        welcomed(&["dave"], Some("bob")),
        left("bob", LeaveCause::Left),
        answered("dave", "bob", InvitationAnswer::Joined),
        left("zoe", LeaveCause::Left),
        committed("dave", 2, &[], &["carol"]),
    ];
    let mut lines: Vec<String> = events.iter().map(|event| post.in_group("g", event)).collect();
    for device in ["alice", "bob", "carol", "dave"] {
        let mailbox = post.mailbox(device);
        let (groups, last) = (mailbox.groups().count(), mailbox.last_posted());
        let line = format!("{device}, in {groups}, last {last}: {}", post.mail(device));
        lines.push(line.trim_end().to_owned());
    }
    assert_snapshot!(lines.join("\n"), @"
    group_made: groups [g] told [alice] noted []
    committed: groups [g] told [bob carol] noted [alice]
    welcomed: groups [g] told [bob carol] noted []
    posted: groups [g] told [bob carol] noted [alice]
    invitation_answered: groups [g] told [alice] noted []
    posted: groups [g] told [alice carol] noted [bob]
    committed: groups [g] told [alice carol dave] noted [bob]
    welcomed: groups [g] told [dave] noted []
    left: groups [g] told [bob] noted []
    invitation_answered: groups [g] told [] noted []
    left: groups [g] told [] noted []
    committed: groups [g] told [alice carol] noted [dave]
    alice, in 1, last 4: 5 answer bob, 6 message bob, 7 commit bob, 12 commit dave
    bob, in 0, last 7:
    carol, in 0, last 0:
    dave, in 1, last 12: 8 welcome
    ");
    let members: Vec<String> = post.group("g").members().map(ToString::to_string).collect();
    assert_eq!(members, ["alice/main", "dave/main"]);
}

#[test]
fn a_device_accepts_what_its_user_and_groups_from_before_consent_bring() {
    let mut post = Post::default();
    post.invite("own", "alice", &["alice/laptop", "bob"]);
    // Without a maker: the group begins with its first Commit.
    post.in_group("old", &committed("alice", 0, &["bob"], &[]));
    post.invite("posted", "alice", &["bob"]);
    post.in_group("posted", &posted("bob"));
    post.wait(Duration::from_hours(24 * 30));
    let ignored = |device: &str| -> Vec<_> {
        post.mailbox(device).ignored(post.now, &DeliveryLimits::STANDARD).cloned().collect()
    };
    assert_eq!(ignored("alice"), []);
    assert_eq!(ignored("alice/laptop"), []);
    assert_eq!(ignored("bob"), [group("own")], "and so is a group that it has posted to");
}

#[test]
fn an_event_of_a_pool_reaches_its_mailbox_and_those_who_wait_for_it() {
    let mut post = Post::default();
    let (facts, user) = (package("a").facts, || "alice".to_owned());
    let uploaded = Event::Uploaded(facts);
    let awaited = |strangers: &[&str]| Event::Awaited {
        targets: devices(&["bob"]),
        as_stranger: devices(strangers),
        until: at(100),
    };
    let key = SignatureKey::new(&[1; 32]).unwrap();
    let rotated =
        Event::KeyRotated { signature_key: key, credential: "bob".to_owned(), statement: None };
    let mut lines = vec![post.in_pool("bob", &uploaded), post.in_pool("bob", &rotated)];
    for policy in [ReservePolicy::Open, ReservePolicy::Contacts] {
        lines.push(post.in_mailbox("alice", &awaited(&["bob"])));
        lines.push(post.in_mailbox("carol", &awaited(&[])));
        lines.push(post.in_pool("bob", &Event::PolicySet { reserve: policy }));
    }
    lines.push(post.in_pool("bob", &uploaded));
    for device in ["alice", "alice/b", "carol"] {
        lines.push(post.in_mailbox(device, &awaited(&[])));
    }
    lines.push(post.in_mailbox("carol", &Event::AwaitStopped { targets: devices(&["bob"]) }));
    lines.push(post.in_pool("bob", &Event::UserBlocked { user: user() }));
    lines.push(post.in_pool("bob", &uploaded));
    lines.push(post.in_pool("bob", &Event::UserUnblocked { user: user() }));
    lines.push(post.take(&StreamId::Server, &uploaded, 0));
    lines.push(post.take(&StreamId::Names(SubjectId::from_bytes([1; 16])), &uploaded, 0));
    assert_snapshot!(lines.join("\n"), @"
    uploaded: groups [] told [] noted []
    key_rotated: groups [] told [bob] noted []
    awaited: groups [] told [alice] noted [bob]
    awaited: groups [] told [carol] noted [bob]
    policy_set: groups [] told [] noted []
    awaited: groups [] told [alice] noted [bob]
    awaited: groups [] told [carol] noted [bob]
    policy_set: groups [] told [] noted [alice bob]
    uploaded: groups [] told [carol] noted [bob]
    awaited: groups [] told [alice] noted [bob]
    awaited: groups [] told [alice/b] noted [bob]
    awaited: groups [] told [carol] noted [bob]
    await_stopped: groups [] told [carol] noted [bob]
    user_blocked: groups [] told [bob] noted [alice/b alice bob]
    uploaded: groups [] told [] noted []
    user_unblocked: groups [] told [bob] noted []
    uploaded: groups [] told [] noted []
    uploaded: groups [] told [] noted []
    ");
}

#[test]
fn a_device_that_is_removed_leaves_its_groups_and_its_waiting_list() {
    let mut post = Post::default();
    post.invite("g", "alice", &["bob"]);
    post.invite("h", "bob", &["carol"]);
    post.in_group("g", &posted("alice"));
    let awaited = |targets: &[&str]| Event::Awaited {
        targets: devices(targets),
        as_stranger: Vec::new(),
        until: at(100),
    };
    post.in_mailbox("alice", &awaited(&["bob"]));
    post.in_mailbox("bob", &awaited(&["dave"]));
    let version = post.mailbox("bob").version();
    let removed = Event::DeviceRemoved { by_operator: false };
    let mut lines = vec![post.in_pool("bob", &removed)];
    lines.push(post.in_pool("zoe", &removed));
    // Nobody waits for it, and it waits for nobody, whatever arrives now.
    lines.extend(["bob", "dave"].map(|of| post.in_pool(of, &Event::Uploaded(package("a").facts))));
    lines.push(post.in_group("g", &posted("alice")));
    assert_snapshot!(lines.join("\n"), @"
    device_removed: groups [g h] told [bob] noted [alice bob dave]
    device_removed: groups [] told [zoe] noted [zoe]
    uploaded: groups [] told [] noted []
    uploaded: groups [] told [] noted []
    posted: groups [g] told [] noted [alice]
    ");
    let mailbox = post.mailbox("bob");
    assert_eq!((mailbox.version(), mailbox.len(), mailbox.groups().count()), (version, 0, 0));
    assert_eq!((version, mailbox.is_empty(), mailbox.last_posted()), (1, true, 0));
    assert!(!post.group("g").has_member(&pool("bob")));
    assert!(!post.group("h").has_member(&pool("bob")));
    // The answer to an invitation that a removed device has made is told to nobody.
    let joined = answered("carol", "bob", InvitationAnswer::Joined);
    assert_eq!(post.in_group("h", &joined), "invitation_answered: groups [h] told [] noted []");
}

#[test]
fn messages_and_answers_of_a_blocked_user_do_not_arrive_and_commits_do() {
    let mut post = Post::default();
    post.invite("g", "bob", &["alice", "carol"]);
    post.in_pool("bob", &Event::UserBlocked { user: "alice".to_owned() });
    let events = [
        posted("alice"),
        posted("carol"),
        committed("alice", 1, &[], &[]),
        answered("alice", "bob", InvitationAnswer::Joined),
        answered("carol", "bob", InvitationAnswer::Joined),
    ];
    for event in &events {
        post.in_group("g", event);
    }
    assert_eq!(post.mail("bob"), "6 message carol, 7 commit alice, 9 answer carol");
    post.in_pool("bob", &Event::UserUnblocked { user: "alice".to_owned() });
    post.in_group("g", &posted("alice"));
    assert!(post.mail("bob").ends_with("11 message alice"));
}

#[test]
fn a_record_of_the_log_is_taken_with_its_position_time_and_size() {
    let mut states: Deliveries = Deliveries::default();
    let events = [
        Event::GroupMade { creator: pool("alice") },
        committed("alice", 0, &["bob"], &[]),
        posted("alice"),
    ];
    for (seq, event) in (5..).zip(events) {
        let mut envelope = envelope(seq, pool("alice"), event, at(seq));
        envelope.stream = StreamId::Group(group("g"));
        assert_eq!(states.evolve(seq, &envelope, 77).groups, [group("g")]);
    }
    let bob = &states.mailboxes[&pool("bob")];
    let items: Vec<_> = bob.after(0).map(|item| (item.position, item.at, item.bytes)).collect();
    assert_eq!(items, [(7, at(7), 77)]);
}

#[test]
fn the_mail_after_a_position_begins_behind_it() {
    let mut post = Post::default();
    post.invite("g", "alice", &["bob"]);
    post.in_group("g", &posted("alice"));
    post.in_group("h", &Event::GroupMade { creator: pool("alice") });
    post.in_group("g", &posted("alice"));
    let mailbox = post.mailbox("bob");
    assert_eq!((mailbox.len(), mailbox.is_empty(), mailbox.acknowledged()), (3, false, 0));
    let after = |position| mailbox.after(position).map(|item| item.position).collect::<Vec<_>>();
    assert_eq!([after(0), after(2), after(3)], [vec![3, 4, 6], vec![3, 4, 6], vec![4, 6]]);
    assert_eq!([after(4), after(5), after(6)], [vec![6], vec![6], vec![]]);
    post.in_mailbox("bob", &acknowledged(4, Vec::new(), Vec::new()));
    post.in_mailbox("bob", &acknowledged(3, Vec::new(), Vec::new()));
    let mailbox = post.mailbox("bob");
    assert_eq!((post.mail("bob").as_str(), mailbox.acknowledged()), ("6 message alice", 4));
    assert_eq!(mailbox.version(), 2);
}
