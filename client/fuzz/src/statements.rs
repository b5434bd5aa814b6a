//! Statements of devices, and the device lists that readers follow by them.

use std::time::Duration;

use keypool_ledger::{
    CredentialBytes, Event, Hash, PoolId, Signature, SignatureKey, SignedStatement, Timestamp,
};
use keypool_projections::{
    directory::{DeviceChange, DeviceList},
    statement::{Agreement, LedgerId, Statement, contact_statement},
};

use super::input::InputReader;

/// How many changes an input makes at most.
const CHANGES_MAX: usize = 24;
/// The devices of the user in an input.
const DEVICES: [&str; 3] = ["alice/phone", "alice/laptop", "alice/tablet"];

/// The parts of a statement, in whole seconds as it has them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct StatementParts {
    ledger: LedgerId,
    subject: PoolId,
    by: SignatureKey,
    kind: usize,
    scheme: u16,
    key: SignatureKey,
    digest: Hash,
    head: Hash,
    until: Timestamp,
}

impl StatementParts {
    fn of(input: &mut InputReader<'_>) -> Option<Self> {
        let kind = input.number(5);
        Some(Self {
            ledger: input.text(64).parse().ok()?,
            subject: input.text(64).parse().ok()?,
            by: SignatureKey::new(input.bytes(133)).ok()?,
            kind,
            scheme: if kind == 2 { input.any() } else { 0 },
            key: match kind {
                3 => SignatureKey::new(&[0; 32]).ok()?,
                _ => SignatureKey::new(input.bytes(133)).ok()?,
            },
            digest: if kind == 3 { Hash::of(input.bytes(4)) } else { Hash::ZERO },
            head: Hash::of(input.bytes(4)),
            until: Timestamp::from_secs(input.any()),
        })
    }

    fn agreement(&self) -> Agreement<'_> {
        match self.kind {
            0 => Agreement::Vouch(&self.key),
            1 => Agreement::Rotate(&self.key),
            2 => Agreement::LeafKey(self.scheme, &self.key),
            3 => Agreement::Credential(&self.digest),
            4 => Agreement::RecoveryKey(&self.key),
            _ => Agreement::Recover(&self.key),
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let Self { ledger, subject, by, head, until, .. } = self;
        let (agreement, until) = (self.agreement(), *until);
        Statement { ledger, subject, by, agreement, head, until }.to_bytes()
    }
}

/// Builds two statements: their bytes are the same only if their parts are. A statement is good until its end, and no
/// longer than its kind may be.
pub fn statement(bytes: &[u8]) {
    let mut input = InputReader::new(bytes);
    let Some(one) = StatementParts::of(&mut input) else { return };
    let text = String::from_utf8(one.to_bytes()).expect("a statement is text");
    assert_eq!(text.lines().count(), 8, "no part of a statement has a line break");
    let now = Timestamp::from_millis(input.any());
    let (agreement, valid) = (one.agreement(), one.agreement().valid_for());
    if agreement.check_time(one.until, now).is_ok() {
        let left = one.until.since(now);
        assert!(Duration::ZERO < left && left <= valid + Duration::from_mins(1));
    }
    let contact = contact_statement(&one.ledger, one.subject.user(), &one.by, one.until);
    assert_ne!(contact, one.to_bytes(), "a contact token is no statement");
    let Some(other) = StatementParts::of(&mut input) else { return };
    assert_eq!(
        one.to_bytes() == other.to_bytes(),
        one == other,
        "statements differ in their bytes"
    );
}

/// Follows a device list by changes that are signed rightly or wrongly. A change whose statement is wrong is refused,
/// and the list is as it was.
pub fn device_list(bytes: &[u8]) {
    let mut input = InputReader::new(bytes);
    let ledger: LedgerId = "ledger+0123abcd".parse().unwrap();
    let mut list = DeviceList::new("alice");
    let mut heads = vec![list.head()];
    for position in 1..=CHANGES_MAX as u64 {
        if input.is_empty() {
            break;
        }
        let (change, is_genuine) = change(&mut input, (&ledger, &heads), position);
        let mut after = list.clone();
        let applied = after.apply(&change, std::slice::from_ref(&ledger), &has_signed);
        let end = (after.head(), position);
        let before = list.clone();
        let followed =
            list.follow(&[change], end, std::slice::from_ref(&ledger), &has_signed).is_ok();
        assert_eq!(followed, applied.is_ok(), "following a change is applying it");
        assert!(is_genuine || !followed, "a change with a wrong statement is refused");
        if !followed {
            assert_eq!(list, before, "a refused change leaves the list as it was");
        }
        heads.push(list.head());
        let json = serde_json::to_vec(&list).expect("a device list can be written");
        assert_eq!(serde_json::from_slice::<DeviceList>(&json).ok().as_ref(), Some(&list));
    }
}

/// A change, and whether its statement, if it has one, is signed as it must be.
fn change(
    input: &mut InputReader<'_>,
    (ledger, heads): (&LedgerId, &[Hash]),
    position: u64,
) -> (DeviceChange, bool) {
    let device: PoolId = input.pick(&DEVICES).parse().unwrap();
    let (key, by) = (key(input), key(input));
    let (scheme, until) = (0x0403, Timestamp::from_secs(input.number(255) as u64));
    let credential = CredentialBytes::new(&[0, 1, 2, input.any()]).unwrap();
    let digest = credential.digest();
    let head = heads[input.number(heads.len() - 1)];
    let kind = input.number(6);
    let fault = input.number(3);
    let sign = |agreement: Agreement<'_>| {
        let other: LedgerId = "other+0123abcd".parse().unwrap();
        let ledger = if fault == 1 { &other } else { ledger };
        let subject = &device;
        let bytes =
            Statement { ledger, subject, by: &by, agreement, head: &head, until }.to_bytes();
        let mut proof = proof_of(&by, &bytes);
        proof[0] ^= u8::from(fault == 2);
        let proof = Signature::new(&proof).unwrap();
        SignedStatement { by: by.clone(), head, until, proof }
    };
    let is_signed = input.flag();
    let when = |statement: SignedStatement| is_signed.then_some(statement);
    let event = match kind {
        0 => Event::Registered {
            signature_key: key.clone(),
            credential: "alice".to_owned(),
            voucher: None,
            statement: when(sign(if input.flag() {
                Agreement::Vouch(&key)
            } else {
                Agreement::Recover(&key)
            })),
            frontend: None,
        },
        1 => Event::KeyRotated {
            signature_key: key.clone(),
            credential: "alice".to_owned(),
            statement: when(sign(Agreement::Rotate(&key))),
        },
        2 => Event::DeviceRemoved { by_operator: input.flag() },
        3 => Event::LeafKeyPinned {
            signature_scheme: scheme,
            signature_key: key.clone(),
            statement: when(sign(Agreement::LeafKey(scheme, &key))),
        },
        4 => Event::CredentialDeclared {
            credential,
            statement: sign(Agreement::Credential(&digest)),
        },
        5 => Event::RecoveryKeySet {
            recovery_key: key.clone(),
            statement: sign(Agreement::RecoveryKey(&key)),
        },
        _ => Event::NameReleased {},
    };
    let has_statement = matches!(kind, 4 | 5) || is_signed && matches!(kind, 0 | 1 | 3);
    let is_genuine = !has_statement || !matches!(fault, 1 | 2);
    (DeviceChange { device, position, at: until, event }, is_genuine)
}

/// One of a few keys.
fn key(input: &mut InputReader<'_>) -> SignatureKey {
    SignatureKey::new(&[input.pick(&[0, 1, 2, 3, 4, 5, 6, 7]); 32]).unwrap()
}

/// Stands for a signature: the digest of the key and the bytes.
fn proof_of(by: &SignatureKey, bytes: &[u8]) -> [u8; 32] {
    *Hash::of(&[by.as_bytes(), bytes].concat()).as_bytes()
}

fn has_signed(by: &SignatureKey, bytes: &[u8], signature: &Signature) -> bool {
    signature.as_bytes() == proof_of(by, bytes)
}
