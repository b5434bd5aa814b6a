//! The state of a stream that operators watch.

use async_nats::jetstream::stream::Info;
use keypool_ledger::StreamStatus;

/// Reads the state of a stream from its description by node `server`, which is the leader where nodes form no cluster.
pub(crate) fn status_of(info: &Info, server: String) -> StreamStatus {
    let state = &info.state;
    let missing = state.last_sequence.saturating_sub(state.messages);
    let (leader, followers) = match &info.cluster {
        Some(cluster) => (cluster.leader.clone(), cluster.replicas.as_slice()),
        None => (Some(server), [].as_slice()),
    };
    let leader = leader.filter(|name| !name.is_empty());
    let current = followers.iter().filter(|peer| peer.current && !peer.offline).count();
    StreamStatus {
        last: state.last_sequence,
        lost: missing.max(state.deleted_count.unwrap_or_default()),
        current_replicas: usize::from(leader.is_some()) + current,
        leader,
        replicas: info.config.num_replicas,
    }
}
