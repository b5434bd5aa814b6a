//! The commands that the store gives to the pools, each with the type of its answer.
//!
//! A command and its answer stand together here and nowhere else: the rest of the store has typed answers.

use keypool_ledger::{
    CredentialBytes, GroupId, KeyPackageRef, PackageFacts, PoolId, ReservationId, RevokeReason,
    SignatureKey, SignedStatement, Timestamp,
};
use keypool_projections::{
    Answer, Claim, Command, ItemOutcome, LeafKey, NewPackage, NextKey, PolicyChange, PolicyStatus,
    Remover, RevokeScope,
};

use super::{ReservationRequest, Spent};

/// A command, and the function that takes its answer out of all answers.
pub(super) struct Typed<T> {
    pub(super) command: Command,
    pub(super) answer: fn(Answer) -> Option<T>,
}

/// Shorthand for the function of a [`Typed`] command: a pattern, and the value made of it.
macro_rules! answer {
    ($pattern:pat => $value:expr) => {
        |answer| match answer {
            $pattern => Some($value),
            _ => None,
        }
    };
}

/// A package that was set aside.
pub(super) struct Reserved {
    pub(super) facts: PackageFacts,
    pub(super) reservation: ReservationId,
    pub(super) generation: u32,
    pub(super) deadline: Timestamp,
}

/// The outcome of each new package, and the packages withdrawn for them.
pub(super) struct Exchanged {
    pub(super) outcomes: Vec<ItemOutcome>,
    pub(super) revoked: Vec<KeyPackageRef>,
}

/// Registers a key; the answer says whether it was registered before.
pub(super) fn register(
    pool: &PoolId,
    signature_key: SignatureKey,
    statement: Option<SignedStatement>,
) -> Typed<bool> {
    let credential = pool.user().to_owned();
    let command = Command::Register { signature_key, credential, statement };
    Typed { command, answer: answer!(Answer::Registered { known } => known) }
}

/// Registers a key by the operator's word, or by that of a frontend; the answer says whether it was registered
/// before.
pub(super) fn admit(
    pool: &PoolId,
    signature_key: SignatureKey,
    statement: Option<SignedStatement>,
    frontend: Option<SignatureKey>,
) -> Typed<bool> {
    let credential = pool.user().to_owned();
    let command = Command::Admit { signature_key, credential, statement, frontend };
    Typed { command, answer: answer!(Answer::Registered { known } => known) }
}

/// Rotates the key of a device; the answer says whether the new one was registered before.
pub(super) fn rotate(
    pool: &PoolId,
    statement: SignedStatement,
    signature_key: SignatureKey,
) -> Typed<bool> {
    let credential = pool.user().to_owned();
    let command = Command::Rotate { statement, signature_key, credential };
    Typed { command, answer: answer!(Answer::Registered { known } => known) }
}

/// Removes a device.
pub(super) fn remove(by: Remover) -> Typed<()> {
    Typed { command: Command::Remove { by }, answer: answer!(Answer::Removed => ()) }
}

/// Releases the name of a device.
pub(super) fn release_name() -> Typed<()> {
    Typed { command: Command::ReleaseName, answer: answer!(Answer::Removed => ()) }
}

/// Declares the key of another signature scheme.
pub(super) fn declare_leaf_key(statement: SignedStatement, leaf_key: LeafKey) -> Typed<()> {
    let command = Command::DeclareLeafKey { statement, leaf_key };
    Typed { command, answer: answer!(Answer::Declared => ()) }
}

/// Declares the credential of a device's packages.
pub(super) fn declare_credential(
    statement: SignedStatement,
    credential: CredentialBytes,
) -> Typed<()> {
    let command = Command::DeclareCredential { statement, credential };
    Typed { command, answer: answer!(Answer::Declared => ()) }
}

/// Sets the recovery key of a user.
pub(super) fn set_recovery_key(
    statement: SignedStatement,
    recovery_key: SignatureKey,
) -> Typed<()> {
    let command = Command::SetRecoveryKey { statement, recovery_key };
    Typed { command, answer: answer!(Answer::Declared => ()) }
}

/// Registers a key by the word of the user's recovery key.
pub(super) fn recover(
    pool: &PoolId,
    statement: SignedStatement,
    signature_key: SignatureKey,
) -> Typed<bool> {
    let credential = pool.user().to_owned();
    let command = Command::Recover { statement, signature_key, credential };
    Typed { command, answer: answer!(Answer::Registered { known } => known) }
}

/// Uploads packages; the answer has one outcome for each.
pub(super) fn upload(packages: Vec<NewPackage>) -> Typed<Vec<ItemOutcome>> {
    let command = Command::Upload(packages);
    Typed { command, answer: answer!(Answer::Uploaded(outcomes) => outcomes) }
}

/// Replaces the live packages of a pool.
pub(super) fn replace(packages: Vec<NewPackage>, next: Option<NextKey>) -> Typed<Exchanged> {
    let command = Command::Replace { packages, next };
    let answer = answer!(Answer::Replaced { outcomes, revoked } => Exchanged { outcomes, revoked });
    Typed { command, answer }
}

/// Reserves a package; without `last_resort_only` any that may be offered.
pub(super) fn reserve(
    asked: &ReservationRequest,
    introduced: bool,
    last_resort_only: bool,
) -> Typed<Reserved> {
    let command = Command::Reserve {
        reservation: asked.id,
        holder: asked.holder.clone(),
        group: asked.group.clone(),
        ciphersuites: asked.ciphersuites.clone(),
        required: asked.required.clone(),
        introduced,
        last_resort_only,
    };
    let answer = answer!(Answer::Reserved { facts, reservation, generation, deadline } => {
        Reserved { facts, reservation, generation, deadline }
    });
    Typed { command, answer }
}

/// Renews a reservation; the answer is its new deadline.
pub(super) fn renew(claim: Claim) -> Typed<Timestamp> {
    let command = Command::Renew(claim);
    Typed { command, answer: answer!(Answer::Renewed { deadline } => deadline) }
}

/// Gives a reserved package back.
pub(super) fn release(claim: Claim) -> Typed<()> {
    Typed { command: Command::Release(claim), answer: answer!(Answer::Released => ()) }
}

/// Reports a package that cannot be used.
pub(super) fn report(claim: Claim, check: Option<String>, admissible: bool) -> Typed<()> {
    let command = Command::Report { claim, check, admissible };
    Typed { command, answer: answer!(Answer::Reported => ()) }
}

/// Spends a reserved package.
pub(super) fn spend(claim: Claim, group: GroupId) -> Typed<Spent> {
    let command = Command::Spend { claim, group };
    Typed { command, answer: answer!(Answer::Spent { late, replayed } => Spent { late, replayed }) }
}

/// Withdraws packages; the answer names them.
pub(super) fn revoke(which: RevokeScope, reason: RevokeReason) -> Typed<Vec<KeyPackageRef>> {
    let command = Command::Revoke { which, reason };
    Typed { command, answer: answer!(Answer::Revoked(refs) => refs) }
}

/// Changes the policy of a pool; the answer is the policy afterwards.
pub(super) fn set_policy(change: PolicyChange) -> Typed<PolicyStatus> {
    let command = Command::SetPolicy(change);
    Typed { command, answer: answer!(Answer::PolicySet(status) => status) }
}
