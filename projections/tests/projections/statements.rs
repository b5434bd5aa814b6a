//! The statements that devices sign: their bytes, their time, and the ledger that they are for.

use std::time::Duration;

use insta::assert_snapshot;
use keypool_ledger::{Hash, SignatureKey};
use keypool_projections::statement::{
    Agreement, LedgerId, Statement, StatementTime, contact_statement, device_list_head,
};

use crate::history::{at, pool};

fn key(number: u8) -> SignatureKey {
    SignatureKey::new(&[number; 32]).unwrap()
}

fn ledger() -> LedgerId {
    "keypool.example+0123abcd".parse().unwrap()
}

#[test]
fn a_statement_is_lines_of_text() {
    let (by, of, digest) = (key(1), key(2), Hash::of(b"credential"));
    let agreements = [
        Agreement::Vouch(&of),
        Agreement::Rotate(&of),
        Agreement::LeafKey(0x0403, &of),
        Agreement::Credential(&digest),
        Agreement::RecoveryKey(&of),
        Agreement::Recover(&of),
    ];
    let (ledger, subject, head) = (ledger(), pool("bob/phone"), Hash::of(b"head"));
    let lines = agreements.map(|agreement| {
        let (ledger, subject, by, head) = (&ledger, &subject, &by, &head);
        let statement = Statement { ledger, subject, by, agreement, head, until: at(9) };
        let text = String::from_utf8(statement.to_bytes()).unwrap();
        text.strip_suffix('\n').unwrap().replace('\n', " / ")
    });
    assert_snapshot!(lines.join("\n"), @"
    keypool-statement-v2 / vouch / keypool.example+0123abcd / bob/phone / AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE / AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI / 35f1ea002bfb00c125884e650f864046b687e0a48a6edc1a591c459f8c341da5 / 1800000009
    keypool-statement-v2 / rotate / keypool.example+0123abcd / bob/phone / AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE / AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI / 35f1ea002bfb00c125884e650f864046b687e0a48a6edc1a591c459f8c341da5 / 1800000009
    keypool-statement-v2 / leaf-key / keypool.example+0123abcd / bob/phone / AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE / 0x0403 AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI / 35f1ea002bfb00c125884e650f864046b687e0a48a6edc1a591c459f8c341da5 / 1800000009
    keypool-statement-v2 / credential / keypool.example+0123abcd / bob/phone / AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE / c6f5c35409651bec2fadeda63e12f7475186994396513645978cbba6e4c2128f / 35f1ea002bfb00c125884e650f864046b687e0a48a6edc1a591c459f8c341da5 / 1800000009
    keypool-statement-v2 / recovery-key / keypool.example+0123abcd / bob/phone / AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE / AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI / 35f1ea002bfb00c125884e650f864046b687e0a48a6edc1a591c459f8c341da5 / 1800000009
    keypool-statement-v2 / recover / keypool.example+0123abcd / bob/phone / AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE / AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI / 35f1ea002bfb00c125884e650f864046b687e0a48a6edc1a591c459f8c341da5 / 1800000009
    ");
}

#[test]
fn a_contact_token_is_lines_of_text() {
    let (ledger, by) = (ledger(), key(1));
    let token = contact_statement(&ledger, "bob", &by, at(9).after(Duration::from_millis(999)));
    assert_snapshot!(String::from_utf8(token).unwrap(), @"
    keypool-statement-v2
    contact
    keypool.example+0123abcd
    bob
    AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE
    1800000009
    ");
}

#[test]
fn a_statement_is_good_until_its_end_and_for_no_longer_than_its_kind_may_be() {
    let (of, digest, now) = (key(2), Hash::ZERO, at(1000));
    let minutes = |agreement: Agreement<'_>| {
        let check = |millis| agreement.check_time(now.after(Duration::from_millis(millis)), now);
        let most = u64::try_from(agreement.valid_for().as_millis()).unwrap() + 60_000;
        assert_eq!(check(0), Err(StatementTime::Expired));
        assert_eq!([check(1), check(most - 1), check(most)], [Ok(()); 3]);
        assert_eq!(check(most + 1), Err(StatementTime::TooLong));
        agreement.valid_for().as_secs() / 60
    };
    let short = [
        Agreement::Rotate(&of),
        Agreement::LeafKey(1, &of),
        Agreement::Credential(&digest),
        Agreement::RecoveryKey(&of),
    ];
    assert_eq!(short.map(minutes), [5; 4]);
    assert_eq!([Agreement::Vouch(&of), Agreement::Recover(&of)].map(minutes), [10; 2]);
    let before = now.before(Duration::from_millis(1));
    assert_eq!(Agreement::Vouch(&of).check_time(before, now), Err(StatementTime::Expired));
}

#[test]
fn a_ledger_is_named_by_the_name_and_the_hash_of_its_key() {
    let key = "keypool.example+0123abcd+AbCd+ef==";
    assert_eq!(LedgerId::of_verifier_key(key), Some(ledger()));
    for other in ["keypool.example+0123abcd", "keypool.example", "", "key pool+0123abcd+x"] {
        assert_eq!(LedgerId::of_verifier_key(other), None, "{other:?}");
    }
    let parse = |text: &str| text.parse::<LedgerId>();
    assert_eq!(parse("a+b").map(|id| id.to_string()), Ok("a+b".to_owned()));
    for other in ["", "ab", "a b+c", "a+\n", "ä+b"] {
        assert!(parse(other).is_err(), "{other:?}");
    }
    let long = |len: usize| format!("a+{}", "b".repeat(len - 2));
    assert_eq!((parse(&long(300)).is_ok(), parse(&long(301)).is_ok()), (true, false));
    let json = serde_json::to_string(&ledger()).unwrap();
    assert_eq!(json, "\"keypool.example+0123abcd\"");
    assert_eq!(serde_json::from_str::<LedgerId>(&json).unwrap(), ledger());
    assert!(serde_json::from_str::<LedgerId>("\"ab\"").is_err());
}

#[test]
fn the_head_of_a_device_list_changes_with_each_name_count_and_key() {
    let (one, two) = (key(1), key(2));
    let head = |user, devices: &[(&'static str, u64, Option<&SignatureKey>)]| {
        device_list_head(user, devices.iter().copied())
    };
    let base = head("bob", &[("laptop", 1, None), ("phone", 2, Some(&one))]);
    assert_snapshot!(base, @"d4a025a7c76f058daff80e75338eca7c5cc41105f2802272b5d840e41112498a");
    let others = [
        head("bob", &[("laptop", 2, None), ("phone", 2, Some(&one))]),
        head("bob", &[("laptop", 1, None), ("phone", 2, Some(&two))]),
        head("bob", &[("laptop", 1, Some(&one)), ("phone", 2, Some(&one))]),
        head("bob", &[("phone", 2, Some(&one))]),
        head("eve", &[("laptop", 1, None), ("phone", 2, Some(&one))]),
    ];
    assert!(others.iter().all(|other| *other != base));
    // A device that never changed is not there yet.
    let unborn = ("tablet", 0, None);
    assert_eq!(head("bob", &[("laptop", 1, None), ("phone", 2, Some(&one)), unborn]), base);
}
