//! Decides whether the answers about a package can be explained by some order of the requests that has each between
//! its first sending and its answer. It knows nothing of the server but the rules for one package.

use std::collections::{BTreeMap, BTreeSet};

use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};
use uuid::Uuid;

/// The question of a request about a package, with the id of the reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Reserve(Uuid),
    Renew(Uuid),
    Release(Uuid),
    Spend(Uuid),
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Reserved,
    Renewed,
    Released,
    Spent { replayed: bool },
    AlreadySpent,
    Lost,
}

/// A request about a package, and its answer. The two moments are turns of one counter of the whole run.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// The worker that sent it: each sends one request after the other.
    pub(super) worker: usize,
    pub(super) begun: u64,
    pub(super) ended: u64,
    pub(super) command: Uuid,
    pub(super) package: String,
    pub(super) asked: Asked,
    pub(super) told: Told,
}

/// A package whose reservations do not lapse.
#[derive(Clone, Default)]
struct Package {
    open: Option<Uuid>,
    cancelled: BTreeSet<Uuid>,
    spent: Option<Uuid>,
}

impl SequentialSpec for Package {
    type Op = Asked;
    /// Nothing if the request cannot have come to this package now.
    type Ret = Option<Told>;

    fn invoke(&mut self, asked: &Asked) -> Option<Told> {
        match *asked {
            Asked::Reserve(id) => {
                let is_free = self.open.is_none() && self.spent.is_none();
                if !is_free || self.cancelled.contains(&id) {
                    return None;
                }
                self.open = Some(id);
                Some(Told::Reserved)
            }
            Asked::Renew(id) if self.open == Some(id) => Some(Told::Renewed),
            Asked::Release(id) if self.open == Some(id) => {
                self.open = None;
                self.cancelled.insert(id);
                Some(Told::Released)
            }
            Asked::Spend(id) if self.open == Some(id) => {
                self.open = None;
                self.spent = Some(id);
                Some(Told::Spent { replayed: false })
            }
            Asked::Release(id) if self.cancelled.contains(&id) => Some(Told::Released),
            Asked::Renew(id) | Asked::Spend(id) if self.cancelled.contains(&id) => Some(Told::Lost),
            Asked::Spend(id) if self.spent == Some(id) => Some(Told::Spent { replayed: true }),
            Asked::Renew(id) | Asked::Release(id) if self.spent == Some(id) => {
                Some(Told::AlreadySpent)
            }
            Asked::Renew(_) | Asked::Release(_) | Asked::Spend(_) => None,
        }
    }
}

/// The calls of each package.
pub(super) fn by_package(calls: &[Call]) -> BTreeMap<&str, Vec<Call>> {
    let mut packages: BTreeMap<&str, Vec<Call>> = BTreeMap::new();
    for call in calls {
        packages.entry(&call.package).or_default().push(call.clone());
    }
    packages
}

/// Whether an order of these calls, all of one package, explains their answers.
pub(super) fn is_linearizable(calls: &[Call]) -> bool {
    let mut moments: Vec<(u64, bool, &Call)> = Vec::new();
    for call in calls {
        moments.push((call.begun, true, call));
        moments.push((call.ended, false, call));
    }
    moments.sort_by_key(|&(at, is_begin, _)| (at, is_begin));
    let mut tester = LinearizabilityTester::new(Package::default());
    for (_, is_begin, call) in moments {
        if is_begin {
            tester.on_invoke(call.worker, call.asked).unwrap();
        } else {
            tester.on_return(call.worker, Some(call.told)).unwrap();
        }
    }
    tester.is_consistent()
}

/// Whether the log has the changes in an order that agrees with the answers: a change that was answered before
/// another was sent stands before it. `positions` are those of the records, by the commands that made them.
pub(super) fn agrees_with_log(
    calls: &[Call],
    positions: &BTreeMap<Uuid, u64>,
) -> Result<(), String> {
    let placed = |call: &Call| positions.get(&call.command).copied();
    let mut ended: Vec<&Call> = calls.iter().filter(|call| placed(call).is_some()).collect();
    let mut begun = ended.clone();
    ended.sort_by_key(|call| call.ended);
    begun.sort_by_key(|call| call.begun);
    let mut ended = ended.into_iter().peekable();
    let mut last: Option<(u64, &Call)> = None;
    for call in begun {
        while let Some(earlier) = ended.next_if(|earlier| earlier.ended < call.begun) {
            let at = placed(earlier).map(|at| (at, earlier));
            last = at.into_iter().chain(last).max_by_key(|(at, _)| *at);
        }
        if let (Some((at, earlier)), Some(own)) = (last, placed(call))
            && own < at
        {
            return Err(format!("{earlier:?} stands at {at}, behind the later {call:?} at {own}"));
        }
    }
    Ok(())
}
