//! The way to the server. It can lose answers, forge them, repeat and delay requests, and see the app die. A
//! stream, which has no end, is handed on as it comes.

use std::{
    collections::{HashMap, VecDeque},
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::sync::watch;

use super::{super::support::in_a_minute, Hook, Side};

/// A function that changes an answer.
type Tamper = Box<dyn FnOnce(&str) -> String + Send>;

/// The fate of one request.
enum Plan {
    /// The server carries it out, and the answer is lost.
    Lost,
    /// It reaches the server twice, and the second answer arrives.
    Twice,
    /// It reaches the server after the next one has, and its answer is lost.
    Late,
    /// The server carries it out, and its answer is changed on its way back, to one of the same length.
    Tampered(Tamper),
    /// The server carries it out, and the body of its answer is another one on its way back.
    Rewritten(Tamper),
    /// It never reaches the server, and somebody else answers.
    Forged(Vec<u8>),
    /// The app dies, and hears nothing any more.
    Killed(Side, Hook),
}

/// The plans of the requests to come, by their numbers from the first one on.
type Plans = Arc<Mutex<HashMap<usize, Plan>>>;

/// The plans of the look-ups in the directory to come, which are not numbered: the first of them is for the
/// next one.
type LookUps = Arc<Mutex<VecDeque<Plan>>>;

/// Requests that are still on their way.
type Late = Arc<Mutex<Vec<Vec<u8>>>>;

/// The way to the server. One request for each connection, so that requests can be counted.
pub(crate) struct Tunnel {
    address: SocketAddr,
    server: Arc<Mutex<SocketAddr>>,
    plans: Plans,
    look_ups: LookUps,
    requests: watch::Sender<usize>,
    body_bytes_max: Arc<AtomicUsize>,
}

impl Tunnel {
    pub(super) fn open(listener: TcpListener, server: SocketAddr) -> Self {
        let address = listener.local_addr().unwrap();
        let (plans, requests) = (Plans::default(), watch::Sender::new(0));
        let look_ups = LookUps::default();
        let next_look_up = Arc::clone(&look_ups);
        let server = Arc::new(Mutex::new(server));
        let body_bytes_max = Arc::new(AtomicUsize::new(usize::MAX));
        let limit = Arc::clone(&body_bytes_max);
        let leads_to = Arc::clone(&server);
        let (plan, counter) = (Arc::clone(&plans), requests.clone());
        thread::spawn(move || {
            // Connections of apps that have died stay open, as they do when a machine is gone.
            let dead = Arc::<Mutex<Vec<TcpStream>>>::default();
            let late = Late::default();
            for connection in listener.incoming() {
                let (connection, dead) = (connection.unwrap(), Arc::clone(&dead));
                let (look_ups, plans) = (Arc::clone(&next_look_up), Arc::clone(&plan));
                let counter = counter.clone();
                let (late, limit) = (Arc::clone(&late), limit.load(Ordering::SeqCst));
                // Some requests wait at the server, and others go on meanwhile; a connection may bring none.
                let server = *leads_to.lock().unwrap();
                thread::spawn(move || {
                    let Some(is_look_up) = is_look_up(&connection) else { return };
                    let plan = if is_look_up {
                        look_ups.lock().unwrap().pop_front()
                    } else {
                        let mut plans = plans.lock().unwrap();
                        let number = *counter.borrow();
                        counter.send_replace(number + 1);
                        plans.remove(&number)
                    };
                    let died = serve(connection, server, plan, (&late, limit));
                    dead.lock().unwrap().extend(died);
                });
            }
        });
        Self { address, server, plans, look_ups, requests, body_bytes_max }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets it lead to another server from now on.
    pub(crate) fn lead_to(&self, server: SocketAddr) {
        *self.server.lock().unwrap() = server;
    }

    /// The name the server knows the tunnel by.
    pub(crate) fn authority(&self) -> String {
        self.address.to_string()
    }

    /// Loses the answers to these of the requests to come, from 0.
    pub(crate) fn lose(&self, numbers: &[usize]) {
        for number in numbers {
            self.plan(*number, Plan::Lost);
        }
    }

    /// Brings these of the requests to come to the server twice.
    pub(crate) fn repeat(&self, numbers: &[usize]) {
        for number in numbers {
            self.plan(*number, Plan::Twice);
        }
    }

    /// Lets the one after each of these overtake it, and loses the answer.
    pub(crate) fn delay(&self, numbers: &[usize]) {
        for number in numbers {
            self.plan(*number, Plan::Late);
        }
    }

    /// Refuses larger bodies from now on, in the server's place and as nginx does.
    pub(crate) fn limit_bodies(&self, bytes_max: usize) {
        self.body_bytes_max.store(bytes_max, Ordering::SeqCst);
    }

    /// Answers one of the requests to come in the server's place.
    pub(crate) fn forge(&self, number: usize, status: u16, body: &str) {
        let answer = format!(
            "HTTP/1.1 {status} Forged\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        self.plan(number, Plan::Forged(answer.into_bytes()));
    }

    /// Answers one of the requests to come with another address.
    pub(crate) fn redirect(&self, number: usize, to: &str) {
        let answer = format!(
            "HTTP/1.1 308 Forged\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        self.plan(number, Plan::Forged(answer.into_bytes()));
    }

    /// Changes the answer to one of the requests to come; it must keep its length.
    pub(crate) fn tamper(&self, number: usize, how: impl FnOnce(&str) -> String + Send + 'static) {
        self.plan(number, Plan::Tampered(Box::new(how)));
    }

    /// Changes the body of the answer to the next look-up in the directory that is not planned yet.
    pub(crate) fn rewrite_look_up(&self, how: impl FnOnce(&str) -> String + Send + 'static) {
        self.look_ups.lock().unwrap().push_back(Plan::Rewritten(Box::new(how)));
    }

    pub(super) fn kill(&self, number: usize, side: Side, hook: Hook) {
        self.plan(number, Plan::Killed(side, hook));
    }

    fn plan(&self, number: usize, plan: Plan) {
        self.plans.lock().unwrap().insert(self.requests() + number, plan);
    }

    /// How much is planned and has not happened yet.
    pub(crate) fn planned(&self) -> usize {
        self.plans.lock().unwrap().len()
    }

    /// Nothing that was planned happens any more.
    pub(crate) fn forget_plans(&self) {
        self.plans.lock().unwrap().clear();
    }

    /// How many requests there were.
    pub(crate) fn requests(&self) -> usize {
        *self.requests.borrow()
    }

    /// Waits until there were so many.
    pub(crate) async fn reached(&self, requests: usize) {
        let mut so_far = self.requests.subscribe();
        in_a_minute(so_far.wait_for(|so_far| requests <= *so_far)).await.unwrap();
    }
}

/// The answer of nginx to a body that is larger than its `client_max_body_size`.
const NGINX_TOO_LARGE: &[u8] = b"HTTP/1.1 413 Request Entity Too Large\r\nserver: nginx\r\n\
    content-type: text/html\r\nconnection: close\r\n\r\n\
    <html><head><title>413 Request Entity Too Large</title></head></html>\r\n";

/// Serves one request as planned. Returns the connection of an app that has died.
fn serve(
    mut client: TcpStream,
    server: SocketAddr,
    plan: Option<Plan>,
    (late, body_bytes_max): (&Late, usize),
) -> Option<TcpStream> {
    let request = read(&mut client)?;
    if body_bytes_max < body_of(&request).len() {
        drop(client.write_all(NGINX_TOO_LARGE));
        return None;
    }
    match plan {
        Some(Plan::Forged(answer)) => drop(client.write_all(&answer)),
        Some(Plan::Tampered(how)) => {
            let answer = String::from_utf8(pass_on(&request, server)?).unwrap();
            drop(client.write_all(how(&answer).as_bytes()));
        }
        Some(Plan::Rewritten(how)) => {
            let answer = String::from_utf8(pass_on(&request, server)?).unwrap();
            let body = how(String::from_utf8_lossy(body_of(answer.as_bytes())).as_ref());
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
                 connection: close\r\n\r\n",
                body.len()
            );
            drop(client.write_all(format!("{head}{body}").as_bytes()));
        }
        Some(Plan::Killed(side, hook)) => {
            if side == Side::After {
                pass_on(&request, server)?;
            }
            hook();
            return Some(client);
        }
        Some(Plan::Lost) => drop(pass_on(&request, server)?),
        Some(Plan::Late) => late.lock().unwrap().push(request),
        Some(Plan::Twice) => {
            pass_on(&request, server)?;
            drop(client.write_all(&pass_on(&request, server)?));
        }
        None if is_stream(&request) => hand_on(client, &request, server)?,
        None => {
            let answer = pass_on(&request, server)?;
            for overtaken in late.lock().unwrap().drain(..) {
                pass_on(&overtaken, server)?;
            }
            drop(client.write_all(&answer));
        }
    }
    None
}

/// Whether a connection brings a look-up in the directory; `None` if it is closed before it brings anything.
fn is_look_up(connection: &TcpStream) -> Option<bool> {
    const BEGIN: &[u8] = b"POST /v1/users/devices";
    let mut begin = [0; BEGIN.len()];
    let len = connection.peek(&mut begin).ok().filter(|len| *len > 0)?;
    Some(len == BEGIN.len() && begin == *BEGIN)
}

/// Reads a whole request.
fn read(client: &mut TcpStream) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    let mut buffer = [0; 8192];
    while !is_whole(&request) {
        match client.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(n) => request.extend_from_slice(&buffer[..n]),
        }
    }
    Some(request)
}

/// The body of a whole request.
fn body_of(request: &[u8]) -> &[u8] {
    let head = request.windows(4).position(|window| window == b"\r\n\r\n");
    head.map_or(&[], |end| &request[end + 4..])
}

fn is_stream(request: &[u8]) -> bool {
    request.starts_with(b"GET /v1/keypackages/stream?")
}

/// Passes a request on and hands the answer back as it comes, until either side has gone.
fn hand_on(mut client: TcpStream, request: &[u8], server: SocketAddr) -> Option<()> {
    let mut upstream = send_on(request, server)?;
    let (mut silent, gone) = (client.try_clone().ok()?, upstream.try_clone().ok()?);
    thread::spawn(move || {
        // An app that listens says nothing more: what comes is its end.
        let _ = silent.read(&mut [0]);
        gone.shutdown(Shutdown::Both)
    });
    let _ = std::io::copy(&mut upstream, &mut client);
    client.shutdown(Shutdown::Both).ok()
}

/// Passes a request on and reads the whole answer.
fn pass_on(request: &[u8], server: SocketAddr) -> Option<Vec<u8>> {
    let mut answer = Vec::new();
    send_on(request, server)?.read_to_end(&mut answer).ok()?;
    Some(answer)
}

fn send_on(request: &[u8], server: SocketAddr) -> Option<TcpStream> {
    let head = String::from_utf8_lossy(request).replacen("\r\n", "\r\nconnection: close\r\n", 1);
    let split = head.find("\r\n\r\n")? + 4;
    let mut upstream = TcpStream::connect(server).ok()?;
    upstream.write_all(&head.as_bytes()[..split]).ok()?;
    upstream.write_all(body_of(request)).ok()?;
    Some(upstream)
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
