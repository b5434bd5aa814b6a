//! One package for each device of many users, in one request.

use std::collections::BTreeSet;

use actix_web::{HttpRequest, HttpResponse, web::Data};
use keypool_api::{
    Code, DeviceReservation, MissingDevice, ReserveManyReply, ReserveManyRequest, ReserveTarget,
};
use keypool_ledger::PoolId;

use super::{reply, required};
use crate::{
    authentication::AuthenticatedWrite,
    keypackage_store::{ManyReservations, ReservationTarget, ReservedKeyPackage},
    problem::Failure,
    request_log::{note_refused, note_targets},
    routes::policy::is_introduced,
    state::State,
};

/// Sets one package of each device of each target aside for the caller, whose own device is left out.
///
/// Devices without a package to hand out are named in `missing`, with the code that reserving it alone
/// would be refused with. A request that is repeated, also one that was cut off in the middle, reserves
/// the packages that are not reserved yet, and tells the others as they were.
#[utoipa::path(
    post, path = "/keypackages/reserve-many", tag = "keypackages",
    request_body = ReserveManyRequest,
    responses(
        (status = 200, description = "The packages, and who has none", body = ReserveManyReply),
    ),
)]
pub(crate) async fn reserve_many(
    request: HttpRequest,
    state: Data<State>,
    caller: AuthenticatedWrite,
) -> Result<HttpResponse, Failure> {
    let asked: ReserveManyRequest = caller.body.json()?;
    if asked.targets.is_empty() || state.targets_max < asked.targets.len() {
        let (count, targets_max) = (asked.targets.len(), state.targets_max);
        let detail = format!("the request names {count} targets; it may name 1 to {targets_max}");
        return Err(Failure::new(Code::BadRequest, detail));
    }
    let invitees = invitees(&asked.targets)?;
    note_targets(&request, &asked.targets);
    let introduced = introduced(&state, &asked.targets)?;
    let reservations = ManyReservations {
        invitees,
        holder: caller.pool,
        group: asked.group_id,
        id: asked.reservation_id,
        ciphersuites: asked.ciphersuites,
        required: required(asked.required)?,
        devices_max: state.target_devices_max,
        introduced,
    };
    let outcome = state.store()?.reserve_many(reservations, caller.idempotency).await?;
    state.metrics.reserved(outcome.reserved.len() as u64);
    let mut missing = Vec::with_capacity(outcome.missing.len());
    for (invitee, why) in outcome.missing {
        let why = Failure::from(why);
        state.metrics.missing(why.code().word());
        if let Some(quota) = why.quota() {
            state.metrics.over_quota(quota);
        }
        let missed = missing_device(invitee, &why);
        note_refused(&request, (&missed.user, missed.device.as_deref()), &why);
        missing.push(missed);
    }
    let device = |reserved: ReservedKeyPackage| DeviceReservation {
        user: reserved.pool.user().to_owned(),
        reservation: reply(reserved),
    };
    let reservations = outcome.reserved.into_iter().map(device).collect();
    Ok(HttpResponse::Ok().json(ReserveManyReply { reservations, missing }))
}

/// The users of the targets whose contact tokens introduce the caller.
pub(super) fn introduced(
    state: &State,
    targets: &[ReserveTarget],
) -> Result<BTreeSet<String>, Failure> {
    let mut introduced = BTreeSet::new();
    for ReserveTarget { user, contact_token, .. } in targets {
        if is_introduced(state, user, contact_token.as_ref())? {
            introduced.insert(user.clone());
        }
    }
    Ok(introduced)
}

/// The devices and users that the targets name.
pub(super) fn invitees(targets: &[ReserveTarget]) -> Result<Vec<ReservationTarget>, Failure> {
    let invitee = |target: &ReserveTarget| {
        let device = PoolId::of(&target.user, target.device.as_deref())?;
        Ok(match target.device {
            Some(_) => ReservationTarget::Device(device),
            None => ReservationTarget::User(target.user.clone()),
        })
    };
    targets.iter().map(invitee).collect()
}

fn missing_device(invitee: ReservationTarget, why: &Failure) -> MissingDevice {
    let (user, device) = parts_of(invitee);
    let requirement = why.problem().requirement;
    MissingDevice {
        user,
        device,
        code: why.code(),
        requirement,
        retry_after_s: why.retry_after_s(),
    }
}

/// The user and the device of a target.
pub(super) fn parts_of(target: ReservationTarget) -> (String, Option<String>) {
    match target {
        ReservationTarget::Device(pool) => (pool.user().to_owned(), Some(pool.device().to_owned())),
        ReservationTarget::User(user) => (user, None),
    }
}
