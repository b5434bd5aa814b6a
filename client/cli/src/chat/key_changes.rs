//! Changes of the devices of verified users, each shown once.

use std::collections::BTreeMap;

use keypool_client::{PeerChange, PeerChangeKind, PeerKeys, PeerStatus, Timestamp};

/// The changes that were shown, by user.
#[derive(Debug, Default)]
pub(super) struct KeyChanges {
    /// Users were looked up: something about their keys may be to be shown.
    pub(super) are_due: bool,
    /// The time of the last change that is known of each user.
    seen_until: BTreeMap<String, Timestamp>,
}

impl KeyChanges {
    /// Notes the changes of a user, and returns a text for those that are new, if the user is verified. The first
    /// look at a user shows nothing.
    pub(super) fn news(&mut self, peer: &PeerKeys) -> Option<String> {
        let last = peer.changes.last().map(|change| change.at).unwrap_or_default();
        let seen = self.seen_until.insert(peer.user.clone(), last)?;
        if !matches!(peer.status, PeerStatus::Verified { .. }) {
            return None;
        }
        let new: Vec<String> =
            peer.changes.iter().filter(|change| seen < change.at).map(text).collect();
        let user = &peer.user;
        (!new.is_empty()).then(|| {
            format!(
                "the devices of {user}, whom you have verified, have changed: {}; /verify {user} shows the new \
                 safety number",
                new.join(", ")
            )
        })
    }
}

fn text(change: &PeerChange) -> String {
    let device = &change.device;
    match change.kind {
        PeerChangeKind::Added => format!("{device} is new, introduced by a key of theirs"),
        PeerChangeKind::AddedUnsigned => format!("{device} is new, introduced by no key of theirs"),
        PeerChangeKind::Rotated => format!("{device} has another key, signed by the one before"),
        PeerChangeKind::RotatedUnsigned => {
            format!("{device} has another key, not signed by the one before")
        }
        PeerChangeKind::Removed => format!("{device} was removed"),
        PeerChangeKind::Recovered => {
            format!("{device} came by the recovery key, and removed the others")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(status: PeerStatus, kinds: &[(u64, PeerChangeKind)]) -> PeerKeys {
        let change = |(at, kind): &(u64, PeerChangeKind)| PeerChange {
            at: Timestamp::from_secs(*at),
            device: "phone".to_owned(),
            kind: *kind,
        };
        PeerKeys {
            user: "bob".to_owned(),
            status,
            devices: Vec::new(),
            first_seen: Timestamp::from_secs(1),
            changes: kinds.iter().map(change).collect(),
        }
    }

    #[test]
    fn changes_of_a_verified_user_are_shown_once() {
        let verified = PeerStatus::Verified { at: Timestamp::from_secs(2) };
        let mut changes = KeyChanges::default();
        let before = [(3, PeerChangeKind::Added)];
        assert_eq!(changes.news(&peer(verified.clone(), &before)), None, "the first look");
        let after = [(3, PeerChangeKind::Added), (9, PeerChangeKind::RotatedUnsigned)];
        let shown = changes.news(&peer(verified.clone(), &after)).unwrap_or_default();
        insta::assert_snapshot!(shown, @"the devices of bob, whom you have verified, have changed: phone has another key, not signed by the one before; /verify bob shows the new safety number");
        assert_eq!(changes.news(&peer(verified.clone(), &after)), None, "shown before");
        let later = [(9, PeerChangeKind::RotatedUnsigned), (12, PeerChangeKind::Removed)];
        assert_eq!(
            changes.news(&peer(PeerStatus::FirstSeen, &later)),
            None,
            "nobody verified them"
        );
    }
}
