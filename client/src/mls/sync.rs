//! Synchronization of the device's pool with the server: the refresh and its parts, the event stream, and the
//! server's checkpoints.

pub(crate) mod checkpoints;

pub(crate) mod cooldown;

pub(crate) mod copies;

mod declarations;

pub(crate) mod drift;

mod lifetime_refusal;

pub(crate) mod mirror;

pub(crate) mod pool_events;

pub(crate) mod reconcile;

pub(crate) mod refresh;

pub(crate) mod server_time;

pub(crate) mod subscription;

pub(crate) mod upload;
