//! Redis: a list of available packages for each pool, a hash for each package, and a script that moves a
//! package from one to the other. The script's effects are in the append-only file before the answer.

use std::path::Path;

use redis::{Client, Pipeline, Script, aio::MultiplexedConnection};

use super::{Claim, Given, Stocked, stock};
use crate::Outcome;

/// How many packages are loaded with one round trip.
const CHUNK: usize = 1000;

const RESERVE: &str = "
    local ref = redis.call('LPOP', 'pool:' .. KEYS[1])
    if not ref then return redis.error_reply('EXHAUSTED') end
    local package = 'package:' .. ref
    local generation = redis.call('HINCRBY', package, 'generation', 1)
    redis.call('HSET', package, 'status', 1, 'reservation', ARGV[1], 'holder', ARGV[2],
        'group', ARGV[3], 'deadline', ARGV[4])
    local kept = redis.call('HMGET', package, 'bytes', 'not_after')
    return { ref, kept[1], generation, tonumber(kept[2]) }";
const SPEND: &str = "
    local package = 'package:' .. KEYS[1]
    local kept = redis.call('HMGET', package, 'status', 'reservation', 'holder', 'group')
    if kept[1] ~= '1' or kept[2] ~= ARGV[1] or kept[3] ~= ARGV[2] or kept[4] ~= ARGV[3] then
        return 0
    end
    redis.call('HSET', package, 'status', 2)
    return 1";

/// A Redis that is reached by a socket in a directory. One connection carries all requests.
pub(crate) struct Redis {
    connection: MultiplexedConnection,
    reserve: Script,
    spend: Script,
}

impl Redis {
    pub(crate) async fn connect(dir: &Path, pools: u64) -> Outcome<Self> {
        let address = format!("redis+unix://{}", dir.join("redis.sock").display());
        let client = Client::open(address)?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd("FLUSHALL").exec_async(&mut connection).await?;
        let packages: Vec<Stocked> = stock(pools).collect::<Outcome<_>>()?;
        for chunk in packages.chunks(CHUNK) {
            let mut load = Pipeline::new();
            for package in chunk {
                let key = [b"package:", package.keypackage_ref.as_slice()].concat();
                load.hset(&key, "status", 0).ignore();
                load.hset(&key, "bytes", &package.bytes).ignore();
                load.hset(&key, "not_after", package.not_after).ignore();
                let list = format!("pool:{}", package.pool);
                load.rpush(list, &package.keypackage_ref).ignore();
            }
            load.exec_async(&mut connection).await?;
        }
        Ok(Self { connection, reserve: Script::new(RESERVE), spend: Script::new(SPEND) })
    }

    pub(crate) async fn reserve(&self, claim: Claim) -> Outcome<Given> {
        let mut connection = self.connection.clone();
        let mut call = self.reserve.key(&claim.pool);
        call.arg(claim.reservation.as_bytes().as_slice()).arg(&claim.holder).arg(&claim.group);
        call.arg(claim.deadline.as_millis());
        let (keypackage_ref, bytes, generation, not_after) =
            call.invoke_async(&mut connection).await?;
        Ok(Given { keypackage_ref, bytes, generation, not_after })
    }

    pub(crate) async fn spend(&self, keypackage_ref: &[u8], claim: Claim) -> Outcome<()> {
        let mut connection = self.connection.clone();
        let mut call = self.spend.key(keypackage_ref);
        call.arg(claim.reservation.as_bytes().as_slice()).arg(&claim.holder).arg(&claim.group);
        let spent: u64 = call.invoke_async(&mut connection).await?;
        if spent == 1 { Ok(()) } else { Err("not the holder".into()) }
    }
}
