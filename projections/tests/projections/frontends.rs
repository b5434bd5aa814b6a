//! Registration by a frontend, the app's backend: its key is recorded, and nothing else is different.

use keypool_ledger::{Event, SignatureKey};
use keypool_projections::{Answer, Command, Decision, Limits, PoolState, Rejection, timeline};

use crate::history::{at, envelope, pool};

fn key(number: u8) -> SignatureKey {
    SignatureKey::new(&[number; 32]).unwrap()
}

fn admit(key_number: u8, frontend: Option<u8>) -> Command {
    Command::Admit {
        signature_key: key(key_number),
        credential: "bob".to_owned(),
        statement: None,
        frontend: frontend.map(key),
    }
}

fn registered(key_number: u8, frontend: Option<u8>) -> Event {
    Event::Registered {
        signature_key: key(key_number),
        credential: "bob".to_owned(),
        voucher: None,
        statement: None,
        frontend: frontend.map(key),
    }
}

fn decided(state: &PoolState, command: &Command) -> Decision {
    state.decide(command, at(1), &Limits::STANDARD)
}

#[test]
fn the_first_frontend_to_register_a_device_is_recorded() {
    let mut state = PoolState::default();
    for (command, frontend) in [(admit(1, Some(8)), Some(8)), (admit(1, None), None)] {
        assert_eq!(decided(&state, &command).events, [registered(1, frontend)]);
    }
    state.evolve(&registered(1, Some(8)), at(0)).unwrap();
    let by_another = decided(&state, &admit(1, Some(9)));
    assert_eq!(by_another.answer, Ok(Answer::Registered { known: true }));
    assert_eq!(by_another.events, [], "it is registered");
    let another_key = decided(&state, &admit(2, Some(8)));
    assert_eq!(another_key.answer, Err(Rejection::IdentityBound), "a frontend replaces no key");
}

#[test]
fn a_registration_by_a_frontend_leaves_the_same_pool_and_another_line_of_its_history() {
    let state_after = |event: &Event| {
        let mut state = PoolState::default();
        state.evolve(event, at(0)).unwrap();
        state
    };
    let (by_device, by_frontend) = (registered(1, None), registered(1, Some(8)));
    assert_eq!(state_after(&by_device), state_after(&by_frontend));
    let line_of = |event| {
        let envelope = envelope(1, pool("bob"), event, at(0));
        timeline([&envelope], None).pop().unwrap().detail
    };
    let plain = format!("key {} speaks for bob", key(1));
    assert_eq!(line_of(by_device), plain);
    assert_eq!(line_of(by_frontend), format!("{plain}, by the frontend key {}", key(8)));
}
