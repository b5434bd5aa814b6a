//! PostgreSQL servers on free ports, a primary and its standbys, with their files in a temporary directory.

use std::{
    env, fs,
    net::TcpListener,
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use keypool_postgres::{PostgresReplication, PostgresSettings};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::support::{DEADLINE, eventually};

/// The configuration of every server: small, soon to notice, and waiting for a standby.
const CONFIGURATION: &str = "
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
shared_buffers = 16MB
max_connections = 60
wal_retrieve_retry_interval = 100ms
wal_receiver_timeout = 5s
wal_sender_timeout = 5s
logging_collector = off
";

/// Servers of one cluster, which are killed at the end.
pub(crate) struct Cluster {
    programs: Programs,
    nodes: Vec<Node>,
    dir: TempDir,
}

/// A server's process, or the place of one.
struct Node {
    port: u16,
    child: Option<Child>,
}

/// The programs of PostgreSQL, and the user and group that run them.
#[derive(Clone)]
struct Programs {
    folder: PathBuf,
    owner: Option<(u32, u32)>,
}

impl Programs {
    /// Finds the programs; none if the tests are to be skipped.
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    fn find() -> Option<Self> {
        let debian = || {
            let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
            let folders = versions.flatten().map(|version| version.path().join("bin"));
            folders.filter(|folder| folder.join("initdb").exists()).max()
        };
        let found = env::var_os("KEYPOOL_POSTGRES_BIN").map(PathBuf::from).or_else(debian);
        let Some(folder) = found else {
            let is_required = env::var_os("KEYPOOL_POSTGRES_REQUIRED").is_some();
            assert!(
                !is_required,
                "KEYPOOL_POSTGRES_BIN must be the folder of PostgreSQL's programs"
            );
            eprintln!("skipped: PostgreSQL's programs are not in KEYPOOL_POSTGRES_BIN");
            return None;
        };
        // The server refuses to run as root.
        let owner = rustix::process::geteuid().is_root().then(|| user_of("postgres"));
        Some(Self { folder, owner })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.folder.join(program));
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command.stdin(Stdio::null()).env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C");
        command.current_dir("/");
        command
    }

    fn give(&self, path: &Path) {
        if let Some((user, group)) = self.owner {
            chown(path, Some(user), Some(group)).unwrap();
        }
    }
}

/// The numbers of a user and its group.
fn user_of(name: &str) -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.split(':').next() == Some(name)).unwrap();
    let number = |index: usize| line.split(':').nth(index).unwrap().parse().unwrap();
    (number(2), number(3))
}

/// Runs a command to its end.
fn run(mut command: Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Cluster {
    /// Starts a primary and standbys, of which one must confirm if there is any; none if the tests are to be skipped.
    pub(crate) fn start(count: usize) -> Option<Self> {
        Self::with(count, if 1 < count { "synchronous_standby_names = 'ANY 1 (*)'" } else { "" })
    }

    /// Starts servers with some lines more in their configurations.
    pub(crate) fn with(count: usize, lines: &str) -> Option<Self> {
        let programs = Programs::find()?;
        let dir = TempDir::new().unwrap();
        programs.give(dir.path());
        let node = |_| Node { port: free_port(), child: None };
        let mut cluster = Self { programs, nodes: (0..count).map(node).collect(), dir };
        let mut initdb = cluster.programs.command("initdb");
        initdb.args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "-D"]);
        initdb.arg(cluster.files(0));
        run(initdb);
        cluster.configure(0, lines);
        cluster.run(0);
        for index in 1..count {
            cluster.rebuild(index, 0);
        }
        Some(cluster)
    }

    /// Adds lines to the configuration of a server. They count at its next start.
    pub(crate) fn configure(&self, index: usize, lines: &str) {
        let path = self.files(index).join("postgresql.conf");
        let text = fs::read_to_string(&path).unwrap();
        let common = if text.contains("wal_receiver_timeout = 5s") { "" } else { CONFIGURATION };
        fs::write(path, format!("{text}{common}{lines}\n")).unwrap();
    }

    /// Starts a server, again with the files that it has, and waits until it answers.
    pub(crate) fn run(&mut self, index: usize) {
        let log = self.dir.path().join(format!("n{index}.log"));
        let log = fs::File::options().create(true).append(true).open(log).unwrap();
        // Processes of a server that was killed may still be ending.
        let _ = fs::remove_file(self.files(index).join("postmaster.pid"));
        let mut command = self.programs.command("postgres");
        command.arg("-D").arg(self.files(index)).args(["-p", &self.port(index).to_string()]);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.nodes[index].child = Some(command.spawn().unwrap());
        eventually(|| self.try_sql(index, "SELECT 1"));
    }

    /// Makes a server anew, as a standby of another one, and starts it.
    pub(crate) fn rebuild(&mut self, index: usize, primary: usize) {
        self.kill(index);
        let _ = fs::remove_dir_all(self.files(index));
        let mut copy = self.programs.command("pg_basebackup");
        copy.args(["--no-sync", "--checkpoint=fast", "--write-recovery-conf", "-U", "postgres"]);
        copy.args(["-h", "127.0.0.1", "-p", &self.port(primary).to_string(), "-D"]);
        copy.arg(self.files(index));
        run(copy);
        self.run(index);
    }

    /// The process of a server and those that it has started.
    fn processes(&self, index: usize) -> Vec<Pid> {
        let Some(child) = &self.nodes[index].child else { return Vec::new() };
        let parent = child.id().to_string();
        let mut found = vec![Pid::from_child(child)];
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let name = entry.file_name();
            let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let fields = stat.rsplit(") ").next().unwrap_or_default();
            if fields.split(' ').nth(1) == Some(&parent) {
                found.extend(Pid::from_raw(id));
            }
        }
        found
    }

    /// Sends a signal to all processes of a server.
    pub(crate) fn signal(&self, index: usize, signal: Signal) {
        for process in self.processes(index) {
            let _ = kill_process(process, signal);
        }
    }

    /// Ends all processes of a server without any warning.
    pub(crate) fn kill(&mut self, index: usize) {
        self.signal(index, Signal::KILL);
        if let Some(mut child) = self.nodes[index].child.take() {
            child.wait().unwrap();
        }
    }

    /// Has a standby become the primary, and waits until it is.
    pub(crate) fn promote(&self, index: usize) {
        assert_eq!(self.sql(index, "SELECT pg_promote()"), "t");
    }

    /// Has a standby follow another primary.
    pub(crate) fn follow(&self, index: usize, primary: usize) {
        let port = self.port(primary);
        self.sql(
            index,
            &format!(
                "ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port={port} user=postgres'"
            ),
        );
        self.sql(index, "SELECT pg_reload_conf()");
    }

    /// Waits until a number of standbys confirm writes of a primary.
    pub(crate) fn wait_for_standbys(&self, primary: usize, count: usize) {
        let asked = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state <> 'async'";
        eventually(|| {
            let found: usize = self.try_sql(primary, asked)?.parse().ok()?;
            (count <= found).then_some(())
        });
    }

    /// Asks a server a question.
    pub(crate) fn sql(&self, index: usize, sql: &str) -> String {
        self.try_sql(index, sql).unwrap_or_else(|| panic!("n{index} does not answer: {sql}"))
    }

    /// Asks a server a question; none if it does not answer it.
    pub(crate) fn try_sql(&self, index: usize, sql: &str) -> Option<String> {
        let mut command = self.programs.command("psql");
        command.env("PGCONNECT_TIMEOUT", "5").args(["-X", "-A", "-t", "-q", "-U", "postgres"]);
        command.args(["-h", "127.0.0.1", "-p", &self.port(index).to_string(), "-c", sql]);
        command.args(["-v", "ON_ERROR_STOP=1", "postgres"]);
        let output = command.output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }

    /// The port of a server.
    pub(crate) fn port(&self, index: usize) -> u16 {
        self.nodes[index].port
    }

    /// A connection string that names servers by their ports.
    pub(crate) fn address_of(ports: &[u16]) -> String {
        let host = |port: &u16| format!("127.0.0.1:{port}");
        let hosts = ports.iter().map(host).collect::<Vec<_>>().join(",");
        format!("postgresql://postgres@{hosts}/postgres")
    }

    /// Settings for all servers, and as many demanded standbys as there may be.
    pub(crate) fn settings(&self, name: &str) -> PostgresSettings {
        let ports: Vec<u16> = self.nodes.iter().map(|node| node.port).collect();
        let settings = PostgresSettings::new(&Self::address_of(&ports), name).unwrap();
        settings.with_standbys(usize::from(1 < ports.len())).with_patience(DEADLINE)
    }

    /// Settings for one server alone.
    pub(crate) fn only(&self, index: usize, name: &str) -> PostgresSettings {
        PostgresSettings::new(&Self::address_of(&[self.port(index)]), name).unwrap()
    }

    /// The standby that has most of its lost primary's log. One that was restarted has received nothing since, and has
    /// replayed all that it has once it asks for more.
    pub(crate) fn most_advanced(&self, standbys: &[usize]) -> usize {
        let asked = "SELECT greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0' \
                     WHERE pg_last_wal_receive_lsn() IS NOT NULL";
        let reached =
            |index: &usize| -> u64 { eventually(|| self.try_sql(*index, asked)?.parse().ok()) };
        *standbys.iter().max_by_key(|index| reached(index)).unwrap()
    }

    /// A new connection to a stream.
    pub(crate) fn connect(&self, name: &str) -> PostgresReplication {
        PostgresReplication::connect(&self.settings(name))
            .unwrap_or_else(|error| panic!("{error:?}"))
    }

    /// The files of a server.
    pub(crate) fn files(&self, index: usize) -> PathBuf {
        self.dir.path().join(format!("n{index}"))
    }

    /// Writes a file that the servers may read.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        self.programs.give(&path);
        path
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..self.nodes.len()).for_each(|index| self.kill(index));
        if std::thread::panicking() && env::var_os("KEYPOOL_POSTGRES_KEEP").is_some() {
            self.dir.disable_cleanup(true);
        }
    }
}
