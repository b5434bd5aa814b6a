//! Receipts: a server's signed account of one reservation, so that its holder can prove it later.
//!
//! The signed text is a note of its own kind. Its second line is `ledger NAME`, where a checkpoint has
//! its size in digits, so that no text is both.
//!
//! ```text
//! keypool/receipt@v1
//! ledger keypool.example
//! record 12
//! package 5d41402abc4b2a76b9719d911017c592
//! last-resort no
//! pool alice/phone
//! reservation 9b2f2f6e-6e0c-4b6c-8a39-3f6f4f0d7c11
//! generation 1
//! holder bob/main
//! group Z3JvdXAtMQ==
//! reserved-at-ms 1766400000000
//! deadline-ms 1766400060000
//! standing open
//! as-of 12
//! ```
//!
//! `as-of` is the record up to which the pool's history was read for `standing`.
//!
//! Of a ledger that hides names, the first line is `keypool/receipt@v2`, and two lines follow `holder`:
//! `pool-id` and `holder-id`, the pseudonyms by which the record names pool and holder.

use std::{fmt, str::FromStr};

use keypool_ledger::{
    Event, EventEnvelope, GroupId, KeyPackageRef, PoolId, ReservationId, StreamId, Timestamp, codec,
};

use super::{
    files::{INCLUSION, Inclusion, SignedArtifact},
    note::{NoteError, NoteKey, SignedNote},
    proof::ProofError,
};
/// The first line of a receipt.
const RECEIPT: &str = "keypool/receipt@v1";
/// The first line of a receipt of a record with pseudonyms.
const HIDDEN_RECEIPT: &str = "keypool/receipt@v2";

/// The status of a reservation, as a receipt says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptStanding {
    /// It holds its package.
    Open,
    /// Its holder gave the package back.
    Cancelled,
    /// It ran out.
    Lapsed,
    /// It spent its package.
    Spent,
    /// It ran out, its package was handed on, and its holder tried to spend all the same.
    Lost,
}

impl ReceiptStanding {
    const ALL: [Self; 5] = [Self::Open, Self::Cancelled, Self::Lapsed, Self::Spent, Self::Lost];

    /// The word in the text.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Cancelled => "cancelled",
            Self::Lapsed => "lapsed",
            Self::Spent => "spent",
            Self::Lost => "lost",
        }
    }

    /// Whether a reservation that stood like this may stand like `later` afterwards.
    fn may_become(self, later: Self) -> bool {
        match self {
            Self::Open => true,
            Self::Lapsed => matches!(later, Self::Lapsed | Self::Spent | Self::Lost),
            Self::Cancelled | Self::Spent | Self::Lost => self == later,
        }
    }
}

/// The server's word on one reservation. The server signs its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The name of the server's ledger.
    pub ledger: String,
    /// The package, its holder and the time: the same whenever it is asked.
    pub hand_out: HandOut,
    /// The status of the reservation.
    pub standing: ReceiptStanding,
    /// The record up to which the pool's history was read for that.
    pub as_of: u64,
}

/// One package handed to one inviter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandOut {
    /// The place of the reservation in the log.
    pub record: u64,
    /// The package.
    pub keypackage_ref: KeyPackageRef,
    /// Whether it is a last resort, which many may hold at a time.
    pub last_resort: bool,
    /// The owner of the package.
    pub pool: PoolId,
    /// The reservation.
    pub reservation: ReservationId,
    /// Which reservation of the package it is, from 1.
    pub generation: u32,
    /// The inviter's device.
    pub holder: PoolId,
    /// The group the invitation is for.
    pub group: GroupId,
    /// When it was made.
    pub reserved_at: Timestamp,
    /// When it was to end, as its holder was told first.
    pub deadline: Timestamp,
    /// The pseudonyms of pool and holder in the record; `None` if the record has their names.
    pub hidden: Option<(PoolId, PoolId)>,
}

impl HandOut {
    /// Reads a record, if it is a reservation in a pool's history.
    #[must_use]
    pub fn of(record: u64, envelope: &EventEnvelope, last_resort: bool) -> Option<Self> {
        let StreamId::Pool(pool) = &envelope.stream else { return None };
        let Event::Reserved { keypackage_ref, reservation, generation, holder, group, deadline } =
            &envelope.event
        else {
            return None;
        };
        Some(Self {
            record,
            keypackage_ref: keypackage_ref.clone(),
            last_resort,
            pool: pool.clone(),
            reservation: *reservation,
            generation: *generation,
            holder: holder.clone(),
            group: group.clone(),
            reserved_at: envelope.at,
            deadline: *deadline,
            hidden: None,
        })
    }

    /// Says by which pseudonyms the record names pool and holder, if it does: `stored` is the record's envelope as
    /// its bytes have it.
    #[must_use]
    pub fn hidden_by(self, stored: &EventEnvelope) -> Self {
        let stored = Self::of(self.record, stored, self.last_resort);
        let hidden = stored.map(|stored| (stored.pool, stored.holder));
        let hidden = hidden.filter(|(pool, _)| pool.is_pseudonym());
        Self { hidden, ..self }
    }

    /// The hand-out as the record's bytes have it.
    fn stored(&self) -> Self {
        let stored = self.clone();
        match self.hidden.clone() {
            Some((pool, holder)) => Self { pool, holder, hidden: None, ..stored },
            None => stored,
        }
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HandOut { record, keypackage_ref, pool, reservation, .. } = &self.hand_out;
        let HandOut { generation, holder, group, reserved_at, deadline, .. } = &self.hand_out;
        let last_resort = if self.hand_out.last_resort { "yes" } else { "no" };
        let (reserved_at, deadline) = (reserved_at.as_millis(), deadline.as_millis());
        let kind = if self.hand_out.hidden.is_some() { HIDDEN_RECEIPT } else { RECEIPT };
        writeln!(f, "{kind}\nledger {}\nrecord {record}", self.ledger)?;
        writeln!(f, "package {keypackage_ref}\nlast-resort {last_resort}\npool {pool}")?;
        writeln!(f, "reservation {reservation}\ngeneration {generation}")?;
        writeln!(f, "holder {holder}")?;
        if let Some((pool, holder)) = &self.hand_out.hidden {
            writeln!(f, "pool-id {pool}\nholder-id {holder}")?;
        }
        writeln!(f, "group {group}")?;
        writeln!(f, "reserved-at-ms {reserved_at}\ndeadline-ms {deadline}")?;
        writeln!(f, "standing {}\nas-of {}", self.standing.word(), self.as_of)
    }
}

impl FromStr for Receipt {
    type Err = ReceiptError;

    /// Reads a receipt's text. One that is not written exactly as receipts are is none.
    fn from_str(text: &str) -> Result<Self, ReceiptError> {
        let mut lines = text.lines();
        let is_hidden = match lines.next() {
            Some(RECEIPT) => false,
            Some(HIDDEN_RECEIPT) => true,
            _ => return Err(ReceiptError::Malformed),
        };
        let mut fields = ReceiptLines(lines);
        let receipt = Self {
            ledger: fields.next("ledger ")?,
            hand_out: HandOut {
                record: fields.next("record ")?,
                keypackage_ref: fields.next("package ")?,
                last_resort: fields.next::<String>("last-resort ")? == "yes",
                pool: fields.next("pool ")?,
                reservation: fields.next("reservation ")?,
                generation: fields.next("generation ")?,
                holder: fields.next("holder ")?,
                hidden: if is_hidden {
                    Some((fields.next("pool-id ")?, fields.next("holder-id ")?))
                } else {
                    None
                },
                group: fields.next("group ")?,
                reserved_at: fields.next("reserved-at-ms ").map(Timestamp::from_millis)?,
                deadline: fields.next("deadline-ms ").map(Timestamp::from_millis)?,
            },
            standing: {
                let word: String = fields.next("standing ")?;
                let standing =
                    ReceiptStanding::ALL.into_iter().find(|standing| standing.word() == word);
                standing.ok_or(ReceiptError::Malformed)?
            },
            as_of: fields.next("as-of ")?,
        };
        let exact = receipt.to_string() == text && receipt.hand_out.record <= receipt.as_of;
        if exact { Ok(receipt) } else { Err(ReceiptError::Malformed) }
    }
}

/// The lines of a text, each with a name.
struct ReceiptLines<'a>(std::str::Lines<'a>);

impl ReceiptLines<'_> {
    fn next<T: FromStr>(&mut self, name: &str) -> Result<T, ReceiptError> {
        let value = self.0.next().and_then(|line| line.strip_prefix(name));
        value.and_then(|value| value.parse().ok()).ok_or(ReceiptError::Malformed)
    }
}

/// The reason why a receipt is none, or is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// The text has not the form.
    #[error("it is no receipt: a signed receipt, an empty line, then the proof of its record")]
    Malformed,
    /// The receipt or the checkpoint is not signed by the key.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The hashes do not lead to the checkpoint's tree hash.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The proof is of another record, or of another ledger.
    #[error("the proof is not of the record that the receipt tells")]
    Other,
}

/// A receipt with the proof that its record is in the ledger: a file that can be checked offline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptFile {
    /// The receipt, signed.
    pub note: SignedNote,
    /// The record of the reservation, under a signed checkpoint.
    pub inclusion: Inclusion,
}

impl ReceiptFile {
    /// Checks everything against the ledger's key, and returns the receipt.
    ///
    /// # Errors
    ///
    /// Returns a [`ReceiptError`] if receipt or checkpoint are not signed by the key, or the record
    /// that the proof shows is not the reservation of the receipt.
    pub fn check(&self, key: &NoteKey) -> Result<Receipt, ReceiptError> {
        self.note.check(key)?;
        let SignedArtifact { checkpoint, note } = &self.inclusion.paper;
        note.as_ref().ok_or(NoteError::Unsigned)?.check(key)?;
        let receipt = self.read()?;
        if receipt.ledger != key.name() || checkpoint.origin() != key.name() {
            return Err(ReceiptError::Other);
        }
        Ok(receipt)
    }

    /// Reads the receipt, if the proof shows its record; the signer is not looked at.
    ///
    /// # Errors
    ///
    /// Returns a [`ReceiptError`] if the record that the proof shows is not the reservation of the
    /// receipt, or is of another ledger.
    pub fn read(&self) -> Result<Receipt, ReceiptError> {
        let receipt: Receipt = self.note.text().parse()?;
        self.inclusion.check()?;
        let record = self.inclusion.index.saturating_add(1);
        let envelope = codec::decode(&self.inclusion.envelope).map_err(|_| ReceiptError::Other)?;
        let shown = HandOut::of(record, &envelope, receipt.hand_out.last_resort);
        let of_one_ledger = receipt.ledger == self.inclusion.paper.checkpoint.origin();
        if !of_one_ledger || shown.as_ref() != Some(&receipt.hand_out.stored()) {
            return Err(ReceiptError::Other);
        }
        Ok(receipt)
    }
}

impl fmt::Display for ReceiptFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.note, self.inclusion)
    }
}

impl FromStr for ReceiptFile {
    type Err = ReceiptError;

    fn from_str(text: &str) -> Result<Self, ReceiptError> {
        let (note, _) =
            text.split_once(&format!("\n{INCLUSION}\n")).ok_or(ReceiptError::Malformed)?;
        let inclusion = text.get(note.len().saturating_add(1)..).unwrap_or_default();
        let malformed = |_| ReceiptError::Malformed;
        let inclusion = inclusion.parse().map_err(malformed)?;
        let file = Self { note: note.parse()?, inclusion };
        if file.to_string() == text { Ok(file) } else { Err(ReceiptError::Malformed) }
    }
}

/// How two receipts of one ledger for one package contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// They tell one reservation, or one record, in two ways.
    #[error("the two receipts tell one reservation in two ways: the ledger has two histories")]
    TwoStories,
    /// Both were the package's reservation of the same number, or in another order than numbered.
    #[error("the package's reservations are not numbered as they follow each other")]
    Numbering,
    /// The first still held the package, or had spent it, when the second got it.
    #[error(
        "the package was handed to a second inviter while the first held it: a double hand-out"
    )]
    HandedOutTwice,
    /// The second got the package before the first's time was over.
    ///
    /// That is a double hand-out, unless the holder of the first has given it back: only that holder
    /// can ask for it, and a later receipt for the first says so.
    #[error(
        "the package was handed to a second inviter before the first one's time was over: a double \
         hand-out, unless the first had given it back"
    )]
    Overlapping,
}

/// How two receipts contradict each other; `None` if they do not, or are not about one package of one
/// ledger. Check both first ([`ReceiptFile::check`]).
#[must_use]
pub fn contradiction(one: &Receipt, other: &Receipt) -> Option<Contradiction> {
    if (&one.ledger, &one.hand_out.keypackage_ref)
        != (&other.ledger, &other.hand_out.keypackage_ref)
    {
        return None;
    }
    let (first, second) =
        if one.hand_out.record <= other.hand_out.record { (one, other) } else { (other, one) };
    let (before, after) = (&first.hand_out, &second.hand_out);
    if before.reservation == after.reservation || before.record == after.record {
        let (early, late) = if one.as_of <= other.as_of { (one, other) } else { (other, one) };
        let follows = early.standing.may_become(late.standing)
            && (early.as_of < late.as_of || early.standing == late.standing);
        let differs = before.stored() != after.stored();
        return (differs || !follows).then_some(Contradiction::TwoStories);
    }
    if before.last_resort != after.last_resort {
        return Some(Contradiction::TwoStories);
    }
    if after.generation <= before.generation {
        return Some(Contradiction::Numbering);
    }
    if before.last_resort {
        return None;
    }
    let held = first.standing == ReceiptStanding::Open && after.record <= first.as_of;
    if held || first.standing == ReceiptStanding::Spent {
        return Some(Contradiction::HandedOutTwice);
    }
    let early = after.reserved_at < before.deadline && first.standing != ReceiptStanding::Cancelled;
    early.then_some(Contradiction::Overlapping)
}

#[cfg(test)]
mod tests;
