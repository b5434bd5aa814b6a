//! Counts by address: registrations, and signatures that were wrong. No address is in the log, so these
//! counts begin again with the server.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use actix_web::{HttpRequest, http::header::HeaderMap};
use keypool_ledger::Timestamp;
use keypool_projections::quota::{Bucket, OverQuota, Quota, Quotas, Rate};

use super::{SHARDS, Secret, Shards};

/// The networks an IPv6 address is counted in: the bits of their prefix, and how many times the usual rate
/// each has. A customer has 64 bits at least, often 56, and a provider's smallest block has 48.
const IPV6_NETWORKS: [(u32, u32); 3] = [(64, 1), (56, 4), (48, 16)];
/// How many addresses are counted in each part.
const ENTRIES_MAX: usize = 1 << 15;
/// The header in which a proxy names its client.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// The counts of all addresses.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    quotas: Option<Quotas>,
    trusted_proxies: Vec<IpAddr>,
    secret: Secret,
    devices: Shards<HashMap<u64, Bucket>>,
    failures: Shards<HashMap<u64, Bucket>>,
    /// How many addresses were let pass uncounted, because there was no room.
    passed: Mutex<u64>,
    /// Set once the log has said that a proxy is not trusted.
    warned: AtomicBool,
}

/// A range of addresses that is counted together, and how many times the usual rate it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    first: IpAddr,
    prefix: u32,
    times: u32,
}

impl Addresses {
    pub(crate) fn new(quotas: Option<&Quotas>, trusted_proxies: &[IpAddr]) -> Self {
        let trusted_proxies = trusted_proxies.iter().map(IpAddr::to_canonical).collect();
        Self { quotas: quotas.copied(), trusted_proxies, ..Self::default() }
    }

    /// The address that a request comes from, as far as it is counted: a proxy on this machine that is
    /// not trusted would stand for everybody.
    pub(crate) fn of(&self, request: &HttpRequest) -> Option<IpAddr> {
        self.origin(request.peer_addr()?.ip().to_canonical(), request.headers())
    }

    /// The network whose connections are counted together; none for this machine and for a trusted proxy,
    /// behind which others are.
    pub(crate) fn network_of_peer(&self, peer: IpAddr) -> Option<IpAddr> {
        let peer = peer.to_canonical();
        let is_counted = !peer.is_loopback() && !self.is_trusted(&peer);
        is_counted.then(|| networks(peer).first().map(|network| network.first)).flatten()
    }

    fn is_trusted(&self, address: &IpAddr) -> bool {
        self.trusted_proxies.contains(address)
    }

    /// The address behind the trusted proxies. Their entries stand at the end of the header, after those of
    /// others. Where the nearest of them writes no address, its own is counted: a header
    /// that cannot be read lifts no limit.
    fn origin(&self, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        let lines: Vec<&str> =
            headers.get_all(FORWARDED_FOR).map(|line| line.to_str().unwrap_or_default()).collect();
        if !self.is_trusted(&peer) {
            if !lines.is_empty() {
                self.warn_of_untrusted(peer);
            }
            return (!peer.is_loopback()).then_some(peer);
        }
        let told: Vec<&str> = lines.iter().flat_map(|line| line.split(',')).collect();
        let mut farthest = None;
        for text in told.into_iter().rev() {
            let Some(address) = address_in(text) else { return farthest.or(Some(peer)) };
            farthest = Some(address);
            if !self.is_trusted(&address) {
                break;
            }
        }
        Some(farthest.unwrap_or(peer)).filter(|address| !address.is_loopback())
    }

    fn warn_of_untrusted(&self, peer: IpAddr) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %peer,
                "a request has X-Forwarded-For, which is believed of trusted proxies only: if this is \
                 one, say --trusted-proxy"
            );
        }
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
        let waits = networks(address).into_iter().map(|network| {
            let key = self.key(network);
            let bucket = all.of(key).and_then(|part| part.get(&key).copied()).unwrap_or_default();
            bucket.wait(&network.rate(rate), 1, now)
        });
        let wait = waits.max().unwrap_or_default();
        if wait.is_zero() { Ok(()) } else { Err(OverQuota { quota, wait }) }
    }

    fn take(
        &self,
        all: &Shards<HashMap<u64, Bucket>>,
        address: IpAddr,
        rate: &Rate,
        now: Timestamp,
    ) {
        for network in networks(address) {
            let key = self.key(network);
            let Some(mut part) = all.of(key) else { continue };
            if ENTRIES_MAX <= part.len() && !part.contains_key(&key) {
                // More addresses than can be counted: not one of them is who does it.
                *self.passed.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                continue;
            }
            part.entry(key).or_default().take(&network.rate(rate), 1, now);
        }
    }

    fn key(&self, network: Network) -> u64 {
        self.secret.of((network.first, network.prefix))
    }

    /// Drops counts that are over.
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

impl Network {
    /// The rate that all its addresses have together.
    fn rate(&self, usual: &Rate) -> Rate {
        Rate::new(usual.burst.saturating_mul(self.times), usual.every / self.times)
    }
}

/// The networks that an address is counted in, the smallest first.
fn networks(address: IpAddr) -> Vec<Network> {
    let IpAddr::V6(v6) = address.to_canonical() else {
        return vec![Network { first: address.to_canonical(), prefix: 32, times: 1 }];
    };
    let network = |(prefix, times): (u32, u32)| {
        let rest = 128_u32.saturating_sub(prefix);
        let first = Ipv6Addr::from_bits(v6.to_bits() >> rest << rest).into();
        Network { first, prefix, times }
    };
    IPV6_NETWORKS.into_iter().map(network).collect()
}

/// The address in one entry of the header: alone or with a port, an IPv6 one in brackets or without.
fn address_in(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    let alone = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = alone.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    address.or_else(with_port).map(|address| address.to_canonical())
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
        let addresses = Addresses::new(None, &[ip("127.0.0.1"), ip("10.0.0.1")]);
        let mut headers = HeaderMap::new();
        let origin = |peer, headers: &HeaderMap| addresses.origin(ip(peer), headers);
        assert_eq!(origin("127.0.0.1", &headers), None);
        let set = |headers: &mut HeaderMap, line: &'static str| {
            headers.insert(HeaderName::from_static(FORWARDED_FOR), HeaderValue::from_static(line));
        };
        set(&mut headers, "192.0.2.66, 198.51.100.7, 10.0.0.1");
        assert_eq!(origin("127.0.0.1", &headers), Some(ip("198.51.100.7")));
        assert!(!addresses.warned.load(Ordering::Relaxed));
        assert_eq!(origin("203.0.113.5", &headers), Some(ip("203.0.113.5")));
        assert!(addresses.warned.load(Ordering::Relaxed));
        set(&mut headers, "no address, 10.0.0.1");
        assert_eq!(origin("127.0.0.1", &headers), Some(ip("10.0.0.1")));
        set(&mut headers, "192.0.2.66, unknown");
        assert_eq!(origin("127.0.0.1", &headers), Some(ip("127.0.0.1")));
    }

    #[test]
    fn an_address_is_the_same_in_each_of_its_forms() {
        let v4 = ["192.0.2.1", "192.0.2.1:443", "::ffff:192.0.2.1", "[::ffff:192.0.2.1]:443"];
        for text in v4 {
            assert_eq!(address_in(text), Some(ip("192.0.2.1")), "{text}");
        }
        let v6 = ["2001:db8::7", "[2001:db8::7]", "[2001:db8::7]:443", " \"[2001:db8::7]:443\""];
        for text in v6 {
            assert_eq!(address_in(text), Some(ip("2001:db8::7")), "{text}");
        }
        for text in ["", "unknown", "_hidden", "192.0.2.1:", "[2001:db8::7", "192.0.2.256"] {
            assert_eq!(address_in(text), None, "{text}");
        }
    }

    #[test]
    fn connections_of_this_machine_and_of_trusted_proxies_are_not_counted() {
        let addresses = Addresses::new(None, &[ip("::ffff:10.0.0.1")]);
        let network = |text| addresses.network_of_peer(ip(text));
        assert_eq!(network("::ffff:127.0.0.1"), None);
        assert_eq!(network("10.0.0.1"), None);
        assert_eq!(network("::ffff:192.0.2.1"), Some(ip("192.0.2.1")));
        assert_eq!(network("2001:db8:1:2:3::4"), Some(ip("2001:db8:1:2::")));
    }

    #[test]
    fn a_customer_with_many_addresses_is_one() {
        let of = |text| networks(ip(text)).into_iter().map(|network| network.first.to_string());
        let networks: Vec<String> = of("2001:db8:1:203:4::5").collect();
        assert_eq!(networks, ["2001:db8:1:203::", "2001:db8:1:200::", "2001:db8:1::"]);
        assert_eq!(of("::ffff:192.0.2.1").collect::<Vec<_>>(), ["192.0.2.1"]);
        assert_eq!(of("192.0.2.1").collect::<Vec<_>>(), ["192.0.2.1"]);
    }

    #[test]
    fn whoever_has_many_networks_has_four_or_sixteen_times_as_much_and_no_more() {
        let addresses = Addresses::new(Some(&Quotas::STANDARD), &[]);
        let now = Timestamp::from_secs(1_000);
        let registered = |of: fn(u32) -> String| {
            let passed = |n: &u32| addresses.register(Some(ip(&of(*n))), now).is_ok();
            (0..1000).filter(passed).count()
        };
        assert_eq!(registered(|_| "2001:db8:0:1::1".to_owned()), 30);
        assert_eq!(registered(|n| format!("2001:db8:1:{:x}::1", n % 256)), 120);
        assert_eq!(
            registered(|n| format!("2001:db8:2:{:x}::1", ((n % 256) << 8) | (n / 256))),
            480
        );
    }

    #[test]
    fn addresses_are_refused_apart_and_forgotten_when_nothing_is_missing() {
        let addresses = Addresses::new(Some(&Quotas::STANDARD), &[]);
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
