//! The delivery over HTTP: a group is made, grows, talks, and everyone gets everything once, in order.

use std::{pin::Pin, task::Poll};

use data_encoding::BASE64;
use serde_json::json;
use uuid::Uuid;

use crate::{
    groups::{Group, mailbox},
    harness::{Answer, Device, Draft, NOW, Running},
};

/// Alice with a group in which Bob is, who was away.
async fn group_of_two() -> (Running, Group, Device, Device) {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 3).await;
    let group = Group::new(&running.api, "group-1");
    group.make(&alice).await.ok();
    let reply = group.add(&alice, 0, "bob").await.ok();
    assert_eq!(reply.body["epoch"], 1);
    (running, group, alice, bob)
}

#[actix_web::test]
async fn a_commit_spends_its_package_and_brings_its_welcome() {
    let (running, group, alice, bob) = group_of_two().await;
    let status = running.api.get(&bob, "/keypackages/status").await.ok();
    assert_eq!(
        (status.body["available"].clone(), status.body["spent"].clone()),
        (json!(2), json!(1))
    );
    group.say(&alice, "hello").await.ok();
    group.say(&bob, "hello yourself").await.ok();
    assert_eq!(mailbox(&running.api, &bob, "").await, ["welcome", "message: hello"]);
    assert_eq!(mailbox(&running.api, &alice, "").await, ["message: hello yourself"]);
}

#[actix_web::test]
async fn what_is_acknowledged_does_not_come_again_and_the_rest_does() {
    let (running, group, alice, bob) = group_of_two().await;
    for words in ["one", "two", "three"] {
        group.say(&alice, words).await.ok();
    }
    let first = running.api.get(&bob, "/mailbox?limit=2").await.ok();
    assert_eq!(first.body["more"], true);
    let through = first.body["items"][1]["position"].as_u64().unwrap();
    let after = format!("?after={through}");
    assert_eq!(mailbox(&running.api, &bob, &after).await, ["message: two", "message: three"]);
    let body = json!({ "through": through });
    let reply = running.api.post(&bob, "/mailbox/acknowledge", body).await.ok();
    assert_eq!(reply.body["waiting"], 2);
    assert_eq!(mailbox(&running.api, &bob, "").await, ["message: two", "message: three"]);
}

#[actix_web::test]
async fn a_device_that_waits_is_answered_when_something_comes() {
    let (running, group, alice, bob) = group_of_two().await;
    let welcome = running.api.get(&bob, "/mailbox").await.ok();
    let after = welcome.body["items"][0]["position"].as_u64().unwrap();
    let (api, waiter) = (running.api.clone(), bob.clone());
    let waits =
        actix_rt::spawn(
            async move { mailbox(&api, &waiter, &format!("?after={after}&wait=30")).await },
        );
    group.say(&alice, "at last").await.ok();
    assert_eq!(waits.await.unwrap(), ["message: at last"]);
}

#[actix_web::test]
async fn of_five_requests_that_wait_for_a_mailbox_the_oldest_is_told_to_come_again() {
    let bob = Device::new("bob");
    let running = Running::start().with(&[&bob], 0).await;
    let mut waiting = Vec::new();
    for _ in 0..5 {
        let (api, bob, draft) = (running.api.clone(), bob.clone(), Draft::get("/mailbox?wait=30"));
        waiting.push(actix_rt::spawn(async move { api.send(&bob, &draft).await }));
    }
    // One of them is answered although nothing comes; the others when the server stops.
    let displaced = futures_any(&mut waiting).await;
    assert_eq!((displaced.status, displaced.code()), (503, "busy"));
    running.server.stop().await;
    for waits in waiting {
        assert_eq!(waits.await.unwrap().status, 200);
    }
}

/// The answer of the first task that has one, which is taken out.
async fn futures_any(tasks: &mut Vec<actix_rt::task::JoinHandle<Answer>>) -> Answer {
    let (place, answer) = std::future::poll_fn(|cx| {
        for (place, task) in tasks.iter_mut().enumerate() {
            if let Poll::Ready(answer) = Pin::new(task).poll(cx) {
                return Poll::Ready((place, answer.unwrap()));
            }
        }
        Poll::Pending
    })
    .await;
    drop(tasks.remove(place));
    answer
}

#[actix_web::test]
async fn a_server_that_stops_keeps_nobody_waiting() {
    // Whether the request arrives before the server stops is a matter of luck: it is tried until it does.
    // Were it broken off instead of answered, no try would succeed.
    for _ in 0..8 {
        let (running, _, alice, bob) = group_of_two().await;
        let welcome = running.api.get(&bob, "/mailbox").await.ok();
        let after = welcome.body["items"][0]["position"].as_u64().unwrap();
        let (api, draft) =
            (running.api.clone(), Draft::get(&format!("/mailbox?after={after}&wait=30")));
        let waits = actix_rt::spawn(async move { api.try_send(&bob, &draft).await });
        for _ in 0..2 {
            running.api.get(&alice, "/keypackages/status").await.ok();
        }
        running.server.stop().await;
        if let Ok(answer) = waits.await.unwrap() {
            assert_eq!((answer.status, &answer.body["items"]), (200, &json!([])));
            return;
        }
    }
    panic!("who waited was never answered");
}

#[actix_web::test]
async fn refusals_say_what_to_do() {
    let (running, group, alice, bob) = group_of_two().await;
    let api = &running.api;
    let (mallory, carol) = (Device::new("mallory"), Device::new("carol"));
    api.register(&mallory).await.ok();
    api.register(&carol).await.ok();
    api.upload(&carol, &carol.packages(NOW, 2)).await.ok();
    let reserved = group.reserve(&alice, "carol").await.ok();
    let mut without_welcome = group.adding(1, &reserved);
    without_welcome["welcomes"] = json!([]);
    let mut no_welcome = group.adding(1, &reserved);
    no_welcome["welcomes"] = json!([BASE64.encode(b"hello")]);
    let member = group.reserve(&alice, "bob").await.ok();
    let nowhere = Group::new(api, "nowhere");
    let through = json!({ "through": 999 });
    let answers = [
        ("a group that exists", group.make(&bob).await),
        ("an epoch that is taken", group.commit(&bob, group.changing_nothing(0)).await),
        ("an epoch to come", group.commit(&bob, group.changing_nothing(7)).await),
        ("who is no member", group.say(&mallory, "psst").await),
        ("who is no member and invites", group.reserve(&mallory, "carol").await),
        ("no such group", nowhere.say(&alice, "hello").await),
        ("a Commit for no group", nowhere.commit(&alice, nowhere.changing_nothing(0)).await),
        ("a spend without its Welcome", group.commit(&alice, without_welcome).await),
        ("a Welcome that is none", group.commit(&alice, no_welcome).await),
        ("who is a member", group.commit(&alice, group.adding(1, &member)).await),
        ("bytes that are no message", group.post(&alice, "aGk=").await),
        ("what was never given", api.post(&bob, "/mailbox/acknowledge", through).await),
        ("a query that is none", api.get(&bob, "/mailbox?limit=abc").await),
        ("an id that is none", api.post(&bob, "/groups/%20/leave", json!({})).await),
    ];
    let told = answers.map(|(what, answer)| {
        let text = |name| answer.body[name].as_str().unwrap_or_default().to_owned();
        let (code, detail, hint) = (text("code"), text("detail"), text("hint"));
        format!("{what}: {} {code}\n  {detail}\n  {hint}", answer.status)
    });
    insta::assert_snapshot!(told.join("\n"), @r#"
    a group that exists: 409 group_exists
      group Z3JvdXAtMQ== exists already; draw another id at random
      Draw another group id at random.
    an epoch that is taken: 409 epoch_taken
      a Commit for epoch 0 was accepted already; group Z3JvdXAtMQ== is in epoch 1
      Take in what is in the mailbox, make the Commit anew in the group's epoch, and post that.
    an epoch to come: 400 bad_request
      group Z3JvdXAtMQ== is in epoch 1; a Commit for epoch 7 is too early
      Compare it with the API document at /openapi.json.
    who is no member: 403 not_allowed
      mallory/main is not a member of group Z3JvdXAtMQ==
      Ask as the device that owns the pool, holds the reservation, or is a member of the group.
    who is no member and invites: 403 not_a_member
      mallory/main is not a member of group Z3JvdXAtMQ==, which exists here
      Have a member invite; for a group of your own, draw another id at random.
    no such group: 404 unknown_group
      group bm93aGVyZQ== is not known here; make it with POST /groups
      Check the id; POST /groups makes a group.
    a Commit for no group: 404 unknown_group
      group bm93aGVyZQ== is not known here; make it with POST /groups
      Check the id; POST /groups makes a group.
    a spend without its Welcome: 400 bad_request
      the Welcomes are not for exactly the packages that are spent
      Compare it with the API document at /openapi.json.
    a Welcome that is none: 400 bad_request
      one of the welcomes is no Welcome
      Compare it with the API document at /openapi.json.
    who is a member: 400 bad_request
      bob/main is a member of the group already
      Compare it with the API document at /openapi.json.
    bytes that are no message: 400 invalid_message
      the bytes are not one MLSMessage with a PrivateMessage or PublicMessage
      Send an MLSMessage that holds a Commit, or application data or a proposal, for this group and epoch.
    what was never given: 400 bad_request
      position 999 was never given out
      Compare it with the API document at /openapi.json.
    a query that is none: 400 bad_request
      the query: invalid digit found in string
      Compare it with the API document at /openapi.json.
    an id that is none: 400 invalid_name
      group_id " " is not valid: in a path, the base64url of 1 to 255 bytes, without padding
      The detail says what a valid one looks like.
    "#);
}

#[actix_web::test]
async fn a_repeated_commit_gets_its_old_answer_and_the_group_goes_on_once() {
    let (running, group, alice, bob) = group_of_two().await;
    let carol = Device::new("carol");
    running.api.register(&carol).await.ok();
    running.api.upload(&carol, &[carol.package(NOW)]).await.ok();
    let reserved = group.reserve(&alice, "carol").await.ok();
    let body = group.adding(1, &reserved);
    let draft = Draft::post(&group.path("commits"), &body).key(Uuid::now_v7());
    let once = running.api.send(&alice, &draft).await.ok();
    let again = running.api.send(&alice, &draft).await.ok();
    assert_eq!(once.body, again.body);
    assert_eq!(mailbox(&running.api, &bob, "").await, ["welcome", "commit: commit 1"]);
    assert_eq!(mailbox(&running.api, &carol, "").await, ["welcome"]);
}

#[actix_web::test]
async fn whoever_leaves_a_group_gets_nothing_of_it_and_keeps_what_is_of_others() {
    let (running, group, alice, bob) = group_of_two().await;
    let other = Group::new(&running.api, "another group");
    other.make(&alice).await.ok();
    other.add(&alice, 0, "bob").await.ok();
    group.say(&alice, "before").await.ok();
    let left = group.leave(&bob).await.ok();
    assert_ne!(left.body["position"], 0);
    // Leaving twice is leaving once.
    assert_eq!(group.leave(&bob).await.ok().body["position"], 0);
    other.say(&alice, "elsewhere").await.ok();
    // Nobody is left to hear it, so nothing is stored.
    assert_eq!(group.say(&alice, "after").await.ok().body["position"], 0);
    let waiting = mailbox(&running.api, &bob, "").await;
    assert_eq!(waiting, ["welcome", "message: elsewhere"]);
    assert_eq!(group.say(&bob, "still here?").await.code(), "not_allowed");
}

#[actix_web::test]
async fn a_device_that_one_commit_removes_and_adds_again_is_a_member() {
    let (running, group, alice, bob) = group_of_two().await;
    let reserved = group.reserve(&alice, "bob").await.ok();
    let mut body = group.adding(1, &reserved);
    body["removed"] = json!(["bob/main"]);
    group.commit(&alice, body).await.ok();
    group.say(&alice, "once more").await.ok();
    let waiting = mailbox(&running.api, &bob, "").await;
    assert_eq!(waiting.last().map(String::as_str), Some("message: once more"), "{waiting:?}");
}
