//! The answer that each inviter is promised, by the events that the witness has seen.

use keypool_ledger::Timestamp;

use super::{
    outcome::Outcome,
    scene::Verb,
    witness::{End, Fate, Made, Witness},
};

const LOST: Outcome = Outcome::Refused("reservation_lost");
const SPENT: Outcome = Outcome::Refused("already_spent");

impl Witness {
    /// The answer to a command of an inviter at `now`, and the number of events it records, those of time left out.
    pub(crate) fn promised(&self, inviter: usize, verb: Verb, now: Timestamp) -> (Outcome, usize) {
        let settled = self.at(now);
        match (verb, settled.made[inviter]) {
            (Verb::Reserve, None) => {
                let due = settled.due(now);
                let events = usize::from(matches!(due, Outcome::Reserved { .. }));
                (due, events)
            }
            (Verb::Reserve, Some(made)) => (settled.reserved_again(inviter, &made), 0),
            (_, None) => (Outcome::Refused("reservation_mismatch"), 0),
            (Verb::Spend, Some(made)) => settled.spent(inviter, &made),
            (Verb::Release, Some(made)) => match made.fate {
                Fate::Open => (Outcome::Released, 1),
                Fate::Spent { .. } => (SPENT, 0),
                Fate::GivenBack | Fate::Lapsed | Fate::Lost => (Outcome::Released, 0),
            },
            (Verb::Renew, Some(made)) => settled.renewed_at(&made, now),
            (Verb::ReportGood | Verb::ReportBad, Some(made)) => {
                settled.reported(inviter, &made, verb == Verb::ReportGood)
            }
        }
    }

    /// The same package again, while it was not handed on.
    fn reserved_again(&self, inviter: usize, made: &Made) -> Outcome {
        let is_lost = match made.fate {
            Fate::GivenBack | Fate::Lost => true,
            Fate::Lapsed => self.is_handed_on(inviter, made),
            Fate::Open | Fate::Spent { .. } => false,
        };
        let package = self.life_of(made).facts.keypackage_ref.clone();
        if is_lost { LOST } else { Outcome::Reserved { package, deadline: made.deadline } }
    }

    fn spent(&self, inviter: usize, made: &Made) -> (Outcome, usize) {
        let end = self.life_of(made).end;
        let spent = |late| (Outcome::Spent { late, replayed: false }, 1);
        match made.fate {
            Fate::Spent { late } => (Outcome::Spent { late, replayed: true }, 0),
            Fate::GivenBack | Fate::Lost => (LOST, 0),
            Fate::Open => spent(end == Some(End::Expired)),
            Fate::Lapsed if self.is_handed_on(inviter, made) => (LOST, 1),
            Fate::Lapsed if end == Some(End::Withdrawn) => (Outcome::Refused("revoked"), 0),
            Fate::Lapsed => spent(true),
        }
    }

    fn renewed_at(&self, made: &Made, now: Timestamp) -> (Outcome, usize) {
        let refused = match (made.fate, self.life_of(made).end) {
            (Fate::Spent { .. }, _) => SPENT,
            (Fate::GivenBack | Fate::Lapsed | Fate::Lost, _) => LOST,
            (Fate::Open, Some(End::Expired)) => Outcome::Refused("expired"),
            (Fate::Open, Some(_)) => Outcome::Refused("revoked"),
            (Fate::Open, None) if self.are_used_up(made.renewals) => {
                Outcome::Refused("renewals_used_up")
            }
            (Fate::Open, None) => {
                return (Outcome::Renewed { deadline: self.renewed(made, now) }, 1);
            }
        };
        (refused, 0)
    }

    fn reported(&self, inviter: usize, made: &Made, is_good: bool) -> (Outcome, usize) {
        let life = self.life_of(made);
        let is_over = !matches!(life.end, None | Some(End::Spent));
        match made.fate {
            Fate::Open if is_over => (Outcome::Reported, 1),
            // A report of a package that the server finds good counts; the third of another user withdraws it.
            Fate::Open => (Outcome::Reported, 2 + usize::from(is_good && self.is_third(made))),
            Fate::Spent { .. } => (SPENT, 0),
            Fate::GivenBack if is_over || self.has_reported(inviter, made) => {
                (Outcome::Reported, 0)
            }
            Fate::GivenBack | Fate::Lapsed | Fate::Lost => (LOST, 0),
        }
    }
}
