//! A user with several devices: each vouched for by another, all of them invited.

use keypool_client::{InviteError, RotateError};
use keypool_projections::wire::{Code, Voucher};

use super::{
    delivery::{Client, alice_and, members, open, told},
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
        let invited = alice.invite_devices(&group, "bob").await.unwrap();
        assert_eq!(invited.len(), 2);
        assert!(invited.iter().all(|(_, outcome)| outcome.is_ok()), "{invited:?}");
        assert_eq!(members(&alice, &group), ["alice/main", "bob/main", "bob/phone"]);
        assert!(alice.invite_devices(&group, "bob").await.unwrap().is_empty(), "nobody is left");
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
        alice.invite_devices(&group, "bob").await.unwrap();
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
        let invited = alice.invite_devices(&group, "bob").await.unwrap();
        assert!(invited[0].1.is_ok(), "{invited:?}");
        let (device, Err(InviteError::PoolExhausted { target })) = &invited[1] else {
            panic!("{invited:?}");
        };
        assert_eq!((device.to_string().as_str(), target.as_str()), ("bob/phone", "bob/phone"));
        let nobody = alice.invite_devices(&group, "nobody").await;
        assert!(matches!(nobody, Err(InviteError::UnknownUser { .. })), "{nobody:?}");
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
        let invited = bob.invite_devices(&group, "bob").await.unwrap();
        assert_eq!(invited.len(), 1);
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
