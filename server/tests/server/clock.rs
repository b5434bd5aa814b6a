//! A server whose machine shows a wrong time: nothing of it outlasts the mistake.

use std::time::Duration;

use keypool_ledger::Timestamp;
use keypool_server::{Server, Settings};
use serde_json::json;

use crate::harness::{Answer, Api, Device, NOW, Running, answer, local_settings};

const DAY: Duration = Duration::from_hours(24);
const SWEEP: Duration = Duration::from_millis(1);

/// Times that a machine shows by mistake, and the code that says so.
fn mistakes() -> [(Timestamp, &'static str); 3] {
    [
        (NOW.after(2 * DAY), "clock_leapt"),
        (NOW.after(3652 * DAY), "clock_leapt"),
        (Timestamp::from_secs(60), "clock_regressed"),
    ]
}

/// Alice holds one of Bob's three packages.
async fn alice_holds_one_of_bobs() -> (Running, Device, Device, Answer) {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start_with(|settings| settings.sweep_interval = SWEEP);
    let running = running.with(&[&alice, &bob], 3).await;
    let reserved = running.api.reserve(&alice, "bob").await.ok();
    (running, alice, bob, reserved)
}

/// Stops a server, and starts it again when its machine shows this time.
async fn restarted(running: Running, wall: Timestamp, accept_clock: bool) -> Running {
    let Running { server, clock, data, .. } = running;
    server.stop().await;
    clock.set(wall);
    let settings = local_settings(data.path());
    let settings = Settings { sweep_interval: SWEEP, accept_clock, ..settings };
    let server = Server::start(settings, clock.clone()).unwrap();
    let api = Api::new(server.url(), clock.clone());
    Running { server, clock, api, data }
}

async fn ready(api: &Api) -> Answer {
    answer(api.http.get(format!("{}/readyz", api.url))).await.unwrap()
}

/// Nothing is handed out, and readiness says why; meanwhile time is looked at many times.
async fn is_refused(api: &Api, alice: &Device, code: &str) {
    let refused = api.reserve(alice, "bob").await;
    assert_eq!((refused.status, refused.code()), (503, code), "{}", refused.body);
    for _ in 0..20 {
        let unready = ready(api).await;
        assert_eq!((unready.status, unready.code()), (503, code), "{}", unready.body);
    }
}

/// Nothing has lapsed or expired: the package that was held is spent, and another one is handed out.
async fn goes_on(api: &Api, [alice, bob]: [&Device; 2], reserved: &Answer) {
    assert_eq!(ready(api).await.status, 200);
    let spent = api.claim(alice, "/keypackages/spend", reserved).await.ok();
    assert_eq!(spent.body["late"], false);
    api.reserve(alice, "bob").await.ok();
    let status = api.get(bob, "/keypackages/status").await.ok().body;
    assert_eq!((&status["available"], &status["expired"]), (&json!(1), &json!(0)), "{status}");
}

#[actix_web::test]
async fn a_clock_that_is_wrong_for_a_while_leaves_nothing_behind() {
    for (mistake, code) in mistakes() {
        let (running, alice, bob, reserved) = alice_holds_one_of_bobs().await;
        running.clock.set(mistake);
        is_refused(&running.api, &alice, code).await;
        running.clock.set(NOW);
        goes_on(&running.api, [&alice, &bob], &reserved).await;
    }
}

#[actix_web::test]
async fn a_clock_that_is_wrong_at_a_start_leaves_nothing_behind() {
    for (mistake, code) in mistakes() {
        let (running, alice, bob, reserved) = alice_holds_one_of_bobs().await;
        let running = restarted(running, mistake, false).await;
        is_refused(&running.api, &alice, code).await;
        let running = restarted(running, NOW, false).await;
        goes_on(&running.api, [&alice, &bob], &reserved).await;
    }
}

#[actix_web::test]
async fn a_second_of_a_clock_that_is_59_minutes_ahead_refuses_nothing_afterwards() {
    let (running, alice, bob, reserved) = alice_holds_one_of_bobs().await;
    running.clock.set(NOW.after(Duration::from_mins(59)));
    is_refused(&running.api, &alice, "clock_leapt").await;
    running.clock.advance(Duration::from_secs(1));
    running.clock.set(NOW.after(Duration::from_secs(1)));
    goes_on(&running.api, [&alice, &bob], &reserved).await;
}

#[actix_web::test]
async fn after_days_without_a_server_three_devices_that_sign_requests_confirm_its_clock() {
    let (running, alice, _, _) = alice_holds_one_of_bobs().await;
    let others = ["carol", "dave"].map(Device::new);
    let running = running.with(&[&others[0], &others[1]], 0).await;
    let running = restarted(running, NOW.after(3 * DAY), false).await;
    is_refused(&running.api, &alice, "clock_leapt").await;
    for device in &others {
        assert_eq!(running.api.reserve(&alice, "bob").await.code(), "clock_leapt");
        running.api.get(device, "/keypackages/status").await.ok();
    }
    running.api.reserve(&alice, "bob").await.ok();
    assert_eq!(ready(&running.api).await.status, 200);
}

#[actix_web::test]
async fn the_operators_word_takes_a_log_back_whose_time_stands_years_ahead() {
    let (running, alice, bob, _) = alice_holds_one_of_bobs().await;
    // The mistake was believed, and an event of it is in the log.
    let running = restarted(running, NOW.after(3652 * DAY), true).await;
    running.api.post(&bob, "/keypackages/policy", json!({ "blocked": ["eve"] })).await.ok();
    let hour_later = NOW.after(Duration::from_hours(1));
    let running = restarted(running, hour_later, false).await;
    is_refused(&running.api, &alice, "clock_regressed").await;
    let running = restarted(running, hour_later, true).await;
    assert_eq!(ready(&running.api).await.status, 200);
    running.api.upload(&bob, &bob.packages(hour_later, 1)).await.ok();
    running.api.reserve(&alice, "bob").await.ok();
    // It stays so without the word.
    let running = restarted(running, hour_later, false).await;
    assert_eq!(ready(&running.api).await.status, 200);
}
