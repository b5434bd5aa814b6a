//! The replicated log on real NATS servers: its contract, its refusals, and every fault of a cluster.
//!
//! The tests need nats-server: `KEYPOOL_NATS_SERVER` is the path of one. Without it they are skipped, unless
//! `KEYPOOL_NATS_REQUIRED` is set.
#![cfg(test)]

mod nats {
    mod cluster;
    mod connecting;
    mod contract;
    mod damage;
    mod faults;
    mod rate;
    mod reading;
    mod settings;
    mod support;
}
