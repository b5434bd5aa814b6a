//! Repeating a request has no second effect, and many at once do not share a package.

use std::collections::HashSet;

use serde_json::json;
use uuid::Uuid;

use crate::harness::{Answer, Api, Device, Draft, GROUP, NOW, Running, answer, upload};

/// Sends requests at once, and waits for all answers.
async fn all_at_once(api: &Api, requests: Vec<(Device, Draft)>) -> Vec<Answer> {
    let send = |(device, draft): (Device, Draft)| {
        let api = api.clone();
        actix_rt::spawn(async move { api.send(&device, &draft).await })
    };
    let tasks: Vec<_> = requests.into_iter().map(send).collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    answers
}

fn reserve(id: Uuid) -> Draft {
    let body = json!({ "target_user": "bob", "group_id": GROUP, "reservation_id": id });
    Draft::post("/keypackages/reserve", &body)
}

async fn position(api: &Api, owner: &Device) -> u64 {
    api.get(owner, "/keypackages/status").await.ok().body["position"].as_u64().unwrap()
}

#[actix_web::test]
async fn sixty_four_inviters_on_thirty_two_packages() {
    let bob = Device::new("bob");
    let inviters: Vec<Device> = (0..64).map(|n| Device::new(&format!("inviter-{n}"))).collect();
    let devices: Vec<&Device> = inviters.iter().chain([&bob]).collect();
    let running = Running::start_with(|settings| settings.workers = Some(8));
    let running = running.with(&devices, 32).await;

    let requests = inviters.iter().map(|inviter| (inviter.clone(), reserve(Uuid::new_v4())));
    let answers = all_at_once(&running.api, requests.collect()).await;

    let (given, refused): (Vec<&Answer>, Vec<&Answer>) =
        answers.iter().partition(|answer| answer.status == 200);
    let refs: HashSet<&str> = given.iter().map(|answer| answer.text("keypackage_ref")).collect();
    assert_eq!((given.len(), refs.len(), refused.len()), (32, 32, 32));
    assert!(refused.iter().all(|answer| answer.code() == "pool_exhausted"));
}

#[actix_web::test]
async fn one_reservation_id_sent_sixteen_times_at_once_is_one_package() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start_with(|settings| settings.workers = Some(8));
    let running = running.with(&[&alice, &bob], 32).await;
    let id = Uuid::new_v4();
    let requests = (0..16).map(|_| (alice.clone(), reserve(id))).collect();

    let answers = all_at_once(&running.api, requests).await;

    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == answers[0].body));
    let status = running.api.get(&bob, "/keypackages/status").await.ok();
    assert_eq!((&status.body["reserved"], &status.body["available"]), (&json!(1), &json!(31)));
}

#[actix_web::test]
async fn the_same_request_gets_the_same_answer_for_ever() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 0).await;
    let api = &running.api;
    let uploading = Draft::post("/keypackages/upload", &upload(&bob.packages(NOW, 3)));
    let reserving = reserve(Uuid::new_v4());
    let uploaded = api.send(&bob, &uploading).await.ok();
    let reserved = api.send(&alice, &reserving).await.ok();
    let claim = |path| Draft::post(path, &crate::harness::claim(path, &reserved));
    let acts = [claim("/keypackages/renew"), claim("/keypackages/spend")];
    let mut acted = Vec::new();
    for act in &acts {
        acted.push(api.send(&alice, act).await.ok());
    }
    let revoking =
        Draft::post("/keypackages/revoke", &json!({ "all": true, "reason": "withdrawn" }));
    let revoked = api.send(&bob, &revoking).await.ok();
    let before = position(api, &bob).await;

    // Long after, when the reservation has lapsed and the packages have gone.
    for _ in 0..30 {
        running.clock.advance(std::time::Duration::from_mins(50));
        api.get(&alice, "/keypackages/status").await.ok();
        let body = json!({ "all": true, "reason": "withdrawn" });
        api.post(&bob, "/keypackages/revoke", body).await.ok();
    }
    assert_eq!(api.send(&bob, &uploading).await.body, uploaded.body);
    assert_eq!(api.send(&alice, &reserving).await.body, reserved.body);
    for (act, first) in acts.iter().zip(&acted) {
        assert_eq!(api.send(&alice, act).await.body, first.body);
    }
    assert_eq!(api.send(&bob, &revoking).await.body, revoked.body);
    assert_eq!(position(api, &bob).await, before);
}

#[actix_web::test]
async fn a_key_with_another_request_is_refused_whatever_differs() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 2).await;
    let api = &running.api;
    let first = reserve(Uuid::new_v4());
    let reserved = api.send(&alice, &first).await.ok();

    let other_body = reserve(Uuid::new_v4()).key(first.key);
    let release = crate::harness::claim("/keypackages/release", &reserved);
    let other_path = Draft::post("/keypackages/release", &release).key(first.key);
    for (device, draft) in [(&alice, other_body), (&alice, other_path), (&bob, first.clone())] {
        let answer = api.send(device, &draft).await;
        assert_eq!((answer.status, answer.code()), (409, "idempotency_mismatch"));
    }
    assert_eq!(api.send(&alice, &first).await.body, reserved.body);
}

#[actix_web::test]
async fn a_recorded_request_played_again_has_no_second_effect() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 4).await;
    let api = &running.api;
    let draft = reserve(Uuid::new_v4());
    let headers = draft.headers(&alice, api.authority(), NOW);
    let first = answer(api.with_headers(&draft, &headers)).await.unwrap().ok();
    let before = position(api, &bob).await;
    for _ in 0..3 {
        let replayed = answer(api.with_headers(&draft, &headers)).await.unwrap();
        assert_eq!(replayed.body, first.body);
    }
    assert_eq!(position(api, &bob).await, before);
}

#[actix_web::test]
async fn looking_changes_nothing() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 2).await;
    let api = &running.api;
    api.reserve(&alice, "bob").await.ok();
    running.clock.advance(std::time::Duration::from_secs(200));
    let before = position(api, &bob).await;
    let status = api.get(&bob, "/keypackages/status").await.ok();
    assert_eq!((&status.body["available"], &status.body["requeued"]), (&json!(2), &json!(1)));
    api.get(&bob, "/keypackages/events").await.ok();
    assert_eq!(position(api, &bob).await, before);
}
