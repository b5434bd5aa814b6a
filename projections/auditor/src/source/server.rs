//! A running server as a source: its operator's listener, asked page by page.
//!
//! Plain HTTP, without TLS and without a proxy: the listener is meant for the machine itself. Of an
//! answer only the stored bytes are used; the server's reading of them is ignored.

use std::{
    error::Error,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Duration,
};

use keypool_api::Base64;
use keypool_ledger::RawRecord;
use serde::Deserialize;
use ureq::Agent;

use super::SourceError;

/// How many records are asked for at once; a server gives 1000 at most.
const PAGE_RECORDS: u64 = 1000;
/// The longest answer, in bytes: a page holds 4 MiB of payloads, or one record of any size.
const PAGE_BYTES_MAX: u64 = 256 << 20;
/// How long a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a whole answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);

/// The records of a running server.
#[derive(Debug)]
pub(super) struct ServerSource {
    address: String,
    agent: Agent,
    /// The token that the listener asks for, if there is one.
    token: Option<String>,
}

/// A page of records as the server sends it: positions and bytes, which are checked after reading.
#[derive(Deserialize)]
struct Page {
    events: Vec<Found>,
    more: bool,
}

#[derive(Deserialize)]
struct Found {
    position: u64,
    envelope: Base64,
    payload: Base64,
}

impl ServerSource {
    /// Finds the server that a path names, if it names one: `http://ADDRESS:PORT`.
    ///
    /// # Errors
    ///
    /// Returns a [`SourceError`] if the file of the operator's token cannot be read.
    pub(super) fn named(path: &Path) -> Result<Option<Self>, SourceError> {
        let address = path.to_str().map(|address| address.trim_end_matches('/'));
        let Some(address) = address.filter(|address| address.starts_with("http://")) else {
            return Ok(None);
        };
        let config = Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(ANSWER_TIMEOUT));
        // As the server itself takes it: a token on a command line is seen by everybody.
        let file = std::env::var_os("KEYPOOL_ADMIN_TOKEN_FILE");
        let read = |file: PathBuf| fs::read_to_string(&file).map_err(SourceError::io(&file));
        let token = file.map(PathBuf::from).map(read).transpose()?;
        let token = token.map(|token| token.trim().to_owned());
        Ok(Some(Self { address: address.to_owned(), agent: config.build().into(), token }))
    }

    /// Asks for one record, so that another server is recognized before the work begins.
    pub(super) fn greet(&self) -> Result<(), SourceError> {
        self.page(0, 1).map(drop)
    }

    /// Shows all records after a position, up to the last that there is when it is asked for.
    pub(super) fn visit(
        &self,
        after: u64,
        visit: &mut dyn FnMut(RawRecord<'_>) -> ControlFlow<()>,
    ) -> Result<(), SourceError> {
        let mut last = after;
        loop {
            let page = self.page(last, PAGE_RECORDS)?;
            let none = page.events.is_empty();
            for Found { position: seq, envelope, payload } in page.events {
                if seq <= last {
                    let what =
                        format!("it answers with record {seq} when asked for what follows {last}");
                    return Err(self.error(what, None));
                }
                last = seq;
                let file = PathBuf::from(self.url(seq.saturating_sub(1), 1));
                let (envelope_bytes, payload) = (envelope.0.as_slice(), payload.0.as_slice());
                let raw = RawRecord { seq, envelope_bytes, payload, file: &file, offset: 0 };
                if visit(raw).is_break() {
                    return Ok(());
                }
            }
            if !page.more {
                return Ok(());
            }
            if none {
                let what = format!("it says that more follows record {last}, and gives nothing");
                return Err(self.error(what, None));
            }
        }
    }

    fn page(&self, after: u64, limit: u64) -> Result<Page, SourceError> {
        let subject = format!("what follows record {after}");
        let body =
            self.get(&self.url(after, limit), &subject)?.ok_or_else(|| self.stranger(404))?;
        serde_json::from_slice(&body).map_err(|err| {
            let what =
                format!("its answer is no page of records, asked for what follows record {after}");
            self.error(what, Some(Box::new(err)))
        })
    }

    /// Asks for the record of refusals of a day; `None` if there is none.
    pub(super) fn refusals(&self, day: &str) -> Result<Option<Vec<u8>>, SourceError> {
        let url = format!("{}/ledger/refusals/{day}", self.address);
        self.get(&url, &format!("the refusals of {day}"))
    }

    /// Asks for something; `None` if it is not there.
    fn get(&self, url: &str, subject: &str) -> Result<Option<Vec<u8>>, SourceError> {
        let failed = |what: String, err: ureq::Error| self.error(what, Some(Box::new(err)));
        let mut request = self.agent.get(url);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let unreachable = || format!("it does not answer when asked for {subject}");
        let mut answer = request.call().map_err(|err| failed(unreachable(), err))?;
        match answer.status().as_u16() {
            200 => {}
            401 => {
                let what =
                    "it asks for the operator's token: name its file in KEYPOOL_ADMIN_TOKEN_FILE";
                return Err(self.error(what.to_owned(), None));
            }
            404 => return Ok(None),
            status => return Err(self.stranger(status)),
        }
        let body = answer.body_mut().with_config().limit(PAGE_BYTES_MAX).read_to_vec();
        body.map(Some)
            .map_err(|err| failed(format!("its answer breaks off, asked for {subject}"), err))
    }

    /// The error for an answer that no server of keypool gives.
    fn stranger(&self, status: u16) -> SourceError {
        let what = format!(
            "it answers {status}: is this the operator's listener of a keypool server, the address \
             that it prints as `metrics`?"
        );
        self.error(what, None)
    }

    fn url(&self, after: u64, limit: u64) -> String {
        format!("{}/ledger/events?after={after}&limit={limit}", self.address)
    }

    fn error(&self, what: String, source: Option<Box<dyn Error + Send + Sync>>) -> SourceError {
        SourceError::Server { address: self.address.clone(), what, source }
    }
}
