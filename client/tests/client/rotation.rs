//! Another key for a device: at the server, in its packages, in its groups; and the old one really gone.

use std::{sync::Arc, time::Duration};

use keypool_client::{DeviceIdentity, LocalStore, MailboxEventKind};
use keypool_ledger::{Clock, GroupId, SignatureKey};

use super::{
    members::{Client, alice_and, alice_and_bob, members, open, they_talk, told},
    service::{Kill, Service, Side, run},
};

/// The key that a group's members know Bob by, as another member sees it.
fn key_in(client: &Client, group: &GroupId, name: &str) -> SignatureKey {
    let members = client.members(group).unwrap();
    members.into_iter().find(|member| member.name == name).unwrap().signature_key.unwrap()
}

/// Whether the old private key is still in Bob's store.
fn is_kept(service: &Service, key: &SignatureKey) -> bool {
    use openmls_basic_credential::SignatureKeyPair;
    use openmls_traits::types::SignatureScheme;

    let home = service.folder.path().join("bob");
    let store = LocalStore::open(&home, &"bob".parse().unwrap()).unwrap();
    let staged = store.stage().unwrap();
    SignatureKeyPair::read(&staged, key.as_bytes(), SignatureScheme::ED25519).is_some()
}

#[test]
fn the_next_key_is_the_devices_everywhere_and_groups_go_on_meanwhile() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        bob.update_keys(&group).await.unwrap();
        told(&alice).await;
        let before = bob.identity().signature_key();
        let next = bob.rotate_key().await.unwrap();
        assert_ne!(next, before);
        assert_eq!(bob.identity().signature_key(), next);

        // The packages of the key before are withdrawn, and fresh ones of the next are there at once.
        assert_eq!(bob.status().await.unwrap().counts.available, 4);
        assert_eq!(bob.connection().pool().get_available_count(service.clock.now()).unwrap(), 4);
        let refreshed = bob.connection().refresh_now(service.clock.now()).await.unwrap();
        let counts = bob.status().await.unwrap().counts;
        assert_eq!((refreshed.created, counts.available, counts.revoked), (0, 4, 1));

        // In the group the key before speaks until it is replaced there too.
        assert!(bob.membership().needs_fresh_keys(&group).unwrap());
        they_talk(&alice, &bob, &group).await;
        assert_eq!(key_in(&alice, &group, "bob/main"), before);
        bob.update_keys(&group).await.unwrap();
        told(&alice).await;
        assert_eq!(key_in(&alice, &group, "bob/main"), next);
        assert!(!bob.membership().needs_fresh_keys(&group).unwrap());
        they_talk(&alice, &bob, &group).await;

        // And after a restart.
        drop(bob);
        let bob = open(&service, "bob");
        assert_eq!(bob.identity().signature_key(), next);
        bob.register().await.unwrap();
        bob.remove(&group, "alice", None).await.unwrap();
        assert_eq!(members(&bob, &group), ["bob/main"]);
    });
}

#[test]
fn an_invitation_on_its_way_is_joined_with_the_key_before() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and(&service, &["bob"], 2).await;
        alice.invite(&group, ["bob"]).await.unwrap();
        let bob = open(&service, "bob");
        let next = bob.rotate_key().await.unwrap();
        assert_eq!(told(&bob).await, ["joined by alice/main"]);
        they_talk(&alice, &bob, &group).await;
        bob.update_keys(&group).await.unwrap();
        told(&alice).await;
        assert_eq!(key_in(&alice, &group, "bob/main"), next);
        they_talk(&alice, &bob, &group).await;
    });
}

#[test]
fn the_key_before_is_deleted_when_no_welcome_and_no_group_needs_it() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        bob.update_keys(&group).await.unwrap();
        told(&alice).await;
        let before = bob.identity().signature_key();
        bob.rotate_key().await.unwrap();
        bob.connection().refresh_now(service.clock.now()).await.unwrap();
        // After fifteen days no Welcome comes any more; but the group still names it.
        service.clock.advance(Duration::from_hours(15 * 24));
        bob.connection().refresh_now(service.clock.now()).await.unwrap();
        drop(bob);
        assert!(is_kept(&service, &before));
        let bob = open(&service, "bob");
        bob.update_keys(&group).await.unwrap();
        bob.connection().refresh_now(service.clock.now()).await.unwrap();
        drop(bob);
        assert!(!is_kept(&service, &before));
        told(&alice).await;
        they_talk(&alice, &open(&service, "bob"), &group).await;
    });
}

/// Each of the four requests of a rotation and a refresh after it: the app dies before it or after it.
#[test]
fn a_rotation_goes_on_wherever_it_was_killed() {
    for number in 0..4 {
        for side in [Side::Before, Side::After] {
            run(async {
                let service = Service::start();
                let (_, bob, group) = alice_and_bob(&service).await;
                let before = bob.identity().signature_key();
                let kill = Kill::Request(number, side);
                service
                    .kill_any("bob", kill, bob, async |bob: &Client| {
                        bob.rotate_key().await.unwrap();
                        bob.connection().refresh_now(service.clock.now()).await.unwrap();
                    })
                    .await;
                let bob = open(&service, "bob");
                bob.register().await.unwrap();
                let next = bob.rotate_key().await.unwrap();
                assert_ne!(next, before, "{kill:?}");
                bob.connection().refresh_now(service.clock.now()).await.unwrap();
                bob.update_keys(&group).await.unwrap();
                assert!(bob.status().await.unwrap().counts.available >= 4, "{kill:?}");
            });
        }
    }
}

/// A server that takes none of the packages, because the device's clock is wrong, takes the key: it may
/// have leaked.
#[test]
fn a_key_is_replaced_even_if_its_packages_are_refused() {
    run(async {
        let service = Service::start();
        let (alice, bob, _) = alice_and_bob(&service).await;
        let before = bob.identity().signature_key();
        let later = service.clock.now().after(Duration::from_hours(48));
        let next = bob.connection().rotate_key(later).await.unwrap();
        assert_ne!(next, before);
        assert_eq!(bob.identity().signature_key(), next);
        assert_eq!(bob.status().await.unwrap().counts.available, 0);
        bob.connection().refresh_now(service.clock.now()).await.unwrap();
        assert_eq!(bob.status().await.unwrap().counts.available, 4);
        drop(alice);
    });
}

#[test]
fn an_app_that_dies_in_a_rotation_leaves_a_full_pool() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and(&service, &["bob"], 2).await;
        let bob = open(&service, "bob");
        let kill = Kill::Request(1, Side::After);
        service
            .kill_any("bob", kill, bob, async |bob: &Client| bob.rotate_key().await.unwrap())
            .await;
        // Before Bob is back: his old packages are withdrawn, and there are others.
        let invited = alice.invite(&group, ["bob"]).await.unwrap();
        assert_eq!((invited.added.len(), invited.missing.len()), (1, 0));
        let bob = open(&service, "bob");
        bob.refresh_key_packages().await.unwrap();
        assert_eq!(told(&bob).await, ["joined by alice/main"]);
        they_talk(&alice, &bob, &group).await;
        let counts = bob.status().await.unwrap().counts;
        assert_eq!((counts.available, counts.spent, counts.revoked), (3, 1, 2));
    });
}

#[test]
fn lost_answers_end_the_same() {
    for lost in 0..4 {
        run(async {
            let service = Service::start();
            drop(service.device("bob", 2).await);
            let bob = open(&service, "bob");
            service.tunnel.lose(&[lost]);
            let next = bob.rotate_key().await.unwrap();
            bob.connection().refresh_now(service.clock.now()).await.unwrap();
            let counts = bob.status().await.unwrap().counts;
            assert_eq!((counts.available, counts.revoked), (4, 2));
            drop(bob);
            assert_eq!(open(&service, "bob").identity().signature_key(), next);
        });
    }
}

#[test]
fn withdrawn_packages_keep_their_keys_for_welcomes_on_their_way() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and(&service, &["bob"], 2).await;
        alice.invite(&group, ["bob"]).await.unwrap();
        let bob = open(&service, "bob");
        assert_eq!(bob.invalidate_credential_keys().await.unwrap(), 2);
        assert_eq!(bob.invalidate_credential_keys().await.unwrap(), 0, "repeated");
        let counts = bob.status().await.unwrap().counts;
        assert_eq!((counts.available, counts.revoked, counts.spent), (0, 1, 1));
        let joined = bob.sync(0).await.unwrap();
        assert!(matches!(joined[0].kind, MailboxEventKind::Joined { .. }), "{joined:?}");
    });
}

#[test]
fn clones_of_an_identity_have_the_same_key() {
    run(async {
        let service = Service::start();
        drop(service.device("bob", 1).await);
        let bob = open(&service, "bob");
        let clone: DeviceIdentity = bob.identity().clone();
        let shared = Arc::new(clone.clone());
        let next = bob.rotate_key().await.unwrap();
        assert_eq!((clone.signature_key(), shared.signature_key()), (next.clone(), next));
    });
}
