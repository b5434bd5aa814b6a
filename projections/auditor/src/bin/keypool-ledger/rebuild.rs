//! `replay --step` and `rebuild --check`: the effect of each event, and a comparison with another fold.

use std::{fmt::Write as _, ops::ControlFlow, path::Path};

use keypool_auditor::{
    invariants::{Auditor, InvariantParams, Standing},
    names::StreamName,
    replay::{Fold, Keep},
};
use keypool_ledger::{
    Event, EventEnvelope, GroupId, Hash, PoolId, SignatureKey, StreamId, Timestamp,
};
use keypool_projections::{GroupState, IllegalChange, PoolState, Registration};
use serde_json::json;

use crate::{
    FINE, RULE_BROKEN,
    input::{Moment, read, try_read},
    output::{Out, ToolError, time},
    replay::{is_of, refused, standing, standing_of},
    times::tell_future,
};

/// Shows each event up to a moment with its effect.
pub(crate) fn step(
    path: &Path,
    at: Option<Moment>,
    only: Option<&PoolId>,
    out: &mut Out,
) -> Result<u8, ToolError> {
    let mut fold = Fold::keeping(if only.is_some() { Keep::All } else { Keep::Live });
    let mut latest = Timestamp::default();
    try_read(path, &mut |raw, envelope| {
        latest = latest.max(envelope.at);
        let covered = at.is_none_or(|moment| moment.covers(raw.seq, envelope.at));
        if !covered || !is_of(&envelope.stream, only) {
            return Ok(());
        }
        let before = Glance::at(&fold, &envelope);
        let taken = fold.take(raw.seq, &envelope);
        let change = before.change(&Glance::at(&fold, &envelope), taken);
        let EventEnvelope { at, stream, event, .. } = &envelope;
        let name = StreamName(stream);
        out.say(
            || format!("{:>6}  {}  {name}  {}  {change}", raw.seq, time(*at), event.name()),
            || {
                json!({ "seq": raw.seq, "at": at, "stream": stream, "event": event.name(),
                        "keypackage_ref": event.keypackage_ref(), "change": change })
            },
        )
    })?;
    if let Some(Moment::Time(asked)) = at {
        tell_future(asked, latest);
    }
    refused(&fold, out)
}

/// The state that an event can change, before it or after.
#[derive(Debug, Default)]
struct Glance {
    package: Option<(String, Option<String>)>,
    key: Option<Registration>,
    /// The key of the scheme that the event is about.
    pinned: Option<SignatureKey>,
    credential: Option<Hash>,
    recovery_key: Option<SignatureKey>,
    counts: Option<Standing>,
    group: Option<(u64, Vec<String>)>,
}

impl Glance {
    fn at(fold: &Fold, envelope: &EventEnvelope) -> Self {
        match &envelope.stream {
            StreamId::Pool(pool) => {
                let state = fold.pool(pool);
                let package = envelope.event.keypackage_ref().map(|of| {
                    let found = state.and_then(|state| state.get(of));
                    (of.short(), found.map(standing_of))
                });
                let key = state.and_then(PoolState::registration).cloned();
                let counts = Some(standing(state.map(PoolState::counts).unwrap_or_default()));
                let pinned = match &envelope.event {
                    Event::LeafKeyPinned { signature_scheme, .. } => {
                        state.and_then(|state| state.pinned_key(*signature_scheme)).cloned()
                    }
                    _ => None,
                };
                let credential = state.and_then(PoolState::declared_credential);
                let recovery_key = state.and_then(|state| state.identity().recovery_key.clone());
                Self { package, key, pinned, credential, recovery_key, counts, group: None }
            }
            StreamId::Group(group) => {
                let state = fold.groups().get(group);
                let members = state.into_iter().flat_map(GroupState::members);
                let members = members.map(ToString::to_string).collect();
                let epoch = state.map(GroupState::epoch).unwrap_or_default();
                Self { group: Some((epoch, members)), ..Self::default() }
            }
            StreamId::Mailbox(_) | StreamId::Server | StreamId::Names(_) => Self::default(),
        }
    }

    /// The differences of `after`, in words.
    fn change(&self, after: &Self, taken: Result<(), IllegalChange>) -> String {
        if let Err(error) = taken {
            return format!("refused: {error}");
        }
        match (&self.package, &after.package, &self.group, &after.group) {
            (Some((of, from)), Some((_, to)), ..) => {
                let mut change = match (from, to) {
                    (None, None) => format!("{of} had ended long before"),
                    (from, to) if from == to => {
                        format!("{of} stays {}", to.as_deref().unwrap_or_default())
                    }
                    (from, to) => {
                        let name = |at: &Option<String>| at.clone().unwrap_or("new".to_owned());
                        format!("{of} {} -> {}", name(from), name(to))
                    }
                };
                if let Some(counts) = after.counts.filter(|counts| self.counts != Some(*counts)) {
                    let Standing { available, reserved, spent, expired, revoked } = counts;
                    let _ = write!(
                        change,
                        "; {available} available, {reserved} reserved, {spent} spent, {expired} \
                         expired, {revoked} revoked"
                    );
                }
                change
            }
            (_, _, Some(before), Some(after)) => group_change(before, after),
            _ if self.pinned != after.pinned => {
                "another key signs its packages of that scheme".to_owned()
            }
            _ if self.credential != after.credential && self.key == after.key => {
                "its packages carry another credential".to_owned()
            }
            _ if self.recovery_key != after.recovery_key && self.key == after.key => {
                "its user has another recovery key".to_owned()
            }
            _ => key_change(self.key.as_ref(), after.key.as_ref()).to_owned(),
        }
    }
}

fn key_change(before: Option<&Registration>, after: Option<&Registration>) -> &'static str {
    match (before, after) {
        (None, Some(_)) => "a key speaks for it now",
        (Some(_), None) => "no key speaks for it any more",
        (Some(one), Some(other)) if one != other => "another key speaks for it now",
        _ => "no pool and no group changes",
    }
}

fn group_change(before: &(u64, Vec<String>), after: &(u64, Vec<String>)) -> String {
    let joined = after.1.iter().filter(|member| !before.1.contains(member));
    let left = before.1.iter().filter(|member| !after.1.contains(member));
    let members = joined.map(|name| format!(", {name} joins"));
    let members: String = members.chain(left.map(|name| format!(", {name} leaves"))).collect();
    if before.0 == after.0 && members.is_empty() {
        return "no pool and no group changes".to_owned();
    }
    format!("epoch {} -> {}{members}", before.0, after.0)
}

/// Folds a log twice, by the product's code and by the audit's, and compares after every record.
pub(crate) fn rebuild(path: &Path, out: &mut Out) -> Result<u8, ToolError> {
    let mut fold = Fold::keeping(Keep::All);
    let mut auditor = Auditor::new(InvariantParams::STANDARD);
    let mut difference = None;
    read(path, &mut |raw, envelope| {
        let taken = fold.take(raw.seq, &envelope);
        auditor.see(raw.seq, &envelope);
        let found = match (taken, &envelope.stream) {
            (Err(error), _) => Some(format!("the fold refuses it: {error}")),
            (Ok(()), StreamId::Pool(pool)) => pools_differ(&fold, &auditor, pool),
            (Ok(()), StreamId::Group(group)) => groups_differ(&fold, &auditor, group),
            (Ok(()), StreamId::Mailbox(_) | StreamId::Server | StreamId::Names(_)) => None,
        };
        difference = found.map(|what| (raw.seq, envelope.stream, what));
        if difference.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if let Some((seq, stream, what)) = difference {
        out.say(
            || format!("broken (I6): record {seq} of {}: {what}", StreamName(&stream)),
            || json!({ "verdict": "different", "seq": seq, "stream": stream, "says": what }),
        )?;
        return Ok(RULE_BROKEN);
    }
    let (records, pools, groups) = (fold.records(), fold.pools().len(), fold.groups().len());
    out.say(
        || {
            format!("after each of {records} records both folds of {pools} pools and {groups} groups agree")
        },
        || json!({ "verdict": "same", "records": records, "pools": pools, "groups": groups }),
    )?;
    Ok(FINE)
}

fn pools_differ(fold: &Fold, auditor: &Auditor, pool: &PoolId) -> Option<String> {
    let folded = standing(fold.pool(pool).map(PoolState::counts).unwrap_or_default());
    let derived = auditor.standing(pool).unwrap_or_default();
    (folded != derived).then(|| format!("the fold counts {folded:?}, the audit {derived:?}"))
}

fn groups_differ(fold: &Fold, auditor: &Auditor, group: &GroupId) -> Option<String> {
    let state = fold.groups().get(group)?;
    let folded = (state.epoch(), state.members().collect::<Vec<_>>());
    let derived = auditor.group(group).unwrap_or_default();
    (folded != derived).then(|| format!("the fold says {folded:?}, the audit {derived:?}"))
}
