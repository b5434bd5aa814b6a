//! The events that the server posts to the app's backend, which wakes phones by APNs, FCM or UnifiedPush.

use keypool_ledger::GroupId;
use serde::{Deserialize, Serialize};

/// The body of a webhook request: events, in the order of the log.
///
/// It arrives at least once: a receiver tells repeated events by their `id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookBatch {
    /// The events, 100 at most.
    pub events: Vec<WebhookEvent>,
}

/// A reason to wake a device. It holds no bytes of packages or messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookEvent {
    /// The name of the event, the same each time that it is sent.
    pub id: String,
    /// The kind.
    pub kind: WebhookKind,
    /// The user.
    pub user: String,
    /// The device, by its name among the user's devices.
    pub device: String,
    /// The position of the log at which it was found: it never falls for one device.
    pub position: u64,
    /// The time of its cause, in milliseconds since 1970.
    pub at_ms: u64,
    /// The group of an invitation; left out for every other kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_id: Option<GroupId>,
}

/// The kind of a webhook event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WebhookKind {
    /// Something waits in the device's mailbox, and the device is away.
    Mailbox,
    /// The device's pool has few packages left.
    Low,
    /// The device's pool has no packages left.
    Empty,
    /// Somebody added the device to a group: a Welcome waits in its mailbox.
    Invitation,
}

impl WebhookKind {
    /// The kind as it stands in JSON and in ids.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Mailbox => "mailbox",
            Self::Low => "low",
            Self::Empty => "empty",
            Self::Invitation => "invitation",
        }
    }
}
