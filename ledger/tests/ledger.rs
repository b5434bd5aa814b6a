//! The tests of the ledger: its logs, their files, the bytes of its records, and the house rules.
#![cfg(test)]

mod ledger {
    mod arbitrary;
    mod backup;
    mod circles;
    mod codec;
    mod collisions;
    mod contract;
    mod damage;
    mod database;
    mod erasing;
    mod forged;
    mod golden;
    mod ids;
    mod index;
    mod journal;
    mod live_damage;
    mod machine;
    mod named;
    mod opening;
    mod properties;
    mod pruning;
    mod repair;
    mod replicated;
    mod restoring;
    mod sealed;
    mod support;
    mod tidy;
    mod time;
    mod traces;
}
