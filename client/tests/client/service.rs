//! The real server on a free port, devices that speak to it, a mail service that can fail on plan,
//! and a tunnel that loses answers.

use std::{
    collections::HashMap,
    future::Future,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use keypool_client::{
    CommitPost, DeliveryError, DeliveryService, MlsClient, PoolConfig, WelcomePost,
};
use keypool_ledger::{Clock, GroupId, PoolId, SystemClock, Timestamp};
use keypool_server::{Server, Settings};
use tempfile::TempDir;

/// A server, and what its devices share.
pub(crate) struct Service {
    pub(crate) folder: TempDir,
    pub(crate) server: Server,
    pub(crate) clock: Arc<MovableClock>,
    pub(crate) mail: Mail,
    pub(crate) tunnel: Tunnel,
}

impl Service {
    pub(crate) fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let clock = Arc::new(MovableClock::default());
        let settings = Settings {
            listen: "127.0.0.1:0".parse().unwrap(),
            admin_listen: "127.0.0.1:0".parse().unwrap(),
            data: folder.path().join("server"),
            public_names: vec![address.to_string()],
            workers: Some(1),
            ..Settings::default()
        };
        let server = Server::start(settings, clock.clone()).unwrap();
        let tunnel = Tunnel::open(listener, server.address());
        Self { folder, server, clock, mail: Mail::default(), tunnel }
    }

    /// A registered device with a pool of that many packages; its home is kept by its name.
    pub(crate) async fn device(&self, name: &str, packages: usize) -> MlsClient<Mail> {
        let device = self.open_sized(name, packages);
        device.register().await.unwrap();
        if packages > 0 {
            device.connection().refresh_now(self.clock.now()).await.unwrap();
        }
        drop(device);
        self.open(name)
    }

    /// A device that was registered before, after a restart of its app.
    pub(crate) fn open(&self, name: &str) -> MlsClient<Mail> {
        self.open_sized(name, PoolConfig::default().target)
    }

    fn open_sized(&self, name: &str, packages: usize) -> MlsClient<Mail> {
        let config = PoolConfig {
            target: packages.max(1),
            low_watermark: (packages.max(1) - 1).min(8),
            ..PoolConfig::default()
        };
        self.open_at(&self.folder.path().join(name), name, config)
    }

    /// A device with its home in that folder.
    pub(crate) fn open_at(&self, home: &Path, name: &str, config: PoolConfig) -> MlsClient<Mail> {
        let (owner, mail, url) = (name.parse().unwrap(), self.mail.clone(), self.tunnel.url());
        let clock: Arc<dyn Clock> = self.clock.clone();
        MlsClient::open_with(home, &owner, &url, mail, (clock, config)).unwrap()
    }
}

/// Runs a future to its end.
pub(crate) fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

pub(crate) fn group(name: &str) -> GroupId {
    GroupId::new(name.as_bytes()).unwrap()
}

/// The machine's clock, and as much more as a test has moved it.
#[derive(Debug, Default)]
pub(crate) struct MovableClock(AtomicU64);

impl MovableClock {
    pub(crate) fn advance(&self, span: Duration) {
        self.0.fetch_add(span.as_secs(), Ordering::SeqCst);
    }
}

impl Clock for MovableClock {
    fn now(&self) -> Timestamp {
        SystemClock.now().after(Duration::from_secs(self.0.load(Ordering::SeqCst)))
    }
}

/// What the mail service does to the next Commit or Welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is taken, and the answer is lost.
    TakenUnanswered,
    /// It is not taken, and the answer is lost.
    LostUnanswered,
    /// It is refused.
    Refused,
    /// Another Commit was first.
    EpochTaken,
}

/// Something a test does when a Commit or a Welcome arrives, before it is taken.
type Hook = Box<dyn FnMut() + Send>;

/// A mail service in memory.
#[derive(Clone, Default)]
pub(crate) struct Mail(Arc<Mutex<Queues>>);

#[derive(Default)]
struct Queues {
    commits: HashMap<(GroupId, u64), Vec<u8>>,
    welcomes: HashMap<PoolId, Vec<Vec<u8>>>,
    commit_faults: Vec<Fault>,
    welcome_faults: Vec<Fault>,
    on_commit: Option<Hook>,
}

impl std::fmt::Debug for Mail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mail")
    }
}

impl Mail {
    pub(crate) fn fail_commits(&self, faults: &[Fault]) {
        self.0.lock().unwrap().commit_faults = faults.to_vec();
    }

    pub(crate) fn fail_welcomes(&self, faults: &[Fault]) {
        self.0.lock().unwrap().welcome_faults = faults.to_vec();
    }

    /// Does something once, when the next Commit arrives.
    pub(crate) fn on_commit(&self, hook: impl FnOnce() + Send + 'static) {
        let mut hook = Some(hook);
        let once = move || hook.take().into_iter().for_each(|hook| hook());
        self.0.lock().unwrap().on_commit = Some(Box::new(once));
    }

    /// The Welcomes that wait for a device.
    pub(crate) fn welcomes(&self, name: &str) -> Vec<Vec<u8>> {
        let queues = self.0.lock().unwrap();
        queues.welcomes.get(&name.parse().unwrap()).cloned().unwrap_or_default()
    }

    /// The Commits of a group, in the order of their epochs.
    pub(crate) fn commits(&self, group: &GroupId) -> Vec<Vec<u8>> {
        let queues = self.0.lock().unwrap();
        let mut commits: Vec<_> =
            queues.commits.iter().filter(|((of, _), _)| of == group).collect();
        commits.sort_by_key(|((_, epoch), _)| *epoch);
        commits.into_iter().map(|(_, commit)| commit.clone()).collect()
    }
}

/// Takes something, or fails as planned.
fn take(faults: &mut Vec<Fault>, mut take: impl FnMut() -> bool) -> Result<(), DeliveryError> {
    let fault = if faults.is_empty() { None } else { Some(faults.remove(0)) };
    match fault {
        None if take() => Ok(()),
        None | Some(Fault::EpochTaken) => Err(DeliveryError::EpochTaken),
        Some(Fault::TakenUnanswered) => {
            assert!(take());
            Err(DeliveryError::Unanswered("the answer was lost".into()))
        }
        Some(Fault::LostUnanswered) => {
            Err(DeliveryError::Unanswered("the request was lost".into()))
        }
        Some(Fault::Refused) => Err(DeliveryError::Refused("not today".into())),
    }
}

impl DeliveryService for Mail {
    async fn post_commit(&self, post: &CommitPost) -> Result<(), DeliveryError> {
        let hook = self.0.lock().unwrap().on_commit.take();
        if let Some(mut hook) = hook {
            hook();
        }
        let queues = &mut *self.0.lock().unwrap();
        take(&mut queues.commit_faults, || {
            let epoch = (post.group.clone(), post.epoch);
            *queues.commits.entry(epoch).or_insert_with(|| post.commit.clone()) == post.commit
        })
    }

    async fn send_welcome(&self, post: &WelcomePost) -> Result<(), DeliveryError> {
        let queues = &mut *self.0.lock().unwrap();
        take(&mut queues.welcome_faults, || {
            let waiting = queues.welcomes.entry(post.to.clone()).or_default();
            if !waiting.contains(&post.welcome) {
                waiting.push(post.welcome.clone());
            }
            true
        })
    }
}

/// The way to the server. It can lose the answers to some requests: the server has carried them out.
///
/// One request for each connection, so that requests can be counted.
pub(crate) struct Tunnel {
    address: SocketAddr,
    /// The numbers of the requests to come whose answers are lost; the next request is number 0.
    lost: Arc<Mutex<Vec<usize>>>,
    requests: Arc<AtomicUsize>,
}

impl Tunnel {
    fn open(listener: TcpListener, server: SocketAddr) -> Self {
        let address = listener.local_addr().unwrap();
        let (lost, requests) = (Arc::<Mutex<Vec<usize>>>::default(), Arc::<AtomicUsize>::default());
        let (plan, counter) = (Arc::clone(&lost), Arc::clone(&requests));
        thread::spawn(move || {
            for connection in listener.incoming() {
                let number = counter.fetch_add(1, Ordering::SeqCst);
                let is_lost = plan.lock().unwrap().contains(&number);
                if let Some((mut client, answer)) = pass_on(connection.unwrap(), server)
                    && !is_lost
                {
                    let _ = client.write_all(&answer);
                }
            }
        });
        Self { address, lost, requests }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The name the server knows the tunnel by.
    pub(crate) fn authority(&self) -> String {
        self.address.to_string()
    }

    /// Loses the answers to these of the requests to come, from 0.
    pub(crate) fn lose(&self, numbers: &[usize]) {
        let next = self.requests();
        *self.lost.lock().unwrap() = numbers.iter().map(|number| next + number).collect();
    }

    /// How many requests there were.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// Passes one request on and reads the whole answer.
fn pass_on(mut client: TcpStream, server: SocketAddr) -> Option<(TcpStream, Vec<u8>)> {
    let mut request = Vec::new();
    let mut buffer = [0; 8192];
    while !is_whole(&request) {
        match client.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(n) => request.extend_from_slice(&buffer[..n]),
        }
    }
    let head = String::from_utf8_lossy(&request).replacen("\r\n", "\r\nconnection: close\r\n", 1);
    let split = head.find("\r\n\r\n")? + 4;
    let body_at = request.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let mut upstream = TcpStream::connect(server).ok()?;
    upstream.write_all(&head.as_bytes()[..split]).ok()?;
    upstream.write_all(&request[body_at..]).ok()?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer).ok()?;
    Some((client, answer))
}

/// Whether the head and as much of a body as it announces have arrived.
fn is_whole(request: &[u8]) -> bool {
    let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else {
        return false;
    };
    let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
    request.len() >= end + 4 + length
}
