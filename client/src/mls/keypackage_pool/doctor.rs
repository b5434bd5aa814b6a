//! The doctor: contradictions between the device's own history and its store, and their repair.

use std::{collections::BTreeSet, fmt};

use keypool_ledger::{KeyPackageRef, RevokeReason, Timestamp};

use super::{KeyPackagePool, forget_private_keys, record_revoked};
use crate::{
    OwnPackage, Staged, StorageError,
    mls::{ledger_ref, mls_ref},
    storage::fresh_command,
};

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Issue {
    /// Private keys are there which no Welcome can come for: by the own history the package was never
    /// made, or is spent or expired. Repaired by deleting them.
    KeysWithoutPackage {
        /// The package.
        keypackage_ref: KeyPackageRef,
    },
    /// A package that inviters may use has no private keys, or none that can be opened. Repaired by
    /// recording it as withdrawn; it is then to be withdrawn from the server as well.
    PackageWithoutKeys {
        /// The package.
        keypackage_ref: KeyPackageRef,
    },
    /// A value cannot be opened. Not repaired: a backup of the whole home may have it.
    ValueLost {
        /// A description of it.
        what: String,
    },
    /// Slots of the key file hold keys that belong to no value. Repaired by overwriting them.
    StaleSlots {
        /// How many.
        count: usize,
    },
}

impl Issue {
    /// Whether [`KeyPackagePool::repair`] sets it right.
    #[must_use]
    pub const fn is_repairable(&self) -> bool {
        match self {
            Self::KeysWithoutPackage { .. }
            | Self::PackageWithoutKeys { .. }
            | Self::StaleSlots { .. } => true,
            Self::ValueLost { .. } => false,
        }
    }
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeysWithoutPackage { keypackage_ref } => {
                let package = keypackage_ref.short();
                write!(f, "package {package} is over, and its private keys are still here")
            }
            Self::PackageWithoutKeys { keypackage_ref } => {
                let package = keypackage_ref.short();
                write!(f, "package {package} may still be used, and its private keys are lost")
            }
            Self::ValueLost { what } => {
                write!(f, "{what} cannot be opened; a backup of the whole home may have it")
            }
            Self::StaleSlots { count } => {
                write!(f, "{count} slots of the key file hold keys that belong to nothing")
            }
        }
    }
}

/// The issues that the doctor has found, and its repairs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DoctorReport {
    /// The issues, including those that were repaired.
    pub findings: Vec<Issue>,
    /// The packages that the server may still hand out though their private keys are lost: to be
    /// withdrawn there, by [`MlsClient::withdraw_from_server`](crate::MlsClient::withdraw_from_server).
    pub to_withdraw: Vec<KeyPackageRef>,
    /// Whether all repairable issues were repaired.
    pub repaired: bool,
}

impl DoctorReport {
    /// Whether all is as it should be.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty() && self.to_withdraw.is_empty()
    }
}

impl fmt::Display for DoctorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_sound() {
            return f.write_str("the device's history and its store agree");
        }
        for finding in &self.findings {
            let outcome = match (self.repaired, finding.is_repairable()) {
                (true, true) => " (repaired)",
                (true, false) => " (not repaired)",
                (false, _) => "",
            };
            writeln!(f, "{finding}{outcome}")?;
        }
        for keypackage_ref in &self.to_withdraw {
            writeln!(f, "package {} is to be withdrawn from the server", keypackage_ref.short())?;
        }
        Ok(())
    }
}

impl KeyPackagePool {
    /// Looks for contradictions between the device's own history and its store. Changes nothing. It opens
    /// every value once, which takes a while in a store of thousands.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store cannot be read at all.
    pub fn check_up(&self, now: Timestamp) -> Result<DoctorReport, StorageError> {
        let staged = self.store.stage()?;
        let findings = examine(&staged, now)?;
        let server_may_hand_out = |own: &OwnPackage| {
            let at_server = staged.server_pool_has_live(&own.facts.keypackage_ref);
            !own.is_expired(now) && own.stage.keeps_keys() && at_server
        };
        let candidates = staged.packages_where(server_may_hand_out);
        let lost = candidates.into_iter().map(|own| own.facts.keypackage_ref);
        let mut to_withdraw = Vec::new();
        for keypackage_ref in lost {
            if !staged.opens_key_package(&mls_ref(&keypackage_ref)?)? {
                to_withdraw.push(keypackage_ref);
            }
        }
        Ok(DoctorReport { findings, to_withdraw, repaired: false })
    }

    /// Repairs the issues that the doctor finds, in one write. Returns the report.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store fails. Nothing has been repaired then, but for slots that
    /// belong to nothing.
    pub fn repair(&self, now: Timestamp) -> Result<DoctorReport, StorageError> {
        let checkup = self.check_up(now)?;
        let staged = self.store.stage()?;
        for finding in &checkup.findings {
            match finding {
                Issue::KeysWithoutPackage { keypackage_ref } => {
                    forget_private_keys(&staged, keypackage_ref)?;
                }
                Issue::PackageWithoutKeys { keypackage_ref } => {
                    let (refs, when) =
                        (std::slice::from_ref(keypackage_ref), (now, fresh_command()));
                    record_revoked(&staged, refs, RevokeReason::Withdrawn, when)?;
                    forget_private_keys(&staged, keypackage_ref)?;
                }
                Issue::StaleSlots { .. } => staged.erase_stale_slots()?,
                Issue::ValueLost { .. } => {}
            }
        }
        staged.commit()?;
        Ok(DoctorReport { repaired: true, ..checkup })
    }
}

fn examine(staged: &Staged<'_>, now: Timestamp) -> Result<Vec<Issue>, StorageError> {
    let mut stored = BTreeSet::new();
    for reference in staged.stored_key_packages()? {
        let value = |source| StorageError::Value { what: "reference".to_owned(), source };
        stored.insert(ledger_ref(&reference).map_err(value)?);
    }
    let mut findings = Vec::new();
    for keypackage_ref in &stored {
        if !staged.package(keypackage_ref).is_some_and(|own| own.stage.keeps_keys()) {
            let keypackage_ref = keypackage_ref.clone();
            findings.push(Issue::KeysWithoutPackage { keypackage_ref });
        }
    }
    for own in staged.packages_where(|own| own.stage.keeps_keys() && !own.is_expired(now)) {
        let keypackage_ref = own.facts.keypackage_ref;
        let is_lost = !staged.opens_key_package(&mls_ref(&keypackage_ref)?)?;
        // One that is withdrawn already and has no keys is as a repair leaves it.
        if is_lost && (own.stage.is_live() || stored.contains(&keypackage_ref)) {
            findings.push(Issue::PackageWithoutKeys { keypackage_ref });
        }
    }
    findings.extend(staged.lost_values()?.into_iter().map(|what| Issue::ValueLost { what }));
    match staged.stale_slots()? {
        0 => {}
        count => findings.push(Issue::StaleSlots { count }),
    }
    Ok(findings)
}
