//! Which key signs the packages whose signature scheme is not that of the key which speaks for the pool.
//!
//! The first of them brings its key along: the request is signed by the registered key, the package by its
//! own, and its credential names the device, so that together they bind the key. As long as one of them is
//! live, all others carry the same key.

use keypool_ledger::Event;

use super::Draft;
use crate::{
    command::{ItemRefusal, LeafKey, Rejection},
    suites::may_be_signed_by,
};

impl Draft<'_> {
    /// Why a package may not enter the pool with the key that has signed it.
    pub(super) fn pin_refusal(&self, leaf_key: Option<&LeafKey>) -> Option<ItemRefusal> {
        let LeafKey { signature_scheme: scheme, signature_key } = leaf_key?;
        self.pool.pinned_key(*scheme).filter(|pinned| *pinned != signature_key)?;
        let mut live = self.pool.live().map(|package| package.facts.ciphersuite);
        live.any(|suite| may_be_signed_by(suite, *scheme)).then_some(ItemRefusal::LeafKeyDiffers)
    }

    /// Records which key has signed the package that is taken in next, unless that is known.
    pub(super) fn pin(&mut self, leaf_key: Option<&LeafKey>) -> Result<(), Rejection> {
        let Some(LeafKey { signature_scheme, signature_key }) = leaf_key else { return Ok(()) };
        if self.pool.pinned_key(*signature_scheme) == Some(signature_key) {
            return Ok(());
        }
        let (signature_scheme, signature_key) = (*signature_scheme, signature_key.clone());
        self.record(Event::LeafKeyPinned { signature_scheme, signature_key, statement: None })
    }
}
