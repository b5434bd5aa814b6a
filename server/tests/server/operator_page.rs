//! The operator's page: its views over the data of devices, live, its actions, and who may open it.

use std::{fs, time::Duration};

use actix_rt::time::timeout;
use keypool_ledger::restore_backup;
use keypool_server::Server;
use reqwest::{Client, RequestBuilder, Response, redirect::Policy};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Answer, Api, Device, Running, answer, local_settings};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// Only a hang reaches it.
const DEADLINE: Duration = Duration::from_mins(1);
/// How long payloads stay at least.
const DAY: Duration = Duration::from_hours(24);

/// A browser, as far as the page can tell.
struct Browser {
    http: Client,
    site: String,
    cookie: Option<String>,
}

impl Browser {
    fn of(site: String) -> Self {
        let http = Client::builder().redirect(Policy::none()).build().unwrap();
        Self { http, site, cookie: None }
    }

    fn with_cookie(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.cookie {
            Some(cookie) => request.header("cookie", cookie),
            None => request,
        }
    }

    async fn get(&self, path: &str) -> Answer {
        let request = self.http.get(format!("{}{path}", self.site)).header("accept", "text/html");
        answer(self.with_cookie(request)).await.unwrap()
    }

    async fn html(&self, path: &str) -> String {
        let answered = self.get(path).await;
        assert_eq!(answered.status, 200, "{path}");
        assert_eq!(answered.header("content-type"), "text/html; charset=utf-8");
        let policy = answered.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; style-src 'self'"), "{policy}");
        String::from_utf8(answered.bytes).unwrap()
    }

    fn form(&self, path: &str, form: &str) -> RequestBuilder {
        let request = self.http.post(format!("{}{path}", self.site)).body(form.to_owned());
        self.with_cookie(request.header("content-type", "application/x-www-form-urlencoded"))
    }

    /// Sends a form as this page sends it.
    async fn submit(&self, path: &str, form: &str) -> Answer {
        answer(self.form(path, form).header("origin", &self.site)).await.unwrap()
    }

    async fn live(&self) -> Response {
        let request = self.http.get(format!("{}/page/live", self.site));
        let response = self.with_cookie(request).send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        response
    }

    /// Waits for live figures as they are wanted.
    async fn figures(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut response = self.live().await;
        let read = async {
            let mut come = String::new();
            loop {
                let piece = response.chunk().await.unwrap().unwrap();
                come.push_str(str::from_utf8(&piece).unwrap());
                while let Some((block, rest)) = come.split_once("\n\n") {
                    let figures = serde_json::from_str(block.strip_prefix("data: ").unwrap());
                    come = rest.to_owned();
                    if let Some(figures) = figures.ok().filter(&wanted) {
                        return figures;
                    }
                }
            }
        };
        timeout(DEADLINE, read).await.unwrap()
    }

    /// Waits until the page has read the whole log, which live figures alone begin: a page may have stayed open over a
    /// restart of the server.
    async fn caught_up(&self) -> Value {
        self.figures(|figures| figures["reading"] == "").await
    }
}

fn browser_of(running: &Running) -> Browser {
    Browser::of(running.admin_url())
}

/// A server with a token for its operator.
fn guarded(dir: &tempfile::TempDir) -> (Running, Browser) {
    let file = dir.path().join("token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let running = Running::start_with(|settings| {
        settings.admin_listen = "0.0.0.0:0".parse().unwrap();
        settings.admin_token_file = Some(file);
    });
    let port = running.server.admin_address().port();
    (running, Browser::of(format!("http://127.0.0.1:{port}")))
}

#[actix_web::test]
async fn the_page_shows_what_devices_have_done() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 12).await;
    let id = Uuid::new_v4();
    let reserved = running.api.reserve_as(&alice, "bob", id).await.ok();
    let browser = browser_of(&running);
    let figures = browser.caught_up().await;
    assert_eq!([&figures["healthy"], &figures["empty"], &figures["open"]], ["1", "1", "1"]);
    let overview = browser.html("/").await;
    assert!(!overview.contains("to go."), "{overview}");
    assert!(overview.contains("takes requests"), "{overview}");

    assert!(browser.html("/page/pools").await.contains("bob/main"));
    let empty = browser.html("/page/pools?level=empty").await;
    assert!(empty.contains("alice/main") && !empty.contains("bob/main"), "{empty}");
    let pool = browser.html("/page/pool?name=bob").await;
    assert!(pool.contains(&id.to_string()) && pool.contains("alice/main"), "{pool}");
    assert!(pool.contains("the first device under the name"), "{pool}");
    let first = browser.html("/page/history?name=bob&at=1").await;
    assert!(first.contains("registered: key"), "{first}");
    let package = reserved.text("keypackage_ref");
    for named in [package, &id.to_string()] {
        let biography = browser.html(&format!("/page/search?q={named}")).await;
        assert!(biography.contains("alice/main reserved it for 60.0 s"), "{biography}");
    }
    let refused = running.api.reserve(&alice, "nobody").await;
    assert_eq!(refused.status, 404);
    let request_id = refused.header("x-request-id");
    let told = browser.html(&format!("/page/search?q={request_id}")).await;
    assert!(told.contains("alice/main asked /keypackages/reserve about nobody"), "{told}");
    let missing = browser.get("/page/nothing").await;
    assert_eq!(missing.status, 404);
    assert!(String::from_utf8_lossy(&missing.bytes).contains("No such page"));

    running.api.claim(&alice, "/keypackages/release", &reserved).await.ok();
    let figures = browser.figures(|figures| figures["open"] == json!("0")).await;
    assert_eq!(figures["lapsed"], json!("0"), "it was given back");
    let script = browser.get("/page/page.js").await;
    let again = browser.http.get(format!("{}/page/page.js", browser.site));
    let again = answer(again.header("if-none-match", script.header("etag"))).await.unwrap();
    assert_eq!((script.status, again.status), (200, 304));
}

#[actix_web::test]
async fn a_browser_signs_in_with_the_token_and_opens_the_page_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (_running, mut browser) = guarded(&dir);
    for path in ["/", "/page/pools", "/page/pool?name=bob", "/page/confirm"] {
        let asked = browser.get(path).await;
        assert_eq!((asked.status, asked.header("location")), (303, "/page/sign-in"), "{path}");
    }
    let unasked = browser.http.get(format!("{}/", browser.site));
    assert_eq!(answer(unasked).await.unwrap().status, 401, "a program is told what is missing");
    assert!(browser.html("/page/sign-in").await.contains("--admin-token-file"));
    assert_eq!(browser.get("/page/page.css").await.status, 200);

    let wrong = browser.submit("/page/sign-in", "token=wrong").await;
    assert_eq!((wrong.status, wrong.headers.get("set-cookie")), (403, None));
    let right = browser.submit("/page/sign-in", &format!("token={TOKEN}")).await;
    assert_eq!((right.status, right.header("location")), (303, "/"));
    let cookie = right.header("set-cookie");
    assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
    browser.cookie = cookie.split(';').next().map(str::to_owned);
    assert!(browser.html("/").await.contains("Overview"));
    browser.caught_up().await;

    // The cookie is for the page: programs and pages of other origins have no use for it.
    for path in ["/metrics", "/ledger/events"] {
        assert_eq!(browser.get(path).await.status, 401, "{path}");
    }
    let release = browser.http.post(format!("{}/names/release", browser.site));
    let release = browser.with_cookie(release).header("content-type", "application/json");
    assert_eq!(answer(release.body("{\"user\":\"bob\"}")).await.unwrap().status, 401);
    browser.cookie = Some("keypool-operator=0123456789abcdef0123456789abcdef".to_owned());
    assert_eq!(browser.get("/").await.status, 303);
}

#[actix_web::test]
async fn the_token_also_opens_the_page_for_programs() {
    let dir = tempfile::tempdir().unwrap();
    let (_running, browser) = guarded(&dir);
    let request = browser.http.get(format!("{}/", browser.site));
    let request = request.header("authorization", format!("Bearer {TOKEN}"));
    assert_eq!(answer(request).await.unwrap().status, 200);
}

#[actix_web::test]
async fn an_action_is_taken_for_a_form_of_this_page_alone() {
    let (bob, tablet) = (Device::new("bob"), Device::new("bob/tablet"));
    let running = Running::start().with(&[&bob], 2).await;
    let voucher = bob.vouches_for(&running.api, &tablet).await;
    running.api.register_with(&tablet, &voucher).await.ok();
    let browser = browser_of(&running);
    let form = "action=remove-device&device=bob%2Ftablet";
    let confirmation = browser.html(&format!("/page/confirm?{form}")).await;
    assert!(confirmation.contains("its key is nobody"), "{confirmation}");

    let act = || browser.form("/page/act", form);
    let foreign = [
        act(),
        act().header("origin", "http://evil.example"),
        act().header("origin", "null"),
        act().header("origin", &browser.site).header("sec-fetch-site", "cross-site"),
        act().header("origin", &browser.site).header("sec-fetch-site", "same-site"),
    ];
    for request in foreign {
        assert_eq!(answer(request).await.unwrap().status, 403);
    }
    let text = browser.http.post(format!("{}/page/act", browser.site)).body(form);
    let text = text.header("content-type", "text/plain").header("origin", &browser.site);
    assert_eq!(answer(text).await.unwrap().status, 415);
    assert_eq!(browser.get("/page/act").await.status, 405);
    assert!(registered(&running, &bob).await.contains(&"tablet".to_owned()));

    let done = browser.submit("/page/act", form).await;
    assert_eq!(done.status, 200);
    assert!(String::from_utf8_lossy(&done.bytes).contains("bob/tablet is removed"));
    assert_eq!(registered(&running, &bob).await, ["main"]);
    let again = browser.submit("/page/act", form).await;
    assert_eq!(again.status, 409);
    let history = browser.html("/page/pool?name=bob%2Ftablet").await;
    assert!(history.contains("device removed") && history.contains("introduced by bob/main"));

    let released = browser.submit("/page/act", "action=release-name&user=bob").await;
    assert_eq!(released.status, 200);
    let pool = browser.html("/page/pool?name=bob").await;
    assert!(pool.contains("the operator released the name"), "{pool}");
    let unknown = browser.submit("/page/act", "action=release-name&user=nobody").await;
    assert_eq!(unknown.status, 409);
    assert_eq!(browser.submit("/page/act", "action=burn").await.status, 400);
}

#[actix_web::test]
async fn every_action_is_taken_for_a_form_of_this_page_alone_and_asks_first() {
    let bob = Device::new("bob");
    let place = tempfile::tempdir().unwrap();
    let running = Running::start_with(|settings| {
        settings.retain = Some(DAY);
        settings.backups = Some(place.path().to_owned());
    });
    let running = running.with(&[&bob], 2).await;
    let browser = browser_of(&running);
    let package = "0".repeat(64);
    let forms = [
        ("action=block-user&user=bob", "No request of a device of bob is carried out"),
        ("action=unblock-user&user=bob", "are served again"),
        (&format!("action=revoke-package&package={package}"), "is handed to nobody any more"),
        ("action=prune", "leave the log"),
        ("action=back-up", "copies the log and the key of its ledger"),
    ];
    let before = running.api.get(&bob, "/keypackages/status").await.ok();
    for (form, consequence) in forms {
        let confirmation = browser.html(&format!("/page/confirm?{form}")).await;
        assert!(confirmation.contains(consequence), "{confirmation}");
        let act = || browser.form("/page/act", form);
        let foreign = [
            act(),
            act().header("origin", "http://evil.example"),
            act().header("origin", &browser.site).header("sec-fetch-site", "cross-site"),
        ];
        for request in foreign {
            assert_eq!(answer(request).await.unwrap().status, 403, "{form}");
        }
        let text = browser.http.post(format!("{}/page/act", browser.site)).body(form.to_owned());
        let text = text.header("content-type", "text/plain").header("origin", &browser.site);
        assert_eq!(answer(text).await.unwrap().status, 415, "{form}");
    }
    let after = running.api.get(&bob, "/keypackages/status").await.ok();
    assert_eq!(after.body, before.body, "nothing has happened");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "no backup was made");
}

#[actix_web::test]
async fn a_user_is_blocked_and_unblocked_on_the_page() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 2).await;
    let browser = browser_of(&running);
    let pool = browser.html("/page/pool?name=bob").await;
    assert!(pool.contains("Block bob…") && !pool.contains("You have blocked"), "{pool}");
    let asked = browser.html("/page/confirm?action=block-user&user=bob").await;
    assert!(asked.contains("Why, for those who read the log"), "{asked}");

    let form = "action=block-user&user=bob&reason=sells+%3Cb%3Espam";
    let done = browser.submit("/page/act", form).await;
    let said = String::from_utf8_lossy(&done.bytes).into_owned();
    assert!(done.status == 200 && said.contains("Done: bob is blocked, as record "), "{said}");
    assert_eq!(running.api.get(&bob, "/keypackages/status").await.code(), "suspended");
    assert_eq!(running.api.reserve(&alice, "bob").await.code(), "invitee_suspended");
    let pool = browser.html("/page/pool?name=bob").await;
    assert!(pool.contains("You have blocked") && pool.contains("Unblock bob…"), "{pool}");
    assert!(pool.contains("the operator blocked bob: sells &lt;b&gt;spam"), "{pool}");
    let record = running.api.http.get(format!("{}/names/blocked", running.admin_url()));
    let position = answer(record).await.unwrap().body["users"][0]["position"].clone();
    let told = browser.html(&format!("/page/search?q={position}")).await;
    assert!(told.contains("user suspended: the operator blocked bob"), "{told}");
    let again = browser.submit("/page/act", "action=block-user&user=bob").await;
    assert!(String::from_utf8_lossy(&again.bytes).contains("bob is blocked already"));

    let done = browser.submit("/page/act", "action=unblock-user&user=bob").await;
    assert!(String::from_utf8_lossy(&done.bytes).contains("Done: bob is unblocked"));
    running.api.reserve(&alice, "bob").await.ok();
    let pool = browser.html("/page/pool?name=bob").await;
    assert!(pool.contains("the operator unblocked bob") && !pool.contains("You have blocked"));
    for wrong in ["action=block-user&user=nobody", "action=block-user&user=bob&reason=%1b%5b2J"] {
        let refused = browser.submit("/page/act", wrong).await;
        let said = String::from_utf8_lossy(&refused.bytes).into_owned();
        assert!(refused.status == 409 && said.contains("Nothing was changed: "), "{wrong}: {said}");
    }
}

#[actix_web::test]
async fn a_package_is_withdrawn_on_the_page() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 1).await;
    let reserved = running.api.reserve(&alice, "bob").await.ok();
    running.api.claim(&alice, "/keypackages/release", &reserved).await.ok();
    let package = reserved.text("keypackage_ref");
    let browser = browser_of(&running);
    let biography = browser.html(&format!("/page/search?q={package}")).await;
    assert!(biography.contains("Withdraw package"), "{biography}");
    let form = format!("action=revoke-package&package={package}");
    let done = browser.submit("/page/act", &form).await;
    let said = String::from_utf8_lossy(&done.bytes).into_owned();
    assert!(done.status == 200 && said.contains("of bob/main is withdrawn (record "), "{said}");
    assert_eq!(running.api.reserve(&alice, "bob").await.code(), "pool_exhausted");
    let biography = browser.html(&format!("/page/search?q={package}")).await;
    assert!(biography.contains("because the operator of the server withdrew it"), "{biography}");
    assert!(!biography.contains("Withdraw package"), "{biography}");
    let again = browser.submit("/page/act", &form).await;
    assert!(String::from_utf8_lossy(&again.bytes).contains("is withdrawn already"));
    let unknown = format!("action=revoke-package&package={}", "0".repeat(64));
    let refused = browser.submit("/page/act", &unknown).await;
    assert!(String::from_utf8_lossy(&refused.bytes).contains("is not known here"));
    assert_eq!(browser.submit("/page/act", "action=revoke-package&package=x").await.status, 400);
}

#[actix_web::test]
async fn the_log_is_pruned_on_the_page_where_payloads_leave_it() {
    let running = Running::start().with(&[&Device::new("bob")], 1).await;
    let browser = browser_of(&running);
    assert!(!browser.html("/").await.contains("Prune the log now"));
    let refused = browser.submit("/page/act", "action=prune").await;
    let said = String::from_utf8_lossy(&refused.bytes).into_owned();
    assert!(refused.status == 409 && said.contains("started with --retain"), "{said}");

    let running = Running::start_with(|settings| settings.retain = Some(DAY));
    let browser = browser_of(&running);
    assert!(browser.html("/").await.contains("Prune the log now"));
    let done = browser.submit("/page/act", "action=prune").await;
    let said = String::from_utf8_lossy(&done.bytes).into_owned();
    assert!(said.contains("Done: 0 bytes of payloads have left 0 segments of the log"), "{said}");
}

#[actix_web::test]
async fn a_backup_is_made_on_the_page_and_opens() {
    let (place, bob) = (tempfile::tempdir().unwrap(), Device::new("bob"));
    let running = Running::start().with(&[&bob], 1).await;
    let browser = browser_of(&running);
    assert!(!browser.html("/").await.contains("Back up now"));
    let refused = browser.submit("/page/act", "action=back-up").await;
    let said = String::from_utf8_lossy(&refused.bytes).into_owned();
    assert!(refused.status == 409 && said.contains("--backups DIR"), "{said}");

    let backups = place.path().join("backups");
    fs::create_dir(&backups).unwrap();
    let running = Running::start_with(|settings| settings.backups = Some(backups.clone()));
    let running = running.with(&[&bob], 3).await;
    let browser = browser_of(&running);
    assert!(browser.html("/").await.contains("Back up now"));
    for name in ["2025-12-22T10-40-00Z", "2025-12-22T10-40-00Z-2"] {
        let done = browser.submit("/page/act", "action=back-up").await;
        let said = String::from_utf8_lossy(&done.bytes).into_owned();
        let copy = backups.join(name);
        let expected = format!("Done: {} has the log up to record ", copy.display());
        assert!(done.status == 200 && said.contains(&expected), "{said}");
        let data = place.path().join(format!("restored-{name}"));
        fs::create_dir(&data).unwrap();
        restore_backup(&copy, &data.join("log"), &["checkpoint.key", "checkpoint"]).unwrap();
        let restored = Server::start(local_settings(&data), running.clock.clone()).unwrap();
        assert_eq!(restored.ledger_key(), running.server.ledger_key());
        let api = Api::new(restored.url(), running.clock.clone());
        let status = api.get(&bob, "/keypackages/status").await.ok();
        assert_eq!(status.body["available"], 3);
    }
}

async fn registered(running: &Running, device: &Device) -> Vec<String> {
    running.api.devices_of(device).await.devices.devices
}

#[actix_web::test]
async fn a_server_with_an_open_page_stops_at_once() {
    let running = Running::start().with(&[&Device::new("alice")], 1).await;
    let browser = browser_of(&running);
    browser.caught_up().await;
    let mut live = browser.live().await;
    live.chunk().await.unwrap();
    timeout(DEADLINE, running.server.stop()).await.unwrap();
    while let Ok(Some(_)) = live.chunk().await {}
}
