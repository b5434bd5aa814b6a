//! Safety numbers: 60 digits that two people compare to be sure of each other's keys.

use keypool_ledger::{Hash, SignatureKey};

/// How many groups of five digits each user contributes.
const GROUPS: usize = 6;

/// The safety number of two users: twelve groups of five digits, the same on both sides.
///
/// Each user contributes six groups: BLAKE3 over the line `keypool-safety-number-v1`, the user's name, and the
/// keys of the user's devices as base64url without padding, sorted, each with a line feed after it. Its first
/// 30 bytes, five at a time as a number, most significant byte first, modulo 100,000, are the groups. The
/// smaller half stands first.
pub(crate) fn safety_number(
    one: (&str, &[SignatureKey]),
    other: (&str, &[SignatureKey]),
) -> String {
    let mut halves = [half(one), half(other)];
    halves.sort();
    halves.join(" ")
}

fn half((user, keys): (&str, &[SignatureKey])) -> String {
    let mut keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
    keys.sort();
    let mut text = format!("keypool-safety-number-v1\n{user}\n");
    for key in &keys {
        text.extend([key, "\n"]);
    }
    let digest = Hash::of(text.as_bytes());
    let group = |bytes: &[u8]| {
        let number = bytes.iter().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
        format!("{:05}", number % 100_000)
    };
    let groups: Vec<String> = digest.as_bytes().chunks(5).take(GROUPS).map(group).collect();
    groups.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SignatureKey {
        SignatureKey::new(&[byte; 32]).unwrap()
    }

    #[test]
    fn both_sides_see_the_same_sixty_digits() {
        let (alice, bob) = ([key(1), key(2)], [key(3)]);
        let seen = safety_number(("alice", &alice), ("bob", &bob));
        assert_eq!(seen, safety_number(("bob", &bob), ("alice", &[key(2), key(1)])));
        assert_eq!(seen.bytes().filter(u8::is_ascii_digit).count(), 60);
        insta::assert_snapshot!(seen);
    }

    #[test]
    fn another_key_or_another_name_makes_another_number() {
        let seen = safety_number(("alice", &[key(1)]), ("bob", &[key(3)]));
        assert_ne!(seen, safety_number(("alice", &[key(1)]), ("bob", &[key(4)])));
        assert_ne!(seen, safety_number(("alice", &[key(1)]), ("bob", &[key(3), key(4)])));
        assert_ne!(seen, safety_number(("alice", &[key(1)]), ("bobby", &[key(3)])));
    }
}
