//! The counts, as stories and properties.

use quickcheck::{Arbitrary, Gen, quickcheck};
use uuid::Uuid;

use super::*;

const QUOTAS: Quotas = Quotas {
    pair: Rate::new(3, Duration::from_secs(50)),
    pair_held_max: 2,
    held_max: 4,
    requests: Rate::new(20, Duration::from_secs(1)),
    strangers: Rate::new(5, Duration::from_secs(20)),
    ..Quotas::STANDARD
};
const HELD_FOR: Duration = Duration::from_mins(2);

/// One of four inviters asks one of three pools, so many seconds after the one before, and later ends
/// the claim or not.
#[derive(Clone, Debug)]
struct Step {
    inviter: u8,
    pool: u8,
    gap_s: u8,
    ends: bool,
}

impl Arbitrary for Step {
    fn arbitrary(g: &mut Gen) -> Self {
        let small = |g: &mut Gen, max: u8| u8::arbitrary(g) % max;
        Self {
            inviter: small(g, 4),
            pool: small(g, 3),
            gap_s: small(g, 12),
            ends: bool::arbitrary(g),
        }
    }
}

fn ask(keys: &Keys, step: &Step, number: usize, now: Timestamp) -> Ask {
    let device = |kind: &str, number: u8| PoolId::of(&format!("{kind}{number}"), None).unwrap();
    let reservation = ReservationId(Uuid::from_u128(number as u128));
    let stranger = Relation::Stranger(QUOTAS.strangers);
    let relation = if 0 < step.inviter { stranger } else { Relation::Contact };
    let claim = (reservation, relation, now.after(HELD_FOR));
    Ask::new(keys, &device("inviter", step.inviter), &device("pool", step.pool), claim)
}

/// Plays steps, and shows each ask that was granted, and each refusal before anything has changed.
fn play(
    steps: &[Step],
    mut see: impl FnMut(&Inviters, &Targets, &Ask, Timestamp, Result<Granted, OverQuota>),
) -> (Inviters, Targets, Timestamp) {
    let (keys, mut now) = (Keys::default(), Timestamp::from_secs(10_000));
    let (mut inviters, mut targets) = (Inviters::default(), Targets::default());
    for (number, step) in steps.iter().enumerate() {
        now = now.after(Duration::from_secs(u64::from(step.gap_s)));
        let ask = ask(&keys, step, number, now);
        let answer = inviters.ask(&mut targets, &ask, &QUOTAS, now);
        see(&inviters, &targets, &ask, now, answer);
        if step.ends {
            inviters.end(ask.inviter, ask.reservation);
        }
    }
    (inviters, targets, now)
}

quickcheck! {
    fn whoever_is_refused_and_comes_back_when_told_is_granted_it(steps: Vec<Step>) -> bool {
        let mut is_right = true;
        play(&steps, |inviters, targets, ask, now, answer| {
            let Err(over) = answer else { return };
            let again = |then| {
                let (mut inviters, mut targets) = (inviters.clone(), targets.clone());
                inviters.ask(&mut targets, ask, &QUOTAS, then) == Ok(Granted::Counted)
            };
            is_right &= again(now.after(over.wait));
            is_right &= again(now.after(Duration::from_secs(over.retry_after_s())));
            is_right &= !again(now.after(over.wait).before(Duration::from_millis(1)));
        });
        is_right
    }

    fn nobody_holds_or_gets_more_than_they_may(steps: Vec<Step>) -> bool {
        let mut granted: HashMap<u64, Vec<Timestamp>> = HashMap::new();
        let mut is_right = true;
        play(&steps, |inviters, _, ask, now, answer| {
            if answer.is_ok() && ask.relation != Relation::Contact {
                granted.entry(ask.pair).or_default().push(now);
            }
            let held = inviters.0.get(&ask.inviter).map_or(0, |inviter| inviter.held.len());
            is_right &= held <= QUOTAS.held_max;
        });
        let fits = |times: &Vec<Timestamp>| {
            let span = times.last().copied().unwrap_or_default().since(*times.first().unwrap());
            times.len() as u128 <= 3 + span.as_millis() / QUOTAS.pair.every.as_millis()
        };
        is_right && granted.values().all(fits)
    }

    fn what_was_granted_and_counted_anew_is_what_was_counted(steps: Vec<Step>) -> bool {
        let (mut inviters, mut targets) = (Inviters::default(), Targets::default());
        let mut number = 0;
        let (live, counted, now) = play(&steps, |_, _, ask, now, answer| {
            match answer {
                Ok(Granted::LastResort(_)) => {
                    inviters.count(&mut targets, &ask.last_resort(), &QUOTAS, now);
                }
                Ok(_) => inviters.count(&mut targets, ask, &QUOTAS, now),
                Err(_) => {}
            }
            if steps.get(number).is_some_and(|step: &Step| step.ends) {
                inviters.end(ask.inviter, ask.reservation);
            }
            number += 1;
        });
        let held = |all: &Inviters| -> HashMap<u64, usize> {
            let open = |inviter: &InviterTally| {
                inviter.held.iter().filter(|held| now < held.until).count()
            };
            let all = all.0.iter().map(|(key, inviter)| (*key, open(inviter)));
            all.filter(|(_, count)| 0 < *count).collect()
        };
        held(&live) == held(&inviters)
            && counted.pairs == targets.pairs
            && counted.contacts == targets.contacts
            && counted.strangers == targets.strangers
    }

    fn what_is_swept_away_makes_no_difference(steps: Vec<Step>) -> bool {
        let (mut inviters, mut targets, now) = play(&steps, |_, _, _, _, _| {});
        let keys = Keys::default();
        let (before, at) = ((inviters.clone(), targets.clone()), now.after(HELD_FOR / 2));
        inviters.sweep(at);
        targets.sweep(at);
        let mut is_right = true;
        for (inviter, pool) in [(0, 0), (1, 1), (2, 2), (3, 0)] {
            let step = Step { inviter, pool, gap_s: 0, ends: false };
            let asked = ask(&keys, &step, 1000, at);
            let (mut all, mut others) = before.clone();
            is_right &= inviters.clone().ask(&mut targets.clone(), &asked, &QUOTAS, at)
                == all.ask(&mut others, &asked, &QUOTAS, at);
        }
        let after = at.after(Duration::from_hours(1));
        inviters.sweep(after);
        targets.sweep(after);
        is_right && inviters.is_empty() && targets.is_empty()
    }
}

#[test]
fn there_is_room_for_so_many_and_then_one_waits_for_the_first_to_go() {
    let (keys, now) = (Keys::default(), Timestamp::from_secs(10_000));
    let mut targets = Targets::default();
    for pair in 0..ENTRIES_MAX as u64 {
        let at = now.before(Duration::from_millis(pair % 1000));
        targets.pairs.entry(pair).or_default().take(&QUOTAS.pair, 1, at);
    }
    let step = Step { inviter: 1, pool: 1, gap_s: 0, ends: false };
    let mut refuse =
        |at| Inviters::default().ask(&mut targets, &ask(&keys, &step, 1, at), &QUOTAS, at);
    let over = refuse(now).unwrap_err();
    assert_eq!((over.quota, over.wait), (Quota::Room, Duration::from_millis(50_000 - 999)));
    assert_eq!(refuse(now.after(over.wait)), Ok(Granted::Counted));
}
