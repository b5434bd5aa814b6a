//! The observer: it sees each record once, holds it to the promises, and folds the states that every server must
//! publish.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
};

use keypool_auditor::invariants::{Auditor, InvariantParams};
use keypool_ledger::{
    Event, Hash, Key, KeyPackageRef, PoolId, Record, ReservationId, SignatureKey, StreamHead,
    StreamId, Timestamp,
};
use keypool_projections::{
    Answer, Command, Deliveries, ItemOutcome, PoolState, Rejection, Suspensions,
};

use super::{
    calls::{Ask, Outcome},
    engine::Engine,
};

/// A pool as all its records have left it; nothing is evicted.
#[derive(Clone, Debug, Default)]
pub(crate) struct ObservedPool {
    pub(crate) state: PoolState,
    pub(crate) head: StreamHead,
    pub(crate) position: u64,
    pub(crate) key: Option<SignatureKey>,
    blocked: BTreeSet<String>,
}

/// All that the records say.
pub(crate) struct Observer {
    auditor: Auditor,
    pub(crate) seen: usize,
    /// The latest time of any record: a wrong clock may have been ahead.
    pub(crate) latest: Timestamp,
    heads: HashMap<StreamId, StreamHead>,
    pub(crate) pools: BTreeMap<PoolId, ObservedPool>,
    pub(crate) deliveries: Deliveries,
    pub(crate) suspensions: Suspensions,
    /// The reservation that each package was handed out by, the first, the second time and so on.
    pub(crate) handed_out: HashMap<(KeyPackageRef, u32), (ReservationId, PoolId)>,
    pub(crate) spent: BTreeMap<KeyPackageRef, ReservationId>,
    pub(crate) retired: Vec<SignatureKey>,
}

impl Observer {
    pub(crate) fn new() -> Self {
        Self {
            auditor: Auditor::new(InvariantParams::STANDARD),
            seen: 0,
            latest: Timestamp::default(),
            heads: HashMap::new(),
            pools: BTreeMap::new(),
            deliveries: Deliveries::default(),
            suspensions: Suspensions::default(),
            handed_out: HashMap::new(),
            spent: BTreeMap::new(),
            retired: Vec::new(),
        }
    }

    /// Takes in the next record.
    ///
    /// Returns the streams whose states it has changed.
    pub(crate) fn take(&mut self, record: &Record) -> Vec<StreamId> {
        self.check_chain(record);
        self.auditor.see(record.seq, &record.envelope);
        let findings = self.auditor.findings();
        assert!(findings.is_empty(), "the auditor finds: {findings:?}");
        let envelope = &record.envelope;
        let bytes = record.payload.len() as u64;
        let touched = self.deliveries.evolve(record.seq, envelope, bytes);
        match &envelope.stream {
            StreamId::Pool(pool) => self.take_of_pool(pool, record),
            StreamId::Server => {
                self.suspensions.evolve(record.seq, envelope.at, &envelope.event);
            }
            _ => {}
        }
        self.seen += 1;
        self.latest = self.latest.max(envelope.at);
        let mailboxes = touched.mailboxes.into_iter().chain(touched.noted);
        let groups = touched.groups.into_iter().map(StreamId::Group);
        let streams = groups.chain(mailboxes.map(StreamId::Mailbox));
        streams.chain([envelope.stream.clone()]).collect()
    }

    /// The chain of every history is whole, and its time never falls unless a clock was accepted.
    fn check_chain(&mut self, record: &Record) {
        let (seq, envelope) = (record.seq, &record.envelope);
        assert_eq!(seq, self.seen as u64 + 1, "positions have no gaps");
        assert_eq!(envelope.payload, Hash::of(&record.payload), "the payload of record {seq}");
        let head = self.heads.entry(envelope.stream.clone()).or_default();
        assert_eq!(envelope.version, head.version + 1, "the version of record {seq}");
        assert_eq!(envelope.prev, head.hash, "the chain of record {seq}");
        let last = mem::replace(head, record.stream_head()).at;
        if let Event::ClockAccepted { .. } = envelope.event {
            self.heads.values_mut().for_each(|head| head.at = envelope.at.min(head.at));
        } else {
            assert!(last <= envelope.at, "the time of record {seq}");
        }
    }

    fn take_of_pool(&mut self, pool: &PoolId, record: &Record) {
        let (event, at) = (&record.envelope.event, record.envelope.at);
        let observed = self.pools.entry(pool.clone()).or_default();
        observed.state.evolve(event, at).unwrap();
        observed.head = record.stream_head();
        observed.position = record.seq;
        match event {
            Event::Registered { signature_key, .. } | Event::KeyRotated { signature_key, .. } => {
                self.retired.extend(observed.key.replace(signature_key.clone()));
            }
            Event::DeviceRemoved { .. } => {
                self.retired.extend(observed.key.take());
                observed.blocked.clear();
            }
            Event::UserBlocked { user } => drop(observed.blocked.insert(user.clone())),
            Event::UserUnblocked { user } => drop(observed.blocked.remove(user)),
            Event::Reserved { keypackage_ref, reservation, generation, holder, .. } => {
                let is_blocked = observed.blocked.contains(holder.user());
                assert!(
                    !is_blocked,
                    "{holder} is blocked by {pool} and reserves at {}",
                    record.seq
                );
                let handed = (keypackage_ref.clone(), *generation);
                let before = self.handed_out.insert(handed, (*reservation, holder.clone()));
                assert_eq!(before, None, "a package is handed out twice at {}", record.seq);
            }
            Event::Spent { keypackage_ref, reservation: Some(reservation), .. }
                if !observed.state.get(keypackage_ref).unwrap().facts.last_resort =>
            {
                let before = self.spent.insert(keypackage_ref.clone(), *reservation);
                assert_eq!(before, None, "a package is spent twice at {}", record.seq);
            }
            _ => {}
        }
    }

    /// The packages of a pool that may still be used or were, the latest last.
    pub(crate) fn packages_of(&self, pool: &PoolId) -> Vec<KeyPackageRef> {
        let state = self.pools.get(pool).map(|observed| &observed.state);
        let packages = state.into_iter().flat_map(PoolState::packages);
        packages.map(|package| package.facts.keypackage_ref.clone()).collect()
    }

    /// Holds an outcome to the packages that the log tells of, and a refusal to the records that the server knows.
    pub(crate) fn check_promise(
        &self,
        ask: &Ask,
        outcome: &Outcome,
        (engine, known): (&Engine, u64),
    ) {
        if let Some(rejection) = outcome.rejection() {
            return self.check_refusal(rejection, (engine, known));
        }
        let (Ask::Pool(request), Some(reply)) = (ask, outcome.reply()) else { return };
        match (&request.command, &reply.answer) {
            (
                Command::Reserve { holder, .. },
                Answer::Reserved { facts, reservation, generation, .. },
            ) => {
                let handed = self.handed_out.get(&(facts.keypackage_ref.clone(), *generation));
                let is_theirs = handed == Some(&(*reservation, holder.clone()));
                assert!(is_theirs, "{} is not handed out to {holder}: {handed:?}", outcome.text());
            }
            (Command::Spend { claim, .. }, Answer::Spent { .. }) => {
                let spent = self.spent.get(&claim.keypackage_ref);
                let is_theirs = spent.is_none_or(|by| *by == claim.reservation);
                let is_spent = spent.is_some() || self.is_last_resort(&claim.keypackage_ref);
                assert!(is_theirs && is_spent, "{} is not spent", outcome.text());
            }
            (_, Answer::Uploaded(outcomes) | Answer::Replaced { outcomes, .. }) => {
                for item in outcomes {
                    let ItemOutcome::Stored(stored) = item else { continue };
                    let brought = engine.found(Key::Package(stored)).next();
                    let is_there = brought
                        .is_some_and(|record| record.envelope.stream.pool() == Some(&reply.pool));
                    assert!(is_there, "{} is not stored", outcome.text());
                }
            }
            _ => {}
        }
    }

    fn check_refusal(&self, rejection: &Rejection, (engine, known): (&Engine, u64)) {
        match rejection {
            Rejection::AlreadySpent(of) => {
                let is_spent = self.spent.contains_key(of) || self.is_last_resort(of);
                assert!(is_spent, "{rejection:?} is not so");
            }
            Rejection::UnknownKeyPackage(of) => {
                let mut brought = engine.found(Key::Package(of));
                assert!(brought.all(|record| known < record.seq), "{rejection:?} is not so");
            }
            _ => {}
        }
    }

    fn is_last_resort(&self, keypackage_ref: &KeyPackageRef) -> bool {
        let mut found = self.pools.values().filter_map(|pool| pool.state.get(keypackage_ref));
        found.any(|package| package.facts.last_resort)
    }

    /// Ends the audit: nothing must be found, and the auditor's counts must be the pools' own.
    pub(crate) fn finish(self) {
        for (pool, observed) in &self.pools {
            let counts = observed.state.counts();
            let standing = self.auditor.standing(pool).unwrap_or_default();
            let ours =
                [counts.available, counts.reserved, counts.spent, counts.expired, counts.revoked];
            let theirs = [
                standing.available,
                standing.reserved,
                standing.spent,
                standing.expired,
                standing.revoked,
            ];
            assert_eq!(ours, theirs, "the counts of {pool}");
        }
        let findings = self.auditor.finish();
        assert!(findings.is_empty(), "the auditor finds: {findings:?}");
    }
}
