//! Private keys on the disk: sealed while they live, gone when they are gone.

mod image;
mod keys;
mod scanner;
mod secrets;
mod server;

mod thief;

use std::{path::PathBuf, time::Duration};

use keypool_client::Received;
use openmls_traits::storage::StorageProvider;
use tempfile::TempDir;

use self::{scanner::Scanner, secrets::Secrets, thief::Thief};
use super::support::{Device, copy, group, now};

/// Every image of a home there ever was, and every secret that was in it.
#[derive(Default)]
struct Past {
    images: Vec<TempDir>,
    secrets: Secrets,
}

impl Past {
    /// Looks at a home while the device is running.
    fn look(&mut self, device: &Device) -> Secrets {
        let image = TempDir::new().unwrap();
        copy(device.home.path(), image.path());
        let present = Thief::of(image.path()).secrets(image.path());
        self.secrets.extend(present.clone());
        self.images.push(image);
        present
    }

    fn images(&self) -> Vec<PathBuf> {
        self.images.iter().map(|image| image.path().to_path_buf()).collect()
    }
}

/// Bob's secrets of that kind, in a collection.
fn count(secrets: &Secrets, what: &str) -> usize {
    secrets.values().filter(|found| found.contains(what)).count()
}

/// Bob makes packages, joins with one, speaks, sees epochs pass, and lets the rest expire.
fn story(past: &mut Past, home: TempDir) -> Device {
    let (alice, bob) = (Device::new("alice/phone"), Device::in_home(home, "bob/laptop"));
    past.look(&bob);
    alice.groups.create_group(&group("g"), 1, now()).unwrap();
    let offer = bob.offer();
    bob.pool.generate_and_store(3, now()).unwrap();
    past.look(&bob);
    let added = alice.add(&group("g"), &[offer]);
    bob.join(&added);
    past.look(&bob);
    for round in 0..6 {
        let sealed = alice.groups.encrypt(&group("g"), b"hello").unwrap();
        let heard = bob.groups.decrypt(&sealed).unwrap();
        assert!(matches!(heard, Received::Application { .. }));
        bob.groups.encrypt(&group("g"), b"hello").unwrap();
        let by = if round % 2 == 0 { &alice } else { &bob };
        let update = by.groups.self_update(&group("g")).unwrap();
        past.look(&bob);
        by.groups.merge_pending_commit(&group("g")).unwrap();
        let other = if round % 2 == 0 { &bob } else { &alice };
        other.groups.decrypt(&update.commit).unwrap();
        past.look(&bob);
    }
    let bob = bob.restarted();
    let end = now().after(Duration::from_hours(15 * 24));
    assert_eq!(bob.pool.expire(end).unwrap().len(), 3);
    bob.pool.generate_and_store(2, now()).unwrap();
    bob
}

#[test]
fn live_keys_are_never_in_clear_and_dead_ones_cannot_be_recovered() {
    let mut past = Past::default();
    let bob = story(&mut past, TempDir::new().unwrap());
    let live = past.look(&bob);
    let dead: Secrets =
        past.secrets.clone().into_iter().filter(|(s, _)| !live.contains_key(s)).collect();
    for (what, living, gone) in [
        ("sig.private", 1, 0),
        ("kp.private_init_key", 2, 4),
        // That of the package which was joined with was a key of the group as well.
        ("kp.private_encryption_key", 2, 3),
        ("epochsec.init_secret", 1, 6),
        ("epochsec.exporter_secret", 1, 6),
    ] {
        assert_eq!((count(&live, what), count(&dead, what)), (living, gone), "{what}");
    }
    assert!(count(&dead, "msgsec") > 10 && count(&live, "msgsec") > 4);
    assert!(count(&dead, "epochkp") >= 4 && count(&live, "epochkp") >= 1);

    // Nothing was ever in clear, in any file, at any time.
    let scanner = Scanner::new(&past.secrets);
    for image in past.images() {
        assert_eq!(scanner.find_in(&image), [""; 0]);
    }
    // With the keys that are left, all that lives is found, and nothing that is dead.
    let (living, dying) = (Scanner::raw(&live), Scanner::raw(&dead));
    let images = past.images();
    let thief = Thief::of(bob.home.path());
    let found = thief.recover(&images, &living);
    let kinds =
        |secrets: &Secrets| secrets.values().collect::<std::collections::BTreeSet<_>>().len();
    assert_eq!(found.len(), kinds(&live), "the search finds what is there: {found:?}");
    assert_eq!(thief.recover(&images, &dying), [].into());
    // With the keys of a day on which they lived, it finds them in the very same files.
    let second = Thief::of(&images[1]);
    assert!(second.recover(&images, &dying).iter().any(|what| what.contains("private_init_key")));
    assert!(second.keys_left() > 4);
}

/// The thief's secrets are the secrets of OpenMLS.
#[test]
fn the_search_knows_the_real_keys() {
    let bob = Device::new("bob/laptop");
    let made = bob.pool.generate_and_store(1, now()).unwrap().remove(0);
    let mut past = Past::default();
    let known = past.look(&bob);
    let staged = bob.store.stage().unwrap();
    let bytes = made.keypackage_ref().as_bytes();
    let length = u8::try_from(bytes.len()).unwrap();
    let reference: openmls::ciphersuite::hash_ref::HashReference =
        tls_codec::Deserialize::tls_deserialize_exact([&[length], bytes].concat()).unwrap();
    let bundle: openmls::key_packages::KeyPackageBundle =
        staged.key_package(&reference).unwrap().unwrap();
    assert!(known.contains_key(&bundle.init_private_key().to_vec()));
    assert_eq!(known.len(), 3, "{known:?}");
}
