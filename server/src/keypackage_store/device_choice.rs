//! The choice of a user's device, and of the refusal that is told where none of them serves.
//!
//! A user means the first device, by name, that can serve this inviter now. Where none can, the refusal
//! with the highest rank is told, in whichever order the devices stand:
//!
//! 1. a rate limit, the one that ends first: the same request works after a known time;
//! 2. no compatible ciphersuite: another request may work at once;
//! 3. packages kept for contacts, then an empty pool: the same request may work later;
//! 4. contacts only, or blocked: only the owner can change it;
//! 5. a removed device says nothing of the others: the user is unknown if there is none else.

use std::{cmp::Reverse, time::Duration};

use keypool_ledger::{
    CommandId, EventLog, PoolId, ReadError, Record, ReservationId, StreamId,
    log::{find_command, find_reservation},
};
use keypool_projections::Rejection;

use super::{
    Idempotency, KeyPackageStore, ReservationRequest, ReservationTarget, StoreError,
    commands::Reserved,
};
use crate::pools::{ExecuteError, Reply};

impl<L: EventLog + 'static> KeyPackageStore<L> {
    /// Reserves a package of the named device, or of the first of a user's that can serve the inviter: of the
    /// one that did before, if the request or its reservation was made before.
    pub(super) async fn reserve_of_any(
        &self,
        asked: ReservationRequest,
        idempotency: Idempotency,
    ) -> Result<Reply<Reserved>, StoreError> {
        let devices = match &asked.invitee {
            ReservationTarget::Device(device) => vec![device.clone()],
            ReservationTarget::User(user) => self.candidates(user, &asked, idempotency.key).await?,
        };
        let mut refusals = Vec::new();
        for device in devices {
            match self.reserve_of(&device, &asked, idempotency).await {
                Err(StoreError::Execute(ExecuteError::Rejected(why)))
                    if matches!(asked.invitee, ReservationTarget::User(_))
                        && rank(&why).is_some() =>
                {
                    refusals.push(why);
                }
                outcome => return outcome,
            }
        }
        Err(ExecuteError::from(refusal(&asked, refusals)).into())
    }

    /// The devices of a user that a request may be served by, in their order.
    async fn candidates(
        &self,
        user: &str,
        asked: &ReservationRequest,
        key: CommandId,
    ) -> Result<Vec<PoolId>, StoreError> {
        let all = self.pools.devices_of(user);
        let others = all.iter().filter(|device| **device != asked.holder);
        let others: Vec<PoolId> = others.cloned().collect();
        if others.len() == 1 {
            return Ok(others);
        }
        let id = asked.id;
        let made = self.made_before(key, id).await?;
        let refusal = match made.map(|made| (made.envelope.command, made.envelope.stream)) {
            Some((_, StreamId::Pool(device))) if all.contains(&device) => return Ok(vec![device]),
            Some((command, _)) if command == key => ExecuteError::IdempotencyMismatch(key),
            Some(_) => Rejection::ReservationMismatch(id).into(),
            None if others.is_empty() && all.contains(&asked.holder) => Rejection::OwnPool.into(),
            None => return Ok(others),
        };
        Err(refusal.into())
    }

    /// Finds the record of a request or, where there is none, of its reservation.
    pub(super) async fn made_before(
        &self,
        key: CommandId,
        id: ReservationId,
    ) -> Result<Option<Record>, StoreError> {
        if !self.pools.may_be_made(key, Some(id)) {
            return Ok(None);
        }
        self.read(move |pools| made_before(pools.log(), key, id)).await
    }
}

fn made_before<L: EventLog>(
    log: &L,
    key: CommandId,
    id: ReservationId,
) -> Result<Option<Record>, ReadError> {
    match find_command(log, key, 0)?.into_iter().next() {
        None => find_reservation(log, id, 0),
        made => Ok(made),
    }
}

/// The refusal that is told where none of a user's devices can serve.
fn refusal(asked: &ReservationRequest, refusals: Vec<Rejection>) -> Rejection {
    let user = match &asked.invitee {
        ReservationTarget::Device(device) => device.user(),
        ReservationTarget::User(user) => user,
    };
    let told = refusals.into_iter().max_by_key(rank);
    told.filter(|told| *told != Rejection::NotRegistered)
        .unwrap_or_else(|| Rejection::UnknownUser(user.to_owned()))
}

/// Ranks a refusal by one device of a user; `None` if it says as much of all others.
fn rank(refusal: &Rejection) -> Option<(u8, Reverse<Duration>)> {
    let (rank, wait) = match refusal {
        Rejection::OverQuota(over) => (6, over.wait),
        Rejection::RequirementUnmet(_) => (5, Duration::ZERO),
        Rejection::NothingCompatible => (4, Duration::ZERO),
        Rejection::KeptForContacts => (3, Duration::ZERO),
        Rejection::PoolExhausted => (2, Duration::ZERO),
        Rejection::ContactsOnly | Rejection::Blocked => (1, Duration::ZERO),
        Rejection::NotRegistered => (0, Duration::ZERO),
        _ => return None,
    };
    Some((rank, Reverse(wait)))
}

/// Decides whether a pool has refused because there is no package that fits.
pub(super) const fn is_for_want_of_packages(rejection: &Rejection) -> bool {
    matches!(
        rejection,
        Rejection::PoolExhausted
            | Rejection::NothingCompatible
            | Rejection::RequirementUnmet(_)
            | Rejection::KeptForContacts
    )
}

#[cfg(test)]
mod tests {
    use keypool_ledger::GroupId;
    use keypool_projections::{
        RequiredCapabilities, Requirement,
        quota::{OverQuota, Quota},
    };
    use uuid::Uuid;

    use super::*;

    fn over(wait_s: u64) -> Rejection {
        let wait = Duration::from_secs(wait_s);
        Rejection::OverQuota(OverQuota { quota: Quota::Pair, wait })
    }

    fn told(refusals: &[Rejection]) -> Rejection {
        let asked = ReservationRequest {
            invitee: ReservationTarget::User("bob".to_owned()),
            holder: PoolId::new("alice", "phone").unwrap(),
            group: GroupId::new(b"group").unwrap(),
            id: ReservationId(Uuid::nil()),
            ciphersuites: Vec::new(),
            required: RequiredCapabilities::default(),
            introduced: false,
        };
        refusal(&asked, refusals.to_vec())
    }

    #[test]
    fn the_refusal_of_the_highest_rank_is_told_in_whichever_order_the_devices_stand() {
        let ranked = [
            over(5),
            over(60),
            Rejection::RequirementUnmet(Requirement::Extension(0xff01)),
            Rejection::NothingCompatible,
            Rejection::KeptForContacts,
            Rejection::PoolExhausted,
            Rejection::ContactsOnly,
            Rejection::NotRegistered,
        ];
        for (place, higher) in ranked.iter().enumerate() {
            for lower in ranked.iter().skip(place + 1) {
                for pair in [[higher, lower], [lower, higher]] {
                    assert_eq!(told(&pair.map(Clone::clone)), *higher, "{pair:?}");
                }
            }
        }
    }

    #[test]
    fn a_user_without_a_registered_device_is_unknown() {
        let unknown = Rejection::UnknownUser("bob".to_owned());
        assert_eq!(told(&[]), unknown);
        assert_eq!(told(&[Rejection::NotRegistered, Rejection::NotRegistered]), unknown);
    }

    #[test]
    fn a_refusal_that_another_device_would_give_as_well_ends_the_search() {
        let id = ReservationId(Uuid::nil());
        assert_eq!(rank(&Rejection::ReservationMismatch(id)), None);
        assert_eq!(rank(&Rejection::OwnPool), None);
    }
}
