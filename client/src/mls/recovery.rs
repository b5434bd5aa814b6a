//! The recovery key: 24 words on paper, stronger than every device of the user.
//!
//! The words are never stored. Their public half stands in the user's history at the server: it registers a new
//! device and removes all others, and no device takes its place without its agreement.

use std::{collections::BTreeSet, fmt, str::FromStr};

use bip39::{Language, Mnemonic};
use keypool_api::{RecoverReply, RecoveryKeyRequest};
use keypool_ledger::{Hash, PoolId};
use openmls_basic_credential::SignatureKeyPair;
use zeroize::Zeroizing;

use super::{
    SIGNATURE_SCHEME,
    connection::MlsConnection,
    identity::{DeviceKeys, SigningKey},
    peers::peer_record,
    statements::{Grounds, with_grounds},
};
use crate::{
    ApiError, RecoveryError,
    storage::{fresh_command, randomize},
};

/// How many bytes of randomness the words carry.
const ENTROPY_BYTES: usize = 32;
/// The line before the randomness in the digest that is the seed of the key.
const SEED_LINE: &[u8] = b"keypool-recovery-key-v1\n";

/// The 24 words of a recovery key (BIP 39, English). Their bearer can take the name over.
#[derive(Clone, PartialEq, Eq)]
pub struct RecoveryWords(Mnemonic);

/// Words that are no recovery key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRecoveryWords {
    /// There are not 24 of them.
    #[error("a recovery key has 24 words, and there are {0}")]
    Count(usize),
    /// A word is not in the list.
    #[error("word {0} is not one of the list; look for a slip of the pen")]
    Word(usize),
    /// Every word is in the list, and together they are none: one is another, or two changed places.
    #[error("the words do not belong together: one of them is wrong, or two have changed places")]
    Checksum,
}

impl RecoveryWords {
    /// Draws new words.
    ///
    /// # Errors
    ///
    /// Returns a [`RecoveryError`] if the machine has no randomness.
    pub fn generate() -> Result<Self, RecoveryError> {
        let mut entropy = Zeroizing::new([0; ENTROPY_BYTES]);
        randomize(entropy.as_mut_slice()).map_err(|err| RecoveryError::Key(err.into()))?;
        let words = Mnemonic::from_entropy_in(Language::English, entropy.as_ref());
        words.map(Self).map_err(|err| RecoveryError::Key(err.into()))
    }

    /// The key pair: the seed is BLAKE3 over a line of its own and the randomness of the words.
    fn keys(&self) -> Result<DeviceKeys, RecoveryError> {
        let (entropy, len) = self.0.to_entropy_array();
        let entropy = Zeroizing::new(entropy);
        let mut text = Zeroizing::new(SEED_LINE.to_vec());
        text.extend_from_slice(entropy.get(..len).unwrap_or_default());
        let seed = Zeroizing::new(*Hash::of(&text).as_bytes());
        let public = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key();
        let public = public.to_bytes().to_vec();
        let pair = SignatureKeyPair::from_raw(SIGNATURE_SCHEME, seed.to_vec(), public);
        let keys = SigningKey::of_pair(pair).and_then(DeviceKeys::of);
        keys.map_err(|err| RecoveryError::Key(err.into()))
    }
}

impl FromStr for RecoveryWords {
    type Err = NoRecoveryWords;

    /// Reads 24 words, in capital or small letters, with any white space between them.
    fn from_str(text: &str) -> Result<Self, NoRecoveryWords> {
        let text = Zeroizing::new(text.to_lowercase());
        let count = text.split_whitespace().count();
        if count != 24 {
            return Err(NoRecoveryWords::Count(count));
        }
        match Mnemonic::parse_in(Language::English, text.as_str()) {
            Ok(words) => Ok(Self(words)),
            Err(bip39::Error::UnknownWord(place)) => Err(NoRecoveryWords::Word(place + 1)),
            Err(_) => Err(NoRecoveryWords::Checksum),
        }
    }
}

impl fmt::Display for RecoveryWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for RecoveryWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecoveryWords").finish_non_exhaustive()
    }
}

impl<D> MlsConnection<D> {
    /// Sets the user's recovery key. If the user has one, `before` are its words.
    ///
    /// # Errors
    ///
    /// Returns a [`RecoveryError`]. Repeating it is harmless.
    pub async fn set_recovery_key(
        &self,
        words: &RecoveryWords,
        before: Option<&RecoveryWords>,
    ) -> Result<(), RecoveryError> {
        let next = words.keys()?.signature_key().clone();
        let (by, subject) = match before {
            None => (self.identity().keys(), self.identity().pool().clone()),
            Some(before) => (before.keys()?, self.recovery_device().await?),
        };
        let (by, subject, next) = (&by, &subject, &next);
        with_grounds(|| async move {
            let grounds = Grounds::fetch(self.api()).await?;
            let request: RecoveryKeyRequest = grounds.recovery_key(subject, by, next)?;
            self.api().set_recovery_key(&request, fresh_command()).await
        })
        .await?;
        Ok(())
    }

    /// The device in whose history the recovery keys of the user stand.
    async fn recovery_device(&self) -> Result<PoolId, RecoveryError> {
        let user = self.identity().pool().user();
        self.fetch_peers(&BTreeSet::from([user.to_owned()]), self.api().now()).await?;
        let record = peer_record(&self.store().stage()?, user)?;
        let device = record.as_ref().and_then(|record| record.list().recovery_device());
        let device = device.ok_or(RecoveryError::NoRecoveryKey)?;
        Ok(PoolId::new(user, device).map_err(ApiError::from)?)
    }

    /// Registers this device by the user's recovery key, and removes every other device of the user.
    ///
    /// # Errors
    ///
    /// Returns a [`RecoveryError`]. Repeating it is harmless.
    pub async fn recover(&self, words: &RecoveryWords) -> Result<RecoverReply, RecoveryError> {
        let (by, pool, key) =
            (&words.keys()?, self.identity().pool(), &self.identity().signature_key());
        // A device that is not registered may not read the list; the recovery key may.
        let reader = &self.api().speaking_as(self.identity().speaking_with(by.clone()));
        let reply = with_grounds(|| async move {
            let request = Grounds::fetch(reader).await?.recovery(pool, by, key)?;
            self.api().recover(&request, fresh_command()).await
        });
        Ok(reply.await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back_as_they_were_drawn() {
        let words = RecoveryWords::generate().unwrap();
        let text = words.to_string();
        assert_eq!(text.split(' ').count(), 24);
        assert_eq!(text.to_uppercase().replace(' ', "\n ").parse(), Ok(words.clone()));
        assert!(!format!("{words:?}").contains(text.split(' ').next().unwrap()));
    }

    #[test]
    fn the_same_words_make_the_same_key_for_ever() {
        let words = format!("{}art", "abandon ".repeat(23)).parse::<RecoveryWords>().unwrap();
        insta::assert_snapshot!(words.keys().unwrap().signature_key());
    }

    #[test]
    fn a_slip_of_the_pen_is_named() {
        let words = format!("{}art", "abandon ".repeat(23));
        let read = |text: &str| text.parse::<RecoveryWords>().unwrap_err();
        assert_eq!(read("abandon art"), NoRecoveryWords::Count(2));
        assert_eq!(read(&words.replacen("abandon", "abandn", 1)), NoRecoveryWords::Word(1));
        assert_eq!(read(&words.replacen("abandon", "zoo", 1)), NoRecoveryWords::Checksum);
    }
}
