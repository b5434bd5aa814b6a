//! Three real servers over three real NATS nodes, which are killed and paused in turn under load: nothing that was
//! answered is lost, and a request gets the same answer from any of them.
#![expect(clippy::print_stderr, reason = "a long run says its figures")]

use std::{env, sync::Arc, time::Duration};

use actix_rt::time::sleep;
use keypool_ledger::{Clock, Replication, SystemClock};
use keypool_nats::{NatsReplication, NatsSettings};

use crate::{
    cluster_load::{ClusterWorkers, start_server, start_servers},
    nats_nodes::{NatsNodes, Place, nats_program, signal},
};

/// How many answers of each round must come before its fault and after it.
pub(crate) const ANSWERS: usize = 40;

/// How many rounds of faults a test has: 4, or as many as `KEYPOOL_CHAOS_ROUNDS` says.
pub(crate) fn rounds() -> usize {
    env::var("KEYPOOL_CHAOS_ROUNDS").map_or(4, |rounds| rounds.parse().unwrap())
}

/// Connects to the stream of the test.
pub(crate) async fn connect(addresses: &str) -> Arc<NatsReplication> {
    let settings = NatsSettings::new(addresses, "chaos").unwrap();
    let stream = actix_web::web::block(move || NatsReplication::connect(&settings).unwrap());
    Arc::new(stream.await.unwrap())
}

/// The number of the node that leads the stream; the first if none does.
pub(crate) async fn leader_of(stream: &Arc<NatsReplication>) -> usize {
    let asked = Arc::clone(stream);
    let status = actix_web::web::block(move || asked.status(Duration::from_secs(5))).await.unwrap();
    let leader = status.ok().and_then(|status| status.leader);
    leader.and_then(|name| name.strip_prefix('n')?.parse().ok()).unwrap_or(0)
}

#[actix_web::test]
async fn nothing_that_was_answered_is_lost_when_nodes_and_servers_die() {
    let Some(program) = nats_program() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = NatsNodes::start(&program, dir.path());
    let places = [Place::here(), Place::here(), Place::here()];
    let (data, mut servers) = start_servers(&places, dir.path(), &nodes.addresses);
    let stream = connect(&nodes.addresses).await;
    let workers = ClusterWorkers::start(&servers, Duration::from_secs(20)).await;
    let load = Arc::clone(&workers.load);
    for round in 0..rounds() {
        load.until(ANSWERS).await;
        let begun = SystemClock.monotonic();
        let leader = leader_of(&stream).await;
        let fault =
            ["kill the leader", "kill a server", "pause the leader", "pause a server"][round % 4];
        match round % 4 {
            0 => {
                nodes.kill(leader);
                nodes.run(leader);
            }
            1 => {
                let index = round / 4 % 3;
                servers.remove(index).kill();
                let again = start_server(&places[index], &data[index], &nodes.addresses);
                servers.insert(index, again);
                load.apis.lock().unwrap()[index] = servers[index].api.clone();
            }
            kind => {
                let id = if kind == 2 { nodes.id(leader) } else { servers[round / 4 % 3].id() };
                signal(id, "-STOP");
                sleep(Duration::from_secs(3)).await;
                signal(id, "-CONT");
            }
        }
        load.until(ANSWERS).await;
        let took = SystemClock.monotonic().saturating_sub(begun);
        eprintln!("round {round}: {fault}, {ANSWERS} answers after {took:?}");
    }
    workers.check(servers, &data).await;
}
