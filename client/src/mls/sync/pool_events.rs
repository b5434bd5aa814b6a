//! Events of the device's pool, mirrored as the server streams them.

use keypool_api::{LastResortNotice, LevelNotice};
use keypool_projections::{TimelineEntry, timeline};

use super::{checkpoints::note_spent, mirror::apply_event};
use crate::{
    ApiError, ExchangeError, MlsConnection, StorageError,
    api::stream::{EventStream, StreamEvent},
    storage::kept_form,
};

/// An event of the device's pool.
#[derive(Clone, Debug, PartialEq)]
pub enum PoolEvent {
    /// An event of its history, which is in the mirror now.
    Happened(TimelineEntry),
    /// The pool is low, or critical: refresh it.
    Low(LevelNotice),
    /// Nothing is left: refresh it.
    Empty(LevelNotice),
    /// Its last-resort package was given out.
    LastResortUsed(LastResortNotice),
}

/// The open event stream of the device's pool, read by [`PoolListener::next`]. Dropping it
/// ends that.
#[derive(Debug)]
pub struct PoolListener<'a, D> {
    connection: &'a MlsConnection<D>,
    stream: EventStream,
    /// The number of its line.
    line: u64,
}

impl<D> Drop for PoolListener<'_, D> {
    fn drop(&mut self) {
        self.connection.subscription().close(self.line);
    }
}

impl<D> MlsConnection<D> {
    /// Opens the event stream of the device's pool, from the end of the mirror on.
    ///
    /// It replaces no refresh: that also cleans up, refills, and holds the server to its earlier
    /// statements. It tells when one is worth it, and a refresh meanwhile asks the server only if there is
    /// a need to: see [`MlsConnection::is_subscribed`].
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`].
    pub async fn listen(&self) -> Result<PoolListener<'_, D>, ApiError> {
        let known = self.store().mirror_head().version;
        // The last known event is told once more: a server that was set back tells another.
        let stream = self.api().stream(known.saturating_sub(1)).await?;
        let line = self.subscription().open(self.api().now());
        Ok(PoolListener { connection: self, stream, line })
    }
}

impl<D> PoolListener<'_, D> {
    /// Returns the next event; `None` when the server ends the stream: listen again after a pause.
    /// Cancelling it loses nothing.
    ///
    /// # Errors
    ///
    /// Returns an [`ExchangeError`]; it holds [`StorageError::MirrorRefused`] if the
    /// server tells another history than before, or one that no pool can have.
    pub async fn next(&mut self) -> Result<Option<PoolEvent>, ExchangeError> {
        let news = self.listen().await;
        if !matches!(news, Ok(Some(_))) {
            self.connection.subscription().close(self.line);
        }
        news
    }

    async fn listen(&mut self) -> Result<Option<PoolEvent>, ExchangeError> {
        let connection = self.connection;
        while let Some(told) = self.stream.next().await? {
            let news = match told {
                StreamEvent::Event(view) => {
                    let record = kept_form(view.envelope.0, &view.event)?;
                    self.mirror_event(record)?.map(PoolEvent::Happened)
                }
                StreamEvent::Low(notice) => Some(PoolEvent::Low(notice)),
                StreamEvent::Empty(notice) => Some(PoolEvent::Empty(notice)),
                StreamEvent::LastResortUsed(notice) => Some(PoolEvent::LastResortUsed(notice)),
                StreamEvent::Alive => None,
            };
            connection.subscription().hear(self.line, connection.api().now());
            if !matches!(news, None | Some(PoolEvent::Happened(_))) {
                connection.subscription().alarm();
            }
            if news.is_some() {
                return Ok(news);
            }
        }
        Ok(None)
    }

    /// Mirrors an event, and applies it to the own package; `None` if it was mirrored before.
    fn mirror_event(&self, record: Vec<u8>) -> Result<Option<TimelineEntry>, StorageError> {
        let (connection, now) = (self.connection, self.connection.api().now());
        let records = [record];
        let staged = connection.store().stage()?;
        let new = match staged.extend_mirror(&records) {
            Ok(new) => new,
            Err(error) => {
                drop(staged);
                return Err(connection.note_refusal(error, Some(&records), now)?);
            }
        };
        for envelope in &new {
            apply_event(&staged, envelope, now)?;
        }
        note_spent(&staged, &new, now)?;
        staged.commit()?;
        Ok(timeline(&new, None).pop())
    }
}
