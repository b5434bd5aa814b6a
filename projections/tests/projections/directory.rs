//! The chain of a user's device list: its reading, and each lie of a server that shows.

use std::time::Duration;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use keypool_ledger::{
    CredentialBytes, Event, Hash, PoolId, Signature, SignatureKey, SignedStatement, Timestamp,
};
use keypool_projections::{
    directory::{ChainError, DeviceChange, DeviceList, Origin},
    statement::{Agreement, LedgerId, Statement},
};

use crate::history::START;

/// The keys of the stories, by number.
fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

fn public(key: &SigningKey) -> SignatureKey {
    SignatureKey::new(key.verifying_key().as_bytes()).unwrap()
}

fn verify(key: &SignatureKey, bytes: &[u8], signature: &Signature) -> bool {
    let key = VerifyingKey::from_bytes(key.as_bytes().try_into().unwrap()).unwrap();
    let signature = ed25519_dalek::Signature::from_slice(signature.as_bytes()).unwrap();
    key.verify_strict(bytes, &signature).is_ok()
}

fn ledger() -> LedgerId {
    "keypool.example+0123abcd".parse().unwrap()
}

fn device(name: &str) -> PoolId {
    format!("alice/{name}").parse().unwrap()
}

/// A server that writes down the changes of alice's devices.
#[derive(Clone)]
struct Chain {
    list: DeviceList,
    changes: Vec<DeviceChange>,
    at: Timestamp,
}

impl Chain {
    fn new() -> Self {
        Self { list: DeviceList::new("alice"), changes: Vec::new(), at: START }
    }

    /// Alice's phone (key 1), her laptop (key 2, which the phone has vouched for), and her recovery key 9.
    fn of_two() -> Self {
        let mut chain = Self::new();
        chain.first("phone", 1);
        chain.vouched("laptop", 2, ("phone", 1));
        chain.recovery_key("phone", 9, 1);
        chain
    }

    /// The statement of a key on the list as it is, good for four minutes.
    fn states(&self, by: u8, subject: &str, agreement: Agreement<'_>) -> SignedStatement {
        self.states_for(&ledger(), by, subject, agreement)
    }

    fn states_for(
        &self,
        ledger: &LedgerId,
        by: u8,
        subject: &str,
        agreement: Agreement<'_>,
    ) -> SignedStatement {
        let (signer, head, until) =
            (key(by), self.list.head(), self.at.after(Duration::from_mins(4)));
        let (by, subject) = (public(&signer), device(subject));
        let statement =
            Statement { ledger, subject: &subject, by: &by, agreement, head: &head, until };
        let proof = Signature::new(&signer.sign(&statement.to_bytes()).to_bytes()).unwrap();
        SignedStatement { by, head, until, proof }
    }

    /// Writes a change, whether it is true or not.
    fn write(&mut self, name: &str, event: Event) -> Result<(), ChainError> {
        let position = self.changes.last().map_or(3, |last| last.position + 7);
        self.at = self.at.after(Duration::from_secs(10));
        let change = DeviceChange { device: device(name), position, at: self.at, event };
        self.changes.push(change.clone());
        self.list.apply(&change, &[ledger()], &verify)
    }

    fn first(&mut self, name: &str, number: u8) {
        self.write(name, registered(number, None)).unwrap();
    }

    fn vouched(&mut self, name: &str, number: u8, (by, by_key): (&str, u8)) {
        assert!(self.list.device(by).is_some());
        let statement = self.states(by_key, name, Agreement::Vouch(&public(&key(number))));
        self.write(name, registered(number, Some(statement))).unwrap();
    }

    fn rotated(&mut self, name: &str, number: u8, by: u8) {
        let statement = self.states(by, name, Agreement::Rotate(&public(&key(number))));
        self.write(name, rotated(number, Some(statement))).unwrap();
    }

    fn recovery_key(&mut self, name: &str, number: u8, by: u8) {
        let statement = self.states(by, name, Agreement::RecoveryKey(&public(&key(number))));
        self.write(name, recovery(number, statement)).unwrap();
    }

    /// A recovery as the server writes it: the statement names the head before the removals.
    fn recovered(&mut self, name: &str, number: u8, by: u8) -> Result<(), ChainError> {
        let statement = self.states(by, name, Agreement::Recover(&public(&key(number))));
        let registered_now: Vec<String> =
            self.list.registered().map(|(device, _)| device.to_owned()).collect();
        for device in registered_now {
            self.write(&device, Event::DeviceRemoved { by_operator: false }).unwrap();
        }
        self.write(name, registered(number, Some(statement)))
    }

    fn position(&self) -> u64 {
        self.changes.last().unwrap().position
    }

    /// The list that a reader without earlier knowledge folds from some changes, with the head that the server names.
    fn read(&self, changes: &[DeviceChange]) -> Result<DeviceList, ChainError> {
        self.read_after(&DeviceList::new("alice"), changes)
    }

    fn read_after(
        &self,
        known: &DeviceList,
        changes: &[DeviceChange],
    ) -> Result<DeviceList, ChainError> {
        let mut list = known.clone();
        let end = (self.list.head(), self.position());
        list.follow(changes, end, &[ledger()], &verify).map(|()| list)
    }
}

fn registered(number: u8, statement: Option<SignedStatement>) -> Event {
    Event::Registered {
        signature_key: public(&key(number)),
        credential: "alice".to_owned(),
        voucher: None,
        statement,
        frontend: None,
    }
}

fn rotated(number: u8, statement: Option<SignedStatement>) -> Event {
    let signature_key = public(&key(number));
    Event::KeyRotated { signature_key, credential: "alice".to_owned(), statement }
}

fn recovery(number: u8, statement: SignedStatement) -> Event {
    Event::RecoveryKeySet { recovery_key: public(&key(number)), statement }
}

#[test]
fn a_reader_finds_how_each_device_came_and_which_keys_are_its() {
    let mut chain = Chain::of_two();
    chain.rotated("laptop", 3, 2);
    let credential = CredentialBytes::new(&[0, 1, 2, 0xfe, 0xfd]).unwrap();
    let digest = credential.digest();
    let statement = chain.states(3, "laptop", Agreement::Credential(&digest));
    let declared = Event::CredentialDeclared { credential: credential.clone(), statement };
    chain.write("laptop", declared).unwrap();
    chain.vouched("tablet", 4, ("laptop", 3));
    chain.write("tablet", Event::DeviceRemoved { by_operator: false }).unwrap();

    let list = chain.read(&chain.changes).unwrap();
    assert_eq!((list.user(), list.position(), list.releases()), ("alice", chain.position(), 0));
    let (phone, laptop) = (list.device("phone").unwrap(), list.device("laptop").unwrap());
    assert_eq!((&phone.origin, phone.introduced, phone.incarnation), (&Origin::First, true, 1));
    assert_eq!(laptop.origin, Origin::Vouched { by: public(&key(1)) });
    assert_eq!((laptop.key.clone(), laptop.introduced), (Some(public(&key(3))), true));
    assert_eq!((laptop.since, laptop.since_at), (chain.changes[3].position, chain.changes[3].at));
    // A registration, one key that went and one that came, and a credential.
    assert_eq!((phone.changes, laptop.changes), (2, 4));
    assert_eq!(laptop.credential, Some(credential));
    assert_eq!(list.device("tablet").unwrap().key, None);
    assert_eq!(list.recovery_key(), Some(&public(&key(9))));
    assert_eq!((list.recovery_device(), list.is_recovery_key_introduced()), (Some("phone"), true));
    assert_eq!(list.registered().map(|(name, _)| name).collect::<Vec<_>>(), ["laptop", "phone"]);
    // Nothing new is nothing new.
    assert_eq!(chain.read_after(&list, &[]), Ok(list.clone()));
    // Part by part it is the same.
    let (known, new) = chain.changes.split_at(4);
    let mut part = DeviceList::new("alice");
    for change in known {
        part.apply(change, &[ledger()], &verify).unwrap();
    }
    assert_eq!(chain.read_after(&part, new), Ok(list));
}

#[test]
fn a_ghost_device_is_introduced_by_nobody_and_shows_at_the_next_statement() {
    let mut chain = Chain::of_two();
    let honest = chain.list.clone();
    // By the operator's word it can be let in, and is none that anybody has introduced.
    chain.write("ghost", registered(66, None)).unwrap();
    let list = chain.read(&chain.changes).unwrap();
    let ghost = list.device("ghost").unwrap();
    assert_eq!((&ghost.origin, ghost.introduced), (&Origin::Unsigned, false));
    // Neither is one that it has vouched for.
    chain.vouched("second", 67, ("ghost", 66));
    assert!(!chain.list.device("second").unwrap().introduced);

    // With a statement by a key of the server's own, or one that alice's phone has not signed.
    let mut chain = Chain { list: honest, changes: chain.changes[..3].to_vec(), at: chain.at };
    let ghost = public(&key(66));
    let own = chain.states(77, "ghost", Agreement::Vouch(&ghost));
    let forged = SignedStatement { by: public(&key(1)), ..own.clone() };
    let (before, position) = (chain.clone(), chain.position() + 7);
    assert_eq!(
        chain.write("ghost", registered(66, Some(own))),
        Err(ChainError::NotTheUsers { position, by: public(&key(77)) })
    );
    let mut chain = before.clone();
    assert_eq!(
        chain.write("ghost", registered(66, Some(forged))),
        Err(ChainError::NotSigned { position })
    );
    // Alice's own next statement is on a list without the ghost.
    let mut chain = before;
    let statement = chain.states(1, "tablet", Agreement::Vouch(&public(&key(3))));
    chain.write("ghost", registered(66, None)).unwrap();
    let position = chain.position() + 7;
    assert_eq!(
        chain.write("tablet", registered(3, Some(statement))),
        Err(ChainError::Gap { position })
    );
}

#[test]
fn another_key_in_the_place_of_the_one_that_was_signed_is_refused() {
    let mut chain = Chain::of_two();
    chain.rotated("laptop", 3, 2);
    let mallory = public(&key(66));
    for (place, is_found) in [(1, true), (2, true), (3, true), (0, false)] {
        let mut changes = chain.changes.clone();
        match &mut changes[place].event {
            Event::Registered { signature_key: key, .. }
            | Event::KeyRotated { signature_key: key, .. }
            | Event::RecoveryKeySet { recovery_key: key, .. } => *key = mallory.clone(),
            other => panic!("{other:?}"),
        }
        let position = changes[place].position;
        let expected = ChainError::NotSigned { position };
        let found = chain.read(&changes).unwrap_err();
        // The first key of all is trusted on first use; the next statement is not its own.
        assert_eq!(found == expected, is_found, "{place}: {found:?}");
    }
}

#[test]
fn a_chain_with_a_gap_is_refused() {
    let mut chain = Chain::of_two();
    chain.rotated("laptop", 3, 2);
    for place in 1..chain.changes.len() - 1 {
        let mut changes = chain.changes.clone();
        let next = changes[place + 1].position;
        changes.remove(place);
        let found = chain.read(&changes).unwrap_err();
        let is_named = match &found {
            ChainError::Gap { position } => *position == next,
            ChainError::OutOfOrder { position, .. } => *position == next,
            _ => false,
        };
        assert!(is_named, "{place}: {found:?}");
    }
    let withheld = chain.read(&chain.changes[..3]).unwrap_err();
    assert_eq!(withheld, ChainError::Withheld { user: "alice".to_owned() });
    assert!(withheld.to_string().contains("keeps changes of alice's devices back"));
}

#[test]
fn the_chain_of_another_user_is_refused() {
    let chain = Chain::of_two();
    let mut bob = DeviceList::new("bob");
    let end = (chain.list.head(), chain.position());
    let found = bob.follow(&chain.changes, end, &[ledger()], &verify);
    assert_eq!(found, Err(ChainError::OtherUser { device: device("phone"), position: 3 }));
    // Renamed, its statements are about other devices.
    let rename = |change: &DeviceChange| DeviceChange {
        device: PoolId::new("bob", change.device.device()).unwrap(),
        ..change.clone()
    };
    let renamed: Vec<_> = chain.changes.iter().map(rename).collect();
    let found = bob.follow(&renamed, end, &[ledger()], &verify);
    assert_eq!(found, Err(ChainError::Gap { position: 10 }), "the head names its user");
}

#[test]
fn an_older_chain_than_is_known_is_refused() {
    let mut chain = Chain::of_two();
    let older = chain.clone();
    chain.write("laptop", Event::DeviceRemoved { by_operator: false }).unwrap();
    let known = chain.read(&chain.changes).unwrap();
    assert_eq!(
        older.read_after(&known, &[]),
        Err(ChainError::Older { user: "alice".to_owned(), known: 24, shown: 17 })
    );
}

#[test]
fn a_hidden_removal_is_refused() {
    let mut chain = Chain::of_two();
    let known = chain.list.clone();
    chain.write("laptop", Event::DeviceRemoved { by_operator: false }).unwrap();
    // The server shows nothing new, or no more than the position.
    let user = "alice".to_owned();
    assert_eq!(chain.read_after(&known, &[]), Err(ChainError::Withheld { user }));
    chain.vouched("tablet", 4, ("phone", 1));
    let after = &chain.changes[4..];
    let position = chain.position();
    assert_eq!(chain.read_after(&known, after), Err(ChainError::Gap { position }));
}

#[test]
fn a_statement_for_another_ledger_is_refused() {
    let mut chain = Chain::of_two();
    let elsewhere = "other.example+0123abcd".parse().unwrap();
    let tablet = public(&key(4));
    let statement = chain.states_for(&elsewhere, 1, "tablet", Agreement::Vouch(&tablet));
    let position = chain.position() + 7;
    assert_eq!(
        chain.write("tablet", registered(4, Some(statement))),
        Err(ChainError::NotSigned { position })
    );
}

#[test]
fn a_statement_for_the_ledger_before_a_restored_copy_counts() {
    let before: LedgerId = "keypool.example/1+89abcdef".parse().unwrap();
    let mut chain = Chain::new();
    chain.first("phone", 1);
    let key = public(&key(2));
    let statement = chain.states_for(&before, 1, "laptop", Agreement::Vouch(&key));
    let change = DeviceChange {
        device: device("laptop"),
        position: chain.position() + 1,
        at: chain.at,
        event: registered(2, Some(statement)),
    };
    let mut list = chain.list.clone();
    list.apply(&change, &[before, ledger()], &verify).unwrap();
    assert!(list.device("laptop").unwrap().introduced);
}

/// A reader who sees a user for the first time takes the devices that are there for the user's.
#[test]
fn keys_and_vouchers_of_an_adopted_device_are_introduced() {
    let mut chain = Chain::new();
    chain.first("phone", 1);
    chain.write("laptop", registered(2, None)).unwrap();
    assert!(!chain.list.device("laptop").unwrap().introduced);
    chain.list.adopt();
    chain.rotated("laptop", 3, 2);
    chain.vouched("tablet", 4, ("laptop", 3));
    chain.write("stranger", registered(5, None)).unwrap();
    let introduced = |name: &str| chain.list.device(name).unwrap().introduced;
    assert!(introduced("laptop") && introduced("tablet") && !introduced("stranger"));
}

#[test]
fn a_statement_that_had_ended_is_refused() {
    let mut chain = Chain::of_two();
    let statement = chain.states(1, "tablet", Agreement::Vouch(&public(&key(4))));
    chain.at = statement.until.before(Duration::from_secs(10));
    let position = chain.position() + 7;
    assert_eq!(
        chain.write("tablet", registered(4, Some(statement))),
        Err(ChainError::Expired { position })
    );
}

#[test]
fn a_dead_key_is_nobodys_again() {
    let mut chain = Chain::of_two();
    chain.rotated("laptop", 3, 2);
    chain.recovery_key("phone", 8, 9);
    chain.vouched("tablet", 4, ("phone", 1));
    chain.write("tablet", Event::DeviceRemoved { by_operator: false }).unwrap();
    // Rotated away, removed, and a recovery key that was replaced or is the present one.
    for dead in [2, 4, 9, 8] {
        assert_eq!(chain.list.is_retired(&public(&key(dead))), dead != 8);
        let reused = || {
            let (position, key) = (chain.position() + 7, public(&key(dead)));
            Err(ChainError::KeyReused { position, key })
        };
        let dead_key = public(&key(dead));
        let vouched = chain.states(1, "watch", Agreement::Vouch(&dead_key));
        let mut of = chain.clone();
        assert_eq!(of.write("watch", registered(dead, Some(vouched))), reused());
        let mut of = chain.clone();
        let next = chain.states(3, "laptop", Agreement::Rotate(&dead_key));
        assert_eq!(of.write("laptop", rotated(dead, Some(next))), reused());
        let mut of = chain.clone();
        let statement = Some(chain.states(3, "laptop", Agreement::LeafKey(0x0807, &dead_key)));
        let leaf = Event::LeafKeyPinned {
            signature_scheme: 0x0807,
            signature_key: dead_key.clone(),
            statement,
        };
        assert_eq!(of.write("laptop", leaf), reused());
        let mut of = chain.clone();
        let set = chain.states(8, "phone", Agreement::RecoveryKey(&dead_key));
        assert_eq!(of.write("phone", recovery(dead, set)), reused());
        let mut of = chain.clone();
        let statement = chain.states(8, "watch", Agreement::Recover(&dead_key));
        assert_eq!(of.write("watch", registered(dead, Some(statement))), reused());
    }
}

#[test]
fn a_statement_works_once() {
    let mut chain = Chain::of_two();
    let (vouched, recovery_set) = (chain.changes[1].event.clone(), chain.changes[2].event.clone());
    chain.write("laptop", Event::DeviceRemoved { by_operator: false }).unwrap();
    let position = chain.position() + 7;
    let mut again = chain.clone();
    let dead = ChainError::KeyReused { position, key: public(&key(2)) };
    assert_eq!(again.write("laptop", vouched), Err(dead));
    let mut again = chain.clone();
    let known = ChainError::KeyReused { position, key: public(&key(9)) };
    assert_eq!(again.write("phone", recovery_set), Err(known));
    // A statement that nobody has used yet is stale as well once the list has changed.
    let unused = chain.states(1, "laptop", Agreement::Vouch(&public(&key(5))));
    chain.rotated("phone", 6, 1);
    let position = chain.position() + 7;
    let stale = chain.clone().write("laptop", registered(5, Some(unused.clone())));
    assert_eq!(stale, Err(ChainError::NotTheUsers { position, by: public(&key(1)) }));
    // Neither is its head good for the phone's next key.
    let now = chain.states(6, "laptop", Agreement::Vouch(&public(&key(5))));
    let stale = SignedStatement { head: unused.head, ..now };
    let found = chain.write("laptop", registered(5, Some(stale)));
    assert_eq!(found, Err(ChainError::Gap { position }));
}

#[test]
fn the_leaf_keys_of_a_rotation_name_the_head_before_it() {
    let mut chain = Chain::of_two();
    let next = public(&key(3));
    let [p256, other] = [11, 12].map(|byte| SignatureKey::new(&[byte; 65]).unwrap());
    let rotation = chain.states(2, "laptop", Agreement::Rotate(&next));
    let [first, second, by_another] = [(3, 0x0403, &p256), (3, 0x0807, &next), (1, 0x0603, &other)]
        .map(|(by, scheme, leaf)| {
            (scheme, leaf, chain.states(by, "laptop", Agreement::LeafKey(scheme, leaf)))
        });
    let pinned =
        |(scheme, leaf, statement): (u16, &SignatureKey, SignedStatement)| Event::LeafKeyPinned {
            signature_scheme: scheme,
            signature_key: leaf.clone(),
            statement: Some(statement),
        };
    chain.write("laptop", rotated(3, Some(rotation))).unwrap();
    chain.write("laptop", pinned(first.clone())).unwrap();
    let position = chain.position() + 7;
    let found = chain.clone().write("laptop", pinned(by_another));
    assert_eq!(found, Err(ChainError::NotTheUsers { position, by: public(&key(1)) }));
    chain.write("laptop", pinned(second)).unwrap();
    let laptop = chain.read(&chain.changes).unwrap().device("laptop").unwrap().clone();
    assert_eq!(laptop.leaf_keys.get(&0x0403), Some(&p256));
    assert_eq!(laptop.leaf_keys.get(&0x0807), Some(&next));
    // Later the same statement is stale.
    chain.vouched("tablet", 4, ("phone", 1));
    let position = chain.position() + 7;
    assert_eq!(chain.write("laptop", pinned(first)), Err(ChainError::Gap { position }));
}

#[test]
fn the_recovery_key_brings_the_name_back_and_a_device_does_not() {
    let mut chain = Chain::of_two();
    // The thief's laptop sets no other recovery key, and registers nothing in its name.
    let theirs = public(&key(66));
    let set = chain.states(2, "phone", Agreement::RecoveryKey(&theirs));
    let position = chain.position() + 7;
    let not_the_users = || Err(ChainError::NotTheUsers { position, by: public(&key(2)) });
    assert_eq!(chain.clone().write("phone", recovery(66, set)), not_the_users());
    let second = chain.states(2, "laptop", Agreement::RecoveryKey(&theirs));
    let found = chain.clone().write("laptop", recovery(66, second));
    assert_eq!(found, Err(ChainError::OutOfOrder { device: device("laptop"), position }));
    let recover = chain.states(2, "spare", Agreement::Recover(&theirs));
    let found = chain.clone().write("spare", registered(66, Some(recover)));
    assert_eq!(found, Err(ChainError::NotSigned { position }), "it vouches, and says recover");

    // The thief removes the phone; the words bring the name back all the same.
    chain.write("phone", Event::DeviceRemoved { by_operator: false }).unwrap();
    chain.recovered("spare", 5, 9).unwrap();
    let list = chain.read(&chain.changes).unwrap();
    let spare = list.device("spare").unwrap();
    assert_eq!((&spare.origin, spare.introduced), (&Origin::Recovered, true));
    assert_eq!(list.registered().count(), 1);

    // Without the removals the others are nobody's, and neither is a device they vouch for.
    let mut chain = Chain::of_two();
    let spare = public(&key(5));
    let statement = chain.states(9, "spare", Agreement::Recover(&spare));
    chain.write("spare", registered(5, Some(statement))).unwrap();
    chain.vouched("another", 67, ("laptop", 2));
    let introduced = |name: &str| chain.list.device(name).unwrap().introduced;
    assert_eq!(
        ["spare", "laptop", "phone", "another"].map(introduced),
        [true, false, false, false]
    );
    // A recovery that was made before a change other than removals is stale.
    let mut chain = Chain::of_two();
    let statement = chain.states(9, "spare", Agreement::Recover(&spare));
    chain.write("laptop", Event::DeviceRemoved { by_operator: false }).unwrap();
    chain.rotated("phone", 7, 1);
    let position = chain.position() + 7;
    let found = chain.write("spare", registered(5, Some(statement)));
    assert_eq!(found, Err(ChainError::Gap { position }));
}

#[test]
fn a_released_name_begins_again_and_says_so() {
    let mut chain = Chain::of_two();
    let position = chain.position() + 7;
    let found = chain.clone().write("phone", Event::NameReleased {});
    let out_of_order = Err(ChainError::OutOfOrder { device: device("phone"), position });
    assert_eq!(found, out_of_order, "its devices are removed first");
    for name in ["phone", "laptop"] {
        chain.write(name, Event::DeviceRemoved { by_operator: false }).unwrap();
        chain.write(name, Event::NameReleased {}).unwrap();
    }
    assert_eq!((chain.list.releases(), chain.list.recovery_key()), (1, None));
    chain.write("phone", registered(44, None)).unwrap();
    let list = chain.read(&chain.changes).unwrap();
    assert_eq!(list.device("phone").unwrap().origin, Origin::First);
    assert_eq!(list.device("phone").unwrap().incarnation, 2);
    // The recovery key of the one before is dead with the devices.
    let spare = public(&key(5));
    let statement = chain.states(9, "spare", Agreement::Recover(&spare));
    let (position, by) = (chain.position() + 7, public(&key(9)));
    let found = chain.write("spare", registered(5, Some(statement)));
    assert_eq!(found, Err(ChainError::NotTheUsers { position, by }));
    assert!(Hash::ZERO != list.head());
}

#[test]
fn a_key_that_signs_or_signed_for_a_device_is_known_until_it_is_removed() {
    let mut chain = Chain::of_two();
    let leaves = [11, 12].map(|byte| SignatureKey::new(&[byte; 65]).unwrap());
    for leaf in &leaves {
        let statement = Some(chain.states(2, "laptop", Agreement::LeafKey(0x0403, leaf)));
        let (signature_scheme, signature_key) = (0x0403, leaf.clone());
        let pinned = Event::LeafKeyPinned { signature_scheme, signature_key, statement };
        chain.write("laptop", pinned).unwrap();
    }
    let pinned_at = chain.at;
    chain.rotated("laptop", 3, 2);
    let laptop = chain.list.device("laptop").unwrap().clone();
    let [old, new] = [2, 3].map(|number| public(&key(number)));
    for key in [&old, &new, &leaves[0], &leaves[1]] {
        assert!(laptop.has_key(key.as_bytes()), "{key}");
    }
    assert!(!laptop.has_key(public(&key(1)).as_bytes()), "the phone's");
    let replaced =
        [&leaves[0], &leaves[1], &old, &new].map(|key| laptop.replaced_at(key.as_bytes()));
    assert_eq!(replaced, [Some(pinned_at), Some(chain.at), Some(chain.at), None]);
    chain.write("laptop", Event::DeviceRemoved { by_operator: false }).unwrap();
    let removed = chain.list.device("laptop").unwrap();
    assert!([&old, &new, &leaves[1]].iter().all(|key| !removed.has_key(key.as_bytes())));
}

#[test]
fn a_key_of_one_device_is_no_other_devices() {
    let mut chain = Chain::of_two();
    let phones = public(&key(1));
    let statement = chain.states(1, "tablet", Agreement::Vouch(&phones));
    let position = chain.position() + 7;
    let found = chain.write("tablet", registered(1, Some(statement)));
    assert_eq!(found, Err(ChainError::KeyReused { position, key: phones }));
}

#[test]
fn a_credential_that_the_device_has_not_signed_is_refused() {
    let mut chain = Chain::of_two();
    let credential = CredentialBytes::new(&[0, 1, 2]).unwrap();
    let digest = credential.digest();
    let forged = SignedStatement {
        by: public(&key(2)),
        ..chain.states(66, "laptop", Agreement::Credential(&digest))
    };
    let position = chain.position() + 7;
    let declared = Event::CredentialDeclared { credential, statement: forged };
    assert_eq!(chain.write("laptop", declared), Err(ChainError::NotSigned { position }));
}

#[test]
fn the_recovery_key_of_a_device_that_nobody_introduced_counts_once_it_is_adopted() {
    let mut chain = Chain::new();
    chain.first("phone", 1);
    chain.write("laptop", registered(2, None)).unwrap();
    chain.recovery_key("laptop", 9, 2);
    assert!(!chain.list.is_recovery_key_introduced());
    chain.list.adopt();
    assert!(chain.list.is_recovery_key_introduced());
    // Without a recovery key there is none to introduce.
    let mut chain = Chain::new();
    chain.first("phone", 1);
    chain.list.adopt();
    assert!(!chain.list.is_recovery_key_introduced());
}

#[test]
fn only_a_name_without_devices_from_before_has_a_first_one() {
    let origin = |chain: &Chain, name: &str| chain.list.device(name).unwrap().origin.clone();
    // The name was not released: a device without a statement may be anybody's.
    let mut chain = Chain::new();
    chain.first("phone", 1);
    chain.write("phone", Event::DeviceRemoved { by_operator: true }).unwrap();
    chain.write("tablet", registered(4, None)).unwrap();
    assert_eq!(origin(&chain, "tablet"), Origin::Unsigned);
    // It was released while another device of it was registered.
    let mut chain = Chain::of_two();
    chain.write("laptop", Event::DeviceRemoved { by_operator: true }).unwrap();
    chain.write("laptop", Event::NameReleased {}).unwrap();
    chain.write("tablet", registered(4, None)).unwrap();
    assert_eq!(origin(&chain, "tablet"), Origin::Unsigned);
}
