//! Names and identifiers: which are accepted, and how each is written and read.

use std::{
    fmt::{Debug, Display},
    ops::RangeInclusive,
    str::FromStr,
};

use keypool_ledger::{
    CommandId, CredentialBytes, GroupId, Hash, KeyPackageRef, NameError, PoolId, ReservationId,
    Signature, SignatureKey, StreamId, SubjectId,
};

/// Bytes that differ from one another, as many as asked for.
fn bytes(len: usize) -> Vec<u8> {
    (1..=250).cycle().take(len).collect()
}

/// Checks an identifier of bytes: its lengths, its bytes, and that its text is read again.
fn is_made_of_bytes<T: Display + FromStr<Err = NameError> + PartialEq + Debug>(
    new: fn(&[u8]) -> Result<T, NameError>,
    as_bytes: fn(&T) -> &[u8],
    lens: RangeInclusive<usize>,
) {
    for len in [*lens.start(), *lens.end()] {
        let id = new(&bytes(len)).unwrap();
        assert_eq!(as_bytes(&id), bytes(len));
        assert_eq!(id.to_string().parse::<T>().unwrap(), id);
    }
    for len in [lens.start() - 1, lens.end() + 1] {
        let refused = new(&bytes(len)).unwrap_err();
        assert!(refused.to_string().ends_with(refused.rule), "{refused}");
        assert!(refused.value.len() <= 40, "{refused}");
    }
    let refused = "no such text!".parse::<T>().unwrap_err();
    assert_eq!(refused.value, "no such text!");
}

#[test]
fn identifiers_of_bytes_have_lengths_and_are_read_as_they_are_written() {
    is_made_of_bytes(KeyPackageRef::new, KeyPackageRef::as_bytes, 16..=64);
    is_made_of_bytes(GroupId::new, GroupId::as_bytes, 1..=255);
    is_made_of_bytes(CredentialBytes::new, CredentialBytes::as_bytes, 3..=8192);
    is_made_of_bytes(SignatureKey::new, SignatureKey::as_bytes, 32..=133);
    is_made_of_bytes(Signature::new, Signature::as_bytes, 32..=256);
}

#[test]
fn identifiers_are_written_in_the_words_of_the_interface() {
    let package = KeyPackageRef::new(&bytes(16)).unwrap();
    assert_eq!(package.to_string(), "0102030405060708090a0b0c0d0e0f10");
    assert_eq!(package.short(), "01020304");
    assert_eq!("0102030405060708090A0B0C0D0E0F10".parse(), Ok(package.clone()));
    let group = GroupId::new(&[0xfb, 0xff]).unwrap();
    assert_eq!((group.to_string(), group.to_path()), ("+/8=".to_owned(), "-_8".to_owned()));
    assert_eq!(GroupId::from_path("-_8"), Ok(group.clone()));
    assert!(GroupId::from_path("+/8=").unwrap_err().rule.starts_with("in a path"));
    let (zero, key) = (Hash::ZERO, SignatureKey::new(&[0; 32]).unwrap());
    assert_eq!(zero.to_string(), "0".repeat(64));
    assert_eq!("0".repeat(64).parse(), Ok(zero));
    assert_eq!("0".repeat(62).parse::<Hash>().unwrap_err().rule, "the hex of 32 bytes");
    assert_eq!(key.to_string(), "A".repeat(43));
    let credential = CredentialBytes::new(&[1, 2, 3]).unwrap();
    assert_eq!(credential.credential_type(), 0x0102);
    assert_eq!(credential.digest(), Hash::of(&[1, 2, 3]));
}

#[test]
fn identifiers_are_short_in_messages() {
    let (package, key) = (KeyPackageRef::new(&bytes(16)), SignatureKey::new(&[0; 32]));
    let (group, credential) = (GroupId::new(&[1]), CredentialBytes::new(&[1, 2, 3]));
    assert_eq!(format!("{:?}", package.unwrap()), "KeyPackageRef(01020304)");
    assert_eq!(format!("{:?}", group.unwrap()), "GroupId(AQ==)");
    assert_eq!(format!("{:?}", credential.unwrap()), "CredentialBytes(type 258, 3 bytes)");
    assert_eq!(format!("{:?}", Hash::ZERO), "Hash(00000000…)");
    assert_eq!(format!("{:?}", key.unwrap()), format!("SignatureKey({})", "A".repeat(43)));
    let signature = Signature::new(&[0; 33]).unwrap();
    assert_eq!(format!("{signature:?}"), format!("Signature({})", "A".repeat(44)));
    let id = SubjectId::from_bytes([0; 16]);
    assert_eq!(format!("{id:?}"), format!("SubjectId(~{})", "A".repeat(22)));
}

#[test]
fn ids_of_commands_and_reservations_are_uuids() {
    let text = "00112233-4455-4677-8899-aabbccddeeff";
    assert_eq!(text.parse::<CommandId>().unwrap().to_string(), text);
    assert_eq!(text.parse::<ReservationId>().unwrap().to_string(), text);
    assert_eq!("7".parse::<CommandId>().unwrap_err().what, "Idempotency-Key");
    assert_eq!("7".parse::<ReservationId>().unwrap_err().what, "reservation_id");
}

#[test]
fn a_device_is_named_by_few_characters_of_a_user_and_a_device() {
    let longest = ["u".repeat(128), "d".repeat(64)];
    for (user, device) in [("a", "0"), ("A.z_9@:+-", "+"), (&longest[0], &longest[1])] {
        let pool = PoolId::new(user, device).unwrap();
        assert_eq!((pool.user(), pool.device()), (user, device));
        assert_eq!(pool.to_string(), format!("{user}/{device}"));
        assert_eq!(pool.to_string().parse(), Ok(pool));
    }
    assert_eq!("ann".parse::<PoolId>().unwrap().to_string(), "ann/main");
    let (long_user, long_device) = ("u".repeat(129), "d".repeat(65));
    for (user, device, what) in [
        ("", "main", "user"),
        ("ann", "", "device"),
        (&long_user, "main", "user"),
        ("ann", &long_device, "device"),
        ("a b", "main", "user"),
        ("ann", "möbel", "device"),
    ] {
        let refused = PoolId::new(user, device).unwrap_err();
        assert_eq!(refused.what, what, "{refused}");
        let len_max = if what == "user" { "1 to 128 " } else { "1 to 64 " };
        assert!(refused.rule.starts_with(len_max), "{refused}");
    }
}

#[test]
fn names_that_an_address_or_a_command_line_mistakes_are_not_registered() {
    for name in ["ann/main", "a.b/..c", "a-/m-"] {
        assert_eq!(name.parse::<PoolId>().unwrap().check_registrable(), Ok(()));
    }
    for (name, what) in [
        ("./main", "user"),
        ("../main", "user"),
        ("-ann/main", "user"),
        ("ann/.", "device"),
        ("ann/..", "device"),
        ("ann/-d", "device"),
    ] {
        let refused = name.parse::<PoolId>().unwrap().check_registrable().unwrap_err();
        assert_eq!(refused.what, what, "{refused}");
    }
    let pseudonym = SubjectId::from_bytes([7; 16]).device(1);
    assert_eq!(pseudonym.check_registrable().unwrap_err().what, "user");
}

#[test]
fn the_name_of_a_history_is_read_as_it_is_written() {
    let id = SubjectId::from_bytes([7; 16]);
    for name in
        ["pool/ann/main", "group/Zw==", "mailbox/ann/main", &format!("names/{id}"), "server"]
    {
        assert_eq!(name.parse::<StreamId>().unwrap().to_string(), name);
    }
    for name in ["", "servers", "pool", "server/1", "names/ann", "group/!", "queue/ann/main"] {
        name.parse::<StreamId>().unwrap_err();
    }
    let pool: PoolId = "ann/main".parse().unwrap();
    assert_eq!(StreamId::Pool(pool.clone()).pool(), Some(&pool));
    assert_eq!(StreamId::Mailbox(pool).pool(), None);
}

#[test]
fn a_name_that_is_refused_is_shown_by_its_first_characters() {
    let refused = PoolId::new(&"ü".repeat(50), "main").unwrap_err();
    assert_eq!(refused.value, "ü".repeat(40));
    assert!(refused.to_string().starts_with("user \"üü"), "{refused}");
}

#[test]
fn pseudonyms_are_told_from_names_by_their_mark() {
    let id = SubjectId::from_bytes([7; 16]);
    let device = id.device(12);
    assert_eq!(device.device(), "~12");
    assert_eq!((device.pseudonym(), device.is_pseudonym()), (Some((id, 12)), true));
    let named: PoolId = "ann/main".parse().unwrap();
    assert_eq!((named.pseudonym(), named.is_pseudonym()), (None, false));
    assert_eq!(id.as_bytes(), &[7; 16]);
    assert_ne!(SubjectId::random(), SubjectId::random());
    assert_eq!("ann".parse::<SubjectId>().unwrap_err().what, "pseudonym");
}
