//! Check 10: the credential in the leaf is the one that the device has declared.
//!
//! A device that has declared none has the Basic credential that names it. The bytes of a declared one mean
//! nothing here: they are the app's, unless the operator has given roots for X.509.

use keypool_ledger::{CredentialBytes, Hash};
use tls_codec::{Deserialize, Serialize};

use super::{
    AdmissionContext, AdmissionError, Check, refuse,
    structure::{CREDENTIAL_BASIC, CREDENTIAL_X509, Credential, LeafContent},
};

/// Refuses a leaf whose credential is not its owner's.
pub(super) fn check_identity(
    leaf: &LeafContent,
    context: &AdmissionContext<'_>,
) -> Result<(), AdmissionError> {
    let credential = &leaf.credential;
    let refuse = |detail: String| Err(refuse(Check::Identity, detail));
    if let Some(declared) = context.owner.credential {
        if digest(credential)? == declared {
            return check_chain(leaf, context);
        }
        return refuse(
            "the leaf's credential is not the one that the device has declared with \
             POST /devices/credential"
                .to_owned(),
        );
    }
    let pool = &context.owner.pool;
    let declare = "declare another credential with POST /devices/credential before the upload";
    if credential.credential_type != CREDENTIAL_BASIC {
        let number = credential.credential_type;
        return refuse(format!("credential type {number} is not Basic (1); {declare}"));
    }
    let identity = credential.content.as_slice();
    if identity == pool.user().as_bytes() || identity == pool.to_string().as_bytes() {
        return Ok(());
    }
    let user = pool.user();
    refuse(format!("the credential's identity is neither {user} nor {pool}; {declare}"))
}

/// Checks the certificates of an X.509 credential, where the operator has given roots.
fn check_chain(leaf: &LeafContent, context: &AdmissionContext<'_>) -> Result<(), AdmissionError> {
    let roots = context.rules.x509_roots.as_ref();
    let is_x509 = leaf.credential.credential_type == CREDENTIAL_X509;
    let Some(roots) = roots.filter(|_| is_x509) else { return Ok(()) };
    let (chain, key) = (leaf.credential.content.as_slice(), leaf.signature_key.as_slice());
    let checked = roots.check(chain, key, context.now);
    checked.map_err(|error| refuse(Check::Identity, error.to_string()))
}

/// The digest of a credential, as the facts of a package and declarations name it.
pub(super) fn digest(credential: &Credential) -> Result<Hash, AdmissionError> {
    let bytes = credential.tls_serialize_detached();
    let bytes = bytes.map_err(|_| refuse(Check::Decode, "the credential cannot be encoded"))?;
    Ok(Hash::of(&bytes))
}

/// Whether some bytes are a credential, encoded in the one way there is.
pub(crate) fn is_credential(credential: &CredentialBytes) -> bool {
    let bytes = credential.as_bytes();
    let parsed = Credential::tls_deserialize_exact(bytes);
    parsed.is_ok_and(|parsed| parsed.tls_serialize_detached().is_ok_and(|again| again == bytes))
}
