//! The certificates of a connection.

use std::{io, path::Path, sync::Arc};

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject as _},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{PostgresError, PostgresSettings};

/// Reads the certificates that a connection is verified with, and this server's own.
pub(crate) fn connector(settings: &PostgresSettings) -> Result<MakeRustlsConnect, PostgresError> {
    let unfit = |error: rustls::Error| {
        PostgresError::Setting(format!("the certificates for PostgreSQL cannot be used: {error}"))
    };
    let mut roots = RootCertStore::empty();
    match &settings.tls.root_certificates {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| broken(path, error))?;
            }
        }
        None if settings.requires_tls() => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        None => {}
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unfit)?
        .with_root_certificates(roots);
    let config = match &settings.tls.client_certificate {
        Some((certificate, key)) => {
            let own_key = PrivateKeyDer::from_pem_file(key).map_err(|error| of_pem(key, error))?;
            builder.with_client_auth_cert(certificates(certificate)?, own_key).map_err(unfit)?
        }
        None => builder.with_no_client_auth(),
    };
    Ok(MakeRustlsConnect::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PostgresError> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let found: Vec<_> = found.map_err(|error| of_pem(path, error))?;
    if found.is_empty() {
        return Err(broken(path, "it has no certificate in PEM"));
    }
    Ok(found)
}

fn of_pem(path: &Path, error: pem::Error) -> PostgresError {
    match error {
        pem::Error::Io(source) => PostgresError::File { path: path.to_owned(), source },
        other => broken(path, other.to_string()),
    }
}

fn broken(path: &Path, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> PostgresError {
    let source = io::Error::new(io::ErrorKind::InvalidData, why);
    PostgresError::File { path: path.to_owned(), source }
}
