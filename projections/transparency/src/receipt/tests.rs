//! Receipts that hold, and those that contradict each other.

use keypool_ledger::{CommandId, Hash};
use uuid::Uuid;

use super::*;
use crate::{Checkpoint, NoteSigner, TreeHash};

const LEDGER: &str = "keypool.example";

fn signer() -> NoteSigner {
    NoteSigner::new(LEDGER, &[7; 32]).unwrap()
}

fn envelope(reservation: u128, holder: &str) -> EventEnvelope {
    EventEnvelope {
        schema: codec::SCHEMA,
        stream: StreamId::Pool("bob/main".parse().unwrap()),
        version: 4,
        at: Timestamp::from_secs(1000),
        command: CommandId(Uuid::from_u128(99)),
        request: Hash::ZERO,
        prev: Hash::ZERO,
        payload: Hash::ZERO,
        event: Event::Reserved {
            keypackage_ref: KeyPackageRef::new(&[5; 32]).unwrap(),
            reservation: ReservationId(Uuid::from_u128(reservation)),
            generation: 1,
            holder: holder.parse().unwrap(),
            group: GroupId::new(b"group").unwrap(),
            deadline: Timestamp::from_secs(1060),
        },
    }
}

/// The receipt of record 3 for alice, which stood open when it was asked.
fn receipt() -> Receipt {
    let hand_out = HandOut::of(3, &envelope(1, "alice/main"), false).unwrap();
    Receipt { ledger: LEDGER.to_owned(), hand_out, standing: ReceiptStanding::Open, as_of: 3 }
}

/// A receipt with the proof that its record is the third of four.
fn file(receipt: &Receipt, shown: &EventEnvelope, by: &NoteSigner) -> ReceiptFile {
    let shown = codec::encode(shown).unwrap();
    let leaves: Vec<&[u8]> = vec![b"one", b"two", &shown, b"four"];
    let [one, two, third, fourth] = [0, 1, 2, 3].map(|place| TreeHash::leaf(leaves[place]));
    let before = TreeHash::node(one, two);
    let root = TreeHash::node(before, TreeHash::node(third, fourth));
    let checkpoint = Checkpoint::new(by.public().name(), 4, root).unwrap();
    let note = Some(checkpoint.sign(by).unwrap());
    let paper = SignedArtifact { checkpoint, note };
    let hashes = vec![fourth, before];
    let inclusion = Inclusion { envelope: shown.clone(), index: 2, hashes, paper };
    ReceiptFile { note: by.sign(&receipt.to_string()).unwrap(), inclusion }
}

#[test]
fn a_receipt_is_read_back_and_checked() {
    let file = file(&receipt(), &envelope(1, "alice/main"), &signer());
    let read: ReceiptFile = file.to_string().parse().unwrap();
    assert_eq!(read, file);
    assert_eq!(read.check(&signer().public()), Ok(receipt()));
    insta::assert_snapshot!(receipt().to_string());
    assert!(receipt().to_string().parse::<Checkpoint>().is_err(), "it is no checkpoint");
    let checkpoint = file.inclusion.paper.checkpoint.to_string();
    assert_eq!(checkpoint.parse::<Receipt>(), Err(ReceiptError::Malformed));
}

#[test]
fn a_ledger_that_is_named_like_a_receipt_makes_none() {
    let checkpoint = Checkpoint::new(RECEIPT, 4, TreeHash::empty()).unwrap();
    assert_eq!(checkpoint.to_string().parse::<Receipt>(), Err(ReceiptError::Malformed));
}

#[test]
fn a_receipt_with_another_record_key_or_ledger_is_refused() {
    let (key, good) = (signer().public(), envelope(1, "alice/main"));
    let other = file(&receipt(), &envelope(1, "carol/main"), &signer());
    assert_eq!(other.check(&key), Err(ReceiptError::Other));
    let thief = NoteSigner::new(LEDGER, &[8; 32]).unwrap();
    let forged = file(&receipt(), &good, &thief);
    assert_eq!(forged.check(&key), Err(ReceiptError::Note(NoteError::Unsigned)));
    let mut mixed = file(&receipt(), &good, &signer());
    mixed.inclusion.paper = forged.inclusion.paper.clone();
    assert_eq!(mixed.check(&key), Err(ReceiptError::Note(NoteError::Unsigned)));
    let elsewhere = Receipt { ledger: "other.example".to_owned(), ..receipt() };
    assert_eq!(file(&elsewhere, &good, &signer()).check(&key), Err(ReceiptError::Other));
    let mut unsigned = file(&receipt(), &good, &signer());
    unsigned.inclusion.paper.note = None;
    assert_eq!(unsigned.check(&key), Err(ReceiptError::Note(NoteError::Unsigned)));
    let mut moved = file(&receipt(), &good, &signer());
    moved.inclusion.index = 3;
    assert_eq!(moved.check(&key), Err(ReceiptError::Proof(ProofError::Mismatch)));
}

#[test]
fn every_flipped_bit_of_a_receipt_is_found() {
    let (key, text) =
        (signer().public(), file(&receipt(), &envelope(1, "alice/main"), &signer()).to_string());
    let believed =
        |text: &str| text.parse::<ReceiptFile>().is_ok_and(|file| file.check(&key).is_ok());
    assert!(believed(&text));
    for place in 0..text.len() {
        for bit in 0..8 {
            let mut bytes = text.clone().into_bytes();
            bytes[place] ^= 1 << bit;
            let altered = String::from_utf8(bytes).is_ok_and(|altered| believed(&altered));
            assert!(!altered, "bit {bit} of byte {place}");
        }
    }
}

/// The receipt of record 7 for carol, later than alice's.
fn second() -> Receipt {
    let mut receipt = receipt();
    let carols = HandOut::of(7, &envelope(2, "carol/main"), false).unwrap();
    let reserved_at = Timestamp::from_secs(1200);
    receipt.hand_out = HandOut { generation: 2, reserved_at, ..carols };
    receipt.as_of = 7;
    receipt
}

fn stood(standing: ReceiptStanding, as_of: u64, receipt: Receipt) -> Receipt {
    Receipt { standing, as_of, ..receipt }
}

#[test]
fn two_receipts_of_an_honest_server_do_not_contradict_each_other() {
    use ReceiptStanding::{Cancelled, Lapsed, Lost, Open, Spent};
    let mut at_once = second();
    at_once.hand_out.reserved_at = Timestamp::from_secs(1001);
    let mut last_resort = (stood(Spent, 9, receipt()), at_once.clone());
    (last_resort.0.hand_out.last_resort, last_resort.1.hand_out.last_resort) = (true, true);
    let elsewhere = Receipt { ledger: "other.example".to_owned(), ..at_once.clone() };
    let pairs = [
        (receipt(), receipt()),
        (receipt(), stood(Lapsed, 6, receipt())),
        (stood(Lapsed, 6, receipt()), stood(Spent, 9, receipt())),
        (receipt(), second()),
        (stood(Open, 6, receipt()), second()),
        (stood(Lapsed, 9, receipt()), second()),
        (stood(Lost, 9, receipt()), second()),
        (stood(Cancelled, 4, receipt()), at_once.clone()),
        (receipt(), elsewhere),
        last_resort,
    ];
    for (one, other) in &pairs {
        assert_eq!(contradiction(one, other), None, "{one}{other}");
        assert_eq!(contradiction(other, one), None, "{one}{other}");
    }
}

#[test]
fn two_receipts_that_cannot_both_be_true_prove_it() {
    use ReceiptStanding::{Cancelled, Lapsed, Open, Spent};
    let altered = |change: fn(&mut Receipt)| {
        let mut receipt = second();
        change(&mut receipt);
        receipt
    };
    let retold = Receipt { hand_out: HandOut { generation: 3, ..receipt().hand_out }, ..receipt() };
    let pairs = [
        (receipt(), retold, Contradiction::TwoStories),
        (receipt(), altered(|r| r.hand_out.record = 3), Contradiction::TwoStories),
        (receipt(), altered(|r| r.hand_out.last_resort = true), Contradiction::TwoStories),
        (stood(Spent, 5, receipt()), stood(Open, 9, receipt()), Contradiction::TwoStories),
        (stood(Cancelled, 5, receipt()), stood(Open, 5, receipt()), Contradiction::TwoStories),
        (receipt(), altered(|r| r.hand_out.generation = 1), Contradiction::Numbering),
        (stood(Open, 7, receipt()), second(), Contradiction::HandedOutTwice),
        (stood(Spent, 5, receipt()), second(), Contradiction::HandedOutTwice),
        (
            receipt(),
            altered(|r| r.hand_out.reserved_at = Timestamp::from_secs(1059)),
            Contradiction::Overlapping,
        ),
        (
            stood(Lapsed, 9, receipt()),
            altered(|r| r.hand_out.reserved_at = Timestamp::from_secs(1059)),
            Contradiction::Overlapping,
        ),
    ];
    for (one, other, found) in &pairs {
        assert_eq!(contradiction(one, other), Some(*found), "{one}{other}");
        assert_eq!(contradiction(other, one), Some(*found), "{one}{other}");
    }
}
