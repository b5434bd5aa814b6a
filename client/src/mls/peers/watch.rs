//! Identities that are watched: the user's own devices, and invitations that were refused.

use std::collections::BTreeSet;

use keypool_api::PoolStatus;
use keypool_ledger::{KeyPackageRef, PoolId, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    leaf::LeafContradiction,
    record::{peer_record, peer_records},
};
use crate::{AuditFinding, ExchangeError, MlsConnection, Staged, StorageError};

/// The name of the record of invitations that were refused.
const REFUSED_RECORD: &str = "refused-invitations";
/// The prefix of the names of the records of inviters.
const INVITER_PREFIX: &str = "inviter/";
/// How many refused invitations are kept.
const REFUSED_MAX: usize = 64;

/// An invitation that was refused, because its inviter's key is not the user's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RefusedInvitation {
    inviter: String,
    why: LeafContradiction,
    at: Timestamp,
}

/// Notes that an invitation was refused, as part of an operation.
pub(crate) fn note_refused_invitation(
    staged: &Staged<'_>,
    inviter: &str,
    why: LeafContradiction,
    at: Timestamp,
) -> Result<(), StorageError> {
    let mut all: Vec<RefusedInvitation> = staged.app_record(REFUSED_RECORD)?.unwrap_or_default();
    all.push(RefusedInvitation { inviter: inviter.to_owned(), why, at });
    let surplus = all.len().saturating_sub(REFUSED_MAX);
    all.drain(..surplus);
    staged.put_app_record(REFUSED_RECORD, &all)
}

/// Notes the inviter whose key was known when a package was joined, as part of an operation: only such become
/// contacts.
pub(crate) fn note_inviter(
    staged: &Staged<'_>,
    keypackage_ref: &KeyPackageRef,
    inviter: &str,
) -> Result<(), StorageError> {
    staged.put_app_record(&inviter_name(keypackage_ref), &inviter)
}

/// The inviter whose key was known when a package was joined, as an operation has it.
pub(crate) fn inviter_of(
    staged: &Staged<'_>,
    keypackage_ref: &KeyPackageRef,
) -> Result<Option<PoolId>, StorageError> {
    let inviter: Option<String> = staged.app_record(&inviter_name(keypackage_ref))?;
    Ok(inviter.and_then(|inviter| inviter.parse().ok()))
}

fn inviter_name(keypackage_ref: &KeyPackageRef) -> String {
    format!("{INVITER_PREFIX}{keypackage_ref}")
}

/// The findings about identities: refused invitations, users whose keys do not follow, and devices of this user
/// that none of the user's has introduced.
pub(crate) fn identity_findings(
    staged: &Staged<'_>,
    own_user: &str,
) -> Result<Vec<AuditFinding>, StorageError> {
    let refused: Vec<RefusedInvitation> = staged.app_record(REFUSED_RECORD)?.unwrap_or_default();
    let refused = refused.into_iter().map(|RefusedInvitation { inviter, why, at }| {
        AuditFinding::InvitationRefused { inviter, why, at }
    });
    let mut findings: Vec<AuditFinding> = refused.collect();
    for record in peer_records(staged)? {
        let user = record.list().user().to_owned();
        if let Some((why, at)) = record.doubt_at() {
            findings.push(AuditFinding::KeysChanged { user, why: why.clone(), at });
        } else if user == own_user {
            let strange = record.unintroduced().map(|(device, listed)| {
                let (device, since) = (device.to_owned(), listed.since_at);
                AuditFinding::DeviceNotIntroduced { device, since }
            });
            findings.extend(strange);
        }
    }
    Ok(findings)
}

impl<D> MlsConnection<D> {
    /// Looks the user's own devices up, if their list has changed since. Returns those that no key of the user
    /// has introduced.
    pub(in crate::mls) async fn watch_own_devices(
        &self,
        status: &PoolStatus,
        now: Timestamp,
    ) -> Result<Vec<String>, ExchangeError> {
        let user = self.identity().pool().user().to_owned();
        let known = peer_record(&self.store().stage()?, &user)?;
        let is_as_known =
            known.as_ref().is_some_and(|known| known.list().head() == status.device_list_head);
        if !is_as_known {
            self.fetch_peers(&BTreeSet::from([user.clone()]), now).await?;
        }
        let Some(record) = peer_record(&self.store().stage()?, &user)? else {
            return Ok(Vec::new());
        };
        let own = self.identity().pool().device();
        let strange = record.unintroduced().filter(|(device, _)| *device != own);
        Ok(strange.map(|(device, _)| device.to_owned()).collect())
    }
}
