//! Connecting: credentials, certificates, and the servers and streams that are refused.

use std::{fs, path::PathBuf, time::Duration};

use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};
use keypool_ledger::{PublishOutcome, Replication};
use keypool_nats::{NatsCredentials, NatsError, NatsReplication, NatsSettings, NatsTls};
use tempfile::TempDir;

use super::{cluster::Cluster, support::DEADLINE};

/// The example of NATS's documentation.
const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
const USER: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
/// Patience with servers that do not answer.
const SHORT: Duration = Duration::from_millis(500);

fn is_written(stream: &NatsReplication) -> bool {
    let last = stream.last().unwrap();
    matches!(stream.publish(last, b"frame"), PublishOutcome::Written)
}

/// Settings for one node, whose address has credentials before the host.
fn settings(cluster: &Cluster, credentials: &str) -> NatsSettings {
    let address = format!("nats://{credentials}127.0.0.1:{}", cluster.port(0));
    NatsSettings::new(&address, "prod").unwrap().with_replicas(1).with_patience(DEADLINE)
}

fn refusal(settings: &NatsSettings) -> NatsError {
    NatsReplication::connect(settings).unwrap_err()
}

#[test]
fn a_server_signs_in_with_a_password_or_an_nkey() {
    let users = format!(
        "max_payload: 8MB\nauthorization {{ users: [ {{ nkey: {USER} }}, {{ user: u, password: \"r@ght\" }} ] }}"
    );
    let Some(cluster) = Cluster::with(1, &users) else { return };
    assert!(is_written(&NatsReplication::connect(&settings(&cluster, "u:r%40ght@")).unwrap()));
    let dir = TempDir::new().unwrap();
    let seed = dir.path().join("nats.nk");
    fs::write(&seed, format!("{SEED}\n")).unwrap();
    let nkey =
        |path: PathBuf| settings(&cluster, "").with_credentials(NatsCredentials::NkeySeed(path));
    assert!(is_written(&NatsReplication::connect(&nkey(seed.clone())).unwrap()));
    for refused in [settings(&cluster, ""), settings(&cluster, "u:wrong@")] {
        let error = refusal(&refused);
        assert!(matches!(error, NatsError::Refused { .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("wrong"), "{error:?}");
    }
    fs::write(&seed, "no seed").unwrap();
    let error = refusal(&nkey(seed));
    assert!(matches!(error, NatsError::Refused { .. }), "{error:?}");
    let error = refusal(&nkey(dir.path().join("none")));
    assert!(matches!(error, NatsError::File { .. }), "{error:?}");
    let file = NatsCredentials::CredentialsFile(dir.path().join("nats.nk"));
    let error = refusal(&settings(&cluster, "").with_credentials(file));
    assert!(matches!(error, NatsError::File { .. }), "{error:?}");
}

#[test]
fn a_server_verifies_the_certificate_of_nats() {
    let dir = TempDir::new().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("cert.pem"), made.cert.pem()).unwrap();
    fs::write(path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let tls = format!(
        "max_payload: 8MB\ntls {{ cert_file: {:?}, key_file: {:?} }}",
        path("cert.pem"),
        path("key.pem")
    );
    let Some(cluster) = Cluster::with(1, &tls) else { return };
    let address = format!("tls://localhost:{}", cluster.port(0));
    let settings = NatsSettings::new(&address, "prod").unwrap().with_replicas(1);
    let root = |name: &str| NatsTls {
        is_required: true,
        root_certificates: Some(path(name)),
        client_certificate: None,
    };
    let trusting = settings.clone().with_tls(root("cert.pem")).with_patience(DEADLINE);
    assert!(is_written(&NatsReplication::connect(&trusting).unwrap()));
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(path("other.pem"), other.cert.pem()).unwrap();
    let error = refusal(&settings.clone().with_tls(root("other.pem")).with_patience(SHORT));
    assert!(matches!(error, NatsError::Unreachable { .. }), "{error:?}");
    let error = refusal(&settings.with_tls(root("none.pem")));
    assert!(matches!(error, NatsError::File { .. }), "{error:?}");
}

#[test]
fn servers_that_are_not_fit_are_refused() {
    let unfit = |lines: &str, replicas: usize, told: &str| {
        let Some(cluster) = Cluster::with(1, lines) else { return };
        let error = refusal(&settings(&cluster, "").with_replicas(replicas));
        assert!(matches!(error, NatsError::Unfit(_)), "{error:?}");
        assert!(error.to_string().contains(told), "{error}");
    };
    unfit("max_payload: 4MB", 1, "set `max_payload: 8MB`");
    unfit("max_payload: 8MB", 3, "form a cluster of as many servers");
    let error =
        refusal(&NatsSettings::new("nats://127.0.0.1:1", "prod").unwrap().with_patience(SHORT));
    assert!(error.to_string().contains("127.0.0.1:1 do not serve"), "{error}");
}

/// A change of a stream's settings.
type Change = fn(&mut Config);

/// Creates a stream by hand, and connects to it.
fn refused_stream(cluster: &Cluster, name: &str, change: Change) -> String {
    let mut config = Config {
        name: format!("KP-{name}"),
        subjects: vec![format!("kp.{name}.log")],
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        deny_delete: true,
        deny_purge: true,
        num_replicas: 1,
        ..Config::default()
    };
    change(&mut config);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = async_nats::connect(cluster.addresses()).await.unwrap();
        async_nats::jetstream::new(client).create_stream(config).await.unwrap();
    });
    let error = refusal(&cluster.settings(name).with_patience(SHORT));
    assert!(matches!(error, NatsError::Unfit(_)), "{error:?}");
    error.to_string()
}

#[test]
fn a_stream_is_of_one_ledger() {
    let Some(cluster) = Cluster::start(1) else { return };
    let of = |key: &str| cluster.settings("prod").with_ledger(key.to_owned());
    let connect = |settings: &NatsSettings| NatsReplication::connect(settings).unwrap();
    assert!(is_written(&connect(&of("one+1"))));
    drop(connect(&of("one+1")));
    drop(connect(&cluster.settings("prod")));
    let error = refusal(&of("other+2").with_patience(SHORT)).to_string();
    assert!(error.contains("is of the ledger one+1, and this server's is other+2"), "{error}");
}

#[test]
fn streams_that_forget_are_refused() {
    let Some(cluster) = Cluster::start(1) else { return };
    cluster.connect("prod");
    cluster.connect("prod");
    let changes: [(&str, Change, &str); 10] = [
        ("a", |config| config.max_messages = 9, "max_msgs is set"),
        ("b", |config| config.max_bytes = 1 << 20, "max_bytes is set"),
        ("c", |config| config.max_age = DEADLINE * 60, "max_age is set"),
        ("d", |config| config.deny_delete = false, "deny_delete"),
        ("e", |config| config.deny_purge = false, "deny_purge"),
        ("f", |config| config.storage = StorageType::Memory, "not stored in files"),
        ("g", |config| config.discard = DiscardPolicy::Old, "discards old messages"),
        ("h", |config| config.subjects.push("kp.more".to_owned()), "kp.more"),
        ("i", |config| config.max_message_size = 1 << 20, "max_msg_size is set"),
        ("j", |config| config.first_sequence = Some(7), "does not begin at message 1"),
    ];
    for (name, change, told) in changes {
        let error = refused_stream(&cluster, name, change);
        assert!(error.contains(told), "{name}: {error}");
        assert!(error.contains(&format!("nats stream edit KP-{name}")), "{name}: {error}");
    }
    let error = refused_stream(&cluster, "k", |config| config.name = "OTHER".to_owned());
    assert!(error.contains("another stream takes its subject kp.k.log"), "{error}");
    let three = cluster.settings("prod").with_replicas(3);
    let error = refusal(&three).to_string();
    assert!(error.contains("1 replicas instead of 3"), "{error}");
}
