//! Waiting for packages of devices that have none to hand out.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web::Data};
use keypool_api::{AwaitReply, AwaitRequest, AwaitStatus, AwaitedDevice, Code};
use keypool_projections::{
    Rejection,
    quota::{OverQuota, Quota},
};

use super::reserve_many::{introduced, invitees, parts_of};
use crate::{
    authentication::AuthenticatedWrite,
    keypackage_store::{AwaitPackages, ReservationTarget},
    pools::AwaitOutcome,
    problem::Failure,
    request_log::{note_refused, note_targets},
    state::State,
};

/// How many targets one request names, and how many devices it stops to wait for.
const NAMED_MAX: usize = 64;
/// When the caller may try again where as many strangers wait for a device as may.
const RETRY_AFTER: Duration = Duration::from_hours(1);

/// Waits for packages of the targets' devices that have none to hand out now, for 14 days: `GET /mailbox`
/// names a device in `available` once one has arrived.
///
/// A device that has something to hand out is `available` at once; one that a reservation would be refused of
/// for another reason is `refused`, with the code of that. Each device counts as a reservation does that finds
/// nothing. `stop` takes devices off the list. A request that is repeated is answered as of now.
#[utoipa::path(
    post, path = "/keypackages/await", tag = "keypackages",
    request_body = AwaitRequest,
    responses((status = 200, description = "Which devices are awaited", body = AwaitReply)),
)]
pub(crate) async fn await_packages(
    request: HttpRequest,
    state: Data<State>,
    caller: AuthenticatedWrite,
) -> Result<HttpResponse, Failure> {
    let AwaitRequest { targets, stop } = caller.body.json()?;
    let count = targets.len().max(stop.len());
    if count == 0 || NAMED_MAX < count {
        let detail = format!(
            "a request names up to {NAMED_MAX} targets, or devices to stop, and one at least"
        );
        return Err(Failure::new(Code::BadRequest, detail));
    }
    let invitees = invitees(&targets)?;
    note_targets(&request, &targets);
    let asked = AwaitPackages {
        invitees,
        stop,
        inviter: caller.pool,
        introduced: introduced(&state, &targets)?,
        devices_max: state.target_devices_max,
    };
    let awaited = state.store()?.await_packages(asked, caller.idempotency).await?;
    let devices =
        awaited.into_iter().map(|(target, outcome)| device((&request, &state), target, outcome));
    Ok(HttpResponse::Ok().json(AwaitReply { devices: devices.collect() }))
}

fn device(
    (request, state): (&HttpRequest, &State),
    target: ReservationTarget,
    outcome: AwaitOutcome,
) -> AwaitedDevice {
    let (user, device) = parts_of(target);
    let status = match &outcome {
        AwaitOutcome::Waiting(_) => AwaitStatus::Waiting,
        AwaitOutcome::Available => AwaitStatus::Available,
        AwaitOutcome::Refused(_) | AwaitOutcome::TooMany => AwaitStatus::Refused,
    };
    let (until, why) = match outcome {
        AwaitOutcome::Waiting(until) => (Some(until.as_secs()), None),
        AwaitOutcome::Available => (None, None),
        AwaitOutcome::Refused(why) => (None, Some(Failure::from(why))),
        AwaitOutcome::TooMany => {
            let over = OverQuota { quota: Quota::Strangers, wait: RETRY_AFTER };
            (None, Some(Failure::from(Rejection::from(over))))
        }
    };
    if let Some(quota) = why.as_ref().and_then(Failure::quota) {
        state.metrics.over_quota(quota);
    }
    if let Some(why) = &why {
        note_refused(request, (&user, device.as_deref()), why);
    }
    let code = why.as_ref().map(Failure::code);
    let retry_after_s = why.as_ref().and_then(Failure::retry_after_s);
    AwaitedDevice { user, device, status, until, code, retry_after_s }
}
