//! Three servers write while nodes of the cluster are killed, paused and restarted: nothing that was
//! acknowledged is lost, nothing that was refused is there, and all copies are the same.

use std::{env, time::Duration};

use keypool_ledger::{
    ReplicatedLog,
    log::conformance::{
        HeldLines,
        servers::{Acknowledgements, check_servers, write_through},
    },
};
use keypool_nats::{NatsReplication, NatsSettings};
use rustix::process::Signal;
use tempfile::TempDir;

use super::{
    cluster::{Cluster, leader_of, wait_until_whole},
    support::{DEADLINE, all, join},
};

/// How many servers write.
const SERVERS: usize = 3;
/// How many acknowledgements there are between two faults.
const BETWEEN: usize = 150;
/// How long a paused node is paused.
const PAUSE: Duration = Duration::from_secs(8);

/// A fault of the cluster.
#[derive(Clone, Copy, Debug)]
enum NodeFault {
    LeaderKilled,
    FollowerKilled,
    AllKilled,
    LeaderPaused,
    AllRestarted,
    /// The first server's lines are held up: its frames arrive late.
    ServerCutOff,
}

/// A cluster whose servers write, and their acknowledgements.
struct Field<'a> {
    cluster: &'a mut Cluster,
    /// The lines of the first server.
    proxy: HeldLines,
    /// A connection that asks for the state alone.
    watch: NatsReplication,
    acknowledged: Acknowledgements,
}

impl Field<'_> {
    /// Brings a fault about, and returns the longest time without an acknowledgement, in milliseconds.
    fn suffer(&mut self, fault: NodeFault) -> u64 {
        wait_until_whole(&self.watch);
        self.acknowledged.wait_for_all(BETWEEN);
        self.acknowledged.take_longest();
        let leader = leader_of(&self.watch);
        match fault {
            NodeFault::LeaderKilled | NodeFault::FollowerKilled => {
                let is_leader = matches!(fault, NodeFault::LeaderKilled);
                let node = if is_leader { leader } else { (leader + 1) % 3 };
                self.cluster.kill(node);
                self.acknowledged.wait_for_all(BETWEEN);
                self.cluster.run(node);
            }
            NodeFault::AllKilled => {
                (0..3).for_each(|node| self.cluster.kill(node));
                self.acknowledged.pass(Duration::from_secs(1));
                (0..3).for_each(|node| self.cluster.run(node));
            }
            NodeFault::LeaderPaused => {
                self.cluster.signal(leader, Signal::STOP);
                self.acknowledged.pass(PAUSE);
                self.cluster.signal(leader, Signal::CONT);
            }
            NodeFault::ServerCutOff => {
                self.proxy.hold();
                self.acknowledged.pass(PAUSE);
                self.proxy.release();
            }
            NodeFault::AllRestarted => {
                for node in [leader, (leader + 1) % 3, (leader + 2) % 3] {
                    self.cluster.stop(node, Signal::USR2);
                    self.cluster.run(node);
                    wait_until_whole(&self.watch);
                }
            }
        }
        self.acknowledged.wait_for_all(BETWEEN);
        self.acknowledged.take_longest()
    }
}

/// Has servers write through a number of faults, and checks every outcome.
#[expect(clippy::print_stderr, reason = "the figures are read with --nocapture")]
fn survive(faults: &[NodeFault]) {
    let Some(mut cluster) = Cluster::start(3) else { return };
    let dirs = [(); SERVERS].map(|()| TempDir::new().unwrap());
    let proxy = HeldLines::to((0..3).map(|node| cluster.port(node)));
    let settings = [proxied(&proxy), cluster.settings("faults"), cluster.settings("faults")];
    let connect = |server: usize| NatsReplication::connect(&settings[server]).unwrap();
    let logs: [ReplicatedLog; SERVERS] =
        [0, 1, 2].map(|server| join(dirs[server].path(), connect(server)).unwrap());
    let watch = cluster.connect("faults");
    let told = write_through(&logs, |acknowledged| {
        let mut field = Field { cluster: &mut cluster, proxy, watch, acknowledged };
        for (round, fault) in faults.iter().enumerate() {
            let longest = field.suffer(*fault);
            eprintln!("round {}: {fault:?}: {longest} ms without an append", round + 1);
        }
    });
    wait_until_whole(&cluster.connect("faults"));
    let fresh = TempDir::new().unwrap();
    let stored = all(&join(fresh.path(), cluster.connect("faults")).unwrap());
    let outcomes = check_servers(&logs, &stored, &told);
    eprintln!("{} rounds: {outcomes:?}", faults.len());
}

/// Settings of a server whose lines can be held up.
fn proxied(proxy: &HeldLines) -> NatsSettings {
    let address = |port: &u16| format!("nats://127.0.0.1:{port}");
    let addresses = proxy.ports.iter().map(address).collect::<Vec<_>>().join(",");
    NatsSettings::new(&addresses, "faults").unwrap().with_patience(DEADLINE)
}

/// `KEYPOOL_NATS_ROUNDS` says how many rounds there are; 4 otherwise.
#[test]
fn nothing_is_lost_while_nodes_are_killed_and_paused() {
    let kinds = [
        NodeFault::LeaderKilled,
        NodeFault::FollowerKilled,
        NodeFault::AllKilled,
        NodeFault::LeaderPaused,
    ];
    let rounds = env::var("KEYPOOL_NATS_ROUNDS").map_or(4, |text| text.parse().unwrap());
    survive(&kinds.into_iter().cycle().take(rounds).collect::<Vec<_>>());
}

#[test]
fn servers_write_on_while_all_nodes_are_restarted_in_turn() {
    survive(&[NodeFault::AllRestarted]);
}

#[test]
fn frames_that_come_late_do_no_harm_and_a_server_that_was_cut_off_catches_up() {
    survive(&[NodeFault::ServerCutOff]);
}
