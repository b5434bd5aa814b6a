//! The rules of a pool and the shell around them, told as tables, stories and properties.
#![cfg(test)]

#[path = "projections/history.rs"]
mod history;

#[path = "projections/lifecycle.rs"]
mod lifecycle;

#[path = "projections/stories.rs"]
mod stories;

#[path = "projections/properties.rs"]
mod properties;

#[path = "projections/pools.rs"]
mod pools;

#[path = "projections/replacing.rs"]
mod replacing;

#[path = "projections/policy.rs"]
mod policy;

#[path = "projections/settings.rs"]
mod settings;

#[path = "projections/clock.rs"]
mod clock;

#[path = "projections/residency.rs"]
mod residency;

#[path = "projections/delivery.rs"]
mod delivery;

#[path = "projections/faults.rs"]
mod faults;

#[path = "projections/mailboxes.rs"]
mod mailboxes;

#[path = "projections/histories.rs"]
mod histories;

#[path = "projections/fixtures.rs"]
mod fixtures;

#[cfg(feature = "tool")]
#[path = "projections/tool.rs"]
mod tool;

#[cfg(feature = "tool")]
#[path = "projections/pinning.rs"]
mod pinning;

#[cfg(feature = "tool")]
#[path = "projections/serving.rs"]
mod serving;

#[path = "projections/folding.rs"]
mod folding;

#[path = "projections/pruning.rs"]
mod pruning;

#[path = "projections/damage.rs"]
mod damage;

#[path = "projections/transparency.rs"]
mod transparency;

#[path = "projections/auditing.rs"]
mod auditing;

#[path = "projections/scaling.rs"]
mod scaling;
