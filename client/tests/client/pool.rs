//! The pool: the arithmetic of a refill, and the life of the packages.

use std::{sync::Arc, time::Duration};

use keypool_client::{
    ConfigError, DeviceIdentity, KeyPackagePool, LocalStore, OwnStage, PoolConfig, PoolError,
    RefillCounts, Replenishment, ServerStatus, StorageError, fresh_command,
};
use keypool_ledger::{KeyPackageRef, RevokeReason, Timestamp};
use quickcheck::{Arbitrary, Gen, QuickCheck};
use tempfile::TempDir;

use super::support::{Device, group, lose_a_package, pool};

const START: Timestamp = Timestamp::from_secs(1_700_000_000);
const DAY: Duration = Duration::from_hours(24);

fn refs(made: &[keypool_client::CreatedPackage]) -> Vec<KeyPackageRef> {
    made.iter().map(|package| package.keypackage_ref().clone()).collect()
}

fn status(available: usize, reserved: usize) -> ServerStatus {
    ServerStatus { available, reserved, position: 7, suites: None }
}

#[test]
fn a_configuration_that_contradicts_itself_is_refused() {
    let good = PoolConfig::default;
    assert_eq!(good().validate(), Ok(()));
    let target = ConfigError::Target { target: 65, hard_cap: 64 };
    assert_eq!(PoolConfig { target: 65, ..good() }.validate(), Err(target));
    let low = ConfigError::LowWatermark { low_watermark: 32, target: 32 };
    assert_eq!(PoolConfig { low_watermark: 32, ..good() }.validate(), Err(low));
    let lifetime = ConfigError::Lifetime { lifetime_s: 15 * 86_400 };
    assert_eq!(PoolConfig { lifetime: 15 * DAY, ..good() }.validate(), Err(lifetime));
    let last_resort = ConfigError::LastResortLifetime { lifetime_s: 85 * 86_400 };
    let lives_long = PoolConfig { last_resort_lifetime: 85 * DAY, ..good() };
    assert_eq!(lives_long.validate(), Err(last_resort));
    let suites = |ciphersuites: &[u16]| {
        PoolConfig { ciphersuites: ciphersuites.to_vec(), ..good() }.validate()
    };
    assert_eq!(suites(&[1, 2]), Ok(()));
    assert_eq!(suites(&[1, 4]), Err(ConfigError::Ciphersuite(4)));
    assert_eq!(suites(&[]), Err(ConfigError::NoCiphersuite));
    assert_eq!(suites(&[1, 2, 1]), Err(ConfigError::CiphersuiteTwice(1)));
    let all = ConfigError::TargetOfAll { target: 32, suites: 3, hard_cap: 64 };
    assert!(all.to_string().ends_with("at most 21 each fit"), "{all}");
    assert_eq!(suites(&[1, 2, 3]), Err(all));
}

#[test]
fn a_refill_fills_to_the_target_uploads_first_and_stays_below_the_cap() {
    fn property(available: u8, reserved: u8, pending: u8, sizes: (u8, u8, u8)) -> bool {
        let hard_cap = usize::from(sizes.0) + 2;
        let target = 1 + usize::from(sizes.1) % hard_cap;
        let low_watermark = usize::from(sizes.2) % target;
        let config = PoolConfig { target, low_watermark, hard_cap, ..PoolConfig::default() };
        let counts = RefillCounts {
            available: usize::from(available) % (hard_cap + 2),
            live: usize::from(available) % (hard_cap + 2) + usize::from(reserved),
            pending: usize::from(pending),
        };
        let Replenishment { reupload, create } = config.replenishment(counts);
        let needed = reupload + create;
        let filled = counts.available + needed;
        let full = counts.live + needed >= hard_cap;
        config.validate().is_ok()
            && reupload <= counts.pending
            && (create == 0 || reupload == counts.pending)
            && (needed == 0 || counts.live + needed <= hard_cap)
            && (needed == 0 || filled <= target)
            && (counts.available <= low_watermark || needed == 0)
            && (counts.available > low_watermark || filled == target || full)
    }
    QuickCheck::new().tests(10_000).quickcheck(property as fn(u8, u8, u8, (u8, u8, u8)) -> bool);
}

/// As decision 24 has it: with `<` a watermark of 0 would never be reached, and a refill less the reserved packages
/// would leave an empty pool empty.
#[test]
fn an_empty_pool_is_refilled_with_any_watermark_and_however_many_are_reserved() {
    fn property(reserved: u8, sizes: (u8, u8, u8)) -> bool {
        let hard_cap = usize::from(sizes.0) + 1;
        let target = 1 + usize::from(sizes.1) % hard_cap;
        let low_watermark = usize::from(sizes.2) % target;
        let config = PoolConfig { target, low_watermark, hard_cap, ..PoolConfig::default() };
        let live = usize::from(reserved);
        let needed = config.replenishment(RefillCounts { available: 0, live, pending: 0 });
        config.is_low(0) && needed.create == target.min(hard_cap.saturating_sub(live))
    }
    QuickCheck::new().tests(10_000).quickcheck(property as fn(u8, (u8, u8, u8)) -> bool);
}

#[test]
fn a_pool_grows_to_its_target_and_is_left_alone() {
    let bob = Device::new("bob/phone");
    assert!(bob.pool.should_replenish(START).unwrap());
    let needed = bob.pool.get_replenishment_needed(START).unwrap();
    assert_eq!(needed, Replenishment { reupload: 0, create: 32 });
    let made = bob.pool.generate_and_store(needed.create, START).unwrap();
    assert_eq!(bob.pool.get_available_count(START).unwrap(), 0, "not uploaded yet");
    assert_eq!(bob.pool.mark_uploaded(&refs(&made), START, fresh_command()).unwrap(), 32);
    assert_eq!(bob.pool.get_available_count(START).unwrap(), 32);
    assert!(bob.pool.get_replenishment_needed(START).unwrap().is_empty());
}

#[test]
fn what_the_server_says_is_left_counts() {
    let bob = Device::new("bob/phone");
    let made = bob.pool.generate_and_store(32, START).unwrap();
    bob.pool.mark_uploaded(&refs(&made), START, fresh_command()).unwrap();
    bob.pool.note_server_status(&status(8, 4)).unwrap();
    assert_eq!(bob.pool.get_available_count(START).unwrap(), 8);
    let needed = bob.pool.get_replenishment_needed(START).unwrap();
    assert_eq!(needed, Replenishment { reupload: 0, create: 24 });
    bob.pool.note_server_status(&ServerStatus { position: 6, ..status(1, 0) }).unwrap();
    assert_eq!(bob.pool.get_available_count(START).unwrap(), 8, "what is older does not count");
    bob.pool.note_server_status(&ServerStatus { position: 7, ..status(5, 3) }).unwrap();
    assert_eq!(bob.pool.get_available_count(START).unwrap(), 5, "a reservation may have lapsed");
    bob.pool.note_server_status(&status(2, 60)).unwrap();
    let needed = bob.pool.get_replenishment_needed(START).unwrap();
    assert_eq!(needed, Replenishment { reupload: 0, create: 2 }, "reserved ones take places");
}

#[test]
fn packages_whose_upload_failed_are_uploaded_again_before_new_ones_are_made() {
    let bob = Device::new("bob/phone");
    let made = bob.pool.generate_and_store(20, START).unwrap();
    let bob = bob.restarted();
    let needed = bob.pool.get_replenishment_needed(START).unwrap();
    assert_eq!(needed, Replenishment { reupload: 20, create: 12 });
    let mut pending = bob.pool.pending_upload(START).unwrap();
    let mut made = made;
    pending.sort_by(|a, b| a.keypackage_ref().cmp(b.keypackage_ref()));
    made.sort_by(|a, b| a.keypackage_ref().cmp(b.keypackage_ref()));
    assert_eq!(pending, made, "the same bytes");
    assert!(bob.pool.pending_upload(START.after(14 * DAY)).unwrap().is_empty(), "unless ended");
}

#[test]
fn a_package_whose_keys_are_lost_is_named_and_not_uploaded() {
    let bob = Device::new("bob/phone");
    let made = bob.pool.generate_and_store(1, START).unwrap();
    lose_a_package(&bob.store);
    let refused = bob.pool.pending_upload(START).unwrap_err();
    let StorageError::Value { source, .. } = refused else { panic!("{refused}") };
    let short = made[0].keypackage_ref().short();
    assert_eq!(source.to_string(), format!("package {short} is missing"));
    assert_eq!(format!("{:?}", made[0]), format!("CreatedPackage({short})"), "no bytes are shown");
}

#[test]
fn packages_made_by_a_clock_that_ran_ahead_are_not_waited_for() {
    let bob = Device::new("bob/phone");
    bob.pool.generate_and_store(20, START.after(2 * DAY)).unwrap();
    let needed = bob.pool.get_replenishment_needed(START).unwrap();
    assert_eq!(needed, Replenishment { reupload: 0, create: 32 });
    assert_eq!(
        bob.pool.counts(START.after(2 * DAY)).unwrap().pending,
        20,
        "until their time comes"
    );
}

#[test]
fn no_more_are_made_than_the_cap_has_room_for() {
    let bob = Device::new("bob/phone");
    bob.pool.generate_and_store(60, START).unwrap();
    let refused = bob.pool.generate_and_store(5, START).unwrap_err();
    assert!(matches!(refused, PoolError::AboveCap { asked: 5, room: 4 }), "{refused}");
    assert_eq!(bob.store.history().unwrap().len(), 60);
    assert_eq!(bob.pool.generate_and_store(4, START).unwrap().len(), 4);
}

#[test]
fn what_happened_already_happens_no_second_time() {
    let bob = Device::new("bob/phone");
    let made = refs(&bob.pool.generate_and_store(3, START).unwrap());
    let command = fresh_command();
    assert_eq!(bob.pool.mark_uploaded(&made, START, command).unwrap(), 3);
    assert_eq!(bob.pool.mark_uploaded(&made, START, command).unwrap(), 0);
    assert!(bob.pool.mark_as_spent(&made[0], &group("g"), START).unwrap());
    assert!(!bob.pool.mark_as_spent(&made[0], &group("g"), START).unwrap());
    let reason = RevokeReason::Withdrawn;
    assert_eq!(bob.pool.mark_revoked(&made, reason, START, command).unwrap(), 2);
    assert_eq!(bob.pool.mark_revoked(&made, reason, START, command).unwrap(), 0);
    let later = START.after(15 * DAY);
    assert_eq!(bob.pool.expire(later).unwrap(), []);
    assert_eq!(bob.store.history().unwrap().len(), 3 + 3 + 1 + 2);
    let foreign = KeyPackageRef::new(&[1; 32]).unwrap();
    let refused = bob.pool.mark_uploaded(&[foreign], START, command).unwrap_err();
    assert!(matches!(refused, StorageError::Impossible(_)));
}

#[test]
fn expiry_deletes_the_private_keys() {
    let bob = Device::new("bob/phone");
    let made = bob.pool.generate_and_store(2, START).unwrap();
    let (made, end) = (refs(&made), made[0].facts.not_after);
    assert_eq!(
        end,
        START.after(13 * DAY + Duration::from_hours(1)),
        "a day of 14 lies in the past"
    );
    assert_eq!(bob.pool.expire(end).unwrap(), [], "an hour is left for clocks that differ");
    assert!(bob.pool.has_private_keys(&made[0]).unwrap());
    let expired = bob.pool.expire(end.after(Duration::from_hours(1))).unwrap();
    assert_eq!(expired.len(), 2);
    let bob = bob.restarted();
    for keypackage_ref in &made {
        assert!(!bob.pool.has_private_keys(keypackage_ref).unwrap());
        assert_eq!(bob.store.package(keypackage_ref).unwrap().stage, OwnStage::Expired);
    }
}

#[test]
fn withdrawn_packages_keep_their_keys_until_their_end() {
    let bob = Device::new("bob/phone");
    let made = refs(&bob.pool.generate_and_store(1, START).unwrap());
    bob.pool.mark_revoked(&made, RevokeReason::Rotated, START, fresh_command()).unwrap();
    bob.pool.expire(START.after(13 * DAY)).unwrap();
    assert!(bob.pool.has_private_keys(&made[0]).unwrap());
    bob.pool.expire(START.after(15 * DAY)).unwrap();
    assert!(!bob.pool.has_private_keys(&made[0]).unwrap());
    let stage = bob.store.package(&made[0]).unwrap().stage;
    assert_eq!(stage, OwnStage::Revoked { reason: RevokeReason::Rotated });
}

/// Something that happens to a pool.
#[derive(Clone, Copy, Debug)]
enum Step {
    Generate(u8),
    Upload(u8),
    Spend(u8),
    Revoke(u8),
    Wait { hours: u16 },
    Expire,
    Restart,
}

impl Arbitrary for Step {
    fn arbitrary(g: &mut Gen) -> Self {
        let number = u8::arbitrary(g);
        match u8::arbitrary(g) % 8 {
            0 | 1 => Self::Generate(number % 6),
            2 => Self::Upload(number),
            3 => Self::Spend(number),
            4 => Self::Revoke(number),
            5 => Self::Wait { hours: u16::from(number) * 2 },
            6 => Self::Expire,
            _ => Self::Restart,
        }
    }
}

/// A device whose history is made up by quickcheck.
struct Story {
    home: TempDir,
    pool: Option<(Arc<LocalStore>, KeyPackagePool)>,
    made: Vec<KeyPackageRef>,
    now: Timestamp,
}

impl Story {
    fn new() -> Self {
        let mut story =
            Self { home: TempDir::new().unwrap(), pool: None, made: vec![], now: START };
        story.open();
        story
    }

    fn open(&mut self) {
        self.pool = None;
        let store = Arc::new(LocalStore::open(self.home.path(), &pool("bob/phone")).unwrap());
        let identity = DeviceIdentity::load_or_create(&store).unwrap();
        let config = PoolConfig::default();
        let pool = KeyPackagePool::new(Arc::clone(&store), identity, config).unwrap();
        self.pool = Some((store, pool));
    }

    fn parts(&self) -> (&LocalStore, &KeyPackagePool) {
        let (store, pool) = self.pool.as_ref().unwrap();
        (store, pool)
    }

    fn pick(&self, number: u8) -> Option<KeyPackageRef> {
        let index = usize::from(number).checked_rem(self.made.len())?;
        Some(self.made[index].clone())
    }

    fn take(&mut self, step: Step) {
        let now = self.now;
        let (store, pool) = self.parts();
        let stage = |keypackage_ref: &KeyPackageRef| store.package(keypackage_ref).unwrap().stage;
        match step {
            Step::Generate(count) => match pool.generate_and_store(usize::from(count), now) {
                Ok(made) => self.made.extend(refs(&made)),
                Err(err) => assert!(matches!(err, PoolError::AboveCap { .. })),
            },
            Step::Upload(number) => {
                self.pick(number)
                    .map(|own| pool.mark_uploaded(&[own], now, fresh_command()).unwrap());
            }
            Step::Spend(number) => {
                if let Some(own) = self.pick(number).filter(|own| stage(own) != OwnStage::Expired) {
                    pool.mark_as_spent(&own, &group("g"), now).unwrap();
                }
            }
            Step::Revoke(number) => {
                let reason = RevokeReason::Withdrawn;
                self.pick(number)
                    .map(|own| pool.mark_revoked(&[own], reason, now, fresh_command()).unwrap());
            }
            Step::Wait { hours } => self.now = now.after(Duration::from_hours(hours.into())),
            Step::Expire => drop(pool.expire(now).unwrap()),
            Step::Restart => self.open(),
        }
    }

    /// The invariants.
    fn check(&self) {
        let (store, pool) = self.parts();
        let packages = store.stage().unwrap().packages_where(|_| true);
        assert_eq!(packages.len(), self.made.len(), "none is lost or made up");
        for own in &packages {
            let has_keys = pool.has_private_keys(&own.facts.keypackage_ref).unwrap();
            let ended = own.is_expired(self.now.before(Duration::from_hours(1)));
            let revoked = matches!(own.stage, OwnStage::Revoked { .. });
            if !(revoked && ended) {
                assert_eq!(has_keys, own.stage.keeps_keys(), "{own:?}");
            }
        }
        let uploaded = packages.iter().filter(|own| own.stage == OwnStage::Uploaded);
        let counts = pool.counts(self.now).unwrap();
        assert_eq!(counts.available, uploaded.filter(|own| !own.is_expired(self.now)).count());
        assert_eq!(counts.pending, pool.pending_upload(self.now).unwrap().len());
        assert!(counts.live + counts.pending <= pool.config().hard_cap);
    }
}

#[test]
fn keys_are_there_exactly_as_long_as_an_invitation_may_come() {
    fn property(steps: Vec<Step>) -> bool {
        let mut story = Story::new();
        for step in steps {
            story.take(step);
            story.check();
        }
        true
    }
    QuickCheck::new().rng(Gen::new(25)).tests(25).quickcheck(property as fn(Vec<Step>) -> bool);
}
