//! Pool events as text, and waiting for one of them.

use keypool_client::{PoolEvent, PoolListener};

use super::{service::Mail, support::in_a_minute};

/// The name of a pool event.
pub(crate) fn name(news: Option<PoolEvent>) -> String {
    match news {
        Some(PoolEvent::Happened(moment)) => moment.event,
        Some(PoolEvent::Low(notice)) => format!("{} {}", notice.pool_health, notice.pool.available),
        Some(PoolEvent::Empty(_)) => "empty".to_owned(),
        Some(PoolEvent::LastResortUsed(_)) => "last resort".to_owned(),
        None => "the end".to_owned(),
    }
}

/// Waits until something is told.
pub(crate) async fn hears(listener: &mut PoolListener<'_, Mail>, what: &str) {
    let heard = async {
        while let Some(news) = listener.next().await.unwrap() {
            if name(Some(news)) == what {
                return true;
            }
        }
        false
    };
    assert!(in_a_minute(heard).await, "never told: {what}");
}
