//! Looking users up in the directory: one request for many, from the last change that is known.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use keypool_api::{KnownUser, USERS_MAX, UserDevices, UsersDevicesReply, UsersDevicesRequest};
use keypool_ledger::Timestamp;
use keypool_projections::statement::LedgerId;

use super::record::{PeerRecord, forget, peer_record};
use crate::{ExchangeError, MlsConnection, StorageError, storage::fresh_command};

/// How many changes of one user are asked for: 32 devices with 4,096 changes each make fewer.
const CHANGES_MAX: usize = 150_000;

impl<D> MlsConnection<D> {
    /// Looks users up, and follows the chains of their devices from the known keys. A user whose chain does not
    /// follow is in doubt from then on.
    pub(crate) async fn fetch_peers(
        &self,
        users: &BTreeSet<String>,
        now: Timestamp,
    ) -> Result<(), ExchangeError> {
        let users: Vec<&String> = users.iter().collect();
        for some in users.chunks(USERS_MAX) {
            self.fetch_some(some, now).await?;
        }
        Ok(())
    }

    async fn fetch_some(&self, users: &[&String], now: Timestamp) -> Result<(), ExchangeError> {
        let mut known = {
            let staged = self.store().stage()?;
            let known = |user: &&String| {
                let record = peer_record(&staged, user)?;
                let user = (*user).clone();
                Ok(KnownUser { user, after: record.map_or(0, |record| record.position()) })
            };
            users.iter().map(known).collect::<Result<Vec<_>, StorageError>>()?
        };
        let mut shown: BTreeMap<String, UserDevices> = BTreeMap::new();
        let ledgers = loop {
            let request = UsersDevicesRequest { users: known };
            let reply = self.api().users_devices(&request, fresh_command()).await?;
            let UsersDevicesReply { ledger, earlier_ledgers: mut ledgers, users, .. } = reply;
            ledgers.push(ledger);
            known = users.into_iter().filter_map(|part| add_part(&mut shown, part)).collect();
            if known.is_empty() {
                break ledgers;
            }
        };
        Ok(self.note_peers(users, &shown, &ledgers, now)?)
    }

    fn note_peers(
        &self,
        users: &[&String],
        shown: &BTreeMap<String, UserDevices>,
        ledgers: &[LedgerId],
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let (staged, at) = (self.store().stage()?, now);
        for user in users {
            let mut record =
                peer_record(&staged, user)?.unwrap_or_else(|| PeerRecord::new(user, at));
            match shown.get(*user) {
                Some(shown) => record.follow(shown, ledgers, at),
                None => record.follow(&nothing_of(user), ledgers, at),
            }
            record.put(&staged)?;
        }
        staged.commit()
    }

    /// Forgets the keys of a user that were seen before, and takes those of now as seen for the first time.
    pub(crate) async fn accept_peer(
        &self,
        user: &str,
        now: Timestamp,
    ) -> Result<(), ExchangeError> {
        {
            let staged = self.store().stage()?;
            forget(&staged, user);
            staged.commit()?;
        }
        self.fetch_peers(&BTreeSet::from([user.to_owned()]), now).await
    }
}

/// Adds a part of a user's changes to those before it. Returns the user if there is more to ask for.
fn add_part(shown: &mut BTreeMap<String, UserDevices>, part: UserDevices) -> Option<KnownUser> {
    let (user, more) = (part.user.clone(), part.more);
    let whole = match shown.entry(user.clone()) {
        Entry::Occupied(before) => {
            let before = before.into_mut();
            before.history.extend(part.history);
            (before.head, before.position) = (part.head, part.position);
            before
        }
        Entry::Vacant(first) => first.insert(part),
    };
    let after = whole.history.last()?.position;
    // A server that has ever more to show is asked no more: the chain does not lead to its head then.
    (more && whole.history.len() < CHANGES_MAX).then_some(KnownUser { user, after })
}

/// The device list of a user who has no history at the server.
fn nothing_of(user: &str) -> UserDevices {
    UserDevices {
        user: user.to_owned(),
        devices: Vec::new(),
        head: keypool_projections::directory::DeviceList::new(user).head(),
        position: 0,
        history: Vec::new(),
        more: false,
    }
}
