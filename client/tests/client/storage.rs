//! The store: whole operations or nothing, after any crash, for one owner and one process.

use std::{fs, os::unix::fs::PermissionsExt};

use keypool_client::{LocalStore, OwnStage, StorageError, fresh_command};
use keypool_ledger::{
    Batch, Event, EventLog, Hash, KeyPackageRef, MemoryLog, NewEvent, PackageFacts, PoolId,
    ReservationId, StreamId, StreamWrite, Timestamp, log::append_at_head,
};
use tempfile::TempDir;

use super::support::{group, pool};

fn open(home: &TempDir) -> LocalStore {
    LocalStore::open(home.path(), &pool("alice/phone")).unwrap()
}

fn facts(seed: u8) -> PackageFacts {
    PackageFacts {
        keypackage_ref: KeyPackageRef::new(&[seed; 32]).unwrap(),
        not_before: Timestamp::from_secs(0),
        not_after: Timestamp::from_secs(1_000),
        ciphersuite: 1,
        credential: Hash::of(b"credential"),
        init_key: Hash::of(&[seed]),
        last_resort: false,
        capabilities: None,
    }
}

fn spent(seed: u8) -> Event {
    Event::Spent {
        keypackage_ref: facts(seed).keypackage_ref,
        reservation: None,
        holder: None,
        group: group("g"),
        late: false,
    }
}

fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(secs)
}

#[test]
fn a_committed_operation_is_there_after_a_restart() {
    let home = TempDir::new().unwrap();
    let store = open(&home);
    let staged = store.stage().unwrap();
    staged.record(Event::Created(facts(1)), at(5), fresh_command()).unwrap();
    staged.put_app_record("cooldown", &at(7)).unwrap();
    staged.commit().unwrap();
    drop(store);

    let store = open(&home);
    assert_eq!(store.history().unwrap().len(), 1);
    assert_eq!(store.history().unwrap()[0].event, Event::Created(facts(1)));
    assert_eq!(store.package(&facts(1).keypackage_ref).unwrap().stage, OwnStage::Created);
    assert_eq!(store.stage().unwrap().app_record("cooldown").unwrap(), Some(at(7)));
}

#[test]
fn a_dropped_operation_leaves_nothing() {
    let home = TempDir::new().unwrap();
    let store = open(&home);
    let staged = store.stage().unwrap();
    staged.record(Event::Created(facts(1)), at(5), fresh_command()).unwrap();
    staged.put_app_record("cooldown", &at(7)).unwrap();
    assert_eq!(staged.app_record("cooldown").unwrap(), Some(at(7)));
    assert!(staged.package(&facts(1).keypackage_ref).is_some());
    drop(staged);

    assert_eq!(store.history().unwrap().len(), 0);
    assert_eq!(store.stage().unwrap().packages_where(|_| true).len(), 0);
    assert_eq!(store.stage().unwrap().app_record::<Timestamp>("cooldown").unwrap(), None);
}

#[test]
fn records_are_listed_by_prefix_and_see_the_operation() {
    let home = TempDir::new().unwrap();
    let store = open(&home);
    let staged = store.stage().unwrap();
    for name in ["invite/1", "invite/2", "other"] {
        staged.put_app_record(name, &1_u8).unwrap();
    }
    staged.commit().unwrap();
    let staged = store.stage().unwrap();
    staged.remove_app_record("invite/1");
    staged.put_app_record("invite/3", &1_u8).unwrap();
    assert_eq!(staged.app_record_names("invite/").unwrap(), ["invite/2", "invite/3"]);
}

#[cfg(feature = "sled-store")]
#[test]
fn large_values_never_become_unsynced_files() {
    let home = TempDir::new().unwrap();
    let store = open(&home);
    let value = |round: usize, len: usize| -> Vec<u8> {
        (0..len).map(|index| u8::try_from((index ^ round) % 251).unwrap()).collect()
    };
    for round in 0..30 {
        let staged = store.stage().unwrap();
        for index in 0..8 {
            let len = [4_000, 4_095, 4_096, 4_097, 32_768, 65_536, 200_000, 0][index];
            staged.put_app_record(&format!("big/{index}"), &value(round, len)).unwrap();
        }
        staged.commit().unwrap();
    }
    let staged = store.stage().unwrap();
    staged.put_app_record("big/6", &value(7, 10)).unwrap();
    staged.commit().unwrap();
    assert_eq!(fs::read_dir(home.path().join("store/blobs")).unwrap().count(), 0);
    drop(store);

    let store = open(&home);
    let staged = store.stage().unwrap();
    assert_eq!(staged.app_record("big/5").unwrap(), Some(value(29, 65_536)));
    assert_eq!(staged.app_record("big/6").unwrap(), Some(value(7, 10)));
    assert_eq!(staged.app_record("big/7").unwrap(), Some(Vec::<u8>::new()));
}

#[test]
fn time_does_not_go_back_in_the_history() {
    let home = TempDir::new().unwrap();
    let store = open(&home);
    let staged = store.stage().unwrap();
    staged.record(Event::Created(facts(1)), at(100), fresh_command()).unwrap();
    staged.record(Event::Created(facts(2)), at(50), fresh_command()).unwrap();
    staged.commit().unwrap();
    let times: Vec<_> = store.history().unwrap().iter().map(|event| event.at).collect();
    assert_eq!(times, [at(100), at(100)]);
}

#[test]
fn an_event_that_contradicts_the_history_is_refused() {
    let home = TempDir::new().unwrap();
    let store = open(&home);
    let staged = store.stage().unwrap();
    let refused = staged.record(spent(1), at(1), fresh_command());
    assert!(matches!(refused, Err(StorageError::Impossible(_))));
    staged.record(Event::Created(facts(1)), at(1), fresh_command()).unwrap();
    staged.record(spent(1), at(1), fresh_command()).unwrap();
    let refused = staged.record(spent(1), at(1), fresh_command());
    assert!(matches!(refused, Err(StorageError::Impossible(_))));
    staged.commit().unwrap();
    assert_eq!(store.history().unwrap().len(), 2);
}

#[test]
fn a_home_is_for_one_process_and_one_device() {
    let home = TempDir::new().unwrap();
    let store = open(&home);
    let second = LocalStore::open(home.path(), &pool("alice/phone")).unwrap_err();
    assert!(matches!(second, StorageError::InUse { .. }), "{second}");
    drop(store);
    let other = LocalStore::open(home.path(), &pool("bob/phone")).unwrap_err();
    let StorageError::WrongOwner { owner, .. } = other else { panic!("{other}") };
    assert_eq!(owner, pool("alice/phone"));
}

#[test]
fn a_new_home_is_for_its_owner_alone() {
    let parent = TempDir::new().unwrap();
    let home = parent.path().join("a/home");
    drop(LocalStore::open(&home, &pool("alice")).unwrap());
    let folders = [home.clone(), home.join("store")];
    for path in folders.into_iter().filter(|path| path.is_dir()) {
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}

#[cfg(feature = "sled-store")]
#[test]
fn a_snapshot_half_made_by_a_crash_does_not_keep_the_store_from_opening() {
    let home = TempDir::new().unwrap();
    drop(open(&home));
    fs::write(home.path().join("store/snap.00000000000007.generating"), b"half").unwrap();
    drop(open(&home));
}

#[cfg(feature = "sled-store")]
#[test]
fn one_flipped_bit_in_the_database_is_never_passed_over() {
    let home = TempDir::new().unwrap();
    let store = open(&home);
    for seed in 0..40 {
        let staged = store.stage().unwrap();
        staged.record(Event::Created(facts(seed)), at(1), fresh_command()).unwrap();
        staged.commit().unwrap();
    }
    drop(store);
    let data = home.path().join("store/db");
    let intact = fs::read(&data).unwrap();
    let written: Vec<_> = (0..intact.len()).filter(|place| intact[*place] != 0).collect();
    for place in written.iter().copied().step_by(written.len() / 40) {
        let damaged = TempDir::new().unwrap();
        copy_with_flipped_byte(&home, &damaged, &intact, place);
        match LocalStore::open(damaged.path(), &pool("alice/phone")) {
            Ok(store) => assert_eq!(store.history().unwrap().len(), 40, "at {place}"),
            Err(
                StorageError::Damaged { .. }
                | StorageError::RolledBack { .. }
                | StorageError::HistoryBroken { .. }
                | StorageError::Unreadable(_)
                | StorageError::Value { .. },
            ) => {}
            Err(err) => panic!("at {place}: {err}"),
        }
    }
}

#[cfg(feature = "sled-store")]
fn copy_with_flipped_byte(from: &TempDir, to: &TempDir, intact: &[u8], place: usize) {
    let store = to.path().join("store");
    fs::create_dir(&store).unwrap();
    fs::copy(from.path().join("commits"), to.path().join("commits")).unwrap();
    for entry in fs::read_dir(from.path().join("store")).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_file() {
            fs::copy(entry.path(), store.join(entry.file_name())).unwrap();
        }
    }
    let mut bytes = intact.to_vec();
    bytes[place] ^= 0x10;
    fs::write(store.join("db"), bytes).unwrap();
}

/// The server's log of a pool: the bytes of its envelopes.
pub(crate) fn server_history(owner: &PoolId, events: &[Event]) -> Vec<Vec<u8>> {
    let log = MemoryLog::default();
    let stream = StreamId::Pool(owner.clone());
    let events: Vec<_> = events
        .iter()
        .map(|event| NewEvent {
            at: at(9),
            command: fresh_command(),
            request: Hash::ZERO,
            event: event.clone(),
            payload: b"package".to_vec(),
        })
        .collect();
    let write = StreamWrite { stream: stream.clone(), expected: 0, events };
    append_at_head(&log, &[Batch { writes: vec![write] }]).remove(0).unwrap();
    let records = log.read_stream(&stream, 0, 100).unwrap();
    records.into_iter().map(|record| record.envelope_bytes).collect()
}

#[test]
fn the_mirror_takes_only_what_continues_it() {
    let home = TempDir::new().unwrap();
    let store = open(&home);
    let events = [facts(1), facts(2), facts(3)].map(Event::Uploaded);
    let told = server_history(store.owner(), &events);
    let staged = store.stage().unwrap();
    assert_eq!(staged.extend_mirror(&told[..2]).unwrap().len(), 2);
    staged.commit().unwrap();

    let staged = store.stage().unwrap();
    assert_eq!(staged.extend_mirror(&told).unwrap().len(), 1, "known ones are passed over");
    staged.commit().unwrap();
    drop(store);

    let store = open(&home);
    assert_eq!(store.mirror_head().version, 3);
    assert_eq!(store.mirror().unwrap().len(), 3);
    let rewritten = server_history(store.owner(), &[facts(1), facts(9)].map(Event::Uploaded));
    let forked = store.stage().unwrap().extend_mirror(&rewritten).unwrap_err();
    assert!(matches!(forked, StorageError::MirrorRefused { version: 1, .. }), "{forked}");
    let others = server_history(&pool("bob"), &events);
    let foreign = store.stage().unwrap().extend_mirror(&others).unwrap_err();
    assert!(matches!(foreign, StorageError::MirrorRefused { version: 1, .. }), "{foreign}");
    let gap =
        server_history(store.owner(), &[1, 2, 3, 4, 5].map(|seed| Event::Uploaded(facts(seed))));
    let gap = store.stage().unwrap().extend_mirror(&gap[4..]).unwrap_err();
    assert!(matches!(gap, StorageError::MirrorRefused { version: 4, .. }), "{gap}");
}

/// The version fits and the history does not: it is of another pool, or of another chain.
#[test]
fn a_new_event_of_another_pool_or_another_chain_is_refused() {
    let home = TempDir::new().unwrap();
    let store = open(&home);
    let foreign = server_history(&pool("bob"), &[uploaded(1)]);
    let refused = store.stage().unwrap().extend_mirror(&foreign).unwrap_err().to_string();
    assert!(refused.contains("it belongs to"), "{refused}");
    let one = server_history(store.owner(), &[uploaded(1)]);
    let other = server_history(store.owner(), &[uploaded(2), uploaded(3)]);
    let staged = store.stage().unwrap();
    staged.extend_mirror(&one).unwrap();
    let refused = staged.extend_mirror(&other[1..]).unwrap_err().to_string();
    assert!(refused.contains("it was chained to another event"), "{refused}");
    drop(staged);
    assert_eq!(store.mirror_head().version, 0);
}

#[test]
fn a_record_of_another_type_is_an_error_that_names_it() {
    let home = TempDir::new().unwrap();
    let store = open(&home);
    let staged = store.stage().unwrap();
    staged.put_app_record("cooldown", &"soon").unwrap();
    let refused = staged.app_record::<u64>("cooldown").unwrap_err();
    assert!(
        matches!(&refused, StorageError::Value { what, .. } if what == "cooldown"),
        "{refused}"
    );
}

#[test]
fn an_event_about_no_package_is_recorded_and_changes_none() {
    let home = TempDir::new().unwrap();
    let store = open(&home);
    let staged = store.stage().unwrap();
    staged.record(Event::Created(facts(1)), at(1), fresh_command()).unwrap();
    staged.record(Event::DeviceRemoved { by_operator: false }, at(2), fresh_command()).unwrap();
    staged.commit().unwrap();
    drop(store);
    let store = open(&home);
    assert_eq!(store.history().unwrap().len(), 2);
    assert_eq!(store.package(&facts(1).keypackage_ref).unwrap().stage, OwnStage::Created);
}

#[test]
fn a_home_that_is_a_file_is_refused_by_its_name() {
    let folder = TempDir::new().unwrap();
    let home = folder.path().join("home");
    fs::write(&home, b"no folder").unwrap();
    let refused = LocalStore::open(&home, &pool("alice/phone")).unwrap_err();
    assert!(matches!(&refused, StorageError::Folder { path, .. } if *path == home), "{refused}");
}

#[test]
fn the_servers_history_is_folded_and_survives_a_restart() {
    let home = TempDir::new().unwrap();
    let store = open(&home);
    let told = server_history(store.owner(), &[uploaded(1), uploaded(2), reserved(1, 1)]);
    let staged = store.stage().unwrap();
    staged.extend_mirror(&told).unwrap();
    drop(staged);
    assert_eq!(store.server_pool().counts().available, 0, "a dropped operation leaves nothing");
    let staged = store.stage().unwrap();
    staged.extend_mirror(&told).unwrap();
    staged.commit().unwrap();
    let folded = store.server_pool();
    assert_eq!((folded.counts().available, folded.counts().reserved), (1, 1));
    drop(store);
    assert_eq!(open(&home).server_pool(), folded);
}

fn uploaded(seed: u8) -> Event {
    Event::Uploaded(facts(seed))
}

fn reserved(seed: u8, generation: u32) -> Event {
    Event::Reserved {
        keypackage_ref: facts(seed).keypackage_ref,
        reservation: ReservationId(fresh_command().0),
        generation,
        holder: pool("bob"),
        group: group("g"),
        deadline: at(60),
    }
}

#[test]
fn a_history_that_no_pool_can_have_is_refused() {
    let forged = [
        (3, vec![uploaded(1), reserved(1, 1), reserved(1, 2)]),
        (4, vec![uploaded(1), reserved(1, 1), spent(1), spent(1)]),
        (4, vec![uploaded(1), reserved(1, 1), spent(1), reserved(1, 2)]),
        (2, vec![uploaded(1), uploaded(1)]),
        (1, vec![reserved(1, 1)]),
    ];
    for (first_wrong, events) in forged {
        let home = TempDir::new().unwrap();
        let store = open(&home);
        let told = server_history(store.owner(), &events);
        let refused = store.stage().unwrap().extend_mirror(&told).unwrap_err();
        let text = refused.to_string();
        let StorageError::MirrorRefused { version, .. } = refused else { panic!("{text}") };
        assert_eq!(version, first_wrong, "{text}");
        assert!(text.contains(&facts(1).keypackage_ref.short()), "{text}");
        assert_eq!(store.mirror_head().version, 0);
    }
}

#[test]
fn nothing_secret_is_printed() {
    let home = TempDir::new().unwrap();
    let store = open(&home);
    let staged = store.stage().unwrap();
    insta::assert_snapshot!(format!("{store:?} {staged:?} {:?}", staged.provider()),
        @"LocalStore { .. } Staged { .. } Provider { .. }");
    drop(staged);
    let identity = keypool_client::DeviceIdentity::load_or_create(&store).unwrap();
    insta::assert_snapshot!(format!("{identity:?}"), @"DeviceIdentity { .. }");
}
