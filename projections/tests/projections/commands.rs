//! The numbers that bound a pool, as the log has them, and the kinds of commands.

use std::time::Duration;

use keypool_ledger::{
    CredentialBytes, Hash, RevokeReason, RuleSettings, Signature, SignatureKey, SignedStatement,
};
use keypool_projections::{Command, Limits, NextKey, OnLapse, PolicyChange, Remover, RevokeScope};

use crate::history::{at, claim, group, leaf_key, package};

#[test]
fn limits_come_back_from_the_log_as_they_were_recorded() {
    let limits = Limits {
        packages_max: 7,
        reservation_ttl: Duration::from_millis(61_001),
        grace: Duration::from_millis(62_002),
        life_margin: Duration::from_millis(63_003),
        renewals_max: 4,
        on_lapse: OnLapse::Retire,
        ..Limits::STANDARD
    };
    let recorded = limits.recorded();
    let expected = RuleSettings {
        reservation_ttl_ms: 61_001,
        grace_ms: 62_002,
        life_margin_ms: 63_003,
        renewals_max: 4,
        lapses_max: 1,
        packages_max: 7,
    };
    assert_eq!(recorded, expected);
    assert_eq!(Limits::of(&recorded), limits);
    let requeues = |lapses_max| Limits::of(&RuleSettings { lapses_max, ..recorded }).on_lapse;
    let expected = [OnLapse::Retire, OnLapse::Retire, OnLapse::Requeue, OnLapse::Requeue];
    assert_eq!([0, 1, 2, 3].map(requeues), expected);
}

fn statement() -> SignedStatement {
    SignedStatement {
        by: key(),
        head: Hash::ZERO,
        until: at(0),
        proof: Signature::new(&[0; 64]).unwrap(),
    }
}

fn key() -> SignatureKey {
    SignatureKey::new(&[1; 32]).unwrap()
}

#[test]
fn two_commands_bring_packages() {
    let packages = vec![package("a"), package("b")];
    let replace = Command::Replace { packages: packages.clone(), next: None };
    assert_eq!(replace.packages(), packages);
    assert_eq!(Command::Upload(packages.clone()).packages(), packages);
    assert_eq!(Command::Settle.packages(), []);
}

#[test]
fn a_command_changes_keys_if_it_is_about_a_registered_declared_or_recovery_key() {
    let credential = || "bob".to_owned();
    let (signature_key, statement_of) = (key, statement);
    let next = NextKey {
        statement: statement(),
        signature_key: key(),
        credential: credential(),
        leaf_keys: Vec::new(),
    };
    let changes = [
        Command::Register {
            signature_key: signature_key(),
            credential: credential(),
            statement: None,
        },
        Command::Rotate {
            statement: statement_of(),
            signature_key: signature_key(),
            credential: credential(),
        },
        Command::Admit {
            signature_key: signature_key(),
            credential: credential(),
            statement: None,
            frontend: None,
        },
        Command::Remove { by: Remover::Operator },
        Command::DeclareLeafKey { statement: statement_of(), leaf_key: leaf_key(1) },
        Command::DeclareCredential {
            statement: statement_of(),
            credential: CredentialBytes::new(&[0, 1, 2]).unwrap(),
        },
        Command::SetRecoveryKey { statement: statement_of(), recovery_key: key() },
        Command::Recover {
            statement: statement_of(),
            signature_key: signature_key(),
            credential: credential(),
        },
        Command::ReleaseName,
        Command::Replace { packages: Vec::new(), next: Some(next) },
    ];
    for command in changes {
        assert!(command.changes_keys(), "{command:?}");
    }
    let keeps = [
        Command::Replace { packages: Vec::new(), next: None },
        Command::Upload(Vec::new()),
        Command::Renew(claim("a", 1, "alice")),
        Command::Spend { claim: claim("a", 1, "alice"), group: group("g") },
        Command::Revoke { which: RevokeScope::All, reason: RevokeReason::Withdrawn },
        Command::SetPolicy(PolicyChange::default()),
        Command::Settle,
    ];
    for command in keeps {
        assert!(!command.changes_keys(), "{command:?}");
    }
}
