//! Three real nats-server processes of one cluster, on this machine or each in a network of its own.
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// The place where a process runs.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The IP address that others reach it by.
    pub(crate) host: String,
    /// The network namespace, unless it is the test's own.
    pub(crate) namespace: Option<String>,
}

impl Place {
    /// The loopback address of the test's own network.
    pub(crate) fn here() -> Self {
        Self { host: "127.0.0.1".to_owned(), namespace: None }
    }

    /// A command that runs a program at this place.
    fn command(&self, program: &Path) -> Command {
        let Some(namespace) = &self.namespace else { return Command::new(program) };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(program);
        command
    }

    /// The same command at this place, listening there.
    pub(crate) fn moved(&self, command: &Command) -> Command {
        let mut moved = self.command(Path::new("env"));
        moved.arg("-i");
        for (name, value) in command.get_envs() {
            moved.arg(format!("{}={}", name.to_str().unwrap(), value.unwrap().to_str().unwrap()));
        }
        moved.arg(command.get_program());
        let mut is_address = false;
        for arg in command.get_args() {
            let listens = is_address.then(|| format!("{}:0", self.host));
            is_address = arg == "--listen";
            moved.arg(listens.as_ref().map_or(arg, AsRef::as_ref));
        }
        moved
    }
}

/// The path of nats-server; `None` if the test is to be skipped.
pub(crate) fn nats_program() -> Option<PathBuf> {
    let found = env::var_os("KEYPOOL_NATS_SERVER").map(PathBuf::from);
    if found.is_none() {
        let is_required = env::var_os("KEYPOOL_NATS_REQUIRED").is_some();
        assert!(!is_required, "KEYPOOL_NATS_SERVER must be the path of nats-server");
        eprintln!("skipped: KEYPOOL_NATS_SERVER is not the path of nats-server");
    }
    found
}

/// A nats-server process, or the place of one.
struct NatsNode {
    place: Place,
    config: PathBuf,
    child: Option<Child>,
}

/// The nodes of a cluster, which are killed at the end.
pub(crate) struct NatsNodes {
    program: PathBuf,
    nodes: Vec<NatsNode>,
    /// The addresses of all nodes, separated by commas.
    pub(crate) addresses: String,
}

impl NatsNodes {
    /// Starts three nodes on this machine, with their files in a directory.
    pub(crate) fn start(program: &Path, dir: &Path) -> Self {
        Self::start_at(program, dir, &[Place::here(), Place::here(), Place::here()])
    }

    /// Starts a node at each place.
    pub(crate) fn start_at(program: &Path, dir: &Path, places: &[Place]) -> Self {
        let bind = |_| TcpListener::bind("127.0.0.1:0").unwrap();
        let listeners: Vec<_> = (0..2 * places.len()).map(bind).collect();
        let ports: Vec<_> = listeners.iter().map(|one| one.local_addr().unwrap().port()).collect();
        drop(listeners);
        let (clients, routes) = ports.split_at(places.len());
        let urls = |scheme: &str, ports: &[u16]| {
            let url = |(place, port): (&Place, &u16)| format!("{scheme}://{}:{port}", place.host);
            places.iter().zip(ports).map(url).collect::<Vec<_>>()
        };
        let peers = urls("nats-route", routes).join(", ");
        let node = |(n, place): (usize, &Place)| {
            let (host, store) = (&place.host, dir.join(format!("nats-{n}")));
            let text = format!(
                "server_name: n{n}\nlisten: \"{host}:{}\"\nmax_payload: 8MB\n\
                 jetstream {{ store_dir: \"{}\", sync_interval: always }}\n\
                 cluster {{ name: chaos, listen: \"{host}:{}\", routes: [{peers}] }}\n",
                clients[n],
                store.display(),
                routes[n],
            );
            let config = dir.join(format!("nats-{n}.conf"));
            fs::write(&config, text).unwrap();
            NatsNode { place: place.clone(), config, child: None }
        };
        let nodes = places.iter().enumerate().map(node).collect();
        let addresses = urls("nats", clients).join(",");
        let mut started = Self { program: program.to_owned(), nodes, addresses };
        (0..places.len()).for_each(|node| started.run(node));
        started
    }

    /// Starts a node, again with the files that it has.
    pub(crate) fn run(&mut self, node: usize) {
        let NatsNode { place, config, child } = &mut self.nodes[node];
        let path = config.with_extension("log");
        let log = fs::File::options().create(true).append(true).open(path).unwrap();
        let mut command = place.command(&self.program);
        command.arg("-c").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        *child = Some(command.spawn().unwrap());
    }

    /// Kills a node.
    pub(crate) fn kill(&mut self, node: usize) {
        let mut child = self.nodes[node].child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// The number of a node's process.
    pub(crate) fn id(&self, node: usize) -> u32 {
        self.nodes[node].child.as_ref().unwrap().id()
    }

    /// Asks a node to end, and waits until it has.
    pub(crate) fn stop(&mut self, node: usize) {
        signal(self.id(node), "-TERM");
        self.nodes[node].child.take().unwrap().wait().unwrap();
    }

    /// The directory of a node's files.
    pub(crate) fn files(&self, node: usize) -> PathBuf {
        self.nodes[node].config.with_extension("")
    }
}

impl Drop for NatsNodes {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().filter_map(|node| node.child.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Sends a signal to a process.
pub(crate) fn signal(process: u32, signal: &str) {
    let pid = process.to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
}
