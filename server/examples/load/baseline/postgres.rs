//! PostgreSQL: one table with a status column, `FOR UPDATE SKIP LOCKED`, and a pool of connections.

use std::{path::Path, time::Duration};

use actix_rt::time::sleep;
use deadpool_postgres::{
    Client, Config, ManagerConfig, Pool, PoolConfig, RecyclingMethod, Runtime,
};
use tokio_postgres::NoTls;

use super::{Claim, Given, stock};
use crate::Outcome;

/// How many connections there are.
const CONNECTIONS: usize = 32;
/// How many packages are loaded with one statement.
const CHUNK: usize = 1000;
/// How often the first connection is tried.
const TRIES: usize = 100;

const SCHEMA: &str = "
    CREATE TABLE packages (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        ref bytea NOT NULL UNIQUE,
        pool text NOT NULL,
        status smallint NOT NULL,
        bytes bytea NOT NULL,
        not_after bigint NOT NULL,
        generation integer NOT NULL,
        reservation bytea,
        holder text,
        group_id bytea,
        deadline bigint
    ) WITH (fillfactor = 50);
    CREATE INDEX available ON packages (pool, id) WHERE status = 0;
";
const STOCK: &str = "INSERT INTO packages (ref, pool, status, bytes, not_after, generation)
    SELECT r, p, 0, b, n, 0 FROM unnest($1::bytea[], $2::text[], $3::bytea[], $4::bigint[])
        WITH ORDINALITY AS stock (r, p, b, n, place) ORDER BY place";
const RESERVE: &str = "
    UPDATE packages SET status = 1, generation = generation + 1, reservation = $2, holder = $3,
        group_id = $4, deadline = $5
    WHERE ref = (SELECT ref FROM packages WHERE pool = $1 AND status = 0 ORDER BY id LIMIT 1
        FOR UPDATE SKIP LOCKED)
    RETURNING ref, bytes, generation, not_after";
const SPEND: &str = "UPDATE packages SET status = 2
    WHERE ref = $1 AND reservation = $2 AND holder = $3 AND group_id = $4 AND status = 1";

/// A database that is reached by a socket in a directory.
pub(crate) struct Postgres {
    pool: Pool,
}

impl Postgres {
    pub(crate) async fn connect(dir: &Path, pools: u64) -> Outcome<Self> {
        let config = Config {
            host: Some(dir.display().to_string()),
            user: Some("postgres".to_owned()),
            dbname: Some("postgres".to_owned()),
            manager: Some(ManagerConfig { recycling_method: RecyclingMethod::Fast }),
            pool: Some(PoolConfig::new(CONNECTIONS)),
            ..Config::default()
        };
        let pool = config.create_pool(Some(Runtime::Tokio1), NoTls)?;
        let client = first(&pool).await?;
        client.batch_execute(SCHEMA).await?;
        let packages: Vec<_> = stock(pools).collect::<Outcome<_>>()?;
        for chunk in packages.chunks(CHUNK) {
            let refs: Vec<&[u8]> = chunk.iter().map(|one| one.keypackage_ref.as_slice()).collect();
            let pools: Vec<&str> = chunk.iter().map(|one| one.pool.as_str()).collect();
            let bytes: Vec<&[u8]> = chunk.iter().map(|one| one.bytes.as_slice()).collect();
            let ends = chunk.iter().map(|one| i64::try_from(one.not_after));
            let ends: Vec<i64> = ends.collect::<Result<_, _>>()?;
            client.execute(STOCK, &[&refs, &pools, &bytes, &ends]).await?;
        }
        client.batch_execute("VACUUM ANALYZE packages").await?;
        client.batch_execute("CHECKPOINT").await?;
        drop(client);
        Ok(Self { pool })
    }

    pub(crate) async fn reserve(&self, claim: Claim) -> Outcome<Given> {
        let client = self.pool.get().await?;
        let statement = client.prepare_cached(RESERVE).await?;
        let deadline = i64::try_from(claim.deadline.as_millis())?;
        let reservation = claim.reservation.as_bytes().as_slice();
        let Claim { pool, holder, group, .. } = &claim;
        let row =
            client.query_one(&statement, &[pool, &reservation, holder, group, &deadline]).await?;
        Ok(Given {
            keypackage_ref: row.try_get(0)?,
            bytes: row.try_get(1)?,
            generation: row.try_get::<_, i32>(2)?.unsigned_abs(),
            not_after: row.try_get::<_, i64>(3)?.unsigned_abs(),
        })
    }

    pub(crate) async fn spend(&self, keypackage_ref: &[u8], claim: Claim) -> Outcome<()> {
        let client = self.pool.get().await?;
        let statement = client.prepare_cached(SPEND).await?;
        let reservation = claim.reservation.as_bytes().as_slice();
        let Claim { holder, group, .. } = &claim;
        let changed =
            client.execute(&statement, &[&keypackage_ref, &reservation, holder, group]).await?;
        if changed == 1 { Ok(()) } else { Err("not the holder".into()) }
    }
}

/// The first connection: the socket is there a moment before the database takes requests.
async fn first(pool: &Pool) -> Outcome<Client> {
    for _ in 0..TRIES {
        if let Ok(client) = pool.get().await {
            return Ok(client);
        }
        sleep(Duration::from_millis(100)).await;
    }
    Ok(pool.get().await?)
}
