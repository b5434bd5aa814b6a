//! The event stream of a pool: live, and resumed where a listener was cut off.

use std::{
    io::{Read, Write},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    connections::{connect, read_to_end},
    harness::{Api, Device, Draft, NOW, Running},
};

/// Somebody who listens to their pool.
pub(crate) struct Listener {
    response: reqwest::Response,
    come: String,
}

/// One event: its id, if it has one, its name, and its data.
pub(crate) type Told = (Option<u64>, String, Value);

impl Listener {
    pub(crate) async fn of(api: &Api, device: &Device, last: Option<u64>) -> Self {
        Self::by(api, device, &Draft::get("/keypackages/stream"), last).await
    }

    /// The same by a request that may name another device.
    pub(crate) async fn by(api: &Api, device: &Device, draft: &Draft, last: Option<u64>) -> Self {
        let mut request = api.signed(device, draft);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut listener = Self { response, come: String::new() };
        assert_eq!(listener.block().await.unwrap(), "retry: 3000");
        listener
    }

    /// The next block that is no heartbeat; `None` at the end.
    async fn block(&mut self) -> Option<String> {
        loop {
            match self.any_block().await {
                Some(block) if block == ":" => {}
                block => return block,
            }
        }
    }

    /// The next block; `None` at the end.
    async fn any_block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.come.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.come = rest;
                return Some(block);
            }
            let piece = self.response.chunk().await.unwrap()?;
            self.come.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    pub(crate) async fn next(&mut self) -> Option<Told> {
        let block = self.block().await?;
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        let data = serde_json::from_str(field("data: ").unwrap()).unwrap();
        let id = field("id: ").map(|id| id.parse().unwrap());
        Some((id, field("event: ").unwrap().to_owned(), data))
    }

    /// The ids and names of the next ones.
    async fn names(&mut self, count: usize) -> Vec<(Option<u64>, String)> {
        let mut names = Vec::new();
        for _ in 0..count {
            let (id, name, _) = self.next().await.unwrap();
            names.push((id, name));
        }
        names
    }
}

fn named(expected: &[(u64, &str)]) -> Vec<(Option<u64>, String)> {
    let id = |id: u64| (id != 0).then_some(id);
    expected.iter().map(|(number, name)| (id(*number), (*name).to_owned())).collect()
}

#[actix_web::test]
async fn what_happens_is_told_as_it_happens_and_from_where_one_was_cut_off() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 9).await;
    let api = &running.api;
    let mut listener = Listener::of(api, &bob, None).await;
    let reserved = api.reserve(&alice, "bob").await.ok();
    let (id, name, data) = listener.next().await.unwrap();
    assert_eq!((id, name.as_str()), (Some(11), "reserved"));
    assert_eq!(data["event"]["reserved"]["holder"], "alice/main");
    let history = api.get(&bob, "/keypackages/events?after=10").await.ok();
    assert_eq!(data, history.body["events"][0], "the same as in the history");
    let (id, name, data) = listener.next().await.unwrap();
    assert_eq!((id, name.as_str()), (None, "low"));
    assert_eq!((&data["pool"]["available"], &data["pool_health"]), (&json!(8), &json!("low")));
    assert_eq!(data["recommended_upload"], 24);

    // Cut off, and back: nothing is missed and nothing told twice, and how full it is is told anew.
    drop(listener);
    api.claim(&alice, "/keypackages/spend", &reserved).await.ok();
    api.reserve(&alice, "bob").await.ok();
    let mut listener = Listener::of(api, &bob, Some(11)).await;
    assert_eq!(listener.names(3).await, named(&[(12, "spent"), (13, "reserved"), (0, "low")]));
    api.upload(&bob, &[bob.package(NOW)]).await.ok();
    assert_eq!(listener.names(1).await, named(&[(14, "uploaded")]));
    // From the beginning, for whoever knows nothing.
    let mut all = Listener::of(api, &bob, Some(0)).await;
    assert_eq!(all.names(1).await, named(&[(1, "registered")]));
}

#[actix_web::test]
async fn an_empty_pool_a_used_last_resort_and_a_conflict_are_told() {
    let (alice, carol, bob) = (Device::new("alice"), Device::new("carol"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &carol, &bob], 1).await;
    let api = &running.api;
    api.upload(&bob, &[bob.package_with(NOW, 24 * 3600, true)]).await.ok();
    let mut listener = Listener::of(api, &bob, None).await;
    assert_eq!(listener.names(1).await, named(&[(0, "low")]));
    let first = api.reserve(&alice, "bob").await.ok();
    assert_eq!(listener.names(2).await, named(&[(4, "reserved"), (0, "empty")]));
    let last = api.reserve(&carol, "bob").await.ok();
    assert_eq!(last.body["last_resort"], true);
    assert_eq!(listener.names(1).await, named(&[(5, "reserved")]));
    let (id, name, data) = listener.next().await.unwrap();
    assert_eq!((id, name.as_str()), (None, "last_resort_used"));
    assert_eq!(data, json!({ "keypackage_ref": last.body["keypackage_ref"], "version": 5 }));

    // Alice's reservation lapses, Carol is given the package, and Alice comes too late.
    running.clock.advance(Duration::from_secs(121));
    let second = api.reserve(&carol, "bob").await.ok();
    assert_eq!(second.body["keypackage_ref"], first.body["keypackage_ref"]);
    let late = api.claim(&alice, "/keypackages/spend", &first).await;
    assert_eq!(late.code(), "reservation_lost");
    loop {
        let (id, name, data) = listener.next().await.unwrap();
        if name == "conflict" {
            assert_eq!(data["event"]["conflict"]["lost"], first.body["reservation_id"]);
            assert!(id.is_some());
            break;
        }
    }
}

#[actix_web::test]
async fn a_stream_ends_with_its_device_and_with_the_server() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 9).await;
    let mut of_alice = Listener::of(&running.api, &alice, None).await;
    assert_eq!(of_alice.names(1).await, named(&[(0, "empty")]));
    let mut of_bob = Listener::of(&running.api, &bob, None).await;
    running.api.remove(&bob, "main").await.ok();
    // What comes after the removal is not for the key that was its.
    assert!(of_bob.next().await.is_none());
    running.server.stop().await;
    assert!(of_alice.next().await.is_none());
}

#[actix_web::test]
async fn the_newest_stream_of_a_device_ends_its_oldest() {
    let bob = Device::new("bob");
    let running = Running::start().with(&[&bob], 20).await;
    let api = &running.api;
    // Whoever comes back again and again, after connections that broke unnoticed, is never refused.
    let mut open = Vec::new();
    for _ in 0..6 {
        open.push(Listener::of(api, &bob, None).await);
    }
    let newest = open.split_off(4);
    for mut displaced in open {
        assert!(displaced.next().await.is_none());
    }
    api.upload(&bob, &bob.packages(NOW, 1)).await.ok();
    for mut listener in newest {
        assert_eq!(listener.next().await.unwrap().1, "uploaded");
    }
}

#[actix_web::test]
async fn a_displaced_stream_ends_also_where_its_client_takes_nothing() {
    let bob = Device::new("bob");
    let running = Running::start().with(&[&bob], 1).await;
    let api = &running.api;
    // The buffers between the server and a client hold less than this history.
    let users: Vec<String> = (0..256).map(|n| format!("{n:060}")).collect();
    for _ in 0..32 {
        for change in ["blocked", "unblocked"] {
            api.post(&bob, "/keypackages/policy", json!({ change: users })).await.ok();
        }
    }
    let draft = Draft::get("/keypackages/stream?after=0");
    let headers = draft.headers(&bob, api.authority(), NOW);
    let headers = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
    let (path, host, headers) = (&draft.path, api.authority(), headers.collect::<String>());
    let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n");
    let mut oldest = connect(running.server.address());
    oldest.write_all(head.as_bytes()).unwrap();
    oldest.read_exact(&mut [0; 15]).unwrap();
    let _newer = [Listener::of(api, &bob, None).await, Listener::of(api, &bob, None).await];
    let told = read_to_end(&mut oldest);
    assert!(told.contains("user_blocked"));
    let last = api.get(&bob, "/keypackages/status").await.ok().body["version"].clone();
    assert!(!told.contains(&format!("id: {last}\n")), "it has told all {last} events");
}

#[actix_web::test]
async fn a_stream_that_its_client_has_closed_leaves_its_place_at_once() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start_with(|settings| {
        settings.streams_max = 1;
        settings.stream_heartbeat = Duration::from_hours(1);
    });
    let running = running.with(&[&alice, &bob], 0).await;
    let api = &running.api;
    let only = Listener::of(api, &alice, None).await;
    let refused = api.get(&bob, "/keypackages/stream").await;
    assert_eq!((refused.status, refused.code()), (503, "busy"));
    assert_eq!(refused.header("retry-after"), "1");
    drop(only);
    let draft = Draft::get("/keypackages/stream");
    let served = async { while api.signed(&bob, &draft).send().await.unwrap().status() != 200 {} };
    actix_rt::time::timeout(Duration::from_mins(1), served).await.unwrap();
}

#[actix_web::test]
async fn a_wrong_beginning_of_a_stream_is_refused() {
    let alice = Device::new("alice");
    let running = Running::start().with(&[&alice], 0).await;
    let api = &running.api;
    let wrong = api.signed(&alice, &Draft::get("/keypackages/stream")).header("last-event-id", "x");
    let wrong = crate::harness::answer(wrong).await.unwrap();
    assert_eq!((wrong.status, wrong.code()), (400, "bad_request"));
    assert_eq!(api.get(&alice, "/keypackages/stream?after=x").await.code(), "bad_request");
    let stranger = api.get(&Device::new("stranger"), "/keypackages/stream").await;
    assert_eq!(stranger.code(), "unauthenticated");
}

#[actix_web::test]
async fn a_stream_on_which_nothing_happens_says_that_it_is_alive() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start_with(|settings| {
        settings.stream_heartbeat = Duration::from_millis(1);
    });
    let running = running.with(&[&alice, &bob], 10).await;
    let mut listener = Listener::of(&running.api, &bob, None).await;
    for _ in 0..3 {
        assert_eq!(listener.any_block().await.unwrap(), ":");
    }
    // What happens comes between.
    running.api.reserve(&alice, "bob").await.ok();
    let (id, name, _) = listener.next().await.unwrap();
    assert_eq!((id, name.as_str()), (Some(12), "reserved"));
    assert_eq!(listener.any_block().await.unwrap(), ":");
}
