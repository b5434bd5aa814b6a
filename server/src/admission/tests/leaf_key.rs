//! Check 11: the key in the leaf is the registered one, or that of the pool's packages of its scheme.

use std::time::Duration;

use keypool_ledger::{Signature, SignedStatement};
use keypool_projections::LeafKey;

use super::*;

#[test]
fn check_11_signature_key() {
    let (maker, other) = (Maker::new(1), Maker::new(1));
    let package = bytes(&maker.sign(maker.content()));
    let detail = "the leaf's signature key is not the device's registered key; declare another one with \
                  POST /devices/leaf-key before the upload";
    check_refused(&other, &package, Check::SignatureKey, detail);

    let unsigned = Owner { signature_key: None, ..maker.owner() };
    admit(&package, &unsigned, NOW, &rules()).unwrap();
}

#[test]
fn check_11_signature_key_of_a_declared_ed25519_key() {
    let (registered, leaf) = (Maker::new(1), Maker::new(1));
    let leaf_key = SignatureKey::new(&leaf.public_key).unwrap();
    let owner = Owner { leaf_key: Some(leaf_key.clone()), ..registered.owner() };
    let package = bytes(&leaf.sign(leaf.content()));
    let admitted = admit(&package, &owner, NOW, &rules()).unwrap();
    assert_eq!(
        admitted.leaf_key,
        Some(LeafKey { signature_scheme: 0x0807, signature_key: leaf_key })
    );
    let package = bytes(&registered.sign(registered.content()));
    let refused = admit(&package, &owner, NOW, &rules()).unwrap_err();
    assert_eq!(refused.check, Check::SignatureKey);
    assert_eq!(
        refused.detail,
        "the leaf's signature key is not the one that the device has declared with \
         POST /devices/leaf-key"
    );
}

#[test]
fn check_11_signature_key_of_p256() {
    let maker = Maker::new(2);
    let compressed = maker.spoiled(|content| {
        let key = &maker.public_key;
        let begins = if key[64].is_multiple_of(2) { 2 } else { 3 };
        content.leaf.content.signature_key = [&[begins], &key[1..33]].concat().into();
    });
    let detail = "the leaf's signature key is no point of P-256 in 65 bytes";
    check_refused(&maker, &compressed, Check::SignatureKey, detail);
    let unsigned = Owner { signature_key: None, ..maker.owner() };
    let package = bytes(&maker.sign(maker.content()));
    assert_eq!(admit(&package, &unsigned, NOW, &rules()).unwrap().leaf_key, None);
}

/// A statement as the log keeps it: its signature was checked before.
fn agreed(store: &KeyPackageStore<MemoryLog>, pool: &PoolId, by: SignatureKey) -> SignedStatement {
    let head = store.pools().device_list_head(pool.user());
    let until = NOW.after(Duration::from_mins(1));
    SignedStatement { by, head, until, proof: Signature::new(&[7; 64]).unwrap() }
}

#[actix_web::test]
async fn check_11_of_p256_is_made_by_the_pool() {
    let (maker, other, clock) = (Maker::new(2), Maker::new(2), Arc::new(ManualClock::at(NOW)));
    let pools = Pools::open(MemoryLog::default(), clock, Limits::STANDARD).unwrap();
    let (store, pool) = (KeyPackageStore::new(pools, rules()), maker.owner().pool);
    let registered = (maker.owner().signature_key.unwrap(), None);
    let key = registered.0.clone();
    store.register(&pool, registered, Idempotency::fresh()).await.unwrap();
    let signature_key = SignatureKey::new(&maker.public_key).unwrap();
    let leaf_key = LeafKey { signature_scheme: 0x0403, signature_key: signature_key.clone() };
    let declared = (agreed(&store, &pool, key), leaf_key);
    store.declare_leaf_key(&pool, declared, Idempotency::fresh()).await.unwrap();
    let package =
        |maker: &Maker, seed| maker.spoiled(|content| content.init_key = maker.hpke_key(seed));
    let batch = vec![package(&maker, 3), package(&other, 4), package(&maker, 5)];
    let saved = store.save_key_packages(&pool, batch, Idempotency::fresh()).await.unwrap();
    let outcomes: Vec<_> = saved.items.into_iter().map(Result::unwrap).collect();
    assert!(
        matches!(
            outcomes.as_slice(),
            [
                ItemOutcome::Stored(_),
                ItemOutcome::Refused(_, ItemRefusal::LeafKeyDiffers),
                ItemOutcome::Stored(_)
            ]
        ),
        "{outcomes:?}"
    );
    assert_eq!(saved.health.suites[0].available, 2);
    let pinned = store.view(&pool).state.pinned_key(0x0403).cloned();
    assert_eq!(pinned, Some(signature_key));
}
