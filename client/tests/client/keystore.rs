//! Signature keys in a keystore of the platform's: for the device's whole life, and when it refuses.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use keypool_client::{
    AddError, BoxError, ClientOpenError, ClientOptions, GroupError, IdentityError, LeafTrust,
    LocalStore, MlsClient, OfferedPackage, PoolConfig, SignatureKeystore, fresh_command,
    wire::ReserveRequest,
};
use keypool_ledger::{Clock, GroupId, SignatureKey};
use openmls_basic_credential::SignatureKeyPair;
use openmls_traits::{signatures::Signer, types::SignatureScheme};

use super::{
    members::{Client, alice_and, they_talk, told},
    service::{Service, group, run},
};

/// The reason of a locked keystore.
const LOCKED: &str = "the phone is locked";

/// A keystore outside every store of a device, which can be locked.
#[derive(Default)]
struct Keystore {
    keys: Mutex<BTreeMap<SignatureKey, SignatureKeyPair>>,
    is_locked: AtomicBool,
    signs_wrongly: AtomicBool,
}

impl Keystore {
    fn lock(&self, is_locked: bool) {
        self.is_locked.store(is_locked, Ordering::SeqCst);
    }

    fn refuse_if_locked(&self) -> Result<(), BoxError> {
        if self.is_locked.load(Ordering::SeqCst) { Err(LOCKED.into()) } else { Ok(()) }
    }

    fn public_keys(&self) -> Vec<SignatureKey> {
        self.keys.lock().unwrap().keys().cloned().collect()
    }
}

impl SignatureKeystore for Keystore {
    fn generate(&self, scheme: SignatureScheme) -> Result<SignatureKey, BoxError> {
        self.refuse_if_locked()?;
        let pair = SignatureKeyPair::new(scheme)?;
        let public = SignatureKey::new(pair.public())?;
        self.keys.lock().unwrap().insert(public.clone(), pair);
        Ok(public)
    }

    fn sign(&self, key: &SignatureKey, payload: &[u8]) -> Result<Vec<u8>, BoxError> {
        self.refuse_if_locked()?;
        let payload = if self.signs_wrongly.load(Ordering::SeqCst) { b"other" } else { payload };
        let keys = self.keys.lock().unwrap();
        let pair = keys.get(key).ok_or("there is no such key")?;
        pair.sign(payload).map_err(|err| format!("{err:?}").into())
    }

    fn delete(&self, key: &SignatureKey) -> Result<(), BoxError> {
        self.refuse_if_locked()?;
        self.keys.lock().unwrap().remove(key);
        Ok(())
    }
}

fn opened(
    service: &Service,
    name: &str,
    keystore: Option<&Arc<Keystore>>,
) -> Result<Client, ClientOpenError> {
    let keystore = keystore.map(|keystore| Arc::clone(keystore) as Arc<dyn SignatureKeystore>);
    let pool = PoolConfig {
        target: 4,
        low_watermark: 1,
        ciphersuites: vec![1, 2],
        ..PoolConfig::default()
    };
    let options = ClientOptions { keystore, pool, ..ClientOptions::new(service.clock.clone()) };
    let home = service.folder.path().join(name);
    MlsClient::open_at_server(&home, &name.parse().unwrap(), &service.tunnel.url(), options)
}

/// The innermost reason of an error.
fn last_reason(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), last_reason)
}

/// A reserved package of somebody, to add.
async fn reserve_for_offer(client: &Client, user: &str, group: &GroupId) -> OfferedPackage {
    let request = ReserveRequest::new(user, group.clone());
    let reserved = client.connection().api().reserve(&request, fresh_command()).await.unwrap();
    OfferedPackage {
        keypackage_ref: reserved.keypackage_ref,
        owner: user.parse().unwrap(),
        bytes: reserved.keypackage.0,
    }
}

/// The public keys whose private halves are in Bob's store.
fn kept_in_store(service: &Service, keys: &[SignatureKey]) -> Vec<SignatureKey> {
    let home = service.folder.path().join("bob");
    let store = LocalStore::open(&home, &"bob".parse().unwrap()).unwrap();
    let staged = store.stage().unwrap();
    let schemes = [SignatureScheme::ED25519, SignatureScheme::ECDSA_SECP256R1_SHA256];
    let is_kept = |key: &&SignatureKey| {
        schemes
            .iter()
            .any(|scheme| SignatureKeyPair::read(&staged, key.as_bytes(), *scheme).is_some())
    };
    keys.iter().filter(is_kept).cloned().collect()
}

async fn filled(service: &Service, bob: &Client) {
    bob.register().await.unwrap();
    bob.connection().refresh_now(service.clock.now()).await.unwrap();
}

#[test]
fn keys_of_a_keystore_serve_a_devices_whole_life_and_never_reach_the_store() {
    run(async {
        let service = Service::start();
        let (alice, one) = alice_and(&service, &[], 0).await;
        let keystore = Arc::new(Keystore::default());
        let open = || opened(&service, "bob", Some(&keystore)).unwrap();
        let bob = open();
        filled(&service, &bob).await;
        let two = group("two");
        alice.create_group_in(&two, 2).unwrap();
        for group in [&one, &two] {
            alice.invite(group, ["bob"]).await.unwrap();
            drop(told(&alice).await);
        }
        assert_eq!(told(&bob).await, ["joined by alice/main"; 2]);
        drop(bob);
        let bob = open();
        for group in [&one, &two] {
            they_talk(&alice, &bob, group).await;
        }

        let (before, first) = (keystore.public_keys(), bob.identity().signature_key());
        assert_eq!(before.len(), 2, "one of Ed25519, and one of P-256");
        let next = bob.rotate_key().await.unwrap();
        assert!(keystore.public_keys().contains(&next) && !before.contains(&next));
        for group in [&one, &two] {
            // The leaf with the key before is still its own.
            let members = bob.members(group).unwrap();
            let own = members.iter().find(|member| member.name == "bob/main").unwrap();
            assert_eq!(own.trust, LeafTrust::Verified);
            they_talk(&alice, &bob, group).await;
            bob.update_keys(group).await.unwrap();
            drop(told(&alice).await);
        }
        // Fifteen days later nothing needs the keys before.
        service.clock.advance(Duration::from_hours(15 * 24));
        bob.connection().refresh_now(service.clock.now()).await.unwrap();
        let after = keystore.public_keys();
        assert_eq!(after.len(), 2);
        assert!(before.iter().all(|key| !after.contains(key)) && before.contains(&first));
        for group in [&one, &two] {
            they_talk(&alice, &bob, group).await;
        }
        assert_eq!(bob.audit().unwrap().findings, []);
        drop(bob);
        assert_eq!(kept_in_store(&service, &[before, after].concat()), []);

        let without = opened(&service, "bob", None).unwrap_err();
        assert_eq!(
            without.to_string(),
            format!("{next} is in a keystore; open the device with it (ClientOptions::keystore)")
        );
    });
}

#[test]
fn a_keystore_that_refuses_loses_nothing() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and(&service, &[], 0).await;
        let keystore = Arc::new(Keystore::default());
        keystore.lock(true);
        let refused = opened(&service, "bob", Some(&keystore)).unwrap_err();
        assert!(
            matches!(refused, ClientOpenError::Identity(IdentityError::Keystore(_))),
            "{refused:?}"
        );
        keystore.lock(false);
        let bob = opened(&service, "bob", Some(&keystore)).unwrap();
        filled(&service, &bob).await;
        alice.invite(&group, ["bob"]).await.unwrap();
        assert_eq!(told(&bob).await, ["joined by alice/main"]);

        // Nothing is sent while it is locked, and the program says why.
        keystore.lock(true);
        let refused = bob.connection().refresh_now(service.clock.now()).await.unwrap_err();
        assert_eq!(
            (refused.to_string(), last_reason(&refused)),
            (
                "the keystore of the device's signature key has refused; nothing was sent"
                    .to_owned(),
                LOCKED.to_owned()
            )
        );
        assert_eq!(last_reason(&bob.send(&group, b"lost?").await.unwrap_err()), LOCKED);
        assert_eq!(last_reason(&bob.update_keys(&group).await.unwrap_err()), LOCKED);
        let mine = super::support::group("mine");
        assert_eq!(last_reason(&bob.create_group(&mine).unwrap_err()), LOCKED);
        assert_eq!(last_reason(&bob.rotate_key().await.unwrap_err()), LOCKED);
        assert_eq!(last_reason(&bob.leave(&group).await.unwrap_err()), LOCKED);
        // A package that cannot be added for that is not taken for a bad one.
        drop(service.device("carol", 2).await);
        keystore.lock(false);
        let offer = reserve_for_offer(&bob, "carol", &group).await;
        keystore.lock(true);
        let refused =
            bob.membership().stage_add(&group, &[offer], service.clock.now()).unwrap_err();
        assert!(matches!(refused, AddError::Group(GroupError::Identity(_))), "{refused:?}");
        drop(bob);

        // A locked keystore is not asked when the device is opened; once it is open, all goes on.
        let bob = opened(&service, "bob", Some(&keystore)).unwrap();
        keystore.lock(false);
        they_talk(&alice, &bob, &group).await;
        let before = bob.identity().signature_key();
        assert_ne!(bob.rotate_key().await.unwrap(), before);
        bob.update_keys(&group).await.unwrap();
        drop(told(&alice).await);
        they_talk(&alice, &bob, &group).await;
    });
}

#[test]
fn a_key_that_is_not_deleted_at_once_is_deleted_by_a_later_refresh() {
    run(async {
        let service = Service::start();
        let keystore = Arc::new(Keystore::default());
        let bob = opened(&service, "bob", Some(&keystore)).unwrap();
        filled(&service, &bob).await;
        let before = keystore.public_keys();
        bob.rotate_key().await.unwrap();
        service.clock.advance(Duration::from_hours(15 * 24));
        // Only the deletion is refused: the key signs for the request before.
        let refusing = Arc::new(RefusesToDelete(Arc::clone(&keystore)));
        drop(bob);
        let options = ClientOptions {
            keystore: Some(refusing),
            pool: PoolConfig { ciphersuites: vec![1, 2], ..PoolConfig::default() },
            ..ClientOptions::new(service.clock.clone())
        };
        let home = service.folder.path().join("bob");
        let (owner, url) = ("bob".parse().unwrap(), service.tunnel.url());
        let bob = MlsClient::open_at_server(&home, &owner, &url, options).unwrap();
        bob.connection().refresh_now(service.clock.now()).await.unwrap();
        assert!(before.iter().all(|key| keystore.public_keys().contains(key)));
        drop(bob);
        let bob = opened(&service, "bob", Some(&keystore)).unwrap();
        bob.connection().refresh_now(service.clock.now()).await.unwrap();
        assert!(before.iter().all(|key| !keystore.public_keys().contains(key)));
    });
}

struct RefusesToDelete(Arc<Keystore>);

impl SignatureKeystore for RefusesToDelete {
    fn generate(&self, scheme: SignatureScheme) -> Result<SignatureKey, BoxError> {
        self.0.generate(scheme)
    }

    fn sign(&self, key: &SignatureKey, payload: &[u8]) -> Result<Vec<u8>, BoxError> {
        self.0.sign(key, payload)
    }

    fn delete(&self, _: &SignatureKey) -> Result<(), BoxError> {
        Err("not now".into())
    }
}

#[test]
fn keys_of_the_store_stay_until_a_rotation_brings_those_of_the_keystore() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and(&service, &[], 0).await;
        let bob = opened(&service, "bob", None).unwrap();
        filled(&service, &bob).await;
        alice.invite(&group, ["bob"]).await.unwrap();
        assert_eq!(told(&bob).await, ["joined by alice/main"]);
        let first = bob.identity().signature_key();
        drop(bob);

        let keystore = Arc::new(Keystore::default());
        let bob = opened(&service, "bob", Some(&keystore)).unwrap();
        assert_eq!(
            (bob.identity().signature_key(), keystore.public_keys()),
            (first.clone(), vec![])
        );
        they_talk(&alice, &bob, &group).await;
        let next = bob.rotate_key().await.unwrap();
        assert!(keystore.public_keys().contains(&next));
        bob.update_keys(&group).await.unwrap();
        drop(told(&alice).await);
        they_talk(&alice, &bob, &group).await;
        service.clock.advance(Duration::from_hours(15 * 24));
        bob.connection().refresh_now(service.clock.now()).await.unwrap();
        drop(bob);
        assert_eq!(kept_in_store(&service, &[first, next]), []);
    });
}

#[test]
fn a_keystore_whose_signatures_do_not_verify_is_refused_and_nothing_is_written() {
    run(async {
        let service = Service::start();
        let keystore = Arc::new(Keystore::default());
        keystore.signs_wrongly.store(true, Ordering::SeqCst);
        let refused = opened(&service, "bob", Some(&keystore)).unwrap_err();
        let source = std::error::Error::source(&refused).unwrap();
        assert_eq!(source.to_string(), "its signature does not verify");
        keystore.signs_wrongly.store(false, Ordering::SeqCst);
        let bob = opened(&service, "bob", Some(&keystore)).unwrap();
        filled(&service, &bob).await;
    });
}
