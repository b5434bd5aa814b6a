//! The changes of a Commit in a `PublicMessage`: its proposals by value (RFC 9420 sections 6.2 and 12.4).

use keypool_api::Code;
use keypool_ledger::KeyPackageRef;
use openmls_rust_crypto::RustCrypto;
use openmls_traits::types::Ciphersuite;
use tls_codec::{Deserialize, TlsDeserialize, TlsSize, VLBytes};

use super::{reference, structure::KeyPackage};
use crate::problem::Failure;

/// The wire format of an `MLSMessage` that holds a `PublicMessage`.
const WIRE_FORMAT_PUBLIC_MESSAGE: u16 = 1;
/// A proposal that stands in the Commit itself.
const BY_VALUE: u8 = 1;
/// A proposal that was sent before, named by its hash.
const BY_REFERENCE: u8 = 2;
const ADD: u16 = 1;
const REMOVE: u16 = 3;
const EXTERNAL_INIT: u16 = 6;
const GROUP_CONTEXT_EXTENSIONS: u16 = 7;

/// A public Commit, up to the end of its proposals.
#[derive(Debug, TlsDeserialize, TlsSize)]
struct Head {
    version: u16,
    wire_format: u16,
    group_id: VLBytes,
    epoch: u64,
    sender: Sender,
    authenticated_data: VLBytes,
    content_type: u8,
    proposals: VLBytes,
}

/// The sender of a `PublicMessage`.
#[derive(Debug, TlsDeserialize, TlsSize)]
#[repr(u8)]
enum Sender {
    #[tls_codec(discriminant = 1)]
    Member(u32),
    External(u32),
    NewMemberProposal,
    NewMemberCommit,
}

/// The members that a Commit adds and removes by value.
#[derive(Debug, Default)]
struct CommitChanges {
    added: Vec<KeyPackageRef>,
    /// Whether a package is of a ciphersuite without a reference here.
    has_unknown_suite: bool,
    removed: usize,
}

/// Checks that a public Commit agrees with the request that carries it: each package that it adds by value is
/// spent there, and it removes by value at most `removed` members.
///
/// A `PrivateMessage` and proposals by reference cannot be read, and are the members' to check.
///
/// # Errors
///
/// Returns a [`Failure`] with the code `invalid_message` that names the change.
pub(crate) fn check_public_changes(
    commit: &[u8],
    is_spent: impl Fn(&KeyPackageRef) -> bool,
    removed: usize,
) -> Result<(), Failure> {
    let changes = changes_of(commit).unwrap_or_default();
    let refuse = |detail: String| Err(Failure::new(Code::InvalidMessage, detail));
    if let Some(added) = changes.added.iter().find(|added| !is_spent(added)) {
        return refuse(format!("the Commit adds package {added}; the request does not spend it"));
    }
    if changes.has_unknown_suite {
        return refuse("the Commit adds a package of an unknown ciphersuite".into());
    }
    if removed < changes.removed {
        let n = changes.removed;
        return refuse(format!("the Commit removes {n} members; the request names {removed}"));
    }
    Ok(())
}

/// Reads the proposals by value of a public Commit, up to the first that is of an unknown kind.
fn changes_of(commit: &[u8]) -> Option<CommitChanges> {
    let head = Head::tls_deserialize(&mut &*commit).ok()?;
    if head.wire_format != WIRE_FORMAT_PUBLIC_MESSAGE {
        return None;
    }
    let (mut rest, mut changes) = (head.proposals.as_slice(), CommitChanges::default());
    while !rest.is_empty() && read_proposal(&mut rest, &mut changes).is_some() {}
    Some(changes)
}

fn read_proposal(rest: &mut &[u8], changes: &mut CommitChanges) -> Option<()> {
    match u8::tls_deserialize(rest).ok()? {
        BY_REFERENCE => VLBytes::tls_deserialize(rest).ok().map(drop),
        BY_VALUE => match u16::tls_deserialize(rest).ok()? {
            ADD => read_added(rest, changes),
            REMOVE => {
                changes.removed += 1;
                u32::tls_deserialize(rest).ok().map(drop)
            }
            EXTERNAL_INIT | GROUP_CONTEXT_EXTENSIONS => {
                VLBytes::tls_deserialize(rest).ok().map(drop)
            }
            _ => None,
        },
        _ => None,
    }
}

/// Reads a package and computes its reference.
fn read_added(rest: &mut &[u8], changes: &mut CommitChanges) -> Option<()> {
    let begin = *rest;
    let package = KeyPackage::tls_deserialize(rest).ok()?;
    let exact = begin.get(..begin.len() - rest.len())?;
    let suite = Ciphersuite::try_from(package.content.ciphersuite).ok();
    match suite.and_then(|suite| reference(exact, suite, &RustCrypto::default()).ok()) {
        Some(reference) => changes.added.push(reference),
        None => changes.has_unknown_suite = true,
    }
    Some(())
}
