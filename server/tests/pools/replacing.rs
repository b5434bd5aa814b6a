//! Another key together with its packages, a device that goes, and a device that the operator lets in.

use std::time::Duration;

use keypool_ledger::{Clock, Event, EventLog, Hash, SignatureKey, SignedStatement};
use keypool_projections::{
    Answer, Command, ItemOutcome, ItemRefusal, LeafKey, NextKey, Rejection, Remover, Stage,
    statement::StatementTime,
};
use keypool_server::pools::ExecuteError;

use crate::{
    history::{leaf_key, package, pool, reference},
    service::{Service, register, reserve, statement},
};

fn key(n: u8) -> SignatureKey {
    SignatureKey::new(&[n; 32]).unwrap()
}

fn replace(service: &Service, previous: u8, next: u8, names: &[&str]) -> Command {
    replace_with(service, (previous, next), names, &[])
}

/// Packages of the next key in the place of all others, with leaf keys that it declares.
fn replace_with(
    service: &Service,
    (previous, next): (u8, u8),
    names: &[&str],
    leaf_keys: &[u8],
) -> Command {
    let declared = |number: &u8| (statement(service, "bob", next), leaf_key(*number));
    let next = NextKey {
        statement: statement(service, "bob", previous),
        signature_key: key(next),
        credential: "bob".to_owned(),
        leaf_keys: leaf_keys.iter().map(declared).collect(),
    };
    let packages = names.iter().map(|name| package(name)).collect();
    Command::Replace { packages, next: Some(next) }
}

fn vouched(service: &Service, key_of: u8, by: Option<u8>) -> Command {
    Command::Register {
        signature_key: key(key_of),
        credential: "bob".to_owned(),
        statement: by.map(|by| statement(service, "bob", by)),
    }
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
    let refused = service.run(4, "bob", replace(&service, 3, 2, &["c"]));
    assert_eq!(rejection(refused), Some(Rejection::IdentityBound), "not the key there is");
    let before = service.events().len();

    let asked = replace(&service, 1, 2, &["c", "d"]);
    let replaced = service.run(5, "bob", asked.clone()).unwrap();
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
    assert_eq!(service.run(5, "bob", asked.clone()).unwrap(), replaced);
    let service = service.restarted();
    assert_eq!(service.run(5, "bob", asked.clone()).unwrap(), replaced);
    let again = service.run(6, "bob", asked).unwrap();
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
    let refused = service.run(3, "bob", replace(&service, 1, 2, &["a'"])).unwrap();
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
    let remove = |by: u8| Command::Remove { by: Remover::Key(key(by)) };
    service.run(1, "bob", register(1, "bob")).unwrap();
    service.run(2, "bob/phone", vouched(&service, 2, Some(1))).unwrap();
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
    let any = service.reserve_of_user(11, "bob", (2, "carol", &[]));
    assert_eq!(any.unwrap().pool, pool("bob/phone"));
    let none = rejection(service.reserve_of_user(12, "bob", (3, "carol", &[])));
    assert_eq!(none, Some(Rejection::PoolExhausted));

    // The name comes back by a voucher, and not without one.
    let refused = rejection(service.run(13, "bob", register(4, "bob")));
    assert_eq!(refused, Some(Rejection::IdentityBound));
    service.run(14, "bob", vouched(&service, 4, Some(2))).unwrap();
    service.upload(15, "bob", &["c"]);
}

#[test]
fn where_the_last_device_is_removed_the_name_stays_bound() {
    let service = Service::new();
    service.run(1, "bob", register(1, "bob")).unwrap();
    service.run(2, "bob", Command::Remove { by: Remover::Key(key(1)) }).unwrap();
    let service = service.restarted();
    let by_itself = vouched(&service, 2, Some(1));
    for (id, target, command) in [
        (3, "bob", register(4, "bob")),
        (4, "bob", register(2, "bob")),
        (5, "bob/phone", register(2, "bob")),
        (6, "bob", by_itself),
    ] {
        let refused = rejection(service.run(id, target, command));
        assert_eq!(refused, Some(Rejection::IdentityBound), "{id}");
    }
    let refused = rejection(service.run(20, "bob", register(1, "bob")));
    assert_eq!(refused, Some(Rejection::KeyRetired(key(1))));
    let none = rejection(service.reserve_of_user(7, "bob", (3, "carol", &[])));
    assert_eq!(none, Some(Rejection::UnknownUser("bob".to_owned())));
    // The operator may say whose it is.
    let admit = |n| Command::Admit {
        signature_key: key(n),
        credential: "bob".to_owned(),
        statement: None,
        frontend: None,
    };
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
fn a_leaf_key_is_declared_before_its_packages_and_never_comes_with_an_upload() {
    let service = Service::new();
    service.run(1, "bob", register(1, "bob")).unwrap();
    let upload = |service: &Service, id| service.upload(id, "bob", &["a", "a:5", "b:6"]).answer;
    let differs = |name| ItemOutcome::Refused(reference(name), ItemRefusal::LeafKeyDiffers);
    let Answer::Uploaded(outcomes) = upload(&service, 2) else { panic!("not an upload") };
    assert_eq!(outcomes[1..], [differs("a:5"), differs("b:6")]);

    let declare = |by: u8, number: u8| Command::DeclareLeafKey {
        statement: statement(&service, "bob", by),
        leaf_key: leaf_key(number),
    };
    let refused = rejection(service.run(3, "bob", declare(9, 5)));
    assert_eq!(refused, Some(Rejection::NotRegistered), "another key declares it");
    let asked = declare(1, 5);
    let declared = service.run(4, "bob", asked.clone()).unwrap();
    assert_eq!(service.run(4, "bob", asked).unwrap(), declared, "repeated");
    let Answer::Uploaded(outcomes) = upload(&service, 5) else { panic!("not an upload") };
    assert_eq!(outcomes[1..], [ItemOutcome::Stored(reference("a:5")), differs("b:6")]);
    assert_eq!(pinned(&service), Some(leaf_key(5).signature_key));
    let in_use = rejection(service.run(6, "bob", declare(1, 6)));
    assert_eq!(in_use, Some(Rejection::LeafKeyInUse), "a package of the other one is live");

    // A key that follows brings its own along, and one that does not ends the one there is.
    let asked = replace_with(&service, (1, 2), &["c:6"], &[6]);
    let replaced = service.run(7, "bob", asked).unwrap();
    assert_eq!(replaced.health().suites[0].available, 1);
    let service = service.restarted();
    assert_eq!(pinned(&service), Some(leaf_key(6).signature_key));
    assert_eq!(service.pools.pool_of_key(&leaf_key(6).signature_key), None, "it speaks for nobody");
    service.run(8, "bob", replace(&service, 2, 3, &["d"])).unwrap();
    assert_eq!(pinned(&service), None);
}

#[test]
fn a_statement_works_once_in_its_time_and_on_the_list_it_was_made_on() {
    let service = Service::new();
    service.run(1, "bob", register(1, "bob")).unwrap();
    let vouch = vouched(&service, 2, Some(1));
    let late = service.clock.now();
    service.clock.advance(Duration::from_mins(5));
    let refused = rejection(service.run(2, "bob/laptop", vouch));
    assert_eq!(refused, Some(Rejection::StatementTime(StatementTime::Expired)));
    let mut long = statement(&service, "bob", 1);
    long.until = late.after(Duration::from_hours(1));
    let long = Command::Register {
        signature_key: key(2),
        credential: "bob".to_owned(),
        statement: Some(long),
    };
    let refused = rejection(service.run(3, "bob/laptop", long));
    assert_eq!(refused, Some(Rejection::StatementTime(StatementTime::TooLong)));

    // Used once, and then neither for the device that was removed nor for another one.
    let (vouch, rotation) = (vouched(&service, 2, Some(1)), rotate(&service, 1, 7));
    service.run(4, "bob/laptop", vouch.clone()).unwrap();
    let stale = rejection(service.run(5, "bob", rotation));
    assert_eq!(stale, Some(Rejection::StatementStale), "the list has another device since");
    service.run(6, "bob/laptop", Command::Remove { by: Remover::Key(key(1)) }).unwrap();
    let back = rejection(service.run(7, "bob/laptop", vouch));
    assert_eq!(back, Some(Rejection::KeyRetired(key(2))));
    let other = match vouched(&service, 3, Some(1)) {
        Command::Register { signature_key, credential, .. } => Command::Register {
            signature_key,
            credential,
            statement: Some(SignedStatement { head: Hash::ZERO, ..statement(&service, "bob", 1) }),
        },
        other => other,
    };
    let stale = rejection(service.run(8, "bob/laptop", other));
    assert_eq!(stale, Some(Rejection::StatementStale));
}

fn rotate(service: &Service, previous: u8, next: u8) -> Command {
    Command::Rotate {
        statement: statement(service, "bob", previous),
        signature_key: key(next),
        credential: "bob".to_owned(),
    }
}

#[test]
fn a_key_that_was_taken_away_is_nobodys_ever_after() {
    let service = Service::new();
    service.run(1, "bob", register(1, "bob")).unwrap();
    service.run(2, "bob", rotate(&service, 1, 2)).unwrap();
    service.run(3, "bob", rotate(&service, 2, 3)).unwrap();
    service.run(4, "carol", register(8, "carol")).unwrap();
    service.run(5, "carol", Command::Remove { by: Remover::Key(key(8)) }).unwrap();
    let service = service.restarted();
    let admit = |n: u8| Command::Admit {
        signature_key: key(n),
        credential: "x".to_owned(),
        statement: None,
        frontend: None,
    };
    let declare = Command::DeclareLeafKey {
        statement: statement(&service, "bob", 3),
        leaf_key: LeafKey { signature_scheme: 0x0403, signature_key: key(1) },
    };
    let attempts = [
        ("bob", rotate(&service, 3, 1), 1),
        ("bob", replace(&service, 3, 2, &["a"]), 2),
        ("dave", register(1, "dave"), 1),
        ("carol", register(8, "carol"), 8),
        ("carol", admit(8), 8),
        ("dave", admit(2), 2),
        ("bob", declare, 1),
    ];
    for (id, (target, command, n)) in (10..).zip(attempts) {
        let refused = rejection(service.run(id, target, command));
        assert_eq!(refused, Some(Rejection::KeyRetired(key(n))), "{id}");
    }
    service.run(30, "carol", admit(9)).unwrap();
    assert_eq!(service.pools.pool(&pool("carol")).unwrap().state.identity().incarnation, 2);
}

#[test]
fn a_name_that_was_released_is_anyones_with_a_new_key() {
    let service = Service::new();
    service.run(1, "bob", register(1, "bob")).unwrap();
    service.run(2, "bob/phone", vouched(&service, 2, Some(1))).unwrap();
    service.upload(3, "bob", &["a"]);
    for (id, device) in [(4, "bob"), (5, "bob/phone")] {
        service.run(id, device, Command::ReleaseName).unwrap();
    }
    let service = service.restarted();
    assert_eq!(service.pools.health(&pool("bob")).unwrap().available, 0);
    let dead = rejection(service.run(6, "bob", register(1, "bob")));
    assert_eq!(dead, Some(Rejection::KeyRetired(key(1))));
    service.run(7, "bob", register(5, "bob")).unwrap();
    let bound = rejection(service.run(8, "bob/phone", register(6, "bob")));
    assert_eq!(bound, Some(Rejection::IdentityBound), "the name is bound again");
    service.run(9, "bob", Command::Remove { by: Remover::Key(key(5)) }).unwrap();
    let bound = rejection(service.run(10, "bob", register(7, "bob")));
    assert_eq!(bound, Some(Rejection::IdentityBound), "and stays so after a removal");
}

#[test]
fn a_name_is_plain_and_unlike_every_other() {
    let service = Service::new();
    service.run(1, "alice", register(1, "alice")).unwrap();
    for (id, name) in [(2, "alice/.."), (3, "alice/."), (4, "../x"), (5, "-rf"), (6, "bob/-f")] {
        let refused = rejection(service.run(id, name, register(9, "x")));
        assert!(matches!(refused, Some(Rejection::Name(_))), "{name}: {refused:?}");
    }
    let similar = rejection(service.run(7, "Alice", register(2, "Alice")));
    assert_eq!(similar, Some(Rejection::NameTaken("Alice".to_owned(), "alice".to_owned())));
    let vouch = |service: &Service| Command::Register {
        signature_key: key(3),
        credential: "alice".to_owned(),
        statement: Some(statement(service, "alice", 1)),
    };
    let similar = rejection(service.run(8, "alice/Main", vouch(&service)));
    assert_eq!(similar, Some(Rejection::NameTaken("Main".to_owned(), "main".to_owned())));
    // Names that only packages have been uploaded for may be alike: from then on they are not.
    for (id, device) in [(20, "Carol/phone"), (21, "carol/phone")] {
        service.upload(id, device, &[device]);
    }
    for (id, device) in [(22, "Carol/Phone"), (23, "carol/Phone")] {
        let similar = rejection(service.run(id, device, register(9, device)));
        assert!(matches!(similar, Some(Rejection::NameTaken(..))), "{device}: {similar:?}");
    }
    for n in 1..32_u8 {
        let command = Command::Register {
            signature_key: key(100 + n),
            credential: "alice".to_owned(),
            statement: Some(statement(&service, "alice", 1)),
        };
        service.run(100 + u128::from(n), &format!("alice/d{n}"), command).unwrap();
    }
    let full = rejection(service.run(9, "alice/one-more", vouch(&service)));
    assert_eq!(full, Some(Rejection::DevicesFull("alice".to_owned(), 32)));
}
