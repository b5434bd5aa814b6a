//! A user with several devices: each vouched for by another, all of them invited.

use data_encoding::{BASE64, BASE64URL_NOPAD};
use keypool_api::{Code, Voucher};
use keypool_client::{ApiError, DeviceIdentity, RegisterError, SkipReason};
use keypool_ledger::Clock;
use keypool_server::{RegistrationPolicy, RegistrationSettings};
use serde_json::json;

use super::{
    members::{Client, alice_and, members, open, second_device, told},
    people::why,
    service::{Service, group, run},
};

#[test]
fn all_devices_of_a_user_are_invited_and_hear_each_other() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and(&service, &["bob"], 2).await;
        let bob = open(&service, "bob");
        let phone = second_device(&service, &bob, "phone").await;
        let invited = alice.invite(&group, ["bob"]).await.unwrap();
        assert_eq!((invited.added.len(), invited.missing.len()), (2, 0));
        assert_eq!(alice.membership().epoch(&group).unwrap(), 1, "one Commit adds both");
        assert_eq!(members(&alice, &group), ["alice/main", "bob/main", "bob/phone"]);
        let nobody = alice.invite(&group, ["bob"]).await.unwrap_err();
        assert_eq!(why(&nobody), &SkipReason::AlreadyMember);
        told(&bob).await;
        told(&phone).await;
        alice.send(&group, b"to all of you").await.unwrap();
        for device in [&bob, &phone] {
            assert_eq!(told(device).await, ["alice/main: to all of you"]);
        }
        phone.send(&group, b"from the phone").await.unwrap();
        assert_eq!(told(&bob).await, ["bob/phone: from the phone"]);

        // One device is removed, then all of the user.
        alice.remove(&group, "bob", Some("main")).await.unwrap();
        assert_eq!(members(&alice, &group), ["alice/main", "bob/phone"]);
        alice.invite(&group, ["bob"]).await.unwrap();
        assert_eq!(members(&alice, &group), ["alice/main", "bob/main", "bob/phone"]);
        alice.remove(&group, "bob", None).await.unwrap();
        assert_eq!(members(&alice, &group), ["alice/main"]);
    });
}

#[test]
fn a_device_without_packages_holds_up_no_other_and_is_named() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and(&service, &["bob"], 1).await;
        let bob = open(&service, "bob");
        let phone = open(&service, "bob/phone");
        let key = phone.identity().signature_key();
        let voucher = bob.vouch_for("phone", &key).await.unwrap();
        phone.register_vouched(Some(voucher)).await.unwrap();
        let invited = alice.invite(&group, ["bob", "nobody", "b/c/d"]).await.unwrap();
        assert_eq!(invited.added.len(), 1);
        let missing: Vec<String> = invited.missing.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(missing.join("\n"), @r#"
        b/c/d was not invited: device "c/d" is not valid: 1 to 64 characters of A-Z a-z 0-9 . _ @ : + -
        nobody is not registered at this server; check the name
        bob/phone has no KeyPackage left; try again when they have been online
        "#);
        let nobody = alice.invite(&group, ["nobody"]).await.unwrap_err();
        assert_eq!(why(&nobody), &SkipReason::UnknownUser);
    });
}

#[test]
fn a_user_invites_their_own_other_device() {
    run(async {
        let service = Service::start();
        drop(service.device("bob", 1).await);
        let bob = open(&service, "bob");
        let phone = second_device(&service, &bob, "phone").await;
        let group = group("mine");
        bob.create_group(&group).unwrap();
        let invited = bob.invite(&group, ["bob"]).await.unwrap();
        assert_eq!((invited.added.len(), invited.missing.len()), (1, 0));
        assert_eq!(told(&phone).await, ["joined by bob/main"]);
    });
}

#[test]
fn without_a_voucher_another_device_is_refused() {
    run(async {
        let service = Service::start();
        drop(service.device("bob", 1).await);
        let thief = open(&service, "bob/phone");
        let refused = thief.register().await.unwrap_err();
        assert!(matches!(&refused, RegisterError::IdentityBound(_)), "{refused:?}");
        assert_eq!(refused.code(), Some(Code::IdentityBound));
        for word in ["", "a", "a.b", "....", "\u{7f}.x"] {
            assert!(word.parse::<Voucher>().is_err(), "{word:?}");
        }
    });
}

#[test]
fn a_lost_device_is_removed_by_another() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and(&service, &["bob"], 2).await;
        let bob = open(&service, "bob");
        let phone = second_device(&service, &bob, "phone").await;
        let removed = bob.remove_device("phone").await.unwrap();
        assert_eq!((removed.user.as_str(), removed.device.as_str()), ("bob", "phone"));
        let unknown = bob.remove_device("phone").await.unwrap_err();
        assert_eq!(unknown.code(), Some(Code::UnknownUser), "repeated");
        let strange = bob.remove_device("a b/c").await.unwrap_err();
        assert_eq!(strange.code(), Some(Code::InvalidName));

        // Whoever has it can do nothing with it, and Bob is invited without it.
        let refused = phone.status().await.unwrap_err();
        assert_eq!(refused.code(), Some(Code::Unauthenticated));
        let refused = phone.register().await.unwrap_err();
        assert!(matches!(refused, RegisterError::KeyRetired(_)), "{refused:?}");
        assert_eq!(refused.code(), Some(Code::KeyRetired));
        let refused = phone.remove_device("main").await.unwrap_err();
        assert_eq!(refused.code(), Some(Code::Unauthenticated));
        alice.invite(&group, ["bob"]).await.unwrap();
        assert_eq!(members(&alice, &group), ["alice/main", "bob/main"]);

        // Found again: its key is nobody's ever after, and with a new home its name is back.
        let key = phone.identity().signature_key();
        let voucher = bob.vouch_for("phone", &key).await.unwrap();
        let refused = phone.register_vouched(Some(voucher)).await.unwrap_err();
        assert_eq!(refused.code(), Some(Code::KeyRetired));
        drop(phone);
        std::fs::remove_dir_all(service.folder.path().join("bob/phone")).unwrap();
        let phone = second_device(&service, &bob, "phone").await;
        let counts = phone.status().await.unwrap().counts;
        assert_eq!((counts.available, counts.revoked), (4, 4));
        alice.invite(&group, ["bob"]).await.unwrap();
        assert_eq!(members(&alice, &group), ["alice/main", "bob/main", "bob/phone"]);
    });
}

#[test]
fn a_removal_whose_answer_was_lost_is_answered_also_to_the_device_that_has_gone() {
    run(async {
        let service = Service::start();
        drop(service.device("bob", 1).await);
        let bob = open(&service, "bob");
        service.tunnel.lose(&[0]);
        bob.remove_device("main").await.unwrap();
        assert_eq!(bob.status().await.unwrap_err().code(), Some(Code::Unauthenticated));
    });
}

/// A token for a device, as the operator's own service would issue it.
fn token(issuer: &DeviceIdentity, device: &Client, exp: u64) -> String {
    let identity = device.identity();
    let kid = identity.signature_key().to_string();
    let claims = json!({
        "sub": identity.pool().user(), "aud": "chat.example", "exp": exp, "cnf": { "kid": kid },
    });
    let part = |value: &serde_json::Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", part(&json!({ "alg": "EdDSA" })), part(&claims));
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
}

#[test]
fn a_token_of_the_operators_takes_the_place_of_a_voucher() {
    run(async {
        // Any Ed25519 key will do for the operator: here, that of a device that takes no part.
        let elsewhere = super::support::Device::new("issuer");
        let issuer = elsewhere.identity.clone();
        let info = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        let info = [&info[..], issuer.signature_key().as_bytes()].concat();
        let file = elsewhere.home.path().join("issuer.pem");
        let (begin, end) = ("-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----");
        std::fs::write(&file, format!("{begin}\n{}\n{end}\n", BASE64.encode(&info))).unwrap();
        let service = Service::start_with(|settings| {
            settings.registration = RegistrationSettings {
                policy: RegistrationPolicy::Jwt,
                jwt_key: Some(file.clone()),
                jwt_audience: Some("chat.example".to_owned()),
                ..RegistrationSettings::default()
            };
        });
        let (bob, phone) = (open(&service, "bob"), open(&service, "bob/phone"));
        let exp = service.clock.now().as_secs() + 600;
        let refused = bob.register().await.unwrap_err();
        assert!(matches!(refused, RegisterError::NotAllowed(_)), "{refused:?}");
        assert_eq!(refused.code(), Some(Code::NotAllowed));
        let stolen = phone.register_with_token(&token(&issuer, &bob, exp)).await;
        assert_eq!(stolen.unwrap_err().code(), Some(Code::NotAllowed));
        for device in [&bob, &phone] {
            device.register_with_token(&token(&issuer, device, exp)).await.unwrap();
            device.refresh_key_packages().await.unwrap();
        }
        // The token is for registering alone: everything else goes without it, also another key.
        bob.connection().api().set_registration_token(None);
        bob.register().await.unwrap();
        bob.rotate_key().await.unwrap();
        bob.register().await.unwrap();
    });
}

#[test]
fn a_name_that_no_user_can_have_is_said_to_be_none_before_anything_is_sent() {
    run(async {
        let service = Service::start();
        drop(service.device("alice", 0).await);
        let alice = open(&service, "alice");
        let before = service.tunnel.requests();
        for name in [".", ".."] {
            let refused = alice.connection().api().devices_of(name).await.unwrap_err();
            assert!(matches!(refused, ApiError::Name(_)), "{refused:?}");
            let expected = format!(
                "name {name:?} is not valid: other than . and .., which mean folders in an address. Nothing was \
                 sent"
            );
            assert_eq!(refused.to_string(), expected);
        }
        assert_eq!(service.tunnel.requests(), before);
    });
}

/// A voucher is good for one registration, for ten minutes, at one server.
#[test]
fn a_voucher_that_was_used_or_is_too_old_is_refused() {
    run(async {
        let service = Service::start();
        drop(service.device("bob", 1).await);
        let bob = open(&service, "bob");
        let [phone, tablet] =
            ["phone", "tablet"].map(|name| open(&service, &format!("bob/{name}")));
        let [first, second] = [&phone, &tablet].map(|device| device.identity().signature_key());
        let first = bob.vouch_for("phone", &first).await.unwrap();
        let second_one = bob.vouch_for("tablet", &second).await.unwrap();
        phone.register_vouched(Some(first)).await.unwrap();
        let stale = tablet.register_vouched(Some(second_one)).await.unwrap_err();
        assert!(matches!(stale, RegisterError::VoucherInvalid(_)), "{stale:?}");
        assert_eq!(stale.code(), Some(Code::StatementStale), "bob's devices have changed");
        let late = bob.vouch_for("tablet", &second).await.unwrap();
        service.clock.advance(std::time::Duration::from_mins(12));
        let late = tablet.register_vouched(Some(late)).await.unwrap_err();
        assert!(matches!(late, RegisterError::VoucherInvalid(_)), "{late:?}");
        assert_eq!(late.code(), Some(Code::StatementExpired));
        let fresh = bob.vouch_for("tablet", &second).await.unwrap();
        tablet.register_vouched(Some(fresh)).await.unwrap();
    });
}

#[test]
fn the_devices_that_a_removed_one_had_vouched_for_are_named() {
    run(async {
        let service = Service::start();
        drop(service.device("bob", 1).await);
        let bob = open(&service, "bob");
        let phone = second_device(&service, &bob, "phone").await;
        drop(second_device(&service, &phone, "watch").await);
        let removed = bob.remove_device("phone").await.unwrap();
        assert_eq!(removed.introduced, ["watch"]);
    });
}
