//! The clinic server's settings, `clinic.toml` in its folder, read once.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use shared::paths::Root;
use shared::wire::is_id;

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClinicSettingsError {
    /// There are none.
    #[error("{file} cannot be read; `roomscribe-clinic init --clinic ID` makes it")]
    Unreadable {
        /// Where they should be.
        file: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// They are not TOML, or a name is unknown, missing or of the wrong kind.
    #[error("{file} is not valid")]
    Syntax {
        /// Which file.
        file: String,
        /// Where and why.
        #[source]
        source: toml::de::Error,
    },
    /// A value cannot be right.
    #[error("{name} must be {expected}")]
    Value {
        /// Which setting.
        name: &'static str,
        /// What it may be.
        expected: &'static str,
    },
}

/// Everything a clinic server can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClinicSettings {
    /// Clinic id.
    pub clinic: String,
    /// Id of this server among those of the clinic.
    pub server: String,
    /// Broker host name or address, as this server reaches it.
    pub broker_host: String,
    /// Broker port.
    pub broker_port: u16,
    /// Where HTTP is served: health and metrics; to this machine alone also all else.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Whether the broker is spoken to over TLS, with certificates of the clinic's own authority.
    #[serde(default)]
    pub tls: bool,
    /// Where HTTPS is served with a certificate of the clinic's own authority: to boxes that are enrolled by a code, and to
    /// browsers that were told of that authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub https: Option<SocketAddr>,
    /// The names by which boxes and browsers reach this server over HTTPS; the first is told to them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Where HTTPS is served to browsers with `certificate`, which another authority has signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dashboard: Option<SocketAddr>,
    /// A certificate and those it was signed by, PEM; in the clinic's folder unless absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM; in the clinic's folder unless absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_key: Option<PathBuf>,
    /// The database file, in the clinic's folder unless absolute.
    #[serde(default = "default_database")]
    pub database: PathBuf,
}

/// Passwords do not travel in the clear, so by default only this machine is served.
#[must_use]
pub fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8080))
}

fn default_database() -> PathBuf {
    "clinic.db".into()
}

/// The port of a broker: MQTT's own, plain or over TLS.
#[must_use]
pub fn broker_port(tls: bool) -> u16 {
    if tls { 8883 } else { 1883 }
}

/// Reads `HOST:PORT`; a host without a port means `usual`.
///
/// # Errors
/// [`ClinicSettingsError::Value`].
pub fn broker(text: &str, usual: u16) -> Result<(String, u16), ClinicSettingsError> {
    let wrong = ClinicSettingsError::Value { name: "the broker", expected: "HOST or HOST:PORT" };
    let (host, port) = match text.rsplit_once(':') {
        // An IPv6 address without a port ends in its own bracket.
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
        Some(_) | None => (text, Some(usual)),
    };
    let fits = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '/');
    port.filter(|port| fits && *port != 0).map(|port| (host.to_owned(), port)).ok_or(wrong)
}

impl ClinicSettings {
    /// For a new clinic: neither TLS nor HTTPS.
    ///
    /// # Errors
    /// [`ClinicSettingsError::Value`].
    pub fn new(clinic: &str, server: &str, at: (String, u16), listen: SocketAddr) -> Result<Self, ClinicSettingsError> {
        let (broker_host, broker_port) = at;
        let settings = Self {
            clinic: clinic.into(),
            server: server.into(),
            broker_host,
            broker_port,
            listen,
            tls: false,
            https: None,
            names: Vec::new(),
            dashboard: None,
            certificate: None,
            certificate_key: None,
            database: default_database(),
        };
        settings.check()?;
        Ok(settings)
    }

    /// Reads `clinic.toml`.
    ///
    /// # Errors
    /// [`ClinicSettingsError`].
    pub fn load(root: &Root) -> Result<Self, ClinicSettingsError> {
        let path = root.clinic().join("clinic.toml");
        let file = || path.display().to_string();
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ClinicSettingsError::Unreadable { file: file(), source })?;
        let settings: Self =
            toml::from_str(&text).map_err(|source| ClinicSettingsError::Syntax { file: file(), source })?;
        settings.check()?;
        Ok(settings)
    }

    /// Whether they are right in themselves.
    ///
    /// # Errors
    /// [`ClinicSettingsError::Value`].
    pub fn check(&self) -> Result<(), ClinicSettingsError> {
        let expected = "1 to 32 of a-z, 0-9 and -";
        for (name, id) in [("the clinic id", &self.clinic), ("the server id", &self.server)] {
            if !is_id(id) {
                return Err(ClinicSettingsError::Value { name, expected });
            }
        }
        if self.https.is_some() && (!self.tls || self.names.is_empty()) {
            let (name, expected) = ("https", "absent without `tls`, and given together with `names`");
            return Err(ClinicSettingsError::Value { name, expected });
        }
        let own = [self.dashboard.is_some(), self.certificate.is_some(), self.certificate_key.is_some()];
        if own.contains(&true) && own.contains(&false) {
            let (name, expected) = ("dashboard", "given together with `certificate` and `certificate_key`");
            return Err(ClinicSettingsError::Value { name, expected });
        }
        broker(&format!("{}:{}", self.broker_host, self.broker_port), self.broker_port).map(drop)
    }

    /// Where the database lies.
    #[must_use]
    pub fn database(&self, root: &Root) -> PathBuf {
        root.clinic().join(&self.database)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_of_ones_own_has_its_key_and_its_address() {
        let made = ClinicSettings::new("north", "s", ("b".into(), 1883), default_listen()).unwrap();
        let whole = ClinicSettings {
            dashboard: Some(default_listen()),
            certificate: Some("c.pem".into()),
            certificate_key: Some("c.key".into()),
            ..made
        };
        whole.check().unwrap();
        assert!(ClinicSettings { dashboard: None, ..whole.clone() }.check().is_err());
        assert!(ClinicSettings { certificate_key: None, ..whole }.check().is_err());
    }

    #[test]
    fn a_broker_is_a_host_with_or_without_a_port() {
        assert_eq!(broker("localhost", broker_port(false)).unwrap(), ("localhost".into(), 1883));
        assert_eq!(broker("10.0.0.1:2000", 1883).unwrap(), ("10.0.0.1".into(), 2000));
        assert_eq!(broker("[::1]:2000", 1883).unwrap(), ("[::1]".into(), 2000));
        assert_eq!(broker("[::1]", broker_port(true)).unwrap(), ("[::1]".into(), 8883));
        for bad in ["", ":1", "host:0", "host:x", "host:70000", "tcp://host", "a b"] {
            assert!(broker(bad, 1883).is_err(), "{bad}");
        }
    }
}
