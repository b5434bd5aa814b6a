//! Requests by a way of the app's own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use keypool_client::{
    ApiError, ClientOptions, MlsClient, RegisterError, ReqwestTransport, Transport,
    TransportFuture, TransportResponse,
};

use super::{
    people::reserve_for,
    service::{Mail, Service, run},
};

/// The app's HTTP client, which knows the address of a name that no resolver knows.
fn http_client(service: &Service) -> reqwest::ClientBuilder {
    let address = service.tunnel.authority().parse().unwrap();
    reqwest::Client::builder().resolve("keys.example", address)
}

fn open(service: &Service, server: &str, transport: Arc<dyn Transport>) -> MlsClient<Mail> {
    let options =
        ClientOptions { transport: Some(transport), ..ClientOptions::new(service.clock.clone()) };
    let (home, mail) = (service.folder.path().join("bob"), service.mail.clone());
    MlsClient::open_with(&home, &"bob".parse().unwrap(), server, mail, options).unwrap()
}

/// A server that is known by a name.
fn named_service() -> (Service, String) {
    let service = Service::start_with(|settings| {
        let port = settings.public_names[0].rsplit_once(':').unwrap().1.to_owned();
        settings.public_names.push(format!("keys.example:{port}"));
    });
    let server = service.tunnel.url().replace("127.0.0.1", "keys.example");
    (service, server)
}

#[test]
fn an_apps_own_http_client_reaches_the_server() {
    run(async {
        let (service, server) = named_service();
        let transport = ReqwestTransport::with_client(http_client(&service).build().unwrap());
        let bob = open(&service, &server, Arc::new(transport));
        bob.register().await.unwrap();
        assert_eq!(bob.refresh_now().await.unwrap().available, 32);
        let alice = service.device("alice", 0).await;
        reserve_for(&alice, "g").await;
        assert_eq!(bob.refresh_now().await.unwrap().available, 31);
        // Its stream as well.
        let mut stream = bob.connection().api().stream(0).await.unwrap();
        assert!(stream.next().await.unwrap().is_some());
        // The name is none that others know.
        let stranger = ReqwestTransport::with_client(reqwest::Client::new());
        drop(bob);
        let refused = open(&service, &server, Arc::new(stranger)).refresh_now().await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!(
                "the server at {server}/ cannot be reached; check the address, and that it is running"
            )
        );
    });
}

/// A way whose answers are lost on the last step.
struct Breaking {
    way: ReqwestTransport,
    is_broken: AtomicBool,
    asked: AtomicUsize,
}

impl Transport for Breaking {
    fn send(
        &self,
        request: http::Request<Vec<u8>>,
        timeout: Duration,
    ) -> TransportFuture<'_, TransportResponse> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            let answer = self.way.send(request, timeout).await?;
            if self.is_broken.load(Ordering::SeqCst) {
                return Err("the radio is off".into());
            }
            Ok(answer)
        })
    }
}

/// Each request is carried out, and nobody hears of it. It is repeated with the same id.
#[test]
fn an_answer_that_a_transport_loses_is_asked_for_again() {
    run(async {
        let service = Service::start();
        let way = ReqwestTransport::new().unwrap();
        let breaking = Arc::new(Breaking { way, is_broken: true.into(), asked: 0.into() });
        let bob = open(&service, &service.tunnel.url(), breaking.clone());
        let lost = bob.register().await.unwrap_err();
        assert!(
            matches!(&lost, RegisterError::ServerUnreachable(ApiError::Unreachable { .. })),
            "{lost:?}"
        );
        assert_eq!(breaking.asked.load(Ordering::SeqCst), 4, "repeated three times");
        breaking.is_broken.store(false, Ordering::SeqCst);
        bob.register().await.unwrap();
        assert_eq!(bob.refresh_now().await.unwrap().available, 32);
    });
}

/// A request is signed for its address: one that was sent on to another is not taken for the server's answer.
#[test]
fn a_client_that_follows_redirects_is_found_out() {
    run(async {
        let service = Service::start();
        let follows = ReqwestTransport::with_client(reqwest::Client::new());
        let bob = open(&service, &service.tunnel.url(), Arc::new(follows));
        service.tunnel.redirect(0, &format!("{}/elsewhere", service.tunnel.url()));
        let refused = bob.connection().api().ledger_key().await.unwrap_err();
        let ApiError::Unreachable { source, .. } = refused else { panic!("{refused}") };
        let told = source.to_string().replace(&service.tunnel.url(), "SERVER");
        insta::assert_snapshot!(told, @"the HTTP client has followed a redirect to SERVER/elsewhere");
    });
}
