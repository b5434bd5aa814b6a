//! Bounds the open connections, so that descriptors are left for the log.
//!
//! The soft limit of descriptors is raised to the hard one, and connections stay below it by a reserve. A
//! connection beyond the bounds is refused with 503 and closed: as the answer to its first request, or before
//! any request while many refused connections wait for theirs.

pub(crate) mod bound;

use std::{
    any::Any,
    collections::HashMap,
    io,
    net::{IpAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::{
    HttpResponse, ResponseError,
    dev::{Extensions, ServiceRequest},
    rt::net::TcpStream,
};
use keypool_api::Code;
use rustix::{
    net::{SendFlags, Shutdown, send, shutdown, sockopt::set_tcp_user_timeout},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use self::bound::Bound;
use crate::{
    metrics::Metrics,
    problem::{Failure, PROBLEM_JSON},
    quota::Addresses,
};

/// Descriptors that connections leave for the log, the index, the tiles and the admin listener.
const RESERVE: usize = 256;
/// RefusedConnection connections that are open at a time until their request has come.
const WAITING_MAX: usize = 64;
/// RefusedConnection connections that are about to be closed, beside those.
const CLOSING_MAX: usize = 64;
/// The fewest connections that a server starts with.
const CONNECTIONS_MIN: usize = 64;

/// The limit of descriptors leaves too few for connections.
#[derive(Debug, thiserror::Error)]
#[error(
    "this process may open {limit} files, and needs {} at least: raise the limit (ulimit -n, or \
     LimitNOFILE= in a unit of systemd)",
    RESERVE + WAITING_MAX + CLOSING_MAX + CONNECTIONS_MIN
)]
pub struct TooFewDescriptors {
    limit: usize,
}

/// Bounds on the connections of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Connections that are served.
    pub(crate) served_max: usize,
    /// Connections of one address that are served.
    pub(crate) address_max: usize,
}

impl Bounds {
    /// Bounds that leave the reserve free, below the operator's.
    pub(crate) fn within(
        descriptors: usize,
        asked: usize,
        address_max: usize,
    ) -> Result<Self, TooFewDescriptors> {
        let left = descriptors.saturating_sub(RESERVE + WAITING_MAX + CLOSING_MAX);
        if left < CONNECTIONS_MIN {
            return Err(TooFewDescriptors { limit: descriptors });
        }
        Ok(Self { served_max: asked.min(left), address_max })
    }

    /// Connections that each of so many threads accepts. Together they never have more open than there
    /// are descriptors for, and always more than are served: so none waits for another to end.
    pub(crate) fn accepted_by_each(&self, workers: usize) -> usize {
        let accepted = self.served_max + WAITING_MAX + CLOSING_MAX;
        (accepted / workers.max(1)).max(1)
    }
}

/// Raises the soft limit of descriptors to the hard one, and returns the new limit.
pub(crate) fn raise_descriptor_limit() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files cannot be raised");
            current
        }
    };
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// Closes accepted connections whose client takes nothing of an answer for so long.
pub(crate) fn close_stalled_readers(listener: &TcpListener, after: Duration) -> io::Result<()> {
    let millis = u32::try_from(after.as_millis()).unwrap_or(u32::MAX);
    Ok(set_tcp_user_timeout(listener, millis)?)
}

/// The open connections of a server.
#[derive(Debug)]
pub(crate) struct Connections {
    bounds: Bounds,
    open: Mutex<OpenCounts>,
}

#[derive(Debug, Default)]
struct OpenCounts {
    served: usize,
    waiting: usize,
    /// Connections refused since the log said so.
    refused: u64,
    by_network: HashMap<IpAddr, usize>,
}

/// A served connection; it counts until this is dropped.
#[derive(Debug)]
struct ServedConnection {
    connections: Arc<Connections>,
    network: Option<IpAddr>,
}

/// A refused connection whose request is waited for; it counts until this is dropped.
#[derive(Debug)]
struct RefusedConnection {
    connections: Arc<Connections>,
    bound: Bound,
}

impl Bound {
    fn failure(self) -> Failure {
        let detail = match self {
            Self::Process => "as many connections are open as this server serves; try again soon",
            Self::Address => {
                "as many connections of your address are open as it may have; close some"
            }
        };
        Failure::new(Code::Busy, detail)
    }
}

impl Connections {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, open: Mutex::default() }
    }

    pub(crate) const fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Counts a new connection, or answers 503 on it.
    pub(crate) fn admit(
        self: &Arc<Self>,
        connection: &dyn Any,
        (addresses, metrics): (&Addresses, &Metrics),
        data: &mut Extensions,
    ) {
        let tls = connection.downcast_ref::<TlsStream<TcpStream>>();
        let plain = connection.downcast_ref::<TcpStream>();
        let Some(stream) = tls.map(|tls| tls.get_ref().0).or(plain) else { return };
        let peer = stream.peer_addr().ok();
        let network = peer.and_then(|peer| addresses.network_of_peer(peer.ip()));
        match self.serve(network) {
            Ok(served) => drop(data.insert(served)),
            Err(bound) => {
                metrics.connection_refused(bound);
                match self.wait(bound) {
                    Some(refused) => drop(data.insert(refused)),
                    // A sentence in clear would break a TLS connection.
                    None if tls.is_some() => drop(shutdown(stream, Shutdown::Both)),
                    None => turn_away(stream, bound),
                }
            }
        }
    }

    fn serve(self: &Arc<Self>, network: Option<IpAddr>) -> Result<ServedConnection, Bound> {
        let mut open = self.open();
        if self.bounds.served_max <= open.served {
            return Err(Bound::Process);
        }
        if let Some(network) = network {
            let own = open.by_network.entry(network).or_default();
            if self.bounds.address_max <= *own {
                return Err(Bound::Address);
            }
            *own += 1;
        }
        open.served += 1;
        Ok(ServedConnection { connections: Arc::clone(self), network })
    }

    fn wait(self: &Arc<Self>, bound: Bound) -> Option<RefusedConnection> {
        let mut open = self.open();
        open.refused += 1;
        if WAITING_MAX <= open.waiting {
            return None;
        }
        open.waiting += 1;
        Some(RefusedConnection { connections: Arc::clone(self), bound })
    }

    /// Says in the log how many connections were refused since it said so.
    pub(crate) fn report(&self) {
        let (refused, open) = {
            let mut open = self.open();
            (std::mem::take(&mut open.refused), open.served)
        };
        if 0 < refused {
            tracing::warn!(
                refused,
                open,
                "connections were refused, because the process or their address has as many as it may"
            );
        }
    }

    /// Counts the connections that are served.
    pub(crate) fn len(&self) -> usize {
        self.open().served
    }

    /// A thread that has panicked leaves counts, and nothing half.
    fn open(&self) -> MutexGuard<'_, OpenCounts> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ServedConnection {
    fn drop(&mut self) {
        let mut open = self.connections.open();
        open.served = open.served.saturating_sub(1);
        let Some(network) = self.network else { return };
        match open.by_network.get_mut(&network) {
            Some(own) if 1 < *own => *own -= 1,
            _ => drop(open.by_network.remove(&network)),
        }
    }
}

impl Drop for RefusedConnection {
    fn drop(&mut self) {
        let mut open = self.connections.open();
        open.waiting = open.waiting.saturating_sub(1);
    }
}

/// The answer to a request on a refused connection, which it closes.
pub(crate) fn refusal(request: &ServiceRequest) -> Option<HttpResponse> {
    let refused = request.conn_data::<RefusedConnection>()?;
    let mut response = refused.bound.failure().error_response();
    response.head_mut().set_connection_type(actix_web::http::ConnectionType::Close);
    Some(response)
}

/// Answers 503 before any request, and closes.
fn turn_away(stream: &TcpStream, bound: Bound) {
    let body = bound.failure().to_json();
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: {PROBLEM_JSON}\r\nretry-after: 1\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    // Whoever cannot be told is closed all the same.
    let _ = send(stream, &[head.as_bytes(), &body].concat(), SendFlags::NOSIGNAL);
    let _ = shutdown(stream, Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(served_max: usize, address_max: usize) -> Arc<Connections> {
        Arc::new(Connections::new(Bounds { served_max, address_max }))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_and_the_process_have_so_many_and_one_more_when_one_is_closed() {
        let connections = connections(3, 2);
        let one = connections.serve(Some(ip("192.0.2.1"))).unwrap();
        let _two = connections.serve(Some(ip("192.0.2.1"))).unwrap();
        assert_eq!(connections.serve(Some(ip("192.0.2.1"))).unwrap_err(), Bound::Address);
        let _other = connections.serve(Some(ip("192.0.2.2"))).unwrap();
        assert_eq!(connections.serve(None).unwrap_err(), Bound::Process);
        drop(one);
        let _again = connections.serve(Some(ip("192.0.2.1"))).unwrap();
        assert_eq!(connections.len(), 3);
    }

    #[test]
    fn connections_whose_address_is_not_counted_are_bounded_by_the_process_alone() {
        let connections = connections(3, 1);
        let all: Vec<ServedConnection> = (0..3).map(|_| connections.serve(None).unwrap()).collect();
        assert_eq!(connections.serve(None).unwrap_err(), Bound::Process);
        drop(all);
        let open = connections.open();
        assert_eq!((open.served, open.by_network.len()), (0, 0));
    }

    #[test]
    fn so_many_refused_ones_wait_for_their_request() {
        let connections = connections(0, 1);
        let waiting: Vec<_> = (0..WAITING_MAX).map(|_| connections.wait(Bound::Process)).collect();
        assert!(waiting.iter().all(Option::is_some));
        assert!(connections.wait(Bound::Process).is_none());
        drop(waiting);
        assert!(connections.wait(Bound::Process).is_some());
    }

    #[test]
    fn connections_stay_below_the_descriptors_by_the_reserve() {
        let bounds = Bounds::within(1024, 8192, 256).unwrap();
        assert_eq!(bounds.served_max, 640);
        for workers in [1, 2, 7, 64] {
            let accepted = bounds.accepted_by_each(workers) * workers;
            assert!(bounds.served_max < accepted && accepted <= 1024 - RESERVE, "{accepted}");
        }
        assert_eq!(Bounds::within(100_000, 8192, 256).unwrap().served_max, 8192);
        assert!(Bounds::within(256, 8192, 256).is_err());
    }
}
