//! Three real servers over three real PostgreSQL servers: a standby, a server and the primary die under load, and
//! nothing that was answered is lost.
#![expect(clippy::print_stderr, reason = "a long run says its figures")]

#[expect(dead_code, reason = "the adapter's own tests use all of it")]
#[path = "../../../ledger/postgres/tests/postgres/cluster.rs"]
mod nodes;

mod support {
    pub(super) use keypool_ledger::log::conformance::servers::{DEADLINE, eventually};
}

use std::{sync::Arc, time::Duration};

use keypool_ledger::{Clock, SystemClock};

use self::nodes::Cluster;
use crate::{
    cluster_load::{ClusterWorkers, start_server, start_servers},
    nats_nodes::Place,
};

/// How many answers must come before each fault and after it.
const ANSWERS: usize = 40;

#[actix_web::test]
async fn nothing_that_was_answered_is_lost_when_a_standby_takes_over() {
    let Some(mut nodes) = Cluster::start(3) else { return };
    let address = Cluster::address_of(&[0, 1, 2].map(|index| nodes.port(index)));
    let dir = tempfile::tempdir().unwrap();
    let places = [Place::here(), Place::here(), Place::here()];
    let (data, mut servers) = start_servers(&places, dir.path(), &address);
    let workers = ClusterWorkers::start(&servers, Duration::from_secs(20)).await;
    let load = Arc::clone(&workers.load);
    for fault in ["kill a standby", "kill a server", "kill the primary"] {
        load.until(ANSWERS).await;
        let begun = SystemClock.monotonic();
        match fault {
            "kill a standby" => {
                nodes.kill(2);
                load.until(ANSWERS).await;
                nodes.run(2);
                nodes.wait_for_standbys(0, 2);
            }
            "kill a server" => {
                servers.remove(1).kill();
                servers.insert(1, start_server(&places[1], &data[1], &address));
                load.apis.lock().unwrap()[1] = servers[1].api.clone();
            }
            _ => {
                nodes.kill(0);
                let next = nodes.most_advanced(&[1, 2]);
                nodes.promote(next);
                nodes.follow(3 - next, next);
                nodes.rebuild(0, next);
            }
        }
        load.until(ANSWERS).await;
        let took = SystemClock.monotonic().saturating_sub(begun);
        eprintln!("{fault}: {ANSWERS} answers after {took:?}");
    }
    workers.check(servers, &data).await;
}
