//! A mailbox, as the auditor follows it: its items, its closed parts, and the devices that are awaited.

use std::collections::{BTreeSet, VecDeque};

use keypool_ledger::{Event, GroupId, PoolId, Timestamp};

#[derive(Debug, Default)]
pub(super) struct AuditedMailbox {
    /// The positions of the items that wait, each with its group, and whether it is an answer.
    waiting: VecDeque<(u64, GroupId, bool)>,
    /// The position up to which its device has acknowledged.
    through: u64,
    /// The position at which the whole mailbox was overrun, until its device was told.
    overrun: Option<u64>,
    /// The groups of which nothing more is kept, or nothing of a sender, until the device was told.
    closed: BTreeSet<(GroupId, Option<PoolId>)>,
    pub(super) blocked: BTreeSet<String>,
    /// The devices whose packages it has waited for, until it says that it was told of one, or stops.
    awaited: BTreeSet<PoolId>,
}

impl AuditedMailbox {
    fn keeps(&self, group: &GroupId, sender: Option<&PoolId>, posted: bool) -> bool {
        let Some(sender) = sender else { return self.overrun.is_none() };
        let closed = |(of, by): &(GroupId, Option<PoolId>)| {
            let is_meant = match by {
                Some(by) => posted && by.user() == sender.user(),
                None => true,
            };
            of == group && is_meant
        };
        let refused = posted && self.blocked.contains(sender.user());
        self.overrun.is_none() && !self.closed.iter().any(closed) && !refused
    }

    pub(super) fn reopen(&mut self, group: &GroupId) {
        self.closed.retain(|(closed, _)| closed != group);
    }

    /// Takes in a Commit, a Welcome or a message, where it has room for it.
    pub(super) fn keep(
        &mut self,
        (seq, group): (u64, &GroupId),
        sender: Option<&PoolId>,
        posted: bool,
    ) {
        if self.keeps(group, sender, posted) {
            self.waiting.push_back((seq, group.clone(), false));
        }
    }

    /// Takes in the answer of a device to an invitation.
    pub(super) fn keep_answer(&mut self, (seq, group): (u64, &GroupId), by: &PoolId) {
        if self.overrun.is_none() && !self.blocked.contains(by.user()) {
            self.waiting.push_back((seq, group.clone(), true));
        }
    }

    /// The mailbox of a device that was removed: only its position goes on.
    pub(super) fn after_removal(&self) -> Self {
        Self { through: self.through, ..Self::default() }
    }

    /// Takes in that its device has left a group.
    pub(super) fn forget(&mut self, group: &GroupId) {
        self.waiting.retain(|(_, of, _)| of != group);
        self.reopen(group);
    }

    /// Takes in an event of its own history, and returns the promises that it breaks.
    pub(super) fn see(&mut self, place: (u64, Timestamp), event: &Event) -> Vec<String> {
        let wrong = match event {
            Event::Acknowledged { .. } => self.acknowledge(place.0, event),
            Event::Overrun { .. } => self.close(place.0, event),
            Event::Awaited { .. } | Event::AwaitStopped { .. } => self.wait(place.1, event),
            other => return vec![format!("an event {} does not belong there", other.name())],
        };
        wrong.into_iter().map(str::to_owned).collect()
    }

    fn acknowledge(&mut self, seq: u64, event: &Event) -> Vec<&'static str> {
        let Event::Acknowledged { through, overrun, accepted, told, available } = event else {
            return Vec::new();
        };
        let mut wrong = Vec::new();
        if seq <= *through {
            wrong.push("it acknowledges what was not there yet");
        }
        let says_more =
            *overrun || !accepted.is_empty() || !told.is_empty() || !available.is_empty();
        if !says_more && *through <= self.through {
            wrong.push("it acknowledges less than it did before");
        }
        if *overrun && self.overrun.is_none() {
            wrong.push("its device was told of an overrun that there was not");
        }
        let waited = self.waiting.len();
        self.through = self.through.max(*through);
        self.waiting.retain(|(position, ..)| through < position);
        for group in told {
            self.reopen(group);
        }
        if !available.iter().all(|device| self.awaited.remove(device)) {
            wrong.push("its device was told of packages that it did not wait for");
        }
        if !says_more && self.waiting.len() == waited {
            wrong.push("it acknowledges something, and nothing waited up to there");
        }
        if *overrun {
            self.overrun = None;
        }
        wrong
    }

    fn close(&mut self, seq: u64, event: &Event) -> Vec<&'static str> {
        let Event::Overrun { dropped_through, group, sender } = event else { return Vec::new() };
        let mut wrong = Vec::new();
        if seq <= *dropped_through {
            wrong.push("it drops what was not there yet");
        }
        let Some(group) = group else {
            if self.overrun.is_some() {
                wrong.push("it is overrun twice, and its device was not told in between");
            }
            self.waiting.retain(|(position, ..)| dropped_through < position);
            self.overrun = Some(seq);
            return wrong;
        };
        let mine = |(position, of, is_answer): &(u64, GroupId, bool)| {
            position <= dropped_through && of == group && !is_answer
        };
        let waited = self.waiting.len();
        self.waiting.retain(|waiting| !mine(waiting));
        let is_new = self.closed.insert((group.clone(), sender.clone()));
        // What has waited too long is dropped, closed or not.
        if !is_new && self.waiting.len() == waited {
            wrong.push("a group is closed in it twice, and its device was not told in between");
        }
        wrong
    }

    fn wait(&mut self, at: Timestamp, event: &Event) -> Vec<&'static str> {
        match event {
            Event::Awaited { targets, until, .. } => {
                self.awaited.extend(targets.iter().cloned());
                let is_over = *until <= at;
                let what = "its device waits for packages until a moment that is over";
                is_over.then_some(what).into_iter().collect()
            }
            Event::AwaitStopped { targets } => {
                let is_known = targets.iter().all(|device| self.awaited.remove(device));
                let what = "its device stops waiting for packages that it did not wait for";
                (!is_known).then_some(what).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }
}
