//! Invitations over HTTP, with the server killed in between: each has an answer, an inviter waits for a device
//! without packages, and a home can see where it stood.

use std::time::Duration;

use keypool_ledger::{Clock, SystemClock};
use keypool_projections::quota::{Quotas, Rate};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::{
    groups::{Group, mailbox},
    harness::{Answer, Api, Device, Draft, NOW, Process, Running},
    quotas::limited,
};

/// The real server, which has been killed and started again after each step that needs it.
struct Service {
    dir: TempDir,
    process: Process,
}

impl Service {
    async fn start(devices: &[&Device]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let process = Process::start(dir.path());
        for device in devices {
            process.api.register(device).await.ok();
        }
        Self { dir, process }
    }

    fn killed(self) -> Self {
        let Self { dir, process } = self;
        process.kill();
        let process = Process::start(dir.path());
        Self { dir, process }
    }

    fn api(&self) -> &Api {
        &self.process.api
    }

    fn group(&self) -> Group {
        Group::new(self.api(), "group-1")
    }

    async fn fill(&self, device: &Device) {
        self.api().upload(device, &device.packages(SystemClock.now(), 12)).await.ok();
    }
}

/// Says that a device could not join the group.
async fn fail(group: &Group, api: &Api, device: &Device, reason: &str) -> Answer {
    let failed = json!([{ "group_id": group.id(), "reason": reason }]);
    api.post(device, "/mailbox/acknowledge", json!({ "through": 0, "failed": failed })).await
}

async fn wait_for(api: &Api, by: &Device, users: &[&str]) -> Answer {
    let targets: Vec<Value> = users.iter().map(|user| json!({ "user": user })).collect();
    api.post(by, "/keypackages/await", json!({ "targets": targets })).await
}

/// The status of each device of an answer, with its code where there is one.
fn statuses(answer: &Answer) -> Vec<String> {
    let told = |device: &Value| {
        let text = |name: &str| device[name].as_str().unwrap_or_default().to_owned();
        [text("user"), text("device"), text("status"), text("code")].join(" ").trim().to_owned()
    };
    answer.body["devices"].as_array().unwrap().iter().map(told).collect()
}

#[actix_web::test]
async fn an_invitation_that_failed_is_told_and_made_again_in_one_commit() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let service = Service::start(&[&alice, &bob]).await;
    service.fill(&bob).await;
    service.group().make(&alice).await.ok();
    service.group().add(&alice, 0, "bob").await.ok();
    fail(&service.group(), service.api(), &bob, "keys_gone").await.ok();
    let service = service.killed();
    let told = service.api().get(&alice, "/mailbox").await.ok();
    let item = &told.body["items"][0];
    assert_eq!((&item["kind"], &item["sender"]), (&json!("answer"), &json!("bob/main")));
    assert_eq!(item["answer"], json!({ "outcome": "failed", "reason": "keys_gone" }));
    assert_eq!((&item["group_id"], &item["bytes"]), (&json!(service.group().id()), &json!("")));
    assert_eq!(mailbox(service.api(), &bob, "").await, [""; 0], "its membership has ended");
    let reserved = service.group().reserve(&alice, "bob").await.ok();
    let mut again = service.group().adding(1, &reserved);
    again["removed"] = json!(["bob/main"]);
    service.group().commit(&alice, again).await.ok();
    let service = service.killed();
    assert_eq!(mailbox(service.api(), &bob, "").await, ["welcome"]);
    service.group().accept(&bob).await.ok();
    let told = service.api().get(&alice, "/mailbox").await.ok();
    let outcomes: Vec<&Value> = told.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["answer"]["outcome"])
        .collect();
    assert_eq!(outcomes, [&json!("failed"), &json!("joined")]);
}

#[actix_web::test]
async fn nobody_answers_twice_for_another_or_what_was_not_asked() {
    let devices = ["alice", "bob", "mallory"].map(Device::new);
    let [alice, bob, mallory] = &devices;
    let running = Running::start().with(&[alice, mallory, bob], 1).await;
    let (api, group) = (&running.api, Group::new(&running.api, "group-1"));
    group.make(alice).await.ok();
    group.add(alice, 0, "bob").await.ok();
    // Mallory is no member and was never invited; Alice has made the group.
    for other in [mallory, alice] {
        group.accept(other).await.ok();
        fail(&group, api, other, "untrusted").await.ok();
    }
    assert_eq!(mailbox(api, alice, "").await, [""; 0]);
    group.accept(bob).await.ok();
    group.accept(bob).await.ok();
    fail(&group, api, bob, "expired").await.ok();
    assert_eq!(mailbox(api, alice, "").await, ["answer"]);
    group.say(bob, "still a member").await.ok();
    let both = json!({
        "through": 0,
        "accepted": [group.id()],
        "failed": [{ "group_id": group.id(), "reason": "expired" }],
    });
    let refused = api.post(bob, "/mailbox/acknowledge", both).await;
    assert_eq!((refused.status, refused.code()), (400, "bad_request"));
    let bored = fail(&group, api, bob, "bored").await;
    assert_eq!((bored.status, bored.code()), (400, "bad_request"));
}

#[actix_web::test]
async fn an_inviter_that_waits_is_told_when_a_package_arrives() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let service = Service::start(&[&alice, &bob]).await;
    let exhausted = service.api().reserve(&alice, "bob").await;
    assert_eq!(exhausted.code(), "pool_exhausted");
    let awaited = wait_for(service.api(), &alice, &["bob", "nobody"]).await.ok();
    assert_eq!(statuses(&awaited), ["bob main waiting", "nobody  refused unknown_user"]);
    let until = awaited.body["devices"][0]["until"].as_u64().unwrap();
    assert!(SystemClock.now().as_secs() + 13 * 86_400 < until);
    let service = service.killed();
    let (api, waiter) = (service.api().clone(), alice.clone());
    let waits = actix_rt::spawn(async move { api.get(&waiter, "/mailbox?wait=30").await.ok() });
    service.fill(&bob).await;
    assert_eq!(waits.await.unwrap().body["available"], json!(["bob/main"]));
    let service = service.killed();
    let again = wait_for(service.api(), &alice, &["bob"]).await.ok();
    assert_eq!(statuses(&again), ["bob main available"]);
    let told = json!({ "through": 0, "available": ["bob/main"] });
    service.api().post(&alice, "/mailbox/acknowledge", told).await.ok();
    let service = service.killed();
    let quiet = service.api().get(&alice, "/mailbox").await.ok();
    assert_eq!(quiet.body["available"], Value::Null);
    service.api().reserve(&alice, "bob").await.ok();
}

#[actix_web::test]
async fn a_request_to_wait_is_answered_alike_and_taken_back() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 0).await;
    let api = &running.api;
    let body = json!({ "targets": [{ "user": "bob", "device": "main" }] });
    let draft = Draft::post("/keypackages/await", &body).key(Uuid::now_v7());
    let once = api.send(&alice, &draft).await.ok();
    let again = api.send(&alice, &draft).await.ok();
    assert_eq!(once.body, again.body);
    let stop = json!({ "stop": ["bob/main"] });
    assert_eq!(statuses(&api.post(&alice, "/keypackages/await", stop).await.ok()), [""; 0]);
    api.upload(&bob, &[bob.package(NOW)]).await.ok();
    assert_eq!(api.get(&alice, "/mailbox").await.ok().body["available"], Value::Null);
    let nothing = api.post(&alice, "/keypackages/await", json!({ "targets": [] })).await;
    assert_eq!((nothing.status, nothing.code()), (400, "bad_request"));
    let many = vec!["bob"; 65];
    let many = wait_for(api, &alice, &many).await;
    assert_eq!((many.status, many.code()), (400, "bad_request"));
}

#[actix_web::test]
async fn an_inviter_waits_for_64_devices_and_no_more() {
    let alice = Device::new("alice");
    let others: Vec<Device> = (0..65).map(|n| Device::new(&format!("user{n}"))).collect();
    let running = Running::start().with(&[&alice], 0).await;
    for other in &others {
        running.api.register(other).await.ok();
    }
    let names: Vec<String> = (0..65).map(|n| format!("user{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    wait_for(&running.api, &alice, &names[..64]).await.ok();
    let full = wait_for(&running.api, &alice, &names[64..]).await;
    assert_eq!((full.status, full.code()), (409, "waiting_list_full"));
}

#[actix_web::test]
async fn a_stranger_learns_no_more_by_waiting_than_by_reserving() {
    let devices = ["alice", "mallory", "bob"].map(Device::new);
    let [alice, mallory, bob] = &devices;
    let running = Running::start().with(&[alice, mallory, bob], 0).await;
    let api = &running.api;
    api.post(bob, "/keypackages/policy", json!({ "blocked": ["mallory"] })).await.ok();
    let refused = ["bob main refused not_allowed"];
    assert_eq!(api.reserve(mallory, "bob").await.code(), "not_allowed");
    assert_eq!(statuses(&wait_for(api, mallory, &["bob"]).await.ok()), refused);
    // With a contact token alone, where contacts alone may reserve.
    api.post(bob, "/keypackages/policy", json!({ "reserve": "contacts" })).await.ok();
    assert_eq!(statuses(&wait_for(api, alice, &["bob"]).await.ok()), refused);
    let token = bob.introduces(api, NOW.after(Duration::from_hours(1))).await.to_string();
    let target = json!({ "user": "bob", "contact_token": token });
    let known = api.post(alice, "/keypackages/await", json!({ "targets": [target] })).await.ok();
    assert_eq!(statuses(&known), ["bob main waiting"]);
    api.upload(bob, &[bob.package(NOW)]).await.ok();
    assert_eq!(api.get(alice, "/mailbox").await.ok().body["available"], json!(["bob/main"]));
    assert_eq!(api.get(mallory, "/mailbox").await.ok().body["available"], Value::Null);
}

#[actix_web::test]
async fn to_wait_counts_as_to_reserve_does() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let twice = Rate::new(2, Duration::from_mins(30));
    let running = limited(&Quotas { requests: twice, ..Quotas::STANDARD });
    let running = running.with(&[&alice, &bob], 0).await;
    let api = &running.api;
    assert_eq!(statuses(&wait_for(api, &alice, &["bob"]).await.ok()), ["bob main waiting"]);
    assert_eq!(api.reserve(&alice, "bob").await.code(), "pool_exhausted");
    assert_eq!(api.reserve(&alice, "bob").await.code(), "rate_limited");
    let over = wait_for(api, &alice, &["bob"]).await.ok();
    assert_eq!(statuses(&over), ["bob main refused rate_limited"]);
    assert_ne!(over.body["devices"][0]["retry_after_s"], Value::Null);
}

#[actix_web::test]
async fn a_home_is_told_where_its_device_stood() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let service = Service::start(&[&alice, &bob]).await;
    service.fill(&bob).await;
    let stands = |reply: &Answer| {
        let number = |name: &str| reply.body[name].as_u64().unwrap();
        (number("acknowledged"), number("last_posted"))
    };
    let fresh = service.api().get(&bob, "/mailbox").await.ok();
    assert_eq!(stands(&fresh), (0, 0));
    let made = service.group().make(&alice).await.ok().body["position"].as_u64().unwrap();
    let after = service.api().get(&alice, "/mailbox").await.ok();
    assert_eq!(stands(&after), (0, made));
    service.group().add(&alice, 0, "bob").await.ok();
    let welcome = service.api().get(&bob, "/mailbox").await.ok();
    let through = welcome.body["items"][0]["position"].as_u64().unwrap();
    let body = json!({ "through": through, "accepted": [service.group().id()] });
    service.api().post(&bob, "/mailbox/acknowledge", body).await.ok();
    let said = service.group().say(&bob, "hello").await.ok().body["position"].as_u64().unwrap();
    let service = service.killed();
    let stood = service.api().get(&bob, "/mailbox").await.ok();
    assert_eq!(stands(&stood), (through, said));
}
