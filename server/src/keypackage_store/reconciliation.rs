//! Reconciliation of a pool's live packages with those that its owner takes to be live.

use std::collections::BTreeSet;

use keypool_ledger::{EventLog, Hash, KeyPackageRef, PoolId, ReadError};
use keypool_projections::Stage;

use super::{KeyPackageStore, StoreError};
use crate::pools::Pools;

/// The packages that an owner takes to be live in a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Packages of this digest.
    Digest(Hash),
    /// These.
    Refs(BTreeSet<KeyPackageRef>),
}

/// The difference between a pool and the packages that its owner takes to be live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconciled {
    /// Whether it does not differ.
    pub agrees: bool,
    /// The digest of the pool's live packages.
    pub digest: Hash,
    /// The version of the pool's history that this is said of.
    pub version: u64,
    /// Live in the pool, and not named; all that are live, where a digest is another one.
    pub only_here: Vec<(KeyPackageRef, Stage)>,
    /// Named, and not live in the pool; without a stage if they were never in it.
    pub only_there: Vec<(KeyPackageRef, Option<Stage>)>,
}

impl<L: EventLog + 'static> KeyPackageStore<L> {
    /// Compares a pool, as it is recorded, with the packages that its owner takes to be live. Nothing is
    /// changed. Evicted packages are read from the log.
    ///
    /// # Errors
    ///
    /// Returns a [`StoreError`] if the log cannot be read.
    pub async fn reconcile(&self, pool: &PoolId, held: &Held) -> Result<Reconciled, StoreError> {
        let view = self.load_view(pool).await;
        let digest = view.state.digest();
        let named = match held {
            Held::Digest(theirs) if *theirs == digest => {
                view.state.live().map(|package| package.facts.keypackage_ref.clone()).collect()
            }
            Held::Digest(_) => BTreeSet::new(),
            Held::Refs(refs) => refs.clone(),
        };
        let difference = view.state.difference(&named);
        let missing = self.fates(pool, difference.only_there).await?;
        let (version, unnamed) = (view.head.version, difference.only_here);
        let agrees = match held {
            Held::Digest(theirs) => *theirs == digest,
            Held::Refs(_) => unnamed.is_empty() && missing.is_empty(),
        };
        Ok(Reconciled { agrees, digest, version, only_here: unnamed, only_there: missing })
    }

    /// Finds the fate of packages that are not live in a pool, as far as they were ever in it.
    async fn fates(
        &self,
        pool: &PoolId,
        refs: Vec<KeyPackageRef>,
    ) -> Result<Vec<(KeyPackageRef, Option<Stage>)>, StoreError> {
        if refs.is_empty() {
            return Ok(Vec::new());
        }
        let pool = pool.clone();
        self.read(move |pools| {
            let mut missing = Vec::with_capacity(refs.len());
            for keypackage_ref in refs {
                match fate_in(pools, &pool, &keypackage_ref)? {
                    // It has come into the pool meanwhile.
                    Some(Stage::Available | Stage::Reserved) => {}
                    fate => missing.push((keypackage_ref, fate)),
                }
            }
            Ok::<_, ReadError>(missing)
        })
        .await
    }
}

/// Finds the fate of a package of this pool; of another pool's nothing is said.
fn fate_in<L: EventLog + 'static>(
    pools: &Pools<L>,
    pool: &PoolId,
    keypackage_ref: &KeyPackageRef,
) -> Result<Option<Stage>, ReadError> {
    let own = pools.package(keypackage_ref)?.filter(|(owner, _, _)| owner == pool);
    Ok(own.map(|(_, package, _)| package.stage))
}
