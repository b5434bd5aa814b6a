//! Another key together with its packages, a device that goes, and a device that the operator lets in.

use keypool_ledger::{Event, EventLog, SignatureKey};
use keypool_projections::{
    Answer, Command, ExecuteError, ItemOutcome, ItemRefusal, NextKey, Rejection, Stage, Target,
};

use crate::{
    history::{leaf_key, package, pool, reference},
    pools::{Service, block_on, register, request, reserve},
};

fn key(n: u8) -> SignatureKey {
    SignatureKey::new(&[n; 32]).unwrap()
}

fn replace(previous: u8, next: u8, names: &[&str]) -> Command {
    let (previous, signature_key) = (key(previous), key(next));
    let next = Some(NextKey { previous, signature_key, credential: "bob".to_owned() });
    Command::Replace { packages: names.iter().map(|name| package(name)).collect(), next }
}

fn rejection<T>(outcome: Result<T, ExecuteError>) -> Option<Rejection> {
    match outcome {
        Err(ExecuteError::Rejected(rejection)) => Some(rejection),
        _ => None,
    }
}

#[test]
fn another_key_comes_with_its_packages_in_one_batch() {
    let service = Service::new();
    service.run(1, "bob", register(1, "bob")).unwrap();
    service.upload(2, "bob", &["a", "b"]);
    service.run(3, "bob", reserve(7, "alice")).unwrap();
    let refused = service.run(4, "bob", replace(3, 2, &["c"]));
    assert_eq!(rejection(refused), Some(Rejection::IdentityBound), "not the key there is");
    let before = service.events().len();

    let replaced = service.run(5, "bob", replace(1, 2, &["c", "d"])).unwrap();
    let outcomes = ["c", "d"].map(|name| ItemOutcome::Stored(reference(name))).to_vec();
    let mut revoked = vec![reference("a"), reference("b")];
    revoked.sort();
    assert_eq!(replaced.answer, Answer::Replaced { outcomes, revoked });
    assert_eq!(replaced.health().available, 2);
    assert_eq!(
        service.events()[before..],
        ["key_rotated", "revoked", "revoked", "uploaded", "uploaded"]
    );
    let records = service.log.read(before as u64 + 1, 10).unwrap();
    assert_eq!(records[4].payload, package("d").bytes);

    // The same request again, also after a restart, and what it asks for by another one.
    assert_eq!(service.run(5, "bob", replace(1, 2, &["c", "d"])).unwrap(), replaced);
    let service = service.restarted();
    assert_eq!(service.run(5, "bob", replace(1, 2, &["c", "d"])).unwrap(), replaced);
    let again = service.run(6, "bob", replace(1, 2, &["c", "d"])).unwrap();
    let known = |name| ItemOutcome::Known(reference(name), Stage::Available);
    let outcomes = ["c", "d"].map(known).to_vec();
    assert_eq!(again.answer, Answer::Replaced { outcomes, revoked: Vec::new() });
    assert_eq!(service.pools.pool_of_key(&key(2)), Some(pool("bob")));
    assert_eq!(service.pools.pool_of_key(&key(1)), None);
}

#[test]
fn where_no_new_package_is_acceptable_the_key_stays_as_well() {
    let service = Service::new();
    service.run(1, "bob", register(1, "bob")).unwrap();
    service.upload(2, "bob", &["a"]);
    let before = service.events();
    // Another package with the init_key of `a`, which the pool has seen.
    let refused = service.run(3, "bob", replace(1, 2, &["a'"])).unwrap();
    assert!(
        matches!(&refused.answer, Answer::Replaced { outcomes, revoked }
            if matches!(outcomes[..], [ItemOutcome::Refused(..)]) && revoked.is_empty()),
        "{refused:?}"
    );
    assert_eq!(service.events(), before);
    assert_eq!(service.pools.pool_of_key(&key(1)), Some(pool("bob")));
}

#[test]
fn a_package_of_another_pool_takes_nobodys_place() {
    let service = Service::new();
    service.upload(1, "alice", &["a"]);
    service.upload(2, "bob", &["b"]);
    let packages = vec![package("a")];
    let refused = service.run(3, "bob", Command::Replace { packages, next: None });
    assert_eq!(rejection(refused), Some(Rejection::UploadedElsewhere(reference("a"))));
}

#[test]
fn a_device_is_removed_by_a_key_of_its_user_only() {
    let service = Service::new();
    let vouched = |key_of: u8, by: Option<u8>| Command::Register {
        signature_key: key(key_of),
        credential: "bob".to_owned(),
        voucher: by.map(key),
    };
    let remove = |by: u8| Command::Remove { by: key(by) };
    service.run(1, "bob", register(1, "bob")).unwrap();
    service.run(2, "bob/phone", vouched(2, Some(1))).unwrap();
    service.run(3, "carol", register(3, "carol")).unwrap();
    service.upload(4, "bob", &["a"]);
    service.upload(5, "bob/phone", &["b"]);
    for (id, by) in [(6, 3), (7, 9)] {
        let refused = rejection(service.run(id, "bob", remove(by)));
        assert_eq!(refused, Some(Rejection::NotRegistered), "by {by}");
    }
    let removed = service.run(8, "bob", remove(2)).unwrap();
    assert_eq!((&removed.answer, removed.health().available), (&Answer::Removed, 0));
    assert_eq!(service.run(8, "bob", remove(2)).unwrap(), removed, "repeated");
    assert_eq!(rejection(service.run(9, "bob", remove(1))), Some(Rejection::NotRegistered));
    assert_eq!(service.pools.pool_of_key(&key(1)), None);
    assert_eq!(service.pools.registered_devices("bob"), [pool("bob/phone")]);

    // Nobody is given a package of it; its user's other device is there still.
    let named = rejection(service.run(10, "bob", reserve(1, "carol")));
    assert_eq!(named, Some(Rejection::NotRegistered));
    let any = request(11, Target::User("bob".to_owned()), reserve(2, "carol"));
    assert_eq!(block_on(service.pools.execute(any)).unwrap().pool, pool("bob/phone"));
    let none = request(12, Target::User("bob".to_owned()), reserve(3, "carol"));
    let none = rejection(block_on(service.pools.execute(none)));
    assert_eq!(none, Some(Rejection::PoolExhausted));

    // The name comes back by a voucher, and not without one.
    let refused = rejection(service.run(13, "bob", register(4, "bob")));
    assert_eq!(refused, Some(Rejection::IdentityBound));
    service.run(14, "bob", vouched(4, Some(2))).unwrap();
    service.upload(15, "bob", &["c"]);
}

#[test]
fn where_the_last_device_is_removed_the_name_stays_bound() {
    let service = Service::new();
    service.run(1, "bob", register(1, "bob")).unwrap();
    service.run(2, "bob", Command::Remove { by: key(1) }).unwrap();
    let service = service.restarted();
    let by_itself = Command::Register {
        signature_key: key(1),
        credential: "bob".to_owned(),
        voucher: Some(key(1)),
    };
    for (id, target, command) in [
        (3, "bob", register(1, "bob")),
        (4, "bob", register(2, "bob")),
        (5, "bob/phone", register(2, "bob")),
        (6, "bob", by_itself),
    ] {
        let refused = rejection(service.run(id, target, command));
        assert_eq!(refused, Some(Rejection::IdentityBound), "{id}");
    }
    let any = request(7, Target::User("bob".to_owned()), reserve(3, "carol"));
    let none = rejection(block_on(service.pools.execute(any)));
    assert_eq!(none, Some(Rejection::UnknownUser("bob".to_owned())));
    // The operator may say whose it is.
    let admit = |n| Command::Admit { signature_key: key(n), credential: "bob".to_owned() };
    service.run(8, "bob", admit(2)).unwrap();
    service.run(9, "bob/phone", admit(3)).unwrap();
    assert_eq!(rejection(service.run(10, "bob", admit(4))), Some(Rejection::IdentityBound));
    assert_eq!(rejection(service.run(11, "carol", admit(2))), Some(Rejection::IdentityBound));
    let record = service.log.read(1, 100).unwrap().pop().unwrap();
    assert!(matches!(record.envelope.event, Event::Registered { voucher: None, .. }));
}

/// The key that the packages of another scheme are signed with.
fn pinned(service: &Service) -> Option<SignatureKey> {
    service.pools.pool(&pool("bob")).unwrap().state.pinned_key(0x0403).cloned()
}

#[test]
fn an_upload_that_brings_a_key_is_answered_alike_when_it_is_repeated() {
    let service = Service::new();
    service.run(1, "bob", register(1, "bob")).unwrap();
    let first = service.upload(2, "bob", &["a", "a:5", "b:6", "b:5"]);
    let Answer::Uploaded(outcomes) = &first.answer else { panic!("{first:?}") };
    let differs = ItemOutcome::Refused(reference("b:6"), ItemRefusal::LeafKeyDiffers);
    assert_eq!(outcomes[2], differs);
    let events = ["registered", "uploaded", "leaf_key_pinned", "uploaded", "uploaded"];
    assert_eq!(service.events(), events);
    assert_eq!(pinned(&service), Some(leaf_key(5).signature_key));

    // Again at once, after a restart, and when another key has taken its place.
    assert_eq!(service.upload(2, "bob", &["a", "a:5", "b:6", "b:5"]).answer, first.answer);
    let service = service.restarted();
    assert_eq!(pinned(&service), Some(leaf_key(5).signature_key));
    assert_eq!(service.upload(2, "bob", &["a", "a:5", "b:6", "b:5"]).answer, first.answer);
    assert_eq!(service.events(), events);
    let replaced = service.run(3, "bob", replace(1, 2, &["c:6"])).unwrap();
    assert_eq!(replaced.health().suites[0].available, 1);
    assert_eq!(pinned(&service), Some(leaf_key(6).signature_key));
    assert_eq!(service.upload(2, "bob", &["a", "a:5", "b:6", "b:5"]).answer, first.answer);
    assert_eq!(service.pools.pool_of_key(&leaf_key(6).signature_key), None, "it speaks for nobody");
    service
        .run(
            4,
            "bob",
            Command::Rotate {
                previous: key(2),
                signature_key: key(3),
                credential: "bob".to_owned(),
            },
        )
        .unwrap();
    assert_eq!(pinned(&service), None);
}
