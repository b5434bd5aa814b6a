//! Groups and histories as people read them: the id, and beside it the text in a group's id.

use std::fmt;

use keypool_ledger::{GroupId, StreamId};

/// A group in words: its id in base64 and, where the id's bytes are a text, that text in quotes, as in
/// `Zw== "g"`.
///
/// Characters that are not printed are escaped. An id without a letter or digit has no text.
#[derive(Clone, Copy, Debug)]
pub struct GroupName<'a>(pub &'a GroupId);

impl fmt::Display for GroupName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(group) = self;
        let text = str::from_utf8(group.as_bytes()).ok();
        match text.filter(|text| text.contains(char::is_alphanumeric)) {
            Some(text) => write!(f, "{group} \"{}\"", text.escape_debug()),
            None => group.fmt(f),
        }
    }
}

/// A history in words: that of a group has a [`GroupName`], as in `group/Zw== "g"`.
#[derive(Clone, Copy, Debug)]
pub struct StreamName<'a>(pub &'a StreamId);

impl fmt::Display for StreamName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            StreamId::Group(group) => write!(f, "group/{}", GroupName(group)),
            stream => stream.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    fn named(bytes: &[u8]) -> String {
        GroupName(&GroupId::new(bytes).unwrap()).to_string()
    }

    #[test]
    fn a_text_in_the_id_stands_beside_it() {
        assert_eq!(named(b"g"), "Zw== \"g\"");
        assert_eq!(named("Straße 7".as_bytes()), "U3RyYcOfZSA3 \"Straße 7\"");
        assert_eq!(named(&[0xff, 0x67]), "/2c=");
        assert_eq!(named(&[0; 16]), "AAAAAAAAAAAAAAAAAAAAAA==");
        assert_eq!(named(b"a\x1b[2J\"\n"), "YRtbMkoiCg== \"a\\u{1b}[2J\\\"\\n\"");
        assert_eq!(named("a\u{202e}b".as_bytes()), "YeKArmI= \"a\\u{202e}b\"");
        let stream = StreamId::Group(GroupId::new(b"g").unwrap());
        assert_eq!(StreamName(&stream).to_string(), "group/Zw== \"g\"");
        let pool = "pool/bob/main".parse().unwrap();
        assert_eq!(StreamName(&pool).to_string(), "pool/bob/main");
    }

    quickcheck! {
        fn no_id_drives_the_terminal(bytes: Vec<u8>, text: String) -> bool {
            [&bytes, text.as_bytes()].iter().filter_map(|bytes| GroupId::new(bytes).ok()).all(|group| {
                let name = GroupName(&group).to_string();
                name.starts_with(&group.to_string()) && !name.contains(char::is_control)
            })
        }
    }
}
