//! The load: connections that are kept alive, each with a script of requests that were made beforehand.
//!
//! One thread, and as little work for each request as can be, because it shares the processors with
//! its subject.

use std::{cell::Cell, net::SocketAddr, rc::Rc, time::Duration};

use actix_rt::{net::TcpStream, time::Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::Outcome;

/// How many headers an answer may have.
const HEADERS_MAX: usize = 32;
/// How often a request is asked again that is answered `busy`.
const BUSY_MAX: u64 = 1000;

/// An operation measured as one: one request, or several that each need the answer before.
pub(crate) struct Operation {
    pub(crate) steps: Vec<Step>,
}

/// A request, and a text that its answer must hold.
pub(crate) struct Step {
    pub(crate) request: Vec<u8>,
    pub(crate) expect: Option<String>,
}

/// The time and answers of a run of the load.
pub(crate) struct Taken {
    /// How long each operation took, in nanoseconds, in no order.
    pub(crate) latencies_ns: Vec<u64>,
    /// From the first request to the last answer.
    pub(crate) elapsed: Duration,
    /// How many answers were `busy`. Their requests were asked again at once.
    pub(crate) busy: u64,
}

/// When a run ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// When the first connection is through with its script, or this time is over: so all connections
    /// are busy all the time.
    Through(Duration),
    /// After this time; scripts begin anew at their ends.
    Time(Duration),
}

/// Runs scripts, each on its own connection, all at once.
pub(crate) async fn run(
    addresses: &[SocketAddr],
    scripts: Vec<Vec<Operation>>,
    until: Until,
) -> Outcome<Taken> {
    let mut connections = Vec::with_capacity(scripts.len());
    for (script, address) in scripts.into_iter().zip(addresses.iter().cycle()) {
        connections.push((Connection::open(*address).await?, script));
    }
    let begun = Instant::now();
    let (time, again) = match until {
        Until::Through(time) => (time, false),
        Until::Time(time) => (time, true),
    };
    let over = Over { at: begun + time, again, flag: Rc::new(Cell::new(false)) };
    let tasks: Vec<_> = connections
        .into_iter()
        .map(|(connection, script)| actix_rt::spawn(play(connection, script, over.clone())))
        .collect();
    let mut latencies_ns = Vec::new();
    let (mut last, mut busy) = (begun, 0);
    for task in tasks {
        let played = task.await??;
        latencies_ns.extend(played.latencies_ns);
        last = last.max(played.ended);
        busy += played.busy;
    }
    Ok(Taken { latencies_ns, elapsed: last.duration_since(begun), busy })
}

/// Whether the run is over for all.
#[derive(Clone)]
struct Over {
    at: Instant,
    /// Whether scripts begin anew at their ends.
    again: bool,
    flag: Rc<Cell<bool>>,
}

/// The part of one connection in a run.
struct Played {
    latencies_ns: Vec<u64>,
    ended: Instant,
    busy: u64,
}

async fn play(mut connection: Connection, script: Vec<Operation>, over: Over) -> Outcome<Played> {
    let mut latencies_ns = Vec::with_capacity(script.len());
    let mut now = Instant::now();
    loop {
        for operation in &script {
            let begun = now;
            for step in &operation.steps {
                connection.ask(step).await?;
            }
            now = Instant::now();
            latencies_ns.push(u64::try_from(now.duration_since(begun).as_nanos())?);
            if over.flag.get() || over.at <= now {
                return Ok(Played { latencies_ns, ended: now, busy: connection.busy });
            }
        }
        if script.is_empty() || !over.again {
            over.flag.set(true);
            return Ok(Played { latencies_ns, ended: now, busy: connection.busy });
        }
    }
}

/// A connection that is kept alive.
pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    /// Where the body of the last answer begins.
    body: usize,
    /// How many answers were `busy`.
    busy: u64,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::with_capacity(16 * 1024), body: 0, busy: 0 })
    }

    /// Sends a request and waits for the whole answer, which must be a 200. A request that is answered `busy` is
    /// counted, and sent again at once.
    pub(crate) async fn ask(&mut self, step: &Step) -> Outcome<()> {
        let mut answer = self.answer(&step.request).await?;
        for _ in 0..BUSY_MAX {
            if !answer.is_busy(&self.received) {
                break;
            }
            self.busy += 1;
            answer = self.answer(&step.request).await?;
        }
        self.body = answer.head_len;
        let body = self.body();
        let expected = step.expect.as_ref();
        let fits = expected.is_none_or(|text| holds(body, text.as_bytes()));
        if answer.status == 200 && fits {
            return Ok(());
        }
        let request = String::from_utf8_lossy(&step.request);
        let body = String::from_utf8_lossy(body);
        Err(format!("{request}\nwas answered {}, expected {expected:?}:\n{body}", answer.status)
            .into())
    }

    /// The body of the last answer.
    pub(crate) fn body(&self) -> &[u8] {
        self.received.get(self.body..).unwrap_or_default()
    }

    /// Sends a request, and waits until all of its answer is there.
    async fn answer(&mut self, request: &[u8]) -> Outcome<Answer> {
        self.stream.write_all(request).await?;
        self.received.clear();
        loop {
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err("the connection was closed".into());
            }
            if let Some(answer) = whole_answer(&self.received)? {
                return Ok(answer);
            }
        }
    }
}

struct Answer {
    status: u16,
    head_len: usize,
}

impl Answer {
    /// Whether the server had no room for the request, or other servers' records came first each time.
    fn is_busy(&self, received: &[u8]) -> bool {
        self.status == 503 && holds(received, b"\"code\":\"busy\"")
    }
}

/// The answer, once all of it is there.
fn whole_answer(received: &[u8]) -> Outcome<Option<Answer>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head_len) = response.parse(received)? else { return Ok(None) };
    let status = response.code.ok_or("an answer without a status")?;
    let length = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
    let length = length.ok_or("an answer without a length")?;
    let length: usize = std::str::from_utf8(length.value)?.parse()?;
    Ok((head_len + length <= received.len()).then_some(Answer { status, head_len }))
}

fn holds(body: &[u8], text: &[u8]) -> bool {
    body.windows(text.len()).any(|window| window == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_last_byte() {
        let bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        for len in 0..bytes.len() {
            assert!(whole_answer(&bytes[..len]).unwrap().is_none(), "{len}");
        }
        let answer = whole_answer(bytes).unwrap().unwrap();
        assert_eq!((answer.status, &bytes[answer.head_len..]), (200, b"ok".as_slice()));
    }

    #[test]
    fn only_busy_is_asked_again() {
        let is_busy = |status: u16, code: &str| {
            let body = format!("{{\"code\":\"{code}\"}}");
            let text =
                format!("HTTP/1.1 {status} S\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            whole_answer(text.as_bytes()).unwrap().unwrap().is_busy(text.as_bytes())
        };
        assert!(is_busy(503, "busy"));
        assert!(!is_busy(503, "log_unavailable"));
        assert!(!is_busy(200, "busy"));
    }
}
