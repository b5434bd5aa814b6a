//! Histories that are broken on purpose: the checker must refuse each.

use uuid::Uuid;

use super::checker::{Asked, Call, Told};

/// A way to break a history, such that no order explains it.
#[derive(Clone, Copy, Debug)]
enum Break {
    /// A package is handed out again after its spend was answered.
    HandedOutAfterSpend,
    /// A package is handed out again while it is held.
    HandedOutTwice,
    /// A spend was refused although the reservation was never released.
    LostSpend,
    /// A reservation was both released and spent.
    ReleasedAndSpent,
    /// A spend was answered as the first one twice.
    SpentTwice,
    /// A package was handed on before anybody asked to release it.
    HandedOnEarly,
}

const BREAKS: [Break; 6] = [
    Break::HandedOutAfterSpend,
    Break::HandedOutTwice,
    Break::LostSpend,
    Break::ReleasedAndSpent,
    Break::SpentTwice,
    Break::HandedOnEarly,
];

const FIRST: Told = Told::Spent { replayed: false };

/// Every history of a package that these breaks make of this one.
pub(super) fn broken(calls: &[Call]) -> Vec<Vec<Call>> {
    BREAKS.iter().filter_map(|way| way.apply(calls)).collect()
}

impl Break {
    /// The broken history; `None` if this one has nothing that breaks in this way.
    fn apply(self, calls: &[Call]) -> Option<Vec<Call>> {
        let mut calls = calls.to_vec();
        let end = calls.iter().map(|call| call.ended).max()? + 1;
        match self {
            Self::HandedOutAfterSpend => {
                let spend = calls.iter().find(|call| call.told == FIRST)?.clone();
                calls.push(reserve_at(&spend, end));
            }
            Self::HandedOutTwice => {
                let held = calls.iter().find(|call| call.told == Told::Reserved)?.clone();
                let Asked::Reserve(id) = held.asked else { return None };
                // As another worker asks: after the first answer, and before the holder asks for anything else.
                let next = of(&calls, id).filter(|call| held.ended < call.begun);
                let next = next.map(|call| call.begun).min()?;
                shift(&mut calls, next, 2);
                calls.push(reserve_at(&held, next));
            }
            Self::LostSpend => {
                let spend = calls.iter().position(|call| call.told == FIRST)?;
                let Asked::Spend(id) = calls[spend].asked else { return None };
                of(&calls, id).all(|call| call.told != Told::Released).then_some(())?;
                calls[spend].told = Told::Lost;
            }
            Self::ReleasedAndSpent => {
                let release = calls.iter().position(|call| {
                    matches!(call.asked, Asked::Release(_)) && call.told == Told::AlreadySpent
                })?;
                calls[release].told = Told::Released;
            }
            Self::SpentTwice => {
                let again = calls.iter().position(|c| c.told == Told::Spent { replayed: true })?;
                calls[again].told = FIRST;
            }
            Self::HandedOnEarly => {
                let release = calls.iter().position(|call| call.told == Told::Released)?;
                let after = calls[release].ended;
                let handed_on = |call: &&Call| call.told == Told::Reserved && after < call.begun;
                let until = calls.iter().filter(handed_on).map(|call| call.ended).min()?;
                let Asked::Release(id) = calls[release].asked else { return None };
                let once = |call: &&Call| call.asked == Asked::Release(id);
                (calls.iter().filter(once).count() == 1).then_some(())?;
                shift(&mut calls, until + 1, 2);
                let release = &mut calls[release];
                (release.begun, release.ended) = (until + 1, until + 2);
                release.worker = usize::MAX;
            }
        }
        Some(calls)
    }
}

/// The calls of a reservation.
fn of(calls: &[Call], id: Uuid) -> impl Iterator<Item = &Call> {
    let asked = [Asked::Reserve(id), Asked::Renew(id), Asked::Release(id), Asked::Spend(id)];
    calls.iter().filter(move |call| asked.contains(&call.asked))
}

/// Makes room for so many turns from a moment on.
fn shift(calls: &mut [Call], from: u64, turns: u64) {
    for at in calls.iter_mut().flat_map(|call| [&mut call.begun, &mut call.ended]) {
        *at += if from <= *at { turns } else { 0 };
    }
}

/// A new reservation of the same package by another worker, in two turns.
fn reserve_at(of: &Call, at: u64) -> Call {
    let (worker, asked) = (usize::MAX, Asked::Reserve(Uuid::new_v4()));
    Call { worker, begun: at, ended: at + 1, asked, told: Told::Reserved, ..of.clone() }
}
