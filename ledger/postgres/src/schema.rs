//! The tables of a log: one row for each frame, and one row that tells where the stream ends.

use tokio_postgres::{Client, error::SqlState};

use crate::PostgresSettings;

/// The columns, key, kind and trigger of the two tables, as [`SHAPE`] reads them.
const FRAMES_SHAPE: &str =
    "r p false: sequence bigint not null, frame bytea not null; PRIMARY KEY (sequence); keep O";
const HEAD_SHAPE: &str =
    "r p false: one boolean not null, sequence bigint not null, ledger text; PRIMARY KEY (one);";

/// Reads the shape of a table.
const SHAPE: &str = "
SELECT relkind::text || ' ' || relpersistence::text || ' ' || (relhasrules OR relrowsecurity)::text || ': '
  || (SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod)
        || CASE WHEN attnotnull THEN ' not null' ELSE '' END, ', ' ORDER BY attnum)
      FROM pg_attribute WHERE attrelid = c.oid AND 0 < attnum AND NOT attisdropped) || '; '
  || coalesce((SELECT string_agg(pg_get_constraintdef(oid), ', ' ORDER BY conname)
      FROM pg_constraint WHERE conrelid = c.oid AND contype <> 'n'), '') || ';'
  || coalesce((SELECT ' ' || string_agg(tgname || ' ' || tgenabled::text, ', ' ORDER BY tgname)
      FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal), '')
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = $1 AND relname = $2";

/// The reason why tables cannot be used.
#[derive(Debug)]
pub(crate) enum SchemaFault {
    /// The server has answered with an error, or not at all.
    Query(tokio_postgres::Error),
    /// They are not fit, in words.
    Unfit(String),
}

impl From<tokio_postgres::Error> for SchemaFault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Query(error)
    }
}

/// Creates the tables if their schema is not there, and checks them.
pub(crate) async fn join(
    client: &mut Client,
    settings: &PostgresSettings,
) -> Result<(), SchemaFault> {
    let schema = settings.schema();
    let there = "SELECT 1 FROM pg_namespace WHERE nspname = $1";
    if client.query_opt(there, &[&schema]).await?.is_none()
        || shape(client, &schema, "head").await?.is_none()
    {
        create(client, &schema).await?;
    }
    for (table, expected) in [("frames", FRAMES_SHAPE), ("head", HEAD_SHAPE)] {
        let found = shape(client, &schema, table).await?;
        if found.as_deref() != Some(expected) {
            return Err(SchemaFault::Unfit(format!(
                "the table {schema}.{table} of the database is not that of a log: it is {:?} instead of {expected:?}; \
                 use another name for the cluster, or have a schema of another origin renamed",
                found.unwrap_or_default()
            )));
        }
    }
    check_privileges(client, &schema).await?;
    check_ends(client, &schema).await?;
    match &settings.ledger {
        Some(ledger) => note_ledger(client, &schema, ledger).await,
        None => Ok(()),
    }
}

async fn shape(
    client: &Client,
    schema: &str,
    table: &str,
) -> Result<Option<String>, tokio_postgres::Error> {
    let row = client.query_opt(SHAPE, &[&schema, &table]).await?;
    row.map(|row| row.try_get(0)).transpose()
}

/// Creates the tables, unless another server is faster. The lock is released with the transaction.
async fn create(client: &mut Client, schema: &str) -> Result<(), SchemaFault> {
    let created = try_create(client, schema).await;
    created.map_err(|error| match error.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => SchemaFault::Unfit(format!(
            "the role may not create the schema {schema} in the database: run `CREATE SCHEMA \"{schema}\" AUTHORIZATION \
             …` with the role's name as the database's owner"
        )),
        _ => error.into(),
    })
}

async fn try_create(client: &mut Client, schema: &str) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    transaction.execute("SELECT pg_advisory_xact_lock(hashtext($1))", &[&schema]).await?;
    let head = "SELECT 1 FROM pg_tables WHERE schemaname = $1 AND tablename = 'head'";
    if transaction.query_opt(head, &[&schema]).await?.is_some() {
        return transaction.rollback().await;
    }
    let there = "SELECT 1 FROM pg_namespace WHERE nspname = $1";
    if transaction.query_opt(there, &[&schema]).await?.is_none() {
        transaction.batch_execute(&format!("CREATE SCHEMA \"{schema}\"")).await?;
    }
    // Frames hardly compress, so no time is spent on it.
    let tables = format!(
        "CREATE TABLE \"{schema}\".frames (sequence bigint PRIMARY KEY, frame bytea NOT NULL);
         ALTER TABLE \"{schema}\".frames ALTER COLUMN frame SET STORAGE EXTERNAL;
         CREATE FUNCTION \"{schema}\".keep() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN RAISE EXCEPTION 'the frames of keypool are never changed or removed'; END $$;
         CREATE TRIGGER keep BEFORE UPDATE OR DELETE OR TRUNCATE ON \"{schema}\".frames
           FOR EACH STATEMENT EXECUTE FUNCTION \"{schema}\".keep();
         CREATE TABLE \"{schema}\".head (one boolean PRIMARY KEY, sequence bigint NOT NULL, ledger text)
           WITH (fillfactor = 10);
         INSERT INTO \"{schema}\".head VALUES (true, 0, NULL);
         COMMENT ON SCHEMA \"{schema}\" IS 'the log of keypool; never change or truncate it'"
    );
    transaction.batch_execute(&tables).await?;
    transaction.commit().await
}

async fn check_privileges(client: &Client, schema: &str) -> Result<(), SchemaFault> {
    let asked = "SELECT has_schema_privilege($1, 'USAGE') AND has_table_privilege($2, 'SELECT') \
                 AND has_table_privilege($2, 'INSERT') AND has_table_privilege($3, 'SELECT') \
                 AND has_table_privilege($3, 'UPDATE'), current_user::text";
    let table = |name: &str| format!("\"{schema}\".{name}");
    let row = client.query_one(asked, &[&schema, &table("frames"), &table("head")]).await?;
    if row.try_get::<_, bool>(0)? {
        return Ok(());
    }
    let role: String = row.try_get(1)?;
    Err(SchemaFault::Unfit(format!(
        "the role {role} may not use the tables of the log: run `GRANT USAGE ON SCHEMA \"{schema}\" TO \"{role}\"; GRANT \
         SELECT, INSERT ON \"{schema}\".frames TO \"{role}\"; GRANT SELECT, UPDATE ON \"{schema}\".head TO \"{role}\"` as \
         their owner"
    )))
}

/// Checks that the frames begin at 1 and end where the head says. Missing ones between are noticed by readers.
async fn check_ends(client: &Client, schema: &str) -> Result<(), SchemaFault> {
    let asked = format!(
        "SELECT h.sequence, coalesce((SELECT min(sequence) FROM \"{schema}\".frames), 1), \
         coalesce((SELECT max(sequence) FROM \"{schema}\".frames), 0) FROM \"{schema}\".head h"
    );
    let rows = client.query(&asked, &[]).await?;
    let ends = match rows.as_slice() {
        [row] => Some((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)),
        _ => None,
    };
    if let Some((head, first, last)) = ends
        && (head, 1_i64) == (last, first)
    {
        let _: i64 = head;
        return Ok(());
    }
    Err(SchemaFault::Unfit(format!(
        "the tables of {schema} have lost rows: the frames and the head do not end alike ({ends:?}); publish the journal \
         of a keypool-server into a database or under a name that is new"
    )))
}

/// Notes the ledger's key if none is noted, and compares it otherwise.
async fn note_ledger(client: &Client, schema: &str, own: &str) -> Result<(), SchemaFault> {
    let read = format!("SELECT ledger FROM \"{schema}\".head");
    let noted = |row: tokio_postgres::Row| row.try_get::<_, Option<String>>(0);
    if noted(client.query_one(&read, &[]).await?)?.is_none() {
        let note = format!("UPDATE \"{schema}\".head SET ledger = $1 WHERE ledger IS NULL");
        client.execute(&note, &[&own]).await?;
    }
    match noted(client.query_one(&read, &[]).await?)? {
        Some(noted) if noted != own => Err(SchemaFault::Unfit(format!(
            "the log {schema} in the database is of the ledger {noted}, and this server's is {own}: begin with a backup \
             of a server of that cluster, or use another name for the cluster"
        ))),
        _ => Ok(()),
    }
}
