//! Whose a leaf is: its credential and key, held to the directory's chain.

use std::{collections::BTreeSet, time::Duration};

use data_encoding::HEXLOWER;
use keypool_ledger::{GroupId, PoolId, Timestamp};
use openmls::group::Member;

use super::{
    leaf::{LeafContradiction, LeafTrust, UntrustedMember},
    owner::{Leaf, NamedBy, ResolvedOwner},
    record::{PeerRecord, peer_record},
};
use crate::{DeviceIdentity, Staged, StorageError, mls::identity::has_signing_key};

/// The prefix of the names of the records of groups with members that are not trusted.
const UNTRUSTED_PREFIX: &str = "untrusted/";
/// How long a look-up of a user counts as fresh: a join asks for older ones again.
const FRESH: Duration = Duration::from_hours(1);
/// After how long the sender of messages whose leaf is not trusted is looked up again.
const ASKED_AGAIN: Duration = Duration::from_secs(20);
/// How long a key that was replaced may still stand in new leaves and invite: until its device has replaced it in
/// all groups.
const FORMER_KEY_GRACE: Duration = Duration::from_hours(24);

/// The treatment of a group in which a member other than the inviter contradicts the directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyPolicy {
    /// Nothing is sent to the group until the member is gone or the app accepts it.
    #[default]
    Strict,
    /// The member is marked.
    Mark,
}

/// The outcome of an operation that checks leaves.
pub(crate) enum Judged<T> {
    /// It is done.
    Done(T),
    /// Some leaves cannot be judged before these users were looked up. Nothing was done.
    KeysNeeded(BTreeSet<String>),
}

/// How leaves are checked in an operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeafCheck<'a> {
    /// The device that checks: its own leaves are its own.
    pub(crate) identity: &'a DeviceIdentity,
    /// Whether users who are not known well enough are looked up, and the operation is tried again.
    pub(crate) may_ask: bool,
    /// The time, by the server's clock.
    pub(crate) now: Timestamp,
}

/// The occasion on which leaves are judged: it decides whose users are looked up first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// A group is joined: all users are looked up that were not within the hour.
    Join,
    /// The inviter, whose user was looked up for the join.
    Invitation,
    /// A Commit brings leaves: users are looked up whose leaves do not fit the known keys.
    Commit,
    /// A message arrives: as for a Commit, and a sender that contradicts the directory a few times a minute.
    Message,
}

impl Occasion {
    /// Whether the leaf acts now, and does not only stand in a group.
    const fn is_new(self) -> bool {
        matches!(self, Self::Invitation | Self::Commit)
    }
}

impl UntrustedMember {
    fn new((member, name): (&Member, String), why: LeafContradiction) -> Self {
        Self {
            name,
            leaf_index: member.index.u32(),
            why,
            key: member.signature_key.clone(),
            is_accepted: false,
        }
    }
}

impl LeafCheck<'_> {
    /// Judges a leaf by the known keys. Adds the user to `needed` if the answer may be another after a
    /// look-up.
    fn judge(
        &self,
        staged: &Staged<'_>,
        leaf: &Leaf<'_>,
        occasion: Occasion,
        needed: &mut BTreeSet<String>,
    ) -> Result<LeafTrust, StorageError> {
        let own = self.identity.pool();
        let (device, by) = match leaf.owner(staged, self.identity)? {
            ResolvedOwner::Own => return Ok(LeafTrust::Verified),
            ResolvedOwner::Trusted(device) if device != *own => return Ok(LeafTrust::Known),
            ResolvedOwner::Trusted(device) => (device, NamedBy::App),
            ResolvedOwner::Listed(device, by) => (device, by),
            ResolvedOwner::Refused(reason) => {
                return Ok(LeafTrust::Contradicts(LeafContradiction::RefusedByApp { reason }));
            }
            ResolvedOwner::Unknown => {
                return Ok(LeafTrust::Contradicts(LeafContradiction::NamesNoDevice));
            }
        };
        if device.user() == own.user() && has_signing_key(staged, leaf.key)? {
            return Ok(LeafTrust::Verified);
        }
        if device == *own && by != NamedBy::User {
            return Ok(LeafTrust::Contradicts(LeafContradiction::OtherKey));
        }
        let record = peer_record(staged, device.user())?;
        let mut trust = trust_of(record.as_ref(), &device, (leaf, by == NamedBy::App));
        if occasion.is_new() && trust.is_known() && self.is_outdated(record.as_ref(), &device, leaf)
        {
            trust = LeafTrust::Contradicts(LeafContradiction::FormerKey);
        }
        let age = record.map_or(Duration::MAX, |record| self.now.since(record.fetched_at));
        let age_min = match (&trust, occasion) {
            (LeafTrust::Verified | LeafTrust::Known, Occasion::Join) => Some(FRESH),
            (LeafTrust::Verified | LeafTrust::Known, _) => None,
            (LeafTrust::Contradicts(_), Occasion::Message) => Some(ASKED_AGAIN),
            (LeafTrust::Unchecked | LeafTrust::Contradicts(_), _) => Some(Duration::ZERO),
        };
        if self.may_ask && age_min.is_some_and(|age_min| age_min <= age) {
            needed.insert(device.user().to_owned());
        }
        Ok(trust)
    }

    /// Judges a member by the known keys, and asks nobody.
    pub(crate) fn judge_one(
        &self,
        staged: &Staged<'_>,
        member: &Member,
        occasion: Occasion,
    ) -> Result<LeafTrust, StorageError> {
        self.judge(staged, &Leaf::of(member), occasion, &mut BTreeSet::new())
    }

    /// A member that contradicts the directory, with its name.
    pub(crate) fn untrusted(
        &self,
        staged: &Staged<'_>,
        member: &Member,
        why: LeafContradiction,
    ) -> Result<UntrustedMember, StorageError> {
        let name = Leaf::of(member).name(staged, self.identity)?;
        Ok(UntrustedMember::new((member, name), why))
    }

    /// Whether the device has replaced the key of a leaf too long ago for the leaf to be new.
    fn is_outdated(&self, record: Option<&PeerRecord>, device: &PoolId, leaf: &Leaf<'_>) -> bool {
        let listed = record.and_then(|record| record.list().device(device.device()));
        let replaced_at = listed.and_then(|listed| listed.replaced_at(leaf.key));
        replaced_at.is_some_and(|at| FORMER_KEY_GRACE <= self.now.since(at))
    }

    /// Judges all leaves of a group, in their order. Users that should be looked up come in the place of the
    /// judgements.
    pub(crate) fn judge_all<'l>(
        &self,
        staged: &Staged<'_>,
        leaves: impl Iterator<Item = Leaf<'l>>,
        occasion: Occasion,
    ) -> Result<Judged<Vec<LeafTrust>>, StorageError> {
        let mut needed = BTreeSet::new();
        let trusts = leaves.map(|leaf| self.judge(staged, &leaf, occasion, &mut needed));
        let trusts = trusts.collect::<Result<Vec<_>, _>>()?;
        Ok(if needed.is_empty() { Judged::Done(trusts) } else { Judged::KeysNeeded(needed) })
    }
}

/// Judges a leaf that names a device by the known keys of the user. One that the app says to be the device's may
/// carry any credential as long as the device has declared none.
pub(crate) fn trust_of(
    record: Option<&PeerRecord>,
    device: &PoolId,
    (leaf, is_named_by_app): (&Leaf<'_>, bool),
) -> LeafTrust {
    let Some(record) = record else { return LeafTrust::Unchecked };
    if record.doubt().is_some() {
        return LeafTrust::Contradicts(LeafContradiction::KeysChanged);
    }
    if record.position() == 0 {
        return LeafTrust::Contradicts(LeafContradiction::UnknownUser);
    }
    let Some(listed) = record.list().device(device.device()) else {
        return LeafTrust::Contradicts(LeafContradiction::UnknownDevice);
    };
    if listed.key.is_none() {
        return LeafTrust::Contradicts(LeafContradiction::RemovedDevice);
    }
    if !listed.has_key(leaf.key) {
        return LeafTrust::Contradicts(LeafContradiction::OtherKey);
    }
    if !listed.introduced {
        return LeafTrust::Contradicts(LeafContradiction::NotIntroduced);
    }
    let may_carry = is_named_by_app && listed.credential.is_none()
        || record.has_carried(device, leaf.credential);
    match may_carry {
        false => LeafTrust::Contradicts(LeafContradiction::OtherCredential),
        true if record.is_verified() => LeafTrust::Verified,
        true => LeafTrust::Known,
    }
}

/// The members of a group that contradict the directory and were not accepted, as an operation has them.
pub(crate) fn untrusted_in(
    staged: &Staged<'_>,
    group: &GroupId,
) -> Result<Vec<UntrustedMember>, StorageError> {
    let mut all = contradicting_in(staged, group)?;
    all.retain(|member| !member.is_accepted);
    Ok(all)
}

/// The members of a group that contradict the directory, accepted or not, as an operation has them.
fn contradicting_in(
    staged: &Staged<'_>,
    group: &GroupId,
) -> Result<Vec<UntrustedMember>, StorageError> {
    Ok(staged.app_record(&untrusted_name(group))?.unwrap_or_default())
}

/// Adds members that contradict the directory to those of a group, as part of an operation. A key that was accepted
/// stays so.
pub(crate) fn note_untrusted(
    staged: &Staged<'_>,
    group: &GroupId,
    members: &[UntrustedMember],
) -> Result<(), StorageError> {
    if members.is_empty() {
        return Ok(());
    }
    let mut all = contradicting_in(staged, group)?;
    let is_known = |member: &UntrustedMember| {
        all.iter().any(|known| (known.leaf_index, &known.key) == (member.leaf_index, &member.key))
    };
    let new: Vec<_> = members.iter().filter(|member| !is_known(member)).cloned().collect();
    all.retain(|known| !new.iter().any(|member| member.leaf_index == known.leaf_index));
    all.extend(new);
    staged.put_app_record(&untrusted_name(group), &all)
}

/// Forgets those members of a group that are gone, or do not contradict the directory any more, as part of an
/// operation. Returns whether none is left.
pub(crate) fn recheck_untrusted(
    staged: &Staged<'_>,
    group: &GroupId,
    members: &[Member],
    check: &LeafCheck<'_>,
) -> Result<bool, StorageError> {
    let all = contradicting_in(staged, group)?;
    if all.is_empty() {
        return Ok(true);
    }
    let mut left = Vec::new();
    for untrusted in all {
        let is_it = |member: &&Member| {
            member.index.u32() == untrusted.leaf_index && member.signature_key == untrusted.key
        };
        let Some(member) = members.iter().find(is_it) else { continue };
        let trust = check.judge_one(staged, member, Occasion::Message)?;
        let why = match untrusted.why {
            // The leaf was too late when it came: no later look mends that.
            LeafContradiction::FormerKey => Some(untrusted.why),
            _ => trust.impostor(),
        };
        left.extend(why.map(|why| UntrustedMember { why, ..untrusted }));
    }
    put_contradicting(staged, group, &left)?;
    Ok(left.iter().all(|member| member.is_accepted))
}

/// Forgets those members of a group that are gone, as part of an operation.
pub(crate) fn forget_gone(
    staged: &Staged<'_>,
    group: &GroupId,
    members: &[Member],
) -> Result<(), StorageError> {
    let mut left = contradicting_in(staged, group)?;
    let before = left.len();
    left.retain(|untrusted| {
        members.iter().any(|member| {
            member.index.u32() == untrusted.leaf_index && member.signature_key == untrusted.key
        })
    });
    if left.len() < before { put_contradicting(staged, group, &left) } else { Ok(()) }
}

fn put_contradicting(
    staged: &Staged<'_>,
    group: &GroupId,
    members: &[UntrustedMember],
) -> Result<(), StorageError> {
    if members.is_empty() {
        forget_contradicting(staged, group);
        return Ok(());
    }
    staged.put_app_record(&untrusted_name(group), &members)
}

/// Accepts the members of a group that contradict the directory, with the keys of now, as part of an operation.
pub(crate) fn accept_untrusted(staged: &Staged<'_>, group: &GroupId) -> Result<(), StorageError> {
    let mut all = contradicting_in(staged, group)?;
    for member in &mut all {
        member.is_accepted = true;
    }
    put_contradicting(staged, group, &all)
}

/// Forgets the members of a group that contradict the directory, as part of an operation.
pub(crate) fn forget_contradicting(staged: &Staged<'_>, group: &GroupId) {
    staged.remove_app_record(&untrusted_name(group));
}

fn untrusted_name(group: &GroupId) -> String {
    format!("{UNTRUSTED_PREFIX}{}", HEXLOWER.encode(group.as_bytes()))
}
