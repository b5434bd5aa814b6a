//! Three servers write while primary and standbys are killed, replaced and cut off: nothing that was acknowledged is
//! lost, nothing that was refused is there, and all copies are the same.

use std::{env, time::Duration};

use keypool_ledger::{
    ReplicatedLog,
    log::conformance::{
        HeldLines,
        servers::{Acknowledgements, check_servers, write_through},
    },
};
use keypool_postgres::{PostgresReplication, PostgresSettings};
use rustix::process::Signal;
use tempfile::TempDir;

use super::{
    cluster::Cluster,
    support::{DEADLINE, all, join},
};

/// How many servers write.
const SERVERS: usize = 3;
/// How many acknowledgements there are between two faults.
const BETWEEN: usize = 150;
/// How long something is gone.
const PAUSE: Duration = Duration::from_secs(4);

/// A fault of the cluster.
#[derive(Clone, Copy, Debug)]
enum ServerFault {
    PrimaryKilled,
    StandbyKilled,
    /// Both standbys are gone for a while, and waits for them are cancelled.
    StandbysKilled,
    /// The primary is lost, and a standby takes over.
    FailedOver,
    /// The primary is lost with frames that no standby has.
    FailedOverAlone,
    /// The primary hangs, a standby takes over, and the old primary goes on.
    PrimaryHung,
    /// All connections are ended, again and again.
    BackendsEnded,
    /// The first server's lines are held up: its frames arrive late.
    ServerCutOff,
}

/// A cluster whose servers write, and their acknowledgements.
struct Field<'a> {
    cluster: &'a mut Cluster,
    /// The number of the primary.
    primary: usize,
    /// The lines of the first server.
    lines: HeldLines,
    acknowledged: Acknowledgements,
}

impl Field<'_> {
    fn standbys(&self) -> [usize; 2] {
        [(self.primary + 1) % 3, (self.primary + 2) % 3]
    }

    /// Cancels the waits for standbys: the frames are on the primary alone then.
    fn cancel_waits(&self) {
        let cancel =
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        let _ = self.cluster.try_sql(self.primary, cancel);
    }

    /// Kills both standbys, and cancels waits for them now and then.
    fn lose_standbys(&mut self) {
        for standby in self.standbys() {
            self.cluster.kill(standby);
        }
        for _ in 0..3 {
            self.acknowledged.pass(PAUSE / 4);
            self.cancel_waits();
        }
    }

    fn run_all(&mut self, nodes: [usize; 2]) {
        for node in nodes {
            self.cluster.run(node);
        }
    }

    /// Has the standby that has most take over, and the other one follow it.
    fn promote(&mut self) {
        let next = self.cluster.most_advanced(&self.standbys());
        let other = self.standbys().into_iter().find(|standby| *standby != next).unwrap();
        self.cluster.promote(next);
        self.cluster.follow(other, next);
        self.primary = next;
    }

    /// Brings a fault about, and returns the longest time without an acknowledgement, in milliseconds.
    fn suffer(&mut self, fault: ServerFault) -> u64 {
        self.cluster.wait_for_standbys(self.primary, 2);
        self.acknowledged.wait_for_all(BETWEEN);
        self.acknowledged.take_longest();
        let (old, standbys) = (self.primary, self.standbys());
        match fault {
            ServerFault::PrimaryKilled => {
                self.cluster.kill(old);
                self.cluster.run(old);
            }
            ServerFault::StandbyKilled => {
                self.cluster.kill(standbys[0]);
                self.acknowledged.wait_for_all(BETWEEN);
                self.cluster.run(standbys[0]);
            }
            ServerFault::StandbysKilled => {
                self.lose_standbys();
                self.run_all(standbys);
            }
            ServerFault::FailedOver => {
                self.cluster.kill(old);
                self.promote();
                self.acknowledged.wait_for_all(BETWEEN);
                self.cluster.rebuild(old, self.primary);
            }
            ServerFault::FailedOverAlone => {
                self.lose_standbys();
                self.cluster.kill(old);
                self.run_all(standbys);
                self.promote();
                // It comes back with the frames that it alone has.
                self.cluster.run(old);
                self.acknowledged.wait_for_all(BETWEEN);
                self.cluster.rebuild(old, self.primary);
            }
            ServerFault::PrimaryHung => {
                self.cluster.signal(old, Signal::STOP);
                self.promote();
                self.acknowledged.pass(PAUSE);
                self.cluster.signal(old, Signal::CONT);
                self.acknowledged.wait_for_all(BETWEEN);
                self.cluster.rebuild(old, self.primary);
            }
            ServerFault::BackendsEnded => {
                let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'keypool-server'";
                for _ in 0..10 {
                    self.cluster.sql(old, end);
                    self.acknowledged.pass(PAUSE / 40);
                }
            }
            ServerFault::ServerCutOff => {
                self.lines.hold();
                self.acknowledged.pass(PAUSE);
                self.lines.release();
            }
        }
        self.acknowledged.wait_for_all(BETWEEN);
        self.acknowledged.take_longest()
    }
}

/// Has servers write through a number of faults, and checks every outcome.
#[expect(clippy::print_stderr, reason = "the figures are read with --nocapture")]
fn survive(faults: &[ServerFault]) {
    let Some(mut cluster) = Cluster::start(3) else { return };
    let dirs = [(); SERVERS].map(|()| TempDir::new().unwrap());
    let lines = HeldLines::to((0..3).map(|node| cluster.port(node)));
    let held = PostgresSettings::new(&Cluster::address_of(&lines.ports), "faults").unwrap();
    let settings =
        [held.with_patience(DEADLINE), cluster.settings("faults"), cluster.settings("faults")];
    let connect = |server: usize| PostgresReplication::connect(&settings[server]).unwrap();
    let logs: [ReplicatedLog; SERVERS] =
        [0, 1, 2].map(|server| join(dirs[server].path(), connect(server)).unwrap());
    let told = write_through(&logs, |acknowledged| {
        let mut field = Field { cluster: &mut cluster, primary: 0, lines, acknowledged };
        for (round, fault) in faults.iter().enumerate() {
            let longest = field.suffer(*fault);
            eprintln!("round {}: {fault:?}: {longest} ms without an append", round + 1);
        }
    });
    let fresh = TempDir::new().unwrap();
    let stored = all(&join(fresh.path(), cluster.connect("faults")).unwrap());
    let outcomes = check_servers(&logs, &stored, &told);
    eprintln!("{} rounds: {outcomes:?}", faults.len());
}

/// `KEYPOOL_POSTGRES_ROUNDS` says how many rounds there are; the worst four faults once otherwise.
#[test]
fn nothing_is_lost_while_primary_and_standbys_are_killed_and_replaced() {
    let kinds = [
        ServerFault::PrimaryKilled,
        ServerFault::FailedOverAlone,
        ServerFault::PrimaryHung,
        ServerFault::ServerCutOff,
        ServerFault::StandbyKilled,
        ServerFault::StandbysKilled,
        ServerFault::FailedOver,
        ServerFault::BackendsEnded,
    ];
    let rounds = env::var("KEYPOOL_POSTGRES_ROUNDS").map_or(4, |text| text.parse().unwrap());
    survive(&kinds.into_iter().cycle().take(rounds).collect::<Vec<_>>());
}
