//! The auditor on histories that keep every promise and on histories that break one, and its program.
#![cfg(test)]

#[allow(dead_code, reason = "each test program uses other helpers of these")]
#[path = "../../tests/projections/history.rs"]
mod history;

#[allow(dead_code, reason = "each test program uses other helpers of these")]
#[path = "../../../server/tests/pools/service.rs"]
mod service;

#[path = "auditor/histories.rs"]
mod histories;

#[path = "auditor/fixtures.rs"]
mod fixtures;

#[path = "auditor/tool.rs"]
mod tool;

#[path = "auditor/pinning.rs"]
mod pinning;

#[path = "auditor/identity.rs"]
mod identity;

#[path = "auditor/serving.rs"]
mod serving;

#[path = "auditor/folding.rs"]
mod folding;

#[path = "auditor/pruning.rs"]
mod pruning;

#[path = "auditor/damage.rs"]
mod damage;

#[path = "auditor/auditing.rs"]
mod auditing;

#[path = "auditor/explaining.rs"]
mod explaining;

#[path = "auditor/refusing.rs"]
mod refusing;

#[path = "auditor/choosing.rs"]
mod choosing;

#[path = "auditor/checking.rs"]
mod checking;

#[path = "auditor/naming.rs"]
mod naming;

#[path = "auditor/hiding.rs"]
mod hiding;

#[path = "auditor/restoring.rs"]
mod restoring;

#[path = "auditor/schema.rs"]
mod schema;

#[path = "auditor/suspending.rs"]
mod suspending;
