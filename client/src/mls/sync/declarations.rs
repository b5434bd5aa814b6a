//! Declarations to the server: the keys of other signature schemes and the credential that the device's packages
//! carry.

use keypool_api::{Code, RevokeRequest, RevokeWord};
use keypool_ledger::{RevokeReason, Timestamp};

use super::{cooldown::forget_refreshed, upload::server_status_of};
use crate::{
    ApiError, ExchangeError, LeafCredential, MlsConnection, StorageError,
    mls::{
        identity::{
            note_declared, note_declared_credential, undeclared_credential, undeclared_leaf_keys,
        },
        keypackage_pool::{record_revoked, record_server_status},
        statements::{Grounds, with_grounds},
    },
    storage::fresh_command,
};

impl<D> MlsConnection<D> {
    /// Tells the server of the keys of other signature schemes that it has not heard of: packages that these
    /// have signed are refused otherwise, and others do not trust leaves with them.
    pub(in crate::mls) async fn declare_leaf_keys(&self) -> Result<(), ExchangeError> {
        let keys = self.identity().keys();
        let undeclared = undeclared_leaf_keys(&self.store().stage()?, keys.signature_key())?;
        if undeclared.is_empty() {
            return Ok(());
        }
        for leaf_key in undeclared {
            with_grounds(|| async {
                let grounds = Grounds::fetch(self.api()).await?;
                let request = grounds.leaf_key(self.store().owner(), &keys, leaf_key.clone())?;
                self.api().declare_leaf_key(&request, fresh_command()).await
            })
            .await?;
        }
        let staged = self.store().stage()?;
        note_declared(&staged, keys.signature_key(), true)?;
        Ok(staged.commit()?)
    }

    /// Whether the server has not heard of the credential of the device's leaves.
    pub(in crate::mls) fn is_credential_undeclared(&self) -> Result<bool, StorageError> {
        let staged = self.store().stage()?;
        Ok(undeclared_credential(&staged, self.identity())?.is_some())
    }

    /// Tells the server of the credential of the device's leaves, if it has not heard of it. Packages with another
    /// one are withdrawn for that, at the server and here: nobody is given one until others are uploaded. Their
    /// private keys stay until their lifetimes end, for Welcomes on their way.
    pub(in crate::mls) async fn declare_credential(
        &self,
        now: Timestamp,
    ) -> Result<(), ExchangeError> {
        let undeclared = undeclared_credential(&self.store().stage()?, self.identity())?;
        let Some(credential) = undeclared else { return Ok(()) };
        match self.post_credential(&credential).await {
            Err(error) if error.code() == Some(Code::CredentialInUse) => {
                self.withdraw_packages().await?;
                self.post_credential(&credential).await?;
            }
            outcome => outcome?,
        }
        let staged = self.store().stage()?;
        let of_another = staged.packages_where(|own| {
            own.stage.is_live() && own.facts.credential != credential.digest()
        });
        let refs: Vec<_> = of_another.into_iter().map(|own| own.facts.keypackage_ref).collect();
        if !refs.is_empty() {
            record_revoked(&staged, &refs, RevokeReason::Rotated, (now, fresh_command()))?;
            forget_refreshed(&staged);
        }
        note_declared_credential(&staged, &credential)?;
        Ok(staged.commit()?)
    }

    async fn post_credential(&self, credential: &LeafCredential) -> Result<(), ApiError> {
        let keys = self.identity().keys();
        with_grounds(|| async {
            let grounds = Grounds::fetch(self.api()).await?;
            let device = self.store().owner();
            let request = grounds.credential(device, &keys, credential.as_bytes())?;
            self.api().declare_credential(&request, fresh_command()).await.map(drop)
        })
        .await
    }

    /// Withdraws all live packages of the device at the server.
    async fn withdraw_packages(&self) -> Result<(), ExchangeError> {
        let request = RevokeRequest {
            all: Some(true),
            reason: RevokeWord::Rotated,
            ..RevokeRequest::default()
        };
        let reply = self.api().revoke(&request, fresh_command()).await?;
        let staged = self.store().stage()?;
        record_server_status(&staged, &server_status_of(&reply.pool, reply.position))?;
        Ok(staged.commit()?)
    }
}
