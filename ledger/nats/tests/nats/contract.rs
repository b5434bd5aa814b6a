//! The promises of every engine and of the log over it, over three nodes.

use std::sync::Arc;

use keypool_ledger::log::conformance::engines::{
    check_contract, check_refilling, check_two_servers,
};
use tempfile::TempDir;

use super::{
    cluster::{Cluster, state_of, wait_until_whole},
    support::join,
};

#[test]
fn a_log_on_three_nodes_keeps_the_contract() {
    let Some(cluster) = Cluster::start(3) else { return };
    let dir = TempDir::new().unwrap();
    check_contract(|name| join(&dir.path().join(name), cluster.connect(name)).unwrap());
}

#[test]
fn two_servers_write_one_log_and_a_third_one_follows() {
    let Some(cluster) = Cluster::start(3) else { return };
    let dir = TempDir::new().unwrap();
    check_two_servers(|copy| join(&dir.path().join(copy), cluster.connect("two")).unwrap());
    let stream = cluster.connect("two");
    wait_until_whole(&stream);
    let found = state_of(&stream);
    assert_eq!((found.last, found.lost, found.replicas), (21, 0, 3));
}

#[test]
fn a_server_goes_on_where_it_was_and_a_journal_fills_an_empty_stream() {
    let Some(cluster) = Cluster::start(3) else { return };
    let dir = TempDir::new().unwrap();
    let connect = |name: &str| cluster.connect(name);
    let joined = |copy: &str, name: &str| join(&dir.path().join(copy), connect(name)).unwrap();
    check_refilling(joined, |name| Arc::new(connect(name)), dir.path());
}
