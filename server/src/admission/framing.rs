//! The framing of an MLS message: its group, its epoch, and whether it is a Commit (RFC 9420 section 6).

use keypool_api::Code;
use keypool_ledger::GroupId;
use openmls::framing::{ContentType, MlsMessageBodyIn, MlsMessageIn, ProtocolMessage};
use tls_codec::Deserialize;

use crate::problem::Failure;

/// The kind of message that is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framed {
    /// A Commit that ends this epoch.
    Commit(u64),
    /// Application data or a proposal.
    Message,
}

/// Checks that some bytes are exactly one MLSMessage of a kind, for a group: a PrivateMessage or a
/// PublicMessage. Its content is the members' to verify.
///
/// # Errors
///
/// Returns a [`Failure`] with the code `invalid_message` that names the mismatch.
pub(crate) fn check_framing(bytes: &[u8], group: &GroupId, kind: Framed) -> Result<(), Failure> {
    let refuse = |detail: String| Err(Failure::new(Code::InvalidMessage, detail));
    let Some(message) = parse(bytes) else {
        return refuse(
            "the bytes are not one MLSMessage with a PrivateMessage or PublicMessage".into(),
        );
    };
    if message.group_id().as_slice() != group.as_bytes() {
        return refuse(format!("the message is for another group than {group}"));
    }
    let (content, epoch) = (message.content_type(), message.epoch().as_u64());
    match (kind, content) {
        (Framed::Commit(asked), ContentType::Commit) if epoch == asked => Ok(()),
        (Framed::Commit(asked), ContentType::Commit) => {
            refuse(format!("the Commit is for epoch {epoch}, the request for epoch {asked}"))
        }
        (Framed::Message, ContentType::Application | ContentType::Proposal) => Ok(()),
        (Framed::Commit(_), _) => refuse("the message is no Commit".into()),
        (Framed::Message, _) => refuse("a Commit is posted to the group's commits".into()),
    }
}

fn parse(bytes: &[u8]) -> Option<ProtocolMessage> {
    let message = MlsMessageIn::tls_deserialize_exact(bytes).ok()?;
    match message.extract() {
        MlsMessageBodyIn::PrivateMessage(message) => Some(message.into()),
        MlsMessageBodyIn::PublicMessage(message) => Some(message.into()),
        _ => None,
    }
}
