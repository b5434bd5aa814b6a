//! The texts of names, ids, keys and tokens, as people and other programs write them.

use std::{
    fmt::{Debug, Display},
    str::FromStr,
};

use keypool_api::{Code, ContactToken, Voucher};
use keypool_client::RecoveryWords;
use keypool_ledger::{
    CommandId, CredentialBytes, GroupId, Hash, KeyPackageRef, PoolId, ReservationId, Signature,
    SignatureKey, StreamId, SubjectId,
};
use keypool_projections::statement::LedgerId;
use keypool_server::{CorsOrigin, LowWater, WebhookUrl};
use keypool_transparency::{NoteKey, TreeHash};

/// Reads a text as the type that the first byte says. Written again it is read as the same value.
pub fn word(bytes: &[u8]) {
    let Some((kind, text)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(text);
    let kinds = KINDS.len();
    KINDS[usize::from(*kind) % kinds](&text);
}

/// The types. A new one comes to the end, so that the corpus keeps its meaning.
const KINDS: &[fn(&str)] = &[
    check::<PoolId>,
    check::<StreamId>,
    check::<KeyPackageRef>,
    check::<ReservationId>,
    check::<CommandId>,
    check::<GroupId>,
    check::<CredentialBytes>,
    check::<Hash>,
    check::<SignatureKey>,
    check::<Signature>,
    check::<SubjectId>,
    check::<Voucher>,
    check::<Code>,
    check::<ContactToken>,
    check::<LedgerId>,
    check::<NoteKey>,
    check::<TreeHash>,
    check::<WebhookUrl>,
    check_origin,
    check_low_water,
    check_recovery_words,
    check_path,
    check_verifier_key,
];

fn check<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    let Ok(value) = text.parse::<T>() else { return };
    let again = value.to_string();
    assert!(!again.contains(['\n', '\0']), "a word is one line");
    assert_eq!(again.parse::<T>().ok(), Some(value), "a word is read as it was written");
}

fn check_origin(text: &str) {
    let _ = text.parse::<CorsOrigin>();
}

fn check_low_water(text: &str) {
    let _ = text.parse::<LowWater>();
}

fn check_recovery_words(text: &str) {
    if text.parse::<RecoveryWords>().is_ok() {
        assert_eq!(text.split_whitespace().count(), 24);
    }
}

/// Checks the form of a group's id in a path.
fn check_path(text: &str) {
    if let Ok(group) = GroupId::from_path(text) {
        assert_eq!(group.to_path(), text, "a group has one path");
    }
}

fn check_verifier_key(text: &str) {
    if let Some(ledger) = LedgerId::of_verifier_key(text) {
        assert!(text.starts_with(&ledger.to_string()));
    }
}
