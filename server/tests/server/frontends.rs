//! Frontends, over HTTP: the app's backend signs requests for the devices of its users.

use std::{fs, path::PathBuf, process::Stdio, time::Duration};

use keypool_ledger::{Event, SignatureKey};
use keypool_projections::{
    quota::{Quotas, Rate},
    statement::Agreement,
};
use keypool_server::{Server, Settings};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    harness::{
        Answer, Api, Device, Draft, GROUP, NOW, Process, Running, answer, claim, command,
        local_settings, upload,
    },
    quotas::send_from,
    stream::Listener,
};

/// A server whose file of frontend keys has that of `backend`.
struct Backed {
    running: Running,
    backend: Device,
    dir: TempDir,
}

impl Backed {
    fn start() -> Self {
        Self::start_with(|_| {})
    }

    fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (file, backend) = (dir.path().join("frontends"), Device::new("backend"));
        fs::write(&file, format!("# the app's backend\n{}\n", backend.keyid())).unwrap();
        let running = Running::start_with(|settings| {
            settings.registration.frontend_key = Some(file);
            change(settings);
        });
        Self { running, backend, dir }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("frontends")
    }

    /// Puts other keys into the file, and has it read again.
    fn write(&self, keys: &[&Device]) {
        let lines: Vec<String> = keys.iter().map(|key| key.keyid().to_string()).collect();
        fs::write(self.file(), lines.join("\n")).unwrap();
        self.running.server.reload().unwrap();
        assert_eq!(self.running.server.frontend_keys(), Some(keys.len()));
    }

    /// The answer to a request that the backend signs for a device.
    async fn acts(&self, device: &str, draft: &Draft) -> Answer {
        self.running.api.send(&self.backend, &draft.acting_for(device)).await
    }

    async fn registers(&self, device: &Device) -> Answer {
        self.acts(&device.pool.to_string(), &registration(device)).await
    }
}

/// The registration of a device by a frontend.
fn registration(device: &Device) -> Draft {
    let (user, name) = (device.pool.user(), device.pool.device());
    Draft::post("/devices", &json!({ "user": user, "device": name, "keyid": device.keyid() }))
}

fn status() -> Draft {
    Draft::get("/keypackages/status")
}

fn removal(device: &str) -> Draft {
    Draft::post("/devices/remove", &json!({ "device": device }))
}

fn reserving(user: &str) -> Draft {
    Draft::post("/keypackages/reserve", &json!({ "target_user": user, "group_id": GROUP }))
}

#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str, words: &str) {
    assert_eq!((answer.status, answer.code()), (status, code), "{}", answer.body);
    assert!(answer.text("detail").contains(words), "{}", answer.body);
}

#[track_caller]
fn unauthenticated(answer: &Answer, words: &str) {
    refused(answer, 401, "unauthenticated", words);
}

/// The registrations in the history of a device's user: the key, and the frontend's.
async fn registrations(api: &Api, device: &Device) -> Vec<Value> {
    let history = api.devices_of(device).await.devices.history;
    let registered = |event: &Event| matches!(event, Event::Registered { .. });
    let events = history.iter().map(|change| &change.event).filter(|event| registered(event));
    events.map(|event| serde_json::to_value(event).unwrap()["registered"].take()).collect()
}

#[actix_web::test]
async fn a_frontend_registers_devices_and_acts_for_each() {
    let backed = Backed::start();
    let api = &backed.running.api;
    let [alice, bob, tablet] = ["alice", "bob/phone", "bob/tablet"].map(Device::new);
    // Further devices of a user need no voucher: the frontend knows its users.
    for device in [&bob, &alice, &tablet] {
        let registered = backed.registers(device).await;
        assert_eq!(registered.status, 201, "{}", registered.body);
        assert_eq!(registered.text("keyid"), device.keyid().to_string());
    }
    assert_eq!(backed.registers(&bob).await.status, 200);
    for registered in registrations(api, &bob).await {
        assert_eq!(registered["frontend"], json!(backed.backend.keyid()), "{registered}");
    }

    let packages = Draft::post("/keypackages/upload", &upload(&bob.packages(NOW, 2)));
    backed.acts("bob/phone", &packages).await.ok();
    // The device's own key is good for the same.
    let counts = backed.acts("bob/phone", &status()).await.ok();
    assert_eq!(counts.body, api.get(&bob, "/keypackages/status").await.ok().body);
    assert_eq!(counts.body["available"], 2);

    let reserved = backed.acts("alice/main", &reserving("bob")).await.ok();
    let spend = || Draft::post("/keypackages/spend", &claim("/spend", &reserved));
    let by_bob = backed.acts("bob/tablet", &spend()).await;
    assert_eq!(by_bob.code(), "reservation_mismatch", "alice holds it: {}", by_bob.body);
    backed.acts("alice/main", &spend()).await.ok();
    let rotation = Draft::post("/keypackages/rotate", &upload(&bob.packages(NOW, 1)));
    assert_eq!(backed.acts("bob/phone", &rotation).await.ok().body["pool"]["available"], 1);

    let removed = backed.acts("bob/phone", &removal("phone")).await.ok();
    assert_eq!(removed.text("device"), "phone");
    unauthenticated(&backed.acts("bob/phone", &status()).await, "bob/phone is not registered");
    let again = backed.registers(&bob).await;
    refused(&again, 409, "key_retired", "");
    assert_eq!(backed.registers(&bob.impostor()).await.status, 201);
}

#[actix_web::test]
async fn the_device_that_a_frontend_names_is_signed_plain_and_registered() {
    let backed = Backed::start();
    let (api, bob) = (&backed.running.api, Device::new("bob"));
    api.register(&bob).await.ok();
    let packages = Draft::post("/keypackages/upload", &upload(&bob.packages(NOW, 1)));
    for draft in [status(), packages] {
        let unnamed = api.send(&backed.backend, &draft).await;
        unauthenticated(&unnamed, "no caller: ");
        assert!(unnamed.text("detail").contains("is a frontend key"), "{}", unnamed.body);
        let malformed = backed.acts("bob/phone/2", &draft).await;
        unauthenticated(&malformed, "name the device, USER/DEVICE");
        let unknown = backed.acts("carol/main", &draft).await;
        unauthenticated(&unknown, "no caller: carol/main is not registered");
        // The header is there and not covered, or is put in the place of the one that was signed.
        let uncovered = api.signed(&backed.backend, &draft).header("keypool-caller", "bob/main");
        unauthenticated(&answer(uncovered).await.unwrap(), "must cover exactly");
        let mut headers =
            draft.acting_for("carol/main").headers(&backed.backend, api.authority(), NOW);
        let last = headers.last_mut().unwrap();
        assert_eq!(*last, ("keypool-caller", "carol/main".to_owned()));
        "bob/main".clone_into(&mut last.1);
        let altered = answer(api.with_headers(&draft, &headers)).await.unwrap();
        unauthenticated(&altered, "does not verify");
        headers.push(("keypool-caller", "carol/main".to_owned()));
        let twice = answer(api.with_headers(&draft, &headers)).await.unwrap();
        unauthenticated(&twice, "the header keypool-caller must be there once");
        // A stranger who names the backend's key learns nothing of carol.
        let forged = Device { key: bob.impostor().key, ..backed.backend.clone() };
        let mut headers = draft.acting_for("carol/main").headers(&forged, api.authority(), NOW);
        let (forged, backend) = (forged.keyid().to_string(), backed.backend.keyid().to_string());
        headers[0].1 = headers[0].1.replace(&forged, &backend);
        let forged = answer(api.with_headers(&draft, &headers)).await.unwrap();
        unauthenticated(&forged, "does not verify");
    }
}

#[actix_web::test]
async fn the_header_is_refused_with_every_other_key_and_without_a_signature() {
    let insecure = |settings: &mut Settings| settings.insecure_no_auth = true;
    let backed = Backed::start_with(insecure);
    let api = &backed.running.api;
    let [alice, bob, mallory] = ["alice", "bob", "mallory"].map(Device::new);
    for device in [&alice, &bob] {
        api.register(device).await.ok();
    }
    let drafts = [status(), removal("main"), registration(&mallory), reserving("bob")];
    for draft in drafts {
        for (key, device) in [(&alice, "bob/main"), (&alice, "alice/main"), (&mallory, "bob/main")]
        {
            let signed = api.send(key, &draft.acting_for(device)).await;
            unauthenticated(&signed, "no caller: Keypool-Caller is for the frontend keys");
            let uncovered = api.signed(key, &draft).header("keypool-caller", device);
            unauthenticated(&answer(uncovered).await.unwrap(), "must cover exactly");
        }
        let unsigned = [
            ("keypool-caller", "bob/main".to_owned()),
            ("x-keypool-caller", "bob/main".to_owned()),
            ("idempotency-key", draft.key.to_string()),
            ("content-type", "application/json".to_owned()),
        ];
        let unsigned = answer(api.with_headers(&draft, &unsigned)).await.unwrap();
        unauthenticated(&unsigned, "no signature");
    }
    assert_eq!(api.devices_of(&bob).await.devices.devices, ["main"], "he was not removed");
    // A key is registered by its own signature, or by a frontend.
    let given = api.send(&mallory, &registration(&alice.impostor())).await;
    refused(&given, 400, "bad_request", "keyid is for frontends");
}

#[actix_web::test]
async fn a_request_repeated_for_another_device_is_another_request() {
    let backed = Backed::start();
    let [alice, carol, bob] = ["alice", "carol", "bob"].map(Device::new);
    for device in [&alice, &carol, &bob] {
        backed.registers(device).await.ok();
    }
    backed.running.api.upload(&bob, &bob.packages(NOW, 2)).await.ok();
    for draft in [reserving("bob"), removal("main")] {
        let first = backed.acts("alice/main", &draft).await.ok();
        assert_eq!(backed.acts("alice/main", &draft).await.code(), first.code());
        let other = backed.acts("carol/main", &draft).await;
        refused(&other, 409, "idempotency_mismatch", "");
    }
    // Alice has removed herself, and hears of it again.
    let gone = removal("main");
    let first = backed.acts("carol/main", &gone).await.ok();
    assert_eq!(backed.acts("carol/main", &gone).await.ok().body, first.body);
}

#[actix_web::test]
async fn two_frontends_act_for_the_same_devices_until_one_leaves_the_file() {
    let backed = Backed::start();
    let (api, other, bob) = (&backed.running.api, Device::new("other"), Device::new("bob"));
    backed.write(&[&backed.backend, &other]);
    let registering = registration(&bob);
    backed.acts("bob/main", &registering).await.ok();
    // The other one repeats the request, and the same request anew.
    let repeated = api.send(&other, &registering.acting_for("bob/main")).await;
    assert_eq!(repeated.status, 201, "{}", repeated.body);
    assert_eq!(api.send(&other, &registration(&bob).acting_for("bob/main")).await.status, 200);
    let registered = registrations(api, &bob).await;
    assert_eq!(registered.len(), 1);
    assert_eq!(registered[0]["frontend"], json!(backed.backend.keyid()));
    let packages = Draft::post("/keypackages/upload", &upload(&bob.packages(NOW, 1)));
    let first = backed.acts("bob/main", &packages).await.ok();
    assert_eq!(api.send(&other, &packages.acting_for("bob/main")).await.ok().body, first.body);

    let draft = Draft::get("/keypackages/stream").acting_for("bob/main");
    let mut stream = Listener::by(api, &backed.backend, &draft, None).await;
    assert_eq!(stream.next().await.unwrap().1, "low");
    backed.write(&[&other]);
    unauthenticated(&backed.acts("bob/main", &status()).await, "is none; leave the header out");
    unauthenticated(&api.send(&backed.backend, &status()).await, "unregistered key");
    api.send(&other, &status().acting_for("bob/main")).await.ok();
    // What comes from now on is not for the one that has left.
    api.upload(&bob, &bob.packages(NOW, 1)).await.ok();
    assert!(stream.next().await.is_none());
}

#[actix_web::test]
async fn the_file_is_read_again_when_told_so_and_a_wrong_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (file, data) = (dir.path().join("frontends"), dir.path().join("data"));
    let [old, new, bob] = ["old", "new", "bob"].map(Device::new);
    fs::write(&file, old.keyid().to_string()).unwrap();
    let mut server = command(&data);
    let server = server.arg("--frontend-key").arg(&file).stderr(Stdio::piped());
    let mut server = Process::spawn(server);
    let api = server.api.clone();
    api.send(&old, &registration(&bob).acting_for("bob/main")).await.ok();

    fs::write(&file, format!("{}\nAAAA\n", new.keyid())).unwrap();
    let said = server.reload("who may register");
    assert!(said.contains("line 2: \"AAAA\" is not the base64url of an Ed25519"), "{said}");
    api.send(&old, &status().acting_for("bob/main")).await.ok();
    assert_eq!(api.send(&new, &status().acting_for("bob/main")).await.status, 401);
    fs::write(&file, new.keyid().to_string()).unwrap();
    let said = server.reload("who may register");
    assert!(said.contains("read again"), "{said}");
    assert_eq!(api.send(&old, &status().acting_for("bob/main")).await.status, 401);
    api.send(&new, &status().acting_for("bob/main")).await.ok();
    assert!(server.terminate().success());
}

#[actix_web::test]
async fn a_frontend_key_becomes_nobodys() {
    let backed = Backed::start();
    let (api, backend) = (&backed.running.api, &backed.backend);
    let own = Device { pool: "bob/main".parse().unwrap(), ..backend.clone() };
    refused(&backed.registers(&own).await, 403, "not_allowed", "no device's and no recovery key");
    unauthenticated(&api.register(&own).await, "is a frontend key");
    let bob = Device::new("bob");
    backed.registers(&bob).await.ok();
    // It follows no device's key, and recovers none, signed as itself or for a device.
    let list = api.devices_of(&bob).await;
    let until = NOW.after(Duration::from_mins(4));
    let key = backend.keyid();
    let mut recovery = bob.states_on(&list, &bob.pool, Agreement::Recover(&key), until);
    recovery["user"] = json!("bob");
    recovery["recovery_keyid"] = json!(bob.keyid());
    let rotation = bob.agrees_to(api, &own).await;
    let with_packages =
        json!({ "keypackages": upload(&own.packages(NOW, 1))["keypackages"], "key": rotation });
    for (path, body) in [
        ("/devices/rotate", &rotation),
        ("/keypackages/rotate", &with_packages),
        ("/devices/recover", &recovery),
    ] {
        let draft = Draft::post(path, body);
        unauthenticated(&api.send(backend, &draft).await, "is a frontend key");
        let acting = backed.acts("bob/main", &draft).await;
        refused(&acting, 403, "not_allowed", "the new key signs this request itself");
    }
    let mut words = bob.states(api, &bob.pool, Agreement::RecoveryKey(&key)).await;
    words["recovery_keyid"] = json!(key);
    words["keyid"] = json!(bob.keyid());
    let words = Draft::post("/devices/recovery-key", &words);
    refused(&api.send(&bob, &words).await, 403, "not_allowed", "no recovery key");
    refused(&backed.acts("bob/main", &words).await, 403, "not_allowed", "no recovery key");
}

#[actix_web::test]
async fn a_key_of_a_user_in_the_file_acts_for_its_user_alone() {
    let backed = Backed::start();
    let api = &backed.running.api;
    let [alice, bob, words] = ["alice", "bob", "words"].map(Device::new);
    for device in [&alice, &bob] {
        api.register(device).await.ok();
    }
    let key = words.keyid();
    let mut body = alice.states(api, &alice.pool, Agreement::RecoveryKey(&key)).await;
    body["recovery_keyid"] = json!(key);
    body["keyid"] = json!(alice.keyid());
    api.post(&alice, "/devices/recovery-key", body).await.ok();
    backed.write(&[&alice, &words]);
    for key in [&alice, &words] {
        for device in ["alice/main", "bob/main"] {
            let acting = api.send(key, &status().acting_for(device)).await;
            unauthenticated(&acting, "give the frontend a key of its own");
            let acting = api.send(key, &removal("main").acting_for(device)).await;
            unauthenticated(&acting, "give the frontend a key of its own");
        }
    }
    // For its user it is as good as before.
    api.get(&alice, "/keypackages/status").await.ok();
    api.get(&words, "/users/alice/devices").await.ok();
    // A device that is removed, as a stolen one, acts for nobody after that, nor does its open stream.
    let mut stream = Listener::of(api, &alice, None).await;
    assert_eq!(stream.next().await.unwrap().1, "empty");
    api.remove(&alice, "main").await.ok();
    assert!(stream.next().await.is_none());
    let removed = api.send(&alice, &status().acting_for("bob/main")).await;
    unauthenticated(&removed, "give the frontend a key of its own");
}

#[actix_web::test]
async fn a_frontend_is_bound_by_what_a_registration_must_be() {
    let backed = Backed::start();
    let api = &backed.running.api;
    let [alice, bob] = ["alice", "bob"].map(Device::new);
    let other = backed.acts("alice/main", &registration(&bob)).await;
    refused(&other, 400, "bad_request", "Keypool-Caller names alice/main, and the body bob/main");
    let missing = Draft::post("/devices", &json!({ "user": "bob" }));
    let missing = backed.acts("bob/main", &missing).await;
    refused(&missing, 400, "bad_request", "keyid is missing");
    // A key of another scheme, and 32 bytes that are no point of the curve.
    for no_key in [SignatureKey::new(&[7; 65]), SignatureKey::new(&[2; 32])] {
        let body = json!({ "user": "bob", "keyid": no_key.unwrap() });
        let refusal = backed.acts("bob/main", &Draft::post("/devices", &body)).await;
        refused(&refusal, 400, "bad_request", "keyid is not an Ed25519 public key");
    }

    backed.registers(&bob).await.ok();
    refused(&backed.registers(&bob.impostor()).await, 409, "identity_bound", "");
    let taken = Device { pool: "alice/main".parse().unwrap(), ..bob.clone() };
    refused(&backed.registers(&taken).await, 409, "identity_bound", "");
    // A voucher introduces the device to those who know its user, and is checked.
    let phone = Device::new("bob/phone");
    let mut body = json!({ "user": "bob", "device": "phone", "keyid": phone.keyid() });
    api.register(&alice).await.ok();
    body["voucher"] = alice.vouches_for(api, &phone).await;
    let of_another_user = backed.acts("bob/phone", &Draft::post("/devices", &body)).await;
    refused(&of_another_user, 409, "identity_bound", "");
    body["voucher"] = bob.vouches_for(api, &phone).await;
    backed.acts("bob/phone", &Draft::post("/devices", &body)).await.ok();
    let vouched = registrations(api, &phone).await.pop().unwrap();
    assert_eq!(vouched["voucher"], json!(bob.keyid()));
    assert_eq!(vouched["frontend"], json!(backed.backend.keyid()));
    for n in 2..32 {
        backed.registers(&Device::new(&format!("bob/{n}"))).await.ok();
    }
    let full = backed.registers(&Device::new("bob/one-too-many")).await;
    assert_eq!(full.code(), "too_many_devices", "{}", full.body);
}

#[actix_web::test]
async fn a_statement_is_the_devices_own_to_sign() {
    let backed = Backed::start();
    let (api, bob) = (&backed.running.api, Device::new("bob"));
    backed.registers(&bob).await.ok();
    let leaf = Device::new("leaf").keyid();
    let list = api.devices_of(&bob).await;
    let declaration = |by: &Device| {
        let until = NOW.after(Duration::from_mins(4));
        let mut body = by.states_on(&list, &bob.pool, Agreement::LeafKey(0x0807, &leaf), until);
        body["signature_scheme"] = json!(0x0807);
        body["leaf_keyid"] = json!(leaf);
        Draft::post("/devices/leaf-key", &body)
    };
    let own = backed.acts("bob/main", &declaration(&backed.backend)).await;
    refused(&own, 403, "not_allowed", "is not a signature by the key it names");
    backed.acts("bob/main", &declaration(&bob)).await.ok();
}

#[actix_web::test]
async fn limits_of_addresses_are_not_a_frontends_and_limits_of_users_hold() {
    let quotas = Quotas { devices: Rate::new(1, Duration::from_hours(24)), ..Quotas::STANDARD };
    let backed = Backed::start_with(|settings| {
        settings.quotas = Some(quotas);
        settings.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    });
    let api = &backed.running.api;
    let from_there =
        |by: Device, draft: Draft| async move { send_from(api, "192.0.2.7", &by, &draft).await };
    let acts =
        |device: &str, draft: Draft| from_there(backed.backend.clone(), draft.acting_for(device));
    let [alice, bob, carol, dave, eve] = ["alice", "bob", "carol", "dave", "eve"].map(Device::new);
    // Wrong signatures of others at that address keep no frontend out.
    let stranger = Device::new("stranger");
    for _ in 0..11 {
        let mut headers = removal("main").headers(&stranger, api.authority(), NOW);
        headers[1].1 = format!("kp=:{}==:", "A".repeat(86));
        headers.push(("x-forwarded-for", "192.0.2.7".to_owned()));
        answer(api.with_headers(&removal("main"), &headers)).await.unwrap();
    }
    assert_eq!(from_there(stranger, removal("main")).await.code(), "rate_limited");
    for device in [&alice, &bob, &carol] {
        acts(&device.pool.to_string(), registration(device)).await.ok();
    }
    // A device that registers itself from there is counted.
    let registering = |device: &Device| {
        from_there(device.clone(), Draft::post("/devices", &json!({ "user": device.pool.user() })))
    };
    backed.running.clock.advance(Duration::from_mins(1));
    registering(&dave).await.ok();
    assert_eq!(registering(&eve).await.code(), "rate_limited");
    acts("bob/main", Draft::post("/keypackages/upload", &upload(&bob.packages(NOW, 20))))
        .await
        .ok();

    for _ in 0..6 {
        let reserved = acts("alice/main", reserving("bob")).await.ok();
        let spending = Draft::post("/keypackages/spend", &claim("/spend", &reserved));
        acts("alice/main", spending).await.ok();
    }
    assert_eq!(acts("alice/main", reserving("bob")).await.code(), "rate_limited");
    acts("carol/main", reserving("bob")).await.ok();
}

#[actix_web::test]
async fn the_time_of_a_frontend_is_no_second_opinion_on_the_clock() {
    let Backed { running, backend, dir } = Backed::start();
    let devices = ["alice", "bob", "carol", "dave"].map(Device::new);
    let [alice, bob, carol, dave] = &devices;
    let running = running.with(&[alice, carol, dave, bob], 1).await;
    let Running { server, clock, data, .. } = running;
    server.stop().await;
    clock.advance(Duration::from_hours(72));
    let mut settings = local_settings(data.path());
    settings.registration.frontend_key = Some(dir.path().join("frontends"));
    let server = Server::start(settings, clock.clone()).unwrap();
    let api = Api::new(server.url(), clock);
    for device in ["bob/main", "carol/main", "dave/main"] {
        api.send(&backend, &status().acting_for(device)).await.ok();
        assert_eq!(api.reserve(alice, "bob").await.code(), "clock_leapt");
    }
    for device in [carol, dave] {
        api.get(device, "/keypackages/status").await.ok();
    }
    api.reserve(alice, "bob").await.ok();
}

#[actix_web::test]
async fn a_frontend_does_nothing_for_a_user_whom_the_operator_has_blocked() {
    let (backed, bob) = (Backed::start(), Device::new("bob"));
    backed.registers(&bob).await.ok();
    let url = format!("{}/names/block", backed.running.admin_url());
    let block = backed.running.api.http.post(url).header("content-type", "application/json");
    answer(block.body("{\"user\":\"bob\"}")).await.unwrap().ok();
    assert_eq!(backed.acts("bob/main", &status()).await.code(), "suspended");
    assert_eq!(backed.acts("bob/main", &removal("main")).await.code(), "suspended");
    assert_eq!(backed.registers(&bob).await.code(), "suspended");
    assert_eq!(backed.registers(&Device::new("bob/tablet")).await.code(), "suspended");
    // A frontend is one machine for many users: it acts for the others as before.
    backed.registers(&Device::new("alice")).await.ok();
}
