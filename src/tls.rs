//! TLS as a client: whom we trust, and the one crypto provider.
//!
//! **Invariant**: a certificate is always checked; there is no way around it but to name the authority.
//!
//! Deliberately not here: TLS as a server, which a proxy speaks; and STARTTLS of mail, whose library has a configuration of its
//! own.
//!
//! Rank 1: imports nothing of this crate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_native_certs::load_native_certs;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject as _};
use tokio_rustls::rustls::{ClientConfig, Error as TlsError, RootCertStore};

/// Why a file names no authority.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("cannot read certificates from {}: {source}", path.display())]
    Read { path: PathBuf, source: PemError },
    #[error("{} holds no certificate in PEM", .0.display())]
    Empty(PathBuf),
    #[error("{} holds a broken certificate: {source}", path.display())]
    Broken { path: PathBuf, source: TlsError },
}

/// What a client begins TLS with. `authority` is a file with certificates in PEM that are trusted besides those of this
/// machine.
///
/// # Errors
/// [`TrustError`], where that file holds none.
pub fn client(authority: Option<&Path>) -> Result<ClientConfig, TrustError> {
    let mut roots = RootCertStore::empty();
    // A machine without any has them named; a certificate that can't be read is one that is not trusted.
    roots.add_parsable_certificates(load_native_certs().certs);
    if let Some(path) = authority {
        let read = CertificateDer::pem_file_iter(path).and_then(|found| found.collect::<Result<Vec<_>, _>>());
        let named = read.map_err(|source| TrustError::Read { path: path.to_owned(), source })?;
        if named.is_empty() {
            return Err(TrustError::Empty(path.to_owned()));
        }
        for certificate in named {
            roots.add(certificate).map_err(|source| TrustError::Broken { path: path.to_owned(), source })?;
        }
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for the versions that are safe by default");
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_names_no_authority_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |text: &str| {
            let path = folder.path().join("ca.pem");
            std::fs::write(&path, text).expect("ours to write");
            client(Some(&path)).map(drop).map_err(|e| e.to_string())
        };
        assert!(client(None).is_ok());
        assert!(client(Some(Path::new("/nonexistent.pem"))).is_err_and(|e| e.to_string().contains("cannot read")));
        assert!(file("").is_err_and(|told| told.ends_with("ca.pem holds no certificate in PEM")));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(file(broken).is_err_and(|told| told.contains("holds a broken certificate")));
    }
}
