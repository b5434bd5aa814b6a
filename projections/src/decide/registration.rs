//! Registration: the first key of a pool.

use keypool_ledger::{Event, SignatureKey, SignedStatement};

use super::Draft;
use crate::command::{Answer, Rejection};

impl Draft<'_> {
    /// Registers a key for the pool, if no other key is registered for it. Records the statement of the device
    /// that vouched, and the key of the frontend that asked, where there are any.
    pub(super) fn register(
        &mut self,
        key: &SignatureKey,
        credential: &str,
        statement: Option<&SignedStatement>,
        frontend: Option<&SignatureKey>,
    ) -> Result<Answer, Rejection> {
        match self.pool.registration() {
            Some(known) if known.signature_key == *key => Ok(Answer::Registered { known: true }),
            Some(_) => Err(Rejection::IdentityBound),
            None => {
                self.record(Event::Registered {
                    signature_key: key.clone(),
                    credential: credential.to_owned(),
                    voucher: statement.map(|statement| statement.by.clone()),
                    statement: statement.cloned(),
                    frontend: frontend.cloned(),
                })?;
                Ok(Answer::Registered { known: false })
            }
        }
    }
}
