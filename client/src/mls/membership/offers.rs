//! The inviter's checks of a package: it trusts neither server nor owner.

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use keypool_ledger::{Hash, KeyPackageRef, PoolId, Timestamp};
use openmls::{
    framing::{MlsMessageBodyIn, MlsMessageIn},
    group::{Member, MlsGroup},
    key_packages::{KeyPackage, KeyPackageIn, errors::KeyPackageVerifyError},
    prelude::{LeafNodeIndex, ProtocolVersion},
    treesync::{LeafNode, errors::LifetimeError},
};
use openmls_traits::{OpenMlsProvider, crypto::OpenMlsCrypto};
use tls_codec::{Deserialize, Serialize, VLBytes};

use super::{CLOCK_SKEW, device_of, mark_of};
use crate::{
    AddError, BoxError, DeviceIdentity, LeafContradiction, LeafOwner, LeafTrust, PackageCheck,
    PresentedLeaf, Provider, Staged, StorageError,
    mls::{
        ledger_ref, names,
        peers::{Leaf, PeerRecord, peer_record, trust_of},
    },
};

/// The longest lifetime of a package that is taken: three months, as MLS libraries make them, dated back an hour, and
/// an hour more.
const LIFETIME_MAX: Duration = Duration::from_hours(84 * 24 + 2);

/// A package that was handed out for an invitation, and the request it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferedPackage {
    /// The package that was reserved.
    pub keypackage_ref: KeyPackageRef,
    /// Whose package it should be.
    pub owner: PoolId,
    /// The bytes that came: a `KeyPackage`, bare or in an `MLSMessage`.
    pub bytes: Vec<u8>,
}

/// A check that failed, and the error of MLS if there is one.
type FailedCheck = (PackageCheck, Option<BoxError>);

/// A package that is good by itself.
pub(super) struct Sound<'a> {
    pub(super) offer: &'a OfferedPackage,
    pub(super) package: KeyPackage,
    /// The dead leaves of its device, which are removed when it is added.
    pub(super) replaced: Vec<LeafNodeIndex>,
}

/// Packages that are good by themselves, and the others with the fault of each.
pub(super) struct Sifted<'a> {
    pub(super) good: Vec<Sound<'a>>,
    pub(super) bad: Vec<(KeyPackageRef, AddError)>,
}

/// Checks each package, and that no device has two or is a member already, but by a dead leaf.
pub(super) fn sift<'a>(
    staged: &Staged<'_>,
    (state, identity): (&MlsGroup, &DeviceIdentity),
    (offers, dead): (&'a [OfferedPackage], &BTreeSet<Hash>),
    now: Timestamp,
) -> Result<Sifted<'a>, StorageError> {
    let provider = &staged.provider();
    let (dead, living): (Vec<Member>, Vec<Member>) =
        state.members().partition(|member| dead.contains(&mark_of(member)));
    let is_member: HashSet<Vec<u8>> =
        living.into_iter().map(|member| member.signature_key).collect();
    let mut seen: HashSet<Vec<u8>> = HashSet::new();
    let mut sifted = Sifted { good: Vec::with_capacity(offers.len()), bad: Vec::new() };
    for offer in offers {
        let (keypackage_ref, owner) = (offer.keypackage_ref.clone(), offer.owner.clone());
        let record = peer_record(staged, owner.user())?;
        let admitted = admit(provider, state, offer, now).and_then(|package| {
            check_owner((record.as_ref(), identity), &owner, package.leaf_node())?;
            Ok(package)
        });
        let fault = match admitted {
            Err((check, source)) => {
                AddError::PackageRejected { keypackage_ref, owner, check, source }
            }
            Ok(package) => {
                let key = package.leaf_node().signature_key().as_slice().to_vec();
                if is_member.contains(&key) {
                    AddError::AlreadyMember { owner }
                } else if !seen.insert(key) {
                    AddError::SameDevice { owner }
                } else {
                    let replaced = leaves_of(staged, identity, (&dead, &owner))?;
                    sifted.good.push(Sound { offer, package, replaced });
                    continue;
                }
            }
        };
        sifted.bad.push((offer.keypackage_ref.clone(), fault));
    }
    Ok(sifted)
}

/// The places of a device's leaves among some.
fn leaves_of(
    staged: &Staged<'_>,
    identity: &DeviceIdentity,
    (among, owner): (&[Member], &PoolId),
) -> Result<Vec<LeafNodeIndex>, StorageError> {
    let mut places = Vec::new();
    for member in among {
        if device_of(staged, identity, member)?.as_ref() == Some(owner) {
            places.push(member.index);
        }
    }
    Ok(places)
}

/// Checks that the leaf of a package is its owner's, by the app's judgement or by the known keys.
fn check_owner(
    (record, identity): (Option<&PeerRecord>, &DeviceIdentity),
    owner: &PoolId,
    node: &LeafNode,
) -> Result<(), FailedCheck> {
    let credential = node.credential();
    let leaf = Leaf::of_node(node);
    let contradicts =
        |why: LeafContradiction| (PackageCheck::Directory, Some(why.to_string().into()));
    let presented = PresentedLeaf::new(credential, node.signature_key().as_slice());
    let (named, is_named_by_app) = match identity.owner_of(&presented) {
        LeafOwner::Trusted(named) if named == *owner => return Ok(()),
        LeafOwner::Refused { reason } => {
            return Err(contradicts(LeafContradiction::RefusedByApp { reason }));
        }
        LeafOwner::Trusted(named) | LeafOwner::Listed(named) => (named == *owner, true),
        LeafOwner::Undecided => {
            let is_declared = record.is_some_and(|known| known.has_declared(owner, credential));
            (is_declared || names(credential, owner), false)
        }
    };
    if !named {
        return Err((PackageCheck::Identity, None));
    }
    if record.is_some_and(|known| known.declares_other(owner, credential)) {
        return Err(contradicts(LeafContradiction::OtherCredential));
    }
    match trust_of(record, owner, (&leaf, is_named_by_app)) {
        LeafTrust::Contradicts(why) => Err(contradicts(why)),
        LeafTrust::Verified | LeafTrust::Known | LeafTrust::Unchecked => Ok(()),
    }
}

fn admit(
    provider: &Provider<'_, '_>,
    state: &MlsGroup,
    offer: &OfferedPackage,
    now: Timestamp,
) -> Result<KeyPackage, FailedCheck> {
    let package = parse(&offer.bytes).map_err(|err| (PackageCheck::Encoding, Some(err)))?;
    let package =
        package.validate(provider.crypto(), ProtocolVersion::Mls10).map_err(|err| match err {
            KeyPackageVerifyError::LifetimeError(ref lifetime) => {
                (check_of_lifetime(lifetime, now), Some(err.into()))
            }
            err => (PackageCheck::Validity, Some(err.into())),
        })?;
    let keypackage_ref = package
        .hash_ref(provider.crypto())
        .map_err(BoxError::from)
        .and_then(|reference| ledger_ref(&reference))
        .map_err(|err| (PackageCheck::Reference, Some(err)))?;
    if keypackage_ref != offer.keypackage_ref {
        return Err((PackageCheck::Reference, None));
    }
    if !may_be_used(&package, now) {
        return Err((PackageCheck::Lifetime, None));
    }
    if package.ciphersuite() != super::suite_of(state) {
        return Err((PackageCheck::Ciphersuite, None));
    }
    seal_to_keys(provider, &package).map_err(|err| (PackageCheck::Keys, Some(err)))?;
    Ok(package)
}

/// Reads exactly one package, bare or in an `MLSMessage`.
fn parse(bytes: &[u8]) -> Result<KeyPackageIn, BoxError> {
    let bare = match KeyPackageIn::tls_deserialize_exact(bytes) {
        Ok(package) => return Ok(package),
        Err(err) => err,
    };
    match MlsMessageIn::tls_deserialize_exact(bytes).map(MlsMessageIn::extract) {
        Ok(MlsMessageBodyIn::KeyPackage(package)) => Ok(package),
        _ => Err(bare.into()),
    }
}

/// Whether it is now within the package's lifetime, and that is no longer than any should be (RFC 9420 section
/// 7.2). `OpenMLS` asks the machine's clock besides.
fn may_be_used(package: &KeyPackage, now: Timestamp) -> bool {
    let lifetime = package.life_time();
    let begins = Timestamp::from_secs(lifetime.not_before());
    let ends = Timestamp::from_secs(lifetime.not_after());
    begins <= now.after(CLOCK_SKEW) && now < ends && ends.since(begins) <= LIFETIME_MAX
}

/// The check that a package fails whose lifetime `OpenMLS` does not like: it asks the machine's clock, which may
/// be at fault.
fn check_of_lifetime(error: &LifetimeError, now: Timestamp) -> PackageCheck {
    let is_well = match *error {
        LifetimeError::Expired { not_after, .. } => now < Timestamp::from_secs(not_after),
        LifetimeError::NotValidYet { not_before, .. } => {
            Timestamp::from_secs(not_before) <= now.after(CLOCK_SKEW)
        }
        LifetimeError::SystemTimeBeforeUnixEpoch => true,
    };
    if is_well { PackageCheck::Clock } else { PackageCheck::Lifetime }
}

/// Encrypts something to both keys: a broken one makes the whole Commit fail without a name.
fn seal_to_keys(provider: &Provider<'_, '_>, package: &KeyPackage) -> Result<(), BoxError> {
    let suite = package.ciphersuite();
    let encryption_key = package.leaf_node().encryption_key().tls_serialize_detached()?;
    let encryption_key = VLBytes::tls_deserialize_exact(&encryption_key)?;
    for key in [package.hpke_init_key().as_slice(), encryption_key.as_slice()] {
        provider.crypto().hpke_seal(suite.hpke_config(), key, b"", b"", b"does this key work?")?;
    }
    Ok(())
}
