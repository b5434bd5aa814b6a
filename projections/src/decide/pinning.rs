//! The leaf keys and the credential that a device has declared for its packages.
//!
//! The device's key declares them by statements, in front of the first package. An upload by itself never
//! brings one along: it would outlive the request that brought it.

use keypool_ledger::{CredentialBytes, Event, PackageFacts, SignedStatement};

use super::Draft;
use crate::{
    command::{Answer, ItemRefusal, LeafKey, Rejection},
    pool::Package,
    suites::{ED25519, may_be_signed_by},
};

impl Draft<'_> {
    /// Why a package may not enter the pool with the key that has signed it: without a leaf key the
    /// registered one.
    pub(super) fn pin_refusal(&self, leaf_key: Option<&LeafKey>) -> Option<ItemRefusal> {
        let signed = leaf_key.map(|LeafKey { signature_key, .. }| signature_key);
        let scheme = leaf_key.map_or(ED25519, |leaf_key| leaf_key.signature_scheme);
        (self.pool.pinned_key(scheme) != signed).then_some(ItemRefusal::LeafKeyDiffers)
    }

    /// Why a package may not enter the pool with its credential. Without a declaration admission has checked
    /// that it names the device.
    pub(super) fn credential_refusal(&self, facts: &PackageFacts) -> Option<ItemRefusal> {
        let declared = self.pool.declared_credential()?;
        (declared != facts.credential).then_some(ItemRefusal::CredentialDiffers)
    }

    /// Declares the credential of the device's packages, unless live packages carry another one.
    pub(super) fn declare_credential(
        &mut self,
        statement: &SignedStatement,
        credential: &CredentialBytes,
    ) -> Result<Answer, Rejection> {
        let speaks = self.pool.registration().map(|known| &known.signature_key);
        if speaks != Some(&statement.by) {
            return Err(Rejection::NotRegistered);
        }
        let digest = credential.digest();
        if self.pool.declared_credential() == Some(digest) {
            return Ok(Answer::Declared);
        }
        if self.pool.live().any(|package| package.facts.credential != digest) {
            return Err(Rejection::CredentialInUse);
        }
        let (credential, statement) = (credential.clone(), statement.clone());
        self.record(Event::CredentialDeclared { credential, statement })?;
        Ok(Answer::Declared)
    }

    /// Declares the key of a signature scheme, unless live packages are signed with another one.
    pub(super) fn declare(
        &mut self,
        statement: &SignedStatement,
        leaf_key: &LeafKey,
    ) -> Result<Answer, Rejection> {
        let LeafKey { signature_scheme, signature_key } = leaf_key;
        let speaks = self.pool.registration().map(|known| &known.signature_key);
        if speaks != Some(&statement.by) {
            return Err(Rejection::NotRegistered);
        }
        let registered = speaks.filter(|_| *signature_scheme == ED25519);
        let declared = self.pool.pinned_key(*signature_scheme).or(registered);
        if declared == Some(signature_key) {
            return Ok(Answer::Declared);
        }
        let is_signed =
            |package: &Package| may_be_signed_by(package.facts.ciphersuite, *signature_scheme);
        if declared.is_some() && self.pool.live().any(is_signed) {
            return Err(Rejection::LeafKeyInUse);
        }
        let (signature_scheme, signature_key) = (*signature_scheme, signature_key.clone());
        let statement = Some(statement.clone());
        self.record(Event::LeafKeyPinned { signature_scheme, signature_key, statement })?;
        Ok(Answer::Declared)
    }
}
