//! The page over logs that the rules have written.
#![cfg(test)]

#[allow(dead_code, reason = "each test program uses other helpers of these")]
#[path = "../../../projections/tests/projections/history.rs"]
mod history;

#[path = "../../../projections/tests/projections/steps.rs"]
mod steps;

#[path = "page/recorded.rs"]
mod recorded;

#[path = "page/views.rs"]
mod views;

#[path = "page/hostile.rs"]
mod hostile;

#[path = "page/folding.rs"]
mod folding;

#[path = "page/many_pools.rs"]
mod many_pools;
