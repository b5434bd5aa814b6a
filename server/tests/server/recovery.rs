//! Recovery keys, over HTTP: a thief who has a device, a phone that is left, and words on paper.

use std::{fs, slice, time::Duration};

use keypool_api::{DevicesReply, has_signed};
use keypool_ledger::{Hash, PoolId, SignatureKey};
use keypool_projections::{
    directory::{DeviceList, Origin},
    quota::{Quotas, Rate},
    statement::Agreement,
};
use keypool_server::{RegistrationPolicy, RegistrationSettings};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    groups::{Group, mailbox},
    harness::{Answer, Api, Device, Draft, NOW, Process, Running, answer},
    quotas::{behind_a_proxy, send_from},
    registration,
};

/// A key that is on paper only.
fn words(number: u8) -> Device {
    let key = ed25519_dalek::SigningKey::from_bytes(&[number; 32]);
    Device { pool: "alice/words".parse().unwrap(), key }
}

/// Alice's phone, her laptop, and her words.
struct Alice {
    phone: Device,
    laptop: Device,
    words: Device,
}

impl Alice {
    async fn on(api: &Api) -> Self {
        let [phone, laptop] = ["alice/phone", "alice/laptop"].map(Device::new);
        api.register(&phone).await.ok();
        let voucher = phone.vouches_for(api, &laptop).await;
        api.register_with(&laptop, &voucher).await.ok();
        let words = words(1);
        set(api, &phone, (&phone, &phone.pool), &words).await.ok();
        Self { phone, laptop, words }
    }
}

/// The body that sets a recovery key, with the statement of a key about the device that set the first.
async fn setting(api: &Api, (by, subject): (&Device, &PoolId), next: &Device) -> Value {
    let key = next.keyid();
    let mut body = by.states(api, subject, Agreement::RecoveryKey(&key)).await;
    body["recovery_keyid"] = json!(key);
    body["keyid"] = json!(by.keyid());
    body
}

async fn set(api: &Api, asks: &Device, by: (&Device, &PoolId), next: &Device) -> Answer {
    let body = setting(api, by, next).await;
    api.post(asks, "/devices/recovery-key", body).await
}

/// The body of a recovery of a device, by the words on the list as it is.
async fn recovering(api: &Api, words: &Device, device: &Device) -> Value {
    recovery_on(&api.devices_of(words).await, words, device)
}

fn recovery_on(list: &DevicesReply, words: &Device, device: &Device) -> Value {
    let key = device.keyid();
    let until = NOW.after(Duration::from_mins(8));
    let mut body = words.states_on(list, &device.pool, Agreement::Recover(&key), until);
    body["user"] = json!(device.pool.user());
    body["device"] = json!(device.pool.device());
    body["recovery_keyid"] = json!(words.keyid());
    body
}

async fn recover(api: &Api, words: &Device, device: &Device) -> Answer {
    let body = recovering(api, words, device).await;
    api.post(device, "/devices/recover", body).await
}

#[track_caller]
fn refused(answer: &Answer, code: &str) {
    assert_eq!(answer.code(), code, "{}", answer.body);
}

/// The list that a reader without earlier knowledge folds from the server's reply.
fn verified(shown: &DevicesReply) -> DeviceList {
    let mut list = DeviceList::new(&shown.devices.user);
    let end = (shown.devices.head, shown.devices.position);
    list.follow(&shown.devices.history, end, slice::from_ref(&shown.ledger), &has_signed).unwrap();
    list
}

#[actix_web::test]
async fn the_words_win_against_a_thief_in_each_order_of_moves() {
    // Who moves first: the thief's laptop removes the phone, the phone removes the laptop, neither does; and
    // whether the thief has another device of theirs in, and tries another recovery key.
    for first in ["thief", "phone", "nobody"] {
        for with_accomplice in [false, true] {
            let running = Running::start();
            let api = &running.api;
            let Alice { phone, laptop, words } = Alice::on(api).await;
            let accomplice = Device::new("alice/tablet");
            if with_accomplice {
                let voucher = laptop.vouches_for(api, &accomplice).await;
                api.register_with(&accomplice, &voucher).await.ok();
            }
            let theirs = self::words(66);
            let before = setting(api, (&laptop, &phone.pool), &theirs).await;
            match first {
                "thief" => drop(api.remove(&laptop, "phone").await.ok()),
                "phone" => drop(api.remove(&phone, "laptop").await.ok()),
                _ => {}
            }
            // A device sets no other recovery key: not by its own statement, nor as the subject of one.
            let asks = if first == "phone" { &accomplice } else { &laptop };
            if first != "phone" || with_accomplice {
                refused(
                    &api.post(asks, "/devices/recovery-key", before).await,
                    "recovery_key_bound",
                );
                for subject in [&phone.pool, &asks.pool] {
                    let answer = set(api, asks, (asks, subject), &theirs).await;
                    assert!(["recovery_key_bound", "not_allowed"].contains(&answer.code()));
                }
                let own = recovering_by(api, asks, &Device::new("alice/spare")).await;
                refused(&own, "not_the_recovery_key");
            }

            let spare = Device::new("alice/spare");
            let answer = recover(api, &words, &spare).await;
            assert_eq!(answer.status, 201, "{first} {with_accomplice} {}", answer.body);
            let shown = api.devices_of(&spare).await;
            assert_eq!(shown.devices.devices, ["spare"]);
            let removed: Vec<String> =
                serde_json::from_value(answer.body["removed"].clone()).unwrap();
            let mut left = vec!["laptop", "phone", "tablet"];
            left.retain(|device| match *device {
                "phone" => first != "thief",
                "laptop" => first != "phone",
                _ => with_accomplice,
            });
            assert_eq!(removed, left);
            for gone in [&phone, &laptop, &accomplice] {
                refused(&api.get(gone, "/mailbox").await, "unauthenticated");
            }
            let list = verified(&shown);
            let spare = list.device("spare").unwrap();
            assert_eq!((&spare.origin, spare.introduced), (&Origin::Recovered, true));
        }
    }
}

/// A recovery that a device asks for in the place of the recovery key.
async fn recovering_by(api: &Api, by: &Device, device: &Device) -> Answer {
    let body = recovery_on(&api.devices_of(by).await, by, device);
    api.post(device, "/devices/recover", body).await
}

#[actix_web::test]
async fn the_words_bring_a_name_back_that_has_no_device_left() {
    let running = Running::start();
    let api = &running.api;
    let Alice { phone, laptop, words } = Alice::on(api).await;
    api.remove(&laptop, "phone").await.ok();
    api.remove(&laptop, "laptop").await.ok();
    // The words alone read the list; they read no other one and no mailbox, and neither do other words.
    let list = api.devices_of(&words).await;
    assert!(list.devices.devices.is_empty());
    refused(&api.get(&words, "/users/bob/devices").await, "unauthenticated");
    refused(&api.get(&words, "/mailbox").await, "unauthenticated");
    refused(&api.get(&self::words(2), "/users/alice/devices").await, "unauthenticated");
    refused(&api.register(&Device::new("alice/other")).await, "identity_bound");
    // The same device under its name, with a new key.
    let answer = recover(api, &words, &phone).await;
    refused(&answer, "key_retired");
    let answer = recover(api, &words, &phone.impostor()).await.ok();
    assert_eq!(answer.body["removed"], json!([]));
    let list = verified(&api.devices_of(&phone.impostor()).await);
    assert_eq!(list.device("phone").unwrap().incarnation, 2);
    // It goes on from there: the words are the user's recovery key still.
    let voucher = phone.impostor().vouches_for(api, &laptop.impostor()).await;
    api.register_with(&laptop.impostor(), &voucher).await.ok();
    recover(api, &words, &Device::new("alice/third")).await.ok();
}

#[actix_web::test]
async fn a_recovery_takes_the_groups_the_mail_and_the_packages_of_the_others() {
    let bob = Device::new("bob");
    let running = Running::start().with(&[&bob], 0).await;
    let api = &running.api;
    let Alice { phone, laptop, words } = Alice::on(api).await;
    api.upload(&laptop, &laptop.packages(NOW, 2)).await.ok();
    let group = Group::new(api, "group-1");
    group.make(&bob).await.ok();
    group.add(&bob, 0, "alice").await.ok();
    group.accept(&laptop).await.ok();
    group.say(&bob, "for the laptop").await.ok();
    assert_eq!(mailbox(api, &laptop, "").await.len(), 2);

    let next = laptop.impostor();
    let answer = recover(api, &words, &next).await.ok();
    assert_eq!(answer.body["removed"], json!(["phone"]), "the laptop itself is no other device");
    refused(&api.get(&laptop, "/mailbox").await, "unauthenticated");
    refused(&api.get(&phone, "/mailbox").await, "unauthenticated");
    assert_eq!(mailbox(api, &next, "").await, [""; 0]);
    let status = api.get(&next, "/keypackages/status").await.ok();
    assert_eq!((&status.body["available"], &status.body["revoked"]), (&json!(0), &json!(1)));
    refused(&group.say(&next, "hello?").await, "not_allowed");
}

#[actix_web::test]
async fn a_statement_about_recovery_works_once_and_for_its_own_words() {
    let running = Running::start();
    let api = &running.api;
    let Alice { phone, laptop, words } = Alice::on(api).await;
    let [second, third] = [2, 3].map(self::words);
    // The words agree to others, and any device of the user brings the statement.
    let agreed = setting_by(api, &words, &phone.pool, &second).await;
    api.post(&laptop, "/devices/recovery-key", agreed.clone()).await.ok();
    api.post(&laptop, "/devices/recovery-key", agreed.clone()).await.ok();
    set(api, &phone, (&second, &phone.pool), &third).await.ok();
    // Used words are good for nothing, and come back by no statement.
    refused(&api.post(&laptop, "/devices/recovery-key", agreed).await, "recovery_key_bound");
    let list = api.devices_of(&phone).await;
    for used in [&words, &second] {
        let spare = Device::new("alice/spare");
        let body = recovery_on(&list, used, &spare);
        refused(&api.post(&spare, "/devices/recover", body).await, "not_the_recovery_key");
        refused(&set(api, &phone, (&third, &phone.pool), used).await, "key_retired");
        let as_device = Device { pool: "alice/spare".parse().unwrap(), ..used.clone() };
        let voucher = phone.vouches_for(api, &as_device).await;
        refused(&api.register_with(&as_device, &voucher).await, "key_retired");
    }
    // The present words are no device's key, alice's or another user's; and no device's key is words.
    let as_device = Device { pool: "alice/spare".parse().unwrap(), ..third.clone() };
    let voucher = phone.vouches_for(api, &as_device).await;
    refused(&api.register_with(&as_device, &voucher).await, "identity_bound");
    refused(
        &api.register(&Device { pool: "zoe".parse().unwrap(), ..third.clone() }).await,
        "identity_bound",
    );
    refused(&set(api, &phone, (&third, &phone.pool), &laptop).await, "identity_bound");
    refused(&set(api, &phone, (&third, &phone.pool), &phone).await, "identity_bound");
    let list = verified(&api.devices_of(&phone).await);
    assert_eq!(list.recovery_key(), Some(&third.keyid()));

    // A recovery that was used is stale, for the same device and for another key.
    let spare = Device::new("alice/spare");
    let body = recovering(api, &third, &spare).await;
    api.post(&spare, "/devices/recover", body.clone()).await.ok();
    let again = api.post(&spare, "/devices/recover", body.clone()).await;
    assert_eq!((again.status, &again.body["removed"]), (200, &json!([])), "{}", again.body);
    refused(&api.post(&spare.impostor(), "/devices/recover", body.clone()).await, "not_allowed");
    let rotation = spare.agrees_to(api, &spare.impostor()).await;
    api.post(&spare.impostor(), "/devices/rotate", rotation).await.ok();
    refused(&api.post(&spare, "/devices/recover", body).await, "key_retired");
    // A device keeps no key through a recovery that removes others.
    assert_eq!(recover(api, &third, &spare.impostor()).await.status, 200, "it is alone already");
    let tablet = Device::new("alice/tablet");
    let voucher = spare.impostor().vouches_for(api, &tablet).await;
    api.register_with(&tablet, &voucher).await.ok();
    refused(&recover(api, &third, &spare.impostor()).await, "key_retired");
    refused(&recover(api, &third, &tablet).await, "key_retired");
}

async fn setting_by(api: &Api, by: &Device, subject: &PoolId, next: &Device) -> Value {
    setting(api, (by, subject), next).await
}

#[actix_web::test]
async fn of_two_recoveries_at_once_one_is_carried_out() {
    let running = Running::start();
    let api = &running.api;
    let Alice { words, .. } = Alice::on(api).await;
    let list = api.devices_of(&words).await;
    let spares = ["alice/one", "alice/two"].map(Device::new);
    let bodies = spares.each_ref().map(|spare| recovery_on(&list, &words, spare));
    let [one, two] = bodies;
    let (one, two) = tokio::join!(
        api.post(&spares[0], "/devices/recover", one),
        api.post(&spares[1], "/devices/recover", two)
    );
    let mut codes = [(one.status, one.code()), (two.status, two.code())];
    codes.sort_unstable();
    assert_eq!(codes, [(201, ""), (409, "statement_stale")]);
    assert_eq!(api.devices_of(&words).await.devices.devices.len(), 1);
}

#[actix_web::test]
async fn a_recovery_is_repeated_over_a_crash_with_the_same_answer() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(dir.path());
    let api = &server.api;
    let Alice { words, .. } = Alice::on(api).await;
    let spare = Device::new("alice/spare");
    let list = api.devices_of(&words).await;
    let key = spare.keyid();
    let until = api.clock.now().after(Duration::from_mins(8));
    let mut body = words.states_on(&list, &spare.pool, Agreement::Recover(&key), until);
    for (name, value) in [
        ("user", json!("alice")),
        ("device", json!("spare")),
        ("recovery_keyid", json!(words.keyid())),
    ] {
        body[name] = value;
    }
    let draft = Draft::post("/devices/recover", &body).key(Uuid::now_v7());
    let first = api.send(&spare, &draft).await;
    assert_eq!((first.status, &first.body["removed"]), (201, &json!(["laptop", "phone"])));
    server.kill();
    let server = Process::start(dir.path());
    let again = server.api.send(&spare, &draft).await;
    assert_eq!((again.status, &again.body), (201, &first.body));
    // Whatever comes after, the answer is the same; with another key of the caller it is another request.
    let rotation = spare.agrees_to(&server.api, &spare.impostor()).await;
    server.api.post(&spare.impostor(), "/devices/rotate", rotation).await.ok();
    assert_eq!(server.api.send(&spare, &draft).await.body, first.body);
    assert_eq!(server.api.send(&spare.impostor(), &draft).await.code(), "not_allowed");
}

#[actix_web::test]
async fn a_user_with_as_many_devices_as_may_be_is_recovered() {
    let running = Running::start();
    let api = &running.api;
    let Alice { phone, words, .. } = Alice::on(api).await;
    for n in 3..=32 {
        let device = Device::new(&format!("alice/d{n}"));
        let voucher = phone.vouches_for(api, &device).await;
        api.register_with(&device, &voucher).await.ok();
    }
    let spare = Device::new("alice/spare");
    let voucher = phone.vouches_for(api, &spare).await;
    refused(&api.register_with(&spare, &voucher).await, "too_many_devices");
    let answer = recover(api, &words, &spare).await.ok();
    assert_eq!(answer.body["removed"].as_array().unwrap().len(), 32);
    assert_eq!(verified(&api.devices_of(&spare).await).registered().count(), 1);
}

#[actix_web::test]
async fn recovery_needs_no_list_and_no_token_of_the_operators() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("who");
    let phone = Device::new("alice/phone");
    fs::write(&path, format!("alice phone {}\n", phone.keyid())).unwrap();
    let listed = Running::start_with(|settings| {
        settings.registration = RegistrationSettings {
            policy: RegistrationPolicy::AllowList,
            allow_list: Some(path),
            ..RegistrationSettings::default()
        };
    });
    listed.api.register(&phone).await.ok();
    let tokens = registration::start(dir.path());
    registration::with_own_token(&tokens, &phone).await.ok();
    for running in [&listed, &tokens] {
        let (api, spare) = (&running.api, Device::new("alice/spare"));
        set(api, &phone, (&phone, &phone.pool), &words(1)).await.ok();
        refused(&api.register(&spare).await, "not_allowed");
        recover(api, &words(1), &spare).await.ok();
        assert_eq!(api.devices_of(&spare).await.devices.devices, ["spare"]);
    }
}

#[actix_web::test]
async fn a_voucher_introduces_a_device_that_the_operator_lets_in() {
    let dir = tempfile::tempdir().unwrap();
    let running = registration::start(dir.path());
    let api = &running.api;
    let [phone, laptop, tablet] =
        ["phone", "laptop", "tablet"].map(|name| Device::new(&format!("alice/{name}")));
    registration::with_own_token(&running, &phone).await.ok();
    registration::with_own_token(&running, &laptop).await.ok();
    let voucher = phone.vouches_for(api, &tablet).await;
    let stranger = Device::new("mallory");
    registration::with_own_token(&running, &stranger).await.ok();
    let mut foreign = voucher.clone();
    foreign["keyid"] = json!(stranger.keyid());
    let with =
        async |voucher: &Value| registration::with_own_token_and(&running, &tablet, voucher).await;
    refused(&with(&foreign).await, "not_allowed");
    let (list, key) = (api.devices_of(&phone).await, tablet.keyid());
    let until = NOW.after(Duration::from_mins(4));
    let agreement = Agreement::Vouch(&key);
    let mut by_stranger = stranger.states_on(&list, &tablet.pool, agreement, until);
    by_stranger["keyid"] = json!(stranger.keyid());
    refused(&with(&by_stranger).await, "identity_bound");
    with(&voucher).await.ok();
    let list = verified(&api.devices_of(&phone).await);
    let origin = |name: &str| list.device(name).unwrap().origin.clone();
    assert_eq!(origin("phone"), Origin::First);
    assert_eq!(origin("laptop"), Origin::Unsigned);
    assert_eq!(origin("tablet"), Origin::Vouched { by: phone.keyid() });
}

#[actix_web::test]
async fn a_name_that_was_released_has_no_recovery_key_any_more() {
    let running = Running::start();
    let api = &running.api;
    let Alice { words, .. } = Alice::on(api).await;
    let list = api.devices_of(&words).await;
    let release = api.http.post(running.admin_url() + "/names/release");
    let release = release.header("content-type", "application/json").body("{\"user\":\"alice\"}");
    answer(release).await.unwrap().ok();
    refused(&api.get(&words, "/users/alice/devices").await, "unauthenticated");
    let spare = Device::new("alice/spare");
    let body = recovery_on(&list, &words, &spare);
    refused(&api.post(&spare, "/devices/recover", body).await, "not_the_recovery_key");
    api.register(&spare).await.ok();
    let list = verified(&api.devices_of(&spare).await);
    assert_eq!((list.releases(), list.recovery_key()), (1, None));
    let again = set(api, &spare, (&spare, &spare.pool), &words).await;
    refused(&again, "key_retired");
}

#[actix_web::test]
async fn a_recovery_counts_as_a_registration_of_its_address() {
    let running = behind_a_proxy(&Quotas {
        devices: Rate::new(4, Duration::from_mins(10)),
        ..Quotas::STANDARD
    });
    let api = &running.api;
    let Alice { words, .. } = Alice::on(api).await;
    let mut codes = Vec::new();
    for n in 0..5 {
        let spare = Device::new(&format!("alice/s{n}"));
        let body = recovering(api, &words, &spare).await;
        let draft = Draft::post("/devices/recover", &body);
        codes.push(send_from(api, "192.0.2.7", &spare, &draft).await.status);
    }
    assert_eq!(codes, [201, 201, 201, 201, 429]);
}

#[actix_web::test]
async fn a_wrong_statement_about_recovery_is_refused_with_a_next_step() {
    let running = Running::start();
    let api = &running.api;
    let Alice { phone, words, .. } = Alice::on(api).await;
    let spare = Device::new("alice/spare");
    let body = recovering(api, &words, &spare).await;
    // Another ledger's, another user's, ended, and no key at all.
    let other = DevicesReply {
        ledger: "other.example+0123abcd".parse().unwrap(),
        ..api.devices_of(&words).await
    };
    let elsewhere = recovery_on(&other, &words, &spare);
    refused(&api.post(&spare, "/devices/recover", elsewhere).await, "not_allowed");
    let mut renamed = body.clone();
    renamed["user"] = json!("bob");
    refused(&api.post(&spare, "/devices/recover", renamed).await, "not_allowed");
    let mut no_key = setting(api, (&phone, &phone.pool), &words).await;
    no_key["recovery_keyid"] = json!(SignatureKey::new(&[7; 65]).unwrap());
    let answer = api.post(&phone, "/devices/recovery-key", no_key).await;
    refused(&answer, "bad_request");
    assert_eq!(answer.text("detail"), "recovery_keyid is not an Ed25519 public key");
    running.clock.advance(Duration::from_mins(9));
    refused(&api.post(&spare, "/devices/recover", body.clone()).await, "statement_expired");
    let answer = recovering_by(api, &phone, &spare).await;
    assert!(["statement_expired", "not_the_recovery_key"].contains(&answer.code()));
    assert!(!answer.text("hint").is_empty());
    assert_ne!(api.devices_of(&phone).await.devices.head, Hash::ZERO);
}
