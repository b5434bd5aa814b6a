//! The signed time of a log's server, as the answer to a number that was drawn for the question.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use keypool_ledger::Timestamp;

use super::note::{NoteError, NoteKey, NoteSigner, SignedNote};

/// The first line of the text.
const DOMAIN: &str = "keypool-time-v1";

/// The time of a server, stated for one question: nobody can show it again as the answer to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeStatement {
    /// The 16 random bytes of the question.
    pub nonce: [u8; 16],
    /// The server's time.
    pub at: Timestamp,
}

impl TimeStatement {
    /// Signs it as a note.
    ///
    /// # Errors
    ///
    /// Returns a [`NoteError`] if the text is none that can be signed, which no statement's is.
    pub fn sign(&self, signer: &NoteSigner) -> Result<SignedNote, NoteError> {
        signer.sign(&self.to_string())
    }

    /// Reads the time that a key has stated for a question.
    ///
    /// # Errors
    ///
    /// Returns [`NoteError::Malformed`] if the note is no statement of a time for this question, and another
    /// [`NoteError`] if the key has not signed it.
    pub fn verify(note: &str, key: &NoteKey, nonce: [u8; 16]) -> Result<Timestamp, NoteError> {
        let note: SignedNote = note.parse()?;
        note.check(key)?;
        let statement: Self = note.text().parse()?;
        if statement.nonce == nonce { Ok(statement.at) } else { Err(NoteError::Malformed) }
    }
}

impl fmt::Display for TimeStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{DOMAIN}\n{}\n{}", HEXLOWER.encode(&self.nonce), self.at.as_millis())
    }
}

impl FromStr for TimeStatement {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let mut lines = text.strip_suffix('\n').ok_or(NoteError::Malformed)?.split('\n');
        let (Some(DOMAIN), Some(nonce), Some(at), None) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(NoteError::Malformed);
        };
        let nonce = HEXLOWER.decode(nonce.as_bytes()).map_err(|_| NoteError::Malformed)?;
        let statement = Self {
            nonce: nonce.try_into().map_err(|_| NoteError::Malformed)?,
            at: Timestamp::from_millis(at.parse().map_err(|_| NoteError::Malformed)?),
        };
        // One text for one statement: no leading zeros, no sign.
        if statement.to_string() == text { Ok(statement) } else { Err(NoteError::Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    fn signer(secret: u8) -> NoteSigner {
        NoteSigner::new("pool.example", &[secret; 32]).unwrap()
    }

    quickcheck! {
        fn a_time_is_read_as_it_was_stated(seed: u128, at: u64) -> bool {
            let (nonce, at) = (seed.to_le_bytes(), Timestamp::from_millis(at));
            let note = TimeStatement { nonce, at }.sign(&signer(1)).unwrap().to_string();
            TimeStatement::verify(&note, &signer(1).public(), nonce) == Ok(at)
        }
    }

    #[test]
    fn another_question_another_key_and_another_text_state_no_time() {
        let (nonce, at) = ([7; 16], Timestamp::from_millis(5));
        let statement = TimeStatement { nonce, at };
        let note = statement.sign(&signer(1)).unwrap().to_string();
        let verify = |note: &str, secret, nonce| {
            TimeStatement::verify(note, &signer(secret).public(), nonce)
        };
        assert_eq!(verify(&note, 1, nonce), Ok(at));
        assert_eq!(verify(&note, 1, [8; 16]), Err(NoteError::Malformed));
        assert!(verify(&note, 2, nonce).is_err());
        assert_eq!(verify(&note.replace("\n5\n", "\n6\n"), 1, nonce), Err(NoteError::Wrong));
        for text in ["", "keypool-time-v1\n", "keypool-time-v1\n07\n5\n"] {
            assert_eq!(text.parse::<TimeStatement>(), Err(NoteError::Malformed), "{text:?}");
        }
        let with_zero = statement.to_string().replace("\n5\n", "\n05\n");
        assert_eq!(with_zero.parse::<TimeStatement>(), Err(NoteError::Malformed));
        // No checkpoint is a statement, and no statement is a checkpoint.
        assert!(statement.to_string().parse::<crate::Checkpoint>().is_err());
    }
}
