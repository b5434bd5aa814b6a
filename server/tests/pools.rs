//! The shell around the rules on logs in memory and on disk: concurrency, repeats, restarts, faults.
#![cfg(test)]

#[allow(dead_code, reason = "each test program uses other helpers of these")]
#[path = "../../projections/tests/projections/history.rs"]
mod history;

#[allow(dead_code, reason = "each test program uses other helpers of these")]
#[path = "../../projections/tests/projections/steps.rs"]
mod steps;

#[allow(dead_code, reason = "each test program uses other helpers of these")]
#[path = "pools/service.rs"]
mod service;

#[path = "pools/users.rs"]
mod users;

#[path = "pools/pools.rs"]
mod pools;

#[path = "pools/replacing.rs"]
mod replacing;

#[path = "pools/directory.rs"]
mod directory;

#[path = "pools/policy.rs"]
mod policy;

#[path = "pools/suspensions.rs"]
mod suspensions;

#[path = "pools/settings.rs"]
mod settings;

#[path = "pools/clock.rs"]
mod clock;

#[path = "pools/residency.rs"]
mod residency;

#[path = "pools/disk_reads.rs"]
mod disk_reads;

#[path = "pools/delivery.rs"]
mod delivery;

#[path = "pools/mailboxes.rs"]
mod mailboxes;

#[path = "pools/answers.rs"]
mod answers;

#[path = "pools/waiting_list.rs"]
mod waiting_list;

#[path = "pools/paging.rs"]
mod paging;

#[path = "pools/faults.rs"]
mod faults;

#[path = "pools/outside_log.rs"]
mod outside_log;

#[path = "pools/two_servers.rs"]
mod two_servers;

#[path = "pools/simulation.rs"]
mod simulation;
