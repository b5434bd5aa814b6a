//! The knowledge of the server's time, kept in the store, and shown by the ledger's key where it is doubted.

use keypool_ledger::{Clock, Timestamp};
use keypool_transparency::TimeStatement;

use crate::{
    ClockOffset, ExchangeError, LocalStore, MlsConnection, StorageError,
    server_clock::{KnownTime, ServerClock},
};

/// The name of the record.
const TIME_RECORD: &str = "server-time";

/// Goes on with the knowledge of the server's time from before.
pub(crate) fn restore_clock(store: &LocalStore, clock: &ServerClock) -> Result<(), StorageError> {
    if let Some(known) = store.stage()?.app_record(TIME_RECORD)? {
        clock.restore(known);
    }
    Ok(())
}

impl<D> MlsConnection<D> {
    /// Asks for the server's time by the ledger's key, if it differs by so much that it is not believed
    /// otherwise, and keeps the knowledge. Returns the time.
    pub(super) async fn settle_clock(&self) -> Result<Timestamp, StorageError> {
        let clock = self.api().clock();
        if clock.is_in_doubt() {
            match self.stated_time().await {
                Ok(Some(theirs)) => clock.verify(theirs),
                Ok(None) => tracing::warn!("the server has not shown its time by its ledger's key"),
                Err(ExchangeError::Storage(error)) => return Err(error),
                Err(ExchangeError::Api(error)) => {
                    tracing::warn!(%error, "the server has not shown its time");
                }
            }
        }
        self.keep_time()?;
        Ok(clock.now())
    }

    /// Returns the offset of the device's clock that the app is to be told of, once.
    pub(super) fn tell_clock(&self) -> Result<Option<ClockOffset>, StorageError> {
        let offset = self.api().clock().tell();
        self.keep_time()?;
        Ok(offset)
    }

    /// Keeps the knowledge of the server's time.
    fn keep_time(&self) -> Result<(), StorageError> {
        let staged = self.store().stage()?;
        let (known, kept) =
            (self.api().clock().known(), staged.app_record::<KnownTime>(TIME_RECORD)?);
        if known == kept.unwrap_or_default() {
            return Ok(());
        }
        staged.put_app_record(TIME_RECORD, &known)?;
        staged.commit()
    }

    /// The server's time, if the key of its ledger has signed it for this question: the known key, or that of
    /// the first contact.
    async fn stated_time(&self) -> Result<Option<Timestamp>, ExchangeError> {
        let key = match self.known_ledger()? {
            Some(known) => known.note_key(),
            None => self.api().ledger_key().await?,
        };
        let Some(key) = key else { return Ok(None) };
        let nonce = *uuid::Uuid::new_v4().as_bytes();
        let note = self.api().ledger_time(nonce).await?;
        Ok(note.and_then(|note| TimeStatement::verify(&note, &key, nonce).ok()))
    }
}
