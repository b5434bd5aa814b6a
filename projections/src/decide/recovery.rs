//! The user's recovery key: set once, replaced by its own agreement, and stronger than every device.

use keypool_ledger::{Event, SignatureKey, SignedStatement};

use super::Draft;
use crate::command::{Answer, Rejection, Remover};

impl Draft<'_> {
    /// Sets the user's recovery key. Any device of the user may set the first; another one takes its place
    /// by a statement of the one before only, so that a thief with a device cannot.
    pub(super) fn set_recovery_key(
        &mut self,
        statement: &SignedStatement,
        recovery_key: &SignatureKey,
    ) -> Result<Answer, Rejection> {
        let speaks = self.pool.registration().map(|known| &known.signature_key);
        match &self.pool.identity().recovery_key {
            Some(known) if known == recovery_key => return Ok(Answer::Declared),
            Some(known) if *known != statement.by => return Err(Rejection::RecoveryKeyBound),
            None if speaks != Some(&statement.by) => return Err(Rejection::NotRegistered),
            Some(_) | None => {}
        }
        let (recovery_key, statement) = (recovery_key.clone(), statement.clone());
        self.record(Event::RecoveryKeySet { recovery_key, statement })?;
        Ok(Answer::Declared)
    }

    /// Registers a key by the word of the recovery key. A key that speaks for the device until now is
    /// removed with its packages.
    pub(super) fn recover(
        &mut self,
        statement: &SignedStatement,
        key: &SignatureKey,
        credential: &str,
    ) -> Result<Answer, Rejection> {
        match self.pool.registration() {
            Some(known) if known.signature_key == *key => {
                // The recovery that registered it is asked for again.
                let is_recovered = known.voucher.as_ref() == Some(&statement.by);
                let known = Answer::Registered { known: true };
                return if is_recovered { Ok(known) } else { Err(Rejection::RecoveryNeedsNewKey) };
            }
            Some(_) => drop(self.remove(&Remover::Key(statement.by.clone()))?),
            None => {}
        }
        let (signature_key, credential) = (key.clone(), credential.to_owned());
        let statement = Some(statement.clone());
        self.record(Event::Registered {
            signature_key,
            credential,
            voucher: None,
            statement,
            frontend: None,
        })?;
        Ok(Answer::Registered { known: false })
    }
}
