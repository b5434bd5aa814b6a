//! Names of groups and people on the screen.
//!
//! Two people may both make a group called `friday`, so its id is the name and 64 random bits after it.

use keypool_client::{GroupId, LeafTrust, NameError, PoolId};
use uuid::Uuid;

use crate::output::plain;

/// The separator of the name and the random part of a group's id.
const MARK: char = '~';
/// How many hex digits the random part has.
const RANDOM_DIGITS: usize = 16;
/// How many of them tell two groups of the same name apart.
const TELLING_DIGITS: usize = 4;
/// How long a name may be, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// The mark of a member whose key contradicts the directory.
pub(super) const UNTRUSTED: &str = "(!)";
/// The mark of a member whose user nobody has looked up yet.
const UNCHECKED: &str = "(?)";

/// A fresh id for a group of that name.
///
/// # Errors
///
/// Returns a sentence if nobody could type or read the name.
pub(super) fn fresh_group(name: &str) -> Result<GroupId, String> {
    if name.is_empty() {
        return Err("what is the group called? /create NAME".to_owned());
    }
    if name.len() > NAME_BYTES_MAX || plain(name) != name || name.contains(MARK) {
        return Err(format!(
            "a group's name has at most {NAME_BYTES_MAX} bytes, and no {MARK} or control character"
        ));
    }
    let random = Uuid::new_v4().simple().to_string();
    let random = random.get(..RANDOM_DIGITS).unwrap_or_default();
    let id = GroupId::new(format!("{name}{MARK}{random}").as_bytes());
    id.map_err(|error: NameError| error.to_string())
}

/// The name of a group to be made, and its ciphersuite if one stands behind the name.
pub(super) fn name_and_suite(text: &str) -> (&str, Option<u16>) {
    let parted = text.rsplit_once(" suite=");
    let named = parted.and_then(|(name, suite)| Some((name.trim_end(), suite.parse().ok()?)));
    named.map_or((text, None), |(name, suite)| (name, Some(suite)))
}

/// A group's name and the random part of its id; the whole id, readable, if it was not made here.
fn parts(group: &GroupId) -> (String, String) {
    let text = String::from_utf8_lossy(group.as_bytes());
    match text.rsplit_once(MARK) {
        Some((name, random)) if random.len() == RANDOM_DIGITS => (plain(name), plain(random)),
        _ => (plain(&text), String::new()),
    }
}

/// The name of a group among the others, with more of its id where another has the same name.
pub(super) fn name_among(group: &GroupId, all: &[GroupId]) -> String {
    let (name, random) = parts(group);
    let is_namesake = |other: &&GroupId| *other != group && parts(other).0 == name;
    match all.iter().find(is_namesake) {
        Some(_) => {
            let telling: String = random.chars().take(TELLING_DIGITS).collect();
            format!("{name}{MARK}{telling}")
        }
        None => name,
    }
}

/// The group of that name or with that number of the list, from 1.
///
/// # Errors
///
/// Returns a sentence if there is none, or more than one.
pub(super) fn find<'a>(word: &str, all: &'a [GroupId]) -> Result<&'a GroupId, String> {
    let named: Vec<&GroupId> = all.iter().filter(|group| name_among(group, all) == word).collect();
    let number = word.parse::<usize>().ok().and_then(|number| all.get(number.checked_sub(1)?));
    match (named.as_slice(), number) {
        ([one], _) => Ok(*one),
        ([], Some(numbered)) => Ok(numbered),
        _ => Err(format!("there is no group {:?}; /groups lists them", plain(word))),
    }
}

/// The name of a member, with the device only where it is not the main one.
pub(super) fn person(name: &str) -> String {
    match name.parse::<PoolId>() {
        Ok(pool) if is_main(&pool) => pool.user().to_owned(),
        Ok(pool) => pool.to_string(),
        Err(_) => plain(name),
    }
}

/// The name of a member, with a mark where the key is not known as theirs.
pub(super) fn marked(name: &str, trust: &LeafTrust) -> String {
    let mark = match trust {
        LeafTrust::Verified | LeafTrust::Known => "",
        LeafTrust::Unchecked => UNCHECKED,
        LeafTrust::Contradicts(_) => UNTRUSTED,
    };
    format!("{}{mark}", person(name))
}

/// Whether it is the device that need not be named.
fn is_main(pool: &PoolId) -> bool {
    PoolId::of(pool.user(), None).is_ok_and(|main| main == *pool)
}

/// A user, and a device if one is named, as they are typed.
pub(super) fn target(word: &str) -> (&str, Option<&str>) {
    match word.split_once('/') {
        Some((user, device)) => (user, Some(device)),
        None => (word, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(id: &str) -> GroupId {
        GroupId::new(id.as_bytes()).unwrap()
    }

    #[test]
    fn groups_are_found_by_name_by_number_and_by_what_tells_them_apart() {
        let all = ["friday~0123456789abcdef", "friday~fedcba9876543210", "work~0000000000000000"];
        let all = all.map(group);
        let names: Vec<String> = all.iter().map(|group| name_among(group, &all)).collect();
        assert_eq!(names, ["friday~0123", "friday~fedc", "work"]);
        assert_eq!(find("friday~fedc", &all), Ok(&all[1]));
        assert_eq!(find("3", &all), Ok(&all[2]));
        for nobody in ["friday", "0", "4", ""] {
            assert!(find(nobody, &all).is_err(), "{nobody:?}");
        }
    }

    #[test]
    fn a_ciphersuite_may_stand_behind_the_name_of_a_new_group() {
        assert_eq!(name_and_suite("friday evening suite=2"), ("friday evening", Some(2)));
        for plain in ["friday", "suite=2", "a suite=soft", "a suite=2 b"] {
            assert_eq!(name_and_suite(plain), (plain, None));
        }
    }

    #[test]
    fn a_name_that_nobody_could_type_is_refused() {
        for name in ["", "a~b", "bell\u{7}", &"x".repeat(65)] {
            assert!(fresh_group(name).is_err(), "{name:?}");
        }
        assert_ne!(fresh_group("friday"), fresh_group("friday"));
    }

    #[test]
    fn a_member_whose_key_is_not_known_as_theirs_has_a_mark() {
        let contradicts = LeafTrust::Contradicts(keypool_client::LeafContradiction::OtherKey);
        let trusts = [LeafTrust::Verified, LeafTrust::Known, LeafTrust::Unchecked, contradicts];
        let names = trusts.map(|trust| marked("bob/main", &trust));
        assert_eq!(names, ["bob", "bob", "bob(?)", "bob(!)"]);
    }

    #[test]
    fn what_others_call_themselves_cannot_steer_the_terminal() {
        assert_eq!(person("bob/main"), "bob");
        assert_eq!(person("bob/phone"), "bob/phone");
        assert_eq!(person("\u{1b}[2Jbob"), "\u{fffd}[2Jbob");
        let foreign = group("\u{1b}]0;x\u{7}");
        assert_eq!(name_among(&foreign, &[]), "\u{fffd}]0;x\u{fffd}");
    }
}
