//! The subjects, as processes of their own: the server, or a baseline with its database.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    str::FromStr,
    thread,
    time::Duration,
};

use clap::ValueEnum;

use crate::{
    Outcome,
    baseline::Kind,
    cluster::{self, SERVERS},
    image::Contents,
    measure::Usage,
    request::{AUTHORITY, Auth},
};

/// Where Debian has PostgreSQL's programs.
const POSTGRES: &str = "/usr/lib/postgresql/15/bin";
/// Where Debian has Redis.
const REDIS: &str = "/usr/bin/redis-server";
/// How often it is looked whether a database answers, every 50 ms.
const TRIES: usize = 200;

/// A subject that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    Keypool,
    /// Three servers over a log that three NATS nodes keep.
    Cluster,
    Baseline(Kind),
}

impl Subject {
    pub(crate) const ALL: [Self; 7] = [
        Self::Keypool,
        Self::Cluster,
        Self::Baseline(Kind::Echo),
        Self::Baseline(Kind::FsyncFile),
        Self::Baseline(Kind::Sqlite),
        Self::Baseline(Kind::Postgres),
        Self::Baseline(Kind::Redis),
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Keypool => "keypool",
            Self::Cluster => "three keypools",
            Self::Baseline(Kind::Echo) => "echo",
            Self::Baseline(Kind::FsyncFile) => "fsync file",
            Self::Baseline(Kind::Sqlite) => "SQLite",
            Self::Baseline(Kind::Postgres) => "PostgreSQL",
            Self::Baseline(Kind::Redis) => "Redis",
        }
    }

    /// Why it cannot be measured here, if it cannot.
    pub(crate) fn missing(self) -> Option<String> {
        let (program, package) = match self {
            Self::Cluster => {
                let missing = cluster::program().is_none();
                let variable = cluster::PROGRAM;
                return missing.then(|| {
                    format!("{} are not measured: {variable} names no nats-server", self.name())
                });
            }
            Self::Baseline(Kind::Postgres) => (format!("{POSTGRES}/postgres"), "postgresql-15"),
            Self::Baseline(Kind::Redis) => (REDIS.to_owned(), "redis-server"),
            Self::Keypool | Self::Baseline(Kind::Echo | Kind::FsyncFile | Kind::Sqlite) => {
                return None;
            }
        };
        let there = Path::new(&program).exists();
        (!there).then(|| {
            format!(
                "{} is not measured: there is no {program} (Debian: apt-get install {package})",
                self.name()
            )
        })
    }

    /// Whether it hands out the packages of its stock in their order, so that each answer can be checked.
    pub(crate) const fn keeps_packages(self) -> bool {
        match self {
            Self::Baseline(Kind::Echo | Kind::FsyncFile) => false,
            Self::Keypool
            | Self::Cluster
            | Self::Baseline(Kind::Sqlite | Kind::Postgres | Kind::Redis) => true,
        }
    }
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "keypool" => return Ok(Self::Keypool),
            "cluster" => return Ok(Self::Cluster),
            _ => {}
        }
        Kind::from_str(name, false).map(Self::Baseline)
    }
}

/// A subject that runs.
pub(crate) struct Running {
    /// Its first address.
    pub(crate) address: SocketAddr,
    /// All its addresses.
    pub(crate) addresses: Vec<SocketAddr>,
    program: Program,
    /// Its database, or the other programs of a cluster.
    others: Vec<Program>,
}

impl Running {
    /// Starts a subject in a directory of its own. The server's is its data directory.
    pub(crate) fn start(
        subject: Subject,
        auth: Auth,
        dir: &Path,
        contents: Contents,
    ) -> Outcome<Self> {
        let (mut command, others) = match subject {
            Subject::Keypool => (keypool(auth, dir)?, Vec::new()),
            Subject::Cluster => return Self::start_cluster(auth, dir),
            Subject::Baseline(kind) => {
                fs::create_dir_all(dir)?;
                let database = match kind {
                    Kind::Postgres => Some(start_postgres(dir)?),
                    Kind::Redis => Some(start_redis(dir)?),
                    Kind::Echo | Kind::FsyncFile | Kind::Sqlite => None,
                };
                (baseline(kind, auth, dir, contents)?, database.into_iter().collect())
            }
        };
        let (program, address) = Program::listening(&mut command)?;
        Ok(Self { address, addresses: vec![address], program, others })
    }

    /// Starts servers over NATS nodes, each with one of the copies of a data directory that are in a directory.
    fn start_cluster(auth: Auth, dir: &Path) -> Outcome<Self> {
        let (mut commands, settings) = cluster::nodes(dir)?;
        let nodes = commands.iter_mut().map(Program::start).collect::<Outcome<Vec<_>>>()?;
        let mut publish = server()?;
        publish.arg("publish").args(&settings).arg("--data").arg(dir.join("0"));
        if !publish.stdout(Stdio::null()).status()?.success() {
            return Err("the log cannot be published".into());
        }
        let mut servers = Vec::new();
        for number in 0..SERVERS {
            let mut command = keypool(auth, &dir.join(number.to_string()))?;
            servers.push(Program::listening(command.args(&settings))?);
        }
        let addresses: Vec<_> = servers.iter().map(|(_, address)| *address).collect();
        let (program, address) = servers.remove(0);
        let others = servers.into_iter().map(|(program, _)| program).chain(nodes).collect();
        Ok(Self { address, addresses, program, others })
    }

    /// The resources it has used so far, its other programs included.
    pub(crate) fn usage(&self) -> Outcome<Usage> {
        let mut usage = Usage::of(self.program.pid())?;
        for other in &self.others {
            usage = usage.and(Usage::of(other.pid())?);
        }
        Ok(usage)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.program.pid()
    }

    /// The operator's listener of the server, once: its second line names it.
    pub(crate) fn admin(&mut self) -> Outcome<SocketAddr> {
        let line = self.program.next_line()?;
        let url = line.trim().strip_prefix("metrics").map(str::trim);
        let url = url.and_then(|url| url.strip_prefix("http://")?.strip_suffix("/metrics"));
        Ok(url.ok_or("the server names no operator's listener")?.parse()?)
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(mut self) -> Outcome<()> {
        self.program.stop()?;
        self.others.iter_mut().try_for_each(Program::stop)
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(mut self) -> Outcome<()> {
        self.program.child.kill()?;
        self.program.child.wait()?;
        Ok(())
    }
}

/// A process that does not outlive its owner.
struct Program {
    child: Child,
    /// Kept open: a program may go on writing there.
    out: Option<BufReader<ChildStdout>>,
}

impl Program {
    fn start(command: &mut Command) -> Outcome<Self> {
        let mut child = command.stdin(Stdio::null()).spawn()?;
        let out = child.stdout.take().map(BufReader::new);
        Ok(Self { child, out })
    }

    /// Starts a program that says on its first line where it listens.
    fn listening(command: &mut Command) -> Outcome<(Self, SocketAddr)> {
        let mut program = Self::start(command.stdout(Stdio::piped()))?;
        let line = program.next_line()?;
        let url = line.trim().strip_prefix("listening on http://");
        let address = url.ok_or("the subject did not start")?.parse()?;
        Ok((program, address))
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn next_line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        self.out.as_mut().ok_or("no standard output")?.read_line(&mut line)?;
        Ok(line)
    }

    fn stop(&mut self) -> Outcome<()> {
        // PostgreSQL waits for its clients on SIGTERM, and not on SIGINT; to the others they are one.
        Command::new("kill").args(["-INT", &self.pid().to_string()]).status()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server's program, which is beside `examples/`, where this program is.
fn server() -> Outcome<Command> {
    let own = env::current_exe()?;
    let target = own.parent().and_then(Path::parent).ok_or("this program is in no directory")?;
    let mut command = Command::new(target.join("keypool-server"));
    // It is no setting of the server.
    command.env_remove(cluster::PROGRAM);
    Ok(command)
}

/// The server as it is shipped; its log goes to `/dev/null`.
fn keypool(auth: Auth, data: &Path) -> Outcome<Command> {
    let mut command = server()?;
    command.arg("--data").arg(data).args(["--public-name", AUTHORITY]);
    // What is measured is how fast it serves, not how it refuses.
    command.arg("--no-quotas");
    // Its log was written before, at a time of its own.
    command.args(["--accept-clock", "--accept-new-ledger"]);
    command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    if auth == Auth::Named {
        command.arg("--insecure-no-auth");
    }
    command.stderr(Stdio::null());
    Ok(command)
}

fn baseline(kind: Kind, auth: Auth, dir: &Path, contents: Contents) -> Outcome<Command> {
    let kind = kind.to_possible_value().ok_or("a kind without a name")?;
    let mut command = Command::new(env::current_exe()?);
    command.args(["baseline", "--kind", kind.get_name()]).arg("--dir").arg(dir);
    command.args(["--stocked", &contents.stocked.to_string()]);
    command.args(["--devices", &contents.devices.to_string()]);
    if auth != Auth::Named {
        command.arg("--signed");
    }
    Ok(command)
}

/// PostgreSQL with its defaults, which are durable, in a directory of its own. It refuses to run as root.
fn start_postgres(dir: &Path) -> Outcome<Program> {
    let data = dir.join("postgres");
    let user = user_for_postgres()?;
    let run = |program: &str| {
        let mut command = Command::new(PathBuf::from(POSTGRES).join(program));
        if let Some((uid, gid)) = user {
            command.uid(uid).gid(gid);
        }
        command.stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
        command
    };
    if let Some((uid, gid)) = user {
        chown(dir, Some(uid), Some(gid))?;
    }
    let made = run("initdb")
        .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale", "-D"])
        .arg(&data)
        .status()?;
    if !made.success() {
        return Err("initdb failed".into());
    }
    let socket_dir = format!("unix_socket_directories={}", dir.display());
    let program = Program::start(
        run("postgres")
            .arg("-D")
            .arg(&data)
            .args(["-c", "listen_addresses=", "-c"])
            .arg(socket_dir),
    )?;
    wait_until(|| dir.join(".s.PGSQL.5432").exists())?;
    Ok(program)
}

/// The user that runs PostgreSQL: Debian's user for it if this is root.
fn user_for_postgres() -> Outcome<Option<(u32, u32)>> {
    use std::os::unix::fs::MetadataExt;
    if fs::metadata("/proc/self")?.uid() != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let line = line.ok_or("PostgreSQL does not run as root, and there is no user postgres")?;
    let mut ids = line.split(':').skip(2);
    let mut id = || ids.next().unwrap_or_default().parse::<u32>();
    Ok(Some((id()?, id()?)))
}

/// Redis in a directory of its own, with an append-only file that is forced to the disk before an answer.
fn start_redis(dir: &Path) -> Outcome<Program> {
    let socket = dir.join("redis.sock");
    let mut command = Command::new(REDIS);
    let settings = ["--port", "0", "--save", "", "--appendonly", "yes", "--appendfsync", "always"];
    command.args(settings.map(OsStr::new)).arg("--unixsocket").arg(&socket).arg("--dir").arg(dir);
    let program = Program::start(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
    wait_until(|| socket.exists())?;
    Ok(program)
}

fn wait_until(ready: impl Fn() -> bool) -> Outcome<()> {
    for _ in 0..TRIES {
        if ready() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Err("the database did not start".into())
}
