//! Three servers write while nodes of the cluster are killed, paused and restarted: nothing that was
//! acknowledged is lost, nothing that was refused is there, and all copies are the same.

use std::{
    env,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, channel},
    },
    thread,
    time::Duration,
};

use keypool_ledger::{
    EventLog, ReplicaHealth, ReplicatedLog,
    log::conformance::{
        HeldLines,
        servers::{WriterAcknowledgement, check_outcomes, write_until},
    },
};
use keypool_nats::{NatsReplication, NatsSettings};
use rustix::process::Signal;
use tempfile::TempDir;

use super::{
    cluster::{Cluster, leader_of, wait_until_whole},
    support::{all, join, now, wait_for},
};

/// How many servers write.
const SERVERS: usize = 3;
/// How many acknowledgements there are between two faults.
const BETWEEN: usize = 150;
/// How long a paused node is paused.
const PAUSE: Duration = Duration::from_secs(8);
/// How long an acknowledgement may take after a fault.
const DEADLINE: Duration = Duration::from_mins(1);

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
    acknowledged: Receiver<WriterAcknowledgement>,
    /// When the last acknowledgement came, in milliseconds.
    last: u64,
    /// The longest time without one.
    longest: u64,
}

impl Field<'_> {
    fn hear(&mut self, acknowledged: WriterAcknowledgement) {
        self.longest = self.longest.max(acknowledged.at.saturating_sub(self.last));
        self.last = self.last.max(acknowledged.at);
    }

    /// Waits until every server has had so many acknowledgements in turn that others had some too.
    fn wait_for_all(&mut self, count: usize) {
        let (mut heard, mut of_each) = (0, [0; SERVERS]);
        while heard < count || of_each.contains(&0) {
            let acknowledged = self.acknowledged.recv_timeout(DEADLINE).expect("servers write on");
            heard += 1;
            of_each[acknowledged.server] += 1;
            self.hear(acknowledged);
        }
    }

    /// Hears acknowledgements for a while.
    fn pass(&mut self, time: Duration) {
        let end = now() + u64::try_from(time.as_millis()).unwrap();
        while let Some(left) = end.checked_sub(now()).filter(|left| 0 < *left) {
            if let Ok(heard) = self.acknowledged.recv_timeout(Duration::from_millis(left)) {
                self.hear(heard);
            }
        }
    }

    /// Brings a fault about, and returns the longest time without an acknowledgement, in milliseconds.
    fn suffer(&mut self, fault: NodeFault) -> u64 {
        wait_until_whole(&self.watch);
        self.wait_for_all(BETWEEN);
        self.longest = 0;
        let leader = leader_of(&self.watch);
        match fault {
            NodeFault::LeaderKilled | NodeFault::FollowerKilled => {
                let is_leader = matches!(fault, NodeFault::LeaderKilled);
                let node = if is_leader { leader } else { (leader + 1) % 3 };
                self.cluster.kill(node);
                self.wait_for_all(BETWEEN);
                self.cluster.run(node);
            }
            NodeFault::AllKilled => {
                (0..3).for_each(|node| self.cluster.kill(node));
                self.pass(Duration::from_secs(1));
                (0..3).for_each(|node| self.cluster.run(node));
            }
            NodeFault::LeaderPaused => {
                self.cluster.signal(leader, Signal::STOP);
                self.pass(PAUSE);
                self.cluster.signal(leader, Signal::CONT);
            }
            NodeFault::ServerCutOff => {
                self.proxy.hold();
                self.pass(PAUSE);
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
        self.wait_for_all(BETWEEN);
        self.longest
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
    let (ending, (telling, acknowledged)) = (AtomicBool::new(false), channel());
    let watch = cluster.connect("faults");
    let cluster = &mut cluster;
    let mut field = Field { cluster, proxy, watch, acknowledged, last: now(), longest: 0 };
    let told: Vec<_> = thread::scope(|scope| {
        let start = |(server, log)| {
            let (ending, telling) = (&ending, telling.clone());
            scope.spawn(move || write_until(log, server, ending, &telling))
        };
        let writers: Vec<_> = logs.iter().enumerate().map(start).collect();
        let end = EndOnDrop(&ending);
        for (round, fault) in faults.iter().enumerate() {
            let longest = field.suffer(*fault);
            eprintln!("round {}: {fault:?}: {longest} ms without an append", round + 1);
        }
        drop(end);
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    wait_until_whole(&field.watch);
    let fresh = TempDir::new().unwrap();
    let stored = all(&join(fresh.path(), field.cluster.connect("faults")).unwrap());
    for log in &logs {
        wait_for(log, stored.len() as u64);
        assert_eq!(all(log), stored, "all copies are the same");
        assert_eq!(log.health(), ReplicaHealth::Following);
        assert_eq!(log.head().unwrap().seq, stored.len() as u64);
    }
    let outcomes = check_outcomes(&told, &stored);
    assert!(0 < outcomes.written);
    eprintln!("{} rounds: {outcomes:?}", faults.len());
}

/// Settings of a server whose lines can be held up.
fn proxied(proxy: &HeldLines) -> NatsSettings {
    let address = |port: &u16| format!("nats://127.0.0.1:{port}");
    let addresses = proxy.ports.iter().map(address).collect::<Vec<_>>().join(",");
    NatsSettings::new(&addresses, "faults").unwrap().with_patience(DEADLINE)
}

/// Ends the writers also when the test fails.
struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
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
