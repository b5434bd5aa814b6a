//! Facts about a request that its handler knows and its line in the log tells: who asks, about whose pool,
//! and the refused parts of it. They stand beside the request, so that a refusal has them too.

use actix_web::{HttpMessage, HttpRequest, body::MessageBody, dev::ServiceResponse};
use keypool_api::{Problem, RefusedRequest, ReserveTarget};
use keypool_ledger::{GroupId, PoolId};

use crate::{
    problem::{Failure, ReachedLimit},
    routes::route_of,
    state::State,
};

/// The routes whose refusals are recorded.
const RECORDED: [&str; 7] = [
    "/keypackages/reserve",
    "/keypackages/reserve-many",
    "/keypackages/await",
    "/keypackages/upload",
    "/keypackages/rotate",
    "/groups/{group_id}/commits",
    "/groups/{group_id}/messages",
];

/// The routes that are about the caller's own pool.
const OWN_POOL: [&str; 5] = [
    "/keypackages/upload",
    "/keypackages/rotate",
    "/keypackages/revoke",
    "/keypackages/reconcile",
    "/keypackages/policy",
];

/// How many targets of a request for many are named in its line.
const TARGETS_NAMED_MAX: usize = 3;

/// The notes of one request.
#[derive(Clone, Debug, Default)]
pub(super) struct RequestNotes {
    /// The device that asks, once it is authenticated.
    pub(super) caller: Option<PoolId>,
    /// The user, or the device written `user/device`, whose pool the request is about.
    pub(super) target: Option<String>,
    /// The users and devices that a request for many is about, for its line in the log.
    pub(super) many: Option<String>,
    /// The refused parts of it.
    refused: Vec<RefusedPart>,
}

/// A part of a request that was refused, where the others were not.
#[derive(Clone, Debug)]
struct RefusedPart {
    target: String,
    problem: Problem,
    limit: Option<ReachedLimit>,
}

/// Notes the device that asks.
pub(crate) fn note_caller(request: &HttpRequest, caller: &PoolId) {
    change(request, |notes| notes.caller = Some(caller.clone()));
}

/// Notes whose pool a request is about: a user, or a device written `user/device`.
pub(crate) fn note_target(request: &HttpRequest, user: &str, device: Option<&str>) {
    change(request, |notes| notes.target = Some(target(user, device)));
}

/// Notes the users, and the devices written `user/device`, that a request for many is about: the first few by name.
/// The names are checked.
pub(crate) fn note_targets(request: &HttpRequest, targets: &[ReserveTarget]) {
    let named = targets.iter().take(TARGETS_NAMED_MAX);
    let named: Vec<String> =
        named.map(|asked| target(&asked.user, asked.device.as_deref())).collect();
    let more = targets.len().saturating_sub(named.len());
    let more = if 0 < more { format!(" and {more} more") } else { String::new() };
    let many = named.join(", ") + &more;
    change(request, |notes| notes.many = Some(many));
}

/// Notes a part of a request that was refused: a device that is missing.
pub(crate) fn note_refused(
    request: &HttpRequest,
    (user, device): (&str, Option<&str>),
    failure: &Failure,
) {
    let target = target(user, device);
    let (problem, limit) = (failure.problem().clone(), failure.limit());
    change(request, |notes| notes.refused.push(RefusedPart { target, problem, limit }));
}

fn change(request: &HttpRequest, change: impl FnOnce(&mut RequestNotes)) {
    let mut extensions = request.extensions_mut();
    if let Some(notes) = extensions.get_mut::<RequestNotes>() {
        return change(notes);
    }
    let mut notes = RequestNotes::default();
    change(&mut notes);
    extensions.insert(notes);
}

fn target(user: &str, device: Option<&str>) -> String {
    device.map_or_else(|| user.to_owned(), |device| format!("{user}/{device}"))
}

/// The notes of the request that was answered.
pub(super) fn notes_of(response: &ServiceResponse<impl MessageBody>) -> RequestNotes {
    let request = response.request();
    let mut notes = request.extensions().get::<RequestNotes>().cloned().unwrap_or_default();
    let owns = route_of(request).is_some_and(|route| OWN_POOL.contains(&route.as_str()));
    if owns && notes.target.is_none() {
        notes.target = notes.caller.as_ref().map(ToString::to_string);
    }
    notes
}

/// Records a refusal, or the refused parts of a request, where the route is one of those that are recorded.
pub(super) fn record_refusals(
    state: &State,
    response: &ServiceResponse<impl MessageBody>,
    notes: RequestNotes,
    request_id: &str,
) {
    let request = response.request();
    let route = route_of(request).filter(|route| RECORDED.contains(&route.as_str()));
    let (Some(route), Some(record), Ok(store)) = (route, state.refusals.get(), state.store())
    else {
        return;
    };
    let RequestNotes { caller, target, refused, .. } = notes;
    let group_id = request.match_info().get("group_id").and_then(|id| GroupId::from_path(id).ok());
    let refusal = |target, problem: &Problem, limit: Option<ReachedLimit>| RefusedRequest {
        at_ms: store.pools().now().as_millis(),
        route: route.clone(),
        caller: caller.clone(),
        target,
        group_id: group_id.clone(),
        keypackage_ref: problem.keypackage_ref.clone(),
        code: problem.code.word().to_owned(),
        limit: limit.map(|limit| limit.word().to_owned()),
        retry_after_s: problem.retry_after_s,
        request_id: request_id.to_owned(),
    };
    let extensions = response.response().extensions();
    if let Some(problem) =
        extensions.get::<Box<Problem>>().filter(|_| response.status().is_client_error())
    {
        record.note(refusal(target, problem, extensions.get::<ReachedLimit>().copied()));
    }
    for RefusedPart { target, problem, limit } in &refused {
        record.note(refusal(Some(target.clone()), problem, *limit));
    }
}
