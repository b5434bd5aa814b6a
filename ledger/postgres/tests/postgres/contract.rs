//! The promises of every engine and of the log over it, over a primary and a standby.

use std::sync::Arc;

use keypool_ledger::log::conformance::engines::{
    check_contract, check_refilling, check_two_servers,
};
use tempfile::TempDir;

use super::{cluster::Cluster, support::join};

#[test]
fn a_log_on_two_servers_keeps_the_contract() {
    let Some(cluster) = Cluster::start(2) else { return };
    let dir = TempDir::new().unwrap();
    check_contract(|name| join(&dir.path().join(name), cluster.connect(name)).unwrap());
}

#[test]
fn two_servers_write_one_log_and_a_third_one_follows() {
    let Some(cluster) = Cluster::start(2) else { return };
    let dir = TempDir::new().unwrap();
    check_two_servers(|copy| join(&dir.path().join(copy), cluster.connect("two")).unwrap());
}

#[test]
fn a_server_goes_on_where_it_was_and_a_journal_fills_an_empty_stream() {
    let Some(cluster) = Cluster::start(2) else { return };
    let dir = TempDir::new().unwrap();
    let connect = |name: &str| cluster.connect(name);
    let joined = |copy: &str, name: &str| join(&dir.path().join(copy), connect(name)).unwrap();
    check_refilling(joined, |name| Arc::new(connect(name)), dir.path());
}
