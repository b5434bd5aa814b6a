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
    for pair in 1..ENTRIES_MAX as u64 {
        let at = now.before(Duration::from_millis(pair % 1000));
        targets.pairs.entry(pair).or_default().take(&QUOTAS.pair, 1, at);
    }
    // Contacts take places of the same room.
    targets.contacts.entry(0).or_default().take(&QUOTAS.contact_pair, 9, now);
    let step = Step { inviter: 1, pool: 1, gap_s: 0, ends: false };
    let mut refuse =
        |at| Inviters::default().ask(&mut targets, &ask(&keys, &step, 1, at), &QUOTAS, at);
    let over = refuse(now).unwrap_err();
    assert_eq!((over.quota, over.wait), (Quota::Room, Duration::from_millis(50_000 - 999)));
    assert_eq!(refuse(now.after(over.wait)), Ok(Granted::Counted));
}

/// Rates that are in nobody's way, and few reservations at once.
const HELD: Quotas = Quotas {
    pair: Rate::new(100, Duration::from_secs(1)),
    contact_pair: Rate::new(100, Duration::from_secs(1)),
    requests: Rate::new(100, Duration::from_secs(1)),
    pair_held_max: 2,
    contact_held_max: 3,
    held_max: 5,
    ..Quotas::STANDARD
};
const NOW: Timestamp = Timestamp::from_secs(10_000);
const PLENTY: Rate = Rate::new(100, Duration::from_secs(1));

/// An ask by a user for a package of a pool, by the reservation with a number, which lapses in two minutes.
fn asked(keys: &Keys, (user, pool): (&str, &str), number: u128, relation: Relation) -> Ask {
    let device = |name: &str| PoolId::of(name, None).unwrap();
    let claim = (ReservationId(Uuid::from_u128(number)), relation, NOW.after(HELD_FOR));
    Ask::new(keys, &device(user), &device(pool), claim)
}

#[test]
fn a_key_is_of_one_user_and_of_one_pool() {
    let keys = Keys::default();
    let pools = ["bob/phone", "bob/laptop", "carol"].map(|name| name.parse::<PoolId>().unwrap());
    let all = pools.each_ref().map(|pool| keys.pool(pool));
    assert!(all[0] != all[1] && all[1] != all[2] && all[0] == keys.pool(&pools[0]));
    assert_ne!(keys.user("bob"), keys.user("carol"));
    assert_eq!(keys.user("bob"), keys.user(pools[1].user()));
    let ask = asked(&keys, ("alice", "bob"), 1, Relation::Contact);
    assert_eq!(ask.last_resort(), Ask { relation: Relation::LastResort, ..ask });
}

#[test]
fn an_inviter_holds_so_many_packages_of_one_pool_and_of_all() {
    let keys = Keys::default();
    let (mut inviters, mut targets) = (Inviters::default(), Targets::default());
    let mut ask = |pool: &str, number, relation| {
        let ask = asked(&keys, ("alice", pool), number, relation);
        inviters.ask(&mut targets, &ask, &HELD, NOW).map_err(|over| (over.quota, over.wait))
    };
    let stranger = Relation::Stranger(PLENTY);
    let counted = Ok(Granted::Counted);
    assert_eq!([1, 2].map(|number| ask("bob", number, stranger)), [counted, counted]);
    assert_eq!(ask("bob", 2, stranger), Ok(Granted::Repeated), "it holds that already");
    assert_eq!(ask("bob", 3, stranger), Err((Quota::PairHeld, HELD_FOR)));
    assert_eq!(ask("bob", 3, Relation::LastResort), Err((Quota::PairHeld, HELD_FOR)));
    assert_eq!(ask("bob", 3, Relation::Contact), counted, "a contact holds one more");
    assert_eq!(ask("bob", 4, Relation::Contact), Err((Quota::PairHeld, HELD_FOR)));
    assert_eq!([5, 6].map(|number| ask("carol", number, stranger)), [counted, counted]);
    let held = |outcome: Result<Granted, (Quota, Duration)>| outcome.unwrap_err().1;
    assert_eq!(held(ask("dave", 7, stranger)), HELD_FOR, "five in all");
}

#[test]
fn over_the_rate_of_strangers_a_new_inviter_has_the_last_resort_alone() {
    let keys = Keys::default();
    let (mut inviters, mut targets) = (Inviters::default(), Targets::default());
    let rate = Rate::new(2, Duration::from_secs(20));
    let mut ask = |user: &str, number, relation| {
        let ask = asked(&keys, (user, "bob"), number, relation);
        inviters.ask(&mut targets, &ask, &HELD, NOW)
    };
    let over = OverQuota { quota: Quota::Strangers, wait: Duration::from_secs(20) };
    let stranger = Relation::Stranger(rate);
    for (user, number) in [("u1", 1), ("u2", 2)] {
        assert_eq!(ask(user, number, stranger), Ok(Granted::Counted));
    }
    assert_eq!(ask("u3", 3, stranger), Ok(Granted::LastResort(over)));
    assert_eq!(ask("u3", 4, stranger), Err(over), "it has had one lately");
    assert_eq!(ask("u1", 5, stranger), Err(over));
    assert_eq!(ask("u4", 6, Relation::LastResort), Ok(Granted::Counted), "no rate limits that");
    assert_eq!(ask("u5", 7, Relation::Contact), Ok(Granted::Counted));
}

#[test]
fn a_package_that_was_not_handed_out_is_not_counted() {
    let keys = Keys::default();
    let one = Rate::new(1, Duration::from_secs(10));
    let quotas = Quotas { pair: one, contact_pair: one, requests: Rate::new(2, one.every), ..HELD };
    for (relation, repeated) in [
        (Relation::Stranger(one), false),
        (Relation::Stranger(one), true),
        (Relation::Contact, false),
    ] {
        let (mut inviters, mut targets) = (Inviters::default(), Targets::default());
        let ask = asked(&keys, ("alice", "bob"), 1, relation);
        assert_eq!(inviters.ask(&mut targets, &ask, &quotas, NOW), Ok(Granted::Counted));
        inviters.give_back(&mut targets, &ask, &quotas, repeated);
        let again = |inviters: &Inviters| {
            let (mut inviters, mut targets) = (inviters.clone(), targets.clone());
            [2, 3].map(|number| {
                let ask = asked(&keys, ("alice", &format!("p{number}")), number, relation);
                inviters.ask(&mut targets, &ask, &quotas, NOW).is_ok()
            })
        };
        assert_eq!(again(&inviters), [true, repeated], "the request counts");
        let retried = inviters.ask(&mut targets, &ask, &quotas, NOW);
        assert_eq!(retried, Ok(Granted::Counted), "{relation:?}: the claim is not held");
    }
}

#[test]
fn a_claim_counts_until_it_ends_or_lapses() {
    let keys = Keys::default();
    let (mut inviters, mut targets) = (Inviters::default(), Targets::default());
    let stranger = Relation::Stranger(PLENTY);
    let of = |number| asked(&keys, ("alice", "bob"), number, stranger);
    let again = |inviters: &Inviters, targets: &Targets, now| {
        inviters.clone().ask(&mut targets.clone(), &of(9), &HELD, now)
    };
    for number in [1, 2] {
        inviters.ask(&mut targets, &of(number), &HELD, NOW).unwrap();
    }
    let over = again(&inviters, &targets, NOW);
    assert_eq!(over, Err(OverQuota { quota: Quota::PairHeld, wait: HELD_FOR }));
    let mut ended = inviters.clone();
    ended.end(of(1).inviter, of(1).reservation);
    assert_eq!(again(&ended, &targets, NOW), Ok(Granted::Counted));
    let repeated = ended.clone().ask(&mut targets.clone(), &of(2), &HELD, NOW);
    assert_eq!(repeated, Ok(Granted::Repeated), "the other claim is held");
    let longer = NOW.after(HELD_FOR * 2);
    inviters.extend(of(1).inviter, of(1).reservation, longer);
    let repeats = [1, 2].map(|number| {
        let (inviters, targets) = (&mut inviters.clone(), &mut targets.clone());
        inviters.ask(targets, &of(number), &HELD, NOW.after(HELD_FOR)) == Ok(Granted::Repeated)
    });
    assert_eq!(repeats, [true, false], "one of them lasts longer");
    inviters.extend(of(1).inviter, of(2).reservation, longer);
    let over = again(&inviters, &targets, NOW.after(HELD_FOR));
    assert_eq!(over, Err(OverQuota { quota: Quota::PairHeld, wait: HELD_FOR }));
    assert_eq!(again(&inviters, &targets, longer), Ok(Granted::Counted));
}

#[test]
fn counts_are_dropped_once_they_are_over() {
    let keys = Keys::default();
    let (mut inviters, mut targets) = (Inviters::default(), Targets::default());
    assert_eq!((inviters.len(), inviters.is_empty()), (0, true));
    for (number, user) in [(1, "u1"), (2, "u2"), (3, "u3")] {
        let ask = asked(&keys, (user, "bob"), number, Relation::Stranger(PLENTY));
        inviters.ask(&mut targets, &ask, &HELD, NOW).unwrap();
    }
    let contact = asked(&keys, ("u1", "bob"), 4, Relation::Contact);
    inviters.ask(&mut targets, &contact, &HELD, NOW).unwrap();
    targets.count_device((Quota::Posts, 7), 1, &PLENTY, NOW);
    targets.count_device((Quota::Groups, 7), 9, &PLENTY, NOW);
    let sizes = |inviters: &Inviters, targets: &Targets| {
        (inviters.len(), inviters.is_empty(), targets.len(), targets.is_empty())
    };
    // Three pairs, a contact, the strangers of a pool, and two quotas of a device.
    assert_eq!(sizes(&inviters, &targets), (3, false, 7, false));
    inviters.sweep(NOW);
    targets.sweep(NOW);
    assert_eq!(sizes(&inviters, &targets), (3, false, 7, false));
    // A reservation that lasts keeps its inviter, and so does a rate that is not full again.
    let keep = NOW.after(Duration::from_secs(1));
    inviters.sweep(keep);
    targets.sweep(keep);
    assert_eq!(sizes(&inviters, &targets), (3, false, 2, false));
    inviters.sweep(NOW.after(HELD_FOR).before(Duration::from_millis(1)));
    assert_eq!(inviters.len(), 3);
    let mut asking = inviters.clone();
    inviters.sweep(NOW.after(HELD_FOR));
    assert_eq!((inviters.len(), inviters.is_empty()), (0, true));
    let slow = Quotas { requests: Rate::new(1, Duration::from_hours(1)), ..HELD };
    let late = NOW.after(HELD_FOR);
    let refused = asked(&keys, ("u1", "bob"), 5, Relation::Stranger(PLENTY));
    asking.ask(&mut targets, &refused, &slow, late).unwrap();
    asking.end(refused.inviter, refused.reservation);
    asking.sweep(late);
    assert_eq!(asking.len(), 1, "its requests are counted");
}

#[test]
fn a_device_does_so_much_and_what_it_has_not_done_is_forgotten() {
    let mut targets = Targets::default();
    let (of, rate) = ((Quota::Uploads, 7), Rate::new(3, Duration::from_secs(10)));
    assert_eq!(targets.device(of, 2, &rate, NOW), Ok(()));
    let over = OverQuota { quota: Quota::Uploads, wait: Duration::from_secs(10) };
    assert_eq!(targets.device(of, 2, &rate, NOW), Err(over));
    assert_eq!(targets.device((Quota::Policy, 7), 2, &rate, NOW), Ok(()), "each by itself");
    targets.give_back_device(of, 1, &rate);
    assert_eq!(targets.device(of, 2, &rate, NOW), Ok(()));
    targets.count_device(of, 2, &rate, NOW);
    let over = OverQuota { quota: Quota::Uploads, wait: Duration::from_secs(30) };
    assert_eq!(targets.device(of, 1, &rate, NOW), Err(over), "counted, though it was too much");
}

#[test]
fn a_pair_whose_rate_is_full_again_is_forgotten() {
    let keys = Keys::default();
    let (mut inviters, mut targets) = (Inviters::default(), Targets::default());
    let ask = asked(&keys, ("alice", "bob"), 1, Relation::Contact);
    inviters.ask(&mut targets, &ask, &HELD, NOW).unwrap();
    targets.forget_full(&ask, NOW);
    assert_eq!(targets.len(), 1);
    targets.forget_full(&ask, NOW.after(Duration::from_secs(1)));
    assert_eq!((targets.len(), targets.is_empty()), (0, true));
}
