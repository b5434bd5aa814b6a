//! Joining from a Welcome: all of it in one write, or nothing, so that a bad Welcome costs no keys.

use keypool_ledger::{GroupId, Hash, KeyPackageRef, PoolId, Timestamp};
use openmls::{
    framing::{MlsMessageBodyIn, MlsMessageIn},
    group::{Member, StagedWelcome, WelcomeError},
    messages::Welcome,
};
use tls_codec::{Deserialize, Serialize};

use super::{
    MlsMembership, delete, join_config,
    leaving::end_on,
    load, remember,
    welcome_attempts::{count_attempt, refuse_after_too_many},
};
use crate::{
    BoxError, JoinError, KeyFate, Staged, StorageError,
    mls::{
        keypackage_pool::{
            has_private_keys, is_last_resort, note_joined, record_spent, was_joined,
        },
        ledger_ref,
        peers::{
            Judged, Leaf, LeafCheck, LeafTrust, Occasion, UntrustedMember, note_inviter,
            note_refused_invitation, note_untrusted,
        },
    },
};

/// A group the device has joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The group.
    pub group: GroupId,
    /// The epoch it is in.
    pub epoch: u64,
    /// The package that was used; its private keys are gone, unless it is one of last resort.
    pub keypackage_ref: KeyPackageRef,
    /// Whether it is one of last resort: the pool was empty. The next refresh replaces it.
    pub last_resort: bool,
    /// The name of the member who sent the Welcome.
    pub inviter: String,
    /// Whether the inviter's leaf is that user's. It does not contradict the directory, or the Welcome is
    /// refused.
    pub trust: LeafTrust,
    /// The members whose leaves contradict the directory: see [`KeyPolicy`](crate::KeyPolicy).
    pub untrusted: Vec<UntrustedMember>,
}

impl MlsMembership {
    /// Joins the group that a Welcome is for. The group's state, the event that the package is
    /// spent, and the deletion of its private keys are one write. A package of last resort keeps its
    /// keys, for other Welcomes than this one: which was joined is part of the same write.
    ///
    /// Lifetimes of other members' leaves are not checked: else one member who never updated would
    /// close the group to everyone new.
    ///
    /// # Errors
    ///
    /// The leaves are held to the users' keys as they were looked up before; nobody is asked.
    /// [`MlsClient::join`](crate::MlsClient::join) looks them up first.
    ///
    /// Returns a [`JoinError`]. Nothing has been written then: if the Welcome was damaged or forged
    /// the private keys are kept, and the genuine one still joins. Only the attempt is counted: after
    /// [`WELCOME_ATTEMPTS_MAX`](super::WELCOME_ATTEMPTS_MAX) of them for one package no more are tried.
    pub fn join_from_welcome(&self, welcome: &[u8], now: Timestamp) -> Result<Joined, JoinError> {
        match self.try_join(welcome, now, &self.check(false, now))? {
            Judged::Done(joined) => Ok(joined),
            // Nobody may be asked.
            Judged::KeysNeeded(_) => {
                Err(JoinError::NotAWelcome("its leaves cannot be judged".into()))
            }
        }
    }

    /// Joins, or says which users are to be looked up first.
    pub(crate) fn try_join(
        &self,
        welcome: &[u8],
        now: Timestamp,
        check: &LeafCheck<'_>,
    ) -> Result<Judged<Joined>, JoinError> {
        let staged = self.store.stage()?;
        let error = match join_on(&staged, welcome, now, check) {
            Ok(Judged::Done(joined)) => {
                staged.commit()?;
                return Ok(Judged::Done(joined));
            }
            Ok(needed @ Judged::KeysNeeded(_)) => return Ok(needed),
            Err(error) => error,
        };
        drop(staged);
        if let JoinError::Impostor { inviter, why, .. } = &error {
            let staged = self.store.stage()?;
            note_refused_invitation(&staged, inviter, why.clone(), check.now)?;
            staged.commit()?;
        }
        if let JoinError::Rejected { keypackage_ref, .. } = &error {
            let staged = self.store.stage()?;
            count_attempt(&staged, keypackage_ref)?;
            staged.commit()?;
        }
        Err(error)
    }
}

/// Joins as part of an operation. If users are to be looked up first, the operation is to be dropped.
pub(crate) fn join_on(
    staged: &Staged<'_>,
    welcome: &[u8],
    now: Timestamp,
    check: &LeafCheck<'_>,
) -> Result<Judged<Joined>, JoinError> {
    let welcome = parse(welcome).map_err(JoinError::NotAWelcome)?;
    let (keypackage_ref, secrets) = own_part(staged, &welcome)?;
    if was_joined(staged, &keypackage_ref, &secrets)? {
        return Err(JoinError::Replayed { keypackage_ref });
    }
    refuse_after_too_many(staged, &keypackage_ref)?;
    let rejected = |source| JoinError::Rejected { keypackage_ref: keypackage_ref.clone(), source };
    let failed = |err: WelcomeError<StorageError>| match err {
        WelcomeError::StorageError(err) => JoinError::Storage(err),
        err => rejected(err.into()),
    };
    let provider = staged.provider();
    let builder =
        StagedWelcome::build_from_welcome(&provider, &join_config(), welcome).map_err(failed)?;
    let id = builder.processed_welcome().unverified_group_info().group_id().as_slice();
    let group = GroupId::new(id).map_err(|err| rejected(err.into()))?;
    make_way(staged, &group)?;
    let invitation = builder.skip_lifetime_validation().build().map_err(failed)?;
    let sender = invitation.welcome_sender().map_err(|err| rejected(err.into()))?;
    let inviter = Leaf::of_node(sender).name(staged, check.identity)?;
    let (members, from) =
        (invitation.members().collect::<Vec<_>>(), invitation.welcome_sender_index());
    let trusts = match check.judge_all(staged, members.iter().map(Leaf::of), Occasion::Join)? {
        Judged::Done(trusts) => trusts,
        Judged::KeysNeeded(users) => return Ok(Judged::KeysNeeded(users)),
    };
    let by = members.iter().position(|member| member.index == from);
    let trust = match by.and_then(|by| members.get(by)) {
        Some(inviter) => check.judge_one(staged, inviter, Occasion::Invitation)?,
        None => LeafTrust::default(),
    };
    if let LeafTrust::Contradicts(why) = trust {
        return Err(JoinError::Impostor { keypackage_ref, inviter, why });
    }
    let untrusted = untrusted_of(staged, members.iter().zip(&trusts), check)?;
    note_untrusted(staged, &group, &untrusted)?;
    let state = invitation.into_group(&provider).map_err(failed)?;
    record_spent(staged, &keypackage_ref, (&group, device_named(&inviter)), now)?;
    note_joined(staged, &keypackage_ref, secrets)?;
    if trust.is_known() {
        note_inviter(staged, &keypackage_ref, &inviter)?;
    }
    remember(staged, &group)?;
    end_on(staged, &group);
    let last_resort = is_last_resort(staged, &keypackage_ref);
    let epoch = state.epoch().as_u64();
    Ok(Judged::Done(Joined {
        group,
        epoch,
        keypackage_ref,
        last_resort,
        inviter,
        trust,
        untrusted,
    }))
}

/// The members whose leaves somebody else may have made.
fn untrusted_of<'a>(
    staged: &Staged<'_>,
    members: impl Iterator<Item = (&'a Member, &'a LeafTrust)>,
    check: &LeafCheck<'_>,
) -> Result<Vec<UntrustedMember>, StorageError> {
    let impostors = members.filter_map(|(member, trust)| Some((member, trust.impostor()?)));
    impostors.map(|(member, why)| check.untrusted(staged, member, why)).collect()
}

/// The device a member's name is of; none if it names a user alone, as other implementations may.
fn device_named(name: &str) -> Option<PoolId> {
    name.contains('/').then(|| name.parse().ok()).flatten()
}

/// Reads a Welcome, bare or in an `MLSMessage`.
fn parse(bytes: &[u8]) -> Result<Welcome, BoxError> {
    match MlsMessageIn::tls_deserialize_exact(bytes).map(MlsMessageIn::extract) {
        Ok(MlsMessageBodyIn::Welcome(welcome)) => Ok(welcome),
        Ok(_) => Err("the message is of another kind".into()),
        Err(err) => Welcome::tls_deserialize_exact(bytes).map_err(|_| err.into()),
    }
}

/// The package of this device that a Welcome is for, and the digest of the part that is sealed to it. The
/// Welcome may be for several devices' at once; their parts can be taken away or put in another order
/// without making it another one.
fn own_part(staged: &Staged<'_>, welcome: &Welcome) -> Result<(KeyPackageRef, Hash), JoinError> {
    let mut missing = None;
    for secrets in welcome.secrets() {
        let keypackage_ref = ledger_ref(&secrets.new_member()).map_err(JoinError::NotAWelcome)?;
        if has_private_keys(staged, &keypackage_ref)? {
            let sealed = secrets.tls_serialize_detached();
            let sealed = sealed.map_err(|err| JoinError::NotAWelcome(err.into()))?;
            return Ok((keypackage_ref, Hash::of(&sealed)));
        }
        let fate = KeyFate::of(staged.package(&keypackage_ref).map(|own| own.stage));
        if missing.is_none() || fate != KeyFate::NeverOurs {
            missing = Some((keypackage_ref, fate));
        }
    }
    match missing {
        Some((keypackage_ref, fate)) => Err(JoinError::MissingPrivateKey { keypackage_ref, fate }),
        None => Err(JoinError::NotAWelcome("it is for nobody".into())),
    }
}

/// Removes the rest of a group the device was removed from; refuses one that it is in.
fn make_way(staged: &Staged<'_>, group: &GroupId) -> Result<(), JoinError> {
    match load(staged, group)? {
        None => Ok(()),
        Some(state) if state.is_active() => Err(JoinError::AlreadyInGroup { group: group.clone() }),
        Some(mut left) => Ok(delete(staged, &mut left)?),
    }
}
