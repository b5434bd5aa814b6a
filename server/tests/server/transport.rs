//! Clients that are slow, large or odd, spoken to byte by byte.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use keypool_server::Ended;

use crate::{
    connections::head_of,
    harness::{Device, Draft, NOW, Running, answer},
};

/// Longer than anything here may take; only a failing test waits that long.
const DEADLINE: Duration = Duration::from_secs(30);

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Sends bytes and reads until the server closes the connection.
fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(address);
    // The server may have answered and closed before all is written.
    let _ = stream.write_all(bytes);
    read_all(&mut stream)
}

fn read_all(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(len) => answer.extend(&chunk[..len]),
            Err(err) if err.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(err) => panic!("the server did not close the connection: {err}"),
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn head(length: &str) -> String {
    format!(
        "POST /keypackages/upload HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
    )
}

/// The head of an upload that its device has signed.
fn signed_head(running: &Running, device: &Device, length: &str) -> String {
    let (api, draft) = (&running.api, Draft::post("/keypackages/upload", &serde_json::json!({})));
    let head = head_of(api, device, &draft, 0);
    head.replace("content-length: 0", length)
}

#[track_caller]
fn check_status(answer: &str, status: u16, code: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
}

#[actix_web::test]
async fn a_body_that_drips_is_cut_off() {
    let alice = Device::new("alice");
    let running =
        Running::start_with(|settings| settings.body_timeout = Duration::from_millis(200));
    let running = running.with(&[&alice], 0).await;
    let mut request = signed_head(&running, &alice, "Content-Length: 100");
    request.push_str("{\"keypack");
    let answer = exchange(running.server.address(), request.as_bytes());
    check_status(&answer, 408, "request_timeout");
}

#[actix_web::test]
async fn a_body_that_is_too_large_is_refused_before_and_while_it_arrives() {
    let alice = Device::new("alice");
    let running = Running::start_with(|settings| settings.body_bytes_max = 10_000);
    let running = running.with(&[&alice], 0).await;
    let address = running.server.address();
    let declared = head("Content-Length: 10001");
    check_status(&exchange(address, declared.as_bytes()), 413, "too_large");
    let mut chunked = signed_head(&running, &alice, "Transfer-Encoding: chunked");
    chunked.push_str(&["3e8\r\n", &"x".repeat(1000), "\r\n"].concat().repeat(11));
    check_status(&exchange(address, chunked.as_bytes()), 413, "too_large");
}

#[actix_web::test]
async fn a_body_without_an_end_that_nobody_wants_does_not_keep_the_connection() {
    let running = Running::start();
    for line in ["GET /livez", "POST /nowhere"] {
        let request = format!(
            "{line} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nxxxxx\r\n"
        );
        let answer = exchange(running.server.address(), request.as_bytes());
        assert!(answer.contains("connection: close"), "{answer}");
    }
}

#[actix_web::test]
async fn a_body_of_the_usual_largest_size_is_read() {
    let bob = Device::new("bob");
    let running = Running::start().with(&[&bob], 0).await;
    let package = vec![7; 16 * 1024 + 1];
    let many: Vec<Vec<u8>> = (0..64).map(|_| package.clone()).collect();
    let refused = running.api.upload(&bob, &many).await;
    assert_eq!((refused.status, refused.text("check")), (400, "size"));
    assert_eq!(refused.body["items"].as_array().unwrap().len(), 64);
    let more: Vec<Vec<u8>> = (0..64).map(|_| vec![7; 32 * 1024]).collect();
    let draft = Draft::post("/keypackages/upload", &crate::harness::upload(&more));
    // The refusal may overtake the body, and the connection is closed then.
    if let Ok(answer) = running.api.try_send(&bob, &draft).await {
        assert_eq!((answer.status, answer.code()), (413, "too_large"));
    }
}

#[actix_web::test]
async fn a_head_that_never_ends_is_cut_off() {
    let running = Running::start();
    let answer = exchange(running.server.address(), b"GET /livez HTTP/1.1\r\nHost: ");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[actix_web::test]
async fn bytes_that_are_no_http_do_no_harm() {
    let running = Running::start();
    let address = running.server.address();
    let odd: [&[u8]; 5] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"POST /devices HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /devices HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /%ff%00/..%2fx HTTP/1.1\r\nHost: \xff\xfe\r\nConnection: close\r\n\r\n",
    ];
    for bytes in odd {
        let answer = exchange(address, bytes);
        let status = answer.get(9..10).unwrap_or("4");
        assert_eq!(status, "4", "{answer}");
    }
    let alive = answer(running.api.http.get(format!("{}/livez", running.api.url))).await.unwrap();
    assert_eq!(alive.status, 200);
}

#[actix_web::test]
async fn a_server_stops_although_a_client_is_slow_and_what_it_wrote_is_there() {
    let bob = Device::new("bob");
    let running =
        Running::start_with(|settings| settings.body_timeout = Duration::from_millis(300));
    let running = running.with(&[&bob], 3).await;
    let mut slow = connect(running.server.address());
    let head = signed_head(&running, &bob, "Content-Length: 100");
    slow.write_all(head.as_bytes()).unwrap();
    let idle = connect(running.server.address());

    let Running { server, clock, data, .. } = running;
    assert_eq!(server.stop().await, Ended::Stopped);

    drop((slow, idle));
    let settings = crate::harness::local_settings(data.path());
    let server = keypool_server::Server::start(settings, clock.clone()).unwrap();
    let api = crate::harness::Api::new(server.url(), clock);
    let status = api.get(&bob, "/keypackages/status").await.ok();
    assert_eq!(status.body["available"], 3);
    assert_eq!(status.body["last_upload"], NOW.as_secs());
}
