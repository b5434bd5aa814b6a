//! Other users' keys: pinned when they are seen first, and held to the chain that leads on from there.

mod fetch;
mod leaf;
mod owner;
mod record;
mod safety_number;
mod trust;
mod watch;

pub use self::{
    leaf::{LeafContradiction, LeafTrust, UntrustedMember},
    record::{PeerChange, PeerChangeKind, PeerDevice, PeerDoubt, PeerKeys, PeerStatus},
    trust::KeyPolicy,
};
pub(crate) use self::{
    owner::{Leaf, named_members},
    record::{PeerRecord, peer_record},
    safety_number::safety_number,
    trust::{
        Judged, LeafCheck, Occasion, accept_untrusted, forget_contradicting, forget_gone,
        note_untrusted, recheck_untrusted, trust_of, untrusted_in,
    },
    watch::{identity_findings, inviter_of, note_inviter, note_refused_invitation},
};
