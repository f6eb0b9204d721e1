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
    /// Where HTTP is served.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// The database file, in the clinic's folder unless absolute.
    #[serde(default = "default_database")]
    pub database: PathBuf,
    /// Whether Home Assistant is told of the boxes ([`super::discovery`]).
    #[serde(default)]
    pub home_assistant: bool,
}

/// HTTP has no log-in yet, so by default only this machine is served.
#[must_use]
pub fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8080))
}

fn default_database() -> PathBuf {
    "clinic.db".into()
}

/// Reads `HOST:PORT`; a host without a port means MQTT's, 1883.
///
/// # Errors
/// [`ClinicSettingsError::Value`].
pub fn broker(text: &str) -> Result<(String, u16), ClinicSettingsError> {
    let wrong = ClinicSettingsError::Value { name: "the broker", expected: "HOST or HOST:PORT" };
    let (host, port) = match text.rsplit_once(':') {
        // An IPv6 address without a port ends in its own bracket.
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
        Some(_) | None => (text, Some(1883)),
    };
    let fits = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '/');
    port.filter(|port| fits && *port != 0).map(|port| (host.to_owned(), port)).ok_or(wrong)
}

impl ClinicSettings {
    /// For a new clinic.
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
            database: default_database(),
            home_assistant: false,
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

    fn check(&self) -> Result<(), ClinicSettingsError> {
        let expected = "1 to 32 of a-z, 0-9 and -";
        for (name, id) in [("the clinic id", &self.clinic), ("the server id", &self.server)] {
            if !is_id(id) {
                return Err(ClinicSettingsError::Value { name, expected });
            }
        }
        broker(&format!("{}:{}", self.broker_host, self.broker_port)).map(drop)
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
    fn a_broker_is_a_host_with_or_without_a_port() {
        assert_eq!(broker("localhost").unwrap(), ("localhost".into(), 1883));
        assert_eq!(broker("10.0.0.1:2000").unwrap(), ("10.0.0.1".into(), 2000));
        assert_eq!(broker("[::1]:2000").unwrap(), ("[::1]".into(), 2000));
        assert_eq!(broker("[::1]").unwrap(), ("[::1]".into(), 1883));
        for bad in ["", ":1", "host:0", "host:x", "host:70000", "tcp://host", "a b"] {
            assert!(broker(bad).is_err(), "{bad}");
        }
    }
}
