//! Welcomes and messages, as a device receives them.

use super::{
    device::{group, now, scene},
    edits::edit,
    input::InputReader,
};

/// Joins from a Welcome: the genuine one with changes, or the input itself. A device joins from the genuine one even
/// if it has tried another before, and an attempt that fails leaves no group.
pub fn welcome(bytes: &[u8]) {
    let mut input = InputReader::new(bytes);
    let scene = scene();
    let mut welcome = scene.welcome.clone();
    let is_edited = input.flag();
    if is_edited {
        edit(&mut input, &mut welcome);
    } else {
        welcome = input.rest().to_vec();
    }
    let bob = scene.invited.open();
    if bob.groups.join_from_welcome(&welcome, now()).is_ok() {
        assert_eq!(bob.groups.groups().unwrap(), [group()], "the group is that of the Welcome");
        return;
    }
    assert!(bob.groups.groups().unwrap().is_empty(), "a device does not join in part");
    let joined = bob.groups.join_from_welcome(&scene.welcome, now());
    joined.expect("the genuine Welcome joins after another one was refused");
}

/// Opens messages of a group: genuine ones with changes, in any order, and the input itself. A message that is
/// refused changes nothing: the genuine ones are opened afterwards.
pub fn message(bytes: &[u8]) {
    let mut input = InputReader::new(bytes);
    let scene = scene();
    let bob = scene.joined.open();
    let is_edited = input.flag();
    let before = bob.database.entries();
    if is_edited {
        for _ in 0..=input.number(3) {
            let mut message = scene.messages[input.number(2)].clone();
            let before = bob.database.entries();
            let is_changed = edit(&mut input, &mut message);
            let received = bob.groups.decrypt(&message);
            assert!(received.is_err() || !is_changed, "a changed message is refused");
            assert!(received.is_ok() || bob.database.entries() == before);
        }
    } else {
        let received = bob.groups.decrypt(input.rest());
        assert!(received.is_err(), "nobody has sealed the bytes of an input");
        assert!(bob.database.entries() == before, "a refused message changes nothing");
    }
    if bob.groups.epoch(&group()).unwrap() == 1 {
        bob.groups.decrypt(&scene.messages[1]).expect("the genuine update is taken over");
    }
}
