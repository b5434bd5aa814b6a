//! Capabilities that a group requires: which packages are offered, and which requirement is named.

use keypool_ledger::{Event, PackageCapabilities};
use keypool_projections::{
    Command, Limits, PoolState, Rejection, RequiredCapabilities, Requirement,
    packing::{Packer, Unpacker},
};

use crate::history::{at, group, package, pool, reference, reservation};

/// A package whose leaf lists extensions and credentials.
fn uploaded(name: &str, extensions: &[u16], credentials: &[u16]) -> Event {
    let mut facts = package(name).facts;
    let (extensions, credentials) = (extensions.to_vec(), credentials.to_vec());
    let known = PackageCapabilities { extensions, proposals: Vec::new(), credentials };
    facts.capabilities = Some(Box::new(known));
    Event::Uploaded(facts)
}

fn pool_of(events: &[Event]) -> PoolState {
    let mut state = PoolState::default();
    for event in events {
        state.evolve(event, at(0)).unwrap();
    }
    state
}

fn extensions(numbers: &[u16]) -> RequiredCapabilities {
    RequiredCapabilities { extensions: numbers.to_vec(), ..RequiredCapabilities::default() }
}

fn reserve(number: u8, ciphersuites: &[u16], required: RequiredCapabilities) -> Command {
    Command::Reserve {
        reservation: reservation(number),
        holder: pool("carol"),
        group: group("g"),
        ciphersuites: ciphersuites.to_vec(),
        required,
        introduced: false,
        last_resort_only: false,
    }
}

/// The name of the package that is reserved, of those named.
fn offered(
    state: &PoolState,
    required: RequiredCapabilities,
    names: &[&'static str],
) -> Result<&'static str, Rejection> {
    let decision = state.decide(&reserve(1, &[], required), at(1), &Limits::STANDARD);
    decision.answer?;
    let Some(Event::Reserved { keypackage_ref, .. }) = decision.events.last() else {
        panic!("nothing is reserved")
    };
    Ok(*names.iter().find(|name| reference(name) == *keypackage_ref).unwrap())
}

#[test]
fn the_first_package_in_the_order_that_meets_every_requirement_is_offered() {
    let state = pool_of(&[
        Event::Uploaded(package("a").facts),
        uploaded("b", &[10], &[1]),
        uploaded("c", &[10, 0xff01], &[1, 2]),
        uploaded("d", &[10, 0xff01], &[1, 2]),
    ]);
    let offered = |required| offered(&state, required, &["a", "b", "c", "d"]);
    assert_eq!(offered(RequiredCapabilities::default()), Ok("a"));
    assert_eq!(offered(extensions(&[10])), Ok("b"));
    assert_eq!(offered(extensions(&[0xff01, 10])), Ok("c"));
    let x509 = RequiredCapabilities { credentials: vec![2], ..extensions(&[10]) };
    assert_eq!(offered(x509), Ok("c"));
    // Every implementation has the default types, also one whose capabilities are not recorded.
    let default = RequiredCapabilities { proposals: vec![1, 7], ..extensions(&[1, 2, 3, 4, 5]) };
    assert_eq!(offered(default), Ok("a"));
}

#[test]
fn the_requirement_that_no_package_meets_is_named() {
    let state = pool_of(&[uploaded("b", &[10], &[1]), uploaded("c", &[0xff01], &[2])]);
    let refused = |required| offered(&state, required, &["b", "c"]).unwrap_err();
    let unmet = Rejection::RequirementUnmet;
    assert_eq!(refused(extensions(&[10, 0xff02])), unmet(Requirement::Extension(0xff02)));
    let proposals = RequiredCapabilities { proposals: vec![3, 8], ..extensions(&[10]) };
    assert_eq!(refused(proposals), unmet(Requirement::Proposal(8)));
    let credentials = RequiredCapabilities { credentials: vec![1, 3], ..extensions(&[]) };
    assert_eq!(refused(credentials), unmet(Requirement::Credential(3)));
    // Each is met by a package, and both by none: that which the first one lacks.
    assert_eq!(refused(extensions(&[10, 0xff01])), unmet(Requirement::Extension(0xff01)));
    let said = unmet(Requirement::Extension(0xff02)).to_string();
    assert_eq!(said, "no package of the pool has extension 0xff02 in its capabilities");
}

#[test]
fn a_package_from_before_capabilities_were_recorded_meets_none_but_the_default_ones() {
    let state = pool_of(&[Event::Uploaded(package("a").facts)]);
    let refused = offered(&state, extensions(&[10]), &["a"]).unwrap_err();
    assert_eq!(refused, Rejection::RequirementUnmet(Requirement::Extension(10)));
}

#[test]
fn a_ciphersuite_is_asked_for_before_a_capability() {
    let state = pool_of(&[uploaded("a", &[10], &[1]), uploaded("b2", &[0xff01], &[1])]);
    let refused = |suites: &[u16], required| {
        state.decide(&reserve(1, suites, required), at(1), &Limits::STANDARD).answer.unwrap_err()
    };
    assert_eq!(refused(&[3], extensions(&[10])), Rejection::NothingCompatible);
    let unmet = Rejection::RequirementUnmet(Requirement::Extension(10));
    assert_eq!(refused(&[2], extensions(&[10])), unmet);
}

#[test]
fn a_repeated_reservation_is_held_to_what_it_requires() {
    let mut state = pool_of(&[uploaded("a", &[10], &[1])]);
    let made = state.decide(&reserve(1, &[], extensions(&[10])), at(1), &Limits::STANDARD);
    for event in &made.events {
        state.evolve(event, at(1)).unwrap();
    }
    let again = |required| {
        state.decide(&reserve(1, &[], required), at(2), &Limits::STANDARD).answer.map(drop)
    };
    assert_eq!(again(extensions(&[10])), Ok(()));
    let mismatch = Rejection::ReservationMismatch(reservation(1));
    assert_eq!(again(extensions(&[11])), Err(mismatch));
}

#[test]
fn a_packed_pool_has_the_capabilities_of_its_packages() {
    let state = pool_of(&[
        Event::Uploaded(package("a").facts),
        uploaded("b", &[10, 0xff01], &[1]),
        uploaded("c", &[10, 0xff01], &[1]),
        uploaded("d", &[], &[2]),
    ]);
    let mut packer = Packer::default();
    state.pack(&mut packer);
    let bytes = packer.into_bytes();
    let again = PoolState::unpack(&mut Unpacker::new(&bytes)).unwrap();
    for name in ["a", "b", "c", "d"] {
        let of = |state: &PoolState| state.get(&reference(name)).unwrap().facts.clone();
        assert_eq!(of(&again), of(&state), "{name}");
    }
}

#[test]
fn required_capabilities_are_counted_over_all_kinds() {
    let required = RequiredCapabilities {
        extensions: vec![10, 11, 12],
        proposals: vec![8, 9],
        credentials: vec![2],
    };
    assert_eq!((required.len(), required.is_empty()), (6, false));
    let none = RequiredCapabilities::default();
    assert_eq!((none.len(), none.is_empty()), (0, true));
}

#[test]
fn a_list_of_requirements_that_is_null_or_left_out_is_empty() {
    let read = |json: &str| serde_json::from_str::<RequiredCapabilities>(json).unwrap();
    let all = r#"{"extensions":[10,11],"proposals":[8],"credentials":[2]}"#;
    let read_all = read(all);
    assert_eq!(read_all.extensions, [10, 11]);
    assert_eq!((read_all.proposals, read_all.credentials), (vec![8], vec![2]));
    let nulls = r#"{"extensions":null,"proposals":null,"credentials":null}"#;
    assert_eq!(read(nulls), RequiredCapabilities::default());
    assert_eq!(read("{}"), RequiredCapabilities::default());
}
