//! The witness: reads the events of a pool, and knows of the rules the promises alone.
//!
//! It shares no code with the rules. Each inviter makes one reservation, whose number is the inviter's.

use keypool_ledger::{Event, PackageFacts, ReleaseReason, ReservationId, RevokeReason, Timestamp};
use keypool_projections::Limits;

use super::outcome::Outcome;
use crate::history::{pool, reservation};

/// How the life of a package ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Spent,
    Expired,
    Withdrawn,
    Retired,
}

/// The life of one package.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) facts: PackageFacts,
    pub(crate) end: Option<End>,
    pub(crate) handouts: u32,
    pub(crate) lapses: u32,
    given_back: u32,
    spends: u32,
    latest: Option<usize>,
    reporters: Vec<usize>,
}

/// How a reservation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Open,
    GivenBack,
    Lapsed,
    Spent { late: bool },
    Lost,
}

/// The reservation of one inviter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    pub(crate) package: usize,
    pub(crate) deadline: Timestamp,
    pub(crate) renewals: u32,
    pub(crate) fate: Fate,
}

/// The packages in the order of their uploads, and the reservation of each inviter.
#[derive(Clone, Debug)]
pub(crate) struct Witness {
    pub(crate) lives: Vec<Life>,
    pub(crate) made: Vec<Option<Made>>,
    pub(crate) is_removed: bool,
    limits: Limits,
}

/// A broken promise.
pub(crate) type Broken = String;

fn rule(holds: bool, promise: &str) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(promise.to_owned()) }
}

/// The user whose reservation has a number.
pub(crate) fn inviter_named(number: usize) -> String {
    format!("inviter{number}")
}

fn number_of(id: ReservationId) -> usize {
    usize::try_from(id.0.as_u128()).unwrap()
}

impl Witness {
    /// A pool without packages, and so many inviters.
    pub(crate) fn new(inviters: usize, limits: Limits) -> Self {
        Self { lives: Vec::new(), made: vec![None; inviters], is_removed: false, limits }
    }

    /// No reservation lapses before the grace after this moment.
    pub(crate) fn restart(&mut self, now: Timestamp) {
        self.limits.lapse_floor = now;
    }

    /// The moment at which a reservation lapses.
    pub(crate) fn lapses_at(&self, made: &Made) -> Timestamp {
        made.deadline.max(self.limits.lapse_floor).after(self.limits.grace)
    }

    /// Sees one event, and says which promise it breaks.
    pub(crate) fn see(&mut self, event: &Event, now: Timestamp) -> Result<(), Broken> {
        match event {
            Event::Uploaded(facts) => return self.see_upload(facts),
            Event::Registered { .. } => self.is_removed = false,
            Event::DeviceRemoved { .. } => self.is_removed = true,
            _ => {}
        }
        let Some(of) = event.keypackage_ref() else { return Ok(()) };
        let known = self.lives.iter().position(|life| life.facts.keypackage_ref == *of);
        let place = known.ok_or("an event of a package that was never uploaded")?;
        match event {
            Event::Reserved { .. } => self.see_reserved(event, place, now),
            Event::Expired { .. } => {
                let life = &mut self.lives[place];
                rule(life.end.is_none(), "an ended package expired")?;
                rule(life.facts.not_after <= now, "a package expired too early")?;
                life.end = Some(End::Expired);
                Ok(())
            }
            Event::Revoked { reason, .. } => self.see_revoked(*reason, place),
            Event::Conflict { lost, holds, .. } => self.see_conflict(*lost, *holds, place),
            _ => self.see_claim(event, place, now),
        }
    }

    fn see_upload(&mut self, facts: &PackageFacts) -> Result<(), Broken> {
        let same = |life: &Life| {
            life.facts.keypackage_ref == facts.keypackage_ref
                || life.facts.init_key == facts.init_key
        };
        rule(!self.lives.iter().any(same), "a package was uploaded twice")?;
        let facts = facts.clone();
        let (handouts, lapses, given_back, spends) = (0, 0, 0, 0);
        let (end, latest, reporters) = (None, None, Vec::new());
        self.lives.push(Life {
            facts,
            end,
            handouts,
            lapses,
            given_back,
            spends,
            latest,
            reporters,
        });
        Ok(())
    }

    fn see_reserved(&mut self, event: &Event, place: usize, now: Timestamp) -> Result<(), Broken> {
        let Event::Reserved { reservation, generation, holder, deadline, .. } = event else {
            return Ok(());
        };
        let inviter = number_of(*reservation);
        rule(*holder == pool(&inviter_named(inviter)), "reserved for another device")?;
        rule(self.made[inviter].is_none(), "one reservation was made twice")?;
        rule(self.may_be_held(place), "two hold one package")?;
        rule(*deadline == now.after(self.limits.reservation_ttl), "another deadline than the TTL")?;
        let lapses_max = self.limits.on_lapse.lapses_max();
        let life = &mut self.lives[place];
        let single = !life.facts.last_resort;
        rule(life.end.is_none(), "an ended package was handed out")?;
        rule(life.facts.not_before <= now, "a package was handed out before its time")?;
        rule(*deadline <= life.facts.not_after, "a package was handed out at its end")?;
        rule(!single || life.lapses < lapses_max, "a package that lapsed out was handed out")?;
        life.handouts += 1;
        rule(*generation == life.handouts, "a generation was left out or used twice")?;
        life.latest = Some(inviter);
        let (deadline, renewals) = (*deadline, 0);
        self.made[inviter] = Some(Made { package: place, deadline, renewals, fate: Fate::Open });
        Ok(())
    }

    fn see_revoked(&mut self, reason: RevokeReason, place: usize) -> Result<(), Broken> {
        let lapses_max = self.limits.on_lapse.lapses_max();
        let life = &mut self.lives[place];
        rule(life.end.is_none(), "an ended package was withdrawn")?;
        let is_retired = reason == RevokeReason::Lapsed;
        rule(!is_retired || lapses_max <= life.lapses, "a package was retired too early")?;
        life.end = Some(if is_retired { End::Retired } else { End::Withdrawn });
        Ok(())
    }

    fn see_conflict(
        &mut self,
        lost: ReservationId,
        holds: ReservationId,
        place: usize,
    ) -> Result<(), Broken> {
        let latest = self.lives[place].latest;
        rule(latest == Some(number_of(holds)) && lost != holds, "a conflict with nobody")?;
        let made = self.made[number_of(lost)].as_mut().ok_or("a conflict of nobody")?;
        rule(made.fate == Fate::Lapsed, "a reservation was lost that had not lapsed")?;
        made.fate = Fate::Lost;
        Ok(())
    }

    /// The events that change a reservation.
    fn see_claim(&mut self, event: &Event, place: usize, now: Timestamp) -> Result<(), Broken> {
        let (Event::Renewed { reservation, .. }
        | Event::Released { reservation, .. }
        | Event::Reported { reservation, .. }
        | Event::Spent { reservation: Some(reservation), .. }) = event
        else {
            return Err(format!("{} has no place in a pool", event.name()));
        };
        let inviter = number_of(*reservation);
        let mut made = self.made[inviter].ok_or("a reservation that was never made")?;
        rule(made.package == place, "a reservation of another package")?;
        let is_open = made.fate == Fate::Open;
        let lapses_at = self.lapses_at(&made);
        let renewals_max = self.limits.renewals_max;
        let life = &mut self.lives[place];
        match event {
            Event::Renewed { deadline, .. } => {
                rule(is_open && life.end.is_none(), "a claim was renewed that had ended")?;
                rule(made.deadline <= *deadline, "a renewal took time away")?;
                rule(made.renewals < renewals_max, "a claim was renewed too often")?;
                (made.deadline, made.renewals) = (*deadline, made.renewals + 1);
            }
            Event::Released { reason, .. } => {
                rule(is_open, "a claim ended twice")?;
                let is_lapse = *reason == ReleaseReason::Lapsed;
                rule(!is_lapse || lapses_at <= now, "a reservation lapsed too early")?;
                life.lapses += u32::from(is_lapse);
                life.given_back += u32::from(!is_lapse);
                made.fate = if is_lapse { Fate::Lapsed } else { Fate::GivenBack };
            }
            Event::Reported { .. } => {
                rule(is_open && life.end.is_none(), "a report by a claim that had ended")?;
                life.reporters.push(inviter);
            }
            _ => made.fate = life.see_spent(event, made.fate, inviter)?,
        }
        self.made[inviter] = Some(made);
        Ok(())
    }

    /// Whether nobody holds the package, or any number may.
    fn may_be_held(&self, place: usize) -> bool {
        let holds = |made: &Made| made.package == place && made.fate == Fate::Open;
        self.lives[place].facts.last_resort || !self.made.iter().flatten().any(holds)
    }

    /// The pool as it is at `now`, with the lapses and the ends that nobody has recorded.
    pub(crate) fn at(&self, now: Timestamp) -> Self {
        let mut settled = self.clone();
        for place in 0..settled.made.len() {
            let Some(mut made) = settled.made[place] else { continue };
            if made.fate == Fate::Open && settled.lapses_at(&made) <= now {
                made.fate = Fate::Lapsed;
                settled.lives[made.package].lapses += 1;
                settled.made[place] = Some(made);
            }
        }
        let lapses_max = settled.limits.on_lapse.lapses_max();
        for place in 0..settled.lives.len() {
            let is_free = settled.may_be_held(place);
            let life = &mut settled.lives[place];
            if life.end.is_some() {
                continue;
            }
            if !life.facts.last_resort && is_free && lapses_max <= life.lapses {
                life.end = Some(End::Retired);
            } else if life.facts.not_after <= now {
                life.end = Some(End::Expired);
            }
        }
        settled
    }

    /// The number of lapses and ends until `now` that nobody has recorded.
    pub(crate) fn due_events(&self, now: Timestamp) -> usize {
        let settled = self.at(now);
        let ends = self.lives.iter().zip(&settled.lives).filter(|(old, new)| old.end != new.end);
        let fate = |made: &Option<Made>| made.map(|made| made.fate);
        let fates = self.made.iter().zip(&settled.made).filter(|(old, new)| fate(old) != fate(new));
        ends.count() + fates.count()
    }

    /// The package that the next reservation is due: fresh before given back before lapsed, and a last-resort
    /// package when there is no other.
    pub(crate) fn due(&self, now: Timestamp) -> Outcome {
        let needed = now.after(self.limits.reservation_ttl).after(self.limits.life_margin);
        let may = |place: &usize| {
            let life = &self.lives[*place];
            let in_time = life.facts.not_before <= now && needed <= life.facts.not_after;
            life.end.is_none() && in_time && self.may_be_held(*place)
        };
        let class = |place: &usize| {
            let life = &self.lives[*place];
            let class = if 0 < life.lapses { 2 } else { u32::from(0 < life.given_back) };
            (life.facts.last_resort, class, *place)
        };
        if self.is_removed {
            return Outcome::Refused("not_registered");
        }
        let first = (0..self.lives.len()).filter(may).min_by_key(class);
        first.map_or(Outcome::Refused("pool_exhausted"), |place| Outcome::Reserved {
            package: self.lives[place].facts.keypackage_ref.clone(),
            deadline: now.after(self.limits.reservation_ttl),
        })
    }

    /// The life of the package that an inviter has reserved.
    pub(crate) fn life_of(&self, made: &Made) -> &Life {
        &self.lives[made.package]
    }

    /// Whether the package of a reservation was handed on.
    pub(crate) fn is_handed_on(&self, inviter: usize, made: &Made) -> bool {
        let life = self.life_of(made);
        life.latest != Some(inviter) && !life.facts.last_resort
    }

    /// Whether an inviter has reported the package of the reservation.
    pub(crate) fn has_reported(&self, inviter: usize, made: &Made) -> bool {
        self.life_of(made).reporters.contains(&inviter)
    }

    /// Whether the next report of the package of a reservation is the third.
    pub(crate) fn is_third(&self, made: &Made) -> bool {
        self.life_of(made).reporters.len() == 2
    }

    /// Whether so many renewals are too many.
    pub(crate) fn are_used_up(&self, renewals: u32) -> bool {
        self.limits.renewals_max <= renewals
    }

    /// The deadline of a reservation that is renewed at `now`.
    pub(crate) fn renewed(&self, made: &Made, now: Timestamp) -> Timestamp {
        made.deadline.max(now.after(self.limits.reservation_ttl))
    }
}

impl Life {
    fn see_spent(&mut self, event: &Event, fate: Fate, inviter: usize) -> Result<Fate, Broken> {
        let Event::Spent { reservation: id, holder, late, .. } = event else { return Ok(fate) };
        let single = !self.facts.last_resort;
        self.spends += 1;
        rule(!single || self.spends == 1, "a package was spent twice")?;
        rule(!single || self.latest == Some(inviter), "spent by an earlier holder")?;
        rule(matches!(fate, Fate::Open | Fate::Lapsed), "spent by a claim that had ended")?;
        let is_own = *id == Some(reservation(u8::try_from(inviter).unwrap()));
        rule(is_own && *holder == Some(pool(&inviter_named(inviter))), "spent by a stranger")?;
        let is_late = fate == Fate::Lapsed || self.end == Some(End::Expired);
        rule(*late == is_late, "a spend is late after its claim or its package had ended")?;
        if single {
            self.end = Some(End::Spent);
        }
        Ok(Fate::Spent { late: *late })
    }
}
