//! Session keys, as a device uses them: agreed on when it is worth it, dropped when they end, and missed by
//! nobody. What decides is a pure rule; a lock is held for a moment, and never while something is sent.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use keypool_ledger::{SignatureKey, Timestamp};
use keypool_projections::{
    signing::{Exchange, Session, SessionId},
    wire::{Base64, Code, SessionReply, SessionRequest},
};
use reqwest::{Method, Url};

use super::{ApiClient, ApiError, Body, Call};
use crate::storage::{fresh_command, random_key};

/// Requests within this time tell whether a session is worth it: from the third one on.
const OFTEN: Duration = Duration::from_mins(1);
/// How long a server that offers no sessions is not asked again.
const NOT_OFFERED: Duration = Duration::from_hours(1);
/// How long it is not asked again where asking has failed.
const FAILED: Duration = Duration::from_mins(1);
/// How long a session is used at most, whatever the server says.
const LIFETIME_MAX: Duration = Duration::from_hours(1);
/// How long before its end a session is used no more: a request is on its way for a while.
const MARGIN: Duration = Duration::from_secs(5);

/// The session of one device with one server, if there is one.
#[derive(Debug)]
pub(super) struct Sessions {
    rule: Mutex<Rule>,
    /// Held while one is being agreed on: whoever finds it taken signs by the key.
    agreeing: tokio::sync::Mutex<()>,
}

/// What is known, and what follows for the next request.
#[derive(Clone, Debug, Default)]
struct Rule {
    /// Whether the app, and the address of the server, let there be sessions.
    wanted: bool,
    trusted: bool,
    /// When the last two requests were sent, the last one first.
    sent: [Option<Timestamp>; 2],
    held: Option<Held>,
    /// From when on, and how long, the server is not asked.
    quiet: Option<(Timestamp, Duration)>,
    /// When the server last said that it does not know a session.
    unknown: Option<Timestamp>,
}

#[derive(Clone, Debug)]
struct Held {
    session: Arc<Session>,
    /// The key it stands for.
    keyid: SignatureKey,
    /// When it ends, by the server's clock.
    until: Timestamp,
}

/// How the next request is signed.
#[derive(Clone, Debug)]
enum Next {
    ByKey,
    In(Arc<Session>),
    /// In a session, once one is agreed on.
    Agree,
}

impl Rule {
    /// How a request is signed that is sent now, by the key of the moment. `theirs` is the server's time.
    fn next(&mut self, keyid: &SignatureKey, now: Timestamp, theirs: Timestamp) -> Next {
        let [last, before] = self.sent;
        self.sent = [Some(now), last];
        if !(self.wanted && self.trusted) {
            return Next::ByKey;
        }
        if let Some(Held { session, keyid: stands_for, until }) = &self.held {
            if stands_for == keyid && theirs.after(MARGIN) < *until {
                return Next::In(Arc::clone(session));
            }
            self.held = None;
        }
        let often = before.is_some_and(|before| now.since(before) < OFTEN);
        if often && !self.is_quiet(now) { Next::Agree } else { Next::ByKey }
    }

    /// A clock that was set back does not make the quiet longer.
    fn is_quiet(&self, now: Timestamp) -> bool {
        self.quiet.is_some_and(|(from, span)| from <= now && now.since(from) < span)
    }

    fn hold(&mut self, held: Held) {
        self.held = Some(held);
    }

    fn not_agreed(&mut self, now: Timestamp, quiet: Duration) {
        self.quiet = Some((now, quiet));
    }

    /// The server does not take a session. Once is a restart; twice in a row is a server that forgets, or
    /// several behind one address: there a session costs more than it saves.
    fn ended(&mut self, id: SessionId, now: Timestamp) {
        if self.held.as_ref().is_none_or(|held| held.session.id() != id) {
            return;
        }
        self.held = None;
        if self.unknown.replace(now).is_some_and(|before| now.since(before) < OFTEN) {
            self.not_agreed(now, NOT_OFFERED);
        }
    }
}

impl Sessions {
    /// None yet, with a server of that address.
    pub(super) fn with(server: &Url) -> Self {
        let rule = Rule { wanted: true, trusted: is_trusted(server), ..Rule::default() };
        Self { rule: Mutex::new(rule), agreeing: tokio::sync::Mutex::default() }
    }

    /// None yet, with the same server, for somebody else.
    pub(super) fn for_another(&self) -> Self {
        let Rule { wanted, trusted, .. } = *self.rule();
        let rule = Rule { wanted, trusted, ..Rule::default() };
        Self { rule: Mutex::new(rule), agreeing: tokio::sync::Mutex::default() }
    }

    /// Takes note that the server does not take a session.
    pub(super) fn ended(&self, id: SessionId, now: Timestamp) {
        self.rule().ended(id, now);
    }

    fn rule(&self) -> MutexGuard<'_, Rule> {
        self.rule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Call<'_> {
    /// Whether it changes which keys there are: the key itself signs that.
    fn needs_the_key(&self) -> bool {
        self.path.starts_with("/devices") || self.path == "/keypackages/rotate"
    }
}

impl ApiClient {
    /// Says whether requests may be signed by a session key, which a device agrees on with the server when it
    /// asks often, and which stands for the device's key for some minutes. They may, unless this says no;
    /// only at `https` addresses and on this machine, and where the server offers them.
    pub fn use_session_keys(&self, wanted: bool) {
        let mut rule = self.sessions.rule();
        rule.wanted = wanted;
        rule.held = rule.held.take().filter(|_| wanted);
    }

    /// The session to sign a call in, if it is to be signed in one.
    pub(super) async fn session_for(&self, call: &Call<'_>) -> Option<Arc<Session>> {
        if call.needs_the_key() {
            return None;
        }
        let (keyid, now) = (self.identity.signature_key(), self.clock.now());
        let next = self.sessions.rule().next(&keyid, now, self.server_time(now));
        match next {
            Next::ByKey => None,
            Next::In(session) => Some(session),
            Next::Agree => {
                let _agreeing = self.sessions.agreeing.try_lock().ok()?;
                self.agree(keyid).await
            }
        }
    }

    /// Agrees on a session. Where that fails the request at hand is signed by the key, and says what is wrong.
    async fn agree(&self, keyid: SignatureKey) -> Option<Arc<Session>> {
        let exchange = Exchange::new(&random_key().ok()?);
        let request = SessionRequest { public_key: Base64(exchange.public_key().to_vec()) };
        let body = Some(Body::json(&request, fresh_command()));
        let call = Call { body, ..Call::to(Method::POST, "/devices/sessions") };
        let answer: Result<SessionReply, ApiError> = match self.sent(&call, None).await {
            Err(ApiError::Refused(problem)) if self.follow_clock(&problem) => {
                self.sent(&call, None).await
            }
            answer => answer,
        };
        let now = self.clock.now();
        let held = match answer {
            Ok(reply) => held(exchange, &reply, keyid, self.server_time(now)).ok_or(FAILED),
            Err(error) => {
                tracing::debug!(%error, "no session was agreed on");
                Err(if offers_none(&error) { NOT_OFFERED } else { FAILED })
            }
        };
        let mut rule = self.sessions.rule();
        match held {
            Ok(held) => {
                let session = Arc::clone(&held.session);
                rule.hold(held);
                Some(session)
            }
            Err(quiet) => {
                rule.not_agreed(now, quiet);
                None
            }
        }
    }
}

/// The session that the server has answered; `None` if there can be none with its key.
fn held(
    exchange: Exchange,
    reply: &SessionReply,
    keyid: SignatureKey,
    theirs: Timestamp,
) -> Option<Held> {
    let public_key: &[u8; 32] = reply.public_key.0.as_slice().try_into().ok()?;
    let session = Arc::new(exchange.at_device(public_key, &keyid, reply.session)?);
    let until = Timestamp::from_secs(reply.expires_at).min(theirs.after(LIFETIME_MAX));
    Some(Held { session, keyid, until })
}

/// Whether a refusal means that there are no sessions at this server: it says so, or is an older one.
fn offers_none(error: &ApiError) -> bool {
    matches!(error.code(), Some(Code::NotAllowed | Code::NotFound | Code::MethodNotAllowed))
}

/// Whether answers from an address come from whom they should: by TLS, or from this machine.
fn is_trusted(server: &Url) -> bool {
    let host = server.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let is_here = address.map_or(host == "localhost", |address| address.is_loopback());
    server.scheme() == "https" || is_here
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_766_400_000);

    fn at(secs: u64) -> Timestamp {
        NOW.after(Duration::from_secs(secs))
    }

    fn key(number: u8) -> SignatureKey {
        SignatureKey::new(&[number; 32]).unwrap()
    }

    fn rule() -> Rule {
        Rule { wanted: true, trusted: true, ..Rule::default() }
    }

    fn held_until(number: u8, until: Timestamp) -> Held {
        let session = Session::with_key(SessionId::from_bytes([number; 16]), [number; 32].into());
        Held { session: Arc::new(session), keyid: key(1), until }
    }

    /// What follows for requests at these seconds: `k` by the key, `s` in a session, `a` to agree.
    fn follows(rule: &mut Rule, seconds: &[u64]) -> String {
        let next = |secs: &u64| match rule.next(&key(1), at(*secs), at(*secs)) {
            Next::ByKey => 'k',
            Next::In(_) => 's',
            Next::Agree => 'a',
        };
        seconds.iter().map(next).collect()
    }

    #[test]
    fn a_session_is_worth_it_from_the_third_request_within_a_minute() {
        assert_eq!(follows(&mut rule(), &[0, 30, 59]), "kka");
        assert_eq!(follows(&mut rule(), &[0, 30, 60, 61]), "kkka");
        assert_eq!(follows(&mut rule(), &[0, 60, 120, 180]), "kkkk");
    }

    #[test]
    fn a_session_is_used_until_shortly_before_its_end_and_another_is_agreed_on() {
        let mut rule = rule();
        rule.hold(held_until(1, at(600)));
        assert_eq!(follows(&mut rule, &[0, 300, 594]), "sss");
        assert_eq!(follows(&mut rule, &[595]), "k");
        assert_eq!(follows(&mut rule, &[596]), "a");
    }

    #[test]
    fn a_session_is_of_one_key() {
        let mut rule = rule();
        rule.hold(held_until(1, at(600)));
        assert!(matches!(rule.next(&key(2), NOW, NOW), Next::ByKey));
        assert!(rule.held.is_none());
    }

    #[test]
    fn where_there_are_none_it_is_quiet_for_an_hour() {
        let mut rule = rule();
        assert_eq!(follows(&mut rule, &[0, 1, 2]), "kka");
        rule.not_agreed(at(2), NOT_OFFERED);
        assert_eq!(follows(&mut rule, &[3, 4, 3599, 3600, 3601, 3602]), "kkkkka");
        // The device's clock is set back meanwhile.
        rule.not_agreed(at(9000), NOT_OFFERED);
        assert_eq!(follows(&mut rule, &[9001, 10, 11, 12]), "kaaa");
    }

    #[test]
    fn a_session_that_is_not_known_is_followed_by_one_more_and_then_by_none() {
        let mut rule = rule();
        follows(&mut rule, &[0, 1]);
        rule.hold(held_until(1, at(600)));
        rule.ended(SessionId::from_bytes([9; 16]), at(2));
        assert_eq!(follows(&mut rule, &[2]), "s", "another one has ended");
        rule.ended(SessionId::from_bytes([1; 16]), at(2));
        assert_eq!(follows(&mut rule, &[3]), "a");
        rule.hold(held_until(2, at(600)));
        rule.ended(SessionId::from_bytes([2; 16]), at(4));
        assert_eq!(follows(&mut rule, &[5, 6, 7]), "kkk");
    }

    #[test]
    fn an_app_can_do_without() {
        let mut rule = Rule { wanted: false, ..rule() };
        assert_eq!(follows(&mut rule, &[0, 1, 2, 3]), "kkkk");
        let mut rule = Rule { wanted: true, trusted: false, ..rule };
        assert_eq!(follows(&mut rule, &[4, 5, 6]), "kkk");
    }

    #[test]
    fn sessions_are_asked_for_where_the_connection_can_be_trusted() {
        let trusted = |server: &str| is_trusted(&Url::parse(server).unwrap());
        for server in [
            "https://keypool.example",
            "https://192.0.2.1:8080",
            "http://127.0.0.1:8080",
            "http://127.1.2.3",
            "http://localhost:8080",
            "http://[::1]:8080",
        ] {
            assert!(trusted(server), "{server}");
        }
        for server in [
            "http://keypool.example",
            "http://192.0.2.1:8080",
            "http://localhost.example",
            "http://127.0.0.1.example",
            "http://[2001:db8::1]",
        ] {
            assert!(!trusted(server), "{server}");
        }
    }

    #[test]
    fn a_session_that_is_held_prints_no_key() {
        let printed = format!("{:?}", held_until(1, NOW));
        assert!(printed.contains("session: Session { .. }"), "{printed}");
    }

    #[test]
    fn the_key_signs_what_changes_keys() {
        let needs = |path| Call::to(Method::POST, path).needs_the_key();
        for path in ["/devices", "/devices/rotate", "/devices/phone", "/keypackages/rotate"] {
            assert!(needs(path), "{path}");
        }
        for path in ["/keypackages/reserve", "/users/alice/devices", "/mailbox"] {
            assert!(!needs(path), "{path}");
        }
    }
}
