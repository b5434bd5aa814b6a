//! Recovery keys and declared credentials, as the auditor derives them again.

use std::{fs, time::Duration};

use keypool_auditor::invariants::{Auditor, InvariantParams};
use keypool_ledger::{
    CredentialBytes, Event, EventLog, Hash, PackageFacts, Signature, SignatureKey, SignedStatement,
};
use keypool_projections::Command;
use tempfile::TempDir;

use crate::{
    histories::exported,
    history::{at, envelope, package, pool},
    service::{Service, register, statement},
    tool::tool_in,
};

fn key(byte: u8) -> SignatureKey {
    SignatureKey::new(&[byte; 32]).unwrap()
}

fn stated(by: u8) -> SignedStatement {
    SignedStatement {
        by: key(by),
        head: Hash::ZERO,
        until: at(60),
        proof: Signature::new(&[0; 64]).unwrap(),
    }
}

fn registered(byte: u8) -> Event {
    let (signature_key, credential) = (key(byte), "bob".to_owned());
    Event::Registered { signature_key, credential, voucher: None, statement: None, frontend: None }
}

fn recovery(byte: u8, by: u8) -> Event {
    Event::RecoveryKeySet { recovery_key: key(byte), statement: stated(by) }
}

fn credential(byte: u8) -> CredentialBytes {
    CredentialBytes::new(&[0, 1, 1, byte]).unwrap()
}

fn declared(byte: u8) -> Event {
    Event::CredentialDeclared { credential: credential(byte), statement: stated(1) }
}

fn leaf_key(byte: u8) -> Event {
    let statement = Some(stated(1));
    Event::LeafKeyPinned { signature_scheme: 0x0807, signature_key: key(byte), statement }
}

/// A package of ciphersuite 1 with a credential.
fn uploaded(name: &str, byte: u8) -> Event {
    let credential = credential(byte).digest();
    Event::Uploaded(PackageFacts { credential, ..package(name).facts })
}

/// The rules that some events break, each of a device.
fn broken(events: Vec<(&str, Event)>) -> Vec<&'static str> {
    let mut auditor = Auditor::new(InvariantParams::STANDARD);
    for (seq, (device, event)) in (1..).zip(events) {
        auditor.see(seq, &envelope(seq, pool(device), event, at(seq)));
    }
    auditor.finish().iter().map(|finding| finding.rule).collect()
}

#[test]
fn a_recovery_key_is_one_at_a_time_of_the_users_and_no_other_key() {
    let begun = || vec![("bob", registered(1)), ("bob", recovery(8, 1))];
    let then = |more: Vec<(&'static str, Event)>| broken([begun(), more].concat());
    let fine = vec![
        ("bob", recovery(9, 8)),
        ("bob", Event::DeviceRemoved { by_operator: false }),
        ("bob/phone", registered(2)),
        // Also after its device is gone, in the same history.
        ("bob", recovery(7, 9)),
        ("bob/phone", Event::DeviceRemoved { by_operator: false }),
        ("bob", Event::NameReleased {}),
        ("bob", registered(3)),
        ("bob", recovery(6, 3)),
    ];
    assert!(then(fine).is_empty());
    // Another device's, another user's, or a replaced one: they are nobody's device key.
    assert_eq!(then(vec![("bob/phone", registered(8))]), ["I12"]);
    assert_eq!(then(vec![("zoe", registered(8))]), ["I12"]);
    assert_eq!(then(vec![("bob", leaf_key(8))]), ["I12"]);
    assert_eq!(then(vec![("bob", recovery(9, 8)), ("bob/phone", registered(8))]), ["I12"]);
    assert_eq!(then(vec![("bob", recovery(9, 8)), ("bob", recovery(8, 9))]), ["I12"]);
    // A device does not replace it, nor set one elsewhere; and a key of nobody sets none.
    assert_eq!(then(vec![("bob", recovery(9, 1))]), ["device"]);
    assert_eq!(then(vec![("bob/phone", registered(2)), ("bob/phone", recovery(9, 8))]), ["device"]);
    assert_eq!(broken(vec![("bob", registered(1)), ("bob", recovery(9, 5))]), ["device"]);
    // After a release the one before is dead.
    let released = vec![
        ("bob", Event::DeviceRemoved { by_operator: false }),
        ("bob", Event::NameReleased {}),
        ("bob", registered(8)),
    ];
    assert_eq!(then(released), ["I12"]);
}

#[test]
fn packages_carry_the_declared_credential_and_are_of_the_declared_leaf_key() {
    let first = || ("bob", registered(1));
    let fine = vec![
        first(),
        ("bob", declared(5)),
        ("bob", uploaded("a", 5)),
        ("bob", Event::DeviceRemoved { by_operator: false }),
    ];
    assert!(broken(fine).is_empty());
    assert_eq!(broken(vec![first(), ("bob", declared(5)), ("bob", uploaded("a", 6))]), ["device"]);
    assert_eq!(broken(vec![first(), ("bob", uploaded("a", 6)), ("bob", declared(5))]), ["device"]);
    assert_eq!(broken(vec![("bob", declared(5))]), ["device"]);
    // Those that the registered key has signed are live.
    assert_eq!(broken(vec![first(), ("bob", uploaded("a", 6)), ("bob", leaf_key(4))]), ["device"]);
    assert!(broken(vec![first(), ("bob", leaf_key(4)), ("bob", uploaded("a", 6))]).is_empty());
}

#[test]
fn the_tool_shows_credentials_and_recoveries_and_finds_nothing_wrong_with_them() {
    let service = Service::new();
    service.run(1, "bob", register(1, "bob")).unwrap();
    let statement = |by| statement(&service, "bob", by);
    let declare = Command::DeclareCredential { statement: statement(1), credential: credential(5) };
    service.run(2, "bob", declare).unwrap();
    let set = |by, recovery_key| Command::SetRecoveryKey { statement: statement(by), recovery_key };
    service.run(3, "bob", set(1, key(8))).unwrap();
    service.run(4, "bob", set(8, key(9))).unwrap();
    let vouched = Command::Register {
        signature_key: key(2),
        credential: "bob".to_owned(),
        statement: Some(statement(1)),
    };
    service.run(5, "bob/phone", vouched).unwrap();
    service.clock.advance(Duration::from_secs(1));
    let recover = Command::Recover {
        statement: statement(9),
        signature_key: key(3),
        credential: "bob".to_owned(),
    };
    service.run(6, "bob/spare", recover).unwrap();

    let records = service.log.read(1, usize::MAX).unwrap();
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("identity.export"), exported(&records, 1024)).unwrap();
    let told = |args: &[&str]| tool_in(dir.path(), args);
    let (said, code) = told(&["replay", "identity.export", "--step"]);
    let lines = said.lines().map(|line| line.split_whitespace().skip(2).collect::<Vec<_>>());
    let lines: Vec<String> = lines.map(|words| words.join(" ")).collect();
    insta::assert_snapshot!(format!("{}\n[{code}]", lines.join("\n")), @"
    pool/bob/main registered a key speaks for it now
    pool/bob/main credential_declared its packages carry another credential
    pool/bob/main recovery_key_set its user has another recovery key
    pool/bob/main recovery_key_set its user has another recovery key
    pool/bob/phone registered a key speaks for it now
    pool/bob/main device_removed no key speaks for it any more
    pool/bob/phone device_removed no key speaks for it any more
    pool/bob/spare registered a key speaks for it now
    [0]
    ");
    let (shown, _) = told(&["log", "identity.export"]);
    assert!(shown.contains("packages carry a credential of type 1"), "{shown}");
    assert!(shown.contains(&format!("key {} is the user's recovery key", key(9))), "{shown}");
    assert_eq!(told(&["audit", "identity.export"]).1, 0);
    assert_eq!(told(&["rebuild", "--check", "identity.export"]).1, 0);
}
