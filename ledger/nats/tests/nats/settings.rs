//! The settings: which are refused, and that none shows a password.

use keypool_nats::{NatsCredentials, NatsError, NatsReplication, NatsSettings};

#[test]
fn settings_that_cannot_be_used_are_refused_with_the_next_step() {
    let long = "n".repeat(33);
    for (servers, name, told) in [
        ("", "prod", "no NATS server is named"),
        (" , ", "prod", "no NATS server is named"),
        ("http://a", "prod", "it is no URL of NATS"),
        ("nats://a,ws://b", "prod", "begins with another scheme"),
        ("nats://a:x", "prod", "it is no URL of NATS"),
        ("nats://u:p@a,nats://v:p@b", "prod", "different users"),
        ("nats://", "prod", "cannot be used"),
        ("nats://a", "", "use 1 to 32 letters"),
        ("nats://a", "a.b", "use 1 to 32 letters"),
        ("nats://a", "a b", "use 1 to 32 letters"),
        ("nats://a", "ä", "use 1 to 32 letters"),
        ("nats://a", long.as_str(), "use 1 to 32 letters"),
    ] {
        let error = NatsSettings::new(servers, name).unwrap_err();
        assert!(matches!(error, NatsError::Setting(_)));
        assert!(error.to_string().contains(told), "{servers:?} {name:?}: {error}");
    }
    for replicas in [0, 2, 4, 6] {
        let settings = NatsSettings::new("nats://127.0.0.1:1", "prod").unwrap();
        let error = NatsReplication::connect(&settings.with_replicas(replicas)).unwrap_err();
        assert!(error.to_string().contains("3 or 5 replicas"), "{error}");
    }
}

#[test]
fn no_password_is_shown() {
    let settings =
        NatsSettings::new("nats://u:secret@a.example:4222, tls://u:secret@b.example", "prod")
            .unwrap()
            .with_credentials(NatsCredentials::NkeySeed("nats.nk".into()));
    let shown = format!("{settings:?}");
    assert!(shown.contains("a.example:4222, b.example:4222"), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
    let error = NatsSettings::new("nats://u:secret@a:b:c", "prod").unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
}
