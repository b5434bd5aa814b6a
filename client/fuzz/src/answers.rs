//! Answers of a server to a device: it is not trusted.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use keypool_client::{
    ClientOptions, DeviceKey, MlsClient, ResponseBody, ServerDelivery, Transport, TransportFuture,
    TransportResponse,
};

use super::{
    device::{MemoryDatabase, group, scene},
    edits::edit,
    input::InputReader,
};

/// How many answers an input has at most.
const ANSWERS_MAX: usize = 12;
/// How many bytes a body of an input has at most.
const BODY_BYTES_MAX: usize = 2048;
/// The length of a body that comes byte by byte.
const LONG_BODY_BYTES: usize = 256 << 10;
/// After how many requests a device asks for ever: a server that repeats itself must not have it do so.
const REQUESTS_MAX: usize = 2000;

/// Answers requests as an input says.
struct InputTransport {
    answers: Mutex<std::vec::IntoIter<InputAnswer>>,
    /// The answer to every request after the last.
    last: Option<InputAnswer>,
    requests: AtomicUsize,
}

/// One answer.
#[derive(Clone)]
struct InputAnswer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    pieces: Vec<Vec<u8>>,
}

impl Transport for InputTransport {
    fn send(
        &self,
        _request: http::Request<Vec<u8>>,
        _timeout: Duration,
    ) -> TransportFuture<'_, TransportResponse> {
        let requests = self.requests.fetch_add(1, Ordering::Relaxed);
        assert!(requests < REQUESTS_MAX, "a device asks again and again");
        let next = self.answers.lock().unwrap_or_else(PoisonError::into_inner).next();
        let answer = next.or_else(|| self.last.clone());
        Box::pin(std::future::ready(answer.ok_or_else(|| "no answer".into()).map(response)))
    }
}

fn response(answer: InputAnswer) -> TransportResponse {
    let mut response = http::Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    let body: Box<dyn ResponseBody> = Box::new(BodyPieces(answer.pieces.into_iter()));
    response.body(body).expect("an answer can be built")
}

/// A body in pieces.
struct BodyPieces(std::vec::IntoIter<Vec<u8>>);

impl ResponseBody for BodyPieces {
    fn chunk(&mut self) -> TransportFuture<'_, Option<Vec<u8>>> {
        Box::pin(std::future::ready(Ok(self.0.next())))
    }
}

/// Has a device ask a server that gives the answers of an input. Each operation ends, and the device opens again
/// afterwards.
pub fn answers(bytes: &[u8]) {
    let mut input = InputReader::new(bytes);
    let operation = input.number(9);
    let stored = if input.flag() { &scene().joined } else { &scene().invited };
    let is_repeated = input.flag();
    let mut answers = Vec::new();
    for _ in 0..input.number(ANSWERS_MAX) {
        answers.push(answer(&mut input));
    }
    let last = answers.last().cloned().filter(|_| is_repeated);
    let answers = Mutex::new(answers.into_iter());
    let transport = InputTransport { answers, last, requests: AtomicUsize::new(0) };
    let (dir, database) = (stored.write(), MemoryDatabase::of(stored.entries.clone()));
    let open = |transport: Option<Arc<dyn Transport>>| {
        let options = ClientOptions {
            device_key: DeviceKey::from_bytes([7; 32]),
            transport,
            database: Some(Box::new(database.clone())),
            ..ClientOptions::default()
        };
        let owner = stored.name.parse().unwrap();
        MlsClient::open_at_server(dir.path(), &owner, "http://pool.example", options)
    };
    let client = open(Some(Arc::new(transport))).expect("the home opens");
    block_on(operate(&client, operation));
    drop(client);
    let nobody =
        InputTransport { answers: Mutex::default(), last: None, requests: AtomicUsize::new(0) };
    open(Some(Arc::new(nobody))).expect("the home opens after any answer");
}

/// Carries out an operation. It may fail.
async fn operate(client: &MlsClient<ServerDelivery>, operation: usize) {
    match operation {
        0 => drop(client.sync(0).await),
        1 => drop(client.fetch_history().await),
        2 => drop(client.refresh_key_packages().await),
        3 => drop(client.look_up_peer("alice").await),
        4 => drop(client.watch_ledger().await),
        5 => drop(client.invite(&group(), ["carol"]).await),
        6 => drop(client.send(&group(), b"hello").await),
        7 => drop(client.register().await),
        8 => drop(client.rotate_key().await),
        _ => {
            let Ok(mut listener) = client.listen().await else { return };
            for _ in 0..64 {
                match listener.next().await {
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return,
                }
            }
        }
    }
}

fn answer(input: &mut InputReader<'_>) -> InputAnswer {
    let status = input.pick(&[200, 200, 200, 200, 404, 409, 429, 500, 302, 204]);
    let mut headers = Vec::new();
    if input.flag() {
        headers.push(("keypool-time", input.any::<u64>().to_string()));
        headers.push(("keypool-position", input.any::<u64>().to_string()));
        headers.push(("location", "http://other.example".to_owned()));
    }
    let mut body = match input.number(TEMPLATES.len() + 1) {
        0 => input.bytes(BODY_BYTES_MAX).to_vec(),
        long if TEMPLATES.len() < long => {
            let pieces = vec![vec![b' ']; LONG_BODY_BYTES];
            return InputAnswer { status, headers, pieces };
        }
        template => TEMPLATES[template - 1].as_bytes().to_vec(),
    };
    edit(input, &mut body);
    let middle = input.number(body.len());
    let rest = body.split_off(middle);
    InputAnswer { status, headers, pieces: vec![body, rest] }
}

/// Bodies of answers, as a server gives them. A new one comes to the end, so that the corpus keeps its meaning.
const TEMPLATES: &[&str] = &[
    include_str!("templates/mailbox.json"),
    include_str!("templates/events.json"),
    include_str!("templates/status.json"),
    include_str!("templates/devices.json"),
    include_str!("templates/stream.txt"),
    include_str!("templates/reserved_many.json"),
    include_str!("templates/problem.json"),
];

/// Runs a future to its end. The clock of its waits goes on by itself when nothing else is left to do.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build();
    runtime.expect("a runtime can be built").block_on(future)
}
