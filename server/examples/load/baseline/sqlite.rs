//! SQLite: one table with a status column, and one connection behind a mutex.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use actix_web::web;
use rusqlite::{Connection, params};

use super::{Claim, Given, stock};
use crate::Outcome;

const SCHEMA: &str = "
    CREATE TABLE packages (
        id INTEGER PRIMARY KEY,
        ref BLOB NOT NULL UNIQUE,
        pool TEXT NOT NULL,
        status INTEGER NOT NULL,
        bytes BLOB NOT NULL,
        not_after INTEGER NOT NULL,
        generation INTEGER NOT NULL,
        reservation BLOB,
        holder TEXT,
        group_id BLOB,
        deadline INTEGER
    );
    CREATE INDEX available ON packages (pool, id) WHERE status = 0;
";
const STOCK: &str = "INSERT INTO packages (ref, pool, status, bytes, not_after, generation)
    VALUES (?1, ?2, 0, ?3, ?4, 0)";
const RESERVE: &str = "
    UPDATE packages SET status = 1, generation = generation + 1, reservation = ?2, holder = ?3,
        group_id = ?4, deadline = ?5
    WHERE id = (SELECT id FROM packages WHERE pool = ?1 AND status = 0 ORDER BY id LIMIT 1)
    RETURNING ref, bytes, generation, not_after";
const SPEND: &str = "UPDATE packages SET status = 2
    WHERE ref = ?1 AND reservation = ?2 AND holder = ?3 AND group_id = ?4 AND status = 1";

/// A database in a file.
pub(crate) struct Sqlite {
    connection: Arc<Mutex<Connection>>,
}

impl Sqlite {
    pub(crate) fn create(path: &Path, pools: u64) -> Outcome<Self> {
        let mut connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(SCHEMA)?;
        let load = connection.transaction()?;
        for package in stock(pools) {
            let package = package?;
            let not_after = i64::try_from(package.not_after)?;
            let row = params![package.keypackage_ref, package.pool, package.bytes, not_after];
            load.prepare_cached(STOCK)?.execute(row)?;
        }
        load.commit()?;
        connection.pragma_update(None, "wal_checkpoint", "TRUNCATE")?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)) })
    }

    pub(crate) async fn reserve(&self, claim: Claim) -> Outcome<Given> {
        let reserve = move |connection: &Connection| {
            let deadline = i64::try_from(claim.deadline.as_millis()).unwrap_or(i64::MAX);
            let row = params![
                claim.pool,
                claim.reservation.as_bytes().as_slice(),
                claim.holder,
                claim.group,
                deadline
            ];
            connection.prepare_cached(RESERVE)?.query_row(row, |row| {
                Ok(Given {
                    keypackage_ref: row.get(0)?,
                    bytes: row.get(1)?,
                    generation: row.get(2)?,
                    not_after: row.get::<_, i64>(3)?.unsigned_abs(),
                })
            })
        };
        self.with(reserve).await
    }

    pub(crate) async fn spend(&self, keypackage_ref: Vec<u8>, claim: Claim) -> Outcome<()> {
        let spend = move |connection: &Connection| {
            let reservation = claim.reservation.as_bytes().as_slice();
            let row = params![keypackage_ref, reservation, claim.holder, claim.group];
            connection.prepare_cached(SPEND)?.execute(row)
        };
        if self.with(spend).await? == 1 { Ok(()) } else { Err("not the holder".into()) }
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Outcome<T> {
        let connection = Arc::clone(&self.connection);
        let work = move || work(&connection.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(web::block(work).await??)
    }
}
