//! Servers that give wrong answers, and proxies between.

use keypool_api::{Code, DeviceReservation, EventsReply, Problem, ReserveManyReply};
use keypool_client::{ApiClient, ApiError, PoolConfig, RefreshError, SkipReason, StorageError};

use super::{
    people::{alice_and_absent_bob, bob_joins_and_hears, counts, now, reserve, resume, why},
    service::{Service, run},
};

/// A problem as the server would write it.
fn problem(code: Code) -> String {
    let problem = Problem {
        kind: format!("urn:keypool:{code}"),
        title: code.title().to_owned(),
        status: 409,
        detail: "it is so".to_owned(),
        code,
        hint: code.hint().to_owned(),
        retryable: code.retryable(),
        keypackage_ref: None,
        index: None,
        check: None,
        requirement: None,
        retry_after_s: None,
        server_time: None,
        request_id: None,
        items: Vec::new(),
    };
    serde_json::to_string(&problem).unwrap()
}

/// Which history was refused, and why.
fn refusal(error: impl Into<RefreshError>) -> (u64, String) {
    let error = error.into();
    let text = error.to_string();
    match error {
        RefreshError::Storage(StorageError::MirrorRefused { version, .. }) => (version, text),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_proxy_that_gives_up_on_the_server_is_asked_again() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and_absent_bob(&service, 2).await;
        service.tunnel.forge(0, 502, "<html>Bad Gateway</html>");
        service.tunnel.forge(2, 504, "<html>Gateway Timeout</html>");
        assert_eq!(alice.invite(&group, ["bob"]).await.unwrap().attempts, 1);
        assert_eq!(counts(&service).await, (1, 0, 1));
        bob_joins_and_hears(&service, &alice, &group).await;
    });
}

#[test]
fn a_server_without_this_version_of_the_api_is_older_than_the_client() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and_absent_bob(&service, 2).await;
        service.tunnel.forge(0, 404, &problem(Code::NotFound));
        let refused = alice.connection().api().status().await.unwrap_err();
        assert!(matches!(refused, ApiError::Outdated { .. }), "{refused:?}");
        assert!(!refused.is_unanswered() && refused.code().is_none());
        let said = refused.to_string();
        assert!(said.contains("is older than this client: it does not serve /v1"), "{said}");
        assert_eq!(alice.invite(&group, ["bob"]).await.unwrap().attempts, 1);
        bob_joins_and_hears(&service, &alice, &group).await;
    });
}

#[test]
fn an_address_is_a_scheme_a_host_and_a_port() {
    let service = Service::start();
    let home = service.folder.path().join("alice");
    let alice = service.open_at(&home, "alice", PoolConfig::default());
    let asked = |address: &str| {
        ApiClient::new(address, alice.identity().clone(), service.clock.clone()).map(drop)
    };
    for address in ["http://127.0.0.1:8080", "https://keys.example", "https://keys.example/"] {
        asked(address).unwrap();
    }
    for address in [
        "https://keys.example/base",
        "https://keys.example/?a=b",
        "https://keys.example/#a",
        "https://alice@keys.example",
        "https://:secret@keys.example",
        "ftp://keys.example",
        "keys.example",
    ] {
        let refused = asked(address).unwrap_err();
        assert!(matches!(refused, ApiError::Address(_)), "{address}: {refused:?}");
    }
}

#[test]
fn three_packages_lost_in_a_row_are_counted() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and_absent_bob(&service, 4).await;
        for renewal in [1, 3, 5] {
            service.tunnel.forge(renewal, 409, &problem(Code::ReservationLost));
        }
        let lost = alice.invite(&group, ["bob"]).await.unwrap_err();
        assert_eq!(why(&lost), &SkipReason::ReservationLost { attempts: 3 });
        assert!(!alice.membership().has_pending_commit(&group).unwrap());
        assert!(resume(&alice).await.is_none());
        assert!(service.mail.commits(&group).is_empty());
    });
}

/// The server answers for somebody else than it was asked for, and leaves the requested one out.
#[test]
fn a_package_of_another_device_than_the_one_named_adds_nobody() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and_absent_bob(&service, 2).await;
        let other = reserve(&alice, None).await;
        assert_eq!(other.reply.device, "main");
        for user in ["bob", "mallory", "no/name"] {
            let reservation = other.reply.clone();
            let device = DeviceReservation { user: user.to_owned(), reservation };
            let reply = ReserveManyReply { reservations: vec![device], missing: Vec::new() };
            service.tunnel.forge(0, 200, &serde_json::to_string(&reply).unwrap());
            let refused = alice.invite(&group, ["bob/phone"]).await.unwrap_err();
            assert_eq!(why(&refused), &SkipReason::Unanswered);
            assert!(refused.to_string().contains("says nothing of them"), "{refused}");
            assert!(resume(&alice).await.is_none());
        }
        assert_eq!(alice.members(&group).unwrap().len(), 1);
    });
}

#[test]
fn a_server_that_has_lost_its_log_is_noticed() {
    run(async {
        let service = Service::start();
        let bob = service.device("bob", 4).await;
        assert_eq!(bob.connection().fetch_history(now(&service)).await.unwrap(), 4);
        drop(bob);
        let home = service.folder.path().join("bob");
        let other = Service::start();
        // Another server, or the same one after a restore: it knows less, and then something else.
        let bob = other.open_at(&home, "bob", PoolConfig::default());
        bob.register().await.unwrap();
        let (known, text) = refusal(bob.connection().fetch_history(now(&other)).await.unwrap_err());
        assert_eq!(known, 5);
        assert!(text.contains("shorter than before"), "{text}");

        let twin = other.folder.path().join("twin");
        std::fs::create_dir(&twin).unwrap();
        drop(bob);
        super::support::copy(&home, &twin);
        let bob = other.open_at(&twin, "bob", PoolConfig::default());
        let upload = |made: Vec<keypool_client::CreatedPackage>| {
            let bytes = made.into_iter().map(|made| keypool_api::Base64(made.bytes));
            keypool_api::UploadRequest { keypackages: bytes.collect() }
        };
        let made = bob.connection().pool().generate_and_store(8, now(&other)).unwrap();
        let command = keypool_client::fresh_command();
        bob.connection().api().upload(&upload(made), command).await.unwrap();
        let fetched = bob.connection().fetch_history(now(&other)).await.unwrap_err();
        let (version, text) = refusal(fetched);
        assert_eq!(version, 5);
        assert!(text.contains("not what the server told before"), "{text}");
        // A refresh goes on from what there is now.
        assert!(bob.connection().refresh_now(now(&other)).await.unwrap().drift.server_set_back);
        bob.connection().fetch_history(now(&other)).await.unwrap();
    });
}

#[test]
fn an_empty_answer_is_no_history() {
    run(async {
        let service = Service::start();
        let bob = service.device("bob", 4).await;
        assert_eq!(bob.connection().fetch_history(now(&service)).await.unwrap(), 4);
        let nothing = EventsReply { events: Vec::new(), more: false };
        service.tunnel.forge(0, 200, &serde_json::to_string(&nothing).unwrap());
        let refused = bob.connection().fetch_history(now(&service)).await.unwrap_err();
        assert_eq!(refusal(refused).0, 5);
        assert_eq!(bob.connection().fetch_history(now(&service)).await.unwrap(), 0);
    });
}

#[test]
fn a_status_from_before_what_is_known_is_refused() {
    run(async {
        let service = Service::start();
        let bob = service.device("bob", 4).await;
        assert_eq!(bob.connection().fetch_history(now(&service)).await.unwrap(), 4);
        let mut status = bob.status().await.unwrap();
        status.version -= 1;
        service.tunnel.forge(0, 200, &serde_json::to_string(&status).unwrap());
        let refused = bob.connection().refresh_now(now(&service)).await.unwrap_err();
        assert_eq!(refusal(refused).0, 5);
        // The history is there: nothing is lost, and nothing is withdrawn for it.
        let refresh = bob.connection().refresh_now(now(&service)).await.unwrap();
        assert!(refresh.drift.is_none() && refresh.available == 32, "{refresh:?}");
        assert_eq!(bob.status().await.unwrap().counts.revoked, 0);
    });
}

#[test]
fn a_redirect_is_not_followed_and_its_address_is_named() {
    run(async {
        let service = Service::start();
        let bob = service.device("bob", 0).await;
        let to = "https://keys.example/keypackages/status";
        let before = service.tunnel.requests();
        service.tunnel.redirect(0, to);
        let error = bob.status().await.unwrap_err();
        let server = service.tunnel.url();
        let said = format!("the server at {server}/ has another address, {to}; give that one");
        assert_eq!(error.to_string(), said);
        assert!(!error.is_unanswered());
        assert_eq!(service.tunnel.requests() - before, 1, "asked once, and nobody else");
    });
}
