//! Connecting: finds the primary among the servers, and checks that it is fit and its standbys confirm.

use std::time::Duration;

use keypool_ledger::log::BoxError;
use tokio::{task::JoinHandle, time::timeout};
use tokio_postgres::{Client, Config, error::SqlState};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    PostgresError, PostgresSettings,
    error::error_line,
    fitness::ServerFacts,
    schema::{self, SchemaFault},
    session::{BARRIER, CONFIRM_WAIT, PostgresSession, ServerMessages, drive},
    tls,
};

/// How long a server may take for all questions of a connect.
const SERVER_WAIT: Duration = Duration::from_secs(10);
/// How long a request to cancel may take.
const CANCEL_WAIT: Duration = Duration::from_secs(2);

/// Settings of a session, which the role or the database may have set otherwise.
///
/// Nothing ends a wait for standbys but a standby. A write that waits for another server's ends early instead.
const SESSION: &str = "
SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN ('statement_timeout',
  'idle_in_transaction_session_timeout', 'idle_session_timeout', 'transaction_timeout');
SELECT set_config('synchronous_commit', CASE current_setting('synchronous_commit')
  WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false);
SET lock_timeout = '1500ms'; SET default_transaction_isolation = 'read committed';
SET default_transaction_read_only = off; SET client_min_messages = warning; SET search_path = pg_catalog";

/// A session, and the end of its connection.
pub(crate) type Connected = (PostgresSession, JoinHandle<()>);

/// Connects to the first server that is a primary whose standbys confirm.
///
/// A primary that came back after a standby was promoted has no standby that confirms, and is passed over so.
pub(crate) async fn connect(settings: &PostgresSettings) -> Result<Connected, PostgresError> {
    let tls = tls::connector(settings)?;
    let (mut refusal, mut faults) = (None, Vec::new());
    for (server, config) in settings.servers()? {
        let opening = open(settings, (&server, &config), &tls);
        let opened = timeout(SERVER_WAIT, opening).await;
        match opened.unwrap_or_else(|elapsed| Err(unreachable(&server, elapsed))) {
            Ok(connected) => {
                tracing::info!(server, "connected to the primary of PostgreSQL");
                return Ok(connected);
            }
            Err(PostgresError::Unreachable { servers, source }) => {
                faults.push(format!("{servers}: {}", error_line(&*source)));
            }
            Err(other) => refusal = refusal.or(Some(other)),
        }
    }
    let source = faults.join("; ").into();
    Err(refusal.unwrap_or(PostgresError::Unreachable { servers: settings.hosts(), source }))
}

/// Connects to one server, and checks it.
async fn open(
    settings: &PostgresSettings,
    (server, config): (&str, &Config),
    tls: &MakeRustlsConnect,
) -> Result<Connected, PostgresError> {
    let failed = |error| explain(settings, server, error);
    let (mut client, connection) = config.connect(tls.clone()).await.map_err(failed)?;
    let (messages, driver) = drive(connection);
    client.batch_execute(SESSION).await.map_err(failed)?;
    let facts = ServerFacts::read(&client).await.map_err(failed)?;
    if facts.is_standby {
        return Err(unreachable(server, "it is a standby"));
    }
    facts.check(server, settings.standbys).map_err(PostgresError::Unfit)?;
    confirm(&client, &messages, (server, tls)).await?;
    schema::join(&mut client, settings).await.map_err(|fault| match fault {
        SchemaFault::Query(error) => failed(error),
        SchemaFault::Unfit(why) => PostgresError::Unfit(why),
    })?;
    let abort = driver.abort_handle();
    let schema = settings.schema();
    let log = (server, schema.as_str(), settings.standbys);
    let session = PostgresSession::new(client, (messages, abort), log).await;
    Ok((session.map_err(failed)?, driver))
}

/// Waits until the standbys confirm a barrier. One that they do not confirm is cancelled, so that a server whose
/// standbys are gone is not left with one more connection each time.
async fn confirm(
    client: &Client,
    messages: &ServerMessages,
    (server, tls): (&str, &MakeRustlsConnect),
) -> Result<(), PostgresError> {
    let silent =
        "its synchronous standbys do not confirm: start them, and look at pg_stat_replication";
    let warnings = messages.warnings();
    match timeout(CONFIRM_WAIT, client.query_one(BARRIER, &[])).await {
        Ok(Ok(_)) if messages.warnings() == warnings => Ok(()),
        Ok(Ok(_)) => Err(unreachable(server, silent)),
        Ok(Err(error)) => Err(unreachable(server, error)),
        Err(_) => {
            let cancelling = client.cancel_token();
            drop(timeout(CANCEL_WAIT, cancelling.cancel_query(tls.clone())).await);
            Err(unreachable(server, silent))
        }
    }
}

fn unreachable(server: &str, error: impl Into<BoxError>) -> PostgresError {
    PostgresError::Unreachable { servers: server.to_owned(), source: error.into() }
}

/// Tells errors that stay from those that may pass.
fn explain(
    settings: &PostgresSettings,
    server: &str,
    error: tokio_postgres::Error,
) -> PostgresError {
    let Some(code) = error.code() else { return unreachable(server, error) };
    let is_refusal =
        [SqlState::INVALID_PASSWORD, SqlState::INVALID_AUTHORIZATION_SPECIFICATION].contains(code);
    if is_refusal {
        return PostgresError::Refused { server: server.to_owned(), source: error.into() };
    }
    let told = error_line(&error);
    match *code {
        SqlState::INVALID_CATALOG_NAME => PostgresError::Unfit(format!(
            "the PostgreSQL server at {server} has no such database ({told}): create it with `createdb --owner=ROLE NAME`"
        )),
        SqlState::INSUFFICIENT_PRIVILEGE => PostgresError::Unfit(format!(
            "the role may not do on {server} what the log {} needs ({told}): grant it",
            settings.schema()
        )),
        _ => unreachable(server, error),
    }
}
