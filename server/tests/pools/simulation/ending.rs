//! The end of a run: faults cease, and everything comes right.

use std::time::Duration;

use keypool_ledger::{Clock, Hash, PoolId};
use keypool_projections::{Acknowledgement, Command, NewPackage, SuspensionChange};
use keypool_server::pools::{DeliveryCommand, Step};

use super::{calls::Ask, server::SimulatedServer, world::World};

/// How often a request is repeated before it must have an outcome.
const ATTEMPTS_MAX: usize = 8;
/// How many pieces of work one request may need.
const WORK_MAX: usize = 400;
/// How many packages each pool has in the end.
const FULL: u64 = 6;

impl World {
    /// Ends a run: every request gets its outcome, no reservation stays open, and the pools are full again.
    ///
    /// Returns the digests of the run.
    pub(crate) fn end(mut self) -> (u64, Hash) {
        self.calm();
        for call in 0..self.calls.len() {
            if !self.calls[call].is_known {
                self.finish_call(call);
            }
        }
        self.reinstate_all();
        // Deadlines that a wrong clock has set are over too.
        self.advance(self.observer.latest.since(self.now) + Duration::from_mins(30));
        self.sweep_all();
        for observed in self.observer.pools.values() {
            assert_eq!(observed.state.counts().reserved, 0, "no reservation is open for ever");
        }
        for agent in 0..self.agents.len() {
            self.refill(agent);
        }
        self.check_restarts();
        let digests = self.digests();
        self.observer.finish();
        digests
    }

    /// No fault happens any more: clocks are right, and every server is up and knows the whole log.
    fn calm(&mut self) {
        self.say(|| "faults cease".to_owned());
        self.armed = false;
        self.frozen.clear();
        for server in 0..self.servers.len() {
            let is_sound =
                self.servers[server].process.as_ref().is_some_and(|process| !process.has_failed());
            if !is_sound {
                self.kill(server);
            }
            let now = self.now;
            self.servers[server].clock.set(now);
            if self.servers[server].process.is_none() {
                self.start(server);
            }
            self.catch_up_all();
            self.ask(server, Ask::AcceptClock);
        }
        // The second server may have accepted a clock that the first did not have.
        for server in 0..self.servers.len() {
            self.catch_up_all();
            self.ask(server, Ask::AcceptClock);
        }
    }

    fn catch_up_all(&mut self) {
        for server in 0..self.servers.len() {
            if let Some(process) = &self.servers[server].process {
                process.log.catch_up(true);
            }
            self.observe();
        }
    }

    /// Has a server answer a request that is nobody's.
    fn ask(&mut self, server: usize, ask: Ask) {
        self.servers[server].process.as_mut().unwrap().begin(None, ask);
        self.finish_work(server);
    }

    /// Has a server carry out all its work.
    fn finish_work(&mut self, server: usize) -> Vec<usize> {
        let mut answered = Vec::new();
        for _ in 0..WORK_MAX {
            for step in [Step::Read, Step::Commit, Step::Repeat, Step::Snapshot] {
                answered.extend(self.attend(server, Some(step)));
            }
            if self.servers[server].process.as_ref().unwrap().n_running() == 0 {
                return answered;
            }
        }
        panic!("server {server} does not come to an end");
    }

    /// Has a client repeat a request until it knows the outcome.
    fn finish_call(&mut self, call: usize) {
        for _ in 0..ATTEMPTS_MAX {
            let server = self.dice.index(self.servers.len());
            self.catch_up_all();
            let ask = self.calls[call].ask.clone();
            self.servers[server].process.as_mut().unwrap().begin(Some(call), ask);
            self.finish_work(server);
            self.carry_answers();
            if self.calls[call].is_known {
                return;
            }
        }
        panic!("call {call} has no outcome: {:?}", self.calls[call].ask);
    }

    fn reinstate_all(&mut self) {
        let users = self.agents.iter().map(|agent| agent.device.user().to_owned());
        for user in users.collect::<Vec<_>>() {
            self.ask(0, Ask::Suspend(SuspensionChange::Reinstate { user }));
        }
    }

    /// Sweeps until time has done nothing to any pool.
    fn sweep_all(&mut self) {
        for server in 0..self.servers.len() {
            self.catch_up_all();
            self.ask(server, Ask::Sweep);
        }
    }

    /// Has the owner of a pool fill it, if it has any history.
    fn refill(&mut self, agent: usize) {
        let device = self.agents[agent].device.clone();
        if self.observer.pools.get(&device).is_none_or(|pool| pool.key.is_none()) {
            return;
        }
        for _ in 0..=FULL {
            if FULL <= self.available(&device) {
                break;
            }
            let packages = (0..FULL).map(|_| self.plain_package(&device)).collect();
            let upload = self.to_own_pool(agent, Command::Upload(packages));
            let call = self.call(agent, upload);
            self.finish_call(call);
        }
        assert!(FULL <= self.available(&device), "{device} is full again");
        self.empty_mailbox(agent);
    }

    fn available(&self, device: &PoolId) -> u64 {
        self.observer.pools[device].state.counts().available
    }

    fn plain_package(&self, device: &PoolId) -> NewPackage {
        loop {
            let package = self.new_package(device);
            let is_long = self.now.after(Duration::from_hours(100)) < package.facts.not_after;
            if is_long && !package.facts.last_resort {
                return package;
            }
        }
    }

    /// Has a device acknowledge its whole mailbox: then its mailbox is empty.
    fn empty_mailbox(&mut self, agent: usize) {
        let device = self.agents[agent].device.clone();
        let last = |world: &Self| {
            let mailbox = world.observer.deliveries.mailboxes.get(&device)?;
            mailbox.after(0).map(|waiting| waiting.position).max()
        };
        let Some(through) = last(self) else { return };
        let acknowledgement = Acknowledgement { through, ..self.acknowledgement(&device) };
        let ask = self.delivery(agent, DeliveryCommand::Acknowledge(acknowledgement));
        let call = self.call(agent, ask);
        self.finish_call(call);
        assert_eq!(last(self), None, "the mailbox of {device} is empty");
    }

    /// A start finds the published states: from the snapshots, from those of a stop, and from the log alone.
    fn check_restarts(&mut self) {
        for server in 0..self.servers.len() {
            self.catch_up_all();
            self.servers[server].process.as_ref().unwrap().armed(false);
            self.servers[server].process.as_ref().unwrap().pools.close();
            for _ in 0..2 {
                self.servers[server].kill();
                self.start(server);
            }
        }
        let now = self.servers[0].clock.now();
        let mut bare = SimulatedServer::new(now, &self.dice, &self.rates);
        bare.start(&self.engine, &self.dice, &self.rates, false);
        self.servers.push(bare);
        let server = self.servers.len() - 1;
        self.compare(server);
        // How full a pool is that nobody has asked for since a start, the next sweep tells.
        self.sweep_all();
        let process = |server: usize| self.servers[server].process.as_ref().unwrap();
        for agent in &self.agents {
            let user = agent.device.user();
            let heads = [0, server].map(|server| process(server).pools.device_list_head(user));
            assert_eq!(heads[0], heads[1], "the devices of {user}");
        }
        assert_eq!(process(0).pools.pools(), process(server).pools.pools());
        assert_eq!(process(0).pools.levels(), process(server).pools.levels());
    }
}
