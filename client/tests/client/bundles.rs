//! The key packages of a store whose app makes them itself: kept, loaded for the join, counted, listed, deleted.

use std::{slice::from_ref, sync::LazyLock, time::Duration};

use keypool_client::{
    BundleDeleteError, BundleLoadError, Event, Hash, KeyFate, KeyPackageBundle, KeyPackageRef,
    LocalStore, OfferedPackage, OwnPackage, OwnStage, ReservationInfo, RevokeReason, StatusCounts,
    StorageError, Timestamp, fresh_command,
};
use keypool_ledger::ReservationId;
use openmls::prelude::{
    BasicCredential, Capabilities, Ciphersuite, CredentialWithKey, ExtensionType, KeyPackage,
    Lifetime, MlsGroupJoinConfig, MlsMessageBodyIn, MlsMessageIn, OpenMlsProvider, StagedWelcome,
    Welcome,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use openmls_traits::storage::StorageProvider;
use quickcheck::{Arbitrary, Gen, QuickCheck};
use tempfile::TempDir;
use tls_codec::{Deserialize, Serialize};

use super::{
    storage::server_history,
    support::{Device, group, lose_a_package, now, pool},
};

const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
const START: Timestamp = Timestamp::from_secs(1_700_000_000);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// A key package that an app makes with `OpenMLS` alone.
fn made(name: &str, (from, to): (Timestamp, Timestamp), last_resort: bool) -> KeyPackageBundle {
    let signer = SignatureKeyPair::new(SUITE.signature_algorithm()).unwrap();
    let credential = CredentialWithKey {
        credential: BasicCredential::new(name.into()).into(),
        signature_key: signer.public().into(),
    };
    let lifetime = Lifetime::init(from.as_secs(), to.as_secs());
    let mut builder = KeyPackage::builder().key_package_lifetime(lifetime);
    if last_resort {
        let extensions = [ExtensionType::LastResort];
        let capabilities = Capabilities::new(None, None, Some(&extensions), None, None);
        builder = builder.leaf_node_capabilities(capabilities).mark_as_last_resort();
    }
    builder.build(SUITE, &OpenMlsRustCrypto::default(), &signer, credential).unwrap()
}

/// One that lives a week from the start on.
fn of_a_week() -> KeyPackageBundle {
    made("bob/phone", (START, START.after(7 * DAY)), false)
}

fn saved(bob: &Device, bundle: &KeyPackageBundle) -> KeyPackageRef {
    bob.store.save_key_package_bundle(bundle, START).unwrap()
}

fn spent() -> OwnStage {
    OwnStage::Spent { group: group("g") }
}

fn withdrawn() -> OwnStage {
    OwnStage::Revoked { reason: RevokeReason::Withdrawn }
}

fn set(bob: &Device, own: &KeyPackageRef, status: &OwnStage) -> bool {
    bob.store.update_key_package_status(own, status, START).unwrap()
}

fn refs(packages: Vec<OwnPackage>) -> Vec<KeyPackageRef> {
    packages.into_iter().map(|own| own.facts.keypackage_ref).collect()
}

/// The fate of a package that is not loaded.
fn fate(bob: &Device, own: &KeyPackageRef) -> KeyFate {
    match bob.store.load_key_package_bundle(own) {
        Err(BundleLoadError::MissingPrivateKey { keypackage_ref, fate }) => {
            assert_eq!(keypackage_ref, *own);
            fate
        }
        outcome => panic!("{:?}", outcome.map(drop)),
    }
}

/// Joins by `OpenMLS` alone, with a bundle from the store.
fn join_alone(bundle: &KeyPackageBundle, welcome: &[u8]) -> openmls::group::MlsGroup {
    let provider = OpenMlsRustCrypto::default();
    let reference = bundle.key_package().hash_ref(provider.crypto()).unwrap();
    provider.storage().write_key_package(&reference, bundle).unwrap();
    let welcome: Welcome = match MlsMessageIn::tls_deserialize_exact(welcome).unwrap().extract() {
        MlsMessageBodyIn::Welcome(welcome) => welcome,
        other => panic!("{other:?}"),
    };
    let config = MlsGroupJoinConfig::builder().use_ratchet_tree_extension(true).build();
    let staged = StagedWelcome::new_from_welcome(&provider, &config, welcome, None).unwrap();
    staged.into_group(&provider).unwrap()
}

#[test]
fn a_bundle_that_the_app_has_made_is_there_after_a_restart_and_joins() {
    let (alice, bob) = (Device::new("alice/phone"), Device::new("bob/phone"));
    let bundle = made("bob/phone", (now().before(HOUR), now().after(DAY)), false);
    let own = bob.store.save_key_package_bundle(&bundle, now()).unwrap();
    let bob = bob.crashed();
    assert!(matches!(&bob.store.history().unwrap()[..], [event]
        if matches!(&event.event, Event::Created(facts) if facts.keypackage_ref == own)));
    assert!(bob.store.update_key_package_status(&own, &OwnStage::Uploaded, now()).unwrap());

    alice.groups.create_group(&group("g"), SUITE.into(), now()).unwrap();
    let bytes = bundle.key_package().tls_serialize_detached().unwrap();
    let offer = OfferedPackage { keypackage_ref: own.clone(), owner: pool("bob/phone"), bytes };
    let added = alice.add(&group("g"), &[offer]);
    let loaded = bob.store.load_key_package_bundle(&own).unwrap();
    assert_eq!(join_alone(&loaded, &added.welcome).members().count(), 2);

    assert!(bob.store.update_key_package_status(&own, &spent(), now()).unwrap());
    let bob = bob.restarted();
    assert_eq!(fate(&bob, &own), KeyFate::SpentBefore { group: group("g") });
    assert!(bob.store.get_key_package_bundle(&own).unwrap().is_none());
}

#[test]
fn a_bundle_that_is_saved_again_is_one_and_has_its_lost_keys_back() {
    let bob = Device::new("bob/phone");
    let bundle = of_a_week();
    let own = saved(&bob, &bundle);
    set(&bob, &own, &OwnStage::Uploaded);
    lose_a_package(&bob.store);
    assert_eq!(fate(&bob, &own), KeyFate::Lost);
    assert_eq!(bob.store.get_available_keys(START).unwrap(), []);
    assert_eq!(saved(&bob, &bundle), own);
    assert!(bob.store.get_key_package_bundle(&own).unwrap().is_some());
    assert_eq!(bob.store.package(&own).unwrap().stage, OwnStage::Uploaded);
    assert_eq!(bob.store.history().unwrap().len(), 2);
}

#[test]
fn a_package_that_is_over_is_never_saved_again() {
    let bob = Device::new("bob/phone");
    for over in [spent(), withdrawn()] {
        let bundle = of_a_week();
        let own = saved(&bob, &bundle);
        set(&bob, &own, &over);
        let refused = bob.store.save_key_package_bundle(&bundle, START).unwrap_err();
        assert!(matches!(refused, StorageError::Impossible(_)), "{refused}");
        assert_eq!(bob.store.package(&own).unwrap().stage, over);
    }
}

#[test]
fn a_spent_package_stays_spent_and_for_its_group() {
    let bob = Device::new("bob/phone");
    let own = saved(&bob, &of_a_week());
    assert!(set(&bob, &own, &spent()));
    assert!(!set(&bob, &own, &spent()), "nothing is recorded twice");
    let other = OwnStage::Spent { group: group("another") };
    for status in [other, OwnStage::Created, OwnStage::Uploaded, OwnStage::Expired, withdrawn()] {
        let refused = bob.store.update_key_package_status(&own, &status, START.after(30 * DAY));
        let Err(StorageError::Impossible(why)) = refused else { panic!("{refused:?}") };
        assert_eq!(why.keypackage_ref, own);
    }
    assert_eq!(bob.store.package(&own).unwrap().stage, spent());
    assert_eq!(bob.store.history().unwrap().len(), 2);
}

#[test]
fn keys_that_a_damaged_store_has_of_a_spent_package_are_not_handed_out() {
    let bob = Device::new("bob/phone");
    let bundle = of_a_week();
    let own = saved(&bob, &bundle);
    set(&bob, &own, &spent());
    let reference = bundle.key_package().hash_ref(OpenMlsRustCrypto::default().crypto()).unwrap();
    let staged = bob.store.stage().unwrap();
    staged.write_key_package(&reference, &bundle).unwrap();
    staged.commit().unwrap();
    assert!(bob.pool.has_private_keys(&own).unwrap());
    assert_eq!(fate(&bob, &own), KeyFate::SpentBefore { group: group("g") });
    assert!(bob.store.get_key_package_bundle(&own).unwrap().is_none());
    assert!(bob.store.delete_key_package_bundle(&own, START).unwrap());
    assert!(!bob.pool.has_private_keys(&own).unwrap());
}

#[test]
fn the_status_of_a_package_that_this_device_never_made_is_refused() {
    let bob = Device::new("bob/phone");
    let foreign = KeyPackageRef::new(&[7; 32]).unwrap();
    let refused = bob.store.update_key_package_status(&foreign, &spent(), START).unwrap_err();
    assert!(matches!(refused, StorageError::Impossible(_)), "{refused}");
    let refused = bob.store.update_reservation_info(&foreign, None).unwrap_err();
    assert!(matches!(refused, StorageError::Impossible(_)), "{refused}");
    assert_eq!(fate(&bob, &foreign), KeyFate::NeverOurs);
    assert!(!bob.store.delete_key_package_bundle(&foreign, START).unwrap());
    assert_eq!(bob.store.history().unwrap(), []);
}

#[test]
fn a_bundle_is_deleted_when_no_welcome_can_come_for_it_any_more() {
    let bob = Device::new("bob/phone");
    let (live, revoked) = (saved(&bob, &of_a_week()), saved(&bob, &of_a_week()));
    set(&bob, &revoked, &withdrawn());
    let end = START.after(7 * DAY + HOUR);
    let just_before = end.before(Duration::from_secs(1));
    for own in [&live, &revoked] {
        let refused = bob.store.delete_key_package_bundle(own, just_before).unwrap_err();
        let text = refused.to_string();
        let BundleDeleteError::StillNeeded { until, .. } = refused else { panic!("{text}") };
        assert_eq!(until, end);
        assert!(text.contains(&own.to_string()) && text.contains("withdraw it"), "{text}");
        assert!(bob.store.get_key_package_bundle(own).unwrap().is_some());
    }
    assert_eq!(bob.store.get_expired_keys(just_before).unwrap(), []);
    assert_eq!(bob.store.get_expired_keys(end).unwrap().len(), 2);
    assert!(bob.store.delete_key_package_bundle(&live, end).unwrap());
    assert!(bob.store.delete_key_package_bundle(&revoked, end).unwrap());
    assert!(!bob.store.delete_key_package_bundle(&live, end).unwrap(), "it is gone");
    let bob = bob.restarted();
    assert_eq!(fate(&bob, &live), KeyFate::Expired);
    let reason = RevokeReason::Withdrawn;
    assert_eq!(fate(&bob, &revoked), KeyFate::Revoked { reason });
    assert_eq!(bob.store.get_expired_keys(end).unwrap(), []);
}

#[test]
fn a_bundle_of_last_resort_outlives_its_uses_and_goes_a_day_after_it_was_withdrawn() {
    let bob = Device::new("bob/phone");
    let bundle = made("bob/phone", (START, START.after(80 * DAY)), true);
    let own = saved(&bob, &bundle);
    assert!(set(&bob, &own, &OwnStage::Uploaded));
    assert!(set(&bob, &own, &spent()), "its use is noted");
    assert!(bob.store.load_key_package_bundle(&own).is_ok());
    assert_eq!(refs(bob.store.get_available_keys(START).unwrap()), from_ref(&own));
    assert!(set(&bob, &own, &withdrawn()));
    let refused = bob.store.delete_key_package_bundle(&own, START).unwrap_err();
    let BundleDeleteError::StillNeeded { until, .. } = refused else { panic!("{refused}") };
    assert_eq!(until, START.after(DAY));
    assert_eq!(refs(bob.store.get_expired_keys(until).unwrap()), from_ref(&own));
    assert!(bob.store.delete_key_package_bundle(&own, until).unwrap());
    assert!(bob.store.get_key_package_bundle(&own).unwrap().is_none());
}

fn reservation(holder: &str) -> ReservationInfo {
    ReservationInfo {
        reservation: ReservationId(fresh_command().0),
        holder: pool(holder),
        group: group("g"),
        deadline: START.after(Duration::from_mins(1)),
    }
}

fn reserved(own: &KeyPackageRef, info: &ReservationInfo, generation: u32) -> Event {
    Event::Reserved {
        keypackage_ref: own.clone(),
        reservation: info.reservation,
        generation,
        holder: info.holder.clone(),
        group: info.group.clone(),
        deadline: info.deadline,
    }
}

#[test]
fn a_package_that_is_noted_as_reserved_is_not_available() {
    let bob = Device::new("bob/phone");
    let own = saved(&bob, &of_a_week());
    let noted = reservation("alice/phone");
    bob.store.update_reservation_info(&own, Some(&noted)).unwrap();
    let bob = bob.restarted();
    assert_eq!(bob.store.reservation_info(&own).unwrap(), Some(noted.clone()));
    assert_eq!(bob.store.get_available_keys(START).unwrap(), []);
    bob.store.update_reservation_info(&own, None).unwrap();
    assert_eq!(bob.store.reservation_info(&own).unwrap(), None);
    assert_eq!(refs(bob.store.get_available_keys(START).unwrap()), from_ref(&own));

    bob.store.update_reservation_info(&own, Some(&noted)).unwrap();
    set(&bob, &own, &spent());
    assert_eq!(bob.store.reservation_info(&own).unwrap(), None, "it went with the keys");
    let refused = bob.store.update_reservation_info(&own, Some(&noted)).unwrap_err();
    assert!(matches!(refused, StorageError::Impossible(_)), "{refused}");
}

#[test]
fn the_mirrored_history_goes_before_a_note_of_a_reservation() {
    let bob = Device::new("bob/phone");
    let own = saved(&bob, &of_a_week());
    let facts = bob.store.package(&own).unwrap().facts;
    let (noted, told) = (reservation("alice/phone"), reservation("carol/phone"));
    bob.store.update_reservation_info(&own, Some(&noted)).unwrap();
    let spent = Event::Spent {
        keypackage_ref: own.clone(),
        reservation: Some(told.reservation),
        holder: Some(told.holder.clone()),
        group: told.group.clone(),
        late: false,
    };
    let events = [Event::Uploaded(facts), reserved(&own, &told, 1), spent];
    let history = server_history(bob.store.owner(), &events);
    for (length, expected, is_available) in
        [(1, None, true), (2, Some(told), false), (3, None, false)]
    {
        let staged = bob.store.stage().unwrap();
        staged.extend_mirror(&history[..length]).unwrap();
        staged.commit().unwrap();
        assert_eq!(bob.store.reservation_info(&own).unwrap(), expected);
        let available = bob.store.get_available_keys(START).unwrap();
        assert_eq!(!available.is_empty(), is_available, "after {length} events");
    }
}

#[test]
fn available_packages_live_long_enough_and_the_first_to_end_come_first() {
    let bob = Device::new("bob/phone");
    let of_days = |days: u32| {
        let bundle = made("bob/phone", (START, START.after(days * DAY)), false);
        saved(&bob, &bundle)
    };
    let (ten, two, five) = (of_days(10), of_days(2), of_days(5));
    let available = |until| refs(bob.store.get_available_keys(until).unwrap());
    assert_eq!(available(START), [two.clone(), five.clone(), ten.clone()]);
    assert_eq!(available(START.after(5 * DAY)), [five.clone(), ten.clone()]);
    set(&bob, &five, &withdrawn());
    assert_eq!(available(START), [two, ten]);
    let counted = bob.store.count_key_packages_by_status().unwrap();
    assert_eq!(counted, StatusCounts { created: 2, revoked: 1, ..StatusCounts::default() });
}

#[test]
fn the_live_packages_of_a_credential_are_withdrawn_together() {
    let bob = Device::new("bob/phone");
    let week = (START, START.after(7 * DAY));
    let old = [(); 3].map(|()| saved(&bob, &made("bob/phone", week, false)));
    let new = saved(&bob, &made("bob/laptop", week, false));
    set(&bob, &old[1], &OwnStage::Uploaded);
    set(&bob, &old[2], &spent());
    let hash = bob.store.package(&old[0]).unwrap().facts.credential;
    let mut revoked = bob.store.invalidate_credential_keys(&hash, START).unwrap();
    revoked.sort();
    let mut expected = vec![old[0].clone(), old[1].clone()];
    expected.sort();
    assert_eq!(revoked, expected);
    for own in &revoked {
        let stage = bob.store.package(own).unwrap().stage;
        assert_eq!(stage, OwnStage::Revoked { reason: RevokeReason::Rotated });
        assert!(bob.store.load_key_package_bundle(own).is_ok(), "a Welcome may be on its way");
    }
    assert_eq!(bob.store.package(&new).unwrap().stage, OwnStage::Created);
    assert_eq!(bob.store.package(&old[2]).unwrap().stage, spent());
    assert_eq!(bob.store.invalidate_credential_keys(&hash, START).unwrap(), []);
    assert_eq!(bob.store.invalidate_credential_keys(&Hash::ZERO, START).unwrap(), []);
}

/// The lifetimes of the bundles, in days.
const LIVES_DAYS: [u32; 3] = [2, 4, 6];

/// A bundle of each lifetime.
static BUNDLES: LazyLock<[KeyPackageBundle; 3]> = LazyLock::new(|| {
    LIVES_DAYS.map(|days| made("bob/phone", (START, START.after(days * DAY)), false))
});

/// A call of the store.
#[derive(Clone, Debug)]
enum Call {
    Save(usize),
    Set(usize, OwnStage),
    Delete(usize),
    Wait { hours: u8 },
}

impl Arbitrary for Call {
    fn arbitrary(g: &mut Gen) -> Self {
        let number = usize::arbitrary(g) % 3;
        let stages =
            [OwnStage::Created, OwnStage::Uploaded, spent(), OwnStage::Expired, withdrawn()];
        match u8::arbitrary(g) % 8 {
            0 | 1 => Self::Save(number),
            2..=4 => Self::Set(number, g.choose(&stages).unwrap().clone()),
            5 => Self::Delete(number),
            _ => Self::Wait { hours: u8::arbitrary(g) % 30 },
        }
    }
}

/// The model of one package: its stage, and whether its keys are here.
#[derive(Clone, Debug, Default)]
struct Expected {
    stage: Option<OwnStage>,
    has_keys: bool,
}

impl Expected {
    fn is_live(&self) -> bool {
        matches!(self.stage, Some(OwnStage::Created | OwnStage::Uploaded))
    }

    /// Whether it may be saved.
    fn save(&mut self) -> bool {
        let may = self.stage.is_none() || self.is_live();
        if may {
            self.stage.get_or_insert(OwnStage::Created);
            self.has_keys = true;
        }
        may
    }

    /// Whether the stage is recorded; `None` if that is refused.
    fn set(&mut self, to: &OwnStage, is_over: bool) -> Option<bool> {
        let from = self.stage.clone()?;
        if from == *to {
            return Some(false);
        }
        let may = match to {
            OwnStage::Created => false,
            OwnStage::Uploaded => from == OwnStage::Created,
            OwnStage::Spent { .. } => self.is_live() || from == withdrawn(),
            OwnStage::Expired => self.is_live() && is_over,
            OwnStage::Revoked { .. } => self.is_live(),
        };
        if may {
            self.stage = Some(to.clone());
            self.has_keys &= !matches!(to, OwnStage::Spent { .. } | OwnStage::Expired);
        }
        may.then_some(true)
    }

    /// Whether there were keys to delete; `None` if that is refused.
    fn delete(&mut self, is_over: bool) -> Option<bool> {
        let is_needed = self.is_live() || self.stage == Some(withdrawn());
        if is_needed && !is_over {
            return None;
        }
        if self.is_live() {
            self.stage = Some(OwnStage::Expired);
        }
        Some(std::mem::take(&mut self.has_keys))
    }
}

/// A store beside its model.
struct Modelled {
    store: LocalStore,
    refs: Vec<KeyPackageRef>,
    expected: Vec<Expected>,
    now: Timestamp,
    _home: TempDir,
}

impl Modelled {
    fn new() -> Self {
        let crypto = OpenMlsRustCrypto::default();
        let of = |bundle: &KeyPackageBundle| {
            let reference = bundle.key_package().hash_ref(crypto.crypto()).unwrap();
            KeyPackageRef::new(reference.as_slice()).unwrap()
        };
        let home = TempDir::new().unwrap();
        let store = LocalStore::open(home.path(), &pool("bob/phone")).unwrap();
        let refs = BUNDLES.iter().map(of).collect();
        Self { store, refs, expected: vec![Expected::default(); 3], now: START, _home: home }
    }

    fn end(number: usize) -> Timestamp {
        START.after(LIVES_DAYS[number] * DAY)
    }

    fn is_over(&self, number: usize) -> bool {
        Self::end(number).after(HOUR) <= self.now
    }

    fn call(&mut self, call: &Call) {
        let now = self.now;
        match call {
            Call::Wait { hours } => self.now = now.after(Duration::from_hours((*hours).into())),
            Call::Save(number) => {
                let saved = self.store.save_key_package_bundle(&BUNDLES[*number], now);
                assert_eq!(saved.is_ok(), self.expected[*number].save(), "{saved:?}");
            }
            Call::Set(number, to) => {
                let is_over = self.is_over(*number);
                let set = self.store.update_key_package_status(&self.refs[*number], to, now);
                assert_eq!(set.ok(), self.expected[*number].set(to, is_over));
            }
            Call::Delete(number) => {
                let is_over = self.is_over(*number);
                let deleted = self.store.delete_key_package_bundle(&self.refs[*number], now);
                assert_eq!(deleted.ok(), self.expected[*number].delete(is_over));
            }
        }
    }

    fn check(&self) {
        let mut counts = StatusCounts::default();
        let (mut expired, mut available) = (Vec::new(), Vec::new());
        for (number, expected) in self.expected.iter().enumerate() {
            let own = &self.refs[number];
            assert_eq!(self.store.package(own).map(|own| own.stage), expected.stage);
            assert_eq!(self.store.load_key_package_bundle(own).is_ok(), expected.has_keys);
            if expected.has_keys && self.is_over(number) {
                expired.push(own.clone());
            }
            if expected.is_live() && self.now <= Self::end(number) {
                available.push(own.clone());
            }
            match expected.stage {
                None => {}
                Some(OwnStage::Created) => counts.created += 1,
                Some(OwnStage::Uploaded) => counts.uploaded += 1,
                Some(OwnStage::Spent { .. }) => counts.spent += 1,
                Some(OwnStage::Expired) => counts.expired += 1,
                Some(OwnStage::Revoked { .. }) => counts.revoked += 1,
            }
        }
        assert_eq!(self.store.count_key_packages_by_status().unwrap(), counts);
        assert_eq!(refs(self.store.get_available_keys(self.now).unwrap()), available);
        let mut found = refs(self.store.get_expired_keys(self.now).unwrap());
        found.sort_by_key(|own| self.refs.iter().position(|known| known == own));
        assert_eq!(found, expired);
    }
}

#[test]
fn in_any_order_of_calls_keys_are_there_while_a_welcome_may_come_and_never_again() {
    fn property(calls: Vec<Call>) -> bool {
        let mut modelled = Modelled::new();
        for call in calls {
            modelled.call(&call);
            modelled.check();
        }
        true
    }
    QuickCheck::new().rng(Gen::new(30)).tests(40).quickcheck(property as fn(Vec<Call>) -> bool);
}
