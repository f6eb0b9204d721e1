//! Where a PostgreSQL server is and how it is spoken to. The password in it is never printed.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{CONNECT, PostgresError, SILENT};

/// A PostgreSQL server's address, with user, password and database.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    config: Config,
    ca: Option<PathBuf>,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// Hosts and database; no password.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = |host: &Host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        };
        let hosts: Vec<String> = self.config.get_hosts().iter().map(host).collect();
        let database = self.config.get_dbname().or(self.config.get_user()).unwrap_or_default();
        write!(f, "PostgreSQL at {}, database {database}", hosts.join(", "))
    }
}

/// What stays on this machine need not be sealed.
fn is_here(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
    }
}

/// Whether it is meant as an address of a server, and not as a file's name.
#[must_use]
pub fn is_url(text: &str) -> bool {
    ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme))
}

impl Address {
    /// Reads `postgres://USER:PASSWORD@HOST:PORT/DATABASE`. `None` if it is none: why would repeat parts of it.
    ///
    /// Without `sslmode` in it, TLS is required unless the server is on this machine.
    #[must_use]
    pub fn parse(url: &str, ca: Option<PathBuf>) -> Option<Self> {
        let mut config: Config = url.parse().ok().filter(|_| is_url(url))?;
        if config.get_hosts().is_empty() {
            return None;
        }
        if config.get_ssl_mode() == SslMode::Prefer {
            let is_here = config.get_hostaddrs().is_empty() && config.get_hosts().iter().all(is_here);
            config.ssl_mode(if is_here && ca.is_none() { SslMode::Disable } else { SslMode::Require });
        }
        // Of several, that which takes what is written.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite).application_name("roomscribe-clinic");
        config.connect_timeout(CONNECT).keepalives_idle(SILENT).tcp_user_timeout(SILENT);
        Some(Self { config, ca })
    }

    /// Whether there is a password in it.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.config.get_password().is_some()
    }

    pub(super) fn config(&self) -> Config {
        self.config.clone()
    }

    /// TLS with certificates that are always verified: by the given authority, else by those that this machine trusts.
    pub(super) fn tls(&self) -> Result<MakeRustlsConnect, PostgresError> {
        let mut roots = RootCertStore::empty();
        match (&self.ca, self.config.get_ssl_mode()) {
            (Some(file), _) => add(&mut roots, file)?,
            (None, SslMode::Disable) => {}
            (None, _) => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(|_| PostgresError::Tls)?;
        Ok(MakeRustlsConnect::new(builder.with_root_certificates(roots).with_no_client_auth()))
    }
}

fn add(roots: &mut RootCertStore, file: &Path) -> Result<(), PostgresError> {
    let bad = || PostgresError::Authority { file: file.display().to_string() };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).map_err(|_| bad())?.collect();
    match roots.add_parsable_certificates(certificates.map_err(|_| bad())?) {
        (0, _) => Err(bad()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(url: &str) -> SslMode {
        Address::parse(url, None).unwrap().config().get_ssl_mode()
    }

    #[test]
    fn what_leaves_the_machine_is_sealed_unless_somebody_says_otherwise() {
        for here in
            ["postgres://u@localhost/d", "postgres://u@127.0.0.1:5433/d", "postgresql:///d?host=/run/postgresql"]
        {
            assert_eq!(mode(here), SslMode::Disable, "{here}");
            assert_eq!(
                mode(&format!("{here}{}sslmode=require", if here.contains('?') { '&' } else { '?' })),
                SslMode::Require
            );
        }
        assert_eq!(mode("postgres://u:p@db.example/d"), SslMode::Require);
        assert_eq!(mode("postgres://u:p@localhost,db.example/d"), SslMode::Require);
        assert_eq!(mode("postgres://u:p@db.example/d?sslmode=prefer"), SslMode::Require);
        assert_eq!(mode("postgres://u:p@db.example/d?sslmode=disable"), SslMode::Disable);
    }

    #[test]
    fn a_password_is_never_shown() {
        let address = Address::parse("postgres://clinic:s3cret@db.example:5433/records", None).unwrap();
        assert!(address.has_password() && !Address::parse("postgres://u@h/d", None).unwrap().has_password());
        assert_eq!(address.to_string(), "PostgreSQL at db.example, database records");
        assert!(!format!("{address:?}").contains("s3cret"));
        for bad in ["postgres://", "postgres://u:p@h:port/d", "clinic.db", "postgres://u@h/d?what=1", "host=h user=u"] {
            assert!(Address::parse(bad, None).is_none(), "{bad}");
        }
    }
}
