//! The delivery over HTTP: Commits, messages, and each device's mailbox.

use std::time::Duration;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, Path},
};
use keypool_api::{
    AcknowledgeReply, AcknowledgeRequest, AnswerItem, Base64, Code, CommitReply, CommitRequest,
    FailedWelcome, GroupReply, GroupRequest, MailboxItem, MailboxKind, MailboxReply, MessageReply,
    MessageRequest, NotKept,
};
use keypool_ledger::{Event, GroupId, PoolId, Record, StreamId};
use keypool_projections::{Acknowledgement, Claim, Closed};
use serde::Deserialize;

use crate::{
    admission::{Framed, check_framing, check_public_changes, welcomed},
    authentication::{AuthenticatedRead, AuthenticatedWrite},
    keypackage_store::Idempotency,
    pools::{Delivered, DeliveryCommand, DeliveryRequest, ExecuteError, Welcome},
    problem::Failure,
    routes::keypackages::query,
    state::State,
};

/// How many items of a mailbox are given out at once, unless fewer are asked for.
const ITEMS_MAX: u16 = 100;
/// How many bytes of a mailbox are given out at once, but for the first item.
const BYTES_MAX: u64 = 1024 * 1024;
/// How many devices a Commit says that it removes: as many as a group has members.
const REMOVED_MAX: usize = 2000;
/// How many groups one acknowledgement names.
const GROUPS_NAMED_MAX: usize = 1024;
/// How long a device may wait for something to come, in seconds.
const WAIT_MAX_S: u64 = 30;

/// Makes a group: the caller is its first member, in epoch 0.
#[utoipa::path(
    post, path = "/groups", tag = "delivery",
    request_body = GroupRequest,
    responses((status = 201, description = "The group is made", body = GroupReply)),
)]
pub(crate) async fn make(
    state: Data<State>,
    caller: AuthenticatedWrite,
) -> Result<HttpResponse, Failure> {
    let GroupRequest { group_id: group } = caller.body.json()?;
    let command = DeliveryCommand::Make { group };
    let delivered = state.store()?.deliver(request(&caller, command)).await?;
    Ok(HttpResponse::Created().json(GroupReply { position: delivered.position }))
}

/// Ends the caller's membership in the delivery of a group: nothing of it reaches the device any more, and
/// waiting items are dropped. A device that is no member is answered alike.
///
/// The other members see it in MLS only when one of them commits the removal.
#[utoipa::path(
    post, path = "/groups/{group_id}/leave", tag = "delivery",
    params(("group_id" = String, Path, description = "The group's id, base64url without padding")),
    responses((status = 200, description = "The device is no member", body = GroupReply)),
)]
pub(crate) async fn leave(
    state: Data<State>,
    group: Path<String>,
    caller: AuthenticatedWrite,
) -> Result<HttpResponse, Failure> {
    let command = DeliveryCommand::Leave { group: GroupId::from_path(&group)? };
    let delivered = state.store()?.deliver(request(&caller, command)).await?;
    Ok(HttpResponse::Ok().json(GroupReply { position: delivered.position }))
}

/// Accepts a Commit, with its Welcomes and the spending of its packages: all of it or nothing.
///
/// The first Commit for an epoch wins. It is an MLSMessage of the group and the epoch. The Welcomes go out
/// with it, to exactly the owners of the packages, who have seven days to accept the group. The answer names
/// the members whose mailboxes had no room for it.
#[utoipa::path(
    post, path = "/groups/{group_id}/commits", tag = "delivery",
    params(("group_id" = String, Path, description = "The group's id, base64url without padding")),
    request_body = CommitRequest,
    responses(
        (status = 200, description = "It is the group's Commit for this epoch", body = CommitReply),
    ),
)]
pub(crate) async fn commit(
    state: Data<State>,
    group: Path<String>,
    caller: AuthenticatedWrite,
) -> Result<HttpResponse, Failure> {
    let group = GroupId::from_path(&group)?;
    let asked: CommitRequest = caller.body.json()?;
    let read = |Base64(bytes): Base64| {
        let not_one = || Failure::new(Code::BadRequest, "one of the welcomes is no Welcome");
        Ok(Welcome { keypackage_refs: welcomed(&bytes).ok_or_else(not_one)?, bytes })
    };
    let welcomes: Result<Vec<Welcome>, Failure> = asked.welcomes.into_iter().map(read).collect();
    check_framing(&asked.commit.0, &group, Framed::Commit(asked.epoch))?;
    let is_spent = |added: &_| asked.spend.iter().any(|claim| claim.keypackage_ref == *added);
    check_public_changes(&asked.commit.0, is_spent, asked.removed.len())?;
    if REMOVED_MAX < asked.removed.len() {
        let detail = format!("one Commit names {REMOVED_MAX} removed devices at most");
        return Err(Failure::new(Code::BadRequest, detail));
    }
    let (holder, spent) = (&caller.pool, asked.spend.len() as u64);
    let spends = asked.spend.into_iter().map(|claim| Claim {
        keypackage_ref: claim.keypackage_ref,
        reservation: claim.reservation_id,
        holder: holder.clone(),
    });
    let command = DeliveryCommand::Commit {
        group,
        epoch: asked.epoch,
        commit: asked.commit.0,
        welcomes: welcomes?,
        spends: spends.collect(),
        removed: asked.removed,
    };
    let delivered = state.store()?.deliver(request(&caller, command)).await;
    let delivered = delivered.map_err(Failure::from).inspect_err(|failure| {
        if failure.code() == Code::ReservationLost {
            state.metrics.conflict();
        }
    })?;
    let Delivered { epoch, position, not_kept, repeated } = delivered;
    state.metrics.spent_in_commit(if repeated { 0 } else { spent });
    Ok(HttpResponse::Ok().json(CommitReply { epoch, position, not_kept }))
}

/// Passes a message on to the other members' devices: application data or a proposal, as an MLSMessage of
/// the group. The answer names the members whose mailboxes had no room for it.
#[utoipa::path(
    post, path = "/groups/{group_id}/messages", tag = "delivery",
    params(("group_id" = String, Path, description = "The group's id, base64url without padding")),
    request_body = MessageRequest,
    responses((status = 200, description = "It waits for every other member", body = MessageReply)),
)]
pub(crate) async fn message(
    state: Data<State>,
    group: Path<String>,
    caller: AuthenticatedWrite,
) -> Result<HttpResponse, Failure> {
    let group = GroupId::from_path(&group)?;
    let MessageRequest { message } = caller.body.json()?;
    check_framing(&message.0, &group, Framed::Message)?;
    let command = DeliveryCommand::Post { group, message: message.0 };
    let delivered = state.store()?.deliver(request(&caller, command)).await?;
    let Delivered { position, not_kept, .. } = delivered;
    Ok(HttpResponse::Ok().json(MessageReply { position, not_kept }))
}

/// The part of a mailbox that is asked for.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    /// After this position; from the first waiting item if it is left out.
    after: Option<u64>,
    /// How many items at most.
    limit: Option<u16>,
    /// How many seconds to wait for something to come.
    wait: Option<u64>,
}

/// Lists the items that wait for the caller's device, in order. They wait until they are acknowledged.
#[utoipa::path(
    get, path = "/mailbox", tag = "delivery",
    params(
        ("after" = Option<u64>, Query, description = "Only what comes after this position"),
        ("limit" = Option<u16>, Query, description = "How many items, 100 at most"),
        ("wait" = Option<u64>, Query, description = "How many seconds to wait for something to come, 30 at most"),
    ),
    responses((status = 200, description = "What waits, in order", body = MailboxReply)),
)]
pub(crate) async fn mailbox(
    request: HttpRequest,
    state: Data<State>,
    caller: AuthenticatedRead,
) -> Result<HttpResponse, Failure> {
    let which: Which = query(&request)?;
    let pools = state.store()?.pools();
    let (mut news, mut stopping) = (pools.listen(&caller.pool), state.stopping.subscribe());
    let wait = Duration::from_secs(which.wait.unwrap_or_default().min(WAIT_MAX_S));
    let deadline = actix_rt::time::sleep(wait);
    tokio::pin!(deadline);
    let mut place = None;
    loop {
        news.mark_unchanged();
        caller.still_speaks(&state)?;
        let reply = read_waiting(&state, &caller.pool, which).await?;
        let is_empty =
            reply.items.is_empty() && reply.not_kept.is_empty() && reply.available.is_empty();
        if !is_empty || wait.is_zero() {
            return Ok(HttpResponse::Ok().json(reply));
        }
        let place = match &mut place {
            Some(place) => place,
            None => place.insert(state.polls.enter(&caller.pool).ok_or_else(too_many_polls)?),
        };
        tokio::select! {
            () = &mut deadline => return Ok(HttpResponse::Ok().json(reply)),
            // Nothing more comes: a server that stops keeps nobody waiting, and waits for nobody.
            _ = stopping.wait_for(|stopping| *stopping) => {
                return Ok(HttpResponse::Ok().json(reply));
            }
            () = place.displaced() => return Err(too_many_polls()),
            changed = news.changed() => {
                if changed.is_err() {
                    return Err(Failure::new(Code::NotReady, "the server is stopping"));
                }
            }
        }
    }
}

fn too_many_polls() -> Failure {
    Failure::new(Code::Busy, "too many requests wait for something to come into this mailbox")
}

/// Reads the waiting items, off the worker where there are any.
async fn read_waiting(
    state: &Data<State>,
    device: &PoolId,
    which: Which,
) -> Result<MailboxReply, Failure> {
    let mailbox = state.store()?.pools().mailbox(device);
    if mailbox.after(which.after.unwrap_or_default()).next().is_none() {
        return waiting(state, device, &which);
    }
    let (state, device) = (state.clone(), device.clone());
    let read = web::block(move || waiting(&state, &device, &which)).await;
    read.map_err(|_| Failure::new(Code::NotReady, "the server is stopping"))?
}

/// The waiting items. An overrun is reported once everything that was kept has been given out.
fn waiting(state: &State, device: &PoolId, which: &Which) -> Result<MailboxReply, Failure> {
    let pools = state.store()?.pools();
    let mailbox = pools.mailbox(device);
    let limit = which.limit.unwrap_or(ITEMS_MAX).clamp(1, ITEMS_MAX);
    let mut found = mailbox.after(which.after.unwrap_or_default()).peekable();
    let (mut items, mut bytes) = (Vec::new(), 0);
    while let Some(waiting) = found.peek().filter(|waiting| {
        let room = bytes + waiting.bytes <= BYTES_MAX || items.is_empty();
        room && items.len() < usize::from(limit)
    }) {
        bytes += waiting.bytes;
        items.extend(pools.record(waiting.position).map_err(ExecuteError::from)?.and_then(item));
        found.next();
    }
    let more = found.peek().is_some();
    if items.is_empty() && !more && mailbox.is_overrun() {
        let through = mailbox.after(0).last().map_or(mailbox.acknowledged(), |last| last.position);
        let detail = format!("what came after position {through} was not kept");
        return Err(Failure::new(Code::MailboxOverrun, detail));
    }
    let closed = mailbox.closed().filter(|_| !more);
    let not_kept = closed.map(|Closed { group, sender }| NotKept { group_id: group, sender });
    Ok(MailboxReply {
        items,
        more,
        not_kept: not_kept.collect(),
        available: mailbox.available().cloned().collect(),
        acknowledged: mailbox.acknowledged(),
        last_posted: mailbox.last_posted(),
    })
}

fn item(record: Record) -> Option<MailboxItem> {
    let StreamId::Group(group_id) = record.envelope.stream else { return None };
    let (mut added, mut removed, mut answer) = (Vec::new(), Vec::new(), None);
    let (kind, sender) = match record.envelope.event {
        Event::Committed { committer, added: new, removed: gone, .. } => {
            (added, removed) = (new, gone);
            (MailboxKind::Commit, Some(committer))
        }
        Event::Welcomed { .. } => (MailboxKind::Welcome, None),
        Event::Posted { sender, .. } => (MailboxKind::Message, Some(sender)),
        Event::InvitationAnswered { device, answer: told, .. } => {
            answer = Some(AnswerItem::from(told));
            (MailboxKind::Answer, Some(device))
        }
        _ => return None,
    };
    let (position, at_ms) = (record.seq, record.envelope.at.as_millis());
    let bytes = Base64(record.payload);
    Some(MailboxItem { position, at_ms, kind, group_id, sender, bytes, added, removed, answer })
}

/// Drops the items up to a position: the device has stored them. Accepts the groups that the device has
/// joined, ends its membership in those that it could not join, and tells their inviters. Notes that the
/// device was told of the messages that were not kept, and of awaited devices that are available.
#[utoipa::path(
    post, path = "/mailbox/acknowledge", tag = "delivery",
    request_body = AcknowledgeRequest,
    responses((status = 200, description = "It is forgotten", body = AcknowledgeReply)),
)]
pub(crate) async fn acknowledge(
    state: Data<State>,
    caller: AuthenticatedWrite,
) -> Result<HttpResponse, Failure> {
    let AcknowledgeRequest { through, overrun, accepted, failed, told, available } =
        caller.body.json()?;
    let named = [accepted.len(), failed.len(), told.len(), available.len()];
    if named.into_iter().any(|count| GROUPS_NAMED_MAX < count) {
        let detail =
            format!("one request names {GROUPS_NAMED_MAX} groups at most, and as many devices");
        return Err(Failure::new(Code::BadRequest, detail));
    }
    if let Some(both) = failed.iter().find(|failed| accepted.contains(&failed.group_id)) {
        let detail = format!("group {} is named as accepted and as failed", both.group_id);
        return Err(Failure::new(Code::BadRequest, detail));
    }
    let pools = state.store()?.pools();
    let failed = failed.into_iter().map(|FailedWelcome { group_id, reason }| (group_id, reason));
    let failed = failed.collect();
    let acknowledgement = Acknowledgement { through, overrun, accepted, failed, told, available };
    pools.deliver(request(&caller, DeliveryCommand::Acknowledge(acknowledgement))).await?;
    let waiting = pools.mailbox(&caller.pool).len() as u64;
    Ok(HttpResponse::Ok().json(AcknowledgeReply { waiting }))
}

fn request(caller: &AuthenticatedWrite, command: DeliveryCommand) -> DeliveryRequest {
    let Idempotency { key, digest } = caller.idempotency;
    DeliveryRequest { command, caller: caller.pool.clone(), id: key, digest }
}
