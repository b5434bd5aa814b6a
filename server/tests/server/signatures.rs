//! Who is refused at the door, and that he is told why.

use serde_json::json;

use crate::harness::{Answer, Device, Draft, NOW, Running, answer};

type Headers = Vec<(&'static str, String)>;

fn draft() -> Draft {
    Draft::post("/keypackages/revoke", &json!({ "all": true, "reason": "withdrawn" }))
}

/// The answer to a request of alice's whose headers were spoiled after signing.
async fn spoiled(running: &Running, spoil: impl FnOnce(&mut Headers)) -> Answer {
    let (alice, draft) = (Device::new("alice"), draft());
    let mut headers = draft.headers(&alice, running.api.authority(), NOW);
    spoil(&mut headers);
    answer(running.api.with_headers(&draft, &headers)).await.unwrap()
}

fn set(headers: &mut Headers, name: &str, change: impl FnOnce(&str) -> String) {
    let found = headers.iter_mut().find(|(found, _)| *found == name).unwrap();
    found.1 = change(&found.1);
}

#[track_caller]
fn check_unauthenticated(answer: &Answer, why: &str) {
    assert_eq!((answer.status, answer.code()), (401, "unauthenticated"), "{}", answer.body);
    assert_eq!(answer.header("www-authenticate"), "Signature tag=\"keypool-v1\"");
    assert!(answer.text("detail").starts_with(why), "{}", answer.text("detail"));
}

#[actix_web::test]
async fn a_good_signature_is_accepted() {
    let alice = Device::new("alice");
    let running = Running::start().with(&[&alice], 0).await;
    assert_eq!(spoiled(&running, |_| {}).await.status, 200);
}

#[actix_web::test]
async fn a_request_without_a_signature_is_refused() {
    let alice = Device::new("alice");
    let running = Running::start().with(&[&alice], 0).await;
    for gone in ["signature-input", "signature"] {
        let answer = spoiled(&running, |headers| headers.retain(|(name, _)| *name != gone)).await;
        check_unauthenticated(&answer, "no signature: ");
    }
    let other_tag = |headers: &mut Headers| {
        set(headers, "signature-input", |input| input.replace("keypool-v1", "other"));
    };
    check_unauthenticated(&spoiled(&running, other_tag).await, "no signature: ");
    let caller = |headers: &mut Headers| {
        headers.retain(|(name, _)| !name.starts_with("signature"));
        headers.push(("x-keypool-caller", "alice".to_owned()));
    };
    check_unauthenticated(&spoiled(&running, caller).await, "no signature: ");
}

#[actix_web::test]
async fn a_signature_over_other_things_is_refused() {
    let alice = Device::new("alice");
    let running = Running::start().with(&[&alice], 0).await;
    let inputs: [fn(&str) -> String; 6] = [
        |input| input.replace("\"@path\" ", ""),
        |input| input.replace("\"@path\" ", "\"@target-uri\" "),
        |input| input.replace("\"@method\" \"@authority\"", "\"@authority\" \"@method\""),
        |input| input.replace("\"@path\"", "\"@path\";req"),
        |input| input.replace("alg=\"ed25519\"", "alg=\"hmac-sha256\""),
        |input| format!("{input};nonce=\"x\""),
    ];
    for change in inputs {
        let answer = spoiled(&running, |headers| set(headers, "signature-input", change)).await;
        check_unauthenticated(&answer, "bad signature: ");
    }
}

#[actix_web::test]
async fn whatever_is_there_twice_is_refused() {
    let alice = Device::new("alice");
    let running = Running::start().with(&[&alice], 0).await;
    let repeated_parameter = |headers: &mut Headers| {
        set(headers, "signature-input", |input| format!("{input};alg=\"ed25519\""));
    };
    check_unauthenticated(&spoiled(&running, repeated_parameter).await, "bad signature: ");
    let second_signature = |headers: &mut Headers| {
        set(headers, "signature-input", |input| {
            format!("{input}, kp2={}", input.trim_start_matches("kp="))
        });
    };
    check_unauthenticated(&spoiled(&running, second_signature).await, "bad signature: ");
    for name in
        ["signature-input", "signature", "content-digest", "content-type", "idempotency-key"]
    {
        let answer = spoiled(&running, |headers| {
            let (_, value) = headers.iter().find(|(found, _)| *found == name).unwrap().clone();
            headers.push((name, value));
        });
        check_unauthenticated(&answer.await, &format!("bad signature: the header {name} must"));
    }
}

#[actix_web::test]
async fn a_request_changed_on_its_way_is_refused() {
    let alice = Device::new("alice");
    let running = Running::start().with(&[&alice], 0).await;
    let (api, draft) = (&running.api, draft());
    let headers = draft.headers(&alice, api.authority(), NOW);

    let other_body =
        Draft { body: Some(b"{\"all\":true,\"reason\":\"rotated\"}".to_vec()), ..draft.clone() };
    let answered = answer(api.with_headers(&other_body, &headers)).await.unwrap();
    check_unauthenticated(&answered, "bad signature: Content-Digest is not");
    let other_path = Draft { path: "/keypackages/upload".to_owned(), ..draft.clone() };
    let answered = answer(api.with_headers(&other_path, &headers)).await.unwrap();
    check_unauthenticated(&answered, "bad signature: it does not verify");
    let key = |headers: &mut Headers| {
        set(headers, "idempotency-key", |_| "018f2f3e-7c1a-7d3b-9a5e-0123456789ab".to_owned());
    };
    check_unauthenticated(&spoiled(&running, key).await, "bad signature: it does not verify");

    let query = Draft::get("/keypackages/events?after=1");
    let headers = query.headers(&alice, api.authority(), NOW);
    let other_query = Draft::get("/keypackages/events?after=2");
    let answered = answer(api.with_headers(&other_query, &headers)).await.unwrap();
    check_unauthenticated(&answered, "bad signature: it does not verify");
}

#[actix_web::test]
async fn a_request_for_another_server_is_refused() {
    let alice = Device::new("alice");
    let running = Running::start().with(&[&alice], 0).await;
    let (api, draft) = (&running.api, draft());
    let elsewhere = draft.headers(&alice, "keypool.example", NOW);
    let answered = answer(api.with_headers(&draft, &elsewhere)).await.unwrap();
    check_unauthenticated(&answered, "bad signature: it does not verify");
    // The Host header is the sender's to write: it does not make the server another one.
    let request = api.with_headers(&draft, &elsewhere).header("host", "keypool.example");
    check_unauthenticated(&answer(request).await.unwrap(), "authority: \"keypool.example\" is not");
    let localhost = api.url.replace("127.0.0.1", "localhost");
    let headers = draft.headers(&alice, localhost.strip_prefix("http://").unwrap(), NOW);
    let api = crate::harness::Api { url: localhost, ..api.clone() };
    assert_eq!(answer(api.with_headers(&draft, &headers)).await.unwrap().status, 200);
}

#[actix_web::test]
async fn a_signature_holds_for_two_minutes_give_or_take_thirty_seconds() {
    let alice = Device::new("alice");
    let running = Running::start().with(&[&alice], 0).await;
    for (made_at, status) in [(-91_i64, 401), (-90, 200), (0, 200), (30, 200), (31, 401)] {
        let made =
            keypool_ledger::Timestamp::from_secs(NOW.as_secs().saturating_add_signed(made_at));
        let draft = draft();
        let headers = draft.headers(&alice, running.api.authority(), made);
        let answered = answer(running.api.with_headers(&draft, &headers)).await.unwrap();
        assert_eq!(answered.status, status, "{made_at}: {}", answered.body);
        if status == 401 {
            check_unauthenticated(&answered, "clock: ");
        }
    }
}

#[actix_web::test]
async fn a_key_that_speaks_for_nobody_is_refused() {
    let running = Running::start();
    let alice = Device::new("alice");
    let answered = running.api.get(&alice, "/keypackages/status").await;
    check_unauthenticated(&answered, &format!("unregistered key: {}", alice.keyid()));
}

#[actix_web::test]
async fn a_change_needs_an_idempotency_key() {
    let alice = Device::new("alice");
    let running = Running::start().with(&[&alice], 0).await;
    let missing =
        spoiled(&running, |headers| headers.retain(|(name, _)| *name != "idempotency-key"));
    assert_eq!(missing.await.code(), "bad_request");
    let odd =
        spoiled(&running, |headers| set(headers, "idempotency-key", |_| "7".to_owned())).await;
    assert_eq!(odd.code(), "invalid_name");
}

#[actix_web::test]
async fn without_authentication_a_header_names_the_caller_and_signatures_still_count() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start_with(|settings| settings.insecure_no_auth = true);
    let api = &running.api;
    let unsigned = |draft: &Draft, caller: Option<&str>| {
        let mut headers = vec![
            ("content-type", draft.content_type.clone()),
            ("idempotency-key", draft.key.to_string()),
        ];
        headers.extend(caller.map(|caller| ("x-keypool-caller", caller.to_owned())));
        let request = api.with_headers(draft, &headers);
        async { answer(request).await.unwrap() }
    };

    let packages = crate::harness::upload(&bob.packages(NOW, 1));
    let uploading = Draft::post("/keypackages/upload", &packages);
    check_unauthenticated(&unsigned(&uploading, None).await, "no caller: ");
    assert_eq!(unsigned(&uploading, Some("bob")).await.ok().body["accepted"], 1);
    // A device that has registered signs as ever.
    api.register(&alice).await.ok();
    assert_eq!(api.reserve(&alice, "bob").await.ok().text("device"), "main");
    let registering = Draft::post("/devices", &json!({ "user": "carol" }));
    check_unauthenticated(&unsigned(&registering, Some("carol")).await, "no signature: ");
}
