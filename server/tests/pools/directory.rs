//! Random histories of a user's keys, on the real pools and with real keys: the chain that the server shows
//! verifies, no other one does, and no dead key speaks.

use std::{collections::BTreeSet, time::Duration};

use ed25519_dalek::{Signer, SigningKey};
use keypool_api::has_signed;
use keypool_ledger::{
    Clock, CredentialBytes, Event, Hash, PoolId, Signature, SignatureKey, SignedStatement,
    Timestamp,
};
use keypool_projections::{
    Command, LeafKey, Remover,
    directory::{DeviceChange, DeviceList, ListedDevice, Origin},
    statement::{Agreement, LedgerId, Statement},
};
use quickcheck::{Arbitrary, Gen, QuickCheck};

use crate::{history::pool, service::Service};

/// The devices of the histories.
const DEVICES: [&str; 4] = ["alice/a", "alice/b", "alice/c", "alice/d"];
/// How many keys there are: few, so that dead ones are tried again.
const KEYS: u8 = 24;

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number % KEYS + 1; 32])
}

fn public(key: &SigningKey) -> SignatureKey {
    SignatureKey::new(key.verifying_key().as_bytes()).unwrap()
}

fn ledger() -> LedgerId {
    "keypool.example+0123abcd".parse().unwrap()
}

/// The kind of a change that a history tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Register,
    Vouch,
    Rotate,
    Remove,
    LeafKey,
    Credential,
    RecoveryKey,
    Recover,
    Release,
    /// A statement that was made before, brought again.
    Replay,
    /// Time passes.
    Wait,
}

/// A step: a kind, a device, a key that it is about, and a key that signs.
#[derive(Clone, Copy, Debug)]
struct Step {
    kind: Kind,
    device: usize,
    key: u8,
    by: u8,
}

impl Arbitrary for Step {
    fn arbitrary(g: &mut Gen) -> Self {
        let kinds = [
            Kind::Register,
            Kind::Vouch,
            Kind::Vouch,
            Kind::Rotate,
            Kind::Rotate,
            Kind::Remove,
            Kind::LeafKey,
            Kind::Credential,
            Kind::RecoveryKey,
            Kind::RecoveryKey,
            Kind::Recover,
            Kind::Recover,
            Kind::Replay,
            Kind::Replay,
            Kind::Wait,
            Kind::Release,
        ];
        let kind = *g.choose(&kinds).unwrap();
        let device = usize::from(u8::arbitrary(g)) % DEVICES.len();
        Self { kind, device, key: u8::arbitrary(g) % KEYS, by: u8::arbitrary(g) % KEYS }
    }
}

/// A change that a key has agreed to: enough to bring it to the server again.
#[derive(Clone, Debug)]
struct Stated {
    kind: Kind,
    device: PoolId,
    subject: SignatureKey,
    statement: SignedStatement,
}

/// A service, and everything that was ever stated.
struct Story {
    service: Service,
    stated: Vec<Stated>,
    asked: u128,
}

impl Story {
    fn new() -> Self {
        Self { service: Service::new(), stated: Vec::new(), asked: 0 }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_secs(self.service.clock.now().as_secs())
    }

    /// The digest of the credential that a key's number stands for.
    fn credential(key: &SignatureKey) -> CredentialBytes {
        CredentialBytes::new(&[&[0, 1, 32][..], key.as_bytes()].concat()).unwrap()
    }

    fn bytes(
        kind: Kind,
        device: &PoolId,
        subject: &SignatureKey,
        (by, head, until): (&SignatureKey, &Hash, Timestamp),
    ) -> Vec<u8> {
        let digest = Self::credential(subject).digest();
        let agreement = match kind {
            Kind::Rotate => Agreement::Rotate(subject),
            Kind::LeafKey => Agreement::LeafKey(0x0807, subject),
            Kind::Credential => Agreement::Credential(&digest),
            Kind::RecoveryKey => Agreement::RecoveryKey(subject),
            Kind::Recover => Agreement::Recover(subject),
            _ => Agreement::Vouch(subject),
        };
        let ledger = ledger();
        Statement { ledger: &ledger, subject: device, by, agreement, head, until }.to_bytes()
    }

    /// Has a key sign a change on the list as it is.
    fn state(&mut self, step: Step) -> Stated {
        let recovery = self.service.pools.recovery_key_of("alice");
        let device = match (step.kind, recovery) {
            (Kind::RecoveryKey, Some((device, _))) => device,
            _ => pool(DEVICES[step.device]),
        };
        let (signer, subject) = (self.signer(step, &device), public(&key(step.key)));
        let (by, head) = (public(&signer), self.service.pools.device_list_head("alice"));
        let until = self.now().after(Duration::from_mins(4));
        let lines = Self::bytes(step.kind, &device, &subject, (&by, &head, until));
        let proof = Signature::new(&signer.sign(&lines).to_bytes()).unwrap();
        let statement = SignedStatement { by, head, until, proof };
        let stated = Stated { kind: step.kind, device, subject, statement };
        self.stated.push(stated.clone());
        stated
    }

    /// The key that signs: mostly the one that may, else any.
    fn signer(&self, step: Step, device: &PoolId) -> SigningKey {
        let pools = &self.service.pools;
        let speaks = |device: &PoolId| {
            let view = pools.pool(device)?;
            view.state.registration().map(|known| known.signature_key.clone())
        };
        let words = pools.recovery_key_of("alice").map(|(_, words)| words);
        let right = match step.kind {
            _ if step.by.is_multiple_of(5) => None,
            Kind::Recover => words,
            Kind::RecoveryKey => words.or_else(|| speaks(device)),
            Kind::Vouch => pools.registered_devices("alice").iter().find_map(speaks),
            _ => speaks(device),
        };
        let held = right.and_then(|right| (0..KEYS).map(key).find(|key| public(key) == right));
        held.unwrap_or_else(|| key(step.by))
    }

    /// Brings a statement to the server as its routes do, which check the proof.
    fn bring(&mut self, stated: Stated) {
        let Stated { kind, device, subject, statement } = stated;
        let SignedStatement { by, head, until, proof } = &statement;
        let signed = Self::bytes(kind, &device, &subject, (by, head, *until));
        assert!(has_signed(by, &signed, proof));
        let (signature_key, credential) = (subject.clone(), "alice".to_owned());
        let command = match kind {
            Kind::Rotate => Command::Rotate { statement, signature_key, credential },
            Kind::LeafKey => {
                let leaf_key = LeafKey { signature_scheme: 0x0807, signature_key };
                Command::DeclareLeafKey { statement, leaf_key }
            }
            Kind::Credential => {
                let credential = Self::credential(&subject);
                Command::DeclareCredential { statement, credential }
            }
            Kind::RecoveryKey => Command::SetRecoveryKey { statement, recovery_key: signature_key },
            Kind::Recover => Command::Recover { statement, signature_key, credential },
            _ => {
                let statement = Some(statement);
                Command::Register { signature_key, credential, statement }
            }
        };
        self.run(&device, command);
    }

    fn run(&mut self, device: &PoolId, command: Command) {
        self.asked += 1;
        // Refusals are a part of every history.
        let _ = self.service.run(self.asked, &device.to_string(), command);
    }

    fn take_all(&mut self, steps: &[Step]) {
        for step in steps {
            self.take(*step);
        }
    }

    fn take(&mut self, step: Step) {
        let device = pool(DEVICES[step.device]);
        let (signature_key, credential) = (public(&key(step.key)), "alice".to_owned());
        match step.kind {
            Kind::Wait => self.service.clock.advance(Duration::from_secs(100)),
            Kind::Register => {
                self.run(&device, Command::Register { signature_key, credential, statement: None });
            }
            Kind::Remove => {
                let by = public(&self.signer(step, &device));
                self.run(&device, Command::Remove { by: Remover::Key(by) });
            }
            // The operator's word is rare.
            Kind::Release if step.key == 0 => {
                for device in self.service.pools.devices_of("alice") {
                    self.run(&device, Command::ReleaseName);
                }
            }
            Kind::Release => {}
            Kind::Replay if self.stated.is_empty() => {}
            Kind::Replay => {
                let place = (usize::from(step.key) * 31 + usize::from(step.by)) % self.stated.len();
                let stated = self.stated[place].clone();
                self.bring(stated);
            }
            _ => {
                let stated = self.state(step);
                self.bring(stated);
            }
        }
    }

    /// The chain that the server shows, and the head and position that it names.
    fn shown(&self) -> (Vec<DeviceChange>, (Hash, u64)) {
        let shown = self.service.pools.device_changes("alice", 0, usize::MAX).unwrap();
        let Some(shown) = shown else {
            return (Vec::new(), (self.service.pools.device_list_head("alice"), 0));
        };
        assert!(!shown.more);
        (shown.changes, (shown.head, shown.position))
    }
}

fn read(changes: &[DeviceChange], end: (Hash, u64)) -> Option<DeviceList> {
    let mut list = DeviceList::new("alice");
    list.follow(changes, end, &[ledger()], &has_signed).ok().map(|()| list)
}

/// The keys that events have taken away, told by the events alone.
fn dead(changes: &[DeviceChange]) -> BTreeSet<SignatureKey> {
    let (mut speaks, mut words) = (std::collections::BTreeMap::new(), None);
    let mut dead = BTreeSet::new();
    for DeviceChange { device, event, .. } in changes {
        match event {
            Event::Registered { signature_key, .. } | Event::KeyRotated { signature_key, .. } => {
                dead.extend(speaks.insert(device.clone(), signature_key.clone()));
            }
            Event::DeviceRemoved { .. } => dead.extend(speaks.remove(device)),
            Event::RecoveryKeySet { recovery_key, .. } => {
                dead.extend(words.replace(recovery_key.clone()));
            }
            Event::NameReleased {} => dead.extend(words.take()),
            _ => {}
        }
    }
    dead
}

/// The signed statement of a change.
fn statement_of(event: &Event) -> Option<&SignedStatement> {
    match event {
        Event::Registered { statement, .. }
        | Event::KeyRotated { statement, .. }
        | Event::LeafKeyPinned { statement, .. } => statement.as_ref(),
        Event::CredentialDeclared { statement, .. } | Event::RecoveryKeySet { statement, .. } => {
            Some(statement)
        }
        _ => None,
    }
}

fn check(steps: &[Step]) {
    let mut story = Story::new();
    story.take_all(steps);
    let (changes, end) = story.shown();
    if changes.is_empty() {
        return;
    }
    let list = read(&changes, end).expect("the chain of an honest server verifies");
    assert_eq!(list.head(), story.service.pools.device_list_head("alice"));

    let dead = dead(&changes);
    for key in &dead {
        assert!(list.is_retired(key) && story.service.pools.is_retired(key));
        assert_eq!(story.service.pools.pool_of_key(key), None, "a dead key speaks for a device");
        assert!(list.registered().all(|(_, listed)| listed.key.as_ref() != Some(key)));
        assert_ne!(list.recovery_key(), Some(key));
    }
    // No key signs after its death, and each statement is used once.
    let mut used = BTreeSet::new();
    for (place, change) in changes.iter().enumerate() {
        let Some(statement) = statement_of(&change.event) else { continue };
        assert!(!self::dead(&changes[..place]).contains(&statement.by), "a dead key signs");
        assert!(used.insert(statement.proof.as_bytes().to_vec()), "a statement works twice");
    }
    for device in DEVICES.map(pool) {
        let speaks = list.device(device.device()).and_then(|listed| listed.key.clone());
        let registered = story.service.pools.registered_devices("alice").contains(&device);
        assert_eq!(speaks.is_some(), registered);
    }
    // Page by page it is the same.
    let (mut pages, mut more) = (Vec::new(), true);
    while more {
        let after = pages.last().map_or(0, |last: &DeviceChange| last.position);
        let page = story.service.pools.device_changes("alice", after, 3).unwrap().unwrap();
        assert!(page.changes.len() <= 3 && (page.head, page.position) == end);
        pages.extend(page.changes);
        more = page.more;
    }
    assert_eq!(pages, changes);
    // A part of it is followed by the rest, also after a restart.
    let half = changes.len() / 2;
    let mut known = DeviceList::new("alice");
    for change in &changes[..half] {
        known.apply(change, &[ledger()], &has_signed).unwrap();
    }
    let service = story.service.restarted();
    let rest = service.pools.device_changes("alice", known.position(), usize::MAX);
    let rest = rest.unwrap().unwrap();
    assert_eq!(rest.changes, changes[half..]);
    known.follow(&rest.changes, (rest.head, rest.position), &[ledger()], &has_signed).unwrap();
    assert_eq!(known, list);
}

#[test]
fn the_chain_of_any_history_verifies_and_no_dead_key_speaks() {
    let property = |steps: Vec<Step>| check(&steps);
    QuickCheck::new().tests(150).quickcheck(property as fn(Vec<Step>));
}

/// One lie about a chain.
fn tampered(changes: &[DeviceChange], (kind, place, other): (u8, u16, u8)) -> Vec<DeviceChange> {
    let mut lie = changes.to_vec();
    let place = usize::from(place) % lie.len();
    let next = (place + 1) % lie.len();
    let ghost = public(&key(other));
    match kind % 6 {
        0 => drop(lie.remove(place)),
        1 => {
            let again = lie[place].clone();
            lie.insert(place, again);
        }
        2 => lie.swap(place, next),
        // Swapped, with the positions that belong there.
        3 => {
            lie.swap(place, next);
            for (change, true_one) in lie.iter_mut().zip(changes) {
                change.position = true_one.position;
            }
        }
        4 => match &mut lie[place].event {
            Event::Registered { signature_key: key, .. }
            | Event::KeyRotated { signature_key: key, .. }
            | Event::LeafKeyPinned { signature_key: key, .. }
            | Event::RecoveryKeySet { recovery_key: key, .. } => *key = ghost,
            Event::CredentialDeclared { credential, .. } => {
                *credential = Story::credential(&ghost);
            }
            event => *event = Event::NameReleased {},
        },
        _ => {
            let device = pool(DEVICES[usize::from(other) % DEVICES.len()]);
            lie[place].device = device;
        }
    }
    lie
}

/// Everything that a list says of the keys there are: without the moments and the origins.
fn said(list: &DeviceList) -> (Option<&SignatureKey>, bool, Vec<(&str, ListedDevice)>) {
    let keys = |(name, listed)| {
        let listed: &ListedDevice = listed;
        let (since, since_at) = (0, Timestamp::default());
        let (origin, introduced) = (Origin::Unsigned, false);
        (name, ListedDevice { since, since_at, origin, introduced, ..listed.clone() })
    };
    (list.recovery_key(), 0 < list.releases(), list.registered().map(keys).collect())
}

/// A first key that has signed nothing and was removed is known by nothing but the server's word, and so is
/// the place of removals and releases between registrations that nobody has signed: a lie about these gives
/// no device another key, and introduces none. Every other lie shows.
#[test]
fn no_tampered_chain_verifies_with_the_same_head_and_says_another_thing() {
    let property = |steps: Vec<Step>, lies: Vec<(u8, u16, u8)>| {
        let mut story = Story::new();
        story.take_all(&steps);
        let (changes, end) = story.shown();
        if changes.is_empty() {
            return;
        }
        for lie in lies {
            let told = tampered(&changes, lie);
            if told == changes {
                continue;
            }
            if let Some(list) = read(&told, end) {
                let truth = read(&changes, end).unwrap();
                assert_eq!(said(&list), said(&truth), "{lie:?} of {changes:#?}");
                for (name, listed) in list.registered().filter(|(_, listed)| listed.introduced) {
                    let truth = truth.device(name).unwrap();
                    assert!(truth.introduced, "{lie:?} introduces {name}: {listed:?} {changes:#?}");
                }
            }
        }
    };
    QuickCheck::new().tests(150).quickcheck(property as fn(Vec<Step>, Vec<(u8, u16, u8)>));
}
