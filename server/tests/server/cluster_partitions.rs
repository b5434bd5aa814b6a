//! Three real servers over three real NATS nodes, each in a network of its own, which are cut off from one another under
//! load. It takes root, `ip`, `iptables` and `unshare`: the test runs itself again in a network where it may do all.
#![expect(clippy::print_stderr, reason = "a skipped test says so, and a long run its figures")]

use std::{
    env,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use keypool_ledger::{Clock, SystemClock};

use crate::{
    cluster_chaos::{ANSWERS, connect, leader_of, rounds},
    cluster_load::{ClusterWorkers, start_servers},
    harness::{Device, Process},
    nats_nodes::{NatsNodes, Place, nats_program},
};

/// Set in the test that runs in a network of its own.
const INSIDE: &str = "KEYPOOL_TEST_INSIDE";
/// Gives a process a network of its own whose names no other process sees, and runs a program in it.
const ENTER: &str = "mount -t tmpfs none /run && ip link set lo up && ip link add kp type bridge && \
    ip addr add 10.77.0.1/24 dev kp && ip link set kp up && iptables -L -n >/dev/null && exec \"$@\"";

/// A command that runs a program in a new network; the network goes with its last process.
fn entering(program: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "sh", "-c", ENTER, "sh", program]);
    command
}

/// Runs a command to its end.
fn run(program: &str, words: &[&str]) {
    assert!(Command::new(program).args(words).status().unwrap().success(), "{program} {words:?}");
}

/// Makes a place with a network that is connected to all others.
fn place(index: usize) -> Place {
    let (namespace, host) = (format!("kp{index}"), format!("10.77.0.{}", 10 + index));
    let (near, far, address) = (format!("v{index}"), format!("w{index}"), format!("{host}/24"));
    run("ip", &["netns", "add", &namespace]);
    run("ip", &["link", "add", &near, "type", "veth", "peer", "name", &far]);
    run("ip", &["link", "set", &far, "netns", &namespace]);
    run("ip", &["link", "set", &near, "master", "kp", "up"]);
    for words in [["link", "set", "lo", "up"].as_slice(), &["link", "set", &far, "up"]] {
        run("ip", &[&["-n", &namespace], words].concat());
    }
    run("ip", &["-n", &namespace, "addr", "add", &address, "dev", &far]);
    Place { host, namespace: Some(namespace) }
}

/// Runs a command in the network of a place.
fn run_at(place: &Place, words: &[&str]) {
    run("ip", &[&["netns", "exec", place.namespace.as_ref().unwrap()], words].concat());
}

/// Drops all that goes between some places and the others, both ways and without a word.
fn cut(some: &[&Place], others: &[&Place]) {
    for place in some {
        for other in others {
            run_at(place, &["iptables", "-A", "INPUT", "-s", &other.host, "-j", "DROP"]);
            run_at(place, &["iptables", "-A", "OUTPUT", "-d", &other.host, "-j", "DROP"]);
        }
    }
}

/// Mends all cuts.
fn mend(places: &[Place]) {
    for place in places {
        run_at(place, &["iptables", "-F"]);
    }
}

/// A cut of the network.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// The leader of NATS is cut off from the other nodes, and servers reach all of them.
    LeaderFromNodes,
    /// A server is cut off from all nodes; devices reach it.
    ServerFromNodes,
    /// The leader of NATS is cut off from nodes and servers.
    LeaderFromAll,
    /// The leader of NATS and one server are cut off from all others: they reach each other alone.
    LeaderWithServer,
}

const CUTS: [Cut; 4] =
    [Cut::LeaderFromNodes, Cut::ServerFromNodes, Cut::LeaderFromAll, Cut::LeaderWithServer];

impl Cut {
    /// Makes the cut, and says whether that server can write no more.
    fn make(self, nodes: &[Place], servers: &[Place], (leader, server): (usize, usize)) -> bool {
        let without = |places: &[Place], index: usize| -> Vec<Place> {
            let kept = places.iter().enumerate().filter(|(n, _)| *n != index);
            kept.map(|(_, place)| place.clone()).collect()
        };
        let (other_nodes, other_servers) = (without(nodes, leader), without(servers, server));
        let (led, cut_off) = (&nodes[leader], &servers[server]);
        match self {
            Self::LeaderFromNodes => cut(&[led], &refs(&other_nodes)),
            Self::ServerFromNodes => cut(&[cut_off], &refs(nodes)),
            Self::LeaderFromAll => cut(&[led], &refs(&[other_nodes, servers.to_vec()].concat())),
            Self::LeaderWithServer => {
                cut(&[led], &refs(&[other_nodes.clone(), other_servers].concat()));
                cut(&[cut_off], &refs(&other_nodes));
            }
        }
        matches!(self, Self::ServerFromNodes | Self::LeaderWithServer)
    }
}

fn refs(places: &[Place]) -> Vec<&Place> {
    places.iter().collect()
}

/// Has a server that cannot reach a majority of the nodes say so to a device that writes.
async fn check_refusal(server: &Process, round: usize) {
    let refused = server.api.register(&Device::new(&format!("cut-{round}"))).await;
    assert_eq!((refused.status, refused.code()), (503, "log_unavailable"), "{}", refused.body);
}

/// Cuts the network of three servers and three nodes under load.
async fn survive() {
    let Some(program) = nats_program() else { return };
    let dir = tempfile::tempdir().unwrap();
    let places: Vec<_> = (0..6).map(place).collect();
    let (node_places, server_places) = places.split_at(3);
    let nodes = NatsNodes::start_at(&program, dir.path(), node_places);
    let (first_node, other_nodes) = node_places.split_at(1);
    cut(&refs(server_places), &refs(other_nodes));
    let (data, servers) = start_servers(server_places, dir.path(), &nodes.addresses);
    mend(&places);
    let stream = connect(&nodes.addresses).await;
    // A device asks the next server long before a server that is cut off gives up: requests are under way at several.
    let workers = ClusterWorkers::start(&servers, Duration::from_secs(2)).await;
    let load = Arc::clone(&workers.load);
    load.until(ANSWERS).await;
    // All servers are connected to a node that loses the others, and goes on to answer: they leave it.
    cut(&refs(first_node), &refs(other_nodes));
    load.until(ANSWERS).await;
    mend(&places);
    for round in 0..rounds() {
        load.until(ANSWERS).await;
        let begun = SystemClock.monotonic();
        let passed = || SystemClock.monotonic().saturating_sub(begun);
        let (leader, server, cut) = (leader_of(&stream).await, round / 4 % 3, CUTS[round % 4]);
        let is_refusing = cut.make(node_places, server_places, (leader, server));
        load.until(ANSWERS).await;
        let written = passed();
        if is_refusing {
            check_refusal(&servers[server], round).await;
        }
        mend(&places);
        let mended = passed();
        load.until(ANSWERS).await;
        let took = passed().saturating_sub(mended);
        eprintln!(
            "round {round}: {cut:?}, {ANSWERS} answers after {written:?}; mended after {mended:?}, {ANSWERS} \
             answers after {took:?}"
        );
    }
    workers.check(servers, &data).await;
}

#[test]
fn nothing_that_was_answered_is_lost_when_nodes_and_servers_are_cut_off() {
    if env::var_os(INSIDE).is_some() {
        return actix_rt::System::new().block_on(survive());
    }
    if nats_program().is_none() {
        return;
    }
    let mut probe = entering("true");
    let probed = probe.stdin(Stdio::null()).stderr(Stdio::null()).status();
    if !probed.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no network can be made, which takes root, unshare, ip and iptables");
        return;
    }
    let name =
        "cluster_partitions::nothing_that_was_answered_is_lost_when_nodes_and_servers_are_cut_off";
    let mut inside = entering(env::current_exe().unwrap().to_str().unwrap());
    let inside = inside.args([name, "--exact", "--nocapture"]).env(INSIDE, "1");
    assert!(inside.status().unwrap().success(), "the test in the network has failed");
}
