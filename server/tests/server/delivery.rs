//! The delivery over HTTP: a group is made, grows, talks, and everyone gets everything once, in order.

use std::{pin::Pin, task::Poll};

use data_encoding::{BASE64, HEXLOWER};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Answer, Api, Device, Draft, Running};

/// The id of [`crate::harness::GROUP`], as it stands in a path.
const GROUP_PATH: &str = "Z3JvdXAtMQ";

fn commits() -> String {
    format!("/groups/{GROUP_PATH}/commits")
}

/// A Welcome for a package, as far as it says so in clear (RFC 9420 section 12.4.3.1).
pub(crate) fn welcome_for(keypackage_ref: &str) -> String {
    let reference = HEXLOWER.decode(keypackage_ref.as_bytes()).unwrap();
    let secrets = [vec![32], reference, vec![0, 0]].concat();
    let length = u8::try_from(secrets.len()).unwrap();
    BASE64.encode(&[vec![0, 1, 0, 3, 0, 1, length], secrets, vec![0]].concat())
}

/// A Commit that adds the owner of a reserved package.
fn adding(epoch: u64, reserved: &Answer) -> Value {
    json!({
        "epoch": epoch,
        "commit": BASE64.encode(format!("commit {epoch}").as_bytes()),
        "welcomes": [welcome_for(reserved.text("keypackage_ref"))],
        "spend": [{
            "keypackage_ref": reserved.body["keypackage_ref"],
            "reservation_id": reserved.body["reservation_id"],
        }],
    })
}

fn changing_nothing(epoch: u64) -> Value {
    json!({ "epoch": epoch, "commit": BASE64.encode(b"an update") })
}

async fn say(api: &Api, device: &Device, words: &str) -> Answer {
    let path = format!("/groups/{GROUP_PATH}/messages");
    api.post(device, &path, json!({ "message": BASE64.encode(words.as_bytes()) })).await
}

/// What waits for a device: what it is, and what it says if that is text.
async fn mailbox(api: &Api, device: &Device, query: &str) -> Vec<String> {
    let reply = api.get(device, &format!("/mailbox{query}")).await.ok();
    let told = |item: &Value| {
        let bytes = BASE64.decode(item["bytes"].as_str().unwrap().as_bytes()).unwrap();
        let kind = item["kind"].as_str().unwrap();
        match (kind, String::from_utf8(bytes)) {
            ("welcome", _) | (_, Err(_)) => kind.to_owned(),
            (_, Ok(text)) => format!("{kind}: {text}"),
        }
    };
    reply.body["items"].as_array().unwrap().iter().map(told).collect()
}

/// Alice with a group in which Bob is, who was away.
async fn group_of_two() -> (Running, Device, Device) {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 3).await;
    let reserved = running.api.reserve(&alice, "bob").await.ok();
    let reply = running.api.post(&alice, &commits(), adding(0, &reserved)).await.ok();
    assert_eq!(reply.body["epoch"], 1);
    (running, alice, bob)
}

#[actix_web::test]
async fn a_commit_spends_its_package_and_brings_its_welcome() {
    let (running, alice, bob) = group_of_two().await;
    let status = running.api.get(&bob, "/keypackages/status").await.ok();
    assert_eq!(
        (status.body["available"].clone(), status.body["spent"].clone()),
        (json!(2), json!(1))
    );
    say(&running.api, &alice, "hello").await.ok();
    say(&running.api, &bob, "hello yourself").await.ok();
    assert_eq!(mailbox(&running.api, &bob, "").await, ["welcome", "message: hello"]);
    assert_eq!(mailbox(&running.api, &alice, "").await, ["message: hello yourself"]);
}

#[actix_web::test]
async fn what_is_acknowledged_does_not_come_again_and_the_rest_does() {
    let (running, alice, bob) = group_of_two().await;
    for words in ["one", "two", "three"] {
        say(&running.api, &alice, words).await.ok();
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
    let (running, alice, bob) = group_of_two().await;
    let welcome = running.api.get(&bob, "/mailbox").await.ok();
    let after = welcome.body["items"][0]["position"].as_u64().unwrap();
    let (api, waiter) = (running.api.clone(), bob.clone());
    let waits =
        actix_rt::spawn(
            async move { mailbox(&api, &waiter, &format!("?after={after}&wait=30")).await },
        );
    say(&running.api, &alice, "at last").await.ok();
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
        let (running, alice, bob) = group_of_two().await;
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
    let (running, alice, bob) = group_of_two().await;
    let api = &running.api;
    let mallory = Device::new("mallory");
    api.register(&mallory).await.ok();
    let reserved = api.reserve(&alice, "bob").await.ok();
    let mut without_welcome = adding(1, &reserved);
    without_welcome["welcomes"] = json!([]);
    let mut no_welcome = adding(1, &reserved);
    no_welcome["welcomes"] = json!([BASE64.encode(b"hello")]);
    let elsewhere = "/groups/bm93aGVyZQ/messages";
    let answers = [
        ("an epoch that is taken", api.post(&bob, &commits(), changing_nothing(0)).await),
        ("an epoch to come", api.post(&bob, &commits(), changing_nothing(7)).await),
        ("who is no member", say(api, &mallory, "psst").await),
        ("no such group", api.post(&alice, elsewhere, json!({ "message": "aGk=" })).await),
        ("a spend without its Welcome", api.post(&alice, &commits(), without_welcome).await),
        ("a Welcome that is none", api.post(&alice, &commits(), no_welcome).await),
        (
            "what was never given",
            api.post(&bob, "/mailbox/acknowledge", json!({ "through": 999 })).await,
        ),
        ("a query that is none", api.get(&bob, "/mailbox?limit=abc").await),
        (
            "an id that is none",
            api.post(&bob, "/groups/%20/messages", json!({ "message": "aGk=" })).await,
        ),
    ];
    let told = answers.map(|(what, answer)| {
        let text = |name| answer.body[name].as_str().unwrap_or_default().to_owned();
        format!(
            "{what}: {} {}\n  {}\n  {}",
            answer.status,
            text("code"),
            text("detail"),
            text("hint")
        )
    });
    insta::assert_snapshot!(told.join("\n"), @r#"
    an epoch that is taken: 409 epoch_taken
      a Commit for epoch 0 was accepted already; group Z3JvdXAtMQ== is in epoch 1
      Take in what is in the mailbox, make the Commit anew in the group's epoch, and post that.
    an epoch to come: 400 bad_request
      group Z3JvdXAtMQ== is in epoch 1; a Commit for epoch 7 is too early
      Compare it with the API document at /openapi.json.
    who is no member: 403 not_allowed
      mallory/main is not a member of group Z3JvdXAtMQ==
      Ask as the device that owns the pool, holds the reservation, or is a member of the group.
    no such group: 404 unknown_group
      group bm93aGVyZQ== is not known here
      Check the id; a group's first Commit makes it known.
    a spend without its Welcome: 400 bad_request
      the Welcomes are not for exactly the packages that are spent
      Compare it with the API document at /openapi.json.
    a Welcome that is none: 400 bad_request
      one of the welcomes is no Welcome
      Compare it with the API document at /openapi.json.
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
    let (running, alice, bob) = group_of_two().await;
    let reserved = running.api.reserve(&alice, "bob").await.ok();
    // Bob is in the group already; his second package is another device's for all the delivery knows.
    let draft = Draft::post(&commits(), &adding(1, &reserved)).key(Uuid::now_v7());
    let once = running.api.send(&alice, &draft).await.ok();
    let again = running.api.send(&alice, &draft).await.ok();
    assert_eq!(once.body, again.body);
    let waiting = mailbox(&running.api, &bob, "").await;
    assert_eq!(waiting.iter().filter(|item| *item == "welcome").count(), 2);
}
