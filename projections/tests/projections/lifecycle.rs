//! Every stage against every event, as one table for single-use and one for last-resort packages.

use insta::assert_snapshot;
use keypool_projections::{Stage, next};

use crate::history::events_of_a;

#[test]
fn what_may_follow_what() {
    assert_snapshot!(table(false), @"
    from      created   uploaded  reserved  renewed   released  spent     expired   revoked   conflict  reported
    -         Created   Available -         -         -         -         -         -         -         -
    Created   -         Available -         -         -         Spent     Expired   Revoked   -         -
    Available -         -         Reserved  -         -         Spent     Expired   Revoked   Available Available
    Reserved  -         -         -         Reserved  Available Spent     Expired   Revoked   Reserved  Reserved
    Spent     -         -         -         -         -         -         -         -         Spent     Spent
    Expired   -         -         -         -         Expired   Spent     -         -         Expired   Expired
    Revoked   -         -         -         -         Revoked   Spent     -         -         Revoked   Revoked
    ");
}

#[test]
fn a_last_resort_package_is_never_used_up() {
    assert_snapshot!(table(true), @"
    from      created   uploaded  reserved  renewed   released  spent     expired   revoked   conflict  reported
    -         Created   Available -         -         -         -         -         -         -         -
    Created   -         Available -         -         -         Available Expired   Revoked   -         -
    Available -         -         Available Available Available Available Expired   Revoked   Available Available
    Reserved  -         -         -         Reserved  Available Spent     Expired   Revoked   Reserved  Reserved
    Spent     -         -         -         -         -         -         -         -         Spent     Spent
    Expired   -         -         -         -         Expired   Expired   -         -         Expired   Expired
    Revoked   -         -         -         -         Revoked   Revoked   -         -         Revoked   Revoked
    ");
}

fn table(last_resort: bool) -> String {
    use Stage::{Available, Created, Expired, Reserved, Revoked, Spent};
    let events = events_of_a(last_resort);
    let name = |stage: Option<Stage>| stage.map_or("-".into(), |stage| format!("{stage:?}"));
    let pad = |cell: &str| format!("{cell:<10}");
    let heading = std::iter::once("from").chain(events.iter().map(keypool_ledger::Event::name));
    let mut lines = vec![heading.map(pad).collect::<String>()];
    let stages = [Created, Available, Reserved, Spent, Expired, Revoked].map(Some);
    for stage in std::iter::once(None).chain(stages) {
        let cells = events.iter().map(|event| name(next(stage, event, last_resort)));
        lines.push(std::iter::once(name(stage)).chain(cells).map(|cell| pad(&cell)).collect());
    }
    lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n")
}
