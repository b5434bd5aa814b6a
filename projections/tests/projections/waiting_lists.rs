//! Waiting lists: the users who wait for packages of a pool, how long they wait, and when they are told.

use std::time::Duration;

use keypool_ledger::{Event, PoolId, Timestamp};
use keypool_projections::{Acknowledgement, AwaitTarget, DeliveryLimits, DeliveryRejection};

use crate::{
    history::{package, pool},
    post::{Post, devices, short},
};

const LIMITS: DeliveryLimits =
    DeliveryLimits { awaited_max: 3, awaiters_max: 2, ..DeliveryLimits::STANDARD };

fn targets(names: &[&str]) -> Vec<AwaitTarget> {
    let target = |name: &&str| AwaitTarget { device: pool(name), is_stranger: false };
    names.iter().map(target).collect()
}

/// The events by which alice waits for some devices, and no more for others.
fn decides(post: &Post, wait: &[&str], stop: &[&str]) -> Result<Vec<Event>, DeliveryRejection> {
    post.mailbox("alice").decide_await(&targets(wait), &devices(stop), post.now, &LIMITS)
}

fn awaited(post: &Post, names: &[&str]) -> Event {
    let until = post.now.after(LIMITS.await_age_max);
    Event::Awaited { targets: devices(names), as_stranger: Vec::new(), until }
}

fn stopped(names: &[&str]) -> Event {
    Event::AwaitStopped { targets: devices(names) }
}

/// Alice waits for some devices.
fn wait(post: &mut Post, names: &[&str]) {
    for event in decides(post, names, &[]).unwrap() {
        post.in_mailbox("alice", &event);
    }
}

fn upload(post: &mut Post, device: &str) -> String {
    post.in_pool(device, &Event::Uploaded(package("a").facts))
}

fn available(post: &Post) -> Vec<String> {
    post.mailbox("alice").available().map(short).collect()
}

fn awaits(post: &Post, device: &str) -> Option<Timestamp> {
    post.mailbox("alice").awaits(&pool(device), post.now)
}

#[test]
fn a_device_waits_once_for_each_and_for_so_many_in_all() {
    let mut post = Post::default();
    let strangers =
        [AwaitTarget { device: pool("bob"), is_stranger: true }, targets(&["carol"])[0].clone()];
    let event = Event::Awaited {
        targets: devices(&["bob", "carol"]),
        as_stranger: devices(&["bob"]),
        until: post.now.after(LIMITS.await_age_max),
    };
    let decided = post.mailbox("alice").decide_await(&strangers, &[], post.now, &LIMITS);
    assert_eq!(decided, Ok(vec![event]));
    assert_eq!(decides(&post, &["bob", "bob"], &[]), Ok(vec![awaited(&post, &["bob"])]));
    assert_eq!(decides(&post, &[], &["bob"]), Ok(vec![]), "it does not wait for bob");
    wait(&mut post, &["bob", "carol"]);
    assert_eq!(awaits(&post, "bob"), Some(post.now.after(LIMITS.await_age_max)));
    assert_eq!(decides(&post, &["bob"], &[]), Ok(vec![]), "it waits for bob already");
    let full = Err(DeliveryRejection::WaitingListFull(3));
    assert_eq!(decides(&post, &["bob", "dave"], &[]), Ok(vec![awaited(&post, &["dave"])]));
    assert_eq!(decides(&post, &["dave", "erin"], &[]), full);
    let both = vec![stopped(&["bob"]), awaited(&post, &["dave", "erin"])];
    assert_eq!(decides(&post, &["dave", "erin"], &["bob", "zoe"]), Ok(both));
    let anew = vec![stopped(&["bob"]), awaited(&post, &["bob"])];
    assert_eq!(decides(&post, &["bob"], &["bob"]), Ok(anew));
    // A device of which it was not told yet has its place too, and can be waited for again.
    upload(&mut post, "bob");
    assert_eq!((available(&post), awaits(&post, "bob")), (vec!["bob".to_owned()], None));
    assert_eq!(decides(&post, &["dave", "erin"], &[]), full);
    assert_eq!(decides(&post, &[], &["bob"]), Ok(vec![stopped(&["bob"])]));
    wait(&mut post, &["bob"]);
    assert_eq!(available(&post), Vec::<String>::new());
    assert!(awaits(&post, "bob").is_some());
}

#[test]
fn an_entry_is_over_at_its_end_and_frees_its_place() {
    let mut post = Post::default();
    wait(&mut post, &["bob", "carol"]);
    post.wait(Duration::from_hours(1));
    wait(&mut post, &["dave"]);
    post.wait(
        LIMITS.await_age_max.saturating_sub(Duration::from_hours(1) + Duration::from_millis(1)),
    );
    assert!(awaits(&post, "bob").is_some());
    let full = Err(DeliveryRejection::WaitingListFull(3));
    assert_eq!(decides(&post, &["erin"], &[]), full);
    let before = post.clone();
    post.wait(Duration::from_millis(1));
    assert_eq!((awaits(&post, "bob"), awaits(&post, "dave").is_some()), (None, true));
    assert_eq!(decides(&post, &["bob", "erin"], &[]), Ok(vec![awaited(&post, &["bob", "erin"])]));
    let event = awaited(&post, &["erin"]);
    let told = post.in_mailbox("alice", &event);
    assert_eq!(told, "awaited: groups [] told [alice] noted [bob carol erin]", "two are over");
    assert_eq!(decides(&post, &["zoe"], &[]), Ok(vec![awaited(&post, &["zoe"])]));
    // A device that waited too long is not told.
    assert_eq!(upload(&mut post, "bob"), "uploaded: groups [] told [] noted []");
    for (mut post, is_told) in [(before.clone(), true), (before, false)] {
        post.wait(Duration::from_millis(u64::from(!is_told)));
        upload(&mut post, "bob");
        assert_eq!(!available(&post).is_empty(), is_told);
    }
}

#[test]
fn those_who_wait_are_told_once_of_an_upload_until_they_say_so() {
    let mut post = Post::default();
    wait(&mut post, &["bob", "carol"]);
    assert_eq!(upload(&mut post, "bob"), "uploaded: groups [] told [alice] noted [bob]");
    assert_eq!(upload(&mut post, "bob"), "uploaded: groups [] told [] noted []");
    assert_eq!(upload(&mut post, "zoe"), "uploaded: groups [] told [] noted []");
    let asked = |names: &[&str]| Acknowledgement {
        available: devices(names),
        ..Acknowledgement::default()
    };
    let decided = |post: &Post, names: &[&str]| {
        post.mailbox("alice").decide_acknowledge(&asked(names), post.position).unwrap()
    };
    assert_eq!(decided(&post, &["carol"]), None, "carol has uploaded nothing");
    let event = decided(&post, &["bob", "bob", "carol"]).unwrap();
    let expected = Event::Acknowledged {
        through: 0,
        overrun: false,
        accepted: Vec::new(),
        told: Vec::new(),
        available: devices(&["bob"]),
    };
    assert_eq!(event, expected);
    assert_eq!(available(&post), ["bob"]);
    post.in_mailbox("alice", &event);
    assert_eq!(available(&post), Vec::<String>::new());
}

#[test]
fn a_wait_that_is_stopped_ends_in_both_mailboxes() {
    let mut post = Post::default();
    wait(&mut post, &["bob", "carol"]);
    upload(&mut post, "carol");
    let told = post.in_mailbox("alice", &stopped(&["bob", "carol"]));
    assert_eq!(told, "await_stopped: groups [] told [alice] noted [bob carol]");
    assert_eq!((awaits(&post, "bob"), available(&post).len()), (None, 0));
    assert_eq!(upload(&mut post, "bob"), "uploaded: groups [] told [] noted []");
}

#[test]
fn so_many_strangers_may_wait_for_one_device() {
    let mut post = Post::default();
    let wait = |post: &mut Post, by: &str, as_stranger: &[&str], hours: u64| {
        let until = post.now.after(Duration::from_hours(hours));
        let as_stranger: Vec<PoolId> = devices(as_stranger);
        let event = Event::Awaited { targets: devices(&["bob"]), as_stranger, until };
        post.in_mailbox(by, &event);
    };
    let is_full = |post: &Post| post.mailbox("bob").has_many_awaiters(post.now, &LIMITS);
    wait(&mut post, "friend", &[], 5);
    wait(&mut post, "s1", &["bob"], 1);
    assert!(!is_full(&post));
    wait(&mut post, "s2", &["bob"], 2);
    assert!(is_full(&post));
    post.wait(Duration::from_hours(1) - Duration::from_millis(1));
    assert!(is_full(&post));
    post.wait(Duration::from_millis(1));
    assert!(!is_full(&post), "one has waited long enough");
    wait(&mut post, "s3", &["bob"], 1);
    assert!(is_full(&post));
    wait(&mut post, "s3", &[], 1);
    assert!(!is_full(&post), "it is a stranger no more");
}
