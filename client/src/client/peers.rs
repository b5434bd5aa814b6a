//! Other users' keys, for an app: looked up, compared, accepted.

use std::collections::BTreeSet;

use keypool_ledger::GroupId;

use super::MlsClient;
use crate::{
    DeliveryService, ExchangeError, GroupError, PeerKeys, StorageError, UntrustedMember,
    mls::peers::{LeafCheck, peer_record, safety_number},
};

impl<D: DeliveryService> MlsClient<D> {
    pub(super) fn leaf_check(&self, may_ask: bool) -> LeafCheck<'_> {
        self.membership.check(may_ask, self.now())
    }

    pub(super) async fn look_up(&self, users: &BTreeSet<String>) -> Result<(), ExchangeError> {
        self.connection.fetch_peers(users, self.now()).await
    }

    /// The keys of a user, as they were looked up last; `None` for one who was never looked up.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store cannot be read.
    pub fn peer(&self, user: &str) -> Result<Option<PeerKeys>, StorageError> {
        let record = peer_record(&self.store.stage()?, user)?;
        Ok(record.map(|record| record.to_keys()))
    }

    /// Looks a user up at the server, and follows the chain of the user's devices from the known keys. These
    /// are pinned when a user is looked up first; a chain that does not lead on from there is in
    /// [`PeerKeys::status`].
    ///
    /// # Errors
    ///
    /// Returns an [`ExchangeError`].
    pub async fn look_up_peer(&self, user: &str) -> Result<Option<PeerKeys>, ExchangeError> {
        self.look_up(&BTreeSet::from([user.to_owned()])).await?;
        Ok(self.peer(user)?)
    }

    /// The safety number of this user and another one: 60 digits, which are the same on both sides if both
    /// see the same keys. Both users' devices are looked up first. `None` if one of them has no device.
    ///
    /// # Errors
    ///
    /// Returns an [`ExchangeError`].
    pub async fn safety_number(&self, user: &str) -> Result<Option<String>, ExchangeError> {
        let own = self.identity.pool().user().to_owned();
        self.look_up(&BTreeSet::from([own.clone(), user.to_owned()])).await?;
        let staged = self.store.stage()?;
        let keys_of = |user: &str| -> Result<_, StorageError> {
            Ok(peer_record(&staged, user)?.map(|record| record.trusted_keys()).unwrap_or_default())
        };
        let (ours, theirs) = (keys_of(&own)?, keys_of(user)?);
        let is_whole = !ours.is_empty() && !theirs.is_empty();
        Ok(is_whole.then(|| safety_number((&own, &ours), (user, &theirs))))
    }

    /// Notes that a person has compared the safety number with a user, and that it is the same: the user is
    /// verified from now on. Returns false for a user who was never looked up.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`], and nothing has changed then.
    pub fn verify_peer(&self, user: &str) -> Result<bool, StorageError> {
        let staged = self.store.stage()?;
        let Some(mut record) = peer_record(&staged, user)? else { return Ok(false) };
        record.verify(self.now());
        record.put(&staged)?;
        staged.commit()?;
        Ok(true)
    }

    /// Accepts the keys that the server names for a user now: those that were seen before are forgotten, and
    /// the user is verified no more. Compare the safety number first.
    ///
    /// # Errors
    ///
    /// Returns an [`ExchangeError`].
    pub async fn accept_peer(&self, user: &str) -> Result<Option<PeerKeys>, ExchangeError> {
        self.connection.accept_peer(user, self.now()).await?;
        Ok(self.peer(user)?)
    }

    /// Looks all users of a group up, and judges the members that were not trusted again. Returns those that
    /// still contradict the directory.
    ///
    /// # Errors
    ///
    /// Returns a [`CheckError`].
    pub async fn check_members(&self, group: &GroupId) -> Result<Vec<UntrustedMember>, CheckError> {
        self.look_up(&self.membership.users_in(group)?).await?;
        self.membership.recheck(group, self.now())?;
        Ok(self.membership.untrusted(group).map_err(GroupError::from)?)
    }

    /// Accepts the members of a group that contradict the directory: messages are sent to it again.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`], and nothing has changed then.
    pub fn accept_untrusted(&self, group: &GroupId) -> Result<(), StorageError> {
        self.membership.accept_untrusted(group)
    }
}

/// Why the members of a group could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The group cannot be read.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// Their users could not be looked up.
    #[error(transparent)]
    LookUp(#[from] ExchangeError),
}
