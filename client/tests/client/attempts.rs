//! Welcomes that are not valid: counted for each package, limited, and nothing else.

use std::sync::Arc;

use keypool_api::{Base64, MailboxItem, MailboxKind, MailboxReply};
use keypool_client::{
    JoinError, MailboxEvent, MailboxEventKind, MlsClient, OwnStage, PoolConfig,
    WELCOME_ATTEMPTS_MAX,
};
use keypool_ledger::Clock;

use super::{
    people::alice_and_absent_bob,
    service::{Service, run},
    support::{Device, group, now},
};

/// Alice has added Bob by one of his two packages; he has not joined.
fn invited() -> (Device, Device, keypool_client::PendingAdd) {
    let (alice, bob) = (Device::new("alice/phone"), Device::new("bob/laptop"));
    alice.groups.create_group(&group("g"), 1, now()).unwrap();
    bob.pool.generate_and_store(1, now()).unwrap();
    let added = alice.add(&group("g"), &[bob.offer()]);
    (alice, bob, added)
}

fn tampered(welcome: &[u8]) -> Vec<u8> {
    let mut tampered = welcome.to_vec();
    *tampered.last_mut().unwrap() ^= 1;
    tampered
}

fn records(device: &Device) -> Vec<String> {
    device.store.stage().unwrap().app_record_names("").unwrap()
}

#[test]
fn after_too_many_bad_welcomes_no_more_are_tried_until_the_app_allows_it() {
    let (_alice, bob, added) = invited();
    let bad = tampered(&added.welcome);
    let mut bob = bob;
    for attempt in 0..WELCOME_ATTEMPTS_MAX {
        let rejected = bob.groups.join_from_welcome(&bad, now()).unwrap_err();
        assert!(matches!(rejected, JoinError::Rejected { .. }), "{attempt}: {rejected}");
        if attempt % 5 == 0 {
            bob = bob.restarted();
        }
    }
    for welcome in [&bad, &added.welcome] {
        let refused = bob.groups.join_from_welcome(welcome, now()).unwrap_err();
        let JoinError::TooManyAttempts { keypackage_ref, attempts } = refused else { panic!() };
        assert_eq!((keypackage_ref, attempts), (added.keypackage_refs[0].clone(), 16));
    }
    let refused = bob.groups.join_from_welcome(&added.welcome, now()).unwrap_err();
    let text = refused.to_string().replace(&added.keypackage_refs[0].to_string(), "REF");
    insta::assert_snapshot!(text, @"16 Welcomes for package REF were not valid, so that no more are tried; ask to be invited again, which uses another package, or allow this one more attempts");
    assert!(bob.pool.has_private_keys(&added.keypackage_refs[0]).unwrap());
    assert_eq!(bob.groups.allow_more_attempts(&added.keypackage_refs[0]).unwrap(), 16);
    assert_eq!(bob.groups.allow_more_attempts(&added.keypackage_refs[0]).unwrap(), 0);
    bob.join(&added);
}

#[test]
fn a_bad_welcome_is_counted_and_changes_nothing_else() {
    let (_alice, bob, added) = invited();
    let (history, before) = (bob.store.history().unwrap(), records(&bob));
    bob.groups.join_from_welcome(&tampered(&added.welcome), now()).unwrap_err();
    bob.groups.join_from_welcome(b"junk", now()).unwrap_err();
    assert_eq!(bob.store.history().unwrap(), history);
    let added_records: Vec<_> =
        records(&bob).into_iter().filter(|name| !before.contains(name)).collect();
    assert_eq!(added_records.len(), 1);
    assert!(added_records[0].starts_with("welcome-attempts/"), "{added_records:?}");
    assert!(bob.pool.check_up(now()).unwrap().is_sound());
    bob.join(&added);
    let left: Vec<_> = records(&bob).into_iter().filter(|name| name.contains("attempts")).collect();
    assert_eq!(left, [""; 0], "the count goes with the package");
}

#[test]
fn bad_welcomes_for_one_package_do_not_count_for_another() {
    let (alice, bob, added) = invited();
    let bad = tampered(&added.welcome);
    for _ in 0..WELCOME_ATTEMPTS_MAX {
        bob.groups.join_from_welcome(&bad, now()).unwrap_err();
    }
    alice.groups.create_group(&group("h"), 1, now()).unwrap();
    let other = alice.add(&group("h"), &[bob.offer()]);
    assert_eq!(bob.join(&other).group, group("h"));
}

#[test]
fn a_welcome_for_somebody_else_is_not_counted() {
    let (_alice, _bob, added) = invited();
    let carol = Device::new("carol/phone");
    let before = records(&carol);
    for _ in 0..=WELCOME_ATTEMPTS_MAX {
        let foreign = carol.groups.join_from_welcome(&added.welcome, now()).unwrap_err();
        assert!(matches!(foreign, JoinError::MissingPrivateKey { .. }), "{foreign}");
    }
    assert_eq!(records(&carol), before);
}

#[test]
fn the_count_goes_when_the_package_expires() {
    let (_alice, bob, added) = invited();
    bob.groups.join_from_welcome(&tampered(&added.welcome), now()).unwrap_err();
    let end = now().after(std::time::Duration::from_hours(15 * 24));
    bob.pool.expire(end).unwrap();
    let own = bob.store.package(&added.keypackage_refs[0]).unwrap();
    assert_eq!(own.stage, OwnStage::Expired);
    assert!(!records(&bob).iter().any(|name| name.contains("attempts")));
}

/// The server could put any number of bad Welcomes into a mailbox; each is told, and 16 are tried.
#[test]
fn bad_welcomes_in_the_mailbox_are_counted_too() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and_absent_bob(&service, 2).await;
        let invited = alice.invite(&group, ["bob"]).await.unwrap();
        let welcome = service.mail.welcomes("bob").remove(0);
        let bad = Base64(tampered(&welcome));
        let item = |position| MailboxItem {
            position,
            at_ms: 0,
            kind: MailboxKind::Welcome,
            group_id: group.clone(),
            sender: None,
            bytes: bad.clone(),
            added: Vec::new(),
            removed: Vec::new(),
            answer: None,
        };
        let tries = u64::from(WELCOME_ATTEMPTS_MAX) + 2;
        let items = (1..=tries).map(item).collect();
        let reply = |items| {
            let reply = MailboxReply {
                items,
                more: false,
                not_kept: Vec::new(),
                available: Vec::new(),
                acknowledged: 0,
                last_posted: 0,
            };
            serde_json::to_string(&reply).unwrap()
        };
        let (waits, nothing) = (reply(items), reply(Vec::new()));
        let (home, owner) = (service.folder.path().join("bob"), "bob".parse().unwrap());
        let clock: Arc<dyn Clock> = service.clock.clone();
        let config = PoolConfig::default();
        let url = service.tunnel.url();
        let bob = MlsClient::open_at_server(&home, &owner, &url, (clock, config)).unwrap();
        service.tunnel.forge(0, 200, &waits);
        service.tunnel.forge(1, 200, &nothing);
        service.tunnel.forge(2, 200, "{}");
        // Whatever the forged server makes of the acknowledgement, all has been taken in.
        let _ = bob.sync(0).await;
        let told = bob.events().unwrap();
        let said = |event: &MailboxEvent| match &event.kind {
            MailboxEventKind::Unreadable { why, .. } => why.contains("no more are tried"),
            other => panic!("{other:?}"),
        };
        assert_eq!(told.len(), 18);
        assert_eq!(told.iter().filter(|event| said(event)).count(), 2);
        let failed =
            bob.membership().allow_more_attempts(&invited.added[0].keypackage_ref).unwrap();
        assert_eq!(failed, WELCOME_ATTEMPTS_MAX);
        assert_eq!(bob.join(&welcome).await.unwrap().group, group);
    });
}
