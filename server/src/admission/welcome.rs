//! The clear part of a Welcome: the packages it is for (RFC 9420 section 12.4.3.1).

use keypool_ledger::KeyPackageRef;
use openmls::{
    framing::{MlsMessageBodyIn, MlsMessageIn},
    messages::EncryptedGroupSecrets,
};
use tls_codec::Deserialize;

/// The packages a Welcome is for; `None` if the bytes are not exactly one Welcome.
pub(crate) fn welcomed(bytes: &[u8]) -> Option<Vec<KeyPackageRef>> {
    let message = MlsMessageIn::tls_deserialize_exact(bytes).ok()?;
    let MlsMessageBodyIn::Welcome(welcome) = message.extract() else { return None };
    let refs = welcome.secrets().iter().map(EncryptedGroupSecrets::new_member);
    refs.map(|reference| KeyPackageRef::new(reference.as_slice()).ok()).collect()
}
