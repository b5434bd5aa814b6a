//! Payloads that are gone, and whether they may be.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use keypool_ledger::{
    Event, EventEnvelope, KeyPackageRef, PoolId, RawRecord, StreamId, SubjectId, Timestamp,
};
use keypool_projections::retention::{
    PackageEnd, PackageLifetime, WaitingPositions, allows_delivered, is_delivered,
};

use super::{FileLocation, Finding, FindingSeverity, found};

/// The payloads of a log that are gone, until an event or the end of the log allows it.
#[derive(Debug, Default)]
pub(super) struct MissingPayloads {
    /// How many may be gone.
    pub(super) allowed: u64,
    /// The packages whose bytes are not there, until an event ends them for good.
    packages: HashMap<KeyPackageRef, MissingPackage>,
    /// The Commits, Welcomes and messages whose bytes are not there.
    posts: Vec<MissingPost>,
    /// The names and credentials that are not there, with the users that they are of.
    personal: Vec<(SubjectId, Finding)>,
    waiting: WaitingPositions,
    /// The users that the operator had erased.
    erased: HashSet<SubjectId>,
    /// The time of the log.
    now: Timestamp,
    findings: Vec<Finding>,
}

/// A package whose bytes are gone.
#[derive(Debug)]
struct MissingPackage {
    owner: Option<SubjectId>,
    lifetime: PackageLifetime,
    end: Option<PackageEnd>,
    /// The fault, if its bytes may not be gone.
    finding: Finding,
}

/// A Commit, a Welcome or a message whose bytes are gone.
#[derive(Debug)]
struct MissingPost {
    seq: u64,
    posted: Timestamp,
    /// The users that the event names by pseudonyms.
    subjects: Vec<SubjectId>,
    place: FileLocation,
}

impl MissingPackage {
    /// Whether the bytes may be gone at a moment.
    fn may_be_gone(&self, now: Timestamp) -> bool {
        self.end.is_some_and(|end| end.allows(now, Duration::ZERO))
    }
}

impl MissingPayloads {
    /// Takes the next record, as it stands in the log: with pseudonyms. `is_missing` says that its payload is
    /// gone.
    pub(super) fn see(&mut self, raw: &RawRecord<'_>, envelope: &EventEnvelope, is_missing: bool) {
        if is_missing {
            self.note(raw, envelope);
        }
        self.now = self.now.max(envelope.at);
        self.waiting.see(raw.seq, envelope);
        if let (StreamId::Names(id), Event::UserErased {}) = (&envelope.stream, &envelope.event) {
            self.erased.insert(*id);
        }
        let of = if self.packages.is_empty() { None } else { envelope.event.keypackage_ref() };
        let Some((of, missing)) = of.and_then(|of| Some((of, self.packages.get_mut(of)?))) else {
            return;
        };
        let end = PackageEnd::by(&envelope.event, envelope.at, missing.lifetime);
        missing.end = end.or(missing.end);
        if missing.may_be_gone(envelope.at) {
            self.packages.remove(of);
            self.allowed = self.allowed.saturating_add(1);
        }
    }

    /// Remembers a payload that is gone.
    fn note(&mut self, raw: &RawRecord<'_>, envelope: &EventEnvelope) {
        let damage = |what: &str| found(FindingSeverity::Damage, "payload", raw, what);
        let EventEnvelope { stream, event, at, .. } = envelope;
        let owner = stream.pool().and_then(PoolId::pseudonym).map(|(id, _)| id);
        match (stream, event) {
            (_, event) if is_delivered(event) => self.posts.push(MissingPost {
                seq: raw.seq,
                posted: *at,
                subjects: event.subjects(),
                place: FileLocation { file: raw.file.to_owned(), offset: raw.offset },
            }),
            (_, Event::Uploaded(facts)) => {
                let of = &facts.keypackage_ref;
                let finding = damage(&format!(
                    "the bytes of package {} are gone, and it is neither spent nor has it expired.",
                    of.short()
                ));
                let missing = MissingPackage { owner, lifetime: facts.into(), end: None, finding };
                if let Some(before) = self.packages.insert(of.clone(), missing) {
                    self.findings.push(before.finding);
                }
            }
            (StreamId::Names(id), _) => {
                let what = "the name in it is gone, and no event says that the user was erased.";
                self.personal.push((*id, damage(what)));
            }
            (_, Event::CredentialDeclared { .. }) if owner.is_some() => {
                let what =
                    "the credential in it is gone, and no event says that the user was erased.";
                self.personal.extend(owner.map(|owner| (owner, damage(what))));
            }
            _ => {
                let what = "its payload is gone; only those of packages and messages may go.";
                self.findings.push(damage(what));
            }
        }
    }

    /// Counts the payloads that may be gone at the end of the log, and returns the findings of the others.
    pub(super) fn judge(&mut self) -> Vec<Finding> {
        for missing in std::mem::take(&mut self.packages).into_values() {
            let is_erased = missing.owner.is_some_and(|owner| self.erased.contains(&owner));
            self.allow(is_erased || missing.may_be_gone(self.now), missing.finding);
        }
        for (of, finding) in std::mem::take(&mut self.personal) {
            self.allow(self.erased.contains(&of), finding);
        }
        let waiting = self.waiting.all();
        for MissingPost { seq, posted, subjects, place } in std::mem::take(&mut self.posts) {
            let is_erased = subjects.iter().any(|subject| self.erased.contains(subject));
            let may_go = is_erased || allows_delivered(posted, self.now, Duration::ZERO);
            let fault = if waiting.contains(&seq) {
                "and it waits in a mailbox."
            } else {
                "and it was posted less than a day before the log ends."
            };
            let what = format!("record {seq}: its payload is gone, {fault}");
            let (gravity, rule) = (FindingSeverity::Damage, "payload");
            let finding = Finding { gravity, rule, events: vec![seq], what, place: Some(place) };
            self.allow(may_go && !waiting.contains(&seq), finding);
        }
        std::mem::take(&mut self.findings)
    }

    /// Counts a payload that may be gone, or keeps the finding.
    fn allow(&mut self, may_be_gone: bool, finding: Finding) {
        if may_be_gone {
            self.allowed = self.allowed.saturating_add(1);
        } else {
            self.findings.push(finding);
        }
    }
}
