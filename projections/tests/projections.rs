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

#[path = "projections/timeline.rs"]
mod timeline;

#[path = "projections/explanation.rs"]
mod explanation;

#[path = "projections/readings.rs"]
mod readings;

#[path = "projections/commands.rs"]
mod commands;

#[path = "projections/statements.rs"]
mod statements;

#[path = "projections/retention.rs"]
mod retention;

#[path = "projections/post.rs"]
mod post;

#[path = "projections/groups.rs"]
mod groups;

#[path = "projections/deliveries.rs"]
mod deliveries;

#[path = "projections/mailboxes.rs"]
mod mailboxes;

#[path = "projections/waiting_lists.rs"]
mod waiting_lists;

#[path = "projections/policies.rs"]
mod policies;

#[path = "projections/keys.rs"]
mod keys;

#[path = "projections/evictions.rs"]
mod evictions;

#[path = "projections/model.rs"]
mod model;
