//! The client library of a chat application: the side that holds the private keys.
//!
//! A device makes `KeyPackage`s, keeps their private halves, and joins groups with them. Everything it
//! must not lose lies in one [`LocalStore`]: the device's own history of events, a mirror of the
//! server's, and the MLS state. Every operation is staged and committed as one atomic write, so that
//! a crash or a broken Welcome never leaves half of it.
//!
//! Nothing here runs in the background, and time comes from the [`Clock`] of [`ClientOptions`].
//!
//! # Example
//!
//! Alice invites Bob while he is offline, over the server's own delivery:
//!
//! ```no_run
//! use std::path::Path;
//!
//! use keypool_client::{ClientOptions, GroupId, MailboxEventKind, MlsClient};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // On each device, once: register the device's key, and fill its pool of packages.
//! let server = "http://127.0.0.1:8080";
//! let open = |home: &str, user: &str| -> Result<_, Box<dyn std::error::Error>> {
//!     let options = ClientOptions::default();
//!     Ok(MlsClient::open_at_server(Path::new(home), &user.parse()?, server, options)?)
//! };
//! let (alice, bob) = (open("/home/alice/.chat", "alice")?, open("/home/bob/.chat", "bob")?);
//! for device in [&alice, &bob] {
//!     device.register().await?;
//!     device.refresh_key_packages().await?;
//! }
//!
//! // Alice makes a group and invites all of Bob's devices by one Commit.
//! let group = GroupId::new(b"friday evening")?;
//! alice.create_group(&group)?;
//! let invited = alice.invite(&group, ["bob"]).await?;
//! for skipped in &invited.missing {
//!     println!("{skipped}");
//! }
//! alice.send(&group, b"pizza at eight?").await?;
//!
//! // Bob is back: he joins, reads the message, and confirms each event that he has shown.
//! for event in bob.sync(0).await? {
//!     match event.kind {
//!         MailboxEventKind::Joined { group, inviter, .. } => println!("{inviter} invited you to {group}"),
//!         MailboxEventKind::Message { sender, bytes, .. } => {
//!             println!("{sender}: {}", String::from_utf8_lossy(&bytes));
//!         }
//!         _ => {}
//!     }
//!     bob.confirm(event.position)?;
//! }
//! # Ok(())
//! # }
//! ```

/// Compiles the examples of the page about identity.
#[cfg(doctest)]
#[doc = include_str!("../../docs/identity.md")]
struct IdentityPage;

/// Compiles the program of the page for app developers.
#[cfg(doctest)]
#[doc = include_str!("../../docs/embedding.md")]
struct EmbeddingPage;

mod error;

mod storage;

mod mls;

mod api;

mod audit;

mod client;

mod server_clock;

mod transport;

pub use crate::{
    api::{
        ApiClient, ApiError,
        stream::{EventStream, StreamEvent},
    },
    audit::{AuditFinding, Evidence, EvidenceKind, KeptCheckpoint, OwnerAudit, Severity},
    client::{CheckError, ClientOpenError, ClientOptions, MlsClient, PackageUse},
    error::{
        AddError, BoxError, BundleDeleteError, BundleLoadError, ConfigError, ExchangeError,
        GroupError, IdentityError, InviteError, JoinError, KeyFate, MessageError, PackageCheck,
        PoolError, RecoveryError, RefreshError, RegisterError, SealingError, SendError,
        StorageError, SyncError, UpdateError,
    },
    mls::{
        connection::MlsConnection,
        delivery::{
            AddedMember, CommitPost, DeliveryError, DeliveryService, WelcomePost,
            events::{MailboxEvent, MailboxEventKind},
            outbox::{MESSAGE_BYTES_MAX, ResumedMessage, Sent},
            server::ServerDelivery,
        },
        identity::{
            CredentialSource, CredentialValidator, DeviceIdentity, LeafCredential, LeafOwner,
            PresentedLeaf,
        },
        invite::{
            InvitationRecord, InvitationState, Invited, InvitedDevice, Invitee, NextStep,
            ResumedInvitation, SkipReason, SkippedInvitee,
        },
        keypackage_pool::{
            CreatedPackage, DoctorReport, Issue, KeyPackagePool, PoolConfig, RefillCounts,
            Replenishment, ReservationInfo, ServerStatus, StatusCounts,
        },
        membership::{
            Change, GroupMember, Joined, MlsMembership, OfferedPackage, PendingAdd, PendingCommit,
            Received, WELCOME_ATTEMPTS_MAX,
        },
        peers::{
            KeyPolicy, LeafContradiction, LeafTrust, PeerChange, PeerChangeKind, PeerDevice,
            PeerDoubt, PeerKeys, PeerStatus, UntrustedMember,
        },
        recovery::{NoRecoveryWords, RecoveryWords},
        sync::{
            drift::{Drift, OtherCopy},
            pool_events::{PoolEvent, PoolListener},
            refresh::Refresh,
        },
        update::ResumedUpdate,
    },
    server_clock::ClockOffset,
    storage::{
        Database, DatabaseChanges, DatabaseEntry, DeviceKey, DeviceKeyKind, Erasure, LocalStore,
        Provider, SignatureKeystore, Staged, fresh_command,
        own_packages::{ImpossibleEvent, OwnPackage, OwnStage},
    },
    transport::{ResponseBody, Transport, TransportFuture, TransportResponse},
};

#[cfg(all(feature = "sled-store", feature = "sqlite-store"))]
pub use crate::storage::DatabaseKind;
#[cfg(feature = "sqlite-store")]
pub use crate::storage::SqliteDatabase;
#[cfg(feature = "reqwest")]
pub use crate::transport::ReqwestTransport;

/// The types of other crates that the signatures of this one name.
pub use keypool_api::{
    Code, ContactToken, LastResortNotice, LevelNotice, PolicyReply, PoolStatus, Problem,
    RecoverReply, RegisterReply, RemoveReply, Voucher,
};
pub use keypool_ledger::{
    Clock, CommandId, Event, EventEnvelope, GroupId, Hash, InvitationAnswer, KeyPackageRef,
    NameError, PackageFacts, PoolId, ReservationId, ReservePolicy, RevokeReason, SignatureKey,
    SystemClock, Timestamp, WelcomeFault,
};
pub use keypool_projections::{
    RequiredCapabilities, Requirement, SuiteCounts, TimelineEntry, directory::Origin,
};
pub use keypool_transparency::{NoteKey, TreeHash};
pub use openmls::key_packages::KeyPackageBundle;
pub use openmls_traits::types::SignatureScheme;

/// The requests and replies of [`ApiClient`].
pub use keypool_api as wire;
