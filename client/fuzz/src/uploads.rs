//! KeyPackages, as devices upload them.

use std::time::Duration;

use ed25519_dalek::{Signer, SigningKey};
use keypool_client::OfferedPackage;
use keypool_ledger::{Hash, PoolId, SignatureKey, Timestamp};
use keypool_projections::NewPackage;
use keypool_server::{AdmissionRules, Owner, admit};

use super::{
    base_journal::fixtures,
    device::{group, now, scene},
    edits::edit,
    input::InputReader,
};

/// How many capabilities of a kind are recorded.
const RECORDED_MAX: usize = 64;
/// A day, in seconds.
const DAY_S: u64 = 86_400;

/// Admits the bytes of an input, or a package of another implementation with changes. A package that is admitted is the
/// bytes that came, is within the rules, and is the same in an `MLSMessage`.
pub fn upload(bytes: &[u8]) {
    let mut input = InputReader::new(bytes);
    let base = input.number(3);
    let is_declared = input.flag();
    let now = Timestamp::from_secs(1_795_000_000 + u64::from(input.any::<u32>()) % (200 * DAY_S));
    let package = if base == 0 {
        input.rest().to_vec()
    } else {
        let mut package = foreign_package(base - 1);
        edit(&mut input, &mut package);
        package
    };
    let mut owner = Owner::new("alice/main".parse().unwrap(), None);
    if is_declared {
        owner.credential = credential_in(&package);
    }
    let rules = AdmissionRules { ciphersuites: (1..=7).collect(), ..AdmissionRules::default() };
    if let Ok(admitted) = admit(&package, &owner, now, &rules) {
        check(&package, &admitted, (&owner, now, &rules));
    }
}

/// A package of the fixtures.
fn foreign_package(which: usize) -> Vec<u8> {
    let name = ["marmot-key-package.bin", "wire-13-days.bin", "wire-84-days.bin"][which];
    std::fs::read(fixtures().join("packages").join(name)).expect("the fixture is there")
}

/// The digest of the credential that stands at its place in a package: two keys stand before it.
fn credential_in(package: &[u8]) -> Option<Hash> {
    let mut rest = package.get(4..)?;
    for _ in 0..3 {
        vector(&mut rest)?;
    }
    let begin = rest;
    rest = rest.get(2..)?;
    vector(&mut rest)?;
    Some(Hash::of(&begin[..begin.len() - rest.len()]))
}

/// Takes a vector with a length of one or two bytes, RFC 9420 section 2.1.2.
fn vector<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (first, behind) = rest.split_first()?;
    let (len, behind) = match first >> 6 {
        0 => (usize::from(*first), behind),
        1 => {
            let (second, behind) = behind.split_first()?;
            (usize::from(first & 63) << 8 | usize::from(*second), behind)
        }
        _ => return None,
    };
    let (vector, behind) = behind.split_at_checked(len)?;
    *rest = behind;
    Some(vector)
}

/// Checks the promises of an admitted package.
fn check(
    package: &[u8],
    admitted: &NewPackage,
    (owner, now, rules): (&Owner, Timestamp, &AdmissionRules),
) {
    let facts = &admitted.facts;
    assert_eq!(admitted.bytes, package, "a package is kept as it came");
    assert!(package.len() <= rules.package_bytes_max);
    assert!(rules.ciphersuites.contains(&facts.ciphersuite));
    assert!(facts.not_before <= now.after(rules.clock_skew_max), "it has begun");
    assert!(now.after(rules.life_left_min) <= facts.not_after, "it has not ended");
    let max = if facts.last_resort { rules.last_resort_lifetime_max } else { rules.lifetime_max };
    assert!(facts.not_after.since(facts.not_before) <= max, "it does not last too long");
    if let Some(known) = &facts.capabilities {
        for numbers in [&known.extensions, &known.proposals, &known.credentials] {
            assert!(numbers.len() <= RECORDED_MAX);
        }
    }
    if !package.starts_with(&[0, 1, 0, 5, 0, 1]) {
        let wrapped = [&[0, 1, 0, 5], package].concat();
        let again = admit(&wrapped, owner, now, rules).map(|admitted| admitted.facts);
        let is_longer = rules.package_bytes_max < wrapped.len();
        assert!(is_longer || again.as_ref() == Ok(facts), "an MLSMessage is the package in it");
    }
}

/// Admits a package that is made of an input and signed. One whose signature is wrong is refused; one that is admitted
/// is within the rules, and an inviter can add it to a group.
pub fn upload_signed(bytes: &[u8]) {
    let mut input = InputReader::new(bytes);
    let now = now();
    let made = SignedPackage::of(&mut input, now);
    let mut rules = AdmissionRules::default();
    if input.flag() {
        rules.lifetime_max = Duration::from_secs(input.any::<u32>().into());
    }
    let mut owner = Owner::new("bob/main".parse().unwrap(), None);
    if input.flag() {
        owner.signature_key = SignatureKey::new(made.key.verifying_key().as_bytes()).ok();
    }
    let Ok(admitted) = admit(&made.bytes, &owner, now, &rules) else { return };
    assert!(made.is_signed, "a package with a wrong signature is refused");
    check(&made.bytes, &admitted, (&owner, now, &rules));
    // A server with longer limits than those of inviters is its operator's wish.
    if admitted.facts.ciphersuite == 1
        && rules.lifetime_max <= AdmissionRules::default().lifetime_max
    {
        add(&owner.pool, admitted);
    }
}

/// Adds an admitted package to a group.
fn add(owner: &PoolId, admitted: NewPackage) {
    let alice = scene().alice.open();
    let (keypackage_ref, bytes) = (admitted.facts.keypackage_ref, admitted.bytes);
    let offer = OfferedPackage { keypackage_ref, owner: owner.clone(), bytes };
    let added = alice.groups.stage_add(&group(), &[offer], now());
    let error = added.err().map(|error| format!("{error}: {error:?}"));
    assert_eq!(error, None, "an inviter can add a package that was admitted");
}

/// A package that is made of an input.
struct SignedPackage {
    key: SigningKey,
    bytes: Vec<u8>,
    is_signed: bool,
}

impl SignedPackage {
    fn of(input: &mut InputReader<'_>, now: Timestamp) -> Self {
        let key = SigningKey::from_bytes(&[input.any(); 32]);
        let suite = input.pick(&[1_u16, 1, 1, 3, 2, 0x004e, 7]);
        let fault = input.number(7);
        let mut leaf = Vec::new();
        put_vector(&mut leaf, public_key(input, 1));
        put_vector(&mut leaf, key.verifying_key().as_bytes());
        leaf.extend(input.pick(&[1_u16, 1, 1, 1, 2, 0xf001]).to_be_bytes());
        let identity = input.pick(&["bob", "bob/main", "bob/phone", "mallory", ""]);
        put_vector(&mut leaf, identity);
        put_capabilities(input, &mut leaf, suite);
        put_source(input, &mut leaf, now);
        put_extensions(input, &mut leaf);
        let signature = sign(&key, "LeafNodeTBS", &leaf);
        put_signature(&mut leaf, signature, fault == 6);
        let mut bytes = vec![0, 1];
        bytes.extend(suite.to_be_bytes());
        put_vector(&mut bytes, public_key(input, 2));
        bytes.extend(leaf);
        put_extensions(input, &mut bytes);
        let signature = sign(&key, "KeyPackageTBS", &bytes);
        put_signature(&mut bytes, signature, fault == 7);
        Self { key, bytes, is_signed: fault < 6 }
    }
}

/// A public key of X25519, or some bytes.
fn public_key(input: &mut InputReader<'_>, distinct: u8) -> Vec<u8> {
    match input.number(7) {
        0 => input.bytes(70).to_vec(),
        1 => vec![input.any(); 32],
        _ => {
            let mut key = vec![9; 32];
            key[0] = distinct;
            key
        }
    }
}

fn put_capabilities(input: &mut InputReader<'_>, out: &mut Vec<u8>, suite: u16) {
    let usual: [&[u16]; 5] = [&[1], &[suite], &[0x000a], &[], &[1, 2]];
    for numbers in usual {
        let mut numbers = numbers.to_vec();
        if input.number(3) == 3 {
            let new = (0..input.number(80)).map(|_| input.any()).collect::<Vec<u16>>();
            if input.flag() { numbers.extend(new) } else { numbers = new }
        }
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
        put_vector(out, &bytes);
    }
}

fn put_source(input: &mut InputReader<'_>, out: &mut Vec<u8>, now: Timestamp) {
    let source = input.pick(&[1_u8, 1, 1, 1, 1, 1, 2, 3]);
    out.push(source);
    match source {
        1 => {
            let begins = now.as_secs() - 3600;
            let (begins, ends) = match input.number(3) {
                0 => (begins, begins + 7 * DAY_S),
                1 => (begins + input.number(8000) as u64, begins + input.number(8000) as u64),
                2 => (begins, begins + u64::from(input.any::<u32>())),
                _ => (input.any(), input.any()),
            };
            out.extend(begins.to_be_bytes());
            out.extend(ends.to_be_bytes());
        }
        2 => {}
        _ => put_vector(out, input.bytes(32)),
    }
}

fn put_extensions(input: &mut InputReader<'_>, out: &mut Vec<u8>) {
    let mut extensions = Vec::new();
    if input.flag() {
        for _ in 0..input.number(3) {
            let number = input.pick(&[0x000a_u16, 0x0006, 1, 2, 3, 4, 5, 0x0a0a, 0xf001]);
            extensions.extend(number.to_be_bytes());
            put_vector(&mut extensions, input.bytes(16));
        }
    }
    put_vector(out, &extensions);
}

fn put_vector(out: &mut Vec<u8>, bytes: impl AsRef<[u8]>) {
    let bytes = bytes.as_ref();
    match (u8::try_from(bytes.len()), u16::try_from(bytes.len())) {
        (Ok(len), _) if len < 64 => out.push(len),
        (_, Ok(len)) => out.extend((0x4000 | len).to_be_bytes()),
        _ => {}
    }
    out.extend(bytes);
}

/// `SignWithLabel`, RFC 9420 section 5.1.2.
fn sign(key: &SigningKey, label: &str, content: &[u8]) -> [u8; 64] {
    let mut signed = Vec::new();
    put_vector(&mut signed, format!("MLS 1.0 {label}"));
    put_vector(&mut signed, content);
    key.sign(&signed).to_bytes()
}

fn put_signature(out: &mut Vec<u8>, mut signature: [u8; 64], is_wrong: bool) {
    signature[0] ^= u8::from(is_wrong);
    put_vector(out, signature);
}
