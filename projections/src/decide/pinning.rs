//! The key that signs the packages whose signature scheme is not that of the key which speaks for the pool.
//!
//! The device's key declares it by a statement, in front of the first package. An upload by itself never
//! brings a key along: it would outlive the request that brought it.

use keypool_ledger::{Event, SignedStatement};

use super::Draft;
use crate::{
    command::{Answer, ItemRefusal, LeafKey, Rejection},
    pool::Package,
    suites::may_be_signed_by,
};

impl Draft<'_> {
    /// Why a package may not enter the pool with the key that has signed it.
    pub(super) fn pin_refusal(&self, leaf_key: Option<&LeafKey>) -> Option<ItemRefusal> {
        let LeafKey { signature_scheme, signature_key } = leaf_key?;
        let declared = self.pool.pinned_key(*signature_scheme);
        (declared != Some(signature_key)).then_some(ItemRefusal::LeafKeyDiffers)
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
        let declared = self.pool.pinned_key(*signature_scheme);
        if declared == Some(signature_key) {
            return Ok(Answer::LeafKeyDeclared);
        }
        let is_signed =
            |package: &Package| may_be_signed_by(package.facts.ciphersuite, *signature_scheme);
        if declared.is_some() && self.pool.live().any(is_signed) {
            return Err(Rejection::LeafKeyInUse);
        }
        let (signature_scheme, signature_key) = (*signature_scheme, signature_key.clone());
        let statement = Some(statement.clone());
        self.record(Event::LeafKeyPinned { signature_scheme, signature_key, statement })?;
        Ok(Answer::LeafKeyDeclared)
    }
}
