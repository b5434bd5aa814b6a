//! More connections, bodies and listeners than there is room for.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::harness::{
    Answer, Api, Device, Draft, GROUP, NOW, Process, Running, answer, command, upload,
};

/// Longer than anything here may take; only a failing test waits that long.
const DEADLINE: Duration = Duration::from_mins(1);
/// As many files as a shell usually lets a process open.
const USUAL_DESCRIPTORS: usize = 1024;
/// The answer to a refused connection.
const BUSY: &str = "HTTP/1.1 503 Service Unavailable";

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Reads until the other side closes.
pub(crate) fn read_to_end(stream: &mut TcpStream) -> String {
    let (mut come, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(len) => come.extend(&chunk[..len]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("the server did not close the connection: {error}"),
        }
    }
    String::from_utf8_lossy(&come).into_owned()
}

/// The real binary within a limit of the shell's `ulimit`.
fn limited(data: &std::path::Path, limit: &str) -> Command {
    let command = command(data);
    let script = format!("ulimit {limit}; exec \"$0\" \"$@\"");
    let mut shell = Command::new("/bin/sh");
    shell.env_clear().arg("-c").arg(script).arg(command.get_program()).args(command.get_args());
    shell
}

/// Lets this test open as many files as the system allows.
fn raise_own_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

/// The counters of a server, read on its own listener.
async fn metric(api: &Api, admin_url: &str, name: &str) -> u64 {
    let answered = answer(api.http.get(format!("{admin_url}/metrics"))).await.unwrap();
    let text = String::from_utf8(answered.bytes).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not there: {text}")).parse().unwrap()
}

#[actix_web::test]
async fn a_server_with_the_usual_descriptors_outlives_1100_idle_sockets_and_keeps_writing() {
    raise_own_descriptors();
    let data = tempfile::tempdir().unwrap();
    let limit = format!("-n {USUAL_DESCRIPTORS}");
    let process = Process::spawn(limited(data.path(), &limit).stderr(Stdio::null()));
    let (api, alice) = (&process.api, Device::new("alice"));
    api.register(&alice).await.ok();
    let admin = process.greeting[1].split_whitespace().nth(1).unwrap();
    let admin = admin.strip_suffix("/metrics").unwrap().to_owned();
    let address: SocketAddr = api.authority().parse().unwrap();
    let mut idle = Vec::new();
    for _ in 0..11 {
        idle.extend((0..100).map(|_| connect(address)));
        // Alice's connection stays in use.
        api.get(&alice, "/keypackages/status").await.ok();
    }

    // Who is connected is served, and everything is written.
    let now = api.clock.now();
    api.upload(&alice, &alice.packages(now, 3)).await.ok();
    // Who comes now is told at once to come again, and not kept waiting.
    let told = loop {
        let told = read_to_end(&mut connect(address));
        if told.starts_with(BUSY) {
            break told;
        }
        // On a machine that is busy the first are closed by now: others come in their place.
        assert!(told.starts_with("HTTP/1.1 408"), "{told:?}");
        idle.drain(..700);
        idle.extend((0..700).map(|_| connect(address)));
    };
    assert!(told.contains("retry-after: 1") && told.contains("\"code\":\"busy\""), "{told}");
    let refused = "keypool_connections_refused_total{bound=\"process\"}";
    assert!(metric(api, &admin, refused).await > 0);

    // Idle ones are closed after a few seconds; then there is room again.
    for socket in &mut idle {
        read_to_end(socket);
    }
    drop(idle);
    let newcomer = Api::new(api.url.clone(), api.clock.clone());
    let status = newcomer.get(&alice, "/keypackages/status").await.ok();
    assert_eq!(status.body["available"], 3);
    assert!(process.terminate().success());
}

#[actix_web::test]
async fn a_low_soft_limit_of_files_is_raised_as_far_as_the_hard_one_allows() {
    raise_own_descriptors();
    let data = tempfile::tempdir().unwrap();
    let process = Process::spawn(limited(data.path(), "-Sn 256").stderr(Stdio::null()));
    let address: SocketAddr = process.api.authority().parse().unwrap();
    let mut held: Vec<TcpStream> = Vec::new();
    for _ in 0..300 {
        let mut stream = connect(address);
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        stream.read_exact(&mut [0; 15]).unwrap();
        held.push(stream);
    }
    assert!(process.terminate().success());
}

#[actix_web::test]
async fn a_server_that_may_open_too_few_files_does_not_start_and_says_what_to_do() {
    let data = tempfile::tempdir().unwrap();
    let (said, code) = crate::harness::refusal(&mut limited(data.path(), "-n 256"));
    assert_eq!(code, 1);
    assert!(said.contains("may open 256 files") && said.contains("ulimit -n"), "{said}");
}

#[actix_web::test]
async fn a_request_on_a_connection_too_many_is_answered_with_a_time_to_come_again() {
    let running = Running::start_with(|settings| settings.connections_max = 2);
    let address = running.server.address();
    let asking = || {
        let mut stream = connect(address);
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        stream
    };
    let mut held = [asking(), asking()];
    for stream in &mut held {
        // It is counted once it is answered.
        stream.read_exact(&mut [0; 15]).unwrap();
    }
    let mut third = asking();
    let told = read_to_end(&mut third);
    assert!(told.starts_with(BUSY) && told.contains("retry-after: 1"), "{told}");
    assert!(told.contains("connection: close"), "{told}");
    let api = &running.api;
    let admin = running.admin_url();
    assert!(metric(api, &admin, "keypool_connections").await >= 2);
    let other = "keypool_connections_refused_total{bound=\"address\"}";
    assert_eq!(metric(api, &admin, other).await, 0);
}

#[actix_web::test]
async fn the_log_says_how_many_connections_were_refused() {
    let data = tempfile::tempdir().unwrap();
    let mut command = command(data.path());
    command.args(["--connections-max", "1", "--sweep-interval", "10ms"]).stderr(Stdio::piped());
    let mut process = Process::spawn(&mut command);
    let address: SocketAddr = process.api.authority().parse().unwrap();
    let mut held = connect(address);
    held.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    held.read_exact(&mut [0; 15]).unwrap();
    let _refused = connect(address);
    let said = process.said("connections were refused");
    assert!(said.contains("WARN") && said.contains("refused=1"), "{said}");
}

/// An address of this machine that others reach, if it has one.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: this asks which address would be used.
    socket.connect("192.0.2.1:9").ok()?;
    let own = socket.local_addr().ok()?.ip();
    (!own.is_loopback() && !own.is_unspecified()).then_some(own)
}

#[actix_web::test]
async fn an_address_has_so_many_connections_and_others_are_served() {
    let Some(own) = own_address() else { return };
    let running = Running::start_with(|settings| {
        settings.listen = "0.0.0.0:0".parse().unwrap();
        settings.address_connections_max = 2;
    });
    let port = running.server.address().port();
    let asking = |address: IpAddr| {
        let mut stream = connect(SocketAddr::new(address, port));
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        stream
    };
    let status = |stream: &mut TcpStream| {
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        String::from_utf8_lossy(&head).into_owned()
    };
    let mut held = [asking(own), asking(own)];
    assert_eq!(held.each_mut().map(status), ["HTTP/1.1 200"; 2]);
    assert_eq!(status(&mut asking(own)), "HTTP/1.1 503");
    assert_eq!(status(&mut asking("127.0.0.1".parse().unwrap())), "HTTP/1.1 200");
    let refused = "keypool_connections_refused_total{bound=\"address\"}";
    assert_eq!(metric(&running.api, &running.admin_url(), refused).await, 1);
}

#[actix_web::test]
async fn a_reader_that_takes_nothing_of_its_answers_is_closed() {
    let running = Running::start_with(|settings| settings.stalled_timeout = Duration::from_secs(1));
    let mut reader = connect(running.server.address());
    // More than the buffers of both sides hold.
    let request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(400);
    reader.set_write_timeout(Some(DEADLINE)).unwrap();
    reader.write_all(&request).unwrap();
    let admin = running.admin_url();
    let closed = async { while metric(&running.api, &admin, "keypool_connections").await > 0 {} };
    actix_rt::time::timeout(DEADLINE, closed).await.unwrap();
}

#[actix_web::test]
async fn bodies_of_strangers_are_refused_before_they_are_read() {
    let data = tempfile::tempdir().unwrap();
    let process = Process::start(data.path());
    let api = &process.api;
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    api.register(&Device::new("alice")).await.ok();
    let before = resident();
    // Of each but the last byte is sent, as far as the server takes it.
    let body = vec![b'x'; 2 * 1024 * 1024 - 1];
    let draft =
        Draft { body: Some(body.clone()), ..Draft::post("/keypackages/upload", &json!({})) };
    let head = head_of(api, &Device::new("stranger"), &draft, body.len() + 1);
    let address: SocketAddr = api.authority().parse().unwrap();
    let mut held = Vec::new();
    for _ in 0..500 {
        let mut stream = connect(address);
        stream.write_all(head.as_bytes()).unwrap();
        stream.set_nonblocking(true).unwrap();
        let _ = stream.write(&body);
        stream.set_nonblocking(false).unwrap();
        held.push(stream);
    }
    for stream in &mut held {
        let told = read_to_end(stream);
        assert!(told.starts_with("HTTP/1.1 401 "), "{told}");
    }
    let grown_kib = resident().saturating_sub(before);
    assert!(grown_kib < 256 * 1024, "{grown_kib} KiB for bodies that nobody wants");
}

#[actix_web::test]
async fn bodies_of_registered_devices_have_a_budget_together() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start_with(|settings| {
        settings.bodies_bytes_max = 8 << 20;
        settings.body_timeout = Duration::from_secs(3);
    });
    let running = running.with(&[&alice, &bob], 2).await;
    let api = &running.api;
    // One byte of each is held back: what has come is held until its time is over.
    let body = vec![b'x'; (1 << 20) - 1];
    let whole = [body.clone(), vec![b'x']].concat();
    let draft = Draft { body: Some(whole), ..Draft::post("/keypackages/upload", &json!({})) };
    let head = head_of(api, &alice, &draft, body.len() + 1);
    let mut held = Vec::new();
    for _ in 0..9 {
        let mut stream = connect(running.server.address());
        stream.write_all(head.as_bytes()).unwrap();
        // The refusal of one too many may overtake the rest of its body.
        let _ = stream.write_all(&body);
        held.push(stream);
    }
    // Small requests have a part of the budget that large ones cannot take.
    api.reserve(&alice, "bob").await.ok();
    let told: Vec<String> = held.iter_mut().map(read_to_end).collect();
    let of = |status: &str| told.iter().filter(|told| told.starts_with(status)).count();
    assert!(of(BUSY) > 0, "{told:?}");
    assert_eq!(of(BUSY) + of("HTTP/1.1 408 "), 9, "{told:?}");
    api.upload(&alice, &alice.packages(NOW, 1)).await.ok();
}

/// The least of bodies that a server starts with: so many bytes for small ones, and as many for strangers.
const PART: usize = 64 * 1024;

/// Alice, who may reserve of Bob, at a server with the least budget for bodies.
async fn with_the_least_budget() -> (Running, Device) {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start_with(|settings| {
        settings.body_bytes_max = PART;
        settings.bodies_bytes_max = 4 * PART;
        settings.body_timeout = Duration::from_secs(3);
    });
    (running.with(&[&alice, &bob], 2).await, alice)
}

/// A reservation of Bob's packages whose body has so many bytes.
fn padded_reservation(bytes: usize) -> (Draft, Vec<u8>) {
    let body = json!({ "target_user": "bob", "group_id": GROUP, "reservation_id": Uuid::new_v4() });
    let draft = Draft::post("/keypackages/reserve", &body);
    let mut body = draft.body.clone().unwrap();
    body.resize(bytes, b' ');
    (Draft { body: Some(body.clone()), ..draft }, body)
}

#[actix_web::test]
async fn a_body_that_comes_byte_by_byte_takes_no_more_of_the_budget_than_it_has() {
    let (running, alice) = with_the_least_budget().await;
    let (draft, body) = padded_reservation(PART / 4);
    let head = head_of(&running.api, &alice, &draft, body.len());
    let chunked = "transfer-encoding: chunked\r\nconnection: close";
    let head = head.replace(&format!("content-length: {}", body.len()), chunked);
    let mut stream = connect(running.server.address());
    let chunks = body.iter().flat_map(|byte| [*b"1\r\n", [*byte, b'\r', b'\n']].concat());
    let chunks: Vec<u8> = chunks.chain(*b"0\r\n\r\n").collect();
    stream.write_all(&[head.as_bytes(), &chunks].concat()).unwrap();
    let told = read_to_end(&mut stream);
    assert!(told.starts_with("HTTP/1.1 200 "), "{told}");
}

#[actix_web::test]
async fn bodies_of_strangers_take_nothing_of_the_budget_of_devices() {
    let (running, alice) = with_the_least_budget().await;
    let body = vec![b'x'; PART];
    let draft = Draft { body: Some(body.clone()), ..Draft::post("/devices", &json!({})) };
    let (told, telling) = std::sync::mpsc::channel();
    for stranger in ["mallory", "eve"] {
        let head = head_of(&running.api, &Device::new(stranger), &draft, body.len());
        let mut stream = connect(running.server.address());
        let (told, body) = (told.clone(), body.clone());
        std::thread::spawn(move || {
            stream.write_all(head.as_bytes()).unwrap();
            // One byte is held back. The refusal of one too many may overtake the rest.
            let _ = stream.write_all(&body[1..]);
            let _ = told.send(read_to_end(&mut stream));
        });
    }
    // There is room for one of them, which is held until its time is over.
    let first = telling.recv_timeout(DEADLINE).unwrap();
    assert!(first.starts_with(BUSY), "{first}");
    let (draft, _) = padded_reservation(PART);
    running.api.send(&alice, &draft).await.ok();
}

/// A device with so many blocks and unblocks in its history, and its withdrawal of a package after them.
async fn with_a_long_history(api: &Api, device: &Device) -> (Draft, Answer) {
    let users: Vec<String> = (0..256).map(|n| format!("u{n}")).collect();
    for _ in 0..20 {
        for change in ["blocked", "unblocked"] {
            api.post(device, "/keypackages/policy", json!({ change: users })).await.ok();
        }
    }
    let draft = Draft::post("/keypackages/revoke", &json!({ "all": true, "reason": "withdrawn" }));
    let first = api.send(device, &draft).await.ok();
    (draft, first)
}

#[actix_web::test]
async fn eight_connections_that_repeat_an_old_command_keep_nobody_else_waiting() {
    let bob = Device::new("bob");
    let running = Running::start().with(&[&bob], 2).await;
    let (draft, first) = with_a_long_history(&running.api, &bob).await;
    let (answered, told) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let repeating = (0..8).map(|_| {
        let api = Api::new(running.api.url.clone(), running.api.clock.clone());
        let (bob, draft, first) = (Device::new("bob"), draft.clone(), first.body.clone());
        let (answered, told) = (Arc::clone(&answered), Arc::clone(&told));
        actix_rt::spawn(async move {
            loop {
                let again = api.send(&bob, &draft).await;
                if again.status == 503 {
                    assert_eq!(again.code(), "busy", "{}", again.body);
                    continue;
                }
                assert_eq!(again.ok().body, first);
                answered.fetch_add(1, Ordering::Relaxed);
                told.notify_one();
            }
        })
    });
    let repeating: Vec<_> = repeating.collect();
    actix_rt::time::timeout(DEADLINE, told.notified()).await.unwrap();
    let before = answered.load(Ordering::Relaxed);
    let other = Api::new(running.api.url.clone(), running.api.clock.clone());
    for _ in 0..100 {
        answer(other.http.get(format!("{}/livez", other.url))).await.unwrap().ok();
    }
    // Where they keep a worker busy, each of the hundred waits for some of them.
    let meanwhile = answered.load(Ordering::Relaxed) - before;
    for connection in repeating {
        assert!(!connection.is_finished(), "it has got another answer");
        connection.abort();
    }
    assert!(meanwhile < 100, "{meanwhile} repeated commands were answered before 100 others");
}

#[actix_web::test]
async fn a_request_without_packages_or_messages_has_64_kib_at_most() {
    let alice = Device::new("alice");
    let running = Running::start().with(&[&alice], 0).await;
    let padding = "x".repeat(64 * 1024);
    let body = json!({ "target_user": "bob", "group_id": GROUP, "contact_token": padding });
    let draft = Draft::post("/keypackages/reserve", &body);
    // The refusal may overtake the body, and the connection is closed then.
    if let Ok(answer) = running.api.try_send(&alice, &draft).await {
        assert_eq!((answer.status, answer.code()), (413, "too_large"));
    }
    let large: Vec<Vec<u8>> = (0..12).map(|_| alice.large_package(NOW)).collect();
    assert!(serde_json::to_vec(&upload(&large)).unwrap().len() > 64 * 1024);
    running.api.upload(&alice, &large).await.ok();
}

/// The head of a signed request that says its body has so many bytes.
pub(crate) fn head_of(api: &Api, device: &Device, draft: &Draft, length: usize) -> String {
    let headers = draft.headers(device, api.authority(), api.clock.now());
    let headers: Vec<String> =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!(
        "POST {} HTTP/1.1\r\nhost: {}\r\n{}content-length: {length}\r\n\r\n",
        draft.path,
        api.authority(),
        headers.concat()
    )
}
