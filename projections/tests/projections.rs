//! The rules of a pool, told as a table, stories and properties.
#![cfg(test)]

#[path = "projections/history.rs"]
mod history;

#[path = "projections/steps.rs"]
mod steps;

#[path = "projections/lifecycle.rs"]
mod lifecycle;

#[path = "projections/stories.rs"]
mod stories;

#[path = "projections/suspensions.rs"]
mod suspensions;

#[path = "projections/required.rs"]
mod required;

#[path = "projections/frontends.rs"]
mod frontends;

#[path = "projections/delivery.rs"]
mod delivery;

#[path = "projections/directory.rs"]
mod directory;

#[path = "projections/properties.rs"]
mod properties;

#[path = "projections/model.rs"]
mod model;
