//! Every promise re-derived from the events, by code that shares nothing with the rules that made them.
//!
//! An [`Auditor`] knows the promises (docs/architecture.md) and checks that the events keep them: it reads
//! no state of the pools and asks neither `decide` nor the lifecycle's table, so that a bug in them cannot
//! hide itself. [`UNSEEN`] lists the promises that events alone cannot show.

mod contacts;

mod deliveries;

mod devices;

mod offers;

mod packages;

mod pins;

mod spends;

mod suspensions;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use keypool_ledger::{
    CommandId, Event, EventEnvelope, GroupId, Hash, KeyPackageRef, PoolId, ReservationId,
    RuleSettings, StreamId,
};

use self::{
    contacts::AuditedContacts,
    deliveries::AuditedDeliveries,
    devices::Devices,
    packages::{PackageHistory, PoolTally, ReservationHistory},
    pins::{Declared, Pins},
    suspensions::AuditedSuspensions,
};
use crate::{
    names::StreamName,
    verify::{Finding, FindingSeverity},
};

/// The invariants that events alone cannot show, and why.
pub const UNSEEN: [(&str, &str); 3] = [
    ("I8", "what was acknowledged is known to whoever was answered, not to the log"),
    ("I9", "private keys are never in events; whether they are elsewhere, events do not tell"),
    ("I10", "needs the commands and the clock again, and the log has only what came of them"),
];

/// The numbers that were promised: the server's settings. Those that are not the defaults stand in a
/// `Configured` event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvariantParams {
    /// How much longer than its deadline a reservation holds.
    pub grace: Duration,
    /// How many lapses end a package: 2 with `--on-lapse requeue`, 1 with `retire`.
    pub lapses_max: u32,
    /// How often a reservation may be renewed.
    pub renewals_max: u32,
    /// How many live single-use packages a pool may hold.
    pub packages_max: usize,
    /// How much life a package has left at the end of a reservation.
    pub life_margin: Duration,
}

impl InvariantParams {
    /// The server's defaults.
    pub const STANDARD: Self = Self {
        grace: Duration::from_mins(1),
        lapses_max: 2,
        renewals_max: 5,
        packages_max: 64,
        life_margin: Duration::from_mins(1),
    };
}

/// Numbers that an auditor holds a server to, in place of those in its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// How much longer than its deadline a reservation holds.
    pub grace: Option<Duration>,
    /// How many lapses end a package.
    pub lapses_max: Option<u32>,
}

impl InvariantParams {
    /// The promises of a server that ran with these settings.
    #[must_use]
    pub fn of(settings: &RuleSettings) -> Self {
        Self {
            grace: Duration::from_millis(settings.grace_ms),
            lapses_max: settings.lapses_max,
            renewals_max: settings.renewals_max,
            packages_max: usize::try_from(settings.packages_max).unwrap_or(usize::MAX),
            life_margin: Duration::from_millis(settings.life_margin_ms),
        }
    }

    /// The same promises but for those that are overridden.
    #[must_use]
    pub fn overridden(self, by: Overrides) -> Self {
        let grace = by.grace.unwrap_or(self.grace);
        let lapses_max = by.lapses_max.unwrap_or(self.lapses_max);
        Self { grace, lapses_max, ..self }
    }
}

/// How many single-use packages of a pool stand where, as the auditor has derived it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Held by nobody.
    pub available: u64,
    /// Set aside for somebody.
    pub reserved: u64,
    /// Used.
    pub spent: u64,
    /// Past their lifetime.
    pub expired: u64,
    /// Withdrawn.
    pub revoked: u64,
}

/// Reads events in the order of the log and says which promise they break.
#[derive(Debug)]
pub struct Auditor {
    promises: InvariantParams,
    overrides: Overrides,
    packages: HashMap<KeyPackageRef, PackageHistory>,
    claims: HashMap<ReservationId, ReservationHistory>,
    pools: BTreeMap<PoolId, PoolTally>,
    commands: HashMap<CommandId, SeenCommand>,
    devices: Devices,
    pins: Pins,
    declared: Declared,
    deliveries: AuditedDeliveries,
    contacts: AuditedContacts,
    suspensions: AuditedSuspensions,
    findings: Vec<Finding>,
}

/// The memory of a command: the request behind it, and its last event.
#[derive(Clone, Copy, Debug)]
struct SeenCommand {
    request: Hash,
    last: u64,
}

/// An event with its position in the log.
#[derive(Clone, Copy, Debug)]
struct AuditedEvent<'a> {
    seq: u64,
    envelope: &'a EventEnvelope,
}

impl Auditor {
    /// Begins before the first event, with these promises until the log says others.
    #[must_use]
    pub fn new(promises: InvariantParams) -> Self {
        Self {
            promises,
            overrides: Overrides::default(),
            packages: HashMap::new(),
            claims: HashMap::new(),
            pools: BTreeMap::new(),
            commands: HashMap::new(),
            devices: Devices::default(),
            pins: Pins::default(),
            declared: Declared::default(),
            deliveries: AuditedDeliveries::default(),
            contacts: AuditedContacts::default(),
            suspensions: AuditedSuspensions::default(),
            findings: Vec::new(),
        }
    }

    /// Returns the auditor with numbers that replace those in the log.
    #[must_use]
    pub fn overriding(self, overrides: Overrides) -> Self {
        Self { promises: self.promises.overridden(overrides), overrides, ..self }
    }

    /// Takes the next event of the log.
    pub fn see(&mut self, seq: u64, envelope: &EventEnvelope) {
        let seen = AuditedEvent { seq, envelope };
        self.see_command(seen);
        let findings = self.deliveries.see(seen);
        self.findings.extend(findings);
        self.findings.extend(self.suspensions.see(seen));
        match &envelope.stream {
            StreamId::Pool(pool) if envelope.event.keypackage_ref().is_some() => {
                if let Event::Uploaded(facts) = &envelope.event {
                    self.see_credential(seen, pool, facts);
                }
                self.see_package(seen, pool);
            }
            StreamId::Pool(pool) => {
                self.see_pin(seen, pool);
                self.contacts.see(&envelope.event, pool);
                self.findings.extend(self.devices.see(seen, pool));
            }
            StreamId::Server => self.see_settings(&envelope.event),
            StreamId::Group(_) | StreamId::Mailbox(_) | StreamId::Names(_) => {}
        }
        if let (Some(of), true) =
            (envelope.event.keypackage_ref(), envelope.stream.pool().is_none())
        {
            let what = format!(
                "an event of package {} stands in {}.",
                of.short(),
                StreamName(&envelope.stream)
            );
            self.broken("I5", &[seq], what);
        }
    }

    fn see_settings(&mut self, event: &Event) {
        if let Event::Configured(settings) = event {
            self.promises = InvariantParams::of(settings).overridden(self.overrides);
        }
    }

    /// One request, one digest, one batch: repeating a request adds no event.
    fn see_command(&mut self, seen: AuditedEvent<'_>) {
        let (id, request) = (seen.envelope.command, seen.envelope.request);
        let asked = self.commands.entry(id).or_insert(SeenCommand { request, last: seen.seq });
        let (before, last) = (asked.request, asked.last);
        asked.last = seen.seq;
        if before != request {
            let what = format!(
                "command {id} stands for one request at {last} and for another at {}: an idempotency \
                 key names one request for ever.",
                seen.seq
            );
            self.broken("I11", &[last, seen.seq], what);
        } else if last.saturating_add(1) < seen.seq {
            let what = format!(
                "command {id} has written again at {}, after its events up to {last}: repeating a \
                 request adds no event.",
                seen.seq
            );
            self.broken("I11", &[last, seen.seq], what);
        }
    }

    fn broken(&mut self, rule: &'static str, events: &[u64], what: String) {
        self.findings.push(broken(rule, events, what));
    }

    /// How the packages of each pool stand after the last event.
    pub fn standings(&self) -> impl Iterator<Item = (&PoolId, Standing)> {
        self.pools.iter().map(|(pool, tally)| (pool, tally.standing(&self.packages)))
    }

    /// How the packages of one pool stand, if it has had one.
    #[must_use]
    pub fn standing(&self, pool: &PoolId) -> Option<Standing> {
        self.pools.get(pool).map(|tally| tally.standing(&self.packages))
    }

    /// The epoch that a group is in and its members, in order, if it was made or has had a Commit.
    #[must_use]
    pub fn group(&self, group: &GroupId) -> Option<(u64, Vec<&PoolId>)> {
        self.deliveries.group(group)
    }

    /// The findings about the events so far, in the order of the log.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Returns the findings in the order of the log; to be called behind the last event.
    #[must_use]
    pub fn finish(mut self) -> Vec<Finding> {
        let end = self.deliveries.finish();
        self.findings.extend(end);
        let mut findings = Vec::new();
        for (pool, tally) in &self.pools {
            let standing = tally.standing(&self.packages);
            let sum = standing.available
                + standing.reserved
                + standing.spent
                + standing.expired
                + standing.revoked;
            if sum != tally.uploaded {
                let uploaded = tally.uploaded;
                let what = format!(
                    "{pool} has had {uploaded} uploads, but {sum} single-use packages stand \
                     somewhere."
                );
                findings.push(broken("I3", &[], what));
            }
        }
        self.findings.extend(findings);
        self.findings
    }
}

/// A rule that events break.
fn broken(rule: &'static str, events: &[u64], what: String) -> Finding {
    Finding { gravity: FindingSeverity::Rule, rule, events: events.to_vec(), what, place: None }
}

/// The first eight digits of a reservation: enough to tell lines apart, too few to use it.
fn short(reservation: ReservationId) -> String {
    reservation.to_string().chars().take(8).collect()
}

/// Whether an event belongs to a device itself.
fn is_of_device(event: &Event) -> bool {
    matches!(
        event,
        Event::Registered { .. }
            | Event::KeyRotated { .. }
            | Event::DeviceRemoved { .. }
            | Event::NameReleased {}
            | Event::LeafKeyPinned { .. }
            | Event::CredentialDeclared { .. }
            | Event::RecoveryKeySet { .. }
            | Event::PolicySet { .. }
            | Event::StrangersLimitSet { .. }
            | Event::UserBlocked { .. }
            | Event::UserUnblocked { .. }
            | Event::ContactAdded { .. }
            | Event::ContactRemoved { .. }
    )
}
