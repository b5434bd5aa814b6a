//! Another key for the device, in place of one that may have leaked or has served long enough.
//!
//! ```text
//! made and noted ──► packages of it ──► the server has both ──► it is the device's ──► each group's ──► the
//!                    are made           in one batch, and the   here as well           leaf names it     old one is
//!                                       old packages are gone                                            deleted
//! ```
//!
//! The new key is stored before the server hears of it, and it is the new one that asks: so a crash or a
//! lost answer anywhere is made good by asking again. It brings its packages along, so that nobody who
//! invites finds an empty pool.

use data_encoding::HEXLOWER;
use keypool_api::{
    Base64, Code, RegisterReply, RemoveReply, RevokeRequest, RevokeWord, RotatePackagesRequest,
    UploadItem, Voucher,
};
use keypool_ledger::{CommandId, RevokeReason, SignatureKey, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    CLOCK_SKEW, SIGNATURE_SCHEME,
    connection::MlsConnection,
    identity::{
        DeviceKeys, delete_leaf_keys, delete_signing_key, leaf_keys_of, make_keys, note_declared,
        note_keys, stored_keys, undeclared_leaf_keys,
    },
    keypackage_pool::{
        CreatedPackage, ServerStatus, keys_end, record_revoked, record_server_status,
        record_uploaded,
    },
    membership::names_key_anywhere,
    statements::{Grounds, with_grounds},
    sync::{
        cooldown::forget_refreshed,
        upload::{server_status_of, sorted},
    },
};
use crate::{
    ApiClient, ApiError, ExchangeError, IdentityError, OwnPackage, RefreshError, RegisterError,
    Staged, StorageError, storage::fresh_command,
};

/// The name of the record of a rotation under way.
const RECORD: &str = "rotation";
/// The prefix of the names of the records of replaced keys.
const OLD_PREFIX: &str = "old-key/";

/// The key that is to be the device's.
#[derive(Serialize, Deserialize)]
struct Rotation {
    next: SignatureKey,
}

/// The key that is to follow, and the keys of other signature schemes that go with it.
struct Following {
    next: DeviceKeys,
    leaf_keys: Vec<(u16, SignatureKey)>,
}

/// The packages of the next key, and the server's verdicts on them.
struct Brought {
    packages: Vec<CreatedPackage>,
    items: Vec<UploadItem>,
    status: Option<ServerStatus>,
    command: CommandId,
}

/// A key that was followed by another, and until when a Welcome for a package of it may come.
#[derive(Serialize, Deserialize)]
struct OldKey {
    signature_key: SignatureKey,
    until: Timestamp,
}

impl<D> MlsConnection<D> {
    /// Registers the device's key at the server. Repeating it is harmless. A rotation that a crash
    /// has left unfinished is finished first.
    ///
    /// # Errors
    ///
    /// Returns a [`RegisterError`], [`RegisterError::IdentityBound`] if another key has the name, or if the
    /// user has a device and none has vouched for this one.
    pub async fn register(
        &self,
        voucher: Option<Voucher>,
        now: Timestamp,
    ) -> Result<RegisterReply, RegisterError> {
        self.resume_rotation(now).await?;
        Ok(self.api().register(voucher, fresh_command()).await?)
    }

    /// Removes a device of this one's user at the server, this one included: its key never speaks for
    /// anything again, nobody is given a package of it, its mailbox is closed, and its name comes back by a
    /// voucher and with another key only. Groups know it until it is removed there. The reply names the
    /// devices that it had introduced: remove them as well if it was stolen.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]; its code is `unknown_user` if there is no such device.
    pub async fn remove_device(&self, device: &str) -> Result<RemoveReply, ApiError> {
        self.api().remove_device(device, fresh_command()).await
    }

    /// Replaces the device's signature key: at the server, where new packages take the place of all that are
    /// live, and here. Update the keys of each group afterwards: until then the group knows the key before.
    ///
    /// The private keys of the withdrawn packages stay until their lifetimes end, for Welcomes on their
    /// way; the key before stays until then, and as long as a group names it.
    ///
    /// # Errors
    ///
    /// Returns a [`RefreshError`]. Call it again: it goes on where it was.
    pub async fn rotate_key(&self, now: Timestamp) -> Result<SignatureKey, RefreshError> {
        self.begin_rotation()?;
        self.resume_rotation(now).await?;
        Ok(self.identity().signature_key())
    }

    /// Makes the next key and notes it, unless that was done before.
    fn begin_rotation(&self) -> Result<(), RefreshError> {
        let staged = self.store().stage()?;
        if staged.app_record::<Rotation>(RECORD)?.is_none() {
            let next = make_keys(&staged)?.signature_key().clone();
            staged.put_app_record(RECORD, &Rotation { next })?;
        }
        Ok(staged.commit()?)
    }

    /// Whether a rotation was begun and is not finished: until it is, the server may know the next key only.
    pub(super) fn is_rotating(&self) -> Result<bool, StorageError> {
        Ok(self.store().stage()?.app_record::<Rotation>(RECORD)?.is_some())
    }

    /// The next key, if a rotation is under way.
    fn next_keys(&self) -> Result<Option<DeviceKeys>, RefreshError> {
        let staged = self.store().stage()?;
        match staged.app_record::<Rotation>(RECORD)? {
            Some(Rotation { next }) => Ok(Some(stored_keys(&staged, &next)?)),
            None => Ok(None),
        }
    }

    /// Goes on with a rotation that a crash or a lost answer has left unfinished. Mostly there is none.
    ///
    /// # Errors
    ///
    /// As [`MlsConnection::rotate_key`].
    pub async fn resume_rotation(&self, now: Timestamp) -> Result<(), RefreshError> {
        let Some(next) = self.next_keys()? else { return Ok(()) };
        let previous = self.identity().signature_key();
        let speaker = self.identity().speaking_with(next.clone());
        let packages = self.pool().packages_of_next(&speaker, now)?;
        let leaf_keys = undeclared_leaf_keys(&self.store().stage()?, next.signature_key())?;
        let (api, following) = (self.api().speaking_as(speaker), Following { next, leaf_keys });
        let brought = with_grounds(|| self.bring(&api, &following, packages.clone())).await?;
        Ok(self.take_over(following.next, previous, &brought, now)?)
    }

    /// Tells the server of the next key and its packages. If it takes none of them, which may be the fault of
    /// a clock, the key alone takes over: one that may have leaked is not kept for that.
    async fn bring(
        &self,
        api: &ApiClient,
        Following { next, leaf_keys }: &Following,
        packages: Vec<CreatedPackage>,
    ) -> Result<Brought, ApiError> {
        let (device, command) = (self.store().owner(), fresh_command());
        let grounds = self.grounds_of_rotation(api).await?;
        let key = grounds.rotation(device, &self.identity().keys(), next.signature_key())?;
        let declared = leaf_keys.iter().map(|of| grounds.leaf_key(device, next, of.clone()));
        let whole = RotatePackagesRequest {
            keypackages: packages.iter().map(|package| Base64(package.bytes.clone())).collect(),
            key: Some(key.clone()),
            leaf_keys: declared.collect::<Result<_, _>>()?,
        };
        let (items, status) = match api.rotate_packages(&whole, command).await {
            Ok(reply) => (reply.items, Some(server_status_of(&reply.pool, reply.position))),
            Err(ApiError::Refused(problem)) if is_about_packages(problem.code) => {
                api.rotate(&key, fresh_command()).await?;
                (problem.items, None)
            }
            Err(error) => return Err(error),
        };
        Ok(Brought { packages, items, status, command })
    }

    /// Fetches the state that the statement is made on. After a lost answer the server knows the next key only.
    async fn grounds_of_rotation(&self, next: &ApiClient) -> Result<Grounds, ApiError> {
        match Grounds::fetch(self.api()).await {
            Err(error) if error.code() == Some(Code::Unauthenticated) => Grounds::fetch(next).await,
            outcome => outcome,
        }
    }

    /// The server has the next key: it is the device's from now on.
    fn take_over(
        &self,
        next: DeviceKeys,
        previous: SignatureKey,
        Brought { packages, items, status, command }: &Brought,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let mut rejected = Vec::new();
        let (there, refused) = sorted(packages, items, &mut rejected);
        if !rejected.is_empty() {
            tracing::warn!(?rejected, "packages of the next key were refused");
        }
        let staged = self.store().stage()?;
        let is_new = |own: &OwnPackage| {
            packages.iter().any(|new| *new.keypackage_ref() == own.facts.keypackage_ref)
        };
        let live = staged.packages_where(|own| own.stage.is_live() && !is_new(own));
        let refs: Vec<_> = live.into_iter().map(|own| own.facts.keypackage_ref).collect();
        record_revoked(&staged, &refs, RevokeReason::Rotated, (now, *command))?;
        record_uploaded(&staged, &there, now, *command)?;
        record_revoked(&staged, &refused, RevokeReason::Withdrawn, (now, *command))?;
        if let Some(status) = status {
            record_server_status(&staged, status)?;
            note_declared(&staged, next.signature_key(), true)?;
        }
        let kept = staged.packages_where(|own| own.stage.keeps_keys() && !is_new(own));
        let last = kept.iter().map(|own| keys_end(own, now)).max().unwrap_or(now);
        let old = OldKey { signature_key: previous, until: last.after(CLOCK_SKEW) };
        staged.put_app_record(&old_name(&old.signature_key), &old)?;
        note_keys(&staged, next.signature_key())?;
        staged.remove_app_record(RECORD);
        staged.commit()?;
        self.identity().replace(next);
        Ok(())
    }

    /// Withdraws all live packages of the device's credential, at the server and here: nobody is given one
    /// any more. Their private keys stay until their lifetimes end, for Welcomes on their way. Returns how
    /// many were live here. The next refresh makes fresh ones, however soon it comes.
    ///
    /// # Errors
    ///
    /// Returns an [`ExchangeError`]. Repeating it is harmless.
    pub async fn invalidate_credential_keys(&self, now: Timestamp) -> Result<usize, ExchangeError> {
        let request = RevokeRequest {
            keypackage_refs: None,
            credential_hash: Some(self.identity().credential_hash()),
            all: None,
            reason: RevokeWord::Rotated,
        };
        let (reply, command) = self.revoke(&request).await?;
        let staged = self.store().stage()?;
        let live = staged.packages_where(|own| own.stage.is_live());
        let refs: Vec<_> = live.into_iter().map(|own| own.facts.keypackage_ref).collect();
        let count = record_revoked(&staged, &refs, RevokeReason::Rotated, (now, command))?;
        record_server_status(&staged, &server_status_of(&reply.pool, reply.position))?;
        forget_refreshed(&staged);
        staged.commit()?;
        Ok(count)
    }

    /// Deletes the keys that were followed by another and that nothing needs any more.
    pub(super) fn delete_old_keys(&self, now: Timestamp) -> Result<(), StorageError> {
        let staged = self.store().stage()?;
        for name in staged.app_record_names(OLD_PREFIX)? {
            let Some(old) = staged.app_record::<OldKey>(&name)? else { continue };
            if old.until <= now && !is_in_use(&staged, &old.signature_key)? {
                match delete(&staged, &old.signature_key) {
                    Ok(()) => staged.remove_app_record(&name),
                    Err(IdentityError::Storage(error)) => return Err(error),
                    Err(error) => {
                        tracing::warn!(%error, key = %old.signature_key, "a key was not deleted");
                    }
                }
            }
        }
        staged.commit()
    }
}

/// Whether a rotation was refused for the packages it brought, and not for its keys.
const fn is_about_packages(code: Code) -> bool {
    matches!(code, Code::InvalidKeyPackage | Code::PoolFull | Code::TooLarge)
}

/// Whether a group names a key that the device had, or one of another scheme that goes with it.
fn is_in_use(staged: &Staged<'_>, key: &SignatureKey) -> Result<bool, StorageError> {
    for named in leaf_keys_of(staged, key)?.iter().chain([key]) {
        if names_key_anywhere(staged, named)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn delete(staged: &Staged<'_>, key: &SignatureKey) -> Result<(), IdentityError> {
    delete_leaf_keys(staged, key)?;
    delete_signing_key(staged, key, SIGNATURE_SCHEME)
}

fn old_name(key: &SignatureKey) -> String {
    format!("{OLD_PREFIX}{}", HEXLOWER.encode(key.as_bytes()))
}
