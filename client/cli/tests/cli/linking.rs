//! A new device, linked in two chats by two words.

use std::process::Command;

use super::{
    chat::{Person, chat, patient_chat, typed},
    service::Service,
};

/// The chat of another device of a user, written `user/device`, in a home of its own.
fn device_chat(service: &Service, name: &str) -> Command {
    let (user, device) = name.split_once('/').unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_keypool"));
    command.args(["chat", "--refresh-s", "86400", "--user", user, "--device", device, "--home"]);
    command.arg(service.folder.path().join(name.replace('/', "-")));
    command.args(["--server", &service.tunnel.url()]);
    command
}

/// The `/link` line that stands in a line of the screen.
fn link_line(line: &str) -> &str {
    line.split_once("/link ").map(|(before, _)| &line[before.len()..]).unwrap()
}

#[test]
fn a_second_device_is_linked_by_two_words_and_comes_into_all_groups() {
    let service = Service::start();
    typed(&service, "bob", "");
    typed(&service, "alice", "/create friday\n/invite bob\n/create monday\n");
    let mut laptop = Person::opens(&mut patient_chat(&service, "alice"));
    let mut phone = Person::opens(&mut device_chat(&service, "alice/phone"));
    phone.reads("alice has a device already, and alice/phone is not linked to it");
    let asked = phone.reads("type in the chat of a device of alice: /link ");
    phone.says("/groups");
    phone.reads("this device is not linked yet");
    laptop.says(link_line(&asked));
    let line = laptop.reads("within ten minutes: /link ");
    phone.says(link_line(&line));
    phone.reads("alice/phone is linked; the other device brings it into your groups");
    laptop.reads("alice/phone is linked");
    // A group that had to wait for the phone's packages comes after the other one.
    let mut groups = [laptop.reads("alice/phone is in "), laptop.reads("alice/phone is in ")];
    groups.sort();
    assert!(groups[0].contains("in friday") && groups[1].contains("in monday"), "{groups:?}");
    let mut joined = [phone.reads("has brought you into "), phone.reads("has brought you into ")];
    joined.sort();
    assert!(joined[0].contains("friday") && joined[1].contains("monday"), "{joined:?}");
    phone.says("/switch friday");
    phone.says("hello from the phone");
    laptop.reads("alice/phone: hello from the phone");
    phone.says("/devices");
    phone.reads("vouched for by main (this one)");
    assert_eq!((laptop.ends().1, phone.ends().1), (0, 0));
    let bob = typed(&service, "bob", "/list\n");
    assert!(bob.contains("alice/phone: hello from the phone"), "{bob}");
    assert!(!bob.contains("(!)") && !bob.contains("(?)"), "{bob}");
}

#[test]
fn words_that_do_not_fit_are_answered() {
    let service = Service::start();
    typed(&service, "alice", "");
    let mut bob = Person::opens(&mut chat(&service, "bob"));
    bob.says("/link alice/phone/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    bob.reads("alice/phone is no device of yours, bob");
    bob.says("/link phone");
    bob.reads("that is no word of a new device");
    bob.says("/link");
    bob.reads("which word?");
    assert_eq!(bob.ends().1, 0);
    let mut phone = Person::opens(&mut device_chat(&service, "alice/phone"));
    phone.says("/link alice/phone/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    phone.reads("that is not the word that the other device shows");
    assert_eq!(phone.ends().1, 1, "it is not registered");
}
