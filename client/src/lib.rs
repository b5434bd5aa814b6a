//! The side that holds the private keys: what a chat application embeds.
//!
//! A device makes `KeyPackage`s, keeps their private halves, and joins groups with them. Everything it
//! must not lose lies in one [`LocalStore`]: the device's own history of events, a mirror of the
//! server's, and the MLS state. Every operation is staged and committed as one atomic write, so that
//! a crash or a broken Welcome never leaves half of it.
//!
//! Nothing here reads a clock or runs in the background: time is an argument.

mod error;

mod storage;

mod mls;

mod api;

mod audit;

mod client;

pub use crate::{
    api::{
        ApiClient, ApiError,
        stream::{EventStream, Told},
    },
    audit::{AuditFinding, Evidence, EvidenceKind, Gravity, KeptCheckpoint, OwnerAudit},
    client::{ClientOptions, MlsClient, OpenError, PackageUse},
    error::{
        AddError, BoxError, ConfigError, GroupError, IdentityError, InviteError, JoinError,
        KeyFate, MessageError, PackageCheck, PoolError, SealingError, SendError, StorageError,
        SyncError, UpdateError,
    },
    mls::{
        connection::{MlsConnection, Refresh, RefreshError},
        delivery::{
            AddedMember, CommitPost, DeliveryError, DeliveryService, WelcomePost,
            happenings::{Happening, What},
            outbox::{MESSAGE_BYTES_MAX, ResumedMessage, Sent},
            server::ServerDelivery,
        },
        drift::Drift,
        identity::DeviceIdentity,
        invite::{Invited, InvitedDevice, Invitee, Missing, ResumedInvitation, Why},
        keypackage_pool::{
            Checkup, CreatedPackage, Finding, KeyPackagePool, PoolConfig, PoolCounts,
            Replenishment, ServerStatus,
        },
        listening::{PoolListener, PoolNews},
        membership::{
            Change, GroupMember, Joined, MlsMembership, OfferedPackage, PendingAdd, PendingCommit,
            Received, WELCOME_ATTEMPTS_MAX,
        },
        rotation::RotateError,
        update::ResumedUpdate,
    },
    storage::{
        DeviceKey, DeviceKeyKind, Erasure, LocalStore, Provider, Staged, fresh_command,
        own_packages::{ImpossibleEvent, OwnPackage, OwnStage},
    },
};
