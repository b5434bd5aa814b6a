//! Groups: two devices, their stores, and everything that goes wrong between them.

use keypool_client::{
    AddError, GroupError, JoinError, KeyFate, MessageError, OwnStage, PackageCheck, Received,
};
use keypool_ledger::{GroupId, Hash};
use openmls::prelude::{
    MlsGroupJoinConfig, MlsMessageBodyIn, MlsMessageIn, StagedWelcome, tls_codec::Deserialize,
};

use super::support::{Device, group, now, pool};

/// The sender and text of an application message.
fn said(received: &Received) -> Option<(&str, &[u8])> {
    match received {
        Received::Application { sender, bytes, .. } => Some((sender, bytes)),
        _ => None,
    }
}

/// Alice's group with bob's package added; bob has not joined yet.
fn invited() -> (Device, Device, keypool_client::PendingAdd) {
    let (alice, bob) = (Device::new("alice/phone"), Device::new("bob/laptop"));
    alice.groups.create_group(&group("g"), 1, now()).unwrap();
    let added = alice.add(&group("g"), &[bob.offer()]);
    (alice, bob, added)
}

#[test]
fn bob_joins_after_a_restart_and_both_speak() {
    let (alice, bob, added) = invited();
    let bob = bob.restarted();
    let joined = bob.join(&added);
    assert_eq!((joined.inviter.as_str(), joined.epoch), ("alice/phone", 1));
    let spent = bob.store.package(&joined.keypackage_ref).unwrap();
    assert_eq!(spent.stage, OwnStage::Spent { group: group("g") });
    assert!(!bob.pool.has_private_keys(&joined.keypackage_ref).unwrap());
    assert_eq!(bob.groups.groups().unwrap(), [group("g")]);

    let (alice, bob) = (alice.restarted(), bob.restarted());
    let sealed = alice.groups.encrypt(&group("g"), b"hello bob").unwrap();
    let received = bob.groups.decrypt(&sealed).unwrap();
    assert_eq!(said(&received), Some(("alice/phone", b"hello bob".as_slice())));
    let sealed = bob.groups.encrypt(&group("g"), b"hello alice").unwrap();
    let received = alice.groups.decrypt(&sealed).unwrap();
    assert_eq!(said(&received), Some(("bob/laptop", b"hello alice".as_slice())));
    let members = alice.groups.members(&group("g")).unwrap();
    let names: Vec<_> = members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names, ["alice/phone", "bob/laptop"]);
    assert_eq!(members[1].signature_key.as_ref(), Some(&bob.identity.signature_key()));
}

#[test]
fn a_tampered_welcome_leaves_the_keys_and_the_genuine_one_joins() {
    let (_alice, bob, added) = invited();
    let step = added.welcome.len() / 60;
    let before = bob.store.history().unwrap().len();
    for place in (0..added.welcome.len()).step_by(step) {
        let mut tampered = added.welcome.clone();
        tampered[place] ^= 1 << (place % 8);
        bob.groups.join_from_welcome(&tampered, now()).unwrap_err();
        assert!(bob.pool.has_private_keys(&added.keypackage_refs[0]).unwrap(), "byte {place}");
        bob.groups.allow_more_attempts(&added.keypackage_refs[0]).unwrap();
    }
    assert_eq!(bob.store.history().unwrap().len(), before, "nothing was recorded");
    assert!(bob.groups.groups().unwrap().is_empty());
    bob.join(&added);
}

#[test]
fn a_welcome_joins_once() {
    let (_alice, bob, added) = invited();
    bob.join(&added);
    let again = bob.groups.join_from_welcome(&added.welcome, now()).unwrap_err();
    let JoinError::MissingPrivateKey { keypackage_ref, fate } = again else { panic!("{again}") };
    assert_eq!(keypackage_ref, added.keypackage_refs[0]);
    assert_eq!(fate, KeyFate::SpentBefore { group: group("g") });
}

#[test]
fn a_welcome_for_someone_else_says_so() {
    let (_alice, _bob, added) = invited();
    let carol = Device::new("carol/phone");
    let foreign = carol.groups.join_from_welcome(&added.welcome, now()).unwrap_err();
    let JoinError::MissingPrivateKey { fate, .. } = foreign else { panic!("{foreign}") };
    assert_eq!(fate, KeyFate::NeverOurs);
    let junk = carol.groups.join_from_welcome(b"junk", now()).unwrap_err();
    assert!(matches!(junk, JoinError::NotAWelcome(_)));
}

#[test]
fn a_crash_between_staging_a_welcome_and_joining_leaves_the_keys() {
    let (_alice, bob, added) = invited();
    let message = MlsMessageIn::tls_deserialize_exact(&added.welcome).unwrap();
    let MlsMessageBodyIn::Welcome(welcome) = message.extract() else { panic!() };
    let staged = bob.store.stage().unwrap();
    let provider = staged.provider();
    let config = MlsGroupJoinConfig::default();
    let invitation =
        StagedWelcome::build_from_welcome(&provider, &config, welcome).unwrap().build().unwrap();
    let crashed = bob.crashed();
    crashed.join(&added);
    invitation.into_group(&provider).unwrap();
    let crashed = bob.crashed();
    crashed.join(&added);
    drop(staged);
    let bob = bob.restarted();
    assert!(bob.groups.groups().unwrap().is_empty());
    bob.join(&added);
}

#[test]
fn a_welcome_for_many_is_joined_by_each() {
    let alice = Device::new("alice/phone");
    let others = ["bob/phone", "carol/phone", "dave/phone"].map(Device::new);
    alice.groups.create_group(&group("g"), 1, now()).unwrap();
    let offers: Vec<_> = others.iter().map(Device::offer).collect();
    let added = alice.add(&group("g"), &offers);
    for (other, offer) in others.iter().zip(&offers) {
        assert_eq!(other.join(&added).keypackage_ref, offer.keypackage_ref);
    }
    let sealed = others[2].groups.encrypt(&group("g"), b"hello all").unwrap();
    assert!(said(&alice.groups.decrypt(&sealed).unwrap()).is_some());
    assert!(said(&others[0].groups.decrypt(&sealed).unwrap()).is_some());
}

#[test]
fn a_package_that_is_not_the_one_asked_for_is_rejected_by_name() {
    let (alice, bob) = (Device::new("alice/phone"), Device::new("bob/laptop"));
    alice.groups.create_group(&group("g"), 1, now()).unwrap();
    let (good, other) = (bob.offer(), bob.offer());
    let rejected = |offer| match alice.groups.stage_add(&group("g"), &[offer], now()) {
        Err(AddError::PackageRejected { check, .. }) => check,
        other => panic!("{other:?}"),
    };
    let mut offer = good.clone();
    offer.owner = pool("carol/laptop");
    assert_eq!(rejected(offer), PackageCheck::Identity);
    let mut offer = good.clone();
    offer.bytes = other.bytes;
    assert_eq!(rejected(offer), PackageCheck::Reference);
    let mut offer = good.clone();
    offer.bytes.push(0);
    assert_eq!(rejected(offer), PackageCheck::Encoding);
    let mut offer = good.clone();
    *offer.bytes.last_mut().unwrap() ^= 1;
    assert_eq!(rejected(offer), PackageCheck::Validity);
    let days = std::time::Duration::from_hours(24 * 20);
    let late = alice.groups.stage_add(&group("g"), std::slice::from_ref(&good), now().after(days));
    let Err(AddError::PackageRejected { check, .. }) = late else { panic!("{late:?}") };
    assert_eq!(check, PackageCheck::Lifetime);
    assert!(!alice.groups.has_pending_commit(&group("g")).unwrap());
    alice.add(&group("g"), &[good]);
}

#[test]
fn a_device_is_added_once() {
    let (alice, bob) = (Device::new("alice/phone"), Device::new("bob/laptop"));
    alice.groups.create_group(&group("g"), 1, now()).unwrap();
    let two = [bob.offer(), bob.offer()];
    let twice = alice.groups.stage_add(&group("g"), &two, now()).unwrap_err();
    assert!(matches!(twice, AddError::SameDevice { .. }), "{twice}");
    alice.add(&group("g"), &two[..1]);
    let again = alice.groups.stage_add(&group("g"), &two[1..], now()).unwrap_err();
    assert!(matches!(again, AddError::AlreadyMember { .. }), "{again}");
}

#[test]
fn a_pending_commit_survives_a_restart_and_is_merged_or_cleared() {
    let (alice, bob) = (Device::new("alice/phone"), Device::new("bob/laptop"));
    alice.groups.create_group(&group("g"), 1, now()).unwrap();
    let first = alice.groups.stage_add(&group("g"), &[bob.offer()], now()).unwrap();
    assert_eq!(first.epoch, 0);
    let alice = alice.restarted();
    let second = alice.groups.stage_add(&group("g"), &[bob.offer()], now()).unwrap_err();
    assert!(matches!(second, AddError::Group(GroupError::CommitPending { .. })), "{second}");
    alice.groups.clear_pending_commit(&group("g")).unwrap();
    assert_eq!(alice.groups.members(&group("g")).unwrap().len(), 1);

    let second = alice.groups.stage_add(&group("g"), &[bob.offer()], now()).unwrap();
    let alice = alice.restarted();
    assert_eq!(alice.groups.merge_pending_commit(&group("g")).unwrap(), 1);
    assert_eq!(alice.groups.merge_pending_commit(&group("g")).unwrap(), 1, "again: no change");
    bob.join(&second);
    let lost = bob.groups.join_from_welcome(&first.welcome, now()).unwrap_err();
    assert!(matches!(lost, JoinError::AlreadyInGroup { .. }), "{lost}");
    assert!(bob.pool.has_private_keys(&first.keypackage_refs[0]).unwrap());
}

#[test]
fn others_follow_commits_and_a_removed_device_may_come_back() {
    let (alice, bob, added) = invited();
    bob.join(&added);
    let carol = Device::new("carol/phone");
    let more = alice.add(&group("g"), &[carol.offer()]);
    carol.join(&more);
    let Received::Changed(change) = bob.groups.decrypt(&more.commit).unwrap() else { panic!() };
    assert_eq!((change.epoch, change.added), (2, vec!["carol/phone".to_owned()]));

    let update = carol.groups.self_update(&group("g")).unwrap();
    let losing = alice.groups.self_update(&group("g")).unwrap();
    assert_eq!((update.epoch, losing.epoch), (2, 2));
    carol.groups.merge_pending_commit(&group("g")).unwrap();
    let Received::Changed(change) = alice.groups.decrypt(&update.commit).unwrap() else { panic!() };
    assert!(change.own_commit_lost, "alice's Commit came second");
    bob.groups.decrypt(&update.commit).unwrap();

    let removal = alice.groups.remove_member(&group("g"), &pool("bob/laptop")).unwrap();
    alice.groups.merge_pending_commit(&group("g")).unwrap();
    carol.groups.decrypt(&removal.commit).unwrap();
    let Received::Changed(change) = bob.groups.decrypt(&removal.commit).unwrap() else { panic!() };
    assert!(change.removed_self);
    assert_eq!(change.removed, ["bob/laptop"]);
    assert!(bob.groups.groups().unwrap().is_empty());
    let gone = bob.groups.encrypt(&group("g"), b"?").unwrap_err();
    assert!(matches!(gone, GroupError::NotInGroup { .. }), "{gone}");
    let nobody = alice.groups.remove_member(&group("g"), &pool("bob/laptop")).unwrap_err();
    assert!(matches!(nobody, GroupError::NotAMember { .. }), "{nobody}");

    let back = alice.add(&group("g"), &[bob.offer()]);
    bob.join(&back);
    let sealed = alice.groups.encrypt(&group("g"), b"welcome back").unwrap();
    assert!(said(&bob.groups.decrypt(&sealed).unwrap()).is_some());
}

#[test]
fn a_forged_or_repeated_message_costs_nothing() {
    let (alice, bob, added) = invited();
    bob.join(&added);
    let sealed = alice.groups.encrypt(&group("g"), b"hello").unwrap();
    for place in (0..sealed.len()).step_by(7) {
        let mut forged = sealed.clone();
        forged[place] ^= 1 << (place % 8);
        bob.groups.decrypt(&forged).unwrap_err();
    }
    assert!(said(&bob.groups.decrypt(&sealed).unwrap()).is_some());
    let again = bob.groups.decrypt(&sealed).unwrap_err();
    assert!(matches!(again, MessageError::Rejected { epoch: 1, .. }), "{again}");
    let own = alice.groups.decrypt(&sealed).unwrap();
    assert_eq!(own, Received::Own { group: group("g") });
}

#[test]
fn a_message_that_crossed_a_commit_is_still_opened() {
    let (alice, bob, added) = invited();
    bob.join(&added);
    let sealed = alice.groups.encrypt(&group("g"), b"slow").unwrap();
    let update = alice.groups.self_update(&group("g")).unwrap();
    alice.groups.merge_pending_commit(&group("g")).unwrap();
    bob.groups.decrypt(&update.commit).unwrap();
    assert!(said(&bob.groups.decrypt(&sealed).unwrap()).is_some());
}

#[test]
fn a_withdrawn_package_still_joins_and_an_expired_one_says_why_not() {
    let (alice, bob) = (Device::new("alice/phone"), Device::new("bob/laptop"));
    alice.groups.create_group(&group("g"), 1, now()).unwrap();
    let offer = bob.offer();
    let reason = keypool_ledger::RevokeReason::Rotated;
    let refs = [offer.keypackage_ref.clone()];
    bob.pool.mark_revoked(&refs, reason, now(), keypool_client::fresh_command()).unwrap();
    let added = alice.add(&group("g"), &[offer]);
    bob.join(&added);

    let carol = Device::new("carol/phone");
    let added = alice.add(&group("g"), &[carol.offer()]);
    carol.pool.expire(now().after(std::time::Duration::from_hours(24 * 15))).unwrap();
    let expired = carol.groups.join_from_welcome(&added.welcome, now()).unwrap_err();
    let JoinError::MissingPrivateKey { fate, .. } = expired else { panic!("{expired}") };
    assert_eq!(fate, KeyFate::Expired);
}

#[test]
fn the_identity_is_kept_and_signs() {
    let alice = Device::new("alice/phone");
    let key = alice.identity.signature_key();
    let signature = alice.identity.sign(b"request").unwrap();
    let alice = alice.restarted();
    assert_eq!(alice.identity.signature_key(), key);
    assert_eq!(alice.identity.sign(b"request").unwrap(), signature, "Ed25519 is deterministic");
    assert_eq!((signature.len(), key.as_bytes().len()), (64, 32));
    let made = alice.pool.generate_and_store(1, now()).unwrap();
    assert_eq!(made[0].facts.credential, alice.identity.credential_hash());
    assert_ne!(made[0].facts.init_key, Hash::ZERO);
}

#[test]
fn the_longest_group_id_works() {
    let (alice, bob) = (Device::new("alice/phone"), Device::new("bob/laptop"));
    let longest = GroupId::new(&[0xff; 255]).unwrap();
    alice.groups.create_group(&longest, 1, now()).unwrap();
    let taken = alice.groups.create_group(&longest, 1, now()).unwrap_err();
    assert!(matches!(taken, GroupError::AlreadyInGroup { .. }), "{taken}");
    let added = alice.add(&longest, &[bob.offer()]);
    bob.join(&added);
    assert_eq!(bob.restarted().groups.groups().unwrap(), [longest]);
}
