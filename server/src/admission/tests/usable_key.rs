//! The check of a key and a trial encryption to it come to the same.

use std::{collections::BTreeSet, iter};

use data_encoding::HEXLOWER;

use super::{
    super::usable_key::{can_seal, is_usable},
    *,
};

/// The old check: a length that fits, and an encryption that succeeds.
fn trial(key: &[u8], suite: Ciphersuite) -> bool {
    let len = if u16::from(suite) == 2 { 65 } else { 32 };
    key.len() == len && can_seal(key, suite, &RustCrypto::default())
}

#[track_caller]
fn check_agrees(suite: u16, key: &[u8]) -> bool {
    let suite = Ciphersuite::try_from(suite).unwrap();
    let usable = is_usable(key, suite, &RustCrypto::default());
    assert_eq!(usable, trial(key, suite), "{suite:?} {key:02x?}");
    usable
}

/// The little-endian bytes of a number: the first, those between, and the last.
fn near(low: u8, between: u8, last: u8) -> [u8; 32] {
    let mut bytes = [between; 32];
    (bytes[0], bytes[31]) = (low, last);
    bytes
}

#[test]
fn points_of_small_order_on_curve25519_are_refused_in_every_encoding() {
    let mut refused = BTreeSet::new();
    // All numbers below 256, and all from 2²⁵⁵ - 256, each with and without the bit that is ignored.
    for low in 0..=u8::MAX {
        for key in
            [near(low, 0, 0), near(low, 0, 0x80), near(low, 0xff, 0x7f), near(low, 0xff, 0xff)]
        {
            if !check_agrees(1, &key) {
                refused.insert(key);
            }
        }
    }
    let expected = [
        near(0, 0, 0),
        near(1, 0, 0),
        near(0xec, 0xff, 0x7f),
        near(0xed, 0xff, 0x7f),
        near(0xee, 0xff, 0x7f),
    ];
    let with_bit = expected.map(|mut key| {
        key[31] |= 0x80;
        key
    });
    assert_eq!(refused, expected.into_iter().chain(with_bit).collect());
    for order_8 in [
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    ] {
        let mut key = HEXLOWER.decode(order_8.as_bytes()).unwrap();
        assert!(!check_agrees(1, &key));
        key[31] |= 0x80;
        assert!(!check_agrees(3, &key));
    }
}

#[test]
fn keys_of_any_length_are_judged_as_by_a_trial() {
    for len in 0..=140 {
        for begin in [0, 2, 3, 4, 5] {
            let mut key = vec![7; len];
            key.iter_mut().take(1).for_each(|first| *first = begin);
            assert_eq!(check_agrees(1, &key), len == 32);
            assert!(!check_agrees(2, &key));
        }
    }
}

#[test]
fn points_outside_p256_are_refused_as_by_a_trial() {
    let maker = Maker::new(2);
    let good = maker.hpke_key(1).as_slice().to_vec();
    assert!(check_agrees(2, &good));
    for place in 0..good.len() {
        let mut off_curve = good.clone();
        off_curve[place] ^= 1;
        assert!(!check_agrees(2, &off_curve));
    }
    // The identity, alone and padded; coordinates that are zero or no field element; other encodings.
    let (x, y) = (&good[1..33], &good[33..]);
    let sign = 2 + (y[31] & 1);
    let crafted = [
        vec![0],
        vec![0; 65],
        [&[4][..], &[0; 64]].concat(),
        [&[4][..], &[0xff; 64]].concat(),
        [&[4][..], x, &[0; 32]].concat(),
        [&[4][..], y, x].concat(),
        [&[sign][..], x].concat(),
        [&[5][..], x].concat(),
        [&[6 + (y[31] & 1)][..], x, y].concat(),
        good[1..].to_vec(),
    ];
    for key in &crafted {
        assert!(!check_agrees(2, key));
    }
}

#[test]
fn random_keys_are_judged_as_by_a_trial() {
    let mut dice = Dice(8);
    for seed in 0..100 {
        let key: Vec<u8> = (0..32).map(|_| dice.byte()).collect();
        assert!(check_agrees(1, &key));
        assert!(check_agrees(3, Maker::new(3).hpke_key(seed).as_slice()));
        assert!(check_agrees(2, Maker::new(2).hpke_key(seed).as_slice()));
        let noise: Vec<u8> = iter::once(4).chain((0..64).map(|_| dice.byte())).collect();
        assert!(!check_agrees(2, &noise));
    }
}

#[test]
fn a_hybrid_key_is_usable_if_both_its_halves_are() {
    for suite in [0x004e, 0x004f] {
        let maker = Maker::new(suite);
        let usable = |key: &[u8]| is_usable(key, maker.suite, &RustCrypto::default());
        for seed in 0..20 {
            assert!(usable(maker.hpke_key(seed).as_slice()));
        }
        let good = maker.hpke_key(1).as_slice().to_vec();
        assert_eq!(good.len(), 1184 + 32);
        for len in [0, 31, 32, 33, 1184, 1215] {
            assert!(!usable(&good[..len]), "{len}");
            assert!(!usable(&good[good.len() - len..]), "{len}");
        }
        assert!(!usable(&[good.as_slice(), &[0]].concat()));
        // A coefficient has 12 bits and is below 3329; the two of three bytes, at both ends.
        let unreduced = |place: usize, bytes: [u8; 3]| {
            let mut key = good.clone();
            key[place..place + 3].copy_from_slice(&bytes);
            key
        };
        for place in [0, 3, 384, 1149] {
            for coefficient in [3329_u16, 3330, 4095] {
                let [low, high] = coefficient.to_le_bytes();
                assert!(!usable(&unreduced(place, [low, high, 0])), "{place} {coefficient}");
                let second = (coefficient << 4).to_le_bytes();
                assert!(!usable(&unreduced(place, [0, second[0], second[1]])), "{coefficient}");
            }
            assert!(usable(&unreduced(place, [0x00, 0x0d, 0xd0])), "{place} with 3328 twice");
        }
        let with_point = |point: [u8; 32]| [&good[..1184], &point].concat();
        for point in [near(0, 0, 0), near(1, 0, 0x80), near(0xed, 0xff, 0x7f)] {
            let key = with_point(point);
            assert!(!usable(&key) && can_seal(&key, maker.suite, &RustCrypto::default()));
        }
        assert!(usable(&with_point(near(9, 0, 0))));
    }
}
