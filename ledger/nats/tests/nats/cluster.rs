//! A cluster of nats-server processes on free ports, with their files in a temporary directory.

use std::{
    env, fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use keypool_ledger::{Replication, StreamStatus};
use keypool_nats::{NatsReplication, NatsSettings};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::support::{DEADLINE, eventually};

/// One cluster at a time: two cores carry no more.
static TURN: Mutex<()> = Mutex::new(());

/// Nodes of one cluster, which are killed at the end.
pub(crate) struct Cluster {
    nodes: Vec<Node>,
    dir: TempDir,
    _turn: MutexGuard<'static, ()>,
}

/// A nats-server process, or the place of one.
struct Node {
    port: u16,
    monitor: u16,
    child: Option<Child>,
}

/// The path of nats-server; none if the tests are to be skipped.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn program() -> Option<PathBuf> {
    let found = env::var_os("KEYPOOL_NATS_SERVER").map(PathBuf::from);
    if found.is_none() {
        let is_required = env::var_os("KEYPOOL_NATS_REQUIRED").is_some();
        assert!(!is_required, "KEYPOOL_NATS_SERVER must be the path of nats-server");
        eprintln!("skipped: KEYPOOL_NATS_SERVER is not the path of nats-server");
    }
    found
}

/// Ports that were free a moment ago.
fn free_ports(count: usize) -> Vec<u16> {
    let bind = |_| TcpListener::bind("127.0.0.1:0").unwrap();
    let listeners: Vec<_> = (0..count).map(bind).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

impl Cluster {
    /// Starts a number of nodes; none if the tests are to be skipped.
    pub(crate) fn start(count: usize) -> Option<Self> {
        Self::with(count, "max_payload: 8MB")
    }

    /// Starts a number of nodes with some lines more in their configurations.
    pub(crate) fn with(count: usize, lines: &str) -> Option<Self> {
        let program = program()?;
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = TempDir::new().unwrap();
        let ports = free_ports(3 * count);
        let (clients, rest) = ports.split_at(count);
        let monitors = &rest[count..];
        for index in 0..count {
            let text = configuration(&dir.path().join(format!("n{index}")), index, lines, &ports);
            fs::write(dir.path().join(format!("n{index}.conf")), text).unwrap();
        }
        let node =
            |(port, monitor): (&u16, &u16)| Node { port: *port, monitor: *monitor, child: None };
        let nodes = clients.iter().zip(monitors).map(node).collect();
        let mut cluster = Self { nodes, dir, _turn: turn };
        fs::write(cluster.dir.path().join("program"), program.to_str().unwrap()).unwrap();
        (0..count).for_each(|index| cluster.run(index));
        Some(cluster)
    }

    /// Starts a node, again with the files that it has.
    pub(crate) fn run(&mut self, index: usize) {
        let dir = self.dir.path();
        let program = fs::read_to_string(dir.join("program")).unwrap();
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(dir.join(format!("n{index}.log")))
            .unwrap();
        let mut command = Command::new(program);
        command.arg("-c").arg(dir.join(format!("n{index}.conf")));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.nodes[index].child = Some(command.spawn().unwrap());
    }

    /// Ends a node without any warning.
    pub(crate) fn kill(&mut self, index: usize) {
        if let Some(mut child) = self.nodes[index].child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends a signal to a node.
    pub(crate) fn signal(&self, index: usize, signal: Signal) {
        let child = self.nodes[index].child.as_ref().unwrap();
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// Asks a node to end, and waits until it has: at once, or with `USR2` after it has handed over.
    pub(crate) fn stop(&mut self, index: usize, signal: Signal) {
        self.signal(index, signal);
        self.nodes[index].child.take().unwrap().wait().unwrap();
    }

    /// The addresses of all nodes.
    pub(crate) fn addresses(&self) -> String {
        let address = |node: &Node| format!("nats://127.0.0.1:{}", node.port);
        self.nodes.iter().map(address).collect::<Vec<_>>().join(",")
    }

    /// The address of a node.
    pub(crate) fn port(&self, index: usize) -> u16 {
        self.nodes[index].port
    }

    /// Settings for a stream of as many replicas as there are nodes.
    pub(crate) fn settings(&self, name: &str) -> NatsSettings {
        let settings = NatsSettings::new(&self.addresses(), name).unwrap();
        settings.with_replicas(self.nodes.len()).with_patience(DEADLINE)
    }

    /// A new connection to a stream.
    pub(crate) fn connect(&self, name: &str) -> NatsReplication {
        NatsReplication::connect(&self.settings(name)).unwrap()
    }

    /// The files of a node.
    pub(crate) fn files(&self, index: usize) -> PathBuf {
        self.dir.path().join(format!("n{index}"))
    }

    /// How many messages a node has lost, as its monitoring port says. It may not have read its files yet.
    pub(crate) fn lost(&self, index: usize) -> Option<u64> {
        let text = self.ask(index, "/jsz?streams=true")?;
        let state = text.split("\"state\"").nth(1)?;
        let number = |name: &str| -> Option<u64> {
            let rest = state.split(&format!("\"{name}\":")).nth(1)?;
            rest.trim_start().split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        Some(number("last_seq")?.saturating_sub(number("messages")?))
    }

    /// Asks the monitoring port of a node.
    fn ask(&self, index: usize, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.nodes[index].monitor)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().filter_map(|node| node.child.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() && env::var_os("KEYPOOL_NATS_KEEP").is_some() {
            self.dir.disable_cleanup(true);
        }
    }
}

/// The configuration of a node: every write is on the disk before it is acknowledged.
fn configuration(store: &Path, index: usize, lines: &str, ports: &[u16]) -> String {
    let count = ports.len() / 3;
    let (client, route, monitor) = (ports[index], ports[count + index], ports[2 * count + index]);
    let address = |port: &u16| format!("\"nats-route://127.0.0.1:{port}\"");
    let routes = ports[count..2 * count].iter().map(address).collect::<Vec<_>>().join(", ");
    let cluster =
        format!("cluster {{ name: keypool, listen: \"127.0.0.1:{route}\", routes: [{routes}] }}");
    format!(
        "server_name: n{index}\nlisten: \"127.0.0.1:{client}\"\nhttp: \"127.0.0.1:{monitor}\"\n\
         lame_duck_duration: 30s\nlame_duck_grace_period: 1s\n{lines}\n{}\n\
         jetstream {{ store_dir: \"{}\", sync_interval: always, max_file: 4GB, max_mem: 64MB }}\n",
        if 1 < count { &cluster } else { "" },
        store.display()
    )
}

/// Waits until a majority serves the stream with a leader, and returns its state.
pub(crate) fn state_of(stream: &NatsReplication) -> StreamStatus {
    eventually(|| stream.status(Duration::from_secs(2)).ok().filter(|state| state.leader.is_some()))
}

/// The number of the node that leads the stream.
pub(crate) fn leader_of(stream: &NatsReplication) -> usize {
    state_of(stream).leader.unwrap().trim_start_matches('n').parse().unwrap()
}

/// Waits until all nodes have the whole stream.
pub(crate) fn wait_until_whole(stream: &NatsReplication) {
    eventually(|| Some(state_of(stream)).filter(|state| state.current_replicas == state.replicas));
}
