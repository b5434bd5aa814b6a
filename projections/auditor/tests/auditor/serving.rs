//! The tool and a running server: one that serves a real log, and several that do not do as they should.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use insta::assert_snapshot;
use keypool_api::{LedgerEvent, LedgerEventsReply};
use keypool_ledger::Record;
use tempfile::TempDir;

use crate::{
    fixtures::{fixtures, history},
    histories::clean,
    tool::tool_in,
};

/// The behaviour of a server: it is told a request's number, the record before the page, and its length.
type Answer = dyn Fn(u64, u64, usize) -> Reply + Send + Sync;

/// The bytes that are sent.
enum Reply {
    /// This, as it should be.
    Whole(u16, String),
    /// This, but the connection ends in the middle.
    Cut(String),
    /// Nothing: the connection ends.
    Nothing,
}

/// A server on a port of its own, for as long as the test runs. Returns its address.
fn serve(answer: impl Fn(u64, u64, usize) -> Reply + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (answer, asked): (Arc<Answer>, _) = (Arc::new(answer), AtomicU64::new(0));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let n = asked.fetch_add(1, Ordering::Relaxed) + 1;
            handle(stream.unwrap(), n, &*answer);
        }
    });
    address
}

fn handle(mut stream: TcpStream, n: u64, answer: &Answer) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let asked = lines.next().unwrap().unwrap();
    // All of the head is read, so that closing the connection does not reset it.
    assert!(lines.any(|line| line.unwrap().is_empty()));
    let query = asked.split(' ').nth(1).unwrap();
    let query = query.strip_prefix("/ledger/events?after=").unwrap_or_else(|| panic!("{asked}"));
    let (after, limit) = query.split_once("&limit=").unwrap();
    match answer(n, after.parse().unwrap(), limit.parse().unwrap()) {
        Reply::Whole(status, body) => {
            let len = body.len();
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {len}\r\nconnection: close");
            stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).unwrap();
        }
        Reply::Cut(body) => {
            let (len, body) = (body.len(), &body[..body.len() / 2]);
            let head = format!("HTTP/1.1 200 X\r\ncontent-length: {len}\r\nconnection: close");
            stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).unwrap();
        }
        Reply::Nothing => {}
    }
    let _ = stream.shutdown(Shutdown::Both);
}

/// The page that a server with these records answers with, `most` records at a time.
fn page(records: &[Record], after: u64, limit: usize, most: usize) -> String {
    let behind = records.iter().filter(|record| after < record.seq);
    let events: Vec<_> = behind.clone().take(limit.min(most)).map(LedgerEvent::from).collect();
    let more = events.len() < behind.count();
    serde_json::to_string(&LedgerEventsReply { events, more }).unwrap()
}

/// A server that does as it should, with pages of seven records.
fn serve_log(records: Vec<Record>) -> String {
    serve(move |_, after, limit| Reply::Whole(200, page(&records, after, limit, 7)))
}

#[test]
fn a_server_is_read_like_an_export_of_its_log() {
    let dir = TempDir::new().unwrap();
    for (name, address) in [
        ("clean.export", serve_log(clean())),
        ("double-spend.export", serve_log(history("double-spend"))),
    ] {
        for args in [
            &["verify"][..],
            &["audit"],
            &["log"],
            &["log", "--from", "20"],
            &["--json", "log", "--pool", "bob"],
            &["replay"],
            &["show", "ea7aa1fc"],
            &["checkpoint"],
            &["info"],
        ] {
            let with = |source: &str| {
                let at = args.iter().position(|arg| !arg.starts_with("--")).unwrap();
                let mut args = args.to_vec();
                args.insert(at + 1, source);
                tool_in(&fixtures(), &args)
            };
            let (from_server, from_file) = (with(&address), with(name));
            let lines = |(said, code): (String, i32)| {
                let told = |line: &&str| !line.starts_with("source ") && !line.starts_with("file ");
                (said.lines().filter(told).map(str::to_owned).collect::<Vec<_>>(), code)
            };
            assert_eq!(lines(from_server), lines(from_file), "{args:?} of {name}");
        }
        let file = dir.path().join(name);
        let (said, code) = tool_in(dir.path(), &["export", &address, name]);
        assert_eq!(code, 0, "{said}");
        let (_, code) = tool_in(dir.path(), &["compare", name, &fixture(name)]);
        assert_eq!(code, 0);
        assert!(file.exists());
    }
}

fn fixture(name: &str) -> String {
    fixtures().join(name).to_string_lossy().into_owned()
}

#[test]
fn what_a_server_says_beside_the_stored_bytes_is_not_believed() {
    let mut records = clean();
    // The server goes on to tell it well beside those bytes.
    records[6].envelope_bytes[200] ^= 1;
    let altered = serve_log(records);
    let (said, code) = tool_in(Path::new("."), &["verify", &altered]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains(&format!("at {altered}/ledger/events?after=")), "{said}");
    let mut records = clean();
    records.remove(20);
    assert_eq!(tool_in(Path::new("."), &["verify", &serve_log(records)]).1, 2);
    let mut records = clean();
    let upload = records.iter_mut().find(|record| !record.payload.is_empty()).unwrap();
    upload.payload.push(0);
    assert_eq!(tool_in(Path::new("."), &["verify", &serve_log(records)]).1, 2);
}

#[test]
fn a_server_that_does_not_answer_well_cannot_be_read() {
    let whole = |after, limit| page(&clean(), after, limit, 7);
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let cases = [
        ("is not there", gone),
        ("breaks off", serve(move |_, after, limit| Reply::Cut(whole(after, limit)))),
        (
            "goes away between two pages",
            serve(move |n, after, limit| match n {
                0..4 => Reply::Whole(200, whole(after, limit)),
                _ => Reply::Nothing,
            }),
        ),
        ("speaks of something else", serve(|_, _, _| Reply::Whole(200, "{\"a\":1}".to_owned()))),
        ("speaks no JSON", serve(|_, _, _| Reply::Whole(200, "<html>".to_owned()))),
        ("knows no ledger", serve(|_, _, _| Reply::Whole(404, "{}".to_owned()))),
        ("has failed", serve(|_, _, _| Reply::Whole(503, "{}".to_owned()))),
        ("sends its caller elsewhere", serve(|_, _, _| Reply::Whole(302, "elsewhere".to_owned()))),
        (
            "gives the first page for ever",
            serve(move |_, _, limit| Reply::Whole(200, whole(0, limit))),
        ),
        (
            "promises more and gives nothing",
            serve(|_, _, _| Reply::Whole(200, "{\"events\":[],\"more\":true}".to_owned())),
        ),
        ("has an envelope that is no Base64", {
            let event = "{\"position\":1,\"envelope\":\"?\",\"payload\":\"\"}";
            let body = format!("{{\"events\":[{event}],\"more\":false}}");
            serve(move |_, _, _| Reply::Whole(200, body.clone()))
        }),
    ];
    let mut all = String::new();
    for (name, address) in cases {
        for command in ["verify", "log", "audit"] {
            let (said, code) = tool_in(Path::new("."), &[command, &address]);
            assert_eq!(code, 5, "{command}, {name}: {said}");
            if command == "verify" {
                let said = said.replace(&address, "http://SERVER");
                let _ = writeln!(all, "a server that {name}:\n{said}");
            }
        }
    }
    assert_snapshot!(all);
}

#[test]
fn a_token_file_that_cannot_be_read_is_named() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keypool-ledger"));
    let address = serve_log(clean());
    command.args(["verify", &address]).env("KEYPOOL_ADMIN_TOKEN_FILE", "/no/such/token");
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("/no/such/token cannot be read"), "{said}");
}

#[test]
fn half_a_log_is_not_exported() {
    let dir = TempDir::new().unwrap();
    let address = serve(|n, after, limit| match n {
        0..5 => Reply::Whole(200, page(&clean(), after, limit, 7)),
        _ => Reply::Nothing,
    });
    assert_eq!(tool_in(dir.path(), &["export", &address, "all.export"]).1, 5);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// A server whose log grows from 15 records to 40 while it is asked, and that then goes away.
fn serve_growing() -> String {
    serve(|n, after, limit| match n {
        0..5 => Reply::Whole(200, page(&clean()[..15], after, limit, 7)),
        5..12 => Reply::Whole(200, page(&clean(), after, limit, 7)),
        _ => Reply::Nothing,
    })
}

#[test]
fn a_server_is_followed_until_it_goes_away() {
    let (said, code) = tool_in(Path::new("."), &["log", &serve_growing(), "--follow"]);
    let (whole, _) = tool_in(&fixtures(), &["log", "clean.export"]);
    assert_eq!(code, 5, "{said}");
    assert!(said.starts_with(&whole), "each record is told once, in order: {said}");
    let (said, code) = tool_in(&fixtures(), &["log", "clean.export", "--follow"]);
    assert_eq!((said.contains("only a server can be followed"), code), (true, 1));
}

#[test]
fn a_followed_server_tells_the_last_events_and_those_that_come() {
    let args = ["log", &serve_growing(), "--tail", "2", "--follow"];
    let (said, code) = tool_in(Path::new("."), &args);
    let (whole, _) = tool_in(&fixtures(), &["log", "clean.export", "--from", "14"]);
    assert_eq!(code, 5, "{said}");
    assert!(said.starts_with(&whole), "records 14 and 15, and each that comes: {said}");
}
