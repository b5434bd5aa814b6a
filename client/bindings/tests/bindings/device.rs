//! A device, treated badly.

use std::{path::Path, sync::Arc};

use keypool_bindings::{
    AppDatabase, AppDatabaseError, Device, DeviceError, DeviceOptions, SharedDeviceKey,
    StoredChange, StoredEntry, group_id,
};
use keypool_client::{DatabaseKind, GroupId};

use super::service::Service;

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

fn group() -> GroupId {
    group_id(b"friday".to_vec()).unwrap()
}

async fn open(
    service: &Service,
    user: &str,
    options: DeviceOptions,
) -> Result<Arc<Device>, DeviceError> {
    let home = service.homes().join(user).to_str().unwrap().to_owned();
    Device::open(home, user.to_owned(), "main".to_owned(), service.url(), Some(options)).await
}

#[test]
fn two_devices_cannot_have_one_home_open() {
    let service = Service::start();
    run(async {
        let first = open(&service, "alice", DeviceOptions::default()).await.unwrap();
        let error = open(&service, "alice", DeviceOptions::default()).await.unwrap_err();
        assert_eq!(error.code(), "home_in_use");
        first.close_home().await.unwrap();
        first.close_home().await.unwrap();
        open(&service, "alice", DeviceOptions::default()).await.unwrap();
        assert_eq!(first.groups().await.unwrap_err().code(), "closed");
    });
}

#[test]
fn a_call_that_is_dropped_gives_the_device_free() {
    let service = Service::start();
    run(async {
        let alice = open(&service, "alice", DeviceOptions::default()).await.unwrap();
        alice.register().await.unwrap();
        // A server that is asked to wait does not answer before.
        let waiting = alice.sync(30);
        tokio::select! {
            biased;
            answer = waiting => panic!("{answer:?}"),
            _ = alice.status() => {}
        }
        alice.create_group(group()).await.unwrap();
        alice.close_home().await.unwrap();
    });
}

#[test]
fn a_home_moves_to_the_database_that_is_asked_for() {
    let service = Service::start();
    let home = service.homes().join("alice");
    let options = |database| DeviceOptions { database: Some(database), ..DeviceOptions::default() };
    run(async {
        for (kind, file) in [(DatabaseKind::Sqlite, "store.sqlite"), (DatabaseKind::Sled, "store")]
        {
            let alice = open(&service, "alice", options(kind)).await.unwrap();
            assert!(home.join(file).exists(), "{kind:?}");
            alice.register().await.unwrap();
            alice.close_home().await.unwrap();
        }
        assert!(!Path::new(&home).join("store.sqlite").exists());
    });
}

#[test]
fn a_passphrase_or_key_that_is_not_the_homes_is_refused_by_its_name() {
    let service = Service::start();
    let phrase = |text: &str| SharedDeviceKey::from_passphrase(text.to_owned());
    let bytes = || SharedDeviceKey::from_bytes(vec![7; 32]).unwrap();
    let open = |device_key| {
        let options = DeviceOptions { device_key: Some(device_key), ..DeviceOptions::default() };
        open(&service, "alice", options)
    };
    run(async {
        let alice = open(phrase("right")).await.unwrap();
        alice.close_home().await.unwrap();
        assert_eq!(open(phrase("wrong")).await.unwrap_err().code(), "wrong_passphrase");
        assert_eq!(open(bytes()).await.unwrap_err().code(), "other_kind_of_key");
        let alice = open(phrase("right")).await.unwrap();
        alice.change_device_key(bytes()).await.unwrap();
        alice.close_home().await.unwrap();
        assert_eq!(open(phrase("right")).await.unwrap_err().code(), "other_kind_of_key");
        open(bytes()).await.unwrap();
    });
    let error = SharedDeviceKey::from_bytes(vec![7; 31]).err().unwrap();
    assert_eq!(error.code(), "invalid_argument");
}

#[test]
fn a_refusal_has_the_words_of_the_server_and_the_id_of_the_request() {
    let service = Service::start();
    run(async {
        let alice = open(&service, "alice", DeviceOptions::default()).await.unwrap();
        alice.register().await.unwrap();
        let error = alice.reserve(group(), "bob".to_owned()).await.unwrap_err();
        let DeviceError::Failed { code, message, request_id, retryable } = error;
        assert_eq!((code.as_str(), retryable), ("unknown_user", false));
        let id = request_id.unwrap();
        assert!(message.contains("Check the name") && message.contains(&id), "{message}");
    });
}

/// The app's database whose every write fails.
struct FullDisk;

impl AppDatabase for FullDisk {
    fn get(&self, _key: Vec<u8>) -> Result<Option<Vec<u8>>, AppDatabaseError> {
        Ok(None)
    }

    fn scan(&self, _prefix: Vec<u8>) -> Result<Vec<StoredEntry>, AppDatabaseError> {
        Ok(Vec::new())
    }

    fn write(&self, _changes: Vec<StoredChange>) -> Result<(), AppDatabaseError> {
        Err(AppDatabaseError::Failed { reason: "the disk is full".to_owned() })
    }
}

#[test]
fn an_error_of_the_apps_database_is_in_the_message() {
    let service = Service::start();
    let options =
        DeviceOptions { app_database: Some(Arc::new(FullDisk)), ..DeviceOptions::default() };
    let error = run(open(&service, "alice", options)).unwrap_err();
    assert_eq!(error.code(), "write_unknown");
    assert!(error.to_string().contains("the disk is full"), "{error}");
}
