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

#[path = "projections/delivery.rs"]
mod delivery;

#[path = "projections/faults.rs"]
mod faults;
