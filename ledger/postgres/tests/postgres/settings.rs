//! Settings that cannot be used, and passwords that are not shown.

use keypool_postgres::{PostgresError, PostgresReplication, PostgresSettings};

fn refusal(servers: &str, name: &str) -> String {
    let error = PostgresSettings::new(servers, name).unwrap_err();
    assert!(matches!(error, PostgresError::Setting(_)), "{error:?}");
    error.to_string()
}

#[test]
fn settings_that_cannot_be_used_are_refused() {
    for (servers, told) in [
        ("", "no PostgreSQL server is named"),
        ("postgresql:///keypool", "no PostgreSQL server is named"),
        ("mysql://a/keypool", "cannot be used"),
        ("postgresql://a:notaport/keypool", "cannot be used"),
        ("postgresql://a/keypool?sslrootcert=x", "cannot be used"),
        ("postgresql://a/keypool?target_session_attrs=read-only", "written on the primary"),
        ("host=a hostaddr=10.0.0.1", "without `hostaddr`"),
        ("host=a,b,c port=1,2", "one port for all"),
    ] {
        let why = refusal(servers, "prod");
        assert!(why.contains(told), "{servers}: {why}");
    }
    let long = "n".repeat(33);
    for name in ["", "a.b", "a b", "\"", "ü", long.as_str()] {
        assert!(refusal("postgresql://a/b", name).contains("letters, digits"), "{name}");
    }
    let nine = PostgresSettings::new("postgresql://a/b", "prod").unwrap().with_standbys(9);
    let error = PostgresReplication::connect(&nine).unwrap_err();
    assert!(error.to_string().contains("1 to 8 synchronous standbys"), "{error}");
}

#[test]
fn no_password_is_shown() {
    let settings =
        PostgresSettings::new("postgresql://u:secret@a.example,b.example:5433/keypool", "prod")
            .unwrap();
    let shown = format!("{settings:?}");
    assert!(shown.contains("a.example:5432, b.example:5433"), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
    for servers in [
        "postgresql://u:sec@secret@a/b",
        "postgresql://u:secret@a:secret/b",
        "password=secret secret",
        "host=a secret=secret",
    ] {
        if let Err(error) = PostgresSettings::new(servers, "prod") {
            assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        }
    }
}
