//! The pool at the real server: filled, kept, and right again after lost answers.

use std::{path::Path, time::Duration};

use keypool_api::{Base64, Code, UploadRequest};
use keypool_client::{ApiError, MlsClient, PoolConfig, RefreshError, RegisterError, fresh_command};

use super::service::{Kill, Mail, Service, Side, run};

const MINUTE: Duration = Duration::from_secs(61);

#[test]
fn a_low_pool_is_filled_to_its_target_and_a_full_one_is_left_alone() {
    run(async {
        let service = Service::start();
        let bob = service.device("bob", 1).await;
        service.clock.advance(MINUTE);
        let filled = bob.refresh_key_packages().await.unwrap();
        assert_eq!((filled.created, filled.available), (31, 32));
        service.clock.advance(MINUTE);
        let left_alone = bob.refresh_key_packages().await.unwrap();
        assert_eq!((left_alone.created, left_alone.reuploaded), (0, 0));
        let status = bob.status().await.unwrap();
        assert_eq!((status.counts.available, status.counts.total), (32, 32));
    });
}

#[test]
fn within_a_minute_of_the_last_refresh_nothing_is_asked() {
    run(async {
        let service = Service::start();
        let bob = service.device("bob", 4).await;
        let requests = service.tunnel.requests();
        let skipped = bob.refresh_key_packages().await.unwrap();
        assert!(skipped.skipped);
        assert_eq!(skipped.available, 4);
        assert_eq!(service.tunnel.requests(), requests);
    });
}

#[test]
fn what_was_made_and_never_uploaded_is_uploaded_before_more_is_made() {
    run(async {
        let service = Service::start();
        let bob = service.device("bob", 0).await;
        bob.connection().pool().generate_and_store(5, service_now(&service)).unwrap();
        let refresh = bob.refresh_key_packages().await.unwrap();
        assert_eq!((refresh.reuploaded, refresh.created, refresh.available), (5, 27, 32));
    });
}

#[test]
fn an_upload_whose_answer_was_never_heard_is_found_in_the_history() {
    run(async {
        let service = Service::start();
        let bob = service.device("bob", 0).await;
        let made = bob.connection().pool().generate_and_store(5, service_now(&service)).unwrap();
        let keypackages = made.iter().map(|package| Base64(package.bytes.clone())).collect();
        let upload = UploadRequest { keypackages };
        bob.connection().api().upload(&upload, fresh_command()).await.unwrap();
        // The app died before it could record the answer.
        drop(bob);
        let bob = service.open("bob");
        let refresh = bob.refresh_key_packages().await.unwrap();
        assert_eq!((refresh.reuploaded, refresh.created, refresh.available), (0, 27, 32));
        assert_eq!(bob.status().await.unwrap().counts.total, 32);
    });
}

/// A refresh of an empty pool is three requests: status, events, upload. Each is lost in turn, and all.
#[test]
fn a_refresh_ends_alike_whichever_answers_are_lost() {
    run(async {
        for lost in [&[0][..], &[1], &[2], &[2, 3], &[0, 2, 4]] {
            let service = Service::start();
            let bob = service.device("bob", 0).await;
            service.tunnel.lose(lost);
            let refresh = bob.refresh_key_packages().await.unwrap();
            assert_eq!((refresh.created, refresh.available), (32, 32), "lost {lost:?}");
            assert_eq!(bob.status().await.unwrap().counts.total, 32, "lost {lost:?}");
        }
    });
}

/// Its requests are 0 for the status, 1 for the history, 2 for the upload, 3 for the checkpoint.
#[test]
fn a_refill_goes_on_wherever_the_app_was_killed() {
    run(async {
        for number in 0..4 {
            for side in [Side::Before, Side::After] {
                let kill = Kill::Request(number, side);
                let service = Service::start();
                let bob = service.device("bob", 0).await;
                let does = async |bob: &MlsClient<Mail>| drop(bob.refresh_key_packages().await);
                service.kill("bob", kill, bob, does).await;
                let bob = service.open("bob");
                bob.refresh_key_packages().await.unwrap();
                service.clock.advance(MINUTE);
                let after = bob.refresh_key_packages().await.unwrap();
                assert!(after.drift.is_none(), "{kill:?}: {:?}", after.drift);
                let counts = bob.status().await.unwrap().counts;
                assert_eq!((counts.available, counts.total), (32, 32), "{kill:?}");
                let made = bob.own_history(None).unwrap();
                let made = made.iter().filter(|entry| entry.event == "created").count();
                assert_eq!(made, 32, "{kill:?}: none was made twice");
            }
        }
    });
}

/// A package that ends in a minute is too near its end for the server.
#[test]
fn a_package_too_near_its_end_is_reported_and_others_are_made() {
    run(async {
        let service = Service::start();
        let bob = service.device("bob", 0).await;
        let home = service.folder.path().join("bob");
        drop(bob);
        let lifetime = Duration::from_hours(1);
        let short = PoolConfig { lifetime, ..PoolConfig::default() };
        let bob = service.open_at(&home, "bob", short);
        let then = service_now(&service).before(lifetime).after(Duration::from_mins(1));
        bob.connection().pool().generate_and_store(1, then).unwrap();
        let refresh = bob.connection().refresh_now(service_now(&service)).await.unwrap();
        assert_eq!(refresh.rejected.len(), 1);
        assert!(refresh.rejected[0].ends_with(": lifetime"), "{:?}", refresh.rejected);
        assert_eq!((refresh.created, refresh.available), (31, 31));
        let events = bob.own_history(None).unwrap();
        assert_eq!(events.iter().filter(|moment| moment.event == "revoked").count(), 1);
    });
}

/// Events of own packages are recorded in the write that mirrors them.
#[test]
fn a_history_is_mirrored_and_taken_in_with_one_write() {
    run(async {
        let service = Service::start();
        let bob = service.device("bob", 0).await;
        let made = bob.connection().pool().generate_and_store(5, service_now(&service)).unwrap();
        let keypackages = made.iter().map(|package| Base64(package.bytes.clone())).collect();
        let upload = UploadRequest { keypackages };
        bob.connection().api().upload(&upload, fresh_command()).await.unwrap();
        let before = writes(&service.folder.path().join("bob"));
        assert_eq!(bob.connection().fetch_history(service_now(&service)).await.unwrap(), 6);
        assert_eq!(writes(&service.folder.path().join("bob")), before + 1);
        let own = bob.own_history(None).unwrap();
        assert_eq!(own.iter().filter(|moment| moment.event == "uploaded").count(), 5);
    });
}

/// How many writes a home has had, as its witness says: the larger of the two counts in its sectors.
fn writes(home: &Path) -> u64 {
    let bytes = std::fs::read(home.join("commits")).unwrap();
    let count = |from: usize| bytes.get(from..)?.first_chunk().copied().map(u64::from_be_bytes);
    count(0).max(count(512)).unwrap()
}

#[test]
fn expired_packages_are_cleaned_up_and_replaced() {
    run(async {
        let service = Service::start();
        let bob = service.device("bob", 4).await;
        // A clock that leaps by days is not believed at once; one that goes on by half-hours is. The
        // server looks at it with every command.
        for _ in 0..15 * 48 {
            service.clock.advance(Duration::from_mins(30));
            bob.register().await.unwrap();
        }
        let refresh = bob.refresh_key_packages().await.unwrap();
        assert_eq!(refresh.expired, 4);
        assert_eq!(refresh.available, 32);
    });
}

#[test]
fn a_home_that_was_never_registered_is_told_so() {
    run(async {
        let service = Service::start();
        let home = service.folder.path().join("carol");
        let carol = service.open_at(&home, "carol", PoolConfig::default());
        let refused = carol.refresh_key_packages().await.unwrap_err();
        let RefreshError::Api(error @ ApiError::Refused(_)) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(error.code(), Some(Code::Unauthenticated));
    });
}

#[test]
fn a_name_belongs_to_the_key_that_registered_it_first() {
    run(async {
        let service = Service::start();
        let bob = service.device("bob", 0).await;
        assert_eq!(bob.register().await.unwrap(), bob.register().await.unwrap());
        let home = service.folder.path().join("another bob");
        let other = service.open_at(&home, "bob", PoolConfig::default());
        let refused = other.register().await.unwrap_err();
        assert_eq!(refused.code(), Some(Code::IdentityBound));
    });
}

#[test]
fn a_server_that_is_gone_is_said_to_be_gone() {
    run(async {
        let service = Service::start();
        let bob = service.device("bob", 1).await;
        service.server.stop().await;
        service.clock.advance(MINUTE);
        let refused = bob.refresh_key_packages().await.unwrap_err();
        assert!(matches!(refused, RefreshError::Api(ApiError::Unreachable { .. })), "{refused:?}");
        assert!(refused.to_string().contains("check the address"), "{refused}");
        let refused = bob.register().await.unwrap_err();
        assert!(matches!(refused, RegisterError::ServerUnreachable(_)), "{refused:?}");
    });
}

fn service_now(service: &Service) -> keypool_ledger::Timestamp {
    use keypool_ledger::Clock;
    service.clock.now()
}

#[test]
fn a_refresh_right_after_all_packages_were_withdrawn_fills_the_pool() {
    run(async {
        let service = Service::start();
        let bob = service.device("bob", 10).await;
        assert_eq!(bob.invalidate_credential_keys().await.unwrap(), 10);
        let pool = bob.connection().pool();
        assert_eq!(pool.get_available_count(service_now(&service)).unwrap(), 0);
        let refresh = bob.refresh_key_packages().await.unwrap();
        assert_eq!((refresh.skipped, refresh.created, refresh.available), (false, 32, 32));
        assert_eq!(bob.status().await.unwrap().counts.available, 32);
    });
}
