//! Signed texts, and the keys that sign them: C2SP `signed-note` with Ed25519.

use std::{fmt, str::FromStr};

use data_encoding::{BASE64, HEXLOWER};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

/// The number of Ed25519 among the kinds of signatures.
const ED25519: u8 = 1;
/// The beginning of a signature line: an em dash and a space.
const DASH: &str = "\u{2014} ";
/// The beginning of a private key in its text form.
const PRIVATE: &str = "PRIVATE+KEY+";
/// How many signatures a note may carry.
const SIGNATURES_MAX: usize = 100;

/// The reason why a note or a key is none, or the note is not signed by the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// The text is not of the form of a signed note.
    #[error("it is no signed note: lines of text, an empty line, then signature lines")]
    Malformed,
    /// The text is not of the form of a key.
    #[error("it is no key of a note: NAME+HASH+BASE64, as a log publishes it")]
    Key,
    /// The name has a space or a plus sign, or is empty.
    #[error("the name of a key has no space and no plus sign, and is not empty")]
    Name,
    /// None of the signatures is by this key.
    #[error("the note is not signed by this key")]
    Unsigned,
    /// A signature that claims to be by this key is not.
    #[error("the signature of the note is wrong: the text or the signature was changed")]
    Wrong,
}

/// The public half of a key that signs notes. As text `NAME+HASH+BASE64`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteKey {
    name: String,
    key: VerifyingKey,
}

/// A key that signs notes. Its text form, `PRIVATE+KEY+NAME+HASH+BASE64`, is a secret.
pub struct NoteSigner {
    name: String,
    key: SigningKey,
}

/// A text with the signatures of those who stand by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedNote {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// One line of a note: whose it is, and the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NoteSignature {
    name: String,
    /// The key's id, then the signature.
    bytes: Vec<u8>,
}

impl NoteKey {
    /// The key with a name and its 32 raw bytes.
    ///
    /// # Errors
    ///
    /// Returns a [`NoteError`] if the name may not be one or the bytes are no Ed25519 key.
    pub fn new(name: &str, bytes: &[u8; 32]) -> Result<Self, NoteError> {
        check_name(name)?;
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| NoteError::Key)?;
        Ok(Self { name: name.to_owned(), key })
    }

    /// The name: for a log, its origin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The public key, as RFC 8032 encodes it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    /// The four bytes that lead every signature by this key.
    fn id(&self) -> [u8; 4] {
        let digest = Sha256::new()
            .chain_update(&self.name)
            .chain_update([b'\n', ED25519])
            .chain_update(self.key.as_bytes())
            .finalize();
        digest.first_chunk().copied().unwrap_or_default()
    }
}

fn check_name(name: &str) -> Result<(), NoteError> {
    let wrong = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    if name.is_empty() || name.contains(wrong) { Err(NoteError::Name) } else { Ok(()) }
}

impl fmt::Display for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![ED25519];
        bytes.extend(self.key.as_bytes());
        write!(f, "{}+{}+{}", self.name, HEXLOWER.encode(&self.id()), BASE64.encode(&bytes))
    }
}

impl FromStr for NoteKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let (name, bytes) = parse_key(text)?;
        let key = Self::new(name, &bytes)?;
        if key.to_string() == text { Ok(key) } else { Err(NoteError::Key) }
    }
}

/// The name and the 32 bytes of a key's text form.
fn parse_key(text: &str) -> Result<(&str, [u8; 32]), NoteError> {
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(_), Some(bytes)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(NoteError::Key);
    };
    let bytes = BASE64.decode(bytes.as_bytes()).map_err(|_| NoteError::Key)?;
    let bytes = bytes.strip_prefix(&[ED25519]).ok_or(NoteError::Key)?;
    Ok((name, bytes.try_into().map_err(|_| NoteError::Key)?))
}

impl NoteSigner {
    /// The key with a name and a secret of 32 random bytes.
    ///
    /// # Errors
    ///
    /// Returns [`NoteError::Name`] if the name may not be one.
    pub fn new(name: &str, secret: &[u8; 32]) -> Result<Self, NoteError> {
        check_name(name)?;
        Ok(Self { name: name.to_owned(), key: SigningKey::from_bytes(secret) })
    }

    /// Reads the secret text form.
    ///
    /// # Errors
    ///
    /// Returns [`NoteError::Key`] if it is none.
    pub fn from_secret_text(text: &str) -> Result<Self, NoteError> {
        let (name, secret) = parse_key(text.strip_prefix(PRIVATE).ok_or(NoteError::Key)?)?;
        let signer = Self::new(name, &secret)?;
        if signer.to_secret_text() == text { Ok(signer) } else { Err(NoteError::Key) }
    }

    /// The secret text form, to be kept where nobody else reads it.
    #[must_use]
    pub fn to_secret_text(&self) -> String {
        let mut bytes = vec![ED25519];
        bytes.extend(self.key.as_bytes());
        let id = HEXLOWER.encode(&self.public().id());
        format!("{PRIVATE}{}+{id}+{}", self.name, BASE64.encode(&bytes))
    }

    /// The half that may be known.
    #[must_use]
    pub fn public(&self) -> NoteKey {
        NoteKey { name: self.name.clone(), key: self.key.verifying_key() }
    }

    /// Signs a text, which must end with a line break.
    ///
    /// # Errors
    ///
    /// Returns [`NoteError::Malformed`] if the text is none that can be signed.
    pub fn sign(&self, text: &str) -> Result<SignedNote, NoteError> {
        check_text(text)?;
        let mut bytes = self.public().id().to_vec();
        bytes.extend(self.key.sign(text.as_bytes()).to_bytes());
        let signatures = vec![NoteSignature { name: self.name.clone(), bytes }];
        Ok(SignedNote { text: text.to_owned(), signatures })
    }

    /// Signs the signature base of an HTTP request (RFC 9421 section 2.5).
    ///
    /// The last line of a base has no line break, and the text of a note ends with one: no signature of one
    /// is a signature of the other.
    ///
    /// # Errors
    ///
    /// Returns [`NoteError::Malformed`] if the base ends with a line break.
    pub fn sign_http(&self, base: &[u8]) -> Result<[u8; 64], NoteError> {
        if base.ends_with(b"\n") {
            return Err(NoteError::Malformed);
        }
        Ok(self.key.sign(base).to_bytes())
    }
}

impl fmt::Debug for NoteSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NoteSigner")
    }
}

/// Whether a text can be signed: it ends with a line break and has no control characters but those.
fn check_text(text: &str) -> Result<(), NoteError> {
    let wrong = |c: char| c.is_control() && c != '\n';
    if !text.ends_with('\n') || text.contains(wrong) { Err(NoteError::Malformed) } else { Ok(()) }
}

impl SignedNote {
    /// The signed text, before its signature is checked: see [`SignedNote::check`].
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The names that the signatures claim, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.signatures.iter().map(|signature| signature.name.as_str())
    }

    /// Checks that a key has signed the text.
    ///
    /// # Errors
    ///
    /// Returns [`NoteError::Unsigned`] if no signature claims the key, and [`NoteError::Wrong`] if one
    /// does and is wrong.
    pub fn check(&self, key: &NoteKey) -> Result<(), NoteError> {
        let id = key.id();
        let by_key = |line: &&NoteSignature| line.name == key.name && line.bytes.starts_with(&id);
        let line = self.signatures.iter().find(by_key).ok_or(NoteError::Unsigned)?;
        let bytes = line.bytes.get(id.len()..).unwrap_or_default();
        let signature =
            ed25519_dalek::Signature::from_slice(bytes).map_err(|_| NoteError::Wrong)?;
        key.key.verify_strict(self.text.as_bytes(), &signature).map_err(|_| NoteError::Wrong)
    }
}

impl fmt::Display for SignedNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        for NoteSignature { name, bytes } in &self.signatures {
            writeln!(f, "{DASH}{name} {}", BASE64.encode(bytes))?;
        }
        Ok(())
    }
}

impl FromStr for SignedNote {
    type Err = NoteError;

    fn from_str(note: &str) -> Result<Self, NoteError> {
        let (text, lines) = note.rsplit_once("\n\n").ok_or(NoteError::Malformed)?;
        let text = format!("{text}\n");
        check_text(&text)?;
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Malformed)?;
        let signatures: Vec<NoteSignature> =
            lines.split('\n').map(parse_line).collect::<Result<_, _>>()?;
        if SIGNATURES_MAX < signatures.len() {
            return Err(NoteError::Malformed);
        }
        Ok(Self { text, signatures })
    }
}

fn parse_line(line: &str) -> Result<NoteSignature, NoteError> {
    let rest = line.strip_prefix(DASH).ok_or(NoteError::Malformed)?;
    let (name, text) = rest.split_once(' ').ok_or(NoteError::Malformed)?;
    check_name(name)?;
    let bytes = BASE64.decode(text.as_bytes()).map_err(|_| NoteError::Malformed)?;
    // A line has one form: no padding but at its end.
    if bytes.len() < 5 || BASE64.encode(&bytes) != text {
        return Err(NoteError::Malformed);
    }
    Ok(NoteSignature { name: name.to_owned(), bytes })
}
