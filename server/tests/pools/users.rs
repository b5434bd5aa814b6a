//! Reservations of whichever device of a user has a package: the store in front of the pools chooses it.

use std::sync::Arc;

use keypool_ledger::{CommandId, Hash};
use keypool_server::{
    AdmissionRules, Idempotency, KeyPackageStore, ReservationRequest, ReservationTarget,
    ReservedKeyPackage, StoreError, pools::ExecuteError,
};
use uuid::Uuid;

use crate::{
    history::{group, pool, reservation},
    service::Service,
};

impl Service {
    /// Reserves a package of one of a user's devices.
    pub(crate) fn reserve_of_user(
        &self,
        id: u128,
        user: &str,
        (number, holder, ciphersuites): (u8, &str, &[u16]),
    ) -> Result<ReservedKeyPackage, ExecuteError> {
        let store = KeyPackageStore::new(Arc::clone(&self.pools), AdmissionRules::default());
        let asked = ReservationRequest {
            invitee: ReservationTarget::User(user.to_owned()),
            holder: pool(holder),
            group: group("g"),
            id: reservation(number),
            ciphersuites: ciphersuites.to_vec(),
            required: keypool_projections::RequiredCapabilities::default(),
            introduced: false,
        };
        let digest = Hash::of(format!("{asked:?}").as_bytes());
        let idempotency = Idempotency { key: CommandId(Uuid::from_u128(id)), digest };
        // The store reads the log on threads of the runtime.
        let runtime = actix_rt::Runtime::new().unwrap();
        runtime.block_on(store.reserve_key_package(asked, idempotency)).map_err(|error| match error
        {
            StoreError::Execute(error) => error,
            error => panic!("not refused by the pools: {error}"),
        })
    }
}
