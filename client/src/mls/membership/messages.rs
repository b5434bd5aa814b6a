//! Messages in a group: sealed, opened, and the changes that others' Commits make.

use std::{fmt, iter};

use keypool_ledger::{GroupId, Timestamp};
use openmls::{
    credentials::Credential,
    framing::{
        ContentType, MlsMessageIn, ProcessedMessage, ProcessedMessageContent, ProtocolMessage,
        Sender,
    },
    group::{Member, MlsGroup, ProcessMessageError, StagedCommit},
    messages::proposals::Proposal,
    prelude::LeafNodeIndex,
    treesync::LeafNode,
};
use serde::{Deserialize, Serialize};
use tls_codec::Deserialize as _;

use super::{
    MlsMembership, bytes_of, forget, leaving::end_on, open, read_only::check_on, refused, signer_of,
};
use crate::{
    BoxError, GroupError, MessageError, Staged,
    mls::{
        name_in,
        peers::{
            Judged, KeyPolicy, Leaf, LeafCheck, LeafContradiction, LeafTrust, Occasion,
            UntrustedMember, note_untrusted, recheck_untrusted, untrusted_in,
        },
    },
};

/// An incoming message, opened.
#[derive(Clone, PartialEq, Eq)]
pub enum Received {
    /// A member said something.
    Application {
        /// The group.
        group: GroupId,
        /// The name of the member.
        sender: String,
        /// Whether the leaf that it came from is that user's.
        trust: LeafTrust,
        /// The text of the message.
        bytes: Vec<u8>,
    },
    /// A member's Commit was taken as the group's new state.
    Changed(Change),
    /// A member proposed a change; the next Commit may take it up.
    Proposed {
        /// The group.
        group: GroupId,
        /// The name of the member; empty for someone outside the group.
        sender: String,
        /// Whether the change is that the member leaves.
        to_leave: bool,
    },
    /// This device sent it: there is nothing to do. A Commit of one's own is merged with
    /// `merge_pending_commit`.
    Own {
        /// The group.
        group: GroupId,
    },
}

/// The changes of a Commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The group.
    pub group: GroupId,
    /// The name of the member whose Commit it is.
    pub sender: String,
    /// The epoch the group is in now.
    pub epoch: u64,
    /// The names of new members.
    pub added: Vec<String>,
    /// The names of members who are gone.
    pub removed: Vec<String>,
    /// Whether this device was removed: it is not in the group any more.
    pub removed_self: bool,
    /// Whether a Commit of this device was pending: it has lost, and is forgotten. Its change is
    /// to be done again in the new epoch.
    pub own_commit_lost: bool,
    /// The members whose new leaves contradict the directory: no member can undo the Commit, so they are
    /// marked, and nothing is sent to the group until they are gone or accepted
    /// ([`KeyPolicy`](crate::KeyPolicy)).
    #[serde(default)]
    pub untrusted: Vec<UntrustedMember>,
}

impl MlsMembership {
    /// Seals a message for the members of a group. The group's state is stored before the bytes
    /// are given out: no key is used for two messages, also after a crash.
    ///
    /// # Errors
    ///
    /// Returns a [`GroupError`]. Nothing has been written then.
    pub fn encrypt(&self, group: &GroupId, message: &[u8]) -> Result<Vec<u8>, GroupError> {
        let staged = self.store.stage()?;
        let bytes = self.encrypt_on(&staged, group, message)?;
        staged.commit()?;
        Ok(bytes)
    }

    /// [`MlsMembership::encrypt`] as part of an operation that has more to write.
    pub(crate) fn encrypt_on(
        &self,
        staged: &Staged<'_>,
        group: &GroupId,
        message: &[u8],
    ) -> Result<Vec<u8>, GroupError> {
        let mut state = open(staged, group)?;
        check_on(staged, group)?;
        if self.policy == KeyPolicy::Strict {
            let members = untrusted_in(staged, group)?;
            if !members.is_empty() {
                let group = group.clone();
                return Err(GroupError::UntrustedMembers { group, members });
            }
        }
        let signer = signer_of(staged, &state, &self.identity)?;
        let sealed = state.create_message(&staged.provider(), &signer, message);
        bytes_of(&signer.explain(sealed.map_err(refused))?)
    }

    /// Opens a message of a group: a member's text, or a change to the group, which is taken
    /// over at once. Leaves are held to the users' keys as they were looked up before; nobody is asked:
    /// [`MlsClient::decrypt`](crate::MlsClient::decrypt) looks them up first.
    ///
    /// # Errors
    ///
    /// Returns a [`MessageError`]. Nothing has been written then: a forged message costs nothing.
    pub fn decrypt(&self, message: &[u8]) -> Result<Received, MessageError> {
        match self.try_decrypt(message, &self.check(false, Timestamp::default()))? {
            Judged::Done(received) => Ok(received),
            // Nobody may be asked.
            Judged::KeysNeeded(_) => {
                Err(MessageError::NotAMessage("its leaves cannot be judged".into()))
            }
        }
    }

    /// Opens a message, or says which users are to be looked up first.
    pub(crate) fn try_decrypt(
        &self,
        message: &[u8],
        check: &LeafCheck<'_>,
    ) -> Result<Judged<Received>, MessageError> {
        let staged = self.store.stage().map_err(GroupError::from)?;
        let received = decrypt_on(&staged, message, check)?;
        if matches!(received, Judged::Done(_)) {
            staged.commit().map_err(GroupError::from)?;
        }
        Ok(received)
    }
}

/// Opens a message as part of an operation. After an error, or if users are to be looked up first, the operation
/// is to be dropped.
pub(crate) fn decrypt_on(
    staged: &Staged<'_>,
    message: &[u8],
    check: &LeafCheck<'_>,
) -> Result<Judged<Received>, MessageError> {
    let message = parse(message).map_err(MessageError::NotAMessage)?;
    let group = GroupId::new(message.group_id().as_slice())
        .map_err(|err| MessageError::NotAMessage(err.into()))?;
    let epoch = message.epoch().as_u64();
    let mut state = open(staged, &group)?;
    if message.content_type() == ContentType::Proposal && epoch < state.epoch().as_u64() {
        return Err(MessageError::Outdated { group, epoch });
    }
    let processed =
        state.process_message(&staged.provider(), message).map_err(|err| match err {
            ProcessMessageError::StorageError(err) => GroupError::Storage(err).into(),
            err => MessageError::Rejected { group: group.clone(), epoch, source: err.into() },
        })?;
    take_in(staged, &mut state, processed, check)
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Application { group, sender, trust, bytes: _ } => f
                .debug_struct("Application")
                .field("group", group)
                .field("sender", sender)
                .field("trust", trust)
                .finish_non_exhaustive(),
            Self::Changed(change) => f.debug_tuple("Changed").field(change).finish(),
            Self::Proposed { group, sender, to_leave } => f
                .debug_struct("Proposed")
                .field("group", group)
                .field("sender", sender)
                .field("to_leave", to_leave)
                .finish(),
            Self::Own { group } => f.debug_struct("Own").field("group", group).finish(),
        }
    }
}

fn parse(bytes: &[u8]) -> Result<ProtocolMessage, BoxError> {
    Ok(MlsMessageIn::tls_deserialize_exact(bytes)?.try_into_protocol_message()?)
}

/// Applies a valid message.
fn take_in(
    staged: &Staged<'_>,
    state: &mut MlsGroup,
    processed: ProcessedMessage,
    check: &LeafCheck<'_>,
) -> Result<Judged<Received>, MessageError> {
    let group = GroupId::new(state.group_id().as_slice())
        .map_err(|err| MessageError::NotAMessage(err.into()))?;
    let from = processed.sender().clone();
    let sender = sender_name(staged, state, (&from, processed.credential()), check)?;
    let received = match processed.into_content() {
        ProcessedMessageContent::ApplicationMessage(message) => {
            let trust = match judge_sender(staged, state, &from, check)? {
                Judged::Done(trust) => trust,
                Judged::KeysNeeded(users) => return Ok(Judged::KeysNeeded(users)),
            };
            Received::Application { group, sender, trust, bytes: message.into_bytes() }
        }
        ProcessedMessageContent::ProposalMessage(proposal)
        | ProcessedMessageContent::ExternalJoinProposalMessage(proposal) => {
            let to_leave = matches!(
                (proposal.sender(), proposal.proposal()),
                (Sender::Member(from), Proposal::Remove(remove)) if remove.removed() == *from
            );
            state.store_pending_proposal(staged, *proposal).map_err(GroupError::from)?;
            Received::Proposed { group, sender, to_leave }
        }
        ProcessedMessageContent::StagedCommitMessage(commit) => {
            let impostors = match judge_commit(staged, &commit, check)? {
                Judged::Done(impostors) => impostors,
                Judged::KeysNeeded(users) => return Ok(Judged::KeysNeeded(users)),
            };
            check_names(staged, state, (&group, &from, &sender), &commit, check)?;
            let mut change = merge(staged, (group, sender), state, *commit, check)?;
            if !change.removed_self {
                change.untrusted = note_impostors(staged, state, &change.group, &impostors, check)?;
            }
            Received::Changed(change)
        }
        ProcessedMessageContent::OwnPendingCommit | ProcessedMessageContent::OwnPrivateMessage => {
            Received::Own { group }
        }
    };
    Ok(Judged::Done(received))
}

/// Judges the leaf that a message came from.
fn judge_sender(
    staged: &Staged<'_>,
    state: &MlsGroup,
    from: &Sender,
    check: &LeafCheck<'_>,
) -> Result<Judged<LeafTrust>, MessageError> {
    let Sender::Member(index) = from else { return Ok(Judged::Done(LeafTrust::Unchecked)) };
    let Some(member) = state.member_at(*index) else {
        return Ok(Judged::Done(LeafTrust::Unchecked));
    };
    let judged = check.judge_all(staged, iter::once(Leaf::of(&member)), Occasion::Message);
    Ok(match judged.map_err(GroupError::from)? {
        Judged::Done(trusts) => Judged::Done(trusts.into_iter().next().unwrap_or_default()),
        Judged::KeysNeeded(users) => Judged::KeysNeeded(users),
    })
}

/// A signature key in a new leaf, and how the leaf contradicts the directory.
type Impostor = (Vec<u8>, LeafContradiction);

/// Judges the leaves that a Commit brings: those of new members, and those that members replace.
fn judge_commit(
    staged: &Staged<'_>,
    commit: &StagedCommit,
    check: &LeafCheck<'_>,
) -> Result<Judged<Vec<Impostor>>, MessageError> {
    let leaf_of = |node: &LeafNode| (node.credential().clone(), node.signature_key().clone());
    let added = commit.add_proposals();
    let added = added.map(|add| leaf_of(add.add_proposal().key_package().leaf_node()));
    let updated = commit.update_proposals();
    let updated = updated.map(|update| leaf_of(update.update_proposal().leaf_node()));
    let path = commit.update_path_leaf_node().map(leaf_of);
    let leaves: Vec<_> = added.chain(updated).chain(path).collect();
    let judged = check.judge_all(
        staged,
        leaves.iter().map(|(credential, key)| Leaf::new(credential, key.as_slice())),
        Occasion::Commit,
    );
    Ok(match judged.map_err(GroupError::from)? {
        Judged::KeysNeeded(users) => Judged::KeysNeeded(users),
        Judged::Done(trusts) => {
            let judged = leaves.iter().zip(trusts);
            let impostors = judged
                .filter_map(|((_, key), trust)| Some((key.as_slice().to_vec(), trust.impostor()?)));
            Judged::Done(impostors.collect())
        }
    })
}

/// Notes the members that a Commit has brought and that contradict the directory, and forgets those that are
/// gone or do not any more.
fn note_impostors(
    staged: &Staged<'_>,
    state: &MlsGroup,
    group: &GroupId,
    impostors: &[Impostor],
    check: &LeafCheck<'_>,
) -> Result<Vec<UntrustedMember>, MessageError> {
    let members: Vec<Member> = state.members().collect();
    recheck_untrusted(staged, group, &members, check).map_err(GroupError::from)?;
    let found = members.iter().filter_map(|member| {
        let (_, why) = impostors.iter().find(|(key, _)| *key == member.signature_key)?;
        Some(check.untrusted(staged, member, why.clone()))
    });
    let untrusted = found.collect::<Result<Vec<_>, _>>().map_err(GroupError::from)?;
    note_untrusted(staged, group, &untrusted).map_err(GroupError::from)?;
    // One that was accepted is not told again.
    let mut new = untrusted_in(staged, group).map_err(GroupError::from)?;
    new.retain(|member| untrusted.contains(member));
    Ok(new)
}

/// The name of a message's sender: that of its leaf, unless the leaf is another by now.
fn sender_name(
    staged: &Staged<'_>,
    state: &MlsGroup,
    (from, credential): (&Sender, &Credential),
    check: &LeafCheck<'_>,
) -> Result<String, GroupError> {
    let leaf = match from {
        Sender::Member(index) => state.member_at(*index),
        _ => None,
    };
    match leaf.filter(|member| member.credential == *credential) {
        Some(member) => Ok(Leaf::of(&member).name(staged, check.identity)?),
        None => Ok(name_in(credential).unwrap_or_default()),
    }
}

/// The name of the member in a place of the group.
fn name_at(
    staged: &Staged<'_>,
    state: &MlsGroup,
    index: LeafNodeIndex,
    check: &LeafCheck<'_>,
) -> Result<String, GroupError> {
    match state.member_at(index) {
        Some(member) => Ok(Leaf::of(&member).name(staged, check.identity)?),
        None => Ok(String::new()),
    }
}

/// Refuses a Commit by which a member would go by another name than the group knows.
fn check_names(
    staged: &Staged<'_>,
    state: &MlsGroup,
    (group, from, sender): (&GroupId, &Sender, &str),
    commit: &StagedCommit,
    check: &LeafCheck<'_>,
) -> Result<(), MessageError> {
    let check_name = |was: String, leaf: &LeafNode| {
        let renamed = Leaf::of_node(leaf).renames(&was, staged, check.identity);
        match renamed.map_err(GroupError::from)? {
            Some(becomes) => {
                Err(MessageError::IdentityChanged { group: group.clone(), was, becomes })
            }
            None => Ok(()),
        }
    };
    if let (Sender::Member(_), Some(leaf)) = (from, commit.update_path_leaf_node()) {
        check_name(sender.to_owned(), leaf)?;
    }
    for update in commit.update_proposals() {
        let Sender::Member(index) = update.sender() else { continue };
        let was = name_at(staged, state, *index, check)?;
        check_name(was, update.update_proposal().leaf_node())?;
    }
    Ok(())
}

/// Takes another member's Commit as the group's new state.
fn merge(
    staged: &Staged<'_>,
    (group, sender): (GroupId, String),
    state: &mut MlsGroup,
    commit: StagedCommit,
    check: &LeafCheck<'_>,
) -> Result<Change, MessageError> {
    let added = commit.add_proposals().map(|add| {
        let leaf = Leaf::of_node(add.add_proposal().key_package().leaf_node());
        leaf.name(staged, check.identity).map_err(GroupError::from)
    });
    let added = added.collect::<Result<Vec<_>, _>>()?;
    let removed = commit
        .remove_proposals()
        .map(|remove| name_at(staged, state, remove.remove_proposal().removed(), check));
    let removed = removed.collect::<Result<Vec<_>, _>>()?;
    let removed_self = commit.self_removed();
    let own_commit_lost = state.pending_commit().is_some();
    state.merge_staged_commit(&staged.provider(), commit).map_err(refused)?;
    if removed_self {
        forget(staged, &group);
        end_on(staged, &group);
    }
    let epoch = state.epoch().as_u64();
    let untrusted = Vec::new();
    Ok(Change { group, sender, epoch, added, removed, removed_self, own_commit_lost, untrusted })
}
