//! Events of a pool, heard as they happen, and after the line was cut.

use std::sync::Arc;

use keypool_client::{MlsClient, PoolConfig};
use keypool_ledger::Clock;

use super::{
    members::alice_and,
    pool_news::name,
    service::{Service, group as other, run},
};

#[test]
fn what_happens_is_heard_and_is_in_the_mirror_at_once() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and(&service, &["bob"], 2).await;
        let (home, clock) = (service.folder.path().join("bob"), service.clock.clone());
        let config = PoolConfig { target: 4, low_watermark: 1, ..PoolConfig::default() };
        let options = (clock as Arc<dyn Clock>, config);
        let bob = "bob".parse().unwrap();
        let bob = MlsClient::open_at_server(&home, &bob, &service.tunnel.url(), options).unwrap();
        let mut listener = bob.listen().await.unwrap();
        let mut heard = Vec::new();
        for _ in 0..3 {
            heard.push(name(listener.next().await.unwrap()));
        }
        // The refresh that filled the pool did not fetch what it uploaded.
        assert_eq!(heard, ["uploaded", "uploaded", "critical 2"]);
        alice.invite(&group, ["bob"]).await.unwrap();
        let mut heard = Vec::new();
        while heard.last().is_none_or(|last| last != "spent") {
            heard.push(name(listener.next().await.unwrap()));
        }
        heard.retain(|news| !news.starts_with("critical"));
        assert_eq!(heard, ["reserved", "spent"]);
        assert_eq!(bob.package_uses().len(), 1, "without a refresh");

        // Cut off, and back: what happened meanwhile is heard, and nothing twice.
        drop(listener);
        let elsewhere = other("other");
        alice.create_group(&elsewhere).unwrap();
        alice.invite(&elsewhere, ["bob"]).await.unwrap();
        let mut listener = bob.listen().await.unwrap();
        let mut heard = Vec::new();
        while heard.last().is_none_or(|last| last != "empty") {
            heard.push(name(listener.next().await.unwrap()));
        }
        assert_eq!(heard, ["reserved", "spent", "empty"]);
        let mirror = bob.history(None).unwrap();
        let refreshed = bob.connection().refresh_now(service.clock.now()).await;
        assert_eq!(refreshed.unwrap().events, 0, "there was nothing left to fetch");
        assert_eq!(bob.history(None).unwrap(), mirror);
        drop(listener);
        let mut listener = bob.listen().await.unwrap();
        while name(listener.next().await.unwrap()) != "uploaded" {}
        service.server.stop().await;
        while listener.next().await.unwrap().is_some() {}
    });
}
