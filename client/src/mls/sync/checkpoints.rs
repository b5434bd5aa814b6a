//! Records for the device's audit, kept during refreshes, and the audit itself.
//!
//! Each record is written with its cause: a spent package that is waited for with the history that
//! told of it, a refusal before anyone hears of it, a checkpoint once it was shown to continue the last.

use std::{collections::BTreeMap, time::Duration};

use keypool_ledger::{Event, EventEnvelope, KeyPackageRef, Timestamp};
use keypool_transparency::NoteKey;
use serde::{Deserialize, Serialize};

use crate::{
    ExchangeError, MlsConnection, OwnStage, OwnerAudit, Staged, StorageError,
    audit::{AuditFinding, Fetched, Histories, KnownLedger, Refusal, Verdict},
    mls::{membership::read_only_on, peers::identity_findings},
    storage::read_kept,
};

/// The name of the record of the server's ledger.
const LEDGER_RECORD: &str = "audit/ledger";
/// The name of the record of a history that was refused.
const REFUSED_RECORD: &str = "audit/refused";
/// The name of the record that says how far the histories were when they were fetched.
const FETCHED_RECORD: &str = "audit/fetched";
/// The name of the record of packages that were spent and whose Welcomes are waited for.
const AWAITED_RECORD: &str = "audit/awaited";
/// The name of the record of when the device was there.
const PRESENT_RECORD: &str = "audit/present";
/// The least distance of two refreshes between which waiting Welcomes can be joined.
const TURN: Duration = Duration::from_mins(1);

type Awaited = BTreeMap<KeyPackageRef, Timestamp>;

/// When the device was there, by the server's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Present {
    /// A refresh at least a minute before the last one.
    before: Timestamp,
    /// The last one.
    last: Timestamp,
}

impl<D> MlsConnection<D> {
    /// Audits the server's statements to this device against the device's own records. Nothing
    /// is sent: the audit uses the state of the last refresh.
    ///
    /// A package that the server calls spent is waited for: a finding is made of it once a day has passed
    /// since the device heard of it, and the device has been there after that for long enough to take in
    /// the waiting Welcomes. Packages of last resort are left out of that.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store cannot be read.
    pub fn audit(&self, now: Timestamp) -> Result<OwnerAudit, StorageError> {
        let (mirror, own) = (self.store().mirror()?, self.store().history()?);
        let staged = self.store().stage()?;
        let present: Present = staged.app_record(PRESENT_RECORD)?.unwrap_or_default();
        let awaited: Awaited = staged.app_record(AWAITED_RECORD)?.unwrap_or_default();
        let fetched: Fetched = staged.app_record(FETCHED_RECORD)?.unwrap_or_default();
        let refused: Option<Refusal> = staged.app_record(REFUSED_RECORD)?;
        let ledger: Option<KnownLedger> = staged.app_record(LEDGER_RECORD)?;
        let set_back = read_only_on(&staged)?;
        let identities = identity_findings(&staged, self.identity().pool().user())?;
        drop(staged);
        let head = self.store().mirror_head();
        let histories = Histories {
            mirror: &mirror,
            own: &own,
            fetched,
            awaited: &awaited,
            present: present.before,
        };
        let mut findings = histories.examine();
        findings.extend(refused.map(AuditFinding::from));
        findings.extend(identities);
        let home_set_back = |(group, since)| AuditFinding::HomeSetBack { group, since };
        findings.extend(set_back.into_iter().map(home_set_back));
        findings.extend(ledger.iter().flat_map(|ledger| ledger.findings(now)));
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity()));
        Ok(OwnerAudit {
            events: head.version,
            head: head.hash,
            joined: histories.joined(),
            checkpoint: ledger.as_ref().and_then(KnownLedger::kept),
            findings,
            evidence: ledger.map(|ledger| ledger.evidence().to_vec()).unwrap_or_default(),
        })
    }

    /// Holds the server to its checkpoints: asks for the last one, and if it is another than the one that
    /// is kept, for the proof that the log has only grown. It is kept once that is shown. A refresh does
    /// this at its end; a server that publishes none, or does not answer, costs nothing.
    ///
    /// The ledger's key is the one given to [`MlsConnection::trust_ledger_key`], or the server's own statement
    /// at first; without one, its name and how its signatures begin are held on to.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store fails.
    pub async fn watch_ledger(&self, now: Timestamp) -> Result<(), StorageError> {
        let Some(seen) = self.look_at_ledger(now).await? else { return Ok(()) };
        let staged = self.store().stage()?;
        note_ledger(&staged, &seen)?;
        staged.commit()
    }

    /// As [`MlsConnection::watch_ledger`], but nothing is kept yet: see [`note_ledger`].
    pub(in crate::mls) async fn look_at_ledger(
        &self,
        now: Timestamp,
    ) -> Result<Option<SeenLedger>, StorageError> {
        match self.watch(now).await {
            Ok(seen) => Ok(seen),
            Err(ExchangeError::Storage(error)) => Err(error),
            Err(ExchangeError::Api(error)) => {
                tracing::debug!(%error, "the ledger was not looked at");
                Ok(None)
            }
        }
    }

    async fn watch(&self, now: Timestamp) -> Result<Option<SeenLedger>, ExchangeError> {
        let before = self.known_ledger()?;
        let kept = before.as_ref().map_or(0, KnownLedger::size);
        let Some(note) = self.api().ledger_checkpoint_after(kept).await? else { return Ok(None) };
        let Some(mut known) = before.clone() else {
            let key = self.api().ledger_key().await?;
            let first = KnownLedger::first(&note, key.as_ref());
            if first.is_none() {
                tracing::warn!("the server's checkpoint is none, or is not signed by its own key");
            }
            return Ok(first.map(|now| SeenLedger { before: None, now }));
        };
        match known.judge(&note, now) {
            Verdict::Same | Verdict::NotOne => return Ok(None),
            Verdict::Noted => {}
            Verdict::Prove { from, to } => match self.api().ledger_consistency(from, to).await? {
                Some(hashes) => known.prove(&note, &hashes, now),
                None => known.refuse(&note, now),
            },
        }
        Ok(Some(SeenLedger { before, now: known }))
    }

    /// Trusts a key as that of the server's ledger, because the server's operator has published it:
    /// it is printed at each start of `keypool-server`. Findings about other names and keys are settled
    /// by that; contradictions stay.
    ///
    /// Returns whether the checkpoint that is kept is signed by it. If not, the next one is the first that
    /// the server is held to.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store fails.
    pub fn trust_ledger_key(&self, key: &NoteKey) -> Result<bool, StorageError> {
        let staged = self.store().stage()?;
        let known: Option<KnownLedger> = staged.app_record(LEDGER_RECORD)?;
        let mut known = known.unwrap_or_default();
        let fits = known.trust(key);
        staged.put_app_record(LEDGER_RECORD, &known)?;
        staged.commit()?;
        Ok(fits)
    }

    /// Tells the API which records the device has seen before it was started.
    pub(crate) fn note_seen_position(&self) -> Result<(), StorageError> {
        let known = self.known_ledger()?;
        self.api().note_position(known.as_ref().map_or(0, KnownLedger::size));
        Ok(())
    }

    pub(super) fn known_ledger(&self) -> Result<Option<KnownLedger>, StorageError> {
        self.store().stage()?.app_record(LEDGER_RECORD)
    }

    /// Keeps that the server's history was refused, and gives the refusal back. The first one stays.
    pub(in crate::mls) fn note_refusal(
        &self,
        error: StorageError,
        told: Option<&[Vec<u8>]>,
        now: Timestamp,
    ) -> Result<StorageError, StorageError> {
        let StorageError::MirrorRefused { version, why } = &error else { return Ok(error) };
        let (at, known) = (now, self.store().mirror_head().version);
        let staged = self.store().stage()?;
        if staged.app_record::<Refusal>(REFUSED_RECORD)?.is_none() {
            let is_it =
                |bytes: &&Vec<u8>| read_kept(bytes).is_ok_and(|(it, _)| it.version == *version);
            let record = told.and_then(|told| told.iter().find(is_it)).cloned();
            let refusal = Refusal { version: *version, why: why.clone(), known, at, record };
            staged.put_app_record(REFUSED_RECORD, &refusal)?;
            staged.commit()?;
        }
        Ok(error)
    }
}

/// The server's ledger before and after its new checkpoint.
#[derive(Debug)]
pub(in crate::mls) struct SeenLedger {
    /// The earlier state.
    before: Option<KnownLedger>,
    /// The present state.
    now: KnownLedger,
}

impl SeenLedger {
    /// Whether the server has contradicted its ledger as it was seen before, for the first time so.
    pub(in crate::mls) fn contradicts(&self) -> bool {
        let known = self.before.as_ref().map_or(0, |before| before.evidence().len());
        known < self.now.evidence().len()
    }
}

/// Stores the present state of the ledger, as part of an operation, unless another refresh has been faster.
pub(in crate::mls) fn note_ledger(
    staged: &Staged<'_>,
    seen: &SeenLedger,
) -> Result<(), StorageError> {
    if staged.app_record(LEDGER_RECORD)? == seen.before {
        staged.put_app_record(LEDGER_RECORD, &seen.now)?;
    }
    Ok(())
}

impl From<Refusal> for AuditFinding {
    fn from(refusal: Refusal) -> Self {
        let Refusal { version, why, known, at, record: _ } = refusal;
        Self::HistoryRefused { version, why, at, told_before: version <= known }
    }
}

/// Notes packages that are spent by events of the server's history and whose Welcomes have not come, as
/// part of the operation that mirrors them.
pub(in crate::mls) fn note_spent(
    staged: &Staged<'_>,
    new: &[EventEnvelope],
    now: Timestamp,
) -> Result<(), StorageError> {
    let is_waited_for = |keypackage_ref: &KeyPackageRef| {
        let own = staged.package(keypackage_ref);
        own.is_some_and(|own| {
            !own.facts.last_resort && !matches!(own.stage, OwnStage::Spent { .. })
        })
    };
    let spent: Vec<_> = new
        .iter()
        .filter_map(|envelope| match &envelope.event {
            Event::Spent { keypackage_ref, .. } => Some(keypackage_ref),
            _ => None,
        })
        .filter(|keypackage_ref| is_waited_for(keypackage_ref))
        .collect();
    if spent.is_empty() {
        return Ok(());
    }
    let mut awaited: Awaited = staged.app_record(AWAITED_RECORD)?.unwrap_or_default();
    for keypackage_ref in spent {
        awaited.entry(keypackage_ref.clone()).or_insert(now);
    }
    staged.put_app_record(AWAITED_RECORD, &awaited)
}

/// Notes how far the two histories are, as part of the operation that has fetched the server's to its end.
pub(in crate::mls) fn note_fetched(
    staged: &Staged<'_>,
    own: u64,
    mirror: u64,
) -> Result<(), StorageError> {
    let known: Fetched = staged.app_record(FETCHED_RECORD)?.unwrap_or_default();
    let fetched = Fetched { own, mirror, ..known };
    if known == fetched {
        return Ok(());
    }
    staged.put_app_record(FETCHED_RECORD, &fetched)
}

/// Records that the mirror starts from the first event again, as part of an operation: earlier joins need not
/// be in it.
pub(in crate::mls) fn note_set_back(staged: &Staged<'_>) -> Result<(), StorageError> {
    let anew_after = staged.history_version();
    staged.put_app_record(FETCHED_RECORD, &Fetched { own: 0, mirror: 0, anew_after })
}

/// Waits no more for the Welcomes of packages that are spent, as part of an operation: this home is an
/// older copy of itself, and may have joined by them. Those that come are joined all the same.
pub(in crate::mls) fn excuse_awaited(staged: &Staged<'_>) -> Result<(), StorageError> {
    let never = Timestamp::from_millis(u64::MAX);
    let Some(mut awaited) = staged.app_record::<Awaited>(AWAITED_RECORD)? else { return Ok(()) };
    if awaited.values().all(|since| *since == never) {
        return Ok(());
    }
    for since in awaited.values_mut() {
        *since = never;
    }
    staged.put_app_record(AWAITED_RECORD, &awaited)
}

/// Records that the device is present, and drops awaited Welcomes that have come, as part of a refresh.
pub(in crate::mls) fn note_present(
    staged: &Staged<'_>,
    now: Timestamp,
) -> Result<(), StorageError> {
    let present: Present = staged.app_record(PRESENT_RECORD)?.unwrap_or_default();
    // A time in the future is a clock that was set back.
    if now < present.last || present.last.after(TURN) <= now {
        let present = Present { before: present.last.min(now), last: now };
        staged.put_app_record(PRESENT_RECORD, &present)?;
    }
    let Some(mut awaited) = staged.app_record::<Awaited>(AWAITED_RECORD)? else { return Ok(()) };
    let known = awaited.len();
    awaited.retain(|keypackage_ref, _| {
        let own = staged.package(keypackage_ref);
        own.is_some_and(|own| !matches!(own.stage, OwnStage::Spent { .. }))
    });
    if awaited.len() < known { staged.put_app_record(AWAITED_RECORD, &awaited) } else { Ok(()) }
}
