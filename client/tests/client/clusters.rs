//! Devices of a cluster: each request goes to another of its servers.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use keypool_client::{
    ClientOptions, MlsClient, ReqwestTransport, Transport, TransportFuture, TransportResponse,
};
use keypool_ledger::{
    JournalReader,
    log::conformance::{MemoryStream, MemoryStreamConnection, StreamFaults},
    publish_journal,
};
use keypool_server::Server;

use super::{
    people::{hears, reserve_for},
    service::{Mail, Service, group, run, settings},
    support::copy,
};

/// Three servers over one stream, and the tunnel that leads to one of them at a time.
struct Cluster {
    service: Service,
    others: Vec<Server>,
    connections: Vec<Arc<MemoryStreamConnection>>,
    /// The one server that requests go to; from their number on each of them.
    only: AtomicUsize,
}

/// A way on which each request leads to the next server.
struct Balancing {
    way: ReqwestTransport,
    cluster: Arc<Cluster>,
    sent: AtomicUsize,
}

impl Cluster {
    /// The server of a service stops, and three go on with its log and its name.
    async fn start() -> Self {
        let Service { folder, server, clock, mail, tunnel } = Service::start();
        server.stop().await;
        let stream = MemoryStream::with_seed(1);
        let first = folder.path().join("server");
        let records = JournalReader::open(&first.join("journal")).unwrap();
        publish_journal(records, &*stream.connect(StreamFaults::Never), &|_| {}).unwrap();
        let dirs = ["server", "second server", "third server"].map(|name| folder.path().join(name));
        for dir in dirs.iter().skip(1) {
            std::fs::create_dir(dir).unwrap();
            copy(&first, dir);
        }
        let mut connections = Vec::new();
        let mut servers: Vec<_> = dirs
            .iter()
            .map(|dir| {
                let connection = stream.connect(StreamFaults::Never);
                connections.push(Arc::clone(&connection));
                let settings = settings(dir, &tunnel.authority());
                Server::start_in_cluster(settings, clock.clone(), connection).unwrap()
            })
            .collect();
        let server = servers.remove(0);
        tunnel.lead_to(server.address());
        let service = Service { folder, server, clock, mail, tunnel };
        Self { service, others: servers, connections, only: AtomicUsize::new(3) }
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        let others = self.others.iter().map(Server::address);
        std::iter::once(self.service.server.address()).chain(others).collect()
    }

    fn open(self: &Arc<Self>, name: &str) -> MlsClient<Mail> {
        let (cluster, way) = (Arc::clone(self), ReqwestTransport::new().unwrap());
        let balancing = Balancing { way, cluster, sent: AtomicUsize::new(0) };
        let clock = self.service.clock.clone();
        let options =
            ClientOptions { transport: Some(Arc::new(balancing)), ..ClientOptions::new(clock) };
        let (home, mail) = (self.service.folder.path().join(name), self.service.mail.clone());
        let url = self.service.tunnel.url();
        MlsClient::open_with(&home, &name.parse().unwrap(), &url, mail, options).unwrap()
    }
}

impl Transport for Balancing {
    fn send(
        &self,
        request: http::Request<Vec<u8>>,
        timeout: Duration,
    ) -> TransportFuture<'_, TransportResponse> {
        let addresses = self.cluster.addresses();
        let next = self.sent.fetch_add(1, Ordering::SeqCst) % addresses.len();
        let only = self.cluster.only.load(Ordering::SeqCst);
        let address = addresses.get(only).unwrap_or(&addresses[next]);
        self.cluster.service.tunnel.lead_to(*address);
        self.way.send(request, timeout)
    }
}

#[test]
fn a_device_whose_requests_go_to_any_server_sees_one_log() {
    run(async {
        let cluster = Arc::new(Cluster::start().await);
        let [alice, bob] = ["alice", "bob"].map(|name| cluster.open(name));
        for device in [&alice, &bob] {
            device.register().await.unwrap();
            assert_eq!(device.refresh_now().await.unwrap().available, 32);
        }
        let group = group("g");
        alice.create_group(&group).unwrap();
        alice.invite(&group, ["bob"]).await.unwrap();
        bob.join(&cluster.service.mail.welcomes("bob")[0]).await.unwrap();
        hears(&bob, &alice, &group).await;
        assert_eq!(bob.refresh_now().await.unwrap().available, 31);
        for _ in 0..6 {
            bob.refresh_now().await.unwrap();
            alice.refresh_now().await.unwrap();
        }
        // A server that does not follow has less than the device has seen.
        cluster.connections[2].cut(true);
        cluster.only.store(0, Ordering::SeqCst);
        reserve_for(&alice, "h").await;
        assert_eq!(bob.refresh_now().await.unwrap().available, 30);
        cluster.only.store(2, Ordering::SeqCst);
        let refused = bob.refresh_now().await.unwrap_err();
        assert!(refused.to_string().contains("this server has the records until"), "{refused}");
        cluster.connections[2].cut(false);
        assert_eq!(bob.refresh_now().await.unwrap().available, 30);
        for device in [&alice, &bob] {
            let audit = device.audit().unwrap();
            assert!(audit.findings.is_empty(), "{:?}", audit.findings);
            assert!(audit.checkpoint.is_some());
        }
    });
}
