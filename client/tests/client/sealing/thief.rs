//! A thief who has the device key, the key file, and every image of the database there ever was.
//!
//! It knows the formats from their description (docs/decisions/0004) and not from the code.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use chacha20poly1305::{AeadInPlace, KeyInit, XChaCha20Poly1305, XNonce};

use super::{
    scanner::{Scanner, files},
    secrets::{Secrets, collect},
};

/// The header of the key file: its size, and where the store's name is in it.
const HEADER: usize = 4096;
const STORE: std::ops::Range<usize> = 47..63;
/// Version, slot and generation before a sealed value; with the nonce.
const PLACE: usize = 13;
const FRONT: usize = PLACE + 24;
/// The longest stretch of a value that stands in one piece.
const CHUNK: usize = 4096;

/// All that is needed to open the remaining values.
pub(crate) struct Thief {
    store: Vec<u8>,
    /// The data keys that are left, by their slots.
    keys: BTreeMap<u32, [u8; 32]>,
    /// Others that were found on the disk.
    strays: BTreeSet<[u8; 32]>,
}

impl Thief {
    /// A thief with a key file, and the device key that is in the home's file.
    pub(crate) fn with(key_file: &Path, device_key: &Path) -> Self {
        let device_key = fs::read(device_key).unwrap();
        let cipher = XChaCha20Poly1305::new_from_slice(&device_key).unwrap();
        let bytes = fs::read(key_file).unwrap();
        let store = bytes[STORE].to_vec();
        let slots = (0..).zip(bytes[HEADER..].chunks_exact(64));
        let keys = slots
            .filter_map(|(number, slot)| Some((number, unwrap(&cipher, &store, number, slot)?)));
        Self { keys: keys.collect(), store, strays: BTreeSet::new() }
    }

    /// The thief goes through a whole disk for slots that were written to other places, too.
    pub(crate) fn search_disk(&mut self, disk: &[u8], device_key: &[u8; 32]) {
        let cipher = XChaCha20Poly1305::new(device_key.into());
        for block in disk.chunks(4096).filter(|block| block.iter().any(|byte| *byte != 0)) {
            for (place, slot) in (0_u32..).zip(block.chunks_exact(64)) {
                // The file's first sixteen blocks of slots, wherever they stand.
                for number in (0..16).map(|block| block * 64 + place) {
                    self.strays.extend(unwrap(&cipher, &self.store, number, slot));
                }
            }
        }
        let found = |key: &[u8; 32]| self.strays.contains(key);
        assert!(self.keys.values().all(found), "the keys that are left are on the disk");
    }

    /// As [`Thief::recover`], from a whole disk.
    pub(crate) fn recover_from_disk<'s>(
        &self,
        disk: &[u8],
        scanner: &'s Scanner,
    ) -> BTreeSet<&'s str> {
        self.try_all(&beginnings(disk).into_iter().collect(), scanner)
    }

    /// A thief in a home.
    pub(crate) fn of(home: &Path) -> Self {
        Self::with(&home.join("keys"), &home.join("device-key"))
    }

    pub(crate) fn keys_left(&self) -> usize {
        self.keys.len()
    }

    /// Opens every value that a home's database holds, by their labels.
    pub(crate) fn open_all(&self, home: &Path) -> Vec<(String, Vec<u8>)> {
        let mut opened = Vec::new();
        for (name, sealed) in values(home) {
            let key = self.keys[&u32::from_be_bytes(sealed[1..5].try_into().unwrap())];
            let cipher = XChaCha20Poly1305::new(&key.into());
            let context = [b"keypool value", self.store.as_slice(), &[1], &name].concat();
            let (body, tag) = sealed[FRONT..].split_at(sealed.len() - FRONT - 16);
            let mut body = body.to_vec();
            let nonce = XNonce::from_slice(&sealed[PLACE..FRONT]);
            cipher.decrypt_in_place_detached(nonce, &context, &mut body, tag.into()).unwrap();
            let label = name[1..].split(|byte| *byte == 0).next().unwrap();
            let kind = if name[0] == b'o' { "" } else { "record " };
            opened.push((format!("{kind}{}", String::from_utf8_lossy(label)), body));
        }
        opened
    }

    /// The private bytes that a home's database holds now.
    pub(crate) fn secrets(&self, home: &Path) -> Secrets {
        let mut secrets = Secrets::new();
        for (label, value) in self.open_all(home) {
            if !label.starts_with("record ") {
                collect(&label, &value, &mut secrets);
            }
        }
        secrets
    }

    /// The result of trying every remaining key on everything that looks like the beginning
    /// of a sealed value, tags or no tags, in all these files; and on every whole value.
    pub(crate) fn recover<'s>(
        &self,
        images: &[PathBuf],
        scanner: &'s Scanner,
    ) -> BTreeSet<&'s str> {
        let mut sealed = BTreeSet::new();
        for image in images {
            sealed.extend(values(image).into_iter().map(|(_, value)| value));
            for file in files(image) {
                sealed.extend(beginnings(&fs::read(file).unwrap()));
            }
        }
        self.try_all(&sealed, scanner)
    }

    fn try_all<'s>(&self, sealed: &BTreeSet<Vec<u8>>, scanner: &'s Scanner) -> BTreeSet<&'s str> {
        assert!(sealed.len() > 10, "there is something to try");
        let mut found = BTreeSet::new();
        for key in self.keys.values().chain(&self.strays) {
            let cipher = XChaCha20Poly1305::new(key.into());
            for value in sealed {
                let nonce = XNonce::from_slice(&value[PLACE..FRONT]);
                let mut body = value[FRONT..].to_vec();
                // A stream cipher opens what it seals again.
                cipher.encrypt_in_place_detached(nonce, &[], &mut body).unwrap();
                found.extend(scanner.find(&body));
            }
        }
        found
    }
}

/// The data key in a slot, if it was wrapped there.
fn unwrap(cipher: &XChaCha20Poly1305, store: &[u8], number: u32, slot: &[u8]) -> Option<[u8; 32]> {
    let context = [b"keypool slot", store].concat();
    let nonce = [&slot[..16], &u64::from(number).to_be_bytes()].concat();
    let mut key: [u8; 32] = slot[16..48].try_into().unwrap();
    let (nonce, tag) = (XNonce::from_slice(&nonce), slot[48..].into());
    cipher.decrypt_in_place_detached(nonce, &context, &mut key, tag).ok()?;
    Some(key)
}

/// The sealed values of a home's database, by their names.
fn values(home: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let copy = tempfile::TempDir::new().unwrap();
    super::super::support::copy(home, copy.path());
    values_in(copy.path())
}

#[cfg(not(feature = "sled-store"))]
fn values_in(home: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let db = rusqlite::Connection::open(home.join("store.sqlite")).unwrap();
    let kinds = "SELECT key, value FROM keypool_store WHERE substr(key, 1, 1) IN (x'61', x'6f')";
    let mut query = db.prepare(kinds).unwrap();
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[cfg(feature = "sled-store")]
fn values_in(home: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let db = sled::Config::new().path(home.join("store")).flush_every_ms(None).open().unwrap();
    let mut values = Vec::new();
    for entry in db.scan_prefix(b"a").chain(db.scan_prefix(b"o")) {
        let (name, entry) = entry.unwrap();
        let value = match entry[0] {
            0 => entry[1..].to_vec(),
            _ => (0..u32::from_be_bytes(entry[1..5].try_into().unwrap()))
                .flat_map(|chunk| {
                    let key = [b"c", name.as_ref(), &chunk.to_be_bytes()].concat();
                    db.get(key).unwrap().unwrap().to_vec()
                })
                .collect(),
        };
        values.push((name.to_vec(), value));
    }
    values
}

/// Stretches of a file that begin as sealed values do.
fn beginnings(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for place in 0..bytes.len().saturating_sub(FRONT + 16) {
        let front = &bytes[place..place + PLACE];
        if front[0] == 1 && front[1..3] == [0; 2] && front[5..11] == [0; 6] {
            found.push(bytes[place..bytes.len().min(place + CHUNK)].to_vec());
        }
    }
    found
}
