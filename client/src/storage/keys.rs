//! The keys of the one tree: a letter for the kind, then what tells values of the kind apart.

/// What the store is, and whose.
pub(super) const ABOUT: &[u8] = b"m";
/// The device's own history, by version.
pub(super) const HISTORY: u8 = b'e';
/// The mirror of the server's history, by version.
pub(super) const MIRROR: u8 = b's';
/// Records of the application's side, by name.
const APP: u8 = b'a';
/// What `OpenMLS` stores, by its label and key.
const MLS: u8 = b'o';

/// The key of an event.
pub(super) fn event(kind: u8, version: u64) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(&version.to_be_bytes());
    key
}

/// The key of a record of the application's side, or what the keys of several begin with.
pub(super) fn app(name: &str) -> Vec<u8> {
    let mut key = vec![APP];
    key.extend_from_slice(name.as_bytes());
    key
}

/// The name in a key that [`app`] has made.
pub(super) fn app_name(key: &[u8]) -> Option<String> {
    let (&kind, name) = key.split_first()?;
    (kind == APP).then(|| String::from_utf8_lossy(name).into_owned())
}

/// The key of a value of `OpenMLS`.
pub(super) fn mls(label: &str, encoded_key: &[u8], version: u16) -> Vec<u8> {
    let mut key = vec![MLS];
    key.extend_from_slice(label.as_bytes());
    key.push(0);
    key.extend_from_slice(encoded_key);
    key.extend_from_slice(&version.to_be_bytes());
    key
}
