//! The drain: a thousand inviters from fifty addresses against one pool, for a minute.

use std::time::Duration;

use keypool_projections::quota::Quotas;
use serde_json::json;

use crate::{
    harness::{Api, Device, Running, answer},
    quotas::{behind_a_proxy, refused, registration, send_from},
};

const INVITERS: usize = 1000;
const ADDRESSES: usize = 50;

/// How much is counted, of inviters and of pools.
async fn entries(running: &Running) -> [u64; 2] {
    let metrics = answer(running.api.http.get(format!("{}/metrics", running.admin_url())));
    let text = String::from_utf8(metrics.await.unwrap().bytes).unwrap();
    ["inviters", "pools"].map(|of| {
        let line = format!("keypool_quota_entries{{of=\"{of}\"}} ");
        let value = text.lines().find_map(|found| found.strip_prefix(&line));
        value.unwrap().parse().unwrap()
    })
}

async fn take(api: &Api, by: &Device) {
    let reserved = api.reserve(by, "bob").await.ok();
    assert_eq!(
        (&reserved.body["generation"], reserved.body["last_resort"].as_bool()),
        (&json!(1), Some(false))
    );
    api.claim(by, "/keypackages/spend", &reserved).await.ok();
}

#[actix_web::test]
async fn a_pool_is_not_drained_and_its_contacts_are_served() {
    let (friend, bob) = (Device::new("friend"), Device::new("bob"));
    let running = behind_a_proxy(&Quotas::STANDARD).with(&[&friend, &bob], 64).await;
    let api = &running.api;
    let reserved = api.reserve(&friend, "bob").await.ok();
    api.claim(&friend, "/keypackages/spend", &reserved).await.ok();
    let joined = json!({ "joined": [reserved.text("reservation_id")] });
    api.post(&bob, "/keypackages/policy", joined).await.ok();
    running.clock.advance(Duration::from_hours(1));

    let strangers: Vec<Device> = (0..INVITERS).map(|n| Device::new(&format!("s{n}"))).collect();
    for (n, stranger) in strangers.iter().enumerate() {
        let address = format!("192.0.2.{}", n % ADDRESSES);
        send_from(api, &address, stranger, &registration(stranger)).await.ok();
    }
    let (mut granted, mut last) = (0, None);
    for (n, stranger) in strangers.iter().enumerate() {
        let asked = api.reserve(stranger, "bob").await;
        if asked.status == 200 {
            granted += 1;
            // Burned at once, which nobody can hinder.
            api.claim(stranger, "/keypackages/spend", &asked).await.ok();
        } else {
            last = Some((stranger, refused(&asked, "rate_limited")));
        }
        running.clock.advance(Duration::from_millis(60));
        if n % 250 == 249 {
            take(api, &friend).await;
        }
    }
    // 32 at once and one more each 20 seconds, of a minute.
    assert!((34..=35).contains(&granted), "{granted}");
    let status = api.get(&bob, "/keypackages/status").await.ok();
    let left = 64 - 1 - 4 - granted;
    assert_eq!(status.body["fresh"], left);

    // Only who was given something is remembered for long.
    let [_, pools] = entries(&running).await;
    assert!(pools <= granted + 5, "{pools} entries after {INVITERS} inviters");
    let (told, wait) = last.unwrap();
    assert!(wait <= Duration::from_secs(20));
    running.clock.advance(wait);
    take(api, told).await;
    take(api, &friend).await;
}

#[actix_web::test]
async fn what_counts_no_more_is_forgotten() {
    let running = Running::start_with(|settings| {
        settings.quotas = Some(Quotas::STANDARD);
        settings.sweep_interval = Duration::from_millis(5);
    });
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = running.with(&[&alice, &bob], 4).await;
    running.api.reserve(&alice, "bob").await.ok();
    assert_ne!(entries(&running).await, [0, 0]);
    // The claim has lapsed, and all buckets are full again.
    running.clock.advance(Duration::from_mins(50));
    let mut tries = 0;
    while entries(&running).await != [0, 0] {
        tries += 1;
        assert!(tries < 10_000, "{:?}", entries(&running).await);
    }
}
