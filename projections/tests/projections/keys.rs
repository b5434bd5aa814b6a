//! The keys of a pool: declared, rotated, recovered and removed, and the packages that go with them.

use keypool_ledger::{
    CredentialBytes, Event, Hash, RevokeReason, Signature, SignatureKey, SignedStatement,
};
use keypool_projections::{
    Answer, Command, Decision, ItemOutcome, ItemRefusal, LeafKey, Limits, NewPackage, NextKey,
    PoolState, Rejection, Remover, RevokeScope, Stage, changes_identity,
};

use crate::history::{at, group, leaf_key, package, reference};

fn key(number: u8) -> SignatureKey {
    SignatureKey::new(&[number; 32]).unwrap()
}

fn by(number: u8) -> SignedStatement {
    let proof = Signature::new(&[0; 64]).unwrap();
    SignedStatement { by: key(number), head: Hash::ZERO, until: at(9), proof }
}

fn decide(state: &PoolState, command: &Command) -> Decision {
    state.decide(command, at(1), &Limits::STANDARD)
}

/// Carries a command out, and returns its answer and the names of its events.
fn carry_out(state: &mut PoolState, command: &Command) -> (Result<Answer, Rejection>, String) {
    let Decision { events, answer } = decide(state, command);
    for event in &events {
        state.evolve(event, at(1)).unwrap();
    }
    let names: Vec<&str> = events.iter().map(Event::name).collect();
    (answer, names.join(" "))
}

fn register(number: u8) -> Command {
    Command::Register { signature_key: key(number), credential: "bob".to_owned(), statement: None }
}

/// A pool for which key 1 speaks.
fn registered() -> PoolState {
    let mut state = PoolState::default();
    carry_out(&mut state, &register(1)).0.unwrap();
    state
}

fn speaks(state: &PoolState) -> Option<SignatureKey> {
    state.registration().map(|known| known.signature_key.clone())
}

fn declare(signer: u8, bytes: &[u8]) -> Command {
    let credential = CredentialBytes::new(bytes).unwrap();
    Command::DeclareCredential { statement: by(signer), credential }
}

fn with_credential(name: &str, bytes: &[u8]) -> NewPackage {
    let mut new = package(name);
    new.facts.credential = CredentialBytes::new(bytes).unwrap().digest();
    new
}

#[test]
fn packages_carry_the_credential_that_the_device_has_declared() {
    let (one, two) = ([0, 1, 1], [0, 1, 2]);
    let mut state = registered();
    let refused = (Err(Rejection::NotRegistered), String::new());
    assert_eq!(carry_out(&mut PoolState::default(), &declare(1, &one)), refused);
    assert_eq!(carry_out(&mut state, &declare(2, &one)), refused, "another key signed it");
    let declared = |events: &str| (Ok(Answer::Declared), events.to_owned());
    assert_eq!(carry_out(&mut state, &declare(1, &one)), declared("credential_declared"));
    assert_eq!(carry_out(&mut state, &declare(1, &one)), declared(""), "as it is");
    let upload = Command::Upload(vec![with_credential("a", &one), with_credential("b", &two)]);
    let (answer, _) = carry_out(&mut state, &upload);
    let refused = ItemOutcome::Refused(reference("b"), ItemRefusal::CredentialDiffers);
    let outcomes = vec![ItemOutcome::Stored(reference("a")), refused];
    assert_eq!(answer, Ok(Answer::Uploaded(outcomes)));
    let in_use = (Err(Rejection::CredentialInUse), String::new());
    assert_eq!(carry_out(&mut state, &declare(1, &two)), in_use);
    assert_eq!(carry_out(&mut state, &declare(1, &one)), declared(""));
    // Packages that carry it may be there before the declaration.
    let mut state = registered();
    let upload = Command::Upload(vec![with_credential("a", &two)]);
    carry_out(&mut state, &upload).0.unwrap();
    assert_eq!(carry_out(&mut state, &declare(1, &one)), in_use);
    assert_eq!(carry_out(&mut state, &declare(1, &two)), declared("credential_declared"));
    // A removal ends the declaration.
    carry_out(&mut state, &Command::Remove { by: Remover::Operator }).0.unwrap();
    assert_eq!(state.declared_credential(), None);
}

#[test]
fn the_scheme_of_the_registered_key_has_that_key_until_another_is_declared() {
    let declare = |signer, signature_scheme, number| {
        let leaf_key = LeafKey { signature_scheme, signature_key: key(number) };
        Command::DeclareLeafKey { statement: by(signer), leaf_key }
    };
    let ed25519 = keypool_projections::ED25519;
    let mut state = registered();
    let refused = (Err(Rejection::NotRegistered), String::new());
    assert_eq!(carry_out(&mut state, &declare(2, ed25519, 2)), refused);
    let declared = |events: &str| (Ok(Answer::Declared), events.to_owned());
    assert_eq!(carry_out(&mut state, &declare(1, ed25519, 1)), declared(""), "it is so");
    assert_eq!(carry_out(&mut state, &declare(1, 0x0403, 1)), declared("leaf_key_pinned"));
    carry_out(&mut state, &Command::Upload(vec![package("a")])).0.unwrap();
    let in_use = (Err(Rejection::LeafKeyInUse), String::new());
    assert_eq!(carry_out(&mut state, &declare(1, ed25519, 2)), in_use);
    assert_eq!(carry_out(&mut state, &declare(1, 0x0403, 2)), declared("leaf_key_pinned"));
    let known: Vec<_> = state.leaf_keys().map(|(scheme, key)| (scheme, key.clone())).collect();
    assert_eq!(known, [(0x0403, key(2))]);
}

#[test]
fn a_recovery_key_is_set_by_the_device_and_replaced_by_its_own_agreement() {
    let set = |signer, number| Command::SetRecoveryKey {
        statement: by(signer),
        recovery_key: key(number),
    };
    let mut state = registered();
    let declared = |events: &str| (Ok(Answer::Declared), events.to_owned());
    let refused = |rejection| (Err(rejection), String::new());
    assert_eq!(carry_out(&mut state, &set(2, 9)), refused(Rejection::NotRegistered));
    let none = carry_out(&mut PoolState::default(), &set(1, 9));
    assert_eq!(none, refused(Rejection::NotRegistered));
    assert_eq!(carry_out(&mut state, &set(1, 9)), declared("recovery_key_set"));
    assert_eq!(carry_out(&mut state, &set(1, 9)), declared(""), "it is so");
    assert_eq!(carry_out(&mut state, &set(1, 8)), refused(Rejection::RecoveryKeyBound));
    assert_eq!(carry_out(&mut state, &set(9, 8)), declared("recovery_key_set"));
    assert_eq!(carry_out(&mut state, &set(9, 7)), refused(Rejection::RecoveryKeyBound));
    let identity = state.identity();
    assert_eq!(
        (identity.recovery_key.clone(), identity.retired.clone()),
        (Some(key(8)), vec![key(9)])
    );
}

#[test]
fn a_recovery_takes_the_place_of_any_key() {
    let recover = |signer, number| Command::Recover {
        statement: by(signer),
        signature_key: key(number),
        credential: "bob".to_owned(),
    };
    let known = |known| Ok(Answer::Registered { known });
    let mut state = registered();
    carry_out(&mut state, &Command::Upload(vec![package("a")])).0.unwrap();
    let new_key = (Err(Rejection::RecoveryNeedsNewKey), String::new());
    assert_eq!(carry_out(&mut state, &recover(9, 1)), new_key);
    let events = "device_removed revoked registered".to_owned();
    assert_eq!(carry_out(&mut state, &recover(9, 2)), (known(false), events));
    assert_eq!(speaks(&state), Some(key(2)));
    assert_eq!(carry_out(&mut state, &recover(9, 2)), (known(true), String::new()));
    assert_eq!(carry_out(&mut state, &recover(8, 2)), new_key, "by another recovery key");
    carry_out(&mut state, &Command::Remove { by: Remover::Operator }).0.unwrap();
    assert_eq!(carry_out(&mut state, &recover(9, 3)), (known(false), "registered".to_owned()));
    assert_eq!(state.identity().incarnation, 3);
}

/// Packages that another key has signed, which takes the place of key 1.
fn replace(signer: u8, number: u8, names: &[&str]) -> Command {
    let next = NextKey {
        statement: by(signer),
        signature_key: key(number),
        credential: "bob".to_owned(),
        leaf_keys: vec![(by(number), leaf_key(7))],
    };
    let packages = names.iter().map(|name| package(name)).collect();
    Command::Replace { packages, next: Some(next) }
}

#[test]
fn a_next_key_comes_with_packages_and_by_the_word_of_the_one_before() {
    let mut state = registered();
    carry_out(&mut state, &Command::Upload(vec![package("a"), package("L")])).0.unwrap();
    let bound = (Err(Rejection::IdentityBound), String::new());
    assert_eq!(carry_out(&mut state, &replace(3, 2, &["b"])), bound);
    assert_eq!(carry_out(&mut PoolState::default(), &replace(1, 2, &["b"])), bound);
    // Without an acceptable package the key stays.
    let (answer, events) = carry_out(&mut state, &replace(1, 2, &["a'"]));
    let refused = ItemOutcome::Refused(reference("a'"), ItemRefusal::InitKeySeen);
    let nothing = Answer::Replaced { outcomes: vec![refused], revoked: Vec::new() };
    assert_eq!((answer, events), (Ok(nothing), String::new()));
    assert_eq!(speaks(&state), Some(key(1)));
    let (answer, events) = carry_out(&mut state, &replace(1, 2, &["b", "c:7", "d:6"]));
    let Ok(Answer::Replaced { outcomes, revoked }) = answer else { panic!("{answer:?}") };
    let other = ItemOutcome::Refused(reference("d:6"), ItemRefusal::LeafKeyDiffers);
    let stored = ["b", "c:7"].map(|name| ItemOutcome::Stored(reference(name)));
    assert_eq!(outcomes, stored.into_iter().chain([other]).collect::<Vec<_>>());
    assert_eq!(revoked.len(), 2);
    assert_eq!(events, "key_rotated leaf_key_pinned revoked revoked uploaded uploaded");
    assert_eq!(speaks(&state), Some(key(2)));
    // Repeated, it finds all as it left it.
    let (answer, events) = carry_out(&mut state, &replace(1, 2, &["b", "c:7"]));
    let known = ["b", "c:7"].map(|name| ItemOutcome::Known(reference(name), Stage::Available));
    let nothing = Answer::Replaced { outcomes: known.to_vec(), revoked: Vec::new() };
    assert_eq!((answer, events), (Ok(nothing), String::new()));
    assert_eq!(state.identity().retired, [key(1)]);
}

#[test]
fn packages_that_are_over_replace_none() {
    let mut state = registered();
    let upload = Command::Upload(["a", "b", "e:1"].map(package).to_vec());
    carry_out(&mut state, &upload).0.unwrap();
    let revoked = Event::Revoked {
        keypackage_ref: reference("b"),
        reason: RevokeReason::Withdrawn,
        check: None,
    };
    state.evolve(&revoked, at(1)).unwrap();
    let again = |names: &[&str]| {
        let packages = names.iter().map(|name| package(name)).collect();
        decide(&state, &Command::Replace { packages, next: None })
    };
    let known = vec![ItemOutcome::Known(reference("b"), Stage::Revoked)];
    let nothing = Answer::Replaced { outcomes: known, revoked: Vec::new() };
    assert_eq!(again(&["b"]), Decision { events: Vec::new(), answer: Ok(nothing) });
    let none = Answer::Replaced { outcomes: Vec::new(), revoked: Vec::new() };
    assert_eq!(again(&[]), Decision { events: Vec::new(), answer: Ok(none) });
    // One that is live stands for its ciphersuite.
    let known = vec![ItemOutcome::Known(reference("a"), Stage::Available)];
    let nothing = Answer::Replaced { outcomes: known, revoked: Vec::new() };
    assert_eq!(again(&["a"]), Decision { events: Vec::new(), answer: Ok(nothing) });
}

#[test]
fn packages_of_a_credential_are_withdrawn_and_others_stay() {
    let (one, two) = ([0, 1, 1], [0, 1, 2]);
    let mut state = PoolState::default();
    let upload = [with_credential("a", &one), with_credential("b", &two)];
    carry_out(&mut state, &Command::Upload(upload.to_vec())).0.unwrap();
    let which = RevokeScope::Credential(CredentialBytes::new(&one).unwrap().digest());
    let reason = RevokeReason::Withdrawn;
    let revoked = decide(&state, &Command::Revoke { which, reason }).answer;
    assert_eq!(revoked, Ok(Answer::Revoked(vec![reference("a")])));
}

#[test]
fn a_withdrawal_names_the_packages_that_are_withdrawn_now() {
    let mut state = PoolState::default();
    let upload = Command::Upload(["a", "b", "c"].map(package).to_vec());
    carry_out(&mut state, &upload).0.unwrap();
    let (reservation, holder, group) = (None, None, group("g"));
    let keypackage_ref = reference("a");
    let spent = Event::Spent { keypackage_ref, reservation, holder, group, late: false };
    state.evolve(&spent, at(1)).unwrap();
    let reason = RevokeReason::Withdrawn;
    let revoke = |names: &[&str]| {
        let which = RevokeScope::Refs(names.iter().map(|name| reference(name)).collect());
        Command::Revoke { which, reason }
    };
    let revoked =
        |names: &[&str]| Ok(Answer::Revoked(names.iter().map(|name| reference(name)).collect()));
    assert_eq!(carry_out(&mut state, &revoke(&["b"])), (revoked(&["b"]), "revoked".to_owned()));
    let (answer, events) = carry_out(&mut state, &revoke(&["a", "b", "c"]));
    assert_eq!((answer, events.as_str()), (revoked(&["b", "c"]), "revoked"), "one was spent");
}

#[test]
fn a_pools_identity_counts_its_changes_and_retires_its_keys() {
    let mut state = registered();
    carry_out(&mut state, &Command::Upload(vec![package("a")])).0.unwrap();
    assert_eq!((state.identity().changes, state.identity().since), (1, 1));
    let rotate =
        Command::Rotate { statement: by(1), signature_key: key(2), credential: "bob".to_owned() };
    carry_out(&mut state, &rotate).0.unwrap();
    assert_eq!(state.identity().changes, 3, "one key goes, and another comes");
    let recovery = Command::SetRecoveryKey { statement: by(2), recovery_key: key(9) };
    carry_out(&mut state, &recovery).0.unwrap();
    carry_out(&mut state, &Command::ReleaseName).0.unwrap();
    let identity = state.identity();
    assert_eq!(identity.versions, [1, 3, 5, 6, 7]);
    assert_eq!((identity.changes, identity.incarnation), (6, 1));
    assert_eq!(identity.retired, [key(1), key(2), key(9)], "a release ends the recovery key too");
    assert_eq!(identity.recovery_key, None);
    let released = (Ok(Answer::Removed), String::new());
    assert_eq!(carry_out(&mut state, &Command::ReleaseName), released, "it is released");
    carry_out(&mut state, &register(3)).0.unwrap();
    carry_out(&mut state, &Command::Upload(vec![package("b")])).0.unwrap();
    assert_eq!((state.identity().incarnation, state.identity().since), (2, 8));
    // Packages of the device before are not of the one that is registered now.
    let of_now = |state: &PoolState| {
        ["a", "b"].map(|name| state.is_of_this_incarnation(state.get(&reference(name)).unwrap()))
    };
    assert_eq!(of_now(&state), [false, true]);
    carry_out(&mut state, &Command::Remove { by: Remover::Operator }).0.unwrap();
    assert_eq!(of_now(&state), [false, false]);
    assert!(!changes_identity(&Event::Uploaded(package("c").facts)));
}
