//! The cached digest of a pool.

use std::sync::OnceLock;

use keypool_ledger::Hash;

/// A cached digest. It takes no part in comparing pools: equal pools are equal with and without it.
#[derive(Clone, Debug, Default)]
pub(crate) struct DigestCache(OnceLock<Hash>);

impl DigestCache {
    /// Returns the digest, computed by `compute` the first time.
    pub(crate) fn get_or(&self, compute: impl FnOnce() -> Hash) -> Hash {
        *self.0.get_or_init(compute)
    }
}

impl PartialEq for DigestCache {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for DigestCache {}
