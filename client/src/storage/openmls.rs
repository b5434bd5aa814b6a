//! The storage of `OpenMLS` on a staged operation: the only place where its values are put and got.
//!
//! `OpenMLS` deletes a package's private keys while it looks at a Welcome, before it knows that the
//! Welcome is good. On a staged operation that deletion is undone when the operation is dropped.

use std::fmt;

use openmls_rust_crypto::RustCrypto;
use openmls_traits::{
    OpenMlsProvider,
    storage::{CURRENT_VERSION, StorageProvider, traits},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{Staged, encoding, keys};
use crate::StorageError;

/// The version of `OpenMLS`'s storage format.
const V: u16 = CURRENT_VERSION;

type Stored<T> = Result<T, StorageError>;

/// The provider for `OpenMLS`: cryptography, randomness, and the storage of one staged operation.
pub struct Provider<'a, 's> {
    staged: &'a Staged<'s>,
    crypto: &'a RustCrypto,
}

impl<'a, 's> Provider<'a, 's> {
    pub(super) const fn new(staged: &'a Staged<'s>, crypto: &'a RustCrypto) -> Self {
        Self { staged, crypto }
    }
}

impl<'s> OpenMlsProvider for Provider<'_, 's> {
    type CryptoProvider = RustCrypto;
    type RandProvider = RustCrypto;
    type StorageProvider = Staged<'s>;

    fn storage(&self) -> &Staged<'s> {
        self.staged
    }

    fn crypto(&self) -> &RustCrypto {
        self.crypto
    }

    fn rand(&self) -> &RustCrypto {
        self.crypto
    }
}

impl fmt::Debug for Provider<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").finish_non_exhaustive()
    }
}

impl Staged<'_> {
    fn mls_put(&self, label: &str, key: &impl Serialize, value: &impl Serialize) -> Stored<()> {
        self.put(mls_key(label, key)?, encoding::encode(label, value)?);
        Ok(())
    }

    fn mls_get<T: DeserializeOwned>(&self, label: &str, key: &impl Serialize) -> Stored<Option<T>> {
        match self.get(&mls_key(label, key)?)? {
            Some(bytes) => encoding::decode(label, &bytes).map(Some),
            None => Ok(None),
        }
    }

    fn mls_remove(&self, label: &str, key: &impl Serialize) -> Stored<()> {
        self.remove(mls_key(label, key)?);
        Ok(())
    }

    /// A list of encoded values; empty if there is none.
    fn mls_list(&self, label: &str, key: &impl Serialize) -> Stored<Vec<Vec<u8>>> {
        Ok(self.mls_get(label, key)?.unwrap_or_default())
    }
}

pub(super) fn mls_key(label: &str, key: &impl Serialize) -> Stored<Vec<u8>> {
    Ok(keys::mls(label, &encoding::encode(label, key)?, V))
}

// The trait has 57 methods, which differ in their types and their label alone.
macro_rules! put {
    ($($name:ident<$a:ident: $at:ident, $b:ident: $bt:ident>($key:ident, $value:ident) = $label:literal;)*) => { $(
        fn $name<$a: traits::$at<V>, $b: traits::$bt<V>>(&self, key: &$key, value: &$value) -> Stored<()> {
            self.mls_put($label, key, value)
        }
    )* }
}
macro_rules! get {
    ($($name:ident<$a:ident: $at:ident, $b:ident: $bt:ident>($key:ident, $value:ident) = $label:literal;)*) => { $(
        fn $name<$a: traits::$at<V>, $b: traits::$bt<V>>(&self, key: &$key) -> Stored<Option<$value>> {
            self.mls_get($label, key)
        }
    )* }
}
macro_rules! remove {
    ($($name:ident<$at:ident> = $label:literal;)*) => { $(
        fn $name<A: traits::$at<V>>(&self, key: &A) -> Stored<()> {
            self.mls_remove($label, key)
        }
    )* }
}

impl StorageProvider<V> for Staged<'_> {
    type Error = StorageError;

    put! {
        write_mls_join_config<A: GroupId, B: MlsGroupJoinConfig>(A, B) = "join_cfg";
        write_tree<A: GroupId, B: TreeSync>(A, B) = "tree";
        write_interim_transcript_hash<A: GroupId, B: InterimTranscriptHash>(A, B) = "ith";
        write_context<A: GroupId, B: GroupContext>(A, B) = "ctx";
        write_confirmation_tag<A: GroupId, B: ConfirmationTag>(A, B) = "ctag";
        write_group_state<A: GroupState, B: GroupId>(B, A) = "state";
        write_message_secrets<A: GroupId, B: MessageSecrets>(A, B) = "msgsec";
        write_resumption_psk_store<A: GroupId, B: ResumptionPskStore>(A, B) = "rpsk";
        write_own_leaf_index<A: GroupId, B: LeafNodeIndex>(A, B) = "leaf_idx";
        write_group_epoch_secrets<A: GroupId, B: GroupEpochSecrets>(A, B) = "epochsec";
        write_signature_key_pair<A: SignaturePublicKey, B: SignatureKeyPair>(A, B) = "sig";
        write_encryption_key_pair<A: EncryptionKey, B: HpkeKeyPair>(A, B) = "enc";
        write_key_package<A: HashReference, B: KeyPackage>(A, B) = "kp";
        write_psk<A: PskId, B: PskBundle>(A, B) = "psk";
    }
    get! {
        mls_group_join_config<A: GroupId, B: MlsGroupJoinConfig>(A, B) = "join_cfg";
        tree<A: GroupId, B: TreeSync>(A, B) = "tree";
        group_context<A: GroupId, B: GroupContext>(A, B) = "ctx";
        interim_transcript_hash<A: GroupId, B: InterimTranscriptHash>(A, B) = "ith";
        confirmation_tag<A: GroupId, B: ConfirmationTag>(A, B) = "ctag";
        group_state<A: GroupState, B: GroupId>(B, A) = "state";
        message_secrets<A: GroupId, B: MessageSecrets>(A, B) = "msgsec";
        resumption_psk_store<A: GroupId, B: ResumptionPskStore>(A, B) = "rpsk";
        own_leaf_index<A: GroupId, B: LeafNodeIndex>(A, B) = "leaf_idx";
        group_epoch_secrets<A: GroupId, B: GroupEpochSecrets>(A, B) = "epochsec";
        signature_key_pair<A: SignaturePublicKey, B: SignatureKeyPair>(A, B) = "sig";
        encryption_key_pair<A: HpkeKeyPair, B: EncryptionKey>(B, A) = "enc";
        key_package<A: HashReference, B: KeyPackage>(A, B) = "kp";
        psk<A: PskBundle, B: PskId>(B, A) = "psk";
    }
    remove! {
        delete_own_leaf_nodes<GroupId> = "own_leaves";
        delete_group_config<GroupId> = "join_cfg";
        delete_tree<GroupId> = "tree";
        delete_confirmation_tag<GroupId> = "ctag";
        delete_group_state<GroupId> = "state";
        delete_context<GroupId> = "ctx";
        delete_interim_transcript_hash<GroupId> = "ith";
        delete_message_secrets<GroupId> = "msgsec";
        delete_all_resumption_psk_secrets<GroupId> = "rpsk";
        delete_own_leaf_index<GroupId> = "leaf_idx";
        delete_group_epoch_secrets<GroupId> = "epochsec";
        delete_signature_key_pair<SignaturePublicKey> = "sig";
        delete_encryption_key_pair<EncryptionKey> = "enc";
        delete_key_package<HashReference> = "kp";
        delete_psk<PskId> = "psk";
    }

    fn append_own_leaf_node<A: traits::GroupId<V>, B: traits::LeafNode<V>>(
        &self,
        group: &A,
        leaf: &B,
    ) -> Stored<()> {
        let mut leaves = self.mls_list("own_leaves", group)?;
        leaves.push(encoding::encode("own_leaves", leaf)?.to_vec());
        self.mls_put("own_leaves", group, &leaves)
    }

    fn own_leaf_nodes<A: traits::GroupId<V>, B: traits::LeafNode<V>>(
        &self,
        group: &A,
    ) -> Stored<Vec<B>> {
        let leaves = self.mls_list("own_leaves", group)?;
        leaves.iter().map(|bytes| encoding::decode("own_leaves", bytes)).collect()
    }

    fn queue_proposal<
        A: traits::GroupId<V>,
        P: traits::ProposalRef<V>,
        Q: traits::QueuedProposal<V>,
    >(
        &self,
        group: &A,
        proposal_ref: &P,
        proposal: &Q,
    ) -> Stored<()> {
        self.mls_put("prop", &(group, proposal_ref), proposal)?;
        let mut refs = self.mls_list("prop_refs", group)?;
        let encoded = encoding::encode("prop_refs", proposal_ref)?.to_vec();
        if !refs.contains(&encoded) {
            refs.push(encoded);
        }
        self.mls_put("prop_refs", group, &refs)
    }

    fn queued_proposal_refs<A: traits::GroupId<V>, P: traits::ProposalRef<V>>(
        &self,
        group: &A,
    ) -> Stored<Vec<P>> {
        let refs = self.mls_list("prop_refs", group)?;
        refs.iter().map(|bytes| encoding::decode("prop_refs", bytes)).collect()
    }

    fn queued_proposals<
        A: traits::GroupId<V>,
        P: traits::ProposalRef<V>,
        Q: traits::QueuedProposal<V>,
    >(
        &self,
        group: &A,
    ) -> Stored<Vec<(P, Q)>> {
        let mut proposals = Vec::new();
        for proposal_ref in self.queued_proposal_refs::<A, P>(group)? {
            if let Some(proposal) = self.mls_get("prop", &(group, &proposal_ref))? {
                proposals.push((proposal_ref, proposal));
            }
        }
        Ok(proposals)
    }

    fn remove_proposal<A: traits::GroupId<V>, P: traits::ProposalRef<V>>(
        &self,
        group: &A,
        proposal_ref: &P,
    ) -> Stored<()> {
        let mut refs = self.mls_list("prop_refs", group)?;
        let encoded = encoding::encode("prop_refs", proposal_ref)?;
        refs.retain(|bytes| *bytes != *encoded);
        self.mls_put("prop_refs", group, &refs)?;
        self.mls_remove("prop", &(group, proposal_ref))
    }

    fn clear_proposal_queue<A: traits::GroupId<V>, P: traits::ProposalRef<V>>(
        &self,
        group: &A,
    ) -> Stored<()> {
        for proposal_ref in self.queued_proposal_refs::<A, P>(group)? {
            self.mls_remove("prop", &(group, &proposal_ref))?;
        }
        self.mls_remove("prop_refs", group)
    }

    fn write_encryption_epoch_key_pairs<
        A: traits::GroupId<V>,
        E: traits::EpochKey<V>,
        H: traits::HpkeKeyPair<V>,
    >(
        &self,
        group: &A,
        epoch: &E,
        leaf_index: u32,
        key_pairs: &[H],
    ) -> Stored<()> {
        self.mls_put("epochkp", &(group, epoch, leaf_index), &key_pairs)
    }

    fn encryption_epoch_key_pairs<
        A: traits::GroupId<V>,
        E: traits::EpochKey<V>,
        H: traits::HpkeKeyPair<V>,
    >(
        &self,
        group: &A,
        epoch: &E,
        leaf_index: u32,
    ) -> Stored<Vec<H>> {
        Ok(self.mls_get("epochkp", &(group, epoch, leaf_index))?.unwrap_or_default())
    }

    fn delete_encryption_epoch_key_pairs<A: traits::GroupId<V>, E: traits::EpochKey<V>>(
        &self,
        group: &A,
        epoch: &E,
        leaf_index: u32,
    ) -> Stored<()> {
        self.mls_remove("epochkp", &(group, epoch, leaf_index))
    }
}
