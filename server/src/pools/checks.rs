//! The checks of a command that need more than one pool: keys, names, statements, memberships.

use keypool_ledger::{EventLog, GroupId, PoolId, SignatureKey, SignedStatement, log::find_package};
use keypool_projections::{
    Command, GroupState, LeafKey, NextKey, Rejection, Remover, statement::Agreement,
};

use super::{ExecuteError, batch::CommandBatch};

/// How many keys a device may have had before its present one.
const RETIRED_MAX: usize = 1024;
/// How many changes of its keys a device may have had before it declares another leaf key or credential.
const CHANGES_MAX: usize = 4096;
/// How many devices a user may have.
const DEVICES_MAX: usize = 32;

impl<L: EventLog> CommandBatch<'_, L> {
    /// A group that is known here is its members' to invite to: an id that somebody has seen in a
    /// reservation is of no use.
    pub(super) fn check_membership(
        &self,
        holder: &PoolId,
        group: &GroupId,
    ) -> Result<(), Rejection> {
        let is_member = |state: &GroupState| state.version() == 0 || state.has_member(holder);
        if !self.with_group(group, is_member) {
            let (group, holder) = (group.clone(), holder.clone());
            return Err(Rejection::NotAMember { group, holder });
        }
        Ok(())
    }

    /// Refuses a command for reasons outside the state of one pool.
    pub(super) fn check(&mut self, pool: &PoolId, command: &Command) -> Result<(), ExecuteError> {
        match command {
            Command::Register { signature_key, statement, .. } => {
                self.check_registration(pool, signature_key, statement.as_ref())?;
            }
            Command::Admit { signature_key, statement, .. }
                if !self.speaks_for(pool, signature_key) =>
            {
                self.check_new_key(pool, signature_key)?;
                self.check_new_name(pool)?;
                if let Some(statement) = statement {
                    self.check_voucher(pool, signature_key, statement)?;
                }
            }
            Command::Rotate { signature_key, statement, .. } => {
                self.check_rotation(pool, signature_key, statement)?;
            }
            Command::Replace { next: Some(next), .. } => {
                let NextKey { signature_key, statement, leaf_keys, .. } = next;
                if self.check_rotation(pool, signature_key, statement)? {
                    for (statement, LeafKey { signature_scheme, signature_key }) in leaf_keys {
                        self.check_new_key(pool, signature_key)?;
                        let agreement = Agreement::LeafKey(*signature_scheme, signature_key);
                        self.check_statement(pool, statement, &agreement)?;
                    }
                }
            }
            Command::DeclareLeafKey { .. }
            | Command::DeclareCredential { .. }
            | Command::SetRecoveryKey { .. }
            | Command::Recover { .. } => self.check_declaration(pool, command)?,
            Command::Reserve { reservation, holder, .. } => {
                if holder == pool {
                    return Err(Rejection::OwnPool.into());
                }
                if !self.shared.views().directory.knows(pool) {
                    return Err(Rejection::UnknownUser(pool.to_string()).into());
                }
                if self.reservation(*reservation)?.is_some_and(|made| made != *pool) {
                    return Err(Rejection::ReservationMismatch(*reservation).into());
                }
            }
            Command::Remove { by: Remover::Key(by) } => {
                let views = self.shared.views();
                let by = views.directory.pool_of_key(by);
                if by.is_none_or(|by| by.user() != pool.user()) {
                    return Err(Rejection::NotRegistered.into());
                }
            }
            _ => {}
        }
        for package in command.packages() {
            let keypackage_ref = &package.facts.keypackage_ref;
            let known = find_package(&self.shared.log, keypackage_ref)?;
            if known.is_some_and(|known| known.envelope.stream.pool() != Some(pool)) {
                return Err(Rejection::UploadedElsewhere(keypackage_ref.clone()).into());
            }
        }
        Ok(())
    }

    /// Refuses a declaration or a recovery for reasons outside the state of one pool.
    fn check_declaration(&self, pool: &PoolId, command: &Command) -> Result<(), ExecuteError> {
        match command {
            Command::DeclareLeafKey { statement, leaf_key } => {
                let LeafKey { signature_scheme: scheme, signature_key: key } = leaf_key;
                if self.pool_view(pool)?.state.pinned_key(*scheme) != Some(key) {
                    self.check_changes(pool)?;
                    self.check_new_key(pool, key)?;
                    self.check_statement(pool, statement, &Agreement::LeafKey(*scheme, key))?;
                }
            }
            Command::DeclareCredential { statement, credential } => {
                let digest = credential.digest();
                if self.pool_view(pool)?.state.declared_credential() != Some(digest) {
                    self.check_changes(pool)?;
                    self.check_statement(pool, statement, &Agreement::Credential(&digest))?;
                }
            }
            Command::SetRecoveryKey { statement, recovery_key } => {
                self.check_recovery_key(pool, recovery_key, statement)?;
            }
            Command::Recover { statement, signature_key, .. } => {
                self.check_recovery(pool, signature_key, statement)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether a key speaks for a pool already: then there is nothing to agree to.
    fn speaks_for(&self, pool: &PoolId, key: &SignatureKey) -> bool {
        self.shared.views().directory.pool_of_key(key) == Some(pool)
    }

    /// Checks that a key may follow the one that speaks for a pool; false if it does already.
    fn check_rotation(
        &self,
        pool: &PoolId,
        key: &SignatureKey,
        statement: &SignedStatement,
    ) -> Result<bool, ExecuteError> {
        if self.speaks_for(pool, key) {
            return Ok(false);
        }
        self.check_new_key(pool, key)?;
        self.check_statement(pool, statement, &Agreement::Rotate(key))?;
        Ok(true)
    }

    fn check_registration(
        &self,
        pool: &PoolId,
        key: &SignatureKey,
        statement: Option<&SignedStatement>,
    ) -> Result<(), ExecuteError> {
        if self.speaks_for(pool, key) {
            return Ok(());
        }
        self.check_new_key(pool, key)?;
        self.check_new_name(pool)?;
        let voucher = statement.map(|statement| &statement.by);
        if !self.shared.views().directory.admits(pool, key, voucher) || self.was_removed(pool)? {
            return Err(Rejection::IdentityBound.into());
        }
        match statement {
            Some(statement) => self.check_voucher(pool, key, statement),
            None => Ok(()),
        }
    }

    /// Checks a voucher: it must be by another device of the user, also where none is needed.
    fn check_voucher(
        &self,
        pool: &PoolId,
        key: &SignatureKey,
        statement: &SignedStatement,
    ) -> Result<(), ExecuteError> {
        if !self.shared.views().directory.is_voucher(pool, &statement.by) {
            return Err(Rejection::IdentityBound.into());
        }
        self.check_statement(pool, statement, &Agreement::Vouch(key))
    }

    /// Checks that a key may be the user's recovery key, in the history of the device that set the first.
    fn check_recovery_key(
        &self,
        pool: &PoolId,
        key: &SignatureKey,
        statement: &SignedStatement,
    ) -> Result<(), ExecuteError> {
        let known = self.shared.views().directory.recovery_key_of(pool.user());
        match known {
            Some((device, _)) if device != *pool => return Err(Rejection::RecoveryKeyBound.into()),
            Some((_, known)) if known == *key => return Ok(()),
            Some((_, known)) if known != statement.by => {
                return Err(Rejection::RecoveryKeyBound.into());
            }
            Some(_) | None => {}
        }
        self.check_new_key(pool, key)?;
        if self.speaks_for(pool, key) {
            return Err(Rejection::IdentityBound.into());
        }
        self.check_statement(pool, statement, &Agreement::RecoveryKey(key))
    }

    /// Checks that the user's recovery key has registered a key. How many devices the user has does not
    /// matter: the others are removed.
    fn check_recovery(
        &self,
        pool: &PoolId,
        key: &SignatureKey,
        statement: &SignedStatement,
    ) -> Result<(), ExecuteError> {
        let known = self.shared.views().directory.recovery_key_of(pool.user());
        if known.is_none_or(|(_, known)| known != statement.by) {
            return Err(Rejection::NotTheRecoveryKey.into());
        }
        if self.speaks_for(pool, key) {
            let is_alone = self.shared.views().directory.registered_of(pool.user()).len() == 1;
            return if is_alone { Ok(()) } else { Err(Rejection::RecoveryNeedsNewKey.into()) };
        }
        self.check_new_key(pool, key)?;
        self.check_unlike(pool)?;
        self.check_statement(pool, statement, &Agreement::Recover(key))
    }

    /// Checks that a key which is to speak for a pool, or to sign its packages, is nobody's and never was.
    fn check_new_key(&self, pool: &PoolId, key: &SignatureKey) -> Result<(), ExecuteError> {
        let views = self.shared.views();
        if views.directory.is_retired(key) {
            return Err(Rejection::KeyRetired(key.clone()).into());
        }
        if !views.directory.is_free(pool, key) {
            return Err(Rejection::IdentityBound.into());
        }
        if RETIRED_MAX <= views.directory.brief(pool).identity.retired.len() {
            return Err(Rejection::TooManyKeys(RETIRED_MAX).into());
        }
        Ok(())
    }

    fn check_changes(&self, pool: &PoolId) -> Result<(), Rejection> {
        let views = self.shared.views();
        if CHANGES_MAX <= views.directory.brief(pool).identity.versions.len() {
            return Err(Rejection::TooManyKeys(CHANGES_MAX));
        }
        Ok(())
    }

    /// A name that is registered must be plain, unlike all others, and one of not too many of its user.
    fn check_new_name(&self, pool: &PoolId) -> Result<(), ExecuteError> {
        self.check_unlike(pool)?;
        let devices = self.shared.views().directory.registered_of(pool.user()).len();
        if DEVICES_MAX <= devices {
            return Err(Rejection::DevicesFull(pool.user().to_owned(), devices).into());
        }
        Ok(())
    }

    fn check_unlike(&self, pool: &PoolId) -> Result<(), ExecuteError> {
        pool.check_registrable().map_err(Rejection::from)?;
        let views = self.shared.views();
        if let Some(similar) = views.directory.similar_name(pool) {
            let name =
                if similar.eq_ignore_ascii_case(pool.user()) { pool.user() } else { pool.device() };
            return Err(Rejection::NameTaken(name.to_owned(), similar).into());
        }
        Ok(())
    }

    /// A statement must be in its time, and made on the user's device list as it is.
    fn check_statement(
        &self,
        pool: &PoolId,
        statement: &SignedStatement,
        agreement: &Agreement<'_>,
    ) -> Result<(), ExecuteError> {
        agreement.check_time(statement.until, self.look.now).map_err(Rejection::from)?;
        if self.shared.views().directory.head_of(pool.user()) != statement.head {
            return Err(Rejection::StatementStale.into());
        }
        Ok(())
    }

    /// Whether the user has had devices and has none left: then the name is not free, and nobody is left to
    /// vouch, until the operator releases it.
    fn was_removed(&self, pool: &PoolId) -> Result<bool, ExecuteError> {
        let devices: Vec<PoolId> = {
            let views = self.shared.views();
            if !views.directory.registered_of(pool.user()).is_empty() {
                return Ok(false);
            }
            views.directory.devices_of(pool.user()).cloned().collect()
        };
        for device in devices {
            let state = &self.pool_view(&device)?.state;
            if state.is_removed() && !state.is_released() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
