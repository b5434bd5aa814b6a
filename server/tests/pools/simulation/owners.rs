//! The requests of a device about its own pool, and those of the operator.

use std::time::Duration;

use keypool_ledger::{
    CredentialBytes, Event, Hash, KeyPackageRef, PackageFacts, PoolId, ReservePolicy, RevokeReason,
    Signature, SignatureKey, SignedStatement,
};
use keypool_projections::{
    Command, NewPackage, NextKey, PolicyChange, Remover, ReservationStatus, RevokeScope, Stage,
    SuspensionChange,
};
use keypool_server::pools::Target;

use super::{calls::Ask, world::World};

/// How many of the last packages or reservations somebody may name before they are in the log.
pub(crate) const RECENT_MAX: usize = 6;

fn credential_of(device: &PoolId) -> Hash {
    CredentialBytes::new(device.user().as_bytes()).unwrap().digest()
}

fn bytes_of(facts: PackageFacts) -> NewPackage {
    NewPackage { bytes: facts.keypackage_ref.as_bytes().to_vec(), facts, leaf_key: None }
}

impl World {
    pub(crate) fn owner_command(&self, agent: usize) -> Option<Command> {
        let device = &self.agents[agent].device;
        let key = self.key_of(device);
        if key.is_none() && self.dice.chance(7_000) {
            return Some(self.register(device));
        }
        let drawn = self.dice.below(100);
        let command = match drawn {
            0..55 => Command::Upload(self.new_packages(device)),
            55..63 => self.replace(device, key),
            63..67 => {
                let (statement, credential) =
                    (self.statement(device, key?), device.user().to_owned());
                Command::Rotate { statement, signature_key: self.new_key(), credential }
            }
            67..69 => Command::Remove { by: Remover::Key(key?) },
            69..76 => Command::Revoke {
                which: self.some_packages(device),
                reason: RevokeReason::Withdrawn,
            },
            76..92 => Command::SetPolicy(self.policy(device)),
            92..94 => {
                let credential = CredentialBytes::new(device.user().as_bytes()).unwrap();
                Command::DeclareCredential { statement: self.statement(device, key?), credential }
            }
            94..96 => {
                let statement = self.statement(device, key?);
                Command::SetRecoveryKey { statement, recovery_key: self.new_key() }
            }
            96..98 => self.recover(device)?,
            _ => self.register(device),
        };
        Some(command)
    }

    /// A registration, with the word of another device of the user if there is one.
    fn register(&self, device: &PoolId) -> Command {
        let mut others = self
            .observer
            .pools
            .iter()
            .filter(|(other, _)| other.user() == device.user() && *other != device);
        let voucher = others.find_map(|(_, other)| other.key.clone());
        Command::Register {
            signature_key: self.some_key(),
            credential: device.user().to_owned(),
            statement: voucher.map(|by| self.statement(device, by)),
        }
    }

    /// A new key, or one that was taken away.
    fn some_key(&self) -> SignatureKey {
        let retired =
            if self.dice.chance(1_000) { self.dice.pick(&self.observer.retired) } else { None };
        retired.cloned().unwrap_or_else(|| self.new_key())
    }

    /// A statement on the user's devices as a server has them.
    fn statement(&self, device: &PoolId, by: SignatureKey) -> SignedStatement {
        let process = self.servers.iter().find_map(|server| server.process.as_ref());
        let head = process.map(|process| process.pools.device_list_head(device.user()));
        SignedStatement {
            by,
            head: head.unwrap_or_default(),
            until: self.now.after(Duration::from_mins(4)),
            proof: Signature::new(&[0; 64]).unwrap(),
        }
    }

    fn recover(&self, device: &PoolId) -> Option<Command> {
        let process = self.servers.iter().find_map(|server| server.process.as_ref())?;
        let (_, recovery_key) = process.pools.recovery_key_of(device.user())?;
        Some(Command::Recover {
            statement: self.statement(device, recovery_key),
            signature_key: self.new_key(),
            credential: device.user().to_owned(),
        })
    }

    /// Replaces the packages, and perhaps the key with them.
    fn replace(&self, device: &PoolId, key: Option<SignatureKey>) -> Command {
        let next = key.filter(|_| self.dice.chance(5_000)).map(|key| NextKey {
            statement: self.statement(device, key),
            signature_key: self.new_key(),
            credential: device.user().to_owned(),
            leaf_keys: Vec::new(),
        });
        Command::Replace { packages: self.new_packages(device), next }
    }

    pub(crate) fn new_packages(&self, device: &PoolId) -> Vec<NewPackage> {
        (0..=self.dice.below(4)).map(|_| self.new_package(device)).collect()
    }

    /// A package: nearly always a new one.
    pub(crate) fn new_package(&self, device: &PoolId) -> NewPackage {
        let random = Hash::of(&self.dice.next().to_be_bytes());
        let mut recent = self.recent.borrow_mut();
        if self.dice.chance(300)
            && let Some(facts) = self.dice.pick(&recent.0)
        {
            return bytes_of(facts.clone());
        }
        let known = if self.dice.chance(700) {
            let owner = if self.dice.chance(3_000) { self.some_device() } else { device.clone() };
            self.dice.pick(&self.observer.packages_of(&owner)).cloned()
        } else {
            None
        };
        let facts = known.as_ref().and_then(|of| {
            self.observer.pools.values().find_map(|pool| Some(pool.state.get(of)?.facts.clone()))
        });
        let lifetime = match self.dice.below(10) {
            0..2 => 60 + self.dice.below(600),
            2..4 => 3_000,
            _ => 1_000_000,
        };
        let keypackage_ref = KeyPackageRef::new(random.as_bytes()).unwrap();
        let new = PackageFacts {
            not_before: self.now.before(Duration::from_hours(1)),
            not_after: self.now.after(Duration::from_secs(lifetime)),
            ciphersuite: if self.dice.chance(2_000) { 2 } else { 1 },
            credential: credential_of(device),
            init_key: random,
            last_resort: self.dice.chance(700),
            capabilities: None,
            keypackage_ref,
        };
        let facts = match facts {
            // A package of its own with the init key of another one.
            Some(known) if self.dice.chance(4_000) => {
                PackageFacts { init_key: known.init_key, ..new }
            }
            Some(known) => known,
            None => new,
        };
        recent.0.push(facts.clone());
        if RECENT_MAX < recent.0.len() {
            recent.0.remove(0);
        }
        bytes_of(facts)
    }

    fn some_packages(&self, device: &PoolId) -> RevokeScope {
        match self.dice.below(10) {
            0 => RevokeScope::All,
            1 => RevokeScope::Credential(credential_of(device)),
            _ => {
                let all = self.observer.packages_of(device);
                let some = (0..=self.dice.below(2)).filter_map(|_| self.dice.pick(&all).cloned());
                RevokeScope::Refs(some.collect())
            }
        }
    }

    fn policy(&self, device: &PoolId) -> PolicyChange {
        let mut change = PolicyChange::default();
        let user = self.some_device().user().to_owned();
        match self.dice.below(10) {
            0 => change.reserve = Some(ReservePolicy::Contacts),
            1..3 => change.reserve = Some(ReservePolicy::Open),
            3..5 => change.blocked.push(user),
            5..8 => change.unblocked.push(user),
            8 => change.removed.push(user),
            _ if self.rates.is_among_strangers => change.strangers_per_hour = Some(7),
            _ => {
                let observed = self.observer.pools.get(device);
                let packages = observed.into_iter().flat_map(|pool| pool.state.packages());
                let latest = packages.filter_map(|package| package.latest);
                let spent = latest.filter(|id| {
                    let made = observed.and_then(|pool| pool.state.reservation(*id));
                    made.is_some_and(|made| matches!(made.status, ReservationStatus::Spent { .. }))
                });
                change.joined.extend(spent.take(2));
            }
        }
        change
    }

    /// The operator does something.
    pub(crate) fn operate(&mut self) {
        let (user, device) = (self.some_device().user().to_owned(), self.some_device());
        let agent = self.agents.iter().position(|agent| agent.device == device).unwrap();
        let command = match self.dice.below(20) {
            0 => {
                let reason = Some("spam".to_owned());
                return self.order(Ask::Suspend(SuspensionChange::Suspend { user, reason }));
            }
            1..11 => return self.order(Ask::Suspend(SuspensionChange::Reinstate { user })),
            11..14 => return self.order(Ask::AcceptClock),
            14..16 => return self.prune(&device),
            16 => Command::Remove { by: Remover::Operator },
            17 => Command::Admit {
                signature_key: self.some_key(),
                credential: device.user().to_owned(),
                statement: None,
                frontend: None,
            },
            18 => Command::ReleaseName,
            _ => {
                let which = self.some_packages(&device);
                Command::Revoke { which, reason: RevokeReason::Operator }
            }
        };
        let ask = self.request(Target::Pool(device), command);
        self.call(agent, ask);
    }

    /// The bytes of packages that have ended are erased.
    fn prune(&self, device: &PoolId) {
        let Some(observed) = self.observer.pools.get(device) else { return };
        let mut engine = self.engine.lock().unwrap();
        for record in &mut engine.records {
            if let Event::Uploaded(facts) = &record.envelope.event
                && let Some(package) = observed.state.get(&facts.keypackage_ref)
                && Stage::Spent <= package.stage
            {
                record.payload.clear();
            }
        }
    }
}
