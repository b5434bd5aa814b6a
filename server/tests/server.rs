//! The whole server over loopback: routes, refusals, repeats, and crashes.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

#[path = "server/embedded.rs"]
mod embedded;

#[path = "server/erasure.rs"]
mod erasure;

#[cfg(feature = "otlp")]
#[path = "server/otlp.rs"]
mod otlp;

#[path = "server/small_disk.rs"]
mod small_disk;

#[path = "server/harness.rs"]
mod harness;

#[path = "server/store.rs"]
mod store;

#[path = "server/surface.rs"]
mod surface;

#[path = "server/versions.rs"]
mod versions;

#[path = "server/cors.rs"]
mod cors;

#[path = "server/description.rs"]
mod description;

#[path = "server/suites.rs"]
mod suites;

#[path = "server/required.rs"]
mod required;

#[path = "server/compatibility.rs"]
mod compatibility;

#[path = "server/problems.rs"]
mod problems;

#[path = "server/groups.rs"]
mod groups;

#[path = "server/delivery.rs"]
mod delivery;

#[path = "server/invitations.rs"]
mod invitations;

#[path = "server/attacks.rs"]
mod attacks;

#[path = "server/blocked_users.rs"]
mod blocked_users;

#[path = "server/recovery.rs"]
mod recovery;

#[path = "server/identity.rs"]
mod identity;

#[path = "server/x509.rs"]
mod x509;

#[path = "server/signatures.rs"]
mod signatures;

#[path = "server/repeats.rs"]
mod repeats;

#[path = "server/disk.rs"]
mod disk;

#[path = "server/campaign.rs"]
mod campaign;

#[path = "server/linearizable.rs"]
mod linearizable;

#[path = "server/many.rs"]
mod many;

#[path = "server/quotas.rs"]
mod quotas;

#[path = "server/policy.rs"]
mod policy;

#[path = "server/drain.rs"]
mod drain;

#[path = "server/rotation.rs"]
mod rotation;

#[path = "server/replacing.rs"]
mod replacing;

#[path = "server/nulls.rs"]
mod nulls;

#[path = "server/request_lines.rs"]
mod request_lines;

#[path = "server/refusals.rs"]
mod refusals;

#[path = "server/stream.rs"]
mod stream;

#[path = "server/frontends.rs"]
mod frontends;

#[path = "server/registration.rs"]
mod registration;

#[path = "server/connections.rs"]
mod connections;

#[path = "server/operating.rs"]
mod operating;

#[path = "server/admin_commands.rs"]
mod admin_commands;

#[path = "server/operator_page.rs"]
mod operator_page;

#[path = "server/clock.rs"]
mod clock;

#[path = "server/cluster.rs"]
mod cluster;

#[cfg(feature = "cluster")]
#[path = "server/cluster_postgres.rs"]
mod cluster_postgres;

#[cfg(feature = "cluster")]
#[path = "server/nats_nodes.rs"]
mod nats_nodes;

#[cfg(feature = "cluster")]
#[path = "server/cluster_load.rs"]
mod cluster_load;

#[cfg(feature = "cluster")]
#[path = "server/cluster_chaos.rs"]
mod cluster_chaos;

#[cfg(feature = "cluster")]
#[path = "server/cluster_partitions.rs"]
mod cluster_partitions;

#[cfg(feature = "cluster")]
#[path = "server/cluster_metrics.rs"]
mod cluster_metrics;

#[path = "server/tls.rs"]
mod tls;

#[path = "server/transport.rs"]
mod transport;

#[path = "server/durability.rs"]
mod durability;

#[path = "server/backups.rs"]
mod backups;

#[path = "server/ledger.rs"]
mod ledger;

#[path = "server/restoring.rs"]
mod restoring;

#[path = "server/retention.rs"]
mod retention;

#[path = "server/ledger_key.rs"]
mod ledger_key;

#[path = "server/reconciling.rs"]
mod reconciling;

#[path = "server/documents.rs"]
mod documents;

#[path = "server/settings.rs"]
mod settings;

#[path = "server/packaging.rs"]
mod packaging;

#[path = "server/examples.rs"]
mod examples;

#[path = "../examples/webhook_receiver/receiver.rs"]
mod webhook_receiver;

#[path = "server/webhooks.rs"]
mod webhooks;
