//! The replicated log on real PostgreSQL servers: its contract, its refusals, and every fault of primary and standbys.
//!
//! The tests need the programs of PostgreSQL, in `KEYPOOL_POSTGRES_BIN` or where Debian has them. Without them they
//! are skipped, unless `KEYPOOL_POSTGRES_REQUIRED` is set.
#![cfg(test)]

mod postgres {
    mod cluster;
    mod connecting;
    mod contract;
    mod failover;
    mod faults;
    mod rate;
    mod reading;
    mod settings;
    mod standbys;
    mod support;
}
