//! Whom we believe to be the relay: certificate authorities, as the two ways into TLS want them.
//!
//! **Invariant**: a certificate is always checked; there is no way around it but to name its authority in `ca_file`.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use lettre::transport::smtp::client::{Certificate, TlsParameters};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use super::ConfigFault;
use super::relay::{Privacy, Relay};
use crate::tls;

/// Bytes of a `ca_file` at most; what is longer is some other file, named by mistake.
const MAX_CA_BYTES: u64 = 1 << 20;

/// What a line is secured with.
pub(super) enum Trust {
    /// From the first byte on, by our own socket.
    Implicit(TlsConnector),
    /// After a STARTTLS, by lettre.
    StartTls(TlsParameters),
    Nobody,
}

impl Trust {
    /// The authorities of this machine, and besides them those in `ca_file`.
    pub(super) fn new(relay: &Relay, ca_file: Option<&Path>) -> Result<Self, ConfigFault> {
        let named = ca_file.map(read_authorities).transpose()?.unwrap_or_default();
        let implicit = || tls::client(ca_file).map_err(|e| ConfigFault::Tls(e.to_string()));
        match relay.privacy {
            Privacy::None => Ok(Self::Nobody),
            Privacy::Implicit => Ok(Self::Implicit(TlsConnector::from(Arc::new(implicit()?)))),
            Privacy::Required | Privacy::Opportunistic => Ok(Self::StartTls(parameters(relay, named)?)),
        }
    }
}

fn read_authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigFault> {
    let fault = |why: String| ConfigFault::Authorities { path: path.to_owned(), why };
    let length = fs::metadata(path).map_err(|e| fault(format!("can't be read: {e}")))?.len();
    if length > MAX_CA_BYTES {
        return Err(fault(format!("has more than {MAX_CA_BYTES} bytes, which no list of authorities needs")));
    }
    let text = fs::read(path).map_err(|e| fault(format!("can't be read: {e}")))?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = read.map_err(|e| fault(format!("holds no certificates in PEM: {e}")))?;
    if found.is_empty() { Err(fault("holds no certificate in PEM".to_owned())) } else { Ok(found) }
}

fn parameters(relay: &Relay, named: Vec<CertificateDer<'static>>) -> Result<TlsParameters, ConfigFault> {
    let mut builder = TlsParameters::builder(relay.host.clone());
    for certificate in named {
        let read = Certificate::from_der(certificate.to_vec());
        builder = builder.add_root_certificate(read.map_err(|e| ConfigFault::Tls(e.to_string()))?);
    }
    builder.build_rustls().map_err(|e| ConfigFault::Tls(e.to_string()))
}
