//! The record of refusals: lines of JSON that the server keeps beside its log, a file for each day.

use std::time::Duration;

use keypool_ledger::{GroupId, KeyPackageRef, PoolId, Timestamp};
use keypool_projections::explanation::words::time;
use serde::{Deserialize, Serialize};

/// The folder of the record in a server's data directory. A file is named by its day in UTC, as in
/// `2027-01-15.jsonl`.
pub const REFUSALS_DIR: &str = "refusals";

/// A line of the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalLine {
    /// A refused request, or a refused part of one.
    Refused(RefusedRequest),
    /// Refusals that were counted, because their caller had too many in that hour.
    Counted(CountedRefusals),
}

/// A refused request, or a refused part of one: a device that is missing from a reservation for many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRequest {
    /// When it was refused, in Unix milliseconds.
    pub at_ms: u64,
    /// The route, as in `/keypackages/reserve`.
    pub route: String,
    /// The device that asked; `None` if the request was not authenticated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<PoolId>,
    /// The user, or the device written `user/device`, whose pool the request was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The group that the request was posted to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_id: Option<GroupId>,
    /// The package that the refusal is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keypackage_ref: Option<KeyPackageRef>,
    /// The word of the error code; a later server may have others than this version knows.
    pub code: String,
    /// The limit that was reached: the word of a quota, or `strangers_floor`, `contacts_only`, `blocked`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// After how many seconds the same request may succeed, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
    /// The id of the request, as in `X-Request-Id`.
    pub request_id: String,
}

/// Refusals of an hour that were counted and not kept one by one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountedRefusals {
    /// The device that asked; `None` for requests that were not authenticated, and for callers beyond the
    /// number that are told apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<PoolId>,
    /// The beginning of the hour, in Unix milliseconds.
    pub from_ms: u64,
    /// How many there were at least: the largest number of an hour counts.
    pub count: u64,
}

impl RefusedRequest {
    /// The refusal in a sentence, in small letters and without a full stop: `at … alice/main asked … and was answered …`.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Self { at_ms, route, target, code, limit, request_id, .. } = self;
        let at = Timestamp::from_millis(*at_ms);
        let caller = self.caller.as_ref().map(ToString::to_string).unwrap_or_default();
        let limit =
            limit.as_ref().map(|limit| format!(" by the limit {limit}")).unwrap_or_default();
        let wait = self.retry_after_s.map(Duration::from_secs);
        let until =
            wait.map(|wait| format!(", until {}", time(at.after(wait)))).unwrap_or_default();
        let package = self.keypackage_ref.as_ref().map(|of| format!("package {}", of.short()));
        let about = target.clone().or(package).unwrap_or_default();
        format!(
            "at {} {caller} asked {route} about {about} and was answered {code}{limit}{until} (request \
             {request_id})",
            time(at)
        )
    }
}

/// Reads the file of a day: the lines in order, and how many cannot be read.
#[must_use]
pub fn read_refusals(bytes: &[u8]) -> (Vec<RefusalLine>, u64) {
    let (mut lines, mut unreadable) = (Vec::new(), 0_u64);
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(line) => lines.push(line),
            Err(_) => unreadable = unreadable.saturating_add(1),
        }
    }
    (lines, unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_lines_are_counted_and_the_others_are_read() {
        let counted = CountedRefusals { caller: None, from_ms: 3_600_000, count: 512 };
        let good = serde_json::to_string(&RefusalLine::Counted(counted.clone())).unwrap();
        let bytes = [good.as_bytes(), b"\n\xff\xfe\n{\"refused\":{\n", good.as_bytes()].concat();
        let (lines, unreadable) = read_refusals(&bytes);
        assert_eq!((lines.len(), unreadable), (2, 2));
        assert_eq!(lines[0], RefusalLine::Counted(counted));
        assert_eq!(read_refusals(b""), (Vec::new(), 0));
    }
}
