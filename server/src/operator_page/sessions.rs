//! The browsers that have signed in to the operator's page.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actix_web::http::header::{COOKIE, HeaderMap};
use keypool_ledger::{Hash, Timestamp};
use uuid::Uuid;

/// How long a browser is signed in.
const SESSION_TTL: Duration = Duration::from_hours(12);
/// How many browsers are signed in at a time: the oldest is signed out for the next.
const SESSIONS_MAX: usize = 64;
/// The name of the cookie.
const COOKIE_NAME: &str = "keypool-operator=";

/// The browsers that have signed in, by the digests of their cookies, and until when.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<VecDeque<(Hash, Timestamp)>>);

impl Sessions {
    /// Signs a browser in, and returns the value of its `Set-Cookie`.
    pub(crate) fn begin(&self, now: Timestamp) -> String {
        let drawn = Uuid::new_v4().simple().to_string();
        let mut sessions = self.sessions();
        if SESSIONS_MAX <= sessions.len() {
            sessions.pop_front();
        }
        sessions.push_back((Hash::of(drawn.as_bytes()), now.after(SESSION_TTL)));
        format!(
            "{COOKIE_NAME}{drawn}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}",
            SESSION_TTL.as_secs()
        )
    }

    /// Whether a cookie is of a browser that has signed in.
    pub(crate) fn knows(&self, cookie: &str, now: Timestamp) -> bool {
        let digest = Hash::of(cookie.as_bytes());
        let mut sessions = self.sessions();
        sessions.retain(|(_, until)| now < *until);
        sessions.iter().any(|(known, _)| *known == digest)
    }

    fn sessions(&self) -> MutexGuard<'_, VecDeque<(Hash, Timestamp)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The cookie of a session in the headers of a request.
pub(crate) fn session_of(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).filter_map(|value| value.to_str().ok());
    let mut cookies = cookies.flat_map(|value| value.split(';'));
    cookies.find_map(|cookie| cookie.trim().strip_prefix(COOKIE_NAME))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn cookie_of(set: &str) -> String {
        let mut headers = HeaderMap::new();
        let header = format!("other=1; {}", set.split(';').next().unwrap());
        headers.insert(COOKIE, HeaderValue::from_str(&header).unwrap());
        session_of(&headers).unwrap().to_owned()
    }

    #[test]
    fn a_browser_is_signed_in_for_twelve_hours() {
        let (sessions, now) = (Sessions::default(), Timestamp::from_secs(1_800_000_000));
        let set = sessions.begin(now);
        assert!(set.contains("; HttpOnly; SameSite=Strict"), "{set}");
        let cookie = cookie_of(&set);
        assert!(sessions.knows(&cookie, now));
        assert!(!sessions.knows("", now) && !sessions.knows(&cookie[1..], now));
        assert!(sessions.knows(&cookie, now.after(SESSION_TTL).before(Duration::from_millis(1))));
        assert!(!sessions.knows(&cookie, now.after(SESSION_TTL)));
        assert!(!sessions.knows(&cookie, now), "it is forgotten");
    }

    #[test]
    fn the_oldest_browser_is_signed_out_for_one_too_many() {
        let (sessions, now) = (Sessions::default(), Timestamp::from_secs(1_800_000_000));
        let cookies: Vec<String> =
            (0..=SESSIONS_MAX).map(|_| cookie_of(&sessions.begin(now))).collect();
        let known: Vec<bool> = cookies.iter().map(|cookie| sessions.knows(cookie, now)).collect();
        assert!(!known[0] && known[1..].iter().all(|known| *known));
    }
}
