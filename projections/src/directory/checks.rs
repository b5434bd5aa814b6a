//! The checks of a change against the list before it: keys, statements, heads.

use keypool_ledger::{CredentialBytes, Hash, SignatureKey, SignedStatement};

use super::{ChainError, DeviceChange, DeviceList, ListedDevice, Origin, Verify};
use crate::statement::{Agreement, LedgerId, Statement};

/// A change, and the list that it is checked against.
pub(super) struct ChangeCheck<'a> {
    pub(super) list: &'a DeviceList,
    pub(super) change: &'a DeviceChange,
    pub(super) ledgers: &'a [LedgerId],
    pub(super) verify: Verify<'a>,
}

impl ChangeCheck<'_> {
    /// How a registration came about, and whether statements lead to it.
    pub(super) fn registration(
        &self,
        key: &SignatureKey,
        statement: Option<&SignedStatement>,
    ) -> Result<(Origin, bool), ChainError> {
        let device = self.list.devices.get(self.change.device.device());
        if device.is_some_and(|listed| listed.key.is_some()) {
            return Err(out_of_order(self.change));
        }
        self.fresh(key)?;
        let Some(statement) = statement else {
            let is_first = !self.list.begun && self.list.registered().next().is_none();
            return Ok((if is_first { Origin::First } else { Origin::Unsigned }, is_first));
        };
        if self.list.recovery_key.as_ref() == Some(&statement.by) {
            let mut heads = self.list.heads_before_removals.clone();
            heads.push(self.list.head());
            self.signed(&Agreement::Recover(key), statement, &heads)?;
            return Ok((Origin::Recovered, self.list.recovery_introduced));
        }
        let mut registered = self.list.registered().map(|(_, listed)| listed);
        let by = registered.find(|listed| listed.key.as_ref() == Some(&statement.by));
        let by = by.ok_or_else(|| self.not_the_users(statement))?;
        self.signed(&Agreement::Vouch(key), statement, &[self.list.head()])?;
        Ok((Origin::Vouched { by: statement.by.clone() }, by.introduced))
    }

    /// Whether statements lead to the key that follows.
    pub(super) fn rotation(
        &self,
        key: &SignatureKey,
        statement: Option<&SignedStatement>,
    ) -> Result<bool, ChainError> {
        let listed = self.speaking_key()?;
        self.fresh(key)?;
        // A record from before statements.
        let Some(statement) = statement else { return Ok(false) };
        self.signed_by(listed, &Agreement::Rotate(key), statement)?;
        Ok(listed.introduced)
    }

    /// Whether the declaration of a leaf key is signed: records from before statements are not.
    pub(super) fn leaf_key(
        &self,
        (scheme, key): (u16, &SignatureKey),
        statement: Option<&SignedStatement>,
    ) -> Result<bool, ChainError> {
        let listed = self.speaking_key()?;
        self.not_retired(key)?;
        let Some(statement) = statement else { return Ok(false) };
        if listed.key.as_ref() != Some(&statement.by) {
            return Err(self.not_the_users(statement));
        }
        let device = self.change.device.device();
        let rotated = self.list.head_before_rotation.iter().filter(|(of, _)| of == device);
        let heads: Vec<Hash> = rotated.map(|(_, head)| *head).chain([self.list.head()]).collect();
        self.signed(&Agreement::LeafKey(scheme, key), statement, &heads)?;
        Ok(true)
    }

    pub(super) fn credential(
        &self,
        credential: &CredentialBytes,
        statement: &SignedStatement,
    ) -> Result<(), ChainError> {
        let digest = credential.digest();
        self.signed_by(self.speaking_key()?, &Agreement::Credential(&digest), statement)
    }

    /// Whether statements lead to a recovery key.
    pub(super) fn recovery_key(
        &self,
        key: &SignatureKey,
        statement: &SignedStatement,
    ) -> Result<bool, ChainError> {
        self.fresh(key)?;
        let agreement = Agreement::RecoveryKey(key);
        let is_elsewhere = |device| device != self.change.device.device();
        if self.list.recovery_device().is_some_and(is_elsewhere) {
            return Err(out_of_order(self.change));
        }
        let Some(before) = &self.list.recovery_key else {
            let listed = self.speaking_key()?;
            self.signed_by(listed, &agreement, statement)?;
            return Ok(listed.introduced);
        };
        if *before != statement.by {
            return Err(self.not_the_users(statement));
        }
        self.signed(&agreement, statement, &[self.list.head()])?;
        Ok(self.list.recovery_introduced)
    }

    /// The device of the change, which must be registered.
    pub(super) fn speaking_key(&self) -> Result<&ListedDevice, ChainError> {
        let listed = self.list.devices.get(self.change.device.device());
        listed.filter(|listed| listed.key.is_some()).ok_or_else(|| out_of_order(self.change))
    }

    fn fresh(&self, key: &SignatureKey) -> Result<(), ChainError> {
        self.not_retired(key)?;
        if self.list.is_in_use(key) { Err(self.reused(key)) } else { Ok(()) }
    }

    fn not_retired(&self, key: &SignatureKey) -> Result<(), ChainError> {
        let is_recovery_key = self.list.recovery_key.as_ref() == Some(key);
        let is_dead = is_recovery_key || self.list.retired.contains(key);
        if is_dead { Err(self.reused(key)) } else { Ok(()) }
    }

    fn reused(&self, key: &SignatureKey) -> ChainError {
        ChainError::KeyReused { position: self.change.position, key: key.clone() }
    }

    fn signed_by(
        &self,
        listed: &ListedDevice,
        agreement: &Agreement<'_>,
        statement: &SignedStatement,
    ) -> Result<(), ChainError> {
        if listed.key.as_ref() != Some(&statement.by) {
            return Err(self.not_the_users(statement));
        }
        self.signed(agreement, statement, &[self.list.head()])
    }

    fn signed(
        &self,
        agreement: &Agreement<'_>,
        statement: &SignedStatement,
        heads: &[Hash],
    ) -> Result<(), ChainError> {
        let Self { change: DeviceChange { device, position, at, .. }, ledgers, verify, .. } = self;
        let (position, SignedStatement { by, head, until, proof }) = (*position, statement);
        if !heads.contains(head) {
            return Err(ChainError::Gap { position });
        }
        if until <= at {
            return Err(ChainError::Expired { position });
        }
        let is_for = |ledger: &LedgerId| {
            let agreement = agreement.clone();
            let bytes = Statement { ledger, subject: device, by, agreement, head, until: *until };
            verify(by, &bytes.to_bytes(), proof)
        };
        if ledgers.iter().any(is_for) { Ok(()) } else { Err(ChainError::NotSigned { position }) }
    }

    fn not_the_users(&self, statement: &SignedStatement) -> ChainError {
        ChainError::NotTheUsers { position: self.change.position, by: statement.by.clone() }
    }
}

/// The refusal of a change that does not follow from those before it.
pub(super) fn out_of_order(change: &DeviceChange) -> ChainError {
    ChainError::OutOfOrder { device: change.device.clone(), position: change.position }
}
