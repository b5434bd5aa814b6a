//! Connecting: passwords, certificates, and the servers and tables that are refused.

use std::{error::Error, time::Duration};

use keypool_ledger::{PublishOutcome, Replication};
use keypool_postgres::{PostgresError, PostgresReplication, PostgresSettings, PostgresTls};

use super::{
    cluster::Cluster,
    support::{DEADLINE, written},
};

/// Patience with servers that do not answer.
const SHORT: Duration = Duration::from_millis(500);

fn is_written(stream: &PostgresReplication) -> bool {
    let last = stream.last().unwrap();
    matches!(stream.publish(last, b"frame"), PublishOutcome::Written)
}

/// The reason for which a server is refused, as one line.
fn refusal(settings: &PostgresSettings) -> (PostgresError, String) {
    let error = PostgresReplication::connect(settings).unwrap_err();
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line = format!("{line}: {cause}");
        source = cause.source();
    }
    (error, line)
}

/// The reason why a server or its tables are not fit.
fn unfit(settings: &PostgresSettings) -> String {
    let (error, line) = refusal(settings);
    assert!(matches!(error, PostgresError::Unfit(_)), "{error:?}");
    line
}

/// Settings for the first server, with a role and its password before the host.
fn as_role(cluster: &Cluster, role: &str) -> PostgresSettings {
    let address = format!("postgresql://{role}@localhost:{}/postgres", cluster.port(0));
    let settings = PostgresSettings::new(&address, "prod").unwrap();
    settings.with_standbys(0).with_patience(DEADLINE)
}

#[test]
fn a_role_signs_in_with_its_password_and_needs_its_rights() {
    let Some(mut cluster) = Cluster::start(1) else { return };
    cluster.sql(0, "CREATE ROLE keypool LOGIN PASSWORD 'r@ght'");
    cluster.sql(0, "CREATE ROLE other LOGIN PASSWORD 'r@ght'");
    let why = unfit(&as_role(&cluster, "keypool"));
    assert!(why.contains("CREATE SCHEMA \"keypool_prod\" AUTHORIZATION"), "{why}");
    cluster.sql(0, "CREATE SCHEMA keypool_prod AUTHORIZATION keypool");
    cluster.write(
        "n0/pg_hba.conf",
        "host all postgres 127.0.0.1/32 trust\nhost postgres keypool,other 127.0.0.1/32 scram-sha-256\n",
    );
    cluster.kill(0);
    cluster.run(0);
    let stream = PostgresReplication::connect(&as_role(&cluster, "keypool:r%40ght")).unwrap();
    assert!(is_written(&stream));
    let password = cluster.write("password", "r@ght\n");
    let filed = |path| as_role(&cluster, "keypool").with_password_file(path);
    assert!(is_written(&PostgresReplication::connect(&filed(password.clone())).unwrap()));
    let why = unfit(&as_role(&cluster, "other:r%40ght"));
    assert!(why.contains("GRANT USAGE ON SCHEMA \"keypool_prod\" TO \"other\""), "{why}");
    for role in ["keypool:wrong", "nobody"] {
        let (error, line) = refusal(&as_role(&cluster, role));
        assert!(matches!(error, PostgresError::Refused { .. }), "{error:?}");
        assert!(!format!("{line} {error:?}").contains("wrong"), "{error:?}");
    }
    let (error, _) = refusal(&filed(password.with_extension("none")));
    assert!(matches!(error, PostgresError::File { .. }), "{error:?}");
    let none = format!("postgresql://postgres@localhost:{}/none", cluster.port(0));
    let why = unfit(&PostgresSettings::new(&none, "prod").unwrap().with_patience(DEADLINE));
    assert!(why.contains("createdb"), "{why}");
}

#[test]
fn a_server_verifies_the_certificate_of_postgresql() {
    let Some(mut cluster) = Cluster::start(1) else { return };
    let plain = as_role(&cluster, "postgres");
    let required = |root: &str| {
        let root_certificates = Some(cluster.files(0).parent().unwrap().join(root));
        let tls = PostgresTls { is_required: true, root_certificates, client_certificate: None };
        plain.clone().with_tls(tls)
    };
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = cluster.write("cert.pem", &made.cert.pem());
    let key = cluster.write("key.pem", &made.signing_key.serialize_pem());
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    cluster.write("other.pem", &other.cert.pem());
    let (error, _) = refusal(&required("cert.pem").with_patience(SHORT));
    assert!(matches!(error, PostgresError::Unreachable { .. }), "without TLS: {error:?}");
    let trusting = required("cert.pem");
    let suspicious = required("other.pem").with_patience(SHORT);
    let none = required("none.pem");
    let lines = format!(
        "ssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'",
        certificate.display(),
        key.display()
    );
    cluster.configure(0, &lines);
    cluster.write("n0/pg_hba.conf", "host all all 127.0.0.1/32 trust\n");
    cluster.kill(0);
    cluster.run(0);
    let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND application_name = \
                     'keypool-server'";
    let stream = PostgresReplication::connect(&trusting).unwrap();
    assert!(is_written(&stream));
    assert_eq!(cluster.sql(0, encrypted), "1");
    let (error, line) = refusal(&suspicious);
    assert!(matches!(error, PostgresError::Unreachable { .. }), "{error:?}");
    assert!(line.contains("certificate"), "{line}");
    let (error, _) = refusal(&none);
    assert!(matches!(error, PostgresError::File { .. }), "{error:?}");
}

#[test]
fn servers_that_may_lose_acknowledged_events_are_refused() {
    let Some(mut cluster) = Cluster::start(1) else { return };
    let settings = cluster.settings("prod");
    let why = unfit(&settings.clone().with_standbys(1));
    assert!(why.contains("waits for 0 synchronous standbys, and 1 must confirm"), "{why}");
    assert!(why.contains("set synchronous_standby_names"), "{why}");
    cluster.configure(0, "synchronous_standby_names = 'ANY 1 (*)'");
    cluster.kill(0);
    cluster.run(0);
    let why = unfit(&settings.clone().with_standbys(2));
    assert!(why.contains("waits for 1 synchronous standbys, and 2 must confirm"), "{why}");
    let (error, line) = refusal(&settings.clone().with_standbys(1).with_patience(SHORT * 6));
    assert!(matches!(error, PostgresError::Unreachable { .. }), "{error:?}");
    assert!(line.contains("its synchronous standbys do not confirm"), "{line}");
    for (lines, told) in [
        ("fsync = off", "`fsync = off`"),
        ("fsync = on\nfull_page_writes = off", "`full_page_writes = off`"),
    ] {
        cluster.configure(0, lines);
        cluster.kill(0);
        cluster.run(0);
        let why = unfit(&settings);
        assert!(why.contains(told) && why.contains("postgresql.conf"), "{why}");
    }
    let none = PostgresSettings::new("postgresql://127.0.0.1:1/x", "prod").unwrap();
    let (_, line) = refusal(&none.with_patience(SHORT));
    assert!(line.contains("none of the PostgreSQL servers at 127.0.0.1:1"), "{line}");
}

#[test]
fn a_standby_is_not_written_to_and_a_role_cannot_turn_the_wait_off() {
    let Some(cluster) = Cluster::start(2) else { return };
    cluster.sql(0, "ALTER ROLE postgres SET synchronous_commit = off");
    cluster.sql(0, "ALTER ROLE postgres SET statement_timeout = '1s'");
    cluster.sql(0, "ALTER ROLE postgres SET default_transaction_read_only = on");
    written(&cluster.connect("prod"), 0, 10);
    let (error, line) = refusal(&cluster.only(1, "prod").with_patience(SHORT));
    assert!(matches!(error, PostgresError::Unreachable { .. }), "{error:?}");
    assert!(line.contains("it is a standby"), "{line}");
}

#[test]
fn a_stream_is_of_one_ledger() {
    let Some(cluster) = Cluster::start(1) else { return };
    let of = |key: &str| cluster.settings("prod").with_ledger(key.to_owned());
    let connect = |settings: &PostgresSettings| PostgresReplication::connect(settings).unwrap();
    assert!(is_written(&connect(&cluster.settings("prod"))));
    assert!(is_written(&connect(&of("one+1"))));
    drop(connect(&of("one+1")));
    drop(connect(&cluster.settings("prod")));
    let why = unfit(&of("other+2"));
    assert!(why.contains("is of the ledger one+1, and this server's is other+2"), "{why}");
}

#[test]
fn tables_that_are_not_a_log_are_refused() {
    let Some(cluster) = Cluster::start(1) else { return };
    let changes = [
        ("a", "ALTER TABLE keypool_a.frames ADD COLUMN more int", "frame bytea not null, more int"),
        ("b", "ALTER TABLE keypool_b.frames SET UNLOGGED", "r u false"),
        ("c", "DROP TRIGGER keep ON keypool_c.frames", "not that of a log"),
        ("d", "ALTER TABLE keypool_d.frames DISABLE TRIGGER keep", "keep D"),
        ("e", "ALTER TABLE keypool_e.frames DROP CONSTRAINT frames_pkey", "not that of a log"),
        ("f", "DROP TABLE keypool_f.frames", "keypool_f.frames"),
        ("g", "ALTER TABLE keypool_g.head ALTER sequence TYPE int", "sequence integer"),
        ("h", "DELETE FROM keypool_h.head", "have lost rows"),
        ("i", "UPDATE keypool_i.head SET sequence = 7", "have lost rows"),
        (
            "j",
            "ALTER TABLE keypool_j.frames DISABLE TRIGGER keep; DELETE FROM keypool_j.frames WHERE sequence = 1; \
             ALTER TABLE keypool_j.frames ENABLE TRIGGER keep",
            "have lost rows",
        ),
    ];
    for (name, change, told) in changes {
        let stream = cluster.connect(name);
        written(&stream, 0, 10);
        written(&stream, 1, 10);
        drop(stream);
        cluster.sql(0, change);
        let why = unfit(&cluster.settings(name));
        assert!(why.contains(told), "{name}: {why}");
    }
    let stream = cluster.connect("kept");
    written(&stream, 0, 10);
    for change in ["DELETE FROM", "TRUNCATE", "UPDATE"] {
        let rest = if change == "UPDATE" { " SET sequence = 9" } else { "" };
        let asked = format!("{change} keypool_kept.frames{rest}");
        assert_eq!(cluster.try_sql(0, &asked), None, "{change}");
    }
    assert!(is_written(&stream));
}
