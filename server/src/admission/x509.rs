//! X.509 credentials (RFC 9420 section 5.3): their chain leads to a root, and the leaf's key is the
//! certificate's.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use keypool_ledger::Timestamp;
use rustls_pki_types::{
    CertificateDer, TrustAnchor, UnixTime,
    pem::{self, PemObject as _},
};
use tls_codec::{Deserialize, VLBytes};
use webpki::{
    ALL_VERIFICATION_ALGS, EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter,
    anchor_from_trusted_cert,
};

/// How many certificates a credential has at most.
const CERTIFICATES_MAX: usize = 8;
/// The bytes before the key in a SubjectPublicKeyInfo: of Ed25519 (RFC 8410), and of P-256 (RFC 5480).
const KEY_INFOS: [&[u8]; 2] = [
    &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00],
    &[
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08,
        0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ],
];

/// The certificates of authorities that the operator trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct X509Roots {
    anchors: Vec<TrustAnchor<'static>>,
}

/// A file of roots that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum X509RootsError {
    /// It cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no PEM file of certificates, or has none.
    #[error("{}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The fault.
        message: String,
    },
}

/// Why a chain was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ChainRefusal {
    /// It is no list of certificates.
    #[error("the X.509 credential is no list of one to {CERTIFICATES_MAX} certificates")]
    Malformed,
    /// It leads to no root.
    #[error("the X.509 credential's chain leads to no root of this server: {0}")]
    Untrusted(webpki::Error),
    /// The certificate is of another key.
    #[error("the X.509 credential's certificate is of another key than the leaf's signature key")]
    OtherKey,
}

/// Takes certificates for every purpose: there is none for MLS.
struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

impl X509Roots {
    /// Reads certificates from a PEM file.
    ///
    /// # Errors
    ///
    /// Returns an [`X509RootsError`] if the file cannot be read, or holds no certificate or a damaged one.
    pub fn read(path: &Path) -> Result<Self, X509RootsError> {
        let malformed =
            |message: String| X509RootsError::Malformed { path: path.to_owned(), message };
        let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
        let certificates: Vec<CertificateDer<'_>> = match certificates {
            Ok(certificates) => certificates,
            Err(pem::Error::Io(source)) => {
                return Err(X509RootsError::Unreadable { path: path.to_owned(), source });
            }
            Err(error) => return Err(malformed(error.to_string())),
        };
        if certificates.is_empty() {
            return Err(malformed("expected certificates in PEM, found none".to_owned()));
        }
        let anchor = |(n, certificate): (usize, &CertificateDer<'_>)| {
            let anchor = anchor_from_trusted_cert(certificate);
            let anchor = anchor.map(|anchor| anchor.to_owned());
            anchor.map_err(|error| malformed(format!("certificate {}: {error}", n + 1)))
        };
        let anchors = certificates.iter().enumerate().map(anchor).collect::<Result<_, _>>()?;
        Ok(Self { anchors })
    }

    /// Checks the content of an X.509 credential, and that its certificate is of the leaf's key.
    pub(super) fn check(
        &self,
        chain: &[u8],
        key: &[u8],
        now: Timestamp,
    ) -> Result<(), ChainRefusal> {
        let certificates = certificates(chain).ok_or(ChainRefusal::Malformed)?;
        let (first, others) = certificates.split_first().ok_or(ChainRefusal::Malformed)?;
        let certificate = EndEntityCert::try_from(first).map_err(ChainRefusal::Untrusted)?;
        let info = certificate.subject_public_key_info();
        let is_its = |begin: &&[u8]| info.strip_prefix(*begin) == Some(key);
        if !KEY_INFOS.iter().any(is_its) {
            return Err(ChainRefusal::OtherKey);
        }
        let now = UnixTime::since_unix_epoch(Duration::from_millis(now.as_millis()));
        let algorithms = ALL_VERIFICATION_ALGS;
        let anchors = &self.anchors;
        let path =
            certificate.verify_for_usage(algorithms, anchors, others, now, AnyUsage, None, None);
        path.map(|_| ()).map_err(ChainRefusal::Untrusted)
    }
}

/// The certificates in the content of a credential, that of the leaf's key first.
fn certificates(mut content: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let mut certificates = Vec::new();
    while !content.is_empty() {
        let certificate = VLBytes::tls_deserialize(&mut content).ok()?;
        certificates.push(CertificateDer::from(certificate.as_slice().to_vec()));
        if CERTIFICATES_MAX < certificates.len() {
            return None;
        }
    }
    Some(certificates)
}
