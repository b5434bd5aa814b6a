//! What is counted of addresses: registrations, and signatures that were wrong. No address is in the log,
//! so these counts begin anew with the server.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
};

use actix_web::{HttpRequest, http::header::HeaderMap};
use keypool_ledger::Timestamp;
use keypool_projections::quota::{Bucket, OverQuota, Quota, Quotas, Rate};

use super::{SHARDS, Secret, Shards};

/// How many addresses are counted in each part.
const ENTRIES_MAX: usize = 1 << 15;
/// The header in which a proxy says for whom it asks.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// What is counted of all addresses.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    quotas: Option<Quotas>,
    trusted_proxies: Vec<IpAddr>,
    secret: Secret,
    devices: Shards<HashMap<u64, Bucket>>,
    failures: Shards<HashMap<u64, Bucket>>,
    /// How many addresses were let pass uncounted, because there was no room.
    passed: Mutex<u64>,
}

impl Addresses {
    pub(crate) fn new(quotas: Option<Quotas>, trusted_proxies: Vec<IpAddr>) -> Self {
        Self { quotas, trusted_proxies, ..Self::default() }
    }

    /// The address that a request comes from, as far as it is counted: a proxy on this machine that is
    /// not trusted would stand for everybody.
    pub(crate) fn of(&self, request: &HttpRequest) -> Option<IpAddr> {
        let peer = request.peer_addr()?.ip();
        let address = self.behind(peer, request.headers());
        (!address.is_loopback()).then(|| network_of(address))
    }

    /// Whoever is behind the proxies that are trusted. What others have written into the header stands
    /// before what they say.
    fn behind(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let is_trusted = |address: &IpAddr| self.trusted_proxies.contains(address);
        if !is_trusted(&peer) {
            return peer;
        }
        let lines: Vec<&str> =
            headers.get_all(FORWARDED_FOR).filter_map(|value| value.to_str().ok()).collect();
        let told = lines.iter().flat_map(|line| line.split(',')).map(|one| one.trim().parse().ok());
        let told: Vec<Option<IpAddr>> = told.collect();
        let mut farthest = peer;
        for address in told.into_iter().rev() {
            let Some(address) = address else { break };
            farthest = address;
            if !is_trusted(&address) {
                break;
            }
        }
        farthest
    }

    /// Counts the registration of a device, if there may be one more.
    pub(crate) fn register(
        &self,
        address: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<(), OverQuota> {
        let Some((quotas, address)) = self.quotas.as_ref().zip(address) else { return Ok(()) };
        let rate = &quotas.devices;
        self.look(&self.devices, address, rate, (Quota::Devices, now))?;
        self.take(&self.devices, address, rate, now);
        Ok(())
    }

    /// Whether a signature from an address may be looked at.
    pub(crate) fn may_fail(
        &self,
        address: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<(), OverQuota> {
        let Some((quotas, address)) = self.quotas.as_ref().zip(address) else { return Ok(()) };
        self.look(&self.failures, address, &quotas.failures, (Quota::Failures, now))
    }

    /// Counts a signature that was wrong.
    pub(crate) fn failed(&self, address: Option<IpAddr>, now: Timestamp) {
        if let Some((quotas, address)) = self.quotas.as_ref().zip(address) {
            self.take(&self.failures, address, &quotas.failures, now);
        }
    }

    fn look(
        &self,
        all: &Shards<HashMap<u64, Bucket>>,
        address: IpAddr,
        rate: &Rate,
        (quota, now): (Quota, Timestamp),
    ) -> Result<(), OverQuota> {
        let key = self.secret.of(address);
        let bucket = all.of(key).and_then(|part| part.get(&key).copied()).unwrap_or_default();
        let wait = bucket.wait(rate, 1, now);
        if wait.is_zero() { Ok(()) } else { Err(OverQuota { quota, wait }) }
    }

    fn take(
        &self,
        all: &Shards<HashMap<u64, Bucket>>,
        address: IpAddr,
        rate: &Rate,
        now: Timestamp,
    ) {
        let key = self.secret.of(address);
        let Some(mut part) = all.of(key) else { return };
        if ENTRIES_MAX <= part.len() && !part.contains_key(&key) {
            // More addresses than can be counted: not one of them is who does it.
            *self.passed.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            return;
        }
        part.entry(key).or_default().take(rate, 1, now);
    }

    /// Forgets what counts no more.
    pub(crate) fn sweep(&self, now: Timestamp) {
        for all in [&self.devices, &self.failures] {
            all.each().for_each(|mut part| part.retain(|_, bucket| !bucket.is_full(now)));
        }
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        if 0 < *passed {
            let (passed, max) = (std::mem::take(&mut *passed), ENTRIES_MAX * SHARDS);
            tracing::warn!(passed, max, "more addresses came than are counted");
        }
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        let all = [&self.devices, &self.failures].into_iter();
        all.flat_map(Shards::each).map(|part| part.len()).sum()
    }
}

/// What is counted as one address: of IPv6 the 64 bits that a customer has at least.
fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.into(),
            None => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_what_a_trusted_proxy_has_written_is_believed() {
        let addresses = Addresses::new(None, vec![ip("127.0.0.1"), ip("10.0.0.1")]);
        let mut headers = HeaderMap::new();
        let behind = |peer, headers: &HeaderMap| addresses.behind(ip(peer), headers).to_string();
        assert_eq!(behind("127.0.0.1", &headers), "127.0.0.1");
        let set = |headers: &mut HeaderMap, line: &'static str| {
            headers.insert(HeaderName::from_static(FORWARDED_FOR), HeaderValue::from_static(line));
        };
        set(&mut headers, "192.0.2.66, 198.51.100.7, 10.0.0.1");
        assert_eq!(behind("127.0.0.1", &headers), "198.51.100.7");
        assert_eq!(behind("203.0.113.5", &headers), "203.0.113.5");
        set(&mut headers, "no address, 10.0.0.1");
        assert_eq!(behind("127.0.0.1", &headers), "10.0.0.1");
    }

    #[test]
    fn a_customer_with_many_addresses_is_one() {
        assert_eq!(network_of(ip("2001:db8:1:2:3::4")), ip("2001:db8:1:2::"));
        assert_eq!(network_of(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
        assert_eq!(network_of(ip("192.0.2.1")), ip("192.0.2.1"));
    }

    #[test]
    fn addresses_are_refused_apart_and_forgotten_when_nothing_is_missing() {
        let addresses = Addresses::new(Some(Quotas::STANDARD), Vec::new());
        let (one, other) = (Some(ip("192.0.2.1")), Some(ip("192.0.2.2")));
        let now = Timestamp::from_secs(1_000);
        for _ in 0..10 {
            addresses.may_fail(one, now).unwrap();
            addresses.failed(one, now);
        }
        let over = addresses.may_fail(one, now).unwrap_err();
        assert_eq!((over.quota, over.retry_after_s()), (Quota::Failures, 6));
        addresses.may_fail(other, now).unwrap();
        addresses.may_fail(one, now.after(over.wait)).unwrap();
        assert_eq!(addresses.len(), 1);
        addresses.sweep(now.after(Quotas::STANDARD.failures.window()));
        assert_eq!(addresses.len(), 0);
    }
}
