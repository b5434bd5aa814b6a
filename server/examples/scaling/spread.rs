//! Users hashed to machines, some users more popular than others: a simulation with a fixed seed.

use std::collections::BTreeSet;

/// How many users are simulated.
pub(crate) const USERS: u64 = 200_000;
/// How many invitations of each size are simulated.
pub(crate) const INVITATIONS: u32 = 2_000;
/// The moment at which every run begins.
const SEED: u64 = 2027;

/// How evenly the work lies on some machines.
pub(crate) struct Evenness {
    /// The fullest machine's users, beside the mean.
    pub(crate) users: f64,
    /// The busiest machine's invitations, beside the mean.
    pub(crate) load: f64,
    /// The share of all invitations that the most popular user has.
    pub(crate) top_user: f64,
}

/// How many machines an invitation touches.
pub(crate) struct Touched {
    pub(crate) mean: f64,
    /// At the median and in the worst of a hundred.
    pub(crate) p50: usize,
    pub(crate) p99: usize,
    /// The share of invitations that stay on one machine.
    pub(crate) on_one: f64,
}

/// How popular each user is, added up: the last is all of it.
pub(crate) fn popularity(exponent: f64) -> Vec<f64> {
    let mut sum = 0.0;
    let rank = |n: u64| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    let one = |n| {
        sum += rank(n).powf(-exponent);
        sum
    };
    (1..=USERS).map(one).collect()
}

/// The machine that has a user: all devices of it, so that a user's pools are in one log.
fn machine_of(user: u64, machines: u64) -> u64 {
    mixed(user) % machines
}

/// How evenly the users and their invitations lie on so many machines.
pub(crate) fn evenness(summed: &[f64], machines: u64) -> Evenness {
    let count = usize::try_from(machines).unwrap_or(1);
    let (mut users, mut load) = (vec![0.0_f64; count], vec![0.0_f64; count]);
    let mut before = 0.0;
    for (user, sum) in (0_u64..).zip(summed) {
        let place = usize::try_from(machine_of(user, machines)).unwrap_or_default();
        if let (Some(users), Some(load)) = (users.get_mut(place), load.get_mut(place)) {
            *users += 1.0;
            *load += sum - before;
        }
        before = *sum;
    }
    let first = summed.first().copied().unwrap_or_default();
    Evenness { users: max_to_mean(&users), load: max_to_mean(&load), top_user: first / before }
}

fn max_to_mean(of_machines: &[f64]) -> f64 {
    let sum: f64 = of_machines.iter().sum();
    let count: f64 = of_machines.iter().map(|_| 1.0).sum();
    of_machines.iter().copied().fold(0.0, f64::max) / (sum / count)
}

/// How many machines an invitation of so many people touches.
pub(crate) fn touched(summed: &[f64], machines: u64, people: usize) -> Touched {
    let mut random = Random(SEED);
    let mut counts: Vec<usize> = (0..INVITATIONS)
        .map(|_| {
            let mut invited = BTreeSet::new();
            while invited.len() < people {
                invited.insert(random.user(summed));
            }
            let touched: BTreeSet<u64> =
                invited.iter().map(|user| machine_of(*user, machines)).collect();
            touched.len()
        })
        .collect();
    counts.sort_unstable();
    let at = |percent: usize| counts.get(counts.len() * percent / 100).copied().unwrap_or_default();
    let as_f64 = |count: usize| u32::try_from(count).map_or(f64::MAX, f64::from);
    let share = |sum: usize| as_f64(sum) / f64::from(INVITATIONS);
    Touched {
        mean: share(counts.iter().sum()),
        p50: at(50),
        p99: at(99),
        on_one: share(counts.iter().filter(|count| **count == 1).count()),
    }
}

/// Numbers that look random and are the same in every run: SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mixed(self.0)
    }

    /// A user, drawn by popularity.
    fn user(&mut self, summed: &[f64]) -> u64 {
        let all = summed.last().copied().unwrap_or_default();
        let high = u32::try_from(self.next() >> 32).unwrap_or_default();
        let drawn = f64::from(high) / f64::from(u32::MAX) * all;
        summed.partition_point(|sum| *sum < drawn) as u64
    }
}

fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
