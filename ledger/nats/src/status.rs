//! The state of a stream that operators watch.

use async_nats::jetstream::stream::Info;

/// The state of a stream, as its leader knows it.
///
/// A node whose copy has a hole may be a follower, so also poll `/jsz?streams=true` of each node for
/// `num_deleted`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsStreamStatus {
    /// The number of the last frame, 0 if there is none.
    pub last: u64,
    /// How many frames the leader has lost. Anything but 0 is an alarm: no node may be replaced, and the leader's
    /// disk is to be looked at.
    pub lost: u64,
    /// The name of the leader; none during an election.
    pub leader: Option<String>,
    /// How many nodes have a copy that is up to date, the leader included.
    pub current_replicas: usize,
    /// How many nodes should have a copy.
    pub replicas: usize,
}

impl NatsStreamStatus {
    pub(crate) fn of(info: &Info) -> Self {
        let state = &info.state;
        let missing = state.last_sequence.saturating_sub(state.messages);
        let (leader, followers) = match &info.cluster {
            Some(cluster) => (cluster.leader.clone(), cluster.replicas.as_slice()),
            None => (None, [].as_slice()),
        };
        let current = followers.iter().filter(|peer| peer.current && !peer.offline).count();
        Self {
            last: state.last_sequence,
            lost: missing.max(state.deleted_count.unwrap_or_default()),
            leader,
            current_replicas: 1 + current,
            replicas: info.config.num_replicas,
        }
    }
}
