//! No private byte of a device is ever at the server, nor in any log.

use std::{
    io::Write,
    sync::{Arc, Mutex, OnceLock},
};

use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use super::{
    super::{
        people::{carol_joins, hears, resume},
        service::{Fault, Service, group, run},
    },
    scanner::{Scanner, files},
    secrets::Secrets,
    thief::Thief,
};

/// All lines that are logged in this process while somebody listens.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Option<Vec<u8>>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if let Some(lines) = self.0.lock().unwrap().as_mut() {
            lines.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Listens to everything that is logged, by all threads.
fn listen() -> Lines {
    static LINES: OnceLock<Lines> = OnceLock::new();
    let lines = LINES.get_or_init(|| {
        let lines = Lines::default();
        let filter =
            EnvFilter::new("debug,keypool_client=trace,keypool_server=trace,openmls=trace");
        let subscriber =
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines.clone());
        subscriber.init();
        lines
    });
    *lines.0.lock().unwrap() = Some(Vec::new());
    lines.clone()
}

/// The content of a device's home now.
fn secrets_of(service: &Service, name: &str) -> Secrets {
    let home = service.folder.path().join(name);
    Thief::of(&home).secrets(&home)
}

#[test]
fn the_server_and_the_logs_never_hold_a_private_byte() {
    let lines = listen();
    let mut secrets = Secrets::new();
    let service = run(async {
        let service = Service::start();
        drop(service.device("bob", 3).await);
        let alice = service.device("alice", 2).await;
        let group = group("g");
        alice.create_group(&group).unwrap();
        for name in ["alice", "bob"] {
            secrets.extend(secrets_of(&service, name));
        }
        service.mail.fail_commits(&[Fault::TakenUnanswered]);
        alice.invite(&group, ["bob"]).await.unwrap_err();
        resume(&alice).await.unwrap().unwrap();
        let bob = service.open("bob");
        let welcome = service.mail.welcomes("bob").remove(0);
        let mut tampered = welcome.clone();
        *tampered.last_mut().unwrap() ^= 1;
        bob.join(&tampered).await.unwrap_err();
        bob.join(&welcome).await.unwrap();
        hears(&bob, &alice, &group).await;
        let carol = carol_joins(&service, &alice, &group).await;
        carol.update_keys(&group).await.unwrap();
        for name in ["alice", "bob", "carol"] {
            secrets.extend(secrets_of(&service, name));
        }
        service
    });
    let logged = lines.0.lock().unwrap().take().unwrap();
    let text = String::from_utf8_lossy(&logged);
    assert!(text.lines().count() > 20 && text.contains("keypool"), "{text}");
    assert!(secrets.len() > 60, "{}", secrets.len());
    let scanner = Scanner::new(&secrets);
    let server = service.folder.path().join("server");
    assert!(files(&server).len() > 2);
    assert_eq!(scanner.find_in(&server), [""; 0]);
    assert_eq!(scanner.find(&logged), [""; 0]);

    // It would have found one.
    let secret = secrets.keys().next().unwrap();
    std::fs::write(server.join("planted"), [b"log: ", secret.as_slice()].concat()).unwrap();
    assert!(!scanner.find_in(&server).is_empty());
    let line = format!("{text}\nkey={secret:?}");
    assert!(!scanner.find(line.as_bytes()).is_empty());
}
