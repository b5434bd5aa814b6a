//! Steps of random histories, drawn by quickcheck.

use std::time::Duration;

use keypool_ledger::RevokeReason;
use keypool_projections::{Command, RevokeScope};
use quickcheck::{Arbitrary, Gen};

use crate::history::{claim, group, package, pool, reference, reservation};

const NAMES: [&str; 12] = ["a", "b", "c", "d", "e2", "f", "a'", "L", "L2", "g:1", "h:1", "i:2"];

/// One step of a history: a command, and how long before it nothing happened.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) pause: Duration,
    pub(crate) command: Command,
}

impl Arbitrary for Step {
    fn arbitrary(g: &mut Gen) -> Self {
        // Pauses that stand on and beside every boundary of time.
        let pauses = [0, 0, 0, 1, 1000, 59_999, 60_000, 60_001, 119_999, 120_000, 120_001, 400_000];
        let pause = Duration::from_millis(*g.choose(&pauses).unwrap());
        Self { pause, command: command(g) }
    }
}

fn command(g: &mut Gen) -> Command {
    let name = |g: &mut Gen| *g.choose(&NAMES).unwrap();
    let who = *g.choose(&["alice", "alice", "carol"]).unwrap();
    let (named, number) = (name(g), u8::arbitrary(g) % 7);
    let claim = claim(named, number, who);
    match u8::arbitrary(g) % 12 {
        0 | 1 => Command::Upload((0..u8::arbitrary(g) % 4).map(|_| package(name(g))).collect()),
        2..=5 => Command::Reserve {
            reservation: reservation(number),
            holder: pool(who),
            group: group("g"),
            ciphersuites: g.choose(&[vec![], vec![], vec![2], vec![1, 2]]).unwrap().clone(),
            required: keypool_projections::RequiredCapabilities::default(),
            introduced: false,
            last_resort_only: false,
        },
        6..=8 => Command::Spend { claim, group: group("g") },
        9 if bool::arbitrary(g) => {
            Command::Report { claim, check: None, admissible: bool::arbitrary(g) }
        }
        9 => Command::Release(claim),
        10 => Command::Renew(claim),
        _ if u8::arbitrary(g) % 3 == 0 => Command::Replace {
            packages: (0..u8::arbitrary(g) % 4).map(|_| package(name(g))).collect(),
            next: None,
        },
        _ if bool::arbitrary(g) => Command::Settle,
        _ => Command::Revoke {
            which: RevokeScope::Refs(vec![reference(named), reference(name(g))]),
            reason: RevokeReason::Withdrawn,
        },
    }
}
