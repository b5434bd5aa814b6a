//! A user with several devices: each vouched for by another, all of them invited.

use keypool_client::{RotateError, Why};
use keypool_projections::wire::{Code, Voucher};

use super::{
    delivery::{Client, alice_and, members, open, told},
    people::why,
    service::{Service, group, run},
};

/// Bob's other device, vouched for by the first, with a pool.
async fn second_device(service: &Service, bob: &Client, name: &str) -> Client {
    let second = open(service, &format!("bob/{name}"));
    let voucher = bob.identity().vouch_for(name, &second.identity().signature_key()).unwrap();
    // As it is carried from the one to the other.
    let carried: Voucher = voucher.to_string().parse().unwrap();
    second.register_vouched(Some(carried)).await.unwrap();
    second.refresh_key_packages().await.unwrap();
    second
}

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
        assert_eq!(why(&nobody), &Why::AlreadyMember);
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
        let voucher = bob.identity().vouch_for("phone", &key).unwrap();
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
        assert_eq!(why(&nobody), &Why::UnknownUser);
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
        assert!(matches!(&refused, RotateError::Api(_)), "{refused:?}");
        assert_eq!(refused.code(), Some(Code::IdentityBound));
        for word in ["", "a", "a.b", "....", "\u{7f}.x"] {
            assert!(word.parse::<Voucher>().is_err(), "{word:?}");
        }
    });
}
