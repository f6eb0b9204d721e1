//! TLS 1.3 by `rustls`: how either end connects to the broker, and how a server serves HTTPS.
//!
//! Only the clinic's own authority is believed, whatever the system trusts.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use shared::clock::Clock;
use shared::paths::Root;

use crate::pki::{Authority, Holder, Pair, PkiError};

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{file} cannot be read")]
    Unreadable {
        /// Which.
        file: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What should be certificates or a key is not.
    #[error("{what} is damaged")]
    Damaged {
        /// What.
        what: &'static str,
    },
    /// Key and certificate do not fit, or the like.
    #[error("the certificates cannot be used")]
    Unusable(#[source] rustls::Error),
    /// See [`PkiError`].
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// Who proves to the broker who they are; asked before each connection, so that a renewed certificate counts at once.
pub trait Credentials: std::fmt::Debug + Send + Sync {
    /// The configuration of a connection.
    ///
    /// # Errors
    /// [`TlsError`].
    fn client(&self) -> Result<Arc<ClientConfig>, TlsError>;
}

/// A box's, in files.
#[derive(Debug, Clone)]
pub struct RoomCredentials {
    root: Root,
}

impl RoomCredentials {
    /// Those of the box in `root`, if its enrolment brought any. One that lacks a part is an error later, not plain text.
    #[must_use]
    pub fn find(root: &Root) -> Option<Self> {
        let files = [root.link_authority(), root.link_certificate(), root.link_key()];
        files.iter().any(|file| file.exists()).then(|| Self { root: root.clone() })
    }
}

fn read(file: &PathBuf) -> Result<String, TlsError> {
    std::fs::read_to_string(file).map_err(|source| TlsError::Unreadable { file: file.display().to_string(), source })
}

impl Credentials for RoomCredentials {
    fn client(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let pair = Pair { certificate: read(&self.root.link_certificate())?, key: read(&self.root.link_key())? };
        client(&read(&self.root.link_authority())?, &pair)
    }
}

/// A clinic server's: the clinic's authority makes it a certificate for each connection.
pub struct ServerCredentials {
    /// The clinic's.
    pub authority: Arc<Authority>,
    /// The server's id.
    pub server: String,
    /// The machine's clocks, or a test's.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for ServerCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ServerCredentials({})", self.server)
    }
}

impl Credentials for ServerCredentials {
    fn client(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let pair = self.authority.issue(Holder::Server(&self.server), self.clock.now().wall)?;
        client(self.authority.certificate(), &pair)
    }
}

fn chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let damaged = TlsError::Damaged { what: "a certificate" };
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    all.ok().filter(|all| !all.is_empty()).ok_or(damaged)
}

fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| TlsError::Damaged { what: "a private key" })
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// For who connects: believes `authority` (PEM) alone, and shows `pair`.
///
/// # Errors
/// [`TlsError`].
pub fn client(authority: &str, pair: &Pair) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(authority)? {
        roots.add(certificate).map_err(TlsError::Unusable)?;
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Unusable)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain(&pair.certificate)?, private_key(&pair.key)?)
        .map_err(TlsError::Unusable)?;
    Ok(Arc::new(config))
}

/// For who serves HTTPS with `pair`.
///
/// # Errors
/// [`TlsError`].
pub fn server(pair: &Pair) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Unusable)?
        .with_no_client_auth()
        .with_single_cert(chain(&pair.certificate)?, private_key(&pair.key)?)
        .map_err(TlsError::Unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
