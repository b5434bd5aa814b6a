//! Requests that a client from before `/v1` has sent, replayed byte for byte against the server of today.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use keypool_ledger::{Clock, Timestamp};
use keypool_server::Settings;
use serde_json::{Value, json};

use crate::harness::Running;

/// The name by which the client has reached the server: it is signed.
const AUTHORITY: &str = "127.0.0.1:18090";

/// A request as it was sent, with its time and the status of its answer. Its file has the name
/// `NUMBER-MILLISECONDS-STATUS.http`.
struct RecordedRequest {
    at: Timestamp,
    status: u16,
    bytes: Vec<u8>,
}

impl RecordedRequest {
    fn read(path: &Path) -> Self {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let mut parts = name.split('-').skip(1);
        let at = Timestamp::from_millis(parts.next().unwrap().parse().unwrap());
        let status = parts.next().unwrap().parse().unwrap();
        Self { at, status, bytes: fs::read(path).unwrap() }
    }

    /// The method and the path, without its query.
    fn target(&self) -> String {
        let line = String::from_utf8_lossy(&self.bytes);
        let mut words = line.split([' ', '?']);
        format!("{} {}", words.next().unwrap(), words.next().unwrap())
    }

    /// Sends it, and returns the status and the body of its answer.
    fn replay(&self, running: &Running) -> (u16, Value) {
        let mut stream = TcpStream::connect(running.server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        stream.write_all(&self.bytes).unwrap();
        let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
        loop {
            let len = stream.read(&mut chunk).unwrap();
            answer.extend_from_slice(&chunk[..len]);
            let text = String::from_utf8_lossy(&answer);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let mut headers = head.lines().filter_map(|line| line.split_once(": "));
            let length = headers.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            let length: usize = length.unwrap().1.parse().unwrap();
            if length <= body.len() {
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                return (status, serde_json::from_str(body).unwrap_or_default());
            }
        }
    }
}

fn recorded() -> Vec<RecordedRequest> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/requests/before-v1");
    let mut paths: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| RecordedRequest::read(path)).collect()
}

#[test]
fn a_client_from_before_v1_is_answered_as_it_was_then() {
    let requests = recorded();
    let running = Running::start_at(requests[0].at, |settings| {
        settings.public_names = vec![AUTHORITY.to_owned()];
        settings.quotas = Settings::default().quotas;
        settings.limits = Settings::default().limits;
    });
    let mut answers = Vec::new();
    for request in &requests {
        running.clock.advance(request.at.since(running.clock.now()));
        let (status, body) = request.replay(&running);
        assert_eq!(status, request.status, "{}: {body}", request.target());
        answers.push((request.target(), body));
    }
    let all = |target: &str| {
        let found = answers.iter().filter(|(sent, _)| sent == target);
        found.map(|(_, body)| body.clone()).collect::<Vec<Value>>()
    };
    let accepted: Vec<Value> =
        all("POST /keypackages/upload").iter().map(|body| body["accepted"].clone()).collect();
    assert_eq!(accepted, [33, 33]);
    let [invited] = &all("POST /keypackages/reserve-many")[..] else { panic!() };
    assert_eq!(
        (&invited["reservations"][0]["user"], &invited["missing"]),
        (&json!("bob"), &json!([]))
    );
    let is_welcome = |body: &Value| {
        body["items"].as_array().is_some_and(|items| items.iter().any(|it| it["kind"] == "welcome"))
    };
    assert!(all("GET /mailbox").iter().any(is_welcome));
    let [withdrawn] = &all("POST /keypackages/revoke")[..] else { panic!() };
    assert_eq!(withdrawn["pool"]["spent"], 1);
}
