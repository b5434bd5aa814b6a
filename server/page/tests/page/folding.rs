//! The overview of all pools against the whole fold of each.

use std::time::Duration;

use keypool_ledger::{Event, EventLog, Timestamp};
use keypool_operator_page::PoolsOverview;
use keypool_projections::{Command, Level, Remover, RevokeScope};
use quickcheck::quickcheck;

use crate::{
    history::{claim, group, pool, reference, reservation},
    recorded::Recorded,
    steps::Step,
};

const OWNERS: [&str; 3] = ["bob", "dave", "erin/phone"];

fn overview_of(recorded: &Recorded) -> PoolsOverview {
    let mut overview = PoolsOverview::default();
    for record in recorded.log.read(1, usize::MAX).unwrap() {
        overview.apply(record.seq, &record.envelope);
    }
    overview
}

/// The figures of the pools by the overview and by the whole fold, in which they differ.
fn differences(recorded: &Recorded) -> Vec<String> {
    let (overview, now) = (overview_of(recorded), Timestamp::default());
    let (mut open, mut differ) = (0, Vec::new());
    for owner in OWNERS {
        let state = recorded.state(owner);
        open += state.open_reservations().count() as u64;
        let last_resort = state.live().filter(|package| package.facts.last_resort).count() as u64;
        let counts = state.counts();
        let expected = (counts.available, counts.reserved, last_resort, state.is_removed());
        let Some(known) = overview.pool(&pool(owner), now) else {
            if state.version() != 0 {
                differ.push(format!("{owner} is not there"));
            }
            continue;
        };
        let found = (known.available, known.reserved, known.last_resort, known.is_removed);
        if found != expected || known.level != Level::of(counts.available) {
            differ.push(format!("{owner}: {found:?}, not {expected:?}"));
        }
    }
    if overview.open_reservations() != open {
        differ.push(format!("{} open, not {open}", overview.open_reservations()));
    }
    differ
}

quickcheck! {
    fn the_overview_counts_as_the_whole_fold(steps: Vec<(u8, Step)>) -> bool {
        let recorded = Recorded::new();
        for (owner, Step { pause, command }) in steps {
            recorded.clock.advance(pause);
            let _ = recorded.run(OWNERS[usize::from(owner) % OWNERS.len()], &command);
        }
        differences(&recorded).is_empty()
    }
}

#[test]
fn a_late_spend_is_counted_where_its_package_is() {
    let claim = |name: &str, number| claim(name, number, "alice");
    let spend =
        |name: &str, number| Command::Spend { claim: claim(name, number), group: group("g") };
    // Lapsed and there; lapsed and expired since; expired while it was held.
    for (first_pause, second_pause, left) in [(121, 0, 0), (121, 2000, 0), (59, 2000, 0)] {
        let recorded = Recorded::new();
        recorded.register("bob/main", 1, "bob");
        recorded.upload("bob", &["a"]);
        recorded.reserve("bob", 1, "alice");
        recorded.wait(first_pause);
        recorded.run("bob", &Command::Settle).unwrap();
        recorded.wait(second_pause);
        recorded.run("bob", &Command::Settle).unwrap();
        recorded.run("bob", &spend("a", 1)).unwrap();
        assert_eq!(differences(&recorded), [""; 0]);
        assert_eq!(recorded.state("bob").counts().available, left);
    }
}

#[test]
fn lapses_and_conflicts_are_of_the_last_hour() {
    let recorded = crate::recorded::story();
    let overview = overview_of(&recorded);
    let sum = |now: Timestamp| {
        let hour = overview.last_hour(now);
        assert_eq!(hour.len(), 60);
        let lapsed: u64 = hour.iter().map(|minute| minute.lapsed).sum();
        (lapsed, hour.iter().map(|minute| minute.conflicts).sum::<u64>())
    };
    let at = overview.at();
    assert_eq!(sum(at), (1, 1));
    assert_eq!(sum(at.after(Duration::from_mins(30))), (1, 1));
    assert_eq!(sum(at.after(Duration::from_mins(63))), (0, 0));
    assert_eq!(sum(Timestamp::MAX), (0, 0));
}

#[test]
fn pools_run_dry_by_their_pace_and_by_the_end_of_their_packages() {
    let recorded = Recorded::new();
    recorded.register("bob/main", 1, "bob");
    recorded.register("dave/main", 2, "dave");
    recorded.upload("bob", &["a", "b", "c"]);
    recorded.upload("dave", &["x", "y", "z"]);
    recorded.wait(10);
    let overview = overview_of(&recorded);
    let dry_at = |overview: &PoolsOverview, name: &str| {
        overview.pool(&pool(name), overview.at()).unwrap().dry_at
    };
    let end = crate::history::at(1000);
    assert_eq!(dry_at(&overview, "bob"), end, "nothing was spent: when the packages end");
    assert_eq!(overview.running_dry(overview.at(), 0, 9).len(), 2);

    recorded.reserve("bob", 1, "alice");
    let held = recorded.state("bob").reservation(reservation(1)).unwrap().keypackage_ref.clone();
    let name = ["a", "b", "c"].into_iter().find(|name| reference(name) == held).unwrap();
    let spend = Command::Spend { claim: claim(name, 1, "alice"), group: group("g") };
    recorded.run("bob", &spend).unwrap();
    let overview = overview_of(&recorded);
    assert_eq!(dry_at(&overview, "bob"), end, "two last two days at this pace, and end before");
    assert_eq!(overview.pool(&pool("bob"), overview.at()).unwrap().spent_24h, 1);

    let all = Command::Revoke {
        which: RevokeScope::All,
        reason: keypool_ledger::RevokeReason::Withdrawn,
    };
    recorded.wait(7);
    recorded.run("dave", &all).unwrap();
    let mut overview = overview_of(&recorded);
    assert_eq!(dry_at(&overview, "dave"), overview.at(), "it is empty since then");
    let empty = overview.of(Level::Empty, overview.at(), (0, 9));
    assert_eq!(empty.iter().map(|pool| pool.pool.to_string()).collect::<Vec<_>>(), ["dave/main"]);
    overview.advance(overview.at().after(Duration::from_hours(999)));
    assert_eq!(dry_at(&overview, "bob"), end, "its packages have ended, whatever the pace");
}

#[test]
fn a_pool_that_lasts_longer_than_was_foreseen_moves_back_in_the_order() {
    let recorded = Recorded::new();
    recorded.register("bob/main", 1, "bob");
    recorded.upload("bob", &["a", "b"]);
    recorded.reserve("bob", 1, "alice");
    let held = recorded.state("bob").reservation(reservation(1)).unwrap().keypackage_ref.clone();
    let name = if reference("a") == held { "a" } else { "b" };
    let spend = Command::Spend { claim: claim(name, 1, "alice"), group: group("g") };
    recorded.run("bob", &spend).unwrap();
    // The same, with packages that live for a month.
    let (mut overview, month) = (PoolsOverview::default(), Duration::from_hours(30 * 24));
    let mut end = Timestamp::default();
    for mut record in recorded.log.read(1, usize::MAX).unwrap() {
        if let Event::Uploaded(facts) = &mut record.envelope.event {
            facts.not_after = facts.not_before.after(month);
            end = facts.not_after;
        }
        overview.apply(record.seq, &record.envelope);
    }
    let day = Duration::from_hours(24);
    let dry_at = |overview: &PoolsOverview| overview.running_dry(overview.at(), 0, 1)[0].dry_at;
    assert_eq!(dry_at(&overview), overview.at().after(day), "one left, at one a day");
    overview.advance(overview.at().after(day).after(day));
    assert_eq!(dry_at(&overview), end, "nobody has come since");
}

#[test]
fn a_removed_device_is_at_no_level() {
    let recorded = Recorded::new();
    recorded.register("bob/main", 1, "bob");
    recorded.upload("bob", &["a"]);
    let by = keypool_ledger::SignatureKey::new(&[1; 32]).unwrap();
    recorded.run("bob", &Command::Remove { by: Remover::Key(by) }).unwrap();
    let overview = overview_of(&recorded);
    assert!(overview.levels().iter().all(|(_, count)| *count == 0));
    assert!(overview.of_users("bo", overview.at(), 9)[0].is_removed);
    recorded.register("bob/main", 9, "bob");
    assert!(overview_of(&recorded).levels().contains(&(Level::Empty, 1)));
}
