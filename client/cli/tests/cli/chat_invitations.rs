//! Invitations in the chat: the answers, the second invitation, and the wait for packages.

use keypool_client::LocalStore;

use super::{
    chat::{Person, chat, typed},
    members::open,
    service::{Service, run},
    support::lose_all_packages,
};

#[test]
fn the_chat_says_who_has_joined() {
    let service = Service::start();
    typed(&service, "bob", "");
    let mut alice = Person::opens(&mut chat(&service, "alice"));
    alice.says("/create friday");
    alice.says("/invite bob");
    alice.reads("bob is in friday; they see what is said from now on");
    alice.says("/invitations");
    alice.reads("bob in friday: is added and has not answered yet; joins once they are online (");
    let bob = Person::opens(&mut chat(&service, "bob"));
    bob.reads("alice has brought you into friday");
    alice.reads("bob has joined friday");
    alice.says("/invitations");
    alice.reads("bob in friday: has joined (");
}

#[test]
fn the_chat_invites_a_device_again_that_could_not_join() {
    let service = Service::start();
    typed(&service, "bob", "");
    typed(&service, "alice", "/create friday\n/invite bob\n");
    let home = service.folder.path().join("bob");
    lose_all_packages(&LocalStore::open(&home, &"bob".parse().unwrap()).unwrap());
    let mut bob = Person::opens(&mut chat(&service, "bob"));
    bob.reads("cannot be read");
    bob.says("/refresh");
    bob.reads("pool: healthy");
    let alice = Person::opens(&mut chat(&service, "alice"));
    alice.reads(
        "bob could not join friday: it has no private keys for the KeyPackage any more; invited again",
    );
    bob.reads("alice has brought you into friday");
    alice.reads("bob has joined friday");
}

#[test]
fn the_chat_invites_people_as_soon_as_they_have_packages() {
    let service = Service::start();
    for name in ["bob", "carol"] {
        run(open(&service, name).register()).unwrap();
    }
    let mut alice = Person::opens(&mut chat(&service, "alice"));
    alice.says("/create friday");
    alice.says("/invitations");
    alice.reads("you have invited nobody yet");
    alice.says("/invite bob carol");
    alice.reads("bob has no KeyPackage left; invited as soon as they are online again");
    alice.reads("carol has no KeyPackage left; invited as soon as they are online again");
    alice.says("/remove carol");
    alice.reads("carol is not invited to friday any more");
    alice.says("/invitations");
    alice
        .reads("bob in friday: has no KeyPackage left; invited as soon as they are online again (");
    alice.reads("carol in friday: is not invited any more (");
    let bob = Person::opens(&mut chat(&service, "bob"));
    alice
        .reads("bob is in friday now, by KeyPackages that came; they see what is said from now on");
    bob.reads("alice has brought you into friday");
    alice.reads("bob has joined friday");
}
