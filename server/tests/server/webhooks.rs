//! The webhook, over HTTP: the app's backend is told of devices that are away, at least once and in order.

use std::{
    collections::VecDeque,
    env,
    net::TcpListener,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    dev::ServerHandle,
    web::{Bytes, Data, to},
};
use keypool_api::{WebhookEvent, WebhookKind, signing::content_digest};
use keypool_ledger::{Clock, SystemClock};
use keypool_server::Settings;
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    groups::Group,
    harness::{Answer, Api, Device, NOW, Process, Running, answer, command},
    stream::Listener,
    webhook_receiver::{WebhookReceiver, receive},
};

/// How long an event may take to come: only a hang takes so long.
const DEADLINE: Duration = Duration::from_mins(1);

/// A misbehaviour of the backend, instead of an answer.
#[derive(Clone)]
enum Fault {
    Status(u16),
    Redirect(String),
    Hang,
}

/// The headers and the body of a request.
type Received = (Vec<(String, String)>, Bytes);

/// The requests that have come, as headers and body, and the faults that the next of them meet.
#[derive(Default)]
struct Line {
    faults: Mutex<VecDeque<Fault>>,
    requests: Mutex<Vec<Received>>,
}

/// The example's receiver, behind a line that may fail.
struct Backend {
    url: String,
    line: Arc<Line>,
    events: mpsc::UnboundedReceiver<WebhookEvent>,
    handle: ServerHandle,
}

async fn pass(
    request: HttpRequest,
    body: Bytes,
    line: Data<Line>,
    receiver: Data<WebhookReceiver>,
) -> HttpResponse {
    let headers = request.headers().iter();
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()));
    line.requests.lock().unwrap().push((headers.collect(), body.clone()));
    let fault = line.faults.lock().unwrap().pop_front();
    match fault {
        None => receive(request, body, receiver).await,
        Some(Fault::Status(status)) => {
            HttpResponse::build(status.try_into().unwrap()).body("no events, please")
        }
        Some(Fault::Redirect(to)) => {
            HttpResponse::TemporaryRedirect().insert_header(("location", to)).finish()
        }
        Some(Fault::Hang) => std::future::pending().await,
    }
}

fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    (listener, authority)
}

fn hook_at(authority: &str) -> impl FnOnce(&mut Settings) {
    let url = format!("http://{authority}/hook").parse().unwrap();
    move |settings| settings.webhook = Some(url)
}

impl Backend {
    fn serve(listener: TcpListener, ledger_key: &str, clock: Arc<dyn Clock>) -> Self {
        let authority = listener.local_addr().unwrap().to_string();
        let (sender, events) = mpsc::unbounded_channel();
        let line = Data::new(Line::default());
        let receiver = Data::new(WebhookReceiver {
            ledger_key: ledger_key.parse().unwrap(),
            authority: authority.clone(),
            clock,
            handle: Box::new(move |event| drop(sender.send(event))),
        });
        let shared = Arc::clone(&line);
        let app = move || {
            let app = App::new().app_data(line.clone()).app_data(receiver.clone());
            app.default_service(to(pass))
        };
        let server = HttpServer::new(app).workers(1).disable_signals().shutdown_timeout(0);
        let server = server.listen(listener).unwrap().run();
        let handle = server.handle();
        actix_rt::spawn(server);
        Self { url: format!("http://{authority}/hook"), line: shared, events, handle }
    }

    async fn next(&mut self) -> WebhookEvent {
        let event = actix_rt::time::timeout(DEADLINE, self.events.recv());
        event.await.unwrap().unwrap()
    }

    async fn next_words(&mut self) -> String {
        let WebhookEvent { kind, user, .. } = self.next().await;
        format!("{} {user}", kind.word())
    }

    /// Waits until everything before is told, by a message to Alice, who was here.
    async fn catch_up(&mut self, running: &Running, group: &Group, [alice, bob]: [&Device; 2]) {
        running.api.get(alice, "/mailbox").await.ok();
        group.say(bob, "well?").await.ok();
        assert_eq!(self.next_words().await, "mailbox alice");
    }

    fn fails(&self, faults: impl IntoIterator<Item = Fault>) {
        self.line.faults.lock().unwrap().extend(faults);
    }
}

/// A server with a webhook, and its backend. Alice has a group, and Bob a pool.
async fn backed(packages: usize) -> (Running, Backend, Group, [Device; 2]) {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let (listener, authority) = listener();
    let running = Running::start_with(|settings| {
        hook_at(&authority)(settings);
        settings.webhook_timeout = Duration::from_secs(2);
    });
    let running = running.with(&[&alice, &bob], packages).await;
    let backend = Backend::serve(listener, running.server.ledger_key(), running.clock.clone());
    let group = Group::new(&running.api, "group-1");
    group.make(&alice).await.ok();
    (running, backend, group, [alice, bob])
}

/// Acknowledges everything that waits.
async fn acknowledge(api: &Api, device: &Device) -> Answer {
    let mailbox = api.get(device, "/mailbox").await.ok();
    let last = mailbox.body["items"].as_array().unwrap().last().unwrap()["position"].clone();
    api.post(device, "/mailbox/acknowledge", json!({ "through": last })).await.ok()
}

#[actix_web::test]
async fn a_sleeping_device_is_told_once_until_it_was_there_again() {
    let (running, mut backend, group, [alice, bob]) = backed(12).await;
    let commit = group.add(&alice, 0, "bob").await.ok();
    let told = backend.next().await;
    let position = commit.body["position"].as_u64().unwrap();
    assert_eq!((told.kind, told.device.as_str()), (WebhookKind::Invitation, bob.pool.device()));
    assert!(told.position <= position && told.at_ms == NOW.as_millis(), "{told:?}");
    assert_eq!(json!(told.group_id), group.id());
    for words in ["one", "two"] {
        group.say(&alice, words).await.ok();
    }
    backend.catch_up(&running, &group, [&alice, &bob]).await;
    acknowledge(&running.api, &bob).await;
    group.say(&alice, "three").await.ok();
    group.say(&alice, "four").await.ok();
    let again = backend.next().await;
    assert_eq!((again.kind, again.group_id), (WebhookKind::Mailbox, None));
    backend.catch_up(&running, &group, [&alice, &bob]).await;
    // A look without an acknowledgement is a visit, too.
    running.api.get(&bob, "/mailbox").await.ok();
    let five = group.say(&alice, "five").await.ok();
    assert_eq!(json!(backend.next().await.position), five.body["position"]);
    let (_, body) = backend.line.requests.lock().unwrap()[0].clone();
    assert!(!String::from_utf8_lossy(&body).contains("bytes"));
}

#[actix_web::test]
async fn a_pool_that_runs_low_and_dry_is_told_in_order_until_it_is_filled() {
    let (running, mut backend, group, [alice, bob]) = backed(3).await;
    group.reserve(&alice, "bob").await.ok();
    assert_eq!(backend.next_words().await, "low bob");
    for _ in 0..2 {
        group.reserve(&alice, "bob").await.ok();
    }
    assert_eq!(backend.next_words().await, "empty bob");
    running.api.upload(&bob, &bob.packages(NOW, 1)).await.ok();
    group.reserve(&alice, "bob").await.ok();
    assert_eq!(backend.next_words().await, "empty bob");
}

#[actix_web::test]
async fn a_device_with_an_open_stream_is_told_when_it_leaves_without_its_mail() {
    let (running, mut backend, group, [alice, bob]) = backed(12).await;
    group.add(&alice, 0, "bob").await.ok();
    assert_eq!(backend.next_words().await, "invitation bob");
    acknowledge(&running.api, &bob).await;
    let stream = Listener::of(&running.api, &bob, None).await;
    group.say(&alice, "are you there?").await.ok();
    // Alice is away, and everything before Bob's message is told before it.
    group.say(&bob, "yes").await.ok();
    assert_eq!(backend.next_words().await, "mailbox alice");
    drop(stream);
    assert_eq!(backend.next_words().await, "mailbox bob");
}

#[actix_web::test]
async fn a_backend_that_fails_in_every_way_gets_the_event_in_the_end() {
    let (running, mut backend, group, [alice, _]) = backed(12).await;
    let elsewhere = backend.url.replace("/hook", "/elsewhere");
    let faults = [
        Fault::Status(500),
        Fault::Status(404),
        Fault::Redirect(elsewhere),
        Fault::Hang,
        Fault::Status(304),
    ];
    let count = faults.len();
    backend.fails(faults);
    group.add(&alice, 0, "bob").await.ok();
    assert_eq!(backend.next_words().await, "invitation bob");
    let requests = backend.line.requests.lock().unwrap().clone();
    assert_eq!(requests.len(), count + 1, "the redirect was not followed");
    let key = |(headers, _): &Received| {
        headers.iter().find(|(name, _)| name == "idempotency-key").unwrap().1.clone()
    };
    assert!(requests.iter().all(|request| key(request) == key(&requests[0])));
    let metrics = running.api.http.get(format!("{}/metrics", running.admin_url()));
    let metrics = String::from_utf8(answer(metrics).await.unwrap().bytes).unwrap();
    let failed = format!("keypool_webhook_failed_total {count}\n");
    assert!(metrics.contains(&failed), "{metrics}");
    running.server.stop().await;
}

#[actix_web::test]
async fn a_changed_request_is_refused() {
    let (running, mut backend, group, [alice, _]) = backed(12).await;
    group.add(&alice, 0, "bob").await.ok();
    backend.next().await;
    let (headers, body) = backend.line.requests.lock().unwrap()[0].clone();
    let repeat = async |body: &[u8], with: (&str, &str), path: &str| {
        let mut request = running.api.http.post(backend.url.replace("/hook", path));
        for (name, value) in headers.iter().filter(|(name, _)| name != "content-length") {
            let value = if name == with.0 { with.1 } else { value };
            request = request.header(name, value);
        }
        answer(request.body(body.to_vec())).await.unwrap().status
    };
    let none = ("", "");
    let other = String::from_utf8_lossy(&body).replace("bob", "eve").into_bytes();
    let digest = content_digest(&other);
    assert_eq!(repeat(&body, none, "/hook").await, 204);
    assert_eq!(repeat(&other, none, "/hook").await, 401);
    assert_eq!(repeat(&other, ("content-digest", &digest), "/hook").await, 401);
    assert_eq!(repeat(&body, ("idempotency-key", "another"), "/hook").await, 401);
    assert_eq!(repeat(&body, none, "/other").await, 401);
    running.clock.advance(Duration::from_mins(3));
    assert_eq!(repeat(&body, none, "/hook").await, 401, "it has expired");
}

/// The operator blocks a user, or unblocks one.
async fn decide(running: &Running, word: &str, user: &str) {
    let request = running.api.http.post(format!("{}/names/{word}", running.admin_url()));
    let request = request.header("content-type", "application/json");
    answer(request.body(json!({ "user": user }).to_string())).await.unwrap().ok();
}

#[actix_web::test]
async fn the_devices_of_a_blocked_user_are_not_woken_until_the_user_is_unblocked() {
    let (running, mut backend, group, [alice, bob]) = backed(3).await;
    let carol = Device::new("carol");
    running.api.register(&carol).await.ok();
    running.api.upload(&carol, &carol.packages(NOW, 12)).await.ok();
    group.add(&alice, 0, "bob").await.ok();
    assert_eq!(backend.next_words().await, "low bob");
    assert_eq!(backend.next_words().await, "invitation bob");
    group.add(&alice, 1, "carol").await.ok();
    assert_eq!(backend.next_words().await, "invitation carol");
    acknowledge(&running.api, &bob).await;

    decide(&running, "block", "bob").await;
    group.say(&alice, "bob is away").await.ok();
    group.say(&carol, "he is").await.ok();
    assert_eq!(backend.next_words().await, "mailbox alice");
    decide(&running, "unblock", "bob").await;
    let low = backend.next().await;
    let woken = backend.next().await;
    assert_eq!((low.kind, woken.kind), (WebhookKind::Low, WebhookKind::Mailbox));
    assert_eq!((low.user, woken.user.as_str()), ("bob".to_owned(), "bob"));
    assert!(woken.id.starts_with(&woken.position.to_string()), "{woken:?}");
    // From then on as before.
    let mailbox = acknowledge(&running.api, &bob).await;
    assert_eq!(mailbox.status, 200);
    group.say(&alice, "welcome back").await.ok();
    assert_eq!(backend.next_words().await, "mailbox bob");
}

#[actix_web::test]
async fn an_event_that_the_backend_has_not_got_before_the_block_is_left_out() {
    let (running, mut backend, group, [alice, bob]) = backed(12).await;
    let carol = Device::new("carol");
    running.api.register(&carol).await.ok();
    running.api.upload(&carol, &carol.packages(NOW, 12)).await.ok();
    group.add(&alice, 0, "bob").await.ok();
    group.add(&alice, 1, "carol").await.ok();
    assert_eq!(backend.next_words().await, "invitation bob");
    assert_eq!(backend.next_words().await, "invitation carol");
    acknowledge(&running.api, &bob).await;
    acknowledge(&running.api, &carol).await;
    backend.fails([Fault::Hang]);
    group.say(&alice, "are you there?").await.ok();
    decide(&running, "block", "bob").await;
    group.say(&carol, "I am").await.ok();
    assert_eq!(backend.next_words().await, "mailbox carol");
    assert_eq!(backend.next_words().await, "mailbox alice");
    decide(&running, "unblock", "bob").await;
    assert_eq!(backend.next_words().await, "mailbox bob");
}

/// The binary with a webhook.
fn process(data: &std::path::Path, authority: &str) -> Process {
    let url = format!("http://{authority}/hook");
    Process::spawn(command(data).args(["--no-quotas", "--webhook", &url]).stderr(Stdio::piped()))
}

fn key_of(process: &Process) -> String {
    let key = process.greeting.iter().find_map(|line| line.strip_prefix("ledger key   "));
    key.unwrap().to_owned()
}

/// Registers Alice and Bob, who are in a group.
async fn acquaint(api: &Api) -> (Device, Device) {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    for device in [&alice, &bob] {
        api.register(device).await.ok();
    }
    api.upload(&bob, &bob.packages(SystemClock.now(), 12)).await.ok();
    let group = Group::new(api, "group-1");
    group.make(&alice).await.ok();
    group.add(&alice, 0, "bob").await.ok();
    (alice, bob)
}

#[actix_web::test]
async fn a_backend_that_was_down_gets_what_it_missed_and_the_log_says_so_once() {
    let dir = tempfile::tempdir().unwrap();
    let (listener, authority) = listener();
    drop(listener);
    let mut process = process(dir.path(), &authority);
    let (alice, bob) = acquaint(&process.api).await;
    process.said("the webhook is not received");
    let group = Group::new(&process.api, "group-1");
    for words in ["one", "two", "three"] {
        group.say(&alice, words).await.ok();
        group.say(&bob, words).await.ok();
    }
    let listener = TcpListener::bind(&authority).unwrap();
    let mut backend = Backend::serve(listener, &key_of(&process), Arc::new(SystemClock));
    assert_eq!(backend.next_words().await, "invitation bob");
    assert_eq!(backend.next_words().await, "mailbox alice", "one for all three");
    process.said("the webhook is received again");
    assert!(process.terminate().success());
}

#[actix_web::test]
async fn no_event_is_lost_when_the_server_is_killed() {
    let kills: usize = env::var("KEYPOOL_WEBHOOK_KILLS").map_or(4, |count| count.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let (listener, authority) = listener();
    let mut process = process(dir.path(), &authority);
    let mut backend = Backend::serve(listener, &key_of(&process), Arc::new(SystemClock));
    let (alice, bob) = acquaint(&process.api).await;
    assert_eq!(backend.next_words().await, "invitation bob");
    acknowledge(&process.api, &bob).await;
    let mut told: Vec<WebhookEvent> = Vec::new();
    for round in 0..kills {
        let group = Group::new(&process.api, "group-1");
        let said = group.say(&alice, &format!("{round}")).await.ok();
        process.kill();
        process = self::process(dir.path(), &authority);
        let position = said.body["position"].as_u64().unwrap();
        while told.last().is_none_or(|last| last.position != position) {
            let event = backend.next().await;
            // An event that comes again is known by its id.
            if event.kind == WebhookKind::Mailbox && told.iter().all(|told| told.id != event.id) {
                told.push(event);
            }
        }
        acknowledge(&process.api, &bob).await;
    }
    assert_eq!(told.len(), kills);
    assert!(told.is_sorted_by_key(|event| event.position), "{told:?}");
    backend.handle.stop(false).await;
}
