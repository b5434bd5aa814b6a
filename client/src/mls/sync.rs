//! Synchronization of the device's pool with the server: the refresh and its parts, the event stream, and the
//! server's checkpoints.

pub(crate) mod checkpoints;

pub(crate) mod cooldown;

mod declarations;

pub(crate) mod drift;

pub(crate) mod mirror;

pub(crate) mod pool_events;

pub(crate) mod reconcile;

pub(crate) mod refresh;

pub(crate) mod subscription;

pub(crate) mod upload;
