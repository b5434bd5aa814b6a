//! A device whose clock is wrong: it goes by the server's.

use std::{sync::Arc, time::Duration};

use keypool_client::{ClockOffset, MlsClient, PoolConfig, Refresh, ServerDelivery};
use keypool_ledger::{Clock, SystemClock, Timestamp};

use super::service::{Service, group, run};

/// A clock that is ahead of another one by some seconds.
struct Ahead(Arc<dyn Clock>, u64);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        self.0.now().after(Duration::from_secs(self.1))
    }
}

fn open(service: &Service, user: &str, clock: Arc<dyn Clock>) -> MlsClient<ServerDelivery> {
    let (home, owner) = (service.folder.path().join(user), user.parse().unwrap());
    let rest = (clock, PoolConfig::default());
    MlsClient::open_at_server(&home, &owner, &service.tunnel.url(), rest).unwrap()
}

#[test]
fn a_difference_of_days_is_believed_once_the_ledgers_key_has_signed_it() {
    run(async {
        let service = Service::start();
        service.clock.advance(Duration::from_hours(3 * 24));
        let bob = open(&service, "bob", Arc::new(SystemClock));
        let before = service.tunnel.requests();
        bob.register().await.unwrap();
        assert_eq!(service.tunnel.requests() - before, 2, "refused once, and then not again");
        let refresh = bob.refresh_key_packages().await.unwrap();
        let behind = ClockOffset { device_ahead_s: -3 * 24 * 3600, corrected: true };
        assert_eq!(rounded(&refresh), Some(behind));
        assert_eq!(refresh.available, 32);
        // It is known from then on, also to the next start.
        drop(bob);
        let bob = open(&service, "bob", Arc::new(SystemClock));
        let before = service.tunnel.requests();
        let refresh = bob.refresh_now().await.unwrap();
        assert_eq!((refresh.clock, refresh.available), (None, 32), "told once");
        let asked = service.tunnel.requests() - before;
        assert_eq!(asked, 3, "the status, the own devices, the checkpoint: none is refused");
    });
}

/// The offset that a refresh tells, without the seconds that a slow machine adds.
fn rounded(refresh: &Refresh) -> Option<ClockOffset> {
    refresh.clock.map(|told| {
        let minutes = (told.device_ahead_s + told.device_ahead_s.signum() * 30) / 60;
        ClockOffset { device_ahead_s: minutes * 60, ..told }
    })
}

#[test]
fn a_device_two_hours_ahead_has_a_pool_and_nobody_is_blamed() {
    run(async {
        let service = Service::start();
        let clock = || Ahead(service.clock.clone(), 2 * 3600);
        let bob = open(&service, "bob", Arc::new(clock()));
        bob.register().await.unwrap();
        let refresh = bob.refresh_now().await.unwrap();
        let ahead = ClockOffset { device_ahead_s: 2 * 3600, corrected: true };
        assert_eq!((rounded(&refresh), refresh.available), (Some(ahead), 32));
        assert!(refresh.rejected.is_empty(), "{:?}", refresh.rejected);
        // An inviter whose clock is as far off takes packages of others.
        let carol = open(&service, "carol", service.clock.clone());
        carol.register().await.unwrap();
        carol.refresh_now().await.unwrap();
        let (friday, dave) = (group("friday"), open(&service, "dave", Arc::new(clock())));
        dave.register().await.unwrap();
        dave.create_group(&friday).unwrap();
        let invited = dave.invite(&friday, ["carol", "bob"]).await.unwrap();
        assert_eq!((invited.added.len(), invited.missing.len()), (2, 0), "{:?}", invited.missing);
        assert!(!carol.sync(0).await.unwrap().is_empty());
        assert!(!bob.sync(0).await.unwrap().is_empty());
    });
}

#[test]
fn packages_whose_lifetime_is_refused_are_not_offered_again_before_something_has_changed() {
    run(async {
        let days = |days: u64| Duration::from_hours(days * 24);
        let service = Service::start_with(|settings| settings.admission.lifetime_max = days(7));
        let home = service.folder.path().join("bob");
        let bob = |lifetime| {
            let config = PoolConfig { lifetime, last_resort: false, ..PoolConfig::default() };
            let rest = (service.clock.clone() as Arc<dyn Clock>, config);
            let owner = "bob".parse().unwrap();
            MlsClient::open_at_server(&home, &owner, &service.tunnel.url(), rest).unwrap()
        };
        let too_long = bob(days(14));
        too_long.register().await.unwrap();
        let refused = too_long.refresh_now().await.unwrap();
        assert_eq!((refused.rejected.len(), refused.created), (32, 0));
        let made = || too_long.store().history().unwrap().len();
        let before = made();
        for _ in 0..9 {
            let again = too_long.refresh_now().await.unwrap();
            assert_eq!((again.rejected.len(), again.available), (1, 0));
            assert!(again.rejected[0].starts_with("lifetime: "), "{:?}", again.rejected);
        }
        assert_eq!(made(), before, "nothing was made in vain");
        // A day later it is tried again, and with another lifetime at once.
        service.clock.advance(days(1));
        assert_eq!(too_long.refresh_now().await.unwrap().rejected.len(), 32);
        drop(too_long);
        assert_eq!(bob(days(6)).refresh_now().await.unwrap().available, 32);
    });
}

#[test]
fn a_proxy_that_lies_about_the_time_ends_no_lifetime() {
    run(async {
        let service = Service::start();
        let bob = open(&service, "bob", service.clock.clone());
        bob.register().await.unwrap();
        assert_eq!(bob.refresh_now().await.unwrap().available, 32);
        let later = service.clock.now().after(Duration::from_hours(30 * 24));
        for number in 0..3 {
            service.tunnel.tamper(number, move |answer| {
                let told = answer.split("keypool-time: ").nth(1).unwrap();
                let told = told.lines().next().unwrap();
                answer.replace(told, &later.as_millis().to_string())
            });
        }
        let lied_to = bob.refresh_now().await.unwrap();
        assert_eq!(lied_to.expired, 0);
        let told = lied_to.clock.map(|told| told.corrected);
        assert_ne!(told, Some(true), "nobody's word alone moves a month");
        let now: Timestamp = bob.connection().api().now();
        let off = now.since(service.clock.now()).max(service.clock.now().since(now));
        assert!(off < Duration::from_mins(5), "{off:?}");
        let refresh = bob.refresh_now().await.unwrap();
        assert_eq!((refresh.expired, refresh.available), (0, 32));
        assert!(bob.check_up().unwrap().findings.is_empty());
    });
}
