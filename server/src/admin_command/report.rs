//! The answers to the operator's commands as text.

use std::{fmt::Write, time::Duration};

use keypool_ledger::Timestamp;
use keypool_projections::explanation::words::{one_line, span, time};
use serde_json::Value;

/// A server that is ready.
pub(super) fn ready(answer: &Value) -> String {
    let refused = answer["refused"].as_str().map(|refused| format!("{refused}\n"));
    format!("ready\n{}", refused.unwrap_or_default())
}

/// Pools as a table, and how many were left out.
pub(super) fn pools(answer: &Value) -> String {
    let pools = answer["pools"].as_array().map(Vec::as_slice).unwrap_or_default();
    let total = answer["total"].as_u64().unwrap_or_default();
    let shown = u64::try_from(pools.len()).unwrap_or(u64::MAX);
    let mut text = table(pools);
    if shown < total {
        let _ = writeln!(text, "{} more: raise --limit", total - shown);
    }
    text
}

/// The devices of a user as a table.
pub(super) fn user(user: &str, answer: &Value) -> String {
    let devices = answer["devices"].as_array().map(Vec::as_slice).unwrap_or_default();
    let blocked = answer["blocked"].as_object().map(|_| block_line(&answer["blocked"]) + "\n");
    let blocked = blocked.unwrap_or_default();
    if devices.is_empty() {
        return format!("{blocked}{user} has no registered device\n");
    }
    blocked + &table(devices)
}

/// A device that was removed.
pub(super) fn removed(user: &str, device: &str, answer: &Value) -> String {
    format!("{user}/{device} is removed (record {} of the log)\n", answer["position"])
}

/// A name that was released.
pub(super) fn released(user: &str, answer: &Value) -> String {
    let devices = answer["devices"].as_array().map(Vec::as_slice).unwrap_or_default();
    let devices: Vec<&str> = devices.iter().filter_map(Value::as_str).collect();
    let devices = devices.join(", ");
    if answer["blocked"] == true {
        return format!(
            "{devices} removed; {user} is blocked, so nobody registers the name until `admin unblock {user}`\n"
        );
    }
    format!("the name {user} is free: {devices} removed; whoever registers it next has it\n")
}

/// A user that is erased.
pub(super) fn erased(user: &str, answer: &Value) -> String {
    let devices = match answer["devices"].as_array().map_or(0, Vec::len) {
        1 => "1 device".to_owned(),
        count => format!("{count} devices"),
    };
    let pseudonym = answer["pseudonym"].as_str().unwrap_or_default();
    format!(
        "{user} is erased: {devices} removed, and the log names the user {pseudonym} from now on; the server \
         begins anew and overwrites the name, the packages and what was delivered: `keypool-server admin ready` says \
         when it takes requests again\n"
    )
}

/// A user that is blocked.
pub(super) fn blocked(user: &str, answer: &Value) -> String {
    let position = &answer["position"];
    match answer["changed"].as_bool() {
        Some(true) => format!(
            "{user} is blocked (record {position} of the log): no request of their devices is carried out, and \
             their packages are handed to nobody\n"
        ),
        _ => format!("{user} was blocked already (record {position} of the log)\n"),
    }
}

/// A user that is not blocked any more.
pub(super) fn unblocked(user: &str, answer: &Value) -> String {
    match answer["changed"].as_bool() {
        Some(true) => format!("{user} is unblocked (record {} of the log)\n", answer["position"]),
        _ => format!("{user} was not blocked\n"),
    }
}

/// The users that are blocked, a line each.
pub(super) fn blocked_users(answer: &Value) -> String {
    let users = answer["users"].as_array().map(Vec::as_slice).unwrap_or_default();
    if users.is_empty() {
        return "no user is blocked\n".to_owned();
    }
    users.iter().map(|known| block_line(known) + "\n").collect()
}

fn block_line(known: &Value) -> String {
    let since = time(Timestamp::from_secs(known["since"].as_u64().unwrap_or_default()));
    let user = known["user"].as_str().unwrap_or_default();
    let reason = known["reason"].as_str().map(|reason| format!(": {}", one_line(reason)));
    format!(
        "{user} is blocked since {since} (record {} of the log){}",
        known["position"],
        reason.unwrap_or_default()
    )
}

/// A package that was withdrawn.
pub(super) fn revoked(answer: &Value) -> String {
    let part = |key: &str| answer[key].as_str().unwrap_or_default();
    let (of, user, device) = (part("keypackage_ref"), part("user"), part("device"));
    let how = if answer["changed"] == true { "is withdrawn" } else { "was withdrawn already" };
    format!("package {of} of {user}/{device} {how}\n")
}

/// A log that was pruned.
pub(super) fn pruned(answer: &Value) -> String {
    let (bytes, segments) = (&answer["payload_bytes"], &answer["segments"]);
    format!("{bytes} bytes of payloads have left {segments} segments of the log\n")
}

/// A backup that was made.
pub(super) fn backed_up(answer: &Value) -> String {
    let directory = answer["directory"].as_str().unwrap_or_default();
    let (position, bytes) = (&answer["position"], &answer["bytes"]);
    format!("{directory} has the log up to record {position} ({bytes} bytes), checked\n")
}

fn table(pools: &[Value]) -> String {
    let name = |pool: &Value| {
        let part = |key: &str| pool[key].as_str().unwrap_or_default().to_owned();
        format!("{}/{}", part("user"), part("device"))
    };
    let width = pools.iter().map(|pool| name(pool).len()).max().unwrap_or_default().max(6);
    // Writing to a String cannot fail.
    let mut text = format!("{:<width$}  level     available  reserved  empty in\n", "device");
    for pool in pools {
        let level = pool["level"].as_str().unwrap_or_default();
        let number = |key: &str| pool[key].as_u64().unwrap_or_default();
        let empty_in = pool["seconds_to_empty"].as_u64();
        let empty_in = empty_in.map(|secs| span(Duration::from_secs(secs)));
        let _ = writeln!(
            text,
            "{:<width$}  {level:<8}  {:>9}  {:>8}  {}",
            name(pool),
            number("available"),
            number("reserved"),
            empty_in.unwrap_or_else(|| "-".to_owned()),
        );
    }
    text
}
