//! Each check refuses a package that fails only that one, and no bytes make admission panic.

use std::sync::Arc;

use keypool_ledger::{Clock, ManualClock, MemoryLog, SystemClock};
use keypool_projections::{ItemOutcome, ItemRefusal, Limits, NewPackage, Stage};
use openmls::prelude::{
    BasicCredential, Capabilities as OpenMlsCapabilities, CredentialWithKey, ExtensionType,
    KeyPackage as OpenMlsPackage, KeyPackageBuilder, Lifetime as OpenMlsLifetime, MlsMessageOut,
    OpenMlsProvider,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use tls_codec::VLBytes;

use super::{
    crafting::{Maker, NOW, bytes},
    structure::{Capabilities, KeyPackageContent},
    *,
};
use crate::{
    keypackage_store::{Idempotency, KeyPackageStore},
    pools::Pools,
};

mod identity;

mod leaf_key;

mod public_commit;

mod usable_key;

fn rules() -> AdmissionRules {
    AdmissionRules::default()
}

fn admitted(maker: &Maker, bytes: &[u8]) -> Result<NewPackage, AdmissionError> {
    admit(bytes, &maker.owner(), NOW, &rules())
}

#[track_caller]
fn check_refused(maker: &Maker, bytes: &[u8], check: Check, detail: &str) {
    let refused = admitted(maker, bytes).unwrap_err();
    assert_eq!((refused.check, refused.detail.as_str()), (check, detail));
    let has_ref = !matches!(check, Check::Size | Check::Decode | Check::Protocol);
    assert_eq!(refused.keypackage_ref.is_some(), has_ref, "{check:?}");
}

#[track_caller]
fn check_spoiled(check: Check, detail: &str, spoil: impl FnOnce(&mut KeyPackageContent)) {
    let maker = Maker::new(1);
    check_refused(&maker, &maker.spoiled(spoil), check, detail);
}

fn capabilities(content: &mut KeyPackageContent) -> &mut Capabilities {
    &mut content.leaf.content.capabilities
}

fn extension(extension_type: u16, data: &[u8]) -> Extension {
    Extension { extension_type, data: data.to_vec().into() }
}

fn set_lifetime(content: &mut KeyPackageContent, not_before: u64, not_after: u64) {
    content.leaf.content.source = LeafSource::KeyPackage(Lifetime { not_before, not_after });
}

#[test]
fn a_good_package_of_each_ciphersuite_is_admitted() {
    for suite in [1, 2, 3, 0x004e, 0x004f] {
        let maker = Maker::new(suite);
        let package = bytes(&maker.sign(maker.content()));
        let admitted = admitted(&maker, &package).unwrap();
        assert_eq!(admitted.bytes, package);
        assert_eq!(admitted.facts.ciphersuite, suite);
        let ref_len = if suite == 0x004e { 48 } else { 32 };
        assert_eq!(admitted.facts.keypackage_ref.as_bytes().len(), ref_len);
        assert_eq!(admitted.facts.not_after.as_secs(), NOW.as_secs() + 14 * 24 * 3600);
        assert_eq!(admitted.facts.init_key, Hash::of(maker.hpke_key(1).as_slice()));
        assert!(!admitted.facts.last_resort);
        let held_to = admitted.leaf_key.map(|key| (key.signature_scheme, key.signature_key));
        let public = SignatureKey::new(&maker.public_key).unwrap();
        assert_eq!(held_to, (suite == 2).then_some((0x0403, public)));
    }
}

#[test]
fn a_package_in_an_mls_message_has_the_same_reference_and_keeps_its_bytes() {
    let maker = Maker::new(1);
    let bare = bytes(&maker.sign(maker.content()));
    let wrapped = [&[0, 1, 0, 5], bare.as_slice()].concat();
    let (bare, kept) = (admitted(&maker, &bare).unwrap(), admitted(&maker, &wrapped).unwrap());
    assert_eq!(bare.facts, kept.facts);
    assert_eq!(kept.bytes, wrapped);
}

#[test]
fn the_user_and_the_device_may_stand_in_the_credential() {
    let maker = Maker::new(3);
    let package = maker.spoiled(|content| {
        content.leaf.content.credential.content = b"alice/phone".to_vec().into();
    });
    admitted(&maker, &package).unwrap();
}

#[test]
fn grease_and_what_is_not_known_are_tolerated_in_the_capabilities() {
    let maker = Maker::new(1);
    let package = maker.spoiled(|content| {
        let can = capabilities(content);
        can.versions.insert(0, 0x1a1a);
        can.ciphersuites.insert(0, 0x1a1a);
        can.extensions.insert(0, 0x1a1a);
        can.proposals.insert(0, 0x1a1a);
        can.credentials.insert(0, 0x1a1a);
    });
    admitted(&maker, &package).unwrap();
    let package = maker.spoiled(|content| {
        let can = capabilities(content);
        can.versions.push(0x7001);
        can.ciphersuites.extend([0x7002, 5, 0x004f]);
        can.extensions.push(0x7003);
        can.proposals.push(0x7004);
        can.credentials.push(0x7005);
    });
    admitted(&maker, &package).unwrap();
}

#[test]
fn both_marks_of_a_last_resort_are_read() {
    let maker = Maker::new(1);
    let extension_mark = maker.spoiled(|content| {
        capabilities(content).extensions.push(EXTENSION_LAST_RESORT);
        content.extensions.push(extension(EXTENSION_LAST_RESORT, b""));
    });
    let component = Component { id: COMPONENT_LAST_RESORT, data: vec![].into() };
    let component_mark = maker.spoiled(|content| {
        capabilities(content).extensions.push(EXTENSION_APP_DATA);
        content.extensions.push(extension(EXTENSION_APP_DATA, &bytes(&vec![component])));
    });
    for package in [extension_mark, component_mark] {
        assert!(admitted(&maker, &package).unwrap().facts.last_resort);
    }
    let other = Component { id: 0x8001, data: b"app".to_vec().into() };
    let unmarked = maker.spoiled(|content| {
        capabilities(content).extensions.push(EXTENSION_APP_DATA);
        content.extensions.push(extension(EXTENSION_APP_DATA, &bytes(&vec![other])));
    });
    assert!(!admitted(&maker, &unmarked).unwrap().facts.last_resort);
}

#[test]
fn a_package_that_openmls_made_is_admitted_with_the_reference_openmls_gives_it() {
    let provider = OpenMlsRustCrypto::default();
    for suite in rules().ciphersuites {
        let suite = Ciphersuite::try_from(suite).unwrap();
        let signer = SignatureKeyPair::new(suite.signature_algorithm()).unwrap();
        for last_resort in [false, true] {
            let package = openmls_package(&provider, suite, &signer, last_resort);
            let owner = Owner::new(PoolId::new("bob", "main").unwrap(), None);
            let bare = package.tls_serialize_detached().unwrap();
            let message = MlsMessageOut::from(package.clone()).tls_serialize_detached().unwrap();
            for bytes in [bare, message] {
                let facts = admit(&bytes, &owner, SystemClock.now(), &rules()).unwrap().facts;
                let expected = package.hash_ref(provider.crypto()).unwrap();
                assert_eq!(facts.keypackage_ref.as_bytes(), expected.as_slice());
                assert_eq!(facts.last_resort, last_resort);
            }
        }
    }
}

fn openmls_package(
    provider: &OpenMlsRustCrypto,
    suite: Ciphersuite,
    signer: &SignatureKeyPair,
    last_resort: bool,
) -> OpenMlsPackage {
    let suites = provider.crypto().supported_ciphersuites();
    let extensions = [ExtensionType::LastResort];
    let capabilities = OpenMlsCapabilities::new(None, Some(&suites), Some(&extensions), None, None);
    let mut builder: KeyPackageBuilder = OpenMlsPackage::builder()
        .key_package_lifetime(OpenMlsLifetime::new(14 * 86_400))
        .leaf_node_capabilities(capabilities);
    if last_resort {
        builder = builder.mark_as_last_resort();
    }
    let credential = CredentialWithKey {
        credential: BasicCredential::new(b"bob".to_vec()).into(),
        signature_key: signer.public().into(),
    };
    builder.build(suite, provider, signer, credential).unwrap().into_key_package()
}

#[test]
fn check_1_size() {
    let maker = Maker::new(1);
    let detail = "the package has 16385 bytes; at most 16384";
    check_refused(&maker, &vec![0; 16 * 1024 + 1], Check::Size, detail);
}

#[test]
fn check_2_decode() {
    let maker = Maker::new(1);
    let good = bytes(&maker.sign(maker.content()));
    let detail = "the bytes are not exactly one KeyPackage or one MLSMessage with one";
    check_refused(&maker, b"", Check::Decode, detail);
    check_refused(&maker, &good[..good.len() - 1], Check::Decode, detail);
    check_refused(&maker, &[good.as_slice(), &[0]].concat(), Check::Decode, detail);
    let welcome = [&[0, 1, 0, 3], good.as_slice()].concat();
    check_refused(&maker, &welcome, Check::Decode, detail);
}

#[test]
fn check_3_protocol() {
    check_spoiled(Check::Protocol, "protocol version 2 is not mls10 (1)", |content| {
        content.version = 2;
    });
    for suite in [0, 4, 7, 77, 0x1a1a] {
        let detail = format!("ciphersuite {suite} is not accepted here; [1, 2, 3, 78, 79] are");
        check_spoiled(Check::Protocol, &detail, |content| {
            content.ciphersuite = suite;
            capabilities(content).ciphersuites.push(suite);
        });
    }
    let maker = Maker::new(3);
    let only_one = AdmissionRules { ciphersuites: vec![1], ..rules() };
    let package = bytes(&maker.sign(maker.content()));
    let refused = admit(&package, &maker.owner(), NOW, &only_one).unwrap_err();
    assert_eq!(refused.check, Check::Protocol);
}

#[test]
fn check_4_package_signature() {
    let maker = Maker::new(1);
    let mut package = maker.sign(maker.content());
    package.content.init_key = maker.hpke_key(9);
    let detail = "the package's signature does not verify";
    check_refused(&maker, &bytes(&package), Check::PackageSignature, detail);
    package.signature = vec![].into();
    check_refused(&maker, &bytes(&package), Check::PackageSignature, detail);
}

#[test]
fn check_5_leaf_signature() {
    let maker = Maker::new(1);
    let mut content = maker.sign(maker.content()).content;
    content.leaf.content.encryption_key = maker.hpke_key(9);
    let package = bytes(&maker.sign_package_only(content));
    check_refused(&maker, &package, Check::LeafSignature, "the leaf's signature does not verify");

    let detail = "the leaf was made by an update or a commit, not for a key package";
    let hash: VLBytes = vec![7; 32].into();
    for source in [LeafSource::Update, LeafSource::Commit(hash)] {
        check_spoiled(Check::LeafSignature, detail, |content| content.leaf.content.source = source);
    }
}

#[test]
fn check_6_lifetime() {
    let now = NOW.as_secs();
    let day = 24 * 3600;
    let maker = Maker::new(1);
    let fits = |not_before, not_after| {
        let package = maker.spoiled(|content| set_lifetime(content, not_before, not_after));
        admitted(&maker, &package).map_err(|err| (err.check, err.detail))
    };
    for (not_before, not_after) in [
        (now - 3600, now + 14 * day),
        (now + 3600, now + 3600 + 14 * day),
        (now - 14 * day, now + 120),
    ] {
        fits(not_before, not_after).unwrap();
    }
    let refusals: Vec<String> = [
        (now - 14 * day, now + 119),
        (now - 2 * day, now - day),
        (now + 3601, now + day),
        (now - 3600, now + 14 * day + 1),
        (now - 3600, now + 3650 * day),
        (0, u64::MAX),
        (now + 10, now - 10),
    ]
    .into_iter()
    .map(|(not_before, not_after)| {
        let (check, detail) = fits(not_before, not_after).unwrap_err();
        assert_eq!(check, Check::Lifetime);
        detail
    })
    .collect();
    insta::assert_snapshot!(refusals.join("\n"), @"
    it ends at 1766400119, before or too soon after now (1766400000)
    it ends at 1766313600, before or too soon after now (1766400000)
    it begins at 1766403601, too far after now (1766400000)
    its lifetime spans 1213201 s; at most 1213200 s (--lifetime-max); unless told otherwise OpenMLS makes packages of 84 days and an hour, mls-rs of 365 days, ts-mls without an end
    its lifetime spans 315363600 s; at most 1213200 s (--lifetime-max); unless told otherwise OpenMLS makes packages of 84 days and an hour, mls-rs of 365 days, ts-mls without an end
    its lifetime spans 18446744073709551615 s; at most 1213200 s (--lifetime-max); unless told otherwise OpenMLS makes packages of 84 days and an hour, mls-rs of 365 days, ts-mls without an end
    it ends at 1766399990, before it begins at 1766400010
    ");
}

#[test]
fn check_7_init_key_distinct() {
    check_spoiled(Check::InitKeyDistinct, "init_key equals the leaf's encryption key", |content| {
        content.init_key = content.leaf.content.encryption_key.clone();
    });
}

#[test]
fn check_8_usable_keys() {
    // The points of small order on Curve25519, and lengths that are none.
    let mut minus_one = [0xff; 32];
    minus_one[0] = 0xec;
    minus_one[31] = 0x7f;
    let mut one = [0; 32];
    one[0] = 1;
    let keys: [&[u8]; 6] = [&[], &[7; 31], &[7; 33], &[0; 32], &one, &minus_one];
    for key in keys {
        let len = key.len();
        let detail = format!("init_key ({len} bytes) is no key one can encrypt to");
        check_spoiled(Check::UsableKeys, &detail, |content| content.init_key = key.to_vec().into());
        let detail =
            format!("the leaf's encryption key ({len} bytes) is no key one can encrypt to");
        check_spoiled(Check::UsableKeys, &detail, |content| {
            content.leaf.content.encryption_key = key.to_vec().into();
        });
    }
    let maker = Maker::new(2);
    for key in [vec![], vec![4; 65], vec![2; 33], vec![0; 1]] {
        let package = maker.spoiled(|content| content.init_key = key.into());
        assert_eq!(admitted(&maker, &package).unwrap_err().check, Check::UsableKeys);
    }
}

#[test]
fn check_9_capabilities() {
    let check = |detail: &str, spoil: fn(&mut KeyPackageContent)| {
        check_spoiled(Check::Capabilities, detail, spoil);
    };
    check("the capabilities do not list protocol version mls10", |content| {
        capabilities(content).versions.clear();
    });
    check("the capabilities do not list its own ciphersuite 1", |content| {
        capabilities(content).ciphersuites = vec![3];
    });
    check("the capabilities do not list credential type 1", |content| {
        capabilities(content).credentials = vec![2];
    });
    check("the capabilities list extension 2, which everyone supports", |content| {
        capabilities(content).extensions = vec![0x1a1a, 2];
    });
    check("the capabilities list proposal 7, which everyone supports", |content| {
        capabilities(content).proposals = vec![7];
    });
    let unlisted = "extension 61441 may not stand there, or is not listed in the capabilities";
    check(unlisted, |content| content.extensions.push(extension(0xf001, b"x")));
    check(unlisted, |content| content.leaf.content.extensions.push(extension(0xf001, b"x")));
    let misplaced = "extension 10 may not stand there, or is not listed in the capabilities";
    check(misplaced, |content| {
        capabilities(content).extensions.push(EXTENSION_LAST_RESORT);
        content.leaf.content.extensions.push(extension(EXTENSION_LAST_RESORT, b""));
    });
    let grease = "extension 6682 may not stand there, or is not listed in the capabilities";
    check(grease, |content| {
        capabilities(content).extensions.push(0x1a1a);
        content.extensions.push(extension(0x1a1a, b""));
    });
    check("extension 61441 stands there twice", |content| {
        capabilities(content).extensions.push(0xf001);
        content.extensions = vec![extension(0xf001, b"x"), extension(0xf001, b"y")];
    });
}

#[actix_web::test]
async fn checks_12_13_and_15_are_made_by_the_pool() {
    let maker = Maker::new(1);
    let clock = Arc::new(ManualClock::at(NOW));
    let limits = Limits { packages_max: 1, ..Limits::STANDARD };
    let pools = Pools::open(MemoryLog::default(), clock, limits).unwrap();
    let store = KeyPackageStore::new(pools, rules());
    let save = async |package: Vec<u8>| {
        let pool = maker.owner().pool;
        store.save_key_package(&pool, package, Idempotency::fresh()).await.unwrap().unwrap()
    };
    let day = 24 * 3600;
    let lived = |days: u64| {
        maker.spoiled(|content| set_lifetime(content, NOW.as_secs(), NOW.as_secs() + days * day))
    };

    let ItemOutcome::Stored(stored) = save(lived(1)).await else { panic!("it is good") };
    assert_eq!(save(lived(1)).await, ItemOutcome::Known(stored, Stage::Available));
    let same_init_key = save(lived(2)).await;
    assert!(matches!(same_init_key, ItemOutcome::Refused(_, ItemRefusal::InitKeySeen)));
    let other = maker.spoiled(|content| content.init_key = maker.hpke_key(7));
    let over_the_cap = save(other).await;
    assert!(matches!(over_the_cap, ItemOutcome::Refused(_, ItemRefusal::PoolFull)));
}

#[test]
fn check_14_last_resort() {
    check_spoiled(Check::LastResort, "the last-resort extension is not empty", |content| {
        capabilities(content).extensions.push(EXTENSION_LAST_RESORT);
        content.extensions.push(extension(EXTENSION_LAST_RESORT, b"x"));
    });
    check_spoiled(Check::LastResort, "the dictionary of components cannot be read", |content| {
        capabilities(content).extensions.push(EXTENSION_APP_DATA);
        content.extensions.push(extension(EXTENSION_APP_DATA, b"x"));
    });
    let component = Component { id: COMPONENT_LAST_RESORT, data: vec![1].into() };
    check_spoiled(Check::LastResort, "the last-resort component is not empty", |content| {
        capabilities(content).extensions.push(EXTENSION_APP_DATA);
        content.extensions.push(extension(EXTENSION_APP_DATA, &bytes(&vec![component])));
    });
}

#[test]
fn numbers_and_names_of_the_checks_are_those_of_the_documentation() {
    let table: Vec<String> =
        Check::ALL.iter().map(|check| format!("{} {}", check.number(), check.name())).collect();
    insta::assert_snapshot!(table.join("\n"), @"
    1 size
    2 decode
    3 protocol
    4 package_signature
    5 leaf_signature
    6 lifetime
    7 init_key_distinct
    8 usable_keys
    9 capabilities
    10 identity
    11 signature_key
    12 known
    13 init_key_unique
    14 last_resort
    15 cap
    ");
}

/// A small generator of numbers, so that a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.roll(256)).unwrap()
    }
}

#[test]
fn arbitrary_bytes_never_panic() {
    let maker = Maker::new(1);
    let mut dice = Dice(1);
    for _ in 0..20_000 {
        let mut bytes: Vec<u8> = (0..dice.roll(600)).map(|_| dice.byte()).collect();
        if dice.roll(2) == 0 {
            bytes.splice(..0, [0, 1, 0, 1, 32]);
        }
        assert!(admitted(&maker, &bytes).is_err());
    }
}

#[test]
fn mutated_packages_never_panic_and_are_refused() {
    let mut dice = Dice(2);
    for suite in [1, 2, 3] {
        let maker = Maker::new(suite);
        let good = bytes(&maker.sign(maker.content()));
        for _ in 0..1_500 {
            let mut mutated = good.clone();
            for _ in 0..=dice.roll(3) {
                let place = dice.roll(mutated.len());
                match dice.roll(3) {
                    0 => mutated[place] ^= 1 << dice.roll(8),
                    1 => mutated.insert(place, dice.byte()),
                    _ => drop(mutated.remove(place)),
                }
            }
            assert!(mutated == good || admitted(&maker, &mutated).is_err());
        }
    }
}
