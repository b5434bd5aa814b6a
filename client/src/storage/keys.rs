//! The keys of the one tree: a letter for the kind, then the name of the value within its kind.

/// The format and the owner of the store.
pub(super) const ABOUT: &[u8] = b"m";
/// The device's own history, by version.
pub(super) const HISTORY: u8 = b'e';
/// The mirror of the server's history, by version.
pub(super) const MIRROR: u8 = b's';
/// The end of the device's own history: see [`chain::end_of`](super::chain::end_of).
pub(super) const HISTORY_END: &[u8] = b"t";
/// Histories that the server had told before the mirror began anew, by their number and version.
pub(super) const PAST: u8 = b'h';
/// Records of the application's side, by name.
const APP: u8 = b'a';
/// The values of `OpenMLS`, by label and key.
const MLS: u8 = b'o';

/// The kinds whose values are sealed: all but the histories, the format and the owner.
pub(super) const SEALED: [u8; 2] = [APP, MLS];

/// Whether the value under a key is sealed.
pub(super) fn is_sealed(key: &[u8]) -> bool {
    key.first().is_some_and(|kind| SEALED.contains(kind))
}

/// The name of a key for people: a record by its name, a value of `OpenMLS` by its label.
pub(super) fn describe(key: &[u8]) -> String {
    match key.split_first() {
        Some((&APP, name)) => format!("the record {}", String::from_utf8_lossy(name)),
        Some((&MLS, rest)) => {
            let label = rest.split(|byte| *byte == 0).next().unwrap_or_default();
            format!("a value of MLS ({})", String::from_utf8_lossy(label))
        }
        _ => "an event".to_owned(),
    }
}

/// The key of an event.
pub(super) fn event(kind: u8, version: u64) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(&version.to_be_bytes());
    key
}

/// The key of an event of a history that was told before.
pub(super) fn past(number: u32, version: u64) -> Vec<u8> {
    let mut key = vec![PAST];
    key.extend_from_slice(&number.to_be_bytes());
    key.extend_from_slice(&version.to_be_bytes());
    key
}

/// The number of the history that a key which [`past`] has made is of.
pub(super) fn past_number(key: &[u8]) -> Option<u32> {
    key.strip_prefix(&[PAST])?.first_chunk().copied().map(u32::from_be_bytes)
}

/// The key of a record of the application's side, or the prefix of several.
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

/// The prefix of the keys of all values of `OpenMLS` with that label.
pub(super) fn mls_label(label: &str) -> Vec<u8> {
    let mut key = vec![MLS];
    key.extend_from_slice(label.as_bytes());
    key.push(0);
    key
}

/// The encoded key in a key that [`mls`] has made.
pub(super) fn mls_encoded_key<'k>(label: &str, key: &'k [u8]) -> Option<&'k [u8]> {
    let rest = key.strip_prefix(mls_label(label).as_slice())?;
    rest.split_last_chunk::<2>().map(|(encoded, _)| encoded)
}

/// The key of a value of `OpenMLS`.
pub(super) fn mls(label: &str, encoded_key: &[u8], version: u16) -> Vec<u8> {
    let mut key = mls_label(label);
    key.extend_from_slice(encoded_key);
    key.extend_from_slice(&version.to_be_bytes());
    key
}
