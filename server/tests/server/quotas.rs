//! The rate limits of inviters and owners, through the real server.

use std::{
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use keypool_ledger::{Clock, ManualClock};
use keypool_projections::quota::{Quotas, Rate};
use keypool_server::{Server, Settings};
use serde_json::json;
use uuid::Uuid;

use crate::{
    groups::{APPLICATION, Group},
    harness::{
        Answer, Api, Device, Draft, GROUP, NOW, Process, Running, answer, command, local_settings,
        upload,
    },
};

/// A server with limits, and nothing kept for contacts.
pub(crate) fn limited(quotas: &Quotas) -> Running {
    Running::start_with(|settings| settings.quotas = Some(*quotas))
}

#[track_caller]
pub(crate) fn refused(answer: &Answer, code: &str) -> Duration {
    assert_eq!((answer.status, answer.code()), (429, code), "{}", answer.body);
    let wait = answer.body["retry_after_s"].as_u64().unwrap();
    assert_eq!(answer.header("retry-after"), wait.to_string());
    assert!(1 <= wait && answer.body["retryable"] == true, "{}", answer.body);
    Duration::from_secs(wait)
}

async fn reserve_and_spend(api: &Api, by: &Device, user: &str) -> Answer {
    let reserved = api.reserve(by, user).await;
    if reserved.status == 200 {
        api.claim(by, "/keypackages/spend", &reserved).await.ok();
    }
    reserved
}

#[actix_web::test]
async fn an_inviter_has_six_packages_of_a_pool_and_one_more_each_ten_minutes() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = limited(&Quotas::STANDARD).with(&[&alice, &bob], 20).await;
    let api = &running.api;
    for _ in 0..6 {
        reserve_and_spend(api, &alice, "bob").await.ok();
    }
    let wait = refused(&api.reserve(&alice, "bob").await, "rate_limited");
    assert_eq!(wait, Duration::from_mins(10));
    running.clock.advance(Duration::from_secs(10 * 60 - 1));
    assert_eq!(refused(&api.reserve(&alice, "bob").await, "rate_limited").as_secs(), 1);
    running.clock.advance(Duration::from_secs(1));
    reserve_and_spend(api, &alice, "bob").await.ok();
    refused(&api.reserve(&alice, "bob").await, "rate_limited");

    let metrics = answer(api.http.get(format!("{}/metrics", running.admin_url()))).await.unwrap();
    let metrics = String::from_utf8(metrics.bytes).unwrap();
    assert!(metrics.contains("keypool_quota_refusals_total{quota=\"pair\"} 3"), "{metrics}");
    assert!(!metrics.contains("alice"));
}

#[actix_web::test]
async fn an_inviter_holds_two_reservations_of_a_pool_until_one_has_ended() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running =
        limited(&Quotas { pair: Rate::new(20, Duration::from_mins(1)), ..Quotas::STANDARD })
            .with(&[&alice, &bob], 20)
            .await;
    let api = &running.api;
    let first = api.reserve(&alice, "bob").await.ok();
    running.clock.advance(Duration::from_secs(30));
    api.reserve(&alice, "bob").await.ok();
    // The first lapses when its minute and a minute of grace are over.
    let wait = refused(&api.reserve(&alice, "bob").await, "too_many_reservations");
    assert_eq!(wait, Duration::from_secs(90));
    api.claim(&alice, "/keypackages/renew", &first).await.ok();
    let wait = refused(&api.reserve(&alice, "bob").await, "too_many_reservations");
    assert_eq!(wait, Duration::from_mins(2));
    running.clock.advance(wait);
    let third = api.reserve(&alice, "bob").await.ok();
    for path in ["/keypackages/release", "/keypackages/report", "/keypackages/spend"] {
        let other = api.reserve(&alice, "bob").await.ok();
        refused(&api.reserve(&alice, "bob").await, "too_many_reservations");
        api.claim(&alice, path, &other).await.ok();
    }
    api.claim(&alice, "/keypackages/spend", &third).await.ok();
}

#[actix_web::test]
async fn of_many_requests_at_once_no_more_pass_than_may() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = limited(&Quotas::STANDARD).with(&[&alice, &bob], 20).await;
    let ask = |_| {
        let (api, alice) = (running.api.clone(), alice.clone());
        actix_rt::spawn(async move { api.reserve(&alice, "bob").await.status })
    };
    let asked: Vec<_> = (0..16).map(ask).collect();
    let mut passed = 0;
    for one in asked {
        passed += usize::from(one.await.unwrap() == 200);
    }
    assert_eq!(passed, 2);
}

#[actix_web::test]
async fn a_repeated_request_is_answered_over_the_limit_and_not_counted_twice() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let quotas = Quotas { pair: Rate::new(3, Duration::from_mins(10)), ..Quotas::STANDARD };
    let running = limited(&quotas).with(&[&alice, &bob], 20).await;
    let api = &running.api;
    let (id, body) = (
        Uuid::new_v4(),
        |id: Uuid| json!({ "target_user": "bob", "group_id": GROUP, "reservation_id": id }),
    );
    let draft = Draft::post("/keypackages/reserve", &body(id));
    let first = api.send(&alice, &draft).await.ok();
    for _ in 0..5 {
        assert_eq!(api.send(&alice, &draft).await.ok().body, first.body);
        assert_eq!(api.reserve_as(&alice, "bob", id).await.ok().body, first.body);
    }
    api.reserve(&alice, "bob").await.ok();
    refused(&api.reserve(&alice, "bob").await, "too_many_reservations");
    assert_eq!(api.send(&alice, &draft).await.ok().body, first.body);
    assert_eq!(api.reserve_as(&alice, "bob", id).await.ok().body, first.body);
    api.claim(&alice, "/keypackages/spend", &first).await.ok();
    reserve_and_spend(api, &alice, "bob").await.ok();
    refused(&api.reserve(&alice, "bob").await, "rate_limited");
    assert_eq!(api.send(&alice, &draft).await.ok().body, first.body);
}

#[actix_web::test]
async fn what_is_refused_otherwise_is_given_back() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = limited(&Quotas::STANDARD).with(&[&alice, &bob], 0).await;
    let api = &running.api;
    for _ in 0..20 {
        assert_eq!(api.reserve(&alice, "bob").await.code(), "pool_exhausted");
    }
    api.upload(&bob, &bob.packages(NOW, 2)).await.ok();
    reserve_and_spend(api, &alice, "bob").await.ok();
}

#[actix_web::test]
async fn a_device_over_the_limit_is_named_missing_and_the_others_are_reserved() {
    let (alice, bob, carol) = (Device::new("alice"), Device::new("bob"), Device::new("carol"));
    let quotas = Quotas { held_max: 3, ..Quotas::STANDARD };
    let running = limited(&quotas).with(&[&alice, &carol, &bob], 10).await;
    let api = &running.api;
    api.upload(&carol, &carol.packages(NOW, 10)).await.ok();
    for _ in 0..2 {
        api.reserve(&alice, "bob").await.ok();
    }
    let both = |group: &str| {
        let targets = json!([{ "user": "bob" }, { "user": "carol" }]);
        let id = Uuid::new_v4();
        json!({ "group_id": group, "reservation_id": id, "targets": targets })
    };
    let request = Draft::post("/keypackages/reserve-many", &both(GROUP));
    let many = api.send(&alice, &request).await.ok();
    assert_eq!(many.body["reservations"][0]["user"], "carol");
    let missing = json!([{
        "user": "bob", "device": "main", "code": "too_many_reservations", "retry_after_s": 120
    }]);
    assert_eq!(many.body["missing"], missing);
    // All three are held now; what was answered is answered again.
    let again = api.post(&alice, "/keypackages/reserve-many", both(GROUP)).await.ok();
    assert_eq!(again.body["missing"].as_array().unwrap().len(), 2);
    assert_eq!(api.send(&alice, &request).await.ok().body, many.body);
}

#[actix_web::test]
async fn a_commit_that_spends_its_packages_makes_room_for_others() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = limited(&Quotas { pair_held_max: 1, ..Quotas::STANDARD });
    let running = running.with(&[&alice, &bob], 4).await;
    let api = &running.api;
    let group = Group::new(api, "group-1");
    group.make(&alice).await.ok();
    let reserved = group.reserve(&alice, "bob").await.ok();
    refused(&group.reserve(&alice, "bob").await, "too_many_reservations");
    group.commit(&alice, group.adding(0, &reserved)).await.ok();
    api.reserve(&alice, "bob").await.ok();
}

#[actix_web::test]
async fn a_device_uploads_so_many_a_day_and_repeats_what_it_likes() {
    let bob = Device::new("bob");
    let quotas = Quotas { uploads: Rate::new(4, Duration::from_hours(6)), ..Quotas::STANDARD };
    let running = limited(&quotas).with(&[&bob], 0).await;
    let api = &running.api;
    let packages = bob.packages(NOW, 4);
    let first = Draft::post("/keypackages/upload", &upload(&packages));
    let told = api.send(&bob, &first).await.ok();
    let wait = refused(&api.upload(&bob, &bob.packages(NOW, 1)).await, "rate_limited");
    assert_eq!(wait, Duration::from_hours(6));
    assert_eq!(api.send(&bob, &first).await.ok().body, told.body);
}

#[actix_web::test]
async fn packages_whose_lifetime_is_refused_count_as_no_uploads() {
    let bob = Device::new("bob");
    let quotas = Quotas { uploads: Rate::new(4, Duration::from_hours(6)), ..Quotas::STANDARD };
    let running = limited(&quotas).with(&[&bob], 0).await;
    let api = &running.api;
    let ahead = NOW.after(Duration::from_hours(3));
    for _ in 0..9 {
        let answer = api.upload(&bob, &bob.packages(ahead, 4)).await;
        assert_eq!(answer.body["check"], "lifetime", "{}", answer.body);
    }
    api.upload(&bob, &bob.packages(NOW, 4)).await.ok();
    refused(&api.upload(&bob, &bob.packages(NOW, 1)).await, "rate_limited");
}

/// Sends a request as if it came through a proxy, from an address.
pub(crate) async fn send_from(api: &Api, address: &str, by: &Device, draft: &Draft) -> Answer {
    answer(api.signed(by, draft).header("x-forwarded-for", address)).await.unwrap()
}

pub(crate) fn behind_a_proxy(quotas: &Quotas) -> Running {
    Running::start_with(|settings| {
        settings.quotas = Some(*quotas);
        settings.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    })
}

pub(crate) fn registration(device: &Device) -> Draft {
    Draft::post("/devices", &json!({ "user": device.pool.user() }))
}

#[actix_web::test]
async fn thirty_devices_a_day_are_registered_from_an_address() {
    let running = behind_a_proxy(&Quotas::STANDARD);
    let api = &running.api;
    for n in 0..30 {
        let device = Device::new(&format!("u{n}"));
        send_from(api, "192.0.2.1", &device, &registration(&device)).await.ok();
        send_from(api, "192.0.2.1", &device, &registration(&device)).await.ok();
    }
    let late = Device::new("late");
    let draft = registration(&late);
    let wait = refused(&send_from(api, "192.0.2.1", &late, &draft).await, "rate_limited");
    assert_eq!(wait, Duration::from_mins(48));
    send_from(api, "192.0.2.2", &Device::new("other"), &registration(&Device::new("other")))
        .await
        .ok();
    running.clock.advance(wait);
    send_from(api, "192.0.2.1", &late, &registration(&late)).await.ok();
}

#[actix_web::test]
async fn an_address_with_ten_wrong_signatures_in_a_minute_has_to_wait() {
    let bob = Device::new("bob");
    let running = behind_a_proxy(&Quotas::STANDARD).with(&[&bob], 0).await;
    let api = &running.api;
    let wrong = || {
        let draft = Draft::post("/keypackages/revoke", &json!({}));
        let mut headers = draft.headers(&bob, api.authority(), running.clock.now());
        headers[1].1 = headers[1].1.replace("kp=:", "kp=:AAAA");
        api.with_headers(&draft, &headers).header("x-forwarded-for", "192.0.2.1")
    };
    for _ in 0..10 {
        assert_eq!(answer(wrong()).await.unwrap().status, 401);
    }
    let wait = refused(&answer(wrong()).await.unwrap(), "rate_limited");
    let alice = Device::new("alice");
    let newcomer = registration(&alice);
    refused(&send_from(api, "192.0.2.1", &alice, &newcomer).await, "rate_limited");
    // A registered device is not locked out by others at its address.
    let right = Draft::post("/keypackages/upload", &upload(&bob.packages(NOW, 1)));
    send_from(api, "192.0.2.1", &bob, &right).await.ok();
    send_from(api, "192.0.2.1", &bob, &Draft::get("/keypackages/status")).await.ok();
    running.clock.advance(wait);
    assert_eq!(answer(wrong()).await.unwrap().status, 401);
    running.clock.advance(wait);
    send_from(api, "192.0.2.1", &alice, &newcomer).await.ok();
}

#[actix_web::test]
async fn a_port_or_brackets_make_an_address_no_other_and_lift_no_limit() {
    let same: [(&str, &[&str]); 2] = [
        ("192.0.2.1", &["192.0.2.1:4711", "::ffff:192.0.2.1", "198.51.100.9, 192.0.2.1:1"]),
        ("2001:db8::7", &["[2001:db8::7]:443", "[2001:db8::7]", "2001:db8::8"]),
    ];
    let running = behind_a_proxy(&Quotas::STANDARD);
    for (address, forms) in same {
        for n in 0..30 {
            let device = Device::new(&format!("{}{n}", address.replace(':', ".")));
            send_from(&running.api, address, &device, &registration(&device)).await.ok();
        }
        for form in forms {
            let late = Device::new("late");
            let answered = send_from(&running.api, form, &late, &registration(&late)).await;
            refused(&answered, "rate_limited");
        }
    }
}

#[actix_web::test]
async fn behind_a_proxy_at_a_listener_of_both_kinds_of_addresses_each_client_has_its_own() {
    let data = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(NOW));
    let server = Server::start(
        Settings {
            listen: "[::]:0".parse().unwrap(),
            quotas: Some(Quotas::STANDARD),
            trusted_proxies: vec!["127.0.0.1".parse().unwrap()],
            ..local_settings(data.path())
        },
        clock.clone(),
    )
    .unwrap();
    let api = Api::new(format!("http://127.0.0.1:{}", server.address().port()), clock);
    for n in 1..33 {
        let device = Device::new(&format!("u{n}"));
        let address = format!("198.51.100.{n}");
        send_from(&api, &address, &device, &registration(&device)).await.ok();
    }
}

#[actix_web::test]
async fn after_a_restart_everything_counts_that_counted_before() {
    let data = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(NOW));
    let quotas = Quotas {
        strangers: Rate::new(9, Duration::from_secs(20)),
        uploads: Rate::new(20, Duration::from_mins(1)),
        ..Quotas::STANDARD
    };
    let settings = || Settings { quotas: Some(quotas), ..local_settings(data.path()) };
    let start = || {
        let server = Server::start(settings(), clock.clone()).unwrap();
        let api = Api::new(server.url(), clock.clone());
        (server, api)
    };
    let (server, api) = start();
    let [alice, bob, carol, dave] = ["alice", "bob", "carol", "dave"].map(Device::new);
    for device in [&alice, &bob, &carol, &dave] {
        api.register(device).await.ok();
    }
    api.upload(&bob, &bob.packages(NOW, 20)).await.ok();
    for _ in 0..6 {
        reserve_and_spend(&api, &alice, "bob").await.ok();
        clock.advance(Duration::from_secs(1));
    }
    // Carol becomes a contact after her first reservation: that one was a stranger's.
    let first = reserve_and_spend(&api, &carol, "bob").await.ok();
    let joined = json!({ "joined": [first.text("reservation_id")] });
    api.post(&bob, "/keypackages/policy", joined).await.ok();
    reserve_and_spend(&api, &carol, "bob").await.ok();
    for _ in 0..2 {
        api.reserve(&dave, "bob").await.ok();
    }
    let tell = async |api: &Api| {
        let more = api.upload(&bob, &bob.packages(NOW, 10)).await;
        let stranger = Device::new("erin");
        api.register(&stranger).await.ok();
        let waits = [
            refused(&api.reserve(&alice, "bob").await, "rate_limited"),
            refused(&api.reserve(&stranger, "bob").await, "rate_limited"),
            refused(&more, "rate_limited"),
        ];
        let held = api.reserve(&dave, "bob").await;
        (waits, held.code().to_owned())
    };
    let before = tell(&api).await;
    assert_eq!(before.1, "too_many_reservations");
    server.stop().await;

    let (_server, api) = start();
    assert_eq!(tell(&api).await, before);
    reserve_and_spend(&api, &carol, "bob").await.ok();
}

#[actix_web::test]
async fn after_a_restart_an_owners_own_limit_for_strangers_counts_for_its_hour() {
    let data = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(NOW));
    // No other limit looks back so far.
    let quotas = Quotas {
        pair: Rate::new(6, Duration::from_secs(1)),
        contact_pair: Rate::new(32, Duration::from_secs(1)),
        uploads: Rate::new(256, Duration::from_secs(1)),
        policy: Rate::new(60, Duration::from_secs(1)),
        post_kib: Rate::new(1024, Duration::from_millis(1)),
        groups: Rate::new(30, Duration::from_secs(1)),
        ..Quotas::STANDARD
    };
    let start = || {
        let settings = Settings { quotas: Some(quotas), ..local_settings(data.path()) };
        let server = Server::start(settings, clock.clone()).unwrap();
        let api = Api::new(server.url(), clock.clone());
        (server, api)
    };
    let (server, api) = start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(Device::new);
    for device in [&alice, &bob, &carol] {
        api.register(device).await.ok();
    }
    api.upload(&bob, &bob.packages(NOW, 20)).await.ok();
    api.post(&bob, "/keypackages/policy", json!({ "strangers_per_hour": 1 })).await.ok();
    reserve_and_spend(&api, &alice, "bob").await.ok();
    clock.advance(Duration::from_mins(30));
    let before = refused(&api.reserve(&carol, "bob").await, "rate_limited");
    assert_eq!(before, Duration::from_mins(30));
    server.stop().await;
    let (_server, api) = start();
    assert_eq!(refused(&api.reserve(&carol, "bob").await, "rate_limited"), before);
}

#[actix_web::test]
async fn a_contact_takes_a_full_pool_at_once_and_then_one_each_minute() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = limited(&Quotas::STANDARD).with(&[&alice, &bob], 40).await;
    let api = &running.api;
    let first = reserve_and_spend(api, &alice, "bob").await.ok();
    let joined = json!({ "joined": [first.text("reservation_id")] });
    api.post(&bob, "/keypackages/policy", joined).await.ok();
    for _ in 0..32 {
        reserve_and_spend(api, &alice, "bob").await.ok();
    }
    let over = api.reserve(&alice, "bob").await;
    assert_eq!(refused(&over, "rate_limited"), Duration::from_mins(1));
    assert!(over.text("detail").contains("as a contact may"), "{}", over.body);
    running.clock.advance(Duration::from_mins(1));
    reserve_and_spend(api, &alice, "bob").await.ok();
}

#[actix_web::test]
async fn sixty_strangers_who_ask_a_bot_once_are_all_served() {
    let (bot, limit) = (Device::new("bob"), Rate::new(200, Duration::from_mins(1)));
    let people: Vec<Device> = (0..60).map(|number| Device::new(&format!("user{number}"))).collect();
    let running = limited(&Quotas { devices: limit, ..Quotas::STANDARD }).with(&[&bot], 64).await;
    let api = &running.api;
    for person in &people {
        api.register(person).await.ok();
    }
    let over = |answers: &[Answer]| answers.iter().filter(|answer| answer.status == 429).count();
    let mut answers = Vec::new();
    for person in &people[..40] {
        answers.push(reserve_and_spend(api, person, "bob").await);
    }
    assert_eq!(over(&answers), 8, "without a last resort the limit holds");
    api.upload(&bot, &[bot.package_with(NOW, 3600 * 24, true)]).await.ok();
    for person in &people[40..] {
        let reserved = reserve_and_spend(api, person, "bob").await.ok();
        assert_eq!(reserved.body["last_resort"], true);
    }
    let more = json!({ "strangers_per_hour": 600 });
    let set = api.post(&bot, "/keypackages/policy", more).await.ok();
    assert_eq!(set.body["strangers_per_hour"], 600);
    running.clock.advance(Duration::from_mins(1));
    let reserved = reserve_and_spend(api, &people[32], "bob").await.ok();
    assert_eq!(reserved.body["last_resort"], false);
}

#[actix_web::test]
async fn a_policy_changes_sixty_times_at_once_and_a_blocked_user_is_refused() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = limited(&Quotas::STANDARD).with(&[&alice, &bob], 2).await;
    let api = &running.api;
    let post = |body| api.post(&bob, "/keypackages/policy", body);
    let (block, unblock) = (json!({ "blocked": ["alice"] }), json!({ "unblocked": ["alice"] }));
    for _ in 0..30 {
        assert_eq!(post(block.clone()).await.ok().body["blocked"], json!(["alice"]));
        post(block.clone()).await.ok();
        post(unblock.clone()).await.ok();
    }
    assert_eq!(refused(&post(block.clone()).await, "rate_limited"), Duration::from_mins(1));
    running.clock.advance(Duration::from_mins(1));
    post(block).await.ok();
    let refused = api.reserve(&alice, "bob").await;
    assert_eq!((refused.status, refused.code()), (403, "not_allowed"));
}

#[actix_web::test]
async fn a_repeated_post_is_not_counted_and_a_repeated_commit_spends_nothing() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let quotas = Quotas { posts: Rate::new(4, Duration::from_mins(10)), ..Quotas::STANDARD };
    let running = limited(&quotas).with(&[&alice, &bob], 3).await;
    let api = &running.api;
    let group = Group::new(api, "group-1");
    group.make(&alice).await.ok();
    let reserved = group.reserve(&alice, "bob").await.ok();
    let commit = Draft::post(&group.path("commits"), &group.adding(0, &reserved));
    let message = json!({ "message": group.framed(1, APPLICATION, "hello") });
    let message = Draft::post(&group.path("messages"), &message);
    for draft in [commit, message] {
        let first = api.send(&alice, &draft).await.ok();
        for _ in 0..5 {
            let again = api.send(&alice, &draft).await.ok();
            assert_eq!(again.body["position"], first.body["position"]);
        }
    }
    let metrics = answer(api.http.get(format!("{}/metrics", running.admin_url()))).await.unwrap();
    let metrics = String::from_utf8(metrics.bytes).unwrap();
    assert!(metrics.contains("keypool_spends_total{late=\"false\"} 1\n"), "{metrics}");
    for words in ["three", "four"] {
        group.say(&alice, words).await.ok();
    }
    refused(&group.say(&alice, "five").await, "rate_limited");
}

#[actix_web::test]
async fn changes_of_a_policy_that_cancel_out_write_nothing() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 32).await;
    let api = &running.api;
    let mut spent = Vec::new();
    for _ in 0..32 {
        let reserved = reserve_and_spend(api, &alice, "bob").await.ok();
        spent.push(reserved.text("reservation_id").to_owned());
    }
    let before = api.get(&bob, "/keypackages/status").await.ok().body["version"].clone();
    let change = json!({ "joined": spent, "removed": vec!["alice"; 32] });
    let told = api.post(&bob, "/keypackages/policy", change).await.ok();
    assert_eq!(told.body["contacts"], json!([]));
    let after = api.get(&bob, "/keypackages/status").await.ok().body["version"].clone();
    assert_eq!(after, before);
}

#[actix_web::test]
async fn a_forwarded_address_from_a_peer_that_is_not_trusted_is_warned_of_once() {
    let data = tempfile::tempdir().unwrap();
    let process = Process::spawn(command(data.path()).stderr(Stdio::piped()));
    for name in ["alice", "bob", "carol"] {
        let device = Device::new(name);
        send_from(&process.api, "192.0.2.7", &device, &registration(&device)).await.ok();
    }
    let pid = process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let (_, said) = process.ended();
    let warnings: Vec<&str> =
        said.lines().filter(|line| line.contains("X-Forwarded-For")).collect();
    let [warning] = warnings[..] else { panic!("{said}") };
    assert!(warning.contains("WARN") && warning.contains("--trusted-proxy"), "{warning}");
    assert!(warning.contains("127.0.0.1"), "{warning}");
}
