//! The Commit that adds members: of many packages, a bad one is found and holds up no other.

use std::{collections::BTreeSet, fmt};

use keypool_ledger::{GroupId, Hash, KeyPackageRef, PoolId, SignatureKey, Timestamp};
use openmls::{
    group::{CommitBuilder, CommitMessageBundle, Initial},
    key_packages::KeyPackage,
    prelude::LeafNodeIndex,
};

use super::{
    MlsMembership, OfferedPackage, bytes_of,
    commits::{open_for_commit, remember_pending},
    offers::{self, Sifted, Sound},
    refused,
};
use crate::{AddError, BoxError, GroupError, PackageCheck, Staged};

/// A Commit that adds members, and the Welcome for them: to be handed over once the Commit has
/// been accepted, not before (RFC 9420 section 12.4.3).
#[derive(Clone, PartialEq, Eq)]
pub struct PendingAdd {
    /// The bytes for the members of the group.
    pub commit: Vec<u8>,
    /// The bytes for the new members.
    pub welcome: Vec<u8>,
    /// The epoch it ends: the first Commit for an epoch wins.
    pub epoch: u64,
    /// The packages it uses.
    pub keypackage_refs: Vec<KeyPackageRef>,
    /// The signature keys of the new members, in the order of the packages.
    pub signature_keys: Vec<SignatureKey>,
    /// The devices that are not in the group any more once it is accepted, because a proposal of
    /// another member was taken up with it.
    pub removed: Vec<PoolId>,
}

/// The outcome of adding several packages together.
pub(crate) struct Sorted {
    /// The Commit that adds those that can be; none if no package can.
    pub(crate) made: Option<PendingAdd>,
    /// Those that cannot be added, and why.
    pub(crate) bad: Vec<(KeyPackageRef, AddError)>,
}

impl MlsMembership {
    /// Makes the Commit that adds the owners of packages, after checking each package: the server
    /// that handed them out is not trusted.
    ///
    /// The Commit is stored as pending. Merge it once it has been accepted, clear it otherwise.
    ///
    /// # Errors
    ///
    /// Returns an [`AddError`] that names the package at fault. Nothing has been written then.
    pub fn stage_add(
        &self,
        group: &GroupId,
        offers: &[OfferedPackage],
        now: Timestamp,
    ) -> Result<PendingAdd, AddError> {
        let staged = self.store.stage().map_err(GroupError::from)?;
        let all = (offers, &BTreeSet::new());
        let Sorted { made, bad } = self.stage_good_on(&staged, group, all, now)?;
        if let Some((_, error)) = bad.into_iter().next() {
            return Err(error);
        }
        let made = made.ok_or_else(|| GroupError::Mls("no package was given".into()))?;
        staged.commit().map_err(GroupError::from)?;
        Ok(made)
    }

    /// Makes the Commit that adds the owners of those packages that can be added, as part of an
    /// operation that has more to write. The dead leaves of these devices, named by their marks, are removed by
    /// the same Commit.
    pub(crate) fn stage_good_on(
        &self,
        staged: &Staged<'_>,
        group: &GroupId,
        (offers, dead): (&[OfferedPackage], &BTreeSet<Hash>),
        now: Timestamp,
    ) -> Result<Sorted, GroupError> {
        let state = open_for_commit(staged, group)?;
        let Sifted { good, mut bad } =
            offers::sift(staged, (&state, &self.identity), (offers, dead), now)?;
        if good.is_empty() {
            return Ok(Sorted { made: None, bad });
        }
        let all: Vec<&Sound<'_>> = good.iter().collect();
        match self.add_on(staged, group, &all) {
            Ok(made) => return Ok(Sorted { made: Some(made), bad }),
            Err(GroupError::Mls(_)) => {}
            Err(error) => return Err(error),
        }
        // MLS refuses the Commit without saying for whose sake.
        let (mut kept, mut unfit) = (Vec::new(), Vec::new());
        self.halve(staged, group, &all, (&mut kept, &mut unfit))?;
        let blamed = |(sound, source): (&Sound<'_>, BoxError)| {
            let keypackage_ref = sound.offer.keypackage_ref.clone();
            let (owner, check) = (sound.offer.owner.clone(), PackageCheck::Group);
            let (named, source) = (keypackage_ref.clone(), Some(source));
            (named, AddError::PackageRejected { keypackage_ref, owner, check, source })
        };
        bad.extend(unfit.into_iter().map(blamed));
        if kept.is_empty() {
            return Ok(Sorted { made: None, bad });
        }
        Ok(Sorted { made: Some(self.add_on(staged, group, &kept)?), bad })
    }

    /// Finds packages that can be added together, half by half; of two that do not go together the
    /// first stays. Any other fault than a refusal by MLS is no package's.
    fn halve<'a>(
        &self,
        staged: &Staged<'_>,
        group: &GroupId,
        sounds: &[&'a Sound<'a>],
        (kept, unfit): (&mut Vec<&'a Sound<'a>>, &mut Vec<(&'a Sound<'a>, BoxError)>),
    ) -> Result<(), GroupError> {
        let together: Vec<&Sound<'_>> = kept.iter().chain(sounds).copied().collect();
        match (self.try_on(staged, group, &together), sounds) {
            (Ok(()), _) => kept.extend(sounds),
            (Err(GroupError::Mls(_)), []) => {}
            (Err(GroupError::Mls(refused)), [one]) => unfit.push((one, refused)),
            (Err(GroupError::Mls(_)), _) => {
                let (first, second) = sounds.split_at(sounds.len() / 2);
                self.halve(staged, group, first, (kept, unfit))?;
                self.halve(staged, group, second, (kept, unfit))?;
            }
            (Err(error), _) => return Err(error),
        }
        Ok(())
    }

    /// Whether MLS would make the Commit that adds some packages. Nothing is staged.
    fn try_on(
        &self,
        staged: &Staged<'_>,
        group: &GroupId,
        sounds: &[&Sound<'_>],
    ) -> Result<(), GroupError> {
        let mut state = open_for_commit(staged, group)?;
        let exchange = Exchange::of(sounds);
        let replaced = exchange.replaced.clone();
        self.build_on(
            staged,
            &mut state,
            (|commit| exchange.propose(commit), &replaced),
            |_| Ok(()),
        )
    }

    fn add_on(
        &self,
        staged: &Staged<'_>,
        group: &GroupId,
        sounds: &[&Sound<'_>],
    ) -> Result<PendingAdd, GroupError> {
        let mut state = open_for_commit(staged, group)?;
        let exchange = Exchange::of(sounds);
        let replaced = exchange.replaced.clone();
        let epoch = state.epoch().as_u64();
        let made: CommitMessageBundle =
            self.commit_on(staged, &mut state, (|commit| exchange.propose(commit), &replaced))?;
        let welcome = made.to_welcome_msg().ok_or_else(|| GroupError::Mls("no Welcome".into()))?;
        let leaves = sounds.iter().map(|sound| sound.package.leaf_node());
        let keys = leaves.map(|leaf| leaf.signature_key().as_slice());
        let keys: Result<Vec<_>, _> = keys.map(SignatureKey::new).collect();
        let commit = bytes_of(made.commit())?;
        remember_pending(staged, group, &commit)?;
        Ok(PendingAdd {
            commit,
            removed: self.removed_by(staged, &state)?,
            welcome: bytes_of(&welcome)?,
            epoch,
            keypackage_refs: sounds
                .iter()
                .map(|sound| sound.offer.keypackage_ref.clone())
                .collect(),
            signature_keys: keys.map_err(refused)?,
        })
    }
}

/// The packages that a Commit adds, and the dead leaves that it removes.
struct Exchange {
    packages: Vec<KeyPackage>,
    replaced: Vec<LeafNodeIndex>,
}

impl Exchange {
    fn of(sounds: &[&Sound<'_>]) -> Self {
        let packages = sounds.iter().map(|sound| sound.package.clone()).collect();
        let replaced = sounds.iter().flat_map(|sound| sound.replaced.iter().copied()).collect();
        Self { packages, replaced }
    }

    fn propose(self, commit: CommitBuilder<'_, Initial>) -> CommitBuilder<'_, Initial> {
        let commit = commit.propose_removals(self.replaced).propose_adds(self.packages);
        commit.force_self_update(true)
    }
}

impl fmt::Debug for PendingAdd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingAdd")
            .field("epoch", &self.epoch)
            .field("keypackage_refs", &self.keypackage_refs)
            .finish_non_exhaustive()
    }
}
