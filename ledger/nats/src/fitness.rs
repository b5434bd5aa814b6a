//! The demands on NATS servers and on a stream, without which they are no log.

use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, PersistenceMode, RetentionPolicy, StorageType,
};
use keypool_ledger::FRAME_BYTES_MAX;

/// The oldest version of nats-server that is used.
const VERSION_MIN: [u64; 3] = [2, 15, 1];
/// The size of messages that a server must take, in bytes.
const PAYLOAD_MIN: usize = 2 * FRAME_BYTES_MAX;

/// The name under which a stream notes the key of its ledger.
const LEDGER: &str = "keypool-ledger";

/// The configuration with which a stream is created.
pub(crate) fn config(
    (name, subject): (&str, &str),
    replicas: usize,
    ledger: Option<&str>,
) -> Config {
    Config {
        name: name.to_owned(),
        subjects: vec![subject.to_owned()],
        description: Some("the log of keypool; never delete or purge it".to_owned()),
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        num_replicas: replicas,
        discard: DiscardPolicy::New,
        deny_delete: true,
        deny_purge: true,
        allow_direct: true,
        max_messages: -1,
        max_bytes: -1,
        max_messages_per_subject: -1,
        max_message_size: -1,
        max_consumers: -1,
        metadata: ledger.map(|key| (LEDGER.to_owned(), key.to_owned())).into_iter().collect(),
        ..Config::default()
    }
}

/// Checks the version and the message size of a server.
pub(crate) fn check_server(version: &str, max_payload: usize) -> Result<(), String> {
    if !is_recent(version) {
        let [major, minor, patch] = VERSION_MIN;
        return Err(format!(
            "the NATS server has version {version:?}, and {major}.{minor}.{patch} is the oldest whose acknowledgements \
             can be trusted: update nats-server"
        ));
    }
    if max_payload < PAYLOAD_MIN {
        return Err(format!(
            "the NATS server takes messages of {max_payload} bytes, and the log needs {PAYLOAD_MIN}: set \
             `max_payload: 8MB` in the configuration of all NATS servers"
        ));
    }
    Ok(())
}

/// Whether a version is not older than [`VERSION_MIN`]. A preview is older than its release.
fn is_recent(version: &str) -> bool {
    let (numbers, preview) = version.split_once('-').map_or((version, false), |(n, _)| (n, true));
    let parts: Option<Vec<u64>> = numbers.split('.').map(|part| part.parse().ok()).collect();
    let Some(&[major, minor, patch]) = parts.as_deref() else { return false };
    let found = [major, minor, patch];
    VERSION_MIN < found || (VERSION_MIN == found && !preview)
}

/// Checks that a stream keeps every message, on enough disks.
pub(crate) fn check_stream(info: &Info, wanted: &Config) -> Result<(), String> {
    let (found, state) = (&info.config, &info.state);
    let name = &found.name;
    let mut faults = faults_of(found, wanted);
    if !faults.is_empty() {
        faults.push(format!(
            "repair it with `nats stream edit {name}`, or use another name for the cluster"
        ));
        return Err(format!("the stream {name} is not fit for a log: {}", faults.join("; ")));
    }
    let ledgers = found.metadata.get(LEDGER).zip(wanted.metadata.get(LEDGER));
    if let Some((noted, own)) = ledgers.filter(|(noted, own)| noted != own) {
        return Err(format!(
            "the stream {name} is of the ledger {noted}, and this server's is {own}: begin with a backup of a server of \
             that cluster, or use another name for the cluster"
        ));
    }
    let deleted = state.deleted_count.unwrap_or_default();
    if deleted != 0 || state.messages != state.last_sequence {
        let leader = info.cluster.as_ref().and_then(|cluster| cluster.leader.as_deref());
        return Err(format!(
            "the stream {name} has lost {} of its {} messages on {}, which leads it: have another node lead (`nats \
             stream cluster step-down {name}`), then empty the store of this one and look at its disk; if all nodes \
             have lost some, publish the journal of a keypool-server into a stream with another name",
            state.last_sequence.saturating_sub(state.messages),
            state.last_sequence,
            leader.unwrap_or("the node")
        ));
    }
    Ok(())
}

/// The settings of a stream that a log cannot have.
fn faults_of(found: &Config, wanted: &Config) -> Vec<String> {
    let is_limited = |limit: i64| 0 < limit;
    let limits = [
        ("max_msgs", is_limited(found.max_messages)),
        ("max_bytes", is_limited(found.max_bytes)),
        ("max_msgs_per_subject", is_limited(found.max_messages_per_subject)),
        ("max_msg_size", is_limited(found.max_message_size.into())),
        ("max_age", !found.max_age.is_zero()),
    ];
    let limits = limits.iter().filter(|(_, is_set)| *is_set);
    let mut faults: Vec<String> =
        limits.map(|(limit, _)| format!("its limit {limit} is set")).collect();
    if found.num_replicas < wanted.num_replicas {
        let (found, wanted) = (found.num_replicas, wanted.num_replicas);
        faults.push(format!("it has {found} replicas instead of {wanted}"));
    }
    if found.subjects != wanted.subjects {
        let (found, wanted) = (found.subjects.join(", "), wanted.subjects.join(", "));
        faults.push(format!("it takes the subjects {found:?} instead of {wanted:?}"));
    }
    let demands = [
        (found.sealed, "it is sealed"),
        (found.no_ack, "it does not acknowledge"),
        (!found.deny_delete, "messages can be deleted from it (deny_delete)"),
        (!found.deny_purge, "it can be purged (deny_purge)"),
        (found.allow_rollup, "messages can replace others (allow_rollup_hdrs)"),
        (found.allow_message_ttl, "messages can expire (allow_msg_ttl)"),
        (found.allow_atomic_publish, "it takes atomic batches (allow_atomic)"),
        (found.storage != StorageType::File, "it is not stored in files"),
        (found.retention != RetentionPolicy::Limits, "it forgets messages that were read"),
        (found.discard != DiscardPolicy::New, "it discards old messages"),
        (found.mirror.is_some() || found.sources.is_some(), "it copies other streams"),
        (found.subject_transform.is_some(), "it renames subjects"),
        (found.first_sequence.is_some_and(|first| 1 < first), "it does not begin at message 1"),
        (
            found.persist_mode == Some(PersistenceMode::Async),
            "it acknowledges before it writes (persist_mode)",
        ),
    ];
    let broken = demands.iter().filter(|(is_broken, _)| *is_broken);
    faults.extend(broken.map(|(_, fault)| (*fault).to_owned()));
    faults
}

#[cfg(test)]
mod tests {
    use super::check_server;

    #[test]
    fn servers_that_are_old_or_take_small_messages_are_refused() {
        for (version, is_fit) in [
            ("2.15.1", true),
            ("2.15.10", true),
            ("2.16.0-RC.1", true),
            ("3.0.0", true),
            ("2.15.1-RC.2", false),
            ("2.15.0", false),
            ("2.9.10", false),
            ("1.99.99", false),
            ("2.15", false),
            ("", false),
            ("latest", false),
        ] {
            let checked = check_server(version, 8 << 20);
            assert_eq!(checked.is_ok(), is_fit, "{version}: {checked:?}");
        }
        let refused = check_server("2.15.1", 1 << 20).unwrap_err();
        assert!(refused.contains("set `max_payload: 8MB`"), "{refused}");
        let refused = check_server("2.9.10", 8 << 20).unwrap_err();
        assert!(refused.contains("update nats-server"), "{refused}");
    }
}
