//! A device whose clock is wrong.

use std::{sync::Arc, time::Duration};

use keypool_client::{MlsClient, PoolConfig};
use keypool_ledger::SystemClock;

use super::service::{Service, run};

#[test]
fn a_device_whose_clock_is_wrong_dates_its_requests_by_the_servers() {
    run(async {
        let service = Service::start();
        service.clock.advance(Duration::from_hours(3 * 24));
        let (home, owner) = (service.folder.path().join("bob"), "bob".parse().unwrap());
        let rest = (Arc::new(SystemClock) as _, PoolConfig::default());
        let bob = MlsClient::open_at_server(&home, &owner, &service.tunnel.url(), rest).unwrap();
        let before = service.tunnel.requests();
        bob.register().await.unwrap();
        assert_eq!(service.tunnel.requests() - before, 2, "refused once, and then not again");
        assert_eq!(bob.refresh_key_packages().await.unwrap().available, 32);
        let asked = service.tunnel.requests() - before;
        assert_eq!(asked, 7, "status, events, upload; the checkpoint, and once its key");
    });
}
