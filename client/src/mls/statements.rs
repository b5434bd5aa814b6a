//! Statements that the device signs: to vouch for another device, to agree to the next key, to declare a leaf
//! key or a credential, to introduce somebody. Each names the ledger, and most the head of the user's device list: so they are
//! made at each attempt, and never stored.

use std::future::Future;

use keypool_api::{
    Code, ContactToken, CredentialRequest, DevicesReply, LeafKeyRequest, RecoverRequest,
    RecoveryKeyRequest, RotateRequest, Voucher,
};
use keypool_ledger::{CredentialBytes, Hash, PoolId, Signature, SignatureKey, Timestamp};
use keypool_projections::statement::{Agreement, LedgerId, Statement, contact_statement};

use super::{connection::MlsConnection, identity::DeviceKeys};
use crate::{ApiClient, ApiError};

/// How often a statement is signed for one change, when the user's devices change meanwhile.
const ATTEMPTS_MAX: usize = 3;

/// The state that statements are made on.
#[derive(Clone, Debug)]
pub(super) struct Grounds {
    ledger: LedgerId,
    head: Hash,
    now: Timestamp,
}

/// A signature of a statement, with the head and end that the statement names.
struct Signed {
    head: Hash,
    until: u64,
    proof: Signature,
}

impl Grounds {
    /// Asks the server for the state now.
    pub(super) async fn fetch(api: &ApiClient) -> Result<Self, ApiError> {
        let DevicesReply { devices, ledger, .. } = api.device_list(api.caller().user()).await?;
        Ok(Self { ledger, head: devices.head, now: api.now() })
    }

    /// The agreement of a device's key, or of the recovery key before, to a recovery key.
    pub(super) fn recovery_key(
        &self,
        device: &PoolId,
        keys: &DeviceKeys,
        recovery_key: &SignatureKey,
    ) -> Result<RecoveryKeyRequest, ApiError> {
        let agreement = Agreement::RecoveryKey(recovery_key);
        let Signed { head, until, proof } = self.sign(device, keys, agreement)?;
        let (recovery_keyid, keyid) = (recovery_key.clone(), keys.signature_key().clone());
        Ok(RecoveryKeyRequest { recovery_keyid, keyid, head, until, proof })
    }

    /// The word of the recovery key for a new device's key.
    pub(super) fn recovery(
        &self,
        device: &PoolId,
        recovery: &DeviceKeys,
        key: &SignatureKey,
    ) -> Result<RecoverRequest, ApiError> {
        let Signed { head, until, proof } = self.sign(device, recovery, Agreement::Recover(key))?;
        Ok(RecoverRequest {
            user: device.user().to_owned(),
            device: Some(device.device().to_owned()),
            recovery_keyid: recovery.signature_key().clone(),
            head,
            until,
            proof,
        })
    }

    fn sign(
        &self,
        subject: &PoolId,
        keys: &DeviceKeys,
        agreement: Agreement<'_>,
    ) -> Result<Signed, ApiError> {
        let until = Timestamp::from_secs(self.now.after(agreement.valid_for()).as_secs());
        let Self { ledger, head, .. } = self;
        let by = keys.signature_key();
        let statement = Statement { ledger, subject, by, agreement, head, until };
        let proof = Signature::new(&keys.sign(&statement.to_bytes())?)?;
        Ok(Signed { head: *head, until: until.as_secs(), proof })
    }

    /// The agreement of a device's key that the next one follows it.
    pub(super) fn rotation(
        &self,
        device: &PoolId,
        keys: &DeviceKeys,
        next: &SignatureKey,
    ) -> Result<RotateRequest, ApiError> {
        let Signed { head, until, proof } = self.sign(device, keys, Agreement::Rotate(next))?;
        Ok(RotateRequest {
            user: device.user().to_owned(),
            device: Some(device.device().to_owned()),
            previous_keyid: keys.signature_key().clone(),
            head,
            until,
            proof,
        })
    }

    /// The declaration of the key that signs a device's packages of a signature scheme.
    pub(super) fn leaf_key(
        &self,
        device: &PoolId,
        keys: &DeviceKeys,
        (signature_scheme, leaf_keyid): (u16, SignatureKey),
    ) -> Result<LeafKeyRequest, ApiError> {
        let agreement = Agreement::LeafKey(signature_scheme, &leaf_keyid);
        let Signed { head, until, proof } = self.sign(device, keys, agreement)?;
        Ok(LeafKeyRequest { signature_scheme, leaf_keyid, head, until, proof })
    }

    /// The declaration of the credential that a device's packages carry.
    pub(super) fn credential(
        &self,
        device: &PoolId,
        keys: &DeviceKeys,
        credential: &CredentialBytes,
    ) -> Result<CredentialRequest, ApiError> {
        let agreement = Agreement::Credential(&credential.digest());
        let Signed { head, until, proof } = self.sign(device, keys, agreement)?;
        Ok(CredentialRequest { credential: credential.clone(), head, until, proof })
    }
}

/// Does something that needs a statement, and again with a new one while it was stale.
pub(super) async fn with_grounds<T, F>(does: impl Fn() -> F) -> Result<T, ApiError>
where
    F: Future<Output = Result<T, ApiError>>,
{
    let mut attempts = 1;
    loop {
        match does().await {
            Err(error) if error.code() == Some(Code::StatementStale) && attempts < ATTEMPTS_MAX => {
                attempts += 1;
            }
            outcome => return outcome,
        }
    }
}

impl<D> MlsConnection<D> {
    /// Vouches for another device of this one's user, so that it can register: the voucher goes to that
    /// device, by any way. It is good for ten minutes, and for one registration.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`], [`ApiError::Name`] if no device can have the name.
    pub async fn vouch_for(
        &self,
        device: &str,
        signature_key: &SignatureKey,
    ) -> Result<Voucher, ApiError> {
        let subject = PoolId::new(self.identity().pool().user(), device)?;
        let (grounds, keys) = (Grounds::fetch(self.api()).await?, self.identity().keys());
        let signed = grounds.sign(&subject, &keys, Agreement::Vouch(signature_key))?;
        let Signed { head, until, proof } = signed;
        Ok(Voucher { keyid: keys.signature_key().clone(), head, until, proof })
    }

    /// Makes a word that introduces its bearer to all devices of this user: to them the server does not
    /// hand packages as to strangers. It ends at a moment, a year ahead at most. Give it to people, and keep
    /// it secret: its bearer is introduced.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`].
    pub async fn introduce(&self, until: Timestamp) -> Result<ContactToken, ApiError> {
        let (grounds, keys) = (Grounds::fetch(self.api()).await?, self.identity().keys());
        let (user, keyid) = (self.identity().pool().user(), keys.signature_key().clone());
        let proof = keys.sign(&contact_statement(&grounds.ledger, user, &keyid, until))?;
        Ok(ContactToken { keyid, until: until.as_secs(), proof })
    }
}
